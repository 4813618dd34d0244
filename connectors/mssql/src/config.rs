//! What the config file says of a SQL Server source or sink. These comments are the only documentation of the fields.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towpath_core::{Error, KeySpec, Period, Result, Secret, Size, WriteMode};
use towpath_http::Pin;

use crate::{catalog::TableName, login::Login};

/// Where the server is and who asks: a URL, an ADO connection string, or fields.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Connection {
    /// `mssql://user:password@host:1433/database?encrypt=on&trust=server.pem`, or `Server=host,1433;Database=db;User Id=user;Password=…`.
    Text(Secret),
    /// The same as fields.
    Fields(ConnectionOptions),
}

/// A connection in fields.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectionOptions {
    /// The server's name or address.
    pub host: String,
    /// Its port. Default: 1433
    #[serde(default = "port")]
    pub port: u16,
    /// The database. Default: the login's own
    #[serde(default)]
    pub database: Option<String>,
    /// The SQL login.
    #[serde(default)]
    pub user: Option<String>,
    /// Its password.
    #[serde(default)]
    pub password: Option<Secret>,
    /// How to sign in: `sql`. (`integrated` and `aad` are not offered yet.) Default: sql
    #[serde(default)]
    pub auth: SignIn,
    /// Encryption: `on`, `strict` (TDS 8, SQL Server 2022 and later) or `off`, which sends even the password readable. Default: on
    #[serde(default)]
    pub encrypt: Encrypt,
    /// A PEM file with certificates to trust besides the system's: of an authority, or the server's own.
    #[serde(default)]
    pub trust: Option<PathBuf>,
    /// Trust this certificate and no other: `sha256:` and its fingerprint, or a PEM file.
    #[serde(default)]
    pub pin: Option<Pin>,
    /// The name that the server's lists of sessions show. Default: towpath
    #[serde(default = "application_name")]
    pub application_name: String,
    /// The size of a packet on the wire, 512 to 32767 bytes. Default: 16384
    #[serde(default = "packet_size")]
    pub packet_size: u32,
    /// How long connecting and signing in may take. Default: 15s
    #[serde(default = "connect_timeout")]
    pub connect_timeout: Period,
}

/// How a connection is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encrypt {
    /// Not at all: the password is readable on the wire.
    Off,
    /// Everything, the sign-in too.
    #[default]
    On,
    /// As TDS 8 does: encryption first, then everything else.
    Strict,
}

/// How to sign in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SignIn {
    /// With a SQL login.
    #[default]
    Sql,
    /// With the account that runs the process (Kerberos, NTLM). Not offered yet.
    Integrated,
    /// With a token of Azure's directory. Not offered yet.
    Aad,
}

/// Options of the `mssql` sink.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SinkOptions {
    /// Where the server is and who asks: `mssql://user:password@host:1433/database?encrypt=on|strict|off&trust=FILE&pin=sha256:…`, an ADO
    /// connection string, or fields.
    pub connection: Connection,
    /// The table: `dbo.ProductionLog`, `[odd schema].[odd name]`. Without a schema it is in the login's own.
    pub table: String,
    /// How rows meet what is already there: `append`, `insert_new`, `upsert` or `replace`.
    pub write: WriteMode,
    /// What tells rows apart, for `insert_new` and `upsert`: a list of columns, or (`insert_new` only) `row_hash`, the hash of the
    /// whole row.
    #[serde(default)]
    pub key: Option<KeySpec>,
    /// The column that holds the hash, with `key: row_hash`; binary(16). Default: row_hash
    #[serde(default = "hash_column")]
    pub hash_column: String,
    /// Memory for hashes of rows that the table has, so that known rows are not sent again; `0B` for none. Default: 16MiB
    #[serde(default = "known_keys")]
    pub known_keys: Size,
    /// The column that says which rows are the most recent, if more are in the table than fit into `known_keys`.
    #[serde(default)]
    pub known_keys_order: Option<String>,
    /// Make the table, and the unique index of the key, where they are missing. Default: true
    #[serde(default = "yes")]
    pub create: bool,
    /// Add columns that the table does not have yet; otherwise they are an error. To a table with rows by `key: row_hash` only the hash
    /// column is added. Default: false
    #[serde(default)]
    pub add_columns: bool,
    /// Connections that load rows at the same time. Default: 1
    #[serde(default = "one")]
    pub workers: usize,
    /// How long one statement may take; raise it where a publish is large. Default: 10m
    #[serde(default = "timeout")]
    pub timeout: Period,
    /// How long to wait for a lock that somebody else holds. Default: 30s
    #[serde(default = "lock_timeout")]
    pub lock_timeout: Period,
}

/// Options of the `mssql` source: a `table` or a `query`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceOptions {
    /// Where the server is and who asks: `mssql://user:password@host:1433/database?encrypt=on|strict|off&trust=FILE&pin=sha256:…`, an ADO
    /// connection string, or fields.
    pub connection: Connection,
    /// The table or view to read: `dbo.Orders`.
    #[serde(default)]
    pub table: Option<String>,
    /// Or a query: one SELECT whose columns all have names, without ORDER BY and without WITH.
    #[serde(default)]
    pub query: Option<String>,
    /// A column that only grows (a number, a time, a rowversion). With it each run reads what is new since the last one; without it
    /// each run reads everything. Rows whose cursor is null are not read.
    #[serde(default)]
    pub cursor: Option<String>,
    /// Read so many ranges of `partition_by` at the same time, each by a connection of its own. Default: 1
    #[serde(default = "one")]
    pub partitions: usize,
    /// The column whose ranges are read side by side: a whole number, a date or a time, best the first of an index. Default: the cursor,
    /// or the primary key if it is one column
    #[serde(default)]
    pub partition_by: Option<String>,
    /// Read everything as of one moment, by snapshot isolation; the database must allow it (ALLOW_SNAPSHOT_ISOLATION). Default: false
    #[serde(default)]
    pub snapshot: bool,
    /// How long the server may take from one packet to the next. Default: 10m
    #[serde(default = "timeout")]
    pub timeout: Period,
    /// How long to wait for a lock that somebody else holds. Default: 30s
    #[serde(default = "lock_timeout")]
    pub lock_timeout: Period,
}

fn port() -> u16 {
    1433
}
fn application_name() -> String {
    "towpath".to_owned()
}
fn packet_size() -> u32 {
    16384
}
fn connect_timeout() -> Period {
    Period::seconds(15)
}
fn hash_column() -> String {
    "row_hash".to_owned()
}
fn known_keys() -> Size {
    Size(16 << 20)
}
fn yes() -> bool {
    true
}
fn one() -> usize {
    1
}
fn timeout() -> Period {
    Period::seconds(600)
}
fn lock_timeout() -> Period {
    Period::seconds(30)
}

impl Connection {
    /// Reads it.
    ///
    /// # Errors
    /// Config: what cannot be understood. Unsupported: a way of signing in that is not there yet.
    pub(crate) fn login(&self) -> Result<Login> {
        match self {
            Self::Text(text) => Login::parse(text),
            Self::Fields(fields) => Login::new(fields.clone()),
        }
    }
}

impl ConnectionOptions {
    /// Only a host; the rest as by default.
    pub(crate) fn of(host: String) -> Self {
        Self {
            host,
            port: port(),
            database: None,
            user: None,
            password: None,
            auth: SignIn::default(),
            encrypt: Encrypt::default(),
            trust: None,
            pin: None,
            application_name: application_name(),
            packet_size: packet_size(),
            connect_timeout: connect_timeout(),
        }
    }
}

impl SinkOptions {
    /// Finds what does not go together.
    pub(crate) fn check(&self) -> Result<TableName> {
        if self.workers == 0 || self.workers > 16 {
            return Err(Error::config("workers: must be from 1 to 16"));
        }
        KeySpec::check(self.write, self.key.as_ref())?;
        if self.known_keys_order.is_some() && !self.by_hash() {
            return Err(Error::config("known_keys_order: only rows that go by their hash are known beforehand")
                .hint("leave it out, or write `key: row_hash`"));
        }
        let table = TableName::parse(&self.table)?;
        if table.name.to_ascii_lowercase().starts_with("towpath_") {
            return Err(Error::config(format!("table: '{}' has a name kept for Towpath's own tables", self.table)));
        }
        Ok(table)
    }

    /// Whether rows go by their hash.
    pub(crate) fn by_hash(&self) -> bool {
        matches!(self.key, Some(KeySpec::RowHash(_)))
    }

    /// The columns of the key, the hash's included; empty without key.
    pub(crate) fn key_columns(&self) -> Vec<String> {
        self.key.iter().flat_map(|key| key.columns(&self.hash_column)).collect()
    }
}

impl SourceOptions {
    /// Finds what does not go together.
    pub(crate) fn check(&self) -> Result<()> {
        if self.partitions == 0 || self.partitions > 64 {
            return Err(Error::config("partitions: must be from 1 to 64"));
        }
        if self.partition_by.is_some() && self.partitions == 1 {
            return Err(Error::config("partition_by: has no meaning without `partitions`"));
        }
        if self.snapshot && self.partitions > 1 {
            return Err(Error::config(
                "snapshot: ranges that are read at the same time would each be of a moment of their own",
            )
            .hint("leave out `partitions`, or `snapshot`"));
        }
        match (&self.table, &self.query) {
            (Some(table), None) => TableName::parse(table).map(|_| ()),
            (None, Some(query)) if query.trim().is_empty() => Err(Error::config("query: is empty")),
            (None, Some(_)) if self.partitions > 1 && self.partition_by.is_none() && self.cursor.is_none() => {
                Err(Error::config("partitions: a query needs `partition_by`, the column whose ranges are read"))
            }
            (None, Some(_)) => Ok(()),
            _ => Err(Error::config("an mssql source reads either a `table` or a `query`")),
        }
    }
}
