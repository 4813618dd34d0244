//! What the config file says of a CSV source or sink. These comments are the only documentation of the fields.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towpath_core::{Error, Result, WriteMode};
use towpath_formats::csv::CsvOptions;
use towpath_http::{HttpOptions, Url};

/// Options of the `csv` source: files by `path`, or by `url`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceOptions {
    /// Files on this machine: a path or a list; `*`, `?`, `[a-z]` and `**` match as in a shell. Matches are read in the order of their
    /// names, the list in its own. Either this or `url`.
    #[serde(default)]
    pub path: OneOrMany,
    /// Files on a server: an http or https URL or a list. Either this or `path`.
    #[serde(default)]
    pub url: OneOrMany,
    /// What to read: `all` files in each run, or only those that have `changed` since the last one (by ETag, Last-Modified and length, or
    /// modification time and size). Default: all
    #[serde(default)]
    pub read: Read,
    /// How the files are compressed: `auto` (by their first bytes, or the name's `.br`), `none`, `gzip`, `brotli` or `zstd`. What a server
    /// compresses for the way (Content-Encoding) is undone in any case. Default: auto
    #[serde(default)]
    pub compression: Compression,
    /// Add a column `_source` with the path or URL of each row's file. Default: false
    #[serde(default)]
    pub source_column: bool,
    /// How many files are fetched at once, at most; the guard may allow less. Rows come in the order of the list all the same; what
    /// comes ahead waits in a few MiB of memory. Default: 2
    #[serde(default = "two")]
    pub concurrency: u32,
    /// How the files are written: delimiter, quotes, header, encoding, columns.
    #[serde(flatten)]
    pub csv: CsvOptions,
    /// How to speak with the server.
    #[serde(flatten)]
    pub http: HttpOptions,
}

/// Options of the `csv` sink.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SinkOptions {
    /// The file. Its folder must be there.
    pub path: PathBuf,
    /// How rows are written: `csv`, or `jsonl` (a JSON object in each line). Default: csv
    #[serde(default)]
    pub format: Format,
    /// How rows meet what is already there: `replace` (the file changes at once, when the run is complete) or `append`. Default: replace
    #[serde(default = "replace")]
    pub write: WriteMode,
    /// The character between fields; one ASCII character, or `tab`. Default: ,
    #[serde(default)]
    pub delimiter: Option<String>,
}

/// A value or a list of them.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One.
    One(String),
    /// Some.
    Many(Vec<String>),
    /// None.
    #[default]
    #[schemars(skip)]
    None,
}

/// Which files to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Read {
    /// All, in each run.
    #[default]
    All,
    /// Those that have changed since the last run.
    Changed,
}

/// How files are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// By their first bytes, or the name's `.br`.
    #[default]
    Auto,
    /// Not.
    None,
    /// RFC 1952, several members too.
    Gzip,
    /// RFC 7932.
    Brotli,
    /// RFC 8878, several frames too.
    Zstd,
}

/// How rows are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Comma-separated values with a header.
    #[default]
    Csv,
    /// A JSON object in each line.
    Jsonl,
}

fn two() -> u32 {
    2
}
fn replace() -> WriteMode {
    WriteMode::Replace
}

impl OneOrMany {
    /// All of them.
    pub fn all(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
            Self::None => &[],
        }
    }
}

impl SourceOptions {
    /// Finds what does not go together.
    ///
    /// # Errors
    /// Config.
    pub fn check(&self) -> Result<()> {
        match (self.path.all(), self.url.all()) {
            ([], []) => return Err(Error::config("neither `path` nor `url` names a file").hint("add one of them")),
            ([], _) | (_, []) => {}
            _ => return Err(Error::config("both `path` and `url` are set").hint("make two sources of it")),
        }
        if self.path.all().iter().any(String::is_empty) {
            return Err(Error::config("path: an empty path"));
        }
        if !(1..=64).contains(&self.concurrency) {
            return Err(Error::config("concurrency: must be between 1 and 64"));
        }
        self.urls().map(drop)
    }

    /// The URLs.
    ///
    /// # Errors
    /// Config. The URL is not shown: it may hold a secret.
    pub fn urls(&self) -> Result<Vec<Url>> {
        let parse = |(at, text): (usize, &String)| {
            let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
            url.ok_or_else(|| {
                let number =
                    if self.url.all().len() > 1 { format!(" (number {} of the list)", at + 1) } else { String::new() };
                Error::config(format!("url: not an http or https URL{number}"))
                    .hint("write https://server/file.csv, or `path` for a file on this machine")
            })
        };
        self.url.all().iter().enumerate().map(parse).collect()
    }
}

impl SinkOptions {
    /// Finds what does not go together.
    ///
    /// # Errors
    /// Config.
    pub fn check(&self) -> Result<()> {
        if self.path.file_name().is_none() {
            return Err(Error::config("path: must name a file"));
        }
        if !matches!(self.write, WriteMode::Append | WriteMode::Replace) {
            return Err(Error::config(format!("write: a file has no keys, so {} is not possible", self.write.name()))
                .hint("write `replace` or `append`, or use a sink with a table, such as sqlite"));
        }
        if self.format == Format::Jsonl && self.delimiter.is_some() {
            return Err(Error::config("delimiter: JSON lines have none").hint("leave it out"));
        }
        self.delimiter_byte().map(drop)
    }

    /// The character between fields.
    ///
    /// # Errors
    /// Config.
    pub fn delimiter_byte(&self) -> Result<u8> {
        match self.delimiter.as_deref() {
            None => Ok(b','),
            Some("tab" | "\\t") => Ok(b'\t'),
            Some(text) => match text.as_bytes() {
                [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\r' | b'\n') => Ok(*byte),
                _ => Err(Error::config(format!("delimiter: '{text}' is not one ASCII character"))),
            },
        }
    }
}
