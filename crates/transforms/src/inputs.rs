//! What all of these transforms do with their inputs' schemas.

use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::{Schema, SchemaRef};
use towpath_core::{Error, Known, Name, Result, TransformPlan};

/// Plans a transform that turns each batch of any input into one batch: `of` tells the schema that comes of a schema, or what is
/// wrong with it.
pub(crate) fn plan(inputs: &[(Name, Known)], of: impl Fn(&SchemaRef) -> Result<SchemaRef>) -> Result<TransformPlan> {
    let mut notes = vec![];
    let mut all: Vec<Known> = vec![];
    for (name, known) in inputs {
        let place = |error: Error| error.at(format!("input {name}"));
        all.push(match known {
            Known::Now(schema) => Known::Now(of(schema).map_err(place)?),
            // The source may have changed since; refused here, a config that follows it could never run.
            Known::LastRun(schema) => match of(schema).map_err(place) {
                Ok(schema) => Known::LastRun(schema),
                Err(error) => {
                    notes.push(format!("as of the last run, {error}"));
                    Known::No
                }
            },
            Known::No => Known::No,
        });
    }
    let first = all.first().and_then(Known::schema);
    let known = match first {
        Some(first) if all.iter().all(|known| known.schema().is_some_and(|s| s.fields() == first.fields())) => {
            let now = all.iter().all(|known| matches!(known, Known::Now(_)));
            if now { Known::Now(first.clone()) } else { Known::LastRun(first.clone()) }
        }
        _ => {
            if all.iter().all(|known| known.schema().is_some()) && all.len() > 1 {
                notes.push("its inputs differ in their columns".to_owned());
            }
            Known::No
        }
    };
    Ok(TransformPlan { schema: known, holds: false, stateful: false, notes, warnings: vec![] })
}

/// Where a column stands.
///
/// # Errors
/// Config: there is none of the name, and the hint names the nearest; or there are two.
pub(crate) fn find(schema: &Schema, name: &str) -> Result<usize> {
    let mut found = schema.fields().iter().enumerate().filter(|(_, field)| field.name() == name).map(|(at, _)| at);
    match (found.next(), found.next()) {
        (Some(at), None) => Ok(at),
        (Some(_), Some(_)) => Err(Error::config(format!("there are several columns '{name}'"))
            .hint("let the source give each column a name of its own")),
        (None, _) => {
            let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            let error = Error::config(format!("there is no column '{name}'"));
            Err(match (nearest(name, &names), names.as_slice()) {
                (Some(name), _) => error.hint(format!("did you mean '{name}'?")),
                (None, []) => error.hint("there are no columns at all"),
                (None, [most @ .., _]) if names.len() > 24 => {
                    let most = most.get(..24).unwrap_or(most);
                    error.hint(format!("there are {}, …", most.join(", ")))
                }
                (None, names) => error.hint(format!("there are {}", names.join(", "))),
            })
        }
    }
}

/// The name that was most likely meant, if one is near enough.
fn nearest<'a>(wrong: &str, names: &[&'a str]) -> Option<&'a str> {
    let flat = |text: &str| text.to_lowercase().replace(['-', '_', ' ', '.'], "");
    let wanted = flat(wrong);
    let near = (wanted.chars().count() / 3).clamp(1, 3);
    let distances = names.iter().map(|name| (strsim::damerau_levenshtein(&wanted, &flat(name)), *name));
    distances.filter(|(distance, _)| *distance <= near).min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}

/// The first name that stands there twice.
pub(crate) fn twice<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut seen = std::collections::HashSet::new();
    names.into_iter().find(|name| !seen.insert(*name))
}

/// The same columns under another schema of as many fields of the same types.
pub(crate) fn under(rows: &RecordBatch, schema: SchemaRef) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(schema, rows.columns().to_vec(), &options)
        .map_err(|error| Error::data("rows do not fit their schema").because(error))
}

/// The rows that are set in `keep`; all of them without a copy.
pub(crate) fn keep(rows: RecordBatch, keep: arrow_buffer::BooleanBuffer) -> Result<RecordBatch> {
    if keep.count_set_bits() == rows.num_rows() {
        return Ok(rows);
    }
    let keep = arrow_array::BooleanArray::new(keep, None);
    arrow_select::filter::filter_record_batch(&rows, &keep)
        .map_err(|error| Error::unsupported("rows of these columns cannot be picked").because(error))
}
