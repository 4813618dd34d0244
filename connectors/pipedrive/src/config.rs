//! What the config file says of an account; of a [`sink`] and a [`source`] in files of their own. These comments are the only documentation
//! of the fields.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::Deserialize;
use towpath_core::{Error, Period, Result, Secret, Share};
use towpath_http::{Auth, ClientAuth, HttpOptions, OAuth2, Url};

use crate::budget::SignIn;

mod sink;
mod source;

pub use sink::{FieldFrom, LinkOptions, NameOrId, OnDuplicate, OnMissing, SinkOptions, Source};
pub use source::SourceOptions;

/// Which account, and how to sign in.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub struct AccountOptions {
    /// The account's address: `https://acme.pipedrive.com`. Either this or `company`.
    #[serde(default)]
    pub url: Option<String>,
    /// The company's name in the address: `acme` for `https://acme.pipedrive.com`.
    #[serde(default)]
    pub company: Option<String>,
    /// The API token of a user (Settings, Personal preferences, API). Either this or `oauth2`.
    #[serde(default)]
    pub api_token: Option<Secret>,
    /// An app's OAuth 2.0 credentials. Either this or `api_token`.
    #[serde(default)]
    pub oauth2: Option<OAuth2Options>,
    /// What the company's plan lets it spend, and how much of it is ours.
    #[serde(default)]
    pub budget: BudgetOptions,
    /// Records on a page of a list, at most 500. A page costs the same whatever its size. Default: 500
    #[serde(default)]
    pub page_size: Option<u32>,
}

/// An app's OAuth 2.0 credentials. Refresh tokens are used once: the new one is stored in the state directory before it is used, and is
/// the one that counts from then on.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OAuth2Options {
    /// The app's id.
    pub client_id: String,
    /// The app's secret.
    pub client_secret: Secret,
    /// The first refresh token, from the app's installation.
    pub refresh_token: Secret,
    /// Where tokens are exchanged. Default: `https://oauth.pipedrive.com/oauth/token`
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub token_url: Option<Url>,
    /// How long an access token is good where the answer does not say. Default: 1h
    #[serde(default = "an_hour")]
    pub expires_in: Period,
}

/// The vendor's plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Plan {
    /// Lite: 30,000 tokens a day for a seat, 20 requests in 2 s.
    Lite,
    /// Growth: twice the tokens, 40 requests in 2 s.
    Growth,
    /// Premium: five times the tokens, 100 requests in 2 s.
    Premium,
    /// Ultimate: seven times the tokens, 120 requests in 2 s.
    Ultimate,
}

/// What the company's plan lets it spend. The day's tokens are the whole company's: `share` leaves room for its other tools.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BudgetOptions {
    /// The company's plan. Default: not known; requests are paced as for Lite, and the day ends when Pipedrive says so
    pub plan: Option<Plan>,
    /// How many seats are paid for: the day's tokens grow with them. Default: 1
    pub seats: NonZeroU32,
    /// How much of the day's tokens is ours. The burst window is ours as a whole. Default: 100%
    pub share: Share,
    /// The hour (0 to 23) at which the vendor's day begins. Default: 0
    pub resets_at: i8,
    /// The time zone of that hour. Default: UTC
    pub time_zone: String,
}

impl Default for BudgetOptions {
    fn default() -> Self {
        Self { plan: None, seats: NonZeroU32::MIN, share: Share(1.0), resets_at: 0, time_zone: "UTC".to_owned() }
    }
}

/// Where the vendor exchanges tokens.
const TOKENS: &str = "https://oauth.pipedrive.com/oauth/token";
/// The most records that a page may have.
const LARGEST_PAGE: u32 = 500;

impl AccountOptions {
    /// The account's address, without a path.
    ///
    /// # Errors
    /// Config.
    pub fn base(&self) -> Result<Url> {
        let url = match (&self.url, &self.company) {
            (Some(url), None) => Url::parse(url).map_err(|_| not_an_address(url))?,
            (None, Some(company)) => {
                let right = !company.is_empty() && company.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
                let url = format!("https://{company}.pipedrive.com");
                let url = Url::parse(&url).ok().filter(|_| right);
                url.ok_or_else(|| {
                    Error::config(format!("company: '{company}' is not a company's name in an address"))
                        .hint("write acme for https://acme.pipedrive.com, or set `url`")
                })?
            }
            (Some(_), Some(_)) => {
                return Err(Error::config("url and company say the same").hint("leave one of them out"));
            }
            (None, None) => {
                return Err(Error::config("neither url nor company is set")
                    .hint("set company: acme for https://acme.pipedrive.com"));
            }
        };
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(not_an_address(self.url.as_deref().unwrap_or_default()));
        }
        let mut url = url;
        // Whoever pastes the address of the API means the account.
        let path = url.path().trim_end_matches('/').to_owned();
        let path =
            ["/api/v2", "/api/v1", "/v1"].iter().find_map(|end| path.strip_suffix(end)).unwrap_or(&path).to_owned();
        url.set_path(&path);
        url.set_query(None);
        url.set_fragment(None);
        Ok(url)
    }

    /// How calls are let in.
    pub fn sign_in(&self) -> SignIn {
        if self.oauth2.is_some() { SignIn::OAuth } else { SignIn::ApiToken }
    }

    /// Records on a page.
    ///
    /// # Errors
    /// Config.
    pub fn page(&self) -> Result<u32> {
        match self.page_size.unwrap_or(LARGEST_PAGE) {
            size @ 1..=LARGEST_PAGE => Ok(size),
            size => Err(Error::config(format!("page_size: {size} is not between 1 and {LARGEST_PAGE}"))),
        }
    }

    /// The HTTP options with the credential in them.
    ///
    /// # Errors
    /// Config.
    pub fn http(&self, http: &HttpOptions) -> Result<HttpOptions> {
        if !matches!(http.auth, Auth::None) {
            return Err(
                Error::config("auth: Pipedrive has ways of its own to sign in").hint("set `api_token` or `oauth2`")
            );
        }
        let auth = match (&self.api_token, &self.oauth2) {
            (Some(token), None) if token.expose().trim().is_empty() => {
                return Err(Error::config("api_token is empty").hint("see whether the variable it comes from is set"));
            }
            (Some(token), None) => {
                Auth::ApiKey { header: Some("x-api-token".to_owned()), query: None, value: token.clone() }
            }
            (None, Some(app)) => Auth::OAuth2(OAuth2 {
                token_url: app.token_url.as_ref().map_or(TOKENS, Url::as_str).to_owned(),
                client_id: app.client_id.clone(),
                client_secret: Some(app.client_secret.clone()),
                refresh_token: Some(app.refresh_token.clone()),
                scope: None,
                expires_in: app.expires_in,
                client_auth: ClientAuth::Header,
            }),
            (Some(_), Some(_)) => {
                return Err(Error::config("api_token and oauth2 are two ways to sign in").hint("leave one of them out"));
            }
            (None, None) => {
                let hint = "set api_token: \"${PIPEDRIVE_API_TOKEN}\"";
                return Err(Error::config("neither api_token nor oauth2 is set").hint(hint));
            }
        };
        Ok(HttpOptions { auth, ..http.clone() })
    }
}

fn not_an_address(url: &str) -> Error {
    let right = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    let host = match url.trim() {
        "" => "acme.pipedrive.com".to_owned(),
        name if name.contains('.') && name.chars().all(right) => name.to_owned(),
        name if name.chars().all(right) => format!("{name}.pipedrive.com"),
        _ => "acme.pipedrive.com".to_owned(),
    };
    Error::config(format!("url: '{url}' is not an http or https address")).hint(format!("write https://{host}"))
}

fn an_hour() -> Period {
    Period::seconds(3600)
}

#[cfg(test)]
mod tests;
