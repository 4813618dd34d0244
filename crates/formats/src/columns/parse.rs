//! Text to values. Each function takes the bytes of one value and answers `None` where they are not one.
//!
//! They stand on the hot path of every typed column, so the common spelling of each type has a way of its own.

use jiff::{
    civil::{Date, DateTime, Time},
    fmt::strtime::BrokenDownTime,
    tz::TimeZone,
};
use towpath_core::{Error, Result};

use super::ColumnType;

/// How the text of a column becomes values. Made once per column.
#[derive(Clone, Debug)]
pub(crate) enum Parser {
    Text,
    Int64,
    Float64,
    Decimal { precision: u8, scale: u8 },
    Bool,
    Date(Dates),
    Timestamp(Timestamps),
}

/// How days are written.
#[derive(Clone, Debug)]
pub(crate) struct Dates {
    format: Option<Box<str>>,
}

/// How moments are written, and where.
#[derive(Clone, Debug)]
pub(crate) struct Timestamps {
    format: Option<Format>,
    zone: Option<TimeZone>,
}

impl Parser {
    /// # Errors
    /// Config: a time zone that is not known, a format that cannot be read.
    pub(crate) fn new(of: &ColumnType) -> Result<Self> {
        Ok(match of {
            ColumnType::Text => Self::Text,
            ColumnType::Int64 => Self::Int64,
            ColumnType::Float64 => Self::Float64,
            ColumnType::Decimal { precision, scale } => Self::Decimal { precision: *precision, scale: *scale },
            ColumnType::Bool => Self::Bool,
            ColumnType::Date { format } => {
                format.as_deref().map(checked).transpose()?;
                Self::Date(Dates { format: format.as_deref().map(Into::into) })
            }
            ColumnType::Timestamp { format, timezone } => {
                let zone = timezone.as_deref().map(|name| {
                    TimeZone::get(name).map_err(|error| {
                        let hint = "write a name of the tz database such as Europe/Berlin, or UTC";
                        Error::config(format!("'{name}' is not a time zone")).because(error).hint(hint)
                    })
                });
                format.as_deref().map(checked).transpose()?;
                Self::Timestamp(Timestamps { format: format.as_deref().map(Format::new), zone: zone.transpose()? })
            }
        })
    }
}

/// A format that `strftime` can write is one that it can read, but for what it only writes.
fn checked(format: &str) -> Result<()> {
    let some = jiff::civil::date(2026, 1, 31).at(5, 6, 7, 0).to_zoned(TimeZone::UTC);
    let written = some.and_then(|some| jiff::fmt::strtime::format(format, &some));
    let read = written.and_then(|written| BrokenDownTime::parse(format, written)).and_then(|read| read.to_date());
    read.map(drop).map_err(|error| {
        Error::config(format!("'{format}' is not a format")).because(error).hint("write one such as %d.%m.%Y %H:%M:%S")
    })
}

/// Values that stand between blanks are the same values; that is rare, so it costs a second try.
pub(crate) fn lenient<T>(value: &[u8], parse: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
    parse(value).or_else(|| {
        let trimmed = value.trim_ascii();
        if trimmed.len() == value.len() { None } else { parse(trimmed) }
    })
}

fn sign(value: &[u8]) -> (bool, &[u8]) {
    match value {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, value),
    }
}

pub(crate) fn int64(value: &[u8]) -> Option<i64> {
    let (negative, digits) = sign(value);
    if digits.is_empty() {
        return None;
    }
    let mut number = 0i64;
    if digits.len() <= 18 {
        for byte in digits {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                return None;
            }
            number = number * 10 + i64::from(digit);
        }
        return Some(if negative { -number } else { number });
    }
    // Downwards, or the least number would not fit.
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number.checked_mul(10)?.checked_sub(i64::from(digit))?;
    }
    if negative { Some(number) } else { number.checked_neg() }
}

const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// Fifteen digits and a power of ten up to 22 are exact in a double, so one division rounds right; the rest goes the standard
/// library's way.
pub(crate) fn float64(value: &[u8]) -> Option<f64> {
    let (negative, digits) = sign(value);
    let (mut number, mut count, mut behind, mut point) = (0u64, 0usize, 0usize, false);
    if digits.len() <= 16 {
        let mut plain = true;
        for &byte in digits {
            let digit = byte.wrapping_sub(b'0');
            if digit <= 9 {
                number = number * 10 + u64::from(digit);
                count += 1;
                behind += usize::from(point);
            } else if byte == b'.' && !point {
                point = true;
            } else {
                plain = false;
                break;
            }
        }
        if plain && (1..=15).contains(&count) {
            #[expect(clippy::cast_precision_loss, reason = "fifteen digits fit")]
            let number = number as f64 / POWERS[behind];
            return Some(if negative { -number } else { number });
        }
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// The number times ten to the power of `scale`.
pub(crate) fn decimal(value: &[u8], precision: u8, scale: u8) -> Option<i128> {
    let (negative, digits) = sign(value);
    let point = digits.iter().position(|byte| *byte == b'.').unwrap_or(digits.len());
    let whole = &digits[..point];
    let fraction = digits.get(point + 1..).unwrap_or_default();
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut number = 0i128;
    let mut add = |byte: u8| -> Option<()> {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(i128::from(digit))?;
        Some(())
    };
    for byte in whole {
        add(*byte)?;
    }
    for at in 0..usize::from(scale) {
        add(fraction.get(at).copied().unwrap_or(b'0'))?;
    }
    if fraction.get(usize::from(scale)..).is_some_and(|rest| rest.iter().any(|byte| *byte != b'0')) {
        return None;
    }
    if number >= 10i128.pow(u32::from(precision)) {
        return None;
    }
    Some(if negative { -number } else { number })
}

pub(crate) fn boolean(value: &[u8]) -> Option<bool> {
    let is = |words: [&[u8]; 4]| words.iter().any(|word| word.eq_ignore_ascii_case(value));
    if is([b"1", b"true", b"t", b"yes"]) || value.eq_ignore_ascii_case(b"y") {
        Some(true)
    } else if is([b"0", b"false", b"f", b"no"]) || value.eq_ignore_ascii_case(b"n") {
        Some(false)
    } else {
        None
    }
}

/// Days from the epoch to a day of the proleptic Gregorian calendar, years 0 to 9999.
fn days(year: u32, month: u32, day: u32) -> Option<i32> {
    const LENGTH: [u8; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    const BEFORE: [u16; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let index = month.wrapping_sub(1) as usize;
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    if day == 0 || day > u32::from(*LENGTH.get(index)?) || (month == 2 && day == 29 && !leap) {
        return None;
    }
    // Leap days of the years before this one; year 0 is one.
    let past = |every: u32| year.div_ceil(every);
    let before = year * 365 + past(4) - past(100) + past(400);
    let in_year = u32::from(BEFORE[index]) + day - 1 + u32::from(leap && month > 2);
    // 719528 days lie between year 0 and 1970; a year has four digits.
    i32::try_from(before + in_year).ok().map(|days| days - 719_528)
}

/// Two digits; above 99 if they are none.
fn two(value: &[u8], at: usize) -> u32 {
    let (tens, ones) = (value[at].wrapping_sub(b'0'), value[at + 1].wrapping_sub(b'0'));
    if tens > 9 || ones > 9 { 1000 } else { u32::from(tens) * 10 + u32::from(ones) }
}

/// `2026-01-31` at the beginning of `value`, which has ten bytes at least.
fn iso_day(value: &[u8]) -> Option<i32> {
    let (century, year, month, day) = (two(value, 0), two(value, 2), two(value, 5), two(value, 8));
    if value[4] != b'-' || value[7] != b'-' || century > 99 || year > 99 {
        return None;
    }
    days(century * 100 + year, month, day)
}

impl Dates {
    /// Days since the epoch.
    pub(crate) fn parse(&self, value: &[u8]) -> Option<i32> {
        match &self.format {
            None if value.len() == 10 => iso_day(value),
            None => None,
            Some(format) => {
                let date = BrokenDownTime::parse(format.as_ref(), value).ok()?.to_date().ok()?;
                since_epoch(date)
            }
        }
    }
}

fn since_epoch(date: Date) -> Option<i32> {
    days(u32::try_from(date.year()).ok()?, u32::try_from(date.month()).ok()?, u32::try_from(date.day()).ok()?)
}

const SECOND: i64 = 1_000_000;

/// A clock's time and what stands behind it: microseconds since the epoch as if in UTC, and the rest of the value.
fn iso_moment(value: &[u8]) -> Option<(i64, &[u8])> {
    // Up to the minutes.
    let (head, mut rest) = value.split_at_checked(16)?;
    let day = iso_day(head)?;
    if !matches!(head[10], b'T' | b' ' | b't') || head[13] != b':' {
        return None;
    }
    let (hour, minute, mut second) = (two(head, 11), two(head, 14), 0);
    let mut fraction = 0;
    if let [b':', _, _, ..] = rest {
        second = two(rest, 1);
        rest = &rest[3..];
        if let [b'.' | b',', digits @ ..] = rest {
            let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if count == 0 || count > 9 {
                return None;
            }
            fraction = (0..6).fold(0, |fraction, at| {
                fraction * 10 + digits.get(at).filter(|_| at < count).map_or(0, |digit| i64::from(digit - b'0'))
            });
            rest = &digits[count..];
        }
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = i64::from(day) * 86_400 + i64::from(hour * 3600 + minute * 60 + second);
    Some((seconds * SECOND + fraction, rest))
}

/// `Z`, `+02:00`, `+0200`, `-05`: seconds east of UTC.
fn offset(value: &[u8]) -> Option<i64> {
    let (sign, digits) = match value {
        [b'Z' | b'z'] => return Some(0),
        [b'+', digits @ ..] => (1, digits),
        [b'-', digits @ ..] => (-1, digits),
        _ => return None,
    };
    let (hours, minutes) = match digits {
        [_, _] => (two(digits, 0), 0),
        [_, _, _, _] => (two(digits, 0), two(digits, 2)),
        [_, _, b':', _, _] => (two(digits, 0), two(digits, 3)),
        _ => return None,
    };
    (hours <= 23 && minutes <= 59).then(|| sign * i64::from(hours * 3600 + minutes * 60))
}

impl Timestamps {
    /// Whether what it gives are moments, not what a clock shows.
    pub(crate) fn is_utc(&self) -> bool {
        self.zone.is_some()
    }

    /// Microseconds since the epoch.
    pub(crate) fn parse(&self, value: &[u8]) -> Option<i64> {
        let (local, east) = match &self.format {
            None => {
                let (local, rest) = iso_moment(value)?;
                (local, if rest.is_empty() { None } else { Some(offset(rest.trim_ascii_start())?) })
            }
            Some(format) => format.parse(value)?,
        };
        match (&self.zone, east) {
            (None, None) => Some(local),
            // Without a zone declared, what is asked for is what the clock shows: an offset would be lost.
            (None, Some(_)) => None,
            (Some(_), Some(east)) => Some(local - east * SECOND),
            (Some(zone), None) => in_zone(local, zone),
        }
    }
}

/// The moment at which the clocks of a zone show this.
fn in_zone(local: i64, zone: &TimeZone) -> Option<i64> {
    if *zone == TimeZone::UTC {
        return Some(local);
    }
    let shown = jiff::Timestamp::from_microsecond(local).ok()?.to_zoned(TimeZone::UTC).datetime();
    let found = zone.to_ambiguous_timestamp(shown);
    if matches!(found.offset(), jiff::tz::AmbiguousOffset::Gap { .. }) {
        return None;
    }
    found.earlier().ok().map(jiff::Timestamp::as_microsecond)
}

/// A format of `strptime`. One of plain numbers has a quick way; what the quick way refuses, the library decides.
#[derive(Clone, Debug)]
struct Format {
    text: Box<str>,
    plain: Option<Vec<Part>>,
}

#[derive(Clone, Copy, Debug)]
enum Part {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    Literal(u8),
}

impl Format {
    fn new(text: &str) -> Self {
        let (mut plain, mut bytes) = (Some(vec![]), text.bytes());
        while let Some(byte) = bytes.next() {
            let part = match byte {
                b'%' => match bytes.next() {
                    Some(b'Y') => Some(Part::Year),
                    Some(b'm') => Some(Part::Month),
                    Some(b'd') => Some(Part::Day),
                    Some(b'H') => Some(Part::Hour),
                    Some(b'M') => Some(Part::Minute),
                    Some(b'S') => Some(Part::Second),
                    _ => None,
                },
                // Blanks mean any number of blanks.
                byte if byte.is_ascii() && (byte == b' ' || !byte.is_ascii_whitespace()) => Some(Part::Literal(byte)),
                _ => None,
            };
            plain = plain.zip(part).map(|(mut parts, part)| {
                parts.push(part);
                parts
            });
        }
        Self { text: text.into(), plain }
    }

    /// As [`iso_moment`], and the offset in seconds where the value says one.
    fn parse(&self, value: &[u8]) -> Option<(i64, Option<i64>)> {
        if let Some(local) = self.plain.as_ref().and_then(|parts| quick(parts, value)) {
            return Some((local, None));
        }
        let read = BrokenDownTime::parse(self.text.as_ref(), value).ok()?;
        let time = if read.hour().is_some() { read.to_time().ok()? } else { Time::midnight() };
        let shown = DateTime::from_parts(read.to_date().ok()?, time);
        let local = shown.to_zoned(TimeZone::UTC).ok()?.timestamp().as_microsecond();
        Some((local, read.offset().map(|offset| i64::from(offset.seconds()))))
    }
}

/// Numbers with all their digits.
fn quick(parts: &[Part], value: &[u8]) -> Option<i64> {
    let (mut year, mut month, mut day, mut hour, mut minute, mut second) = (None, 0, 0, 0, 0, 0);
    let mut rest = value;
    for part in parts {
        if let Part::Literal(byte) = part {
            rest = rest.strip_prefix(std::slice::from_ref(byte))?;
            continue;
        }
        let (digits, after) = rest.split_at_checked(if matches!(part, Part::Year) { 4 } else { 2 })?;
        rest = after;
        let number = two(digits, 0);
        match part {
            Part::Year if number <= 99 && two(digits, 2) <= 99 => year = Some(number * 100 + two(digits, 2)),
            Part::Month => month = number,
            Part::Day => day = number,
            Part::Hour => hour = number,
            Part::Minute => minute = number,
            Part::Second => second = number,
            Part::Year | Part::Literal(_) => return None,
        }
    }
    if !rest.is_empty() || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    Some((i64::from(days(year?, month, day)?) * 86_400 + i64::from(hour * 3600 + minute * 60 + second)) * SECOND)
}
