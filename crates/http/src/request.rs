//! One request, as a connector describes it.

use std::{fmt, io};

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use url::Url;

/// What is sent after the head.
#[derive(Default)]
pub enum Body {
    /// Nothing.
    #[default]
    Empty,
    /// These bytes; can be sent again after a redirect or a sign-in.
    Bytes(Bytes),
    /// Bytes as they come, of a length that may be unknown (then chunked). Sent once.
    Stream {
        /// The bytes. An error of it ends the request.
        stream: BoxStream<'static, io::Result<Bytes>>,
        /// How many there will be, where that is known.
        length: Option<u64>,
    },
}

impl Body {
    /// A body that is made while it is sent.
    pub fn stream(
        stream: impl futures::Stream<Item = io::Result<Bytes>> + Send + 'static,
        length: Option<u64>,
    ) -> Self {
        Self::Stream { stream: stream.boxed(), length }
    }

    /// The same again, if it can be sent again.
    pub(crate) fn again(&self) -> Option<Self> {
        match self {
            Self::Empty => Some(Self::Empty),
            Self::Bytes(bytes) => Some(Self::Bytes(bytes.clone())),
            Self::Stream { .. } => None,
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::Stream { length, .. } => write!(f, "Stream({length:?})"),
        }
    }
}

/// One request. Made anew for each try, because a try may use up its body.
#[derive(Debug)]
pub struct Request {
    /// GET, POST …
    pub method: Method,
    /// Where to; without a name and password in it. The query goes out exactly as it stands here: `Url::parse` and `set_query`
    /// keep a colon, `query_pairs_mut` does not.
    pub url: Url,
    /// Headers besides those of the options; these win.
    pub headers: HeaderMap,
    /// What is sent after the head.
    pub body: Body,
    /// Statuses other than 2xx that are answers and not errors: 304, 416.
    pub accept_status: Vec<StatusCode>,
    /// Whether the body of a 401 or 403 means that the account is known but lacks a right (`rsAccessDenied`). Sees the first
    /// 64 KiB of it. A 403 always means that.
    pub denied: Option<fn(&str) -> bool>,
    /// Whether to ask for compression and undo it. Default true; a request with `Range` never does.
    pub decompress: bool,
}

impl Request {
    /// A request of a method.
    pub fn new(method: Method, url: Url) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            body: Body::Empty,
            accept_status: vec![],
            denied: None,
            decompress: true,
        }
    }
    /// GET.
    pub fn get(url: Url) -> Self {
        Self::new(Method::GET, url)
    }
    /// HEAD.
    pub fn head(url: Url) -> Self {
        Self::new(Method::HEAD, url)
    }
    /// POST.
    pub fn post(url: Url, body: impl Into<Bytes>) -> Self {
        Self::new(Method::POST, url).body(Body::Bytes(body.into()))
    }
    /// Another body.
    #[must_use]
    pub fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }
    /// Adds a header, in the place of one of the same name.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
    /// Takes a status as an answer.
    #[must_use]
    pub fn accept(mut self, status: StatusCode) -> Self {
        self.accept_status.push(status);
        self
    }
    /// Says how the body of a 401 tells a missing right from a wrong credential.
    #[must_use]
    pub fn denied(mut self, denied: fn(&str) -> bool) -> Self {
        self.denied = Some(denied);
        self
    }
    /// Leaves the body as it comes over the wire.
    #[must_use]
    pub fn raw(mut self) -> Self {
        self.decompress = false;
        self
    }
}
