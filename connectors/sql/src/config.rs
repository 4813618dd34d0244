//! The options of `sql`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use towpath_core::{Error, Result, Size};

/// Options of `sql`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SqlOptions {
    /// One query over tables that are called as the inputs are: `select … from orders join payments …`. Names of columns are
    /// written as they stand in the source, capitals included.
    pub query: String,
    /// What the query may hold in memory; what is more goes to disk. At least 8MiB. Default: 64MiB
    #[serde(default = "memory")]
    pub memory: Size,
    /// How many parts of the query are worked on side by side. Default: the number of processors, at most 8
    #[serde(default)]
    pub threads: Option<usize>,
    /// Rows per batch of the result, at the most: 32 for each MiB of memory. Default: 4096
    #[serde(default = "batch_rows")]
    pub batch_rows: usize,
    /// Into how many parts rows are split on disk, so that one at a time fits the memory: more for very large inputs.
    /// 1 to 1024. Default: 64
    #[serde(default = "parts")]
    pub parts: usize,
    /// The folder for what does not fit the memory; not one that is itself kept in memory. Default: the system's for temporary
    /// files
    #[serde(default)]
    pub spill: Option<PathBuf>,
    /// What may lie there at the most. Default: 100GiB
    #[serde(default = "max_spill")]
    pub max_spill: Size,
    /// Narrower limits than `memory` gives, so that tests with few rows go the ways of many.
    #[doc(hidden)]
    #[serde(skip)]
    pub narrow: Narrow,
}

/// Limits in bytes; `None`: a share of the memory.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Narrow {
    /// What is gathered before it is written to disk.
    pub gather: Option<usize>,
    /// What the side of a join may take that is held in memory.
    pub hash: Option<usize>,
}

const fn memory() -> Size {
    Size(64 << 20)
}
const fn batch_rows() -> usize {
    4096
}
const fn parts() -> usize {
    64
}
const fn max_spill() -> Size {
    Size(100 << 30)
}

/// The least memory a query is run in: below it, sorts have no room to merge.
const LEAST: Size = Size(8 << 20);

impl SqlOptions {
    /// Options for a query, everything else as it is by default.
    pub fn new(query: impl Into<String>) -> Self {
        Self {
            query: query.into(),
            memory: memory(),
            threads: None,
            batch_rows: batch_rows(),
            parts: parts(),
            spill: None,
            max_spill: max_spill(),
            narrow: Narrow::default(),
        }
    }

    /// # Errors
    /// Config: a number that is out of its range.
    pub(crate) fn check(&self) -> Result<()> {
        if self.memory < LEAST {
            let error = Error::config(format!("memory: {} is too little", self.memory));
            return Err(error.hint(format!("give it {LEAST} or more")));
        }
        let ranges =
            [("batch_rows", self.batch_rows, 1 << 16), ("parts", self.parts, 1024), ("threads", self.threads(), 64)];
        for (key, value, most) in ranges {
            if value == 0 || value > most {
                return Err(Error::config(format!("{key}: {value} is not between 1 and {most}")));
            }
        }
        Ok(())
    }

    /// How many parts are worked on side by side.
    pub(crate) fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from).min(8))
    }
    /// The memory, as a number of this machine.
    pub(crate) fn memory(&self) -> usize {
        usize::try_from(self.memory.0).unwrap_or(usize::MAX)
    }
    /// Rows per batch inside the query: fewer in little memory, where every sort and merge holds several batches.
    pub(crate) fn batch(&self) -> usize {
        self.batch_rows.min((self.memory() / (32 << 10)).max(256))
    }
    /// The folder in which a query's own folder is made.
    pub(crate) fn spill(&self) -> PathBuf {
        self.spill.clone().unwrap_or_else(std::env::temp_dir)
    }
}
