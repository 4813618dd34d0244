use serde_json::{Value, json};

use super::*;

fn sink(more: Value) -> String {
    let mut options = json!({
        "company": "acme", "api_token": "t", "entity": "persons", "match_on": "CustomerID",
        "fields": { "CustomerID": "id", "Name": "name" },
    });
    for (key, value) in more.as_object().unwrap() {
        match value {
            Value::Null => drop(options.as_object_mut().unwrap().remove(key)),
            value => options[key] = value.clone(),
        }
    }
    match serde_json::from_value::<SinkOptions>(options) {
        Ok(options) => options.check().map_or_else(|error| error.to_string(), |()| "fine".to_owned()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_does_not_go_together_is_said() {
    let app = json!({ "client_id": "a", "client_secret": "b", "refresh_token": "c" });
    let link = json!({ "person_id": { "entity": "persons", "match_on": "CustomerID", "from": "customer" } });
    let cases = [
        json!({}),
        json!({ "company": null, "url": "https://acme.pipedrive.com/api/v2/" }),
        json!({ "api_token": null, "oauth2": app }),
        json!({ "oauth2": app }),
        json!({ "api_token": null }),
        json!({ "api_token": " " }),
        json!({ "company": null }),
        json!({ "company": "acme.pipedrive.com" }),
        json!({ "url": "https://acme.pipedrive.com" }),
        json!({ "auth": { "type": "bearer", "token": "x" } }),
        json!({ "page_size": 501 }),
        json!({ "fields": {} }),
        json!({ "match_on": "Other" }),
        json!({ "fields": { "CustomerID": { "value": "same" } } }),
        json!({ "fields": { "CustomerID": "id", "Name": { "column": "a", "value": "b" } } }),
        json!({ "fields": { "CustomerID": "id", "Name": 7 } }),
        json!({ "stage": "New" }),
        json!({ "on_missing": "close" }),
        json!({ "only_empty": ["Phone"] }),
        json!({ "link": link }),
        json!({ "workers": 0 }),
        json!({ "entity": "people" }),
        json!({ "match": "x" }),
        json!({ "max_deletes": "200%" }),
    ];
    let said: Vec<_> = cases.into_iter().map(|case| format!("{case}\n  {}", sink(case.clone()))).collect();
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn what_is_no_address_is_said_with_one() {
    for (url, said, hint) in [
        ("acme", "url: 'acme' is not an http or https address", "write https://acme.pipedrive.com"),
        ("my-shop", "url: 'my-shop' is not an http or https address", "write https://my-shop.pipedrive.com"),
        (
            "shop.pipedrive.com",
            "url: 'shop.pipedrive.com' is not an http or https address",
            "write https://shop.pipedrive.com",
        ),
        ("", "url: '' is not an http or https address", "write https://acme.pipedrive.com"),
        ("ftp://acme", "url: 'ftp://acme' is not an http or https address", "write https://acme.pipedrive.com"),
    ] {
        let account: AccountOptions = serde_json::from_value(json!({ "url": url })).unwrap();
        let error = account.base().unwrap_err();
        assert_eq!((error.to_string().as_str(), error.what_to_do()), (said, Some(hint)));
    }
}

#[test]
fn a_field_that_is_not_mapped_is_said_with_the_nearest() {
    let options = json!({
        "company": "acme", "api_token": "t", "entity": "persons", "match_on": "CustomerID",
        "fields": { "CustomerID": "id", "Name": "name", "Email": "email" }, "only_empty": ["Emial"],
    });
    let error = serde_json::from_value::<SinkOptions>(options).unwrap().check().unwrap_err();
    assert_eq!(error.to_string(), "only_empty: Emial is not among the fields");
    assert_eq!(error.what_to_do(), Some("did you mean 'Email'?"));
}

#[test]
fn an_account_has_one_address() {
    for (options, expected) in [
        (json!({ "company": "acme" }), "https://acme.pipedrive.com/"),
        (json!({ "url": "https://acme.pipedrive.com/api/v2" }), "https://acme.pipedrive.com/"),
        (json!({ "url": "https://acme.pipedrive.com/v1/?x=1#y" }), "https://acme.pipedrive.com/"),
        (json!({ "url": "http://127.0.0.1:4711/crm/" }), "http://127.0.0.1:4711/crm"),
    ] {
        let account: AccountOptions = serde_json::from_value(options).unwrap();
        assert_eq!(account.base().unwrap().as_str(), expected);
    }
}

#[test]
fn sources_are_checked_as_well() {
    let check = |more: Value| {
        let mut options = json!({ "company": "acme", "api_token": "t" });
        options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let options: SourceOptions = serde_json::from_value(options).unwrap();
        options.check().map_or_else(|error| error.to_string(), |()| "fine".to_owned())
    };
    for (options, expected) in [
        (json!({}), "fine"),
        (
            json!({ "entity": "deals", "deleted": true, "archived": true, "updated_since": "2026-01-01T00:00:00Z" }),
            "fine",
        ),
        (json!({ "entity": "stages" }), "fine"),
        (json!({ "entity": "../v1/users" }), "entity: '../v1/users' is not the end of a list's path"),
        (json!({ "entity": "persons", "archived": true }), "archived: only deals are listed so"),
        (json!({ "entity": "stages", "incremental": true }), "incremental: stages does not say what has changed"),
    ] {
        assert_eq!(check(options.clone()), expected, "{options}");
    }
}
