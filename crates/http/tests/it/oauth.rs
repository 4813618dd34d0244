//! OAuth2: one renewal in flight, the new token stored before it is used, what is refused for good never sent again.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use towpath_core::{
    Call, Context, ErrorKind, Lease, Period, Result, Retry, Secret,
    context::{Admission, Attempt, Credentials, Door, Exchange, StoredToken},
};
use towpath_http::{Auth, Client, ClientAuth, HttpOptions, OAuth2, Request, Url};
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{body_string, header, method, path},
};

use crate::common::{Memory, plain};

/// What a state store is to several processes: one token, one hold on it at a time.
#[derive(Clone, Default)]
struct Shared {
    memory: Memory,
    stored: Arc<tokio::sync::Mutex<Option<StoredToken>>>,
    log: Arc<Mutex<Vec<String>>>,
}

struct Hold(tokio::sync::OwnedMutexGuard<Option<StoredToken>>, Shared);

#[async_trait]
impl Credentials for Shared {
    async fn admit(&self, server: &str, account: &str, secret: &Secret) -> Result<Box<dyn Admission>> {
        self.memory.admit(server, account, secret).await
    }
    async fn exchange(&self, _: &str, account: &str) -> Result<Box<dyn Exchange>> {
        assert_eq!(account, "oauth2 app 47a07fe7");
        Ok(Box::new(Hold(Arc::clone(&self.stored).lock_owned().await, self.clone())))
    }
}

impl Exchange for Hold {
    fn stored(&self) -> Result<Option<StoredToken>> {
        Ok(self.0.clone())
    }
    fn store(&mut self, token: StoredToken) -> Result<u64> {
        self.1.log.lock().unwrap().push(format!("store {}", token.access.expose()));
        let generation = self.0.as_ref().map_or(1, |known| known.generation + 1);
        *self.0 = Some(StoredToken { generation, ..token });
        Ok(generation)
    }
    fn fingerprint(&self, _: &Secret) -> Result<String> {
        Ok("print".to_owned())
    }
}

impl Shared {
    /// The context of another process.
    fn context(&self) -> Context {
        Context::new("test".into(), "a".into(), Arc::new(Passing), Arc::new(self.clone()), CancellationToken::new())
    }
}

struct Passing;

#[async_trait]
impl Door for Passing {
    async fn pass<'a>(&self, _: &Call, attempt: &mut (dyn FnMut() -> Attempt<'a> + Send)) -> Result<Lease> {
        attempt().await?;
        Ok(Lease::new(|_| {}))
    }
}

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

fn options(server: &MockServer, refresh: Option<&str>) -> HttpOptions {
    let auth = Auth::OAuth2(OAuth2 {
        token_url: format!("{}/oauth/token", server.uri()),
        client_id: "app".to_owned(),
        client_secret: Some(secret("s3cr3t")),
        refresh_token: refresh.map(secret),
        scope: None,
        expires_in: Period::seconds(3600),
        client_auth: ClientAuth::Header,
    });
    HttpOptions { auth, ..plain() }
}

fn client(server: &MockServer, ctx: &Context) -> Client {
    Client::new(&options(server, Some("refresh-0")), ctx).unwrap()
}

async fn get(server: &MockServer, client: &Client) -> Result<u16> {
    let url: Url = format!("{}/persons", server.uri()).parse().unwrap();
    client.send(Request::get(url)).await.map(|response| response.status.as_u16())
}

/// Each refresh token is good once and gives `access-n` and `refresh-n`.
async fn gives_tokens(server: &MockServer, extra: &'static str) {
    let given = AtomicU32::new(0);
    let answer = move |request: &wiremock::Request| {
        let n = given.load(Ordering::SeqCst);
        let body = String::from_utf8(request.body.clone()).unwrap();
        if body != format!("grant_type=refresh_token&refresh_token=refresh-{n}") {
            return ResponseTemplate::new(400)
                .set_body_string(format!(r#"{{"error":"invalid_grant","error_description":"what is {body}"}}"#));
        }
        given.store(n + 1, Ordering::SeqCst);
        let n = n + 1;
        ResponseTemplate::new(200).set_body_string(format!(
            r#"{{"access_token":"access-{n}","refresh_token":"refresh-{n}","token_type":"bearer"{extra}}}"#
        ))
    };
    // "app:s3cr3t"
    let basic = header("authorization", "Basic YXBwOnMzY3IzdA==");
    Mock::given(method("POST")).and(path("/oauth/token")).and(basic).respond_with(answer).mount(server).await;
}

async fn takes(server: &MockServer, token: &str) {
    let bearer = header("authorization", &*format!("Bearer {token}"));
    Mock::given(path("/persons")).and(bearer).respond_with(ResponseTemplate::new(200)).mount(server).await;
}

async fn asked(server: &MockServer, at: &str) -> usize {
    server.received_requests().await.unwrap().iter().filter(|request| request.url.path() == at).count()
}

#[tokio::test]
async fn a_token_is_got_once_and_shown_until_it_expires() {
    let server = MockServer::start().await;
    gives_tokens(&server, r#","expires_in":3599"#).await;
    takes(&server, "access-1").await;
    let client = client(&server, &Memory::default().context());
    let many = (0..20).map(|_| get(&server, &client));
    for status in futures::future::join_all(many).await {
        assert_eq!(status.unwrap(), 200);
    }
    assert_eq!(asked(&server, "/oauth/token").await, 1, "one renewal in flight");
}

#[tokio::test]
async fn several_processes_renew_once_and_store_before_use() {
    let server = MockServer::start().await;
    gives_tokens(&server, "").await;
    let shared = Shared::default();
    let log = Arc::clone(&shared.log);
    let answer = move |request: &wiremock::Request| {
        let token = request.headers.get("authorization").unwrap().to_str().unwrap().to_owned();
        let first = token == "Bearer access-1" && log.lock().unwrap().len() > 6;
        log.lock().unwrap().push(token);
        // The first is taken back when five have used it.
        ResponseTemplate::new(if first { 401 } else { 200 })
    };
    Mock::given(path("/persons")).respond_with(answer).mount(&server).await;
    let clients: Vec<_> = (0..6).map(|_| client(&server, &shared.context())).collect();
    for _ in 0..3 {
        let all = clients.iter().map(|client| get(&server, client));
        assert!(futures::future::join_all(all).await.into_iter().all(|status| status.unwrap() == 200));
    }
    assert_eq!(asked(&server, "/oauth/token").await, 2);
    let log = shared.log.lock().unwrap().clone();
    for n in 1..=2 {
        let at = |what: String| log.iter().position(|line| *line == what).unwrap();
        assert!(at(format!("store access-{n}")) < at(format!("Bearer access-{n}")), "{log:?}");
    }
    assert_eq!(log.iter().filter(|line| line.starts_with("store")).count(), 2);
}

#[tokio::test]
async fn a_token_that_is_about_to_expire_is_renewed_first() {
    for (extra, expected) in [(r#","expires_in":0"#, 3), (r#","expires_in":"3600""#, 1), ("", 1)] {
        let server = MockServer::start().await;
        gives_tokens(&server, extra).await;
        for n in 1..=3 {
            takes(&server, &format!("access-{n}")).await;
        }
        let client = client(&server, &Memory::default().context());
        for _ in 0..3 {
            get(&server, &client).await.unwrap();
        }
        assert_eq!(asked(&server, "/oauth/token").await, expected, "{extra}");
    }
}

#[tokio::test]
async fn a_token_that_was_taken_back_is_renewed_once() {
    let server = MockServer::start().await;
    gives_tokens(&server, "").await;
    takes(&server, "access-2").await;
    Mock::given(path("/persons")).respond_with(ResponseTemplate::new(401)).mount(&server).await;
    let client = client(&server, &Memory::default().context());
    assert_eq!(get(&server, &client).await.unwrap(), 200);
    assert_eq!(asked(&server, "/oauth/token").await, 2);
    // Those that were refused with the old one do not renew the new one.
    let many = (0..10).map(|_| get(&server, &client));
    assert!(futures::future::join_all(many).await.into_iter().all(|status| status.is_ok()));
    assert_eq!(asked(&server, "/oauth/token").await, 2);
}

#[tokio::test]
async fn a_new_token_that_is_refused_is_the_end_of_it() {
    let server = MockServer::start().await;
    gives_tokens(&server, "").await;
    Mock::given(path("/persons"))
        .respond_with(ResponseTemplate::new(401).set_body_string("no access-2 for you"))
        .mount(&server)
        .await;
    let client = client(&server, &Memory::default().context());
    let error = get(&server, &client).await.unwrap_err();
    assert_eq!((error.kind(), error.retrying()), (ErrorKind::Auth, Retry::Never));
    let text = error.to_string();
    assert!(text.contains("not a new one either") && !text.contains("access-2"), "{text}");
    assert_eq!(asked(&server, "/persons").await, 2);
}

#[tokio::test]
async fn what_is_refused_for_good_is_never_sent_again() {
    for (status, error, expected) in [
        (400, "invalid_grant", "does not take the refresh token any more"),
        (401, "invalid_client", "does not know the app"),
    ] {
        let server = MockServer::start().await;
        let answer = ResponseTemplate::new(status)
            .set_body_string(format!(r#"{{"error":"{error}","error_description":"refresh-0 s3cr3t"}}"#));
        Mock::given(path("/oauth/token")).respond_with(answer).mount(&server).await;
        let memory = Memory::default();
        let client = client(&server, &memory.context());
        for _ in 0..3 {
            let error = get(&server, &client).await.unwrap_err();
            assert_eq!((error.kind(), error.retrying()), (ErrorKind::Auth, Retry::Never), "{error}");
        }
        assert_eq!(asked(&server, "/oauth/token").await, 1, "{error}");
        assert_eq!(memory.said(), ["refused"]);
        let again = Client::new(&options(&server, Some("refresh-0")), &Memory::default().context()).unwrap();
        let text = get(&server, &again).await.unwrap_err().to_string();
        assert!(text.contains(expected) && !text.contains("refresh-0") && !text.contains("s3cr3t"), "{text}");
    }
}

#[tokio::test]
async fn an_endpoint_that_fails_may_be_asked_again() {
    for status in [429, 500, 502, 503, 504] {
        let server = MockServer::start().await;
        Mock::given(path("/oauth/token"))
            .respond_with(ResponseTemplate::new(status))
            .up_to_n_times(1)
            .mount(&server)
            .await;
        gives_tokens(&server, "").await;
        takes(&server, "access-1").await;
        let client = client(&server, &Memory::default().context());
        let error = get(&server, &client).await.unwrap_err();
        assert!(error.can_retry(), "{status}: {error}");
        assert_eq!(get(&server, &client).await.unwrap(), 200, "{status}");
    }
}

#[tokio::test]
async fn an_app_may_sign_in_by_itself_and_in_the_body() {
    let server = MockServer::start().await;
    let form = "grant_type=client_credentials&scope=read&client_id=app&client_secret=s3cr3t";
    let answer = ResponseTemplate::new(200).set_body_string(r#"{"access_token":"own"}"#);
    Mock::given(path("/oauth/token")).and(body_string(form)).respond_with(answer).mount(&server).await;
    takes(&server, "own").await;
    let mut options = options(&server, None);
    if let Auth::OAuth2(oauth) = &mut options.auth {
        (oauth.client_auth, oauth.scope) = (ClientAuth::Body, Some("read".to_owned()));
    }
    let client = Client::new(&options, &Memory::default().context()).unwrap();
    assert_eq!(get(&server, &client).await.unwrap(), 200);
}

#[tokio::test]
async fn options_are_read_and_shown_without_secrets() {
    let yaml = r#"{"auth":{"type":"oauth2","token_url":"https://oauth.example/token","client_id":"app","client_secret":"s3cr3t","refresh_token":"r"}}"#;
    let options: HttpOptions = serde_json::from_str(yaml).unwrap();
    let Auth::OAuth2(oauth) = &options.auth else { panic!("{options:?}") };
    assert_eq!((oauth.expires_in, oauth.client_auth), (Period::seconds(3600), ClientAuth::Header));
    assert!(!format!("{options:?} {}", serde_json::to_string(&options).unwrap()).contains("s3cr3t"));
    let wrong =
        HttpOptions { auth: Auth::OAuth2(OAuth2 { token_url: "no url".to_owned(), ..oauth.clone() }), ..plain() };
    let error = Client::new(&wrong, &Context::bare("a")).unwrap_err();
    assert_eq!(error.to_string(), "auth.token_url is not a url");
}
