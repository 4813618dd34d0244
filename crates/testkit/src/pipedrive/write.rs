//! Creating, changing and deleting records.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::{
    Entity, clock,
    options::{Deleted, NameSplit},
    refusal::Refusal,
    schema::Set,
    state::{Row, State},
    values,
};

/// Who is signed in with the API token.
const ME: u64 = 1;

impl State {
    /// Creates a record; its id.
    pub fn create(&mut self, entity: Entity, body: &Map<String, Value>) -> Result<u64, Refusal> {
        let mut row = Row::new(0, self.clock.millis());
        self.prepare(entity, &mut row);
        let given = self.take(entity, &mut row, body, true)?;
        for key in entity.required() {
            let named = given.contains(key) || (*key == "name" && given.iter().any(|key| key.ends_with("_name")));
            if !named {
                return Err(Refusal::schema(key, "Required"));
            }
        }
        if entity == Entity::Deals && self.options.deals_limit.is_some_and(|limit| self.open_deals() >= limit) {
            let why = "Couldn't add the deal. Open deals limit reached.";
            return Err(Refusal::capped(why, "feature_capping_deals_limit"));
        }
        self.settle(entity, &mut row, None, &given)?;
        let table = self.table_mut(entity);
        row.id = table.next_id();
        let id = row.id;
        if entity == Entity::Products {
            price(&mut row);
        }
        self.table_mut(entity).insert(row);
        Ok(id)
    }

    /// Changes a record: what the body names, nothing else.
    pub fn update(&mut self, entity: Entity, id: u64, body: &Map<String, Value>) -> Result<(), Refusal> {
        let old = self.writable(entity, id)?.clone();
        let mut row = old.clone();
        let given = self.take(entity, &mut row, body, false)?;
        self.settle(entity, &mut row, Some(&old), &given)?;
        if entity == Entity::Products {
            price(&mut row);
        }
        if row != old {
            row.update = self.clock.seconds();
            self.table_mut(entity).insert(row);
        }
        Ok(())
    }

    /// Marks a record as deleted.
    pub fn delete(&mut self, entity: Entity, id: u64) -> Result<(), Refusal> {
        self.writable(entity, id)?;
        let now = self.clock.seconds();
        if let Some(row) = self.table_mut(entity).rows.get_mut(&id) {
            (row.deleted, row.update) = (Some(now), now);
        }
        let link = match entity {
            Entity::Persons => "person_id",
            Entity::Organizations => "org_id",
            _ => return Ok(()),
        };
        if self.options.unsettled.deletion_unlinks {
            for entity in [Entity::Deals, Entity::Persons, Entity::Activities] {
                let linked = self.table_mut(entity).rows.values_mut().filter(|row| row.int(link) == Some(id));
                linked.for_each(|row| {
                    row.set(link, Value::Null);
                    row.update = now;
                });
            }
        }
        Ok(())
    }

    /// A record as it is asked for.
    pub fn readable(&self, entity: Entity, id: u64) -> Result<&Row, Refusal> {
        let row = self.row(entity, id).ok_or_else(|| missing(entity))?;
        match (row.deleted, self.options.unsettled.deleted) {
            (None, _) | (_, Deleted::Readable) => Ok(row),
            (_, Deleted::NotFound) => Err(missing(entity)),
            (_, Deleted::Gone) => Err(Refusal::gone(&format!("{} is deleted", entity.singular()))),
        }
    }

    fn writable(&self, entity: Entity, id: u64) -> Result<&Row, Refusal> {
        let row = self.readable(entity, id)?;
        if row.deleted.is_none() { Ok(row) } else { Err(missing(entity)) }
    }

    fn open_deals(&self) -> u64 {
        let deals = self.table(Entity::Deals).rows.values();
        let open = |row: &&Row| row.deleted.is_none() && !row.is_archived() && row.text("status") == Some("open");
        deals.filter(open).count() as u64
    }

    /// What a new record has before anything is said of it.
    fn prepare(&self, entity: Entity, row: &mut Row) {
        if !matches!(entity, Entity::Pipelines | Entity::Stages) {
            row.set("owner_id", json!(ME));
        }
        if matches!(entity, Entity::Deals | Entity::Persons | Entity::Organizations | Entity::Products) {
            row.set("visible_to", json!(3));
        }
        match entity {
            Entity::Deals => {
                row.set("creator_user_id", json!(ME));
                row.set("value", json!(0));
                row.set("currency", json!(self.options.currency));
                row.set("status", json!("open"));
                row.set("origin", json!("API"));
            }
            Entity::Products => {
                row.set("tax", json!(0));
                row.set("is_linkable", json!(true));
                row.set("billing_frequency", json!("one-time"));
            }
            Entity::Activities => {
                row.set("creator_user_id", json!(ME));
                row.set("type", json!("call"));
                row.set("subject", json!("Call"));
            }
            Entity::Stages => row.set("deal_probability", json!(100)),
            Entity::Persons | Entity::Organizations | Entity::Pipelines => {}
        }
    }

    /// Takes over what a body says; the keys of standard fields it names.
    fn take(
        &self,
        entity: Entity,
        row: &mut Row,
        body: &Map<String, Value>,
        is_new: bool,
    ) -> Result<Vec<&'static str>, Refusal> {
        let unsettled = &self.options.unsettled;
        let mut given = vec![];
        for (key, value) in body {
            if key == "custom_fields" && entity.has_custom_fields() {
                self.take_custom(entity, row, value)?;
                continue;
            }
            let known = entity.field(key).filter(|field| {
                let part_of_name = entity == Entity::Persons && matches!(field.key, "first_name" | "last_name");
                match field.set {
                    Set::Never => false,
                    Set::Once => is_new,
                    Set::Always => !part_of_name || unsettled.name_parts_writable,
                    Set::WithContactSync | Set::Unshown => true,
                }
            });
            let Some(field) = known else {
                if unsettled.unknown_keys_refused {
                    return Err(Refusal::schema(key, &format!("Unrecognized key(s) in object: '{key}'")));
                }
                continue;
            };
            if field.set == Set::WithContactSync && !self.options.contact_sync {
                return Err(Refusal::forbidden(&format!("{key} needs the Contact Sync feature")));
            }
            let value = self.standard(entity, field, &self.received(value))?;
            if is_new && field.key == "is_deleted" && value == json!(true) {
                return Err(Refusal::bad("is_deleted: a record cannot be created deleted"));
            }
            match field.key {
                "add_time" => row.add = value.as_str().and_then(clock::instant).unwrap_or(row.add),
                "is_deleted" => row.deleted = (value == json!(true)).then(|| self.clock.seconds()),
                "emails" | "phones" if !is_new && unsettled.contacts_are_merged => {
                    let value = values::merged(row.get(key), &value);
                    row.set(field.key, value);
                }
                // What is not set is not kept.
                _ if value == json!(false) => row.set(field.key, Value::Null),
                _ => row.set(field.key, value),
            }
            given.push(field.key);
        }
        Ok(given)
    }

    fn received<'a>(&self, value: &'a Value) -> Cow<'a, Value> {
        if self.options.unsettled.trims { Cow::Owned(values::trimmed(value)) } else { Cow::Borrowed(value) }
    }

    fn take_custom(&self, entity: Entity, row: &mut Row, value: &Value) -> Result<(), Refusal> {
        let Value::Object(values) = value else {
            return Err(Refusal::schema("custom_fields", "Expected object"));
        };
        for (key, value) in values {
            let known = self.fields(entity).custom(key);
            let Some((place, field, custom)) = known.and_then(|(place, field)| Some((place, field, field.custom?)))
            else {
                return Err(Refusal::schema(&format!("custom_fields.{key}"), "Unknown custom field"));
            };
            row.set_custom(place, self.custom_value(field, custom, &self.received(value))?);
        }
        Ok(())
    }

    /// What follows from what was said.
    fn settle(&self, entity: Entity, row: &mut Row, old: Option<&Row>, given: &[&str]) -> Result<(), Refusal> {
        match entity {
            Entity::Deals => self.settle_deal(row, old, given),
            Entity::Persons => self.settle_person(row, old, given),
            Entity::Activities => {
                settle_activity(row, given, self.clock.seconds());
                Ok(())
            }
            Entity::Pipelines | Entity::Stages => {
                if old.is_none() {
                    let within = row.int("pipeline_id");
                    let others = self.table(entity).rows.values();
                    let order = others.filter(|other| other.int("pipeline_id") == within).count() + 1;
                    row.set("order_nr", json!(order));
                }
                Ok(())
            }
            Entity::Organizations | Entity::Products => Ok(()),
        }
    }

    fn settle_deal(&self, row: &mut Row, old: Option<&Row>, given: &[&str]) -> Result<(), Refusal> {
        let now = self.clock.seconds();
        let has = |key: &str| given.contains(&key);
        if has("stage_id") {
            let stage = row.int("stage_id").and_then(|id| self.alive(Entity::Stages, id));
            let pipeline = stage.and_then(|stage| stage.int("pipeline_id"));
            if has("pipeline_id") && row.int("pipeline_id") != pipeline {
                return Err(Refusal::bad("stage_id: the stage is not one of the pipeline"));
            }
            row.set("pipeline_id", json!(pipeline));
        } else if old.is_none()
            || (has("pipeline_id") && old.is_some_and(|old| old.get("pipeline_id") != row.get("pipeline_id")))
        {
            let first =
                || self.table(Entity::Pipelines).rows.values().find(|row| row.deleted.is_none()).map(|row| row.id);
            let pipeline = row.int("pipeline_id").or_else(first);
            row.set("pipeline_id", json!(pipeline));
            row.set("stage_id", json!(pipeline.and_then(|pipeline| self.first_stage(pipeline))));
        }
        if old.is_some_and(|old| old.get("stage_id") != row.get("stage_id")) {
            row.set("stage_change_time", json!(clock::rfc3339(now)));
        }
        let status = row.text("status").unwrap_or("open").to_owned();
        for (key, fits) in [
            ("lost_reason", status == "lost"),
            ("lost_time", status == "lost"),
            ("won_time", status == "won"),
            ("close_time", status != "open"),
        ] {
            if has(key) && !fits && !row.get(key).is_null() {
                return Err(Refusal::bad(&format!("{key} cannot be set when the deal is {status}")));
            }
            if !fits {
                row.set(key, Value::Null);
            } else if key != "lost_reason" && row.get(key).is_null() {
                row.set(key, json!(clock::rfc3339(now)));
            }
        }
        for (key, local) in
            [("won_time", "local_won_date"), ("lost_time", "local_lost_date"), ("close_time", "local_close_date")]
        {
            let date = row.text(key).and_then(|time| time.get(..10)).map(str::to_owned);
            row.set(local, json!(date));
        }
        if !row.is_archived() {
            row.set("archive_time", Value::Null);
        } else if row.get("archive_time").is_null() {
            row.set("archive_time", json!(clock::rfc3339(now)));
        }
        Ok(())
    }

    fn settle_person(&self, row: &mut Row, old: Option<&Row>, given: &[&str]) -> Result<(), Refusal> {
        let parts_differ = ["first_name", "last_name"].iter().any(|key| {
            let before = old.map_or(&Value::Null, |old| old.get(key));
            given.contains(key) && row.get(key) != before
        });
        if parts_differ {
            let parts = ["first_name", "last_name"].map(|key| row.text(key).unwrap_or_default().to_owned());
            let name = parts.join(" ").trim().to_owned();
            if name.is_empty() {
                return Err(Refusal::schema("name", "String must contain at least 1 character(s)"));
            }
            row.set("name", json!(name));
        } else if given.contains(&"name") && old.is_none_or(|old| old.get("name") != row.get("name")) {
            let name = row.text("name").unwrap_or_default().trim();
            let split = match self.options.unsettled.name_split {
                NameSplit::First => name.split_once(' '),
                NameSplit::Last => name.rsplit_once(' '),
            };
            let (first, last) = match split {
                Some((first, last)) => (json!(first.trim()), json!(last.trim())),
                None => (json!(name), Value::Null),
            };
            row.set("first_name", first);
            row.set("last_name", last);
        }
        Ok(())
    }
}

fn missing(entity: Entity) -> Refusal {
    let name = entity.singular();
    let (first, rest) = name.split_at(1);
    Refusal::not_found(&format!("{}{rest}", first.to_uppercase()))
}

fn settle_activity(row: &mut Row, given: &[&str], now: i64) {
    if given.contains(&"participants") {
        let participants = row.get("participants").as_array().cloned().unwrap_or_default();
        let primary = participants.iter().find(|each| each.get("primary") == Some(&json!(true)));
        let person = primary.or(participants.first()).and_then(|each| each.get("person_id")).cloned();
        row.set("person_id", person.unwrap_or_default());
    } else if given.contains(&"person_id") {
        let person = row.int("person_id").map(|id| json!([{ "person_id": id, "primary": true }]));
        row.set("participants", person.unwrap_or_default());
    }
    let done = row.get("done") == &json!(true);
    match (done, row.get("marked_as_done_time").is_null()) {
        (true, true) => row.set("marked_as_done_time", json!(clock::rfc3339(now))),
        (false, false) => row.set("marked_as_done_time", Value::Null),
        _ => {}
    }
}

/// Prices as they are shown: with the product's id and all parts.
fn price(row: &mut Row) {
    let prices = row.get("prices").as_array().cloned().unwrap_or_default();
    let full = prices.iter().map(|price| {
        let part = |key: &str| price.get(key).cloned().unwrap_or_default();
        json!({
            "product_id": row.id,
            "price": part("price"),
            "currency": part("currency"),
            "cost": part("cost"),
            "direct_cost": part("direct_cost"),
            "notes": part("notes"),
        })
    });
    let full: Vec<Value> = full.collect();
    row.set("prices", if full.is_empty() { Value::Null } else { Value::Array(full) });
}
