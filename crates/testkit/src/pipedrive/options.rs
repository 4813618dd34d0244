//! What an account and its server are like, and what nobody knows about the real one.

use std::time::Duration;

/// The plan a company pays for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plan {
    /// 30,000 tokens a seat a day, 20 calls in 2 s.
    #[default]
    Lite,
    /// Twice the tokens, 40 calls.
    Growth,
    /// Five times the tokens, 100 calls.
    Premium,
    /// Seven times the tokens, 120 calls.
    Ultimate,
}

impl Plan {
    /// The one of this name, in lower case.
    pub fn of_name(name: &str) -> Option<Self> {
        match name {
            "lite" => Some(Self::Lite),
            "growth" => Some(Self::Growth),
            "premium" => Some(Self::Premium),
            "ultimate" => Some(Self::Ultimate),
            _ => None,
        }
    }
    /// What the day's 30,000 tokens of a seat are multiplied by.
    pub fn factor(self) -> u64 {
        match self {
            Self::Lite => 1,
            Self::Growth => 2,
            Self::Premium => 5,
            Self::Ultimate => 7,
        }
    }
    /// Calls in any 2 seconds with an API token.
    pub fn burst(self) -> usize {
        match self {
            Self::Lite => 20,
            Self::Growth => 40,
            Self::Premium => 100,
            Self::Ultimate => 120,
        }
    }
    /// The same with an access token of OAuth.
    pub fn burst_of_oauth(self) -> usize {
        4 * self.burst()
    }
}

/// What a server is like.
#[derive(Clone, Debug)]
pub struct PipedriveOptions {
    /// Where it listens on 127.0.0.1; `None`: a free port.
    pub port: Option<u16>,
    /// The API token of user 1.
    pub api_token: String,
    /// The plan.
    pub plan: Plan,
    /// Seats that are paid for.
    pub seats: u64,
    /// Tokens bought on top, of each day.
    pub top_up: u64,
    /// Calls in any 2 seconds, whatever the plan says: for tests that are about something else.
    pub burst: Option<usize>,
    /// The hour (UTC) at which a day ends at the vendor's.
    pub reset_hour: i8,
    /// What the keys of custom fields and ids of options come from: two seeds are two accounts.
    pub seed: String,
    /// The company's currency.
    pub currency: String,
    /// Open deals an account may have: the next one is 403 `feature_capping_deals_limit`.
    pub deals_limit: Option<u64>,
    /// The app "Contact Sync": persons have a job title, a birthday and the like. Without it, who sends one is answered 403.
    pub contact_sync: bool,
    /// How long an answer takes.
    pub latency: Duration,
    /// An app that may come in by OAuth.
    pub oauth: Option<OAuthApp>,
    /// The time the clock starts at, in seconds since 1970; `None`: now.
    pub starts_at: Option<i64>,
    /// Whether the clock stands until it is put forward: what is in a window is exact then.
    pub clock_stands: bool,
    /// What is not established.
    pub unsettled: Unsettled,
}

impl Default for PipedriveOptions {
    fn default() -> Self {
        Self {
            port: None,
            api_token: "towpath-test-token".to_owned(),
            plan: Plan::Lite,
            seats: 1,
            top_up: 0,
            burst: None,
            reset_hour: 0,
            seed: "towpath".to_owned(),
            currency: "EUR".to_owned(),
            deals_limit: None,
            contact_sync: false,
            latency: Duration::ZERO,
            oauth: None,
            starts_at: None,
            clock_stands: false,
            unsettled: Unsettled::default(),
        }
    }
}

/// An app registered with the vendor, installed in the company.
#[derive(Clone, Debug)]
pub struct OAuthApp {
    /// Its id.
    pub client_id: String,
    /// Its secret.
    pub client_secret: String,
    /// The code its user came back with; it is good once.
    pub code: String,
    /// The refresh token it already has.
    pub refresh_token: String,
    /// How long an access token is good.
    pub lifetime: Duration,
    /// Whether the answer tells so (`expires_in`).
    pub tells_expiry: bool,
    /// Whether a refresh token is good once. (The vendor documents so; apps have lived without.)
    pub refresh_tokens_once: bool,
}

impl Default for OAuthApp {
    fn default() -> Self {
        Self {
            client_id: "towpath-app".to_owned(),
            client_secret: "towpath-secret".to_owned(),
            code: "towpath-code".to_owned(),
            refresh_token: "towpath-refresh-0".to_owned(),
            lifetime: Duration::from_secs(3600),
            tells_expiry: true,
            refresh_tokens_once: true,
        }
    }
}

/// The body of a 429 of the burst limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Burst429 {
    /// JSON, as the vendor's other errors.
    #[default]
    Json,
    /// A line of text, as from a gateway.
    Text,
    /// A page, as from a proxy.
    Html,
    /// Nothing.
    Empty,
}

/// What `x-daily-requests-left` counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestsLeft {
    /// Tokens.
    #[default]
    Tokens,
    /// POST and PUT requests, as the header was documented before there were tokens: tokens over five.
    Writes,
    /// It is not sent.
    Absent,
}

/// What the server says of a record that was deleted in the last 30 days.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deleted {
    /// 404, whatever is asked.
    #[default]
    NotFound,
    /// 410, whatever is asked.
    Gone,
    /// A GET shows it with `is_deleted: true`; a PATCH or DELETE is 404.
    Readable,
}

/// How pages follow each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cursors {
    /// A cursor holds the last record's sort key: what is inserted or deleted does not shift what comes.
    #[default]
    Keyset,
    /// A cursor holds a number of records: what others insert or delete before it shifts the pages.
    Offset,
}

/// How a person's name is taken apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NameSplit {
    /// The first word is the first name.
    #[default]
    First,
    /// The last word is the last name.
    Last,
}

/// Facts that are not established: a client must live with either setting.
#[derive(Clone, Debug)]
pub struct Unsettled {
    /// The body of a burst 429.
    pub burst_429: Burst429,
    /// Whether a burst 429 comes with `retry-after`.
    pub burst_retry_after: bool,
    /// Whether the daily 429 comes with `retry-after` (seconds until the day ends).
    pub daily_retry_after: bool,
    /// Whether answers of 400, 403, 404 and 410 cost tokens.
    pub failures_cost: bool,
    /// Whether answers tell of the burst window (`x-ratelimit-*`).
    pub burst_headers: bool,
    /// What `x-daily-requests-left` tells. It is sent to API tokens only.
    pub requests_left: RequestsLeft,
    /// Whether `x-daily-ratelimit-token-limit` and `-remaining` are sent: they are not documented, but have been seen.
    pub token_headers: bool,
    /// How long a record is not found by searching.
    pub search_lag: Duration,
    /// Whether custom fields without a value are listed, as null.
    pub null_custom_fields: bool,
    /// Whether a PATCH of `emails` or `phones` adds to what is there; default: it takes its place.
    pub contacts_are_merged: bool,
    /// The status of a creation: 200 or 201.
    pub created_status: u16,
    /// Whether what links to a person or organization is unlinked when that is deleted; else it keeps the id.
    pub deletion_unlinks: bool,
    /// What is said of deleted records.
    pub deleted: Deleted,
    /// How pages follow each other.
    pub cursors: Cursors,
    /// How names are taken apart.
    pub name_split: NameSplit,
    /// Whether instants in answers have milliseconds: `2026-01-01T00:00:00.000Z`. They are whole seconds all the same.
    pub times_have_millis: bool,
    /// Whether texts lose the blanks around them.
    pub trims: bool,
    /// Whether a body with a key that the specification does not know is refused; else the key is ignored.
    pub unknown_keys_refused: bool,
    /// Whether `first_name` and `last_name` may be written; the specification has them in answers only.
    pub name_parts_writable: bool,
    /// After so many 429s, each within 10 s of the one before, who goes on with an API token is answered 403 with a page, for a minute.
    pub abuse_after: u32,
}

impl Default for Unsettled {
    fn default() -> Self {
        Self {
            burst_429: Burst429::default(),
            burst_retry_after: false,
            daily_retry_after: true,
            failures_cost: true,
            burst_headers: true,
            requests_left: RequestsLeft::default(),
            token_headers: false,
            search_lag: Duration::from_secs(5),
            null_custom_fields: true,
            contacts_are_merged: false,
            created_status: 200,
            deletion_unlinks: false,
            deleted: Deleted::default(),
            cursors: Cursors::default(),
            name_split: NameSplit::default(),
            times_have_millis: false,
            trims: true,
            unknown_keys_refused: true,
            name_parts_writable: true,
            abuse_after: 20,
        }
    }
}

impl Unsettled {
    /// The other setting of everything: what a test runs a second time with.
    pub fn other_way() -> Self {
        Self {
            burst_429: Burst429::Html,
            burst_retry_after: true,
            daily_retry_after: false,
            failures_cost: false,
            burst_headers: false,
            requests_left: RequestsLeft::Writes,
            token_headers: true,
            search_lag: Duration::ZERO,
            null_custom_fields: false,
            contacts_are_merged: true,
            created_status: 201,
            deletion_unlinks: true,
            deleted: Deleted::Readable,
            cursors: Cursors::Offset,
            name_split: NameSplit::Last,
            times_have_millis: true,
            trims: false,
            unknown_keys_refused: false,
            name_parts_writable: true,
            abuse_after: 5,
        }
    }
}
