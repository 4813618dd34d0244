//! One dedicated connection to a server, for sign-ins that belong to a connection and not to a request.
//!
//! A pool must not come between the messages of a handshake: it would send the last one on another connection when the first one drops,
//! and the refusal would look like a wrong password. Here a dropped connection is an error.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use http::{HeaderValue, Uri, header, response::Parts};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::{
    client::{
        legacy::connect::{HttpConnector, proxy::Tunnel},
        proxy::matcher::Matcher,
    },
    rt::TokioIo,
};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::Instant,
};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;
use tower_service::Service;
use towpath_core::{Error, Result};
use url::Url;

use crate::{
    channel_binding,
    options::{HttpOptions, Proxy},
    pooled::Failed,
    shown::origin,
    tls,
    wire::{Limits, Outgoing, Sent},
};

/// A kept connection older than this is not used again: servers close idle ones, and a request into a closing one is lost.
const KEPT: Duration = Duration::from_secs(30);

/// Makes connections.
pub(crate) struct Connector {
    tls: TlsConnector,
    proxies: Option<Matcher>,
}

/// One connection and the task that drives it; dropped, it is closed.
pub(crate) struct Connection {
    sender: http1::SendRequest<Outgoing>,
    _driver: AbortOnDropHandle<()>,
    /// The `tls-server-end-point` channel binding, over TLS.
    pub binding: Option<Vec<u8>>,
}

impl Connector {
    pub fn new(options: &HttpOptions) -> Result<Self> {
        let tls = TlsConnector::from(Arc::new(tls::of(options, &tls::HTTP_1)?));
        let proxies = match &options.proxy {
            Proxy::Direct => None,
            Proxy::Environment => Some(Matcher::from_env()),
            Proxy::Url(url) => Some(Matcher::builder().all(url.expose().clone()).build()),
        };
        Ok(Self { tls, proxies })
    }

    /// Connects within `limits.connect`, through a proxy by CONNECT, also for plain http: a forwarding proxy would not keep our connection
    /// to itself.
    pub async fn connect(&self, url: &Url, limits: Limits) -> Result<Connection> {
        limits.connecting(self.open(url)).await?
    }

    async fn open(&self, url: &Url) -> Result<Connection> {
        let stream = self.tcp(url).await?;
        if url.scheme() != "https" {
            return handshake(stream, None).await;
        }
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name =
            ServerName::try_from(host).map_err(|_| Error::config("the url's host cannot stand in a certificate"))?;
        let stream = self.tls.connect(name, stream).await.map_err(|error| {
            tls::failure(&error).unwrap_or_else(|| Error::unavailable("cannot agree on encryption").because(error))
        })?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let binding = certificate.and_then(|certificate| channel_binding::end_point(certificate));
        handshake(stream, binding).await
    }

    async fn tcp(&self, url: &Url) -> Result<TcpStream> {
        // With its port, because CONNECT would take 443 for one that is not said.
        let target: Uri = origin(url).parse().map_err(|_| Error::config("the url has no usable host"))?;
        let mut direct = HttpConnector::new();
        direct.enforce_http(false);
        direct.set_nodelay(true);
        let Some(proxy) = self.proxies.as_ref().and_then(|proxies| proxies.intercept(&target)) else {
            let stream = direct.call(target).await;
            return stream
                .map(TokioIo::into_inner)
                .map_err(|error| Error::unavailable("cannot connect").because(error));
        };
        if proxy.uri().scheme_str() != Some("http") {
            return Err(Error::unsupported("ntlm and negotiate go only through a proxy that is reached by http://")
                .hint("set proxy to an http:// one, or to none"));
        }
        let mut tunnel = Tunnel::new(proxy.uri().clone(), direct);
        if let Some(auth) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(auth.clone());
        }
        let stream = tunnel.call(target).await;
        stream
            .map(TokioIo::into_inner)
            .map_err(|error| Error::unavailable("cannot connect through the proxy").because(error))
    }
}

async fn handshake<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
    binding: Option<Vec<u8>>,
) -> Result<Connection> {
    let (sender, driver) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Error::unavailable("cannot begin to speak http").because(error))?;
    let driver = tokio::spawn(async move {
        // What went wrong is told to whoever waits for an answer.
        if let Err(error) = driver.await {
            tracing::debug!(%error, "a connection ended");
        }
    });
    Ok(Connection { sender, _driver: AbortOnDropHandle::new(driver), binding })
}

impl Connection {
    /// Sends one request and waits for the head of its answer.
    pub async fn send(
        &mut self,
        mut request: http::Request<Outgoing>,
        sent: Sent,
        url: &Url,
        limits: Limits,
    ) -> Result<(Parts, Incoming), Failed> {
        prepare(&mut request, url).map_err(|error| Failed { error, unsent: true })?;
        let broken = |error: hyper::Error, unsent| {
            let message = if unsent {
                "the connection was closed before the request"
            } else {
                "the connection broke before the answer"
            };
            Failed { error: Error::unavailable(message).because(error), unsent }
        };
        match limits.connecting(self.sender.ready()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(broken(error, true)),
            Err(error) => return Err(Failed { error, unsent: true }),
        }
        match limits.head(sent, self.sender.try_send_request(request)).await {
            Err(error) => Err(error.into()),
            Ok(Err(mut error)) => {
                let unsent = error.take_message().is_some();
                Err(broken(error.into_error(), unsent))
            }
            Ok(Ok(answer)) => Ok(answer.into_parts()),
        }
    }
}

/// Path and Host, as a server is asked that is not a proxy.
fn prepare(request: &mut http::Request<Outgoing>, url: &Url) -> Result<()> {
    let wrong = || Error::config("the url cannot be sent");
    let host = match url.port() {
        Some(port) => format!("{}:{port}", url.host_str().unwrap_or_default()),
        None => url.host_str().unwrap_or_default().to_owned(),
    };
    let host = HeaderValue::from_str(&host).map_err(|_| wrong())?;
    request.headers_mut().insert(header::HOST, host);
    *request.uri_mut() = url[url::Position::BeforePath..url::Position::AfterQuery].parse().map_err(|_| wrong())?;
    Ok(())
}

/// The connections of a client that are signed in and at rest, by origin.
#[derive(Default)]
pub(crate) struct Shelf(Mutex<HashMap<String, Vec<(Connection, Instant)>>>);

impl Shelf {
    /// One that was used not long ago.
    pub fn take(&self, origin: &str) -> Option<Connection> {
        let mut shelf = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = shelf.get_mut(origin)?;
        kept.retain(|(connection, since)| !connection.sender.is_closed() && since.elapsed() < KEPT);
        kept.pop().map(|(connection, _)| connection)
    }
}

/// A connection whose answer is being read; can be used again once that has come to its end.
pub(crate) struct Keep {
    connection: Connection,
    shelf: Weak<Shelf>,
    origin: String,
    again: bool,
}

impl Keep {
    /// `again`: whether it may be used again at all.
    pub fn new(connection: Connection, shelf: &Arc<Shelf>, origin: String, again: bool) -> Self {
        Self { connection, shelf: Arc::downgrade(shelf), origin, again }
    }

    pub fn give_back(self) {
        if !self.again {
            return;
        }
        let Some(shelf) = self.shelf.upgrade() else { return };
        let mut shelf = shelf.0.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.entry(self.origin).or_default().push((self.connection, Instant::now()));
    }
}

impl fmt::Debug for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keep({})", self.origin)
    }
}
