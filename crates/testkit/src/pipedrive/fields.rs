//! Fields of entities: those everyone has, and those an account added, whose keys are its own.

use std::{collections::HashMap, sync::Arc};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{
    Entity, PipedriveOptions, clock,
    refusal::Refusal,
    schema::{Set, Shape},
};

/// The type of a custom field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldType {
    /// Text of at most 255 characters.
    Varchar,
    /// The same, with suggestions.
    VarcharAuto,
    /// Text of at most 65,000 characters.
    Text,
    /// A number.
    Double,
    /// `{value, currency}`
    Monetary,
    /// One option: its id.
    Enum,
    /// Several options: their ids.
    Set,
    /// `YYYY-MM-DD`
    Date,
    /// `{value, until}`
    DateRange,
    /// `{value, timezone_name}`
    Time,
    /// `{value, until, timezone_name}`
    TimeRange,
    /// Text.
    Phone,
    /// `{value, …}`
    Address,
    /// The id of an organization.
    Org,
    /// The id of a person.
    People,
    /// The id of a user.
    User,
}

impl FieldType {
    /// Every one of them.
    pub const ALL: [Self; 16] = [
        Self::Varchar,
        Self::VarcharAuto,
        Self::Text,
        Self::Double,
        Self::Monetary,
        Self::Enum,
        Self::Set,
        Self::Date,
        Self::DateRange,
        Self::Time,
        Self::TimeRange,
        Self::Phone,
        Self::Address,
        Self::Org,
        Self::People,
        Self::User,
    ];
    /// As the vendor calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Varchar => "varchar",
            Self::VarcharAuto => "varchar_auto",
            Self::Text => "text",
            Self::Double => "double",
            Self::Monetary => "monetary",
            Self::Enum => "enum",
            Self::Set => "set",
            Self::Date => "date",
            Self::DateRange => "daterange",
            Self::Time => "time",
            Self::TimeRange => "timerange",
            Self::Phone => "phone",
            Self::Address => "address",
            Self::Org => "org",
            Self::People => "people",
            Self::User => "user",
        }
    }
    pub(super) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|each| each.name() == name)
    }
    /// Whether a search looks into it.
    pub(super) fn is_searched(self) -> bool {
        use FieldType::{Address, Double, Monetary, Phone, Text, Varchar, VarcharAuto};
        matches!(self, Address | Varchar | Text | VarcharAuto | Double | Monetary | Phone)
    }
    fn subfields(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Monetary => &[("value", "double"), ("currency", "varchar")],
            Self::DateRange => &[("value", "date"), ("until", "date")],
            Self::Time => &[("value", "time"), ("timezone_id", "int"), ("timezone_name", "varchar")],
            Self::TimeRange => {
                &[("value", "time"), ("until", "time"), ("timezone_id", "int"), ("timezone_name", "varchar")]
            }
            Self::Address => &ADDRESS,
            _ => &[],
        }
    }
}

/// Parts of an address.
const ADDRESS: [(&str, &str); 11] = [
    ("value", "varchar"),
    ("route", "varchar"),
    ("street_number", "varchar"),
    ("subpremise", "varchar"),
    ("locality", "varchar"),
    ("sublocality", "varchar"),
    ("admin_area_level_1", "varchar"),
    ("admin_area_level_2", "varchar"),
    ("country", "varchar"),
    ("postal_code", "varchar"),
    ("formatted_address", "varchar"),
];

/// The parts' names.
pub(super) fn address_parts() -> impl Iterator<Item = &'static str> {
    ADDRESS.iter().map(|(name, _)| *name)
}

#[derive(Clone, Debug)]
pub(super) struct Choice {
    pub id: u64,
    pub label: String,
}

#[derive(Clone, Debug)]
pub(super) struct Field {
    /// Of v1 only.
    pub id: u64,
    pub key: Arc<str>,
    pub name: String,
    pub field_type: &'static str,
    /// Of a custom field.
    pub custom: Option<FieldType>,
    pub choices: Vec<Choice>,
    pub description: Option<String>,
    pub active: bool,
    pub add: i64,
    pub update: i64,
}

/// The fields of an entity. A field's place never changes: one that is deleted stays, not active.
#[derive(Debug)]
pub(super) struct FieldSet {
    entity: Entity,
    seed: String,
    pub fields: Vec<Field>,
    by_key: HashMap<Arc<str>, u32>,
}

impl FieldSet {
    pub fn new(entity: Entity, options: &PipedriveOptions, first: u64, now: i64) -> Self {
        let mut set = Self { entity, seed: options.seed.clone(), fields: vec![], by_key: HashMap::new() };
        if !entity.has_fields() {
            return set;
        }
        let there = entity.fields().iter().filter(|field| match field.set {
            Set::WithContactSync => options.contact_sync,
            Set::Unshown => false,
            _ => true,
        });
        for (field, id) in there.zip(first..) {
            let choices = match field.shape {
                Shape::Labels => ["Customer", "Hot lead", "Warm lead", "Cold lead"].as_slice(),
                _ => &[],
            };
            let choices = choices.iter().zip(1..).map(|(label, id)| Choice { id, label: (*label).to_owned() });
            set.push(Field {
                id,
                key: field.key.into(),
                name: field.name.to_owned(),
                field_type: field.field_type,
                custom: None,
                choices: choices.collect(),
                description: None,
                active: true,
                add: now,
                update: now,
            });
        }
        set
    }

    fn push(&mut self, field: Field) {
        let place = u32::try_from(self.fields.len()).unwrap_or(u32::MAX);
        self.by_key.insert(Arc::clone(&field.key), place);
        self.fields.push(field);
    }

    /// Adds a custom field; its key.
    pub fn add(&mut self, name: &str, custom: FieldType, choices: Vec<Choice>, id: u64, now: i64) -> Arc<str> {
        let number = self.fields.iter().filter(|field| field.custom.is_some()).count();
        let digest = Sha256::digest(format!("{}/{}/{number}", self.seed, self.entity.path()));
        let key: String = digest.iter().take(20).map(|byte| format!("{byte:02x}")).collect();
        let key: Arc<str> = key.into();
        self.push(Field {
            id,
            key: Arc::clone(&key),
            name: name.to_owned(),
            field_type: custom.name(),
            custom: Some(custom),
            choices,
            description: None,
            active: true,
            add: now,
            update: now,
        });
        key
    }

    /// Place and field of a custom field that is there.
    pub fn custom(&self, key: &str) -> Option<(u32, &Field)> {
        let place = *self.by_key.get(key)?;
        let field = self.at(place)?;
        (field.custom.is_some() && field.active).then_some((place, field))
    }

    pub fn at(&self, place: u32) -> Option<&Field> {
        self.fields.get(place as usize)
    }

    pub fn active(&self) -> impl Iterator<Item = (u32, &Field)> {
        (0..).zip(&self.fields).filter(|(_, field)| field.active)
    }

    /// Custom fields that are there.
    pub fn customs(&self) -> impl Iterator<Item = (u32, &Field)> {
        self.active().filter(|(_, field)| field.custom.is_some())
    }

    pub fn by_key(&self, key: &str) -> Result<&Field, Refusal> {
        let found = self.by_key.get(key).and_then(|place| self.at(*place)).filter(|field| field.active);
        found.ok_or_else(|| Refusal::not_found("Field"))
    }

    /// A custom field, to be changed.
    pub fn custom_mut(&mut self, key: &str) -> Result<&mut Field, Refusal> {
        let place = self.by_key.get(key).copied();
        let found = place.and_then(|place| self.fields.get_mut(place as usize)).filter(|field| field.active);
        let field = found.ok_or_else(|| Refusal::not_found("Field"))?;
        if field.custom.is_none() {
            return Err(Refusal::forbidden("Only custom fields can be changed"));
        }
        Ok(field)
    }
}

impl Field {
    fn choices(&self) -> Value {
        if self.choices.is_empty() {
            return Value::Null;
        }
        let one = |choice: &Choice| json!({ "id": choice.id, "label": choice.label, "color": null });
        self.choices.iter().map(one).collect()
    }

    /// As v2 shows it.
    pub fn v2(&self) -> Value {
        let subfields = self.custom.map_or(&[][..], FieldType::subfields);
        let one = |(name, field_type): &(&str, &str)| json!({ "field_code": name, "field_name": name, "field_type": field_type });
        let subfields: Option<Vec<Value>> = (!subfields.is_empty()).then(|| subfields.iter().map(one).collect());
        json!({
            "field_name": self.name,
            "field_code": &*self.key,
            "description": self.description,
            "field_type": self.field_type,
            "options": self.choices(),
            "subfields": subfields,
            "is_custom_field": self.custom.is_some(),
            "is_optional_response_field": false,
        })
    }

    /// What v2 shows of it when it is asked to include that.
    pub fn included(&self, word: &str) -> Option<Value> {
        match word {
            "ui_visibility" => Some(json!({ "add_visible_flag": false, "details_visible_flag": true })),
            "important_fields" => Some(json!({ "enabled": false, "stage_ids": [] })),
            "required_fields" => Some(json!({ "enabled": false, "stage_ids": [], "statuses": {} })),
            _ => None,
        }
    }

    /// As v1 shows it.
    pub fn v1(&self, order: usize) -> Value {
        json!({
            "id": self.id,
            "key": &*self.key,
            "name": self.name,
            "order_nr": order,
            "field_type": self.field_type,
            "add_time": clock::spaced(self.add),
            "update_time": clock::spaced(self.update),
            "last_updated_by_user_id": null,
            "created_by_user_id": if self.custom.is_some() { json!(1) } else { Value::Null },
            "active_flag": self.active,
            "edit_flag": self.custom.is_some(),
            "index_visible_flag": true,
            "details_visible_flag": true,
            "add_visible_flag": self.custom.is_none(),
            "important_flag": false,
            "bulk_edit_allowed": true,
            "searchable_flag": self.custom.is_some_and(FieldType::is_searched),
            "filtering_allowed": true,
            "sortable_flag": true,
            "mandatory_flag": self.key.as_ref() == "title" || self.key.as_ref() == "name",
            "options": self.choices(),
        })
    }
}
