//! What a run does when a part of it hangs, panics, fails or refuses; and how it is stopped, ordered and limited.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arrow_array::RecordBatch;
use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use towpath_core::{
    Checkpoint, Context, ErrorKind, Held, Known, Name, Next, Output, Result, Resume, Run, Settled, Sink, SinkPlan,
    Source, SourcePlan, Transform, TransformPlan, WriteMode, Wrote,
    pipeline::{ErrorsSpec, StopAfter, Workers},
};
use towpath_testkit::{
    memory::{Fault, Key, MemoryOrigin, MemorySink, MemorySource, MemoryTarget, Point},
    rows,
};

use super::{World, ids};
use crate::{Graph, Pipeline, RunOptions, RunReport, Status};

/// One source, one transform that lets everything through, one sink.
struct Simple {
    world: World,
    origin: MemoryOrigin,
    target: MemoryTarget,
}

impl Simple {
    /// `pieces` pieces of ten rows each; a commit may stand behind each.
    fn new(pieces: i64) -> Self {
        let origin = MemoryOrigin::new();
        origin.set("p", (0..pieces).map(|piece| rows::numbered(piece * 10..piece * 10 + 10)).collect(), 1);
        Self { world: World::new(), origin, target: MemoryTarget::new() }
    }

    fn source(&self) -> impl Fn() -> Result<MemorySource> + Send + Sync + 'static {
        let origin = self.origin.clone();
        move || Ok(origin.source())
    }

    fn sink(&self, mode: WriteMode) -> impl Fn() -> Result<MemorySink> + Send + Sync + 'static {
        let target = self.target.clone();
        let key = if mode == WriteMode::Append { Key::None } else { Key::columns(["id"]) };
        move || Ok(target.sink(mode, key.clone()))
    }

    fn graph(&self, mode: WriteMode, set: impl FnOnce(Pipeline) -> Pipeline) -> Graph {
        let pipeline =
            self.world.pipeline().source("s", self.source()).map("t", &["s"], Ok).sink("k", &["t"], self.sink(mode));
        let pipeline = pipeline.run(|run| (run.commit.rows, run.restarts) = (10, 0));
        set(pipeline).build().unwrap()
    }

    async fn run(&self, graph: &Graph) -> RunReport {
        self.run_with(graph, RunOptions::default()).await
    }

    /// Runs, and sees that no task is left.
    async fn run_with(&self, graph: &Graph, options: RunOptions) -> RunReport {
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let before = tasks();
        let report = self.world.engine.run_graph(graph, options).await;
        assert_eq!(tasks(), before, "tasks outlived the run");
        for (what, calls) in [("source", self.origin.calls()), ("sink", self.target.calls())] {
            let count = |name| calls.iter().filter(|call| **call == name).count();
            assert_eq!(count("open"), count("close"), "the {what} was opened and closed: {calls:?}");
        }
        report
    }

    #[track_caller]
    fn assert_loaded(&self, expected: impl Iterator<Item = i64>) {
        assert_eq!(ids(&self.target), expected.collect::<Vec<_>>());
    }
}

fn said(report: &RunReport) -> String {
    report.error.as_ref().map_or_else(|| report.status.name().to_owned(), |error| error.to_string())
}

/// Panics in one call, and hands everything else on.
struct Panics<T> {
    inner: T,
    at: Point,
}

impl<T> Panics<T> {
    fn at(&self, point: Point) {
        assert!(self.at != point, "a bug at {point:?}");
    }
}

#[async_trait]
impl<T: Source> Source for Panics<T> {
    async fn plan(&mut self, ctx: &Context, run: &Run, resume: &Resume) -> Result<SourcePlan> {
        self.inner.plan(ctx, run, resume).await
    }
    async fn open(&mut self, ctx: &Context, run: &Run, resume: &Resume) -> Result<()> {
        self.inner.open(ctx, run, resume).await?;
        self.at(Point::Open);
        Ok(())
    }
    async fn next(&mut self) -> Result<Next> {
        self.at(Point::Next);
        self.inner.next().await
    }
    async fn settled(&mut self, settled: Settled) -> Result<()> {
        self.at(Point::Settled);
        self.inner.settled(settled).await
    }
    async fn close(&mut self) -> Result<()> {
        self.inner.close().await?;
        self.at(Point::Close);
        Ok(())
    }
}

#[async_trait]
impl<T: Sink> Sink for Panics<T> {
    async fn plan(&mut self, ctx: &Context, schema: &Known) -> Result<SinkPlan> {
        self.inner.plan(ctx, schema).await
    }
    async fn open(&mut self, ctx: &Context, run: &Run) -> Result<Held> {
        self.inner.open(ctx, run).await
    }
    async fn schema(&mut self, schema: &arrow_schema::SchemaRef) -> Result<Option<String>> {
        self.at(Point::Schema);
        self.inner.schema(schema).await
    }
    async fn write(&mut self, seq: u64, rows: RecordBatch) -> Result<Wrote> {
        self.at(Point::Write);
        self.inner.write(seq, rows).await
    }
    async fn flush(&mut self) -> Result<Wrote> {
        self.at(Point::Flush);
        self.inner.flush().await
    }
    async fn commit(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        self.at(Point::Commit);
        self.inner.commit(checkpoint).await
    }
    async fn close(&mut self) -> Result<()> {
        self.inner.close().await?;
        self.at(Point::Close);
        Ok(())
    }
}

/// A transform of a test's own.
struct Does<F>(F);

#[async_trait]
impl<F> Transform for Does<F>
where
    F: FnMut(RecordBatch) -> futures::future::BoxFuture<'static, Result<RecordBatch>> + Send,
{
    fn plan(&self, inputs: &[(Name, Known)]) -> Result<TransformPlan> {
        Ok(TransformPlan {
            schema: inputs[0].1.clone(),
            holds: false,
            stateful: false,
            notes: vec![],
            warnings: vec![],
        })
    }
    async fn apply(&mut self, _: &Context, _: &Name, rows: RecordBatch, out: &mut dyn Output) -> Result<()> {
        out.rows((self.0)(rows).await?).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_stage_that_hangs_is_cancelled_named_and_taken_up() {
    let points = [
        (Point::Open, "source"),
        (Point::Next, "source"),
        (Point::Settled, "source"),
        (Point::Open, "sink"),
        (Point::Schema, "sink"),
        (Point::Write, "sink"),
        (Point::Flush, "sink"),
        (Point::Commit, "sink"),
    ];
    for (point, role) in points {
        let simple = Simple::new(5);
        let graph = simple.graph(WriteMode::Append, |pipeline| pipeline);
        let faults = if role == "sink" { simple.target.faults() } else { simple.origin.faults() };
        faults.add(point, 0, Fault::Hang);
        let abort = CancellationToken::new();
        let soon = {
            let abort = abort.clone();
            async move {
                tokio::time::sleep(Duration::from_secs(3600)).await;
                abort.cancel();
                std::future::pending::<RunReport>().await
            }
        };
        let options = RunOptions { abort, ..RunOptions::default() };
        let report = tokio::select! {
            report = simple.run_with(&graph, options) => report,
            never = soon => never,
        };
        // To hear what was settled is not needed for the run to be complete.
        assert!(report.status == Status::Cancelled || point == Point::Settled, "{role} {point:?}: {report:?}");
        if point != Point::Open && point != Point::Settled {
            let who = if role == "sink" { "sink k has not moved" } else { "source s has not moved" };
            assert!(
                report.stalled.iter().any(|words| words.starts_with(who)),
                "{role} {point:?}: {:?}",
                report.stalled
            );
        }
        if report.status == Status::Cancelled {
            let report = simple.run(&graph).await;
            assert_eq!(report.status, Status::Completed, "{role} {point:?}: {report:?}");
        }
        simple.assert_loaded(0..50);
    }
}

#[tokio::test(start_paused = true)]
async fn a_transform_that_hangs_is_ended_by_the_runs_deadline_and_named() {
    let simple = Simple::new(3);
    let make = || Ok(Does(|_| Box::pin(std::future::pending()) as futures::future::BoxFuture<'static, _>));
    for workers in [1, 3] {
        let pipeline = simple.world.pipeline().source("s", simple.source()).transform("t", &["s"], make);
        let pipeline = pipeline.workers(Workers::Fixed(workers)).sink("k", &["t"], simple.sink(WriteMode::Append));
        let graph = pipeline.run(|run| run.deadline = Some("10m".parse().unwrap())).build().unwrap();
        let report = simple.run(&graph).await;
        assert_eq!(report.status, Status::Failed);
        let words = said(&report);
        assert!(words.contains("deadline (10m) passed"), "{words}");
        let error = report.error.unwrap();
        assert!(
            format!("{error:#}").contains("transform t has not moved for")
                || words.contains("transform t has not moved for"),
            "{error:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_anywhere_ends_the_run_as_an_error_that_says_where() {
    let sink_points = [Point::Schema, Point::Write, Point::Flush, Point::Commit];
    let source_points = [Point::Open, Point::Next, Point::Settled];
    for (role, point) in
        sink_points.map(|point| ("sink k", point)).into_iter().chain(source_points.map(|point| ("source s", point)))
    {
        let simple = Simple::new(3);
        let (source, sink) = (simple.source(), simple.sink(WriteMode::Append));
        let source_at = if role == "source s" { point } else { Point::Plan };
        let sink_at = if role == "sink k" { point } else { Point::Plan };
        let graph = simple
            .world
            .pipeline()
            .source("s", move || Ok(Panics { inner: source()?, at: source_at }))
            .sink("k", &["s"], move || Ok(Panics { inner: sink()?, at: sink_at }))
            .run(|run| run.commit.rows = 10)
            .build()
            .unwrap();
        let report = simple.run(&graph).await;
        let words = said(&report);
        assert!(words.contains(role) && words.contains("it panicked: a bug at"), "{role} {point:?}: {words}");
        assert_eq!(report.exit_code(), 1);
        // The rows are not lost: without the bug the run is taken up.
        let report = simple.run(&simple.graph(WriteMode::Append, |pipeline| pipeline)).await;
        assert_eq!(report.status, Status::Completed, "{report:?}");
        assert!(report.taken_up);
        simple.assert_loaded(0..30);
    }
    let simple = Simple::new(3);
    let make =
        || Ok(Does(|_: RecordBatch| -> futures::future::BoxFuture<'static, _> { panic!("a bug in a transform") }));
    for workers in [1, 4] {
        let pipeline = simple.world.pipeline().source("s", simple.source()).transform("t", &["s"], make);
        let graph = pipeline
            .workers(Workers::Fixed(workers))
            .sink("k", &["t"], simple.sink(WriteMode::Append))
            .build()
            .unwrap();
        let words = said(&simple.run(&graph).await);
        assert!(words.contains("transform t: it panicked: a bug in a transform"), "{words}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_may_pass_is_gone_on_from_the_last_commit() {
    let points = [
        (Point::Write, 3),
        (Point::Flush, 1),
        (Point::Commit, 0),
        (Point::Commit, 1),
        (Point::Open, 0),
        (Point::Schema, 0),
    ];
    for (point, skip) in points {
        for fault in [Fault::Fail(ErrorKind::Unavailable), Fault::LoseReply] {
            let simple = Simple::new(6);
            let graph = simple
                .graph(WriteMode::Append, |pipeline| pipeline.run(|run| (run.restarts, run.commit.rows) = (3, 10)));
            simple.target.faults().add(point, skip, fault);
            let report = simple.run(&graph).await;
            assert_eq!(report.status, Status::Completed, "{point:?} {fault:?}: {report:?}");
            assert_eq!(report.sinks["k"].written, 60, "{point:?} {fault:?}");
            simple.assert_loaded(0..60);
        }
    }
    // What cannot pass is not tried again, and a failure without progress only so often.
    for (kind, opens) in [(ErrorKind::Config, 1), (ErrorKind::Unavailable, 3)] {
        let simple = Simple::new(6);
        let graph = simple.graph(WriteMode::Append, |pipeline| pipeline.run(|run| run.restarts = 2));
        (0..9).for_each(|_| simple.target.faults().add(Point::Write, 0, Fault::Fail(kind)));
        let report = simple.run(&graph).await;
        assert_eq!(report.status, Status::Failed);
        assert_eq!(simple.target.calls().iter().filter(|call| **call == "open").count(), opens, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_run_drains_to_a_commit_and_is_taken_up() {
    let simple = Simple::new(40);
    simple.origin.pauses(2);
    let stop = CancellationToken::new();
    let seen = Arc::new(AtomicUsize::new(0));
    let stopper = {
        let (stop, seen) = (stop.clone(), Arc::clone(&seen));
        move |rows: RecordBatch| {
            if seen.fetch_add(1, Ordering::Relaxed) == 12 {
                stop.cancel();
            }
            Ok(rows)
        }
    };
    let graph = simple
        .world
        .pipeline()
        .source("s", simple.source())
        .map("t", &["s"], stopper)
        .sink("k", &["t"], simple.sink(WriteMode::Append))
        .build()
        .unwrap();
    let report = simple.run_with(&graph, RunOptions { stop, ..RunOptions::default() }).await;
    assert_eq!((report.status, report.exit_code()), (Status::Cancelled, 130));
    let loaded = ids(&simple.target);
    assert!(loaded.len() >= 120 && loaded.len() < 400, "{}", loaded.len());
    assert_eq!(report.sinks["k"].written as usize, loaded.len());
    let again = simple.run(&graph).await;
    assert!(again.taken_up);
    assert_eq!(again.status, Status::Completed);
    assert_eq!(again.run_id, report.run_id);
    simple.assert_loaded(0..400);
}

#[tokio::test(start_paused = true)]
async fn a_run_left_behind_is_begun_anew() {
    let simple = Simple::new(6);
    let graph = simple.graph(WriteMode::InsertNew, |pipeline| pipeline);
    simple.target.faults().add(Point::Write, 3, Fault::Fail(ErrorKind::Internal));
    let first = simple.run(&graph).await;
    assert_eq!(first.status, Status::Failed);
    let report = simple.run_with(&graph, RunOptions { new_run: true, ..RunOptions::default() }).await;
    assert_eq!(report.status, Status::Completed, "{report:?}");
    assert!(!report.taken_up);
    assert_ne!(report.run_id, first.run_id);
    assert_eq!(report.sources["s"].rows, 60, "read from the beginning");
    simple.assert_loaded(0..60);
}

#[tokio::test(start_paused = true)]
async fn too_many_bad_rows_stop_the_run_with_a_code_of_its_own() {
    let share = |text: &str| StopAfter::Share(text.parse().unwrap());
    // (limit, every n-th of 3,000 rows is bad, is it stopped)
    let cases = [
        (Some(StopAfter::Rows(100)), 10, true),
        (Some(StopAfter::Rows(400)), 10, false),
        (Some(share("20%")), 10, false),
        (Some(share("5%")), 10, true),
        (None, 2, false),
    ];
    for (limit, nth, stopped) in cases {
        let simple = Simple::new(0);
        let piece = |piece: i64| {
            let ids: Vec<i64> = (piece * 100..piece * 100 + 100).collect();
            let bad = ids.iter().enumerate().filter(|(_, id)| *id % nth == 0);
            let rejects = bad.map(|(row, _)| towpath_core::Reject::row(row, "bad")).collect();
            (rows::numbered(ids), rejects)
        };
        simple.origin.set_with_rejects("p", (0..30).map(piece).collect(), 1);
        let errors = ErrorsSpec { stop_after: limit, ..simple.world.errors() };
        let graph = simple.graph(WriteMode::Append, |pipeline| pipeline.errors(errors));
        let report = simple.run(&graph).await;
        let expected = if stopped { (Status::Stopped, 3) } else { (Status::Completed, 0) };
        assert_eq!((report.status, report.exit_code()), expected, "{limit:?} {report:?}");
        if stopped {
            let said = said(&report);
            let starts = said.contains("too many rejected rows: ") && said.contains(" (10.0%), and stop_after is ");
            assert!(starts && said.contains(" by s, such as \"bad\""), "{said}");
            let read: u64 = report.sources["s"].rows;
            assert!(
                matches!(limit, Some(StopAfter::Rows(_))) || read >= 910,
                "a share only after 1,000 rows, not {read}"
            );
            // The cause is mended, the run is taken up, and nothing is doubled in the dead letters.
            let report = simple.run(&simple.graph(WriteMode::Append, |pipeline| pipeline)).await;
            assert_eq!((report.status, report.taken_up), (Status::Completed, true), "{report:?}");
        }
        simple.assert_loaded((0..3000).filter(|id| id % nth != 0));
        let letters = simple.world.dead_letters();
        assert!(
            letters.iter().map(|(_, id)| *id).eq((0..3000).filter(|id| id % nth == 0)),
            "{limit:?}: {} letters",
            letters.len()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn workers_work_side_by_side_and_rows_stay_in_order() {
    for (workers, most) in [(Workers::Fixed(1), 1), (Workers::Fixed(4), 4), (Workers::Between { min: 1, max: 3 }, 3)] {
        let simple = Simple::new(40);
        let (busy, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let make = {
            let (busy, peak) = (Arc::clone(&busy), Arc::clone(&peak));
            move || {
                let (busy, peak) = (Arc::clone(&busy), Arc::clone(&peak));
                Ok(Does(move |rows: RecordBatch| {
                    let (busy, peak) = (Arc::clone(&busy), Arc::clone(&peak));
                    Box::pin(async move {
                        peak.fetch_max(busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        tokio::time::sleep(Duration::from_millis(fastrand::u64(1..50))).await;
                        busy.fetch_sub(1, Ordering::SeqCst);
                        Ok(rows)
                    }) as futures::future::BoxFuture<'static, _>
                }))
            }
        };
        let pipeline =
            simple.world.pipeline().source("s", simple.source()).transform("t", &["s"], make).workers(workers);
        let graph = pipeline.sink("k", &["t"], simple.sink(WriteMode::Append)).build().unwrap();
        let report = simple.run(&graph).await;
        assert_eq!(report.status, Status::Completed, "{report:?}");
        assert_eq!(peak.load(Ordering::SeqCst), most, "{workers:?}");
        simple.assert_loaded(0..400);
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_has_a_deadline_of_its_own() {
    let simple = Simple::new(3);
    simple.target.faults().add(Point::Write, 1, Fault::Hang);
    let graph = simple.graph(WriteMode::Append, |pipeline| {
        pipeline.common("k", |common| common.batch_deadline = Some("5s".parse().unwrap()))
    });
    let report = simple.run(&graph).await;
    assert_eq!(report.status, Status::Failed);
    assert!(said(&report).contains("sink k: one batch took longer than batch_deadline (5s)"), "{}", said(&report));
    assert_eq!(simple.run(&graph).await.status, Status::Completed);
    simple.assert_loaded(0..30);
}

#[tokio::test(start_paused = true)]
async fn a_sink_comes_after_another_one() {
    let simple = Simple::new(6);
    let second = MemoryTarget::new();
    // At each commit of the second, what the first has then.
    let log = Arc::new(Mutex::new(Vec::new()));
    struct Watches {
        inner: MemorySink,
        first: MemoryTarget,
        log: Arc<Mutex<Vec<(u64, usize)>>>,
        rows: usize,
    }
    #[async_trait]
    impl Sink for Watches {
        async fn plan(&mut self, ctx: &Context, schema: &Known) -> Result<SinkPlan> {
            self.inner.plan(ctx, schema).await
        }
        async fn open(&mut self, ctx: &Context, run: &Run) -> Result<Held> {
            self.inner.open(ctx, run).await
        }
        async fn schema(&mut self, schema: &arrow_schema::SchemaRef) -> Result<Option<String>> {
            self.inner.schema(schema).await
        }
        async fn write(&mut self, seq: u64, rows: RecordBatch) -> Result<Wrote> {
            self.rows += rows.num_rows();
            self.log.lock().unwrap().push((self.rows as u64, ids(&self.first).len()));
            self.inner.write(seq, rows).await
        }
        async fn flush(&mut self) -> Result<Wrote> {
            self.inner.flush().await
        }
        async fn commit(&mut self, checkpoint: &Checkpoint) -> Result<()> {
            self.inner.commit(checkpoint).await
        }
        async fn close(&mut self) -> Result<()> {
            self.inner.close().await
        }
    }
    let make = {
        let (first, second, log) = (simple.target.clone(), second.clone(), Arc::clone(&log));
        move || {
            let inner = second.sink(WriteMode::Append, Key::None);
            Ok(Watches { inner, first: first.clone(), log: Arc::clone(&log), rows: 0 })
        }
    };
    let graph = simple.graph(WriteMode::Append, |pipeline| pipeline.sink("deals", &["t"], make).after(&["k"]));
    let report = simple.run(&graph).await;
    assert_eq!(report.status, Status::Completed, "{report:?}");
    let log = log.lock().unwrap();
    assert!(!log.is_empty() && log.iter().all(|(mine, first)| *first as u64 >= *mine), "{log:?}");
    assert_eq!(ids(&second), (0..60).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn only_one_run_of_a_pipeline_at_a_time() {
    let simple = Simple::new(3);
    simple.target.faults().add(Point::Write, 0, Fault::Hang);
    let graph = simple.graph(WriteMode::Append, |pipeline| pipeline);
    let abort = CancellationToken::new();
    let first = simple.world.engine.run_graph(&graph, RunOptions { abort: abort.clone(), ..RunOptions::default() });
    let second = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let report = simple.world.engine.run_graph(&graph, RunOptions::default()).await;
        abort.cancel();
        report
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!(first.status, Status::Cancelled);
    assert_eq!((second.status, second.exit_code()), (Status::Failed, 4));
    assert!(said(&second).contains("another run of pipeline 'test' is under way"), "{}", said(&second));
    assert_eq!(simple.run(&graph).await.status, Status::Completed);
}

#[tokio::test(start_paused = true)]
async fn what_has_not_changed_is_not_read_and_replace_reads_all_once_something_has() {
    let simple = Simple::new(3);
    simple.origin.carries();
    simple.origin.set("q", vec![rows::numbered(100..110)], 1);
    let graph = simple.graph(WriteMode::Replace, |pipeline| pipeline);
    let report = simple.run(&graph).await;
    assert_eq!((report.status, report.sources["s"].rows), (Status::Completed, 40));
    simple.assert_loaded((0..30).chain(100..110));
    // Nothing changed: nothing is touched.
    let before = simple.target.checkpoint("test", "k");
    let report = simple.run(&graph).await;
    assert_eq!(report.status, Status::Completed);
    assert_eq!(report.sources.get("s").map_or(0, |source| source.rows), 0);
    assert_eq!(simple.target.checkpoint("test", "k"), before);
    // One changed: the table is made of all of them.
    simple.origin.set("q", vec![rows::numbered(200..210)], 1);
    let report = simple.run(&graph).await;
    assert_eq!((report.status, report.sources["s"].rows), (Status::Completed, 40), "{report:?}");
    simple.assert_loaded((0..30).chain(200..210));
    // Append takes the changed one only.
    let simple = Simple::new(3);
    simple.origin.carries();
    simple.origin.set("q", vec![rows::numbered(100..110)], 1);
    let graph = simple.graph(WriteMode::Append, |pipeline| pipeline);
    simple.run(&graph).await;
    simple.origin.set("q", vec![rows::numbered(200..210)], 1);
    let report = simple.run(&graph).await;
    assert_eq!((report.status, report.sources["s"].rows), (Status::Completed, 10), "{report:?}");
    simple.assert_loaded((0..30).chain(100..110).chain(200..210));
}

#[tokio::test(start_paused = true)]
async fn what_was_staged_is_not_staged_twice_when_another_table_is_made_anew() {
    for second in [WriteMode::InsertNew, WriteMode::Append, WriteMode::Replace] {
        let simple = Simple::new(60);
        simple.origin.pauses(5);
        let other = MemoryTarget::new();
        let key = if second == WriteMode::InsertNew { Key::columns(["id"]) } else { Key::None };
        let graph = simple.graph(WriteMode::Replace, |pipeline| {
            let other = other.clone();
            pipeline.sink("other", &["t"], move || Ok(other.sink(second, key.clone())))
        });
        // Two epochs are staged and committed, then the process dies.
        simple.target.faults().add(Point::Commit, 2, Fault::Fail(ErrorKind::Internal));
        let died = simple.run(&graph).await;
        assert_eq!(died.status, Status::Failed);
        let held = simple.target.checkpoint("test", "k").unwrap();
        assert!(held.epoch >= 2 && !held.last, "{second:?}: {held:?}");
        other.drop_table();
        let report = simple.run(&graph).await;
        assert_eq!(report.status, Status::Completed, "{second:?}: {}", said(&report));
        assert_ne!(report.run_id, died.run_id, "a run of its own");
        simple.assert_loaded(0..600);
        assert_eq!(ids(&other), (0..600).collect::<Vec<_>>(), "{second:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reset_begins_anew_and_a_table_made_anew_is_loaded_again() {
    let simple = Simple::new(3);
    simple.origin.carries();
    let graph = simple.graph(WriteMode::InsertNew, |pipeline| pipeline);
    simple.run(&graph).await;
    simple.target.drop_table();
    let report = simple.run(&graph).await;
    assert_eq!((report.status, report.sinks["k"].written), (Status::Completed, 30), "{report:?}");
    simple.world.engine.state().reset_checkpoint(Some(&"test".into())).unwrap();
    let report = simple.run(&graph).await;
    assert_eq!(
        (report.status, report.sources["s"].rows, report.sinks["k"].skipped),
        (Status::Completed, 30, 30),
        "{report:?}"
    );
    let report = simple.run(&graph).await;
    assert_eq!(report.sources.get("s").map_or(0, |source| source.rows), 0, "once");
}

#[tokio::test(start_paused = true)]
async fn what_is_settled_singly_is_settled_once_each() {
    let simple = Simple::new(20);
    simple.origin.one_by_one();
    let graph = simple.graph(WriteMode::Append, |pipeline| pipeline);
    let report = simple.run(&graph).await;
    assert_eq!(report.status, Status::Completed, "{report:?}");
    let mut tokens: Vec<u64> = simple
        .origin
        .settled()
        .into_iter()
        .filter_map(|settled| match settled {
            Settled::One(token, outcome) => Some((token, outcome.is_ok())),
            Settled::UpTo(_) => None,
        })
        .map(|(token, kept)| {
            assert!(kept);
            token.0
        })
        .collect();
    tokens.sort_unstable();
    assert_eq!(tokens.len(), 20);
    tokens.dedup();
    assert_eq!(tokens.len(), 20, "each once");
}

/// Adds up, and gives the sum at the end.
struct Counts(i64);

#[async_trait]
impl Transform for Counts {
    fn plan(&self, inputs: &[(Name, Known)]) -> Result<TransformPlan> {
        Ok(TransformPlan { schema: inputs[0].1.clone(), holds: true, stateful: false, notes: vec![], warnings: vec![] })
    }
    async fn apply(&mut self, _: &Context, _: &Name, rows: RecordBatch, _: &mut dyn Output) -> Result<()> {
        self.0 += rows.num_rows() as i64;
        Ok(())
    }
    async fn finish(&mut self, _: &Context, out: &mut dyn Output) -> Result<()> {
        out.rows(rows::numbered([self.0])).await
    }
}

#[tokio::test(start_paused = true)]
async fn held_rows_are_committed_once_at_the_end_with_everything_they_came_from() {
    let simple = Simple::new(10);
    let pipeline = simple.world.pipeline().source("s", simple.source()).transform("sum", &["s"], || Ok(Counts(0)));
    let pipeline = pipeline.sink("k", &["sum"], simple.sink(WriteMode::Append)).run(|run| run.commit.rows = 1);
    let graph = pipeline.build().unwrap();
    // A commit that fails midway would have to be taken up; here it is the only one.
    simple.target.faults().add(Point::Commit, 0, Fault::Fail(ErrorKind::Unavailable));
    let report = simple.run(&graph).await;
    assert_eq!(report.status, Status::Completed, "{report:?}");
    simple.assert_loaded([100].into_iter());
    let checkpoint = simple.target.checkpoint("test", "k").unwrap();
    assert_eq!((checkpoint.epoch, checkpoint.last), (1, true));
    let position = checkpoint.of("s").unwrap().values().next().unwrap().to_string();
    assert_eq!(position, "v1 piece 10");
}

#[tokio::test(start_paused = true)]
async fn plans_change_nothing_and_preview_closes_what_it_opens() {
    let simple = Simple::new(3);
    let graph = simple.graph(WriteMode::Append, |pipeline| pipeline);
    let plan = simple.world.engine.plan_graph(&graph).await.unwrap();
    assert_eq!((plan.sources.len(), plan.sinks.len(), plan.takes_up), (1, 1, None));
    assert!(simple.target.calls().is_empty() && simple.origin.calls().is_empty());
    assert!(simple.target.rows().is_none());
}
