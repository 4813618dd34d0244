//! The client: headers, sign-in, redirects, statuses.

use std::{fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use towpath_core::{Context, Error, Result, Retry, Secret};
use url::Url;

use crate::{
    classify::{Refusal, classify, status_text},
    leave::{Leave, Verdict, settle, verdict, watched},
    ntlm::SignIn,
    oauth::{Token, Tokens},
    options::{Auth, HttpOptions},
    pooled::{self, Failed},
    request::{Body, Request},
    response::Response,
    shown::{CUT, origin, shown_without},
    token,
    wire::{Limits, Outgoing, Wire},
};

/// How many redirects are followed.
const REDIRECTS: usize = 10;
/// How much of a refusal's body is read.
const REFUSAL: usize = 64 * 1024;

/// An HTTP client. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    options: HttpOptions,
    ctx: Context,
    way: Way,
    headers: HeaderMap,
    /// The credential in the clear, ready to go into a header.
    carried: Carried,
    tokens: Option<Tokens>,
}

/// How requests travel.
enum Way {
    Pooled(reqwest::Client),
    Own(Box<SignIn>),
}

/// The credential as each request carries it.
enum Carried {
    Nothing,
    Header(HeaderName, HeaderValue),
    /// `name=value`, escaped.
    Query(Secret),
}

/// One request on its way, changed by redirects.
struct Hop {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Body,
    /// The token it is signed in with.
    token: Option<Token>,
}

/// A head with a body behind it, and what is still to be said about the credential that went out for it.
pub(crate) struct Answer {
    pub head: http::response::Parts,
    pub wire: Wire,
    /// The leave under which a credential went out with this very request; `None` if none did.
    pub leave: Option<Leave>,
}

impl Client {
    /// A client for the options; connects to nothing yet.
    ///
    /// # Errors
    /// Config, if the options contradict each other or name files that cannot be used.
    pub fn new(options: &HttpOptions, ctx: &Context) -> Result<Self> {
        let mut tokens = None;
        let way = match &options.auth {
            Auth::Ntlm { .. } | Auth::Negotiate { .. } => Way::Own(Box::new(SignIn::new(options)?)),
            auth => {
                let client = pooled::client(options)?;
                if let Auth::OAuth2(oauth) = auth {
                    tokens = Some(Tokens::new(oauth, options.timeouts, client.clone(), ctx)?);
                }
                Way::Pooled(client)
            }
        };
        let mut headers = HeaderMap::new();
        let agent = options.user_agent.as_deref().unwrap_or(concat!("towpath/", env!("CARGO_PKG_VERSION")));
        headers.insert(header::USER_AGENT, value(agent, "user_agent")?);
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        for (name, secret) in &options.headers {
            let mut value = value(secret.expose(), &format!("headers.{name}"))?;
            value.set_sensitive(true);
            headers.insert(header_name(name, "headers")?, value);
        }
        let carried = carried(&options.auth)?;
        let inner = Inner { options: options.clone(), ctx: ctx.clone(), way, headers, carried, tokens };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Makes one try. Call it inside `ctx.call` or `ctx.stream`. Dropped before it returns, the connection is closed; for what only
    /// reads and carries an unproven credential two seconds later, so that the outcome is known.
    ///
    /// # Errors
    /// Classified by what happened: Timeout (its message says which), Unavailable, RateLimited (can be retried), Auth (a refused credential, a
    /// missing right), NotFound, Config (a certificate that is not trusted, a redirect to elsewhere), Data and others by status.
    /// [`refusal`](crate::refusal) gives the answer underneath.
    pub async fn send(&self, request: Request) -> Result<Response> {
        let place = format!("{} {}", request.method, self.shown(&request.url));
        self.follow(request).await.map_err(|error| error.at(place))
    }

    fn shown(&self, url: &Url) -> String {
        let query = match &self.inner.options.auth {
            Auth::ApiKey { query, .. } => query.as_deref(),
            _ => None,
        };
        shown_without(url, query)
    }

    async fn follow(&self, request: Request) -> Result<Response> {
        let Request { method, url, mut headers, body, accept_status, denied, decompress } = request;
        check(&url)?;
        let options = &self.inner.options;
        let limits = Limits::start(&options.timeouts);
        let home = origin(&url);
        let decompress = decompress && !headers.contains_key(header::RANGE);
        for (name, value) in &self.inner.headers {
            headers.entry(name).or_insert_with(|| value.clone());
        }
        if decompress {
            headers.entry(header::ACCEPT_ENCODING).or_insert(HeaderValue::from_static("gzip, br, zstd"));
        } else if headers.contains_key(header::RANGE) {
            headers.entry(header::ACCEPT_ENCODING).or_insert(HeaderValue::from_static("identity"));
        }
        let token = match &self.inner.tokens {
            // Without a token nothing of the request goes out.
            Some(tokens) => Some(tokens.token(None).await.map_err(Error::unsent)?),
            None => None,
        };
        let mut hop = Hop { method, url, headers, body, token };
        let mut renewed = false;
        for hops in 0..=REDIRECTS {
            let again = hop.body.again();
            let head = hop.method == Method::HEAD;
            let answer =
                self.exchange(&mut hop, limits, denied.is_some()).await.map_err(|Failed { error, unsent }| {
                    // Where a redirect leads nobody may listen, but whoever gave it has been asked.
                    if unsent && hops == 0 { error.unsent() } else { error }
                })?;
            let status = answer.head.status;
            let taken = status.is_success() || accept_status.contains(&status);
            let decompress = decompress && !head;
            let mut response =
                Response::new(answer.head, hop.url.clone(), answer.wire, decompress, options.max_response)?;
            if taken {
                settle(answer.leave, Verdict::Proven);
                if !head {
                    response.check_declared()?;
                }
                return Ok(response);
            }
            if let Some(to) = redirect(&response) {
                settle(answer.leave, Verdict::Proven);
                // Read, so that the connection can be used again.
                response.opening(REFUSAL).await;
                self.turn(&mut hop, status, to, again, &home)?;
                continue;
            }
            if let (StatusCode::UNAUTHORIZED, false, Some(tokens), Some(body)) =
                (status, renewed, &self.inner.tokens, &mut Some(again).flatten())
            {
                // It may have been taken back before its time: one other is tried, once.
                response.opening(REFUSAL).await;
                hop.token = Some(tokens.token(hop.token.as_ref()).await?);
                (hop.body, renewed) = (std::mem::take(body), true);
                continue;
            }
            return Err(self.refused(response, answer.leave, denied).await);
        }
        Err(Error::unavailable(format!("more than {REDIRECTS} redirects")).retry(Retry::Never))
    }

    async fn exchange(&self, hop: &mut Hop, limits: Limits, denied: bool) -> Result<Answer, Failed> {
        let body = std::mem::take(&mut hop.body);
        match &self.inner.way {
            Way::Own(sign_in) => {
                sign_in.exchange(&self.inner.ctx, &hop.method, &hop.url, &hop.headers, body, limits).await
            }
            Way::Pooled(client) => self.exchange_pooled(client, hop, body, limits, denied).await,
        }
    }

    async fn exchange_pooled(
        &self,
        client: &reqwest::Client,
        hop: &mut Hop,
        body: Body,
        limits: Limits,
        denied: bool,
    ) -> Result<Answer, Failed> {
        let mut leave = match credential(&self.inner.options.auth) {
            Some((account, secret)) => Some(Leave::ask(&self.inner.ctx, &origin(&hop.url), &account, secret).await?),
            None => None,
        };
        let mut url = hop.url.clone();
        let mut headers = hop.headers.clone();
        if let Some(token) = &hop.token {
            headers.insert(header::AUTHORIZATION, token.value.clone());
        }
        match &self.inner.carried {
            Carried::Nothing => {}
            Carried::Header(name, value) => {
                headers.insert(name, value.clone());
            }
            Carried::Query(pair) => {
                // Not through the builder of pairs, which would write the rest anew.
                let query = match url.query() {
                    Some(query) if !query.is_empty() => format!("{query}&{}", pair.expose()),
                    _ => pair.expose().clone(),
                };
                url.set_query(Some(&query));
            }
        }
        let empty_post = matches!(body, Body::Empty) && !matches!(hop.method, Method::GET | Method::HEAD);
        if empty_post {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let (body, sent) = Outgoing::new(body);
        let mut request = http::Request::new(body);
        *request.method_mut() = hop.method.clone();
        *request.headers_mut() = headers;
        match url.as_str().parse() {
            Ok(uri) => *request.uri_mut() = uri,
            Err(_) => return Err(Error::config("the url cannot be sent").into()),
        }
        if let Some(leave) = &mut leave {
            leave.goes_out();
        }
        let reads = matches!(hop.method, Method::GET | Method::HEAD);
        // A 401 by another scheme's name says nothing about a credential of this one.
        let denied = denied || token::wanted(&self.inner.options.auth).is_some();
        let (outcome, leave) = match leave {
            Some(leave) if reads && leave.unproven() => {
                let client = client.clone();
                let exchange = async move { pooled::exchange(&client, request, sent, limits).await };
                let (outcome, leave) = watched(exchange, leave, denied).await;
                (outcome, Some(leave))
            }
            leave => (pooled::exchange(client, request, sent, limits).await, leave),
        };
        match outcome {
            Ok((head, wire)) => Ok(Answer { head, wire, leave }),
            Err(Failed { error, unsent }) => {
                if unsent {
                    settle(leave, Verdict::Unsent);
                }
                Err(Failed { error, unsent })
            }
        }
    }

    /// Changes the request for a redirect.
    fn turn(&self, hop: &mut Hop, status: StatusCode, to: Result<Url>, body: Option<Body>, home: &str) -> Result<()> {
        let to = to?;
        if origin(&to) != *home {
            if !matches!(self.inner.options.auth, Auth::None) {
                let message = format!("the server redirects to {}, and credentials stay at {home}", self.shown(&to));
                return Err(Error::config(message).hint("if that is the right place, put its url into the config"));
            }
            let secret = self.inner.headers.iter().filter(|(_, value)| value.is_sensitive()).map(|(name, _)| name);
            for name in secret.chain([&header::AUTHORIZATION, &header::COOKIE, &header::PROXY_AUTHORIZATION]) {
                hop.headers.remove(name);
            }
        }
        let keeps_body = matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
        if keeps_body || matches!(hop.method, Method::GET | Method::HEAD) {
            hop.body = body.ok_or_else(|| {
                Error::unsupported("the server redirects a body that can be sent only once")
                    .hint(format!("put {} into the config", self.shown(&to)))
            })?;
        } else {
            hop.method = Method::GET;
            for name in [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::CONTENT_ENCODING] {
                hop.headers.remove(name);
            }
        }
        hop.url = to;
        Ok(())
    }

    /// The error for an answer that is none; says what became of the credential.
    async fn refused(&self, mut response: Response, leave: Option<Leave>, denied: Option<fn(&str) -> bool>) -> Error {
        let status = response.status;
        let text = response.opening(REFUSAL).await;
        let right_missing = status == StatusCode::FORBIDDEN
            || status == StatusCode::UNAUTHORIZED && denied.is_some_and(|denied| denied(&text));
        let mut text = self.without_secrets(text);
        if let Some(tokens) = &self.inner.tokens {
            text = tokens.without_secrets(text).await;
        }
        let refusal = Refusal { status, headers: response.headers, text };
        let auth = &self.inner.options.auth;
        if right_missing {
            settle(leave, Verdict::Proven);
            let who = match auth {
                Auth::None => "a visitor without a name".to_owned(),
                other => format!("{}, whose sign-in was accepted,", account_shown(other)),
            };
            let what = format!("{who} lacks the right to read or write this ({})", status_text(status));
            return Error::auth(what)
                .because(refusal)
                .hint("have the right given on the server; the credential is fine");
        }
        if status != StatusCode::UNAUTHORIZED {
            settle(leave, verdict(status));
            return classify(refusal);
        }
        let offered = token::schemes(&refusal.headers);
        let offers = match &*offered {
            [] => "no way to sign in".to_owned(),
            offered => offered.join(", "),
        };
        let Some(wanted) = token::wanted(auth) else {
            return match auth {
                Auth::None => {
                    Error::auth(format!("the server wants a sign-in ({}); it offers {offers}", status_text(status)))
                        .because(refusal)
                        .hint(token::advice(&offered))
                }
                // A key in a place of its own has no scheme to compare.
                _ => self.wrong_credential(refusal, leave),
            };
        };
        let fits = offered.is_empty() || offered.iter().any(|scheme| scheme.eq_ignore_ascii_case(wanted));
        if let (true, Auth::OAuth2(_)) = (fits, auth) {
            return Error::auth("the server does not take the token, not a new one either (401)")
                .because(refusal)
                .hint("look on the server at what the app may do");
        }
        if fits && leave.is_none() {
            // Only a connection signs in once; this one was asked for nothing at first.
            return Error::unavailable("the server took the request without a sign-in at first, and then did not")
                .because(refusal);
        }
        if fits {
            return self.wrong_credential(refusal, leave);
        }
        // It was not looked at, so nothing is known about it.
        settle(leave, Verdict::Unsent);
        Error::auth(format!("the server does not take {wanted}; it offers {offers}"))
            .because(refusal)
            .hint(token::advice(&offered))
    }

    fn wrong_credential(&self, refusal: Refusal, leave: Option<Leave>) -> Error {
        let account = account_shown(&self.inner.options.auth);
        settle(leave, Verdict::Refused);
        Error::auth(format!(
            "the server refused {account} (401): a wrong credential, a locked account, or a missing right; it will not be sent again"
        ))
        .because(refusal)
        .hint("correct the credential; if it is right, and unlocked by now, run `towpath state reset credentials`")
    }

    /// A server may quote what it was sent.
    fn without_secrets(&self, mut text: String) -> String {
        let auth = credential(&self.inner.options.auth).map(|(_, secret)| secret);
        for secret in self.inner.options.headers.values().chain(auth) {
            // One or two letters are everywhere.
            if secret.expose().len() >= 3 && text.contains(secret.expose().as_str()) {
                text = text.replace(secret.expose().as_str(), CUT);
            }
        }
        text
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", account_shown(&self.inner.options.auth))
    }
}

/// The account and the secret, where there is one.
pub(crate) fn credential(auth: &Auth) -> Option<(String, &Secret)> {
    match auth {
        // What is shown is not what was configured; see `oauth`.
        Auth::None | Auth::OAuth2(_) => None,
        Auth::Basic { username, password } => Some((username.clone(), password)),
        Auth::Bearer { token } => Some(("bearer".to_owned(), token)),
        Auth::ApiKey { value, .. } => Some(("api_key".to_owned(), value)),
        Auth::Ntlm { domain, username, password } | Auth::Negotiate { domain, username, password } => {
            Some((token::account(domain.as_deref(), username), password))
        }
    }
}

fn account_shown(auth: &Auth) -> String {
    match auth {
        Auth::None => "nobody".to_owned(),
        Auth::Bearer { .. } => "the bearer token".to_owned(),
        Auth::ApiKey { .. } => "the api key".to_owned(),
        Auth::OAuth2(oauth) => format!("the app {}", oauth.client_id),
        other => credential(other).map(|(account, _)| account).unwrap_or_default(),
    }
}

fn carried(auth: &Auth) -> Result<Carried> {
    Ok(match auth {
        Auth::None | Auth::OAuth2(_) | Auth::Ntlm { .. } | Auth::Negotiate { .. } => Carried::Nothing,
        Auth::Basic { username, password } => {
            if username.contains(':') {
                return Err(Error::config("auth.username cannot hold a colon with basic"));
            }
            let pair = Secret::new(format!("{username}:{}", password.expose()));
            let text = Secret::new(format!("Basic {}", STANDARD.encode(pair.expose())));
            Carried::Header(header::AUTHORIZATION, sensitive(&text, "auth.password")?)
        }
        Auth::Bearer { token } => {
            let text = Secret::new(format!("Bearer {}", token.expose()));
            Carried::Header(header::AUTHORIZATION, sensitive(&text, "auth.token")?)
        }
        Auth::ApiKey { header: Some(name), query: None, value } => {
            Carried::Header(header_name(name, "auth.header")?, sensitive(value, "auth.value")?)
        }
        Auth::ApiKey { header: None, query: Some(name), value } => {
            let mut pairs = url::form_urlencoded::Serializer::new(String::new());
            Carried::Query(Secret::new(pairs.append_pair(name, value.expose()).finish()))
        }
        Auth::ApiKey { .. } => return Err(Error::config("auth: api_key needs either header or query")),
    })
}

fn header_name(name: &str, option: &str) -> Result<HeaderName> {
    name.parse().map_err(|_| Error::config(format!("{option}: '{name}' is not the name of a header")))
}

fn value(text: &str, option: &str) -> Result<HeaderValue> {
    HeaderValue::from_bytes(text.as_bytes())
        .map_err(|_| Error::config(format!("{option} holds what a header cannot hold")))
}

fn sensitive(secret: &Secret, option: &str) -> Result<HeaderValue> {
    let mut value = value(secret.expose(), option)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Whether the URL can be asked at all.
fn check(url: &Url) -> Result<()> {
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(Error::config("not an http or https url"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Error::config("a name or a password stands in the url").hint("put it under auth: basic"));
    }
    Ok(())
}

/// Where an answer redirects to, if it does.
fn redirect(response: &Response) -> Option<Result<Url>> {
    if !matches!(response.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let to = response.headers.get(header::LOCATION)?;
    let to = std::str::from_utf8(to.as_bytes()).ok().and_then(|to| response.url.join(to).ok());
    Some(to.ok_or_else(|| Error::data("the server redirects to what is not a url")).and_then(|mut to| {
        to.set_fragment(None);
        check(&to)?;
        Ok(to)
    }))
}
