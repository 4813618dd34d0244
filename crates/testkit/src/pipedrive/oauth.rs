//! The token endpoint: `authorization_code` and `refresh_token`, whose refresh tokens are good once.

use std::{collections::HashSet, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{OAuthApp, query::Query};

/// Tokens given out.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// Each access token and when it ends, counted from the start.
    access: Vec<(String, Duration)>,
    refresh: HashSet<String>,
    used_codes: HashSet<String>,
    given: u64,
}

impl Tokens {
    pub fn new(app: Option<&OAuthApp>) -> Self {
        let refresh = app.map(|app| app.refresh_token.clone()).into_iter().collect();
        Self { refresh, ..Self::default() }
    }

    pub fn is_good(&self, token: &str, now: Duration) -> bool {
        self.access.iter().any(|(known, until)| known == token && now < *until)
    }

    pub fn given(&self) -> u64 {
        self.given
    }

    /// Makes all access tokens end.
    pub fn expire(&mut self) {
        self.access.clear();
    }

    /// Makes all refresh tokens end, as when the app is uninstalled.
    pub fn revoke(&mut self) {
        self.access.clear();
        self.refresh.clear();
    }

    /// Answers a request for tokens.
    pub fn grant(
        &mut self,
        app: &OAuthApp,
        basic: Option<&str>,
        form: &str,
        api_domain: &str,
        now: Duration,
    ) -> (u16, Value) {
        let form = Query::new(form);
        let basic = basic.and_then(|header| header.strip_prefix("Basic "));
        let basic = basic.and_then(|text| STANDARD.decode(text).ok()).and_then(|bytes| String::from_utf8(bytes).ok());
        let given = basic.as_deref().and_then(|pair| pair.split_once(':'));
        let given = given.or_else(|| Some((form.get("client_id")?, form.get("client_secret")?)));
        if given != Some((&app.client_id, &app.client_secret)) {
            return refused(401, "invalid_client", "client authentication failed");
        }
        match form.get("grant_type") {
            Some("authorization_code") => {
                let code = form.get("code").unwrap_or_default();
                if code != app.code || !self.used_codes.insert(code.to_owned()) {
                    return refused(400, "invalid_grant", "authorization code is invalid or expired");
                }
            }
            Some("refresh_token") => {
                let token = form.get("refresh_token").unwrap_or_default();
                let known =
                    if app.refresh_tokens_once { self.refresh.remove(token) } else { self.refresh.contains(token) };
                if !known {
                    return refused(400, "invalid_grant", "refresh token is invalid or expired");
                }
            }
            _ => return refused(400, "unsupported_grant_type", "grant type is not supported"),
        }
        self.given += 1;
        let (access, refresh) = (format!("towpath-access-{}", self.given), format!("towpath-refresh-{}", self.given));
        self.access.push((access.clone(), now + app.lifetime));
        self.refresh.insert(refresh.clone());
        let mut body = json!({
            "access_token": access,
            "token_type": "Bearer",
            "refresh_token": refresh,
            "scope": "base,deals:full,contacts:full",
            "api_domain": api_domain,
        });
        if app.tells_expiry {
            body["expires_in"] = json!(app.lifetime.as_secs());
        }
        (200, body)
    }
}

fn refused(status: u16, error: &str, message: &str) -> (u16, Value) {
    (status, json!({ "success": false, "error": error, "message": message }))
}
