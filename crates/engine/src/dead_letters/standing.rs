//! How a dead letter stands: whether it is done.

use std::fmt;

use serde::Serialize;

/// How a dead letter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// `towpath dlq replay` would send it.
    Open,
    /// It was sent again. If it was refused again, that is a letter of its own.
    Replayed,
    /// Newer data has come since, so that it is not sent again.
    Superseded,
    /// Somebody has put it away (`towpath dlq discard`), so that it is not sent again.
    Discarded,
    /// Its columns are not those of its sink (any more), so that it cannot be sent again.
    OtherColumns,
    /// Nothing sends it again: a source or a transform has refused it, which reads it again when the cause is mended; or a sink that replaces its table,
    /// whose next run brings everything.
    Kept,
    /// Its run has not ended, and may refuse it once more.
    RunOpen,
    /// The sink or what is remembered of it could not be asked.
    Unknown,
}

impl Standing {
    /// Whether nothing is left to be done about it.
    pub fn is_done(self) -> bool {
        matches!(self, Self::Replayed | Self::Superseded | Self::Discarded)
    }
}

/// For people.
impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Replayed => "sent again",
            Self::Superseded => "superseded",
            Self::Discarded => "discarded",
            Self::OtherColumns => "other columns",
            Self::Kept => "kept",
            Self::RunOpen => "run not ended",
            Self::Unknown => "not known",
        })
    }
}
