//! One HTTP client for all connectors: authentication, timeouts, limits, streaming.
//!
//! A connector flattens [`HttpOptions`] into its config, makes a [`Client`] from it, and sends a [`Request`] inside
//! `ctx.call` or `ctx.stream`. [`Client::send`] makes **one** try: guard, retry and breaker are the engine's. What comes back is a
//! [`Response`] whose body is read chunk by chunk, or an [`Error`](towpath_core::Error) classified by status.
//!
//! The way of a request through the files: `client` (redirects, sign-in, statuses) → `pooled` (reqwest, for everything
//! but NTLM) or `ntlm` (the handshake) on `connection` (one dedicated hyper connection) → `wire` (timeouts, truncation) →
//! `response` (decompression, limits). `tls`, `leave` (what is remembered of a credential) and `options` are for both; `oauth` gets and renews tokens; `token`, `spnego`
//! and `channel_binding` are what a handshake is made of.
//!
//! # Promises
//!
//! * A body shorter than it should be is an error, never a shorter file.
//! * A refused credential is not sent again: every use asks [`Credentials`](towpath_core::context::Credentials) first.
//! * Credentials never leave the origin they were meant for, and never show in a message.

mod channel_binding;
mod classify;
mod client;
mod connection;
mod leave;
mod ntlm;
mod oauth;
mod options;
mod pooled;
mod request;
mod response;
mod shown;
mod spnego;
pub mod tls;
mod token;
mod wire;

pub use classify::{Refusal, refusal};
pub use client::Client;
pub use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
pub use options::{Auth, ClientAuth, HttpOptions, OAuth2, Pin, Proxy, Timeouts};
pub use request::{Body, Request};
pub use response::Response;
pub use shown::{origin, shown};
pub use url::Url;
