//! Plans and runs pipelines.
//!
//! The way of a batch: [`Graph`] is the pipeline as components; `engine` takes the pipeline's lock and finds the run to go on
//! with; `attempt` opens the sinks (they say where to resume: `resume`), then the sources, and builds the stages; `stage` has one task per
//! component, joined by `edge`s bounded by count and by bytes; `epoch` closes an epoch when it is time, waits until everything
//! has arrived, and commits all sinks in lockstep.
//!
//! Beside it: [`plan`] says what a run would do, [`diff`] what it would change, `check` what is wrong with it before anybody is asked, [`call`] is the door to the outside ([`guard`], [`breaker`], [`budget`], [`credentials`]),
//! [`state`] what is remembered, [`dead_letters`] what was refused (`letters` hands it over), [`replay`] sends it again, [`pulse`], `watchdog` and [`progress`] the
//! signs of life, [`schedule`] reckons when a pipeline runs next, [`library`] builds pipelines in Rust.

mod attempt;
pub mod breaker;
pub mod budget;
pub mod call;
mod check;
pub mod credentials;
pub mod dead_letters;
pub mod diff;
mod edge;
mod engine;
mod epoch;
mod graph;
pub mod guard;
mod letters;
pub mod library;
pub mod plan;
mod preview;
pub mod progress;
pub mod pulse;
mod reasons;
pub mod replay;
pub mod report;
mod resume;
mod rules;
pub mod schedule;
mod spill;
mod stage;
pub mod state;
mod supersede;
#[cfg(test)]
mod tests;
mod watchdog;

pub use check::check_transforms;
pub use diff::{Bound, DiffReport};
pub use engine::{Engine, RunOptions};
pub use graph::Graph;
pub use library::Pipeline;
pub use plan::PlanReport;
pub use preview::Preview;
pub use progress::Progress;
pub use replay::ReplayReport;
pub use report::{RunReport, Status};
pub use state::StateStore;
