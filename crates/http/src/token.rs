//! The ways to sign in as they stand in headers.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, header};
use towpath_core::{Error, Result};

use crate::options::Auth;

/// `CORP\loader`, or the name as it stands.
pub(crate) fn account(domain: Option<&str>, username: &str) -> String {
    match domain {
        Some(domain) if !domain.is_empty() => format!("{domain}\\{username}"),
        _ => username.to_owned(),
    }
}

/// The value of `Authorization` for a token.
pub(crate) fn authorization(scheme: &str, token: &[u8]) -> Result<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("{scheme} {}", STANDARD.encode(token)))
        .map_err(|error| Error::internal("a token does not fit into a header").because(error))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The token of the server's challenge in a scheme; `None` if the scheme is offered without one, or not at all.
///
/// # Errors
/// Data, if the token is not base64.
pub(crate) fn challenge(headers: &HeaderMap, scheme: &str) -> Result<Option<Vec<u8>>> {
    let mut tokens = challenges(headers).filter(|(name, token)| name.eq_ignore_ascii_case(scheme) && !token.is_empty());
    let Some((_, token)) = tokens.next() else { return Ok(None) };
    let token = STANDARD.decode(token);
    token
        .map(Some)
        .map_err(|error| Error::data(format!("the server's {scheme} challenge is not base64")).because(error))
}

/// The scheme an `auth` speaks, where it has one.
pub(crate) fn wanted(auth: &Auth) -> Option<&'static str> {
    match auth {
        Auth::None | Auth::ApiKey { .. } => None,
        Auth::Basic { .. } => Some("Basic"),
        Auth::Bearer { .. } | Auth::OAuth2(_) => Some("Bearer"),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (header::WWW_AUTHENTICATE, value.parse().unwrap())).collect()
    }

    #[test]
    fn offers_are_read() {
        for (values, expected) in [
            (vec![], vec![]),
            (vec!["NTLM"], vec!["NTLM"]),
            (vec!["Negotiate", "NTLM"], vec!["Negotiate", "NTLM"]),
            (vec!["Negotiate, NTLM, Basic realm=\"a, b\""], vec!["Negotiate", "NTLM", "Basic"]),
            (vec!["Digest realm=\"a\\\", NTLM\", qop=\"auth\", nonce=\"x\"", "ntlm", "NTLM"], vec!["Digest", "ntlm"]),
            (vec!["Negotiate oYG2MIGz="], vec!["Negotiate"]),
            (vec!["Bearer error=\"x\", error_description = \"y\""], vec!["Bearer"]),
        ] {
            assert_eq!(schemes(&headers(&values)), expected, "{values:?}");
        }
    }

    #[test]
    fn challenges_are_read() {
        for (values, scheme, expected) in [
            (vec!["NTLM"], "NTLM", Some(None)),
            (vec!["NTLM YWJj"], "NTLM", Some(Some("abc"))),
            (vec!["Negotiate, ntlm YWI="], "NTLM", Some(Some("ab"))),
            (vec!["Negotiate YWI="], "NTLM", Some(None)),
            (vec!["Basic realm=\"x\"", "Negotiate YWI="], "Negotiate", Some(Some("ab"))),
            (vec!["NTLM !"], "NTLM", None),
        ] {
            let found = challenge(&headers(&values), scheme).ok();
            let expected = expected.map(|token| token.map(|token| token.as_bytes().to_vec()));
            assert_eq!(found, expected, "{values:?} {scheme}");
        }
    }

    #[test]
    fn advice_names_what_can_be_set() {
        for (offered, expected) in [
            (vec!["Negotiate", "NTLM"], "set auth.type to ntlm or negotiate"),
            (vec!["basic"], "set auth.type to basic"),
            (vec!["Digest"], "check how the server wants to be signed in to"),
        ] {
            let offered: Vec<String> = offered.into_iter().map(str::to_owned).collect();
            assert_eq!(advice(&offered), expected);
        }
        assert_eq!(account(Some("CORP"), "loader"), "CORP\\loader");
        assert_eq!(account(Some(""), "loader"), "loader");
        assert_eq!(account(None, "loader@corp.example"), "loader@corp.example");
    }
}
