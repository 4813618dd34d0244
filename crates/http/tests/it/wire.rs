//! What comes off the wire: answers that break off, that stall, that are too large, that are compressed.

use std::time::Duration;

use crate::common::{Raw, plain};
use async_compression::tokio::write::{BrotliEncoder, GzipEncoder, ZstdEncoder};
use bytes::Bytes;
use futures::stream;
use tokio::io::AsyncWriteExt;
use towpath_core::{Context, Error, ErrorKind, Period, Result, Size};
use towpath_http::{Body, Client, HttpOptions, Method, Request, Response, StatusCode, Timeouts, header};

fn client(options: &HttpOptions) -> Client {
    Client::new(options, &Context::bare("a")).unwrap()
}

async fn all(mut response: Response) -> Result<Vec<u8>> {
    let mut whole = vec![];
    while let Some(chunk) = response.chunk().await? {
        assert!(!chunk.is_empty());
        whole.extend_from_slice(&chunk);
    }
    assert!(response.chunk().await?.is_none(), "the end stays the end");
    Ok(whole)
}

async fn get(answer: impl Into<Vec<u8>>, options: &HttpOptions) -> Result<Vec<u8>> {
    let server = Raw::start(answer, false).await;
    all(client(options).send(Request::get(server.url.clone())).await?).await
}

fn answer(headers: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\n{headers}\r\n").as_bytes(), body].concat()
}

async fn pack(coding: &str, data: &[u8]) -> Vec<u8> {
    macro_rules! pack {
        ($encoder:ident) => {{
            let mut encoder = $encoder::new(vec![]);
            encoder.write_all(data).await.unwrap();
            encoder.shutdown().await.unwrap();
            encoder.into_inner()
        }};
    }
    match coding {
        "gzip" => pack!(GzipEncoder),
        "br" => pack!(BrotliEncoder),
        "zstd" => pack!(ZstdEncoder),
        other => panic!("{other}"),
    }
}

/// Bytes that do not shrink to nothing.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 26) as u8
    })
    .take(length)
    .collect()
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_error_and_never_short() {
    for (what, answer, says) in [
        ("short of its length", answer("Content-Length: 10\r\n", b"12345"), Some("broke off after 5 of 10 bytes")),
        ("nothing of it", answer("Content-Length: 10\r\n", b""), Some("broke off after 0 of 10 bytes")),
        ("a chunk cut", answer("Transfer-Encoding: chunked\r\n", b"5\r\n123"), Some("broke off after 3 bytes")),
        (
            "the last chunk missing",
            answer("Transfer-Encoding: chunked\r\n", b"5\r\n12345\r\n"),
            Some("broke off after 5 bytes"),
        ),
        ("whole", answer("Content-Length: 5\r\n", b"12345"), None),
        ("whole in chunks", answer("Transfer-Encoding: chunked\r\n", b"2\r\n12\r\n3\r\n345\r\n0\r\n\r\n"), None),
        ("until the end", answer("Connection: close\r\n", b"12345"), None),
    ] {
        match (get(answer, &plain()).await, says) {
            (Ok(body), None) => assert_eq!(body, b"12345", "{what}"),
            (Err(error), Some(says)) => {
                assert!(error.to_string().contains(says), "{what}: {error}");
                assert!(error.kind() == ErrorKind::Data && error.can_retry(), "{what}: {error:?}");
            }
            (other, _) => panic!("{what}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn compressed_answers_come_whole_or_not_at_all() {
    let data = noise(300_000);
    for coding in ["gzip", "br", "zstd"] {
        let packed = pack(coding, &data).await;
        let length = |body: &[u8]| format!("Content-Encoding: {coding}\r\nContent-Length: {}\r\n", body.len());
        assert_eq!(get(answer(&length(&packed), &packed), &plain()).await.unwrap(), data, "{coding}");
        // Cut, and yet as long as it says: only the coding knows.
        for keep in [1, 10, packed.len() / 2, packed.len() - 9, packed.len() - 1] {
            let cut = &packed[..keep];
            let error = get(answer(&length(cut), cut), &plain()).await.unwrap_err();
            assert!(error.to_string().contains(&format!("its {coding} data has no end")), "{coding} {keep}: {error}");
            assert!(error.kind() == ErrorKind::Data && error.can_retry(), "{coding} {keep}: {error:?}");
        }
        // Cut on the wire as well: the wire's own error comes through.
        let error = get(answer(&length(&packed), &packed[..1000]), &plain()).await.unwrap_err();
        assert!(error.to_string().contains("broke off after 1000 of"), "{coding}: {error}");
        assert!(
            get(answer(&format!("Content-Encoding: {coding}\r\nContent-Length: 0\r\n"), b""), &plain())
                .await
                .unwrap()
                .is_empty()
        );
        let error = get(answer(&length(&data), &data), &plain()).await.unwrap_err();
        assert!(error.to_string().contains(&format!("not valid {coding}")) && !error.can_retry(), "{coding}: {error}");
    }
    let two = [pack("gzip", b"one ").await, pack("gzip", b"two").await].concat();
    let two = answer(&format!("Content-Encoding: gzip\r\nContent-Length: {}\r\n", two.len()), &two);
    assert_eq!(get(two, &plain()).await.unwrap(), b"one two", "members one after the other are one file");
    let error = get(answer("Content-Encoding: compress\r\nContent-Length: 1\r\n", b"x"), &plain()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn compression_is_asked_for_unless_a_range_is() {
    let server = Raw::start(answer("Content-Encoding: gzip\r\nContent-Length: 3\r\n", b"raw"), false).await;
    let client = client(&plain());
    let range = Request::get(server.url.clone()).header(header::RANGE, "bytes=1-".parse().unwrap());
    for (request, asks) in [
        (Request::get(server.url.clone()).raw(), None),
        (range, Some("accept-encoding: identity")),
        (Request::head(server.url.clone()), Some("accept-encoding: gzip, br, zstd")),
    ] {
        let head = request.method == Method::HEAD;
        let response = client.send(request).await.unwrap();
        assert_eq!((response.content_length(), response.is_decompressed()), (Some(3), false));
        assert_eq!(all(response).await.unwrap(), if head { b"".as_slice() } else { b"raw" });
        let sent = server.heads().pop().unwrap().to_lowercase();
        match asks {
            Some(asks) => assert!(sent.contains(asks), "{sent}"),
            None => assert!(!sent.contains("accept-encoding"), "{sent}"),
        }
        assert!(sent.contains(concat!("user-agent: towpath/", env!("CARGO_PKG_VERSION"))), "{sent}");
    }
}

#[tokio::test]
async fn an_answer_may_be_too_large() {
    let options = HttpOptions { max_response: Some(Size(1000)), ..plain() };
    let fits = answer("Connection: close\r\n", &[7; 1000]);
    assert_eq!(get(fits, &options).await.unwrap().len(), 1000);
    let declared = answer("Content-Length: 1001\r\n", &[7; 1001]);
    let undeclared = answer("Connection: close\r\n", &[7; 1001]);
    let packed = pack("gzip", &[0; 100_000]).await;
    assert!(packed.len() < 1000);
    let packed = answer("Content-Encoding: gzip\r\nConnection: close\r\n", &packed);
    for answer in [declared, undeclared, packed] {
        let error = get(answer, &options).await.unwrap_err();
        assert!(error.to_string().contains("larger than max_response, 1000B"), "{error}");
        assert!(error.kind() == ErrorKind::Data && !error.can_retry());
    }
    let server = Raw::start(answer("Content-Length: 6\r\n", b"\xef\xbb\xbfa\xffb"), false).await;
    let send = || async { client(&plain()).send(Request::get(server.url.clone())).await.unwrap() };
    assert_eq!(send().await.bytes(6).await.unwrap(), b"\xef\xbb\xbfa\xffb".as_slice());
    assert_eq!(send().await.bytes(5).await.unwrap_err().kind(), ErrorKind::Data);
    assert_eq!(send().await.text(6).await.unwrap(), "a\u{fffd}b");
}

fn timeouts(set: impl FnOnce(&mut Timeouts, Period)) -> HttpOptions {
    let mut options = plain();
    set(&mut options.timeouts, Period(Duration::from_millis(100)));
    options
}

#[tokio::test]
async fn each_timeout_says_which_it_is() {
    let silent = Raw::start("", true).await;
    let stalls = Raw::start(answer("Content-Length: 10\r\n", b"12345"), true).await;
    let upload = || Body::stream(stream::pending::<std::io::Result<Bytes>>(), None);
    for (server, options, body, name) in [
        (&silent, timeouts(|all, soon| all.first_byte = Some(soon)), None, "first_byte"),
        (&silent, timeouts(|all, soon| all.total = Some(soon)), None, "total"),
        // As long as we send, nobody waits for an answer; only the total counts.
        (
            &silent,
            timeouts(|all, soon| {
                all.first_byte = Some(Period(Duration::from_millis(1)));
                all.total = Some(soon);
            }),
            Some(upload()),
            "total",
        ),
        (&stalls, timeouts(|all, soon| all.idle = Some(soon)), None, "idle"),
        (&stalls, timeouts(|all, soon| all.total = Some(soon)), None, "total"),
    ] {
        let request = match body {
            None => Request::get(server.url.clone()),
            Some(body) => Request::new(Method::POST, server.url.clone()).body(body),
        };
        let error: Error = match client(&options).send(request).await {
            Ok(response) => all(response).await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.kind(), ErrorKind::Timeout, "{name}: {error}");
        assert!(error.can_retry() && error.to_string().contains(&format!("within 100ms (timeouts.{name})")), "{error}");
        assert_eq!(error.what_to_do().unwrap(), format!("raise timeouts.{name} if the server needs longer"));
    }
}

#[tokio::test]
async fn a_connection_may_take_too_long() {
    // Accepts nothing: the queue of one is filled, further connections wait.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let at = listener.local_addr().unwrap();
    let mut filling = vec![];
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(300), tokio::net::TcpStream::connect(at)).await
    {
        filling.push(stream);
        assert!(filling.len() < 100, "the queue does not fill");
    }
    let url = format!("http://{at}/").parse().unwrap();
    let error = client(&timeouts(|all, soon| all.connect = Some(soon))).send(Request::get(url)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(error.to_string().contains("no connection within 100ms (timeouts.connect)"), "{error}");
    assert!(error.is_unsent(), "{error}");
}

#[tokio::test]
async fn what_does_not_answer_is_unavailable() {
    let closed = Raw::start("", false).await;
    let error = client(&plain()).send(Request::get(closed.url.clone())).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.can_retry(), "{error:?}");
    assert!(error.to_string().contains("broke before the answer") && !error.is_unsent(), "{error}");
    let gone = closed.url.clone();
    drop(closed);
    // The port may close a moment later.
    let error = loop {
        let error = client(&plain()).send(Request::get(gone.clone())).await.unwrap_err();
        if !error.to_string().contains("before the answer") {
            break error;
        }
    };
    assert!(error.kind() == ErrorKind::Unavailable && error.to_string().contains("cannot connect"), "{error}");
    // Nothing went out, so what came of it is known, also of a request that is not to be made twice.
    assert!(error.is_unsent() && !error.outcome_unknown().is_outcome_unknown());
    // A redirect is an answer: what gave it has been asked.
    let moved = Raw::start(format!("HTTP/1.1 307 Moved\r\nLocation: {gone}\r\nContent-Length: 0\r\n\r\n"), false).await;
    let error = client(&plain()).send(Request::post(moved.url.clone(), "{}")).await.unwrap_err();
    assert!(error.to_string().contains("cannot connect") && !error.is_unsent(), "{error}");
}

#[tokio::test]
async fn a_status_can_be_an_answer() {
    let server = Raw::start("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Encoding: gzip\r\n\r\n", false).await;
    let request = Request::get(server.url.clone()).accept(StatusCode::NOT_MODIFIED);
    let response = client(&plain()).send(request).await.unwrap();
    assert_eq!((response.status.as_u16(), response.header(&header::ETAG)), (304, Some("\"x\"")));
    assert!(all(response).await.unwrap().is_empty());
    assert_eq!(client(&plain()).send(Request::get(server.url.clone())).await.unwrap_err().kind(), ErrorKind::Data);
}
