//! Runs a plan in stages.
//!
//! While inputs stream, the shuffles (and spools) right above them are filled, each by a task of its own, so every input is always
//! taken. When they have ended, the shuffles above are filled one after the other, from the bottom up, several parts at a time. Each
//! stage begins with the sizes of what it reads known: the smaller side of a join is the one held in memory, and parts too large for
//! that are sorted instead. What a stage has read is removed from disk when it is done.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use datafusion::{
    common::tree_node::{Transformed, TreeNode as _, TreeNodeRecursion},
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext, memory_pool::MemoryConsumer},
    physical_optimizer::{PhysicalOptimizerRule as _, join_selection::JoinSelection},
    physical_plan::{ExecutionPlan, ExecutionPlanProperties as _, displayable},
};
use futures::StreamExt as _;
use tokio::task::{JoinHandle, JoinSet};

use crate::{
    config::SqlOptions,
    join::PartJoinExec,
    shuffle::ShuffleExec,
    spill::Disk,
    store::{Collector, Store, Writer},
};

/// A plan being run. Everything it has started ends when it is dropped.
pub(crate) struct Driver {
    plan: Arc<dyn ExecutionPlan>,
    ctx: Arc<TaskContext>,
    disk: Disk,
    options: SqlOptions,
    /// Shuffles being filled while inputs stream, by their id.
    eager: BTreeMap<usize, Filling>,
}

/// A task that is aborted when nobody waits for it any more.
struct Filling(JoinHandle<Result<Arc<Store>>>);

impl Drop for Filling {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// More than this at once makes no disk quicker.
const MOST_AT_ONCE: usize = 8 << 20;

/// Shares of the memory, in bytes. What is left is for sorts and aggregates.
impl SqlOptions {
    /// What each of so many writers gathers before it writes.
    pub(crate) fn to_gather(&self, writers: usize) -> usize {
        self.narrow.gather.unwrap_or_else(|| (self.memory() / 4 / writers.max(1)).min(MOST_AT_ONCE))
    }
    /// What the side of a join may take that is held in memory, for one part.
    fn to_hash(&self) -> usize {
        self.narrow.hash.unwrap_or_else(|| self.memory() / 2 / self.threads())
    }
}

impl Driver {
    /// Begins to take the inputs in.
    pub(crate) fn start(plan: Arc<dyn ExecutionPlan>, ctx: Arc<TaskContext>, disk: Disk, options: SqlOptions) -> Self {
        tracing::debug!("the query's plan:\n{}", displayable(plan.as_ref()).indent(false));
        let mut shuffles = vec![];
        find(&plan, &mut |shuffle| shuffle.eager.then(|| shuffles.push(shuffle.filling())).is_some());
        let mut driver = Self { plan, ctx, disk, options, eager: BTreeMap::new() };
        let room = driver.options.to_gather(shuffles.len());
        for shuffle in shuffles {
            let id = shuffle.id;
            driver.eager.insert(id, Filling(tokio::spawn(driver.fill(shuffle, room))));
        }
        driver
    }

    /// What has failed so far, if anything.
    pub(crate) async fn failure(&mut self) -> Option<DataFusionError> {
        let failed = self.eager.iter().find(|(_, filling)| filling.0.is_finished()).map(|(id, _)| *id)?;
        let mut filling = self.eager.remove(&failed)?;
        match joined((&mut filling.0).await) {
            Err(error) => Some(error),
            // A limit has been reached: what is there is all that is wanted.
            Ok(store) => self.put(failed, &store).err(),
        }
    }

    /// All inputs have ended: runs the rest and gives the result as it comes.
    pub(crate) async fn finish(&mut self) -> Result<SendableRecordBatchStream> {
        while let Some((id, mut filling)) = self.eager.pop_first() {
            let store = joined((&mut filling.0).await)?;
            self.put(id, &store)?;
        }
        // The inputs' last rows are still in memory.
        let room = self.options.to_gather(2 * self.options.threads());
        loop {
            // The lowest: nothing below it is left to be split.
            let mut lowest = None;
            find(&self.plan, &mut |shuffle| {
                if lowest.is_none() {
                    lowest = Some(shuffle.filling());
                }
                true
            });
            let Some(mut shuffle) = lowest else { break };
            shuffle.input = self.ready(Arc::clone(&shuffle.input))?;
            tracing::debug!("the query's next stage:\n{}", displayable(shuffle.input.as_ref()).indent(false));
            let id = shuffle.id;
            let store = self.fill(shuffle, room).await?;
            self.put(id, &store)?;
        }
        self.plan = self.ready(Arc::clone(&self.plan))?;
        tracing::debug!("the query's last stage:\n{}", displayable(self.plan.as_ref()).indent(false));
        self.plan.execute(0, Arc::clone(&self.ctx))
    }

    /// Joins as they are best, now that the sizes are known.
    fn ready(&self, plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = JoinSelection::new().optimize(plan, self.ctx.session_config().options())?;
        let most = self.options.to_hash();
        let joins = plan.transform_up(|plan| {
            let join = PartJoinExec::over(&plan, most)?;
            Ok(join.map_or_else(|| Transformed::no(plan), Transformed::yes))
        })?;
        Ok(joins.data)
    }

    /// Puts what has been split in the place of its shuffle.
    fn put(&mut self, id: usize, store: &Arc<Store>) -> Result<()> {
        let plan = Arc::clone(&self.plan).transform_down(|plan| match plan.downcast_ref::<ShuffleExec>() {
            Some(shuffle) if shuffle.id == id => {
                Ok(Transformed::new(shuffle.done(Arc::clone(store)), true, TreeNodeRecursion::Stop))
            }
            _ => Ok(Transformed::no(plan)),
        })?;
        self.plan = plan.data;
        Ok(())
    }

    /// Runs what is below a shuffle and splits what comes of it.
    fn fill(&self, shuffle: ToFill, room: usize) -> impl Future<Output = Result<Arc<Store>>> + Send + use<> {
        let (ctx, disk, threads) = (Arc::clone(&self.ctx), self.disk.clone(), self.options.threads());
        async move {
            let ToFill { input, key, parts, .. } = shuffle;
            let partitions = input.output_partitioning().partition_count();
            let (next, collector) = (Arc::new(AtomicUsize::new(0)), Arc::new(Collector::new(parts)));
            let mut tasks = JoinSet::new();
            for _ in 0..threads.min(partitions) {
                let reserved = MemoryConsumer::new("disk shuffle").register(ctx.memory_pool());
                let mut writer = Writer::new(input.schema(), key.clone(), parts, room, reserved, disk.clone())?;
                let (next, input, ctx, collector) =
                    (Arc::clone(&next), Arc::clone(&input), Arc::clone(&ctx), Arc::clone(&collector));
                tasks.spawn(async move {
                    loop {
                        let partition = next.fetch_add(1, Ordering::Relaxed);
                        if partition >= partitions {
                            return writer.finish(&collector);
                        }
                        let mut rows = input.execute(partition, Arc::clone(&ctx))?;
                        while let Some(rows) = rows.next().await {
                            writer.push(rows?)?;
                            tokio::task::consume_budget().await;
                        }
                    }
                });
            }
            while let Some(task) = tasks.join_next().await {
                joined(task)?;
            }
            let collector = Arc::into_inner(collector);
            let collector =
                collector.ok_or_else(|| DataFusionError::Internal("a writer is still at work".to_owned()))?;
            Ok(Arc::new(collector.into_store()))
        }
    }
}

fn joined<T>(outcome: Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    outcome.map_err(|error| DataFusionError::ExecutionJoin(Box::new(error)))?
}

/// A shuffle, detached from its plan.
struct ToFill {
    id: usize,
    input: Arc<dyn ExecutionPlan>,
    key: Vec<Arc<dyn datafusion::physical_expr::PhysicalExpr>>,
    parts: usize,
}

impl ShuffleExec {
    fn filling(&self) -> ToFill {
        ToFill { id: self.id, input: Arc::clone(&self.input), key: self.key.clone(), parts: self.parts }
    }
}

/// Shows all shuffles to `see`, those below before those above.
fn find(plan: &Arc<dyn ExecutionPlan>, see: &mut dyn FnMut(&ShuffleExec) -> bool) {
    for child in plan.children() {
        find(child, see);
    }
    if let Some(shuffle) = plan.downcast_ref::<ShuffleExec>() {
        see(shuffle);
    }
}
