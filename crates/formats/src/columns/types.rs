//! `columns:` as it stands in a config.

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

use arrow_schema::{DataType, TimeUnit};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, SeqAccess, Visitor},
    ser::SerializeMap,
};

/// The types of columns by name, in the order in which they stand.
///
/// In a config a map from name to type, or a list of such maps. Columns that are not named are text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns(Vec<(String, ColumnType)>);

/// The type of a column.
///
/// In a config a word (`text`, `int64`, `float64`, `decimal(10,2)`, `bool`, `date`, `timestamp`), or a map with `type` and what
/// goes with it: `{ type: timestamp, format: "%d.%m.%Y %H:%M:%S", timezone: Europe/Berlin }`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ColumnType {
    /// Text as it stands. Arrow `Utf8`.
    #[default]
    Text,
    /// A whole number, with an optional sign. Arrow `Int64`.
    Int64,
    /// A number such as `1.5`, `-2e-3`, `nan`, `inf`, with a decimal point. Arrow `Float64`.
    Float64,
    /// A number with a fixed count of digits behind the point; one with more of them that are not zero does not parse. Arrow
    /// `Decimal128`.
    Decimal {
        /// All digits, 1 to 38.
        precision: u8,
        /// Digits behind the point, at most `precision`.
        scale: u8,
    },
    /// `true`/`false`, `t`/`f`, `yes`/`no`, `y`/`n`, `1`/`0`, in upper or lower case. Arrow `Boolean`.
    Bool,
    /// A day. Arrow `Date32`.
    Date {
        /// How it is written, as in strptime: `%d.%m.%Y`. ISO 8601 (`2026-01-31`) if not said.
        format: Option<String>,
    },
    /// A moment, to the microsecond; finer digits are cut off. Arrow `Timestamp(Microsecond, None)`, or with zone `UTC` where a time zone
    /// is declared.
    Timestamp {
        /// How it is written, as in strptime. ISO 8601 if not said: `2026-01-31T05:00:00.25`, `T` or a space, seconds and
        /// fraction optional.
        format: Option<String>,
        /// The zone (`Europe/Berlin`, `UTC`) of values that say no offset; they become UTC. A time that the clock shows twice is the first
        /// of the two, one that it leaves out does not parse. Without a zone a value with an offset does not parse.
        timezone: Option<String>,
    },
}

impl Columns {
    /// From names and types.
    ///
    /// # Errors
    /// A name that stands twice.
    pub fn new(columns: impl IntoIterator<Item = (String, ColumnType)>) -> Result<Self, String> {
        let mut all = Self::default();
        for (name, of) in columns {
            all.add(name, of)?;
        }
        Ok(all)
    }
    pub(super) fn add(&mut self, name: String, of: ColumnType) -> Result<(), String> {
        if self.get(&name).is_some() {
            return Err(format!("column '{name}' stands there twice"));
        }
        self.0.push((name, of));
        Ok(())
    }
    /// The type of a column, if it is declared.
    pub fn get(&self, name: &str) -> Option<&ColumnType> {
        self.0.iter().find(|(column, _)| column == name).map(|(_, of)| of)
    }
    /// Names and types, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &ColumnType)> {
        self.0.iter().map(|(name, of)| (name.as_str(), of))
    }
    /// How many columns are declared.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// A block to paste into a config.
    pub fn to_yaml(&self) -> String {
        let mut out = String::from(if self.is_empty() { "columns: {}\n" } else { "columns:\n" });
        for (name, of) in self.iter() {
            let map = |parts: &[(&str, &Option<String>)]| {
                let parts =
                    parts.iter().filter_map(|(key, value)| Some(format!(", {key}: {}", quoted(value.as_ref()?))));
                parts.collect::<String>()
            };
            let of = match of {
                ColumnType::Date { format } if format.is_some() => {
                    format!("{{ type: date{} }}", map(&[("format", format)]))
                }
                ColumnType::Timestamp { format, timezone } if format.is_some() || timezone.is_some() => {
                    format!("{{ type: timestamp{} }}", map(&[("format", format), ("timezone", timezone)]))
                }
                of => of.to_string(),
            };
            let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
                && name.starts_with(|c: char| c.is_ascii_alphabetic())
                && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
                    .contains(&name.to_ascii_lowercase().as_str());
            let name = if plain { Cow::Borrowed(name) } else { Cow::Owned(quoted(name)) };
            out.push_str(&format!("  {name}: {of}\n"));
        }
        out
    }
}

/// A YAML string in double quotes, which is one of JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

impl ColumnType {
    /// The Arrow type of its values.
    pub fn data_type(&self) -> DataType {
        match self {
            Self::Text => DataType::Utf8,
            Self::Int64 => DataType::Int64,
            Self::Float64 => DataType::Float64,
            // At most 38, which fits.
            Self::Decimal { precision, scale } => DataType::Decimal128(*precision, i8::try_from(*scale).unwrap_or(0)),
            Self::Bool => DataType::Boolean,
            Self::Date { .. } => DataType::Date32,
            Self::Timestamp { timezone, .. } => {
                DataType::Timestamp(TimeUnit::Microsecond, timezone.as_ref().map(|_| Arc::from("UTC")))
            }
        }
    }
    /// Whether its values are kept as they are.
    pub fn is_text(&self) -> bool {
        matches!(self, Self::Text)
    }
    fn word(&self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Int64 => "int64",
            Self::Float64 => "float64",
            Self::Decimal { .. } => "decimal",
            Self::Bool => "bool",
            Self::Date { .. } => "date",
            Self::Timestamp { .. } => "timestamp",
        }
    }
}

/// Without format and time zone, which stand in the map form.
impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            other => f.write_str(other.word()),
        }
    }
}

fn decimal(precision: u8, scale: u8) -> Result<ColumnType, String> {
    if (1..=38).contains(&precision) && scale <= precision {
        return Ok(ColumnType::Decimal { precision, scale });
    }
    Err(format!("decimal({precision},{scale}) must have 1 to 38 digits, and no more behind the point than in all"))
}

impl FromStr for ColumnType {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        Ok(match text {
            "text" => Self::Text,
            "int64" => Self::Int64,
            "float64" => Self::Float64,
            "bool" => Self::Bool,
            "date" => Self::Date { format: None },
            "timestamp" => Self::Timestamp { format: None, timezone: None },
            _ => {
                let digits = text.strip_prefix("decimal").map(str::trim).and_then(|rest| rest.strip_prefix('('));
                let digits = digits.and_then(|rest| rest.strip_suffix(')')).and_then(|rest| rest.split_once(','));
                let Some((Ok(precision), Ok(scale))) = digits.map(|(p, s)| (p.trim().parse(), s.trim().parse())) else {
                    return Err(format!(
                        "'{text}' is not a type; there are text, int64, float64, decimal(10,2), bool, date and timestamp"
                    ));
                };
                decimal(precision, scale)?
            }
        })
    }
}

/// The map form.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Form {
    r#type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    format: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timezone: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    precision: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scale: Option<u8>,
}

impl Form {
    fn column_type(self) -> Result<ColumnType, String> {
        let Self { r#type, format, timezone, precision, scale } = self;
        let mut of = match (r#type.as_str(), precision) {
            ("decimal", Some(precision)) => return decimal(precision, scale.unwrap_or(0)),
            _ => r#type.parse::<ColumnType>()?,
        };
        let name = of.word();
        let unused = |key: &str| Err(format!("`{key}` does not go with type {name}"));
        let left = match &mut of {
            ColumnType::Timestamp { format: f, timezone: z } => {
                (*f, *z) = (format, timezone);
                (None, None)
            }
            ColumnType::Date { format: f } => {
                *f = format;
                (None, timezone)
            }
            _ => (format, timezone),
        };
        match left {
            (Some(_), _) => unused("format"),
            (_, Some(_)) => unused("timezone"),
            _ if precision.is_some() => unused("precision"),
            _ if scale.is_some() => unused("scale"),
            _ => super::Parser::new(&of).map(|_| of).map_err(|error| error.message().to_owned()),
        }
    }
}

impl<'de> Deserialize<'de> for ColumnType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;
        impl<'de> Visitor<'de> for Reading {
            type Value = ColumnType;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a type such as int64, or a map with `type`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<ColumnType, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ColumnType, A::Error> {
                Form::deserialize(de::value::MapAccessDeserializer::new(map))?.column_type().map_err(de::Error::custom)
            }
        }
        deserializer.deserialize_any(Reading)
    }
}

impl Serialize for ColumnType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (format, timezone) = match self {
            Self::Date { format } => (format.clone(), None),
            Self::Timestamp { format, timezone } => (format.clone(), timezone.clone()),
            _ => (None, None),
        };
        if format.is_none() && timezone.is_none() {
            return serializer.collect_str(self);
        }
        Form { r#type: self.word().to_owned(), format, timezone, precision: None, scale: None }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;
        impl<'de> Visitor<'de> for Reading {
            type Value = Columns;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from column to type")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Columns, A::Error> {
                let mut all = Columns::default();
                while let Some((name, of)) = map.next_entry()? {
                    all.add(name, of).map_err(de::Error::custom)?;
                }
                Ok(all)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Columns, A::Error> {
                let mut all = Columns::default();
                while let Some(Columns(some)) = list.next_element()? {
                    for (name, of) in some {
                        all.add(name, of).map_err(de::Error::custom)?;
                    }
                }
                Ok(all)
            }
            fn visit_unit<E: de::Error>(self) -> Result<Columns, E> {
                Ok(Columns::default())
            }
        }
        deserializer.deserialize_any(Reading)
    }
}

impl Serialize for Columns {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.len()))?;
        for (name, of) in self.iter() {
            map.serialize_entry(name, of)?;
        }
        map.end()
    }
}

impl JsonSchema for ColumnType {
    fn schema_name() -> Cow<'static, str> {
        "ColumnType".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let word = r"^\s*(text|int64|float64|bool|date|timestamp|decimal\s*\(\s*[0-9]+\s*,\s*[0-9]+\s*\))\s*$";
        json_schema!({
            "description": "A type: `text`, `int64`, `float64`, `decimal(10,2)`, `bool`, `date`, `timestamp`, or a map with `type` and its options.",
            "anyOf": [
                { "type": "string", "pattern": word, "examples": ["int64", "decimal(10,2)", "timestamp"] },
                {
                    "type": "object",
                    "properties": {
                        "type": { "type": "string", "enum": ["text", "int64", "float64", "decimal", "bool", "date", "timestamp"] },
                        "format": { "type": "string", "description": "How dates and timestamps are written, as in strptime: `%d.%m.%Y %H:%M:%S`. Default: ISO 8601" },
                        "timezone": { "type": "string", "description": "The zone of timestamps that say none, which become UTC: `Europe/Berlin`." },
                        "precision": { "type": "integer", "minimum": 1, "maximum": 38, "description": "All digits of a decimal." },
                        "scale": { "type": "integer", "minimum": 0, "maximum": 38, "description": "Digits of a decimal behind the point. Default: 0" }
                    },
                    "required": ["type"],
                    "additionalProperties": false
                }
            ]
        })
    }
}

impl JsonSchema for Columns {
    fn schema_name() -> Cow<'static, str> {
        "Columns".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let of = generator.subschema_for::<ColumnType>();
        json_schema!({
            "description": "Columns and their types, in order; those not named are text.",
            "anyOf": [
                { "type": "object", "additionalProperties": of },
                { "type": "array", "items": { "type": "object", "additionalProperties": of } }
            ]
        })
    }
}
