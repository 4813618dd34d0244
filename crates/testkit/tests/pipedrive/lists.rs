//! Pages, filters, orders, and searches that lag.

use std::time::Duration;

use serde_json::{Value, json};
use towpath_testkit::pipedrive::{Cursors, Entity, Fault, FieldType, On, PipedriveOptions, Unsettled};

use crate::{client::Client, ids, roomy, seed_persons, server};

/// All pages of a list, by their cursors.
async fn pages(client: &Client, target: &str) -> Vec<Vec<u64>> {
    let mut pages = vec![];
    let mut cursor = String::new();
    loop {
        let page = client.get(&format!("{target}{cursor}")).await;
        pages.push(ids(&page));
        match page["additional_data"]["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={}", next.replace('+', "%2B").replace('=', "%3D")),
            None => return pages,
        }
    }
}

fn sizes(pages: &[Vec<u64>]) -> Vec<usize> {
    pages.iter().map(Vec::len).collect()
}

#[tokio::test]
async fn pages_follow_each_other_in_every_order_and_by_either_cursor() {
    for cursors in [Cursors::Keyset, Cursors::Offset] {
        let unsettled = Unsettled { cursors, ..Unsettled::default() };
        let (server, client) = server(PipedriveOptions { unsettled, ..roomy() }).await;
        let all = seed_persons(&server, 1200);
        server.clock().advance(Duration::from_secs(10));
        for id in [7, 8] {
            server.account().edit(Entity::Persons, id, json!({ "name": "changed" }));
        }
        let check = async |target: &str, expect_sizes: &[usize], expect: Vec<u64>| {
            let pages = pages(&client, target).await;
            assert_eq!(sizes(&pages), expect_sizes, "{target} {cursors:?}");
            assert_eq!(pages.concat(), expect, "{target} {cursors:?}");
        };
        let back: Vec<u64> = all.iter().rev().copied().collect();
        check("/api/v2/persons?limit=500", &[500, 500, 200], all.clone()).await;
        check("/api/v2/persons?limit=400", &[400, 400, 400], all.clone()).await;
        check("/api/v2/persons?limit=500&sort_direction=desc", &[500, 500, 200], back.clone()).await;
        let (changed, rest): (Vec<u64>, Vec<u64>) = all.iter().partition(|id| [7, 8].contains(*id));
        let by_update = [rest, changed.clone()].concat();
        check("/api/v2/persons?limit=500&sort_by=update_time", &[500, 500, 200], by_update.clone()).await;
        let by_update: Vec<u64> = by_update.into_iter().rev().collect();
        check("/api/v2/persons?limit=500&sort_by=update_time&sort_direction=desc", &[500, 500, 200], by_update).await;
        let since = client.get("/api/v2/persons/7").await["data"]["update_time"].as_str().unwrap().to_owned();
        check(&format!("/api/v2/persons?updated_since={since}"), &[2], changed).await;
        check("/api/v2/persons?ids=3,1,9999", &[2], vec![1, 3]).await;
    }
}

#[tokio::test]
async fn what_others_do_between_pages_shifts_them_or_not() {
    // The record a client misses (or sees twice) if pages are counted, and does not if cursors know where they were.
    for (cursors, misses) in [(Cursors::Keyset, false), (Cursors::Offset, true)] {
        let unsettled = Unsettled { cursors, ..Unsettled::default() };
        let (server, client) = server(PipedriveOptions { unsettled, ..roomy() }).await;
        seed_persons(&server, 20);
        let between = Fault::afterwards(|account| account.delete(Entity::Persons, 3));
        server.faults().add(On::route("GET", "/api/v2/persons"), 0..1, between);
        let seen = pages(&client, "/api/v2/persons?limit=10").await.concat();
        assert_eq!(!seen.contains(&11), misses, "{cursors:?} {seen:?}");
        assert!(seen.contains(&3) && seen.contains(&20));
    }
}

#[tokio::test]
async fn with_keysets_every_record_that_stays_is_seen_once_whatever_others_do() {
    for seed in 0..12u64 {
        let (server, client) = server(roomy()).await;
        let all = seed_persons(&server, 60);
        // Between any two pages somebody deletes, adds and changes, elsewhere each time.
        let step = std::sync::atomic::AtomicU64::new(seed);
        let deleted = std::sync::Arc::new(std::sync::Mutex::new(vec![]));
        let gone = std::sync::Arc::clone(&deleted);
        let between = Fault::afterwards(move |account| {
            let at = step.fetch_add(7, std::sync::atomic::Ordering::Relaxed);
            let there = account.persons();
            let victim = there[usize::try_from(at * 13).unwrap() % there.len()].id;
            account.delete(Entity::Persons, victim);
            gone.lock().unwrap().push(victim);
            account.add(Entity::Persons, json!({ "name": "new" }));
            let changed = account.persons()[usize::try_from(at * 5).unwrap() % 40].id;
            account.edit(Entity::Persons, changed, json!({ "name": format!("changed {at}") }));
        });
        server.faults().add(On::route("GET", "/api/v2/persons"), .., between);
        let seen = pages(&client, "/api/v2/persons?limit=9").await.concat();
        let deleted = deleted.lock().unwrap().clone();
        let mut once = seen.clone();
        once.dedup();
        assert_eq!(once, seen, "seed {seed}: in order, each once");
        for id in all.iter().filter(|id| !deleted.contains(id)) {
            assert!(seen.contains(id), "seed {seed}: {id} is missing");
        }
    }
}

#[tokio::test]
async fn deals_are_filtered_and_archived_ones_are_a_list_of_their_own() {
    let (server, client) = server(roomy()).await;
    let account = server.account();
    let user = account.add_user("Bob", "bob@example.com");
    let (pipeline, stages) = account.add_pipeline("Orders", &["New", "Paid"]);
    let organization = account.add(Entity::Organizations, json!({ "name": "O" }));
    let person = account.add(Entity::Persons, json!({ "name": "P", "org_id": organization }));
    account.add(Entity::Persons, json!({ "name": "Q" }));
    let deals = [
        json!({ "title": "1", "person_id": person }),
        json!({ "title": "2", "status": "won", "owner_id": user }),
        json!({ "title": "3", "status": "lost", "org_id": organization }),
        json!({ "title": "4", "stage_id": stages[1] }),
        json!({ "title": "5", "pipeline_id": pipeline }),
        json!({ "title": "6" }),
        json!({ "title": "7" }),
    ];
    account.seed(Entity::Deals, deals);
    account.archive(6);
    account.delete(Entity::Deals, 7);
    let cases: &[(&str, &[u64])] = &[
        ("deals", &[1, 2, 3, 4, 5]),
        ("deals/archived", &[6]),
        ("deals?status=won", &[2]),
        ("deals?status=won,lost", &[2, 3]),
        ("deals?status=deleted", &[7]),
        ("deals?status=open,deleted", &[1, 4, 5, 7]),
        ("deals?person_id=1", &[1]),
        ("deals?org_id=1", &[3]),
        ("deals?owner_id=2", &[2]),
        ("deals?pipeline_id=2", &[4, 5]),
        ("deals?stage_id=7", &[4]),
        ("persons?org_id=1", &[1]),
        ("persons?deal_id=1", &[1]),
        ("persons?deal_id=2", &[]),
        ("stages?pipeline_id=2", &[6, 7]),
        ("pipelines", &[1, 2]),
        ("organizations", &[1]),
    ];
    for (target, expect) in cases {
        assert_eq!(ids(&client.get(&format!("/api/v2/{target}")).await), *expect, "{target}");
    }
    server.clock().advance(Duration::from_secs(30 * 86_400));
    assert_eq!(ids(&client.get("/api/v2/deals?status=deleted").await), [0; 0], "after 30 days it is gone");
}

#[tokio::test]
async fn a_list_asked_for_wrongly_is_refused() {
    let (server, client) = server(roomy()).await;
    seed_persons(&server, 3);
    let keys = vec!["k"; 16].join(",");
    let many = vec!["1"; 101].join(",");
    let cases = [
        "persons?limit=501".to_owned(),
        "persons?limit=0".to_owned(),
        "persons?limit=many".to_owned(),
        "persons?cursor=!!".to_owned(),
        "persons?sort_by=name".to_owned(),
        "persons?sort_direction=up".to_owned(),
        "persons?updated_since=2026-01-01T00:00:00.000Z".to_owned(),
        "persons?updated_since=2026-01-01".to_owned(),
        "persons?include_fields=colour".to_owned(),
        "deals?status=paid".to_owned(),
        format!("persons?custom_fields={keys}"),
        format!("persons?ids={many}"),
    ];
    for target in cases {
        let reply = client.call("GET", &format!("/api/v2/{target}"), Value::Null).await;
        assert_eq!((reply.status, &reply.body["code"]), (400, &json!("ERR_SCHEMA_VALIDATION_FAILED")), "{target}");
    }
}

#[tokio::test]
async fn only_the_custom_fields_that_are_asked_for_come() {
    let (server, client) = server(roomy()).await;
    seed_persons(&server, 1);
    let fields = server.account().fields(Entity::Persons);
    let (id, other) = (fields.key("CustomerID").unwrap(), fields.add("Other", FieldType::Double));
    let shown =
        async |query: &str| client.get(&format!("/api/v2/persons?{query}")).await["data"][0]["custom_fields"].clone();
    assert_eq!(shown("").await, json!({ id.as_str(): "C1", other.as_str(): null }));
    assert_eq!(shown(&format!("custom_fields={id}")).await, json!({ id.as_str(): "C1" }));
    assert_eq!(shown("custom_fields=nothing").await, json!({}));
    let counted = client.get("/api/v2/persons/1?include_fields=open_deals_count,next_activity_id").await;
    assert_eq!((&counted["data"]["open_deals_count"], &counted["data"]["next_activity_id"]), (&json!(0), &Value::Null));
}

#[tokio::test]
async fn a_search_finds_what_is_older_than_the_lag() {
    let (server, client) = server(roomy()).await;
    seed_persons(&server, 12);
    let account = server.account();
    account.fields(Entity::Deals).add("OrderID", FieldType::Varchar);
    account.add(
        Entity::Deals,
        json!({ "title": "Order 1 of Person 12", "person_id": 12, "custom_fields": { "OrderID": "C1" } }),
    );
    let found = async |target: &str| {
        let page = client.get(&format!("/api/v2/{target}")).await;
        let items = page["data"]["items"].as_array().unwrap().clone();
        items
            .iter()
            .map(|item| format!("{} {}", item["item"]["type"].as_str().unwrap(), item["item"]["id"]))
            .collect::<Vec<_>>()
    };
    assert_eq!(found("persons/search?term=C1&exact_match=true").await, [""; 0]);
    server.clock().advance(Duration::from_secs(5));
    let cases: &[(&str, &[&str])] = &[
        ("persons/search?term=c1&exact_match=true", &["person 1"]),
        ("persons/search?term=c1", &["person 1", "person 10", "person 11", "person 12"]),
        ("persons/search?term=c1&fields=name", &[]),
        ("itemSearch?term=c1&exact_match=true", &["deal 1", "person 1"]),
        ("itemSearch?term=person+12&item_types=deal,person", &["deal 1", "person 12"]),
        ("deals/search?term=order&person_id=12", &["deal 1"]),
        ("deals/search?term=order&person_id=11", &[]),
    ];
    for (target, expect) in cases {
        assert_eq!(found(target).await, *expect, "{target}");
    }
    assert_eq!(client.call("GET", "/api/v2/persons/search?term=c", Value::Null).await.status, 400);
    let key = account.fields(Entity::Persons).key("CustomerID").unwrap();
    let values = client.get(&format!("/api/v2/itemSearch/field?term=c2&entity_type=person&field={key}")).await;
    assert_eq!(values["data"], json!([{ "id": 2, key.as_str(): "C2" }]));
}
