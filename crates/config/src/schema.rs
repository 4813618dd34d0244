//! The JSON Schema of a pipeline file: what editors complete by, and what files are checked against. One for both, so that they
//! cannot differ.

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use towpath_core::{
    Connector,
    pipeline::{CommonSpec, ErrorsSpec, Role, RunSpec, Schedule},
};

/// The keys of a file beside its components.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct TopLevel {
    /// The version of this format. Default: 1
    pub version: Option<u32>,
    /// The pipeline's name; state, locks and metrics go by it. Default: the file's name without its ending
    pub name: Option<String>,
    /// When `towpath serve` runs it.
    pub schedule: Option<Schedule>,
    /// What becomes of bad rows.
    pub errors: ErrorsSpec,
    #[serde(flatten)]
    pub run: RunSpec,
}

/// The plural under which components of a role stand.
pub(crate) fn section(role: Role) -> &'static str {
    match role {
        Role::Source => "sources",
        Role::Transform => "transforms",
        Role::Sink => "sinks",
    }
}

pub(crate) const ROLES: [Role; 3] = [Role::Source, Role::Transform, Role::Sink];

fn schema_of<T: JsonSchema>() -> Json {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    SchemaGenerator::new(settings).into_root_schema_for::<T>().to_value()
}

fn properties(schema: &mut Json) -> Map<String, Json> {
    match schema.get_mut("properties").map(Json::take) {
        Some(Json::Object(properties)) => properties,
        _ => Map::new(),
    }
}

/// The keys of the file itself, components left open.
pub(crate) fn top_level() -> Json {
    let mut own = properties(&mut schema_of::<TopLevel>());
    let mut all = Map::new();
    for key in ["version", "name", "schedule"] {
        all.extend(own.shift_remove_entry(key));
    }
    for role in ROLES {
        let what = match role {
            Role::Source => "Where rows come from, by name.",
            Role::Transform => "What rows go through, by name.",
            Role::Sink => "Where rows go, by name.",
        };
        all.insert(
            section(role).to_owned(),
            json!({ "description": what, "type": "object", "additionalProperties": true }),
        );
    }
    all.extend(own);
    json!({ "type": "object", "properties": all, "required": ["sources", "sinks"], "unevaluatedProperties": false })
}

/// Keys that every component of a role can have, beside its own.
pub(crate) fn common(role: Role) -> Map<String, Json> {
    let mut common = properties(&mut schema_of::<CommonSpec>());
    let not_here: &[&str] = match role {
        Role::Source => &["workers", "after"],
        Role::Transform => &["after"],
        Role::Sink => &["workers"],
    };
    common.retain(|key, _| !not_here.contains(&key.as_str()));
    common
}

/// The whole of a component: `type`, `inputs`, its own options, common keys.
pub(crate) fn component(connector: &Connector, role: Role, common: &Map<String, Json>) -> Option<Json> {
    let mut schema = connector.schema(role)?.to_value();
    let own = properties(&mut schema);
    let object = schema.as_object_mut()?;
    object.shift_remove("$schema");
    object.shift_remove("title");
    object.insert("description".to_owned(), connector.summary.into());
    object.insert("type".to_owned(), "object".into());
    let mut all = Map::new();
    all.insert("type".to_owned(), json!({ "const": connector.name, "description": "The connector." }));
    let mut required = vec![Json::from("type")];
    if role != Role::Source {
        let what = "Whose rows it takes: names of sources and transforms.";
        all.insert(
            "inputs".to_owned(),
            json!({ "type": "array", "items": { "type": "string" }, "minItems": 1, "description": what }),
        );
        required.push("inputs".into());
    }
    all.extend(own);
    for (key, schema) in common {
        all.entry(key.clone()).or_insert_with(|| schema.clone());
    }
    if let Some(Json::Array(more)) = object.shift_remove("required") {
        required.extend(more);
    }
    object.insert("properties".to_owned(), all.into());
    object.insert("required".to_owned(), required.into());
    // Keys may also come from the branch of a `oneOf` beside them, so `additionalProperties` would say too much.
    if object.get("additionalProperties").is_none_or(|value| *value == json!(false)) {
        object.shift_remove("additionalProperties");
        object.insert("unevaluatedProperties".to_owned(), false.into());
    }
    Some(schema)
}

/// The JSON Schema of a pipeline file, with all connectors linked into this program.
pub fn schema() -> Json {
    let mut root = top_level();
    let mut definitions = Map::new();
    for role in ROLES {
        let common = common(role);
        let mut branches = Vec::new();
        for connector in Connector::all() {
            if let Some(mut schema) = component(connector, role, &common) {
                if let Some(Json::Object(own)) = schema.as_object_mut().and_then(|object| object.shift_remove("$defs"))
                {
                    definitions.extend(own);
                }
                branches.push(schema);
            }
        }
        if let Some(section) = root.pointer_mut(&format!("/properties/{}", section(role))) {
            section["additionalProperties"] = json!({ "oneOf": branches });
        }
    }
    let mut whole = Map::new();
    whole.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
    whole.insert("title".to_owned(), "Towpath pipeline".into());
    if let Json::Object(root) = root {
        whole.extend(root);
    }
    if !definitions.is_empty() {
        whole.insert("$defs".to_owned(), definitions.into());
    }
    whole.into()
}
