//! The source, against any server that speaks TDS: types, cursors and their seams, ranges, what is wrong.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure in a test is its message")]

#[path = "../common/mod.rs"]
mod common;

mod cases;
mod conformance;
mod given;
mod simulated;
