//! SQL Server's times as one number: 100 nanoseconds since 0001-01-01, the resolution of `datetime2(7)`.
//!
//! A `datetime` has ticks of 1/300 s; SQL Server shows them as .000, .003 and .007 and reads them back from that, so milliseconds stand for
//! them exactly ("datetime (Transact-SQL)", Rounding of fractional second precision).

use std::fmt;

use tiberius::{
    ColumnData,
    time::{DateTime2, Time},
};

/// So many in a second.
const SECOND: i64 = 10_000_000;
/// So many in a day.
const DAY: i64 = 86_400 * SECOND;
/// Days from 0001-01-01 to 1970-01-01.
const TO_1970: i64 = 719_162;
/// Days from 0001-01-01 to 1900-01-01.
const TO_1900: i64 = 693_595;

/// A time or a date or both, with how it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticks {
    raw: i64,
    form: Form,
}

/// How it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `2026-01-31`.
    Date,
    /// `23:59:59.1234567`, so many digits of a second.
    Time(u8),
    /// `2026-01-31T23:59:59.1234567`.
    Moment(u8),
    /// `2026-01-31 23:59:59.1234567 +00:00`, the form of its literals.
    Utc(u8),
}

/// Days since 1970 of days since the year 1.
pub(crate) fn days_since_1970(days: u32) -> i32 {
    // 24 bits on the wire: no overflow.
    i32::try_from(i64::from(days) - TO_1970).unwrap_or(i32::MAX)
}

fn of_time(time: Time) -> Option<i64> {
    let more = 10i64.checked_pow(u32::from(7u8.checked_sub(time.scale())?))?;
    i64::try_from(time.increments()).ok()?.checked_mul(more)
}

fn of_moment(moment: DateTime2) -> Option<i64> {
    Some(i64::from(moment.date().days()) * DAY + of_time(moment.time())?)
}

impl Ticks {
    /// Of so many ticks.
    pub(crate) fn new(raw: i64, form: Form) -> Self {
        Self { raw, form }
    }

    /// Of a value of the driver's; none if it is NULL or no time. A `datetimeoffset` is on the wire in UTC, with the offset beside it
    /// (MS-TDS 2.2.5.5.1.9).
    #[inline]
    pub(crate) fn of(value: &ColumnData<'_>) -> Option<Self> {
        use ColumnData as D;
        let (raw, form) = match value {
            D::DateTime2(value) => ((*value).and_then(of_moment)?, Form::Moment((*value)?.time().scale())),
            D::DateTime(value) => {
                let value = (*value)?;
                let millis = (i64::from(value.seconds_fragments()) * 10 + 1) / 3;
                ((TO_1900 + i64::from(value.days())) * DAY + millis * (SECOND / 1000), Form::Moment(3))
            }
            D::SmallDateTime(value) => {
                let value = (*value)?;
                let minutes = i64::from(value.seconds_fragments());
                ((TO_1900 + i64::from(value.days())) * DAY + minutes * 60 * SECOND, Form::Moment(0))
            }
            D::Date(value) => (i64::from((*value)?.days()) * DAY, Form::Date),
            D::Time(value) => ((*value).and_then(of_time)?, Form::Time((*value)?.scale())),
            D::DateTimeOffset(value) => {
                let moment = (*value)?.datetime2();
                (of_moment(moment)?, Form::Utc(moment.time().scale()))
            }
            _ => return None,
        };
        Some(Self { raw, form })
    }

    /// Reads what [`Display`](fmt::Display) wrote, or a form with fewer digits.
    pub(crate) fn read(text: &str, form: Form) -> Option<Self> {
        let nanos = |time: jiff::civil::Time| {
            let seconds = (i64::from(time.hour()) * 60 + i64::from(time.minute())) * 60 + i64::from(time.second());
            seconds * SECOND + i64::from(time.subsec_nanosecond()) / 100
        };
        let days = |date: jiff::civil::Date| -> Option<i64> {
            let since = jiff::civil::date(1970, 1, 1).until(date).ok()?.get_days();
            Some(i64::from(since) + TO_1970)
        };
        let raw = match form {
            Form::Date => days(text.parse().ok()?)? * DAY,
            Form::Time(_) => nanos(text.parse().ok()?),
            Form::Moment(_) | Form::Utc(_) => {
                let text = if let Form::Utc(_) = form { text.strip_suffix(" +00:00")? } else { text };
                let moment: jiff::civil::DateTime = text.parse().ok()?;
                days(moment.date())? * DAY + nanos(moment.time())
            }
        };
        Some(Self { raw, form })
    }

    /// How it is written.
    pub(crate) fn form(self) -> Form {
        self.form
    }
    /// As it comes back from its text: without what has no digit there.
    pub(crate) fn rounded(self) -> Self {
        let unit = match self.form {
            Form::Date => DAY,
            // A smalldatetime has minutes, and is written with seconds; a bound between two of them is as good.
            Form::Time(digits) | Form::Moment(digits) | Form::Utc(digits) => 10i64.pow(7 - u32::from(digits.min(7))),
        };
        Self { raw: self.raw - self.raw.rem_euclid(unit), form: self.form }
    }
    /// The ticks.
    pub(crate) fn raw(self) -> i64 {
        self.raw
    }
    /// Whether it says the day.
    pub(crate) fn has_date(self) -> bool {
        matches!(self.form, Form::Moment(_) | Form::Utc(_))
    }
    /// Microseconds since midnight, of a time. The seventh digit is cut off.
    pub(crate) fn micros(self) -> i64 {
        self.raw / 10
    }
    /// Microseconds since 1970, of a moment. The seventh digit is cut off.
    pub(crate) fn micros_since_1970(self) -> i64 {
        (self.raw - TO_1970 * DAY).div_euclid(10)
    }
}

impl fmt::Display for Ticks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, time) = (self.raw.div_euclid(DAY), self.raw.rem_euclid(DAY));
        let date = || {
            let since = i32::try_from(days - TO_1970).unwrap_or(i32::MAX);
            let span = jiff::Span::new().try_days(since).map_err(|_| fmt::Error)?;
            jiff::civil::date(1970, 1, 1).checked_add(span).map_err(|_| fmt::Error)
        };
        let clock = |f: &mut fmt::Formatter<'_>, digits: u8| {
            let seconds = time / SECOND;
            write!(f, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)?;
            let digits = usize::from(digits.min(7));
            if digits > 0 {
                let fraction = format!("{:07}", time % SECOND);
                write!(f, ".{}", fraction.get(..digits).unwrap_or_default())?;
            }
            Ok(())
        };
        match self.form {
            Form::Date => write!(f, "{}", date()?),
            Form::Time(digits) => clock(f, digits),
            Form::Moment(digits) => write!(f, "{}T", date()?).and_then(|()| clock(f, digits)),
            Form::Utc(digits) => {
                write!(f, "{} ", date()?).and_then(|()| clock(f, digits)).and_then(|()| f.write_str(" +00:00"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read_as_they_are_written() {
        for (text, form) in [
            ("2026-01-31", Form::Date),
            ("0001-01-01", Form::Date),
            ("9999-12-31", Form::Date),
            ("23:59:59.9999999", Form::Time(7)),
            ("00:00:00", Form::Time(0)),
            ("0001-01-01T00:00:00.0000001", Form::Moment(7)),
            ("9999-12-31T23:59:59.997", Form::Moment(3)),
            ("2026-01-31 10:00:00.12 +00:00", Form::Utc(2)),
        ] {
            assert_eq!(Ticks::read(text, form).map(|ticks| ticks.to_string()).as_deref(), Some(text));
        }
        for (text, form) in
            [("x", Form::Date), ("2026-01-31T10:00:00", Form::Utc(0)), ("", Form::Time(0)), ("1", Form::Moment(7))]
        {
            assert_eq!(Ticks::read(text, form), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_tick_is_lost(raw in 0i64..3_652_059 * DAY) {
            let ticks = Ticks::new(raw, Form::Moment(7));
            prop_assert_eq!(Ticks::read(&ticks.to_string(), Form::Moment(7)), Some(ticks));
        }

        #[test]
        fn the_three_hundredths_of_a_datetime_stay_apart(fragment in 0u32..25_919_999) {
            let at = |fragments| Ticks::of(&ColumnData::DateTime(Some(tiberius::time::DateTime::new(7, fragments)))).unwrap();
            prop_assert!(at(fragment).raw() < at(fragment + 1).raw());
        }
    }
}
