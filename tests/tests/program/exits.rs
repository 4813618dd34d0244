//! Exit codes, what comes with them, and how the next run goes on.

use serde_json::{Value, json};
use towpath_testkit::report_server::{Fault, On, Report};

use crate::kit::*;

const FILE: &str = "sources:
  file: { type: csv, path: in.csv, columns: { id: int64 } }
transforms:
  fresh: { type: dedupe, inputs: [file], key: all_columns }
sinks:
  table: { type: sqlite, inputs: [fresh], path: out.db, table: t, write: append }
";

/// So many rows, with a bad one in ten.
fn rows(count: u64) -> String {
    let bad = |id: u64| if id.is_multiple_of(10) { "x" } else { "" };
    (1..=count).fold("id,name\n".to_owned(), |text, id| format!("{text}{}{id},n{id}\n", bad(id)))
}

/// The keys and types of the last line, whatever the run came to.
#[track_caller]
fn check_report(ran: &Ran, status: &str) -> Value {
    let report = ran.report();
    let keys: Vec<&String> = report.as_object().unwrap().keys().collect();
    let expect = [
        "pipeline",
        "run_id",
        "status",
        "sources",
        "transforms",
        "sinks",
        "dead_letters",
        "elapsed_seconds",
        "peak_memory_bytes",
        "error",
    ];
    assert_eq!(keys, expect);
    let inside = |part: &str, expect: &[&str]| {
        for (name, figures) in report[part].as_object().unwrap() {
            assert_eq!(figures.as_object().unwrap().keys().collect::<Vec<_>>(), expect, "{part}.{name}");
            assert!(figures.as_object().unwrap().values().all(Value::is_u64));
        }
    };
    inside("sources", &["rows", "bytes", "batches", "rejected"]);
    inside("transforms", &["rows_in", "rows_out", "rejected"]);
    inside("sinks", &["written", "skipped", "rejected"]);
    assert_eq!(report["status"], status);
    assert!(
        report["elapsed_seconds"].is_f64() && report["peak_memory_bytes"].is_u64() && report["dead_letters"].is_u64()
    );
    assert_eq!(report["error"].is_null(), matches!(status, "completed" | "cancelled"), "{}", report["error"]);
    report
}

#[test]
fn done() {
    let place = Place::new();
    place.write("p.yaml", FILE);
    place.write("in.csv", &rows(100));
    let ran = place.run("p.yaml").expect(0);
    let report = check_report(&ran, "completed");
    assert_eq!(report["pipeline"], "p");
    assert_eq!(report["sources"]["file"]["rows"], 100, "refused ones were read too");
    assert_eq!(report["sources"]["file"]["rejected"], 10);
    assert_eq!(report["transforms"]["fresh"], json!({ "rows_in": 90, "rows_out": 90, "rejected": 0 }));
    assert_eq!(report["sinks"]["table"], json!({ "written": 90, "skipped": 0, "rejected": 0 }));
    assert_eq!(report["dead_letters"], 10);
    assert!(report["peak_memory_bytes"].as_u64().unwrap() > 1 << 20);
    assert_eq!(ran.out.lines().count(), 1, "for programs there is nothing else");
}

#[test]
fn failed() {
    let place = Place::new();
    place.write("p.yaml", FILE);
    let report = check_report(&place.run("p.yaml").expect(1), "failed");
    assert!(report["error"].as_str().unwrap().contains("in.csv"), "{}", report["error"]);
    // The next run begins where this one ended.
    place.write("in.csv", &rows(10));
    check_report(&place.run("p.yaml").expect(0), "completed");
    assert_eq!(place.count("out.db", "t"), 9);
}

#[test]
fn wrong_config() {
    let place = Place::new();
    place.write("p.yaml", &FILE.replace("write: append", "wriet: append").replace("type: csv", "type: csw"));
    let ran = place.run("p.yaml").expect(2);
    check_report(&ran, "failed");
    assert!(ran.err.contains("write") && ran.err.contains("csv") && ran.err.contains("p.yaml:2:"), "{}", ran.err);
    place.towpath(&["run"]).expect(2);
    place.towpath(&["run", "nowhere.yaml"]).expect(2);
    assert_eq!(place.names("."), ["p.yaml"], "nothing was touched");
}

#[test]
fn too_many_rejects() {
    let place = Place::new();
    // What remembers rows before `append` would commit whole files only.
    let direct = FILE.replace("transforms:\n  fresh: { type: dedupe, inputs: [file], key: all_columns }\n", "");
    let direct = direct.replace("inputs: [fresh]", "inputs: [file]");
    place.write("p.yaml", &format!("{direct}errors: {{ stop_after: 500 }}\ncommit: {{ every: 1ms, rows: 1 }}\n"));
    place.write("in.csv", &rows(30_000));
    let first = check_report(&place.run("p.yaml").expect(3), "stopped");
    let (rows_then, letters) = (place.count("out.db", "t"), place.letters("p").len());
    assert!(rows_then < 27_000 && letters < 3_000, "{rows_then} rows, {letters} dead letters");
    // Still too many: it is taken up, and stops again; nothing is doubled by that.
    let again = check_report(&place.run("p.yaml").expect(3), "stopped");
    assert_eq!(again["run_id"], first["run_id"]);
    // Somebody has looked at them.
    let ran = place.towpath(&["run", "p.yaml", "--json", "--set", "errors.stop_after=100000"]).expect(0);
    let last = check_report(&ran, "completed");
    assert_eq!(last["run_id"], first["run_id"], "it is the same run");
    assert_eq!(
        place.rows("out.db", "SELECT count(*), count(DISTINCT id), min(id), max(id) FROM t"),
        ["27000|27000|1|29999"]
    );
    let expect: Vec<u64> = (10..=30_000).step_by(10).collect();
    assert_eq!(place.letter_records("p"), expect);
    assert_eq!(last["dead_letters"], 3_000);
}

#[test]
fn a_share_is_reckoned_from_a_thousand_rows_and_at_the_end_of_however_few() {
    let place = Place::new();
    place.write("p.yaml", &format!("{FILE}errors: {{ stop_after: 5% }}\n"));
    // Every tenth is bad. Of so few rows a share says nothing.
    place.write("in.csv", &rows(190));
    place.run("p.yaml").expect(0);
    for many in [300, 5_000] {
        place.write("in.csv", &rows(many));
        let ran = place.run("p.yaml").expect(3);
        check_report(&ran, "stopped");
        assert!(ran.err.contains("too many rejected rows: "), "{}", ran.err);
        assert_eq!(place.count("out.db", "t"), 171, "none of {many}");
    }
}

/// Windows that take a while each.
fn slow(reports: &Reports, write: &str) -> String {
    // A request that was given up counts as under way until its deadline.
    let source = reports.source(&format!("{}, deadline: 2s", windows(12)));
    let key = if write == "append" { "" } else { ", key: row_hash" };
    format!(
        "commit: {{ every: 1ms }}
sources:
  production: {source}
sinks:
  table: {{ type: sqlite, inputs: [production], path: out.db, table: t, write: {write}{key} }}
"
    )
}

fn slow_reports() -> Reports {
    Reports::of(builder().first_byte(std::time::Duration::from_millis(150)))
}

#[test]
fn another_run_is_under_way() {
    let (place, reports) = (Place::new(), slow_reports());
    place.write("p.yaml", &slow(&reports, "append"));
    let first = place.start(&["run", "p.yaml", "--json"]);
    until("a commit", || place.count("out.db", "t") > 0);
    let ran = place.run("p.yaml").expect(4);
    check_report(&ran, "failed");
    assert!(ran.err.contains("another run of pipeline 'p' is under way (process "), "{}", ran.err);
    // It has disturbed nothing.
    let report = check_report(&first.end().expect(0), "completed");
    assert_eq!(report["sinks"]["table"]["written"], 12 * 60);
    assert_eq!(place.count("out.db", "t"), 12 * 60);
    // A dead process holds no lock.
    let first = place.start(&["run", "p.yaml"]);
    until("another commit", || place.count("out.db", "t") > 12 * 60);
    first.signal("KILL");
    assert!(first.end().was_killed());
    place.run("p.yaml").expect(0);
    assert_eq!(place.count("out.db", "t"), 24 * 60);
}

#[test]
fn interrupted_runs_drain_and_are_taken_up() {
    for (signal, write) in [("INT", "append"), ("TERM", "insert_new")] {
        let (place, reports) = (Place::new(), slow_reports());
        place.write("p.yaml", &slow(&reports, write));
        let running = place.start(&["run", "p.yaml", "--json"]);
        until("a commit", || place.count("out.db", "t") > 0);
        running.signal(signal);
        let ran = running.end().expect(130);
        let first = check_report(&ran, "cancelled");
        assert!(ran.err.contains("interrupted"), "{}", ran.err);
        let then = place.count("out.db", "t");
        assert!(then < 12 * 60 && then.is_multiple_of(60), "{write}: {then}");
        // What the server had begun with was waited for, and nothing more was asked for.
        let rendered =
            || reports.log().renders().iter().map(|render| usize::from(render.complete) * 60).collect::<Vec<_>>();
        assert_eq!(rendered(), vec![60; then / 60], "{write}: what was rendered is there");
        let rest = check_report(&place.run("p.yaml").expect(0), "completed");
        assert_eq!(rest["run_id"], first["run_id"], "{write}: it is taken up");
        let stamps = place.rows("out.db", "SELECT Timestamp FROM t ORDER BY rowid");
        assert!(stamps.len() >= 12 * 60, "{write}");
        let hours = u32::try_from(stamps.len() / 60).unwrap();
        let expect: Vec<_> =
            production(&Report::production_log(60), hours).iter().map(|line| line[..23].to_owned()).collect();
        assert_eq!(stamps, expect, "{write}");
        assert_eq!(rendered(), vec![60; stamps.len() / 60], "{write}: no window is rendered twice");
    }
}

#[test]
fn a_second_interrupt_ends_at_once() {
    let place = Place::new();
    let reports = Reports::of(builder().first_byte(std::time::Duration::from_secs(600)));
    place.write("p.yaml", &slow(&reports, "append"));
    let mut running = place.start(&["run", "p.yaml", "--json"]);
    until("a request", || !reports.log().renders().is_empty());
    running.signal("INT");
    until("it says so", || running.said().contains("interrupted"));
    assert!(!running.is_over());
    running.signal("INT");
    check_report(&running.end().expect(130), "cancelled");
    // So does the end of the time there is to drain.
    let reports = Reports::of(builder().first_byte(std::time::Duration::from_secs(600)));
    place.write("q.yaml", &format!("drain: 1s\n{}", slow(&reports, "append")));
    let running = place.start(&["run", "q.yaml", "--json"]);
    until("a request", || !reports.log().renders().is_empty());
    running.signal("TERM");
    check_report(&running.end().expect(130), "cancelled");
}

#[test]
fn what_is_read_is_committed_before_an_answer_is_waited_for() {
    let place = Place::new();
    let hangs = Fault::FirstByte(std::time::Duration::from_secs(600));
    let reports = Reports::of(builder().fault(On::Render, 1.., hangs));
    let pipeline = slow(&reports, "append").replace("every: 1ms", "every: 1h");
    place.write("p.yaml", &format!("drain: 1s\n{pipeline}"));
    let running = place.start(&["run", "p.yaml", "--json"]);
    until("a second request", || reports.log().renders().len() > 1);
    running.signal("TERM");
    check_report(&running.end().expect(130), "cancelled");
    assert_eq!(place.count("out.db", "t"), 60, "the first window is there");
}

#[test]
fn a_new_run_leaves_the_old_one_behind() {
    let (place, reports) = (Place::new(), slow_reports());
    place.write("p.yaml", &slow(&reports, "insert_new"));
    let running = place.start(&["run", "p.yaml", "--json"]);
    until("a commit", || place.count("out.db", "t") > 0);
    running.signal("INT");
    let first = running.end().expect(130).report();
    let ran = place.towpath(&["run", "p.yaml", "--json", "--new-run"]).expect(0);
    let second = check_report(&ran, "completed");
    assert_ne!(second["run_id"], first["run_id"]);
    let count = place.count("out.db", "t");
    assert_eq!(place.rows("out.db", "SELECT count(DISTINCT row_hash) FROM t"), [count.to_string()]);
    assert!(count >= 12 * 60 && count.is_multiple_of(60), "{count}");
}
