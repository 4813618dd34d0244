//! One task per component. What the three kinds share is here; each kind has its own file below.
//!
//! A stage owns its component and closes it, exactly once, however it ends: with the input, with an error, on cancel, by a
//! panic. Every wait is abandoned when the run is cancelled, so a component that hangs cannot keep a run from
//! ending.

pub(crate) mod sink;
pub(crate) mod source;
pub(crate) mod transform;

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use arrow_array::RecordBatch;
use futures::FutureExt;
use tokio_util::sync::CancellationToken;
use towpath_core::{Batch, Context, Delivery, Error, Name, Reject, Result, batch::PieceId, pipeline::Role};

use crate::{
    edge::{Arrival, EdgeTx, Item},
    letters::{Letters, Refusal},
    progress::ComponentProgress,
    pulse::Waiting,
};

/// How long a component may take to close.
const CLOSING: Duration = Duration::from_secs(5);

/// What every stage has.
pub(crate) struct Stage {
    pub(crate) name: Name,
    pub(crate) role: Role,
    pub(crate) ctx: Context,
    pub(crate) progress: Arc<ComponentProgress>,
    pub(crate) cancel: CancellationToken,
    pub(crate) letters: Arc<Letters>,
    /// Stages that take this one's rows.
    pub(crate) outputs: Vec<EdgeTx>,
    pub(crate) batch_deadline: Option<Duration>,
}

impl Stage {
    /// Hands rows on to every stage behind.
    pub(crate) async fn emit(&self, rows: RecordBatch, delivery: Delivery, arrival: Arrival) -> Result<()> {
        self.progress.rows_out.add(rows.num_rows() as u64);
        self.progress.batches.add(1);
        self.progress.pulse.waits_for(Waiting::Output);
        let mut last = Some((delivery, arrival));
        for (index, output) in self.outputs.iter().enumerate() {
            let more = index + 1 < self.outputs.len();
            let parts = if more { last.clone() } else { last.take() };
            if let Some((delivery, arrival)) = parts {
                let batch = Batch { rows: rows.clone(), delivery };
                output.send(Item::Rows { input: self.name.clone(), batch, arrival }).await?;
            }
        }
        self.progress.pulse.waits_for(Waiting::Work);
        self.progress.pulse.beat();
        Ok(())
    }

    /// Tells every stage behind that nothing more comes.
    pub(crate) async fn end(&self) -> Result<()> {
        for output in &self.outputs {
            output.send(Item::End { input: self.name.clone() }).await?;
        }
        Ok(())
    }

    /// Gives refused rows to the dead letters. `rows` is the batch that row numbers refer to.
    pub(crate) fn reject(
        &self,
        piece: Option<&PieceId>,
        rows: Option<&RecordBatch>,
        rejects: Vec<Reject>,
    ) -> Result<()> {
        if rejects.is_empty() {
            return Ok(());
        }
        self.progress.rejected.add(rejects.len() as u64);
        self.letters.keep(&Refusal { component: &self.name, piece, rows }, rejects)
    }

    /// Runs `work` under the batch deadline.
    pub(crate) async fn in_time<T>(&self, what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        match self.batch_deadline {
            None => work.await,
            Some(deadline) => tokio::time::timeout(deadline, work).await.unwrap_or_else(|_| {
                Err(Error::timeout(format!("{what} took longer than batch_deadline ({deadline:?})"))
                    .hint("raise `batch_deadline` of this component, or find out what it waits for"))
            }),
        }
    }

    /// Adds where an error happened.
    pub(crate) fn place(&self, error: Error) -> Error {
        error.at(format!("{} {}", self.role.name(), self.name))
    }

    /// Runs the stage's loop to its end, or drops it on cancel; a panic becomes an error.
    pub(crate) async fn guarded<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let work = AssertUnwindSafe(work).catch_unwind();
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Error::cancelled()),
            ended = work => ended.unwrap_or_else(|panic| Err(Error::internal(format!("it panicked: {}", said(&*panic))))),
        }
    }

    /// Closes a component in time; what goes wrong then is logged, because what the run came to is already decided.
    pub(crate) async fn closed(&self, close: impl Future<Output = Result<()>>) {
        let close = AssertUnwindSafe(close).catch_unwind();
        let problem = match tokio::time::timeout(CLOSING, close).await {
            Ok(Ok(Ok(()))) => None,
            Ok(Ok(Err(error))) => Some(error.to_string()),
            Ok(Err(panic)) => Some(format!("it panicked: {}", said(&*panic))),
            Err(_) => Some(format!("it did not close within {CLOSING:?}")),
        };
        if let Some(problem) = problem {
            tracing::warn!(component = %self.name, "closing {} {}: {problem}", self.role.name(), self.name);
        }
        self.progress.pulse.waits_for(Waiting::Ended);
    }
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)")
}
