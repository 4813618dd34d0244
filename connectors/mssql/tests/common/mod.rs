//! Databases to try the connector on, and short ways to do so.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "shared by several tests, whose failures are their messages"
)]

mod container;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arrow_array::{Array as _, ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use serde_json::{Value, json};
use towpath_connector_mssql::{MssqlSink, MssqlSource, console::Console};
use towpath_core::{Checkpoint, Context, Held, Next, Original, Result, Resume, Run, Sink, Source as _, Wrote};
use towpath_testkit::sql_server::{SqlServer, SqlServerOptions};

/// A password in every connection of these tests, which must never show.
pub const PASSWORD: &str = "towpath_Test1";

/// A server that speaks TDS.
pub struct Server {
    pub url: String,
    /// The simulator, if it is one.
    pub simulator: Option<SqlServer>,
    /// Where it runs in a container: that ends with the last test that holds it.
    _container: Option<Arc<container::Container>>,
}

impl Server {
    /// The testkit's.
    pub async fn simulated() -> Self {
        let simulator =
            SqlServer::start(SqlServerOptions { password: PASSWORD.to_owned(), ..SqlServerOptions::default() }).await;
        Self { url: simulator.url(), simulator: Some(simulator), _container: None }
    }
    /// A real one: where TOWPATH_MSSQL_URL says; else a container; else a line that says there is none, or a failure if REQUIRE_MSSQL is set.
    pub async fn real() -> Option<Self> {
        if let Ok(url) = std::env::var("TOWPATH_MSSQL_URL") {
            return Some(Self { url, simulator: None, _container: None });
        }
        if container::docker_is_here() {
            let (container, url) = container::start().await;
            return Some(Self { url, simulator: None, _container: Some(container) });
        }
        assert!(
            std::env::var_os("REQUIRE_MSSQL").is_none(),
            "REQUIRE_MSSQL is set, and there is neither a SQL Server nor a Docker"
        );
        eprintln!("SKIPPED: no SQL Server");
        None
    }
    /// A schema of its own.
    pub async fn place(&self) -> Place {
        Place { simulated: self.simulator.is_some(), ..Place::new(&self.url).await }
    }
}

/// A database, and the schema of one test in it.
pub struct Place {
    pub url: String,
    pub console: Console,
    pub schema: String,
    /// On the testkit's server.
    pub simulated: bool,
}

static NEXT: AtomicU64 = AtomicU64::new(0);

impl Place {
    /// A schema of its own in the database at `url`.
    pub async fn new(url: &str) -> Self {
        let console = Console::new(url).unwrap();
        let schema = format!("t{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        console.ask(&format!("CREATE SCHEMA {schema}")).await.unwrap();
        Self { url: url.to_owned(), console, schema, simulated: false }
    }
    /// Runs SQL; `$` stands for the schema. Rows as text.
    pub async fn ask(&self, sql: &str) -> Vec<String> {
        let rows = self.console.ask(&sql.replace('$', &self.schema)).await;
        let rows = rows.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let cell = |cell: Option<String>| cell.unwrap_or_else(|| "∅".to_owned());
        rows.into_iter().map(|row| row.into_iter().map(cell).collect::<Vec<_>>().join("|")).collect()
    }
    pub fn try_sink(&self, mut options: Value) -> Result<MssqlSink> {
        options["connection"] = json!(self.url);
        if options.get("table").is_none() {
            options["table"] = json!(format!("{}.t", self.schema));
        }
        let options =
            serde_json::from_value(options).map_err(|error| towpath_core::Error::config(error.to_string()))?;
        MssqlSink::new(&"sink".into(), options)
    }
    /// Reads the table, or what the options say, with the source.
    pub async fn read(&self, mut options: Value) -> Vec<RecordBatch> {
        options["connection"] = json!(self.url);
        if options.get("table").is_none() && options.get("query").is_none() {
            options["table"] = json!(format!("{}.t", self.schema));
        }
        let mut source = MssqlSource::new(&"source".into(), serde_json::from_value(options).unwrap()).unwrap();
        let (ctx, run, resume) = (Context::bare("source"), run("read"), Resume::default());
        source.open(&ctx, &run, &resume).await.unwrap();
        let mut batches = vec![];
        while let Next::Piece(piece) = source.next().await.unwrap() {
            assert!(piece.rejects.is_empty(), "{:?}", piece.rejects);
            batches.push(piece.rows);
        }
        source.close().await.unwrap();
        batches
    }
    pub fn sink(&self, options: Value) -> MssqlSink {
        self.try_sink(options).unwrap()
    }
    /// Who asks: the pipeline is the schema's, so that tests do not fence each other off.
    pub fn ctx(&self) -> Context {
        Context::bare("sink")
    }
    /// A whole run: every batch an epoch of its own, the last one the run's last.
    pub async fn load(&self, options: Value, epochs: &[RecordBatch]) -> Result<Loaded> {
        let mut sink = self.try_sink(options)?;
        let done = run_through(&mut sink, &self.ctx(), epochs).await;
        sink.close().await?;
        done
    }
    /// What a plan says would be made or changed.
    pub async fn plan(&self, options: Value, schema: &arrow_schema::SchemaRef) -> Vec<String> {
        self.sink(options)
            .plan(&self.ctx(), &towpath_core::Known::Now(std::sync::Arc::clone(schema)))
            .await
            .unwrap()
            .notes
    }
    /// Staging tables there are.
    pub async fn staging(&self) -> Vec<String> {
        self.ask("SELECT o.name FROM sys.objects o JOIN sys.schemas s ON s.schema_id = o.schema_id WHERE s.name = '$' AND o.name LIKE 'towpath[_]stage%'")
            .await
    }
}

/// What came of a run.
#[derive(Debug, Default, PartialEq)]
pub struct Loaded {
    pub written: u64,
    pub known: u64,
    /// Kind, column, reason and row.
    pub rejected: Vec<String>,
}

impl Loaded {
    pub fn add(&mut self, wrote: Wrote, rows: Option<&RecordBatch>) {
        self.written += wrote.written;
        self.known += wrote.known;
        for reject in wrote.rejected {
            let row = match &reject.row {
                Original::Row(at) => text(&rows.unwrap().slice(*at, 1)),
                Original::Late(row) => text(row),
                Original::Bytes(bytes) => vec![String::from_utf8_lossy(bytes).into_owned()],
            };
            let column = reject.column.as_deref().unwrap_or("-");
            self.rejected.push(format!("{} {column}: {} [{}]", reject.kind.name(), reject.reason, row.join(" ")));
        }
    }
    pub fn counts(&self) -> (u64, u64, usize) {
        (self.written, self.known, self.rejected.len())
    }
}

pub fn text(rows: &RecordBatch) -> Vec<String> {
    (0..rows.num_rows())
        .map(|row| rows.columns().iter().map(|column| cell(column, row)).collect::<Vec<_>>().join("|"))
        .collect()
}

fn cell(column: &ArrayRef, row: usize) -> String {
    if column.is_null(row) {
        return "∅".to_owned();
    }
    towpath_testkit::rows::value(column, row).unwrap()
}

pub fn run(id: &str) -> Run {
    Run {
        id: id.into(),
        started: "2026-01-01T00:00:00Z".parse().unwrap(),
        parameters: Default::default(),
        fingerprint: Default::default(),
    }
}

pub fn checkpoint(run: &Run, epoch: u64, last: bool) -> Checkpoint {
    let at = [(
        towpath_core::Name::from("source"),
        [(towpath_core::Partition::new("p"), towpath_core::Position::new(format!("at {epoch}")))].into(),
    )];
    Checkpoint { run: run.clone(), epoch, last, keyed_by: None, at: at.into() }
}

/// The epoch a target holds.
pub fn held(held: &Held) -> Option<u64> {
    match held {
        Held::Here(checkpoint) => checkpoint.as_ref().map(|checkpoint| checkpoint.epoch),
        Held::ByEngine => panic!("the target holds its checkpoint"),
    }
}

pub async fn run_through(sink: &mut MssqlSink, ctx: &Context, epochs: &[RecordBatch]) -> Result<Loaded> {
    let (run, mut loaded) = (run("run-1"), Loaded::default());
    sink.open(ctx, &run).await?;
    for (at, rows) in epochs.iter().enumerate() {
        sink.schema(&rows.schema()).await?;
        loaded.add(sink.write(at as u64, rows.clone()).await?, Some(rows));
        loaded.add(sink.flush().await?, None);
        sink.commit(&checkpoint(&run, at as u64 + 1, at + 1 == epochs.len())).await?;
    }
    Ok(loaded)
}

/// Rows from text: the first line names columns (`id:int`, `x:float`, else text), `∅` is null.
pub fn rows(table: &str) -> RecordBatch {
    let mut lines = table.trim().lines().map(|line| line.trim().split('|').map(str::trim).collect::<Vec<_>>());
    let header = lines.next().unwrap();
    let lines: Vec<_> = lines.collect();
    let columns = header.iter().enumerate().map(|(at, name)| {
        let cells = lines.iter().map(|line| (line[at] != "∅").then_some(line[at]));
        let (name, kind) = name.split_once(':').unwrap_or((name, "text"));
        let column: ArrayRef = match kind {
            "int" => std::sync::Arc::new(Int64Array::from_iter(
                cells.map(|cell| cell.map(|cell| cell.parse::<i64>().unwrap())),
            )),
            "float" => std::sync::Arc::new(Float64Array::from_iter(
                cells.map(|cell| cell.map(|cell| cell.parse::<f64>().unwrap())),
            )),
            _ => std::sync::Arc::new(StringArray::from_iter(cells)),
        };
        (name, column, true)
    });
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}
