//! ALTER TABLE: SQLite changes little of a table, so that most of it makes a new one.

use super::declaration;
use crate::sql_server::{
    ast::{Alter, ColumnDef, Name},
    bind::{known_collation, quote},
    catalog::{self, ColumnMeta, TableDef, same},
    error::{Sql, SqlError},
    session::Session,
};

impl Session {
    pub(super) fn alter_table(&mut self, name: &Name, alter: &Alter) -> Sql<()> {
        let mut table = self.table(name, 4902)?;
        match alter {
            Alter::Nothing => return Ok(()),
            Alter::Add(columns, constraints) => {
                for column in columns {
                    self.add_column(&mut table, column)?;
                }
                catalog::save(&self.conn, &table)?;
                for constraint in constraints {
                    self.add_constraint(&mut table, constraint)?;
                }
            }
            Alter::DropConstraint(names, exists) => {
                for constraint in names {
                    self.drop_constraint(&mut table, constraint, *exists)?;
                }
            }
            Alter::DropColumn(names, exists) => {
                for column in names {
                    let Some(at) = table.columns.iter().position(|other| same(&other.name, column)) else {
                        if *exists {
                            continue;
                        }
                        return Err(SqlError::of(
                            4924,
                            format!(
                                "ALTER TABLE DROP COLUMN failed because column '{column}' does not exist in table '{}'.",
                                table.name
                            ),
                        ));
                    };
                    let id = table.columns[at].id;
                    let used = table.indexes.iter().any(|index| {
                        index.columns.iter().any(|(other, _)| *other == id) || index.include.contains(&id)
                    }) || table.foreign.iter().any(|foreign| foreign.columns.contains(&id))
                        || table.columns[at].default.is_some();
                    if used {
                        return Err(SqlError::of(
                            4922,
                            format!(
                                "ALTER TABLE DROP COLUMN {column} failed because one or more objects access this column."
                            ),
                        ));
                    }
                    self.conn.execute_batch(&format!("ALTER TABLE {} DROP COLUMN c{id}", table.sql()))?;
                    table.columns.remove(at);
                }
            }
            Alter::Column(column) => self.alter_column(&mut table, column)?,
            Alter::Enable(which, enable) => {
                for at in 0..table.checks.len() {
                    let check = table.checks[at].clone();
                    if which.as_ref().is_none_or(|name| same(name, &check.name)) {
                        self.drop_triggers(&table, check.id)?;
                        if *enable {
                            self.make_check(&table, &check)?;
                        }
                        table.checks[at].disabled = !enable;
                    }
                }
                for at in 0..table.foreign.len() {
                    let foreign = table.foreign[at].clone();
                    if which.as_ref().is_none_or(|name| same(name, &foreign.name))
                        && let Some(parent) = catalog::find_id(&self.conn, foreign.target)?
                    {
                        self.drop_triggers(&table, foreign.id)?;
                        self.drop_triggers(&parent, foreign.id)?;
                        if *enable {
                            self.make_foreign(&table, &parent, &foreign)?;
                        }
                        table.foreign[at].disabled = !enable;
                    }
                }
            }
            Alter::Switch(target) => {
                let other = self.table(target, 4902)?;
                let columns = |table: &TableDef| {
                    table
                        .columns
                        .iter()
                        .filter(|column| column.computed.is_none())
                        .map(ColumnMeta::sql)
                        .collect::<Vec<_>>()
                        .join(", ")
                };
                let kinds = |table: &TableDef| {
                    table.columns.iter().map(|column| (column.ty, column.nullable)).collect::<Vec<_>>()
                };
                if kinds(&table) != kinds(&other) {
                    return Err(SqlError::of(
                        4943,
                        "ALTER TABLE SWITCH statement failed because the tables have different columns.",
                    ));
                }
                let rows: i64 =
                    self.conn.query_row(&format!("SELECT count(*) FROM {}", other.sql()), [], |row| row.get(0))?;
                if rows > 0 {
                    return Err(SqlError::of(
                        4905,
                        format!(
                            "ALTER TABLE SWITCH statement failed. The target table '{}' must be empty.",
                            target.join(".")
                        ),
                    ));
                }
                self.conn.execute_batch(&format!(
                    "INSERT INTO {} ({}) SELECT {} FROM {}; DELETE FROM {}",
                    other.sql(),
                    columns(&other),
                    columns(&table),
                    table.sql(),
                    table.sql()
                ))?;
                return Ok(());
            }
            Alter::Transfer(schema) => {
                let (schema, _, _) = self.vacant(&vec![schema.clone(), table.name.clone()])?;
                table.schema = schema;
            }
        }
        catalog::save(&self.conn, &table)
    }

    pub(super) fn add_column(&mut self, table: &mut TableDef, column: &ColumnDef) -> Sql<()> {
        let mut meta = self.column_meta(table, column)?;
        if let Some(text) = meta.computed.clone() {
            let (sql, ty) = self.computed(table, &text)?;
            meta.set_type(ty);
            meta.nullable = true;
            self.conn.execute_batch(&format!(
                "ALTER TABLE {} ADD COLUMN {} GENERATED ALWAYS AS ({sql}) VIRTUAL",
                table.sql(),
                declaration(&meta, false)
            ))?;
            table.columns.push(meta);
            return Ok(());
        }
        let rows: bool =
            self.conn.query_row(&format!("SELECT EXISTS (SELECT 1 FROM {})", table.sql()), [], |row| row.get(0))?;
        let value = self.with_binder(|binder| binder.default_of(table, &meta))?;
        if rows && !meta.nullable && value.is_none() {
            return Err(SqlError::of(
                4901,
                format!(
                    "ALTER TABLE only allows columns to be added that can contain nulls, or have a DEFAULT definition specified, or the column being added is an identity or timestamp column. Column '{}' cannot be added to non-empty table '{}'.",
                    meta.name, table.name
                ),
            ));
        }
        if meta.nullable {
            self.conn.execute_batch(&format!("ALTER TABLE {} ADD COLUMN {}", table.sql(), declaration(&meta, true)))?;
            table.columns.push(meta);
            return Ok(());
        }
        // SQLite cannot add such a column: the table is made anew.
        let old = table.clone();
        table.columns.push(meta);
        self.remake(&old, table, value.as_deref())
    }

    /// Moves all rows into a table of another shape; the last column, where it is new, gets this value.
    pub(super) fn remake(&mut self, old: &TableDef, table: &mut TableDef, value: Option<&str>) -> Sql<()> {
        let db = if table.is_temp() { "temp" } else { "main" };
        let t = table.id.abs();
        self.conn.execute_batch(&format!(
            "PRAGMA legacy_alter_table = ON; ALTER TABLE {db}.t{t} RENAME TO old_{t}; PRAGMA legacy_alter_table = OFF"
        ))?;
        let (indexes, checks, foreign) = (table.indexes.clone(), table.checks.clone(), table.foreign.clone());
        for index in &indexes {
            self.drop_index(table, index)?;
        }
        for id in checks.iter().map(|check| check.id).chain(foreign.iter().map(|foreign| foreign.id)) {
            self.drop_triggers(table, id)?;
        }
        self.make_table(table)?;
        let kept: Vec<String> =
            old.columns.iter().filter(|column| column.computed.is_none()).map(ColumnMeta::sql).collect();
        let mut into = kept.clone();
        let mut from = kept;
        for column in table.columns.iter().filter(|column| old.column_of(column.id).is_none()) {
            into.push(column.sql());
            from.push(value.unwrap_or("NULL").to_owned());
        }
        for (place, name) in from.iter_mut().zip(&into) {
            let id = name.trim_start_matches('c').parse().unwrap_or(0);
            if let (Some(before), Some(after)) = (old.column_of(id), table.column_of(id))
                && before.ty != after.ty
            {
                let at = self.with_binder(|binder| Ok(binder.place(table, after)))?;
                *place = format!("t_store({name}, {}, {}, {})", before.ty, after.ty, quote(&at));
            }
        }
        let moved = self.conn.execute(
            &format!("INSERT INTO {} ({}) SELECT {} FROM {db}.old_{t}", table.sql(), into.join(", "), from.join(", ")),
            [],
        );
        moved.map_err(|error| self.explain(error, table, "UPDATE", None))?;
        self.conn.execute_batch(&format!("DROP TABLE {db}.old_{t}"))?;
        for index in &indexes {
            if index.filtered {
                return Err(SqlError::unsupported("ALTER TABLE with a filtered index"));
            }
            self.make_index(table, index, None)?;
        }
        for check in checks.iter().filter(|check| !check.disabled) {
            self.make_check(table, check)?;
        }
        for key in foreign.iter().filter(|key| !key.disabled) {
            if let Some(parent) = catalog::find_id(&self.conn, key.target)? {
                self.drop_triggers(&parent, key.id)?;
                self.make_foreign(table, &parent, key)?;
            }
        }
        Ok(())
    }

    pub(super) fn alter_column(&mut self, table: &mut TableDef, column: &ColumnDef) -> Sql<()> {
        let at = table.columns.iter().position(|other| same(&other.name, &column.name)).ok_or_else(|| {
            SqlError::of(
                4924,
                format!(
                    "ALTER TABLE ALTER COLUMN failed because column '{}' does not exist in table '{}'.",
                    column.name, table.name
                ),
            )
        })?;
        if catalog::referring(&self.conn, table.id)?.iter().any(|other| other.id != table.id) {
            return Err(SqlError::unsupported("ALTER COLUMN of a referenced table"));
        }
        let old = table.clone();
        if let Some(ty) = column.ty {
            table.columns[at].set_type(ty);
        }
        table.columns[at].nullable = column.nullable.unwrap_or(true);
        if let Some(collation) = &column.collation {
            known_collation(collation)?;
            table.columns[at].collation = Some(collation.clone());
        }
        self.remake(&old, table, None)
    }
}
