//! From a batch to what has to be sent for it: every row is compared with what exists, and most need nothing. Makes no calls.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use arrow_array::RecordBatch;
use serde_json::{Map, Value};
use towpath_core::{ErrorKind, Reject, Result};

use crate::{
    cells::Cells,
    compare::{self, Desired, Mapped},
    config::{OnDuplicate, SinkOptions},
    existing::{Existing, lock},
    index::{Index, More, Record, State},
    shape::Shape,
    value,
};

/// One write that has to be sent.
#[derive(Clone, Debug)]
pub struct Job {
    /// The row of the batch in hand.
    pub row: usize,
    /// Its key.
    pub key: String,
    /// What it asks for.
    pub desired: Desired,
    /// What is done about it.
    pub work: Work,
}

/// What is done about a row.
#[derive(Clone, Debug)]
pub enum Work {
    /// A record is made.
    Create,
    /// A record is changed.
    Update {
        /// Its id.
        id: u64,
        /// The fields that differ, with what they are.
        changes: Vec<(usize, Value)>,
        /// What is sent.
        body: Map<String, Value>,
    },
}

/// A record that has the same key as others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Twin {
    /// The key.
    pub key: String,
    /// Its id.
    pub id: u64,
    /// What is done about it, in words.
    pub note: String,
}

/// What came of a batch.
#[derive(Debug, Default)]
pub struct Planned {
    /// What has to be sent, in the rows' order.
    pub jobs: Vec<Job>,
    /// Rows whose record is as they ask.
    pub equal: u64,
    /// Rows that are left out: a later one has their key, or the policies say so.
    pub left_out: u64,
    /// Rows that have a key.
    pub keyed: u64,
    /// Rows refused.
    pub rejected: Vec<Reject>,
    /// Records of which several have a row's key.
    pub twins: Vec<Twin>,
}

/// Which record a key stands for.
#[derive(Debug, PartialEq)]
pub enum Pick<'a> {
    /// None.
    Missing,
    /// One that somebody has put away.
    Archived,
    /// This one; the others have the same key.
    One(&'a Record, Vec<u64>),
    /// Several, and nothing says which.
    Several(Vec<u64>),
}

/// Which record a key stands for.
pub fn pick(records: &[Record], on_duplicate: OnDuplicate) -> Pick<'_> {
    let live: Vec<&Record> = records.iter().filter(|record| record.state != State::Archived).collect();
    let ids = |records: &[&Record]| records.iter().map(|record| record.id).collect();
    match (live.as_slice(), on_duplicate) {
        ([], _) if records.is_empty() => Pick::Missing,
        ([], _) => Pick::Archived,
        ([one], _) => Pick::One(one, vec![]),
        (several, OnDuplicate::Error) => Pick::Several(ids(several)),
        ([first, others @ ..], OnDuplicate::First) => Pick::One(first, ids(others)),
        ([others @ .., newest], OnDuplicate::Newest) => Pick::One(newest, ids(others)),
    }
}

/// What the rows of a batch need.
pub struct Planner<'a> {
    /// The config.
    pub options: &'a SinkOptions,
    /// What it asks, found in the account.
    pub shape: &'a Shape,
    /// What exists.
    pub index: &'a Mutex<Index>,
    /// What links look up, listed already; by [`Mapped::link`].
    pub linked: &'a [(Arc<Existing>, &'a Shape)],
    /// The number of the batch.
    pub batch: u32,
}

/// The columns that a field is made of.
struct Columns<'a> {
    mapped: &'a Mapped,
    value: Cells<'a>,
    currency: Option<Cells<'a>>,
}

impl<'a> Planner<'a> {
    /// Compares a batch with what exists.
    ///
    /// # Errors
    /// Internal: the rows are not as their schema.
    pub fn plan(&self, rows: &RecordBatch) -> Result<Planned> {
        let columns = self
            .shape
            .mapped
            .iter()
            .map(|mapped| {
                let currency = mapped.currency.as_ref().map(|currency| Cells::new(currency, rows)).transpose()?;
                Ok(Columns { mapped, value: Cells::new(&mapped.from, rows)?, currency })
            })
            .collect::<Result<Vec<_>>>()?;
        let mut planned = Planned::default();
        let mut buffers = (String::new(), String::new());
        // The last row of a key is the one that counts.
        let (mut keys, mut last) = (Vec::with_capacity(rows.num_rows()), HashMap::new());
        for row in 0..rows.num_rows() {
            let key = self.key(&columns, row, &mut buffers);
            if let Ok(key) = &key {
                last.insert(key.clone(), row);
                planned.keyed += 1;
            }
            keys.push(key);
        }
        let index = self.index;
        for (row, key) in keys.into_iter().enumerate() {
            let key = match key {
                Ok(key) if last.get(&key) != Some(&row) => {
                    lock(index).saw(&key, self.batch, true);
                    planned.left_out += 1;
                    continue;
                }
                Ok(key) => key,
                Err(why) => {
                    let field = &self.shape.mapped[self.shape.key];
                    planned.rejected.push(*self.reject(row, field, &why));
                    continue;
                }
            };
            // Found before the lock is taken: it asks the indexes of what is linked.
            let desired = self.desired(&columns, row, &mut buffers);
            let mut index = lock(index);
            // A row that is refused has been given all the same: its record is not one that the input no longer has.
            index.saw(&key, self.batch, false);
            match desired {
                Err(reject) => planned.rejected.push(*reject),
                Ok(desired) => self.row(&index, row, key, desired, &mut planned),
            }
        }
        Ok(planned)
    }

    fn row(&self, index: &Index, row: usize, key: String, desired: Desired, planned: &mut Planned) {
        let SinkOptions { entity, match_on, on_duplicate_match, create, update, .. } = self.options;
        let twins = |planned: &mut Planned, ids: &[u64], note: &str| {
            let twin = |id: &u64| Twin { key: key.clone(), id: *id, note: note.to_owned() };
            planned.twins.extend(ids.iter().map(twin));
        };
        match pick(index.get(&key), *on_duplicate_match) {
            Pick::Missing if *create => planned.jobs.push(Job { row, key, desired, work: Work::Create }),
            Pick::Missing | Pick::Archived => planned.left_out += 1,
            Pick::One(record, others) => {
                if !others.is_empty() {
                    twins(
                        planned,
                        &others,
                        &format!("has the same {match_on} as {}, which is the one kept equal", record.id),
                    );
                }
                let changes = compare::differing(&self.shape.mapped, &desired, record);
                if changes.is_empty() {
                    planned.equal += 1;
                } else if *update {
                    let body = compare::update_body(&self.shape.mapped, &desired, &changes, record);
                    planned.jobs.push(Job { row, key, desired, work: Work::Update { id: record.id, changes, body } });
                } else {
                    planned.left_out += 1;
                }
            }
            Pick::Several(ids) => {
                twins(planned, &ids, &format!("several have this {match_on}; the row is refused"));
                let all = ids.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
                let why = format!(
                    "{} {entity} have {match_on} = {key} (ids {all}); merge them, or set on_duplicate_match to first or newest",
                    ids.len()
                );
                planned.rejected.push(Reject::row(row, why).kind(ErrorKind::Conflict));
            }
        }
    }

    fn key(&self, columns: &[Columns<'_>], row: usize, buffers: &mut (String, String)) -> Result<String, String> {
        let column = &columns[self.shape.key];
        let text = column.value.get(row, &mut buffers.0);
        let value = value::from_row(&column.mapped.field.kind, text, None)?;
        value::key(&value).ok_or_else(|| "the row has no key".to_owned())
    }

    fn desired(
        &self,
        columns: &[Columns<'_>],
        row: usize,
        buffers: &mut (String, String),
    ) -> Result<Desired, Box<Reject>> {
        let mut values = Vec::with_capacity(columns.len());
        let mut linked = vec![None; columns.len()];
        for (at, Columns { mapped, value, currency }) in columns.iter().enumerate() {
            let text = value.get(row, &mut buffers.0);
            let found = match mapped.link {
                Some(link) => self.link(link, &mapped.field.name, text).map(|(id, shown)| {
                    linked[at] = shown;
                    id
                }),
                None => {
                    let currency = currency.as_ref().and_then(|currency| currency.get(row, &mut buffers.1));
                    value::from_row(&mapped.field.kind, text, currency)
                }
            };
            let value = found.map_err(|why| self.reject(row, mapped, &why))?;
            let required = !mapped.field.custom && mapped.field.code == self.options.entity.required();
            if required && value.is_null() {
                return Err(self.reject(row, mapped, "it is empty, and Pipedrive takes none without"));
            }
            values.push(value);
        }
        Ok(Desired::new(values, linked))
    }

    /// The id of what a key stands for, and what people read of it.
    fn link(&self, link: usize, name: &str, text: Option<&str>) -> Result<(Value, Option<Value>), String> {
        let options = &self.shape.links[link];
        let (existing, shape) = &self.linked[link];
        let key = value::from_row(&shape.mapped[shape.key].field.kind, text, None)?;
        let Some(key) = value::key(&key) else { return Ok((Value::Null, None)) };
        let one = options.entity.one();
        let index = existing.listed().ok_or("what is linked has not been listed")?;
        let id = match pick(index.get(&key), options.on_duplicate_match) {
            Pick::Missing | Pick::Archived => {
                return Err(format!("there is no {one} with {} = {key}", options.match_on));
            }
            Pick::Several(ids) => {
                let ids = ids.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
                return Err(format!(
                    "several {} have {} = {key} (ids {ids}); merge them, or set link.{name}.on_duplicate_match to first or newest",
                    options.entity, options.match_on
                ));
            }
            Pick::One(record, _) => record.id,
        };
        drop(index);
        let shown = existing.shown(id, Some(&key));
        // One that is yet to be made, in a plan, is told from others by its key.
        Ok((if id == 0 { Value::from(key) } else { Value::from(id) }, shown))
    }

    fn reject(&self, row: usize, mapped: &Mapped, why: &str) -> Box<Reject> {
        let reject = Reject::row(row, format!("{}: {why}", mapped.field.name));
        Box::new(match &mapped.from {
            crate::config::Source::Column(column) => reject.column(column),
            crate::config::Source::Fixed(_) => reject,
        })
    }
}

/// A record is as a job has made it.
pub fn note(existing: &Existing, key: &str, id: u64, desired: &Desired, more: More) {
    let Some(mut index) = existing.listed() else { return };
    if index.get(key).iter().any(|record| record.id == id) {
        index.update(key, id, desired.text.as_str().into(), more);
    } else {
        let values = desired.text.as_str().into();
        existing.has_made(id);
        index.insert(Some(key.to_owned()), Record { id, values, more, state: State::Live });
    }
}

/// The highest id known so far.
pub async fn highest(existing: &Existing) -> Result<u64> {
    Ok(lock(existing.index().await?).highest)
}
