//! What the tests of the sink share: a database in a folder of its own, rows from a table of text, a run in one call.
#![allow(dead_code, reason = "each test file uses its part")]

use std::{path::PathBuf, sync::Arc};

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use rusqlite::{Connection, types::ValueRef};
use serde_json::json;
use towpath_connector_sqlite::{SqliteSink, SqliteSource};
use towpath_core::{Checkpoint, Context, Error, Held, Original, Result, Run, Sink, Wrote};

/// A folder with a database.
pub struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("data.db")
    }
    pub fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }
    pub fn db(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }
    pub fn sql(&self, sql: &str) {
        self.db().execute_batch(sql).unwrap();
    }
    /// The answer to a query: cells joined by `|`, one line a row.
    pub fn ask(&self, sql: &str) -> Vec<String> {
        ask(&self.db(), sql)
    }
    pub fn rows(&self) -> Vec<String> {
        self.ask("SELECT * FROM t")
    }
    pub fn sink(&self, options: serde_json::Value) -> SqliteSink {
        self.try_sink(options).unwrap()
    }
    pub fn try_sink(&self, mut options: serde_json::Value) -> Result<SqliteSink> {
        options["path"] = self.path().to_str().unwrap().into();
        if options.get("table").is_none() {
            options["table"] = "t".into();
        }
        let options = serde_json::from_value(options).map_err(|error| Error::config(error.to_string()))?;
        SqliteSink::new(&"sink".into(), options)
    }
    pub fn source(&self, options: serde_json::Value) -> SqliteSource {
        self.source_named("source", options)
    }
    pub fn source_named(&self, name: &str, mut options: serde_json::Value) -> SqliteSource {
        options["path"] = self.path().to_str().unwrap().into();
        SqliteSource::new(&name.into(), serde_json::from_value(options).unwrap()).unwrap()
    }
    /// A whole run: every batch an epoch of its own, the last one the run's last.
    pub async fn load(&self, options: serde_json::Value, epochs: &[RecordBatch]) -> Result<Loaded> {
        let mut sink = self.try_sink(options)?;
        let done = run_through(&mut sink, epochs).await;
        sink.close().await?;
        done
    }
}

pub fn ask(db: &Connection, sql: &str) -> Vec<String> {
    let mut query = db.prepare(sql).unwrap();
    let columns = query.column_count();
    let rows = query.query_map([], |row| {
        let cells = (0..columns).map(|at| match row.get_ref(at).unwrap() {
            ValueRef::Null => "∅".to_owned(),
            ValueRef::Integer(number) => number.to_string(),
            ValueRef::Real(number) => format!("{number:?}"),
            ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            ValueRef::Blob(blob) => format!("x{}", blob.len()),
        });
        Ok(cells.collect::<Vec<_>>().join("|"))
    });
    rows.unwrap().map(|row| row.unwrap()).collect()
}

/// What came of a run.
#[derive(Debug, Default, PartialEq)]
pub struct Loaded {
    pub written: u64,
    pub known: u64,
    /// Column, reason and row, in the order of the rows within an epoch.
    pub rejected: Vec<String>,
}

impl Loaded {
    pub fn add(&mut self, wrote: Wrote, rows: Option<&RecordBatch>) {
        self.written += wrote.written;
        self.known += wrote.known;
        for reject in wrote.rejected {
            let row = match &reject.row {
                Original::Row(at) => text(&rows.unwrap().slice(*at, 1)),
                Original::Late(row) => {
                    assert_eq!(row.num_rows(), 1);
                    text(row)
                }
                Original::Bytes(bytes) => vec![String::from_utf8_lossy(bytes).into_owned()],
            };
            let kind = reject.kind.name();
            self.rejected.push(format!(
                "{kind} {}: {} [{}]",
                reject.column.as_deref().unwrap_or("-"),
                reject.reason,
                row.join(" ")
            ));
        }
    }
}

pub fn text(rows: &RecordBatch) -> Vec<String> {
    (0..rows.num_rows())
        .map(|row| {
            let cells = rows.columns().iter().map(|column| cell(column, row));
            cells.collect::<Vec<_>>().join("|")
        })
        .collect()
}

fn cell(column: &ArrayRef, row: usize) -> String {
    use arrow_array::Array as _;
    if column.is_null(row) {
        return "∅".to_owned();
    }
    let any = column.as_any();
    if let Some(column) = any.downcast_ref::<StringArray>() {
        column.value(row).to_owned()
    } else if let Some(column) = any.downcast_ref::<Int64Array>() {
        column.value(row).to_string()
    } else if let Some(column) = any.downcast_ref::<Float64Array>() {
        format!("{:?}", column.value(row))
    } else {
        format!("{:?}", column.slice(row, 1))
    }
}

pub fn run(id: &str) -> Run {
    Run {
        id: id.into(),
        started: jiff::Timestamp::UNIX_EPOCH,
        parameters: Default::default(),
        fingerprint: Default::default(),
    }
}

pub fn checkpoint(run: &Run, epoch: u64, last: bool) -> Checkpoint {
    let mark = format!("at {epoch}");
    let at = [(
        towpath_core::Name::from("source"),
        [(towpath_core::Partition::new("p"), towpath_core::Position::new(mark))].into(),
    )];
    Checkpoint { run: run.clone(), epoch, last, keyed_by: None, at: at.into() }
}

pub fn ctx() -> Context {
    Context::bare("sink")
}

/// The epoch a target holds.
pub fn held(held: &Held) -> Option<u64> {
    match held {
        Held::Here(checkpoint) => checkpoint.as_ref().map(|checkpoint| checkpoint.epoch),
        Held::ByEngine => panic!("the target holds its checkpoint"),
    }
}

pub async fn run_through(sink: &mut SqliteSink, epochs: &[RecordBatch]) -> Result<Loaded> {
    let (run, mut loaded) = (run("run-1"), Loaded::default());
    sink.open(&ctx(), &run).await?;
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
            "int" => Arc::new(Int64Array::from_iter(cells.map(|cell| cell.map(|cell| cell.parse::<i64>().unwrap())))),
            "float" => {
                Arc::new(Float64Array::from_iter(cells.map(|cell| cell.map(|cell| cell.parse::<f64>().unwrap()))))
            }
            _ => Arc::new(StringArray::from_iter(cells)),
        };
        (name, column, true)
    });
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

pub fn append() -> serde_json::Value {
    json!({"write": "append"})
}
pub fn replace() -> serde_json::Value {
    json!({"write": "replace"})
}
pub fn by_hash() -> serde_json::Value {
    json!({"write": "insert_new", "key": "row_hash"})
}
pub fn insert_new() -> serde_json::Value {
    json!({"write": "insert_new", "key": ["id"]})
}
pub fn upsert() -> serde_json::Value {
    json!({"write": "upsert", "key": ["id"]})
}
