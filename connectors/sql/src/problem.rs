//! Errors of a query, said so that they can be mended: where, what, and which name was most likely meant.

mod planning;
mod signature;
mod types;

use std::fmt;

use datafusion::error::DataFusionError;
use towpath_core::{Error, ErrorKind, Name, Retry, Size};

pub(crate) use planning::{Asked, of};

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
        Self::all(query, word).next().map(|(place, _)| place)
    }
    /// Where it stands last.
    fn find_last(query: &str, word: &str) -> Option<Self> {
        Self::all(query, word).last().map(|(place, _)| place)
    }
    /// Where it stands first with such a text behind it.
    fn find_where(query: &str, word: &str, behind: impl Fn(&str) -> bool) -> Option<Self> {
        Self::all(query, word).find(|(_, text)| behind(text)).map(|(place, _)| place)
    }
    /// Where a word of the language stands first, which is written in capitals or not.
    fn find_any_case(query: &str, word: &str) -> Option<Self> {
        // Letters outside of ASCII stay as they are, and so does every place.
        Self::find(&query.to_ascii_lowercase(), &word.to_ascii_lowercase())
    }
    /// Where a word stands, each time with what stands behind it in its line.
    fn all<'q>(query: &'q str, word: &str) -> impl Iterator<Item = (Self, &'q str)> {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        (1..).zip(query.lines()).flat_map(move |(line, text)| {
            text.match_indices(word).filter_map(move |(at, _)| {
                let (before, after) = (text.get(..at)?, text.get(at + word.len()..)?);
                let whole = !before.ends_with(is_part) && !after.starts_with(is_part);
                whole.then(|| (Self { line, column: before.chars().count() as u64 + 1 }, after))
            })
        })
    }
    /// Behind the last word.
    pub(crate) fn end(query: &str) -> Self {
        let text = query.trim_end();
        let last = text.lines().last().unwrap_or_default();
        Self { line: text.lines().count().max(1) as u64, column: last.chars().count() as u64 + 1 }
    }
    /// The query from there on.
    fn rest(self, query: &str) -> &str {
        let before: usize = query.split_inclusive('\n').take(self.line as usize - 1).map(str::len).sum();
        let line = query.get(before..).unwrap_or_default();
        let at = line.char_indices().nth(self.column as usize - 1).map_or(line.len(), |(at, _)| at);
        line.get(at..).unwrap_or_default()
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
    // Of two as near, the longer: a letter is left out more often than added.
    let nearest = distances.filter(|(distance, _)| *distance <= near);
    nearest.min_by_key(|(distance, name)| (*distance, std::cmp::Reverse(name.len()))).map(|(_, name)| name)
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
