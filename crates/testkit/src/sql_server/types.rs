//! T-SQL's types: their names, what they are stored as, and which wins where two meet.
//!
//! Stored in SQLite so that its own comparison is right: integers and bits as integers, `money` as ten-thousandths, dates and times as
//! ticks ([`calendar`](super::calendar)), decimals as sixteen sortable bytes ([`decimal`](super::decimal)), text as UTF-8 under a
//! collation of ours, GUIDs as bytes in the order in which SQL Server compares them, `datetimeoffset` as UTC ticks and the offset.

use std::fmt;

use super::error::{Sql, SqlError};

/// A length in characters (or bytes); `None` is `max`.
pub(crate) type Len = Option<u16>;

/// A type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Ty {
    Bit,
    TinyInt,
    SmallInt,
    Int,
    BigInt,
    Real,
    Float,
    Decimal { p: u8, s: u8, numeric: bool },
    Money,
    SmallMoney,
    Date,
    Time(u8),
    SmallDateTime,
    DateTime,
    DateTime2(u8),
    DateTimeOffset(u8),
    Guid,
    Char(u16),
    VarChar(Len),
    NChar(u16),
    NVarChar(Len),
    Binary(u16),
    VarBinary(Len),
    Xml,
}

impl Ty {
    /// A decimal.
    pub const fn decimal(p: u8, s: u8) -> Self {
        Self::Decimal { p, s, numeric: false }
    }
    pub const NAME: Self = Self::NVarChar(Some(128));

    /// From its name and what stands in parentheses; `max` is `u32::MAX`.
    pub fn parse(name: &str, arguments: &[u32]) -> Sql<Self> {
        let lower = name.to_ascii_lowercase();
        let first = arguments.first().copied();
        let scale = |default: u8| match first {
            None => Ok(default),
            Some(scale @ 0..=7) => Ok(u8::try_from(scale).unwrap_or(7)),
            Some(scale) => Err(SqlError::of(1002, format!("Line 1: Specified scale {scale} is invalid."))),
        };
        let limit = |most: u16| match first {
            None => Ok(Some(1)),
            Some(u32::MAX) => Ok(None),
            Some(0) => Err(SqlError::of(1001, "Line 1: Length or precision specification 0 is invalid.")),
            Some(length) => match u16::try_from(length) {
                Ok(length) if length <= most => Ok(Some(length)),
                _ => Err(SqlError::of(
                    131,
                    format!("The size ({length}) given to the type '{lower}' exceeds the maximum allowed ({most})."),
                )),
            },
        };
        let fixed = |most: u16| Ok::<u16, SqlError>(limit(most)?.unwrap_or(most));
        Ok(match lower.as_str() {
            "bit" => Self::Bit,
            "tinyint" => Self::TinyInt,
            "smallint" => Self::SmallInt,
            "int" | "integer" => Self::Int,
            "bigint" => Self::BigInt,
            "real" => Self::Real,
            "float" if first.is_some_and(|bits| bits <= 24) => Self::Real,
            "float" => Self::Float,
            "decimal" | "dec" | "numeric" => {
                let p = first.unwrap_or(18);
                let s = arguments.get(1).copied().unwrap_or(0);
                if !(1..=38).contains(&p) || s > p {
                    return Err(SqlError::of(
                        2750,
                        format!(
                            "Column or parameter: Specified column precision {p} is greater than the maximum precision of 38."
                        ),
                    ));
                }
                let [p, s] = [p, s].map(|n| u8::try_from(n).unwrap_or(38));
                Self::Decimal { p, s, numeric: lower == "numeric" }
            }
            "money" => Self::Money,
            "smallmoney" => Self::SmallMoney,
            "date" => Self::Date,
            "time" => Self::Time(scale(7)?),
            "smalldatetime" => Self::SmallDateTime,
            "datetime" => Self::DateTime,
            "datetime2" => Self::DateTime2(scale(7)?),
            "datetimeoffset" => Self::DateTimeOffset(scale(7)?),
            "uniqueidentifier" => Self::Guid,
            "char" | "character" => Self::Char(fixed(8000)?),
            "varchar" => Self::VarChar(limit(8000)?),
            "nchar" => Self::NChar(fixed(4000)?),
            "nvarchar" => Self::NVarChar(limit(4000)?),
            "binary" => Self::Binary(fixed(8000)?),
            "varbinary" => Self::VarBinary(limit(8000)?),
            "text" => Self::VarChar(None),
            "ntext" => Self::NVarChar(None),
            "image" => Self::VarBinary(None),
            "sysname" => Self::NAME,
            "xml" => Self::Xml,
            _ => {
                return Err(SqlError::of(
                    2715,
                    format!("Column, parameter, or variable: Cannot find data type {name}."),
                ));
            }
        })
    }

    /// Its name without length, as `sys.types` and messages have it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Bit => "bit",
            Self::TinyInt => "tinyint",
            Self::SmallInt => "smallint",
            Self::Int => "int",
            Self::BigInt => "bigint",
            Self::Real => "real",
            Self::Float => "float",
            Self::Decimal { numeric: false, .. } => "decimal",
            Self::Decimal { .. } => "numeric",
            Self::Money => "money",
            Self::SmallMoney => "smallmoney",
            Self::Date => "date",
            Self::Time(_) => "time",
            Self::SmallDateTime => "smalldatetime",
            Self::DateTime => "datetime",
            Self::DateTime2(_) => "datetime2",
            Self::DateTimeOffset(_) => "datetimeoffset",
            Self::Guid => "uniqueidentifier",
            Self::Char(_) => "char",
            Self::VarChar(_) => "varchar",
            Self::NChar(_) => "nchar",
            Self::NVarChar(_) => "nvarchar",
            Self::Binary(_) => "binary",
            Self::VarBinary(_) => "varbinary",
            Self::Xml => "xml",
        }
    }

    /// One number that says it all, for the functions that SQLite calls.
    pub fn code(&self) -> i64 {
        let (kind, a, b): (i64, i64, i64) = match *self {
            Self::Bit => (1, 0, 0),
            Self::TinyInt => (2, 0, 0),
            Self::SmallInt => (3, 0, 0),
            Self::Int => (4, 0, 0),
            Self::BigInt => (5, 0, 0),
            Self::Real => (6, 0, 0),
            Self::Float => (7, 0, 0),
            Self::Decimal { p, s, numeric } => (8 + i64::from(numeric), p.into(), s.into()),
            Self::Money => (10, 0, 0),
            Self::SmallMoney => (11, 0, 0),
            Self::Date => (12, 0, 0),
            Self::Time(s) => (13, 0, s.into()),
            Self::SmallDateTime => (14, 0, 0),
            Self::DateTime => (15, 0, 0),
            Self::DateTime2(s) => (16, 0, s.into()),
            Self::DateTimeOffset(s) => (17, 0, s.into()),
            Self::Guid => (18, 0, 0),
            Self::Char(n) => (19, n.into(), 0),
            Self::VarChar(n) => (20, n.unwrap_or(0).into(), 0),
            Self::NChar(n) => (21, n.into(), 0),
            Self::NVarChar(n) => (22, n.unwrap_or(0).into(), 0),
            Self::Binary(n) => (23, n.into(), 0),
            Self::VarBinary(n) => (24, n.unwrap_or(0).into(), 0),
            Self::Xml => (25, 0, 0),
        };
        kind << 24 | a << 8 | b
    }
    /// The reverse.
    pub fn from_code(code: i64) -> Self {
        let n = u16::try_from(code >> 8 & 0xffff).unwrap_or(0);
        let s = u8::try_from(code & 0xff).unwrap_or(0);
        let p = u8::try_from(n & 0xff).unwrap_or(0);
        let len = (n > 0).then_some(n);
        match code >> 24 {
            1 => Self::Bit,
            2 => Self::TinyInt,
            3 => Self::SmallInt,
            4 => Self::Int,
            5 => Self::BigInt,
            6 => Self::Real,
            7 => Self::Float,
            8 => Self::Decimal { p, s, numeric: false },
            9 => Self::Decimal { p, s, numeric: true },
            10 => Self::Money,
            11 => Self::SmallMoney,
            12 => Self::Date,
            13 => Self::Time(s),
            14 => Self::SmallDateTime,
            15 => Self::DateTime,
            16 => Self::DateTime2(s),
            17 => Self::DateTimeOffset(s),
            18 => Self::Guid,
            19 => Self::Char(n),
            20 => Self::VarChar(len),
            21 => Self::NChar(n),
            22 => Self::NVarChar(len),
            23 => Self::Binary(n),
            24 => Self::VarBinary(len),
            _ => Self::Xml,
        }
    }

    /// What its column is declared as in SQLite, of a STRICT table. (Not INTEGER, which a primary key would make the row's id.)
    pub fn storage(&self) -> &'static str {
        match self {
            Self::Real | Self::Float => "REAL",
            _ if self.is_text() => "TEXT",
            Self::Decimal { .. } | Self::Guid | Self::Binary(_) | Self::VarBinary(_) | Self::DateTimeOffset(_) => {
                "BLOB"
            }
            _ => "INT",
        }
    }
    pub fn is_text(&self) -> bool {
        matches!(self, Self::Char(_) | Self::VarChar(_) | Self::NChar(_) | Self::NVarChar(_) | Self::Xml)
    }
    pub fn is_national(&self) -> bool {
        matches!(self, Self::NChar(_) | Self::NVarChar(_) | Self::Xml)
    }
    pub fn is_binary(&self) -> bool {
        matches!(self, Self::Binary(_) | Self::VarBinary(_))
    }
    pub fn is_integer(&self) -> bool {
        matches!(self, Self::Bit | Self::TinyInt | Self::SmallInt | Self::Int | Self::BigInt)
    }
    pub fn is_number(&self) -> bool {
        self.is_integer()
            || matches!(self, Self::Real | Self::Float | Self::Decimal { .. } | Self::Money | Self::SmallMoney)
    }
    pub fn is_moment(&self) -> bool {
        matches!(
            self,
            Self::Date
                | Self::Time(_)
                | Self::SmallDateTime
                | Self::DateTime
                | Self::DateTime2(_)
                | Self::DateTimeOffset(_)
        )
    }
    /// Characters (or bytes) it holds at most; `None`: no end, or no text.
    pub fn length(&self) -> Len {
        match *self {
            Self::Char(n) | Self::NChar(n) | Self::Binary(n) => Some(n),
            Self::VarChar(n) | Self::NVarChar(n) | Self::VarBinary(n) => n,
            _ => None,
        }
    }
    /// Precision and scale seen as a decimal.
    pub fn precision(&self) -> (u8, u8) {
        match *self {
            Self::Bit => (1, 0),
            Self::TinyInt => (3, 0),
            Self::SmallInt => (5, 0),
            Self::Int => (10, 0),
            Self::BigInt => (19, 0),
            Self::Decimal { p, s, .. } => (p, s),
            Self::Money => (19, 4),
            Self::SmallMoney => (10, 4),
            _ => (38, 6),
        }
    }
    /// `max_length`, `precision` and `scale` of `sys.columns`: bytes, −1 for `max`.
    pub fn catalog(&self) -> (i64, i64, i64) {
        let bytes = |n: Len, width: i64| n.map_or(-1, |n| i64::from(n) * width);
        match *self {
            Self::Bit => (1, 1, 0),
            Self::TinyInt => (1, 3, 0),
            Self::SmallInt => (2, 5, 0),
            Self::Int => (4, 10, 0),
            Self::BigInt => (8, 19, 0),
            Self::Real => (4, 24, 0),
            Self::Float => (8, 53, 0),
            Self::Decimal { p, s, .. } => (decimal_bytes(p).into(), p.into(), s.into()),
            Self::Money => (8, 19, 4),
            Self::SmallMoney => (4, 10, 4),
            Self::Date => (3, 10, 0),
            Self::Time(s) => (time_bytes(s).into(), if s == 0 { 8 } else { 9 + i64::from(s) }, s.into()),
            Self::SmallDateTime => (4, 16, 0),
            Self::DateTime => (8, 23, 3),
            Self::DateTime2(s) => (i64::from(time_bytes(s)) + 3, if s == 0 { 19 } else { 20 + i64::from(s) }, s.into()),
            Self::DateTimeOffset(s) => {
                (i64::from(time_bytes(s)) + 5, if s == 0 { 26 } else { 27 + i64::from(s) }, s.into())
            }
            Self::Guid => (16, 0, 0),
            Self::Char(n) => (n.into(), 0, 0),
            Self::Binary(n) => (n.into(), 0, 0),
            Self::NChar(n) => (i64::from(n) * 2, 0, 0),
            Self::VarChar(n) | Self::VarBinary(n) => (bytes(n, 1), 0, 0),
            Self::NVarChar(n) => (bytes(n, 2), 0, 0),
            Self::Xml => (-1, 0, 0),
        }
    }
    /// `system_type_id` of `sys.types`.
    pub fn system_id(&self) -> i64 {
        match self {
            Self::Bit => 104,
            Self::TinyInt => 48,
            Self::SmallInt => 52,
            Self::Int => 56,
            Self::BigInt => 127,
            Self::Real => 59,
            Self::Float => 62,
            Self::Decimal { numeric: false, .. } => 106,
            Self::Decimal { .. } => 108,
            Self::Money => 60,
            Self::SmallMoney => 122,
            Self::Date => 40,
            Self::Time(_) => 41,
            Self::SmallDateTime => 58,
            Self::DateTime => 61,
            Self::DateTime2(_) => 42,
            Self::DateTimeOffset(_) => 43,
            Self::Guid => 36,
            Self::Char(_) => 175,
            Self::VarChar(_) => 167,
            Self::NChar(_) => 239,
            Self::NVarChar(_) => 231,
            Self::Binary(_) => 173,
            Self::VarBinary(_) => 165,
            Self::Xml => 241,
        }
    }
    /// "Data type precedence" (T-SQL reference): the higher wins.
    fn rank(&self) -> u8 {
        match self {
            Self::Xml => 28,
            Self::DateTimeOffset(_) => 27,
            Self::DateTime2(_) => 26,
            Self::DateTime => 25,
            Self::SmallDateTime => 24,
            Self::Date => 23,
            Self::Time(_) => 22,
            Self::Float => 21,
            Self::Real => 20,
            Self::Decimal { .. } => 19,
            Self::Money => 18,
            Self::SmallMoney => 17,
            Self::BigInt => 16,
            Self::Int => 15,
            Self::SmallInt => 14,
            Self::TinyInt => 13,
            Self::Bit => 12,
            Self::Guid => 11,
            Self::NVarChar(_) => 10,
            Self::NChar(_) => 9,
            Self::VarChar(_) => 8,
            Self::Char(_) => 7,
            Self::VarBinary(_) => 6,
            Self::Binary(_) => 5,
        }
    }
    /// What two become where they meet, in a comparison, CASE or UNION.
    pub fn common(&self, other: &Self) -> Self {
        let longest = || match (self.length(), other.length()) {
            (Some(a), Some(b)) => Some(a.max(b)),
            _ => None,
        };
        let winner = if self.rank() >= other.rank() { *self } else { *other };
        match winner {
            Self::Decimal { numeric, .. } if self.is_number() && other.is_number() => {
                let ((p, s), (q, t)) = (self.precision(), other.precision());
                let scale = s.max(t);
                let p = (p - s).max(q - t) + scale;
                Self::Decimal { p: p.min(38), s: scale.min(38), numeric }
            }
            Self::NVarChar(_) if self.is_text() && other.is_text() => Self::NVarChar(longest()),
            Self::NChar(n) if self.is_text() && other.is_text() => match (self, other) {
                (Self::NChar(a), Self::NChar(b)) => Self::NChar(*a.max(b)),
                (Self::VarChar(_), _) | (_, Self::VarChar(_)) => Self::NVarChar(longest()),
                _ => Self::NChar(longest().unwrap_or(n)),
            },
            Self::VarChar(_) if self.is_text() && other.is_text() => Self::VarChar(longest()),
            Self::Char(a) => Self::Char(longest().unwrap_or(a)),
            Self::VarBinary(_) => Self::VarBinary(longest()),
            Self::Binary(a) => Self::Binary(longest().unwrap_or(a)),
            Self::DateTime2(a) => Self::DateTime2(a.max(other.scale())),
            Self::DateTimeOffset(a) => Self::DateTimeOffset(a.max(other.scale())),
            winner => winner,
        }
    }
    /// Digits of fractional seconds.
    pub fn scale(&self) -> u8 {
        match *self {
            Self::Time(s) | Self::DateTime2(s) | Self::DateTimeOffset(s) => s,
            Self::DateTime => 3,
            _ => 0,
        }
    }
    /// Whether values of `from` are stored in this type as they are, without a look at each.
    pub fn takes(&self, from: &Self) -> bool {
        if self == from {
            return true;
        }
        let fits = |n: Len, from: Len| match (n, from) {
            (None, _) => true,
            (Some(n), Some(from)) => from <= n,
            _ => false,
        };
        match (*self, *from) {
            (Self::BigInt, Self::Int | Self::SmallInt | Self::TinyInt | Self::Bit)
            | (Self::Int, Self::SmallInt | Self::TinyInt | Self::Bit)
            | (Self::SmallInt, Self::TinyInt | Self::Bit)
            | (Self::TinyInt, Self::Bit)
            | (Self::Money, Self::SmallMoney)
            | (Self::Float, Self::Real)
            | (Self::DateTime2(_), Self::Date)
            | (Self::DateTime, Self::SmallDateTime) => true,
            (Self::DateTime2(s), Self::DateTime) => s >= 3,
            (Self::DateTime2(_), Self::SmallDateTime) => true,
            (Self::DateTime2(s), Self::DateTime2(t)) | (Self::Time(s), Self::Time(t)) => s >= t,
            (Self::DateTimeOffset(s), Self::DateTimeOffset(t)) => s >= t,
            (Self::Decimal { p, s, .. }, Self::Decimal { p: q, s: t, .. }) => s == t && p >= q,
            (Self::NVarChar(n), Self::NVarChar(m)) => fits(n, m),
            (Self::NVarChar(n), Self::NChar(m) | Self::Char(m)) => fits(n, Some(m)),
            (Self::NVarChar(n), Self::VarChar(m)) => fits(n, m),
            (Self::VarChar(n), Self::VarChar(m)) => fits(n, m),
            (Self::VarChar(n), Self::Char(m)) => fits(n, Some(m)),
            (Self::VarBinary(n), Self::VarBinary(m)) => fits(n, m),
            (Self::VarBinary(n), Self::Binary(m)) => fits(n, Some(m)),
            _ => false,
        }
    }
}

/// Bytes of a decimal on the wire, sign included (MS-TDS 2.2.5.5.1.6).
pub(crate) fn decimal_bytes(precision: u8) -> u8 {
    match precision {
        0..=9 => 5,
        10..=19 => 9,
        20..=28 => 13,
        _ => 17,
    }
}

/// Bytes of a time of day on the wire (MS-TDS 2.2.5.5.1.8).
pub(crate) fn time_bytes(scale: u8) -> u8 {
    match scale {
        0..=2 => 3,
        3..=4 => 4,
        _ => 5,
    }
}

impl fmt::Display for Ty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name();
        match *self {
            Self::Decimal { p, s, .. } => write!(f, "{name}({p},{s})"),
            Self::Time(s) | Self::DateTime2(s) | Self::DateTimeOffset(s) => write!(f, "{name}({s})"),
            Self::Char(n) | Self::NChar(n) | Self::Binary(n) => write!(f, "{name}({n})"),
            Self::VarChar(None) | Self::NVarChar(None) | Self::VarBinary(None) => write!(f, "{name}(max)"),
            Self::VarChar(Some(n)) | Self::NVarChar(Some(n)) | Self::VarBinary(Some(n)) => write!(f, "{name}({n})"),
            _ => f.write_str(name),
        }
    }
}
