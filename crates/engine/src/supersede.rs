//! Which dead letters are superseded: a row that replaces others by its key, refused once and sent again later, must not take the place
//! of newer data. See `docs/decisions` on dead letters that are sent again.
//!
//! A letter of an upserting sink is superseded when a later row of its key is given to the sink (accepted or refused), as far as the
//! sink [says its key columns](towpath_core::Sink::key_columns); when a later run gives it every row of its input; and, of a sink that
//! does not say them, when a later run gives it any row. Marks are stored before the rows are committed: a crash in between
//! supersedes too much, never too little, and those rows are read again anyway.

use std::collections::{BTreeMap, HashSet};

use arrow_array::RecordBatch;
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::FieldRef;
use sha2::{Digest as _, Sha256};
use towpath_core::{Error, Name, Original, Reject, Result, Run};

use crate::state::{StateStore, letters::Superseded};

/// A key, by which it is known again.
pub(crate) type KeyHash = [u8; 16];

/// So many keys of dead letters are watched; beyond, any later row supersedes.
const MOST: usize = 100_000;

/// The keys of rows.
pub(crate) fn keys(columns: &[String], rows: &RecordBatch) -> Result<Vec<KeyHash>> {
    let options = FormatOptions::default();
    let broken = |error| Error::internal("a key cannot be read").because(error);
    let columns = columns.iter().map(|name| {
        // A target may write a name with other capitals.
        let alike = |field: &FieldRef| field.name().to_lowercase() == name.to_lowercase();
        let place = || rows.schema_ref().fields().iter().position(alike);
        let column = rows.column_by_name(name).or_else(|| place().map(|at| rows.column(at)));
        column.ok_or_else(|| Error::config(format!("the key column '{name}' is not among the sink's columns")))
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let formatters = columns.iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options).map_err(broken));
    let formatters = formatters.collect::<Result<Vec<_>>>()?;
    let (mut keys, mut text) = (Vec::with_capacity(rows.num_rows()), String::new());
    for row in 0..rows.num_rows() {
        let mut hash = Sha256::new();
        for (column, formatter) in columns.iter().zip(&formatters) {
            if column.is_null(row) {
                hash.update([0]);
            } else {
                text.clear();
                formatter.value(row).write(&mut text).map_err(broken)?;
                hash.update([1]);
                hash.update((text.len() as u64).to_le_bytes());
                hash.update(&text);
            }
        }
        let mut key = KeyHash::default();
        key.copy_from_slice(&hash.finalize()[..16]);
        keys.push(key);
    }
    Ok(keys)
}

/// Watches the rows of one upserting sink.
pub(crate) struct Watcher {
    store: StateStore,
    pipeline: Name,
    sink: Name,
    run: String,
    /// `None`: the sink does not say.
    columns: Option<Vec<String>>,
    /// Keys of dead letters.
    open: HashSet<KeyHash>,
    /// Too many to watch.
    overflow: bool,
    /// Keys of dead letters that rows of this epoch had, and whether the last of them was refused.
    touched: BTreeMap<KeyHash, bool>,
    gave: bool,
    /// Rows refused since it was opened.
    refused: usize,
    /// The letters of earlier runs are marked.
    marked: bool,
}

impl Watcher {
    pub(crate) fn new(
        store: StateStore,
        pipeline: &Name,
        sink: &Name,
        run: &Run,
        columns: Option<Vec<String>>,
    ) -> Result<Self> {
        let known = if columns.is_some() { store.letter_keys(pipeline, sink, MOST + 1)? } else { vec![] };
        Ok(Self {
            store,
            pipeline: pipeline.clone(),
            sink: sink.clone(),
            run: run.id.to_string(),
            columns,
            overflow: known.len() > MOST,
            open: known.into_iter().collect(),
            touched: BTreeMap::new(),
            gave: false,
            refused: 0,
            marked: false,
        })
    }

    /// A batch was given; these of its rows were refused.
    pub(crate) fn gave(&mut self, rows: &RecordBatch, rejects: &[Reject]) -> Result<()> {
        self.gave |= rows.num_rows() > 0;
        self.refused += rejects.len();
        let Some(columns) = &self.columns else { return Ok(()) };
        if self.open.is_empty() && rejects.is_empty() {
            return Ok(());
        }
        let refused: HashSet<usize> = rejects
            .iter()
            .filter_map(|reject| if let Original::Row(row) = reject.row { Some(row) } else { None })
            .collect();
        for (row, key) in keys(columns, rows)?.into_iter().enumerate() {
            let refused = refused.contains(&row);
            if refused {
                self.open.insert(key);
            }
            if refused || self.open.contains(&key) {
                self.touched.insert(key, refused);
            }
        }
        self.note_late(rejects)?;
        self.overflow |= self.open.len() > MOST;
        Ok(())
    }

    /// Rows that were refused behind the call that gave them.
    pub(crate) fn late(&mut self, rejects: &[Reject]) -> Result<()> {
        self.refused += rejects.len();
        self.note_late(rejects)
    }

    fn note_late(&mut self, rejects: &[Reject]) -> Result<()> {
        let Some(columns) = &self.columns else { return Ok(()) };
        for reject in rejects {
            if let Original::Late(row) = &reject.row {
                for key in keys(columns, row)? {
                    self.open.insert(key);
                    self.touched.insert(key, true);
                }
            }
        }
        Ok(())
    }

    /// Stores what an epoch supersedes, before it is committed. `whole`: with it the run has given every row of the input.
    pub(crate) fn settle(&mut self, epoch: u64, whole: bool) -> Result<()> {
        let all = whole || (self.gave && !self.marked && (self.columns.is_none() || self.overflow));
        if all {
            let mark = [(vec![], epoch)];
            self.store.supersede(&self.pipeline, &self.sink, mark, Some(&self.run))?;
            self.marked = true;
            if whole && self.touched.is_empty() && self.refused == 0 {
                // No letter is left that one of these keys could be of.
                self.store.forget_letter_keys(&self.pipeline, &self.sink)?;
                self.open.clear();
            }
        }
        if !self.touched.is_empty() {
            let touched = std::mem::take(&mut self.touched);
            let marks = touched.into_iter().map(|(key, refused)| {
                // A letter of this very epoch is the newest there is of its key.
                (key.to_vec(), if refused { epoch.saturating_sub(1) } else { epoch })
            });
            self.store.supersede(&self.pipeline, &self.sink, marks, None)?;
        }
        self.gave = false;
        Ok(())
    }
}

/// Whether a letter is superseded.
pub(crate) fn is_superseded(
    store: &StateStore,
    pipeline: &Name,
    sink: &Name,
    letter: &crate::dead_letters::Entry,
    key: Option<&KeyHash>,
) -> Result<bool> {
    if let Some(Superseded { upto, but_run }) = store.superseded(pipeline, sink, &[])? {
        let before = match letter.as_of {
            // It was sent again behind all that was marked then, so only what was marked later counts.
            Some(as_of) => as_of < upto,
            None => letter.epoch <= upto && but_run.as_deref() != Some(&*letter.run),
        };
        if before {
            return Ok(true);
        }
    }
    let Some(key) = key else { return Ok(false) };
    // Its own key was not marked so far when it was sent again, or it would have been left out.
    let of_key = store.superseded(pipeline, sink, key)?;
    Ok(of_key.is_some_and(|of_key| letter.as_of.unwrap_or(letter.epoch) <= of_key.upto))
}
