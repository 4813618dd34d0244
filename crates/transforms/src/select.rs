//! `select`: keeps some columns, in an order of one's own, or drops some.

use arrow_array::RecordBatch;
use arrow_schema::Schema;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use towpath_core::{
    Connector, Context, Error, Known, Name, Output, Result, Transform, TransformPlan,
    connector::{self, TransformRole},
    inventory,
};

use crate::inputs;

/// Options of `select`: `columns` or `drop`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SelectOptions {
    /// The columns to keep, in the order in which they are to come: `[Station, Qty]`. Either this or `drop`.
    #[serde(default)]
    pub columns: Vec<String>,
    /// The columns to leave out; the others stay in their order. Either this or `columns`.
    #[serde(default)]
    pub drop: Vec<String>,
}

/// The transform.
pub struct Select {
    names: Vec<String>,
    drop: bool,
}

impl Select {
    /// # Errors
    /// Config: neither or both of the options, or a name that stands there twice.
    pub fn new(options: SelectOptions) -> Result<Self> {
        let (names, drop) = match (options.columns, options.drop) {
            (columns, drop) if drop.is_empty() && !columns.is_empty() => (columns, false),
            (columns, drop) if columns.is_empty() && !drop.is_empty() => (drop, true),
            (columns, _) if columns.is_empty() => {
                return Err(Error::config("it names no column")
                    .hint("write `columns: [Station, Qty]` to keep columns, or `drop: [Note]` to leave some out"));
            }
            _ => {
                return Err(Error::config("it has both `columns` and `drop`")
                    .hint("what `columns` does not name is left out anyway: remove `drop`"));
            }
        };
        if let Some(name) = inputs::twice(names.iter().map(String::as_str)) {
            let key = if drop { "drop" } else { "columns" };
            return Err(Error::config(format!("{key}: '{name}' stands there twice")));
        }
        Ok(Self { names, drop })
    }

    fn indices(&self, schema: &Schema) -> Result<Vec<usize>> {
        let named = self.names.iter().map(|name| inputs::find(schema, name)).collect::<Result<Vec<_>>>()?;
        if !self.drop {
            return Ok(named);
        }
        let left: Vec<_> = (0..schema.fields().len()).filter(|at| !named.contains(at)).collect();
        if left.is_empty() {
            return Err(Error::config("drop: no column would be left"));
        }
        Ok(left)
    }
}

#[async_trait]
impl Transform for Select {
    fn plan(&self, given: &[(Name, Known)]) -> Result<TransformPlan> {
        inputs::plan(given, |schema| {
            let projected = schema.project(&self.indices(schema)?);
            projected.map(Into::into).map_err(|error| Error::internal("cannot pick columns").because(error))
        })
    }

    async fn apply(&mut self, _: &Context, input: &Name, rows: RecordBatch, out: &mut dyn Output) -> Result<()> {
        let indices = self.indices(rows.schema_ref()).map_err(|error| error.at(format!("input {input}")))?;
        let rows = rows.project(&indices).map_err(|error| Error::internal("cannot pick columns").because(error))?;
        out.rows(rows).await
    }
}

fn make(_: &Name, options: SelectOptions) -> Result<Box<dyn Transform>> {
    Ok(Box::new(Select::new(options)?))
}

inventory::submit! {
    Connector::new("select", "Keeps some columns, or drops some", include_str!("../docs/select.md"))
        .transform(TransformRole::of::<SelectOptions>(|name, value| connector::build(name, value, make)))
}
