//! CREATE INDEX, DROP INDEX.

use super::row_scope;
use crate::sql_server::{
    ast::CreateIndex,
    bind::{Scope, sqlite_collation},
    catalog::{IndexMeta, TableDef, same},
    error::{Sql, SqlError},
    session::Session,
};

impl Session {
    pub(super) fn add_index(
        &mut self,
        table: &mut TableDef,
        create: &CreateIndex,
        constraint: Option<i64>,
        primary: bool,
    ) -> Sql<()> {
        if create.ignore_duplicates {
            return Err(SqlError::unsupported("IGNORE_DUP_KEY"));
        }
        if table.indexes.iter().any(|index| same(&index.name, &create.name)) {
            return Err(SqlError::of(
                1913,
                format!(
                    "The operation failed because an index or statistics with name '{}' already exists on table '{}'.",
                    create.name,
                    table.full()
                ),
            ));
        }
        if create.clustered && table.indexes.iter().any(|index| index.clustered) {
            return Err(SqlError::of(
                1902,
                format!("Cannot create more than one clustered index on table '{}'.", table.full()),
            ));
        }
        let id = table.indexes.iter().map(|index| index.id).max().unwrap_or(1) + 1;
        let names: Vec<String> = create.columns.iter().map(|(name, _)| name.clone()).collect();
        let ids = self.ids(table, &names)?;
        let columns: Vec<(i64, bool)> =
            ids.into_iter().zip(&create.columns).map(|(id, (_, down))| (id, *down)).collect();
        let filter = match &create.filter {
            None => None,
            Some(filter) => {
                let scope = Scope { tables: vec![row_scope(table, "")], parent: None };
                Some(self.with_binder(|binder| binder.truth(filter, &scope))?)
            }
        };
        let index = IndexMeta {
            id: if create.clustered { 1 } else { id },
            constraint,
            name: create.name.clone(),
            unique: create.unique,
            primary,
            clustered: create.clustered,
            ignore_duplicates: false,
            columns,
            include: self.ids(table, &create.include)?,
            filtered: filter.is_some(),
        };
        self.make_index(table, &index, filter.as_deref())?;
        table.indexes.push(index);
        Ok(())
    }

    pub(super) fn make_index(&self, table: &TableDef, index: &IndexMeta, filter: Option<&str>) -> Sql<()> {
        let db = if table.is_temp() { "temp" } else { "main" };
        let (t, unique) = (table.id.abs(), if index.unique { "UNIQUE " } else { "" });
        if index.columns.is_empty() {
            return Ok(()); // a columnstore
        }
        let list: Vec<String> =
            index.columns.iter().map(|(id, down)| format!("c{id}{}", if *down { " DESC" } else { "" })).collect();
        let filter_sql = filter.map_or(String::new(), |filter| format!(" WHERE {filter}"));
        let made = self.conn.execute_batch(&format!(
            "CREATE {unique}INDEX {db}.i{t}_{} ON t{t} ({}){filter_sql}",
            index.id,
            list.join(", ")
        ));
        let refused = |error: rusqlite::Error| {
            if error.to_string().contains("UNIQUE constraint failed") {
                return SqlError::of(
                    1505,
                    format!(
                        "The CREATE UNIQUE INDEX statement terminated because a duplicate key was found for the object name '{}' and the \
                         index name '{}'.",
                        table.full(),
                        index.name
                    ),
                );
            }
            error.into()
        };
        made.map_err(refused)?;
        let nullable: Vec<i64> = index
            .columns
            .iter()
            .map(|(id, _)| *id)
            .filter(|id| table.column_of(*id).is_some_and(|column| column.nullable))
            .collect();
        if index.unique && !nullable.is_empty() && filter.is_none() {
            let list: Vec<String> = index
                .columns
                .iter()
                .map(|(id, _)| {
                    let collate = table
                        .column_of(*id)
                        .and_then(|column| column.collation.as_deref())
                        .map_or(String::new(), |name| format!(" COLLATE {}", sqlite_collation(name)));
                    format!("(ifnull(c{id}, x'ff00ff00'){collate})")
                })
                .collect();
            let any: Vec<String> = nullable.iter().map(|id| format!("c{id} IS NULL")).collect();
            self.conn
                .execute_batch(&format!(
                    "CREATE UNIQUE INDEX {db}.n{t}_{} ON t{t} ({}) WHERE {}",
                    index.id,
                    list.join(", "),
                    any.join(" OR ")
                ))
                .map_err(refused)?;
        }
        Ok(())
    }

    pub(super) fn drop_index(&self, table: &TableDef, index: &IndexMeta) -> Sql<()> {
        let db = if table.is_temp() { "temp" } else { "main" };
        let t = table.id.abs();
        self.conn.execute_batch(&format!(
            "DROP INDEX IF EXISTS {db}.i{t}_{0}; DROP INDEX IF EXISTS {db}.n{t}_{0};",
            index.id
        ))?;
        Ok(())
    }
}
