//! URLs as they may be shown: in messages, logs and reports.

use url::Url;

/// What stands in the place of a secret.
pub(crate) const CUT: &str = "***";

/// Parts of a query parameter's name that make its value a secret. A word too many costs a reader one value.
const SECRET_NAMES: [&str; 11] =
    ["token", "key", "secret", "password", "passwd", "pwd", "signature", "credential", "auth", "session", "jwt"];

/// The server of a URL, port included: `https://reports.example:443`. The scope of guards and credentials.
pub fn origin(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port_or_known_default() {
        Some(port) => format!("{}://{host}:{port}", url.scheme()),
        None => format!("{}://{host}", url.scheme()),
    }
}

/// A URL without what must not be seen: name and password, the values of query parameters whose name sounds like a secret
/// (`api_token`, `sig`, …), the fragment. The rest stands as it was written.
pub fn shown(url: &Url) -> String {
    shown_without(url, None)
}

/// The same; the value of the query parameter `also` is cut too.
pub(crate) fn shown_without(url: &Url, also: Option<&str>) -> String {
    let mut url = url.clone();
    url.set_fragment(None);
    // Fails for URLs that cannot have a name and password; those have none.
    if !url.username().is_empty() {
        let _ = url.set_username(CUT);
    }
    if url.password().is_some() {
        let _ = url.set_password(None);
    }
    let Some(query) = url.query() else { return url.into() };
    let mut text = String::with_capacity(url.as_str().len());
    text.push_str(url.as_str().split('?').next().unwrap_or_default());
    for (i, pair) in query.split('&').enumerate() {
        text.push(if i == 0 { '?' } else { '&' });
        match pair.split_once('=') {
            Some((name, value)) if !value.is_empty() && is_secret(name, also) => {
                text.push_str(name);
                text.push('=');
                text.push_str(CUT);
            }
            _ => text.push_str(pair),
        }
    }
    text
}

fn is_secret(name: &str, also: Option<&str>) -> bool {
    // An escaped name is read as the server reads it.
    let plain: String = url::form_urlencoded::parse(name.as_bytes()).map(|(name, _)| name.into_owned()).collect();
    let lower = plain.to_lowercase();
    also == Some(plain.as_str()) || lower == "sig" || SECRET_NAMES.iter().any(|part| lower.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_cut_out_and_the_rest_stands() {
        for (url, expected) in [
            ("https://a.example/x?y=1", "https://a.example/x?y=1"),
            ("https://joe:hunter2@a.example/x", "https://***@a.example/x"),
            ("https://a.example/x?api_token=abc&page=2", "https://a.example/x?api_token=***&page=2"),
            ("https://a.example/x?API%5FKey=abc", "https://a.example/x?API%5FKey=***"),
            ("https://a.example/x?sig=abc&sigma=1", "https://a.example/x?sig=***&sigma=1"),
            ("https://a.example/x?X-Amz-Signature=1", "https://a.example/x?X-Amz-Signature=***"),
            ("https://a.example/x?token=", "https://a.example/x?token="),
            (
                "http://a.example/ReportServer?/Sales/Orders&rs:Command=Render#top",
                "http://a.example/ReportServer?/Sales/Orders&rs:Command=Render",
            ),
        ] {
            assert_eq!(shown(&url.parse().unwrap()), expected, "{url}");
        }
        let url = "https://a.example/?k=abc&x=1".parse().unwrap();
        assert_eq!(shown_without(&url, Some("k")), "https://a.example/?k=***&x=1");
    }

    #[test]
    fn an_origin_names_its_port() {
        for (url, expected) in [
            ("https://a.example/x?y", "https://a.example:443"),
            ("http://a.example:80", "http://a.example:80"),
            ("http://joe:secret@[::1]:8080/", "http://[::1]:8080"),
        ] {
            assert_eq!(origin(&url.parse().unwrap()), expected, "{url}");
        }
    }
}
