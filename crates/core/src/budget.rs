//! Budgets: a vendor that counts calls, in a short window and by the day.
//!
//! The connector says what a call costs ([`Call::price`](crate::Call::price)) and what the vendor's answers say ([`Context::told`](crate::Context::told));
//! the engine keeps the ledger, in the state store and so for all processes of one state directory, paces calls ahead of the window,
//! and stops at the day's share before anything is refused. A ledger is never the vendor's: where the two differ, the one that leaves less
//! is believed.

use std::{sync::Arc, time::Duration};

use jiff::{Timestamp, Zoned, civil::Time, tz::TimeZone};

use crate::{
    error::{Error, Result},
    units::Share,
};

/// What a vendor lets one account spend.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    /// Whose ledger it is, and what it is called in messages; no secret: `pipedrive https://acme.pipedrive.com`. Everybody who spends
    /// from the same account must use the same text.
    pub account: String,
    /// How many requests fit into a short window.
    pub burst: Option<Burst>,
    /// How many tokens fit into a day.
    pub day: Option<Day>,
}

/// A rolling window: in any stretch of time as long as `window`, at most `requests` arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Burst {
    /// So many.
    pub requests: u32,
    /// In so long.
    pub window: Duration,
}

/// What a whole company may spend in a day, and our part of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Day {
    /// The company's tokens in a day.
    pub tokens: u64,
    /// How much of them is ours at the most; what others are known to have spent counts as well.
    pub share: Share,
    /// When the day is over.
    pub resets: Resets,
}

/// When a day begins anew: a time of day in a time zone.
#[derive(Clone, Debug, PartialEq)]
pub struct Resets {
    /// The time of day.
    pub at: Time,
    /// The zone.
    pub zone: TimeZone,
}

/// What one try of a call costs. Spent before the try is sent: what a crash leaves unsure counts as spent.
#[derive(Clone, Debug)]
pub struct Price {
    /// Paid from here.
    pub budget: Arc<Budget>,
    /// Tokens of the day. In the burst window a try is one request, whatever it costs.
    pub tokens: u32,
}

/// What the headers of an answer said of the budget. Say what is known, leave the rest out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Requests left in the burst window.
    pub window_left: Option<u32>,
    /// How long until the window is whole again.
    pub window_resets: Option<Duration>,
    /// Tokens left of the company's day.
    pub day_left: Option<u64>,
    /// The day is over, for so long: nobody sends anything until then.
    pub day_over: Option<Duration>,
}

/// Where a budget stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct BudgetState {
    /// Tokens that we have spent in this day.
    pub spent_today: u64,
    /// Tokens that we may still spend in it; `None` without a limit by the day.
    pub left_today: Option<u64>,
    /// Until the day is over; `None` without a limit by the day.
    pub resets_in: Option<Duration>,
}

impl Day {
    /// Our part of a whole day, in tokens, rounded down.
    pub fn ours(&self) -> u64 {
        ((self.tokens as f64) * self.share.0).floor() as u64
    }
}

impl Resets {
    /// At the beginning of an hour (0 to 23) in a time zone by its IANA name, such as `UTC` or `Europe/Tallinn`.
    ///
    /// # Errors
    /// Config, if there is no such hour or zone.
    pub fn at_hour(hour: i8, zone: &str) -> Result<Self> {
        let at = Time::new(hour, 0, 0, 0)
            .map_err(|_| Error::config(format!("{hour} is not an hour of the day")).hint("write one from 0 to 23"))?;
        let zone = TimeZone::get(zone).map_err(|_| {
            Error::config(format!("'{zone}' is not a time zone")).hint("write a name such as UTC or Europe/Berlin")
        })?;
        Ok(Self { at, zone })
    }
    /// The day that `now` lies in: from its beginning to the next one.
    ///
    /// # Errors
    /// Internal, if that lies beyond what a calendar can hold.
    pub fn day_of(&self, now: Timestamp) -> Result<(Timestamp, Timestamp)> {
        let beyond = |error: jiff::Error| Error::internal("the day cannot be reckoned").because(error);
        let local = now.to_zoned(self.zone.clone());
        let on = |date: jiff::civil::Date| -> Result<Zoned> {
            // A time that a change of clocks leaves out is the one behind the gap.
            date.to_datetime(self.at).to_zoned(self.zone.clone()).map_err(beyond)
        };
        let today = on(local.date())?;
        let (begin, end) = if today.timestamp() <= now {
            let tomorrow = on(local.date().tomorrow().map_err(beyond)?)?;
            (today, tomorrow)
        } else {
            (on(local.date().yesterday().map_err(beyond)?)?, today)
        };
        Ok((begin.timestamp(), end.timestamp()))
    }
}

/// The books of all budgets; the engine keeps them, [`Context::bare`](crate::Context::bare) keeps none.
pub trait Ledger: Send + Sync {
    /// Hears what an answer said.
    fn told(&self, budget: &Budget, told: Told) -> Result<()>;
    /// Where a budget stands.
    fn state(&self, budget: &Budget) -> Result<BudgetState>;
}

/// Books that are not kept: nothing is ever spent.
pub(crate) struct NoBooks;

impl Ledger for NoBooks {
    fn told(&self, _: &Budget, _: Told) -> Result<()> {
        Ok(())
    }
    fn state(&self, budget: &Budget) -> Result<BudgetState> {
        let Some(day) = &budget.day else { return Ok(BudgetState::default()) };
        let now = Timestamp::now();
        let (_, end) = day.resets.day_of(now)?;
        let resets_in = Duration::try_from(end - now).ok();
        Ok(BudgetState { spent_today: 0, left_today: Some(day.ours()), resets_in })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_goes_from_reset_to_reset() {
        for (hour, zone, now, begin, end) in [
            (0, "UTC", "2026-11-21T17:00:00Z", "2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z"),
            (0, "UTC", "2026-11-21T00:00:00Z", "2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z"),
            (9, "Europe/Tallinn", "2026-11-21T06:59:59Z", "2026-11-20T07:00:00Z", "2026-11-21T07:00:00Z"),
            // The night in which the clocks are set back has 25 hours.
            (0, "Europe/Berlin", "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"),
            // 02:00 does not exist in the night in which they are set forward.
            (2, "Europe/Berlin", "2026-03-29T00:30:00Z", "2026-03-28T01:00:00Z", "2026-03-29T01:00:00Z"),
        ] {
            let resets = Resets::at_hour(hour, zone).unwrap();
            let day = resets.day_of(now.parse().unwrap()).unwrap();
            assert_eq!(day, (begin.parse().unwrap(), end.parse().unwrap()), "{hour} {zone} {now}");
        }
        assert!(Resets::at_hour(24, "UTC").is_err());
        assert_eq!(Resets::at_hour(0, "Mars").unwrap_err().to_string(), "'Mars' is not a time zone");
    }
}
