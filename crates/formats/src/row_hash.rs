//! The hash of a row, for rows without a key.
//!
//! Version 1 is xxh3-128, seed 0, over these bytes: for each column that is not NULL, in the order of the names' bytes, the length
//! of the name as four bytes, low first, the name, the length of the value in the same way, and the value's
//! text. So a column that is NULL everywhere changes nothing, NULL is not the empty text, and a typed column hashes like text
//! where the text is the canonical one (see the table in the crate's tests): hash before casting, and the type of a
//! column can change without a row becoming new.

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use towpath_core::{Error, Result};
use xxhash_rust::xxh3::xxh3_128;

use crate::text::{self, Texts, Writer};

/// What hashes of rows of this schema are made of: the version and the columns. Two that differ do not compare.
pub fn keyed_by(schema: &SchemaRef) -> String {
    let mut names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    names.sort_unstable();
    format!("row_hash 1 of {}", serde_json::json!(names))
}

/// The hash of each row, over all columns or over those at `columns`.
///
/// # Errors
/// Unsupported: a type without a text. Internal: a column that is not there.
pub fn row_hashes(rows: &RecordBatch, columns: Option<&[usize]>) -> Result<Vec<u128>> {
    let schema = rows.schema();
    let mut at: Vec<usize> = columns.map_or_else(|| (0..rows.num_columns()).collect(), <[usize]>::to_vec);
    if at.iter().any(|at| *at >= rows.num_columns()) {
        return Err(Error::internal("a row's hash was asked for a column that is not there"));
    }
    at.sort_by_key(|at| schema.field(*at).name());
    let texts = at.iter().map(|at| Texts::new(rows.column(*at))).collect::<Result<Vec<_>>>()?;
    let mut parts: Vec<(Vec<u8>, usize, &Texts, Writer<'_>)> = vec![];
    for (at, texts) in at.iter().zip(&texts) {
        let name = schema.field(*at).name().as_bytes();
        // The name as it stands before each value, with room for the value's length.
        let mut prefix = [&length(name.len())?, name, &[0; LENGTH]].concat();
        let len = prefix.len();
        // So that it is copied as something short.
        prefix.resize(len.max(text::SHORT), 0);
        parts.push((prefix, len, texts, texts.writer()?));
    }
    let mut bytes = vec![];
    let mut hashes = Vec::with_capacity(rows.num_rows());
    for row in 0..rows.num_rows() {
        bytes.clear();
        for (prefix, len, texts, writer) in &parts {
            if texts.is_null(row) {
                continue;
            }
            text::append(prefix, 0, *len, &mut bytes);
            let start = bytes.len();
            writer.write(row, &mut bytes)?;
            let len = length(bytes.len() - start)?;
            if let Some(to) = bytes.get_mut(start - LENGTH..start) {
                to.copy_from_slice(&len);
            }
        }
        hashes.push(xxh3_128(&bytes));
    }
    Ok(hashes)
}

/// Bytes of a length.
const LENGTH: usize = 4;

fn length(len: usize) -> Result<[u8; LENGTH]> {
    let len = u32::try_from(len).map_err(|_| Error::unsupported("a value is longer than 4 GiB"))?;
    Ok(len.to_le_bytes())
}
