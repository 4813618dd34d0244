//! The source: types, cursors and their seams, what it gives a second time.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a failure in a test is its message")]

mod common;

use common::*;
use serde_json::json;
use towpath_connector_sqlite::SqliteSource;
use towpath_core::{Checkpoint, ErrorKind, Mark, Next, Original, Partition, Position, Result, Resume, Source};

/// What a source gave.
#[derive(Debug, Default)]
struct Given {
    rows: Vec<String>,
    rejects: Vec<String>,
    /// Marks, with how many rows had been given by then.
    marks: Vec<(usize, Mark)>,
}

impl Given {
    fn last(&self) -> Option<Position> {
        self.marks.iter().rev().find_map(|(_, mark)| match mark {
            Mark::At(_, position) => Some(position.clone()),
            _ => None,
        })
    }
}

async fn read(source: &mut SqliteSource, run_id: &str, resume: &Resume) -> Result<Given> {
    let mut given = Given::default();
    source.open(&ctx(), &run(run_id), resume).await?;
    let read = async {
        loop {
            match source.next().await? {
                Next::Piece(piece) => {
                    assert_eq!(piece.first_row, Some((given.rows.len() + given.rejects.len()) as u64));
                    given.rows.extend(text(&piece.rows));
                    for reject in piece.rejects {
                        let Original::Bytes(bytes) = reject.row else { panic!("a row that never was one") };
                        given.rejects.push(format!("{} {}", reject.reason, String::from_utf8_lossy(&bytes)));
                    }
                    given.marks.push((given.rows.len(), piece.mark));
                }
                Next::Idle => panic!("a table is never idle"),
                Next::End => return Ok(()),
            }
        }
    };
    let done: Result<()> = read.await;
    source.close().await?;
    done.map(|()| given)
}

fn at(run_id: &str, table: &str, position: &Position) -> Checkpoint {
    let at = [("source".into(), [(Partition::new(table), position.clone())].into())];
    Checkpoint { run: run(run_id), epoch: 1, last: false, keyed_by: None, at: at.into() }
}

fn behind(position: &Position) -> Resume {
    Resume { from: Some(at("run-0", "t", position)), ..Resume::default() }
}

#[tokio::test]
async fn rows_are_typed_as_their_columns_are_declared() {
    let place = Place::new();
    place.sql(
        "CREATE TABLE t (i INTEGER, r DOUBLE, x VARCHAR(9), b BLOB, o BOOLEAN, d DATE, m DATETIME, e DECIMAL(8,2), a);
         INSERT INTO t VALUES (1, 2, 'x', x'00', 1, '2026-01-31', '2026-01-31 10:00:00', 12.5, 7),
           (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
           ('one', 2, 'x', x'00', 1, '2026-01-31', '2026-01-31 10:00:00', 12.5, 7),
           (1, 2, 'x', x'00', 1, '31.1.2026', '2026-01-31 10:00:00', 12.5, 7),
           (1, 2, 'x', x'00', 2, '2026-01-31', '2026-01-31 10:00:00', 12.5, 7),
           (1, 2, 'x', x'00', 1, '2026-01-31', 1700000000, 12.5, 7),
           (1, 2, 'x', x'00', 1, '2026-01-31', '2026-01-31 10:00:00', 12.505, 7)",
    );
    let mut source = place.source(json!({"table": "t"}));
    let plan = source.plan(&ctx().for_plan(), &run("run-1"), &Resume::default()).await.unwrap();
    let types: Vec<_> =
        plan.schema.schema().unwrap().fields().iter().map(|field| field.data_type().to_string()).collect();
    assert_eq!(
        types,
        ["Int64", "Float64", "Utf8", "Binary", "Boolean", "Date32", "Timestamp(µs)", "Decimal128(8, 2)", "Utf8"]
    );
    let given = read(&mut source, "run-1", &Resume::default()).await.unwrap();
    assert_eq!(given.rows.len(), 2);
    assert!(given.rows[0].starts_with("1|2.0|x|") && given.rows[0].ends_with("|7"), "{}", given.rows[0]);
    let reasons: Vec<_> = given.rejects.iter().map(|reject| reject.split(" {").next().unwrap()).collect();
    assert_eq!(
        reasons,
        [
            "column i: 'one' is not an int64",
            "column d: '31.1.2026' is not a date",
            "column o: 2 is not a bool: 0 or 1",
            "column m: 1700000000 is not a timestamp as text (a query can make it one: datetime(t, 'unixepoch'))",
            "column e: 12.505 is not a decimal(8,2)",
        ]
    );
    assert!(given.rejects[0].contains(r#""i":"one","r":2.0,"x":"x","b":"00""#), "{}", given.rejects[0]);
}

#[tokio::test]
async fn a_cursor_reads_what_is_new_and_doubles_nothing_at_the_seam() {
    for (kind, values) in [
        ("INTEGER", ["1", "2", "3"]),
        ("REAL", ["0.1", "0.30000000000000004", "1e300"]),
        ("TEXT", ["'a'", "'b'", "'c'"]),
    ] {
        let place = Place::new();
        let [one, two, three] = values;
        place.sql(&format!(
            "CREATE TABLE t (id INTEGER, c {kind}); INSERT INTO t VALUES (1, {one}), (2, {two}), (3, {two}), (4, NULL)"
        ));
        let mut source = place.source(json!({"table": "t", "cursor": "C"}));
        let ids =
            |given: &Given| given.rows.iter().map(|row| row.split('|').next().unwrap().to_owned()).collect::<Vec<_>>();
        let first = read(&mut source, "run-1", &Resume::default()).await.unwrap();
        assert_eq!(ids(&first), ["1", "2", "3"], "{kind}");
        let nothing = read(&mut source, "run-2", &behind(&first.last().unwrap())).await.unwrap();
        assert_eq!(ids(&nothing), [""; 0], "{kind}");
        // The same value again, the very same row again, and a later one.
        place.sql(&format!("INSERT INTO t VALUES (5, {two}), (3, {two}), (6, {three}), (7, {one})"));
        let more = read(&mut source, "run-2", &behind(&first.last().unwrap())).await.unwrap();
        let mut got = ids(&more);
        got.sort();
        assert_eq!(got, ["3", "5", "6"], "{kind}: a row behind the cursor is not read");
    }
}

#[tokio::test]
async fn every_position_can_be_gone_on_from_and_stopped_at() {
    let place = Place::new();
    // Values that repeat, in pieces that end among them; one that repeats too often for that.
    place.sql(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, c INTEGER);
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)
         INSERT INTO t SELECT i, CASE WHEN i BETWEEN 20000 AND 40000 THEN 9000 ELSE i / 3 END FROM n ORDER BY i",
    );
    let mut source = place.source(json!({"table": "t", "cursor": "c"}));
    let all = read(&mut source, "run-1", &Resume::default()).await.unwrap();
    assert_eq!(all.rows.len(), 60_000);
    assert!(all.marks.iter().any(|(_, mark)| !mark.is_boundary()), "too many of one value to stop among them");
    let positions = all.marks.iter().filter_map(|(rows, mark)| match mark {
        Mark::At(_, position) => Some((*rows, position.clone())),
        _ => None,
    });
    let positions: Vec<(usize, Position)> = positions.collect();
    assert!(positions.len() > 4);
    for (count, position) in &positions {
        let rest = read(&mut source, "run-1", &behind(position)).await.unwrap();
        assert_eq!(rest.rows, all.rows[*count..]);
    }
    for pair in positions.windows(3) {
        let resume = Resume {
            from: Some(at("run-1", "t", &pair[0].1)),
            until: Some(at("run-1", "t", &pair[2].1)),
            whole: false,
        };
        let between = read(&mut source, "run-1", &resume).await.unwrap();
        assert_eq!(between.rows, all.rows[pair[0].0..pair[2].0]);
        assert_eq!(between.last().as_ref(), Some(&pair[2].1), "to the letter");
    }
    let (count, position) = &positions[1];
    let (_, end) = &positions[2];
    place.sql(&format!(
        "DELETE FROM t WHERE id = (SELECT id FROM t ORDER BY c, id LIMIT 1 OFFSET {})",
        positions[2].0 - 1
    ));
    let resume = Resume { from: Some(at("run-1", "t", position)), until: Some(at("run-1", "t", end)), whole: false };
    let error = read(&mut source, "run-1", &resume).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{count} {error}");
}

#[tokio::test]
async fn without_a_cursor_it_is_the_whole_table_or_nothing() {
    let place = Place::new();
    place.sql(
        "CREATE TABLE t (id INTEGER);
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) INSERT INTO t SELECT i FROM n",
    );
    for options in [json!({"table": "t"}), json!({"query": "SELECT id FROM t WHERE id > 0;"})] {
        let partition = if options.get("table").is_some() { "t" } else { "query" };
        let mut source = place.source(options);
        let all = read(&mut source, "run-1", &Resume::default()).await.unwrap();
        assert_eq!(all.rows.len(), 20_000);
        let boundaries: Vec<_> = all.marks.iter().map(|(_, mark)| mark.is_boundary()).collect();
        assert_eq!(boundaries, [false, false, true]);
        let end = all.last().unwrap();
        let from = Resume { from: Some(at("run-1", partition, &end)), ..Resume::default() };
        assert_eq!(read(&mut source, "run-1", &from).await.unwrap().rows.len(), 0, "this run has it");
        assert_eq!(read(&mut source, "run-2", &from).await.unwrap().rows.len(), 20_000, "another has not");
        let until = Resume { until: Some(at("run-1", partition, &end)), ..Resume::default() };
        assert_eq!(read(&mut source, "run-1", &until).await.unwrap().last(), Some(end.clone()));
        place.sql("INSERT INTO t VALUES (0), (20001)");
        let error = read(&mut source, "run-1", &until).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        place.sql("DELETE FROM t WHERE id IN (0, 20001)");
    }
}

#[tokio::test]
async fn close_ends_a_query_that_never_would() {
    let place = Place::new();
    place.sql("CREATE TABLE t (id)");
    let endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n WHERE i < 0";
    let mut source = place.source(json!({ "query": endless }));
    source.open(&ctx(), &run("run-1"), &Resume::default()).await.unwrap();
    assert!(tokio::time::timeout(std::time::Duration::from_millis(100), source.next()).await.is_err());
    source.close().await.unwrap();
}

#[tokio::test]
async fn nothing_is_changed_and_what_is_wrong_is_told() {
    let place = Place::new();
    let missing =
        place.source(json!({"table": "t"})).plan(&ctx().for_plan(), &run("r"), &Resume::default()).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing}");
    assert!(!place.path().exists(), "reading makes no file");
    place.sql("CREATE TABLE t (id)");
    for (options, expect) in [
        (json!({"table": "u"}), "no such table: u"),
        (json!({"query": "DELETE FROM t"}), "syntax error"),
        (json!({"table": "t", "cursor": "x"}), "cursor: there is no column x"),
    ] {
        let error = place.source(options).plan(&ctx().for_plan(), &run("r"), &Resume::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(expect), "{error}");
    }
}

#[tokio::test]
async fn discover_lists_tables_with_columns_keys_and_counts() {
    let place = Place::new();
    place.sql(
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, total DECIMAL(10,2) NOT NULL, note); INSERT INTO orders VALUES (1, 2, 3);
         CREATE VIEW big AS SELECT id FROM orders",
    );
    let found = place.source(json!({"table": "orders"})).discover(&ctx().for_plan()).await.unwrap();
    assert_eq!(
        found.text,
        "big (view, 1 rows)\n  id: INTEGER\norders (table, 1 rows)\n  id: INTEGER, key\n  total: DECIMAL(10,2), not null\n  note: no type\n"
    );
    assert_eq!(found.items[1]["columns"][1]["type"], "DECIMAL(10,2)");
}
