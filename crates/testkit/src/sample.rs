//! A CSV file to measure and test with: a production log, the same bytes for the same number of rows.
//!
//! A million rows are about 107 MB: UTF-8 with a byte order mark, CRLF, twelve columns, a timestamp with milliseconds, two floats, text that
//! is quoted because of commas and quotes now and then. [`BAD`] rows of each kind stand at known places in [`sample_csv_with_bad_rows`].

use std::io::{self, Write};

/// The `columns` block that goes with the sample.
pub const COLUMNS: &str = "columns:
  Timestamp: timestamp
  Torque: float64
  Temperature: float64
";

const HEADER: &str =
    "Timestamp,Line,Station,OrderNo,Component,SerialNo,Operator,Shift,Result,Torque,Temperature,Remark";

/// The same as a list.
pub const NAMES: [&str; 12] = [
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
];

const LINES: [&str; 4] = ["L01", "L02", "L03", "L04"];
const COMPONENTS: [&str; 8] = [
    "\"Hinge, left\"",
    "\"Hinge, right\"",
    "Mainboard",
    "\"Display 14\"\"\"",
    "Battery pack",
    "Keyboard DE",
    "Bottom case",
    "Touchpad",
];
const SHIFTS: [&str; 3] = ["Early", "Late", "Night"];
const REMARKS: [&str; 8] = [
    "",
    "",
    "retightened",
    "\"second pass, same tool\"",
    "",
    "checked",
    "\"scanner said \"\"no read\"\"\"",
    "Prüfung ok",
];

/// What can be wrong with a row of [`sample_csv_with_bad_rows`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// A field too few.
    Short,
    /// A field too many.
    Long,
    /// Something behind a closing quote.
    BehindQuote,
    /// A quote that is not closed.
    OpenQuote,
    /// A byte that is not UTF-8.
    Byte,
    /// A float that is none; a row like any other without [`COLUMNS`].
    Value,
}

/// Every kind, in the order in which they come.
pub const BAD: [Bad; 6] = [Bad::Short, Bad::Long, Bad::BehindQuote, Bad::OpenQuote, Bad::Byte, Bad::Value];

/// What is wrong with row `row` (from 0) where every `every`th row is bad.
pub fn bad_at(row: u64, every: u64) -> Option<Bad> {
    let nth = (row + 1).checked_div(every).filter(|_| (row + 1).is_multiple_of(every))?;
    BAD.get(usize::try_from((nth - 1) % BAD.len() as u64).ok()?).copied()
}

/// Writes the sample.
///
/// # Errors
/// What `out` says.
pub fn sample_csv(rows: u64, out: &mut impl Write) -> io::Result<()> {
    write(rows, 0, out)
}

/// Writes the sample with every `every`th row spoiled, in turn by each of [`BAD`]; [`bad_at`] tells which. `every` is at least 2, so
/// that a good row follows each.
///
/// # Errors
/// What `out` says.
pub fn sample_csv_with_bad_rows(rows: u64, every: u64, out: &mut impl Write) -> io::Result<()> {
    write(rows, every.max(2), out)
}

fn write(rows: u64, every: u64, out: &mut impl Write) -> io::Result<()> {
    let mut text = Vec::with_capacity(72 << 10);
    write!(text, "\u{feff}{HEADER}\r\n")?;
    for row in 0..rows {
        one(row, bad_at(row, every), &mut text)?;
        if text.len() >= 64 << 10 {
            out.write_all(&text)?;
            text.clear();
        }
    }
    out.write_all(&text)?;
    out.flush()
}

/// Of no meaning, and the same each time.
fn mixed(row: u64) -> u64 {
    let mut z = row.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn one(row: u64, bad: Option<Bad>, out: &mut Vec<u8>) -> io::Result<()> {
    let some = mixed(row);
    let pick = |shift: u32, of: u64| (some >> shift) % of;
    // Eight rows a second from the new year on.
    let (seconds, millis) = (row / 8, row % 8 * 125);
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    // Months of 28 days, all of which there are.
    let (year, month, day) = (2026 + day / 336, day / 28 % 12 + 1, day % 28 + 1);
    write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}")?;
    let line = LINES[pick(0, 4) as usize];
    write!(out, ",{line},ST{:02},{},", pick(4, 24), 4_500_000_000 + row / 400)?;
    out.extend_from_slice(COMPONENTS[pick(12, 8) as usize].as_bytes());
    write!(out, ",SN{:09},op{:04}", row * 7919 % 1_000_000_000, pick(16, 300))?;
    let result = if pick(28, 40) == 0 { "NOK" } else { "OK" };
    write!(out, ",{},{result}", SHIFTS[(hour / 8) as usize % 3])?;
    let torque = pick(34, 9000) + 500;
    match bad {
        Some(Bad::Value) => write!(out, ",{}..{:03}", torque / 1000, torque % 1000)?,
        _ => write!(out, ",{}.{:03}", torque / 1000, torque % 1000)?,
    }
    let temperature = pick(44, 400) + 180;
    write!(out, ",{}.{}", temperature / 10, temperature % 10)?;
    let remark = REMARKS[pick(54, 8) as usize];
    match bad {
        Some(Bad::Short) => {}
        Some(Bad::Long) => write!(out, ",{remark},one too many")?,
        Some(Bad::BehindQuote) => write!(out, ",\"as said\" before")?,
        Some(Bad::OpenQuote) => write!(out, ",\"never closed")?,
        Some(Bad::Byte) => out.extend_from_slice(b",Pr\xfcfung"),
        Some(Bad::Value) | None => write!(out, ",{remark}")?,
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_rows_are_about_107_megabytes() {
        let mut out = vec![];
        sample_csv(10_000, &mut out).unwrap();
        let million = out.len() * 100;
        assert!((105_000_000..109_000_000).contains(&million), "{million}");
    }

    #[test]
    fn bad_rows_stand_where_they_are_said_to() {
        let (mut good, mut spoiled) = (vec![], vec![]);
        sample_csv(100, &mut good).unwrap();
        sample_csv_with_bad_rows(100, 10, &mut spoiled).unwrap();
        let lines = |bytes: &[u8]| bytes.split(|byte| *byte == b'\n').skip(1).map(<[u8]>::to_vec).collect::<Vec<_>>();
        for (row, (good, spoiled)) in lines(&good).iter().zip(lines(&spoiled)).take(100).enumerate() {
            assert_eq!(*good != spoiled, bad_at(row as u64, 10).is_some(), "row {row}");
        }
    }
}
