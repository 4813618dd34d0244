//! Where rows come from.

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use async_trait::async_trait;

use crate::{
    checkpoint::{Checkpoint, Mark, Partition, Resume, Run, Token},
    context::Context,
    error::{Error, Result},
    reject::Reject,
};

/// What is known of a schema before a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Known {
    /// Declared, or asked for by a cheap call.
    Now(SchemaRef),
    /// As it was when the pipeline last ran.
    LastRun(SchemaRef),
    /// Not known; the first batch decides.
    No,
}

impl Known {
    /// The schema, however it is known.
    pub fn schema(&self) -> Option<&SchemaRef> {
        match self {
            Self::Now(schema) | Self::LastRun(schema) => Some(schema),
            Self::No => None,
        }
    }
}

/// One thing a source would fetch.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Work {
    /// In words, for the plan: `https://…/orders.csv`, `window 2026-01-01T05:00 to 06:00`.
    pub what: String,
    /// Its size, where that is known.
    pub bytes: Option<u64>,
}

/// How a source can be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Replay {
    /// From any position it gave: a file with a proven identity, a table with a cursor.
    FromPosition,
    /// A partition at a time, whole: a report.
    WholePartitions,
    /// Not at all: settled one by one.
    OneByOne,
}

/// What a source would do, found by cheap calls only.
#[derive(Clone, Debug)]
pub struct SourcePlan {
    /// The schema of its rows.
    pub schema: Known,
    /// What it would fetch, in order. Empty with `complete_work` means that nothing has changed.
    pub work: Vec<Work>,
    /// Whether `work` is all of it; false where that cannot be known beforehand.
    pub complete_work: bool,
    /// How it can be read again.
    pub replay: Replay,
    /// Whether its positions mean something to the next run (windows done, files unchanged, a cursor).
    pub carries: bool,
    /// Whether it reads again what earlier runs have read (a look-back): refused before `append`, which would double it.
    pub rereads: bool,
    /// What makes its positions meaningful, in a short text without secrets: `ssrs https://… /Sales window=1h`. If it changes,
    /// positions of before are a conflict.
    pub identity: String,
    /// Anything a reader of the plan should know.
    pub notes: Vec<String>,
}

impl SourcePlan {
    /// Whether it is certain that there is nothing to read.
    pub fn nothing_to_do(&self) -> bool {
        self.complete_work && self.work.is_empty()
    }
}

/// What one [`Source::next`] gave.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Rows, all of one schema per source; may be none, when only the mark moved. Aim for 8,192 rows or 1 MiB.
    pub rows: RecordBatch,
    /// Rows that could not be made into one. [`Original::Row`](crate::Original::Row) indexes `rows` and takes that row out of it.
    pub rejects: Vec<Reject>,
    /// Where the piece ends.
    pub mark: Mark,
    /// How many bytes were read for it, before decompression: for the progress bar.
    pub bytes: u64,
    /// The position of the first row in its partition (record number from 0), where the source counts.
    pub first_row: Option<u64>,
}

impl Piece {
    /// Rows that end at `mark`.
    pub fn new(rows: RecordBatch, mark: Mark) -> Self {
        Self { rows, rejects: vec![], mark, bytes: 0, first_row: None }
    }
}

/// What a source has to say.
#[derive(Clone, Debug)]
pub enum Next {
    /// Rows.
    Piece(Box<Piece>),
    /// Nothing now, perhaps later (a queue). The engine asks again; the source has already waited a sensible while.
    Idle,
    /// Nothing any more in this run. Asked again, it says so again.
    End,
}

/// What the sinks have made of a source's pieces.
#[derive(Clone, Debug)]
pub enum Settled {
    /// Everything up to this checkpoint is durable in every sink.
    UpTo(Checkpoint),
    /// One request or message is done: with the rows of the answer, or with why it failed. Said exactly once per token, after the
    /// commit if the sink has one.
    One(Token, std::result::Result<Vec<RecordBatch>, String>),
}

/// What a source offers, for `towpath discover`.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Discovery {
    /// For a person: tables and blocks to paste into the config.
    pub text: String,
    /// The same for a program.
    pub items: serde_json::Value,
}

/// Where rows come from.
///
/// Life: [`plan`](Source::plan) any number of times, then [`open`](Source::open) once, [`next`](Source::next) and
/// [`settled`](Source::settled) in turn from one task, [`close`](Source::close) once. After an error of any method only `close` is called;
/// the engine makes a new source for the next attempt.
#[async_trait]
pub trait Source: Send {
    /// What a run would read. Only [`Effect::Cheap`](crate::Effect::Cheap) calls, which the context enforces; nothing is changed; a report is never rendered
    /// for it. Where the server cannot be reached, the plan is made from the config and says so in `notes`.
    async fn plan(&mut self, ctx: &Context, run: &Run, resume: &Resume) -> Result<SourcePlan>;

    /// Gets ready to give everything behind `resume.from`. What it takes from `resume`, it must prove to be the same thing, or
    /// answer [`Conflict`](crate::ErrorKind::Conflict); what cannot prove it begins its partition anew.
    async fn open(&mut self, ctx: &Context, run: &Run, resume: &Resume) -> Result<()>;

    /// The next piece. **Cancel-safe**: the future may be dropped at any await and `next` called again without a row lost or
    /// doubled; so whatever it holds stands in `self`. Everything between two boundaries of one partition is given without a piece of
    /// another partition in between. Truncated input is an error, never a shorter piece.
    async fn next(&mut self) -> Result<Next>;

    /// Hears what the sinks made durable: acknowledge, answer, move a cursor. After it fails, the same may be said again in
    /// the next run.
    async fn settled(&mut self, settled: Settled) -> Result<()> {
        let _ = settled;
        Ok(())
    }

    /// Lets go of everything. Called exactly once if `open` was called, whatever came of it, also after an error and on cancel; has
    /// a few seconds. `next` is not running then.
    async fn close(&mut self) -> Result<()>;

    /// What this source offers (reports and their parameters, tables, columns), and a block to paste into the config. Cheap calls
    /// and samples only.
    async fn discover(&mut self, ctx: &Context) -> Result<Discovery> {
        let _ = ctx;
        Err(Error::unsupported("this source has nothing to discover"))
    }
}

/// Positions of a checkpoint that a source still has to reach.
///
/// A helper for [`Resume::until`]: give it every boundary, ask it whether all were met.
#[derive(Clone, Debug, Default)]
pub struct Until {
    left: Vec<(Partition, crate::checkpoint::Position)>,
}

impl Until {
    /// What `until` asks of `source` beyond `from`.
    pub fn new(source: &str, from: Option<&Checkpoint>, until: &Checkpoint) -> Self {
        let left = until.of(source).into_iter().flatten();
        let left = left.filter(|(partition, at)| from.and_then(|from| from.position(source, partition)) != Some(*at));
        Self { left: left.map(|(partition, at)| (partition.clone(), at.clone())).collect() }
    }
    /// The position still to be reached in a partition.
    pub fn of(&self, partition: &Partition) -> Option<&crate::checkpoint::Position> {
        self.left.iter().find(|(left, _)| left == partition).map(|(_, at)| at)
    }
    /// Notes a boundary.
    pub fn reached(&mut self, mark: &Mark) {
        if let Mark::At(partition, position) = mark {
            self.left.retain(|(left, at)| left != partition || at != position);
        }
    }
    /// Whether every position has been reached.
    pub fn is_met(&self) -> bool {
        self.left.is_empty()
    }
}
