//! Rows as text, for comparing and for messages.

use std::{collections::HashMap, sync::Arc};

use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{DataType, Field, Schema, SchemaRef};

/// A value as text; `None` for null. Every type has one text: `1`, `1.50`, `true`, `2026-01-31`, `2026-01-31T05:00:00.25`, binary as
/// hexadecimal digits.
pub fn value(array: &dyn Array, row: usize) -> Option<String> {
    // An array of type null has no bitmap of its own.
    if array.is_null(row) || *array.data_type() == DataType::Null {
        return None;
    }
    if let DataType::Timestamp(unit, Some(zone)) = array.data_type()
        && ["UTC", "Etc/UTC", "Z"].contains(&zone.as_ref())
        && let Ok(utc) = arrow_cast::cast(&array.slice(row, 1), &DataType::Timestamp(*unit, Some("+00:00".into())))
    {
        // The formatter knows offsets only.
        return value(&utc, 0);
    }
    let options = FormatOptions::default();
    match ArrayFormatter::try_new(array, &options) {
        Ok(formatter) => Some(formatter.value(row).try_to_string().unwrap_or_else(|error| format!("⚠ {error}"))),
        Err(error) => Some(format!("⚠ {error}")),
    }
}

/// Each row as a line: `{id="1" name="a"}`, columns by name in sorted order, nulls left out.
pub fn lines(rows: &RecordBatch) -> Vec<String> {
    let schema = rows.schema();
    let mut columns: Vec<_> = schema.fields().iter().map(|field| field.name().clone()).zip(rows.columns()).collect();
    columns.sort_by(|a, b| a.0.cmp(&b.0));
    let line = |row| {
        let values = columns.iter().filter_map(|(name, column)| Some(format!("{name}={:?}", value(column, row)?)));
        format!("{{{}}}", values.collect::<Vec<_>>().join(" "))
    };
    (0..rows.num_rows()).map(line).collect()
}

/// The lines of several batches.
pub fn lines_of<'a>(batches: impl IntoIterator<Item = &'a RecordBatch>) -> Vec<String> {
    batches.into_iter().flat_map(lines).collect()
}

/// How `found` differs from `expected`, whatever their order; `None` if it does not.
pub fn difference(expected: &[String], found: &[String]) -> Option<String> {
    let mut count: HashMap<&str, i64> = HashMap::new();
    expected.iter().for_each(|line| *count.entry(line).or_default() += 1);
    found.iter().for_each(|line| *count.entry(line).or_default() -= 1);
    let some = |sign: i64| {
        let mut lines: Vec<_> = count.iter().filter(|(_, left)| **left * sign > 0).collect();
        lines.sort();
        let total: i64 = lines.iter().map(|(_, left)| **left * sign).sum();
        let shown: Vec<_> = lines.iter().take(4).map(|(line, _)| **line).collect();
        (total, format!("{total} rows {}: {}", if sign > 0 { "missing" } else { "too many" }, shown.join(" ")))
    };
    let parts: Vec<_> = [some(1), some(-1)].into_iter().filter(|(n, _)| *n > 0).map(|(_, text)| text).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// The same, and the order counts.
pub fn difference_in_order(expected: &[String], found: &[String]) -> Option<String> {
    if let Some(difference) = difference(expected, found) {
        return Some(difference);
    }
    let at = expected.iter().zip(found).position(|(a, b)| a != b)?;
    Some(format!("row {at} is {}, and {} should be there: the order differs", found[at], expected[at]))
}

/// `id` and `name`.
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true), Field::new("name", DataType::Utf8, true)]))
}

/// Rows with these ids and names.
pub fn named(rows: &[(i64, Option<&str>)]) -> RecordBatch {
    let ids: ArrayRef = Arc::new(rows.iter().map(|(id, _)| Some(*id)).collect::<Int64Array>());
    let names: ArrayRef = Arc::new(rows.iter().map(|(_, name)| *name).collect::<StringArray>());
    RecordBatch::try_new(schema(), vec![ids, names]).unwrap_or_else(|_| RecordBatch::new_empty(schema()))
}

/// Rows with these ids, named `n` and the id; every fifth has none.
pub fn numbered(ids: impl IntoIterator<Item = i64>) -> RecordBatch {
    let rows: Vec<_> = ids.into_iter().map(|id| (id, (id % 5 != 0).then(|| format!("n{id}")))).collect();
    named(&rows.iter().map(|(id, name)| (*id, name.as_deref())).collect::<Vec<_>>())
}

/// The same with a column more: `note`.
pub fn noted(ids: impl IntoIterator<Item = i64>) -> RecordBatch {
    let rows = numbered(ids);
    let note: ArrayRef = Arc::new((0..rows.num_rows()).map(|row| Some(format!("note {row}"))).collect::<StringArray>());
    let mut fields = rows.schema().fields().to_vec();
    fields.push(Arc::new(Field::new("note", DataType::Utf8, true)));
    let columns = rows.columns().iter().cloned().chain([note]).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap_or(rows)
}

#[cfg(test)]
mod tests {
    use arrow_array::TimestampMicrosecondArray;

    use super::*;

    #[test]
    fn moments_have_one_text() {
        let moment = TimestampMicrosecondArray::from(vec![1_769_835_600_250_000]);
        for (zone, expect) in [
            (None, "2026-01-31T05:00:00.250"),
            (Some("UTC"), "2026-01-31T05:00:00.250Z"),
            (Some("+00:00"), "2026-01-31T05:00:00.250Z"),
            (Some("+02:00"), "2026-01-31T07:00:00.250+02:00"),
        ] {
            let moment = moment.clone().with_timezone_opt(zone);
            assert_eq!(value(&moment, 0).as_deref(), Some(expect), "{zone:?}");
        }
    }

    #[test]
    fn differences_count_and_name_rows() {
        let of = |ids: &[i64]| lines(&numbered(ids.iter().copied()));
        assert_eq!(difference(&of(&[1, 2, 2]), &of(&[2, 1, 2])), None);
        let text = difference(&of(&[1, 2, 2]), &of(&[2, 5])).unwrap_or_default();
        assert_eq!(text, r#"2 rows missing: {id="1" name="n1"} {id="2" name="n2"}; 1 rows too many: {id="5"}"#);
        assert_eq!(difference_in_order(&of(&[1, 2]), &of(&[1, 2])), None);
        assert!(difference_in_order(&of(&[1, 2]), &of(&[2, 1])).is_some_and(|text| text.contains("the order differs")));
    }
}
