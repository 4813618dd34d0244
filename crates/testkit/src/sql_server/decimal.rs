//! Exact decimals: a scaled `i128` (38 digits fit), stored as sixteen bytes that sort as the numbers do.

/// Ten to the power of `n`, up to 38.
pub(crate) fn pow10(n: u8) -> i128 {
    10_i128.pow(u32::from(n.min(38)))
}

/// Sixteen bytes whose order is the numbers' order, of one scale: big-endian with the sign flipped.
pub(crate) fn to_bytes(value: i128) -> [u8; 16] {
    (value ^ i128::MIN).to_be_bytes()
}

/// The reverse; nothing if it is not sixteen bytes.
pub(crate) fn from_bytes(bytes: &[u8]) -> Option<i128> {
    Some(i128::from_be_bytes(bytes.try_into().ok()?) ^ i128::MIN)
}

/// How many digits a number has.
pub(crate) fn digits(value: i128) -> u8 {
    let mut left = value.unsigned_abs();
    let mut count = 0;
    while left > 0 {
        left /= 10;
        count += 1;
    }
    count
}

/// To another scale, rounded half away from zero; nothing if it does not fit.
pub(crate) fn rescale(value: i128, from: u8, to: u8) -> Option<i128> {
    if to >= from {
        return value.checked_mul(pow10(to - from));
    }
    Some(divide_rounded(value, pow10(from - to)))
}

/// Division rounded half away from zero; the divisor is positive.
pub(crate) fn divide_rounded(value: i128, by: i128) -> i128 {
    let (quotient, rest) = (value / by, value % by);
    if rest.abs() >= by - rest.abs() { quotient + rest.signum() } else { quotient }
}

/// `12.50`, of its scale.
pub(crate) fn format(value: i128, scale: u8) -> String {
    let digits = value.unsigned_abs().to_string();
    let sign = if value < 0 { "-" } else { "" };
    let scale = usize::from(scale);
    if scale == 0 {
        return format!("{sign}{digits}");
    }
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!("{sign}{whole}.{fraction}")
}

/// Why text is no decimal of a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    NotANumber,
    TooBig,
}

/// Reads `-12.5`, `.5`, `5.`, blanks around; rounded to the scale.
pub(crate) fn parse(text: &str, scale: u8) -> Result<i128, Refused> {
    let text = text.trim_matches(' ');
    let (negative, rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (whole, fraction) = rest.split_once('.').unwrap_or((rest, ""));
    if whole.is_empty() && fraction.is_empty() {
        return Err(Refused::NotANumber);
    }
    let mut value: i128 = 0;
    let wanted = usize::from(scale);
    let kept = fraction.bytes().chain(std::iter::repeat(b'0')).take(wanted);
    if !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return Err(Refused::NotANumber);
    }
    for digit in whole.bytes().chain(kept) {
        let next = value.checked_mul(10).and_then(|value| value.checked_add(i128::from(digit - b'0')));
        value = next.ok_or(Refused::TooBig)?;
    }
    if fraction.as_bytes().get(wanted).is_some_and(|digit| *digit >= b'5') {
        value = value.checked_add(1).ok_or(Refused::TooBig)?;
    }
    Ok(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_to_decimal_and_back() {
        let cases = [
            ("12.5", 2, Ok("12.50")),
            ("-0.005", 2, Ok("-0.01")),
            (" 7. ", 0, Ok("7")),
            (".5", 1, Ok("0.5")),
            ("1e5", 2, Err(Refused::NotANumber)),
            ("", 2, Err(Refused::NotANumber)),
            ("-", 2, Err(Refused::NotANumber)),
            ("99999999999999999999999999999999999999999", 0, Err(Refused::TooBig)),
        ];
        for (text, scale, expect) in cases {
            assert_eq!(parse(text, scale).map(|value| format(value, scale)), expect.map(str::to_owned), "{text}");
        }
        assert_eq!(rescale(125, 2, 1), Some(13));
        assert_eq!(rescale(-125, 2, 1), Some(-13));
    }

    proptest! {
        #[test]
        fn bytes_sort_as_numbers(a: i128, b: i128) {
            prop_assert_eq!(to_bytes(a).cmp(&to_bytes(b)), a.cmp(&b));
            prop_assert_eq!(from_bytes(&to_bytes(a)), Some(a));
        }
    }
}
