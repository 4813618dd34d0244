//! The four write modes: what stands in the table, and what was counted.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a failure in a test is its message")]

mod common;

use common::*;
use serde_json::json;

/// Loads epochs over rows that are there; says what the table holds then.
async fn check(options: serde_json::Value, before: &str, epochs: &[&str], expect: &[&str], counts: (u64, u64)) {
    let place = Place::new();
    if !before.is_empty() {
        place.sql(before);
    }
    let epochs: Vec<_> = epochs.iter().map(|epoch| rows(epoch)).collect();
    let loaded = place.load(options.clone(), &epochs).await.unwrap();
    assert_eq!(loaded.rejected, [""; 0], "{options}");
    assert_eq!(place.ask("SELECT id, name FROM t ORDER BY rowid"), expect, "{options}");
    assert_eq!((loaded.written, loaded.known), counts, "{options}");
    assert_eq!(place.ask("PRAGMA integrity_check"), ["ok"]);
    let left = place.ask("SELECT name FROM sqlite_schema WHERE name LIKE 'towpath_staging%'");
    assert_eq!(left, [""; 0], "nothing is left behind");
}

const KEYED: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO t VALUES (1, 'old')";
const PLAIN: &str = "CREATE TABLE t (id INTEGER, name TEXT); INSERT INTO t VALUES (1, 'old')";

#[tokio::test]
async fn append_adds_every_row() {
    check(append(), "", &["id:int|name\n1|a\n1|a", "id:int|name\n2|∅"], &["1|a", "1|a", "2|∅"], (3, 0)).await;
    check(append(), PLAIN, &["id:int|name\n1|a"], &["1|old", "1|a"], (1, 0)).await;
}

#[tokio::test]
async fn insert_new_leaves_what_is_known() {
    let twice = ["id:int|name\n1|a\n2|b\n1|c", "id:int|name\n2|d\n3|e"];
    check(insert_new(), "", &twice, &["1|c", "2|b", "3|e"], (3, 2)).await;
    check(insert_new(), KEYED, &twice, &["1|old", "2|b", "3|e"], (2, 3)).await;
}

#[tokio::test]
async fn a_key_that_cannot_be_looked_up_is_refused_and_not_taken_for_another() {
    let place = Place::new();
    place.sql("CREATE TABLE t (id REAL, name TEXT); INSERT INTO t VALUES (1.0, 'old')");
    let loaded = place.load(insert_new(), &[rows("id:float|name\n1|a\nNaN|b\n2|c")]).await.unwrap();
    assert_eq!(place.ask("SELECT id, name FROM t ORDER BY rowid"), ["1.0|old", "2.0|c"]);
    assert_eq!((loaded.written, loaded.known, loaded.rejected.len()), (1, 1, 1), "{:?}", loaded.rejected);
}

#[tokio::test]
async fn insert_new_by_hash_knows_whole_rows() {
    let twice = ["id:int|name\n1|a\n1|a\n1|b\n∅|∅", "id:int|name\n1|a\n∅|∅\n2|a"];
    check(by_hash(), "", &twice, &["1|a", "1|b", "∅|∅", "2|a"], (4, 3)).await;
}

#[tokio::test]
async fn upsert_lets_the_last_one_win() {
    let twice = ["id:int|name\n1|a\n2|b\n1|c", "id:int|name\n2|d\n3|e"];
    check(upsert(), "", &twice, &["1|c", "2|d", "3|e"], (4, 1)).await;
    check(upsert(), KEYED, &twice, &["1|c", "2|d", "3|e"], (4, 1)).await;
    let both = json!({"write": "upsert", "key": ["id", "name"]});
    check(both, "", &["id:int|name\n1|a\n1|a\n1|b"], &["1|a", "1|b"], (2, 1)).await;
}

#[tokio::test]
async fn replace_takes_the_place_of_all() {
    let two = ["id:int|name\n7|x\n7|x", "id:int|name\n8|y"];
    check(replace(), "", &two, &["7|x", "7|x", "8|y"], (3, 0)).await;
    check(replace(), PLAIN, &two, &["7|x", "7|x", "8|y"], (3, 0)).await;
    // Rows without numbers of their own, keys that point here, triggers, unique indexes: another way inside, the same outside.
    for before in [
        "CREATE TABLE t (id INTEGER, name TEXT, PRIMARY KEY (id, name)) WITHOUT ROWID; INSERT INTO t VALUES (1, 'old')",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO t VALUES (1, 'old')",
        "CREATE TABLE t (id INTEGER, name TEXT); CREATE UNIQUE INDEX u ON t (id); INSERT INTO t VALUES (1, 'old')",
        "CREATE TABLE t (id INTEGER UNIQUE, name TEXT); CREATE TABLE c (t REFERENCES t (id)); INSERT INTO t VALUES (1, 'old')",
        "CREATE TABLE t (id INTEGER, name TEXT); INSERT INTO t VALUES (1, 'old');
         CREATE TRIGGER g AFTER DELETE ON t BEGIN SELECT 1; END",
        "CREATE TABLE t (id INTEGER, name TEXT); CREATE INDEX i ON t (name); CREATE VIEW v AS SELECT * FROM t;
         CREATE VIEW broken AS SELECT * FROM nowhere; INSERT INTO t VALUES (1, 'old')",
    ] {
        let place = Place::new();
        place.sql(before);
        let schema = "SELECT type, name FROM sqlite_schema WHERE name NOT LIKE 'towpath%' ORDER BY name";
        let made = place.ask(schema);
        let loaded = place.load(replace(), &[rows("id:int|name\n7|x\n9|z"), rows("id:int|name\n8|y")]).await.unwrap();
        assert_eq!(place.ask("SELECT id, name FROM t ORDER BY id"), ["7|x", "8|y", "9|z"], "{before}");
        assert_eq!(loaded, Loaded { written: 3, ..Loaded::default() }, "{before}");
        assert_eq!(place.ask(schema), made, "everything that hung on the table is there again");
        assert_eq!(place.ask("PRAGMA integrity_check"), ["ok"]);
    }
}

#[tokio::test]
async fn a_first_load_finds_rows_that_come_twice_far_apart() {
    use arrow_array::{Int64Array, RecordBatch};
    use std::sync::Arc;
    use towpath_core::Sink as _;

    let place = Place::new();
    let mut sink = place.sink(by_hash());
    let run = run("run-1");
    sink.open(&ctx(), &run).await.unwrap();
    let batch = |first: i64| {
        RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from_iter_values(first..first + 8192)) as _)]).unwrap()
    };
    sink.schema(&batch(0).schema()).await.unwrap();
    // Further apart than what is remembered.
    let firsts = (0..10).map(|at| at * 8192).chain([0, 3 * 8192 + 100]);
    let mut loaded = Loaded::default();
    for (seq, first) in firsts.enumerate() {
        loaded.add(sink.write(seq as u64, batch(first)).await.unwrap(), None);
    }
    assert_eq!(place.ask("SELECT count(*) FROM t"), ["0"], "nobody sees it before the commit");
    loaded.add(sink.flush().await.unwrap(), None);
    sink.commit(&checkpoint(&run, 1, true)).await.unwrap();
    sink.close().await.unwrap();
    assert_eq!((loaded.written, loaded.known), (81_920, 16_384));
    assert_eq!(
        place.ask("SELECT count(*), count(DISTINCT row_hash), count(DISTINCT id) FROM t"),
        ["81920|81920|81920"]
    );
    let again = place.load(by_hash(), &[batch(100), batch(200_000)]).await.unwrap();
    assert_eq!((again.written, again.known), (8192, 8192));
}

#[tokio::test]
async fn the_mode_and_the_key_must_go_together() {
    for (options, expect) in [
        (json!({"write": "insert_new"}), "write: insert_new needs a key"),
        (json!({"write": "append", "key": ["id"]}), "write: append has no use for a key"),
        (
            json!({"write": "upsert", "key": "row_hash"}),
            "write: upsert cannot go by the hash of the whole row: a changed row has another hash",
        ),
        (json!({"write": "upsert", "key": []}), "key: names no column"),
        (json!({"write": "append", "table": "sqlite_x"}), "table: 'sqlite_x' has a name kept for others"),
        (
            json!({"write": "append", "table": "towpath_checkpoint"}),
            "table: 'towpath_checkpoint' has a name kept for others",
        ),
    ] {
        let error = Place::new().try_sink(options).err().unwrap();
        assert_eq!(error.to_string(), expect);
        assert!(error.what_to_do().is_some() || expect.starts_with("key: names"), "{expect}");
    }
}
