//! The source: a table or a query, whole or behind a cursor.

use std::{sync::Arc, thread::JoinHandle};

use async_trait::async_trait;
use rusqlite::{Connection, InterruptHandle};
use tokio::sync::{mpsc, oneshot};
use towpath_core::{
    Call, Context, Effect, Error, Known, Name, Next, Partition, Result, Resume, Run, Source, SourcePlan, Work,
    source::{Discovery, Replay},
};

use crate::{
    config::{SourceOptions, absolute},
    error::{During as _, at},
    reader::{Job, Seam, open, read, schema_of},
    table::Table,
};

/// Pieces that wait between the thread and the engine.
const AHEAD: usize = 2;

/// Rows of a table or query of a SQLite file.
///
/// Gives typed rows as the columns are declared. Reads in one transaction on a thread of its own: what is read is of one moment. The
/// thread is interrupted by `close`.
pub struct SqliteSource {
    name: Name,
    options: Arc<SourceOptions>,
    reading: Option<Reading>,
}

struct Reading {
    pieces: mpsc::Receiver<Result<Next>>,
    interrupt: Option<InterruptHandle>,
    thread: Option<JoinHandle<()>>,
    ended: oneshot::Receiver<()>,
}

impl SqliteSource {
    /// Makes a source; nothing is opened yet.
    ///
    /// # Errors
    /// Config: options that do not go together.
    pub fn new(name: &Name, options: SourceOptions) -> Result<Self> {
        options.check()?;
        Ok(Self { name: name.clone(), options: Arc::new(options), reading: None })
    }

    fn partition(&self) -> Partition {
        Partition::new(self.options.table.as_deref().unwrap_or("query"))
    }

    fn identity(&self) -> String {
        let options = &self.options;
        let what = match (&options.table, &options.query) {
            (Some(table), _) => format!("table={table}"),
            (None, query) => {
                format!("query={:016x}", xxhash_rust::xxh3::xxh3_64(query.as_deref().unwrap_or("").trim().as_bytes()))
            }
        };
        let cursor = options.cursor.as_ref().map(|cursor| format!(" cursor={cursor}")).unwrap_or_default();
        format!("sqlite {} {what}{cursor}", absolute(&options.path).display())
    }

    fn call(&self, what: &str, effect: Effect) -> Call {
        let path = absolute(&self.options.path);
        Call::new(format!("{what} {}", self.partition()), format!("sqlite:{}", path.display()), effect)
    }

    /// Does something short with the file, off the runtime's own threads.
    async fn look<T: Send + 'static>(
        &self,
        ctx: &Context,
        work: impl Fn(&Connection, &SourceOptions) -> Result<T> + Clone + Send + Sync + 'static,
    ) -> Result<T> {
        let call = self.call("look at", Effect::Cheap);
        let attempt = || {
            let (options, work) = (Arc::clone(&self.options), work.clone());
            async move {
                let path = absolute(&options.path);
                let looked = tokio::task::spawn_blocking(move || {
                    open(&path, &options).and_then(|db| work(&db, &options)).map_err(at(&path))
                });
                looked.await.map_err(|error| Error::internal("looking at the database failed").because(error))?
            }
        };
        ctx.call(&call, attempt).await
    }
}

#[async_trait]
impl Source for SqliteSource {
    async fn plan(&mut self, ctx: &Context, _: &Run, _: &Resume) -> Result<SourcePlan> {
        let schema = self.look(ctx, schema_of).await?;
        let cursor = self.options.cursor.is_some();
        let what = match &self.options.cursor {
            Some(cursor) => format!("{} of {}, behind {cursor}", self.partition(), self.options.path.display()),
            None => format!("{} of {}", self.partition(), self.options.path.display()),
        };
        Ok(SourcePlan {
            schema: Known::Now(schema),
            work: vec![Work { what, bytes: None }],
            complete_work: true,
            replay: if cursor { Replay::FromPosition } else { Replay::WholePartitions },
            carries: cursor,
            rereads: false,
            identity: self.identity(),
            notes: vec![],
        })
    }

    async fn open(&mut self, ctx: &Context, run: &Run, resume: &Resume) -> Result<()> {
        let partition = self.partition();
        let position = |checkpoint: &towpath_core::Checkpoint| checkpoint.position(&self.name, &partition).cloned();
        let until = resume.until.as_ref().and_then(position);
        let from = match &self.options.cursor {
            Some(_) if resume.whole && resume.same_run(run).is_none() => None,
            Some(_) => resume
                .from
                .as_ref()
                .and_then(position)
                .map(|position| Seam::read(&position).map(|seam| (seam, position)))
                .transpose()?,
            None => None,
        };
        // A table without cursor that this run has read, or a stretch that is empty.
        let ours = format!("run={} ", run.id);
        let read_before = self.options.cursor.is_none()
            && resume.same_run(run).and_then(position).is_some_and(|position| position.0.starts_with(&ours));
        let nothing = match (&resume.until, &until) {
            (Some(_), None) => true,
            (Some(_), Some(until)) => from.as_ref().is_some_and(|(_, from)| from == until),
            (None, _) => false,
        };
        if read_before || nothing {
            let (_, pieces) = mpsc::channel(1);
            let (_, ended) = oneshot::channel();
            self.reading = Some(Reading { pieces, interrupt: None, thread: None, ended });
            return Ok(());
        }
        let from = from.map(|(seam, _)| seam);
        let call = self.call("read", Effect::Read);
        let reading = ctx
            .call(&call, || {
                let job = Job {
                    options: Arc::clone(&self.options),
                    partition: partition.clone(),
                    run: run.id.to_string(),
                    from: from.clone(),
                    until: until.clone(),
                };
                async move { Reading::begin(job).await }
            })
            .await?;
        self.reading = Some(reading);
        Ok(())
    }

    async fn next(&mut self) -> Result<Next> {
        let reading = self.reading.as_mut().ok_or_else(|| Error::internal("the source is not open"))?;
        // What the thread has sent is in the channel until it is taken: dropping this future loses nothing.
        reading.pieces.recv().await.unwrap_or(Ok(Next::End))
    }

    async fn close(&mut self) -> Result<()> {
        if let Some(Reading { pieces, interrupt, thread, ended }) = self.reading.take() {
            drop(pieces);
            if let (Some(interrupt), Some(thread)) = (interrupt, thread) {
                interrupt.interrupt();
                let _ = ended.await;
                let _ = thread.join();
            }
        }
        Ok(())
    }

    async fn discover(&mut self, ctx: &Context) -> Result<Discovery> {
        self.look(ctx, |db, _| discover(db)).await
    }
}

impl Reading {
    async fn begin(job: Job) -> Result<Self> {
        let (to, pieces) = mpsc::channel(AHEAD);
        let (opened, is_open) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let path = absolute(&job.options.path);
        let work = move || {
            match open(&path, &job.options) {
                Err(error) => drop(opened.send(Err(at(&path)(error)))),
                Ok(db) => {
                    let _ = opened.send(Ok(db.get_interrupt_handle()));
                    if let Err(error) = read(&db, &job, &to) {
                        let _ = to.blocking_send(Err(at(&path)(error)));
                    }
                }
            }
            drop(to);
            let _ = end.send(());
        };
        let thread = std::thread::Builder::new().name("sqlite".to_owned()).spawn(work);
        let thread = thread.map_err(|error| Error::unavailable("cannot start a thread for SQLite").because(error))?;
        let interrupt = is_open.await.map_err(|_| Error::internal("the SQLite thread ended while opening"))??;
        Ok(Self { pieces, interrupt: Some(interrupt), thread: Some(thread), ended })
    }
}

/// Tables and views with columns, types, keys and how many rows.
fn discover(db: &Connection) -> Result<Discovery> {
    use std::fmt::Write as _;
    let doing = "list the tables";
    let names = db
        .prepare("SELECT name, type FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
                  AND name NOT LIKE 'towpath\\_%' ESCAPE '\\' ORDER BY name")
        .and_then(|mut list| {
            list.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?.collect::<rusqlite::Result<Vec<_>>>()
        })
        .during(doing)?;
    let (mut text, mut items) = (String::new(), vec![]);
    for (name, kind) in names {
        let Some(table) = Table::read(db, &name)? else { continue };
        let sql = format!("SELECT count(*) FROM {}", crate::table::quote(&name));
        let rows: i64 = db.query_row(&sql, [], |row| row.get(0)).during(&format!("count the rows of {name}"))?;
        let _ = writeln!(text, "{name} ({kind}, {rows} rows)");
        let mut columns = vec![];
        for column in &table.columns {
            let key = if column.key > 0 { ", key" } else { "" };
            let null = if column.not_null { ", not null" } else { "" };
            let declared = if column.declared.is_empty() { "no type" } else { &column.declared };
            let _ = writeln!(text, "  {}: {declared}{key}{null}", column.name);
            columns.push(serde_json::json!({
                "name": column.name, "type": column.declared, "key": column.key > 0, "not_null": column.not_null,
            }));
        }
        items.push(
            serde_json::json!({"name": name, "kind": kind, "rows": rows, "columns": columns, "unique": table.unique}),
        );
    }
    if text.is_empty() {
        text.push_str("no tables\n");
    }
    Ok(Discovery { text, items: items.into() })
}
