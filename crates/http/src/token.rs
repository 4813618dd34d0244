//! The ways to sign in as they stand in headers.

use http::{HeaderMap, header};

use crate::options::Auth;

/// The scheme an `auth` speaks, where it has one.
pub(crate) fn wanted(auth: &Auth) -> Option<&'static str> {
    match auth {
        Auth::None | Auth::ApiKey { .. } => None,
        Auth::Basic { .. } => Some("Basic"),
        Auth::Bearer { .. } => Some("Bearer"),
        Auth::Ntlm { .. } => Some("NTLM"),
        Auth::Negotiate { .. } => Some("Negotiate"),
    }
}

/// The schemes a server offers, in its order, each once.
pub(crate) fn schemes(headers: &HeaderMap) -> Vec<String> {
    let mut found: Vec<String> = vec![];
    for challenge in challenges(headers) {
        if !found.iter().any(|known| known.eq_ignore_ascii_case(challenge.0)) {
            found.push(challenge.0.to_owned());
        }
    }
    found
}

/// Scheme and what follows it, for each challenge in each `WWW-Authenticate`.
fn challenges(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let values = headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| split(value).into_iter()).filter_map(|part| {
        let part = part.trim();
        let (scheme, rest) = part.split_once(char::is_whitespace).unwrap_or((part, ""));
        // `realm="x"` after a comma belongs to the challenge before it.
        let is_scheme = !scheme.is_empty() && !scheme.contains('=') && !rest.trim_start().starts_with('=');
        is_scheme.then_some((scheme, rest.trim()))
    })
}

/// Splits at the commas outside of quotes.
fn split(value: &str) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    value
        .split(move |c| {
            let inside = quoted;
            match c {
                _ if escaped => escaped = false,
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                _ => {}
            }
            c == ',' && !inside
        })
        .collect()
}

/// What to set for what a server offers.
pub(crate) fn advice(offered: &[String]) -> String {
    let known = [("ntlm", "NTLM"), ("negotiate", "Negotiate"), ("basic", "Basic"), ("bearer", "Bearer")];
    let fitting: Vec<&str> = known
        .iter()
        .filter(|(_, scheme)| offered.iter().any(|offered| offered.eq_ignore_ascii_case(scheme)))
        .map(|(option, _)| *option)
        .collect();
    if fitting.is_empty() {
        "check how the server wants to be signed in to".to_owned()
    } else {
        format!("set auth.type to {}", fitting.join(" or "))
    }
}
