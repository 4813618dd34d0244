//! The guard: what keeps a server from being asked too much.
//!
//! Scope: the origin (scheme, host, port), shared by all pipelines of one state directory. Each request that the guard
//! lets pass is a *lease*, written to the store **before** the request is sent, with the limits of whoever made it. A
//! lease lives while its request is under way and until the pause that its own limits ask for is over; a new request
//! keeps its own limits and those of every live lease: the strictest win.
//!
//! * `max_concurrent`: requests under way at once.
//! * `min_interval`: from the end of the last request to the beginning of the next.
//! * `busy_share`: after a request that took d, the next begins no sooner than d / share after it began.
//!
//! A pause after a request means that the next one waits for its end: with `min_interval` and no `max_concurrent`, and with a
//! `busy_share` below 100 % whatever `max_concurrent` says, requests go one by one (the share of time that overlapping
//! requests take cannot be known beforehand).
//!
//! A request whose end nobody saw (the process was killed; the answer did not come in time) counts as under way until
//! its deadline: the server may still be rendering. After a reboot nothing is known of how long it took: what was under
//! way is taken to have begun now, what had ended to have ended now, once; so the full pause is waited, never more than
//! one. Two classes: [`Effect::Cheap`] calls are spaced by [`CHEAP_SPACING`] where a pause is in force, in a lane of their own; they
//! neither wait for the others nor make them wait.
//!
//! A server that asks for a pause itself (`Retry-After`) gets it, from all processes and for calls of both classes.
//!
//! Who sets no limit, and asks a server that nobody guards, costs one look-up and writes nothing.
//!
//! [`next_start`] is the arithmetic, pure; [`Gate`] keeps its history in the store.

use std::{collections::BTreeSet, time::Duration};

use rusqlite::{Connection, OptionalExtension, Row, params};
use towpath_core::{Effect, Period, Result, Share, pipeline::Guard};

use crate::state::{
    Fault, StateStore,
    clock::{Moment, human},
};

/// From one cheap call to the next, where a pause is in force at the server.
pub const CHEAP_SPACING: Duration = Duration::from_millis(100);

/// A request that the guard has let pass. Times in milliseconds of one clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Request {
    /// When it was let pass.
    pub started: i64,
    /// Its deadline: until then it counts as under way if nobody sees its end.
    pub until: i64,
    /// When its end was seen.
    pub ended: Option<i64>,
    /// The limits of whoever made it.
    pub limits: Guard,
}

/// Whether a request may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Now.
    Now,
    /// Not before this time: a pause, whatever happens in between.
    At(i64),
    /// When a request that is under way ends (and the pause after it); at the latest then, as far as is known now.
    Busy(i64),
}

impl Request {
    /// Whether it counts as under way.
    fn under_way(&self, at: i64) -> bool {
        self.end() > at
    }
    /// Its end, as far as is known: one that is under way may take until its deadline.
    fn end(&self) -> i64 {
        self.ended.unwrap_or(self.until).max(self.started)
    }
    /// When the pause after it is over, under limits.
    fn pause_end(&self, limits: &Guard) -> i64 {
        let took = self.end() - self.started;
        let interval = limits.min_interval.map_or(0, |interval| millis(interval.0));
        // Rounded up: a share must hold, not nearly hold.
        let share = limits.busy_share.map_or(took, |Share(share)| ((took as f64) / share).ceil() as i64);
        self.end().saturating_add(interval).max(self.started.saturating_add(share))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX / 4)
}

/// Spells out what limits imply: a pause after each request means one by one.
fn spelled_out(limits: Guard) -> Guard {
    let share = limits.busy_share.is_some_and(|Share(share)| share < 1.0);
    let one_by_one = share || (limits.min_interval.is_some() && limits.max_concurrent.is_none());
    Guard { max_concurrent: if one_by_one { Some(1) } else { limits.max_concurrent.map(|n| n.max(1)) }, ..limits }
}

/// The earliest time at which a request under `limits` may begin, given what was let pass before: the arithmetic of the guard.
/// `history` need not hold requests whose pauses are long over.
pub fn next_start(history: &[Request], limits: &Guard, now: i64) -> Decision {
    let own = spelled_out(*limits);
    let mut at = now;
    let mut busy = false;
    loop {
        let live = history.iter().filter(|request| request.pause_end(&spelled_out(request.limits)) > at);
        let limits = live.fold(own, |strictest, request| strictest.strictest(spelled_out(request.limits)));
        let under_way = history.iter().filter(|request| request.under_way(at));
        let full = limits.max_concurrent.is_some_and(|max| under_way.count() >= max as usize);
        // The pause after requests that have ended by then; one still under way stands for itself in `full`.
        let pausing = history.iter().any(|request| !request.under_way(at) && request.pause_end(&limits) > at);
        if !full && !pausing {
            return match (at == now, busy) {
                (true, _) => Decision::Now,
                (false, true) => Decision::Busy(at),
                (false, false) => Decision::At(at),
            };
        }
        // Whether the end of a request under way may bring it forward.
        busy |= full && history.iter().any(|request| request.ended.is_none() && request.under_way(at));
        // Something is different next when a request ends, a pause is over, or a lease dies and takes its limits with it.
        let changes = history.iter().flat_map(|request| {
            [request.end(), request.pause_end(&limits), request.pause_end(&spelled_out(request.limits))]
        });
        match changes.filter(|change| *change > at).min() {
            Some(change) => at = change,
            // Not reached: without a change to come, nothing is under way and no pause is left.
            None => return Decision::Now,
        }
    }
}

/// What a schedule cannot keep under its own guard, in words; `None` if it can, as far as is known. `last` is how long the last request
/// (or run) took.
pub fn schedule_warning(guard: &Guard, every: Duration, last: Option<Duration>) -> Option<String> {
    let every_text = Period(every);
    if let Some(interval) = guard.min_interval.filter(|interval| interval.0 > every) {
        return Some(format!(
            "a run every {every_text} cannot be kept: its guard asks for a min_interval of {interval} between two requests"
        ));
    }
    let took = last?;
    let ms = millis(took);
    let request = Request { started: 0, until: ms, ended: Some(ms), limits: *guard };
    let needed = request.pause_end(guard);
    (needed > millis(every) && needed > ms).then(|| {
        format!(
            "a run every {every_text} cannot be kept: the last one took {}, and with {guard} the next may begin {} after it began",
            human(ms),
            human(needed),
        )
    })
}

/// The guard of one server, for one component's limits.
#[derive(Clone, Debug)]
pub struct Gate {
    store: StateStore,
    origin: String,
    limits: Guard,
}

/// What the gate says.
#[derive(Debug)]
pub enum Passage {
    /// Go. The lease is stored; `None`: nobody guards this server, nothing was stored.
    Pass(Option<LeaseId>),
    /// Not yet; ask again then, or when a request ends. Nothing was stored.
    Wait {
        /// How long, at the least if `busy` is false, at the most if it is true.
        wait: Duration,
        /// A request under way is what it waits for.
        busy: bool,
    },
    /// Go, after this pause; no need to ask again.
    After(Duration),
}

/// Names a stored lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseId(i64);

/// A lease as it is stored.
struct Stored {
    id: i64,
    boot: String,
    request: Request,
}

impl Gate {
    /// The gate of a server. `origin`: `https://reports.example:443`.
    pub fn new(store: StateStore, origin: impl Into<String>, limits: Guard) -> Self {
        Self { store, origin: origin.into(), limits }
    }

    /// The server.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The server asked to be left alone for so long: every process of this machine does.
    pub fn pause(&self, asked: Duration) -> Result<()> {
        self.store.write(|db| {
            let now = self.store.clock().now();
            let until = now.ms.saturating_add(millis(asked));
            db.prepare_cached(
                "INSERT INTO pauses (origin, boot, until) VALUES (?1, ?2, ?3) ON CONFLICT (origin) DO UPDATE
                 SET until = CASE WHEN boot = excluded.boot THEN max(until, excluded.until) ELSE excluded.until END, boot = excluded.boot",
            )?
            .execute(params![self.origin, &*now.boot, until])?;
            Ok(())
        })
    }

    /// For how long the server wants to be left alone. After a reboot nobody knows: it is asked again.
    pub fn paused_for(&self) -> Result<Option<Duration>> {
        let now = self.store.clock().now();
        let until: Option<i64> = self.store.read(|db| {
            db.prepare_cached("SELECT until FROM pauses WHERE origin = ?1 AND boot = ?2 AND until > ?3")?
                .query_row(params![self.origin, &*now.boot, now.ms], |row| row.get(0))
                .optional()
        })?;
        Ok(until.and_then(|until| u64::try_from(until - now.ms).ok()).map(Duration::from_millis))
    }

    /// A request goes on for longer than its deadline, and is watched: it counts as under way for so long from now.
    pub fn renew(&self, LeaseId(id): LeaseId, deadline: Duration) -> Result<()> {
        self.store.write(|db| {
            let now = self.store.clock().now();
            db.prepare_cached(
                "UPDATE leases SET until = max(until, ?3) WHERE id = ?1 AND boot = ?2 AND ended IS NULL",
            )?
            .execute(params![id, &*now.boot, now.ms.saturating_add(millis(deadline))])?;
            Ok(())
        })
    }

    /// Asks to begin a request that will have ended `deadline` from now, or counts as under way until then.
    pub fn ask(&self, effect: Effect, deadline: Duration) -> Result<Passage> {
        let unlimited = self.limits == Guard::default();
        if unlimited && !self.guarded()? {
            return Ok(Passage::Pass(None));
        }
        if effect == Effect::Cheap {
            return self.ask_cheap();
        }
        let clock = self.store.clock();
        // First without the write lock: most questions of one who waits are answered with no.
        let now = clock.now();
        let seen = self.store.read(|db| history(db, &self.origin))?;
        if seen.iter().all(|lease| *lease.boot == *now.boot)
            && let wait @ Passage::Wait { .. } = self.decide(&seen, now.ms)
        {
            return Ok(wait);
        }
        self.store.write(|db| {
            let now = clock.now();
            let history = rebased(db, history(db, &self.origin)?, &now)?;
            let decision = self.decide(&history, now.ms);
            if matches!(decision, Passage::Wait { .. }) {
                return Ok(decision);
            }
            let until = now.ms.saturating_add(millis(deadline));
            let Guard { max_concurrent, min_interval, busy_share } = self.limits;
            db.prepare_cached(
                "INSERT INTO leases (origin, boot, started, until, max_concurrent, min_interval, busy_share)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                self.origin,
                &*now.boot,
                now.ms,
                until,
                max_concurrent,
                min_interval.map(|interval| millis(interval.0)),
                busy_share.map(|Share(share)| share)
            ])?;
            let id = LeaseId(db.last_insert_rowid());
            self.watch(db)?;
            Ok(Passage::Pass(Some(id)))
        })
    }

    /// Tells that a request has ended. One whose end is never told counts as under way until its deadline.
    pub fn ended(&self, LeaseId(id): LeaseId) -> Result<()> {
        self.store.write(|db| {
            let now = self.store.clock().now();
            // A millisecond up: it began at most one later than stored, and must not seem to have ended before it did.
            let done = db
                .prepare_cached("UPDATE leases SET ended = ?3 WHERE id = ?1 AND boot = ?2 AND ended IS NULL")?
                .execute(params![id, &*now.boot, now.ms + 1])?;
            if done > 0 {
                prune(db, &self.origin, &now)?;
            }
            Ok(())
        })?;
        self.store.freed().notify_waiters();
        Ok(())
    }

    /// How long the last request took whose end was seen.
    pub fn last_took(&self) -> Result<Option<Duration>> {
        let ms: Option<i64> = self.store.read(|db| {
            db.prepare_cached(
                "SELECT ended - started FROM leases WHERE origin = ?1 AND ended IS NOT NULL ORDER BY id DESC LIMIT 1",
            )?
            .query_row([&self.origin], |row| row.get(0))
            .optional()
        })?;
        Ok(ms.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis))
    }

    fn decide(&self, history: &[Stored], now: i64) -> Passage {
        let requests: Vec<Request> = history.iter().map(|lease| lease.request).collect();
        let wait = |until: i64| Duration::from_millis(u64::try_from(until - now).unwrap_or(0));
        match next_start(&requests, &self.limits, now) {
            Decision::Now => Passage::Pass(None),
            Decision::At(at) => Passage::Wait { wait: wait(at), busy: false },
            Decision::Busy(at) => Passage::Wait { wait: wait(at), busy: true },
        }
    }

    /// A place in the lane of cheap calls, taken at once: no two get the same.
    fn ask_cheap(&self) -> Result<Passage> {
        let spacing = millis(CHEAP_SPACING);
        self.store.write(|db| {
            let now = self.store.clock().now();
            let history = rebased(db, history(db, &self.origin)?, &now)?;
            let pauses = |limits: &Guard| limits.min_interval.is_some() || limits.busy_share.is_some();
            let live = |lease: &Stored| lease.request.pause_end(&spelled_out(lease.request.limits)) > now.ms;
            let paused = history.iter().any(|lease| live(lease) && pauses(&lease.request.limits));
            if !paused && !pauses(&self.limits) {
                return Ok(Passage::Pass(None));
            }
            self.watch(db)?;
            let last: Option<i64> = db
                .prepare_cached("SELECT cheap FROM guarded WHERE origin = ?1 AND boot = ?2")?
                .query_row(params![self.origin, &*now.boot], |row| row.get(0))
                .optional()?;
            let at = last.map_or(now.ms, |last| last.saturating_add(spacing).max(now.ms));
            db.prepare_cached("UPDATE guarded SET boot = ?2, cheap = ?3 WHERE origin = ?1")?.execute(params![
                self.origin,
                &*now.boot,
                at
            ])?;
            Ok(Passage::After(Duration::from_millis((at - now.ms) as u64)))
        })
    }

    /// Whether anybody has set limits for this server.
    fn guarded(&self) -> Result<bool> {
        self.store.read(|db| db.prepare_cached("SELECT 1 FROM guarded WHERE origin = ?1")?.exists([&self.origin]))
    }

    /// From now on requests to this server are recorded, whoever makes them.
    fn watch(&self, db: &Connection) -> rusqlite::Result<()> {
        // As if the last cheap call were long ago.
        db.prepare_cached("INSERT OR IGNORE INTO guarded (origin, boot, cheap) VALUES (?1, '', 0)")?
            .execute([&self.origin])
            .map(drop)
    }
}

fn history(db: &Connection, origin: &str) -> rusqlite::Result<Vec<Stored>> {
    let read = |row: &Row<'_>| {
        let interval: Option<i64> = row.get(6)?;
        let limits = Guard {
            max_concurrent: row.get(5)?,
            min_interval: interval.map(|ms| Period(Duration::from_millis(ms.unsigned_abs()))),
            busy_share: row.get::<_, Option<f64>>(7)?.map(Share),
        };
        let request = Request { started: row.get(2)?, until: row.get(3)?, ended: row.get(4)?, limits };
        Ok(Stored { id: row.get(0)?, boot: row.get(1)?, request })
    };
    db.prepare_cached(
        "SELECT id, boot, started, until, ended, max_concurrent, min_interval, busy_share FROM leases WHERE origin = ?1",
    )?
    .query_map([origin], read)?
    .collect()
}

/// Carries leases of an earlier boot over into this one, and stores that, so that it happens once.
fn rebased(db: &Connection, mut leases: Vec<Stored>, now: &Moment) -> Result<Vec<Stored>, Fault> {
    for lease in leases.iter_mut().filter(|lease| *lease.boot != *now.boot) {
        let Request { started, until, ended, .. } = lease.request;
        // It took what it took and has just ended; or it has just begun and may take its time.
        let (started, until, ended) = match ended {
            Some(ended) => (now.ms - (ended - started), now.ms, Some(now.ms)),
            None => (now.ms, now.ms + (until - started), None),
        };
        lease.boot = now.boot.to_string();
        lease.request = Request { started, until, ended, limits: lease.request.limits };
        db.prepare_cached("UPDATE leases SET boot = ?2, started = ?3, until = ?4, ended = ?5 WHERE id = ?1")?
            .execute(params![lease.id, lease.boot, started, until, ended])?;
    }
    Ok(leases)
}

/// Forgets leases that cannot matter any more, whatever limits come: another one of the same limits has ended later and taken
/// longer, so its pause is longer under all of them. Those nobody saw the end of are kept until a day after their deadline.
fn prune(db: &Connection, origin: &str, now: &Moment) -> Result<(), Fault> {
    const DAY: i64 = 86_400_000;
    let mut leases = rebased(db, history(db, origin)?, now)?;
    leases.sort_by_key(|lease| std::cmp::Reverse((lease.request.end(), lease.id)));
    let mut longest: Vec<(Guard, i64)> = vec![];
    let mut forget = BTreeSet::new();
    for Stored { id, request, .. } in &leases {
        if request.under_way(now.ms) || (request.ended.is_none() && request.until + DAY > now.ms) {
            continue;
        }
        let took = request.end() - request.started;
        match longest.iter_mut().find(|(limits, _)| *limits == request.limits) {
            Some((_, longest)) if *longest >= took => drop(forget.insert(*id)),
            Some((_, longest)) => *longest = took,
            None => longest.push((request.limits, took)),
        }
        // Older than any pause that makes sense, and not the last one of its limits: the end of the last one is what counts.
        if request.end() + 30 * DAY < now.ms {
            forget.insert(*id);
        }
    }
    for id in forget {
        db.prepare_cached("DELETE FROM leases WHERE id = ?1")?.execute([id])?;
    }
    Ok(())
}
