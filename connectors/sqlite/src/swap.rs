//! The last commit of `replace`: the staged rows take the place of all there was, in one transaction, so that a reader sees the old
//! rows or the new ones and never none.
//!
//! Dropping the old table and renaming the new one writes next to nothing, however many rows there are (moving the rows would write them
//! all a second time, into the log and into the file). Where other things hang on the old table (triggers, foreign keys that point to
//! it, unique indexes of its own) the rows are moved instead.

use rusqlite::{Connection, ErrorCode};
use towpath_core::Result;

use crate::{
    error::During as _,
    fence::MARK,
    table::{Index, Table, quote, quoted},
};

/// Drops the old table, renames the new one, and makes the old one's indexes again, but for its mark: the new one has its own. Gives the
/// unique indexes that cannot be made because rows are there twice.
pub(crate) fn exchange<'a>(db: &Connection, (table, old): (&str, &'a Table), staging: &str) -> Result<Vec<&'a Index>> {
    let doing = format!("put the new rows in the place of table {table}");
    let (old_name, new_name) = (quote(table), quote(staging));
    db.execute_batch(&format!("DROP TABLE {old_name}; ALTER TABLE {new_name} RENAME TO {old_name}")).during(&doing)?;
    let mut twice = vec![];
    for index in old.indexes.iter().filter(|index| !index.name.starts_with(MARK)) {
        match db.execute_batch(&index.sql) {
            Err(error) if index.unique && error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                twice.push(index)
            }
            done => done.during(&doing)?,
        }
    }
    Ok(twice)
}

/// Puts the staging table in the place of `table`. Without a staging table no row came, and the table is emptied.
pub(crate) fn swap(db: &Connection, table: &str, staging: &str) -> Result<()> {
    let (old, new) = (Table::read(db, table)?, Table::read(db, staging)?);
    let doing = format!("put the new rows in the place of table {table}");
    let run = |sql: &str| db.execute_batch(sql).during(&doing);
    let (old_name, new_name) = (quote(table), quote(staging));
    match (old, new) {
        (None, None) => Ok(()),
        (Some(_), None) => run(&format!("DELETE FROM {old_name}")),
        (None, Some(_)) => run(&format!("ALTER TABLE {new_name} RENAME TO {old_name}")),
        (Some(old), Some(new)) => {
            if !old.entangled && old.indexes.iter().all(|index| !index.unique) {
                return exchange(db, (table, &old), staging).map(drop);
            }
            for column in new.columns.iter().filter(|column| old.column(&column.name).is_none()) {
                run(&format!("ALTER TABLE {old_name} ADD COLUMN {} {}", quote(&column.name), column.declared))?;
            }
            let columns = new.columns.iter().filter(|column| !column.generated).map(|column| column.name.as_str());
            let columns = quoted(columns);
            run(&format!(
                "DELETE FROM {old_name}; INSERT INTO {old_name} ({columns}) SELECT {columns} FROM {new_name}; DROP TABLE {new_name}"
            ))
        }
    }
}
