//! What the account holds, in little memory: by key, a record's id and the canonical values of the fields that are compared.
//!
//! A record's values are one JSON text. A row is brought into the same form, so that nearly all comparisons are one of bytes; only what
//! differs is taken apart.

use std::collections::HashMap;

use serde_json::Value;

/// Contacts of which more has to be kept than the primary one, by field.
pub type More = Option<Box<[(usize, Value)]>>;

/// A record.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its id; 0 while it is one that a plan would make.
    pub id: u64,
    /// The values of the fields, in their order, as a JSON array.
    pub values: Box<str>,
    /// Contacts of which more has to be kept than the primary one, by field.
    pub more: More,
    /// Where it is in its life.
    pub state: State,
}

/// Where a record is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// In use.
    #[default]
    Live,
    /// A deal that is won or lost.
    Closed,
    /// A deal that somebody has put away: it is known, and left alone.
    Archived,
}

/// The records of one key.
#[derive(Clone, Debug, Default)]
pub struct Slot {
    /// By id, the oldest first.
    pub records: Records,
    /// Whether rows had this key.
    pub seen: Seen,
}

/// Whether rows had a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Seen {
    /// None so far.
    #[default]
    Never,
    /// One, in the batch of this number.
    Once(u32),
    /// Several.
    Often,
}

/// Nearly always one.
#[derive(Clone, Debug, Default)]
pub enum Records {
    /// None: it was deleted.
    #[default]
    None,
    /// One.
    One(Record),
    /// Several.
    Many(Vec<Record>),
}

impl Records {
    /// All of them, the oldest first.
    pub fn all(&self) -> &[Record] {
        match self {
            Self::None => &[],
            Self::One(record) => std::slice::from_ref(record),
            Self::Many(records) => records,
        }
    }
    fn insert(&mut self, record: Record) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(record),
            // A page that shifted may give a record twice.
            Self::One(known) if known.id == record.id => Self::One(record),
            Self::One(known) => {
                let mut records = vec![known, record];
                records.sort_by_key(|record| record.id);
                Self::Many(records)
            }
            Self::Many(mut records) => {
                match records.iter_mut().find(|known| known.id == record.id) {
                    Some(known) => *known = record,
                    None => records.push(record),
                }
                records.sort_by_key(|record| record.id);
                Self::Many(records)
            }
        };
    }
    fn remove(&mut self, id: u64) {
        *self = match std::mem::take(self) {
            Self::One(known) if known.id == id => Self::None,
            Self::Many(mut records) => {
                records.retain(|known| known.id != id);
                match <[Record; 1]>::try_from(records) {
                    Ok([one]) => Self::One(one),
                    Err(records) if records.is_empty() => Self::None,
                    Err(records) => Self::Many(records),
                }
            }
            other => other,
        };
    }
}

/// What the account holds of one kind.
#[derive(Clone, Debug, Default)]
pub struct Index {
    slots: HashMap<Box<str>, Slot>,
    /// The highest id that is known to have been given.
    pub highest: u64,
    /// Records without a key: known, and never touched.
    pub keyless: u64,
    /// Ids between which two pages met, with others in between: one of those may have been shifted out of sight.
    pub gaps: Vec<(u64, u64)>,
    /// Keys that several rows had.
    pub repeated: Repeated,
}

/// So many keys of several rows are named.
const REPEATED_NAMED: usize = 5;

/// Keys that several rows had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repeated {
    /// How many.
    pub keys: u64,
    /// The first of these.
    pub examples: Vec<Box<str>>,
}

impl Index {
    /// Notes a record.
    pub fn insert(&mut self, key: Option<String>, record: Record) {
        self.highest = self.highest.max(record.id);
        match key {
            None => self.keyless += 1,
            Some(key) => self.slots.entry(key.into_boxed_str()).or_default().records.insert(record),
        }
    }
    /// A record is no longer there.
    pub fn remove(&mut self, key: &str, id: u64) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.records.remove(id);
        }
    }
    /// The records of a key, the oldest first.
    pub fn get(&self, key: &str) -> &[Record] {
        self.slots.get(key).map_or(&[], |slot| slot.records.all())
    }
    /// The key of a record. Looks at all of them.
    pub fn key_of(&self, id: u64) -> Option<&str> {
        self.iter().find(|(_, slot)| slot.records.all().iter().any(|record| record.id == id)).map(|(key, _)| key)
    }
    /// A row of the batch of this number has this key; `again`: another one of the batch has it as well. The same batch may be gone
    /// through twice.
    pub fn saw(&mut self, key: &str, batch: u32, again: bool) {
        let slot = match self.slots.get_mut(key) {
            Some(slot) => slot,
            None => self.slots.entry(key.into()).or_default(),
        };
        slot.seen = match slot.seen {
            Seen::Often => return,
            Seen::Never if !again => Seen::Once(batch),
            Seen::Once(before) if before == batch && !again => return,
            Seen::Never | Seen::Once(_) => Seen::Often,
        };
        if slot.seen == Seen::Often {
            self.repeated.keys += 1;
            if self.repeated.examples.len() < REPEATED_NAMED {
                self.repeated.examples.push(key.into());
            }
        }
    }
    /// How many keys rows had.
    pub fn seen(&self) -> u64 {
        self.slots.values().filter(|slot| slot.seen != Seen::Never).count() as u64
    }
    /// A record's values are these now.
    pub fn update(&mut self, key: &str, id: u64, values: Box<str>, more: More) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let records = match &mut slot.records {
            Records::None => return,
            Records::One(record) => std::slice::from_mut(record),
            Records::Many(records) => records.as_mut_slice(),
        };
        if let Some(record) = records.iter_mut().find(|record| record.id == id) {
            record.values = values;
            record.more = more;
        }
    }
    /// The keys that have records, with their records and whether a row had them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Slot)> {
        self.slots.iter().map(|(key, slot)| (&**key, slot)).filter(|(_, slot)| !slot.records.all().is_empty())
    }
    /// How many records have a key.
    pub fn keyed(&self) -> u64 {
        self.slots.values().map(|slot| slot.records.all().len() as u64).sum()
    }
    /// Nothing more is to come.
    pub fn shrink(&mut self) {
        self.slots.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: u64) -> Record {
        Record { id, values: format!("[{id}]").into(), more: None, state: State::Live }
    }

    #[test]
    fn records_are_kept_by_key_and_id() {
        let mut index = Index::default();
        for (key, id) in [("a", 3), ("a", 1), ("b", 2), ("a", 3)] {
            index.insert(Some(key.to_owned()), record(id));
        }
        index.insert(None, record(9));
        let ids = |index: &Index, key| index.get(key).iter().map(|record| record.id).collect::<Vec<_>>();
        assert_eq!((ids(&index, "a"), ids(&index, "b"), ids(&index, "c")), (vec![1, 3], vec![2], vec![]));
        assert_eq!((index.highest, index.keyed(), index.keyless), (9, 3, 1));
        assert_eq!((index.key_of(2), index.key_of(3), index.key_of(9)), (Some("b"), Some("a"), None));
        index.update("a", 3, "[0]".into(), None);
        assert_eq!(&*index.get("a")[1].values, "[0]");
        index.remove("a", 1);
        index.remove("b", 2);
        assert_eq!((ids(&index, "a"), ids(&index, "b")), (vec![3], vec![]));
        index.saw("a", 0, false);
        index.saw("c", 0, false);
        let seen: Vec<_> = index.iter().map(|(key, slot)| (key, slot.seen)).collect();
        assert_eq!(seen, [("a", Seen::Once(0))], "a key without records is none");
        for (key, batch, again, expected, seen) in [
            ("a", 0, false, "", 2),
            ("a", 1, false, "a", 2),
            ("d", 1, true, "a d", 3),
            ("d", 1, false, "a d", 3),
            ("d", 2, false, "a d", 3),
        ] {
            index.saw(key, batch, again);
            let Repeated { keys, examples } = &index.repeated;
            let found = (examples.join(" "), *keys, index.seen());
            let count = expected.split_whitespace().count() as u64;
            assert_eq!(found, (expected.to_owned(), count, seen), "{key} {batch} {again}");
        }
    }
}
