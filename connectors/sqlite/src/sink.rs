//! The sink: casts and hashes where the engine's task runs, everything else on the database's thread.

use std::sync::{Arc, Mutex};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use async_trait::async_trait;
use rusqlite::{Connection, OpenFlags};
use towpath_core::{
    Call, Checkpoint, Context, Effect, Error, Held, KeySpec, Known, Name, Original, Result, Run, Sink, SinkPlan,
    WriteMode, Wrote, sink::Guarantee,
};

use crate::{
    config::{SinkOptions, absolute},
    error::at,
    load::Load,
    shape::Shape,
    table::{Table, create_sql},
    worker::{Database, Writer, lock},
};

/// So many rows are cast and hashed while those before are being inserted.
const PORTION: usize = 2048;

/// Adds what came of the rows from `first` on.
fn add(sum: &mut Wrote, part: Wrote, first: usize) {
    sum.written += part.written;
    sum.known += part.known;
    sum.rejected.extend(part.rejected.into_iter().map(|mut reject| {
        if let Original::Row(row) = &mut reject.row {
            *row += first;
        }
        reject
    }));
}

/// Rows into a table of a SQLite file. Exactly once: rows and checkpoint are one transaction of the file.
///
/// Takes any flat schema; see the README for what becomes of each type. Blocks nothing: SQLite runs on a thread of its own, which is
/// interrupted when a call is cancelled.
pub struct SqliteSink {
    options: Arc<SinkOptions>,
    open: Option<Open>,
}

struct Open {
    ctx: Context,
    database: Arc<Database>,
    load: Arc<Mutex<Load>>,
    shape: Option<Arc<Shape>>,
}

impl SqliteSink {
    /// Makes a sink; nothing is opened yet.
    ///
    /// # Errors
    /// Config: options that do not go together.
    pub fn new(_: &Name, options: SinkOptions) -> Result<Self> {
        options.check()?;
        Ok(Self { options: Arc::new(options), open: None })
    }

    fn opened(&mut self) -> Result<&mut Open> {
        self.open.as_mut().ok_or_else(|| Error::internal("the sink is not open"))
    }

    /// Each sink is an origin of its own: sinks of one file commit together, so that one must not wait for the other's end.
    fn call(&self, ctx: &Context, what: &str, effect: Effect) -> Call {
        let path = absolute(&self.options.path);
        Call::new(
            format!("{what} {}", self.options.table),
            format!("sqlite:{}#{}", path.display(), ctx.component()),
            effect,
        )
    }

    /// What a run would make or change.
    fn notes(&self, schema: &Known) -> Result<Vec<String>> {
        let (path, table) = (&self.options.path, &self.options.table);
        let makes = |schema: &Known| match schema.schema() {
            Some(schema) => create_sql(table, schema, &self.options).map(|sql| format!("makes table {table}: {sql}")),
            None => Ok(format!("makes table {table}")),
        };
        if !path.exists() {
            return Ok(vec![format!("makes {}", path.display()), makes(schema)?]);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let found = Connection::open_with_flags(path, flags)
            .map_err(|error| crate::error::failed("open the database", error))
            .and_then(|db| Table::read(&db, table));
        let Some(found) = found.map_err(at(path))? else { return Ok(vec![makes(schema)?]) };
        let new = schema.schema().into_iter().flat_map(|schema| schema.fields());
        let new: Vec<_> =
            new.filter(|field| found.column(field.name()).is_none()).map(|field| field.name().as_str()).collect();
        let names = new.join(", ");
        Ok(match (new.is_empty(), self.options.add_columns) {
            (true, _) => vec![],
            (false, true) => vec![format!("adds to table {table}: {names}")],
            (false, false) => {
                vec![format!("table {table} has no column {names}: the run will fail without `add_columns: true`")]
            }
        })
    }
}

impl Open {
    /// Does something with the load on the database's thread.
    async fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Load, &mut Writer) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let load = Arc::clone(&self.load);
        self.database.run(move |writer| work(&mut lock(&load), writer)).await
    }
}

#[async_trait]
impl Sink for SqliteSink {
    fn key_columns(&self) -> Option<Vec<String>> {
        match &self.options.key {
            Some(KeySpec::Columns(names)) => Some(names.clone()),
            // Of one hash no row replaces another.
            Some(KeySpec::RowHash(_)) | None => None,
        }
    }

    async fn plan(&mut self, _: &Context, schema: &Known) -> Result<SinkPlan> {
        let mode = self.options.write;
        Ok(SinkPlan {
            mode,
            guarantee: Guarantee::ExactlyOnce,
            early_publish: matches!(mode, WriteMode::InsertNew | WriteMode::Upsert),
            identity: self.options.identity(),
            notes: self.notes(schema)?,
        })
    }

    async fn open(&mut self, ctx: &Context, run: &Run) -> Result<Held> {
        let path = absolute(&self.options.path);
        let call = self.call(ctx, "open", Effect::Idempotent);
        let ctx_ref = ctx;
        let (database, load, checkpoint) = ctx
            .call(&call, || async {
                let database = Database::shared(&path, ctx.pipeline(), ctx.component()).await?;
                let session = database.session();
                let (options, run, ctx) = (Arc::clone(&self.options), run.clone(), ctx.clone());
                let opened = database
                    .run(move |writer| Load::open(writer, options, session, (ctx.pipeline(), ctx.component()), &run))
                    .await;
                match opened {
                    Ok((load, checkpoint)) => Ok((database, load, checkpoint)),
                    Err(error) => {
                        database.close(ctx_ref.component()).await;
                        Err(error)
                    }
                }
            })
            .await?;
        self.open = Some(Open { ctx: ctx.clone(), database, load: Arc::new(Mutex::new(load)), shape: None });
        Ok(Held::Here(checkpoint))
    }

    async fn schema(&mut self, schema: &SchemaRef) -> Result<Option<String>> {
        let open = self.opened()?;
        let schema = Arc::clone(schema);
        let shape = open.on_thread(move |load, writer| load.schema(writer, &schema)).await?;
        open.shape = Some(Arc::clone(&shape));
        Ok(shape.keyed_by.clone())
    }

    async fn write(&mut self, _: u64, rows: RecordBatch) -> Result<Wrote> {
        let open = self.opened()?;
        let shape = match &open.shape {
            Some(shape) if shape.fits(&rows.schema()) => Arc::clone(shape),
            _ => return Err(Error::internal("rows of a schema that was not told")),
        };
        // Looking up is faster in large portions, inserting is not.
        let portion = if shape.has_work() && lock(&open.load).inserts_at_once() { PORTION } else { rows.num_rows() };
        let mut wrote = Wrote::default();
        let mut before = None;
        for first in (0..rows.num_rows()).step_by(portion.max(1)) {
            let portion = rows.slice(first, portion.min(rows.num_rows() - first));
            let ready = shape.ready(&portion)?;
            let (load, shape) = (Arc::clone(&open.load), Arc::clone(&shape));
            let ticket = open.database.submit(move |writer| lock(&load).write(writer, &shape, ready)).await;
            if let Some((first, ticket)) = before.replace((first, ticket)) {
                add(&mut wrote, ticket.wait().await?, first);
            }
        }
        if let Some((first, ticket)) = before {
            add(&mut wrote, ticket.wait().await?, first);
        }
        Ok(wrote)
    }

    async fn flush(&mut self) -> Result<Wrote> {
        self.opened()?.on_thread(|load, writer| load.flush(writer)).await
    }

    async fn commit(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let ctx = self.opened()?.ctx.clone();
        let call = self.call(&ctx, "commit to", Effect::Once);
        let open = self.opened()?;
        let last_replace = checkpoint.last;
        let open_ref = &*open;
        ctx.call(&call, || {
            let checkpoint = checkpoint.clone();
            async move {
                let done = open_ref.on_thread(move |load, writer| load.commit(writer, &checkpoint)).await?;
                done.await.unwrap_or_else(|_| {
                    Err(Error::unavailable("the SQLite thread ended during the commit").outcome_unknown())
                })
            }
        })
        .await?;
        if last_replace {
            // The staging table has become the target; another write would need a new one.
            open.shape = None;
        }
        Ok(())
    }

    async fn close(&mut self) -> Result<()> {
        if let Some(Open { ctx, database, load, .. }) = self.open.take() {
            let done = database
                .run(move |writer| {
                    lock(&load).close(writer);
                    Ok(())
                })
                .await;
            database.close(ctx.component()).await;
            return done;
        }
        Ok(())
    }
}
