//! Closes epochs and commits them in lockstep.
//!
//! When it is time (or the sources have ended, or the run is asked to stop) every source pauses at its next boundary. When nothing
//! is under way any more, the sinks flush, the dead letters are made durable, and the sinks commit: all of them, group by group as
//! `after` asks, before anything of the next epoch is read. So at a crash the sinks stand at the same epoch or one
//! apart, never further.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use towpath_core::{
    Checkpoint, Complete, Error, Name, Partition, Position, Result, Run, Settled, checkpoint::Positions,
    pipeline::CommitSpec,
};

use crate::{
    edge::Flight,
    letters::Letters,
    stage::{
        sink::Command,
        source::{AtBoundary, Meter, Phase, SettledQueue},
    },
};

/// How often it is asked whether it is time.
const TICK: Duration = Duration::from_millis(50);
/// Where rows come faster than the sinks take them, publishing waits so many times as long: it would only hold them up.
const BUSY: u32 = 10;

/// A source, as the coordinator sees it.
pub(crate) struct SourceHandle {
    pub(crate) name: Name,
    pub(crate) settled: Arc<SettledQueue>,
    pub(crate) state: SourceState,
    pub(crate) at: BTreeMap<Partition, Position>,
}

/// What a source is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SourceState {
    Reading,
    Paused,
    Ended,
}

/// A sink, as the coordinator sees it.
pub(crate) struct SinkHandle {
    pub(crate) name: Name,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) input_ended: Option<oneshot::Receiver<()>>,
    pub(crate) early_publish: bool,
    /// What leads to it.
    pub(crate) upstream: Vec<Name>,
    /// It is given every row of its input.
    pub(crate) whole: bool,
}

/// How the reading of a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Everything is committed, the run is over.
    Last,
    /// It was asked to stop; what was read is committed as far as a boundary.
    Stopped,
}

/// Everything the commits of one attempt need.
pub(crate) struct Coordinator {
    pub(crate) run: Run,
    /// The epoch that all sinks have.
    pub(crate) epoch: u64,
    /// What the sinks that lag behind are to be given, as the others have it; then the attempt is over.
    pub(crate) until: Option<Checkpoint>,
    /// The positions of that epoch; sources that this pipeline no longer has are left out.
    pub(crate) at: Positions,
    pub(crate) sources: Vec<SourceHandle>,
    pub(crate) sinks: Vec<SinkHandle>,
    /// Sinks by index, in the order of their commits.
    pub(crate) groups: Vec<Vec<usize>>,
    pub(crate) boundaries: mpsc::Receiver<AtBoundary>,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) flight: Arc<Flight>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) letters: Arc<Letters>,
    pub(crate) commit: CommitSpec,
    /// One epoch for the whole run: rows are held back, or a memory stands before `append`.
    pub(crate) one_epoch: bool,
    pub(crate) stop: CancellationToken,
    /// Nothing is kept: sources must not hear that it is.
    pub(crate) withholds: bool,
    /// Counts commits, so that an attempt which got somewhere is known.
    pub(crate) commits: u64,
    /// The last of them.
    pub(crate) committed: Option<Checkpoint>,
}

/// The last early publish.
struct Early {
    at: Instant,
    took: Duration,
    /// How many pieces of the epoch had left the sources.
    pieces: u64,
    /// Looks since then, and in how many of them the sinks had taken everything there was.
    looks: u32,
    idle: u32,
}

impl Early {
    fn now() -> Self {
        Self { at: Instant::now(), took: Duration::ZERO, pieces: 0, looks: 0, idle: 0 }
    }
    /// Takes a look: whether the sinks have taken everything there is.
    fn look(&mut self, idle: bool) {
        self.looks += 1;
        self.idle += u32::from(idle);
    }
    /// Whether it is time for another.
    fn is_due(&self, pace: Duration) -> bool {
        // A sink that keeps up with a fast source has nothing to do for a moment now and then; one that waits has nothing most of the time. Where it
        // waits, publishing may take four fifths of the time, else half: with less, a table that takes long for each row would get ever larger
        // publishes, the largest of them behind the last row.
        let waits = self.idle * 2 > self.looks;
        let rest = if waits { pace.max(self.took / 4) } else { (pace * BUSY).max(self.took) };
        self.at.elapsed() >= rest
    }
}

impl Coordinator {
    /// Until the run has ended or is to stop. Dropped when a stage fails or the run is cancelled.
    pub(crate) async fn run(&mut self) -> Result<Ended> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut since, mut early) = (Instant::now(), Early::now());
        loop {
            let stopping = self.stop.is_cancelled();
            if self.all(SourceState::Ended) {
                return self.last_commit().await;
            }
            if stopping && (self.one_epoch || self.until.is_some()) {
                // No boundary of this run can be committed before its end.
                return Ok(Ended::Stopped);
            }
            let unread = self.meter.pieces.load(Ordering::Relaxed) == 0;
            if stopping {
                // What is read is made sure of first; then there is time for what servers are answering.
                self.close(if unread { Phase::Stop } else { Phase::Settle });
            }
            if self.sources.iter().all(|source| source.state != SourceState::Reading) {
                let last = *self.phase.borrow() == Phase::Stop;
                if !(last && unread) {
                    self.flight.all_landed().await;
                    self.commit_epoch(false).await?;
                }
                if last {
                    return Ok(Ended::Stopped);
                }
                self.read_on(if stopping { Phase::Stop } else { Phase::Read });
                (since, early) = (Instant::now(), Early { took: early.took, ..Early::now() });
            }
            tokio::select! {
                biased;
                boundary = self.boundaries.recv() => match boundary {
                    Some(boundary) => self.note(boundary),
                    None => return Err(Error::cancelled()),
                },
                () = self.stop.cancelled(), if !stopping => {}
                () = self.meter.full.notified(), if !self.one_epoch && self.until.is_none() => self.close(Phase::Close),
                _ = tick.tick() => {
                    let pieces = self.meter.pieces.load(Ordering::Relaxed);
                    early.look(self.flight.is_empty());
                    if pieces == 0 {
                        since = Instant::now();
                    } else if !self.one_epoch && self.until.is_none() {
                        if since.elapsed() >= self.commit.every.0 {
                            self.close(Phase::Close);
                        }
                        // The sources are in the middle of something long: what is harmless to write twice is published all the same.
                        if pieces > early.pieces && early.is_due(self.commit.publish.0) {
                            let began = Instant::now();
                            self.publish_early().await?;
                            tracing::debug!(pieces, "published early");
                            early = Early { took: began.elapsed(), pieces, ..Early::now() };
                        }
                    }
                }
            }
        }
    }

    fn all(&self, state: SourceState) -> bool {
        self.sources.iter().all(|source| source.state == state)
    }

    fn note(&mut self, boundary: AtBoundary) {
        if let Some(source) = self.sources.get_mut(boundary.index) {
            source.state = if boundary.ended { SourceState::Ended } else { SourceState::Paused };
            source.at = boundary.at;
        }
    }

    /// Tells the sources to pause, unless they were told already.
    fn close(&self, how: Phase) {
        self.phase.send_if_modified(|phase| *phase == Phase::Read && std::mem::replace(phase, how) == Phase::Read);
    }

    fn read_on(&mut self, phase: Phase) {
        for source in &mut self.sources {
            if source.state == SourceState::Paused {
                source.state = SourceState::Reading;
            }
        }
        self.meter.begin();
        self.phase.send_replace(phase);
    }

    async fn last_commit(&mut self) -> Result<Ended> {
        for sink in &mut self.sinks {
            if let Some(ended) = sink.input_ended.take() {
                ended.await.map_err(|_| Error::cancelled())?;
            }
        }
        self.commit_epoch(true).await?;
        Ok(Ended::Last)
    }

    /// The checkpoint that covers everything read so far.
    fn checkpoint(&self, last: bool) -> Checkpoint {
        if let Some(until) = &self.until {
            return Checkpoint { keyed_by: None, ..until.clone() };
        }
        let at = self.sources.iter().map(|source| (source.name.clone(), source.at.clone())).collect();
        Checkpoint { run: self.run.clone(), epoch: self.epoch + 1, last, keyed_by: None, at }
    }

    /// What a sink is told at the end of the run.
    fn complete(&self, sink: &SinkHandle, last: bool) -> Option<Complete> {
        last.then(|| Complete { whole: sink.whole, refused: self.letters.refused_by(&sink.upstream) })
    }

    async fn commit_epoch(&mut self, last: bool) -> Result<()> {
        let checkpoint = self.checkpoint(last);
        for group in &self.groups {
            self.ask(group, |sink, done| Command::Flush(self.complete(sink, checkpoint.last), done)).await?;
            if last {
                self.letters.run_ended()?;
            }
            self.letters.sync()?;
            self.ask(group, |_, done| Command::Commit(checkpoint.clone(), done)).await?;
        }
        self.epoch = checkpoint.epoch;
        self.at = checkpoint.at.clone();
        self.commits += 1;
        self.letters.seal()?;
        self.letters.next_epoch(self.epoch + 1);
        tracing::debug!(epoch = self.epoch, last = checkpoint.last, "committed");
        // Only once every sink has it: while some lag behind, the sources must be able to give it again.
        for source in self.sources.iter().filter(|_| !self.withholds) {
            source.settled.push(Settled::UpTo(checkpoint.clone()));
        }
        self.committed = Some(checkpoint);
        Ok(())
    }

    /// Publishes what is harmless to write again. The positions stay where they are, and so does the epoch.
    async fn publish_early(&mut self) -> Result<()> {
        let willing: Vec<usize> = (0..self.sinks.len()).filter(|&sink| self.sinks[sink].early_publish).collect();
        if willing.is_empty() {
            return Ok(());
        }
        let checkpoint =
            Checkpoint { run: self.run.clone(), epoch: self.epoch, last: false, keyed_by: None, at: self.at.clone() };
        self.ask(&willing, |_, done| Command::Publish(checkpoint.clone(), done)).await
    }

    /// Asks sinks for the same thing at once, and waits for all of them.
    async fn ask(&self, sinks: &[usize], command: impl Fn(&SinkHandle, oneshot::Sender<()>) -> Command) -> Result<()> {
        let mut answers = Vec::new();
        for &sink in sinks {
            let (done, answer) = oneshot::channel();
            let handle = &self.sinks[sink];
            // A sink that has failed says why itself; here it is only gone.
            let gone = |_| Error::cancelled().at(format!("sink {}", handle.name));
            handle.commands.send(command(handle, done)).await.map_err(gone)?;
            answers.push(answer);
        }
        for answer in answers {
            answer.await.map_err(|_| Error::cancelled())?;
        }
        Ok(())
    }
}
