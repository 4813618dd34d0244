//! Broken sources.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use arrow_array::RecordBatch;
use async_trait::async_trait;
use towpath_core::{
    Call, Checkpoint, Context, Effect, Error, Known, Mark, Next, Partition, Piece, Position, Reject, Result, Resume,
    Run, Settled, Source, SourcePlan, source::Discovery,
};
use towpath_testkit::{
    conformance::{self, SourceOrigin, SourceQuirks, SourceUnderTest, source_report},
    memory::{MemoryOrigin, MemorySource},
    rows,
};

use crate::{finds, passes};

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Defect {
    Sound,
    /// Nothing wrong with these: other shapes of a source.
    Interleaved,
    OnePartition,
    Carries,
    OneByOne,
    PlanRenders,
    PlanSaysNothingToDo,
    PlanReadsAhead,
    PlanGuessesSchema,
    ShowsItsSecret,
    LosesTheLastPiece,
    TurnsOrder,
    AddsColumnLater,
    RejectsRowsOfOthers,
    EndsOnce,
    TakesBeforeItWaits,
    MixesPartitions,
    EndsWithin,
    OnePositionForAll,
    EndsWhereItBreaksOff,
    ForgetsItWasSettled,
    CannotCloseOnCancel,
    DiscoverRenders,
    ResumesOneTooLate,
    RunsPastUntil,
    StopsShortOfUntil,
    PassesOverUntil,
    TakesAnyPosition,
    MixesContent,
    ReadsAgainUnasked,
    KnowsNoWhole,
}

use Defect::*;

const DEFECTS: &[(Defect, &str)] = &[
    (PlanRenders, "plan_is_cheap_and_changes_nothing"),
    (PlanReadsAhead, "plan_is_cheap_and_changes_nothing"),
    (PlanSaysNothingToDo, "plan_is_true"),
    (PlanGuessesSchema, "plan_is_true"),
    (ShowsItsSecret, "secrets_do_not_show"),
    (LosesTheLastPiece, "every_row_is_given_once"),
    (TurnsOrder, "every_row_is_given_once"),
    (AddsColumnLater, "pieces_are_of_one_schema"),
    (RejectsRowsOfOthers, "rejects_are_of_their_piece"),
    (EndsOnce, "the_end_stays_the_end"),
    (TakesBeforeItWaits, "a_dropped_next_loses_and_doubles_nothing"),
    (MixesPartitions, "partitions_do_not_mix_between_boundaries"),
    (EndsWithin, "partitions_do_not_mix_between_boundaries"),
    (OnePositionForAll, "boundaries_can_be_told_apart"),
    (EndsWhereItBreaksOff, "truncated_input_is_an_error"),
    (ForgetsItWasSettled, "settled_can_be_said_again"),
    (CannotCloseOnCancel, "closing_at_any_time"),
    (DiscoverRenders, "discover_is_cheap"),
    (ResumesOneTooLate, "from_every_position_comes_the_rest"),
    (RunsPastUntil, "until_is_exact"),
    (RunsPastUntil, "from_one_position_until_another"),
    (StopsShortOfUntil, "until_is_exact"),
    (PassesOverUntil, "until_what_is_not_there_is_a_conflict"),
    (TakesAnyPosition, "a_strange_position_is_a_conflict_or_begins_anew"),
    (MixesContent, "changed_content_is_never_mixed"),
    (ReadsAgainUnasked, "a_new_run_reads_what_its_plan_says"),
    (KnowsNoWhole, "whole_means_all"),
];

/// An origin in memory, whose sources have a defect.
struct Origin {
    origin: MemoryOrigin,
    defect: Defect,
    renders: &'static AtomicU64,
    cut: &'static AtomicBool,
}

/// Pieces of five rows; of every third piece the first row is refused.
fn pieces(first: i64, count: i64) -> Vec<(RecordBatch, Vec<Reject>)> {
    let piece = |number| rows::numbered((0..5).map(|row| first + number * 5 + row));
    let refused = |number| if number % 3 == 2 { vec![Reject::row(0, "refused")] } else { vec![] };
    (0..count).map(|number| (piece(number), refused(number))).collect()
}

impl Origin {
    fn new(defect: Defect) -> Self {
        let origin = MemoryOrigin::new();
        origin.set_with_rejects("a.csv", pieces(0, 7), 2);
        if defect != OnePartition && defect != TurnsOrder {
            origin.set_with_rejects("b.csv", pieces(100, 6), 3);
            origin.set_with_rejects("c.csv", pieces(200, 1), 1);
        }
        match defect {
            Interleaved => origin.interleave(),
            Carries | ReadsAgainUnasked | KnowsNoWhole => origin.carries(),
            OneByOne => origin.one_by_one(),
            _ => {}
        }
        origin.pauses(3);
        Self { origin, defect, renders: Box::leak(Box::default()), cut: Box::leak(Box::default()) }
    }
}

#[async_trait(?Send)]
impl SourceOrigin for Origin {
    fn source(&self) -> Box<dyn Source> {
        Box::new(Broken {
            inner: self.origin.source(),
            defect: self.defect,
            renders: self.renders,
            cut: self.cut,
            ctx: None,
            held: None,
            given: 0,
            over: false,
            hanging: false,
            settled: None,
        })
    }
    async fn rows(&self) -> Vec<RecordBatch> {
        // Without the rows that are refused: the first of every third piece.
        let of_file = |first: i64, count: i64| {
            let kept = move |number: &i64| !(number % 5 == 0 && number / 5 % 3 == 2);
            rows::numbered((0..count * 5).filter(kept).map(move |row| first + row))
        };
        let all = [of_file(0, 7), of_file(100, 6), of_file(200, 1)];
        let files = if matches!(self.defect, OnePartition | TurnsOrder) { 1 } else { 3 };
        all.into_iter().take(files).collect()
    }
    async fn change(&self) -> bool {
        self.origin.set_with_rejects("a.csv", pieces(1000, 7), 2);
        true
    }
    async fn truncate(&self) -> bool {
        self.cut.store(true, Ordering::Relaxed);
        self.origin.cut("a.csv", 3);
        true
    }
    async fn costly_requests(&self) -> Option<u64> {
        Some(self.renders.load(Ordering::Relaxed))
    }
}

struct Broken {
    inner: MemorySource,
    defect: Defect,
    renders: &'static AtomicU64,
    cut: &'static AtomicBool,
    ctx: Option<Context>,
    held: Option<Piece>,
    given: u64,
    over: bool,
    hanging: bool,
    settled: Option<Checkpoint>,
}

/// Sets every position of a checkpoint.
fn positions(checkpoint: &mut Option<Checkpoint>, of: impl Fn(&Partition, &Position) -> Position) {
    for at in checkpoint.iter_mut().flat_map(|checkpoint| checkpoint.at.values_mut()) {
        at.iter_mut().for_each(|(partition, position)| *position = of(partition, position));
    }
}

impl Broken {
    fn resume(&self, resume: &Resume) -> Resume {
        let mut resume = resume.clone();
        match self.defect {
            RunsPastUntil => {
                // To the end of each file, wherever it should have stopped.
                positions(&mut resume.until, |partition, _| {
                    Position::new(match &*partition.0 {
                        "a.csv" => "v1 piece 7",
                        "b.csv" => "v1 piece 6",
                        _ => "v1 piece 1",
                    })
                });
            }
            StopsShortOfUntil => {
                let last = |position: &Position| position.0.ends_with("piece 7");
                positions(&mut resume.until, |_, position| {
                    if last(position) { Position::new("v1 piece 6") } else { position.clone() }
                });
            }
            PassesOverUntil => {
                let strange = resume.until.iter().flat_map(|until| until.at.values()).flatten();
                if strange.into_iter().any(|(_, position)| position.0.contains("no such")) {
                    resume.until = None;
                }
            }
            TakesAnyPosition => positions(&mut resume.from, |_, position| {
                if position.0.contains("no such") { Position::new("v1 piece 2") } else { position.clone() }
            }),
            ResumesOneTooLate => positions(&mut resume.from, |_, position| {
                if &*position.0 == "v1 piece 2" { Position::new("v1 piece 4") } else { position.clone() }
            }),
            MixesContent => positions(&mut resume.from, |_, position| Position::new(position.0.replace("v1", "v2"))),
            KnowsNoWhole => resume.whole = false,
            ReadsAgainUnasked => resume.whole = true,
            _ => {}
        }
        resume
    }

    fn spoil(&mut self, mut piece: Piece) -> Piece {
        self.given += 1;
        match self.defect {
            AddsColumnLater if self.given == 3 => {
                let ids = (0..piece.rows.num_rows() as i64).collect::<Vec<_>>();
                piece.rows = rows::noted(ids);
            }
            RejectsRowsOfOthers if self.given == 3 => piece.rejects.push(Reject::row(5, "of another piece")),
            OnePositionForAll => {
                if let Mark::At(_, position) = &mut piece.mark {
                    *position = Position::new("somewhere");
                }
            }
            EndsWithin => {
                if let Mark::At(partition, position) = &piece.mark
                    && &*position.0 == "v1 piece 7"
                {
                    piece.mark = Mark::Within(partition.clone());
                }
            }
            MixesPartitions if self.given == 2 => {
                piece.mark = Mark::At(Partition::new("z.csv"), Position::new("v1 piece 1"));
            }
            TurnsOrder => piece.rows = turned(&piece.rows),
            ShowsItsSecret => {
                if let Mark::At(_, position) = &mut piece.mark {
                    *position = Position::new(format!("{position}?key=hunter2"));
                }
            }
            _ => {}
        }
        piece
    }
}

fn turned(batch: &RecordBatch) -> RecordBatch {
    let order: arrow_array::UInt32Array = (0..batch.num_rows() as u32).rev().collect();
    arrow_select::take::take_record_batch(batch, &order).unwrap()
}

#[async_trait]
impl Source for Broken {
    async fn plan(&mut self, ctx: &Context, run: &Run, resume: &Resume) -> Result<SourcePlan> {
        if self.defect == PlanRenders {
            self.renders.fetch_add(1, Ordering::Relaxed);
        }
        if self.defect == PlanReadsAhead {
            ctx.call(&Call::new("read the header", "memory:", Effect::Read), || async { Ok(()) }).await?;
        }
        let mut plan = self.inner.plan(ctx, run, &self.resume(resume)).await?;
        match self.defect {
            PlanSaysNothingToDo => plan.work.clear(),
            PlanGuessesSchema => plan.schema = Known::Now(rows::noted([1]).schema()),
            ReadsAgainUnasked => plan.work.clear(),
            _ => {}
        }
        Ok(plan)
    }

    async fn open(&mut self, ctx: &Context, run: &Run, resume: &Resume) -> Result<()> {
        self.ctx = Some(ctx.clone());
        self.settled = resume.from.clone();
        self.inner.open(ctx, run, &self.resume(resume)).await
    }

    async fn next(&mut self) -> Result<Next> {
        if self.over && self.defect == EndsOnce {
            return Err(Error::internal("there is nothing to read"));
        }
        self.hanging = true;
        let next = match self.inner.next().await {
            Err(_) if self.defect == EndsWhereItBreaksOff && self.cut.load(Ordering::Relaxed) => Next::End,
            next => next?,
        };
        if self.defect == TakesBeforeItWaits {
            tokio::task::yield_now().await;
        }
        self.hanging = false;
        match next {
            Next::Piece(piece) => {
                let piece = self.spoil(*piece);
                if self.defect == LosesTheLastPiece {
                    // One is held back, and forgotten at the end.
                    return Ok(match self.held.replace(piece) {
                        Some(before) => Next::Piece(Box::new(before)),
                        None => Next::Idle,
                    });
                }
                Ok(Next::Piece(Box::new(piece)))
            }
            other => {
                self.over = true;
                Ok(other)
            }
        }
    }

    async fn settled(&mut self, settled: Settled) -> Result<()> {
        if let (ForgetsItWasSettled, Settled::UpTo(checkpoint)) = (self.defect, &settled) {
            if self.settled.as_ref() == Some(checkpoint) {
                return Err(Error::internal("said before"));
            }
            self.settled = Some(checkpoint.clone());
        }
        self.inner.settled(settled).await
    }

    async fn close(&mut self) -> Result<()> {
        if self.hanging && self.defect == CannotCloseOnCancel {
            return Err(Error::internal("next is still running"));
        }
        self.inner.close().await
    }

    async fn discover(&mut self, ctx: &Context) -> Result<Discovery> {
        let _ = ctx;
        if self.defect == DiscoverRenders {
            self.renders.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Discovery { text: "three files".to_owned(), ..Discovery::default() })
    }
}

fn under_test(defect: Defect) -> SourceUnderTest {
    let test = SourceUnderTest::new(&format!("{defect:?}"), move || async move { Origin::new(defect) });
    test.secret("hunter2")
}

#[tokio::test]
async fn the_source_in_memory_keeps_every_promise() {
    for (defect, cases) in [(Sound, 22), (Interleaved, 20), (OnePartition, 20), (Carries, 20), (OneByOne, 12)] {
        passes(source_report(&under_test(defect)).await, cases);
    }
}

#[tokio::test]
async fn each_defect_is_found_by_its_case() {
    for (defect, case) in DEFECTS {
        finds(&source_report(&under_test(*defect).only(case)).await, case);
    }
}

#[test]
fn each_case_is_known_to_find_something() {
    let proven: BTreeSet<_> = DEFECTS.iter().map(|(_, case)| *case).collect();
    let unproven: Vec<_> = conformance::source_cases().into_iter().filter(|case| !proven.contains(case)).collect();
    assert!(unproven.is_empty(), "no broken source shows that these can fail: {unproven:?}");
}

#[tokio::test]
async fn a_quirk_leaves_out_and_says_why() {
    let quirks = SourceQuirks { never_truncated: Some("rows in memory are whole"), ..SourceQuirks::default() };
    let report = source_report(&under_test(Sound).quirks(quirks).only("truncated")).await;
    assert_eq!(report.skipped.values().collect::<Vec<_>>(), ["rows in memory are whole"]);
}
