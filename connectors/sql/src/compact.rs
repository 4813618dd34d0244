//! Batches that hold on to no more memory than their own rows take.
//!
//! An aggregate makes one batch of all groups of a part and gives it in slices, and every slice counts as the whole of it: a sort behind it
//! would be out of memory with the first, or lay each of them on disk.

use std::{fmt, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array as _, RecordBatch, UInt32Array},
        compute::take_record_batch,
    },
    common::{Result, tree_node::TreeNodeRecursion},
    error::DataFusionError,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::PhysicalExpr,
    physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, stream::RecordBatchStreamAdapter},
};
use futures::StreamExt as _;

/// So much more than its rows take may a batch hold on to.
const SLACK: usize = 64 << 10;

/// Copies batches that are slices of much larger ones.
#[derive(Debug)]
pub(crate) struct CompactExec {
    input: Arc<dyn ExecutionPlan>,
}

impl CompactExec {
    pub(crate) fn over(input: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
        Arc::new(Self { input })
    }
}

fn compact(rows: RecordBatch) -> Result<RecordBatch> {
    let mut own = 0;
    for column in rows.columns() {
        own += column.to_data().get_slice_memory_size()?;
    }
    if rows.get_array_memory_size() <= 2 * own + SLACK {
        return Ok(rows);
    }
    let count = u32::try_from(rows.num_rows())
        .map_err(|_| DataFusionError::Internal("a batch has more rows than fit into 32 bits".to_owned()))?;
    Ok(take_record_batch(&rows, &UInt32Array::from_iter_values(0..count))?)
}

impl DisplayAs for CompactExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Compact")
    }
}

impl ExecutionPlan for CompactExec {
    fn name(&self) -> &'static str {
        "Compact"
    }
    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }
    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }
    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.into_iter().next();
        input
            .map(Self::over)
            .ok_or_else(|| DataFusionError::Internal("what is to be made compact is missing".to_owned()))
    }
    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }
    fn execute(&self, part: usize, ctx: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = self.input.execute(part, ctx)?.map(|rows| rows.and_then(compact));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    #[test]
    fn a_slice_lets_go_of_the_rest() {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100_000));
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..100_000).map(|n| format!("text {n}"))));
        let all = RecordBatch::try_from_iter([("n", numbers), ("t", texts)]).unwrap();
        let slice = all.slice(500, 1000);
        let copy = compact(slice.clone()).unwrap();
        assert_eq!(copy, slice);
        assert!(copy.get_array_memory_size() < 64 << 10, "{}", copy.get_array_memory_size());
        // What is whole is not copied.
        let same = compact(all.clone()).unwrap();
        assert!(same.column(0).to_data().ptr_eq(&all.column(0).to_data()));
    }
}
