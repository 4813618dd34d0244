//! What rows of a schema need of the target, and what is made or altered for them: found out by the plan and by the run in the same way, before anything
//! is touched.

use std::sync::Arc;

use arrow_schema::{Field, Schema, SchemaRef};
use towpath_core::{Error, ErrorKind, Result};

use crate::{
    catalog::{Column, Table, TableName, Unique, quoted},
    client::{Session, first_number},
    config::SinkOptions,
    shape::{Shape, mismatch},
    statements,
    types::SqlType,
};

/// What a run makes or alters.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// The table is not there: the SQL that makes it.
    pub(crate) create: Option<String>,
    /// Columns of the rows that the table lacks.
    pub(crate) add: Vec<(String, SqlType)>,
    /// Rows that are there get their hashes.
    pub(crate) adopt: bool,
    /// The SQL that makes the unique index of the key.
    pub(crate) unique: Option<String>,
}

impl Changes {
    /// For rows of a schema, and the table as it was found.
    ///
    /// # Errors
    /// What would end the run: Config, `NotFound`, Unsupported.
    pub(crate) fn of(
        options: &SinkOptions,
        target: &TableName,
        found: Option<&Table>,
        incoming: &SchemaRef,
    ) -> Result<Self> {
        distinct(incoming)?;
        let key = options.key_columns();
        let mut changes = Self::default();
        let mut table = match found {
            Some(table) => {
                fit(table)?;
                changes.adopt = crate::adopt::is_due(options, table);
                changes.add = missing(options, table, incoming)?;
                let mut table = table.clone();
                let hash = (options.hash_column.clone(), SqlType::Binary(16));
                let hash = (changes.adopt && table.column(&hash.0).is_none()).then_some(hash);
                if !table.has_rows {
                    // There is nothing to hash.
                    changes.adopt = false;
                    changes.add.extend(hash.clone());
                }
                let new = changes.add.iter().chain(hash.iter().filter(|_| changes.adopt));
                table.columns.extend(new.map(|(name, of)| column(name, of, true)));
                table
            }
            None => {
                let columns = declared(options, incoming)?;
                let sql = statements::create_table(target, &columns, &key, options.by_hash());
                // A key that the rows do not have is what is wrong, and not that there is no table with it.
                let (name, columns) =
                    (target.clone(), columns.iter().map(|(name, of)| column(name, of, true)).collect());
                let table = Table {
                    name,
                    kind: "U".to_owned(),
                    has_rows: false,
                    columns,
                    uniques: vec![],
                    checks: vec![],
                    foreign: vec![],
                };
                Shape::of(options, &table, incoming)?;
                if !options.create {
                    return Err(no_table(target).hint(format!("leave out `create: false`, or make it: {sql}")));
                }
                changes.create = Some(sql);
                table
            }
        };
        Shape::of(options, &table, incoming)?;
        if changes.create.is_some() && !key.is_empty() {
            table.uniques.push(Unique { name: String::new(), primary: true, columns: key.clone() });
        }
        if let Some(order) = options.known_keys_order.as_deref().filter(|order| table.column(order).is_none()) {
            return Err(mismatch(format!("known_keys_order: table {target} has no column {order}"))
                .hint("name one that grows with time, or leave it out"));
        }
        changes.unique = unique(options, &table)?;
        Ok(changes)
    }

    /// The same, as far as it can be told without knowing the rows' schema.
    ///
    /// # Errors
    /// As [`of`](Changes::of).
    pub(crate) fn of_any(options: &SinkOptions, target: &TableName, found: Option<&Table>) -> Result<Self> {
        let mut changes = Self::default();
        match found {
            Some(table) => {
                fit(table)?;
                changes.adopt = crate::adopt::is_due(options, table);
                changes.unique = unique(options, table)?;
            }
            None if !options.create => return Err(no_table(target).hint("leave out `create: false`, or make it")),
            None => {}
        }
        Ok(changes)
    }

    /// Makes them, but for the hashes of rows that are there.
    pub(crate) async fn make(&self, session: &mut Session, target: &TableName, key: &[String]) -> Result<()> {
        if let Some(sql) = &self.create {
            session.batch(&format!("make table {target}"), sql).await?;
        }
        if !self.add.is_empty() {
            session.batch(&format!("add columns to {target}"), &statements::add_columns(target, &self.add)).await?;
        }
        if let Some(sql) = &self.unique {
            let made = session.batch(&format!("make the unique index of the key of {target}"), sql).await;
            made.map_err(
                |error| if error.kind() == ErrorKind::Conflict { error.hint(doubles(target, key)) } else { error },
            )?;
        }
        Ok(())
    }
}

fn no_table(target: &TableName) -> Error {
    Error::not_found(format!("there is no table {target}"))
}

/// How to see which keys are there twice.
fn doubles(target: &TableName, key: &[String]) -> String {
    let key = quoted(key.iter().map(String::as_str));
    format!(
        "see which are there more than once: SELECT {key}, COUNT(*) FROM {target} GROUP BY {key} HAVING COUNT(*) > 1"
    )
}

fn column(name: &str, of: &SqlType, nullable: bool) -> Column {
    let (identity, generated, has_default) = (false, false, false);
    Column { name: name.to_owned(), of: of.clone(), nullable, identity, generated, has_default, collation: None }
}

fn fit(table: &Table) -> Result<()> {
    if table.is_table() {
        return Ok(());
    }
    Err(Error::unsupported(format!("{} is not a table", table.name)).hint("load into the table beneath the view"))
}

/// The target as it is, if it is there.
pub(crate) async fn found(session: &mut Session, options: &SinkOptions, target: &TableName) -> Result<Option<Table>> {
    let mut found = Table::read(session, target).await?;
    if let Some(table) = found.as_mut().filter(|table| options.by_hash() && table.is_table()) {
        let rows =
            session.batch(&format!("see whether there are rows in {target}"), &statements::any_row(target)).await?;
        table.has_rows = first_number(&rows) != Some(0);
    }
    Ok(found)
}

/// The columns of a table that is made for the rows.
fn declared(options: &SinkOptions, incoming: &Schema) -> Result<Vec<(String, SqlType)>> {
    let key = options.key_columns();
    let mut columns = vec![];
    for field in incoming.fields() {
        let in_key = key.iter().any(|key| key.to_lowercase() == field.name().to_lowercase());
        columns.push((field.name().clone(), SqlType::declared(field, in_key)?));
    }
    if options.by_hash() {
        columns.push((options.hash_column.clone(), SqlType::Binary(16)));
    }
    Ok(columns)
}

/// Columns of the rows that the table lacks; an error unless they may be added.
fn missing(options: &SinkOptions, table: &Table, incoming: &Schema) -> Result<Vec<(String, SqlType)>> {
    let mut missing = vec![];
    for field in incoming.fields().iter().filter(|field| table.column(field.name()).is_none()) {
        missing.push((field.name().clone(), SqlType::declared(field, false)?));
    }
    if missing.is_empty() {
        return Ok(missing);
    }
    let names = missing.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    // Of what is not the table's at all nothing is to be added to it.
    let comes =
        |name: &String| incoming.fields().iter().any(|field| field.name().to_lowercase() == name.to_lowercase());
    let key_is_missing = !options.by_hash() && !options.key_columns().iter().all(comes);
    if missing.len() == incoming.fields().len() || key_is_missing {
        return Err(mismatch(format!("the rows are not those of table {}: they have the columns {names}", table.name))
            .hint("see whether it is the right file or table, and its delimiter, header and `columns`"));
    }
    let lacking = mismatch(format!("table {} has no column {names}", table.name));
    if options.by_hash() && table.has_rows {
        // The rows that are there would have other hashes with it, and come in again.
        return Err(lacking.hint(
            "with `key: row_hash` the hash is that of all columns, so none is added to a table with rows: leave it out with a `select` before \
             the sink, or load into a new table",
        ));
    }
    if !options.add_columns {
        return Err(
            lacking.hint("write `add_columns: true` to have it added, or leave it out with a `select` before the sink")
        );
    }
    Ok(missing)
}

fn unique(options: &SinkOptions, table: &Table) -> Result<Option<String>> {
    let key = options.key_columns();
    if key.is_empty() || table.is_unique(&key) {
        return Ok(None);
    }
    let sql = statements::create_key(&table.name, &key);
    if !options.create {
        return Err(mismatch(format!("table {} has no unique index on {}", table.name, key.join(", ")))
            .hint(format!("leave out `create: false`, or make it: {sql}")));
    }
    Ok(Some(sql))
}

fn distinct(schema: &Schema) -> Result<()> {
    for (at, field) in schema.fields().iter().enumerate() {
        let same = |other: &&Arc<Field>| other.name().to_lowercase() == field.name().to_lowercase();
        if let Some(other) = schema.fields()[..at].iter().find(same) {
            return Err(mismatch(format!(
                "the rows have two columns {} and {}, which are one to SQL Server",
                other.name(),
                field.name()
            ))
            .hint("rename one before the sink"));
        }
        if field.name().is_empty()
            || field.name().encode_utf16().count() > 128
            || field.name().chars().any(char::is_control)
        {
            return Err(mismatch(format!("'{}' cannot be the name of a column", field.name().escape_debug()))
                .hint("give it a name of 1 to 128 characters with `rename` before the sink"));
        }
        if field.name().to_lowercase() == statements::ROW {
            return Err(
                mismatch(format!("a column {} is Towpath's own", field.name())).hint("rename it before the sink")
            );
        }
    }
    match schema.fields().len() {
        0 => Err(mismatch("the rows have no columns".to_owned())),
        // A table has 1,024; one is the hash, one the number of a staged row.
        count @ 1023.. => {
            Err(mismatch(format!("the rows have {count} columns, and a table of SQL Server has place for 1,022"))
                .hint("leave some out with a `select` before the sink"))
        }
        _ => Ok(()),
    }
}
