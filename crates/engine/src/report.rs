//! What a run came to, for people and for programs.

use std::{collections::BTreeMap, fmt};

use serde::{Serialize, Serializer};
use towpath_core::{Error, ErrorKind, Name, pipeline::Role};

use crate::{
    progress::{Calls, Counter, Progress},
    state::Holder,
};

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Everything was read and committed.
    Completed,
    /// An error ended it.
    Failed,
    /// Too many rejected rows ended it; the next run takes it up.
    Stopped,
    /// It was interrupted; the next run takes it up.
    Cancelled,
}

impl Status {
    /// As in `--json` and the state store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What a source gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SourceReport {
    /// Rows read.
    pub rows: u64,
    /// Bytes read, before decompression.
    pub bytes: u64,
    /// Pieces given.
    pub batches: u64,
    /// Rows refused: of those read, or what was to become a row and could not.
    pub rejected: u64,
}

/// What a transform did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TransformReport {
    /// Rows that came in.
    pub rows_in: u64,
    /// Rows that went out.
    pub rows_out: u64,
    /// Rows refused.
    pub rejected: u64,
}

/// What a sink made durable in this run of the program: what was committed, or, where the target has no transactions, all that was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SinkReport {
    /// Rows written.
    pub written: u64,
    /// Rows left out because the target had them.
    pub skipped: u64,
    /// Records closed or deleted because no row stands for them. Left out of JSON where there are none.
    #[serde(skip_serializing_if = "is_zero")]
    pub removed: u64,
    /// Rows refused.
    pub rejected: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What a component's calls to the outside came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallReport {
    /// Tries that went out.
    pub tries: u64,
    /// Tries that failed.
    pub failed: u64,
    /// Tries made because the one before had failed.
    pub again: u64,
    /// Milliseconds until the answers began, of all tries together.
    pub answering_ms: u64,
    /// Milliseconds spent waiting for a guard, or for the next try.
    pub waited_ms: u64,
}

/// What a run came to. Serializes to the line that ends `run --json`.
#[derive(Debug, Serialize)]
pub struct RunReport {
    /// The pipeline.
    pub pipeline: Name,
    /// The run's identity; empty if it did not get that far.
    pub run_id: String,
    /// How it ended.
    pub status: Status,
    /// By source.
    pub sources: BTreeMap<Name, SourceReport>,
    /// By transform.
    pub transforms: BTreeMap<Name, TransformReport>,
    /// By sink.
    pub sinks: BTreeMap<Name, SinkReport>,
    /// Rows given to the dead letters and kept there.
    pub dead_letters: u64,
    /// Wall time.
    pub elapsed_seconds: f64,
    /// The largest resident size of this process so far.
    pub peak_memory_bytes: u64,
    /// Why it did not complete.
    #[serde(serialize_with = "in_words")]
    pub error: Option<Error>,
    /// Stages that stood still for longer than their heartbeat when the run ended, and what they waited for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stalled: Vec<String>,
    /// By component, where it made any.
    #[serde(skip)]
    pub calls: BTreeMap<Name, CallReport>,
    /// It went on with a run that had died or was stopped.
    #[serde(skip)]
    pub taken_up: bool,
    /// Another run of this pipeline holds the lock.
    #[serde(skip)]
    pub locked: bool,
    /// No source had anything new, so nothing was read.
    #[serde(skip)]
    pub nothing_new: bool,
}

fn in_words<S: Serializer>(error: &Option<Error>, serializer: S) -> Result<S::Ok, S::Error> {
    match error {
        Some(error) => serializer.collect_str(error),
        None => serializer.serialize_none(),
    }
}

impl RunReport {
    /// A report without figures.
    pub(crate) fn new(pipeline: Name) -> Self {
        Self {
            pipeline,
            run_id: String::new(),
            status: Status::Failed,
            sources: BTreeMap::new(),
            transforms: BTreeMap::new(),
            sinks: BTreeMap::new(),
            dead_letters: 0,
            elapsed_seconds: 0.0,
            peak_memory_bytes: 0,
            error: None,
            stalled: vec![],
            calls: BTreeMap::new(),
            taken_up: false,
            locked: false,
            nothing_new: false,
        }
    }

    /// Fills in the figures.
    pub(crate) fn count(&mut self, progress: &Progress) {
        for part in progress.components() {
            let name = part.name.clone();
            let Calls { tries, failed, again, answering_ms, waited_ms, .. } = &part.calls;
            if tries.get() + waited_ms.get() > 0 {
                let [tries, failed, again] = [tries, failed, again].map(Counter::get);
                let [answering_ms, waited_ms] = [answering_ms, waited_ms].map(Counter::get);
                self.calls.insert(name.clone(), CallReport { tries, failed, again, answering_ms, waited_ms });
            }
            match part.role {
                Role::Source => {
                    let (rows, bytes, batches) = (part.rows_out.get(), part.bytes.get(), part.batches.get());
                    self.sources.insert(name, SourceReport { rows, bytes, batches, rejected: part.rejected.get() });
                }
                Role::Transform => {
                    let [rows_in, rows_out, rejected] =
                        [&part.rows_in, &part.rows_out, &part.rejected].map(Counter::get);
                    self.transforms.insert(name, TransformReport { rows_in, rows_out, rejected });
                }
                Role::Sink => {
                    let [written, skipped, removed, rejected] =
                        [&part.written, &part.known, &part.removed, &part.rejected].map(Counter::get);
                    self.sinks.insert(name, SinkReport { written, skipped, removed, rejected });
                }
            }
        }
    }

    /// The program's exit code: 0 done, 1 failed, 2 config, 3 too many rejected rows, 4 another run holds the lock, 130
    /// interrupted.
    pub fn exit_code(&self) -> u8 {
        match self.status {
            Status::Completed => 0,
            Status::Stopped => 3,
            Status::Cancelled => 130,
            Status::Failed => self.error.as_ref().map_or(1, exit_code),
        }
    }
}

/// The program's exit code for what ends a command, or would end a run: 2 config, 4 another run of the pipeline is under way, 130
/// interrupted or the day's budget is spent, else 1.
pub fn exit_code(error: &Error) -> u8 {
    match error.kind() {
        ErrorKind::Config => 2,
        ErrorKind::Cancelled => 130,
        _ if crate::budget::is_spent(error) => 130,
        _ if is_under_way(error) => 4,
        _ => 1,
    }
}

/// How the message begins by which another run is known to be what is in the way.
const ANOTHER: &str = "another run of pipeline '";

/// What everything fails with that needs a pipeline for itself while a run of it is under way.
pub fn under_way(pipeline: &Name, holder: Option<&Holder>) -> Error {
    let holder = holder.map(|holder| format!(" ({holder})")).unwrap_or_default();
    Error::conflict(format!("{ANOTHER}{pipeline}' is under way{holder}"))
        .hint("wait until it has ended; a process that has died holds no lock")
}

fn is_under_way(error: &Error) -> bool {
    error.kind() == ErrorKind::Conflict && error.message().starts_with(ANOTHER)
}

/// An error that a plan goes on without, or tells at its end.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// Whose.
    pub component: Name,
    /// Where, what and why.
    pub error: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The exit code of a run that ends with it.
    pub exit_code: u8,
}

impl Failure {
    pub(crate) fn of(component: &Name, error: &Error) -> Self {
        let (component, hint) = (component.clone(), error.what_to_do().map(str::to_owned));
        Self { component, error: error.to_string(), hint, exit_code: exit_code(error) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.component, self.error)?;
        self.hint.iter().try_for_each(|hint| write!(f, "; {hint}"))
    }
}
