//! What a report server offers: reports, and a report's parameters with a block to paste.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::{Value, json};
use towpath_core::{Error, Result, source::Discovery};

use crate::{
    config::{Given, SsrsOptions},
    parameters::{Chosen, Definition, Settled},
    server::Server,
    soap::Item,
};

/// How many values are shown of a parameter.
const SHOWN: usize = 20;
/// How deep a cascade may go.
const DEEPEST: usize = 32;

/// Lists reports.
pub fn reports(items: &[Item]) -> Discovery {
    let mut reports: Vec<&Item> =
        items.iter().filter(|item| matches!(item.kind.as_str(), "Report" | "LinkedReport")).collect();
    reports.sort_by(|a, b| a.path.cmp(&b.path));
    let mut text = String::new();
    for item in &reports {
        text.push_str(&item.path);
        if !item.description.is_empty() {
            let _ = write!(text, "  ({})", item.description.split_whitespace().collect::<Vec<_>>().join(" "));
        }
        text.push('\n');
    }
    match reports.first() {
        None => text.push_str("This account sees no reports. Ask for the role Browser on a folder.\n"),
        Some(_) => text.push_str("\nSet `report:` to one of these and discover again to see its parameters.\n"),
    }
    Discovery { text, items: json!({ "reports": reports }) }
}

/// Describes a report's parameters, walking down its cascades.
///
/// # Errors
/// Of the calls.
pub async fn parameters(server: &Server, options: &SsrsOptions) -> Result<Discovery> {
    let mut chosen = given(options);
    for _ in 0..DEEPEST {
        let definitions = server.definitions(&chosen).await?;
        let more = choose(&definitions, &chosen);
        if more.is_empty() {
            return Ok(describe(options, &definitions));
        }
        chosen.extend(more);
    }
    Err(Error::data("the parameters of the report do not settle").at(&options.report))
}

/// What the config gives already.
fn given(options: &SsrsOptions) -> Vec<Chosen> {
    let values = |(name, given): (&String, &Given)| match given {
        Given::All => None,
        Given::Null => Some(Chosen { name: name.clone(), values: vec![None] }),
        Given::Values(values) => {
            Some(Chosen { name: name.clone(), values: values.iter().cloned().map(Some).collect() })
        }
    };
    options.parameters.iter().filter_map(values).collect()
}

/// Values with which the server can be asked on, to see what depends on them.
fn choose(definitions: &[Definition], chosen: &[Chosen]) -> Vec<Chosen> {
    let open = |definition: &&Definition| {
        definition.settable
            && definition.state == Settled::Missing
            && !chosen.iter().any(|chosen| chosen.name == definition.name)
    };
    let value = |definition: &Definition| {
        let valid: Vec<_> =
            definition.valid.iter().flatten().filter_map(|(_, value)| value.clone()).map(Some).collect();
        let values = if definition.multi { valid } else { valid.into_iter().take(1).collect() };
        (!values.is_empty()).then(|| Chosen { name: definition.name.clone(), values })
    };
    definitions.iter().filter(open).filter_map(value).collect()
}

/// The text and the items.
fn describe(options: &SsrsOptions, definitions: &[Definition]) -> Discovery {
    let mut text = format!("{}\n\n", options.report);
    if definitions.is_empty() {
        text.push_str("The report has no parameters.\n");
    }
    for definition in definitions {
        about(&mut text, definition);
    }
    let settable: Vec<&Definition> = definitions.iter().filter(|definition| definition.settable).collect();
    let window = window(&settable);
    if !settable.is_empty() {
        text.push_str("\nTo paste:\n\n");
        paste(&mut text, &settable, window);
    }
    let block: BTreeMap<&str, Value> =
        settable.iter().map(|definition| (definition.name.as_str(), proposed(definition))).collect();
    let mut items = json!({ "report": options.report, "parameters": definitions, "proposed": { "parameters": block } });
    if let Some((start, end)) = window
        && let Some(Value::Object(proposed)) = items.get_mut("proposed")
    {
        if let Some(Value::Object(parameters)) = proposed.get_mut("parameters") {
            parameters.retain(|name, _| name != start && name != end);
        }
        proposed.insert("window".to_owned(), json!({ "size": "1h", "start_parameter": start, "end_parameter": end }));
    }
    Discovery { text, items }
}

fn about(text: &mut String, definition: &Definition) {
    let Definition { name, kind, nullable, multi, settable, dependencies, valid, defaults, .. } = definition;
    let _ = write!(text, "{name}  {kind}");
    for (is, word) in [(*multi, "several values"), (*nullable, "may be null"), (!*settable, "fixed by the report")] {
        if is {
            let _ = write!(text, ", {word}");
        }
    }
    if !dependencies.is_empty() {
        let _ = write!(text, ", depends on {}", dependencies.join(", "));
    }
    text.push('\n');
    if let Some(defaults) = defaults {
        let shown: Vec<_> = defaults.iter().take(SHOWN).map(|value| value.as_deref().unwrap_or("null")).collect();
        let _ = writeln!(text, "    default: {}{}", shown.join(", "), more(defaults.len()));
    }
    if let Some(valid) = valid {
        for (label, value) in valid.iter().take(SHOWN) {
            let value = value.as_deref().unwrap_or("null");
            let label = if label == value { String::new() } else { format!("  ({label})") };
            let _ = writeln!(text, "    {value}{label}");
        }
        if valid.len() > SHOWN {
            let _ = writeln!(text, "    … {} values in all", valid.len());
        }
    }
}

fn more(count: usize) -> String {
    if count > SHOWN { format!(" … {count} in all") } else { String::new() }
}

/// Two dates without a list of values look like the bounds of a window.
fn window<'a>(definitions: &[&'a Definition]) -> Option<(&'a str, &'a str)> {
    let free =
        |definition: &&&Definition| definition.kind == "DateTime" && definition.valid.is_none() && !definition.multi;
    let dates: Vec<_> = definitions.iter().filter(free).map(|definition| definition.name.as_str()).collect();
    match dates[..] {
        [start, end] => Some((start, end)),
        _ => None,
    }
}

/// The block to paste.
fn paste(text: &mut String, definitions: &[&Definition], window: Option<(&str, &str)>) {
    let of_window = |name: &str| window.is_some_and(|(start, end)| name == start || name == end);
    if definitions.iter().any(|definition| !of_window(&definition.name)) {
        text.push_str("    parameters:\n");
    }
    for definition in definitions.iter().filter(|definition| !of_window(&definition.name)) {
        let (name, value) = (yaml(&definition.name), yaml_value(&proposed(definition)));
        let _ = match definition.defaults {
            // The default does as well; to be seen, not to be sent.
            Some(_) => writeln!(text, "      # {name}: {value}"),
            None => writeln!(text, "      {name}: {value}"),
        };
    }
    if let Some((start, end)) = window {
        let (start, end) = (yaml(start), yaml(end));
        let _ = writeln!(
            text,
            "    window: {{ size: 1h, start_parameter: {start}, end_parameter: {end} }}   # and its timezone"
        );
    }
}

/// What a config could give.
fn proposed(definition: &Definition) -> Value {
    let valid = definition.valid.as_deref().unwrap_or_default();
    match &definition.defaults {
        _ if definition.multi && !valid.is_empty() => json!("all"),
        Some(defaults) => match &defaults[..] {
            [] | [None] => Value::Null,
            [Some(value)] => json!(value),
            values => json!(values),
        },
        None if definition.nullable => Value::Null,
        None => match valid.first() {
            Some((_, value)) => json!(value),
            None => json!("…"),
        },
    }
}

fn yaml_value(value: &Value) -> String {
    match value {
        Value::String(text) => yaml(text),
        Value::Array(values) => format!("[{}]", values.iter().map(yaml_value).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

/// A text as YAML has it: in quotes where it would be something else without.
fn yaml(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_alphabetic())
        && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/'))
        && !["true", "false", "yes", "no", "on", "off", "null", "y", "n"].contains(&text.to_lowercase().as_str());
    if plain { text.to_owned() } else { Value::from(text).to_string() }
}
