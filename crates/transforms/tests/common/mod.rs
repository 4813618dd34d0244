//! Makes a transform as a config would, and gives it rows.
#![allow(dead_code, reason = "each test binary uses some of it")]

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use async_trait::async_trait;
use serde_json::Value;
use towpath_core::{Connector, Context, Error, Known, Name, Original, Output, Reject, Result, Transform};
use towpath_formats::columns::{Columns, cast};

/// The options, in YAML.
pub fn options(yaml: &str) -> Value {
    serde_saphyr::from_str(yaml).unwrap()
}

pub fn try_make(kind: &str, yaml: &str) -> Result<Box<dyn Transform>> {
    towpath_transforms::link();
    let role = Connector::find(kind).unwrap().transform.as_ref().unwrap();
    (role.build)(&"t".into(), options(yaml))
}

pub fn make(kind: &str, yaml: &str) -> Box<dyn Transform> {
    try_make(kind, yaml).unwrap()
}

/// Rows of text: the first line names the columns, `~` is NULL.
pub fn text(table: &str) -> RecordBatch {
    let mut lines = table.trim().lines().map(|line| line.trim().split(',').map(str::trim).collect::<Vec<_>>());
    let names = lines.next().unwrap();
    let rows: Vec<_> = lines.collect();
    let fields: Vec<_> = names.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect();
    let column = |at: usize| -> ArrayRef {
        Arc::new(rows.iter().map(|row| (row[at] != "~").then_some(row[at])).collect::<StringArray>())
    };
    RecordBatch::try_new(Arc::new(Schema::new(fields)), (0..names.len()).map(column).collect()).unwrap()
}

/// The same, typed.
pub fn typed(columns: &str, table: &str) -> RecordBatch {
    let columns: Columns = serde_saphyr::from_str(columns).unwrap();
    let (rows, rejects) = cast(&text(table), &columns).unwrap();
    assert!(rejects.is_empty(), "{rejects:?}");
    rows
}

#[derive(Default)]
pub struct Kept {
    pub rows: Vec<RecordBatch>,
    pub rejects: Vec<Reject>,
}

#[async_trait]
impl Output for Kept {
    async fn rows(&mut self, rows: RecordBatch) -> Result<()> {
        self.rows.push(rows);
        Ok(())
    }
    fn reject(&mut self, reject: Reject) {
        self.rejects.push(reject);
    }
}

pub fn apply(transform: &mut dyn Transform, rows: &RecordBatch) -> Result<Kept> {
    let mut out = Kept::default();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(transform.apply(&Context::bare("t"), &"in".into(), rows.clone(), &mut out))?;
    Ok(out)
}

/// A row in each line, `~` for NULL, rejects behind `!`.
pub fn shown(kept: &Kept) -> Vec<String> {
    let mut lines = vec![];
    for rows in &kept.rows {
        for row in 0..rows.num_rows() {
            let cell = |column: &ArrayRef| towpath_testkit::rows::value(column, row).unwrap_or_else(|| "~".to_owned());
            lines.push(rows.columns().iter().map(cell).collect::<Vec<_>>().join(","));
        }
    }
    for reject in &kept.rejects {
        let Original::Row(row) = reject.row else { panic!("{reject:?}") };
        lines.push(format!("!{row} {}", reject.reason));
    }
    lines
}

pub fn message(error: &Error) -> String {
    match error.what_to_do() {
        Some(hint) => format!("{error} | {hint}"),
        None => error.to_string(),
    }
}

pub fn known(rows: &RecordBatch) -> Vec<(Name, Known)> {
    vec![("in".into(), Known::Now(rows.schema()))]
}

/// Makes the transform, plans it with the rows' schema and gives it the rows: what comes out, or the first error, which must be the
/// same whether the plan knew the schema or the first batch brings it.
pub fn run(kind: &str, yaml: &str, rows: &RecordBatch) -> std::result::Result<Vec<String>, String> {
    let mut transform = try_make(kind, yaml).map_err(|error| message(&error))?;
    let planned = transform.plan(&known(rows));
    let applied = apply(transform.as_mut(), rows);
    match (planned, applied) {
        (Ok(plan), Ok(kept)) => {
            for batch in &kept.rows {
                assert_eq!(plan.schema.schema().unwrap().fields(), batch.schema().fields(), "{kind} {yaml}");
            }
            Ok(shown(&kept))
        }
        (Err(planned), Err(applied)) => {
            assert_eq!(message(&planned), message(&applied), "{kind} {yaml}");
            assert_eq!(planned.kind(), towpath_core::ErrorKind::Config, "{planned}");
            Err(message(&planned))
        }
        (planned, applied) => {
            panic!("{kind} {yaml}: the plan says {planned:?}, apply {:?}", applied.map(|k| shown(&k)))
        }
    }
}

/// One case of a table: what comes out, rows by `|`, or `error: …`.
pub fn check(kind: &str, yaml: &str, rows: &RecordBatch, expect: &str) {
    let found = match run(kind, yaml, rows) {
        Ok(lines) => lines.join(" | "),
        Err(error) => format!("error: {error}"),
    };
    assert_eq!(found, expect, "{kind} {yaml}");
}
