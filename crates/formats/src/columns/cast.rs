//! Batches of text, or of other types, made into typed ones.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, BooleanArray, LargeStringArray, RecordBatch, StringArray, StringViewArray, cast::AsArray,
};
use arrow_cast::{CastOptions, cast_with_options, display::FormatOptions};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use towpath_core::{Error, Reject, Result};

use super::{Builder, ColumnType, Columns, Nulls, Parser, build::Cell, shown};

/// Casts the columns that `to` names; the others stay as they are. Rows in which a value does not parse are taken out
/// and come back as rejects with [`Original::Row`](towpath_core::Original::Row), the index into `rows`.
///
/// # Errors
/// Data, if a column is not there; Config, for a type that a column cannot become.
pub fn cast(rows: &RecordBatch, to: &Columns) -> Result<(RecordBatch, Vec<Reject>)> {
    let schema = rows.schema();
    for (name, _) in to.iter() {
        if schema.index_of(name).is_err() {
            let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            return Err(
                Error::data(format!("there is no column '{name}'")).hint(format!("there are {}", names.join(", ")))
            );
        }
    }
    let mut casting = Casting::new(rows);
    for (field, column) in schema.fields().iter().zip(rows.columns()) {
        match to.get(field.name()) {
            None => casting.keep(field, column),
            Some(of) => {
                let to = Field::new(field.name(), of.data_type(), true).with_metadata(field.metadata().clone());
                casting.cast(&Arc::new(to), column, of)?;
            }
        }
    }
    casting.finish(schema.metadata())
}

/// Casts to the columns of `schema`, found by name, in its order; columns that `schema` lacks are left out, those that `rows` lacks
/// are NULL. For sinks with typed tables. Rejects are as in [`cast`]; NULL where `schema` allows none is one too.
///
/// # Errors
/// Config, for a type that a column cannot become.
pub fn cast_to(rows: &RecordBatch, schema: &SchemaRef) -> Result<(RecordBatch, Vec<Reject>)> {
    let mut casting = Casting::new(rows);
    for field in schema.fields() {
        match rows.column_by_name(field.name()) {
            None => casting.keep(field, &arrow_array::new_null_array(field.data_type(), rows.num_rows())),
            Some(column) if column.data_type() == field.data_type() => casting.keep(field, column),
            Some(column) => match column_type(field.data_type()).filter(|_| is_text(column)) {
                Some(of) => casting.cast(field, column, &of)?,
                None => casting.cast_arrow(field, column)?,
            },
        }
    }
    casting.finish(schema.metadata())
}

fn is_text(column: &ArrayRef) -> bool {
    matches!(column.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// The type whose parser gives this.
pub(super) fn column_type(of: &DataType) -> Option<ColumnType> {
    Some(match of {
        DataType::Int64 => ColumnType::Int64,
        DataType::Float64 => ColumnType::Float64,
        DataType::Decimal128(precision, scale) => {
            ColumnType::Decimal { precision: *precision, scale: u8::try_from(*scale).ok()? }
        }
        DataType::Boolean => ColumnType::Bool,
        DataType::Date32 => ColumnType::Date { format: None },
        DataType::Timestamp(TimeUnit::Microsecond, None) => ColumnType::Timestamp { format: None, timezone: None },
        DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) if &**zone == "UTC" => {
            ColumnType::Timestamp { format: None, timezone: Some("UTC".into()) }
        }
        _ => return None,
    })
}

struct Casting<'a> {
    rows: &'a RecordBatch,
    fields: Vec<Arc<Field>>,
    columns: Vec<ArrayRef>,
    /// The first fault of each row.
    bad: std::collections::BTreeMap<usize, Reject>,
}

impl<'a> Casting<'a> {
    fn new(rows: &'a RecordBatch) -> Self {
        Self { rows, fields: vec![], columns: vec![], bad: Default::default() }
    }

    fn keep(&mut self, field: &Arc<Field>, column: &ArrayRef) {
        self.fields.push(Arc::clone(field));
        self.columns.push(Arc::clone(column));
    }

    fn refuse(&mut self, row: usize, column: &str, value: &str, of: &str) {
        let reason = || format!("column {column}: '{}' is not {of}", shown(value.as_bytes()));
        self.bad.entry(row).or_insert_with(|| Reject::row(row, reason()).column(column));
    }

    /// To one of our types.
    fn cast(&mut self, field: &Arc<Field>, column: &ArrayRef, of: &ColumnType) -> Result<()> {
        if column.data_type() == field.data_type() {
            self.keep(field, column);
            return Ok(());
        }
        if !is_text(column) {
            return self.cast_arrow(field, column);
        }
        let mut builder = Builder::new(Parser::new(of)?);
        let mut bad = vec![];
        let mut note = |row| bad.push(row);
        let nulls = Nulls::default();
        if let Some(text) = column.as_any().downcast_ref::<StringArray>() {
            let (base, offsets) = (text.value_data(), text.value_offsets());
            builder.extend(
                (0..text.len()).map(|row| {
                    let cell = Cell { base, start: offsets[row] as usize, end: offsets[row + 1] as usize };
                    text.is_valid(row).then_some(cell)
                }),
                &nulls,
                &mut note,
            );
        } else {
            let value = text_at(column);
            builder.extend(
                (0..column.len()).map(|row| {
                    let base = value(row)?.as_bytes();
                    Some(Cell { base, start: 0, end: base.len() })
                }),
                &nulls,
                &mut note,
            );
        }
        self.columns.push(builder.finish()?);
        self.fields.push(Arc::clone(field));
        let value = text_at(column);
        for row in bad {
            self.refuse(row, field.name(), value(row).unwrap_or_default(), &article(of));
        }
        Ok(())
    }

    /// By Arrow's own casts; what was a value and is none any more is refused.
    fn cast_arrow(&mut self, field: &Arc<Field>, column: &ArrayRef) -> Result<()> {
        let options = CastOptions { safe: true, format_options: FormatOptions::default() };
        let to = field.data_type();
        let cast = cast_with_options(column, to, &options).map_err(|error| {
            Error::config(format!("column {} of type {} cannot become {to}", field.name(), column.data_type()))
                .because(error)
        })?;
        if cast.null_count() > column.logical_null_count() {
            let formatted = arrow_cast::display::ArrayFormatter::try_new(column, &options.format_options);
            let nulls = column.logical_nulls();
            for row in (0..cast.len()).filter(|row| cast.is_null(*row)) {
                if nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row)) {
                    let value = formatted.as_ref().map(|all| all.value(row).to_string()).unwrap_or_default();
                    self.refuse(row, field.name(), &value, &format!("a value of type {to}"));
                }
            }
        }
        self.keep(field, &cast);
        Ok(())
    }

    fn finish(self, metadata: &arrow_schema::Metadata) -> Result<(RecordBatch, Vec<Reject>)> {
        let Self { rows, fields, columns, mut bad } = self;
        for (field, column) in fields.iter().zip(&columns).filter(|(field, _)| !field.is_nullable()) {
            for row in
                column.logical_nulls().iter().flat_map(|nulls| (0..nulls.len()).filter(|row| nulls.is_null(*row)))
            {
                let reject = || Reject::row(row, format!("column {} is NULL", field.name())).column(field.name());
                bad.entry(row).or_insert_with(reject);
            }
        }
        // A row with a fault may hold a NULL where none may be.
        let open: Vec<_> = fields.iter().map(|field| Arc::new(field.as_ref().clone().with_nullable(true))).collect();
        let given = |error| Error::data("rows do not fit the schema").because(error);
        let schema = |fields: Vec<Arc<Field>>| Arc::new(Schema::new_with_metadata(fields, metadata.clone()));
        let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let mut cast = RecordBatch::try_new_with_options(schema(open), columns, &options).map_err(given)?;
        if !bad.is_empty() {
            let keep: BooleanArray = (0..rows.num_rows()).map(|row| Some(!bad.contains_key(&row))).collect();
            cast = arrow_select::filter::filter_record_batch(&cast, &keep).map_err(given)?;
        }
        let options = options.with_row_count(Some(cast.num_rows()));
        let cast =
            RecordBatch::try_new_with_options(schema(fields), cast.columns().to_vec(), &options).map_err(given)?;
        Ok((cast, bad.into_values().collect()))
    }
}

/// `an int64`, `a date`.
pub(crate) fn article(of: &ColumnType) -> String {
    match of {
        ColumnType::Int64 => format!("an {of}"),
        ColumnType::Date { format: Some(format) } | ColumnType::Timestamp { format: Some(format), .. } => {
            format!("a {of} like {format}")
        }
        _ => format!("a {of}"),
    }
}

/// The values of a text column of any layout.
fn text_at<'a>(column: &'a ArrayRef) -> Box<dyn Fn(usize) -> Option<&'a str> + 'a> {
    fn some<'a, A: Array>(
        array: &'a A,
        value: impl Fn(&'a A, usize) -> &'a str + 'a,
    ) -> Box<dyn Fn(usize) -> Option<&'a str> + 'a> {
        Box::new(move |row| array.is_valid(row).then(|| value(array, row)))
    }
    match column.data_type() {
        DataType::LargeUtf8 => some::<LargeStringArray>(column.as_string::<i64>(), |array, row| array.value(row)),
        DataType::Utf8View => some::<StringViewArray>(column.as_string_view(), |array, row| array.value(row)),
        DataType::Utf8 => some::<StringArray>(column.as_string::<i32>(), |array, row| array.value(row)),
        _ => Box::new(|_| None),
    }
}
