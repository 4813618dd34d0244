//! `towpath preview` and `towpath discover`: a source, without running anything.

use std::{path::Path, sync::Arc};

use arrow_array::RecordBatch;
use arrow_cast::{
    cast,
    display::{ArrayFormatter, FormatOptions},
};
use arrow_schema::{DataType, Field, Schema};
use towpath_config::{Loaded, Severity, did_you_mean};
use towpath_core::{Error, Original, Reject, Result};

use super::{Outcome, engine, load, runtime};
use crate::{
    args::Global,
    output::{self, Failure},
    table::layout,
};

pub(crate) fn preview(global: &Global, file: &Path, source: &str, rows: usize) -> Outcome {
    let loaded = load_with(global, file, source)?;
    let runtime = runtime(global)?;
    let engine = engine(global)?;
    let mut preview = runtime.block_on(engine.preview(&loaded.spec, source, rows))?;
    preview.batches = preview.batches.iter().map(by_offset).collect::<Result<_>>()?;
    if global.json {
        output::out(&json_lines(&preview.batches)?);
    } else if let Some(first) = preview.batches.first() {
        let schema = first.schema();
        let headings: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
        let mut cells = Vec::new();
        for batch in &preview.batches {
            cells.extend(texts(batch)?);
        }
        let numeric = |(index, field): (usize, &Arc<Field>)| field.data_type().is_numeric().then_some(index);
        let right: Vec<usize> = schema.fields().iter().enumerate().filter_map(numeric).collect();
        output::out(&layout(&headings, &cells, &right));
    }
    let count: usize = preview.batches.iter().map(RecordBatch::num_rows).sum();
    let all = if preview.complete { "; there are no more" } else { "" };
    output::err(&format!("{}{all}", output::number(count, "row")));
    for reject in preview.rejects.iter().take(10) {
        output::err(&format!("rejected: {}", rejected(reject)));
    }
    if preview.rejects.len() > 10 {
        output::err(&format!("… and {} more rejected", preview.rejects.len() - 10));
    }
    Ok(0)
}

/// Reads a pipeline file that has a source of this name.
fn load_with(global: &Global, file: &Path, source: &str) -> std::result::Result<Loaded, Failure> {
    let loaded = load(global, file, Severity::Error)?;
    let names: Vec<&str> = loaded.spec.sources.iter().map(|spec| &*spec.name).collect();
    if names.contains(&source) {
        return Ok(loaded);
    }
    let error = Error::config(format!("there is no source '{source}' in {}", file.display()));
    Err(error.hint(did_you_mean(source, names).unwrap_or_default()).into())
}

fn rejected(reject: &Reject) -> String {
    let at = reject.position.map(|at| format!("line {}: ", at.line)).unwrap_or_default();
    let raw = match &reject.row {
        Original::Bytes(bytes) => {
            let text: String = String::from_utf8_lossy(bytes)
                .chars()
                .take(120)
                .map(|c| if c.is_control() { '·' } else { c })
                .collect();
            format!(": {text}")
        }
        _ => String::new(),
    };
    format!("{at}{}{raw}", reject.reason)
}

/// Moments by their offset from UTC, which have a text without a table of time zones.
fn by_offset(batch: &RecordBatch) -> Result<RecordBatch> {
    let broken = |error| Error::internal("cannot show a moment").because(error);
    let (mut fields, mut columns) = (vec![], vec![]);
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        match field.data_type() {
            DataType::Timestamp(unit, Some(_)) => {
                let moment = DataType::Timestamp(*unit, Some("+00:00".into()));
                columns.push(cast(column, &moment).map_err(broken)?);
                fields.push(Arc::new(field.as_ref().clone().with_data_type(moment)));
            }
            _ => {
                columns.push(Arc::clone(column));
                fields.push(Arc::clone(field));
            }
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(broken)
}

fn texts(batch: &RecordBatch) -> Result<Vec<Vec<String>>> {
    let options = FormatOptions::default();
    let broken = |error| Error::internal("cannot show a value").because(error);
    let columns =
        batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options).map_err(broken));
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let cell = |row: usize| move |column: &ArrayFormatter<'_>| column.value(row).try_to_string().map_err(broken);
    (0..batch.num_rows()).map(|row| columns.iter().map(cell(row)).collect()).collect()
}

fn json_lines(batches: &[RecordBatch]) -> Result<String> {
    let mut lines = Vec::new();
    let mut writer = arrow_json::WriterBuilder::new()
        .with_explicit_nulls(true)
        .build::<_, arrow_json::writer::LineDelimited>(&mut lines);
    let broken = |error| Error::internal("cannot write JSON").because(error);
    batches.iter().try_for_each(|batch| writer.write(batch)).and_then(|()| writer.finish()).map_err(broken)?;
    drop(writer);
    String::from_utf8(lines).map_err(|error| Error::internal("cannot write JSON").because(error))
}

pub(crate) fn discover(global: &Global, file: &Path, source: &str) -> Outcome {
    let loaded = load_with(global, file, source)?;
    let runtime = runtime(global)?;
    let engine = engine(global)?;
    let discovery = runtime.block_on(engine.discover(&loaded.spec, source))?;
    if global.json {
        output::json(&discovery.items, false)?;
    } else {
        output::out(&discovery.text);
    }
    Ok(0)
}
