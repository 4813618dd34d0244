//! What each entity consists of: the vendor's specification of API v2, as tables.

use super::Entity;

/// What a value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// At most so many characters.
    Text(usize),
    Number,
    Integer,
    Boolean,
    /// `YYYY-MM-DD`.
    Date,
    /// RFC 3339, of whole seconds.
    Instant,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// The id of a record.
    Record(Entity),
    /// The id of a user.
    User,
    /// Ids of the field's options.
    Labels,
    /// `[{value, primary, label}]`
    Contacts,
    Address,
    /// 1, 3, 5 or 7.
    Visible,
    Currency,
    /// Whatever JSON it is, kept as it came.
    Json,
}

/// Who may set a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Set {
    /// Nobody: it follows from others.
    Never,
    /// At the creation only.
    Once,
    Always,
    /// Who has the app "Contact Sync"; for all others such a request is refused with 403.
    WithContactSync,
    /// Taken, and shown to who asks for it.
    Unshown,
}

/// A field that every account has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standard {
    pub key: &'static str,
    pub name: &'static str,
    /// As the field lists call it.
    pub field_type: &'static str,
    pub shape: Shape,
    pub set: Set,
    /// Whether null clears it.
    pub nullable: bool,
}

const fn field(key: &'static str, name: &'static str, field_type: &'static str, shape: Shape, set: Set) -> Standard {
    Standard { key, name, field_type, shape, set, nullable: true }
}

/// The same, but null is refused.
const fn always(key: &'static str, name: &'static str, field_type: &'static str, shape: Shape, set: Set) -> Standard {
    Standard { key, name, field_type, shape, set, nullable: false }
}

use Set::{Always, Never, Once, Unshown, WithContactSync};
use Shape::{
    Address, Boolean, Choice, Contacts, Currency, Date, Instant, Integer, Json, Labels, Number, Record, Text, User,
    Visible,
};

const DEALS: &[Standard] = &[
    field("id", "ID", "int", Integer, Never),
    always("title", "Title", "varchar", Text(255), Always),
    field("creator_user_id", "Creator", "user", User, Never),
    always("owner_id", "Owner", "user", User, Always),
    always("value", "Value", "monetary", Number, Always),
    field("person_id", "Contact person", "people", Record(Entity::Persons), Always),
    field("org_id", "Organization", "org", Record(Entity::Organizations), Always),
    always("stage_id", "Stage", "stage", Record(Entity::Stages), Always),
    always("pipeline_id", "Pipeline", "double", Record(Entity::Pipelines), Always),
    always("currency", "Currency", "varchar", Currency, Always),
    field("archive_time", "Archive time", "date", Instant, Always),
    field("add_time", "Deal created", "date", Instant, Once),
    field("update_time", "Update time", "date", Instant, Never),
    field("stage_change_time", "Last stage change", "date", Instant, Never),
    always("status", "Status", "status", Choice(&["open", "won", "lost"]), Always),
    always("is_archived", "Archive status", "boolean", Boolean, Always),
    always("is_deleted", "Is deleted", "boolean", Boolean, Always),
    field("probability", "Probability", "int", Number, Always),
    field("lost_reason", "Lost reason", "varchar_options", Text(150), Always),
    always("visible_to", "Visible to", "int", Visible, Always),
    field("close_time", "Deal closed on", "date", Instant, Always),
    field("won_time", "Won time", "date", Instant, Always),
    field("lost_time", "Lost time", "date", Instant, Always),
    field("local_won_date", "Local won date", "date", Date, Never),
    field("local_lost_date", "Local lost date", "date", Date, Never),
    field("local_close_date", "Local close date", "date", Date, Never),
    field("expected_close_date", "Expected close date", "date", Date, Always),
    field("label_ids", "Label", "set", Labels, Always),
    field("origin", "Source origin", "varchar", Text(255), Never),
    field("origin_id", "Source origin ID", "varchar", Text(255), Never),
    field("channel", "Source channel", "enum", Integer, Never),
    field("channel_id", "Source channel ID", "varchar", Text(255), Never),
    field("source_lead_id", "Source lead", "lead", Text(36), Never),
    field("arr", "ARR", "monetary", Number, Never),
    field("mrr", "MRR", "monetary", Number, Never),
    field("acv", "ACV", "monetary", Number, Never),
];

const PERSONS: &[Standard] = &[
    field("id", "ID", "int", Integer, Never),
    always("name", "Name", "varchar", Text(255), Always),
    field("first_name", "First name", "varchar", Text(255), Always),
    field("last_name", "Last name", "varchar", Text(255), Always),
    always("owner_id", "Owner", "user", User, Always),
    field("org_id", "Organization", "org", Record(Entity::Organizations), Always),
    field("add_time", "Person created", "date", Instant, Once),
    field("update_time", "Update time", "date", Instant, Never),
    field("emails", "Email", "varchar", Contacts, Always),
    field("phones", "Phone", "phone", Contacts, Always),
    field("is_deleted", "Is deleted", "boolean", Boolean, Never),
    always("visible_to", "Visible to", "int", Visible, Always),
    field("label_ids", "Label", "set", Labels, Always),
    field("picture_id", "Profile picture", "picture", Integer, Never),
    field("postal_address", "Postal address", "address", Address, WithContactSync),
    field("notes", "Notes", "text", Text(65_000), WithContactSync),
    field("im", "Instant messenger", "varchar", Contacts, WithContactSync),
    field("birthday", "Birthday", "date", Date, WithContactSync),
    field("job_title", "Job title", "varchar", Text(255), WithContactSync),
    // Of the app "Marketing".
    field(
        "marketing_status",
        "Marketing status",
        "varchar",
        Choice(&["no_consent", "unsubscribed", "subscribed", "archived"]),
        Unshown,
    ),
];

const ORGANIZATIONS: &[Standard] = &[
    field("id", "ID", "int", Integer, Never),
    always("name", "Name", "varchar", Text(255), Always),
    always("owner_id", "Owner", "user", User, Always),
    field("add_time", "Organization created", "date", Instant, Once),
    field("update_time", "Update time", "date", Instant, Never),
    field("is_deleted", "Is deleted", "boolean", Boolean, Never),
    always("visible_to", "Visible to", "int", Visible, Always),
    field("address", "Address", "address", Address, Always),
    field("label_ids", "Label", "set", Labels, Always),
    field("website", "Website", "varchar", Text(255), Always),
    field("linkedin", "LinkedIn profile", "varchar", Text(255), Always),
    field("industry", "Industry", "int", Integer, Always),
    field("annual_revenue", "Annual revenue", "double", Number, Always),
    field("employee_count", "Number of employees", "int", Integer, Always),
];

const PRODUCTS: &[Standard] = &[
    field("id", "ID", "int", Integer, Never),
    always("name", "Name", "varchar", Text(255), Always),
    field("code", "Product code", "varchar", Text(255), Always),
    field("description", "Description", "text", Text(65_000), Always),
    field("unit", "Unit", "varchar", Text(255), Always),
    field("tax", "Tax", "double", Number, Always),
    field("category", "Category", "enum", Integer, Always),
    always("is_linkable", "Active", "boolean", Boolean, Always),
    field("is_deleted", "Is deleted", "boolean", Boolean, Never),
    always("visible_to", "Visible to", "int", Visible, Always),
    always("owner_id", "Owner", "user", User, Always),
    field("add_time", "Created", "date", Instant, Never),
    field("update_time", "Update time", "date", Instant, Never),
    field(
        "billing_frequency",
        "Billing frequency",
        "enum",
        Choice(&["one-time", "annually", "semi-annually", "quarterly", "monthly", "weekly"]),
        Always,
    ),
    field("billing_frequency_cycles", "Billing frequency cycles", "int", Integer, Always),
    field("prices", "Prices", "json", Json, Always),
];

const ACTIVITIES: &[Standard] = &[
    field("id", "ID", "int", Integer, Never),
    field("subject", "Subject", "varchar", Text(255), Always),
    field("type", "Type", "varchar", Text(255), Always),
    always("owner_id", "Assigned to user", "user", User, Always),
    field("creator_user_id", "Creator", "user", User, Never),
    field("is_deleted", "Is deleted", "boolean", Boolean, Never),
    field("add_time", "Add time", "date", Instant, Never),
    field("update_time", "Update time", "date", Instant, Never),
    field("deal_id", "Deal", "deal", Record(Entity::Deals), Always),
    field("lead_id", "Lead", "lead", Text(36), Always),
    field("person_id", "Contact person", "people", Record(Entity::Persons), Always),
    field("org_id", "Organization", "org", Record(Entity::Organizations), Always),
    field("project_id", "Project", "project", Integer, Always),
    field("due_date", "Due date", "date", Date, Always),
    field("due_time", "Due time", "time", Text(8), Always),
    field("duration", "Duration", "time", Text(8), Always),
    always("busy", "Free/busy", "boolean", Boolean, Always),
    always("done", "Done", "boolean", Boolean, Always),
    field("marked_as_done_time", "Marked as done time", "date", Instant, Never),
    field("location", "Location", "address", Address, Always),
    field("participants", "Participants", "json", Json, Always),
    field("attendees", "Attendees", "json", Json, Always),
    field("conference_meeting_client", "Conference meeting client", "varchar", Text(255), Never),
    field("conference_meeting_url", "Conference meeting URL", "varchar", Text(255), Never),
    field("conference_meeting_id", "Conference meeting ID", "varchar", Text(255), Never),
    field("public_description", "Public description", "text", Text(65_000), Always),
    field("priority", "Priority", "enum", Integer, Always),
    field("outcome", "Outcome", "enum", Integer, Always),
    field("note", "Note", "text", Text(65_000), Always),
];

const PIPELINES: &[Standard] = &[
    field("id", "ID", "int", Integer, Never),
    always("name", "Name", "varchar", Text(255), Always),
    field("order_nr", "Order", "int", Integer, Never),
    field("is_deleted", "Is deleted", "boolean", Boolean, Never),
    always("is_deal_probability_enabled", "Deal probability", "boolean", Boolean, Always),
    field("add_time", "Add time", "date", Instant, Never),
    field("update_time", "Update time", "date", Instant, Never),
];

const STAGES: &[Standard] = &[
    field("id", "ID", "int", Integer, Never),
    field("order_nr", "Order", "int", Integer, Never),
    always("name", "Name", "varchar", Text(255), Always),
    field("is_deleted", "Is deleted", "boolean", Boolean, Never),
    always("deal_probability", "Deal probability", "int", Integer, Always),
    always("pipeline_id", "Pipeline", "int", Record(Entity::Pipelines), Always),
    always("is_deal_rot_enabled", "Deal rotting", "boolean", Boolean, Always),
    field("days_to_rotten", "Days to rotten", "int", Integer, Always),
    field("add_time", "Add time", "date", Instant, Never),
    field("update_time", "Update time", "date", Instant, Never),
];

/// Words `include_fields` takes; all are about things that are not simulated, so that they are 0 or null.
const OF_DEALS: &[&str] = &[
    "next_activity_id",
    "last_activity_id",
    "first_won_time",
    "products_count",
    "files_count",
    "notes_count",
    "followers_count",
    "email_messages_count",
    "activities_count",
    "done_activities_count",
    "undone_activities_count",
    "participants_count",
    "last_incoming_mail_time",
    "last_outgoing_mail_time",
    "smart_bcc_email",
    "source_lead_id",
];
const OF_PERSONS: &[&str] = &[
    "next_activity_id",
    "last_activity_id",
    "open_deals_count",
    "related_open_deals_count",
    "closed_deals_count",
    "related_closed_deals_count",
    "participant_open_deals_count",
    "participant_closed_deals_count",
    "email_messages_count",
    "activities_count",
    "done_activities_count",
    "undone_activities_count",
    "files_count",
    "notes_count",
    "followers_count",
    "won_deals_count",
    "related_won_deals_count",
    "lost_deals_count",
    "related_lost_deals_count",
    "last_incoming_mail_time",
    "last_outgoing_mail_time",
    "marketing_status",
    "doi_status",
    "smart_bcc_email",
];
const OF_ORGANIZATIONS: &[&str] = &[
    "next_activity_id",
    "last_activity_id",
    "open_deals_count",
    "related_open_deals_count",
    "closed_deals_count",
    "related_closed_deals_count",
    "email_messages_count",
    "activities_count",
    "done_activities_count",
    "undone_activities_count",
    "files_count",
    "notes_count",
    "followers_count",
    "won_deals_count",
    "related_won_deals_count",
    "lost_deals_count",
    "related_lost_deals_count",
    "people_count",
    "smart_bcc_email",
];

impl Entity {
    /// Every one of them.
    pub const ALL: [Self; 7] = [
        Self::Deals,
        Self::Persons,
        Self::Organizations,
        Self::Products,
        Self::Activities,
        Self::Pipelines,
        Self::Stages,
    ];

    /// As it stands in paths: `persons`.
    pub fn path(self) -> &'static str {
        match self {
            Self::Deals => "deals",
            Self::Persons => "persons",
            Self::Organizations => "organizations",
            Self::Products => "products",
            Self::Activities => "activities",
            Self::Pipelines => "pipelines",
            Self::Stages => "stages",
        }
    }

    /// One of it: `person`.
    pub fn singular(self) -> &'static str {
        match self {
            Self::Deals => "deal",
            Self::Persons => "person",
            Self::Organizations => "organization",
            Self::Products => "product",
            Self::Activities => "activity",
            Self::Pipelines => "pipeline",
            Self::Stages => "stage",
        }
    }

    /// The one that stands so in paths.
    pub(super) fn of_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|entity| entity.path() == path)
    }

    /// The one whose fields stand so in paths: `personFields`.
    pub(super) fn of_field_path(path: &str) -> Option<Self> {
        let entity = path.strip_suffix("Fields")?;
        Self::ALL.into_iter().find(|each| each.singular() == entity && each.has_fields())
    }

    /// Whether its fields are listed.
    pub(super) fn has_fields(self) -> bool {
        !matches!(self, Self::Pipelines | Self::Stages)
    }

    /// Whether an account may add fields to it.
    pub(super) fn has_custom_fields(self) -> bool {
        self.has_fields() && self != Self::Activities
    }

    /// Whether it is found by searching.
    pub(super) fn is_searched(self) -> bool {
        self.has_custom_fields()
    }

    pub(super) fn fields(self) -> &'static [Standard] {
        match self {
            Self::Deals => DEALS,
            Self::Persons => PERSONS,
            Self::Organizations => ORGANIZATIONS,
            Self::Products => PRODUCTS,
            Self::Activities => ACTIVITIES,
            Self::Pipelines => PIPELINES,
            Self::Stages => STAGES,
        }
    }

    pub(super) fn field(self, key: &str) -> Option<&'static Standard> {
        self.fields().iter().find(|field| field.key == key)
    }

    /// What must be there at a creation.
    pub(super) fn required(self) -> &'static [&'static str] {
        match self {
            Self::Deals => &["title"],
            Self::Persons | Self::Organizations | Self::Products | Self::Pipelines => &["name"],
            Self::Activities => &[],
            Self::Stages => &["name", "pipeline_id"],
        }
    }

    /// What a list may be sorted by.
    pub(super) fn sorts(self) -> &'static [&'static str] {
        match self {
            Self::Products => &["id", "name", "add_time", "update_time"],
            Self::Stages => &["id", "update_time", "add_time", "order_nr"],
            Self::Activities => &["id", "update_time", "add_time", "due_date"],
            _ => &["id", "update_time", "add_time"],
        }
    }

    /// What a list may be filtered by, besides `ids`, `filter_id` and times.
    pub(super) fn filters(self) -> &'static [&'static str] {
        match self {
            Self::Deals => &["owner_id", "person_id", "org_id", "pipeline_id", "stage_id", "status"],
            Self::Persons => &["owner_id", "org_id", "deal_id"],
            Self::Organizations | Self::Products => &["owner_id"],
            Self::Activities => &["owner_id", "deal_id", "lead_id", "person_id", "org_id", "done"],
            Self::Pipelines => &[],
            Self::Stages => &["pipeline_id"],
        }
    }

    /// What `include_fields` may name.
    pub(super) fn includes(self) -> &'static [&'static str] {
        match self {
            Self::Deals => OF_DEALS,
            Self::Persons => OF_PERSONS,
            Self::Organizations => OF_ORGANIZATIONS,
            Self::Activities => &["attendees"],
            _ => &[],
        }
    }
}
