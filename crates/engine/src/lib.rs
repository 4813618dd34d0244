//! Plans and runs pipelines.
//!
//! The way of a batch: [`graph`] is the pipeline as components; `run` opens the sinks (they say where to resume), then the
//! sources, and makes an attempt; `stage` has one task per component, joined by `edge`s bounded by count and by bytes;
//! `epoch` closes an epoch when it is time, waits until everything has arrived, and commits all sinks in lockstep.
//! Beside it: [`call`] is the door to the outside, [`state`] what is remembered, [`dead_letters`] what was refused,
//! [`pulse`] and [`progress`] the signs of life.

pub mod dead_letters;
pub mod progress;
pub mod pulse;
pub mod report;
pub mod state;

pub use progress::Progress;
pub use report::{RunReport, Status};
