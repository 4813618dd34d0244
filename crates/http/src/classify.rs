//! What a status means: kind of error, whether trying again can help, and what the server itself said.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, StatusCode, header};
use towpath_core::{Error, ErrorKind, Retry};

/// How much of the server's own words a message quotes, in characters.
const EXCERPT: usize = 300;

/// The longest `Retry-After` that is believed.
const LONGEST_WAIT: Duration = Duration::from_secs(7 * 24 * 3600);

/// An answer that says no; lies under the [`Error`] made of it, see [`refusal`]. Shows as the first readable 300 characters of
/// its body.
#[derive(Debug)]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The first 64 KiB of the body, decompressed; the configured secrets are cut out.
    pub text: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = readable(&self.text, EXCERPT);
        if text.is_empty() { f.write_str("it gave no reason") } else { f.write_str(&text) }
    }
}

impl std::error::Error for Refusal {}

/// The server's answer underneath an error of [`Client::send`](crate::Client::send), for connectors that know what its text means.
pub fn refusal(error: &Error) -> Option<&Refusal> {
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        if let Some(refusal) = source.downcast_ref() {
            return Some(refusal);
        }
        next = source.source();
    }
    None
}

/// The error for an answer that is none. 401 and 403 are judged by the client, which knows what was sent.
pub(crate) fn classify(refusal: Refusal) -> Error {
    let status = refusal.status;
    let (kind, hint) = match status.as_u16() {
        401 | 403 | 407 | 511 => (ErrorKind::Auth, None),
        404 | 410 => (ErrorKind::NotFound, Some("check the url")),
        408 => (ErrorKind::Timeout, None),
        409 | 412 => (ErrorKind::Conflict, None),
        429 => (ErrorKind::RateLimited, None),
        405 | 406 | 415 | 501 | 505 => (ErrorKind::Unsupported, None),
        423 | 425 => (ErrorKind::Unavailable, None),
        500.. => (ErrorKind::Unavailable, None),
        _ => (ErrorKind::Data, None),
    };
    let mut error = Error::new(kind, format!("the server answered {}", status_text(status)));
    if error.can_retry()
        && let Some(wait) = retry_after(&refusal.headers, SystemTime::now())
    {
        error = error.retry(Retry::After(wait));
    }
    if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        error = error.hint("put a name and a password for the proxy into its url");
    }
    if let Some(hint) = hint {
        error = error.hint(hint);
    }
    error.because(refusal)
}

/// `404 Not Found`.
pub(crate) fn status_text(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

/// How long the server asks to wait, in seconds or until a date.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match value.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        // A date that has passed means: now.
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(LONGEST_WAIT))
}

/// The first `limit` characters a person can read: tags, scripts, styles and comments taken out, white space made one.
pub(crate) fn readable(text: &str, limit: usize) -> String {
    let (mut out, mut count) = (String::new(), 0);
    let mut rest = text.trim_start_matches('\u{feff}');
    // A space is owed between two words, and never written before the first or after the last.
    let mut owed = false;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        let (shown, next) = match c {
            '<' if after.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '!' | '?')) => {
                (None, after_tag(rest))
            }
            '&' => match entity(rest) {
                Some((c, next)) => (Some(c), next),
                None => (Some(c), after),
            },
            _ => (Some(c), after),
        };
        rest = next;
        match shown {
            Some(c) if !c.is_whitespace() && !c.is_control() && c != char::REPLACEMENT_CHARACTER => {
                if owed && count > 0 {
                    out.push(' ');
                    count += 1;
                }
                owed = false;
                if count >= limit {
                    out.push('…');
                    break;
                }
                out.push(c);
                count += 1;
            }
            _ => owed = true,
        }
    }
    out
}

/// What follows a tag; for a script, a style or a comment, what follows its end.
fn after_tag(text: &str) -> &str {
    let starts = |name: &str| text.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    let end = if starts("<!--") {
        "-->"
    } else if starts("<script") {
        "</script>"
    } else if starts("<style") {
        "</style>"
    } else {
        ">"
    };
    let found = text.as_bytes().windows(end.len()).position(|window| window.eq_ignore_ascii_case(end.as_bytes()));
    found.and_then(|at| text.get(at + end.len()..)).unwrap_or_default()
}

/// A character reference and what follows it.
fn entity(text: &str) -> Option<(char, &str)> {
    let end = text.char_indices().take(10).find(|(_, c)| *c == ';')?.0;
    let (name, rest) = (&text[1..end], &text[end + 1..]);
    let c = match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" => ' ',
        _ => {
            let digits = name.strip_prefix('#')?;
            let code = match digits.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => digits.parse().ok()?,
            };
            char::from_u32(code)?
        }
    };
    Some((c, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, retry_after: Option<&str>, text: &str) -> Error {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(header::RETRY_AFTER, value.parse().unwrap());
        }
        classify(Refusal { status: StatusCode::from_u16(status).unwrap(), headers, text: text.to_owned() })
    }

    #[test]
    fn statuses_have_kinds() {
        let again = Retry::Again;
        let never = Retry::Never;
        let after = |seconds| Retry::After(Duration::from_secs(seconds));
        for (status, header, kind, retry) in [
            (304, None, ErrorKind::Data, never),
            (400, None, ErrorKind::Data, never),
            (404, None, ErrorKind::NotFound, never),
            (405, None, ErrorKind::Unsupported, never),
            (407, None, ErrorKind::Auth, never),
            (408, None, ErrorKind::Timeout, again),
            (409, None, ErrorKind::Conflict, never),
            (410, None, ErrorKind::NotFound, never),
            (422, Some("9"), ErrorKind::Data, never),
            (429, None, ErrorKind::RateLimited, again),
            (429, Some("7"), ErrorKind::RateLimited, after(7)),
            (429, Some("soon"), ErrorKind::RateLimited, again),
            (500, None, ErrorKind::Unavailable, again),
            (501, None, ErrorKind::Unsupported, never),
            (502, None, ErrorKind::Unavailable, again),
            (503, Some("120"), ErrorKind::Unavailable, after(120)),
            (503, Some("Wed, 21 Oct 2015 07:28:00 GMT"), ErrorKind::Unavailable, after(0)),
            (504, Some("99999999999999"), ErrorKind::Unavailable, after(7 * 24 * 3600)),
            (599, None, ErrorKind::Unavailable, again),
        ] {
            let error = answer(status, header, "");
            assert_eq!((error.kind(), error.retrying()), (kind, retry), "{status} {header:?}");
        }
    }

    #[test]
    fn a_date_is_a_wait() {
        let mut headers = HeaderMap::new();
        let now = httpdate::parse_http_date("Wed, 21 Oct 2015 07:28:00 GMT").unwrap();
        headers.insert(header::RETRY_AFTER, "Wed, 21 Oct 2015 07:28:30 GMT".parse().unwrap());
        assert_eq!(retry_after(&headers, now), Some(Duration::from_secs(30)));
    }

    #[test]
    fn the_servers_words_are_told_and_found_again() {
        let error = answer(500, None, "<html><head><title>Oops</title></head><body>it &lt;broke&gt;</body></html>");
        assert_eq!(error.to_string(), "the server answered 500 Internal Server Error: Oops it <broke>");
        let error = Error::unavailable("outer").because(error.at("source a"));
        assert!(refusal(&error).unwrap().text.starts_with("<html>"));
        assert_eq!(answer(502, None, "").to_string(), "the server answered 502 Bad Gateway: it gave no reason");
        assert!(refusal(&Error::timeout("x")).is_none());
    }

    #[test]
    fn what_is_readable() {
        for (text, expected) in [
            ("", ""),
            ("  a\r\n\t b  ", "a b"),
            ("<p>a</p><p>b</p>", "a b"),
            ("<style>x{}</style>a<script>if (a<b) {}</SCRIPT>b<!-- <p>no</p> -->c", "a b c"),
            ("1 < 2 & 3 &amp; &#65;&#x42; &unknown; &", "1 < 2 & 3 & AB &unknown; &"),
            ("\u{feff}{\"error\":\"no such field\"}", "{\"error\":\"no such field\"}"),
            ("a\0\u{fffd}b", "a b"),
            ("a<b unclosed", "a"),
            ("größe", "größe"),
        ] {
            assert_eq!(readable(text, 300), expected, "{text:?}");
        }
        assert_eq!(readable("abc def", 3), "abc …");
        assert_eq!(readable("abcdef", 3), "abc…");
        assert_eq!(readable("abc", 3), "abc");
    }

    proptest::proptest! {
        #[test]
        fn an_excerpt_is_short_whatever_the_server_says(text in "(<[a-z/!-]{0,4}|&#?[a-z0-9]{0,4};?|\\PC|\\s){0,400}") {
            let excerpt = readable(&text, 50);
            proptest::prop_assert!(excerpt.chars().count() <= 52);
            proptest::prop_assert!(!excerpt.contains(char::is_control));
        }
    }
}
