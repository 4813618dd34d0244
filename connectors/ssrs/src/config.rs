//! What the config file says of a report. These comments are the only documentation of the fields.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use jiff::{
    ToSpan,
    civil::{DateTime, date},
    fmt::strtime::BrokenDownTime,
    tz::TimeZone,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;
use towpath_core::{Error, Period, Result};
use towpath_formats::csv::CsvOptions;
use towpath_http::{HttpOptions, Url};

use crate::windows::Grid;

/// Options of the `ssrs` source.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SsrsOptions {
    /// The report server's web service: `https://reports.example/ReportServer` (not the portal, which ends in `/Reports`).
    #[schemars(with = "String")]
    pub url: Url,
    /// The report's path, as the portal shows it: `/Manufacturing/Production log`. Not needed for `discover`, which then lists
    /// reports.
    #[serde(default)]
    pub report: String,
    /// Parameters by name; upper and lower case differ. A value; `null`; a list of values; or `all` for every value the server
    /// allows, asked for in each run. A value that is the word `all` itself: `[all]`. Those left out keep the report's default.
    #[serde(default)]
    pub parameters: BTreeMap<String, Given>,
    /// Fetch the report in windows of time, one request each. Default: the whole report in one request, in each run.
    #[serde(default)]
    pub window: Option<WindowOptions>,
    /// The language in which the server reads dates and numbers given as parameters. Default: en-US
    #[serde(default = "english")]
    pub parameter_language: String,
    /// The name of the server's CSV renderer. Default: CSV
    #[serde(default = "csv_format")]
    pub format: String,
    /// Further settings of the renderer, without their `rc:`, such as `UseFormattedValues: "false"`. `ExcelMode` is always off: it
    /// would put several tables into one file and format the numbers.
    #[serde(default)]
    pub device: BTreeMap<String, String>,
    /// How long one request may take, from asking to the last byte; so long, too, the server counts as busy with it if our end is not seen. Default: 30m, the server's own limit
    #[serde(default = "half_an_hour")]
    pub deadline: Period,
    /// How to speak with the server.
    #[serde(flatten)]
    pub http: HttpOptions,
    /// How to read the CSV.
    #[serde(flatten)]
    pub csv: CsvOptions,
}

/// Windows of time on the wall clock of the report.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowOptions {
    /// How long a window is: at least an hour, and it must divide a day or be whole days. Aligned to midnight, weeks to Monday.
    pub size: Period,
    /// How far back windows that were read already are read once more, because rows come late. Needs a sink that knows rows again
    /// (not `append`). Default: 0s
    #[serde(default = "none")]
    pub lookback: Period,
    /// Where the first run begins, in wall clock time: `2026-01-01` or `2026-01-01T06:00`. Default: the newest complete window
    #[serde(default, deserialize_with = "wall_time")]
    #[schemars(with = "Option<String>")]
    pub start: Option<DateTime>,
    /// The time zone of the report's times: `Europe/Berlin`. Default: UTC
    #[serde(default = "utc")]
    pub timezone: String,
    /// The report's parameter that takes a window's beginning.
    pub start_parameter: String,
    /// The report's parameter that takes a window's end.
    pub end_parameter: String,
    /// Whether the report's query leaves out a row stamped exactly at the end (`< @To`: `exclusive`) or takes it (`<=`, `between`:
    /// `inclusive`; the end sent is then one `resolution` earlier). Default: exclusive
    #[serde(default)]
    pub end: End,
    /// The smallest step between two times of the report, for `end: inclusive`: `1s` for times without a fraction. `datetime` columns
    /// have steps of about 3ms, and round what lies between. Default: 1ms
    #[serde(default = "one_ms")]
    pub resolution: Period,
    /// How times are written into the parameters, as in strftime. Default: `%Y-%m-%dT%H:%M:%S%.f`
    #[serde(default = "iso")]
    pub format: String,
    /// Also read the window that is still running. It is not done by that: it is read again until it is complete. Needs a sink that
    /// knows rows again. Default: false
    #[serde(default)]
    pub include_current: bool,
    /// How many windows one run reads at the most, oldest first; the next run goes on. Default: no limit
    #[serde(default)]
    pub max_windows_per_run: Option<std::num::NonZeroU64>,
}

/// What a report does with a row stamped exactly at the end of what was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It leaves it out.
    #[default]
    Exclusive,
    /// It takes it.
    Inclusive,
}

/// What the config gives for a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// These values; several for a parameter that takes several.
    Values(Vec<String>),
    /// Null.
    Null,
    /// Every value the server allows.
    All,
}

/// Windows, checked.
#[derive(Clone, Debug)]
pub struct Windows {
    /// The grid.
    pub grid: Grid,
    /// The options.
    pub options: WindowOptions,
}

impl SsrsOptions {
    /// Checks what can be checked without the server.
    ///
    /// # Errors
    /// Config.
    pub fn check(&self) -> Result<Option<Windows>> {
        if !matches!(self.url.scheme(), "http" | "https") || !self.url.has_host() {
            return Err(Error::config("url is not one of a web service").hint("write https://server/ReportServer"));
        }
        if self.url.query().is_some() || self.url.fragment().is_some() {
            let hint = "write https://server/ReportServer, and the report's path and parameters under `report` and `parameters`";
            return Err(Error::config("url has more in it than the web service").hint(hint));
        }
        if !self.url.username().is_empty() || self.url.password().is_some() {
            return Err(Error::config("url has a name or password in it").hint("put them under `auth`"));
        }
        if !self.report.is_empty() && (!self.report.starts_with('/') || self.report.ends_with('/')) {
            let hint = "write it as the portal shows it, with its folders: /Sales/Orders";
            return Err(Error::config(format!("report is '{}', which is not a path", self.report)).hint(hint));
        }
        for name in self.parameters.keys().chain(self.device.keys()) {
            if name.is_empty() || name.contains([':', '=', '&']) {
                return Err(Error::config(format!("parameters: '{name}' is not the name of a parameter")));
            }
        }
        if self.device.keys().any(|name| name.eq_ignore_ascii_case("ExcelMode")) {
            return Err(Error::config("device.ExcelMode cannot be set: it is off, or the CSV would not be one table"));
        }
        self.window.clone().map(|options| options.check(&self.parameters)).transpose()
    }
}

impl WindowOptions {
    fn check(self, parameters: &BTreeMap<String, Given>) -> Result<Windows> {
        let zone = TimeZone::get(&self.timezone).map_err(|_| {
            let what = format!("window.timezone: there is no time zone '{}'", self.timezone);
            Error::config(what).hint("write it as the tz database does: Europe/Berlin, America/New_York, UTC")
        })?;
        let grid = Grid::new(self.size, zone)?;
        for name in [&self.start_parameter, &self.end_parameter] {
            if name.is_empty() || name.contains([':', '=', '&']) {
                return Err(Error::config(format!("window: '{name}' is not the name of a parameter")));
            }
            if parameters.contains_key(name) {
                let what = format!("parameters.{name} is set by the window");
                return Err(Error::config(what).hint(format!("take {name} out of `parameters`")));
            }
        }
        if self.start_parameter == self.end_parameter {
            let what = "window.start_parameter and window.end_parameter are the same";
            return Err(Error::config(what));
        }
        if self.resolution.0.is_zero() || self.resolution > self.size {
            return Err(Error::config("window.resolution must be more than nothing, and less than the window's size"));
        }
        if let Some(start) = self.start.filter(|start| grid.floor(*start) != *start) {
            let what = format!("window.start is {start}, which is not the beginning of a window of {}", self.size);
            return Err(Error::config(what).hint(format!("write {}", grid.floor(start))));
        }
        self.check_format(&grid)?;
        Ok(Windows { grid, options: self })
    }

    /// What is written must be readable as the time that was meant, or rows at the edges would be lost.
    fn check_format(&self, grid: &Grid) -> Result<()> {
        let day = date(2026, 11, 30);
        let mut at = grid.floor(day.at(0, 0, 0, 0));
        while at < day.at(23, 59, 59, 0) {
            let end = self.end_sent(at);
            for time in [at, end] {
                let text = self.written(time)?;
                let read = BrokenDownTime::parse(&self.format, &text).ok().and_then(|read| {
                    let time = read.to_time().unwrap_or_default();
                    Some(read.to_date().ok()?.to_datetime(time))
                });
                if read != Some(time) {
                    let what = format!("window.format writes {time} as '{text}', which is not the same time");
                    let hint =
                        "add what is missing (%H:%M:%S%.f), or set window.resolution to what the report's times have";
                    return Err(Error::config(what).hint(hint));
                }
            }
            let next = grid.next(at);
            if next <= at {
                break;
            }
            at = next;
        }
        Ok(())
    }

    /// A time as it is sent.
    ///
    /// # Errors
    /// Config, if the format cannot be written.
    pub fn written(&self, at: DateTime) -> Result<String> {
        jiff::fmt::strtime::format(&self.format, at).map_err(|error| {
            let what = format!("window.format '{}' cannot be written", self.format);
            Error::config(what).because(error).hint("write one like %Y-%m-%dT%H:%M:%S or %m/%d/%Y %H:%M")
        })
    }

    /// The end as it is sent.
    pub fn end_sent(&self, end: DateTime) -> DateTime {
        match self.end {
            End::Exclusive => end,
            End::Inclusive => {
                let nanos = i64::try_from(self.resolution.0.as_nanos()).unwrap_or(i64::MAX);
                end.saturating_sub(nanos.nanoseconds())
            }
        }
    }
}

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let scalar = |value: Value| match value {
            Value::String(text) => Ok(text),
            Value::Bool(on) => Ok(on.to_string()),
            Value::Number(number) => Ok(number.to_string()),
            _ => Err(D::Error::custom("a list holds values only: text, numbers, true, false")),
        };
        match Value::deserialize(deserializer)? {
            Value::Null => Ok(Self::Null),
            Value::String(text) if text == "all" => Ok(Self::All),
            Value::Array(values) if values.is_empty() => {
                Err(D::Error::custom("an empty list chooses nothing; leave the parameter out, or write null or all"))
            }
            Value::Array(values) => values.into_iter().map(scalar).collect::<Result<_, _>>().map(Self::Values),
            Value::Object(_) => Err(D::Error::custom("not a parameter; write a value, null, a list or all")),
            value => scalar(value).map(|value| Self::Values(vec![value])),
        }
    }
}

impl JsonSchema for Given {
    fn schema_name() -> Cow<'static, str> {
        "Given".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let scalar = ["string", "number", "boolean"];
        json_schema!({
            "type": ["null", "string", "number", "boolean", "array"],
            "items": { "type": scalar },
            "minItems": 1,
            "examples": ["all", "L1", ["L1", "L2"]]
        })
    }
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::All => f.write_str("all"),
            Self::Values(values) => f.write_str(&values.join(", ")),
        }
    }
}

fn wall_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DateTime>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    // With a zone in it, it would be another time than the one that is written there.
    let zoned = text.ends_with(['Z', 'z', ']']) || text.get(10..).is_some_and(|time| time.contains(['+', '-']));
    let read = text.trim().replace(' ', "T").parse::<DateTime>().ok().filter(|_| !zoned);
    read.map(Some).ok_or_else(|| {
        let what = format!(
            "'{text}' is not a time; write 2026-01-01 or 2026-01-01T06:00, as the clock in window.timezone shows it"
        );
        D::Error::custom(what)
    })
}

fn english() -> String {
    "en-US".to_owned()
}
fn csv_format() -> String {
    "CSV".to_owned()
}
fn utc() -> String {
    "UTC".to_owned()
}
fn iso() -> String {
    "%Y-%m-%dT%H:%M:%S%.f".to_owned()
}
fn none() -> Period {
    Period::seconds(0)
}
fn one_ms() -> Period {
    Period(std::time::Duration::from_millis(1))
}
fn half_an_hour() -> Period {
    Period::seconds(1800)
}

#[cfg(test)]
mod tests;
