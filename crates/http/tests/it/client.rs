//! The plain path: headers, credentials, redirects, refusals, proxies.

use crate::common::{Memory, plain};
use futures::stream;
use towpath_core::{Context, ErrorKind, Retry, Secret};
use towpath_http::{Auth, Body, Client, HttpOptions, Method, Proxy, Request, Url, refusal};
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{any, body_string, header, headers, method, path, query_param},
};

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

fn basic() -> Auth {
    Auth::Basic { username: "joe".to_owned(), password: secret("hunter2") }
}

fn client(auth: Auth, memory: &Memory) -> Client {
    Client::new(&HttpOptions { auth, ..plain() }, &memory.context()).unwrap()
}

fn url(server: &MockServer, path: &str) -> Url {
    format!("{}{path}", server.uri()).parse().unwrap()
}

async fn always(server: &MockServer, answer: ResponseTemplate) {
    Mock::given(any()).respond_with(answer).mount(server).await;
}

#[tokio::test]
async fn credentials_go_where_they_belong() {
    let server = MockServer::start().await;
    for (at, matcher) in [
        ("/basic", header("authorization", "Basic am9lOmh1bnRlcjI=")),
        ("/bearer", header("authorization", "Bearer t0k")),
        ("/header", header("x-api-key", "k&y")),
    ] {
        Mock::given(path(at)).and(matcher).respond_with(ResponseTemplate::new(200)).mount(&server).await;
    }
    let in_query = Mock::given(path("/query")).and(query_param("key", "k&y")).and(query_param("a:b", "1"));
    in_query.respond_with(ResponseTemplate::new(200)).mount(&server).await;
    let key = |header: Option<&str>, query: Option<&str>| Auth::ApiKey {
        header: header.map(str::to_owned),
        query: query.map(str::to_owned),
        value: secret("k&y"),
    };
    for (path, auth) in [
        ("/basic", basic()),
        ("/bearer", Auth::Bearer { token: secret("t0k") }),
        ("/header", key(Some("X-Api-Key"), None)),
        ("/query?a:b=1", key(None, Some("key"))),
    ] {
        let memory = Memory::default();
        client(auth, &memory).send(Request::get(url(&server, path))).await.unwrap();
        assert_eq!(memory.said(), ["proven"], "{path}");
    }
    let asked = server.received_requests().await.unwrap();
    assert_eq!(asked.last().unwrap().url.query(), Some("a:b=1&key=k%26y"), "the query stays as it was written");
    for auth in [key(None, None), key(Some("a"), Some("b")), key(Some("not a header"), None)] {
        let error = Client::new(&HttpOptions { auth, ..plain() }, &Context::bare("a")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
    }
}

#[tokio::test]
async fn a_refused_credential_goes_out_once() {
    let server = MockServer::start().await;
    let text = "<b>no such user</b> hunter2 s3cret";
    always(
        &server,
        ResponseTemplate::new(401).insert_header("www-authenticate", "Basic realm=\"x\"").set_body_string(text),
    )
    .await;
    let memory = Memory::default();
    let mut options = HttpOptions { auth: basic(), ..plain() };
    options.headers.insert("x-extra".to_owned(), secret("s3cret"));
    let client = Client::new(&options, &memory.context()).unwrap();
    let error = client.send(Request::get(url(&server, "/?token=abc"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Auth);
    let shown = format!("{error} {error:?}");
    for hidden in ["hunter2", "s3cret", "abc"] {
        assert!(!shown.contains(hidden), "{shown}");
    }
    assert!(shown.contains("no such user *** ***") && shown.contains("the server refused joe"), "{shown}");
    assert!(error.what_to_do().unwrap().contains("towpath state reset credentials"));
    for _ in 0..5 {
        client.send(Request::get(url(&server, "/"))).await.unwrap_err();
    }
    assert_eq!(server.received_requests().await.unwrap().len(), 1);
    assert_eq!(memory.said(), ["refused"]);
}

#[tokio::test]
async fn an_answer_judges_the_credential_or_does_not() {
    for (status, said) in [
        (200, "proven"),
        (403, "proven"),
        (404, "proven"),
        (500, "proven"),
        (401, "refused"),
        (429, "unsent"),
        (503, "unsent"),
        (502, "unknown"),
        (504, "unknown"),
    ] {
        let server = MockServer::start().await;
        always(&server, ResponseTemplate::new(status)).await;
        let memory = Memory::default();
        let _ = client(basic(), &memory).send(Request::get(url(&server, "/"))).await;
        assert_eq!(memory.said(), [said], "{status}");
    }
    let memory = Memory::default();
    let nobody = "http://127.0.0.1:9/".parse().unwrap();
    client(basic(), &memory).send(Request::get(nobody)).await.unwrap_err();
    assert_eq!(memory.said(), ["unsent"], "nothing was connected to");
}

#[tokio::test]
async fn a_missing_right_names_the_account() {
    let server = MockServer::start().await;
    always(&server, ResponseTemplate::new(401).set_body_string("rsAccessDenied: no")).await;
    let memory = Memory::default();
    let client = client(basic(), &memory);
    let request = Request::get(url(&server, "/")).denied(|body| body.contains("rsAccessDenied"));
    let error = client.send(request).await.unwrap_err();
    assert!(error.to_string().contains("joe, whose sign-in was accepted, lacks the right"), "{error}");
    assert_eq!((error.kind(), memory.said()), (ErrorKind::Auth, vec!["proven"]));
    assert_eq!(refusal(&error).unwrap().text, "rsAccessDenied: no");
}

#[tokio::test]
async fn a_refusal_says_when_to_come_again() {
    let server = MockServer::start().await;
    always(&server, ResponseTemplate::new(429).insert_header("retry-after", "7").set_body_string("slow down")).await;
    let error = client(Auth::None, &Memory::default()).send(Request::get(url(&server, "/r"))).await.unwrap_err();
    assert_eq!(error.retrying(), Retry::After(std::time::Duration::from_secs(7)));
    let expected = format!("GET {}/r: the server answered 429 Too Many Requests: slow down", server.uri());
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn redirects_stay_at_home_when_signed_in() {
    let (home, away) = (MockServer::start().await, MockServer::start().await);
    always(&away, ResponseTemplate::new(200)).await;
    let to = |status: u16, to: &str| ResponseTemplate::new(status).insert_header("location", to);
    for (from, answer) in [
        ("/near", to(302, "there?x=1#f")),
        ("/far", to(302, &format!("{}/?token=abc", away.uri()))),
        ("/round", to(301, "/round")),
        ("/see", to(303, "/there")),
        ("/keep", to(307, "/there")),
        ("/odd", to(302, "http://")),
    ] {
        Mock::given(path(from)).respond_with(answer).mount(&home).await;
    }
    Mock::given(path("/there")).respond_with(ResponseTemplate::new(200)).mount(&home).await;
    let memory = Memory::default();
    let signed_in = client(basic(), &memory);
    let response = signed_in.send(Request::get(url(&home, "/near"))).await.unwrap();
    assert_eq!(response.url, url(&home, "/there?x=1"));
    let error = signed_in.send(Request::get(url(&home, "/far"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("credentials stay at") && error.to_string().contains("token=***"), "{error}");
    assert!(away.received_requests().await.unwrap().is_empty());
    let error = signed_in.send(Request::get(url(&home, "/round"))).await.unwrap_err();
    assert!(error.to_string().contains("more than 10 redirects") && !error.can_retry(), "{error}");
    assert_eq!(signed_in.send(Request::get(url(&home, "/odd"))).await.unwrap_err().kind(), ErrorKind::Data);
    assert!(memory.said().iter().all(|said| *said == "proven"));

    // Not signed in, one may go elsewhere, but secrets stay.
    let mut options = plain();
    options.headers.insert("x-secret".to_owned(), secret("s3cret"));
    let free = Client::new(&options, &Context::bare("a")).unwrap();
    free.send(Request::get(url(&home, "/far"))).await.unwrap();
    let seen = away.received_requests().await.unwrap();
    assert!(!seen[0].headers.contains_key("x-secret") && seen[0].headers.contains_key("user-agent"));

    for (from, body, expected) in [
        ("/see", Body::Bytes("abc".into()), Some(("GET", ""))),
        ("/keep", Body::Bytes("abc".into()), Some(("POST", "abc"))),
        ("/see", Body::stream(stream::iter([Ok("abc".into())]), None), Some(("GET", ""))),
        ("/keep", Body::stream(stream::iter([Ok("abc".into())]), None), None),
    ] {
        let answer = free.send(Request::new(Method::POST, url(&home, from)).body(body)).await;
        let last = home.received_requests().await.unwrap().pop().unwrap();
        match expected {
            Some((method, body)) => {
                answer.unwrap();
                assert_eq!((last.method.as_str(), last.body.as_slice()), (method, body.as_bytes()), "{from}");
            }
            None => assert_eq!(answer.unwrap_err().kind(), ErrorKind::Unsupported),
        }
    }
}

#[tokio::test]
async fn bodies_are_streamed_with_and_without_a_length() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(body_string("abcdef"))
        .respond_with(ResponseTemplate::new(200))
        .mount(&server)
        .await;
    let client = client(Auth::None, &Memory::default());
    let pieces = || stream::iter(["abc", "", "def"].map(|piece| Ok(piece.into())));
    for (length, header) in [(None, ("transfer-encoding", "chunked")), (Some(6), ("content-length", "6"))] {
        let request = Request::new(Method::POST, url(&server, "/")).body(Body::stream(pieces(), length));
        client.send(request).await.unwrap();
        let sent = server.received_requests().await.unwrap().pop().unwrap();
        assert_eq!(sent.headers.get(header.0).unwrap(), header.1);
    }
    // A body that is not as long as was said, or fails, is an error and no success.
    let failing = stream::iter([Ok("abc".into()), Err(std::io::Error::other("the disk is gone"))]);
    for body in [Body::stream(pieces(), Some(7)), Body::stream(pieces(), Some(5)), Body::stream(failing, None)] {
        let request = Request::new(Method::POST, url(&server, "/")).body(body);
        client.send(request).await.unwrap_err();
    }
    client.send(Request::post(url(&server, "/"), "abcdef")).await.unwrap();
    let error = client.send(Request::new(Method::POST, url(&server, "/"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let sent = server.received_requests().await.unwrap().pop().unwrap();
    assert_eq!(sent.headers.get("content-length").unwrap(), "0", "servers want a length with every post");
}

#[tokio::test]
async fn headers_of_a_request_win() {
    let server = MockServer::start().await;
    let expected = headers("user-agent", vec!["me"]);
    Mock::given(expected).and(header("x-a", "mine")).respond_with(ResponseTemplate::new(200)).mount(&server).await;
    let mut options = HttpOptions { user_agent: Some("me".to_owned()), ..plain() };
    options.headers.insert("x-a".to_owned(), secret("theirs"));
    let client = Client::new(&options, &Context::bare("a")).unwrap();
    let request = Request::get(url(&server, "/")).header("x-a".parse().unwrap(), "mine".parse().unwrap());
    client.send(request).await.unwrap();
}

#[tokio::test]
async fn a_proxy_is_asked() {
    let proxy = MockServer::start().await;
    let asked = Mock::given(header("proxy-authorization", "Basic am9lOmh1bnRlcjI="));
    asked.respond_with(ResponseTemplate::new(200).set_body_string("through")).mount(&proxy).await;
    let with_name = proxy.uri().replace("http://", "http://joe:hunter2@");
    let options = HttpOptions { proxy: Proxy::Url(secret(&with_name)), ..HttpOptions::default() };
    let client = Client::new(&options, &Context::bare("a")).unwrap();
    let response = client.send(Request::get("http://far.example/x".parse().unwrap())).await.unwrap();
    assert_eq!(response.text(100).await.unwrap(), "through");
}

#[tokio::test]
async fn some_urls_are_not_asked() {
    let client = client(Auth::None, &Memory::default());
    for url in ["ftp://a.example/", "file:///etc/passwd", "http://joe:hunter2@a.example/"] {
        let error = client.send(Request::get(url.parse().unwrap())).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Config && !error.to_string().contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn a_request_that_is_given_up_shows_what_its_credential_is_worth() {
    use std::time::Duration;
    let key = || Auth::ApiKey { header: Some("X-Api-Key".to_owned()), query: None, value: secret("k&y") };
    type Make = fn(Url) -> Request;
    let get: Make = Request::get;
    let told: Make = |url| Request::get(url).denied(|_| true);
    let post: Make = |url| Request::post(url, "{}");
    for (what, auth, make, status, took, said) in [
        ("taken", basic(), get, 200, 300, "proven"),
        ("a key that is taken", key(), get, 404, 300, "proven"),
        ("a key that is refused", key(), get, 401, 300, "refused"),
        ("the text would say it", key(), told, 401, 300, "unknown"),
        ("it may be that another scheme is wanted", basic(), get, 401, 300, "unknown"),
        ("no answer within the moment", basic(), get, 200, 60_000, "unknown"),
        ("what writes is not gone on with", basic(), post, 200, 300, "unknown"),
    ] {
        let server = MockServer::start().await;
        always(&server, ResponseTemplate::new(status).set_delay(Duration::from_millis(took))).await;
        let memory = Memory::default();
        let client = client(auth, &memory);
        let asked = client.send(make(url(&server, "/")));
        let until_it_is_out = async {
            while server.received_requests().await.unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            answer = asked => panic!("{what}: {answer:?}"),
            () = until_it_is_out => {}
        }
        let until_it_is_said = async {
            while memory.said().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), until_it_is_said).await.unwrap();
        assert_eq!(memory.said(), [said], "{what}");
    }
}
