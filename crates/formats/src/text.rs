//! The one text of each value: for encoders, and for hashes that must not change when a column gets a type.
//!
//! Text as it is; numbers in decimal (`1`, `1.5`, a decimal with all its places `1.50`); `true`, `false`; `2026-01-31`;
//! `2026-01-31T05:00:00.250` with none, three, six or nine digits behind the point, as few as do, in UTC with `Z` where the column
//! has a zone.

use std::{fmt, sync::Arc};

use arrow_array::{
    Array, ArrayRef, StringArray,
    cast::AsArray,
    types::{
        Float64Type, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
    },
};
use arrow_buffer::NullBuffer;
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{DataType, TimeUnit};
use jiff::{Timestamp, tz::Offset};
use towpath_core::{Error, Result};

/// The values of a column as text.
pub(crate) struct Texts {
    values: ArrayRef,
    nulls: Option<NullBuffer>,
}

/// The same, ready to be written.
pub(crate) enum Writer<'a> {
    Text(&'a StringArray),
    Typed(Typed<'a>),
}

/// What is no text yet.
pub(crate) enum Typed<'a> {
    Floats(&'a [f64]),
    Moments(Moments<'a>),
    Other(ArrayFormatter<'a>),
}

/// Moments are frequent, and take the formatter long.
pub(crate) struct Moments<'a> {
    values: &'a [i64],
    unit: TimeUnit,
    zoned: bool,
    /// For years that have not four digits.
    other: ArrayFormatter<'a>,
}

/// Where a formatter writes to, so that no value needs a `String` of its own.
struct Bytes<'a>(&'a mut Vec<u8>);

impl fmt::Write for Bytes<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

impl Texts {
    pub(crate) fn new(column: &ArrayRef) -> Result<Self> {
        let values = match column.data_type() {
            // A moment has one text, whatever zone it is shown in; and the formatter knows offsets only.
            DataType::Timestamp(unit, Some(_)) => {
                let to = DataType::Timestamp(*unit, Some(Arc::from("+00:00")));
                arrow_cast::cast(column, &to).map_err(|error| Error::internal("cannot read a column").because(error))?
            }
            DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(..) => {
                let to = DataType::Utf8;
                arrow_cast::cast(column, &to).unwrap_or_else(|_| Arc::clone(column))
            }
            _ => Arc::clone(column),
        };
        Ok(Self { nulls: values.logical_nulls(), values })
    }

    pub(crate) fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    pub(crate) fn writer(&self) -> Result<Writer<'_>> {
        if let Some(text) = self.values.as_string_opt() {
            return Ok(Writer::Text(text));
        }
        if let Some(floats) = self.values.as_primitive_opt::<Float64Type>() {
            return Ok(Writer::Typed(Typed::Floats(floats.values())));
        }
        static OPTIONS: FormatOptions<'static> = FormatOptions::new();
        let other = ArrayFormatter::try_new(&self.values, &OPTIONS)
            .map_err(|error| Error::unsupported("a column has no text").because(error))?;
        let DataType::Timestamp(unit, zone) = self.values.data_type() else {
            return Ok(Writer::Typed(Typed::Other(other)));
        };
        let (unit, zoned) = (*unit, zone.is_some());
        let values = match unit {
            TimeUnit::Second => self.values.as_primitive::<TimestampSecondType>().values(),
            TimeUnit::Millisecond => self.values.as_primitive::<TimestampMillisecondType>().values(),
            TimeUnit::Microsecond => self.values.as_primitive::<TimestampMicrosecondType>().values(),
            TimeUnit::Nanosecond => self.values.as_primitive::<TimestampNanosecondType>().values(),
        };
        Ok(Writer::Typed(Typed::Moments(Moments { values, unit, zoned, other })))
    }
}

impl Writer<'_> {
    /// Appends the value of a row that is not null.
    #[inline]
    pub(crate) fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<()> {
        match self {
            Self::Text(text) => {
                let (from, to) = (text.value_offsets().get(row), text.value_offsets().get(row + 1));
                if let (Some(from), Some(to)) = (from, to) {
                    append(text.value_data(), *from as usize, *to as usize, out);
                }
                Ok(())
            }
            Self::Typed(typed) => typed.write(row, out),
        }
    }
}

impl Typed<'_> {
    fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<()> {
        let formatter = match self {
            Self::Floats(floats) => {
                let value = floats.get(row).copied().unwrap_or(f64::NAN);
                let mut buffer = zmij::Buffer::new();
                let text = buffer.format(value).as_bytes();
                // The formatter, which writes the shorter floats, has no plus before an exponent.
                let plus = text.iter().position(|byte| *byte == b'+').unwrap_or(text.len());
                out.extend_from_slice(&text[..plus]);
                out.extend_from_slice(text.get(plus + 1..).unwrap_or_default());
                return Ok(());
            }
            Self::Moments(moments) if moments.write(row, out) => return Ok(()),
            Self::Moments(moments) => &moments.other,
            Self::Other(formatter) => formatter,
        };
        let written = formatter.value(row).write(&mut Bytes(out));
        written.map_err(|error| Error::data(format!("row {row} holds a value without a text")).because(error))?;
        Ok(())
    }
}

/// A copy of so many bytes is made without a call.
pub(crate) const SHORT: usize = 32;

/// Appends the bytes from `from` to `to`. Most values are short, and then as many as `SHORT` are copied, and those behind `to` taken back.
pub(crate) fn append(all: &[u8], from: usize, to: usize, out: &mut Vec<u8>) {
    let short =
        if to.saturating_sub(from) <= SHORT { all.get(from..).and_then(<[u8]>::first_chunk::<SHORT>) } else { None };
    match short {
        Some(short) => {
            let end = out.len() + to.saturating_sub(from);
            out.extend_from_slice(short);
            out.truncate(end);
        }
        None => out.extend_from_slice(all.get(from..to).unwrap_or_default()),
    }
}

impl Moments<'_> {
    /// As the formatter writes it, or not at all.
    fn write(&self, row: usize, out: &mut Vec<u8>) -> bool {
        let Some(&value) = self.values.get(row) else { return false };
        let per_second: i64 = match self.unit {
            TimeUnit::Second => 1,
            TimeUnit::Millisecond => 1_000,
            TimeUnit::Microsecond => 1_000_000,
            TimeUnit::Nanosecond => 1_000_000_000,
        };
        let (seconds, rest) = (value.div_euclid(per_second), value.rem_euclid(per_second));
        let nanos = (rest * (1_000_000_000 / per_second)) as i32;
        let Ok(moment) = Timestamp::new(seconds, nanos) else { return false };
        let shown = Offset::UTC.to_datetime(moment);
        let Some(year) = u32::try_from(shown.year()).ok() else { return false };
        let mut text = *b"0000-00-00T00:00:00.000000000";
        let parts = [shown.month(), shown.day(), shown.hour(), shown.minute(), shown.second()];
        let nanos = nanos.unsigned_abs();
        digits(year, &mut text[..4]);
        for (part, to) in parts.into_iter().zip(text[5..19].chunks_mut(3)) {
            digits(part.unsigned_abs().into(), &mut to[..2]);
        }
        digits(nanos, &mut text[20..]);
        let len = match nanos {
            0 => 19,
            _ if nanos.is_multiple_of(1_000_000) => 23,
            _ if nanos.is_multiple_of(1_000) => 26,
            _ => 29,
        };
        out.extend_from_slice(&text[..len]);
        if self.zoned {
            out.push(b'Z');
        }
        true
    }
}

/// A number in as many decimal places as there are.
fn digits(mut number: u32, to: &mut [u8]) {
    for place in to.iter_mut().rev() {
        *place = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::{
        Float64Array, PrimitiveArray, TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray,
        TimestampSecondArray, types::ArrowTimestampType,
    };
    use proptest::prelude::*;

    use super::*;

    /// Ours are as the formatter's.
    fn check(array: ArrayRef) {
        let formatter = ArrayFormatter::try_new(&array, &FormatOptions::new()).unwrap();
        let texts = Texts::new(&array).unwrap();
        let writer = texts.writer().unwrap();
        for row in 0..array.len() {
            let mut out = vec![];
            match formatter.value(row).try_to_string() {
                Ok(expected) => {
                    writer.write(row, &mut out).unwrap();
                    assert_eq!(String::from_utf8(out).unwrap(), expected);
                }
                Err(_) => assert!(writer.write(row, &mut out).is_err()),
            }
        }
    }

    fn moments<T: ArrowTimestampType>(array: PrimitiveArray<T>) {
        check(Arc::new(array.clone()));
        check(Arc::new(array.with_timezone("+00:00")));
    }

    fn floats(values: Vec<f64>) {
        check(Arc::new(Float64Array::from(values)));
    }

    #[test]
    fn special_floats_are_written_as_the_formatter_does() {
        floats(vec![
            0.0,
            -0.0,
            1.0,
            1e15,
            1e16,
            1e17,
            1e-5,
            1e-7,
            f64::NAN,
            f64::INFINITY,
            f64::MIN,
            f64::MIN_POSITIVE,
        ]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..Default::default() })]

        #[test]
        fn floats_are_written_as_the_formatter_does(any in any::<f64>(), near in -1e20..1e20, places in -1_000_000i32..1_000_000) {
            floats(vec![any, near, f64::from(places) / 1000.0, f64::from_bits(any.to_bits() ^ 1)]);
        }

        #[test]
        fn moments_are_written_as_the_formatter_does(value in any::<i64>(), near in -62_200_000_000i64..253_500_000_000, part in 0i64..1000) {
            moments(TimestampSecondArray::from(vec![value, near]));
            moments(TimestampMillisecondArray::from(vec![value, near * 1_000, near * 1_000 + part]));
            moments(TimestampMicrosecondArray::from(vec![value, near * 1_000_000 + part, near * 1_000_000 + part * 1_000]));
            moments(TimestampNanosecondArray::from(vec![value, near % 9_000_000_000 * 1_000_000_000 + part]));
        }
    }
}
