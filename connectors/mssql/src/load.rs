//! The way of rows into the target: staged as they come, looked over, published, committed.
//!
//! What is staged outlives a connection: a publish that fails for a reason that passes is made again from the staging table, and rows whose bulk load
//! broke are sent again from the spool. The source is asked a second time only when this process dies.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use hashbrown::HashSet;
use towpath_core::{
    Call, Checkpoint, Context, Effect, Error, ErrorKind, Original, Reject, Result, Run, Size, WriteMode, Wrote,
};
use towpath_formats::spool::Spool;

use crate::{
    adopt::adopt,
    bulk::{Bulk, Staged},
    catalog::{Table, TableName},
    checkpoints::{Fence, Found, Owner, overtaken},
    client::{Lease, Limits, Pool, number, text},
    config::SinkOptions,
    known::{KnownKeys, OF_STAGING, OF_TARGET},
    login::Login,
    refuse::{self, Refusal},
    shape::{Shape, filter},
    statements::{self, Loaded, Publish, Stored},
    transaction::{Begun, Transaction},
};

/// Staging tables so many days old are taken away, whoever made them: no run takes that long.
const STALE_DAYS: i64 = 30;
/// Memory for keys staged between two commits; beyond, the server finds out which are staged twice.
const REMEMBERED: Size = Size(16 << 20);
/// Rows of one commit that may be refused late; they are in memory at once.
const REFUSED_AT_MOST: usize = 100_000;
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
    /// Keys staged since the last commit.
    keys: KnownKeys,
    /// Those of them whose rows were refused: the target does not have them.
    refused_keys: HashSet<u128>,
    /// Only the server can tell which keys are staged twice.
    repeats: bool,
    /// What the target has, where rows go by their hash.
    known: Option<KnownKeys>,
    /// Text columns in which there is more than ASCII.
    beyond_ascii: Vec<String>,
    /// The transaction in which everything is but the checkpoint.
    publishing: Option<Box<Lease>>,
    /// The staging table is to stay: a checkpoint says what of it counts.
    keep_staging: bool,
}

impl Load {
    /// Raises the fence, reads the checkpoint, sweeps away what others have left.
    pub(crate) async fn open(
        options: Arc<SinkOptions>,
        target: &TableName,
        login: Login,
        ctx: &Context,
        run: &Run,
    ) -> Result<(Self, Option<Checkpoint>)> {
        let limits = Limits { statement: Some(options.timeout.0), lock: options.lock_timeout.0 };
        let pool = Pool::new(login, ctx, options.workers + 2, limits)?;
        let call = called(&options, &pool, format!("open {target} at"), Effect::Idempotent);
        let opened = ctx.call(&call, || async { Owner::open(&pool, ctx, target).await }).await;
        let (owner, found) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                pool.close().await;
                return Err(error);
            }
        };
        let Found { fence, publish, checkpoint, staging, staged_run, staged_rows } = found;
        let resumed = options.write == WriteMode::Replace
            && staged_run.as_deref() == Some(&*run.id)
            && checkpoint.as_ref().is_some_and(|checkpoint| !checkpoint.last && checkpoint.run.id == run.id);
        let kept = staging.filter(|_| resumed);
        let name = kept.clone().unwrap_or_else(|| format!("towpath_stage_{}_{fence}", owner.id));
        let mut load = Self {
            staging: owner.sibling(name),
            run: run.clone(),
            fence,
            published: publish,
            staged: None,
            kept: if kept.is_some() { staged_rows } else { 0 },
            table: None,
            shapes: vec![],
            columns: vec![],
            next_row: 1,
            unchecked: 1,
            spool: Spool::new(std::env::temp_dir()),
            spooled_from: 1,
            bulk: None,
            broken: None,
            keys: KnownKeys::new(REMEMBERED, OF_STAGING),
            refused_keys: HashSet::new(),
            repeats: false,
            known: None,
            beyond_ascii: vec![],
            publishing: None,
            keep_staging: kept.is_some(),
            owner,
            pool,
            options,
        };
        match load.look_at_staging(kept.is_some()).await {
            Ok(true) => Ok((load, checkpoint)),
            Ok(false) => {
                tracing::warn!("the staging table of {target} is gone: its load begins anew");
                (load.keep_staging, load.kept) = (false, 0);
                Ok((load, None))
            }
            Err(error) => {
                load.close().await;
                Err(error)
            }
        }
    }

    fn call(&self, what: &str, effect: Effect) -> Call {
        called(&self.options, &self.pool, format!("{what} {}", self.owner.target), effect)
    }

    /// Takes away staging tables that are of no use any more. False: the one whose rows count is not there.
    async fn look_at_staging(&mut self, keep: bool) -> Result<bool> {
        let call = self.call("sweep beside", Effect::Idempotent);
        let (pool, owner, keep_name) = (&self.pool, &self.owner, &self.staging.name);
        let mine = format!("towpath_stage_{}_", owner.id);
        let found = pool
            .ctx()
            .call(&call, || async {
                let mut session = pool.session().await?;
                let schema = owner.target.schema.clone().unwrap_or_default();
                let results = session.batch("list staging tables", &statements::stagings(&schema)).await?;
                Ok(results
                    .iter()
                    .flatten()
                    .map(|row| (text(row, 0).unwrap_or_default(), number(row, 1).unwrap_or_default()))
                    .collect::<Vec<_>>())
            })
            .await?;
        let there = found.iter().any(|(name, _)| name == keep_name);
        for (name, days) in found {
            if (name.starts_with(&mine) && !(keep && name == *keep_name)) || days >= STALE_DAYS {
                let stale = owner.sibling(name);
                let sql = statements::sweep_table(&stale, self.options.lock_timeout.0);
                let dropped = async { pool.session().await?.batch("drop a staging table", &sql).await };
                // Its process may still be dying: the next run sweeps again.
                if let Err(error) = dropped.await {
                    tracing::warn!("{stale} could not be swept away: {error}");
                }
            }
        }
        if keep && there {
            (self.next_row, self.unchecked, self.spooled_from) = (self.kept + 1, self.kept + 1, self.kept + 1);
            let (staging, last) = (&self.staging, self.kept);
            let staged = pool
                .ctx()
                .call(&self.call("look at what is staged for", Effect::Idempotent), || async {
                    let mut session = pool.session().await?;
                    session.batch("take out what was not committed", &statements::cut_staging(staging, last)).await?;
                    let staged = Table::read(&mut session, staging).await?;
                    Ok((staged, Table::read(&mut session, &owner.target).await?))
                })
                .await?;
            let (staged, target) = staged;
            let columns = staged.map(|table| table.columns).unwrap_or_default().into_iter();
            let columns = columns.filter(|column| column.name != statements::ROW).map(|column| Loaded {
                staged: column.of.clone(),
                // As the target has it; the staging table knows only staging types.
                column: target.as_ref().and_then(|table| table.column(&column.name)).cloned().unwrap_or(column),
            });
            self.columns = columns.collect();
            self.staged = Some(self.columns.clone());
            self.table = target;
        }
        Ok(!keep || there)
    }

    /// Rows of a schema are to come.
    pub(crate) async fn schema(&mut self, schema: &SchemaRef) -> Result<Option<String>> {
        if let Some(at) = self.shapes.iter().position(|shape| shape.fits(schema)) {
            let shape = self.shapes.remove(at);
            let keyed_by = shape.keyed_by.clone();
            self.shapes.push(shape);
            return Ok(keyed_by);
        }
        // A table is not altered under a load that is going into it.
        self.land().await?;
        let call = self.call("look at", Effect::Idempotent).deadline(LONG);
        let (pool, options, target) = (&self.pool, &self.options, &self.owner.target);
        let stage = &self.staging;
        let made = pool.ctx().call(&call, || async {
            let mut session = pool.session().await?;
            if options.by_hash()
                && let Some(table) = Table::read(&mut session, target).await?
            {
                Box::pin(adopt(pool, options, stage, &table, schema)).await?;
            }
            Shape::make(&mut session, options, target, schema).await
        });
        let (shape, table) = made.await?;
        self.table = Some(table);
        let shape = Arc::new(shape);
        self.make_staging(&shape).await?;
        if self.options.by_hash() && self.known.is_none() {
            self.known = Some(self.known_keys().await?);
        }
        let keyed_by = shape.keyed_by.clone();
        self.shapes.push(shape);
        Ok(keyed_by)
    }

    /// Makes the staging table, or gives it the columns it lacks.
    async fn make_staging(&mut self, shape: &Shape) -> Result<()> {
        let table = self.table.as_ref();
        // As the target has them: what a table of before was read from knows only staging types.
        for loaded in self.staged.iter_mut().flatten() {
            if let Some(column) = table.and_then(|table| table.column(&loaded.column.name)) {
                loaded.column = column.clone();
            }
        }
        let have = |name: &str| self.staged.iter().flatten().any(|loaded| loaded.column.name == name);
        let missing: Vec<&Loaded> = shape.columns.iter().filter(|loaded| !have(&loaded.column.name)).collect();
        if self.staged.is_some() && missing.is_empty() {
            return Ok(());
        }
        let sql = match &self.staged {
            None => format!(
                "{}; {}",
                statements::drop_table(&self.staging),
                statements::create_staging(&self.staging, &shape.columns)
            ),
            Some(_) => statements::widen_staging(&self.staging, &missing),
        };
        let mut session = self.pool.session().await?;
        session.batch(&format!("make the staging table {}", self.staging), &sql).await?;
        let missing: Vec<Loaded> = missing.into_iter().cloned().collect();
        self.staged.get_or_insert_default().extend(missing);
        Ok(())
    }

    /// Loads what fits of the target's hashes.
    async fn known_keys(&self) -> Result<KnownKeys> {
        use futures::TryStreamExt as _;
        let known = KnownKeys::new(self.options.known_keys, OF_TARGET);
        if known.capacity() == 0 {
            return Ok(known);
        }
        let order = self.options.known_keys_order.as_deref();
        if let (Some(order), Some(table)) = (order, &self.table)
            && table.column(order).is_none()
        {
            return Err(Error::config(format!("known_keys_order: table {} has no column {order}", table.name)));
        }
        let sql = statements::known_hashes(&self.owner.target, &self.options.hash_column, known.capacity(), order);
        let doing = "load known keys";
        let (pool, sql, memory, deadline) = (&self.pool, &sql, self.options.known_keys, self.options.timeout.0);
        let call = self.call("load known keys of", Effect::Read);
        pool.ctx()
            .call(&call, || async move {
                let mut session = pool.session().await?;
                let mut known = KnownKeys::new(memory, OF_TARGET);
                let broke = |error| crate::error::failed(doing, error);
                let read = async {
                    let mut rows = session.driver().simple_query(sql).await.map_err(broke)?.into_row_stream();
                    while let Some(row) = rows.try_next().await.map_err(broke)? {
                        if let Ok(tiberius::ColumnData::Binary(Some(hash))) = row.get_column_data(0)
                            && let Ok(hash) = <[u8; 16]>::try_from(&**hash)
                        {
                            known.add(u128::from_be_bytes(hash));
                        }
                    }
                    Ok::<_, Error>(())
                };
                tokio::time::timeout(deadline, read)
                    .await
                    .unwrap_or_else(|_| Err(Error::timeout(format!("cannot {doing}"))))?;
                session.calm();
                Ok(known)
            })
            .await
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
        for key in keys {
            let known = self.known.as_ref().is_some_and(|known| known.has(*key));
            let again = !known && self.keys.has(*key);
            let forgotten = !known && !again && !self.keys.add(*key);
            self.repeats |= forgotten || (again && !first_counts);
            keep.push(!(known || (again && first_counts)));
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

    /// Sends the rows of the spool again, after taking out what of them has arrived.
    async fn send_again(&mut self) -> Result<()> {
        // As long as it goes on: each of its statements has an end.
        let call = self.call("load rows again for", Effect::Idempotent).deadline(LONG);
        let (pool, staging, options, shapes, from) =
            (&self.pool, &self.staging, &self.options, &self.shapes, self.spooled_from);
        let long = self.has_long();
        let spool = Arc::new(tokio::sync::Mutex::new(&mut self.spool));
        pool.ctx()
            .call(&call, || {
                let spool = Arc::clone(&spool);
                async move {
                    let cut = statements::cut_staging(staging, from - 1);
                    pool.session().await?.batch("take out rows that are sent again", &cut).await?;
                    let mut bulk = Bulk::begin(pool, staging, (options.workers, long), options.timeout.0);
                    let (mut first, mut spool) = (from, spool.lock().await);
                    for rows in spool.batches()? {
                        let rows = rows?;
                        let shape = of(shapes, &rows)?;
                        let staged = Staged { first, rows: shape.cast_again(&rows)?, shape: Arc::clone(shape) };
                        first += i64::try_from(rows.num_rows()).unwrap_or_default();
                        if !bulk.send(staged).await {
                            break;
                        }
                    }
                    bulk.finish().await
                }
            })
            .await?;
        self.broken = None;
        Ok(())
    }

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

    /// Rows staged since the last commit.
    fn waiting(&self) -> i64 {
        self.next_row - self.spooled_from
    }

    /// Brings what is staged into the open transaction, but for what cannot go in.
    pub(crate) async fn flush(&mut self) -> Result<Wrote> {
        self.land().await?;
        if self.broken.is_some() {
            self.send_again().await?;
        }
        if self.waiting() == 0 {
            return Ok(Wrote::default());
        }
        let mut refused: BTreeMap<i64, Refusal> = BTreeMap::new();
        let (first, mode) = (self.unchecked, self.options.write);
        self.look_over(first, &mut refused).await?;
        let mut written = 0;
        if mode != WriteMode::Replace {
            // Others may change the target between the look and the publish; more often than that it is something only the server knows.
            let mut tries = 0;
            written = loop {
                match self.try_publish().await? {
                    Ok(written) => break written,
                    Err(error) => {
                        let before = refused.len();
                        self.look_over(first, &mut refused).await?;
                        tries += 1;
                        let passing = error.kind() == ErrorKind::Conflict && tries < 3;
                        if refused.len() == before && !passing {
                            self.bisect(&mut refused, error).await?;
                        }
                    }
                }
            };
        }
        self.unchecked = self.next_row;
        let waiting = self.waiting() as u64;
        // Triggers count too.
        written = written.min(waiting);
        let rejected = self.rejects(refused)?;
        if mode == WriteMode::Replace {
            written = waiting - rejected.len() as u64;
        }
        let known = (waiting - rejected.len() as u64).saturating_sub(written);
        Ok(Wrote { written, known, rejected, reply: None })
    }

    /// Finds rows that the target would refuse, and takes them out of the staging table.
    async fn look_over(&self, first: i64, refused: &mut BTreeMap<i64, Refusal>) -> Result<()> {
        let Some(table) = &self.table else { return Ok(()) };
        let key = self.options.key_columns();
        let publish = self.publish(&key);
        // Whether a value is taken is asked when those refused for another reason are out of the way.
        for about in [refuse::About::Row, refuse::About::Others] {
            let questions = refuse::questions(about, &publish, table, self.options.write, &self.beyond_ascii, first);
            if questions.is_empty() {
                continue;
            }
            let (pool, call) = (&self.pool, self.call("look over rows for", Effect::Idempotent));
            let found = pool.ctx().call(&call, || async { refuse::ask(pool, &questions).await }).await?;
            let new: Vec<i64> = found.keys().copied().filter(|row| !refused.contains_key(row)).collect();
            if refused.len() + new.len() > REFUSED_AT_MOST {
                return Err(Error::data(format!(
                    "more than {REFUSED_AT_MOST} rows of one commit are refused by {}",
                    self.owner.target
                ))
                .hint("look at the reasons in a smaller load: it is not the rows then"));
            }
            // What is taken out is remembered first: the answer may be lost.
            for (row, refusal) in found {
                refused.entry(row).or_insert(refusal);
            }
            self.take_out(&new).await?;
        }
        Ok(())
    }

    async fn take_out(&self, rows: &[i64]) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let (pool, staging, call) = (&self.pool, &self.staging, self.call("take out rows for", Effect::Idempotent));
        pool.ctx().call(&call, || async { refuse::take_out(pool, staging, rows).await }).await
    }

    /// Publishes into a transaction that stays open. `Err`: the server refuses the rows, and has undone everything.
    async fn try_publish(&mut self) -> Result<Result<u64>> {
        let key = self.options.key_columns();
        let publish = self.publish(&key);
        let sql = publish.statements(self.options.write);
        let call = self.call("publish to", Effect::Idempotent);
        let transaction = Transaction {
            pool: &self.pool,
            owner: &self.owner,
            options: &self.options,
            fence: self.fence,
            published: self.published,
            identity: self.identity(),
        };
        let published = self.pool.ctx().call(&call, || async { transaction.begin(&sql).await }).await;
        match published? {
            Begun::Open(lease, written) => {
                self.publishing = Some(lease);
                Ok(Ok(written))
            }
            Begun::Refused(error) => Ok(Err(error)),
            Begun::Done => Err(Error::conflict("a commit is stored that this process did not make")),
        }
    }

    fn identity(&self) -> bool {
        self.columns.iter().any(|loaded| loaded.column.identity)
    }

    /// Finds the rows that only the server itself can tell: by trying.
    async fn bisect(&self, refused: &mut BTreeMap<i64, Refusal>, error: Error) -> Result<()> {
        let key = self.options.key_columns();
        let publish = self.publish(&key);
        let (mode, last) = (self.options.write, self.next_row - 1);
        let call = self.call("try rows for", Effect::Idempotent);
        let (pool, from, identity) = (&self.pool, self.spooled_from, self.identity());
        let found = pool
            .ctx()
            .call(&call, || async { refuse::first_refused(pool, &publish, mode, (from, last), identity).await });
        match found.await? {
            Some((row, refusal)) => {
                if refused.len() >= refuse::TRIED_AT_MOST
                    && refused.values().filter(|refusal| refusal.tried).count() >= refuse::TRIED_AT_MOST
                {
                    return Err(error.hint(format!(
                        "more than {} rows of one publish are refused by something that only trying finds (a trigger, a function in a constraint)",
                        refuse::TRIED_AT_MOST
                    )));
                }
                refused.insert(row, refusal);
                self.take_out(&[row]).await
            }
            // Each of them goes in, and yet all together do not: the publish is tried again, and fails as before if there is more to it.
            None => Err(error),
        }
    }

    /// The rows refused, as they came.
    fn rejects(&mut self, mut refused: BTreeMap<i64, Refusal>) -> Result<Vec<Reject>> {
        let mut rejects = Vec::with_capacity(refused.len());
        if refused.is_empty() {
            return Ok(rejects);
        }
        let (mut first, shapes, refused_keys) = (self.spooled_from, &self.shapes, &mut self.refused_keys);
        self.spool.each(|_, rows| {
            let next = first + i64::try_from(rows.num_rows()).unwrap_or_default();
            let later = refused.split_off(&next);
            let here = std::mem::replace(&mut refused, later);
            if !here.is_empty() {
                let shape = of(shapes, rows)?;
                let places: Vec<u64> = here.keys().map(|row| u64::try_from(row - first).unwrap_or_default()).collect();
                // Copied, so that they do not hold on to their batch; together, so that they share what they can.
                let taken = arrow_select::take::take_record_batch(rows, &arrow_array::UInt64Array::from(places))
                    .map_err(|error| Error::internal("cannot copy rows").because(error))?;
                refused_keys.extend(shape.hashes(&taken));
                let plain = shape.without_hash(&taken)?;
                for (at, refusal) in here.into_values().enumerate() {
                    let mut reject = Reject::row(0, &*refusal.reason).kind(refusal.kind);
                    reject.column = refusal.column.as_deref().map(str::to_owned);
                    reject.row = Original::Late(plain.slice(at, 1));
                    rejects.push(reject);
                }
            }
            first = next;
            Ok(())
        })?;
        Ok(rejects)
    }

    /// Stores the checkpoint and commits. A commit whose answer was lost is looked for before it is made again.
    pub(crate) async fn commit(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let replace = self.options.write == WriteMode::Replace;
        let swap = replace && checkpoint.last;
        let key = self.options.key_columns();
        let publish = self.publish(&key);
        let rows_wait = self.waiting() > 0;
        let sql = match (replace, swap) {
            (true, true) if !self.columns.is_empty() => publish.statements(WriteMode::Replace),
            // No rows in the whole run, and so none that are to stay.
            (true, true) => vec![statements::empty_target(&self.owner.target)],
            (true, false) => vec![],
            (false, _) if rows_wait => publish.statements(self.options.write),
            (false, _) => vec![],
        };
        let after = (!sql.is_empty() && self.staged.is_some()).then(|| statements::empty_staging(&self.staging));
        let stages = replace && !checkpoint.last && self.staged.is_some();
        let text = serde_json::to_string(checkpoint)
            .map_err(|error| Error::internal("cannot write a checkpoint").because(error))?;
        let stored = Stored {
            fence: self.fence,
            publish: self.published + 1,
            staging: stages.then(|| (self.staging.name.as_str(), &*self.run.id, self.next_row - 1)),
        };
        let transaction = Transaction {
            pool: &self.pool,
            owner: &self.owner,
            options: &self.options,
            fence: self.fence,
            published: self.published,
            identity: self.identity(),
        };
        // What flush has left open; only the first try finds it.
        let open = Mutex::new(self.publishing.take());
        let (tried, sent) = (AtomicBool::new(false), AtomicBool::new(false));
        let call = self.call("commit to", Effect::Idempotent);
        let done = self
            .pool
            .ctx()
            .call(&call, || async {
                let left_open = open.lock().unwrap_or_else(PoisonError::into_inner).take();
                let again = tried.swap(true, Ordering::Relaxed);
                let mut session = match left_open {
                    Some(session) => session,
                    None => {
                        let mut session = self.pool.session().await?;
                        if again {
                            match self.owner.fence(&mut session, self.fence).await? {
                                Fence::Raised => return Err(overtaken(&self.owner.target)),
                                Fence::Ours(published) if published == stored.publish => return Ok(()),
                                Fence::Ours(_) => {}
                            }
                        }
                        if sql.is_empty() {
                            // One statement is a transaction by itself.
                            sent.store(true, Ordering::Relaxed);
                            return match self.owner.store(&mut session, &stored, &text).await? {
                                true => Ok(()),
                                false => Err(overtaken(&self.owner.target)),
                            };
                        }
                        drop(session);
                        match transaction.begin(&sql).await? {
                            Begun::Open(session, _) => session,
                            Begun::Refused(error) => return Err(error),
                            Begun::Done => return Ok(()),
                        }
                    }
                };
                if !self.owner.store(&mut session, &stored, &text).await? {
                    session.abandon().await;
                    return Err(overtaken(&self.owner.target));
                }
                if let Some(empty) = &after {
                    session.batch("empty the staging table", empty).await?;
                }
                sent.store(true, Ordering::Relaxed);
                transaction.end(&mut session).await
            })
            .await;
        match done {
            Err(error) if sent.load(Ordering::Relaxed) && error.can_retry() => return Err(error.outcome_unknown()),
            done => done?,
        }
        self.published += 1;
        self.keep_staging = stages;
        if let Some(known) = &mut self.known {
            for key in self.keys.drain().filter(|key| !self.refused_keys.contains(key)) {
                known.add(key);
            }
        }
        self.refused_keys.clear();
        self.keys = KnownKeys::new(REMEMBERED, OF_STAGING);
        self.repeats = false;
        self.spool.clear();
        self.spooled_from = self.next_row;
        Ok(())
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
