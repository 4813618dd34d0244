//! Connections: made once, kept, checked before they are used again, closed when in doubt. The only place that knows the driver's client.
//!
//! A session on which anything failed or was abandoned is never used again: its server may still be answering, and its transaction may be undone
//! without the driver knowing.

use std::{
    borrow::Cow,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use deadpool::managed::{self, Metrics, Object, QueueMode, RecycleError, RecycleResult};
use tiberius::{AuthMethod, BulkLoadRequest, EncryptionLevel, Row, SqlBulkCopyOption, ToSql};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};
use towpath_core::{Call, Context, Effect, Error, ErrorKind, Result};

use crate::{
    config::Encrypt,
    encrypt::{self, Channel},
    error::{During as _, TOO_SHORT, failed},
    login::Login,
    overheard::Failure,
};

pub(crate) use crate::overheard::quietly;

/// The driver's client.
pub(crate) type Tds = tiberius::Client<Compat<Channel>>;

/// How long a check, a rollback or an attention may take before the connection is given up.
const SHORT: Duration = Duration::from_secs(5);
/// Azure sends a client on to another address, once, sometimes twice.
const REDIRECTS: usize = 3;

/// Deadlines of a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// For the answer to one statement; `None` where it is watched elsewhere.
    pub(crate) statement: Option<Duration>,
    /// For a lock of somebody else's.
    pub(crate) lock: Duration,
}

/// How a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Fit for a request.
    Calm,
    /// The server is working for it; if that is abandoned, it can be told to stop.
    Busy,
    /// In the middle of a bulk load, where there is no stopping: only the end of the connection.
    Loading,
    /// Something failed. The server may have undone the transaction without the driver knowing.
    Failed,
}

/// One connection, signed in.
pub(crate) struct Session {
    tds: Tds,
    standing: Standing,
    /// For the answer to one statement.
    limit: Option<Duration>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({:?})", self.standing)
    }
}

impl Session {
    /// Waits for the answer to a request, for as long as a statement may take; then the session is still busy, and the server is told to stop when it is
    /// let go of.
    async fn answered<T>(
        limit: Option<Duration>,
        what: &str,
        work: impl Future<Output = tiberius::Result<T>>,
    ) -> Result<Result<T, Failure>> {
        // The driver's futures are large: on the heap, so that a stack holds many of them.
        let asked = Box::pin(quietly(work));
        match limit {
            None => Ok(asked.await),
            Some(limit) => timeout(limit, asked).await.map_err(|_| {
                Error::timeout(format!("cannot {what}"))
                    .because(format!("it takes longer than {limit:?}, and was stopped"))
                    .hint(TOO_SHORT)
            }),
        }
    }
    /// Notes how a request ended; only after a success is the session fit for another.
    fn ended<T>(&mut self, what: &str, done: Result<T, Failure>) -> Result<T> {
        self.standing = if done.is_ok() { Standing::Calm } else { Standing::Failed };
        done.during(what)
    }
    /// Runs a batch as it is, outside of any procedure: settings, temporary tables, transactions. The rows of each result.
    pub(crate) async fn batch(&mut self, what: &str, sql: &str) -> Result<Vec<Vec<Row>>> {
        self.standing = Standing::Busy;
        let asked = async {
            let answer = self.tds.simple_query(sql).await?;
            answer.into_results().await
        };
        let done = Self::answered(self.limit, what, asked).await?;
        self.ended(what, done)
    }
    /// The rows of one statement with parameters @P1 …
    pub(crate) async fn ask(&mut self, what: &str, sql: &str, parameters: &[&dyn ToSql]) -> Result<Vec<Row>> {
        self.standing = Standing::Busy;
        let asked = async {
            let answer = self.tds.query(sql, parameters).await?;
            answer.into_first_result().await
        };
        let done = Self::answered(self.limit, what, asked).await?;
        self.ended(what, done)
    }
    /// Runs one statement with parameters; how many rows it touched.
    pub(crate) async fn execute(&mut self, what: &str, sql: &str, parameters: &[&dyn ToSql]) -> Result<u64> {
        self.standing = Standing::Busy;
        let done = Self::answered(self.limit, what, self.tds.execute(sql, parameters)).await?;
        self.ended(what, done.map(|done| done.total()))
    }
    /// Begins a bulk load; until [`calm`](Session::calm) says otherwise the session counts as spoilt, because a load that is let go of leaves its
    /// connection hanging.
    pub(crate) async fn bulk<'a>(
        &'a mut self,
        table: &'a str,
        columns: &'a [&'a str],
    ) -> tiberius::Result<BulkLoadRequest<'a, Compat<Channel>>> {
        self.standing = Standing::Loading;
        Box::pin(self.tds.bulk_insert_with_options(
            table,
            columns,
            SqlBulkCopyOption::TableLock | SqlBulkCopyOption::KeepNulls,
            &[],
        ))
        .await
    }
    /// The request that was begun has ended well.
    pub(crate) fn calm(&mut self) {
        self.standing = Standing::Calm;
    }
    /// Whether nothing is under way and nothing has failed.
    pub(crate) fn is_calm(&self) -> bool {
        self.standing == Standing::Calm
    }
    /// The driver, for an answer that is read piece by piece; the session counts as spoilt until [`calm`](Session::calm).
    pub(crate) fn driver(&mut self) -> &mut Tds {
        self.standing = Standing::Busy;
        &mut self.tds
    }
    /// One statement with parameters of any kind; how many rows it touched.
    pub(crate) async fn run(&mut self, what: &str, query: tiberius::Query<'_>) -> Result<u64> {
        self.standing = Standing::Busy;
        let done = Self::answered(self.limit, what, query.execute(&mut self.tds)).await?;
        self.ended(what, done.map(|done| done.total()))
    }
    /// Stops what the server is doing for this session (attention) and undoes an open transaction, as far as that can be done quickly. The
    /// session is of no more use.
    pub(crate) async fn abandon(&mut self) {
        let busy = std::mem::replace(&mut self.standing, Standing::Failed) == Standing::Busy;
        let stop = async {
            if busy {
                self.tds.cancel_query().await?;
            }
            self.tds.simple_query("IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION").await?.into_results().await
        };
        if let Ok(Err(failure)) = timeout(SHORT, quietly(stop)).await {
            let error = failed("stop", failure);
            tracing::debug!(%error, "a connection is closed without its consent");
        }
    }
}

/// Makes sessions and checks them.
pub(crate) struct Manager {
    login: Login,
    ctx: Context,
    limits: Limits,
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.login.origin())
    }
}

impl managed::Manager for Manager {
    type Type = Session;
    type Error = Error;

    async fn create(&self) -> Result<Session> {
        let (server, user, password) = (self.login.origin(), &self.login.user, &self.login.password);
        if self.ctx.planning() && self.login.has_unset() {
            // No failure of the server.
            return Err(Error::config("the connection has a variable that is not set, so the server is not asked"));
        }
        let admission = self.ctx.credentials().admit(&server, user, password).await?;
        let at = (self.login.at.host.clone(), self.login.at.port);
        let channel =
            match timeout(self.login.at.connect_timeout.0, Box::pin(encrypt::open(&self.login, &at.0, at.1))).await {
                Ok(Ok(channel)) => channel,
                Ok(Err(error)) => {
                    admission.unsent();
                    return Err(error);
                }
                Err(_) => {
                    admission.unsent();
                    return Err(too_long(&at, self.login.at.encrypt));
                }
            };
        // From here on the password is on the wire.
        match self.sign_in(channel, at).await {
            Ok(tds) => {
                admission.proven();
                self.set_up(tds).await
            }
            Err(error) => {
                match error.kind() {
                    ErrorKind::Auth => admission.refused(),
                    // Signed in, and then something else: a database that is not there, a redirection that leads nowhere.
                    ErrorKind::NotFound | ErrorKind::Config => admission.proven(),
                    _ => drop(admission),
                }
                Err(error)
            }
        }
    }

    async fn recycle(&self, session: &mut Session, _: &Metrics) -> RecycleResult<Error> {
        if !session.is_calm() {
            return Err(RecycleError::message("something failed on it"));
        }
        let check = session.batch("check a connection", "SELECT @@TRANCOUNT");
        match timeout(SHORT, check).await {
            Ok(Ok(rows)) if first_number(&rows) == Some(0) => Ok(()),
            Ok(Ok(_)) => Err(RecycleError::message("a transaction is open on it")),
            Ok(Err(error)) => Err(RecycleError::Backend(error)),
            Err(_) => Err(RecycleError::message("it does not answer")),
        }
    }
}

/// The number in the first cell.
pub(crate) fn first_number(results: &[Vec<Row>]) -> Option<i64> {
    let row = results.first()?.first()?;
    number(row, 0)
}

/// A whole number of any width.
pub(crate) fn number(row: &Row, column: usize) -> Option<i64> {
    use tiberius::ColumnData as D;
    match row.get_column_data(column).ok()? {
        D::U8(value) => value.map(i64::from),
        D::I16(value) => value.map(i64::from),
        D::I32(value) => value.map(i64::from),
        D::I64(value) => *value,
        D::Bit(value) => value.map(i64::from),
        D::Numeric(value) => value.and_then(|value| i64::try_from(value.int_part()).ok()),
        _ => None,
    }
}

/// A text.
pub(crate) fn text(row: &Row, column: usize) -> Option<String> {
    match row.get_column_data(column).ok()? {
        tiberius::ColumnData::String(value) => value.as_ref().map(|text| text.clone().into_owned()),
        _ => None,
    }
}

impl Manager {
    async fn sign_in(&self, mut channel: Channel, mut at: (String, u16)) -> Result<Tds> {
        let login = &self.login.at;
        for _ in 0..REDIRECTS {
            let mut config = tiberius::Config::new();
            config.host(&at.0);
            config.port(at.1);
            if let Some(database) = &login.database {
                config.database(database);
            }
            config.application_name(&login.application_name);
            config.packet_size(login.packet_size);
            // What there is to encrypt is encrypted below the driver.
            config.encryption(EncryptionLevel::NotSupported);
            config.authentication(AuthMethod::sql_server(&self.login.user, self.login.password.expose()));
            config.handshake_timeout(Some(login.connect_timeout.0));
            // Behind our own: a connection that the driver gives up cannot tell the server to stop.
            config.command_timeout(self.limits.statement.map(|limit| limit + SHORT));
            match Box::pin(quietly(tiberius::Client::connect(config, channel.compat()))).await {
                Err(Failure { error: tiberius::error::Error::Routing { host, port }, .. }) => {
                    let next = timeout(login.connect_timeout.0, encrypt::open(&self.login, &host, port)).await;
                    channel = next.unwrap_or_else(|_| Err(too_long(&(host.clone(), port), login.encrypt)))?;
                    at = (host, port);
                }
                done => return done.during("sign in"),
            }
        }
        Err(Error::config("the server sends us from one address to the next"))
    }

    /// What every session of ours goes by: an error undoes the transaction, nobody waits for a lock for ever, dates are read as year, month, day.
    async fn set_up(&self, tds: Tds) -> Result<Session> {
        let mut session = Session { tds, standing: Standing::Calm, limit: self.limits.statement };
        session.batch("set up the session", &set_up_sql(self.limits.lock)).await?;
        Ok(session)
    }
}

fn too_long((host, port): &(String, u16), encrypt: Encrypt) -> Error {
    let hint =
        "check host and port of the connection, and whether a firewall is between; or raise its `connect_timeout`";
    // Who waits for a pre-login takes the beginning of a TLS handshake for a packet that does not end.
    let version_8 = if encrypt == Encrypt::Strict {
        "; or write `encrypt=on`, if the server does not know TDS 8 (SQL Server 2022 and later)"
    } else {
        ""
    };
    Error::timeout(format!("connecting to {host}:{port} takes too long")).hint(format!("{hint}{version_8}"))
}

/// The settings of a session. Those that an insert needs where a computed column or a part of a table has an index, or a view does (else error 1934): the
/// driver's sign-in asks for all but ARITHABORT, which a server's `user options` or a database may have otherwise, as they may have NOCOUNT, without which
/// nobody knows how many rows there were, and transactions that begin by themselves ("SET Statements", learn.microsoft.com/sql/t-sql/statements).
pub(crate) fn set_up_sql(lock: Duration) -> String {
    format!(
        "SET ANSI_NULLS, ANSI_PADDING, ANSI_WARNINGS, ARITHABORT, CONCAT_NULL_YIELDS_NULL, QUOTED_IDENTIFIER ON; SET NUMERIC_ROUNDABORT OFF; \
         SET NOCOUNT OFF; SET IMPLICIT_TRANSACTIONS OFF; SET XACT_ABORT ON; SET LOCK_TIMEOUT {}; SET DATEFORMAT ymd;",
        lock.as_millis()
    )
}

/// A pool of sessions of one login.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    pool: managed::Pool<Manager>,
    origin: String,
    place: String,
    ctx: Context,
    /// Sessions that are being stopped.
    leaving: Arc<Mutex<JoinSet<()>>>,
}

impl Pool {
    /// An empty one, of at most `size` sessions.
    pub(crate) fn new(login: Login, ctx: &Context, size: usize, limits: Limits) -> Result<Self> {
        let (origin, place) = (login.origin(), login.place());
        let manager = Manager { login, ctx: ctx.clone(), limits };
        let pool = managed::Pool::builder(manager).max_size(size).queue_mode(QueueMode::Lifo).build();
        let pool = pool.map_err(|error| Error::internal("cannot make a pool of connections").because(error))?;
        Ok(Self { pool, origin, place, ctx: ctx.clone(), leaving: Arc::default() })
    }
    /// A call to the server.
    pub(crate) fn call(&self, what: impl Into<Cow<'static, str>>, effect: Effect) -> Call {
        Call::new(what.into(), self.origin.clone(), effect)
    }
    /// Server and database, without secrets.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }
    /// A session nobody else has, fit for use. Not by the door: this is a part of a call.
    pub(crate) async fn session(&self) -> Result<Lease> {
        // What it takes to sign in is large: on the heap.
        let got = Box::pin(self.pool.get()).await.map_err(|error| match error {
            managed::PoolError::Backend(error) => error,
            other => Error::internal("cannot get a connection from the pool").because(other),
        });
        got.map(|session| Lease { session: Some(session), leaving: Arc::clone(&self.leaving) })
    }
    /// The context of the component.
    pub(crate) fn ctx(&self) -> &Context {
        &self.ctx
    }
    /// Closes everything; nothing more is given out. Takes a few seconds where a server has to be told to stop.
    pub(crate) async fn close(&self) {
        self.pool.close();
        let mut leaving = std::mem::take(&mut *self.leaving.lock().unwrap_or_else(PoisonError::into_inner));
        while leaving.join_next().await.is_some() {}
    }
}

/// A session on loan. Given back if it is calm; else told to stop, if the server is working for it, and closed.
#[derive(Debug)]
pub(crate) struct Lease {
    session: Option<Object<Manager>>,
    leaving: Arc<Mutex<JoinSet<()>>>,
}

impl std::ops::Deref for Lease {
    type Target = Session;
    #[allow(clippy::expect_used, reason = "it is taken by drop alone")]
    fn deref(&self) -> &Session {
        self.session.as_deref().expect("a lease has its session until it is dropped")
    }
}

impl std::ops::DerefMut for Lease {
    #[allow(clippy::expect_used, reason = "it is taken by drop alone")]
    fn deref_mut(&mut self) -> &mut Session {
        self.session.as_deref_mut().expect("a lease has its session until it is dropped")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(session) = self.session.take().filter(|session| !session.is_calm()) else { return };
        let mut session = Object::take(session);
        if session.standing == Standing::Busy && tokio::runtime::Handle::try_current().is_ok() {
            let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
            while leaving.try_join_next().is_some() {}
            leaving.spawn(async move { session.abandon().await });
        }
    }
}
