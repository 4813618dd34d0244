//! The options of CSV, as they stand in a config.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, SeqAccess, Visitor},
};
use towpath_core::{Error, Result, Size};

use crate::columns::Columns;

/// How delimited text is written. Made to be flattened into a connector's options.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct CsvOptions {
    /// The character between fields; one ASCII character, or `tab`. Default: ,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<String>,
    /// The character around fields; one ASCII character, or `none`. Default: "
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quote: Option<String>,
    /// The character that makes a quote inside quotes a part of the field, besides a doubled quote; one ASCII character, or `none`.
    /// Default: none
    #[serde(skip_serializing_if = "Option::is_none")]
    pub escape: Option<String>,
    /// What the first record is: `names` of the columns, `none` (rows from the start; names come from `columns`, or are `column_1`, …),
    /// or the list of names that it must have, in any order. Names that stand twice get a number (`Textbox1_2`). Default: names
    pub header: Header,
    /// The encoding: `auto` (by the byte order mark, else UTF-8), `utf-8`, `utf-16le`, `utf-16be` or `windows-1252`. A byte order mark
    /// overrules it. Default: auto
    pub encoding: Encoding,
    /// What stands for NULL, quoted or not, in all columns; an empty field is NULL in typed columns anyway. Default: nothing
    pub nulls: Vec<String>,
    /// The longest record; a longer one is a rejected row. At most 1GiB. Default: 16MiB
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_record: Option<Size>,
    /// The types of columns by name: `text`, `int64`, `float64`, `decimal(10,2)`, `bool`, `date`, `timestamp`, or a map with `type`,
    /// `format` and `timezone`. Columns that are not named are text. Default: all text
    pub columns: Columns,
}

/// What the first record is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Header {
    /// The columns' names.
    #[default]
    Names,
    /// A row like any other.
    None,
    /// These names, in any order; rows come in the order of the list.
    Must(Vec<String>),
}

/// How characters are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Encoding {
    /// By the byte order mark, else UTF-8.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// UTF-8.
    #[serde(rename = "utf-8")]
    Utf8,
    /// UTF-16, low byte first.
    #[serde(rename = "utf-16le")]
    Utf16Le,
    /// UTF-16, high byte first.
    #[serde(rename = "utf-16be")]
    Utf16Be,
    /// Windows-1252, as browsers read Latin-1.
    #[serde(rename = "windows-1252")]
    Windows1252,
}

impl Header {
    const EXPECTED: &str = "`names`, `none`, or a list of names";
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;
        impl<'de> Visitor<'de> for Reading {
            type Value = Header;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Header::EXPECTED)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Header, E> {
                match text {
                    "names" => Ok(Header::Names),
                    "none" => Ok(Header::None),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Header, A::Error> {
                let mut names: Vec<String> = vec![];
                while let Some(name) = list.next_element()? {
                    if names.contains(&name) {
                        return Err(de::Error::custom(format!("column '{name}' stands there twice")));
                    }
                    names.push(name);
                }
                if names.is_empty() {
                    return Err(de::Error::custom("the list of names is empty"));
                }
                Ok(Header::Must(names))
            }
        }
        deserializer.deserialize_any(Reading)
    }
}

impl Serialize for Header {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Names => serializer.serialize_str("names"),
            Self::None => serializer.serialize_str("none"),
            Self::Must(names) => names.serialize(serializer),
        }
    }
}

impl JsonSchema for Header {
    fn schema_name() -> Cow<'static, str> {
        "Header".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string", "enum": ["names", "none"] },
                { "type": "array", "items": { "type": "string" }, "minItems": 1, "uniqueItems": true }
            ]
        })
    }
}

/// The characters that make the structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dialect {
    pub(super) delimiter: u8,
    pub(super) quote: Option<u8>,
    pub(super) escape: Option<u8>,
    /// Bytes, without the line end.
    pub(super) max_record: usize,
}

const MAX_RECORD: u64 = 16 << 20;

impl CsvOptions {
    /// # Errors
    /// Config: a character that cannot be one, or stands for two things.
    pub(super) fn dialect(&self) -> Result<Dialect> {
        let delimiter = character("delimiter", self.delimiter.as_deref())?.unwrap_or(b',');
        let optional = |key: &str, value: &Option<String>, default: Option<u8>| match value.as_deref() {
            Some("none") => Ok(None),
            None => Ok(default),
            value => character(key, value),
        };
        let quote = optional("quote", &self.quote, Some(b'"'))?;
        // An escape that is the quote is a doubled quote.
        let escape = optional("escape", &self.escape, None)?.filter(|escape| Some(*escape) != quote);
        if Some(delimiter) == quote || Some(delimiter) == escape {
            return Err(Error::config("`delimiter` and `quote` or `escape` are the same character"));
        }
        if escape.is_some() && quote.is_none() {
            return Err(Error::config("`escape` without quotes has no meaning").hint("leave one of both out"));
        }
        let max_record = self.max_record.map_or(MAX_RECORD, |size| size.0);
        if !(1..=1 << 30).contains(&max_record) {
            return Err(Error::config("`max_record` must be 1B to 1GiB"));
        }
        let max_record = usize::try_from(max_record).unwrap_or(usize::MAX);
        Ok(Dialect { delimiter, quote, escape, max_record })
    }
}

fn character(key: &str, value: Option<&str>) -> Result<Option<u8>> {
    let byte = match value {
        None => return Ok(None),
        Some("tab" | "\\t") => b'\t',
        Some(text) => match text.as_bytes() {
            [byte] if byte.is_ascii() && !matches!(byte, b'\n' | b'\r' | 0) => *byte,
            _ => {
                return Err(Error::config(format!("`{key}` is {text:?}, which is not one ASCII character"))
                    .hint("write one such as ';', or `tab`"));
            }
        },
    };
    Ok(Some(byte))
}
