//! What the server answers, and each fault.

use std::io::Read as _;

use towpath_testkit::report_server::{Fault, On, Report, ReportServer};

use crate::{
    LOG,
    client::{End, ask, get},
};

async fn open(report: Report) -> ReportServer {
    ReportServer::builder().report(report).start().await
}

#[tokio::test]
async fn a_csv_comes_as_the_server_sends_it() {
    let server = open(Report::production_log(100)).await;
    let reply = get(&server, LOG, &[]).await;
    assert_eq!((reply.status, reply.end), (200, End::Clean));
    let text = String::from_utf8(reply.body).unwrap();
    let (first, rest) = text.split_once("\r\n").unwrap();
    assert!(first.starts_with("\u{feff}Timestamp,Line,"), "{first}");
    assert_eq!(rest.matches("\r\n").count(), 200);
    assert!(rest.starts_with("2026-03-01T00:00:00.000,"));
    let [from, to] = ["2026-03-01T00:00", "2026-03-01T02:00"].map(|time| time.parse().unwrap());
    assert_eq!(text.trim_start_matches('\u{feff}'), Report::production_log(100).csv(from, to));
    let renders = server.log().renders();
    assert_eq!((renders[0].rows, renders[0].complete, renders[0].values("Line").len()), (200, true, 2));
    assert_eq!(renders[0].value("From"), Some("2026-03-01T00:00:00"));
}

#[tokio::test]
async fn a_form_asks_for_the_same() {
    let server = open(Report::production_log(100)).await;
    let by_get = get(&server, LOG, &[]).await;
    let (path, rest) = LOG.split_once('&').unwrap();
    let form = rest.replace("rs:", "rs%3A").replace("rc:", "rc%3A");
    let by_post = ask(&server, "POST", path, &[("content-type", "application/x-www-form-urlencoded")], &form).await;
    assert_eq!(by_post.text(), by_get.text());
    // Without a length there is no answer but this.
    let stream = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    stream.writable().await.unwrap();
    stream.try_write(b"POST /ReportServer HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    stream.readable().await.unwrap();
    let mut answer = [0; 12];
    stream.try_read(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 411");
}

#[tokio::test]
async fn requests_that_are_not_right_get_the_servers_own_answers() {
    let server = open(Report::production_log(100)).await;
    let long = format!("{LOG}&Shift={}", "x".repeat(17_000));
    let cases = [
        ("/ReportServer?/Nowhere&rs:Format=CSV", 404, "(rsItemNotFound)"),
        (&LOG.replace("&Line=L1&Line=L2", ""), 500, "(rsReportParameterValueNotSet)"),
        (&LOG.replace("Line=L1", "Line=L7"), 500, "(rsInvalidReportParameter)"),
        (&LOG.replace("From=2026", "From=x2026"), 500, "(rsReportParameterTypeMismatch)"),
        (&LOG.replace("&From", "&from"), 500, "(rsUnknownReportParameter)"),
        (&LOG.replace("rs:Format", "rs%3AFormat"), 200, "Report Viewer"),
        (&LOG.replace("=CSV", "=PDF"), 500, "(rsRenderingExtensionNotFound)"),
        (&LOG.replace("&rs:Format=CSV", ""), 200, "Report Viewer"),
        (&LOG.replace("&rc:ExcelMode=false", ""), 200, "ReportTitle\r\nProduction log\r\n\r\nTimestamp,"),
        (&long, 400, "Request Too Long"),
        ("/elsewhere", 404, "Not Found"),
    ];
    for (target, status, text) in cases {
        let reply = get(&server, target, &[]).await;
        assert_eq!(reply.status, status, "{target}");
        assert!(reply.text().contains(text), "{target}: {}", reply.text());
    }
    let told = ReportServer::builder().error_status(200).start().await;
    let reply = get(&told, "/ReportServer?/Nowhere&rs:Format=CSV", &[]).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, "text/html; charset=utf-8"));
}

#[tokio::test]
async fn windows_follow_the_language_of_the_request() {
    let server = open(Report::production_log(1)).await;
    let target = |language: &str| {
        let base = LOG.replace("&rs:ParameterLanguage=en-US", language);
        base.replace("From=2026-03-01T00:00:00", "From=2/1/2026").replace("To=2026-03-01T02:00:00", "To=2/1/2026+02:00")
    };
    let day = |text: String| text.lines().nth(1).unwrap()[..10].to_owned();
    for (language, header, expect) in [
        ("&rs:ParameterLanguage=en-US", "de-DE", "2026-02-01"),
        ("", "de-DE,de;q=0.8", "2026-01-02"),
        ("&rs:ParameterLanguage=en-GB", "en-US", "2026-01-02"),
    ] {
        let reply = get(&server, &target(language), &[("accept-language", header)]).await;
        assert_eq!(day(reply.text()), expect, "{language} {header}");
    }
}

#[tokio::test]
async fn framing_and_compression_are_as_told() {
    let plain = get(&open(Report::production_log(3000)).await, LOG, &[]).await;
    assert_eq!(plain.header("transfer-encoding"), "chunked");
    let length = ReportServer::builder().report(Report::production_log(3000)).content_length().start().await;
    let with_length = get(&length, LOG, &[]).await;
    assert_eq!(with_length.header("content-length"), plain.body.len().to_string());
    assert_eq!(with_length.body, plain.body);
    assert!(length.log().renders()[0].complete);
    let packed = ReportServer::builder().report(Report::production_log(3000)).gzip().start().await;
    let reply = get(&packed, LOG, &[("accept-encoding", "gzip, br")]).await;
    assert_eq!(reply.header("content-encoding"), "gzip");
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&reply.body[..]).read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, plain.body);
    assert_eq!(get(&packed, LOG, &[]).await.body, plain.body, "only for who accepts it");
}

#[tokio::test]
async fn each_fault_of_a_rendering_strikes_once_and_the_next_is_whole() {
    let server = open(Report::production_log(3000)).await;
    let whole = get(&server, LOG, &[]).await.body;
    let cases = [
        (Fault::Close, 0, End::Broken, Some(0)),
        (Fault::CutAfter(50_000), 200, End::Broken, Some(50_000)),
        (Fault::CutAfter(0), 200, End::Broken, Some(0)),
        (Fault::StallAfter(50_000), 200, End::Silent, Some(50_000)),
        (Fault::EndAfter(50_000), 200, End::Clean, Some(50_000)),
        (Fault::Status(503), 503, End::Clean, None),
        (Fault::RetryAfter(503, 7), 503, End::Clean, None),
        (Fault::Rs("rsProcessingAborted", "An error has occurred during report processing."), 500, End::Clean, None),
        (Fault::Html, 200, End::Clean, None),
        (Fault::CloseAfter, 200, End::Clean, Some(whole.len())),
        (Fault::CloseAnnounced, 200, End::Clean, Some(whole.len())),
    ];
    for (fault, status, end, length) in cases {
        server.faults().add(On::Render, 0..1, fault.clone());
        let reply = get(&server, LOG, &[]).await;
        assert_eq!((reply.status, &reply.end), (status, &end), "{fault:?}");
        match length {
            Some(length) => assert_eq!(reply.body, whole[..length], "{fault:?}"),
            None => assert!(reply.header("content-type").starts_with("text/html"), "{fault:?}"),
        }
        if let Fault::RetryAfter(..) = fault {
            assert_eq!(reply.header("retry-after"), "7");
        }
        assert_eq!(get(&server, LOG, &[]).await.body, whole, "behind {fault:?}");
    }
    let complete = server.log().renders().iter().filter(|render| render.complete).count();
    assert_eq!(complete, 11 + 1 + 2, "those that were not struck, and the two that were only closed");
}

#[tokio::test]
async fn a_slow_one_is_slow_and_cut_inside_its_gzip() {
    let server = ReportServer::builder().report(Report::production_log(3000)).gzip().start().await;
    server.faults().add(On::Render, 0..1, Fault::EndAfter(100_000));
    let reply = get(&server, LOG, &[("accept-encoding", "gzip")]).await;
    assert_eq!(reply.end, End::Clean);
    let mut unpacked = Vec::new();
    assert!(flate2::read::GzDecoder::new(&reply.body[..]).read_to_end(&mut unpacked).is_err(), "its end is missing");
    assert_eq!(unpacked.len(), 100_000);
    server.faults().add(On::Render, 0..1, Fault::Rate(100_000));
    server.faults().add(On::Render, 0..1, Fault::FirstByte(std::time::Duration::from_millis(300)));
    let begun = std::time::Instant::now();
    let reply = get(&server, LOG, &[]).await;
    assert_eq!(reply.end, End::Clean);
    let least = 300 + (reply.body.len() as u64 - 10_000) * 1000 / 100_000;
    assert!(begun.elapsed().as_millis() as u64 >= least, "no faster than told");
}

#[tokio::test]
async fn the_first_request_of_a_session_is_redirected() {
    let server = ReportServer::builder().report(Report::production_log(1)).session_redirect().start().await;
    let reply = get(&server, LOG, &[]).await;
    assert_eq!(reply.status, 302);
    assert_eq!(get(&server, reply.header("location"), &[]).await.status, 200);
    assert_eq!(server.log().renders().len(), 1);
}

#[tokio::test]
async fn a_server_that_is_stopped_or_dropped_leaves_nothing_behind() {
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = alive();
    for dropped in [false, true] {
        let server = open(Report::production_log(100)).await;
        server.faults().add(On::Render, .., Fault::StallAfter(10));
        let address = server.address();
        let waiting = tokio::net::TcpStream::connect(address).await.unwrap();
        assert_eq!(get(&server, LOG, &[]).await.end, End::Silent);
        if dropped {
            drop(server)
        } else {
            server.stop().await
        }
        while alive() > before {
            tokio::task::yield_now().await;
        }
        assert!(tokio::net::TcpStream::connect(address).await.is_err());
        drop(waiting);
    }
}

#[tokio::test]
async fn a_million_rows_are_never_held() {
    let server = open(Report::production_log(500_000)).await;
    server.faults().add(On::Render, .., Fault::StallAfter(1_000_000));
    let reply = get(&server, LOG, &[]).await;
    assert_eq!((reply.body.len(), reply.end), (1_000_000, End::Silent));
    let rows = server.log().renders()[0].rows;
    assert!(rows < 12_000, "{rows} rows were made for the first megabyte");
}
