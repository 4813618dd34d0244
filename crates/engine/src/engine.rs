//! The engine: what is remembered, and runs.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use towpath_core::{
    Context, Error, ErrorKind, Name, PipelineSpec, Result, Run,
    context::Door,
    pipeline::{CommonSpec, Guard, Role},
};

use crate::{
    attempt::{Attempt, Came},
    call::CallDoor,
    diff::Watch,
    graph::Graph,
    letters,
    progress::Progress,
    report::{RunReport, Status},
    rules::Rules,
    state::StateStore,
    watchdog::Watchdog,
};

/// Plans and runs pipelines, and remembers what must be remembered between runs.
#[derive(Clone)]
pub struct Engine {
    /// What is remembered of pipelines.
    pub(crate) store: StateStore,
    /// What is remembered of servers and accounts: the same store, but for a run that keeps nothing else.
    pub(crate) outside: StateStore,
    pub(crate) rules: Rules,
    /// Who hears what is changed.
    pub(crate) changes: Option<Arc<Watch>>,
}

/// How a run is to go.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Leave a run that died or was stopped behind, instead of taking it up.
    pub new_run: bool,
    /// Read everything and compare it, also where nothing has changed since the last run.
    pub full: bool,
    /// Cancel it to end the run at the next commit.
    pub stop: CancellationToken,
    /// Cancel it to end the run at once.
    pub abort: CancellationToken,
    /// Where to count, for whoever wants to watch.
    pub progress: Option<Arc<Progress>>,
}

impl Engine {
    /// An engine whose state lies in a folder; it is made if it is not there.
    pub fn open(state_dir: &Path) -> Result<Self> {
        Ok(Self::with(StateStore::open(state_dir)?, Rules::default()))
    }

    /// An engine that remembers nothing beyond this process: for tests, and for programs whose sinks keep their own checkpoints.
    /// Dead letters go to a temporary folder unless the pipeline names one.
    pub fn in_memory() -> Result<Self> {
        Ok(Self::with(StateStore::memory()?, Rules::default()))
    }

    pub(crate) fn with(store: StateStore, rules: Rules) -> Self {
        Self { outside: store.clone(), store, rules, changes: None }
    }

    /// Whether nothing is to be changed: every change is only told.
    pub(crate) fn withholds(&self) -> bool {
        self.changes.as_ref().is_some_and(|watch| towpath_core::change::Changes::withholds(&**watch))
    }

    /// What is remembered.
    pub fn state(&self) -> &StateStore {
        &self.store
    }

    /// Where a pipeline's dead letters lie.
    pub fn dead_letters_of(&self, spec: &PipelineSpec) -> PathBuf {
        self.letters_folder(spec.name.as_deref().unwrap_or_default(), spec.errors.dead_letters.as_deref())
    }

    /// Where a pipeline's dead letters lie, and those that were sent again and refused again, by sink.
    pub fn all_dead_letters_of(&self, spec: &PipelineSpec) -> Vec<PathBuf> {
        let name = spec.name.as_deref().unwrap_or_default();
        let replays = spec.sinks.iter().map(|sink| crate::replay::pipeline_name(name, &sink.name));
        let names = std::iter::once(Name::from(name)).chain(replays);
        names.map(|name| self.letters_folder(&name, spec.errors.dead_letters.as_deref())).collect()
    }

    pub(crate) fn dead_letters(&self, graph: &Graph) -> PathBuf {
        self.letters_folder(&graph.name, graph.errors.dead_letters.as_deref())
    }

    fn letters_folder(&self, pipeline: &str, configured: Option<&Path>) -> PathBuf {
        let temporary = || std::env::temp_dir().join(format!("towpath-{}", std::process::id()));
        match configured {
            Some(folder) => folder.join(pipeline),
            None => self.store.dir().map_or_else(temporary, Path::to_path_buf).join("dead_letters").join(pipeline),
        }
    }

    /// Runs a pipeline once. A failure is in the report; so is a run that was taken up.
    ///
    /// Dropping the future is like killing the process: the next run takes this one up.
    pub async fn run(&self, spec: &PipelineSpec, options: RunOptions) -> RunReport {
        match Graph::from_spec(spec) {
            Ok(graph) => self.run_graph(&graph, options).await,
            Err(error) => {
                let mut report = RunReport::new(spec.name.clone().unwrap_or_else(|| "".into()));
                report.error = Some(error);
                report
            }
        }
    }

    /// Runs a pipeline that was built in Rust.
    pub async fn run_graph(&self, graph: &Graph, options: RunOptions) -> RunReport {
        let began = Instant::now();
        let progress = options.progress.clone().unwrap_or_default();
        let mut report = RunReport::new(graph.name.clone());
        let mut lock = None;
        let outcome = match self.store.lock_pipeline(&graph.name) {
            Ok(Some(held)) => {
                lock = Some(held);
                if let Err(error) = self.store.note_start(&graph.name) {
                    tracing::warn!("cannot note that the run begins: {error}");
                }
                self.locked_run(graph, &options, &progress, &mut report).await
            }
            Ok(None) => {
                report.locked = true;
                Err(self.under_way(&graph.name))
            }
            Err(error) => Err(error),
        };
        report.count(&progress);
        report.elapsed_seconds = began.elapsed().as_secs_f64();
        report.peak_memory_bytes = peak_memory();
        match outcome {
            Ok(status) => report.status = status,
            Err(error) => {
                // For today there is no more: the next run goes on.
                let spent = crate::budget::is_spent(&error);
                report.status = match error.kind() {
                    ErrorKind::Cancelled => Status::Cancelled,
                    _ if spent => Status::Cancelled,
                    _ if letters::is_too_many(&error) => Status::Stopped,
                    _ => Status::Failed,
                };
                report.error = (spent || report.status != Status::Cancelled).then_some(error);
            }
        }
        if lock.is_some() {
            let summary = serde_json::to_value(&report).unwrap_or_default();
            let ended = self.store.end_run(&graph.name, &report.run_id, report.status.name(), &summary);
            if let Err(error) = ended.and_then(|()| self.store.note_end(&graph.name, &summary)) {
                // Everything is committed all the same; the next run finds that out from the targets.
                tracing::warn!("cannot note how the run ended: {error}");
            }
        }
        drop(lock);
        report
    }

    /// Somebody else holds the lock.
    pub(crate) fn under_way(&self, pipeline: &Name) -> Error {
        crate::report::under_way(pipeline, self.store.lock_holder(pipeline).as_ref())
    }

    async fn locked_run(
        &self,
        graph: &Graph,
        options: &RunOptions,
        progress: &Arc<Progress>,
        report: &mut RunReport,
    ) -> Result<Status> {
        let unfinished = if options.new_run { None } else { self.store.unfinished_run(&graph.name)? };
        let mut begun = unfinished.is_some();
        if let Some(run) = &unfinished {
            tracing::info!("taking up run {}, which did not end", run.id);
            report.taken_up = true;
        }
        let mut run = unfinished.unwrap_or_else(new_run);
        let mut watchdog = Watchdog::new(graph);
        let (mut commits, mut dead_letters, mut failures) = (0, 0, 0);
        let deadline = graph.run.deadline.map(|period| Instant::now() + period.0);
        let status = loop {
            let before = commits;
            let mut attempt = Attempt {
                engine: self,
                graph,
                progress,
                run: &mut run,
                begun: &mut begun,
                new_run: options.new_run,
                full: options.full,
                stop: &options.stop,
                abort: options.abort.clone(),
                commits: &mut commits,
                dead_letters: &mut dead_letters,
                watchdog: &mut watchdog,
                nothing_new: &mut report.nothing_new,
            };
            let came = within(deadline, graph, &mut attempt).await;
            report.run_id = run.id.to_string();
            report.dead_letters = dead_letters;
            report.stalled = watchdog.named();
            match came {
                Ok(Came::ToTheEnd) => break Status::Completed,
                Ok(Came::Stopped) => break Status::Cancelled,
                Ok(Came::CaughtUp) => {}
                Ok(Came::Anew) => (run, begun, report.taken_up) = (new_run(), false, false),
                Ok(Came::Across(found)) => {
                    tracing::info!("taking up run {}, which the target says did not end", found.id);
                    (run, begun, report.taken_up) = (found, true, true);
                    self.store.begin_run(&graph.name, &run)?;
                }
                Err(error) => {
                    failures = if commits > before { 1 } else { failures + 1 };
                    let too_long =
                        matches!(error.retrying(), towpath_core::Retry::After(asked) if asked > crate::call::PATIENCE);
                    let again = (error.can_retry() || error.is_outcome_unknown())
                        && !too_long
                        && failures <= graph.run.restarts;
                    if !again || options.stop.is_cancelled() || options.abort.is_cancelled() {
                        return Err(with_stalled(error, &report.stalled));
                    }
                    let pause = crate::call::back_off(&Default::default(), failures, error.retrying());
                    tracing::warn!("{error}; going on from the last commit in {:.1} s", pause.as_secs_f64());
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = options.stop.cancelled() => return Err(error),
                        () = options.abort.cancelled() => return Err(error),
                    }
                }
            }
        };
        Ok(status)
    }

    /// The context of one component.
    pub(crate) fn context(
        &self,
        graph: &Graph,
        name: &Name,
        role: Role,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Context {
        self.context_behind(graph, name, Arc::new(self.door(graph, name, role, progress, cancel)), cancel)
    }

    pub(crate) fn door(
        &self,
        graph: &Graph,
        name: &Name,
        role: Role,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> CallDoor {
        let (common, guard) = graph.common(name).unwrap_or((CommonSpec::default(), Guard::default()));
        let counted = progress.component(name, role);
        let retry = common.retry.unwrap_or_default();
        let deadline = graph.run.call_deadline.0;
        CallDoor::new(self.outside.clone(), guard, retry, deadline, cancel.clone(), counted)
            .watched(self.changes.clone())
    }

    /// What a component is given, with this door to the outside.
    pub(crate) fn context_behind(
        &self,
        graph: &Graph,
        name: &Name,
        door: Arc<dyn Door>,
        cancel: &CancellationToken,
    ) -> Context {
        let outside = &self.outside;
        let ctx = Context::new(graph.name.clone(), name.clone(), door, Arc::new(outside.clone()), cancel.clone())
            .with_ledger(Arc::new(outside.clone()));
        match &self.changes {
            Some(watch) => ctx.with_changes(Arc::clone(watch) as Arc<dyn towpath_core::change::Changes>),
            None => ctx,
        }
    }
}

pub(crate) fn new_run() -> Run {
    let started = jiff::Timestamp::now();
    // Seeded by the operating system: two processes that start in the same millisecond differ all the same.
    let random = RandomState::new().build_hasher().finish() as u32;
    let id = format!("{}-{random:08x}", started.strftime("%Y%m%dT%H%M%S%3fZ"));
    Run { id: id.into(), started, parameters: Default::default(), fingerprint: Default::default() }
}

/// Makes an attempt, unless the run's deadline passes: then it is told to end, not dropped, so that everything is closed.
async fn within(deadline: Option<Instant>, graph: &Graph, attempt: &mut Attempt<'_>) -> Result<Came> {
    let Some(deadline) = deadline else { return attempt.make().await };
    let (outer, told) = (attempt.abort.clone(), attempt.abort.child_token());
    attempt.abort = told.clone();
    let timer = async {
        tokio::time::sleep_until(deadline).await;
        told.cancel();
        std::future::pending::<Result<Came>>().await
    };
    let came = tokio::select! {
        came = attempt.make() => came,
        never = timer => never,
    };
    if told.is_cancelled() && !outer.is_cancelled() && came.is_err() {
        let period = graph.run.deadline.map(|period| period.to_string()).unwrap_or_default();
        return Err(Error::timeout(format!("the run's deadline ({period}) passed"))
            .retry(towpath_core::Retry::Never)
            .hint("the next run takes it up; raise `deadline` if it must take longer"));
    }
    came
}

fn with_stalled(error: Error, stalled: &[String]) -> Error {
    if stalled.is_empty() { error } else { error.because(stalled.join("; ")) }
}

/// The largest resident size of this process so far, in bytes; 0 where the system does not tell.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")).and_then(|kib| kib.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
