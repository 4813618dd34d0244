//! Fields by both versions, and keys that are an account's own.

use serde_json::{Value, json};
use towpath_testkit::pipedrive::{Entity, FieldType, PipedriveOptions};

use crate::{roomy, server};

#[tokio::test]
async fn keys_differ_from_account_to_account() {
    let key = async |seed: &str| {
        let (server, _) = server(PipedriveOptions { seed: seed.to_owned(), ..roomy() }).await;
        let fields = server.account().fields(Entity::Persons);
        let twins = [fields.add("CustomerID", FieldType::Varchar), fields.add("CustomerID", FieldType::Varchar)];
        assert_ne!(twins[0], twins[1], "there may be two of one name");
        assert!(twins.iter().all(|key| key.len() == 40 && key.bytes().all(|byte| byte.is_ascii_hexdigit())));
        assert_eq!(fields.list().len(), 2);
        let option = fields.add_options("Tier", FieldType::Enum, &["gold"]);
        (twins, fields.option(&option, "gold"))
    };
    assert_eq!(key("a").await, key("a").await);
    assert_ne!(key("a").await.0, key("b").await.0);
    assert_ne!(key("a").await.1, key("b").await.1);
}

#[tokio::test]
async fn fields_are_listed_created_renamed_and_deleted() {
    let (server, client) = server(roomy()).await;
    let body =
        json!({ "field_name": "Tier", "field_type": "enum", "options": [{ "label": "gold" }, { "label": "silver" }] });
    let made = client.send("POST", "/api/v2/personFields", body).await;
    let key = made["field_code"].as_str().unwrap().to_owned();
    insta::assert_json_snapshot!(made);
    let mut cursor = String::new();
    let mut all = vec![];
    loop {
        let page = client.get(&format!("/api/v2/personFields?limit=7{cursor}")).await;
        all.extend(page["data"].as_array().unwrap().clone());
        let Some(next) = page["additional_data"]["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={}", next.replace('=', "%3D"));
    }
    let listed: Vec<String> = all
        .iter()
        .map(|field| {
            format!(
                "{} {} {}",
                field["field_code"].as_str().unwrap(),
                field["field_type"].as_str().unwrap(),
                field["is_custom_field"]
            )
        })
        .collect();
    insta::assert_snapshot!(listed.join("\n"));

    let person = client
        .send(
            "POST",
            "/api/v2/persons",
            json!({ "name": "x", "custom_fields": { key.as_str(): made["options"][1]["id"] } }),
        )
        .await;
    assert_eq!(person["custom_fields"][&key], made["options"][1]["id"]);
    client.send("PATCH", &format!("/api/v2/personFields/{key}"), json!({ "field_name": "Level" })).await;
    assert_eq!(client.get(&format!("/api/v2/personFields/{key}")).await["data"]["field_name"], "Level");
    let options =
        client.send("POST", &format!("/api/v2/personFields/{key}/options"), json!([{ "label": "bronze" }])).await;
    assert_eq!(options[0]["label"], "bronze");
    assert_eq!(server.account().fields(Entity::Persons).option(&key, "bronze"), options[0]["id"].as_u64());
    client.send("DELETE", &format!("/api/v2/personFields/{key}"), Value::Null).await;
    assert_eq!(client.get("/api/v2/persons/1").await["data"]["custom_fields"], json!({}));
    let refused = client.call("PATCH", "/api/v2/persons/1", json!({ "custom_fields": { key.as_str(): null } })).await;
    assert_eq!(refused.status, 400, "a field that is gone is unknown");
    assert_eq!(client.call("DELETE", "/api/v2/personFields/name", Value::Null).await.status, 403);
}

#[tokio::test]
async fn version_1_has_fields_users_notes_and_what_was_changed() {
    let (server, client) = server(roomy()).await;
    let made = client.send("POST", "/v1/dealFields", json!({ "name": "OrderID", "field_type": "varchar" })).await;
    let key = made["key"].as_str().unwrap();
    assert_eq!(server.account().fields(Entity::Deals).key("OrderID").as_deref(), Some(key));
    let listed = client.get("/api/v1/dealFields").await;
    let field = listed["data"].as_array().unwrap().iter().find(|field| field["key"] == key).unwrap();
    for (name, expect) in [
        ("name", json!("OrderID")),
        ("field_type", json!("varchar")),
        ("edit_flag", json!(true)),
        ("options", Value::Null),
    ] {
        assert_eq!(field[name], expect, "{name}");
    }
    assert_eq!(listed["data"][1]["key"], "title");
    assert_eq!(listed["data"][1]["edit_flag"], false);
    let part = client.get("/v1/dealFields?start=2&limit=3").await;
    assert_eq!(part["additional_data"], json!({ "start": 2, "limit": 3, "more_items_in_collection": true }));
    assert_eq!(part["data"].as_array().unwrap().len(), 3);

    server.account().add_user("Bob", "bob@example.com");
    let users = client.get("/v1/users").await;
    assert_eq!((&users["data"][0]["is_you"], &users["data"][1]["email"]), (&json!(true), &json!("bob@example.com")));
    assert_eq!(client.get("/v1/users/find?term=bob").await["data"][0]["id"], 2);
    assert_eq!(client.get("/v1/users/me").await["data"]["company_domain"], json!(server.url()));
    assert!(
        client.get("/v1/currencies").await["data"].as_array().unwrap().iter().any(|currency| currency["code"] == "EUR")
    );
    assert_eq!(client.get("/v1/activityTypes").await["data"][0]["key_string"], "call");

    client.send("POST", "/api/v2/deals", json!({ "title": "x" })).await;
    let note = client.send("POST", "/v1/notes", json!({ "content": "hello", "deal_id": 1 })).await;
    assert_eq!(note["id"], 1);
    assert_eq!(client.send("PUT", "/v1/notes/1", json!({ "content": "bye" })).await["content"], "bye");
    assert_eq!(client.get("/v1/notes?deal_id=1").await["data"].as_array().unwrap().len(), 1);
    assert_eq!(client.get("/v1/notes?deal_id=2").await["data"].as_array().unwrap().len(), 0);
    client.send("DELETE", "/v1/notes/1", Value::Null).await;
    server.account().delete(Entity::Deals, 1);
    let recent = client.get("/v1/recents?since_timestamp=2026-01-01+00:00:00&items=deal").await;
    assert_eq!((&recent["data"][0]["item"], &recent["data"][0]["data"]["is_deleted"]), (&json!("deal"), &json!(true)));
}

#[tokio::test]
async fn products_activities_and_organizations_go_the_same_way() {
    let (_server, client) = server(roomy()).await;
    client.send("POST", "/api/v2/persons", json!({ "name": "P" })).await;
    let product = client
        .send(
            "POST",
            "/api/v2/products",
            json!({ "name": "Lock", "code": "L-1", "prices": [{ "price": 9.5, "currency": "EUR" }] }),
        )
        .await;
    assert_eq!(
        product["prices"],
        json!([{ "product_id": 1, "price": 9.5, "currency": "EUR", "cost": null, "direct_cost": null, "notes": null }])
    );
    assert_eq!((&product["is_linkable"], &product["billing_frequency"]), (&json!(true), &json!("one-time")));
    let activity = client
        .send(
            "POST",
            "/api/v2/activities",
            json!({ "subject": "Call", "participants": [{ "person_id": 1, "primary": true }] }),
        )
        .await;
    assert_eq!(
        (&activity["person_id"], &activity["done"], &activity["marked_as_done_time"]),
        (&json!(1), &json!(false), &Value::Null)
    );
    let other = client.send("POST", "/api/v2/activities", json!({ "person_id": 1 })).await;
    assert_eq!(other["participants"], json!([{ "person_id": 1, "primary": true }]));
    let done = client.send("PATCH", "/api/v2/activities/1", json!({ "done": true })).await;
    assert!(done["marked_as_done_time"].is_string());
    let organization = client
        .send(
            "POST",
            "/api/v2/organizations",
            json!({ "name": "O", "address": { "value": "1 Main St" }, "employee_count": 3 }),
        )
        .await;
    assert_eq!((&organization["address"]["value"], &organization["employee_count"]), (&json!("1 Main St"), &json!(3)));
    let pipeline = client.send("POST", "/api/v2/pipelines", json!({ "name": "Second" })).await;
    let stage = client.send("POST", "/api/v2/stages", json!({ "name": "New", "pipeline_id": pipeline["id"] })).await;
    assert_eq!(
        (&pipeline["order_nr"], &stage["order_nr"], &stage["deal_probability"]),
        (&json!(2), &json!(1), &json!(100))
    );
    assert_eq!(client.get("/api/v2/activities?done=true").await["data"].as_array().unwrap().len(), 1);
    assert_eq!(client.get("/api/v2/products?sort_by=name").await["data"].as_array().unwrap().len(), 1);
}
