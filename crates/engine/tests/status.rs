//! How a pipeline stands: what is remembered of its runs, who runs it, who serves it; and that looking does no harm.
#![allow(clippy::unwrap_used, reason = "it is what makes a test fail")]

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use jiff::Timestamp;
use towpath_core::{Error, Name, Result, WriteMode};
use towpath_engine::{Engine, Graph, Pipeline, StateStore, state::PipelineStatus};
use towpath_testkit::memory::{Key, MemoryOrigin, MemoryTarget};

/// A pipeline without rows; its source can be made, or not.
fn pipeline(source: Result<(), &'static str>) -> Graph {
    let (origin, target) = (MemoryOrigin::new(), MemoryTarget::new());
    Pipeline::new("p")
        .source("s", move || source.map(|()| origin.source()).map_err(Error::not_found))
        .sink("k", &["s"], move || Ok(target.sink(WriteMode::Append, Key::RowHash)))
        .build()
        .unwrap()
}

fn name() -> Name {
    "p".into()
}

#[track_caller]
fn check(status: &PipelineStatus, last: Option<&str>, error: Option<&str>) {
    assert_eq!(status.last.as_ref().map(|last| last.status.as_str()), last);
    let why = status.last.as_ref().and_then(|last| last.error.clone());
    assert!(why.is_some() == error.is_some() && why.unwrap_or_default().contains(error.unwrap_or_default()));
}

#[tokio::test]
async fn every_run_is_remembered_also_one_that_did_not_get_far() {
    let engine = Engine::in_memory().unwrap();
    let status = || engine.state().status(&name()).unwrap();
    assert_eq!(engine.state().pipelines().unwrap(), []);
    check(&status(), None, None);
    assert_eq!(engine.state().last_start(&name()).unwrap(), None);

    let before = Timestamp::now();
    let report = engine.run_graph(&pipeline(Err("there is no such thing")), Default::default()).await;
    assert_eq!(report.exit_code(), 1);
    check(&status(), Some("failed"), Some("there is no such thing"));
    let failed = engine.state().last_start(&name()).unwrap().unwrap();
    assert!(failed >= before);

    let report = engine.run_graph(&pipeline(Ok(())), Default::default()).await;
    assert_eq!(report.exit_code(), 0, "{:?}", report.error);
    check(&status(), Some("completed"), None);
    let last = status().last.unwrap();
    assert_eq!(last.report.unwrap()["run_id"], *report.run_id);
    assert!(last.started.unwrap() > failed && last.ended.unwrap() >= last.started.unwrap());
    assert_eq!(engine.state().pipelines().unwrap(), [name()]);

    // One that may not begin leaves what is known as it is.
    let lock = engine.state().lock_pipeline(&name()).unwrap().unwrap();
    let report = engine.run_graph(&pipeline(Err("nobody asks")), Default::default()).await;
    assert!(report.locked);
    let under_way = status();
    assert_eq!(under_way.running.as_ref().map(|holder| holder.pid), Some(std::process::id()));
    check(&under_way, Some("completed"), None);
    drop(lock);

    engine.state().reset_checkpoint(Some(&name())).unwrap();
    check(&status(), None, None);
}

#[tokio::test]
async fn a_run_that_nobody_ends_has_died() {
    let engine = Engine::in_memory().unwrap();
    let (hold, batches) = tokio::sync::mpsc::channel(1);
    let target = MemoryTarget::new();
    let graph = Pipeline::new("p")
        .channel("s", batches)
        .sink("k", &["s"], move || Ok(target.sink(WriteMode::Append, Key::RowHash)))
        .build()
        .unwrap();
    let status = || engine.state().status(&name()).unwrap();
    let run = tokio::spawn({
        let engine = engine.clone();
        async move { engine.run_graph(&graph, Default::default()).await }
    });
    while status().running.is_none() {
        tokio::task::yield_now().await;
    }
    check(&status(), None, None);
    run.abort();
    assert!(run.await.unwrap_err().is_cancelled());
    drop(hold);
    let died = status();
    check(&died, Some("died"), None);
    assert!(died.running.is_none());
    let last = died.last.unwrap();
    assert!(last.started.is_some() && last.ended.is_none() && last.report.is_none());
    // The next one comes to an end, whichever: this pipeline has other ends.
    engine.run_graph(&pipeline(Ok(())), Default::default()).await;
    check(&status(), Some("failed"), Some("the name 'p' belongs to"));
}

#[test]
fn what_a_process_said_of_its_serving_is_believed_while_it_lives() {
    let dir = tempfile::tempdir().unwrap();
    for store in [StateStore::memory().unwrap(), StateStore::open(dir.path()).unwrap()] {
        assert_eq!(store.served(&name()).unwrap(), None);
        let first = store.serve(&name()).unwrap().unwrap();
        assert!(store.serve(&name()).unwrap().is_none(), "one at a time");
        assert!(store.serve(&"q".into()).unwrap().is_some(), "of each pipeline");
        let served = store.served(&name()).unwrap().unwrap();
        assert_eq!((served.pid, served.schedule, served.next_start), (std::process::id(), None, None));
        let due = "2026-03-01T10:00:00Z".parse().unwrap();
        first.announce("every 1h", Some(due), 3).unwrap();
        let served = store.served(&name()).unwrap().unwrap();
        assert_eq!((served.schedule.as_deref(), served.next_start, served.skipped), (Some("every 1h"), Some(due), 3));
        drop(first);
        assert_eq!(store.served(&name()).unwrap(), None, "what it left behind");
        // The next one has not said anything yet.
        let second = store.serve(&name()).unwrap().unwrap();
        let served = store.served(&name()).unwrap().unwrap();
        assert_eq!((served.next_start, served.skipped), (None, 0));
        second.announce("every 1h", None, 0).unwrap();
        assert_eq!(store.served(&name()).unwrap().unwrap().schedule.as_deref(), Some("every 1h"));
    }
}

#[test]
fn what_an_older_program_knew_of_runs_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    drop(StateStore::open(dir.path()).unwrap());
    let db = rusqlite::Connection::open(dir.path().join("state.db")).unwrap();
    db.execute_batch(
        r#"DROP TABLE outcomes; DROP TABLE served; DROP TABLE budgets; DROP TABLE budget_requests; DROP TABLE tokens; DROP TABLE superseded; DROP TABLE replaying; DROP TABLE replays; DROP TABLE replayed; DROP TABLE discarded; ALTER TABLE breakers DROP COLUMN first; PRAGMA user_version = 2;
        INSERT INTO runs (pipeline, id, run, begun, ended, status, summary) VALUES
        ('p', 'r1', '{}', '2026-01-01T00:00:00Z', '2026-01-01T00:01:00Z', 'completed', '{"status":"completed"}'),
        ('p', 'r2', '{}', '2026-01-02T00:00:00Z', '2026-01-02T00:01:00Z', 'failed', '{"status":"failed","error":"it was full"}'),
        ('q', 'r3', '{}', '2026-01-03T00:00:00Z', NULL, 'running', NULL);"#,
    )
    .unwrap();
    drop(db);
    let store = StateStore::open(dir.path()).unwrap();
    check(&store.status(&name()).unwrap(), Some("failed"), Some("it was full"));
    check(&store.status(&"q".into()).unwrap(), Some("died"), None);
    assert_eq!(store.last_start(&name()).unwrap(), Some("2026-01-02T00:00:00Z".parse().unwrap()));
}

#[test]
fn looking_at_a_lock_keeps_nobody_from_taking_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = StateStore::open(dir.path()).unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    store.lock_holder(&name());
                }
            });
        }
        let refused = (0..2_000).filter(|_| store.lock_pipeline(&name()).unwrap().is_none()).count();
        over.store(true, Ordering::Relaxed);
        assert_eq!(refused, 0);
    });
    let held = store.lock_pipeline(&name()).unwrap().unwrap();
    assert!(store.lock_pipeline(&name()).unwrap().is_none(), "a holder is one");
    drop(held);
}
