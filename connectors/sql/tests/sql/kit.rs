//! Runs queries over small tables, as the engine would.

use std::{path::Path, sync::Arc};

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use async_trait::async_trait;
use towpath_connector_sql::{Sql, SqlOptions};
use towpath_core::{Context, Known, Name, Output, Reject, Result, Transform as _};
use towpath_formats::columns::{Columns, cast};

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

/// Keeps what comes out.
#[derive(Default)]
pub struct Kept(pub Vec<RecordBatch>);

#[async_trait]
impl Output for Kept {
    async fn rows(&mut self, rows: RecordBatch) -> Result<()> {
        tokio::task::yield_now().await;
        self.0.push(rows);
        Ok(())
    }
    fn reject(&mut self, reject: Reject) {
        panic!("a query rejects no rows: {reject:?}");
    }
}

/// Options whose files lie in a folder of the test.
pub fn options(query: &str, folder: &Path) -> SqlOptions {
    SqlOptions { spill: Some(folder.to_owned()), threads: Some(2), ..SqlOptions::new(query) }
}

/// Gives batches in turn, then ends the inputs.
pub async fn run(options: SqlOptions, batches: &[(&str, RecordBatch)]) -> Result<Vec<RecordBatch>> {
    let mut sql = Sql::new(options)?;
    let ctx = Context::bare("t");
    let mut out = Kept::default();
    for (input, rows) in batches {
        sql.apply(&ctx, &(*input).into(), rows.clone(), &mut out).await?;
    }
    assert!(out.0.is_empty(), "rows before the inputs have ended");
    sql.finish(&ctx, &mut out).await?;
    Ok(out.0)
}

/// Every input's schema, as a source that knows it would tell.
pub fn known(batches: &[(&str, RecordBatch)]) -> Vec<(Name, Known)> {
    let mut known: Vec<(Name, Known)> = vec![];
    for (name, rows) in batches {
        if !known.iter().any(|(known, _)| **known == **name) {
            known.push(((*name).into(), Known::Now(rows.schema())));
        }
    }
    known
}

/// A row in each line, `~` for NULL; sorted where the query sorts nothing.
pub fn shown(rows: &[RecordBatch], sorted: bool) -> Vec<String> {
    let mut lines = vec![];
    for rows in rows {
        for row in 0..rows.num_rows() {
            let cell = |column: &ArrayRef| towpath_testkit::rows::value(column, row).unwrap_or_else(|| "~".to_owned());
            lines.push(rows.columns().iter().map(cell).collect::<Vec<_>>().join(","));
        }
    }
    if !sorted {
        lines.sort();
    }
    lines
}

/// What an implementation that is not of our making says: SQLite, over the same rows.
pub fn oracle(query: &str, tables: &[(&str, RecordBatch)], sorted: bool) -> Vec<String> {
    let db = rusqlite::Connection::open_in_memory().unwrap();
    for (name, rows) in tables {
        let columns: Vec<String> = rows
            .schema()
            .fields()
            .iter()
            .map(|field| {
                let kind = if field.data_type().is_integer() { "integer" } else { "text" };
                format!("\"{}\" {kind}", field.name())
            })
            .collect();
        db.execute(&format!("create table if not exists {name} ({})", columns.join(", ")), []).unwrap();
        let marks = vec!["?"; columns.len()].join(", ");
        for row in 0..rows.num_rows() {
            let values = rows.columns().iter().map(|column| towpath_testkit::rows::value(column, row));
            db.execute(&format!("insert into {name} values ({marks})"), rusqlite::params_from_iter(values)).unwrap();
        }
    }
    let mut statement = db.prepare(query).unwrap_or_else(|error| panic!("{query}: {error}"));
    let many = statement.column_count();
    let mut found = statement.query([]).unwrap();
    let mut lines = vec![];
    while let Some(row) = found.next().unwrap() {
        let cell = |at| match row.get_ref(at).unwrap() {
            rusqlite::types::ValueRef::Null => "~".to_owned(),
            rusqlite::types::ValueRef::Integer(value) => value.to_string(),
            rusqlite::types::ValueRef::Text(text) => String::from_utf8(text.to_owned()).unwrap(),
            other => panic!("{query}: {other:?} has no one text"),
        };
        lines.push((0..many).map(cell).collect::<Vec<_>>().join(","));
    }
    if !sorted {
        lines.sort();
    }
    lines
}

/// Waits for the folder to be empty: tasks that are aborted end when they are next looked at.
pub async fn nothing_left(folder: &Path) {
    let left = || std::fs::read_dir(folder).unwrap().count();
    for _ in 0..500 {
        if left() == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{} folders are left behind", left());
}
