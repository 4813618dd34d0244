//! Requests over reqwest's pool of connections: every way to sign in that belongs to a request, not to a connection.

use reqwest::redirect::Policy;
use towpath_core::{Error, Result};

use crate::{
    options::{HttpOptions, Proxy},
    response::content_length,
    tls,
    wire::{Incoming, Limits, Outgoing, Sent, Wire},
};

/// A try that gave no answer.
pub(crate) struct Failed {
    pub error: Error,
    /// Whether it is sure that nothing of the request went out.
    pub unsent: bool,
}

/// reqwest, with everything switched off that is done by us: redirects, decompression, retries, reading timeouts.
pub(crate) fn client(options: &HttpOptions) -> Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls::of(options, &tls::ANY_HTTP)?)
        .redirect(Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .connect_timeout(options.timeouts.connecting());
    match &options.proxy {
        Proxy::Environment => {}
        Proxy::Direct => builder = builder.no_proxy(),
        Proxy::Url(url) => {
            // The failure could quote the url, which may hold a password.
            let proxy =
                reqwest::Proxy::all(url.expose()).map_err(|_| Error::config("the proxy's url cannot be used"))?;
            builder = builder.proxy(proxy);
        }
    }
    builder.build().map_err(|error| Error::internal("cannot set up the http client").because(error))
}

impl From<Error> for Failed {
    /// Something may have gone out.
    fn from(error: Error) -> Self {
        Self { error, unsent: false }
    }
}

/// Sends a request and waits for the head of the answer.
pub(crate) async fn exchange(
    client: &reqwest::Client,
    request: http::Request<Outgoing>,
    sent: Sent,
    limits: Limits,
) -> Result<(http::response::Parts, Wire), Failed> {
    let not_sent = |error| Failed { error, unsent: true };
    let request = reqwest::Request::try_from(request.map(reqwest::Body::wrap))
        .map_err(|error| not_sent(Error::config("the request cannot be made").because(error.without_url())))?;
    match limits.head(sent, client.execute(request)).await {
        Err(error) => Err(error.into()),
        Ok(Err(error)) => Err(failed(error.without_url(), limits)),
        Ok(Ok(answer)) => {
            let (head, body) = http::Response::from(answer).into_parts();
            let length = content_length(&head.headers);
            Ok((head, Wire::new(Incoming::Pooled(body), limits, length, None)))
        }
    }
}

fn failed(error: reqwest::Error, limits: Limits) -> Failed {
    let unsent = error.is_connect();
    let error = if let Some(error) = tls::failure(&error) {
        error
    } else if unsent && error.is_timeout() {
        limits.no_connection()
    } else if unsent {
        Error::unavailable("cannot connect").because(error)
    } else {
        Error::unavailable("the connection broke before the answer").because(error)
    };
    Failed { error, unsent }
}
