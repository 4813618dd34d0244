//! Searching: what was created a moment ago is not found yet.

use serde_json::{Map, Value, json};

use super::{
    Entity,
    list::{limit, number, skip_cursor, skipped},
    query::Query,
    refusal::Refusal,
    state::{Row, State},
};

/// Related items and item search show so many at most.
const MOST_ITEMS: usize = 100;
const MOST: usize = 500;

/// Words of `fields` and the standard fields they stand for.
fn searched(entity: Entity) -> &'static [(&'static str, &'static str)] {
    match entity {
        Entity::Deals => &[("title", "title")],
        Entity::Persons => &[("name", "name"), ("email", "emails"), ("phone", "phones"), ("notes", "notes")],
        Entity::Organizations => &[("name", "name"), ("address", "address")],
        Entity::Products => &[("name", "name"), ("code", "code")],
        _ => &[],
    }
}

/// All texts in a value.
fn texts(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Number(number) => found.push(number.to_string()),
        Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
        Value::Object(parts) => parts.get("value").into_iter().for_each(|value| texts(value, found)),
        Value::Null | Value::Bool(_) => {}
    }
}

struct Term {
    text: String,
    exact: bool,
    fields: Option<Vec<String>>,
}

impl Term {
    fn read(query: &Query) -> Result<Self, Refusal> {
        let exact = query.is_true("exact_match");
        let text = query.get("term").unwrap_or_default().trim().to_lowercase();
        let least = if exact { 1 } else { 2 };
        if text.chars().count() < least {
            return Err(Refusal::schema("term", &format!("String must contain at least {least} character(s)")));
        }
        let fields = query.list("fields").map(|words| words.into_iter().map(str::to_owned).collect());
        Ok(Self { text, exact, fields })
    }
    fn wants(&self, word: &str) -> bool {
        self.fields.as_ref().is_none_or(|fields| fields.iter().any(|field| field == word))
    }
    fn fits(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        if self.exact { text == self.text } else { text.contains(&self.text) }
    }
}

impl State {
    fn found<'a>(&'a self, entity: Entity, term: &Term) -> impl Iterator<Item = &'a Row> {
        let lag = i64::try_from(self.options.unsettled.search_lag.as_millis()).unwrap_or(i64::MAX);
        let indexed = self.clock.millis() - lag;
        let custom: Vec<u32> = match term.wants("custom_fields") {
            true => {
                let fields = self.fields(entity).customs();
                fields
                    .filter(|(_, field)| field.custom.is_some_and(super::FieldType::is_searched))
                    .map(|(place, _)| place)
                    .collect()
            }
            false => vec![],
        };
        let standard: Vec<&str> =
            searched(entity).iter().filter(|(word, _)| term.wants(word)).map(|(_, key)| *key).collect();
        let rows = self.table(entity).rows.values().filter(move |row| row.deleted.is_none() && row.born <= indexed);
        let (text, exact) = (term.text.clone(), term.exact);
        rows.filter(move |row| {
            let mut all = vec![];
            standard.iter().for_each(|key| texts(row.get(key), &mut all));
            custom.iter().for_each(|place| texts(row.custom(*place), &mut all));
            let term = Term { text: text.clone(), exact, fields: None };
            all.iter().any(|text| term.fits(text))
        })
    }

    fn item(&self, entity: Entity, row: &Row) -> Value {
        let mut item = Map::new();
        item.insert("id".to_owned(), json!(row.id));
        item.insert("type".to_owned(), json!(entity.singular()));
        let keys: &[&str] = match entity {
            Entity::Deals => &["title", "value", "currency", "status", "visible_to"],
            Entity::Products => &["name", "code", "visible_to"],
            _ => &["name", "visible_to"],
        };
        for key in keys {
            item.insert((*key).to_owned(), row.get(key).clone());
        }
        item.insert("owner".to_owned(), json!({ "id": row.get("owner_id") }));
        let named = |entity: Entity, key: &str| {
            let other = row.int(key).and_then(|id| self.row(entity, id));
            other.map(|other| json!({ "id": other.id, "name": other.get("name") })).unwrap_or_default()
        };
        let list = |value: &Value| {
            let mut all = vec![];
            texts(value, &mut all);
            json!(all)
        };
        if entity == Entity::Deals {
            item.insert("stage".to_owned(), named(Entity::Stages, "stage_id"));
            item.insert("person".to_owned(), named(Entity::Persons, "person_id"));
            item.insert("is_archived".to_owned(), json!(row.is_archived()));
        }
        if entity == Entity::Persons {
            item.insert("phones".to_owned(), list(row.get("phones")));
            item.insert("emails".to_owned(), list(row.get("emails")));
        }
        if matches!(entity, Entity::Deals | Entity::Persons) {
            item.insert("organization".to_owned(), named(Entity::Organizations, "org_id"));
        }
        if entity == Entity::Organizations {
            item.insert("address".to_owned(), row.get("address").get("value").cloned().unwrap_or_default());
        }
        let custom = row.customs().iter().filter(|(place, _)| {
            let field = self.fields(entity).at(*place);
            field.is_some_and(|field| field.active && field.custom.is_some_and(super::FieldType::is_searched))
        });
        let custom: Vec<Value> = custom.map(|(_, value)| value.clone()).collect();
        item.insert("custom_fields".to_owned(), list(&Value::Array(custom)));
        item.insert("notes".to_owned(), json!([]));
        json!({ "result_score": 0.29, "item": item })
    }

    /// `/deals/search` and the like, or (`None`) `/itemSearch`.
    pub fn search(&self, entity: Option<Entity>, query: &Query) -> Result<Value, Refusal> {
        let term = Term::read(query)?;
        let limit = limit(query, if entity.is_some() { MOST } else { MOST_ITEMS })?;
        let skip = skipped(query)?;
        let wanted = query.list("item_types");
        let person = number(query, "person_id")?;
        let organization = number(query, "organization_id")?;
        let entities = Entity::ALL.into_iter().filter(|each| match entity {
            Some(entity) => *each == entity,
            None => each.is_searched() && wanted.as_ref().is_none_or(|wanted| wanted.contains(&each.singular())),
        });
        let mut items = vec![];
        for entity in entities {
            let rows = self.found(entity, &term);
            let linked = rows.filter(|row| {
                person.is_none_or(|id| row.int("person_id") == Some(id))
                    && organization.is_none_or(|id| row.int("org_id") == Some(id))
                    && query.get("status").is_none_or(|status| row.text("status") == Some(status))
            });
            let room = (skip + limit + 1).saturating_sub(items.len());
            items.extend(linked.take(room).map(|row| self.item(entity, row)));
        }
        let next = (items.len() > skip + limit).then(|| skip_cursor(skip + limit));
        let page: Vec<Value> = items.into_iter().skip(skip).take(limit).collect();
        let mut data = json!({ "items": page });
        if entity.is_none() {
            data["related_items"] = json!([]);
        }
        Ok(json!({ "success": true, "data": data, "additional_data": { "next_cursor": next } }))
    }

    /// `/itemSearch/field`: values of one field.
    pub fn search_field(&self, query: &Query) -> Result<Value, Refusal> {
        let named = query.get("entity_type").unwrap_or_default();
        let entity = Entity::ALL.into_iter().find(|each| each.singular() == named && each.is_searched());
        let entity = entity
            .ok_or_else(|| Refusal::schema("entity_type", "Expected one of deal, person, organization, product"))?;
        let key = query.get("field").ok_or_else(|| Refusal::schema("field", "Required"))?;
        let exact = query.get("match").is_none_or(|how| how == "exact");
        let term = query.get("term").unwrap_or_default().to_lowercase();
        if term.is_empty() {
            return Err(Refusal::schema("term", "Required"));
        }
        let limit = limit(query, MOST)?;
        let skip = skipped(query)?;
        let place = self.fields(entity).custom(key).map(|(place, _)| place);
        let lag = i64::try_from(self.options.unsettled.search_lag.as_millis()).unwrap_or(i64::MAX);
        let indexed = self.clock.millis() - lag;
        let rows = self.table(entity).rows.values().filter(|row| row.deleted.is_none() && row.born <= indexed);
        let found = rows.filter_map(|row| {
            let value = place.map_or_else(|| row.get(key), |place| row.custom(place));
            let mut all = vec![];
            texts(value, &mut all);
            let fits = all
                .iter()
                .map(|text| text.to_lowercase())
                .any(|text| if exact { text == term } else { text.contains(&term) });
            fits.then(|| json!({ "id": row.id, key: value }))
        });
        let mut page: Vec<Value> = found.skip(skip).take(limit + 1).collect();
        let next = (page.len() > limit).then(|| skip_cursor(skip + limit));
        page.truncate(limit);
        Ok(json!({ "success": true, "data": page, "additional_data": { "next_cursor": next } }))
    }
}
