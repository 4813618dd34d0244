//! What the config file says of a SQLite source or sink. These comments are the only documentation of the fields.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use towpath_core::{Error, KeySpec, Period, Result, WriteMode};

/// Options of the `sqlite` sink.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SinkOptions {
    /// The database file. Made if it is not there; its folder must be.
    pub path: PathBuf,
    /// The table.
    pub table: String,
    /// How rows meet what is already there: `append`, `insert_new`, `upsert` or `replace`.
    pub write: WriteMode,
    /// What tells rows apart, for `insert_new` and `upsert`: a list of columns, or (`insert_new` only) `row_hash`, the hash of the
    /// whole row.
    #[serde(default)]
    pub key: Option<KeySpec>,
    /// The column that holds the hash, with `key: row_hash`. Default: row_hash
    #[serde(default = "hash_column")]
    pub hash_column: String,
    /// Make the table, and the unique index of the key, where they are missing. Default: true
    #[serde(default = "yes")]
    pub create: bool,
    /// Add columns that the table does not have yet; otherwise they are an error. Default: false
    #[serde(default)]
    pub add_columns: bool,
    /// How long to wait for another process that is writing to the file. Default: 30s
    #[serde(default = "lock_timeout")]
    pub lock_timeout: Period,
}

/// Options of the `sqlite` source: a `table` or a `query`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceOptions {
    /// The database file. It is opened for reading only.
    pub path: PathBuf,
    /// The table or view to read.
    #[serde(default)]
    pub table: Option<String>,
    /// Or a query: one SELECT.
    #[serde(default)]
    pub query: Option<String>,
    /// A column that only grows (a number, a time as text). With it each run reads what is new since the last one; without it
    /// each run reads everything. Rows whose cursor is null are not read.
    #[serde(default)]
    pub cursor: Option<String>,
    /// How long to wait for another process that has locked the file. Default: 30s
    #[serde(default = "lock_timeout")]
    pub lock_timeout: Period,
}

fn hash_column() -> String {
    "row_hash".to_owned()
}
fn yes() -> bool {
    true
}
fn lock_timeout() -> Period {
    Period::seconds(30)
}

impl SinkOptions {
    /// Finds what does not go together.
    pub fn check(&self) -> Result<()> {
        check_path(&self.path)?;
        check_table(&self.table)?;
        KeySpec::check(self.write, self.key.as_ref())
    }

    /// Whether rows go by their hash.
    pub fn by_hash(&self) -> bool {
        matches!(self.key, Some(KeySpec::RowHash(_)))
    }

    /// The columns of the key, the hash's included; empty without key.
    pub fn key_columns(&self) -> Vec<String> {
        self.key.iter().flat_map(|key| key.columns(&self.hash_column)).collect()
    }

    /// What makes the checkpoint meaningful.
    pub fn identity(&self) -> String {
        let key = match &self.key {
            None => String::new(),
            Some(_) => format!(" key={}", self.key_columns().join(",")),
        };
        format!("sqlite {} table={} {}{key}", absolute(&self.path).display(), self.table, self.write.name())
    }
}

impl SourceOptions {
    /// Finds what does not go together.
    pub fn check(&self) -> Result<()> {
        check_path(&self.path)?;
        match (&self.table, &self.query) {
            (Some(table), None) => check_table(table),
            (None, Some(query)) if query.trim().is_empty() => Err(Error::config("query: is empty")),
            (None, Some(_)) => Ok(()),
            _ => Err(Error::config("a sqlite source reads either a `table` or a `query`")),
        }
    }
}

/// The path without its dependence on the folder one stands in; symbolic links stay, so that it is the path people know.
pub(crate) fn absolute(path: &std::path::Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn check_path(path: &std::path::Path) -> Result<()> {
    if path.as_os_str().is_empty() || path.as_os_str() == ":memory:" {
        return Err(Error::config("path: must name a file").hint("a database in memory would be gone with the run"));
    }
    Ok(())
}

fn check_table(table: &str) -> Result<()> {
    let lower = table.to_ascii_lowercase();
    if table.is_empty() || table.contains('\0') {
        return Err(Error::config("table: must name a table"));
    }
    if lower.starts_with("sqlite_") || lower.starts_with("towpath_") {
        return Err(Error::config(format!("table: '{table}' has a name kept for others"))
            .hint("names that begin with sqlite_ or towpath_ are not for data"));
    }
    Ok(())
}
