//! Durations, sizes and shares, written with their unit: `30s`, `64MiB`, `30%`.

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A duration such as `250ms`, `30s`, `5m`, `1h30m`, `7d`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(pub Duration);

/// A number of bytes such as `512B`, `64KiB`, `16MiB`, `1GiB`, `10MB`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

/// A share of a whole such as `30%` or `0.5%`; above 0, at most 100 %.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
pub struct Share(pub f64);

impl Period {
    /// So many seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

/// Splits `90min` into `90` and `min`.
fn number_and_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

impl FromStr for Period {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a duration; write one like 250ms, 30s, 5m, 1h30m or 7d");
        let (mut rest, mut total) = (text.trim(), 0u64);
        if rest.is_empty() {
            return Err(wrong());
        }
        while !rest.is_empty() {
            let (number, after) = number_and_unit(rest);
            let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
            let millis: u64 = match &after[..end] {
                "ms" => 1,
                "s" => 1000,
                "m" | "min" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return Err(wrong()),
            };
            let number: u64 = number.parse().map_err(|_| wrong())?;
            total = number.checked_mul(millis).and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
            rest = after[end..].trim_start();
        }
        Ok(Self(Duration::from_millis(total)))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = self.0.as_millis();
        if millis == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
            if millis >= size {
                write!(f, "{}{unit}", millis / size)?;
                millis %= size;
            }
        }
        Ok(())
    }
}

impl FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a size; write one like 512B, 64KiB, 16MiB or 1GiB");
        let (number, unit) = number_and_unit(text.trim());
        let factor: u64 = match unit {
            "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "kB" | "KB" => 1000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(factor).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, size) in [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
            if self.0 >= size && self.0.is_multiple_of(size) {
                return write!(f, "{}{unit}", self.0 / size);
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl FromStr for Share {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a share; write one like 30% (above 0%, at most 100%)");
        let percent: f64 = text.trim().strip_suffix('%').ok_or_else(wrong)?.trim().parse().map_err(|_| wrong())?;
        if percent > 0.0 && percent <= 100.0 { Ok(Self(percent / 100.0)) } else { Err(wrong()) }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Rounded, or 0.07 would come back as 7.000000000000001%.
        write!(f, "{}%", (self.0 * 1e8).round() / 1e6)
    }
}

/// The three units share everything but their syntax.
macro_rules! unit {
    ($name:ident, $pattern:literal, $example:literal) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "examples": [$example] })
            }
        }
    };
}
unit!(Period, r"^\s*([0-9]+\s*(ms|s|m|min|h|d)\s*)+$", "30s");
unit!(Size, r"^\s*[0-9]+\s*(B|KiB|MiB|GiB|kB|KB|MB|GB)\s*$", "16MiB");
unit!(Share, r"^\s*[0-9]+(\.[0-9]+)?\s*%$", "30%");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_parse_print_and_refuse() {
        for (text, seconds) in [("30s", 30.0), ("250ms", 0.25), ("1h30m", 5400.0), ("7d", 604_800.0), ("5 min", 300.0)]
        {
            let period: Period = text.parse().unwrap();
            assert_eq!(period.0.as_secs_f64(), seconds, "{text}");
            assert_eq!(period.to_string().parse::<Period>().unwrap(), period, "{text}");
        }
        for (text, bytes) in [("512B", 512), ("64KiB", 65536), ("16MiB", 16 << 20), ("10MB", 10_000_000)] {
            assert_eq!(text.parse::<Size>().unwrap().0, bytes, "{text}");
        }
        assert_eq!("7%".parse::<Share>().unwrap().to_string(), "7%");
        for wrong in ["", "30", "s", "-1s", "1y", "1.5h", "99999999999999999999s"] {
            assert!(wrong.parse::<Period>().is_err(), "{wrong}");
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
        for wrong in ["0%", "101%", "30", "x%"] {
            assert!(wrong.parse::<Share>().is_err(), "{wrong}");
        }
    }
}
