//! The source against a report server behind NTLM: sign-in, parameters, windows, and everything that goes wrong.

#![allow(clippy::unwrap_used, clippy::panic, reason = "it is what makes a test fail")]

use std::time::Duration;

use serde_json::json;
use towpath_core::{Context, ErrorKind, Mark, Next, Resume, source::Replay};
use towpath_testkit::report_server::{Fault, Kind, On, Parameter, Preset, Report, ReportServer, Scheme};

mod support;
use support::{NAME, PASSWORD, from, make, noting, options, read, read_with, run, server};

/// In the middle of an hour.
const NOW: &str = "2026-03-02T05:20:00Z";

#[tokio::test]
async fn rows_come_over_ntlm_and_negotiate_in_the_clear_and_over_tls() {
    for (kind, scheme) in [("ntlm", Scheme::Ntlm), ("negotiate", Scheme::Negotiate)] {
        for tls in [false, true] {
            let server = server().offer([scheme]);
            let server = if tls { server.tls().bindings_required() } else { server }.start().await;
            let folder = tempfile::tempdir().unwrap();
            let mut options = options(&server, json!({ "auth": { "type": kind } }));
            if let Some(certificate) = server.certificate() {
                let path = folder.path().join("server.pem");
                std::fs::write(&path, certificate).unwrap();
                options["pinned_certificate"] = json!(path);
            }
            let given = read(options, &run("r", NOW), &Resume::default()).await;
            assert_eq!((given.rows(), given.says()), (60, "no error".to_owned()), "{kind} tls={tls}");
        }
    }
}

#[tokio::test]
async fn a_request_says_what_it_must() {
    let server = server().start().await;
    let more = json!({ "parameters": { "Line": ["L1", "L3"], "Station": "all", "Shift": null }, "device": { "UseFormattedValues": "false" } });
    let mut more = options(&server, more);
    // Laid over, null takes away; here it is a value.
    more["parameters"]["Shift"] = json!(null);
    let given = read(more, &run("r", NOW), &Resume::default()).await;
    assert_eq!(given.says(), "no error");
    let render = server.log().renders().pop().unwrap();
    assert_eq!(render.values("Line"), [Some("L1"), Some("L3")]);
    assert_eq!(render.values("Station"), [Some("S11"), Some("S12"), Some("S31"), Some("S32"), Some("S33")]);
    assert_eq!(render.values("Shift"), [None]);
    assert_eq!(render.value("From"), Some("2026-03-02T04:00:00"));
    assert_eq!(render.value("To"), Some("2026-03-02T05:00:00"));
    let asked = server.log().requests().into_iter().rev().find(|asked| asked.what == "render").unwrap();
    insta::assert_snapshot!(asked.target.replace('&', "\n&"));
}

#[tokio::test]
async fn many_values_go_by_post() {
    let stations: Vec<String> = (0..2_000).map(|number| format!("Station {number:04}")).collect();
    let stations: Vec<&str> = stations.iter().map(String::as_str).collect();
    let report = Report::new("/Many", 10).parameters([Parameter::new("Station", Kind::String).multi().of(&stations)]);
    let server = server().report(report).start().await;
    let more = json!({ "report": "/Many", "window": null, "parameters": { "Line": null, "Station": "all" } });
    let given = read(options(&server, more), &run("r", NOW), &Resume::default()).await;
    assert_eq!((given.rows(), given.says()), (10, "no error".to_owned()));
    assert_eq!(server.log().renders()[0].values("Station").len(), 2_000);
    let asked = server.log().requests().into_iter().rev().find(|asked| asked.what == "render").unwrap();
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("POST", "/ReportServer?/Many"));
}

#[tokio::test]
async fn a_session_redirect_is_followed_and_compression_undone() {
    let server = server().session_redirect().gzip().start().await;
    let given = read(options(&server, json!({})), &run("r", NOW), &Resume::default()).await;
    assert_eq!((given.rows(), given.says()), (60, "no error".to_owned()));
}

#[tokio::test]
async fn times_are_written_in_the_language_that_is_named() {
    let server = server().language("de-DE").start().await;
    let more = json!({ "window": { "format": "%m/%d/%Y %H:%M:%S" } });
    // The 2nd of March, not the 3rd of February.
    let given = read(options(&server, more), &run("r", NOW), &Resume::default()).await;
    assert_eq!((given.rows(), given.says()), (60, "no error".to_owned()));
    assert_eq!(server.log().renders()[0].value("From"), Some("03/02/2026 04:00:00"));
}

#[tokio::test]
async fn a_row_at_the_edge_of_two_windows_comes_once() {
    // The report takes rows stamped at the end as well, and there is one at each full hour.
    for (end, rows) in [("inclusive", 120), ("exclusive", 122)] {
        let report = Report::production_log(60).end_inclusive();
        let server = ReportServer::builder().report(report).account("CORP", "loader", PASSWORD).start().await;
        let more = json!({ "window": { "start": "2026-03-02T03:00", "end": end } });
        let given = read(options(&server, more), &run("r", NOW), &Resume::default()).await;
        assert_eq!((given.rows(), given.says()), (rows, "no error".to_owned()), "{end}");
    }
}

#[tokio::test]
async fn windows_follow_the_clock_on_the_wall() {
    let server = server().start().await;
    let more = json!({ "window": { "timezone": "Europe/Berlin", "start": "2026-10-25T01:00" } });
    let given = read(options(&server, more), &run("r", "2026-10-25T03:10:00Z"), &Resume::default()).await;
    assert_eq!(given.says(), "no error");
    let asked: Vec<_> = server.log().renders().iter().map(|render| render.value("From").unwrap().to_owned()).collect();
    assert_eq!(
        asked,
        ["2026-10-25T01:00:00", "2026-10-25T02:00:00", "2026-10-25T03:00:00"],
        "02:00 came twice and is asked for once"
    );
}

#[tokio::test]
async fn windows_are_done_read_again_and_taken_up() {
    let server = server().start().await;
    let more = json!({ "window": { "start": "2026-03-02T00:00", "lookback": "2h" } });
    let options = options(&server, more);
    let first = run("first", NOW);
    let given = read(options.clone(), &first, &Resume::default()).await;
    assert_eq!((given.rows(), given.boundaries().len()), (5 * 60, 5));
    let asked = || {
        server.log().renders().iter().map(|render| render.value("From").unwrap()[11..13].to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(asked(), ["00", "01", "02", "03", "04"], "oldest first");

    // Stopped after two windows and taken up: the other three.
    let rest = read(options.clone(), &first, &from(given.checkpoint(&first, 1))).await;
    assert_eq!(rest.rows(), 3 * 60);
    assert_eq!(asked()[5..], ["02", "03", "04"]);
    assert_eq!(rest.boundaries().last().unwrap().1, given.boundaries().last().unwrap().1);

    // A sink that lags behind is given exactly what the other one has.
    let until =
        Resume { from: Some(given.checkpoint(&first, 0)), until: Some(given.checkpoint(&first, 2)), whole: false };
    let behind = read(options.clone(), &first, &until).await;
    assert_eq!((behind.rows(), behind.boundaries().len()), (2 * 60, 2));
    assert_eq!(behind.boundaries()[1].1, given.boundaries()[2].1);

    // The next run, an hour later: what is new, and two hours once more.
    let second = run("second", "2026-03-02T06:20:00Z");
    let next = read(options, &second, &from(given.last_checkpoint(&first))).await;
    assert_eq!(next.rows(), 3 * 60);
    assert_eq!(asked()[10..], ["03", "04", "05"]);
}

#[tokio::test]
async fn without_a_window_the_report_is_one_piece_of_work_per_run() {
    let server = server().report(Report::new("/Small", 20_000)).start().await;
    let options = options(&server, json!({ "report": "/Small", "window": null, "parameters": null }));
    let first = run("first", NOW);
    let given = read(options.clone(), &first, &Resume::default()).await;
    assert_eq!((given.rows(), given.boundaries().len()), (20_000, 1), "it is whole or nothing");
    assert!(given.pieces.len() > 1);
    let again = read(options.clone(), &first, &from(given.last_checkpoint(&first))).await;
    assert_eq!(again.rows(), 0, "the same run has it");
    let second = read(options, &run("second", NOW), &from(given.last_checkpoint(&first))).await;
    assert_eq!(second.rows(), 20_000, "another run reads it anew");
}

#[tokio::test]
async fn a_plan_renders_nothing_and_asks_little() {
    let server = server().start().await;
    let (ctx, notes) = noting();
    let options = options(&server, json!({ "window": { "start": "2026-03-02T03:00", "lookback": "1h" } }));
    let mut source = make(options.clone()).unwrap();
    let plan = source.plan(&ctx.for_plan(), &run("r", NOW), &Resume::default()).await.unwrap();
    let work: Vec<_> = plan.work.iter().map(|work| work.what.as_str()).collect();
    assert_eq!(
        work,
        ["window 2026-03-02T03:00:00 to 2026-03-02T04:00:00", "window 2026-03-02T04:00:00 to 2026-03-02T05:00:00"]
    );
    assert!(plan.complete_work && plan.carries && plan.rereads && plan.replay == Replay::WholePartitions);
    assert_eq!(plan.notes, ["Line: all is 3 values now"]);
    assert_eq!(
        plan.identity.replace(&server.url(), "URL"),
        "ssrs URL /Manufacturing/Production log window=1h UTC From..To Line=all"
    );
    assert_eq!(server.log().renders().len(), 0);
    assert_eq!(notes.taken(), ["cheap ask for the parameters of /Manufacturing/Production log: done"; 2]);

    // What the plan has found out need not be asked again.
    let given = read_with(&ctx, &mut *source, &run("r", NOW), &Resume::default()).await;
    assert_eq!(given.rows(), 120);
    assert_eq!(server.log().count("GetItemParameters"), 2);

    // Nothing to read: nobody is asked.
    let mut options = options;
    options["window"].as_object_mut().unwrap().remove("lookback");
    let requests = server.log().requests().len();
    let mut source = make(options).unwrap();
    let done = from(given.last_checkpoint(&run("r", NOW)));
    let plan = source.plan(&ctx.for_plan(), &run("r", NOW), &done).await.unwrap();
    assert!(plan.nothing_to_do() && !plan.rereads);
    assert_eq!(server.log().requests().len(), requests);
}

#[tokio::test]
async fn a_plan_without_the_server_is_made_from_the_config() {
    let server = server().start().await;
    let options = options(&server, json!({}));
    server.stop().await;
    let mut source = make(options).unwrap();
    let plan = source.plan(&Context::bare(NAME).for_plan(), &run("r", NOW), &Resume::default()).await.unwrap();
    assert_eq!(plan.work.len(), 1);
    assert!(
        plan.notes[0].starts_with("the server could not be asked, so the parameters are not checked: "),
        "{:?}",
        plan.notes
    );
}

/// Each fault of a rendering: what is said of it, whether it may be tried again, and that nothing of it counts.
#[tokio::test]
async fn each_fault_of_a_rendering() {
    let faults: &[(&str, Fault)] = &[
        ("closed", Fault::Close),
        ("cut", Fault::CutAfter(2_000)),
        ("cut before the first byte", Fault::CutAfter(0)),
        ("stalled", Fault::StallAfter(2_000)),
        ("silent", Fault::FirstByte(Duration::from_secs(600))),
        ("ends inside a row", Fault::EndAfter(2_000)),
        ("proxy", Fault::Status(502)),
        ("busy", Fault::RetryAfter(503, 120)),
        ("query failed", Fault::Rs("rsErrorExecutingCommand", "Query execution failed for dataset 'Log'.")),
        ("too long", Fault::Rs("rsReportTimeoutExpired", "The report took too long.")),
        ("page", Fault::Html),
    ];
    let mut shown = Vec::new();
    for (name, fault) in faults {
        let server = server().fault(On::Render, 0..1, fault.clone()).start().await;
        let (ctx, notes) = noting();
        let more = json!({ "timeouts": { "idle": "300ms", "first_byte": "1s" } });
        let mut source = make(options(&server, more)).unwrap();
        let given = read_with(&ctx, &mut *source, &run("r", NOW), &Resume::default()).await;
        assert!(given.boundaries().is_empty(), "{name}: nothing of it may count");
        let note = notes.taken().pop().unwrap();
        shown.push(format!(
            "{name}: {}\n  lease of {note}",
            given.says().replace(&server.address().to_string(), "SERVER")
        ));
        // And the next attempt has all of it.
        let again = read(options(&server, json!({})), &run("r", NOW), &Resume::default()).await;
        assert_eq!((again.rows(), again.says()), (60, "no error".to_owned()), "{name}");
    }
    insta::assert_snapshot!(shown.join("\n"));
}

#[tokio::test]
async fn an_error_page_is_understood_whatever_its_status() {
    for status in [200, 400, 404, 500] {
        let server = server().error_status(status).start().await;
        let more = json!({ "report": "/Manufacturing/No such", "parameters": null });
        let given = read(options(&server, more), &run("r", NOW), &Resume::default()).await;
        let error = given.error.unwrap();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{status}: {error}");
        assert!(
            error.to_string().contains("The item '/Manufacturing/No such' cannot be found. (rsItemNotFound)"),
            "{status}: {error}"
        );
    }
}

#[tokio::test]
async fn a_missing_right_is_told_from_a_wrong_password() {
    for status in [401, 403] {
        let server = server().deny("loader", "/Manufacturing/Production log").denied_status(status).start().await;
        let more = json!({ "parameters": { "Line": ["L1"] } });
        let given = read(options(&server, more), &run("r", NOW), &Resume::default()).await;
        let error = given.error.unwrap();
        assert_eq!(error.kind(), ErrorKind::Auth);
        assert!(error.to_string().contains("rsAccessDenied"), "{status}: {error}");
        assert!(error.what_to_do().unwrap().contains("Browser"), "{status}: {error}");
    }
}

#[tokio::test]
async fn a_wrong_password_goes_out_once() {
    let server = server().lockout_after(3).start().await;
    let options = options(&server, json!({ "auth": { "password": "wrong" } }));
    let mut source = make(options).unwrap();
    let error = source.plan(&Context::bare(NAME).for_plan(), &run("r", NOW), &Resume::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Auth);
    assert!(!error.can_retry());
    assert!(!format!("{error} {error:?}").contains("wrong\""), "the password does not show");
    assert_eq!((server.log().wrong_passwords(), server.is_locked("loader")), (1, false));
}

#[tokio::test]
async fn rows_are_on_their_way_while_the_report_arrives() {
    let server = server().report(Report::new("/Large", 100_000)).rate(2_000_000).start().await;
    let options = options(&server, json!({ "report": "/Large", "window": null, "parameters": null }));
    let mut source = make(options).unwrap();
    source.open(&Context::bare(NAME), &run("r", NOW), &Resume::default()).await.unwrap();
    let Next::Piece(piece) = source.next().await.unwrap() else { panic!("no piece") };
    assert!(piece.rows.num_rows() > 0 && matches!(piece.mark, Mark::Within(_)));
    assert!(!server.log().renders()[0].complete, "the report is still being sent");
    source.close().await.unwrap();
}

#[tokio::test]
async fn a_dropped_call_does_not_render_again() {
    let server = server().first_byte(Duration::from_millis(300)).start().await;
    let mut source = make(options(&server, json!({}))).unwrap();
    source.open(&Context::bare(NAME), &run("r", NOW), &Resume::default()).await.unwrap();
    let mut rows = 0;
    loop {
        // Dropped again and again while the report is being rendered.
        match tokio::time::timeout(Duration::from_millis(20), source.next()).await {
            Err(_) => {}
            Ok(Ok(Next::Piece(piece))) => rows += piece.rows.num_rows(),
            Ok(Ok(Next::End)) => break,
            Ok(other) => panic!("{other:?}"),
        }
    }
    source.close().await.unwrap();
    assert_eq!((rows, server.log().renders().len()), (60, 1));
}

#[tokio::test]
async fn a_server_counts_as_busy_until_it_is_known_to_be_done() {
    let rendering = "full render window 2026-03-02T04:00:00 to 2026-03-02T05:00:00";
    // Read to the end.
    let quick = server().start().await;
    let (ctx, notes) = noting();
    let mut source = make(options(&quick, json!({}))).unwrap();
    read_with(&ctx, &mut *source, &run("r", NOW), &Resume::default()).await;
    assert_eq!(notes.taken().pop().unwrap(), format!("{rendering}: done"));
    // Closed while it flows: it stops when it sees that nobody listens.
    let flowing = server().rate(1_000).start().await;
    let (ctx, notes) = noting();
    let mut source = make(options(&flowing, json!({}))).unwrap();
    source.open(&ctx, &run("r", NOW), &Resume::default()).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(500), source.next()).await.is_err());
    source.close().await.unwrap();
    assert_eq!(notes.taken().pop().unwrap(), format!("{rendering}: done"));
    // Closed while it is silent: the call itself never came back, which the engine's door counts as busy.
    let silent = server().first_byte(Duration::from_secs(600)).start().await;
    let (ctx, notes) = noting();
    let mut source = make(options(&silent, json!({}))).unwrap();
    source.open(&ctx, &run("r", NOW), &Resume::default()).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(500), source.next()).await.is_err());
    source.close().await.unwrap();
    assert!(notes.taken().iter().all(|note| !note.starts_with("full")), "{:?}", notes.taken());
}

#[tokio::test]
async fn one_bad_row_costs_one_row_and_says_in_which_window() {
    let report = Report::production_log(60).ragged_every(30);
    let server = ReportServer::builder().report(report).account("CORP", "loader", PASSWORD).start().await;
    let given = read(options(&server, json!({})), &run("r", NOW), &Resume::default()).await;
    let rejects: Vec<_> = given.pieces.iter().flat_map(|piece| &piece.rejects).collect();
    assert_eq!((given.rows(), rejects.len()), (58, 2), "{}", given.says());
    assert!(
        rejects[0].reason.ends_with("(window 2026-03-02T04:00:00 to 2026-03-02T05:00:00)"),
        "{}",
        rejects[0].reason
    );
    assert_eq!(rejects[1].position.unwrap().record, 60);
}

#[tokio::test]
async fn discover_lists_reports_and_parameters() {
    let server = server().report(Report::new("/Sales/Orders", 1)).start().await;
    let ctx = Context::bare(NAME);
    let discover = async |more| {
        let found = make(options(&server, more)).unwrap().discover(&ctx).await.unwrap();
        format!("{}\n{:#}", found.text, found.items)
    };
    let list = json!({ "report": "", "window": null, "parameters": null });
    insta::assert_snapshot!("discover_reports", discover(list).await);
    let of_report = json!({ "window": null, "parameters": null });
    insta::assert_snapshot!("discover_parameters", discover(of_report).await);
    assert_eq!(server.log().renders().len(), 0);
}

#[tokio::test]
async fn parameters_that_depend_on_the_window_are_asked_for_with_each() {
    let by_day: &[(&str, &[&str])] = &[("2026-03-02T03:00:00", &["A"]), ("2026-03-02T04:00:00", &["A", "B"])];
    let report = Report::new("/Shifts", 60)
        .window("From", "To")
        .parameters([Parameter::new("Shift", Kind::String).multi().by("From", by_day).default(Preset::None)]);
    let server = ReportServer::builder().report(report).account("CORP", "loader", PASSWORD).start().await;
    let more = json!({ "report": "/Shifts", "parameters": { "Line": null, "Shift": "all" }, "window": { "start": "2026-03-02T03:00" } });
    let given = read(options(&server, more), &run("r", NOW), &Resume::default()).await;
    assert_eq!(given.says(), "no error");
    let asked: Vec<_> = server.log().renders().iter().map(|render| render.values("Shift").len()).collect();
    assert_eq!(asked, [1, 2]);
}
