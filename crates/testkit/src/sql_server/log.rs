//! Who asked what: what a test looks at after the client is done.

use std::sync::{Arc, Mutex, PoisonError};

/// Something that happened in a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody wanted in. `refused`: the error that was answered, such as 18456.
    Login {
        /// The login's name.
        user: String,
        /// What the client calls itself.
        application: String,
        /// Why not.
        refused: Option<i32>,
    },
    /// A batch came.
    Batch(String),
    /// A procedure was called: its name, or the statement of `sp_executesql`.
    Rpc(String),
    /// A statement was executed, of a batch, a call, or (`BEGIN TRANSACTION`, `COMMIT`, `ROLLBACK`, `SAVE TRANSACTION`) asked of the
    /// transaction manager; a bulk load is `INSERT BULK …` too, once its last packet has come.
    Statement(String),
    /// A bulk load ended. Rows that were stored; `None`: it failed or was given up.
    Bulk {
        /// The table as it was named.
        table: String,
        /// How many.
        rows: Option<u64>,
    },
    /// A transaction began.
    Begin,
    /// A transaction was committed.
    Commit,
    /// A transaction was rolled back, by whomever.
    Rollback,
    /// An error was answered.
    Error {
        /// Its number.
        number: i32,
        /// Its text.
        message: String,
    },
    /// The client asked to stop.
    Attention,
    /// A fault struck.
    Fault(String),
    /// The session is over.
    Disconnect,
}

/// All that happened. Cheap to clone; all clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<Vec<(u16, Event)>>>);

impl Log {
    pub(super) fn add(&self, session: u16, event: Event) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((session, event));
    }
    /// Everything, in order, with the session's id (`@@SPID`).
    pub fn events(&self) -> Vec<(u16, Event)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// How many events there are of a kind.
    pub fn count(&self, of: impl Fn(&Event) -> bool) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(|(_, event)| of(event)).count()
    }
    /// Texts of all statements, in order.
    pub fn statements(&self) -> Vec<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let statement = |event: &Event| if let Event::Statement(text) = event { Some(text.clone()) } else { None };
        all.iter().filter_map(|(_, event)| statement(event)).collect()
    }
    /// Logins that were let in.
    pub fn logins(&self) -> usize {
        self.count(|event| matches!(event, Event::Login { refused: None, .. }))
    }
    /// Logins that were refused.
    pub fn refused(&self) -> usize {
        self.count(|event| matches!(event, Event::Login { refused: Some(_), .. }))
    }
    /// Transactions committed.
    pub fn commits(&self) -> usize {
        self.count(|event| *event == Event::Commit)
    }
    /// Transactions rolled back.
    pub fn rollbacks(&self) -> usize {
        self.count(|event| *event == Event::Rollback)
    }
    /// Requests to stop.
    pub fn attentions(&self) -> usize {
        self.count(|event| *event == Event::Attention)
    }
    /// Errors answered: numbers, in order.
    pub fn errors(&self) -> Vec<i32> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = |event: &Event| if let Event::Error { number, .. } = event { Some(*number) } else { None };
        all.iter().filter_map(|(_, event)| number(event)).collect()
    }
    /// Bulk loads that ended: the table, and how many rows were stored.
    pub fn bulk_loads(&self) -> Vec<(String, Option<u64>)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let load =
            |event: &Event| if let Event::Bulk { table, rows } = event { Some((table.clone(), *rows)) } else { None };
        all.iter().filter_map(|(_, event)| load(event)).collect()
    }
    /// Forgets everything.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
