//! Stands in for the decoder of the formats crate until that is there: no types, no rejects, quotes only in the simplest sense.
#![allow(dead_code, reason = "it goes as soon as the decoder is there")]

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use towpath_core::{Error, Reject, Result, RowPosition};

/// How to read CSV.
#[derive(Clone, Debug, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct CsvOptions {
    /// What stands between two fields. Default: a comma
    delimiter: Option<String>,
}

pub struct CsvDecoder {
    delimiter: char,
    buffer: Vec<u8>,
    schema: Option<SchemaRef>,
    records: u64,
}

pub struct Decoded {
    pub rows: RecordBatch,
    pub rejects: Vec<Reject>,
    pub first: RowPosition,
    pub end: RowPosition,
}

impl CsvDecoder {
    pub fn new(options: &CsvOptions) -> Result<Self> {
        let delimiter = options.delimiter.as_ref().and_then(|text| text.chars().next()).unwrap_or(',');
        Ok(Self { delimiter, buffer: vec![], schema: None, records: 0 })
    }
    pub fn push(&mut self, chunk: Bytes) {
        self.buffer.extend_from_slice(&chunk);
    }
    pub fn schema(&self) -> Option<SchemaRef> {
        self.schema.clone()
    }
    pub fn next(&mut self) -> Result<Option<Decoded>> {
        match self.buffer.iter().rposition(|byte| *byte == b'\n').filter(|_| self.buffer.len() >= 65_536) {
            Some(end) => {
                let text = self.buffer.drain(..=end).collect::<Vec<_>>();
                self.decode(&text)
            }
            None => Ok(None),
        }
    }
    pub fn finish(&mut self) -> Result<Option<Decoded>> {
        if self.buffer.is_empty() {
            return if self.schema.is_some() { Ok(None) } else { Err(Error::data("the header is missing")) };
        }
        let text = std::mem::take(&mut self.buffer);
        self.decode(&text)
    }
    fn fields(&self, line: &str) -> Vec<String> {
        let (mut quoted, mut field, mut fields) = (false, String::new(), vec![]);
        for c in line.chars() {
            if c == '"' {
                quoted = !quoted;
            } else if c == self.delimiter && !quoted {
                fields.push(std::mem::take(&mut field));
            } else {
                field.push(c);
            }
        }
        fields.push(field);
        fields
    }
    fn decode(&mut self, text: &[u8]) -> Result<Option<Decoded>> {
        let text = String::from_utf8_lossy(text);
        let mut lines = text.trim_start_matches('\u{feff}').lines();
        if self.schema.is_none() {
            let names = self.fields(lines.next().unwrap_or_default());
            let fields = names.into_iter().map(|name| Field::new(name, DataType::Utf8, true)).collect::<Vec<_>>();
            self.schema = Some(Arc::new(Schema::new(fields)));
        }
        let Some(schema) = self.schema.clone() else { return Ok(None) };
        let mut columns = vec![Vec::new(); schema.fields().len()];
        let mut count = 0;
        for line in lines {
            let fields = self.fields(line);
            for (at, column) in columns.iter_mut().enumerate() {
                column.push(fields.get(at).cloned().unwrap_or_default());
            }
            count += 1;
        }
        if count == 0 {
            return Ok(None);
        }
        let first = RowPosition { record: self.records + 1, line: 0, byte: 0 };
        self.records += count;
        let columns = columns.into_iter().map(|column| Arc::new(StringArray::from(column)) as ArrayRef).collect();
        let rows = RecordBatch::try_new(schema, columns).map_err(|error| Error::internal("a batch").because(error))?;
        let end = RowPosition { record: self.records + 1, line: 0, byte: 0 };
        Ok(Some(Decoded { rows, rejects: vec![], first, end }))
    }
}
