//! Dead letters through the program: what is still open, what was sent again, what newer data has made pointless.

use serde_json::Value;

use crate::kit::*;

const PIPELINE: &str = "
sources:
  file: { type: csv, path: p.csv, columns: { id: int64, qty: int64 } }
sinks:
  table: { type: sqlite, inputs: [file], path: out.db, table: t, write: upsert, key: [id] }
";

/// What differs from run to run, taken out.
macro_rules! assert_said {
    ($name:expr, $text:expr) => {
        insta::with_settings!({ filters => vec![
            (r"\d{8}T\d{9}Z-[0-9a-f]{8}", "[run]"),
            (r"/\S*/state/", "[dir]/state/"),
            (r"\d+\.\d kB", "[size]"),
        ] }, { insta::assert_snapshot!($name, $text) })
    };
}

fn database(place: &Place, sql: &str) {
    rusqlite::Connection::open(place.path("out.db")).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn what_is_open_is_told_from_what_is_done() {
    let place = Place::new();
    let came = |args: &[&str], code| {
        let ran = place.towpath(args).expect(code);
        format!("$ towpath {}\n{}{}\n", args.join(" "), ran.out, ran.err)
    };
    let said = |args: &[&str]| came(args, 0);
    let refuse = "CREATE TRIGGER few BEFORE INSERT ON t WHEN NEW.qty < 1 BEGIN SELECT RAISE(ABORT, 'too few'); END";
    database(&place, &format!("CREATE TABLE t (id INTEGER PRIMARY KEY, qty INTEGER); {refuse}"));
    place.write("p.yaml", PIPELINE);
    place.write("p.csv", "id,qty\n1,0\n2,0\n3,1\nx,1\n");
    place.run("p.yaml").expect(0);
    assert_said!("letters_first", [said(&["dlq", "list", "p.yaml"]), said(&["dlq", "show", "p.yaml"])].concat());

    // A file that has 1 as it should be, and no 2: both letters of the table have been overtaken. 4 is new.
    place.write("p.csv", "id,qty\n1,5\n4,0\n5,0\n");
    place.run("p.yaml").expect(0);
    assert_said!("letters_superseded", [said(&["dlq", "list", "p.yaml"]), said(&["dlq", "show", "p.yaml"])].concat());

    // Sent again while the cause is there: refused again, and open as letters of their own.
    let replayed = came(&["dlq", "replay", "p.yaml"], 3);
    assert_said!(
        "letters_refused_again",
        [replayed, said(&["dlq", "list", "p.yaml"]), said(&["dlq", "show", "p.yaml"])].concat()
    );
    // What sent them again is no pipeline that anybody has written.
    for (all, own) in [(said(&["status"]), "\np "), (said(&["state", "show"]), "\npipeline p\n")] {
        assert!(all.contains(own) && !all.contains("replay"), "{all}");
    }
    let shown = place.towpath(&["dlq", "show", "p.yaml", "--json", "-n", "100"]).expect(0).out;
    let mut standings: Vec<String> = shown
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|letter| {
            format!("{} {} {}", letter["standing"].as_str().unwrap(), letter["component"], letter["row"]["id"])
        })
        .collect();
    standings.sort();
    let expect = [
        "kept \"file\" null",
        "open \"table\" 4",
        "open \"table\" 5",
        "replayed \"table\" 4",
        "replayed \"table\" 5",
        "superseded \"table\" 1",
        "superseded \"table\" 2",
    ];
    assert_eq!(standings, expect);

    // And when it is mended.
    database(&place, "DROP TRIGGER few");
    place.towpath(&["dlq", "replay", "p.yaml"]).expect(0);
    let list = said(&["dlq", "list", "p.yaml"]);
    let ends = [said(&["dlq", "show", "p.yaml", "-n", "1"]), said(&["dlq", "show", "p.yaml", "-n", "2", "--oldest"])];
    assert_said!("letters_mended", [&*list, &ends.concat()].concat());
    assert_eq!(place.rows("out.db", "SELECT id, qty FROM t ORDER BY id"), ["1|5", "3|1", "4|0", "5|0"]);
    let again = place.towpath(&["dlq", "replay", "p.yaml"]).expect(0);
    assert!(again.out.starts_with("table: 2 rows left out: newer data has come since\n"), "{}", again.out);
}

/// Two letters of one key in one commit: the older one is not sent, now or ever.
#[test]
fn of_one_key_the_newest_letter_counts() {
    let place = Place::new();
    let refuse = "CREATE TRIGGER few BEFORE INSERT ON t WHEN NEW.qty < 1 BEGIN SELECT RAISE(ABORT, 'too few'); END";
    database(&place, &format!("CREATE TABLE t (id INTEGER PRIMARY KEY, qty INTEGER); {refuse}"));
    place.write("p.yaml", &PIPELINE.replace("p.csv", "p*.csv"));
    place.write("p1.csv", "id,qty\n1,-1\n");
    place.write("p2.csv", "id,qty\n1,-2\n");
    place.run("p.yaml").expect(0);
    database(&place, "DROP TRIGGER few");
    for _ in 0..2 {
        place.towpath(&["dlq", "replay", "p.yaml"]).expect(0);
        assert_eq!(place.rows("out.db", "SELECT id, qty FROM t"), ["1|-2"]);
    }
}

/// Put away: nothing is deleted, nothing is sent, nothing is left to be done.
#[test]
fn letters_are_put_away() {
    let place = Place::new();
    let refuse = "CREATE TRIGGER few BEFORE INSERT ON t WHEN NEW.qty < 1 BEGIN SELECT RAISE(ABORT, 'too few'); END";
    database(&place, &format!("CREATE TABLE t (id INTEGER PRIMARY KEY, qty INTEGER); {refuse}"));
    place.write("p.yaml", PIPELINE);
    place.write("p.csv", "id,qty\n1,0\n2,0\n3,1\nx,1\n");
    place.run("p.yaml").expect(0);
    let files = place.letters("p");
    let letters = |args: &[&str]| place.towpath(&[&["dlq"], args].concat()).expect(0).out;
    // Another run's, another reason's, another's: none of them.
    for filter in [["--run", "r0"], ["--reason", "too many"], ["--component", "nobody"]] {
        let out = letters(&[&["discard", "p.yaml"][..], &filter].concat());
        assert_eq!(out, "no dead letters to discard\n", "{filter:?}");
    }
    assert_eq!(
        letters(&["discard", "p.yaml", "--component", "file"]),
        "1 row discarded: they stay in their files, and are not sent again\n"
    );
    let (all, open) = (letters(&["list", "p.yaml"]), letters(&["list", "p.yaml", "--open"]));
    assert!(all.contains("is not an int64") && all.contains("\n1 row discarded: not sent again\n"), "{all}");
    assert!(!open.contains("is not an int64") && open.contains("too few"), "{open}");
    let discarded: Value = serde_json::from_str(&letters(&["discard", "p.yaml", "--json", "--reason", "too"])).unwrap();
    assert_eq!(discarded, serde_json::json!({ "pipeline": "p", "discarded": 2, "not_settled": 0 }));
    let open = letters(&["list", "p.yaml", "--open"]);
    assert!(open.starts_with("nothing is left to be done about the dead letters in "), "{open}");
    assert_eq!(letters(&["show", "p.yaml"]).matches("[discarded]").count(), 3);
    // The cause is gone, and what was put away is not sent all the same; what comes later stands for itself.
    database(&place, "DROP TRIGGER few");
    let replayed = letters(&["replay", "p.yaml"]);
    assert_eq!(replayed, "no dead letters to send again\n");
    assert_eq!(place.rows("out.db", "SELECT id, qty FROM t"), ["3|1"]);
    assert_eq!(place.letters("p"), files);
    // Somebody removes the files: those that begin anew are none of those that were put away.
    std::fs::remove_dir_all(place.path("state/dead_letters/p")).unwrap();
    place.write("p.csv", "id,qty\ny,1\n");
    place.run("p.yaml").expect(0);
    assert!(letters(&["list", "p.yaml", "--open"]).contains("'y' is not an int64"));
}

/// What is wrong with the pipeline now does not keep its dead letters from being looked at.
#[test]
fn letters_of_a_pipeline_that_is_wrong_are_shown() {
    let place = Place::new();
    place.write("p.csv", "id,qty\nx,1\n");
    place.write("p.yaml", PIPELINE);
    place.run("p.yaml").expect(0);
    place.write("p.yaml", &PIPELINE.replace("inputs: [file]", "inputs: [nobody]"));
    for command in ["list", "show"] {
        let ran = place.towpath(&["dlq", command, "p.yaml"]);
        assert!(ran.out.contains("int64") || ran.code() == 2, "{command}: {ran:#?}");
    }
}
