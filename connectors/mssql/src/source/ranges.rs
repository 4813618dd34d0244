//! Cutting the values of a column into ranges that are read side by side.

use super::{cursor::Value, ticks::Ticks};
use crate::types::SqlType;

/// Whether the values of a column can be cut into ranges.
pub(crate) fn can_be_cut(of: &SqlType) -> bool {
    use SqlType as T;
    matches!(
        of,
        T::TinyInt
            | T::SmallInt
            | T::Int
            | T::BigInt
            | T::Decimal(..)
            | T::Money
            | T::SmallMoney
            | T::Date
            | T::Time(_)
            | T::DateTime
            | T::SmallDateTime
            | T::DateTime2(_)
            | T::DateTimeOffset(_)
    )
}

/// The bounds between `count` ranges of about the same width from `low` to `high`, ascending, all different; fewer where there are fewer
/// values. A range takes its lower bound in, and not its upper one.
pub(crate) fn bounds(low: &Value, high: &Value, count: usize) -> Vec<Value> {
    type Make = Box<dyn Fn(i128) -> Value>;
    let (from, to, make): (i128, i128, Make) = match (low, high) {
        (Value::Number(low, scale), Value::Number(high, other)) if scale == other => {
            let scale = *scale;
            (*low, *high, Box::new(move |at| Value::Number(at, scale)))
        }
        (Value::Ticks(low), Value::Ticks(high)) => {
            let like = *low;
            let make = move |at| Value::Ticks(Ticks::new(i64::try_from(at).unwrap_or(i64::MAX), like.form()));
            (low.raw().into(), high.raw().into(), Box::new(make))
        }
        _ => return vec![],
    };
    if to < from {
        return vec![];
    }
    let count = u128::try_from(count).unwrap_or(1).max(1);
    // Two decimals of 38 digits may be further apart than an i128 holds.
    let width = to.abs_diff(from);
    let (whole, rest) = (width / count, width % count);
    let mut bounds: Vec<Value> = vec![];
    for number in 1..count {
        // Written down and read again, as the server will: to the digits that the type has.
        let ahead = whole * number + rest * number / count;
        let bound = make(from.saturating_add_unsigned(ahead)).rounded();
        let above = bounds.last().unwrap_or(low);
        if bound.is_above(above) {
            bounds.push(bound);
        }
    }
    bounds
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(of: &SqlType, low: &str, high: &str, count: usize) -> Vec<String> {
        let read = |text| Value::read(text, of).unwrap();
        bounds(&read(low), &read(high), count).iter().map(Value::text).collect()
    }

    #[test]
    fn ranges_are_of_about_the_same_width() {
        for (of, low, high, count, expect) in [
            (SqlType::Int, "1", "100", 4, vec!["25", "50", "75"]),
            (SqlType::Int, "1", "100", 1, vec![]),
            (SqlType::Int, "5", "5", 4, vec![]),
            (SqlType::Int, "0", "2", 8, vec!["1"]),
            (SqlType::BigInt, "-9223372036854775808", "9223372036854775807", 2, vec!["-1"]),
            (SqlType::Decimal(5, 2), "0.00", "1.00", 4, vec!["0.25", "0.50", "0.75"]),
            (SqlType::Date, "2026-01-01", "2026-01-03", 4, vec!["2026-01-02"]),
            (
                SqlType::DateTime,
                "2026-01-01T00:00:00.000",
                "2026-01-02T00:00:00.000",
                2,
                vec!["2026-01-01T12:00:00.000"],
            ),
            (SqlType::SmallDateTime, "2026-01-01T00:00:00", "2026-01-01T00:02:00", 2, vec!["2026-01-01T00:01:00"]),
            (SqlType::NVarChar(None), "a", "z", 4, vec![]),
        ] {
            assert_eq!(cut(&of, low, high, count), expect, "{of} {low} {high} {count}");
        }
    }

    proptest! {
        #[test]
        fn bounds_ascend_and_lie_between(low: i64, high: i64, count in 1usize..64, scale in 0u8..19) {
            let (low, high) = (i128::from(low.min(high)), i128::from(low.max(high)));
            let found = bounds(&Value::Number(low, scale), &Value::Number(high, scale), count);
            prop_assert!(found.len() < count);
            let mut last = low;
            for bound in found {
                let Value::Number(bound, _) = bound else { panic!("a number") };
                prop_assert!(last < bound && bound <= high);
                last = bound;
            }
        }

        #[test]
        fn the_widest_decimals_are_cut(low in 0i128..10i128.pow(38), high in 0i128..10i128.pow(38), count in 1usize..64) {
            let found = bounds(&Value::Number(-low, 0), &Value::Number(high, 0), count);
            for bound in found {
                let Value::Number(bound, _) = bound else { panic!("a number") };
                prop_assert!(-low < bound && bound <= high);
            }
        }
    }
}
