//! `towpath serve` and `towpath status`: schedules, what is said of them, and how it ends.

use std::time::Duration;

use serde_json::Value;
use towpath_testkit::report_server::Report;

use crate::kit::*;

/// A file into a table.
fn from_file(schedule: &str, file: &str) -> String {
    format!(
        "{schedule}sources:
  file: {{ type: csv, path: {file}.csv, columns: {{ id: int64 }} }}
sinks:
  table: {{ type: sqlite, inputs: [file], path: {file}.db, table: t, write: insert_new, key: [id] }}
"
    )
}

/// So many windows a run, a commit after each.
fn from_reports(reports: &Reports, schedule: &str, windows_per_run: u32) -> String {
    let source = reports.source(&format!("{}, deadline: 2s", windows(windows_per_run)));
    format!(
        "schedule: {schedule}
commit: {{ every: 1ms }}
sources:
  production: {source}
sinks:
  table: {{ type: sqlite, inputs: [production], path: out.db, table: t, write: append }}
"
    )
}

/// A report server that takes so long for each window.
fn slow(millis: u64) -> Reports {
    Reports::of(builder().first_byte(Duration::from_millis(millis)))
}

/// What differs from run to run, taken out.
macro_rules! assert_said {
    ($name:expr, $text:expr) => {
        insta::with_settings!({ filters => vec![
            (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.\d]*Z", "[time]"),
            (r"in \d+\.\d s", "in [elapsed] s"),
            (r"process \d+", "process [pid]"),
            (r"\d+ skipped so far", "[n] skipped so far"),
            (r"interrupted (in .*), \d+ written", "interrupted $1, [n] written"),
        ] }, { insta::assert_snapshot!($name, $text) })
    };
}

/// The first lines of a log that are of one pipeline.
fn lines_of(said: &str, pipeline: &str, most: usize) -> String {
    let of = |line: &&str| line.split_once(' ').is_some_and(|(_, text)| text.starts_with(&format!("{pipeline}: ")));
    said.lines().filter(of).take(most).map(|line| format!("{line}\n")).collect()
}

fn times(said: &str, what: &str) -> usize {
    said.lines().filter(|line| line.contains(what)).count()
}

/// How a pipeline stands.
fn status_of(place: &Place, pipeline: &str) -> Value {
    let all: Value = serde_json::from_str(&place.towpath(&["status", "--json"]).expect(0).out).unwrap();
    let found = all.as_array().unwrap().iter().find(|one| one["pipeline"] == pipeline);
    found.cloned().unwrap_or_default()
}

/// The table holds the first windows, each of them once, in order.
#[track_caller]
fn check_rows(place: &Place) {
    let stamps = place.rows("out.db", "SELECT Timestamp FROM t ORDER BY rowid");
    assert!(!stamps.is_empty() && stamps.len().is_multiple_of(60), "{}", stamps.len());
    let hours = u32::try_from(stamps.len() / 60).unwrap();
    let expect: Vec<_> =
        production(&Report::production_log(60), hours).iter().map(|line| line[..23].to_owned()).collect();
    assert_eq!(stamps, expect);
}

#[test]
fn one_that_always_fails_stops_nobody_and_is_started_again() {
    let place = Place::new();
    place.write("good.csv", "id,name\n1,a\n2,b\nx,c\n");
    for name in ["good", "bad"] {
        place.write(&format!("{name}.yaml"), &from_file("schedule: { every: 1s }\n", name));
    }
    let serve = place.start(&["serve", "good.yaml", "bad.yaml"]);
    until("three ends of each", || {
        times(&serve.said(), "good: completed") >= 3 && times(&serve.said(), "bad: failed") >= 3
    });
    serve.signal("TERM");
    let ran = serve.end().expect(0);
    assert_said!("serve_good", lines_of(&ran.err, "good", 5));
    assert_said!("serve_bad", lines_of(&ran.err, "bad", 3));
    let last: String = ran.err.lines().rev().take(2).map(|line| format!("{line}\n")).collect();
    assert_said!("serve_last", last);
    assert_eq!(ran.out, "");
    assert_eq!(place.rows("good.db", "SELECT id, name FROM t ORDER BY id"), ["1|a", "2|b"]);
    assert_said!("status_after", place.towpath(&["status"]).expect(0).out);
    // Of these files only, in their order.
    let of = place.towpath(&["status", "good.yaml"]).expect(0).out;
    assert!(of.contains("\ngood ") && !of.contains("bad"), "{of}");
    // What runs by hand stands there as well.
    place.write("bad.csv", "id,name\n1,a\n");
    place.run("bad.yaml").expect(0);
    assert_eq!(status_of(&place, "bad")["last"]["status"], "completed");
}

#[test]
fn reports_for_programs_are_lines_on_stdout() {
    let place = Place::new();
    place.write("p.csv", "id\n1\n");
    place.write("p.yaml", &from_file("schedule: { every: 1s }\n", "p"));
    let serve = place.start(&["serve", "p.yaml", "--json"]);
    until("two ends", || times(&serve.said(), "completed") >= 2);
    serve.signal("INT");
    let ran = serve.end().expect(0);
    let reports: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(reports.len() >= 2 && reports.iter().all(|report| report["status"] == "completed"), "{}", ran.out);
    assert_eq!(reports[0]["sinks"]["table"]["written"], 1);
    assert_eq!(reports[1]["sinks"]["table"]["skipped"], 1);
}

#[test]
fn a_start_that_is_due_while_a_run_is_under_way_is_skipped_and_nothing_is_lost_at_the_end() {
    let (place, reports) = (Place::new(), slow(300));
    place.write("p.yaml", &from_reports(&reports, "{ every: 1s }", 20));
    let serve = place.start(&["serve", "p.yaml"]);
    until("two skipped, and a commit", || {
        times(&serve.said(), "start skipped, the run since") >= 2 && place.count("out.db", "t") > 0
    });
    // A run by hand is refused, and disturbs nothing.
    let by_hand = place.run("p.yaml").expect(4);
    assert!(by_hand.err.contains("another run of pipeline 'p' is under way"), "{}", by_hand.err);
    let status = status_of(&place, "p");
    assert!(status["running"]["pid"].is_u64() && status["served"]["next_start"].is_string(), "{status:#}");
    assert!(status["served"]["skipped"].as_u64().unwrap() >= 2, "{status:#}");
    serve.signal("TERM");
    let ran = serve.end().expect(0);
    assert_eq!(reports.log().most_renders_at_once(), 1);
    let skipped = ran.err.lines().find(|line| line.contains("start skipped")).unwrap();
    assert_said!("serve_skipped", skipped);
    assert_said!("serve_drains", ran.err.lines().rev().take(4).collect::<Vec<_>>().join("\n"));
    // What the server had begun with is there, and nothing else was begun.
    let renders = reports.log().renders();
    assert!(renders.iter().all(|render| render.complete));
    assert_eq!(place.count("out.db", "t"), renders.len() * 60);
    check_rows(&place);
    place.run("p.yaml").expect(0);
    check_rows(&place);
}

#[test]
fn a_start_can_wait_instead() {
    let (place, reports) = (Place::new(), slow(700));
    place.write("p.yaml", &from_reports(&reports, "{ every: 1s, overlap: wait }", 4));
    let serve = place.start(&["serve", "p.yaml"]);
    until("a second start", || times(&serve.said(), "p: started") >= 2);
    serve.signal("TERM");
    let ran = serve.end().expect(0);
    let of_interest: Vec<&str> = ran
        .err
        .lines()
        .filter(|line| ["started", "waits", "completed"].iter().any(|word| line.contains(word)))
        .collect();
    assert_said!("serve_waits", of_interest[..4].join("\n"));
    assert_eq!(reports.log().most_renders_at_once(), 1);
    assert!(times(&ran.err, "start skipped, the run since") >= 1, "one waits, the others do not: {}", ran.err);
    check_rows(&place);
}

#[test]
fn a_run_elsewhere_is_left_alone() {
    let (place, reports) = (Place::new(), slow(300));
    place.write("p.yaml", &from_reports(&reports, "{ every: 1s }", 6));
    let by_hand = place.start(&["run", "p.yaml"]);
    until("a commit", || place.count("out.db", "t") > 0);
    let serve = place.start(&["serve", "p.yaml"]);
    until("one skipped", || times(&serve.said(), "start skipped, another run is under way (process") >= 1);
    by_hand.end().expect(0);
    until("a start", || times(&serve.said(), "p: started") >= 1);
    // Served by one at a time.
    let second = place.towpath(&["serve", "p.yaml"]).expect(4);
    assert_said!("serve_twice", second.err);
    serve.signal("TERM");
    serve.end().expect(0);
    assert_eq!(reports.log().most_renders_at_once(), 1);
    check_rows(&place);
}

#[test]
fn what_a_killed_one_left_behind_is_not_believed() {
    let (place, reports) = (Place::new(), slow(200));
    place.write("p.yaml", &from_reports(&reports, "{ every: 1s }", 12));
    let serve = place.start(&["serve", "p.yaml"]);
    until("a commit", || place.count("out.db", "t") > 0);
    assert!(status_of(&place, "p")["served"]["next_start"].is_string());
    serve.signal("KILL");
    assert!(serve.end().was_killed());
    assert_said!("status_killed", place.towpath(&["status"]).expect(0).out);
    let status = status_of(&place, "p");
    assert_eq!((&status["running"], &status["served"]), (&Value::Null, &Value::Null));
    assert_eq!(status["last"]["status"], "died");
    // The next one takes it up.
    let serve = place.start(&["serve", "p.yaml"]);
    until("an end", || times(&serve.said(), "p: completed") >= 1);
    assert!(serve.said().contains("run{pipeline=p}") && serve.said().contains("taking up run"), "{}", serve.said());
    serve.signal("TERM");
    serve.end().expect(0);
    check_rows(&place);
}

#[test]
fn restarts_make_for_no_more_runs_than_the_schedule() {
    let place = Place::new();
    place.write("p.csv", "id\n1\n");
    place.write("p.yaml", &from_file("schedule: { every: 1h }\n", "p"));
    let serve = place.start(&["serve", "p.yaml"]);
    until("an end", || times(&serve.said(), "p: completed") == 1);
    serve.signal("TERM");
    serve.end().expect(0);
    let serve = place.start(&["serve", "p.yaml"]);
    until("it is served", || status_of(&place, "p")["served"]["next_start"].is_string());
    let status = status_of(&place, "p");
    // An hour after it was begun the last time: all but the hour is the same.
    let minutes = |time: &Value| time.as_str().unwrap()[13..].to_owned();
    assert_eq!(minutes(&status["served"]["next_start"]), minutes(&status["last"]["started"]), "{status:#}");
    assert_said!("status_served", place.towpath(&["status"]).expect(0).out);
    serve.signal("TERM");
    let ran = serve.end().expect(0);
    assert_eq!(times(&ran.err, "p: started"), 0, "{}", ran.err);
}

#[test]
fn what_does_not_come_to_a_commit_is_broken_off() {
    // At once by a second signal, or when there is no more time to drain.
    for (signals, drain) in [(2, "25s"), (1, "1s")] {
        let (place, reports) = (Place::new(), slow(600_000));
        place.write("p.yaml", &format!("drain: {drain}\n{}", from_reports(&reports, "{ every: 1h }", 1)));
        let mut serve = place.start(&["serve", "p.yaml"]);
        until("a request", || !reports.log().renders().is_empty());
        assert_said!("status_running", place.towpath(&["status"]).expect(0).out);
        serve.signal("TERM");
        until("it says so", || serve.said().contains("going on to the next commit"));
        assert!(!serve.is_over());
        if signals == 2 {
            serve.signal("TERM");
        }
        let ran = serve.end().expect(130);
        assert!(ran.err.contains("p: interrupted in ") && ran.err.contains("takes it up"), "{}", ran.err);
        assert_eq!(status_of(&place, "p")["last"]["status"], "cancelled");
    }
}

#[test]
fn everything_is_checked_before_anything_starts() {
    let place = Place::new();
    place.write("right.csv", "id\n1\n");
    place.write("right.yaml", &from_file("schedule: { every: 1s }\n", "right"));
    place.write("never.yaml", &from_file("", "never"));
    place.write("february.yaml", &from_file("schedule: { cron: '0 0 30 2 *' }\n", "february"));
    place.write("again.yaml", &from_file("name: right\nschedule: { every: 1s }\n", "again"));
    place.write("both.yaml", &from_file("schedule: { every: 1s, cron: '@daily' }\n", "both"));
    let before = place.names(".");
    let files = ["serve", "right.yaml", "never.yaml", "february.yaml", "again.yaml", "both.yaml"];
    assert_said!("serve_refused", place.towpath(&files).expect(2).err);
    place.towpath(&["serve"]).expect(2);
    assert_eq!(place.names("."), before, "nothing was touched");
    assert_said!("status_of_nothing", place.towpath(&["status", "right.yaml"]).expect(0).out);
}

/// A cron entry comes due by the clock: at the full minute, not before, once; what is under way then is brought to a commit when the signal comes.
#[test]
fn cron_comes_due() {
    let (place, reports) = (Place::new(), slow(300));
    let schedule = "{ cron: '* * * * *', time_zone: Europe/Berlin }";
    place.write("p.yaml", &from_reports(&reports, schedule, 20));
    place.write("far.csv", "id\n1\n");
    // One that does not come meanwhile.
    let far = if jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).minute() < 30 { 45 } else { 10 };
    place.write("far.yaml", &from_file(&format!("schedule: {{ cron: '{far} * * * *' }}\n"), "far"));
    let began = jiff::Timestamp::now();
    let serve = place.start(&["serve", "p.yaml", "far.yaml"]);
    until("it is served", || status_of(&place, "p")["served"]["next_start"].is_string());
    let due: jiff::Timestamp = status_of(&place, "p")["served"]["next_start"].as_str().unwrap().parse().unwrap();
    assert_eq!(due.as_second() % 60, 0, "{due}");
    assert!(due > began && due.as_second() - began.as_second() <= 120, "{began} {due}");
    until("a start, and a commit", || times(&serve.said(), "p: started") >= 1 && place.count("out.db", "t") > 0);
    let started: jiff::Timestamp = status_of(&place, "p")["running"]["started"].as_str().map_or_else(
        || {
            serve
                .said()
                .lines()
                .find(|line| line.contains("p: started"))
                .unwrap()
                .split(' ')
                .next()
                .unwrap()
                .parse()
                .unwrap()
        },
        |text| text.parse().unwrap(),
    );
    assert!(started >= due, "not before its time: {started} {due}");
    let next: jiff::Timestamp = status_of(&place, "p")["served"]["next_start"].as_str().unwrap().parse().unwrap();
    assert_eq!((next.as_second() - due.as_second()) % 60, 0, "{next}");
    assert!(next > due);
    serve.signal("TERM");
    let ran = serve.end().expect(0);
    assert_eq!(times(&ran.err, "p: started"), 1, "{}", ran.err);
    assert_eq!(times(&ran.err, "far: started"), 0, "{}", ran.err);
    let first: String = ran.err.lines().filter(|line| line.contains("p: cron")).collect();
    assert!(first.contains("cron \"* * * * *\" Europe/Berlin, p.yaml, next start "), "{}", ran.err);
    let renders = reports.log().renders();
    assert!(renders.iter().all(|render| render.complete));
    assert_eq!(place.count("out.db", "t"), renders.len() * 60, "what had begun is there");
    check_rows(&place);
}
