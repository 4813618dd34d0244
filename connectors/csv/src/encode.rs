//! Rows to bytes, and the columns that a file has already.

use std::{fs::File, io::Read as _, path::Path};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use towpath_core::{Error, Result};
use towpath_formats::{
    csv::{CsvEncoder, CsvOptions},
    json::JsonLines,
};

use crate::{
    config::{Format, SinkOptions},
    listing::io_error,
    reader::schema_of,
};

/// The longest header that is looked for.
const HEADER: u64 = 16 * 1024 * 1024;

/// One of the formats.
pub(crate) enum Encoder {
    Csv(CsvEncoder),
    Json(JsonLines),
}

impl Encoder {
    pub(crate) fn new(options: &SinkOptions) -> Result<Self> {
        Ok(match options.format {
            Format::Csv => Self::Csv(CsvEncoder::new(&csv(options)?)?),
            Format::Jsonl => Self::Json(JsonLines::new()),
        })
    }
    pub(crate) fn is_json(&self) -> bool {
        matches!(self, Self::Json(_))
    }
    pub(crate) fn header(&mut self, schema: &SchemaRef, out: &mut Vec<u8>) -> Result<()> {
        match self {
            Self::Csv(encoder) => encoder.header(schema, out),
            Self::Json(_) => Ok(()),
        }
    }
    pub(crate) fn rows(&mut self, rows: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        match self {
            Self::Csv(encoder) => encoder.encode(rows, out),
            Self::Json(encoder) => encoder.encode(rows, out),
        }
    }
}

fn csv(options: &SinkOptions) -> Result<CsvOptions> {
    let _ = options.delimiter_byte()?;
    Ok(CsvOptions { delimiter: options.delimiter.clone(), ..CsvOptions::default() })
}

/// The columns of a file that is there; `None` if it is not there or empty.
pub(crate) fn header_of(path: &Path, options: &SinkOptions) -> Result<Option<Vec<String>>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("read the header of the file", path, error)),
    };
    let mut head = Vec::new();
    let mut wanted = 64 * 1024;
    loop {
        let read = (&mut file)
            .take(wanted)
            .read_to_end(&mut head)
            .map_err(|error| io_error("read the header of the file", path, error))?;
        if head.is_empty() {
            return Ok(None);
        }
        if head.starts_with(&[0xff, 0xfe]) || head.starts_with(&[0xfe, 0xff]) {
            return Err(Error::unsupported("the file is UTF-16, and rows are written in UTF-8")
                .at(path.display().to_string())
                .hint("append to a file in UTF-8, or `replace` it"));
        }
        let complete = (read as u64) < wanted;
        let schema = schema_of(&csv(options)?, head.clone().into(), complete)
            .map_err(|error| error.at(path.display().to_string()))?;
        match schema {
            Some(schema) => return Ok(Some(schema.fields().iter().map(|field| field.name().clone()).collect())),
            None if complete || head.len() as u64 > HEADER => {
                return Err(Error::data("its header cannot be read").at(path.display().to_string()));
            }
            None => wanted *= 4,
        }
    }
}
