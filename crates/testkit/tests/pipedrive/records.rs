//! Records as they are created, changed, deleted, and what the server makes of what it is told.

use std::time::Duration;

use proptest::{
    prop_assert_eq,
    strategy::Strategy,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};
use towpath_testkit::pipedrive::{Deleted, Entity, FieldType, NameSplit, PipedriveOptions, Unsettled};

use crate::{roomy, server};

/// The same without the two times it was made at, which are equal.
fn timeless(record: &Value) -> Value {
    let mut record = record.as_object().unwrap().clone();
    let times = ["add_time", "update_time"].map(|key| record.shift_remove(key).unwrap());
    assert_eq!(times[0], times[1]);
    let time = times[0].as_str().unwrap();
    assert!(time.len() == 20 && time.ends_with('Z'), "{time} is of whole seconds");
    Value::Object(record)
}

#[tokio::test]
async fn a_person_is_created_changed_and_deleted() {
    let (server, client) = server(roomy()).await;
    let key = server.account().fields(Entity::Persons).add("CustomerID", FieldType::Varchar);
    let sent = json!({
        "name": "  Ada Lovelace ",
        "emails": [{ "value": " ada@example.com " }, { "value": "a@home.example", "label": "home" }, { "value": "" }],
        "custom_fields": { key.as_str(): "C1" },
    });
    let person = client.send("POST", "/api/v2/persons", sent).await;
    insta::assert_json_snapshot!(timeless(&person));
    assert_eq!(person["custom_fields"], json!({ key.as_str(): "C1" }));

    server.clock().advance(Duration::from_secs(60));
    let same = client.send("PATCH", "/api/v2/persons/1", json!({ "name": "Ada Lovelace" })).await;
    assert_eq!(same, person, "what is equal changes nothing, not even the time");
    let changed = client.send("PATCH", "/api/v2/persons/1", json!({ "first_name": "Augusta Ada" })).await;
    assert_eq!(changed["name"], "Augusta Ada Lovelace", "the name follows its parts");
    assert_ne!(changed["update_time"], person["update_time"]);
    assert_eq!(changed["custom_fields"], person["custom_fields"]);
    assert_eq!(client.send("DELETE", "/api/v2/persons/1", Value::Null).await, json!({ "id": 1 }));
    assert!(server.account().persons().is_empty());
    assert_eq!(server.account().deleted(Entity::Persons).len(), 1);
    let next = client.send("POST", "/api/v2/persons", json!({ "name": "Grace" })).await;
    assert_eq!((&next["id"], &next["first_name"], &next["last_name"]), (&json!(2), &json!("Grace"), &Value::Null));
}

#[tokio::test]
async fn a_deal_has_what_follows_from_its_status_and_stage() {
    let (server, client) = server(roomy()).await;
    let (pipeline, stages) = server.account().add_pipeline("Orders", &["New", "Paid"]);
    let deal = client.send("POST", "/api/v2/deals", json!({ "title": "Order 1", "value": 12.50 })).await;
    insta::assert_json_snapshot!(timeless(&deal));

    server.clock().advance(Duration::from_secs(60));
    let patch = async |body: Value| client.send("PATCH", "/api/v2/deals/1", body).await;
    let moved = patch(json!({ "stage_id": stages[1] })).await;
    assert_eq!((moved["pipeline_id"].as_u64(), moved["stage_id"].as_u64()), (Some(pipeline), Some(stages[1])));
    assert!(moved["stage_change_time"].is_string());
    let back = patch(json!({ "pipeline_id": 1 })).await;
    assert_eq!(back["stage_id"], 1, "another pipeline begins at its first stage");
    let won = patch(json!({ "status": "won" })).await;
    assert_eq!(won["won_time"], won["close_time"]);
    assert_eq!(won["local_won_date"].as_str(), won["won_time"].as_str().and_then(|time| time.get(..10)));
    let lost = patch(json!({ "status": "lost", "lost_reason": " too late " })).await;
    assert_eq!((&lost["won_time"], &lost["lost_reason"]), (&Value::Null, &json!("too late")));
    let open = patch(json!({ "status": "open" })).await;
    for key in ["won_time", "lost_time", "close_time", "lost_reason", "local_lost_date"] {
        assert_eq!(open[key], Value::Null, "{key}");
    }
    let archived = patch(json!({ "is_archived": true })).await;
    assert!(archived["archive_time"].is_string());
    assert_eq!(server.account().deals().len(), 1);
    assert!(server.account().deals()[0].is_archived);
}

#[tokio::test]
async fn what_the_vendor_refuses_is_refused_in_its_words() {
    let (server, client) = server(PipedriveOptions { deals_limit: Some(1), ..roomy() }).await;
    let account = server.account();
    let text = account.fields(Entity::Deals).add("OrderID", FieldType::Varchar);
    let set = account.fields(Entity::Deals).add_options("Tags", FieldType::Set, &["a", "b"]);
    client.send("POST", "/api/v2/deals", json!({ "title": "only one" })).await;
    account.add(Entity::Persons, json!({ "name": "gone" }));
    account.delete(Entity::Persons, 1);
    let custom = |key: &str, value: Value| json!({ "custom_fields": { key: value } });
    let cases = [
        ("POST", "deals", json!({})),
        ("POST", "deals", json!({ "title": "  " })),
        ("POST", "deals", json!({ "title": 7 })),
        ("POST", "deals", json!({ "title": "x", "value": "12.50" })),
        ("POST", "deals", json!({ "title": "second" })),
        ("POST", "deals", json!([])),
        ("POST", "persons", json!({ "emails": [] })),
        ("POST", "persons", json!({ "name": "x", "emails": ["a@b.example"] })),
        ("POST", "persons", json!({ "name": "x", "job_title": "Manager" })),
        ("POST", "deals", json!({ "title": "x", "is_deleted": true })),
        ("PATCH", "deals/1", json!({ "currency": "XXX" })),
        ("PATCH", "deals/1", json!({ "status": "paid" })),
        ("PATCH", "deals/1", json!({ "won_time": "2026-01-01T00:00:00Z" })),
        ("PATCH", "deals/1", json!({ "expected_close_date": "01.02.2026" })),
        ("PATCH", "deals/1", json!({ "person_id": 1 })),
        ("PATCH", "deals/1", json!({ "owner_id": 99 })),
        ("PATCH", "deals/1", json!({ "stage_id": 1, "pipeline_id": 1, "colour": "red" })),
        ("PATCH", "deals/1", json!({ "id": 7 })),
        ("PATCH", "deals/1", custom(&text, json!(7))),
        ("PATCH", "deals/1", custom(&text, json!("x".repeat(256)))),
        ("PATCH", "deals/1", custom(&set, json!([]))),
        ("PATCH", "deals/1", custom(&set, json!([7]))),
        ("PATCH", "deals/1", custom("0000000000000000000000000000000000000000", json!("x"))),
        ("PATCH", "deals/2", json!({ "title": "x" })),
        ("DELETE", "deals/2", Value::Null),
        ("GET", "persons/1", Value::Null),
        ("GET", "persons/one", Value::Null),
        ("GET", "people", Value::Null),
        ("PUT", "deals/1", json!({ "title": "x" })),
    ];
    let mut told = String::new();
    for (method, path, body) in cases {
        let reply = client.call(method, &format!("/api/v2/{path}"), body.clone()).await;
        let body = body.to_string().replace(&text, "<text>").replace(&set, "<set>").replace(&"x".repeat(256), "x…");
        let answer = reply.text.replace(&text, "<text>").replace(&set, "<set>");
        told += &format!("{method} {path} {body}\n  {} {answer}\n", reply.status);
    }
    insta::assert_snapshot!(told);
    assert_eq!(server.account().deals().len(), 1);
    assert_eq!(client.call("GET", "/v1/deals", Value::Null).await.status, 410);
}

#[tokio::test]
async fn custom_values_are_kept_as_their_types_have_them() {
    let (server, client) = server(roomy()).await;
    let account = server.account();
    let fields = account.fields(Entity::Deals);
    account.add(Entity::Persons, json!({ "name": "P" }));
    account.add(Entity::Organizations, json!({ "name": "O" }));
    let one = fields.add_options("enum", FieldType::Enum, &["red", "blue"]);
    let many = fields.add_options("set", FieldType::Set, &["a", "b", "c"]);
    let option = |key: &str, label: &str| fields.option(key, label).unwrap();
    let (blue, a, c) = (option(&one, "blue"), option(&many, "a"), option(&many, "c"));
    let given: Vec<(FieldType, Value, Value)> = vec![
        (FieldType::Varchar, json!(" x "), json!("x")),
        (FieldType::Text, json!(""), Value::Null),
        (FieldType::Double, json!(12.0), json!(12)),
        (FieldType::Double, json!(0.1), json!(0.1)),
        (
            FieldType::Monetary,
            json!({ "value": 99.90, "currency": "USD" }),
            json!({ "value": 99.9, "currency": "USD" }),
        ),
        (FieldType::Monetary, json!({ "value": 1 }), json!({ "value": 1, "currency": "EUR" })),
        (FieldType::Date, json!("2026-02-28"), json!("2026-02-28")),
        (
            FieldType::DateRange,
            json!({ "value": "2026-01-01", "until": "2026-01-31" }),
            json!({ "value": "2026-01-01", "until": "2026-01-31" }),
        ),
        (
            FieldType::Time,
            json!({ "value": "9:05" }),
            json!({ "value": "09:05:00", "timezone_id": 1, "timezone_name": "Etc/UTC" }),
        ),
        (FieldType::Phone, json!("+49 1"), json!("+49 1")),
        (FieldType::People, json!(1), json!(1)),
        (FieldType::Org, json!(1), json!(1)),
        (FieldType::User, json!(1), json!(1)),
    ];
    let cases =
        given.into_iter().enumerate().map(|(n, (kind, sent, kept))| (fields.add(&format!("f{n}"), kind), sent, kept));
    let mut cases: Vec<(String, Value, Value)> = cases.collect();
    cases.push((one, json!(blue), json!(blue)));
    cases.push((many.clone(), json!([c, a, c]), json!([c, a])));
    for (key, sent, kept) in &cases {
        let deal = client
            .send("POST", "/api/v2/deals", json!({ "title": "x", "custom_fields": { key.as_str(): sent } }))
            .await;
        assert_eq!(&deal["custom_fields"][key], kept, "{sent}");
        let id = deal["id"].as_u64().unwrap();
        let cleared = json!({ "custom_fields": { key.as_str(): null } });
        let deal = client.send("PATCH", &format!("/api/v2/deals/{id}"), cleared).await;
        assert_eq!(deal["custom_fields"][key], Value::Null, "null clears {sent}");
    }
    let address = fields.add("address", FieldType::Address);
    let body = json!({ "title": "x", "custom_fields": { address.as_str(): { "value": "1 Main St", "locality": "Springfield" } } });
    let deal = client.send("POST", "/api/v2/deals", body).await;
    insta::assert_json_snapshot!(deal["custom_fields"][&address]);

    let labels = client
        .send("PATCH", "/api/v2/deals/1", json!({ "label_ids": [2], "custom_fields": { many.as_str(): [a] } }))
        .await;
    assert_eq!(labels["label_ids"], json!([2]));
    let shown = client.get("/api/v2/deals/1?include_option_labels=true&include_labels=true").await;
    assert_eq!(shown["data"]["custom_fields"][&many], json!([{ "id": a, "label": "a" }]));
    assert_eq!(shown["data"]["labels"], json!([{ "id": 2, "label": "Hot lead" }]));
}

#[tokio::test]
async fn what_is_not_established_can_be_either_way() {
    let body = json!({ "name": " Anna Maria Smith ", "emails": [{ "value": "a@x.example" }] });
    let patch = json!({ "emails": [{ "value": "b@x.example" }], "colour": "red" });
    for other in [false, true] {
        let unsettled = if other { Unsettled::other_way() } else { Unsettled::default() };
        let (server, client) = server(PipedriveOptions { unsettled, ..roomy() }).await;
        let key = server.account().fields(Entity::Persons).add("CustomerID", FieldType::Varchar);
        let reply = client.call("POST", "/api/v2/persons", body.clone()).await;
        assert_eq!(reply.status, if other { 201 } else { 200 });
        let person = &reply.body["data"];
        let time = person["update_time"].as_str().unwrap();
        assert_eq!(time.ends_with(".000Z"), other, "{time}");
        assert_eq!(person["name"], if other { " Anna Maria Smith " } else { "Anna Maria Smith" });
        assert_eq!(person["first_name"], if other { "Anna Maria" } else { "Anna" });
        assert_eq!(person["custom_fields"].get(&key), if other { None } else { Some(&Value::Null) });
        let reply = client.call("PATCH", "/api/v2/persons/1", patch.clone()).await;
        assert_eq!(reply.status, if other { 200 } else { 400 }, "{}", reply.text);
        if other {
            assert_eq!(reply.body["data"]["emails"].as_array().unwrap().len(), 2, "{}", reply.text);
        }
        server.account().add(Entity::Deals, json!({ "title": "hers", "person_id": 1 }));
        server.account().delete(Entity::Persons, 1);
        assert_eq!(server.account().deals()[0].get("person_id"), &if other { Value::Null } else { json!(1) });
        assert_eq!(client.call("GET", "/api/v2/persons/1", Value::Null).await.status, if other { 200 } else { 404 });
        assert_eq!(client.call("PATCH", "/api/v2/persons/1", json!({ "name": "x" })).await.status, 404);
    }
    let unsettled = Unsettled {
        deleted: Deleted::Gone,
        name_split: NameSplit::First,
        name_parts_writable: false,
        ..Unsettled::default()
    };
    let (server, client) = server(PipedriveOptions { unsettled, ..roomy() }).await;
    client.send("POST", "/api/v2/persons", body).await;
    assert_eq!(client.call("PATCH", "/api/v2/persons/1", json!({ "first_name": "x" })).await.status, 400);
    server.account().delete(Entity::Persons, 1);
    assert_eq!(client.call("GET", "/api/v2/persons/1", Value::Null).await.status, 410);
}

#[tokio::test]
async fn ten_thousand_persons_and_deals_are_there_at_once_and_listed_in_forty_calls() {
    let (server, client) = server(roomy()).await;
    server.account().add_demo_fields();
    server.account().seed_demo(10_000, 10_000);
    for entity in ["persons", "deals"] {
        let mut target = format!("/api/v2/{entity}?limit=500");
        let mut seen = 0;
        loop {
            let page = client.get(&target).await;
            seen += page["data"].as_array().unwrap().len();
            let Some(next) = page["additional_data"]["next_cursor"].as_str() else { break };
            target = format!("/api/v2/{entity}?limit=500&cursor={}", next.replace('+', "%2B").replace('=', "%3D"));
        }
        assert_eq!(seen, 10_000);
    }
    assert_eq!((server.log().len(), server.log().tokens()), (40, 400));
    let deal = &server.account().deals()[9_998];
    assert_eq!(
        (deal.custom("OrderID"), deal.get("value"), deal.get("person_id")),
        (&json!("O9999"), &json!(100_089.99), &json!(9_999))
    );
}

/// Texts with all kinds of blanks in them, addresses and amounts.
fn anything() -> impl Strategy<Value = (String, Vec<String>, Vec<String>, i64)> {
    let text = r"[ \t\u{a0}a-zÄ-Ö'\-]{0,12}[a-z][ a-z]{0,8}";
    let emails = proptest::collection::vec(r"[ a-z@.]{0,8}", 0..3);
    let phones = proptest::collection::vec(r"[ +0-9]{0,8}", 0..3);
    (text, emails, phones, -1_000_000_000i64..1_000_000_000)
}

#[tokio::test]
async fn what_the_server_told_can_be_said_to_it_again_and_changes_nothing() {
    for unsettled in [Unsettled::default(), Unsettled::other_way()] {
        let (server, _) = server(PipedriveOptions { unsettled, ..roomy() }).await;
        let account = server.account();
        account.fields(Entity::Deals).add("Note", FieldType::Text);
        account.fields(Entity::Deals).add("Amount", FieldType::Monetary);
        let mut runner = TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
        let outcome = runner.run(&anything(), |(text, emails, phones, cents)| {
            let items = |values: &[String]| values.iter().map(|value| json!({ "value": value })).collect::<Value>();
            let person = account
                .add(Entity::Persons, json!({ "name": text, "emails": items(&emails), "phones": items(&phones) }));
            let amount = cents as f64 / 100.0;
            let custom = json!({ "Note": text, "Amount": { "value": amount } });
            let deal = account.add(Entity::Deals, json!({ "title": text, "value": amount, "custom_fields": custom }));
            for (entity, id, keys) in [
                (Entity::Persons, person, ["name", "first_name", "last_name", "emails", "phones"].as_slice()),
                (Entity::Deals, deal, ["title", "value", "currency", "status", "stage_id"].as_slice()),
            ] {
                let told = account.record(entity, id).unwrap();
                server.clock().advance(Duration::from_secs(60));
                let mut again: serde_json::Map<String, Value> =
                    keys.iter().map(|key| ((*key).to_owned(), told.get(key).clone())).collect();
                if entity == Entity::Deals {
                    again.insert("custom_fields".to_owned(), told.custom.clone().into_iter().collect());
                }
                account.edit(entity, id, Value::Object(again));
                prop_assert_eq!(account.record(entity, id).unwrap(), told);
            }
            Ok(())
        });
        outcome.unwrap();
    }
}
