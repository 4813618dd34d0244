//! A transform's task: one or many instances, whose outputs leave in the order of their inputs.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use arrow_array::RecordBatch;
use async_trait::async_trait;
use futures::future::BoxFuture;
use tokio::task::JoinHandle;
use towpath_core::{
    Batch, Context, Delivery, Error, Mark, Name, Output, Reject, Result, Token, Transform,
    batch::{PieceId, Tracker},
};

use super::Stage;
use crate::{
    edge::{Arrival, EdgeRx, Flight, Item},
    pulse::Waiting,
};

/// Makes a further instance.
pub(crate) type MakeOne = Arc<dyn Fn() -> Result<Box<dyn Transform>> + Send + Sync>;

/// Everything a transform's task needs.
pub(crate) struct TransformStage {
    pub(crate) stage: Arc<Stage>,
    pub(crate) make: MakeOne,
    pub(crate) inputs: Vec<Name>,
    pub(crate) items: EdgeRx,
    pub(crate) flight: Arc<Flight>,
    /// Lower and upper bound of instances.
    pub(crate) workers: (usize, usize),
    /// Holds rows back until the end.
    pub(crate) holds: bool,
}

/// What came of one batch.
struct Applied {
    batch: Batch,
    arrival: Arrival,
    out: Collected,
}

#[derive(Default)]
struct Collected {
    rows: Vec<RecordBatch>,
    rejects: Vec<Reject>,
}

#[async_trait]
impl Output for Collected {
    async fn rows(&mut self, rows: RecordBatch) -> Result<()> {
        self.rows.push(rows);
        Ok(())
    }
    fn reject(&mut self, reject: Reject) {
        self.rejects.push(reject);
    }
}

/// The instance, to be used again, and what it made of a batch.
type Done = (Box<dyn Transform>, Result<Applied>);
type Worker = JoinHandle<Done>;

impl TransformStage {
    /// Takes batches until every input has ended, then finishes.
    pub(crate) async fn run(mut self) -> Result<()> {
        let stage = Arc::clone(&self.stage);
        let mut busy = Busy(VecDeque::new());
        let ended = stage.guarded(self.work(&mut busy)).await;
        // Workers of a cancelled run are ended here, not left to themselves.
        for worker in busy.0.drain(..) {
            worker.abort();
            let _ = worker.await;
        }
        stage.progress.pulse.waits_for(Waiting::Ended);
        ended.map_err(|error| stage.place(error))
    }

    async fn work(&mut self, busy: &mut Busy) -> Result<()> {
        let (min, max) = self.workers;
        let mut idle: Vec<Box<dyn Transform>> = Vec::new();
        for _ in 0..min {
            idle.push((self.make)()?);
        }
        let mut held = Vec::new();
        let mut open: BTreeSet<Name> = self.inputs.iter().cloned().collect();
        while !open.is_empty() || !busy.0.is_empty() {
            let room = busy.0.len() < max;
            self.stage.progress.pulse.waits_for(if busy.0.is_empty() { Waiting::Input } else { Waiting::Work });
            tokio::select! {
                biased;
                // The oldest first: outputs leave in the order of the inputs.
                done = busy.oldest() => {
                    let (instance, applied) = done?;
                    // Grown for a load that has passed: let it go again.
                    if idle.len() < min || !busy.0.is_empty() {
                        idle.push(instance);
                    }
                    self.hand_on(applied?, &mut held).await?;
                }
                item = self.items.recv(), if room && !open.is_empty() => match item {
                    None => return Err(Error::cancelled()),
                    Some(Item::End { input }) => {
                        open.remove(&input);
                    }
                    Some(Item::Rows { input, batch, arrival }) => {
                        self.stage.progress.rows_in.add(batch.rows.num_rows() as u64);
                        self.stage.progress.pulse.beat();
                        let instance = match idle.pop() {
                            Some(instance) => instance,
                            None => (self.make)()?,
                        };
                        busy.0.push_back(self.start(instance, input, batch, arrival));
                    }
                },
            }
        }
        let Some(mut instance) = idle.pop() else { return Err(Error::internal("no instance is left to finish")) };
        self.finish(instance.as_mut(), held).await?;
        self.stage.end().await
    }

    fn start(&self, mut instance: Box<dyn Transform>, input: Name, batch: Batch, arrival: Arrival) -> Worker {
        let stage = Arc::clone(&self.stage);
        tokio::spawn(async move {
            let mut out = Collected::default();
            if batch.rows.num_columns() == 0 {
                // A piece that only moves a position: there is nothing to transform, and no column to look for.
                return (instance, Ok(Applied { batch, arrival, out }));
            }
            let applying = instance.apply(&stage.ctx, &input, batch.rows.clone(), &mut out);
            let outcome = stage.guarded(stage.in_time("one batch", applying)).await;
            (instance, outcome.map(|()| Applied { batch, arrival, out }))
        })
    }

    async fn hand_on(&self, applied: Applied, held: &mut Vec<Delivery>) -> Result<()> {
        let Applied { batch, arrival, out } = applied;
        let Batch { rows, delivery } = batch;
        self.stage.reject(Some(delivery.piece()), Some(&rows), out.rejects)?;
        if self.holds {
            held.push(delivery.clone());
        }
        let last = out.rows.len().saturating_sub(1);
        if out.rows.is_empty() {
            // Filtered away, or held back: nothing of it is under way any more.
            delivery.complete();
            return Ok(());
        }
        let mut parts = Some((delivery, arrival));
        for (index, rows) in out.rows.into_iter().enumerate() {
            let part = if index < last { parts.clone() } else { parts.take() };
            if let Some((delivery, arrival)) = part {
                self.stage.emit(rows, delivery, arrival).await?;
            }
        }
        Ok(())
    }

    /// What was held back comes out, under a handle that settles everything that went in.
    async fn finish(&self, instance: &mut dyn Transform, held: Vec<Delivery>) -> Result<()> {
        self.stage.progress.pulse.waits_for(Waiting::Work);
        let piece = PieceId { source: self.stage.name.clone(), seq: 0, mark: Mark::One(Token(0)) };
        let delivery = Delivery::new(piece, Arc::new(Held(Mutex::new(held))));
        let mut out = Streamed { stage: &self.stage, flight: &self.flight, delivery: &delivery, rejects: vec![] };
        instance.finish(&self.stage.ctx, &mut out).await?;
        let rejects = std::mem::take(&mut out.rejects);
        self.stage.reject(None, None, rejects)?;
        delivery.complete();
        Ok(())
    }
}

/// Batches being worked on, oldest first; aborted when dropped.
struct Busy(VecDeque<Worker>);

impl Busy {
    fn oldest(&mut self) -> BoxFuture<'_, Result<Done>> {
        Box::pin(async move {
            let Some(worker) = self.0.front_mut() else { return std::future::pending().await };
            let done = worker.await;
            self.0.pop_front();
            done.map_err(|error| Error::internal("a worker ended before its batch").because(error))
        })
    }
}

/// Settles everything that a holding transform took in, when everything it gave has been settled.
struct Held(Mutex<Vec<Delivery>>);

impl Tracker for Held {
    fn settled(&self, _: &PieceId, kept: bool) {
        for delivery in self.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            if kept {
                delivery.complete();
            }
        }
    }
}

/// Hands the output of `finish` on as it comes.
struct Streamed<'a> {
    stage: &'a Stage,
    flight: &'a Arc<Flight>,
    delivery: &'a Delivery,
    rejects: Vec<Reject>,
}

#[async_trait]
impl Output for Streamed<'_> {
    async fn rows(&mut self, rows: RecordBatch) -> Result<()> {
        self.stage.emit(rows, self.delivery.clone(), self.flight.take_off()).await
    }
    fn reject(&mut self, reject: Reject) {
        self.rejects.push(reject);
    }
}

/// A transform that is a closure: for pipelines built in Rust.
pub(crate) struct Closure<F>(pub(crate) F);

#[async_trait]
impl<F: FnMut(RecordBatch, &mut Vec<Reject>) -> Result<RecordBatch> + Send> Transform for Closure<F> {
    fn plan(&self, _: &[(Name, towpath_core::Known)]) -> Result<towpath_core::TransformPlan> {
        Ok(towpath_core::TransformPlan {
            schema: towpath_core::Known::No,
            holds: false,
            stateful: false,
            notes: vec![],
            warnings: vec![],
        })
    }
    async fn apply(&mut self, _: &Context, _: &Name, rows: RecordBatch, out: &mut dyn Output) -> Result<()> {
        let mut rejects = vec![];
        let given = (self.0)(rows, &mut rejects)?;
        rejects.into_iter().for_each(|reject| out.reject(reject));
        out.rows(given).await
    }
}
