//! What the server's and the driver's failures mean.
//!
//! Numbers and texts of errors: "Database engine events and errors", learn.microsoft.com/sql/relational-databases/errors-events; which of them are
//! transient: "Troubleshoot transient connection errors in SQL Database", and the lists of Microsoft's own drivers.

use std::time::Duration;

use tiberius::error::{Error as Tds, IoErrorKind, TokenError};
use towpath_core::{Error, ErrorKind, Result, Retry};

use crate::overheard::{Failure, Said};

/// What an error of the server means for the statement that met it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The login or its password is not taken, or locked, or expired.
    LoginRefused,
    /// A right is missing.
    Permission,
    /// A database, table or procedure is not there, or not to be seen.
    Missing,
    /// Passes by itself: deadlock, lock, failover.
    Transient,
    /// The server is asked too much of.
    Throttled,
    /// The disk or the log is full.
    Full,
    /// A value: null, too long, out of range, of another type, against a constraint.
    Data,
    /// A key that is taken.
    Duplicate,
    /// What we send is not what the server expects.
    Ours,
    /// Anything else.
    Other,
}

/// What an error number means.
///
/// 4060, a database that cannot be opened, is on Microsoft's list of what passes by itself in Azure, and to a server it is a name that is not there or not the
/// login's. Taken as the latter: a name misspelt, tried again and again, would have the whole server left alone by every pipeline, and a database
/// that is being moved or comes up says so by a number of its own first (40613, 40197; 921, 922, 18401), of which the first is the one we see.
pub(crate) fn meaning(code: u32) -> Meaning {
    match code {
        18451 | 18452 | 18456 | 18461..=18471 | 18482..=18489 => Meaning::LoginRefused,
        229 | 230 | 262 | 297 | 300 | 378 | 916 | 1088 | 3701 | 3704 | 15247 | 15151 | 15404 => Meaning::Permission,
        208 | 911 | 2812 | 4060 | 4064 | 4121 | 4902 => Meaning::Missing,
        40501 | 49918..=49920 | 10928 | 10929 => Meaning::Throttled,
        64
        | 121
        | 233
        | 601
        | 617
        | 669
        | 921
        | 922
        | 952
        | 976
        | 978
        | 979
        | 983
        | 1203..=1205
        | 1222
        | 1418
        | 1807
        | 3935
        | 3960
        | 3966
        | 4221
        | 8628
        | 8645
        | 8651
        | 9515
        | 10053
        | 10054
        | 10060
        | 14355
        | 17197
        | 18401..=18404
        | 20041
        | 40143
        | 40197
        | 40540
        | 40613
        | 40615
        | 41301
        | 41302
        | 41305
        | 41325
        | 41839
        | 42108
        | 42109 => Meaning::Transient,
        1101 | 1105 | 3257 | 5149 | 9002 | 40544 => Meaning::Full,
        1505 | 2601 | 2627 => Meaning::Duplicate,
        // 50000 and up are raised by triggers and procedures of the table's owner, because of the row.
        220
        | 232
        | 235
        | 236
        | 241
        | 242
        | 244
        | 245
        | 248
        | 257
        | 260
        | 281
        | 295
        | 296
        | 313
        | 515
        | 517
        | 530
        | 544
        | 547
        | 550
        | 681
        | 1007
        | 2628
        | 3609
        | 3616
        | 4863..=4869
        | 6522
        | 7339
        | 8114
        | 8115
        | 8134
        | 8152
        | 8169
        | 8170
        | 9400..=9420
        | 9455
        | 9803..=9808
        | 50000.. => Meaning::Data,
        4804 | 4815 | 4816 | 7343 | 8009 | 8016 | 8018 | 8023..=8028 => Meaning::Ours,
        _ => Meaning::Other,
    }
}

/// What to do about a statement that takes too long.
pub(crate) const TOO_SHORT: &str =
    "raise `timeout` if the server needs longer for it; else see what blocks it (sys.dm_exec_requests)";

/// Classifies a failure. `what` completes "cannot …".
pub(crate) fn failed(what: &str, failure: impl Into<Failure>) -> Error {
    let Failure { error, said } = failure.into();
    if let Some(words) = said {
        return said_by_server(what, &words);
    }
    let said = |kind| Error::new(kind, format!("cannot {what}"));
    match &error {
        Tds::Server(token) => return said_by_server(what, &token.into()),
        Tds::Io { kind: IoErrorKind::TimedOut, .. } => said(ErrorKind::Timeout).hint(TOO_SHORT),
        // The driver's word for a connection that ended in the middle of an answer, or that a time-out has spoilt.
        Tds::Io { .. } | Tds::Protocol(_) | Tds::Tls(_) => said(ErrorKind::Unavailable),
        Tds::Routing { .. } => said(ErrorKind::Unavailable),
        Tds::Encoding(_) | Tds::Utf8 | Tds::Utf16 => said(ErrorKind::Data),
        _ => said(ErrorKind::Internal),
    }
    .because(match error {
        Tds::Io { message, .. } => message,
        Tds::Protocol(message) | Tds::Encoding(message) | Tds::Conversion(message) | Tds::BulkInput(message) => {
            message.into_owned()
        }
        other => other.to_string(),
    })
}

fn said_by_server(what: &str, said_it: &Said) -> Error {
    let said = |kind| Error::new(kind, format!("cannot {what}")).because(words(said_it));
    match meaning(said_it.code) {
        Meaning::LoginRefused => {
            said(ErrorKind::Auth).hint("see whether the login exists, is enabled and has this password")
        }
        Meaning::Permission => said(ErrorKind::Auth).retry(Retry::Never).hint(grant(&said_it.message)),
        Meaning::Missing if matches!(said_it.code, 911 | 4060 | 4064) => said(ErrorKind::NotFound)
            .hint("check the name of the database in the connection, and that the login has a user in it (CREATE USER … FOR LOGIN …)"),
        Meaning::Missing => said(ErrorKind::NotFound)
            .hint("check the name and its schema; an object one has no right to see is said not to exist"),
        Meaning::Transient => said(ErrorKind::Unavailable),
        // As Microsoft asks of clients: not before ten seconds.
        Meaning::Throttled => said(ErrorKind::RateLimited).retry(Retry::After(Duration::from_secs(10))),
        Meaning::Full => said(ErrorKind::Unavailable).hint("make room for the database's files or its log"),
        Meaning::Duplicate => said(ErrorKind::Conflict),
        Meaning::Data => match advice(said_it.code, &said_it.message) {
            Some(advice) => said(ErrorKind::Data).hint(advice),
            None => said(ErrorKind::Data),
        },
        Meaning::Ours => said(ErrorKind::Internal),
        // A severity of 17 and up is a matter of the server's resources or health.
        Meaning::Other if said_it.class >= 17 => said(ErrorKind::Unavailable),
        Meaning::Other => match advice(said_it.code, &said_it.message) {
            Some(advice) => said(ErrorKind::Config).hint(advice),
            None => said(ErrorKind::Config),
        },
    }
}

/// What to do about errors that have one remedy.
fn advice(code: u32, message: &str) -> Option<String> {
    Some(match code {
        547 if message.contains("REFERENCE constraint") => {
            let by = message.split_once("table \"").and_then(|(_, rest)| Some(rest.split_once('"')?.0)).unwrap_or("another table");
            format!("rows of {by} point to rows that would be taken out: write `upsert` instead of `replace`, or take those rows out first")
        }
        2760 => "check the schema in the name of the table, or make it: CREATE SCHEMA".to_owned(),
        1033 => "take ORDER BY out of the query: it is read as a derived table, in which the server allows none; `cursor` gives an order".to_owned(),
        3952 => {
            let database = message.split_once("database")?.1.split('\'').nth(1).map_or("CURRENT".to_owned(), crate::catalog::quote);
            format!("ALTER DATABASE {database} SET ALLOW_SNAPSHOT_ISOLATION ON, or leave out `snapshot`")
        }
        8155 => "give every column of the query a name: … AS name".to_owned(),
        8156 => "give every column of the query a name of its own: … AS name".to_owned(),
        _ => return None,
    })
}

impl From<&TokenError> for Said {
    fn from(token: &TokenError) -> Self {
        Self {
            code: token.code(),
            class: token.class(),
            message: token.message().to_owned(),
            procedure: token.procedure().to_owned(),
        }
    }
}

/// The server's own words, with its number.
fn words(said: &Said) -> String {
    told(&said.message, said.code, &said.procedure)
}

/// What the server says, in the words it has for it. Those of its own procedures that we call are not named.
pub(crate) fn told(message: &str, code: u32, procedure: &str) -> String {
    let message = message.trim_end();
    if procedure.is_empty() || procedure.to_lowercase().starts_with("sp_") {
        return format!("{message} (error {code})");
    }
    format!("{message} (error {code}, raised by {procedure})")
}

/// What to grant: `The INSERT permission was denied on the object 'log', database 'd', schema 'dbo'.`
fn grant(message: &str) -> String {
    let quoted = |after: &str| message.split_once(after)?.1.split('\'').nth(1).map(str::to_owned);
    let right =
        message.split_once("The ").or_else(|| message.split_once(' ').filter(|_| message.starts_with("CREATE ")));
    let right = right.and_then(|(before, rest)| {
        let text = if before.is_empty() { rest } else { message };
        text.split_once(" permission").map(|(right, _)| right.trim().to_owned())
    });
    match (right, quoted("object"), quoted("schema")) {
        (Some(right), Some(object), Some(schema)) => {
            format!("GRANT {right} ON [{schema}].[{object}] TO the login's user")
        }
        (Some(right), ..) => format!("GRANT {right} TO the login's user"),
        _ => "see which rights the login's user has: SELECT * FROM fn_my_permissions(NULL, 'DATABASE')".to_owned(),
    }
}

/// Says what was being done when the server failed.
pub(crate) trait During<T> {
    /// `what` completes "cannot …".
    fn during(self, what: &str) -> Result<T>;
}

impl<T, E: Into<Failure>> During<T> for Result<T, E> {
    fn during(self, what: &str) -> Result<T> {
        self.map_err(|error| failed(what, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_mean_what_microsoft_says() {
        for (code, expect) in [
            (18456, Meaning::LoginRefused),
            (18486, Meaning::LoginRefused),
            (229, Meaning::Permission),
            (262, Meaning::Permission),
            (208, Meaning::Missing),
            (1205, Meaning::Transient),
            (1222, Meaning::Transient),
            (4060, Meaning::Missing),
            (922, Meaning::Transient),
            (18401, Meaning::Transient),
            (40613, Meaning::Transient),
            (40501, Meaning::Throttled),
            (9002, Meaning::Full),
            (2627, Meaning::Duplicate),
            (515, Meaning::Data),
            (547, Meaning::Data),
            (2628, Meaning::Data),
            (50_001, Meaning::Data),
            (4815, Meaning::Ours),
            (102, Meaning::Other),
        ] {
            assert_eq!(meaning(code), expect, "{code}");
        }
    }

    #[test]
    fn what_has_one_remedy_is_told_with_it() {
        let message = "Snapshot isolation transaction failed accessing database 'shop' because snapshot isolation is not allowed in this database.";
        let remedy = "ALTER DATABASE [shop] SET ALLOW_SNAPSHOT_ISOLATION ON, or leave out `snapshot`";
        assert_eq!(advice(3952, message).as_deref(), Some(remedy));
        assert!(
            advice(1033, "The ORDER BY clause is invalid in views").is_some_and(|advice| advice.contains("ORDER BY"))
        );
        let message = "The DELETE statement conflicted with the REFERENCE constraint \"FK\". The conflict occurred in database \"d\", table \"dbo.child\", column 'parent'.";
        assert!(advice(547, message).is_some_and(|advice| advice.starts_with("rows of dbo.child point to")));
        let message = "The INSERT statement conflicted with the FOREIGN KEY constraint \"FK\". The conflict occurred in database \"d\", table \"dbo.parent\", column 'id'.";
        assert_eq!(advice(547, message), None);
        assert_eq!(advice(102, "Incorrect syntax near 'x'."), None);
    }

    #[test]
    fn a_missing_right_says_what_to_grant() {
        for (message, expect) in [
            (
                "The INSERT permission was denied on the object 'log', database 'd', schema 'dbo'.",
                "GRANT INSERT ON [dbo].[log] TO the login's user",
            ),
            ("CREATE TABLE permission denied in database 'd'.", "GRANT CREATE TABLE TO the login's user"),
            (
                "Cannot find the object",
                "see which rights the login's user has: SELECT * FROM fn_my_permissions(NULL, 'DATABASE')",
            ),
        ] {
            assert_eq!(grant(message), expect);
        }
    }
}
