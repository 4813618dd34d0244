//! The HTTP client against servers: made up ones, raw sockets, encrypted ones, and one that is not of our making.
// The lints know tests by their attribute; helpers have none.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod client;
mod common;
mod ntlm_peer;
mod oauth;
mod tls;
mod wire;
