//! Every fault at every statement: in the end the table is exact, nothing of ours is left, and nothing hangs.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a failure in a test is its message")]

mod common;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use arrow_array::RecordBatch;
use async_trait::async_trait;
use common::{Place, Server, checkpoint, held, rows, run};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use towpath_core::{
    Call, Context, ErrorKind, Lease, Result, Retry, Secret, Sink as _,
    context::{Admission, Attempt, Credentials, Door},
};
use towpath_testkit::sql_server::{Event, Fault, What, When};

/// Tries again what can be, as the engine does, but at once.
struct Patient(usize);

#[async_trait]
impl Door for Patient {
    async fn pass<'a>(&self, _: &Call, attempt: &mut (dyn FnMut() -> Attempt<'a> + Send)) -> Result<Lease> {
        let mut tries = 0;
        loop {
            match attempt().await {
                Ok(()) => return Ok(Lease::new(|_| {})),
                Err(error) if tries < self.0 && error.retrying() != Retry::Never => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

struct Anybody;

/// Lets one in at a time, and nobody after a refusal.
#[derive(Default)]
struct Wary(Arc<tokio::sync::Mutex<bool>>);

#[async_trait]
impl Credentials for Wary {
    async fn admit(&self, _: &str, _: &str, _: &Secret) -> Result<Box<dyn Admission>> {
        let refused = Arc::clone(&self.0).lock_owned().await;
        if *refused {
            return Err(towpath_core::Error::new(ErrorKind::Auth, "it was refused before").retry(Retry::Never));
        }
        Ok(Box::new(Leave(refused)))
    }
}

struct Leave(tokio::sync::OwnedMutexGuard<bool>);

impl Admission for Leave {
    fn proven(self: Box<Self>) {}
    fn refused(mut self: Box<Self>) {
        *self.0 = true;
    }
    fn unsent(self: Box<Self>) {}
}

#[async_trait]
impl Credentials for Anybody {
    async fn admit(&self, _: &str, _: &str, _: &Secret) -> Result<Box<dyn Admission>> {
        Ok(Box::new(Anybody))
    }
}

impl Admission for Anybody {
    fn proven(self: Box<Self>) {}
    fn refused(self: Box<Self>) {}
    fn unsent(self: Box<Self>) {}
}

fn context(tries: usize) -> Context {
    Context::new("test".into(), "sink".into(), Arc::new(Patient(tries)), Arc::new(Anybody), CancellationToken::new())
}

/// Two epochs of two batches, with a row that is refused in each.
fn epochs() -> Vec<Vec<RecordBatch>> {
    let epoch = |first: i64| {
        let batch = |from: i64| {
            let mut table = "id:int|name|qty:int".to_owned();
            for id in from..from + 5 {
                table.push_str(&format!("\n{id}|n{id}|{}", if id % 7 == 3 { 0 } else { 1 }));
            }
            rows(&table)
        };
        vec![batch(first), batch(first + 5)]
    };
    vec![epoch(0), epoch(10)]
}

fn expected() -> Vec<String> {
    (0..20).filter(|id| id % 7 != 3).map(|id| format!("{id}|n{id}")).collect()
}

/// One attempt: from what the target holds to the end. How many rows were refused.
async fn attempt(place: &Place, options: &Value, tries: usize) -> Result<BTreeSet<String>> {
    let (mut sink, run, ctx, epochs) = (place.sink(options.clone()), run("r"), context(tries), epochs());
    let work = async {
        let at = held(&sink.open(&ctx, &run).await?).unwrap_or(0);
        let mut refused = BTreeSet::new();
        for (number, batches) in epochs.iter().enumerate().skip(usize::try_from(at).unwrap()) {
            for batch in batches {
                sink.schema(&batch.schema()).await?;
                sink.write(0, batch.clone()).await?;
            }
            for reject in sink.flush().await?.rejected {
                if let towpath_core::Original::Late(row) = reject.row {
                    refused.extend(common::text(&row));
                }
            }
            sink.commit(&checkpoint(&run, number as u64 + 1, number + 1 == epochs.len())).await?;
        }
        Ok(refused)
    };
    let done = work.await;
    sink.close().await?;
    done
}

/// Attempts until one comes to the end.
async fn load(place: &Place, options: &Value, tries: usize) -> usize {
    for count in 1..=6 {
        match attempt(place, options, tries).await {
            Ok(_) => return count,
            Err(error) => {
                let meant = error.can_retry() || error.is_outcome_unknown();
                assert!(meant, "an error that ends the run: {error}");
            }
        }
    }
    panic!("it does not come to an end");
}

async fn prepare(place: &Place, mode: &str) {
    let (key, hash) = match mode {
        "row_hash" => ("", ", row_hash binary(16) NOT NULL PRIMARY KEY NONCLUSTERED"),
        "append" | "replace" => ("", ""),
        _ => (" PRIMARY KEY", ""),
    };
    for table in ["t", "towpath_checkpoint"] {
        place.ask(&format!("IF OBJECT_ID(N'$.{table}') IS NOT NULL DROP TABLE $.{table}")).await;
    }
    place.ask(&format!("CREATE TABLE $.t (id int NOT NULL{key}, name nvarchar(20) NULL, qty int NULL CONSTRAINT positive CHECK (qty > 0){hash})")).await;
    if mode == "replace" {
        place.ask("INSERT INTO $.t (id, name, qty) VALUES (1000, N'old', 1)").await;
    }
}

async fn check(place: &Place, what: &str) {
    let found = place.ask("SELECT id, name FROM $.t ORDER BY id").await;
    assert_eq!(found, expected(), "{what}");
    assert_eq!(place.staging().await, [""; 0], "{what}");
}

/// Each with how often a call is tried anew before the attempt ends.
const FAULTS: [(What, usize); 5] =
    [(What::Deadlock, 0), (What::Error(1222), 3), (What::CutBefore, 3), (What::CutAfter, 3), (What::CutAfter, 0)];

async fn every_fault_at_every_statement(mode: &str, options: Value) {
    let server = Server::simulated().await;
    let (simulator, place) = (server.simulator.as_ref().unwrap(), server.place().await);
    prepare(&place, mode).await;
    let before = simulator.statements_seen().len();
    assert_eq!(load(&place, &options, 0).await, 1, "{mode}");
    let statements = simulator.statements_seen().split_off(before);
    check(&place, mode).await;
    let (mut tried, mut struck) = (0, 0);
    for (at, statement) in statements.iter().enumerate() {
        for (what, tries) in FAULTS {
            prepare(&place, mode).await;
            let name =
                format!("{mode}: {what:?} at statement {at} of {}, {tries} tries: {statement}", statements.len());
            simulator.faults().add(Fault { when: When::Nth(at as u64), what });
            let attempts = tokio::time::timeout(Duration::from_secs(60), load(&place, &options, tries)).await;
            let attempts = attempts.unwrap_or_else(|_| panic!("{name}: hangs"));
            (tried, struck) = (tried + 1, struck + usize::from(attempts > 1));
            assert!(tries == 0 || attempts <= 2, "{name}: {attempts} attempts");
            simulator.faults().clear();
            // What a cut connection has left is swept by the next run.
            if !place.staging().await.is_empty() {
                let mut next = place.sink(options.clone());
                next.open(&context(3), &run("next")).await.unwrap();
                next.close().await.unwrap();
            }
            check(&place, &name).await;
        }
    }
    assert_eq!(simulator.open_transactions(), 0, "{mode}");
    assert!(struck * 4 > tried, "{struck} of {tried} faults ended an attempt: {mode}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_append() {
    every_fault_at_every_statement("append", json!({"write": "append"})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_insert_new() {
    every_fault_at_every_statement("insert_new", json!({"write": "insert_new", "key": ["id"]})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_insert_new_by_row_hash() {
    every_fault_at_every_statement("row_hash", json!({"write": "insert_new", "key": "row_hash"})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_upsert() {
    every_fault_at_every_statement("upsert", json!({"write": "upsert", "key": ["id"]})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_replace() {
    every_fault_at_every_statement("replace", json!({"write": "replace"})).await;
}

/// Silence, a slow line, packets of a bulk load, sign-ins in the middle: each at places that the statements do not count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_between_statements() {
    let server = Server::simulated().await;
    let (simulator, place) = (server.simulator.as_ref().unwrap(), server.place().await);
    let long = Duration::from_secs(6);
    let statement = |text: &str| When::Matching(text.into(), 0);
    for (mode, mut options) in [
        ("append", json!({"write": "append"})),
        ("upsert", json!({"write": "upsert", "key": ["id"]})),
        ("row_hash", json!({"write": "insert_new", "key": "row_hash"})),
    ] {
        options["timeout"] = json!("2s");
        for (when, what) in [
            (When::NthBulkPacket(0), What::CutBefore),
            (When::NthBulkPacket(1), What::CutBefore),
            (When::NthBulkPacket(0), What::Deadlock),
            (When::NthBulkPacket(1), What::Error(1222)),
            (When::NthBulkPacket(0), What::Stall(Duration::from_millis(50))),
            (statement("INSERT INTO"), What::Stall(Duration::from_millis(50))),
            // Longer than a statement may take: it is stopped and made again.
            (statement("INSERT INTO [t"), What::Stall(long)),
            (statement("sp_getapplock"), What::Stall(long)),
            (statement("SELECT"), What::SlowRead(2000)),
            (statement("sys.columns"), What::SlowRead(2000)),
            (statement("COMMIT"), What::SlowRead(20)),
            (When::NthLogin(1), What::RefuseLogin),
        ] {
            prepare(&place, mode).await;
            let name = format!("{mode}: {what:?} at {when:?}");
            let refused = matches!(what, What::RefuseLogin);
            simulator.faults().add(Fault { when, what });
            if refused {
                // The connection breaks, and there is no other one. Nobody tries that again but a person, or the next run.
                simulator.faults().add(Fault { when: statement("sp_getapplock"), what: What::CutBefore });
                let error = attempt(&place, &options, 3).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Auth, "{name}: {error}");
            }
            let attempts = tokio::time::timeout(Duration::from_secs(60), load(&place, &options, 3)).await;
            let attempts = attempts.unwrap_or_else(|_| panic!("{name}: hangs"));
            assert!(attempts <= 2, "{name}: {attempts} attempts");
            assert_eq!(simulator.faults().pending(), 0, "{name}: it has struck");
            check(&place, &name).await;
        }
    }
    assert_eq!(simulator.open_transactions(), 0);
}

/// What Azure says when it moves a database or is asked too much of: by the door it is tried again, not before the pause that was asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failovers_and_throttling_pass() {
    let server = Server::simulated().await;
    let simulator = server.simulator.as_ref().unwrap();
    let pause = Retry::After(Duration::from_secs(10));
    for (number, kind, retry) in [
        (40613, ErrorKind::Unavailable, Retry::Again),
        (40197, ErrorKind::Unavailable, Retry::Again),
        (40540, ErrorKind::Unavailable, Retry::Again),
        (40501, ErrorKind::RateLimited, pause),
        (10928, ErrorKind::RateLimited, pause),
        (10929, ErrorKind::RateLimited, pause),
        (49918, ErrorKind::RateLimited, pause),
        (49920, ErrorKind::RateLimited, pause),
    ] {
        let place = server.place().await;
        let said = What::Message(number, "The service is busy or moves.".into());
        let fault = |when: &str| Fault { when: When::Matching(when.into(), 0), what: said.clone() };
        simulator.faults().add(fault("sp_getapplock"));
        let error = place.load(json!({"write": "append"}), &[rows("id:int\n1")]).await.unwrap_err();
        assert_eq!((error.kind(), error.retrying()), (kind, retry), "{number}: {error}");
        // With the end of the connection, as such errors come, too: behind the whole answer, or in the middle of it.
        for (when, what) in [
            ("sp_getapplock", What::Error(number)),
            ("sp_getapplock", What::ErrorCut(number)),
            ("SELECT fence, publish FROM", What::ErrorCut(number)),
            ("INSERT BULK", What::ErrorCut(number)),
            ("BULK LOAD", What::ErrorCut(number)),
        ] {
            let place = server.place().await;
            let logins = simulator.log().logins();
            simulator.faults().add(Fault { when: When::Every(when.into()), what: what.clone() });
            let error = place.load(json!({"write": "append"}), &[rows("id:int\n1")]).await.unwrap_err();
            simulator.faults().clear();
            assert!(
                error.to_string().ends_with(&format!(" (error {number})")),
                "{number}: {what:?} at {when}: {error}"
            );
            assert_eq!((error.kind(), error.retrying()), (kind, retry), "{number}: {what:?} at {when}: {error}");
            assert!(simulator.log().logins() > logins, "{number}");
        }
        for (when, what) in [
            ("sp_getapplock", said.clone()),
            ("sp_getapplock", What::ErrorCut(number)),
            ("INSERT BULK", What::ErrorCut(number)),
            ("BULK LOAD", What::Error(number)),
            ("INSERT INTO", said.clone()),
            ("INSERT INTO", What::Error(number)),
            ("INSERT INTO", What::ErrorCut(number)),
            ("COMMIT", What::Error(number)),
            ("COMMIT", What::ErrorCut(number)),
        ] {
            place.ask("IF OBJECT_ID(N'$.t') IS NOT NULL DROP TABLE $.t").await;
            simulator.faults().add(Fault { when: When::Matching(when.into(), 0), what: what.clone() });
            let (mut sink, run, batch) = (place.sink(json!({"write": "append"})), run("r"), rows("id:int\n1\n2"));
            sink.open(&context(2), &run).await.unwrap();
            sink.schema(&batch.schema()).await.unwrap();
            sink.write(0, batch).await.unwrap();
            sink.flush().await.unwrap();
            sink.commit(&checkpoint(&run, 1, true)).await.unwrap();
            sink.close().await.unwrap();
            assert_eq!(simulator.faults().pending(), 0, "{number} at {when}: it has struck");
            assert_eq!(place.ask("SELECT id FROM $.t ORDER BY id").await, ["1", "2"], "{number}: {what:?} at {when}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_password_goes_out_once() {
    let server = Server::simulated().await;
    let simulator = server.simulator.as_ref().unwrap();
    let before = simulator.log().refused();
    let wrong = format!("mssql://sa:wrong_Passw0rd@{}/towpath?encrypt=off", simulator.address());
    let options = json!({"connection": wrong, "table": "t", "write": "append"});
    let mut sink =
        towpath_connector_mssql::MssqlSink::new(&"sink".into(), serde_json::from_value(options).unwrap()).unwrap();
    let error = sink.open(&context(5), &run("r")).await.unwrap_err();
    sink.close().await.unwrap();
    assert_eq!(error.kind(), ErrorKind::Auth, "{error}");
    assert!(!format!("{error} {error:?}").contains("wrong_Passw0rd"), "{error}");
    assert_eq!(simulator.log().refused() - before, 1);
    insta::assert_snapshot!("refused", error.to_string().replace(&simulator.port().to_string(), "PORT"));
}

/// Nobody there: the reason and what to look at, and it may pass.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_there() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (at, reason) in [(format!("127.0.0.1:{closed}"), "refused"), ("no-such-host.invalid:1433".to_owned(), "lookup")]
    {
        let options = json!({"connection": format!("mssql://sa:x@{at}/db"), "table": "t", "write": "append"});
        let mut sink =
            towpath_connector_mssql::MssqlSink::new(&"sink".into(), serde_json::from_value(options).unwrap()).unwrap();
        let error = sink.open(&context(1), &run("r")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        let start = format!("cannot connect to {at}: ");
        assert!(error.message().starts_with(&start) && error.message().contains(reason), "{error}");
        assert!(error.what_to_do().unwrap().starts_with("check host and port"), "{error}");
    }
}

/// What the server says at the sign-in: whether it is asked again, and what it is called.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_at_the_sign_in() {
    let server = Server::simulated().await;
    let simulator = server.simulator.as_ref().unwrap();
    let place = server.place().await;
    let mut out = String::new();
    for (database, what, again) in [
        ("nosuch", None, false),
        ("towpath", Some(What::RefuseLogin), false),
        ("towpath", Some(What::LockAccount), false),
        // The server comes up; a database moves.
        ("towpath", Some(What::Message(18401, "Login failed for user 'sa'. Reason: Server is in script upgrade mode. Only administrator can connect at this time.".into())), true),
        ("towpath", Some(What::Error(922)), true),
        ("towpath", Some(What::Error(40613)), true),
        ("towpath", Some(What::Error(40197)), true),
    ] {
        let url = format!("mssql://sa:{}@{}/{database}?encrypt=off", common::PASSWORD, simulator.address());
        let options = json!({"connection": url, "table": format!("{}.t", place.schema), "write": "append"});
        let mut sink =
            towpath_connector_mssql::MssqlSink::new(&"sink".into(), serde_json::from_value(options).unwrap()).unwrap();
        let logins = || simulator.log().events().iter().filter(|(_, event)| matches!(event, Event::Login { .. })).count();
        let before = logins();
        if let Some(what) = what.clone() {
            simulator.faults().add(Fault { when: When::NthLogin(0), what });
        }
        let opened = sink.open(&context(3), &run("r")).await;
        sink.close().await.unwrap();
        simulator.faults().clear();
        simulator.faults().unlock();
        assert_eq!(opened.is_ok(), again, "{database} {what:?}: {opened:?}");
        assert_eq!(logins() - before, if again { 2 } else { 1 }, "{database} {what:?}");
        if let Err(error) = opened {
            let text = error.to_string().replace(&simulator.port().to_string(), "PORT");
            out.push_str(&format!("{text} ({})\n  {}\n", error.kind().name(), error.what_to_do().unwrap_or("-")));
        }
    }
    insta::assert_snapshot!("sign_in", out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cancelled_is_cancelled_on_the_server() {
    let server = Server::simulated().await;
    let simulator = server.simulator.as_ref().unwrap();
    let place = server.place().await;
    let (batch, run) = (rows("id:int\n1"), run("r"));
    let mut sink = place.sink(json!({"write": "append"}));
    sink.open(&context(0), &run).await.unwrap();
    sink.schema(&batch.schema()).await.unwrap();
    sink.write(0, batch).await.unwrap();
    let before = simulator.log().attentions();
    simulator.faults().add(Fault { when: When::Matching("INSERT INTO".into(), 0), what: What::Hold });
    let hanging = tokio::time::timeout(Duration::from_secs(2), sink.flush()).await;
    assert!(hanging.is_err(), "the publish is held: {:?}", hanging.map(|done| done.map(|_| ())));
    tokio::time::timeout(Duration::from_secs(12), sink.close()).await.expect("closing has an end").unwrap();
    assert_eq!(simulator.log().attentions(), before + 1);
    assert_eq!(simulator.open_transactions(), 0);
    assert_eq!(place.ask("SELECT COUNT(*) FROM $.t").await, ["0"]);
    assert_eq!(place.staging().await, [""; 0]);
}

/// A statement that takes longer than `timeout` is stopped on the server, wherever it stands, and told with what to do; nothing is left open, and the
/// next run is not held up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_takes_too_long_is_stopped_on_the_server() {
    let server = Server::simulated().await;
    let simulator = server.simulator.as_ref().unwrap();
    let mut out = String::new();
    for (mode, at, nth) in [
        ("append", "sp_getapplock", 0),
        ("append", "INSERT INTO [SCHEMA].[t]", 0),
        ("upsert", "UPDATE [SCHEMA].[t]", 0),
        ("upsert", "UPDATE [SCHEMA].[towpath_checkpoint] SET publish", 0),
        ("replace", "DELETE FROM [SCHEMA].[t]", 0),
        // The first is that of the fence.
        ("replace", "COMMIT", 1),
    ] {
        let place = server.place().await;
        let at = at.replace("SCHEMA", &place.schema);
        place.ask("CREATE TABLE $.t (id int NOT NULL PRIMARY KEY); INSERT INTO $.t VALUES (7)").await;
        let mut options = json!({"write": mode, "timeout": "500ms"});
        if mode == "upsert" {
            options["key"] = json!(["id"]);
            place.ask("ALTER TABLE $.t ADD n int NULL").await;
        }
        let given = if mode == "upsert" { rows("id:int|n:int\n1|1") } else { rows("id:int\n1") };
        let (before, rolled) = (simulator.log().attentions(), simulator.log().rollbacks());
        simulator.faults().add(Fault { when: When::Matching(at.clone(), nth), what: What::Hold });
        let error = place.load(options.clone(), std::slice::from_ref(&given)).await.unwrap_err();
        assert_eq!((simulator.faults().pending(), error.kind()), (0, ErrorKind::Timeout), "{mode} at {at}: {error}");
        assert_eq!(simulator.log().attentions(), before + 1, "{mode} at {at}");
        assert!(simulator.log().rollbacks() > rolled, "{mode} at {at}");
        assert_eq!(simulator.open_transactions(), 0, "{mode} at {at}");
        assert_eq!(place.ask("SELECT id FROM $.t").await, ["7"], "{mode} at {at}: as it was");
        let shown = error.to_string().replace(&place.schema, "schema").replace(&simulator.port().to_string(), "PORT");
        out.push_str(&format!("{shown} ({:?})\n  {}\n", error.retrying(), error.what_to_do().unwrap_or("-")));
        // In the same run: it is made again.
        simulator.faults().add(Fault { when: When::Matching(at.clone(), nth), what: What::Hold });
        let mut sink = place.sink(options);
        let (run, ctx) = (run("r2"), context(2));
        sink.open(&ctx, &run).await.unwrap();
        sink.schema(&given.schema()).await.unwrap();
        sink.write(0, given).await.unwrap();
        sink.flush().await.unwrap();
        sink.commit(&checkpoint(&run, 1, true)).await.unwrap();
        sink.close().await.unwrap();
        assert_eq!((simulator.faults().pending(), simulator.open_transactions()), (0, 0), "{mode} at {at}");
        let expect: &[&str] = if mode == "replace" { &["1"] } else { &["1", "7"] };
        assert_eq!(place.ask("SELECT id FROM $.t ORDER BY id").await, expect, "{mode} at {at}");
        assert_eq!(place.staging().await, [""; 0], "{mode} at {at}");
    }
    insta::assert_snapshot!("too_long", out);
}

/// An account that is locked in the middle of a load: the sessions that want in at once try it one after the other, and the first refusal is the last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_account_is_tried_once() {
    let server = Server::simulated().await;
    let simulator = server.simulator.as_ref().unwrap();
    for first in [0, 1, 2] {
        let place = server.place().await;
        let ctx = Context::new(
            "locked".into(),
            "sink".into(),
            Arc::new(Patient(5)),
            Arc::new(Wary::default()),
            CancellationToken::new(),
        );
        let refused = simulator.log().refused();
        simulator.faults().add(Fault { when: When::NthLogin(first), what: What::LockAccount });
        let batch = rows("id:int\n1\n2");
        let mut sink = place.sink(json!({"write": "append", "workers": 4}));
        let run = run("r");
        let load = async {
            sink.open(&ctx, &run).await?;
            sink.schema(&batch.schema()).await?;
            for _ in 0..8 {
                sink.write(0, batch.clone()).await?;
            }
            sink.flush().await?;
            sink.commit(&checkpoint(&run, 1, true)).await
        };
        let error = load.await.unwrap_err();
        sink.close().await.unwrap();
        assert_eq!((error.kind(), error.retrying()), (ErrorKind::Auth, Retry::Never), "{first}: {error}");
        assert!(
            error.to_string().contains("18486") || error.to_string().contains("refused before"),
            "{first}: {error}"
        );
        assert_eq!(simulator.log().refused() - refused, 1, "{first}");
        simulator.faults().unlock();
        simulator.faults().clear();
        assert_eq!(simulator.open_transactions(), 0, "{first}");
        let loaded = place.load(json!({"write": "append"}), &[batch]).await.unwrap();
        assert_eq!(loaded.counts(), (2, 0, 0), "{first}");
        assert_eq!(
            (place.ask("SELECT COUNT(*) FROM $.t").await, place.staging().await.len()),
            (vec!["2".to_owned()], 0)
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_say_what_to_do() {
    let server = Server::simulated().await;
    let simulator = server.simulator.as_ref().unwrap();
    let mut out = String::new();
    for (matching, what) in [
        (
            "INSERT INTO",
            What::Message(
                229,
                "The INSERT permission was denied on the object 't', database 'towpath', schema 'dbo'.".into(),
            ),
        ),
        ("CREATE TABLE", What::Message(262, "CREATE TABLE permission denied in database 'towpath'.".into())),
        ("INSERT INTO", What::Error(9002)),
        ("INSERT INTO", What::Error(40501)),
        ("sp_getapplock", What::Error(1205)),
    ] {
        let place = server.place().await;
        simulator.faults().add(Fault { when: When::Every(matching.into()), what: what.clone() });
        let error = place.load(json!({"write": "append"}), &[rows("id:int\n1")]).await.unwrap_err();
        simulator.faults().clear();
        let retry = match error.retrying() {
            Retry::Never => "never again",
            Retry::Again => "again",
            Retry::After(_) => "after a while",
        };
        let shown = error.to_string().replace(&place.schema, "schema").replace(&simulator.port().to_string(), "PORT");
        // The staging table's name has a hash in it.
        out.push_str(&format!(
            "{} ({}, {retry})\n  {}\n",
            shown,
            error.kind().name(),
            error.what_to_do().unwrap_or("-")
        ));
    }
    insta::assert_snapshot!("errors", out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_pipelines_load_one_table() {
    let server = Server::simulated().await;
    let place = server.place().await;
    place.ask("CREATE TABLE $.t (id bigint NOT NULL PRIMARY KEY, name nvarchar(20) NULL)").await;
    let of = |pipeline: &'static str| {
        Context::new(pipeline.into(), "sink".into(), Arc::new(Patient(20)), Arc::new(Anybody), CancellationToken::new())
    };
    let load = async |ctx: Context, options: Value| {
        let mut sink = place.sink(options);
        let run = run("r");
        sink.open(&ctx, &run).await.unwrap();
        for epoch in 0..10u64 {
            let mut table = "id:int|name".to_owned();
            (0..200).for_each(|id| table.push_str(&format!("\n{}|x", epoch * 100 + id)));
            let batch = rows(&table);
            sink.schema(&batch.schema()).await.unwrap();
            sink.write(epoch, batch).await.unwrap();
            assert!(sink.flush().await.unwrap().rejected.is_empty());
            sink.commit(&checkpoint(&run, epoch + 1, epoch == 9)).await.unwrap();
        }
        sink.close().await.unwrap();
    };
    let (new, up) = (json!({"write": "insert_new", "key": ["id"]}), json!({"write": "upsert", "key": ["id"]}));
    tokio::join!(load(of("one"), new.clone()), load(of("two"), up), load(of("three"), new));
    assert_eq!(place.ask("SELECT COUNT(*), COUNT(DISTINCT id), MAX(id) FROM $.t").await, ["1100|1100|1099"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_encrypted_as_asked() {
    use towpath_testkit::sql_server::{SqlServer, SqlServerOptions, TlsMode};
    for tls in [TlsMode::Off, TlsMode::Required, TlsMode::Strict] {
        let server = SqlServer::start(SqlServerOptions { tls, ..SqlServerOptions::default() }).await;
        let place = Place::new(&server.url()).await;
        let loaded = place.load(json!({"write": "append"}), &[rows("id:int\n1\n2")]).await.unwrap();
        assert_eq!(loaded.counts(), (2, 0, 0), "{tls:?}");
        let url = server.url();
        let plain = url.split('?').next().unwrap().to_owned();
        let ask = async |query: &str| {
            let console = towpath_connector_mssql::console::Console::new(&format!("{plain}{query}")).unwrap();
            let done = console.ask("SELECT 1").await;
            done.map(|_| ()).map_err(|error| {
                let text = format!("{error} | {}", error.what_to_do().unwrap_or("-"));
                // The certificate is made anew each time.
                let hex = text.split("sha256:").nth(1).map(|rest| rest.chars().take(64).collect::<String>());
                let text = text.replace(&server.port().to_string(), "PORT");
                hex.map_or(text.clone(), |hex| text.replace(&hex, "FINGERPRINT"))
            })
        };
        match tls {
            TlsMode::Off => {
                insta::assert_snapshot!("the_server_does_not_encrypt", ask("").await.unwrap_err());
                let error = ask("?encrypt=strict&connect_timeout=1s").await.unwrap_err();
                assert!(error.contains("write `encrypt=on`"), "{error}");
            }
            TlsMode::Required => {
                insta::assert_snapshot!("the_certificate_is_not_trusted", ask("").await.unwrap_err());
                insta::assert_snapshot!("the_server_wants_encryption", ask("?encrypt=off").await.unwrap_err());
                let pem = server.certificate_pem_path().unwrap().display().to_string();
                insta::assert_snapshot!(
                    "the_server_knows_no_tds_8",
                    ask("?encrypt=strict&connect_timeout=1s").await.unwrap_err()
                );
                ask(&format!("?pin={pem}")).await.unwrap();
                ask(&format!("?trust={pem}")).await.unwrap();
            }
            TlsMode::Strict => {
                assert!(ask("?encrypt=strict").await.unwrap_err().contains("not trusted"));
                insta::assert_snapshot!("the_server_wants_tds_8", ask("?encrypt=on").await.unwrap_err());
            }
        }
    }
}

/// A trigger that refuses a swap, by an error of its own or by taking everything back: the error says which, and the table is as it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_that_a_trigger_refuses_changes_nothing() {
    let server = Server::simulated().await;
    let simulator = server.simulator.as_ref().unwrap();
    let mut out = String::new();
    for (at, what) in [
        ("INSERT INTO [SCHEMA].[t]", What::Trigger("no_negative".into(), "A quantity is negative.".into())),
        ("DELETE FROM [SCHEMA].[t]", What::Trigger("no_deletes".into(), "Rows stay.".into())),
        (
            "INSERT INTO [SCHEMA].[t]",
            What::Message(3609, "The transaction ended in the trigger. The batch has been aborted.".into()),
        ),
    ] {
        let place = server.place().await;
        place.ask("CREATE TABLE $.t (id int NOT NULL, qty int NULL); INSERT INTO $.t VALUES (7, 7), (8, 8)").await;
        simulator.faults().add(Fault { when: When::Every(at.replace("SCHEMA", &place.schema)), what });
        let given = [rows("id:int|qty:int\n1|1\n2|-1"), rows("id:int|qty:int\n3|1")];
        let (mut sink, run, ctx) = (place.sink(json!({"write": "replace"})), run("r"), context(3));
        sink.open(&ctx, &run).await.unwrap();
        let mut refused = None;
        for (epoch, batch) in given.iter().enumerate() {
            sink.schema(&batch.schema()).await.unwrap();
            sink.write(0, batch.clone()).await.unwrap();
            sink.flush().await.unwrap();
            refused = sink.commit(&checkpoint(&run, epoch as u64 + 1, epoch == 1)).await.err();
            assert_eq!(refused.is_some(), epoch == 1, "{refused:?}");
        }
        sink.close().await.unwrap();
        let error = refused.unwrap();
        assert_eq!(error.kind(), ErrorKind::Data, "{error}");
        assert_eq!(place.ask("SELECT id, qty FROM $.t ORDER BY id").await, ["7|7", "8|8"], "{error}");
        assert_eq!(simulator.open_transactions(), 0, "{error}");
        let shown = error.to_string().replace(&place.schema, "schema").replace(&simulator.port().to_string(), "PORT");
        let hint = error.what_to_do().unwrap().replace(&place.schema, "schema");
        out.push_str(&format!("{shown}\n  {hint}\n"));
        // When it is mended, the run is taken up: what it has staged is there.
        simulator.faults().clear();
        let mut sink = place.sink(json!({"write": "replace"}));
        assert_eq!(held(&sink.open(&ctx, &run).await.unwrap()), Some(1));
        sink.schema(&given[1].schema()).await.unwrap();
        sink.write(1, given[1].clone()).await.unwrap();
        sink.flush().await.unwrap();
        sink.commit(&checkpoint(&run, 2, true)).await.unwrap();
        sink.close().await.unwrap();
        assert_eq!(place.ask("SELECT id, qty FROM $.t ORDER BY id").await, ["1|1", "2|-1", "3|1"]);
        assert_eq!(place.staging().await, [""; 0]);
    }
    insta::assert_snapshot!("triggers", out);
}
