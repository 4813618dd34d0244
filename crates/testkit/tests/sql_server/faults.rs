//! Faults strike where they should; attentions, disconnects, locks.

use std::time::Duration;

use futures::TryStreamExt as _;
use towpath_testkit::sql_server::{Event, Fault, What, When};

use crate::{Conn, client, login, number, run, server};

/// Waits until something holds.
async fn until(what: impl Fn() -> bool) {
    for _ in 0..1000 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not come to that");
}

const JOB: [&str; 4] =
    ["SET XACT_ABORT ON; BEGIN TRANSACTION", "INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)", "COMMIT"];

async fn job(client: &mut Conn) -> tiberius::Result<()> {
    for sql in JOB {
        run(client, sql).await?;
    }
    Ok(())
}

#[tokio::test]
async fn every_fault_at_every_statement() {
    for what in
        [What::Deadlock, What::Error(1222), What::Message(50_001, "mine".to_owned()), What::CutBefore, What::CutAfter]
    {
        for at in 0..5 {
            let server = server().await;
            server.execute("CREATE TABLE t (a int)");
            let mut client = client(&server).await;
            server.faults().add(Fault { when: When::Nth(at), what: what.clone() });
            let outcome = job(&mut client).await;
            let case = format!("{what:?} at {at}");
            assert!(outcome.is_err(), "{case}");
            match &what {
                What::Deadlock => assert_eq!(number(outcome), 1205, "{case}"),
                What::Error(n) => assert_eq!(number(outcome), u32::try_from(*n).unwrap(), "{case}"),
                What::Message(..) => assert_eq!(number(outcome), 50_001, "{case}"),
                _ => assert_eq!(number(outcome), 1, "{case}: no error of the server's"),
            }
            drop(client);
            until(|| server.open_sessions() == 0).await;
            assert_eq!(server.open_transactions(), 0, "{case}");
            let kept = what == What::CutAfter && at == 4;
            let rows = server.query("SELECT COUNT(*) FROM t")[0][0].clone();
            assert_eq!(rows.as_deref(), Some(if kept { "2" } else { "0" }), "{case}");
            assert_eq!((server.log().commits(), server.faults().pending()), (usize::from(kept), 0), "{case}");
        }
    }
    let server = server().await;
    server.execute("CREATE TABLE t (a int)");
    job(&mut client(&server).await).await.unwrap();
    assert_eq!(server.statements_seen().len(), 5, "{:?}", server.statements_seen());
}

#[tokio::test]
async fn the_transaction_manager_is_a_statement_too() {
    let server = server().await;
    server.execute("CREATE TABLE t (a int)");
    let mut client = client(&server).await;
    client.begin_transaction().await.unwrap();
    run(&mut client, "INSERT INTO t VALUES (1)").await.unwrap();
    client.save_transaction("here").await.unwrap();
    run(&mut client, "INSERT INTO t VALUES (2)").await.unwrap();
    client.rollback_transaction().await.unwrap();
    client.begin_transaction().await.unwrap();
    run(&mut client, "INSERT INTO t VALUES (3)").await.unwrap();
    server.faults().add(Fault { when: When::NthCommit(0), what: What::Error(1222) });
    assert_eq!(number(client.commit_transaction().await), 1222);
    client.commit_transaction().await.unwrap();
    assert_eq!(server.query("SELECT a FROM t"), [[Some("3".to_owned())]]);
    assert_eq!((server.log().commits(), server.log().rollbacks()), (1, 1));
}

#[tokio::test]
async fn logins_can_be_refused_and_locked() {
    let server = server().await;
    server.faults().add(Fault { when: When::NthLogin(1), what: What::RefuseLogin });
    server.faults().add(Fault { when: When::NthLogin(2), what: What::LockAccount });
    let mut numbers = vec![];
    for _ in 0..4 {
        numbers.push(number(login(&server, "towpath_Test1").await));
    }
    assert_eq!(numbers, [0, 18456, 18486, 18486]);
    server.faults().unlock();
    assert_eq!(number(login(&server, "towpath_Test1").await), 0);
}

#[tokio::test]
async fn a_client_can_ask_to_stop() {
    let server = server().await;
    server.execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
    let mut client = client(&server).await;
    run(&mut client, "SET XACT_ABORT ON").await.unwrap();
    run(&mut client, "BEGIN TRANSACTION; DELETE FROM t").await.unwrap();
    let slow = "WITH n AS (SELECT 1 AS a UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5 UNION ALL SELECT 6
                UNION ALL SELECT 7 UNION ALL SELECT 8)
                SELECT x.a FROM n x, n b, n c, n d, n e, n f, n g, n h, n i, n j";
    // Between two rows: a tiberius that is stopped in the middle of one cannot read on.
    {
        let mut stream = client.simple_query(slow).await.unwrap();
        for _ in 0..100 {
            stream.try_next().await.unwrap().unwrap();
        }
    }
    client.cancel_query().await.unwrap();
    until(|| server.open_transactions() == 0).await;
    let waiting = tokio::time::timeout(Duration::from_millis(300), run(&mut client, "WAITFOR DELAY '01:00:00'"));
    assert!(waiting.await.is_err(), "it ended by itself");
    client.cancel_query().await.unwrap();
    assert_eq!(server.log().attentions(), 2);
    run(&mut client, "SELECT 1").await.unwrap();
    assert_eq!(server.query("SELECT a FROM t").len(), 1, "rolled back");
}

#[tokio::test]
async fn stalls_and_holds_end_when_told() {
    let server = server().await;
    let mut client = client(&server).await;
    server.faults().add(Fault { when: When::Matching("held".to_owned(), 0), what: What::Hold });
    let faults = server.faults().clone();
    let log = server.log().clone();
    let held = tokio::spawn(async move {
        run(&mut client, "SELECT 1 AS held").await.unwrap();
        client
    });
    until(|| log.count(|event| matches!(event, Event::Fault(_))) == 1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!held.is_finished());
    faults.release();
    held.await.unwrap();
}

#[tokio::test]
async fn application_locks_have_one_holder_and_circles_a_victim() {
    let server = server().await;
    server.execute("CREATE TABLE t (a int)");
    let (mut one, mut two) = (client(&server).await, client(&server).await);
    let lock = |timeout: i32| {
        format!(
            "BEGIN TRANSACTION; DECLARE @r int; EXEC @r = sp_getapplock @Resource = N'x', @LockMode = 'Exclusive', @LockOwner = 'Transaction',
             @LockTimeout = {timeout}; IF @r < 0 BEGIN ROLLBACK; THROW 50009, N'no lock', 1; END"
        )
    };
    run(&mut one, &lock(-1)).await.unwrap();
    assert_eq!(number(run(&mut two, &lock(50)).await), 50_009);
    // The second writes, and waits for the lock of the first, who wants to write.
    run(&mut two, "SET XACT_ABORT ON; BEGIN TRANSACTION; INSERT INTO t VALUES (1)").await.unwrap();
    run(&mut two, "SET LOCK_TIMEOUT -1").await.unwrap();
    run(&mut one, "SET LOCK_TIMEOUT -1").await.unwrap();
    let waits = tokio::spawn(async move {
        let sql = "DECLARE @r int; EXEC @r = sp_getapplock @Resource = N'x', @LockMode = 'Exclusive'; IF @r < 0 THROW 50009, N'no lock', 1";
        (number(run(&mut two, sql).await), two)
    });
    let mine = number(run(&mut one, "INSERT INTO t VALUES (2)").await);
    if mine == 0 {
        run(&mut one, "COMMIT").await.unwrap();
    }
    let (theirs, two) = waits.await.unwrap();
    assert!((mine, theirs) == (1205, 0) || (mine, theirs) == (0, 50_009), "{mine} {theirs}");
    // The second's transaction is open yet, if it was not the victim.
    let expect = if mine == 0 { 0 } else { 1222 };
    assert_eq!(number(run(&mut one, "SET LOCK_TIMEOUT 100; INSERT INTO t VALUES (3)").await), expect);
    drop(two);
}

/// An error that ends the connection is told before the end; where a fault says so, without the end of the answer, and then a client may miss it.
#[tokio::test]
async fn a_fatal_error_is_told_and_ends_the_connection() {
    let fatal = |number: i32| Fault { when: When::Matching("SELECT 1".to_owned(), 0), what: What::Error(number) };
    let cut = Fault { when: When::Matching("SELECT 1".to_owned(), 0), what: What::ErrorCut(1222) };
    for (fault, told) in [(fatal(40501), 40501), (fatal(10929), 10929), (cut, 1)] {
        let server = server().await;
        server.execute("CREATE TABLE t (a int)");
        let mut client = client(&server).await;
        run(&mut client, "BEGIN TRANSACTION; INSERT INTO t VALUES (1)").await.unwrap();
        server.faults().add(fault.clone());
        assert_eq!(number(run(&mut client, "SELECT 1").await), told, "{fault:?}");
        until(|| server.open_sessions() == 0).await;
        assert_eq!((server.open_transactions(), server.query("SELECT a FROM t").len()), (0, 0), "{fault:?}");
        assert!(run(&mut client, "SELECT 2").await.is_err(), "{fault:?}");
    }
}
