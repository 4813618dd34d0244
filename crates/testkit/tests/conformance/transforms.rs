//! Broken transforms.

use std::{collections::BTreeSet, sync::Arc};

use arrow_array::{Array as _, BooleanArray, RecordBatch, StringArray};
use arrow_schema::DataType;
use async_trait::async_trait;
use towpath_core::{Context, Error, Known, Name, Output, Reject, Result, Transform, TransformPlan};
use towpath_testkit::{
    conformance::{self, TransformUnderTest, transform_report},
    rows,
};

use crate::{finds, passes};

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Defect {
    Sound,
    /// Nothing wrong with it: gives all rows at the end, and says so.
    Holds,
    /// Nothing wrong with it: remembers ids, and says so.
    Remembers,
    PlansByTheClock,
    PlansAnotherSchema,
    PlansAnything,
    NeedsASchema,
    LosesARow,
    CannotDoWithoutRows,
    CountsRejectsOverAllBatches,
    DropsTheFirstOfEachBatch,
    HoldsInSecret,
    RemembersInSecret,
    DoesNotHear,
    SharesWhatItDropped,
    PanicsAtOddSchemas,
}

use Defect::*;

const DEFECTS: &[(Defect, &str)] = &[
    (PlansByTheClock, "plan_is_the_same_each_time"),
    (PlansAnotherSchema, "plan_tells_the_schema"),
    (PlansAnything, "a_missing_column_is_a_config_error"),
    (NeedsASchema, "plan_without_a_schema"),
    (LosesARow, "what_is_expected_comes_out"),
    (CannotDoWithoutRows, "a_batch_may_be_empty"),
    (CountsRejectsOverAllBatches, "rejects_are_of_the_batch_in_hand"),
    (DropsTheFirstOfEachBatch, "where_batches_end_makes_no_difference"),
    (HoldsInSecret, "only_who_holds_gives_rows_at_the_end"),
    (RemembersInSecret, "only_who_remembers_needs_one_worker"),
    (DoesNotHear, "the_stages_behind_are_heard"),
    (SharesWhatItDropped, "a_dropped_apply_does_no_harm"),
    (PanicsAtOddSchemas, "odd_schemas_do_no_harm"),
];

/// Lets rows pass that have a name; those named `bad` are refused.
struct Named {
    defect: Defect,
    /// Counts its instances and plans, for those that behave by it.
    clock: &'static std::sync::atomic::AtomicU64,
    seen: BTreeSet<String>,
    held: Vec<RecordBatch>,
    rows: usize,
}

impl Named {
    fn pass(&mut self, rows: &RecordBatch, out: &mut dyn Output) -> Result<RecordBatch> {
        let column = rows.column_by_name("name").ok_or_else(|| Error::config("the column 'name' is missing"))?;
        let text = arrow_cast::cast(column, &DataType::Utf8).map_err(|error| Error::data(error.to_string()))?;
        let Some(text) = text.as_any().downcast_ref::<StringArray>() else { return Err(Error::data("no text")) };
        let mut keep = vec![];
        for row in 0..rows.num_rows() {
            let bad = text.is_valid(row) && text.value(row) == "bad";
            if bad {
                let over_all = self.defect == CountsRejectsOverAllBatches;
                out.reject(Reject::row(if over_all { self.rows + row } else { row }, "it is bad").column("name"));
            }
            let key = rows::lines(&rows.slice(row, 1)).concat();
            let remembers = matches!(self.defect, Remembers | RemembersInSecret);
            let fresh = !remembers || self.seen.insert(key);
            let dropped = match self.defect {
                DropsTheFirstOfEachBatch => row == 0,
                LosesARow => self.rows + row == 6,
                _ => false,
            };
            keep.push(text.is_valid(row) && !bad && fresh && !dropped);
        }
        self.rows += rows.num_rows();
        arrow_select::filter::filter_record_batch(rows, &BooleanArray::from(keep))
            .map_err(|error| Error::data(error.to_string()))
    }
}

#[async_trait]
impl Transform for Named {
    fn plan(&self, inputs: &[(Name, Known)]) -> Result<TransformPlan> {
        let mut schema = inputs.first().map_or(Known::No, |(_, known)| known.clone());
        let missing = schema.schema().is_some_and(|schema| schema.column_with_name("name").is_none());
        if missing && !matches!(self.defect, PlansAnything | PanicsAtOddSchemas) {
            return Err(Error::config("the column 'name' is not in the input"));
        }
        if self.defect == NeedsASchema && schema == Known::No {
            return Err(Error::config("the schema must be known"));
        }
        if self.defect == PlansAnotherSchema {
            schema = Known::Now(rows::noted([1]).schema());
        }
        let tick = self.clock.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let notes = if self.defect == PlansByTheClock { vec![format!("plan {tick}")] } else { vec![] };
        Ok(TransformPlan {
            schema,
            holds: self.defect == Holds,
            stateful: self.defect == Remembers,
            notes,
            warnings: vec![],
        })
    }

    async fn apply(&mut self, _: &Context, _: &Name, rows: RecordBatch, out: &mut dyn Output) -> Result<()> {
        match self.defect {
            CannotDoWithoutRows if rows.num_rows() == 0 => return Err(Error::data("no rows")),
            PanicsAtOddSchemas => assert!(rows.column_by_name("name").is_some(), "where is it?"),
            SharesWhatItDropped => {
                // Taken before the await, and not given back when that is dropped.
                let before = self.clock.fetch_or(1 << 40, std::sync::atomic::Ordering::Relaxed);
                out.rows(rows.slice(0, 0)).await?;
                if before & (1 << 40) != 0 {
                    return Err(Error::internal("another call is under way"));
                }
                self.clock.fetch_and(!(1 << 40), std::sync::atomic::Ordering::Relaxed);
            }
            _ => {}
        }
        let rows = self.pass(&rows, out)?;
        match self.defect {
            Holds | HoldsInSecret => self.held.push(rows),
            DoesNotHear => drop(out.rows(rows).await),
            _ if rows.num_rows() > 0 => out.rows(rows).await?,
            _ => {}
        }
        Ok(())
    }

    async fn finish(&mut self, _: &Context, out: &mut dyn Output) -> Result<()> {
        for rows in self.held.drain(..) {
            out.rows(rows).await?;
        }
        Ok(())
    }
}

fn under_test(defect: Defect) -> TransformUnderTest {
    let name = |id: i64| match id % 7 {
        0 => None,
        3 => Some("bad"),
        _ => Some("good"),
    };
    let of = |ids: Vec<i64>| rows::named(&ids.into_iter().map(|id| (id, name(id))).collect::<Vec<_>>());
    let given: Vec<i64> = (0..40).collect();
    let passed = given.iter().copied().filter(|id| name(*id) == Some("good")).collect();
    let clock: &'static std::sync::atomic::AtomicU64 = Box::leak(Box::default());
    let make = move || {
        let named = Named { defect, clock, seen: BTreeSet::new(), held: vec![], rows: 0 };
        Box::new(named) as Box<dyn Transform>
    };
    let test = TransformUnderTest::new(&format!("{defect:?}"), make);
    let schema = Arc::clone(&of(vec![1]).schema());
    assert_eq!(schema, rows::schema());
    test.input("rows", of(given)).expect(of(passed)).needs("rows", "name")
}

#[tokio::test]
async fn transforms_that_do_as_they_say_pass() {
    for (defect, cases) in [(Sound, 13), (Holds, 12), (Remembers, 12)] {
        passes(transform_report(&under_test(defect)).await, cases);
    }
}

#[tokio::test]
async fn each_defect_is_found_by_its_case() {
    for (defect, case) in DEFECTS {
        finds(&transform_report(&under_test(*defect).only(case)).await, case);
    }
}

#[test]
fn each_case_is_known_to_find_something() {
    let proven: BTreeSet<_> = DEFECTS.iter().map(|(_, case)| *case).collect();
    let unproven: Vec<_> = conformance::transform_cases().into_iter().filter(|case| !proven.contains(case)).collect();
    assert!(unproven.is_empty(), "no broken transform shows that these can fail: {unproven:?}");
}
