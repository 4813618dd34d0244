//! When a pipeline runs next: reckoned from its schedule ([`Timetable`]), the start before, and the wall clock. Pure; whoever waits looks at
//! the clock again and again ([`Starts`], `towpath serve`), because clocks are set.
//!
//! Cron expressions are croner's, daylight saving included: a fixed time that is left out in spring comes at the first moment after the
//! gap, one that comes twice in autumn runs the first time only; what runs every so many minutes or hours runs on through both.

use std::fmt;

use croner::{
    Cron,
    parser::{CronParser, Seconds},
};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use towpath_core::{Error, Period, Result, pipeline::Schedule};

/// The starts of a pipeline.
#[derive(Clone, Debug)]
pub struct Timetable(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Every(Period, SignedDuration),
    Cron { text: String, cron: Box<Cron>, zone: TimeZone, zone_name: String },
}

impl Timetable {
    /// Reads a schedule. [`ErrorKind::Config`](towpath_core::ErrorKind::Config), at the key, if it says nothing, or a time that never comes.
    pub fn of(schedule: &Schedule) -> Result<Self> {
        match (schedule.every, &schedule.cron) {
            (Some(every), None) => {
                let period = SignedDuration::try_from(every.0).ok().filter(|period| *period >= MIN && *period <= MAX);
                let period = period.ok_or_else(|| {
                    Error::config(format!("{every} is no interval to run in"))
                        .at("schedule.every")
                        .hint("write something from 1s to 3650d")
                })?;
                Ok(Self(Kind::Every(every, period)))
            }
            (None, Some(text)) => {
                let hint = "write five fields: minute, hour, day of month, month, day of week, such as \"0 6 * * 1-5\"";
                let parser = CronParser::builder().seconds(Seconds::Disallowed).build();
                let cron = parser.parse(text).map_err(|error| {
                    Error::config(format!("'{text}' is no cron expression"))
                        .because(error)
                        .at("schedule.cron")
                        .hint(hint)
                })?;
                let zone_name = schedule.time_zone.clone().unwrap_or_else(|| "UTC".to_owned());
                let zone = TimeZone::get(&zone_name).map_err(|error| {
                    Error::config(format!("time zone '{zone_name}' is not known"))
                        .because(error)
                        .at("schedule.time_zone")
                        .hint("write a name such as Europe/Berlin")
                })?;
                let made = Self(Kind::Cron { text: text.clone(), cron: Box::new(cron), zone, zone_name });
                if made.after(Timestamp::now()).is_none() {
                    return Err(Error::config(format!("'{text}' never comes")).at("schedule.cron").hint(hint));
                }
                Ok(made)
            }
            _ => Err(Error::config("the schedule says neither how often nor when, or both")
                .at("schedule")
                .hint("write every: 1h, or cron: \"0 6 * * *\"")),
        }
    }

    /// The first start of a process that begins to wait now. With an interval it is at once, unless the pipeline's last run was begun
    /// less than the interval ago: then when that is over, so that restarts do not make for more runs than the schedule does. By cron it
    /// is the next time that matches. `None`: never.
    pub fn first(&self, last_run: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
        let Some(last) = last_run.filter(|_| matches!(self.0, Kind::Every(..))) else {
            return if matches!(self.0, Kind::Every(..)) { Some(now) } else { self.after(now) };
        };
        if self.after(last)? <= now { Some(now) } else { self.next(last, now) }
    }

    /// The next start after `now`, when `last` was the one before (taken or skipped). Intervals are counted from `last`, whatever became
    /// of it, so that starts do not drift; those that are over are left out. Where the clock was set back behind `last`, nothing is
    /// started twice for that; but where it was set back so far that it would mean to wait for longer than two intervals, it is reckoned
    /// anew from now. `None`: never.
    pub fn next(&self, last: Timestamp, now: Timestamp) -> Option<Timestamp> {
        if last <= now {
            return match &self.0 {
                Kind::Every(_, period) => {
                    let gone = now.duration_since(last).as_nanos() / period.as_nanos();
                    let nanos = last.as_nanosecond().checked_add((gone + 1).checked_mul(period.as_nanos())?)?;
                    Timestamp::from_nanosecond(nanos).ok()
                }
                Kind::Cron { .. } => self.after(now),
            };
        }
        let next = self.after(last)?;
        let interval = next.duration_since(last);
        if next.duration_since(now) > interval.saturating_add(interval) { self.after(now) } else { Some(next) }
    }

    /// An interval after a moment, or the first match after it.
    fn after(&self, moment: Timestamp) -> Option<Timestamp> {
        match &self.0 {
            Kind::Every(_, period) => moment.checked_add(*period).ok(),
            Kind::Cron { cron, zone, .. } => {
                let next = cron.find_next_occurrence(&moment.to_zoned(zone.clone()), false).ok()?;
                Some(next.timestamp())
            }
        }
    }
}

/// The starts of one pipeline, for whoever waits for them: look at the clock now and then, and act on what it says.
#[derive(Clone, Debug)]
pub struct Starts {
    timetable: Timetable,
    /// The start before the next one, taken or not; before the first, a time that has been.
    last: Timestamp,
    due: Option<Timestamp>,
}

/// What a look at the clock came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// There is time left.
    Wait,
    /// A start is due; [`Starts::due`] is the one after it.
    Start,
    /// The clock was set back, so far that [`Starts::due`] was reckoned anew.
    SetBack,
}

impl Starts {
    /// Begins now. `last_run` is when the pipeline's last run was begun, by whomever.
    pub fn new(timetable: Timetable, last_run: Option<Timestamp>, now: Timestamp) -> Self {
        let due = timetable.first(last_run, now);
        let last = match &timetable.0 {
            Kind::Every(..) => last_run.map_or(now, |last| last.min(now)),
            Kind::Cron { .. } => now,
        };
        Self { timetable, last, due }
    }

    /// The next start. `None`: never.
    pub fn due(&self) -> Option<Timestamp> {
        self.due
    }

    /// The schedule.
    pub fn timetable(&self) -> &Timetable {
        &self.timetable
    }

    /// Looks whether a start is due.
    pub fn look(&mut self, now: Timestamp) -> Look {
        let Some(due) = self.due else { return Look::Wait };
        if now >= due {
            (self.last, self.due) = (due, self.timetable.next(due, now));
            return Look::Start;
        }
        // Behind what has been: what was reckoned by the old time may be years ahead.
        if now < self.last {
            let next = self.timetable.next(self.last, now);
            if next != self.due {
                (self.last, self.due) = (now, next);
                return Look::SetBack;
            }
        }
        Look::Wait
    }
}

/// The bounds of an interval.
const MIN: SignedDuration = SignedDuration::from_secs(1);
const MAX: SignedDuration = SignedDuration::from_hours(3650 * 24);

impl fmt::Display for Timetable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Every(every, _) => write!(f, "every {every}"),
            Kind::Cron { text, zone_name, .. } => write!(f, "cron \"{text}\" {zone_name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failure in a test is its message")]

    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }
    fn every(text: &str) -> Timetable {
        let schedule = Schedule { every: Some(text.parse().unwrap()), ..schedule() };
        Timetable::of(&schedule).unwrap()
    }
    fn cron(text: &str, zone: &str) -> Timetable {
        let schedule = Schedule { cron: Some(text.into()), time_zone: Some(zone.into()), ..schedule() };
        Timetable::of(&schedule).unwrap()
    }
    fn schedule() -> Schedule {
        Schedule { every: None, cron: None, time_zone: None, overlap: Default::default() }
    }

    #[test]
    fn the_first_start() {
        let check = |table: Timetable, last: Option<&str>, now: &str, expect: &str| {
            assert_eq!(table.first(last.map(at), at(now)), Some(at(expect)), "{table}, last {last:?}, now {now}");
        };
        // Never run, long ago, just over, not yet over.
        check(every("1h"), None, "2026-03-01T10:20:30Z", "2026-03-01T10:20:30Z");
        check(every("1h"), Some("2026-02-01T10:00:00Z"), "2026-03-01T10:20:30Z", "2026-03-01T10:20:30Z");
        check(every("1h"), Some("2026-03-01T09:20:30Z"), "2026-03-01T10:20:30Z", "2026-03-01T10:20:30Z");
        check(every("1h"), Some("2026-03-01T09:20:31Z"), "2026-03-01T10:20:30Z", "2026-03-01T10:20:31Z");
        check(every("1h"), Some("2026-03-01T10:20:00Z"), "2026-03-01T10:20:30Z", "2026-03-01T11:20:00Z");
        // By a clock that was set back since, by little and by much.
        check(every("1h"), Some("2026-03-01T10:30:00Z"), "2026-03-01T10:20:30Z", "2026-03-01T11:30:00Z");
        check(every("1h"), Some("2027-03-01T10:30:00Z"), "2026-03-01T10:20:30Z", "2026-03-01T11:20:30Z");
        // Cron does not ask.
        check(cron("0 6 * * *", "UTC"), None, "2026-03-01T05:59:59Z", "2026-03-01T06:00:00Z");
        check(cron("0 6 * * *", "UTC"), Some("2026-02-01T06:00:00Z"), "2026-03-01T06:00:00Z", "2026-03-02T06:00:00Z");
    }

    #[test]
    fn intervals_are_counted_from_start_to_start() {
        let check = |period: &str, last: &str, now: &str, expect: &str| {
            let table = every(period);
            assert_eq!(table.next(at(last), at(now)), Some(at(expect)), "{table}, last {last}, now {now}");
        };
        check("1h", "2026-03-01T10:00:00Z", "2026-03-01T10:00:00Z", "2026-03-01T11:00:00Z");
        // A late look at the clock does not shift the rest.
        check("1h", "2026-03-01T10:00:00Z", "2026-03-01T10:59:59.999Z", "2026-03-01T11:00:00Z");
        check("1h", "2026-03-01T10:00:00Z", "2026-03-01T11:00:00Z", "2026-03-01T12:00:00Z");
        // The machine slept, or the clock was set forward: one start, not many.
        check("1h", "2026-03-01T10:00:00Z", "2026-03-03T17:30:00Z", "2026-03-03T18:00:00Z");
        check("7m", "2026-03-01T10:00:00Z", "2026-03-01T10:15:00Z", "2026-03-01T10:21:00Z");
        // Over the end of a leap day, and through a change of the clocks, which it does not see.
        check("1d", "2028-02-28T12:00:00Z", "2028-02-28T13:00:00Z", "2028-02-29T12:00:00Z");
        check("12h", "2026-03-28T20:00:00Z", "2026-03-28T20:00:01Z", "2026-03-29T08:00:00Z");
        // The clock was set back behind the last start: by less than an interval, just an interval, more.
        check("1h", "2026-03-01T10:00:00Z", "2026-03-01T09:50:00Z", "2026-03-01T11:00:00Z");
        check("1h", "2026-03-01T10:00:00Z", "2026-03-01T09:00:00Z", "2026-03-01T11:00:00Z");
        check("1h", "2026-03-01T10:00:00Z", "2026-03-01T08:59:59Z", "2026-03-01T09:59:59Z");
        check("1h", "2026-03-01T10:00:00Z", "2020-01-01T00:00:00Z", "2020-01-01T01:00:00Z");
    }

    #[test]
    fn cron_follows_the_calendar_and_the_zone() {
        let check = |text: &str, zone: &str, now: &str, expect: &[&str]| {
            let table = cron(text, zone);
            let mut last = at(now);
            let starts = expect.iter().map(|_| {
                last = table.next(last, last).unwrap();
                last
            });
            let starts: Vec<String> = starts.map(|start| start.to_string()).collect();
            assert_eq!(starts, expect, "{table} after {now}");
        };
        let berlin = "Europe/Berlin";
        check("0 6 * * 1-5", berlin, "2026-01-30T05:00:00Z", &["2026-02-02T05:00:00Z", "2026-02-03T05:00:00Z"]);
        // Ends of months, leap days.
        check("0 0 31 * *", "UTC", "2026-01-31T00:00:00Z", &["2026-03-31T00:00:00Z", "2026-05-31T00:00:00Z"]);
        check("0 0 L * *", "UTC", "2028-01-31T00:00:00Z", &["2028-02-29T00:00:00Z", "2028-03-31T00:00:00Z"]);
        check("30 4 29 2 *", "UTC", "2026-01-01T00:00:00Z", &["2028-02-29T04:30:00Z", "2032-02-29T04:30:00Z"]);
        // In spring 02:30 is left out: it comes when the gap is over. In autumn it comes twice: the first counts.
        check(
            "30 2 * * *",
            berlin,
            "2026-03-28T00:00:00Z",
            &["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"],
        );
        check("30 2 * * *", berlin, "2026-10-24T12:00:00Z", &["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
        // What runs the whole day long runs on.
        check("*/30 * * * *", berlin, "2026-03-29T00:30:00Z", &["2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"]);
        check(
            "*/30 * * * *",
            berlin,
            "2026-10-25T00:00:00Z",
            &["2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:00:00Z"],
        );
        check("@daily", "Asia/Kathmandu", "2026-06-01T00:00:00Z", &["2026-06-01T18:15:00Z"]);
    }

    /// The next starts around each change of the clocks: one time of the day, and one of every hour.
    #[test]
    fn cron_and_changes_of_the_clocks() {
        for (zone, text, now, expect) in [
            // An hour is left out, and comes twice.
            (
                "America/New_York",
                "30 2 * * *",
                "2026-03-07T12:00:00Z",
                ["2026-03-08T07:00:00Z", "2026-03-09T06:30:00Z"],
            ),
            (
                "America/New_York",
                "30 1 * * *",
                "2026-10-31T12:00:00Z",
                ["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"],
            ),
            (
                "America/New_York",
                "30 * * * *",
                "2026-03-08T06:00:00Z",
                ["2026-03-08T06:30:00Z", "2026-03-08T07:30:00Z"],
            ),
            (
                "America/New_York",
                "30 * * * *",
                "2026-11-01T05:00:00Z",
                ["2026-11-01T05:30:00Z", "2026-11-01T06:30:00Z"],
            ),
            // Half an hour, in the other half of the year.
            (
                "Australia/Lord_Howe",
                "15 2 * * *",
                "2026-10-03T00:00:00Z",
                ["2026-10-03T15:30:00Z", "2026-10-04T15:15:00Z"],
            ),
            (
                "Australia/Lord_Howe",
                "45 1 * * *",
                "2026-04-04T00:00:00Z",
                ["2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"],
            ),
            // At midnight: a day that begins at one.
            ("America/Santiago", "@daily", "2026-09-05T12:00:00Z", ["2026-09-06T04:00:00Z", "2026-09-07T03:00:00Z"]),
            // Just before and just behind the gap, and the last moment before it.
            ("Europe/Berlin", "59 1 * * *", "2026-03-28T12:00:00Z", ["2026-03-29T00:59:00Z", "2026-03-29T23:59:00Z"]),
            ("Europe/Berlin", "0 3 * * *", "2026-03-28T12:00:00Z", ["2026-03-29T01:00:00Z", "2026-03-30T01:00:00Z"]),
            ("Europe/Berlin", "0 2 * * *", "2026-03-28T12:00:00Z", ["2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"]),
            // On Sundays only, which is when they change.
            ("Europe/Berlin", "30 2 * * 0", "2026-03-23T00:00:00Z", ["2026-03-29T01:00:00Z", "2026-04-05T00:30:00Z"]),
            ("Europe/Berlin", "30 2 * * 0", "2026-10-20T00:00:00Z", ["2026-10-25T00:30:00Z", "2026-11-01T01:30:00Z"]),
        ] {
            let mut starts = Starts::new(cron(text, zone), None, at(now));
            let came = expect.map(|_| {
                let due = starts.due().unwrap();
                // Looked at when it is due, and when the clock of the wall shows the same hour once more.
                assert_eq!(starts.look(due), Look::Start);
                assert_eq!(starts.look(due), Look::Wait);
                due.to_string()
            });
            assert_eq!(came, expect, "{text} {zone} after {now}");
        }
    }

    #[test]
    fn cron_and_a_clock_that_is_set() {
        let check = |text: &str, last: &str, now: &str, expect: &str| {
            let table = cron(text, "UTC");
            assert_eq!(table.next(at(last), at(now)), Some(at(expect)), "{table}, last {last}, now {now}");
        };
        // Back by a little: the start that has been is not made again.
        check("0 6 * * *", "2026-03-01T06:00:00Z", "2026-03-01T05:50:00Z", "2026-03-02T06:00:00Z");
        check("* * * * *", "2026-03-01T06:00:00Z", "2026-03-01T05:59:30Z", "2026-03-01T06:01:00Z");
        // Back by much: nobody waits for the time that was wrong.
        check("* * * * *", "2026-03-01T06:00:00Z", "2026-03-01T04:00:00Z", "2026-03-01T04:01:00Z");
        check("0 6 * * *", "2027-03-01T06:00:00Z", "2026-03-01T05:50:00Z", "2026-03-01T06:00:00Z");
        // Forward: those in between are left out.
        check("0 6 * * *", "2026-03-01T06:00:00Z", "2026-03-09T07:00:00Z", "2026-03-10T06:00:00Z");
    }

    #[test]
    fn starts_by_a_clock_that_is_looked_at() {
        use Look::{SetBack, Start, Wait};
        let check = |table: Timetable, last: Option<&str>, begun: &str, looks: &[(&str, Look, &str)]| {
            let mut starts = Starts::new(table, last.map(at), at(begun));
            for (now, expect, due) in looks {
                let look = starts.look(at(now));
                assert_eq!((look, starts.due()), (*expect, Some(at(due))), "{} at {now}", starts.timetable());
            }
        };
        // Looks that are late do not shift what comes; starts that are over by then are one.
        check(
            every("1h"),
            None,
            "2026-03-01T10:00:00.25Z",
            &[
                ("2026-03-01T10:00:00.25Z", Start, "2026-03-01T11:00:00.25Z"),
                ("2026-03-01T10:59:59Z", Wait, "2026-03-01T11:00:00.25Z"),
                ("2026-03-01T11:00:20Z", Start, "2026-03-01T12:00:00.25Z"),
                ("2026-03-02T09:30:00Z", Start, "2026-03-02T10:00:00.25Z"),
                ("2026-03-02T10:00:00.25Z", Start, "2026-03-02T11:00:00.25Z"),
            ],
        );
        // Set back by a little: nothing changes. By a day: it is not waited for a day, nor for ever.
        check(
            every("1h"),
            Some("2026-03-01T09:30:00Z"),
            "2026-03-01T10:00:00Z",
            &[
                ("2026-03-01T10:00:00Z", Wait, "2026-03-01T10:30:00Z"),
                ("2026-03-01T10:30:00Z", Start, "2026-03-01T11:30:00Z"),
                ("2026-03-01T10:29:00Z", Wait, "2026-03-01T11:30:00Z"),
                ("2026-02-28T10:29:00Z", SetBack, "2026-02-28T11:29:00Z"),
                ("2026-02-28T10:30:00Z", Wait, "2026-02-28T11:29:00Z"),
                ("2026-02-28T11:29:00Z", Start, "2026-02-28T12:29:00Z"),
            ],
        );
        check(
            cron("0 6 * * *", "UTC"),
            Some("2026-02-28T06:00:00Z"),
            "2026-03-01T05:00:00Z",
            &[
                ("2026-03-01T06:00:00Z", Start, "2026-03-02T06:00:00Z"),
                ("2026-03-01T05:59:00Z", Wait, "2026-03-02T06:00:00Z"),
                ("2026-03-01T06:00:01Z", Wait, "2026-03-02T06:00:00Z"),
                ("2026-01-15T12:00:00Z", SetBack, "2026-01-16T06:00:00Z"),
                ("2026-01-16T06:00:00Z", Start, "2026-01-17T06:00:00Z"),
            ],
        );
        // Set back before the first start.
        check(
            cron("0 6 * * *", "UTC"),
            Some("2026-01-01T06:00:00Z"),
            "2026-03-01T05:00:00Z",
            &[
                ("2026-03-01T02:00:00Z", Wait, "2026-03-01T06:00:00Z"),
                ("2026-02-20T07:00:00Z", SetBack, "2026-02-21T06:00:00Z"),
            ],
        );
        // Set forward, over two starts.
        check(
            cron("0 6 * * *", "UTC"),
            None,
            "2026-03-01T05:00:00Z",
            &[("2026-03-03T08:00:00Z", Start, "2026-03-04T06:00:00Z")],
        );
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        let check = |schedule: Schedule, place: &str, says: &str| {
            let error = Timetable::of(&schedule).unwrap_err();
            assert_eq!(error.kind(), towpath_core::ErrorKind::Config);
            assert!(error.to_string().starts_with(place) && error.to_string().contains(says), "{error}");
            assert!(error.what_to_do().is_some(), "{error}");
        };
        let cron = |text: &str| Schedule { cron: Some(text.into()), ..schedule() };
        check(schedule(), "schedule: ", "neither how often nor when");
        check(Schedule { every: Some(Period::seconds(0)), ..schedule() }, "schedule.every: ", "no interval");
        check(
            Schedule { every: Some(Period::seconds(u64::MAX / 1000)), ..schedule() },
            "schedule.every: ",
            "no interval",
        );
        check(cron("61 * * * *"), "schedule.cron: ", "no cron expression");
        check(cron("0 0 30 2 *"), "schedule.cron: ", "never comes");
        check(
            Schedule { time_zone: Some("Europe/Berln".into()), ..cron("0 6 * * *") },
            "schedule.time_zone: ",
            "Berln",
        );
    }

    proptest! {
        /// Whatever the clock shows: the next start is ahead, not too far, and an interval's starts stay on their grid.
        #[test]
        fn the_next_start_is_ahead(last in 0i64..4_000_000_000, now in 0i64..4_000_000_000, seconds in 1u64..2_000_000) {
            let (last, now) = (Timestamp::from_second(last).unwrap(), Timestamp::from_second(now).unwrap());
            let table = every(&format!("{seconds}s"));
            let next = table.next(last, now).unwrap();
            prop_assert!(next > now);
            let seconds = seconds as i64;
            prop_assert!(next.as_second() - now.as_second() <= 2 * seconds);
            if last <= now {
                prop_assert!(next.as_second() - now.as_second() <= seconds);
                prop_assert_eq!((next.as_second() - last.as_second()) % seconds, 0);
            }
            let first = table.first(Some(last), now).unwrap();
            prop_assert!(first >= now && first.as_second() - now.as_second() <= 2 * seconds);
            for text in ["*/7 * * * *", "30 2 * * *"] {
                prop_assert!(cron(text, "Europe/Berlin").next(last, now).unwrap() > now);
            }
        }
    }
}
