//! `filter`: rows that meet conditions. Plain comparisons, no language.

use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, Scalar, StringArray};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_ord::cmp;
use arrow_schema::{ArrowError, DataType, Schema};
use arrow_select::filter::filter_record_batch;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use towpath_core::{
    Connector, Context, Error, ErrorKind, Known, Name, Output, Result, Transform, TransformPlan,
    connector::{TransformRole, build},
    inventory,
};

use crate::columns::{find, plan};

/// Options of the `filter` transform.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilterOptions {
    /// The conditions.
    #[serde(rename = "where")]
    pub conditions: Vec<Condition>,
    /// Whether a row must meet `all` of them or `any`. Default: all
    #[serde(default, rename = "match")]
    pub matching: Match,
}

/// How many conditions a row must meet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Match {
    /// All.
    #[default]
    All,
    /// At least one.
    Any,
}

/// What a column must be; of several comparisons all must hold. A value that is null meets none but `null: true`. Text is compared
/// as text: what is to be compared as a number needs a type first.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// The column.
    pub column: String,
    /// The same as this.
    #[serde(default)]
    pub equals: Option<Literal>,
    /// Another than this.
    #[serde(default)]
    pub not_equals: Option<Literal>,
    /// One of these.
    #[serde(default, rename = "in")]
    pub one_of: Option<Vec<Literal>>,
    /// Less than this.
    #[serde(default)]
    pub less_than: Option<Literal>,
    /// This or less.
    #[serde(default)]
    pub at_most: Option<Literal>,
    /// More than this.
    #[serde(default)]
    pub more_than: Option<Literal>,
    /// This or more.
    #[serde(default)]
    pub at_least: Option<Literal>,
    /// Null (`true`), or not (`false`).
    #[serde(default)]
    pub null: Option<bool>,
}

/// A value to compare with; it becomes one of the column's type.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Literal {
    /// `true`, `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// Text, a date, a time, a decimal.
    Text(String),
}

impl Literal {
    fn text(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Float(value) => value.to_string(),
            Self::Text(value) => value.clone(),
        }
    }
}

type Compare = fn(&dyn arrow_array::Datum, &dyn arrow_array::Datum) -> Result<BooleanArray, ArrowError>;

/// Keeps rows that meet the conditions.
#[derive(Debug)]
pub struct Filter(FilterOptions);

impl Filter {
    /// From the config.
    pub fn build(_: &Name, options: FilterOptions) -> Result<Box<dyn Transform>> {
        if options.conditions.is_empty() {
            return Err(Error::config("where: write at least one condition"));
        }
        for condition in &options.conditions {
            if condition.comparisons().next().is_none() && condition.one_of.is_none() && condition.null.is_none() {
                let what = format!("where: nothing is asked of column '{}'", condition.column);
                return Err(Error::config(what).hint(
                    "write `equals`, `not_equals`, `in`, `less_than`, `at_most`, `more_than`, `at_least` or `null`",
                ));
            }
        }
        Ok(Box::new(Self(options)))
    }

    fn check(&self, schema: &Schema, kind: ErrorKind) -> Result<()> {
        for condition in &self.0.conditions {
            let field = schema.field(find(schema, &condition.column, kind)?);
            condition.check(field.data_type(), kind)?;
        }
        Ok(())
    }

    fn keep(&self, rows: &RecordBatch) -> Result<BooleanArray> {
        let mut kept: Option<BooleanArray> = None;
        for condition in &self.0.conditions {
            let at = find(rows.schema_ref(), &condition.column, ErrorKind::Data)?;
            let met = condition.met(rows.column(at))?;
            kept = Some(match kept {
                None => met,
                Some(before) => joined(&before, &met, self.0.matching),
            });
        }
        kept.ok_or_else(|| Error::internal("a filter without conditions"))
    }
}

/// Null counts as not met, in what comes in and in what goes out.
fn joined(a: &BooleanArray, b: &BooleanArray, matching: Match) -> BooleanArray {
    let pairs = (0..a.len()).map(|row| (holds(a, row), holds(b, row)));
    let both = pairs.map(|(a, b)| Some(if matching == Match::All { a && b } else { a || b }));
    both.collect()
}

fn holds(met: &BooleanArray, row: usize) -> bool {
    met.is_valid(row) && met.value(row)
}

impl Condition {
    fn comparisons(&self) -> impl Iterator<Item = (&Literal, Compare, bool)> {
        let all: [(&Option<Literal>, Compare, bool); 6] = [
            (&self.equals, cmp::eq, false),
            (&self.not_equals, cmp::neq, false),
            (&self.less_than, cmp::lt, true),
            (&self.at_most, cmp::lt_eq, true),
            (&self.more_than, cmp::gt, true),
            (&self.at_least, cmp::gt_eq, true),
        ];
        all.into_iter().filter_map(|(literal, compare, orders)| Some((literal.as_ref()?, compare, orders)))
    }

    fn check(&self, of: &DataType, kind: ErrorKind) -> Result<()> {
        for (literal, _, orders) in self.comparisons() {
            let number = matches!(literal, Literal::Int(_) | Literal::Float(_));
            let text = matches!(of, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
            if orders && number && text {
                let what = format!(
                    "column '{}' is text, and {} is a number: '9' would be more than '10'",
                    self.column,
                    literal.text()
                );
                let hint = "give the column a type, in the source's `columns` or by a `cast` before";
                return Err(Error::new(kind, what).hint(hint));
            }
            scalar(literal, of, &self.column, kind)?;
        }
        for literal in self.one_of.iter().flatten() {
            scalar(literal, of, &self.column, kind)?;
        }
        Ok(())
    }

    fn met(&self, column: &ArrayRef) -> Result<BooleanArray> {
        let of = column.data_type();
        self.check(of, ErrorKind::Data)?;
        let compared = |literal: &Literal, compare: Compare| {
            let value = Scalar::new(scalar(literal, of, &self.column, ErrorKind::Data)?);
            compare(column, &value)
                .map_err(|error| Error::config(format!("column '{}' cannot be compared", self.column)).because(error))
        };
        let mut met = match self.null {
            Some(wanted) => {
                let nulls = column.logical_nulls();
                let is_null = |row| nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
                (0..column.len()).map(|row| Some(is_null(row) == wanted)).collect()
            }
            None => BooleanArray::from(vec![true; column.len()]),
        };
        for (literal, compare, _) in self.comparisons() {
            met = joined(&met, &compared(literal, compare)?, Match::All);
        }
        if let Some(literals) = &self.one_of {
            let mut any = BooleanArray::from(vec![false; column.len()]);
            for literal in literals {
                any = joined(&any, &compared(literal, cmp::eq)?, Match::Any);
            }
            met = joined(&met, &any, Match::All);
        }
        Ok(met)
    }
}

/// The literal as one value of the column's type.
fn scalar(literal: &Literal, of: &DataType, column: &str, kind: ErrorKind) -> Result<ArrayRef> {
    let text: ArrayRef = std::sync::Arc::new(StringArray::from(vec![literal.text()]));
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(&text, of, &strict).map_err(|error| {
        Error::new(kind, format!("where: '{}' is no value of column '{column}', which is {of}", literal.text()))
            .because(error)
    })
}

#[async_trait]
impl Transform for Filter {
    fn plan(&self, inputs: &[(Name, Known)]) -> Result<TransformPlan> {
        plan(inputs, |schema| {
            self.check(schema, ErrorKind::Config)?;
            Ok(Schema::clone(schema))
        })
    }
    async fn apply(&mut self, _: &Context, _: &Name, rows: RecordBatch, out: &mut dyn Output) -> Result<()> {
        let keep = self.keep(&rows)?;
        let kept = filter_record_batch(&rows, &keep)
            .map_err(|error| Error::internal("rows cannot be dropped").because(error))?;
        out.rows(kept).await
    }
}

inventory::submit! {
    Connector::new("filter", "Rows that meet conditions", include_str!("../docs/filter.md"))
        .transform(TransformRole::of::<FilterOptions>(|name, options| build(name, options, Filter::build)))
}
