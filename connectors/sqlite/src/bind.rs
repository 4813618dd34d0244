//! Arrow → SQLite: a column's cells bound to a statement, without an allocation per cell.

use std::fmt::Write as _;

use arrow_array::{
    Array, BinaryArray, BinaryViewArray, BooleanArray, Date32Array, Date64Array, Decimal128Array, Decimal256Array,
    FixedSizeBinaryArray, Float32Array, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, LargeBinaryArray,
    LargeStringArray, RecordBatch, StringArray, StringViewArray, Time32MillisecondArray, Time32SecondArray,
    Time64MicrosecondArray, Time64NanosecondArray, TimestampMicrosecondArray, TimestampMillisecondArray,
    TimestampNanosecondArray, TimestampSecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use arrow_buffer::NullBuffer;
use arrow_schema::{DataType, TimeUnit};
use rusqlite::{
    Statement,
    types::{Null, ToSqlOutput, ValueRef},
};
use towpath_core::{Error, Result};

use crate::table::Kind;

/// A column, made ready to be bound.
pub(crate) struct Bound<'a> {
    /// None if no cell is null.
    nulls: Option<&'a NullBuffer>,
    cells: Cells<'a>,
}

/// Space to write a cell down, and the day that was written last: rows of a log share it.
pub(crate) struct Scratch {
    text: String,
    day: i64,
    date: String,
}

impl Scratch {
    /// Nothing written yet.
    pub(crate) fn new() -> Self {
        Self { text: String::new(), day: i64::MIN, date: String::new() }
    }

    /// Writes a date behind what is there.
    fn date(&mut self, day: i64) -> Result<(), Unfit> {
        if self.day != day {
            self.date.clear();
            self.day = i64::MIN;
            date(&mut self.date, day)?;
            self.day = day;
        }
        self.text.push_str(&self.date);
        Ok(())
    }

    /// Writes `2026-01-31 23:59:59.5`, and `Z` behind it if it is a moment in UTC: the form of SQLite's own date functions.
    fn moment(&mut self, value: i64, per_second: i64, zoned: bool) -> Result<(), Unfit> {
        let day = 86_400 * per_second;
        self.date(value.div_euclid(day))?;
        self.text.push(' ');
        time(&mut self.text, value.rem_euclid(day), per_second);
        if zoned {
            self.text.push('Z');
        }
        Ok(())
    }
}

impl<'a> Bound<'a> {
    /// All columns of a batch, to be bound to columns of these kinds.
    pub(crate) fn all(rows: &'a RecordBatch, kinds: &[Kind]) -> Result<Vec<Self>> {
        let schema = rows.schema_ref();
        let cells = rows.columns().iter().zip(kinds).zip(schema.fields());
        cells
            .map(|((column, kind), field)| {
                let nulls = column.nulls().filter(|nulls| nulls.null_count() > 0);
                Ok(Self { nulls, cells: Cells::new(column.as_ref(), *kind, field.name())? })
            })
            .collect()
    }

    /// Binds the cell of a row to parameter `at` (from 1).
    pub(crate) fn bind(
        &self,
        to: &mut Statement<'_>,
        at: usize,
        row: usize,
        scratch: &mut Scratch,
    ) -> Result<(), Unfit> {
        if self.nulls.is_some_and(|nulls| nulls.is_null(row)) {
            return Ok(to.raw_bind_parameter(at, Null)?);
        }
        self.cells.bind(to, at, row, scratch)
    }
}

/// The cells of a column, its type found out once per batch.
enum Cells<'a> {
    Null,
    Bool(&'a BooleanArray),
    /// The same into a text column: `true` and `false`.
    BoolText(&'a BooleanArray),
    I8(&'a Int8Array),
    I16(&'a Int16Array),
    I32(&'a Int32Array),
    I64(&'a Int64Array),
    U8(&'a UInt8Array),
    U16(&'a UInt16Array),
    U32(&'a UInt32Array),
    U64(&'a UInt64Array),
    /// The same into a text column, which holds all of them.
    U64Text(&'a UInt64Array),
    F32(&'a Float32Array),
    F64(&'a Float64Array),
    Text(&'a StringArray),
    LargeText(&'a LargeStringArray),
    TextView(&'a StringViewArray),
    /// Text into a BLOB column: its bytes.
    TextBytes(&'a StringArray),
    Binary(&'a BinaryArray),
    LargeBinary(&'a LargeBinaryArray),
    BinaryView(&'a BinaryViewArray),
    Fixed(&'a FixedSizeBinaryArray),
    D128(&'a Decimal128Array),
    D256(&'a Decimal256Array),
    Date(&'a Date32Array),
    DateMillis(&'a Date64Array),
    Seconds(&'a TimestampSecondArray, bool),
    Millis(&'a TimestampMillisecondArray, bool),
    Micros(&'a TimestampMicrosecondArray, bool),
    Nanos(&'a TimestampNanosecondArray, bool),
    TimeSeconds(&'a Time32SecondArray),
    TimeMillis(&'a Time32MillisecondArray),
    TimeMicros(&'a Time64MicrosecondArray),
    TimeNanos(&'a Time64NanosecondArray),
}

/// Why a cell has no place in SQLite.
pub(crate) enum Unfit {
    /// The value cannot be written down.
    Value(String),
    /// The statement failed.
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Unfit {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl<'a> Cells<'a> {
    fn new(column: &'a dyn Array, kind: Kind, name: &str) -> Result<Self> {
        use DataType as T;
        fn down<A: 'static>(column: &dyn Array) -> Option<&A> {
            column.as_any().downcast_ref()
        }
        let zoned = matches!(column.data_type(), T::Timestamp(_, Some(_)));
        let cells = match column.data_type() {
            T::Null => Some(Self::Null),
            T::Boolean if kind == Kind::Text => down(column).map(Self::BoolText),
            T::Boolean => down(column).map(Self::Bool),
            T::Int8 => down(column).map(Self::I8),
            T::Int16 => down(column).map(Self::I16),
            T::Int32 => down(column).map(Self::I32),
            T::Int64 => down(column).map(Self::I64),
            T::UInt8 => down(column).map(Self::U8),
            T::UInt16 => down(column).map(Self::U16),
            T::UInt32 => down(column).map(Self::U32),
            T::UInt64 if kind == Kind::Text => down(column).map(Self::U64Text),
            T::UInt64 => down(column).map(Self::U64),
            T::Float32 => down(column).map(Self::F32),
            T::Float64 => down(column).map(Self::F64),
            T::Utf8 if kind == Kind::Blob => down(column).map(Self::TextBytes),
            T::Utf8 => down(column).map(Self::Text),
            T::LargeUtf8 => down(column).map(Self::LargeText),
            T::Utf8View => down(column).map(Self::TextView),
            T::Binary => down(column).map(Self::Binary),
            T::LargeBinary => down(column).map(Self::LargeBinary),
            T::BinaryView => down(column).map(Self::BinaryView),
            T::FixedSizeBinary(_) => down(column).map(Self::Fixed),
            T::Decimal128(..) => down(column).map(Self::D128),
            T::Decimal256(..) => down(column).map(Self::D256),
            T::Date32 => down(column).map(Self::Date),
            T::Date64 => down(column).map(Self::DateMillis),
            T::Timestamp(TimeUnit::Second, _) => down(column).map(|cells| Self::Seconds(cells, zoned)),
            T::Timestamp(TimeUnit::Millisecond, _) => down(column).map(|cells| Self::Millis(cells, zoned)),
            T::Timestamp(TimeUnit::Microsecond, _) => down(column).map(|cells| Self::Micros(cells, zoned)),
            T::Timestamp(TimeUnit::Nanosecond, _) => down(column).map(|cells| Self::Nanos(cells, zoned)),
            T::Time32(TimeUnit::Second) => down(column).map(Self::TimeSeconds),
            T::Time32(TimeUnit::Millisecond) => down(column).map(Self::TimeMillis),
            T::Time64(TimeUnit::Microsecond) => down(column).map(Self::TimeMicros),
            T::Time64(TimeUnit::Nanosecond) => down(column).map(Self::TimeNanos),
            _ => None,
        };
        cells.ok_or_else(|| {
            Error::config(format!("column {name}: SQLite has no type for {}", column.data_type()))
                .hint("make it text in a transform before the sink")
        })
    }

    fn bind(&self, to: &mut Statement<'_>, at: usize, row: usize, scratch: &mut Scratch) -> Result<(), Unfit> {
        scratch.text.clear();
        let text = &mut scratch.text;
        match self {
            Self::Null => return Ok(to.raw_bind_parameter(at, Null)?),
            Self::Bool(cells) => return Ok(to.raw_bind_parameter(at, i64::from(cells.value(row)))?),
            Self::BoolText(cells) => text.push_str(if cells.value(row) { "true" } else { "false" }),
            Self::I8(cells) => return Ok(to.raw_bind_parameter(at, cells.value(row))?),
            Self::I16(cells) => return Ok(to.raw_bind_parameter(at, cells.value(row))?),
            Self::I32(cells) => return Ok(to.raw_bind_parameter(at, cells.value(row))?),
            Self::I64(cells) => return Ok(to.raw_bind_parameter(at, cells.value(row))?),
            Self::U8(cells) => return Ok(to.raw_bind_parameter(at, cells.value(row))?),
            Self::U16(cells) => return Ok(to.raw_bind_parameter(at, cells.value(row))?),
            Self::U32(cells) => return Ok(to.raw_bind_parameter(at, cells.value(row))?),
            Self::U64(cells) => {
                let value = i64::try_from(cells.value(row)).map_err(|_| {
                    Unfit::Value(format!("{} is beyond SQLite's integers, which end at {}", cells.value(row), i64::MAX))
                })?;
                return Ok(to.raw_bind_parameter(at, value)?);
            }
            Self::U64Text(cells) => put(text, cells.value(row)),
            Self::F32(cells) => return real(to, at, f64::from(cells.value(row))),
            Self::F64(cells) => return real(to, at, cells.value(row)),
            Self::Text(cells) => return Ok(to.raw_bind_parameter(at, cells.value(row))?),
            Self::LargeText(cells) => return Ok(to.raw_bind_parameter(at, cells.value(row))?),
            Self::TextView(cells) => return Ok(to.raw_bind_parameter(at, cells.value(row))?),
            Self::TextBytes(cells) => return blob(to, at, cells.value(row).as_bytes()),
            Self::Binary(cells) => return blob(to, at, cells.value(row)),
            Self::LargeBinary(cells) => return blob(to, at, cells.value(row)),
            Self::BinaryView(cells) => return blob(to, at, cells.value(row)),
            Self::Fixed(cells) => return blob(to, at, cells.value(row)),
            Self::D128(cells) => text.push_str(&cells.value_as_string(row)),
            Self::D256(cells) => text.push_str(&cells.value_as_string(row)),
            Self::Date(cells) => scratch.date(i64::from(cells.value(row)))?,
            Self::DateMillis(cells) => scratch.date(cells.value(row).div_euclid(86_400_000))?,
            Self::Seconds(cells, zoned) => scratch.moment(cells.value(row), 1, *zoned)?,
            Self::Millis(cells, zoned) => scratch.moment(cells.value(row), 1_000, *zoned)?,
            Self::Micros(cells, zoned) => scratch.moment(cells.value(row), 1_000_000, *zoned)?,
            Self::Nanos(cells, zoned) => scratch.moment(cells.value(row), 1_000_000_000, *zoned)?,
            Self::TimeSeconds(cells) => time(text, i64::from(cells.value(row)), 1),
            Self::TimeMillis(cells) => time(text, i64::from(cells.value(row)), 1_000),
            Self::TimeMicros(cells) => time(text, cells.value(row), 1_000_000),
            Self::TimeNanos(cells) => time(text, cells.value(row), 1_000_000_000),
        }
        Ok(to.raw_bind_parameter(at, scratch.text.as_str())?)
    }
}

fn put(text: &mut String, value: impl std::fmt::Display) {
    // Writing to a String cannot fail.
    let _ = write!(text, "{value}");
}

fn blob(to: &mut Statement<'_>, at: usize, bytes: &[u8]) -> Result<(), Unfit> {
    Ok(to.raw_bind_parameter(at, ToSqlOutput::Borrowed(ValueRef::Blob(bytes)))?)
}

/// SQLite would store NULL for what is not a number, without a word.
fn real(to: &mut Statement<'_>, at: usize, value: f64) -> Result<(), Unfit> {
    if value.is_nan() {
        return Err(Unfit::Value("NaN has no place in SQLite, which would make it null".to_owned()));
    }
    Ok(to.raw_bind_parameter(at, value)?)
}

fn digits<const N: usize>(text: &mut String, mut value: u32) {
    let mut out = [b'0'; N];
    for digit in out.iter_mut().rev() {
        *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
    }
    // Digits are UTF-8; character by character it takes three times as long.
    text.push_str(std::str::from_utf8(&out).unwrap_or_default());
}

/// `2026-01-31`, of days since 1970.
fn date(text: &mut String, days: i64) -> Result<(), Unfit> {
    // Shifted so that the year begins in March and leap days come last (Hinnant's days_from_civil, backwards).
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    // Beyond, dates as text would not sort, and SQLite's own functions do not read them.
    if !(0..=9999).contains(&year) {
        return Err(Unfit::Value(format!("the year {year} has no place in SQLite, which ends at 0000 and 9999")));
    }
    let part = |value: i64| u32::try_from(value).unwrap_or(0);
    digits::<4>(text, part(year));
    text.push('-');
    digits::<2>(text, part(month));
    text.push('-');
    digits::<2>(text, part(day));
    Ok(())
}

/// `23:59:59`, with as much of a fraction as there is.
fn time(text: &mut String, value: i64, per_second: i64) {
    let (seconds, fraction) = (value.div_euclid(per_second), value.rem_euclid(per_second));
    let part = |value: i64| u32::try_from(value).unwrap_or(0);
    digits::<2>(text, part(seconds / 3600));
    text.push(':');
    digits::<2>(text, part(seconds / 60 % 60));
    text.push(':');
    digits::<2>(text, part(seconds % 60));
    if fraction != 0 {
        text.push('.');
        digits::<9>(text, part(fraction * (1_000_000_000 / per_second)));
        text.truncate(text.trim_end_matches('0').len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_the_calendar_has_them() {
        let epoch = jiff::civil::date(1970, 1, 1);
        let first = jiff::civil::date(0, 1, 1);
        let days = |date: jiff::civil::Date| i64::from(epoch.until(date).unwrap().get_days());
        // Every day of all ten thousand years.
        let mut date_of = first;
        let mut text = String::new();
        for day in days(first)..=days(jiff::civil::date(9999, 12, 31)) {
            text.clear();
            assert!(date(&mut text, day).is_ok());
            assert_eq!(text, date_of.to_string());
            date_of = date_of.tomorrow().unwrap_or(date_of);
        }
        assert!(date(&mut text, days(first) - 1).is_err());
        assert!(date(&mut text, i64::MAX / 2_000_000).is_err());
    }

    #[test]
    fn moments_are_written_as_sqlite_does() {
        for (value, per_second, zoned, expect) in [
            (0, 1, false, "1970-01-01 00:00:00"),
            (-1, 1_000, false, "1969-12-31 23:59:59.999"),
            (1_767_225_599_500_000, 1_000_000, false, "2025-12-31 23:59:59.5"),
            (1_767_225_599_000_000_001, 1_000_000_000, true, "2025-12-31 23:59:59.000000001Z"),
        ] {
            let mut scratch = Scratch::new();
            for _ in 0..2 {
                scratch.text.clear();
                assert!(scratch.moment(value, per_second, zoned).is_ok());
                assert_eq!(scratch.text, expect);
            }
        }
    }
}
