//! What always holds, against models that are plain loops.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure in a test is its message")]

mod common;

use std::{collections::HashSet, sync::Arc};

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use common::{apply, make, shown};
use proptest::prelude::*;

type Row = (Option<i64>, Option<String>);

fn batch(rows: &[Row]) -> RecordBatch {
    let schema = Schema::new(vec![Field::new("q", DataType::Int64, true), Field::new("s", DataType::Utf8, true)]);
    let n: ArrayRef = Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>());
    let s: ArrayRef = Arc::new(rows.iter().map(|row| row.1.as_deref()).collect::<StringArray>());
    RecordBatch::try_new(Arc::new(schema), vec![n, s]).unwrap()
}

fn rows() -> impl Strategy<Value = Vec<Vec<Row>>> {
    let row = (proptest::option::of(-3i64..4), proptest::option::of("[ab]{0,2}"));
    proptest::collection::vec(proptest::collection::vec(row, 0..12), 0..6)
}

/// A condition, in YAML and as SQL would have it: `None` is unknown.
#[derive(Clone, Debug)]
enum Model {
    N(&'static str, i64),
    S(&'static str, String),
    NIn(bool, Vec<i64>),
    Null(&'static str, bool),
    All(Vec<Model>),
    Any(Vec<Model>),
    Not(Box<Model>),
}

fn ordered<T: PartialOrd>(op: &str, a: &T, b: &T) -> bool {
    match op {
        "=" => a == b,
        "!=" => a != b,
        "<" => a < b,
        "<=" => a <= b,
        ">" => a > b,
        _ => a >= b,
    }
}

impl Model {
    fn yaml(&self) -> String {
        let list = |list: &[Self]| list.iter().map(Self::yaml).collect::<Vec<_>>().join(", ");
        match self {
            Self::N(op, value) => format!("{{ column: q, op: '{op}', value: {value} }}"),
            Self::S(op, value) => format!("{{ column: s, op: '{op}', value: \"{value}\" }}"),
            Self::NIn(is, values) => {
                format!("{{ column: q, op: {}, value: {values:?} }}", if *is { "in" } else { "not in" })
            }
            Self::Null(column, is) => {
                format!("{{ column: {column}, op: {} }}", if *is { "is null" } else { "is not null" })
            }
            Self::All(all) => format!("{{ all: [{}] }}", list(all)),
            Self::Any(any) => format!("{{ any: [{}] }}", list(any)),
            Self::Not(not) => format!("{{ not: {} }}", not.yaml()),
        }
    }
    fn holds(&self, row: &Row) -> Option<bool> {
        match self {
            Self::N(op, value) => row.0.map(|n| ordered(op, &n, value)),
            Self::S(op, value) => row.1.as_ref().map(|s| ordered(op, s, value)),
            Self::NIn(is, values) => row.0.map(|n| values.contains(&n) == *is),
            Self::Null(column, is) => Some((if *column == "q" { row.0.is_none() } else { row.1.is_none() }) == *is),
            Self::Not(not) => not.holds(row).map(|holds| !holds),
            Self::All(all) => {
                let holds: Vec<_> = all.iter().map(|one| one.holds(row)).collect();
                if holds.contains(&Some(false)) { Some(false) } else { (!holds.contains(&None)).then_some(true) }
            }
            Self::Any(any) => {
                let holds: Vec<_> = any.iter().map(|one| one.holds(row)).collect();
                if holds.contains(&Some(true)) { Some(true) } else { (!holds.contains(&None)).then_some(false) }
            }
        }
    }
}

fn condition() -> impl Strategy<Value = Model> {
    let op = || prop::sample::select(vec!["=", "!=", "<", "<=", ">", ">="]);
    let leaf = prop_oneof![
        (op(), -4i64..5).prop_map(|(op, value)| Model::N(op, value)),
        (op(), "[ab]{0,2}").prop_map(|(op, value)| Model::S(op, value)),
        (any::<bool>(), proptest::collection::vec(-3i64..4, 1..4)).prop_map(|(is, values)| Model::NIn(is, values)),
        (prop::sample::select(vec!["q", "s"]), any::<bool>()).prop_map(|(column, is)| Model::Null(column, is)),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 1..4).prop_map(Model::All),
            proptest::collection::vec(inner.clone(), 1..4).prop_map(Model::Any),
            inner.prop_map(|not| Model::Not(Box::new(not))),
        ]
    })
}

proptest! {
    #[test]
    fn filter_keeps_what_holds(batches in rows(), model in condition()) {
        let mut filter = make("filter", &format!("keep: [{}]", model.yaml()));
        for rows in &batches {
            let expect: Vec<_> = rows.iter().filter(|row| model.holds(row) == Some(true)).cloned().collect();
            let kept = apply(filter.as_mut(), &batch(rows)).unwrap();
            let plain = common::Kept { rows: vec![batch(&expect)], rejects: vec![] };
            prop_assert_eq!(shown(&kept), shown(&plain), "{}", model.yaml());
        }
    }

    #[test]
    fn dedupe_keeps_the_first_of_each_key(batches in rows(), key in 0usize..3) {
        let options = ["key: all_columns", "key: [q]", "key: [s, q]"][key];
        let mut dedupe = make("dedupe", options);
        let mut seen = HashSet::new();
        for rows in &batches {
            let expect: Vec<_> = rows
                .iter()
                .filter(|(n, s)| match key {
                    0 => seen.insert((*n, s.clone())),
                    1 => n.is_none() || seen.insert((*n, None)),
                    _ => (n.is_none() && s.is_none()) || seen.insert((*n, s.clone())),
                })
                .cloned()
                .collect();
            let kept = apply(dedupe.as_mut(), &batch(rows)).unwrap();
            let plain = common::Kept { rows: vec![batch(&expect)], rejects: vec![] };
            prop_assert_eq!(shown(&kept), shown(&plain), "{}", options);
        }
    }
}

/// The least memory holds some 3,000 keys. Past it no row is lost, what was remembered is still dropped, and nothing else is.
#[test]
fn a_full_memory_loses_nothing() {
    let mut dedupe = make("dedupe", "{ key: [q], memory: 64KiB }");
    let numbers = |range: std::ops::Range<i64>| batch(&range.map(|n| (Some(n), None)).collect::<Vec<_>>());
    let first = shown(&apply(dedupe.as_mut(), &numbers(0..1000)).unwrap());
    assert_eq!(first.len(), 1000, "there is room");
    assert!(shown(&apply(dedupe.as_mut(), &numbers(0..1000)).unwrap()).is_empty(), "exact while there is room");
    let many = shown(&apply(dedupe.as_mut(), &numbers(1000..20_000)).unwrap());
    assert_eq!(many.len(), 19_000, "new keys pass, remembered or not");
    let again = shown(&apply(dedupe.as_mut(), &numbers(0..20_000)).unwrap());
    assert!(again.len() > 15_000 && again.len() < 18_000, "{} of 20,000 are not remembered", again.len());
    let kept: HashSet<_> = again.iter().collect();
    assert!(first.iter().all(|row| !kept.contains(row)), "what is remembered is dropped");
    let third = shown(&apply(dedupe.as_mut(), &numbers(0..20_000)).unwrap());
    assert_eq!(again, third, "a full memory does not change");
}
