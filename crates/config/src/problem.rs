//! What is wrong with a config, where it stands, and what to write instead.

use std::fmt;

use serde::Serialize;
use towpath_core::Error;

use crate::{
    layers::{Layer, Origin},
    secrets::{Secrets, masked_line},
    tree::At,
};

/// Whether a problem stops what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It does.
    Error,
    /// It does not.
    Warning,
}

/// One thing that is wrong. Prints as a block of several lines, without secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Whether it stops what was asked for.
    pub severity: Severity,
    /// What is wrong, lowercase, one line.
    pub message: String,
    /// The path of the key, such as `sources.orders.url`; empty for the file as a whole.
    pub key: String,
    /// Where it stands, if it stands anywhere.
    pub place: Option<Place>,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Where something stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The file, `environment variable TOWPATH__…` or `--set`.
    pub layer: String,
    /// The line, from 1. `None` where the layer has no lines worth showing.
    pub line: Option<usize>,
    /// The column in characters, from 1.
    pub column: usize,
    /// The line itself, with secrets masked; empty where it must not be shown.
    pub text: String,
    /// How many characters the caret underlines.
    pub width: usize,
}

/// Everything that is wrong with a config, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problems {
    /// Errors and warnings.
    pub problems: Vec<Problem>,
}

impl Problems {
    /// How many errors and how many warnings.
    pub fn count(&self) -> (usize, usize) {
        let errors = self.problems.iter().filter(|problem| problem.severity == Severity::Error).count();
        (errors, self.problems.len() - errors)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{word}: {}", self.message)?;
        let mut margin = String::new();
        if let Some(place) = &self.place {
            margin = " ".repeat(place.line.unwrap_or(0).to_string().len());
            match place.line {
                Some(line) => write!(f, "\n{margin}--> {}:{line}:{}", place.layer, place.column)?,
                None => write!(f, "\n{margin}--> {}", place.layer)?,
            }
            if !place.text.is_empty() {
                let number = place.line.map_or_else(|| margin.clone(), |line| line.to_string());
                // Tabs would put the caret elsewhere.
                let shown = place.text.replace('\t', " ");
                let indent = " ".repeat(place.column.saturating_sub(1));
                write!(f, "\n{margin} |\n{number} | {shown}\n{margin} | {indent}{}", "^".repeat(place.width.max(1)))?;
            }
        }
        if !self.key.is_empty() {
            write!(f, "\n{margin} = key: {}", self.key)?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n{margin} = help: {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl From<Problems> for Error {
    fn from(problems: Problems) -> Self {
        Self::config(problems.to_string())
    }
}

/// A problem as it is found, before its place is looked up.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub severity: Severity,
    pub at: Option<At>,
    pub key: String,
    pub message: String,
    pub hint: Option<String>,
}

impl Finding {
    pub fn error(at: At, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, at: Some(at), key: key.into(), message: message.into(), hint: None }
    }
    pub fn warning(at: At, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(at, key, message) }
    }
    pub fn hint(mut self, hint: impl Into<Option<String>>) -> Self {
        self.hint = hint.into();
        self
    }
}

/// Looks up places, sorts by them, takes out what is told twice, masks secrets.
pub(crate) fn settle(findings: Vec<Finding>, layers: &[Layer], secrets: &Secrets) -> Vec<Problem> {
    let mut findings = findings;
    let order = |finding: &Finding| {
        finding
            .at
            .map(|at| (layers.get(at.layer).is_some_and(|layer| layer.origin != Origin::File), at.layer, at.start))
    };
    findings.sort_by_key(order);
    let mut problems: Vec<Problem> = Vec::with_capacity(findings.len());
    for finding in findings {
        let Finding { severity, at, key, message, hint } = finding;
        let place = at.and_then(|at| layers.get(at.layer).map(|layer| place(layer, at, secrets)));
        let problem = Problem {
            severity,
            message: secrets.mask(&message),
            key: secrets.mask(&key),
            place,
            hint: hint.map(|hint| secrets.mask(&hint)),
        };
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
    problems
}

/// The line of a byte, from 1.
pub(crate) fn line_of(text: &str, byte: usize) -> usize {
    text.as_bytes()[..byte.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

fn place(layer: &Layer, at: At, secrets: &Secrets) -> Place {
    if layer.origin == Origin::Environment {
        return Place { layer: layer.name.clone(), line: None, column: 1, text: String::new(), width: 0 };
    }
    let text = &layer.text;
    let start = (0..=at.start.min(text.len())).rev().find(|byte| text.is_char_boundary(*byte)).unwrap_or(0);
    let from = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let to = text[start..].find(['\n', '\r']).map_or(text.len(), |newline| start + newline);
    let mut end = at.end.clamp(start, to);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let line = masked_line(layer, (from, to), at.layer, secrets);
    let column = text[from..start].chars().count() + 1;
    // A masked value before the caret moves it; better no further than the line's end.
    let column = column.min(line.chars().count() + 1);
    let width = text[start..end].chars().count().clamp(1, (line.chars().count() + 1).saturating_sub(column).max(1));
    let number = (layer.origin == Origin::File).then(|| line_of(text, start));
    Place { layer: layer.name.clone(), line: number, column, text: line, width }
}
