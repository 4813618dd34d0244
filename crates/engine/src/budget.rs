//! The books of budgets: what vendors let an account spend, in a short window and by the day.
//!
//! Scope: the account, shared by all pipelines and processes of one state directory. Each try of a priced call is entered **before** it
//! is sent; what a crash leaves unsure counts as spent.
//!
//! **The window.** The server counts arrivals, and what we know of an arrival is that it lies between sending and answer. A request
//! that took longer than the fastest ones has arrived late by no more than that *excess*; so it counts from its sending plus its excess
//! on, for the length of the window and a margin, and one that has no answer yet counts until it has one. The next request
//! is sent when fewer than the window's number count. Were delays exactly what they are taken for, no stretch of the server's time
//! could hold more arrivals than it lets in; and with an even delay nearly all of the allowance is used.
//!
//! **The day.** Tokens spent since the last reset, ours and what the vendor's headers say that others have spent. A day that the vendor
//! says is over is over for all processes.
//!
//! Entries go through a connection of its own that leaves syncing to the system: a killed process loses nothing, a power cut at most
//! the last moments, and 60 calls a second cost next to nothing.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use towpath_core::{
    Budget, BudgetState, Burst, Error, ErrorKind, Result, Retry, Told,
    budget::{Day, Ledger},
};

use crate::state::{
    Fault, StateStore,
    clock::{Moment, human},
};

/// The vendor's word that a day is over is believed for so long at the most.
const LONGEST_DAY: Duration = Duration::from_secs(24 * 3600);

/// Beyond the window, for delays that the excess does not show: a fiftieth.
fn margin(burst: &Burst) -> i64 {
    ms(burst.window) / 50 + 1
}

/// What came of asking for a request.
#[derive(Debug)]
pub enum Purse {
    /// Go: it is entered.
    Paid(Entry),
    /// Not yet; ask again then.
    Wait {
        /// How long, as far as is known.
        wait: Duration,
        /// Requests whose answers are not there yet are what it waits for: the end of one may come sooner.
        answer: bool,
    },
}

/// A request that was entered.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// `None`: there is no window to keep.
    id: Option<i64>,
    sent: i64,
}

/// The figures of an account's day.
#[derive(Clone, Debug, Default)]
struct Figures {
    /// When the day that they are of ends.
    ends: Option<Timestamp>,
    spent: u64,
    others: u64,
    over_until: Option<Timestamp>,
}

impl Figures {
    /// What is left for us.
    fn left(&self, day: &Day) -> u64 {
        let ours = day.ours().saturating_sub(self.spent);
        ours.min(day.tokens.saturating_sub(self.spent).saturating_sub(self.others))
    }
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to - from).unwrap_or_default()
}

impl StateStore {
    /// Asks for one request of `tokens`, and enters it if it may be sent now. `deadline`: without an answer it counts as on its way
    /// so long.
    ///
    /// # Errors
    /// RateLimited with the time until the reset, if the day does not have so many tokens left for us: nothing is to be sent.
    pub fn pay(&self, budget: &Budget, tokens: u32, deadline: Duration) -> Result<Purse> {
        self.quick(|db| {
            let (now, wall) = (self.clock().now(), self.clock().wall());
            let figures = figures(db, budget, wall)?;
            if let Some(until) = figures.over_until.filter(|until| *until > wall) {
                return Err(over(budget, between(wall, until)).into());
            }
            if let Some(day) = &budget.day
                && u64::from(tokens) > figures.left(day)
            {
                return Err(spent(budget, day, &figures, tokens, wall).into());
            }
            let mut entry = Entry { id: None, sent: now.ms };
            if let Some(burst) = &budget.burst {
                if let Some(wait) = wait_for_window(db, budget, burst, &now)? {
                    return Ok(wait);
                }
                db.prepare_cached("INSERT INTO budget_requests (account, boot, sent, until) VALUES (?1, ?2, ?3, ?4)")?
                    .execute(params![budget.account, &*now.boot, now.ms, now.ms.saturating_add(ms(deadline))])?;
                entry.id = Some(db.last_insert_rowid());
            }
            if tokens > 0 {
                db.prepare_cached("UPDATE budgets SET spent = spent + ?2 WHERE account = ?1")?
                    .execute(params![budget.account, tokens])?;
            }
            Ok(Purse::Paid(entry))
        })
    }

    /// The answer is there (or it is certain that none comes): from now on the window's end is known. `clean`: it is an answer, whose
    /// time says something of the way.
    pub fn answered(&self, budget: &Budget, entry: Entry, clean: bool) -> Result<()> {
        let Some(id) = entry.id else { return Ok(()) };
        let now = self.clock().now();
        // Sending and answer were each seen up to a millisecond late or early.
        let took = (now.ms - entry.sent).max(0) + 1;
        let excess = if clean { self.local_budget(&budget.account).excess(took) } else { took };
        self.quick(|db| {
            db.prepare_cached("UPDATE budget_requests SET counts = ?2 WHERE id = ?1")?
                .execute(params![id, entry.sent + 1 + excess])?;
            Ok(())
        })?;
        self.freed().notify_waiters();
        Ok(())
    }

    /// It never went over the wire: as if nothing had been asked.
    pub fn unsent(&self, budget: &Budget, tokens: u32, entry: Entry) -> Result<()> {
        self.quick(|db| {
            if let Some(id) = entry.id {
                db.prepare_cached("DELETE FROM budget_requests WHERE id = ?1")?.execute([id])?;
            }
            // The day may have ended meanwhile.
            db.prepare_cached("UPDATE budgets SET spent = max(0, spent - ?2) WHERE account = ?1")?
                .execute(params![budget.account, tokens])?;
            Ok(())
        })?;
        self.freed().notify_waiters();
        Ok(())
    }

    /// The error of a day that the vendor says is over, if it is.
    pub(crate) fn day_over(&self, budget: &Budget) -> Result<Option<Error>> {
        let wall = self.clock().wall();
        let figures = self.quick_read(|db| read_figures(db, &budget.account))?;
        let until = figures.and_then(|figures| figures.over_until).filter(|until| *until > wall);
        Ok(until.map(|until| over(budget, between(wall, until))))
    }

    /// Forgets what was spent (`None`: of all accounts). Returns how many accounts it was.
    pub fn reset_budget(&self, account: Option<&str>) -> Result<usize> {
        let count = self.write(|db| {
            db.execute("DELETE FROM budget_requests WHERE ?1 IS NULL OR account = ?1", [account])?;
            Ok(db.execute("DELETE FROM budgets WHERE ?1 IS NULL OR account = ?1", [account])?)
        })?;
        self.freed().notify_waiters();
        Ok(count)
    }
}

impl Ledger for StateStore {
    fn told(&self, budget: &Budget, told: Told) -> Result<()> {
        if let Some(over) = told.day_over {
            self.day_is_over(budget, over.min(LONGEST_DAY))?;
        }
        if let (Some(left), Some(day)) = (told.day_left, &budget.day) {
            self.others_spent(budget, day, left)?;
        }
        match (told.window_left, &budget.burst) {
            (Some(left), Some(burst)) => self.others_request(budget, burst, left),
            _ => Ok(()),
        }
    }

    fn state(&self, budget: &Budget) -> Result<BudgetState> {
        let wall = self.clock().wall();
        let figures = self.quick(|db| figures(db, budget, wall))?;
        let over = figures.over_until.filter(|until| *until > wall).map(|until| between(wall, until));
        let resets_in = figures.ends.filter(|_| budget.day.is_some()).map(|ends| between(wall, ends));
        let left = budget.day.as_ref().map(|day| figures.left(day));
        Ok(BudgetState {
            spent_today: figures.spent,
            left_today: if over.is_some() { Some(0) } else { left },
            resets_in: over.or(resets_in),
        })
    }
}

impl StateStore {
    fn day_is_over(&self, budget: &Budget, over: Duration) -> Result<()> {
        self.write(|db| {
            let wall = self.clock().wall();
            let known = figures(db, budget, wall)?.over_until;
            let until = wall.checked_add(over).unwrap_or(wall);
            if known.is_none_or(|known| known < until) {
                db.execute(
                    "UPDATE budgets SET over_until = ?2 WHERE account = ?1",
                    params![budget.account, text(until)],
                )?;
            }
            Ok(())
        })
    }

    /// What of the company's day is neither left nor ours, others have spent.
    fn others_spent(&self, budget: &Budget, day: &Day, left: u64) -> Result<()> {
        let wall = self.clock().wall();
        let others = |figures: &Figures| day.tokens.saturating_sub(left).saturating_sub(figures.spent);
        // Answers come in any order, and what is on its way is ours already: a little less than before says nothing. Much less does:
        // such as the first answers behind the reset.
        let slack = day.tokens / 100;
        let differs = |figures: &Figures, others: u64| others > figures.others || others + slack < figures.others;
        let seen = self.quick_read(|db| read_figures(db, &budget.account))?;
        if let Some(seen) = seen
            && seen.ends.is_some_and(|ends| ends > wall)
            && !differs(&seen, others(&seen))
        {
            return Ok(());
        }
        self.quick(|db| {
            let figures = figures(db, budget, wall)?;
            let others = others(&figures);
            if differs(&figures, others) {
                db.prepare_cached("UPDATE budgets SET others = ?2 WHERE account = ?1")?
                    .execute(params![budget.account, i64::try_from(others).unwrap_or(i64::MAX)])?;
            }
            Ok(())
        })
    }

    /// Requests that the server has counted in the window and we have not are others'. It is as if they had been made just now.
    fn others_request(&self, budget: &Budget, burst: &Burst, left: u32) -> Result<()> {
        // A header is a little older than we are, and some servers round.
        let slack = (burst.requests / 10).max(2);
        let counted = burst.requests.saturating_sub(left);
        if counted <= slack {
            return Ok(());
        }
        let now = self.clock().now();
        let since = now.ms - ms(burst.window) - margin(burst);
        let ours = |db: &Connection| {
            db.prepare_cached(
                "SELECT count(*) FROM budget_requests WHERE account = ?1 AND boot = ?2 AND coalesce(counts, until) > ?3",
            )?
            .query_row(params![budget.account, &*now.boot, since], |row| row.get::<_, u32>(0))
        };
        if counted <= self.quick_read(ours)? + slack {
            return Ok(());
        }
        self.quick(|db| {
            for _ in ours(db)?..counted {
                db.prepare_cached(
                    "INSERT INTO budget_requests (account, boot, sent, until, counts) VALUES (?1, ?2, ?3, ?3, ?3)",
                )?
                .execute(params![budget.account, &*now.boot, now.ms])?;
            }
            Ok(())
        })
    }
}

/// How long to wait until the window has room; `None`: it has.
fn wait_for_window(
    db: &Connection,
    budget: &Budget,
    burst: &Burst,
    now: &Moment,
) -> std::result::Result<Option<Purse>, Fault> {
    let length = ms(burst.window) + margin(burst);
    // A reboot takes longer than any window.
    db.prepare_cached(
        "DELETE FROM budget_requests WHERE account = ?1 AND (boot <> ?2 OR coalesce(counts, until) <= ?3)",
    )?
    .execute(params![budget.account, &*now.boot, now.ms - length])?;
    let most = i64::from(burst.requests.max(1));
    let count: i64 = db
        .prepare_cached("SELECT count(*) FROM budget_requests WHERE account = ?1")?
        .query_row([&budget.account], |row| row.get(0))?;
    if count < most {
        return Ok(None);
    }
    // When so many have gone that there is room: those without an answer go last.
    let (at, answer): (i64, bool) = db
        .prepare_cached(
            "SELECT coalesce(counts, until), counts IS NULL FROM budget_requests WHERE account = ?1
             ORDER BY counts IS NULL, coalesce(counts, until) LIMIT 1 OFFSET ?2",
        )?
        .query_row(params![budget.account, count - most], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let wait = u64::try_from(at + length - now.ms).unwrap_or(0).max(1);
    Ok(Some(Purse::Wait { wait: Duration::from_millis(wait), answer }))
}

fn text(at: Timestamp) -> String {
    at.to_string()
}

fn read_figures(db: &Connection, account: &str) -> rusqlite::Result<Option<Figures>> {
    let time = |text: Option<String>| text.and_then(|text| text.parse().ok());
    db.prepare_cached("SELECT ends, spent, others, over_until FROM budgets WHERE account = ?1")?
        .query_row([account], |row| {
            let (spent, others): (i64, i64) = (row.get(1)?, row.get(2)?);
            Ok(Figures {
                ends: time(row.get(0)?),
                spent: spent.unsigned_abs(),
                others: others.unsigned_abs(),
                over_until: time(row.get(3)?),
            })
        })
        .optional()
}

/// The figures of today: where a day has ended, they begin anew.
fn figures(db: &Connection, budget: &Budget, wall: Timestamp) -> std::result::Result<Figures, Fault> {
    let found = read_figures(db, &budget.account)?;
    // Beyond any day: somebody set the clock back.
    let sane = |ends: &Timestamp| *ends > wall && between(wall, *ends) <= LONGEST_DAY + Duration::from_secs(2 * 3600);
    let (known, figures) = (found.is_some(), found.unwrap_or_default());
    let current = budget.day.is_none() || figures.ends.as_ref().is_some_and(sane);
    if known && current {
        return Ok(figures);
    }
    let ends = match &budget.day {
        Some(day) => Some(day.resets.day_of(wall)?.1),
        None => None,
    };
    let figures = Figures { ends, spent: 0, others: 0, over_until: figures.over_until.filter(|until| *until > wall) };
    db.prepare_cached("REPLACE INTO budgets (account, ends, spent, others, over_until) VALUES (?1, ?2, 0, 0, ?3)")?
        .execute(params![budget.account, figures.ends.map(text), figures.over_until.map(text)])?;
    Ok(figures)
}

/// How messages begin that say that a day's budget is spent.
const SPENT: &str = "the day's budget of ";

fn limited(what: String, wait: Duration) -> Error {
    Error::new(ErrorKind::RateLimited, what).retry(Retry::After(wait))
}

fn spent(budget: &Budget, day: &Day, figures: &Figures, tokens: u32, wall: Timestamp) -> Error {
    let wait = figures.ends.map_or(LONGEST_DAY, |ends| between(wall, ends));
    let (ours, all, share) = (day.ours(), day.tokens, day.share);
    let others = match figures.others {
        0 => String::new(),
        others => format!(", and others have spent {others}"),
    };
    limited(
        format!(
            "{SPENT}{} is spent: {} of our {ours} tokens ({share} of {all}){others}; the next call costs {tokens}, and the day begins anew in {}",
            budget.account,
            figures.spent,
            human(ms(wait))
        ),
        wait,
    )
    .hint("the next run after that takes this one up where it stopped; a larger `share`, plan or number of seats lets it do more in a day")
}

fn over(budget: &Budget, wait: Duration) -> Error {
    limited(
        format!("{SPENT}{} is spent, as the server said; it begins anew in {}", budget.account, human(ms(wait))),
        wait,
    )
    .hint("the next run after that takes this one up where it stopped; `towpath state reset budget` lets it ask sooner")
}

/// Whether an error is the one that ends a run for today.
pub(crate) fn is_spent(error: &Error) -> bool {
    error.kind() == ErrorKind::RateLimited && error.message().starts_with(SPENT)
}

/// What one process knows of an account beside the store.
#[derive(Debug, Default)]
pub(crate) struct Local {
    /// Those who wait for the window do so one behind the other, or all would ask whenever one may go.
    pub(crate) turn: tokio::sync::Mutex<()>,
    fastest: std::sync::Mutex<Option<f64>>,
}

impl Local {
    /// How much longer than the fastest an answer took that took so long.
    fn excess(&self, took: i64) -> i64 {
        /// A way that has become longer for good is learnt in so many answers.
        const LEARN: f64 = 1024.0;
        let mut fastest = self.fastest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let took = took as f64;
        let Some(known) = *fastest else {
            // Nothing to compare with: it may have arrived at the very end.
            *fastest = Some(took);
            return took as i64;
        };
        *fastest = Some(if took < known { took } else { known + (took - known) / LEARN });
        (took - known).max(0.0).ceil() as i64
    }
}
