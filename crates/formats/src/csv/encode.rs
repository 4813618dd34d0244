//! Batches become delimited text.

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use towpath_core::{Error, Result};

use super::{CsvOptions, Encoding, Header, options::Dialect};
use crate::text::Texts;

/// Writes delimited text in UTF-8, lines ended by LF. Fields are quoted where they must be, and nowhere else: where they hold a
/// delimiter, a quote or a line end, and where a text is empty or would be read as NULL.
///
/// NULL is the first of `nulls`, else nothing at all; an empty text is `""`. Whether a reader tells the two apart is the reader's
/// affair: [`CsvDecoder`](super::CsvDecoder) does not.
#[derive(Clone, Debug)]
pub struct CsvEncoder {
    dialect: Dialect,
    nulls: Vec<String>,
    names: bool,
}

impl CsvEncoder {
    /// By the same options as a decoder; `columns` and `max_record` mean nothing here.
    ///
    /// # Errors
    /// Config: characters that contradict each other. Unsupported: another encoding than UTF-8.
    pub fn new(options: &CsvOptions) -> Result<Self> {
        if !matches!(options.encoding, Encoding::Auto | Encoding::Utf8) {
            return Err(Error::unsupported("CSV is written in UTF-8 only").hint("leave `encoding` out"));
        }
        let names = options.header != Header::None;
        Ok(Self { dialect: options.dialect()?, nulls: options.nulls.clone(), names })
    }

    /// Appends the header to `out`, unless the options say that there is none.
    ///
    /// # Errors
    /// Unsupported: a name that needs quotes where there are none.
    pub fn header(&self, schema: &SchemaRef, out: &mut Vec<u8>) -> Result<()> {
        if !self.names {
            return Ok(());
        }
        for (at, field) in schema.fields().iter().enumerate() {
            if at > 0 {
                out.push(self.dialect.delimiter);
            }
            let start = out.len();
            out.extend_from_slice(field.name().as_bytes());
            self.quote(out, start, field.name().is_empty())?;
        }
        out.push(b'\n');
        Ok(())
    }

    /// Appends the rows to `out`.
    ///
    /// # Errors
    /// Unsupported: a type without a text, or a value that needs quotes where there are none.
    pub fn encode(&self, rows: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        let texts = rows.columns().iter().map(Texts::new).collect::<Result<Vec<_>>>()?;
        let columns = texts.iter().map(|texts| Ok((texts, texts.writer()?))).collect::<Result<Vec<_>>>()?;
        let null = self.nulls.first().map_or("", String::as_str);
        for row in 0..rows.num_rows() {
            for (at, (texts, writer)) in columns.iter().enumerate() {
                if at > 0 {
                    out.push(self.dialect.delimiter);
                }
                let start = out.len();
                if texts.is_null(row) {
                    out.extend_from_slice(null.as_bytes());
                    // A line without anything is no record.
                    self.quote(out, start, columns.len() == 1 && null.is_empty())?;
                    continue;
                }
                writer.write(row, out)?;
                let value = out.get(start..).unwrap_or_default();
                let must = value.is_empty() || self.nulls.iter().any(|null| null.as_bytes() == value);
                self.quote(out, start, must)?;
            }
            out.push(b'\n');
        }
        Ok(())
    }

    /// Puts quotes around what stands from `start` on, if it must have them.
    fn quote(&self, out: &mut Vec<u8>, start: usize, must: bool) -> Result<()> {
        let Dialect { delimiter, quote, escape, .. } = self.dialect;
        let value = out.get(start..).unwrap_or_default();
        let special = |byte: &u8| *byte == delimiter || Some(*byte) == quote || matches!(byte, b'\n' | b'\r');
        let has = value.iter().any(special);
        if !has && !must {
            return Ok(());
        }
        let Some(quote) = quote else {
            if value.iter().any(|byte| *byte == delimiter || matches!(byte, b'\n' | b'\r')) {
                return Err(Error::unsupported("a value holds a delimiter or a line end, and there are no quotes")
                    .hint("set `quote`, or another `delimiter`"));
            }
            return Ok(());
        };
        let value = out.split_off(start);
        out.reserve(value.len() + 2);
        out.push(quote);
        for byte in value {
            if byte == quote {
                out.push(quote);
            } else if Some(byte) == escape {
                out.push(byte);
            }
            out.push(byte);
        }
        out.push(quote);
        Ok(())
    }
}
