//! Errors of a query, said so that they can be mended: where, what, and which name was most likely meant.

use std::fmt;

use datafusion::{common::SchemaError, error::DataFusionError, sql::sqlparser::parser::ParserError};
use towpath_core::{Error, ErrorKind, Name, Retry, Size};

/// A place in a query's text; both count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    line: u64,
    column: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

impl Place {
    /// Where a word stands first.
    pub(crate) fn find(query: &str, word: &str) -> Option<Self> {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        for (line, text) in (1..).zip(query.lines()) {
            for (at, _) in text.match_indices(word) {
                let (before, after) = (text.get(..at)?, text.get(at + word.len()..)?);
                if !before.ends_with(is_part) && !after.starts_with(is_part) {
                    return Some(Self { line, column: before.chars().count() as u64 + 1 });
                }
            }
        }
        None
    }
    /// The parser says it in words: `… at Line: 1, Column: 8`.
    fn said(message: &str) -> Option<(Self, &str)> {
        let (before, place) = message.rsplit_once(" at Line: ")?;
        let (line, column) = place.split_once(", Column: ")?;
        let column = column.trim_end_matches(|c: char| !c.is_ascii_digit());
        Some((Self { line: line.parse().ok()?, column: column.parse().ok()? }, before))
    }
}

/// An error at a place of the query.
fn at(place: Option<Place>, error: Error) -> Error {
    let error = match place {
        Some(place) => error.at(place.to_string()),
        None => error,
    };
    error.at("query")
}

/// A table that is not among the inputs.
pub(crate) fn no_table(table: &str, place: Option<Place>, inputs: &[Name]) -> Error {
    let names: Vec<&str> = inputs.iter().map(|name| &**name).collect();
    let error = Error::config(format!("there is no input '{table}'"));
    at(place, named(error, table, &names))
}

/// Hints at the name that was most likely meant, or lists them.
fn named(error: Error, wrong: &str, names: &[&str]) -> Error {
    match (nearest(wrong, names), names) {
        (Some(name), _) => error.hint(format!("did you mean '{name}'?")),
        (None, []) => error,
        (None, [most @ .., _]) if names.len() > 24 => {
            error.hint(format!("there are {}, …", most.get(..24).unwrap_or(most).join(", ")))
        }
        (None, names) => error.hint(format!("there are {}", names.join(", "))),
    }
}

fn nearest<'a>(wrong: &str, names: &[&'a str]) -> Option<&'a str> {
    let flat = |text: &str| text.to_lowercase().replace(['-', '_', ' '], "");
    let wanted = flat(wrong);
    let near = (wanted.chars().count() / 3).clamp(1, 3);
    let distances = names.iter().map(|name| (strsim::damerau_levenshtein(&wanted, &flat(name)), *name));
    distances.filter(|(distance, _)| *distance <= near).min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}

/// What is wrong with a query that cannot be planned.
pub(crate) fn of(error: &DataFusionError, query: &str, inputs: &[Name]) -> Error {
    // Of several, the first: the others often follow from it.
    let error = match error {
        DataFusionError::Collection(all) => all.first().unwrap_or(error),
        error => error,
    };
    let span = error.diagnostic().and_then(|diagnostic| diagnostic.span);
    let span = span.map(|span| Place { line: span.start.line, column: span.start.column });
    match error.find_root() {
        DataFusionError::SQL(parser, _) => {
            let message = match parser.as_ref() {
                ParserError::TokenizerError(text) | ParserError::ParserError(text) => text.as_str(),
                ParserError::RecursionLimitExceeded => "it is nested too deeply",
            };
            let (place, message) = Place::said(message).map_or((None, message), |(place, text)| (Some(place), text));
            at(place, Error::config(lower(message)))
        }
        DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => {
                let place = span.or_else(|| Place::find(query, &field.name));
                let error = Error::config(format!("there is no column '{}'", field.flat_name().replace('"', "")));
                // With its table where the column is asked of one.
                let of_table =
                    valid_fields.iter().filter(|valid| field.relation.is_none() || valid.relation == field.relation);
                let mut names: Vec<&str> = of_table.map(|valid| valid.name.as_str()).collect();
                if names.is_empty() {
                    names = valid_fields.iter().map(|valid| valid.name.as_str()).collect();
                }
                names.dedup();
                at(place, named(error, &field.name, &names))
            }
            SchemaError::AmbiguousReference { field } => {
                let place = span.or_else(|| Place::find(query, &field.name));
                let error = Error::config(format!("several inputs have a column '{}'", field.name));
                at(place, error.hint(format!("say which: `orders.{}`", field.name)))
            }
            SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
                let error = Error::config(format!("the result of a part of it has several columns '{name}'"));
                at(
                    span.or_else(|| Place::find(query, name)),
                    error.hint("name each column, as in `orders.id as order_id`"),
                )
            }
        },
        DataFusionError::Plan(message) => {
            let table = message.strip_prefix("table '").and_then(|rest| rest.split('\'').next());
            if let Some(table) = table {
                let table = table.rsplit('.').next().unwrap_or(table);
                return no_table(table, span.or_else(|| Place::find(query, table)), inputs);
            }
            if message.contains("require unique expression names") {
                let error = Error::config("the result of a part of it has two columns of one name");
                return at(span, error.hint("name each column, as in `orders.id as order_id`"));
            }
            let (message, hint) = match message.split_once("Did you mean '") {
                Some((message, meant)) => (message, meant.split('\'').next()),
                None => (message.as_str(), None),
            };
            let place = span.or_else(|| {
                let name = message.strip_prefix("Invalid function '")?.split('\'').next()?;
                Place::find(query, name)
            });
            let error = Error::config(lower(message.lines().next().unwrap_or(message).trim_end_matches(['.', ' '])));
            at(
                place,
                match hint {
                    Some(name) => error.hint(format!("did you mean '{name}'?")),
                    None => error,
                },
            )
        }
        DataFusionError::NotImplemented(message) if message.contains("a single SQL statement") => {
            at(span, Error::config("it is more than one statement").hint("write one query: `select … from …`"))
        }
        DataFusionError::NotImplemented(message) => at(span, Error::config(lower(message))),
        DataFusionError::Internal(message) if message.contains("failed to match any signature") => {
            // `Function 'sum' failed …, errors: Error during planning: why,Error during planning: …`
            let why = message
                .split("Error during planning: ")
                .nth(1)
                .map_or(message.as_str(), |why| why.trim_end_matches(','));
            let place = span.or_else(|| Place::find(query, message.split('\'').nth(1)?));
            at(place, Error::config(lower(why)))
        }
        other => at(span, Error::config("it cannot be planned").because(lower(&other.strip_backtrace()))),
    }
}

/// What went wrong while a query ran.
pub(crate) fn while_running(error: DataFusionError, memory: Size) -> Error {
    if let Some(own) = own(&error) {
        return own;
    }
    match error.find_root() {
        DataFusionError::ResourcesExhausted(why) => {
            let why = lower(why.lines().next().unwrap_or(why));
            let error = if why.contains("temp") || why.contains("disk") {
                Error::data("the query needs more disk than it may use").hint("raise `max_spill`")
            } else {
                Error::data(format!("the query does not fit into {memory}")).hint("raise `memory`, or split the query")
            };
            error.because(why)
        }
        DataFusionError::ArrowError(arrow, _) => {
            let text = arrow.to_string();
            let error = Error::data("a value does not fit").because(lower(&text));
            if text.contains("ast") || text.contains("arse") {
                error.hint(
                    "declare the column's type at its source, which sets such rows aside, or use `try_cast`, which makes NULL of them",
                )
            } else {
                error.hint("cast to a wider type, or leave such rows out with `where`")
            }
        }
        DataFusionError::IoError(_) => Error::unavailable("cannot spill to disk")
            .because(error)
            .hint("make room there, or set `spill` to another folder"),
        DataFusionError::Execution(text) => Error::data(lower(text)).retry(Retry::Never),
        _ => Error::new(ErrorKind::Internal, "the query failed").because(error),
    }
}

/// An error of ours that has come through DataFusion, told anew.
fn own(error: &DataFusionError) -> Option<Error> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(own) = error.downcast_ref::<Error>() {
            let new = Error::new(own.kind(), own.to_string()).retry(own.retrying());
            return Some(match own.what_to_do() {
                Some(hint) => new.hint(hint),
                None => new,
            });
        }
        next = match error.downcast_ref::<DataFusionError>() {
            Some(DataFusionError::External(inner)) => Some(inner.as_ref()),
            Some(DataFusionError::Shared(inner)) => Some(inner.as_ref()),
            _ => error.source(),
        };
    }
    None
}

/// Messages begin in lower case here.
fn lower(text: &str) -> String {
    let mut all = text.chars();
    match all.next() {
        // `SUM takes …` keeps its name.
        Some(first) if !all.clone().next().is_some_and(char::is_uppercase) => first.to_lowercase().chain(all).collect(),
        _ => text.to_owned(),
    }
}
