//! What SQLite's failures mean.

use std::path::Path;

use rusqlite::{ErrorCode, ffi};
use towpath_core::{Error, ErrorKind, Reject, Result, Retry};

/// Classifies a failure of SQLite.
pub(crate) fn failed(what: &str, error: rusqlite::Error) -> Error {
    let failed = |kind| Error::new(kind, format!("cannot {what}"));
    let made = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => failed(ErrorKind::Unavailable)
            .hint("another program is writing to the file: find it, or raise lock_timeout"),
        Some(ErrorCode::OperationInterrupted) => return Error::cancelled(),
        Some(ErrorCode::DiskFull) => failed(ErrorKind::Unavailable).hint("make room on the disk"),
        Some(ErrorCode::SystemIoFailure) => failed(ErrorKind::Unavailable),
        Some(ErrorCode::CannotOpen) => {
            failed(ErrorKind::NotFound).hint("make the folder, and see that this user may write in it")
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => failed(ErrorKind::Auth)
            .hint("let this user write to the file and to its folder (SQLite keeps -wal and -shm beside it)"),
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            failed(ErrorKind::Data).hint("look at the file with `sqlite3 FILE 'pragma integrity_check'`")
        }
        Some(ErrorCode::ConstraintViolation) => failed(ErrorKind::Conflict),
        Some(ErrorCode::SchemaChanged) => failed(ErrorKind::Conflict).retry(Retry::Again),
        Some(ErrorCode::OutOfMemory | ErrorCode::TooBig) => failed(ErrorKind::Data),
        _ => failed(ErrorKind::Config),
    };
    made.because(words(error))
}

/// SQLite's own words, without its numbers.
fn words(error: rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(_, Some(words)) => words,
        other => other.to_string(),
    }
}

/// Says what was being done when SQLite failed, and to which file.
pub(crate) trait During<T> {
    /// `what` completes "cannot …".
    fn during(self, what: &str) -> Result<T>;
}

impl<T> During<T> for rusqlite::Result<T> {
    fn during(self, what: &str) -> Result<T> {
        self.map_err(|error| failed(what, error))
    }
}

/// Adds the file to an error.
pub(crate) fn at(path: &Path) -> impl FnOnce(Error) -> Error + use<'_> {
    move |error| if error.kind() == ErrorKind::Cancelled { error } else { error.at(path.display().to_string()) }
}

/// If a statement failed because of its row, what to tell about that row.
pub(crate) fn refusal(row: usize, error: &rusqlite::Error) -> Option<Reject> {
    let rusqlite::Error::SqliteFailure(ffi::Error { code, extended_code }, message) = error else { return None };
    let message = message.as_deref().unwrap_or("constraint failed");
    match code {
        ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig => {}
        _ => return None,
    }
    let taken = [ffi::SQLITE_CONSTRAINT_PRIMARYKEY, ffi::SQLITE_CONSTRAINT_UNIQUE, ffi::SQLITE_CONSTRAINT_ROWID]
        .contains(extended_code);
    let mut reject = Reject::row(row, message).kind(if taken { ErrorKind::Conflict } else { ErrorKind::Data });
    if let Some(column) = column_of(message) {
        reject = reject.column(column);
    }
    Some(reject)
}

/// The column named by a message of SQLite's: `NOT NULL constraint failed: orders.id` (of several, the first),
/// `cannot store TEXT value in INTEGER column orders.id`.
fn column_of(message: &str) -> Option<&str> {
    let named = match message.split_once(" constraint failed: ") {
        Some(("CHECK", _)) => return None,
        Some((_, named)) => named.split(", ").next()?,
        None => message.split_once(" column ")?.1,
    };
    let (_, column) = named.rsplit_once('.')?;
    Some(column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_column_is_found_in_sqlites_words() {
        for (message, column) in [
            ("NOT NULL constraint failed: orders.id", Some("id")),
            ("UNIQUE constraint failed: orders.a, orders.b", Some("a")),
            ("cannot store TEXT value in INTEGER column orders.qty", Some("qty")),
            ("CHECK constraint failed: qty > 0", None),
            ("FOREIGN KEY constraint failed", None),
        ] {
            assert_eq!(column_of(message), column, "{message}");
        }
    }
}
