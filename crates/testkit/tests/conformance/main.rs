//! The suite over the ends in memory, which keep every promise, and over broken ones, which each break one.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod promises;
mod sinks;
mod sources;
mod transforms;

use towpath_testkit::conformance::Report;

/// Whether the suite finds what is broken: the case that is meant for it is among those that break.
#[track_caller]
fn finds(report: &Report, case: &str) {
    assert!(report.breaks(case), "'{case}' does not find it:\n{report}");
}

/// A broken one must break something, and nothing may be said in a way that hides where.
#[track_caller]
fn passes(report: Report, at_least: usize) {
    let ran = report.passed.len();
    assert!(ran >= at_least, "only {ran} cases ran:\n{report}");
    report.check();
}
