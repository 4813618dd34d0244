//! The suite that every connector passes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure in a test is its message")]

mod common;

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use async_trait::async_trait;
use common::Place;
use serde_json::json;
use towpath_connector_sqlite as _;
use towpath_core::{Sink, Source, WriteMode};
use towpath_testkit::{
    conformance::{
        Comes, Setup, SinkQuirks, SinkTarget, SinkUnderTest, SourceOrigin, SourceQuirks, SourceUnderTest, TypeQuirk,
        sink, source,
    },
    memory::Key,
};

/// A table as text, one batch.
fn table(place: &Place, sql: &str) -> RecordBatch {
    let db = place.db();
    let mut query = db.prepare(sql).unwrap();
    let names: Vec<String> = query.column_names().map(str::to_owned).collect();
    let mut columns: Vec<Vec<Option<String>>> = vec![vec![]; names.len()];
    let mut rows = query.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        for (at, column) in columns.iter_mut().enumerate() {
            use rusqlite::types::ValueRef;
            column.push(match row.get_ref(at).unwrap() {
                ValueRef::Null => None,
                ValueRef::Integer(number) => Some(number.to_string()),
                ValueRef::Real(number) if number.is_infinite() => {
                    Some(if number > 0.0 { "inf" } else { "-inf" }.to_owned())
                }
                ValueRef::Real(number) => Some(format!("{number:?}")),
                ValueRef::Text(text) => Some(String::from_utf8(text.to_vec()).unwrap()),
                ValueRef::Blob(bytes) => Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
            });
        }
    }
    let columns = names.iter().zip(columns).filter(|(name, _)| *name != "row_hash");
    let columns = columns.map(|(name, cells)| (name, Arc::new(StringArray::from(cells)) as ArrayRef, true));
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

struct Target(Place);

#[async_trait(?Send)]
impl SinkTarget for Target {
    fn sink(&self, setup: &Setup) -> Box<dyn Sink> {
        let mut options = json!({ "write": setup.mode, "add_columns": true });
        match &setup.key {
            Key::None => {}
            Key::Columns(columns) => options["key"] = json!(columns),
            Key::RowHash => options["key"] = "row_hash".into(),
        }
        Box::new(self.0.sink(options))
    }
    async fn rows(&self) -> Option<Vec<RecordBatch>> {
        let there = self.0.ask("SELECT count(*) FROM sqlite_schema WHERE name = 't'") == ["1"];
        there.then(|| vec![table(&self.0, "SELECT * FROM t")])
    }
    async fn refuse(&self, setup: &Setup, name: &str) -> bool {
        let hash = if setup.key == Key::RowHash { ", row_hash BLOB NOT NULL" } else { "" };
        let key = if setup.mode == WriteMode::Append || setup.key == Key::None { "" } else { " UNIQUE" };
        let key = if setup.key == Key::RowHash { "" } else { key };
        self.0.sql(&format!("CREATE TABLE t (id INTEGER{key}, name TEXT CHECK (name <> '{name}'){hash}) STRICT"));
        true
    }
    async fn drop_table(&self) -> bool {
        self.0.sql("DROP TABLE IF EXISTS t");
        true
    }
}

fn with_a_space(text: &str) -> String {
    let utc = text.parse::<jiff::Timestamp>().ok();
    let text = utc.map_or(text.to_owned(), |moment| moment.to_string()).replacen('T', " ", 1);
    let (text, zone) = text.strip_suffix('Z').map_or((text.as_str(), ""), |text| (text, "Z"));
    let text = if text.contains('.') { text.trim_end_matches('0') } else { text };
    format!("{text}{zone}")
}
fn widened(text: &str) -> String {
    format!("{:?}", f64::from(text.parse::<f32>().unwrap()))
}
fn bit(text: &str) -> String {
    if text == "true" { "1" } else { "0" }.to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sink_keeps_the_promises() {
    let moments =
        ["timestamp_s", "timestamp_ms", "timestamp_us", "timestamp_ns", "timestamp_us_utc", "timestamp_us_offset"];
    let mut types: Vec<_> = moments
        .map(|of| TypeQuirk { of, comes: Comes::As(with_a_space), reason: "the form of SQLite's own functions" })
        .into();
    types.push(TypeQuirk { of: "bool", comes: Comes::As(bit), reason: "SQLite has no bool" });
    types.push(TypeQuirk {
        of: "uint64",
        comes: Comes::Rejected(&["18446744073709551615"]),
        reason: "SQLite's integers end at 2^63 - 1",
    });
    types.push(TypeQuirk {
        of: "float64_special",
        comes: Comes::Rejected(&["NaN"]),
        reason: "SQLite would make NaN null",
    });
    types.push(TypeQuirk { of: "float32", comes: Comes::As(widened), reason: "SQLite's REAL has 64 bits" });
    let locks =
        Some("SQLite has one writer: from flush to commit the file is locked, and another waits for lock_timeout");
    let quirks = SinkQuirks { types, locks, ..SinkQuirks::default() };
    sink(&SinkUnderTest::new("sqlite", async || Target(Place::new())).quirks(quirks)).await;
}

struct Origin(Place, bool);

#[async_trait(?Send)]
impl SourceOrigin for Origin {
    fn source(&self) -> Box<dyn Source> {
        let options = if self.1 { json!({"table": "t", "cursor": "id"}) } else { json!({"table": "t"}) };
        Box::new(self.0.source_named("origin", options))
    }
    async fn rows(&self) -> Vec<RecordBatch> {
        vec![table(&self.0, "SELECT * FROM t")]
    }
    async fn change(&self) -> bool {
        if self.1 {
            return false;
        }
        self.0.sql("UPDATE t SET name = name || '!'");
        true
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_source_keeps_the_promises() {
    for cursor in [false, true] {
        let origin = move || async move {
            let place = Place::new();
            place.sql(
                "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT);
                 WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000) INSERT INTO t SELECT i, 'n' || i FROM n",
            );
            Origin(place, cursor)
        };
        let quirks = SourceQuirks {
            never_changes: cursor.then_some("rows that change behind the cursor are not seen"),
            never_truncated: Some("a database is read in one transaction"),
            ..SourceQuirks::default()
        };
        source(&SourceUnderTest::new("sqlite", origin).quirks(quirks)).await;
    }
}
