//! What is remembered of dead letters beside their files: which are superseded, which are being sent again, which were.

use std::sync::Arc;

use rusqlite::{OptionalExtension, params};
use towpath_core::{Name, Result};

use super::StateStore;
use crate::supersede::KeyHash;

/// A dead letter by the place of its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LetterId {
    /// 0: the pipeline's own folder; 1: that of the letters of its sink that were refused again.
    pub(crate) folder: u8,
    /// The number of the file.
    pub(crate) file: u64,
    /// Where its line begins.
    pub(crate) at: u64,
}

/// A letter that is to be sent again.
pub(crate) struct Chosen {
    pub(crate) letter: LetterId,
    /// How new it is.
    pub(crate) epoch: u64,
    pub(crate) key: Option<KeyHash>,
}

/// Up to which epoch dead letters are superseded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Superseded {
    pub(crate) upto: u64,
    pub(crate) but_run: Option<String>,
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl StateStore {
    /// Remembers that letters up to these epochs are superseded. `key`: empty for those of all runs but `but_run`.
    pub(crate) fn supersede(
        &self,
        pipeline: &Name,
        sink: &Name,
        marks: impl IntoIterator<Item = (Vec<u8>, u64)>,
        but_run: Option<&str>,
    ) -> Result<()> {
        self.write(|db| {
            for (key, upto) in marks {
                db.prepare_cached(
                    "INSERT INTO superseded (pipeline, sink, key, upto, but_run) VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT DO UPDATE SET upto = max(upto, excluded.upto), but_run = excluded.but_run",
                )?
                .execute(params![&**pipeline, &**sink, key, signed(upto), but_run])?;
            }
            Ok(())
        })
    }

    /// The keys of dead letters that later rows may supersede; no more than `most`.
    pub(crate) fn letter_keys(&self, pipeline: &Name, sink: &Name, most: usize) -> Result<Vec<KeyHash>> {
        self.read(|db| {
            db.prepare_cached(
                "SELECT key FROM superseded WHERE pipeline = ?1 AND sink = ?2 AND length(key) = 16 LIMIT ?3",
            )?
            .query_map(params![&**pipeline, &**sink, most as i64], |row| row.get(0))?
            .collect()
        })
    }

    /// Forgets the keys: no dead letter is left that could be superseded by one.
    pub(crate) fn forget_letter_keys(&self, pipeline: &Name, sink: &Name) -> Result<()> {
        self.write(|db| {
            db.execute(
                "DELETE FROM superseded WHERE pipeline = ?1 AND sink = ?2 AND length(key) > 0",
                [&**pipeline, &**sink],
            )?;
            Ok(())
        })
    }

    /// Up to which epoch the letters of a key are superseded (the empty key: those of all runs but one).
    pub(crate) fn superseded(&self, pipeline: &Name, sink: &Name, key: &[u8]) -> Result<Option<Superseded>> {
        self.read(|db| {
            db.prepare_cached("SELECT upto, but_run FROM superseded WHERE pipeline = ?1 AND sink = ?2 AND key = ?3")?
                .query_row(params![&**pipeline, &**sink, key], |row| {
                    Ok(Superseded { upto: row.get::<_, i64>(0)?.unsigned_abs(), but_run: row.get(1)? })
                })
                .optional()
        })
    }

    /// Whether a letter was sent again.
    pub(crate) fn is_replayed(&self, pipeline: &Name, sink: &Name, letter: LetterId) -> Result<bool> {
        self.read(|db| {
            db.prepare_cached(
                "SELECT 1 FROM replayed WHERE pipeline = ?1 AND sink = ?2 AND folder = ?3 AND file = ?4 AND at = ?5",
            )?
            .exists(params![&**pipeline, &**sink, letter.folder, signed(letter.file), signed(letter.at)])
        })
    }

    /// Remembers letters as put away: each with who refused it, and the run.
    pub(crate) fn discard(&self, pipeline: &Name, letters: &[(Name, LetterId, Arc<str>)]) -> Result<()> {
        self.write(|db| {
            for (component, LetterId { folder, file, at }, run) in letters {
                db.prepare_cached(
                    "INSERT OR IGNORE INTO discarded (pipeline, component, folder, file, at, run) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )?
                .execute(params![&**pipeline, &**component, folder, signed(*file), signed(*at), &**run])?;
            }
            Ok(())
        })
    }

    /// Whether a letter was put away.
    pub(crate) fn is_discarded(&self, pipeline: &Name, component: &Name, letter: LetterId, run: &str) -> Result<bool> {
        self.read(|db| {
            db.prepare_cached(
                "SELECT 1 FROM discarded
                 WHERE pipeline = ?1 AND component = ?2 AND folder = ?3 AND file = ?4 AND at = ?5 AND run = ?6",
            )?
            .exists(params![
                &**pipeline,
                &**component,
                letter.folder,
                signed(letter.file),
                signed(letter.at),
                run
            ])
        })
    }

    /// The letters that are being sent again: the selection's number, and how many there are. `None`: none are.
    pub(crate) fn selection(&self, pipeline: &Name, sink: &Name) -> Result<Option<(u64, u64)>> {
        self.read(|db| {
            let count: i64 = db
                .prepare_cached("SELECT count(*) FROM replaying WHERE pipeline = ?1 AND sink = ?2")?
                .query_row([&**pipeline, &**sink], |row| row.get(0))?;
            if count == 0 {
                return Ok(None);
            }
            let selection: i64 = db
                .prepare_cached("SELECT selection FROM replays WHERE pipeline = ?1 AND sink = ?2")?
                .query_row([&**pipeline, &**sink], |row| row.get(0))?;
            Ok(Some((selection.unsigned_abs(), count.unsigned_abs())))
        })
    }

    /// Begins a selection.
    pub(crate) fn select(&self, pipeline: &Name, sink: &Name) -> Result<()> {
        self.write(|db| {
            db.execute(
                "INSERT INTO replays (pipeline, sink, selection) VALUES (?1, ?2, 1)
                 ON CONFLICT DO UPDATE SET selection = selection + 1",
                [&**pipeline, &**sink],
            )?;
            Ok(())
        })
    }

    /// Adds letters to the selection, behind those that are in it.
    pub(crate) fn select_more(&self, pipeline: &Name, sink: &Name, letters: &[Chosen]) -> Result<()> {
        self.write(|db| {
            for Chosen { letter: LetterId { folder, file, at }, epoch, key } in letters {
                db.prepare_cached(
                    "INSERT INTO replaying (pipeline, sink, place, folder, file, at, epoch, key) VALUES (?1, ?2,
                        (SELECT coalesce(max(place), -1) + 1 FROM replaying WHERE pipeline = ?1 AND sink = ?2), ?3, ?4, ?5, ?6, ?7)",
                )?
                .execute(params![
                    &**pipeline,
                    &**sink,
                    folder,
                    signed(*file),
                    signed(*at),
                    signed(*epoch),
                    key.as_ref().map(|key| &key[..])
                ])?;
            }
            Ok(())
        })
    }

    /// Of the letters of one key only the newest stays in the selection; the others are done for good, or the next replay would put them
    /// in its place. Returns how many were left out.
    pub(crate) fn select_newest(&self, pipeline: &Name, sink: &Name) -> Result<u64> {
        const OLDER: &str = "pipeline = ?1 AND sink = ?2 AND key IS NOT NULL AND place NOT IN (
            SELECT place FROM (
                SELECT place, row_number() OVER (
                    PARTITION BY key ORDER BY epoch DESC, folder DESC, file DESC, at DESC
                ) AS nth FROM replaying WHERE pipeline = ?1 AND sink = ?2 AND key IS NOT NULL
            ) WHERE nth = 1)";
        self.write(|db| {
            let done = format!(
                "INSERT OR IGNORE INTO replayed (pipeline, sink, folder, file, at)
                 SELECT pipeline, sink, folder, file, at FROM replaying WHERE {OLDER}"
            );
            db.execute(&done, [&**pipeline, &**sink])?;
            let doubled = db.execute(&format!("DELETE FROM replaying WHERE {OLDER}"), [&**pipeline, &**sink])?;
            Ok(doubled as u64)
        })
    }

    /// Takes a letter out of the selection.
    pub(crate) fn unselect(&self, pipeline: &Name, sink: &Name, place: i64) -> Result<()> {
        self.write(|db| {
            db.prepare_cached("DELETE FROM replaying WHERE pipeline = ?1 AND sink = ?2 AND place = ?3")?
                .execute(params![&**pipeline, &**sink, place])?;
            Ok(())
        })
    }

    /// The newest epoch that a mark or a letter of the selection is of.
    pub(crate) fn newest_letter_epoch(&self, pipeline: &Name, sink: &Name) -> Result<u64> {
        self.read(|db| {
            let newest: Option<i64> = db
                .prepare_cached(
                    "SELECT max(epoch) FROM (
                        SELECT max(upto) AS epoch FROM superseded WHERE pipeline = ?1 AND sink = ?2
                        UNION ALL SELECT max(epoch) FROM replaying WHERE pipeline = ?1 AND sink = ?2)",
                )?
                .query_row([&**pipeline, &**sink], |row| row.get(0))?;
            Ok(newest.unwrap_or(0).unsigned_abs())
        })
    }

    /// The letters of the selection in order, behind `place`.
    pub(crate) fn selected(
        &self,
        pipeline: &Name,
        sink: &Name,
        behind: i64,
        most: usize,
    ) -> Result<Vec<(i64, LetterId)>> {
        self.read(|db| {
            db.prepare_cached(
                "SELECT place, folder, file, at FROM replaying WHERE pipeline = ?1 AND sink = ?2 AND place > ?3 ORDER BY place LIMIT ?4",
            )?
            .query_map(params![&**pipeline, &**sink, behind, most as i64], |row| {
                let (file, at): (i64, i64) = (row.get(2)?, row.get(3)?);
                let letter = LetterId { folder: row.get(1)?, file: file.unsigned_abs(), at: at.unsigned_abs() };
                Ok((row.get(0)?, letter))
            })?
            .collect()
        })
    }

    /// All letters of the selection were sent again.
    pub(crate) fn selection_done(&self, pipeline: &Name, sink: &Name) -> Result<()> {
        self.write(|db| {
            db.execute(
                "INSERT OR IGNORE INTO replayed (pipeline, sink, folder, file, at)
                 SELECT pipeline, sink, folder, file, at FROM replaying WHERE pipeline = ?1 AND sink = ?2",
                [&**pipeline, &**sink],
            )?;
            db.execute("DELETE FROM replaying WHERE pipeline = ?1 AND sink = ?2", [&**pipeline, &**sink])?;
            Ok(())
        })
    }
}
