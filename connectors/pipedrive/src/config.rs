//! What the config file says of an account, a sink and a source. These comments are the only documentation of the fields.

use std::{collections::BTreeMap, num::NonZeroU32};

use schemars::JsonSchema;
use serde::Deserialize;
use towpath_core::{Error, Period, Result, Secret, Share};
use towpath_http::{Auth, HttpOptions, Url};

use crate::entity::Entity;

/// Which account, and how to sign in.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub struct AccountOptions {
    /// The account's address: `https://acme.pipedrive.com`. Either this or `company`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub url: Option<Url>,
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

/// Options of the `pipedrive` sink.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SinkOptions {
    /// The account.
    #[serde(flatten)]
    pub account: AccountOptions,
    /// What is written: persons, deals, organizations, products or activities.
    pub entity: Entity,
    /// The field that tells records apart, by its name (`CustomerID`); it must be among `fields`. Its 40-letter key is looked up in each
    /// run, and a name that has come to mean another field stops the run.
    pub match_on: String,
    /// Fields by their names, and where their values come from: a column (`Title: title`), a column with its currency (`Value: {column:
    /// total, currency: currency}`), or a value (`Status: {value: open}`).
    pub fields: BTreeMap<String, FieldFrom>,
    /// Links to other records by a field of theirs, by the name of the link: `person_id: {entity: persons, match_on: CustomerID, from:
    /// customer_id}`.
    #[serde(default)]
    pub link: BTreeMap<String, LinkOptions>,
    /// What becomes of a row whose key several records have: the row is refused, or the record made first is the one, or the one made
    /// last. Default: error
    #[serde(default)]
    pub on_duplicate_match: OnDuplicate,
    /// What becomes of a record whose key no row has, when all rows have been given and none was refused: nothing, a deal is set to lost
    /// if it is open, or it is deleted. Records without a key are never touched. Default: keep
    #[serde(default)]
    pub on_missing: OnMissing,
    /// More than this share of the records with a key are never closed or deleted in one run: the run stops before the first. Default: 5%
    #[serde(default = "five_percent")]
    pub max_deletes: Share,
    /// Whether records that are missing are made. Default: true
    #[serde(default = "yes")]
    pub create: bool,
    /// Whether records that differ are changed. Default: true
    #[serde(default = "yes")]
    pub update: bool,
    /// Fields that are filled where they are empty, and otherwise left as people have set them: `true` for all, or a list of names.
    /// Default: false
    #[serde(default)]
    pub only_empty: OnlyEmpty,
    /// Who owns the records that are made: a user's name, e-mail address or id. Records that are there keep their owner; to set it from
    /// a column, map the field `Owner`. Default: the token's user
    #[serde(default)]
    pub owner: Option<NameOrId>,
    /// The pipeline, by its name, in which deals are made; those that are there stay where they are. Default: the account's first
    #[serde(default)]
    pub pipeline: Option<String>,
    /// The stage, by its name, in which deals are made. Default: the pipeline's first
    #[serde(default)]
    pub stage: Option<String>,
    /// How many writes are under way at once. Default: 4
    #[serde(default = "four")]
    pub workers: NonZeroU32,
    /// How long a record that was made may be missing from the vendor's lists. So long is waited before a create whose answer was lost is
    /// looked for, and sent again if it is not there. Default: 10s
    #[serde(default = "ten_seconds")]
    pub settle: Period,
    /// How to speak with the server.
    #[serde(flatten)]
    pub http: HttpOptions,
}

/// Where a field's value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "write a column's name, or {column: …, currency: …}, or {value: …}")]
pub enum FieldFrom {
    /// The column of this name.
    Column(String),
    /// Said part by part.
    Parts(FieldParts),
}

/// Where a field's value comes from, part by part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FieldParts {
    /// The column. Either this or `value`.
    pub column: Option<String>,
    /// The same for all rows. Either this or `column`.
    pub value: Option<Literal>,
    /// The currency of an amount: a column's name, or `{value: EUR}`.
    pub currency: Option<CurrencyFrom>,
}

/// A value that is the same for all rows.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "write a text, a number, true or false")]
pub enum Literal {
    /// A text.
    Text(String),
    /// A whole number.
    Whole(i64),
    /// True or false.
    Truth(bool),
}

/// Where a currency comes from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "write a column's name, or {value: EUR}")]
pub enum CurrencyFrom {
    /// The column of this name.
    Column(String),
    /// The same for all rows.
    Fixed(FixedCurrency),
}

/// A currency that is the same for all rows.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FixedCurrency {
    /// Its code, such as EUR.
    pub value: String,
}

/// A link to a record of another kind.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkOptions {
    /// What is linked.
    pub entity: Entity,
    /// The field of what is linked, by its name.
    pub match_on: String,
    /// The column with that field's value. A row without one has no link.
    pub from: String,
}

/// What becomes of a row whose key several records have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnDuplicate {
    /// The row is refused.
    #[default]
    Error,
    /// The record that was made first is the one.
    First,
    /// The record that was made last is the one.
    Newest,
}

/// What becomes of a record whose key no row has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnMissing {
    /// Nothing.
    #[default]
    Keep,
    /// A deal that is open is set to lost.
    Close,
    /// It is deleted. Pipedrive keeps it for 30 days.
    Delete,
}

/// Which fields are only filled where they are empty.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "write true, false, or a list of fields")]
pub enum OnlyEmpty {
    /// All of them, or none.
    All(bool),
    /// These.
    Fields(Vec<String>),
}

impl Default for OnlyEmpty {
    fn default() -> Self {
        Self::All(false)
    }
}

/// Somebody or something by name or by id.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "write a name or an id")]
pub enum NameOrId {
    /// The id.
    Id(u64),
    /// The name.
    Name(String),
}

/// Options of the `pipedrive` source.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceOptions {
    /// The account.
    #[serde(flatten)]
    pub account: AccountOptions,
    /// What is read: persons, deals, organizations, products, activities, or another list of the API v2 by the end of its path
    /// (`pipelines`, `stages`). Not needed for `discover`.
    #[serde(default)]
    pub entity: String,
    /// Which fields, by name or key. `id` and `update_time` always come first. Default: all
    #[serde(default)]
    pub fields: Option<Vec<String>>,
    /// Read only what has changed since the last run. A record that changed in between comes again: the sink needs a key. Default: true
    /// where the list can (persons, deals, organizations, products, activities)
    #[serde(default)]
    pub incremental: Option<bool>,
    /// Where the first run of an incremental reading begins: `2026-01-01T00:00:00Z`. Default: with everything
    #[serde(default)]
    pub updated_since: Option<jiff_timestamp::Moment>,
    /// Read deleted deals too; the column `is_deleted` tells them. Deals only. Default: false
    #[serde(default)]
    pub deleted: bool,
    /// Read archived deals too; the column `is_archived` tells them. Deals only. Default: false
    #[serde(default)]
    pub archived: bool,
    /// The id of a filter that somebody has made in Pipedrive: only what it shows is read.
    #[serde(default)]
    pub filter_id: Option<u64>,
    /// How to speak with the server.
    #[serde(flatten)]
    pub http: HttpOptions,
}

/// A moment, as the config writes it.
pub mod jiff_timestamp {
    use std::borrow::Cow;

    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
    use serde::{Deserialize, Deserializer, de::Error as _};

    /// A moment with its zone: `2026-01-01T00:00:00Z`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Moment(pub jiff::Timestamp);

    impl<'de> Deserialize<'de> for Moment {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = Cow::<'de, str>::deserialize(deserializer)?;
            let wrong = |_| D::Error::custom(format!("'{text}' is not a moment; write 2026-01-01T00:00:00Z"));
            text.parse().map(Self).map_err(wrong)
        }
    }

    impl JsonSchema for Moment {
        fn schema_name() -> Cow<'static, str> {
            "Moment".into()
        }
        fn inline_schema() -> bool {
            true
        }
        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({ "type": "string", "format": "date-time", "examples": ["2026-01-01T00:00:00Z"] })
        }
    }
}

/// The most records that a page may have.
const LARGEST_PAGE: u32 = 500;

impl AccountOptions {
    /// The account's address, without a path.
    ///
    /// # Errors
    /// Config.
    pub fn base(&self) -> Result<Url> {
        let url = match (&self.url, &self.company) {
            (Some(url), None) => url.clone(),
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
            return Err(Error::config("url: not an http or https address").hint("write https://acme.pipedrive.com"));
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
            (Some(token), None) => {
                Auth::ApiKey { header: Some("x-api-token".to_owned()), query: None, value: token.clone() }
            }
            (None, Some(_)) => Auth::None,
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

impl SinkOptions {
    /// Finds what does not go together, as far as that can be told without the account.
    ///
    /// # Errors
    /// Config.
    pub fn check(&self) -> Result<()> {
        self.account.base()?;
        self.account.page()?;
        self.account.http(&self.http)?;
        if self.fields.is_empty() {
            return Err(
                Error::config("fields: none is mapped").hint("write the match_on field and its column at least")
            );
        }
        for (name, from) in &self.fields {
            from.parts().map_err(|what| Error::config(format!("fields.{name}: {what}")))?;
        }
        match self.fields.get(&self.match_on).map(FieldFrom::parts) {
            Some(Ok((Source::Column(_), None))) => {}
            Some(_) => {
                return Err(Error::config(format!(
                    "fields.{}: the field that records are matched on takes a column",
                    self.match_on
                )));
            }
            None => {
                let hint = format!("add `{}: the_column_with_its_values` to fields", self.match_on);
                return Err(Error::config(format!("match_on: {} is not among the fields", self.match_on)).hint(hint));
            }
        }
        let deals = self.entity == Entity::Deals;
        for (option, set) in [("pipeline", self.pipeline.is_some()), ("stage", self.stage.is_some())] {
            if set && !deals {
                return Err(Error::config(format!("{option}: only deals have one")).hint("leave it out"));
            }
        }
        if self.on_missing == OnMissing::Close && !deals {
            return Err(Error::config("on_missing: only deals can be closed").hint("write keep or delete"));
        }
        if let Some((name, _)) = self.link.iter().find(|(_, link)| link.entity == self.entity) {
            return Err(Error::config(format!("link.{name}: records are not linked with others of their own kind")));
        }
        if let Some(name) = self.link.keys().find(|name| self.fields.contains_key(*name)) {
            return Err(
                Error::config(format!("link.{name}: it is among the fields as well")).hint("leave one of them out")
            );
        }
        if let OnlyEmpty::Fields(fields) = &self.only_empty
            && let Some(unknown) =
                fields.iter().find(|field| !self.fields.contains_key(*field) && !self.link.contains_key(*field))
        {
            return Err(Error::config(format!("only_empty: {unknown} is not among the fields")));
        }
        Ok(())
    }
    /// Whether a field is only filled where it is empty.
    pub fn is_only_empty(&self, field: &str) -> bool {
        match &self.only_empty {
            OnlyEmpty::All(all) => *all && field != self.match_on,
            OnlyEmpty::Fields(fields) => fields.iter().any(|name| name == field),
        }
    }
}

impl SourceOptions {
    /// Finds what does not go together.
    ///
    /// # Errors
    /// Config.
    pub fn check(&self) -> Result<()> {
        self.account.base()?;
        self.account.page()?;
        self.account.http(&self.http)?;
        let right = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '/' | '-');
        if !self.entity.chars().all(right) || self.entity.starts_with('/') {
            return Err(Error::config(format!("entity: '{}' is not the end of a list's path", self.entity)));
        }
        let known = Entity::named(&self.entity);
        for (option, set) in [("deleted", self.deleted), ("archived", self.archived)] {
            if set && known != Some(Entity::Deals) {
                return Err(Error::config(format!("{option}: only deals are listed so")).hint("leave it out"));
            }
        }
        let by_time =
            [("incremental", self.incremental == Some(true)), ("updated_since", self.updated_since.is_some())];
        for (option, set) in by_time {
            if set && known.is_none() && !self.entity.is_empty() {
                return Err(Error::config(format!("{option}: {} does not say what has changed", self.entity))
                    .hint("leave it out"));
            }
        }
        if self.updated_since.is_some() && self.incremental == Some(false) {
            return Err(Error::config("updated_since: it is where an incremental reading begins")
                .hint("leave `incremental: false` out"));
        }
        Ok(())
    }
}

/// A column, or a value for all rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The column of this name.
    Column(String),
    /// This, as text.
    Fixed(String),
}

impl FieldFrom {
    /// The value's source, and the currency's where there is one.
    ///
    /// # Errors
    /// What is wrong.
    pub fn parts(&self) -> Result<(Source, Option<Source>), &'static str> {
        let parts = match self {
            Self::Column(column) => return Ok((Source::Column(column.clone()), None)),
            Self::Parts(parts) => parts,
        };
        let value = match (&parts.column, &parts.value) {
            (Some(column), None) => Source::Column(column.clone()),
            (None, Some(literal)) => Source::Fixed(match literal {
                Literal::Text(text) => text.clone(),
                Literal::Whole(number) => number.to_string(),
                Literal::Truth(truth) => truth.to_string(),
            }),
            _ => return Err("write either column or value"),
        };
        let currency = parts.currency.as_ref().map(|currency| match currency {
            CurrencyFrom::Column(column) => Source::Column(column.clone()),
            CurrencyFrom::Fixed(fixed) => Source::Fixed(fixed.value.clone()),
        });
        Ok((value, currency))
    }
}

fn yes() -> bool {
    true
}
fn five_percent() -> Share {
    Share(0.05)
}
fn four() -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(3)
}
fn ten_seconds() -> Period {
    Period::seconds(10)
}
