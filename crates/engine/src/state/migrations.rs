//! The store's tables, version by version. A version that was released is never edited: add one.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};
use towpath_core::{Error, Result};

use super::fault;

/// Each takes the file from its index to the next version.
const VERSIONS: &[&str] = &[
    "
    -- Which file a pipeline's name belongs to.
    CREATE TABLE names (
        pipeline TEXT PRIMARY KEY, ends TEXT NOT NULL, file TEXT, claimed TEXT NOT NULL
    ) STRICT;
    CREATE TABLE runs (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        pipeline TEXT NOT NULL, id TEXT NOT NULL, run TEXT NOT NULL,
        begun TEXT NOT NULL, ended TEXT, status TEXT NOT NULL, summary TEXT,
        UNIQUE (pipeline, id)
    ) STRICT;
    -- Checkpoints of sinks that cannot hold their own.
    CREATE TABLE checkpoints (
        pipeline TEXT NOT NULL, sink TEXT NOT NULL, fence INTEGER NOT NULL, checkpoint TEXT,
        PRIMARY KEY (pipeline, sink)
    ) STRICT;
    -- A copy of the last checkpoint that a sink is known to have committed, wherever it keeps its own.
    CREATE TABLE seen (
        pipeline TEXT NOT NULL, sink TEXT NOT NULL, checkpoint TEXT NOT NULL, PRIMARY KEY (pipeline, sink)
    ) STRICT;
    CREATE TABLE resets (pipeline TEXT PRIMARY KEY, asked TEXT NOT NULL) STRICT;
    CREATE TABLE schemas (
        pipeline TEXT NOT NULL, component TEXT NOT NULL, schema BLOB NOT NULL, PRIMARY KEY (pipeline, component)
    ) STRICT;
    -- One row per request that the guard has let pass; ended is null while it is under way.
    CREATE TABLE leases (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        origin TEXT NOT NULL, boot TEXT NOT NULL, started INTEGER NOT NULL, until INTEGER NOT NULL, ended INTEGER,
        max_concurrent INTEGER, min_interval INTEGER, busy_share REAL
    ) STRICT;
    CREATE INDEX leases_origin ON leases (origin);
    -- Servers that somebody guards: requests to them are recorded also by those who set no limit.
    CREATE TABLE guarded (origin TEXT PRIMARY KEY, boot TEXT NOT NULL, cheap INTEGER NOT NULL) STRICT;
    CREATE TABLE breakers (
        origin TEXT NOT NULL, resource TEXT NOT NULL, failures INTEGER NOT NULL, reason TEXT NOT NULL, since TEXT NOT NULL,
        cool INTEGER NOT NULL, boot TEXT NOT NULL, closed_until INTEGER, probe_until INTEGER,
        PRIMARY KEY (origin, resource)
    ) STRICT;
    CREATE TABLE secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
    CREATE TABLE credentials (
        server TEXT NOT NULL, account TEXT NOT NULL, fingerprint BLOB NOT NULL, state TEXT NOT NULL,
        boot TEXT NOT NULL, at INTEGER NOT NULL, wall TEXT NOT NULL, owner TEXT NOT NULL,
        PRIMARY KEY (server, account, fingerprint)
    ) STRICT;
    ",
    "
    -- Servers that asked to be left alone for a time.
    CREATE TABLE pauses (origin TEXT PRIMARY KEY, boot TEXT NOT NULL, until INTEGER NOT NULL) STRICT;
    ",
    "
    -- What became of a pipeline's last run, also of one that failed before it was entered in runs. under_way while it goes, and if it
    -- died; ended and report are those of the last one that came to an end.
    CREATE TABLE outcomes (
        pipeline TEXT PRIMARY KEY, started TEXT NOT NULL, under_way INTEGER NOT NULL, ended TEXT, report TEXT
    ) STRICT;
    INSERT INTO outcomes (pipeline, started, under_way, ended, report)
    SELECT pipeline, begun, status = 'running', ended, summary FROM runs AS run
    WHERE seq = (SELECT max(seq) FROM runs WHERE pipeline = run.pipeline);
    -- What a process that serves a pipeline says of it: true only while it holds its lock, taken at `since`.
    CREATE TABLE served (
        pipeline TEXT PRIMARY KEY, since TEXT NOT NULL, schedule TEXT NOT NULL, next TEXT, skipped INTEGER NOT NULL
    ) STRICT;
    ",
    "
    -- What vendors let accounts spend in a day, and what was spent of it: by us, and as far as known by others.
    CREATE TABLE budgets (
        account TEXT PRIMARY KEY, ends TEXT, spent INTEGER NOT NULL, others INTEGER NOT NULL, over_until TEXT
    ) STRICT;
    -- One row per request in a vendor's window; counts is null until it was answered, then the latest it can have arrived.
    CREATE TABLE budget_requests (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        account TEXT NOT NULL, boot TEXT NOT NULL, sent INTEGER NOT NULL, until INTEGER NOT NULL, counts INTEGER
    ) STRICT;
    CREATE INDEX budget_requests_account ON budget_requests (account);
    -- Tokens that are exchanged for new ones (OAuth2), by server and account.
    CREATE TABLE tokens (
        server TEXT NOT NULL, account TEXT NOT NULL, access TEXT NOT NULL, refresh TEXT, issued TEXT NOT NULL, expires TEXT,
        seed TEXT NOT NULL, generation INTEGER NOT NULL, PRIMARY KEY (server, account)
    ) STRICT;
    -- Up to which epoch dead letters of a sink are superseded: those of a key, or (the empty key) those of all runs but one.
    CREATE TABLE superseded (
        pipeline TEXT NOT NULL, sink TEXT NOT NULL, key BLOB NOT NULL, upto INTEGER NOT NULL, but_run TEXT,
        PRIMARY KEY (pipeline, sink, key)
    ) STRICT;
    -- Dead letters that are being sent again: they stay until all of them are done.
    CREATE TABLE replaying (
        pipeline TEXT NOT NULL, sink TEXT NOT NULL, place INTEGER NOT NULL, folder INTEGER NOT NULL, file INTEGER NOT NULL,
        at INTEGER NOT NULL, epoch INTEGER NOT NULL, key BLOB, PRIMARY KEY (pipeline, sink, place)
    ) STRICT;
    CREATE TABLE replays (
        pipeline TEXT NOT NULL, sink TEXT NOT NULL, selection INTEGER NOT NULL, PRIMARY KEY (pipeline, sink)
    ) STRICT;
    -- Dead letters that were sent again, by the place of their lines.
    CREATE TABLE replayed (
        pipeline TEXT NOT NULL, sink TEXT NOT NULL, folder INTEGER NOT NULL, file INTEGER NOT NULL, at INTEGER NOT NULL,
        PRIMARY KEY (pipeline, sink, folder, file, at)
    ) STRICT;
    ",
    "
    -- When the first failure in a row was, by the clock of the row's boot.
    ALTER TABLE breakers ADD COLUMN first INTEGER;
    ",
    "
    -- Dead letters that somebody has put away, by the place of their lines. With the run: files may be removed by hand, and begin anew.
    CREATE TABLE discarded (
        pipeline TEXT NOT NULL, component TEXT NOT NULL, folder INTEGER NOT NULL, file INTEGER NOT NULL, at INTEGER NOT NULL,
        run TEXT NOT NULL, PRIMARY KEY (pipeline, component, folder, file, at, run)
    ) STRICT;
    ",
];

/// Brings the file to this program's version, in one transaction.
pub(super) fn apply(db: &mut Connection, dir: Option<&Path>) -> Result<()> {
    let told = |error: rusqlite::Error| fault(dir, &error);
    let version = |db: &Connection| db.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0));
    let ours = VERSIONS.len() as i64;
    if version(db).map_err(told)? == ours {
        return Ok(());
    }
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(told)?;
    let theirs = version(&transaction).map_err(told)?;
    if theirs > ours || theirs < 0 {
        let place = dir.map_or_else(String::new, |dir| dir.display().to_string());
        return Err(Error::conflict(format!(
            "the state store was written by a newer version of this program (version {theirs} of the store; this one knows {ours})"
        ))
        .at(format!("state {place}"))
        .hint("use the newer program, or another state directory with --state-dir"));
    }
    for sql in VERSIONS.iter().skip(theirs as usize) {
        transaction.execute_batch(sql).map_err(told)?;
    }
    transaction.pragma_update(None, "user_version", ours).map_err(told)?;
    transaction.commit().map_err(told)
}
