//! From a query and its inputs' schemas to a plan.

use std::{collections::BTreeMap, sync::Arc};

use datafusion::{
    catalog::TableProvider,
    common::{TableReference, config::Dialect},
    execution::{
        SessionStateBuilder, TaskContext,
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        memory_pool::FairSpillPool,
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
    physical_plan::ExecutionPlan,
    prelude::{SQLOptions, SessionConfig, SessionContext},
    sql::{parser::Statement, sqlparser::ast},
};
use futures::FutureExt as _;
use towpath_core::{Error, Name, Result};

use crate::{
    bridge,
    config::SqlOptions,
    input::{Feed, InputTable},
    problem::{self, Asked, Place},
    rule::DiskShuffle,
    spill::{Disk, SpillFolder},
};

/// A query that can be run once.
pub(crate) struct Planned {
    pub(crate) plan: Arc<dyn ExecutionPlan>,
    /// The result's schema.
    pub(crate) schema: arrow_schema::SchemaRef,
    /// Where rows go in.
    pub(crate) feeds: BTreeMap<Name, Arc<Feed>>,
    pub(crate) ctx: Arc<TaskContext>,
}

/// Parses the query.
///
/// # Errors
/// Config: it is not one SELECT, or reads a table that is not an input.
pub(crate) fn parse(query: &str, inputs: Option<&[Name]>) -> Result<Statement> {
    let session = session(&SqlOptions::new(query), Arc::default());
    let state = session.state();
    let wrong = |error| problem::of(&error, &Asked { query, ..Asked::default() });
    let statement = state.sql_to_statement(query, &Dialect::Generic).map_err(wrong)?;
    if !matches!(&statement, Statement::Statement(statement) if matches!(**statement, ast::Statement::Query(_))) {
        return Err(not_a_select());
    }
    for reference in state.resolve_table_references(&statement).map_err(wrong)? {
        let (table, Some(inputs)) = (reference.table(), inputs) else { continue };
        if reference.schema().is_some() || !inputs.iter().any(|input| **input == *table) {
            return Err(problem::no_table(&reference.to_string(), Place::find(query, table), inputs));
        }
    }
    Ok(statement)
}

/// The inputs that a statement reads.
pub(crate) fn read_by(statement: &Statement) -> Result<Vec<Name>> {
    let references = session(&SqlOptions::new(""), Arc::default()).state().resolve_table_references(statement);
    let references = references.map_err(|error| problem::of(&error, &Asked::default()))?;
    Ok(references.iter().map(|reference| reference.table().into()).collect())
}

/// The room a query runs in: its memory and its disk.
pub(crate) fn runtime(options: &SqlOptions, folder: SpillFolder) -> Result<(Arc<RuntimeEnv>, Disk)> {
    let disk = DiskManagerBuilder::default()
        .with_mode(DiskManagerMode::Directories(vec![folder.path().to_owned()]))
        .with_max_temp_directory_size(options.max_spill.0)
        // Each file that is merged takes a buffer: little memory merges few at once.
        .with_max_spill_merge_fan_in(8);
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(options.memory())))
        .with_disk_manager_builder(disk)
        .build_arc()
        .map_err(|error| Error::internal("cannot set the query's limits").because(error))?;
    let disk = Disk::new(folder, options.max_spill, Arc::clone(&runtime.disk_manager));
    Ok((runtime, disk))
}

fn session(options: &SqlOptions, runtime: Arc<RuntimeEnv>) -> SessionContext {
    let mut config = SessionConfig::new().with_target_partitions(options.parts).with_batch_size(options.batch());
    let all = config.options_mut();
    // Names are as they stand in the source, which seldom are lower case.
    all.sql_parser.enable_ident_normalization = false;
    all.sql_parser.collect_spans = true;
    all.sql_parser.map_string_types_to_utf8view = false;
    // A number with a point is money more often than not.
    all.sql_parser.parse_float_as_decimal = true;
    let memory = options.memory();
    // A sort keeps this back for merging what it has spilled: a batch of each run, twice.
    all.execution.sort_spill_reservation_bytes = memory / 12;
    all.execution.sort_in_place_threshold_bytes = (memory / 64).min(1 << 20);
    // An aggregate that finds almost every key for the first time leaves it to the one behind the shuffle; it should find out soon.
    all.execution.skip_partial_aggregation_probe_rows_threshold = 20_000;
    // Rows come in by one channel per input: there is nothing to deal out.
    all.optimizer.enable_round_robin_repartition = false;
    // What a subquery gives is joined, like all else that is read; otherwise it would be looked for before it is there.
    all.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
    // They wait for every build side, and what is read part by part has one after the other.
    all.optimizer.enable_dynamic_filter_pushdown = false;
    all.optimizer.enable_join_dynamic_filter_pushdown = false;
    all.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    // Joins are of parts, whatever a statistic says: a side that is collected whole could not be laid on disk.
    all.optimizer.hash_join_single_partition_threshold = 0;
    all.optimizer.hash_join_single_partition_threshold_rows = 0;
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_default_features()
        .with_physical_optimizer_rule(Arc::new(DiskShuffle::new(options.threads())))
        .build();
    SessionContext::new_with_state(state)
}

/// Plans the query over inputs of these schemas.
///
/// # Errors
/// Config: what is wrong with the query, with line and column, or with an input's columns.
pub(crate) fn plan(
    options: &SqlOptions,
    inputs: &[(Name, arrow_schema::SchemaRef)],
    runtime: Arc<RuntimeEnv>,
) -> Result<Planned> {
    let query = &options.query;
    let names: Vec<Name> = inputs.iter().map(|(name, _)| name.clone()).collect();
    let statement = parse(query, Some(&names))?;
    let used = read_by(&statement)?;
    let session = session(options, runtime);
    let functions = functions(&session);
    let asked = Asked { query, tables: inputs, functions: &functions };
    let wrong = |error: datafusion::error::DataFusionError| problem::of(&error, &asked);
    let mut feeds = BTreeMap::new();
    for (name, schema) in inputs.iter().filter(|(name, _)| used.contains(name)) {
        let schema = bridge::schema_in(schema).map_err(|error| error.at(format!("input {name}")))?;
        let feed = Arc::new(Feed::default());
        let table: Arc<dyn TableProvider> =
            Arc::new(InputTable { name: name.clone(), schema, feed: Arc::clone(&feed) });
        session.register_table(TableReference::bare(&**name), table).map_err(wrong)?;
        feeds.insert(name.clone(), feed);
    }
    let state = session.state();
    let logical = at_once(state.statement_to_plan(statement))?.map_err(wrong)?;
    let select = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    // `select … into` makes a table.
    if select.verify_plan(&logical).is_err() {
        return Err(not_a_select());
    }
    let plan = at_once(state.create_physical_plan(&logical))?.map_err(wrong)?;
    let schema = bridge::schema_out(&plan.schema())?;
    Ok(Planned { plan, schema, feeds, ctx: session.task_ctx() })
}

fn not_a_select() -> Error {
    Error::config("query: it is not a select").hint("write one query: `select … from …`")
}

/// The names of all functions.
fn functions(session: &SessionContext) -> Vec<String> {
    let state = session.state();
    let names = state.scalar_functions().keys().chain(state.aggregate_functions().keys());
    let mut names: Vec<String> = names.chain(state.window_functions().keys()).cloned().collect();
    // Of two that are as near to a wrong one, always the same is named.
    names.sort_unstable();
    names
}

/// Planning asks nobody: its futures are done when they are first polled.
fn at_once<T>(future: impl Future<Output = T>) -> Result<T> {
    future.now_or_never().ok_or_else(|| Error::internal("a query's planning waits for something"))
}
