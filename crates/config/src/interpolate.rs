//! `${NAME}` and `${NAME:-default}`, from the environment or a `.env` file beside the pipeline file.
//!
//! Only values are looked at, never keys, and only after the YAML was read, so that nothing a variable holds can change
//! the shape of the file. A value without quotes that is replaced is read like any other (`${PORT}` is a number); one in quotes stays
//! text. `$${` stands for `${`.

use std::collections::BTreeMap;

use crate::{
    problem::{Finding, Severity},
    secrets::Secrets,
    tree::{Node, Value, resolve},
};

/// Variables by name.
pub(crate) type Variables = BTreeMap<String, String>;

/// Replaces variables everywhere in a tree. Returns what is wrong; unset ones with the given severity.
pub(crate) fn interpolate(
    root: &mut Node,
    variables: &Variables,
    unset: Severity,
    secrets: &mut Secrets,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    root.walk_mut("", &mut |path, node| {
        let Some(raw) = node.raw.as_ref().filter(|raw| raw.text.contains("${")) else { return };
        let plain = raw.plain;
        match replace(&raw.text, variables) {
            Ok(Replaced { text, missing, values }) => {
                secrets.values.extend(values.into_iter().filter(|value| value.len() > 3));
                for name in missing {
                    node.unset = true;
                    let hint = format!("set {name} in the environment or in a .env file beside the pipeline file, or write ${{{name}:-default}}");
                    let finding = Finding::error(node.at, path, format!("variable {name} is not set")).hint(hint);
                    findings.push(Finding { severity: unset, ..finding });
                }
                node.value = if plain && !node.unset { resolve(&text) } else { Value::Text(text.clone()) };
                if let Some(raw) = &mut node.raw {
                    raw.text = text;
                }
                node.lenient |= plain;
            }
            Err((message, hint)) => findings.push(Finding::error(node.at, path, message).hint(Some(hint))),
        }
    });
    findings
}

struct Replaced {
    text: String,
    missing: Vec<String>,
    values: Vec<String>,
}

fn replace(text: &str, variables: &Variables) -> Result<Replaced, (String, String)> {
    let mut replaced = Replaced { text: String::with_capacity(text.len()), missing: vec![], values: vec![] };
    let mut rest = text;
    while let Some(dollar) = rest.find("${") {
        if rest[..dollar].ends_with('$') {
            replaced.text.push_str(&rest[..dollar]);
            replaced.text.push('{');
            rest = &rest[dollar + 2..];
            continue;
        }
        replaced.text.push_str(&rest[..dollar]);
        let inner = &rest[dollar + 2..];
        let escape = || "write $${ where ${ itself is meant".to_owned();
        let Some(end) = inner.find('}') else { return Err(("'${' without its '}'".to_owned(), escape())) };
        let (name, default) = match inner[..end].split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (&inner[..end], None),
        };
        let word = !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit());
        if !word || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err((
                format!("'${{{}}}' names no variable", &inner[..end]),
                format!("write ${{NAME}} or ${{NAME:-default}}; {}", escape()),
            ));
        }
        match (variables.get(name), default) {
            // As in a shell, an empty variable takes its default too.
            (Some(value), None) => {
                replaced.values.push(value.clone());
                replaced.text.push_str(value);
            }
            (Some(value), Some(_)) if !value.is_empty() => {
                replaced.values.push(value.clone());
                replaced.text.push_str(value);
            }
            (_, Some(default)) => replaced.text.push_str(default),
            (None, None) => {
                replaced.missing.push(name.to_owned());
                replaced.text.push_str(&rest[dollar..dollar + 2 + end + 1]);
            }
        }
        rest = &inner[end + 1..];
    }
    replaced.text.push_str(rest);
    Ok(replaced)
}

/// Reads a `.env` file: `NAME=value` a line, `export` before it if you like, quotes around the value if it needs them, `#` for
/// comments. Nothing is expanded in it: a password may hold a dollar. Returns the lines that are none of that, by number.
pub(crate) fn dotenv(text: &str) -> (Variables, Vec<usize>) {
    let (mut variables, mut wrong) = (Variables::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((name, value)) = line.split_once('=') else {
            wrong.push(index + 1);
            continue;
        };
        let value = value.trim();
        let quoted = |quote: char| value.strip_prefix(quote).and_then(|rest| rest.rfind(quote).map(|end| &rest[..end]));
        let value = match quoted('"').or_else(|| quoted('\'')) {
            Some(inner) => inner,
            None => value.find(" #").map_or(value, |comment| value[..comment].trim_end()),
        };
        variables.insert(name.trim().to_owned(), value.to_owned());
    }
    (variables, wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        [("HOST", "db.example"), ("PORT", "5432"), ("EMPTY", ""), ("PASSWORD", "p$${x}\"'#: ")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into()
    }

    #[test]
    fn variables_are_replaced() {
        for (text, expect) in [
            ("a: ${HOST}", r#"{"a":"db.example"}"#),
            ("a: ${PORT}", r#"{"a":5432}"#),
            ("a: \"${PORT}\"", r#"{"a":"5432"}"#),
            ("a: http://${HOST}:${PORT}/x", r#"{"a":"http://db.example:5432/x"}"#),
            ("a: ${NONE:-fallback}", r#"{"a":"fallback"}"#),
            ("a: ${NONE:-}", r#"{"a":null}"#),
            ("a: ${NONE:-true}", r#"{"a":true}"#),
            ("a: ${EMPTY:-fallback}", r#"{"a":"fallback"}"#),
            ("a: '${EMPTY}'", r#"{"a":""}"#),
            ("a: $${HOST}", r#"{"a":"${HOST}"}"#),
            ("a: 5$ and $HOST", r#"{"a":"5$ and $HOST"}"#),
            ("a: \"${PASSWORD}\"", r#"{"a":"p$${x}\"'#: "}"#),
            ("a: ['${HOST}', b]", r#"{"a":["db.example","b"]}"#),
            ("${HOST}: 1", r#"{"${HOST}":1}"#),
        ] {
            let mut node = crate::tree::parse(0, text).unwrap().root;
            let findings = interpolate(&mut node, &variables(), Severity::Error, &mut Secrets::default());
            assert!(findings.is_empty(), "{text}: {findings:?}");
            assert_eq!(node.to_json().to_string(), expect, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, expect) in [
            ("a: ${NONE}", "variable NONE is not set"),
            ("a: ${HOST", "'${' without its '}'"),
            ("a: ${a b}", "'${a b}' names no variable"),
            ("a: ${}", "'${}' names no variable"),
        ] {
            let mut node = crate::tree::parse(0, text).unwrap().root;
            let findings = interpolate(&mut node, &variables(), Severity::Error, &mut Secrets::default());
            let messages: Vec<_> = findings.iter().map(|finding| finding.message.as_str()).collect();
            assert_eq!(messages, [expect], "{text}");
        }
    }

    #[test]
    fn a_dotenv_file_is_read_as_it_stands() {
        let (variables, wrong) =
            dotenv("# c\nA=1\nexport B = two words # c\nC=\"x # y\"\nD='it''s'\nE=p$word#1\n\nnonsense\nF=");
        let expect = [("A", "1"), ("B", "two words"), ("C", "x # y"), ("D", "it''s"), ("E", "p$word#1"), ("F", "")];
        assert_eq!(variables, expect.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        assert_eq!(wrong, [8]);
    }
}
