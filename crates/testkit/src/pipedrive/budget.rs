//! Tokens of the day and calls of the moment.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use super::{Kind, PipedriveOptions};

/// The window of the burst limits.
pub(super) const WINDOW: Duration = Duration::from_secs(2);
/// Searches in a window, whatever the plan.
const SEARCHES: usize = 10;
/// 429s so near to each other count as going on.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long who went on is kept out.
const BLOCK: Duration = Duration::from_secs(60);

const DAY: i64 = 86_400;

/// Why a call is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Burst,
    /// With the seconds until the day ends.
    Daily(i64),
    /// Went on after too many 429s.
    Blocked,
}

/// Who calls.
#[derive(Debug)]
pub(super) struct Caller {
    pub token: String,
    /// With an access token of OAuth: has a larger window, and is not kept out for going on.
    pub oauth: bool,
    /// Calls in a window.
    pub burst: usize,
}

#[derive(Debug, Default)]
struct Usage {
    calls: VecDeque<Duration>,
    searches: VecDeque<Duration>,
    refused: u32,
    last_refused: Option<Duration>,
    blocked_until: Option<Duration>,
}

/// What a company and each of its tokens have used.
#[derive(Debug)]
pub(super) struct Budget {
    limit: u64,
    used: u64,
    day: i64,
    reset_hour: i8,
    abuse_after: u32,
    usages: HashMap<String, Usage>,
}

/// What the headers tell.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    pub burst_limit: usize,
    pub burst_left: usize,
    pub reset: u64,
    pub tokens: u64,
    pub limit: u64,
}

fn forget(calls: &mut VecDeque<Duration>, now: Duration) {
    while calls.front().is_some_and(|at| now.saturating_sub(*at) >= WINDOW) {
        calls.pop_front();
    }
}

impl Budget {
    pub fn new(options: &PipedriveOptions) -> Self {
        let limit = 30_000 * options.plan.factor() * options.seats + options.top_up;
        let abuse_after = options.unsettled.abuse_after;
        Self { limit, used: 0, day: 0, reset_hour: options.reset_hour, abuse_after, usages: HashMap::new() }
    }

    fn turn(&mut self, seconds: i64) {
        let day = (seconds - i64::from(self.reset_hour) * 3600).div_euclid(DAY);
        if day != self.day {
            (self.day, self.used) = (day, 0);
        }
    }

    /// Seconds until the day ends.
    fn rest(&self, seconds: i64) -> i64 {
        (self.day + 1) * DAY + i64::from(self.reset_hour) * 3600 - seconds
    }

    /// Lets a call in, or not. `seconds` since 1970, `now` since the start.
    pub fn enter(&mut self, caller: &Caller, kind: Kind, cost: u64, seconds: i64, now: Duration) -> Result<(), Stop> {
        self.turn(seconds);
        let rest = self.rest(seconds);
        let exhausted = self.used + cost > self.limit;
        let usage = self.usages.entry(caller.token.clone()).or_default();
        if usage.blocked_until.is_some_and(|until| now < until) {
            return Err(Stop::Blocked);
        }
        forget(&mut usage.calls, now);
        forget(&mut usage.searches, now);
        let many = usage.calls.len() >= caller.burst || (kind == Kind::Search && usage.searches.len() >= SEARCHES);
        if !many && !exhausted {
            usage.calls.push_back(now);
            if kind == Kind::Search {
                usage.searches.push_back(now);
            }
            return Ok(());
        }
        let goes_on = usage.last_refused.is_some_and(|last| now.saturating_sub(last) < PATIENCE);
        usage.refused = if goes_on { usage.refused + 1 } else { 1 };
        usage.last_refused = Some(now);
        if !caller.oauth && usage.refused > self.abuse_after {
            usage.blocked_until = Some(now + BLOCK);
            usage.refused = 0;
            return Err(Stop::Blocked);
        }
        Err(if many { Stop::Burst } else { Stop::Daily(rest) })
    }

    pub fn pay(&mut self, tokens: u64) {
        self.used += tokens;
    }

    /// What is left of the day.
    pub fn left(&mut self, seconds: i64) -> u64 {
        self.turn(seconds);
        self.limit.saturating_sub(self.used)
    }

    /// Seconds until the day ends.
    pub fn day_ends_in(&mut self, seconds: i64) -> i64 {
        self.turn(seconds);
        self.rest(seconds)
    }

    /// The day's tokens.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Uses up tokens, as the company's other tools do.
    pub fn spend(&mut self, tokens: u64, seconds: i64) {
        self.turn(seconds);
        self.used = (self.used + tokens).min(self.limit);
    }

    /// What the headers tell this caller.
    pub fn tell(&mut self, caller: &Caller, kind: Kind, seconds: i64, now: Duration) -> Left {
        let tokens = self.left(seconds);
        let limit = self.limit;
        let usage = self.usages.entry(caller.token.clone()).or_default();
        let (calls, most) =
            if kind == Kind::Search { (&mut usage.searches, SEARCHES) } else { (&mut usage.calls, caller.burst) };
        forget(calls, now);
        // A rolling window: it is at its end for the oldest call of it.
        let reset = calls.front().map_or(WINDOW, |oldest| (*oldest + WINDOW).saturating_sub(now));
        let reset = reset.as_millis().div_ceil(1000).max(1);
        Left {
            burst_limit: most,
            burst_left: most.saturating_sub(calls.len()),
            reset: u64::try_from(reset).unwrap_or(2),
            tokens,
            limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget() -> Budget {
        Budget::new(&PipedriveOptions::default())
    }

    fn caller(token: &str) -> Caller {
        Caller { token: token.to_owned(), oauth: false, burst: 20 }
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_window_rolls() {
        let mut budget = budget();
        let mut enter = |millis, kind| budget.enter(&caller("t"), kind, 1, 0, at(millis));
        for call in 0..20 {
            assert_eq!(enter(call * 50, Kind::Get), Ok(()));
        }
        assert_eq!(enter(1999, Kind::Get), Err(Stop::Burst));
        assert_eq!(enter(2000, Kind::Get), Ok(()), "the first call has left the window");
        assert_eq!(enter(2001, Kind::Get), Err(Stop::Burst));
        for call in 0..10 {
            assert_eq!(enter(10_000 + call, Kind::Search), Ok(()));
        }
        assert_eq!(enter(10_020, Kind::Search), Err(Stop::Burst), "searches have a limit of their own");
        assert_eq!(enter(10_021, Kind::Get), Ok(()));
    }

    #[test]
    fn a_day_ends_at_the_vendors_hour() {
        let mut budget = Budget::new(&PipedriveOptions { reset_hour: 3, ..PipedriveOptions::default() });
        let day = 20_000 * DAY;
        let before = day + 2 * 3600 + 3599;
        assert_eq!(budget.enter(&caller("t"), Kind::List, 10, before, at(0)), Ok(()));
        budget.pay(29_995);
        assert_eq!(budget.enter(&caller("t"), Kind::List, 10, before, at(1)), Err(Stop::Daily(1)));
        assert_eq!(budget.enter(&caller("t"), Kind::Update, 5, before, at(2)), Ok(()), "five tokens are left");
        assert_eq!(budget.enter(&caller("t"), Kind::List, 10, before + 1, at(3)), Ok(()));
        assert_eq!(budget.left(before + 1), 30_000);
    }

    #[test]
    fn who_goes_on_after_refusals_is_kept_out() {
        let mut budget = budget();
        budget.spend(30_000, 0);
        let app = Caller { oauth: true, ..caller("app") };
        for call in 0..40 {
            assert_eq!(budget.enter(&app, Kind::Get, 1, 0, at(call)), Err(Stop::Daily(DAY)), "apps are only refused");
        }
        for call in 0..20 {
            assert_eq!(budget.enter(&caller("t"), Kind::Get, 1, 0, at(call)), Err(Stop::Daily(DAY)));
        }
        assert_eq!(budget.enter(&caller("t"), Kind::Get, 1, 0, at(30)), Err(Stop::Blocked));
        assert_eq!(budget.enter(&caller("t"), Kind::Get, 1, DAY, at(59_000)), Err(Stop::Blocked));
        assert_eq!(budget.enter(&caller("other"), Kind::Get, 1, DAY, at(59_000)), Ok(()));
        assert_eq!(budget.enter(&caller("t"), Kind::Get, 1, DAY, at(60_030)), Ok(()));
    }
}
