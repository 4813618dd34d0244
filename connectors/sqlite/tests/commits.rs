//! What is durable when: fences, checkpoints, crashes between any two calls, company in the same file.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a failure in a test is its message")]

mod common;

use common::*;
use serde_json::json;
use towpath_core::{ErrorKind, Sink as _};

fn modes() -> [serde_json::Value; 5] {
    [append(), insert_new(), by_hash(), upsert(), replace()]
}

/// What a reader sees, if there is a table.
fn seen(place: &Place) -> Vec<String> {
    let there = place.ask("SELECT count(*) FROM sqlite_schema WHERE name = 't'") == ["1"];
    if there { place.ask("SELECT id, name FROM t ORDER BY id, name") } else { vec![] }
}

/// Dies after every possible number of calls, opens again, finishes the run from where the target stands: nothing lost, nothing doubled.
#[tokio::test]
async fn death_between_any_two_calls_loses_and_doubles_nothing() {
    let epochs = [rows("id:int|name\n1|a\n2|b"), rows("id:int|name\n3|c"), rows("id:int|name\n4|d\n5|e")];
    let all = ["1|a", "2|b", "3|c", "4|d", "5|e"];
    for options in modes() {
        let replaces = options == replace();
        for death in 0..=16 {
            let place = Place::new();
            if replaces {
                place.sql("CREATE TABLE t (id INTEGER, name TEXT); INSERT INTO t VALUES (0, 'old')");
            }
            let run = run("run-1");
            let mut left = death;
            let mut committed = 0;
            for _attempt in 0..2 {
                let mut sink = place.sink(options.clone());
                let stands = held(&sink.open(&ctx(), &run).await.unwrap()).unwrap_or(0);
                assert_eq!(stands, committed, "{options} {death}");
                let mut alive = || {
                    left -= 1;
                    left != 0
                };
                'living: for epoch in stands..3 {
                    let rows = &epochs[epoch as usize];
                    if !alive() {
                        break 'living;
                    }
                    sink.schema(&rows.schema()).await.unwrap();
                    for row in 0..rows.num_rows() {
                        sink.write(row as u64, rows.slice(row, 1)).await.unwrap();
                        if !alive() {
                            break 'living;
                        }
                    }
                    sink.flush().await.unwrap();
                    if !alive() {
                        break 'living;
                    }
                    sink.commit(&checkpoint(&run, epoch + 1, epoch == 2)).await.unwrap();
                    committed = epoch + 1;
                    if !alive() {
                        break 'living;
                    }
                }
                let expect = match (replaces, committed) {
                    (true, 0..3) => &["0|old"][..],
                    (_, committed) => &all[..[0, 2, 3, 5][committed as usize]],
                };
                assert_eq!(seen(&place), expect, "{options} {death}");
                // Dropped, not closed: as a process that is gone.
                drop(sink);
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                left = i32::MAX;
            }
            assert_eq!(seen(&place), all, "{options} {death}");
        }
    }
}

#[tokio::test]
async fn a_commit_behind_a_raised_fence_changes_nothing() {
    for options in modes() {
        let place = Place::new();
        place.load(options.clone(), &[rows("id:int|name\n1|a")]).await.unwrap();
        let (old_run, new_run) = (run("run-2"), run("run-3"));
        // Two processes: contexts of two pipelines would share nothing, so the second sink must not share the first one's thread.
        for stage in 0..3 {
            let before = seen(&place);
            let mut old = place.sink(options.clone());
            old.open(&ctx(), &old_run).await.unwrap();
            let batch = rows("id:int|name\n9|z");
            if stage > 0 {
                old.schema(&batch.schema()).await.unwrap();
                old.write(0, batch.clone()).await.unwrap();
            }
            // What another process does when it opens.
            place.sql("UPDATE towpath_checkpoint SET fence = fence + 1");
            let refused = async {
                if stage == 0 {
                    old.schema(&batch.schema()).await?;
                }
                if stage == 1 {
                    old.write(1, batch.clone()).await?;
                }
                old.flush().await?;
                old.commit(&checkpoint(&old_run, 2, true)).await
            };
            let error = refused.await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
            assert!(error.to_string().contains("another process has opened test/sink"), "{error}");
            old.close().await.unwrap();
            assert_eq!(seen(&place), before, "{options} {stage}");
        }
        let loaded = place.load(options.clone(), &[rows("id:int|name\n2|b")]).await.unwrap();
        assert_eq!(loaded.written, 1, "{options} {new_run:?}");
    }
}

/// A second process raises the fence while the first one stands between flush and commit: it waits, then says who is in the way.
#[tokio::test]
async fn a_held_lock_is_waited_for_and_then_named() {
    let place = Place::new();
    let impatient = json!({"write": "append", "lock_timeout": "300ms"});
    let other = place.db();
    other.execute_batch("PRAGMA journal_mode = WAL; BEGIN IMMEDIATE").unwrap();
    let error = place.load(impatient.clone(), &[rows("id:int|name\n1|a")]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("another program has held the file's write lock"), "{error}");
    assert!(error.can_retry() && error.what_to_do().unwrap().contains("lock_timeout"));
    let patient = json!({"write": "append", "lock_timeout": "60s"});
    let (loaded, ()) = tokio::join!(place.load(patient, &[]), async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        other.execute_batch("ROLLBACK").unwrap();
    });
    loaded.unwrap();
}

#[tokio::test]
async fn waiting_for_a_lock_ends_when_the_run_is_cancelled() {
    let place = Place::new();
    let mut sink = place.sink(json!({"write": "append", "lock_timeout": "1h"}));
    let run = run("run-1");
    sink.open(&ctx(), &run).await.unwrap();
    let other = place.db();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let soon = std::time::Duration::from_millis(200);
    assert!(tokio::time::timeout(soon, sink.flush()).await.is_err(), "it waits");
    sink.close().await.unwrap();
}

#[tokio::test]
async fn a_table_made_anew_has_no_checkpoint() {
    for options in modes() {
        for after in [
            "DROP TABLE t",
            "DROP TABLE t; CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, row_hash BLOB)",
            "ALTER TABLE t RENAME TO u",
        ] {
            let place = Place::new();
            place.load(options.clone(), &[rows("id:int|name\n1|a")]).await.unwrap();
            let mut sink = place.sink(options.clone());
            assert_eq!(held(&sink.open(&ctx(), &run("run-1")).await.unwrap()), Some(1), "{options}");
            sink.close().await.unwrap();
            place.sql(after);
            assert_eq!(held(&sink.open(&ctx(), &run("run-1")).await.unwrap()), None, "{options} {after}");
            sink.close().await.unwrap();
        }
        let place = Place::new();
        place.load(options.clone(), &[rows("id:int|name\n1|a")]).await.unwrap();
        place.sql("DELETE FROM t; VACUUM; ALTER TABLE t ADD COLUMN more TEXT");
        let mut sink = place.sink(options.clone());
        assert_eq!(
            held(&sink.open(&ctx(), &run("run-1")).await.unwrap()),
            Some(1),
            "emptied and rebuilt is still the same table"
        );
        sink.close().await.unwrap();
    }
}

#[tokio::test]
async fn an_epoch_without_rows_is_committed_all_the_same() {
    for options in modes() {
        let place = Place::new();
        let run = run("run-1");
        let mut sink = place.sink(options);
        for epoch in 1..=2 {
            sink.open(&ctx(), &run).await.unwrap();
            assert_eq!(sink.flush().await.unwrap().written, 0);
            sink.commit(&checkpoint(&run, epoch, epoch == 2)).await.unwrap();
            sink.close().await.unwrap();
            assert_eq!(held(&sink.open(&ctx(), &run).await.unwrap()), Some(epoch));
            sink.close().await.unwrap();
        }
    }
}

#[tokio::test]
async fn replace_shows_the_old_rows_until_the_last_commit() {
    let place = Place::new();
    place.sql("CREATE TABLE t (id INTEGER, name TEXT); INSERT INTO t VALUES (0, 'old')");
    let reader = place.db();
    let mut sink = place.sink(replace());
    let run = run("run-1");
    sink.open(&ctx(), &run).await.unwrap();
    reader.execute_batch("PRAGMA journal_mode; BEGIN").unwrap();
    assert_eq!(ask(&reader, "SELECT * FROM t"), ["0|old"]);
    for epoch in 1..=3 {
        let batch = rows(&format!("id:int|name\n{epoch}|new"));
        sink.schema(&batch.schema()).await.unwrap();
        sink.write(epoch, batch).await.unwrap();
        sink.flush().await.unwrap();
        assert_eq!(place.rows(), ["0|old"]);
        sink.commit(&checkpoint(&run, epoch, epoch == 3)).await.unwrap();
    }
    assert_eq!(ask(&reader, "SELECT * FROM t"), ["0|old"], "a reader in the middle goes on with what it began with");
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!(ask(&reader, "SELECT * FROM t"), ["1|new", "2|new", "3|new"]);
    sink.close().await.unwrap();
}

/// Sinks of one pipeline in one file flush in lockstep, before the first commits: they share a transaction.
#[tokio::test]
async fn sinks_of_one_file_commit_together_or_not_at_all() {
    let orders = || json!({"write": "append", "table": "orders"});
    for gives_up in [false, true] {
        let place = Place::new();
        let run = run("run-1");
        let (mut first, mut second) = (place.sink(orders()), place.sink(append()));
        let contexts = ["first", "second"].map(towpath_core::Context::bare);
        first.open(&contexts[0], &run).await.unwrap();
        second.open(&contexts[1], &run).await.unwrap();
        let batch = rows("id:int|name\n1|a");
        for sink in [&mut first, &mut second] {
            sink.schema(&batch.schema()).await.unwrap();
            sink.write(0, batch.clone()).await.unwrap();
        }
        first.flush().await.unwrap();
        second.flush().await.unwrap();
        assert_eq!(seen(&place), [""; 0]);
        let stand = checkpoint(&run, 1, true);
        if gives_up {
            let (done, closed) = tokio::join!(first.commit(&stand), second.close());
            closed.unwrap();
            let error = done.unwrap_err();
            assert!(error.to_string().contains("another sink of the same file failed"), "{error}");
            first.close().await.unwrap();
            assert_eq!(seen(&place), [""; 0]);
            assert_eq!(place.ask("SELECT count(*) FROM orders"), ["0"]);
            assert_eq!(place.ask("SELECT count(*) FROM towpath_checkpoint WHERE epoch IS NOT NULL"), ["0"]);
        } else {
            let (one, two) = tokio::join!(first.commit(&stand), second.commit(&stand));
            one.unwrap();
            two.unwrap();
            first.close().await.unwrap();
            second.close().await.unwrap();
            assert_eq!(seen(&place), ["1|a"]);
            assert_eq!(place.ask("SELECT sink, epoch FROM towpath_checkpoint"), ["first|1", "second|1"]);
        }
    }
}

#[tokio::test]
async fn another_run_throws_away_what_was_staged() {
    let place = Place::new();
    place.load(replace(), &[rows("id:int|name\n0|old")]).await.unwrap();
    let mut sink = place.sink(replace());
    let died = run("run-2");
    sink.open(&ctx(), &died).await.unwrap();
    let batch = rows("id:int|name\n1|half");
    sink.schema(&batch.schema()).await.unwrap();
    sink.write(0, batch).await.unwrap();
    sink.flush().await.unwrap();
    sink.commit(&checkpoint(&died, 2, false)).await.unwrap();
    sink.close().await.unwrap();
    let loaded = place.load(replace(), &[rows("id:int|name\n2|new")]).await.unwrap();
    assert_eq!(loaded.written, 1);
    assert_eq!(place.rows(), ["2|new"]);
}

#[tokio::test]
async fn close_waits_for_the_end_of_the_thread() {
    // The thread owns the connection, and SQLite removes the log when the last connection closes.
    let place = Place::new();
    place.load(append(), &[rows("id:int|name\n1|a")]).await.unwrap();
    assert!(!place.dir().join("data.db-wal").exists(), "the connection is closed when close returns");
    let left: Vec<_> = std::fs::read_dir(place.dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["data.db"]);
}
