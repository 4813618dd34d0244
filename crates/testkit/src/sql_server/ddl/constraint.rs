//! CHECK, FOREIGN KEY and keys of a table, and the triggers that keep them.

use super::{made_up, row_scope};
use crate::sql_server::{
    ast::{Constraint, ConstraintKind, CreateIndex},
    bind::{Scope, quote},
    catalog::{self, CheckMeta, ColumnMeta, ForeignMeta, TableDef, find, resolve, same},
    error::{Sql, SqlError},
    parse,
    session::Session,
};

impl Session {
    pub(super) fn ids(&self, table: &TableDef, names: &[String]) -> Sql<Vec<i64>> {
        let id = |name: &String| {
            table.column(name).map(|column| column.id).ok_or_else(|| {
                SqlError::of(1911, format!("Column name '{name}' does not exist in the target table or view."))
            })
        };
        names.iter().map(id).collect()
    }

    pub(super) fn add_constraint(&mut self, table: &mut TableDef, constraint: &Constraint) -> Sql<()> {
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

    pub(super) fn conflict(
        &self,
        verb: &str,
        kind: &str,
        name: &str,
        table: &TableDef,
        column: Option<&str>,
    ) -> String {
        let column = column.map_or(String::new(), |column| format!(", column '{column}'"));
        format!(
            "The {verb} statement conflicted with the {kind} constraint \"{name}\". The conflict occurred in database \"{}\", table \
             \"{}\"{column}.",
            self.shared.database,
            table.full()
        )
    }

    pub(super) fn make_check(&mut self, table: &TableDef, check: &CheckMeta) -> Sql<()> {
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
    pub(super) fn trigger(&self, table: &TableDef, id: i64, verb: &str, when: &str, text: &str) -> Sql<()> {
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

    pub(super) fn make_foreign(&mut self, table: &TableDef, parent: &TableDef, foreign: &ForeignMeta) -> Sql<()> {
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

    pub(super) fn drop_triggers(&self, table: &TableDef, id: i64) -> Sql<()> {
        let db = if table.is_temp() { "temp" } else { "main" };
        for verb in ["INSERT", "UPDATE", "DELETE"] {
            self.conn.execute_batch(&format!("DROP TRIGGER IF EXISTS {db}.r{}_{verb}", id.abs()))?;
        }
        Ok(())
    }

    pub(super) fn drop_constraint(&mut self, table: &mut TableDef, name: &str, exists: bool) -> Sql<()> {
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
}
