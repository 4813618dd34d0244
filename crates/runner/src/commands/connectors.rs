//! `towpath connectors`: the reference of what is linked into this program, from the structs that read the options.

use serde_json::{Value as Json, json};
use towpath_config::did_you_mean;
use towpath_core::{Connector, Error, connector, pipeline::Role};

use super::Outcome;
use crate::{args::Global, output, table::layout};

const ROLES: [Role; 3] = [Role::Source, Role::Transform, Role::Sink];

pub(crate) fn connectors(global: &Global, name: Option<&str>) -> Outcome {
    match name {
        None => list(global),
        Some(name) => describe(global, name),
    }
}

fn roles(connector: &Connector) -> Vec<Role> {
    let has = |role: &Role| match role {
        Role::Source => connector.source.is_some(),
        Role::Transform => connector.transform.is_some(),
        Role::Sink => connector.sink.is_some(),
    };
    ROLES.into_iter().filter(has).collect()
}

fn list(global: &Global) -> Outcome {
    let all = Connector::all();
    if global.json {
        let items: Vec<Json> = all
            .iter()
            .map(|connector| json!({ "name": connector.name, "summary": connector.summary, "roles": roles(connector) }))
            .collect();
        output::json(&items, false)?;
        return Ok(0);
    }
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|connector| {
            let roles: Vec<&str> = roles(connector).into_iter().map(Role::name).collect();
            vec![connector.name.to_owned(), roles.join(", "), connector.summary.to_owned()]
        })
        .collect();
    output::out(&layout(&["type", "as", "what it is for"].map(str::to_owned), &rows, &[]));
    Ok(0)
}

fn describe(global: &Global, name: &str) -> Outcome {
    let Some(connector) = Connector::find(name) else {
        let mut names: Vec<&str> = ROLES.into_iter().flat_map(connector::names).collect();
        names.sort_unstable();
        names.dedup();
        let error = Error::config(format!("there is no connector '{name}'"));
        return Err(error.hint(did_you_mean(name, names).unwrap_or_default()).into());
    };
    if global.json {
        let schemas: serde_json::Map<String, Json> = roles(connector)
            .into_iter()
            .filter_map(|role| Some((role.name().to_owned(), connector.schema(role)?.to_value())))
            .collect();
        let item = json!({ "name": connector.name, "summary": connector.summary, "options": schemas, "readme": connector.readme });
        output::json(&item, false)?;
        return Ok(0);
    }
    let mut text = connector.readme.trim().to_owned();
    text.push('\n');
    for role in roles(connector) {
        let Some(schema) = connector.schema(role).map(schemars::Schema::to_value) else { continue };
        text.push_str(&format!("\nOptions as a {}\n\n", role.name()));
        options(&schema, &schema, 1, &mut text);
    }
    output::out(&text);
    Ok(0)
}

/// How deep options in options are shown.
const DEEPEST: usize = 4;

fn options(root: &Json, schema: &Json, depth: usize, text: &mut String) {
    let schema = resolved(root, schema);
    let indent = "  ".repeat(depth);
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
    for (key, value) in schema["properties"].as_object().into_iter().flatten() {
        let value = resolved(root, value);
        let must = if required.contains(&key.as_str()) { ", required" } else { "" };
        text.push_str(&format!("{indent}{key}  ({}{must})\n", kind(root, value)));
        for line in value["description"].as_str().unwrap_or_default().lines() {
            text.push_str(&format!("{indent}    {line}\n"));
        }
        if depth < DEEPEST {
            inside(root, value, depth + 1, text);
        }
    }
    for branch in branches(schema).into_iter().filter(|_| depth < DEEPEST) {
        alternative(root, branch, depth, text);
    }
}

/// What a value is made of, where it is made of something.
fn inside(root: &Json, value: &Json, depth: usize, text: &mut String) {
    if value["properties"].is_object() {
        options(root, value, depth, text);
        return;
    }
    for branch in branches(value) {
        alternative(root, branch, depth, text);
    }
    for part in [&value["items"], &value["additionalProperties"]] {
        if part.is_object() {
            inside(root, resolved(root, part), depth, text);
        }
    }
}

/// One of several forms: a word, or a mapping with its `type`.
fn alternative(root: &Json, branch: &Json, depth: usize, text: &mut String) {
    let branch = resolved(root, branch);
    let indent = "  ".repeat(depth);
    let about =
        branch["description"].as_str().map(|about| format!("  {}", about.replace('\n', " "))).unwrap_or_default();
    if let Some(word) = branch["const"].as_str() {
        text.push_str(&format!("{indent}{word}{about}\n"));
    } else if branch["properties"].is_object() {
        let tag = branch["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .find_map(|(key, value)| Some((key, value["const"].as_str()?)));
        match tag {
            Some((key, word)) => {
                text.push_str(&format!("{indent}{key}: {word}{about}\n"));
                let mut rest = branch.clone();
                if let Some(properties) = rest["properties"].as_object_mut() {
                    properties.shift_remove(key);
                }
                options(root, &rest, depth + 1, text);
            }
            None => options(root, branch, depth, text),
        }
    } else if branch["oneOf"].is_array() || branch["anyOf"].is_array() {
        inside(root, branch, depth, text);
    }
}

fn branches(schema: &Json) -> Vec<&Json> {
    ["oneOf", "anyOf"].into_iter().filter_map(|key| schema[key].as_array()).flatten().collect()
}

fn resolved<'s>(root: &'s Json, schema: &'s Json) -> &'s Json {
    let target =
        schema["$ref"].as_str().and_then(|target| target.strip_prefix('#')).and_then(|pointer| root.pointer(pointer));
    target.unwrap_or(schema)
}

/// The type in a word or two.
fn kind(root: &Json, schema: &Json) -> String {
    let word = |name: &str| {
        match name {
            "string" => "text",
            "integer" => "whole number",
            "boolean" => "true or false",
            "array" => "list",
            "object" => "mapping",
            other => other,
        }
        .to_owned()
    };
    if let Some(example) = schema["examples"].get(0).and_then(Json::as_str) {
        return format!("such as {example}");
    }
    match &schema["type"] {
        Json::String(name) => return word(name),
        Json::Array(names) => {
            let names: Vec<String> =
                names.iter().filter_map(Json::as_str).filter(|name| *name != "null").map(word).collect();
            return names.join(" or ");
        }
        _ => {}
    }
    let mut kinds = Vec::new();
    for branch in branches(schema) {
        let kind = if branch["const"].is_string() { "a word".to_owned() } else { kind(root, resolved(root, branch)) };
        if kind != "null" && !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    if kinds.is_empty() { "any".to_owned() } else { kinds.join(" or ") }
}
