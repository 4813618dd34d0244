//! What the files offer: their columns, by a sample of their beginnings.

use std::collections::BTreeSet;

use arrow_array::RecordBatch;
use serde_json::json;
use towpath_core::{Error, Result, source::Discovery};
use towpath_formats::{
    columns::{self, Columns},
    csv::{CsvDecoder, CsvOptions},
};

use crate::{listing::Item, reader::Reader};

/// How much of each file is read.
const SAMPLE: u64 = 1024 * 1024;
/// How many files are looked at.
const FILES: usize = 20;

/// Samples the beginnings of the first files and proposes their columns' types.
pub(crate) async fn discover(reader: &Reader, items: &[Item]) -> Result<Discovery> {
    let csv = CsvOptions { columns: Columns::default(), ..(*reader.csv).clone() };
    let (mut samples, mut files, mut lines) = (Vec::new(), Vec::new(), Vec::new());
    for item in items.iter().take(FILES) {
        let place = |error: Error| error.at(item.location.to_string());
        let (head, complete, _) = reader.head(item, SAMPLE).await.map_err(place)?;
        let (rows, rejected) = decode(&csv, head, complete).map_err(place)?;
        let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
        let all = if complete { "" } else { "the first " };
        let bad = if rejected > 0 { format!(", {rejected} of them bad") } else { String::new() };
        lines.push(format!("# {}: {all}{} records{bad}\n", item.location, count + rejected));
        files.push(
            json!({ "file": item.location.to_string(), "records": count, "rejected": rejected, "complete": complete }),
        );
        samples.extend(rows);
    }
    if items.len() > FILES {
        lines.push(format!("# and {} files more\n", items.len() - FILES));
    }
    let names = |rows: &RecordBatch| -> BTreeSet<String> {
        rows.schema().fields().iter().map(|field| field.name().clone()).collect()
    };
    let same = samples.iter().all(|rows| samples.first().is_some_and(|first| names(first) == names(rows)));
    if !same {
        return Err(Error::data("the files have different columns")
            .hint("read files of different columns by different sources"));
    }
    let proposed = columns::propose(&samples);
    let text = format!("{}{}", lines.concat(), proposed.to_yaml());
    Ok(Discovery {
        text,
        items: json!({ "files": files, "columns": serde_json::to_value(&proposed).unwrap_or_default() }),
    })
}

/// The rows of a file's beginning, and how many were rejected.
fn decode(csv: &CsvOptions, mut head: bytes::Bytes, complete: bool) -> Result<(Vec<RecordBatch>, usize)> {
    if !complete {
        // The last line is likely to be a part of one.
        let end = head.iter().rposition(|byte| *byte == b'\n').map_or(head.len(), |at| at + 1);
        head.truncate(end);
    }
    let mut decoder = CsvDecoder::new(csv)?;
    let (mut rows, mut rejected) = (Vec::new(), 0);
    decoder.push(head);
    while let Some(decoded) = decoder.next()? {
        rejected += decoded.rejects.len();
        rows.push(decoded.rows);
    }
    while let Some(decoded) = decoder.finish()? {
        rejected += decoded.rejects.len();
        rows.push(decoded.rows);
    }
    Ok((rows, rejected))
}
