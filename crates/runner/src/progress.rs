//! A run while it goes: bars on a terminal, a line every few seconds elsewhere. Both on stderr.
//!
//! What is shown is taken from the engine's counters as a [`Snapshot`], so that showing can be tested without running.

mod bars;
mod lines;

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, IsTerminal},
    time::Duration,
};

use towpath_core::pipeline::Role;
use towpath_engine::{Progress, pulse::Waiting};

use crate::table::{megabytes, thousands};

/// A call this long is worth naming.
const LONG_CALL: Duration = Duration::from_secs(3);
/// Rates are taken over this long.
const RATE_OVER: Duration = Duration::from_secs(5);

/// How a run stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    pub elapsed: Duration,
    pub parts: Vec<Part>,
}

/// How a source or sink stands.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub name: String,
    pub role: Role,
    /// Rows read, or written.
    pub rows: u64,
    pub known: u64,
    pub rejected: u64,
    pub bytes: u64,
    /// Bytes in all, 0 where that is not known.
    pub expected: u64,
    pub ended: bool,
    /// What it waits for, if that is worth saying.
    pub waits: Option<String>,
}

impl Snapshot {
    pub fn of(progress: &Progress, elapsed: Duration) -> Self {
        let parts = progress.components().into_iter().filter(|part| part.role != Role::Transform).map(|part| {
            let source = part.role == Role::Source;
            let waits = match part.pulse.waiting() {
                Waiting::Guard => Some(part.pulse.waits_in_words()),
                Waiting::Call if part.pulse.still_for() >= LONG_CALL => {
                    Some(format!("waiting for {}, {} s", part.pulse.waits_in_words(), part.pulse.still_for().as_secs()))
                }
                _ => None,
            };
            Part {
                name: part.name.to_string(),
                role: part.role,
                rows: if source { part.rows_out.get() } else { part.written.get() },
                known: part.known.get(),
                rejected: part.rejected.get(),
                bytes: part.bytes.get(),
                expected: part.expected_bytes(),
                ended: part.pulse.waiting() == Waiting::Ended,
                waits,
            }
        });
        let mut parts: Vec<Part> = parts.collect();
        // Sources first, whichever began first.
        parts.sort_by_key(|part| part.role);
        Self { elapsed, parts }
    }
}

impl Part {
    /// How much of it is done, from 0 to 1, where that can be known.
    fn done(&self) -> Option<f64> {
        // More than was expected: then it was not known after all.
        (self.expected > 0 && self.bytes <= self.expected).then(|| self.bytes as f64 / self.expected as f64)
    }

    /// Rows and bytes, or what a sink made of the rows.
    fn counts(&self) -> String {
        let mut counts = Vec::new();
        if self.role == Role::Source {
            counts.push(format!("{} rows", thousands(self.rows)));
            match self.done() {
                Some(_) => counts.push(format!("{} of {}", megabytes(self.bytes), megabytes(self.expected))),
                None if self.bytes > 0 => counts.push(megabytes(self.bytes)),
                None => {}
            }
        } else {
            counts.push(format!("{} written", thousands(self.rows)));
            if self.known > 0 {
                counts.push(format!("{} known", thousands(self.known)));
            }
        }
        if self.rejected > 0 {
            counts.push(format!("{} rejected", thousands(self.rejected)));
        }
        counts.join(", ")
    }
}

/// Rates by component, over the last few seconds.
#[derive(Debug, Default)]
struct Rates(BTreeMap<String, VecDeque<(Duration, u64, u64)>>);

impl Rates {
    /// Rows and bytes in a second.
    fn of(&mut self, part: &Part, now: Duration) -> (f64, f64) {
        let seen = self.0.entry(part.name.clone()).or_default();
        if seen.back().is_none_or(|(at, ..)| *at < now) {
            seen.push_back((now, part.rows + part.known, part.bytes));
        }
        while seen.len() > 2 && seen.front().is_some_and(|(at, ..)| *at + RATE_OVER < now) {
            seen.pop_front();
        }
        let (Some((from, rows, bytes)), Some((to, rows_now, bytes_now))) = (seen.front(), seen.back()) else {
            return (0.0, 0.0);
        };
        let seconds = to.saturating_sub(*from).as_secs_f64();
        if seconds == 0.0 {
            return (0.0, 0.0);
        }
        // A count can go back: what was not committed is undone after a failure.
        (rows_now.saturating_sub(*rows) as f64 / seconds, bytes_now.saturating_sub(*bytes) as f64 / seconds)
    }
}

/// How long it will still take, in seconds.
fn left(part: &Part, bytes_a_second: f64) -> Option<u64> {
    part.done()?;
    let left = part.expected.saturating_sub(part.bytes) as f64;
    (bytes_a_second > 0.0 && left > 0.0 && !part.ended).then(|| (left / bytes_a_second).ceil() as u64)
}

/// Shows a run.
pub(crate) enum View {
    Bars(bars::Bars),
    Lines(lines::Lines),
}

impl View {
    /// Bars where a person looks, lines elsewhere.
    pub fn new() -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if io::stderr().is_terminal() && !dumb {
            Self::Bars(bars::Bars::new(indicatif::ProgressDrawTarget::stderr()))
        } else {
            Self::Lines(lines::Lines::default())
        }
    }
    /// How often to show it.
    pub fn interval(&self) -> Duration {
        match self {
            Self::Bars(_) => Duration::from_millis(100),
            Self::Lines(_) => lines::INTERVAL,
        }
    }
    pub fn show(&mut self, snapshot: &Snapshot) {
        match self {
            Self::Bars(bars) => bars.show(snapshot),
            Self::Lines(lines) => crate::output::err(&lines.line(snapshot)),
        }
    }
    /// Says something beside it.
    pub fn say(&self, text: &str) {
        match self {
            Self::Bars(bars) => bars.say(text),
            Self::Lines(_) => crate::output::err(text),
        }
    }
    /// Takes it off the screen; the summary comes next.
    pub fn end(self) {
        if let Self::Bars(bars) = self {
            bars.end();
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn snapshot(seconds: u64, rows: u64, expected: u64, waits: Option<&str>) -> Snapshot {
        let source = Part {
            name: "production".to_owned(),
            role: Role::Source,
            rows,
            known: 0,
            rejected: rows / 1_000_000,
            bytes: rows * 107,
            expected,
            ended: false,
            waits: waits.map(str::to_owned),
        };
        let sink = Part {
            name: "warehouse".to_owned(),
            role: Role::Sink,
            rows: rows / 2,
            known: rows / 4,
            rejected: 0,
            bytes: 0,
            expected: 0,
            ended: false,
            waits: None,
        };
        Snapshot { elapsed: Duration::from_secs(seconds), parts: vec![source, sink] }
    }

    #[test]
    fn rates_follow_the_last_seconds_and_survive_a_count_that_goes_back() {
        let mut rates = Rates::default();
        let mut rate =
            |seconds, rows| rates.of(&snapshot(seconds, rows, 0, None).parts[0], Duration::from_secs(seconds)).0;
        assert_eq!(rate(0, 0), 0.0);
        assert_eq!(rate(1, 100), 100.0);
        assert_eq!(rate(20, 100), 0.0, "nothing for a long time");
        assert_eq!(rate(21, 50), 0.0, "undone");
    }
}
