//! SQL Server, as far as a loader sees one: \[MS-TDS\] on the wire, T-SQL on SQLite underneath.
//!
//! Written from the vendor's protocol document and T-SQL reference; it shares no code with the clients it tests. It takes logins (plain,
//! TLS as TDS 7.4 wraps it, TDS 8.0 strict), batches, `sp_executesql`, bulk loads, the transaction manager and attentions, and it can be
//! told to fail: see [`Fault`]. [`Log`] tells who asked what.
//!
//! ```no_run
//! # async fn example() {
//! use towpath_testkit::sql_server::{Fault, SqlServer, SqlServerOptions, What, When};
//!
//! let server = SqlServer::start(SqlServerOptions::default()).await;
//! let url = server.url(); // mssql://sa:…@127.0.0.1:…/towpath?encrypt=off
//! server.faults().add(Fault { when: When::NthCommit(0), what: What::CutAfter });
//! assert_eq!(server.query("SELECT COUNT(*) FROM sys.tables"), [[Some("0".to_owned())]]);
//! # }
//! ```
//!
//! It is not the judge of T-SQL. What it does not know is error 102 that names it. What differs from a real one on purpose: one session
//! writes at a time (a second one waits, as for a table lock on everything), readers see what is committed and never wait, an attention in
//! the middle of a write takes back all that the transaction wrote, though the transaction stays open.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU16, AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

mod ast;
mod bind;
mod bulk;
mod calendar;
mod catalog;
mod constraints;
mod convert;
mod ddl;
mod decimal;
mod error;
mod faults;
mod functions;
mod lexer;
mod locks;
mod log;
mod login;
mod parse;
mod request;
mod run;
mod serve;
mod session;
mod tls;
mod transaction;
mod types;
mod values;
mod wire;

pub use faults::{Fault, Faults, What, When};
pub use log::{Event, Log};

use session::{Control, Output, Session};

/// What the server does about encryption.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// None.
    #[default]
    Off,
    /// TDS 7.4: everything is encrypted, after a PRELOGIN in the clear. Clients that cannot are cut off.
    Required,
    /// TDS 8.0: TLS comes first.
    Strict,
}

/// What a server is like.
#[derive(Clone, Debug)]
pub struct SqlServerOptions {
    /// The only login.
    pub login: String,
    /// Its password.
    pub password: String,
    /// The only database.
    pub database: String,
    /// Encryption.
    pub tls: TlsMode,
    /// Where it listens on 127.0.0.1; `None`: a free port.
    pub port: Option<u16>,
}

impl Default for SqlServerOptions {
    fn default() -> Self {
        Self {
            login: "sa".to_owned(),
            password: "towpath_Test1".to_owned(),
            database: "towpath".to_owned(),
            tls: TlsMode::Off,
            port: None,
        }
    }
}

/// The next value, the step, the first, and the last value given.
type Identity = (i64, i64, i64, Option<i64>);

/// What all sessions share.
struct Shared {
    login: String,
    password: String,
    database: String,
    tls: TlsMode,
    path: PathBuf,
    log: Log,
    faults: Faults,
    locks: locks::Locks,
    /// Of each table with an identity.
    identities: Mutex<HashMap<i64, Identity>>,
    next_object: AtomicI64,
    next_spid: AtomicU16,
    next_transaction: AtomicU64,
    /// Of all rows of all tables that have a rowversion.
    next_version: AtomicU64,
    open_sessions: AtomicUsize,
    open_transactions: AtomicUsize,
}

impl Shared {
    fn next_object(&self) -> i64 {
        self.next_object.fetch_add(1, Ordering::Relaxed)
    }
    fn with_identities<T>(&self, work: impl FnOnce(&mut HashMap<i64, Identity>) -> T) -> T {
        work(&mut self.identities.lock().unwrap_or_else(PoisonError::into_inner))
    }
    fn set_identity(&self, table: i64, seed: i64, step: i64) {
        self.with_identities(|all| all.insert(table, (seed, step, seed, None)));
    }
    /// Never given back, not even by a rollback: as the server does it.
    fn next_identity(&self, table: i64) -> i64 {
        self.with_identities(|all| {
            let (next, step, _, last) = all.entry(table).or_insert((1, 1, 1, None));
            let value = *next;
            *next += *step;
            *last = Some(value);
            value
        })
    }
    fn last_identity(&self, table: i64) -> Option<i64> {
        self.with_identities(|all| all.get(&table).and_then(|(.., last)| *last))
    }
    fn reset_identity(&self, table: i64) {
        self.with_identities(|all| {
            if let Some((next, _, seed, _)) = all.get_mut(&table) {
                *next = *seed;
            }
        });
    }
    fn raise_identity(&self, table: i64, most: i64) {
        self.with_identities(|all| {
            if let Some((next, step, _, last)) = all.get_mut(&table) {
                *next = (*next).max(most + *step);
                *last = Some(most);
            }
        });
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("database", &self.database).field("tls", &self.tls).finish_non_exhaustive()
    }
}

/// A running server. Dropped, it stops, with every connection it has, and its data is gone.
#[derive(Debug)]
pub struct SqlServer {
    address: SocketAddr,
    certificate: Option<PathBuf>,
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: TaskTracker,
    _folder: tempfile::TempDir,
}

impl SqlServer {
    /// Starts one.
    ///
    /// # Panics
    /// If the port cannot be had. A test ends there; a program calls [`try_start`](SqlServer::try_start).
    #[expect(clippy::panic, reason = "it is what makes a test fail")]
    pub async fn start(options: SqlServerOptions) -> Self {
        match Self::try_start(options).await {
            Ok(server) => server,
            Err(error) => panic!("the SQL Server cannot start: {error}"),
        }
    }

    /// Starts one; an error if the port or a temporary folder cannot be had.
    pub async fn try_start(options: SqlServerOptions) -> std::io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let listener = TcpListener::bind(("127.0.0.1", options.port.unwrap_or(0))).await?;
        let address = listener.local_addr()?;
        let tls = match options.tls {
            TlsMode::Off => None,
            mode => Some(tls::Certificate::new(mode == TlsMode::Strict)?),
        };
        let certificate = match &tls {
            None => None,
            Some(tls) => {
                let path = folder.path().join("certificate.pem");
                std::fs::write(&path, &tls.pem)?;
                Some(path)
            }
        };
        let shared = Arc::new(Shared {
            login: options.login,
            password: options.password,
            database: options.database,
            tls: options.tls,
            path: folder.path().join("data.sqlite"),
            log: Log::default(),
            faults: Faults::default(),
            locks: locks::Locks::default(),
            identities: Mutex::default(),
            next_object: AtomicI64::new(100_001),
            next_spid: AtomicU16::new(51),
            next_transaction: AtomicU64::new(1),
            next_version: AtomicU64::new(2000),
            open_sessions: AtomicUsize::new(0),
            open_transactions: AtomicUsize::new(0),
        });
        let conn = session::open(&shared, &Arc::default()).map_err(std::io::Error::other)?;
        let catalog = format!("{}{}", catalog::TABLES.replace("{db}", "main"), catalog::SCHEMAS);
        conn.execute_batch(&catalog).map_err(std::io::Error::other)?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let acceptor = tls.map(|tls| tls.acceptor);
        tasks.spawn(serve::accept(listener, acceptor, Arc::clone(&shared), stop.clone(), tasks.clone()));
        Ok(Self { address, certificate, shared, stop, tasks, _folder: folder })
    }

    /// Where a client finds it: `mssql://sa:secret@127.0.0.1:4711/towpath?encrypt=on&trust=/tmp/…/certificate.pem`.
    pub fn url(&self) -> String {
        let shown =
            |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
        let encrypt = match self.shared.tls {
            TlsMode::Off => "off",
            TlsMode::Required => "on",
            TlsMode::Strict => "strict",
        };
        let trust = self.certificate.as_ref().map_or(String::new(), |path| format!("&trust={}", path.display()));
        let (user, password) = (shown(&self.shared.login), shown(&self.shared.password));
        format!("mssql://{user}:{password}@{}/{}?encrypt={encrypt}{trust}", self.address, self.shared.database)
    }
    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }
    /// The file with its certificate, where it speaks TLS.
    pub fn certificate_pem_path(&self) -> Option<&std::path::Path> {
        self.certificate.as_deref()
    }
    /// Who asked what.
    pub fn log(&self) -> &Log {
        &self.shared.log
    }
    /// What goes wrong from now on.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }
    /// Texts of all statements since the start, or since [`Log::clear`].
    pub fn statements_seen(&self) -> Vec<String> {
        self.shared.log.statements()
    }
    /// Transactions that are open now.
    pub fn open_transactions(&self) -> usize {
        self.shared.open_transactions.load(Ordering::Relaxed)
    }
    /// Sessions that are open now.
    pub fn open_sessions(&self) -> usize {
        self.shared.open_sessions.load(Ordering::Relaxed)
    }

    /// Runs a batch straight on the store, in a session of its own that is neither logged nor struck by faults. Values as text:
    /// binary as `0x…`, dates and times in ISO 8601 with a blank. An error of the server's is its number and text.
    pub fn try_query(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>, String> {
        let spid = self.shared.next_spid.fetch_add(1, Ordering::Relaxed);
        let output = Output::Kept { rows: vec![], error: None };
        let session =
            Session::new(Arc::clone(&self.shared), spid, "query".to_owned(), Arc::new(Control::default()), output);
        let mut session = session.map_err(|error| error.to_string())?;
        session.lock_timeout = 30_000;
        session.batch(sql);
        session.end_of_batch();
        session.roll_back();
        match session.output {
            Output::Kept { error: Some(error), .. } => Err(format!("{}: {}", error.number, error.message)),
            Output::Kept { rows, .. } => Ok(rows),
            Output::Wire(_) => Ok(vec![]),
        }
    }
    /// The same; all result sets in one.
    ///
    /// # Panics
    /// If the server has an error for it.
    #[expect(clippy::panic, reason = "it is what makes a test fail")]
    pub fn query(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        match self.try_query(sql) {
            Ok(rows) => rows,
            Err(error) => panic!("{error}\nin {sql}"),
        }
    }
    /// Runs a batch for what it does.
    ///
    /// # Panics
    /// If the server has an error for it.
    pub fn execute(&self, sql: &str) {
        self.query(sql);
    }

    /// Stops, and returns when no task of it is left.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
    /// Serves until the future is dropped: for a program that does nothing else.
    pub async fn serve(&self) {
        self.stop.cancelled().await;
    }
}

impl Drop for SqlServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
