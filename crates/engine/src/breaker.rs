//! The breaker: a server that fails again and again is left alone for a while, by every pipeline of this machine.
//!
//! It opens after [`THRESHOLD`] failures in a row, once the first of them is [`AWAY`] ago: many calls side by side fail many times within
//! a moment, and a server that is started anew is back before their own tries are used up. Open, nothing passes for a pause that doubles
//! with each probe that fails, from [`SHORTEST`] to [`LONGEST`]. Then one call at a time may probe; its success closes the breaker, its
//! failure opens it for longer. Any answer closes it, and failures count anew. A failure is a server that cannot be reached, fails, or does
//! not answer in time; that it refuses one request, or asks for fewer, is none.
//!
//! A part of a server (one report) can have a breaker of its own: a missing right opens that at once, because asking again does not
//! give the right, and every refusal may count towards a lockout.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};
use towpath_core::{Error, ErrorKind, Result, Retry};

use crate::state::{Fault, StateStore, clock::human};

/// Failures in a row that open it, if the server has been away for [`AWAY`].
pub const THRESHOLD: u32 = 5;
/// How long ago the first failure in a row must be for it to open: longer than a server takes that is started anew.
pub const AWAY: Duration = Duration::from_secs(10);
/// The first pause.
pub const SHORTEST: Duration = Duration::from_secs(30);
/// The longest pause.
pub const LONGEST: Duration = Duration::from_secs(600);
/// How long a part is left alone to which a right is missing.
pub const DENIED: Duration = Duration::from_secs(3600);

/// The breaker of a server, or of a part of it.
#[derive(Clone, Debug)]
pub struct Breaker {
    store: StateStore,
    origin: String,
    /// Empty: the whole server.
    resource: String,
}

struct Stored {
    failures: u32,
    reason: String,
    since: String,
    /// When the first failure in a row was, on this boot's clock; `None` if that was before a reboot.
    first: Option<i64>,
    /// Milliseconds until it may be probed; `None`: it is closed.
    closed_for: Option<i64>,
    /// Milliseconds for which another one's probe is under way.
    probed_for: i64,
    /// The last pause.
    cool: i64,
}

impl Breaker {
    /// The breaker of a server, or of a part of it.
    pub fn new(store: StateStore, origin: impl Into<String>, resource: Option<&str>) -> Self {
        Self { store, origin: origin.into(), resource: resource.unwrap_or_default().to_owned() }
    }

    /// Looks whether a call may be made now. Claims nothing.
    pub fn look(&self) -> Result<()> {
        let Some(stored) = self.store.read(|db| self.stored(db))? else { return Ok(()) };
        match stored.closed_for.map(|left| left.max(stored.probed_for)) {
            Some(left) if left > 0 => Err(self.open(&stored, left)),
            _ => Ok(()),
        }
    }

    /// Asks whether a call may be made, which will have ended `deadline` from now. An error says why not, and until when.
    pub fn ask(&self, deadline: Duration) -> Result<()> {
        // Nearly always there is nothing.
        let Some(stored) = self.store.read(|db| self.stored(db))? else { return Ok(()) };
        if stored.closed_for.is_none() {
            return Ok(());
        }
        self.store.write(|db| {
            let Some(stored) = self.stored(db)? else { return Ok(()) };
            let left = match stored.closed_for {
                None => return Ok(()),
                Some(left) => left.max(stored.probed_for),
            };
            if left > 0 {
                return Err(self.open(&stored, left).into());
            }
            let until = self.store.clock().now().ms.saturating_add(deadline.as_millis() as i64);
            db.prepare_cached("UPDATE breakers SET probe_until = ?3 WHERE origin = ?1 AND resource = ?2")?
                .execute(params![self.origin, self.resource, until])?;
            Ok(())
        })
    }

    /// A call was answered.
    pub fn succeeded(&self) -> Result<()> {
        if self.store.read(|db| self.stored(db))?.is_none() {
            return Ok(());
        }
        self.store.write(|db| {
            db.prepare_cached("DELETE FROM breakers WHERE origin = ?1 AND resource = ?2")?
                .execute([&self.origin, &self.resource])?;
            Ok(())
        })
    }

    /// A call failed. Counts if it is the server that failed.
    pub fn failed(&self, error: &Error) -> Result<()> {
        match error.kind() {
            ErrorKind::Unavailable | ErrorKind::Timeout => {}
            // The server said nothing, or was not asked.
            ErrorKind::Config | ErrorKind::Internal | ErrorKind::Cancelled | ErrorKind::Auth => return Ok(()),
            // It answered.
            _ => return self.succeeded(),
        }
        self.store.write(|db| {
            let now = self.store.clock().now().ms;
            let before = self.stored(db)?;
            let failures = before.as_ref().map_or(0, |before| before.failures).saturating_add(1);
            let closed_for = before.as_ref().and_then(|before| before.closed_for);
            if closed_for.is_some_and(|left| left > 0) {
                // It was under way when the breaker opened: no probe, and no reason to wait longer.
                db.prepare_cached("UPDATE breakers SET failures = ?3 WHERE origin = ?1 AND resource = ?2")?
                    .execute(params![self.origin, self.resource, failures])?;
                return Ok(());
            }
            let longer = before.as_ref().map_or(0, |before| before.cool).saturating_mul(2);
            let pause = longer.clamp(SHORTEST.as_millis() as i64, LONGEST.as_millis() as i64);
            // After a reboot nobody knows for how long; that counts anew.
            let first = before.as_ref().and_then(|before| before.first).unwrap_or(now);
            let away = now.saturating_sub(first) >= AWAY.as_millis() as i64;
            let opens = closed_for.is_some() || failures >= THRESHOLD && away;
            let since = before.map_or_else(|| self.wall(), |before| before.since);
            self.put(db, failures, &reason(error), (&since, first), opens.then_some(pause))
        })
    }

    /// A right is missing: this part is left alone.
    pub fn denied(&self, error: &Error) -> Result<()> {
        self.store.write(|db| {
            let since = (&*self.wall(), self.store.clock().now().ms);
            self.put(db, 1, &reason(error), since, Some(DENIED.as_millis() as i64))
        })
    }

    fn wall(&self) -> String {
        format!("{:.0}", self.store.clock().wall())
    }

    fn put(
        &self,
        db: &Connection,
        failures: u32,
        reason: &str,
        (since, first): (&str, i64),
        pause: Option<i64>,
    ) -> Result<(), Fault> {
        let now = self.store.clock().now();
        db.prepare_cached(
            "REPLACE INTO breakers (origin, resource, failures, reason, since, first, cool, boot, closed_until, probe_until)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, NULL)",
        )?
        .execute(params![
            self.origin,
            self.resource,
            failures,
            reason,
            since,
            first,
            pause.unwrap_or(0),
            &*now.boot,
            pause.map(|pause| now.ms.saturating_add(pause))
        ])?;
        Ok(())
    }

    fn stored(&self, db: &Connection) -> rusqlite::Result<Option<Stored>> {
        let now = self.store.clock().now();
        db.prepare_cached(
            "SELECT failures, reason, since, cool, boot, closed_until, probe_until, first FROM breakers WHERE origin = ?1 AND resource = ?2",
        )?
        .query_row([&self.origin, &self.resource], |row| {
            let (boot, closed, probe): (String, Option<i64>, Option<i64>) = (row.get(4)?, row.get(5)?, row.get(6)?);
            // After a reboot nobody knows how long it took: it may be probed.
            let left = |until: i64| if *boot == *now.boot { (until - now.ms).max(0) } else { 0 };
            Ok(Stored {
                failures: row.get(0)?,
                reason: row.get(1)?,
                since: row.get(2)?,
                first: row.get::<_, Option<i64>>(7)?.filter(|_| *boot == *now.boot),
                cool: row.get(3)?,
                closed_for: closed.map(left),
                probed_for: probe.map_or(0, left),
            })
        })
        .optional()
    }

    fn open(&self, stored: &Stored, left: i64) -> Error {
        let Self { origin, resource, .. } = self;
        let Stored { failures, reason, since, .. } = stored;
        let hint = "`towpath state reset breaker` lets it be asked at once";
        if !resource.is_empty() && *failures == 1 {
            let what = format!(
                "{resource} at {origin} was denied at {since}, and is left alone for another {}: {reason}",
                human(left)
            );
            return Error::auth(what).hint(format!("have the right given on the server; then {hint}"));
        }
        let what = format!("{origin} {resource}").trim_end().to_owned();
        let times = if *failures == 1 { "time" } else { "times in a row" };
        Error::unavailable(format!(
            "{what} has failed {failures} {times} since {since}, and is left alone for another {}",
            human(left)
        ))
        .because(reason.clone())
        .retry(Retry::Never)
        .hint(format!("if the address is right and the server well again, {hint}"))
    }
}

/// An error to the bottom of its causes: that nobody could connect says less than what was in the way.
fn reason(error: &Error) -> String {
    const LONGEST: usize = 500;
    let mut text = error.to_string();
    text.truncate(text.char_indices().nth(LONGEST).map_or(text.len(), |(at, _)| at));
    text
}

impl StateStore {
    /// Closes the breakers of a server (`None`: of all), and forgets a pause that it asked for. Returns how many there were.
    pub fn reset_breaker(&self, origin: Option<&str>) -> Result<usize> {
        self.write(|db| {
            let paused = db.execute("DELETE FROM pauses WHERE ?1 IS NULL OR origin = ?1", [origin])?;
            Ok(paused + db.execute("DELETE FROM breakers WHERE ?1 IS NULL OR origin = ?1", [origin])?)
        })
    }
}
