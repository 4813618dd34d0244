//! What the transforms share: finding columns by name, and what is known of schemas.

use std::sync::Arc;

use arrow_schema::{Schema, SchemaRef};
use towpath_core::{Error, ErrorKind, Known, Name, Result, TransformPlan};

/// The place of a column. `kind`: Config before a run, Data in one.
pub(crate) fn find(schema: &Schema, name: &str, kind: ErrorKind) -> Result<usize> {
    schema.index_of(name).map_err(|_| {
        let names = || schema.fields().iter().map(|field| field.name().as_str());
        let near = names().map(|other| (strsim::damerau_levenshtein(name, other), other)).min();
        let hint = match near {
            Some((distance, other)) if distance <= name.chars().count().div_ceil(3) => {
                format!("did you mean '{other}'?")
            }
            _ => format!("the columns are: {}", names().collect::<Vec<_>>().join(", ")),
        };
        Error::new(kind, format!("there is no column '{name}'")).hint(hint)
    })
}

/// The plan of a transform that makes each batch of `output`'s schema; `output` fails where a column is missing.
pub(crate) fn plan(inputs: &[(Name, Known)], output: impl Fn(&SchemaRef) -> Result<Schema>) -> Result<TransformPlan> {
    let mut schema = Known::No;
    for (index, (input, known)) in inputs.iter().enumerate() {
        let out = match known.schema() {
            Some(of) => Some(Arc::new(output(of).map_err(|error| error.at(format!("input {input}")))?)),
            None => None,
        };
        if index == 0 {
            schema = match (known, out) {
                (Known::Now(_), Some(out)) => Known::Now(out),
                (Known::LastRun(_), Some(out)) => Known::LastRun(out),
                _ => Known::No,
            };
        }
    }
    Ok(TransformPlan { schema, holds: false, stateful: false, notes: vec![] })
}
