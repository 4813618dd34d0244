//! YAML as a tree that knows where each part stands.
//!
//! Errors point at a line and a column, and layers are merged key by key; both need the document as it was written, which
//! no typed reader keeps. Scalars follow YAML 1.2's core schema: `yes`, `no` and `on` are text, and so is a number with
//! leading zeros, because a station called `007` is not called `7`.

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span};
use serde_json::Number;

use crate::problem::line_of;

/// More values than any honest file has. Aliases of aliases grow without bound.
const MOST_NODES: usize = 200_000;

/// How the message about a file begins that cannot be read at all.
pub(crate) const NOT_YAML: &str = "this is not YAML";

/// A stretch of a layer's text, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct At {
    pub layer: usize,
    pub start: usize,
    pub end: usize,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub value: Value,
    pub at: At,
    /// A scalar as it was written, and whether it stood without quotes.
    pub raw: Option<Raw>,
    /// It names a variable that is not set.
    pub unset: bool,
    /// Quotes could not have been meant: it came from a variable, the environment or a flag.
    pub lenient: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Raw {
    pub text: String,
    pub plain: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Entries),
}

/// Keys and values, in the order of the file.
pub(crate) type Entries = Vec<(Key, Node)>;

#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub name: String,
    pub at: At,
}

/// Something wrong with the document itself.
#[derive(Debug)]
pub(crate) struct Flaw {
    pub at: At,
    pub path: String,
    pub message: String,
    pub hint: Option<String>,
}

impl Node {
    pub fn new(value: Value, at: At) -> Self {
        Self { value, at, raw: None, unset: false, lenient: false }
    }
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|(name, _)| name.name == key).map(|(_, node)| node)
    }
    pub fn key(&self, key: &str) -> Option<&Key> {
        self.entries().iter().find(|(name, _)| name.name == key).map(|(name, _)| name)
    }
    pub fn entries(&self) -> &[(Key, Self)] {
        if let Value::Map(entries) = &self.value { entries } else { &[] }
    }
    pub fn text(&self) -> Option<&str> {
        if let Value::Text(text) = &self.value { Some(text) } else { None }
    }
    pub fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }
    /// As it is called in messages.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Number(number) if number.is_f64() => "a number",
            Value::Number(_) => "a whole number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Number(number) => Json::Number(number.clone()),
            Value::Text(text) => Json::String(text.clone()),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => {
                Json::Object(entries.iter().map(|(key, node)| (key.name.clone(), node.to_json())).collect())
            }
        }
    }
    /// As it is written: variables by their names, so without what stands in them.
    pub fn written(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match (&self.value, &self.raw) {
            (Value::List(items), _) => items.iter().map(Self::written).collect(),
            (Value::Map(entries), _) => {
                Json::Object(entries.iter().map(|(key, node)| (key.name.clone(), node.written())).collect())
            }
            (_, Some(raw)) => Json::String(raw.text.clone()),
            (_, None) => self.to_json(),
        }
    }
    /// Calls `each` on every node, this one first.
    pub fn walk_mut(&mut self, path: &str, each: &mut impl FnMut(&str, &mut Self)) {
        each(path, self);
        match &mut self.value {
            Value::List(items) => {
                items.iter_mut().enumerate().for_each(|(index, item)| item.walk_mut(&format!("{path}[{index}]"), each));
            }
            Value::Map(entries) => {
                entries.iter_mut().for_each(|(key, node)| node.walk_mut(&join(path, &key.name), each))
            }
            _ => {}
        }
    }
    /// Whether a part of it names a variable that is not set.
    pub fn has_unset(&self) -> bool {
        self.unset
            || match &self.value {
                Value::List(items) => items.iter().any(Self::has_unset),
                Value::Map(entries) => entries.iter().any(|(_, node)| node.has_unset()),
                _ => false,
            }
    }
}

/// `sources` and `orders` make `sources.orders`.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// What a scalar without quotes means.
pub(crate) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let leading_zero = digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.");
    let numeric = digits.starts_with(|c: char| c.is_ascii_digit()) || digits.starts_with('.') && digits.len() > 1;
    if numeric
        && !leading_zero
        && digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'))
    {
        if let Ok(number) = text.parse::<i64>() {
            return Value::Number(number.into());
        }
        if let Ok(number) = text.parse::<u64>() {
            return Value::Number(number.into());
        }
        // A whole number past 64 bits stays text: as a float it would lose digits.
        if !digits.bytes().all(|b| b.is_ascii_digit())
            && let Some(number) = text.parse::<f64>().ok().and_then(Number::from_f64)
        {
            return Value::Number(number);
        }
    }
    Value::Text(text.to_owned())
}

/// A document that could be read.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub root: Node,
    /// What is wrong with it all the same.
    pub flaws: Vec<Flaw>,
    /// Values of keys that were there already, by their paths.
    pub dropped: Vec<(String, Node)>,
}

/// Reads one document. An empty one is an empty mapping.
pub(crate) fn parse(layer: usize, text: &str) -> Result<Parsed, Flaw> {
    let options = granit_parser::options! { emit_comments: false };
    let parser = Parser::new_from_str_with_options(text, options);
    let mut reader =
        Reader { layer, text, parser, anchors: Vec::new(), flaws: Vec::new(), dropped: Vec::new(), nodes: 0 };
    let mut root = None;
    while let Some((event, span)) = reader.next()? {
        match event {
            Event::DocumentStart(..) if root.is_some() => {
                return Err(reader
                    .flaw(&span, "", "a second document begins here")
                    .with_hint("a pipeline file holds one document; take the line '---' out"));
            }
            Event::StreamStart | Event::StreamEnd | Event::DocumentStart(..) | Event::DocumentEnd => {}
            event => root = Some(reader.node(event, &span, "")?),
        }
    }
    let empty = || Node::new(Value::Map(vec![]), At { layer, start: 0, end: 0 });
    let root = root.filter(|root| !root.is_null()).unwrap_or_else(empty);
    Ok(Parsed { root, flaws: reader.flaws, dropped: reader.dropped })
}

struct Reader<'t, I: granit_parser::BorrowedInput<'t>> {
    layer: usize,
    text: &'t str,
    parser: Parser<'t, I>,
    anchors: Vec<(usize, Node)>,
    flaws: Vec<Flaw>,
    dropped: Vec<(String, Node)>,
    nodes: usize,
}

impl Flaw {
    fn with_hint(mut self, hint: &str) -> Self {
        self.hint = Some(hint.to_owned());
        self
    }
}

impl<'t, I: granit_parser::BorrowedInput<'t>> Reader<'t, I> {
    fn next(&mut self) -> Result<Option<(Event<'t>, Span)>, Flaw> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok(next)) => Ok(Some(next)),
            Some(Err(error)) => Err(self.syntax(&error)),
        }
    }

    fn syntax(&self, error: &ScanError) -> Flaw {
        let mut start = error.marker().byte_offset().unwrap_or(self.text.len()).min(self.text.len());
        let info = error.info();
        let message = if info.is_empty() { "it cannot be read".to_owned() } else { info };
        let mut hint = "look for a missing bracket, quote or indent on this line or just above it";
        if message.contains("tab") {
            start = self.text[start..].find('\t').map_or(start, |tab| start + tab);
            hint = "indent with spaces";
        }
        let at = At { layer: self.layer, start, end: start };
        Flaw { at, path: String::new(), message: format!("{NOT_YAML}: {message}"), hint: Some(hint.to_owned()) }
    }

    fn at(&self, span: &Span) -> At {
        let range = span.byte_range().unwrap_or(0..0);
        At { layer: self.layer, start: range.start.min(self.text.len()), end: range.end.min(self.text.len()) }
    }

    fn flaw(&self, span: &Span, path: &str, message: impl Into<String>) -> Flaw {
        Flaw { at: self.at(span), path: path.to_owned(), message: message.into(), hint: None }
    }

    fn ends_early(&self, path: &str) -> Flaw {
        let at = At { layer: self.layer, start: self.text.len(), end: self.text.len() };
        Flaw { at, path: path.to_owned(), message: "the file ends too early".to_owned(), hint: None }
    }

    fn count(&mut self, nodes: usize, span: &Span, path: &str) -> Result<(), Flaw> {
        self.nodes += nodes;
        if self.nodes > MOST_NODES {
            Err(self.flaw(span, path, format!("more than {MOST_NODES} values")))
        } else {
            Ok(())
        }
    }

    fn node(&mut self, event: Event<'t>, span: &Span, path: &str) -> Result<Node, Flaw> {
        self.count(1, span, path)?;
        let at = self.at(span);
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                let forced = tag.as_ref().is_some_and(|tag| tag.is_yaml_core_schema_tag("str"));
                let value = if plain && !forced { resolve(&text) } else { Value::Text(text.to_string()) };
                let mut node = Node::new(value, at);
                node.raw = Some(Raw { text: text.into_owned(), plain: plain && !forced });
                (node, anchor)
            }
            Event::SequenceStart(_, anchor, _) => {
                let mut items = Vec::new();
                let end = loop {
                    match self.next()? {
                        Some((Event::SequenceEnd, end)) => break self.at(&end).end,
                        Some((event, span)) => {
                            items.push(self.node(event, &span, &format!("{path}[{}]", items.len()))?)
                        }
                        None => return Err(self.ends_early(path)),
                    }
                };
                (Node::new(Value::List(items), At { end: end.max(at.start), ..at }), anchor)
            }
            Event::MappingStart(_, anchor, _) => (self.map(at, path)?, anchor),
            Event::Alias(id) => {
                let known = self.anchors.iter().rev().find(|(anchor, _)| *anchor == id).map(|(_, node)| node.clone());
                let node =
                    known.ok_or_else(|| self.flaw(span, path, "this alias names a part that is not finished"))?;
                self.count(size(&node), span, path)?;
                return Ok(node);
            }
            _ => return Err(self.flaw(span, path, "a value was expected here")),
        };
        if anchor != 0 {
            self.anchors.push((anchor, node.clone()));
        }
        Ok(node)
    }

    fn map(&mut self, at: At, path: &str) -> Result<Node, Flaw> {
        let (mut entries, mut merged): (Entries, Entries) = (Vec::new(), Vec::new());
        let end = loop {
            let Some((event, span)) = self.next()? else { return Err(self.ends_early(path)) };
            let name = match event {
                Event::MappingEnd => break self.at(&span).end,
                Event::Scalar(text, ..) => text.into_owned(),
                _ => {
                    return Err(self
                        .flaw(&span, path, "a key must be a word")
                        .with_hint("put quotes around a value that begins with { or ["));
                }
            };
            let key = Key { at: self.at(&span), name };
            let child = join(path, &key.name);
            let Some((event, span)) = self.next()? else { return Err(self.ends_early(&child)) };
            let node = self.node(event, &span, &child)?;
            if key.name == "<<" {
                match node.value {
                    Value::Map(entries) => merged.extend(entries),
                    Value::List(maps) => merged.extend(
                        maps.into_iter()
                            .flat_map(|map| if let Value::Map(entries) = map.value { entries } else { vec![] }),
                    ),
                    _ => return Err(self.flaw(&span, &child, "'<<' takes a mapping, such as an alias of one")),
                }
            } else if let Some((first, _)) = entries.iter().find(|(other, _)| other.name == key.name) {
                let line = line_of(self.text, first.at.start);
                let message = format!("key '{}' is here twice", key.name);
                let hint = Some(format!("the first one is in line {line}; take one of them out"));
                self.flaws.push(Flaw { at: key.at, path: child.clone(), message, hint });
                self.dropped.push((child, node));
            } else {
                entries.push((key, node));
            }
        };
        // What stands here wins over what is merged in, and the first merged over later ones.
        for (key, node) in merged {
            if !entries.iter().any(|(other, _)| other.name == key.name) {
                entries.push((key, node));
            }
        }
        Ok(Node::new(Value::Map(entries), At { end: end.max(at.start), ..at }))
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::List(items) => items.iter().map(size).sum(),
        Value::Map(entries) => entries.iter().map(|(_, node)| size(node)).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> String {
        parse(0, text)
            .map(|parsed| parsed.root.to_json().to_string())
            .unwrap_or_else(|flaw| format!("at {}: {}", flaw.at.start, flaw.message))
    }

    #[test]
    fn scalars_follow_the_core_schema_and_never_lose_a_digit() {
        for (text, expect) in [
            ("a: 1", r#"{"a":1}"#),
            ("a: -7", r#"{"a":-7}"#),
            ("a: 1.5", r#"{"a":1.5}"#),
            ("a: 1e3", r#"{"a":1000.0}"#),
            ("a: 007", r#"{"a":"007"}"#),
            ("a: 0", r#"{"a":0}"#),
            ("a: 18446744073709551615", r#"{"a":18446744073709551615}"#),
            ("a: 123456789012345678901234567890", r#"{"a":"123456789012345678901234567890"}"#),
            ("a: yes", r#"{"a":"yes"}"#),
            ("a: true", r#"{"a":true}"#),
            ("a: \"true\"", r#"{"a":"true"}"#),
            ("a: !!str 12", r#"{"a":"12"}"#),
            ("a:", r#"{"a":null}"#),
            ("a: ~", r#"{"a":null}"#),
            ("a: 12:30", r#"{"a":"12:30"}"#),
            ("a: 2024-01-01", r#"{"a":"2024-01-01"}"#),
            ("a: 1.2.3", r#"{"a":"1.2.3"}"#),
            ("a: [1, {b: c}]", r#"{"a":[1,{"b":"c"}]}"#),
            ("a: |\n  x\n  y\n", r#"{"a":"x\ny\n"}"#),
            ("a: &x {b: 1}\nc: *x\n", r#"{"a":{"b":1},"c":{"b":1}}"#),
            ("a: &x {b: 1, d: 2}\nc:\n  <<: *x\n  d: 3\n", r#"{"a":{"b":1,"d":2},"c":{"d":3,"b":1}}"#),
            ("z: 1\na: 2", r#"{"z":1,"a":2}"#),
            ("", "{}"),
            ("# nothing\n", "{}"),
        ] {
            assert_eq!(json(text), expect, "{text}");
        }
    }

    #[test]
    fn aliases_of_aliases_are_bounded() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let before = vec![format!("*a{}", level - 1); 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{before}]\n"));
        }
        assert!(json(&text).ends_with("more than 200000 values"), "{}", json(&text));
    }
}
