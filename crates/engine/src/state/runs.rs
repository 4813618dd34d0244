//! Names, runs, checkpoints, schemas: what a pipeline's next run needs to know of the ones before.

use std::{path::Path, sync::Arc};

use arrow_ipc::{reader::StreamReader, writer::StreamWriter};
use arrow_schema::SchemaRef;
use jiff::Timestamp;
use rusqlite::{OptionalExtension, params, params_from_iter, types::Value};
use serde::{Serialize, de::DeserializeOwned};
use towpath_core::{Checkpoint, Error, Name, Result, Run};

use super::{Fault, StateStore};

/// How many runs of a pipeline are remembered.
const RUNS_KEPT: i64 = 100;
/// The status of a run that is under way, or died.
const RUNNING: &str = "running";

/// The right to store a sink's checkpoint, until somebody opens it anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence(i64);

/// A run, as it is remembered.
#[derive(Clone, Debug, Serialize)]
pub struct LastRun {
    /// The run.
    pub run: Run,
    /// `running` (also if it died), or what [`end_run`](StateStore::end_run) was told.
    pub status: String,
    /// When it was last begun or taken up.
    pub begun: Timestamp,
    /// When it ended; `None` if it is under way or died.
    pub ended: Option<Timestamp>,
    /// What [`end_run`](StateStore::end_run) was told.
    pub summary: Option<serde_json::Value>,
}

/// What was stored does not read any more: an older program, or somebody edited the file.
pub(super) fn unreadable(what: &str, error: impl std::fmt::Display) -> Error {
    Error::data(format!("the stored {what} cannot be read"))
        .because(error.to_string())
        .hint("see `towpath state show`, then `towpath state reset checkpoint`")
}

pub(super) fn parse<T: DeserializeOwned>(what: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| unreadable(what, error))
}

pub(super) fn write<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::internal("cannot be stored").because(error))
}

impl StateStore {
    /// Copies what another store remembers of a pipeline into this one, which knows nothing of it.
    pub(crate) fn copy_pipeline(&self, from: &Self, pipeline: &Name) -> Result<()> {
        for table in ["names", "runs", "checkpoints", "seen", "resets", "schemas"] {
            let rows: Vec<Vec<Value>> = from.read(|db| {
                let mut statement = db.prepare(&format!("SELECT * FROM {table} WHERE pipeline = ?1"))?;
                let columns = statement.column_count();
                statement
                    .query_map([&**pipeline], |row| (0..columns).map(|column| row.get(column)).collect())?
                    .collect()
            })?;
            self.write(|db| {
                for row in &rows {
                    let places = vec!["?"; row.len()].join(", ");
                    db.execute(&format!("INSERT INTO {table} VALUES ({places})"), params_from_iter(row))?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Says that a file runs under this pipeline's name. `ends` identifies its sources and targets, whatever path they were given by.
    /// [`Conflict`](towpath_core::ErrorKind::Conflict) if another file with other ends has the name: the two would take up each other's
    /// runs. A file that was moved keeps its ends; one that was edited keeps its path.
    pub fn claim_name(&self, pipeline: &Name, ends: &str, file: Option<&Path>) -> Result<()> {
        let file = file.map(|file| {
            let full = std::fs::canonicalize(file).or_else(|_| std::path::absolute(file));
            full.unwrap_or_else(|_| file.to_owned()).to_string_lossy().into_owned()
        });
        self.write(|db| {
            let claimed = db
                .prepare_cached("SELECT ends, file FROM names WHERE pipeline = ?1")?
                .query_row([&**pipeline], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?)))
                .optional()?;
            if let Some((other, at)) = &claimed {
                let same_file = file.is_some() && &file == at;
                if other == ends && same_file {
                    return Ok(());
                }
                if other != ends && !same_file {
                    let whose = at.as_deref().unwrap_or("another program");
                    return Err(Fault::Told(
                        Error::conflict(format!(
                            "the name '{pipeline}' belongs to {whose}, which has other sources or targets"
                        ))
                        .hint(format!(
                            "give one of the two another `name`; if that one is gone for good, run `towpath state reset checkpoint \
                             {pipeline}`"
                        )),
                    ));
                }
            }
            db.prepare_cached("REPLACE INTO names (pipeline, ends, file, claimed) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![&**pipeline, ends, file, Timestamp::now().to_string()])?;
            Ok(())
        })
    }

    /// Remembers that a run has begun, or was taken up again (the same id).
    pub fn begin_run(&self, pipeline: &Name, run: &Run) -> Result<()> {
        let text = write(run)?;
        self.write(|db| {
            // A run that is taken up keeps its place: only the newest one can be taken up at all.
            db.prepare_cached(
                "INSERT INTO runs (pipeline, id, run, begun, status) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (pipeline, id) DO UPDATE SET run = ?3, begun = ?4, ended = NULL, status = ?5, summary = NULL",
            )?
            .execute(params![&**pipeline, &*run.id, text, Timestamp::now().to_string(), RUNNING])?;
            db.prepare_cached(
                "DELETE FROM runs WHERE pipeline = ?1 AND seq <=
                 (SELECT seq FROM runs WHERE pipeline = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2)",
            )?
            .execute(params![&**pipeline, RUNS_KEPT])?;
            Ok(())
        })
    }

    /// The newest run, unless it was completed: one that died, or ended in another way, is taken up by the next.
    pub fn unfinished_run(&self, pipeline: &Name) -> Result<Option<Run>> {
        let newest = self.read(|db| {
            db.prepare_cached("SELECT run, status FROM runs WHERE pipeline = ?1 ORDER BY seq DESC LIMIT 1")?
                .query_row([&**pipeline], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))
                .optional()
        })?;
        match newest {
            Some((run, status)) if status != "completed" && status != "abandoned" => parse("run", &run).map(Some),
            _ => Ok(None),
        }
    }

    /// Remembers how a run ended. `completed` and `abandoned` (left behind on purpose) are over; every other status is one to be taken up.
    pub fn end_run(&self, pipeline: &Name, run_id: &str, status: &str, summary: &serde_json::Value) -> Result<()> {
        let summary = write(summary)?;
        self.write(|db| {
            db.prepare_cached("UPDATE runs SET status = ?3, ended = ?4, summary = ?5 WHERE pipeline = ?1 AND id = ?2")?
                .execute(params![&**pipeline, run_id, status, Timestamp::now().to_string(), summary])?;
            Ok(())
        })
    }

    /// The newest runs of a pipeline, newest first.
    pub fn last_runs(&self, pipeline: &Name, limit: usize) -> Result<Vec<LastRun>> {
        type Row = (String, String, String, Option<String>, Option<String>);
        let rows: Vec<Row> = self.read(|db| {
            db.prepare_cached(
                "SELECT run, status, begun, ended, summary FROM runs WHERE pipeline = ?1 ORDER BY seq DESC LIMIT ?2",
            )?
            .query_map(params![&**pipeline, limit as i64], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
            })?
            .collect()
        })?;
        let time = |text: &str| text.parse::<Timestamp>().map_err(|error| unreadable("time", error));
        let read = |(run, status, begun, ended, summary): Row| {
            Ok(LastRun {
                run: parse("run", &run)?,
                status,
                begun: time(&begun)?,
                ended: ended.as_deref().map(time).transpose()?,
                summary: summary.as_deref().map(|text| parse("summary", text)).transpose()?,
            })
        };
        rows.into_iter().map(read).collect()
    }

    /// Raises the fence of a sink's checkpoint and reads it, in one transaction: whoever had it open before cannot store any more.
    pub fn open_checkpoint(&self, pipeline: &Name, sink: &Name) -> Result<(Fence, Option<Checkpoint>)> {
        let (fence, text) = self.write(|db| {
            Ok(db
                .prepare_cached(
                    "INSERT INTO checkpoints (pipeline, sink, fence) VALUES (?1, ?2, 1)
                     ON CONFLICT (pipeline, sink) DO UPDATE SET fence = fence + 1 RETURNING fence, checkpoint",
                )?
                .query_row([&**pipeline, &**sink], |row| Ok((row.get(0)?, row.get::<_, Option<String>>(1)?)))?)
        })?;
        Ok((Fence(fence), text.map(|text| parse("checkpoint", &text)).transpose()?))
    }

    /// Stores a sink's checkpoint, durably, if the fence is still ours; [`Conflict`](towpath_core::ErrorKind::Conflict) if not.
    pub fn put_checkpoint(&self, pipeline: &Name, sink: &Name, fence: Fence, checkpoint: &Checkpoint) -> Result<()> {
        let text = write(checkpoint)?;
        let stored = self.write(|db| {
            Ok(db
                .prepare_cached(
                    "UPDATE checkpoints SET checkpoint = ?4 WHERE pipeline = ?1 AND sink = ?2 AND fence = ?3",
                )?
                .execute(params![&**pipeline, &**sink, fence.0, text])?)
        })?;
        if stored == 0 {
            return Err(Error::conflict(format!("another run has opened the checkpoint of sink '{sink}' since"))
                .hint("let one run of a pipeline end before another begins"));
        }
        Ok(())
    }

    /// The last checkpoint that a sink is known to have committed, wherever it keeps it: for plans, which open no sink, and because
    /// a sink that knows of less was made anew.
    pub fn seen_checkpoint(&self, pipeline: &Name, sink: &Name) -> Result<Option<Checkpoint>> {
        let text: Option<String> = self.read(|db| {
            db.prepare_cached("SELECT checkpoint FROM seen WHERE pipeline = ?1 AND sink = ?2")?
                .query_row([&**pipeline, &**sink], |row| row.get(0))
                .optional()
        })?;
        text.map(|text| parse("checkpoint", &text)).transpose()
    }

    /// Remembers that a sink has committed a checkpoint.
    pub fn note_checkpoint(&self, pipeline: &Name, sink: &Name, checkpoint: &Checkpoint) -> Result<()> {
        let text = write(checkpoint)?;
        self.write(|db| {
            db.prepare_cached("REPLACE INTO seen (pipeline, sink, checkpoint) VALUES (?1, ?2, ?3)")?.execute([
                &**pipeline,
                &**sink,
                &text,
            ])?;
            Ok(())
        })
    }

    /// The schema a component had in the last run.
    pub fn schema(&self, pipeline: &Name, component: &Name) -> Result<Option<SchemaRef>> {
        let bytes: Option<Vec<u8>> = self.read(|db| {
            db.prepare_cached("SELECT schema FROM schemas WHERE pipeline = ?1 AND component = ?2")?
                .query_row([&**pipeline, &**component], |row| row.get(0))
                .optional()
        })?;
        let read = |bytes: Vec<u8>| StreamReader::try_new(&*bytes, None).map(|reader| reader.schema());
        bytes.map(|bytes| read(bytes).map_err(|error| unreadable("schema", error))).transpose()
    }

    /// Remembers a component's schema, as Arrow's IPC stream has it.
    pub fn put_schema(&self, pipeline: &Name, component: &Name, schema: &SchemaRef) -> Result<()> {
        let mut bytes = Vec::new();
        StreamWriter::try_new(&mut bytes, schema)
            .and_then(|mut writer| writer.finish())
            .map_err(|error| Error::internal("the schema cannot be stored").because(error))?;
        let known: Option<Arc<[u8]>> = self.read(|db| {
            db.prepare_cached("SELECT schema FROM schemas WHERE pipeline = ?1 AND component = ?2")?
                .query_row([&**pipeline, &**component], |row| row.get(0))
                .optional()
        })?;
        if known.as_deref() == Some(&bytes[..]) {
            return Ok(());
        }
        self.write(|db| {
            db.prepare_cached("REPLACE INTO schemas (pipeline, component, schema) VALUES (?1, ?2, ?3)")?
                .execute(params![&**pipeline, &**component, bytes])?;
            Ok(())
        })
    }

    /// Forgets where a pipeline stands (`None`: every pipeline): its checkpoints, runs, schemas and the claim on its name. Whoever has a
    /// checkpoint open cannot store any more. Checkpoints that targets hold are not ours to delete: the next run finds
    /// [`reset_asked`](StateStore::reset_asked) and begins anew. Returns how many pipelines it was.
    pub fn reset_checkpoint(&self, pipeline: Option<&Name>) -> Result<usize> {
        let only = pipeline.map(|name| &**name);
        self.write(|db| {
            db.execute(
                "INSERT OR REPLACE INTO resets (pipeline, asked)
                 SELECT DISTINCT pipeline, ?2 FROM
                 (SELECT pipeline FROM runs UNION SELECT pipeline FROM checkpoints UNION SELECT pipeline FROM seen
                  UNION SELECT pipeline FROM names UNION SELECT pipeline FROM schemas UNION SELECT pipeline FROM outcomes)
                 WHERE ?1 IS NULL OR pipeline = ?1",
                params![only, Timestamp::now().to_string()],
            )?;
            let reset = db.changes() as usize;
            for table in ["runs", "seen", "names", "schemas", "outcomes"] {
                db.execute(&format!("DELETE FROM {table} WHERE ?1 IS NULL OR pipeline = ?1"), [only])?;
            }
            // Not deleted: the fence must stay raised above those of open runs.
            db.execute(
                "UPDATE checkpoints SET checkpoint = NULL, fence = fence + 1 WHERE ?1 IS NULL OR pipeline = ?1",
                [only],
            )?;
            Ok(reset)
        })
    }

    /// When somebody asked that the pipeline begin anew, whatever checkpoints its targets hold.
    pub fn reset_asked(&self, pipeline: &Name) -> Result<Option<Timestamp>> {
        let asked: Option<String> = self.read(|db| {
            db.prepare_cached("SELECT asked FROM resets WHERE pipeline = ?1")?
                .query_row([&**pipeline], |row| row.get(0))
                .optional()
        })?;
        asked.map(|text| text.parse().map_err(|error| unreadable("time", error))).transpose()
    }

    /// The wish of [`reset_asked`](StateStore::reset_asked) is granted: every sink has committed an epoch of a run that began anew.
    pub fn reset_done(&self, pipeline: &Name) -> Result<()> {
        self.write(|db| {
            db.prepare_cached("DELETE FROM resets WHERE pipeline = ?1")?.execute([&**pipeline])?;
            Ok(())
        })
    }
}
