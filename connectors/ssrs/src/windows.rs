//! Windows of time: which are there, which are complete, which this run reads. Pure.
//!
//! A report knows no instants: its parameters and its rows carry the time on the wall of the plant. So a window is a span
//! of **wall clock time**, and the windows are a grid on it that begins anew at each midnight. Everything a clock change
//! does follows from that:
//!
//! * The day on which the clock is put back has 25 hours and one window of a day; the hour that comes twice is one window,
//!   read by one request once its second passing is over: the report cannot tell the two apart.
//! * The hour that is left out in spring has no window: no row can carry its time.
//! * A window is complete when the wall clock shows its end and will never again show a time before it.

use jiff::{Span, Timestamp, ToSpan, civil::DateTime, tz::TimeZone};
use serde::{Deserialize, Serialize};
use towpath_core::{Error, Period, Result};

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
/// A Monday: windows of whole weeks begin on Mondays.
const FIRST_DAY: jiff::civil::Date = jiff::civil::date(2001, 1, 1);

/// A span of wall clock time; the end does not belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Where it begins.
    pub start: DateTime,
    /// Where it ends.
    pub end: DateTime,
}

/// All windows there can be.
#[derive(Clone, Debug)]
pub struct Grid {
    /// In seconds: divides a day, or is a number of days.
    size: u64,
    zone: TimeZone,
}

/// Where the sequence of windows stands. As JSON it is the position of the partition `windows`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Everything before it has been read at least once, from where the first run began.
    pub done: DateTime,
    /// Where the next run begins: what lies before it was read when it was older than the look-back.
    pub next_from: DateTime,
    /// The run that wrote this.
    pub run: String,
    /// How far that run has come; it may be reading again what is done.
    pub run_at: DateTime,
    /// That run has also read the window that was still running.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub current: bool,
    /// How many windows that run has read.
    #[serde(default)]
    pub taken: u64,
}

/// What is to be known to choose windows.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// The run.
    pub run: &'a str,
    /// Its "now".
    pub now: Timestamp,
    /// Where the first run begins; without it, at the newest complete window.
    pub start: Option<DateTime>,
    /// How old a window must have been when it was read, not to be read again.
    pub lookback: Period,
    /// Whether the window that is still running is read too.
    pub include_current: bool,
    /// How many windows one run reads at the most.
    pub most: Option<u64>,
    /// Everything from `start` on is to be read, whatever earlier runs have read.
    pub whole: bool,
}

/// One window that a run reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The window.
    pub window: Window,
    /// It has been read before.
    pub again: bool,
    /// It is still running.
    pub current: bool,
    /// Where the sequence stands once it is read.
    pub then: Standing,
}

impl Grid {
    /// Windows of a size, in a time zone.
    ///
    /// # Errors
    /// Config, if windows of this size do not fit a day, or a day them.
    pub fn new(size: Period, zone: TimeZone) -> Result<Self> {
        let seconds = size.0.as_secs();
        let whole = size.0.subsec_nanos() == 0;
        if seconds < HOUR || !whole {
            let what = format!("window.size is {size}: a window has at least an hour");
            return Err(Error::config(what).hint("write 1h, and let the look-back bring what comes late"));
        }
        if !DAY.is_multiple_of(seconds) && !seconds.is_multiple_of(DAY) {
            let what = format!("window.size is {size}, and a day cannot be divided into that");
            return Err(Error::config(what).hint("write 1h, 2h, 3h, 4h, 6h, 8h, 12h, 1d or more whole days"));
        }
        Ok(Self { size: seconds, zone })
    }

    /// The time on the wall.
    pub fn wall(&self, at: Timestamp) -> DateTime {
        self.zone.to_datetime(at)
    }

    /// The beginning of the window that holds a time.
    pub fn floor(&self, at: DateTime) -> DateTime {
        let day = at.date().at(0, 0, 0, 0);
        if self.size < DAY {
            let of_day = at.duration_since(day).as_secs().unsigned_abs();
            return later(day, of_day / self.size * self.size);
        }
        let days = i64::from(FIRST_DAY.until(at.date()).map_or(0, |span| span.get_days()));
        let each = i64::try_from(self.size / DAY).unwrap_or(i64::MAX);
        day.saturating_sub(Span::new().try_days(days.rem_euclid(each)).unwrap_or_default())
    }

    /// The grid point behind a grid point.
    pub fn next(&self, at: DateTime) -> DateTime {
        later(at, self.size)
    }

    /// The window that begins at `start`, which is on the grid.
    fn window(&self, start: DateTime) -> Window {
        Window { start, end: later(start, self.size) }
    }

    /// Whether there was such a time at all: false for the hour left out in spring.
    fn exists(&self, window: &Window) -> bool {
        // The two ends as instants, each as the clock first shows it or jumps over it.
        self.first_shown(window.start) < self.first_shown(window.end)
    }

    /// The instant at which the clock first shows a time, or jumps over it.
    fn first_shown(&self, at: DateTime) -> Timestamp {
        use jiff::tz::AmbiguousOffset::{Fold, Gap, Unambiguous};
        match self.zone.to_ambiguous_timestamp(at).offset() {
            Unambiguous { offset } => instant(at, offset),
            Fold { before, .. } => instant(at, before),
            // Read with the clock of after, it lies before the jump; the jump is the next transition.
            Gap { after, .. } => {
                let before_the_jump = instant(at, after);
                self.zone.following(before_the_jump).next().map_or(before_the_jump, |jump| jump.timestamp())
            }
        }
    }

    /// The instant from which the clock will never again show a time before `end`.
    pub fn complete_at(&self, end: DateTime) -> Timestamp {
        let first = self.first_shown(end);
        let jiff::tz::AmbiguousOffset::Fold { after, .. } = self.zone.to_ambiguous_timestamp(end).offset() else {
            return first;
        };
        let second = instant(end, after);
        let just_before = second.checked_sub(1.nanosecond()).unwrap_or(second);
        // The clock is put back exactly to `end`: it does not show anything before it again.
        if self.wall(just_before) < end { second } else { first }
    }

    /// The end of the newest window that is complete.
    pub fn complete(&self, now: Timestamp) -> DateTime {
        let mut end = self.floor(self.wall(now));
        // While the repeated hour passes a second time, the window before it may not be over yet; in the first passing the
        // wall clock may be ahead of what is over.
        for _ in 0..50 {
            if self.complete_at(end) <= now {
                break;
            }
            end = self.before(end);
        }
        loop {
            let next = later(end, self.size);
            if next <= end || self.complete_at(next) > now {
                return end;
            }
            end = next;
        }
    }

    /// The grid point before a grid point.
    fn before(&self, at: DateTime) -> DateTime {
        self.floor(at.saturating_sub(1.nanosecond()))
    }

    /// What a run reads, oldest first. `from`: where the sequence stands.
    ///
    /// # Errors
    /// Config, if a run would have to read more windows than it may.
    pub fn choose(&self, from: Option<&Standing>, wanted: &Wanted<'_>) -> Result<Vec<Planned>> {
        let complete = self.complete(wanted.now);
        let inside = from.filter(|from| from.run == wanted.run);
        let start = wanted.start.map(|start| self.floor(start));
        let begin = match (inside, from) {
            (Some(inside), _) => inside.run_at,
            (None, _) if wanted.whole && start.is_some() => start.unwrap_or(complete),
            (None, Some(from)) => from.next_from,
            (None, None) => start.unwrap_or_else(|| self.newest(complete)),
        };
        let mut standing = Standing {
            done: from.map_or(begin, |from| from.done.max(begin)),
            next_from: begin,
            run: wanted.run.to_owned(),
            run_at: begin,
            current: inside.is_some_and(|inside| inside.current),
            taken: inside.map_or(0, |inside| inside.taken),
        };
        let before = standing.taken;
        if let Some(inside) = inside {
            standing.next_from = inside.next_from;
        }
        let keep_from = standing.next_from.max(self.aged(complete, wanted.lookback));
        let (mut planned, mut at) = (Vec::new(), self.floor(begin));
        while at < complete {
            let window = self.window(at);
            if window.end <= at {
                break;
            }
            at = window.end;
            if !self.exists(&window) {
                continue;
            }
            let again = window.end <= standing.done;
            standing.run_at = at;
            standing.done = standing.done.max(at);
            // What was read when it was older than the look-back is not read again.
            standing.next_from = keep_from.min(at);
            standing.taken += 1;
            planned.push(Planned { window, again, current: false, then: standing.clone() });
        }
        if wanted.include_current && !standing.current && begin <= complete {
            let window = self.window(complete);
            standing.current = true;
            standing.taken += 1;
            if self.exists(&window) {
                planned.push(Planned { window, again: false, current: true, then: standing });
            }
        }
        self.limit(planned, before, wanted, start)
    }

    /// `taken`: how many windows the run has read before it was taken up.
    fn limit(
        &self,
        mut planned: Vec<Planned>,
        taken: u64,
        wanted: &Wanted<'_>,
        start: Option<DateTime>,
    ) -> Result<Vec<Planned>> {
        let left = wanted.most.map(|most| most.saturating_sub(taken));
        let Some(most) = left.and_then(|left| usize::try_from(left).ok()) else { return Ok(planned) };
        if planned.len() > most && wanted.whole && start.is_some() {
            let what = format!(
                "{} windows lie between window.start and now, max_windows_per_run is {most}, and this pipeline reads all of them in each run",
                planned.len()
            );
            let hint = "set a later window.start, larger windows or a higher max_windows_per_run; or write with insert_new instead of replace";
            return Err(Error::config(what).hint(hint));
        }
        planned.truncate(most);
        Ok(planned)
    }

    /// The beginning of the newest complete window.
    fn newest(&self, complete: DateTime) -> DateTime {
        let mut at = complete;
        for _ in 0..50 {
            at = self.before(at);
            if self.exists(&self.window(at)) {
                break;
            }
        }
        at
    }

    /// Windows that end at or before this are older than the look-back.
    fn aged(&self, complete: DateTime, lookback: Period) -> DateTime {
        let span = Span::new().try_seconds(i64::try_from(lookback.0.as_secs()).unwrap_or(i64::MAX));
        self.floor(span.ok().and_then(|span| complete.checked_sub(span).ok()).unwrap_or(DateTime::MIN))
    }
}

fn instant(at: DateTime, offset: jiff::tz::Offset) -> Timestamp {
    offset.to_timestamp(at).unwrap_or(Timestamp::MAX)
}

fn later(at: DateTime, seconds: u64) -> DateTime {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    at.saturating_add(Span::new().try_seconds(seconds).unwrap_or_default())
}

#[cfg(test)]
mod tests;
