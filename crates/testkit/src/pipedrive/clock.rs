//! The server's time, which a test may move.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;

/// A clock that runs, or stands, and can be put forward. Cheap to clone; all clones are the same.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `None`: it stands.
    began: Option<Instant>,
    /// Milliseconds since 1970, when it began.
    at: i64,
    ahead: Mutex<Duration>,
}

impl Clock {
    pub(super) fn new(starts_at: Option<i64>, stands: bool) -> Self {
        let at = starts_at.map_or_else(|| Timestamp::now().as_millisecond(), |seconds| seconds * 1000);
        Self(Arc::new(Inner { began: (!stands).then(Instant::now), at, ahead: Mutex::default() }))
    }
    /// Puts it forward.
    pub fn advance(&self, by: Duration) {
        *self.0.ahead.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }
    /// Since the server was started, with what it was put forward by.
    pub fn elapsed(&self) -> Duration {
        self.0.began.map_or(Duration::ZERO, |began| began.elapsed())
            + *self.0.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Milliseconds since 1970.
    pub fn millis(&self) -> i64 {
        self.0.at.saturating_add(i64::try_from(self.elapsed().as_millis()).unwrap_or(i64::MAX))
    }
    /// Seconds since 1970.
    pub fn seconds(&self) -> i64 {
        self.millis().div_euclid(1000)
    }
}

/// `2026-11-21T17:06:29Z`
pub(super) fn rfc3339(seconds: i64) -> String {
    Timestamp::from_second(seconds).unwrap_or_default().to_string()
}

/// `2026-11-21 17:06:29`, as v1 has it.
pub(super) fn spaced(seconds: i64) -> String {
    rfc3339(seconds).replace('T', " ").trim_end_matches('Z').to_owned()
}

/// Seconds of an instant in RFC 3339, of whole seconds: a fraction is refused.
pub(super) fn instant(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    if bytes.len() < 20 || bytes.get(10) != Some(&b'T') || text.contains('.') || text.contains('[') {
        return None;
    }
    Some(text.parse::<Timestamp>().ok()?.as_second())
}

/// Whether it is a date as `2026-11-21`.
pub(super) fn is_date(text: &str) -> bool {
    text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()
}

/// `9:05` and `09:05:00` as `09:05:00`.
pub(super) fn time_of_day(text: &str) -> Option<String> {
    let padded = if text.split(':').count() == 2 { format!("{text}:00") } else { text.to_owned() };
    let padded = if padded.find(':') == Some(1) { format!("0{padded}") } else { padded };
    (padded.len() == 8 && padded.parse::<jiff::civil::Time>().is_ok()).then_some(padded)
}
