//! Options from text, decoding in any pieces, and a text of what came out.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure in a test is the message")]

use std::fmt::Write as _;

use arrow_array::{Array, RecordBatch};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use bytes::Bytes;
use towpath_core::{Original, Reject, Result, RowPosition};
use towpath_formats::csv::{CsvDecoder, CsvOptions, Decoded};

pub fn options(yaml: &str) -> CsvOptions {
    serde_saphyr::from_str(yaml).unwrap()
}

pub fn decode<'a>(options: &CsvOptions, pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Decoded>> {
    drain(CsvDecoder::new(options)?, pieces)
}

pub fn drain<'a>(mut decoder: CsvDecoder, pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Decoded>> {
    let mut all = vec![];
    for piece in pieces {
        decoder.push(Bytes::copy_from_slice(piece));
        while let Some(decoded) = decoder.next()? {
            all.push(decoded);
        }
    }
    while let Some(decoded) = decoder.finish()? {
        all.push(decoded);
    }
    Ok(all)
}

/// The values of a row, types by their looks.
#[allow(dead_code, reason = "not every test shows rows")]
pub fn row(rows: &RecordBatch, row: usize) -> String {
    let options = FormatOptions::new();
    let schema = rows.schema();
    let value = |column: &dyn Array| {
        if column.is_null(row) {
            return "∅".to_owned();
        }
        let column = match column.data_type() {
            arrow_schema::DataType::Timestamp(unit, Some(_)) => {
                let to = arrow_schema::DataType::Timestamp(*unit, Some("+00:00".into()));
                arrow_cast::cast(column, &to).unwrap()
            }
            _ => arrow_array::make_array(column.to_data()),
        };
        let text = ArrayFormatter::try_new(&column, &options).unwrap().value(row).to_string();
        if column.data_type() == &arrow_schema::DataType::Utf8 { format!("{text:?}") } else { text }
    };
    let fields = schema.fields().iter().zip(rows.columns());
    let fields: Vec<_> =
        fields.map(|(field, column)| format!("{}: {}", field.name(), value(column.as_ref()))).collect();
    format!("{{ {} }}", fields.join(", "))
}

#[allow(dead_code, reason = "not every test shows rejects")]
pub fn place(RowPosition { record, line, byte }: RowPosition) -> String {
    format!("{record}/{line}/{byte}")
}

#[allow(dead_code, reason = "not every test shows rejects")]
pub fn reject(reject: &Reject) -> String {
    let Original::Bytes(bytes) = &reject.row else { panic!("a decoder has no rows to point to") };
    let place = place(reject.position.unwrap());
    let column = reject.column.as_ref().map(|column| format!(" [{column}]")).unwrap_or_default();
    format!("✗ {place}{column} {}: {}", reject.reason, bytes.escape_ascii())
}

/// Rows, rejects, and from where to where (record/line/byte); or the error.
#[allow(dead_code, reason = "not every test shows batches")]
pub fn show(decoded: Result<Vec<Decoded>>) -> String {
    let mut out = String::new();
    match decoded {
        Err(error) => writeln!(out, "error: {error}; {}", error.what_to_do().unwrap_or("")).unwrap(),
        Ok(all) if all.is_empty() => out.push_str("nothing\n"),
        Ok(all) => {
            for Decoded { rows, rejects, first, end } in all {
                (0..rows.num_rows()).for_each(|at| writeln!(out, "{}", row(&rows, at)).unwrap());
                rejects.iter().for_each(|one| writeln!(out, "{}", reject(one)).unwrap());
                writeln!(out, "from {} to {}", place(first), place(end)).unwrap();
            }
        }
    }
    out
}
