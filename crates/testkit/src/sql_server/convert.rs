//! Conversions between types, with the errors that a real server has for them ("CAST and CONVERT", T-SQL reference).

use rusqlite::types::{Value, ValueRef};

use super::{
    calendar::{self, DAY, DAYS_1753, DAYS_1900, DAYS_END},
    decimal,
    error::{Sql, SqlError},
    types::Ty,
    values::{format_guid, from_offset_bytes, offset_bytes, parse_guid, put_1252},
};

/// Text of a stored value, if it is text.
fn text(value: ValueRef<'_>) -> &str {
    match value {
        ValueRef::Text(bytes) => std::str::from_utf8(bytes).unwrap_or_default(),
        _ => "",
    }
}

fn integer(value: ValueRef<'_>) -> i64 {
    match value {
        ValueRef::Integer(n) => n,
        _ => 0,
    }
}

fn bytes<'a>(value: ValueRef<'a>) -> &'a [u8] {
    match value {
        ValueRef::Blob(bytes) | ValueRef::Text(bytes) => bytes,
        _ => &[],
    }
}

fn offset(ticks: i64, minutes: i16) -> Value {
    Value::Blob(offset_bytes(ticks, minutes).to_vec())
}

/// A value of one's own.
pub(super) fn owned(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(n) => Value::Integer(n),
        ValueRef::Real(n) => Value::Real(n),
        ValueRef::Text(bytes) => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}

/// A decimal as it is stored.
pub(super) fn stored(value: i128) -> Value {
    Value::Blob(decimal::to_bytes(value).to_vec())
}

fn not_allowed(from: &Ty, to: &Ty) -> SqlError {
    SqlError::of(529, format!("Explicit conversion from data type {} to {} is not allowed.", from.name(), to.name()))
}

/// A number as a scaled integer, whatever its type; nothing for floats.
fn exact(value: ValueRef<'_>, from: &Ty) -> Option<(i128, u8)> {
    match from {
        Ty::Decimal { s, .. } => decimal::from_bytes(bytes(value)).map(|number| (number, *s)),
        Ty::Money | Ty::SmallMoney => Some((integer(value).into(), 4)),
        _ if from.is_integer() => Some((integer(value).into(), 0)),
        _ => None,
    }
}

/// A number as a float, whatever its type.
#[expect(clippy::cast_precision_loss, reason = "a float has what it has")]
pub(super) fn float(value: ValueRef<'_>, from: &Ty) -> f64 {
    match (value, exact(value, from)) {
        (ValueRef::Real(number), _) => number,
        (_, Some((number, 0))) => number as f64,
        // By way of the text, which rounds once and not twice.
        (_, Some((number, scale))) => decimal::format(number, scale).parse().unwrap_or(0.0),
        _ => 0.0,
    }
}

/// Converts a stored value. `style` as CONVERT has it, 0 by default. Characters beyond the target's length are cut off.
pub(super) fn convert(value: ValueRef<'_>, from: &Ty, to: &Ty, style: i64) -> Sql<Value> {
    if value == ValueRef::Null {
        return Ok(Value::Null);
    }
    if from == to && !matches!(to, Ty::Char(_) | Ty::NChar(_) | Ty::Binary(_)) {
        return Ok(owned(value));
    }
    match to {
        Ty::Bit | Ty::TinyInt | Ty::SmallInt | Ty::Int | Ty::BigInt => to_integer(value, from, to),
        Ty::Decimal { p, s, .. } => to_decimal(value, from, to, *p, *s),
        Ty::Money | Ty::SmallMoney => to_money(value, from, to),
        Ty::Real | Ty::Float => to_float(value, from, to),
        Ty::Guid => match from {
            _ if from.is_text() => parse_guid(text(value)).map(|guid| Value::Blob(guid.to_vec())).ok_or_else(|| {
                SqlError::of(8169, "Conversion failed when converting from a character string to uniqueidentifier.")
            }),
            _ if from.is_binary() && bytes(value).len() == 16 => Ok(Value::Blob(bytes(value).to_vec())),
            Ty::Guid => Ok(owned(value)),
            _ => Err(not_allowed(from, to)),
        },
        _ if to.is_moment() => to_moment(value, from, to),
        _ if to.is_text() => {
            let made = if from.is_text() { text(value).to_owned() } else { format(value, from, to, style)? };
            fit_text(made, from, to).map(Value::Text)
        }
        _ => to_binary(value, from, to),
    }
}

fn range(to: &Ty) -> (i128, i128) {
    match to {
        Ty::Bit => (0, 1),
        Ty::TinyInt => (0, 255),
        Ty::SmallInt => (i16::MIN.into(), i16::MAX.into()),
        Ty::Int => (i32::MIN.into(), i32::MAX.into()),
        Ty::SmallMoney => (i32::MIN.into(), i32::MAX.into()),
        _ => (i64::MIN.into(), i64::MAX.into()),
    }
}

/// Whether a number is in a type's range, with the error for what it came from.
fn ranged(number: i128, from: &Ty, to: &Ty, shown: &str) -> Sql<i64> {
    let (low, high) = range(to);
    match i64::try_from(number) {
        Ok(fits) if (low..=high).contains(&number) => Ok(fits),
        _ if from.is_text() && *to == Ty::Int => Err(SqlError::of(
            248,
            format!("The conversion of the {} value '{shown}' overflowed an int column.", from.name()),
        )),
        _ if from.is_text() && matches!(to, Ty::TinyInt | Ty::SmallInt) => Err(SqlError::of(
            244,
            format!(
                "The conversion of the {} value '{shown}' overflowed an {} column.",
                from.name(),
                if *to == Ty::TinyInt { "INT1" } else { "INT2" }
            ),
        )),
        _ if from.is_integer() && matches!(to, Ty::TinyInt | Ty::SmallInt) => {
            Err(SqlError::of(220, format!("Arithmetic overflow error for data type {}, value = {shown}.", to.name())))
        }
        _ => Err(SqlError::overflow(to.name())),
    }
}

fn to_integer(value: ValueRef<'_>, from: &Ty, to: &Ty) -> Sql<Value> {
    if *to == Ty::Bit && from.is_number() {
        let zero = match exact(value, from) {
            Some((number, _)) => number == 0,
            None => float(value, from) == 0.0,
        };
        return Ok(Value::Integer(i64::from(!zero)));
    }
    let number: i128 = match from {
        _ if from.is_text() => {
            let shown = text(value);
            let digits = shown.trim_matches(' ');
            if *to == Ty::Bit {
                match digits.to_ascii_lowercase().as_str() {
                    "true" => return Ok(Value::Integer(1)),
                    "false" => return Ok(Value::Integer(0)),
                    _ => {}
                }
            }
            let whole = digits.strip_prefix(['-', '+']).unwrap_or(digits);
            if digits.is_empty() {
                0
            } else if whole.is_empty() || !whole.bytes().all(|byte| byte.is_ascii_digit()) {
                if *to == Ty::BigInt {
                    return Err(SqlError::of(8114, format!("Error converting data type {} to bigint.", from.name())));
                }
                return Err(SqlError::of(
                    245,
                    format!(
                        "Conversion failed when converting the {} value '{shown}' to data type {}.",
                        from.name(),
                        to.name()
                    ),
                ));
            } else {
                let number = digits.parse::<i128>().unwrap_or(i128::MAX);
                if *to == Ty::Bit {
                    return Ok(Value::Integer(i64::from(number != 0)));
                }
                return ranged(number, from, to, shown).map(Value::Integer);
            }
        }
        Ty::Real | Ty::Float => {
            let number = float(value, from).trunc();
            if !number.is_finite() || number.abs() > 1e30 {
                return Err(SqlError::overflow(to.name()));
            }
            #[expect(clippy::cast_possible_truncation, reason = "cut off, and small enough")]
            let number = number as i128;
            number
        }
        Ty::Money | Ty::SmallMoney => decimal::divide_rounded(integer(value).into(), 10_000),
        Ty::Decimal { s, .. } => decimal::from_bytes(bytes(value)).unwrap_or(0) / decimal::pow10(*s),
        Ty::DateTime | Ty::SmallDateTime => (integer(value).div_euclid(DAY) - DAYS_1900).into(),
        _ if from.is_binary() => {
            let width = match to {
                Ty::Bit | Ty::TinyInt => 1,
                Ty::SmallInt => 2,
                Ty::Int => 4,
                _ => 8,
            };
            let all = bytes(value);
            let last = &all[all.len().saturating_sub(width)..];
            let number = last.iter().fold(0_i128, |number, byte| number << 8 | i128::from(*byte));
            let bits = width * 8;
            if last.len() == width && width > 1 && number >> (bits - 1) & 1 == 1 {
                number - (1 << bits)
            } else {
                number
            }
        }
        _ if from.is_integer() => integer(value).into(),
        _ => return Err(not_allowed(from, to)),
    };
    ranged(number, from, to, &number.to_string()).map(Value::Integer)
}

fn to_decimal(value: ValueRef<'_>, from: &Ty, to: &Ty, p: u8, s: u8) -> Sql<Value> {
    let overflow = || {
        let name = if from.is_number() && !matches!(from, Ty::Decimal { .. } | Ty::Float | Ty::Real | Ty::Money) {
            from.name()
        } else {
            match from {
                Ty::Decimal { .. } => "numeric",
                other => other.name(),
            }
        };
        SqlError::of(8115, format!("Arithmetic overflow error converting {name} to data type numeric."))
    };
    let number = if from.is_text() {
        decimal::parse(text(value), s).map_err(|refused| match refused {
            decimal::Refused::NotANumber => {
                SqlError::of(8114, format!("Error converting data type {} to numeric.", from.name()))
            }
            decimal::Refused::TooBig => overflow(),
        })?
    } else if matches!(from, Ty::Real | Ty::Float) {
        let number = float(value, from);
        if !number.is_finite() || number.abs() >= 1e38 {
            return Err(overflow());
        }
        let shown = format!("{number:.*}", usize::from(s));
        decimal::parse(&shown, s).map_err(|_| overflow())?
    } else if let Some((number, scale)) = exact(value, from) {
        decimal::rescale(number, scale, s).ok_or_else(overflow)?
    } else {
        return Err(not_allowed(from, to));
    };
    if decimal::digits(number) > p { Err(overflow()) } else { Ok(stored(number)) }
}

fn to_money(value: ValueRef<'_>, from: &Ty, to: &Ty) -> Sql<Value> {
    let number = if from.is_text() {
        let cleaned = text(value).trim_matches(' ').replace([',', '$'], "");
        decimal::parse(&cleaned, 4).map_err(|_| {
            SqlError::of(235, "Cannot convert a char value to money. The char value has incorrect syntax.")
        })?
    } else if matches!(from, Ty::Real | Ty::Float) {
        let number = float(value, from);
        if number.abs() > 1e16 {
            return Err(SqlError::overflow(to.name()));
        }
        #[expect(clippy::cast_possible_truncation, reason = "rounded, and small enough")]
        let number = (number * 10_000.0).round() as i128;
        number
    } else if let Some((number, scale)) = exact(value, from) {
        decimal::rescale(number, scale, 4).ok_or_else(|| SqlError::overflow(to.name()))?
    } else {
        return Err(not_allowed(from, to));
    };
    let (low, high) = range(to);
    match i64::try_from(number) {
        Ok(fits) if (low..=high).contains(&number) => Ok(Value::Integer(fits)),
        _ => Err(SqlError::overflow(to.name())),
    }
}

fn to_float(value: ValueRef<'_>, from: &Ty, to: &Ty) -> Sql<Value> {
    let number = if from.is_text() {
        let shown = text(value).trim_matches(' ');
        let plain = shown.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
        let parsed = if shown.is_empty() { Some(0.0) } else { shown.parse::<f64>().ok().filter(|_| plain) };
        parsed.ok_or_else(|| {
            SqlError::of(8114, format!("Error converting data type {} to {}.", from.name(), to.name()))
        })?
    } else if from.is_number() {
        float(value, from)
    } else {
        return Err(not_allowed(from, to));
    };
    if *to == Ty::Real {
        #[expect(clippy::cast_possible_truncation, reason = "real has four bytes")]
        let narrow = number as f32;
        if narrow.is_infinite() {
            return Err(SqlError::of(232, format!("Arithmetic overflow error for type real, value = {number}.")));
        }
        return Ok(Value::Real(narrow.into()));
    }
    if number.is_finite() { Ok(Value::Real(number)) } else { Err(SqlError::overflow("float")) }
}

fn to_moment(value: ValueRef<'_>, from: &Ty, to: &Ty) -> Sql<Value> {
    // Days, ticks since midnight, offset: of what there is.
    let (days, time, east): (Option<i64>, Option<i64>, Option<i16>) = match from {
        _ if from.is_text() => {
            let parsed = calendar::parse(text(value)).map_err(|refused| match (refused, to) {
                (calendar::Refused::OutOfRange, Ty::DateTime | Ty::SmallDateTime) => SqlError::of(
                    242,
                    format!(
                        "The conversion of a {} data type to a {} data type resulted in an out-of-range value.",
                        from.name(),
                        to.name()
                    ),
                ),
                (_, Ty::SmallDateTime) => {
                    SqlError::of(295, "Conversion failed when converting character string to smalldatetime data type.")
                }
                _ => SqlError::of(241, "Conversion failed when converting date and/or time from character string."),
            })?;
            if parsed.offset.is_some() && matches!(to, Ty::DateTime | Ty::SmallDateTime) {
                return Err(SqlError::of(
                    241,
                    "Conversion failed when converting date and/or time from character string.",
                ));
            }
            (parsed.days, parsed.time, parsed.offset)
        }
        Ty::DateTimeOffset(_) => {
            let (utc, east) = from_offset_bytes(bytes(value));
            let local = utc + i64::from(east) * 60 * calendar::SECOND;
            (Some(local.div_euclid(DAY)), Some(local.rem_euclid(DAY)), Some(east))
        }
        Ty::Time(_) => (None, Some(integer(value)), None),
        _ if from.is_moment() => {
            let ticks = integer(value);
            (Some(ticks.div_euclid(DAY)), Some(ticks.rem_euclid(DAY)), None)
        }
        _ if from.is_integer() && matches!(to, Ty::DateTime | Ty::SmallDateTime) => {
            (Some(DAYS_1900 + integer(value)), Some(0), None)
        }
        _ => {
            return Err(SqlError::of(
                206,
                format!("Operand type clash: {} is incompatible with {}", from.name(), to.name()),
            ));
        }
    };
    let out_of_range = || {
        SqlError::of(
            242,
            format!(
                "The conversion of a {} data type to a {} data type resulted in an out-of-range value.",
                from.name(),
                to.name()
            ),
        )
    };
    let date = days.unwrap_or(DAYS_1900);
    let time = time.unwrap_or(0);
    let ticks = date * DAY + time;
    let checked = |ticks: i64, low: i64, end: i64| {
        if (low * DAY..end * DAY).contains(&ticks) { Ok(Value::Integer(ticks)) } else { Err(out_of_range()) }
    };
    match *to {
        Ty::Date => checked(date * DAY, 0, DAYS_END),
        Ty::Time(scale) => Ok(Value::Integer(calendar::round(time, scale).rem_euclid(DAY))),
        Ty::DateTime2(scale) => checked(calendar::round(ticks, scale), 0, DAYS_END),
        Ty::DateTime => checked(calendar::round_datetime(ticks), DAYS_1753, DAYS_END),
        Ty::SmallDateTime => {
            let minute = 60 * calendar::SECOND;
            // 29.998 seconds go down, 29.999 up.
            let rounded = (ticks + 30 * calendar::SECOND).div_euclid(minute) * minute;
            checked(rounded, DAYS_1900, DAYS_1900 + 65_536)
        }
        _ => {
            let east = east.unwrap_or(0);
            let utc = calendar::round(ticks, to.scale()) - i64::from(east) * 60 * calendar::SECOND;
            if (0..DAYS_END * DAY).contains(&utc) { Ok(offset(utc, east)) } else { Err(out_of_range()) }
        }
    }
}

fn to_binary(value: ValueRef<'_>, from: &Ty, to: &Ty) -> Sql<Value> {
    let mut made = match from {
        _ if from.is_binary() => bytes(value).to_vec(),
        _ if from.is_national() => text(value).encode_utf16().flat_map(u16::to_le_bytes).collect(),
        _ if from.is_text() => {
            let mut out = vec![];
            put_1252(text(value), &mut out);
            out
        }
        Ty::TinyInt | Ty::Bit => integer(value).to_be_bytes()[7..].to_vec(),
        Ty::SmallInt => integer(value).to_be_bytes()[6..].to_vec(),
        Ty::Int => integer(value).to_be_bytes()[4..].to_vec(),
        Ty::BigInt => integer(value).to_be_bytes().to_vec(),
        Ty::Guid => bytes(value).to_vec(),
        _ => return Err(not_allowed(from, to)),
    };
    if let Some(length) = to.length() {
        let length = usize::from(length);
        if from.is_integer() && made.len() > length {
            made.drain(..made.len() - length);
        }
        made.truncate(length);
        if matches!(to, Ty::Binary(_)) {
            if from.is_integer() {
                let mut padded = vec![0; length - made.len()];
                padded.append(&mut made);
                made = padded;
            } else {
                made.resize(length, 0);
            }
        }
    }
    Ok(Value::Blob(made))
}

/// Characters as a type counts them: UTF-16 units, or bytes of the code page.
pub(super) fn units(text: &str, national: bool) -> usize {
    if text.is_ascii() || !national { text.chars().count() } else { text.encode_utf16().count() }
}

/// The first `n` units.
pub(super) fn cut(text: &str, n: usize, national: bool) -> &str {
    let mut left = n;
    for (at, char) in text.char_indices() {
        let width = if national { char.len_utf16() } else { 1 };
        if width > left {
            return &text[..at];
        }
        left -= width;
    }
    text
}

fn fit_text(mut made: String, from: &Ty, to: &Ty) -> Sql<String> {
    let national = to.is_national();
    if from.is_national() && !national && !made.is_ascii() {
        let mut out = vec![];
        put_1252(&made, &mut out);
        made = encoding_rs::WINDOWS_1252.decode_without_bom_handling(&out).0.into_owned();
    }
    let Some(length) = to.length().map(usize::from) else { return Ok(made) };
    let have = units(&made, national);
    if have > length {
        if from.is_integer() {
            return Ok("*".to_owned());
        }
        if from.is_number() {
            return Err(SqlError::overflow(to.name()));
        }
        made.truncate(cut(&made, length, national).len());
    } else if matches!(to, Ty::Char(_) | Ty::NChar(_)) {
        made.extend(std::iter::repeat_n(' ', length - have));
    }
    Ok(made)
}

/// Text of a value that is none.
pub(super) fn format(value: ValueRef<'_>, from: &Ty, to: &Ty, style: i64) -> Sql<String> {
    Ok(match *from {
        _ if from.is_integer() => integer(value).to_string(),
        Ty::Real | Ty::Float => format_float(float(value, from), *from == Ty::Real, style),
        Ty::Decimal { s, .. } => decimal::format(decimal::from_bytes(bytes(value)).unwrap_or(0), s),
        Ty::Money | Ty::SmallMoney => {
            let number = i128::from(integer(value));
            if style == 2 {
                decimal::format(number, 4)
            } else {
                decimal::format(decimal::divide_rounded(number, 100), 2)
            }
        }
        Ty::Guid => format_guid(bytes(value)),
        _ if from.is_binary() => match style {
            1 => format!("0x{}", hex(bytes(value))),
            2 => hex(bytes(value)),
            _ if to.is_national() => super::wire::utf16(bytes(value)),
            _ => encoding_rs::WINDOWS_1252.decode_without_bom_handling(bytes(value)).0.into_owned(),
        },
        Ty::DateTimeOffset(scale) => {
            let (utc, east) = from_offset_bytes(bytes(value));
            let local = utc + i64::from(east) * 60 * calendar::SECOND;
            match style {
                126 | 127 => {
                    format!("{}{}", calendar::format(local, scale).replace(' ', "T"), calendar::format_offset(east))
                }
                _ => format!("{} {}", calendar::format(local, scale), calendar::format_offset(east)),
            }
        }
        Ty::Time(scale) => calendar::format_time(integer(value), scale),
        Ty::Date => match style {
            112 => calendar::format_date(integer(value).div_euclid(DAY)).replace('-', ""),
            101 => american(integer(value)),
            _ => calendar::format_date(integer(value).div_euclid(DAY)),
        },
        _ if from.is_moment() => format_moment(integer(value), from, style)?,
        _ => text(value).to_owned(),
    })
}

fn american(ticks: i64) -> String {
    let (year, month, day) = calendar::civil(ticks.div_euclid(DAY));
    format!("{month:02}/{day:02}/{year:04}")
}

fn format_moment(ticks: i64, from: &Ty, style: i64) -> Sql<String> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let scale = from.scale();
    let time = ticks.rem_euclid(DAY);
    Ok(match style {
        120 | 20 => calendar::format(ticks, 0),
        121 | 21 | 25 => calendar::format(ticks, if *from == Ty::SmallDateTime { 3 } else { scale }),
        126 | 127 => {
            let whole = time % calendar::SECOND == 0 && *from == Ty::DateTime;
            calendar::format(ticks, if whole { 0 } else { scale }).replace(' ', "T")
        }
        112 => calendar::format_date(ticks.div_euclid(DAY)).replace('-', ""),
        23 => calendar::format_date(ticks.div_euclid(DAY)),
        101 => american(ticks),
        108 | 8 => calendar::format_time(time, 0),
        0 | 100 if matches!(from, Ty::DateTime | Ty::SmallDateTime) => {
            let (year, month, day) = calendar::civil(ticks.div_euclid(DAY));
            let minutes = time / calendar::SECOND / 60;
            let (hour, minute) = (minutes / 60, minutes % 60);
            let half = if hour < 12 { "AM" } else { "PM" };
            let name = usize::try_from(month - 1).ok().and_then(|at| MONTHS.get(at)).unwrap_or(&"");
            format!("{name} {day:>2} {year} {:>2}:{minute:02}{half}", (hour + 11) % 12 + 1)
        }
        0 => calendar::format(ticks, scale),
        _ => return Err(SqlError::unsupported(&format!("style {style}"))),
    })
}

/// As the server shows floats: six digits by default, sixteen with style 3 (17 for float), exponent where it is shorter.
fn format_float(number: f64, _real: bool, style: i64) -> String {
    if style == 3 {
        return format!("{number:.16e}").replacen('e', "e+", usize::from(number.abs() >= 1.0));
    }
    let magnitude = if number == 0.0 { 0.0 } else { number.abs().log10().floor() };
    if (-5.0..6.0).contains(&magnitude) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 11")]
        let places = (5.0 - magnitude).max(0.0) as usize;
        let shown = format!("{number:.places$}");
        if shown.contains('.') { shown.trim_end_matches('0').trim_end_matches('.').to_owned() } else { shown }
    } else {
        let shown = format!("{number:.5e}");
        let (digits, exponent) = shown.split_once('e').unwrap_or((&shown, "0"));
        let digits = digits.trim_end_matches('0').trim_end_matches('.');
        let exponent: i32 = exponent.parse().unwrap_or(0);
        format!("{digits}e{}{:03}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
    }
}

/// `AB12`.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// A stored value as a test reads it; `None` is NULL.
pub(super) fn shown(value: ValueRef<'_>, ty: &Ty) -> Option<String> {
    match value {
        ValueRef::Null => None,
        _ if ty.is_text() => Some(text(value).to_owned()),
        ValueRef::Real(number) => Some(number.to_string()),
        _ if ty.is_binary() => Some(format!("0x{}", hex(bytes(value)))),
        _ if matches!(ty, Ty::Money | Ty::SmallMoney) => format(value, ty, &Ty::VarChar(None), 2).ok(),
        _ if ty.is_moment() && !matches!(ty, Ty::Date | Ty::Time(_)) => format(value, ty, &Ty::VarChar(None), 121).ok(),
        _ => format(value, ty, &Ty::VarChar(None), 0).ok(),
    }
}

/// Converts what an INSERT or UPDATE stores: text that does not fit is an error there. `place`: the table and the column, as
/// `db.dbo.t|c`.
pub(super) fn assign(value: ValueRef<'_>, from: &Ty, to: &Ty, place: &str) -> Sql<Value> {
    let by_word_only = from.is_text() && to.is_binary()
        || from.is_binary() && matches!(to, Ty::Float | Ty::Real)
        || from.is_moment() && (to.is_number() || to.is_binary())
        || from.is_number()
            && matches!(to, Ty::Date | Ty::Time(_) | Ty::DateTime2(_) | Ty::DateTimeOffset(_) | Ty::Guid);
    if by_word_only && value != ValueRef::Null {
        return Err(SqlError::of(
            257,
            format!(
                "Implicit conversion from data type {} to {} is not allowed. Use the CONVERT function to run this query.",
                from.name(),
                to.name()
            ),
        ));
    }
    if let Some(length) = to.length() {
        let length = usize::from(length);
        let refuse = |shown: String| {
            let (table, column) = place.split_once('|').unwrap_or((place, ""));
            SqlError::of(
                2628,
                format!(
                    "String or binary data would be truncated in table '{table}', column '{column}'. Truncated value: '{shown}'."
                ),
            )
        };
        let national = to.is_national();
        match value {
            ValueRef::Text(_) if to.is_text() => {
                let whole = text(value);
                // Blanks at the end go without a word.
                if whole.len() > length && units(whole.trim_end_matches(' '), national) > length {
                    return Err(refuse(cut(whole, length, national).to_owned()));
                }
            }
            ValueRef::Blob(bytes) if to.is_binary() && from.is_binary() && bytes.len() > length => {
                return Err(refuse(hex(&bytes[..length])));
            }
            _ => {}
        }
    }
    if from == to && !matches!(to, Ty::Char(_) | Ty::NChar(_) | Ty::Binary(_)) {
        return Ok(owned(value));
    }
    convert(value, from, to, 0)
}
