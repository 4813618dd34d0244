//! The keys that were seen, in a fixed amount of memory.

use hashbrown::HashTable;

/// A set of 128-bit hashes that never takes more memory than it was given, also not while it grows.
///
/// Many small tables instead of one: a table grows by doubling, with the old one still there, so one large table could
/// use hardly more than a third of the memory.
pub(crate) struct Seen {
    tables: Vec<HashTable<u128>>,
    /// Keys in each table, at most.
    most: usize,
}

/// What became of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Met {
    /// It was not there before, and is now.
    New,
    /// It was there.
    Known,
    /// It is not there, and there is no room for it.
    NoRoom,
}

impl Seen {
    /// The least memory it can work with.
    pub(crate) const LEAST: u64 = 64 << 10;

    /// An empty set for `memory` bytes, at least [`LEAST`](Self::LEAST).
    pub(crate) fn new(memory: u64) -> Self {
        let memory = memory.max(Self::LEAST);
        // A table of 2^n slots takes a key and a byte for each, and some bytes at its end.
        let bytes = |slots: u32| (17u64 << slots) + 64;
        let slots = (6..=26).rev().find(|slots| memory / bytes(*slots) > 32).unwrap_or(6);
        // Room for one of them to grow: half a table more.
        let count = (memory - bytes(slots) / 2) / bytes(slots);
        let tables = (0..count).map(|_| HashTable::new()).collect();
        Self { tables, most: (1usize << slots) / 8 * 7 }
    }

    /// How many keys there is room for.
    pub(crate) fn room(&self) -> usize {
        self.tables.len() * self.most
    }

    /// Asks for a key, and keeps it.
    pub(crate) fn meet(&mut self, key: u128) -> Met {
        // The upper half tells the table, the lower half the slot.
        let table = (((key >> 64) * self.tables.len() as u128) >> 64) as usize;
        let Some(table) = self.tables.get_mut(table) else { return Met::NoRoom };
        let slot = |key: &u128| *key as u64;
        if table.find(slot(&key), |other| *other == key).is_some() {
            return Met::Known;
        }
        if table.len() >= self.most {
            return Met::NoRoom;
        }
        table.insert_unique(slot(&key), key, slot);
        Met::New
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// xorshift64*: hashes without a pattern.
    fn keys() -> impl Iterator<Item = u128> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d)
        };
        std::iter::from_fn(move || Some(u128::from(next()) << 64 | u128::from(next())))
    }

    #[test]
    fn it_keeps_to_its_memory_and_uses_most_of_it() {
        for memory in [0, 64 << 10, 100_000, 700_000] {
            let mut seen = Seen::new(memory);
            let given = memory.max(Seen::LEAST) as usize;
            let (mut news, mut peak) = (0, 0);
            for key in keys().take(seen.room() * 2) {
                let before: usize = seen.tables.iter().map(HashTable::allocation_size).sum();
                news += usize::from(seen.meet(key) == Met::New);
                let after: usize = seen.tables.iter().map(HashTable::allocation_size).sum();
                // While a table grows, the old one is still there.
                let growing = after.saturating_sub(before);
                peak = peak.max(after + growing);
            }
            assert!(peak <= given, "{memory}: {peak} of {given} bytes");
            assert!(seen.room() * 24 >= given, "{memory}: room for {} keys only", seen.room());
            assert_eq!(news, seen.room(), "{memory}: twice as many keys fill every table");
        }
    }

    #[test]
    fn what_was_seen_stays_known_when_there_is_no_room() {
        let mut seen = Seen::new(0);
        let kept: Vec<_> = keys().take(seen.room() * 2).filter(|key| seen.meet(*key) == Met::New).collect();
        assert!(kept.iter().all(|key| seen.meet(*key) == Met::Known));
        let other = keys().find(|key| !kept.contains(key)).expect("a key more");
        assert_eq!((seen.meet(other), seen.meet(other)), (Met::NoRoom, Met::NoRoom));
    }
}
