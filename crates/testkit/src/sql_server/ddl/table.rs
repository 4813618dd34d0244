//! CREATE TABLE: columns, and what they are computed by.

use super::{ROWVERSION, declaration, made_up, row_scope};
use crate::sql_server::{
    ast::{ColumnDef, ConstraintKind, CreateTable, Name, Query},
    bind::{Scope, known_collation},
    catalog::{self, ColumnMeta, TableDef, same},
    error::{Sql, SqlError},
    parse,
    session::Session,
    types::Ty,
};

impl Session {
    pub(super) fn create_table(&mut self, create: &CreateTable) -> Sql<()> {
        let (schema, name, temp) = self.vacant(&create.name)?;
        let id = self.shared.next_object();
        let mut table = TableDef {
            id: if temp { -id } else { id },
            schema,
            name,
            created: crate::sql_server::calendar::round_datetime(crate::sql_server::calendar::now()).to_string(),
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
    pub(super) fn make_table(&mut self, table: &mut TableDef) -> Sql<()> {
        let mut parts = vec![];
        for at in 0..table.columns.len() {
            if let Some(text) = table.columns[at].computed.clone() {
                let (sql, ty) = self.computed(table, &text)?;
                table.columns[at].set_type(ty);
                table.columns[at].nullable = true;
                if ty.is_text() {
                    table.columns[at].collation = Some(crate::sql_server::bind::COLLATION.to_owned());
                }
                parts.push(format!("{} GENERATED ALWAYS AS ({sql}) VIRTUAL", declaration(&table.columns[at], false)));
            } else {
                parts.push(declaration(&table.columns[at], true));
            }
        }
        self.conn.execute_batch(&format!("CREATE TABLE {} ({}) STRICT", table.sql(), parts.join(", ")))?;
        Ok(())
    }

    pub(super) fn computed(&self, table: &TableDef, text: &str) -> Sql<(String, Ty)> {
        let expr = parse::expression(text)?;
        let scope = Scope { tables: vec![row_scope(table, "")], parent: None };
        self.with_binder(|binder| {
            let bound = binder.expr(&expr, &scope)?;
            Ok((bound.sql, bound.ty))
        })
    }

    pub(super) fn column_meta(&mut self, table: &mut TableDef, column: &ColumnDef) -> Sql<ColumnMeta> {
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
                    _ => crate::sql_server::bind::COLLATION,
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

    /// `SELECT … INTO`.
    pub fn select_into(&mut self, query: &Query, into: &Name) -> Sql<()> {
        let own = into.last().is_some_and(|name| name.starts_with('#'));
        let count = self.atomically(!own, |session| {
            let (schema, name, temp) = session.vacant(into)?;
            let (bound, params) = session.with_binder(|binder| Ok((binder.query(query, None)?, std::mem::take(&mut binder.params))))?;
            let id = session.shared.next_object();
            let created = crate::sql_server::calendar::round_datetime(crate::sql_server::calendar::now()).to_string();
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
            crate::sql_server::run::bind(&mut statement, &params)?;
            Ok(statement.raw_execute()?)
        })?;
        self.rowcount = i64::try_from(count).unwrap_or(i64::MAX);
        self.statement_done(0, (!self.nocount).then(|| u64::try_from(count).unwrap_or(0)));
        Ok(())
    }
}
