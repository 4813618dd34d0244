//! The one text of each value: for encoders, and for hashes that must not change when a column gets a type.
//!
//! Text as it is; numbers in decimal (`1`, `1.5`, a decimal with all its places `1.50`); `true`, `false`; `2026-01-31`;
//! `2026-01-31T05:00:00.25` with as many digits as there are, in UTC with `Z` where the column
//! has a zone.

use std::{fmt, sync::Arc};

use arrow_array::{Array, ArrayRef, StringArray, cast::AsArray};
use arrow_buffer::NullBuffer;
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::DataType;
use towpath_core::{Error, Result};

/// The values of a column as text.
pub(crate) struct Texts {
    values: ArrayRef,
    nulls: Option<NullBuffer>,
}

/// The same, ready to be written.
pub(crate) enum Writer<'a> {
    Text(&'a StringArray),
    Other(ArrayFormatter<'a>),
}

/// Where a formatter writes to, so that no value needs a `String` of its own.
struct Bytes<'a>(&'a mut Vec<u8>);

impl fmt::Write for Bytes<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

impl Texts {
    pub(crate) fn new(column: &ArrayRef) -> Result<Self> {
        let values = match column.data_type() {
            // A moment has one text, whatever zone it is shown in; and the formatter knows offsets only.
            DataType::Timestamp(unit, Some(_)) => {
                let to = DataType::Timestamp(*unit, Some(Arc::from("+00:00")));
                arrow_cast::cast(column, &to).map_err(|error| Error::internal("cannot read a column").because(error))?
            }
            DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(..) => {
                let to = DataType::Utf8;
                arrow_cast::cast(column, &to).unwrap_or_else(|_| Arc::clone(column))
            }
            _ => Arc::clone(column),
        };
        Ok(Self { nulls: values.logical_nulls(), values })
    }

    pub(crate) fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    pub(crate) fn writer(&self) -> Result<Writer<'_>> {
        if let Some(text) = self.values.as_string_opt() {
            return Ok(Writer::Text(text));
        }
        static OPTIONS: FormatOptions<'static> = FormatOptions::new();
        let formatter = ArrayFormatter::try_new(&self.values, &OPTIONS);
        formatter.map(Writer::Other).map_err(|error| Error::unsupported("a column has no text").because(error))
    }
}

impl Writer<'_> {
    /// Appends the value of a row that is not null.
    pub(crate) fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<()> {
        match self {
            Self::Text(text) => out.extend_from_slice(text.value(row).as_bytes()),
            Self::Other(formatter) => {
                let written = formatter.value(row).write(&mut Bytes(out));
                written
                    .map_err(|error| Error::data(format!("row {row} holds a value without a text")).because(error))?;
            }
        }
        Ok(())
    }
}
