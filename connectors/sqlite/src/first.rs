//! The first load of an empty table by the hash of its rows.
//!
//! Hashes are random, so a row by row insert touches a page of the index anywhere: a million rows take four times as long as without the
//! index, and ever more beyond. So the rows of an epoch that begins with an empty table go into a staging table without the index,
//! while they arrive; the flush builds it at once by sorting, which SQLite does in bounded memory, takes out rows that are there
//! twice, and puts the staging table in the place of the empty one. All that in the epoch's transaction; nobody sees it before.

use hashbrown::HashSet;
use rusqlite::{Connection, ErrorCode};
use towpath_core::{Error, ErrorKind, Result, Retry, Wrote};

use crate::{
    config::SinkOptions,
    error::During as _,
    fence,
    swap::exchange,
    table::{Table, quote, quoted},
};

/// Hashes remembered, so that rows which come twice soon after another are left out at once: 16 bytes each. The others are
/// found when the index is built, which then takes twice as long.
const REMEMBERED: usize = 1 << 16;

/// A first load under way.
#[derive(Default)]
pub(crate) struct First {
    recent: HashSet<u128>,
    inserted: u64,
    known: u64,
}

impl First {
    /// Begins one, if the table is such that another may take its place. Call it inside a transaction, the table being empty.
    pub(crate) fn begin(db: &Connection, options: &SinkOptions, staging: &str) -> Result<Option<Self>> {
        let Some(table) = Table::read(db, &options.table)? else { return Ok(None) };
        let by_key = |columns: &[String]| matches!(columns, [only] if only.eq_ignore_ascii_case(&options.hash_column));
        let only_ours = table.unique.iter().all(|columns| by_key(columns));
        let unique = table.indexes.iter().filter(|index| index.unique).count();
        // A key inside CREATE TABLE would be copied with it.
        let apart = unique == 1 && table.unique.len() == 1 && only_ours;
        if !options.by_hash() || !apart || table.entangled || table.deferred || !table.numbers_rows() || !table.plain {
            return Ok(None);
        }
        let Some(sql) = table.sql_as(staging) else { return Ok(None) };
        let doing = "make a staging table";
        db.execute_batch(&format!("DROP TABLE IF EXISTS {}; {sql}", quote(staging))).during(doing)?;
        if let Some(column) = table.columns.first() {
            fence::new_mark(db, staging, &column.name)?;
        }
        Ok(Some(Self::default()))
    }

    /// Whether a row of this hash has just been there.
    pub(crate) fn is_known(&mut self, hash: u128) -> bool {
        if self.recent.len() >= REMEMBERED {
            self.recent.clear();
        }
        let known = !self.recent.insert(hash);
        self.known += u64::from(known);
        known
    }

    /// A row was inserted.
    pub(crate) fn inserted(&mut self) {
        self.inserted += 1;
    }

    /// Puts the rows into the table, inside the open transaction. Says how many were written and known.
    pub(crate) fn finish(&mut self, db: &Connection, options: &SinkOptions, staging: &str) -> Result<Wrote> {
        let (table, hash) = (quote(&options.table), quote(&options.hash_column));
        let doing = format!("put the first rows into table {}", options.table);
        let mut wrote = Wrote { written: self.inserted, known: self.known, ..Wrote::default() };
        *self = Self::default();
        let empty =
            db.query_row(&format!("SELECT NOT EXISTS (SELECT 1 FROM {table})"), [], |row| row.get(0)).during(&doing)?;
        let old = Table::read(db, &options.table)?;
        match old {
            Some(old) if empty => {
                for index in exchange(db, (&options.table, &old), staging)? {
                    let twice = format!(
                        "DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM
                         (SELECT rowid, row_number() OVER (PARTITION BY {hash} ORDER BY rowid) AS n FROM {table}) WHERE n > 1)"
                    );
                    let removed = db.execute(&twice, []).during(&doing)? as u64;
                    (wrote.written, wrote.known) = (wrote.written - removed, wrote.known + removed);
                    db.execute_batch(&index.sql).during(&doing)?;
                }
            }
            // Somebody else has put rows into it meanwhile.
            _ => {
                let staged = quote(staging);
                let columns = Table::read(db, staging)?.map(|table| table.columns).unwrap_or_default();
                let columns =
                    quoted(columns.iter().filter(|column| !column.generated).map(|column| column.name.as_str()));
                let sql = format!(
                    "INSERT OR ABORT INTO {table} ({columns}) SELECT {columns} FROM {staged} WHERE true ON CONFLICT ({hash}) DO NOTHING"
                );
                let written = match db.execute(&sql, []) {
                    Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                        let met = "rows that another program has just put into the table contradict these";
                        return Err(Error::new(ErrorKind::Conflict, met).because(error).retry(Retry::Again));
                    }
                    done => done.during(&doing)? as u64,
                };
                (wrote.written, wrote.known) = (written, wrote.known + wrote.written - written);
                db.execute_batch(&format!("DROP TABLE {staged}")).during(&doing)?;
            }
        }
        Ok(wrote)
    }
}
