//! One database file, one thread.
//!
//! SQLite blocks, so its connection lives on a thread of its own and takes jobs through a bounded channel; the async runtime only
//! waits for answers. A job whose caller has gone (a cancelled run) is interrupted.
//!
//! The sinks of a pipeline that write into one file **share** its thread, connection and transaction. They have to: sinks flush
//! in lockstep, all of them before the first commits, and SQLite has one writer: with a connection each, the second flush
//! would wait for a commit that waits for it. So the first flush begins the transaction, the others join, and it is committed when
//! each that has joined has asked for it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, InterruptHandle, OpenFlags};
use tokio::sync::{mpsc, oneshot};
use towpath_core::{Error, Result};

use crate::error::{During as _, at};

/// Jobs that wait at the thread's door. One sink has one under way at a time.
const QUEUE: usize = 4;
/// How long SQLite itself waits for a lock before we look whether we are still wanted.
const BUSY_SLICE: Duration = Duration::from_millis(100);
/// Pages SQLite may keep in memory, in KiB (negative by its convention).
const CACHE_KIB: i64 = -8192;
/// The same while an index is built: two threads sort as much each beside it.
const SORTING_KIB: i64 = -3072;
/// The page size of files we make, in bytes. Four times SQLite's: a load writes as many bytes with a quarter of the calls (15 % faster),
/// and sorted look-ups read a quarter of the pages.
const PAGE: i64 = 16_384;
/// The log is copied back into the file when it has grown so large, in bytes.
const LOG: i64 = 16 << 20;

type Job = Box<dyn FnOnce(&mut Writer) + Send>;
type Shared = HashMap<(PathBuf, Arc<str>), Vec<Weak<Database>>>;

/// The open files of this process, by path and pipeline.
static OPEN: Mutex<Option<Shared>> = Mutex::new(None);

/// Locks, also after a panic elsewhere: what is inside is checked by generation.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A handle on the thread of a database file.
pub(crate) struct Database {
    path: PathBuf,
    jobs: mpsc::Sender<Job>,
    interrupt: InterruptHandle,
    /// The job that is running, 0 if none.
    running: Arc<AtomicU64>,
    next_job: AtomicU64,
    next_session: AtomicU64,
    thread: Mutex<Option<(JoinHandle<()>, oneshot::Receiver<()>)>>,
    /// The components that use it.
    members: Mutex<HashSet<String>>,
    /// Whether sinks have rows in an open transaction.
    in_transaction: Arc<AtomicBool>,
}

/// The connection, as jobs see it.
pub(crate) struct Writer {
    /// The connection.
    pub(crate) db: Connection,
    /// The database file.
    pub(crate) path: PathBuf,
    /// Raised by every rollback: what others had in the transaction is gone too, and they must learn of it.
    pub(crate) generation: u64,
    group: Option<Group>,
    abandoned: Arc<AtomicBool>,
    in_transaction: Arc<AtomicBool>,
    durable: bool,
    /// Device and inode of the file that was opened.
    identity: Option<(u64, u64)>,
}

/// Whether a commit worked.
type Committed = oneshot::Sender<Result<()>>;

/// An open transaction and who is in it: `Some` has asked for the commit.
#[derive(Default)]
struct Group {
    members: BTreeMap<u64, Option<Committed>>,
}

impl Database {
    /// The thread of a file for a component of a pipeline; a new one if there is none that it may share. A component shares with others, never
    /// with itself: a second sink of the same name is the first one's rival, as if it were in another process. Nor does one come into a
    /// transaction that has begun. Opens (and, if missing, makes) the file.
    pub(crate) async fn shared(path: &Path, pipeline: &str, component: &str) -> Result<Arc<Self>> {
        let key = (path.to_owned(), Arc::from(pipeline));
        if let Some(open) = Self::find(&key, component) {
            return Ok(open);
        }
        let fresh = Arc::new(Self::open(path.to_owned(), true).await?);
        // Two sinks that open at once: the first to come back is the one that counts.
        if let Some(other) = Self::find(&key, component) {
            return Ok(other);
        }
        lock(&fresh.members).insert(component.to_owned());
        let mut open = lock(&OPEN);
        let open = open.get_or_insert_default();
        open.retain(|_, databases| {
            databases.retain(|database| database.strong_count() > 0);
            !databases.is_empty()
        });
        open.entry(key).or_default().push(Arc::downgrade(&fresh));
        Ok(fresh)
    }

    fn find(key: &(PathBuf, Arc<str>), component: &str) -> Option<Arc<Self>> {
        let open = lock(&OPEN);
        let candidates = open.as_ref()?.get(key)?.iter().filter_map(Weak::upgrade);
        candidates.into_iter().find(|database| {
            !database.in_transaction.load(Ordering::SeqCst) && lock(&database.members).insert(component.to_owned())
        })
    }

    async fn open(path: PathBuf, make: bool) -> Result<Self> {
        let (jobs, mut inbox) = mpsc::channel::<Job>(QUEUE);
        let (opened, open) = oneshot::channel();
        let (ended, end) = oneshot::channel();
        let running = Arc::new(AtomicU64::new(0));
        let file = path.clone();
        let in_transaction = Arc::new(AtomicBool::new(false));
        let busy = Arc::clone(&in_transaction);
        let work = move || {
            match Writer::open(&file, make) {
                Err(error) => drop(opened.send(Err(at(&file)(error)))),
                Ok(mut writer) => {
                    writer.in_transaction = busy;
                    let _ = opened.send(Ok(writer.db.get_interrupt_handle()));
                    while let Some(job) = inbox.blocking_recv() {
                        job(&mut writer);
                    }
                    writer.roll_back();
                }
            }
            let _ = ended.send(());
        };
        let thread = std::thread::Builder::new().name("sqlite".to_owned()).spawn(work);
        let thread = thread.map_err(|error| Error::unavailable("cannot start a thread for SQLite").because(error))?;
        let interrupt = open.await.map_err(|_| Error::internal("the SQLite thread ended while opening"))??;
        let thread = Mutex::new(Some((thread, end)));
        let (next_job, next_session, members) = (1.into(), 1.into(), Mutex::default());
        Ok(Self { path, jobs, interrupt, running, next_job, next_session, thread, members, in_transaction })
    }

    /// A number that tells the users of this thread apart.
    pub(crate) fn session(&self) -> u64 {
        self.next_session.fetch_add(1, Ordering::Relaxed)
    }

    /// Runs a job on the thread. Dropping the future interrupts it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Writer) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.submit(job).await.wait().await
    }

    /// Hands a job to the thread; jobs are done in the order they are handed over. Dropping the ticket interrupts it.
    pub(crate) async fn submit<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Writer) -> Result<T> + Send + 'static,
    ) -> Ticket<'_, T> {
        let (answer, answered) = oneshot::channel();
        let id = self.next_job.fetch_add(1, Ordering::Relaxed);
        let abandoned = Arc::new(AtomicBool::new(false));
        let guard = Abandon { database: self, id, abandoned: Arc::clone(&abandoned), armed: true };
        let running = Arc::clone(&self.running);
        let job: Job = Box::new(move |writer| {
            running.store(id, Ordering::SeqCst);
            writer.abandoned = abandoned;
            let done = if writer.is_abandoned() { Err(Error::cancelled()) } else { job(writer) };
            running.store(0, Ordering::SeqCst);
            let _ = answer.send(done);
        });
        // If the thread has ended, the answer's other end is dropped with the job.
        let _ = self.jobs.send(job).await;
        Ticket { answered, guard }
    }

    /// Lets go. The last one to do so waits for the thread's end.
    pub(crate) async fn close(self: Arc<Self>, component: &str) {
        lock(&self.members).remove(component);
        let Some(last) = Arc::into_inner(self) else { return };
        let thread = lock(&last.thread).take();
        drop(last);
        if let Some((thread, end)) = thread {
            let _ = end.await;
            let _ = thread.join();
        }
    }
}

/// A job that was handed over.
pub(crate) struct Ticket<'a, T> {
    answered: oneshot::Receiver<Result<T>>,
    guard: Abandon<'a>,
}

impl<T> Ticket<'_, T> {
    /// Waits for the answer.
    pub(crate) async fn wait(mut self) -> Result<T> {
        let done = (&mut self.answered).await.unwrap_or_else(|_| Err(Error::internal("the SQLite thread has ended")));
        self.guard.armed = false;
        done.map_err(at(&self.guard.database.path))
    }
}

/// Interrupts a job when nobody waits for its answer any more.
struct Abandon<'a> {
    database: &'a Database,
    id: u64,
    abandoned: Arc<AtomicBool>,
    armed: bool,
}

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.abandoned.store(true, Ordering::SeqCst);
            if self.database.running.load(Ordering::SeqCst) == self.id {
                self.database.interrupt.interrupt();
            }
        }
    }
}

impl Writer {
    fn open(path: &Path, make: bool) -> Result<Self> {
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        if make {
            flags |= OpenFlags::SQLITE_OPEN_CREATE;
        }
        let db = Connection::open_with_flags(path, flags).during("open the database")?;
        let setting = "set up the connection";
        db.busy_timeout(BUSY_SLICE).during(setting)?;
        db.set_prepared_statement_cache_capacity(64);
        // What SQLite sorts and holds aside goes to a file, or memory would grow with the rows.
        db.pragma_update(None, "temp_store", "FILE").during(setting)?;
        // Building an index sorts with a second thread.
        db.pragma_update(None, "threads", 1).during(setting)?;
        db.pragma_update(None, "foreign_keys", true).during(setting)?;
        // Else renaming a table in would fail if any view of the database is broken.
        db.pragma_update(None, "legacy_alter_table", true).during(setting)?;
        let mut writer = Self {
            db,
            path: path.to_owned(),
            generation: 0,
            group: None,
            abandoned: Arc::default(),
            in_transaction: Arc::default(),
            durable: true,
            identity: None,
        };
        // Has no effect on a file that is there already.
        writer.db.pragma_update(None, "page_size", PAGE).during(setting)?;
        writer.write_ahead()?;
        // After the page size is known, or SQLite would reckon with another one.
        writer.db.pragma_update(None, "cache_size", CACHE_KIB).during(setting)?;
        let page: i64 = writer.db.query_row("PRAGMA page_size", [], |row| row.get(0)).during(setting)?;
        writer.db.pragma_update(None, "wal_autocheckpoint", (LOG / page.max(512)).max(1)).during(setting)?;
        writer.db.pragma_update(None, "synchronous", "FULL").during(setting)?;
        writer.identity = identity(path);
        Ok(writer)
    }

    /// Write-ahead logging: readers are never held up. It stays with the file. A file system that cannot do it keeps its journal.
    fn write_ahead(&mut self) -> Result<()> {
        let begun = Instant::now();
        loop {
            match self.db.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0)) {
                Ok(mode) if mode != "wal" => {
                    tracing::warn!(path = %self.path.display(), mode, "no write-ahead log here: readers will wait for commits");
                    return Ok(());
                }
                Err(error) if is_busy(&error) && begun.elapsed() < Duration::from_secs(10) => {
                    std::thread::sleep(BUSY_SLICE / 4)
                }
                done => return done.map(drop).during("switch the database to write-ahead logging"),
            }
        }
    }

    /// Whether nobody waits for the running job any more. Long jobs look at it now and then.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::SeqCst)
    }

    /// Whether commits are to be on the disk when they return. Off for staged rows, which a commit that is makes durable too.
    fn durably(&mut self, durable: bool) -> Result<()> {
        if self.durable != durable {
            let level = if durable { "FULL" } else { "NORMAL" };
            self.db.pragma_update(None, "synchronous", level).during("set up the connection")?;
            self.durable = durable;
        }
        Ok(())
    }

    /// Does something that sorts a whole table.
    pub(crate) fn sorting<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let setting = "set up the connection";
        self.db.pragma_update(None, "cache_size", SORTING_KIB).during(setting)?;
        let done = work(self);
        self.db.pragma_update(None, "cache_size", CACHE_KIB).during(setting)?;
        done
    }

    /// Begins to write, waiting for other processes no longer than `patience`.
    fn begin(&mut self, patience: Duration) -> Result<()> {
        let begun = Instant::now();
        loop {
            match self.db.prepare_cached("BEGIN IMMEDIATE").and_then(|mut begin| begin.execute([])) {
                Ok(_) => return Ok(()),
                Err(error) if is_busy(&error) => {
                    if self.is_abandoned() {
                        return Err(Error::cancelled());
                    }
                    if begun.elapsed() >= patience {
                        let what = format!(
                            "begin to write: another program has held the file's write lock for {} s",
                            patience.as_secs()
                        );
                        return Err(error).during(&what);
                    }
                }
                Err(error) => return Err(error).during("begin to write"),
            }
        }
    }

    /// Does something in a short transaction of its own (or inside the one that is open).
    pub(crate) fn shortly<T>(
        &mut self,
        patience: Duration,
        durable: bool,
        work: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        if self.group.is_some() {
            self.db.execute_batch("SAVEPOINT towpath").during("begin to write")?;
            let done = work(self);
            let end = if done.is_ok() { "RELEASE towpath" } else { "ROLLBACK TO towpath; RELEASE towpath" };
            self.db.execute_batch(end).during("end a part of the transaction")?;
            return done;
        }
        self.durably(durable)?;
        self.begin(patience)?;
        let done = work(self).and_then(|done| {
            self.db.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([])).during("commit")?;
            Ok(done)
        });
        if done.is_err() {
            self.undo();
        }
        done
    }

    /// Joins the transaction that the file's sinks share; begins it if need be.
    pub(crate) fn join(&mut self, session: u64, patience: Duration) -> Result<()> {
        if self.group.is_none() {
            self.durably(true)?;
            self.begin(patience)?;
            self.group = Some(Group::default());
            self.in_transaction.store(true, Ordering::SeqCst);
        }
        if let Some(group) = &mut self.group {
            group.members.entry(session).or_default();
        }
        Ok(())
    }

    /// Asks for the commit; it comes when all who are in the transaction have asked.
    pub(crate) fn ask_commit(&mut self, session: u64, answer: Committed) {
        let Some(group) = &mut self.group else {
            let _ = answer.send(Err(Error::internal("a commit without a transaction")));
            return;
        };
        group.members.insert(session, Some(answer));
        if group.members.values().any(Option::is_none) {
            return;
        }
        let group = self.group.take().unwrap_or_default();
        self.in_transaction.store(false, Ordering::SeqCst);
        let done = self.db.execute_batch("COMMIT").map_err(|error| error.to_string());
        if done.is_err() {
            self.generation += 1;
            self.undo();
        }
        let said = done.and_then(|()| self.still_there()).err();
        for answer in group.members.into_values().flatten() {
            // The disk may have it all the same: whoever reads the checkpoint next will see.
            let done = said
                .as_ref()
                .map_or(Ok(()), |why| Err(Error::unavailable(format!("cannot commit: {why}")).outcome_unknown()));
            let _ = answer.send(done);
        }
    }

    /// SQLite goes on writing into a file that has lost its name, and nobody would ever see those rows. Looked at after the commit, so that
    /// what is called done was there when it was.
    fn still_there(&self) -> std::result::Result<(), String> {
        if self.identity.is_some() && identity(&self.path) != self.identity {
            return Err("the file was removed, moved or replaced while it was open".to_owned());
        }
        Ok(())
    }

    /// One of the sinks gives up: the transaction is undone for all that are in it.
    pub(crate) fn leave(&mut self, session: u64) {
        if self.group.as_ref().is_some_and(|group| group.members.contains_key(&session)) {
            self.roll_back();
        }
    }

    /// Undoes the shared transaction.
    pub(crate) fn roll_back(&mut self) {
        let Some(group) = self.group.take() else { return };
        self.in_transaction.store(false, Ordering::SeqCst);
        self.generation += 1;
        self.undo();
        for answer in group.members.into_values().flatten() {
            let _ = answer.send(Err(undone()));
        }
    }

    fn undo(&mut self) {
        if !self.db.is_autocommit()
            && let Err(error) = self.db.execute_batch("ROLLBACK")
        {
            // Whatever is left is rolled back when the connection closes; nothing was committed.
            tracing::debug!(%error, "rollback");
        }
    }
}

/// What tells a file from another one of the same name; `None` if there is none.
#[cfg(unix)]
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let found = std::fs::metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

/// Elsewhere an open file cannot be removed.
#[cfg(not(unix))]
fn identity(_: &Path) -> Option<(u64, u64)> {
    None
}

/// What the others in a transaction hear when one gives up.
pub(crate) fn undone() -> Error {
    Error::unavailable("the transaction was undone, because another sink of the same file failed")
}

/// Whether another process has the lock.
pub(crate) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}
