//! From the tree to SQLite's SQL: names are looked up in the catalog, every expression gets its T-SQL type, and conversions that T-SQL
//! does silently are written out. What the catalog does not know is SQL Server's error for it.

mod call;
pub(super) mod dml;
mod expr;
mod query;

use std::collections::HashMap;

use rusqlite::{Connection, types::Value};

use super::{
    ast::{Cte, Expr},
    catalog::{TableDef, same},
    error::{Sql, SqlError},
    types::Ty,
    wire::ResultColumn,
};

/// Where text's collation comes from ("Collation precedence").
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Coll {
    /// A literal, a variable, a function: gives way.
    Default,
    /// A column.
    Implicit(String),
    /// COLLATE.
    Explicit(String),
}

/// The database's collation.
pub(super) const COLLATION: &str = "SQL_Latin1_General_CP1_CI_AS";

impl Coll {
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Default => None,
            Self::Implicit(name) | Self::Explicit(name) => Some(name),
        }
    }
}

/// SQLite's collation for one of T-SQL's: `RTRIM` is binary and blind to blanks at the end, as SQL Server's binary ones are.
pub(super) fn sqlite_collation(name: &str) -> &'static str {
    if name.contains("_BIN") {
        "RTRIM"
    } else if name.contains("_CS_") {
        "TSQL_CS"
    } else {
        "TSQL_CI"
    }
}

/// Whether there is such a collation, as far as this server knows.
pub(super) fn known_collation(name: &str) -> Sql<()> {
    let upper = name.to_ascii_uppercase();
    let kinds = ["_CI_AS", "_CI_AI", "_CS_AS", "_BIN", "_BIN2", "_UTF8", "_SC", "_KS_WS"];
    if kinds.iter().any(|kind| upper.contains(kind)) {
        return Ok(());
    }
    Err(SqlError::of(448, format!("Invalid collation '{name}'.")))
}

/// A bound expression.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    pub sql: String,
    pub ty: Ty,
    pub nullable: bool,
    pub coll: Coll,
    /// The literal NULL, of no type.
    pub null: bool,
    /// A column of a table or of what is derived from one.
    pub column: Option<(bool, bool)>,
}

impl Bound {
    pub fn new(sql: impl Into<String>, ty: Ty, nullable: bool) -> Self {
        Self { sql: sql.into(), ty, nullable, coll: Coll::Default, null: false, column: None }
    }
}

/// A bound query: its columns come out as `k0`, `k1`, ….
#[derive(Clone, Debug)]
pub(super) struct BoundQuery {
    pub sql: String,
    pub columns: Vec<ResultColumn>,
}

/// A column that a scope offers.
#[derive(Clone, Debug)]
pub(super) struct ScopeColumn {
    pub name: String,
    pub bound: Bound,
}

/// A table in FROM.
#[derive(Clone, Debug)]
pub(super) struct ScopeTable {
    pub alias: String,
    pub schema: Option<String>,
    /// As SQLite knows it.
    pub sql: String,
    pub columns: Vec<ScopeColumn>,
    pub table: Option<TableDef>,
}

/// What names mean at a place.
#[derive(Debug, Default)]
pub(super) struct Scope<'s> {
    pub tables: Vec<ScopeTable>,
    pub parent: Option<&'s Scope<'s>>,
}

impl Scope<'_> {
    fn find(&self, name: &[String]) -> Sql<Option<Bound>> {
        let (column, qualifier) = match name {
            [column] => (column, None),
            [table, column] => (column, Some((None, table))),
            [schema, table, column] | [_, schema, table, column] => (column, Some((Some(schema), table))),
            _ => return Ok(None),
        };
        let mut found = None;
        let mut qualified = false;
        for table in &self.tables {
            if let Some((schema, alias)) = qualifier {
                let right = same(&table.alias, alias)
                    && schema.is_none_or(|schema| table.schema.as_ref().is_some_and(|theirs| same(theirs, schema)));
                if !right {
                    continue;
                }
                qualified = true;
            }
            if let Some(column) = table.columns.iter().find(|candidate| same(&candidate.name, column)) {
                if found.is_some() {
                    return Err(SqlError::of(209, format!("Ambiguous column name '{}'.", column.name)));
                }
                found = Some(column.bound.clone());
            }
        }
        match (found, self.parent) {
            (None, _) if qualified => Err(SqlError::invalid_column(column)),
            (None, Some(parent)) => parent.find(name),
            (found, _) => Ok(found),
        }
    }
}

/// What the binder needs to know of a session.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub conn: &'a Connection,
    pub database: &'a str,
    pub login: &'a str,
    pub application: &'a str,
    pub spid: u16,
    pub variables: &'a HashMap<String, (Ty, Value)>,
    pub trancount: i64,
    pub rowcount: i64,
    pub xact_state: i64,
    pub identity: Option<i64>,
    /// Number, severity, state, text and line of the error that a CATCH handles.
    pub caught: Option<&'a SqlError>,
    pub last_error: i32,
    pub now: i64,
    pub lock_timeout: i64,
    pub identity_insert: Option<i64>,
}

/// Binds one statement.
pub(super) struct Binder<'a> {
    pub facts: &'a Facts<'a>,
    pub params: Vec<Value>,
    aliases: usize,
    ctes: Vec<(String, BoundQuery)>,
    /// Hints asked for a lock that lasts, or a table is read that others write.
    pub locks: bool,
    /// Tables that are read or written lie in the database, not in the session.
    pub permanent: bool,
    aggregates: bool,
    in_aggregate: bool,
    grouped: Option<Vec<String>>,
}

impl<'a> Binder<'a> {
    pub fn new(facts: &'a Facts<'a>) -> Self {
        Self {
            facts,
            params: vec![],
            aliases: 0,
            ctes: vec![],
            locks: false,
            permanent: false,
            aggregates: false,
            in_aggregate: false,
            grouped: None,
        }
    }
    fn alias(&mut self) -> String {
        self.aliases += 1;
        format!("a{}", self.aliases)
    }
    fn param(&mut self, value: Value) -> String {
        self.params.push(value);
        format!("?{}", self.params.len())
    }
    /// Binds the CTEs of a statement; they are written out where they are named.
    pub fn bind_ctes(&mut self, ctes: &[Cte]) -> Sql<()> {
        for cte in ctes {
            let mut bound = self.query(&cte.query, None)?;
            if !cte.columns.is_empty() {
                if cte.columns.len() != bound.columns.len() {
                    return Err(SqlError::of(
                        8159,
                        format!("'{}' has fewer columns than were specified in the column list.", cte.name),
                    ));
                }
                for (column, name) in bound.columns.iter_mut().zip(&cte.columns) {
                    column.name.clone_from(name);
                }
            }
            self.ctes.push((cte.name.clone(), bound));
        }
        Ok(())
    }
    /// A scalar that stands alone, as a SELECT for SQLite.
    pub fn scalar(&mut self, expr: &Expr, to: Option<&Ty>) -> Sql<(String, Ty)> {
        let bound = self.expr(expr, &Scope::default())?;
        let ty = to.copied().unwrap_or(bound.ty);
        let sql = self.coerce(&bound, &ty);
        Ok((format!("SELECT {sql}"), ty))
    }
    /// A condition that stands alone.
    pub fn condition(&mut self, expr: &Expr) -> Sql<String> {
        let bound = self.truth(expr, &Scope::default())?;
        Ok(format!("SELECT {bound}"))
    }
    /// The expression as a value of this type, as SQL.
    pub fn coerce(&self, bound: &Bound, to: &Ty) -> String {
        if bound.null
            || to.takes(&bound.ty) && !matches!(to, Ty::Char(_) | Ty::NChar(_) | Ty::Binary(_))
            || bound.ty == *to
        {
            return bound.sql.clone();
        }
        format!("t_conv({}, {}, {}, 0)", bound.sql, bound.ty.code(), to.code())
    }
}

/// A text as SQLite writes it.
pub(super) fn quote(text: &str) -> String {
    if text.contains('\0') {
        return format!("CAST(x'{}' AS TEXT)", super::convert::hex(text.as_bytes()));
    }
    format!("'{}'", text.replace('\'', "''"))
}

/// A table's columns under an alias.
pub(super) fn table_scope(table: &TableDef, alias: &str) -> ScopeTable {
    query::scope_of(table.clone(), alias)
}
