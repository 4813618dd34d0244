use proptest::prelude::*;
use serde_json::json;
use towpath_core::Connector;

use super::*;

/// Lays keys over a config that is right; null takes a key away.
fn options(over: Value) -> Value {
    let mut options = json!({
        "url": "https://reports.example/ReportServer",
        "report": "/Sales/Orders",
        "window": { "size": "1h", "start_parameter": "From", "end_parameter": "To" },
    });
    for (key, value) in over.as_object().unwrap() {
        let (outer, inner) = key.split_once('.').unwrap_or((key, ""));
        if inner.is_empty() {
            options[outer] = value.clone();
        } else {
            options[outer][inner] = value.clone();
        }
    }
    options
}

fn built(over: Value) -> String {
    let role = Connector::find("ssrs").unwrap().source.as_ref().unwrap();
    match (role.build)(&"s".into(), options(over)) {
        Ok(_) => "right".to_owned(),
        Err(error) => format!("{error}\n  {}", error.what_to_do().unwrap_or("-")),
    }
}

#[test]
fn what_people_get_wrong_is_told_with_what_is_right() {
    let cases = [
        json!({}),
        json!({ "url": "reports.example" }),
        json!({ "url": "ftp://reports.example/x" }),
        json!({ "url": "https://reports.example/ReportServer?/Sales/Orders" }),
        json!({ "url": "https://joe:secret@reports.example/ReportServer" }),
        json!({ "report": "Sales/Orders" }),
        json!({ "report": "/Sales/" }),
        json!({ "reprot": "/Sales/Orders" }),
        json!({ "parameters": { "rs:Command": "x" } }),
        json!({ "parameters": { "Line": [] } }),
        json!({ "parameters": { "Line": { "all": true } } }),
        json!({ "parameters": { "From": "2026-01-01" } }),
        json!({ "device": { "excelmode": "true" } }),
        json!({ "window.size": "30m" }),
        json!({ "window.size": "5h" }),
        json!({ "window.timezone": "Europe/Atlantis" }),
        json!({ "window.start": "2026-01-01T00:30" }),
        json!({ "window.start": "yesterday" }),
        json!({ "window.start": "2026-01-01T00:00:00+01:00" }),
        json!({ "window.start": "2026-01-01 06:00" }),
        json!({ "window.end_parameter": "From" }),
        json!({ "window.end": "open" }),
        json!({ "window.format": "%d.%m.%Y" }),
        json!({ "window.format": "%d.%m.%Y", "window.size": "1d" }),
        json!({ "window.format": "%d.%m.%Y %H:%M" }),
        json!({ "window.format": "%d.%m.%Y %H:%M", "window.end": "inclusive" }),
        json!({ "window.format": "%d.%m.%Y %H:%M", "window.end": "inclusive", "window.resolution": "1m" }),
        json!({ "window.format": "%Q" }),
        json!({ "window.format": "%y-%d-%m %I:%M" }),
        json!({ "window.resolution": "2h", "window.end": "inclusive" }),
        json!({ "window.max_windows_per_run": 0 }),
        json!({ "window.lokback": "1h" }),
    ];
    let shown = cases.map(|case| format!("{case}\n  {}", built(case.clone()).replace('\n', "\n  ")));
    insta::assert_snapshot!(shown.join("\n"));
}

#[test]
fn parameters_are_values_lists_null_or_all() {
    let check = |value: Value, expect: Given| assert_eq!(serde_json::from_value::<Given>(value).unwrap(), expect);
    let values = |values: &[&str]| Given::Values(values.iter().map(|value| (*value).to_owned()).collect());
    check(json!(null), Given::Null);
    check(json!("all"), Given::All);
    check(json!(["all"]), values(&["all"]));
    check(json!("All"), values(&["All"]));
    check(json!(7), values(&["7"]));
    check(json!(true), values(&["true"]));
    check(json!(["L1", 2, 2.5, false]), values(&["L1", "2", "2.5", "false"]));
}

#[test]
fn the_end_that_is_sent_is_the_last_time_that_belongs_to_the_window() {
    let sent = |over: Value| {
        let options: SsrsOptions = serde_json::from_value(options(over)).unwrap();
        let window = options.window.unwrap();
        window.written(window.end_sent(date(2026, 1, 1).at(6, 0, 0, 0))).unwrap()
    };
    assert_eq!(sent(json!({})), "2026-01-01T06:00:00");
    assert_eq!(sent(json!({ "window.end": "inclusive" })), "2026-01-01T05:59:59.999");
    assert_eq!(sent(json!({ "window.end": "inclusive", "window.resolution": "3ms" })), "2026-01-01T05:59:59.997");
    assert_eq!(sent(json!({ "window.end": "inclusive", "window.resolution": "1s" })), "2026-01-01T05:59:59");
}

#[test]
fn the_schema_knows_every_key_and_what_it_is_for() {
    let schema = Connector::find("ssrs").unwrap().schema(towpath_core::pipeline::Role::Source).unwrap();
    let schema = schema.to_value();
    let properties = schema["properties"].as_object().unwrap();
    for key in ["url", "report", "parameters", "window", "auth", "timeouts", "columns", "delimiter"] {
        assert!(properties.contains_key(key), "{key} is missing of {:?}", properties.keys());
    }
    let bare: Vec<_> =
        properties.iter().filter(|(_, of)| of["description"].as_str().is_none_or(str::is_empty)).collect();
    assert!(bare.is_empty(), "without a word: {bare:?}");
}

proptest! {
    #[test]
    fn what_a_default_config_sends_is_read_back_as_the_same_time(second in 0i64..4_000_000_000, nanos in 0i32..1_000_000_000) {
        let options: SsrsOptions = serde_json::from_value(options(json!({}))).unwrap();
        let at = jiff::Timestamp::new(second, nanos).unwrap().to_zoned(TimeZone::UTC).datetime();
        let text = options.window.unwrap().written(at).unwrap();
        prop_assert_eq!(text.parse::<DateTime>().unwrap(), at);
    }
}
