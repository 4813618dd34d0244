//! The suite that every connector passes, over files, over HTTP, and for both formats of the sink.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure in a test is its message")]

mod common;

use std::path::PathBuf;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray};
use arrow_schema::{DataType, Field, Schema};
use async_trait::async_trait;
use common::{
    many,
    site::{PROPER, Site},
    write,
};
use serde_json::value::RawValue;
use towpath_core::{Sink, Source, WriteMode};
use towpath_testkit::conformance::{
    Comes, Setup, SinkQuirks, SinkTarget, SinkUnderTest, SourceOrigin, SourceUnderTest, TypeQuirk, sink, source,
};

/// Text columns, as the decoder gives them.
fn table(content: &str) -> RecordBatch {
    let mut lines = content.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    let names = lines.next().unwrap_or_default();
    let rows: Vec<Vec<String>> = lines.collect();
    let columns = (0..names.len()).map(|at| rows.iter().map(|row| Some(row[at].clone())).collect::<Vec<_>>());
    of_columns(&names, columns.collect())
}

fn of_columns(names: &[String], columns: Vec<Vec<Option<String>>>) -> RecordBatch {
    let rows = columns.first().map_or(0, Vec::len);
    let schema = Schema::new(names.iter().map(|name| Field::new(name, DataType::Utf8, true)).collect::<Vec<_>>());
    let columns = columns
        .into_iter()
        .map(|column| std::sync::Arc::new(column.into_iter().collect::<StringArray>()) as ArrayRef)
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(std::sync::Arc::new(schema), columns, &options).expect("a table")
}

struct Folder {
    folder: tempfile::TempDir,
}

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), "a.csv", many(0..20_000));
        write(folder.path(), "b.csv", many(20_000..30_000));
        write(folder.path(), "c.csv", many(30_000..30_003));
        Self { folder }
    }
    fn of(&self) -> [PathBuf; 3] {
        ["a.csv", "b.csv", "c.csv"].map(|name| self.folder.path().join(name))
    }
}

#[async_trait(?Send)]
impl SourceOrigin for Folder {
    fn source(&self) -> Box<dyn Source> {
        common::source(&format!("{{ path: '{}/*.csv', read: changed }}", self.folder.path().display()))
    }
    async fn rows(&self) -> Vec<RecordBatch> {
        self.of().iter().map(|path| table(&std::fs::read_to_string(path).expect("a file"))).collect()
    }
    async fn change(&self) -> bool {
        write(self.folder.path(), "a.csv", many(7..20_009));
        true
    }
    async fn truncate(&self) -> bool {
        // Only what is packed shows that its end is missing.
        let path = self.folder.path().join("a.csv");
        let packed = packed(&std::fs::read(&path).expect("a file")).await;
        std::fs::write(path, &packed[..packed.len() / 2]).is_ok()
    }
}

async fn packed(plain: &[u8]) -> Vec<u8> {
    use tokio::io::AsyncWriteExt as _;
    let mut encoder = async_compression::tokio::write::GzipEncoder::new(Vec::new());
    encoder.write_all(plain).await.expect("into memory");
    encoder.shutdown().await.expect("into memory");
    encoder.into_inner()
}

struct Web {
    site: Site,
    urls: Vec<String>,
}

impl Web {
    async fn new() -> Self {
        let site = Site::new(PROPER).await;
        let urls = vec![site.put("/a.csv", many(0..20_000)), site.put("/b.csv", many(20_000..25_000))];
        Self { site, urls }
    }
}

#[async_trait(?Send)]
impl SourceOrigin for Web {
    fn source(&self) -> Box<dyn Source> {
        common::source(&format!("{{ url: ['{}'], headers: {{ X-Key: hunter2 }} }}", self.urls.join("', '")))
    }
    async fn rows(&self) -> Vec<RecordBatch> {
        vec![table(&many(0..20_000)), table(&many(20_000..25_000))]
    }
    async fn change(&self) -> bool {
        self.site.put("/a.csv", many(7..20_009));
        true
    }
    async fn truncate(&self) -> bool {
        let packed = packed(many(0..20_000).as_bytes()).await;
        self.site.put("/a.csv", &packed[..packed.len() / 2]);
        true
    }
    async fn costly_requests(&self) -> Option<u64> {
        let requests = self.site.server.received_requests().await?;
        Some(
            requests
                .iter()
                .filter(|request| request.method.as_str() == "GET" && !request.headers.contains_key("range"))
                .count() as u64,
        )
    }
}

#[tokio::test]
async fn files_as_a_source() {
    source(&SourceUnderTest::new("csv files", || async { Folder::new() })).await;
}

#[tokio::test]
async fn urls_as_a_source() {
    source(&SourceUnderTest::new("csv over HTTP", Web::new).secret("hunter2")).await;
}

struct Out {
    folder: tempfile::TempDir,
    jsonl: bool,
}

impl Out {
    fn path(&self) -> PathBuf {
        self.folder.path().join("out")
    }
}

/// Records with their fields; an empty field without quotes is none.
fn records(text: &str) -> Vec<Vec<Option<String>>> {
    let (mut records, mut record, mut field) = (vec![], vec![], String::new());
    let (mut quoted, mut inside) = (false, false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if inside && chars.peek() == Some(&'"') => field.extend(chars.next()),
            '"' => (inside, quoted) = (!inside, true),
            ',' | '\n' if !inside => {
                record.push((quoted || !field.is_empty()).then(|| std::mem::take(&mut field)));
                quoted = false;
                if c == '\n' {
                    records.push(std::mem::take(&mut record));
                }
            }
            '\r' if !inside => {}
            c => field.push(c),
        }
    }
    records
}

#[async_trait(?Send)]
impl SinkTarget for Out {
    fn sink(&self, setup: &Setup) -> Box<dyn Sink> {
        let write = if setup.mode == WriteMode::Append { "append" } else { "replace" };
        let format = if self.jsonl { "jsonl" } else { "csv" };
        common::try_sink(&format!("{{ path: '{}', write: {write}, format: {format} }}", self.path().display()))
            .expect("a sink")
    }
    async fn rows(&self) -> Option<Vec<RecordBatch>> {
        let text = std::fs::read_to_string(self.path()).ok()?;
        if !self.jsonl {
            let mut records = records(&text).into_iter();
            let Some(names) = records.next() else { return Some(vec![]) };
            let names: Vec<String> = names.into_iter().map(Option::unwrap_or_default).collect();
            let rows: Vec<_> = records.collect();
            let columns = (0..names.len()).map(|at| rows.iter().map(|row| row[at].clone()).collect());
            return Some(vec![of_columns(&names, columns.collect())]);
        }
        let row = |line: &str| {
            // Numbers as they stand there: a float would lose digits of a decimal.
            let object: std::collections::BTreeMap<String, Box<RawValue>> =
                serde_json::from_str(line).expect("a JSON object");
            let (names, values): (Vec<String>, Vec<Box<RawValue>>) = object.into_iter().unzip();
            let text = |value: Box<RawValue>| match value.get() {
                "null" => None,
                text if text.starts_with('"') => Some(serde_json::from_str(text).expect("a JSON string")),
                other => Some(other.to_owned()),
            };
            of_columns(&names, values.into_iter().map(|value| vec![text(value)]).collect())
        };
        Some(text.lines().map(row).collect())
    }
    async fn drop_table(&self) -> bool {
        std::fs::remove_file(self.path()).is_ok()
    }
}

fn out(jsonl: bool) -> impl Fn() -> std::future::Ready<Out> {
    move || std::future::ready(Out { folder: tempfile::tempdir().expect("a folder"), jsonl })
}

fn quirks() -> SinkQuirks {
    let in_utc = |text: &str| {
        let moment: jiff::Timestamp = text.parse().expect("a moment");
        // With as many digits as the text has.
        let digits = text.split_once('.').map_or(0, |(_, rest)| rest.chars().take_while(char::is_ascii_digit).count());
        let fraction = if digits > 0 { format!("%.{digits}f") } else { String::new() };
        moment.strftime(&format!("%Y-%m-%dT%H:%M:%S{fraction}Z")).to_string()
    };
    let offset = TypeQuirk {
        of: "timestamp_us_offset",
        comes: Comes::As(in_utc),
        reason: "a moment is written in UTC, whatever zone it is shown in",
    };
    SinkQuirks { refuses_nothing: Some("a file takes every row"), types: vec![offset], ..SinkQuirks::default() }
}

#[tokio::test]
async fn csv_as_a_sink() {
    let test =
        SinkUnderTest::new("csv file", out(false)).modes(&[WriteMode::Append, WriteMode::Replace]).quirks(quirks());
    sink(&test).await;
}

#[tokio::test]
async fn json_lines_as_a_sink() {
    let test =
        SinkUnderTest::new("json lines", out(true)).modes(&[WriteMode::Append, WriteMode::Replace]).quirks(quirks());
    sink(&test).await;
}
