//! The wire: requests to the API v2, each through the door with its price, and what came of them.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use serde_json::{Map, Value};
use towpath_core::{Call, Context, Effect, Error, ErrorKind, Price, Result};
use towpath_http::{Client, HeaderValue, HttpOptions, Method, Request, StatusCode, Url, header, origin};

use crate::{
    answers::{self, Judged, Refused},
    budget::{self, Purse, USERS},
    config::AccountOptions,
    entity::Entity,
    fields::Definition,
    page::{self, Page},
};

/// The most bytes of an answer: 500 records of a thousand long fields.
const LARGEST_ANSWER: usize = 256 << 20;
/// Statuses that are judged by what stands in the answer.
const JUDGED: [u16; 8] = [400, 402, 403, 404, 409, 410, 422, 429];
/// How many pages of definitions, users and the like are read: nobody has more than 50,000.
const PAGES: usize = 100;

/// An account, as one component of a run uses it. Cheap to clone.
#[derive(Clone)]
pub struct Crm {
    inner: Arc<Inner>,
}

struct Inner {
    ctx: Context,
    client: Client,
    base: Url,
    origin: String,
    account: String,
    purse: Purse,
    page: u32,
}

/// What came of a request that may be refused for reasons of its own.
#[derive(Debug)]
pub enum Answer {
    /// Its body.
    Done(Bytes),
    /// It was refused.
    Refused(Refused),
}

/// A request.
struct Asked<'a> {
    what: String,
    method: Method,
    url: Url,
    body: Option<&'a Map<String, Value>>,
    effect: Effect,
    tokens: u32,
}

impl Crm {
    /// The account of the options; connects to nothing yet.
    ///
    /// # Errors
    /// Config.
    pub fn new(options: &AccountOptions, http: &HttpOptions, ctx: &Context) -> Result<Self> {
        let base = options.base()?;
        let http = options.http(http)?;
        let account = account(&base);
        let inner = Inner {
            ctx: ctx.clone(),
            client: Client::new(&http, ctx)?,
            origin: origin(&base),
            purse: Purse::new(account.clone(), &options.budget, options.sign_in())?,
            page: options.page()?,
            account,
            base,
        };
        Ok(Self { inner: Arc::new(inner) })
    }
    /// Whose ledger it is, and which account; no secret.
    pub fn account(&self) -> &str {
        &self.inner.account
    }
    /// What the engine gave.
    pub fn ctx(&self) -> &Context {
        &self.inner.ctx
    }
    /// What may be spent.
    pub fn purse(&self) -> &Purse {
        &self.inner.purse
    }
    /// Records on a page.
    pub fn page_size(&self) -> u32 {
        self.inner.page
    }

    fn url(&self, path: &str) -> Result<Url> {
        let mut url = self.inner.base.clone();
        url.set_path(&format!("{}/{path}", url.path().trim_end_matches('/')));
        Ok(url)
    }

    /// One page of a list. `query` beside `limit` and `cursor`.
    ///
    /// # Errors
    /// Of the call. A refusal is Data, or NotFound, with the vendor's words.
    pub async fn list(
        &self,
        what: &str,
        path: &str,
        query: &[(&str, &str)],
        cursor: Option<&str>,
        effect: Effect,
    ) -> Result<Bytes> {
        let mut url = self.url(&format!("api/v2/{path}"))?;
        {
            let mut pairs = url.query_pairs_mut();
            pairs.append_pair("limit", &self.inner.page.to_string());
            pairs.extend_pairs(query);
            if let Some(cursor) = cursor {
                pairs.append_pair("cursor", cursor);
            }
        }
        let tokens = budget::page(path);
        self.read(Asked { what: what.to_owned(), method: Method::GET, url, body: None, effect, tokens }).await
    }

    /// The definitions of an entity's fields.
    ///
    /// # Errors
    /// Of the calls.
    pub async fn definitions(&self, entity: Entity) -> Result<Vec<Definition>> {
        let what = format!("list the fields of {entity}");
        self.all(&what, entity.fields_path()).await
    }

    /// All of a short list: pipelines, stages, definitions.
    ///
    /// # Errors
    /// Of the calls.
    pub async fn all<T: for<'de> serde::Deserialize<'de>>(&self, what: &str, path: &str) -> Result<Vec<T>> {
        let (mut all, mut cursor) = (vec![], None);
        for _ in 0..PAGES {
            let body = self.list(what, path, &[], cursor.as_deref(), Effect::Cheap).await?;
            let Page { records, next } = page::read_all(&body).map_err(|error| error.at(what))?;
            all.extend(records);
            cursor = next;
            if cursor.is_none() {
                return Ok(all);
            }
        }
        Err(Error::data(format!("{what}: the list has no end")))
    }

    /// The company's users. Only the API v1 has them.
    ///
    /// # Errors
    /// Of the call.
    pub async fn users(&self) -> Result<Vec<User>> {
        let (what, url) = ("list the users".to_owned(), self.url("api/v1/users")?);
        let asked = Asked { what, method: Method::GET, url, body: None, effect: Effect::Cheap, tokens: USERS };
        page::read_all(&self.read(asked).await?).map(|page| page.records)
    }

    async fn read(&self, asked: Asked<'_>) -> Result<Bytes> {
        let (what, address) = (asked.what.clone(), &self.inner.base);
        match self.ask(asked).await? {
            Answer::Done(body) => Ok(body),
            Answer::Refused(refused) => {
                let kind = match refused.status {
                    403 => ErrorKind::Auth,
                    404 | 410 => ErrorKind::NotFound,
                    _ => ErrorKind::Data,
                };
                let error = Error::new(kind, format!("{what}: {refused}"));
                let elsewhere = kind == ErrorKind::NotFound;
                Err(if elsewhere {
                    error.hint(format!("look whether {address} is the account's address"))
                } else {
                    error
                })
            }
        }
    }

    /// Makes, changes or deletes a record. `what` in words; `Effect::Once` where doing it twice is not the same.
    ///
    /// # Errors
    /// Of the call. Of a create whose answer was lost it says that the outcome is unknown.
    pub async fn write(
        &self,
        what: String,
        method: Method,
        path: &str,
        body: Option<&Map<String, Value>>,
        effect: Effect,
        tokens: u32,
    ) -> Result<Answer> {
        let url = self.url(&format!("api/v2/{path}"))?;
        self.ask(Asked { what, method, url, body, effect, tokens }).await
    }

    async fn ask(&self, asked: Asked<'_>) -> Result<Answer> {
        let price = Price { budget: self.inner.purse.budget(), tokens: asked.tokens };
        let call = Call::new(&asked.what, &self.inner.origin, asked.effect).price(price);
        self.inner.ctx.call(&call, || self.attempt(&asked)).await
    }

    async fn attempt(&self, asked: &Asked<'_>) -> Result<Answer> {
        let Inner { ctx, client, purse, .. } = &*self.inner;
        let mut request = Request::new(asked.method.clone(), asked.url.clone())
            .header(header::ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(body) = asked.body {
            let body = serde_json::to_vec(body).map_err(|error| Error::internal("cannot write JSON").because(error))?;
            request = request
                .body(towpath_http::Body::Bytes(body.into()))
                .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        for status in JUDGED {
            request = request.accept(StatusCode::from_u16(status).unwrap_or_default());
        }
        let lost = |error: Error| if asked.effect == Effect::Once { unknown(error) } else { error };
        let response = client.send(request).await.map_err(lost)?;
        let (status, headers) = (response.status.as_u16(), response.headers.clone());
        let body = response.bytes(LARGEST_ANSWER).await;
        let refused = !(200..300).contains(&status);
        let text = match &body {
            Ok(body) if refused => String::from_utf8_lossy(body).into_owned(),
            _ => String::new(),
        };
        if let Some(requests) = answers::window(&headers) {
            purse.learn(requests);
        }
        let mut told = answers::told(status, &headers, &text);
        if told.day_over.is_none() {
            told.day_left = told.day_left.and_then(|left| purse.day_left(left, asked.tokens));
        }
        ctx.told(&purse.budget(), told)?;
        match answers::judge(status, &headers, &text) {
            Judged::Done => body.map(Answer::Done).map_err(lost),
            Judged::Refused(refused) => Ok(Answer::Refused(refused)),
            Judged::Stop(error) => Err(error),
        }
    }
}

/// A create that failed so may have been done all the same.
fn unknown(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Data => error.outcome_unknown(),
        _ => error,
    }
}

/// The account, in words without a secret.
pub fn account(base: &Url) -> String {
    format!("pipedrive {}", base.as_str().trim_end_matches('/'))
}

/// A user of the company.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct User {
    /// The id.
    pub id: i64,
    /// The name.
    #[serde(default)]
    pub name: Option<String>,
    /// The e-mail address.
    #[serde(default)]
    pub email: Option<String>,
}

impl fmt::Debug for Crm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Crm({})", self.inner.account)
    }
}
