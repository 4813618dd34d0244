//! The account as a person at the screen, or a test, sees it: no call is made, nothing is paid.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
};

use serde_json::{Map, Value, json};

use super::{
    Entity, FieldType, clock,
    refusal::Refusal,
    serve::Shared,
    state::{Row, State, View},
};

/// The account. Cheap to clone; all clones are the same.
#[derive(Clone, Debug)]
pub struct Account(pub(super) Arc<Shared>);

/// A record as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Which one.
    pub id: u64,
    /// Whether it was deleted.
    pub is_deleted: bool,
    /// Whether it is archived.
    pub is_archived: bool,
    /// When it was last changed.
    pub update_time: String,
    /// Its standard fields as v2 shows them.
    pub fields: Map<String, Value>,
    /// Its custom fields that are not null, under their names (two of one name: under their keys).
    pub custom: BTreeMap<String, Value>,
}

impl Record {
    /// A standard field, or null.
    pub fn get(&self, key: &str) -> &Value {
        self.fields.get(key).unwrap_or(&Value::Null)
    }
    /// A custom field by its name, or null.
    pub fn custom(&self, name: &str) -> &Value {
        self.custom.get(name).unwrap_or(&Value::Null)
    }
}

/// The custom fields of an entity.
#[derive(Clone, Debug)]
pub struct Fields {
    account: Account,
    entity: Entity,
}

impl Fields {
    /// Adds one; its key. There may be two of one name.
    pub fn add(&self, name: &str, field_type: FieldType) -> String {
        self.add_options(name, field_type, &[])
    }
    /// Adds one with these options; its key.
    pub fn add_options(&self, name: &str, field_type: FieldType, labels: &[&str]) -> String {
        self.account.with(|state| state.add_field(self.entity, name, field_type, labels))
    }
    /// The key of the first one of this name.
    pub fn key(&self, name: &str) -> Option<String> {
        self.list().into_iter().find(|(_, given, _)| given == name).map(|(key, ..)| key)
    }
    /// Key, name and type of each.
    pub fn list(&self) -> Vec<(String, String, FieldType)> {
        self.account.with(|state| {
            let fields = state.fields(self.entity).customs();
            fields.filter_map(|(_, field)| Some((field.key.to_string(), field.name.clone(), field.custom?))).collect()
        })
    }
    /// The id of an option.
    pub fn option(&self, key: &str, label: &str) -> Option<u64> {
        self.account.with(|state| {
            let field = state.fields(self.entity).by_key(key).ok()?;
            field.choices.iter().find(|choice| choice.label == label).map(|choice| choice.id)
        })
    }
    /// Gives one another name; whether it is there.
    pub fn rename(&self, key: &str, name: &str) -> bool {
        self.account.with(|state| match state.fields_mut(self.entity).custom_mut(key) {
            Ok(field) => {
                name.clone_into(&mut field.name);
                true
            }
            Err(_) => false,
        })
    }
    /// Deletes one; whether it was there.
    pub fn remove(&self, key: &str) -> bool {
        self.account
            .with(|state| state.fields_mut(self.entity).custom_mut(key).map(|field| field.active = false).is_ok())
    }
}

impl Account {
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Its custom fields of an entity.
    pub fn fields(&self, entity: Entity) -> Fields {
        Fields { account: self.clone(), entity }
    }
    /// What the demo needs: `CustomerID` of persons, `OrderID` and `Order date` of deals.
    pub fn add_demo_fields(&self) {
        self.fields(Entity::Persons).add("CustomerID", FieldType::Varchar);
        self.fields(Entity::Deals).add("OrderID", FieldType::Varchar);
        self.fields(Entity::Deals).add("Order date", FieldType::Date);
    }

    /// Fills the demo's fields: persons `C1`, `C2`…, and deals `O1`, `O2`…, which are theirs in turn, of 10.01, 20.02…
    ///
    /// # Panics
    /// Without [`add_demo_fields`](Account::add_demo_fields).
    pub fn seed_demo(&self, persons: usize, deals: usize) {
        let body = |n| json!({ "name": format!("Customer {n}"), "custom_fields": { "CustomerID": format!("C{n}") } });
        let ids = self.seed(Entity::Persons, (1..=persons).map(body));
        let body = |n: usize| {
            let value = Value::from(n as f64 * 1001.0 / 100.0);
            let custom = json!({ "OrderID": format!("O{n}"), "Order date": "2026-01-31" });
            let person = ids.get((n - 1) % persons.max(1));
            json!({ "title": format!("Order {n}"), "value": value, "person_id": person, "custom_fields": custom })
        };
        self.seed(Entity::Deals, (1..=deals).map(body));
    }

    /// All records that are not deleted, archived ones among them, by their ids.
    pub fn records(&self, entity: Entity) -> Vec<Record> {
        self.with(|state| {
            let rows = state.table(entity).rows.values().filter(|row| row.deleted.is_none());
            rows.map(|row| record(state, entity, row)).collect()
        })
    }
    /// All persons that are not deleted.
    pub fn persons(&self) -> Vec<Record> {
        self.records(Entity::Persons)
    }
    /// All deals that are not deleted.
    pub fn deals(&self) -> Vec<Record> {
        self.records(Entity::Deals)
    }
    /// All records that are deleted.
    pub fn deleted(&self, entity: Entity) -> Vec<Record> {
        self.with(|state| {
            let rows = state.table(entity).rows.values().filter(|row| row.deleted.is_some());
            rows.map(|row| record(state, entity, row)).collect()
        })
    }
    /// One record, though it may be deleted.
    pub fn record(&self, entity: Entity, id: u64) -> Option<Record> {
        self.with(|state| state.table(entity).rows.get(&id).map(|row| record(state, entity, row)))
    }

    /// Adds a record: the body of a POST, but for custom fields, which may stand under their names, with options by their labels.
    /// Its id.
    ///
    /// # Panics
    /// If the server would refuse it: a test is wrong then.
    pub fn add(&self, entity: Entity, body: Value) -> u64 {
        self.with(|state| told(keyed(state, entity, body).and_then(|body| state.create(entity, &body))))
    }
    /// Adds many; their ids.
    ///
    /// # Panics
    /// As [`add`](Account::add).
    pub fn seed(&self, entity: Entity, bodies: impl IntoIterator<Item = Value>) -> Vec<u64> {
        self.with(|state| {
            let one = |body| told(keyed(state, entity, body).and_then(|body| state.create(entity, &body)));
            bodies.into_iter().map(one).collect()
        })
    }
    /// Changes a record, as [`add`](Account::add) writes it.
    ///
    /// # Panics
    /// If the server would refuse it.
    pub fn edit(&self, entity: Entity, id: u64, body: Value) {
        self.with(|state| told(keyed(state, entity, body).and_then(|body| state.update(entity, id, &body))));
    }
    /// Deletes a record.
    ///
    /// # Panics
    /// If it is not there.
    pub fn delete(&self, entity: Entity, id: u64) {
        self.with(|state| told(state.delete(entity, id)));
    }
    /// Takes a deleted record back.
    pub fn restore(&self, entity: Entity, id: u64) {
        self.with(|state| {
            let now = state.clock.seconds();
            if let Some(row) = state.table_mut(entity).rows.get_mut(&id) {
                (row.deleted, row.update) = (None, now);
            }
        });
    }
    /// Deletes a record for good.
    pub fn purge(&self, entity: Entity, id: u64) {
        self.with(|state| state.table_mut(entity).rows.remove(&id));
    }
    /// Archives a deal.
    ///
    /// # Panics
    /// If it is not there.
    pub fn archive(&self, deal: u64) {
        self.edit(Entity::Deals, deal, json!({ "is_archived": true }));
    }

    /// Adds a user; the id.
    pub fn add_user(&self, name: &str, email: &str) -> u64 {
        self.with(|state| state.add_user(name, email))
    }
    /// Adds a pipeline with these stages; its id and theirs.
    ///
    /// # Panics
    /// If a name is empty.
    pub fn add_pipeline(&self, name: &str, stages: &[&str]) -> (u64, Vec<u64>) {
        let pipeline = self.add(Entity::Pipelines, json!({ "name": name }));
        let stages = stages.iter().map(|stage| json!({ "name": stage, "pipeline_id": pipeline }));
        (pipeline, self.seed(Entity::Stages, stages))
    }
    /// Closes the account: everything is answered 402.
    pub fn close(&self) {
        self.with(|state| state.closed = true);
    }
    /// Open deals it may have from now on.
    pub fn limit_deals(&self, limit: Option<u64>) {
        self.with(|state| state.options.deals_limit = limit);
    }

    /// Tokens left of the day.
    pub fn tokens_left(&self) -> u64 {
        self.0.with_budget(|budget, seconds| budget.left(seconds))
    }
    /// The day's tokens.
    pub fn tokens_a_day(&self) -> u64 {
        self.0.with_budget(|budget, _| budget.limit())
    }
    /// Uses up tokens, as the company's other tools do.
    pub fn spend(&self, tokens: u64) {
        self.0.with_budget(|budget, seconds| budget.spend(tokens, seconds));
    }
    /// Seconds until the day ends at the vendor's.
    pub fn day_ends_in(&self) -> i64 {
        self.0.with_budget(|budget, seconds| budget.day_ends_in(seconds))
    }

    /// How often tokens were given out, heard or not.
    pub fn tokens_given(&self) -> u64 {
        self.0.tokens.lock().unwrap_or_else(PoisonError::into_inner).given()
    }
    /// Ends all access tokens before their time.
    pub fn expire_access_tokens(&self) {
        self.0.tokens.lock().unwrap_or_else(PoisonError::into_inner).expire();
    }
    /// Ends all tokens of OAuth, as when the app is uninstalled.
    pub fn revoke_tokens(&self) {
        self.0.tokens.lock().unwrap_or_else(PoisonError::into_inner).revoke();
    }
}

fn record(state: &State, entity: Entity, row: &Row) -> Record {
    let mut fields = state.render(entity, row, &View::default());
    fields.remove("custom_fields");
    let set = state.fields(entity);
    let named = |name: &str| set.customs().filter(|(_, field)| field.name == name).count();
    let custom = row.customs().iter().filter_map(|(place, value)| {
        let field = set.at(*place).filter(|field| field.active)?;
        let name = if named(&field.name) == 1 { field.name.clone() } else { field.key.to_string() };
        Some((name, value.clone()))
    });
    Record {
        id: row.id,
        is_deleted: row.deleted.is_some(),
        is_archived: row.is_archived(),
        update_time: clock::rfc3339(row.update),
        custom: custom.collect(),
        fields,
    }
}

/// A body whose custom fields stand under their keys, options by their ids.
fn keyed(state: &State, entity: Entity, body: Value) -> Result<Map<String, Value>, Refusal> {
    let Value::Object(mut body) = body else { return Err(Refusal::schema("body", "Expected object")) };
    if let Some(Value::Object(custom)) = body.remove("custom_fields") {
        let set = state.fields(entity);
        let mut by_key = Map::new();
        for (name, value) in custom {
            let field =
                set.customs().map(|(_, field)| field).find(|field| field.name == name || field.key.as_ref() == name);
            let Some(field) = field else {
                return Err(Refusal::schema(&format!("custom_fields.{name}"), "Unknown custom field"));
            };
            let by_id = |value: Value| match &value {
                Value::String(label) => {
                    let found = field.choices.iter().find(|choice| choice.label == *label);
                    found.map_or(value, |choice| json!(choice.id))
                }
                _ => value,
            };
            let value = match value {
                Value::Array(items) => items.into_iter().map(by_id).collect(),
                value => by_id(value),
            };
            by_key.insert(field.key.to_string(), value);
        }
        body.insert("custom_fields".to_owned(), Value::Object(by_key));
    }
    Ok(body)
}

#[expect(clippy::panic, reason = "it is what makes a test fail")]
fn told<T>(outcome: Result<T, Refusal>) -> T {
    match outcome {
        Ok(done) => done,
        Err(refusal) => panic!("the account refuses that: {} {}", refusal.status, refusal.body),
    }
}
