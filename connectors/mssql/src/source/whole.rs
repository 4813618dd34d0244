//! Reading everything, or everything behind a cursor, in ranges side by side: whole or nothing.
//!
//! Rows come in no order. Without a cursor the position says how many rows there were and the sum of their hashes, by which a second reading
//! can tell whether it gives the same. With one the highest value is looked up first, and nothing beyond it is read.

use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;
use towpath_core::{Error, Mark, Partition, Position, Result};
use towpath_formats::seam;

use super::{
    cells::{Filled, Rows},
    cursor::Value,
    incoming::{Incoming, Patience, ask},
    piece::{Pieces, Stand, changed, keys, send, without},
    ranges,
    select::{Range, Selected, Selection, Statement, Stretch},
    sum::{Sum, Summing},
};
use crate::client::Session;

/// What is to be read.
#[derive(Clone, Debug)]
pub(crate) struct Whole {
    pub(crate) selection: Arc<Selection>,
    pub(crate) partition: Partition,
    /// The run, for the position of a reading without cursor.
    pub(crate) run: Arc<str>,
    /// The cursor, and between which of its values, `to` included.
    pub(crate) cursor: Option<Bounded>,
    /// End exactly here.
    pub(crate) until: Option<Position>,
    /// One statement for each range.
    pub(crate) statements: Vec<Statement>,
}

/// A cursor with a known upper end.
#[derive(Clone, Debug)]
pub(crate) struct Bounded {
    pub(crate) column: usize,
    pub(crate) from: Option<Stand>,
    pub(crate) to: Value,
    /// Of the upper end: the rows that belong to it, if another reading has decided that.
    pub(crate) wanted: Option<seam::Seen>,
}

/// What the readers of ranges know of each other.
#[derive(Debug, Default)]
pub(crate) struct Together {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Ranges that were read to their end.
    ended: usize,
    sum: Sum,
    sent: bool,
    before: seam::Seen,
    wanted: seam::Seen,
    /// Of the upper end: what was read.
    seen: Vec<String>,
}

impl Whole {
    /// Makes out what is to be read. None: nothing lies behind the cursor.
    pub(crate) async fn plan(
        mut self,
        session: &mut Session,
        patience: &Patience,
        cursor: Option<(usize, Option<Stand>, Option<Stand>)>,
        by: Option<(usize, usize)>,
    ) -> Result<Option<Self>> {
        let selection = Arc::clone(&self.selection);
        let column = |at: usize| selection.columns.get(at).ok_or_else(|| Error::internal("no such column"));
        if let Some((at, from, until)) = cursor {
            let stretch = Stretch { from: from.as_ref().map(|from| &from.value), to: None };
            let to = match &until {
                Some(until) => Some(until.value.clone()),
                None => edge(session, &selection, column(at)?, Some((column(at)?, stretch)), true, patience).await?,
            };
            let Some(to) = to else { return Ok(None) };
            self.cursor = Some(Bounded { column: at, from, to, wanted: until.map(|until| until.seam.seen) });
        }
        let stretch = match &self.cursor {
            Some(bounded) => {
                let stretch = Stretch { from: bounded.from.as_ref().map(|from| &from.value), to: Some(&bounded.to) };
                Some((column(bounded.column)?, stretch))
            }
            None => None,
        };
        self.statements = match by {
            None => vec![selection.all(stretch, None)],
            Some((by, count)) => {
                let by = column(by)?;
                let low = edge(session, &selection, by, stretch, false, patience).await?;
                let high = edge(session, &selection, by, stretch, true, patience).await?;
                let bounds = low.zip(high).map(|(low, high)| ranges::bounds(&low, &high, count)).unwrap_or_default();
                let ends = |number: usize| bounds.get(number);
                (0..=bounds.len())
                    .map(|number| {
                        let from = number.checked_sub(1).and_then(ends);
                        selection.all(stretch, Some(Range { column: by, from, to: ends(number) }))
                    })
                    .collect()
            }
        };
        Ok(Some(self))
    }

    /// What the readers share at the beginning.
    pub(crate) fn together(&self) -> Together {
        let mut state = State::default();
        if let Some(bounded) = &self.cursor {
            state.before = bounded.from.as_ref().map(|from| from.seam.seen.clone()).unwrap_or_default();
            state.wanted = bounded.wanted.clone().unwrap_or_default();
            if let Some(from) = bounded.from.as_ref().filter(|from| from.value == bounded.to) {
                for (key, count) in &from.seam.seen {
                    seam::take(&mut state.wanted, key, *count);
                }
            }
        }
        Together { state: Mutex::new(state) }
    }

    /// Reads one range.
    pub(crate) async fn read(
        &self,
        number: usize,
        together: &Together,
        session: &mut Session,
        patience: &Patience,
        begun: impl FnOnce() + Send,
        to: &Pieces,
    ) -> Result<()> {
        let statement = self.statements.get(number).ok_or_else(|| Error::internal("no such range"))?;
        let mut incoming = Incoming::begin(session, statement, "read rows", patience).await?;
        begun();
        let (mut rows, mut summing) = (Rows::new(&self.selection.schema), Summing::default());
        // The rows at the cursor's two ends, by their number in the piece.
        let (mut low, mut high) = (vec![], vec![]);
        loop {
            let row = incoming.next().await?;
            if let Some(row) = &row {
                if let Some(bounded) = &self.cursor {
                    let cell = row.get_column_data(bounded.column);
                    let cell = cell.map_err(|error| Error::data("a row has no cursor").because(error))?;
                    if bounded.from.as_ref().is_some_and(|from| from.value.is(cell)) {
                        low.push(rows.count());
                    }
                    if bounded.to.is(cell) {
                        high.push(rows.count());
                    }
                }
                rows.push(row)?;
            }
            if row.is_none() || rows.is_full() {
                let filled = together.take(rows.finish()?, &low, &high, self)?;
                low.clear();
                high.clear();
                if self.cursor.is_none() {
                    summing.add(&filled.rows).await?;
                }
                self.send(filled, together, &patience.stop, to).await?;
            }
            if row.is_none() {
                break;
            }
        }
        drop(incoming);
        session.calm();
        let sum = summing.finish().await?;
        let mut state = together.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.sum = state.sum.with(sum);
        Ok(())
    }

    async fn send(&self, filled: Filled, together: &Together, stop: &CancellationToken, to: &Pieces) -> Result<()> {
        if filled.rows.num_rows() == 0 {
            return Ok(());
        }
        together.state.lock().unwrap_or_else(PoisonError::into_inner).sent = true;
        tokio::select! {
            sent = send(to, filled, Mark::Within(self.partition.clone())) => sent,
            () = stop.cancelled() => Err(Error::cancelled()),
        }
    }

    /// All ranges have been read: the position behind them.
    pub(crate) async fn finish(&self, together: &Together, to: &Pieces) -> Result<()> {
        let state = std::mem::take(&mut *together.state.lock().unwrap_or_else(PoisonError::into_inner));
        let position = match &self.cursor {
            None => {
                let Sum { rows, hash } = state.sum;
                let position = Position::new(format!("run={} rows={rows} sum={hash:032x}", self.run));
                if self.until.as_ref().is_some_and(|until| *until != position) {
                    return Err(changed(&self.partition));
                }
                position
            }
            Some(bounded) => match &self.until {
                Some(_) if !state.wanted.is_empty() => return Err(changed(&self.partition)),
                Some(until) => until.clone(),
                None if !state.sent => return Ok(()),
                None => {
                    let from = bounded.from.clone().filter(|from| from.value == bounded.to);
                    let mut stand = from.unwrap_or_else(|| Stand::at(bounded.to.clone()));
                    stand.saw(state.seen);
                    let column =
                        self.selection.columns.get(bounded.column).map_or("cursor", |column| column.name.as_str());
                    stand.seam.check(&self.partition, column)?;
                    stand.seam.position()?
                }
            },
        };
        let end = Rows::new(&self.selection.schema).finish()?;
        send(to, end, Mark::At(self.partition.clone(), position)).await
    }
}

impl Together {
    /// A range has ended well; whether it was the last one of so many.
    pub(crate) fn ended(&self, all: usize) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.ended += 1;
        state.ended == all
    }

    /// Leaves out what was read before, and what is not to be read yet.
    fn take(&self, filled: Filled, low: &[usize], high: &[usize], job: &Whole) -> Result<Filled> {
        if low.is_empty() && high.is_empty() {
            return Ok(filled);
        }
        let mut kept = vec![true; filled.rows.num_rows()];
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let key = |row: usize| -> Result<String> { Ok(keys(&filled.rows, row, row + 1)?.pop().unwrap_or_default()) };
        for row in low {
            let known = seam::take(&mut state.before, &key(*row)?, 1);
            if let Some(kept) = kept.get_mut(*row) {
                *kept = !known;
            }
        }
        for row in high {
            let Some(kept) = kept.get_mut(*row).filter(|kept| **kept) else { continue };
            let key = key(*row)?;
            if job.until.is_some() {
                *kept = seam::take(&mut state.wanted, &key, 1);
            } else {
                state.seen.push(key);
                if state.seen.len() > seam::SEEN_AT_MOST {
                    return Err(Error::config(format!(
                        "cursor: more than {} rows have its highest value",
                        seam::SEEN_AT_MOST
                    ))
                    .hint("take a column that tells rows apart better, a number or a time with a fraction"));
                }
            }
        }
        drop(state);
        without(filled, &kept)
    }
}

/// The lowest or highest value of a column; none if there is none.
async fn edge(
    session: &mut Session,
    selection: &Selection,
    column: &Selected,
    cursor: Option<(&Selected, Stretch<'_>)>,
    highest: bool,
    patience: &Patience,
) -> Result<Option<Value>> {
    let what = if highest { "look up the highest value" } else { "look up the lowest value" };
    let rows = ask(session, &selection.edge(column, cursor, highest), what, patience).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let cell = row.get_column_data(0).map_err(|error| Error::data("a row without a value").because(error))?;
    Value::of(cell, &column.of)
}
