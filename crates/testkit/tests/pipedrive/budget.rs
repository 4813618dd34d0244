//! Tokens and windows as a client meets them.

use std::time::Duration;

use serde_json::{Value, json};
use towpath_testkit::pipedrive::{Burst429, Entity, Kind, PipedriveOptions, Plan, RequestsLeft, Unsettled};

use crate::{client::Client, roomy, seed_persons, server};

async fn status(client: &Client, target: &str) -> u16 {
    client.call("GET", target, Value::Null).await.status
}

#[tokio::test]
async fn each_call_costs_what_the_specification_says() {
    let (server, client) = server(roomy()).await;
    let account = server.account();
    seed_persons(&server, 2);
    let key = account.fields(Entity::Persons).key("CustomerID").unwrap();
    server.clock().advance(Duration::from_secs(5));
    let cases = [
        ("GET", "/api/v2/persons/1", Value::Null, 1),
        ("GET", "/api/v2/persons?limit=1", Value::Null, 10),
        ("GET", "/api/v2/persons?limit=500", Value::Null, 10),
        ("GET", "/api/v2/deals/archived", Value::Null, 20),
        ("GET", "/api/v2/pipelines", Value::Null, 5),
        ("GET", "/api/v2/stages", Value::Null, 5),
        ("GET", "/api/v2/personFields", Value::Null, 10),
        ("GET", "/api/v2/persons/search?term=c1", Value::Null, 20),
        ("GET", "/api/v2/itemSearch?term=c1", Value::Null, 20),
        ("POST", "/api/v2/persons", json!({ "name": "x" }), 5),
        ("PATCH", "/api/v2/persons/1", json!({ "name": "y" }), 5),
        ("DELETE", "/api/v2/persons/2", Value::Null, 3),
        ("POST", "/api/v2/personFields", json!({ "field_name": "x", "field_type": "text" }), 5),
        ("GET", "/v1/users", Value::Null, 20),
        ("GET", "/api/v1/users/me", Value::Null, 2),
        ("GET", "/v1/personFields", Value::Null, 20),
        ("GET", "/v1/currencies", Value::Null, 20),
        ("POST", "/v1/notes", json!({ "content": "x", "person_id": 1 }), 10),
    ];
    for (method, target, body, cost) in cases {
        let before = account.tokens_left();
        let reply = client.call(method, target, body).await;
        assert!(reply.status < 300, "{method} {target}: {}", reply.text);
        assert_eq!(before - account.tokens_left(), cost, "{method} {target}");
        assert_eq!(reply.header("x-daily-requests-left"), Some(account.tokens_left().to_string().as_str()));
        assert_eq!(server.log().calls().last().unwrap().tokens, cost);
    }
    assert_eq!(server.log().tokens(), account.tokens_a_day() - account.tokens_left());
    assert_eq!((server.log().writes(), server.log().count_of(Kind::List, Entity::Persons)), (3, 2));
    assert_eq!(server.log().calls()[0].path, "/api/v2/persons/1");
    let named = client.get(&format!("/api/v2/persons?custom_fields={key}&limit=2")).await;
    assert_eq!(named["data"].as_array().unwrap().len(), 2);
    assert_eq!(server.log().calls().last().unwrap().parameter("custom_fields"), Some(key));
}

#[tokio::test]
async fn the_window_of_a_plan_rolls() {
    for (plan, most) in [(Plan::Lite, 20), (Plan::Growth, 40), (Plan::Premium, 100), (Plan::Ultimate, 120)] {
        let (server, client) = server(PipedriveOptions { plan, seats: 9, clock_stands: true, ..roomy() }).await;
        seed_persons(&server, 1);
        for call in 0..most {
            let reply = client.call("GET", "/api/v2/persons/1", Value::Null).await;
            assert_eq!(reply.status, 200, "{plan:?} call {call}");
            assert_eq!(reply.header("x-ratelimit-limit"), Some(most.to_string().as_str()));
            assert_eq!(reply.header("x-ratelimit-remaining"), Some((most - call - 1).to_string().as_str()));
        }
        server.clock().advance(Duration::from_millis(1999));
        let reply = client.call("GET", "/api/v2/persons/1", Value::Null).await;
        assert_eq!((reply.status, reply.header("x-ratelimit-remaining")), (429, Some("0")), "{plan:?}");
        assert_eq!(server.log().calls().last().unwrap().tokens, 0, "what is not let in costs nothing");
        assert_eq!(server.log().busiest_window(), most);
        server.clock().advance(Duration::from_millis(1));
        assert_eq!(status(&client, "/api/v2/persons/1").await, 200, "{plan:?}");
    }
}

#[tokio::test]
async fn a_burst_is_refused_in_one_of_four_ways() {
    let cases = [
        (Burst429::Json, Some("application/json; charset=utf-8"), true),
        (Burst429::Text, Some("text/plain; charset=utf-8"), false),
        (Burst429::Html, Some("text/html; charset=UTF-8"), true),
        (Burst429::Empty, Some("text/plain; charset=utf-8"), false),
    ];
    for (burst_429, kind, retry_after) in cases {
        let unsettled = Unsettled { burst_429, burst_retry_after: retry_after, ..Unsettled::default() };
        let (server, client) = server(PipedriveOptions { unsettled, clock_stands: true, ..roomy() }).await;
        server.clock().advance(Duration::from_secs(5));
        // Searches: ten in a window, whatever the plan.
        for _ in 0..10 {
            assert_eq!(status(&client, "/api/v2/deals/search?term=xx").await, 200);
        }
        let reply = client.call("GET", "/api/v2/deals/search?term=xx", Value::Null).await;
        assert_eq!(reply.status, 429, "{burst_429:?}");
        assert_eq!(reply.header("content-type"), kind);
        assert_eq!(reply.header("retry-after").is_some(), retry_after);
        assert_eq!(reply.header("x-ratelimit-limit"), Some("10"));
    }
}

#[tokio::test]
async fn the_day_ends_at_its_hour_and_what_goes_on_is_kept_out() {
    // 23:59:00 UTC.
    let starts_at = Some(20_000 * 86_400 - 60);
    for (daily_retry_after, failures_cost) in [(true, true), (false, false)] {
        let unsettled = Unsettled { daily_retry_after, failures_cost, abuse_after: 3, ..Unsettled::default() };
        let (server, client) =
            server(PipedriveOptions { starts_at, clock_stands: true, unsettled, ..PipedriveOptions::default() }).await;
        let account = server.account();
        assert_eq!(account.tokens_a_day(), 30_000);
        client.call("GET", "/api/v2/persons/1", Value::Null).await;
        assert_eq!(account.tokens_left(), if failures_cost { 29_999 } else { 30_000 }, "a 404");
        account.spend(30_000);
        let reply = client.call("GET", "/api/v2/persons", Value::Null).await;
        assert_eq!((reply.status, &reply.body["error"]), (429, &json!("daily request budget exceeded")));
        assert_eq!(reply.header("x-daily-requests-left"), Some("0"));
        let rest = reply.header("retry-after").map(|rest| rest.parse::<i64>().unwrap());
        assert_eq!(rest.is_some(), daily_retry_after);
        assert!(rest.is_none_or(|rest| rest == 60), "{rest:?}");
        assert_eq!(status(&client, "/api/v2/persons").await, 429);
        assert_eq!(status(&client, "/api/v2/persons").await, 429);
        let reply = client.call("GET", "/api/v2/persons", Value::Null).await;
        assert_eq!((reply.status, reply.header("content-type")), (403, Some("text/html; charset=UTF-8")));
        server.clock().advance(Duration::from_secs(61));
        assert_eq!(status(&client, "/api/v2/persons").await, 200, "a new day");
        assert_eq!(account.tokens_left(), 29_990);
    }
}

#[tokio::test]
async fn headers_tell_one_thing_or_another() {
    let cases = [
        (RequestsLeft::Tokens, false, Some(29_990), None),
        (RequestsLeft::Writes, true, Some(5_998), Some(29_990)),
        (RequestsLeft::Absent, true, None, Some(29_990)),
    ];
    for (requests_left, token_headers, left, tokens) in cases {
        let unsettled =
            Unsettled { requests_left, token_headers, burst_headers: left.is_some(), ..Unsettled::default() };
        let (_server, client) = server(PipedriveOptions { unsettled, ..PipedriveOptions::default() }).await;
        let reply = client.call("GET", "/api/v2/persons", Value::Null).await;
        let number = |name: &str| reply.header(name).map(|text| text.parse::<u64>().unwrap());
        assert_eq!(number("x-daily-requests-left"), left);
        assert_eq!(number("x-daily-ratelimit-token-remaining"), tokens);
        assert_eq!(number("x-daily-ratelimit-token-limit"), tokens.map(|_| 30_000));
        assert_eq!(number("x-ratelimit-limit").is_some(), left.is_some());
    }
}

#[tokio::test]
async fn who_started_it_as_a_program_sees_the_log_and_moves_the_clock() {
    let (server, mut client) = server(PipedriveOptions { clock_stands: true, ..PipedriveOptions::default() }).await;
    client.get("/api/v2/persons").await;
    server.clock().advance(Duration::from_secs(3));
    client.send("POST", "/api/v2/persons", json!({ "name": "x" })).await;
    client.call("GET", "/api/v2/persons/9", Value::Null).await;
    client.headers.clear();
    let log = client.get("/simulator/log").await;
    let expect = json!({
        "calls": 3, "writes": 1, "kinds": { "create": 1, "get": 1, "list": 1 }, "statuses": { "200": 2, "404": 1 },
        "tokens": 16, "tokens_left": 29_984, "busiest_window": 2, "window_limit": 20, "seconds": 3.0,
    });
    assert_eq!(log, expect);
    let calls = client.get("/simulator/calls").await;
    assert_eq!((&calls[1]["path"], &calls[1]["body"]), (&json!("/api/v2/persons"), &json!({ "name": "x" })));
    let reply = client.call("POST", "/simulator/clock", json!({ "advance": 86_400 })).await;
    assert_eq!(reply.status, 200);
    assert_eq!(client.call("DELETE", "/simulator/log", Value::Null).await.body["tokens_left"], 30_000);
    assert!(server.log().is_empty());
    assert_eq!(client.call("GET", "/simulator/weather", Value::Null).await.status, 404);
}
