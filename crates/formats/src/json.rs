//! JSON lines: an object in each line.

use arrow_array::{Array, ArrayRef, RecordBatch, cast::AsArray, types::Float64Type};
use arrow_schema::DataType;
use towpath_core::{Error, Result};

use crate::text::Texts;

/// Writes JSON lines: keys in the schema's order, NULL as `null`, whole numbers, finite floats, decimals and truths as what they are in
/// JSON, the rest as strings with the text that CSV has too. A decimal keeps its places (`1.50`).
#[derive(Clone, Copy, Debug, Default)]
pub struct JsonLines;

impl JsonLines {
    /// There is nothing to set.
    pub fn new() -> Self {
        Self
    }

    /// Appends the rows to `out`.
    ///
    /// # Errors
    /// Unsupported: a type without a text.
    pub fn encode(&self, rows: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        let texts = rows.columns().iter().map(Texts::new).collect::<Result<Vec<_>>>()?;
        let writers = texts.iter().map(Texts::writer).collect::<Result<Vec<_>>>()?;
        let schema = rows.schema();
        let keys = schema.fields().iter().map(|field| string(field.name())).collect::<Result<Vec<_>>>()?;
        let mut text = vec![];
        for row in 0..rows.num_rows() {
            out.push(b'{');
            for (at, (key, column)) in keys.iter().zip(rows.columns()).enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(key);
                out.push(b':');
                if texts[at].is_null(row) {
                    out.extend_from_slice(b"null");
                } else if is_plain(column, row) {
                    writers[at].write(row, out)?;
                } else {
                    text.clear();
                    writers[at].write(row, &mut text)?;
                    out.extend_from_slice(&string(&String::from_utf8_lossy(&text))?);
                }
            }
            out.extend_from_slice(b"}\n");
        }
        Ok(())
    }
}

fn string(text: &str) -> Result<Vec<u8>> {
    serde_json::to_vec(text).map_err(|error| Error::internal("cannot write JSON").because(error))
}

/// Whether the text of the value is JSON as it stands.
fn is_plain(column: &ArrayRef, row: usize) -> bool {
    match column.data_type() {
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).is_finite(),
        DataType::Float32 => column.as_primitive::<arrow_array::types::Float32Type>().value(row).is_finite(),
        of => of.is_integer() || matches!(of, DataType::Boolean | DataType::Decimal128(..) | DataType::Decimal256(..)),
    }
}
