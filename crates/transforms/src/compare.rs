//! Conditions over columns: literals made into values of a column's type once, rows compared by Arrow's kernels.
//!
//! Truth has three values, as in SQL: what is compared with NULL is neither true nor false.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, BooleanArray, RecordBatch, Scalar, StringArray,
    cast::AsArray,
    types::{Float32Type, Float64Type},
};
use arrow_buffer::BooleanBuffer;
use arrow_ord::cmp;
use arrow_schema::{DataType, Field, Schema};
use towpath_core::{Error, Result};
use towpath_formats::columns::cast_to;

use crate::{
    condition::{Condition, Literal, Op},
    inputs,
};

/// A condition made for a schema.
pub(crate) enum Compiled {
    Compare {
        at: usize,
        op: Op,
        with: Vec<Operand>,
    },
    Null {
        at: usize,
        is: bool,
    },
    All(Vec<Compiled>),
    Any(Vec<Compiled>),
    Not(Box<Compiled>),
    /// A comparison with a column that is always NULL.
    Unknown,
}

/// The other side of a comparison.
pub(crate) struct Operand {
    value: Scalar<ArrayRef>,
    /// What the column becomes first: wide enough for both sides.
    widened: Option<DataType>,
    /// A floating point zero: the column's negative zeros count as zeros.
    zero: bool,
}

/// For each row whether the condition holds, and whether it does not; neither where that is unknown.
struct Truth {
    yes: BooleanBuffer,
    no: BooleanBuffer,
}

/// Makes a condition for rows of a schema.
///
/// # Errors
/// Config: a column is not there, or cannot be compared with the value.
pub(crate) fn compile(condition: &Condition, schema: &Schema) -> Result<Compiled> {
    let list = |list: &[Condition]| list.iter().map(|one| compile(one, schema)).collect::<Result<Vec<_>>>();
    Ok(match condition {
        Condition::All { all } => Compiled::All(list(all)?),
        Condition::Any { any } => Compiled::Any(list(any)?),
        Condition::Not { not } => Compiled::Not(Box::new(compile(not, schema)?)),
        Condition::Comparison { column, op, value } => {
            let at = inputs::find(schema, column)?;
            let field = schema.field(at);
            match op {
                Op::IsNull | Op::IsNotNull => Compiled::Null { at, is: *op == Op::IsNull },
                _ if *field.data_type() == DataType::Null => Compiled::Unknown,
                _ => {
                    let with = value.iter().map(|value| operand(field, value)).collect::<Result<_>>()?;
                    Compiled::Compare { at, op: *op, with }
                }
            }
        }
    })
}

/// The rows for which a condition holds.
///
/// # Errors
/// Internal: the rows are not of the schema it was made for.
pub(crate) fn holds(condition: &Compiled, rows: &RecordBatch) -> Result<BooleanBuffer> {
    truth(condition, rows).map(|truth| truth.yes)
}

fn truth(condition: &Compiled, rows: &RecordBatch) -> Result<Truth> {
    let column = |at: usize| rows.columns().get(at).ok_or_else(|| Error::internal("a column is not where it was"));
    let count = rows.num_rows();
    let (set, unset) = (|| BooleanBuffer::new_set(count), || BooleanBuffer::new_unset(count));
    Ok(match condition {
        Compiled::Unknown => Truth { yes: unset(), no: unset() },
        Compiled::Null { at, is } => {
            let there = column(*at)?.logical_nulls().map_or_else(set, |nulls| nulls.into_inner());
            let missing = !&there;
            if *is { Truth { yes: missing, no: there } } else { Truth { yes: there, no: missing } }
        }
        Compiled::Not(condition) => {
            let Truth { yes, no } = truth(condition, rows)?;
            Truth { yes: no, no: yes }
        }
        Compiled::All(all) => {
            let start = Truth { yes: set(), no: unset() };
            all.iter().try_fold(start, |so_far, one| {
                let one = truth(one, rows)?;
                Ok::<_, Error>(Truth { yes: &so_far.yes & &one.yes, no: &so_far.no | &one.no })
            })?
        }
        Compiled::Any(any) => {
            let start = Truth { yes: unset(), no: set() };
            any.iter().try_fold(start, |so_far, one| {
                let one = truth(one, rows)?;
                Ok::<_, Error>(Truth { yes: &so_far.yes | &one.yes, no: &so_far.no & &one.no })
            })?
        }
        Compiled::Compare { at, op, with } => {
            let column = column(*at)?;
            let one_of = || {
                let start = Truth { yes: unset(), no: set() };
                with.iter().try_fold(start, |so_far, one| {
                    let one = compare(column, Op::Equal, one)?;
                    Ok::<_, Error>(Truth { yes: &so_far.yes | &one.yes, no: &so_far.no & &one.no })
                })
            };
            match (op, with.as_slice()) {
                (Op::In, _) => one_of()?,
                (Op::NotIn, _) => {
                    let Truth { yes, no } = one_of()?;
                    Truth { yes: no, no: yes }
                }
                (op, [one]) => compare(column, *op, one)?,
                _ => return Err(Error::internal("a comparison has no value")),
            }
        }
    })
}

fn compare(column: &ArrayRef, op: Op, with: &Operand) -> Result<Truth> {
    let wrong = |error| Error::internal("columns cannot be compared").because(error);
    let mut column = Arc::clone(column);
    if let Some(to) = &with.widened {
        column = arrow_cast::cast(&column, to).map_err(wrong)?;
    }
    if with.zero {
        // The kernels order floats totally, and so -0 before 0.
        column = match column.data_type() {
            DataType::Float32 => Arc::new(column.as_primitive::<Float32Type>().unary::<_, Float32Type>(|x| x + 0.0)),
            DataType::Float64 => Arc::new(column.as_primitive::<Float64Type>().unary::<_, Float64Type>(|x| x + 0.0)),
            _ => column,
        };
    }
    let kernel = match op {
        Op::Equal => cmp::eq,
        Op::NotEqual => cmp::neq,
        Op::Less => cmp::lt,
        Op::LessOrEqual => cmp::lt_eq,
        Op::Greater => cmp::gt,
        Op::GreaterOrEqual => cmp::gt_eq,
        Op::In | Op::NotIn | Op::IsNull | Op::IsNotNull => return Err(Error::internal("no comparison of two values")),
    };
    let (values, nulls) = kernel(&column, &with.value).map(BooleanArray::into_parts).map_err(wrong)?;
    Ok(match nulls {
        None => Truth { no: !&values, yes: values },
        Some(nulls) => Truth { yes: &values & nulls.inner(), no: &!&values & nulls.inner() },
    })
}

/// A literal as a value of the column's type.
fn operand(field: &Field, literal: &Literal) -> Result<Operand> {
    let (column, of) = (field.name(), plain(field.data_type()));
    let is_text = matches!(of, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let clash = || Error::config(format!("column '{column}' is {}, and {literal} is not", kind(of)));
    let text = match literal {
        Literal::Text(text) => text.clone(),
        Literal::Number(_) | Literal::Bool(_) if is_text => {
            return Err(clash().hint(format!(
                "give the column a type with `columns` in its source or a cast, or write \"{literal}\" to compare as text"
            )));
        }
        Literal::Number(number) if of.is_numeric() => match number.as_f64() {
            // Without an exponent.
            Some(value) if number.is_f64() => value.to_string(),
            _ => number.to_string(),
        },
        Literal::Bool(value) if *of == DataType::Boolean => value.to_string(),
        Literal::Number(_) | Literal::Bool(_) => return Err(clash()),
    };
    if !is_text && !of.is_numeric() && !of.is_temporal() && *of != DataType::Boolean {
        return Err(Error::config(format!("column '{column}' is of type {of}, which cannot be compared"))
            .hint("`is null` and `is not null` can be asked of it"));
    }
    let value = match parse(column, of, &text)? {
        Ok(value) => value,
        Err(reason) => return wide(of, &text).ok_or_else(|| Error::config(reason)),
    };
    let zero = match of {
        DataType::Float32 => value.as_primitive::<Float32Type>().values().first() == Some(&0.0),
        DataType::Float64 => value.as_primitive::<Float64Type>().values().first() == Some(&0.0),
        _ => false,
    };
    // The scalar's own negative zero goes the same way.
    let value = match (zero, of) {
        (true, DataType::Float32) => Arc::new(value.as_primitive::<Float32Type>().unary::<_, Float32Type>(|x| x + 0.0)),
        (true, DataType::Float64) => {
            Arc::new(value.as_primitive::<Float64Type>().unary::<_, Float64Type>(|x| x + 0.0)) as ArrayRef
        }
        _ => value,
    };
    Ok(Operand { value: Scalar::new(value), widened: None, zero })
}

/// A text by the rules by which text becomes a value anywhere; `Err` with the reason if it does not.
fn parse(column: &str, of: &DataType, text: &str) -> Result<std::result::Result<ArrayRef, String>> {
    let one = |text: &str| {
        let schema = Schema::new(vec![Field::new(column, DataType::Utf8, true)]);
        let value: ArrayRef = Arc::new(StringArray::from(vec![text]));
        let rows = RecordBatch::try_new(Arc::new(schema), vec![value]);
        let rows = rows.map_err(|error| Error::internal("a value does not become a row").because(error))?;
        cast_to(&rows, &Arc::new(Schema::new(vec![Field::new(column, of.clone(), true)])))
    };
    let (mut rows, mut rejects) = one(text)?;
    if let (DataType::Timestamp(..), Some(_)) = (of, rejects.first()) {
        // A day is its first moment.
        let (first, none) = one(&format!("{text}T00:00:00"))?;
        if none.is_empty() {
            (rows, rejects) = (first, none);
        }
    }
    if let Some(reject) = rejects.pop() {
        return Ok(Err(reject.reason));
    }
    match rows.columns().first() {
        Some(value) if value.len() == 1 && value.is_valid(0) => Ok(Ok(Arc::clone(value))),
        _ => Ok(Err(format!("column '{column}' is compared with an empty text, and is {}: ask `is null`", kind(of)))),
    }
}

/// Whole numbers and decimals against one with more digits than their own type has: both as wide decimals, exact.
fn wide(of: &DataType, text: &str) -> Option<Operand> {
    let own = match of {
        DataType::Decimal128(_, scale) => (*scale).max(0),
        of if of.is_integer() => 0,
        _ => return None,
    };
    let digits = text.trim().trim_start_matches(['-', '+']);
    let (whole, behind) = digits.split_once('.').unwrap_or((digits, ""));
    let number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if !number(whole) || !number(behind) || whole.is_empty() {
        return None;
    }
    let scale = own.max(i8::try_from(behind.len()).ok().filter(|behind| *behind <= 38)?);
    let to = DataType::Decimal256(76, scale);
    let text: ArrayRef = Arc::new(StringArray::from(vec![text.trim()]));
    let value = arrow_cast::cast(&text, &to).ok().filter(|value| value.is_valid(0))?;
    Some(Operand { value: Scalar::new(value), widened: Some(to), zero: false })
}

/// The type of a column's values.
fn plain(of: &DataType) -> &DataType {
    match of {
        DataType::Dictionary(_, values) => values,
        of => of,
    }
}

/// In words.
fn kind(of: &DataType) -> String {
    match of {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_owned(),
        DataType::Boolean => "a bool".to_owned(),
        DataType::Date32 | DataType::Date64 => "a date".to_owned(),
        DataType::Timestamp(..) => "a timestamp".to_owned(),
        of if of.is_numeric() => "a number".to_owned(),
        of => format!("of type {of}"),
    }
}
