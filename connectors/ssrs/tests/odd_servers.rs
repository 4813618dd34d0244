//! The source against servers that answer what a report server does not, or not often.

#![allow(clippy::unwrap_used, clippy::panic, reason = "it is what makes a test fail")]

use serde_json::json;
use towpath_core::{ErrorKind, Resume};
use wiremock::{Mock, MockServer, ResponseTemplate, matchers::any};

mod support;
use support::{make, read, run};

const NOW: &str = "2026-03-02T05:20:00Z";

/// Reads two windows from a server that answers these one after the other.
async fn answers(bodies: &[(&str, &[u8])]) -> (support::Given, usize) {
    let server = MockServer::start().await;
    for (kind, body) in bodies {
        let answer = ResponseTemplate::new(200).set_body_raw(body.to_vec(), kind);
        Mock::given(any()).respond_with(answer).up_to_n_times(1).mount(&server).await;
    }
    let options = json!({
        "url": format!("{}/ReportServer", server.uri()),
        "report": "/R",
        "window": { "size": "1h", "start": "2026-03-02T03:00", "start_parameter": "From", "end_parameter": "To" },
    });
    let given = read(options, &run("r", NOW), &Resume::default()).await;
    let asked = server.received_requests().await.unwrap().len();
    (given, asked)
}

#[tokio::test]
async fn windows_without_rows_are_done_all_the_same() {
    let (given, asked) = answers(&[("text/csv", b"\xef\xbb\xbfA,B\r\n"), ("text/csv", b"A,B\r\n1,2\r\n")]).await;
    assert_eq!((given.rows(), given.boundaries().len(), asked), (1, 2, 2), "{}", given.says());
}

#[tokio::test]
async fn other_columns_in_the_second_window_stop_before_a_row_of_them() {
    for second in [b"A,C\r\n1,2\r\n".as_slice(), b"A,B,C\r\n1,2,3\r\n", b"B,A\r\n1,2\r\n", b"C\r\n"] {
        let (given, _) = answers(&[("text/csv", b"A,B\r\n1,2\r\n"), ("text/csv", second)]).await;
        let error = given.error.as_ref().unwrap();
        assert_eq!((error.kind(), given.rows(), given.boundaries().len()), (ErrorKind::Data, 1, 1), "{error}");
        assert!(error.to_string().contains("window 2026-03-02T04:00:00"), "{error}");
    }
}

#[tokio::test]
async fn an_empty_answer_is_an_error() {
    let (given, _) = answers(&[("text/csv", b"")]).await;
    let error = given.error.unwrap();
    assert_eq!(error.kind(), ErrorKind::Data, "{error}");
}

#[tokio::test]
async fn a_page_that_calls_itself_csv_is_none() {
    let (given, _) =
        answers(&[("text/csv", b"<!DOCTYPE html><html><body>Wrong. (rsItemNotFound)</body></html>")]).await;
    assert_eq!(given.error.unwrap().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn after_an_error_only_close_is_called_and_next_says_so() {
    let server = MockServer::start().await;
    let options = json!({ "url": server.uri(), "report": "/R" });
    let mut source = make(options).unwrap();
    let ctx = towpath_core::Context::bare(support::NAME);
    source.open(&ctx, &run("r", NOW), &Resume::default()).await.unwrap();
    assert_eq!(source.next().await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(source.next().await.unwrap_err().kind(), ErrorKind::Internal);
    source.close().await.unwrap();
}
