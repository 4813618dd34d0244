//! `filter`: keeps the rows for which conditions hold.

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use towpath_core::{
    Connector, Context, Error, Known, Name, Output, Result, Transform, TransformPlan,
    connector::{self, TransformRole},
    inventory,
};

use crate::{
    compare::{Compiled, compile, holds},
    condition::Condition,
    inputs,
};

/// Options of `filter`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilterOptions {
    /// The conditions that must all hold for a row to be kept. Each is `{ column, op, value }`, with one of the operators `=`, `!=`, `<`,
    /// `<=`, `>`, `>=`, `in`, `not in`, `is null` and `is not null`, or `{ all: […] }`, `{ any: […] }`, `{ not: … }` of such
    /// conditions.
    pub keep: Vec<Condition>,
}

/// The transform.
pub struct Filter {
    keep: Condition,
    /// For the schema that came last.
    compiled: Option<(SchemaRef, Compiled)>,
}

impl Filter {
    /// # Errors
    /// Config: no condition.
    pub fn new(options: FilterOptions) -> Result<Self> {
        if options.keep.is_empty() {
            return Err(Error::config("keep: there is no condition")
                .hint("write one like `keep: [{ column: Qty, op: \">\", value: 0 }]`"));
        }
        Ok(Self { keep: Condition::All { all: options.keep }, compiled: None })
    }

    fn compiled(&mut self, schema: &SchemaRef) -> Result<&Compiled> {
        let (_, compiled) = match self.compiled.take() {
            Some((of, compiled)) if of == *schema => self.compiled.insert((of, compiled)),
            _ => self.compiled.insert((schema.clone(), compile(&self.keep, schema)?)),
        };
        Ok(compiled)
    }
}

#[async_trait]
impl Transform for Filter {
    fn plan(&self, given: &[(Name, Known)]) -> Result<TransformPlan> {
        inputs::plan(given, |schema| compile(&self.keep, schema).map(|_| schema.clone()))
    }

    async fn apply(&mut self, _: &Context, input: &Name, rows: RecordBatch, out: &mut dyn Output) -> Result<()> {
        let compiled = self.compiled(rows.schema_ref()).map_err(|error| error.at(format!("input {input}")))?;
        let keep = holds(compiled, &rows)?;
        out.rows(inputs::keep(rows, keep)?).await
    }
}

fn make(_: &Name, options: FilterOptions) -> Result<Box<dyn Transform>> {
    Ok(Box::new(Filter::new(options)?))
}

inventory::submit! {
    Connector::new("filter", "Keeps the rows for which conditions hold", include_str!("../docs/filter.md"))
        .transform(TransformRole::of::<FilterOptions>(|name, value| connector::build(name, value, make)))
}
