//! Records as rows: which columns an entity has, and JSON into Arrow. Pure.

use std::{collections::BTreeMap, sync::Arc};

use arrow_array::{
    ArrayRef, RecordBatch, RecordBatchOptions,
    builder::{BooleanBuilder, Date32Builder, Float64Builder, Int64Builder, StringBuilder, TimestampSecondBuilder},
};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use serde_json::{Map, Value};
use towpath_core::{Error, Reject, Result, RowPosition};

use crate::{
    entity::{Entity, Standard},
    fields::{Definition, nearest},
    value::{Choices, Kind, from_server},
};

/// A record as it is listed.
pub type Json = Map<String, Value>;

/// One column of the rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The key in the record.
    pub code: String,
    /// Whether that stands under `custom_fields`.
    pub custom: bool,
    /// What its values are.
    pub holds: Holds,
}

/// What a column's values are.
#[derive(Clone, Debug, PartialEq)]
pub enum Holds {
    /// A whole number.
    Whole,
    /// A number: the vendor's are doubles.
    Number,
    /// True or false.
    Truth,
    /// A day.
    Date,
    /// A moment, in whole seconds.
    Moment,
    /// Text.
    Text,
    /// A part of an object, as text: the currency of money, the end of a span.
    Part(&'static str),
    /// A number in an object: an amount.
    Amount,
    /// A label, of an id.
    Label(Arc<Choices>),
    /// Labels with commas between them.
    Labels(Arc<Choices>),
    /// The values of contacts with commas between them, the primary one first.
    Contacts,
    /// Anything, as JSON.
    Json,
}

impl Holds {
    fn data_type(&self) -> DataType {
        match self {
            Self::Whole => DataType::Int64,
            Self::Number | Self::Amount => DataType::Float64,
            Self::Truth => DataType::Boolean,
            Self::Date => DataType::Date32,
            Self::Moment => DataType::Timestamp(TimeUnit::Second, Some("UTC".into())),
            Self::Text | Self::Part(_) | Self::Label(_) | Self::Labels(_) | Self::Contacts | Self::Json => {
                DataType::Utf8
            }
        }
    }
}

/// The standard columns, in the order of the vendor's specification; `id` and `update_time` first.
fn standard(entity: Entity) -> Vec<(&'static str, Holds)> {
    use Holds::{Contacts, Date, Json, Moment, Number, Part, Text, Truth, Whole};
    let mut columns = vec![("id", Whole), ("update_time", Moment), ("add_time", Moment)];
    columns.extend(match entity {
        Entity::Persons => vec![
            ("name", Text),
            ("first_name", Text),
            ("last_name", Text),
            ("emails", Contacts),
            ("phones", Contacts),
            ("owner_id", Whole),
            ("org_id", Whole),
            ("visible_to", Whole),
            ("is_deleted", Truth),
        ],
        Entity::Deals => vec![
            ("title", Text),
            ("value", Number),
            ("currency", Text),
            ("status", Text),
            ("pipeline_id", Whole),
            ("stage_id", Whole),
            ("person_id", Whole),
            ("org_id", Whole),
            ("owner_id", Whole),
            ("probability", Number),
            ("expected_close_date", Date),
            ("close_time", Moment),
            ("won_time", Moment),
            ("lost_time", Moment),
            ("lost_reason", Text),
            ("stage_change_time", Moment),
            ("visible_to", Whole),
            ("is_deleted", Truth),
            ("is_archived", Truth),
        ],
        Entity::Organizations => vec![
            ("name", Text),
            ("address", Part("value")),
            ("owner_id", Whole),
            ("visible_to", Whole),
            ("is_deleted", Truth),
        ],
        Entity::Products => vec![
            ("name", Text),
            ("code", Text),
            ("description", Text),
            ("unit", Text),
            ("tax", Number),
            ("prices", Json),
            ("owner_id", Whole),
            ("visible_to", Whole),
            ("is_deleted", Truth),
        ],
        Entity::Activities => vec![
            ("subject", Text),
            ("type", Text),
            ("due_date", Date),
            ("due_time", Text),
            ("duration", Text),
            ("done", Truth),
            ("note", Text),
            ("deal_id", Whole),
            ("person_id", Whole),
            ("org_id", Whole),
            ("owner_id", Whole),
            ("is_deleted", Truth),
        ],
    });
    columns
}

/// The columns of an entity: the standard ones by their keys, labels, and custom fields by their names. A name that is there twice, or
/// that a standard column has, is the field's key.
pub fn of_entity(entity: Entity, definitions: &[Definition]) -> Vec<Column> {
    let column =
        |name: &str, code: &str, custom, holds| Column { name: name.to_owned(), code: code.to_owned(), custom, holds };
    let mut columns: Vec<Column> =
        standard(entity).into_iter().map(|(code, holds)| column(code, code, false, holds)).collect();
    if let Some(labels) =
        definitions.iter().find(|one| !one.is_custom_field && entity.code(&one.field_code) == "label_ids")
    {
        columns.push(column("labels", "label_ids", false, Holds::Labels(Arc::new(labels.choices()))));
    }
    let customs: Vec<_> = definitions.iter().filter(|definition| definition.is_custom_field).collect();
    let mut names: BTreeMap<&str, usize> = columns.iter().map(|column| (column.name.as_str(), 1)).collect();
    customs.iter().for_each(|custom| *names.entry(&custom.field_name).or_default() += 1);
    let mut added = vec![];
    for custom in customs {
        let unique = names.get(custom.field_name.as_str()) == Some(&1) && !custom.field_name.is_empty();
        let name = if unique { &custom.field_name } else { &custom.field_code };
        let mut add = |name: &str, holds| added.push(column(name, &custom.field_code, true, holds));
        let choices = || Arc::new(custom.choices());
        match custom.field_type.as_str() {
            "double" => add(name, Holds::Number),
            "int" | "people" | "org" | "deal" | "user" => add(name, Holds::Whole),
            "boolean" => add(name, Holds::Truth),
            "date" => add(name, Holds::Date),
            "enum" => add(name, Holds::Label(choices())),
            "set" => add(name, Holds::Labels(choices())),
            "time" | "address" => add(name, Holds::Part("value")),
            "monetary" => {
                add(name, Holds::Amount);
                add(&format!("{name} currency"), Holds::Part("currency"));
            }
            "daterange" | "timerange" => {
                add(name, Holds::Part("value"));
                add(&format!("{name} until"), Holds::Part("until"));
            }
            _ => add(name, Holds::Text),
        }
    }
    columns.extend(added);
    columns
}

/// The columns that a list without definitions shows.
pub fn of_sample(records: &[Json]) -> Vec<Column> {
    let mut columns: Vec<Column> = vec![];
    for (key, value) in records.iter().flatten() {
        let holds = match value {
            Value::Null => continue,
            Value::Bool(_) => Holds::Truth,
            Value::Number(number) if number.is_i64() => Holds::Whole,
            Value::Number(_) => Holds::Number,
            Value::String(_) => Holds::Text,
            Value::Array(_) | Value::Object(_) => Holds::Json,
        };
        match columns.iter_mut().find(|column| column.name == *key) {
            Some(column) if column.holds == holds => {}
            Some(column) => {
                column.holds = match (&column.holds, &holds) {
                    (Holds::Whole | Holds::Number, Holds::Whole | Holds::Number) => Holds::Number,
                    _ => Holds::Json,
                }
            }
            None => columns.push(Column { name: key.clone(), code: key.clone(), custom: false, holds }),
        }
    }
    columns.sort_by_key(|column| column.name != "id");
    columns
}

/// Only the columns that are asked for, `id` and `update_time` in any case.
///
/// # Errors
/// Config: one that is not there.
pub fn select(columns: Vec<Column>, wanted: Option<&[String]>) -> Result<Vec<Column>> {
    let Some(wanted) = wanted else { return Ok(columns) };
    let is = |column: &Column, name: &str| column.name == name || column.code == name;
    if let Some(unknown) = wanted.iter().find(|name| !columns.iter().any(|column| is(column, name))) {
        let near = nearest(unknown, columns.iter().map(|column| column.name.as_str()));
        let error = Error::config(format!("fields: there is no field '{unknown}'"));
        return Err(match near.as_slice() {
            [] => error.hint("`towpath discover` lists the fields"),
            near => error.hint(format!("did you mean {}?", near.join(", "))),
        });
    }
    let keeps = |column: &Column| {
        matches!(column.name.as_str(), "id" | "update_time") || wanted.iter().any(|name| is(column, name))
    };
    Ok(columns.into_iter().filter(keeps).collect())
}

/// The schema of columns.
pub fn schema(columns: &[Column]) -> SchemaRef {
    let field = |column: &Column| Field::new(&column.name, column.holds.data_type(), column.name != "id");
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

enum Builder {
    Whole(Int64Builder),
    Number(Float64Builder),
    Truth(BooleanBuilder),
    Date(Date32Builder),
    Moment(TimestampSecondBuilder),
    Text(StringBuilder),
}

/// A value, ready to be appended.
enum Cell {
    Null,
    Whole(i64),
    Number(f64),
    Truth(bool),
    Date(i32),
    Moment(i64),
    Text(String),
}

/// Records as rows, and those that do not fit their columns.
///
/// # Errors
/// Internal: rows cannot be made.
pub fn rows(columns: &[Column], schema: &SchemaRef, records: &[Json]) -> Result<(RecordBatch, Vec<Reject>)> {
    let mut builders: Vec<Builder> = columns.iter().map(|column| builder(&column.holds)).collect();
    let (mut rejects, mut count) = (vec![], 0);
    for record in records {
        match columns.iter().map(|column| cell(column, record)).collect::<Result<Vec<_>, String>>() {
            Ok(cells) => {
                builders.iter_mut().zip(cells).for_each(|(builder, cell)| append(builder, cell));
                count += 1;
            }
            Err(why) => {
                let bytes = Bytes::from(serde_json::to_vec(record).unwrap_or_default());
                rejects.push(Reject::bytes(bytes, RowPosition::default(), why));
            }
        }
    }
    let arrays: Vec<ArrayRef> = builders.into_iter().map(finish).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    let batch = RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)
        .map_err(|error| Error::internal("records cannot be made into rows").because(error))?;
    Ok((batch, rejects))
}

fn builder(holds: &Holds) -> Builder {
    match holds {
        Holds::Whole => Builder::Whole(Int64Builder::new()),
        Holds::Number | Holds::Amount => Builder::Number(Float64Builder::new()),
        Holds::Truth => Builder::Truth(BooleanBuilder::new()),
        Holds::Date => Builder::Date(Date32Builder::new()),
        Holds::Moment => Builder::Moment(TimestampSecondBuilder::new().with_timezone("UTC")),
        _ => Builder::Text(StringBuilder::new()),
    }
}

fn append(builder: &mut Builder, cell: Cell) {
    match (builder, cell) {
        (Builder::Whole(builder), Cell::Whole(value)) => builder.append_value(value),
        (Builder::Number(builder), Cell::Number(value)) => builder.append_value(value),
        (Builder::Truth(builder), Cell::Truth(value)) => builder.append_value(value),
        (Builder::Date(builder), Cell::Date(value)) => builder.append_value(value),
        (Builder::Moment(builder), Cell::Moment(value)) => builder.append_value(value),
        (Builder::Text(builder), Cell::Text(value)) => builder.append_value(value),
        // A cell is made for its column.
        (Builder::Whole(builder), _) => builder.append_null(),
        (Builder::Number(builder), _) => builder.append_null(),
        (Builder::Truth(builder), _) => builder.append_null(),
        (Builder::Date(builder), _) => builder.append_null(),
        (Builder::Moment(builder), _) => builder.append_null(),
        (Builder::Text(builder), _) => builder.append_null(),
    }
}

fn finish(builder: Builder) -> ArrayRef {
    match builder {
        Builder::Whole(mut builder) => Arc::new(builder.finish()),
        Builder::Number(mut builder) => Arc::new(builder.finish()),
        Builder::Truth(mut builder) => Arc::new(builder.finish()),
        Builder::Date(mut builder) => Arc::new(builder.finish()),
        Builder::Moment(mut builder) => Arc::new(builder.finish()),
        Builder::Text(mut builder) => Arc::new(builder.finish()),
    }
}

fn cell(column: &Column, record: &Json) -> Result<Cell, String> {
    let record = match column.custom {
        false => Some(record),
        true => record.get("custom_fields").and_then(Value::as_object),
    };
    let value = record.and_then(|record| record.get(&column.code)).unwrap_or(&Value::Null);
    if value.is_null() && column.name == "id" {
        return Err("the record has no id".to_owned());
    }
    if value.is_null() {
        return Ok(Cell::Null);
    }
    let wrong = |what: &str| format!("{}: {value} is not {what}", column.name);
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Ok(match &column.holds {
        Holds::Whole => {
            let id = from_server(&Kind::Standard(Standard::Id(Entity::Persons)), value);
            match value.as_i64().or_else(|| id.as_i64()) {
                Some(whole) => Cell::Whole(whole),
                // 0 is no id, and text may be.
                None => return Err(wrong("a whole number")),
            }
        }
        Holds::Number => match from_server(&Kind::Standard(Standard::Number), value).as_f64() {
            Some(number) => Cell::Number(number),
            None => return Err(wrong("a number")),
        },
        Holds::Amount => match value.get("value") {
            None | Some(Value::Null) => Cell::Null,
            Some(amount) => match from_server(&Kind::Standard(Standard::Number), amount).as_f64() {
                Some(number) => Cell::Number(number),
                None => return Err(wrong("an amount")),
            },
        },
        Holds::Truth => match value {
            Value::Bool(truth) => Cell::Truth(*truth),
            Value::Number(number) => Cell::Truth(number.as_i64() != Some(0)),
            _ => return Err(wrong("true or false")),
        },
        Holds::Date => {
            let day =
                value.as_str().and_then(|text| text.get(..10)).and_then(|day| day.parse::<jiff::civil::Date>().ok());
            let epoch = jiff::civil::date(1970, 1, 1);
            match day.and_then(|day| day.since((jiff::Unit::Day, epoch)).ok()) {
                Some(span) => Cell::Date(span.get_days()),
                None if value == "" => Cell::Null,
                None => return Err(wrong("a date")),
            }
        }
        Holds::Moment => match value.as_str().map(moment) {
            Some(Some(at)) => Cell::Moment(at.as_second()),
            Some(None) if value == "" => Cell::Null,
            _ => return Err(wrong("a moment")),
        },
        Holds::Text => Cell::Text(text(value)),
        Holds::Part(part) => match value {
            Value::Object(parts) => {
                parts.get(*part).filter(|part| !part.is_null()).map_or(Cell::Null, |part| Cell::Text(text(part)))
            }
            plain if *part == "value" => Cell::Text(text(plain)),
            _ => Cell::Null,
        },
        Holds::Label(choices) => match from_server(&Kind::Choice(Arc::clone(choices)), value).as_i64() {
            Some(id) => Cell::Text(choices.label(id).map_or_else(|| id.to_string(), str::to_owned)),
            None => Cell::Text(text(value)),
        },
        Holds::Labels(choices) => {
            let ids = from_server(&Kind::Choices(Arc::clone(choices)), value);
            let label = |id: &Value| {
                let known = id.as_i64().and_then(|id| choices.label(id));
                known.map_or_else(|| id.to_string(), str::to_owned)
            };
            match ids.as_array() {
                Some(ids) => Cell::Text(ids.iter().map(label).collect::<Vec<_>>().join(", ")),
                None => Cell::Null,
            }
        }
        Holds::Contacts => {
            let mut all: Vec<&Value> = value.as_array().into_iter().flatten().collect();
            all.sort_by_key(|contact| contact["primary"] != true);
            let all: Vec<_> = all.iter().filter_map(|contact| contact["value"].as_str()).collect();
            if all.is_empty() { Cell::Null } else { Cell::Text(all.join(", ")) }
        }
        Holds::Json => Cell::Text(text(value)),
    })
}

/// A moment of the vendor's: RFC 3339, or the older form without a zone, which is UTC.
pub fn moment(text: &str) -> Option<jiff::Timestamp> {
    text.parse().ok().or_else(|| format!("{}Z", text.replace(' ', "T")).parse().ok())
}

#[cfg(test)]
mod tests;
