//! A join of parts that turns from hashing to sorting where a part is too large.
//!
//! A hash join holds one side of a part in memory and cannot spill. Where one key has very many rows, splitting does not help: such a part
//! is joined by sorting both sides, which spills. The sizes are known, because the parts lie on disk; and where the reckoning was too
//! hopeful, a hash join that runs out of memory before its first row is begun anew by sorting.

use std::{fmt, sync::Arc};

use datafusion::physical_expr::expressions::Column;
use datafusion::{
    arrow::compute::SortOptions,
    common::{Result, tree_node::TreeNodeRecursion},
    error::DataFusionError,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::{LexOrdering, PhysicalExpr, PhysicalSortExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
        joins::{HashJoinExec, PartitionMode, SortMergeJoinExec},
        limit::LocalLimitExec,
        projection::{ProjectionExec, ProjectionExpr},
        sorts::sort::SortExec,
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{StreamExt as _, TryStreamExt as _};

use crate::{compact::CompactExec, shuffle::PartsExec};

/// What a hash table takes beside the rows, which it holds twice while it is built.
const PER_ROW: usize = 24;

/// A join of parts, either way.
#[derive(Debug)]
pub(crate) struct PartJoinExec {
    hash: Arc<dyn ExecutionPlan>,
    sort: Arc<dyn ExecutionPlan>,
    /// What the side held in memory may take.
    most: usize,
}

impl PartJoinExec {
    /// `None`: not a join of parts, or one that can only be done by hashing.
    pub(crate) fn over(plan: &Arc<dyn ExecutionPlan>, most: usize) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(hash) = plan.downcast_ref::<HashJoinExec>() else { return Ok(None) };
        if *hash.partition_mode() != PartitionMode::Partitioned || hash.null_aware {
            return Ok(None);
        }
        let options = SortOptions::default();
        let sorted = |side: &Arc<dyn ExecutionPlan>, key: Vec<Arc<dyn PhysicalExpr>>| {
            let order = LexOrdering::new(key.into_iter().map(|expr| PhysicalSortExpr { expr, options }))?;
            let side = if side.is::<PartsExec>() { Arc::clone(side) } else { CompactExec::over(Arc::clone(side)) };
            Some(Arc::new(SortExec::new(order, side).with_preserve_partitioning(true)) as Arc<dyn ExecutionPlan>)
        };
        let (left_key, right_key) = hash.on().iter().cloned().unzip();
        let (Some(left), Some(right)) = (sorted(hash.left(), left_key), sorted(hash.right(), right_key)) else {
            return Ok(None);
        };
        let merge = SortMergeJoinExec::try_new(
            left,
            right,
            hash.on().to_vec(),
            hash.filter().cloned(),
            *hash.join_type(),
            vec![options; hash.on().len()],
            hash.null_equality(),
        )?;
        let mut sort: Arc<dyn ExecutionPlan> = Arc::new(merge);
        if let Some(columns) = &hash.projection {
            let schema = sort.schema();
            let columns = columns.iter().map(|&at| {
                let name = schema.field(at).name();
                ProjectionExpr { expr: Arc::new(Column::new(name, at)), alias: name.clone() }
            });
            sort = Arc::new(ProjectionExec::try_new(columns.collect::<Vec<_>>(), sort)?);
        }
        if let Some(most) = hash.fetch() {
            sort = Arc::new(LocalLimitExec::new(sort, most));
        }
        Ok(Some(Arc::new(Self { hash: Arc::clone(plan), sort, most })))
    }

    fn side(&self) -> Option<&Arc<dyn ExecutionPlan>> {
        self.hash.children().into_iter().next()
    }
}

/// What of a part is below a plan, at the most: an aggregate or a filter over it gives less.
fn held(plan: &Arc<dyn ExecutionPlan>, part: usize) -> usize {
    if let Some(parts) = plan.downcast_ref::<PartsExec>() {
        let part = parts.store.parts().get(part).copied().unwrap_or_default();
        return part.bytes * 2 + part.rows * PER_ROW;
    }
    plan.children().into_iter().map(|child| held(child, part)).sum()
}

/// Whether memory ran out.
pub(crate) fn exhausted(error: &DataFusionError) -> bool {
    matches!(error.find_root(), DataFusionError::ResourcesExhausted(_))
}

impl DisplayAs for PartJoinExec {
    fn fmt_as(&self, kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartJoin: hash up to {} bytes a part, else sort; ", self.most)?;
        self.hash.fmt_as(kind, f)
    }
}

impl ExecutionPlan for PartJoinExec {
    fn name(&self) -> &'static str {
        "PartJoin"
    }
    fn properties(&self) -> &Arc<PlanProperties> {
        self.hash.properties()
    }
    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.hash.children()
    }
    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let hash = crate::rule::with_children(Arc::clone(&self.hash), children)?;
        Ok(Self::over(&hash, self.most)?.unwrap_or(hash))
    }
    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.hash.apply_expressions(f)
    }
    fn execute(&self, part: usize, ctx: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let expected = self.side().map_or(0, |side| held(side, part));
        if expected > self.most {
            tracing::debug!("part {part}: {expected} bytes are too many to hash, it is joined by sorting");
            return self.sort.execute(part, ctx);
        }
        let (hash, sort) = (Arc::clone(&self.hash), Arc::clone(&self.sort));
        let rows = async move {
            let mut rows = hash.execute(part, Arc::clone(&ctx))?;
            match rows.next().await {
                Some(Err(error)) if exhausted(&error) => {
                    drop(rows);
                    tracing::debug!("part {part}: hashing it ran out of memory, it is joined by sorting: {error}");
                    sort.execute(part, ctx)
                }
                first => {
                    let schema = hash.schema();
                    let all = futures::stream::iter(first).chain(rows);
                    Ok::<_, DataFusionError>(
                        Box::pin(RecordBatchStreamAdapter::new(schema, all)) as SendableRecordBatchStream
                    )
                }
            }
        };
        let rows = futures::stream::once(rows).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}
