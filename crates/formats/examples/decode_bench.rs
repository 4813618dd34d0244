//! How fast a CSV file is decoded on one core, beside csv-core alone in the same run:
//! `cargo run --release -p towpath-formats --example decode_bench -- FILE`
//!
//! The file is read into memory first, and goes in by pieces of 64 KiB. Each way is taken in turn; the quickest of each counts.
#![allow(clippy::print_stdout, reason = "figures are what it is for")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use bytes::Bytes;
use towpath_core::{Error, Result};
use towpath_formats::{
    columns::{ColumnType, Columns, propose},
    csv::{CsvDecoder, CsvEncoder, CsvOptions},
    row_hash::row_hashes,
};

const TIMES: usize = 7;

fn main() -> Result<()> {
    let usage = || Error::config("usage: decode_bench FILE");
    let path = std::env::args_os().nth(1).ok_or_else(usage)?;
    let file =
        Bytes::from(std::fs::read(path).map_err(|error| Error::not_found("cannot read the file").because(error))?);
    let text = CsvOptions::default();
    let typed = CsvOptions { columns: types(&file)?, ..text.clone() };
    let floats = typed.columns.iter().filter(|(_, of)| **of == ColumnType::Float64).count();
    let hashed = |rows: &arrow_array::RecordBatch| row_hashes(rows, None).map(|all| drop(black_box(all)));
    let ways: [(&str, &dyn Fn() -> Result<usize>); 6] = [
        ("csv-core alone", &|| Ok(csv_core_alone(&file))),
        ("text columns", &|| decode(&text, &file, |_| Ok(()))),
        (&format!("timestamps and {floats} floats"), &|| decode(&typed, &file, |_| Ok(()))),
        ("text columns and row hashes", &|| decode(&text, &file, hashed)),
        ("typed columns and row hashes", &|| decode(&typed, &file, hashed)),
        ("text columns, encoded again", &|| {
            let (encoder, mut out) = (CsvEncoder::new(&text)?, vec![]);
            decode(&text, &file, |rows| {
                out.clear();
                encoder.encode(rows, &mut out)
            })
        }),
    ];
    let mut best = [Duration::MAX; 6];
    let mut records = [0; 6];
    for _ in 0..TIMES {
        for (at, (_, way)) in ways.iter().enumerate() {
            let start = Instant::now();
            records[at] = way()?;
            best[at] = best[at].min(start.elapsed());
        }
    }
    let rate = |time: Duration| file.len() as f64 / time.as_secs_f64() / 1e6;
    println!("{:.0} MB in pieces of 64 KiB, one core, the quickest of {TIMES}", file.len() as f64 / 1e6);
    println!("| decode | records | MB/s | to csv-core |\n|---|---|---|---|");
    for ((name, _), (time, records)) in ways.iter().zip(best.into_iter().zip(records)) {
        println!("| {name} | {records} | {:.0} | {:.2}× |", rate(time), rate(time) / rate(best[0]));
    }
    Ok(())
}

/// Timestamps and floats as the first rows have them; the rest stays text.
fn types(file: &Bytes) -> Result<Columns> {
    let head = file.slice(..file.len().min(1 << 20));
    let mut decoder = CsvDecoder::new(&CsvOptions::default())?;
    decoder.push(head);
    let mut samples = vec![];
    while let Some(decoded) = decoder.next()? {
        samples.push(decoded.rows);
    }
    let proposed = propose(&samples);
    let typed = proposed.iter().filter(|(_, of)| matches!(of, ColumnType::Float64 | ColumnType::Timestamp { .. }));
    Columns::new(typed.map(|(name, of)| (name.to_owned(), of.clone()))).map_err(Error::config)
}

fn decode(
    options: &CsvOptions,
    file: &Bytes,
    mut each: impl FnMut(&arrow_array::RecordBatch) -> Result<()>,
) -> Result<usize> {
    let mut decoder = CsvDecoder::new(options)?;
    let mut records = 0;
    for from in (0..file.len()).step_by(64 << 10) {
        decoder.push(file.slice(from..file.len().min(from + (64 << 10))));
        while let Some(decoded) = decoder.next()? {
            records += decoded.rows.num_rows() + decoded.rejects.len();
            each(&decoded.rows)?;
            black_box(decoded);
        }
    }
    while let Some(decoded) = decoder.finish()? {
        records += decoded.rows.num_rows() + decoded.rejects.len();
        each(&decoded.rows)?;
        black_box(decoded);
    }
    Ok(records)
}

/// Fields copied out, into nothing.
fn csv_core_alone(mut input: &[u8]) -> usize {
    let mut reader = csv_core::Reader::new();
    let (mut output, mut ends) = (vec![0; 1 << 20], vec![0; 1024]);
    let mut records = 0;
    loop {
        let (result, read, _, _) = reader.read_record(input, &mut output, &mut ends);
        input = &input[read..];
        match result {
            csv_core::ReadRecordResult::Record => records += 1,
            csv_core::ReadRecordResult::End => return records - 1,
            _ => {}
        }
    }
}
