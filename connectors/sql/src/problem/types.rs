//! Types as the config calls them, in texts that call them as Arrow does, and the columns of text that an expression is likely to mean.

use arrow_schema::{DataType, SchemaRef};
use towpath_core::{Error, Name};

use super::Place;

/// Types of a message, as the config calls them: `Utf8 / Int64` is `text / int64`.
pub(super) fn plain(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(first) = rest.chars().next() {
        let word = rest.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        if word.is_empty() {
            out.push(first);
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
            continue;
        }
        let behind = rest.get(word.len()..).unwrap_or_default();
        // `Decimal128(12, 2)`, `Timestamp(µs, "UTC")`.
        let inside = behind.strip_prefix('(').and_then(|inside| inside.split_once(')')).map(|(inside, _)| inside);
        let (name, takes) = match word {
            "Utf8" | "LargeUtf8" | "Utf8View" => ("text".to_owned(), None),
            "Boolean" => ("bool".to_owned(), None),
            "Date32" => ("date".to_owned(), None),
            "Int8" | "Int16" | "Int32" | "Int64" | "UInt8" | "UInt16" | "UInt32" | "UInt64" | "Float16" | "Float32"
            | "Float64" | "Binary" => (word.to_lowercase(), None),
            "Decimal32" | "Decimal64" | "Decimal128" | "Decimal256" => {
                (inside.map_or("decimal".to_owned(), |inside| format!("decimal({})", inside.replace(' ', ""))), inside)
            }
            "Timestamp" if inside.is_some() => ("timestamp".to_owned(), inside),
            _ => (word.to_owned(), None),
        };
        out.push_str(&name);
        rest = behind.get(takes.map_or(0, |inside| inside.len() + 2)..).unwrap_or_default();
    }
    out
}

/// Adds what is the likeliest reason where text is in the way: that nobody has declared the column's type. `of`: the types, as Arrow calls them.
pub(super) fn undeclared(
    error: Error,
    of: &str,
    place: Option<Place>,
    query: &str,
    tables: &[(Name, SchemaRef)],
) -> Error {
    if !of.contains("Utf8") {
        return error;
    }
    let kind = match of {
        of if of.contains("Timestamp") => "timestamp",
        of if of.contains("Date32") => "date",
        of if of.contains("Boolean") => "bool",
        _ => "\"decimal(12,2)\"",
    };
    let column = place.and_then(|place| text_column(place.rest(query), tables)).unwrap_or("amount");
    error
        .hint(format!("columns of CSV files are text unless declared: `columns: {{ {column}: {kind} }}` on the source"))
}

/// Whether a column of text stands at the beginning.
pub(super) fn is_text_column(expression: &str, tables: &[(Name, SchemaRef)]) -> bool {
    let end = expression.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '.').unwrap_or(expression.len());
    text_column(expression.get(..end).unwrap_or_default(), tables).is_some()
}

/// The first name in an expression that is one of a column of text. Of a `case` nobody can say so simply which one it is.
fn text_column<'q>(expression: &'q str, tables: &[(Name, SchemaRef)]) -> Option<&'q str> {
    let words = expression.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
    let ends = |word: &&str| ["from", "case"].iter().any(|end| word.eq_ignore_ascii_case(end));
    let is_text = |kind: &DataType| matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    words.take_while(|word| !ends(word)).find(|word| {
        let mut fields = tables.iter().filter_map(|(_, schema)| schema.field_with_name(word).ok());
        fields.any(|field| is_text(field.data_type()))
    })
}
