//! Columns of rows as text: what a field's value is made of. Pure.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, cast::AsArray as _};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{DataType, Schema};
use towpath_core::{Error, Result};

use crate::{config::Source, fields::nearest};

/// A source of values, of one batch.
pub enum Cells<'a> {
    /// Text as it stands.
    Text(&'a arrow_array::StringArray),
    /// Anything else, written out.
    Other(ArrayFormatter<'a>, &'a dyn Array),
    /// The same for all rows.
    Fixed(&'a str),
}

impl<'a> Cells<'a> {
    /// The values of a source.
    ///
    /// # Errors
    /// Internal, if the column is not there: [`check`] has looked before.
    pub fn new(source: &'a Source, rows: &'a RecordBatch) -> Result<Self> {
        let column = match source {
            Source::Fixed(text) => return Ok(Self::Fixed(text)),
            Source::Column(name) => rows.column_by_name(name),
        };
        let column: &ArrayRef =
            column.ok_or_else(|| Error::internal("a column has gone since the schema was checked"))?;
        if let Some(text) = column.as_string_opt::<i32>() {
            return Ok(Self::Text(text));
        }
        let formatter = ArrayFormatter::try_new(column.as_ref(), &OPTIONS)
            .map_err(|error| Error::internal("a column cannot be written as text").because(error))?;
        Ok(Self::Other(formatter, column.as_ref()))
    }
    /// The value of a row, in `buffer` where it has to be written; `None` for NULL.
    pub fn get<'b>(&'b self, row: usize, buffer: &'b mut String) -> Option<&'b str> {
        match self {
            Self::Text(column) => column.is_valid(row).then(|| column.value(row)),
            Self::Fixed(text) => Some(text),
            Self::Other(formatter, column) => {
                if column.is_null(row) || *column.data_type() == DataType::Null {
                    return None;
                }
                buffer.clear();
                formatter.value(row).write(buffer).ok()?;
                Some(buffer)
            }
        }
    }
}

const OPTIONS: FormatOptions<'_> = FormatOptions::new();

/// Rows whose moments have a zone that needs no table of zones to be written: they are moments, so nothing is lost.
///
/// # Errors
/// Internal: they cannot be cast.
pub fn plain(rows: &RecordBatch) -> Result<RecordBatch> {
    let zoned = |field: &arrow_schema::FieldRef| is_named(field.data_type());
    if !rows.schema().fields().iter().any(zoned) {
        return Ok(rows.clone());
    }
    let failed = |error| Error::internal("moments cannot be brought to one zone").because(error);
    let mut fields = vec![];
    let mut columns = vec![];
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        let (DataType::Timestamp(unit, _), true) = (field.data_type(), is_named(field.data_type())) else {
            fields.push(Arc::clone(field));
            columns.push(Arc::clone(column));
            continue;
        };
        let utc = DataType::Timestamp(*unit, Some("+00:00".into()));
        columns.push(arrow_cast::cast(column, &utc).map_err(failed)?);
        fields.push(Arc::new(field.as_ref().clone().with_data_type(utc)));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(failed)
}

/// Whether moments are in a zone that has a name; those with an offset are written with it.
fn is_named(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(_, Some(zone)) if !zone.starts_with(['+', '-']))
}

/// Whether a source can be had from rows of a schema.
///
/// # Errors
/// Config: a column that is not there, or of a type that has no text.
pub fn check(source: &Source, schema: &Schema, what: &str) -> Result<()> {
    let Source::Column(name) = source else { return Ok(()) };
    let Ok(field) = schema.field_with_name(name) else {
        let error = Error::config(format!("{what}: the rows have no column '{name}'"));
        let near = nearest(name, schema.fields().iter().map(|field| field.name().as_str()));
        let all = schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ");
        return Err(error.hint(if near.is_empty() {
            format!("they have {all}")
        } else {
            format!("did you mean {}? They have {all}", near.join(", "))
        }));
    };
    if field.data_type().is_nested()
        || matches!(field.data_type(), DataType::Binary | DataType::LargeBinary | DataType::FixedSizeBinary(_))
    {
        let what = format!("{what}: the column '{name}' is {}, which has no text", field.data_type());
        return Err(Error::config(what).hint("cast it, or make it a text in the query"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use arrow_array::{
        BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, NullArray, StringArray,
        TimestampMicrosecondArray,
    };

    use super::*;

    #[test]
    fn every_type_has_the_text_that_fields_are_made_of() {
        let decimal = Decimal128Array::from(vec![123_456_789_012_345]).with_precision_and_scale(20, 2).unwrap();
        let zoned = TimestampMicrosecondArray::from(vec![0]).with_timezone("Europe/Berlin");
        let columns: [(&str, ArrayRef, Option<&str>); 9] = [
            ("zoned", Arc::new(zoned), Some("1970-01-01T00:00:00Z")),
            ("text", Arc::new(StringArray::from(vec!["a"])), Some("a")),
            ("whole", Arc::new(Int64Array::from(vec![-7])), Some("-7")),
            ("decimal", Arc::new(decimal), Some("1234567890123.45")),
            ("float", Arc::new(Float64Array::from(vec![0.1])), Some("0.1")),
            ("truth", Arc::new(BooleanArray::from(vec![true])), Some("true")),
            ("date", Arc::new(Date32Array::from(vec![20_000])), Some("2024-10-04")),
            ("time", Arc::new(TimestampMicrosecondArray::from(vec![0])), Some("1970-01-01T00:00:00")),
            ("none", Arc::new(NullArray::new(1)), None),
        ];
        for (name, column, expected) in columns {
            let rows = plain(&RecordBatch::try_from_iter([(name, column)]).unwrap()).unwrap();
            let source = Source::Column(name.to_owned());
            check(&source, &rows.schema(), "fields.X").unwrap();
            assert_eq!(Cells::new(&source, &rows).unwrap().get(0, &mut String::new()), expected, "{name}");
        }
        let rows = RecordBatch::try_from_iter([("total", Arc::new(NullArray::new(1)) as ArrayRef)]).unwrap();
        let error = check(&Source::Column("totl".to_owned()), &rows.schema(), "fields.Value").unwrap_err();
        assert_eq!(error.to_string(), "fields.Value: the rows have no column 'totl'");
        assert_eq!(error.what_to_do(), Some("did you mean 'total'? They have total"));
    }
}
