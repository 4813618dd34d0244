//! Transactions: T-SQL's count and its savepoints over SQLite's one transaction.
//!
//! SQLite knows one writer at a time. A transaction takes the right to write at its first write (or at a read with UPDLOCK or HOLDLOCK)
//! and keeps it to its end; what it reads before is what is committed at that moment, as READ COMMITTED has it.

use std::{sync::atomic::Ordering, time::Duration};

use super::{
    Event,
    ast::Isolation,
    error::{Sql, SqlError},
    locks::{Denied, Mode, Resource},
    session::{Session, Store},
    wire::{Tokens as _, change},
};

impl Session {
    /// BEGIN TRANSACTION.
    pub fn begin(&mut self) {
        self.trancount += 1;
        if self.trancount == 1 {
            self.descriptor = self.shared.next_transaction.fetch_add(1, Ordering::Relaxed);
            self.shared.open_transactions.fetch_add(1, Ordering::Relaxed);
            self.shared.log.add(self.spid, Event::Begin);
            let descriptor = self.descriptor.to_le_bytes();
            self.changed_bytes(change::BEGIN, &descriptor, &[]);
        }
    }

    /// COMMIT.
    pub fn commit(&mut self) -> Sql<()> {
        if self.trancount == 0 {
            return Err(SqlError::of(3902, "The COMMIT TRANSACTION request has no corresponding BEGIN TRANSACTION."));
        }
        if self.doomed {
            return Err(SqlError::of(
                3930,
                "The current transaction cannot be committed and cannot support operations that write to the log file. Roll back the \
                 transaction.",
            ));
        }
        if self.trancount > 1 {
            self.trancount -= 1;
            return Ok(());
        }
        self.commit_store()?;
        self.shared.log.add(self.spid, Event::Commit);
        self.ended(change::COMMIT);
        Ok(())
    }

    /// ROLLBACK, whoever asks for it; whether there was anything to roll back.
    pub fn roll_back(&mut self) -> bool {
        self.roll_back_store();
        if self.trancount == 0 {
            return false;
        }
        self.shared.log.add(self.spid, Event::Rollback);
        self.ended(change::ROLLBACK);
        true
    }

    fn ended(&mut self, kind: u8) {
        self.trancount = 0;
        self.doomed = false;
        self.savepoints.clear();
        self.shared.open_transactions.fetch_sub(1, Ordering::Relaxed);
        let descriptor = self.descriptor.to_le_bytes();
        self.changed_bytes(kind, &[], &descriptor);
        let (kept, released): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.app_locks).into_iter().partition(|lock| lock.1);
        self.app_locks = kept;
        for (name, _) in released {
            if !self.app_locks.iter().any(|(other, _)| *other == name) {
                self.shared.locks.release(self.spid, &Resource::App(name));
            }
        }
    }

    /// SAVE TRANSACTION.
    pub fn save_point(&mut self, name: &str) -> Sql<()> {
        if self.trancount == 0 {
            return Err(SqlError::of(628, "Cannot issue SAVE TRANSACTION when there is no active transaction."));
        }
        self.open_store(false)?;
        self.savepoints.push(name.to_lowercase());
        self.conn.execute_batch(&format!("SAVEPOINT s_{}", self.savepoints.len()))?;
        Ok(())
    }

    /// ROLLBACK TRANSACTION name: to a savepoint, or all of it where the name is the transaction's.
    pub fn roll_back_to(&mut self, name: &str) -> Sql<()> {
        if self.trancount == 0 {
            return Err(SqlError::of(3903, "The ROLLBACK TRANSACTION request has no corresponding BEGIN TRANSACTION."));
        }
        let name = name.to_lowercase();
        match self.savepoints.iter().rposition(|saved| *saved == name) {
            Some(at) => {
                self.conn.execute_batch(&format!("ROLLBACK TO s_{}", at + 1))?;
                self.savepoints.truncate(at + 1);
            }
            None => {
                self.roll_back();
            }
        }
        Ok(())
    }

    /// Opens SQLite's transaction; `writes`: tables of the database will be written.
    pub fn open_store(&mut self, writes: bool) -> Sql<()> {
        if writes && self.store != Store::Writing {
            self.lock_store()?;
        }
        if self.store == Store::Idle {
            if let Err(error) = self.conn.execute_batch(if writes { "BEGIN IMMEDIATE" } else { "BEGIN" }) {
                self.unlock_store();
                return Err(error.into());
            }
            self.store = if writes { Store::Writing } else { Store::Own };
        } else if writes {
            self.store = Store::Writing;
        }
        Ok(())
    }

    fn lock_store(&mut self) -> Sql<()> {
        let slice = Duration::from_millis(20);
        let mut waited = Duration::ZERO;
        let limit = u64::try_from(self.lock_timeout).ok().map(Duration::from_millis);
        loop {
            let nap = limit.map_or(slice, |limit| slice.min(limit.saturating_sub(waited)));
            let control = &self.control;
            match self
                .shared
                .locks
                .acquire(self.spid, &Resource::Store, Mode::Exclusive, Some(nap), &|| control.is_cancelled())
            {
                Ok(()) => return Ok(()),
                Err(Denied::Deadlock) => return Err(SqlError::deadlock(self.spid)),
                Err(Denied::Cancelled) => return Err(SqlError::cancelled()),
                Err(Denied::Timeout) => {
                    waited += nap;
                    if limit.is_some_and(|limit| waited >= limit) {
                        return Err(SqlError::lock_timeout());
                    }
                    // Rows of a bulk load come on meanwhile: a client that sends to several connections in turn must not be stuck.
                    self.spool();
                }
            }
        }
    }

    /// Takes the lock for writing if it is free now.
    pub fn try_store(&mut self) -> bool {
        self.store == Store::Writing
            || self
                .shared
                .locks
                .acquire(self.spid, &Resource::Store, Mode::Exclusive, Some(Duration::ZERO), &|| false)
                .is_ok()
    }

    fn unlock_store(&mut self) {
        self.shared.locks.release(self.spid, &Resource::Store);
    }

    pub fn commit_store(&mut self) -> Sql<()> {
        if self.store != Store::Idle {
            let outcome = if self.conn.is_autocommit() { Ok(()) } else { self.conn.execute_batch("COMMIT") };
            if outcome.is_err() && !self.conn.is_autocommit() {
                let _ = self.conn.execute_batch("ROLLBACK");
            }
            self.store = Store::Idle;
            self.unlock_store();
            outcome?;
        }
        Ok(())
    }

    pub fn roll_back_store(&mut self) {
        if self.store != Store::Idle {
            if !self.conn.is_autocommit() {
                let _ = self.conn.execute_batch("ROLLBACK");
            }
            self.store = Store::Idle;
            self.unlock_store();
        }
    }

    /// Runs what changes something as one statement: all of it or nothing, committed at once where no transaction is open.
    pub fn atomically<T>(&mut self, writes: bool, work: impl FnOnce(&mut Self) -> Sql<T>) -> Sql<T> {
        if self.doomed {
            return Err(SqlError::of(
                3930,
                "The current transaction cannot be committed and cannot support operations that write to the log file. Roll back the \
                 transaction.",
            ));
        }
        self.open_store(writes)?;
        let inside = self.trancount > 0;
        if inside {
            self.conn.execute_batch("SAVEPOINT t_statement")?;
        }
        let outcome = work(self);
        if !inside {
            match &outcome {
                Ok(_) => self.commit_store()?,
                Err(_) => self.roll_back_store(),
            }
            return outcome;
        }
        if self.conn.is_autocommit() {
            // SQLite ends the transaction where a write is interrupted. For T-SQL it stays open, empty.
            self.store = Store::Idle;
            self.unlock_store();
            self.savepoints.clear();
        } else if outcome.is_ok() {
            self.conn.execute_batch("RELEASE t_statement")?;
        } else {
            self.conn.execute_batch("ROLLBACK TO t_statement; RELEASE t_statement")?;
        }
        outcome
    }

    /// What a read needs: nothing, the lock for writing (hints, SERIALIZABLE), or one snapshot for the whole transaction.
    pub fn before_read(&mut self, locks: bool, permanent: bool) -> Sql<()> {
        if self.trancount == 0 || !permanent {
            return Ok(());
        }
        match self.isolation {
            _ if locks => self.open_store(true),
            Isolation::Serializable => self.open_store(true),
            Isolation::Snapshot => self.open_store(false),
            Isolation::ReadCommitted => Ok(()),
        }
    }

    /// Waits for an application lock: 0 granted, 1 granted after waiting, −1 timeout, −3 deadlock.
    pub fn app_lock(&mut self, name: &str, mode: Mode, of_session: bool, timeout: i64) -> Sql<i64> {
        let resource = Resource::App(name.to_lowercase());
        let limit = if timeout < 0 { self.lock_timeout } else { timeout };
        let limit = u64::try_from(limit).ok().map(Duration::from_millis);
        let control = &self.control;
        match self.shared.locks.acquire(self.spid, &resource, mode, limit, &|| control.is_cancelled()) {
            Ok(()) => {
                self.app_locks.push((name.to_lowercase(), of_session));
                Ok(0)
            }
            Err(Denied::Timeout) => Ok(-1),
            Err(Denied::Deadlock) => Ok(-3),
            Err(Denied::Cancelled) => Err(SqlError::cancelled()),
        }
    }
}
