//! The same on the simulator, and what only it can show: who was told to stop, and every way of breaking off.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use towpath_core::{ErrorKind, Mark, Next, Resume, Source as _};
use towpath_testkit::sql_server::{Event, Fault, SqlServer, SqlServerOptions, What, When};

use crate::{
    common::{Place, run, text},
    conformance,
    given::{Given, behind, ctx, read, source},
};

/// A server, and a schema in it with a table of numbers.
async fn numbers(count: usize) -> (SqlServer, Place) {
    let server = SqlServer::start(SqlServerOptions::default()).await;
    let place = Place::new(&server.url()).await;
    place.ask("CREATE TABLE $.t (i int PRIMARY KEY, x nvarchar(100) NULL)").await;
    place.ask("INSERT INTO $.t VALUES (1, REPLICATE(N'x', 100))").await;
    let mut have = 1;
    while have < count {
        let more = have.min(count - have);
        place.ask(&format!("INSERT INTO $.t SELECT i + {have}, x FROM $.t WHERE i <= {more}")).await;
        have += more;
    }
    server.log().clear();
    (server, place)
}

/// Waits until something is so; it must be within a few seconds.
async fn soon(what: &str, is: impl Fn() -> bool) {
    for _ in 0..500 {
        if is() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not so after 5 s: {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_simulator_shows_what_a_server_must() {
    let server = SqlServer::start(SqlServerOptions::default()).await;
    crate::cases::all(&server.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_source_keeps_its_promises() {
    let server = SqlServer::start(SqlServerOptions::default()).await;
    conformance::suite(&server.url()).await;
    assert_eq!(server.open_transactions(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_with_brackets_are_read() {
    let (_server, place) = numbers(1).await;
    place.ask("CREATE TABLE $.[odd ]]name] ([c]]d] int, [größe] int)").await;
    place.ask("INSERT INTO $.[odd ]]name] VALUES (1, 2)").await;
    let options = json!({"table": "$.[odd ]]name]", "cursor": "c]d"});
    assert_eq!(read(&place, options, "run-1", &Resume::default()).await.unwrap().rows, ["1|2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_in_the_middle_tells_the_server() {
    for options in [json!({}), json!({"cursor": "i"}), json!({"snapshot": true}), json!({"partitions": 2})] {
        let (server, place) = numbers(60_000).await;
        let mut source = source(&place, options.clone());
        source.open(&ctx(), &run("run-1"), &Resume::default()).await.unwrap();
        assert!(matches!(source.next().await.unwrap(), Next::Piece(_)), "{options}");
        source.close().await.unwrap();
        let ends = options.get("partitions").map_or(1, |_| 2);
        assert_eq!(server.log().attentions(), ends, "{options}");
        soon("no transaction is open", || server.open_transactions() == 0).await;
        soon("only the console is connected", || server.open_sessions() <= 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_one_transaction() {
    let (server, place) = numbers(20_000).await;
    let given = read(&place, json!({"snapshot": true}), "run-1", &Resume::default()).await.unwrap();
    assert_eq!(given.rows.len(), 20_000);
    let about = |text: &String| {
        ["SNAPSHOT", "BEGIN", "COMMIT", "SELECT [i]", "READ COMMITTED"].iter().any(|part| text.contains(part))
    };
    let told: Vec<_> = server.statements_seen().into_iter().filter(about).collect();
    insta::assert_snapshot!(told.join("\n").replace(&place.schema, "$"));
    assert_eq!((server.log().commits(), server.open_transactions()), (1, 0));
    let refused =
        Fault { when: When::Matching("SELECT [i]".to_owned(), 0), what: What::Message(3952, SNAPSHOT.to_owned()) };
    server.faults().add(refused);
    let error = read(&place, json!({"snapshot": true}), "run-2", &Resume::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    let hint = "ALTER DATABASE [towpath] SET ALLOW_SNAPSHOT_ISOLATION ON, or leave out `snapshot`";
    assert_eq!(error.what_to_do(), Some(hint));
    soon("no transaction is open", || server.open_transactions() == 0).await;
}

const SNAPSHOT: &str = "Snapshot isolation transaction failed accessing database 'towpath' because snapshot isolation is not allowed in \
                        this database. Use ALTER DATABASE to allow snapshot isolation.";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_server_is_given_up_and_told() {
    let (server, place) = numbers(10).await;
    server.faults().add(Fault { when: When::Matching("SELECT [i]".to_owned(), 0), what: What::Hold });
    let error = read(&place, json!({"timeout": "300ms"}), "run-1", &Resume::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(error.can_retry() && error.what_to_do().is_some_and(|hint| hint.contains("`timeout`")), "{error}");
    soon("the server was told to stop", || server.log().attentions() == 1).await;
    let given = read(&place, json!({"timeout": "300ms"}), "run-1", &Resume::default()).await.unwrap();
    assert_eq!(given.rows.len(), 10);
}

/// Every statement of a reading fails in turn, in every way: nothing comes that is not of the table, an error says what it is, nothing
/// hangs, and the next reading is whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_at_every_statement() {
    for options in
        [json!({}), json!({"cursor": "i", "partitions": 2}), json!({"query": "SELECT i FROM $.t", "snapshot": true})]
    {
        let (server, place) = numbers(9).await;
        let all = read(&place, options.clone(), "run-0", &Resume::default()).await.unwrap().rows.len();
        assert_eq!(all, 9);
        let statements = server.statements_seen().len() as u64;
        assert!(statements > 5, "{statements}");
        for at in 0..statements {
            for (what, kinds) in [
                (What::Deadlock, vec![ErrorKind::Unavailable]),
                (What::Error(1222), vec![ErrorKind::Unavailable]),
                (What::Error(229), vec![ErrorKind::Auth]),
                (What::CutBefore, vec![ErrorKind::Unavailable]),
                (What::CutAfter, vec![ErrorKind::Unavailable]),
                (What::Stall(Duration::from_millis(50)), vec![]),
            ] {
                server.faults().clear();
                server.faults().add(Fault { when: When::Nth(at), what: what.clone() });
                let got = read(&place, options.clone(), "run-1", &Resume::default()).await;
                match got {
                    Ok(given) => assert_eq!(given.rows.len(), all, "{what:?} at {at} of {options}"),
                    Err(error) => assert!(kinds.contains(&error.kind()), "{what:?} at {at} of {options}: {error}"),
                }
            }
        }
        server.faults().clear();
        let after = read(&place, options.clone(), "run-1", &Resume::default()).await.unwrap();
        assert_eq!(after.rows.len(), all);
        soon("no transaction is open", || server.open_transactions() == 0).await;
    }
}

/// A way to the server that breaks off after so many bytes of its answers.
async fn cut(url: &str, server: &SqlServer, after: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, to) = (listener.local_addr().unwrap().port(), server.port());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
            let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                (client.into_split(), server.into_split());
            let up = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
            let (mut room, mut left) = (vec![0; 8192], after);
            while let Ok(count @ 1..) = from_server.read(&mut room).await {
                let count = count.min(left);
                left -= count;
                if to_client.write_all(&room[..count]).await.is_err() || left == 0 {
                    break;
                }
            }
            up.abort();
        }
    });
    url.replace(&format!(":{to}/"), &format!(":{port}/"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_breaks_off_is_an_error_and_is_gone_on_from() {
    let (server, place) = numbers(60_000).await;
    let whole = read(&place, json!({"cursor": "i"}), "run-1", &Resume::default()).await.unwrap();
    let broken = Place { url: cut(&place.url, &server, 6_000_000).await, ..Place::new(&server.url()).await };
    let mut options = json!({"cursor": "i", "table": format!("{}.t", place.schema)});
    let mut source = source(&broken, options.clone());
    source.open(&ctx(), &run("run-1"), &Resume::default()).await.unwrap();
    let mut given = Given::default();
    let error = loop {
        match source.next().await {
            Ok(Next::Piece(piece)) => {
                given.rows.extend(text(&piece.rows));
                given.marks.push((given.rows.len(), piece.mark));
            }
            Ok(other) => panic!("{other:?}: a shorter table"),
            Err(error) => break error,
        }
    };
    source.close().await.unwrap();
    assert!(error.kind() == ErrorKind::Unavailable && error.can_retry(), "{error}");
    assert!(!given.rows.is_empty() && given.marks.iter().all(|(_, mark)| matches!(mark, Mark::At(..))));
    options["table"] = json!("$.t");
    let rest = read(&place, options, "run-1", &behind(&place, &given.last().unwrap())).await.unwrap();
    given.rows.extend(rest.rows);
    assert_eq!(given.rows, whole.rows);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pieces_are_bounded_and_the_server_waits_for_whoever_reads_slowly() {
    let (server, place) = numbers(60_000).await;
    place.ask("CREATE TABLE $.wide (i int PRIMARY KEY, x nvarchar(max))").await;
    place
        .ask("INSERT INTO $.wide SELECT i, REPLICATE(CONVERT(nvarchar(max), N'x'), 20000) FROM $.t WHERE i <= 500")
        .await;
    for table in ["$.t", "$.wide"] {
        let mut source = source(&place, json!({"table": table}));
        source.open(&ctx(), &run("run-1"), &Resume::default()).await.unwrap();
        let mut most = (0, 0);
        while let Next::Piece(piece) = source.next().await.unwrap() {
            most = (most.0.max(piece.rows.num_rows()), most.1.max(piece.bytes));
        }
        source.close().await.unwrap();
        assert!(most.0 <= 8192 && most.1 <= (1 << 20) + 20_100, "{table}: {most:?}");
    }
    // Nobody takes a piece: the session is still reading when it is closed, however long that takes.
    server.log().clear();
    let mut source = source(&place, json!({}));
    source.open(&ctx(), &run("run-1"), &Resume::default()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    source.close().await.unwrap();
    assert_eq!(server.log().count(|event| *event == Event::Attention), 1, "it had not read to the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_leaves_a_plan_with_a_note() {
    let (server, place) = numbers(1).await;
    let planned = |place: Arc<Place>| async move {
        source(&place, json!({"cursor": "i"})).plan(&ctx().for_plan(), &run("r"), &Resume::default()).await.unwrap()
    };
    let place = Arc::new(place);
    let there = planned(Arc::clone(&place)).await;
    assert!(there.schema.schema().is_some() && there.notes.is_empty(), "{there:?}");
    server.stop().await;
    let gone = planned(place).await;
    assert_eq!((gone.schema.schema(), gone.notes.len(), &gone.identity), (None, 1, &there.identity));
    assert!(gone.notes[0].starts_with("the columns are not known: "), "{}", gone.notes[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_of_the_page_plans() {
    let server = SqlServer::start(SqlServerOptions::default()).await;
    server.execute("CREATE TABLE dbo.Orders (OrderId int PRIMARY KEY, Total decimal(10, 2), Version bigint)");
    let connector = towpath_core::Connector::find("mssql").unwrap();
    let page = connector.readme.split("## Source").nth(1).unwrap();
    let yaml = page.split("```yaml").nth(1).unwrap().split("```").next().unwrap();
    let mut example: serde_json::Value = serde_saphyr::from_str(yaml).unwrap();
    let mut options = example["sources"]["orders"].take();
    assert_eq!(options.as_object_mut().unwrap().remove("type").unwrap(), "mssql");
    options["connection"] = json!(server.url());
    let mut source = (connector.source.as_ref().unwrap().build)(&"orders".into(), options).unwrap();
    let plan = source.plan(&ctx().for_plan(), &run("r"), &Resume::default()).await.unwrap();
    assert!(plan.carries && plan.schema.schema().is_some_and(|schema| schema.fields().len() == 3), "{plan:?}");
    let work: Vec<_> = plan.work.iter().map(|work| work.what.replace(&server.port().to_string(), "PORT")).collect();
    assert_eq!(work, ["dbo.Orders of mssql://127.0.0.1:PORT/towpath, behind Version"]);
}
