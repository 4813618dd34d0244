//! INSERT, UPDATE, DELETE.

use super::{
    super::{
        ast::{Delete, Insert, Item, Output, Source, Table, Update},
        catalog::{ColumnMeta, TableDef, find, resolve, same},
        error::{Sql, SqlError},
        types::Ty,
        wire::ResultColumn,
    },
    Binder, Bound, Scope, ScopeTable,
    query::{assigned, result_column, scope_of},
};

/// What is executed for a statement that changes a table.
#[derive(Debug)]
pub(in super::super) struct Plan {
    pub table: TableDef,
    /// To be executed before, with the same parameters, and the table that it makes.
    pub before: Option<String>,
    pub sql: String,
    /// To be executed after: the rows of OUTPUT; without it they come from `sql` itself.
    pub after: Option<String>,
    /// Columns of OUTPUT.
    pub output: Option<Vec<ResultColumn>>,
    /// The rows that an INSERT would store, and ids of the columns they are for: to name a duplicate.
    pub rows: Option<(String, Vec<i64>)>,
    /// The identity column is given.
    pub gives_identity: bool,
}

impl Binder<'_> {
    /// The table that a statement changes.
    pub fn target(&mut self, name: &[String]) -> Sql<TableDef> {
        let name = name.to_vec();
        let resolved = resolve(&name, self.facts.database)?;
        if same(&resolved.schema, "sys") {
            return Err(SqlError::of(259, "Ad hoc updates to system catalogs are not allowed."));
        }
        let table = find(self.facts.conn, &resolved)?.ok_or_else(|| SqlError::invalid_object(&name.join(".")))?;
        if table.view.is_some() {
            return Err(SqlError::of(4406, format!("Update or insert of view or function '{}' failed.", table.name)));
        }
        self.permanent |= !table.is_temp();
        Ok(table)
    }

    /// A column's place, as truncation errors name it.
    pub fn place(&self, table: &TableDef, column: &ColumnMeta) -> String {
        let database = if table.is_temp() { "tempdb" } else { self.facts.database };
        format!("{database}.{}|{}", table.full(), column.name)
    }

    /// The SQL of a column's value where none is given; nothing: NULL.
    pub fn default_of(&mut self, table: &TableDef, column: &ColumnMeta) -> Sql<Option<String>> {
        if column.rowversion {
            return Ok(Some("t_rowversion()".to_owned()));
        }
        if column.identity.is_some() {
            return Ok(Some(format!("t_identity({})", table.id)));
        }
        let Some((_, text, _)) = &column.default else { return Ok(None) };
        let expr = super::super::parse::expression(text)?;
        let bound = self.expr(&expr, &Scope::default())?;
        let place = self.place(table, column);
        Ok(Some(assigned(&bound, &column.ty(), &place)))
    }

    pub fn insert(&mut self, insert: &Insert) -> Sql<Plan> {
        self.bind_ctes(&insert.ctes)?;
        let table = self.target(&insert.table)?;
        let explicit = self.facts.identity_insert == Some(table.id);
        let mut columns: Vec<&ColumnMeta> = vec![];
        match &insert.columns {
            Some(names) => {
                for name in names {
                    let column = table.column(name).ok_or_else(|| SqlError::invalid_column(name))?;
                    if columns.iter().any(|other| other.id == column.id) {
                        return Err(SqlError::of(
                            264,
                            format!(
                                "The column name '{name}' is specified more than once in the SET clause or column list of an INSERT."
                            ),
                        ));
                    }
                    columns.push(column);
                }
            }
            None => {
                let given = |column: &&ColumnMeta| {
                    column.computed.is_none() && !column.rowversion && (column.identity.is_none() || explicit)
                };
                columns.extend(table.columns.iter().filter(given));
            }
        }
        for column in &columns {
            writable(column)?;
            if column.identity.is_some() && !explicit {
                return Err(SqlError::of(
                    544,
                    format!(
                        "Cannot insert explicit value for identity column in table '{}' when IDENTITY_INSERT is set to OFF.",
                        table.name
                    ),
                ));
            }
        }
        let to: Vec<(Ty, String)> = columns.iter().map(|column| (column.ty(), self.place(&table, column))).collect();
        let rows = match &insert.source {
            Source::Query(query) => self.query_to(query, None, Some(&to))?.sql,
            Source::Values(rows) => {
                let mut lines = vec![];
                for row in rows {
                    if row.len() != columns.len() {
                        let (number, which) = if row.len() < columns.len() { (109, "more") } else { (110, "fewer") };
                        return Err(SqlError::new(
                            number,
                            15,
                            format!(
                                "There are {which} columns in the INSERT statement than values specified in the VALUES clause. The number \
                                 of values in the VALUES clause must match the number of columns specified in the INSERT statement."
                            ),
                        ));
                    }
                    let mut values = vec![];
                    for ((value, column), (ty, place)) in row.iter().zip(&columns).zip(&to) {
                        values.push(match value {
                            Some(expr) => {
                                let bound = self.expr(expr, &Scope::default())?;
                                assigned(&bound, ty, place)
                            }
                            None => self.default_of(&table, column)?.unwrap_or_else(|| "NULL".to_owned()),
                        });
                    }
                    lines.push(format!("({})", values.join(", ")));
                }
                let list: Vec<String> =
                    (0..columns.len()).map(|index| format!("column{} AS k{index}", index + 1)).collect();
                format!("SELECT {} FROM (VALUES {})", list.join(", "), lines.join(", "))
            }
            Source::Default => "SELECT 1".to_owned(),
            Source::Exec => return Err(SqlError::unsupported("EXEC")),
        };
        if matches!(insert.source, Source::Default) {
            columns.clear();
        }
        let mut names: Vec<String> = columns.iter().map(|column| column.sql()).collect();
        let mut values: Vec<String> = (0..columns.len()).map(|index| format!("k{index}")).collect();
        for column in &table.columns {
            if columns.iter().any(|given| given.id == column.id) || column.computed.is_some() {
                continue;
            }
            if let Some(value) = self.default_of(&table, column)? {
                names.push(column.sql());
                values.push(value);
            } else if names.is_empty() {
                names.push(column.sql());
                values.push("NULL".to_owned());
            }
        }
        // The name of the rows keeps SQLite from reading ON of an upsert into a join.
        let mut sql = format!(
            "INSERT INTO {} ({}) SELECT {} FROM ({rows}) AS r WHERE true",
            table.sql(),
            names.join(", "),
            values.join(", ")
        );
        let output = self.returning(insert.output.as_ref(), &table, "inserted", &mut sql)?;
        let ids = columns.iter().map(|column| column.id).collect();
        let gives_identity = columns.iter().any(|column| column.identity.is_some());
        let rows = Some((rows, ids));
        Ok(Plan { before: None, sql, after: None, output, rows, gives_identity, table })
    }

    fn returning(
        &mut self,
        output: Option<&Output>,
        table: &TableDef,
        alias: &str,
        sql: &mut String,
    ) -> Sql<Option<Vec<ResultColumn>>> {
        let Some(output) = output else { return Ok(None) };
        if output.into.is_some() {
            return Err(SqlError::unsupported("OUTPUT INTO"));
        }
        let mut offered = scope_of(table.clone(), "x");
        alias.clone_into(&mut offered.alias);
        for (column, meta) in offered.columns.iter_mut().zip(&table.columns) {
            column.bound.sql = meta.sql();
        }
        let scope = Scope { tables: vec![offered], parent: None };
        let (list, columns) = self.output_items(output, &scope)?;
        *sql += &format!(" RETURNING {list}");
        Ok(Some(columns))
    }

    fn output_items(&mut self, output: &Output, scope: &Scope<'_>) -> Sql<(String, Vec<ResultColumn>)> {
        let mut items: Vec<(Bound, String)> = vec![];
        for item in &output.items {
            match item {
                Item::All(Some(of)) => {
                    let of = of.last().map(String::as_str).unwrap_or_default();
                    let table = scope.tables.iter().find(|table| same(&table.alias, of));
                    let table =
                        table.ok_or_else(|| SqlError::of(107, format!("The column prefix '{of}' does not match.")))?;
                    items.extend(table.columns.iter().map(|column| (column.bound.clone(), column.name.clone())));
                }
                Item::All(None) => return Err(SqlError::syntax("*")),
                Item::Expr(expr, alias) => {
                    let bound = self.expr(expr, scope)?;
                    let name = match (alias, expr) {
                        (Some(alias), _) => alias.clone(),
                        (None, super::super::ast::Expr::Column(name)) => name.last().cloned().unwrap_or_default(),
                        _ => String::new(),
                    };
                    items.push((bound, name));
                }
            }
        }
        let list: Vec<String> = items.iter().map(|(bound, _)| bound.sql.clone()).collect();
        let columns = items.into_iter().map(|(bound, name)| result_column(bound, name)).collect();
        Ok((list.join(", "), columns))
    }

    /// FROM of an UPDATE or DELETE: its SQL, its scope, and where the target stands in it.
    fn tables_of(&mut self, target: &[String], from: &[Table]) -> Sql<(String, Scope<'static>, usize)> {
        let mut scope = Scope::default();
        if from.is_empty() {
            let table = Table::Named { name: target.to_vec(), alias: None, hints: vec![] };
            let sql = self.from(&[table], &mut scope)?;
            return Ok((sql, scope, 0));
        }
        let mut sql = self.from(from, &mut scope)?;
        let is_target = |table: &ScopeTable| match target {
            [alias] => same(&table.alias, alias),
            [.., schema, name] => {
                let schema = if schema.is_empty() { "dbo" } else { schema };
                table.table.as_ref().is_some_and(|table| same(&table.name, name) && same(&table.schema, schema))
            }
            [] => false,
        };
        // An alias hides the table's own name: it is found by that only if no alias is it.
        let found = scope.tables.iter().position(is_target).or_else(|| {
            let [name] = target else { return None };
            scope.tables.iter().position(|table| table.table.as_ref().is_some_and(|table| same(&table.name, name)))
        });
        let at = match found {
            Some(at) => at,
            None => {
                let table = Table::Named { name: target.to_vec(), alias: None, hints: vec![] };
                sql = format!("{sql}, {}", self.from(&[table], &mut scope)?);
                scope.tables.len() - 1
            }
        };
        Ok((sql, scope, at))
    }

    pub fn update(&mut self, update: &Update) -> Sql<Plan> {
        self.bind_ctes(&update.ctes)?;
        if !update.variables.is_empty() {
            return Err(SqlError::unsupported("SET @variable in UPDATE"));
        }
        let (from, scope, at) = self.tables_of(&update.target, &update.from)?;
        let Some(table) = scope.tables[at].table.clone() else {
            return Err(SqlError::unsupported("UPDATE of a derived table"));
        };
        let alias = scope.tables[at].sql.clone();
        let mut set = vec![];
        for (name, value) in &update.set {
            let name = name.last().cloned().unwrap_or_default();
            let column = table.column(&name).ok_or_else(|| SqlError::invalid_column(&name))?;
            writable(column)?;
            if column.identity.is_some() {
                return Err(SqlError::of(8102, format!("Cannot update identity column '{}'.", column.name)));
            }
            let value = match value {
                Some(expr) => {
                    let bound = self.expr(expr, &scope)?;
                    assigned(&bound, &column.ty(), &self.place(&table, column))
                }
                None => self.default_of(&table, column)?.unwrap_or_else(|| "NULL".to_owned()),
            };
            set.push((column.sql(), value));
        }
        for column in table.columns.iter().filter(|column| column.rowversion) {
            set.push((column.sql(), "t_rowversion()".to_owned()));
        }
        let filter = match &update.filter {
            Some(filter) => format!(" WHERE {}", self.truth(filter, &scope)?),
            None => String::new(),
        };
        let limit = match &update.top {
            Some(top) => format!(" LIMIT {}", self.expr(top, &Scope::default())?.sql),
            None => String::new(),
        };
        let mut plan = Plan {
            before: None,
            sql: String::new(),
            after: None,
            output: None,
            rows: None,
            gives_identity: false,
            table: table.clone(),
        };
        if update.from.is_empty() && limit.is_empty() && update.output.is_none() {
            let set: Vec<String> = set.iter().map(|(column, value)| format!("{column} = {value}")).collect();
            plan.sql = format!("UPDATE {} AS {alias} SET {}{filter}", table.sql(), set.join(", "));
            return Ok(plan);
        }
        let values: Vec<String> =
            set.iter().enumerate().map(|(index, (_, value))| format!("{value} AS k{index}")).collect();
        let list: Vec<String> =
            set.iter().enumerate().map(|(index, (column, _))| format!("{column} = u.k{index}")).collect();
        let Some(output) = &update.output else {
            let rows = format!("SELECT {alias}.rowid AS r, {} FROM {from}{filter}{limit}", values.join(", "));
            plan.sql =
                format!("UPDATE {} AS z SET {} FROM ({rows}) AS u WHERE z.rowid = u.r", table.sql(), list.join(", "));
            return Ok(plan);
        };
        if output.into.is_some() {
            return Err(SqlError::unsupported("OUTPUT INTO"));
        }
        // What was there before is kept aside, since RETURNING knows the new rows only.
        let old: Vec<String> =
            table.columns.iter().map(|column| format!("{alias}.{0} AS o{1}", column.sql(), column.id)).collect();
        plan.before = Some(format!(
            "CREATE TEMP TABLE t_output AS SELECT {alias}.rowid AS r, {}, {} FROM {from}{filter} GROUP BY {alias}.rowid{limit}",
            values.join(", "),
            old.join(", ")
        ));
        plan.sql =
            format!("UPDATE {} AS z SET {} FROM temp.t_output AS u WHERE z.rowid = u.r", table.sql(), list.join(", "));
        let mut deleted = scope_of(table.clone(), "u");
        for (column, meta) in deleted.columns.iter_mut().zip(&table.columns) {
            column.bound.sql = format!("u.o{}", meta.id);
        }
        let mut inserted = scope_of(table.clone(), "z");
        "deleted".clone_into(&mut deleted.alias);
        "inserted".clone_into(&mut inserted.alias);
        let (items, columns) = self.output_items(output, &Scope { tables: vec![deleted, inserted], parent: None })?;
        plan.after = Some(format!("SELECT {items} FROM temp.t_output AS u JOIN {} AS z ON z.rowid = u.r", table.sql()));
        plan.output = Some(columns);
        Ok(plan)
    }

    pub fn delete(&mut self, delete: &Delete) -> Sql<Plan> {
        self.bind_ctes(&delete.ctes)?;
        let (from, scope, at) = self.tables_of(&delete.target, &delete.from)?;
        let Some(table) = scope.tables[at].table.clone() else {
            return Err(SqlError::unsupported("DELETE from a derived table"));
        };
        let alias = scope.tables[at].sql.clone();
        let filter = match &delete.filter {
            Some(filter) => format!(" WHERE {}", self.truth(filter, &scope)?),
            None => String::new(),
        };
        let limit = match &delete.top {
            Some(top) => format!(" LIMIT {}", self.expr(top, &Scope::default())?.sql),
            None => String::new(),
        };
        let mut sql = if delete.from.is_empty() && limit.is_empty() {
            format!("DELETE FROM {} AS {alias}{filter}", table.sql())
        } else {
            format!("DELETE FROM {} WHERE rowid IN (SELECT {alias}.rowid FROM {from}{filter}{limit})", table.sql())
        };
        let output = self.returning(delete.output.as_ref(), &table, "deleted", &mut sql)?;
        Ok(Plan { before: None, sql, after: None, output, rows: None, gives_identity: false, table })
    }
}

fn writable(column: &ColumnMeta) -> Sql<()> {
    if column.rowversion {
        return Err(SqlError::of(273, "Cannot insert an explicit value into a timestamp column."));
    }
    if column.computed.is_some() {
        return Err(SqlError::of(
            271,
            format!(
                "The column \"{}\" cannot be modified because it is either a computed column or is the result of a UNION operator.",
                column.name
            ),
        ));
    }
    Ok(())
}
