//! One bad row costs one row: constraints, casts, types, and what cannot be loaded at all.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a failure in a test is its message")]

mod common;

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray, UInt64Array,
};
use common::*;
use serde_json::json;

/// Loads one epoch into a table; says what it holds then and what was refused.
async fn check(table: &str, options: serde_json::Value, epoch: &str, expect: &[&str], refused: &[&str]) {
    let place = Place::new();
    place.sql(table);
    let loaded = place.load(options, &[rows(epoch)]).await.unwrap();
    assert_eq!(loaded.rejected, refused, "{table}");
    assert_eq!(place.rows(), expect, "{table}");
    assert_eq!(loaded.written, expect.len() as u64, "{table}");
}

#[tokio::test]
async fn a_broken_constraint_costs_one_row() {
    let three = "id:int|name\n1|a\n2|∅\n3|c";
    let not_null = "CREATE TABLE t (id INTEGER, name TEXT NOT NULL)";
    let told = ["data name: column name: must not be null [2|∅]"];
    check(not_null, append(), three, &["1|a", "3|c"], &told).await;
    check(not_null, replace(), three, &["1|a", "3|c"], &told).await;

    let size = "CREATE TABLE t (id INTEGER CHECK (id <> 2), name TEXT)";
    let told = ["data -: CHECK constraint failed: id <> 2 [2|∅]"];
    check(size, append(), three, &["1|a", "3|c"], &told).await;
    check(size, replace(), three, &["1|a", "3|c"], &told).await;

    let unique = "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT UNIQUE)";
    let same = "id:int|name\n1|a\n1|b\n2|a\n3|c";
    let told =
        ["conflict id: UNIQUE constraint failed: t.id [1|b]", "conflict name: UNIQUE constraint failed: t.name [2|a]"];
    check(unique, append(), same, &["1|a", "3|c"], &told).await;
    check(unique, insert_new(), "id:int|name\n1|a\n2|a\n3|c", &["1|a", "3|c"], &told[1..]).await;

    let strict = "CREATE TABLE t (id INTEGER, name INTEGER) STRICT";
    let parent = "CREATE TABLE p (id INTEGER PRIMARY KEY); INSERT INTO p VALUES (1), (3);
                  CREATE TABLE t (id INTEGER REFERENCES p (id), name TEXT)";
    check(parent, append(), three, &["1|a", "3|c"], &["data -: FOREIGN KEY constraint failed [2|∅]"]).await;
    check(strict, append(), "id:int|name:int\n1|1", &["1|1"], &[]).await;

    let trigger = "CREATE TABLE t (id INTEGER, name TEXT);
                   CREATE TRIGGER g BEFORE INSERT ON t WHEN new.id = 2 BEGIN SELECT RAISE(ABORT, 'no twos'); END";
    check(trigger, append(), three, &["1|a", "3|c"], &["data -: no twos [2|∅]"]).await;
}

#[tokio::test]
async fn a_foreign_key_checked_late_costs_one_row_too() {
    let deferred =
        "CREATE TABLE t (id INTEGER PRIMARY KEY, up INTEGER REFERENCES t (id) DEFERRABLE INITIALLY DEFERRED)";
    // 3 comes before its parent; 5 has none, and 6 falls with it.
    let told = [
        "data -: FOREIGN KEY constraint failed: there is no such row in t [5|9]",
        "data -: FOREIGN KEY constraint failed: there is no such row in t [6|5]",
    ];
    check(deferred, append(), "id:int|up:int\n1|∅\n3|4\n4|1\n5|9\n6|5", &["1|∅", "3|4", "4|1"], &told).await;
    for options in [upsert(), replace()] {
        let place = Place::new();
        place.sql(deferred);
        let error = place.load(options, &[rows("id:int|up:int\n1|∅")]).await.unwrap_err();
        assert_eq!(error.kind(), towpath_core::ErrorKind::Unsupported, "{error}");
    }
}

#[tokio::test]
async fn a_key_must_not_be_null() {
    let place = Place::new();
    let loaded = place.load(upsert(), &[rows("id:int|name\n∅|a\n2|b\n∅|c")]).await.unwrap();
    let told = ["data id: column id: a key must not be null [∅|a]", "data id: column id: a key must not be null [∅|c]"];
    assert_eq!(loaded.rejected, told);
    assert_eq!(place.rows(), ["2|b"]);
}

#[tokio::test]
async fn every_type_is_stored_as_documented() {
    let columns: [(&str, ArrayRef); 11] = [
        ("text", Arc::new(StringArray::from(vec![Some("é"), None]))),
        ("int", Arc::new(Int64Array::from(vec![Some(i64::MIN), None]))),
        ("big", Arc::new(UInt64Array::from(vec![Some(i64::MAX as u64), None]))),
        ("float", Arc::new(Float64Array::from(vec![Some(0.1), None]))),
        ("inf", Arc::new(Float64Array::from(vec![Some(f64::INFINITY), None]))),
        ("bool", Arc::new(BooleanArray::from(vec![Some(true), None]))),
        ("decimal", Arc::new(Decimal128Array::from(vec![Some(1250), None]).with_precision_and_scale(10, 2).unwrap())),
        ("date", Arc::new(Date32Array::from(vec![Some(20_000), None]))),
        ("local", Arc::new(TimestampMicrosecondArray::from(vec![Some(1_500_000), None]))),
        ("utc", Arc::new(TimestampMicrosecondArray::from(vec![Some(1_500_000), None]).with_timezone("Europe/Berlin"))),
        ("blob", Arc::new(BinaryArray::from_opt_vec(vec![Some(b"\0\x01"), None]))),
    ];
    let batch =
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
            .unwrap();
    for options in [append(), replace(), by_hash()] {
        let place = Place::new();
        place.load(options, std::slice::from_ref(&batch)).await.unwrap();
        let names =
            batch.schema().fields().iter().map(|field| format!("\"{}\"", field.name())).collect::<Vec<_>>().join(", ");
        let expect = "é|-9223372036854775808|9223372036854775807|0.1|inf|1|12.50|2024-10-04|1970-01-01 00:00:01.5|1970-01-01 00:00:01.5Z|x2";
        assert_eq!(place.ask(&format!("SELECT {names} FROM t")), [expect, "∅|∅|∅|∅|∅|∅|∅|∅|∅|∅|∅"]);
        let types = place.ask("SELECT group_concat(type, ' ') FROM pragma_table_info('t') WHERE name <> 'row_hash'");
        assert_eq!(types, ["TEXT INTEGER INTEGER REAL REAL INTEGER TEXT TEXT TEXT TEXT BLOB"]);
        assert_eq!(place.ask("SELECT strict FROM pragma_table_list WHERE name = 't'"), ["1"]);
    }
}

#[tokio::test]
async fn values_without_a_place_in_sqlite_are_refused() {
    let batch = |name, column: ArrayRef| RecordBatch::try_from_iter([(name, column)]).unwrap();
    for (rows, expect) in [
        (
            batch("x", Arc::new(Float64Array::from(vec![1.0, f64::NAN]))),
            "data x: column x: NaN has no place in SQLite, which would make it null",
        ),
        (
            batch("x", Arc::new(UInt64Array::from(vec![1, u64::MAX]))),
            "data x: column x: 18446744073709551615 is beyond SQLite's integers, which end at 9223372036854775807",
        ),
        (
            batch("x", Arc::new(Date32Array::from(vec![1, i32::MAX]))),
            "data x: column x: the year 5881580 has no place in SQLite, which ends at 0000 and 9999",
        ),
    ] {
        let place = Place::new();
        let loaded = place.load(append(), &[rows]).await.unwrap();
        assert_eq!(loaded.rejected.len(), 1);
        assert!(loaded.rejected[0].starts_with(expect), "{}", loaded.rejected[0]);
        assert_eq!(loaded.written, 1);
    }
}

#[tokio::test]
async fn what_cannot_be_loaded_at_all_says_why() {
    let two = "id:int|name\n1|a";
    let no_create = json!({"write": "append", "create": false});
    for (table, options, epoch, expect) in [
        ("CREATE TABLE t (id)", append(), two, "table t has no column name"),
        (
            "CREATE TABLE t (id, name, must NOT NULL)",
            append(),
            two,
            "column must of table t must not be null, and the rows do not have it",
        ),
        ("CREATE TABLE t (id, name AS (id))", append(), two, "column name of table t is generated: it takes no values"),
        ("CREATE VIEW t AS SELECT 1 AS id, 2 AS name", append(), two, "t is a view or a virtual table"),
        ("CREATE TABLE t (id, name)", by_hash(), two, "table t has no column row_hash for the hash of its rows"),
        ("CREATE TABLE t (id, name)", json!({"write": "upsert", "key": ["x"]}), two, "key: the rows have no column x"),
        (
            "CREATE TABLE t (id, name); INSERT INTO t VALUES (1, 2), (1, 3)",
            upsert(),
            two,
            "cannot make a unique index on (\"id\") of table t: UNIQUE constraint failed: t.id",
        ),
        (
            "CREATE TABLE t (id, name)",
            json!({"write": "upsert", "key": ["id"], "create": false}),
            two,
            "table t has no unique index on (\"id\")",
        ),
        ("SELECT 1", no_create, two, "there is no table t"),
        ("SELECT 1", append(), "id|ID\n1|2", "the rows have two columns id and ID, which are one to SQLite"),
    ] {
        let place = Place::new();
        place.sql(table);
        let error = place.load(options, &[rows(epoch)]).await.unwrap_err();
        let text = error.to_string();
        let (_, text) = text.split_once("data.db: ").unwrap_or(("", &text));
        assert_eq!(text, expect, "{table}");
    }
}

#[tokio::test]
async fn columns_are_added_on_request() {
    for mode in ["append", "replace"] {
        let place = Place::new();
        let options = json!({"write": mode, "add_columns": true});
        let epochs = [rows("id:int\n1"), rows("id:int|name\n2|b"), rows("x:float|ID:int\n1.5|3")];
        place.load(options, &epochs).await.unwrap();
        assert_eq!(place.ask("SELECT id, name, x FROM t ORDER BY id"), ["1|∅|∅", "2|b|∅", "3|∅|1.5"], "{mode}");
    }
    // In the middle of an epoch, also of a first load.
    for options in [
        json!({"write": "append", "add_columns": true}),
        json!({"write": "insert_new", "key": "row_hash", "add_columns": true}),
    ] {
        use towpath_core::Sink as _;
        let place = Place::new();
        let mut sink = place.sink(options);
        let run = run("run-1");
        sink.open(&ctx(), &run).await.unwrap();
        for (seq, batch) in [rows("id:int\n1"), rows("id:int|name\n2|b"), rows("id:int\n3")].into_iter().enumerate() {
            sink.schema(&batch.schema()).await.unwrap();
            sink.write(seq as u64, batch).await.unwrap();
        }
        let wrote = sink.flush().await.unwrap();
        assert_eq!((wrote.written, wrote.rejected.len()), (3, 0));
        sink.commit(&checkpoint(&run, 1, true)).await.unwrap();
        sink.close().await.unwrap();
        assert_eq!(place.ask("SELECT id, name FROM t ORDER BY id"), ["1|∅", "2|b", "3|∅"]);
    }
}
