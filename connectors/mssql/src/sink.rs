//! The sink.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use async_trait::async_trait;
use towpath_core::{
    Checkpoint, Context, Effect, Error, ErrorKind, Held, Known, Name, Result, Run, Sink, SinkPlan, WriteMode, Wrote,
    sink::Guarantee,
};

use crate::{
    adopt,
    catalog::{Table, TableName},
    client::{Limits, Pool},
    config::SinkOptions,
    load::Load,
    login::Login,
    shape::{create_sql, missing},
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
        let found = ctx.call(&call, || async { Table::read(&mut *pool.session().await?, &self.target).await }).await;
        pool.close().await;
        let (target, options) = (&self.target, &self.options);
        let found = match found {
            Ok(found) => found,
            // A plan is made without the server too.
            Err(error) => return Ok(vec![format!("the server was not asked: {}", error.at(self.login.place()))]),
        };
        let Some(table) = found else {
            return Ok(vec![match schema.schema() {
                Some(schema) => format!("makes table {target}: {}", create_sql(options, target, schema)?),
                None => format!("makes table {target}"),
            }]);
        };
        let mut notes = vec![];
        if let Some(schema) = schema.schema() {
            match missing(options, &table, schema) {
                Ok(new) if new.is_empty() => {}
                Ok(new) => {
                    let names = new.iter().map(|(name, of)| format!("{name} {of}")).collect::<Vec<_>>().join(", ");
                    notes.push(format!("adds to table {target}: {names}"));
                }
                Err(error) => notes.push(format!("the run will fail: {}", error.message())),
            }
        }
        notes.extend(adopt::note(options, &table));
        let key = options.key_columns();
        if !key.is_empty() && !table.is_unique(&key) && options.create {
            notes.push(format!("makes a unique index on {}", key.join(", ")));
        }
        Ok(notes)
    }
}

#[async_trait]
impl Sink for MssqlSink {
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
