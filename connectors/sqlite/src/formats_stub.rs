//! Stands in for `towpath_formats::{columns::cast_to, row_hash}`, which are not there yet: casts nothing, and hashes otherwise than they will.
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use towpath_core::{Reject, Result};
pub(crate) fn cast_to(rows: &RecordBatch, _schema: &SchemaRef) -> Result<(RecordBatch, Vec<Reject>)> {
    Ok((rows.clone(), vec![]))
}
pub(crate) fn keyed_by(schema: &SchemaRef) -> String {
    format!("{schema}")
}
pub(crate) fn row_hashes(rows: &RecordBatch, columns: Option<&[usize]>) -> Result<Vec<u128>> {
    use arrow_array::{Array, cast::AsArray};
    let mut buf = vec![];
    Ok((0..rows.num_rows())
        .map(|row| {
            buf.clear();
            for (at, column) in rows.columns().iter().enumerate() {
                if columns.is_some_and(|columns| !columns.contains(&at)) || column.is_null(row) {
                    continue;
                }
                if let Some(text) = column.as_string_opt::<i32>() {
                    buf.extend_from_slice(text.value(row).as_bytes());
                } else if let Some(number) = column.as_primitive_opt::<arrow_array::types::Int64Type>() {
                    buf.extend_from_slice(&number.value(row).to_le_bytes());
                } else if let Some(number) = column.as_primitive_opt::<arrow_array::types::Float64Type>() {
                    buf.extend_from_slice(&number.value(row).to_le_bytes());
                } else if let Ok(text) = arrow_cast::display::array_value_to_string(column, row) {
                    buf.extend_from_slice(text.as_bytes());
                }
                buf.push(at as u8);
                buf.push(0);
            }
            xxhash_rust::xxh3::xxh3_128(&buf)
        })
        .collect())
}
