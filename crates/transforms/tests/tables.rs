//! What each transform makes of rows, case by case.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure in a test is its message")]

mod common;

use common::{apply, check, known, make, message, shown, text, typed};
use towpath_core::Known;

#[test]
fn cast() {
    let rows = text("Qty,Price,Day,Note\n1,1.50,2026-01-31,a\nx,2,2026-02-30,b\n,,,\n~,~,~,~\n4,4.567,2026-01-31,e");
    for (columns, expect) in [
        (
            "{ Qty: int64 }",
            "1,1.50,2026-01-31,a | ~,,, | ~,~,~,~ | 4,4.567,2026-01-31,e | !1 column Qty: 'x' is not an int64",
        ),
        (
            "{ Qty: int64, Day: date, Price: 'decimal(5,2)' }",
            "1,1.50,2026-01-31,a | ~,~,~, | ~,~,~,~ | !1 column Qty: 'x' is not an int64 | !4 column Price: '4.567' is not a decimal(5,2)",
        ),
        ("{ Qyt: int64 }", "error: input in: there is no column 'Qyt' | did you mean 'Qty'?"),
        ("{ Weight: int64 }", "error: input in: there is no column 'Weight' | there are Qty, Price, Day, Note"),
        ("{}", "error: columns: names no column | write one like `columns: { Qty: int64 }`"),
    ] {
        check("cast", &format!("columns: {columns}"), &rows, expect);
    }
    let dates = typed("{ Day: date }", "Day\n2026-01-31");
    let error = common::run("cast", "columns: { Day: bool }", &dates).unwrap_err();
    assert!(error.starts_with("input in: column Day of type Date32 cannot become Boolean"), "{error}");
    let numbers = typed("{ Qty: float64 }", "Qty\n1.5\n1e300");
    check("cast", "columns: { Qty: text }", &numbers, "1.5 | 1e300");
}

#[test]
fn rename() {
    let rows = text("Textbox12,b,c\n1,2,3");
    for (columns, expect) in [
        ("{ Textbox12: Station }", "Station,b,c"),
        ("{ b: c, c: b }", "Textbox12,c,b"),
        ("{ b: b }", "Textbox12,b,c"),
        ("{ Textbox21: Station }", "error: input in: there is no column 'Textbox21' | did you mean 'Textbox12'?"),
        (
            "{ b: c }",
            "error: input in: 'b' cannot become 'c': there is a column of that name | rename 'c' as well, or take another name",
        ),
        ("{ b: x, c: x }", "error: columns: two columns would become 'x'"),
    ] {
        names("rename", &format!("columns: {columns}"), &rows, expect);
    }
}

#[test]
fn select() {
    let rows = text("a,b,c\n1,2,3");
    for (options, expect) in [
        ("columns: [c, a]", "c,a"),
        ("drop: [b]", "a,c"),
        ("columns: [A]", "error: input in: there is no column 'A' | did you mean 'a'?"),
        ("drop: [xyz]", "error: input in: there is no column 'xyz' | there are a, b, c"),
        ("drop: [a, b, c]", "error: input in: drop: no column would be left"),
        ("columns: [a, b, a]", "error: columns: 'a' stands there twice"),
        (
            "{}",
            "error: it names no column | write `columns: [Station, Qty]` to keep columns, or `drop: [Note]` to leave some out",
        ),
        (
            "{ columns: [a], drop: [b] }",
            "error: it has both `columns` and `drop` | what `columns` does not name is left out anyway: remove `drop`",
        ),
    ] {
        names("select", options, &rows, expect);
    }
    check("select", "columns: [c, a]", &rows, "3,1");
}

/// The names of the columns that come out.
fn names(kind: &str, options: &str, rows: &arrow_array::RecordBatch, expect: &str) {
    if expect.starts_with("error") {
        return check(kind, options, rows, expect);
    }
    common::run(kind, options, rows).unwrap();
    let out = apply(make(kind, options).as_mut(), rows).unwrap();
    let found: Vec<_> = out.rows[0].schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(found.join(","), expect, "{kind} {options}");
}

#[test]
fn dedupe() {
    let rows = text("k,v\n1,a\n1,b\n1,a\n~,c\n~,c\n~,d\n,c\n,c");
    for (options, expect) in [
        ("key: all_columns", "1,a | 1,b | ~,c | ~,d | ,c"),
        ("key: [k]", "1,a | ~,c | ~,c | ~,d | ,c"),
        ("key: [k, v]", "1,a | 1,b | ~,c | ~,d | ,c"),
        ("key: [v]", "1,a | 1,b | ~,c | ~,d"),
        ("key: [K2]", "error: input in: there is no column 'K2' | did you mean 'k'?"),
        ("key: []", "error: key: names no column | write `[OrderID]`, or `all_columns`"),
        ("key: [k, k]", "error: key: 'k' stands there twice"),
        ("key: k", "error: key: 'k' is not a list of columns: write [k], or `all_columns`"),
        ("{ key: [k], memory: 1KiB }", "error: memory: 1KiB is too little | give it 64KiB or more"),
    ] {
        check("dedupe", options, &rows, expect);
    }
}

#[test]
fn dedupe_remembers_over_batches_and_types() {
    let mut transform = make("dedupe", "key: [k]");
    let first = apply(transform.as_mut(), &text("k,v\n1,a\n2,a")).unwrap();
    let second = apply(transform.as_mut(), &typed("{ k: int64 }", "k,v\n1,b\n3,b")).unwrap();
    assert_eq!((shown(&first), shown(&second)), (vec!["1,a".into(), "2,a".into()], vec!["3,b".into()]));
    let plan = transform.plan(&[]).unwrap();
    assert!(plan.stateful && !plan.holds);
    let note = "remembers 3,383,296 keys in 64MiB; behind that, rows with further keys pass, and repeated ones are left to the sink's key";
    assert_eq!(plan.notes, [note]);
}

#[test]
fn filter_by_type() {
    let columns = "{ q: int64, d: 'decimal(10,2)', f: float64, b: bool, t: date, m: timestamp, z: { type: timestamp, timezone: UTC } }";
    let rows = typed(
        columns,
        "id,s,q,d,f,b,t,m,z
         A,10,10,1.50,-0.0,true,2026-01-31,2026-01-31T05:00:00,2026-01-31T05:00:00
         B,9,9,1.51,0.5,false,2026-02-01,2026-02-01T00:00:00,2026-02-01T00:00:00
         C,,-3,-1.50,1e300,true,1969-12-31,1969-12-31T23:59:59,1969-12-31T23:59:59
         N,~,~,~,~,~,~,~,~",
    );
    for (keep, expect) in [
        // Text as text.
        ("{ column: s, op: '<', value: '9' }", "A C"),
        ("{ column: s, op: '!=', value: '' }", "A B"),
        ("{ column: s, op: in, value: ['9', ''] }", "B C"),
        ("{ column: s, op: not in, value: ['9', ''] }", "A"),
        ("{ column: s, op: is null }", "N"),
        ("{ column: s, op: is not null }", "A B C"),
        // Numbers as numbers, whichever way they are written.
        ("{ column: q, op: '<', value: 10 }", "B C"),
        ("{ column: q, op: '>=', value: '9' }", "A B"),
        ("{ column: q, op: '>', value: 9.5 }", "A"),
        ("{ column: q, op: '=', value: 9.0 }", "B"),
        ("{ column: q, op: '!=', value: 9.5 }", "A B C"),
        ("{ column: q, op: '<', value: 99999999999999999999 }", "A B C"),
        ("{ column: q, op: '=', value: '9.00' }", "B"),
        ("{ column: d, op: '=', value: 1.5 }", "A"),
        ("{ column: d, op: '>', value: 1.505 }", "B"),
        ("{ column: d, op: '<', value: -1.4999 }", "C"),
        ("{ column: d, op: in, value: [1.5, 1.51, 1.515] }", "A B"),
        // Both zeros are zero.
        ("{ column: f, op: '=', value: 0 }", "A"),
        ("{ column: f, op: '>=', value: -0.0 }", "A B C"),
        ("{ column: f, op: '<', value: 0 }", ""),
        ("{ column: f, op: '>', value: 0 }", "B C"),
        ("{ column: b, op: '=', value: true }", "A C"),
        ("{ column: b, op: '!=', value: 'yes' }", "B"),
        ("{ column: t, op: '>', value: 2026-01-31 }", "B"),
        ("{ column: m, op: '>=', value: '2026-02-01' }", "B"),
        ("{ column: m, op: '<', value: '2026-01-31 05:00:00' }", "C"),
        ("{ column: z, op: '=', value: '2026-01-31T05:00:00' }", "A"),
        ("{ column: z, op: '=', value: '2026-01-31T07:00:00+02:00' }", "A"),
    ] {
        let rows = rows.clone();
        let kept = common::run("filter", &format!("keep: [{keep}]"), &rows).unwrap();
        let ids: Vec<_> = kept.iter().map(|line| &line[..1]).collect();
        assert_eq!(ids.join(" "), expect, "{keep}");
    }
}

#[test]
fn filter_with_nulls_is_as_in_sql() {
    let rows = typed("{ a: int64, b: int64 }", "id,a,b\nA,1,1\nB,1,~\nC,~,1\nD,~,~\nE,2,2");
    let (a, b) = ("{ column: a, op: '=', value: 1 }", "{ column: b, op: '=', value: 1 }");
    for (keep, expect) in [
        (format!("[{a}, {b}]"), "A"),
        (format!("[any: [{a}, {b}]]"), "A B C"),
        (format!("[not: {a}]"), "E"),
        (format!("[not: {{ all: [{a}, {b}] }}]"), "E"),
        (format!("[not: {{ any: [{a}, {b}] }}]"), "E"),
        (format!("[not: {{ not: {a} }}]"), "A B"),
        ("[not: { column: a, op: is null }]".to_owned(), "A B E"),
        ("[{ column: a, op: not in, value: [2, 3] }]".to_owned(), "A B"),
    ] {
        let kept = common::run("filter", &format!("keep: {keep}"), &rows).unwrap();
        let ids: Vec<_> = kept.iter().map(|line| &line[..1]).collect();
        assert_eq!(ids.join(" "), expect, "{keep}");
    }
}

#[test]
fn filter_refuses_what_cannot_be_compared() {
    let rows = typed("{ q: int64, t: date, b: bool, f: float64 }", "s,q,t,b,f\n1,1,2026-01-31,true,1");
    let cases = [
        ("{ column: Q2, op: '=', value: 1 }", "input in: there is no column 'Q2' | did you mean 'q'?"),
        (
            "{ column: s, op: '>', value: 3 }",
            "input in: column 's' is text, and 3 is not | give the column a type with `columns` in its source or a cast, or write \"3\" to compare as text",
        ),
        ("{ column: q, op: '=', value: abc }", "input in: column q: 'abc' is not an int64"),
        ("{ column: q, op: '=', value: true }", "input in: column 'q' is a number, and true is not"),
        ("{ column: f, op: '=', value: abc }", "input in: column f: 'abc' is not a float64"),
        ("{ column: t, op: '>', value: 2026 }", "input in: column 't' is a date, and 2026 is not"),
        ("{ column: t, op: '>', value: '2026-02-30' }", "input in: column t: '2026-02-30' is not a date"),
        ("{ column: b, op: '=', value: maybe }", "input in: column b: 'maybe' is not a bool"),
        (
            "{ column: q, op: '=', value: '' }",
            "input in: column 'q' is compared with an empty text, and is a number: ask `is null`",
        ),
        (
            "{ column: q, op: '=' }",
            "keep[0]: column 'q': `=` takes a value; for NULL there are `is null` and `is not null`",
        ),
        ("{ column: q, op: is null, value: 1 }", "keep[0]: column 'q': `is null` takes no value"),
        ("{ column: q, op: in, value: 1 }", "keep[0]: column 'q': `in` takes a list of values such as [1, 2]"),
        ("{ column: q, op: '=', value: [1] }", "keep[0]: column 'q': `=` takes one value; for a list there is `in`"),
        (
            "{ column: q, op: in, value: [~] }",
            "keep[0]: column 'q' is compared with null: ask `is null` or `is not null`",
        ),
        (
            "{ column: q }",
            "keep[0]: column 'q' is compared without an `op` such as \"=\", \"<\", \"in\" or \"is null\"",
        ),
        (
            "{ column: q, any: [] }",
            "keep[0]: a condition is one of { column, op, value }, { all }, { any } and { not }",
        ),
        ("{ any: [] }", "keep[0]: a list of conditions is empty"),
        (
            "{ any: [], not: { column: q, op: is null } }",
            "keep[0]: a condition is one of { column, op, value }, { all }, { any } and { not }",
        ),
    ];
    for (keep, expect) in cases {
        check("filter", &format!("keep: [{keep}]"), &rows, &format!("error: {expect}"));
    }
}

#[test]
fn several_inputs() {
    let (one, other) = (text("a,b\n1,2"), text("a,c\n1,2"));
    let plan = |kind: &str, yaml: &str, inputs: &[Known]| {
        let inputs: Vec<_> = ["one", "two"].into_iter().map(Into::into).zip(inputs.iter().cloned()).collect();
        let plan = make(kind, yaml).plan(&inputs);
        plan.map(|plan| (format!("{:?}", plan.schema.schema().map(|s| s.fields().len())), plan.notes))
            .map_err(|e| message(&e))
    };
    let (now, then) = (|| Known::Now(one.schema()), || Known::LastRun(other.schema()));
    assert_eq!(plan("select", "columns: [a]", &[now(), now()]), Ok(("Some(1)".into(), vec![])));
    assert_eq!(plan("select", "columns: [a]", &[now(), then()]), Ok(("Some(1)".into(), vec![])));
    assert_eq!(
        plan("select", "drop: [a]", &[now(), then()]),
        Ok(("None".into(), vec!["its inputs differ in their columns".into()]))
    );
    assert_eq!(plan("select", "columns: [a]", &[now(), Known::No]), Ok(("None".into(), vec![])));
    // The source may have changed since: no reason to refuse a run.
    let note = "as of the last run, input two: there is no column 'b'".to_owned();
    assert_eq!(plan("select", "columns: [b]", &[now(), then()]), Ok(("None".into(), vec![note])));
    let now_without = Known::Now(other.schema());
    let error = plan("select", "columns: [b]", &[now(), now_without]).unwrap_err();
    assert_eq!(error, "input two: there is no column 'b' | did you mean 'a'?");
    assert!(make("rename", "columns: { a: x }").plan(&known(&one)).is_ok());
}
