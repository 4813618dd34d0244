//! The HTTP client against servers: made up ones, raw sockets, encrypted ones, and one that is not of our making.

mod client;
mod common;
mod ntlm_peer;
mod tls;
mod wire;
