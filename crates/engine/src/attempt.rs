//! One attempt at a run: open the sinks, learn where they stand, plan and open the rest, read to the end.
//!
//! Any failure ends the attempt as a crash would: everything is closed, and the next attempt opens anew and believes only what
//! the targets hold. There is no other way of recovery.

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
    Checkpoint, Context, Error, ErrorKind, Held, Known, Name, Result, Resume, Run, Sink, SinkPlan, Source, SourcePlan,
    Transform, TransformPlan, WriteMode, checkpoint::Positions, pipeline::Role, source::Replay,
};

use crate::{
    dead_letters::DeadLetters,
    edge::{EdgeRx, EdgeTx, Flight, edge},
    engine::Engine,
    epoch::{Coordinator, Ended, SinkHandle, SourceHandle, SourceState},
    graph::{Graph, Make, Node},
    letters::{self, Letters},
    progress::Progress,
    resume::{Standing, Start, start},
    spill::Spill,
    stage::{
        Stage,
        sink::{Keeper, SinkStage},
        source::{Meter, Phase, SettledQueue, SourceStage},
        transform::TransformStage,
    },
    supersede::Watcher,
    watchdog::Watchdog,
};

/// How long stages may take to end once they are told to, closing included.
const ENDING: Duration = Duration::from_secs(10);

/// Everything an attempt works with.
pub(crate) struct Attempt<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) graph: &'a Graph,
    pub(crate) progress: &'a Arc<Progress>,
    pub(crate) run: &'a mut Run,
    /// The run has begun before, in another attempt or another process.
    pub(crate) begun: &'a mut bool,
    /// A run that was left unfinished is to be left behind.
    pub(crate) new_run: bool,
    /// Everything is to be read and compared, also where nothing has changed.
    pub(crate) full: bool,
    /// Asks for the end at the next boundary.
    pub(crate) stop: &'a CancellationToken,
    /// Asks for the end at once.
    pub(crate) abort: CancellationToken,
    /// Counts the commits of all attempts.
    pub(crate) commits: &'a mut u64,
    pub(crate) dead_letters: &'a mut u64,
    pub(crate) watchdog: &'a mut Watchdog,
    /// Is told if nothing was to be read.
    pub(crate) nothing_new: &'a mut bool,
}

/// How an attempt ended, if not by an error.
#[derive(Debug)]
pub(crate) enum Came {
    /// The run is over.
    ToTheEnd,
    /// The sinks that lagged behind have caught up; the next attempt goes on.
    CaughtUp,
    /// The targets know of an unfinished run that the state store does not: take that one up.
    Across(Run),
    /// What this run has staged cannot be gone on with: leave it behind, with a new one.
    Anew,
    /// It was asked to stop.
    Stopped,
}

struct OpenSink {
    index: usize,
    sink: Box<dyn Sink>,
    plan: SinkPlan,
    ctx: Context,
    keeper: Keeper,
    held: Option<Checkpoint>,
    /// The newest epoch that this machine knows it has committed, also where the target was made anew since.
    seen: u64,
}

struct PlannedSource {
    source: Box<dyn Source>,
    plan: SourcePlan,
    ctx: Context,
}

impl Attempt<'_> {
    /// Makes the attempt. Every component that was opened is closed when it returns.
    pub(crate) async fn make(&mut self) -> Result<Came> {
        let cancel = self.abort.child_token();
        let _ends_with_us = cancel.clone().drop_guard();
        let mut sinks = Vec::new();
        let stop = self.stop.clone();
        let prepared = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Error::cancelled()),
            // Nothing is read yet.
            () = stop.cancelled() => Ok(Prepared::Done(Came::Stopped)),
            prepared = self.prepare(&mut sinks, &cancel) => prepared,
        };
        let prepared = match prepared {
            Ok(Prepared::Ready(ready)) => *ready,
            Ok(Prepared::Done(came)) => {
                close_all(sinks).await;
                return Ok(came);
            }
            Err(error) => {
                close_all(sinks).await;
                return Err(error);
            }
        };
        self.read(prepared, sinks, cancel).await
    }

    fn context(&self, name: &Name, role: Role, cancel: &CancellationToken) -> Context {
        self.engine.context(self.graph, name, role, self.progress, cancel)
    }

    /// Opens the sinks into `sinks`, and decides what is to be read.
    async fn prepare(&mut self, sinks: &mut Vec<OpenSink>, cancel: &CancellationToken) -> Result<Prepared> {
        for index in 0..self.graph.sinks.len() {
            self.open_sink(index, sinks, cancel).await?;
        }
        let begin_anew = self.void_if_reset(sinks)?;
        let newest = sinks.iter().filter_map(|sink| sink.held.as_ref()).max_by_key(|held| held.epoch);
        let replaces = sinks.iter().any(|sink| sink.plan.mode == WriteMode::Replace);
        if let Some(newest) = newest {
            let other = newest.run.id != self.run.id;
            if other && !newest.last && !self.new_run && !*self.begun && !replaces {
                return Ok(Prepared::Done(Came::Across(newest.run.clone())));
            }
            if !other
                && sinks
                    .iter()
                    .all(|sink| sink.held.as_ref().is_some_and(|held| held.last && held.run.id == self.run.id))
            {
                // Its process died, or lost the answer, before it could say so. The run asked for is this one: to read everything
                // once more would double it.
                tracing::info!("everything was committed already: the run is over");
                return Ok(Prepared::Done(Came::ToTheEnd));
            }
        }
        let ours = newest.is_none_or(|newest| newest.run.id == self.run.id || newest.last);
        let standings: Vec<_> = sinks.iter().map(|sink| self.standing(sink)).collect();
        let mut start = self.engine.rules.start(start(&standings, ours)?);
        if let Start::Level { from, .. } = &start
            && self.would_stage_twice(sinks, from.as_ref())
        {
            tracing::warn!("a target was made anew while this run had staged rows for another: a new run begins");
            return Ok(Prepared::Done(Came::Anew));
        }
        if let Start::Level { epoch, .. } = &mut start {
            // Numbers are never used twice, or the dead letters of two epochs could not be told apart.
            *epoch = sinks.iter().map(|sink| sink.seen).max().unwrap_or(0).max(*epoch);
        }
        let (from, until) = match &start {
            Start::Level { from, .. } => (from.clone(), None),
            Start::Behind { from, until, .. } => (from.clone(), Some(until.clone())),
        };
        let mut resume = Resume { from, until, whole: false };
        let (mut sources, transforms) = self.plan_all(&resume, cancel).await?;
        if self.engine.withholds() {
            self.refuse_only_once(&sources)?;
        }
        let same_run = resume.same_run(self.run).is_some();
        let holds = transforms.values().any(|plan| plan.holds);
        let nothing = sources.iter().all(|source| source.plan.nothing_to_do());
        let verify = self.full || (nothing && !same_run && self.is_verification_due(sinks));
        if nothing && !same_run && resume.until.is_none() && !verify {
            *self.nothing_new = true;
            tracing::info!("nothing has changed since the last run: nothing is read, nothing is written");
            self.check(&resume, &sources, sinks)?;
            return Ok(Prepared::Done(Came::ToTheEnd));
        }
        resume.whole = replaces || holds || (verify && !same_run);
        self.check(&resume, &sources, sinks)?;
        for (source, node) in sources.iter_mut().zip(&self.graph.sources) {
            if matches!(source.plan.schema, Known::Now(_)) {
                continue;
            }
            if let Some(schema) = self.engine.store.schema(&self.graph.name, &node.name)? {
                source.plan.schema = Known::LastRun(schema);
            }
        }
        if !*self.begun {
            self.engine.store.begin_run(&self.graph.name, self.run)?;
            *self.begun = true;
        }
        let one_epoch = holds || self.remembers_before_append(&transforms, sinks);
        Ok(Prepared::Ready(Box::new(Ready { resume, start, sources, transforms, one_epoch, begin_anew })))
    }

    /// Whether a sink that replaces its table has staged rows of this very run that would be read again: it would take them for others.
    fn would_stage_twice(&self, sinks: &[OpenSink], from: Option<&Checkpoint>) -> bool {
        let begins_at = from.filter(|from| from.run.id == self.run.id).map_or(0, |from| from.epoch);
        let mut replacing = sinks.iter().filter(|sink| sink.plan.mode == WriteMode::Replace);
        replacing.any(|sink| {
            let held = sink.held.as_ref();
            held.is_some_and(|held| held.run.id == self.run.id && !held.last && held.epoch > begins_at)
        })
    }

    async fn open_sink(&self, index: usize, sinks: &mut Vec<OpenSink>, cancel: &CancellationToken) -> Result<()> {
        let node = &self.graph.sinks[index];
        let ctx = self.context(&node.name, Role::Sink, cancel);
        let place = |error: Error| error.at(format!("sink {}", node.name));
        let mut sink = (node.make)()?;
        let plan = sink.plan(&ctx.for_start(), &Known::No).await.map_err(place)?;
        // From here on it must be closed, whatever comes of it, also if we are dropped in the middle.
        sinks.push(OpenSink { index, sink, plan, ctx, keeper: Keeper::Sink, held: None, seen: 0 });
        let Some(open) = sinks.last_mut() else { return Ok(()) };
        let opened = open.sink.open(&open.ctx, self.run).await;
        let store = &self.engine.store;
        open.seen = store.seen_checkpoint(&self.graph.name, &node.name)?.map_or(0, |seen| seen.epoch);
        match opened.map_err(place)? {
            Held::Here(_) if self.engine.withholds() => {
                return Err(place(Error::internal(
                    "it says that it tells its differences, and keeps its checkpoint itself",
                )));
            }
            Held::Here(held) => {
                if held.is_none() && open.seen > 0 {
                    tracing::warn!(component = %node.name, "sink {}: the target was made anew since it was last loaded; its checkpoint is void, and it is loaded from the beginning", node.name);
                }
                open.held = held;
            }
            Held::ByEngine => {
                let (fence, held) = store.open_checkpoint(&self.graph.name, &node.name)?;
                open.keeper = Keeper::Store { store: store.clone(), fence };
                open.held = held;
            }
        }
        if let Some(held) = &open.held {
            self.progress.component(&node.name, Role::Sink).found(held);
        }
        Ok(())
    }

    /// Somebody asked that the pipeline begin anew: checkpoints from before that are void. Whether they still are.
    fn void_if_reset(&self, sinks: &mut [OpenSink]) -> Result<bool> {
        let Some(asked) = self.engine.store.reset_asked(&self.graph.name)? else { return Ok(false) };
        for sink in sinks {
            if let Some(held) = sink.held.take_if(|held| held.run.started < asked) {
                sink.seen = sink.seen.max(held.epoch);
            }
        }
        Ok(true)
    }

    fn standing(&self, sink: &OpenSink) -> Standing {
        Standing { name: self.graph.sinks[sink.index].name.clone(), mode: sink.plan.mode, held: sink.held.clone() }
    }

    async fn plan_all(
        &self,
        resume: &Resume,
        cancel: &CancellationToken,
    ) -> Result<(Vec<PlannedSource>, BTreeMap<Name, TransformPlan>)> {
        let mut known: BTreeMap<Name, Known> = BTreeMap::new();
        let mut sources = Vec::new();
        for node in &self.graph.sources {
            let ctx = self.context(&node.name, Role::Source, cancel);
            let mut source = (node.make)()?;
            let planned = source.plan(&ctx.for_plan(), self.run, resume).await;
            let plan = planned.map_err(|error| error.at(format!("source {}", node.name)))?;
            known.insert(node.name.clone(), plan.schema.clone());
            sources.push(PlannedSource { source, plan, ctx });
        }
        let transforms = plan_transforms(self.graph, &mut known)?;
        Ok((sources, transforms))
    }

    /// A memory that a crash would empty stands before a sink that would write twice what it lets through twice.
    fn remembers_before_append(&self, transforms: &BTreeMap<Name, TransformPlan>, sinks: &[OpenSink]) -> bool {
        let appends = |name: &Name| {
            sinks.iter().any(|sink| self.graph.sinks[sink.index].name == *name && sink.plan.mode == WriteMode::Append)
        };
        transforms.iter().any(|(name, plan)| plan.stateful && self.graph.sinks_of(name).iter().any(appends))
    }

    /// Whether the last run that came to its end began so long ago that everything is to be compared again.
    fn is_verification_due(&self, sinks: &[OpenSink]) -> bool {
        let Some(every) = self.graph.run.verify_every else { return false };
        let ended = sinks.iter().map(|sink| sink.held.as_ref().filter(|held| held.last).map(|held| held.run.started));
        // One that has none has never been compared.
        let oldest = ended.min().flatten();
        let now = self.engine.outside.clock().wall();
        oldest.is_none_or(|began| Duration::try_from(now - began).is_ok_and(|gone| gone >= every.0))
    }

    /// Differences can be told only of rows that can be read again.
    fn refuse_only_once(&self, sources: &[PlannedSource]) -> Result<()> {
        let mut nodes = sources.iter().zip(&self.graph.sources);
        match nodes.find(|(source, _)| source.plan.replay == Replay::OneByOne) {
            None => Ok(()),
            Some((_, node)) => Err(Error::unsupported(format!("source {} gives each row only once", node.name))
                .hint("its rows would be gone if they were read only to be compared: run it instead")),
        }
    }

    /// What must hold before anything is read.
    fn check(&mut self, resume: &Resume, sources: &[PlannedSource], sinks: &[OpenSink]) -> Result<()> {
        let mut now: BTreeMap<Name, Arc<str>> = BTreeMap::new();
        for (source, node) in sources.iter().zip(&self.graph.sources) {
            now.insert(node.name.clone(), source.plan.identity.as_str().into());
            let append = self.graph.sinks_of(&node.name).into_iter().find(|name| {
                sinks
                    .iter()
                    .any(|sink| self.graph.sinks[sink.index].name == *name && sink.plan.mode == WriteMode::Append)
            });
            if let (true, Some(sink)) = (source.plan.rereads, &append) {
                let what = format!(
                    "source {} reads again what earlier runs have read (lookback), and sink {sink} appends: rows would double",
                    node.name
                );
                return Err(
                    Error::config(what).hint("use `write: insert_new` or `upsert` with a key, or leave `lookback` out")
                );
            }
            let again = resume.whole && resume.from.is_some() && source.plan.carries;
            if let (true, Some(sink)) = (again && (self.full || self.graph.run.verify_every.is_some()), &append) {
                let what = format!(
                    "everything is to be read again (--full, verify_every), and sink {sink} appends: rows would double"
                );
                return Err(Error::config(what).hint("use `write: insert_new` or `upsert` with a key, or `replace`"));
            }
        }
        for sink in sinks {
            now.insert(self.graph.sinks[sink.index].name.clone(), sink.plan.identity.as_str().into());
        }
        let ends = now.values().map(|identity| identity.to_string()).collect::<Vec<_>>().join("\n");
        self.engine.store.claim_name(&self.graph.name, &ends, self.graph.file.as_deref())?;
        if let Some(from) = resume.until.as_ref().or(resume.from.as_ref()) {
            let same_run = from.run.id == self.run.id;
            for (name, identity) in &now {
                let source = self.graph.sources.iter().position(|node| node.name == *name);
                // Positions of an ended run matter only where the source reads on from them.
                let matters = same_run || source.is_some_and(|index| sources[index].plan.carries);
                if let Some(before) = from.run.fingerprint.get(name).filter(|before| matters && before != &identity) {
                    let what =
                        if same_run { "the run to be taken up was begun with" } else { "its positions were made with" };
                    return Err(Error::conflict(format!("{name} is now '{identity}', but {what} '{before}'")).hint(
                        if same_run {
                            "bring the config back, or leave that run behind with --new-run"
                        } else {
                            "bring the config back, or begin anew with `towpath state reset checkpoint`"
                        },
                    ));
                }
            }
        }
        self.run.fingerprint = now;
        Ok(())
    }

    /// Builds the stages, runs them to the end, and sees that none is left.
    async fn read(&mut self, ready: Ready, sinks: Vec<OpenSink>, cancel: CancellationToken) -> Result<Came> {
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

enum Prepared {
    Ready(Box<Ready>),
    Done(Came),
}

struct Ready {
    resume: Resume,
    start: Start,
    sources: Vec<PlannedSource>,
    transforms: BTreeMap<Name, TransformPlan>,
    one_epoch: bool,
    /// A wish to begin anew is granted by the first commit.
    begin_anew: bool,
}

struct Built {
    coordinator: Coordinator,
    tasks: JoinSet<Result<()>>,
    letters: Arc<Letters>,
    catching_up: bool,
    queues: Vec<Arc<SettledQueue>>,
}

/// Plans the transforms in order; `known` has the sources' schemas and is given the transforms'.
pub(crate) fn plan_transforms(
    graph: &Graph,
    known: &mut BTreeMap<Name, Known>,
) -> Result<BTreeMap<Name, TransformPlan>> {
    let mut plans = BTreeMap::new();
    for node in &graph.transforms {
        let place = |error: Error| error.at(format!("transform {}", node.name));
        let transform = (node.make)()?;
        let plan = transform.plan(&inputs_of(node, known)).map_err(place)?;
        let alone = plan.stateful || plan.holds;
        if alone && node.common.workers.is_some_and(|workers| workers.bounds().1 > 1) {
            let what = "it remembers rows between batches, so it cannot have several workers";
            return Err(place(Error::config(what).hint("leave `workers` out of this transform")));
        }
        known.insert(node.name.clone(), plan.schema.clone());
        plans.insert(node.name.clone(), plan);
    }
    Ok(plans)
}

/// What is known of a transform's inputs.
fn inputs_of(node: &Node<dyn Transform>, known: &BTreeMap<Name, Known>) -> Vec<(Name, Known)> {
    node.inputs.iter().map(|input| (input.clone(), known.get(input).cloned().unwrap_or(Known::No))).collect()
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

async fn close_all(sinks: Vec<OpenSink>) {
    for mut open in sinks {
        match tokio::time::timeout(ENDING, open.sink.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("closing {}: {error}", open.ctx.component()),
            Err(_) => tracing::warn!("closing {}: it took longer than {ENDING:?}", open.ctx.component()),
        }
    }
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
