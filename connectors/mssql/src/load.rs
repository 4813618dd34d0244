//! The way of rows into the target: staged as they come, looked over, published, committed.
//!
//! What is staged outlives a connection: a publish that fails for a reason that passes is made again from the staging table, and rows whose bulk load
//! broke are sent again from the spool. The source is asked a second time only when this process dies.

mod commit;
mod open;
mod publish;

use std::{sync::Arc, time::Duration};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use towpath_core::{Call, Effect, Error, Result, Run, Size, WriteMode, Wrote};
use towpath_formats::spool::Spool;

use crate::{
    bulk::{Bulk, Staged},
    catalog::{Table, TableName},
    checkpoints::Owner,
    client::{Lease, Pool},
    config::SinkOptions,
    known::{self, Added, KnownKeys},
    shape::{Shape, filter},
    statements::{self, Loaded, Publish},
    transaction::Transaction,
};

/// Memory for keys staged between two commits, where rows go by key columns; beyond, the server finds out which are staged twice.
const REMEMBERED: Size = Size(16 << 20);
/// What is done at the end takes no longer.
const CLOSING: Duration = Duration::from_secs(5);
/// For what takes as long as there are rows, and whose every statement has a deadline of its own.
const LONG: Duration = Duration::from_secs(24 * 3600);

/// An open sink.
pub(crate) struct Load {
    options: Arc<SinkOptions>,
    pool: Pool,
    owner: Owner,
    run: Run,
    fence: i64,
    /// Commits stored so far.
    published: i64,
    staging: TableName,
    /// What the staging table has; `None`: it is not there.
    staged: Option<Vec<Loaded>>,
    /// `replace`: rows of the staging table that are committed, when the sink was opened.
    kept: i64,
    table: Option<Table>,
    /// The youngest last.
    shapes: Vec<Arc<Shape>>,
    /// What is published: the columns of the rows that wait; of all of them for `replace`.
    columns: Vec<Loaded>,
    /// The number of the next row.
    next_row: i64,
    /// The first row that has not been looked over.
    unchecked: i64,
    /// Rows staged since the last commit, as they came.
    spool: Spool,
    spooled_from: i64,
    bulk: Option<Bulk>,
    /// Why rows of the spool may not be in the staging table.
    broken: Option<Error>,
    /// Keys staged since the last commit; and, where rows go by their hash, those that the target has.
    keys: KnownKeys,
    /// Only the server can tell which keys are staged twice.
    repeats: bool,
    /// Text columns in which there is more than ASCII.
    beyond_ascii: Vec<String>,
    /// The transaction in which everything is but the checkpoint.
    publishing: Option<Box<Lease>>,
    /// The staging table is to stay: a checkpoint says what of it counts.
    keep_staging: bool,
}

impl Load {
    fn call(&self, what: &str, effect: Effect) -> Call {
        called(&self.options, &self.pool, format!("{what} {}", self.owner.target), effect)
    }

    fn shape(&self, schema: &SchemaRef) -> Result<Arc<Shape>> {
        let youngest = self.shapes.last().filter(|shape| shape.fits(schema));
        youngest.map(Arc::clone).ok_or_else(|| Error::internal("rows of a schema that was not told"))
    }

    /// Takes rows on their way.
    pub(crate) async fn write(&mut self, rows: RecordBatch) -> Result<Wrote> {
        let shape = self.shape(&rows.schema())?;
        let mut ready = shape.ready(&rows)?;
        let mut wrote =
            Wrote { known: ready.superseded, rejected: std::mem::take(&mut ready.rejected), ..Wrote::default() };
        if shape.mode() == WriteMode::InsertNew || shape.mode() == WriteMode::Upsert {
            let keep = self.unknown(&shape, &ready.keys);
            let known = keep.iter().filter(|keep| !**keep).count();
            if known > 0 {
                wrote.known += known as u64;
                (ready.rows, ready.cast) = (filter(&ready.rows, &keep)?, filter(&ready.cast, &keep)?);
            }
        }
        if ready.cast.num_rows() == 0 {
            return Ok(wrote);
        }
        self.note_beyond_ascii(&shape, &ready.cast)?;
        self.take_columns(&shape)?;
        let staged = Staged { first: self.next_row, rows: ready.cast, shape };
        self.next_row += i64::try_from(ready.rows.num_rows()).unwrap_or(i64::MAX);
        self.spool.push(ready.rows)?;
        if self.broken.is_some() {
            // They are in the spool, and sent from there.
            return Ok(wrote);
        }
        let long = self.has_long();
        let (pool, staging, options) = (&self.pool, &self.staging, &self.options);
        let bulk =
            self.bulk.get_or_insert_with(|| Bulk::begin(pool, staging, (options.workers, long), options.timeout.0));
        if !bulk.send(staged).await {
            self.land().await?;
        }
        Ok(wrote)
    }

    /// Which rows are to be staged: not those whose key the target has, nor, of one key since the last commit, a second where the first counts.
    fn unknown(&mut self, shape: &Shape, keys: &[u128]) -> Vec<bool> {
        let first_counts = shape.mode() == WriteMode::InsertNew;
        self.repeats |= shape.key_by_server();
        let mut keep = Vec::with_capacity(keys.len());
        if shape.refuses_late() {
            // Which of several rows of a key goes in is known only when those refused are out.
            self.repeats = true;
            keep.resize(keys.len(), true);
            return keep;
        }
        for keys in keys.chunks(known::TOGETHER) {
            self.keys.warm(keys);
            for key in keys {
                let added = self.keys.stage(*key);
                self.repeats |= added == Added::Forgotten || (added == Added::Known && !first_counts);
                keep.push(added != Added::Known || !first_counts);
            }
        }
        keep
    }

    /// Rows of one commit go in by one statement, so a column that some of them lack is null for these: refused where that is not what leaving it out
    /// would mean.
    fn take_columns(&mut self, shape: &Shape) -> Result<()> {
        let accumulates = self.options.write == WriteMode::Replace && self.next_row > 1;
        if self.waiting() == 0 && !accumulates {
            self.columns.clone_from(&shape.columns);
            return Ok(());
        }
        let has = |all: &[Loaded], name: &str| all.iter().any(|loaded| loaded.column.name == name);
        let new: Vec<Loaded> =
            shape.columns.iter().filter(|loaded| !has(&self.columns, &loaded.column.name)).cloned().collect();
        let gone = self.columns.iter().filter(|loaded| !has(&shape.columns, &loaded.column.name));
        for loaded in gone.chain(&new) {
            let column = &loaded.column;
            if self.options.write == WriteMode::Upsert || column.has_default || !column.nullable || column.identity {
                return Err(Error::config(format!("some of the rows have a column {} and others do not", column.name))
                    .hint(
                        "give all of them the same columns with a `select` before the sink, or load them by two sinks",
                    ));
            }
        }
        self.columns.extend(new);
        Ok(())
    }

    fn note_beyond_ascii(&mut self, shape: &Shape, cast: &RecordBatch) -> Result<()> {
        for (loaded, column) in shape.columns.iter().zip(cast.columns()) {
            let name = &loaded.column.name;
            if loaded.column.of.has_code_page()
                && !self.beyond_ascii.contains(name)
                && !crate::encode::Cells::of(column, &loaded.staged)?.is_ascii()
            {
                self.beyond_ascii.push(name.clone());
            }
        }
        Ok(())
    }

    /// Waits until everything sent is in the staging table. What broke on the way is sent again later, if that can help.
    async fn land(&mut self) -> Result<()> {
        if let Some(bulk) = self.bulk.take()
            && let Err(error) = bulk.finish().await
        {
            if !error.can_retry() {
                return Err(error);
            }
            tracing::warn!("a bulk load into {} broke, its rows are sent again: {error}", self.staging);
            self.broken = Some(error);
        }
        Ok(())
    }

    /// What is published of what is staged.
    fn publish<'a>(&'a self, key: &'a [String]) -> Publish<'a> {
        Publish {
            target: &self.owner.target,
            staging: &self.staging,
            columns: &self.columns,
            key,
            repeats: self.repeats,
        }
    }

    /// Whether a value may be longer than a bulk load takes.
    fn has_long(&self) -> bool {
        self.columns.iter().any(|loaded| loaded.staged.is_max())
    }

    fn transaction(&self) -> Transaction<'_> {
        Transaction {
            pool: &self.pool,
            owner: &self.owner,
            options: &self.options,
            fence: self.fence,
            published: self.published,
            identity: self.identity(),
        }
    }

    /// Rows staged since the last commit.
    fn waiting(&self) -> i64 {
        self.next_row - self.spooled_from
    }

    fn identity(&self) -> bool {
        self.columns.iter().any(|loaded| loaded.column.identity)
    }

    /// Lets go: undoes what is not committed, takes the staging table away.
    pub(crate) async fn close(&mut self) {
        self.bulk = None;
        self.spool.clear();
        let closing = async {
            if let Some(mut session) = self.publishing.take() {
                session.abandon().await;
            }
            if self.staged.is_some() && !self.keep_staging {
                self.pool
                    .session()
                    .await?
                    .batch("drop the staging table", &statements::drop_table(&self.staging))
                    .await?;
            }
            Ok::<_, Error>(())
        };
        if let Ok(Err(error)) = tokio::time::timeout(CLOSING, closing).await {
            tracing::debug!("{} is left for the next run to sweep away: {error}", self.staging);
        }
        self.pool.close().await;
    }
}

fn called(options: &SinkOptions, pool: &Pool, what: String, effect: Effect) -> Call {
    // One statement may take as long as `timeout`, and there are a few in a call.
    pool.call(what, effect).deadline(options.timeout.0 * 2 + options.lock_timeout.0)
}

/// The shape of rows that were made ready.
fn of<'a>(shapes: &'a [Arc<Shape>], rows: &RecordBatch) -> Result<&'a Arc<Shape>> {
    let found = shapes.iter().find(|shape| shape.without_hash(rows).is_ok_and(|rows| shape.fits(&rows.schema())));
    found.ok_or_else(|| Error::internal("rows of a schema that was not told"))
}
