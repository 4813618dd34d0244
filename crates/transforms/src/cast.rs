//! `cast`: text columns become typed ones.

use arrow_array::RecordBatch;
use arrow_schema::{Field, Schema};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use towpath_core::{
    Connector, Context, Error, ErrorKind, Known, Name, Output, Result, Transform, TransformPlan,
    connector::{TransformRole, build},
    inventory,
};
use towpath_formats::columns::{self, Columns};

use crate::columns::{find, plan};

/// Options of the `cast` transform.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CastOptions {
    /// The types of columns by name: `text`, `int64`, `float64`, `decimal(10,2)`, `bool`, `date`, `timestamp`, or a map with `type`,
    /// `format` and `timezone`. Columns that are not named stay as they are.
    pub columns: Columns,
}

/// Gives columns types; a value that does not parse costs its row.
#[derive(Debug)]
pub struct Cast(CastOptions);

impl Cast {
    /// From the config.
    pub fn build(_: &Name, options: CastOptions) -> Result<Box<dyn Transform>> {
        if options.columns.is_empty() {
            return Err(Error::config("columns: name at least one"));
        }
        Ok(Box::new(Self(options)))
    }
}

#[async_trait]
impl Transform for Cast {
    fn plan(&self, inputs: &[(Name, Known)]) -> Result<TransformPlan> {
        plan(inputs, |schema| {
            for (name, _) in self.0.columns.iter() {
                find(schema, name, ErrorKind::Config)?;
            }
            let typed = schema.fields().iter().map(|field| match self.0.columns.get(field.name()) {
                Some(of) => Field::new(field.name(), of.data_type(), true),
                None => Field::clone(field),
            });
            Ok(Schema::new_with_metadata(typed.collect::<Vec<_>>(), schema.metadata().clone()))
        })
    }
    async fn apply(&mut self, _: &Context, _: &Name, rows: RecordBatch, out: &mut dyn Output) -> Result<()> {
        for (name, _) in self.0.columns.iter() {
            find(rows.schema_ref(), name, ErrorKind::Data)?;
        }
        let (cast, rejects) = columns::cast(&rows, &self.0.columns)?;
        rejects.into_iter().for_each(|reject| out.reject(reject));
        out.rows(cast).await
    }
}

inventory::submit! {
    Connector::new("cast", "Types for text columns", include_str!("../docs/cast.md"))
        .transform(TransformRole::of::<CastOptions>(|name, options| build(name, options, Cast::build)))
}
