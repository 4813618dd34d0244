//! SQLite's words for a broken constraint, turned into SQL Server's.

use rusqlite::types::Value;

use super::{
    catalog::{IndexMeta, TableDef},
    convert::shown,
    error::{Sql, SqlError},
    run::bind,
    session::Session,
};

impl Session {
    /// What a failed statement's error is in SQL Server's words. `rows`: what an INSERT would have stored, and for which columns.
    pub fn explain(
        &self,
        error: rusqlite::Error,
        table: &TableDef,
        what: &str,
        rows: Option<(&str, &[i64], &[Value])>,
    ) -> SqlError {
        let text = error.to_string();
        if let Some(rest) = text.split("NOT NULL constraint failed: ").nth(1) {
            let id = rest.rsplit('.').next().and_then(|name| name.trim_start_matches('c').parse().ok()).unwrap_or(0);
            return self.is_null(table, id, what);
        }
        let Some(rest) = text.split("UNIQUE constraint failed: ").nth(1) else { return error.into() };
        let Some(index) = broken(table, rest) else { return error.into() };
        let Some((sql, ids, params)) = rows else { return duplicate_error(table, index, None) };
        // Where several keys are broken, the server names the primary one.
        let primary = table.indexes.iter().filter(|other| other.primary && other.id != index.id);
        for candidate in primary.chain([index]) {
            if let Ok(Some(key)) = self.duplicate(table, candidate, sql, ids, params) {
                return duplicate_error(table, candidate, Some(&key));
            }
        }
        duplicate_error(table, index, None)
    }

    /// Error 515.
    pub fn is_null(&self, table: &TableDef, column: i64, what: &str) -> SqlError {
        let name = table.column_of(column).map(|column| column.name.as_str()).unwrap_or_default();
        let database = if table.is_temp() { "tempdb" } else { &self.shared.database };
        SqlError::of(
            515,
            format!(
                "Cannot insert the value NULL into column '{name}', table '{database}.{}'; column does not allow nulls. {what} fails.",
                table.full()
            ),
        )
    }

    /// The key that is there twice: among the rows, or in the table already.
    fn duplicate(
        &self,
        table: &TableDef,
        index: &IndexMeta,
        sql: &str,
        ids: &[i64],
        params: &[Value],
    ) -> Sql<Option<String>> {
        let mut keys = vec![];
        let mut same = vec![];
        for (id, _) in &index.columns {
            let Some(at) = ids.iter().position(|given| given == id) else { return Ok(None) };
            let Some(column) = table.column_of(*id) else { return Ok(None) };
            let collate = match &column.collation {
                Some(name) => format!(" COLLATE {}", super::bind::sqlite_collation(name)),
                None => String::new(),
            };
            keys.push(format!("k{at}{collate}"));
            same.push(format!("t.{} IS r.k{at}", column.sql()));
        }
        let list: Vec<String> = keys
            .iter()
            .enumerate()
            .map(|(at, key)| format!("{} AS q{at}", key.split(' ').next().unwrap_or(key)))
            .collect();
        let query = format!(
            "SELECT {0} FROM (SELECT * FROM ({sql}) AS r WHERE EXISTS (SELECT 1 FROM {1} AS t WHERE {2}) LIMIT 1)
             UNION ALL SELECT {0} FROM ({sql}) GROUP BY {3} HAVING count(*) > 1 LIMIT 1",
            list.join(", "),
            table.sql(),
            same.join(" AND "),
            keys.join(", ")
        );
        let mut statement = self.conn.prepare(&query)?;
        bind(&mut statement, params)?;
        let mut found = statement.raw_query();
        let Some(row) = found.next()? else { return Ok(None) };
        let mut values = vec![];
        for (at, (id, _)) in index.columns.iter().enumerate() {
            let Some(column) = table.column_of(*id) else { return Ok(None) };
            values.push(key_text(row.get_ref(at)?, &column.ty()));
        }
        Ok(Some(values.join(", ")))
    }
}

/// A key's value as the message shows it.
pub(super) fn key_text(value: rusqlite::types::ValueRef<'_>, ty: &super::types::Ty) -> String {
    match shown(value, ty) {
        None => "<NULL>".to_owned(),
        Some(text) if ty.is_binary() => text.to_lowercase(),
        Some(text) => text,
    }
}

/// The index that SQLite means: by its columns, or by the name of the one that watches over NULLs.
pub(super) fn broken<'t>(table: &'t TableDef, text: &str) -> Option<&'t IndexMeta> {
    if let Some(name) = text.strip_prefix("index '") {
        let id = name.trim_end_matches('\'').rsplit('_').next()?.parse::<i64>().ok()?;
        return table.indexes.iter().find(|index| index.id == id);
    }
    let ids: Vec<i64> = text
        .split(", ")
        .filter_map(|part| part.rsplit('.').next()?.trim_start_matches('c').trim().parse().ok())
        .collect();
    let is = |index: &&IndexMeta| index.unique && index.columns.iter().map(|(id, _)| *id).eq(ids.iter().copied());
    table.indexes.iter().find(is)
}

/// Error 2627 or 2601.
pub(super) fn duplicate_error(table: &TableDef, index: &IndexMeta, key: Option<&str>) -> SqlError {
    let object = table.full();
    let tail = key.map_or(String::new(), |key| format!(" The duplicate key value is ({key})."));
    if index.constraint.is_some() {
        let kind = if index.primary { "PRIMARY KEY" } else { "UNIQUE KEY" };
        return SqlError::new(
            2627,
            14,
            format!(
                "Violation of {kind} constraint '{}'. Cannot insert duplicate key in object '{object}'.{tail}",
                index.name
            ),
        );
    }
    SqlError::new(
        2601,
        14,
        format!("Cannot insert duplicate key row in object '{object}' with unique index '{}'.{tail}", index.name),
    )
}
