//! Credentials: a refused one is never sent again, an unproven one goes out once.
//!
//! Servers lock accounts after a few wrong passwords, and a pipeline that tries every five minutes reaches that before
//! breakfast. So the store keeps, by server and account, a keyed fingerprint of every credential that was tried, over all pipelines
//! and processes:
//!
//! * **proven**: the server took it, as the last of its account. It goes out freely for [`FRESH`], then again under a lease: it may
//!   have been changed since.
//! * **refused**: never sent again, until somebody resets it. Another credential of the same account is another entry.
//! * **trying**: goes out right now, under a lock that a dead process does not keep. Others wait for the outcome.
//! * **unknown**: it went out, and nobody saw what came of it. It waits for [`UNKNOWN`]: the server may have counted it. A run that is given
//!   up waits for a moment, so that this is left to processes that are killed and servers that do not answer.
//!
//! The entry is written before the credential is. The key of the fingerprints lies in the store; without it they say nothing
//! about a password, and with it they are as slow to guess as an HMAC.
//!
//! Tokens that a server gives in exchange for others (OAuth2) are another matter: the newest one is the only one there is, so it is
//! kept as it is, in the store's file, which is its owner's only. Whoever reads or renews one holds a lock that a dead process does not
//! keep: one exchange at a time, over all processes.

use std::{sync::atomic::Ordering, time::Duration};

use async_trait::async_trait;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use sha2::Sha256;
use towpath_core::{
    Error, Result, Secret,
    context::{Admission, Credentials, Exchange, StoredToken},
};

use crate::state::{Fault, Lock, StateStore, clock::human};

/// How long a proven credential goes out freely.
pub const FRESH: Duration = Duration::from_secs(3600);
/// How long one waits whose outcome nobody saw.
pub const UNKNOWN: Duration = Duration::from_secs(15 * 60);
/// How long a run that ends waits for what comes of its unproven credentials; a little longer than the clients look for it.
const SETTLING: Duration = Duration::from_millis(2500);
/// How often one who waits for another process looks.
const POLL: Duration = Duration::from_millis(100);

/// Which credential, without showing it.
#[derive(Clone, Debug)]
struct Key {
    server: String,
    account: String,
    fingerprint: Vec<u8>,
}

/// What the store knows of it.
struct Known {
    state: String,
    /// Milliseconds since it was written; `None` if that was before a reboot.
    age: Option<i64>,
    wall: String,
}

/// What is to be done.
enum Decision {
    /// Send it. `Some`: under this lock.
    Go(Option<Lock>),
    /// Another process tries it right now.
    Wait,
}

impl StateStore {
    /// Forgets refused and unknown credentials of a server (`None`: of all). Returns how many.
    pub fn reset_credentials(&self, server: Option<&str>) -> Result<usize> {
        let count = self.write(|db| {
            Ok(db
                .execute("DELETE FROM credentials WHERE (?1 IS NULL OR server = ?1) AND state <> 'proven'", [server])?)
        })?;
        self.freed().notify_waiters();
        Ok(count)
    }

    /// Waits for a moment until no unproven credential of this process is on its way.
    pub(crate) async fn settled(&self) {
        let settled = async {
            loop {
                // Told before looking, or what changes in between would be missed.
                let freed = self.freed().notified();
                if self.unproven().load(Ordering::SeqCst) == 0 {
                    return;
                }
                freed.await;
            }
        };
        let _ = tokio::time::timeout(SETTLING, settled).await;
    }

    fn key(&self, server: &str, account: &str, secret: &Secret) -> Result<Key> {
        let key = self.fingerprint_key()?;
        let mut mac = Hmac::<Sha256>::new_from_slice(&key)
            .map_err(|error| Error::internal("the key of the fingerprints cannot be used").because(error))?;
        for part in [server, account, secret.expose()] {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part.as_bytes());
        }
        let fingerprint = mac.finalize().into_bytes().to_vec();
        Ok(Key { server: server.to_owned(), account: account.to_owned(), fingerprint })
    }

    fn fingerprint_key(&self) -> Result<Vec<u8>> {
        const NAME: &str = "fingerprints";
        let read = |db: &Connection| {
            let sql = "SELECT value FROM secrets WHERE name = ?1";
            db.prepare_cached(sql)?.query_row([NAME], |row| row.get::<_, Vec<u8>>(0)).optional()
        };
        if let Some(key) = self.read(read)? {
            return Ok(key);
        }
        self.write(|db| {
            // SQLite's generator is seeded by the operating system.
            db.execute("INSERT OR IGNORE INTO secrets (name, value) VALUES (?1, randomblob(32))", [NAME])?;
            read(db)?.ok_or_else(|| Error::internal("the key of the fingerprints was not kept").into())
        })
    }

    fn known(&self, db: &Connection, key: &Key) -> rusqlite::Result<Option<Known>> {
        let now = self.clock().now();
        db.prepare_cached(
            "SELECT state, boot, at, wall FROM credentials WHERE server = ?1 AND account = ?2 AND fingerprint = ?3",
        )?
        .query_row(params![key.server, key.account, key.fingerprint], |row| {
            let (boot, at): (String, i64) = (row.get(1)?, row.get(2)?);
            Ok(Known { state: row.get(0)?, age: (*boot == *now.boot).then(|| now.ms - at), wall: row.get(3)? })
        })
        .optional()
    }

    fn put(&self, key: &Key, state: &str) -> Result<()> {
        self.write(|db| self.put_in(db, key, state))
    }

    fn put_in(&self, db: &Connection, key: &Key, state: &str) -> Result<(), Fault> {
        let now = self.clock().now();
        let wall = format!("{:.0}", self.clock().wall());
        db.prepare_cached(
            "REPLACE INTO credentials (server, account, fingerprint, state, boot, at, wall, owner) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![key.server, key.account, key.fingerprint, state, &*now.boot, now.ms, wall, std::process::id()])?;
        Ok(())
    }

    /// Decides, and writes down what is about to happen.
    fn decide(&self, key: &Key) -> Result<Decision> {
        let fresh =
            |known: &Known| known.state == "proven" && known.age.is_some_and(|age| age < FRESH.as_millis() as i64);
        match self.read(|db| self.known(db, key))? {
            Some(known) if fresh(&known) => return Ok(Decision::Go(None)),
            Some(known) if known.state == "refused" => return Err(self.refused(key, &known)),
            _ => {}
        }
        let name = key.fingerprint.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let Some(lock) = self.lock(&format!("credential-{name}"))? else { return Ok(Decision::Wait) };
        // What was known may have changed while nobody held the lock.
        match self.read(|db| self.known(db, key))? {
            Some(known) if fresh(&known) => return Ok(Decision::Go(None)),
            Some(known) if known.state == "refused" => return Err(self.refused(key, &known)),
            Some(known) if matches!(&*known.state, "trying" | "unknown") => {
                // Nobody holds the lock, so whoever tried it is gone. After a reboot nothing is known of how long ago that was.
                let waited = known.age.unwrap_or(0);
                let left = UNKNOWN.as_millis() as i64 - waited;
                if known.age.is_none() {
                    self.put(key, "unknown")?;
                }
                if left > 0 {
                    self.note_refusal();
                    return Err(self.unknown(key, &known, left));
                }
            }
            _ => {}
        }
        self.put(key, "trying")?;
        Ok(Decision::Go(Some(lock)))
    }

    fn refused(&self, key: &Key, known: &Known) -> Error {
        self.note_refusal();
        let Key { server, account, .. } = key;
        Error::auth(format!("{server} refused the credential of {account} at {}, so it is not sent again", known.wall))
            .hint("correct the credential; if it is right, and unlocked by now, run `towpath state reset credentials`")
    }

    fn unknown(&self, key: &Key, known: &Known, left: i64) -> Error {
        let Key { server, account, .. } = key;
        Error::auth(format!(
            "the credential of {account} went out to {server} at {}, and nobody saw what came of it; it may be sent again in {}",
            known.wall,
            human(left)
        ))
        .hint("if you know that it is right, run `towpath state reset credentials`")
    }
}

#[async_trait]
impl Credentials for StateStore {
    async fn admit(&self, server: &str, account: &str, secret: &Secret) -> Result<Box<dyn Admission>> {
        let key = self.key(server, account, secret)?;
        loop {
            // Told before looking, or what changes in between would be missed.
            let freed = self.freed().notified();
            // Held back, nothing of the call goes out.
            match self.decide(&key).map_err(Error::unsent)? {
                Decision::Go(lock) => {
                    if lock.is_some() {
                        self.unproven().fetch_add(1, Ordering::SeqCst);
                    }
                    return Ok(Box::new(Leave { store: self.clone(), key, lock, said: false }));
                }
                // Another process cannot wake us.
                Decision::Wait => drop(tokio::time::timeout(POLL, freed).await),
            }
        }
    }

    async fn exchange(&self, server: &str, account: &str) -> Result<Box<dyn Exchange>> {
        let key = format!("token of {account} at {server}");
        loop {
            let freed = self.freed().notified();
            if let Some(lock) = self.lock(&key)? {
                let (server, account) = (server.to_owned(), account.to_owned());
                return Ok(Box::new(Hold { store: self.clone(), server, account, lock: Some(lock) }));
            }
            drop(tokio::time::timeout(POLL, freed).await);
        }
    }
}

/// A hold on a token.
struct Hold {
    store: StateStore,
    server: String,
    account: String,
    lock: Option<Lock>,
}

impl Hold {
    fn read(&self, db: &Connection) -> rusqlite::Result<Option<StoredToken>> {
        let time = |column, text: String| {
            let broken = |error: jiff::Error| {
                rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
            };
            text.parse::<Timestamp>().map_err(broken)
        };
        db.prepare_cached(
            "SELECT access, refresh, issued, expires, seed, generation FROM tokens WHERE server = ?1 AND account = ?2",
        )?
        .query_row(params![self.server, self.account], |row| {
            Ok(StoredToken {
                access: Secret::new(row.get(0)?),
                refresh: row.get::<_, Option<String>>(1)?.map(Secret::new),
                issued: time(2, row.get(2)?)?,
                expires: row.get::<_, Option<String>>(3)?.map(|text| time(3, text)).transpose()?,
                seed: row.get(4)?,
                generation: row.get::<_, i64>(5)?.unsigned_abs(),
            })
        })
        .optional()
    }
}

impl Exchange for Hold {
    fn stored(&self) -> Result<Option<StoredToken>> {
        self.store.read(|db| self.read(db))
    }

    fn store(&mut self, token: StoredToken) -> Result<u64> {
        self.store.write(|db| {
            let generation = self.read(db)?.map_or(1, |known| known.generation + 1);
            db.prepare_cached(
                "REPLACE INTO tokens (server, account, access, refresh, issued, expires, seed, generation)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                self.server,
                self.account,
                token.access.expose(),
                token.refresh.as_ref().map(|refresh| refresh.expose().as_str()),
                token.issued.to_string(),
                token.expires.map(|expires| expires.to_string()),
                token.seed,
                i64::try_from(generation).unwrap_or(i64::MAX),
            ])?;
            Ok(generation)
        })
    }

    fn fingerprint(&self, secret: &Secret) -> Result<String> {
        let key = self.store.key(&self.server, &self.account, secret)?;
        Ok(key.fingerprint.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.lock = None;
        self.store.freed().notify_waiters();
    }
}

/// The leave to send a credential once.
struct Leave {
    store: StateStore,
    key: Key,
    /// Held while an unproven credential is on its way.
    lock: Option<Lock>,
    said: bool,
}

impl Leave {
    fn say(&mut self, what: impl FnOnce(&StateStore, &Key) -> Result<()>) {
        self.said = true;
        if let Err(error) = what(&self.store, &self.key) {
            // The entry says `trying`, which keeps the credential back: the safe side.
            tracing::warn!("what came of a credential cannot be noted: {error}");
        }
        if self.lock.take().is_some() {
            self.store.unproven().fetch_sub(1, Ordering::SeqCst);
        }
        self.store.freed().notify_waiters();
    }
}

impl Admission for Leave {
    fn proven(mut self: Box<Self>) {
        if self.lock.is_none() {
            // Fresh, and known to be.
            self.said = true;
            return;
        }
        self.say(|store, key| {
            store.write(|db| {
                // Only the one last proven is remembered: a password that was changed leaves nothing behind.
                let sql = "DELETE FROM credentials WHERE server = ?1 AND account = ?2 AND state = 'proven'";
                db.execute(sql, params![key.server, key.account])?;
                store.put_in(db, key, "proven")
            })
        });
    }

    fn unproven(&self) -> bool {
        self.lock.is_some()
    }

    fn refused(mut self: Box<Self>) {
        self.say(|store, key| {
            store.note_refusal();
            store.put(key, "refused")
        });
    }

    fn unsent(mut self: Box<Self>) {
        if self.lock.is_none() {
            self.said = true;
            return;
        }
        self.say(|store, key| {
            store.write(|db| {
                let sql = "DELETE FROM credentials WHERE server = ?1 AND account = ?2 AND fingerprint = ?3";
                db.execute(sql, params![key.server, key.account, key.fingerprint])?;
                Ok(())
            })
        });
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        if !self.said && self.lock.is_some() {
            self.say(|store, key| store.put(key, "unknown"));
        }
    }
}
