//! A source's task: numbers the pieces as they leave, and pauses at a boundary when an epoch closes.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arrow_array::{BooleanArray, RecordBatch};
use arrow_schema::SchemaRef;
use tokio::sync::{mpsc, watch};
use towpath_core::{
    Delivery, Error, Mark, Next, Original, Partition, Piece, Position, Result, Resume, Run, Settled, Source,
    batch::{PieceId, Tracker},
};

use super::Stage;
use crate::{edge::Flight, pulse::Waiting, state::StateStore};

/// How often a source that is to stop is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// What the sources are to do. Changes only by the coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Read on.
    Read,
    /// The epoch closes: pause at the next boundary.
    Close,
    /// The same, because the run is to stop: ask for nothing more meanwhile.
    Settle,
    /// The run is to stop: pause at the next boundary, and ask for nothing more. What a server was asked for already is taken.
    Stop,
}

/// What a source tells the coordinator.
#[derive(Debug)]
pub(crate) struct AtBoundary {
    /// Which source.
    pub(crate) index: usize,
    /// Where each of its partitions stands.
    pub(crate) at: BTreeMap<Partition, Position>,
    /// Nothing more comes.
    pub(crate) ended: bool,
}

/// Counts what has left the sources since the last commit.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// Pieces.
    pub(crate) pieces: AtomicU64,
    /// Rows.
    rows: AtomicU64,
    /// So many rows make an epoch.
    limit: u64,
    /// Tells that they are there.
    pub(crate) full: tokio::sync::Notify,
}

impl Meter {
    /// Counts up to the rows that make an epoch, and then says so.
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, ..Self::default() }
    }
    fn count(&self, rows: u64) {
        self.pieces.fetch_add(1, Ordering::Relaxed);
        let before = self.rows.fetch_add(rows, Ordering::Relaxed);
        if before < self.limit && before + rows >= self.limit {
            self.full.notify_one();
        }
    }
    /// Counts from nothing again. Called while every source pauses.
    pub(crate) fn begin(&self) {
        self.pieces.store(0, Ordering::Relaxed);
        self.rows.store(0, Ordering::Relaxed);
        // What was told of the epoch that is over must not end this one.
        std::pin::pin!(self.full.notified()).as_mut().enable();
    }
}

/// Everything a source's task needs.
pub(crate) struct SourceStage {
    pub(crate) stage: Stage,
    pub(crate) index: usize,
    pub(crate) source: Box<dyn Source>,
    pub(crate) run: Run,
    pub(crate) resume: Resume,
    /// Where each partition stands before the first piece, as far as that goes into the next checkpoint.
    pub(crate) start: BTreeMap<Partition, Position>,
    pub(crate) flight: Arc<Flight>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) boundaries: mpsc::Sender<AtBoundary>,
    pub(crate) settled: Arc<SettledQueue>,
    /// Remembers the schema for later plans.
    pub(crate) store: StateStore,
}

/// What a source is still to hear.
#[derive(Debug, Default)]
pub(crate) struct SettledQueue {
    waiting: Mutex<VecDeque<Settled>>,
    more: tokio::sync::Notify,
    over: AtomicBool,
}

impl SettledQueue {
    pub(crate) fn push(&self, settled: Settled) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(settled);
        self.more.notify_one();
    }
    /// Nothing more will be settled: a source that has ended may close.
    pub(crate) fn finish(&self) {
        self.over.store(true, Ordering::Release);
        self.more.notify_one();
    }
    fn pop(&self) -> Option<Settled> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
    /// Whether something waits that a request's sender is waiting for.
    fn is_urgent(&self) -> bool {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.iter().any(|settled| matches!(settled, Settled::One(..)))
    }
}

/// Passes the fate of pieces that are settled one by one on to their source. Positions are settled by the checkpoint.
struct OneByOne(Arc<SettledQueue>);

impl Tracker for OneByOne {
    fn settled(&self, piece: &PieceId, kept: bool) {
        if let Mark::One(token) = piece.mark {
            let outcome = if kept { Ok(vec![]) } else { Err("the rows were lost on the way".to_owned()) };
            self.0.push(Settled::One(token, outcome));
        }
    }
}

impl SourceStage {
    /// Opens, reads to the end, hears what was settled, closes.
    pub(crate) async fn run(mut self) -> Result<()> {
        let ended = {
            let Self { stage, source, run, resume, .. } = &mut self;
            let opening = source.open(&stage.ctx, run, resume);
            stage.guarded(opening).await
        };
        let ended = match ended {
            Ok(()) => self.read().await,
            Err(error) => Err(error),
        };
        let ended = match ended {
            Ok(()) => self.linger().await,
            Err(error) => Err(error),
        };
        self.stage.closed(self.source.close()).await;
        ended.map_err(|error| self.stage.place(error))
    }

    async fn read(&mut self) -> Result<()> {
        let Self { stage, source, index, phase, boundaries, settled, flight, meter, start, store, .. } = self;
        let stage = &*stage;
        let at = std::mem::take(start);
        let mut reader = Reader { stage, flight, meter, settled, store, schema: None, seq: 0, at, at_boundary: true };
        let work = async {
            loop {
                match reader.next(source.as_mut(), *index, phase, boundaries).await? {
                    Next::Piece(piece) => reader.hand_on(*piece).await?,
                    Next::Idle => {}
                    Next::End => break,
                }
            }
            if !reader.at_boundary {
                return Err(Error::internal("it ended inside a partition, without a position after its last rows"));
            }
            stage.letters.source_ended(&stage.name)?;
            stage.end().await?;
            let at = std::mem::take(&mut reader.at);
            boundaries.send(AtBoundary { index: *index, at, ended: true }).await.map_err(|_| Error::cancelled())
        };
        stage.guarded(work).await
    }

    /// After the end: only what was settled is still to be heard. Lasts until the run is over.
    async fn linger(&mut self) -> Result<()> {
        self.stage.progress.pulse.waits_for(Waiting::Ended);
        // Nothing of this stage may hold the edges open.
        self.stage.outputs.clear();
        loop {
            // Looked at before the queue is emptied, or what was pushed in between would be missed.
            let over = self.settled.over.load(Ordering::Acquire);
            while let Some(settled) = self.settled.pop() {
                let hearing = self.source.settled(settled);
                self.stage.guarded(hearing).await?;
            }
            if over {
                return Ok(());
            }
            self.stage
                .guarded(async {
                    self.settled.more.notified().await;
                    Ok(())
                })
                .await?;
        }
    }
}

struct Reader<'a> {
    stage: &'a Stage,
    flight: &'a Arc<Flight>,
    meter: &'a Meter,
    settled: &'a Arc<SettledQueue>,
    store: &'a StateStore,
    schema: Option<SchemaRef>,
    seq: u64,
    at: BTreeMap<Partition, Position>,
    at_boundary: bool,
}

impl Reader<'_> {
    /// The source's next word. While an epoch closes at a boundary, the call goes on waiting for its answer, which is taken
    /// only when the epoch is committed: a render under way is never abandoned for a commit. Nor is it when the run is to stop: what
    /// the server has worked for is taken, for as long as there is time to drain.
    async fn next(
        &mut self,
        source: &mut dyn Source,
        index: usize,
        phase: &mut watch::Receiver<Phase>,
        boundaries: &mpsc::Sender<AtBoundary>,
    ) -> Result<Next> {
        let calls = &self.stage.progress.calls;
        loop {
            while let Some(settled) = self.settled.pop() {
                source.settled(settled).await?;
            }
            self.stage.progress.pulse.waits_for(Waiting::Work);
            let mut next = std::pin::pin!(source.next());
            let (mut was, mut asked, mut paused, mut result) = (Phase::Read, false, false, None);
            loop {
                let now = *phase.borrow_and_update();
                let idle = || !asked || result.is_none() && calls.under_way() == 0;
                let pauses = self.at_boundary
                    && match now {
                        Phase::Read => false,
                        Phase::Close | Phase::Settle => true,
                        Phase::Stop => paused && was == Phase::Stop || idle(),
                    };
                if pauses && (!paused || was != now) {
                    let at = self.at.clone();
                    boundaries.send(AtBoundary { index, at, ended: false }).await.map_err(|_| Error::cancelled())?;
                    self.stage.progress.pulse.waits_for(Waiting::Output);
                }
                (was, paused) = (now, pauses);
                let waits = paused && (now == Phase::Stop || now == Phase::Settle && !asked);
                if !paused && let Some(next) = result.take() {
                    return next;
                }
                tokio::select! {
                    biased;
                    changed = phase.changed() => changed.map_err(|_| Error::cancelled())?,
                    got = async { asked = true; next.as_mut().await }, if result.is_none() && !waits => {
                        if !paused {
                            return got;
                        }
                        result = Some(got);
                    }
                    // Whoever waits for an answer is told at once: `next` can be dropped, it is cancel-safe.
                    () = self.settled.more.notified(), if !paused && result.is_none() => {
                        if self.settled.is_urgent() {
                            break;
                        }
                    }
                    // An answer may end without a word from the source.
                    () = tokio::time::sleep(LOOK), if now == Phase::Stop && !paused => {}
                }
            }
        }
    }

    async fn hand_on(&mut self, piece: Piece) -> Result<()> {
        let Piece { rows, rejects, mark, bytes, first_row: _ } = piece;
        self.stage.progress.bytes.add(bytes);
        self.stage.progress.pulse.beat();
        match &mark {
            Mark::At(partition, position) => {
                self.at.insert(partition.clone(), position.clone());
            }
            Mark::Gone(partition) => {
                self.at.remove(partition);
            }
            Mark::Within(_) | Mark::One(_) => {}
        }
        self.at_boundary = mark.is_boundary();
        let schema = rows.schema_ref();
        if rows.num_columns() > 0 && self.schema.as_ref() != Some(schema) {
            self.store.put_schema(self.stage.ctx.pipeline(), &self.stage.name, schema)?;
            self.schema = Some(Arc::clone(schema));
        }
        let id = PieceId { source: self.stage.name.clone(), seq: self.seq, mark };
        self.seq += 1;
        let kept = without(&rows, &rejects)?;
        let read = kept.num_rows() + rejects.len();
        self.stage.letters.read(&self.stage.name, read as u64);
        // `emit` counts those that go on.
        self.stage.progress.rows_out.add(rejects.len() as u64);
        self.stage.reject(Some(&id), Some(&rows), rejects)?;
        self.meter.count(kept.num_rows() as u64);
        let tracker = Arc::new(OneByOne(Arc::clone(self.settled)));
        self.stage.emit(kept, Delivery::new(id, tracker), self.flight.take_off()).await
    }
}

/// The rows that were not rejected.
pub(crate) fn without(rows: &RecordBatch, rejects: &[towpath_core::Reject]) -> Result<RecordBatch> {
    let refused: Vec<usize> = rejects
        .iter()
        .filter_map(|reject| if let Original::Row(row) = reject.row { Some(row) } else { None })
        .collect();
    if refused.is_empty() {
        return Ok(rows.clone());
    }
    let mut keep = vec![true; rows.num_rows()];
    for row in refused {
        *keep
            .get_mut(row)
            .ok_or_else(|| Error::internal(format!("row {row} was rejected, which is not in the batch")))? = false;
    }
    arrow_select::filter::filter_record_batch(rows, &BooleanArray::from(keep))
        .map_err(|error| Error::internal("cannot take rejected rows out").because(error))
}
