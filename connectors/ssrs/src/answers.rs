//! What the report server answers when it does not answer with rows. Pure.
//!
//! It speaks in codes that begin with `rs`, on an HTML page or in a SOAP fault, with whatever status. The code says
//! what to do; so it is looked for wherever an answer is not the one that was asked for.

use towpath_core::{Error, ErrorKind, Retry};
use towpath_http::{HeaderMap, Refusal, StatusCode, header, refusal};

use crate::soap;

/// What a code means: kind, retry where that is not the usual one for the kind, what to do.
type Meaning = (ErrorKind, Option<Retry>, &'static str);

/// Codes that say more than "something went wrong", the most telling first. An answer may hold several, the outer ones general.
const CODES: &[(&str, Meaning)] = &[
    (
        "rsAccessDenied",
        (
            ErrorKind::Auth,
            None,
            "have the role Browser given to the account on this report and its folder; the password is fine",
        ),
    ),
    (
        "rsItemNotFound",
        (ErrorKind::NotFound, None, "check `report`: run `towpath discover` without it to see what there is"),
    ),
    (
        "rsInvalidItemPath",
        (ErrorKind::Config, None, "write `report` as the portal shows it, with its folders: /Sales/Orders"),
    ),
    (
        "rsWrongItemType",
        (ErrorKind::Config, None, "`report` is not a report: run `towpath discover` without it to see what there is"),
    ),
    ("rsUnknownReportParameter", (ErrorKind::Config, None, PARAMETERS)),
    (
        "rsReadOnlyReportParameter",
        (ErrorKind::Config, None, "take the parameter out of `parameters`: the report sets it"),
    ),
    ("rsReportParameterValueNotSet", (ErrorKind::Config, None, PARAMETERS)),
    ("rsReportParameterTypeMismatch", (ErrorKind::Config, None, PARAMETERS)),
    ("rsInvalidReportParameter", (ErrorKind::Config, None, PARAMETERS)),
    ("rsInvalidParameter", (ErrorKind::Config, None, PARAMETERS)),
    ("rsMissingParameter", (ErrorKind::Config, None, PARAMETERS)),
    ("rsParameterTypeMismatch", (ErrorKind::Config, None, PARAMETERS)),
    ("rsParameterError", (ErrorKind::Config, None, PARAMETERS)),
    ("rsHiddenParameter", (ErrorKind::Config, None, "take the parameter out of `parameters`: the report sets it")),
    (
        "rsRenderingExtensionNotFound",
        (
            ErrorKind::Unsupported,
            None,
            "the server has no CSV renderer of this name: ask for its name and set `format`",
        ),
    ),
    ("rsReportTimeoutExpired", (ErrorKind::Timeout, Some(Retry::Never), TOO_LONG)),
    ("rsExecutionTimeout", (ErrorKind::Timeout, Some(Retry::Never), TOO_LONG)),
    ("rsQueryTimeoutExpired", (ErrorKind::Timeout, Some(Retry::Never), TOO_LONG)),
    ("rsLogonFailed", (ErrorKind::Unavailable, Some(Retry::Never), DATA_SOURCE)),
    ("rsInvalidDataSourceCredentialSetting", (ErrorKind::Unavailable, Some(Retry::Never), DATA_SOURCE)),
    ("rsInvalidDataSourceReference", (ErrorKind::Unavailable, Some(Retry::Never), DATA_SOURCE)),
    ("rsErrorImpersonatingUser", (ErrorKind::Unavailable, Some(Retry::Never), DATA_SOURCE)),
    (
        "rsErrorOpeningConnection",
        (
            ErrorKind::Unavailable,
            None,
            "the database behind the report cannot be reached from the report server; ask whoever looks after it",
        ),
    ),
    (
        "rsErrorExecutingCommand",
        (
            ErrorKind::Unavailable,
            None,
            "the report's query failed: open the report in the portal with the same parameters; a smaller window may help",
        ),
    ),
    (
        "rsJobWasCanceled",
        (
            ErrorKind::Unavailable,
            Some(Retry::Never),
            "somebody stopped the report on the server; ask before running it again",
        ),
    ),
    ("rsReportServerDisabled", (ErrorKind::Unavailable, None, SERVER)),
    ("rsReportServerNotActivated", (ErrorKind::Unavailable, None, SERVER)),
    ("rsReportServerDatabaseUnavailable", (ErrorKind::Unavailable, None, SERVER)),
    ("rsReportServerDatabaseLogonFailed", (ErrorKind::Unavailable, None, SERVER)),
    ("rsReportServerDatabaseError", (ErrorKind::Unavailable, None, SERVER)),
    ("rsServerConfigurationError", (ErrorKind::Unavailable, None, SERVER)),
    ("rsServerBusy", (ErrorKind::RateLimited, None, "the server is busy: let `guard` ask less often")),
    (
        "rsExecutionNotFound",
        (ErrorKind::Unavailable, None, "the server forgot the session while it was working; it is asked anew"),
    ),
];

const PARAMETERS: &str = "check `parameters` and `window`: run `towpath discover` to see what the report wants";
const TOO_LONG: &str =
    "the report takes longer than the server allows: use a smaller window, or ask for a longer timeout of this report";
const DATA_SOURCE: &str =
    "the report server cannot sign in to the report's data source; ask whoever looks after the report";
const SERVER: &str = "the report server itself is not well; ask whoever looks after it";

/// What to do about a code that is not listed.
const UNKNOWN: (ErrorKind, Option<Retry>, &str) = (
    ErrorKind::Unavailable,
    None,
    "open the report in the portal with the same parameters to see what the server says there",
);

/// How much of an answer is looked at.
pub const LOOKED_AT: usize = 64 * 1024;

/// Whether a refusal means that the account is known, and lacks a right.
pub fn denied(text: &str) -> bool {
    codes(text).any(|code| code == "rsAccessDenied")
}

/// The codes in a text, in their order: `rs`, a capital, letters, and no letter before.
fn codes(text: &str) -> impl Iterator<Item = &str> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(move |c| !word(c)).filter(|word| {
        let Some(rest) = word.strip_prefix("rs") else { return false };
        rest.len() > 3
            && rest.starts_with(|c: char| c.is_ascii_uppercase())
            && rest.chars().all(|c| c.is_ascii_alphabetic())
    })
}

/// An error of a call, in the server's own words where it had any. `asked`: the report or folder.
pub fn explained(error: Error, asked: &str) -> Error {
    let Some(said) = refusal(&error) else { return error };
    match in_its_words(said) {
        Some(explained) => explained.at(asked),
        None => error,
    }
}

/// The error for an answer with a good status that is not CSV.
pub fn not_csv(status: StatusCode, headers: HeaderMap, text: String, asked: &str) -> Error {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("no type").to_owned();
    let said = Refusal { status, headers, text };
    let error = in_its_words(&said).unwrap_or_else(|| {
        let what = format!("the server answered with a page ({kind}) in place of CSV");
        let hint = "look at it in a browser: a sign-in form, a proxy or maintenance may stand before the report server; url must be the web service (…/ReportServer), not the portal";
        Error::unavailable(what).because(said).hint(hint)
    });
    error.at(asked)
}

fn in_its_words(said: &Refusal) -> Option<Error> {
    let all: Vec<&str> = codes(&said.text).collect();
    let first = *all.first()?;
    let listed = CODES.iter().find(|(code, _)| all.contains(code));
    let (code, (kind, retry, hint)) = listed.map_or((first, UNKNOWN), |(code, meaning)| (*code, *meaning));
    let sentence = sentence(said, code);
    let what = if sentence.contains(code) { sentence } else { format!("{sentence} ({code})") };
    let error = Error::new(kind, format!("the report server says: {what}")).hint(hint);
    Some(match retry {
        Some(retry) => error.retry(retry),
        None => error,
    })
}

/// The sentence that ends in the code.
fn sentence(said: &Refusal, code: &str) -> String {
    let text = soap::fault(&said.text).unwrap_or_else(|| said.to_string());
    // The page's headings stand before the first sentence.
    let start = text.rfind("Reporting Services Error").map_or(0, |at| at + "Reporting Services Error".len());
    let text = &text[start..];
    let end = text.find(code).map_or(text.len(), |at| at + code.len());
    let end = end + usize::from(text[end..].starts_with(')'));
    let text = text[..end].split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(400) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// Whether an answer is CSV, by its type and by how it begins.
pub fn is_csv(headers: &HeaderMap, beginning: &[u8]) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if ["text/html", "application/xhtml+xml", "text/xml", "application/xml", "application/soap+xml", "application/json"]
        .contains(&kind.as_str())
    {
        return false;
    }
    let beginning = beginning.strip_prefix(b"\xef\xbb\xbf").unwrap_or(beginning).trim_ascii_start();
    let starts = |with: &[u8]| beginning.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
    ![b"<!doctype".as_slice(), b"<html", b"<?xml", b"<soap:"].iter().any(|page| starts(page))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> String {
        format!(
            "<html><head><title>\r\n\tSQL Server Reporting Services\r\n</title><style>A {{}}</style></head><body>\
             <h1>Reporting Services Error<hr/></h1><ul><li>{text} <a href=\"x\">Get Online Help</a></li></ul></body></html>"
        )
    }

    fn html() -> HeaderMap {
        [(header::CONTENT_TYPE, "text/html; charset=utf-8".parse().unwrap())].into_iter().collect()
    }

    #[test]
    fn a_page_becomes_an_error_in_the_servers_words() {
        let long = "x ".repeat(500);
        let cases = [
            page("The item &#39;/No&#39; cannot be found. (rsItemNotFound)"),
            page("An error has occurred during report processing. (rsProcessingAborted) Query execution failed for dataset 'Log'. (rsErrorExecutingCommand)"),
            page("This report requires a default or user-defined value for the report parameter 'Line'. (rsReportParameterValueNotSet)"),
            page("Something new. (rsNeverHeardOf)"),
            page(&format!("{long} (rsProcessingAborted)")),
            "<html><body><h1>Sign in</h1></body></html>".to_owned(),
            "<soap:Envelope xmlns:soap=\"http://schemas.xmlsoap.org/soap/envelope/\"><soap:Body><soap:Fault><faultstring>long</faultstring><detail><Message>No right. (rsAccessDenied)</Message></detail></soap:Fault></soap:Body></soap:Envelope>".to_owned(),
        ];
        let shown = cases.map(|text| {
            let error = not_csv(StatusCode::OK, html(), text, "/Sales/Orders");
            format!("{} {:?}: {error}\n  {}", error.kind().name(), error.retrying(), error.what_to_do().unwrap_or("-"))
        });
        insta::assert_snapshot!(shown.join("\n"));
    }

    #[test]
    fn codes_are_told_from_words() {
        let check = |text: &str, expect: &[&str]| assert_eq!(codes(text).collect::<Vec<_>>(), expect, "{text}");
        check("rs:Command=Render users rsa rsAB", &[]);
        check("(rsItemNotFound)rsAccessDenied.", &["rsItemNotFound", "rsAccessDenied"]);
        check("carsNotFound rsNot_Found rs1Found rsnotFound", &[]);
        assert!(denied(&page("no (rsAccessDenied)")) && !denied("401 Unauthorized"));
    }

    #[test]
    fn csv_is_told_from_pages() {
        let kind = |kind: &str| [(header::CONTENT_TYPE, kind.parse().unwrap())].into_iter().collect::<HeaderMap>();
        for (headers, beginning, expect) in [
            (kind("text/csv"), "A,B\r\n", true),
            (kind("text/csv; charset=utf-8"), "\u{feff}A,B\r\n", true),
            (kind("application/octet-stream"), "A", true),
            (HeaderMap::new(), "", true),
            (kind("text/csv"), "<tag>,B", true),
            (kind("text/html"), "A,B", false),
            (kind("TEXT/HTML;charset=x"), "A,B", false),
            (kind("text/csv"), "\u{feff}\r\n <!DOCTYPE html>", false),
            (HeaderMap::new(), "<html>", false),
            (kind("text/plain"), "<?xml version", false),
        ] {
            assert_eq!(is_csv(&headers, beginning.as_bytes()), expect, "{headers:?} {beginning}");
        }
    }
}
