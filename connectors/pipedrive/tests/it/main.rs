//! The connector against a simulated account, without an engine: what is asked of it, what is sent, and what the account holds then.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure in a test is its message")]

mod common;
mod losses;
mod planning;
mod policies;
mod property;
mod reading;
mod readme;
mod sync;
