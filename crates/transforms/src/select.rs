//! `select`: some of the columns, in an order.

use arrow_array::RecordBatch;
use arrow_schema::Schema;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use towpath_core::{
    Connector, Context, Error, ErrorKind, Known, Name, Output, Result, Transform, TransformPlan,
    connector::{TransformRole, build},
    inventory,
};

use crate::columns::{find, plan};

/// Options of the `select` transform: `columns` or `drop`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SelectOptions {
    /// The columns to keep, in this order.
    #[serde(default)]
    pub columns: Vec<String>,
    /// Or the columns to leave out; the others keep their order.
    #[serde(default)]
    pub drop: Vec<String>,
}

/// Keeps some of the columns.
#[derive(Debug)]
pub struct Select(SelectOptions);

impl Select {
    /// From the config.
    pub fn build(_: &Name, options: SelectOptions) -> Result<Box<dyn Transform>> {
        if options.columns.is_empty() == options.drop.is_empty() {
            return Err(Error::config("write either `columns` to keep or columns to `drop`"));
        }
        for (at, name) in options.columns.iter().enumerate() {
            if options.columns.iter().take(at).any(|other| other == name) {
                return Err(Error::config(format!("columns: '{name}' stands there twice")));
            }
        }
        Ok(Box::new(Self(options)))
    }

    fn places(&self, from: &Schema, kind: ErrorKind) -> Result<Vec<usize>> {
        let SelectOptions { columns, drop } = &self.0;
        if drop.is_empty() {
            return columns.iter().map(|name| find(from, name, kind)).collect();
        }
        let dropped = drop.iter().map(|name| find(from, name, kind)).collect::<Result<Vec<_>>>()?;
        Ok((0..from.fields().len()).filter(|at| !dropped.contains(at)).collect())
    }
}

#[async_trait]
impl Transform for Select {
    fn plan(&self, inputs: &[(Name, Known)]) -> Result<TransformPlan> {
        plan(inputs, |schema| {
            let places = self.places(schema, ErrorKind::Config)?;
            schema.project(&places).map_err(|error| Error::internal("columns cannot be selected").because(error))
        })
    }
    async fn apply(&mut self, _: &Context, _: &Name, rows: RecordBatch, out: &mut dyn Output) -> Result<()> {
        let places = self.places(rows.schema_ref(), ErrorKind::Data)?;
        let selected =
            rows.project(&places).map_err(|error| Error::internal("columns cannot be selected").because(error))?;
        out.rows(selected).await
    }
}

inventory::submit! {
    Connector::new("select", "Some of the columns, in an order", include_str!("../docs/select.md"))
        .transform(TransformRole::of::<SelectOptions>(|name, options| build(name, options, Select::build)))
}
