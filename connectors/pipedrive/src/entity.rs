//! The kinds of records, and their standard fields: what the vendor's specification of the API v2 says of them.

use schemars::JsonSchema;
use serde::Deserialize;

/// A kind of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Entity {
    /// People.
    Persons,
    /// Deals.
    Deals,
    /// Organizations.
    Organizations,
    /// Products.
    Products,
    /// Activities.
    Activities,
}

/// How a standard field is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standard {
    /// Text.
    Text,
    /// A person's name: the vendor takes it apart and puts it together again, so that only one space stays between two words.
    Name,
    /// A number.
    Number,
    /// A deal's value: one that is not there is 0.
    Amount,
    /// A currency's code.
    Currency,
    /// True or false.
    Truth,
    /// A day.
    Date,
    /// A time of day.
    Time,
    /// An address in one line.
    Address,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Several of the field's options.
    Labels,
    /// E-mail addresses or phone numbers, of which the primary one is ours.
    Contacts,
    /// A record's id.
    Id(Entity),
    /// A user.
    User,
    /// A pipeline.
    Pipeline,
    /// A stage of a pipeline.
    Stage,
    /// Pipedrive writes it by itself.
    ReadOnly,
}

impl Entity {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Persons, Self::Deals, Self::Organizations, Self::Products, Self::Activities];

    /// The end of its path, which is also its name in the config.
    pub fn path(self) -> &'static str {
        match self {
            Self::Persons => "persons",
            Self::Deals => "deals",
            Self::Organizations => "organizations",
            Self::Products => "products",
            Self::Activities => "activities",
        }
    }
    /// The end of the path of its fields.
    pub fn fields_path(self) -> &'static str {
        match self {
            Self::Persons => "personFields",
            Self::Deals => "dealFields",
            Self::Organizations => "organizationFields",
            Self::Products => "productFields",
            Self::Activities => "activityFields",
        }
    }
    /// One of them, in words.
    pub fn one(self) -> &'static str {
        match self {
            Self::Persons => "person",
            Self::Deals => "deal",
            Self::Organizations => "organization",
            Self::Products => "product",
            Self::Activities => "activity",
        }
    }
    /// By the name in the config.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|entity| entity.path() == name)
    }
    /// The standard field without which none is made.
    pub fn required(self) -> &'static str {
        match self {
            Self::Deals => "title",
            Self::Activities => "subject",
            Self::Persons | Self::Organizations | Self::Products => "name",
        }
    }
    /// The code in the API v2 of a field that definitions, or people, call otherwise.
    pub fn code(self, code: &str) -> &str {
        match (self, code) {
            (_, "user_id") => "owner_id",
            (Self::Persons, "email") => "emails",
            (Self::Persons, "phone") => "phones",
            (_, "label") => "label_ids",
            _ => code,
        }
    }
    /// How a standard field of this code is written; `None`: not by this connector.
    pub fn standard(self, code: &str) -> Option<Standard> {
        use Standard::{
            Address, Amount, Contacts, Currency, Date, Id, Labels, Name, Number, Pipeline, ReadOnly, Stage, Text, Time,
            Truth, User, Word,
        };
        Some(match (self, code) {
            (_, "id" | "add_time" | "update_time" | "is_deleted" | "is_archived") => ReadOnly,
            (Self::Persons, "first_name" | "last_name") => ReadOnly,
            (Self::Persons, "name") => Name,
            (Self::Organizations | Self::Products, "name") => Text,
            (Self::Persons, "emails" | "phones") => Contacts,
            (Self::Persons, "job_title" | "notes") => Text,
            (Self::Persons, "birthday") => Date,
            (Self::Persons, "postal_address") => Address,
            (Self::Persons | Self::Deals | Self::Activities, "org_id") => Id(Self::Organizations),
            (Self::Deals | Self::Activities, "person_id") => Id(Self::Persons),
            (Self::Activities, "deal_id") => Id(Self::Deals),
            (Self::Deals, "title" | "lost_reason") => Text,
            (Self::Deals, "value") => Amount,
            (Self::Deals, "currency") => Currency,
            (Self::Deals, "status") => Word(&["open", "won", "lost"]),
            (Self::Deals, "stage_id") => Stage,
            (Self::Deals, "pipeline_id") => Pipeline,
            (Self::Deals, "expected_close_date") => Date,
            (Self::Deals, "probability") => Number,
            (Self::Organizations, "address") => Address,
            (Self::Products, "code" | "unit" | "description") => Text,
            (Self::Products, "tax") => Number,
            (Self::Activities, "subject" | "type" | "note") => Text,
            (Self::Activities, "due_date") => Date,
            (Self::Activities, "due_time" | "duration") => Time,
            (Self::Activities, "done") => Truth,
            (Self::Persons | Self::Deals | Self::Organizations, "label_ids") => Labels,
            (_, "owner_id") => User,
            (_, "visible_to") => Number,
            _ => return None,
        })
    }
}

impl std::fmt::Display for Entity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.path())
    }
}
