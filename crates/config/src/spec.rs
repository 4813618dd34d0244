//! From the merged tree to a [`PipelineSpec`], with the checks that a schema cannot make: types of components, inputs, schedules,
//! and what each connector itself has to say about its options.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use sha2::{Digest as _, Sha256};
use towpath_core::{
    ComponentSpec, Connector, Name, PipelineSpec, connector,
    pipeline::{CommonSpec, Role, Workers},
};

use crate::{
    check, graph,
    layers::Layer,
    nearest,
    problem::{Finding, Severity},
    schema::{self, ROLES, TopLevel, section},
    secrets::Secrets,
    tree::{At, Key, Node, Value, join},
};

/// Marks what must not show in any layer: by the names of keys, and by what the schemas said of the merged config.
pub(crate) fn mark_secrets(layers: &mut [Layer], secrets: &mut Secrets) {
    for layer in layers {
        secrets.mark("", &mut layer.root);
        layer.dropped.iter_mut().for_each(|(path, node)| secrets.mark(path, node));
    }
}

/// Settings that pipelines share hold no pipeline.
pub(crate) fn check_shared(shared: Option<&Node>) -> Vec<Finding> {
    let own = ["name", "sources", "transforms", "sinks", "schedule"];
    let entries = shared.map(Node::entries).unwrap_or_default().iter();
    entries
        .filter(|(key, _)| own.contains(&key.name.as_str()))
        .map(|(key, _)| {
            let message = format!("'{}' belongs in a pipeline file", key.name);
            Finding::error(key.at, &key.name, message)
                .hint(format!("{} holds what pipelines share, such as errors, commit or drain", crate::SHARED_FILE))
        })
        .collect()
}

/// One component on its way.
pub(crate) struct Part {
    pub role: Role,
    pub key: Key,
    pub path: String,
    pub node: Node,
    kind: String,
}

/// Builds the pipeline; `files` is the number of layers that are files. `None` where errors leave nothing to build. The second value names the components with unset variables.
pub(crate) fn build(
    root: &mut Node,
    file: &Path,
    files: usize,
    findings: &mut Vec<Finding>,
    secrets: &mut Secrets,
) -> (Option<PipelineSpec>, Vec<String>) {
    findings.extend(check::check(&schema::top_level(), root, "", secrets));
    let mut spec = PipelineSpec { file: Some(file.to_path_buf()), ..PipelineSpec::default() };
    if let Some(top) = top_level(root, findings) {
        check_top_level(&top, root, findings);
        let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let name = top.name.or(stem).unwrap_or_default();
        check_name(&name, root, findings);
        spec.name = Some(name.into());
        spec.schedule = top.schedule;
        spec.errors = top.errors;
        spec.run = top.run;
    }
    let mut parts = Vec::new();
    for role in ROLES {
        let common = schema::common(role);
        let entries = root.get(section(role)).map(|node| node.entries().to_vec()).unwrap_or_default();
        if let Some(node) = root.get(section(role)).filter(|_| entries.is_empty() && role != Role::Transform) {
            findings.push(Finding::error(node.at, section(role), format!("there is no {} here", role.name())));
        }
        let in_files: Vec<String> =
            entries.iter().filter(|(key, _)| key.at.layer < files).map(|(key, _)| key.name.clone()).collect();
        for (key, node) in entries {
            let path = join(section(role), &key.name);
            check_component_name(&key, &path, findings);
            let mut part = Part { role, key, path, node, kind: String::new() };
            if let Some(connector) = find_connector(&mut part, files, &in_files, findings) {
                let before = findings.len();
                if let Some(schema) = schema::component(connector, role, &common) {
                    findings.extend(check::check(&schema, &mut part.node, &part.path, secrets));
                }
                ask_connector(connector, &part, findings, before);
            }
            parts.push(part);
        }
    }
    graph::check_names(&parts, findings);
    graph::check_inputs(&parts, findings);
    spec.digest = Some(digest(&parts));
    let unset = parts.iter().filter(|part| part.node.has_unset()).map(|part| part.key.name.clone()).collect();
    for part in parts {
        let component = component_spec(&part, findings);
        match part.role {
            Role::Source => spec.sources.extend(component),
            Role::Transform => spec.transforms.extend(component),
            Role::Sink => spec.sinks.extend(component),
        }
    }
    (Some(spec), unset)
}

/// Reads a part of the tree; what goes wrong is told at its place, unless something was told there already.
fn read<T: DeserializeOwned>(json: Json, root: &Node, path: &str, findings: &mut Vec<Finding>) -> Option<T> {
    match serde_path_to_error::deserialize::<_, T>(json) {
        Ok(value) => Some(value),
        Err(error) => {
            let inside = error.path().to_string();
            tell(root, path, &inside, error.into_inner().to_string(), None, findings);
            None
        }
    }
}

/// Tells a message at `path` and, if it can be found there, `inside`; one message at a place is enough.
fn tell(root: &Node, path: &str, inside: &str, message: String, hint: Option<String>, findings: &mut Vec<Finding>) {
    let (at, rest) = locate(root, inside);
    let found = inside.strip_suffix(rest).unwrap_or(inside).trim_end_matches('.');
    let key = if found.is_empty() || found == "." { path.to_owned() } else { join(path, found) };
    let told = findings.iter().any(|finding| {
        finding.severity == Severity::Error && (finding.key == key || finding.key.starts_with(&format!("{key}.")))
    });
    if !told {
        findings.push(Finding::error(at, key, message).hint(hint));
    }
}

/// The place of a path below a node, and the rest of the path that is not there.
fn locate<'p>(node: &Node, path: &'p str) -> (At, &'p str) {
    let path = path.trim_start_matches('.');
    if path.is_empty() || path == "?" {
        return (node.at, "");
    }
    match &node.value {
        Value::Map(entries) => {
            let follows = |rest: &str| rest.is_empty() || rest.starts_with(['.', '[']);
            let named = entries.iter().filter(|(key, _)| path.strip_prefix(key.name.as_str()).is_some_and(follows));
            match named.max_by_key(|(key, _)| key.name.len()) {
                Some((key, child)) => locate(child, &path[key.name.len()..]),
                None => (At { end: node.at.start, ..node.at }, path),
            }
        }
        Value::List(items) => {
            let parsed = path
                .strip_prefix('[')
                .and_then(|rest| rest.split_once(']'))
                .and_then(|(index, rest)| Some((index.parse::<usize>().ok()?, rest)));
            match parsed.and_then(|(index, rest)| Some((items.get(index)?, rest))) {
                Some((item, rest)) => locate(item, rest),
                None => (node.at, path),
            }
        }
        _ => (node.at, path),
    }
}

fn top_level(root: &Node, findings: &mut Vec<Finding>) -> Option<TopLevel> {
    // What the schema found wanting was told; the rest is still worth a look.
    let told: Vec<String> =
        findings.iter().filter_map(|finding| finding.key.split(['.', '[']).next()).map(str::to_owned).collect();
    let mut object = serde_json::Map::new();
    for (key, node) in root.entries().iter().filter(|(_, node)| !node.is_null()) {
        if !ROLES.iter().any(|role| section(*role) == key.name) && !told.contains(&key.name) {
            object.insert(key.name.clone(), node.to_json());
        }
    }
    // Unknown keys were told; RunSpec would stop at the first of them.
    let known = schema::top_level();
    object.retain(|key, _| known["properties"].get(key).is_some());
    read(object.into(), root, "", findings)
}

fn check_top_level(top: &TopLevel, root: &Node, findings: &mut Vec<Finding>) {
    if let Some(version) = top.version.filter(|version| *version != 1) {
        let at = root.get("version").map_or(root.at, |node| node.at);
        findings.push(
            Finding::error(at, "version", format!("version {version} is not known here"))
                .hint("this program reads version 1".to_owned()),
        );
    }
    let Some(schedule) = &top.schedule else { return };
    let node = root.get("schedule").unwrap_or(root);
    let at = |key: &str| node.get(key).map_or(node.at, |node| node.at);
    match (&schedule.every, &schedule.cron) {
        (None, None) => {
            findings.push(
                Finding::error(node.at, "schedule", "this says neither how often nor when")
                    .hint("write every: 1h, or cron: \"0 6 * * *\"".to_owned()),
            );
        }
        (Some(_), Some(_)) => {
            findings.push(
                Finding::error(at("cron"), "schedule.cron", "'every' and 'cron' exclude each other")
                    .hint("take one of them out".to_owned()),
            );
        }
        _ => {}
    }
    if schedule.every.is_some_and(|every| every.0.as_secs() == 0) {
        findings.push(Finding::error(
            at("every"),
            "schedule.every",
            "a schedule needs at least a second from run to run",
        ));
    }
    if let Some(cron) = &schedule.cron
        && let Err(error) = crate::schedule::check_cron(cron)
    {
        let hint =
            "write five fields: minute, hour, day of month, month, day of week, such as \"0 6 * * 1-5\"".to_owned();
        findings.push(
            Finding::error(at("cron"), "schedule.cron", format!("'{cron}' is no cron expression: {error}")).hint(hint),
        );
    }
    if let Some(zone) = &schedule.time_zone {
        if jiff::tz::TimeZone::get(zone).is_err() {
            let known: Vec<String> = jiff::tz::db().available().map(|name| name.as_str().to_owned()).collect();
            let near =
                nearest::nearest(zone, known.iter().map(String::as_str)).map(|name| format!("did you mean '{name}'?"));
            let hint = near.unwrap_or_else(|| "write a name such as Europe/Berlin".to_owned());
            findings.push(
                Finding::error(at("time_zone"), "schedule.time_zone", format!("time zone '{zone}' is not known"))
                    .hint(hint),
            );
        }
        if schedule.cron.is_none() {
            findings.push(
                Finding::warning(at("time_zone"), "schedule.time_zone", "a time zone has no meaning without 'cron'")
                    .hint("'every' counts from the first start".to_owned()),
            );
        }
    }
}

fn check_name(name: &str, root: &Node, findings: &mut Vec<Finding>) {
    let right = !name.is_empty()
        && !name.starts_with(['.', '-'])
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'));
    if !right {
        let at = root.get("name").map_or(At { end: root.at.start, ..root.at }, |node| node.at);
        let hint = "use letters, digits, '_', '-' and '.'; where there is no 'name', the file's is taken";
        findings
            .push(Finding::error(at, "name", format!("'{name}' cannot be a pipeline's name")).hint(hint.to_owned()));
    }
}

fn check_component_name(key: &Key, path: &str, findings: &mut Vec<Finding>) {
    let right = !key.name.is_empty() && key.name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'));
    if !right {
        let message = format!("'{}' cannot be a component's name", key.name);
        findings.push(Finding::error(key.at, path, message).hint("use letters, digits, '_' and '-'".to_owned()));
    }
}

fn find_connector(
    part: &mut Part,
    files: usize,
    names_here: &[String],
    findings: &mut Vec<Finding>,
) -> Option<&'static Connector> {
    let role = part.role.name();
    if !matches!(part.node.value, Value::Map(_)) {
        let message = format!("a {role} is a mapping, this is {}", part.node.kind());
        findings.push(
            Finding::error(part.node.at, &part.path, message)
                .hint("give it a 'type' and its options, indented below its name".to_owned()),
        );
        return None;
    }
    let Some(kind) = part.node.get("type") else {
        if part.key.at.layer >= files {
            // A flag or a variable is meant for a component of the file.
            let hint = nearest::hint(&part.key.name, names_here.iter().map(String::as_str));
            findings.push(
                Finding::error(part.key.at, &part.path, format!("unknown {role} '{}'", part.key.name)).hint(hint),
            );
            return None;
        }
        let names = connector::names(part.role).join(", ");
        findings.push(
            Finding::error(part.key.at, &part.path, format!("'type' is missing in {role} '{}'", part.key.name))
                .hint(format!("possible are: {names}")),
        );
        return None;
    };
    if kind.unset {
        return None;
    }
    let path = join(&part.path, "type");
    let Some(name) = kind.text() else {
        findings.push(Finding::error(
            kind.at,
            path,
            format!("expected the name of a connector, found {}", kind.kind()),
        ));
        return None;
    };
    part.kind = name.to_owned();
    let names = connector::names(part.role);
    if names.contains(&name) {
        return Connector::find(name);
    }
    let possible = match names.is_empty() {
        true => format!("this program has no {role}s linked in"),
        false => format!("possible are: {}", names.join(", ")),
    };
    let hint = match nearest::nearest(name, names.iter().copied()) {
        Some(near) => format!("did you mean '{near}'? {possible}"),
        None => possible,
    };
    let message = match Connector::find(name) {
        Some(_) => format!("'{name}' cannot be a {role}"),
        None => format!("unknown {role} type '{name}'"),
    };
    findings.push(Finding::error(kind.at, path, message).hint(hint));
    None
}

/// Lets the connector look at its options, unless the schema already found them wanting. Unknown keys do not matter for that.
fn ask_connector(connector: &Connector, part: &Part, findings: &mut Vec<Finding>, before: usize) {
    let unknown =
        |finding: &Finding| finding.severity == Severity::Warning || finding.message.starts_with("unknown key");
    if !findings[before..].iter().all(unknown) {
        return;
    }
    let mut options = options(part);
    for finding in &findings[before..] {
        if let Some(key) = finding.key.strip_prefix(&part.path) {
            remove(&mut options, key.trim_start_matches('.'));
        }
    }
    let Err(error) = connector.check(part.role, &Name::from(part.key.name.clone()), options) else { return };
    // An unset variable is most likely why, and that was told.
    if part.node.has_unset() {
        return;
    }
    let hint = error.what_to_do().map(str::to_owned);
    let text = error.to_string();
    // `parameters.From: what is wrong`, or `window.size must …`: where it begins with a key that is there, that is the place.
    let word = text.split([' ', ':']).next().unwrap_or_default();
    let here = !word.is_empty() && locate(&part.node, word).1.is_empty();
    let (inside, message) = match text.split_once(": ") {
        Some((path, message)) if here && path == word => (path, message),
        // A part of the path may be missing in the file; the rest of it still leads near.
        Some((path, message)) if !path.contains(' ') && locate(&part.node, path).1 != path => (path, message),
        _ if here => (word, text.as_str()),
        _ => ("", text.as_str()),
    };
    tell(&part.node, &part.path, inside, message.to_owned(), hint, findings);
}

fn remove(options: &mut Json, path: &str) {
    let Json::Object(object) = options else { return };
    if object.shift_remove(path).is_some() {
        return;
    }
    if let Some((first, rest)) = path.split_once('.')
        && let Some(inner) = object.get_mut(first)
    {
        remove(inner, rest);
    }
}

fn is_common(key: &str) -> bool {
    matches!(key, "guard" | "retry" | "workers" | "batch_deadline" | "heartbeat" | "after")
}

/// What is the connector's own.
fn options(part: &Part) -> Json {
    let own = part
        .node
        .entries()
        .iter()
        .filter(|(key, _)| key.name != "type" && key.name != "inputs" && !is_common(&key.name));
    Json::Object(own.map(|(key, node)| (key.name.clone(), node.to_json())).collect())
}

/// What the components are told, in a short text. How gently and how fast they go to work is no part of it.
fn digest(parts: &[Part]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.path.as_bytes());
        for (key, node) in part.node.entries().iter().filter(|(key, _)| key.name == "inputs" || !is_common(&key.name)) {
            hash.update(format!("\n{} {}", key.name, node.written()));
        }
    }
    hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn component_spec(part: &Part, findings: &mut Vec<Finding>) -> Option<ComponentSpec> {
    let common = part.node.entries().iter().filter(|(key, node)| is_common(&key.name) && !node.is_null());
    let common: serde_json::Map<String, Json> = common.map(|(key, node)| (key.name.clone(), node.to_json())).collect();
    let common: CommonSpec = read(common.into(), &part.node, &part.path, findings)?;
    check_common(&common, part, findings);
    let inputs = match part.node.get("inputs").map(|node| &node.value) {
        Some(Value::List(items)) => items.iter().filter_map(Node::text).map(Name::from).collect(),
        _ => vec![],
    };
    Some(ComponentSpec {
        name: part.key.name.clone().into(),
        kind: part.kind.clone(),
        inputs,
        common,
        options: options(part),
    })
}

fn check_common(common: &CommonSpec, part: &Part, findings: &mut Vec<Finding>) {
    let mut wrong = |path: &str, message: &str| tell(&part.node, &part.path, path, message.to_owned(), None, findings);
    if common.guard.is_some_and(|guard| guard.max_concurrent == Some(0)) {
        wrong("guard.max_concurrent", "0 would let no request pass; write 1 or more");
    }
    if common.retry.is_some_and(|retry| retry.attempts == 0) {
        wrong("retry.attempts", "0 would not even try once; write 1 or more");
    }
    match common.workers {
        Some(Workers::Fixed(0)) => wrong("workers", "0 workers would do nothing; write 1 or more"),
        Some(Workers::Between { min, max }) if min > max => wrong("workers", "'min' is more than 'max'"),
        _ => {}
    }
}
