//! Broken sinks.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use arrow_array::{RecordBatch, UInt32Array};
use arrow_schema::{DataType, SchemaRef};
use async_trait::async_trait;
use towpath_core::{
    Call, Checkpoint, Context, Effect, Error, Held, Known, Reject, Result, Run, Sink, SinkPlan, WriteMode, Wrote,
};
use towpath_testkit::{
    conformance::{self, Comes, Report, Setup, SinkQuirks, SinkTarget, SinkUnderTest, TypeQuirk, sink_report},
    memory::{Key, MemorySink, MemoryTarget},
    rows,
};

use crate::{finds, passes};

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Defect {
    Sound,
    /// Refuses in `flush` what others refuse in `write`. Nothing wrong with that.
    RefusesLate,
    PlanWrites,
    PlanReads,
    PlanLies,
    ShowsItsSecret,
    InventsCheckpoint,
    ForgetsCheckpoint,
    OneCheckpointForAll,
    SkipsEmptyEpochs,
    CheckpointOutlivesTable,
    NamesNoKeys,
    LosesTurnedColumns,
    LosesNewColumns,
    OneBadRowCostsItsBatch,
    OneBadRowIsAnError,
    RefusesInCommit,
    ManyBadRowsAreAnError,
    EmptyBatchIsAnError,
    StopsAt8192,
    TrimsText,
    NeedsItsColumns,
    CannotCloseEarly,
    WritesAtOnce,
    CommitsOnClose,
    KeepsOnlyTheLastWrite,
    AppendsUnlikeRows,
    OverwritesKnownRows,
    HashesTheIdOnly,
    LeavesOldRows,
    FirstOneWins,
    SwapsAtEachCommit,
    KeepsOldRowsWithoutNew,
    ForgetsItsStaging,
    KeepsStagingOfOthers,
    PublishesOnce,
    Doubles,
    HasNoFence,
    CommitsInTwoSteps,
    TakesInt64AsFloat,
    EmptyIsNull,
}

use Defect::*;

/// Each defect, the setup it shows in, the case that must find it.
const DEFECTS: &[(Defect, WriteMode, Key, &str)] = &[
    (PlanWrites, WriteMode::Append, Key::None, "plan_changes_nothing"),
    (PlanReads, WriteMode::Append, Key::None, "plan_changes_nothing"),
    (PlanLies, WriteMode::InsertNew, Key::RowHash, "plan_is_true"),
    (ShowsItsSecret, WriteMode::Append, Key::None, "secrets_do_not_show"),
    (InventsCheckpoint, WriteMode::Append, Key::None, "at_first_there_is_no_checkpoint"),
    (ForgetsCheckpoint, WriteMode::Append, Key::None, "a_checkpoint_comes_back_as_it_was"),
    (OneCheckpointForAll, WriteMode::Append, Key::None, "a_checkpoint_is_of_its_pipeline_and_component"),
    (SkipsEmptyEpochs, WriteMode::Append, Key::None, "an_epoch_without_rows_stores_its_checkpoint"),
    (CheckpointOutlivesTable, WriteMode::Append, Key::None, "a_target_made_anew_has_no_checkpoint"),
    (NamesNoKeys, WriteMode::InsertNew, Key::RowHash, "keys_are_named"),
    (LosesTurnedColumns, WriteMode::Append, Key::None, "columns_go_by_name"),
    (LosesNewColumns, WriteMode::Append, Key::None, "a_new_column_is_stored_or_refused"),
    (OneBadRowCostsItsBatch, WriteMode::Append, Key::None, "a_bad_row_costs_one_row"),
    (OneBadRowIsAnError, WriteMode::Append, Key::None, "a_bad_row_costs_one_row"),
    (RefusesInCommit, WriteMode::Append, Key::None, "a_bad_row_costs_one_row"),
    (ManyBadRowsAreAnError, WriteMode::Append, Key::None, "a_batch_of_bad_rows_costs_only_itself"),
    (EmptyBatchIsAnError, WriteMode::Append, Key::None, "nothing_but_empty_batches"),
    (StopsAt8192, WriteMode::Append, Key::None, "large_batches_and_values_arrive_whole"),
    (TrimsText, WriteMode::Append, Key::None, "texts_arrive_as_they_are"),
    (NeedsItsColumns, WriteMode::Append, Key::None, "odd_schemas_do_no_harm"),
    (CannotCloseEarly, WriteMode::Append, Key::None, "closing_at_any_time"),
    (WritesAtOnce, WriteMode::Append, Key::None, "uncommitted_rows_are_not_seen"),
    (WritesAtOnce, WriteMode::Append, Key::None, "a_write_that_is_dropped_leaves_nothing"),
    (CommitsOnClose, WriteMode::Append, Key::None, "uncommitted_rows_vanish"),
    (KeepsOnlyTheLastWrite, WriteMode::Append, Key::None, "epochs_add_up"),
    (AppendsUnlikeRows, WriteMode::Append, Key::None, "append_adds_every_row"),
    (OverwritesKnownRows, WriteMode::InsertNew, Key::None, "insert_new_leaves_known_rows_alone"),
    (HashesTheIdOnly, WriteMode::InsertNew, Key::RowHash, "a_row_hash_tells_rows_apart"),
    (LeavesOldRows, WriteMode::Upsert, Key::None, "upsert_replaces"),
    (FirstOneWins, WriteMode::Upsert, Key::None, "of_several_the_last_one_wins"),
    (SwapsAtEachCommit, WriteMode::Replace, Key::None, "replace_swaps_at_the_end_only"),
    (KeepsOldRowsWithoutNew, WriteMode::Replace, Key::None, "replace_by_nothing_leaves_nothing"),
    (ForgetsItsStaging, WriteMode::Replace, Key::None, "replace_goes_on_where_its_run_stood"),
    (KeepsStagingOfOthers, WriteMode::Replace, Key::None, "what_another_run_staged_is_thrown_away"),
    (PublishesOnce, WriteMode::Upsert, Key::None, "an_epoch_can_be_published_early"),
    (Doubles, WriteMode::InsertNew, Key::RowHash, "the_same_rows_again_are_harmless"),
    (HasNoFence, WriteMode::Append, Key::None, "a_late_commit_changes_nothing"),
    (HasNoFence, WriteMode::Append, Key::None, "a_commit_behind_another_changes_nothing"),
    (HasNoFence, WriteMode::Append, Key::None, "who_lost_the_target_cannot_write_on"),
    (CommitsInTwoSteps, WriteMode::Append, Key::None, "a_commit_that_is_dropped_is_whole_or_nothing"),
    (CommitsInTwoSteps, WriteMode::Append, Key::None, "any_schedule_of_crashes_is_exact"),
    (HasNoFence, WriteMode::Append, Key::None, "of_two_that_open_at_once_one_owns_it"),
    (HasNoFence, WriteMode::Append, Key::None, "any_schedule_of_crashes_is_exact"),
];

static INSTANCES: AtomicUsize = AtomicUsize::new(0);

/// A target in memory, whose sinks have a defect.
struct Target {
    target: MemoryTarget,
    defect: Defect,
    refuses: Mutex<bool>,
}

impl Target {
    fn new(defect: Defect) -> Self {
        let target = MemoryTarget::new();
        if defect == HasNoFence {
            target.without_fence();
        }
        Self { target, defect, refuses: Mutex::new(false) }
    }
}

#[async_trait(?Send)]
impl SinkTarget for Target {
    fn sink(&self, setup: &Setup) -> Box<dyn Sink> {
        let (mode, key) = match self.defect {
            AppendsUnlikeRows => (WriteMode::InsertNew, Key::RowHash),
            OverwritesKnownRows => (WriteMode::Upsert, setup.key.clone()),
            HashesTheIdOnly => (WriteMode::InsertNew, Key::columns(["id"])),
            LeavesOldRows => (WriteMode::InsertNew, setup.key.clone()),
            Doubles => (WriteMode::Append, Key::None),
            _ => (setup.mode, setup.key.clone()),
        };
        Box::new(Broken {
            inner: self.target.sink(mode, key),
            target: self.target.clone(),
            mode: setup.mode,
            defect: self.defect,
            first: None,
            rows: vec![],
            epoch: 0,
            instance: INSTANCES.fetch_add(1, Ordering::Relaxed),
            refuses: *self.refuses.lock().unwrap(),
            wrote: false,
        })
    }
    async fn rows(&self) -> Option<Vec<RecordBatch>> {
        self.target.rows()
    }
    async fn refuse(&self, _: &Setup, name: &str) -> bool {
        *self.refuses.lock().unwrap() = true;
        match self.defect {
            RefusesLate => self.target.refuse_in_flush("name", name),
            RefusesInCommit => {}
            _ => self.target.refuse_in_write("name", name),
        }
        true
    }
    async fn drop_table(&self) -> bool {
        if self.defect == CheckpointOutlivesTable {
            self.target.truncate()
        } else {
            self.target.drop_table()
        }
        true
    }
}

struct Broken {
    inner: MemorySink,
    target: MemoryTarget,
    mode: WriteMode,
    defect: Defect,
    first: Option<SchemaRef>,
    /// Held back by some defects.
    rows: Vec<RecordBatch>,
    epoch: u64,
    instance: usize,
    refuses: bool,
    wrote: bool,
}

impl Broken {
    fn run(&self, run: &Run) -> Run {
        let id = match self.defect {
            KeepsStagingOfOthers => "always".into(),
            ForgetsItsStaging => format!("instance {}", self.instance).into(),
            _ => Arc::clone(&run.id),
        };
        Run { id, ..run.clone() }
    }

    /// What a defect makes of a batch.
    fn spoil(&self, rows: RecordBatch) -> RecordBatch {
        let first = self.first.as_ref().unwrap();
        match self.defect {
            LosesTurnedColumns if rows.schema().field(0) != first.field(0) => rows.project(&[1]).unwrap(),
            LosesNewColumns => {
                rows.project(&(0..first.fields().len().min(rows.num_columns())).collect::<Vec<_>>()).unwrap()
            }
            StopsAt8192 => rows.slice(0, rows.num_rows().min(8192)),
            TrimsText | EmptyIsNull if rows.num_columns() == 2 => {
                let value = |column: usize, row| rows::value(rows.column(column), row);
                let spoiled = |name: Option<&'_ str>| match self.defect {
                    EmptyIsNull => name.filter(|name| !name.is_empty()).map(str::to_owned),
                    _ => name.map(|name| name.trim().to_owned()),
                };
                let names: Vec<_> = (0..rows.num_rows()).map(|row| (value(0, row), value(1, row))).collect();
                let names: Vec<(i64, Option<String>)> = names
                    .iter()
                    .map(|(id, name)| (id.as_deref().unwrap().parse().unwrap(), spoiled(name.as_deref())))
                    .collect();
                rows::named(&names.iter().map(|(id, name)| (*id, name.as_deref())).collect::<Vec<_>>())
            }
            FirstOneWins => {
                let order: UInt32Array = (0..rows.num_rows() as u32).rev().collect();
                arrow_select::take::take_record_batch(&rows, &order).unwrap()
            }
            TakesInt64AsFloat if rows.schema().column_with_name("value").is_some() => {
                let value = rows.column_by_name("value").unwrap();
                if *value.data_type() != DataType::Int64 {
                    return rows;
                }
                let value = arrow_cast::cast(value, &DataType::Float64).unwrap();
                RecordBatch::try_from_iter([("id", Arc::clone(rows.column(0))), ("value", value)]).unwrap()
            }
            _ => rows,
        }
    }
}

#[async_trait]
impl Sink for Broken {
    async fn plan(&mut self, ctx: &Context, schema: &Known) -> Result<SinkPlan> {
        if self.defect == PlanWrites {
            self.target.insert(&rows::numbered([99]));
        }
        if self.defect == PlanReads {
            ctx.call(&Call::new("count the rows", "memory:", Effect::Read), || async { Ok(()) }).await?;
        }
        let mut plan = self.inner.plan(ctx, schema).await?;
        plan.mode = if self.defect == PlanLies { WriteMode::Append } else { self.mode };
        plan.early_publish = matches!(self.mode, WriteMode::InsertNew | WriteMode::Upsert);
        if self.defect == ShowsItsSecret {
            plan.identity = "memory://user:hunter2@here".to_owned();
        }
        Ok(plan)
    }

    async fn open(&mut self, ctx: &Context, run: &Run) -> Result<Held> {
        let one = Context::bare("one for all");
        let ctx = if self.defect == OneCheckpointForAll { &one } else { ctx };
        let held = self.inner.open(ctx, &self.run(run)).await?;
        Ok(match (self.defect, held) {
            (ForgetsCheckpoint, _) => Held::Here(None),
            (InventsCheckpoint, Held::Here(None)) => Held::Here(Some(Checkpoint {
                run: run.clone(),
                epoch: 0,
                last: false,
                keyed_by: None,
                at: Default::default(),
            })),
            (_, held) => held,
        })
    }

    fn key_columns(&self) -> Option<Vec<String>> {
        self.inner.key_columns()
    }

    async fn schema(&mut self, schema: &SchemaRef) -> Result<Option<String>> {
        if self.defect == NeedsItsColumns {
            schema.field_with_name("id").unwrap();
        }
        self.wrote = true;
        self.first.get_or_insert_with(|| Arc::clone(schema));
        let keyed_by = self.inner.schema(schema).await?;
        Ok(if self.defect == NamesNoKeys { None } else { keyed_by })
    }

    async fn write(&mut self, seq: u64, rows: RecordBatch) -> Result<Wrote> {
        let given = rows.num_rows();
        let rows = self.spoil(rows);
        match self.defect {
            EmptyBatchIsAnError if given == 0 => return Err(Error::data("no rows")),
            WritesAtOnce => {
                self.target.insert(&rows);
                tokio::task::yield_now().await;
                return Ok(Wrote { written: given as u64, ..Wrote::default() });
            }
            CommitsOnClose | KeepsOnlyTheLastWrite | CommitsInTwoSteps => {
                if self.defect == KeepsOnlyTheLastWrite {
                    self.rows.clear();
                }
                self.rows.push(rows);
                return Ok(Wrote { written: given as u64, ..Wrote::default() });
            }
            RefusesInCommit if self.refuses => self.rows.push(rows.clone()),
            _ => {}
        }
        let mut wrote = self.inner.write(seq, rows.clone()).await?;
        match self.defect {
            StopsAt8192 => wrote.written = given as u64,
            OneBadRowCostsItsBatch if !wrote.rejected.is_empty() => {
                wrote.rejected = (0..given).map(|row| Reject::row(row, "its batch is bad")).collect();
                wrote.written = 0;
            }
            OneBadRowIsAnError if !wrote.rejected.is_empty() => return Err(Error::data("a bad row")),
            ManyBadRowsAreAnError if wrote.rejected.len() > 100 => return Err(Error::data("too many bad rows")),
            _ => {}
        }
        Ok(wrote)
    }

    async fn flush(&mut self) -> Result<Wrote> {
        self.inner.flush().await
    }

    async fn commit(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let mut checkpoint = checkpoint.clone();
        match self.defect {
            SkipsEmptyEpochs if !self.wrote => return Ok(()),
            RefusesInCommit if self.refuses => {
                let bad = rows::lines_of(&self.rows).iter().any(|line| line.contains("bad"));
                return if bad { Err(Error::data("a constraint was violated")) } else { Ok(()) };
            }
            SwapsAtEachCommit => checkpoint.last = true,
            KeepsOldRowsWithoutNew if !self.wrote => checkpoint.last = false,
            PublishesOnce if checkpoint.epoch == self.epoch => return Ok(()),
            KeepsStagingOfOthers | ForgetsItsStaging => checkpoint.run = self.run(&checkpoint.run),
            CommitsInTwoSteps => {
                for rows in self.rows.drain(..) {
                    self.target.insert(&rows);
                }
                tokio::task::yield_now().await;
            }
            KeepsOnlyTheLastWrite | CommitsOnClose => {
                for rows in std::mem::take(&mut self.rows) {
                    self.inner.write(0, rows).await?;
                }
            }
            _ => {}
        }
        self.epoch = checkpoint.epoch;
        self.inner.commit(&checkpoint).await
    }

    async fn close(&mut self) -> Result<()> {
        match self.defect {
            CommitsOnClose => self.rows.drain(..).for_each(|rows| self.target.insert(&rows)),
            CannotCloseEarly if self.first.is_none() => return Err(Error::internal("nothing to close")),
            _ => {}
        }
        self.inner.close().await
    }
}

fn under_test(defect: Defect) -> SinkUnderTest {
    SinkUnderTest::new(&format!("{defect:?}"), move || async move { Target::new(defect) }).secret("hunter2")
}

#[tokio::test]
async fn the_sink_in_memory_keeps_every_promise() {
    for defect in [Sound, RefusesLate] {
        passes(sink_report(&under_test(defect)).await, 170);
    }
}

#[tokio::test]
async fn each_defect_is_found_by_its_case() {
    for (defect, mode, key, case) in DEFECTS {
        let keyed = matches!(mode, WriteMode::InsertNew | WriteMode::Upsert) && *key == Key::None;
        let key = if keyed { Key::columns(["id"]) } else { key.clone() };
        let setup = Setup { mode: *mode, key };
        finds(&sink_report(&under_test(*defect).setups(vec![setup]).only(case)).await, case);
    }
}

#[test]
fn each_case_is_known_to_find_something() {
    let proven: BTreeSet<_> = DEFECTS.iter().map(|(.., case)| *case).collect();
    let unproven: Vec<_> = conformance::sink_cases().into_iter().filter(|case| !proven.contains(case)).collect();
    assert!(unproven.is_empty(), "no broken sink shows that these can fail: {unproven:?}");
}

async fn types(defect: Defect, quirks: Vec<TypeQuirk>) -> Report {
    let quirks = SinkQuirks { types: quirks, ..SinkQuirks::default() };
    sink_report(&under_test(defect).modes(&[WriteMode::Append]).quirks(quirks).only("type_")).await
}

#[tokio::test]
async fn a_type_that_comes_as_another_must_be_declared() {
    passes(types(Sound, vec![]).await, conformance::types::names().len());
    finds(&types(TakesInt64AsFloat, vec![]).await, "type_int64");
    let quirk = |of, comes| TypeQuirk { of, comes, reason: "declared" };
    let as_float = |text: &str| format!("{:?}", text.parse::<f64>().unwrap());
    let declared = types(TakesInt64AsFloat, vec![quirk("int64", Comes::As(as_float))]).await;
    passes(declared, conformance::types::names().len());
    // And what is declared must be so.
    for (of, comes) in [
        ("bool", Comes::Refused),
        ("bool", Comes::Rejected(&["true"])),
        ("bool", Comes::As(str::to_uppercase)),
        ("nothing", Comes::Refused),
    ] {
        finds(&types(Sound, vec![quirk(of, comes)]).await, &format!("type_{of}"));
    }
}

#[tokio::test]
async fn a_quirk_leaves_out_and_says_why() {
    let quirks = SinkQuirks { refuses_nothing: Some("it takes all"), ..SinkQuirks::default() };
    let report = sink_report(&under_test(Sound).quirks(quirks).only("bad_row")).await;
    assert!(report.passed.is_empty() && report.broken.is_empty(), "{report}");
    assert!(report.skipped.values().all(|why| why == "it takes all"), "{report}");
}

#[tokio::test]
async fn a_target_that_cannot_tell_empty_from_null_says_so() {
    let case = "texts_arrive_as_they_are";
    finds(&sink_report(&under_test(EmptyIsNull).only(case)).await, case);
    let quirks = SinkQuirks { empty_is_null: Some("its files know no null"), ..SinkQuirks::default() };
    passes(sink_report(&under_test(EmptyIsNull).quirks(quirks).only(case)).await, 4);
}

#[tokio::test]
async fn a_report_shows_what_is_broken_and_which_promise() {
    let report = sink_report(&under_test(SwapsAtEachCommit).modes(&[WriteMode::Replace]).only("swaps")).await;
    insta::assert_snapshot!(report.to_string());
}
