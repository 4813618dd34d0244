//! CREATE, ALTER, DROP: the catalog's rows and SQLite's tables, together in one statement.
//!
//! CHECK and FOREIGN KEY are triggers, since SQLite can neither add them to a table nor name the one that failed; a bulk load without
//! CHECK_CONSTRAINTS passes them by (`t_checked`). Keys are unique indexes; SQLite takes NULLs for different, SQL Server does not, so
//! that a second index watches over rows with a NULL.

mod alter;
mod constraint;
mod index;
mod table;

use super::{
    Shared,
    ast::{Kind, Name, Query},
    bind::{ScopeTable, sqlite_collation},
    catalog::{self, ColumnMeta, TableDef, find, resolve, same},
    error::{Sql, SqlError},
    parse,
    session::Session,
};

/// `system_type_id` of `timestamp`, which is how the catalog calls a rowversion.
const ROWVERSION: i64 = 189;

/// A scope whose columns are those of NEW, OLD, or the table itself.
fn row_scope(table: &TableDef, prefix: &str) -> ScopeTable {
    let mut scope = super::bind::table_scope(table, "x");
    for (column, meta) in scope.columns.iter_mut().zip(&table.columns) {
        column.bound.sql = format!("{prefix}{}", meta.sql());
    }
    scope
}

impl Session {
    pub fn ddl(&mut self, kind: &Kind) -> Sql<()> {
        let temp = |name: &Name| name.last().is_some_and(|name| name.starts_with('#'));
        let own = match kind {
            Kind::CreateTable(create) => temp(&create.name),
            Kind::AlterTable(name, _) | Kind::Truncate(name) => temp(name),
            Kind::CreateIndex(create) => temp(&create.table),
            Kind::DropTable(names, _) => names.iter().all(temp),
            Kind::DropIndex(names, _) => names.iter().all(|(_, name)| temp(name)),
            _ => false,
        };
        self.atomically(!own, |session| session.define(kind))?;
        self.statement_done(0, None);
        Ok(())
    }

    fn define(&mut self, kind: &Kind) -> Sql<()> {
        match kind {
            Kind::CreateTable(create) => self.create_table(create),
            Kind::AlterTable(name, alter) => self.alter_table(name, alter),
            Kind::CreateIndex(create) => {
                let mut table = self.table(&create.table, 1088)?;
                self.add_index(&mut table, create, None, false)?;
                catalog::save(&self.conn, &table)
            }
            Kind::CreateSchema(name) => {
                if catalog::schema_id(&self.conn, name)?.is_some() {
                    return Err(SqlError::of(
                        2714,
                        format!("There is already an object named '{name}' in the database."),
                    ));
                }
                let id = self.shared.next_object();
                self.conn.execute("INSERT INTO main.sys_schemas VALUES (?1, ?2)", rusqlite::params![id, name])?;
                Ok(())
            }
            Kind::CreateView(name, columns, text) => self.create_view(name, columns, text),
            Kind::DropTable(names, exists) => self.drop_objects(names, *exists, false),
            Kind::DropView(names, exists) => self.drop_objects(names, *exists, true),
            Kind::DropIndex(names, exists) => {
                for (index, name) in names {
                    let mut table = self.table(name, 1088)?;
                    let at =
                        table.indexes.iter().position(|other| same(&other.name, index) && other.constraint.is_none());
                    match at {
                        Some(at) => {
                            let index = table.indexes.remove(at);
                            self.drop_index(&table, &index)?;
                            catalog::save(&self.conn, &table)?;
                        }
                        None if *exists => {}
                        None => {
                            return Err(SqlError::new(
                                3701,
                                11,
                                format!(
                                    "Cannot drop the index '{}.{index}', because it does not exist or you do not have permission.",
                                    name.join(".")
                                ),
                            ));
                        }
                    }
                }
                Ok(())
            }
            Kind::DropSchema(name, exists) => {
                let used: i64 = self.conn.query_row(
                    "SELECT count(*) FROM main.sys_objects WHERE schema = ?1 COLLATE NOCASE",
                    [name],
                    |row| row.get(0),
                )?;
                if used > 0 {
                    return Err(SqlError::of(
                        3729,
                        format!("Cannot drop schema '{name}' because it is being referenced by an object."),
                    ));
                }
                let gone = self.conn.execute("DELETE FROM main.sys_schemas WHERE name = ?1 COLLATE NOCASE", [name])?;
                if gone == 0 && !exists {
                    return Err(SqlError::of(
                        15151,
                        format!(
                            "Cannot drop the schema '{name}', because it does not exist or you do not have permission."
                        ),
                    ));
                }
                Ok(())
            }
            Kind::Truncate(name) => {
                let table = self.table(name, 4701)?;
                if !catalog::referring(&self.conn, table.id)?.is_empty() {
                    return Err(SqlError::of(
                        4712,
                        format!(
                            "Cannot truncate table '{}' because it is being referenced by a FOREIGN KEY constraint.",
                            name.join(".")
                        ),
                    ));
                }
                self.conn.execute(&format!("DELETE FROM {}", table.sql()), [])?;
                self.shared.reset_identity(table.id);
                Ok(())
            }
            _ => Err(SqlError::unsupported("statement")),
        }
    }

    /// A table that must be there; the error's number if it is not.
    fn table(&self, name: &Name, number: i32) -> Sql<TableDef> {
        let resolved = resolve(name, &self.shared.database)?;
        find(&self.conn, &resolved)?.filter(|table| table.view.is_none()).ok_or_else(|| {
            SqlError::of(
                number,
                format!(
                    "Cannot find the object \"{}\" because it does not exist or you do not have permissions.",
                    name.join(".")
                ),
            )
        })
    }

    /// A new object's place: 2714 if it is taken, 2760 without its schema.
    fn vacant(&self, name: &Name) -> Sql<(String, String, bool)> {
        let resolved = resolve(name, &self.shared.database)?;
        if resolved.temp {
            let name = if resolved.name.starts_with('#') {
                resolved.name.clone()
            } else {
                return Err(SqlError::unsupported("tempdb"));
            };
            if find(&self.conn, &resolved)?.is_some() {
                return Err(SqlError::of(2714, format!("There is already an object named '{name}' in the database.")));
            }
            return Ok(("dbo".to_owned(), name, true));
        }
        let schema: Option<String> = {
            use rusqlite::OptionalExtension as _;
            let sql = "SELECT name FROM main.sys_schemas WHERE name = ?1 COLLATE NOCASE";
            self.conn.query_row(sql, [&resolved.schema], |row| row.get(0)).optional()?
        };
        let schema = schema.filter(|schema| schema != "sys").ok_or_else(|| {
            SqlError::of(
                2760,
                format!(
                    "The specified schema name \"{}\" either does not exist or you do not have permission to use it.",
                    resolved.schema
                ),
            )
        })?;
        if find(&self.conn, &resolved)?.is_some() {
            return Err(SqlError::of(
                2714,
                format!("There is already an object named '{}' in the database.", resolved.name),
            ));
        }
        Ok((schema, resolved.name, false))
    }

    fn create_view(&mut self, name: &Name, columns: &[String], text: &str) -> Sql<()> {
        let (schema, name, _) = self.vacant(name)?;
        let query: Query = parse::view(text)?;
        let bound = self.with_binder(|binder| binder.query(&query, None))?;
        let id = self.shared.next_object();
        let created = super::calendar::round_datetime(super::calendar::now()).to_string();
        let mut view = TableDef { id, schema, name, view: Some(text.to_owned()), created, ..TableDef::default() };
        for (at, column) in bound.columns.into_iter().enumerate() {
            let name = columns.get(at).cloned().unwrap_or(column.name);
            let mut meta = ColumnMeta {
                id: i64::try_from(at).unwrap_or(0) + 1,
                name,
                nullable: column.nullable,
                collation: column.collation,
                ..ColumnMeta::default()
            };
            meta.set_type(column.ty);
            view.columns.push(meta);
        }
        catalog::save(&self.conn, &view)
    }

    fn drop_objects(&mut self, names: &[Name], exists: bool, view: bool) -> Sql<()> {
        for name in names {
            let resolved = resolve(name, &self.shared.database)?;
            let found = find(&self.conn, &resolved)?.filter(|table| table.view.is_some() == view);
            let Some(table) = found else {
                if exists {
                    continue;
                }
                let kind = if view { "view" } else { "table" };
                return Err(SqlError::new(
                    3701,
                    11,
                    format!(
                        "Cannot drop the {kind} '{}', because it does not exist or you do not have permission.",
                        name.join(".")
                    ),
                ));
            };
            if catalog::referring(&self.conn, table.id)?.iter().any(|other| other.id != table.id) {
                return Err(SqlError::of(
                    3726,
                    format!(
                        "Could not drop object '{}' because it is referenced by a FOREIGN KEY constraint.",
                        name.join(".")
                    ),
                ));
            }
            for foreign in &table.foreign {
                if let Some(parent) = catalog::find_id(&self.conn, foreign.target)? {
                    self.drop_triggers(&parent, foreign.id)?;
                }
            }
            if !view {
                self.conn.execute_batch(&format!("DROP TABLE {}", table.sql()))?;
            }
            catalog::remove(&self.conn, &table)?;
        }
        Ok(())
    }

    /// `sp_rename`.
    pub fn rename(&mut self, from: &str, to: &str, kind: Option<&str>) -> Sql<()> {
        let parts = parse::object_name(from)?;
        let kind = kind.map(str::to_ascii_uppercase);
        self.atomically(true, |session| {
            let missing = || SqlError::new(15225, 11, format!("No item by the name of '{from}' could be found in the current database '{}'.", session.shared.database));
            if let Some("COLUMN" | "INDEX") = kind.as_deref() {
                let (last, owner) = parts.split_last().ok_or_else(missing)?;
                let mut table = session.table(&owner.to_vec(), 15248)?;
                let renamed = if kind.as_deref() == Some("COLUMN") {
                    table.columns.iter_mut().find(|column| same(&column.name, last)).map(|column| to.clone_into(&mut column.name))
                } else {
                    table.indexes.iter_mut().find(|index| same(&index.name, last)).map(|index| to.clone_into(&mut index.name))
                };
                renamed.ok_or_else(missing)?;
                return catalog::save(&session.conn, &table);
            }
            let resolved = resolve(&parts, &session.shared.database)?;
            if let Some(mut table) = find(&session.conn, &resolved)? {
                session.vacant(&vec![table.schema.clone(), to.to_owned()]).map_err(|_| {
                    SqlError::new(15335, 11, format!("Error: The new name '{to}' is already in use as a OBJECT name and would cause a duplicate that is not permitted."))
                })?;
                to.clone_into(&mut table.name);
                return catalog::save(&session.conn, &table);
            }
            // A constraint.
            let mut all = session.conn.prepare("SELECT id FROM main.sys_objects")?;
            let ids = all.query_map([], |row| row.get::<_, i64>(0))?.collect::<Result<Vec<_>, _>>()?;
            drop(all);
            for id in ids {
                let Some(mut table) = catalog::find_id(&session.conn, id)? else { continue };
                let names = table
                    .indexes
                    .iter_mut()
                    .map(|index| &mut index.name)
                    .chain(table.checks.iter_mut().map(|check| &mut check.name))
                    .chain(table.foreign.iter_mut().map(|foreign| &mut foreign.name))
                    .chain(table.columns.iter_mut().filter_map(|column| column.default.as_mut().map(|(name, ..)| name)));
                for name in names {
                    if same(name, &resolved.name) {
                        to.clone_into(name);
                        return catalog::save(&session.conn, &table);
                    }
                }
            }
            Err(missing())
        })
    }

    /// After an identity was given: the next one is beyond the greatest.
    pub fn raise_identity(&self, table: &TableDef) -> Sql<()> {
        if let Some(column) = table.columns.iter().find(|column| column.identity.is_some()) {
            let sql = format!("SELECT max({}) FROM {}", column.sql(), table.sql());
            let most: Option<i64> = self.conn.query_row(&sql, [], |row| row.get(0)).unwrap_or(None);
            if let Some(most) = most {
                Shared::raise_identity(&self.shared, table.id, most);
            }
        }
        Ok(())
    }
}

/// `PK__t__1A2B3C4D`, as the server makes names up.
fn made_up(prefix: &str, table: &str, id: i64) -> String {
    let table: String = table.trim_start_matches('#').chars().take(8).collect();
    format!("{prefix}__{table}__{:08X}", id.abs())
}

/// A column as SQLite declares it.
fn declaration(column: &ColumnMeta, with_null: bool) -> String {
    let ty = column.ty();
    let collate = match &column.collation {
        Some(name) if ty.is_text() => format!(" COLLATE {}", sqlite_collation(name)),
        _ => String::new(),
    };
    let null = if with_null && !column.nullable { " NOT NULL" } else { "" };
    format!("{} {}{collate}{null}", column.sql(), ty.storage())
}
