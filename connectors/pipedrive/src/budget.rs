//! What calls cost, and what a plan of the vendor's lets a company spend. Facts: the vendor's page on rate limiting.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use towpath_core::{Budget, Burst, Day, Resets, Result};

use crate::config::{BudgetOptions, Plan};

/// A page of a list, whatever its size; of definitions as well.
pub const LIST: u32 = 10;
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
    /// Requests in a window, with an API token.
    fn burst(self) -> u32 {
        match self {
            Self::Lite => 20,
            Self::Growth => 40,
            Self::Premium => 100,
            Self::Ultimate => 120,
        }
    }
}

/// The budget of an account: as the config says, and where that leaves it open, as the answers say.
#[derive(Debug)]
pub struct Purse {
    current: Mutex<Arc<Budget>>,
    /// The config does not say which plan it is.
    learns: bool,
}

impl Purse {
    /// The budget of `account`.
    ///
    /// # Errors
    /// Config: an hour or a time zone that there is not.
    pub fn new(account: String, options: &BudgetOptions) -> Result<Self> {
        let resets = Resets::at_hour(options.resets_at, &options.time_zone).map_err(|error| error.at("budget"))?;
        let day = options.plan.map(|plan| Day {
            tokens: SEAT * plan.factor() * u64::from(options.seats.get()),
            share: options.share,
            resets,
        });
        // Who does not say is taken for the smallest, until an answer says more.
        let burst = Burst { requests: options.plan.unwrap_or(Plan::Lite).burst(), window: WINDOW };
        let budget = Budget { account, burst: Some(burst), day };
        Ok(Self { current: Mutex::new(Arc::new(budget)), learns: options.plan.is_none() })
    }
    /// The budget as it is known now.
    pub fn budget(&self) -> Arc<Budget> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
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
    fn plans_have_budgets() {
        let purse = |text: &str| Purse::new("x".to_owned(), &serde_saphyr::from_str(text).unwrap()).unwrap();
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
