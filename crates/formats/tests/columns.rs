//! Types by config, casts, proposals, hashes, encoders.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure in a test is the message")]

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray, StringViewArray, TimestampMicrosecondArray, cast::AsArray, types::Int64Type,
};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use proptest::prelude::*;
use towpath_core::Original;
use towpath_formats::{
    columns::{ColumnType, Columns, cast, cast_to, propose},
    csv::{CsvEncoder, CsvOptions},
    json::JsonLines,
    row_hash::{keyed_by, row_hashes},
};

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, values)| (name, values, true))).unwrap()
}

fn text(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(values.iter().copied().collect::<StringArray>())
}

fn columns(yaml: &str) -> Result<Columns, String> {
    serde_saphyr::from_str(yaml).map_err(|error| error.to_string())
}

#[test]
fn types_are_read_and_written_in_order() {
    let yaml = "
z: int64
a: ' decimal( 10 , 2 ) '
d: { type: date, format: '%d.%m.%Y' }
\"Text box\": { type: timestamp, timezone: Europe/Berlin }
m: { type: decimal, precision: 5 }
yes: bool
";
    let read = columns(yaml).unwrap();
    let expected = "columns:
  z: int64
  a: decimal(10,2)
  d: { type: date, format: \"%d.%m.%Y\" }
  \"Text box\": { type: timestamp, timezone: \"Europe/Berlin\" }
  m: decimal(5,0)
  \"yes\": bool
";
    assert_eq!(read.to_yaml(), expected);
    assert_eq!(columns(expected.trim_start_matches("columns:\n")).unwrap(), read);
    let json = serde_json::to_string(&read).unwrap();
    assert_eq!(serde_json::from_str::<Columns>(&json).unwrap(), read);
    let list = columns("- z: int64\n- a: text\n").unwrap();
    assert_eq!(list.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["z", "a"]);
}

#[test]
fn wrong_types_are_told() {
    let mut out = String::new();
    for yaml in [
        "a: int",
        "a: decimal(39,2)",
        "a: decimal(2,3)",
        "a: { type: int64, format: x }",
        "a: { type: date, timezone: UTC }",
        "a: { type: timestamp, timezone: Nowhere }",
        "a: { type: date, format: 'no day' }",
        "a: { typ: date }",
        "- a: text\n- a: text",
    ] {
        let error = columns(yaml).unwrap_err();
        out.push_str(&format!("{yaml:?}: {}\n", error.lines().next().unwrap_or("")));
    }
    insta::assert_snapshot!(out);
}

#[test]
fn rows_that_do_not_cast_are_taken_out() {
    let rows = batch(vec![
        ("i", text(&[Some("1"), Some("x"), None, Some(""), Some("4")])),
        ("t", text(&[Some("a"), Some("b"), Some(""), Some("d"), None])),
        ("d", text(&[Some("1.5"), Some("y"), Some("2"), Some("0.001"), Some("-3")])),
    ]);
    let to = columns("d: decimal(5,2)\ni: int64").unwrap();
    let (good, rejects) = cast(&rows, &to).unwrap();
    assert_eq!(good.column(0).as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(1), None, Some(4)]);
    assert_eq!(good.column(1).as_ref(), text(&[Some("a"), Some(""), None]).as_ref());
    let told: Vec<_> = rejects
        .iter()
        .map(|reject| {
            let Original::Row(row) = reject.row else { panic!("a row") };
            (row, reject.column.as_deref().unwrap(), reject.reason.as_str())
        })
        .collect();
    assert_eq!(told, [(1, "i", "column i: 'x' is not an int64"), (3, "d", "column d: '0.001' is not a decimal(5,2)")]);
    assert!(cast(&rows, &columns("no: int64").unwrap()).is_err());
}

#[test]
fn a_table_says_what_rows_become() {
    let rows = batch(vec![
        ("b", Arc::new(Int64Array::from(vec![1, i64::from(i32::MAX) + 1, 3, 4])) as ArrayRef),
        ("v", Arc::new(StringViewArray::from(vec!["7", "8", "z", ""]))),
        ("left_out", text(&[None; 4])),
        ("m", text(&[Some("2026-01-31 05:00:00"), None, None, None])),
    ]);
    let schema = Arc::new(Schema::new(vec![
        Field::new("m", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("v", DataType::Int64, false),
        Field::new("b", DataType::Int32, true),
        Field::new("lacking", DataType::Float64, true),
    ]));
    let (good, rejects) = cast_to(&rows, &schema).unwrap();
    assert_eq!(good.schema(), schema);
    assert_eq!(good.num_rows(), 1);
    assert_eq!(good.column(2).as_ref(), &Int32Array::from(vec![1]));
    assert!(good.column(3).is_null(0));
    let reasons: Vec<_> = rejects.iter().map(|reject| reject.reason.as_str()).collect();
    assert_eq!(
        reasons,
        ["column b: '2147483648' is not a value of type Int32", "column v: 'z' is not an int64", "column v is NULL"]
    );
}

#[test]
fn types_are_proposed_from_samples() {
    let sample = |values: &[[&str; 11]]| {
        let names = ["int", "float", "amount", "code", "bool", "date", "moment", "zoned", "text", "empty", "mixed"];
        let column = |at: usize| text(&values.iter().map(|row| Some(row[at])).collect::<Vec<_>>());
        batch(names.into_iter().enumerate().map(|(at, name)| (name, column(at))).collect())
    };
    let samples = [
        sample(&[[
            "1",
            "1.25",
            "-1200.50",
            "007",
            "true",
            "2026-01-31",
            "2026-01-31 05:00",
            "2026-01-31T05:00Z",
            "x",
            "",
            "1",
        ]]),
        sample(&[[
            "-2",
            "1.5",
            "0.10",
            "12",
            "FALSE",
            "",
            "2026-01-31T05:00:00.5",
            "2026-01-31T05:00:00+01:00",
            "1",
            "",
            "2026-01-31",
        ]]),
    ];
    insta::assert_snapshot!(propose(&samples).to_yaml());
    assert_eq!(propose(&[]), Columns::default());
}

/// Every type twice: with its type and as its canonical text.
fn typed_and_text() -> (RecordBatch, RecordBatch) {
    let decimal = Decimal128Array::from(vec![Some(150), None, Some(-1)]).with_precision_and_scale(6, 2).unwrap();
    let moment = vec![Some(1_769_835_600_250_000), None, Some(0)];
    let typed: Vec<(&str, ArrayRef, [Option<&str>; 3])> = vec![
        (
            "i",
            Arc::new(Int64Array::from(vec![Some(1), None, Some(i64::MIN)])),
            [Some("1"), None, Some("-9223372036854775808")],
        ),
        ("f", Arc::new(Float64Array::from(vec![Some(1.5), None, Some(-0.1)])), [Some("1.5"), None, Some("-0.1")]),
        ("d", Arc::new(decimal), [Some("1.50"), None, Some("-0.01")]),
        ("b", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])), [Some("true"), None, Some("false")]),
        (
            "y",
            Arc::new(Date32Array::from(vec![Some(20_484), None, Some(0)])),
            [Some("2026-01-31"), None, Some("1970-01-01")],
        ),
        (
            "t",
            Arc::new(TimestampMicrosecondArray::from(moment.clone())),
            [Some("2026-01-31T05:00:00.250"), None, Some("1970-01-01T00:00:00")],
        ),
        (
            "u",
            Arc::new(TimestampMicrosecondArray::from(moment).with_timezone("UTC")),
            [Some("2026-01-31T05:00:00.250Z"), None, Some("1970-01-01T00:00:00Z")],
        ),
        ("s", text(&[Some("a \"b\", c"), Some(""), None]), [Some("a \"b\", c"), Some(""), None]),
    ];
    let plain = typed.iter().map(|(name, _, values)| (*name, text(values))).collect();
    (batch(typed.into_iter().map(|(name, values, _)| (name, values)).collect()), batch(plain))
}

#[test]
fn typed_and_untyped_rows_hash_alike() {
    let (typed, plain) = typed_and_text();
    assert_eq!(row_hashes(&typed, None).unwrap(), row_hashes(&plain, None).unwrap());
    assert_eq!(keyed_by(&typed.schema()), keyed_by(&plain.schema()));
    // Version 1 stays what it is: tables are keyed by it.
    let one = batch(vec![("b", text(&[Some("2")])), ("a", text(&[Some("1")]))]);
    let bytes = b"\x01\0\0\0a\x01\0\0\x001\x01\0\0\0b\x01\0\0\x002";
    assert_eq!(row_hashes(&one, None).unwrap(), [xxhash_rust::xxh3::xxh3_128(bytes)]);
    assert_eq!(keyed_by(&one.schema()), r#"row_hash 1 of ["a","b"]"#);
}

#[test]
fn hashes_tell_rows_apart_and_nothing_else() {
    let hash = |columns: Vec<(&str, Option<&str>)>| {
        row_hashes(&batch(columns.into_iter().map(|(name, value)| (name, text(&[value]))).collect()), None).unwrap()[0]
    };
    let base = hash(vec![("a", Some("1")), ("b", Some("2"))]);
    assert_eq!(base, hash(vec![("b", Some("2")), ("a", Some("1"))]), "the order of columns");
    assert_eq!(base, hash(vec![("a", Some("1")), ("b", Some("2")), ("c", None)]), "a column of nulls");
    for other in [
        vec![("a", Some("12")), ("b", Some(""))],
        vec![("a", Some("1")), ("c", Some("2"))],
        vec![("a", Some("1")), ("b", Some("2")), ("c", Some(""))],
        vec![("a", Some("1")), ("b", None)],
        vec![("a", Some("2")), ("b", Some("1"))],
    ] {
        assert_ne!(base, hash(other.clone()), "{other:?}");
    }
    let rows = batch(vec![("a", text(&[Some("1")])), ("b", text(&[Some("2")])), ("c", text(&[Some("3")]))]);
    assert_eq!(row_hashes(&rows, Some(&[1, 0])).unwrap(), [base]);
    assert!(row_hashes(&rows, Some(&[3])).is_err());
}

#[test]
fn every_type_is_encoded() {
    let (typed, _) = typed_and_text();
    let mut out = vec![];
    let encoder = CsvEncoder::new(&CsvOptions::default()).unwrap();
    encoder.header(&typed.schema(), &mut out).unwrap();
    encoder.encode(&typed, &mut out).unwrap();
    JsonLines::new().encode(&typed, &mut out).unwrap();
    let special = batch(vec![("f", Arc::new(Float64Array::from(vec![f64::NAN, f64::INFINITY, 1e300])) as ArrayRef)]);
    JsonLines::new().encode(&special, &mut out).unwrap();
    let nulls = CsvOptions { nulls: vec!["NULL".into()], ..CsvOptions::default() };
    let one = batch(vec![("a", text(&[None, Some("NULL"), Some(""), Some("x")]))]);
    CsvEncoder::new(&nulls).unwrap().encode(&one, &mut out).unwrap();
    encoder.encode(&one, &mut out).unwrap();
    insta::assert_snapshot!(String::from_utf8(out).unwrap());
    let bare = CsvOptions { quote: Some("none".into()), ..CsvOptions::default() };
    assert!(CsvEncoder::new(&bare).unwrap().encode(&batch(vec![("a", text(&[Some("x,y")]))]), &mut vec![]).is_err());
}

fn parsed(of: &str, value: &str) -> Option<ArrayRef> {
    let rows = batch(vec![("v", text(&[Some(value)]))]);
    let to = Columns::new([("v".to_owned(), of.parse::<ColumnType>().unwrap())]).unwrap();
    let (good, _) = cast(&rows, &to).unwrap();
    (good.num_rows() == 1).then(|| Arc::clone(good.column(0)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn numbers_are_the_standard_librarys(value in prop_oneof!["[+-]?[0-9]{0,20}", "[+-]?[0-9]{0,18}\\.?[0-9]{0,8}(e[+-]?[0-9]{1,3})?", "[-+.0-9ex]{1,8}"]) {
        prop_assume!(!value.is_empty());
        let int = parsed("int64", &value).map(|array| array.as_primitive::<Int64Type>().value(0));
        prop_assert_eq!(int, value.parse::<i64>().ok());
        let float = parsed("float64", &value).map(|array| array.as_primitive::<arrow_array::types::Float64Type>().value(0).to_bits());
        prop_assert_eq!(float, value.parse::<f64>().ok().map(f64::to_bits));
    }

    #[test]
    fn moments_are_jiffs(micros in -62_135_596_800_000_000i64..253_402_207_200_000_000, t in any::<bool>()) {
        let shown = jiff::Timestamp::from_microsecond(micros).unwrap().to_zoned(jiff::tz::TimeZone::UTC).datetime();
        let value = shown.to_string().replace('T', if t { "T" } else { " " });
        let found = parsed("timestamp", &value).map(|array| array.as_primitive::<arrow_array::types::TimestampMicrosecondType>().value(0));
        prop_assert_eq!(found, Some(micros), "{}", value);
        let day = parsed("date", &value[..10]).map(|array| array.as_primitive::<arrow_array::types::Date32Type>().value(0));
        prop_assert_eq!(day.map(i64::from), Some(micros.div_euclid(86_400_000_000)));
    }

    #[test]
    fn days_are_jiffs(year in 0i16..10_000, month in 0i8..14, day in 0i8..33) {
        let value = format!("{year:04}-{month:02}-{day:02}");
        prop_assert_eq!(parsed("date", &value).is_some(), jiff::civil::Date::new(year, month, day).is_ok());
    }

    #[test]
    fn no_text_makes_a_parser_fall(value in any::<String>(), looks in "[0-9TZ:. +-]{0,30}") {
        for of in ["int64", "float64", "decimal(38,10)", "bool", "date", "timestamp"] {
            parsed(of, &value);
            parsed(of, &looks);
        }
    }
}
