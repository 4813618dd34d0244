//! The table `towpath_checkpoint`: who may write, and how far the rows go that are there.
//!
//! | column | |
//! |---|---|
//! | `pipeline`, `sink` | whose it is |
//! | `fence` | raised by every `open`; a commit with another one changes nothing |
//! | `run`, `epoch`, `checkpoint` | where the run stands; `checkpoint` is JSON |
//! | `marker` | the index that marks the table: it goes when the table is dropped, and the checkpoint with it |
//! | `staged_run`, `staged_rows` | `replace`: whose rows wait in the staging table, and up to which row they are committed |

use rusqlite::{Connection, OptionalExtension as _, params};
use towpath_core::{Checkpoint, Error, Result, Run, WriteMode};

use crate::{error::During as _, table::quote};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS towpath_checkpoint (
  pipeline TEXT NOT NULL,
  sink TEXT NOT NULL,
  fence INTEGER NOT NULL,
  run TEXT,
  epoch INTEGER,
  checkpoint TEXT,
  marker TEXT,
  staged_run TEXT,
  staged_rows INTEGER,
  updated TEXT,
  PRIMARY KEY (pipeline, sink)
) STRICT, WITHOUT ROWID";

/// A sink's place in the table of checkpoints, held by the number of its fence.
#[derive(Clone, Debug)]
pub(crate) struct Fence {
    pub(crate) pipeline: String,
    pub(crate) sink: String,
    pub(crate) number: i64,
}

/// Every row of the staging table is committed: they came in by the transactions of the commits.
pub(crate) const ALL_STAGED: i64 = i64::MAX;

/// What a commit writes beside the rows.
pub(crate) struct Stand<'a> {
    pub(crate) checkpoint: &'a Checkpoint,
    pub(crate) marker: Option<String>,
    pub(crate) staged_rows: Option<i64>,
}

/// The name of the staging table of a sink.
pub(crate) fn staging_name(pipeline: &str, sink: &str) -> String {
    format!("towpath_staging_{:016x}", xxhash_rust::xxh3::xxh3_64(format!("{pipeline}\0{sink}").as_bytes()))
}

impl Fence {
    /// Raises the fence and reads the checkpoint. Throws away what another run has staged, and what this one staged after its
    /// last commit. Call it inside a transaction.
    pub(crate) fn raise(
        db: &Connection,
        pipeline: &str,
        sink: &str,
        table: &str,
        mode: WriteMode,
        run: &Run,
    ) -> Result<(Self, Option<Checkpoint>)> {
        let doing = "raise the fence in towpath_checkpoint";
        db.execute_batch(TABLE).during(doing)?;
        // Above every number there ever was, also if the row was deleted while somebody still writes: never below the clock.
        let number: i64 = db
            .query_row(
                "INSERT INTO towpath_checkpoint (pipeline, sink, fence) VALUES (?1, ?2, ?3)
                 ON CONFLICT (pipeline, sink) DO UPDATE SET fence = max(fence + 1, excluded.fence) RETURNING fence",
                params![pipeline, sink, jiff::Timestamp::now().as_microsecond()],
                |row| row.get(0),
            )
            .during(doing)?;
        let fence = Self { pipeline: pipeline.to_owned(), sink: sink.to_owned(), number };
        let (text, marker, staged_run, staged_rows): (Option<String>, Option<String>, Option<String>, Option<i64>) = db
            .query_row(
                "SELECT checkpoint, marker, staged_run, staged_rows FROM towpath_checkpoint WHERE pipeline = ?1 AND sink = ?2",
                params![pipeline, sink],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
            )
            .during(doing)?;
        let mut checkpoint = text.map(|text| fence.parse(&text)).transpose()?;

        let staging = staging_name(pipeline, sink);
        let is_staged = exists(db, "table", &staging, None)?;
        let ours = mode == WriteMode::Replace && staged_run.as_deref() == Some(&*run.id);
        if is_staged && ours && staged_rows == Some(ALL_STAGED) {
            // Whatever was not committed was rolled back.
        } else if is_staged && ours {
            let sql = format!("DELETE FROM {} WHERE rowid > ?1", quote(&staging));
            db.execute(&sql, [staged_rows]).during("throw away rows that were staged after the last commit")?;
        } else if is_staged {
            db.execute_batch(&format!("DROP TABLE {}", quote(&staging)))
                .during("throw away what another run staged")?;
        }

        let voided = match (&checkpoint, &marker) {
            (None, _) => None,
            (Some(_), _) if ours && staged_rows.is_some() && !is_staged => Some("the rows it had staged are gone"),
            (Some(_), Some(marker)) if !exists(db, "index", marker, Some(table))? => {
                Some("the table was dropped, or made anew, since")
            }
            _ => None,
        };
        if let Some(why) = voided {
            tracing::warn!(pipeline, sink, table, "the checkpoint no longer holds, loading begins anew: {why}");
            checkpoint = None;
        }
        if voided.is_some() || (staged_run.is_some() && !ours) {
            let sql = "UPDATE towpath_checkpoint SET staged_run = NULL, staged_rows = NULL,
                       checkpoint = iif(?3, NULL, checkpoint), marker = iif(?3, NULL, marker) WHERE pipeline = ?1 AND sink = ?2";
            db.execute(sql, params![pipeline, sink, voided.is_some()]).during(doing)?;
        }
        Ok((fence, checkpoint))
    }

    fn parse(&self, text: &str) -> Result<Checkpoint> {
        serde_json::from_str(text).map_err(|error| {
            Error::conflict(format!(
                "the checkpoint of {}/{} in towpath_checkpoint cannot be read",
                self.pipeline, self.sink
            ))
            .because(error)
            .hint("a newer towpath wrote it, or somebody edited it: use that version, or delete the row to begin anew")
        })
    }

    /// Fails if another process has raised the fence since.
    pub(crate) fn check(&self, db: &Connection) -> Result<()> {
        let number: Option<i64> = db
            .prepare_cached("SELECT fence FROM towpath_checkpoint WHERE pipeline = ?1 AND sink = ?2")
            .and_then(|mut read| read.query_row(params![self.pipeline, self.sink], |row| row.get(0)).optional())
            .during("read the fence")?;
        if number == Some(self.number) { Ok(()) } else { Err(self.lost()) }
    }

    /// Writes the checkpoint, if the fence is still ours. Call it inside the transaction of the rows.
    pub(crate) fn store(&self, db: &Connection, stand: &Stand<'_>) -> Result<()> {
        let Stand { checkpoint, marker, staged_rows } = stand;
        let text = serde_json::to_string(checkpoint)
            .map_err(|error| Error::internal("cannot write the checkpoint as JSON").because(error))?;
        let staged_run = staged_rows.map(|_| &*checkpoint.run.id);
        let updated = db
            .execute(
                "UPDATE towpath_checkpoint SET run = ?4, epoch = ?5, checkpoint = ?6, marker = ?7, staged_run = ?8, staged_rows = ?9,
                 updated = datetime('now') WHERE pipeline = ?1 AND sink = ?2 AND fence = ?3",
                params![
                    self.pipeline,
                    self.sink,
                    self.number,
                    &*checkpoint.run.id,
                    i64::try_from(checkpoint.epoch).unwrap_or(i64::MAX),
                    text,
                    marker,
                    staged_run,
                    staged_rows
                ],
            )
            .during("write the checkpoint")?;
        if updated == 1 { Ok(()) } else { Err(self.lost()) }
    }

    fn lost(&self) -> Error {
        Error::conflict(format!(
            "another process has opened {}/{} for writing since; nothing of this epoch was written",
            self.pipeline, self.sink
        ))
        .hint("let only one process run a pipeline; this one may simply stop")
    }
}

/// Whether there is a table or index of a name (on a table).
fn exists(db: &Connection, kind: &str, name: &str, table: Option<&str>) -> Result<bool> {
    db.query_row(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = ?1 AND name = ?2 AND (?3 IS NULL OR tbl_name = ?3 COLLATE NOCASE))",
        params![kind, name, table],
        |row| row.get(0),
    )
    .during("look for a table")
}

/// How the name of a mark begins.
pub(crate) const MARK: &str = "towpath_mark_";

/// The table's mark: an index without a single entry, which lives and dies with the table. That is how a table that was dropped and
/// made anew is told from the one a checkpoint speaks of. Made if there is none. Call it inside a transaction.
pub(crate) fn mark(db: &Connection, table: &str, column: &str) -> Result<String> {
    let doing = "mark the table";
    let there = db
        .query_row(
            "SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = ?1 COLLATE NOCASE AND name GLOB 'towpath_mark_*'",
            [table],
            |row| row.get(0),
        )
        .optional()
        .during(doing)?;
    if let Some(name) = there {
        return Ok(name);
    }
    new_mark(db, table, column)
}

/// A new mark. On a table that is still empty it costs nothing; else SQLite reads the table once.
pub(crate) fn new_mark(db: &Connection, table: &str, column: &str) -> Result<String> {
    let doing = "mark the table";
    let token: String = db.query_row("SELECT lower(hex(randomblob(8)))", [], |row| row.get(0)).during(doing)?;
    let name = format!("{MARK}{token}");
    db.execute_batch(&format!("CREATE INDEX {} ON {} ({}) WHERE 0", quote(&name), quote(table), quote(column)))
        .during(doing)?;
    Ok(name)
}
