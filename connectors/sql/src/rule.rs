//! Where the disk shuffle goes into a plan: a rule of the physical optimizer, the last one.
//!
//! DataFusion plans joins and aggregates over rows that are split by their key into as many partitions as there are to be parts. The
//! rule
//!
//! * splits them on disk instead of in memory, so that a join or an aggregate works part by part: a grace hash join;
//! * puts a spool over every input that no shuffle takes in (the sides of a cross join, a sort): whatever comes can then be laid
//!   aside at once, and no input ever waits for another;
//! * gathers parts a few at a time.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use datafusion::{
    common::tree_node::{Transformed, TreeNode as _},
    config::ConfigOptions,
    error::Result,
    physical_expr::Partitioning,
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        ExecutionPlan, ExecutionPlanProperties as _,
        aggregates::AggregateExec,
        coalesce_partitions::CoalescePartitionsExec,
        coop::CooperativeExec,
        filter::FilterExec,
        limit::{GlobalLimitExec, LocalLimitExec},
        projection::ProjectionExec,
        repartition::RepartitionExec,
        sorts::{sort::SortExec, sort_preserving_merge::SortPreservingMergeExec},
    },
};

use crate::{
    input::InputExec,
    shuffle::{GatherExec, ShuffleExec},
};

/// The rule.
#[derive(Debug)]
pub(crate) struct DiskShuffle {
    threads: usize,
    ids: AtomicUsize,
}

impl DiskShuffle {
    pub(crate) fn new(threads: usize) -> Self {
        Self { threads, ids: AtomicUsize::new(0) }
    }
    fn id(&self) -> usize {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// One operator of DataFusion's by those of ours.
    fn replace(&self, plan: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
        if let Some(repartition) = plan.downcast_ref::<RepartitionExec>()
            && let Partitioning::Hash(key, parts) = repartition.partitioning()
        {
            let input = Arc::clone(repartition.input());
            let merges = repartition.preserve_order() && input.output_partitioning().partition_count() > 1;
            let shuffle = ShuffleExec::by(self.id(), input, key.clone(), *parts);
            // Several tasks write, so the order is made anew.
            return Ok(Transformed::yes(match plan.output_ordering() {
                Some(order) if merges => {
                    Arc::new(SortExec::new(order.clone(), shuffle).with_preserve_partitioning(true))
                }
                _ => shuffle,
            }));
        }
        if let Some(all) = plan.downcast_ref::<CoalescePartitionsExec>() {
            let gathered = GatherExec::over(Arc::clone(all.input()), self.threads);
            return Ok(Transformed::yes(match all.fetch() {
                Some(most) => Arc::new(GlobalLimitExec::new(gathered, 0, Some(most))),
                None => gathered,
            }));
        }
        if let Some(merge) = plan.downcast_ref::<SortPreservingMergeExec>()
            && merge.input().output_partitioning().partition_count() > 1
        {
            // A merge reads all parts at once. A sort that keeps only the first rows of each part is worth having all the same.
            let below = merge.input().downcast_ref::<LocalLimitExec>().map_or(merge.input(), |limit| limit.input());
            let whole = below.downcast_ref::<SortExec>().filter(|sort| sort.fetch().is_none());
            let input = Arc::clone(whole.map_or(merge.input(), |sort| sort.input()));
            let sort = SortExec::new(merge.expr().clone(), GatherExec::over(input, self.threads));
            return Ok(Transformed::yes(first_of(sort.with_fetch(merge.fetch()))));
        }
        if let Some(sort) = plan.downcast_ref::<SortExec>()
            && sort.fetch().is_some_and(|most| most > FIRST_ROWS)
        {
            return Ok(Transformed::yes(first_of(sort.clone())));
        }
        Ok(Transformed::no(plan))
    }

    /// Puts spools where they are missing. True: what comes out still runs with an input's own speed.
    fn lay_aside(&self, plan: Arc<dyn ExecutionPlan>) -> Result<(Arc<dyn ExecutionPlan>, bool)> {
        if plan.is::<InputExec>() {
            return Ok((plan, true));
        }
        let streams = plan.is::<FilterExec>()
            || plan.is::<ProjectionExec>()
            || plan.is::<AggregateExec>()
            || plan.is::<CooperativeExec>()
            || plan.is::<LocalLimitExec>()
            || plan.is::<GlobalLimitExec>();
        let (mut children, mut live) = (vec![], false);
        for child in plan.children() {
            let (child, open) = self.lay_aside(Arc::clone(child))?;
            live |= open && streams;
            if let (true, Some(shuffle)) = (open, plan.downcast_ref::<ShuffleExec>()) {
                return Ok((shuffle.eager(child), false));
            }
            children.push(if open && !streams { ShuffleExec::aside(self.id(), child) } else { child });
        }
        let plan = if children.is_empty() { plan } else { with_children(plan, children)? };
        Ok((plan, live))
    }
}

/// So many first rows may be held in memory while the rest goes by.
const FIRST_ROWS: usize = 10_000;

/// A sort that keeps its first rows only holds them in memory and cannot spill. Where they are many, all are sorted, and the first ones taken.
fn first_of(sort: SortExec) -> Arc<dyn ExecutionPlan> {
    match sort.fetch() {
        Some(most) if most > FIRST_ROWS => {
            let parts = sort.preserve_partitioning();
            let whole = Arc::new(sort.with_fetch(None));
            if parts {
                Arc::new(LocalLimitExec::new(whole, most))
            } else {
                Arc::new(GlobalLimitExec::new(whole, 0, Some(most)))
            }
        }
        _ => Arc::new(sort),
    }
}

/// The same operator over other children.
pub(crate) fn with_children(
    plan: Arc<dyn ExecutionPlan>,
    children: Vec<Arc<dyn ExecutionPlan>>,
) -> Result<Arc<dyn ExecutionPlan>> {
    datafusion::physical_plan::replace_children_if_necessary(plan, children)
}

impl PhysicalOptimizerRule for DiskShuffle {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = plan.transform_up(|plan| self.replace(plan))?.data;
        let (plan, live) = self.lay_aside(plan)?;
        let plan = if live { ShuffleExec::aside(self.id(), plan) } else { plan };
        // The end of it is read as one.
        Ok(if plan.output_partitioning().partition_count() > 1 { GatherExec::over(plan, self.threads) } else { plan })
    }
    fn name(&self) -> &'static str {
        "disk_shuffle"
    }
    fn schema_check(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use arrow_schema::{DataType, Field, Schema};
    use datafusion::physical_plan::displayable;

    use crate::{config::SqlOptions, query};

    /// Where the rule puts what, for each kind of plan.
    #[test]
    fn every_input_runs_into_a_shuffle_or_a_spool() {
        let table = |name: &str| {
            let columns = [("k", DataType::Int64), ("s", DataType::Utf8), ("n", DataType::Decimal128(12, 2))];
            let columns = columns.map(|(name, kind)| Field::new(name, kind, true)).to_vec();
            (name.into(), Schema::new(columns).into())
        };
        let inputs = [table("a"), table("b"), table("c")];
        let mut shown = String::new();
        for query in [
            "select k from a where n > 1",
            "select s, sum(n) as n from a group by s",
            "select sum(n) as n from a",
            "select a.k, b.s from a join b on a.k = b.k",
            "select a.k, sum(c.n) as n from a join b on a.k = b.k left join c on c.s = b.s group by a.k order by a.k limit 5",
            "select a.k from a where k not in (select k from b)",
            "select a.k, b.k as other from a join b on a.n < b.n",
            "select k, row_number() over (partition by s order by n) as nth from a",
            "select k from a union all select k from b",
            "select x.k from a x join a y on x.k = y.k where x.n > (select max(n) from a)",
            "select k from a order by n desc limit 3",
            "select k from a group by k order by k limit 30000",
        ] {
            let options = SqlOptions { threads: Some(2), ..SqlOptions::new(query) };
            let planned = query::plan(&options, &inputs, std::sync::Arc::default()).unwrap();
            shown += &format!("{query}\n{}\n", displayable(planned.plan.as_ref()).indent(false));
        }
        insta::assert_snapshot!(shown);
    }
}
