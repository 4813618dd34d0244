//! Reading a cursor in its order: what lies behind a position, with a position at the end of each piece.
//!
//! Rows are hashed only where it matters: those of the value at which the reading begins, and of the value at which a piece ends.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use towpath_core::{Error, Mark, Partition, Position, Result};
use towpath_formats::seam;

use super::{
    cells::Rows,
    cursor::Value,
    incoming::{Incoming, Patience},
    piece::{Pieces, Stand, changed, keys, send, without},
    select::{Selection, Statement, Stretch},
};
use crate::client::Session;

/// What is to be read.
#[derive(Clone, Debug)]
pub(crate) struct Behind {
    pub(crate) selection: Arc<Selection>,
    pub(crate) partition: Partition,
    /// The number of the cursor's column.
    pub(crate) cursor: usize,
    /// Begin behind this.
    pub(crate) from: Option<Stand>,
    /// End exactly here; with the position as it is written in the checkpoint.
    pub(crate) until: Option<(Stand, Position)>,
}

impl Behind {
    /// The statement that reads it.
    pub(crate) fn statement(&self) -> Result<Statement> {
        let column = self.selection.columns.get(self.cursor).ok_or_else(|| Error::internal("no cursor"))?;
        let stretch = Stretch {
            from: self.from.as_ref().map(|from| &from.value),
            to: self.until.as_ref().map(|(until, _)| &until.value),
        };
        Ok(self.selection.in_order(column, stretch))
    }

    /// Reads to the end and sends pieces.
    pub(crate) async fn read(
        &self,
        session: &mut Session,
        patience: &Patience,
        begun: impl FnOnce() + Send,
        to: &Pieces,
    ) -> Result<()> {
        let statement = self.statement()?;
        let mut incoming = Incoming::begin(session, &statement, "read rows", patience).await?;
        begun();
        let mut making = Making::new(self);
        while let Some(row) = incoming.next().await? {
            let cell =
                row.get_column_data(self.cursor).map_err(|error| Error::data("a row has no cursor").because(error))?;
            if !making.value.as_ref().is_some_and(|value| value.is(cell)) {
                if making.owed {
                    making.send(Ends::Value, to, &patience.stop).await?;
                }
                making.turn(cell)?;
            }
            making.rows.push(&row, None)?;
            if making.rows.is_full() {
                making.send(Ends::Anywhere, to, &patience.stop).await?;
            }
        }
        making.send(Ends::All, to, &patience.stop).await?;
        drop(incoming);
        session.calm();
        Ok(())
    }
}

/// Where a piece ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ends {
    /// Perhaps in the middle of a value's rows.
    Anywhere,
    /// Behind the last row of a value.
    Value,
    /// Behind the last row.
    All,
}

/// A piece in the making.
struct Making<'a> {
    job: &'a Behind,
    rows: Rows,
    /// The value of the last row, and where its rows begin in the piece.
    value: Option<Value>,
    begins: usize,
    /// So many rows of the piece have the value at which the reading begins.
    head: usize,
    in_head: bool,
    /// Of the value we begin at: what was read before. Of the value we end at: what belongs to it.
    before: seam::Seen,
    wanted: seam::Seen,
    /// Up to where pieces have been made.
    stand: Option<Stand>,
    /// A piece was sent that ends nowhere.
    owed: bool,
}

impl<'a> Making<'a> {
    fn new(job: &'a Behind) -> Self {
        let before = job.from.as_ref().map(|from| from.seam.seen.clone()).unwrap_or_default();
        let mut wanted = job.until.as_ref().map(|(until, _)| until.seam.seen.clone()).unwrap_or_default();
        if let (Some(from), Some((until, _))) = (&job.from, &job.until)
            && from.value == until.value
        {
            for (key, count) in &from.seam.seen {
                seam::take(&mut wanted, key, *count);
            }
        }
        let rows = Rows::new(&job.selection.schema);
        let stand = job.from.clone();
        Self { job, rows, value: None, begins: 0, head: 0, in_head: false, before, wanted, stand, owed: false }
    }

    /// Another value begins.
    fn turn(&mut self, cell: &tiberius::ColumnData<'_>) -> Result<()> {
        let column = self.job.selection.columns.get(self.job.cursor);
        let column = column.ok_or_else(|| Error::internal("no cursor"))?;
        let value = Value::of(cell, &column.of).map_err(|error| error.at(format!("column {}", column.name)))?;
        let value =
            value.ok_or_else(|| Error::data(format!("column {}: a cursor that is null was read", column.name)))?;
        if self.in_head {
            self.head = self.rows.count();
        }
        self.in_head = self.job.from.as_ref().is_some_and(|from| from.value == value);
        self.begins = self.rows.count();
        self.value = Some(value);
        Ok(())
    }

    async fn send(&mut self, ends: Ends, to: &Pieces, stop: &CancellationToken) -> Result<()> {
        let filled = self.rows.finish()?;
        let count = filled.rows.num_rows();
        let mut kept = vec![true; count];
        let head = if self.in_head { count } else { std::mem::take(&mut self.head) };
        self.head = 0;
        for (kept, key) in kept.iter_mut().zip(keys(&filled.rows, 0, head)?) {
            *kept = !seam::take(&mut self.before, &key, 1);
        }
        let begins = std::mem::take(&mut self.begins);
        if let (Some((until, _)), Some(value)) = (&self.job.until, &self.value) {
            if until.value == *value {
                // What is not wanted came later; the run after this one reads it.
                for (kept, key) in kept.iter_mut().skip(begins).zip(keys(&filled.rows, begins, count)?) {
                    *kept = *kept && seam::take(&mut self.wanted, &key, 1);
                }
            }
        } else if let Some(value) = &self.value {
            let seen = keys(&filled.rows, begins, count)?;
            let seen = seen.into_iter().zip(kept.iter().skip(begins)).filter(|(_, kept)| **kept).map(|(key, _)| key);
            let mut stand =
                self.stand.take().filter(|stand| stand.value == *value).unwrap_or_else(|| Stand::at(value.clone()));
            stand.saw(seen);
            let column =
                self.job.selection.columns.get(self.job.cursor).map_or("cursor", |column| column.name.as_str());
            stand.seam.check(&self.job.partition, column)?;
            self.stand = Some(stand);
        }
        let filled = without(filled, &kept)?;
        let partition = self.job.partition.clone();
        let mark = match (&self.job.until, &self.stand) {
            (Some((_, position)), _) if ends == Ends::All => {
                if !self.wanted.is_empty() {
                    return Err(changed(&self.job.partition));
                }
                // In the checkpoint's own words, so that it is equal to the letter.
                Mark::At(partition, position.clone())
            }
            (None, Some(stand)) if ends != Ends::Anywhere || stand.seam.is_short() => {
                if filled.rows.num_rows() == 0 && !self.owed {
                    return Ok(());
                }
                self.owed = false;
                Mark::At(partition, stand.seam.position()?)
            }
            _ if filled.rows.num_rows() == 0 => return Ok(()),
            _ => {
                self.owed = self.job.until.is_none();
                Mark::Within(partition)
            }
        };
        tokio::select! {
            sent = send(to, filled, mark) => sent,
            () = stop.cancelled() => Err(Error::cancelled()),
        }
    }
}
