//! What the transforms do with rows: tables of cases, the conformance suite, and dedupe against a naive model.
#![allow(clippy::unwrap_used, clippy::panic, reason = "it is what makes a test fail")]

use std::{collections::HashSet, sync::Arc};

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use async_trait::async_trait;
use proptest::prelude::*;
use serde_json::{Value, json};
use towpath_core::{Connector, Context, Known, Name, Output, Reject, Result, Transform};
use towpath_testkit::{
    conformance::{TransformUnderTest, transform},
    rows,
};

fn make(kind: &str, options: Value) -> Result<Box<dyn Transform>> {
    towpath_transforms::link();
    let role = Connector::find(kind).unwrap().transform.as_ref().unwrap();
    (role.build)(&Name::from(kind), options)
}

#[derive(Default)]
struct Kept {
    lines: Vec<String>,
    rejects: Vec<Reject>,
}

#[async_trait]
impl Output for Kept {
    async fn rows(&mut self, rows: RecordBatch) -> Result<()> {
        self.lines.extend(rows::lines(&rows));
        Ok(())
    }
    fn reject(&mut self, reject: Reject) {
        self.rejects.push(reject);
    }
}

fn orders() -> RecordBatch {
    let columns: [(&str, ArrayRef); 4] = [
        ("id", Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5]))),
        ("status", Arc::new(StringArray::from(vec![Some("paid"), Some("open"), None, Some("paid"), Some("shipped")]))),
        ("total", Arc::new(Float64Array::from(vec![Some(10.0), Some(9.5), Some(100.0), None, Some(10.0)]))),
        ("text", Arc::new(StringArray::from(vec![Some("1"), Some("x"), Some(""), Some("9"), Some("10")]))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
}

/// Runs a transform over the orders: the lines that come out, or the error.
fn run(kind: &str, options: Value) -> Result<(Vec<String>, Vec<Reject>), String> {
    let rows = orders();
    let said = |error: towpath_core::Error| {
        format!("{error}{}", error.what_to_do().map(|hint| format!(" | {hint}")).unwrap_or_default())
    };
    let mut made = make(kind, options).map_err(said)?;
    made.plan(&[("in".into(), Known::Now(rows.schema()))]).map_err(said)?;
    let mut kept = Kept::default();
    let ctx = Context::bare("t");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(made.apply(&ctx, &"in".into(), rows, &mut kept)).map_err(said)?;
    Ok((kept.lines, kept.rejects))
}

fn ids(lines: &[String]) -> Vec<i64> {
    let id = |line: &String| line.split("id=\"").nth(1)?.split('"').next()?.parse().ok();
    lines.iter().filter_map(id).collect()
}

#[test]
fn filter_keeps_rows_that_meet_conditions() {
    let cases: Vec<(Value, &[i64])> = vec![
        (json!([{ "column": "status", "equals": "paid" }]), &[1, 4]),
        (json!([{ "column": "status", "not_equals": "paid" }]), &[2, 5]),
        (json!([{ "column": "status", "in": ["open", "shipped"] }]), &[2, 5]),
        (json!([{ "column": "status", "null": true }]), &[3]),
        (json!([{ "column": "status", "null": false }]), &[1, 2, 4, 5]),
        (json!([{ "column": "total", "at_least": 10 }]), &[1, 3, 5]),
        (json!([{ "column": "total", "more_than": 9.5, "less_than": 100 }]), &[1, 5]),
        (json!([{ "column": "total", "at_most": "9.5" }]), &[2]),
        (json!([{ "column": "id", "less_than": 3 }, { "column": "status", "equals": "open" }]), &[2]),
        (json!([{ "column": "text", "equals": 10 }]), &[5]),
    ];
    for (conditions, expected) in cases {
        let (lines, _) = run("filter", json!({ "where": conditions })).unwrap();
        assert_eq!(ids(&lines), expected, "{conditions}");
    }
    let any =
        json!({ "match": "any", "where": [{ "column": "id", "equals": 1 }, { "column": "status", "null": true }] });
    assert_eq!(ids(&run("filter", any).unwrap().0), [1, 3]);
}

#[test]
fn mistakes_are_told_in_the_plan() {
    let cases = [
        (
            "filter",
            json!({ "where": [{ "column": "totl", "equals": 1 }] }),
            "there is no column 'totl' | did you mean 'total'?",
        ),
        (
            "filter",
            json!({ "where": [{ "column": "id", "equals": "x" }] }),
            "where: 'x' is no value of column 'id', which is Int64",
        ),
        (
            "filter",
            json!({ "where": [{ "column": "text", "more_than": 9 }] }),
            "column 'text' is text, and 9 is a number",
        ),
        ("filter", json!({ "where": [{ "column": "id" }] }), "where: nothing is asked of column 'id'"),
        ("filter", json!({ "where": [] }), "where: write at least one condition"),
        ("select", json!({ "columns": ["id", "nope"] }), "there is no column 'nope'"),
        ("select", json!({ "columns": ["id", "id"] }), "columns: 'id' stands there twice"),
        ("select", json!({}), "write either `columns` to keep or columns to `drop`"),
        ("rename", json!({ "columns": { "id": "total" } }), "two columns would be called 'total'"),
        ("cast", json!({ "columns": { "txt": "int64" } }), "there is no column 'txt' | did you mean 'text'?"),
        ("dedupe", json!({ "key": ["idd"] }), "there is no column 'idd' | did you mean 'id'?"),
        ("dedupe", json!({ "key": [] }), "key: name at least one column"),
    ];
    for (kind, options, expected) in cases {
        let error = run(kind, options.clone()).unwrap_err();
        assert!(error.contains(expected), "{kind} {options}: {error}");
    }
}

#[test]
fn columns_are_selected_renamed_and_cast() {
    let (lines, _) = run("select", json!({ "columns": ["status", "id"] })).unwrap();
    assert_eq!(lines[0], r#"{id="1" status="paid"}"#);
    let (lines, _) = run("select", json!({ "drop": ["status", "text"] })).unwrap();
    assert_eq!(lines[0], r#"{id="1" total="10.0"}"#);
    let (lines, _) = run("rename", json!({ "columns": { "status": "total", "total": "status" } })).unwrap();
    assert_eq!(lines[0], r#"{id="1" status="10.0" text="1" total="paid"}"#, "names may be swapped");
    let (lines, rejects) = run("cast", json!({ "columns": { "text": "int64" } })).unwrap();
    assert_eq!(ids(&lines), [1, 3, 4, 5]);
    assert!(!lines[1].contains("text="), "empty is null: {}", lines[1]);
    assert_eq!(rejects.len(), 1);
    assert_eq!(rejects[0].column.as_deref(), Some("text"));
}

#[tokio::test]
async fn the_suite() {
    let kinds = [
        ("filter", json!({ "where": [{ "column": "id", "at_least": 3 }] }), "id"),
        ("select", json!({ "columns": ["name"] }), "name"),
        ("rename", json!({ "columns": { "name": "called" } }), "name"),
        ("cast", json!({ "columns": { "name": "int64" } }), "name"),
        ("dedupe", json!({ "key": ["name"] }), "name"),
    ];
    for (kind, options, needs) in kinds {
        let names = ["1", "2", "x", "2", "7", "y", "1"];
        let some: Vec<(i64, Option<&str>)> = (0..60).map(|id| (id, names.get(id as usize % 8).copied())).collect();
        let test = TransformUnderTest::new(kind, move || make(kind, options.clone()).unwrap());
        transform(&test.input("in", rows::named(&some)).needs("in", needs)).await;
    }
}

proptest! {
    #[test]
    fn dedupe_is_exact_while_its_memory_lasts(batches in prop::collection::vec(prop::collection::vec(0i64..40, 0..30), 0..12), small in any::<bool>()) {
        let memory = if small { "300B" } else { "1MiB" };
        let mut made = make("dedupe", json!({ "key": "all_columns", "memory": memory })).unwrap();
        let ctx = Context::bare("t");
        let mut kept = Kept::default();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for batch in &batches {
            runtime.block_on(made.apply(&ctx, &"in".into(), rows::numbered(batch.clone()), &mut kept)).unwrap();
        }
        let (mut seen, mut expected) = (HashSet::new(), Vec::new());
        for id in batches.iter().flatten() {
            if seen.insert(*id) {
                expected.extend(rows::lines(&rows::numbered([*id])));
            }
        }
        if small {
            // Never one too few, and the first of each in order.
            let mut first = HashSet::new();
            let firsts: Vec<_> = kept.lines.iter().filter(|line| first.insert((*line).clone())).cloned().collect();
            prop_assert_eq!(firsts, expected);
        } else {
            prop_assert_eq!(kept.lines, expected);
        }
    }
}
