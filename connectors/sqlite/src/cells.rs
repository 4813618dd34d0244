//! SQLite → Arrow: cells into builders, typed as the columns are declared.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, RecordBatch,
    builder::{
        BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float64Builder, Int64Builder, StringBuilder,
        TimestampMicrosecondBuilder,
    },
};
use arrow_schema::{DataType, Field, SchemaRef, TimeUnit};
use rusqlite::types::ValueRef;
use towpath_core::{Error, Result};

use crate::table::Kind;

/// The field a column becomes. What has no declared type (an expression) is text.
pub(crate) fn field(name: &str, declared: &str) -> Field {
    let to = match Kind::of(declared) {
        Kind::Integer => DataType::Int64,
        Kind::Real => DataType::Float64,
        Kind::Blob => DataType::Binary,
        Kind::Bool => DataType::Boolean,
        Kind::Date => DataType::Date32,
        Kind::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        Kind::Decimal(precision, scale) => DataType::Decimal128(precision, scale),
        Kind::Text | Kind::Any => DataType::Utf8,
    };
    Field::new(name, to, true)
}

/// A column being filled.
enum Filling {
    Int(Int64Builder),
    Float(Float64Builder),
    Binary(BinaryBuilder),
    Bool(BooleanBuilder),
    Date(Date32Builder),
    Moment(TimestampMicrosecondBuilder),
    Decimal(Decimal128Builder, i8, u8),
    Text(StringBuilder),
}

/// Rows being filled.
pub(crate) struct Rows {
    schema: SchemaRef,
    columns: Vec<Filling>,
    count: usize,
}

/// A cell that is not what its column is declared to be; SQLite allows that outside strict tables.
pub(crate) struct Misfit {
    pub(crate) column: String,
    pub(crate) reason: String,
}

/// A cell, made ready. In two steps, so that a row goes in whole or not at all.
enum Cell<'a> {
    Null,
    Int(i64),
    Float(f64),
    Bool(bool),
    Days(i32),
    Wide(i128),
    Bytes(&'a [u8]),
    Text(std::borrow::Cow<'a, str>),
}

impl Rows {
    /// None yet.
    pub(crate) fn new(schema: &SchemaRef) -> Self {
        let columns = schema.fields().iter().map(|field| match field.data_type() {
            DataType::Int64 => Filling::Int(Int64Builder::new()),
            DataType::Float64 => Filling::Float(Float64Builder::new()),
            DataType::Binary => Filling::Binary(BinaryBuilder::new()),
            DataType::Boolean => Filling::Bool(BooleanBuilder::new()),
            DataType::Date32 => Filling::Date(Date32Builder::new()),
            DataType::Timestamp(..) => Filling::Moment(TimestampMicrosecondBuilder::new()),
            DataType::Decimal128(precision, scale) => {
                let typed = Decimal128Builder::new().with_data_type(DataType::Decimal128(*precision, *scale));
                Filling::Decimal(typed, *scale, *precision)
            }
            _ => Filling::Text(StringBuilder::new()),
        });
        Self { columns: columns.collect(), schema: Arc::clone(schema), count: 0 }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Adds a row, unless one of its cells does not fit.
    pub(crate) fn push(&mut self, row: &rusqlite::Row<'_>) -> rusqlite::Result<std::result::Result<(), Misfit>> {
        let mut cells = Vec::with_capacity(self.columns.len());
        for (at, column) in self.columns.iter().enumerate() {
            match column.read(row.get_ref(at)?) {
                Ok(cell) => cells.push(cell),
                Err(reason) => {
                    let column = self.schema.field(at).name().clone();
                    return Ok(Err(Misfit { reason: format!("column {column}: {reason}"), column }));
                }
            }
        }
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            column.append(cell);
        }
        self.count += 1;
        Ok(Ok(()))
    }

    /// Takes the rows out.
    pub(crate) fn finish(&mut self) -> Result<RecordBatch> {
        self.count = 0;
        let columns = self.columns.iter_mut().map(Filling::finish).collect();
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
            .map_err(|error| Error::internal("cannot put rows together").because(error))
    }
}

/// A value for a message, shortened.
pub(crate) fn shown(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "null".to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(text) => {
            let text = String::from_utf8_lossy(text);
            format!("'{}'", text.chars().take(80).collect::<String>())
        }
        ValueRef::Blob(bytes) => format!("a blob of {} bytes", bytes.len()),
    }
}

impl Filling {
    fn read<'a>(&self, value: ValueRef<'a>) -> std::result::Result<Cell<'a>, String> {
        let text = |bytes: &'a [u8]| std::str::from_utf8(bytes).map_err(|_| "text that is not UTF-8".to_owned());
        let not = |what: &str| Err(format!("{} is not {what}", shown(value)));
        Ok(match (self, value) {
            (_, ValueRef::Null) => Cell::Null,
            (Self::Int(_), ValueRef::Integer(number)) => Cell::Int(number),
            (Self::Int(_), _) => return not("an int64"),
            (Self::Float(_), ValueRef::Real(number)) => Cell::Float(number),
            (Self::Float(_), ValueRef::Integer(number)) => Cell::Float(number as f64),
            (Self::Float(_), _) => return not("a float64"),
            (Self::Bool(_), ValueRef::Integer(bit @ (0 | 1))) => Cell::Bool(bit == 1),
            (Self::Bool(_), _) => return not("a bool: 0 or 1"),
            (Self::Binary(_), ValueRef::Blob(bytes) | ValueRef::Text(bytes)) => Cell::Bytes(bytes),
            (Self::Binary(_), _) => return not("a blob"),
            (Self::Date(_), ValueRef::Text(bytes)) => match text(bytes)?.parse::<jiff::civil::Date>() {
                Ok(date) => {
                    let days = jiff::civil::date(1970, 1, 1).until(date).map(|span| span.get_days());
                    Cell::Days(days.map_err(|error| error.to_string())?)
                }
                Err(_) => return not("a date"),
            },
            (Self::Date(_), _) => return not("a date as text"),
            (Self::Moment(_), ValueRef::Text(bytes)) => match moment(text(bytes)?) {
                Some(moment) => Cell::Int(moment),
                None => return not("a timestamp"),
            },
            (Self::Moment(_), _) => {
                return not("a timestamp as text (a query can make it one: datetime(t, 'unixepoch'))");
            }
            (Self::Decimal(_, scale, precision), value) => {
                let written = match value {
                    ValueRef::Text(bytes) => text(bytes)?.trim().to_owned(),
                    ValueRef::Integer(number) => number.to_string(),
                    ValueRef::Real(number) => number.to_string(),
                    _ => return not("a decimal"),
                };
                match decimal(&written, *precision, *scale) {
                    Some(number) => Cell::Wide(number),
                    None => return not(&format!("a decimal({precision},{scale})")),
                }
            }
            (Self::Text(_), ValueRef::Text(bytes)) => Cell::Text(text(bytes)?.into()),
            (Self::Text(_), ValueRef::Integer(number)) => Cell::Text(number.to_string().into()),
            (Self::Text(_), ValueRef::Real(number)) => Cell::Text(number.to_string().into()),
            (Self::Text(_), ValueRef::Blob(_)) => return not("text"),
        })
    }

    fn append(&mut self, cell: Cell<'_>) {
        match (self, cell) {
            (Self::Int(to), Cell::Int(value)) => to.append_value(value),
            (Self::Float(to), Cell::Float(value)) => to.append_value(value),
            (Self::Binary(to), Cell::Bytes(value)) => to.append_value(value),
            (Self::Bool(to), Cell::Bool(value)) => to.append_value(value),
            (Self::Date(to), Cell::Days(value)) => to.append_value(value),
            (Self::Moment(to), Cell::Int(value)) => to.append_value(value),
            (Self::Decimal(to, ..), Cell::Wide(value)) => to.append_value(value),
            (Self::Text(to), Cell::Text(value)) => to.append_value(value),
            (Self::Int(to), _) => to.append_null(),
            (Self::Float(to), _) => to.append_null(),
            (Self::Binary(to), _) => to.append_null(),
            (Self::Bool(to), _) => to.append_null(),
            (Self::Date(to), _) => to.append_null(),
            (Self::Moment(to), _) => to.append_null(),
            (Self::Decimal(to, ..), _) => to.append_null(),
            (Self::Text(to), _) => to.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Int(column) => Arc::new(column.finish()),
            Self::Float(column) => Arc::new(column.finish()),
            Self::Binary(column) => Arc::new(column.finish()),
            Self::Bool(column) => Arc::new(column.finish()),
            Self::Date(column) => Arc::new(column.finish()),
            Self::Moment(column) => Arc::new(column.finish()),
            Self::Decimal(column, ..) => Arc::new(column.finish()),
            Self::Text(column) => Arc::new(column.finish()),
        }
    }
}

/// Microseconds since 1970 of `2026-01-31 23:59:59.5` (or with a `T`); one with an offset becomes UTC.
fn moment(text: &str) -> Option<i64> {
    if let Ok(moment) = text.parse::<jiff::Timestamp>() {
        return Some(moment.as_microsecond());
    }
    let local = text.parse::<jiff::civil::DateTime>().ok()?;
    Some(jiff::tz::Offset::UTC.to_timestamp(local).ok()?.as_microsecond())
}

/// A decimal as its digits; none if it has more than the type holds.
fn decimal(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let scale = usize::try_from(scale).ok()?;
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + fraction.len() == 0 && digits != "0" || !plain(whole) || !plain(fraction) || fraction.len() > scale
    {
        return None;
    }
    let whole = whole.trim_start_matches('0');
    if whole.len() + scale > usize::from(precision) {
        return None;
    }
    let number: i128 = format!("0{whole}{fraction:0<scale$}").parse().ok()?;
    Some(if negative { -number } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact_or_refused() {
        for (text, expect) in [
            ("12.5", Some(1250)),
            ("-12.50", Some(-1250)),
            ("+0.01", Some(1)),
            ("0", Some(0)),
            ("007", Some(700)),
            (".5", Some(50)),
            ("5.", Some(500)),
            ("99999999.99", Some(9_999_999_999)),
            ("100000000", None),
            ("0.001", None),
            ("0.010", Some(1)),
            ("1e3", None),
            ("x", None),
            ("", None),
            (".", None),
            ("-", None),
        ] {
            assert_eq!(decimal(text, 10, 2), expect, "{text}");
        }
        assert_eq!(decimal("99999999999999999999999999999999999999", 38, 0), Some(10i128.pow(38) - 1));
    }

    #[test]
    fn moments_are_read_in_the_forms_sqlite_has() {
        for (text, expect) in [
            ("1970-01-01 00:00:01", Some(1_000_000)),
            ("1970-01-01T00:00:01.5", Some(1_500_000)),
            ("1970-01-01 00:00:01Z", Some(1_000_000)),
            ("1970-01-01T01:00:00+01:00", Some(0)),
            ("1970-01-01", Some(0)),
            ("yesterday", None),
        ] {
            assert_eq!(moment(text), expect, "{text}");
        }
    }
}
