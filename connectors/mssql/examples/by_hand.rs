//! The connector's work done by hand, with the bare driver: the rival of `cargo xtask bench mssql`. The server is the one of `TOWPATH_MSSQL_URL`.
//!
//! ```text
//! by_hand ask SQL                          rows as text, a tab between cells
//! by_hand bulk FILE HEAP [hash]            reads the sample CSV from disk and bulk-loads it, in one request; with the hash of each line
//! by_hand insert_new FILE HEAP TARGET      the same with the hash, then one INSERT … SELECT … WHERE NOT EXISTS by `row_hash`
//! by_hand append FILE HEAP TARGET          the same without the hash, then one INSERT … SELECT
//! by_hand read TABLE                       reads every row and counts them
//! ```
//! It knows the twelve columns of the sample and nothing else: no checkpoint, no rejected row, no second try. The last line says how long each phase
//! took, as JSON.
#![allow(clippy::print_stdout, reason = "figures are what it is for")]

use std::{borrow::Cow, fs::File, io::BufRead, time::Instant};

use csv_core::{ReadRecordResult, Reader};
use futures::TryStreamExt as _;
use tiberius::{
    ColumnData, QueryItem, SqlBulkCopyOption, TokenRow,
    time::{Date, DateTime2, Time},
};
use towpath_connector_mssql::console::{Console, Driver, driver};
use xxhash_rust::xxh3::xxh3_128;

type Fallible<T = ()> = Result<T, Box<dyn std::error::Error>>;

const PACKET: u32 = 16384;
/// As the sample has them; the first is a time, Torque and Temperature are floats.
const COLUMNS: [&str; 13] = [
    "Timestamp",
    "Line",
    "Station",
    "OrderNo",
    "Component",
    "SerialNo",
    "Operator",
    "Shift",
    "Result",
    "Torque",
    "Temperature",
    "Remark",
    "row_hash",
];
const USAGE: &str = "usage: by_hand ask SQL | bulk FILE HEAP [hash] | insert_new FILE HEAP TARGET | append FILE HEAP TARGET | read TABLE";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Fallible {
    let url = std::env::var("TOWPATH_MSSQL_URL").map_err(|_| "TOWPATH_MSSQL_URL is not set")?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["ask", sql] => {
            for row in Console::new(&url)?.ask(sql).await? {
                println!("{}", row.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>().join("\t"));
            }
        }
        ["bulk", file, heap, ref hash @ ..] => {
            let began = Instant::now();
            let rows = bulk(&mut driver(&url, Some(PACKET)).await?, file, heap, hash == ["hash"]).await?;
            println!("{{\"rows\": {rows}, \"bulk\": {:.3}}}", began.elapsed().as_secs_f64());
        }
        [mode @ ("insert_new" | "append"), file, heap, target] => {
            let new = mode == "insert_new";
            let mut driver = driver(&url, Some(PACKET)).await?;
            let began = Instant::now();
            let rows = bulk(&mut driver, file, heap, new).await?;
            let (bulk, began) = (began.elapsed(), Instant::now());
            let names = COLUMNS[..if new { 13 } else { 12 }].iter().map(|name| format!("[{name}]"));
            let names = names.collect::<Vec<_>>().join(", ");
            let mut sql = format!("INSERT INTO {target} ({names}) SELECT {names} FROM {heap} AS s");
            if new {
                sql += &format!(" WHERE NOT EXISTS (SELECT 1 FROM {target} AS t WHERE t.row_hash = s.row_hash)");
            }
            driver.simple_query(sql).await?.into_results().await?;
            let (bulk, insert) = (bulk.as_secs_f64(), began.elapsed().as_secs_f64());
            println!("{{\"rows\": {rows}, \"bulk\": {bulk:.3}, \"insert\": {insert:.3}}}");
        }
        ["read", table] => {
            let began = Instant::now();
            let rows = read(&mut driver(&url, Some(PACKET)).await?, table).await?;
            println!("{{\"rows\": {rows}, \"read\": {:.3}}}", began.elapsed().as_secs_f64());
        }
        _ => return Err(USAGE.into()),
    }
    Ok(())
}

async fn read(driver: &mut Driver, table: &str) -> Fallible<u64> {
    let mut rows = 0;
    let mut stream = driver.simple_query(format!("SELECT * FROM {table}")).await?;
    while let Some(item) = stream.try_next().await? {
        rows += u64::from(matches!(item, QueryItem::Row(_)));
    }
    Ok(rows)
}

async fn bulk(driver: &mut Driver, file: &str, heap: &str, hash: bool) -> Fallible<u64> {
    let columns = &COLUMNS[..if hash { 13 } else { 12 }];
    let mut request = driver.bulk_insert_with_options(heap, columns, SqlBulkCopyOption::TableLock.into(), &[]).await?;
    let mut file = std::io::BufReader::with_capacity(1 << 20, File::open(file)?);
    if file.fill_buf()?.starts_with(b"\xef\xbb\xbf") {
        file.consume(3);
    }
    let (mut reader, mut fields, mut ends) = (Reader::new(), vec![0; 1 << 16], [0; 16]);
    let (mut rows, mut filled, mut ended) = (0, 0, 0);
    loop {
        let input = file.fill_buf()?;
        let (result, read, written, done) = reader.read_record(input, &mut fields[filled..], &mut ends[ended..]);
        file.consume(read);
        (filled, ended) = (filled + written, ended + done);
        match result {
            ReadRecordResult::InputEmpty => {}
            ReadRecordResult::Record => {
                if rows > 0 {
                    request.send(row(&fields[..filled], &ends[..ended], hash)?).await?;
                }
                (rows, filled, ended) = (rows + 1, 0, 0);
            }
            ReadRecordResult::End => break,
            ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                return Err("a record is too long".into());
            }
        }
    }
    request.finalize().await?;
    Ok(rows - 1)
}

fn row(record: &[u8], ends: &[usize], hash: bool) -> Fallible<TokenRow<'static>> {
    let mut row = TokenRow::with_capacity(13);
    let mut start = 0;
    for (column, end) in ends.iter().enumerate() {
        let text = std::str::from_utf8(&record[start..*end])?;
        start = *end;
        row.push(match column {
            0 => ColumnData::DateTime2(Some(moment(text)?)),
            9 | 10 => ColumnData::F64(Some(text.parse()?)),
            _ => ColumnData::String(Some(Cow::Owned(text.to_owned()))),
        });
    }
    if hash {
        row.push(ColumnData::Binary(Some(Cow::Owned(xxh3_128(record).to_be_bytes().to_vec()))));
    }
    Ok(row)
}

/// `2026-01-01T00:00:00.125`.
fn moment(text: &str) -> Fallible<DateTime2> {
    let number = |from: usize, to: usize| text.get(from..to).and_then(|digits| digits.parse::<u64>().ok());
    let parts = (number(0, 4), number(5, 7), number(8, 10), number(11, 13), number(14, 16), number(17, 19));
    let (Some(year), Some(month), Some(day), Some(hour), Some(minute), Some(second)) = parts else {
        return Err(format!("no time: {text}").into());
    };
    let millis = number(20, 23).unwrap_or_default();
    // Days of the proleptic calendar; a year begins in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 307;
    let ticks = (((hour * 60 + minute) * 60 + second) * 1000 + millis) * 10_000;
    Ok(DateTime2::new(Date::new(u32::try_from(days)?), Time::new(ticks, 7)))
}
