//! Reading a cursor in its order: what lies behind a position, with a position at the end of each piece.
//!
//! Rows are hashed only where it matters: those of the value at which the reading begins, and of the value at which a piece ends.

use std::sync::Arc;

use tiberius::{ColumnData, Row};
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
            making.take(&row, to, &patience.stop).await?;
        }
        making.send(Ends::All, to, &patience.stop).await?;
        drop(incoming);
        session.calm();
        Ok(())
    }
}

/// After so many pieces without a position there is one, however long.
const OWED: usize = 8;

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
    /// So many pieces were sent that end nowhere, because too many rows have the same value.
    owed: usize,
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
        Self { job, rows, value: None, begins: 0, head: 0, in_head: false, before, wanted, stand, owed: 0 }
    }

    /// Takes a row in, and sends the piece when it is time.
    async fn take(&mut self, row: &Row, to: &Pieces, stop: &CancellationToken) -> Result<()> {
        let cell = row.get_column_data(self.job.cursor);
        let cell = cell.map_err(|error| Error::data("a row has no cursor").because(error))?;
        if !self.value.as_ref().is_some_and(|value| value.is(cell)) {
            if self.owed >= OWED {
                self.send(Ends::Value, to, stop).await?;
            }
            self.turn(cell)?;
        }
        self.rows.push(row)?;
        if self.rows.is_full() {
            self.send(Ends::Anywhere, to, stop).await?;
        }
        Ok(())
    }

    /// Another value begins.
    fn turn(&mut self, cell: &ColumnData<'_>) -> Result<()> {
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
                if filled.rows.num_rows() == 0 && self.owed == 0 {
                    return Ok(());
                }
                self.owed = 0;
                Mark::At(partition, stand.seam.position()?)
            }
            _ if filled.rows.num_rows() == 0 => return Ok(()),
            _ => {
                self.owed += 1;
                Mark::Within(partition)
            }
        };
        tokio::select! {
            sent = send(to, filled, mark) => sent,
            () = stop.cancelled() => Err(Error::cancelled()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tiberius::ColumnType;
    use tokio::sync::mpsc;
    use towpath_core::Next;
    use towpath_testkit::rows::lines;

    use super::*;
    use crate::{source::select::Selected, types::SqlType};

    /// A table: cursor, and something more.
    type Table = Vec<(i32, u8)>;

    fn job(from: Option<&Position>, until: Option<&Position>) -> Behind {
        let columns =
            [("c", SqlType::Int), ("v", SqlType::TinyInt)].map(|(name, of)| Selected { name: name.to_owned(), of });
        let selection = Arc::new(Selection::new("[t]".to_owned(), columns.into(), None).unwrap());
        let stand = |position: &Position| Stand::read(position, &SqlType::Int).unwrap();
        Behind {
            selection,
            partition: Partition::new("t"),
            cursor: 0,
            from: from.map(stand),
            until: until.map(|position| (stand(position), position.clone())),
        }
    }

    /// What a reading of a table gives, in pieces; the server's part is done here.
    fn read(
        table: &[(i32, u8)],
        from: Option<&Position>,
        until: Option<&Position>,
    ) -> Result<Vec<(Vec<String>, Mark)>> {
        let job = job(from, until);
        let (mut table, at) = (table.to_vec(), |stand: &Stand| stand.seam.cursor.parse::<i32>().unwrap());
        table.sort_by_key(|(cursor, _)| *cursor);
        table.retain(|(cursor, _)| job.from.as_ref().is_none_or(|from| *cursor >= at(from)));
        table.retain(|(cursor, _)| job.until.as_ref().is_none_or(|(until, _)| *cursor <= at(until)));
        let stop = CancellationToken::new();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (to, mut pieces) = mpsc::channel(1000);
            let mut making = Making::new(&job);
            for (cursor, value) in table {
                let row = Row::builder().column("c", ColumnType::Int4, ColumnData::I32(Some(cursor)));
                let row = row.column("v", ColumnType::Int1, ColumnData::U8(Some(value))).build();
                making.take(&row, &to, &stop).await?;
            }
            making.send(Ends::All, &to, &stop).await?;
            drop(to);
            let mut given = vec![];
            while let Some(next) = pieces.recv().await {
                let Next::Piece(piece) = next? else { panic!("a piece") };
                given.push((lines(&piece.rows), piece.mark));
            }
            Ok(given)
        })
    }

    fn all(given: &[(Vec<String>, Mark)]) -> Vec<String> {
        let mut all: Vec<_> = given.iter().flat_map(|(rows, _)| rows.clone()).collect();
        all.sort();
        all
    }

    /// Positions, with the number of pieces up to there.
    fn positions(given: &[(Vec<String>, Mark)]) -> Vec<(usize, Position)> {
        let at = |(number, (_, mark)): (usize, &(Vec<String>, Mark))| match mark {
            Mark::At(_, position) => Some((number + 1, position.clone())),
            _ => None,
        };
        given.iter().enumerate().filter_map(at).collect()
    }

    /// Long stretches of the same value, and rows that are alike, in more than one piece.
    fn table() -> impl Strategy<Value = Table> {
        let count = prop_oneof![1usize..300, 7000usize..9000];
        prop::collection::vec((0i32..6, 0u8..3, count), 0..7).prop_map(|stretches| {
            let stretches = stretches.into_iter();
            stretches.flat_map(|(cursor, value, count)| std::iter::repeat_n((cursor, value), count)).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn nothing_is_lost_or_doubled_at_any_seam(table in table(), later in table()) {
            let given = read(&table, None, None).unwrap();
            let everything = all(&given);
            prop_assert_eq!(everything.len(), table.len());
            let positions = positions(&given);
            prop_assert_eq!(positions.is_empty(), table.is_empty());
            if let Some((last, _)) = positions.last() {
                prop_assert_eq!(*last, given.len(), "the end is a position");
            }
            for (number, position) in &positions {
                let rest = read(&table, Some(position), None).unwrap();
                prop_assert_eq!(all(&rest), all(&given[*number..]), "from {}", position);
                let again = read(&table, None, Some(position)).unwrap();
                prop_assert_eq!(all(&again), all(&given[..*number]), "until {}", position);
                let end = again.last().map(|(_, mark)| mark.clone());
                prop_assert_eq!(end, Some(Mark::At(Partition::new("t"), position.clone())));
            }
            if let [(first, from), .., (last, until)] = positions.as_slice() {
                let between = read(&table, Some(from), Some(until)).unwrap();
                prop_assert_eq!(all(&between), all(&given[*first..*last]));
            }
            // Rows come later, some of the same value, some alike to the last letter: they and no others are read.
            if let Some((_, end)) = positions.last() {
                let top = table.iter().map(|(cursor, _)| *cursor).max().unwrap();
                let news: Table = later.into_iter().filter(|(cursor, _)| *cursor >= top).collect();
                let both: Table = table.iter().chain(&news).copied().collect();
                let more = read(&both, Some(end), None).unwrap();
                prop_assert_eq!(all(&more), all(&read(&news, None, None).unwrap()));
                let same = read(&both, None, Some(end)).unwrap();
                prop_assert_eq!(all(&same), everything, "what came later is not mixed in");
            }
        }
    }

    #[test]
    fn a_row_that_is_gone_is_a_conflict() {
        let table: Table = (0..9).map(|number| (number, 0)).collect();
        let (_, end) = positions(&read(&table, None, None).unwrap()).pop().unwrap();
        let error = read(&table[..8], None, Some(&end)).unwrap_err();
        assert_eq!(error.kind(), towpath_core::ErrorKind::Conflict, "{error}");
    }

    #[test]
    fn a_position_that_is_none_is_a_conflict() {
        for position in ["run=7", r#"{"cursor":"x","seen":{}}"#, r#"{"cursor":"1.5","seen":{}}"#] {
            let error = Stand::read(&Position::new(position), &SqlType::Int).unwrap_err();
            assert_eq!(error.kind(), towpath_core::ErrorKind::Conflict, "{error}");
        }
    }
}
