//! What tells rows apart at a sink, as the config says it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    sink::WriteMode,
};

/// What tells rows apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum KeySpec {
    /// The hash of the whole row.
    RowHash(RowHash),
    /// These columns.
    Columns(Vec<String>),
}

/// The word `row_hash`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RowHash {
    /// The hash of the whole row.
    #[serde(rename = "row_hash")]
    RowHash,
}

impl KeySpec {
    /// Whether a write mode and a key go together.
    ///
    /// # Errors
    /// Config: a mode that needs a key has none, one that has no use for a key has one, or `upsert` goes by the hash of the row.
    pub fn check(mode: WriteMode, key: Option<&Self>) -> Result<()> {
        match (mode, key) {
            (WriteMode::InsertNew | WriteMode::Upsert, None) => {
                Err(Error::config(format!("write: {} needs a key", mode.name()))
                    .hint("add `key: [column]`, or `key: row_hash` where no column tells rows apart"))
            }
            (WriteMode::Append | WriteMode::Replace, Some(_)) => {
                Err(Error::config(format!("write: {} has no use for a key", mode.name()))
                    .hint("leave the key out, or write `insert_new` or `upsert`"))
            }
            (WriteMode::Upsert, Some(Self::RowHash(_))) => Err(Error::config(
                "write: upsert cannot go by the hash of the whole row: a changed row has another hash",
            )
            .hint("name key columns, or write `insert_new`")),
            (_, Some(Self::Columns(columns))) if columns.is_empty() => Err(Error::config("key: names no column")),
            _ => Ok(()),
        }
    }

    /// The columns of the key in a table whose column for the hash is called so.
    pub fn columns(&self, hash_column: &str) -> Vec<String> {
        match self {
            Self::RowHash(_) => vec![hash_column.to_owned()],
            Self::Columns(columns) => columns.clone(),
        }
    }
}
