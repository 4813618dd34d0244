use serde_json::json;

use super::*;

fn object(value: Value) -> Json {
    value.as_object().unwrap().clone()
}

#[test]
fn records_become_rows_with_custom_fields_under_their_names() {
    let key = |c: &str| c.repeat(40);
    let custom = |name: &str, c: &str, kind: &str| {
        let options = json!([{ "id": 1, "label": "one" }, { "id": 2, "label": "two" }]);
        json!({ "field_name": name, "field_code": key(c), "field_type": kind, "options": options, "is_custom_field": true })
    };
    let definitions: Vec<Definition> = serde_json::from_value(json!([
        { "field_name": "Label", "field_code": "label_ids", "field_type": "set", "options": [{ "id": 9, "label": "hot" }] },
        custom("OrderID", "a", "varchar"),
        custom("Fee", "b", "monetary"),
        custom("Tier", "c", "enum"),
        custom("Kinds", "d", "set"),
        custom("Twin", "e", "date"),
        custom("Twin", "f", "double"),
        custom("title", "0", "text"),
        custom("Term", "1", "daterange"),
    ]))
    .unwrap();
    let columns = of_entity(Entity::Deals, &definitions);
    let wanted: Vec<String> =
        ["title", "value", "labels", "OrderID", "Fee", "Fee currency", "Tier", "Kinds", "Term", "expected_close_date"]
            .map(str::to_owned)
            .into();
    let mut wanted = wanted;
    wanted.extend([key("e"), key("f"), key("0")]);
    let columns = select(columns, Some(&wanted)).unwrap();
    let full = object(json!({
        "id": 7, "update_time": "2026-01-31T10:00:01Z", "title": "T", "value": 12.5, "label_ids": [9],
        "expected_close_date": "2026-02-01",
        "custom_fields": {
            key("a"): "O1", key("b"): { "value": 3, "currency": "EUR" }, key("c"): 2, key("d"): [1, 2],
            key("e"): "2026-01-31", key("f"): 0.5, key("0"): "mine", key("1"): { "value": "2026-01-01", "until": "2026-02-01" },
        },
    }));
    let bare = object(json!({ "id": 8, "update_time": "2026-01-31 10:00:02", "custom_fields": {} }));
    let wrong = object(json!({ "id": 9, "value": "much" }));
    let schema = schema(&columns);
    let (batch, rejects) = rows(&columns, &schema, &[full, bare, wrong]).unwrap();
    insta::assert_snapshot!(towpath_testkit::rows::lines(&batch).join("\n"));
    assert_eq!(rejects[0].reason, "value: \"much\" is not a number");
    let error = select(of_entity(Entity::Deals, &definitions), Some(&["titel".to_owned()])).unwrap_err();
    assert_eq!(error.to_string(), "fields: there is no field 'titel'");
}

#[test]
fn a_list_without_definitions_shows_its_columns_itself() {
    let sample =
        [object(json!({ "name": "a", "id": 1, "x": null, "n": 1 })), object(json!({ "id": 2, "n": 1.5, "deep": {} }))];
    let columns = of_sample(&sample);
    let found: Vec<_> = columns.iter().map(|column| (column.name.as_str(), column.holds.clone())).collect();
    assert_eq!(found, [("id", Holds::Whole), ("name", Holds::Text), ("n", Holds::Number), ("deep", Holds::Json)]);
}
