//! Signing in with NTLM, bare or inside Negotiate: Type 1, challenge, Type 3, answer, all on one connection.
//!
//! The credential is admitted before anything is sent, so that a wait for another process does not age a challenge. A connection
//! that is signed in is kept for the next request, which then carries no credential. Kerberos would be another mechanism inside
//! `Negotiate`; its place is [`Handshake`].

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, StatusCode, header, response::Parts};
use http_body_util::BodyExt;
use hyper::body::Incoming as Arriving;
use sspi::{
    AuthIdentity, BufferType, ClientRequestFlags, CredentialUse, DataRepresentation, Ntlm, SecurityBuffer, Sspi,
    SspiImpl, Username,
};
use towpath_core::{Context, Error, Result, Secret};
use url::Url;

use crate::{
    client::Answer,
    connection::{Connection, Connector, Keep, Shelf},
    leave::{Leave, Verdict, watched},
    options::{Auth, HttpOptions},
    pooled::Failed,
    request::Body,
    response::content_length,
    shown::origin,
    spnego, token,
    wire::{Incoming, Limits, Outgoing, Wire},
};

/// How much of an answer nobody wants is read, to keep the connection.
const DRAINED: usize = 256 * 1024;

/// Signs in and keeps what is signed in.
pub(crate) struct SignIn {
    connector: Connector,
    shelf: Arc<Shelf>,
    scheme: Scheme,
    username: Username,
    password: Secret,
    account: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Ntlm,
    Negotiate,
}

/// A request as it goes out once signed in.
struct Asked<'a> {
    method: &'a Method,
    url: &'a Url,
    headers: &'a HeaderMap,
    limits: Limits,
}

impl SignIn {
    pub fn new(options: &HttpOptions) -> Result<Self> {
        let (scheme, domain, username, password) = match &options.auth {
            Auth::Ntlm { domain, username, password } => (Scheme::Ntlm, domain, username, password),
            Auth::Negotiate { domain, username, password } => (Scheme::Negotiate, domain, username, password),
            _ => return Err(Error::internal("no account to sign in with")),
        };
        let parsed = Username::new(username, domain.as_deref()).map_err(|error| {
            Error::config(format!("auth.username: '{username}' is not the name of an account"))
                .because(error)
                .hint("write CORP\\loader, loader@corp.example, or a name with auth.domain")
        })?;
        let account = token::account(domain.as_deref(), username);
        let (connector, shelf) = (Connector::new(options)?, Arc::default());
        Ok(Self { connector, shelf, scheme, username: parsed, password: password.clone(), account })
    }

    /// Makes one request, signing in where no connection is signed in. The answer carries the leave if a credential went out for it.
    pub async fn exchange(
        &self,
        ctx: &Context,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        body: Body,
        limits: Limits,
    ) -> Result<Answer, Failed> {
        let asked = Asked { method, url, headers, limits };
        let server = origin(url);
        let body = match body.again() {
            // A body that can be sent once must not be lost to a 401.
            None => body,
            Some(again) => match self.shelf.take(&server) {
                None => body,
                Some(connection) => match Self::send(connection, &asked, again, None).await {
                    // Not signed in any longer; one handshake is allowed.
                    Ok((head, ..)) if head.status == StatusCode::UNAUTHORIZED => body,
                    Ok((head, incoming, connection)) => {
                        return Ok(self.answer(head, incoming, connection, &server, limits, None));
                    }
                    // Closed while at rest; nothing of the request went out. If something did, the server may be at it: that is for whoever
                    // keeps the guard.
                    Err(Failed { unsent: true, .. }) => body,
                    Err(failed) => return Err(failed),
                },
            },
        };
        let leave = Leave::ask(ctx, &server, &self.account, &self.password).await?;
        let connection = self.connector.connect(url, limits).await.map_err(|error| Failed { error, unsent: true })?;
        Ok(self.sign_in(&asked, &server, connection, body, leave).await?)
    }

    async fn sign_in(
        &self,
        asked: &Asked<'_>,
        server: &str,
        connection: Connection,
        body: Body,
        mut leave: Leave,
    ) -> Result<Answer> {
        let limits = asked.limits;
        let mut handshake = Handshake::new(self, connection.binding.as_deref(), asked.url)?;
        let first = handshake.next(None)?;
        let first = self.carried(&first, self.scheme == Scheme::Negotiate)?;
        let (head, incoming, connection) =
            Self::send(connection, asked, Body::Empty, Some(first)).await.map_err(|failed| failed.error)?;
        if head.status != StatusCode::UNAUTHORIZED {
            // No sign-in is wanted here.
            let whole = matches!(body, Body::Empty);
            if whole || head.status.is_server_error() || head.status == StatusCode::TOO_MANY_REQUESTS {
                return Ok(self.answer(head, incoming, connection, server, limits, None));
            }
            let connection = self.rest(&head, incoming, connection, limits).await?;
            let (head, incoming, connection) =
                Self::send(connection, asked, body, None).await.map_err(|failed| failed.error)?;
            return Ok(self.answer(head, incoming, connection, server, limits, None));
        }
        let Some(challenge) = token::challenge(&head.headers, self.scheme.name())? else {
            let offered = token::schemes(&head.headers);
            if offered.iter().any(|offered| offered.eq_ignore_ascii_case(self.scheme.name())) {
                let message = format!("the server offers {} and does not answer its first message", self.scheme.name());
                return Err(
                    Error::unavailable(message).hint("look for a proxy between us that does not keep connections")
                );
            }
            // The client says what to set.
            return Ok(self.answer(head, incoming, connection, server, limits, None));
        };
        let connection = self.rest(&head, incoming, connection, limits).await?;
        let (challenge, wrapped) = match self.scheme {
            Scheme::Ntlm => (challenge, false),
            Scheme::Negotiate => spnego::unwrap(challenge)?,
        };
        let third = handshake.next(Some(challenge))?;
        let third = match wrapped {
            true => self.header(&spnego::wrap_last(&third)?)?,
            false => self.header(&third)?,
        };
        leave.goes_out();
        let (outcome, leave) = if matches!(*asked.method, Method::GET | Method::HEAD) && leave.unproven() {
            let (method, url, headers) = (asked.method.clone(), asked.url.clone(), asked.headers.clone());
            let exchange = async move {
                let asked = Asked { method: &method, url: &url, headers: &headers, limits };
                let (head, incoming, connection) = Self::send(connection, &asked, body, Some(third)).await?;
                Ok((head, (incoming, connection)))
            };
            // The text of a 401 says whether it is the password; so without it nothing does.
            let (outcome, leave) = watched(exchange, leave, true).await;
            (outcome.map(|(head, (incoming, connection))| (head, incoming, connection)), leave)
        } else {
            (Self::send(connection, asked, body, Some(third)).await, leave)
        };
        match outcome {
            Ok((head, incoming, connection)) => {
                Ok(self.answer(head, incoming, connection, server, limits, Some(leave)))
            }
            Err(Failed { error, unsent }) => {
                leave.settle(if unsent { Verdict::Unsent } else { Verdict::Unknown });
                Err(error)
            }
        }
    }

    async fn send(
        mut connection: Connection,
        asked: &Asked<'_>,
        body: Body,
        authorization: Option<HeaderValue>,
    ) -> Result<(Parts, Arriving, Connection), Failed> {
        let empty = matches!(body, Body::Empty);
        let (body, sent) = Outgoing::new(body);
        let mut request = http::Request::new(body);
        *request.method_mut() = asked.method.clone();
        *request.headers_mut() = asked.headers.clone();
        if empty && !matches!(*asked.method, Method::GET | Method::HEAD) {
            // Windows answers 411 without it.
            request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        if let Some(value) = authorization {
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        let (head, incoming) = connection.send(request, sent, asked.url, asked.limits).await?;
        Ok((head, incoming, connection))
    }

    /// Reads what is left of an answer, so that the next request can follow on the same connection.
    async fn rest(
        &self,
        head: &Parts,
        incoming: Arriving,
        connection: Connection,
        limits: Limits,
    ) -> Result<Connection> {
        let closes = head.version < http::Version::HTTP_11 && !says(&head.headers, "keep-alive");
        if closes || says(&head.headers, "close") {
            return Err(Error::unavailable("the server closes the connection in the middle of the sign-in").hint(
                "look for a proxy between us that does not keep connections, and at the server's keep-alive setting",
            ));
        }
        let mut left = DRAINED;
        let mut incoming = incoming;
        while let Some(frame) = limits.idle(incoming.frame()).await? {
            let frame = frame.map_err(|error| {
                Error::unavailable("the connection broke in the middle of the sign-in").because(error)
            })?;
            let length = frame.data_ref().map_or(0, |data| data.len());
            left = left.checked_sub(length).ok_or_else(|| Error::unavailable("the server's challenge has no end"))?;
        }
        Ok(connection)
    }

    fn answer(
        &self,
        head: Parts,
        incoming: Arriving,
        connection: Connection,
        server: &str,
        limits: Limits,
        leave: Option<Leave>,
    ) -> Answer {
        // A refused connection is not signed in.
        let keep = Keep::new(connection, &self.shelf, server.to_owned(), head.status != StatusCode::UNAUTHORIZED);
        let length = content_length(&head.headers);
        Answer { wire: Wire::new(Incoming::Own(incoming), limits, length, Some(keep)), head, leave }
    }

    fn carried(&self, token: &[u8], wrapped: bool) -> Result<HeaderValue> {
        if wrapped { self.header(&spnego::wrap_first(token)?) } else { self.header(token) }
    }

    fn header(&self, token: &[u8]) -> Result<HeaderValue> {
        token::authorization(self.scheme.name(), token)
    }
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Self::Ntlm => "NTLM",
            Self::Negotiate => "Negotiate",
        }
    }
}

/// One sign-in, of one connection.
struct Handshake {
    ntlm: Ntlm,
    credentials: <Ntlm as SspiImpl>::CredentialsHandle,
    target: String,
}

impl Handshake {
    fn new(sign_in: &SignIn, binding: Option<&[u8]>, url: &Url) -> Result<Self> {
        let mut ntlm = Ntlm::new();
        if let Some(binding) = binding {
            ntlm.set_channel_bindings(binding);
        }
        let password = sign_in.password.expose().clone().into();
        let identity = AuthIdentity { username: sign_in.username.clone(), password };
        let acquired = ntlm
            .acquire_credentials_handle()
            .with_credential_use(CredentialUse::Outbound)
            .with_auth_data(&identity)
            .execute(&mut ntlm)
            .map_err(failed)?;
        let target = format!("HTTP/{}", url.host_str().unwrap_or_default());
        Ok(Self { ntlm, credentials: acquired.credentials_handle, target })
    }

    /// The next message to the server, for the one that came from it.
    fn next(&mut self, challenge: Option<Vec<u8>>) -> Result<Vec<u8>> {
        let mut input = [SecurityBuffer::new(challenge.unwrap_or_default(), BufferType::Token)];
        let mut output = [SecurityBuffer::new(vec![], BufferType::Token)];
        let mut builder = self
            .ntlm
            .initialize_security_context()
            .with_credentials_handle(&mut self.credentials)
            // No signing, no sealing: http carries only the sign-in.
            .with_context_requirements(ClientRequestFlags::empty())
            .with_target_data_representation(DataRepresentation::Native)
            .with_target_name(&self.target)
            .with_input(&mut input)
            .with_output(&mut output);
        self.ntlm
            .initialize_security_context_impl(&mut builder)
            .and_then(|mut generator| generator.resolve_to_result())
            .map_err(failed)?;
        let [output] = output;
        Ok(output.buffer)
    }
}

fn failed(error: sspi::Error) -> Error {
    Error::data("the server's part of the sign-in makes no sense").because(error)
}

fn says(headers: &HeaderMap, word: &str) -> bool {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|option| option.trim().eq_ignore_ascii_case(word))
}
