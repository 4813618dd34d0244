//! What a run would change, record by record, and what that costs, before anything is changed: `plan --diff`.
//!
//! It is a run whose every change is withheld: the same attempt, stages and sinks, over a copy of the pipeline's state that nobody keeps.
//! Only the door, the guards, credentials and budgets are the real ones, because the comparing calls are. Sinks that cannot tell their
//! differences are left out, and said to be. `Watch` hears every change; [`DiffReport`] is what people see; `file` keeps all of it.

mod file;
mod report;

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use towpath_core::{
    Budget, Change, Checkpoint, Context, Error, ErrorKind, Held, Known, Name, PipelineSpec, Result, Run, Sink,
    SinkPlan, Verdict, Wrote, budget::Ledger, change::Changes,
};

use self::file::Writer;
pub use self::report::{Cost, DiffReport, Moved, Refused, SinkDiff};
use crate::{
    RunReport,
    dead_letters::Entry,
    engine::{Engine, RunOptions},
    graph::{Graph, Make},
    report::{Failure, Status},
    state::StateStore,
};

/// How many changes of a sink are shown.
const SHOWN: usize = 10;

/// A change, by which it is known again: what it costs and what is remarked on it are not part of it.
pub(crate) type Digest = [u8; 16];

/// Of a change as it reads in a file, so that a number which is written and read stays the same.
fn digest(sink: &Name, change: &Change) -> Result<Digest> {
    let broken = |error| Error::internal("a change cannot be written as JSON").because(error);
    let bare = Change { calls: 0, tokens: 0, note: None, ..change.clone() };
    let text = serde_json::to_string(&bare).map_err(broken)?;
    let read: Change = serde_json::from_str(&text).map_err(broken)?;
    let text = serde_json::to_string(&(sink, read)).map_err(broken)?;
    let mut digest = Digest::default();
    digest.copy_from_slice(&Sha256::digest(text)[..16]);
    Ok(digest)
}

/// What a run is to do with changes.
enum Purpose {
    /// Withhold them; compare them with those of a plan, if there is one.
    Tell { plan: Option<Compared> },
    /// Let pass those of a plan.
    Bound { plan: HashSet<Digest> },
}

/// The changes of a plan, and how those told differ.
struct Compared {
    plan: HashSet<Digest>,
    found: HashSet<Digest>,
    new: u64,
    examples: Vec<(Name, Change)>,
}

/// Hears what a run changes, or would change.
pub(crate) struct Watch {
    purpose: Mutex<Purpose>,
    told: Mutex<Told>,
    withholds: bool,
}

#[derive(Default)]
struct Told {
    sinks: BTreeMap<Name, SinkDiff>,
    /// What calls were paid from, by account, and what they cost so far.
    paid: BTreeMap<String, (Arc<Budget>, u64, u64)>,
    /// Which sink pays from which account.
    accounts: BTreeMap<Name, String>,
    writer: Option<Writer>,
    /// Where a run would end.
    ends: Vec<(Name, Error)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    fn telling(writer: Option<Writer>, plan: Option<HashSet<Digest>>) -> Arc<Self> {
        let plan = plan.map(|plan| Compared { plan, found: HashSet::new(), new: 0, examples: vec![] });
        let told = Told { writer, ..Told::default() };
        Arc::new(Self { purpose: Mutex::new(Purpose::Tell { plan }), told: Mutex::new(told), withholds: true })
    }

    fn bound(plan: HashSet<Digest>) -> Arc<Self> {
        let purpose = Mutex::new(Purpose::Bound { plan });
        Arc::new(Self { purpose, told: Mutex::default(), withholds: false })
    }

    /// A component's call was paid for.
    pub(crate) fn paid(&self, component: &Name, budget: &Arc<Budget>, tokens: u32) {
        let mut told = lock(&self.told);
        told.accounts.entry(component.clone()).or_insert_with(|| budget.account.clone());
        let (_, calls, spent) = told.paid.entry(budget.account.clone()).or_insert_with(|| (Arc::clone(budget), 0, 0));
        (*calls, *spent) = (*calls + 1, *spent + u64::from(tokens));
    }

    /// Rows were refused.
    pub(crate) fn refused(&self, entry: &Entry) {
        let mut told = lock(&self.told);
        let diff = told.sinks.entry(entry.component.clone()).or_default();
        diff.refused += 1;
        if diff.refusals.len() < SHOWN {
            diff.refusals.push(Refused { reason: entry.reason.clone(), row: entry.row.to_string() });
        }
    }

    /// Whether anything was heard at all.
    fn has_told(&self) -> bool {
        let told = lock(&self.told);
        !told.sinks.is_empty() || !told.ends.is_empty()
    }

    fn tell(&self, sink: &Name, change: &Change) -> Result<()> {
        let mut told = lock(&self.told);
        if let Some(writer) = &mut told.writer {
            writer.change(sink, change)?;
        }
        told.sinks.entry(sink.clone()).or_default().add(change);
        Ok(())
    }
}

impl Changes for Watch {
    fn propose(&self, sink: &Name, change: &Change) -> Result<Verdict> {
        match &mut *lock(&self.purpose) {
            Purpose::Tell { plan: None } => {}
            Purpose::Tell { plan: Some(compared) } => {
                let digest = digest(sink, change)?;
                if compared.plan.contains(&digest) {
                    compared.found.insert(digest);
                } else {
                    compared.new += 1;
                    if compared.examples.len() < SHOWN {
                        compared.examples.push((sink.clone(), change.clone()));
                    }
                }
            }
            Purpose::Bound { plan } => {
                if plan.contains(&digest(sink, change)?) {
                    return Ok(Verdict::Send);
                }
                let what = format!("it is not in the plan: {}", report::in_a_line(change));
                return Err(Error::conflict(what).hint(
                    "something has changed since the plan was compared; make a new one. What was sent before is sent",
                ));
            }
        }
        self.tell(sink, change)?;
        Ok(Verdict::Withheld)
    }

    fn equal(&self, sink: &Name, rows: u64) {
        lock(&self.told).sinks.entry(sink.clone()).or_default().equal += rows;
    }

    fn withholds(&self) -> bool {
        self.withholds
    }

    fn would_end(&self, sink: &Name, error: Error) -> Result<()> {
        if !self.withholds {
            return Err(error);
        }
        lock(&self.told).ends.push((sink.clone(), error));
        Ok(())
    }
}

/// How a plan that was kept stands.
#[derive(Debug)]
pub enum Bound {
    /// It is what is to be done still: the run that did it.
    Ran(Box<RunReport>),
    /// Something has changed since: nothing was sent.
    Moved(Box<DiffReport>),
    /// The comparing did not come to its end.
    Failed(Box<RunReport>),
}

impl Engine {
    /// Tells what a run would change, without changing anything: reads everything, compares, and keeps no state but what the calls cost.
    /// `out`: where to keep all of it, for [`run_plan`](Engine::run_plan); a comparing that broke off is not kept.
    ///
    /// # Errors
    /// What a run can fail with before anything was compared; what it fails with later is told in the report. Unsupported, if no sink can tell its differences, or a source gives each row only once. Cancelled, if it was
    /// stopped.
    pub async fn diff(&self, spec: &PipelineSpec, options: RunOptions, out: Option<&Path>) -> Result<DiffReport> {
        self.diff_graph(&Graph::from_spec(spec)?, options, out).await
    }

    /// The same for a pipeline that was built in Rust.
    ///
    /// # Errors
    /// As those of [`diff`](Engine::diff).
    pub async fn diff_graph(&self, graph: &Graph, options: RunOptions, out: Option<&Path>) -> Result<DiffReport> {
        let full = options.full;
        let writer = out.map(|path| Writer::begin(path, &graph.name, full)).transpose()?;
        let watch = Watch::telling(writer, None);
        let mut diff = match self.compared(graph, options, &watch).await {
            Ok(report) => self.told(graph, &watch, report.nothing_new)?,
            Err(error) if error.kind() == ErrorKind::Cancelled || !watch.has_told() => return Err(error),
            Err(error) => {
                // What was found until then is true all the same.
                let mut diff = self.told(graph, &watch, false)?;
                diff.broke_off = true;
                // Its place is in its text.
                diff.ends.push(Failure::of(&graph.name, &error));
                diff
            }
        };
        if let Some(writer) = lock(&watch.told).writer.take().filter(|_| !diff.broke_off) {
            writer.end(&diff)?;
            diff.kept = out.map(Path::to_owned);
        }
        Ok(diff)
    }

    /// Does exactly what a plan says that [`diff`](Engine::diff) kept, or nothing: compares first, and runs only if what is to be
    /// changed is still the same; a change that is not in the plan ends the run before it is sent.
    ///
    /// # Errors
    /// Config, if the file is no plan of this pipeline. Those of [`diff`](Engine::diff).
    pub async fn run_plan(&self, spec: &PipelineSpec, options: RunOptions, plan: &Path) -> Result<Bound> {
        self.run_plan_graph(&Graph::from_spec(spec)?, options, plan).await
    }

    /// The same for a pipeline that was built in Rust.
    ///
    /// # Errors
    /// As those of [`run_plan`](Engine::run_plan).
    pub async fn run_plan_graph(&self, graph: &Graph, mut options: RunOptions, path: &Path) -> Result<Bound> {
        let mut plan = HashSet::new();
        let head = file::read(path, |sink, change| {
            plan.insert(digest(&sink, &change)?);
            Ok(())
        })?;
        if head.pipeline != graph.name {
            let what = format!("{} is a plan of pipeline '{}', not of '{}'", path.display(), head.pipeline, graph.name);
            return Err(Error::config(what).hint("make one with `towpath plan --diff --out`"));
        }
        options.full |= head.full;
        let watch = Watch::telling(None, Some(plan));
        // Whoever watches sees the run that follows; rows that were only compared would count twice.
        let comparing = RunOptions { progress: None, ..options.clone() };
        let report = match self.compared(graph, comparing, &watch).await {
            Err(error) if error.kind() == ErrorKind::Cancelled => {
                let mut report = RunReport::new(graph.name.clone());
                report.status = Status::Cancelled;
                return Ok(Bound::Failed(Box::new(report)));
            }
            compared => compared?,
        };
        let mut diff = self.told(graph, &watch, report.nothing_new)?;
        let Purpose::Tell { plan: Some(compared) } =
            std::mem::replace(&mut *lock(&watch.purpose), Purpose::Tell { plan: None })
        else {
            return Err(Error::internal("the plan to compare with is gone"));
        };
        let Compared { plan, found, new, examples } = compared;
        if new > 0 || found.len() < plan.len() {
            let mut gone = Vec::new();
            file::read(path, |sink, change| {
                if gone.len() < SHOWN && !found.contains(&digest(&sink, &change)?) {
                    gone.push((sink, change));
                }
                Ok(())
            })?;
            let count = (plan.len() - found.len()) as u64;
            diff.moved = Some(Moved { new, gone: count, examples_new: examples, examples_gone: gone });
            return Ok(Bound::Moved(Box::new(diff)));
        }
        if let Some((_, error)) = std::mem::take(&mut lock(&watch.told).ends).into_iter().next() {
            return Err(error);
        }
        let bound = Engine { changes: Some(Watch::bound(plan)), ..self.clone() };
        Ok(Bound::Ran(Box::new(bound.run_graph(graph, options).await)))
    }

    /// The run whose changes are withheld.
    async fn compared(&self, graph: &Graph, options: RunOptions, watch: &Arc<Watch>) -> Result<RunReport> {
        if !graph.sinks.iter().any(|node| node.differences) {
            let names = graph.sinks.iter().map(|node| format!("{} ({})", node.name, node.kind)).collect::<Vec<_>>();
            let what = format!("no sink can say how its rows differ from what is there: {}", names.join(", "));
            return Err(Error::unsupported(what).hint("`towpath plan` without --diff says what can be said"));
        }
        let Some(_lock) = self.store.lock_pipeline(&graph.name)? else {
            // What differs now will not in a moment.
            return Err(self.under_way(&graph.name));
        };
        let store = StateStore::memory()?;
        store.copy_pipeline(&self.store, &graph.name)?;
        // Where a sink stands that is left out, as far as it is known here; or everything would seem to be missing in it.
        for node in graph.sinks.iter().filter(|node| !node.differences) {
            if let Some(seen) = self.store.seen_checkpoint(&graph.name, &node.name)? {
                let (fence, _) = store.open_checkpoint(&graph.name, &node.name)?;
                store.put_checkpoint(&graph.name, &node.name, fence, &seen)?;
            }
        }
        let mut rules = self.rules;
        rules.letters.discard = true;
        let engine = Self { store, outside: self.outside.clone(), rules, changes: Some(Arc::clone(watch)) };
        let mut graph = graph.with_sinks(|node| {
            let make = Arc::clone(&node.make);
            let left: Make<dyn Sink> = Arc::new(move || Ok(Box::new(Left(make()?))));
            (!node.differences).then_some(left)
        });
        // What was told cannot be taken back: a second attempt would tell it twice.
        graph.run.restarts = 0;
        let report = engine.run_graph(&graph, options).await;
        match report {
            RunReport { error: Some(error), .. } => Err(error),
            RunReport { status: Status::Completed, .. } => Ok(report),
            _ => Err(Error::cancelled()),
        }
    }

    /// What was heard, with what it costs.
    fn told(&self, graph: &Graph, watch: &Watch, nothing_new: bool) -> Result<DiffReport> {
        let mut told = lock(&watch.told);
        let mut sinks = BTreeMap::new();
        let mut refused = BTreeMap::new();
        for (name, diff) in std::mem::take(&mut told.sinks) {
            if graph.sinks.iter().any(|node| node.name == name) {
                sinks.insert(name, diff);
            } else {
                refused.insert(name, diff);
            }
        }
        for node in &graph.sinks {
            if node.differences {
                sinks.entry(node.name.clone()).or_default().kind.clone_from(&node.kind);
            }
        }
        let mut costs = Vec::new();
        for (account, (budget, calls, tokens)) in &told.paid {
            let state = self.outside.state(budget)?;
            let of_account = |sink: &&Name| told.accounts.get(*sink).is_some_and(|paid| paid == account);
            let writing: Vec<&SinkDiff> =
                sinks.iter().filter(|(name, _)| of_account(name)).map(|(_, diff)| diff).collect();
            let write_calls = writing.iter().map(|diff| diff.calls).sum();
            let write_tokens = writing.iter().map(|diff| diff.tokens).sum();
            costs.push(Cost::reckon(budget, state, (*calls, *tokens), (write_calls, write_tokens)));
        }
        let without = graph.sinks.iter().filter(|node| !node.differences);
        let order = graph.commit_order()?.into_iter().flatten().map(|sink| graph.sinks[sink].name.clone());
        Ok(DiffReport {
            pipeline: graph.name.clone(),
            nothing_new,
            refused: refused.into_iter().filter(|(_, diff)| diff.refused > 0).collect(),
            without: without.map(|node| (node.name.clone(), node.kind.clone())).collect(),
            order: order.collect(),
            sinks,
            costs,
            ends: told.ends.iter().map(|(sink, error)| Failure::of(sink, error)).collect(),
            broke_off: false,
            kept: None,
            moved: None,
        })
    }
}

/// Takes the place of a sink that cannot tell its differences: plans as it does, takes rows and does nothing with them.
struct Left(Box<dyn Sink>);

#[async_trait]
impl Sink for Left {
    async fn plan(&mut self, ctx: &Context, schema: &Known) -> Result<SinkPlan> {
        self.0.plan(ctx, schema).await
    }
    async fn open(&mut self, _: &Context, _: &Run) -> Result<Held> {
        Ok(Held::ByEngine)
    }
    async fn schema(&mut self, _: &SchemaRef) -> Result<Option<String>> {
        Ok(None)
    }
    async fn write(&mut self, _: u64, _: RecordBatch) -> Result<Wrote> {
        Ok(Wrote::default())
    }
    async fn flush(&mut self) -> Result<Wrote> {
        Ok(Wrote::default())
    }
    async fn commit(&mut self, _: &Checkpoint) -> Result<()> {
        Ok(())
    }
    async fn close(&mut self) -> Result<()> {
        Ok(())
    }
}
