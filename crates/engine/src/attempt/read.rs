//! The stages of an attempt: built, run to the end, and seen off.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use towpath_core::{
    Context, Error, ErrorKind, Known, Name, Result, Transform, WriteMode, checkpoint::Positions, pipeline::Role,
};

use crate::{
    dead_letters::DeadLetters,
    edge::{EdgeRx, EdgeTx, Flight, edge},
    epoch::{Coordinator, Ended, SinkHandle, SourceHandle, SourceState},
    graph::{Make, Node},
    letters::{self, Letters},
    resume::Start,
    spill::Spill,
    stage::{
        Stage,
        sink::SinkStage,
        source::{Meter, Phase, SettledQueue, SourceStage},
        transform::TransformStage,
    },
    supersede::Watcher,
};

use super::{Attempt, Came, ENDING, OpenSink, PlannedSource, Ready, close_all, inputs_of};

impl Attempt<'_> {
    /// Builds the stages, runs them to the end, and sees that none is left.
    pub(super) async fn read(&mut self, ready: Ready, sinks: Vec<OpenSink>, cancel: CancellationToken) -> Result<Came> {
        let begin_anew = ready.begin_anew;
        let built = match self.build(ready, sinks, &cancel) {
            Ok(built) => built,
            Err((error, sinks)) => {
                close_all(sinks).await;
                return Err(error);
            }
        };
        let Built { mut coordinator, mut tasks, letters, catching_up, queues } = built;
        let commits_before = coordinator.commits;
        let ended = self.watch(&mut coordinator, &mut tasks).await;
        *self.commits += coordinator.commits - commits_before;
        self.note_checkpoints(&coordinator);
        if begin_anew && coordinator.commits > commits_before {
            self.engine.store.reset_done(&self.graph.name)?;
        }
        // The sinks end when nobody can give them commands any more.
        drop(coordinator);
        let mut first = None;
        match &ended {
            Ok(Ended::Last) => queues.iter().for_each(|queue| queue.finish()),
            Ok(Ended::Stopped) | Err(_) => cancel.cancel(),
        }
        // First they may end by themselves, then they are told to, then they are dropped.
        for force in [
            |_: &mut JoinSet<_>, cancel: &CancellationToken| cancel.cancel(),
            |tasks: &mut JoinSet<_>, _: &_| tasks.abort_all(),
        ] {
            let ending = async {
                while let Some(joined) = tasks.join_next().await {
                    first = worse(first.take(), outcome(joined));
                }
            };
            if tokio::time::timeout(ENDING, ending).await.is_ok() {
                break;
            }
            force(&mut tasks, &cancel);
        }
        if tokio::time::timeout(ENDING, async { while tasks.join_next().await.is_some() {} }).await.is_err() {
            tracing::error!("a component blocks its thread and cannot be ended: {}", self.watchdog.named().join("; "));
            tasks.detach_all();
        }
        *self.dead_letters = letters.count();
        if ended.is_err()
            && let Err(error) = letters.sync()
        {
            // They are for whoever looks for the cause; the next attempt makes them anew.
            tracing::warn!("{error}");
        }
        match (ended, first) {
            // A stage's own error says more than that its neighbours were cancelled.
            (Err(error), first) => Err(worse(Some(error), first.map_or(Ok(()), Err)).unwrap_or_else(Error::cancelled)),
            (Ok(_), Some(error)) if error.kind() != ErrorKind::Cancelled => Err(error),
            (Ok(Ended::Last), _) if catching_up => Ok(Came::CaughtUp),
            (Ok(Ended::Last), _) => Ok(Came::ToTheEnd),
            (Ok(Ended::Stopped), _) => Ok(Came::Stopped),
        }
    }

    /// Waits for the coordinator, a failed stage, a deadline or an interrupt, whichever comes first.
    async fn watch(&mut self, coordinator: &mut Coordinator, tasks: &mut JoinSet<Result<()>>) -> Result<Ended> {
        let mut failed = None;
        let watching = async {
            let mut coordinating = std::pin::pin!(coordinator.run());
            let drained = drained(self.stop, self.graph.run.drain.0);
            let mut drained = std::pin::pin!(drained);
            let mut tick = tokio::time::interval(self.watchdog.interval());
            loop {
                tokio::select! {
                    biased;
                    () = self.abort.cancelled() => return Err(Error::cancelled()),
                    ended = &mut coordinating => return ended,
                    Some(joined) = tasks.join_next() => {
                        if let Err(error) = outcome(joined) {
                            failed = worse(failed.take(), Err(error));
                            return Err(Error::cancelled());
                        }
                    }
                    () = &mut drained => {
                        tracing::warn!("no commit was reached within drain ({}); what was read since the last one will be read again", self.graph.run.drain);
                        return Ok(Ended::Stopped);
                    }
                    _ = tick.tick() => self.watchdog.look(self.progress),
                }
            }
        };
        let ended = watching.await;
        match (ended, failed) {
            (Err(error), failed) => Err(worse(failed, Err(error)).unwrap_or_else(Error::cancelled)),
            (ended, _) => ended,
        }
    }

    fn note_checkpoints(&self, coordinator: &Coordinator) {
        let Some(checkpoint) = &coordinator.committed else { return };
        for sink in &coordinator.sinks {
            let noted = self.engine.store.note_checkpoint(&self.graph.name, &sink.name, checkpoint);
            if let Err(error) = noted {
                tracing::warn!("cannot note how far sink {} is: {error}", sink.name);
            }
        }
    }

    #[allow(clippy::type_complexity, reason = "on failure the sinks go back to whoever closes them")]
    fn build(
        &self,
        ready: Ready,
        sinks: Vec<OpenSink>,
        cancel: &CancellationToken,
    ) -> Result<Built, (Error, Vec<OpenSink>)> {
        let Ready { resume, start, sources, transforms, one_epoch, begin_anew: _ } = ready;
        let graph = self.graph;
        let of_sources = graph.sources.iter().zip(&sources).map(|(node, source)| (&node.name, &source.plan.schema));
        let of_transforms = transforms.iter().map(|(name, plan)| (name, &plan.schema));
        let known: BTreeMap<_, _> =
            of_sources.chain(of_transforms).map(|(name, schema)| (name.clone(), schema.clone())).collect();
        let active: BTreeSet<Name> = match &start {
            Start::Level { .. } => graph.sinks.iter().map(|node| node.name.clone()).collect(),
            Start::Behind { who, .. } => who.iter().map(|&sink| graph.sinks[sink].name.clone()).collect(),
        };
        let is_active = |name: &Name| graph.sinks_of(name).iter().any(|sink| active.contains(sink));
        let (epoch, until) = match &start {
            Start::Level { epoch, .. } => (*epoch, None),
            Start::Behind { until, .. } => (until.epoch.saturating_sub(1), Some(until.clone())),
        };
        let letters = match self.letters(&sinks, epoch) {
            Ok(letters) => letters,
            Err(error) => return Err((error, sinks)),
        };
        let mut watchers = match self.watchers(&sinks) {
            Ok(watchers) => watchers,
            Err(error) => return Err((error, sinks)),
        };
        let groups = match graph.commit_order() {
            Ok(groups) => groups,
            Err(error) => return Err((error, sinks)),
        };
        let buffer = graph.run.buffer.0;
        let mut edges: BTreeMap<Name, (EdgeTx, EdgeRx)> = BTreeMap::new();
        let names = graph.transforms.iter().map(|node| &node.name).chain(graph.sinks.iter().map(|node| &node.name));
        for name in names.filter(|name| is_active(name)) {
            edges.insert(name.clone(), edge(buffer));
        }
        let outputs = |of: &Name| -> Vec<EdgeTx> {
            let transforms = graph.transforms.iter().filter(|node| node.inputs.contains(of)).map(|node| &node.name);
            let sinks = graph.sinks.iter().filter(|node| node.inputs.contains(of)).map(|node| &node.name);
            transforms.chain(sinks).filter_map(|name| edges.get(name)).map(|(tx, _)| tx.clone()).collect()
        };
        let stage = |name: &Name, role: Role, ctx: &Context, common: &towpath_core::pipeline::CommonSpec| {
            let progress = self.progress.component(name, role);
            progress.watch(ctx);
            progress.pulse.beat();
            Stage {
                name: name.clone(),
                role,
                ctx: ctx.clone(),
                progress,
                cancel: cancel.clone(),
                letters: Arc::clone(&letters),
                outputs: outputs(name),
                batch_deadline: common.batch_deadline.map(|period| period.0),
            }
        };
        let (phase, phases) = watch::channel(Phase::Read);
        let (boundary, boundaries) = mpsc::channel(graph.sources.len().max(1) * 2);
        let (flight, meter) = (Arc::new(Flight::default()), Arc::new(Meter::new(graph.run.commit.rows)));
        let same_run = resume.same_run(self.run).is_some();
        let mut partly: BTreeSet<Name> = BTreeSet::new();
        let (mut tasks, mut source_handles, mut queues) = (JoinSet::new(), Vec::new(), Vec::new());
        let mut at = Positions::new();
        for (PlannedSource { source, plan, ctx }, node) in sources.into_iter().zip(&graph.sources) {
            if !is_active(&node.name) {
                continue;
            }
            // Positions of an ended run count for this one only where the source goes on from them.
            let counts = same_run || (plan.carries && !resume.whole);
            let from = resume.from.as_ref().filter(|_| counts).and_then(|from| from.of(&node.name));
            let start = from.cloned().unwrap_or_default();
            at.insert(node.name.clone(), start.clone());
            if !start.is_empty() {
                partly.extend(graph.sinks_of(&node.name));
            }
            let settled = Arc::new(SettledQueue::default());
            queues.push(Arc::clone(&settled));
            let index = source_handles.len();
            source_handles.push(SourceHandle {
                name: node.name.clone(),
                settled: Arc::clone(&settled),
                state: SourceState::Reading,
                at: start.clone(),
            });
            let reading = SourceStage {
                stage: stage(&node.name, Role::Source, &ctx, &node.common),
                index,
                source,
                run: self.run.clone(),
                resume: resume.clone(),
                start,
                flight: Arc::clone(&flight),
                meter: Arc::clone(&meter),
                phase: phases.clone(),
                boundaries: boundary.clone(),
                settled,
                store: self.engine.store.clone(),
            };
            tasks.spawn(reading.run());
        }
        let mut transform_stages = Vec::new();
        for (index, node) in graph.transforms.iter().enumerate().filter(|(_, node)| is_active(&node.name)) {
            let ctx = self.context(&node.name, Role::Transform, cancel);
            transform_stages.push((index, Arc::new(stage(&node.name, Role::Transform, &ctx, &node.common))));
        }
        let mut sink_stages = Vec::new();
        let mut idle = Vec::new();
        let mut handles: Vec<(usize, SinkHandle)> = Vec::new();
        for open in sinks {
            let node = &graph.sinks[open.index];
            if !active.contains(&node.name) {
                idle.push(open);
                continue;
            }
            let stage = stage(&node.name, Role::Sink, &open.ctx, &node.common);
            sink_stages.push((open, stage));
        }
        for (index, stage) in transform_stages {
            let node = &graph.transforms[index];
            let Some((_, items)) = edges.remove(&node.name) else { continue };
            let workers = node.common.workers.map_or((1, 1), towpath_core::pipeline::Workers::bounds);
            let holds = transforms.get(&node.name).is_some_and(|plan| plan.holds);
            let make = planned(node, &known);
            let inputs = node.inputs.clone();
            tasks.spawn(
                TransformStage { stage, make, inputs, items, flight: Arc::clone(&flight), workers, holds }.run(),
            );
        }
        for (open, stage) in sink_stages {
            let node = &graph.sinks[open.index];
            let Some((_, items)) = edges.remove(&node.name) else { continue };
            let (commands, receiver) = mpsc::channel(1);
            let (told, input_ended) = oneshot::channel();
            let early_publish =
                open.plan.early_publish && node.common.after.is_empty() && !one_epoch && !self.engine.withholds();
            handles.push((
                open.index,
                SinkHandle {
                    name: node.name.clone(),
                    commands,
                    input_ended: Some(input_ended),
                    early_publish,
                    upstream: graph.leading_to(&node.name),
                    whole: !partly.contains(&node.name) && graph.replay.is_none(),
                },
            ));
            let sink_stage = SinkStage {
                stage,
                sink: open.sink,
                inputs: node.inputs.clone(),
                items,
                commands: receiver,
                input_ended: Some(told),
                keeper: open.keeper,
                store: self.engine.store.clone(),
                watcher: watchers.remove(&open.index),
                keyed_by: open.held.and_then(|held| held.keyed_by),
                spill: (!node.common.after.is_empty()).then(|| Spill::new(buffer)),
            };
            tasks.spawn(sink_stage.run());
        }
        if !idle.is_empty() {
            // The leaders have nothing to do until the others have caught up.
            tasks.spawn(async move {
                close_all(idle).await;
                Ok(())
            });
        }
        let place: BTreeMap<usize, usize> =
            handles.iter().enumerate().map(|(place, (index, _))| (*index, place)).collect();
        let groups = groups
            .into_iter()
            .map(|group| group.into_iter().filter_map(|sink| place.get(&sink).copied()).collect())
            .collect();
        let catching_up = until.is_some();
        let coordinator = Coordinator {
            run: self.run.clone(),
            epoch,
            until,
            at,
            sources: source_handles,
            sinks: handles.into_iter().map(|(_, handle)| handle).collect(),
            groups,
            boundaries,
            phase,
            flight,
            meter,
            letters: Arc::clone(&letters),
            commit: graph.run.commit,
            one_epoch,
            stop: self.stop.clone(),
            withholds: self.engine.withholds(),
            commits: 0,
            committed: None,
        };
        Ok(Built { coordinator, tasks, letters, catching_up, queues })
    }

    /// Who knows, by sink, which dead letters its rows supersede. Only where a row replaces another one there are such.
    fn watchers(&self, sinks: &[OpenSink]) -> Result<BTreeMap<usize, Watcher>> {
        let mut watchers = BTreeMap::new();
        let upserting = sinks.iter().filter(|open| open.plan.mode == WriteMode::Upsert);
        for open in upserting.filter(|_| !self.engine.withholds() && self.graph.replay.is_none()) {
            let (store, sink) = (self.engine.store.clone(), &self.graph.sinks[open.index].name);
            let watcher = Watcher::new(store, &self.graph.name, sink, self.run, open.sink.key_columns())?;
            watchers.insert(open.index, watcher);
        }
        Ok(watchers)
    }

    fn letters(&self, sinks: &[OpenSink], epoch: u64) -> Result<Arc<Letters>> {
        let all: Vec<Name> = self.graph.sinks.iter().map(|node| node.name.clone()).collect();
        let epochs: BTreeMap<&str, u64> = sinks
            .iter()
            .map(|sink| {
                (&*self.graph.sinks[sink.index].name, sink.held.as_ref().map_or(0, |held| held.epoch).max(sink.seen))
            })
            .collect();
        let epoch_of = |sink: &str| epochs.get(sink).copied().unwrap_or(u64::MAX);
        let folder = self.engine.dead_letters(self.graph);
        let file = DeadLetters::open_with(
            &folder,
            self.run,
            |domain| letters::committed(domain, epoch_of, &all),
            self.engine.rules.letters,
        )?;
        Ok(Arc::new(Letters::new(self.graph, self.run, file, epoch + 1, self.engine.changes.clone())))
    }
}

struct Built {
    coordinator: Coordinator,
    tasks: JoinSet<Result<()>>,
    letters: Arc<Letters>,
    catching_up: bool,
    queues: Vec<Arc<SettledQueue>>,
}

/// Makes transforms that have heard the plan, as it says what comes from an input that stays silent.
fn planned(node: &Node<dyn Transform>, known: &BTreeMap<Name, Known>) -> Make<dyn Transform> {
    let (make, inputs) = (Arc::clone(&node.make), inputs_of(node, known));
    Arc::new(move || {
        let transform = make()?;
        transform.plan(&inputs)?;
        Ok(transform)
    })
}

/// When a run that was asked to stop has had its time to reach a commit.
async fn drained(stop: &CancellationToken, drain: Duration) {
    stop.cancelled().await;
    tokio::time::sleep(drain).await;
}

fn outcome(joined: std::result::Result<Result<()>, tokio::task::JoinError>) -> Result<()> {
    match joined {
        Ok(outcome) => outcome,
        Err(error) if error.is_cancelled() => Err(Error::cancelled()),
        Err(error) => Err(Error::internal("a stage ended without a word").because(error)),
    }
}

/// The error to report: the first that is not merely a consequence.
fn worse(first: Option<Error>, next: Result<()>) -> Option<Error> {
    match (first, next.err()) {
        (Some(first), Some(next)) if first.kind() == ErrorKind::Cancelled => Some(next),
        (Some(first), _) => Some(first),
        (None, next) => next,
    }
}
