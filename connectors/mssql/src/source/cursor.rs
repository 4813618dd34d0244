//! A cursor's value: read from a row, written into a position, sent back as a parameter, each exactly.
//!
//! A position holds it as text: digits of numbers, ISO 8601 of times with all their digits, hexadecimal of bytes. As a parameter it is
//! converted to the column's own type on the server, so that the comparison is one of that type and an index on the column serves it ("Data
//! type precedence (Transact-SQL)": of two types the lower one is converted, which would be the column).
//!
//! Two values are equal here where the server says so: text without regard to trailing blanks, bytes without regard to trailing zeros ("String
//! comparison" and "binary and varbinary"). Text is compared by code points there as well as here, because to a database's own
//! collation `a` and `A` may be equal, and a seam between such rows could not be told.

use std::borrow::Cow;

use tiberius::{ColumnData, IntoSql};
use towpath_core::{Error, Result};

use super::{
    cells::{decimal_text, hex, text_of},
    ticks::{Form, Ticks},
};
use crate::types::SqlType;

/// A value of a cursor's column.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// A whole number, or a decimal's digits.
    Number(i128, u8),
    Float(f64),
    Ticks(Ticks),
    Bytes(Vec<u8>),
    Text(String),
}

/// A value as a parameter.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Parameter {
    Integer(i64),
    Float(f64),
    Bytes(Vec<u8>),
    Text(String),
}

impl<'a> IntoSql<'a> for Parameter {
    fn into_sql(self) -> ColumnData<'a> {
        match self {
            Self::Integer(number) => ColumnData::I64(Some(number)),
            Self::Float(number) => ColumnData::F64(Some(number)),
            Self::Bytes(bytes) => ColumnData::Binary(Some(Cow::Owned(bytes))),
            Self::Text(text) => ColumnData::String(Some(Cow::Owned(text))),
        }
    }
}

/// Whether a column of this type can be a cursor.
pub(crate) fn check(name: &str, of: &SqlType) -> Result<()> {
    match of {
        SqlType::Bit
        | SqlType::Text
        | SqlType::NText
        | SqlType::Image
        | SqlType::Xml
        | SqlType::Variant
        | SqlType::Other(_) => Err(Error::config(format!(
            "cursor: column {name} is of type {of}, which has no order a reading could go by"
        ))
        .hint("take a number, a time or a rowversion that only grows")),
        _ => Ok(()),
    }
}

/// How a time of this type is written.
fn form(of: &SqlType) -> Option<Form> {
    Some(match of {
        SqlType::Date => Form::Date,
        SqlType::Time(digits) => Form::Time(*digits),
        SqlType::DateTime => Form::Moment(3),
        SqlType::SmallDateTime => Form::Moment(0),
        SqlType::DateTime2(digits) => Form::Moment(*digits),
        SqlType::DateTimeOffset(digits) => Form::Utc(*digits),
        _ => return None,
    })
}

/// Digits behind the point of a number of this type.
fn scale(of: &SqlType) -> Option<u8> {
    Some(match of {
        SqlType::TinyInt | SqlType::SmallInt | SqlType::Int | SqlType::BigInt => 0,
        SqlType::Decimal(_, scale) => *scale,
        SqlType::Money | SqlType::SmallMoney => 4,
        _ => return None,
    })
}

/// The type to which a parameter is converted: the column's, as far as it can be compared.
pub(crate) fn compared_as(of: &SqlType) -> String {
    match of {
        SqlType::RowVersion => SqlType::Binary(8).to_string(),
        SqlType::Char(size) | SqlType::VarChar(Some(size)) => {
            SqlType::NVarChar(Some(*size).filter(|size| *size <= 4000)).to_string()
        }
        SqlType::VarChar(None) => SqlType::NVarChar(None).to_string(),
        SqlType::NChar(size) => SqlType::NVarChar(Some(*size)).to_string(),
        other => other.to_string(),
    }
}

impl Value {
    /// Of a cell; none if it is NULL.
    ///
    /// # Errors
    /// Data: a value that is not of the column's type.
    pub(crate) fn of(cell: &ColumnData<'_>, of: &SqlType) -> Result<Option<Self>> {
        use ColumnData as D;
        if super::cells::is_null(cell) {
            return Ok(None);
        }
        let value = match cell {
            D::U8(Some(number)) => Self::Number((*number).into(), 0),
            D::I16(Some(number)) => Self::Number((*number).into(), 0),
            D::I32(Some(number)) => Self::Number((*number).into(), 0),
            D::I64(Some(number)) => Self::Number((*number).into(), 0),
            D::Numeric(Some(number)) => Self::Number(number.value(), number.scale()),
            D::F32(Some(number)) => Self::Float((*number).into()),
            D::F64(Some(number)) => Self::Float(*number),
            D::Binary(Some(bytes)) => Self::Bytes(bytes.to_vec()),
            D::String(Some(text)) => Self::Text(text.clone().into_owned()),
            D::Guid(_) => Self::Text(text_of(cell).unwrap_or_default().into_owned()),
            moment => match (Ticks::of(moment), form(of)) {
                (Some(ticks), Some(form)) => Self::Ticks(Ticks::new(ticks.raw(), form)),
                _ => {
                    return Err(Error::data(format!(
                        "a cursor of type {of} has the value '{}'",
                        text_of(cell).unwrap_or_default()
                    )));
                }
            },
        };
        Ok(Some(value))
    }

    /// Whether a cell has this value. Allocates nothing.
    pub(crate) fn is(&self, cell: &ColumnData<'_>) -> bool {
        use ColumnData as D;
        match (self, cell) {
            (Self::Number(number, 0), D::U8(Some(cell))) => *number == i128::from(*cell),
            (Self::Number(number, 0), D::I16(Some(cell))) => *number == i128::from(*cell),
            (Self::Number(number, 0), D::I32(Some(cell))) => *number == i128::from(*cell),
            (Self::Number(number, 0), D::I64(Some(cell))) => *number == i128::from(*cell),
            (Self::Number(number, scale), D::Numeric(Some(cell))) => *scale == cell.scale() && *number == cell.value(),
            (Self::Float(number), D::F32(Some(cell))) => *number == f64::from(*cell),
            (Self::Float(number), D::F64(Some(cell))) => number == cell,
            (Self::Bytes(bytes), D::Binary(Some(cell))) => without_zeros(bytes) == without_zeros(cell),
            (Self::Text(text), D::String(Some(cell))) => without_blanks(text) == without_blanks(cell),
            (Self::Text(text), D::Guid(Some(_))) => text_of(cell).is_some_and(|cell| *text == cell),
            (Self::Ticks(ticks), cell) => Ticks::of(cell).is_some_and(|cell| cell.raw() == ticks.raw()),
            _ => false,
        }
    }

    /// Reads what [`text`](Self::text) wrote.
    pub(crate) fn read(text: &str, of: &SqlType) -> Option<Self> {
        if let Some(form) = form(of) {
            return Ticks::read(text, form).map(Self::Ticks);
        }
        if let Some(scale) = scale(of) {
            let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
            let plain = whole
                .strip_prefix('-')
                .unwrap_or(whole)
                .bytes()
                .chain(fraction.bytes())
                .all(|byte| byte.is_ascii_digit());
            let digits = format!("{whole}{fraction}");
            return (plain && fraction.len() == usize::from(scale))
                .then(|| digits.parse().ok())
                .flatten()
                .map(|digits| Self::Number(digits, scale));
        }
        match of {
            SqlType::Real | SqlType::Float => {
                text.parse().ok().filter(|number: &f64| number.is_finite()).map(Self::Float)
            }
            SqlType::Binary(_) | SqlType::VarBinary(_) | SqlType::RowVersion => {
                let digits = text.strip_prefix("0x")?.as_bytes();
                let pairs = digits.chunks_exact(2);
                if !pairs.remainder().is_empty() {
                    return None;
                }
                let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
                pairs.map(byte).collect::<Option<Vec<_>>>().map(Self::Bytes)
            }
            SqlType::UniqueIdentifier => {
                let guid: uuid::Uuid = text.parse().ok()?;
                text_of(&ColumnData::Guid(Some(guid))).map(|text| Self::Text(text.into_owned()))
            }
            _ if of.is_text() => Some(Self::Text(text.to_owned())),
            _ => None,
        }
    }

    /// For a position.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Number(digits, scale) => decimal_text(*digits, *scale),
            Self::Float(number) => format!("{number:?}"),
            Self::Ticks(ticks) => ticks.to_string(),
            Self::Bytes(bytes) => hex(bytes),
            Self::Text(text) => text.clone(),
        }
    }

    /// As it comes back from its text: a time with the digits that its type has.
    pub(crate) fn rounded(self) -> Self {
        match self {
            Self::Ticks(ticks) => Self::Ticks(ticks.rounded()),
            other => other,
        }
    }

    /// Whether it comes behind another of its kind; only of numbers and times.
    pub(crate) fn is_above(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Number(one, _), Self::Number(two, _)) => one > two,
            (Self::Ticks(one), Self::Ticks(two)) => one.raw() > two.raw(),
            _ => false,
        }
    }

    /// For a statement.
    pub(crate) fn parameter(&self) -> Parameter {
        match self {
            Self::Number(number, 0) => {
                i64::try_from(*number).map_or_else(|_| Parameter::Text(self.text()), Parameter::Integer)
            }
            Self::Float(number) => Parameter::Float(*number),
            Self::Bytes(bytes) => Parameter::Bytes(bytes.clone()),
            _ => Parameter::Text(self.text()),
        }
    }
}

fn without_zeros(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.get(..end).unwrap_or(bytes)
}

fn without_blanks(text: &str) -> &str {
    text.trim_end_matches(' ')
}

/// As the server compares.
impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Number(one, at), Self::Number(two, other)) => one == two && at == other,
            (Self::Float(one), Self::Float(two)) => one == two,
            (Self::Ticks(one), Self::Ticks(two)) => one.raw() == two.raw(),
            (Self::Bytes(one), Self::Bytes(two)) => without_zeros(one) == without_zeros(two),
            (Self::Text(one), Self::Text(two)) => without_blanks(one) == without_blanks(two),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tiberius::{
        numeric::Numeric,
        time::{Date, DateTime, DateTime2, DateTimeOffset, Time},
    };

    use super::*;

    #[test]
    fn values_survive_their_positions() {
        use ColumnData as D;
        let moment = DateTime2::new(Date::new(738_551), Time::new(1_234_567, 7));
        let guid = uuid::Uuid::from_u128(7);
        for (of, cell, text, parameter) in [
            (SqlType::TinyInt, D::U8(Some(7)), "7", Parameter::Integer(7)),
            (SqlType::BigInt, D::I64(Some(i64::MIN)), "-9223372036854775808", Parameter::Integer(i64::MIN)),
            (
                SqlType::Decimal(38, 2),
                D::Numeric(Some(Numeric::new_with_scale(-5, 2))),
                "-0.05",
                Parameter::Text("-0.05".to_owned()),
            ),
            (SqlType::Decimal(10, 0), D::Numeric(Some(Numeric::new_with_scale(12, 0))), "12", Parameter::Integer(12)),
            (SqlType::Float, D::F64(Some(0.1)), "0.1", Parameter::Float(0.1)),
            (SqlType::Real, D::F32(Some(0.1)), "0.10000000149011612", Parameter::Float(f64::from(0.1f32))),
            (SqlType::Date, D::Date(Some(Date::new(0))), "0001-01-01", Parameter::Text("0001-01-01".to_owned())),
            (
                SqlType::DateTime,
                D::DateTime(Some(DateTime::new(0, 1))),
                "1900-01-01T00:00:00.003",
                Parameter::Text("1900-01-01T00:00:00.003".to_owned()),
            ),
            (
                SqlType::DateTime2(7),
                D::DateTime2(Some(moment)),
                "2023-02-01T00:00:00.1234567",
                Parameter::Text("2023-02-01T00:00:00.1234567".to_owned()),
            ),
            (
                SqlType::DateTimeOffset(7),
                D::DateTimeOffset(Some(DateTimeOffset::new(moment, 90))),
                "2023-02-01 00:00:00.1234567 +00:00",
                Parameter::Text("2023-02-01 00:00:00.1234567 +00:00".to_owned()),
            ),
            (SqlType::RowVersion, D::Binary(Some(vec![0, 10].into())), "0x000A", Parameter::Bytes(vec![0, 10])),
            (
                SqlType::UniqueIdentifier,
                D::Guid(Some(guid)),
                "00000000-0000-0000-0000-000000000007",
                Parameter::Text("00000000-0000-0000-0000-000000000007".to_owned()),
            ),
            (SqlType::NVarChar(Some(9)), D::String(Some("ä ".into())), "ä ", Parameter::Text("ä ".to_owned())),
        ] {
            let value = Value::of(&cell, &of).unwrap().unwrap();
            assert_eq!(value.text(), text, "{of}");
            assert_eq!(value.parameter(), parameter, "{of}");
            let back = Value::read(text, &of).unwrap();
            assert_eq!(back, value, "{of}");
            assert!(back.is(&cell), "{of}");
        }
        for (of, text) in [
            (SqlType::Int, "1.5"),
            (SqlType::Int, "0x1"),
            (SqlType::Decimal(5, 2), "1"),
            (SqlType::RowVersion, "0x1"),
            (SqlType::RowVersion, "12"),
            (SqlType::Date, "yesterday"),
            (SqlType::Float, "NaN"),
            (SqlType::UniqueIdentifier, "7"),
            (SqlType::Bit, "1"),
        ] {
            assert!(Value::read(text, &of).is_none(), "{of} {text}");
        }
    }

    #[test]
    fn equal_is_what_the_server_holds_for_equal() {
        let (text, bytes) = (Value::Text("a ".to_owned()), Value::Bytes(vec![1, 0]));
        assert!(text.is(&ColumnData::String(Some("a".into()))) && text == Value::Text("a   ".to_owned()));
        assert!(!text.is(&ColumnData::String(Some("A".into()))));
        assert!(bytes.is(&ColumnData::Binary(Some(vec![1].into()))) && bytes == Value::Bytes(vec![1]));
        assert!(!bytes.is(&ColumnData::Binary(Some(vec![0, 1].into()))));
        assert!(!text.is(&ColumnData::String(None)));
    }

    proptest! {
        #[test]
        fn numbers_survive(digits: i64, scale in 0u8..19, float: f64, bytes: Vec<u8>) {
            let of = SqlType::Decimal(38, scale);
            let number = Value::Number(digits.into(), scale);
            prop_assert_eq!(Value::read(&number.text(), &of), Some(number));
            if float.is_finite() {
                prop_assert_eq!(Value::read(&Value::Float(float).text(), &SqlType::Float), Some(Value::Float(float)));
            }
            let bytes = Value::Bytes(bytes);
            prop_assert_eq!(Value::read(&bytes.text(), &SqlType::VarBinary(None)), Some(bytes));
        }
    }
}
