//! What T-SQL has and SQLite has not: functions and collations that every connection of the store knows.

use std::{
    cmp::Ordering,
    sync::{Arc, atomic::AtomicBool},
};

use rusqlite::{
    Connection,
    functions::{Aggregate, Context, FunctionFlags},
    types::{Value, ValueRef},
};

use super::{
    Shared, calendar,
    convert::{assign, convert, cut, float, stored, units},
    decimal,
    error::{Sql, SqlError},
    types::Ty,
};

/// What is turned off and on for a session.
#[derive(Debug, Default)]
pub(super) struct Flags {
    /// A bulk load without CHECK_CONSTRAINTS runs.
    pub unchecked: AtomicBool,
}

type Result<T> = rusqlite::Result<T>;

fn text<'a>(context: &'a Context<'_>, at: usize) -> Option<&'a str> {
    match context.get_raw(at) {
        ValueRef::Text(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}

fn int(context: &Context<'_>, at: usize) -> Option<i64> {
    match context.get_raw(at) {
        ValueRef::Integer(n) => Some(n),
        _ => None,
    }
}

fn ty(context: &Context<'_>, at: usize) -> Ty {
    Ty::from_code(int(context, at).unwrap_or(0))
}

/// Case folded, blanks at the end ignored.
fn compare_insensitive(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_end_matches(' '), b.trim_end_matches(' '));
    if a.is_ascii() && b.is_ascii() {
        let (a, b) = (a.bytes().map(|byte| byte.to_ascii_lowercase()), b.bytes().map(|byte| byte.to_ascii_lowercase()));
        return a.cmp(b);
    }
    a.chars().flat_map(char::to_lowercase).cmp(b.chars().flat_map(char::to_lowercase))
}

/// Teaches a connection everything.
pub(super) fn register(conn: &Connection, shared: &Arc<Shared>, flags: &Arc<Flags>) -> Result<()> {
    conn.create_collation("TSQL_CI", compare_insensitive)?;
    conn.create_collation("TSQL_CS", |a: &str, b: &str| {
        compare_insensitive(a, b).then_with(|| b.trim_end_matches(' ').cmp(a.trim_end_matches(' ')))
    })?;
    let pure = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    let impure = FunctionFlags::SQLITE_UTF8;
    conn.create_scalar_function("t_conv", 4, pure, |c| {
        Ok(convert(c.get_raw(0), &ty(c, 1), &ty(c, 2), int(c, 3).unwrap_or(0))?)
    })?;
    conn.create_scalar_function("t_try", 4, pure, |c| {
        match convert(c.get_raw(0), &ty(c, 1), &ty(c, 2), int(c, 3).unwrap_or(0)) {
            // What no conversion can do is an error all the same.
            Err(error) if [102, 206, 529].contains(&error.number) => Err(error.into()),
            made => Ok(made.unwrap_or(Value::Null)),
        }
    })?;
    conn.create_scalar_function("t_store", 4, pure, |c| {
        Ok(assign(c.get_raw(0), &ty(c, 1), &ty(c, 2), text(c, 3).unwrap_or_default())?)
    })?;
    conn.create_scalar_function("t_raise", 2, impure, |c| -> Result<Value> {
        let number = int(c, 0).and_then(|n| i32::try_from(n).ok()).unwrap_or(50_000);
        Err(SqlError::of(number, text(c, 1).unwrap_or_default()).into())
    })?;
    conn.create_scalar_function("t_math", 6, pure, math)?;
    conn.create_scalar_function("t_number", 4, pure, number)?;
    let checked = Arc::clone(flags);
    conn.create_scalar_function("t_checked", 0, impure, move |_| {
        Ok(!checked.unchecked.load(std::sync::atomic::Ordering::Relaxed))
    })?;
    let identities = Arc::clone(shared);
    conn.create_scalar_function(
        "t_identity",
        1,
        impure,
        move |c| Ok(identities.next_identity(int(c, 0).unwrap_or(0))),
    )?;
    let versions = Arc::clone(shared);
    conn.create_scalar_function("t_rowversion", 0, impure, move |_| {
        Ok(versions.next_version.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_be_bytes().to_vec())
    })?;
    // As one session writes at a time, whatever can be read lies before this.
    let versions = Arc::clone(shared);
    conn.create_scalar_function("t_active_rowversion", 0, impure, move |_| {
        Ok(versions.next_version.load(std::sync::atomic::Ordering::Relaxed).to_be_bytes().to_vec())
    })?;
    conn.create_scalar_function("t_newid", 0, impure, |_| {
        // Version 4, from the system's random numbers by way of the hasher's keys.
        let mut bytes = [0_u8; 16];
        for half in bytes.chunks_mut(8) {
            half.copy_from_slice(&random().to_le_bytes());
        }
        bytes[8] = bytes[8] & 0x0f | 0x40;
        Ok(bytes.to_vec())
    })?;
    conn.create_scalar_function("t_rand", 0, impure, |_| {
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let value = (random() >> 11) as f64 / (1_u64 << 53) as f64;
        Ok(value)
    })?;
    conn.create_aggregate_function("t_sum_decimal", 3, pure, SumDecimal)?;
    texts(conn, pure)?;
    moments(conn, pure)
}

fn random() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    RandomState::new().build_hasher().finish()
}

fn texts(conn: &Connection, pure: FunctionFlags) -> Result<()> {
    conn.create_scalar_function("t_len", 1, pure, |c| {
        Ok(text(c, 0).map(|text| i64::try_from(units(text.trim_end_matches(' '), true)).unwrap_or(0)))
    })?;
    conn.create_scalar_function("t_datalength", 2, pure, |c| {
        let of = ty(c, 1);
        let bytes = match c.get_raw(0) {
            ValueRef::Null => return Ok(None),
            ValueRef::Text(_) => {
                let text = text(c, 0).unwrap_or_default();
                if of.is_national() { units(text, true) * 2 } else { units(text, false) }
            }
            ValueRef::Blob(bytes) if of.is_binary() => bytes.len(),
            _ => usize::try_from(of.catalog().0).unwrap_or(0),
        };
        Ok(Some(i64::try_from(bytes).unwrap_or(0)))
    })?;
    conn.create_scalar_function("t_substring", 3, pure, |c| {
        let (Some(start), Some(length)) = (int(c, 1), int(c, 2)) else { return Ok(Value::Null) };
        if length < 0 {
            return Err(SqlError::of(537, "Invalid length parameter passed to the LEFT or SUBSTRING function.").into());
        }
        let end = start.saturating_add(length).max(1);
        let index = |n: i64| usize::try_from(n.max(1) - 1).unwrap_or(0);
        let (from, to) = (index(start), index(end));
        Ok(match c.get_raw(0) {
            ValueRef::Blob(bytes) => Value::Blob(bytes[from.min(bytes.len())..to.min(bytes.len())].to_vec()),
            ValueRef::Text(_) => {
                let text = text(c, 0).unwrap_or_default();
                let (skip, whole) = (cut(text, from, true).len(), cut(text, to, true).len());
                Value::Text(text[skip..whole.max(skip)].to_owned())
            }
            _ => Value::Null,
        })
    })?;
    conn.create_scalar_function("t_right", 2, pure, |c| {
        let (Some(text), Some(n)) = (text(c, 0), int(c, 1)) else { return Ok(None) };
        let n = usize::try_from(n)
            .map_err(|_| SqlError::of(536, "Invalid length parameter passed to the RIGHT function."))?;
        let skip = units(text, true).saturating_sub(n);
        Ok(Some(text[cut(text, skip, true).len()..].to_owned()))
    })?;
    conn.create_scalar_function("t_charindex", 3, pure, |c| {
        let (Some(what), Some(text), Some(start)) = (text(c, 0), text(c, 1), int(c, 2)) else { return Ok(None) };
        let skip = cut(text, usize::try_from(start.max(1) - 1).unwrap_or(0), true).len();
        let (hay, what) = (text[skip..].to_lowercase(), what.to_lowercase());
        if what.is_empty() {
            return Ok(Some(0));
        }
        let found = hay.find(&what).map(|at| units(&text[..skip], true) + units(&hay[..at], true) + 1);
        Ok(Some(found.and_then(|at| i64::try_from(at).ok()).unwrap_or(0)))
    })?;
    conn.create_scalar_function("t_replace", 3, pure, |c| {
        let (Some(text), Some(what), Some(with)) = (text(c, 0), text(c, 1), text(c, 2)) else { return Ok(None) };
        if what.is_empty() {
            return Ok(Some(text.to_owned()));
        }
        let same = |rest: &str| {
            let head: String = rest.chars().take(what.chars().count()).collect();
            (head.to_lowercase() == what.to_lowercase()).then_some(head.len())
        };
        let (mut out, mut at) = (String::new(), 0);
        while at < text.len() {
            if let Some(length) = same(&text[at..]) {
                out.push_str(with);
                at += length;
            } else if let Some(char) = text[at..].chars().next() {
                out.push(char);
                at += char.len_utf8();
            }
        }
        Ok(Some(out))
    })?;
    conn.create_scalar_function("t_text", 2, pure, |c| {
        let (Some(what), Some(text)) = (text(c, 0), text(c, 1)) else { return Ok(None) };
        Ok(Some(match what {
            "UPPER" => text.to_uppercase(),
            "LOWER" => text.to_lowercase(),
            "LTRIM" => text.trim_start_matches(' ').to_owned(),
            "RTRIM" => text.trim_end_matches(' ').to_owned(),
            "REVERSE" => text.chars().rev().collect(),
            _ => text.trim_matches(' ').to_owned(),
        }))
    })?;
    conn.create_scalar_function("t_replicate", 2, pure, |c| {
        let (Some(text), Some(n)) = (text(c, 0), int(c, 1)) else { return Ok(None) };
        let Ok(n) = usize::try_from(n) else { return Ok(None) };
        if text.len().saturating_mul(n) > 64 << 20 {
            return Err(SqlError::overflow("varchar").into());
        }
        Ok(Some(text.repeat(n)))
    })?;
    conn.create_scalar_function("t_like", 4, pure, |c| {
        let (Some(value), Some(pattern)) = (text(c, 0), text(c, 1)) else { return Ok(None) };
        let fold = |text: &str| -> Vec<char> {
            if int(c, 3) == Some(1) { text.to_lowercase().chars().collect() } else { text.chars().collect() }
        };
        let escape = text(c, 2).and_then(|escape| escape.chars().next());
        Ok(Some(like(&fold(value), &fold(pattern), escape)))
    })?;
    conn.create_scalar_function("t_hash", 3, pure, |c| {
        use sha2::Digest as _;
        let Some(algorithm) = text(c, 0) else { return Ok(None) };
        let Value::Blob(bytes) = convert(c.get_raw(1), &ty(c, 2), &Ty::VarBinary(None), 0)? else { return Ok(None) };
        Ok(Some(match algorithm.to_ascii_uppercase().as_str() {
            "MD5" => md5::Md5::digest(&bytes).to_vec(),
            "SHA2_256" => sha2::Sha256::digest(&bytes).to_vec(),
            "SHA2_512" => sha2::Sha512::digest(&bytes).to_vec(),
            other => return Err(SqlError::unsupported(&format!("HASHBYTES {other}")).into()),
        }))
    })
}

/// LIKE with `%`, `_`, `[a-z]` and `[^a]`.
fn like(value: &[char], pattern: &[char], escape: Option<char>) -> bool {
    let Some((first, rest)) = pattern.split_first() else { return value.iter().all(|char| *char == ' ') };
    match first {
        char if Some(*char) == escape && !rest.is_empty() => {
            value.first() == rest.first() && like(&value[1..], &rest[1..], escape)
        }
        '%' => (0..=value.len()).any(|skip| like(&value[skip..], rest, escape)),
        '_' => !value.is_empty() && like(&value[1..], rest, escape),
        '[' if rest.contains(&']') => {
            let end = rest.iter().position(|char| *char == ']').unwrap_or(0);
            let (negated, set) = match &rest[..end] {
                ['^', set @ ..] => (true, set),
                set => (false, set),
            };
            let Some(char) = value.first() else { return false };
            let mut at = 0;
            let mut found = false;
            while at < set.len() {
                if at + 2 < set.len() && set[at + 1] == '-' {
                    found |= (set[at]..=set[at + 2]).contains(char);
                    at += 3;
                } else {
                    found |= set[at] == *char;
                    at += 1;
                }
            }
            found != negated && like(&value[1..], &rest[end + 1..], escape)
        }
        char => value.first() == Some(char) && like(&value[1..], rest, escape),
    }
}

fn math(c: &Context<'_>) -> Result<Value> {
    let (a, b) = (c.get_raw(1), c.get_raw(3));
    if a == ValueRef::Null || b == ValueRef::Null {
        return Ok(Value::Null);
    }
    Ok(compute(text(c, 0).unwrap_or_default(), (a, &ty(c, 2)), (b, &ty(c, 4)), &ty(c, 5))?)
}

fn compute(op: &str, (a, from_a): (ValueRef<'_>, &Ty), (b, from_b): (ValueRef<'_>, &Ty), to: &Ty) -> Sql<Value> {
    let zero = || SqlError::of(8134, "Divide by zero error encountered.");
    let overflow = || SqlError::overflow(if matches!(to, Ty::Decimal { .. }) { "numeric" } else { to.name() });
    if matches!(to, Ty::Float | Ty::Real) {
        let (a, b) = (float(a, from_a), float(b, from_b));
        let made = match op {
            "+" => a + b,
            "-" => a - b,
            "*" => a * b,
            "/" if b == 0.0 => return Err(zero()),
            "/" => a / b,
            _ => {
                return Err(SqlError::of(
                    402,
                    "The data types float and float are incompatible in the modulo operator.",
                ));
            }
        };
        return if made.is_finite() { Ok(Value::Real(made)) } else { Err(overflow()) };
    }
    let exact = |value: ValueRef<'_>, from: &Ty| -> Sql<(i128, u8)> {
        let scale = from.precision().1;
        match convert(value, from, &Ty::decimal(38, scale), 0)? {
            Value::Blob(bytes) => Ok((decimal::from_bytes(&bytes).unwrap_or(0), scale)),
            _ => Ok((0, 0)),
        }
    };
    let ((a, s), (b, t)) = (exact(a, from_a)?, exact(b, from_b)?);
    let scale = match to {
        Ty::Decimal { s, .. } => *s,
        Ty::Money | Ty::SmallMoney => 4,
        _ => 0,
    };
    let common = s.max(t);
    let both = || Some((decimal::rescale(a, s, common)?, decimal::rescale(b, t, common)?));
    let made = match op {
        "*" => a.checked_mul(b).and_then(|product| decimal::rescale(product, s + t, scale)),
        "/" | "%" if b == 0 => return Err(zero()),
        "/" if to.is_integer() => Some(a / b),
        // One digit more than is kept, cut off there, as the server does.
        "/" => {
            let up = scale + t;
            let raised = if up >= s { decimal::rescale(a, s, up) } else { Some(a / decimal::pow10(s - up)) };
            raised.map(|raised| raised / b)
        }
        "%" => both().and_then(|(a, b)| decimal::rescale(a % b, common, scale)),
        "+" => both().and_then(|(a, b)| a.checked_add(b)).and_then(|sum| decimal::rescale(sum, common, scale)),
        _ => both().and_then(|(a, b)| a.checked_sub(b)).and_then(|sum| decimal::rescale(sum, common, scale)),
    };
    let made = made.ok_or_else(overflow)?;
    if let Ty::Decimal { p, .. } = to {
        return if decimal::digits(made) <= *p { Ok(stored(made)) } else { Err(overflow()) };
    }
    let (low, high): (i128, i128) = match to {
        Ty::TinyInt => (0, 255),
        Ty::SmallInt => (i16::MIN.into(), i16::MAX.into()),
        Ty::Int | Ty::SmallMoney => (i32::MIN.into(), i32::MAX.into()),
        _ => (i64::MIN.into(), i64::MAX.into()),
    };
    match i64::try_from(made) {
        Ok(fits) if (low..=high).contains(&made) => Ok(Value::Integer(fits)),
        _ => Err(overflow()),
    }
}

/// ABS, SIGN, CEILING, FLOOR, ROUND.
fn number(c: &Context<'_>) -> Result<Value> {
    let (what, value, of) = (text(c, 0).unwrap_or_default(), c.get_raw(1), ty(c, 2));
    let places = int(c, 3).unwrap_or(0);
    Ok(match value {
        ValueRef::Null => Value::Null,
        ValueRef::Real(n) => Value::Real(match what {
            "ABS" => n.abs(),
            "SIGN" => {
                if n == 0.0 {
                    0.0
                } else {
                    n.signum()
                }
            }
            "CEILING" => n.ceil(),
            "FLOOR" => n.floor(),
            _ => {
                let factor = 10_f64.powi(i32::try_from(places).unwrap_or(0));
                (n * factor).round() / factor
            }
        }),
        _ => {
            let scale = of.precision().1;
            let Value::Blob(bytes) = convert(value, &of, &Ty::decimal(38, scale), 0)? else { return Ok(Value::Null) };
            let n = decimal::from_bytes(&bytes).unwrap_or(0);
            let one = decimal::pow10(scale);
            let made = match what {
                "ABS" => n.abs(),
                "SIGN" => n.signum() * one,
                "CEILING" => n.div_euclid(one) * one + if n.rem_euclid(one) > 0 { one } else { 0 },
                "FLOOR" => n.div_euclid(one) * one,
                _ => {
                    let drop = u8::try_from(i64::from(scale) - places).unwrap_or(0).min(38);
                    decimal::divide_rounded(n, decimal::pow10(drop)) * decimal::pow10(drop)
                }
            };
            convert(ValueRef::Blob(&decimal::to_bytes(made)), &Ty::decimal(38, scale), &of, 0)?
        }
    })
}

/// SUM and AVG of decimals: the second argument is one more than the scale of an average, 0 for a sum; the third the scale.
struct SumDecimal;

#[derive(Default)]
struct Sum {
    sum: i128,
    count: i64,
    average: i64,
    scale: u8,
    overflow: bool,
}

impl Aggregate<Sum, Value> for SumDecimal {
    fn init(&self, _: &mut Context<'_>) -> Result<Sum> {
        Ok(Sum::default())
    }
    fn step(&self, c: &mut Context<'_>, sum: &mut Sum) -> Result<()> {
        if let ValueRef::Blob(bytes) = c.get_raw(0) {
            let (total, overflow) = sum.sum.overflowing_add(decimal::from_bytes(bytes).unwrap_or(0));
            (sum.sum, sum.count) = (total, sum.count + 1);
            sum.overflow |= overflow;
            sum.average = int(c, 1).unwrap_or(0);
            sum.scale = u8::try_from(int(c, 2).unwrap_or(0)).unwrap_or(0);
        }
        Ok(())
    }
    fn finalize(&self, _: &mut Context<'_>, sum: Option<Sum>) -> Result<Value> {
        let Some(sum) = sum.filter(|sum| sum.count > 0) else { return Ok(Value::Null) };
        let overflow = || SqlError::overflow("numeric");
        if sum.overflow || decimal::digits(sum.sum) > 38 {
            return Err(overflow().into());
        }
        if sum.average == 0 {
            return Ok(stored(sum.sum));
        }
        let scale = u8::try_from(sum.average - 1).unwrap_or(6);
        let raised = decimal::rescale(sum.sum, sum.scale, scale).ok_or_else(overflow)?;
        Ok(stored(raised / i128::from(sum.count)))
    }
}

fn moments(conn: &Connection, pure: FunctionFlags) -> Result<()> {
    conn.create_scalar_function("t_datepart", 2, pure, |c| {
        let (Some(part), Some(ticks)) = (text(c, 0), int(c, 1)) else { return Ok(None) };
        Ok(Some(date_part(part, ticks)))
    })?;
    conn.create_scalar_function("t_datename", 2, pure, |c| {
        const MONTHS: [&str; 12] = [
            "January",
            "February",
            "March",
            "April",
            "May",
            "June",
            "July",
            "August",
            "September",
            "October",
            "November",
            "December",
        ];
        const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
        let (Some(part), Some(ticks)) = (text(c, 0), int(c, 1)) else { return Ok(None) };
        let value = date_part(part, ticks);
        let of = |names: &[&str]| {
            usize::try_from(value - 1).ok().and_then(|at| names.get(at).map(|name| (*name).to_owned()))
        };
        Ok(match part {
            "month" => of(&MONTHS),
            "weekday" => of(&DAYS),
            _ => Some(value.to_string()),
        })
    })?;
    conn.create_scalar_function("t_datediff", 4, pure, |c| {
        let (Some(part), Some(a), Some(b)) = (text(c, 0), int(c, 1), int(c, 2)) else { return Ok(None) };
        let count = boundaries(part, b) - boundaries(part, a);
        if ty(c, 3) == Ty::Int && i32::try_from(count).is_err() {
            return Err(SqlError::of(
                535,
                "The datediff function resulted in an overflow. The number of dateparts separating two date/time instances is too large. \
                 Try to use datediff with a less precise datepart.",
            )
            .into());
        }
        Ok(Some(count))
    })?;
    conn.create_scalar_function("t_dateadd", 4, pure, |c| {
        let (Some(part), Some(n)) = (text(c, 0), int(c, 1)) else { return Ok(Value::Null) };
        let of = ty(c, 3);
        let (ticks, offset) = match c.get_raw(2) {
            ValueRef::Integer(ticks) => (ticks, None),
            ValueRef::Blob(bytes) => {
                let (ticks, offset) = super::values::from_offset_bytes(bytes);
                (ticks, Some(offset))
            }
            _ => return Ok(Value::Null),
        };
        let overflow = || SqlError::of(517, format!("Adding a value to a '{}' column caused an overflow.", of.name()));
        let moved = add(part, n, ticks).ok_or_else(overflow)?;
        let moved = if matches!(of, Ty::Time(_)) { moved.rem_euclid(calendar::DAY) } else { moved };
        let low = if of == Ty::DateTime { calendar::DAYS_1753 * calendar::DAY } else { 0 };
        if moved < low || moved >= calendar::DAYS_END * calendar::DAY {
            return Err(overflow().into());
        }
        let moved = if of == Ty::DateTime { calendar::round_datetime(moved) } else { moved };
        Ok(match offset {
            None => Value::Integer(moved),
            Some(offset) => Value::Blob(super::values::offset_bytes(moved, offset).to_vec()),
        })
    })
}

fn date_part(part: &str, ticks: i64) -> i64 {
    let (days, time) = (ticks.div_euclid(calendar::DAY), ticks.rem_euclid(calendar::DAY));
    let (year, month, day) = calendar::civil(days);
    let first = calendar::days_of(year, 1, 1).unwrap_or(0);
    match part {
        "year" => year,
        "quarter" => (month + 2) / 3,
        "month" => month,
        "dayofyear" => days - first + 1,
        "day" => day,
        // 0001-01-01 was a Monday; weeks begin on Sunday.
        "weekday" => (days + 1) % 7 + 1,
        "week" => (days - first + (first + 1) % 7) / 7 + 1,
        "hour" => time / calendar::SECOND / 3600,
        "minute" => time / calendar::SECOND / 60 % 60,
        "second" => time / calendar::SECOND % 60,
        "millisecond" => time / 10_000 % 1000,
        "microsecond" => time / 10 % 1_000_000,
        _ => time % calendar::SECOND * 100,
    }
}

/// How many boundaries of a part lie before a moment.
fn boundaries(part: &str, ticks: i64) -> i64 {
    let days = ticks.div_euclid(calendar::DAY);
    let (year, month, _) = calendar::civil(days);
    match part {
        "year" => year,
        "quarter" => year * 4 + (month - 1) / 3,
        "month" => year * 12 + month,
        "week" => (days + 1).div_euclid(7),
        "hour" => ticks.div_euclid(3600 * calendar::SECOND),
        "minute" => ticks.div_euclid(60 * calendar::SECOND),
        "second" => ticks.div_euclid(calendar::SECOND),
        "millisecond" => ticks.div_euclid(10_000),
        "microsecond" => ticks.div_euclid(10),
        "nanosecond" => ticks.saturating_mul(100),
        _ => days,
    }
}

fn add(part: &str, n: i64, ticks: i64) -> Option<i64> {
    let unit = match part {
        "year" | "quarter" | "month" => {
            let months = n.checked_mul(match part {
                "year" => 12,
                "quarter" => 3,
                _ => 1,
            })?;
            let (days, time) = (ticks.div_euclid(calendar::DAY), ticks.rem_euclid(calendar::DAY));
            let (year, month, day) = calendar::civil(days);
            let count = (year * 12 + month - 1).checked_add(months)?;
            let (year, month) = (count.div_euclid(12), count.rem_euclid(12) + 1);
            let day = day.min(calendar::days_in_month(year, month));
            return calendar::days_of(year, month, day).map(|days| days * calendar::DAY + time);
        }
        "week" => 7 * calendar::DAY,
        "hour" => 3600 * calendar::SECOND,
        "minute" => 60 * calendar::SECOND,
        "second" => calendar::SECOND,
        "millisecond" => 10_000,
        "microsecond" => 10,
        "nanosecond" => return ticks.checked_add(n / 100),
        _ => calendar::DAY,
    };
    ticks.checked_add(n.checked_mul(unit)?)
}
