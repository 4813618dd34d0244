//! Arrow's values as the driver's: what a staged column takes, what it refuses, and a row of it. Pure.

use std::borrow::Cow;

use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray, Float64Array,
    Int64Array, PrimitiveArray, StringArray, Time64MicrosecondArray, Time64NanosecondArray, TimestampMicrosecondArray,
    TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray, types::ArrowPrimitiveType,
};
use arrow_schema::{DataType, TimeUnit};
use tiberius::{
    ColumnData, Uuid,
    numeric::Numeric,
    time::{Date, DateTime2, DateTimeOffset, Time},
};
use towpath_core::{Error, Result};

use crate::{moments, types::SqlType};

/// Days from 0001-01-01 to 1970-01-01.
const EPOCH: i64 = 719_162;
/// Days from 1970-01-01 to 9999-12-31.
const LAST_DAY: i64 = 2_932_896;
/// Days from 1970-01-01 to the first day of `datetime` (1753-01-01), and of `smalldatetime` (1900-01-01) to its last (2079-06-06).
const DATETIME_FIRST: i64 = -79_258;
const SMALL_FIRST: i64 = -25_567;
const SMALL_LAST: i64 = 39_968;
/// Ticks of 100 nanoseconds in a day.
const DAY: i64 = 864_000_000_000;
/// The longest value that the driver's bulk load takes, in bytes on the wire.
const LONGEST: usize = 65_535;

/// What a column must be cast to before its values can be read as [`Cells`].
pub(crate) fn cast_type(from: &DataType, staged: &SqlType) -> DataType {
    use DataType as T;
    match (staged, from) {
        (SqlType::Bit, _) => T::Boolean,
        (SqlType::TinyInt | SqlType::SmallInt | SqlType::Int | SqlType::BigInt, _) => T::Int64,
        (SqlType::Real | SqlType::Float, _) => T::Float64,
        // Text to the seventh digit; else finer than microseconds only where it comes so.
        (
            SqlType::Time(_) | SqlType::DateTime2(_) | SqlType::DateTimeOffset(_),
            T::Utf8 | T::LargeUtf8 | T::Utf8View,
        ) => T::Utf8,
        (SqlType::Time(_), T::Time64(TimeUnit::Nanosecond)) => from.clone(),
        (SqlType::DateTime2(_) | SqlType::DateTimeOffset(_), T::Timestamp(..)) => from.clone(),
        (SqlType::Binary(_), T::FixedSizeBinary(_)) => from.clone(),
        (SqlType::UniqueIdentifier, _) => T::Utf8,
        (other, _) => other.arrow(),
    }
}

/// The values of a column, as a staged column of some type reads them.
pub(crate) enum Cells<'a> {
    Bit(&'a BooleanArray),
    TinyInt(&'a Int64Array),
    SmallInt(&'a Int64Array),
    Int(&'a Int64Array),
    BigInt(&'a Int64Array),
    Real(&'a Float64Array),
    Float(&'a Float64Array),
    Decimal(&'a Decimal128Array, u8),
    Date(&'a Date32Array),
    Micros(&'a Time64MicrosecondArray),
    Nanos(&'a Time64NanosecondArray),
    TimeText(&'a StringArray),
    DateTime(Moments<'a>),
    Offset(Moments<'a>),
    Text(&'a StringArray),
    Uuid(&'a StringArray),
    Bytes(&'a BinaryArray),
    Fixed(&'a FixedSizeBinaryArray),
}

/// Moments of any unit.
pub(crate) enum Moments<'a> {
    Seconds(&'a TimestampSecondArray),
    Millis(&'a TimestampMillisecondArray),
    Micros(&'a TimestampMicrosecondArray),
    Nanos(&'a TimestampNanosecondArray),
    /// As text; whether it may have a zone.
    Text(&'a StringArray, bool),
}

impl Moments<'_> {
    /// Day from 1970-01-01 and tick of the day; `None` for null and for what is beyond everything.
    fn at(&self, row: usize) -> Option<(i64, i64)> {
        let split = |value: i64, units: i64, ticks: i64| {
            let day = value.div_euclid(units);
            Some((day, value.rem_euclid(units) * ticks))
        };
        match self {
            Self::Seconds(all) => value(all, row).and_then(|value| split(value, 86_400, 10_000_000)),
            Self::Millis(all) => value(all, row).and_then(|value| split(value, 86_400_000, 10_000)),
            Self::Micros(all) => value(all, row).and_then(|value| split(value, 86_400_000_000, 10)),
            Self::Nanos(all) => {
                value(all, row).map(|value| (value.div_euclid(DAY * 100), value.rem_euclid(DAY * 100) / 100))
            }
            Self::Text(all, zoned) => {
                if all.is_null(row) {
                    return None;
                }
                moments::moment(all.value(row), *zoned)
            }
        }
    }
    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Seconds(all) => all.is_null(row),
            Self::Millis(all) => all.is_null(row),
            Self::Micros(all) => all.is_null(row),
            Self::Nanos(all) => all.is_null(row),
            Self::Text(all, _) => all.is_null(row),
        }
    }
}

fn value<T: ArrowPrimitiveType>(all: &PrimitiveArray<T>, row: usize) -> Option<T::Native> {
    all.is_valid(row).then(|| all.value(row))
}

impl<'a> Cells<'a> {
    /// Reads a column that has been cast as [`cast_type`] says.
    pub(crate) fn of(column: &'a ArrayRef, staged: &SqlType) -> Result<Self> {
        let any = column.as_any();
        let wrong = || Error::internal(format!("a column of type {} is to be staged as {staged}", column.data_type()));
        fn as_a<T: 'static>(any: &dyn std::any::Any, wrong: impl Fn() -> Error) -> Result<&T> {
            any.downcast_ref().ok_or_else(wrong)
        }
        let moments = || {
            Ok(match column.data_type() {
                DataType::Timestamp(TimeUnit::Second, _) => Moments::Seconds(as_a(any, wrong)?),
                DataType::Timestamp(TimeUnit::Millisecond, _) => Moments::Millis(as_a(any, wrong)?),
                DataType::Timestamp(TimeUnit::Microsecond, _) => Moments::Micros(as_a(any, wrong)?),
                DataType::Timestamp(TimeUnit::Nanosecond, _) => Moments::Nanos(as_a(any, wrong)?),
                DataType::Utf8 => Moments::Text(as_a(any, wrong)?, matches!(staged, SqlType::DateTimeOffset(_))),
                _ => return Err(wrong()),
            })
        };
        Ok(match staged {
            SqlType::Bit => Self::Bit(as_a(any, wrong)?),
            SqlType::TinyInt => Self::TinyInt(as_a(any, wrong)?),
            SqlType::SmallInt => Self::SmallInt(as_a(any, wrong)?),
            SqlType::Int => Self::Int(as_a(any, wrong)?),
            SqlType::BigInt => Self::BigInt(as_a(any, wrong)?),
            SqlType::Real => Self::Real(as_a(any, wrong)?),
            SqlType::Float => Self::Float(as_a(any, wrong)?),
            SqlType::Decimal(_, scale) => Self::Decimal(as_a(any, wrong)?, *scale),
            SqlType::Date => Self::Date(as_a(any, wrong)?),
            SqlType::Time(_) if *column.data_type() == DataType::Time64(TimeUnit::Nanosecond) => {
                Self::Nanos(as_a(any, wrong)?)
            }
            SqlType::Time(_) if *column.data_type() == DataType::Utf8 => Self::TimeText(as_a(any, wrong)?),
            SqlType::Time(_) => Self::Micros(as_a(any, wrong)?),
            SqlType::DateTime2(_) => Self::DateTime(moments()?),
            SqlType::DateTimeOffset(_) => Self::Offset(moments()?),
            SqlType::NVarChar(_) => Self::Text(as_a(any, wrong)?),
            SqlType::UniqueIdentifier => Self::Uuid(as_a(any, wrong)?),
            SqlType::Binary(_) if any.is::<FixedSizeBinaryArray>() => Self::Fixed(as_a(any, wrong)?),
            SqlType::Binary(_) | SqlType::VarBinary(_) => Self::Bytes(as_a(any, wrong)?),
            _ => return Err(wrong()),
        })
    }

    /// A cell, borrowed where it is text or bytes.
    pub(crate) fn cell(&self, row: usize) -> ColumnData<'a> {
        use ColumnData as D;
        match self {
            Self::Bit(all) => D::Bit(all.is_valid(row).then(|| all.value(row))),
            // What does not fit has been refused.
            Self::TinyInt(all) => D::U8(value(all, row).and_then(|value| u8::try_from(value).ok())),
            Self::SmallInt(all) => D::I16(value(all, row).and_then(|value| i16::try_from(value).ok())),
            Self::Int(all) => D::I32(value(all, row).and_then(|value| i32::try_from(value).ok())),
            Self::BigInt(all) => D::I64(value(all, row)),
            Self::Real(all) => D::F32(value(all, row).map(|value| value as f32)),
            Self::Float(all) => D::F64(value(all, row)),
            Self::Decimal(all, scale) => {
                D::Numeric(value(all, row).map(|value| Numeric::new_with_scale(value, (*scale).min(38))))
            }
            Self::Date(all) => D::Date(value(all, row).map(|day| date(i64::from(day)))),
            Self::Micros(all) => D::Time(value(all, row).map(|micros| time(micros * 10))),
            Self::Nanos(all) => D::Time(value(all, row).map(|nanos| time(nanos / 100))),
            Self::TimeText(all) => {
                D::Time(if all.is_valid(row) { moments::time(all.value(row)).map(time) } else { None })
            }
            Self::DateTime(all) => D::DateTime2(all.at(row).map(moment)),
            Self::Offset(all) => D::DateTimeOffset(all.at(row).map(|at| DateTimeOffset::new(moment(at), 0))),
            Self::Text(all) => D::String(all.is_valid(row).then(|| Cow::Borrowed(all.value(row)))),
            Self::Uuid(all) => D::Guid(if all.is_valid(row) { uuid(all.value(row)) } else { None }),
            Self::Bytes(all) => D::Binary(all.is_valid(row).then(|| Cow::Borrowed(all.value(row)))),
            Self::Fixed(all) => D::Binary(all.is_valid(row).then(|| Cow::Borrowed(all.value(row)))),
        }
    }

    /// Whether a bulk load of the driver takes this value.
    pub(crate) fn is_short(&self, row: usize) -> bool {
        match self {
            Self::Text(all) => {
                let bytes = all.value_length(row) as usize;
                // A byte of UTF-8 is at most two of UTF-16; only then is it worth counting.
                bytes * 2 <= LONGEST || all.is_null(row) || all.value(row).encode_utf16().count() * 2 <= LONGEST
            }
            Self::Bytes(all) => all.is_null(row) || all.value(row).len() <= LONGEST,
            _ => true,
        }
    }

    /// Why a value does not fit the target's type, row by row, in the words SQL Server has for it. `None`: it fits, or is null.
    pub(crate) fn unfit(&self, target: &SqlType, row: usize) -> Option<String> {
        let overflow = |shown: &dyn std::fmt::Display| Some(format!("arithmetic overflow: {shown} is no {target}"));
        match self {
            Self::TinyInt(all) => {
                value(all, row).filter(|value| u8::try_from(*value).is_err()).and_then(|value| overflow(&value))
            }
            Self::SmallInt(all) => {
                value(all, row).filter(|value| i16::try_from(*value).is_err()).and_then(|value| overflow(&value))
            }
            Self::Int(all) => {
                value(all, row).filter(|value| i32::try_from(*value).is_err()).and_then(|value| overflow(&value))
            }
            Self::Real(all) => {
                value(all, row).filter(|value| !(*value as f32).is_finite()).and_then(|value| overflow(&value))
            }
            Self::Float(all) => value(all, row).filter(|value| !value.is_finite()).and_then(|value| overflow(&value)),
            Self::Decimal(all, _) => {
                let most = match target {
                    SqlType::Money => i128::from(i64::MAX),
                    SqlType::SmallMoney => i128::from(i32::MAX),
                    _ => return None,
                };
                value(all, row)
                    .filter(|value| *value > most || *value < -most - 1)
                    .and_then(|_| overflow(&all.value_as_string(row)))
            }
            Self::Date(all) => value(all, row)
                .filter(|day| !(-EPOCH..=LAST_DAY).contains(&i64::from(*day)))
                .map(|_| "the year is not from 1 to 9999".to_owned()),
            Self::DateTime(all) | Self::Offset(all) => {
                if all.is_null(row) {
                    return None;
                }
                if let Moments::Text(text, _) = all
                    && all.at(row).is_none()
                {
                    return Some(format!("'{}' is not a {target}", shown(text.value(row))));
                }
                let (first, last, years) = match target {
                    SqlType::DateTime => (DATETIME_FIRST, LAST_DAY, "1753 to 9999"),
                    SqlType::SmallDateTime => (SMALL_FIRST, SMALL_LAST, "1900 to 2079-06-06"),
                    _ => (-EPOCH, LAST_DAY, "1 to 9999"),
                };
                let fits = all.at(row).is_some_and(|(day, _)| (first..=last).contains(&day));
                (!fits).then(|| format!("the time is out of the range of {target}, {years}"))
            }
            Self::TimeText(all) => (all.is_valid(row) && moments::time(all.value(row)).is_none())
                .then(|| format!("'{}' is not a {target}", shown(all.value(row)))),
            Self::Text(all) => {
                let size = usize::from(match target {
                    SqlType::Char(size)
                    | SqlType::VarChar(Some(size))
                    | SqlType::NChar(size)
                    | SqlType::NVarChar(Some(size)) => *size,
                    _ => return None,
                });
                // A byte of UTF-8 is never more than one unit of UTF-16.
                if all.is_null(row) || all.value_length(row) as usize <= size {
                    return None;
                }
                let units = all.value(row).encode_utf16().count();
                (units > size).then(|| format!("string or binary data would be truncated: {units} characters, where {target} has place for {size}"))
            }
            Self::Uuid(all) => (all.is_valid(row) && uuid(all.value(row)).is_none())
                .then(|| format!("'{}' is not a uniqueidentifier", shown(all.value(row)))),
            Self::Bytes(all) => {
                let (SqlType::Binary(size) | SqlType::VarBinary(Some(size))) = target else { return None };
                let length = if all.is_valid(row) { all.value(row).len() } else { 0 };
                (length > usize::from(*size)).then(|| {
                    format!(
                        "string or binary data would be truncated: {length} bytes, where {target} has place for {size}"
                    )
                })
            }
            _ => None,
        }
    }

    /// Whether any value could be refused at all: most columns need no second look.
    pub(crate) fn may_be_unfit(&self, target: &SqlType) -> bool {
        match self {
            Self::Bit(_) | Self::BigInt(_) | Self::Micros(_) | Self::Nanos(_) | Self::Fixed(_) => false,
            Self::Decimal(..) => matches!(target, SqlType::Money | SqlType::SmallMoney),
            Self::Text(all) => match target {
                SqlType::Char(size)
                | SqlType::VarChar(Some(size))
                | SqlType::NChar(size)
                | SqlType::NVarChar(Some(size)) => {
                    all.value_offsets().windows(2).any(|pair| pair[1] - pair[0] > i32::from(*size))
                }
                _ => false,
            },
            _ => true,
        }
    }

    /// Whether there is a character beyond ASCII.
    pub(crate) fn is_ascii(&self) -> bool {
        match self {
            Self::Text(all) => {
                let (first, last) = (all.value_offsets().first(), all.value_offsets().last());
                match (first, last) {
                    (Some(first), Some(last)) => {
                        all.value_data().get(*first as usize..*last as usize).is_none_or(<[u8]>::is_ascii)
                    }
                    _ => true,
                }
            }
            _ => true,
        }
    }
}

/// The beginning of a text that may be long.
fn shown(text: &str) -> String {
    text.chars().take(60).collect()
}

fn date(day: i64) -> Date {
    Date::new(u32::try_from(day + EPOCH).unwrap_or_default())
}

fn time(ticks: i64) -> Time {
    Time::new(u64::try_from(ticks).unwrap_or_default(), 7)
}

fn moment((day, ticks): (i64, i64)) -> DateTime2 {
    DateTime2::new(date(day), time(ticks))
}

/// As SQL Server reads them: with or without braces.
fn uuid(text: &str) -> Option<Uuid> {
    let text = text.trim();
    let hyphens = text.trim_start_matches('{').trim_end_matches('}');
    if hyphens.len() != 36 { None } else { Uuid::parse_str(text).ok() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn seen(column: ArrayRef, target: SqlType) -> Vec<String> {
        let staged = target.staged().unwrap();
        let to = cast_type(column.data_type(), &staged);
        let column = arrow_cast::cast(&column, &to).unwrap();
        let cells = Cells::of(&column, &staged).unwrap();
        let may = cells.may_be_unfit(&target);
        (0..column.len())
            .map(|row| match cells.unfit(&target, row) {
                Some(why) => {
                    assert!(may, "{target}: {why}");
                    format!("! {why}")
                }
                None => format!("{:?}", cells.cell(row)),
            })
            .collect()
    }

    #[test]
    fn values_become_the_drivers_or_are_refused() {
        let ints =
            || Arc::new(Int64Array::from(vec![Some(-1), Some(255), Some(40_000), Some(i64::MAX), None])) as ArrayRef;
        let floats = || Arc::new(Float64Array::from(vec![1.5, 1e300, f64::NAN])) as ArrayRef;
        let text = || Arc::new(StringArray::from(vec![Some("abc"), Some("äöüß"), Some("🚣🚣"), None])) as ArrayRef;
        // -1 s, 1752-12-31, 2079-06-07, year 10000.
        let moments = || {
            let at = [-1, -79_259 * 86_400, 39_969 * 86_400, 2_932_897 * 86_400];
            Arc::new(TimestampSecondArray::from(at.to_vec())) as ArrayRef
        };
        let uuids = Arc::new(StringArray::from(vec![
            "6F9619FF-8B86-D011-B42D-00C04FC964FF",
            "{6f9619ff-8b86-d011-b42d-00c04fc964ff}",
            "6f96",
        ]));
        let money = Decimal128Array::from(vec![i128::from(i64::MAX), i128::from(i64::MAX) + 1])
            .with_precision_and_scale(38, 4)
            .unwrap();
        let bytes = || Arc::new(BinaryArray::from(vec![b"ab".as_slice(), b"abc"])) as ArrayRef;
        let cases: Vec<(ArrayRef, SqlType)> = vec![
            (ints(), SqlType::TinyInt),
            (ints(), SqlType::SmallInt),
            (ints(), SqlType::Int),
            (ints(), SqlType::BigInt),
            (ints(), SqlType::Bit),
            (floats(), SqlType::Real),
            (floats(), SqlType::Float),
            (text(), SqlType::NVarChar(Some(3))),
            (text(), SqlType::VarChar(Some(4))),
            (text(), SqlType::NVarChar(None)),
            (moments(), SqlType::DateTime),
            (moments(), SqlType::SmallDateTime),
            (moments(), SqlType::DateTime2(3)),
            (moments(), SqlType::DateTimeOffset(0)),
            (uuids, SqlType::UniqueIdentifier),
            (Arc::new(money), SqlType::Money),
            (bytes(), SqlType::VarBinary(Some(2))),
            (bytes(), SqlType::Image),
            (Arc::new(Date32Array::from(vec![-719_162, -719_163, 2_932_896, 2_932_897])), SqlType::Date),
            (Arc::new(Time64MicrosecondArray::from(vec![0, 86_399_999_999])), SqlType::Time(0)),
            (Arc::new(StringArray::from(vec![Some("10:20:30.1234567"), Some("1"), None])), SqlType::Time(3)),
            (
                Arc::new(StringArray::from(vec![Some("2026-01-31"), Some("1700-01-01"), Some("31.1.2026"), None])),
                SqlType::DateTime,
            ),
        ];
        let mut out = String::new();
        for (column, target) in cases {
            out.push_str(&format!("{target} from {}\n", column.data_type()));
            for line in seen(column, target) {
                out.push_str(&format!("  {line}\n"));
            }
        }
        insta::assert_snapshot!(out);
    }
}
