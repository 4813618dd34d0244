//! Where a run stands: partitions, positions, marks, epochs, checkpoints.
//!
//! A *piece* is what one [`next`](crate::Source::next) gave; its *mark* says where it ends. An *epoch* is what one commit
//! covers: everything up to a set of marks, in every partition of every source. A *checkpoint* is what is stored
//! with the rows of an epoch, and what a later run resumes from. Order comes from the epoch alone: positions are
//! compared for equality and for nothing else.

use std::{collections::BTreeMap, fmt, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::pipeline::Name;

/// A part of a source that has a position of its own: a file, a table, a sequence of windows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Partition(pub Arc<str>);

/// How far a partition has been read, in the source's own words. Text, so that `towpath state show` can be read; compared for
/// equality only. A source that can resume inside a partition puts the proof of identity (ETag, size and mtime) in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(pub Arc<str>);

/// Names one request or message that is settled by itself, in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

impl Partition {
    /// From text.
    pub fn new(text: impl AsRef<str>) -> Self {
        Self(text.as_ref().into())
    }
}

impl Position {
    /// From text.
    pub fn new(text: impl AsRef<str>) -> Self {
        Self(text.as_ref().into())
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a piece ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A commit may stand here, and a later run may go on from here.
    At(Partition, Position),
    /// Inside a partition that is whole or nothing (a report that cannot prove it is the same a second time): no epoch
    /// ends here.
    Within(Partition),
    /// The partition is no longer there (a file that vanished): its position is dropped from the checkpoint. A commit may
    /// stand here.
    Gone(Partition),
    /// Settled one by one, never resumed: a request, a broker message.
    One(Token),
}

impl Mark {
    /// Whether an epoch may end behind this piece.
    pub fn is_boundary(&self) -> bool {
        !matches!(self, Self::Within(_))
    }
    /// The partition the piece came from, where it has one.
    pub fn partition(&self) -> Option<&Partition> {
        match self {
            Self::At(partition, _) | Self::Within(partition) | Self::Gone(partition) => Some(partition),
            Self::One(_) => None,
        }
    }
}

/// A run's identity. Kept in the checkpoint; a run that died or was stopped is taken up with the same one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Unique, and sorts by time.
    pub id: Arc<str>,
    /// The run's "now": windows and the like are reckoned from it, also when the run is taken up a day later.
    pub started: Timestamp,
    /// What was asked of this run beyond the config (a backfill's span), by source.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<Name, serde_json::Value>,
    /// What the sources and targets were, by component: a short text each, from their plans. A run that is taken up with
    /// another one is a conflict.
    #[serde(default)]
    pub fingerprint: BTreeMap<Name, Arc<str>>,
}

/// The positions of every partition of every source.
pub type Positions = BTreeMap<Name, BTreeMap<Partition, Position>>;

/// What is stored with the rows of an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The run it belongs to.
    pub run: Run,
    /// Counts the commits of this pipeline, over all runs. An early publish repeats the number before.
    pub epoch: u64,
    /// Nothing of the run comes after it.
    pub last: bool,
    /// What this sink's keys were computed with ([`Sink::schema`](crate::Sink::schema) says): another one is a conflict before the first write,
    /// never a table doubled overnight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyed_by: Option<Arc<str>>,
    /// How far each partition of each source is covered.
    pub at: Positions,
}

impl Checkpoint {
    /// One source's positions.
    pub fn of(&self, source: &str) -> Option<&BTreeMap<Partition, Position>> {
        self.at.get(source)
    }
    /// One partition's position.
    pub fn position(&self, source: &str, partition: &Partition) -> Option<&Position> {
        self.of(source)?.get(partition)
    }
}

/// What a source is to read: everything behind `from`, and no further than `until`.
#[derive(Clone, Debug, Default)]
pub struct Resume {
    /// The checkpoint to go on from. It may be of the same run (go on inside it) or of an earlier one that was completed
    /// (only what a new run wants to know of it, such as the windows done); [`same_run`](Resume::same_run) tells which.
    pub from: Option<Checkpoint>,
    /// Stop exactly here: some sinks have committed this checkpoint and the others must be given the very same rows. End a
    /// piece exactly at each of its positions, then `End`; if that cannot be done, answer
    /// [`Conflict`](crate::ErrorKind::Conflict).
    pub until: Option<Checkpoint>,
    /// Read every partition whole, whatever `from` says of earlier runs: a sink replaces its table, or a join needs all
    /// inputs, and something has changed.
    pub whole: bool,
}

impl Resume {
    /// The checkpoint to go on from, if it is of this very run.
    pub fn same_run(&self, run: &Run) -> Option<&Checkpoint> {
        self.from.as_ref().filter(|from| from.run.id == run.id)
    }
}
