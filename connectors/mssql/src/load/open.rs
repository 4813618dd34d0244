//! A load begins: the fence, what others have left, the tables, the keys that the target has.

use std::sync::Arc;

use arrow_schema::SchemaRef;
use towpath_core::{Checkpoint, Context, Effect, Error, Result, Run, WriteMode};
use towpath_formats::spool::Spool;

use super::{LONG, Load, REMEMBERED, called};
use crate::{
    adopt::adopt,
    catalog::{Table, TableName},
    changes::{self, Changes},
    checkpoints::{Found, Owner},
    client::{Limits, Pool, number, text},
    config::SinkOptions,
    known::KnownKeys,
    login::Login,
    shape::Shape,
    statements::{self, Loaded},
};

/// Staging tables so many days old are taken away, whoever made them: no run takes that long.
const STALE_DAYS: i64 = 30;
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
        let call = called(&options, &pool, format!("open {target}"), Effect::Idempotent);
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
            keys: KnownKeys::default(),
            repeats: false,
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
            let found = changes::found(&mut session, options, target).await?;
            let changes = Changes::of(options, target, found.as_ref(), schema)?;
            if let Some(table) = found.filter(|_| changes.adopt) {
                Box::pin(adopt(pool, options, stage, &table, schema)).await?;
            }
            changes.make(&mut session, target, &options.key_columns()).await?;
            let table = Table::read(&mut session, target).await?;
            let table = table.ok_or_else(|| Error::conflict(format!("table {target} was just there and is gone")))?;
            Shape::of(options, &table, schema).map(|shape| (shape, table))
        });
        let (shape, table) = made.await?;
        self.table = Some(table);
        let shape = Arc::new(shape);
        self.make_staging(&shape).await?;
        if self.shapes.is_empty() {
            self.keys = if self.options.by_hash() { self.known_keys().await? } else { KnownKeys::new(REMEMBERED) };
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
        let most = KnownKeys::worth_loading(self.options.known_keys);
        if most == 0 {
            return Ok(KnownKeys::default());
        }
        let order = self.options.known_keys_order.as_deref();
        let sql = statements::known_hashes(&self.owner.target, &self.options.hash_column, most, order);
        let doing = "load known keys";
        let (pool, sql, memory, deadline) = (&self.pool, &sql, self.options.known_keys, self.options.timeout.0);
        let call = self.call("load known keys of", Effect::Read);
        pool.ctx()
            .call(&call, || async move {
                let mut session = pool.session().await?;
                let mut known = KnownKeys::new(memory);
                let broke = |error| crate::error::failed(doing, error);
                let read = async {
                    let mut rows = session.driver().simple_query(sql).await.map_err(broke)?.into_row_stream();
                    while let Some(row) = rows.try_next().await.map_err(broke)? {
                        if let Ok(tiberius::ColumnData::Binary(Some(hash))) = row.get_column_data(0)
                            && let Ok(hash) = <[u8; 16]>::try_from(&**hash)
                        {
                            known.learn(u128::from_be_bytes(hash));
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
}
