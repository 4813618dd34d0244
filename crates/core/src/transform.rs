//! Batch in, batches out.

use arrow_array::RecordBatch;
use async_trait::async_trait;

use crate::{context::Context, error::Result, pipeline::Name, reject::Reject, source::Known};

/// What a transform would do.
#[derive(Clone, Debug)]
pub struct TransformPlan {
    /// The schema of what comes out.
    pub schema: Known,
    /// Holds rows back until [`finish`](Transform::finish) (a join, an aggregate): the run becomes one epoch, and every input is read whole.
    pub holds: bool,
    /// Remembers rows between batches (dedupe): one worker only; before `append` the run becomes one epoch, or what it forgot in a
    /// crash would double.
    pub stateful: bool,
    /// Anything a reader of the plan should know.
    pub notes: Vec<String>,
    /// What must not be missed: a plan shows it among its warnings, with the transform's name.
    pub warnings: Vec<String>,
}

/// Takes what a transform gives.
#[async_trait]
pub trait Output: Send {
    /// Rows to hand on. Waits while the stages behind are busy, so memory stays bounded.
    async fn rows(&mut self, rows: RecordBatch) -> Result<()>;
    /// A row refused. In `apply`, [`Original::Row`](crate::Original::Row) indexes the batch in hand.
    fn reject(&mut self, reject: Reject);
}

/// Batch in, batches out.
///
/// One instance is called by one task at a time; `workers: N` makes N instances, whose outputs are put back into the order of their
/// inputs. After an error nothing more is called and the instance is dropped.
#[async_trait]
pub trait Transform: Send {
    /// What comes out, given what comes in. Makes no calls. A column that is missing in a known schema is a Config error here.
    fn plan(&self, inputs: &[(Name, Known)]) -> Result<TransformPlan>;

    /// One batch of one input. The batch may be empty. May be dropped at any await on cancel; then neither its output nor its
    /// rejects are used.
    async fn apply(&mut self, ctx: &Context, input: &Name, rows: RecordBatch, out: &mut dyn Output) -> Result<()>;

    /// All inputs have ended: what was held back comes out now. **Never called on cancel or after an error.**
    async fn finish(&mut self, ctx: &Context, out: &mut dyn Output) -> Result<()> {
        let _ = (ctx, out);
        Ok(())
    }
}
