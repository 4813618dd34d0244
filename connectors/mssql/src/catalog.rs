//! Tables as they are: names, columns, keys, constraints.
//!
//! The catalog views asked here are those of SQL Server 2008 and later: sys.columns, sys.indexes and so on, learn.microsoft.com/sql/relational-databases/
//! system-catalog-views. They show what the login has a right to see.

use std::fmt;

use towpath_core::{Error, Result};

use crate::{
    client::{Session, number, text},
    types::SqlType,
};

/// A table's name, perhaps with its schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableName {
    pub(crate) schema: Option<String>,
    pub(crate) name: String,
}

/// A name in brackets, `]` doubled.
pub(crate) fn quote(name: &str) -> String {
    format!("[{}]", name.replace(']', "]]"))
}

/// Names in brackets, joined.
pub(crate) fn quoted<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(quote).collect::<Vec<_>>().join(", ")
}

/// A text as a literal.
pub(crate) fn literal(text: &str) -> String {
    format!("N'{}'", text.replace('\'', "''"))
}

/// As SQL.
impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{}.", quote(schema))?;
        }
        f.write_str(&quote(&self.name))
    }
}

impl TableName {
    /// Reads `t`, `dbo.t`, `[a b].[c]]d]`.
    ///
    /// # Errors
    /// Config: empty or too long a part, a bracket that is not closed, more parts than schema and name.
    pub(crate) fn parse(written: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::config(format!("table: '{written}' {why}"))
                .hint("write name, schema.name or [odd schema].[odd name]")
        };
        let (mut parts, mut rest) = (vec![], written.trim());
        loop {
            let (part, after) = match rest.chars().next() {
                Some(open @ ('[' | '"')) => {
                    let close = if open == '[' { ']' } else { '"' };
                    let mut end = 1;
                    loop {
                        end += rest[end..].find(close).ok_or_else(|| wrong("has a bracket that is not closed"))? + 1;
                        if !rest[end..].starts_with(close) {
                            break;
                        }
                        end += 1;
                    }
                    let doubled = format!("{close}{close}");
                    (rest[1..end - 1].replace(&doubled, &close.to_string()), &rest[end..])
                }
                _ => {
                    let end = rest.find('.').unwrap_or(rest.len());
                    (rest[..end].trim().to_owned(), &rest[end..])
                }
            };
            if part.is_empty() || part.encode_utf16().count() > 128 || part.chars().any(char::is_control) {
                return Err(wrong("has a part that is no name of 1 to 128 characters"));
            }
            parts.push(part);
            match after.strip_prefix('.') {
                Some(more) => rest = more,
                None if after.trim().is_empty() => break,
                None => return Err(wrong("goes on behind a bracket")),
            }
        }
        let name = parts.pop().ok_or_else(|| wrong("is empty"))?;
        let schema = parts.pop();
        if parts.is_empty() {
            return Ok(Self { schema, name });
        }
        Err(wrong("has more parts than schema and name").hint("name the database in the connection"))
    }
}

impl TableName {
    /// The same with its schema: the login's own, if it names none.
    ///
    /// # Errors
    /// `NotFound`: a schema that is not there. Whoever may make tables in it sees it.
    pub(crate) async fn in_schema(&self, session: &mut Session) -> Result<Self> {
        let Some(schema) = &self.schema else {
            let here = session.batch("find the login's schema", HERE).await?;
            let schema = here.first().and_then(|rows| rows.first()).and_then(|row| text(row, 0));
            return Ok(Self { schema: Some(schema.unwrap_or_else(|| "dbo".to_owned())), name: self.name.clone() });
        };
        let found = session.ask("find the table's schema", SCHEMA, &[schema]).await?;
        if found.is_empty() {
            return Err(Error::not_found(format!("there is no schema {}", quote(schema)))
                .hint(format!("check the name of the table, or make the schema: CREATE SCHEMA {}", quote(schema))));
        }
        Ok(self.clone())
    }
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) of: SqlType,
    pub(crate) nullable: bool,
    pub(crate) identity: bool,
    /// Computed, or a rowversion: takes no values.
    pub(crate) generated: bool,
    pub(crate) has_default: bool,
    /// Of a text column, where it is not the database's own.
    pub(crate) collation: Option<String>,
}

/// A unique index or constraint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unique {
    pub(crate) name: String,
    pub(crate) primary: bool,
    pub(crate) columns: Vec<String>,
}

impl Unique {
    /// Whether it has exactly these columns, in any order.
    pub(crate) fn is_of(&self, key: &[String]) -> bool {
        self.columns.len() == key.len()
            && key.iter().all(|key| self.columns.iter().any(|column| column.to_lowercase() == key.to_lowercase()))
    }
}

/// A CHECK constraint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CheckConstraint {
    pub(crate) name: String,
    /// An expression over the columns, in brackets.
    pub(crate) definition: String,
}

impl CheckConstraint {
    /// Whether it looks at a column. SQL Server keeps names in brackets; other servers that speak its language do not.
    pub(crate) fn mentions(&self, column: &str) -> bool {
        if self.definition.contains('[') {
            return self.definition.contains(&quote(column));
        }
        let (definition, column) = (self.definition.to_lowercase(), column.to_lowercase());
        let beside = |c: Option<char>| c.is_none_or(|c| !(c.is_alphanumeric() || matches!(c, '_' | '@' | '#' | '$')));
        definition.match_indices(&column).any(|(at, found)| {
            beside(definition[..at].chars().next_back()) && beside(definition[at + found.len()..].chars().next())
        })
    }
}

/// A foreign key: column here, column there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ForeignKey {
    pub(crate) name: String,
    pub(crate) parent: TableName,
    pub(crate) columns: Vec<(String, String)>,
}

/// A table as it is.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) name: TableName,
    /// `U ` a table, `V ` a view.
    pub(crate) kind: String,
    /// True where nobody has looked.
    pub(crate) has_rows: bool,
    pub(crate) columns: Vec<Column>,
    pub(crate) uniques: Vec<Unique>,
    pub(crate) checks: Vec<CheckConstraint>,
    pub(crate) foreign: Vec<ForeignKey>,
}

/// The schema of names that have none, and the database's collation.
pub(crate) const HERE: &str =
    "SELECT SCHEMA_NAME(), CONVERT(nvarchar(128), DATABASEPROPERTYEX(DB_NAME(), N'Collation'))";

const SCHEMA: &str = "SELECT name FROM sys.schemas WHERE name = @P1";

const OBJECT: &str = "SELECT o.object_id, o.type, s.name, o.name FROM sys.objects o JOIN sys.schemas s ON s.schema_id = o.schema_id \
     WHERE o.object_id = OBJECT_ID(@P1)";

/// A type of somebody's own is told by the type beneath it: only of those are `system_type_id` and `user_type_id` the same.
const COLUMNS: &str = "SELECT c.name, t.name, c.max_length, c.precision, c.scale, c.is_nullable, c.is_identity, c.is_computed, \
     c.default_object_id, c.collation_name FROM sys.columns c LEFT JOIN sys.types t ON t.user_type_id = c.system_type_id \
     WHERE c.object_id = @P1 ORDER BY c.column_id";

const UNIQUES: &str = "SELECT i.name, i.is_primary_key, c.name FROM sys.indexes i \
     JOIN sys.index_columns ic ON ic.object_id = i.object_id AND ic.index_id = i.index_id \
     JOIN sys.columns c ON c.object_id = ic.object_id AND c.column_id = ic.column_id \
     WHERE i.object_id = @P1 AND i.is_unique = 1 AND i.is_disabled = 0 AND i.has_filter = 0 AND ic.is_included_column = 0 \
     ORDER BY i.index_id, ic.key_ordinal";

const CHECKS: &str =
    "SELECT name, definition FROM sys.check_constraints WHERE parent_object_id = @P1 AND is_disabled = 0 ORDER BY name";

const FOREIGN: &str = "SELECT f.name, s.name, o.name, here.name, there.name FROM sys.foreign_keys f \
     JOIN sys.foreign_key_columns fc ON fc.constraint_object_id = f.object_id \
     JOIN sys.objects o ON o.object_id = f.referenced_object_id JOIN sys.schemas s ON s.schema_id = o.schema_id \
     JOIN sys.columns here ON here.object_id = fc.parent_object_id AND here.column_id = fc.parent_column_id \
     JOIN sys.columns there ON there.object_id = fc.referenced_object_id AND there.column_id = fc.referenced_column_id \
     WHERE f.parent_object_id = @P1 AND f.is_disabled = 0 ORDER BY f.name, fc.constraint_column_id";

/// Rows of which tables point to those of this one, by which keys; of oneself does not count, because they go and come together.
const POINTING: &str = "SELECT f.name, s.name, o.name FROM sys.foreign_keys f \
     JOIN sys.objects o ON o.object_id = f.parent_object_id JOIN sys.schemas s ON s.schema_id = o.schema_id \
     WHERE f.referenced_object_id = OBJECT_ID(@P1) AND f.parent_object_id <> f.referenced_object_id AND f.is_disabled = 0 ORDER BY f.name";

/// Triggers of a table, and whether they take the place of the statement.
const TRIGGERS: &str = "SELECT name, is_instead_of_trigger FROM sys.triggers WHERE parent_id = OBJECT_ID(@P1) AND is_disabled = 0 ORDER BY name";

/// Triggers of a table: their names, and whether they take the place of the statement.
pub(crate) async fn triggers(session: &mut Session, name: &TableName) -> Result<Vec<(String, bool)>> {
    let rows = session.ask(&format!("read which triggers {name} has"), TRIGGERS, &[&name.to_string()]).await?;
    Ok(rows.iter().map(|row| (text(row, 0).unwrap_or_default(), number(row, 1) == Some(1))).collect())
}

/// Foreign keys of other tables that point to one: their names, and whose they are.
pub(crate) async fn pointing(session: &mut Session, name: &TableName) -> Result<Vec<(String, TableName)>> {
    let rows = session.ask(&format!("read what points to {name}"), POINTING, &[&name.to_string()]).await?;
    let pointing = rows.iter().map(|row| {
        let of = TableName { schema: text(row, 1), name: text(row, 2).unwrap_or_default() };
        (text(row, 0).unwrap_or_default(), of)
    });
    Ok(pointing.collect())
}

impl Table {
    /// Looks at a table or view; `None` if there is none of the name, or none that the login may see.
    pub(crate) async fn read(session: &mut Session, name: &TableName) -> Result<Option<Self>> {
        let doing = format!("read how table {name} is made");
        let found = session.ask(&doing, OBJECT, &[&name.to_string()]).await?;
        let Some(row) = found.first() else { return Ok(None) };
        let id = number(row, 0).ok_or_else(|| Error::internal("an object without a number"))?;
        let kind = text(row, 1).unwrap_or_default();
        let name = TableName { schema: text(row, 2), name: text(row, 3).unwrap_or_else(|| name.name.clone()) };
        let here = session.batch(&doing, HERE).await?;
        let collation = here.first().and_then(|rows| rows.first()).and_then(|row| text(row, 1));
        let id_parameter =
            i32::try_from(id).map_err(|error| Error::internal("an object's number is too large").because(error))?;

        let rows = session.ask(&doing, COLUMNS, &[&id_parameter]).await?;
        let columns = rows.iter().map(|row| {
            let number = |at| number(row, at).unwrap_or_default();
            let of = SqlType::of(&text(row, 1).unwrap_or_default(), number(2), number(3), number(4));
            Column {
                name: text(row, 0).unwrap_or_default(),
                nullable: number(5) != 0,
                identity: number(6) != 0,
                generated: number(7) != 0 || of == SqlType::RowVersion,
                has_default: number(8) != 0,
                collation: text(row, 9).filter(|own| collation.as_ref() != Some(own)),
                of,
            }
        });
        let columns = columns.collect();

        let mut uniques: Vec<Unique> = vec![];
        for row in session.ask(&doing, UNIQUES, &[&id_parameter]).await? {
            let (name, column) = (text(&row, 0).unwrap_or_default(), text(&row, 2).unwrap_or_default());
            match uniques.last_mut().filter(|last| last.name == name) {
                Some(last) => last.columns.push(column),
                None => uniques.push(Unique { name, primary: number(&row, 1) == Some(1), columns: vec![column] }),
            }
        }
        let checks = session.ask(&doing, CHECKS, &[&id_parameter]).await?;
        let checks = checks.iter().map(|row| CheckConstraint {
            name: text(row, 0).unwrap_or_default(),
            definition: text(row, 1).unwrap_or_default(),
        });
        let checks = checks.filter(|check| !check.definition.is_empty()).collect();

        let mut foreign: Vec<ForeignKey> = vec![];
        for row in session.ask(&doing, FOREIGN, &[&id_parameter]).await? {
            let name = text(&row, 0).unwrap_or_default();
            let pair = (text(&row, 3).unwrap_or_default(), text(&row, 4).unwrap_or_default());
            match foreign.last_mut().filter(|last| last.name == name) {
                Some(last) => last.columns.push(pair),
                None => {
                    let parent = TableName { schema: text(&row, 1), name: text(&row, 2).unwrap_or_default() };
                    foreign.push(ForeignKey { name, parent, columns: vec![pair] });
                }
            }
        }
        Ok(Some(Self { name, kind, has_rows: true, columns, uniques, checks, foreign }))
    }

    /// The column of a name; names are compared without regard to case, as nearly all databases do.
    pub(crate) fn column(&self, name: &str) -> Option<&Column> {
        let same = self.columns.iter().find(|column| column.name == name);
        same.or_else(|| self.columns.iter().find(|column| column.name.to_lowercase() == name.to_lowercase()))
    }

    /// Whether a unique index has exactly these columns.
    pub(crate) fn is_unique(&self, key: &[String]) -> bool {
        self.uniques.iter().any(|unique| unique.is_of(key))
    }

    /// Whether it is a table, not a view.
    pub(crate) fn is_table(&self) -> bool {
        self.kind.trim() == "U"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_seen_to_look_at_a_column() {
        for (definition, column, expect) in [
            ("([qty]>(0))", "qty", true),
            ("([qty2]>(0))", "qty", false),
            ("([a]]b]>(0))", "a]b", true),
            ("((qty > 0))", "Qty", true),
            ("((qty2 > 0) AND (a_qty < 1))", "qty", false),
        ] {
            let check = CheckConstraint { name: "c".into(), definition: definition.into() };
            assert_eq!(check.mentions(column), expect, "{definition} {column}");
        }
    }

    #[test]
    fn names_are_read_and_quoted() {
        for (written, expect) in [
            ("t", Some("[t]")),
            ("dbo.t", Some("[dbo].[t]")),
            ("[a b].[c]]d]", Some("[a b].[c]]d]")),
            ("\"a\"\"b\".t", Some("[a\"b].[t]")),
            ("dbo.[a.b]", Some("[dbo].[a.b]")),
            ("größe.日本", Some("[größe].[日本]")),
            ("", None),
            ("dbo.", None),
            ("[t", None),
            ("[t]x", None),
            ("a.b.c", None),
            ("a\0b", None),
        ] {
            let read = TableName::parse(written).ok().map(|name| name.to_string());
            assert_eq!(read.as_deref(), expect, "{written}");
        }
    }

    #[test]
    fn what_is_asked_of_the_catalog() {
        let all = [
            ("here", HERE),
            ("schema", SCHEMA),
            ("object", OBJECT),
            ("columns", COLUMNS),
            ("unique indexes", UNIQUES),
            ("CHECK constraints", CHECKS),
            ("foreign keys", FOREIGN),
            ("what points here", POINTING),
            ("triggers", TRIGGERS),
        ];
        insta::assert_snapshot!(all.map(|(what, sql)| format!("-- {what}\n{sql}\n")).join("\n"));
    }
}
