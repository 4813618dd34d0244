//! What the sink does to a database.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a failure in a test is its message")]

mod common;

use common::{Place, Server, rows};
use futures::future::BoxFuture;
use serde_json::json;

async fn modes(place: &Place) {
    let first = rows("id:int|name|x:float\n1|a|1.5\n2|b|∅\n3|∅|3");
    let second = rows("id:int|name|x:float\n3|c|4\n4|d|5\n4|e|6");
    let all = "SELECT id, name, x FROM $.t ORDER BY id, x";
    let loaded = place.load(json!({"write": "append"}), &[first.clone(), second.clone()]).await.unwrap();
    assert_eq!(loaded.counts(), (6, 0, 0), "{loaded:?}");
    assert_eq!(place.ask(all).await, ["1|a|1.5", "2|b|∅", "3|∅|3.0", "3|c|4.0", "4|d|5.0", "4|e|6.0"]);
    let loaded = place.load(json!({"write": "replace"}), &[first.clone(), second.clone()]).await.unwrap();
    assert_eq!(loaded.counts(), (6, 0, 0), "{loaded:?}");
    assert_eq!(place.ask("SELECT COUNT(*) FROM $.t").await, ["6"]);
    for (table, mode, key, counts, expect) in [
        ("n", "insert_new", json!(["id"]), (4, 2, 0), ["1|a|1.5", "2|b|∅", "3|∅|3.0", "4|e|6.0"]),
        ("u", "upsert", json!(["id"]), (5, 1, 0), ["1|a|1.5", "2|b|∅", "3|c|4.0", "4|e|6.0"]),
    ] {
        let options = json!({"write": mode, "key": key, "table": format!("{}.{table}", place.schema)});
        let loaded = place.load(options.clone(), &[first.clone(), second.clone()]).await.unwrap();
        assert_eq!(loaded.counts(), counts, "{mode}: {loaded:?}");
        let all = all.replace("$.t", &format!("$.{table}"));
        assert_eq!(place.ask(&all).await, expect, "{mode}");
    }
    let options = json!({"write": "insert_new", "key": "row_hash", "table": format!("{}.h", place.schema)});
    for (counts, of) in [((3, 0, 0), &first), ((0, 3, 0), &first), ((3, 0, 0), &second)] {
        let loaded = place.load(options.clone(), std::slice::from_ref(of)).await.unwrap();
        assert_eq!(loaded.counts(), counts, "by hash: {loaded:?}");
    }
    assert_eq!(place.staging().await, [""; 0]);
}

/// One bad row of each kind costs itself; the rest goes in.
async fn bad_rows(place: &Place) {
    place.ask("CREATE TABLE $.parent (code nvarchar(10) NOT NULL PRIMARY KEY); INSERT INTO $.parent VALUES (N'A'), (N'B')").await;
    place
        .ask(
            "CREATE TABLE $.t (id int NOT NULL PRIMARY KEY, qty int NOT NULL CONSTRAINT positive CHECK (qty > 0), \
             code nvarchar(10) NULL CONSTRAINT known_code REFERENCES $.parent (code), name nvarchar(5) NULL, \
             price decimal(6,2) NULL, at datetime NULL, tag nvarchar(20) NULL CONSTRAINT one_tag UNIQUE)",
        )
        .await;
    place.ask("INSERT INTO $.t (id, qty, tag) VALUES (100, 1, N'taken')").await;
    let given = rows(
        "id|qty|code|name|price|at|tag
         1|1|A|abcde|1.50|2026-01-31T10:00:00|t1
         2|∅|A|x|1|∅|t2
         3|0|A|x|1|∅|t3
         4|1|C|x|1|∅|t4
         5|1|B|abcdef|1|∅|t5
         6|1|B|x|12345.67|∅|t6
         7|1|B|x|one|∅|t7
         8|1|B|x|1|1700-01-01|t8
         9|3000000000|B|x|1|∅|t9
         10|1|∅|x|1|∅|taken
         100|1|∅|x|1|∅|t10
         11|1|∅|x|1|∅|t11
         12|1|∅|x|1|∅|t11
         13|1|B|last|9999.99|2026-01-31 23:59:59.997|t13",
    );
    let loaded = place.load(json!({"write": "append"}), std::slice::from_ref(&given)).await.unwrap();
    assert_eq!(loaded.counts(), (3, 0, 11), "{loaded:#?}");
    assert_eq!(place.ask("SELECT id FROM $.t ORDER BY id").await, ["1", "11", "13", "100"]);
    // Each server has a name of its own for a key without one, and its own way to write an expression.
    let named = |reason: &String| {
        let reason = reason.replace(&place.schema, "schema");
        let parts: Vec<&str> = reason.split('"').collect();
        match parts[..] {
            [before, "positive", after] => format!("{before}\"positive\": … [{}", after.rsplit_once(" [").unwrap().1),
            [before, _, after] if before.contains("PRIMARY KEY") => format!("{before}\"PK\"{after}"),
            _ => reason,
        }
    };
    let mut reasons: Vec<_> = loaded.rejected.iter().map(named).collect();
    reasons.sort();
    insta::assert_snapshot!("bad_rows", reasons.join("\n"));
    assert_eq!(place.staging().await, [""; 0]);
}

/// What nobody can ask about beforehand is found by trying: here an index on an expression that overflows.
async fn only_the_server_knows(place: &Place) {
    place.ask("CREATE TABLE $.t (id int NOT NULL PRIMARY KEY, a int NULL, b int NULL, CONSTRAINT other CHECK (100 / a > 0 AND (b IS NULL OR b = 7)))").await;
    let mut table = "id|a".to_owned();
    for id in 1..=200 {
        table.push_str(&format!("\n{id}|{}", if [17, 18, 200].contains(&id) { 0 } else { 1 }));
    }
    let loaded = place.load(json!({"write": "append"}), &[rows(&table)]).await.unwrap();
    assert_eq!(loaded.counts(), (197, 0, 3), "{loaded:#?}");
    assert_eq!(place.ask("SELECT COUNT(*) FROM $.t WHERE id IN (17, 18, 200)").await, ["0"]);
    assert!(loaded.rejected.iter().all(|why| why.contains("error ")), "{loaded:#?}");
}

/// Rows of one key: in a batch the last counts, then the first (`insert_new`) or the last (`upsert`), also where only the collation says they are one.
async fn keys(place: &Place) {
    for (mode, counts, expect) in [("insert_new", (2, 4, 0), ["a|2", "b|1"]), ("upsert", (2, 4, 0), ["A|5", "b|4"])] {
        let table = format!("{}.{mode}", place.schema);
        let options = json!({"write": mode, "key": ["k"], "table": table});
        let mut sink = place.sink(options);
        let (run, ctx) = (common::run("r"), place.ctx());
        use towpath_core::Sink as _;
        sink.open(&ctx, &run).await.unwrap();
        let mut loaded = common::Loaded::default();
        for batch in ["k|n:int\na|1\na|2\nb|1", "k|n:int\na|3\nb|4", "k|n:int\nA|5"] {
            let batch = rows(batch);
            sink.schema(&batch.schema()).await.unwrap();
            loaded.add(sink.write(0, batch.clone()).await.unwrap(), Some(&batch));
        }
        loaded.add(sink.flush().await.unwrap(), None);
        sink.commit(&common::checkpoint(&run, 1, true)).await.unwrap();
        sink.close().await.unwrap();
        assert_eq!(loaded.counts(), counts, "{mode}");
        let found = place.ask(&format!("SELECT k, n FROM {table} ORDER BY k")).await;
        assert_eq!(
            found.iter().map(|row| row.to_lowercase()).collect::<Vec<_>>(),
            expect.map(str::to_lowercase),
            "{mode}"
        );
    }
}

/// A row whose place was taken by one that is refused goes in after all.
async fn refused_rows_take_no_place(place: &Place) {
    use towpath_core::Sink as _;
    for (mode, counts, expect) in [
        // Of a batch the last counts that goes in, and then the first.
        ("insert_new", (3, 1, 3), ["1|7", "2|5", "3|1"]),
        ("upsert", (3, 1, 3), ["1|7", "2|6", "3|1"]),
    ] {
        let table = format!("{}.{mode}", place.schema);
        place
            .ask(&format!(
                "CREATE TABLE {table} (k int NOT NULL PRIMARY KEY, n int NULL CONSTRAINT positive_{mode} CHECK (n > 0))"
            ))
            .await;
        let mut sink = place.sink(json!({"write": mode, "key": ["k"], "table": table}));
        let (run, ctx) = (common::run("r"), place.ctx());
        sink.open(&ctx, &run).await.unwrap();
        let mut loaded = common::Loaded::default();
        for batch in ["k:int|n:int\n1|0\n2|5\n3|1\n3|0", "k:int|n:int\n1|7\n2|6\n1|-1"] {
            let batch = rows(batch);
            sink.schema(&batch.schema()).await.unwrap();
            loaded.add(sink.write(0, batch.clone()).await.unwrap(), Some(&batch));
        }
        loaded.add(sink.flush().await.unwrap(), None);
        sink.commit(&common::checkpoint(&run, 1, true)).await.unwrap();
        sink.close().await.unwrap();
        assert_eq!(place.ask(&format!("SELECT k, n FROM {table} ORDER BY k")).await, expect, "{mode}: {loaded:#?}");
        assert_eq!(loaded.counts(), counts, "{mode}: {loaded:#?}");
    }
}

/// A unique index beside the key: rows whose value is taken are refused by sets, hundreds of them, in every mode; an upsert may move a value from one
/// key to another.
async fn unique_values(place: &Place) {
    // Every row whose number divides by 20 has the value of the row before it.
    let mut many = "id:int|u:int".to_owned();
    (1..=4000).for_each(|id| many.push_str(&format!("\n{id}|{}", if id % 20 == 0 { id - 1 } else { id })));
    let many = rows(&many);
    // To a unique index two nulls are one.
    let mut nulls = "id:int|u:int".to_owned();
    (1..=300).for_each(|id| nulls.push_str(&format!("\n{id}|∅")));
    // What is there, what comes, counts, what is there then.
    let moves = "id:int|u:int\n1|11\n2|10\n4|30\n5|50\n3|30\n6|50\n7|60\n7|61\n8|60";
    for (at, (mode, there, given, counts, expect)) in [
        ("append", "", None, (3800, 0, 200), ""),
        ("replace", "", None, (3800, 0, 200), ""),
        ("insert_new", "", None, (3800, 0, 200), ""),
        ("upsert", "", None, (3800, 0, 200), ""),
        ("append", "", Some(&*nulls), (1, 0, 299), "1|∅"),
        ("append", "(900, NULL)", Some(&*nulls), (0, 0, 300), "900|∅"),
        ("upsert", "(2, NULL)", Some(&*nulls), (1, 0, 299), "2|∅"),
        ("upsert", "(900, NULL)", Some(&*nulls), (0, 0, 300), "900|∅"),
        // 2 takes what 1 had, 4 wants what 3 keeps, 6 what 5 has; of 7 only the last counts.
        ("upsert", "(1, 10), (2, 20), (3, 30)", Some(moves), (6, 1, 2), "1|11 2|10 3|30 5|50 7|61 8|60"),
        // Of a batch the last counts, of 7 and of those that share a value.
        ("insert_new", "(9, 11)", Some(moves), (5, 1, 3), "2|10 3|30 6|50 7|61 8|60 9|11"),
        // 3 is refused, and so keeps what 4 wants.
        ("upsert", "(3, 30), (9, 90)", Some("id:int|u:int\n4|30\n3|90"), (0, 0, 2), "3|30 9|90"),
        // The row before the last counts, when that is refused.
        ("upsert", "(9, 90)", Some("id:int|u:int\n1|5\n1|90"), (1, 0, 1), "1|5 9|90"),
    ]
    .into_iter()
    .enumerate()
    {
        let table = format!("{}.u{at}", place.schema);
        place
            .ask(&format!("CREATE TABLE {table} (id int NOT NULL PRIMARY KEY, u int NULL CONSTRAINT one_{at} UNIQUE)"))
            .await;
        if !there.is_empty() {
            place.ask(&format!("INSERT INTO {table} (id, u) VALUES {there}")).await;
        }
        let mut options = json!({"write": mode, "table": table});
        if matches!(mode, "insert_new" | "upsert") {
            options["key"] = json!(["id"]);
        }
        let given = given.map_or_else(|| many.clone(), rows);
        let loaded = place.load(options, std::slice::from_ref(&given)).await.unwrap();
        assert_eq!(loaded.counts(), counts, "{at} {mode}: {:#?}", &loaded.rejected[..loaded.rejected.len().min(10)]);
        assert!(loaded.rejected.iter().all(|why| why.contains("its value of u is taken")), "{at} {mode}");
        if !expect.is_empty() {
            let found = place.ask(&format!("SELECT id, u FROM {table} ORDER BY id")).await;
            assert_eq!(found.join(" "), expect, "{at} {mode}: {loaded:#?}");
        }
    }
}

/// Rows of an upsert that exchange values of a unique index, or take what another one leaves: all of them go in, in whatever order they come; and with a
/// row among them that only trying finds, that one alone is refused.
async fn values_move(place: &Place) {
    place.ask("CREATE TABLE $.swap (id int NOT NULL PRIMARY KEY, u int NOT NULL CONSTRAINT one_swap UNIQUE); INSERT INTO $.swap VALUES (1, 10), (2, 20)").await;
    let swap = format!("UPDATE {}.swap SET u = CASE id WHEN 1 THEN 20 ELSE 10 END", place.schema);
    let whole = place.console.ask(&swap).await;
    assert!(whole.is_ok() || !place.simulated, "it looks at unique indexes at the end of the statement: {whole:?}");
    if let Err(error) = &whole {
        eprintln!("SKIPPED, all but one: this server looks at unique indexes row by row ({error})");
    }
    let long = "id:int|u:int".to_owned();
    // Each of 500 takes what the next one leaves; and the other way round.
    let ring =
        |step: i64| (0..500).fold(long.clone(), |all, id: i64| format!("{all}\n{id}|{}", (id + step).rem_euclid(500)));
    let there: Vec<String> = (0..500).map(|id| format!("({id}, {id})")).collect();
    let there = there.join(", ");
    let (up, down) = (ring(1), ring(-1));
    let options = json!({"write": "upsert", "key": ["id"], "table": format!("{}.swap", place.schema)});
    let notes = place.plan(options, &rows("id:int|u:int\n1|1").schema()).await;
    assert!(
        matches!(&notes[..], [one] if one.contains("unique index \"one_swap\"") && one.contains("one commit")),
        "{notes:?}"
    );
    for (at, (there, given, counts, expect)) in [
        ("(1, 10), (2, 20)", "id:int|u:int\n1|20\n2|10", (2, 0, 0), "1|20 2|10"),
        ("(1, 10), (2, 20), (3, 30)", "id:int|u:int\n1|20\n2|30\n3|40", (3, 0, 0), "1|20 2|30 3|40"),
        ("(1, 10), (2, 20), (3, 30)", "id:int|u:int\n3|40\n2|30\n1|20", (3, 0, 0), "1|20 2|30 3|40"),
        ("(1, 10), (2, 20), (3, NULL)", "id:int|u:int\n1|∅\n2|10\n3|20", (3, 0, 0), "1|∅ 2|10 3|20"),
        // A new row takes what one leaves.
        ("(1, 10)", "id:int|u:int\n5|10\n1|11", (2, 0, 0), "1|11 5|10"),
        // 4 wants what 3 keeps, and 5 what 4 has.
        (
            "(1, 10), (2, 20), (3, 30), (4, 40)",
            "id:int|u:int\n5|40\n1|20\n2|10\n4|30",
            (2, 0, 2),
            "1|20 2|10 3|30 4|40",
        ),
        (&*there, &*up, (500, 0, 0), ""),
        (&*there, &*down, (500, 0, 0), ""),
    ]
    .into_iter()
    .enumerate()
    .filter(|_| whole.is_ok())
    {
        let table = format!("{}.m{at}", place.schema);
        place
            .ask(&format!("CREATE TABLE {table} (id int NOT NULL PRIMARY KEY, u int NULL CONSTRAINT move_{at} UNIQUE); INSERT INTO {table} (id, u) VALUES {there}"))
            .await;
        let given = rows(given);
        let loaded = place
            .load(json!({"write": "upsert", "key": ["id"], "table": table}), std::slice::from_ref(&given))
            .await
            .unwrap();
        assert_eq!(loaded.counts(), counts, "{at}: {loaded:#?}");
        let found = place.ask(&format!("SELECT id, u FROM {table} ORDER BY id")).await;
        let mut come: Vec<String> = common::text(&given);
        come.sort_by_key(|row| row.split('|').next().unwrap().parse::<i64>().unwrap());
        if expect.is_empty() {
            assert_eq!(found, come, "{at}");
        } else {
            assert_eq!(found.join(" "), expect, "{at}: {loaded:#?}");
        }
    }
    // 100 divided by nothing: nobody can ask beforehand. Half of the others are not without the other half.
    for (at, bad) in [3, 250, 499].into_iter().enumerate() {
        let table = format!("{}.b{at}", place.schema);
        place
            .ask(&format!("CREATE TABLE {table} (id int NOT NULL PRIMARY KEY, u int NOT NULL CONSTRAINT both_{at} UNIQUE, n int NULL, CONSTRAINT bad_{at} CHECK (100 / n > 0)); INSERT INTO {table} (id, u) VALUES {there}"))
            .await;
        let mut given = "id:int|u:int|n:int".to_owned();
        // `bad` keeps its value; the others change places in pairs from the two ends.
        let others: Vec<i64> = (0..500).filter(|id| *id != bad).collect();
        for (at, id) in others.iter().enumerate() {
            let from = if whole.is_ok() { others[others.len() - 1 - at] } else { *id };
            given.push_str(&format!("\n{id}|{from}|1"));
        }
        given.push_str(&format!("\n{bad}|{bad}|0"));
        let loaded =
            place.load(json!({"write": "upsert", "key": ["id"], "table": table}), &[rows(&given)]).await.unwrap();
        assert_eq!(loaded.counts(), (499, 0, 1), "{bad}: {loaded:#?}");
        assert!(
            loaded.rejected[0].contains("error ") && loaded.rejected[0].ends_with(&format!("[{bad}|{bad}|0]")),
            "{loaded:#?}"
        );
        let wrong = place.ask(&format!("SELECT COUNT(*) FROM {table} WHERE n IS NULL")).await;
        assert_eq!(wrong, ["1"], "{bad}");
    }
}

/// Triggers: one that raises an error or takes everything back costs the row that it refuses, and the swap of `replace` as a whole; one that writes
/// elsewhere is not counted; one that takes the place of the statement gets the rows.
async fn triggers(place: &Place) {
    if place.simulated {
        return;
    }
    let table = "id int NOT NULL PRIMARY KEY, qty int NULL";
    let bad = "IF EXISTS (SELECT 1 FROM inserted WHERE qty < 0)";
    let given = rows("id:int|qty:int\n1|1\n2|-1\n3|1\n4|-4\n5|5");
    for (name, body) in [
        ("raises", format!("{bad} THROW 50001, N'A quantity is negative.', 1")),
        (
            "raises_softly",
            format!("{bad} BEGIN RAISERROR(N'A quantity is negative.', 16, 1); ROLLBACK TRANSACTION; END"),
        ),
        ("takes_back", format!("{bad} ROLLBACK TRANSACTION")),
    ] {
        let of = format!("{}.{name}", place.schema);
        place.ask(&format!("CREATE TABLE {of} ({table}); INSERT INTO {of} VALUES (7, 7)")).await;
        place.ask(&format!("CREATE TRIGGER $.tr_{name} ON {of} AFTER INSERT, UPDATE AS BEGIN {body} END")).await;
        let error =
            place.load(json!({"write": "replace", "table": of}), std::slice::from_ref(&given)).await.unwrap_err();
        let hint = error.what_to_do().unwrap_or_default();
        assert!(hint.contains("is as it was") && hint.contains(&format!("tr_{name}")), "{name}: {error}; {hint}");
        assert_eq!(place.ask(&format!("SELECT id, qty FROM {of}")).await, ["7|7"], "{name}");
        let notes = place.plan(json!({"write": "replace", "table": of}), &given.schema()).await;
        assert!(notes.iter().any(|note| note.contains(&format!("tr_{name}"))), "{notes:?}");
        for (mode, key, counts) in [("append", json!(null), (3, 0, 2)), ("upsert", json!(["id"]), (3, 0, 2))] {
            let mut options = json!({"write": mode, "table": of});
            if !key.is_null() {
                options["key"] = key;
            }
            let loaded = place.load(options, std::slice::from_ref(&given)).await.unwrap();
            assert_eq!(loaded.counts(), counts, "{name} {mode}: {loaded:#?}");
            assert!(loaded.rejected.iter().all(|why| why.contains("error ") && why.contains("|-")), "{loaded:#?}");
            assert_eq!(
                place.ask(&format!("SELECT id FROM {of} ORDER BY id")).await,
                ["1", "3", "5", "7"],
                "{name} {mode}"
            );
        }
    }
    // What a trigger writes elsewhere, and answers, is none of ours.
    place.ask(&format!("CREATE TABLE $.audited ({table}); CREATE TABLE $.audit (id int NULL)")).await;
    place
        .ask("CREATE TRIGGER $.tr_audit ON $.audited AFTER INSERT, UPDATE AS BEGIN INSERT INTO $.audit SELECT id FROM inserted; INSERT INTO $.audit SELECT id FROM inserted; END")
        .await;
    let of = format!("{}.audited", place.schema);
    for (mode, given, counts) in [
        ("insert_new", "id:int|qty:int\n1|1\n2|1\n3|1", (3, 0, 0)),
        ("insert_new", "id:int|qty:int\n1|1\n2|1\n3|1\n4|1", (1, 3, 0)),
        ("upsert", "id:int|qty:int\n1|2\n9|9", (2, 0, 0)),
    ] {
        let loaded = place.load(json!({"write": mode, "key": ["id"], "table": of}), &[rows(given)]).await.unwrap();
        assert_eq!(loaded.counts(), counts, "{mode}: {loaded:#?}");
    }
    assert_eq!(place.ask("SELECT COUNT(*) FROM $.audit").await, ["12"]);
    // In place of the statement.
    place.ask(&format!("CREATE TABLE $.given ({table}); CREATE TABLE $.taken ({table})")).await;
    place
        .ask("CREATE TRIGGER $.tr_instead ON $.given INSTEAD OF INSERT AS BEGIN INSERT INTO $.taken SELECT id, qty * 10 FROM inserted; END")
        .await;
    let options = json!({"write": "append", "table": format!("{}.given", place.schema)});
    let given = rows("id:int|qty:int\n1|1\n2|2");
    let notes = place.plan(options.clone(), &given.schema()).await;
    assert!(notes.iter().any(|note| note.contains("tr_instead") && note.contains("INSTEAD OF")), "{notes:?}");
    let loaded = place.load(options, &[given]).await.unwrap();
    assert_eq!(loaded.rejected.len(), 0, "{loaded:#?}");
    assert_eq!(place.ask("SELECT id, qty FROM $.taken ORDER BY id").await, ["1|10", "2|20"]);
    assert_eq!(place.ask("SELECT COUNT(*) FROM $.given").await, ["0"]);
}

/// A key whose collation is not the database's: what is one to the one is two to the other, and the two are compared without a conflict.
async fn collations(place: &Place) {
    let given = rows("name|n:int|tag\na|1|x\nA|2|X\nb|3|y\nB|4|Y");
    for (at, (of, mode, counts, expect)) in [
        ("Latin1_General_CS_AS", "upsert", (4, 0, 0), "A=2 B=4 a=1 b=3"),
        ("Latin1_General_BIN2", "insert_new", (4, 0, 0), "A=2 B=4 a=1 b=3"),
        ("Latin1_General_CI_AS", "upsert", (2, 2, 0), "A=2 B=4"),
    ]
    .into_iter()
    .enumerate()
    {
        let table = format!("{}.c{at}", place.schema);
        place
            .ask(&format!(
                "CREATE TABLE {table} (name nvarchar(20) COLLATE {of} NOT NULL CONSTRAINT c{at}_key PRIMARY KEY, n int NULL, \
                 tag varchar(20) COLLATE {of} NULL CONSTRAINT c{at}_tag UNIQUE)"
            ))
            .await;
        let options = json!({"write": mode, "key": ["name"], "table": table});
        let loaded = place.load(options.clone(), std::slice::from_ref(&given)).await.unwrap();
        assert_eq!(loaded.counts(), counts, "{of}: {loaded:#?}");
        let mut found = place.ask(&format!("SELECT name + N'=' + CONVERT(nvarchar(9), n) FROM {table}")).await;
        found.sort();
        assert_eq!(found.join(" "), expect, "{of}");
        // Again, against what is there, and one whose tag is taken in this collation.
        let loaded = place.load(options, &[rows("name|n:int|tag\nA|5|X\nz|6|X")]).await.unwrap();
        let changed = u64::from(mode == "upsert");
        assert_eq!(loaded.counts(), (changed, 1 - changed, 1), "{of}: {loaded:#?}");
    }
}

/// Rows without a column leave it alone, and are not mixed with those that have it where that would be another thing than null.
async fn columns_come_and_go(place: &Place) {
    use towpath_core::Sink as _;
    place.ask("CREATE TABLE $.t (id int NOT NULL PRIMARY KEY, a int NULL, b int NULL)").await;
    place.ask("INSERT INTO $.t VALUES (1, 1, 1), (2, 2, 2)").await;
    let options = json!({"write": "upsert", "key": ["id"]});
    let (with, without) = (rows("id:int|a:int|b:int\n1|10|10"), rows("id:int|a:int\n2|20\n3|30"));
    place.load(options.clone(), &[with.clone(), without.clone()]).await.unwrap();
    assert_eq!(place.ask("SELECT id, a, b FROM $.t ORDER BY id").await, ["1|10|10", "2|20|2", "3|30|∅"]);
    let mut sink = place.sink(options);
    sink.open(&place.ctx(), &common::run("r2")).await.unwrap();
    sink.schema(&with.schema()).await.unwrap();
    sink.write(0, with).await.unwrap();
    sink.schema(&without.schema()).await.unwrap();
    let error = sink.write(1, without).await.unwrap_err();
    sink.close().await.unwrap();
    assert!(error.to_string().contains("some of the rows have a column b"), "{error}");
}

/// Names that need quoting, values longer than the driver's bulk load takes, an identity, a computed column, a column more.
async fn odd_tables(place: &Place) {
    place
        .ask(
            "CREATE TABLE $.[Größe der Dinge] (no int IDENTITY(1,1) NOT NULL, [der Name] nvarchar(max) NULL, [Länge] varbinary(max) NULL, \
             twice AS (no * 2), [select] int NULL DEFAULT 7)",
        )
        .await;
    let table = format!("{}.[Größe der Dinge]", place.schema);
    let long = "ä🚣".repeat(40_000);
    let names = arrow_array::StringArray::from(vec![Some("short"), Some(&long), None, Some("")]);
    let bytes = vec![1u8; 200_000];
    let bytes = arrow_array::BinaryArray::from(vec![Some(b"".as_slice()), Some(&bytes), None, Some(b"\x00\xff")]);
    let columns: Vec<(&str, arrow_array::ArrayRef)> =
        vec![("der Name", std::sync::Arc::new(names)), ("Länge", std::sync::Arc::new(bytes))];
    let given = arrow_array::RecordBatch::try_from_iter(columns).unwrap();
    let loaded = place.load(json!({"write": "append", "table": table}), std::slice::from_ref(&given)).await.unwrap();
    assert_eq!(loaded.counts(), (4, 0, 0), "{loaded:?}");
    let read = place.read(json!({"query": format!("SELECT [der Name], [Länge] FROM {table}")})).await;
    let mut read: Vec<String> = read.iter().flat_map(common::text).collect();
    let mut expect = common::text(&given);
    read.sort();
    expect.sort();
    assert!(read == expect, "what is long comes back as it went");
    assert_eq!(
        place
            .ask(
                &format!("SELECT COUNT(*), COUNT(DISTINCT no), MAX(twice), MIN([select]) FROM {table}")
                    .replace("$.", "")
            )
            .await,
        ["4|4|8|7"]
    );
    // With values of one's own for the identity, and for a column that is not there yet.
    place.ask("CREATE TABLE $.t (no int IDENTITY(1,1) NOT NULL, twice AS (no * 2), name nvarchar(10) NULL)").await;
    let more = rows("no:int|name|new one:float\n77|x|1.5");
    let refused = place.load(json!({"write": "append"}), std::slice::from_ref(&more)).await.unwrap_err();
    assert!(refused.to_string().contains("has no column new one"), "{refused}");
    let loaded =
        place.load(json!({"write": "append", "add_columns": true}), std::slice::from_ref(&more)).await.unwrap();
    assert_eq!(loaded.counts(), (1, 0, 0));
    assert_eq!(place.ask("SELECT no, twice, [new one] FROM $.t").await, ["77|154|1.5"]);
    let computed = rows("twice:int\n4");
    let refused = place.load(json!({"write": "append"}), &[computed]).await.unwrap_err();
    assert!(refused.to_string().contains("computed by the server"), "{refused}");
}

/// A table with rows and no hash column gets one on request, and its rows are known from then on.
async fn adoption(place: &Place) {
    place.ask("CREATE TABLE $.t (id int NOT NULL, name nvarchar(20) NULL, price decimal(8,2) NULL)").await;
    place.ask("INSERT INTO $.t VALUES (1, N'a', 1.5), (2, N'b', NULL), (3, NULL, 100)").await;
    let given = rows("id:int|name|price\n1|a|1.50\n2|b|∅\n3|∅|100.00\n4|d|7.00");
    let options = json!({"write": "insert_new", "key": "row_hash"});
    let refused = place.load(options.clone(), std::slice::from_ref(&given)).await.unwrap_err();
    assert!(refused.to_string().contains("has no column row_hash"), "{refused}");
    let options = json!({"write": "insert_new", "key": "row_hash", "add_columns": true});
    let notes = place.plan(options.clone(), &given.schema()).await;
    assert!(notes.iter().any(|note| note.contains("hashes the rows that are there")), "{notes:?}");
    let loaded = place.load(options.clone(), std::slice::from_ref(&given)).await.unwrap();
    assert_eq!(loaded.counts(), (1, 3, 0), "{loaded:?}");
    let loaded = place.load(options.clone(), std::slice::from_ref(&given)).await.unwrap();
    assert_eq!(loaded.counts(), (0, 4, 0), "{loaded:?}");
    assert_eq!(
        place.ask("SELECT id, name, price FROM $.t ORDER BY id").await,
        ["1|a|1.50", "2|b|∅", "3|∅|100.00", "4|d|7.00"]
    );
    assert_eq!(
        place
            .ask("SELECT COUNT(*) FROM $.t WHERE row_hash IS NULL OR COL_LENGTH(N'$.t', N'towpath_no') IS NOT NULL")
            .await,
        ["0"]
    );
    // Rows that are there twice cannot have a key.
    place.ask("CREATE TABLE $.u (no int IDENTITY(1,1), id int NULL); INSERT INTO $.u (id) VALUES (1), (2), (1)").await;
    let options =
        json!({"write": "insert_new", "key": "row_hash", "add_columns": true, "table": format!("{}.u", place.schema)});
    let refused = place.load(options.clone(), &[rows("id:int\n1")]).await.unwrap_err();
    assert!(refused.to_string().contains("1 rows of table"), "{refused}");
    // And the table is left as it was.
    for (table, columns) in [("u", "no id"), ("v", "id name")] {
        if table == "v" {
            place.ask("CREATE TABLE $.v (id int NULL, name nvarchar(9) NULL); INSERT INTO $.v VALUES (1, N'a'), (1, N'A'), (1, N'a')").await;
            let mut options = options.clone();
            options["table"] = json!(format!("{}.v", place.schema));
            let refused = place.load(options, &[rows("id:int|name\n1|a")]).await.unwrap_err();
            assert!(refused.to_string().contains("1 rows of table"), "{refused}");
        }
        let sql = format!("SELECT name FROM sys.columns WHERE object_id = OBJECT_ID(N'$.{table}') ORDER BY column_id");
        assert_eq!(place.ask(&sql).await.join(" "), columns);
    }
    assert_eq!(place.staging().await, [""; 0]);
}

/// What would end a run is told by its plan, in the same words, and nothing is made or altered before it is found out.
async fn plans(place: &Place) {
    use std::fmt::Write as _;
    place
        .ask(
            "CREATE TABLE $.plain (id int NOT NULL, name nvarchar(20) NULL); \
             CREATE TABLE $.hashed (a int NULL, b int NULL, row_hash binary(16) NOT NULL CONSTRAINT hashed_key PRIMARY KEY NONCLUSTERED); \
             CREATE TABLE $.empty (a int NULL); \
             CREATE TABLE $.picky (id int NOT NULL CONSTRAINT picky_key PRIMARY KEY, must int NOT NULL); \
             CREATE TABLE $.computed (id int NOT NULL, twice AS (id * 2)); \
             CREATE TABLE $.parent (id int NOT NULL CONSTRAINT parent_key PRIMARY KEY, above int NULL CONSTRAINT above REFERENCES $.parent (id)); \
             CREATE TABLE $.child (parent int NULL CONSTRAINT child_of REFERENCES $.parent (id)); \
             INSERT INTO $.plain VALUES (1, N'a'), (1, N'b'); INSERT INTO $.hashed VALUES (1, 2, 0x00112233445566778899AABBCCDDEEFF); \
             INSERT INTO $.parent VALUES (1, NULL); INSERT INTO $.child VALUES (1)",
        )
        .await;
    place.ask("CREATE VIEW $.seen AS SELECT id FROM $.plain").await;
    let columns = "SELECT COUNT(*) FROM sys.columns c JOIN sys.objects o ON o.object_id = c.object_id JOIN sys.schemas s ON s.schema_id = o.schema_id \
                   WHERE s.name = '$' AND o.name NOT LIKE 'towpath%'";
    let before = place.ask(columns).await;
    let mut out = String::new();
    for (table, options, given) in [
        ("none", json!({"write": "append", "create": false}), "id:int\n1"),
        ("none", json!({"write": "upsert", "key": ["idd"]}), "id:int|name\n1|a"),
        ("none", json!({"write": "append"}), "a:int|A:int\n1|1"),
        ("none", json!({"write": "insert_new", "key": "row_hash", "known_keys_order": "at"}), "id:int\n1"),
        ("none", json!({"write": "insert_new", "key": "row_hash"}), "id:int|row_hash:int\n1|1"),
        ("plain", json!({"write": "upsert", "key": ["id"], "create": false}), "id:int|name\n1|a"),
        ("plain", json!({"write": "upsert", "key": ["idd"]}), "id:int|name\n1|a"),
        ("plain", json!({"write": "upsert", "key": ["id"]}), "id:int|name\n1|a"),
        ("plain", json!({"write": "insert_new", "key": "row_hash"}), "id:int|name\n1|a"),
        ("plain", json!({"write": "insert_new", "key": "row_hash", "add_columns": true}), "id:int|more\n1|a"),
        ("plain", json!({"write": "append"}), "id:int|more\n1|a"),
        ("hashed", json!({"write": "insert_new", "key": "row_hash", "add_columns": true}), "a:int|b:int|c:int\n1|2|3"),
        ("empty", json!({"write": "insert_new", "key": "row_hash", "known_keys_order": "at"}), "a:int\n1"),
        (
            "empty",
            json!({"write": "insert_new", "key": "row_hash", "add_columns": true, "known_keys_order": "at"}),
            "a:int|c:int\n1|2",
        ),
        ("picky", json!({"write": "append"}), "id:int\n1"),
        ("computed", json!({"write": "append"}), "id:int|twice:int\n1|2"),
        ("parent", json!({"write": "replace"}), "id:int\n2"),
        ("seen", json!({"write": "append"}), "id:int\n1"),
        ("nosch.t", json!({"write": "append"}), "id:int\n1"),
    ] {
        let shown = |text: String| text.replace(&place.schema, "schema").replace(&place.url, "URL");
        let mut full = options.clone();
        full["table"] = json!(if table.contains('.') { table.to_owned() } else { format!("{}.{table}", place.schema) });
        let given = rows(given);
        let notes = place.plan(full.clone(), &given.schema()).await;
        let error = place.load(full, std::slice::from_ref(&given)).await.unwrap_err();
        let _ = writeln!(out, "{table} {options}");
        notes.iter().for_each(|note| {
            let _ = writeln!(out, "  plan: {}", shown(note.clone()));
        });
        let hint = error.what_to_do().unwrap_or("-").to_owned();
        if notes.iter().any(|note| note.contains("the run will fail:")) {
            assert!(
                notes.len() == 1 && notes[0].contains(error.message()) && notes[0].ends_with(&hint),
                "{table} {options}: {notes:?}, {error}"
            );
        } else {
            // What only its rows can tell.
            let _ = writeln!(out, "  run: {}", shown(format!("{}; {hint}", error.message())));
        }
    }
    assert_eq!(place.ask(columns).await, before, "nothing was made or altered");
    // A table without rows takes any column.
    let (mut options, given) =
        (json!({"write": "insert_new", "key": "row_hash", "add_columns": true}), rows("a:int|c:int\n1|2"));
    options["table"] = json!(format!("{}.empty", place.schema));
    let notes = place.plan(options.clone(), &given.schema()).await.join("; ").replace(&place.schema, "schema");
    assert_eq!(
        notes,
        "adds to table [schema].[empty]: c bigint, row_hash binary(16); makes a unique index on row_hash"
    );
    assert_eq!(place.load(options, std::slice::from_ref(&given)).await.unwrap().counts(), (1, 0, 0));
    let address = place.url.rsplit_once('@').unwrap().1.split('?').next().unwrap();
    insta::assert_snapshot!("plans", out.replace(address, "SERVER"));
}

/// Text in a code page: what has no place in it is refused, not replaced by question marks.
async fn code_pages(place: &Place) {
    place.ask("CREATE TABLE $.t (id int NOT NULL, name varchar(5) NULL)").await;
    let given = rows("id:int|name\n1|abcde\n2|äöü\n3|日本\n4|abcdef\n5|äöüäöü");
    let loaded = place.load(json!({"write": "append"}), &[given]).await.unwrap();
    let found = place.ask("SELECT id, name FROM $.t ORDER BY id").await;
    assert_eq!(found, ["1|abcde", "2|äöü"], "{loaded:#?}");
    assert_eq!(loaded.counts(), (2, 0, 3), "{loaded:#?}");
}

/// A process that was overtaken commits nothing.
async fn fences(place: &Place) {
    overtaken(place, false).await;
}

/// Nor does one that is overtaken in the middle of its transaction, which holds nobody up. (The simulator has one writer at a time.)
async fn fences_of_the_flushed(place: &Place) {
    overtaken(place, true).await;
}

async fn overtaken(place: &Place, flushed: bool) {
    use towpath_core::Sink as _;
    let (batch, run, ctx) = (rows("id:int\n1"), common::run("r"), place.ctx());
    let mut first = place.sink(json!({"write": "append"}));
    assert_eq!(common::held(&first.open(&ctx, &run).await.unwrap()), None);
    first.schema(&batch.schema()).await.unwrap();
    first.write(0, batch.clone()).await.unwrap();
    if flushed {
        first.flush().await.unwrap();
    }
    let mut second = place.sink(json!({"write": "append"}));
    assert_eq!(common::held(&second.open(&ctx, &run).await.unwrap()), None);
    let error = first.commit(&common::checkpoint(&run, 1, true)).await.unwrap_err();
    assert_eq!(error.kind(), towpath_core::ErrorKind::Conflict, "{error}");
    first.close().await.unwrap();
    assert_eq!(place.ask("SELECT COUNT(*) FROM $.t").await, ["0"]);
    second.schema(&batch.schema()).await.unwrap();
    second.write(0, batch).await.unwrap();
    second.flush().await.unwrap();
    second.commit(&common::checkpoint(&run, 1, true)).await.unwrap();
    second.close().await.unwrap();
    assert_eq!(place.ask("SELECT COUNT(*) FROM $.t").await, ["1"]);
    let mut third = place.sink(json!({"write": "append"}));
    assert_eq!(common::held(&third.open(&ctx, &run).await.unwrap()), Some(1));
    third.close().await.unwrap();
    assert_eq!(place.staging().await, [""; 0]);
}

/// Values of every type, from text and from their own, into tables as they are.
async fn types(place: &Place) {
    let given = rows(
        "id:int|value\n1|1\n2|0\n3|∅\n4|-1\n5|255\n6|300\n7|1.5\n8|2026-01-31\n9|2026-01-31 23:59:59.9999999\n10|10:20:30.1234567\n\
         11|6F9619FF-8B86-D011-B42D-00C04FC964FF\n12|true\n13|99999999999999999999999999999999999999\n14|922337203685477.5807\n15|\n16|<a b=\"1\"/>\n17|<a\n18|1753-01-01\n19|2026-01-31T10:00:00Z",
    );
    let mut out = String::new();
    for of in [
        "bit",
        "tinyint",
        "smallint",
        "int",
        "bigint",
        "decimal(10,2)",
        "decimal(38,0)",
        "numeric(18,4)",
        "money",
        "smallmoney",
        "real",
        "float",
        "date",
        "time(0)",
        "time(3)",
        "datetime",
        "smalldatetime",
        "datetime2(0)",
        "datetime2(3)",
        "datetimeoffset(3)",
        "nchar(6)",
        "varchar(10)",
        "nvarchar(max)",
        "uniqueidentifier",
        "xml",
    ] {
        let name = of.replace(['(', ')', ','], "_");
        place.ask(&format!("CREATE TABLE $.t_{name} (id int NOT NULL, value {of} NULL)")).await;
        let table = format!("{}.t_{name}", place.schema);
        let loaded =
            place.load(json!({"write": "append", "table": table}), std::slice::from_ref(&given)).await.unwrap();
        let read = place.read(json!({ "table": table })).await;
        let mut found: Vec<String> = read.iter().flat_map(common::text).collect();
        found.sort_by_key(|row| row.split('|').next().unwrap().parse::<u32>().unwrap());
        assert_eq!(found.len() + loaded.rejected.len(), given.num_rows(), "{of}: {loaded:#?}");
        out.push_str(&format!("{of}: {}\n", found.join("  ")));
    }
    insta::assert_snapshot!("types", out);
}

type Case = fn(&Place) -> BoxFuture<'_, ()>;

/// All cases, each in a schema of its own.
const CASES: [(&str, Case); 17] = [
    ("modes", |place| Box::pin(modes(place))),
    ("bad_rows", |place| Box::pin(bad_rows(place))),
    ("only_the_server_knows", |place| Box::pin(only_the_server_knows(place))),
    ("keys", |place| Box::pin(keys(place))),
    ("refused_rows_take_no_place", |place| Box::pin(refused_rows_take_no_place(place))),
    ("unique_values", |place| Box::pin(unique_values(place))),
    ("values_move", |place| Box::pin(values_move(place))),
    ("triggers", |place| Box::pin(triggers(place))),
    ("collations", |place| Box::pin(collations(place))),
    ("columns_come_and_go", |place| Box::pin(columns_come_and_go(place))),
    ("odd_tables", |place| Box::pin(odd_tables(place))),
    ("adoption", |place| Box::pin(adoption(place))),
    ("plans", |place| Box::pin(plans(place))),
    ("code_pages", |place| Box::pin(code_pages(place))),
    ("fences", |place| Box::pin(fences(place))),
    ("fences_of_the_flushed", |place| Box::pin(fences_of_the_flushed(place))),
    ("types", |place| Box::pin(types(place))),
];

/// Runs those whose name has the text of TOWPATH_ONLY in it.
async fn all(server: &Server) {
    let only = std::env::var("TOWPATH_ONLY").unwrap_or_default();
    for (name, case) in CASES.iter().filter(|(name, _)| name.contains(&only)) {
        if server.simulator.is_some() && *name == "fences_of_the_flushed" {
            continue;
        }
        eprintln!("{name} …");
        case(&server.place().await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_simulator() {
    all(&Server::simulated().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_server() {
    if let Some(server) = Server::real().await {
        all(&server).await;
    }
}
