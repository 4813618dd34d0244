//! Checks a tree against a JSON Schema and says everything that is wrong with it, each at its place.
//!
//! This is no general validator: it knows what schemars writes for config structs, and in exchange it says what a person would say:
//! the nearest name instead of "does not match any of the given schemas". An object with named properties is closed also where serde
//! cannot refuse unknown keys (flattened structs).

use serde_json::Value as Json;

use crate::{
    kinds::{accepts, accepts_type, allows_null, bounds, constant, constants, constants_only, hint_of, tag_of, unit},
    nearest,
    problem::Finding,
    secrets::Secrets,
    tree::{Key, Node, Value, join},
};

/// Checks `node` against `schema`, which is also where `$ref`s are looked up. Values that came without the chance of quotes become
/// text where text is asked for.
pub(crate) fn check(schema: &Json, node: &mut Node, path: &str, secrets: &mut Secrets) -> Vec<Finding> {
    let mut checker = Checker { root: schema, findings: Vec::new(), secrets };
    checker.value(schema, node, path);
    checker.findings
}

struct Checker<'s, 'f> {
    root: &'s Json,
    findings: Vec<Finding>,
    secrets: &'f mut Secrets,
}

/// What an object may hold, gathered over `allOf` and the chosen branches.
#[derive(Default)]
struct Object<'s> {
    properties: Vec<(&'s str, &'s Json)>,
    required: Vec<&'s str>,
    others: Option<&'s Json>,
}

impl<'s> Checker<'s, '_> {
    fn resolved(&self, schema: &'s Json) -> &'s Json {
        let mut schema = schema;
        // A chain of references is short; a circle must end.
        for _ in 0..16 {
            let Some(target) = schema.get("$ref").and_then(Json::as_str) else { break };
            match target.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer)) {
                Some(found) => schema = found,
                None => break,
            }
        }
        schema
    }

    fn report(&mut self, node: &Node, path: &str, message: String, hint: Option<String>) {
        self.findings.push(Finding::error(node.at, path, message).hint(hint));
    }

    fn value(&mut self, schema: &'s Json, node: &mut Node, path: &str) {
        let schema = self.resolved(schema);
        if schema.get("writeOnly") == Some(&Json::Bool(true)) {
            self.secrets.paths.push(path.to_owned());
            self.secrets.mark(path, node);
        }
        if node.unset {
            return;
        }
        if let Value::Map(_) = node.value {
            self.map(schema, node, path);
            return;
        }
        let Some(schema) = self.branch_of(schema, node, path) else { return };
        if let Some(unit) = unit(schema) {
            // `30` without its unit is a number to YAML; the unit's own words are the better ones.
            let written = node.text().map(str::to_owned).or_else(|| Some(node.raw.as_ref()?.text.clone()));
            let error = match written.filter(|_| !node.is_null()) {
                Some(text) => (unit.read)(&text).err(),
                None if node.is_null() && accepts(schema, node) => None,
                None => Some(format!("this is {}, not {}", node.kind(), unit.name)),
            };
            if let Some(error) = error {
                let (message, hint) = match error.split_once("; ") {
                    Some((message, hint)) => (message.to_owned(), Some(hint.to_owned())),
                    None => (error, None),
                };
                self.report(node, path, message, hint);
            }
            return;
        }
        if node.lenient
            && !accepts(schema, node)
            && accepts_type(schema, "string")
            && let Some(raw) = &node.raw
        {
            node.value = Value::Text(raw.text.clone());
        }
        if !accepts(schema, node) {
            return self.wrong_type(&[schema], node, path);
        }
        self.constant(schema, node, path);
        match &mut node.value {
            Value::Number(number) => {
                let (least, most) = bounds(schema);
                let value = number.as_f64().unwrap_or_default();
                if least.is_some_and(|least| value < least) || most.is_some_and(|most| value > most) {
                    let range = match (least, most) {
                        (Some(least), Some(most)) => format!("from {least} to {most}"),
                        (Some(least), None) => format!("{least} or more"),
                        (None, Some(most)) => format!("{most} or less"),
                        (None, None) => String::new(),
                    };
                    let message = format!("{number} is out of range");
                    self.report(node, path, message, Some(format!("write a number {range}")));
                }
            }
            Value::List(items) => {
                let least = schema.get("minItems").and_then(Json::as_u64).unwrap_or(0);
                if (items.len() as u64) < least {
                    let message = "this list is empty".to_owned();
                    self.findings.push(Finding::error(node.at, path, message));
                    return;
                }
                let each = schema.get("items");
                let first = schema.get("prefixItems").and_then(Json::as_array);
                for (index, item) in items.iter_mut().enumerate() {
                    if let Some(schema) = first.and_then(|first| first.get(index)).or(each) {
                        self.value(schema, item, &format!("{path}[{index}]"));
                    }
                }
            }
            _ => {}
        }
    }

    fn constant(&mut self, schema: &'s Json, node: &Node, path: &str) {
        let allowed: Vec<&Json> = match (schema.get("const"), schema.get("enum")) {
            (Some(one), _) => vec![one],
            (None, Some(Json::Array(many))) => many.iter().collect(),
            _ => return,
        };
        if !allowed.contains(&&node.to_json()) {
            let names: Vec<&str> = allowed.iter().filter_map(|value| value.as_str()).collect();
            self.unknown_value(&names, node, path);
        }
    }

    fn unknown_value(&mut self, names: &[&str], node: &Node, path: &str) {
        let written =
            node.text().map(str::to_owned).or_else(|| Some(node.raw.as_ref()?.text.clone())).unwrap_or_default();
        let hint = match nearest::nearest(&written, names.iter().copied()) {
            Some(near) => format!("did you mean '{near}'? possible are: {}", names.join(", ")),
            None => format!("possible are: {}", names.join(", ")),
        };
        // Words that ran together from several lines may be anything.
        let named = if written.contains(char::is_whitespace) { "this".to_owned() } else { format!("'{written}'") };
        self.report(node, path, format!("{named} is not possible here"), Some(hint));
    }

    fn wrong_type(&mut self, schemas: &[&'s Json], node: &Node, path: &str) {
        let mut wanted: Vec<String> = Vec::new();
        for schema in schemas {
            let words = self.words(schema);
            if !words.is_empty() && !wanted.contains(&words) {
                wanted.push(words);
            }
        }
        let message = match wanted.is_empty() {
            true => format!("{} is not possible here", node.kind()),
            false => format!("expected {}, found {}", wanted.join(" or "), node.kind()),
        };
        let text = schemas.iter().any(|schema| accepts_type(schema, "string"));
        let list = schemas.iter().any(|schema| accepts_type(schema, "array"));
        let hint = match &node.raw {
            Some(raw) if text && !node.is_null() => Some(format!("put quotes around it: \"{}\"", raw.text)),
            Some(raw) if list && !node.is_null() => Some(format!("write [{}]", raw.text)),
            _ => None,
        };
        self.report(node, path, message, hint);
    }

    /// What a schema asks for, in words.
    fn words(&self, schema: &'s Json) -> String {
        if let Some(unit) = unit(schema) {
            return unit.name.to_owned();
        }
        let one = |kind: &str| match kind {
            "string" => "text",
            "integer" => "a whole number",
            "number" => "a number",
            "boolean" => "true or false",
            "array" => "a list",
            "object" => "a mapping",
            _ => "",
        };
        match schema.get("type") {
            Some(Json::String(kind)) => one(kind).to_owned(),
            Some(Json::Array(kinds)) => {
                let kinds: Vec<&str> =
                    kinds.iter().filter_map(Json::as_str).map(one).filter(|kind| !kind.is_empty()).collect();
                kinds.join(" or ")
            }
            _ if schema.get("const").is_some() || schema.get("enum").is_some() => "one of a few words".to_owned(),
            _ if schema.get("properties").is_some() => "a mapping".to_owned(),
            _ => String::new(),
        }
    }

    /// The branch of a `oneOf` or `anyOf` that was meant; the schema itself where there are none.
    fn branch_of(&mut self, schema: &'s Json, node: &mut Node, path: &str) -> Option<&'s Json> {
        let schema = self.resolved(schema);
        let branches = ["oneOf", "anyOf"].into_iter().find_map(|key| schema.get(key)?.as_array());
        let Some(branches) = branches else {
            // One schema in `allOf` is how a described reference is written.
            let all = schema.get("allOf").and_then(Json::as_array).filter(|_| !matches!(node.value, Value::Map(_)));
            return match all.and_then(|all| all.first()) {
                Some(inner) => self.branch_of(inner, node, path),
                None => Some(schema),
            };
        };
        let branches: Vec<&'s Json> = branches.iter().map(|branch| self.resolved(branch)).collect();
        if let Value::Map(_) = node.value
            && let Some(tag) = tag_of(&branches)
        {
            return self.tagged(tag, &branches, node, path);
        }
        let mut fitting: Vec<&'s Json> = branches.iter().copied().filter(|branch| self.fits(branch, node)).collect();
        if fitting.is_empty() && node.lenient {
            fitting = branches.iter().copied().filter(|branch| accepts_type(branch, "string")).collect();
        }
        match fitting.as_slice() {
            [] => {
                let units: Vec<&'s Json> = branches.iter().copied().filter(|branch| unit(branch).is_some()).collect();
                if let (&[only], Some(_)) = (units.as_slice(), &node.raw)
                    && !node.is_null()
                {
                    return Some(only);
                }
                self.wrong_type(&branches, node, path);
                None
            }
            [only] => self.branch_of(only, node, path),
            several => {
                let constants: Vec<&str> = several.iter().filter_map(|branch| constants(branch)).flatten().collect();
                let all_constant = several.iter().all(|branch| constants_only(branch));
                if all_constant && node.text().is_some_and(|text| !constants.contains(&text)) {
                    self.unknown_value(&constants, node, path);
                    return None;
                }
                let mut best: Option<(usize, &'s Json)> = None;
                for branch in several {
                    let (mut copy, mut secrets) = (node.clone(), Secrets::default());
                    let mut trial = Checker { root: self.root, findings: vec![], secrets: &mut secrets };
                    trial.value(branch, &mut copy, path);
                    let wrong = trial.findings.len();
                    if best.is_none_or(|(least, _)| wrong < least) {
                        best = Some((wrong, branch));
                    }
                }
                best.and_then(|(_, branch)| self.branch_of(branch, node, path))
            }
        }
    }

    /// Whether a branch can be meant by the value's type; nested choices are looked into.
    fn fits(&self, schema: &'s Json, node: &Node) -> bool {
        let schema = self.resolved(schema);
        match ["oneOf", "anyOf"].into_iter().find_map(|key| schema.get(key)?.as_array()) {
            Some(branches) => branches.iter().any(|branch| self.fits(branch, node)),
            None => accepts(schema, node),
        }
    }

    fn tagged(&mut self, tag: &'s str, branches: &[&'s Json], node: &mut Node, path: &str) -> Option<&'s Json> {
        let names: Vec<&str> =
            branches.iter().filter_map(|branch| constant(branch.get("properties")?.get(tag)?)).collect();
        let Some(value) = node.get(tag) else {
            let untagged = branches.iter().find(|branch| {
                accepts_type(branch, "object") && branch.get("properties").and_then(|all| all.get(tag)).is_none()
            });
            if untagged.is_none() {
                let message = format!("'{tag}' is missing");
                self.report(node, path, message, Some(format!("write one of: {}", names.join(", "))));
            }
            return untagged.copied();
        };
        if value.unset {
            return None;
        }
        let text = value.text().map(str::to_owned).unwrap_or_default();
        let found = branches.iter().find(|branch| {
            branch.get("properties").and_then(|all| all.get(tag)).and_then(constant) == Some(text.as_str())
        });
        if found.is_none() {
            let value = value.clone();
            self.unknown_value(&names, &value, &join(path, tag));
        }
        found.copied()
    }

    fn map(&mut self, schema: &'s Json, node: &mut Node, path: &str) {
        let mut object = Object::default();
        let before = self.findings.len();
        if !self.gather(schema, node, path, &mut object) {
            if self.findings.len() == before {
                self.wrong_type(&[schema], node, path);
            }
            return;
        }
        let open = object.properties.is_empty() && object.others.is_none();
        let known: Vec<&str> = object.properties.iter().map(|(name, _)| *name).collect();
        let at = node.at;
        let Value::Map(entries) = &mut node.value else { return };
        for name in &object.required {
            if !entries.iter().any(|(key, _)| key.name == *name) {
                let hint = object
                    .properties
                    .iter()
                    .find(|(known, _)| known == name)
                    .and_then(|(_, schema)| hint_of(name, schema));
                self.findings.push(
                    Finding::error(crate::tree::At { end: at.start, ..at }, path, format!("'{name}' is missing"))
                        .hint(hint),
                );
            }
        }
        // A key that is wrong may well be the one that is missing; it is told once as unknown with its right name, and that is enough.
        let unknown: Vec<Key> = entries
            .iter()
            .filter(|(key, _)| !open && object.others.is_none() && !known.contains(&key.name.as_str()))
            .map(|(key, _)| key.clone())
            .collect();
        for (key, value) in entries.iter_mut() {
            let child = join(path, &key.name);
            match object.properties.iter().find(|(name, _)| *name == key.name) {
                // Nothing written after a key is the same as the key left out.
                Some(_) if value.is_null() && !object.required.contains(&key.name.as_str()) => {}
                Some((_, schema)) => self.value(schema, value, &child),
                None => {
                    if let Some(schema) = object.others.filter(|schema| schema.is_object()) {
                        self.value(schema, value, &child);
                    }
                }
            }
        }
        // Beside a password, a key with a slip in it is most likely the password.
        let near_secrets =
            object.properties.iter().any(|(_, schema)| schema.get("writeOnly") == Some(&Json::Bool(true)));
        // Left out means left out: a connector need not know null where it knows a default.
        let known_null =
            |key: &Key| object.properties.iter().any(|(name, schema)| *name == key.name && !allows_null(schema));
        entries.retain(|(key, value)| !(value.is_null() && known_null(key)));
        for key in unknown {
            if let Some((_, value)) = entries.iter_mut().find(|(other, _)| near_secrets && other.name == key.name) {
                // A word without a value may be what a comma has cut off.
                if value.is_null() {
                    self.secrets.keep(key.at, &key.name);
                }
                self.secrets.paths.push(join(path, &key.name));
                self.secrets.mark(&join(path, &key.name), value);
            }
            let unused = known.iter().copied().filter(|name| !entries.iter().any(|(key, _)| key.name == *name));
            let hint = match nearest::nearest(&key.name, unused) {
                Some(near) => {
                    // It was meant for the missing one.
                    let missing = format!("'{near}' is missing");
                    self.findings.retain(|finding| !(finding.key == path && finding.message == missing));
                    Some(format!("did you mean '{near}'?"))
                }
                None => nearest::hint(&key.name, known.iter().copied()),
            };
            let finding =
                Finding::error(key.at, join(path, &key.name), format!("unknown key '{}'", key.name)).hint(hint);
            self.findings.push(finding);
        }
    }

    /// Gathers what the object may hold; `false`: it cannot be one, or no branch fits, and that was told.
    fn gather(&mut self, schema: &'s Json, node: &mut Node, path: &str, into: &mut Object<'s>) -> bool {
        let schema = self.resolved(schema);
        if schema.get("type").is_some() && !accepts_type(schema, "object") {
            return false;
        }
        if let Some(Json::Object(properties)) = schema.get("properties") {
            into.properties.extend(properties.iter().map(|(name, schema)| (name.as_str(), schema)));
        }
        if let Some(Json::Array(required)) = schema.get("required") {
            into.required.extend(required.iter().filter_map(Json::as_str));
        }
        if let Some(others) = schema.get("additionalProperties").filter(|others| **others != Json::Bool(false)) {
            into.others = Some(others);
        }
        let all = schema.get("allOf").and_then(Json::as_array);
        for part in all.into_iter().flatten() {
            if !self.gather(part, node, path, into) {
                return false;
            }
        }
        if schema.get("oneOf").or_else(|| schema.get("anyOf")).is_some() {
            return match self.branch_of(schema, node, path) {
                Some(branch) => self.gather(branch, node, path, into),
                None => false,
            };
        }
        true
    }
}
