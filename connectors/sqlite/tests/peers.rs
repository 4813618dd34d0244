//! Others in the same file: the sqlite3 shell reads what we wrote, and a second writer fights for the fence.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a failure in a test is its message")]

mod common;

use std::process::{Command, Stdio};

use common::*;
use towpath_core::{ErrorKind, Sink as _};

/// The shell, if this machine has one. With `REQUIRE_PEERS=1` it must.
fn shell() -> Option<()> {
    let found =
        Command::new("sqlite3").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    if !found {
        assert!(std::env::var("REQUIRE_PEERS").as_deref() != Ok("1"), "the sqlite3 shell is missing");
        eprintln!("SKIPPED: there is no sqlite3 shell on this machine");
    }
    found.then_some(())
}

fn ask_shell(place: &Place, sql: &str) -> String {
    let out = Command::new("sqlite3").arg(place.path()).arg(sql).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

#[tokio::test]
async fn the_shell_reads_what_we_wrote() {
    if shell().is_none() {
        return;
    }
    for options in [append(), replace(), by_hash(), insert_new(), upsert()] {
        let place = Place::new();
        place.load(options.clone(), &[rows("id:int|name|x:float\n1|it's|0.5\n2|∅|∅")]).await.unwrap();
        assert_eq!(
            ask_shell(&place, "SELECT id, name, x, typeof(x) FROM t ORDER BY id"),
            "1|it's|0.5|real\n2|||null\n",
            "{options}"
        );
        assert_eq!(ask_shell(&place, "PRAGMA integrity_check"), "ok\n");
        assert_eq!(
            ask_shell(&place, "SELECT epoch, json_extract(checkpoint, '$.last') FROM towpath_checkpoint"),
            "1|1\n"
        );
    }
}

#[tokio::test]
async fn a_reader_is_not_held_up_by_rows_that_wait() {
    if shell().is_none() {
        return;
    }
    for options in [append(), replace(), by_hash(), upsert()] {
        let place = Place::new();
        let mut sink = place.sink(options);
        let run = run("run-1");
        let batch = rows("id:int|name\n1|a");
        sink.open(&ctx(), &run).await.unwrap();
        sink.schema(&batch.schema()).await.unwrap();
        sink.write(0, batch).await.unwrap();
        // Until the flush not even a writer is.
        ask_shell(&place, "CREATE TABLE other (x); INSERT INTO other VALUES (1)");
        sink.flush().await.unwrap();
        assert_eq!(ask_shell(&place, "SELECT count(*) FROM other"), "1\n");
        sink.commit(&checkpoint(&run, 1, true)).await.unwrap();
        sink.close().await.unwrap();
        assert_eq!(ask_shell(&place, "SELECT id, name FROM t"), "1|a\n");
    }
}

/// Two writers of one pipeline, each with a connection of its own (they know the folder by two names), open, write and commit as fast as
/// they can. Whoever was overtaken hears so; what was committed is there once.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_writers_fight_and_nothing_is_lost_or_doubled() {
    for options in [append(), replace(), by_hash(), upsert()] {
        let place = Place::new();
        let alias = tempfile::tempdir().unwrap();
        let other_name = alias.path().join("same");
        std::os::unix::fs::symlink(place.dir(), &other_name).unwrap();
        let fight = |who: i64, path: std::path::PathBuf| {
            let mut options = options.clone();
            options["path"] = path.to_str().unwrap().into();
            options["table"] = "t".into();
            tokio::spawn(async move {
                let (mut committed, mut lost) = (vec![], 0);
                for round in 0..25 {
                    let options = serde_json::from_value(options.clone()).unwrap();
                    let mut sink = towpath_connector_sqlite::SqliteSink::new(&"sink".into(), options).unwrap();
                    let run = run(&format!("run-{who}-{round}"));
                    let id = who * 1000 + round;
                    let batch = rows(&format!("id:int|name\n{id}|x"));
                    let done = async {
                        sink.open(&ctx(), &run).await?;
                        sink.schema(&batch.schema()).await?;
                        sink.write(0, batch).await?;
                        tokio::task::yield_now().await;
                        sink.flush().await?;
                        sink.commit(&checkpoint(&run, 1, true)).await
                    };
                    match done.await {
                        Ok(()) => committed.push(id),
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
                            lost += 1;
                        }
                    }
                    sink.close().await.unwrap();
                }
                (committed, lost)
            })
        };
        let (one, two) = tokio::join!(fight(1, place.path()), fight(2, other_name.join("data.db")));
        let ((mut ids, lost_one), (more, lost_two)) = (one.unwrap(), two.unwrap());
        ids.extend(more);
        assert_eq!(ids.len() + lost_one + lost_two, 50);
        let there: Vec<i64> = place.ask("SELECT id FROM t ORDER BY id").iter().map(|id| id.parse().unwrap()).collect();
        if options == replace() {
            assert!(there.len() == 1 && ids.contains(&there[0]), "{there:?}");
        } else {
            assert_eq!(there, ids, "{options}");
        }
    }
}
