//! What proves that a file is still the same one, and positions in it as text.
//!
//! A position reads `byte 1048576 line 8195 record 8194 of "33a64df5"`, and behind the last record
//! `end byte 2097152 line 16390 record 16389 of mtime 1763712000.123456789 size 2097152`.

use std::{fmt, fs::Metadata, time::UNIX_EPOCH};

use towpath_core::{Position, RowPosition};
use towpath_http::{HeaderMap, header};

/// What tells one version of a file from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// The server's ETag (RFC 9110, 8.8.3), quotes and weakness included. A strong one is the same only for the same bytes.
    Tag(String),
    /// Last-Modified, and the length where the server says it. Only good for guessing that nothing has changed.
    Modified { at: String, length: Option<u64> },
    /// Of a file on this machine: seconds and nanoseconds of its last change, and its size.
    File { mtime: (i64, u32), size: u64 },
    /// The server says nothing.
    Unknown,
}

impl Identity {
    /// Of an answer.
    pub(crate) fn of_answer(headers: &HeaderMap, length: Option<u64>) -> Self {
        let text = |name| {
            headers.get(name).and_then(|value: &towpath_http::HeaderValue| value.to_str().ok()).map(str::to_owned)
        };
        match (text(header::ETAG), text(header::LAST_MODIFIED)) {
            (Some(tag), _) if !tag.is_empty() => Self::Tag(tag),
            (_, Some(at)) => Self::Modified { at, length },
            _ => Self::Unknown,
        }
    }

    /// Of a file on this machine.
    pub(crate) fn of_file(meta: &Metadata) -> Self {
        let mtime = match meta.modified().map(|at| at.duration_since(UNIX_EPOCH)) {
            Ok(Ok(since)) => (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos()),
            Ok(Err(before)) => {
                let before = before.duration();
                (-i64::try_from(before.as_secs()).unwrap_or(i64::MAX), before.subsec_nanos())
            }
            Err(_) => (0, 0),
        };
        Self::File { mtime, size: meta.len() }
    }

    /// Whether being equal proves that the bytes are the same, so that reading can go on in the middle.
    pub(crate) fn is_proof(&self) -> bool {
        match self {
            Self::Tag(tag) => !tag.starts_with("W/"),
            Self::File { .. } => true,
            Self::Modified { .. } | Self::Unknown => false,
        }
    }

    /// Whether nothing speaks for a change. Weak and strong tags of the same text are the same here: a server that compresses on the way
    /// weakens its tag. A length that is not told contradicts nothing.
    pub(crate) fn is_unchanged_from(&self, before: &Self) -> bool {
        match (self, before) {
            (Self::Tag(a), Self::Tag(b)) => a.trim_start_matches("W/") == b.trim_start_matches("W/"),
            (Self::Modified { at: a, length: n }, Self::Modified { at: b, length: m }) => {
                a == b && (n.is_none() || m.is_none() || n == m)
            }
            (Self::File { .. }, Self::File { .. }) => self == before,
            _ => false,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        if text == "unknown" {
            return Some(Self::Unknown);
        }
        if let Some(rest) = text.strip_prefix("mtime ") {
            let (mtime, size) = rest.split_once(" size ")?;
            let (seconds, nanos) = mtime.split_once('.')?;
            return Some(Self::File { mtime: (seconds.parse().ok()?, nanos.parse().ok()?), size: size.parse().ok()? });
        }
        if let Some(rest) = text.strip_prefix("modified ") {
            let (at, length) = match rest.split_once(" length ") {
                Some((at, length)) => (at, Some(length.parse().ok()?)),
                None => (rest, None),
            };
            return Some(Self::Modified { at: at.to_owned(), length });
        }
        text.strip_prefix("etag ").map(|tag| Self::Tag(tag.to_owned()))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => write!(f, "etag {tag}"),
            Self::Modified { at, length: None } => write!(f, "modified {at}"),
            Self::Modified { at, length: Some(length) } => write!(f, "modified {at} length {length}"),
            Self::File { mtime: (seconds, nanos), size } => write!(f, "mtime {seconds}.{nanos:09} size {size}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// How far a file has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct At {
    /// Where the next record begins.
    pub(crate) next: RowPosition,
    /// There is no next record.
    pub(crate) end: bool,
    /// Which version of the file.
    pub(crate) identity: Identity,
}

impl At {
    pub(crate) fn parse(position: &Position) -> Option<Self> {
        let (at, identity) = position.0.split_once(" of ")?;
        let (end, at) = match at.strip_prefix("end ") {
            Some(at) => (true, at),
            None => (false, at),
        };
        let (byte, at) = at.strip_prefix("byte ")?.split_once(" line ")?;
        let (line, record) = at.split_once(" record ")?;
        let next = RowPosition { record: record.parse().ok()?, line: line.parse().ok()?, byte: byte.parse().ok()? };
        Some(Self { next, end, identity: Identity::parse(identity)? })
    }

    pub(crate) fn position(&self) -> Position {
        let RowPosition { record, line, byte } = self.next;
        let end = if self.end { "end " } else { "" };
        Position::new(format!("{end}byte {byte} line {line} record {record} of {}", self.identity))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_text_and_come_back() {
        for (text, proof) in [
            ("byte 10 line 2 record 1 of etag \"a b of c\"", true),
            ("end byte 10 line 2 record 1 of etag W/\"a\"", false),
            ("end byte 10 line 2 record 1 of modified Sat, 21 Nov 2026 07:00:00 GMT length 10", false),
            ("end byte 10 line 2 record 1 of modified Sat, 21 Nov 2026 07:00:00 GMT", false),
            ("byte 10 line 2 record 1 of mtime -3.000000007 size 12", true),
            ("end byte 0 line 1 record 1 of unknown", false),
        ] {
            let at = At::parse(&Position::new(text)).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(&*at.position().0, text);
            assert_eq!(at.identity.is_proof(), proof, "{text}");
        }
        for wrong in ["", "end", "byte x line 1 record 1 of unknown", "byte 1 line 1 record 1", "v1 piece 3"] {
            assert_eq!(At::parse(&Position::new(wrong)), None, "{wrong}");
        }
    }

    #[test]
    fn unchanged_is_less_than_proven() {
        let parse = |text: &str| Identity::parse(text).unwrap();
        for (a, b, same) in [
            ("etag \"a\"", "etag W/\"a\"", true),
            ("etag \"a\"", "etag \"b\"", false),
            ("modified x length 3", "modified x", true),
            ("modified x length 3", "modified x length 4", false),
            ("modified x", "modified y", false),
            ("mtime 1.000000000 size 3", "mtime 1.000000000 size 3", true),
            ("mtime 1.000000001 size 3", "mtime 1.000000000 size 3", false),
            ("unknown", "unknown", false),
            ("etag \"a\"", "modified x", false),
        ] {
            assert_eq!(parse(a).is_unchanged_from(&parse(b)), same, "{a} {b}");
        }
    }
}
