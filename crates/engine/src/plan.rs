//! What a run would do, found by cheap calls and by reading state only.

mod asking;

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::Serialize;
use towpath_core::{
    Checkpoint, Error, ErrorKind, Known, Name, PipelineSpec, Result, Resume, SinkPlan, SourcePlan, Work, WriteMode,
    pipeline::{Guard, Role},
    sink::Guarantee,
    source::Replay,
};

use self::asking::Asking;
use crate::{
    attempt::plan_transforms,
    engine::{Engine, new_run},
    graph::Graph,
    report::Failure,
};

/// How long a plan may wait for a server before it goes on without it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a run would do. Prints for people, serializes for programs.
#[derive(Clone, Debug, Serialize)]
pub struct PlanReport {
    /// The pipeline.
    pub pipeline: Name,
    /// The run that would be taken up.
    pub takes_up: Option<String>,
    /// Sources.
    pub sources: Vec<PlannedSource>,
    /// Transforms, in the order of the data.
    pub transforms: Vec<PlannedTransform>,
    /// Sinks.
    pub sinks: Vec<PlannedSink>,
    /// What a reader should know before running it.
    pub warnings: Vec<String>,
    /// Whom the plan could not ask, or who refused it: a run would end so now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Failure>,
}

/// A source's part of the plan.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedSource {
    /// Its name.
    pub name: Name,
    /// Its connector.
    pub kind: String,
    /// Columns and types, as far as known.
    pub columns: Columns,
    /// What it would fetch.
    pub work: Vec<Work>,
    /// Whether that is all.
    pub complete_work: bool,
    /// How it can be read again.
    pub replay: Replay,
    /// The limits it keeps.
    pub guard: Guard,
    /// Remarks.
    pub notes: Vec<String>,
}

/// A transform's part of the plan.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedTransform {
    /// Its name.
    pub name: Name,
    /// Its type.
    pub kind: String,
    /// Whose rows it takes.
    pub inputs: Vec<Name>,
    /// Columns and types of what comes out, as far as known.
    pub columns: Columns,
    /// It holds rows back until all inputs have ended.
    pub holds: bool,
    /// Remarks.
    pub notes: Vec<String>,
}

/// A sink's part of the plan.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedSink {
    /// Its name.
    pub name: Name,
    /// Its connector.
    pub kind: String,
    /// Whose rows it takes.
    pub inputs: Vec<Name>,
    /// What it writes to.
    pub target: String,
    /// How rows meet what is there.
    pub mode: WriteMode,
    /// What results from all that.
    pub guarantee: Guarantee,
    /// Remarks.
    pub notes: Vec<String>,
}

/// Columns of a schema, and how they are known.
#[derive(Clone, Debug, Serialize)]
pub struct Columns {
    /// `now`, `last_run` or `unknown`.
    pub known: &'static str,
    /// Name and type.
    pub columns: Vec<(String, String)>,
}

impl Columns {
    fn of(known: &Known) -> Self {
        let word = match known {
            Known::Now(_) => "now",
            Known::LastRun(_) => "last_run",
            Known::No => "unknown",
        };
        let fields = known
            .schema()
            .map(|schema| schema.fields().iter().map(|f| (f.name().clone(), type_name(f.data_type()))).collect());
        Self { known: word, columns: fields.unwrap_or_default() }
    }
}

/// A type as the config calls it.
fn type_name(data_type: &arrow_schema::DataType) -> String {
    use arrow_schema::DataType::{Boolean, Date32, Decimal128, Float64, Int64, LargeUtf8, Timestamp, Utf8, Utf8View};
    match data_type {
        Utf8 | LargeUtf8 | Utf8View => "text".to_owned(),
        Int64 => "int64".to_owned(),
        Float64 => "float64".to_owned(),
        Boolean => "bool".to_owned(),
        Date32 => "date".to_owned(),
        Decimal128(precision, scale) => format!("decimal({precision},{scale})"),
        Timestamp(_, None) => "timestamp".to_owned(),
        Timestamp(_, Some(zone)) => format!("timestamp({zone})"),
        other => other.to_string(),
    }
}

impl Engine {
    /// Plans a pipeline: cheap calls, and state is only read.
    pub async fn plan(&self, spec: &PipelineSpec) -> Result<PlanReport> {
        self.plan_graph(&Graph::from_spec(spec)?).await
    }

    /// Plans a pipeline that was built in Rust.
    pub async fn plan_graph(&self, graph: &Graph) -> Result<PlanReport> {
        let unfinished = self.store.unfinished_run(&graph.name)?;
        let takes_up = unfinished.as_ref().map(|run| run.id.to_string());
        let run = unfinished.unwrap_or_else(new_run);
        let resume = Resume { from: self.last_checkpoint(graph)?, until: None, whole: false };
        let mut warnings = Vec::new();
        let mut known = BTreeMap::new();
        let (mut planned, mut failures) = (Vec::new(), Vec::new());
        for node in &graph.sources {
            let asking = Asking::of(self, graph, &node.name, Role::Source);
            let mut source = (node.make)()?;
            let planning = source.plan(&asking.ctx, &run, &resume);
            let in_time = tokio::time::timeout(PATIENCE, planning).await;
            let plan =
                in_time.unwrap_or_else(|_| Err(Error::timeout(format!("planning took longer than {PATIENCE:?}"))));
            let before =
                || Ok::<_, Error>(self.store.schema(&graph.name, &node.name)?.map_or(Known::No, Known::LastRun));
            let Some(mut plan): Option<SourcePlan> = asking.came(plan, "source", &mut failures)? else {
                known.insert(node.name.clone(), before()?);
                continue;
            };
            if plan.schema == Known::No {
                plan.schema = before()?;
            }
            known.insert(node.name.clone(), plan.schema.clone());
            if let Some(every) = graph.schedule.as_ref().and_then(|schedule| schedule.every) {
                let last = self.last_duration(graph);
                warnings.extend(
                    crate::guard::schedule_warning(&node.guard, every.0, last)
                        .map(|warning| format!("source {}: {warning}", node.name)),
                );
            }
            planned.push((node, plan));
        }
        let transforms = plan_transforms(graph, &mut known)?;
        for (name, plan) in &transforms {
            warnings.extend(plan.warnings.iter().map(|warning| format!("transform {name}: {warning}")));
        }
        let mut sinks = Vec::new();
        for node in &graph.sinks {
            let asking = Asking::of(self, graph, &node.name, Role::Sink);
            let mut sink = (node.make)()?;
            let schema = node.inputs.first().and_then(|input| known.get(input)).cloned().unwrap_or(Known::No);
            let mut plan = sink.plan(&asking.ctx, &schema).await;
            if let (Err(error), Known::LastRun(_)) = (&plan, &schema)
                && error.kind() == ErrorKind::Config
            {
                // The next run may have others, above all where the last one has failed for them.
                warnings.push(format!("sink {}: by the columns of the last run, {error}", node.name));
                plan = sink.plan(&asking.ctx, &Known::No).await;
            }
            let Some(plan): Option<SinkPlan> = asking.came(plan, "sink", &mut failures)? else { continue };
            let feeding: Vec<&SourcePlan> = planned
                .iter()
                .filter(|(source, _)| graph.sinks_of(&source.name).contains(&node.name))
                .map(|(_, plan)| plan)
                .collect();
            if let Some(warning) = conflict(&plan, &feeding) {
                warnings.push(format!("sink {}: {warning}", node.name));
            }
            let guarantee = guarantee(&plan, &feeding);
            let (name, kind, inputs) = (node.name.clone(), node.kind.clone(), node.inputs.clone());
            sinks.push(PlannedSink {
                name,
                kind,
                inputs,
                target: plan.identity,
                mode: plan.mode,
                guarantee,
                notes: plan.notes,
            });
        }
        let one_epoch = transforms.values().any(|plan| plan.holds);
        if one_epoch {
            warnings
                .push("rows are held back until all inputs have ended: the run commits once, at its end".to_owned());
        }
        let sources = planned.into_iter().map(|(node, plan)| PlannedSource {
            name: node.name.clone(),
            kind: node.kind.clone(),
            columns: Columns::of(&plan.schema),
            work: plan.work,
            complete_work: plan.complete_work,
            replay: plan.replay,
            guard: node.guard,
            notes: plan.notes,
        });
        let transforms = graph.transforms.iter().filter_map(|node| {
            let plan = transforms.get(&node.name)?;
            Some(PlannedTransform {
                name: node.name.clone(),
                kind: node.kind.clone(),
                inputs: node.inputs.clone(),
                columns: Columns::of(&plan.schema),
                holds: plan.holds,
                notes: plan.notes.clone(),
            })
        });
        Ok(PlanReport {
            pipeline: graph.name.clone(),
            takes_up,
            sources: sources.collect(),
            transforms: transforms.collect(),
            sinks,
            warnings,
            failures,
        })
    }

    /// The newest checkpoint that this machine knows of. The targets are not asked: a plan changes nothing, and opening a sink raises its
    /// fence.
    fn last_checkpoint(&self, graph: &Graph) -> Result<Option<Checkpoint>> {
        let mut newest: Option<Checkpoint> = None;
        for node in &graph.sinks {
            let checkpoint = self.store.seen_checkpoint(&graph.name, &node.name)?;
            if checkpoint.as_ref().map(|found| found.epoch) > newest.as_ref().map(|found| found.epoch) {
                newest = checkpoint;
            }
        }
        Ok(newest)
    }

    fn last_duration(&self, graph: &Graph) -> Option<Duration> {
        let runs = self.store.last_runs(&graph.name, 1).ok()?;
        let seconds = runs.first()?.summary.as_ref()?.get("elapsed_seconds")?.as_f64()?;
        Duration::try_from_secs_f64(seconds).ok()
    }
}

/// The weakest part decides: a source that cannot be read again cannot be exactly once.
fn guarantee(sink: &SinkPlan, sources: &[&SourcePlan]) -> Guarantee {
    let settled_singly = sources.iter().any(|source| source.replay == Replay::OneByOne);
    let keyed = matches!(sink.mode, WriteMode::InsertNew | WriteMode::Upsert);
    match (settled_singly, keyed) {
        (true, true) => sink.guarantee.min(Guarantee::AtLeastOnceKeyed),
        (true, false) => Guarantee::AtLeastOnce,
        (false, _) => sink.guarantee,
    }
}

/// What a run would refuse.
fn conflict(sink: &SinkPlan, sources: &[&SourcePlan]) -> Option<String> {
    let rereads = sources.iter().any(|source| source.rereads);
    (rereads && sink.mode == WriteMode::Append).then(|| {
        "it appends, but a source reads again what earlier runs have read (lookback): a run will refuse this; use insert_new or upsert with a key".to_owned()
    })
}

impl PlanReport {
    /// Of components of which nothing else is known.
    fn unplanned(&self) -> impl Iterator<Item = &Failure> {
        let is_shown = |name: &Name| {
            self.sources.iter().any(|source| source.name == *name) || self.sinks.iter().any(|sink| sink.name == *name)
        };
        self.failures.iter().filter(move |failure| !is_shown(&failure.component))
    }
}

impl fmt::Display for PlanReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "pipeline {}", self.pipeline)?;
        if let Some(run) = &self.takes_up {
            writeln!(f, "  takes up run {run}, which did not end")?;
        }
        for source in &self.sources {
            writeln!(f, "\nsource {} ({})", source.name, source.kind)?;
            write_columns(f, &source.columns)?;
            const SHOWN: usize = 20;
            match source.work.len() {
                0 if source.complete_work => writeln!(f, "  fetches  nothing: nothing has changed")?,
                0 => writeln!(f, "  fetches  what is there when it runs")?,
                _ => {}
            }
            for (index, work) in source.work.iter().take(SHOWN).enumerate() {
                let bytes = work.bytes.map(|bytes| format!(" ({})", size(bytes))).unwrap_or_default();
                writeln!(f, "  {} {}{bytes}", if index == 0 { "fetches " } else { "        " }, work.what)?;
            }
            if source.work.len() > SHOWN {
                writeln!(f, "           … and {} more", source.work.len() - SHOWN)?;
            }
            let replay = match source.replay {
                Replay::FromPosition => "from any committed position",
                Replay::WholePartitions => "a partition at a time, whole or nothing",
                Replay::OneByOne => "never: each request is settled by itself",
            };
            writeln!(f, "  resumes  {replay}")?;
            let guard = source.guard.to_string();
            if !guard.is_empty() {
                writeln!(f, "  guard    {guard}")?;
            }
            write_notes(f, &source.notes)?;
        }
        for transform in &self.transforms {
            writeln!(f, "\ntransform {} ({}) ← {}", transform.name, transform.kind, names(&transform.inputs))?;
            write_columns(f, &transform.columns)?;
            if transform.holds {
                writeln!(f, "  holds    rows back until all inputs have ended")?;
            }
            write_notes(f, &transform.notes)?;
        }
        for sink in &self.sinks {
            writeln!(f, "\nsink {} ({}) ← {}", sink.name, sink.kind, names(&sink.inputs))?;
            let mode = match sink.mode {
                WriteMode::Append => "append: adds every row",
                WriteMode::InsertNew => "insert_new: adds rows whose key is new",
                WriteMode::Upsert => "upsert: adds rows, or replaces those of the same key",
                WriteMode::Replace => "replace: takes the place of all there was, at once",
            };
            let guarantee = match sink.guarantee {
                Guarantee::ExactlyOnce => "exactly once",
                Guarantee::AtLeastOnceKeyed => "at least once, made harmless by the key",
                Guarantee::AtLeastOnce => "at least once",
            };
            writeln!(f, "  target   {}\n  write    {mode}\n  promise  {guarantee}", sink.target)?;
            write_notes(f, &sink.notes)?;
        }
        for failure in self.unplanned() {
            writeln!(f, "\n{}\n  fails    {}", failure.component, failure.error)?;
        }
        if !self.warnings.is_empty() {
            writeln!(f)?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        Ok(())
    }
}

fn write_columns(f: &mut fmt::Formatter<'_>, columns: &Columns) -> fmt::Result {
    let list = columns.columns.iter().map(|(name, kind)| format!("{name} {kind}")).collect::<Vec<_>>().join(", ");
    match columns.known {
        "now" => writeln!(f, "  columns  {list}"),
        "last_run" => writeln!(f, "  columns  {list} (as in the last run)"),
        _ => writeln!(f, "  columns  not known before the first batch"),
    }
}

fn write_notes(f: &mut fmt::Formatter<'_>, notes: &[String]) -> fmt::Result {
    notes.iter().try_for_each(|note| writeln!(f, "  note     {note}"))
}

fn names(names: &[Name]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}
