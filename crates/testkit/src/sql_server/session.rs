//! A session: a thread with a connection to the store of its own, which executes what its client sends, one request after the other.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rusqlite::{Connection, InterruptHandle, types::Value};
use tokio::sync::mpsc;

use super::{
    Event, Shared,
    ast::Isolation,
    bulk::Bulk,
    catalog,
    error::{Sql, SqlError},
    functions::{self, Flags},
    locks::Resource,
    types::Ty,
    wire::{Done, Tokens, change, done},
};

/// What the connection hands over.
pub(super) enum Request {
    Message {
        kind: u8,
        body: Vec<u8>,
        reset: bool,
    },
    Bulk {
        bytes: Vec<u8>,
        last: bool,
        ignore: bool,
    },
    /// An attention came while nothing ran: a bulk load that has begun is given up.
    GiveUp,
}

/// What comes back.
pub(super) enum Reply {
    Tokens(Vec<u8>),
    /// From now on so many bytes a second.
    Rate(u64),
    /// The request is done.
    End,
    /// The connection is to be cut.
    Cut,
    /// The same, behind what was answered; `whole`: with the end of the answer.
    Leave {
        whole: bool,
    },
}

/// How the connection reaches into a running request.
#[derive(Default)]
pub(super) struct Control {
    cancelled: AtomicBool,
    closed: AtomicBool,
    interrupt: Mutex<Option<InterruptHandle>>,
}

impl Control {
    /// A new request: nobody has cancelled it yet.
    pub fn begin(&self) {
        self.cancelled.store(false, Ordering::Release);
    }
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        if let Some(handle) = &*self.interrupt.lock().unwrap_or_else(PoisonError::into_inner) {
            handle.interrupt();
        }
    }
    /// The client is gone.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.cancel();
    }
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire) || self.closed.load(Ordering::Acquire)
    }
}

/// Where answers go.
pub(super) enum Output {
    Wire(mpsc::Sender<Reply>),
    /// Kept, for a test.
    Kept {
        rows: Vec<Vec<Option<String>>>,
        error: Option<SqlError>,
    },
}

/// How far SQLite's own transaction goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Store {
    /// There is none.
    Idle,
    /// Only the session's own tables are written.
    Own,
    /// The lock for writing is held.
    Writing,
}

/// How the server ends a connection of its own will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    /// It says why first.
    Saying,
    /// That is cut off.
    CutOff,
}

/// A session.
pub(super) struct Session {
    pub shared: Arc<Shared>,
    pub spid: u16,
    pub application: String,
    pub conn: Connection,
    pub control: Arc<Control>,
    pub flags: Arc<Flags>,
    pub output: Output,
    pub tokens: Vec<u8>,
    /// A DONE that waits to know whether more follows.
    pub pending: Option<(Done, u16, Option<u64>)>,
    pub procedure: bool,
    pub trancount: i64,
    pub descriptor: u64,
    pub store: Store,
    pub doomed: bool,
    /// An error of severity 20 and up has ended the connection, or a fault says it shall.
    pub leaving: Option<Leaving>,
    pub savepoints: Vec<String>,
    /// Application locks, and whether they are the session's and not the transaction's.
    pub app_locks: Vec<(String, bool)>,
    pub xact_abort: bool,
    pub nocount: bool,
    pub lock_timeout: i64,
    pub isolation: Isolation,
    pub identity_insert: Option<i64>,
    pub variables: HashMap<String, (Ty, Value)>,
    pub rowcount: i64,
    pub identity: Option<i64>,
    pub caught: Option<SqlError>,
    pub last_error: i32,
    /// Tables that a procedure has made, to be dropped at its end.
    pub temps: Vec<i64>,
    pub depth: usize,
    pub bulk: Option<Bulk>,
    pub requests: Option<mpsc::Receiver<Request>>,
    pub queue: VecDeque<Request>,
}

/// Opens the store.
pub(super) fn open(shared: &Arc<Shared>, flags: &Arc<Flags>) -> rusqlite::Result<Connection> {
    let conn = Connection::open(&shared.path)?;
    conn.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -65536;
         PRAGMA foreign_keys = OFF; PRAGMA wal_autocheckpoint = 20000;",
    )?;
    conn.busy_timeout(Duration::from_secs(10))?;
    conn.set_prepared_statement_cache_capacity(64);
    functions::register(&conn, shared, flags)?;
    conn.execute_batch(&catalog::TABLES.replace("{db}", "temp"))?;
    Ok(conn)
}

/// Starts a session's thread.
pub(super) fn start(
    shared: Arc<Shared>,
    spid: u16,
    application: String,
) -> (Arc<Control>, mpsc::Sender<Request>, mpsc::Receiver<Reply>) {
    let control = Arc::new(Control::default());
    let (requests, incoming) = mpsc::channel(64);
    let (outgoing, replies) = mpsc::channel(8);
    let theirs = Arc::clone(&control);
    std::thread::spawn(move || {
        shared.open_sessions.fetch_add(1, Ordering::Relaxed);
        if let Ok(mut session) = Session::new(Arc::clone(&shared), spid, application, theirs, Output::Wire(outgoing)) {
            session.serve(incoming);
        }
        shared.log.add(spid, Event::Disconnect);
        shared.open_sessions.fetch_sub(1, Ordering::Relaxed);
    });
    (control, requests, replies)
}

impl Session {
    pub fn new(
        shared: Arc<Shared>,
        spid: u16,
        application: String,
        control: Arc<Control>,
        output: Output,
    ) -> rusqlite::Result<Self> {
        let flags = Arc::new(Flags::default());
        let conn = open(&shared, &flags)?;
        *control.interrupt.lock().unwrap_or_else(PoisonError::into_inner) = Some(conn.get_interrupt_handle());
        Ok(Self {
            shared,
            spid,
            application,
            conn,
            control,
            flags,
            output,
            tokens: vec![],
            pending: None,
            procedure: false,
            trancount: 0,
            descriptor: 0,
            store: Store::Idle,
            doomed: false,
            leaving: None,
            savepoints: vec![],
            app_locks: vec![],
            xact_abort: false,
            nocount: false,
            lock_timeout: -1,
            isolation: Isolation::ReadCommitted,
            identity_insert: None,
            variables: HashMap::new(),
            rowcount: 0,
            identity: None,
            caught: None,
            last_error: 0,
            temps: vec![],
            depth: 0,
            bulk: None,
            requests: None,
            queue: VecDeque::new(),
        })
    }

    fn serve(&mut self, incoming: mpsc::Receiver<Request>) {
        self.requests = Some(incoming);
        while let Some(request) = self.next_request() {
            let (cut, ends) = match request {
                Request::Message { kind, body, reset } => {
                    if reset {
                        self.reset();
                    }
                    (self.message(kind, &body), true)
                }
                Request::Bulk { bytes, last, ignore } => (self.bulk_packet(&bytes, last, ignore), last),
                Request::GiveUp => {
                    self.give_up_bulk();
                    (false, true)
                }
            };
            if cut {
                let reply = match self.leaving {
                    None => Reply::Cut,
                    Some(leaving) => {
                        self.settle(false);
                        self.flush();
                        Reply::Leave { whole: leaving == Leaving::Saying }
                    }
                };
                self.end();
                self.send(reply);
                return;
            }
            if ends {
                self.flush();
                self.send(Reply::End);
            }
        }
        self.end();
    }

    fn next_request(&mut self) -> Option<Request> {
        if let Some(request) = self.queue.pop_front() {
            return Some(request);
        }
        // A load that holds the store while its client is busy elsewhere gives way to who waits for it.
        while self.bulk.as_ref().is_some_and(Bulk::can_yield) {
            match self.requests.as_mut()?.try_recv() {
                Ok(request) => return Some(request),
                Err(mpsc::error::TryRecvError::Disconnected) => return None,
                Err(mpsc::error::TryRecvError::Empty) => {
                    self.yield_bulk();
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
        }
        self.requests.as_mut()?.blocking_recv()
    }

    /// Takes what has come meanwhile off the connection's hands.
    pub fn spool(&mut self) {
        if let Some(requests) = &mut self.requests {
            while let Ok(request) = requests.try_recv() {
                self.queue.push_back(request);
            }
        }
    }

    fn send(&mut self, reply: Reply) {
        if let Output::Wire(sender) = &self.output
            && sender.blocking_send(reply).is_err()
        {
            self.control.close();
        }
    }

    /// The answer to this request shall flow slowly.
    pub fn slow(&mut self, rate: u64) {
        self.send(Reply::Rate(rate));
    }

    pub fn flush(&mut self) {
        if !self.tokens.is_empty() {
            let tokens = std::mem::take(&mut self.tokens);
            self.send(Reply::Tokens(tokens));
        }
    }

    /// The end of the session, whoever ends it.
    fn end(&mut self) {
        self.give_up_bulk();
        self.roll_back();
        self.pending = None;
        self.tokens.clear();
        for (name, _) in std::mem::take(&mut self.app_locks) {
            self.shared.locks.release(self.spid, &Resource::App(name));
        }
    }

    /// `sp_reset_connection`: as if it had just logged in.
    fn reset(&mut self) {
        self.end();
        let temps: Vec<i64> = self
            .conn
            .prepare("SELECT id FROM temp.sys_objects")
            .and_then(|mut all| all.query_map([], |row| row.get(0))?.collect())
            .unwrap_or_default();
        for id in temps {
            let _ = self.drop_temp(id);
        }
        (self.xact_abort, self.nocount, self.lock_timeout) = (false, false, -1);
        (self.isolation, self.identity_insert) = (Isolation::ReadCommitted, None);
        self.variables.clear();
        self.changed_bytes(change::RESET, &[], &[]);
    }

    /// Drops a `#table`.
    pub fn drop_temp(&mut self, id: i64) -> Sql<()> {
        if let Some(table) = catalog::find_id(&self.conn, id)? {
            self.conn.execute_batch(&format!("DROP TABLE IF EXISTS {}", table.sql()))?;
            catalog::remove(&self.conn, &table)?;
        }
        Ok(())
    }

    /// Sends the DONE that waits; `more`: something follows.
    pub fn settle(&mut self, more: bool) {
        if let Some((which, status, rows)) = self.pending.take() {
            let more = if more { done::MORE } else { 0 };
            self.tokens.done(which, status | more, rows);
        }
    }

    /// A statement is done.
    pub fn statement_done(&mut self, status: u16, rows: Option<u64>) {
        self.settle(true);
        let which = if self.procedure { Done::InProcedure } else { Done::Batch };
        self.pending = Some((which, status, rows));
    }

    /// An error is answered.
    pub fn answer_error(&mut self, error: &SqlError) {
        self.settle(true);
        if error.class > 10 {
            self.last_error = error.number;
            self.shared.log.add(self.spid, Event::Error { number: error.number, message: error.message.clone() });
        }
        let procedure = error.procedure.as_deref().unwrap_or(if self.procedure { "sp_executesql" } else { "" });
        self.tokens.error(error, procedure);
        if let Output::Kept { error: kept @ None, .. } = &mut self.output
            && error.class > 10
        {
            *kept = Some(error.clone());
        }
    }
}

impl Tokens for Session {
    fn out(&mut self) -> &mut Vec<u8> {
        self.settle(true);
        &mut self.tokens
    }
}
