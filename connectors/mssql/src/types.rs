//! SQL Server's types: how they are written, what they are in Arrow, and what stands for them in a staging table.

use std::fmt;

use arrow_schema::{DataType, Field, TimeUnit};
use towpath_core::{Error, Result};

/// A type of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SqlType {
    Bit,
    TinyInt,
    SmallInt,
    Int,
    BigInt,
    Decimal(u8, u8),
    Money,
    SmallMoney,
    Real,
    Float,
    Date,
    Time(u8),
    DateTime,
    SmallDateTime,
    DateTime2(u8),
    DateTimeOffset(u8),
    /// Bytes of the column's code page.
    Char(u16),
    /// The same, `None` for `max`.
    VarChar(Option<u16>),
    /// UTF-16 units.
    NChar(u16),
    NVarChar(Option<u16>),
    Text,
    NText,
    Binary(u16),
    VarBinary(Option<u16>),
    Image,
    UniqueIdentifier,
    Xml,
    RowVersion,
    Variant,
    /// A type of somebody's own, or of geometry and the like.
    Other(String),
}

/// `decimal(10, 2)`, as it is written in CREATE TABLE.
impl fmt::Display for SqlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sized = |f: &mut fmt::Formatter<'_>, word: &str, size: Option<u16>| match size {
            Some(size) => write!(f, "{word}({size})"),
            None => write!(f, "{word}(max)"),
        };
        match self {
            Self::Decimal(precision, scale) => write!(f, "decimal({precision}, {scale})"),
            Self::Time(scale) => write!(f, "time({scale})"),
            Self::DateTime2(scale) => write!(f, "datetime2({scale})"),
            Self::DateTimeOffset(scale) => write!(f, "datetimeoffset({scale})"),
            Self::Char(size) => sized(f, "char", Some(*size)),
            Self::VarChar(size) => sized(f, "varchar", *size),
            Self::NChar(size) => sized(f, "nchar", Some(*size)),
            Self::NVarChar(size) => sized(f, "nvarchar", *size),
            Self::Binary(size) => sized(f, "binary", Some(*size)),
            Self::VarBinary(size) => sized(f, "varbinary", *size),
            Self::Other(name) => f.write_str(name),
            plain => f.write_str(match plain {
                Self::Bit => "bit",
                Self::TinyInt => "tinyint",
                Self::SmallInt => "smallint",
                Self::Int => "int",
                Self::BigInt => "bigint",
                Self::Money => "money",
                Self::SmallMoney => "smallmoney",
                Self::Real => "real",
                Self::Float => "float",
                Self::Date => "date",
                Self::DateTime => "datetime",
                Self::SmallDateTime => "smalldatetime",
                Self::Text => "text",
                Self::NText => "ntext",
                Self::Image => "image",
                Self::UniqueIdentifier => "uniqueidentifier",
                Self::Xml => "xml",
                Self::RowVersion => "rowversion",
                _ => "sql_variant",
            }),
        }
    }
}

/// The time zone of a moment; the offset it was written with is not kept.
pub(crate) const UTC: &str = "UTC";

impl SqlType {
    /// From a row of `sys.columns`: `length` in bytes, -1 for max.
    pub(crate) fn of(name: &str, length: i64, precision: i64, scale: i64) -> Self {
        let (precision, scale) = (precision.clamp(0, 255) as u8, scale.clamp(0, 255) as u8);
        let bytes = u16::try_from(length).ok().filter(|length| *length > 0);
        let units = bytes.map(|bytes| bytes / 2);
        match name.to_ascii_lowercase().as_str() {
            "bit" => Self::Bit,
            "tinyint" => Self::TinyInt,
            "smallint" => Self::SmallInt,
            "int" => Self::Int,
            "bigint" => Self::BigInt,
            "decimal" | "numeric" => Self::Decimal(precision, scale),
            "money" => Self::Money,
            "smallmoney" => Self::SmallMoney,
            "real" => Self::Real,
            "float" => Self::Float,
            "date" => Self::Date,
            "time" => Self::Time(scale),
            "datetime" => Self::DateTime,
            "smalldatetime" => Self::SmallDateTime,
            "datetime2" => Self::DateTime2(scale),
            "datetimeoffset" => Self::DateTimeOffset(scale),
            "char" => Self::Char(bytes.unwrap_or(1)),
            "varchar" => Self::VarChar(bytes),
            "nchar" => Self::NChar(units.unwrap_or(1)),
            "nvarchar" | "sysname" => Self::NVarChar(units),
            "text" => Self::Text,
            "ntext" => Self::NText,
            "binary" => Self::Binary(bytes.unwrap_or(1)),
            "varbinary" => Self::VarBinary(bytes),
            "image" => Self::Image,
            "uniqueidentifier" => Self::UniqueIdentifier,
            "xml" => Self::Xml,
            "timestamp" | "rowversion" => Self::RowVersion,
            "sql_variant" => Self::Variant,
            _ => Self::Other(name.to_owned()),
        }
    }

    /// What it is in Arrow, read and written.
    ///
    /// Times have microseconds: of `datetime2(7)` and the like the seventh digit is cut off, because nanoseconds in 64 bits end in 2262 and the
    /// year 9999 is in every database.
    pub(crate) fn arrow(&self) -> DataType {
        match self {
            Self::Bit => DataType::Boolean,
            Self::TinyInt => DataType::UInt8,
            Self::SmallInt => DataType::Int16,
            Self::Int => DataType::Int32,
            Self::BigInt => DataType::Int64,
            Self::Decimal(precision, scale) => DataType::Decimal128(*precision, i8::try_from(*scale).unwrap_or(0)),
            Self::Money => DataType::Decimal128(19, 4),
            Self::SmallMoney => DataType::Decimal128(10, 4),
            Self::Real => DataType::Float32,
            Self::Float => DataType::Float64,
            Self::Date => DataType::Date32,
            Self::Time(_) => DataType::Time64(TimeUnit::Microsecond),
            Self::DateTime | Self::SmallDateTime | Self::DateTime2(_) => {
                DataType::Timestamp(TimeUnit::Microsecond, None)
            }
            Self::DateTimeOffset(_) => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
            Self::Binary(_) | Self::VarBinary(_) | Self::Image | Self::RowVersion | Self::Other(_) => DataType::Binary,
            Self::Char(_)
            | Self::VarChar(_)
            | Self::NChar(_)
            | Self::NVarChar(_)
            | Self::Text
            | Self::NText
            | Self::UniqueIdentifier
            | Self::Xml
            | Self::Variant => DataType::Utf8,
        }
    }

    /// The type of the column that stands for it in a staging table: of ours, so that what the driver encodes is what the server expects. All are
    /// nullable. `None`: a value of this type cannot be loaded.
    pub(crate) fn staged(&self) -> Option<Self> {
        Some(match self {
            Self::Money => Self::Decimal(19, 4),
            Self::SmallMoney => Self::Decimal(10, 4),
            // The driver writes a scale other than 7 wrongly.
            Self::Time(_) => Self::Time(7),
            Self::DateTime | Self::SmallDateTime | Self::DateTime2(_) => Self::DateTime2(7),
            Self::DateTimeOffset(_) => Self::DateTimeOffset(7),
            Self::Char(size) | Self::VarChar(Some(size)) => {
                Self::NVarChar(Some((*size).min(4000)).filter(|_| *size <= 4000))
            }
            Self::NChar(size) => Self::NVarChar(Some(*size)),
            Self::VarChar(None) | Self::Text | Self::NText | Self::Xml => Self::NVarChar(None),
            Self::Binary(size) => Self::VarBinary(Some(*size)),
            Self::Image => Self::VarBinary(None),
            Self::RowVersion | Self::Variant | Self::Other(_) => return None,
            same => same.clone(),
        })
    }

    /// Whether its text is in a code page, in which not every character has a place.
    pub(crate) fn has_code_page(&self) -> bool {
        matches!(self, Self::Char(_) | Self::VarChar(_) | Self::Text)
    }

    /// Whether it holds text that a collation compares.
    pub(crate) fn is_text(&self) -> bool {
        self.has_code_page() || matches!(self, Self::NChar(_) | Self::NVarChar(_) | Self::NText)
    }

    /// Whether one of its values may be so long that the driver's bulk load does not take it.
    pub(crate) fn is_max(&self) -> bool {
        matches!(self, Self::NVarChar(None) | Self::VarBinary(None))
    }

    /// The type that a column of ours gets for rows that come with this field. `key`: it is to be part of a key, which must be short.
    pub(crate) fn declared(field: &Field, key: bool) -> Result<Self> {
        use DataType as T;
        Ok(match field.data_type() {
            T::Boolean => Self::Bit,
            T::UInt8 => Self::TinyInt,
            T::Int8 | T::Int16 => Self::SmallInt,
            T::UInt16 | T::Int32 => Self::Int,
            T::UInt32 | T::Int64 => Self::BigInt,
            T::UInt64 => Self::Decimal(20, 0),
            T::Float16 | T::Float32 => Self::Real,
            T::Float64 => Self::Float,
            T::Decimal32(precision, scale)
            | T::Decimal64(precision, scale)
            | T::Decimal128(precision, scale)
            | T::Decimal256(precision, scale)
                if *precision <= 38 && (0..=38).contains(scale) =>
            {
                Self::Decimal(*precision, scale.unsigned_abs())
            }
            T::Date32 | T::Date64 => Self::Date,
            T::Time32(_) | T::Time64(_) => Self::Time(7),
            T::Timestamp(_, None) => Self::DateTime2(7),
            T::Timestamp(_, Some(_)) => Self::DateTimeOffset(7),
            T::Utf8 | T::LargeUtf8 | T::Utf8View | T::Null if key => Self::NVarChar(Some(KEY_TEXT)),
            T::Utf8 | T::LargeUtf8 | T::Utf8View | T::Null => Self::NVarChar(None),
            T::FixedSizeBinary(size @ 1..=8000) => Self::Binary(u16::try_from(*size).unwrap_or(8000)),
            T::Binary | T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_) if key => {
                Self::VarBinary(Some(KEY_BYTES))
            }
            T::Binary | T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_) => Self::VarBinary(None),
            T::Dictionary(_, value) => Self::declared(&Field::new(field.name(), (**value).clone(), true), key)?,
            other => {
                return Err(Error::config(format!("column {}: SQL Server has no type for {other}", field.name()))
                    .hint("make it text, or explode it, in a transform before the sink"));
            }
        })
    }
}

/// An index of SQL Server takes 900 bytes of a clustered key.
const KEY_TEXT: u16 = 450;
const KEY_BYTES: u16 = 900;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_written_as_they_are_read() {
        for (name, length, precision, scale, written, staged) in [
            ("bit", 1, 1, 0, "bit", "bit"),
            ("numeric", 9, 18, 4, "decimal(18, 4)", "decimal(18, 4)"),
            ("money", 8, 19, 4, "money", "decimal(19, 4)"),
            ("time", 3, 8, 0, "time(0)", "time(7)"),
            ("datetime", 8, 23, 3, "datetime", "datetime2(7)"),
            ("datetimeoffset", 10, 34, 7, "datetimeoffset(7)", "datetimeoffset(7)"),
            ("varchar", 5000, 0, 0, "varchar(5000)", "nvarchar(max)"),
            ("varchar", 50, 0, 0, "varchar(50)", "nvarchar(50)"),
            ("varchar", -1, 0, 0, "varchar(max)", "nvarchar(max)"),
            ("nvarchar", 8000, 0, 0, "nvarchar(4000)", "nvarchar(4000)"),
            ("sysname", 256, 0, 0, "nvarchar(128)", "nvarchar(128)"),
            ("nchar", 20, 0, 0, "nchar(10)", "nvarchar(10)"),
            ("varbinary", -1, 0, 0, "varbinary(max)", "varbinary(max)"),
            ("image", 16, 0, 0, "image", "varbinary(max)"),
            ("xml", -1, 0, 0, "xml", "nvarchar(max)"),
        ] {
            let of = SqlType::of(name, length, precision, scale);
            assert_eq!(of.to_string(), written, "{name}");
            assert_eq!(of.staged().unwrap().to_string(), staged, "{name}");
        }
        for none in ["timestamp", "sql_variant", "geography"] {
            assert_eq!(SqlType::of(none, 8, 0, 0).staged(), None, "{none}");
        }
    }
}
