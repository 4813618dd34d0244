//! Where in a pipeline file it stands what a transform finds wrong with a text of its options, such as a query.
//!
//! A transform says `query: line 2, column 8: …`. The text is looked for in the file as it is: as a block, every line behind the same indent,
//! or in one line. A text that is not there in one piece, or twice, comes from somewhere else (a flag, a variable, folded lines): then
//! the line and column of the text itself are told.

use std::path::Path;

use towpath_core::{ComponentSpec, Error};

use crate::{Place, Problem, Severity};

/// A place in a text; both count from 1, in characters.
#[derive(Clone, Copy)]
struct Spot {
    line: usize,
    column: usize,
}

/// What a transform of a file has found wrong, with its place where that can be told. `text`: the file.
pub fn problem_of(file: &Path, text: &str, spec: &ComponentSpec, error: &Error) -> Problem {
    let whole = error.to_string();
    let said = whole.strip_prefix(&format!("transform {}: ", spec.name)).unwrap_or(&whole);
    let (mut key, mut message, mut place) = (format!("transforms.{}", spec.name), said, None);
    let of_option = said.split_once(": ").and_then(|(option, rest)| Some((option, rest, spec.options.get(option)?)));
    if let Some((option, rest, value)) = of_option {
        key = format!("{key}.{option}");
        message = rest;
        let found = spot(rest).zip(value.as_str());
        let found = found.and_then(|((spot, rest), value)| Some((find(text, option, value, spot)?, rest)));
        if let Some((found, rest)) = found {
            message = rest;
            place = Some(Place { layer: file.display().to_string(), ..found });
        }
    }
    let hint = error.what_to_do().map(str::to_owned);
    Problem { severity: Severity::Error, message: message.to_owned(), key, place, hint }
}

/// `line 2, column 8: there is no …`
fn spot(said: &str) -> Option<(Spot, &str)> {
    let (place, rest) = said.split_once(": ")?;
    let (line, column) = place.strip_prefix("line ")?.split_once(", column ")?;
    Some((Spot { line: line.parse().ok()?, column: column.parse().ok()? }, rest))
}

/// The place in the file of a spot in the text of an option.
fn find(file: &str, option: &str, value: &str, spot: Spot) -> Option<Place> {
    let lines: Vec<&str> = file.lines().collect();
    let wanted: Vec<&str> = value.trim_end().lines().map(str::trim_end).collect();
    let blocks = (0..lines.len()).filter_map(|at| Some((at, indent_of_block(lines.get(at..)?, &wanted)?)));
    if let Some((at, indent)) = only(blocks) {
        let line = at + spot.line;
        let shown = lines.get(line - 1)?.trim_end();
        return Some(at_column(shown, line, indent + spot.column, shown));
    }
    let [wanted] = wanted.as_slice() else { return None };
    let inside =
        lines.iter().enumerate().flat_map(|(at, line)| line.match_indices(wanted).map(move |(byte, _)| (at, byte)));
    let (at, byte) = only(inside)?;
    let line = lines.get(at)?;
    // What else stands in the line may be secret.
    let alone = line.trim_start().strip_prefix(option).is_some_and(|rest| rest.starts_with(':'));
    let shown = if alone { line.get(..byte + wanted.len())? } else { "" };
    Some(at_column(line, at + 1, line.get(..byte)?.chars().count() + spot.column, shown))
}

/// The indent of a block that begins here, in characters.
fn indent_of_block(lines: &[&str], wanted: &[&str]) -> Option<usize> {
    let (first, text) = (lines.first()?.trim_end(), wanted.first().filter(|text| !text.is_empty())?);
    let indent =
        first.strip_suffix(text).filter(|indent| !indent.is_empty() && indent.bytes().all(|byte| byte == b' '))?;
    let all = wanted.iter().enumerate().all(|(at, text)| {
        let line = lines.get(at).map(|line| line.trim_end());
        match text.is_empty() {
            true => line.is_some_and(str::is_empty),
            false => line.and_then(|line| line.strip_prefix(indent)) == Some(*text),
        }
    });
    all.then_some(indent.len())
}

fn at_column(line: &str, number: usize, column: usize, shown: &str) -> Place {
    let word = line.chars().skip(column - 1).take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '.')).count();
    Place { layer: String::new(), line: Some(number), column, text: shown.to_owned(), width: word.max(1) }
}

fn only<T>(mut all: impl Iterator<Item = T>) -> Option<T> {
    all.next().filter(|_| all.next().is_none())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use towpath_core::ComponentSpec;

    use super::*;

    fn shown(file: &str, query: &str, said: &str) -> String {
        let options = json!({ "query": query });
        let (name, kind) = ("paid".into(), "sql".to_owned());
        let spec = ComponentSpec { name, kind, inputs: vec![], common: Default::default(), options };
        let error = Error::config(said).at("transform paid").hint("do that");
        problem_of(Path::new("a.yaml"), file, &spec, &error).to_string()
    }

    #[test]
    fn a_spot_in_a_query_is_found_in_the_file() {
        let cases = [
            (
                "  paid:\n    query: |\n      select id,\n\n             amunt\n      from x\n",
                "select id,\n\n       amunt\nfrom x\n",
                "query: line 3, column 8: no amunt",
            ),
            (
                "  paid:\n    query: \"sélect amunt from x\"  # pay\n",
                "sélect amunt from x",
                "query: line 1, column 8: no amunt",
            ),
            (
                "  paid: { password: p, query: select amunt from x }\n",
                "select amunt from x",
                "query: line 1, column 8: no amunt",
            ),
            (
                "    query: |\n      select 1 from x\n  other:\n    query: |\n      select 1 from x\n",
                "select 1 from x\n",
                "query: line 1, column 15: no x",
            ),
            ("    query: >\n      select 1\n      from x\n", "select 1 from x\n", "query: line 1, column 15: no x"),
            ("    query: select 1\n", "select 1", "query: it is not a select"),
            ("    query: select 1\n", "select 1", "there is no column 'a'"),
        ];
        let all: Vec<String> = cases.iter().map(|(file, query, said)| shown(file, query, said)).collect();
        insta::assert_snapshot!(all.join("\n\n"), @r#"
        error: no amunt
         --> a.yaml:5:14
          |
        5 |              amunt
          |              ^^^^^
          = key: transforms.paid.query
          = help: do that

        error: no amunt
         --> a.yaml:2:20
          |
        2 |     query: "sélect amunt from x
          |                    ^^^^^
          = key: transforms.paid.query
          = help: do that

        error: no amunt
         --> a.yaml:1:38
          = key: transforms.paid.query
          = help: do that

        error: line 1, column 15: no x
         = key: transforms.paid.query
         = help: do that

        error: line 1, column 15: no x
         = key: transforms.paid.query
         = help: do that

        error: it is not a select
         = key: transforms.paid.query
         = help: do that

        error: there is no column 'a'
         = key: transforms.paid
         = help: do that
        "#);
    }
}
