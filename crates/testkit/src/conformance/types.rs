//! The matrix of types: what each Arrow type comes back as from a sink.
//!
//! A sink takes every type here and gives it back with the same text (see [`rows::value`]), or declares what else
//! becomes of it by a [`TypeQuirk`]. Reading a target, the suite looks at the columns `id` and `value`.

use std::{collections::BTreeMap, sync::Arc};

use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array,
    Int16Array, Int32Array, Int64Array, LargeStringArray, NullArray, RecordBatch, StringArray, StringViewArray,
    Time64MicrosecondArray, TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray,
    TimestampSecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array, types::Int32Type,
};
use arrow_schema::{DataType, Field, Schema};
use towpath_core::{ErrorKind, Original, Reject};

use super::{Check, Report, broken, ensure, run_case, sink::World};
use crate::rows;

/// What becomes of values of a type.
#[derive(Clone, Copy, Debug)]
pub enum Comes {
    /// Each comes back as this makes of its text.
    As(fn(&str) -> String),
    /// Rows with these values are rejected, the others come back as they were.
    Rejected(&'static [&'static str]),
    /// The schema is refused: an error of kind config, data or unsupported.
    Refused,
}

/// A type that does not come back as it was.
#[derive(Clone, Copy, Debug)]
pub struct TypeQuirk {
    /// As in the name of the case: `float64`, `timestamp_us_utc`; see [`names`].
    pub of: &'static str,
    /// What becomes of it.
    pub comes: Comes,
    /// Why, as in the connector's documentation.
    pub reason: &'static str,
}

/// A batch of two columns: `id` counts from 0.
fn batch(values: ArrayRef) -> Option<RecordBatch> {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..values.len() as i64));
    let fields = vec![Field::new("id", DataType::Int64, true), Field::new("value", values.data_type().clone(), true)];
    RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![ids, values]).ok()
}

/// The matrix: a name and values, nulls among them.
fn matrix() -> Vec<(&'static str, ArrayRef)> {
    // 2026-01-31T05:00:00.25, the epoch, a moment before it, a far one.
    let moments = |unit: i64| {
        vec![Some(1_769_835_600 * unit + unit / 4), Some(0), Some(-unit - 1), None, Some(4_102_444_800 * unit)]
    };
    let decimal = |values: Vec<Option<i128>>, precision, scale| -> Option<ArrayRef> {
        Some(Arc::new(Decimal128Array::from(values).with_precision_and_scale(precision, scale).ok()?))
    };
    let floats =
        vec![Some(0.0), Some(-0.1), Some(f64::MAX), Some(f64::MIN_POSITIVE), None, Some(1e15), Some(0.1 + 0.2)];
    let special = vec![Some(f64::NAN), Some(f64::INFINITY), Some(f64::NEG_INFINITY), Some(1.5)];
    let texts = || vec![Some("a"), Some(""), None, Some("1"), Some("ß日🚣\0z")];
    let mut all: Vec<(&'static str, ArrayRef)> = vec![
        ("int8", Arc::new(Int8Array::from(vec![Some(i8::MIN), None, Some(i8::MAX)]))),
        ("int16", Arc::new(Int16Array::from(vec![Some(i16::MIN), None, Some(i16::MAX)]))),
        ("int32", Arc::new(Int32Array::from(vec![Some(i32::MIN), None, Some(i32::MAX)]))),
        ("int64", Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(i64::MAX), Some(0)]))),
        ("uint8", Arc::new(UInt8Array::from(vec![Some(0), None, Some(u8::MAX)]))),
        ("uint16", Arc::new(UInt16Array::from(vec![Some(0), None, Some(u16::MAX)]))),
        ("uint32", Arc::new(UInt32Array::from(vec![Some(0), None, Some(u32::MAX)]))),
        ("uint64", Arc::new(UInt64Array::from(vec![Some(0), None, Some(u64::MAX)]))),
        ("float32", Arc::new(Float32Array::from(vec![Some(0.5), None, Some(f32::MAX), Some(-1.25)]))),
        ("float64", Arc::new(Float64Array::from(floats))),
        ("float64_special", Arc::new(Float64Array::from(special))),
        ("bool", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))),
        ("utf8", Arc::new(StringArray::from(texts()))),
        ("large_utf8", Arc::new(LargeStringArray::from(texts()))),
        ("utf8_view", Arc::new(StringViewArray::from(texts()))),
        ("dictionary", Arc::new(texts().into_iter().collect::<arrow_array::DictionaryArray<Int32Type>>())),
        ("binary", Arc::new(BinaryArray::from(vec![Some(b"\x00\xff'".as_slice()), None, Some(b"")]))),
        ("date32", Arc::new(Date32Array::from(vec![Some(20_484), None, Some(-1), Some(0)]))),
        ("time64_us", Arc::new(Time64MicrosecondArray::from(vec![Some(0), None, Some(86_399_999_999)]))),
        ("timestamp_s", Arc::new(TimestampSecondArray::from(moments(1)))),
        ("timestamp_ms", Arc::new(TimestampMillisecondArray::from(moments(1_000)))),
        ("timestamp_us", Arc::new(TimestampMicrosecondArray::from(moments(1_000_000)))),
        ("timestamp_ns", Arc::new(TimestampNanosecondArray::from(moments(1_000_000_000)))),
        ("timestamp_us_utc", Arc::new(TimestampMicrosecondArray::from(moments(1_000_000)).with_timezone("UTC"))),
        ("timestamp_us_offset", Arc::new(TimestampMicrosecondArray::from(moments(1_000_000)).with_timezone("+02:00"))),
        ("null", Arc::new(NullArray::new(2))),
    ];
    let small = decimal(vec![Some(150), None, Some(-1), Some(0), Some(99_999_999)], 10, 2);
    let large = 99_999_999_999_999_999_999_999_999_999_999_999_999i128;
    let large = decimal(vec![Some(large), None, Some(-large), Some(1)], 38, 10);
    all.extend(small.map(|values| ("decimal_10_2", values)));
    all.extend(large.map(|values| ("decimal_38_10", values)));
    all
}

/// The names of the matrix.
pub fn names() -> Vec<&'static str> {
    matrix().into_iter().map(|(name, _)| name).collect()
}

/// The values of a column by `id`.
fn values(batches: &[RecordBatch]) -> BTreeMap<String, Option<String>> {
    let mut out = BTreeMap::new();
    for batch in batches {
        let (Some(ids), Some(values)) = (batch.column_by_name("id"), batch.column_by_name("value")) else { continue };
        for row in 0..batch.num_rows() {
            out.insert(rows::value(ids, row).unwrap_or_default(), rows::value(values, row));
        }
    }
    out
}

/// Runs the matrix.
pub(super) async fn sink_types<'a>(report: &mut Report, quirks: &[TypeQuirk], world: impl AsyncFn() -> World<'a>) {
    const PROMISE: &str = "Runs everything that data can break (casts, constraints)";
    for quirk in quirks.iter().filter(|quirk| !names().contains(&quirk.of)) {
        let unknown = async { broken(format!("'{}' is not a type of the matrix", quirk.of)) };
        run_case(report, format!("type_{}", quirk.of), PROMISE, unknown).await;
    }
    for (name, array) in matrix() {
        let quirk = quirks.iter().find(|quirk| quirk.of == name);
        let run = async {
            let Some(batch) = batch(array) else { return broken("the suite cannot make its batch") };
            one(&world().await, &batch, quirk.map(|quirk| quirk.comes)).await
        };
        run_case(report, format!("type_{name}"), PROMISE, run).await;
    }
}

async fn one(world: &World<'_>, batch: &RecordBatch, comes: Option<Comes>) -> Check {
    let found = world.try_once(batch).await?;
    let rejects = match (found, comes) {
        (Ok(rejects), Some(Comes::Refused)) => {
            return broken(format!("declared as refused, and taken with {} rejects", rejects.len()));
        }
        (Ok(rejects), _) => rejects,
        (Err(error), Some(Comes::Refused)) => {
            let meant = [ErrorKind::Config, ErrorKind::Data, ErrorKind::Unsupported].contains(&error.kind());
            return ensure(meant, || format!("refused by an error of kind {}: {error}", error.kind().name()));
        }
        (Err(error), _) => return broken(format!("refused: {error}")),
    };
    let given = values(std::slice::from_ref(batch));
    // Of values that have no text nothing can be said.
    let untold = given.values().flatten().find(|text| text.starts_with('⚠'));
    if let Some(untold) = untold {
        return broken(format!("the suite cannot tell its own value: {untold}"));
    }
    let refused = rejected(&rejects, batch);
    let (stored, empty_is_null) = (values(&world.rows().await), world.empty_is_null());
    for (id, given) in &given {
        let must_be_refused = match (comes, given) {
            (Some(Comes::Rejected(values)), Some(given)) => values.contains(&given.as_str()),
            _ => false,
        };
        match (refused.get(id), must_be_refused) {
            (Some(_), true) => continue,
            (Some(reason), false) => return broken(format!("{given:?} is rejected: {reason}")),
            (None, true) => {
                return broken(format!("{given:?} is declared as rejected, and comes as {:?}", stored.get(id)));
            }
            (None, false) => {}
        }
        let expect = match comes {
            Some(Comes::As(make)) => given.as_deref().map(make),
            _ => given.clone(),
        };
        let told = |value: Option<String>| value.filter(|text| !(empty_is_null && text.is_empty()));
        let (expect, found) = (told(expect), stored.get(id).cloned().map(told));
        ensure(found.as_ref() == Some(&expect), || {
            format!("{given:?} should come as {expect:?}, and comes as {found:?}")
        })?;
    }
    Ok(())
}

/// The reason of each row refused, by its `id`.
fn rejected(rejects: &[Reject], batch: &RecordBatch) -> BTreeMap<String, String> {
    let id = |reject: &Reject| match &reject.row {
        Original::Row(row) => rows::value(batch.column(0), *row),
        Original::Late(row) => rows::value(row.column_by_name("id")?, 0),
        Original::Bytes(_) => None,
    };
    rejects.iter().filter_map(|reject| Some((id(reject)?, reject.reason.clone()))).collect()
}
