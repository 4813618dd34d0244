//! Dates and times: ticks of 100 ns since 0001-01-01, the finest that `datetime2(7)` holds; a time of day counts from midnight.

/// Ticks of a second.
pub(crate) const SECOND: i64 = 10_000_000;
/// Ticks of a day.
pub(crate) const DAY: i64 = 86_400 * SECOND;
/// Days from 0001-01-01 to 1900-01-01, where `datetime` counts from.
pub(crate) const DAYS_1900: i64 = 693_595;
/// Days from 0001-01-01 to 1753-01-01, the first of `datetime`.
pub(crate) const DAYS_1753: i64 = 639_905;
/// Days from 0001-01-01 to 10000-01-01.
pub(crate) const DAYS_END: i64 = 3_652_059;

/// Days since 0001-01-01 of a date; nothing if there is no such day.
pub(crate) fn days_of(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=9999).contains(&year) || !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    // Years begin in March, so that the odd day comes last.
    let y = if month <= 2 { year - 1 } else { year };
    let m = (month + 9) % 12;
    Some(y * 365 + y / 4 - y / 100 + y / 400 + (m * 306 + 5) / 10 + day - 1 - 306)
}

/// Year, month and day.
pub(crate) fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 306;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    (year, month, doy - (153 * mp + 2) / 5 + 1)
}

/// How long a month is.
pub(crate) fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// What a text says of a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parsed {
    pub days: Option<i64>,
    /// Ticks since midnight.
    pub time: Option<i64>,
    /// Minutes east of UTC.
    pub offset: Option<i16>,
}

/// Why it says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    NotADate,
    OutOfRange,
}

/// Reads what T-SQL takes under `us_english`: ISO 8601, `YYYYMMDD`, `MM/DD/YYYY`, times with AM or PM, offsets.
pub(crate) fn parse(text: &str) -> Result<Parsed, Refused> {
    let text = text.trim_matches(' ');
    if text.is_empty() {
        // The empty string is 1900-01-01 00:00.
        return Ok(Parsed { days: Some(DAYS_1900), time: Some(0), offset: None });
    }
    let (date, time) = match text.find(['T', ' ', 't']) {
        Some(at) if !text[..at].contains(':') => (Some(&text[..at]), Some(&text[at + 1..])),
        None if !text.contains(':') => (Some(text), None),
        _ => (None, Some(text)),
    };
    let days = date.map(parse_date).transpose()?;
    let (time, offset) = time.map(parse_time).transpose()?.unwrap_or_default();
    Ok(Parsed { days, time, offset })
}

fn parse_date(text: &str) -> Result<i64, Refused> {
    let number = |part: &str| match part.bytes().all(|byte| byte.is_ascii_digit()) && (1..=4).contains(&part.len()) {
        true => part.parse::<i64>().map_err(|_| Refused::NotADate),
        false => Err(Refused::NotADate),
    };
    let (year, month, day) = if text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        (number(&text[..4])?, number(&text[4..6])?, number(&text[6..])?)
    } else {
        let parts: Vec<&str> = text.split(['-', '/', '.']).collect();
        let [a, b, c] = parts[..] else { return Err(Refused::NotADate) };
        match (a.len(), c.len()) {
            (4, _) => (number(a)?, number(b)?, number(c)?),
            (_, 4) => (number(c)?, number(a)?, number(b)?),
            _ => return Err(Refused::NotADate),
        }
    };
    days_of(year, month, day).ok_or(Refused::OutOfRange)
}

fn parse_time(text: &str) -> Result<(Option<i64>, Option<i16>), Refused> {
    let text = text.trim();
    let (text, offset) = if let Some(rest) = text.strip_suffix(['Z', 'z']) {
        (rest, Some(0))
    } else if let Some(at) = text.rfind(['+', '-']) {
        let sign = if text.as_bytes()[at] == b'-' { -1 } else { 1 };
        let (hours, minutes) = text[at + 1..].split_once(':').ok_or(Refused::NotADate)?;
        let [hours, minutes] = [hours, minutes].map(|part| part.parse::<i16>().map_err(|_| Refused::NotADate));
        let (hours, minutes) = (hours?, minutes?);
        if hours > 14 || minutes > 59 || hours * 60 + minutes > 840 {
            return Err(Refused::OutOfRange);
        }
        (text[..at].trim_end(), Some(sign * (hours * 60 + minutes)))
    } else {
        (text, None)
    };
    let upper = text.to_ascii_uppercase();
    let (text, afternoon) = match (upper.strip_suffix("AM"), upper.strip_suffix("PM")) {
        (Some(rest), _) => (rest.trim_end(), Some(false)),
        (_, Some(rest)) => (rest.trim_end(), Some(true)),
        _ => (upper.as_str(), None),
    };
    let mut parts = text.split(':');
    let whole = |part: Option<&str>| match part {
        Some(part) if (1..=2).contains(&part.len()) => part.parse::<i64>().map_err(|_| Refused::NotADate),
        _ => Err(Refused::NotADate),
    };
    let (mut hour, minute) = (whole(parts.next())?, whole(parts.next())?);
    let (second, fraction) = match parts.next() {
        None => (0, 0),
        Some(last) => {
            let (second, fraction) = last.split_once('.').unwrap_or((last, ""));
            if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(Refused::NotADate);
            }
            let digits: String = fraction.chars().chain("0000000".chars()).take(7).collect();
            (whole(Some(second))?, digits.parse::<i64>().map_err(|_| Refused::NotADate)?)
        }
    };
    if parts.next().is_some() {
        return Err(Refused::NotADate);
    }
    match afternoon {
        Some(_) if !(1..=12).contains(&hour) => return Err(Refused::OutOfRange),
        Some(true) if hour < 12 => hour += 12,
        Some(false) if hour == 12 => hour = 0,
        _ => {}
    }
    if hour > 23 || minute > 59 || second > 59 {
        return Err(Refused::OutOfRange);
    }
    Ok((Some(((hour * 60 + minute) * 60 + second) * SECOND + fraction), offset))
}

/// Rounds ticks to a scale of fractional seconds, 0 to 7.
pub(crate) fn round(ticks: i64, scale: u8) -> i64 {
    let unit = 10_i64.pow(u32::from(7 - scale.min(7)));
    (ticks + unit / 2).div_euclid(unit) * unit
}

/// To the thirds of a hundredth of a second that `datetime` counts; what it shows is .000, .003 and .007.
pub(crate) fn round_datetime(ticks: i64) -> i64 {
    from_thirds(thirds(ticks.rem_euclid(DAY))) + ticks.div_euclid(DAY) * DAY
}

/// 1/300 seconds of a time of day, rounded.
pub(crate) fn thirds(ticks: i64) -> i64 {
    (ticks * 3 + 50_000) / 100_000
}

/// Ticks of so many 1/300 seconds, to the millisecond that is shown.
pub(crate) fn from_thirds(thirds: i64) -> i64 {
    (thirds * 10 + 1) / 3 * 10_000
}

/// `2026-03-01`.
pub(crate) fn format_date(days: i64) -> String {
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}")
}

/// `12:34:56.789`, with so many digits.
pub(crate) fn format_time(ticks: i64, scale: u8) -> String {
    let (seconds, fraction) = (ticks / SECOND, ticks % SECOND);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut text = format!("{hour:02}:{minute:02}:{second:02}");
    if scale > 0 {
        let digits = format!("{fraction:07}");
        text.push('.');
        text.push_str(&digits[..usize::from(scale.min(7))]);
    }
    text
}

/// `2026-03-01 12:34:56.789`.
pub(crate) fn format(ticks: i64, scale: u8) -> String {
    format!("{} {}", format_date(ticks.div_euclid(DAY)), format_time(ticks.rem_euclid(DAY), scale))
}

/// `+02:00`.
pub(crate) fn format_offset(minutes: i16) -> String {
    let sign = if minutes < 0 { '-' } else { '+' };
    let minutes = minutes.unsigned_abs();
    format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
}

/// Now, in UTC.
pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let ticks = i64::try_from(since.as_nanos() / 100).unwrap_or_default();
    // 1970-01-01 is 719,162 days after 0001-01-01.
    719_162 * DAY + ticks
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn anchors() {
        assert_eq!(days_of(1, 1, 1), Some(0));
        assert_eq!(days_of(1900, 1, 1), Some(DAYS_1900));
        assert_eq!(days_of(1753, 1, 1), Some(DAYS_1753));
        assert_eq!(days_of(9999, 12, 31), Some(DAYS_END - 1));
        assert_eq!(days_of(1970, 1, 1), Some(719_162));
        assert_eq!(days_of(2023, 2, 29), None);
        // What the manual of datetime says of its rounding.
        for (from, to) in [(0_i64, 0_i64), (1, 0), (2, 3), (3, 3), (4, 3), (5, 7), (6, 7), (7, 7), (8, 7), (9, 10)] {
            assert_eq!(round_datetime(from * 10_000), to * 10_000, "{from} ms");
        }
    }

    #[test]
    fn what_text_says() {
        let cases = [
            ("2026-03-01", Ok("2026-03-01 00:00:00.0000000")),
            ("20260301 12:30", Ok("2026-03-01 12:30:00.0000000")),
            ("2026-03-01T12:30:01.25", Ok("2026-03-01 12:30:01.2500000")),
            ("3/1/2026 1:05 PM", Ok("2026-03-01 13:05:00.0000000")),
            ("2026-02-30", Err(Refused::OutOfRange)),
            ("2026-03-01 24:00:00", Err(Refused::OutOfRange)),
            ("tomorrow", Err(Refused::NotADate)),
        ];
        for (text, expect) in cases {
            let got = parse(text).map(|at| format(at.days.unwrap_or(0) * DAY + at.time.unwrap_or(0), 7));
            assert_eq!(got, expect.map(str::to_owned), "{text}");
        }
        assert_eq!(parse("2026-03-01 00:00:00 -05:30").unwrap().offset, Some(-330));
    }

    proptest! {
        #[test]
        fn days_and_back(days in 0..DAYS_END) {
            let (year, month, day) = civil(days);
            prop_assert_eq!(days_of(year, month, day), Some(days));
        }
    }
}
