//! One error type: where, what, why, and what to do.
//!
//! Only the connector knows what a failure means, so only the connector classifies it (`kind`, `retry`,
//! `outcome unknown`); only the engine acts on it. Messages are lowercase and never hold a secret.

use std::{fmt, time::Duration};

/// The result of everything that can fail here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The config is wrong; nothing was touched.
    Config,
    /// A credential was refused, or a right is missing. Never retried.
    Auth,
    /// What was asked for is not there.
    NotFound,
    /// The data is not what it must be, as a whole: a missing header, a truncated body. (One bad row is a reject.)
    Data,
    /// The state found contradicts the state expected: another process owns the target, the fingerprint changed.
    Conflict,
    /// The other side asked for fewer calls.
    RateLimited,
    /// The other side cannot be reached, or failed.
    Unavailable,
    /// A deadline passed.
    Timeout,
    /// Not offered by this connector or server.
    Unsupported,
    /// A defect of ours.
    Internal,
    /// The run was cancelled; not a failure of anything.
    Cancelled,
}

impl ErrorKind {
    /// The name used in dead letters, `--json` and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Auth => "auth",
            Self::NotFound => "not_found",
            Self::Data => "data",
            Self::Conflict => "conflict",
            Self::RateLimited => "rate_limited",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Unsupported => "unsupported",
            Self::Internal => "internal",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Whether trying again can help. Set by the connector, acted on by the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// No.
    Never,
    /// Yes, after the engine's back-off.
    Again,
    /// Yes, but not before this long (`Retry-After`).
    After(Duration),
}

/// A failure. Build one with the constructor of its kind, then add [`at`](Error::at) (where), [`because`](Error::because)
/// (why) and [`hint`](Error::hint) (what to do).
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    retry: Retry,
    /// Outermost first.
    place: Vec<String>,
    message: String,
    hint: Option<String>,
    outcome_unknown: bool,
    unsent: bool,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind`, with the retry that is usual for it: `Again` for unavailable, timeout and rate limited.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let retry = match kind {
            ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::RateLimited => Retry::Again,
            _ => Retry::Never,
        };
        let message = message.into();
        Self(Box::new(Inner {
            kind,
            retry,
            place: vec![],
            message,
            hint: None,
            outcome_unknown: false,
            unsent: false,
            source: None,
        }))
    }
    /// [`ErrorKind::Config`].
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message)
    }
    /// [`ErrorKind::Auth`].
    pub fn auth(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Auth, message)
    }
    /// [`ErrorKind::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }
    /// [`ErrorKind::Data`].
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Data, message)
    }
    /// [`ErrorKind::Conflict`].
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }
    /// [`ErrorKind::RateLimited`], to be tried again after `after` where the other side said so.
    pub fn rate_limited(message: impl Into<String>, after: Option<Duration>) -> Self {
        Self::new(ErrorKind::RateLimited, message).retry(after.map_or(Retry::Again, Retry::After))
    }
    /// [`ErrorKind::Unavailable`].
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }
    /// [`ErrorKind::Timeout`].
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Timeout, message)
    }
    /// [`ErrorKind::Unsupported`].
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }
    /// [`ErrorKind::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }
    /// [`ErrorKind::Cancelled`].
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "cancelled")
    }

    /// Says whether trying again can help, where that differs from what is usual for the kind.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.0.retry = retry;
        self
    }
    /// Adds a place around the ones already there: `source production`, `https://reports.example`, `line 7`.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.0.place.insert(0, place.into());
        self
    }
    /// Adds the failure underneath.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }
    /// Says what the reader can do about it. One sentence, imperative, lowercase.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }
    /// The call may have had its effect: an [`Effect::Once`](crate::Effect::Once) whose answer was lost. Says nothing of an error that is
    /// [`unsent`](Error::unsent).
    #[must_use]
    pub fn outcome_unknown(mut self) -> Self {
        self.0.outcome_unknown = !self.0.unsent;
        self
    }
    /// Nothing of the call went out (no connection could be made, a credential was held back), so it had no effect: whatever it is, it can be sent again.
    #[must_use]
    pub fn unsent(mut self) -> Self {
        self.0.unsent = true;
        self.0.outcome_unknown = false;
        self
    }

    /// What the failure means.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }
    /// Whether trying again can help.
    pub fn retrying(&self) -> Retry {
        self.0.retry
    }
    /// Whether trying again can help at all.
    pub fn can_retry(&self) -> bool {
        self.0.retry != Retry::Never
    }
    /// Whether the call may have had its effect all the same.
    pub fn is_outcome_unknown(&self) -> bool {
        self.0.outcome_unknown
    }
    /// Whether it is sure that nothing of the call went out.
    pub fn is_unsent(&self) -> bool {
        self.0.unsent
    }
    /// What to do about it, where there is something.
    pub fn what_to_do(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
    /// What went wrong, without where and why.
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in &self.0.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.0.message)?;
        if self.0.outcome_unknown {
            f.write_str(" (outcome unknown)")?;
        }
        let mut next = self.0.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static));
        while let Some(source) = next {
            write!(f, ": {source}")?;
            // Our own Display already tells the whole chain below it.
            next = if source.is::<Error>() { None } else { source.source() };
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_where_what_and_why_outermost_first() {
        let below = std::io::Error::other("connection reset");
        let error =
            Error::unavailable("cannot fetch the report").because(below).at("https://reports.example").at("source a");
        assert_eq!(error.to_string(), "source a: https://reports.example: cannot fetch the report: connection reset");
        assert!(error.can_retry());
        let nested = Error::data("outer").because(Error::conflict("inner").because(std::io::Error::other("deep")));
        assert_eq!(nested.to_string(), "outer: inner: deep", "no part is told twice");
    }

    #[test]
    fn what_is_usual_for_a_kind_can_be_overruled() {
        assert!(!Error::auth("refused").can_retry());
        assert!(!Error::unavailable("gone for good").retry(Retry::Never).can_retry());
        let wait = Duration::from_secs(7);
        assert_eq!(Error::rate_limited("slow down", Some(wait)).retrying(), Retry::After(wait));
    }
}
