//! Differences for people and programs.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use serde::Serialize;
use serde_json::Value;
use towpath_core::{Action, Budget, BudgetState, Change, FieldChange, Name};

use super::SHOWN;
use crate::report::Failure;

/// What a run would change, and what that costs. Prints for people, serializes for programs.
#[derive(Clone, Debug, Serialize)]
pub struct DiffReport {
    /// The pipeline.
    pub pipeline: Name,
    /// No source has anything new: a run would end without comparing.
    pub nothing_new: bool,
    /// By sink, those that can tell.
    pub sinks: BTreeMap<Name, SinkDiff>,
    /// Their names in the order in which they write.
    #[serde(skip)]
    pub order: Vec<Name>,
    /// Rows that do not come as far as a sink, by whoever refuses them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<Name, SinkDiff>,
    /// Sinks that cannot tell, and their connectors.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub without: BTreeMap<Name, String>,
    /// By account.
    pub costs: Vec<Cost>,
    /// What a run would end with, by sink: it would not do all of this.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ends: Vec<Failure>,
    /// The comparing itself ended so: there may be more differences.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub broke_off: bool,
    /// Where all of it was kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<PathBuf>,
    /// How it differs from the plan that it was compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moved: Option<Moved>,
}

/// What would change in one sink.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SinkDiff {
    /// Its connector.
    pub kind: String,
    /// Records that would be made.
    pub creates: u64,
    /// Records of which fields would change.
    pub updates: u64,
    /// Records that would be closed.
    pub closes: u64,
    /// Records that would be deleted.
    pub deletes: u64,
    /// Records of a key that others have as well.
    pub duplicates: u64,
    /// Rows that need nothing.
    pub equal: u64,
    /// Rows that it would refuse.
    pub refused: u64,
    /// Calls that the changes take.
    pub calls: u64,
    /// Tokens that these cost.
    pub tokens: u64,
    /// The first changes.
    pub examples: Vec<Change>,
    /// The first rows that would be refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<Refused>,
}

/// A row that would be refused.
#[derive(Clone, Debug, Serialize)]
pub struct Refused {
    /// Why.
    pub reason: String,
    /// The row as it came, or as JSON.
    pub row: String,
}

/// What a run costs of one account's budget.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// The account.
    pub account: String,
    /// Calls that the comparing takes, and took just now.
    pub compare_calls: u64,
    /// Tokens that it costs, and cost just now.
    pub compare_tokens: u64,
    /// Calls that the changes take.
    pub write_calls: u64,
    /// Tokens that they cost.
    pub write_tokens: u64,
    /// How long all of them take at the vendor's pace, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// The pace in words: `20 calls in 2s`.
    #[serde(skip)]
    pub pace: Option<String>,
    /// Tokens that are ours in a day, where days are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ours_a_day: Option<u64>,
    /// Tokens left of them today.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_today: Option<u64>,
    /// On how many days it would run, today included; `None` where days are not counted, or the comparing alone costs more than a day has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub days: Option<u64>,
}

/// How what is to be changed differs from a plan.
#[derive(Clone, Debug, Serialize)]
pub struct Moved {
    /// Changes that are not in the plan.
    pub new: u64,
    /// Changes of the plan that are not to be made any more, or not so.
    pub gone: u64,
    /// The first of the new ones.
    pub examples_new: Vec<(Name, Change)>,
    /// The first of those gone.
    pub examples_gone: Vec<(Name, Change)>,
}

impl SinkDiff {
    pub(super) fn add(&mut self, change: &Change) {
        *match change.action {
            Action::Create => &mut self.creates,
            Action::Update => &mut self.updates,
            Action::Close => &mut self.closes,
            Action::Delete => &mut self.deletes,
            Action::Duplicate => &mut self.duplicates,
        } += 1;
        self.calls += u64::from(change.calls);
        self.tokens += u64::from(change.tokens);
        if self.examples.len() < SHOWN {
            self.examples.push(change.clone());
        }
    }
    /// All changes, those that are only reported left out.
    pub fn changes(&self) -> u64 {
        self.creates + self.updates + self.closes + self.deletes
    }
}

impl Cost {
    pub(super) fn reckon(
        budget: &Budget,
        state: BudgetState,
        (compare_calls, compare_tokens): (u64, u64),
        (write_calls, write_tokens): (u64, u64),
    ) -> Self {
        let calls = compare_calls + write_calls;
        let seconds = budget.burst.map(|burst| {
            let windows = calls.saturating_sub(1) / u64::from(burst.requests.max(1));
            burst.window.as_secs_f64() * windows as f64
        });
        let pace =
            budget.burst.map(|burst| format!("{} calls in {}", burst.requests, towpath_core::Period(burst.window)));
        let ours_a_day = budget.day.as_ref().map(towpath_core::Day::ours);
        let days = ours_a_day.and_then(|ours| days(ours, state.left_today?, compare_tokens, write_tokens));
        Self {
            account: budget.account.clone(),
            compare_calls,
            compare_tokens,
            write_calls,
            write_tokens,
            seconds,
            pace,
            ours_a_day,
            left_today: state.left_today,
            days,
        }
    }
}

/// Every day begins with comparing, and writes as much as is left behind that.
fn days(ours: u64, today: u64, compare: u64, write: u64) -> Option<u64> {
    let today = today.saturating_sub(compare);
    let Some(later) = write.checked_sub(today).filter(|later| *later > 0) else { return Some(1) };
    let each = ours.checked_sub(compare).filter(|each| *each > 0)?;
    Some(1 + later.div_ceil(each))
}

impl DiffReport {
    /// Whether a run would change anything.
    pub fn is_empty(&self) -> bool {
        self.sinks.values().all(|sink| sink.changes() == 0)
    }
    /// The program's exit code: that of the run that would end so; 0 where it would end well.
    pub fn exit_code(&self) -> u8 {
        self.ends.first().map_or(0, |failure| failure.exit_code)
    }
}

/// `1,234`.
fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn plural(number: u64, what: &str) -> String {
    format!("{} {what}{}", count(number), if number == 1 { "" } else { "s" })
}

/// Enough of a row to know it again.
const LONGEST_ROW: usize = 160;

fn cut(text: &str, longest: usize) -> String {
    if text.chars().count() <= longest {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(longest - 1).collect();
    cut.push('…');
    cut
}

fn value(value: Option<&Value>) -> String {
    /// Enough to know it again.
    const LONGEST: usize = 60;
    let text = match value {
        None | Some(Value::Null) => return "(nothing)".to_owned(),
        Some(Value::String(text)) => format!("{text:?}"),
        Some(Value::Object(parts)) if parts.keys().all(|part| part == "id" || part == "key") => {
            link(parts.get("id"), parts.get("key"))
        }
        Some(other) => other.to_string(),
    };
    cut(&text, LONGEST)
}

/// What a link leads to: `12 (C-7)`, `12`, `new (C-7)`.
fn link(id: Option<&Value>, key: Option<&Value>) -> String {
    let id = id.map_or_else(|| "new".to_owned(), Value::to_string);
    match key {
        Some(Value::String(key)) => format!("{id} ({key})"),
        Some(key) => format!("{id} ({key})"),
        None => id,
    }
}

fn verb(action: Action) -> &'static str {
    match action {
        Action::Create => "create",
        Action::Update => "update",
        Action::Close => "close",
        Action::Delete => "delete",
        Action::Duplicate => "duplicate",
    }
}

fn head(change: &Change) -> String {
    let id = change.id.as_ref().map(|id| format!(" (id {id})")).unwrap_or_default();
    format!("{} {} {}{id}", verb(change.action), change.entity, change.key)
}

/// `update persons C-7 (id 12): name "a" → "b"`.
pub(super) fn in_a_line(change: &Change) -> String {
    let fields = change.fields.iter().map(|field| field_in_words(change.action, field)).collect::<Vec<_>>();
    let colon = if fields.is_empty() { "" } else { ": " };
    format!("{}{colon}{}", head(change), fields.join(", "))
}

fn field_in_words(action: Action, FieldChange { field, old, new }: &FieldChange) -> String {
    match action {
        Action::Create => format!("{field} {}", value(new.as_ref())),
        _ => format!("{field} {} → {}", value(old.as_ref()), value(new.as_ref())),
    }
}

fn write_change(f: &mut fmt::Formatter<'_>, change: &Change) -> fmt::Result {
    writeln!(f, "    {}", head(change))?;
    for field in &change.fields {
        writeln!(f, "      {}", field_in_words(change.action, field))?;
    }
    change.note.iter().try_for_each(|note| writeln!(f, "      note: {note}"))
}

impl fmt::Display for DiffReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "pipeline {}", self.pipeline)?;
        if self.nothing_new {
            writeln!(f, "\nno source has anything new: a run would end here, without a call to a sink")?;
            writeln!(f, "  to compare all the same: --full")?;
            return self.moved.iter().try_for_each(|moved| write_moved(f, moved));
        }
        for (name, sink) in self.order.iter().filter_map(|name| self.sinks.get_key_value(name)) {
            writeln!(f, "\nsink {name} ({})", sink.kind)?;
            write_sink(f, sink, self.kept.is_some())?;
        }
        for (name, kind) in &self.without {
            writeln!(f, "\nsink {name} ({kind})")?;
            writeln!(f, "  cannot say how its rows differ from what is there; a run writes all it is given")?;
        }
        for (name, part) in &self.refused {
            writeln!(f, "\n{name} refuses {}", plural(part.refused, "row"))?;
            write_refusals(f, part)?;
        }
        for cost in &self.costs {
            write_cost(f, cost)?;
        }
        if let Some(moved) = &self.moved {
            write_moved(f, moved)?;
        }
        if !self.ends.is_empty() {
            let what = if self.broke_off {
                "the comparing broke off, so there may be more"
            } else {
                "a run would not do this"
            };
            writeln!(f, "\n{what}")?;
            self.ends.iter().try_for_each(|failure| writeln!(f, "  {failure}"))?;
        }
        if let Some(path) = &self.kept {
            let path = path.display();
            match self.ends.is_empty() {
                true => writeln!(f, "\nkept in {path}: run exactly this with `towpath run FILE --plan {path}`")?,
                false => writeln!(f, "\nkept in {path}")?,
            }
        }
        Ok(())
    }
}

fn write_sink(f: &mut fmt::Formatter<'_>, sink: &SinkDiff, kept: bool) -> fmt::Result {
    let rows = [
        ("create", sink.creates, true),
        ("update", sink.updates, true),
        ("close", sink.closes, false),
        ("delete", sink.deletes, false),
        ("duplicate", sink.duplicates, false),
        ("equal", sink.equal, true),
        ("refused", sink.refused, false),
    ];
    for (what, number, always) in rows {
        if always || number > 0 {
            writeln!(f, "  {what:9}  {:>9}", count(number))?;
        }
    }
    write_refusals(f, sink)?;
    if !sink.examples.is_empty() {
        writeln!(f, "  changes")?;
    }
    sink.examples.iter().try_for_each(|change| write_change(f, change))?;
    let more = (sink.changes() + sink.duplicates).saturating_sub(sink.examples.len() as u64);
    if more > 0 {
        let all = if kept { "" } else { " (all of them with --out FILE)" };
        writeln!(f, "    … and {} more{all}", count(more))?;
    }
    Ok(())
}

fn write_refusals(f: &mut fmt::Formatter<'_>, part: &SinkDiff) -> fmt::Result {
    for Refused { reason, row } in &part.refusals {
        writeln!(f, "    refused: {reason}\n      {}", cut(row, LONGEST_ROW))?;
    }
    match part.refused.saturating_sub(part.refusals.len() as u64) {
        0 => Ok(()),
        more => writeln!(f, "    … and {} more", count(more)),
    }
}

fn write_cost(f: &mut fmt::Formatter<'_>, cost: &Cost) -> fmt::Result {
    let Cost { account, compare_calls, compare_tokens, write_calls, write_tokens, .. } = cost;
    writeln!(f, "\ncost, from the budget of {account}")?;
    let line = |calls: u64, tokens: u64| format!("{}, {}", plural(calls, "call"), plural(tokens, "token"));
    writeln!(f, "  compare    {} (and as much for this plan)", line(*compare_calls, *compare_tokens))?;
    writeln!(f, "  write      {}", line(*write_calls, *write_tokens))?;
    if let (Some(seconds), Some(pace)) = (cost.seconds, &cost.pace) {
        let took = match seconds {
            seconds if seconds < 1.0 => "no waiting".to_owned(),
            seconds => towpath_core::Period(Duration::from_secs(seconds.ceil() as u64)).to_string(),
        };
        writeln!(f, "  time       {took} at {pace}")?;
    }
    let Some(ours) = cost.ours_a_day else { return Ok(()) };
    let left = count(cost.left_today.unwrap_or(0));
    let when = match cost.days {
        Some(1) => "today".to_owned(),
        Some(days) => format!("{days} days, today included"),
        None => "never: the comparing alone costs more than a day has for us".to_owned(),
    };
    writeln!(f, "  done       {when} (left today: {left} of our {} tokens a day)", count(ours))
}

fn write_moved(f: &mut fmt::Formatter<'_>, moved: &Moved) -> fmt::Result {
    writeln!(f, "\nthis is not what the plan says, so nothing was sent")?;
    for (number, examples, what) in [
        (moved.gone, &moved.examples_gone, "of the plan not to be made any more, or not so"),
        (moved.new, &moved.examples_new, "not in the plan"),
    ] {
        if number == 0 {
            continue;
        }
        writeln!(f, "  {} {what}", plural(number, "change"))?;
        for (sink, change) in examples {
            writeln!(f, "    {sink}: {}", in_a_line(change))?;
        }
        let more = number.saturating_sub(examples.len() as u64);
        if more > 0 {
            writeln!(f, "    … and {} more", count(more))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_begins_with_comparing() {
        for (ours, today, compare, write, expected) in [
            (4800, 4800, 400, 4400, Some(1)),
            (4800, 4800, 400, 4401, Some(2)),
            (4800, 0, 400, 4400, Some(2)),
            (4800, 300, 400, 100_000, Some(24)),
            (4800, 4800, 0, 0, Some(1)),
            (400, 400, 400, 1, None),
            (100, 100, 400, 0, Some(1)),
        ] {
            assert_eq!(days(ours, today, compare, write), expected, "{ours} {today} {compare} {write}");
        }
    }

    #[test]
    fn values_are_short_and_clear() {
        let long = Value::String("x".repeat(100));
        assert_eq!(value(Some(&Value::String("a\nb".into()))), "\"a\\nb\"");
        assert_eq!(value(Some(&long)).chars().count(), 60);
        assert_eq!(value(None), "(nothing)");
        for (linked, shown) in [
            (serde_json::json!({ "id": 12, "key": "C-7" }), "12 (C-7)"),
            (serde_json::json!({ "id": 12 }), "12"),
            (serde_json::json!({ "key": "C-7" }), "new (C-7)"),
            (serde_json::json!({ "value": 3 }), r#"{"value":3}"#),
        ] {
            assert_eq!(value(Some(&linked)), shown);
        }
        assert_eq!(
            (count(1234567), plural(1, "row"), plural(0, "row")),
            ("1,234,567".into(), "1 row".into(), "0 rows".into())
        );
    }
}
