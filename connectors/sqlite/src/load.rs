//! What the sink does on the database's thread: looks up, stages, inserts row by row, swaps, commits.

use std::{ops::Range, path::PathBuf, sync::Arc, time::Duration};

use arrow_array::{RecordBatch, UInt64Array};
use arrow_schema::SchemaRef;
use arrow_select::take::take_record_batch;
use hashbrown::HashSet;
use rusqlite::Statement;
use tokio::sync::oneshot;
use towpath_core::{Checkpoint, Error, Original, Reject, Result, Run, WriteMode, Wrote};
use towpath_formats::{row_hash::row_hashes, spool::Spool};

use crate::{
    bind::{Bound, Scratch, Unfit},
    config::SinkOptions,
    error::{During as _, failed, refusal},
    fence::{self, Fence, Stand, staging_name},
    first::First,
    shape::{AT_ONCE, Ready, Shape, filter, widen},
    swap,
    table::{Table, quote},
    worker::{Writer, undone},
};

/// Keys remembered within an epoch, so that a row that takes another one's place is not counted as one more: 16 bytes each. Beyond,
/// it is counted so.
const REMEMBERED_KEYS: usize = 1 << 17;

/// An open sink.
pub(crate) struct Load {
    options: Arc<SinkOptions>,
    session: u64,
    fence: Fence,
    staging: String,
    generation: u64,
    shape: Option<Arc<Shape>>,
    unsure: Unsure,
    /// The rows of an epoch. They could wait in an open transaction instead, but then nobody else could write to the file for as long as a slow
    /// source takes to fill an epoch, nor raise the fence, nor could two sinks of one pipeline share the file.
    stage: Spool,
    /// Whether the target was empty when the epoch began; `None`: not looked yet.
    empty: Option<bool>,
    /// A first load under way.
    first: Option<First>,
    flushed: bool,
    scratch: Scratch,
}

/// What rows are inserted by.
struct Statements<'a> {
    one: &'a str,
    /// Inserts [`AT_ONCE`] rows, and fails for all of them if one is refused.
    many: Option<&'a str>,
    /// By row; may be shorter than the rows.
    leave_out: &'a [bool],
}

/// What became of a row.
enum Outcome {
    Written,
    Known,
    Refused(Reject),
}

impl Load {
    /// Raises the fence and reads the checkpoint, in one transaction.
    pub(crate) fn open(
        writer: &mut Writer,
        options: Arc<SinkOptions>,
        session: u64,
        (pipeline, sink): (&str, &str),
        run: &Run,
    ) -> Result<(Self, Option<Checkpoint>)> {
        let patience = options.lock_timeout.0;
        let (fence, checkpoint) = writer.shortly(patience, true, |writer| {
            Fence::raise(&writer.db, pipeline, sink, &options.table, options.write, run)
        })?;
        let dir = writer.path.parent().map_or_else(|| PathBuf::from("."), PathBuf::from);
        let load = Self {
            session,
            fence,
            staging: staging_name(pipeline, sink),
            generation: writer.generation,
            shape: None,
            unsure: Unsure::default(),
            // In the database's folder: a disk that holds the table holds its rows, and `/tmp` may be memory.
            stage: Spool::new(dir),
            empty: None,
            first: None,
            flushed: false,
            scratch: Scratch::new(),
            options,
        };
        Ok((load, checkpoint))
    }

    fn patience(&self) -> Duration {
        self.options.lock_timeout.0
    }

    fn alive(&self, writer: &Writer) -> Result<()> {
        if writer.generation == self.generation { Ok(()) } else { Err(undone()) }
    }

    /// Rows of a schema are to come.
    pub(crate) fn schema(&mut self, writer: &mut Writer, schema: &SchemaRef) -> Result<Arc<Shape>> {
        self.alive(writer)?;
        let shape = writer.shortly(self.patience(), true, |writer| {
            self.fence.check(&writer.db)?;
            let shape = Shape::make(&writer.db, &self.options, &self.staging, schema)?;
            if self.first.is_some()
                && let Some(staged) = Table::read(&writer.db, &self.staging)?
            {
                widen(&writer.db, &self.options, &self.staging, &staged, schema)?;
            }
            Ok(shape)
        })?;
        let shape = Arc::new(shape);
        self.shape = Some(Arc::clone(&shape));
        Ok(shape)
    }

    /// Whether rows are inserted as they come, so that it pays to make some ready while others are inserted.
    pub(crate) fn inserts_at_once(&self) -> bool {
        self.first.is_some() || self.options.write == WriteMode::Replace
    }

    /// Takes rows that are ready.
    pub(crate) fn write(&mut self, writer: &mut Writer, shape: &Arc<Shape>, mut ready: Ready) -> Result<Wrote> {
        self.alive(writer)?;
        let mut wrote = Wrote { known: ready.superseded, ..Wrote::default() };
        let mode = self.options.write;
        match mode {
            WriteMode::Replace if shape.numbers_rows => {
                self.insert_staged(writer, shape, &ready, &mut wrote)?;
            }
            WriteMode::InsertNew if self.is_first(writer)? => {
                self.insert_staged(writer, shape, &ready, &mut wrote)?;
                // Told by the flush, which knows better.
                (wrote.written, wrote.known) = (0, ready.superseded);
            }
            WriteMode::InsertNew if self.empty == Some(false) => {
                if !self.unsure.takes(shape, &ready) {
                    self.look_up(writer, &mut wrote)?;
                }
                wrote.rejected.append(&mut ready.rejected);
                self.unsure.push(shape, ready.rows, ready.cast);
                return Ok(wrote);
            }
            _ => self.stage.push(ready.rows)?,
        }
        wrote.rejected.append(&mut ready.rejected);
        Ok(wrote)
    }

    /// Whether this epoch is the first load of an empty table. Decided by its first rows.
    fn is_first(&mut self, writer: &mut Writer) -> Result<bool> {
        if self.empty.is_none() && self.is_empty(writer)? {
            self.first = writer.shortly(self.options.lock_timeout.0, false, |writer| {
                self.fence.check(&writer.db)?;
                First::begin(&writer.db, &self.options, &self.staging)
            })?;
        }
        Ok(self.first.is_some())
    }

    fn is_empty(&mut self, writer: &Writer) -> Result<bool> {
        if let Some(empty) = self.empty {
            return Ok(empty);
        }
        let sql = format!("SELECT NOT EXISTS (SELECT 1 FROM {})", quote(&self.options.table));
        let empty = writer.db.query_row(&sql, [], |row| row.get(0)).during("look into the table")?;
        Ok(*self.empty.insert(empty))
    }

    /// Stages those of the rows that wait which the target does not have. In one read transaction, so that SQLite does not look for
    /// changes at each row.
    fn look_up(&mut self, writer: &mut Writer, wrote: &mut Wrote) -> Result<()> {
        let doing = "look up keys";
        let Unsure { shape, batches, .. } = std::mem::take(&mut self.unsure);
        let Some(shape) = shape else { return Ok(()) };
        let Some(sql) = &shape.lookup else { return Err(Error::internal("rows wait that need not be looked up")) };
        let cells = batches.iter().map(|(_, cast)| Bound::all(cast, &shape.kinds)).collect::<Result<Vec<_>>>()?;
        let own = writer.db.is_autocommit();
        if own {
            writer.db.execute_batch("BEGIN").during(doing)?;
        }
        let looked = (|| {
            let mut find = writer.db.prepare_cached(sql).during(doing)?;
            let mut unknown: Vec<_> = batches.iter().map(|(_, cast)| vec![true; cast.num_rows()]).collect();
            'rows: for (batch, row) in in_order(&shape, &batches) {
                for (at, &key) in shape.key.iter().enumerate() {
                    match cells[batch][key].bind(&mut find, at + 1, row, &mut self.scratch) {
                        Ok(()) => {}
                        // It will be refused when it is inserted. It must not be looked up: the key before it is still bound.
                        Err(Unfit::Value(_)) => continue 'rows,
                        Err(Unfit::Sqlite(error)) => return Err(error).during(doing),
                    }
                }
                unknown[batch][row] = !find.raw_query().next().map(|row| row.is_some()).during(doing)?;
            }
            Ok(unknown)
        })();
        if own {
            writer.db.execute_batch("COMMIT").during(doing)?;
        }
        for ((rows, _), unknown) in batches.iter().zip(looked?) {
            let new = unknown.iter().filter(|unknown| **unknown).count();
            wrote.known += (unknown.len() - new) as u64;
            if new == unknown.len() {
                self.stage.push(rows.clone())?;
            } else if new > 0 {
                self.stage.push(filter(rows, unknown)?)?;
            }
        }
        Ok(())
    }

    /// `replace`: straight into the staging table, in a short transaction. What was staged after the last commit is told by the row
    /// numbers.
    fn insert_staged(&mut self, writer: &mut Writer, shape: &Shape, ready: &Ready, wrote: &mut Wrote) -> Result<()> {
        let patience = self.patience();
        writer.shortly(patience, false, |writer| {
            self.fence.check(&writer.db)?;
            let mut first = self.first.take();
            let known = match (&mut first, shape.hashes(&ready.cast)) {
                (Some(first), Some(hashes)) => hashes.iter().map(|hash| first.is_known(number(hash))).collect(),
                _ => vec![],
            };
            let many = shape.insert_staged_many.as_deref();
            let statements = Statements { one: &shape.insert_staged, many, leave_out: &known };
            let inserted = self.insert(writer, shape, statements, &ready.cast, |row, outcome| {
                match outcome {
                    Outcome::Written => {
                        wrote.written += 1;
                        first.iter_mut().for_each(First::inserted);
                    }
                    Outcome::Known => wrote.known += 1,
                    Outcome::Refused(mut reject) => {
                        reject.row = Original::Row(ready.origin(row));
                        wrote.rejected.push(reject);
                    }
                }
                Ok(())
            });
            self.first = first;
            inserted
        })
    }

    /// Inserts rows, but for those to be left out: a statement that fails undoes itself and nothing else, so one bad row costs
    /// one row. `many` inserts some at once; if it fails, they go one by one.
    fn insert(
        &mut self,
        writer: &Writer,
        shape: &Shape,
        Statements { one, many, leave_out }: Statements<'_>,
        rows: &RecordBatch,
        mut tell: impl FnMut(usize, Outcome) -> Result<()>,
    ) -> Result<()> {
        let doing = "insert rows";
        let cells = Bound::all(rows, &shape.kinds)?;
        let mut one = writer.db.prepare_cached(one).during(doing)?;
        let mut many = many.map(|many| writer.db.prepare_cached(many).during(doing)).transpose()?;
        // Until this one they go one by one.
        let (mut row, mut alone) = (0, 0);
        while row < rows.num_rows() {
            let next = row + AT_ONCE;
            if let Some(many) = many.as_mut().filter(|_| row >= alone && next <= rows.num_rows()) {
                alone = next;
                if !leave_out.get(row..next).is_some_and(|group| group.contains(&true))
                    && self.bind_all(many, &cells, row..next).is_ok()
                {
                    match many.raw_execute() {
                        Ok(_) => {
                            (row..next).try_for_each(|row| tell(row, Outcome::Written))?;
                            row = next;
                            continue;
                        }
                        Err(error) if writer.db.is_autocommit() => return Err(rolled_back(error)),
                        Err(_) => {}
                    }
                }
            }
            if leave_out.get(row) != Some(&true) {
                tell(row, self.insert_one(writer, &mut one, &cells, rows, row)?)?;
            }
            row += 1;
        }
        if writer.is_abandoned() { Err(Error::cancelled()) } else { Ok(()) }
    }

    fn bind_all(&mut self, to: &mut Statement<'_>, cells: &[Bound<'_>], rows: Range<usize>) -> Result<(), Unfit> {
        let mut at = 0;
        for row in rows {
            for column in cells {
                at += 1;
                column.bind(to, at, row, &mut self.scratch)?;
            }
        }
        Ok(())
    }

    fn insert_one(
        &mut self,
        writer: &Writer,
        insert: &mut Statement<'_>,
        cells: &[Bound<'_>],
        rows: &RecordBatch,
        row: usize,
    ) -> Result<Outcome> {
        let doing = "insert rows";
        for (at, column) in cells.iter().enumerate() {
            match column.bind(insert, at + 1, row, &mut self.scratch) {
                Ok(()) => {}
                Err(Unfit::Value(why)) => {
                    let name = rows.schema_ref().field(at).name();
                    let reject = Reject::row(row, format!("column {name}: {why}")).column(name.as_str());
                    return Ok(Outcome::Refused(reject));
                }
                Err(Unfit::Sqlite(error)) => {
                    return refusal(row, &error).map(Outcome::Refused).ok_or(error).during(doing);
                }
            }
        }
        match insert.raw_execute() {
            Ok(0) => Ok(Outcome::Known),
            Ok(_) => Ok(Outcome::Written),
            Err(error) => match refusal(row, &error) {
                Some(_) if writer.db.is_autocommit() => Err(rolled_back(error)),
                Some(reject) => Ok(Outcome::Refused(reject)),
                None => Err(error).during(doing),
            },
        }
    }

    /// Brings what is staged into the open transaction.
    pub(crate) fn flush(&mut self, writer: &mut Writer) -> Result<Wrote> {
        self.alive(writer)?;
        writer.join(self.session, self.patience())?;
        self.fence.check(&writer.db)?;
        self.flushed = true;
        let mut wrote = Wrote::default();
        if let Some(mut first) = self.first.take() {
            wrote = writer.sorting(|writer| first.finish(&writer.db, &self.options, &self.staging))?;
        }
        self.look_up(writer, &mut wrote)?;
        let mut stage = std::mem::replace(&mut self.stage, Spool::new(PathBuf::new()));
        let moved = self.move_in(writer, &mut stage, &mut wrote);
        stage.clear();
        self.stage = stage;
        self.empty = None;
        moved.map(|()| wrote)
    }

    fn move_in(&mut self, writer: &mut Writer, stage: &mut Spool, wrote: &mut Wrote) -> Result<()> {
        let Some(mut shape) = self.shape.clone() else { return Ok(()) };
        // Of a schema of before: the table has been widened for it already.
        let mut before: Vec<Arc<Shape>> = vec![];
        let upsert = self.options.write == WriteMode::Upsert;
        let mut keys: HashSet<u128> = HashSet::new();
        let mut numbers: Vec<(i64, usize, usize)> = vec![];
        stage.each(|at, rows| {
            let plain = shape.without_hash(rows)?;
            if !shape.fits(&plain.schema()) {
                let known =
                    before.iter().find(|shape| shape.without_hash(rows).is_ok_and(|rows| shape.fits(&rows.schema())));
                shape = match known {
                    Some(known) => Arc::clone(known),
                    None => Arc::new(Shape::make(&writer.db, &self.options, &self.staging, &plain.schema())?),
                };
                before.push(Arc::clone(&shape));
            }
            let cast = shape.cast_again(rows)?;
            let hashes = if upsert { row_hashes(&cast, Some(&shape.key))? } else { vec![] };
            let deferred = shape.deferred;
            let db = &writer.db;
            self.insert(
                writer,
                &shape,
                Statements { one: &shape.insert, many: None, leave_out: &[] },
                &cast,
                |row, outcome| {
                    match outcome {
                        Outcome::Written => {
                            let superseded = upsert && !keys.insert(hashes[row]);
                            if keys.len() >= REMEMBERED_KEYS {
                                keys.clear();
                            }
                            *(if superseded { &mut wrote.known } else { &mut wrote.written }) += 1;
                            if deferred {
                                numbers.push((db.last_insert_rowid(), at, row));
                            }
                        }
                        Outcome::Known => wrote.known += 1,
                        Outcome::Refused(mut reject) => {
                            reject.row = Original::Late(single(&plain, row)?);
                            wrote.rejected.push(reject);
                        }
                    }
                    Ok(())
                },
            )
        })?;
        if shape.deferred { self.check_deferred(writer, &shape, stage, numbers, wrote) } else { Ok(()) }
    }

    /// Foreign keys that SQLite would check only at the commit, where it is too late for one row.
    fn check_deferred(
        &self,
        writer: &Writer,
        shape: &Shape,
        stage: &mut Spool,
        numbers: Vec<(i64, usize, usize)>,
        wrote: &mut Wrote,
    ) -> Result<()> {
        let doing = "check foreign keys";
        let ours: hashbrown::HashMap<i64, (usize, usize)> =
            numbers.into_iter().map(|(number, at, row)| (number, (at, row))).collect();
        let mut refused: hashbrown::HashMap<usize, Vec<(usize, String)>> = hashbrown::HashMap::new();
        loop {
            // A row taken out may have been the parent of others: until there is no more of ours.
            let wrong = writer
                .db
                .prepare_cached("SELECT rowid, parent FROM pragma_foreign_key_check(?1)")
                .and_then(|mut check| {
                    check
                        .query_map([&shape.table], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))?
                        .collect::<rusqlite::Result<Vec<_>>>()
                })
                .during(doing)?;
            let mut found = false;
            for (number, parent) in wrong {
                let Some(&(at, row)) = ours.get(&number) else { continue };
                let sql = format!("DELETE FROM {} WHERE rowid = ?1", quote(&shape.table));
                if writer.db.prepare_cached(&sql).and_then(|mut delete| delete.execute([number])).during(doing)? > 0 {
                    found = true;
                    wrote.written -= 1;
                    refused.entry(at).or_default().push((row, parent));
                }
            }
            if !found {
                break;
            }
        }
        if refused.is_empty() {
            return Ok(());
        }
        stage.each(|at, rows| {
            for (row, parent) in refused.remove(&at).into_iter().flatten() {
                let mut reject =
                    Reject::row(row, format!("FOREIGN KEY constraint failed: there is no such row in {parent}"));
                reject.row = Original::Late(single(&shape.without_hash(rows)?, row)?);
                wrote.rejected.push(reject);
            }
            Ok(())
        })
    }

    /// Writes the checkpoint beside the rows and asks for the commit. The receiver hears when it is done.
    pub(crate) fn commit(
        &mut self,
        writer: &mut Writer,
        checkpoint: &Checkpoint,
    ) -> Result<oneshot::Receiver<Result<()>>> {
        self.alive(writer)?;
        if !self.flushed {
            writer.join(self.session, self.patience())?;
        }
        self.flushed = false;
        let stored = self.store(writer, checkpoint);
        if let Err(error) = stored {
            writer.leave(self.session);
            return Err(error);
        }
        let (answer, answered) = oneshot::channel();
        writer.ask_commit(self.session, answer);
        Ok(answered)
    }

    fn store(&mut self, writer: &mut Writer, checkpoint: &Checkpoint) -> Result<()> {
        let db = &writer.db;
        // Before anything is swapped: whoever lost the fence must not get as far as that.
        self.fence.check(db)?;
        let table = &self.options.table;
        let replace = self.options.write == WriteMode::Replace;
        let (mut marker, mut staged_rows) = (None, None);
        if replace && !checkpoint.last {
            let sql = format!("SELECT coalesce(max(rowid), 0) FROM {}", quote(&self.staging));
            staged_rows = match Table::read(db, &self.staging)? {
                Some(staging) if staging.numbers_rows() => {
                    Some(db.query_row(&sql, [], |row| row.get(0)).during("count what is staged")?)
                }
                Some(_) => Some(fence::ALL_STAGED),
                None => None,
            };
        } else {
            if replace {
                swap::swap(db, table, &self.staging)?;
                self.shape = None;
            }
            let columns = Table::read(db, table)?.map(|made| made.columns).unwrap_or_default();
            marker = columns.first().map(|column| fence::mark(db, table, &column.name)).transpose()?;
        }
        self.fence.store(db, &Stand { checkpoint, marker, staged_rows })
    }

    /// Lets go: what is not committed is undone.
    pub(crate) fn close(&mut self, writer: &mut Writer) {
        writer.leave(self.session);
        self.unsure = Unsure::default();
        self.stage.clear();
    }
}

/// Rows of which it is not known yet whether the target has them. Looked up together and in the order of their hashes, so that a page
/// of the index is read once for many of them: of a large table each row has a page of its own.
#[derive(Default)]
struct Unsure {
    shape: Option<Arc<Shape>>,
    /// As they came, and cast.
    batches: Vec<(RecordBatch, RecordBatch)>,
    rows: usize,
    bytes: usize,
}

impl Unsure {
    /// What may wait, so that memory is bounded.
    const ROWS: usize = 3 << 13;
    const BYTES: usize = 3 << 20;

    /// Whether more rows may wait together with these.
    fn takes(&self, shape: &Arc<Shape>, ready: &Ready) -> bool {
        let bytes = self.bytes + ready.rows.get_array_memory_size();
        let same = self.shape.as_ref().is_none_or(|ours| Arc::ptr_eq(ours, shape));
        same && self.rows + ready.rows.num_rows() <= Self::ROWS && bytes <= Self::BYTES
    }

    fn push(&mut self, shape: &Arc<Shape>, rows: RecordBatch, cast: RecordBatch) {
        self.shape = Some(Arc::clone(shape));
        self.rows += rows.num_rows();
        self.bytes += rows.get_array_memory_size();
        self.batches.push((rows, cast));
    }
}

/// Batch and row, in the order in which they are looked up.
fn in_order(shape: &Shape, batches: &[(RecordBatch, RecordBatch)]) -> impl Iterator<Item = (usize, usize)> {
    let mut order = Vec::with_capacity(batches.iter().map(|(rows, _)| rows.num_rows()).sum());
    for (batch, (_, cast)) in batches.iter().enumerate() {
        let hashes = shape.hashes(cast);
        // Batches are small, and few wait.
        order.extend(
            (0..cast.num_rows())
                .map(|row| (hashes.map_or(0, |hashes| number(Some(hashes.value(row)))), batch as u32, row as u32)),
        );
    }
    order.sort_unstable();
    order.into_iter().map(|(_, batch, row)| (batch as usize, row as usize))
}

/// A trigger may undo everything (RAISE(ROLLBACK)): then it is not this row alone.
fn rolled_back(error: rusqlite::Error) -> Error {
    failed("insert rows: a trigger of the table rolled the transaction back", error)
}

fn number(hash: Option<&[u8]>) -> u128 {
    hash.and_then(|hash| hash.try_into().ok()).map_or(0, u128::from_be_bytes)
}

/// One row, copied, so that it does not hold on to its batch.
fn single(rows: &RecordBatch, row: usize) -> Result<RecordBatch> {
    take_record_batch(rows, &UInt64Array::from(vec![row as u64]))
        .map_err(|error| Error::internal("cannot copy a row").because(error))
}
