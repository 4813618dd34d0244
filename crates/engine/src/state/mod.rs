//! What is remembered between runs and shared between processes: one SQLite file per state directory.
//!
//! Runs and checkpoints, the guard's leases, breakers and refused credentials live here, because a guard that
//! forgets at restart protects nobody, and a wrong password tried by each of ten processes locks the account. The
//! modules that give these their meaning ([`guard`](crate::guard), [`breaker`](crate::breaker), [`credentials`](crate::credentials)) keep their own tables
//! through one write transaction; this module keeps the file: opening, migrations, transactions, errors.
//!
//! Methods are synchronous and quick (one small transaction, one fsync). A writer takes the write lock at once
//! (`BEGIN IMMEDIATE`), so two processes never work on the same premises.

pub mod clock;
pub(crate) mod letters;
mod locks;
mod migrations;
mod runs;
mod serving;
mod status;
mod view;

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::ErrorKind as IoKind,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use tokio::sync::Notify;
use towpath_core::{Error, ErrorKind, Result, Retry};

use self::clock::{Clock, SystemClock};
pub(crate) use self::locks::Lock;
pub use self::{
    locks::{Holder, PipelineLock},
    runs::{Fence, LastRun},
    serving::{Served, Serving},
    status::{LastOutcome, PipelineStatus},
    view::{BreakerView, BudgetView, CheckpointView, CredentialView, GuardView, PipelineView, RunView, StateView},
};
use crate::budget::Local;

/// The file's name in the state directory.
const FILE: &str = "state.db";
/// How long a process waits for another one's transaction. Transactions here take milliseconds.
const BUSY: Duration = Duration::from_secs(15);

/// What is remembered between runs. Cheap to clone; clones share one connection.
#[derive(Clone)]
pub struct StateStore {
    inner: Arc<Inner>,
}

struct Inner {
    /// `None`: in memory.
    dir: Option<PathBuf>,
    db: Mutex<Connection>,
    clock: Arc<dyn Clock>,
    /// Locks of a store in memory: what a folder of lock files is for one on disk.
    held: Arc<Mutex<BTreeMap<String, Holder>>>,
    /// Wakes those who wait for a guard or a credential in this process; others poll.
    freed: Notify,
    /// Counts sign-ins that were refused through this store: what tells a missing right from a wrong password.
    refusals: AtomicU64,
    /// Counts unproven credentials that are on their way through this store.
    unproven: AtomicU64,
    /// A second connection, for what must survive a killed process and need not survive a power cut. Opened by the first who needs it;
    /// a store in memory has only one.
    quick: OnceLock<Mutex<Connection>>,
    budgets: Mutex<BTreeMap<String, Arc<Local>>>,
}

impl std::fmt::Debug for StateStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.dir() {
            Some(dir) => write!(f, "StateStore({})", dir.display()),
            None => f.write_str("StateStore(memory)"),
        }
    }
}

impl StateStore {
    /// Opens the store of a directory; both are created where they are missing (0700 and 0600). [`ErrorKind::Conflict`] if a newer
    /// version of the program has written it, [`ErrorKind::Config`] if the directory cannot be written, [`ErrorKind::Data`] if the
    /// file is damaged.
    pub fn open(dir: &Path) -> Result<Self> {
        Self::open_with(dir, Arc::new(SystemClock))
    }

    /// [`open`](StateStore::open) with a clock of one's own: for tests of waiting.
    #[doc(hidden)]
    pub fn open_with(dir: &Path, clock: Arc<dyn Clock>) -> Result<Self> {
        let unwritable = |error: std::io::Error| {
            let kind = if error.kind() == IoKind::StorageFull { ErrorKind::Unavailable } else { ErrorKind::Config };
            Error::new(kind, format!("the state directory {} cannot be written", dir.display()))
                .retry(Retry::Never)
                .because(error)
                .hint("make it writable, or name another one with --state-dir or TOWPATH_STATE_DIR")
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(unwritable)?;
        let path = dir.join(FILE);
        // Only one process at a time opens: switching to WAL and migrating do not go well together with company.
        let _opening = locks::exclusive(&dir.join("open.lock")).map_err(unwritable)?;
        private(&path).map_err(unwritable)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(&path, flags).map_err(|error| fault(Some(dir), &error))?;
        Self::ready(db, Some(dir.to_owned()), clock)
    }

    /// A store in memory, gone with its last clone: for tests and for use as a library.
    pub fn memory() -> Result<Self> {
        Self::memory_with(Arc::new(SystemClock))
    }

    /// [`memory`](StateStore::memory) with a clock of one's own: for tests of waiting.
    #[doc(hidden)]
    pub fn memory_with(clock: Arc<dyn Clock>) -> Result<Self> {
        let db = Connection::open_in_memory().map_err(|error| fault(None, &error))?;
        Self::ready(db, None, clock)
    }

    fn ready(mut db: Connection, dir: Option<PathBuf>, clock: Arc<dyn Clock>) -> Result<Self> {
        let at = dir.as_deref();
        let prepared = (|| {
            db.busy_timeout(BUSY)?;
            db.set_prepared_statement_cache_capacity(64);
            if at.is_some() {
                // FULL: a checkpoint that is told must not be taken back by a power cut, nor a credential's lease.
                db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")?;
            }
            db.execute_batch("PRAGMA foreign_keys = ON;")
        })();
        prepared.map_err(|error| fault(at, &error))?;
        migrations::apply(&mut db, at)?;
        let (held, freed) = (Arc::default(), Notify::new());
        let (refusals, quick, budgets) = (AtomicU64::new(0), OnceLock::new(), Mutex::default());
        let unproven = AtomicU64::new(0);
        let inner = Inner { dir, db: Mutex::new(db), clock, held, freed, refusals, unproven, quick, budgets };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The directory it lives in; `None` for one in memory.
    pub fn dir(&self) -> Option<&Path> {
        self.inner.dir.as_deref()
    }

    /// The clock that leases are reckoned by.
    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.inner.clock
    }

    pub(crate) fn freed(&self) -> &Notify {
        &self.inner.freed
    }

    /// How many sign-ins were refused through this store, or held back because they had been.
    pub(crate) fn refusals(&self) -> u64 {
        self.inner.refusals.load(Ordering::Relaxed)
    }

    pub(crate) fn note_refusal(&self) {
        self.inner.refusals.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn unproven(&self) -> &AtomicU64 {
        &self.inner.unproven
    }

    fn db(&self) -> MutexGuard<'_, Connection> {
        self.inner.db.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads. Sees one state of the store per statement.
    pub(crate) fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        work(&self.db()).map_err(|error| fault(self.dir(), &error))
    }

    /// Reads and writes in one transaction that no other process comes between. Rolled back on error.
    pub(crate) fn write<T>(&self, work: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T> {
        in_transaction(&mut self.db(), work).map_err(|fault| fault.told(self.dir()))
    }

    /// [`write`](Self::write) without waiting for the disk: a killed process loses nothing of it, a power cut may take the last moments.
    pub(crate) fn quick<T>(&self, work: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T> {
        in_transaction(&mut *self.quick_db()?, work).map_err(|fault| fault.told(self.dir()))
    }

    /// [`read`](Self::read), by the connection of [`quick`](Self::quick).
    pub(crate) fn quick_read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        work(&*self.quick_db()?).map_err(|error| fault(self.dir(), &error))
    }

    fn quick_db(&self) -> Result<MutexGuard<'_, Connection>> {
        let Some(dir) = self.dir() else { return Ok(self.db()) };
        let quick = match self.inner.quick.get() {
            Some(quick) => quick,
            None => {
                let opened = (|| {
                    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                    let db = Connection::open_with_flags(dir.join(FILE), flags)?;
                    db.busy_timeout(BUSY)?;
                    db.execute_batch("PRAGMA synchronous = NORMAL;")?;
                    Ok(db)
                })();
                let opened = opened.map_err(|error| fault(Some(dir), &error))?;
                // Another thread's may have come first; then ours is closed again.
                self.inner.quick.get_or_init(|| Mutex::new(opened))
            }
        };
        Ok(quick.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What this process knows of an account's budget beside the tables.
    pub(crate) fn local_budget(&self, account: &str) -> Arc<Local> {
        let mut budgets = self.inner.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = budgets.get(account) {
            return Arc::clone(known);
        }
        Arc::clone(budgets.entry(account.to_owned()).or_default())
    }
}

fn in_transaction<T>(db: &mut Connection, work: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, Fault> {
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let got = work(&transaction)?;
    transaction.commit()?;
    Ok(got)
}

/// What went wrong inside a transaction: the database's failure, or an answer of ours.
pub(crate) enum Fault {
    /// The database's.
    Db(rusqlite::Error),
    /// Ours.
    Told(Error),
}

impl Fault {
    fn told(self, dir: Option<&Path>) -> Error {
        match self {
            Self::Db(error) => fault(dir, &error),
            Self::Told(error) => error,
        }
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Db(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Told(error)
    }
}

/// Puts the database's failure into the words of someone who has to do something about it.
fn fault(dir: Option<&Path>, error: &rusqlite::Error) -> Error {
    let place = dir.map_or_else(|| "memory".to_owned(), |dir| dir.display().to_string());
    let code = error.sqlite_error_code();
    let made = match code {
        Some(ErrorCode::DiskFull) => Error::unavailable("the disk of the state directory is full")
            .retry(Retry::Never)
            .hint(format!("free some space on the disk of {place}; the run can be taken up again then")),
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            Error::config("the state store cannot be written")
                .hint(format!("make {place} and the files in it writable, or name another one with --state-dir"))
        }
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Error::data("the state store is damaged")
            .hint(format!(
                "move {place}/{FILE}* away and run again; checkpoints that targets hold are not in it, but guards, breakers and \
                 refused credentials are forgotten: check the password first"
            )),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            Error::unavailable(format!("the state store was busy for more than {} seconds", BUSY.as_secs()))
                .hint("see which process holds it; a network file system is no place for it")
        }
        Some(ErrorCode::SystemIoFailure) => Error::unavailable("the state store cannot be read or written")
            .retry(Retry::Never)
            .hint(format!("check the disk of {place}")),
        _ => Error::internal("the state store did not do what was asked"),
    };
    made.because(error.to_string()).at(format!("state {place}"))
}

/// Creates the file for its owner only, and takes the rights of others away from one that is there.
fn private(path: &Path) -> std::io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    Ok(file)
}
