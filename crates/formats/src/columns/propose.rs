//! A `columns:` block proposed from a sample.

use arrow_array::{Array, RecordBatch, cast::AsArray};

use super::{ColumnType, Columns, Parser, parse};

/// The narrowest type that every value of a sample has, column by column.
///
/// A column without a value is text. Numbers with leading zeros (article and postal codes) are text, and so are `1` and `0`
/// whole numbers, not truths. Where each value has exactly two places it is an amount, and decimal: a float would not sum to the cent. Columns that are not text have the type they have, where `columns` knows it.
pub fn propose(samples: &[RecordBatch]) -> Columns {
    let Some(first) = samples.first() else { return Columns::default() };
    let of = |at: usize, name: &str| {
        let mut guess = Guess::default();
        for column in samples.iter().filter_map(|rows| rows.column_by_name(name).or_else(|| rows.columns().get(at))) {
            match column.as_string_opt::<i32>() {
                Some(text) => text.iter().flatten().for_each(|value| guess.see(value)),
                None => return super::cast::column_type(column.data_type()).unwrap_or_default(),
            }
        }
        guess.best()
    };
    let columns = first.schema_ref().fields().iter().enumerate();
    let columns = columns.map(|(at, field)| (field.name().clone(), of(at, field.name())));
    // Names of a batch may stand twice; the first of them is declared.
    columns.fold(Columns::default(), |mut all, (name, of)| {
        let _ = all.add(name, of);
        all
    })
}

/// What amounts are proposed as.
const AMOUNT: ColumnType = ColumnType::Decimal { precision: 18, scale: 2 };

/// What a column can still be.
struct Guess {
    seen: bool,
    int64: bool,
    float64: bool,
    amount: bool,
    boolean: bool,
    date: bool,
    moment: bool,
    zoned: bool,
}

impl Default for Guess {
    fn default() -> Self {
        Self {
            seen: false,
            int64: true,
            float64: true,
            amount: true,
            boolean: true,
            date: true,
            moment: true,
            zoned: true,
        }
    }
}

impl Guess {
    fn see(&mut self, value: &str) {
        let value = value.trim_ascii().as_bytes();
        if value.is_empty() {
            return;
        }
        self.seen = true;
        let code = matches!(value.strip_prefix(b"-").unwrap_or(value), [b'0', b'0'..=b'9', ..])
            || value.first() == Some(&b'+');
        let words = [b"true".as_slice(), b"false"];
        self.int64 &= !code && parse::int64(value).is_some();
        self.float64 &= !code && value.iter().any(u8::is_ascii_digit) && parse::float64(value).is_some();
        let places = value.iter().position(|byte| *byte == b'.').map(|point| &value[point + 1..]);
        self.amount &= self.float64 && places.is_some_and(|places| matches!(places, [b'0'..=b'9', b'0'..=b'9']));
        self.boolean &= words.iter().any(|word| word.eq_ignore_ascii_case(value));
        let reads = |still: bool, of: ColumnType| {
            still
                && match Parser::new(&of) {
                    Ok(Parser::Date(date)) => date.parse(value).is_some(),
                    Ok(Parser::Timestamp(moment)) => moment.parse(value).is_some(),
                    _ => false,
                }
        };
        self.date = reads(self.date, ColumnType::Date { format: None });
        self.moment = reads(self.moment, ColumnType::Timestamp { format: None, timezone: None });
        // Each value says its offset.
        self.zoned =
            !self.moment && reads(self.zoned, ColumnType::Timestamp { format: None, timezone: Some("UTC".into()) });
    }

    fn best(&self) -> ColumnType {
        match self {
            Self { seen: false, .. } => ColumnType::Text,
            Self { int64: true, .. } => ColumnType::Int64,
            Self { float64: true, amount: true, .. } => AMOUNT,
            Self { float64: true, .. } => ColumnType::Float64,
            Self { boolean: true, .. } => ColumnType::Bool,
            Self { date: true, .. } => ColumnType::Date { format: None },
            Self { moment: true, .. } => ColumnType::Timestamp { format: None, timezone: None },
            Self { zoned: true, .. } => ColumnType::Timestamp { format: None, timezone: Some("UTC".into()) },
            _ => ColumnType::Text,
        }
    }
}
