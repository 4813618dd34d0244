//! `rename`: other names for columns.

use std::{collections::BTreeMap, sync::Arc};

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

use crate::columns::{find, plan};

/// Options of the `rename` transform.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RenameOptions {
    /// New names by old ones: `Textbox12: quantity`. Columns that are not named keep theirs.
    pub columns: BTreeMap<String, String>,
}

/// Gives columns other names.
#[derive(Debug)]
pub struct Rename(RenameOptions);

impl Rename {
    /// From the config.
    pub fn build(_: &Name, options: RenameOptions) -> Result<Box<dyn Transform>> {
        Ok(Box::new(Self(options)))
    }

    fn schema(&self, from: &Schema, kind: ErrorKind) -> Result<Schema> {
        let mut names: Vec<String> = from.fields().iter().map(|field| field.name().clone()).collect();
        for (old, new) in &self.0.columns {
            let at = find(from, old, kind)?;
            if let Some(name) = names.get_mut(at) {
                name.clone_from(new);
            }
        }
        for (at, name) in names.iter().enumerate() {
            if names.iter().take(at).any(|other| other == name) {
                return Err(Error::new(kind, format!("two columns would be called '{name}'")));
            }
        }
        let renamed = from.fields().iter().zip(names).map(|(field, name)| Field::clone(field).with_name(name));
        Ok(Schema::new_with_metadata(renamed.collect::<Vec<_>>(), from.metadata().clone()))
    }
}

#[async_trait]
impl Transform for Rename {
    fn plan(&self, inputs: &[(Name, Known)]) -> Result<TransformPlan> {
        plan(inputs, |schema| self.schema(schema, ErrorKind::Config))
    }
    async fn apply(&mut self, _: &Context, _: &Name, rows: RecordBatch, out: &mut dyn Output) -> Result<()> {
        let schema = self.schema(rows.schema_ref(), ErrorKind::Data)?;
        let count = arrow_array::RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let renamed = RecordBatch::try_new_with_options(Arc::new(schema), rows.columns().to_vec(), &count)
            .map_err(|error| Error::internal("columns cannot be renamed").because(error))?;
        out.rows(renamed).await
    }
}

inventory::submit! {
    Connector::new("rename", "Other names for columns", include_str!("../docs/rename.md"))
        .transform(TransformRole::of::<RenameOptions>(|name, options| build(name, options, Rename::build)))
}
