//! The last commit of `replace`: the staged rows take the place of all there was, in one transaction, so that a reader sees the old
//! rows or the new ones and never none.
//!
//! Dropping the old table and renaming the new one writes next to nothing, however many rows there are (moving the rows would write them
//! all a second time, into the log and into the file). Where other things hang on the old table (triggers, foreign keys that point to
//! it, unique indexes of its own) the rows are moved instead.

use rusqlite::Connection;
use towpath_core::Result;

use crate::{
    error::During as _,
    table::{Table, quote, quoted},
};

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
            let movable = !old.entangled && old.indexes.iter().all(|(_, _, unique)| !unique);
            if movable {
                run(&format!("DROP TABLE {old_name}; ALTER TABLE {new_name} RENAME TO {old_name}"))?;
                for (_, sql, _) in &old.indexes {
                    run(sql)?;
                }
                return Ok(());
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
