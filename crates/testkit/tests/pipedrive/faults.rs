//! Each thing that can go wrong, what the client sees of it, and whether it was done all the same.

use std::time::Duration;

use serde_json::{Value, json};
use towpath_testkit::pipedrive::{Fault, Kind, On};

use crate::{client::Lost, roomy, server};

#[tokio::test]
async fn each_fault_does_what_it_says() {
    // What the client sees: a status and the beginning of the body, or nothing.
    type Seen = Result<(u16, &'static str), Lost>;
    let cases: Vec<(Fault, Seen, bool)> = vec![
        (Fault::CutBefore, Err(Lost::Closed), false),
        (Fault::CutAfter, Err(Lost::Closed), true),
        (Fault::CutBody(20), Err(Lost::Closed), true),
        (Fault::StallBefore, Err(Lost::Silent), false),
        (Fault::StallAfter, Err(Lost::Silent), true),
        (Fault::Slow(Duration::from_millis(10)), Ok((200, "{\"success\":true")), true),
        (
            Fault::Status(503),
            Ok((503, "{\"success\":false,\"error\":\"Service Unavailable\",\"code\":\"ERR_UNKNOWN\"}")),
            false,
        ),
        (Fault::Status(429), Ok((429, "{\"success\":false,\"error\":\"Rate limit exceeded\"")), false),
        (Fault::RetryAfter(503, 7), Ok((503, "{\"success\":false")), false),
        (Fault::StatusAfter(504), Ok((504, "{\"success\":false")), true),
        (Fault::Html403, Ok((403, "<!DOCTYPE html>")), false),
        (Fault::Html200, Ok((200, "<!DOCTYPE html>")), true),
        (Fault::Daily429, Ok((429, "{\"success\":false,\"error\":\"daily request budget exceeded\"")), false),
    ];
    for (fault, seen, done) in cases {
        let (server, mut client) = server(roomy()).await;
        if matches!(seen, Err(Lost::Silent)) {
            client.patience = Duration::from_secs(3);
        }
        server.faults().add(On::route("POST", "/api/v2/persons"), 1..2, fault.clone());
        let post = async |name: &str| {
            let reply = client
                .try_call("POST", "/api/v2/persons", "application/json", json!({ "name": name }).to_string())
                .await;
            reply.map(|reply| (reply.status, reply.text))
        };
        assert_eq!(post("first").await.unwrap().0, 200);
        let second = post("second").await;
        match (&second, seen) {
            (Ok((status, text)), Ok((expect, begins))) => {
                assert!(*status == expect && text.starts_with(begins), "{fault:?}: {status} {text}");
            }
            (Err(lost), Err(expect)) => assert_eq!(*lost, expect, "{fault:?}"),
            _ => panic!("{fault:?}: {second:?}"),
        }
        assert_eq!(server.account().persons().len(), if done { 2 } else { 1 }, "{fault:?}");
        assert_eq!(server.log().calls()[1].executed, done, "{fault:?}");
        assert_eq!(server.log().calls()[1].tokens, if done { 5 } else { 0 }, "{fault:?}");
        assert_eq!(post("third").await.unwrap().0, 200, "{fault:?}");
        assert_eq!(server.log().count(Kind::Create), 3);
    }
}

#[tokio::test]
async fn a_call_that_has_come_is_carried_out_though_its_client_is_gone() {
    let (server, client) = server(roomy()).await;
    server.faults().add(On::writes(), .., Fault::Slow(Duration::from_millis(300)));
    let call = client.try_call("POST", "/api/v2/persons", "application/json", json!({ "name": "x" }).to_string());
    assert!(tokio::time::timeout(Duration::from_millis(100), call).await.is_err(), "the client gives up");
    for _ in 0..100 {
        if server.log().count(Kind::Create) == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(server.account().persons().len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn somebody_else_comes_before_or_after() {
    let (server, client) = server(roomy()).await;
    client.send("POST", "/api/v2/persons", json!({ "name": "mine" })).await;
    let other = |name: &'static str| {
        move |account: &towpath_testkit::pipedrive::Account| {
            account.edit(towpath_testkit::pipedrive::Entity::Persons, 1, json!({ "name": name }));
        }
    };
    server.faults().add(On::writes(), 0..1, Fault::meanwhile(other("theirs")));
    server.faults().add(On::writes(), 1..2, Fault::afterwards(other("theirs")));
    let told = client.send("PATCH", "/api/v2/persons/1", json!({ "name": "mine too" })).await;
    assert_eq!((&told["name"], server.account().persons()[0].get("name")), (&json!("mine too"), &json!("mine too")));
    let told = client.send("PATCH", "/api/v2/persons/1", json!({ "name": "mine three" })).await;
    assert_eq!((&told["name"], server.account().persons()[0].get("name")), (&json!("mine three"), &json!("theirs")));
}

#[tokio::test]
async fn who_may_not_come_in_is_told_why() {
    let (server, mut client) = server(roomy()).await;
    server.account().close();
    assert_eq!(client.call("GET", "/api/v2/persons", Value::Null).await.status, 402);
    client.headers[0].1 = "wrong".to_owned();
    let reply = client.call("GET", "/api/v2/persons", Value::Null).await;
    assert_eq!(
        (reply.status, &reply.body["error"], &reply.body["errorCode"]),
        (401, &json!("unauthorized access"), &json!(401))
    );
    client.headers.clear();
    assert_eq!(
        client.call("GET", "/api/v2/persons?api_token=towpath-test-token", Value::Null).await.status,
        401,
        "v2 takes no token in a query"
    );
    assert_eq!(server.log().tokens(), 0);
}
