//! What calls cost, and what a plan of the vendor's lets a company spend. Facts: the vendor's page on rate limiting.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use towpath_core::{Budget, Burst, Day, Resets, Result};

use crate::config::{BudgetOptions, Plan};

/// A page of a list, whatever its size; of definitions as well.
pub const LIST: u32 = 10;
/// A page of records that were archived.
const ARCHIVED: u32 = 20;
/// A page of pipelines or stages.
const STAGES: u32 = 5;
/// Making or changing a record.
pub const WRITE: u32 = 5;
/// Deleting one.
pub const DELETE: u32 = 3;
/// The users, which only the API v1 has: twice a list of the API v2.
pub const USERS: u32 = 20;

/// A seat's tokens in a day, on the smallest plan.
const SEAT: u64 = 30_000;
/// How long the vendor's window is.
const WINDOW: Duration = Duration::from_secs(2);

/// A page of the list with this path.
pub fn page(path: &str) -> u32 {
    match path {
        "pipelines" | "stages" => STAGES,
        path if path.ends_with("/archived") => ARCHIVED,
        _ => LIST,
    }
}

/// How calls are let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignIn {
    /// By a user's API token.
    ApiToken,
    /// By an app's access token.
    OAuth,
}

impl Plan {
    /// How much larger the day is than on the smallest plan.
    fn factor(self) -> u64 {
        match self {
            Self::Lite => 1,
            Self::Growth => 2,
            Self::Premium => 5,
            Self::Ultimate => 7,
        }
    }
    /// Requests in a window: with an API token, and four times as many for an app of OAuth.
    fn burst(self, by: SignIn) -> u32 {
        let requests = match self {
            Self::Lite => 20,
            Self::Growth => 40,
            Self::Premium => 100,
            Self::Ultimate => 120,
        };
        match by {
            SignIn::ApiToken => requests,
            SignIn::OAuth => 4 * requests,
        }
    }
}

/// The budget of an account: as the config says, and where that leaves it open, as the answers say.
#[derive(Debug)]
pub struct Purse {
    current: Mutex<Arc<Budget>>,
    /// The config does not say which plan it is.
    learns: bool,
    unit: Mutex<Unit>,
}

/// What the header `x-daily-requests-left` counts. It was documented before there were tokens, as requests that write; whether it counts
/// tokens now is not. So its fall is held against what was spent, and it is believed once that has told.
#[derive(Clone, Copy, Debug)]
enum Unit {
    /// The first answer's, and what was spent since.
    Unknown { first: Option<u64>, spent: u64 },
    /// It counts tokens, or falls faster because others spend too.
    Tokens,
    /// It counts writes, of five tokens each.
    Writes,
}

/// What has to be spent before the fall of a header says what it counts.
const TELLING: u64 = 50;

impl Purse {
    /// The budget of `account`.
    ///
    /// # Errors
    /// Config: an hour or a time zone that there is not.
    pub fn new(account: String, options: &BudgetOptions, by: SignIn) -> Result<Self> {
        let resets = Resets::at_hour(options.resets_at, &options.time_zone).map_err(|error| error.at("budget"))?;
        let day = options.plan.map(|plan| Day {
            tokens: SEAT * plan.factor() * u64::from(options.seats.get()),
            share: options.share,
            resets,
        });
        // Who does not say is taken for the smallest, until an answer says more.
        let burst = Burst { requests: options.plan.unwrap_or(Plan::Lite).burst(by), window: WINDOW };
        let budget = Budget { account, burst: Some(burst), day };
        Ok(Self {
            current: Mutex::new(Arc::new(budget)),
            learns: options.plan.is_none(),
            unit: Mutex::new(Unit::Unknown { first: None, spent: 0 }),
        })
    }
    /// The budget as it is known now.
    pub fn budget(&self) -> Arc<Budget> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }
    /// Tokens left of the day, from a header of an answer to a call of this price; `None` while it is not known what the header counts.
    pub fn day_left(&self, header: u64, tokens: u32) -> Option<u64> {
        let mut unit = self.unit.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *unit {
            Unit::Tokens => return Some(header),
            Unit::Writes => return Some(header.saturating_mul(u64::from(WRITE))),
            Unit::Unknown { first: first @ None, .. } => {
                *first = Some(header);
                return None;
            }
            Unit::Unknown { first: Some(first), spent } => {
                *spent += u64::from(tokens);
                if *spent < TELLING {
                    return None;
                }
                // Answers overtake each other, so it need not be exact.
                let counts_tokens = first.saturating_sub(header) * 2 > *spent;
                *unit = if counts_tokens { Unit::Tokens } else { Unit::Writes };
            }
        }
        drop(unit);
        self.day_left(header, tokens)
    }
    /// An answer said how many requests fit into the window.
    pub fn learn(&self, requests: u32) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let known = current.burst.map_or(0, |burst| burst.requests);
        // A window smaller than the plan's is believed as well: endpoints such as search have one of their own, and are not used.
        if (self.learns && requests != known) || requests < known {
            let burst = Some(Burst { requests, window: WINDOW });
            *current = Arc::new(Budget { burst, ..(**current).clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fall_of_a_header_says_what_it_counts() {
        let check = |headers: &[u64], expected: &[Option<u64>]| {
            let purse = Purse::new("x".to_owned(), &BudgetOptions::default(), SignIn::ApiToken).unwrap();
            let found: Vec<_> = headers.iter().map(|header| purse.day_left(*header, LIST)).collect();
            assert_eq!(found, expected, "{headers:?}");
        };
        check(&[900, 890, 880, 870, 860, 850, 840], &[None, None, None, None, None, Some(850), Some(840)]);
        check(&[900, 890, 880, 870, 860, 200], &[None, None, None, None, None, Some(200)]);
        check(&[900, 898, 896, 894, 892, 890, 888], &[None, None, None, None, None, Some(4450), Some(4440)]);
        check(&[900; 7], &[None, None, None, None, None, Some(4500), Some(4500)]);
    }

    #[test]
    fn plans_have_budgets() {
        let signed_in =
            |by, text: &str| Purse::new("x".to_owned(), &serde_saphyr::from_str(text).unwrap(), by).unwrap();
        let purse = |text: &str| signed_in(SignIn::ApiToken, text);
        for (text, requests, day) in [
            ("{ plan: lite }", 20, Some(30_000)),
            ("{ plan: growth, seats: 3 }", 40, Some(180_000)),
            ("{ plan: premium, share: 80% }", 100, Some(120_000)),
            ("{ plan: ultimate, seats: 2, share: 50% }", 120, Some(210_000)),
            ("{}", 20, None),
        ] {
            let budget = purse(text).budget();
            let found = (budget.burst.unwrap().requests, budget.day.as_ref().map(Day::ours));
            assert_eq!(found, (requests, day), "{text}");
        }
        let requests = |purse: &Purse| purse.budget().burst.unwrap().requests;
        assert_eq!(requests(&signed_in(SignIn::OAuth, "{ plan: premium }")), 400, "an app has a window of its own");
        let unknown = purse("{}");
        unknown.learn(120);
        assert_eq!(requests(&unknown), 120, "answers say which plan it is");
        let known = purse("{ plan: growth }");
        known.learn(120);
        assert_eq!(requests(&known), 40, "the config has the last word");
        known.learn(20);
        assert_eq!(requests(&known), 20, "but not beyond what the vendor allows");
    }
}
