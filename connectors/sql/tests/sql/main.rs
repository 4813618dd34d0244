//! Queries over small tables and large ones. One program: each would link all of DataFusion.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure in a test is its message")]

mod kit;

mod always;
mod bounds;
mod conformance;
mod plans;
mod queries;
