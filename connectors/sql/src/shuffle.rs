//! The disk shuffle's operators: what stands in a plan where rows are to be split, and what stands there once they are.

use std::{
    fmt,
    sync::Arc,
    sync::atomic::{AtomicUsize, Ordering},
};

use datafusion::{
    arrow::datatypes::SchemaRef,
    common::{Statistics, stats::Precision, tree_node::TreeNodeRecursion},
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties as _, PlanProperties,
        coop::cooperative,
        execution_plan::{Boundedness, EmissionType},
        statistics::StatisticsArgs,
        stream::{RecordBatchReceiverStream, RecordBatchStreamAdapter},
    },
};
use futures::StreamExt as _;

use crate::store::Store;

fn properties(
    equivalence: EquivalenceProperties,
    partitioning: Partitioning,
    emission: EmissionType,
) -> Arc<PlanProperties> {
    Arc::new(PlanProperties::new(equivalence, partitioning, emission, Boundedness::Bounded))
}

fn shown(key: &[Arc<dyn PhysicalExpr>]) -> String {
    key.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Rows are to be split into parts, or, without a key, only to be laid aside. The driver runs what is below it and puts a
/// [`PartsExec`] in its place; it is never executed.
#[derive(Debug)]
pub(crate) struct ShuffleExec {
    pub(crate) id: usize,
    pub(crate) input: Arc<dyn ExecutionPlan>,
    /// No key: one part.
    pub(crate) key: Vec<Arc<dyn PhysicalExpr>>,
    pub(crate) parts: usize,
    /// Reads an input, and nothing that must be complete before: filled from the first batch on.
    pub(crate) eager: bool,
    properties: Arc<PlanProperties>,
}

impl ShuffleExec {
    fn build(
        id: usize,
        input: Arc<dyn ExecutionPlan>,
        key: Vec<Arc<dyn PhysicalExpr>>,
        parts: usize,
        eager: bool,
    ) -> Arc<dyn ExecutionPlan> {
        // What one task reads in order stands in that order in every part.
        let equivalence = if input.output_partitioning().partition_count() == 1 {
            input.equivalence_properties().clone()
        } else {
            EquivalenceProperties::new(input.schema())
        };
        let partitioning = if key.is_empty() {
            Partitioning::UnknownPartitioning(parts)
        } else {
            Partitioning::Hash(key.clone(), parts)
        };
        let properties = properties(equivalence, partitioning, EmissionType::Final);
        Arc::new(Self { id, input, key, parts, eager, properties })
    }
    /// Splits rows.
    pub(crate) fn by(
        id: usize,
        input: Arc<dyn ExecutionPlan>,
        key: Vec<Arc<dyn PhysicalExpr>>,
        parts: usize,
    ) -> Arc<dyn ExecutionPlan> {
        Self::build(id, input, key, parts, false)
    }
    /// Lays an input aside until it is asked for.
    pub(crate) fn aside(id: usize, input: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
        Self::build(id, input, vec![], 1, true)
    }
    /// The same over what reads an input.
    pub(crate) fn eager(&self, input: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
        Self::build(self.id, input, self.key.clone(), self.parts, true)
    }
    /// What stands here once the rows are split.
    pub(crate) fn done(&self, store: Arc<Store>) -> Arc<dyn ExecutionPlan> {
        let (schema, properties) = (self.input.schema(), Arc::clone(&self.properties));
        Arc::new(PartsExec { schema, store, properties })
    }
}

impl DisplayAs for ShuffleExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.key.is_empty(), self.parts) {
            (true, _) => write!(f, "DiskSpool"),
            (false, parts) => write!(f, "DiskShuffle: parts={parts}, by=[{}]", shown(&self.key)),
        }
    }
}

impl ExecutionPlan for ShuffleExec {
    fn name(&self) -> &'static str {
        "DiskShuffle"
    }
    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }
    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }
    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.into_iter().next().ok_or_else(|| lost("a shuffle's input"))?;
        Ok(Self::build(self.id, input, self.key.clone(), self.parts, self.eager))
    }
    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.key.iter().try_for_each(|key| f(key).map(drop))?;
        Ok(TreeNodeRecursion::Continue)
    }
    fn execute(&self, _: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        Err(lost("a shuffle's rows"))
    }
}

fn lost(what: &str) -> DataFusionError {
    DataFusionError::Internal(format!("{what} are missing"))
}

/// Rows that have been split, part by part.
#[derive(Debug)]
pub(crate) struct PartsExec {
    schema: SchemaRef,
    pub(crate) store: Arc<Store>,
    properties: Arc<PlanProperties>,
}

impl DisplayAs for PartsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (total, parts) = (self.store.total(), self.store.parts());
        let most = parts.iter().map(|part| part.bytes).max().unwrap_or_default();
        write!(
            f,
            "Parts: {}, rows={}, bytes={}, largest={most}, on_disk={}",
            parts.len(),
            total.rows,
            total.bytes,
            self.store.spilled()
        )
    }
}

impl ExecutionPlan for PartsExec {
    fn name(&self) -> &'static str {
        "Parts"
    }
    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }
    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }
    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }
    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }
    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let of = match args.partition() {
            Some(part) => self.store.parts().get(part).copied().unwrap_or_default(),
            None => self.store.total(),
        };
        let mut statistics = Statistics::new_unknown(&self.schema);
        statistics.num_rows = Precision::Exact(of.rows);
        statistics.total_byte_size = Precision::Inexact(of.bytes);
        Ok(Arc::new(statistics))
    }
    fn execute(&self, part: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        // Reading a block never waits as far as tokio can see: say so now and then, or others starve.
        let rows = futures::stream::iter(self.store.read(part));
        Ok(Box::pin(cooperative(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))))
    }
}

/// All parts as one, a few of them at a time. DataFusion's own operator begins with all of them at once, which would need the
/// memory of all of them at once.
#[derive(Debug)]
pub(crate) struct GatherExec {
    input: Arc<dyn ExecutionPlan>,
    threads: usize,
    properties: Arc<PlanProperties>,
}

impl GatherExec {
    pub(crate) fn over(input: Arc<dyn ExecutionPlan>, threads: usize) -> Arc<dyn ExecutionPlan> {
        let equivalence = EquivalenceProperties::new(input.schema());
        let properties = properties(equivalence, Partitioning::UnknownPartitioning(1), EmissionType::Incremental);
        Arc::new(Self { input, threads, properties })
    }
}

impl DisplayAs for GatherExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gather: {} at a time", self.threads)
    }
}

impl ExecutionPlan for GatherExec {
    fn name(&self) -> &'static str {
        "Gather"
    }
    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }
    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }
    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.into_iter().next().ok_or_else(|| lost("what is to be gathered"))?;
        Ok(Self::over(input, self.threads))
    }
    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }
    fn execute(&self, _: usize, ctx: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let parts = self.input.output_partitioning().partition_count();
        let next = Arc::new(AtomicUsize::new(0));
        let mut gathered = RecordBatchReceiverStream::builder(self.schema(), 2);
        for _ in 0..self.threads.min(parts) {
            let (sender, input, ctx, next) =
                (gathered.tx(), Arc::clone(&self.input), Arc::clone(&ctx), Arc::clone(&next));
            gathered.spawn(async move {
                loop {
                    let part = next.fetch_add(1, Ordering::Relaxed);
                    if part >= parts {
                        return Ok(());
                    }
                    let mut rows = input.execute(part, Arc::clone(&ctx))?;
                    while let Some(rows) = rows.next().await {
                        if sender.send(rows).await.is_err() {
                            return Ok(());
                        }
                    }
                }
            });
        }
        Ok(gathered.build())
    }
}
