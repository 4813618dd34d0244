//! OAuth2: a token that is shown until it expires, and renewed by another one that may be good only once.
//!
//! One renewal at a time, over all processes: whoever renews holds the stored token ([`Credentials::exchange`](towpath_core::context::Credentials::exchange)),
//! looks first whether somebody else has renewed it meanwhile, and stores the new one before it is used. A renewal is not dropped with its
//! request: its answer may hold the only token there is from then on. What is refused for good (`invalid_grant`, `invalid_client`) is
//! never sent again.
//!
//! Facts: RFC 6749 (2.3.1 the client's name and secret, 5.1 and 5.2 answers, 6 refreshing).

use std::{fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderValue, Method, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use towpath_core::{
    Context, Error, Result, Retry, Secret, Size,
    context::{Exchange, StoredToken},
};
use url::{Url, form_urlencoded};

use crate::{
    classify::{Refusal, classify},
    leave::{Leave, Verdict, settle},
    options::{ClientAuth, OAuth2, Timeouts},
    pooled::{self, Failed},
    request::Body,
    response::Response,
    shown::{CUT, origin},
    wire::{Limits, Outgoing},
};

/// A token is renewed before it expires: by a tenth of its life, but no more than this.
const AHEAD: SignedDuration = SignedDuration::from_secs(60);
/// The longest answer of a token endpoint.
const LONGEST: Size = Size(64 * 1024);

/// The tokens of one client.
pub(crate) struct Tokens {
    inner: Arc<Inner>,
}

struct Inner {
    options: OAuth2,
    url: Url,
    timeouts: Timeouts,
    http: reqwest::Client,
    ctx: Context,
    /// Whose token it is: the app, and by which refresh token it was let in.
    account: String,
    known: Mutex<Option<Token>>,
}

/// A token that can be shown.
#[derive(Clone)]
pub(crate) struct Token {
    /// `Bearer …`.
    pub(crate) value: HeaderValue,
    access: Secret,
    /// What it is renewed with, if the store forgets.
    refresh: Option<Secret>,
    renew_at: Timestamp,
}

/// An answer with a token.
#[derive(Deserialize)]
struct Granted {
    access_token: Secret,
    #[serde(default)]
    refresh_token: Option<Secret>,
    #[serde(default)]
    expires_in: Option<serde_json::Value>,
}

/// An answer without one.
#[derive(Deserialize)]
struct Denied {
    error: String,
    #[serde(default)]
    error_description: Option<String>,
}

/// When a token is renewed that was got at one time and expires at another.
fn renew_at(issued: Timestamp, expires: Timestamp) -> Timestamp {
    let life = expires.duration_since(issued);
    let ahead = (life / 10).min(AHEAD).max(SignedDuration::ZERO);
    expires.checked_sub(ahead).unwrap_or(issued)
}

/// How long a token is good, as the server says: a number, or one as text.
fn seconds(expires_in: &serde_json::Value) -> Option<i64> {
    let number = expires_in.as_i64().or_else(|| expires_in.as_f64().map(|seconds| seconds as i64));
    number.or_else(|| expires_in.as_str()?.trim().parse().ok()).filter(|seconds| *seconds >= 0)
}

impl Tokens {
    /// # Errors
    /// Config, if the endpoint is no url, or the name holds what it cannot.
    pub(crate) fn new(options: &OAuth2, timeouts: Timeouts, http: reqwest::Client, ctx: &Context) -> Result<Self> {
        let url: Url = options.token_url.parse().map_err(|_| Error::config("auth.token_url is not a url"))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(Error::config("auth.token_url is not an http or https url"));
        }
        // Two companies that use one app are two accounts.
        let mark = options.refresh_token.as_ref().map(|token| {
            let hash = Sha256::digest(token.expose());
            hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect::<String>()
        });
        let account = match mark {
            Some(mark) => format!("oauth2 {} {mark}", options.client_id),
            None => format!("oauth2 {}", options.client_id),
        };
        let known = Mutex::new(None);
        let inner = Inner { options: options.clone(), url, timeouts, http, ctx: ctx.clone(), account, known };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A token to show; a new one if the one there is expires, or is the one that was `refused`.
    ///
    /// # Errors
    /// Auth, never tried again, if the server refuses the refresh token or the app. What a call can fail with.
    pub(crate) async fn token(&self, refused: Option<&Token>) -> Result<Token> {
        let inner = &self.inner;
        let mut known = inner.known.lock().await;
        if let Some(token) = &*known
            && token.renew_at > Timestamp::now()
            && refused.is_none_or(|refused| refused.access.expose() != token.access.expose())
        {
            return Ok(token.clone());
        }
        let (renewing, refused, known_before) = (Arc::clone(inner), refused.cloned(), known.clone());
        // In a task of its own: the answer may be the only place where the new token stands.
        let renewal = tokio::spawn(async move { renewing.renew(refused, known_before).await });
        let token = match renewal.await {
            Ok(token) => token.map_err(|error| error.at("sign-in"))?,
            Err(error) => return Err(Error::internal("renewing a token broke off").because(error)),
        };
        *known = Some(token.clone());
        Ok(token)
    }

    /// Cuts what is secret out of a text.
    pub(crate) async fn without_secrets(&self, mut text: String) -> String {
        let known = self.inner.known.lock().await.clone();
        let shown = known.iter().flat_map(|token| std::iter::once(&token.access).chain(&token.refresh));
        for secret in shown.chain(self.inner.secrets()) {
            text = cut(text, secret);
        }
        text
    }
}

fn cut(text: String, secret: &Secret) -> String {
    if secret.expose().len() >= 3 { text.replace(secret.expose().as_str(), CUT) } else { text }
}

impl Inner {
    fn secrets(&self) -> impl Iterator<Item = &Secret> {
        self.options.client_secret.iter().chain(&self.options.refresh_token)
    }

    /// Under the hold: what is stored, if it is good; else a new one, which is stored first.
    async fn renew(&self, refused: Option<Token>, known: Option<Token>) -> Result<Token> {
        let mut hold = self.ctx.credentials().exchange(&origin(&self.url), &self.account).await?;
        let stored = hold.stored()?;
        if let Some(stored) = &stored
            && refused.is_none_or(|refused| refused.access.expose() != stored.access.expose())
        {
            let token = Self::shown(stored)?;
            if token.renew_at > Timestamp::now() {
                return Ok(token);
            }
        }
        let refresh = stored.and_then(|stored| stored.refresh).or_else(|| known.and_then(|known| known.refresh));
        let refresh = refresh.or_else(|| self.options.refresh_token.clone());
        let issued = Timestamp::now();
        let granted = self.granted(refresh.as_ref()).await?;
        let life = granted.expires_in.as_ref().and_then(seconds);
        let life = life.unwrap_or_else(|| i64::try_from(self.options.expires_in.0.as_secs()).unwrap_or(i64::MAX));
        let expires = issued.checked_add(SignedDuration::from_secs(life)).unwrap_or(Timestamp::MAX);
        // Some servers give a new refresh token each time, others only once.
        let refresh = granted.refresh_token.or(refresh);
        let seed = self.seed(&*hold)?;
        let token =
            StoredToken { access: granted.access_token, refresh, issued, expires: Some(expires), seed, generation: 0 };
        hold.store(token.clone())?;
        Self::shown(&token)
    }

    fn seed(&self, hold: &dyn Exchange) -> Result<String> {
        self.options.refresh_token.as_ref().map_or(Ok(String::new()), |token| hold.fingerprint(token))
    }

    fn shown(token: &StoredToken) -> Result<Token> {
        let text = Secret::new(format!("Bearer {}", token.access.expose()));
        let mut value = HeaderValue::from_str(text.expose())
            .map_err(|_| Error::data("the server gave a token that does not fit into a header"))?;
        value.set_sensitive(true);
        let renew_at = token.expires.map_or(Timestamp::MAX, |expires| renew_at(token.issued, expires));
        Ok(Token { value, access: token.access.clone(), refresh: token.refresh.clone(), renew_at })
    }

    /// Asks the endpoint, once.
    async fn granted(&self, refresh: Option<&Secret>) -> Result<Granted> {
        let secret = refresh.or(self.options.client_secret.as_ref());
        let Some(secret) = secret else {
            return Err(Error::config(
                "auth: oauth2 needs a refresh_token, or a client_secret for a token of the app's own",
            ));
        };
        let server = origin(&self.url);
        let mut leave = Leave::ask(&self.ctx, &server, &self.account, secret).await?;
        let (body, sent) = Outgoing::new(Body::Bytes(self.form(refresh).into_bytes().into()));
        let mut request = http::Request::new(body);
        *request.method_mut() = Method::POST;
        let uri = self.url.as_str().parse();
        *request.uri_mut() = uri.map_err(|_| Error::config("auth.token_url cannot be asked"))?;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("towpath/", env!("CARGO_PKG_VERSION"))));
        if let Some(basic) = self.basic()? {
            headers.insert(header::AUTHORIZATION, basic);
        }
        leave.goes_out();
        let limits = Limits::start(&self.timeouts);
        let (head, wire) = match pooled::exchange(&self.http, request, sent, limits).await {
            Ok(answer) => answer,
            Err(Failed { error, .. }) => {
                // If it was taken and its answer lost, the new token is lost as well; to send it again can only help.
                leave.settle(Verdict::Unsent);
                return Err(error.at(server));
            }
        };
        let mut response = Response::new(head, self.url.clone(), wire, false, Some(LONGEST))?;
        let status = response.status;
        if status.is_success() {
            let text = response.text(LONGEST.0 as usize).await;
            leave.settle(if text.is_ok() { Verdict::Proven } else { Verdict::Unsent });
            let text = text.map_err(|error| error.at(server.clone()))?;
            // Never quoted: a token may stand in it.
            return serde_json::from_str(&text).map_err(|_| {
                Error::data("the token endpoint's answer holds no access_token").at(server).hint("check auth.token_url")
            });
        }
        let text = response.opening(LONGEST.0 as usize).await;
        let text = self.secrets().chain(refresh).fold(text, cut);
        let denied: Option<Denied> = serde_json::from_str(&text).ok();
        let refusal = Refusal { status, headers: response.headers, text };
        Err(self.refused(refusal, denied, leave).at(server))
    }

    fn refused(&self, refusal: Refusal, denied: Option<Denied>, leave: Leave) -> Error {
        let status = refusal.status;
        let Some(Denied { error, error_description }) =
            denied.filter(|_| status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS)
        else {
            settle(Some(leave), if status == StatusCode::UNAUTHORIZED { Verdict::Refused } else { Verdict::Unsent });
            return classify(refusal);
        };
        let why = error_description.map(|why| format!(": {why}")).unwrap_or_default();
        let (what, hint) = match &*error {
            "invalid_grant" => (
                "the server does not take the refresh token any more (invalid_grant",
                "have the app authorised again, and put the new refresh token into the config",
            ),
            "invalid_client" | "unauthorized_client" => {
                ("the server does not know the app (invalid_client", "check auth.client_id and auth.client_secret")
            }
            _ => {
                settle(Some(leave), Verdict::Unsent);
                return Error::auth(format!("the server gives no token ({error}{why})")).retry(Retry::Never);
            }
        };
        // Never sent again: it cannot become right, and some servers lock apps that go on.
        settle(Some(leave), Verdict::Refused);
        Error::auth(format!("{what}{why})")).retry(Retry::Never).hint(hint)
    }

    fn form(&self, refresh: Option<&Secret>) -> String {
        let OAuth2 { client_id, client_secret, scope, client_auth, .. } = &self.options;
        let mut form = form_urlencoded::Serializer::new(String::new());
        match refresh {
            Some(token) => form.append_pair("grant_type", "refresh_token").append_pair("refresh_token", token.expose()),
            None => form.append_pair("grant_type", "client_credentials"),
        };
        if let Some(scope) = scope {
            form.append_pair("scope", scope);
        }
        if *client_auth == ClientAuth::Body {
            form.append_pair("client_id", client_id);
            if let Some(secret) = client_secret {
                form.append_pair("client_secret", secret.expose());
            }
        } else if client_secret.is_none() {
            form.append_pair("client_id", client_id);
        }
        form.finish()
    }

    /// The app's name and secret in the header, where they go there.
    fn basic(&self) -> Result<Option<HeaderValue>> {
        let OAuth2 { client_id, client_secret: Some(secret), client_auth: ClientAuth::Header, .. } = &self.options
        else {
            return Ok(None);
        };
        let pair = Secret::new(format!("{client_id}:{}", secret.expose()));
        let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair.expose())))
            .map_err(|_| Error::config("auth.client_id holds what a header cannot hold"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({})", self.inner.account)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_renewed_a_tenth_ahead_but_no_more_than_a_minute() {
        let issued: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        for (life, ahead) in [(3600, 60), (600, 60), (599, 59), (100, 10), (0, 0)] {
            let expires = issued + SignedDuration::from_secs(life);
            let before = expires.duration_since(renew_at(issued, expires));
            assert_eq!(before.as_secs(), ahead, "of {life} s");
        }
    }

    #[test]
    fn servers_say_how_long_in_their_own_ways() {
        for (json, expected) in [
            ("3599", Some(3599)),
            ("\"3599\"", Some(3599)),
            ("3599.0", Some(3599)),
            ("-1", None),
            ("null", None),
            ("\"soon\"", None),
        ] {
            assert_eq!(seconds(&serde_json::from_str(json).unwrap()), expected, "{json}");
        }
    }
}
