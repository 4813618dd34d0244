//! What the config file says of a source.

use schemars::JsonSchema;
use serde::Deserialize;
use towpath_core::{Error, Result};
use towpath_http::HttpOptions;

use super::AccountOptions;
use crate::entity::Entity;

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
    pub updated_since: Option<moment::Moment>,
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
mod moment {
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
