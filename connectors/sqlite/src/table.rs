//! Tables: what is there, and what is made.

use arrow_schema::{DataType, Field, Schema, TimeUnit};
use rusqlite::{Connection, OptionalExtension as _};
use towpath_core::{Error, KeySpec, Result, WriteMode};

use crate::{config::SinkOptions, error::During as _};

/// What a declared type means to us. SQLite itself knows only how it converts (its affinity).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// INTEGER and its like.
    Integer,
    /// REAL and its like.
    Real,
    /// TEXT and its like.
    Text,
    /// BLOB.
    Blob,
    /// BOOLEAN: 0 or 1.
    Bool,
    /// DATE.
    Date,
    /// DATETIME, TIMESTAMP.
    Timestamp,
    /// DECIMAL(p,s), NUMERIC(p,s).
    Decimal(u8, i8),
    /// No type, ANY, NUMERIC, or a word nobody knows: as it comes.
    Any,
}

impl Kind {
    /// Reads a declared type.
    pub(crate) fn of(declared: &str) -> Self {
        let upper = declared.trim().to_ascii_uppercase();
        let (word, size) =
            upper.split_once('(').map_or((upper.as_str(), None), |(word, size)| (word.trim(), Some(size)));
        match word {
            "BOOL" | "BOOLEAN" => Self::Bool,
            "DATE" => Self::Date,
            "DATETIME" | "TIMESTAMP" => Self::Timestamp,
            "DECIMAL" | "NUMERIC" | "NUMBER" => {
                let mut size =
                    size.unwrap_or("").trim_end_matches(')').split(',').map(|part| part.trim().parse::<u8>());
                match (size.next(), size.next()) {
                    (Some(Ok(precision @ 1..=38)), None) => Self::Decimal(precision, 0),
                    (Some(Ok(precision @ 1..=38)), Some(Ok(scale))) if scale <= precision => {
                        Self::Decimal(precision, i8::try_from(scale).unwrap_or(0))
                    }
                    _ => Self::Any,
                }
            }
            // From here on as SQLite's rules of affinity go.
            word if word.contains("INT") => Self::Integer,
            word if ["CHAR", "CLOB", "TEXT"].iter().any(|part| word.contains(part)) => Self::Text,
            word if word.contains("BLOB") => Self::Blob,
            word if ["REAL", "FLOA", "DOUB"].iter().any(|part| word.contains(part)) => Self::Real,
            _ => Self::Any,
        }
    }

    /// What a column that comes as `from` must be cast to, to go into this one. The same type: nothing to do.
    pub(crate) fn cast(self, from: &DataType) -> DataType {
        let text = matches!(from, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        match self {
            Self::Integer if text || from.is_floating() => DataType::Int64,
            Self::Real if text => DataType::Float64,
            Self::Bool if text => DataType::Boolean,
            Self::Date if text => DataType::Date32,
            Self::Timestamp if text => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::Decimal(precision, scale) if text => DataType::Decimal128(precision, scale),
            _ => from.clone(),
        }
    }
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// As written in CREATE TABLE.
    pub(crate) declared: String,
    pub(crate) not_null: bool,
    pub(crate) has_default: bool,
    /// Its place in the primary key from 1, or 0.
    pub(crate) key: i64,
    pub(crate) generated: bool,
}

/// An index made by CREATE INDEX.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    pub(crate) name: String,
    pub(crate) sql: String,
    pub(crate) unique: bool,
}

/// A table as it is.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) columns: Vec<Column>,
    pub(crate) sql: String,
    pub(crate) without_rowid: bool,
    /// Columns of each unique index, the primary key's too.
    pub(crate) unique: Vec<Vec<String>>,
    /// Indexes with SQL of their own.
    pub(crate) indexes: Vec<Index>,
    /// Triggers on it, or keys of other tables that point to it, or it is no plain table: it cannot be swapped for another.
    pub(crate) entangled: bool,
    /// A foreign key that SQLite checks only at the commit.
    pub(crate) deferred: bool,
    /// A view or a virtual table.
    pub(crate) plain: bool,
}

/// A name or text, quoted for SQL.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Names joined for SQL.
pub(crate) fn quoted<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(quote).collect::<Vec<_>>().join(", ")
}

impl Table {
    /// Looks at a table or view; `None` if there is none of the name.
    pub(crate) fn read(db: &Connection, name: &str) -> Result<Option<Self>> {
        Self::look(db, name).during(&format!("read how table {name} is made"))
    }

    fn look(db: &Connection, name: &str) -> rusqlite::Result<Option<Self>> {
        let found = db.prepare("SELECT type, coalesce(sql, '') FROM sqlite_schema WHERE type IN ('table','view') AND name = ?1 COLLATE NOCASE")?
            .query_row([name], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))
            .optional()?;
        let Some((kind, sql)) = found else { return Ok(None) };
        let columns = db
            .prepare("SELECT name, type, \"notnull\", dflt_value IS NOT NULL, pk, hidden FROM pragma_table_xinfo(?1)")?
            .query_map([name], |row| {
                Ok(Column {
                    name: row.get(0)?,
                    declared: row.get(1)?,
                    not_null: row.get(2)?,
                    has_default: row.get(3)?,
                    key: row.get(4)?,
                    generated: row.get::<_, i64>(5)? != 0,
                })
            })?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let without_rowid = db
            .prepare("SELECT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?1 COLLATE NOCASE")?
            .query_row([name], |row| row.get(0))
            .optional()?
            .unwrap_or(false);
        let mut unique = vec![];
        let mut key: Vec<_> = columns.iter().filter(|column| column.key > 0).collect();
        key.sort_by_key(|column| column.key);
        if !key.is_empty() {
            unique.push(key.iter().map(|column| column.name.clone()).collect());
        }
        let lists = db
            .prepare("SELECT name FROM pragma_index_list(?1) WHERE \"unique\" AND NOT partial")?
            .query_map([name], |row| row.get::<_, String>(0))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        for index in lists {
            let columns: Vec<Option<String>> = db
                .prepare("SELECT name FROM pragma_index_info(?1) ORDER BY seqno")?
                .query_map([index], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            // An index over an expression has no name there and serves no key of ours.
            unique.extend(columns.into_iter().collect::<Option<Vec<_>>>());
        }
        let indexes = db
            .prepare(
                "SELECT s.name, s.sql, l.\"unique\" FROM sqlite_schema s JOIN pragma_index_list(?1) l ON l.name = s.name
                 WHERE s.type = 'index' AND s.sql IS NOT NULL",
            )?
            .query_map([name], |row| Ok(Index { name: row.get(0)?, sql: row.get(1)?, unique: row.get(2)? }))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let entangled: bool = db.query_row(
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE)
                 OR EXISTS (SELECT 1 FROM sqlite_schema s, pragma_foreign_key_list(s.name) f
                            WHERE s.type = 'table' AND f.\"table\" = ?1 COLLATE NOCASE)",
            [name],
            |row| row.get(0),
        )?;
        let foreign: bool =
            db.query_row("SELECT EXISTS (SELECT 1 FROM pragma_foreign_key_list(?1))", [name], |row| row.get(0))?;
        let deferred = foreign && sql.to_ascii_uppercase().split_whitespace().any(|word| word.starts_with("DEFERRED"));
        let plain = kind == "table" && !sql.to_ascii_uppercase().starts_with("CREATE VIRTUAL");
        Ok(Some(Self { columns, sql, without_rowid, unique, indexes, entangled, deferred, plain }))
    }

    /// The column of a name, as SQLite compares names.
    pub(crate) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name.eq_ignore_ascii_case(name))
    }

    /// Whether a unique index or primary key has exactly these columns.
    pub(crate) fn is_unique(&self, key: &[String]) -> bool {
        let same = |columns: &Vec<String>| {
            columns.len() == key.len()
                && key.iter().all(|key| columns.iter().any(|column| column.eq_ignore_ascii_case(key)))
        };
        self.unique.iter().any(same)
    }

    /// Whether its rows have a number of their own that only we give out: then staged rows can be told apart by it.
    pub(crate) fn numbers_rows(&self) -> bool {
        let mut key = self.columns.iter().filter(|column| column.key > 0);
        let alias =
            matches!((key.next(), key.next()), (Some(only), None) if only.declared.eq_ignore_ascii_case("INTEGER"));
        let named = ["rowid", "_rowid_", "oid"].iter().any(|name| self.column(name).is_some());
        !self.without_rowid && !alias && !named
    }

    /// The SQL that makes the same table under another name. SQLite keeps the statement with `CREATE TABLE ` before the name, whatever
    /// was typed.
    pub(crate) fn sql_as(&self, name: &str) -> Option<String> {
        let rest = self.sql.strip_prefix("CREATE TABLE ")?.trim_start();
        let end = match rest.chars().next()? {
            open @ ('"' | '`' | '\'' | '[') => {
                let close = if open == '[' { ']' } else { open };
                let mut at = 1;
                loop {
                    at += rest.get(at..)?.find(close)? + 1;
                    // A doubled quote is part of the name.
                    if open == '[' || !rest[at..].starts_with(close) {
                        break at;
                    }
                    at += 1;
                }
            }
            _ => rest.find(|c: char| c.is_whitespace() || c == '(')?,
        };
        Some(format!("CREATE TABLE {} {}", quote(name), &rest[end..]))
    }
}

/// The type a column of ours gets. In a strict table there are only five, and each says what is stored:
/// whole numbers and bool are INTEGER, floats REAL, and everything SQLite has no type for is TEXT that sorts rightly.
fn declare(field: &Field) -> Result<String> {
    use DataType as T;
    let name = quote(field.name());
    Ok(match field.data_type() {
        T::Boolean => format!("INTEGER CHECK ({name} IN (0, 1))"),
        T::Int8 | T::Int16 | T::Int32 | T::Int64 | T::UInt8 | T::UInt16 | T::UInt32 | T::UInt64 => "INTEGER".to_owned(),
        T::Float16 | T::Float32 | T::Float64 => "REAL".to_owned(),
        T::Binary | T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_) => "BLOB".to_owned(),
        T::Utf8 | T::LargeUtf8 | T::Utf8View | T::Null => "TEXT".to_owned(),
        T::Decimal32(..) | T::Decimal64(..) | T::Decimal128(..) | T::Decimal256(..) => "TEXT".to_owned(),
        T::Date32 | T::Date64 | T::Time32(_) | T::Time64(_) | T::Timestamp(..) => "TEXT".to_owned(),
        T::Dictionary(_, value) => declare(&Field::new(field.name(), (**value).clone(), true))?,
        other => {
            return Err(Error::config(format!("column {}: SQLite has no type for {other}", field.name()))
                .hint("make it text, or explode it, in a transform before the sink"));
        }
    })
}

/// One column's definition.
pub(crate) fn column_sql(field: &Field) -> Result<String> {
    Ok(format!("{} {}", quote(field.name()), declare(field)?))
}

/// The SQL that makes the sink's table, under `name`.
pub(crate) fn create_sql(name: &str, schema: &Schema, options: &SinkOptions) -> Result<String> {
    let keys: Vec<&str> = match &options.key {
        Some(KeySpec::Columns(columns)) => columns.iter().map(String::as_str).collect(),
        _ => vec![],
    };
    let is_key = |name: &str| keys.iter().any(|key| key.eq_ignore_ascii_case(name));
    let mut lines = vec![];
    for field in schema.fields() {
        let not_null = if is_key(field.name()) { " NOT NULL" } else { "" };
        lines.push(format!("  {}{not_null}", column_sql(field)?));
    }
    if options.by_hash() && options.write == WriteMode::InsertNew {
        lines.push(format!("  {} BLOB NOT NULL", quote(&options.hash_column)));
    }
    if !keys.is_empty() {
        lines.push(format!("  PRIMARY KEY ({})", quoted(keys)));
    }
    Ok(format!("CREATE TABLE {} (\n{}\n) STRICT", quote(name), lines.join(",\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_types_are_understood() {
        for (declared, kind) in [
            ("INTEGER", Kind::Integer),
            ("bigint unsigned", Kind::Integer),
            ("VARCHAR(20)", Kind::Text),
            ("nvarchar (20)", Kind::Text),
            ("double precision", Kind::Real),
            ("BLOB", Kind::Blob),
            ("boolean", Kind::Bool),
            ("DATE", Kind::Date),
            ("datetime", Kind::Timestamp),
            ("DECIMAL(10,2)", Kind::Decimal(10, 2)),
            ("DECIMAL(10, 2)", Kind::Decimal(10, 2)),
            ("numeric(5)", Kind::Decimal(5, 0)),
            ("NUMERIC", Kind::Any),
            ("DECIMAL(2,10)", Kind::Any),
            ("", Kind::Any),
            ("ANY", Kind::Any),
        ] {
            assert_eq!(Kind::of(declared), kind, "{declared}");
        }
    }

    #[test]
    fn a_table_is_made_again_under_another_name() {
        for made in [
            "CREATE TABLE t(a INT, b TEXT)",
            "create table main.t (a INT, b TEXT)",
            "CREATE TABLE IF NOT EXISTS \"t\" (a INT, b TEXT)",
            "CREATE TABLE [t](a INT, b TEXT)",
            "CREATE TABLE `t` (a INT, b TEXT) STRICT",
            "CREATE TABLE 't' (a INT, b TEXT)",
        ] {
            let db = Connection::open_in_memory().unwrap();
            db.execute_batch(made).unwrap();
            let table = Table::read(&db, "T").unwrap().unwrap();
            db.execute_batch(&table.sql_as("odd \"name").unwrap()).unwrap();
            let again = Table::read(&db, "odd \"name").unwrap().unwrap();
            assert_eq!(again.columns, table.columns, "{made}");
        }
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch("CREATE TABLE \"a\"\"(b\" (x)").unwrap();
        let table = Table::read(&db, "a\"(b").unwrap().unwrap();
        db.execute_batch(&table.sql_as("z").unwrap()).unwrap();
    }
}
