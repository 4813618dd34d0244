//! `cast`: gives text columns their types.

use arrow_array::RecordBatch;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use towpath_core::{
    Connector, Context, Error, Known, Name, Output, Result, Transform, TransformPlan,
    connector::{self, TransformRole},
    inventory,
};
use towpath_formats::columns::{Columns, cast};

use crate::inputs;

/// Options of `cast`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CastOptions {
    /// Columns and the types they become: `{ Qty: int64, Price: "decimal(10,2)" }`. The others stay as they are. A row with a value that
    /// does not parse is rejected.
    pub columns: Columns,
}

/// The transform.
pub struct Cast {
    columns: Columns,
}

impl Cast {
    /// # Errors
    /// Config: no column.
    pub fn new(options: CastOptions) -> Result<Self> {
        if options.columns.is_empty() {
            return Err(Error::config("columns: names no column").hint("write one like `columns: { Qty: int64 }`"));
        }
        Ok(Self { columns: options.columns })
    }

    fn check(&self, schema: &arrow_schema::Schema) -> Result<()> {
        self.columns.iter().try_for_each(|(name, _)| inputs::find(schema, name).map(drop))
    }
}

#[async_trait]
impl Transform for Cast {
    fn plan(&self, given: &[(Name, Known)]) -> Result<TransformPlan> {
        inputs::plan(given, |schema| {
            self.check(schema)?;
            // No rows tell the same as rows: the schema, and whether one type can become the other.
            Ok(cast(&RecordBatch::new_empty(schema.clone()), &self.columns)?.0.schema())
        })
    }

    async fn apply(&mut self, _: &Context, input: &Name, rows: RecordBatch, out: &mut dyn Output) -> Result<()> {
        let place = |error: Error| error.at(format!("input {input}"));
        self.check(rows.schema_ref()).map_err(place)?;
        let (rows, rejects) = cast(&rows, &self.columns).map_err(place)?;
        rejects.into_iter().for_each(|reject| out.reject(reject));
        out.rows(rows).await
    }
}

fn make(_: &Name, options: CastOptions) -> Result<Box<dyn Transform>> {
    Ok(Box::new(Cast::new(options)?))
}

inventory::submit! {
    Connector::new("cast", "Gives text columns their types", include_str!("../docs/cast.md"))
        .transform(TransformRole::of::<CastOptions>(|name, value| connector::build(name, value, make)))
}
