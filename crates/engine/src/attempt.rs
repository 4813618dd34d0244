//! One attempt at a run: open the sinks, learn where they stand, plan and open the rest, read to the end.
//!
//! Any failure ends the attempt as a crash would: everything is closed, and the next attempt opens anew and believes only what
//! the targets hold. There is no other way of recovery.

mod read;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use towpath_core::{
    Checkpoint, Context, Error, ErrorKind, Held, Known, Name, Result, Resume, Run, Sink, SinkPlan, Source, SourcePlan,
    Transform, TransformPlan, WriteMode, pipeline::Role, source::Replay,
};

use crate::{
    engine::Engine,
    graph::{Graph, Node},
    progress::Progress,
    resume::{self, Standing, Start, start},
    stage::sink::Keeper,
    watchdog::Watchdog,
};

/// How long stages may take to end once they are told to, closing included.
const ENDING: Duration = Duration::from_secs(10);
/// Under this name a run's fingerprint has the digest of the config; no component can have it.
const CONFIG: &str = "(config)";

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
        let came = self.made().await;
        if came.is_err() || matches!(came, Ok(Came::Stopped)) {
            // Calls were given up, and with them perhaps the first one of a credential.
            self.engine.outside.settled().await;
        }
        came
    }

    async fn made(&mut self) -> Result<Came> {
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
        let ours = newest.is_none_or(|newest| newest.run.id == self.run.id || newest.last && !self.new_run);
        let changed = newest.is_some_and(|newest| self.has_changed_since(&newest.run));
        let standings: Vec<_> = sinks.iter().map(|sink| self.standing(sink)).collect();
        let mut start = self.engine.rules.start(start(&standings, ours)?);
        if changed && let Some(level) = level_instead(&start, &standings) {
            tracing::info!(
                "the pipeline has changed since some sinks were given their rows: all of them are given them again"
            );
            start = level;
        }
        if !self.level(&mut start, sinks) {
            return Ok(Prepared::Done(Came::Anew));
        }
        let mut resume = resume_of(&start);
        let planned = match self.plan_all(&resume, cancel).await {
            Err(error) if error.kind() == ErrorKind::Conflict => match level_instead(&start, &standings) {
                None => return Err(error),
                // Who has the rows already knows them by their keys.
                Some(level) => {
                    tracing::warn!("{error}: all sinks are given the rows that there are now");
                    start = level;
                    if !self.level(&mut start, sinks) {
                        return Ok(Prepared::Done(Came::Anew));
                    }
                    resume = resume_of(&start);
                    self.plan_all(&resume, cancel).await?
                }
            },
            planned => planned?,
        };
        let (mut sources, transforms) = planned;
        if self.engine.withholds() {
            self.refuse_only_once(&sources)?;
        }
        let same_run = resume.same_run(self.run).is_some();
        let holds = transforms.values().any(|plan| plan.holds);
        let nothing = sources.iter().all(|source| source.plan.nothing_to_do());
        let verify = self.full || (nothing && !same_run && self.is_verification_due(sinks, changed));
        if nothing && !same_run && resume.until.is_none() && !verify {
            *self.nothing_new = true;
            let but = if changed { ", but the pipeline: --full reads everything with it as it is now" } else { "" };
            tracing::info!("nothing has changed since the last run{but}: nothing is read, nothing is written");
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

    /// Sees to a start at which all sinks are given the same. False: only a new run can give them that.
    fn level(&self, start: &mut Start, sinks: &[OpenSink]) -> bool {
        let Start::Level { from, epoch } = start else { return true };
        if self.would_stage_twice(sinks, from.as_ref()) {
            tracing::warn!("a target was made anew while this run had staged rows for another: a new run begins");
            return false;
        }
        // Numbers are never used twice, or the dead letters of two epochs could not be told apart.
        *epoch = sinks.iter().map(|sink| sink.seen).max().unwrap_or(0).max(*epoch);
        true
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

    /// Whether the components are told something else than in that run, as far as that is known.
    fn has_changed_since(&self, run: &Run) -> bool {
        let now = self.graph.digest.as_deref();
        run.fingerprint.get(CONFIG).zip(now).is_some_and(|(before, now)| &**before != now)
    }

    /// Whether everything is to be compared again: the pipeline is another one, or the last run that came to its end began long ago.
    fn is_verification_due(&self, sinks: &[OpenSink], changed: bool) -> bool {
        let Some(every) = self.graph.run.verify_every else { return false };
        if changed {
            tracing::info!("the pipeline has changed since the last run: everything is compared again");
            return true;
        }
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
        now.extend(self.graph.digest.as_deref().map(|digest| (CONFIG.into(), digest.into())));
        self.run.fingerprint = now;
        Ok(())
    }
}

/// Where to begin if the very same rows cannot be given again: where the lowest sink stands, unless one that is ahead would double them.
fn level_instead(start: &Start, standings: &[Standing]) -> Option<Start> {
    match start {
        Start::Level { .. } => None,
        Start::Behind { .. } => resume::start(standings, false).ok(),
    }
}

fn resume_of(start: &Start) -> Resume {
    let (from, until) = match start {
        Start::Level { from, .. } => (from.clone(), None),
        Start::Behind { from, until, .. } => (from.clone(), Some(until.clone())),
    };
    Resume { from, until, whole: false }
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

async fn close_all(sinks: Vec<OpenSink>) {
    for mut open in sinks {
        match tokio::time::timeout(ENDING, open.sink.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("closing {}: {error}", open.ctx.component()),
            Err(_) => tracing::warn!("closing {}: it took longer than {ENDING:?}", open.ctx.component()),
        }
    }
}
