//! Where rows go.

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    checkpoint::{Checkpoint, Run},
    context::Context,
    error::Result,
    reject::Reject,
    source::Known,
};

/// How rows meet what is already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WriteMode {
    /// Every row is added. Exactly once, also through crashes.
    Append,
    /// A row whose key is not there yet is added; the others are known and left alone. Of several in one batch the last one wins.
    InsertNew,
    /// A row whose key is there replaces it; the others are added. Of several in one batch the last one wins.
    Upsert,
    /// When the run is complete, its rows take the place of all there was, at once.
    Replace,
}

impl WriteMode {
    /// As the config calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::InsertNew => "insert_new",
            Self::Upsert => "upsert",
            Self::Replace => "replace",
        }
    }
}

/// What a sink can promise, from weakest to strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Guarantee {
    /// A row may be written twice after a crash.
    AtLeastOnce,
    /// A row may be sent twice after a crash; its key makes that harmless.
    AtLeastOnceKeyed,
    /// Rows and checkpoint are durable in one transaction.
    ExactlyOnce,
}

/// What a sink would do.
#[derive(Clone, Debug)]
pub struct SinkPlan {
    /// How rows meet what is already there.
    pub mode: WriteMode,
    /// What it promises.
    pub guarantee: Guarantee,
    /// Writing the same rows again is harmless, so that [`commit`](Sink::commit) may publish early, in the middle of a partition.
    pub early_publish: bool,
    /// What makes its checkpoint meaningful, in a short text without secrets: `sqlite /data/a.db table=log insert_new`.
    pub identity: String,
    /// What would be created or changed, and anything else a reader of the plan should know.
    pub notes: Vec<String>,
}

/// Where the checkpoint lives.
#[derive(Clone, Debug)]
pub enum Held {
    /// With the rows: the destination decides where the run stands. `None`: nothing there yet.
    Here(Option<Checkpoint>),
    /// In the engine's state store, because the target has no transactions of ours. Writes must be idempotent.
    ByEngine,
}

/// What came of one [`write`](Sink::write).
#[derive(Clone, Debug, Default)]
pub struct Wrote {
    /// Rows that are, or at commit will be, in the target because of this call.
    pub written: u64,
    /// Rows left out because the target has them, or because a later one of the same key takes their place.
    pub known: u64,
    /// Records closed or deleted because no row stands for them.
    pub removed: u64,
    /// Rows refused.
    pub rejected: Vec<Reject>,
    /// The answer to the rows, from a sink that answers (a request/response service).
    pub reply: Option<RecordBatch>,
}

/// What a sink has been given when its input has come to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Complete {
    /// It has been given every row of its input, from the beginning: nothing was read by an earlier attempt or run. Only then is a record
    /// without a row one that the input no longer has.
    pub whole: bool,
    /// Rows on the way to it that were refused in this run, by whomever: they are in the dead letters, and not among its rows.
    pub refused: u64,
}

/// Where rows go.
///
/// Life: [`plan`](Sink::plan) any number of times, [`open`](Sink::open) once, then per epoch any number of [`schema`](Sink::schema) and
/// [`write`](Sink::write), one [`complete`](Sink::complete) in the last one, one [`flush`](Sink::flush), one [`commit`](Sink::commit); [`close`](Sink::close) once, at the very end. An epoch without rows is committed all the same.
/// After an error of any method only `close` is called, and a new sink is opened: what that finds in the target decides.
/// One recovery for all: a failed commit is treated as a crash.
#[async_trait]
pub trait Sink: Send {
    /// What a run would do. Only [`Effect::Cheap`](crate::Effect::Cheap) calls; nothing is changed.
    async fn plan(&mut self, ctx: &Context, schema: &Known) -> Result<SinkPlan>;

    /// Raises the fence and reads the checkpoint **in one transaction**, so that a commit of a dead process that lands later
    /// finds the fence raised and changes nothing. Anything staged by another run is thrown away. The checkpoint is of
    /// [`ctx.pipeline()`](Context::pipeline) and [`ctx.component()`](Context::component). A target that was made anew since has none, and says so.
    async fn open(&mut self, ctx: &Context, run: &Run) -> Result<Held>;

    /// The schema of the rows to come: before the first `write` and at each change. Creates or checks the target. Returns what the
    /// keys are computed with (version and columns of a row hash, the key columns), if there are keys; the engine compares it
    /// with the checkpoint's before the first write.
    async fn schema(&mut self, schema: &SchemaRef) -> Result<Option<String>>;

    /// What [`schema`](Sink::schema) said of the keys, now or in an earlier run, as people know it: names in place of ids.
    fn keyed_in_words(&self, keyed_by: &str) -> String {
        keyed_by.to_owned()
    }

    /// The columns of its input by which it tells rows apart, where a later row replaces an earlier one of the same key. From the
    /// config alone. With them a dead letter is known to be superseded when a later row of its key comes; without them, when any later
    /// run brings rows.
    fn key_columns(&self) -> Option<Vec<String>> {
        None
    }

    /// Takes rows. Not durable and not visible until `commit`. `seq` counts the writes of this sink since `open`. Bad rows are
    /// in `rejected`; an error means that nothing of this epoch will be committed.
    async fn write(&mut self, seq: u64, rows: RecordBatch) -> Result<Wrote>;

    /// The input has come to its end: what can be told only from all rows (records that no row stands for any more) is done now. Called
    /// once, behind the last `write` and before the last `flush`, and only where the run comes to its end.
    async fn complete(&mut self, input: Complete) -> Result<Wrote> {
        let _ = input;
        Ok(Wrote::default())
    }

    /// Runs everything that data can break (casts, constraints), inside the open transaction; returns what is refused only now.
    /// **After it there are no rejects**: only infrastructure can fail.
    async fn flush(&mut self) -> Result<Wrote>;

    /// Makes the epoch's rows and the checkpoint durable in one transaction, `where fence = mine`; if no checkpoint row was updated,
    /// another process owns the target now: [`Conflict`](crate::ErrorKind::Conflict), and nothing was written. A commit without rows still stores the
    /// checkpoint. `checkpoint.last` is the only commit in which [`WriteMode::Replace`] swaps. A commit whose epoch is the one before
    /// is an early publish: rows so far and the same positions. An error says `outcome unknown` when the answer was lost.
    async fn commit(&mut self, checkpoint: &Checkpoint) -> Result<()>;

    /// Lets go of everything, rolls back what is not committed. Called exactly once if `open` was called, whatever came of it.
    async fn close(&mut self) -> Result<()>;
}
