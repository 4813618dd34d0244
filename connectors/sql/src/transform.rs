//! The transform: rows pushed in, a query over them, its result at the end.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use async_trait::async_trait;
use datafusion::{
    error::DataFusionError,
    execution::{memory_pool::MemoryConsumer, runtime_env::RuntimeEnv},
    physical_plan::{
        ExecutionPlan,
        joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, PartitionMode},
        windows::WindowAggExec,
    },
};
use futures::StreamExt as _;
use towpath_core::{Context, Error, Known, Name, Output, Result, Transform, TransformPlan};

use crate::{
    bridge,
    config::SqlOptions,
    driver::Driver,
    input::Feed,
    problem,
    query::{self, Planned},
    shuffle::ShuffleExec,
    spill::{Disk, SpillFolder},
    store::{Collector, Writer, outside},
};

/// Runs one query over all that its inputs give.
pub struct Sql {
    options: SqlOptions,
    /// What the plan was told, and every plan tells anew.
    planned: Mutex<Vec<(Name, Known)>>,
    state: State,
}

/// How far it has come.
enum State {
    /// Not a row yet.
    New,
    /// Some inputs have not shown their columns: the others' rows are laid aside.
    Gathering(Gathering),
    /// All are known.
    Running(Running),
    /// Everything has been given, or something has failed.
    Done,
}

struct Gathering {
    /// Those the query reads.
    inputs: Vec<Name>,
    runtime: Arc<RuntimeEnv>,
    disk: Disk,
    aside: BTreeMap<Name, Aside>,
}

/// Rows of an input whose query has not begun.
struct Aside {
    schema: SchemaRef,
    rows: Writer,
}

struct Running {
    driver: Driver,
    schema: SchemaRef,
    inputs: BTreeMap<Name, SchemaRef>,
    feeds: BTreeMap<Name, Arc<Feed>>,
}

impl Sql {
    /// # Errors
    /// Config: an empty query, or an option out of its range.
    pub fn new(options: SqlOptions) -> Result<Self> {
        options.check()?;
        if options.query.trim().is_empty() {
            return Err(Error::config("query: it is empty").hint("write `query: select … from …`"));
        }
        Ok(Self { options, planned: Mutex::default(), state: State::New })
    }

    fn planned(&self, input: &str) -> Option<Known> {
        let planned = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        planned.iter().find(|(name, _)| **name == *input).map(|(_, known)| known.clone())
    }

    /// Begins to take rows in, before it is known whether all columns are.
    fn gather(&self) -> Result<Gathering> {
        let query = &self.options.query;
        let inputs = query::read_by(&query::parse(query, None)?)?;
        let (runtime, disk) = query::runtime(&self.options, SpillFolder::new(&self.options.spill())?)?;
        Ok(Gathering { runtime, disk, inputs, aside: BTreeMap::new() })
    }

    /// Begins the query, over inputs of these schemas, and gives it what was laid aside.
    async fn run(&self, gathered: Gathering, inputs: Vec<(Name, SchemaRef)>) -> Result<Running> {
        let Gathering { runtime, disk, aside, .. } = gathered;
        let Planned { plan, schema, feeds, ctx } = query::plan(&self.options, &inputs, runtime)?;
        let driver = Driver::start(plan, ctx, disk, self.options.clone());
        let mut running = Running { driver, schema, inputs: inputs.into_iter().collect(), feeds };
        for (input, Aside { schema, rows }) in aside {
            let collector = Collector::new(1);
            rows.finish(&collector).map_err(|error| self.failed(error))?;
            let store = Arc::new(collector.into_store());
            for rows in store.read(0) {
                let rows = rows.map_err(|error| self.failed(error))?;
                let rows = bridge::batch_out(&rows, &schema)?;
                running.take(&input, rows).await.map_err(|error| self.failed(error))?;
            }
        }
        Ok(running)
    }

    fn failed(&self, error: DataFusionError) -> Error {
        problem::while_running(error, self.options.memory)
    }
}

impl Gathering {
    /// Lays rows aside.
    fn put(&mut self, input: &Name, rows: &RecordBatch, options: &SqlOptions) -> Result<(), DataFusionError> {
        let schema =
            bridge::schema_in(rows.schema_ref()).map_err(|error| outside(error.at(format!("input {input}"))))?;
        if !self.aside.contains_key(input) {
            let reserved = MemoryConsumer::new("rows laid aside").register(&self.runtime.memory_pool);
            let room = options.to_gather(self.inputs.len());
            let disk = self.disk.clone();
            let writer = Writer::new(Arc::clone(&schema), vec![], 1, room, reserved, disk)?;
            self.aside.insert(input.clone(), Aside { schema: rows.schema(), rows: writer });
        }
        let Some(aside) = self.aside.get_mut(input) else { return Ok(()) };
        same_columns(input, &aside.schema, rows.schema_ref()).map_err(outside)?;
        let all: Vec<usize> = (0..rows.num_columns()).collect();
        aside.rows.push(bridge::batch_in(rows, &all, &schema).map_err(outside)?)
    }
}

impl Running {
    async fn take(&mut self, input: &Name, rows: RecordBatch) -> Result<(), DataFusionError> {
        if let Some(schema) = self.inputs.get(input) {
            same_columns(input, schema, rows.schema_ref()).map_err(outside)?;
        }
        if let Some(feed) = self.feeds.get(input) {
            feed.send(rows).await;
        }
        self.driver.failure().await.map_or(Ok(()), Err)
    }
}

/// A query is planned once: what comes later must fit it.
fn same_columns(input: &Name, planned: &SchemaRef, came: &SchemaRef) -> Result<()> {
    let same = Arc::ptr_eq(planned, came)
        || planned.fields().len() == came.fields().len()
            && planned
                .fields()
                .iter()
                .zip(came.fields())
                .all(|(planned, came)| planned.name() == came.name() && planned.data_type() == came.data_type());
    if same {
        return Ok(());
    }
    let shown = |schema: &SchemaRef| {
        schema
            .fields()
            .iter()
            .map(|field| format!("{} {}", field.name(), field.data_type()))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let error = Error::data(format!("its columns were {}, and now are {}", shown(planned), shown(came)));
    Err(error.at(format!("input {input}")))
}

#[async_trait]
impl Transform for Sql {
    fn plan(&self, inputs: &[(Name, Known)]) -> Result<TransformPlan> {
        *self.planned.lock().unwrap_or_else(PoisonError::into_inner) = inputs.to_vec();
        let names: Vec<Name> = inputs.iter().map(|(name, _)| name.clone()).collect();
        let statement = query::parse(&self.options.query, Some(&names))?;
        let read = query::read_by(&statement)?;
        let mut plan =
            TransformPlan { schema: Known::No, holds: true, stateful: false, notes: vec![], warnings: vec![] };
        for name in names.iter().filter(|name| !read.contains(name)) {
            plan.notes.push(format!("the query does not read {name}, which is fetched for nothing"));
        }
        let used = || inputs.iter().filter(|(name, _)| read.contains(name));
        let unknown: Vec<&str> =
            used().filter(|(_, known)| known.schema().is_none()).map(|(name, _)| &**name).collect();
        if unknown.is_empty() {
            let schemas: Vec<_> =
                used().filter_map(|(name, known)| Some((name.clone(), Arc::clone(known.schema()?)))).collect();
            let now = used().all(|(_, known)| matches!(known, Known::Now(_)));
            match query::plan(&self.options, &schemas, Arc::default()) {
                Ok(planned) => {
                    plan.notes.extend(notes_of(&planned.plan, &self.options));
                    plan.schema = if now { Known::Now(planned.schema) } else { Known::LastRun(planned.schema) };
                }
                // The source may have changed since; refused here, a query that follows it could never run.
                Err(error) if !now => {
                    let hint = error.what_to_do().map(|hint| format!("; {hint}")).unwrap_or_default();
                    plan.warnings.push(format!("by the columns of the last run, {error}{hint}"));
                }
                Err(error) => return Err(error),
            }
        } else {
            plan.notes.push(format!(
                "the columns of {} are not known before the first rows: the query is checked then",
                unknown.join(", ")
            ));
        }
        Ok(plan)
    }

    async fn apply(&mut self, _: &Context, input: &Name, rows: RecordBatch, _: &mut dyn Output) -> Result<()> {
        if matches!(self.state, State::New) {
            self.state = State::Gathering(self.gather()?);
        }
        match &mut self.state {
            State::Running(running) => running.take(input, rows).await.map_err(|error| self.failed(error)),
            State::Gathering(gathering) => {
                if gathering.inputs.contains(input) {
                    let put = gathering.put(input, &rows, &self.options);
                    put.map_err(|error| problem::while_running(error, self.options.memory))?;
                }
                let certain = |name: &Name| match self.planned(name) {
                    Some(Known::Now(schema)) => Some(schema),
                    _ => None,
                };
                if let Some(inputs) = self.known(certain)
                    && let State::Gathering(gathering) = std::mem::replace(&mut self.state, State::Done)
                {
                    self.state = State::Running(self.run(gathering, inputs).await?);
                }
                Ok(())
            }
            State::New | State::Done => Err(Error::internal("rows after the end")),
        }
    }

    async fn finish(&mut self, _: &Context, out: &mut dyn Output) -> Result<()> {
        let mut running = match std::mem::replace(&mut self.state, State::Done) {
            State::Running(running) => running,
            State::New => {
                self.state = State::Gathering(self.gather()?);
                match self.known(|name| self.planned(name)?.schema().cloned()) {
                    Some(inputs) => self.begin(inputs).await?,
                    // Nobody gave a row or knows a column: there is nothing to ask.
                    None => return Ok(()),
                }
            }
            gathering @ State::Gathering(_) => {
                self.state = gathering;
                let Some(inputs) = self.known(|name| self.planned(name)?.schema().cloned()) else {
                    return Err(Error::data(format!("{} gave no rows, and its columns are not known", self.silent()))
                        .hint("declare `columns` at its source, or let it give a header"));
                };
                self.begin(inputs).await?
            }
            State::Done => return Err(Error::internal("a second end")),
        };
        for feed in running.feeds.values() {
            feed.end();
        }
        let mut rows = running.driver.finish().await.map_err(|error| self.failed(error))?;
        let mut given = false;
        while let Some(rows) = rows.next().await {
            let rows = bridge::batch_out(&rows.map_err(|error| self.failed(error))?, &running.schema)?;
            if rows.num_rows() > 0 {
                given = true;
                out.rows(rows).await?;
            }
        }
        if !given {
            // Whoever makes a table or a file of it learns the columns.
            out.rows(RecordBatch::new_empty(Arc::clone(&running.schema))).await?;
        }
        Ok(())
    }
}

impl Sql {
    /// The schemas of all inputs that the query reads, if there are all: as they came, or as `otherwise` has them.
    fn known(&self, otherwise: impl Fn(&Name) -> Option<SchemaRef>) -> Option<Vec<(Name, SchemaRef)>> {
        let State::Gathering(gathering) = &self.state else { return None };
        let schema = |name: &Name| {
            let came = gathering.aside.get(name).map(|aside| Arc::clone(&aside.schema));
            Some((name.clone(), came.or_else(|| otherwise(name))?))
        };
        gathering.inputs.iter().map(schema).collect()
    }
    /// The inputs that have given nothing.
    fn silent(&self) -> String {
        let State::Gathering(gathering) = &self.state else { return String::new() };
        let silent = gathering.inputs.iter().filter(|name| !gathering.aside.contains_key(*name));
        silent.map(|name| format!("input {name}")).collect::<Vec<_>>().join(", ")
    }
    async fn begin(&mut self, inputs: Vec<(Name, SchemaRef)>) -> Result<Running> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Gathering(gathering) => self.run(gathering, inputs).await,
            _ => Err(Error::internal("a query that has begun is begun anew")),
        }
    }
}

/// What a reader of the plan should know of how the query will run.
fn notes_of(plan: &Arc<dyn ExecutionPlan>, options: &SqlOptions) -> Vec<String> {
    let (mut shuffles, mut whole, mut frames) = (0, false, false);
    let mut see = |plan: &dyn ExecutionPlan| {
        shuffles += usize::from(plan.is::<ShuffleExec>());
        let collects = |join: &HashJoinExec| *join.partition_mode() == PartitionMode::CollectLeft;
        whole |= plan.is::<CrossJoinExec>()
            || plan.is::<NestedLoopJoinExec>()
            || plan.downcast_ref::<HashJoinExec>().is_some_and(collects);
        frames |= plan.is::<WindowAggExec>();
    };
    walk(plan, &mut see);
    let folder =
        options.spill.as_ref().map_or("the folder for temporary files".to_owned(), |it| it.display().to_string());
    let mut notes = vec![format!(
        "runs in {} of memory; rows wait on disk in {folder} ({shuffles} times, in up to {} parts, at most {})",
        options.memory, options.parts, options.max_spill
    )];
    if whole {
        notes.push("a join without an equality (or a `not in`) holds one of its sides in memory".to_owned());
    }
    if frames {
        notes.push("a window holds all rows of one of its partitions in memory".to_owned());
    }
    notes
}

fn walk(plan: &Arc<dyn ExecutionPlan>, see: &mut dyn FnMut(&dyn ExecutionPlan)) {
    see(plan.as_ref());
    plan.children().into_iter().for_each(|child| walk(child, see));
}
