//! An input as a table: what is pushed in at one end is pulled out at the other.
//!
//! A query may read an input several times (a self-join, a subquery): every place that reads it has a channel of its own. All of them are
//! drained at the same time, see [`crate::driver`], so a full channel is a matter of a moment, never of another input.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use arrow_array::RecordBatch as Ours;
use async_trait::async_trait;
use datafusion::{
    arrow::datatypes::SchemaRef,
    catalog::{Session, TableProvider},
    common::tree_node::TreeNodeRecursion,
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::{Expr, TableType},
    physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
        execution_plan::{Boundedness, EmissionType},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::StreamExt as _;
use tokio::sync::mpsc::{self, Receiver, Sender};
use towpath_core::Name;

use crate::{bridge, store::outside};

/// Batches that wait at the most: the next is made ready while one is split.
const WAITING: usize = 2;

/// The end at which an input's rows are pushed in.
#[derive(Debug, Default)]
pub(crate) struct Feed(Mutex<Vec<Sender<Ours>>>);

impl Feed {
    fn subscribe(&self) -> Receiver<Ours> {
        let (sender, receiver) = mpsc::channel(WAITING);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
    }
    /// Gives rows to every place that still wants them.
    pub(crate) async fn send(&self, rows: Ours) {
        let senders = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for sender in senders {
            // A place that has enough (a limit) or has failed is gone; a failure is heard of elsewhere.
            let _ = sender.send(rows.clone()).await;
        }
    }
    /// There are no more rows.
    pub(crate) fn end(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// An input, for the planner.
#[derive(Debug)]
pub(crate) struct InputTable {
    pub(crate) name: Name,
    pub(crate) schema: SchemaRef,
    pub(crate) feed: Arc<Feed>,
}

#[async_trait]
impl TableProvider for InputTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
    fn table_type(&self) -> TableType {
        TableType::Base
    }
    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let columns = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let schema = Arc::new(self.schema.project(&columns)?);
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        ));
        let rows = Mutex::new(Some(self.feed.subscribe()));
        Ok(Arc::new(InputExec { name: self.name.clone(), schema, columns, rows, properties }))
    }
}

/// One place of a query that reads an input. Can be executed once.
pub(crate) struct InputExec {
    name: Name,
    schema: SchemaRef,
    /// Those of the input's columns that are read.
    columns: Vec<usize>,
    rows: Mutex<Option<Receiver<Ours>>>,
    properties: Arc<PlanProperties>,
}

impl fmt::Debug for InputExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InputExec({})", self.name)
    }
}

impl DisplayAs for InputExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<&str> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(f, "Input: {} [{}]", self.name, columns.join(", "))
    }
}

impl ExecutionPlan for InputExec {
    fn name(&self) -> &'static str {
        "Input"
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
    fn execute(&self, _: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut rows =
            rows.ok_or_else(|| DataFusionError::Internal(format!("input {} is read a second time", self.name)))?;
        let (name, columns, schema) = (self.name.clone(), self.columns.clone(), Arc::clone(&self.schema));
        let batches = futures::stream::poll_fn(move |cx| rows.poll_recv(cx)).map(move |rows| {
            bridge::batch_in(&rows, &columns, &schema).map_err(|error| outside(error.at(format!("input {name}"))))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches)))
    }
}
