//! Times as text, to the seventh digit of a second, which is as far as SQL Server's own go.
//!
//! `2026-01-31`, `2026-01-31 23:59`, `2026-01-31T23:59:59.9999999`, with `Z` or `+02:00` behind it where the column keeps moments; `23:59:59.5`.

/// Ticks of 100 nanoseconds.
const SECOND: i64 = 10_000_000;
/// In a day.
const DAY: i64 = 86_400 * SECOND;

/// A time of day in ticks.
pub(crate) fn time(text: &str) -> Option<i64> {
    let (ticks, rest) = clock(text.trim())?;
    rest.is_empty().then_some(ticks)
}

/// A moment: days from 1970-01-01 and ticks of the day; in UTC if `zoned`, where a text without a zone is taken for UTC.
pub(crate) fn moment(text: &str, zoned: bool) -> Option<(i64, i64)> {
    let text = text.trim();
    let date = text.get(..10)?;
    let (year, month, day) = (number(date.get(..4)?)?, number(date.get(5..7)?)?, number(date.get(8..)?)?);
    let valid = date.as_bytes()[4] == b'-' && date.as_bytes()[7] == b'-' && (1..=9999).contains(&year);
    if !valid
        || jiff::civil::Date::new(i16::try_from(year).ok()?, i8::try_from(month).ok()?, i8::try_from(day).ok()?)
            .is_err()
    {
        return None;
    }
    let days = days(year, month, day);
    let rest = &text[10..];
    if rest.is_empty() {
        return Some((days, 0));
    }
    let (ticks, zone) = clock(rest.strip_prefix([' ', 'T', 't'])?)?;
    let offset = match zone.trim_start() {
        "" => 0,
        "Z" | "z" if zoned => 0,
        zone if zoned => {
            let (sign, hours) = match zone.split_at_checked(1)? {
                ("+", rest) => (1, rest),
                ("-", rest) => (-1, rest),
                _ => return None,
            };
            let (hours, minutes) = hours.split_once(':').or_else(|| hours.split_at_checked(2))?;
            let minutes = number(hours)? * 60 + number(minutes).filter(|minutes| *minutes < 60)?;
            if minutes > 14 * 60 {
                return None;
            }
            sign * minutes * 60 * SECOND
        }
        _ => return None,
    };
    let at = ticks - offset;
    Some((days + at.div_euclid(DAY), at.rem_euclid(DAY)))
}

/// Hours, minutes, perhaps seconds with a fraction; and what is behind it.
fn clock(text: &str) -> Option<(i64, &str)> {
    let bytes = text.as_bytes();
    let (hour, minute) = (number(text.get(..2)?)?, number(text.get(3..5)?)?);
    if bytes[2] != b':' || hour > 23 || minute > 59 {
        return None;
    }
    let mut ticks = (hour * 60 + minute) * 60 * SECOND;
    let Some(rest) = text[5..].strip_prefix(':') else { return Some((ticks, &text[5..])) };
    let second = number(rest.get(..2)?)?;
    if second > 59 {
        return None;
    }
    ticks += second * SECOND;
    let Some(rest) = rest[2..].strip_prefix('.') else { return Some((ticks, &rest[2..])) };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (fraction, behind) = rest.split_at(digits);
    // What is beyond the seventh digit must be nothing.
    let (kept, more) = fraction.split_at(digits.min(7));
    if kept.is_empty() || more.bytes().any(|digit| digit != b'0') {
        return None;
    }
    let scale = 10i64.pow(7 - u32::try_from(kept.len()).ok()?);
    Some((ticks + number(kept)? * scale, behind))
}

fn number(text: &str) -> Option<i64> {
    if text.is_empty() || !text.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Days from 1970-01-01, in years that begin in March and eras of 400 of them.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_to_the_tick_or_not_at_all() {
        for (text, expect) in [
            ("00:00", Some(0)),
            ("23:59:59.9999999", Some(DAY - 1)),
            ("10:20:30.5", Some((10 * 3600 + 20 * 60 + 30) * SECOND + SECOND / 2)),
            ("10:20:30.12345670", Some((10 * 3600 + 20 * 60 + 30) * SECOND + 1_234_567)),
            ("10:20:30.12345678", None),
            ("24:00", None),
            ("1", None),
            ("-1", None),
            ("10:20:", None),
            ("10:20:30.", None),
            ("10:20Z", None),
        ] {
            assert_eq!(time(text), expect, "{text}");
        }
    }

    #[test]
    fn moments_are_read_or_not_at_all() {
        for (text, plain, zoned) in [
            ("1970-01-01", Some((0, 0)), Some((0, 0))),
            ("1969-12-31 23:59:59.9999999", Some((-1, DAY - 1)), Some((-1, DAY - 1))),
            ("0001-01-01T00:00", Some((-719_162, 0)), Some((-719_162, 0))),
            ("9999-12-31T23:59:59", Some((2_932_896, DAY - SECOND)), Some((2_932_896, DAY - SECOND))),
            ("2026-01-31T00:30:00+02:00", None, Some((20_483, 81_000 * SECOND))),
            ("2026-01-31T00:30:00 -0230", None, Some((20_484, 10_800 * SECOND))),
            ("2026-01-31T10:00:00Z", None, Some((20_484, 36_000 * SECOND))),
            ("2026-02-30", None, None),
            ("2026-1-31", None, None),
            ("2026-01-31X10:00", None, None),
            ("31.01.2026", None, None),
            ("2026-01-31 10:00 CET", None, None),
            ("2026-01-31 10:00+15:00", None, None),
            ("日本2026", None, None),
            ("", None, None),
        ] {
            assert_eq!(moment(text, false), plain, "{text}");
            assert_eq!(moment(text, true), zoned, "{text}");
        }
    }
}
