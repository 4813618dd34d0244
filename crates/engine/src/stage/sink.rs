//! A sink's task: writes what arrives, and flushes and commits when the coordinator says so.

use std::{collections::BTreeSet, sync::Arc};

use arrow_schema::SchemaRef;
use tokio::sync::{mpsc, oneshot};
use towpath_core::{Checkpoint, Complete, Delivery, Error, Name, Result, Sink, Wrote};

use super::Stage;
use crate::{
    edge::{EdgeRx, Item},
    progress::Committing,
    pulse::Waiting,
    spill::Spill,
    state::{Fence, StateStore},
    supersede::Watcher,
};

/// What the coordinator asks of a sink, with where the answer goes.
pub(crate) enum Command {
    /// Write what was held for `after`, say that the input is complete where it is, then run everything that data can break.
    Flush(Option<Complete>, oneshot::Sender<()>),
    /// Make the epoch durable.
    Commit(Checkpoint, oneshot::Sender<()>),
    /// Flush and commit what there is, without moving the positions.
    Publish(Checkpoint, oneshot::Sender<()>),
}

/// Where the checkpoint of this sink is kept.
pub(crate) enum Keeper {
    /// By the sink, with the rows.
    Sink,
    /// By the state store, under a fence.
    Store { store: StateStore, fence: Fence },
}

/// Everything a sink's task needs. The sink is open.
pub(crate) struct SinkStage {
    pub(crate) stage: Stage,
    pub(crate) sink: Box<dyn Sink>,
    pub(crate) inputs: Vec<Name>,
    pub(crate) items: EdgeRx,
    pub(crate) commands: mpsc::Receiver<Command>,
    /// Is told when every input has ended.
    pub(crate) input_ended: Option<oneshot::Sender<()>>,
    pub(crate) keeper: Keeper,
    pub(crate) store: StateStore,
    /// What the keys of the rows already there were computed with.
    pub(crate) keyed_by: Option<Arc<str>>,
    /// Rows wait here until other sinks have committed.
    pub(crate) spill: Option<Spill>,
    /// Knows which dead letters its rows supersede.
    pub(crate) watcher: Option<Watcher>,
}

/// What an open sink knows between calls.
#[derive(Default)]
struct Writing {
    schema: Option<SchemaRef>,
    seq: u64,
    /// Completed when their rows are durable.
    deliveries: Vec<Delivery>,
    /// Written and known since the last commit.
    open: [u64; 2],
    /// The same, as far as they are durable.
    durable: [u64; 2],
    /// It was given every row of its input.
    whole: bool,
}

impl SinkStage {
    /// Works until the run is over, then closes the sink.
    pub(crate) async fn run(mut self) -> Result<()> {
        let stage = &self.stage;
        let mut writing =
            Writing { durable: [stage.progress.written.get(), stage.progress.known.get()], ..Writing::default() };
        let mut parts = Parts {
            stage,
            sink: self.sink.as_mut(),
            keeper: &self.keeper,
            store: &self.store,
            keyed_by: &mut self.keyed_by,
            spill: &mut self.spill,
            watcher: &mut self.watcher,
            writing: &mut writing,
        };
        let ended =
            stage.guarded(parts.work(&self.inputs, &mut self.items, &mut self.commands, &mut self.input_ended)).await;
        // What was not committed did not happen; but where there are no transactions, what was written is there.
        if matches!(self.keeper, Keeper::Sink) {
            stage.progress.written.set(writing.durable[0]);
        }
        stage.progress.known.set(writing.durable[1]);
        drop(self.items);
        self.stage.closed(self.sink.close()).await;
        ended.map_err(|error| self.stage.place(error))
    }
}

struct Parts<'a> {
    stage: &'a Stage,
    sink: &'a mut dyn Sink,
    keeper: &'a Keeper,
    store: &'a StateStore,
    keyed_by: &'a mut Option<Arc<str>>,
    spill: &'a mut Option<Spill>,
    watcher: &'a mut Option<Watcher>,
    writing: &'a mut Writing,
}

impl Parts<'_> {
    /// Until the coordinator lets go of the commands: then the run is over.
    async fn work(
        &mut self,
        inputs: &[Name],
        items: &mut EdgeRx,
        commands: &mut mpsc::Receiver<Command>,
        input_ended: &mut Option<oneshot::Sender<()>>,
    ) -> Result<()> {
        let mut open: BTreeSet<&Name> = inputs.iter().collect();
        loop {
            self.stage.progress.pulse.waits_for(if open.is_empty() { Waiting::Ended } else { Waiting::Input });
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    None => return Ok(()),
                    Some(command) => self.obey(command).await?,
                },
                item = items.recv(), if !open.is_empty() => match item {
                    None => return Err(Error::cancelled()),
                    Some(Item::End { input }) => {
                        open.remove(&input);
                        if open.is_empty() && let Some(ended) = input_ended.take() {
                            let _ = ended.send(());
                        }
                    }
                    Some(Item::Rows { batch, arrival, .. }) => {
                        self.stage.progress.rows_in.add(batch.rows.num_rows() as u64);
                        self.stage.progress.batches.add(1);
                        match self.spill {
                            Some(spill) => spill.push(batch.rows, batch.delivery.piece())?,
                            None => self.write(batch.rows, Some(batch.delivery.piece())).await?,
                        }
                        self.writing.deliveries.push(batch.delivery);
                        self.stage.progress.pulse.beat();
                        drop(arrival);
                    }
                },
            }
        }
    }

    async fn write(
        &mut self,
        rows: arrow_array::RecordBatch,
        piece: Option<&towpath_core::batch::PieceId>,
    ) -> Result<()> {
        if rows.num_columns() == 0 {
            // A piece that only moves a position, such as that of a file that is gone: its source may not know any columns.
            return Ok(());
        }
        self.stage.progress.pulse.waits_for(Waiting::Work);
        let schema = rows.schema();
        if self.writing.schema.as_ref() != Some(&schema) {
            let keyed_by = self.sink.schema(&schema).await?.map(Arc::from);
            if let (Some(before), Some(now)) = (self.keyed_by.as_ref(), &keyed_by)
                && before != now
            {
                let [before, now] = [before, now].map(|keyed_by| self.sink.keyed_in_words(keyed_by));
                return Err(Error::conflict(format!("the keys of the rows there were computed with '{before}', these with '{now}'"))
                    .hint("bring the columns back, or load into a new table, or `towpath state reset checkpoint` if the old keys no longer matter"));
            }
            if keyed_by.is_some() {
                *self.keyed_by = keyed_by;
            }
            // What is refused is sent again in these columns.
            self.store.put_schema(self.stage.ctx.pipeline(), &self.stage.name, &schema)?;
            self.writing.schema = Some(schema);
        }
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let seq = self.writing.seq;
        self.writing.seq += 1;
        let wrote = self.stage.in_time("one batch", self.sink.write(seq, rows.clone())).await?;
        if let Some(watcher) = self.watcher {
            watcher.gave(&rows, &wrote.rejected)?;
        }
        self.count(wrote, Some(&rows), piece)
    }

    fn count(
        &mut self,
        wrote: Wrote,
        rows: Option<&arrow_array::RecordBatch>,
        piece: Option<&towpath_core::batch::PieceId>,
    ) -> Result<()> {
        self.writing.open[0] += wrote.written;
        self.writing.open[1] += wrote.known;
        self.stage.progress.written.add(wrote.written);
        self.stage.progress.known.add(wrote.known);
        self.stage.progress.removed.add(wrote.removed);
        self.stage.reject(piece, rows, wrote.rejected)
    }

    async fn obey(&mut self, command: Command) -> Result<()> {
        self.stage.progress.pulse.waits_for(Waiting::Work);
        let done = match command {
            Command::Flush(complete, done) => {
                self.release().await?;
                if let Some(complete) = complete {
                    let wrote = self.sink.complete(complete).await?;
                    self.writing.whole = complete.whole;
                    self.late(wrote)?;
                }
                self.flush().await?;
                done
            }
            Command::Commit(checkpoint, done) => {
                let [written, known] = self.writing.open;
                let progress = &self.stage.progress;
                if matches!(self.keeper, Keeper::Sink) {
                    // If its answer is lost, the target says whether these rows count.
                    progress.committing(Some(Committing { checkpoint: checkpoint.clone(), written, known }));
                }
                self.commit(checkpoint).await?;
                progress.committing(None);
                for delivery in self.writing.deliveries.drain(..) {
                    delivery.complete();
                }
                done
            }
            Command::Publish(checkpoint, done) => {
                self.flush().await?;
                self.commit(checkpoint).await?;
                done
            }
        };
        self.stage.progress.pulse.beat();
        // Nobody listens any more only if the run is being cancelled.
        let _ = done.send(());
        Ok(())
    }

    /// The sinks it comes `after` have committed: what waited is written now.
    async fn release(&mut self) -> Result<()> {
        let Some(mut waited) = self.spill.as_mut().map(Spill::take).transpose()? else { return Ok(()) };
        while let Some((rows, piece)) = waited.next()? {
            self.write(rows, Some(&piece)).await?;
            self.stage.progress.pulse.beat();
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        let wrote = self.sink.flush().await?;
        self.late(wrote)
    }

    /// What came of rows that were given before.
    fn late(&mut self, wrote: Wrote) -> Result<()> {
        if let Some(watcher) = self.watcher {
            watcher.late(&wrote.rejected)?;
        }
        self.count(wrote, None, None)
    }

    async fn commit(&mut self, mut checkpoint: Checkpoint) -> Result<()> {
        checkpoint.keyed_by = self.keyed_by.clone();
        if let Some(watcher) = self.watcher {
            watcher.settle(checkpoint.epoch, self.writing.whole)?;
        }
        if !self.stage.ctx.withholds() {
            self.sink.commit(&checkpoint).await?;
        }
        let (pipeline, sink) = (self.stage.ctx.pipeline(), &self.stage.name);
        match self.keeper {
            Keeper::Sink => {}
            Keeper::Store { store, fence } => store.put_checkpoint(pipeline, sink, *fence, &checkpoint)?,
        }
        let [written, known] = std::mem::take(&mut self.writing.open);
        self.writing.durable[0] += written;
        self.writing.durable[1] += known;
        Ok(())
    }
}
