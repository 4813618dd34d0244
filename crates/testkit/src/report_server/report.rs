//! Reports the server knows: their parameters, and what a set of values makes of them.

use std::collections::BTreeMap;

use jiff::civil::DateTime;

use super::rows::{self, Span};

/// A report.
#[derive(Clone, Debug)]
pub struct Report {
    /// Where it lies: `/Manufacturing/Production log`.
    pub path: String,
    /// Its parameters, parents before those that depend on them.
    pub parameters: Vec<Parameter>,
    /// Rows for each hour between the parameters of `window`; in all, where there is no window.
    pub rows_per_hour: u64,
    /// The parameters that bound its rows.
    pub window: Option<(String, String)>,
    /// Whether a row stamped exactly at the window's end belongs to it (`between` in its SQL).
    pub end_inclusive: bool,
    /// Whether its author left the columns their first names: `Textbox1`, `Textbox2` …
    pub textboxes: bool,
    /// Every so manieth row lacks its last field.
    pub ragged_every: Option<u64>,
}

/// A parameter of a report.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Its name; upper and lower case differ.
    pub name: String,
    /// Its type.
    pub kind: Kind,
    /// Whether it may be null.
    pub nullable: bool,
    /// Whether it takes several values.
    pub multi: bool,
    /// Whether a caller may set it.
    pub prompt: bool,
    /// What it is without being given.
    pub default: Preset,
    /// What it may be.
    pub valid: Valid,
}

/// A parameter's type, by the name the server gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `String`
    String,
    /// `DateTime`
    DateTime,
    /// `Integer`
    Integer,
    /// `Float`
    Float,
    /// `Boolean`
    Boolean,
}

/// What a parameter is without being given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Nothing: it must be given.
    None,
    /// Null.
    Null,
    /// Every valid value.
    All,
    /// These.
    Values(Vec<String>),
}

/// A value with the label a person sees.
pub type Choice = (String, String);

/// What a parameter may be.
#[derive(Clone, Debug)]
pub enum Valid {
    /// Anything of its type.
    Any,
    /// One of these (label, value).
    Of(Vec<Choice>),
    /// What the value of another parameter allows.
    By(String, BTreeMap<String, Vec<Choice>>),
}

/// How it stands with a parameter, by the server's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterState {
    /// Ready to render.
    HasValidValue,
    /// A value is missing or not one of the valid ones.
    MissingValidValue,
    /// Its parent must be chosen first.
    HasOutstandingDependencies,
    /// Its valid values come from a query that was not run.
    DynamicValuesUnavailable,
}

/// A parameter with values.
#[derive(Clone, Debug)]
pub(super) struct Resolved<'a> {
    pub parameter: &'a Parameter,
    pub values: Vec<Option<String>>,
    pub valid: Option<Vec<Choice>>,
    pub state: ParameterState,
}

impl Kind {
    /// Whether text is a value of this type, as the server reads it in English.
    fn accepts(self, text: &str) -> bool {
        match self {
            Self::String => true,
            Self::DateTime => date(text).is_some(),
            Self::Integer => text.parse::<i64>().is_ok(),
            Self::Float => text.parse::<f64>().is_ok(),
            Self::Boolean => text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false"),
        }
    }
}

/// A date as the server reads it in English (US): ISO 8601, or month/day/year.
pub(super) fn date(text: &str) -> Option<DateTime> {
    if let Ok(date) = text.parse() {
        return Some(date);
    }
    let formats = ["%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M"];
    formats.iter().find_map(|format| DateTime::strptime(format, text).ok()).or_else(|| {
        let date = jiff::civil::Date::strptime("%m/%d/%Y", text).ok()?;
        Some(date.at(0, 0, 0, 0))
    })
}

impl Parameter {
    /// Whether text is a value of its type.
    pub(super) fn accepts(&self, text: &str) -> bool {
        self.kind.accepts(text)
    }
    /// A parameter that must be given.
    pub fn new(name: &str, kind: Kind) -> Self {
        let (nullable, multi, prompt) = (false, false, true);
        Self { name: name.to_owned(), kind, nullable, multi, prompt, default: Preset::None, valid: Valid::Any }
    }
    /// It may be null, and is without being given.
    #[must_use]
    pub fn nullable(mut self) -> Self {
        self.nullable = true;
        self.default = Preset::Null;
        self
    }
    /// It takes several values.
    #[must_use]
    pub fn multi(mut self) -> Self {
        self.multi = true;
        self
    }
    /// A caller may not set it.
    #[must_use]
    pub fn hidden(mut self) -> Self {
        self.prompt = false;
        self
    }
    /// What it is without being given.
    #[must_use]
    pub fn default(mut self, default: Preset) -> Self {
        self.default = default;
        self
    }
    /// What it may be; labels are `Label of VALUE`.
    #[must_use]
    pub fn of(mut self, values: &[&str]) -> Self {
        self.valid = Valid::Of(choices(values));
        self
    }
    /// What each value of `parent` allows.
    #[must_use]
    pub fn by(mut self, parent: &str, values: &[(&str, &[&str])]) -> Self {
        let of = values.iter().map(|(parent, values)| ((*parent).to_owned(), choices(values)));
        self.valid = Valid::By(parent.to_owned(), of.collect());
        self
    }
}

fn choices(values: &[&str]) -> Vec<Choice> {
    values.iter().map(|value| (format!("Label of {value}"), (*value).to_owned())).collect()
}

impl Report {
    /// A report without parameters.
    pub fn new(path: &str, rows: u64) -> Self {
        Self {
            path: path.to_owned(),
            parameters: vec![],
            rows_per_hour: rows,
            window: None,
            end_inclusive: false,
            textboxes: false,
            ragged_every: None,
        }
    }

    /// `/Manufacturing/Production log`: a window (`From`, `To`), a cascade (`Line`, and `Station` by line), a nullable `Shift`, a
    /// hidden `Site`.
    pub fn production_log(rows_per_hour: u64) -> Self {
        let stations: &[(&str, &[&str])] = &[("L1", &["S11", "S12"]), ("L2", &["S21"]), ("L3", &["S31", "S32", "S33"])];
        Self::new("/Manufacturing/Production log", rows_per_hour).window("From", "To").parameters([
            Parameter::new("Line", Kind::String).multi().of(&["L1", "L2", "L3"]),
            Parameter::new("Station", Kind::String).multi().by("Line", stations).default(Preset::All),
            Parameter::new("Shift", Kind::String).nullable(),
            Parameter::new("Site", Kind::String).hidden().default(Preset::Values(vec!["Main".to_owned()])),
        ])
    }

    /// Adds parameters.
    #[must_use]
    pub fn parameters(mut self, parameters: impl IntoIterator<Item = Parameter>) -> Self {
        self.parameters.extend(parameters);
        self
    }
    /// Adds two date parameters that bound its rows.
    #[must_use]
    pub fn window(mut self, start: &str, end: &str) -> Self {
        let bounds = [start, end].map(|name| Parameter::new(name, Kind::DateTime));
        self.window = Some((start.to_owned(), end.to_owned()));
        self.parameters(bounds)
    }
    /// A row stamped exactly at the window's end belongs to it.
    #[must_use]
    pub fn end_inclusive(mut self) -> Self {
        self.end_inclusive = true;
        self
    }
    /// Its columns are called `Textbox1` and so on.
    #[must_use]
    pub fn textboxes(mut self) -> Self {
        self.textboxes = true;
        self
    }
    /// Every so manieth row lacks its last field.
    #[must_use]
    pub fn ragged_every(mut self, rows: u64) -> Self {
        self.ragged_every = Some(rows);
        self
    }

    /// Its rows between two moments (all it has, where it has no window) as CSV with a header, no byte order mark and CRLF: what a
    /// test compares with. Held in memory as a whole.
    pub fn csv(&self, from: DateTime, to: DateTime) -> String {
        let span = self.span(Some((from, to)));
        let mut out = rows::header(self.textboxes).into_bytes();
        rows::Writer::new(span, self.ragged_every).fill(&mut out, usize::MAX);
        String::from_utf8(out).unwrap_or_default()
    }

    /// The rows of a window.
    pub(super) fn span(&self, window: Option<(DateTime, DateTime)>) -> Span {
        match window.filter(|_| self.window.is_some()) {
            Some((from, to)) => Span::between(from, to, self.end_inclusive, self.rows_per_hour),
            None => Span::of_rows(self.rows_per_hour),
        }
    }

    /// What given values make of the parameters. Unknown names are not looked at.
    pub(super) fn resolve(&self, given: &[(String, Option<String>)], dynamic: bool) -> Vec<Resolved<'_>> {
        let mut done: Vec<Resolved<'_>> = Vec::with_capacity(self.parameters.len());
        for parameter in &self.parameters {
            let mut outstanding = false;
            let valid = match &parameter.valid {
                Valid::Any => None,
                Valid::Of(choices) => Some(choices.clone()),
                Valid::By(parent, by) => {
                    let parent = done.iter().find(|other| other.parameter.name == *parent);
                    outstanding = parent.is_none_or(|parent| parent.state != ParameterState::HasValidValue);
                    let chosen = parent.into_iter().flat_map(|parent| parent.values.iter().flatten());
                    let of = chosen.filter_map(|value| by.get(value)).flatten().cloned();
                    Some(if outstanding { vec![] } else { of.collect() })
                }
            };
            let own = given.iter().filter(|(name, _)| *name == parameter.name).map(|(_, value)| value.clone());
            let mut values: Vec<_> = own.collect();
            let mut has = !values.is_empty();
            if !has {
                has = parameter.default != Preset::None;
                values = match &parameter.default {
                    Preset::None => vec![],
                    Preset::Null => vec![None],
                    Preset::All => valid.iter().flatten().map(|(_, value)| Some(value.clone())).collect(),
                    Preset::Values(values) => values.iter().cloned().map(Some).collect(),
                };
            }
            let fits = |value: &Option<String>| match value {
                None => parameter.nullable,
                Some(value) => {
                    parameter.kind.accepts(value)
                        && valid.as_ref().is_none_or(|valid| valid.iter().any(|(_, choice)| choice == value))
                }
            };
            let several = values.len() > 1 && !parameter.multi;
            let state = if !dynamic && matches!(parameter.valid, Valid::By(..)) {
                ParameterState::DynamicValuesUnavailable
            } else if outstanding {
                ParameterState::HasOutstandingDependencies
            } else if !has || values.is_empty() || several || !values.iter().all(fits) {
                ParameterState::MissingValidValue
            } else {
                ParameterState::HasValidValue
            };
            done.push(Resolved { parameter, values, valid, state });
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cascade_opens_step_by_step() {
        let report = Report::production_log(1);
        let check = |given: &[(&str, &str)], expect: &[(&str, ParameterState, usize)]| {
            let given: Vec<_> = given.iter().map(|(n, v)| ((*n).to_owned(), Some((*v).to_owned()))).collect();
            let resolved = report.resolve(&given, true);
            for (name, state, values) in expect {
                let found = resolved.iter().find(|resolved| resolved.parameter.name == *name).unwrap();
                assert_eq!((found.state, found.values.len()), (*state, *values), "{name} of {given:?}");
            }
        };
        use ParameterState::*;
        check(&[], &[("Line", MissingValidValue, 0), ("Station", HasOutstandingDependencies, 0)]);
        check(&[("Line", "L3"), ("Line", "L2")], &[("Line", HasValidValue, 2), ("Station", HasValidValue, 4)]);
        check(&[("Line", "L2"), ("Station", "S11")], &[("Station", MissingValidValue, 1)]);
        check(&[("Line", "l2")], &[("Line", MissingValidValue, 1), ("Shift", HasValidValue, 1)]);
        check(&[("From", "1/31/2026 05:00")], &[("From", HasValidValue, 1)]);
        check(&[("From", "31/1/2026 05:00")], &[("From", MissingValidValue, 1)]);
    }
}
