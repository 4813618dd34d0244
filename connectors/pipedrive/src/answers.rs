//! What the vendor's answers mean. Facts: the vendor's documentation of errors and limits; what is not in it was observed.
//!
//! | answer | means |
//! |---|---|
//! | 400, 404, 409, 410, 422 | this one record or request: a refusal, with the vendor's words |
//! | 401 | the credential is wrong: never sent again |
//! | 402 | the account is closed or not paid for: nothing more is sent |
//! | 403 `feature_capping_…` | the plan holds no more records: nothing more is sent |
//! | 403 that is JSON otherwise | a right is missing for this record |
//! | 403 that is no JSON | too many 429 were ignored, and we are shut out: nothing more is sent |
//! | 429 | too many in the window, or the company's day is over |

use std::time::Duration;

use serde::Deserialize;
use towpath_core::{Error, Retry, Told};
use towpath_http::HeaderMap;

/// How long nobody asks again after we were shut out: it ends by itself, and asking makes it longer.
const SHUT_OUT: Duration = Duration::from_secs(3600);
/// A pause longer than the longest burst window is one for the day.
const LONGEST_WINDOW: u64 = 60;
/// A burst window, where the answer does not say when it ends.
const WINDOW: Duration = Duration::from_secs(2);

/// What a refusal says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The status.
    pub status: u16,
    /// The vendor's words.
    pub message: String,
}

/// What came of a request.
#[derive(Debug)]
pub enum Judged {
    /// It was done.
    Done,
    /// It was refused for reasons of its own.
    Refused(Refused),
    /// Nothing more should be sent, or not now.
    Stop(Error),
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    error: Option<serde_json::Value>,
    error_info: Option<String>,
    message: Option<String>,
    code: Option<serde_json::Value>,
    details: Option<serde_json::Value>,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pipedrive refused it ({}): {}", self.status, self.message)
    }
}

/// Judges an answer by its status, its headers and the beginning of its body.
pub fn judge(status: u16, headers: &HeaderMap, body: &str) -> Judged {
    if (200..300).contains(&status) {
        return Judged::Done;
    }
    let parsed: Option<Body> = serde_json::from_str(body).ok();
    let message = parsed.as_ref().map_or_else(|| excerpt(body), words);
    let code = parsed.as_ref().and_then(|body| body.code.as_ref()).map(plain).unwrap_or_default();
    match status {
        402 => Judged::Stop(
            Error::auth(format!("the account is closed, or not paid for (402): {message}"))
                .hint("nothing more is sent; see to it in Pipedrive, under billing"),
        ),
        403 if parsed.is_none() => Judged::Stop(
            Error::rate_limited("Pipedrive has shut us out (403 with a page that is no answer of its API)", Some(SHUT_OUT))
                .hint("it does so to whoever goes on after too many requests; nothing is sent for an hour. Look which other tools use this account"),
        ),
        403 if [&message, &code].iter().any(|text| text.contains("feature_capping")) => Judged::Stop(
            Error::conflict(format!("the company's plan holds no more of them (403): {message}"))
                .hint("delete records, or take a larger plan; until then set `create: false`"),
        ),
        429 => Judged::Stop(too_many(headers, body)),
        _ => Judged::Refused(Refused { status, message }),
    }
}

/// What the headers say of the budget.
pub fn told(status: u16, headers: &HeaderMap, body: &str) -> Told {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
    let mut told = Told {
        window_left: number("x-ratelimit-remaining").map(|left| u32::try_from(left).unwrap_or(u32::MAX)),
        window_resets: number("x-ratelimit-reset").map(Duration::from_secs),
        day_left: number("x-daily-requests-left"),
        day_over: None,
    };
    if status == 429 {
        match day_over(headers, body) {
            // Who has spent the day has spent nothing of the window.
            Some(over) => told = Told { day_left: Some(0), day_over: Some(over), ..Told::default() },
            None => told.window_left = Some(0),
        }
    }
    told
}

/// Requests that fit into the window, by the headers.
pub fn window(headers: &HeaderMap) -> Option<u32> {
    headers.get("x-ratelimit-limit")?.to_str().ok()?.trim().parse().ok().filter(|limit| *limit > 0)
}

fn too_many(headers: &HeaderMap, body: &str) -> Error {
    if let Some(over) = day_over(headers, body) {
        return Error::rate_limited("the company's budget of this day is spent (429)", None)
            .retry(Retry::After(over))
            .hint("the next run goes on where this one stopped; a smaller `budget.share` leaves more for the company's other tools");
    }
    let reset = seconds(headers, "x-ratelimit-reset").or_else(|| seconds(headers, "retry-after"));
    Error::rate_limited("too many requests in the vendor's window (429)", Some(reset.unwrap_or(WINDOW)))
}

/// How long the day is over for, if a 429 means that.
fn day_over(headers: &HeaderMap, body: &str) -> Option<Duration> {
    let pause = seconds(headers, "retry-after");
    let long = pause.is_some_and(|pause| pause.as_secs() > LONGEST_WINDOW);
    let said = body.to_ascii_lowercase().contains("daily");
    let none_left = seconds(headers, "x-daily-requests-left") == Some(Duration::ZERO);
    // Without a word how long, an hour: the ledger knows when the day begins anew.
    (long || said || none_left).then(|| pause.filter(|pause| !pause.is_zero()).unwrap_or(SHUT_OUT))
}

fn seconds(headers: &HeaderMap, name: &str) -> Option<Duration> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// What it says where an address leads to nothing. It leaves the method's name out.
const UNKNOWN: &str = "Unknown method .";

/// The vendor's words, with what it says of single fields.
fn words(body: &Body) -> String {
    let mut parts: Vec<String> = vec![];
    {
        let mut add = |text: String| {
            if !text.is_empty() && !parts.contains(&text) {
                parts.push(text);
            }
        };
        for value in [&body.error, &body.code] {
            let text = value.as_ref().map(plain).unwrap_or_default();
            add(if text == UNKNOWN { "there is nothing at this address".to_owned() } else { text });
        }
        for text in [&body.message, &body.error_info] {
            let text = text.clone().unwrap_or_default();
            // The same advice stands under every error.
            if !text.starts_with("Please check developers.pipedrive.com") {
                add(text);
            }
        }
    }
    // They say the same once more, field by field.
    if parts.is_empty() {
        parts.extend(body.details.as_ref().map(plain).filter(|text| !text.is_empty()));
    }
    if parts.is_empty() { "it gave no reason".to_owned() } else { excerpt(&parts.join("; ")) }
}

fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn excerpt(text: &str) -> String {
    let start = text.trim_start();
    if start.starts_with('<') {
        return page(start);
    }
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    text.trim().to_owned()
}

/// What a page in HTML is about: its title, or else how its text begins.
fn page(html: &str) -> String {
    /// Enough to know it by.
    const SHOWN: usize = 100;
    /// No page has come to its text later.
    const READ: usize = 50_000;
    let html = html.char_indices().nth(READ).map_or(html, |(end, _)| &html[..end]);
    // Of one byte for one, so that places in one are places in the other.
    let lower = html.to_ascii_lowercase();
    let inside = |name: &str| {
        let begin = lower.find(&format!("<{name}"))?;
        let begin = begin + lower[begin..].find('>')? + 1;
        Some(&html[begin..begin + lower[begin..].find(&format!("</{name}"))?])
    };
    let text = |html: &str| {
        let pieces = html.split('<').enumerate().map(|(at, piece)| match at {
            0 => piece,
            _ => piece.split_once('>').map_or("", |(_, text)| text),
        });
        let text = pieces.collect::<Vec<_>>().join(" ");
        let words: Vec<_> = text.split_whitespace().collect();
        words.join(" ").chars().filter(|c| !c.is_control()).take(SHOWN).collect::<String>()
    };
    let title = inside("title").map(&text).filter(|title| !title.is_empty());
    let said = title.unwrap_or_else(|| text(inside("body").unwrap_or(html)));
    if said.is_empty() { "a page without text".to_owned() } else { format!("a page, '{said}'") }
}

#[cfg(test)]
mod tests {
    use towpath_core::ErrorKind;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (towpath_http::HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn answers_are_told_apart() {
        let json = r#"{"success":false,"error":"Bad title","code":"ERR_SCHEMA_VALIDATION_FAILED","error_info":"Please check developers.pipedrive.com"}"#;
        for (status, pairs, body, expected) in [
            (200, vec![], "{}", "done"),
            (201, vec![], "{}", "done"),
            (400, vec![], json, "refused: Bad title; ERR_SCHEMA_VALIDATION_FAILED"),
            (404, vec![], "", "refused: "),
            (404, vec![], "{}", "refused: it gave no reason"),
            (
                404,
                vec![],
                "<!DOCTYPE html><html><head><style>p{}</style><TITLE>Not\nfound</TITLE></head><body><p>Nothing</p>",
                "refused: a page, 'Not found'",
            ),
            (
                404,
                vec![],
                " <html><head><style>p{}</style></head><body><h1>Sorry</h1>gone</body>",
                "refused: a page, 'Sorry gone'",
            ),
            (
                404,
                vec![],
                r#"{"success":false,"error":"Unknown method ."}"#,
                "refused: there is nothing at this address",
            ),
            (404, vec![], "<p", "refused: a page without text"),
            (402, vec![], "{}", "auth, never"),
            (403, vec![], r#"{"success":false,"error":"Forbidden"}"#, "refused: Forbidden"),
            (403, vec![], r#"{"success":false,"code":"feature_capping_deals_limit"}"#, "conflict, never"),
            (403, vec![], "<html>Access denied</html>", "rate_limited, after 3600 s"),
            (429, vec![], r#"{"error":"request over limit"}"#, "rate_limited, after 2 s"),
            (429, vec![("x-ratelimit-reset", "1")], "", "rate_limited, after 1 s"),
            (429, vec![("retry-after", "2")], "", "rate_limited, after 2 s"),
            (429, vec![("retry-after", "7200")], "", "rate_limited, after 7200 s"),
            (429, vec![], r#"{"error":"daily request budget exceeded"}"#, "rate_limited, after 3600 s"),
            (429, vec![("x-daily-requests-left", "0"), ("retry-after", "50")], "", "rate_limited, after 50 s"),
        ] {
            let found = match judge(status, &headers(&pairs), body) {
                Judged::Done => "done".to_owned(),
                Judged::Refused(refused) => format!("refused: {}", refused.message),
                Judged::Stop(error) => {
                    let after = match error.retrying() {
                        Retry::Never => "never".to_owned(),
                        Retry::Again => "again".to_owned(),
                        Retry::After(after) => format!("after {} s", after.as_secs()),
                    };
                    assert_ne!(error.kind(), ErrorKind::Internal);
                    format!("{}, {after}", error.kind().name())
                }
            };
            assert_eq!(found, expected, "{status} {pairs:?} {body}");
        }
    }

    #[test]
    fn the_budget_is_told_from_every_answer() {
        let all = [("x-ratelimit-remaining", "7"), ("x-ratelimit-reset", "2"), ("x-daily-requests-left", "900")];
        let two = Some(Duration::from_secs(2));
        let expected = Told { window_left: Some(7), window_resets: two, day_left: Some(900), day_over: None };
        assert_eq!(told(200, &headers(&all), ""), expected);
        assert_eq!(told(200, &headers(&[]), ""), Told::default());
        assert_eq!(told(429, &headers(&all), "").window_left, Some(0));
        let day = told(429, &headers(&[("retry-after", "7200"), ("x-ratelimit-remaining", "7")]), "");
        assert_eq!(day, Told { day_left: Some(0), day_over: Some(Duration::from_secs(7200)), ..Told::default() });
        assert_eq!(window(&headers(&[("x-ratelimit-limit", "120")])), Some(120));
    }
}
