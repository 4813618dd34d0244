//! What every server must show.

use serde_json::json;
use towpath_core::{ErrorKind, Resume, Source as _};

use crate::{
    common::{Place, run},
    given::{behind, between, ctx, read, source},
};

/// All of them, each in a schema of its own.
pub async fn all(url: &str) {
    types(&Place::new(url).await).await;
    odd_names(&Place::new(url).await).await;
    cursors(&Place::new(url).await).await;
    positions(&Place::new(url).await).await;
    whole(&Place::new(url).await).await;
    ranges(&Place::new(url).await).await;
    wrong(&Place::new(url).await).await;
    discover(&Place::new(url).await).await;
}

/// Each type: how it is declared, its Arrow type, a value as it is written, and as it comes.
const TYPES: &[(&str, &str, &str, &str)] = &[
    ("bit", "Boolean", "1", "true"),
    ("tinyint", "UInt8", "255", "255"),
    ("smallint", "Int16", "-32768", "-32768"),
    ("int", "Int32", "-2147483648", "-2147483648"),
    ("bigint", "Int64", "9223372036854775807", "9223372036854775807"),
    ("decimal(5, 2)", "Decimal128(5, 2)", "-0.05", "-0.05"),
    (
        "numeric(38, 10)",
        "Decimal128(38, 10)",
        "9999999999999999999999999999.9999999999",
        "9999999999999999999999999999.9999999999",
    ),
    ("money", "Decimal128(19, 4)", "922337203685477.5807", "922337203685477.5807"),
    ("smallmoney", "Decimal128(10, 4)", "-214748.3648", "-214748.3648"),
    ("real", "Float32", "0.5", "0.5"),
    ("float", "Float64", "1e300", "1e300"),
    ("date", "Date32", "'2026-01-31'", "2026-01-31"),
    ("time(0)", "Time64(µs)", "'23:59:59'", "23:59:59"),
    ("time(6)", "Time64(µs)", "'23:59:59.123456'", "23:59:59.123456"),
    ("datetime", "Timestamp(µs)", "'2026-01-31T23:59:59.997'", "2026-01-31T23:59:59.997"),
    ("smalldatetime", "Timestamp(µs)", "'2026-01-31T23:59:00'", "2026-01-31T23:59:00"),
    ("datetime2(3)", "Timestamp(µs)", "'2026-01-31T23:59:59.123'", "2026-01-31T23:59:59.123"),
    ("datetime2(6)", "Timestamp(µs)", "'2026-12-31T23:59:59.999999'", "2026-12-31T23:59:59.999999"),
    (
        "datetimeoffset(6)",
        "Timestamp(µs, \"UTC\")",
        "'2026-01-31 10:00:00.123456 +02:00'",
        "2026-01-31T08:00:00.123456Z",
    ),
    ("char(3)", "Utf8", "'a'", "a  "),
    ("varchar(9)", "Utf8", "'abc'", "abc"),
    ("varchar(max)", "Utf8", "'abc'", "abc"),
    ("nchar(3)", "Utf8", "N'ä'", "ä  "),
    ("nvarchar(9)", "Utf8", "N'日本'", "日本"),
    ("nvarchar(max)", "Utf8", "REPLICATE(CONVERT(nvarchar(max), N'ä'), 70000)", "70000 × ä"),
    ("binary(3)", "Binary", "0x0A", "0a0000"),
    ("varbinary(9)", "Binary", "0x0AFF", "0aff"),
    ("varbinary(max)", "Binary", "0x0AFF", "0aff"),
    ("uniqueidentifier", "Utf8", "'0e984725-c51c-4bf4-9960-e1c80e27aba0'", "0E984725-C51C-4BF4-9960-E1C80E27ABA0"),
    ("xml", "Utf8", "'<a>1</a>'", "<a>1</a>"),
];

async fn types(place: &Place) {
    let columns: Vec<_> = TYPES.iter().enumerate().map(|(at, (of, ..))| format!("c{at} {of} NULL")).collect();
    place.ask(&format!("CREATE TABLE $.t ({})", columns.join(", "))).await;
    let values: Vec<_> = TYPES.iter().map(|(_, _, value, _)| *value).collect();
    let names: Vec<_> = (0..TYPES.len()).map(|at| format!("c{at}")).collect();
    place.ask(&format!("INSERT INTO $.t ({}) VALUES ({})", names.join(", "), values.join(", "))).await;
    place.ask("INSERT INTO $.t (c0) VALUES (NULL)").await;
    for options in [json!({}), json!({"query": "SELECT * FROM $.t;"})] {
        let plan = source(place, options.clone()).plan(&ctx().for_plan(), &run("r"), &Resume::default()).await.unwrap();
        let schema = plan.schema.schema().unwrap().clone();
        for (field, (of, arrow, ..)) in schema.fields().iter().zip(TYPES) {
            assert_eq!(field.data_type().to_string(), *arrow, "{of}, {options}");
        }
        let given = read(place, options.clone(), "run-1", &Resume::default()).await.unwrap();
        assert_eq!(given.rejects, [""; 0]);
        let rows = given.sorted();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[1], vec!["∅"; TYPES.len()].join("|"));
        for (cell, (of, _, _, expect)) in rows[0].split('|').zip(TYPES) {
            match expect.split_once(" × ") {
                Some((count, text)) => assert!(cell == text.repeat(count.parse().unwrap()), "{of}"),
                None => assert_eq!(cell, *expect, "{of}, {options}"),
            }
        }
    }
}

async fn odd_names(place: &Place) {
    place.ask("CREATE TABLE $.[odd näme] ([größe] int, [a b] int)").await;
    place.ask("INSERT INTO $.[odd näme] VALUES (1, 2)").await;
    let given = read(place, json!({"table": "$.[odd näme]", "cursor": "A B"}), "run-1", &Resume::default()).await;
    assert_eq!(given.unwrap().rows, ["1|2"]);
}

async fn cursors(place: &Place) {
    for (number, (kind, values)) in [
        ("int", ["1", "2", "3"]),
        ("bigint", ["-9223372036854775808", "0", "9223372036854775807"]),
        ("decimal(38, 10)", ["0.0000000001", "0.0000000002", "9999999999999999999999999999.9999999999"]),
        ("money", ["1.0001", "1.0002", "922337203685477.5807"]),
        ("float", ["0.1", "0.30000000000000004", "1e300"]),
        ("date", ["'2026-01-01'", "'2026-01-02'", "'2026-01-03'"]),
        ("datetime", ["'2026-01-01T00:00:00.003'", "'2026-01-01T00:00:00.007'", "'2026-01-01T00:00:00.010'"]),
        (
            "datetime2(6)",
            ["'2026-01-01T00:00:00.000001'", "'2026-01-01T00:00:00.000002'", "'2026-01-01T00:00:00.000003'"],
        ),
        (
            "datetimeoffset(0)",
            ["'2026-01-01 10:00:00 +02:00'", "'2026-01-01 09:00:00 +00:00'", "'2026-01-01 09:00:00 -01:00'"],
        ),
        ("nvarchar(9)", ["N'A'", "N'a'", "N'ä'"]),
        ("varchar(9)", ["'B'", "'a'", "'a b'"]),
        ("varbinary(8)", ["0x01", "0x02", "0xFF"]),
    ]
    .into_iter()
    .enumerate()
    {
        let [one, two, three] = values;
        let table = format!("$.c{number}");
        place.ask(&format!("CREATE TABLE {table} (id int, c {kind} NULL)")).await;
        place.ask(&format!("INSERT INTO {table} VALUES (1, {one}), (2, {two}), (3, {two}), (4, NULL)")).await;
        let ids = |given: &crate::given::Given| {
            let mut ids: Vec<_> = given.rows.iter().map(|row| row.split('|').next().unwrap().to_owned()).collect();
            ids.sort();
            ids
        };
        let query = format!("SELECT id, c FROM {table}");
        let mut shapes = vec![json!({"query": query, "cursor": "C"})];
        if !kind.contains("varchar") && !kind.contains("binary") && kind != "float" {
            shapes.push(json!({"query": query, "cursor": "c", "partitions": 3}));
        }
        for options in &shapes {
            let first = read(place, options.clone(), "run-1", &Resume::default()).await.unwrap();
            assert_eq!(ids(&first), ["1", "2", "3"], "{kind} {options}");
            let nothing = read(place, options.clone(), "run-2", &behind(place, &first.last().unwrap())).await.unwrap();
            assert_eq!((ids(&nothing), nothing.marks.len()), (vec![], 0), "{kind} {options}");
            // The same value again, the very same row again, a later one, and one behind the cursor.
            place.ask(&format!("INSERT INTO {table} VALUES (5, {two}), (3, {two}), (6, {three}), (7, {one})")).await;
            let position = first.last().unwrap();
            let more = read(place, options.clone(), "run-2", &behind(place, &position)).await.unwrap();
            assert_eq!(ids(&more), ["3", "5", "6"], "{kind} {options}");
            // What another sink has been given is given again, and no more.
            let again = read(place, options.clone(), "run-1", &between(place, None, &position)).await;
            match again {
                // The row behind the cursor belongs to that stretch by now, and nothing tells it from the others.
                Ok(again) => assert_eq!(ids(&again), ["1", "2", "3", "7"], "{kind} {options}"),
                Err(error) => panic!("{kind} {options}: {error}"),
            }
            place.ask(&format!("DELETE FROM {table} WHERE id > 4")).await;
            place.ask(&format!("DELETE FROM {table} WHERE id = 3")).await;
            place.ask(&format!("INSERT INTO {table} VALUES (3, {two})")).await;
        }
    }
}

/// So many rows, with numbers from 1.
async fn numbers(place: &Place, table: &str, columns: &str, values: &str, count: usize) {
    place.ask(&format!("CREATE TABLE {table} ({columns})")).await;
    place.ask(&format!("INSERT INTO {table} SELECT {} ", values.replace("{n}", "1"))).await;
    let mut have = 1;
    while have < count {
        let more = have.min(count - have);
        let values = values.replace("{n}", &format!("(i + {have})"));
        place.ask(&format!("INSERT INTO {table} SELECT {values} FROM {table} WHERE i <= {more}")).await;
        have += more;
    }
}

async fn positions(place: &Place) {
    // Values that repeat, in pieces that end among them; one that repeats too often for that.
    let repeats = "CASE WHEN {n} BETWEEN 10000 AND 25000 THEN 9000 ELSE {n} / 3 END";
    numbers(place, "$.t", "i int PRIMARY KEY, c int", &format!("{{n}}, {repeats}"), 35_000).await;
    let options = json!({"cursor": "c"});
    let all = read(place, options.clone(), "run-1", &Resume::default()).await.unwrap();
    assert_eq!(all.rows.len(), 35_000);
    assert!(all.marks.iter().any(|(_, mark)| !mark.is_boundary()), "too many of one value to stop among them");
    let positions: Vec<_> = all
        .marks
        .iter()
        .filter_map(|(rows, mark)| match mark {
            towpath_core::Mark::At(_, position) => Some((*rows, position.clone())),
            _ => None,
        })
        .collect();
    assert!(positions.len() > 2, "{} positions", positions.len());
    let sorted = |rows: &[String]| {
        let mut rows = rows.to_vec();
        rows.sort();
        rows
    };
    for (count, position) in &positions {
        let rest = read(place, options.clone(), "run-1", &behind(place, position)).await.unwrap();
        assert_eq!(sorted(&rest.rows), sorted(&all.rows[*count..]));
    }
    let (first, second) = (&positions[0], &positions[2]);
    let stretch = between(place, Some(&first.1), &second.1);
    let got = read(place, options.clone(), "run-1", &stretch).await.unwrap();
    assert_eq!(sorted(&got.rows), sorted(&all.rows[first.0..second.0]));
    assert_eq!(got.last().as_ref(), Some(&second.1), "to the letter");
    // A row of the end is gone.
    let id = all.rows[second.0 - 1].split('|').next().unwrap();
    place.ask(&format!("DELETE FROM $.t WHERE i = {id}")).await;
    let error = read(place, options, "run-1", &stretch).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
}

async fn whole(place: &Place) {
    numbers(place, "$.t", "i int PRIMARY KEY", "{n}", 20_000).await;
    for options in [json!({}), json!({"query": "SELECT i FROM $.t WHERE i > 0;"}), json!({"partitions": 4})] {
        let all = read(place, options.clone(), "run-1", &Resume::default()).await.unwrap();
        assert_eq!(all.rows.len(), 20_000, "{options}");
        let boundaries = all.marks.iter().filter(|(_, mark)| mark.is_boundary()).count();
        assert_eq!((boundaries, all.marks.last().unwrap().1.is_boundary()), (1, true), "{options}: whole or nothing");
        let end = all.last().unwrap();
        let again = read(place, options.clone(), "run-1", &Resume::default()).await.unwrap();
        assert_eq!(again.last(), Some(end.clone()), "whatever the order");
        let mut from = behind(place, &end);
        let other = read(place, options.clone(), "run-2", &from).await.unwrap();
        assert_eq!(other.rows.len(), 20_000, "another run has not read it");
        from.from.as_mut().unwrap().run = run("run-1");
        assert_eq!(read(place, options.clone(), "run-1", &from).await.unwrap().rows.len(), 0, "this run has");
        let until = between(place, None, &end);
        assert_eq!(read(place, options.clone(), "run-1", &until).await.unwrap().last(), Some(end.clone()));
        place.ask("UPDATE $.t SET i = 20001 WHERE i = 20000").await;
        let error = read(place, options.clone(), "run-1", &until).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        place.ask("UPDATE $.t SET i = 20000 WHERE i = 20001").await;
    }
}

async fn ranges(place: &Place) {
    let columns = "i int PRIMARY KEY, part int NULL, at datetime2(3)";
    let values = "{n}, CASE WHEN {n} % 10 = 0 THEN NULL ELSE {n} % 1000 END, \
                  DATEADD(minute, {n}, CONVERT(datetime2(3), '2026-01-01'))";
    numbers(place, "$.t", columns, values, 20_000).await;
    let one = read(place, json!({}), "run-1", &Resume::default()).await.unwrap().sorted();
    for options in [
        json!({"partitions": 3}),
        json!({"partitions": 7, "partition_by": "part"}),
        json!({"partitions": 2, "partition_by": "AT"}),
        json!({"partitions": 4, "cursor": "i", "partition_by": "part"}),
        json!({"partitions": 4, "cursor": "at"}),
    ] {
        let given = read(place, options.clone(), "run-1", &Resume::default()).await.unwrap();
        assert_eq!(given.sorted(), one, "{options}");
    }
    // Behind a cursor, in ranges of another column.
    let options = json!({"partitions": 4, "cursor": "i", "partition_by": "part"});
    let end = read(place, options.clone(), "run-1", &Resume::default()).await.unwrap().last().unwrap();
    place.ask("INSERT INTO $.t VALUES (20001, 5, '2026-01-01'), (20002, NULL, '2026-01-01')").await;
    let more = read(place, options.clone(), "run-2", &behind(place, &end)).await.unwrap();
    let after = more.last().unwrap();
    assert_eq!(more.sorted(), ["20001|5|2026-01-01T00:00:00", "20002|∅|2026-01-01T00:00:00"]);
    // The same positions are understood by one session as well.
    let nothing = read(place, json!({"cursor": "i"}), "run-3", &behind(place, &after)).await.unwrap();
    assert_eq!(nothing.rows, [""; 0]);
    // A table without a row.
    place.ask("CREATE TABLE $.empty (i int PRIMARY KEY)").await;
    for options in
        [json!({"partitions": 3}), json!({}), json!({"cursor": "i"}), json!({"cursor": "i", "partitions": 2})]
    {
        let mut options = options;
        options["table"] = json!("$.empty");
        let given = read(place, options.clone(), "run-1", &Resume::default()).await.unwrap();
        assert_eq!(given.rows, [""; 0], "{options}");
        assert_eq!(given.last().is_some(), options.get("cursor").is_none(), "{options}");
    }
}

async fn wrong(place: &Place) {
    place.ask("CREATE TABLE $.t (i int, b bit, x nvarchar(9))").await;
    for (options, kind, expect) in [
        (json!({"table": "$.nowhere"}), ErrorKind::NotFound, "nowhere"),
        (json!({"query": "SELECT * FROM $.nowhere"}), ErrorKind::NotFound, "nowhere"),
        (json!({"query": "DELETE FROM $.t"}), ErrorKind::Config, "query: cannot describe the columns"),
        (json!({"cursor": "y"}), ErrorKind::Config, "cursor: there is no column y"),
        (json!({"cursor": "b"}), ErrorKind::Config, "cursor: column b is of type bit"),
        (json!({"partitions": 2}), ErrorKind::Config, "has no primary key of one column"),
        (json!({"partitions": 2, "partition_by": "x"}), ErrorKind::Config, "cannot be cut into ranges"),
    ] {
        let plan = source(place, options.clone()).plan(&ctx().for_plan(), &run("r"), &Resume::default()).await;
        let error = plan.unwrap_err();
        // Not every server that speaks TDS has SQL Server's numbers.
        let strange = error.to_string().contains("(error 33557097)");
        assert!(error.kind() == kind || strange, "{options}: {error}");
        assert!(error.to_string().contains(expect), "{options}: {error}");
        assert!(error.what_to_do().is_some() || strange, "{options}: {error} is told without what to do");
        assert!(!error.to_string().contains(crate::common::PASSWORD), "{error}");
        let error = read(place, options.clone(), "run-1", &Resume::default()).await.unwrap_err();
        assert!(error.kind() == kind || strange, "{options}: {error}");
    }
}

async fn discover(place: &Place) {
    place.ask("CREATE TABLE $.[odd orders] (id int PRIMARY KEY, total decimal(10, 2) NOT NULL, note nvarchar(max), a int UNIQUE)").await;
    place.ask("INSERT INTO $.[odd orders] VALUES (1, 2, 'x', 1)").await;
    place.ask("CREATE VIEW $.big AS SELECT id FROM $.[odd orders]").await;
    let found = source(place, json!({})).discover(&ctx().for_plan()).await.unwrap();
    let of = |name: &str| {
        let name = format!("{}.{name}", place.schema);
        let items = found.items.as_array().unwrap();
        items.iter().find(|item| item["name"] == name).unwrap_or_else(|| panic!("{name}: {}", found.text)).clone()
    };
    let orders = of("[odd orders]");
    assert_eq!((&orders["kind"], &orders["key"]), (&json!("table"), &json!(["id"])));
    assert_eq!(
        orders["columns"][1],
        json!({"name": "total", "type": "decimal(10, 2)", "key": false, "not_null": true})
    );
    assert_eq!(orders["columns"][2]["type"], "nvarchar(max)");
    assert_eq!(orders["unique"], json!([["a"]]));
    assert_eq!(of("big")["kind"], "view");
    assert!(found.text.contains("    type: mssql\n"), "{}", found.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_server_shows_what_it_must() {
    if let Some(server) = crate::common::Server::real().await {
        all(&server.url).await;
    }
}
