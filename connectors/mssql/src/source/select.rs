//! The statements that read, as they are sent.
//!
//! Plain T-SQL of SQL Server 2008 and later: TOP, CAST, COLLATE and derived tables as "SELECT (Transact-SQL)" has them. A query of the
//! user's is a derived table, which may have no ORDER BY without TOP, no WITH, and must name every column ("FROM (Transact-SQL)"). A
//! parameter is converted to its column's own type.

use std::{fmt::Write as _, sync::Arc};

use arrow_schema::{DataType, Field, Schema, SchemaRef};
use towpath_core::{Error, Result};

use super::cursor::{Parameter, Value, compared_as};
use crate::{catalog::quote, types::SqlType};

/// A column that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selected {
    pub(crate) name: String,
    pub(crate) of: SqlType,
}

/// What is read from: a table or a query, with its columns.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    /// As it stands behind FROM.
    pub(crate) from: String,
    pub(crate) columns: Vec<Selected>,
    /// The primary key, if it is one column.
    pub(crate) key: Option<String>,
    pub(crate) schema: SchemaRef,
}

/// A statement with its parameters @P1 …
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    pub(crate) sql: String,
    pub(crate) parameters: Vec<Parameter>,
}

/// Between which values of the cursor is read, both included.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stretch<'a> {
    pub(crate) from: Option<&'a Value>,
    pub(crate) to: Option<&'a Value>,
}

/// A range of another column's values: from the lower bound, without the upper one. NULLs are in the range without a lower bound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range<'a> {
    pub(crate) column: &'a Selected,
    pub(crate) from: Option<&'a Value>,
    pub(crate) to: Option<&'a Value>,
}

/// A query as a derived table. Lines of their own, because it may end in a comment.
pub(crate) fn derived(query: &str) -> String {
    format!("(\n{}\n) AS q", query.trim().trim_end_matches(';').trim_end())
}

/// The temporary table that has the columns of a query.
pub(crate) const SHAPE: &str = "#towpath_shape";

/// Makes [`SHAPE`] of anything that can stand behind FROM. "SELECT - INTO Clause (Transact-SQL)".
pub(crate) fn make_shape(from: &str) -> String {
    format!("SELECT TOP 0 * INTO {SHAPE} FROM {from}")
}

/// And removes it.
pub(crate) const DROP_SHAPE: &str = "DROP TABLE #towpath_shape";

/// Begins to read everything as of one moment. "Snapshot isolation in SQL Server": the moment is that of the first reading.
pub(crate) const BEGIN_SNAPSHOT: &str = "SET TRANSACTION ISOLATION LEVEL SNAPSHOT; BEGIN TRANSACTION";
/// Ends it.
pub(crate) const END_SNAPSHOT: &str = "COMMIT TRANSACTION; SET TRANSACTION ISOLATION LEVEL READ COMMITTED";

/// A statement in the making.
struct Making {
    statement: Statement,
    has_where: bool,
}

impl Making {
    fn new(sql: String) -> Self {
        Self { statement: Statement { sql, parameters: vec![] }, has_where: false }
    }
    fn condition(&mut self, condition: &str) {
        self.statement.sql.push_str(if self.has_where { " AND " } else { " WHERE " });
        self.statement.sql.push_str(condition);
        self.has_where = true;
    }
    /// A parameter in the column's type.
    fn parameter(&mut self, column: &Selected, value: &Value) -> String {
        self.statement.parameters.push(value.parameter());
        format!("CAST(@P{} AS {})", self.statement.parameters.len(), compared_as(&column.of))
    }
    fn stretch(&mut self, column: &Selected, stretch: Stretch<'_>) {
        let name = column.compared();
        match stretch.from {
            Some(from) => {
                let bound = self.parameter(column, from);
                self.condition(&format!("{name} >= {bound}"));
            }
            None => self.condition(&format!("{} IS NOT NULL", quote(&column.name))),
        }
        if let Some(to) = stretch.to {
            let bound = self.parameter(column, to);
            self.condition(&format!("{name} <= {bound}"));
        } else if column.of == SqlType::RowVersion {
            // A transaction that is still open has rowversions that others have passed already; once it commits they would lie behind the
            // cursor. "MIN_ACTIVE_ROWVERSION (Transact-SQL)", SQL Server 2005 SP2 and later.
            self.condition(&format!("{name} < MIN_ACTIVE_ROWVERSION()"));
        }
    }
    fn range(&mut self, range: Range<'_>) {
        let name = quote(&range.column.name);
        if let Some(from) = range.from {
            let bound = self.parameter(range.column, from);
            self.condition(&format!("{name} >= {bound}"));
        }
        if let Some(to) = range.to {
            let bound = self.parameter(range.column, to);
            match range.from {
                Some(_) => self.condition(&format!("{name} < {bound}")),
                None => self.condition(&format!("({name} < {bound} OR {name} IS NULL)")),
            }
        }
    }
}

impl Selected {
    /// As it is selected. The driver makes floats of money, which lose its last digits.
    fn expression(&self) -> String {
        let name = quote(&self.name);
        match self.of {
            SqlType::Money => format!("CAST({name} AS decimal(19, 4)) AS {name}"),
            SqlType::SmallMoney => format!("CAST({name} AS decimal(10, 4)) AS {name}"),
            _ => name,
        }
    }
    /// As it is compared and ordered by.
    fn compared(&self) -> String {
        let name = quote(&self.name);
        if self.of.is_text() {
            return format!("CAST({name} AS {}) COLLATE Latin1_General_BIN2", compared_as(&self.of));
        }
        name
    }
}

impl Selection {
    /// Of columns as they are on the server.
    ///
    /// # Errors
    /// Config: no columns, or two of one name.
    pub(crate) fn new(from: String, columns: Vec<Selected>, key: Option<String>) -> Result<Self> {
        if columns.is_empty() {
            return Err(Error::config("there are no columns to read"));
        }
        let fields: Vec<_> = columns.iter().map(|column| field(&column.name, column.of.arrow())).collect();
        Ok(Self { from, columns, key, schema: Arc::new(Schema::new(fields)) })
    }

    /// The column of a name, compared without regard to case where none is the very same.
    ///
    /// # Errors
    /// Config: there is none; `option` is where the name was written.
    pub(crate) fn column(&self, option: &str, name: &str) -> Result<(usize, &Selected)> {
        let columns = || self.columns.iter().enumerate();
        columns()
            .find(|(_, column)| column.name == name)
            .or_else(|| columns().find(|(_, column)| column.name.to_lowercase() == name.to_lowercase()))
            .ok_or_else(|| {
                let all: Vec<_> = self.columns.iter().take(20).map(|column| column.name.as_str()).collect();
                Error::config(format!("{option}: there is no column {name}"))
                    .hint(format!("the columns are {}", all.join(", ")))
            })
    }

    fn select(&self) -> Making {
        let list: Vec<_> = self.columns.iter().map(Selected::expression).collect();
        Making::new(format!("SELECT {} FROM {}", list.join(", "), self.from))
    }

    /// Everything, in no order.
    pub(crate) fn all(&self, cursor: Option<(&Selected, Stretch<'_>)>, range: Option<Range<'_>>) -> Statement {
        let mut making = self.select();
        if let Some((column, stretch)) = cursor {
            making.stretch(column, stretch);
        }
        if let Some(range) = range {
            making.range(range);
        }
        making.statement
    }

    /// A stretch of the cursor in its order.
    pub(crate) fn in_order(&self, column: &Selected, stretch: Stretch<'_>) -> Statement {
        let mut making = self.select();
        making.stretch(column, stretch);
        let _ = write!(making.statement.sql, " ORDER BY {}", column.compared());
        making.statement
    }

    /// The lowest or highest value of a column in a stretch of the cursor.
    pub(crate) fn edge(&self, column: &Selected, cursor: Option<(&Selected, Stretch<'_>)>, highest: bool) -> Statement {
        let mut making = Making::new(format!("SELECT TOP 1 {} FROM {}", column.expression(), self.from));
        match cursor {
            Some((cursor, stretch)) => {
                making.stretch(cursor, stretch);
                if cursor != column {
                    making.condition(&format!("{} IS NOT NULL", quote(&column.name)));
                }
            }
            None => making.condition(&format!("{} IS NOT NULL", quote(&column.name))),
        }
        let _ = write!(making.statement.sql, " ORDER BY {}{}", column.compared(), if highest { " DESC" } else { "" });
        making.statement
    }
}

/// A field of a column. Nullable whatever the column is: a row that is refused has a null where its value would be.
fn field(name: &str, of: DataType) -> Field {
    Field::new(name, of, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(from: String) -> Selection {
        let columns = [
            ("id", SqlType::Int),
            ("odd ]name", SqlType::NVarChar(Some(50))),
            ("price", SqlType::Money),
            ("tip", SqlType::SmallMoney),
            ("at", SqlType::DateTime2(3)),
            ("v", SqlType::RowVersion),
            ("code", SqlType::VarChar(Some(9))),
        ];
        let columns = columns.map(|(name, of)| Selected { name: name.to_owned(), of });
        Selection::new(from, columns.into(), Some("id".to_owned())).unwrap()
    }

    fn shown(statement: &Statement) -> String {
        format!("{}\n  -- {:?}\n", statement.sql, statement.parameters)
    }

    #[test]
    fn every_statement_that_reads() {
        let of = selection("[dbo].[t]".to_owned());
        let column = |name| of.column("cursor", name).unwrap().1;
        let read = |name, text| Value::read(text, &column(name).of).unwrap();
        let (seven, nine) = (read("id", "7"), read("id", "9"));
        let (noon, version, code) =
            (read("at", "2026-01-31T12:00:00.123"), read("v", "0x00000000000007D1"), read("code", "x"));
        let behind = |from| Stretch { from: Some(from), to: None };
        let between = Stretch { from: Some(&seven), to: Some(&nine) };
        let id = column("id");
        let range = |from, to| Some(Range { column: id, from, to });
        let all = [
            make_shape(&derived("SELECT a FROM b -- that is all\n;")) + "\n",
            format!("{DROP_SHAPE}\n{BEGIN_SNAPSHOT}\n{END_SNAPSHOT}\n"),
            shown(&of.all(None, None)),
            shown(&of.all(None, range(None, Some(&seven)))),
            shown(&of.all(None, range(Some(&seven), Some(&nine)))),
            shown(&of.all(None, range(Some(&nine), None))),
            shown(&of.all(Some((column("at"), behind(&noon))), range(Some(&seven), Some(&nine)))),
            shown(&of.in_order(id, Stretch::default())),
            shown(&of.in_order(id, behind(&seven))),
            shown(&of.in_order(id, between)),
            shown(&of.in_order(column("at"), behind(&noon))),
            shown(&of.in_order(column("v"), Stretch::default())),
            shown(&of.in_order(column("v"), behind(&version))),
            shown(&of.in_order(column("v"), Stretch { from: None, to: Some(&version) })),
            shown(&of.in_order(column("code"), behind(&code))),
            shown(&of.edge(id, None, false)),
            shown(&of.edge(id, Some((column("at"), behind(&noon))), true)),
            shown(&of.edge(column("price"), Some((column("price"), Stretch::default())), true)),
            shown(&selection(derived("SELECT * FROM u")).in_order(id, between)),
        ];
        insta::assert_snapshot!(all.join("\n"));
    }

    #[test]
    fn a_column_that_is_not_there_is_named() {
        let of = selection("[t]".to_owned());
        assert_eq!(of.column("cursor", "ID").unwrap().0, 0);
        let error = of.column("cursor", "x").unwrap_err();
        assert_eq!(error.to_string(), "cursor: there is no column x");
        assert_eq!(error.what_to_do(), Some("the columns are id, odd ]name, price, tip, at, v, code"));
    }
}
