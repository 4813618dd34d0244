//! The target in memory: what the engine's tests of crashes stand on.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use towpath_core::{Checkpoint, Context, ErrorKind, Held, Run, Sink, WriteMode};
use towpath_testkit::{
    memory::{Fault, Key, MemorySink, MemoryTarget, Point},
    rows,
};

fn run() -> Run {
    Run {
        id: "r1".into(),
        started: Default::default(),
        parameters: Default::default(),
        fingerprint: Default::default(),
    }
}

fn checkpoint(epoch: u64) -> Checkpoint {
    Checkpoint { run: run(), epoch, last: false, keyed_by: None, at: Default::default() }
}

async fn open(target: &MemoryTarget) -> (MemorySink, Option<u64>) {
    let mut sink = target.sink(WriteMode::Append, Key::None);
    let held = sink.open(&Context::bare("sink"), &run()).await.unwrap();
    let Held::Here(found) = held else { unreachable!("the target holds its checkpoint") };
    (sink, found.map(|found| found.epoch))
}

/// Writes a row and commits it; the kind of the error, if it failed.
async fn commit(sink: &mut MemorySink, epoch: u64) -> Option<ErrorKind> {
    let batch = rows::numbered([epoch as i64]);
    sink.schema(&batch.schema()).await.unwrap();
    sink.write(0, batch).await.unwrap();
    sink.flush().await.unwrap();
    sink.commit(&checkpoint(epoch)).await.err().map(|error| error.kind())
}

fn count(target: &MemoryTarget) -> usize {
    target.rows().map_or(0, |rows| rows.len())
}

#[tokio::test]
async fn a_lost_reply_has_landed_and_a_failure_has_not() {
    let target = MemoryTarget::new();
    target.faults().add(Point::Commit, 0, Fault::Fail(ErrorKind::Unavailable));
    target.faults().add(Point::Commit, 1, Fault::LoseReply);
    let (mut sink, _) = open(&target).await;
    assert_eq!(commit(&mut sink, 1).await, Some(ErrorKind::Unavailable));
    assert_eq!((count(&target), open(&target).await.1), (0, None));
    let (mut sink, _) = open(&target).await;
    assert_eq!(commit(&mut sink, 1).await, Some(ErrorKind::Unavailable));
    assert_eq!((count(&target), open(&target).await.1), (1, Some(1)));
}

#[tokio::test]
async fn a_late_commit_lands_only_as_long_as_nobody_else_has_opened() {
    for (opened, fence, lands) in [(false, true, 1), (true, true, 0), (true, false, 1)] {
        let target = MemoryTarget::new();
        if !fence {
            target.without_fence();
        }
        target.faults().add(Point::Commit, 0, Fault::Late);
        let (mut dead, _) = open(&target).await;
        assert_eq!(commit(&mut dead, 1).await, Some(ErrorKind::Timeout));
        assert_eq!(count(&target), 0);
        if opened {
            open(&target).await;
        }
        assert_eq!((target.land(), count(&target)), (lands, lands), "opened {opened}, fence {fence}");
        assert_eq!(target.land(), 0, "it lands once");
    }
}

#[tokio::test]
async fn a_target_keeps_checkpoints_apart_and_forgets_them_with_its_table() {
    let target = MemoryTarget::new();
    let (mut sink, _) = open(&target).await;
    assert_eq!(commit(&mut sink, 3).await, None);
    assert_eq!(target.checkpoint("test", "sink").map(|found| found.epoch), Some(3));
    assert_eq!(target.checkpoint("test", "other"), None);
    target.drop_table();
    assert_eq!((target.checkpoint("test", "sink"), target.rows()), (None, None));
    sink.close().await.unwrap();
    assert_eq!(target.calls(), ["open", "close"]);
}
