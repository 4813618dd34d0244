//! What always holds: the same rows, whatever the batches, the memory and the number of parts; and they are SQLite's.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use proptest::prelude::*;
use towpath_connector_sql::{Narrow, SqlOptions};

use crate::kit::{options, oracle, run, shown};

type Row = (Option<i64>, Option<String>);

/// Keys among few values, so that they meet, with nulls and now and then one that stands for half of all rows.
fn rows() -> impl Strategy<Value = Vec<Row>> {
    let key = prop_oneof![1 => Just(None), 4 => Just(Some(1)), 4 => (0i64..12).prop_map(Some)];
    prop::collection::vec((key, prop::option::of("[a-cé]{0,3}")), 0..60)
}

fn batch(rows: &[Row]) -> RecordBatch {
    let schema = Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("s", DataType::Utf8, true)]);
    let k: ArrayRef = Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>());
    let s: ArrayRef = Arc::new(rows.iter().map(|row| row.1.as_deref()).collect::<StringArray>());
    RecordBatch::try_new(Arc::new(schema), vec![k, s]).unwrap()
}

const QUERIES: &[&str] = &[
    "select a.k, a.s, b.s as t from a join b on a.k = b.k",
    "select a.k, a.s, b.k as l, b.s as t from a full join b on a.k = b.k",
    "select a.k, a.s, b.s as t from a left join b on a.s = b.s and a.k <> b.k",
    "select a.k, count(*) as many, min(b.s) as least from a left join b on a.k = b.k group by a.k",
    "select s, sum(k) as total, count(distinct k) as keys from a group by s",
    "select k, s from a where k in (select k from b where s > 'b')",
    "select k, s from a where not exists (select 1 from b where b.k = a.k)",
    "select k, count(*) over (partition by k) as many, sum(k) over (partition by s) as total from a",
    "select x.k, x.many, y.many as more from (select k, count(*) as many from a group by k) x \
     join (select k, count(*) as many from b group by k) y on x.k = y.k",
    "select k from a union select k from b",
    "select distinct k, s from a order by k nulls last, s nulls last",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn neither_batches_nor_memory_nor_parts_make_a_difference(
        a in rows(), b in rows(), query in prop::sample::select(QUERIES),
        cuts in prop::collection::vec((any::<bool>(), 1usize..20), 0..20),
        (parts, threads, batch_rows) in (1usize..9, 1usize..4, 1usize..50),
        gather in prop::option::of(1usize..2000), hash in prop::option::of(0usize..3000),
    ) {
        let (a, b) = (batch(&a), batch(&b));
        let tables = [("a", a.clone()), ("b", b.clone())];
        // Both inputs in pieces, side by side in some order.
        let (mut at, mut batches) = ([0, 0], vec![]);
        let mut take = |which: usize, most: usize| {
            let (name, rows) = &tables[which];
            let most = most.min(rows.num_rows() - at[which]);
            batches.push((*name, rows.slice(at[which], most)));
            at[which] += most;
        };
        for (which, most) in cuts {
            take(usize::from(which), most);
        }
        take(0, usize::MAX);
        take(1, usize::MAX);
        let folder = tempfile::tempdir().unwrap();
        let narrow = Narrow { gather, hash };
        let options = SqlOptions { parts, threads: Some(threads), batch_rows, narrow, ..options(query, folder.path()) };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let found = runtime.block_on(run(options, &batches)).unwrap();
        let sorted = query.contains(" order by ");
        prop_assert_eq!(shown(&found, sorted), oracle(query, &tables, sorted), "{}", query);
        prop_assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
