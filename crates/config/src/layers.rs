//! Where a config comes from, layer by layer, and how the layers become one.
//!
//! Figment merges the values and remembers whose each one is; the trees of the layers, which know their lines, then give order
//! and place back, which figment's dictionaries do not keep.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use figment::{
    Figment, Metadata, Profile, Provider,
    value::{Dict, Empty, Map, Tag, Value as Merged},
};

use crate::{
    interpolate::Variables,
    problem::{Finding, Severity},
    tree::{At, Flaw, Key, Node, Parsed, Value, parse, resolve},
};

/// The file for settings that pipelines share.
pub const SHARED_FILE: &str = "towpath.yaml";

/// What marks a variable that overrides a key of the config.
pub const PREFIX: &str = "TOWPATH__";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    File,
    Environment,
    Flag,
}

/// One layer: a file, one variable or one flag.
#[derive(Debug)]
pub(crate) struct Layer {
    pub origin: Origin,
    /// As it is called in messages.
    pub name: String,
    pub text: String,
    pub root: Node,
    /// Values of keys that were there already, by their paths.
    pub dropped: Vec<(String, Node)>,
    /// It could not be read, so nothing is known of what stands where.
    pub broken: bool,
}

impl Layer {
    /// Reads a file's text as a layer. What cannot be read at all leaves an empty layer and an error.
    pub fn file(index: usize, name: String, text: String, findings: &mut Vec<Finding>) -> Self {
        let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
        let (mut broken, mut dropped) = (false, vec![]);
        let root = match parse(index, &text) {
            Ok(Parsed { root, flaws, dropped: left_out }) => {
                findings.extend(flaws.into_iter().map(finding));
                dropped = left_out;
                if !matches!(root.value, Value::Map(_)) {
                    let message = format!("a config file is a mapping of keys, this is {}", root.kind());
                    findings.push(
                        Finding::error(root.at, "", message)
                            .hint("begin with keys such as 'sources:' and 'sinks:'".to_owned()),
                    );
                    empty(index)
                } else {
                    root
                }
            }
            Err(flaw) => {
                findings.push(braces_hint(finding(flaw), &text));
                broken = true;
                empty(index)
            }
        };
        Self { origin: Origin::File, name, text, root, dropped, broken }
    }

    /// `TOWPATH__SINKS__WAREHOUSE__PATH=…`. Names that are already in `below` are found whatever their case; others are
    /// lowercase.
    pub fn environment(
        index: usize,
        variable: &str,
        value: &str,
        below: &[&Node],
        findings: &mut Vec<Finding>,
    ) -> Self {
        let mut places: Vec<&Node> = below.to_vec();
        let mut path = Vec::new();
        for segment in variable[PREFIX.len()..].split("__") {
            let known =
                places.iter().flat_map(|node| node.entries()).find(|(key, _)| key.name.eq_ignore_ascii_case(segment));
            let name = known.map_or_else(|| segment.to_lowercase(), |(key, _)| key.name.clone());
            places = places.iter().filter_map(|node| node.get(&name)).collect();
            path.push(name);
        }
        let name = format!("environment variable {variable}");
        Self::override_of(index, Origin::Environment, name, value.to_owned(), 0, path, findings)
    }

    /// `--set sinks.warehouse.path=…`.
    pub fn flag(index: usize, argument: &str, findings: &mut Vec<Finding>) -> Self {
        let name = "--set".to_owned();
        let Some((path, _)) =
            argument.split_once('=').filter(|(path, _)| path.split('.').all(|segment| !segment.is_empty()))
        else {
            let at = At { layer: index, start: 0, end: argument.len() };
            let finding = Finding::error(at, "", "this sets nothing")
                .hint("write --set key.of.the.file=value, such as --set sinks.warehouse.write=append".to_owned());
            findings.push(finding);
            return Self {
                origin: Origin::Flag,
                name,
                text: argument.to_owned(),
                root: empty(index),
                dropped: vec![],
                broken: true,
            };
        };
        let segments = path.split('.').map(str::to_owned).collect();
        Self::override_of(index, Origin::Flag, name, argument.to_owned(), path.len() + 1, segments, findings)
    }

    /// A layer of one key. The value stands in `text` from `start` on, and is written as in a file; what is no YAML (a password may
    /// begin with `*`) is text.
    fn override_of(
        index: usize,
        origin: Origin,
        name: String,
        text: String,
        start: usize,
        path: Vec<String>,
        findings: &mut Vec<Finding>,
    ) -> Self {
        let value = &text[start..];
        let at = At { layer: index, start, end: text.len() };
        let mut broken = false;
        let mut leaf = match value.chars().next() {
            Some('[' | '{' | '"' | '\'') => match parse(index, value) {
                Ok(Parsed { mut root, flaws, .. }) if flaws.is_empty() => {
                    root.walk_mut("", &mut |_, node| {
                        node.at = At { layer: index, start: node.at.start + start, end: node.at.end + start };
                    });
                    root
                }
                Ok(Parsed { flaws, .. }) => {
                    broken = true;
                    findings.extend(flaws.into_iter().map(finding).map(|finding| Finding {
                        key: path.join("."),
                        at: Some(at),
                        ..finding
                    }));
                    Node::new(Value::Null, at)
                }
                Err(_) if value.starts_with(['"', '\'']) => Node::new(Value::Text(value.to_owned()), at),
                Err(flaw) => {
                    broken = true;
                    findings.push(Finding { key: path.join("."), at: Some(at), ..finding(flaw) });
                    Node::new(Value::Null, at)
                }
            },
            _ => {
                let mut node = Node::new(resolve(value), at);
                node.raw = Some(crate::tree::Raw { text: value.to_owned(), plain: true });
                node
            }
        };
        leaf.walk_mut("", &mut |_, node| node.lenient |= node.raw.as_ref().is_some_and(|raw| raw.plain));
        let key_at =
            if origin == Origin::Flag { At { layer: index, start: 0, end: start.saturating_sub(1) } } else { at };
        let root = path
            .into_iter()
            .rev()
            .fold(leaf, |node, name| Node::new(Value::Map(vec![(Key { name, at: key_at }, node)]), at));
        Self { origin, name, text, root, dropped: vec![], broken }
    }
}

fn empty(layer: usize) -> Node {
    Node::new(Value::Map(vec![]), At { layer, start: 0, end: 0 })
}

fn finding(flaw: Flaw) -> Finding {
    Finding { severity: Severity::Error, at: Some(flaw.at), key: flaw.path, message: flaw.message, hint: flaw.hint }
}

/// `${NAME}` without quotes is no YAML inside braces.
fn braces_hint(finding: Finding, text: &str) -> Finding {
    let Some(at) = finding.at else { return finding };
    let from = text[..at.start].trim_end().rfind('\n').map_or(0, |newline| newline + 1);
    let to = text[at.start..].find('\n').map_or(text.len(), |newline| at.start + newline);
    let line = &text[from..to];
    if line.contains("${") && line.contains(['{', '[']) && !line.contains("\"${") {
        return finding.hint("inside { } and [ ], put quotes around a variable: \"${NAME}\"".to_owned());
    }
    finding
}

/// The nearest `towpath.yaml`: in the pipeline file's folder, or else in one above it.
pub(crate) fn shared_file(pipeline: &Path) -> Option<PathBuf> {
    let whole = std::path::absolute(pipeline).ok()?;
    let found = whole
        .ancestors()
        .skip(1)
        .map(|folder| folder.join(SHARED_FILE))
        .find(|file| *file != whole && file.is_file())?;
    // As the user would write it, where that is possible.
    let here = std::env::current_dir().ok()?;
    Some(found.strip_prefix(&here).map(Path::to_path_buf).unwrap_or(found))
}

/// The variables that override keys, in order of their names.
pub(crate) fn overrides(variables: &Variables) -> impl Iterator<Item = (&str, &str)> {
    variables
        .range(PREFIX.to_owned()..)
        .take_while(|(name, _)| name.starts_with(PREFIX))
        .map(|(name, value)| (name.as_str(), value.as_str()))
}

/// A layer as figment takes it; its number travels as the source.
struct Numbered<'l>(usize, &'l Layer);

impl Provider for Numbered<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.1.name.clone()).source(figment::Source::Custom(self.0.to_string()))
    }
    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let dict = match value(&self.1.root) {
            Merged::Dict(_, dict) => dict,
            _ => Dict::new(),
        };
        Ok(BTreeMap::from([(Profile::Default, dict)]))
    }
}

fn value(node: &Node) -> Merged {
    match &node.value {
        Value::Null => Merged::Empty(Tag::Default, Empty::None),
        Value::Bool(value) => Merged::Bool(Tag::Default, *value),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => number.into(),
            (_, Some(number)) => number.into(),
            _ => number.as_f64().unwrap_or_default().into(),
        },
        Value::Text(text) => text.as_str().into(),
        Value::List(items) => Merged::Array(Tag::Default, items.iter().map(value).collect()),
        Value::Map(entries) => {
            Merged::Dict(Tag::Default, entries.iter().map(|(key, node)| (key.name.clone(), value(node))).collect())
        }
    }
}

/// Merges layers, lowest first: mappings key by key, everything else as a whole. `main` is the layer whose order leads.
pub(crate) fn merge(layers: &[Layer], main: usize) -> Node {
    let figment =
        layers.iter().enumerate().fold(Figment::new(), |figment, (index, layer)| figment.merge(Numbered(index, layer)));
    let dict = figment.data().ok().and_then(|mut data| data.remove(&Profile::Default)).unwrap_or_default();
    let mut order: Vec<usize> = (0..layers.len()).collect();
    order.sort_by_key(|index| *index != main);
    let nodes: Vec<(usize, &Node)> =
        order.into_iter().filter_map(|index| Some((index, &layers.get(index)?.root))).collect();
    rebuild(&figment, &dict, &nodes)
}

fn rebuild(figment: &Figment, dict: &Dict, nodes: &[(usize, &Node)]) -> Node {
    let mut entries: Vec<(Key, Node)> = Vec::with_capacity(dict.len());
    for (_, node) in nodes {
        for (key, _) in node.entries() {
            let Some(merged) = dict.get(&key.name) else { continue };
            if entries.iter().any(|(other, _)| other.name == key.name) {
                continue;
            }
            let below: Vec<(usize, &Node)> =
                nodes.iter().filter_map(|(index, node)| Some((*index, node.get(&key.name)?))).collect();
            let owner = figment
                .get_metadata(merged.tag())
                .and_then(|metadata| metadata.source.as_ref()?.custom()?.parse::<usize>().ok());
            let of_owner = nodes.iter().find(|(index, _)| Some(*index) == owner).map(|(_, node)| *node);
            match merged {
                Merged::Dict(_, inner) => {
                    let maps: Vec<_> =
                        below.into_iter().filter(|(_, node)| matches!(node.value, Value::Map(_))).collect();
                    entries.push((key.clone(), rebuild(figment, inner, &maps)));
                }
                _ => {
                    let owned =
                        of_owner.and_then(|node| Some((node.key(&key.name)?.clone(), node.get(&key.name)?.clone())));
                    entries.extend(owned);
                }
            }
        }
    }
    let at = nodes.first().map_or_else(At::default, |(_, node)| node.at);
    Node::new(Value::Map(entries), at)
}
