//! The sink.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use async_trait::async_trait;
use towpath_core::{
    Checkpoint, Context, Effect, Error, ErrorKind, Held, KeySpec, Known, Name, Result, Run, Sink, SinkPlan, WriteMode,
    Wrote, sink::Guarantee,
};

use crate::{
    adopt,
    catalog::{TableName, pointing, triggers},
    changes::{self, Changes},
    client::{Limits, Pool},
    config::SinkOptions,
    load::Load,
    login::Login,
};

/// Rows into a table of SQL Server. Exactly once: rows and checkpoint are one transaction of the database.
///
/// Takes any flat schema; see the README for what becomes of each type. Cancelling any of its futures stops what the server is doing for it and undoes
/// the open transaction.
pub struct MssqlSink {
    options: Arc<SinkOptions>,
    target: TableName,
    login: Login,
    load: Option<Load>,
}

impl MssqlSink {
    /// Makes a sink; nothing is opened yet.
    ///
    /// # Errors
    /// Config: options that do not go together. Unsupported: a way of signing in that is not offered.
    pub fn new(_: &Name, options: SinkOptions) -> Result<Self> {
        let (target, login) = (options.check()?, options.connection.login()?);
        Ok(Self { options: Arc::new(options), target, login, load: None })
    }

    /// Says which server and database it was.
    fn at<T>(&self, done: Result<T>) -> Result<T> {
        done.map_err(|error| if error.kind() == ErrorKind::Cancelled { error } else { error.at(self.login.place()) })
    }

    fn opened(&mut self) -> Result<&mut Load> {
        self.load.as_mut().ok_or_else(|| Error::internal("the sink is not open"))
    }

    /// What makes the checkpoint meaningful.
    fn identity(&self) -> String {
        let options = &self.options;
        let key =
            if options.key.is_some() { format!(" key={}", options.key_columns().join(",")) } else { String::new() };
        format!("mssql {} table={} {}{key}", self.login.place(), self.target, options.write.name())
    }

    /// What a run would make or change.
    async fn notes(&self, ctx: &Context, schema: &Known) -> Result<Vec<String>> {
        let limits = Limits { statement: Some(self.login.at.connect_timeout.0), lock: self.options.lock_timeout.0 };
        let pool = Pool::new(self.login.clone(), ctx, 1, limits)?;
        let call = pool.call(format!("look at {}", self.target), Effect::Cheap);
        let replaces = self.options.write == WriteMode::Replace;
        let found = ctx.call(&call, || async {
            let mut session = pool.session().await?;
            let target = self.target.in_schema(&mut session).await?;
            let table = changes::found(&mut session, &self.options, &target).await?;
            let pointing = if replaces { pointing(&mut session, &target).await? } else { vec![] };
            let triggers = if table.is_some() { triggers(&mut session, &target).await? } else { vec![] };
            Ok((target, table, pointing, triggers))
        });
        let found = found.await;
        pool.close().await;
        let (target, found, pointing, triggers) = match found {
            Ok(found) => found,
            // A plan is made without the server too.
            Err(error) if self.login.has_unset() => return Ok(vec![error.message().to_owned()]),
            Err(error) => {
                let what = if error.can_retry() { "the server could not be asked" } else { "the run will fail" };
                return Ok(vec![fails(ctx, what, error.at(self.login.place()))]);
            }
        };
        let options = &*self.options;
        let changes = match schema.schema() {
            Some(schema) => Changes::of(options, &target, found.as_ref(), schema),
            None => Changes::of_any(options, &target, found.as_ref()),
        };
        let changes = match changes {
            Ok(changes) => changes,
            Err(error) => return Ok(vec![fails(ctx, "the run will fail", error)]),
        };
        let mut notes = vec![];
        match (&found, &changes.create) {
            (None, Some(sql)) => notes.push(format!("makes table {target}: {sql}")),
            (None, None) => notes.push(format!("makes table {target}")),
            (Some(_), _) => {}
        }
        if !changes.add.is_empty() {
            let names = changes.add.iter().map(|(name, of)| format!("{name} {of}")).collect::<Vec<_>>().join(", ");
            notes.push(format!("adds to table {target}: {names}"));
        }
        notes.extend(found.iter().filter(|_| changes.adopt).filter_map(|table| adopt::note(options, table)));
        if changes.unique.is_some() {
            notes.push(format!("makes a unique index on {}", options.key_columns().join(", ")));
        }
        let key = options.key_columns();
        let upsert = options.write == WriteMode::Upsert;
        for unique in found.iter().filter(|_| upsert).flat_map(|table| &table.uniques) {
            if !unique.is_of(&key) {
                notes.push(format!(
                    "rows that take values of {} from one another (unique index \"{}\") go in if they are of one commit: raise `every`, `rows` and \
                     `publish` of `commit` so that they are",
                    unique.columns.join(", "),
                    unique.name
                ));
            }
        }
        for (name, instead) in triggers {
            if instead {
                notes.push(format!(
                    "rows are given to the trigger \"{name}\", which does with them what it does (INSTEAD OF)"
                ));
            } else if replaces {
                notes.push(format!(
                    "if the trigger \"{name}\" refuses a row, the run will fail, and {target} is left as it was"
                ));
            }
        }
        for (key, of) in pointing {
            notes.push(format!(
                "takes out all rows of {target}, to which rows of {of} point (foreign key \"{key}\"): if any do, the run will fail, or take them \
                 out too where that key says ON DELETE CASCADE"
            ));
        }
        Ok(notes)
    }
}

/// A note of what a run would end with, with what to do about it; the plan is told as well, and exits so.
fn fails(ctx: &Context, what: &str, error: Error) -> String {
    let note = match error.what_to_do() {
        Some(hint) => format!("{what}: {error}; {hint}"),
        None => format!("{what}: {error}"),
    };
    let _ = ctx.would_end(error);
    note
}

#[async_trait]
impl Sink for MssqlSink {
    fn key_columns(&self) -> Option<Vec<String>> {
        match &self.options.key {
            Some(KeySpec::Columns(names)) => Some(names.clone()),
            // Of one hash no row replaces another.
            Some(KeySpec::RowHash(_)) | None => None,
        }
    }

    async fn plan(&mut self, ctx: &Context, schema: &Known) -> Result<SinkPlan> {
        let mode = self.options.write;
        Ok(SinkPlan {
            mode,
            guarantee: Guarantee::ExactlyOnce,
            early_publish: matches!(mode, WriteMode::InsertNew | WriteMode::Upsert),
            identity: self.identity(),
            notes: if ctx.starting() { vec![] } else { self.notes(&ctx.for_plan(), schema).await? },
        })
    }

    async fn open(&mut self, ctx: &Context, run: &Run) -> Result<Held> {
        let opened = Load::open(Arc::clone(&self.options), &self.target, self.login.clone(), ctx, run).await;
        let (load, checkpoint) = self.at(opened)?;
        self.load = Some(load);
        Ok(Held::Here(checkpoint))
    }

    async fn schema(&mut self, schema: &SchemaRef) -> Result<Option<String>> {
        let done = self.opened()?.schema(schema).await;
        self.at(done)
    }

    async fn write(&mut self, _: u64, rows: RecordBatch) -> Result<Wrote> {
        let done = self.opened()?.write(rows).await;
        self.at(done)
    }

    async fn flush(&mut self) -> Result<Wrote> {
        let done = self.opened()?.flush().await;
        self.at(done)
    }

    async fn commit(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let done = self.opened()?.commit(checkpoint).await;
        self.at(done)
    }

    async fn close(&mut self) -> Result<()> {
        if let Some(mut load) = self.load.take() {
            load.close().await;
        }
        Ok(())
    }
}
