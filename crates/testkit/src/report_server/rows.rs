//! The rows of a report: a production log, the same for the same window, however often and however cut it is asked for.

use jiff::civil::{DateTime, date};

/// Columns of the production log: one timestamp, two floats, text that needs quotes now and then.
pub const COLUMNS: [&str; 12] = [
    "Timestamp",
    "Line",
    "Station",
    "OrderNo",
    "Component",
    "SerialNo",
    "Operator",
    "Shift",
    "Result",
    "Torque",
    "Temperature",
    "Remark",
];

const LINES: [(&str, &[&str]); 3] = [("L1", &["S11", "S12"]), ("L2", &["S21"]), ("L3", &["S31", "S32", "S33"])];
const COMPONENTS: [&str; 5] = ["Hinge, left", "Hinge, right", "Mainboard", "Display 14\"", "Battery pack"];
const REMARKS: [&str; 8] =
    ["", "", "", "retightened", "second pass, same tool", "", "scanner said \"no read\"", "Prüfung ok"];
const SHIFTS: [&str; 3] = ["Early", "Late", "Night"];

const HOUR: i128 = 3_600_000;

/// Which rows of the endless log a request means: from the first up to the last, not included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub first: i128,
    pub last: i128,
    pub per_hour: u64,
}

impl Span {
    /// So many rows from the beginning of the log.
    pub fn of_rows(rows: u64) -> Self {
        Self { first: 0, last: i128::from(rows), per_hour: rows.max(1) }
    }
    /// The rows stamped in `[from, to)`, or `[from, to]`.
    pub fn between(from: DateTime, to: DateTime, inclusive: bool, per_hour: u64) -> Self {
        // Row k is stamped floor(k × hour / n): so the first one at or after t is ceil(t × n / hour).
        let index = |at: i128| {
            (at * i128::from(per_hour)).div_euclid(HOUR) + i128::from((at * i128::from(per_hour)).rem_euclid(HOUR) != 0)
        };
        let (first, last) = (index(millis(from)), index(millis(to) + i128::from(inclusive)));
        Self { first, last: last.max(first), per_hour: per_hour.max(1) }
    }
    /// How many rows that are.
    #[cfg(test)]
    pub fn rows(self) -> u64 {
        u64::try_from(self.last - self.first).unwrap_or(0)
    }
}

/// Milliseconds since the beginning of the log's clock, which is the wall clock of the plant: it knows no time zone. What is finer is
/// cut off.
fn millis(at: DateTime) -> i128 {
    at.duration_since(date(2000, 1, 1).at(0, 0, 0, 0)).as_millis()
}

/// Writes rows as CSV, one after the other.
#[derive(Debug)]
pub(super) struct Writer {
    span: Span,
    next: i128,
    ragged_every: Option<u64>,
    /// The second last written and its text: most rows share it with the one before.
    second: i128,
    second_text: [u8; 19],
}

impl Writer {
    pub fn new(span: Span, ragged_every: Option<u64>) -> Self {
        Self { span, next: span.first, ragged_every, second: i128::MIN, second_text: *b"2000-01-01T00:00:00" }
    }

    pub fn written(&self) -> u64 {
        u64::try_from(self.next - self.span.first).unwrap_or(0)
    }

    /// Appends rows until `out` has at least `bytes`; false when there are none left.
    pub fn fill(&mut self, out: &mut Vec<u8>, bytes: usize) -> bool {
        while out.len() < bytes {
            if self.next >= self.span.last {
                return false;
            }
            self.row(out);
            self.next += 1;
        }
        true
    }

    fn row(&mut self, out: &mut Vec<u8>) {
        let index = self.next;
        let at = (index * HOUR).div_euclid(i128::from(self.span.per_hour));
        let random = mix(index as u64);
        self.timestamp(out, at);
        let (line, stations) = LINES[pick(random, 0, LINES.len())];
        let component = pick(random, 8, COMPONENTS.len());
        let fields = [line, stations[pick(random, 4, stations.len())]];
        for field in fields {
            out.push(b',');
            out.extend_from_slice(field.as_bytes());
        }
        out.extend_from_slice(b",PO-");
        digits(out, 400_000 + index.rem_euclid(4_000_000) as u64 / 250, 6);
        out.push(b',');
        quoted(out, COMPONENTS[component]);
        out.extend_from_slice(b",SN");
        digits(out, index.rem_euclid(10_000_000_000) as u64, 10);
        out.extend_from_slice(b",op");
        digits(out, (random >> 20) % 480, 3);
        out.push(b',');
        let hour = at.div_euclid(HOUR).rem_euclid(24) as usize;
        out.extend_from_slice(SHIFTS[(hour + 18) % 24 / 8].as_bytes());
        out.extend_from_slice(if (random >> 32).is_multiple_of(50) {
            b",FAIL,".as_slice()
        } else {
            b",PASS,".as_slice()
        });
        float(out, 400 + (random >> 36) % 900, 2);
        out.push(b',');
        float(out, 18_000 + (random >> 46) % 9_000, 3);
        let row = u64::try_from(index - self.span.first).unwrap_or(0) + 1;
        if !self.ragged_every.is_some_and(|every| row.is_multiple_of(every.max(1))) {
            out.push(b',');
            quoted(out, REMARKS[pick(random, 60, REMARKS.len())]);
        }
        out.extend_from_slice(b"\r\n");
    }

    fn timestamp(&mut self, out: &mut Vec<u8>, at: i128) {
        let second = at.div_euclid(1000);
        if second != self.second {
            let since = jiff::SignedDuration::from_secs(i64::try_from(second).unwrap_or(0));
            let moment = date(2000, 1, 1).at(0, 0, 0, 0).saturating_add(since);
            let text = moment.strftime("%Y-%m-%dT%H:%M:%S").to_string();
            if let Ok(text) = text.as_bytes().try_into() {
                self.second_text = text;
            }
            self.second = second;
        }
        out.extend_from_slice(&self.second_text);
        out.push(b'.');
        digits(out, at.rem_euclid(1000) as u64, 3);
    }
}

/// The header line.
pub(super) fn header(textboxes: bool) -> String {
    if textboxes {
        let names: Vec<_> = (1..=COLUMNS.len()).map(|number| format!("Textbox{number}")).collect();
        return names.join(",") + "\r\n";
    }
    COLUMNS.join(",") + "\r\n"
}

/// The same noise for the same row (splitmix64).
fn mix(index: u64) -> u64 {
    let mut z = index.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn pick(random: u64, shift: u32, of: usize) -> usize {
    ((random >> shift) % of as u64) as usize
}

/// A number with leading zeros.
fn digits(out: &mut Vec<u8>, mut number: u64, width: usize) {
    let start = out.len();
    out.resize(start + width, b'0');
    for digit in out[start..].iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// A number with so many decimals.
fn float(out: &mut Vec<u8>, scaled: u64, decimals: u32) {
    let unit = 10u64.pow(decimals);
    let whole = scaled / unit;
    let width = if whole < 10 {
        1
    } else if whole < 100 {
        2
    } else {
        3
    };
    digits(out, whole, width);
    out.push(b'.');
    digits(out, scaled % unit, decimals as usize);
}

/// A field, in quotes where it needs them.
fn quoted(out: &mut Vec<u8>, field: &str) {
    if !field.contains([',', '"', '\r', '\n']) {
        return out.extend_from_slice(field.as_bytes());
    }
    out.push(b'"');
    out.extend_from_slice(field.replace('"', "\"\"").as_bytes());
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(from: &str, to: &str, inclusive: bool, per_hour: u64) -> Vec<String> {
        let span = Span::between(from.parse().unwrap(), to.parse().unwrap(), inclusive, per_hour);
        let mut out = Vec::new();
        assert!(!Writer::new(span, None).fill(&mut out, usize::MAX));
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count() as u64, span.rows());
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn windows_of_a_log_join_without_gap_or_overlap() {
        for per_hour in [1, 7, 1000, 4001] {
            let whole = rows("2026-03-01T00:00", "2026-03-01T05:00", false, per_hour);
            assert_eq!(whole.len() as u64, 5 * per_hour);
            let cuts = ["00:00", "00:17", "01:00", "01:00:00.001", "04:59:59.999", "05:00"];
            let parts: Vec<_> = cuts
                .windows(2)
                .flat_map(|cut| {
                    let [from, to] = [cut[0], cut[1]].map(|time| format!("2026-03-01T{time}"));
                    rows(&from, &to, false, per_hour)
                })
                .collect();
            assert_eq!(parts, whole, "{per_hour} rows an hour");
        }
    }

    #[test]
    fn an_inclusive_end_takes_the_row_at_the_end() {
        let one = rows("2026-03-01T00:00", "2026-03-01T01:00", true, 60);
        assert_eq!(one.len(), 61);
        assert!(one[60].starts_with("2026-03-01T01:00:00.000,"));
    }

    #[test]
    fn a_row_looks_like_a_production_log() {
        insta::assert_snapshot!(rows("2026-03-01T00:00", "2026-03-01T01:00", false, 4).join("\n"));
    }
}
