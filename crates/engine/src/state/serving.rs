//! Who serves a pipeline, and when it is started next. What is written down here is believed only while the process that wrote it lives:
//! it holds a file lock for as long, taken at the very time that stands beside what it wrote.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};
use serde::Serialize;
use towpath_core::{Name, Result};

use super::{Holder, Lock, StateStore, runs::unreadable};

/// The right to start a pipeline by its schedule. Let go when dropped, and when the process dies.
#[derive(Debug)]
#[must_use]
pub struct Serving {
    store: StateStore,
    pipeline: Name,
    since: Timestamp,
    _lock: Lock,
}

/// What a living process that serves a pipeline says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Served {
    /// The process.
    pub pid: u32,
    /// Since when.
    pub since: Timestamp,
    /// The schedule, in words. `None` as long as the process has not said anything yet.
    pub schedule: Option<String>,
    /// When it starts the pipeline next. `None` if it starts none any more, or has not said so yet.
    pub next_start: Option<Timestamp>,
    /// Starts left out since then, because a run was under way.
    pub skipped: u64,
}

impl StateStore {
    /// Makes this process the one that starts a pipeline by its schedule. `None`: another one does; [`served`](StateStore::served) says
    /// which.
    pub fn serve(&self, pipeline: &Name) -> Result<Option<Serving>> {
        let holder = Holder { pid: std::process::id(), since: Timestamp::now() };
        let since = holder.since;
        let lock = self.lock_as(&key(pipeline), holder)?;
        Ok(lock.map(|lock| Serving { store: self.clone(), pipeline: pipeline.clone(), since, _lock: lock }))
    }

    /// Who serves a pipeline, if a living process does.
    pub fn served(&self, pipeline: &Name) -> Result<Option<Served>> {
        let Some(Holder { pid, since }) = self.holder(&key(pipeline)) else { return Ok(None) };
        let said: Option<(String, Option<String>, i64)> = self.read(|db| {
            db.prepare_cached("SELECT schedule, next, skipped FROM served WHERE pipeline = ?1 AND since = ?2")?
                .query_row([&**pipeline, &since.to_string()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .optional()
        })?;
        let mut served = Served { pid, since, schedule: None, next_start: None, skipped: 0 };
        if let Some((schedule, next, skipped)) = said {
            served.schedule = Some(schedule);
            let next = next.map(|next| next.parse().map_err(|error| unreadable("time", error)));
            served.next_start = next.transpose()?;
            served.skipped = skipped.unsigned_abs();
        }
        Ok(Some(served))
    }
}

impl Serving {
    /// Says when the pipeline is started next (`None`: not any more), and how many starts were left out so far.
    pub fn announce(&self, schedule: &str, next: Option<Timestamp>, skipped: u64) -> Result<()> {
        let next = next.map(|next| next.to_string());
        self.store.write(|db| {
            db.prepare_cached(
                "REPLACE INTO served (pipeline, since, schedule, next, skipped) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![&*self.pipeline, self.since.to_string(), schedule, next, skipped as i64])?;
            Ok(())
        })
    }
}

fn key(pipeline: &Name) -> String {
    format!("served {pipeline}")
}
