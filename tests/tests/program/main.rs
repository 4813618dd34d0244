//! The program as people use it: files, processes, signals, exit codes; nothing of it from inside.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a failure in a test is its message"
)]

mod kit;

mod credentials;
mod crm;
mod exits;
mod faults;
mod files;
mod joins;
mod kills;
mod letters;
mod peers;
mod refused;
mod serve;
mod sharing;
mod sql_server;
mod warehouse;
