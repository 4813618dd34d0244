//! Errors as SQL Server numbers and words them ("Database Engine events and errors", Microsoft Learn).

use std::fmt;

/// An error of the server's, as the ERROR token carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SqlError {
    pub number: i32,
    /// Severity: 11–16 the statement's fault, 13 deadlocks, 20 and up end the connection.
    pub class: u8,
    pub state: u8,
    pub message: String,
    /// Line of the batch, from 1; 0: not known yet.
    pub line: u32,
    /// The trigger that raised it.
    pub procedure: Option<String>,
}

/// What an error ends, with XACT_ABORT OFF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    /// The statement; the batch goes on.
    Statement,
    /// The batch; a transaction stays open.
    Batch,
    /// The batch and the transaction.
    Transaction,
}

const MARK: &str = "\u{1}tds|";

impl SqlError {
    pub fn new(number: i32, class: u8, message: impl Into<String>) -> Self {
        Self { number, class, state: 1, message: message.into(), line: 0, procedure: None }
    }
    /// An ordinary one, of severity 16.
    pub fn of(number: i32, message: impl Into<String>) -> Self {
        Self::new(number, 16, message)
    }
    pub fn syntax(near: &str) -> Self {
        Self::new(102, 15, format!("Incorrect syntax near '{near}'."))
    }
    /// What this server cannot do although a real one can: said as a syntax error that names it, never passed over.
    pub fn unsupported(what: &str) -> Self {
        Self::new(102, 15, format!("Incorrect syntax near '{what}'. (Not simulated.)"))
    }
    pub fn invalid_object(name: &str) -> Self {
        Self::of(208, format!("Invalid object name '{name}'."))
    }
    pub fn invalid_column(name: &str) -> Self {
        Self::of(207, format!("Invalid column name '{name}'."))
    }
    pub fn overflow(to: &str) -> Self {
        Self::of(8115, format!("Arithmetic overflow error converting expression to data type {to}."))
    }
    pub fn deadlock(spid: u16) -> Self {
        Self::new(
            1205,
            13,
            format!(
                "Transaction (Process ID {spid}) was deadlocked on lock resources with another process and has been chosen as the \
                 deadlock victim. Rerun the transaction."
            ),
        )
    }
    /// The client has asked to stop: nothing is answered to that but the DONE of the attention.
    pub fn cancelled() -> Self {
        Self::new(3617, 10, "the statement was cancelled")
    }
    pub fn is_cancelled(&self) -> bool {
        self.number == 3617
    }
    pub fn lock_timeout() -> Self {
        Self::of(1222, "Lock request time out period exceeded.")
    }
    /// A fault that a test ordered by number alone, in the words a real server has for it.
    pub fn ordered(number: i32, spid: u16) -> Self {
        let (class, text) = match number {
            1205 => return Self::deadlock(spid),
            1222 => return Self::lock_timeout(),
            229 => (14, "The INSERT permission was denied on the object, database 'towpath', schema 'dbo'."),
            262 => (14, "CREATE TABLE permission denied in database 'towpath'."),
            1105 => (17, "Could not allocate space for object in database because the 'PRIMARY' filegroup is full."),
            1204 => (19, "The instance of the SQL Server Database Engine cannot obtain a LOCK resource at this time."),
            4060 => (11, "Cannot open database requested by the login. The login failed."),
            9002 => (17, "The transaction log for database 'towpath' is full due to 'ACTIVE_TRANSACTION'."),
            10928 | 10929 => (20, "Resource limit of the database has been reached."),
            40197 => (20, "The service has encountered an error processing your request. Please try again."),
            40501 => (20, "The service is currently busy. Retry the request after 10 seconds."),
            40613 => {
                (20, "Database 'towpath' on server is not currently available. Please retry the connection later.")
            }
            49918..=49920 => (20, "Cannot process request. Too many operations in progress."),
            _ => (16, "An error that was ordered."),
        };
        Self::new(number, class, text)
    }

    /// What it ends. From "Error and Transaction Handling in SQL Server" (E. Sommarskog), which lists what the manual leaves out.
    pub fn ends(&self) -> Ends {
        match self.number {
            241 | 242 | 244 | 245 | 248 | 295 | 296 | 517 | 8114 | 8169 | 235 | 9420 => Ends::Transaction,
            1205 | 3960 | 3961 => Ends::Transaction,
            102 | 137 | 156 | 207 | 208 | 209 | 4104 | 468 | 2812 => Ends::Batch,
            _ if self.class >= 20 => Ends::Transaction,
            // THROW.
            50_000.. => Ends::Batch,
            _ if self.class == 15 => Ends::Batch,
            _ => Ends::Statement,
        }
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SQLite hands it through as text: what a function of ours says comes back from the statement that called it.
        let text = self.message.replace('\0', "\u{fffd}");
        write!(f, "{MARK}{}|{}|{}|{text}", self.number, self.class, self.state)
    }
}

impl std::error::Error for SqlError {}

impl From<SqlError> for rusqlite::Error {
    fn from(error: SqlError) -> Self {
        Self::UserFunctionError(Box::new(error))
    }
}

impl From<rusqlite::Error> for SqlError {
    fn from(error: rusqlite::Error) -> Self {
        let text = error.to_string();
        if let Some(at) = text.find(MARK) {
            let mut parts = text[at + MARK.len()..].splitn(4, '|');
            let mut number = || parts.next().and_then(|part| part.parse::<i32>().ok()).unwrap_or(50000);
            let (id, class, state) = (number(), number(), number());
            let [class, state] = [class, state].map(|n| u8::try_from(n).unwrap_or(16));
            let message = parts.next().unwrap_or_default().to_owned();
            return Self { number: id, class, state, message, line: 0, procedure: None };
        }
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => Self::lock_timeout(),
            Some(rusqlite::ErrorCode::OperationInterrupted) => Self::cancelled(),
            // A bug of the simulator's: say all there is.
            _ => Self::new(50001, 16, format!("simulator: {text}")),
        }
    }
}

/// What a fallible step of the server gives.
pub(crate) type Sql<T> = Result<T, SqlError>;
