//! SQL Server → Arrow: what the driver decodes goes into builders, a column of a piece at a time.
//!
//! How values look on the wire: MS-TDS 2.2.5.5, learn.microsoft.com/openspecs/windows_protocols/ms-tds; the driver has decoded them into
//! `ColumnData` already. Nothing is allocated per row but what the builders grow by.

use std::{borrow::Cow, sync::Arc};

use arrow_array::{
    ArrayRef, RecordBatch, RecordBatchOptions,
    builder::{
        BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder, Float64Builder, Int16Builder,
        Int32Builder, Int64Builder, StringBuilder, Time64MicrosecondBuilder, TimestampMicrosecondBuilder, UInt8Builder,
    },
};
use arrow_schema::{DataType, FieldRef, SchemaRef};
use tiberius::{ColumnData, Row};
use towpath_core::{Error, Reject, Result};
use uuid::fmt::Hyphenated;

use super::ticks::{self, Ticks};

/// A column being filled.
enum Filling {
    Bool(BooleanBuilder),
    Tiny(UInt8Builder),
    Small(Int16Builder),
    Int(Int32Builder),
    Big(Int64Builder),
    Real(Float32Builder),
    Float(Float64Builder),
    Decimal { to: Decimal128Builder, scale: u8, limit: u128 },
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Moment(TimestampMicrosecondBuilder),
    Text(StringBuilder),
    Binary(BinaryBuilder),
}

/// Why a value has no place in its column.
type Misfit = String;

/// Rows being filled, all of one schema.
pub(crate) struct Rows {
    schema: SchemaRef,
    columns: Vec<Filling>,
    rejects: Vec<Reject>,
    count: usize,
    /// About what the rows take in memory, and did on the wire.
    bytes: u64,
}

/// Rows made whole.
pub(crate) struct Filled {
    pub(crate) rows: RecordBatch,
    pub(crate) rejects: Vec<Reject>,
    pub(crate) bytes: u64,
}

/// Rows of a piece.
const PIECE: usize = 8192;
/// A piece ends behind so many bytes, however few its rows.
const PIECE_BYTES: u64 = 1 << 20;

impl Rows {
    /// None yet. The schema is made of [`SqlType::arrow`](crate::types::SqlType::arrow)'s types.
    pub(crate) fn new(schema: &SchemaRef) -> Self {
        let columns = schema.fields().iter().map(|field| Filling::new(field.data_type(), 0, 0)).collect();
        Self { schema: Arc::clone(schema), columns, rejects: vec![], count: 0, bytes: 0 }
    }

    /// How many there are, the refused ones included.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Whether it is time to hand them on.
    pub(crate) fn is_full(&self) -> bool {
        self.count >= PIECE || self.bytes >= PIECE_BYTES
    }

    /// Adds a row; one with a value that has no place in its column is refused, and its place in the rows is kept with a null.
    pub(crate) fn push(&mut self, row: &Row) -> Result<()> {
        if row.len() != self.columns.len() {
            return Err(Error::data(format!("a row has {} columns, not {}", row.len(), self.columns.len())));
        }
        for (at, (column, (_, value))) in self.columns.iter_mut().zip(row.cells()).enumerate() {
            match column.append(value) {
                Ok(bytes) => self.bytes += bytes,
                Err(reason) => {
                    column.append_null();
                    let name = self.schema.field(at).name();
                    self.rejects
                        .push(Reject::row(self.count, format!("column {name}: {reason}")).column(name.as_str()));
                }
            }
        }
        self.count += 1;
        Ok(())
    }

    /// Takes the rows out.
    pub(crate) fn finish(&mut self) -> Result<Filled> {
        let count = std::mem::take(&mut self.count);
        // The next piece will be about as large.
        let finish = |(column, field): (&mut Filling, &FieldRef)| {
            let next = Filling::new(field.data_type(), count, column.bytes() + column.bytes() / 8);
            std::mem::replace(column, next).finish()
        };
        let columns = self.columns.iter_mut().zip(self.schema.fields()).map(finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|error| Error::internal("cannot put rows together").because(error))?;
        Ok(Filled { rows, rejects: std::mem::take(&mut self.rejects), bytes: std::mem::take(&mut self.bytes) })
    }
}

/// Text and bytes of a column are addressed in 31 bits.
const LONGEST: usize = i32::MAX as usize;

impl Filling {
    /// With room for so many rows, and so many bytes where a value has no size of its own.
    fn new(of: &DataType, rows: usize, bytes: usize) -> Self {
        match of {
            DataType::Boolean => Self::Bool(BooleanBuilder::with_capacity(rows)),
            DataType::UInt8 => Self::Tiny(UInt8Builder::with_capacity(rows)),
            DataType::Int16 => Self::Small(Int16Builder::with_capacity(rows)),
            DataType::Int32 => Self::Int(Int32Builder::with_capacity(rows)),
            DataType::Int64 => Self::Big(Int64Builder::with_capacity(rows)),
            DataType::Float32 => Self::Real(Float32Builder::with_capacity(rows)),
            DataType::Float64 => Self::Float(Float64Builder::with_capacity(rows)),
            DataType::Decimal128(precision, scale) => Self::Decimal {
                to: Decimal128Builder::with_capacity(rows).with_data_type(of.clone()),
                scale: scale.unsigned_abs(),
                limit: 10u128.pow(u32::from(*precision).min(38)),
            },
            DataType::Date32 => Self::Date(Date32Builder::with_capacity(rows)),
            DataType::Time64(_) => Self::Time(Time64MicrosecondBuilder::with_capacity(rows)),
            DataType::Timestamp(..) => {
                Self::Moment(TimestampMicrosecondBuilder::with_capacity(rows).with_data_type(of.clone()))
            }
            DataType::Binary => Self::Binary(BinaryBuilder::with_capacity(rows, bytes)),
            _ => Self::Text(StringBuilder::with_capacity(rows, bytes)),
        }
    }

    /// How many bytes there are of values that have no size of their own.
    fn bytes(&self) -> usize {
        match self {
            Self::Text(to) => to.values_slice().len(),
            Self::Binary(to) => to.values_slice().len(),
            _ => 0,
        }
    }

    /// Adds a value; about how many bytes it has. Nothing is added where the value does not fit.
    #[inline]
    fn append(&mut self, value: &ColumnData<'_>) -> std::result::Result<u64, Misfit> {
        use ColumnData as D;
        match (&mut *self, value) {
            (Self::Bool(to), D::Bit(value)) => to.append_option(*value),
            (Self::Tiny(to), D::U8(value)) => to.append_option(*value),
            (Self::Small(to), D::I16(value)) => to.append_option(*value),
            (Self::Int(to), D::I32(value)) => to.append_option(*value),
            (Self::Big(to), D::I64(value)) => to.append_option(*value),
            (Self::Real(to), D::F32(value)) => to.append_option(*value),
            (Self::Float(to), D::F64(value)) => to.append_option(*value),
            (Self::Text(to), D::String(Some(value))) => {
                room(to.values_slice().len(), value.len())?;
                to.append_value(value);
                return Ok(value.len() as u64 + 4);
            }
            (Self::Binary(to), D::Binary(Some(value))) => {
                room(to.values_slice().len(), value.len())?;
                to.append_value(value);
                return Ok(value.len() as u64 + 4);
            }
            (Self::Decimal { to, scale, limit }, D::Numeric(Some(value))) if value.scale() == *scale => {
                if value.value().unsigned_abs() >= *limit {
                    return Err(format!(
                        "{} has too many digits",
                        text_of(&D::Numeric(Some(*value))).unwrap_or_default()
                    ));
                }
                to.append_value(value.value());
                return Ok(16);
            }
            (Self::Date(to), D::Date(Some(value))) => to.append_value(ticks::days_since_1970(value.days())),
            (Self::Moment(_) | Self::Time(_), value) => return self.append_moment(value),
            _ => return self.append_other(value),
        }
        Ok(8)
    }

    /// Times, of whatever kind.
    fn append_moment(&mut self, value: &ColumnData<'_>) -> std::result::Result<u64, Misfit> {
        let Some(ticks) = Ticks::of(value) else {
            if is_null(value) {
                self.append_null();
                return Ok(8);
            }
            return Err(misfit(value));
        };
        match self {
            Self::Moment(to) if ticks.has_date() => to.append_value(ticks.micros_since_1970()),
            Self::Time(to) if !ticks.has_date() => to.append_value(ticks.micros()),
            _ => return Err(misfit(value)),
        }
        Ok(8)
    }

    /// What is not the type's own form: NULLs, texts of other types, types that have grown since the catalog was asked.
    #[cold]
    fn append_other(&mut self, value: &ColumnData<'_>) -> std::result::Result<u64, Misfit> {
        if is_null(value) {
            self.append_null();
            return Ok(4);
        }
        match (&mut *self, value) {
            (Self::Text(to), value) => {
                let text = text_of(value).unwrap_or_default();
                room(to.values_slice().len(), text.len())?;
                to.append_value(&text);
                return Ok(text.len() as u64 + 4);
            }
            (Self::Decimal { to, scale, limit }, value) => {
                let number = scaled(value, *scale).filter(|number| number.unsigned_abs() < *limit);
                to.append_value(number.ok_or_else(|| misfit(value))?);
            }
            (Self::Float(to), ColumnData::F32(Some(value))) => to.append_value(f64::from(*value)),
            (Self::Small(to), value) => to.append_value(whole(value).ok_or_else(|| misfit(value))?),
            (Self::Int(to), value) => to.append_value(whole(value).ok_or_else(|| misfit(value))?),
            (Self::Big(to), value) => to.append_value(whole(value).ok_or_else(|| misfit(value))?),
            _ => return Err(misfit(value)),
        }
        Ok(16)
    }

    fn append_null(&mut self) {
        match self {
            Self::Bool(to) => to.append_null(),
            Self::Tiny(to) => to.append_null(),
            Self::Small(to) => to.append_null(),
            Self::Int(to) => to.append_null(),
            Self::Big(to) => to.append_null(),
            Self::Real(to) => to.append_null(),
            Self::Float(to) => to.append_null(),
            Self::Decimal { to, .. } => to.append_null(),
            Self::Date(to) => to.append_null(),
            Self::Time(to) => to.append_null(),
            Self::Moment(to) => to.append_null(),
            Self::Text(to) => to.append_null(),
            Self::Binary(to) => to.append_null(),
        }
    }

    fn finish(mut self) -> ArrayRef {
        match &mut self {
            Self::Bool(column) => Arc::new(column.finish()),
            Self::Tiny(column) => Arc::new(column.finish()),
            Self::Small(column) => Arc::new(column.finish()),
            Self::Int(column) => Arc::new(column.finish()),
            Self::Big(column) => Arc::new(column.finish()),
            Self::Real(column) => Arc::new(column.finish()),
            Self::Float(column) => Arc::new(column.finish()),
            Self::Decimal { to, .. } => Arc::new(to.finish()),
            Self::Date(column) => Arc::new(column.finish()),
            Self::Time(column) => Arc::new(column.finish()),
            Self::Moment(column) => Arc::new(column.finish()),
            Self::Text(column) => Arc::new(column.finish()),
            Self::Binary(column) => Arc::new(column.finish()),
        }
    }
}

fn room(used: usize, more: usize) -> std::result::Result<(), Misfit> {
    if used.saturating_add(more) > LONGEST {
        return Err(format!("a value of {more} bytes is longer than 2 GiB allow"));
    }
    Ok(())
}

/// The value in a message, shortened.
fn misfit(value: &ColumnData<'_>) -> Misfit {
    let text = text_of(value).unwrap_or_default();
    let short: String = text.chars().take(80).collect();
    format!("'{short}' is not of the column's type; if the table or view was changed, run again")
}

pub(super) fn is_null(value: &ColumnData<'_>) -> bool {
    use ColumnData as D;
    matches!(
        value,
        D::U8(None)
            | D::I16(None)
            | D::I32(None)
            | D::I64(None)
            | D::F32(None)
            | D::F64(None)
            | D::Bit(None)
            | D::String(None)
            | D::Guid(None)
            | D::Binary(None)
            | D::Numeric(None)
            | D::Xml(None)
            | D::DateTime(None)
            | D::SmallDateTime(None)
            | D::Time(None)
            | D::Date(None)
            | D::DateTime2(None)
            | D::DateTimeOffset(None)
    )
}

/// A whole number of any width, if it fits.
fn whole<T: TryFrom<i64>>(value: &ColumnData<'_>) -> Option<T> {
    let number = match value {
        ColumnData::Bit(value) => (*value).map(i64::from),
        ColumnData::U8(value) => value.map(i64::from),
        ColumnData::I16(value) => value.map(i64::from),
        ColumnData::I32(value) => value.map(i64::from),
        ColumnData::I64(value) => *value,
        _ => None,
    };
    T::try_from(number?).ok()
}

/// The digits of a decimal at a scale, if none is lost.
fn scaled(value: &ColumnData<'_>, scale: u8) -> Option<i128> {
    let (digits, at) = match value {
        ColumnData::Numeric(Some(value)) => (value.value(), value.scale()),
        // Money, which the driver makes a float of; four digits of it are sure up to 2^53 of them.
        ColumnData::F64(Some(value)) if value.abs() < 9e11 => ((value * 1e4).round() as i128, 4),
        value => (i128::from(whole::<i64>(value)?), 0),
    };
    if at <= scale {
        return digits.checked_mul(10i128.checked_pow(u32::from(scale - at))?);
    }
    let cut = 10i128.checked_pow(u32::from(at - scale))?;
    (digits % cut == 0).then_some(digits / cut)
}

/// Digits with the point where it belongs: `-12.50`.
pub(crate) fn decimal_text(digits: i128, scale: u8) -> String {
    let scale = usize::from(scale);
    let all = format!("{:0width$}", digits.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = all.split_at(all.len() - scale);
    let sign = if digits < 0 { "-" } else { "" };
    if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

/// Bytes in hexadecimal, as SQL Server shows them: `0x0A`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(2 + bytes.len() * 2);
    text.push_str("0x");
    for byte in bytes {
        let _ = write!(text, "{byte:02X}");
    }
    text
}

/// A value as text, as SQL Server shows it, times in ISO 8601; none for NULL.
pub(crate) fn text_of<'a>(value: &'a ColumnData<'_>) -> Option<Cow<'a, str>> {
    use ColumnData as D;
    Some(match value {
        D::String(text) => Cow::Borrowed(text.as_deref()?),
        D::Xml(text) => Cow::Borrowed((**text.as_ref()?).as_ref()),
        D::Bit(bit) => Cow::Borrowed(if (*bit)? { "1" } else { "0" }),
        D::U8(number) => (*number)?.to_string().into(),
        D::I16(number) => (*number)?.to_string().into(),
        D::I32(number) => (*number)?.to_string().into(),
        D::I64(number) => (*number)?.to_string().into(),
        D::F32(number) => (*number)?.to_string().into(),
        D::F64(number) => (*number)?.to_string().into(),
        D::Guid(guid) => {
            let mut room = [0; Hyphenated::LENGTH];
            (*guid)?.hyphenated().encode_upper(&mut room).to_owned().into()
        }
        D::Binary(bytes) => hex(bytes.as_deref()?).into(),
        D::Numeric(number) => {
            let number = (*number)?;
            decimal_text(number.value(), number.scale()).into()
        }
        moment => Ticks::of(moment)?.to_string().into(),
    })
}

#[cfg(test)]
mod tests {
    use arrow_schema::{Field, Schema};
    use tiberius::{
        ColumnType,
        numeric::Numeric,
        time::{Date, DateTime, DateTime2, DateTimeOffset, SmallDateTime, Time},
        xml::XmlData,
    };

    use super::*;
    use crate::types::SqlType;

    fn one(of: &SqlType, value: ColumnData<'static>) -> std::result::Result<String, String> {
        let schema = Arc::new(Schema::new(vec![Field::new("c", of.arrow(), true)]));
        let mut rows = Rows::new(&schema);
        let row = Row::builder().column("c", ColumnType::Null, value).build();
        rows.push(&row).unwrap();
        let filled = rows.finish().unwrap();
        assert_eq!(filled.rows.num_rows(), 1);
        match filled.rejects.first() {
            Some(reject) => {
                assert_eq!(reject.column.as_deref(), Some("c"));
                Err(reject.reason.clone())
            }
            None => Ok(towpath_testkit::rows::value(filled.rows.column(0), 0).unwrap_or_else(|| "NULL".to_owned())),
        }
    }

    #[test]
    fn values_come_out_as_sql_server_shows_them() {
        use ColumnData as D;
        // 738551 days from year 1 are 2023-02-01.
        let date = || Date::new(738_551);
        let uuid = uuid::Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        let offset = |minutes| DateTimeOffset::new(DateTime2::new(date(), Time::new(360_000_000_000, 7)), minutes);
        for (of, value, expect) in [
            (SqlType::Bit, D::Bit(Some(true)), "true"),
            (SqlType::TinyInt, D::U8(Some(255)), "255"),
            (SqlType::SmallInt, D::I16(Some(-7)), "-7"),
            (SqlType::Int, D::I32(Some(i32::MIN)), "-2147483648"),
            (SqlType::BigInt, D::I64(Some(i64::MAX)), "9223372036854775807"),
            (SqlType::BigInt, D::I32(Some(7)), "7"),
            (SqlType::Real, D::F32(Some(0.1)), "0.1"),
            (SqlType::Float, D::F64(Some(0.1)), "0.1"),
            (
                SqlType::Decimal(38, 10),
                D::Numeric(Some(Numeric::new_with_scale(-(10i128.pow(38) - 1), 10))),
                "-9999999999999999999999999999.9999999999",
            ),
            (SqlType::Decimal(5, 2), D::Numeric(Some(Numeric::new_with_scale(125, 1))), "12.50"),
            (
                SqlType::Money,
                D::Numeric(Some(Numeric::new_with_scale(i128::from(i64::MAX), 4))),
                "922337203685477.5807",
            ),
            (SqlType::SmallMoney, D::F64(Some(-214_748.364_8)), "-214748.3648"),
            (SqlType::Date, D::Date(Some(date())), "2023-02-01"),
            (SqlType::Date, D::Date(Some(Date::new(0))), "0001-01-01"),
            (SqlType::Date, D::Date(Some(Date::new(3_652_058))), "9999-12-31"),
            (SqlType::Time(0), D::Time(Some(Time::new(86_399, 0))), "23:59:59"),
            (SqlType::Time(7), D::Time(Some(Time::new(863_999_999_999, 7))), "23:59:59.999999"),
            (SqlType::DateTime, D::DateTime(Some(DateTime::new(0, 1))), "1900-01-01T00:00:00.003"),
            (SqlType::DateTime, D::DateTime(Some(DateTime::new(0, 2))), "1900-01-01T00:00:00.007"),
            (SqlType::DateTime, D::DateTime(Some(DateTime::new(-53_690, 3))), "1753-01-01T00:00:00.010"),
            (SqlType::DateTime, D::DateTime(Some(DateTime::new(2_958_463, 25_919_999))), "9999-12-31T23:59:59.997"),
            (SqlType::SmallDateTime, D::SmallDateTime(Some(SmallDateTime::new(65_535, 1439))), "2079-06-06T23:59:00"),
            (SqlType::DateTime2(0), D::DateTime2(Some(DateTime2::new(date(), Time::new(1, 0)))), "2023-02-01T00:00:01"),
            (
                SqlType::DateTime2(7),
                D::DateTime2(Some(DateTime2::new(Date::new(0), Time::new(19, 7)))),
                "0001-01-01T00:00:00.000001",
            ),
            (SqlType::DateTimeOffset(7), D::DateTimeOffset(Some(offset(120))), "2023-02-01T10:00:00Z"),
            (SqlType::UniqueIdentifier, D::Guid(Some(uuid)), "01234567-89AB-CDEF-0123-456789ABCDEF"),
            (SqlType::NVarChar(None), D::String(Some("größe 日本 \u{1f600}".into())), "größe 日本 \u{1f600}"),
            (SqlType::Xml, D::Xml(Some(Cow::Owned(XmlData::new("<a>1</a>")))), "<a>1</a>"),
            (SqlType::VarBinary(None), D::Binary(Some(vec![0, 255].into())), "00ff"),
            (SqlType::Variant, D::I32(Some(7)), "7"),
            (SqlType::Variant, D::Binary(Some(vec![0, 255].into())), "0x00FF"),
            (SqlType::Variant, D::Numeric(Some(Numeric::new_with_scale(-5, 2))), "-0.05"),
            (SqlType::Variant, D::DateTime(Some(DateTime::new(0, 1))), "1900-01-01T00:00:00.003"),
            (SqlType::Variant, D::Bit(Some(true)), "1"),
            (SqlType::Int, D::I32(None), "NULL"),
            (SqlType::Decimal(5, 2), D::Numeric(None), "NULL"),
            (SqlType::Money, D::F64(None), "NULL"),
            (SqlType::Variant, D::String(None), "NULL"),
            (SqlType::Time(3), D::Time(None), "NULL"),
            (SqlType::DateTime, D::DateTime(None), "NULL"),
            (SqlType::DateTimeOffset(3), D::DateTimeOffset(None), "NULL"),
            (SqlType::Xml, D::Xml(None), "NULL"),
        ] {
            assert_eq!(one(&of, value.clone()).as_deref(), Ok(expect), "{of} {value:?}");
        }
    }

    #[test]
    fn a_value_without_a_place_refuses_its_row() {
        use ColumnData as D;
        for (of, value, expect) in [
            (SqlType::Int, D::I64(Some(1 << 40)), "column c: '1099511627776' is not of the column's type"),
            (SqlType::Int, D::String(Some("x".into())), "column c: 'x' is not of the column's type"),
            (
                SqlType::Decimal(3, 1),
                D::Numeric(Some(Numeric::new_with_scale(1000, 1))),
                "column c: 100.0 has too many digits",
            ),
            (
                SqlType::Decimal(3, 1),
                D::Numeric(Some(Numeric::new_with_scale(125, 2))),
                "column c: '1.25' is not of the column's type",
            ),
            (SqlType::DateTime, D::Time(Some(Time::new(0, 0))), "column c: '00:00:00' is not of the column's type"),
            (SqlType::Date, D::DateTime(Some(DateTime::new(0, 0))), "column c: '1900-01-01T00:00:00.000' is not"),
            (SqlType::Bit, D::I32(Some(1)), "column c: '1' is not of the column's type"),
        ] {
            let reason = one(&of, value.clone()).unwrap_err();
            assert!(reason.starts_with(expect), "{of} {value:?}: {reason}");
        }
    }
}
