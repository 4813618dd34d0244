//! What the config file says of a sink.

use std::{collections::BTreeMap, num::NonZeroU32};

use schemars::JsonSchema;
use serde::Deserialize;
use towpath_core::{Error, Period, Result, Share};
use towpath_http::HttpOptions;

use super::AccountOptions;
use crate::{entity::Entity, fields::nearest};

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
    /// Which one is linked where several have that value: the row is refused, or it is the one made first, or the one made last. What
    /// the sink says of its own records is not said of these. Default: error
    #[serde(default)]
    pub on_duplicate_match: OnDuplicate,
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
            let all = self.fields.keys().chain(self.link.keys()).map(String::as_str);
            let hint = match nearest(unknown, all.clone()).as_slice() {
                [] => format!("there are {}", all.collect::<Vec<_>>().join(", ")),
                near => format!("did you mean {}?", near.join(", ")),
            };
            return Err(Error::config(format!("only_empty: {unknown} is not among the fields")).hint(hint));
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
