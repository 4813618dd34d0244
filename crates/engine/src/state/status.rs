//! What became of a pipeline's last run, whether one is under way, and when the next begins: what `towpath status` shows.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};
use serde::Serialize;
use serde_json::Value;
use towpath_core::{Name, Result};

use super::{
    Holder, Served, StateStore,
    runs::{parse, unreadable, write},
};
use crate::replay::is_replay;

/// How a pipeline stands.
#[derive(Clone, Debug, Serialize)]
pub struct PipelineStatus {
    /// The pipeline.
    pub pipeline: Name,
    /// The file that has the name, as far as known.
    pub file: Option<String>,
    /// How its last run ended. `None`: there was none.
    pub last: Option<LastOutcome>,
    /// Who runs it now.
    pub running: Option<Holder>,
    /// Who starts it by its schedule.
    pub served: Option<Served>,
}

/// How the last run of a pipeline ended.
#[derive(Clone, Debug, Serialize)]
pub struct LastOutcome {
    /// `completed`, `failed`, `stopped` (too many rejected rows), `cancelled` (interrupted), or `died`.
    pub status: String,
    /// When it was begun. `None` while another one is under way.
    pub started: Option<Timestamp>,
    /// When it ended. `None` if it died.
    pub ended: Option<Timestamp>,
    /// Why it did not complete.
    pub error: Option<String>,
    /// The line that ends `run --json`. `None` if it died.
    pub report: Option<Value>,
}

/// A row of `outcomes`.
struct Row {
    started: Timestamp,
    under_way: bool,
    ended: Option<Timestamp>,
    report: Option<Value>,
}

impl StateStore {
    /// Remembers that a run of a pipeline begins now. Whoever says so holds the pipeline's lock.
    pub(crate) fn note_start(&self, pipeline: &Name) -> Result<()> {
        self.write(|db| {
            db.prepare_cached(
                "INSERT INTO outcomes (pipeline, started, under_way) VALUES (?1, ?2, 1)
                 ON CONFLICT (pipeline) DO UPDATE SET started = ?2, under_way = 1",
            )?
            .execute([&**pipeline, &Timestamp::now().to_string()])?;
            Ok(())
        })
    }

    /// Remembers how it ended, before the lock is let go.
    pub(crate) fn note_end(&self, pipeline: &Name, report: &Value) -> Result<()> {
        let report = write(report)?;
        self.write(|db| {
            db.prepare_cached("UPDATE outcomes SET under_way = 0, ended = ?2, report = ?3 WHERE pipeline = ?1")?
                .execute(params![&**pipeline, Timestamp::now().to_string(), report])?;
            Ok(())
        })
    }

    /// When the last run of a pipeline was begun, whatever became of it.
    pub fn last_start(&self, pipeline: &Name) -> Result<Option<Timestamp>> {
        Ok(self.outcome(pipeline)?.map(|row| row.started))
    }

    /// How one pipeline stands.
    pub fn status(&self, pipeline: &Name) -> Result<PipelineStatus> {
        let file = self.read(|db| {
            db.prepare_cached("SELECT file FROM names WHERE pipeline = ?1")?
                .query_row([&**pipeline], |row| row.get(0))
                .optional()
        })?;
        let (mut row, mut running) = (self.outcome(pipeline)?, self.lock_holder(pipeline));
        // A run begins and ends under the lock. If nobody held it, it has died, unless it has ended since its row was read.
        while running.is_none()
            && let Some(seen) = row.as_ref().filter(|row| row.under_way)
        {
            let again = self.outcome(pipeline)?;
            let died = again.as_ref().is_some_and(|again| again.under_way && again.started == seen.started);
            row = again;
            if died {
                break;
            }
            running = self.lock_holder(pipeline);
        }
        let last = row.and_then(|row| outcome(row, running.is_some()));
        Ok(PipelineStatus {
            pipeline: pipeline.clone(),
            file: file.flatten(),
            last,
            running,
            served: self.served(pipeline)?,
        })
    }

    /// The pipelines of which anything is known, by name.
    pub fn pipelines(&self) -> Result<Vec<Name>> {
        let mut names: Vec<Name> = self.read(|db| {
            db.prepare_cached(
                "SELECT pipeline FROM outcomes UNION SELECT pipeline FROM names UNION SELECT pipeline FROM runs
                     UNION SELECT pipeline FROM served ORDER BY 1",
            )?
            .query_map([], |row| Ok(Name::from(row.get::<_, String>(0)?)))?
            .collect()
        })?;
        names.retain(|name| !is_replay(name));
        Ok(names)
    }

    fn outcome(&self, pipeline: &Name) -> Result<Option<Row>> {
        type Texts = (String, bool, Option<String>, Option<String>);
        let texts: Option<Texts> = self.read(|db| {
            db.prepare_cached("SELECT started, under_way, ended, report FROM outcomes WHERE pipeline = ?1")?
                .query_row([&**pipeline], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
                .optional()
        })?;
        let time = |text: String| text.parse::<Timestamp>().map_err(|error| unreadable("time", error));
        let read = |(started, under_way, ended, report): Texts| {
            Ok(Row {
                started: time(started)?,
                under_way,
                ended: ended.map(time).transpose()?,
                report: report.map(|text| parse("report", &text)).transpose()?,
            })
        };
        texts.map(read).transpose()
    }
}

/// What a row says of the last run that is over.
fn outcome(row: Row, running: bool) -> Option<LastOutcome> {
    let Row { started, under_way, ended, report } = row;
    if under_way && !running {
        return Some(LastOutcome {
            status: "died".to_owned(),
            started: Some(started),
            ended: None,
            error: None,
            report: None,
        });
    }
    let report = report?;
    let text = |key: &str| report.get(key).and_then(Value::as_str).map(str::to_owned);
    Some(LastOutcome {
        status: text("status")?,
        started: Some(started).filter(|_| !under_way),
        ended,
        error: text("error"),
        report: Some(report),
    })
}
