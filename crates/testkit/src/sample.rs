//! A CSV file to measure and test with: a production log, the same bytes for the same number of rows.
//!
//! A million rows are about 107 MB: UTF-8 with a byte order mark, CRLF, twelve columns, a timestamp with milliseconds, two floats, text that
//! is quoted because of commas and quotes now and then. [`BAD`] rows of each kind stand at known places in [`sample_csv_with_bad_rows`]; rows
//! that are good CSV and that a database refuses, of each kind of [`REFUSED`], in [`sample_csv_with_refused_rows`].

use std::{
    io::{self, Write},
    ops::Range,
};

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

/// Why a table with the constraints named here refuses a row of [`sample_csv_with_refused_rows`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No `Temperature`, which must not be null.
    Null,
    /// A `Torque` of 99.999, where a CHECK allows less than 50.
    Check,
    /// The `Line` L99, which no other table has.
    ForeignKey,
    /// An `Operator` of 20 characters, where there is place for 10.
    Length,
    /// A `Torque` with two points.
    Conversion,
    /// An `OrderNo` of 11 digits, where there is place for 10.
    Overflow,
    /// The `SerialNo` of the row before, where it is unique.
    Key,
}

/// Every kind, in the order in which they come.
pub const REFUSED: [Refused; 7] = [
    Refused::Null,
    Refused::Check,
    Refused::ForeignKey,
    Refused::Length,
    Refused::Conversion,
    Refused::Overflow,
    Refused::Key,
];

/// Why row `row` (from 0) is refused where every `every`th row is.
pub fn refused_at(row: u64, every: u64) -> Option<Refused> {
    in_turn(&REFUSED, row, every)
}

/// Every kind, in the order in which they come.
pub const BAD: [Bad; 6] = [Bad::Short, Bad::Long, Bad::BehindQuote, Bad::OpenQuote, Bad::Byte, Bad::Value];

/// What is wrong with row `row` (from 0) where every `every`th row is bad.
pub fn bad_at(row: u64, every: u64) -> Option<Bad> {
    in_turn(&BAD, row, every)
}

/// The kinds, one after the other, at every `every`th row.
fn in_turn<T: Copy>(kinds: &[T], row: u64, every: u64) -> Option<T> {
    let nth = (row + 1).checked_div(every).filter(|_| (row + 1).is_multiple_of(every))?;
    kinds.get(usize::try_from((nth - 1) % kinds.len() as u64).ok()?).copied()
}

/// Writes the sample.
///
/// # Errors
/// What `out` says.
pub fn sample_csv(rows: u64, out: &mut impl Write) -> io::Result<()> {
    write(0..rows, |_| Spoiled::Not, out)
}

/// Writes the sample with every `every`th row spoiled, in turn by each of [`BAD`]; [`bad_at`] tells which. `every` is at least 2, so
/// that a good row follows each.
///
/// # Errors
/// What `out` says.
pub fn sample_csv_with_bad_rows(rows: u64, every: u64, out: &mut impl Write) -> io::Result<()> {
    let every = every.max(2);
    write(0..rows, |row| bad_at(row, every).map_or(Spoiled::Not, Spoiled::Bad), out)
}

/// Writes some rows of the endless sample, which a row's number alone makes what it is; every `every`th of them one that a database refuses, in turn
/// by each of [`REFUSED`], as [`refused_at`] tells; 0 for none.
///
/// # Errors
/// What `out` says.
pub fn sample_csv_with_refused_rows(rows: Range<u64>, every: u64, out: &mut impl Write) -> io::Result<()> {
    write(rows, |row| refused_at(row, every).map_or(Spoiled::Not, Spoiled::Refused), out)
}

/// What is done to a row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spoiled {
    Not,
    Bad(Bad),
    Refused(Refused),
}

fn write(rows: Range<u64>, spoiled: impl Fn(u64) -> Spoiled, out: &mut impl Write) -> io::Result<()> {
    let mut text = Vec::with_capacity(72 << 10);
    write!(text, "\u{feff}{HEADER}\r\n")?;
    for row in rows {
        one(row, spoiled(row), &mut text)?;
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

fn one(row: u64, spoiled: Spoiled, out: &mut Vec<u8>) -> io::Result<()> {
    let is = |kind| spoiled == Spoiled::Refused(kind);
    let some = mixed(row);
    let pick = |shift: u32, of: u64| (some >> shift) % of;
    // Eight rows a second from the new year on.
    let (seconds, millis) = (row / 8, row % 8 * 125);
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    // Months of 28 days, all of which there are.
    let (year, month, day) = (2026 + day / 336, day / 28 % 12 + 1, day % 28 + 1);
    write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}")?;
    let line = if is(Refused::ForeignKey) { "L99" } else { LINES[pick(0, 4) as usize] };
    let order = if is(Refused::Overflow) { 99_999_999_999 } else { 4_500_000_000 + row / 400 };
    write!(out, ",{line},ST{:02},{order},", pick(4, 24))?;
    out.extend_from_slice(COMPONENTS[pick(12, 8) as usize].as_bytes());
    let serial = if is(Refused::Key) { row.saturating_sub(1) } else { row };
    let long = if is(Refused::Length) { " and a trainee" } else { "" };
    write!(out, ",SN{:09},op{:04}{long}", serial * 7919 % 1_000_000_000, pick(16, 300))?;
    let result = if pick(28, 40) == 0 { "NOK" } else { "OK" };
    write!(out, ",{},{result}", SHIFTS[(hour / 8) as usize % 3])?;
    let torque = pick(34, 9000) + 500;
    match spoiled {
        Spoiled::Bad(Bad::Value) | Spoiled::Refused(Refused::Conversion) => {
            write!(out, ",{}..{:03}", torque / 1000, torque % 1000)?;
        }
        Spoiled::Refused(Refused::Check) => write!(out, ",99.999")?,
        _ => write!(out, ",{}.{:03}", torque / 1000, torque % 1000)?,
    }
    let temperature = pick(44, 400) + 180;
    if is(Refused::Null) {
        write!(out, ",")?;
    } else {
        write!(out, ",{}.{}", temperature / 10, temperature % 10)?;
    }
    let remark = REMARKS[pick(54, 8) as usize];
    match spoiled {
        Spoiled::Bad(Bad::Short) => {}
        Spoiled::Bad(Bad::Long) => write!(out, ",{remark},one too many")?,
        Spoiled::Bad(Bad::BehindQuote) => write!(out, ",\"as said\" before")?,
        Spoiled::Bad(Bad::OpenQuote) => write!(out, ",\"never closed")?,
        Spoiled::Bad(Bad::Byte) => out.extend_from_slice(b",Pr\xfcfung"),
        Spoiled::Bad(Bad::Value) | Spoiled::Refused(_) | Spoiled::Not => write!(out, ",{remark}")?,
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
    fn a_row_is_the_same_wherever_the_sample_is_cut() {
        let lines = |rows: Range<u64>, every| {
            let mut out = vec![];
            sample_csv_with_refused_rows(rows, every, &mut out).unwrap();
            out.split(|byte| *byte == b'\n').skip(1).map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        let (whole, part, spoiled) = (lines(0..100, 0), lines(60..100, 0), lines(0..100, 10));
        assert_eq!(whole[60..], part[..]);
        for (row, (good, spoiled)) in whole.iter().zip(&spoiled).take(100).enumerate() {
            assert_eq!(good != spoiled, refused_at(row as u64, 10).is_some(), "row {row}");
        }
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
