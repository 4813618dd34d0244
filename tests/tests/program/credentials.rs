//! A wrong password goes over the wire once, however many ask; a missing right is the report's matter, not the account's.

use towpath_testkit::report_server::Report;

use crate::kit::*;

fn pipeline(reports: &Reports, number: usize, report: &str, password: &str) -> String {
    let source = reports.source_of(report, password, "retry: { initial: 10ms }");
    format!(
        "sources:
  report: {source}
sinks:
  table: {{ type: sqlite, inputs: [report], path: out{number}.db, table: t, write: replace }}
"
    )
}

#[test]
fn ten_processes_put_one_wrong_password_on_the_wire() {
    let reports = Reports::of(builder().report(Report::new("/Small", 10)).lockout_after(3));
    let place = Place::new();
    let files: Vec<String> = (0..10).map(|number| format!("p{number}.yaml")).collect();
    for (number, file) in files.iter().enumerate() {
        place.write(file, &pipeline(&reports, number, "/Small", "wrong horse"));
    }
    let all = || -> Vec<Ran> {
        let running: Vec<Running> = files.iter().map(|file| place.start(&["run", file, "--json"])).collect();
        running.into_iter().map(Running::end).collect()
    };
    // Again and again, as a schedule would.
    for _ in 0..2 {
        for ran in all() {
            let ran = ran.expect(1);
            assert!(!ran.err.contains("wrong horse") && !ran.out.contains("wrong horse"), "{ran:#?}");
            assert!(ran.err.contains("hint:"), "{}", ran.err);
        }
        assert_eq!((reports.log().wrong_passwords(), reports.log().proofs()), (1, 1));
        assert!(!reports.is_locked("loader"));
    }
    // One of them is given the right one, and is not held up by the others.
    place.write(&files[0], &pipeline(&reports, 0, "/Small", PASSWORD));
    let ran = all();
    let codes: Vec<i32> = ran.iter().map(Ran::code).collect();
    assert_eq!(codes, [0, 1, 1, 1, 1, 1, 1, 1, 1, 1], "{ran:#?}");
    assert_eq!(place.count("out0.db", "t"), 10);
    assert_eq!(reports.log().wrong_passwords(), 1);
    // Only when told to it is sent once more.
    place.towpath(&["state", "reset", "credentials"]).expect(0);
    all();
    assert_eq!(reports.log().wrong_passwords(), 2);
}

/// A process that is killed between its proof and the answer: nobody knows what the server made of it.
#[test]
fn a_killed_process_leaves_no_second_try_behind() {
    use std::time::Duration;
    use towpath_testkit::report_server::{Fault, On};
    let reports = Reports::of(builder().report(Report::new("/Small", 10)).lockout_after(3));
    let place = Place::new();
    place.write("p.yaml", &pipeline(&reports, 0, "/Small", "wrong horse"));
    reports.faults().add(On::Proof, .., Fault::FirstByte(Duration::from_secs(600)));
    let running = place.start(&["run", "p.yaml", "--json"]);
    until("the password is on the wire", || {
        let state = place.towpath(&["state", "show", "--json"]).out;
        state.contains("\"trying\"") && reports.log().connections() > 0
    });
    // It has been written down before it goes out; a moment later it is out.
    std::thread::sleep(Duration::from_millis(200));
    running.signal("KILL");
    assert!(running.end().was_killed());
    reports.faults().clear();
    for _ in 0..3 {
        let ran = place.run("p.yaml").expect(1);
        assert!(ran.err.contains("nobody saw what came of it"), "{}", ran.err);
    }
    assert!(reports.log().proofs() <= 1, "{:?}", reports.log().outcomes());
}

#[test]
fn a_missing_right_closes_the_report_and_not_the_account() {
    let reports = Reports::of(
        builder()
            .report(Report::new("/Small", 10))
            .report(Report::new("/Secret", 10))
            .deny("loader", "/Secret")
            .lockout_after(2),
    );
    let place = Place::new();
    place.write("secret.yaml", &pipeline(&reports, 0, "/Secret", PASSWORD));
    place.write("small.yaml", &pipeline(&reports, 1, "/Small", PASSWORD));
    let asked = || {
        reports
            .log()
            .requests()
            .iter()
            .filter(|asked| asked.target.contains("/Secret") || asked.what == "GetItemParameters")
            .count()
    };
    let ran = place.run("secret.yaml").expect(1);
    assert!(ran.err.contains("rsAccessDenied") && ran.err.contains("Browser"), "{}", ran.err);
    let before = asked();
    let ran = place.run("secret.yaml").expect(1);
    assert_eq!(asked(), before, "it is left alone: {}", ran.err);
    assert!(ran.err.contains("denied"), "{}", ran.err);
    place.run("small.yaml").expect(0);
    assert_eq!(place.count("out1.db", "t"), 10);
    assert!(!reports.is_locked("loader"));
    assert_eq!(reports.log().wrong_passwords(), 0);
}

/// To a client a 401 is a 401: a proven password that is refused once is not sent again either, until somebody says so.
#[test]
fn a_password_that_was_right_is_not_tried_out() {
    use towpath_testkit::report_server::{Fault, On};
    let reports = Reports::of(builder().report(Report::new("/Small", 10)).lockout_after(2));
    let place = Place::new();
    place.write("p.yaml", &pipeline(&reports, 0, "/Small", PASSWORD));
    place.run("p.yaml").expect(0);
    reports.faults().add(On::Render, .., Fault::Status(401));
    place.run("p.yaml").expect(1);
    let proofs = reports.log().proofs();
    reports.faults().clear();
    let ran = place.run("p.yaml").expect(1);
    assert!(ran.err.contains("state reset credentials"), "{}", ran.err);
    assert_eq!(reports.log().proofs(), proofs);
    place.towpath(&["state", "reset", "credentials"]).expect(0);
    place.run("p.yaml").expect(0);
}
