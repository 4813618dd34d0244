//! Conditions on rows, as they stand in a config.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Number, Value};

/// A comparison of a column, or `all`, `any`, `not` of conditions.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(untagged, deny_unknown_fields)]
pub enum Condition {
    /// A comparison: `{ column: Qty, op: ">", value: 0 }`.
    Comparison {
        /// The column.
        column: String,
        /// How it is compared.
        op: Op,
        /// What it is compared with: a text, a number, `true` or `false`; a list of them for `in` and `not in`; nothing for `is null` and
        /// `is not null`.
        #[schemars(schema_with = "value_schema", default)]
        value: Vec<Literal>,
    },
    /// Every one of these conditions.
    All {
        /// The conditions.
        all: Vec<Condition>,
    },
    /// At least one of these conditions.
    Any {
        /// The conditions.
        any: Vec<Condition>,
    },
    /// The contrary of this condition.
    Not {
        /// The condition.
        not: Box<Condition>,
    },
}

/// How a column is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Op {
    /// Equal.
    #[serde(rename = "=")]
    Equal,
    /// Not equal.
    #[serde(rename = "!=")]
    NotEqual,
    /// Less.
    #[serde(rename = "<")]
    Less,
    /// Less or equal.
    #[serde(rename = "<=")]
    LessOrEqual,
    /// Greater.
    #[serde(rename = ">")]
    Greater,
    /// Greater or equal.
    #[serde(rename = ">=")]
    GreaterOrEqual,
    /// One of a list.
    #[serde(rename = "in")]
    In,
    /// None of a list.
    #[serde(rename = "not in")]
    NotIn,
    /// NULL.
    #[serde(rename = "is null")]
    IsNull,
    /// Not NULL.
    #[serde(rename = "is not null")]
    IsNotNull,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::In => "in",
            Self::NotIn => "not in",
            Self::IsNull => "is null",
            Self::IsNotNull => "is not null",
        })
    }
}

/// A value of the config.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// Text.
    Text(String),
    /// A number.
    Number(Number),
    /// `true` or `false`.
    Bool(bool),
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "'{text}'"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Bool(value) => write!(f, "{value}"),
        }
    }
}

fn value_schema(_: &mut SchemaGenerator) -> Schema {
    let one = ["string", "number", "boolean"];
    json_schema!({ "anyOf": [{ "type": one }, { "type": "array", "items": { "type": one }, "minItems": 1 }] })
}

/// Everything a condition can have; what goes together is told by hand, because serde's untagged enums cannot say
/// what is wrong.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    column: Option<String>,
    op: Option<Op>,
    value: Option<Value>,
    all: Option<Vec<Condition>>,
    any: Option<Vec<Condition>>,
    not: Option<Box<Condition>>,
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Form::deserialize(deserializer)?.condition().map_err(D::Error::custom)
    }
}

impl Form {
    fn condition(self) -> Result<Condition, String> {
        let condition = match self {
            Self { column: Some(column), op: Some(op), value, all: None, any: None, not: None } => {
                Condition::Comparison { value: values(&column, op, value)?, column, op }
            }
            Self { column: Some(column), op: None, all: None, any: None, not: None, .. } => {
                return Err(format!(
                    "column '{column}' is compared without an `op` such as \"=\", \"<\", \"in\" or \"is null\""
                ));
            }
            Self { column: None, op: None, value: None, all: Some(all), any: None, not: None } => {
                Condition::All { all }
            }
            Self { column: None, op: None, value: None, all: None, any: Some(any), not: None } => {
                Condition::Any { any }
            }
            Self { column: None, op: None, value: None, all: None, any: None, not: Some(not) } => {
                Condition::Not { not }
            }
            _ => return Err("a condition is one of { column, op, value }, { all }, { any } and { not }".to_owned()),
        };
        match &condition {
            Condition::All { all: list } | Condition::Any { any: list } if list.is_empty() => {
                Err("a list of conditions is empty".to_owned())
            }
            _ => Ok(condition),
        }
    }
}

fn values(column: &str, op: Op, value: Option<Value>) -> Result<Vec<Literal>, String> {
    let literal = |value: Value| match value {
        Value::String(text) => Ok(Literal::Text(text)),
        Value::Number(number) => Ok(Literal::Number(number)),
        Value::Bool(value) => Ok(Literal::Bool(value)),
        Value::Null => Err(format!("column '{column}' is compared with null: ask `is null` or `is not null`")),
        _ => Err(format!("column '{column}': a value is a text, a number, true or false")),
    };
    match (op, value) {
        (Op::IsNull | Op::IsNotNull, None) => Ok(vec![]),
        (Op::IsNull | Op::IsNotNull, Some(_)) => Err(format!("column '{column}': `{op}` takes no value")),
        (Op::In | Op::NotIn, Some(Value::Array(list))) if !list.is_empty() => list.into_iter().map(literal).collect(),
        (Op::In | Op::NotIn, _) => Err(format!("column '{column}': `{op}` takes a list of values such as [1, 2]")),
        (_, Some(Value::Array(_))) => {
            Err(format!("column '{column}': `{op}` takes one value; for a list there is `in`"))
        }
        (_, Some(value)) => Ok(vec![literal(value)?]),
        (_, None) => {
            Err(format!("column '{column}': `{op}` takes a value; for NULL there are `is null` and `is not null`"))
        }
    }
}
