//! CREATE, ALTER, DROP: the catalog's rows and SQLite's tables, together in one statement.
//!
//! CHECK and FOREIGN KEY are triggers, since SQLite can neither add them to a table nor name the one that failed; a bulk load without
//! CHECK_CONSTRAINTS passes them by (`t_checked`). Keys are unique indexes; SQLite takes NULLs for different, SQL Server does not, so
//! that a second index watches over rows with a NULL.

use super::{
    Shared,
    ast::{Alter, ColumnDef, Constraint, ConstraintKind, CreateIndex, CreateTable, Kind, Name, Query},
    bind::{Scope, ScopeTable, known_collation, quote, sqlite_collation},
    catalog::{self, CheckMeta, ColumnMeta, ForeignMeta, IndexMeta, TableDef, find, resolve, same},
    error::{Sql, SqlError},
    parse,
    session::Session,
    types::Ty,
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

    fn create_table(&mut self, create: &CreateTable) -> Sql<()> {
        let (schema, name, temp) = self.vacant(&create.name)?;
        let id = self.shared.next_object();
        let mut table = TableDef {
            id: if temp { -id } else { id },
            schema,
            name,
            created: super::calendar::round_datetime(super::calendar::now()).to_string(),
            ..TableDef::default()
        };
        let primary: Vec<&str> = create
            .constraints
            .iter()
            .filter_map(|constraint| match &constraint.kind {
                ConstraintKind::Key { primary: true, columns, .. } => Some(columns),
                _ => None,
            })
            .flatten()
            .map(|(name, _)| name.as_str())
            .collect();
        for column in &create.columns {
            let mut meta = self.column_meta(&mut table, column)?;
            if primary.iter().any(|name| same(name, &meta.name)) {
                meta.nullable = false;
            }
            table.columns.push(meta);
        }
        self.make_table(&mut table)?;
        for constraint in &create.constraints {
            self.add_constraint(&mut table, constraint)?;
        }
        for index in &create.indexes {
            self.add_index(&mut table, index, None, false)?;
        }
        if temp && self.depth > 0 {
            self.temps.push(table.id);
        }
        catalog::save(&self.conn, &table)
    }

    /// Makes SQLite's table of a definition whose columns are known; computed ones get their types.
    fn make_table(&mut self, table: &mut TableDef) -> Sql<()> {
        let mut parts = vec![];
        for at in 0..table.columns.len() {
            if let Some(text) = table.columns[at].computed.clone() {
                let (sql, ty) = self.computed(table, &text)?;
                table.columns[at].set_type(ty);
                table.columns[at].nullable = true;
                if ty.is_text() {
                    table.columns[at].collation = Some(super::bind::COLLATION.to_owned());
                }
                parts.push(format!("{} GENERATED ALWAYS AS ({sql}) VIRTUAL", declaration(&table.columns[at], false)));
            } else {
                parts.push(declaration(&table.columns[at], true));
            }
        }
        self.conn.execute_batch(&format!("CREATE TABLE {} ({}) STRICT", table.sql(), parts.join(", ")))?;
        Ok(())
    }

    fn computed(&self, table: &TableDef, text: &str) -> Sql<(String, Ty)> {
        let expr = parse::expression(text)?;
        let scope = Scope { tables: vec![row_scope(table, "")], parent: None };
        self.with_binder(|binder| {
            let bound = binder.expr(&expr, &scope)?;
            Ok((bound.sql, bound.ty))
        })
    }

    fn column_meta(&mut self, table: &mut TableDef, column: &ColumnDef) -> Sql<ColumnMeta> {
        if table.column(&column.name).is_some() {
            return Err(SqlError::of(
                2705,
                format!(
                    "Column names in each table must be unique. Column name '{}' in table '{}' is specified more than once.",
                    column.name, table.name
                ),
            ));
        }
        table.next_column += 1;
        let mut meta = ColumnMeta {
            id: table.next_column,
            name: column.name.clone(),
            nullable: column.nullable.unwrap_or(column.identity.is_none()),
            identity: column.identity,
            computed: column.computed.as_ref().map(|(text, _)| text.clone()),
            persisted: column.computed.as_ref().is_some_and(|(_, persisted)| *persisted),
            rowversion: column.rowversion,
            ..ColumnMeta::default()
        };
        if let Some(ty) = column.ty {
            meta.set_type(ty);
            if meta.rowversion {
                meta.system_id = ROWVERSION;
            }
            if ty.is_text() && ty != Ty::Xml {
                let name = match &column.collation {
                    Some(name) if !same(name, "database_default") => name.as_str(),
                    _ => super::bind::COLLATION,
                };
                known_collation(name)?;
                meta.collation = Some(name.to_owned());
            }
            if let Some((seed, step)) = column.identity {
                if !(ty.is_integer() || matches!(ty, Ty::Decimal { s: 0, .. })) || column.nullable == Some(true) {
                    return Err(SqlError::of(
                        2749,
                        format!(
                            "Identity column '{}' must be of data type int, bigint, smallint, tinyint, or decimal or numeric with a scale of 0, and constrained to be nonnullable.",
                            column.name
                        ),
                    ));
                }
                self.shared.set_identity(table.id, seed, step);
            }
        }
        if let Some((name, text)) = &column.default {
            let id = self.shared.next_object();
            let name = name.clone().unwrap_or_else(|| made_up("DF", &table.name, id));
            parse::expression(text)?;
            meta.default = Some((name, text.clone(), id));
        }
        Ok(meta)
    }

    fn ids(&self, table: &TableDef, names: &[String]) -> Sql<Vec<i64>> {
        let id = |name: &String| {
            table.column(name).map(|column| column.id).ok_or_else(|| {
                SqlError::of(1911, format!("Column name '{name}' does not exist in the target table or view."))
            })
        };
        names.iter().map(id).collect()
    }

    fn add_constraint(&mut self, table: &mut TableDef, constraint: &Constraint) -> Sql<()> {
        let id = self.shared.next_object();
        let id = if table.is_temp() { -id } else { id };
        match &constraint.kind {
            ConstraintKind::Key { primary, clustered, columns } => {
                let prefix = if *primary { "PK" } else { "UQ" };
                let name = constraint.name.clone().unwrap_or_else(|| made_up(prefix, &table.name, id));
                if *primary && table.indexes.iter().any(|index| index.primary) {
                    return Err(SqlError::of(
                        1779,
                        format!("Table '{}' already has a primary key defined on it.", table.name),
                    ));
                }
                if *primary && columns.iter().any(|(name, _)| table.column(name).is_some_and(|column| column.nullable))
                {
                    return Err(SqlError::of(
                        8111,
                        format!("Cannot define PRIMARY KEY constraint on nullable column in table '{}'.", table.name),
                    ));
                }
                let taken = table.indexes.iter().any(|index| index.clustered);
                let index = CreateIndex {
                    name,
                    table: vec![],
                    unique: true,
                    clustered: clustered.unwrap_or(*primary && !taken),
                    columns: columns.clone(),
                    include: vec![],
                    ignore_duplicates: false,
                    filter: None,
                };
                self.add_index(table, &index, Some(id), *primary)
            }
            ConstraintKind::Check(text) => {
                let name = constraint.name.clone().unwrap_or_else(|| made_up("CK", &table.name, id));
                let check = CheckMeta { id, name, expr: text.clone(), disabled: false };
                self.make_check(table, &check)?;
                table.checks.push(check);
                Ok(())
            }
            ConstraintKind::Foreign { columns, table: target, references } => {
                if table.is_temp() {
                    return Ok(()); // as the server does: not enforced
                }
                let name = constraint.name.clone().unwrap_or_else(|| made_up("FK", &table.name, id));
                let resolved = resolve(target, &self.shared.database)?;
                let itself = same(&resolved.name, &table.name) && same(&resolved.schema, &table.schema);
                let parent = if itself {
                    table.clone()
                } else {
                    find(&self.conn, &resolved)?.ok_or_else(|| {
                        SqlError::of(
                            1767,
                            format!("Foreign key '{name}' references invalid table '{}'.", target.join(".")),
                        )
                    })?
                };
                let columns = self.ids(table, columns)?;
                let references = if references.is_empty() {
                    parent
                        .indexes
                        .iter()
                        .find(|index| index.primary)
                        .map(|index| index.columns.iter().map(|(id, _)| *id).collect())
                        .unwrap_or_default()
                } else {
                    self.ids(&parent, references)?
                };
                let has_key = parent.indexes.iter().any(|index| {
                    index.unique && index.columns.iter().map(|(id, _)| *id).eq(references.iter().copied())
                });
                if references.len() != columns.len() || !has_key {
                    return Err(SqlError::of(
                        1776,
                        format!(
                            "There are no primary or candidate keys in the referenced table '{}' that match the referencing column list in the foreign key '{name}'.",
                            target.join(".")
                        ),
                    ));
                }
                let foreign = ForeignMeta { id, name, columns, target: parent.id, references, disabled: false };
                self.make_foreign(table, &parent, &foreign)?;
                table.foreign.push(foreign);
                Ok(())
            }
            ConstraintKind::Default { expr, column } => {
                parse::expression(expr)?;
                let name = constraint.name.clone().unwrap_or_else(|| made_up("DF", &table.name, id));
                let at = table
                    .columns
                    .iter()
                    .position(|other| same(&other.name, column))
                    .ok_or_else(|| SqlError::invalid_column(column))?;
                if table.columns[at].default.is_some() {
                    return Err(SqlError::of(1781, "Column already has a DEFAULT bound to it."));
                }
                table.columns[at].default = Some((name, expr.clone(), id));
                Ok(())
            }
        }
    }

    fn conflict(&self, verb: &str, kind: &str, name: &str, table: &TableDef, column: Option<&str>) -> String {
        let column = column.map_or(String::new(), |column| format!(", column '{column}'"));
        format!(
            "The {verb} statement conflicted with the {kind} constraint \"{name}\". The conflict occurred in database \"{}\", table \
             \"{}\"{column}.",
            self.shared.database,
            table.full()
        )
    }

    fn make_check(&mut self, table: &TableDef, check: &CheckMeta) -> Sql<()> {
        let expr = parse::expression(&check.expr)?;
        let truth = |prefix: &str| {
            let scope = Scope { tables: vec![row_scope(table, prefix)], parent: None };
            self.with_binder(|binder| binder.truth(&expr, &scope))
        };
        let only: Vec<&ColumnMeta> = table
            .columns
            .iter()
            .filter(|column| check.expr.to_lowercase().contains(&column.name.to_lowercase()))
            .collect();
        let column = if let [column] = &only[..] { Some(column.name.as_str()) } else { None };
        let bad: i64 = self.conn.query_row(
            &format!("SELECT count(*) FROM {} WHERE NOT {}", table.sql(), truth("")?),
            [],
            |row| row.get(0),
        )?;
        if bad > 0 {
            return Err(SqlError::of(547, self.conflict("ALTER TABLE", "CHECK", &check.name, table, column)));
        }
        for verb in ["INSERT", "UPDATE"] {
            let text = self.conflict(verb, "CHECK", &check.name, table, column);
            self.trigger(table, check.id, verb, &format!("NOT {}", truth("NEW.")?), &text)?;
        }
        Ok(())
    }

    /// A trigger that refuses.
    fn trigger(&self, table: &TableDef, id: i64, verb: &str, when: &str, text: &str) -> Sql<()> {
        let db = if table.is_temp() { "temp" } else { "main" };
        let sql = format!(
            "CREATE TRIGGER {db}.r{}_{verb} AFTER {verb} ON t{} WHEN t_checked() AND ({when}) BEGIN SELECT t_raise(547, {}); END",
            id.abs(),
            table.id.abs(),
            quote(text)
        );
        self.conn.execute_batch(&sql)?;
        Ok(())
    }

    fn make_foreign(&mut self, table: &TableDef, parent: &TableDef, foreign: &ForeignMeta) -> Sql<()> {
        let kind = if parent.id == table.id { "FOREIGN KEY SAME TABLE" } else { "FOREIGN KEY" };
        let single = |table: &TableDef, ids: &[i64]| match ids {
            [id] => table.column_of(*id).map(|column| column.name.clone()),
            _ => None,
        };
        let pairs = |child: &str, other: &str| -> String {
            let all = foreign.columns.iter().zip(&foreign.references);
            all.map(|(column, reference)| format!("{other}c{reference} = {child}c{column}"))
                .collect::<Vec<_>>()
                .join(" AND ")
        };
        let present = |prefix: &str| {
            foreign.columns.iter().map(|id| format!("{prefix}c{id} IS NOT NULL")).collect::<Vec<_>>().join(" AND ")
        };
        let missing = |prefix: &str| {
            format!(
                "{} AND NOT EXISTS (SELECT 1 FROM t{} AS p WHERE {})",
                present(prefix),
                parent.id,
                pairs(prefix, "p.")
            )
        };
        let column = single(parent, &foreign.references);
        let bad: i64 = self.conn.query_row(
            &format!("SELECT count(*) FROM {} AS c WHERE {}", table.sql(), missing("c.")),
            [],
            |row| row.get(0),
        )?;
        if bad > 0 {
            return Err(SqlError::of(
                547,
                self.conflict("ALTER TABLE", kind, &foreign.name, parent, column.as_deref()),
            ));
        }
        for verb in ["INSERT", "UPDATE"] {
            let text = self.conflict(verb, kind, &foreign.name, parent, column.as_deref());
            self.trigger(table, foreign.id, verb, &missing("NEW."), &text)?;
        }
        let column = single(table, &foreign.columns);
        let left = format!("EXISTS (SELECT 1 FROM t{} AS c WHERE {})", table.id, pairs("c.", "OLD."));
        let text = self.conflict("DELETE", "REFERENCE", &foreign.name, table, column.as_deref());
        self.trigger(parent, foreign.id, "DELETE", &left, &text)
    }

    fn add_index(
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

    fn make_index(&self, table: &TableDef, index: &IndexMeta, filter: Option<&str>) -> Sql<()> {
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

    fn drop_index(&self, table: &TableDef, index: &IndexMeta) -> Sql<()> {
        let db = if table.is_temp() { "temp" } else { "main" };
        let t = table.id.abs();
        self.conn.execute_batch(&format!(
            "DROP INDEX IF EXISTS {db}.i{t}_{0}; DROP INDEX IF EXISTS {db}.n{t}_{0};",
            index.id
        ))?;
        Ok(())
    }

    fn drop_triggers(&self, table: &TableDef, id: i64) -> Sql<()> {
        let db = if table.is_temp() { "temp" } else { "main" };
        for verb in ["INSERT", "UPDATE", "DELETE"] {
            self.conn.execute_batch(&format!("DROP TRIGGER IF EXISTS {db}.r{}_{verb}", id.abs()))?;
        }
        Ok(())
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

    fn alter_table(&mut self, name: &Name, alter: &Alter) -> Sql<()> {
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

    fn add_column(&mut self, table: &mut TableDef, column: &ColumnDef) -> Sql<()> {
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
    fn remake(&mut self, old: &TableDef, table: &mut TableDef, value: Option<&str>) -> Sql<()> {
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

    fn alter_column(&mut self, table: &mut TableDef, column: &ColumnDef) -> Sql<()> {
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

    fn drop_constraint(&mut self, table: &mut TableDef, name: &str, exists: bool) -> Sql<()> {
        if let Some(at) = table.indexes.iter().position(|index| index.constraint.is_some() && same(&index.name, name)) {
            let index = table.indexes.remove(at);
            return self.drop_index(table, &index);
        }
        if let Some(at) = table.checks.iter().position(|check| same(&check.name, name)) {
            let check = table.checks.remove(at);
            return self.drop_triggers(table, check.id);
        }
        if let Some(at) = table.foreign.iter().position(|foreign| same(&foreign.name, name)) {
            let foreign = table.foreign.remove(at);
            if let Some(parent) = catalog::find_id(&self.conn, foreign.target)? {
                self.drop_triggers(&parent, foreign.id)?;
            }
            return self.drop_triggers(table, foreign.id);
        }
        let of = |column: &&mut ColumnMeta| column.default.as_ref().is_some_and(|(other, ..)| same(other, name));
        if let Some(column) = table.columns.iter_mut().find(of) {
            column.default = None;
            return Ok(());
        }
        if exists { Ok(()) } else { Err(SqlError::of(3728, format!("'{name}' is not a constraint."))) }
    }

    /// `SELECT … INTO`.
    pub fn select_into(&mut self, query: &Query, into: &Name) -> Sql<()> {
        let own = into.last().is_some_and(|name| name.starts_with('#'));
        let count = self.atomically(!own, |session| {
            let (schema, name, temp) = session.vacant(into)?;
            let (bound, params) = session.with_binder(|binder| Ok((binder.query(query, None)?, std::mem::take(&mut binder.params))))?;
            let id = session.shared.next_object();
            let created = super::calendar::round_datetime(super::calendar::now()).to_string();
            let mut table = TableDef { id: if temp { -id } else { id }, schema, name, created, ..TableDef::default() };
            for column in &bound.columns {
                if column.name.is_empty() {
                    return Err(SqlError::of(1038, "An object or column name is missing or empty. For SELECT INTO statements, verify each column has a name."));
                }
                let def = ColumnDef { name: column.name.clone(), ty: Some(column.ty), nullable: Some(column.nullable), collation: column.collation.clone(), ..ColumnDef::default() };
                let mut meta = session.column_meta(&mut table, &def)?;
                if column.identity {
                    meta.identity = Some((1, 1));
                    session.shared.set_identity(table.id, 1, 1);
                }
                table.columns.push(meta);
            }
            session.make_table(&mut table)?;
            if temp && session.depth > 0 {
                session.temps.push(table.id);
            }
            catalog::save(&session.conn, &table)?;
            let names: Vec<String> = table.columns.iter().map(ColumnMeta::sql).collect();
            let sql = format!("INSERT INTO {} ({}) {}", table.sql(), names.join(", "), bound.sql);
            let mut statement = session.conn.prepare(&sql)?;
            super::run::bind(&mut statement, &params)?;
            Ok(statement.raw_execute()?)
        })?;
        self.rowcount = i64::try_from(count).unwrap_or(i64::MAX);
        self.statement_done(0, (!self.nocount).then(|| u64::try_from(count).unwrap_or(0)));
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
