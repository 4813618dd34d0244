//! Memory, disk, skew, cancellation.

use std::{path::Path, sync::Arc, time::Duration};

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use towpath_connector_sql::{Narrow, Sql, SqlOptions};
use towpath_core::{Context, Result, Size, Transform as _};

use crate::kit::{Kept, nothing_left, options, run, text};

/// Rows with a key and some bytes beside it.
fn rows(keys: impl Iterator<Item = i64> + Clone) -> RecordBatch {
    let schema = Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("s", DataType::Utf8, true)]);
    let s: ArrayRef = Arc::new(keys.clone().map(|key| Some(format!("{key:>32}"))).collect::<StringArray>());
    let k: ArrayRef = Arc::new(keys.map(Some).collect::<Int64Array>());
    RecordBatch::try_new(Arc::new(schema), vec![k, s]).unwrap()
}

/// So many rows in batches; every second one has the key 1 if the input is skewed.
fn input(name: &'static str, count: i64, keys: i64, skewed: bool) -> Vec<(&'static str, RecordBatch)> {
    let key = move |row: i64| if skewed && row % 2 == 0 { 1 } else { (row * 7919) % keys };
    let batch = |from: i64| (name, rows((from..(from + 4096).min(count)).map(key)));
    (0..count).step_by(4096).map(batch).collect()
}

fn single(rows: &[RecordBatch]) -> (i64, i64) {
    let cell = |at: usize| rows[0].column(at).as_any().downcast_ref::<Int64Array>().unwrap().value(0);
    (cell(0), cell(1))
}

fn little(query: &str, folder: &Path) -> SqlOptions {
    SqlOptions { memory: Size(8 << 20), ..options(query, folder) }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_the_memory_is_joined_and_summed() {
    // 48 MB of rows in 8 MiB.
    let mut batches = input("a", 400_000, 100_000, false);
    batches.extend(input("b", 300_000, 100_000, false));
    let folder = tempfile::tempdir().unwrap();
    let query = "select count(*) as many, count(distinct k) as keys from \
                 (select a.k, a.s, b.s as t from a join b on a.k = b.k where a.s = b.s)";
    let found = run(little(query, folder.path()), &batches).await.unwrap();
    assert_eq!(single(&found), (1_200_000, 100_000));
    let query = "select count(*) as many, max(n) as most from (select s, count(*) as n from a group by s)";
    assert_eq!(single(&run(little(query, folder.path()), &batches).await.unwrap()), (100_000, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_with_half_of_all_rows_is_joined() {
    // On the side that is many, and on both, where the one key meets itself.
    let folder = tempfile::tempdir().unwrap();
    let query =
        "select count(*) as many, count(t) as matched from (select a.k, a.s, b.s as t from a left join b on a.k = b.k)";
    for (a, b, expect) in [
        (input("a", 300_000, 50_000, true), input("b", 200_000, 200_000, false), (300_000, 300_000)),
        (input("a", 200_000, 200_000, false), input("b", 300_000, 50_000, true), (0, 0)),
    ] {
        let batches: Vec<_> = a.into_iter().chain(b).collect();
        let found = single(&run(little(query, folder.path()), &batches).await.unwrap());
        if expect == (0, 0) {
            assert!(found.1 > 300_000 - 3 * 50_000 && found.0 >= found.1, "{found:?}");
        } else {
            assert_eq!(found, expect);
        }
    }
    let both: Vec<_> = input("a", 4_000, 1_000, true).into_iter().chain(input("b", 4_000, 1_000, true)).collect();
    let narrow = Narrow { gather: Some(10_000), hash: Some(10_000) };
    let found = run(SqlOptions { narrow, ..little(query, folder.path()) }, &both).await.unwrap();
    let usual = run(options(query, folder.path()), &both).await.unwrap();
    assert_eq!(single(&found), single(&usual));
    assert!(single(&found).0 > 2_000 * 2_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_runs_out_of_memory_is_begun_anew_by_sorting() {
    // Nothing is reckoned to be too large, and one side does not fit.
    let batches: Vec<_> = input("a", 300_000, 1, false).into_iter().chain(input("b", 20, 20, false)).collect();
    let folder = tempfile::tempdir().unwrap();
    let query = "select count(*) as many, count(distinct s) as texts from \
                 (select a.s from a left join b on a.k = b.k and a.s > b.s)";
    let narrow = Narrow { gather: None, hash: Some(usize::MAX) };
    let found = run(SqlOptions { narrow, ..little(query, folder.path()) }, &batches).await.unwrap();
    assert_eq!(single(&found), (300_000, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_has_a_limit() {
    let batches = input("a", 200_000, 100_000, false);
    let folder = tempfile::tempdir().unwrap();
    let query = "select x.k from a x join a y on x.k = y.k and x.s < y.s";
    let options = SqlOptions { max_spill: Size(1 << 20), ..little(query, folder.path()) };
    let error = run(options, &batches).await.unwrap_err();
    insta::assert_snapshot!(format!("{error}; {}", error.what_to_do().unwrap()));
    nothing_left(folder.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_split_says_so() {
    // What is asked of the whole of a side, not of a part of it.
    let batches: Vec<_> = input("a", 300_000, 300_000, false).into_iter().chain(input("b", 9, 9, false)).collect();
    let folder = tempfile::tempdir().unwrap();
    let query = "select count(s) as many from a where k not in (select k from b)";
    let error = run(little(query, folder.path()), &batches).await.unwrap_err();
    assert!(error.to_string().contains("the query does not fit into 8MiB"), "{error}");
    assert_eq!(error.what_to_do(), Some("raise `memory`, or split the query"));
    nothing_left(folder.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_written_to_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = run(options("select a from t", &file), &[("t", text("a\n1"))]).await.unwrap_err();
    assert!(error.to_string().contains("file: cannot spill there"), "{error}");
}

/// Inputs never wait for one another: one is given whole before the other's first row, in either order, also where the plan reads
/// them one after the other.
#[tokio::test]
async fn inputs_come_in_any_order() {
    let folder = tempfile::tempdir().unwrap();
    for query in [
        "select count(*) as many, count(a.s) as texts from a join b on a.k = b.k",
        "select count(*) as many, count(*) as again from (select k from a union all select k from b)",
        "select count(*) as many, count(*) as again from a where k > (select max(k) from b)",
        "select count(*) as many, count(*) as again from a where k not in (select k from b)",
        "select count(*) as many, count(x.s) as texts from a x join a y on x.k = y.k join b on b.k = y.k",
    ] {
        let (a, b) = (input("a", 20_000, 1000, false), input("b", 20, 20, false));
        let one: Vec<_> = a.iter().chain(&b).cloned().collect();
        let other: Vec<_> = b.iter().chain(&a).cloned().collect();
        let within = Duration::from_secs(60);
        let one = tokio::time::timeout(within, run(options(query, folder.path()), &one)).await.unwrap().unwrap();
        let other = tokio::time::timeout(within, run(options(query, folder.path()), &other)).await.unwrap().unwrap();
        assert_eq!(single(&one), single(&other), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_at_any_moment_nothing_is_left() {
    let mut batches = input("a", 60_000, 10_000, false);
    batches.extend(input("b", 60_000, 10_000, false));
    let folder = tempfile::tempdir().unwrap();
    let query = "select a.k, count(*) as many from a join b on a.k = b.k group by a.k order by many";
    let narrow = Narrow { gather: Some(100_000), hash: None };
    for stop in 0..=batches.len() {
        let mut sql = Sql::new(SqlOptions { narrow, ..little(query, folder.path()) }).unwrap();
        let ctx = Context::bare("t");
        let mut out = Kept::default();
        let tasks = tokio::runtime::Handle::current().metrics();
        for (input, rows) in batches.iter().take(stop) {
            sql.apply(&ctx, &(*input).into(), rows.clone(), &mut out).await.unwrap();
        }
        if stop == batches.len() {
            // In the middle of its end, too.
            let short = Duration::from_millis(20);
            let ended: Result<Result<()>, _> = tokio::time::timeout(short, sql.finish(&ctx, &mut out)).await;
            drop(ended);
        }
        drop(sql);
        let mut left = usize::MAX;
        for _ in 0..500 {
            left = std::fs::read_dir(folder.path()).unwrap().count() + tasks.num_alive_tasks();
            if left == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(left, 0, "after {stop} batches: folders and tasks");
    }
}

#[tokio::test]
async fn an_input_without_rows_is_a_table_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (some, none) = (text("a\n1"), text("a\n1").slice(0, 0));
    let query = "select t.a, u.a as b from t left join u on t.a = u.a";
    let found = run(options(query, folder.path()), &[("t", some.clone()), ("u", none.clone())]).await.unwrap();
    assert_eq!(crate::kit::shown(&found, false), ["1,~"]);
    // Known by the plan, and nothing ever came.
    let mut sql = Sql::new(options(query, folder.path())).unwrap();
    sql.plan(&crate::kit::known(&[("t", some.clone()), ("u", none.clone())])).unwrap();
    let mut out = Kept::default();
    sql.apply(&Context::bare("t"), &"t".into(), some, &mut out).await.unwrap();
    sql.finish(&Context::bare("t"), &mut out).await.unwrap();
    assert_eq!(crate::kit::shown(&out.0, false), ["1,~"]);
    // Whoever makes a table of no rows learns its columns.
    let found = run(options(query, folder.path()), &[("t", none.clone()), ("u", none)]).await.unwrap();
    assert_eq!(found.iter().map(|rows| (rows.num_rows(), rows.num_columns())).collect::<Vec<_>>(), [(0, 2)]);
}

/// What is held is within the memory, whatever the pool counts: a window's rows, sorts, sums, side by side.
#[tokio::test(flavor = "multi_thread")]
async fn sorts_and_windows_go_by_the_disk() {
    let batches = input("a", 300_000, 1_000, false);
    let folder = tempfile::tempdir().unwrap();
    let query = "select count(*) as many, max(nth) as most from \
                 (select k, row_number() over (partition by k order by s) as nth from a)";
    assert_eq!(single_unsigned(&run(little(query, folder.path()), &batches).await.unwrap()), (300_000, 300));
    let query = "select k, s from a order by s desc, k limit 300000";
    let found = run(little(query, folder.path()), &batches).await.unwrap();
    assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), 300_000);
    let keys =
        found.iter().flat_map(|rows| rows.column(0).as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec());
    assert!(keys.collect::<Vec<_>>().is_sorted_by(|a, b| a >= b));
}

fn single_unsigned(rows: &[RecordBatch]) -> (i64, u64) {
    let many = rows[0].column(0).as_any().downcast_ref::<Int64Array>().unwrap().value(0);
    (many, rows[0].column(1).as_any().downcast_ref::<arrow_array::UInt64Array>().unwrap().value(0))
}
