//! What a schema asks for: units, types, words, bounds.

use std::sync::LazyLock;

use serde_json::Value as Json;
use towpath_core::{Period, Share, Size};

use crate::tree::{Node, Value};

/// A unit: its pattern in schemas, what it is called, and how it is read.
pub(crate) struct Unit {
    pattern: String,
    pub name: &'static str,
    pub read: fn(&str) -> Result<(), String>,
}

static UNITS: LazyLock<[Unit; 3]> = LazyLock::new(|| {
    fn pattern<T: schemars::JsonSchema>() -> String {
        let schema = schemars::schema_for!(T).to_value();
        schema["pattern"].as_str().unwrap_or_default().to_owned()
    }
    [
        Unit {
            pattern: pattern::<Period>(),
            name: "a duration like 30s",
            read: |text| text.parse::<Period>().map(drop),
        },
        Unit { pattern: pattern::<Size>(), name: "a size like 16MiB", read: |text| text.parse::<Size>().map(drop) },
        Unit { pattern: pattern::<Share>(), name: "a share like 30%", read: |text| text.parse::<Share>().map(drop) },
    ]
});

pub(crate) fn unit(schema: &Json) -> Option<&'static Unit> {
    let pattern = schema.get("pattern")?.as_str()?;
    UNITS.iter().find(|unit| unit.pattern == pattern)
}

fn type_is(wanted: &str, node: &Node) -> bool {
    match (&node.value, wanted) {
        (Value::Null, "null")
        | (Value::Bool(_), "boolean")
        | (Value::Text(_), "string")
        | (Value::List(_), "array")
        | (Value::Map(_), "object") => true,
        (Value::Number(number), "integer") => !number.is_f64(),
        (Value::Number(_), "number") => true,
        _ => false,
    }
}

pub(crate) fn accepts(schema: &Json, node: &Node) -> bool {
    match schema.get("type") {
        Some(Json::String(kind)) => type_is(kind, node),
        Some(Json::Array(kinds)) => kinds.iter().filter_map(Json::as_str).any(|kind| type_is(kind, node)),
        _ => match (schema.get("const"), schema.get("enum")) {
            (Some(value), _) => value.is_string() == node.text().is_some(),
            _ if schema.get("properties").is_some() => matches!(node.value, Value::Map(_)),
            _ => true,
        },
    }
}

pub(crate) fn accepts_type(schema: &Json, wanted: &str) -> bool {
    match schema.get("type") {
        Some(Json::String(kind)) => kind == wanted,
        Some(Json::Array(kinds)) => kinds.iter().any(|kind| kind == wanted),
        _ => false,
    }
}

pub(crate) fn allows_null(schema: &Json) -> bool {
    let branches = ["oneOf", "anyOf"].into_iter().filter_map(|key| schema.get(key)?.as_array()).flatten();
    accepts_type(schema, "null") || branches.into_iter().any(allows_null)
}

/// The one word a schema allows.
pub(crate) fn constant(schema: &Json) -> Option<&str> {
    match (schema.get("const"), schema.get("enum")) {
        (Some(value), _) => value.as_str(),
        (None, Some(Json::Array(values))) if values.len() == 1 => values[0].as_str(),
        _ => None,
    }
}

/// The words a branch allows.
pub(crate) fn constants(schema: &Json) -> Option<Vec<&str>> {
    match (schema.get("const"), schema.get("enum")) {
        (Some(value), _) => Some(vec![value.as_str()?]),
        (None, Some(Json::Array(values))) => Some(values.iter().filter_map(Json::as_str).collect()),
        _ => None,
    }
}

pub(crate) fn constants_only(schema: &Json) -> bool {
    constants(schema).is_some()
}

/// The property by whose one word the branches differ.
pub(crate) fn tag_of<'s>(branches: &[&'s Json]) -> Option<&'s str> {
    let objects = branches.iter().filter_map(|branch| branch.get("properties")?.as_object());
    let tags = objects.flat_map(|properties| {
        properties.iter().filter(|(_, schema)| constant(schema).is_some()).map(|(name, _)| name.as_str())
    });
    let tags: Vec<&str> = tags.collect();
    tags.iter().copied().max_by_key(|tag| tags.iter().filter(|other| *other == tag).count())
}

pub(crate) fn bounds(schema: &Json) -> (Option<f64>, Option<f64>) {
    let most = match schema.get("format").and_then(Json::as_str) {
        Some("uint8") => Some(f64::from(u8::MAX)),
        Some("uint16") => Some(f64::from(u16::MAX)),
        Some("uint32") => Some(f64::from(u32::MAX)),
        _ => None,
    };
    let number = |key: &str| schema.get(key).and_then(Json::as_f64);
    (number("minimum"), number("maximum").or(most))
}

/// What a key is for, in the first sentence of its description.
pub(crate) fn hint_of(name: &str, schema: &Json) -> Option<String> {
    let text = schema.get("description")?.as_str()?.replace('\n', " ");
    let sentence = text.split_once(". ").map_or(text.as_str(), |(first, _)| first).trim_end_matches('.');
    let mut letters = sentence.chars();
    let first = letters.next()?.to_lowercase();
    Some(format!("add '{name}': {first}{}", letters.as_str()))
}
