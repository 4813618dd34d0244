//! `rename`: gives columns other names.

use std::{collections::BTreeMap, sync::Arc};

use arrow_array::RecordBatch;
use arrow_schema::{Schema, SchemaRef};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use towpath_core::{
    Connector, Context, Error, Known, Name, Output, Result, Transform, TransformPlan,
    connector::{self, TransformRole},
    inventory,
};

use crate::inputs;

/// Options of `rename`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RenameOptions {
    /// Old names and new ones: `{ Textbox12: Station }`. The others stay as they are. All are renamed at once, so two names can be
    /// exchanged.
    pub columns: BTreeMap<String, String>,
}

/// The transform.
pub struct Rename {
    columns: BTreeMap<String, String>,
}

impl Rename {
    /// # Errors
    /// Config: no column, or two that would get the same name.
    pub fn new(options: RenameOptions) -> Result<Self> {
        let columns = options.columns;
        if columns.is_empty() {
            return Err(
                Error::config("columns: names no column").hint("write one like `columns: { Textbox12: Station }`")
            );
        }
        if let Some(name) = inputs::twice(columns.values().map(String::as_str)) {
            return Err(Error::config(format!("columns: two columns would become '{name}'")));
        }
        Ok(Self { columns })
    }

    fn schema(&self, schema: &SchemaRef) -> Result<SchemaRef> {
        self.columns.keys().try_for_each(|name| inputs::find(schema, name).map(drop))?;
        let new = |name: &String| self.columns.get(name).cloned();
        for field in schema.fields().iter().filter(|field| new(field.name()).is_none()) {
            if let Some((old, name)) = self.columns.iter().find(|(_, name)| *name == field.name()) {
                return Err(Error::config(format!("'{old}' cannot become '{name}': there is a column of that name"))
                    .hint(format!("rename '{name}' as well, or take another name")));
            }
        }
        let fields = schema.fields().iter().map(|field| match new(field.name()) {
            Some(name) => Arc::new(field.as_ref().clone().with_name(name)),
            None => Arc::clone(field),
        });
        Ok(Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone())))
    }
}

#[async_trait]
impl Transform for Rename {
    fn plan(&self, given: &[(Name, Known)]) -> Result<TransformPlan> {
        inputs::plan(given, |schema| self.schema(schema))
    }

    async fn apply(&mut self, _: &Context, input: &Name, rows: RecordBatch, out: &mut dyn Output) -> Result<()> {
        let schema = self.schema(rows.schema_ref()).map_err(|error| error.at(format!("input {input}")))?;
        out.rows(inputs::under(&rows, schema)?).await
    }
}

fn make(_: &Name, options: RenameOptions) -> Result<Box<dyn Transform>> {
    Ok(Box::new(Rename::new(options)?))
}

inventory::submit! {
    Connector::new("rename", "Gives columns other names", include_str!("../docs/rename.md"))
        .transform(TransformRole::of::<RenameOptions>(|name, value| connector::build(name, value, make)))
}
