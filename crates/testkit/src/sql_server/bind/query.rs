//! SELECT.

use super::{
    super::{
        ast::{Body, Expr, Item, Query, Select, Table},
        catalog::{self, OBJECTS, TableDef, find, resolve, same},
        error::{Sql, SqlError},
        types::Ty,
        wire::ResultColumn,
    },
    Binder, Bound, BoundQuery, COLLATION, Coll, Scope, ScopeColumn, ScopeTable,
    expr::common,
};

impl Binder<'_> {
    /// Binds a query. Its columns come out as `k0`, `k1`, ….
    pub fn query(&mut self, query: &Query, outer: Option<&Scope<'_>>) -> Sql<BoundQuery> {
        self.query_to(query, outer, None)
    }

    /// The same, its columns converted to what a target stores.
    pub fn query_to(
        &mut self,
        query: &Query,
        outer: Option<&Scope<'_>>,
        to: Option<&[(Ty, String)]>,
    ) -> Sql<BoundQuery> {
        let known = self.ctes.len();
        self.bind_ctes(&query.ctes)?;
        let saved = (self.aggregates, self.in_aggregate, self.grouped.take());
        (self.aggregates, self.in_aggregate) = (false, false);
        let bound = self.body(query, outer, to);
        (self.aggregates, self.in_aggregate, self.grouped) = saved;
        self.ctes.truncate(known);
        bound
    }

    fn body(&mut self, query: &Query, outer: Option<&Scope<'_>>, to: Option<&[(Ty, String)]>) -> Sql<BoundQuery> {
        let (mut sql, columns, top, order) = match &query.body {
            Body::Select(select) => self.select(select, query, outer, to)?,
            body => {
                let mut bound = self.arm(body, outer)?;
                if let Some(to) = to {
                    bound = stored(bound, to)?;
                }
                let order = self.order_of_union(query, &bound.columns)?;
                (bound.sql, bound.columns, None, order)
            }
        };
        if !order.is_empty() {
            sql += &format!(" ORDER BY {}", order.join(", "));
        }
        let whole = |binder: &mut Self, expr: &Expr| {
            let bound = binder.expr(expr, &Scope::default())?;
            Ok::<_, SqlError>(binder.coerce(&bound, &Ty::BigInt))
        };
        if let Some(top) = top {
            if query.offset.is_some() {
                return Err(SqlError::of(10741, "A TOP can not be used in the same query or sub-query as a OFFSET."));
            }
            sql += &format!(" LIMIT {top}");
        } else if let Some(offset) = &query.offset {
            if order.is_empty() {
                return Err(SqlError::syntax("OFFSET"));
            }
            let limit = query.fetch.as_ref().map_or(Ok("-1".to_owned()), |fetch| whole(self, fetch))?;
            sql += &format!(" LIMIT {limit} OFFSET {}", whole(self, offset)?);
        }
        Ok(BoundQuery { sql, columns })
    }

    /// An arm of a UNION.
    fn arm(&mut self, body: &Body, outer: Option<&Scope<'_>>) -> Sql<BoundQuery> {
        match body {
            Body::Select(select) => {
                let query = Query {
                    ctes: vec![],
                    body: Body::Select(select.clone()),
                    order: vec![],
                    offset: None,
                    fetch: None,
                };
                let bound = self.query(&query, outer)?;
                if select.top.is_some() {
                    return Ok(BoundQuery { sql: format!("SELECT * FROM ({})", bound.sql), columns: bound.columns });
                }
                Ok(bound)
            }
            Body::Query(query) => {
                let bound = self.query(query, outer)?;
                Ok(BoundQuery { sql: format!("SELECT * FROM ({})", bound.sql), columns: bound.columns })
            }
            Body::Set(op, left, right) => {
                let (left, right) = (self.arm(left, outer)?, self.arm(right, outer)?);
                if left.columns.len() != right.columns.len() {
                    return Err(SqlError::of(
                        205,
                        "All queries combined using a UNION, INTERSECT or EXCEPT operator must have an equal number of expressions in \
                         their target lists.",
                    ));
                }
                let mut columns = vec![];
                for (a, b) in left.columns.iter().zip(&right.columns) {
                    let ty = a.ty.common(&b.ty);
                    columns.push(ResultColumn {
                        name: a.name.clone(),
                        ty,
                        nullable: a.nullable || b.nullable,
                        identity: false,
                        computed: false,
                        expression: true,
                        collation: a.collation.clone().or_else(|| b.collation.clone()),
                    });
                }
                let distinct = *op != "UNION ALL";
                let [left, right] = [left, right].map(|arm| self.unified(&arm, &columns, distinct));
                // Compound operators have one rank in SQLite, and are read from the left: a nested one is wrapped.
                Ok(BoundQuery { sql: format!("SELECT * FROM ({left} {op} {right})"), columns })
            }
        }
    }

    fn unified(&self, arm: &BoundQuery, columns: &[ResultColumn], distinct: bool) -> String {
        let items: Vec<String> = arm
            .columns
            .iter()
            .zip(columns)
            .enumerate()
            .map(|(index, (from, to))| {
                let bound = Bound::new(format!("k{index}"), from.ty, from.nullable);
                let collate = if distinct && to.ty.is_text() { " COLLATE TSQL_CI" } else { "" };
                format!("{}{collate} AS k{index}", self.coerce(&bound, &to.ty))
            })
            .collect();
        format!("SELECT {} FROM ({})", items.join(", "), arm.sql)
    }

    fn order_of_union(&mut self, query: &Query, columns: &[ResultColumn]) -> Sql<Vec<String>> {
        let mut out = vec![];
        for (expr, descending) in &query.order {
            let at = match expr {
                Expr::Number(text) => text.parse::<usize>().ok().and_then(|n| n.checked_sub(1)),
                Expr::Column(name) => {
                    name.last().and_then(|name| columns.iter().position(|column| same(&column.name, name)))
                }
                _ => None,
            };
            let at = at.filter(|at| *at < columns.len()).ok_or_else(|| {
                SqlError::of(104, "ORDER BY items must appear in the select list if the statement contains a UNION, INTERSECT or EXCEPT operator.")
            })?;
            let collate = if columns[at].ty.is_text() { " COLLATE TSQL_CI" } else { "" };
            out.push(format!("{}{collate}{}", at + 1, if *descending { " DESC" } else { "" }));
        }
        Ok(out)
    }

    #[expect(clippy::type_complexity, reason = "the parts of one statement")]
    #[expect(clippy::too_many_lines, reason = "clause by clause")]
    fn select(
        &mut self,
        select: &Select,
        query: &Query,
        outer: Option<&Scope<'_>>,
        to: Option<&[(Ty, String)]>,
    ) -> Sql<(String, Vec<ResultColumn>, Option<String>, Vec<String>)> {
        let mut scope = Scope { tables: vec![], parent: outer };
        let from = self.from(&select.from, &mut scope)?;
        let filter = select.filter.as_ref().map(|filter| self.truth(filter, &scope)).transpose()?;
        let mut group = vec![];
        let mut plain = true;
        for expr in &select.group {
            let bound = self.expr(expr, &scope)?;
            plain &= matches!(expr, Expr::Column(_));
            group.push(bound);
        }
        if !group.is_empty() && plain {
            self.grouped = Some(group.iter().map(|bound| bound.sql.clone()).collect());
        }
        let mut items: Vec<(Bound, String)> = vec![];
        for item in &select.items {
            match item {
                Item::All(of) => {
                    let mut any = false;
                    for table in &scope.tables {
                        if of.as_ref().is_some_and(|of| !of.last().is_some_and(|name| same(name, &table.alias))) {
                            continue;
                        }
                        any = true;
                        items.extend(table.columns.iter().map(|column| (column.bound.clone(), column.name.clone())));
                    }
                    if !any {
                        let name = of.as_ref().map(|of| of.join(".")).unwrap_or_default();
                        return Err(match of {
                            Some(_) => SqlError::of(
                                107,
                                format!(
                                    "The column prefix '{name}' does not match with a table name or alias name used in the query."
                                ),
                            ),
                            None => SqlError::of(263, "Must specify table to select from."),
                        });
                    }
                }
                Item::Expr(expr, alias) => {
                    let bound = self.expr(expr, &scope)?;
                    let name = match (alias, expr) {
                        (Some(alias), _) => alias.clone(),
                        (None, Expr::Column(name)) => name.last().cloned().unwrap_or_default(),
                        _ => String::new(),
                    };
                    items.push((bound, name));
                }
            }
        }
        // An aggregate without GROUP BY: no column may stand beside it.
        if self.aggregates && select.group.is_empty() {
            self.grouped = Some(vec![]);
            for item in &select.items {
                if let Item::Expr(expr, _) = item {
                    self.expr(expr, &scope)?;
                }
            }
        }
        let having = select.having.as_ref().map(|having| self.truth(having, &scope)).transpose()?;
        let mut order = vec![];
        for (expr, descending) in &query.order {
            let down = if *descending { " DESC" } else { "" };
            let at = match expr {
                Expr::Number(text) => text.parse::<usize>().ok().and_then(|n| n.checked_sub(1)),
                Expr::Column(name) if name.len() == 1 => items.iter().position(|(_, alias)| same(alias, &name[0])),
                _ => None,
            };
            let sql = match at {
                Some(at) if at < items.len() => {
                    if to.is_some() {
                        self.sortable(&items[at].0)
                    } else {
                        let collate = if items[at].0.ty.is_text() {
                            let collation = items[at].0.coll.name().unwrap_or(COLLATION);
                            format!(" COLLATE {}", super::sqlite_collation(collation))
                        } else {
                            String::new()
                        };
                        format!("{}{collate}", at + 1)
                    }
                }
                Some(at) => {
                    return Err(SqlError::of(108, format!("The ORDER BY position number {} is out of range.", at + 1)));
                }
                None => {
                    let bound = self.expr(expr, &scope)?;
                    self.sortable(&bound)
                }
            };
            order.push(format!("{sql}{down}"));
        }
        if let Some(to) = to {
            if to.len() != items.len() {
                return Err(column_count(items.len(), to.len()));
            }
            for ((bound, _), (ty, place)) in items.iter_mut().zip(to) {
                bound.sql = assigned(bound, ty, place);
                bound.ty = *ty;
            }
        }
        let list: Vec<String> = items
            .iter()
            .enumerate()
            .map(|(index, (bound, _))| {
                if select.distinct {
                    format!("{} AS k{index}", self.sortable(bound))
                } else {
                    format!("{} AS k{index}", bound.sql)
                }
            })
            .collect();
        let mut sql = format!("SELECT {}{}", if select.distinct { "DISTINCT " } else { "" }, list.join(", "));
        if !from.is_empty() {
            sql += &format!(" FROM {from}");
        }
        if let Some(filter) = filter {
            sql += &format!(" WHERE {filter}");
        }
        if !group.is_empty() {
            let group: Vec<String> = group.iter().map(|bound| self.sortable(bound)).collect();
            sql += &format!(" GROUP BY {}", group.join(", "));
        }
        if let Some(having) = having {
            if group.is_empty() && !self.aggregates {
                return Err(SqlError::unsupported("HAVING"));
            }
            sql += &format!(" HAVING {having}");
        }
        let columns = items.into_iter().map(|(bound, name)| result_column(bound, name)).collect();
        let top = match &select.top {
            None => None,
            Some(top) => {
                let bound = self.expr(top, &Scope::default())?;
                Some(self.coerce(&bound, &Ty::BigInt))
            }
        };
        Ok((sql, columns, top, order))
    }

    /// FROM, as SQL; what it offers goes into the scope.
    pub(super) fn from(&mut self, tables: &[Table], scope: &mut Scope<'_>) -> Sql<String> {
        let mut parts = vec![];
        for table in tables {
            parts.push(self.table(table, scope)?);
        }
        Ok(parts.join(", "))
    }

    fn table(&mut self, table: &Table, scope: &mut Scope<'_>) -> Sql<String> {
        match table {
            Table::Named { name, alias, hints } => {
                if hints
                    .iter()
                    .any(|hint| ["UPDLOCK", "XLOCK", "HOLDLOCK", "SERIALIZABLE", "TABLOCKX"].contains(&hint.as_str()))
                {
                    self.locks = true;
                }
                let (sql, mut made) = self.named(name, alias.as_deref())?;
                if let Some(alias) = alias {
                    made.alias.clone_from(alias);
                }
                self.add(made, scope)?;
                Ok(sql)
            }
            Table::Derived { query, alias, columns } => {
                // It does not see its neighbours.
                let mut bound = self.query(query, scope.parent)?;
                if !columns.is_empty() {
                    if columns.len() != bound.columns.len() {
                        return Err(SqlError::of(
                            8159,
                            format!("'{alias}' has fewer columns than were specified in the column list."),
                        ));
                    }
                    for (column, name) in bound.columns.iter_mut().zip(columns) {
                        column.name.clone_from(name);
                    }
                }
                let made = self.derived(&bound, alias);
                let sql = format!("({}) AS {}", bound.sql, made.sql);
                self.add(made, scope)?;
                Ok(sql)
            }
            Table::Values { rows, alias, columns } => {
                let bound = self.values(rows, columns)?;
                let made = self.derived(&bound, alias);
                let sql = format!("({}) AS {}", bound.sql, made.sql);
                self.add(made, scope)?;
                Ok(sql)
            }
            Table::Join { kind, left, right, on } => {
                let start = scope.tables.len();
                let left = self.table(left, scope)?;
                let middle = scope.tables.len();
                let right_sql = self.table(right, scope)?;
                let right_sql =
                    if matches!(**right, Table::Join { .. }) { format!("({right_sql})") } else { right_sql };
                let (from_left, from_right) =
                    (matches!(*kind, "RIGHT JOIN" | "FULL JOIN"), matches!(*kind, "LEFT JOIN" | "FULL JOIN"));
                for (range, nullable) in [(start..middle, from_left), (middle..scope.tables.len(), from_right)] {
                    if nullable {
                        for column in scope.tables[range].iter_mut().flat_map(|table| &mut table.columns) {
                            column.bound.nullable = true;
                        }
                    }
                }
                let on = match on {
                    None => String::new(),
                    Some(on) => {
                        // Only what is joined here is seen.
                        let inner = Scope { tables: scope.tables[start..].to_vec(), parent: scope.parent };
                        format!(" ON {}", self.truth(on, &inner)?)
                    }
                };
                Ok(format!("{left} {kind} {right_sql}{on}"))
            }
        }
    }

    fn add(&mut self, table: ScopeTable, scope: &mut Scope<'_>) -> Sql<()> {
        if scope.tables.iter().any(|other| same(&other.alias, &table.alias) && other.schema == table.schema) {
            return Err(SqlError::of(
                1012,
                format!("The correlation name '{}' has the same exposed name as another.", table.alias),
            ));
        }
        scope.tables.push(table);
        Ok(())
    }

    fn derived(&mut self, bound: &BoundQuery, alias: &str) -> ScopeTable {
        let sql = self.alias();
        let columns = bound
            .columns
            .iter()
            .enumerate()
            .map(|(index, column)| {
                let coll = column.collation.clone().map_or(Coll::Default, Coll::Implicit);
                let flags = (!column.expression).then_some((column.identity, column.computed));
                let bound =
                    Bound { coll, column: flags, ..Bound::new(format!("{sql}.k{index}"), column.ty, column.nullable) };
                ScopeColumn { name: column.name.clone(), bound }
            })
            .collect();
        ScopeTable { alias: alias.to_owned(), schema: None, sql, columns, table: None }
    }

    /// `(VALUES (…), (…)) AS t (a, b)`.
    fn values(&mut self, rows: &[Vec<Expr>], names: &[String]) -> Sql<BoundQuery> {
        let scope = Scope::default();
        let mut bound: Vec<Vec<Bound>> = vec![];
        for row in rows {
            let row: Sql<Vec<Bound>> = row.iter().map(|expr| self.expr(expr, &scope)).collect();
            bound.push(row?);
        }
        let width = bound.first().map_or(0, Vec::len);
        if bound.iter().any(|row| row.len() != width) || names.len() != width {
            return Err(SqlError::of(
                10709,
                "The number of columns for each row in a table value constructor must be the same.",
            ));
        }
        let mut columns = vec![];
        for index in 0..width {
            let of: Vec<Bound> = bound.iter().map(|row| row[index].clone()).collect();
            let (ty, _) = common(&of);
            let nullable = of.iter().any(|bound| bound.nullable);
            columns.push(result_column(Bound::new("", ty, nullable), names[index].clone()));
        }
        let mut selects = vec![];
        for row in &bound {
            let items: Vec<String> = row
                .iter()
                .zip(&columns)
                .enumerate()
                .map(|(index, (bound, column))| format!("{} AS k{index}", self.coerce(bound, &column.ty)))
                .collect();
            selects.push(format!("SELECT {}", items.join(", ")));
        }
        Ok(BoundQuery { sql: selects.join(" UNION ALL "), columns })
    }

    /// A table, a view, a CTE, or a view of the catalog, as SQL.
    fn named(&mut self, name: &[String], alias: Option<&str>) -> Sql<(String, ScopeTable)> {
        if let [cte] = name
            && let Some((_, bound)) = self.ctes.iter().rev().find(|(known, _)| same(known, cte)).cloned()
        {
            let made = self.derived(&bound, alias.unwrap_or(cte));
            return Ok((format!("({}) AS {}", bound.sql, made.sql), made));
        }
        let name = name.to_vec();
        let resolved = resolve(&name, self.facts.database)?;
        if same(&resolved.schema, "sys") {
            let Some((sql, columns)) = catalog::view(&resolved.name) else {
                return Err(SqlError::invalid_object(&name.join(".")));
            };
            let db = if resolved.temp { "temp" } else { "main" };
            let rows = if sql.contains("{rows}") { self.row_counts(db)? } else { String::new() };
            let sql = sql
                .replace("{objects}", OBJECTS)
                .replace("{o}", db)
                .replace("{rows}", &rows)
                .replace("{database}", &super::quote(self.facts.database));
            let made = self.alias();
            let columns = columns
                .into_iter()
                .enumerate()
                .map(|(index, (name, ty, nullable))| {
                    let coll = if ty.is_text() { Coll::Implicit(COLLATION.to_owned()) } else { Coll::Default };
                    let bound = Bound {
                        coll,
                        column: Some((false, false)),
                        ..Bound::new(format!("{made}.v{index}"), ty, nullable)
                    };
                    ScopeColumn { name: name.to_owned(), bound }
                })
                .collect();
            let alias = resolved.name.clone();
            let table = ScopeTable { alias, schema: Some("sys".to_owned()), sql: made.clone(), columns, table: None };
            return Ok((format!("({sql}) AS {made}"), table));
        }
        let Some(table) = find(self.facts.conn, &resolved)? else {
            return Err(SqlError::invalid_object(&name.join(".")));
        };
        if let Some(view) = &table.view {
            let query = super::super::parse::view(view)?;
            let mut bound = self.query(&query, None)?;
            for (column, meta) in bound.columns.iter_mut().zip(&table.columns) {
                column.name.clone_from(&meta.name);
            }
            let mut made = self.derived(&bound, &table.name);
            made.schema = Some(table.schema.clone());
            return Ok((format!("({}) AS {}", bound.sql, made.sql), made));
        }
        self.permanent |= !table.is_temp();
        let made = self.alias();
        let sql = format!("{} AS {made}", table.sql());
        Ok((sql, scope_of(table, &made)))
    }

    /// How many rows each table has, for `sys.partitions`.
    fn row_counts(&self, db: &str) -> Sql<String> {
        let mut statement = self.facts.conn.prepare(&format!("SELECT id FROM {db}.sys_objects WHERE kind = 'U'"))?;
        let ids = statement.query_map([], |row| row.get::<_, i64>(0))?.collect::<Result<Vec<_>, _>>()?;
        let arms: Vec<String> =
            ids.iter().map(|id| format!(" WHEN {id} THEN (SELECT count(*) FROM {db}.t{})", id.abs())).collect();
        Ok(if arms.is_empty() { "0".to_owned() } else { format!("CASE o.id{} END", arms.concat()) })
    }
}

/// A table's columns under an alias.
pub(super) fn scope_of(table: TableDef, alias: &str) -> ScopeTable {
    let columns = table
        .columns
        .iter()
        .map(|column| {
            let coll = column.collation.clone().map_or(Coll::Default, Coll::Implicit);
            let bound = Bound {
                coll,
                column: Some((column.identity.is_some(), column.computed.is_some() || column.rowversion)),
                ..Bound::new(format!("{alias}.{}", column.sql()), column.ty(), column.nullable)
            };
            ScopeColumn { name: column.name.clone(), bound }
        })
        .collect();
    ScopeTable {
        alias: table.name.clone(),
        schema: Some(table.schema.clone()),
        sql: alias.to_owned(),
        columns,
        table: Some(table),
    }
}

pub(super) fn result_column(bound: Bound, name: String) -> ResultColumn {
    let (identity, computed) = bound.column.unwrap_or_default();
    ResultColumn {
        name,
        ty: bound.ty,
        nullable: bound.nullable,
        identity,
        computed,
        expression: bound.column.is_none(),
        collation: bound.coll.name().map(str::to_owned),
    }
}

/// What an INSERT or UPDATE stores of an expression.
pub(super) fn assigned(bound: &Bound, ty: &Ty, place: &str) -> String {
    let as_it_is = bound.null
        || bound.ty == *ty
        || ty.takes(&bound.ty) && !matches!(ty, Ty::Char(_) | Ty::NChar(_) | Ty::Binary(_));
    if as_it_is {
        return bound.sql.clone();
    }
    format!("t_store({}, {}, {}, {})", bound.sql, bound.ty.code(), ty.code(), super::quote(place))
}

fn column_count(have: usize, want: usize) -> SqlError {
    if have < want {
        SqlError::new(
            120,
            15,
            "The select list for the INSERT statement contains fewer items than the insert list. The number of SELECT values must match \
             the number of INSERT columns.",
        )
    } else {
        SqlError::new(
            121,
            15,
            "The select list for the INSERT statement contains more items than the insert list. The number of SELECT values must match \
             the number of INSERT columns.",
        )
    }
}

/// A query whose columns are converted to what a target stores.
fn stored(bound: BoundQuery, to: &[(Ty, String)]) -> Sql<BoundQuery> {
    if to.len() != bound.columns.len() {
        return Err(column_count(bound.columns.len(), to.len()));
    }
    let mut columns = bound.columns;
    let items: Vec<String> = columns
        .iter_mut()
        .zip(to)
        .enumerate()
        .map(|(index, (column, (ty, place)))| {
            let from = Bound::new(format!("k{index}"), column.ty, column.nullable);
            column.ty = *ty;
            format!("{} AS k{index}", assigned(&from, ty, place))
        })
        .collect();
    Ok(BoundQuery { sql: format!("SELECT {} FROM ({})", items.join(", "), bound.sql), columns })
}
