//! Each fault of the report server, over NTLM into a table: what comes of the run, what table and dead letters hold afterwards, and
//! that the next run has everything.

use std::{fmt::Write as _, time::Duration};

use serde_json::json;
use towpath_testkit::report_server::{Fault, On, Report};

use crate::kit::*;

/// One row in so many lacks a field.
const RAGGED: u64 = 30;

fn pipeline(reports: &Reports) -> String {
    // A server that stopped answering counts as busy for the deadline of the call.
    let source = reports.source(&format!(
        "{}, columns: {{ Timestamp: timestamp, Torque: float64 }}, retry: {{ attempts: 1 }}, deadline: 2s, timeouts: {{ idle: 300ms, first_byte: 700ms }}",
        windows(1)
    ));
    format!(
        "restarts: 0
sources:
  production: {source}
sinks:
  table: {{ type: sqlite, inputs: [production], path: out.db, table: log, write: insert_new, key: row_hash }}
"
    )
}

/// What the columns that are compared look like in the table.
fn expected(report: &Report, hours: u32) -> Vec<String> {
    let good =
        production(report, hours).into_iter().enumerate().filter(|(row, _)| !((row + 1) as u64).is_multiple_of(RAGGED));
    let mut rows: Vec<_> = good
        .map(|(_, line)| line.split(',').next().unwrap().replace('T', " ").trim_end_matches(".000").to_owned())
        .collect();
    rows.sort();
    rows
}

fn stamps(place: &Place) -> Vec<String> {
    place.rows("out.db", "SELECT Timestamp FROM log ORDER BY Timestamp")
}

/// Three runs with a window each; the fault strikes in the second one.
fn check(shown: &mut String, name: &str, on: On, fault: Fault) {
    let report = Report::production_log(60).ragged_every(RAGGED);
    let reports = Reports::of(
        towpath_testkit::report_server::ReportServer::builder()
            .report(report.clone())
            .account("CORP", "loader", PASSWORD)
            .lockout_after(2),
    );
    let place = Place::new();
    place.write("p.yaml", &pipeline(&reports));
    place.run("p.yaml").expect(0);
    assert_eq!(stamps(&place), expected(&report, 1), "{name}");
    let letters = place.letters("p");
    assert_eq!(letters.len(), 2, "{name}");

    // Before the run there is a plan, which can do without the server; a report is only ever rendered by the run.
    let strikes = if on == On::Render { 1 } else { u64::MAX };
    reports.faults().add(on, 0..strikes, fault);
    let ran = place.run("p.yaml");
    let said = ran.report();
    let whole = ran.code() == 0;
    assert_eq!(said["status"], if whole { "completed" } else { "failed" }, "{name}");
    // A window is in the table as a whole or not at all.
    assert_eq!(stamps(&place), expected(&report, if whole { 2 } else { 1 }), "{name}");
    let letters_then = place.letters("p");
    assert_eq!(letters_then.len(), if whole { 4 } else { 2 }, "{name}");
    assert_eq!(letters_then[..2], letters, "{name}");
    assert!(!ran.err.contains(PASSWORD) && !ran.out.contains(PASSWORD), "{name}");
    let error = said["error"].as_str().unwrap_or("none").replace(&reports.address().to_string(), "SERVER");
    // Of the parameters of the request enough is said elsewhere.
    let error = error
        .split('&')
        .enumerate()
        .filter_map(|(at, part)| if at == 0 { Some(part) } else { part.split_once(": ").map(|(_, rest)| rest) })
        .collect::<Vec<_>>()
        .join(" … ");
    // Which of the two ends of a connection sees first that it has gone is chance.
    let broke = ["the connection broke before the answer", "the connection was closed before the request"];
    let error = match broke.iter().find_map(|broke| error.split_once(broke)) {
        Some((place, _)) => format!("{place}the connection broke or was closed before …"),
        None => error,
    };
    let rows = stamps(&place).len();
    writeln!(shown, "{name}: exit {}, {rows} rows, {} dead letters, error: {error}", ran.code(), letters_then.len())
        .unwrap();

    // Nothing has to be put right by hand: the fault is over, the next run takes up the one that failed.
    reports.faults().clear();
    let ran = place.run("p.yaml").expect(0);
    let hours = if whole { 3 } else { 2 };
    assert_eq!(ran.report()["sinks"]["table"], json!({ "written": 58, "skipped": 0, "rejected": 0 }), "{name}");
    assert_eq!(stamps(&place), expected(&report, hours), "{name}");
    assert_eq!(place.letter_records("p"), [30, 60].repeat(hours as usize), "{name}");
    assert!(!reports.is_locked("loader"), "{name}");
    assert_eq!(reports.log().wrong_passwords(), 0, "{name}");
}

#[test]
fn of_a_rendering() {
    let mut shown = String::new();
    let cases: [(&str, Fault); 14] = [
        ("closed", Fault::Close),
        ("closed after the answer", Fault::CloseAfter),
        ("closed after the answer, announced", Fault::CloseAnnounced),
        ("silent", Fault::FirstByte(Duration::from_secs(600))),
        ("slow", Fault::Rate(20_000)),
        ("cut before the first byte", Fault::CutAfter(0)),
        ("cut", Fault::CutAfter(2_000)),
        ("stalled", Fault::StallAfter(2_000)),
        ("ends inside a row", Fault::EndAfter(2_000)),
        ("proxy", Fault::Status(502)),
        ("busy", Fault::RetryAfter(503, 1)),
        ("query failed", Fault::Rs("rsErrorExecutingCommand", "Query execution failed for dataset 'Log'.")),
        ("too long", Fault::Rs("rsReportTimeoutExpired", "The report took too long.")),
        ("page", Fault::Html),
    ];
    for (name, fault) in cases {
        check(&mut shown, name, On::Render, fault);
    }
    insta::assert_snapshot!(shown);
}

#[test]
fn of_the_way_there() {
    let mut shown = String::new();
    let cases: [(&str, On, Fault); 15] = [
        ("no connection", On::Connection, Fault::Close),
        ("challenge: closed", On::Challenge, Fault::Close),
        ("challenge: closed behind it", On::Challenge, Fault::CloseAfter),
        ("challenge: closed behind it, announced", On::Challenge, Fault::CloseAnnounced),
        ("challenge: proxy", On::Challenge, Fault::Status(503)),
        ("challenge: page", On::Challenge, Fault::Html),
        ("challenge: silent", On::Challenge, Fault::FirstByte(Duration::from_secs(600))),
        ("proof: closed", On::Proof, Fault::Close),
        ("proof: closed after the answer, announced", On::Proof, Fault::CloseAnnounced),
        ("proof: proxy", On::Proof, Fault::Status(502)),
        ("proof: silent", On::Proof, Fault::FirstByte(Duration::from_secs(600))),
        ("parameters: closed", On::Parameters, Fault::Close),
        ("parameters: proxy", On::Parameters, Fault::Status(502)),
        ("parameters: error", On::Parameters, Fault::Rs("rsInternalError", "An internal error occurred.")),
        ("parameters: page", On::Parameters, Fault::Html),
    ];
    for (name, on, fault) in cases {
        check(&mut shown, name, on, fault);
    }
    insta::assert_snapshot!(shown);
}

/// As the config stands by default a run goes through what passes.
#[test]
fn what_passes_is_tried_again() {
    let report = Report::production_log(60).ragged_every(RAGGED);
    let reports = Reports::of(
        towpath_testkit::report_server::ReportServer::builder()
            .report(report.clone())
            .account("CORP", "loader", PASSWORD),
    );
    let place = Place::new();
    let pipeline = pipeline(&reports)
        .replace("attempts: 1", "initial: 10ms")
        .replace("restarts: 0\n", "commit: { every: 1ms }\n")
        .replace("_run: 1", "_run: 4");
    place.write("p.yaml", &pipeline);
    let faults = [
        (0, Fault::Close),
        (1, Fault::Status(503)),
        (3, Fault::CutAfter(3_000)),
        (5, Fault::EndAfter(2_000)),
        (6, Fault::RetryAfter(429, 1)),
    ];
    for (at, fault) in faults {
        reports.faults().add(On::Render, at..=at, fault);
    }
    let ran = place.run("p.yaml").expect(0);
    assert_eq!(ran.report()["sinks"]["table"], json!({ "written": 4 * 58, "skipped": 0, "rejected": 0 }));
    assert_eq!(stamps(&place), expected(&report, 4));
    assert_eq!(place.letter_records("p"), [30, 60].repeat(4));
}
