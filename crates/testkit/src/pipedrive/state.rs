//! What an account holds.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    Clock, Entity, PipedriveOptions, clock,
    fields::{Choice, FieldSet, FieldType},
    schema::{Set, Shape},
};

/// Deleted records are gone for good after so many seconds.
const PURGED_AFTER: i64 = 30 * 86_400;

/// A record. What has the default of its shape is not kept.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub id: u64,
    /// Seconds since 1970.
    pub add: i64,
    pub update: i64,
    /// Milliseconds since 1970 at which it was created.
    pub born: i64,
    pub deleted: Option<i64>,
    /// In the order of their keys.
    values: Vec<(&'static str, Value)>,
    /// By the places of their fields, in order.
    custom: Vec<(u32, Value)>,
}

impl Row {
    pub fn new(id: u64, millis: i64) -> Self {
        let now = millis.div_euclid(1000);
        Self { id, add: now, update: now, born: millis, deleted: None, values: vec![], custom: vec![] }
    }
    pub fn get(&self, key: &str) -> &Value {
        match self.values.binary_search_by_key(&key, |(key, _)| key) {
            Ok(place) => &self.values[place].1,
            Err(_) => &Value::Null,
        }
    }
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key).as_str()
    }
    pub fn int(&self, key: &str) -> Option<u64> {
        self.get(key).as_u64()
    }
    pub fn set(&mut self, key: &'static str, value: Value) {
        match (self.values.binary_search_by_key(&key, |(key, _)| key), value.is_null()) {
            (Ok(place), true) => drop(self.values.remove(place)),
            (Ok(place), false) => self.values[place].1 = value,
            (Err(_), true) => {}
            (Err(place), false) => self.values.insert(place, (key, value)),
        }
    }
    pub fn custom(&self, place: u32) -> &Value {
        match self.custom.binary_search_by_key(&place, |(place, _)| *place) {
            Ok(found) => &self.custom[found].1,
            Err(_) => &Value::Null,
        }
    }
    pub fn set_custom(&mut self, place: u32, value: Value) {
        match (self.custom.binary_search_by_key(&place, |(place, _)| *place), value.is_null()) {
            (Ok(found), true) => drop(self.custom.remove(found)),
            (Ok(found), false) => self.custom[found].1 = value,
            (Err(_), true) => {}
            (Err(found), false) => self.custom.insert(found, (place, value)),
        }
    }
    pub fn customs(&self) -> &[(u32, Value)] {
        &self.custom
    }
    pub fn is_archived(&self) -> bool {
        self.get("is_archived") == &Value::Bool(true)
    }
}

#[derive(Debug, Default)]
pub(super) struct Table {
    pub rows: BTreeMap<u64, Row>,
    last: u64,
}

impl Table {
    pub fn next_id(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
    pub fn insert(&mut self, row: Row) {
        self.rows.insert(row.id, row);
    }
}

#[derive(Clone, Debug)]
pub(super) struct User {
    pub id: u64,
    pub name: String,
    pub email: String,
    pub active: bool,
}

#[derive(Debug)]
pub(super) struct State {
    pub options: PipedriveOptions,
    pub clock: Clock,
    tables: [Table; 7],
    fields: [FieldSet; 7],
    pub users: Vec<User>,
    pub notes: BTreeMap<u64, Map<String, Value>>,
    last_note: u64,
    last_choice: u64,
    last_field: u64,
    pub closed: bool,
}

/// Which parts of a record are shown.
#[derive(Debug, Default)]
pub(super) struct View {
    /// Places of custom fields; `None`: all.
    pub custom: Option<Vec<u32>>,
    pub include: Vec<&'static str>,
    pub option_labels: bool,
    pub labels: bool,
}

impl State {
    pub fn new(options: PipedriveOptions, clock: Clock) -> Self {
        let now = clock.seconds();
        let fields = Entity::ALL.map(|entity| {
            let first = 1000 * (entity as u64 + 4);
            FieldSet::new(entity, &options, first, now)
        });
        // An account that is not the first has used up some ids.
        let used = options.seed.bytes().fold(7, |sum: u64, byte| (sum * 31 + u64::from(byte)) % 900);
        let mut state = Self {
            options,
            clock,
            tables: Default::default(),
            fields,
            users: vec![],
            notes: BTreeMap::new(),
            last_note: 0,
            last_choice: 20 + used,
            last_field: 12_500,
            closed: false,
        };
        state.add_user("Ada Admin", "ada@example.com");
        let pipeline = state.tables[Entity::Pipelines as usize].next_id();
        let mut row = Row::new(pipeline, state.clock.millis());
        row.set("name", json!("Pipeline"));
        row.set("order_nr", json!(1));
        state.table_mut(Entity::Pipelines).insert(row);
        for (name, order) in ["Qualified", "Contact Made", "Demo Scheduled", "Proposal Made", "Negotiations Started"]
            .into_iter()
            .zip(1..)
        {
            let mut row = Row::new(state.table_mut(Entity::Stages).next_id(), state.clock.millis());
            row.set("name", json!(name));
            row.set("order_nr", json!(order));
            row.set("pipeline_id", json!(pipeline));
            row.set("deal_probability", json!(100));
            state.table_mut(Entity::Stages).insert(row);
        }
        state
    }

    pub fn table(&self, entity: Entity) -> &Table {
        &self.tables[entity as usize]
    }
    pub fn table_mut(&mut self, entity: Entity) -> &mut Table {
        &mut self.tables[entity as usize]
    }
    pub fn fields(&self, entity: Entity) -> &FieldSet {
        &self.fields[entity as usize]
    }
    pub fn fields_mut(&mut self, entity: Entity) -> &mut FieldSet {
        &mut self.fields[entity as usize]
    }

    /// A record that is there, or was deleted a short while ago.
    pub fn row(&self, entity: Entity, id: u64) -> Option<&Row> {
        let now = self.clock.seconds();
        self.table(entity).rows.get(&id).filter(|row| row.deleted.is_none_or(|at| now - at < PURGED_AFTER))
    }
    /// A record that is there.
    pub fn alive(&self, entity: Entity, id: u64) -> Option<&Row> {
        self.row(entity, id).filter(|row| row.deleted.is_none())
    }
    pub fn is_purged(&self, row: &Row) -> bool {
        row.deleted.is_some_and(|at| self.clock.seconds() - at >= PURGED_AFTER)
    }

    pub fn add_user(&mut self, name: &str, email: &str) -> u64 {
        let id = self.users.len() as u64 + 1;
        self.users.push(User { id, name: name.to_owned(), email: email.to_owned(), active: true });
        id
    }

    pub fn next_note(&mut self) -> u64 {
        self.last_note += 1;
        self.last_note
    }

    pub fn new_choice(&mut self, label: &str) -> Choice {
        self.last_choice += 1;
        Choice { id: self.last_choice, label: label.to_owned() }
    }

    /// Adds a custom field; its key.
    pub fn add_field(&mut self, entity: Entity, name: &str, custom: FieldType, labels: &[&str]) -> String {
        let choices = labels.iter().map(|label| self.new_choice(label)).collect();
        self.last_field += 1;
        let (id, now) = (self.last_field, self.clock.seconds());
        self.fields_mut(entity).add(name, custom, choices, id, now).to_string()
    }

    /// The first stage of a pipeline.
    pub fn first_stage(&self, pipeline: u64) -> Option<u64> {
        let stages = self.table(Entity::Stages).rows.values();
        let of = stages.filter(|row| row.deleted.is_none() && row.int("pipeline_id") == Some(pipeline));
        of.min_by_key(|row| row.int("order_nr")).map(|row| row.id)
    }

    fn instant(&self, seconds: i64) -> Value {
        let text = clock::rfc3339(seconds);
        json!(if self.options.unsettled.times_have_millis { text.replace('Z', ".000Z") } else { text })
    }

    /// Shows a record as v2 does: key by key, in order.
    fn show(&self, entity: Entity, row: &Row, view: &View, mut put: impl FnMut(&str, &Value)) {
        let empty = Value::Array(vec![]);
        for field in entity.fields() {
            let hidden = (field.set == Set::Unshown && !view.include.contains(&field.key))
                || (field.set == Set::WithContactSync && !self.options.contact_sync)
                || (field.key == "attendees" && !view.include.contains(&"attendees"));
            if hidden {
                continue;
            }
            match field.key {
                "id" => put("id", &json!(row.id)),
                "add_time" => put("add_time", &self.instant(row.add)),
                "update_time" => put("update_time", &self.instant(row.update)),
                "is_deleted" => put("is_deleted", &json!(row.deleted.is_some())),
                key => match (row.get(key), field.shape) {
                    (Value::Null, Shape::Labels | Shape::Contacts | Shape::Json) => put(key, &empty),
                    (Value::Null, Shape::Boolean) => put(key, &Value::Bool(false)),
                    (Value::String(instant), Shape::Instant) if self.options.unsettled.times_have_millis => {
                        put(key, &json!(instant.replace('Z', ".000Z")));
                    }
                    (value, _) => put(key, value),
                },
            }
        }
        for word in view.include.iter().filter(|word| entity.field(word).is_none()) {
            put(word, &if word.ends_with("_count") { json!(0) } else { Value::Null });
        }
        if view.labels {
            let field = self.fields(entity).by_key("label_ids");
            let choices = field.as_ref().map_or(&[][..], |field| &field.choices);
            let ids = row.get("label_ids").as_array().map_or(&[][..], Vec::as_slice);
            put("labels", &ids.iter().map(|id| labelled(choices, id)).collect());
        }
        if entity.has_custom_fields() {
            put("custom_fields", &Value::Object(self.render_custom(entity, row, view)));
        }
    }

    /// A record as v2 shows it.
    pub fn render(&self, entity: Entity, row: &Row, view: &View) -> Map<String, Value> {
        let mut shown = Map::new();
        self.show(entity, row, view, |key, value| drop(shown.insert(key.to_owned(), value.clone())));
        shown
    }

    /// The same, written: a page of 500 is written often.
    pub fn write(&self, entity: Entity, row: &Row, view: &View, out: &mut Vec<u8>) {
        let mut first = true;
        self.show(entity, row, view, |key, value| {
            out.extend_from_slice(if first { b"{\"" } else { b",\"" });
            out.extend_from_slice(key.as_bytes());
            out.extend_from_slice(b"\":");
            match value {
                Value::Null => out.extend_from_slice(b"null"),
                // Writing to memory does not fail.
                value => drop(serde_json::to_writer(&mut *out, value)),
            }
            first = false;
        });
        out.push(b'}');
    }

    fn render_custom(&self, entity: Entity, row: &Row, view: &View) -> Map<String, Value> {
        let nulls = self.options.unsettled.null_custom_fields;
        let mut shown = Map::new();
        for (place, field) in self.fields(entity).customs() {
            if view.custom.as_ref().is_some_and(|wanted| !wanted.contains(&place)) {
                continue;
            }
            let value = row.custom(place);
            let value = match value {
                Value::Null if nulls => Value::Null,
                Value::Null => continue,
                Value::Array(ids) if view.option_labels && field.custom == Some(FieldType::Set) => {
                    ids.iter().map(|id| labelled(&field.choices, id)).collect()
                }
                id if view.option_labels && field.custom == Some(FieldType::Enum) => labelled(&field.choices, id),
                value => value.clone(),
            };
            shown.insert(field.key.to_string(), value);
        }
        shown
    }
}

fn labelled(choices: &[Choice], id: &Value) -> Value {
    let label = choices.iter().find(|choice| Some(choice.id) == id.as_u64()).map(|choice| choice.label.as_str());
    json!({ "id": id, "label": label })
}
