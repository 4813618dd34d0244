//! What version 1 still serves: users, notes, currencies, recents, and fields the old way.

use serde_json::{Map, Value, json};

use super::{
    Entity, Kind, clock,
    query::Query,
    refusal::Refusal,
    route::{V1, add_field, object, word},
    state::{State, User, View},
    values::CURRENCIES,
};

impl V1 {
    pub fn of(method: &str, parts: &[&str]) -> Result<Self, Refusal> {
        let id = |text: &str| text.parse::<u64>().map_err(|_| Refusal::no_route());
        if let Some((first, rest)) = parts.split_first()
            && let Some(entity) = Entity::of_field_path(first)
        {
            return Ok(match (rest, method) {
                ([], "GET") => Self::Fields(entity),
                ([number], "GET") => Self::Field(entity, id(number)?),
                ([], "POST") if entity.has_custom_fields() => Self::FieldCreate(entity),
                ([number], "PUT") if entity.has_custom_fields() => Self::FieldUpdate(entity, id(number)?),
                ([number], "DELETE") if entity.has_custom_fields() => Self::FieldDelete(entity, id(number)?),
                _ => return Err(Refusal::not_allowed()),
            });
        }
        Ok(match (parts, method) {
            (["users"], "GET") => Self::Users,
            (["users", "me"], "GET") => Self::Me,
            (["users", "find"], "GET") => Self::FindUsers,
            (["users", number], "GET") => Self::User(id(number)?),
            (["currencies"], "GET") => Self::Currencies,
            (["activityTypes"], "GET") => Self::ActivityTypes,
            (["userSettings"], "GET") => Self::Settings,
            (["recents"], "GET") => Self::Recents,
            (["notes"], "GET") => Self::Notes,
            (["notes"], "POST") => Self::NoteCreate,
            (["notes", number], "GET") => Self::Note(id(number)?),
            (["notes", number], "PUT") => Self::NoteUpdate(id(number)?),
            (["notes", number], "DELETE") => Self::NoteDelete(id(number)?),
            (["itemSearch", ..], _) => Self::Retired,
            ([entity, ..], _) if Entity::of_path(entity).is_some() => Self::Retired,
            _ => return Err(Refusal::no_route()),
        })
    }

    pub fn price(&self) -> (Kind, Option<Entity>, u64) {
        match self {
            Self::Fields(entity) => (Kind::Fields, Some(*entity), 20),
            Self::Field(entity, _) => (Kind::Fields, Some(*entity), 2),
            Self::FieldCreate(entity) | Self::FieldUpdate(entity, _) => (Kind::FieldWrite, Some(*entity), 10),
            Self::FieldDelete(entity, _) => (Kind::FieldWrite, Some(*entity), 6),
            Self::Users | Self::Currencies | Self::ActivityTypes | Self::Recents | Self::Notes => {
                (Kind::Other, None, 20)
            }
            Self::Me | Self::User(_) | Self::Settings | Self::Note(_) => (Kind::Other, None, 2),
            Self::FindUsers => (Kind::Other, None, 40),
            Self::NoteCreate | Self::NoteUpdate(_) => (Kind::Other, None, 10),
            Self::NoteDelete(_) => (Kind::Other, None, 6),
            Self::Retired => (Kind::Other, None, 2),
        }
    }

    pub fn carry_out(
        &self,
        state: &mut State,
        query: &Query,
        body: Option<&Value>,
        host: &str,
    ) -> Result<(u16, Value), Refusal> {
        let done = |data: Value| json!({ "success": true, "data": data });
        Ok(match self {
            Self::Fields(entity) => {
                let all: Vec<Value> =
                    (1..).zip(state.fields(*entity).active()).map(|(order, (_, field))| field.v1(order)).collect();
                (
                    200,
                    paged(
                        all,
                        query,
                        |start, limit, more| json!({ "start": start, "limit": limit, "more_items_in_collection": more }),
                    )?,
                )
            }
            Self::Field(entity, id) => {
                let found = (1..).zip(state.fields(*entity).active()).find(|(_, (_, field))| field.id == *id);
                let (order, (_, field)) = found.ok_or_else(|| Refusal::not_found("Field"))?;
                (200, done(field.v1(order)))
            }
            Self::FieldCreate(entity) => {
                let body = object(body)?;
                let key =
                    add_field(state, *entity, word(body, "name")?, word(body, "field_type")?, body.get("options"))?;
                let order = state.fields(*entity).active().count();
                (201, done(state.fields(*entity).by_key(&key)?.v1(order)))
            }
            Self::FieldUpdate(entity, id) => {
                let key = field_key(state, *entity, *id)?;
                let now = state.clock.seconds();
                let field = state.fields_mut(*entity).custom_mut(&key)?;
                word(object(body)?, "name")?.clone_into(&mut field.name);
                field.update = now;
                (200, done(field.v1(1)))
            }
            Self::FieldDelete(entity, id) => {
                let key = field_key(state, *entity, *id)?;
                state.fields_mut(*entity).custom_mut(&key)?.active = false;
                (200, done(json!({ "id": id })))
            }
            Self::Users => (200, done(state.users.iter().map(|user| shown(state, user)).collect())),
            Self::Me => {
                let mut me = state.users.first().map(|user| shown(state, user)).unwrap_or_default();
                let name = state.options.seed.as_str();
                me["company_id"] = json!(7_000_000 + name.len());
                me["company_name"] = json!(name);
                me["company_domain"] = json!(host);
                (200, done(me))
            }
            Self::User(id) => {
                let user = state.users.iter().find(|user| user.id == *id).ok_or_else(|| Refusal::not_found("User"))?;
                (200, done(shown(state, user)))
            }
            Self::FindUsers => {
                let term = query.get("term").unwrap_or_default().to_lowercase();
                let by_email = query.is_true("search_by_email");
                let fits = |user: &&User| {
                    let text = if by_email { &user.email } else { &user.name };
                    text.to_lowercase().contains(&term)
                };
                (200, done(state.users.iter().filter(fits).map(|user| shown(state, user)).collect()))
            }
            Self::Currencies => {
                let one = |(id, (code, name, places, symbol)): (usize, (&str, &str, u64, &str))| {
                    json!({
                        "id": id, "code": code, "name": name, "decimal_points": places, "symbol": symbol,
                        "active_flag": true, "is_custom_flag": false,
                    })
                };
                (200, done((1..).zip(CURRENCIES).map(one).collect()))
            }
            Self::ActivityTypes => {
                let one = |(id, name): (u64, &str)| {
                    json!({
                        "id": id, "name": name, "key_string": name.to_lowercase(), "order_nr": id,
                        "icon_key": name.to_lowercase(), "active_flag": true, "is_custom_flag": false,
                    })
                };
                let names = ["Call", "Meeting", "Task", "Deadline", "Email", "Lunch"];
                (200, done((1..).zip(names).map(one).collect()))
            }
            Self::Settings => (200, done(json!({ "expected_close_date_days": 7, "timezone": "UTC" }))),
            Self::Recents => (200, state.recents(query)?),
            Self::Notes => {
                let ids = ["deal_id", "person_id", "org_id"];
                let fits = |note: &&Map<String, Value>| {
                    ids.iter().all(|key| {
                        query.get(key).is_none_or(|id| {
                            note.get(*key).and_then(Value::as_u64).map(|id| id.to_string()).as_deref() == Some(id)
                        })
                    })
                };
                let all = state.notes.values().filter(fits).cloned().map(Value::Object).collect();
                (
                    200,
                    paged(
                        all,
                        query,
                        |start, limit, more| json!({ "pagination": { "start": start, "limit": limit, "more_items_in_collection": more } }),
                    )?,
                )
            }
            Self::Note(id) => {
                let note = state.notes.get(id).ok_or_else(|| Refusal::not_found("Note"))?;
                (200, done(Value::Object(note.clone())))
            }
            Self::NoteCreate => {
                let body = object(body)?;
                let content = word(body, "content")?;
                let now = json!(clock::spaced(state.clock.seconds()));
                let mut note = Map::new();
                for (key, value) in [
                    ("active_flag", json!(true)),
                    ("add_time", now.clone()),
                    ("update_time", now),
                    ("content", json!(content)),
                    ("user_id", json!(1)),
                ] {
                    note.insert(key.to_owned(), value);
                }
                let mut linked = false;
                for (key, entity) in
                    [("deal_id", Entity::Deals), ("person_id", Entity::Persons), ("org_id", Entity::Organizations)]
                {
                    let id = body.get(key).and_then(Value::as_u64);
                    if let Some(id) = id {
                        state
                            .alive(entity, id)
                            .ok_or_else(|| Refusal::bad(&format!("{key}: {} {id} not found", entity.singular())))?;
                        linked = true;
                    }
                    note.insert(key.to_owned(), json!(id));
                }
                if !linked {
                    return Err(Refusal::bad("One of deal_id, person_id, org_id, lead_id is required"));
                }
                let id = state.next_note();
                note.insert("id".to_owned(), json!(id));
                state.notes.insert(id, note.clone());
                (201, done(Value::Object(note)))
            }
            Self::NoteUpdate(id) => {
                let now = clock::spaced(state.clock.seconds());
                let note = state.notes.get_mut(id).ok_or_else(|| Refusal::not_found("Note"))?;
                note.insert("content".to_owned(), json!(word(object(body)?, "content")?));
                note.insert("update_time".to_owned(), json!(now));
                (200, done(Value::Object(note.clone())))
            }
            Self::NoteDelete(id) => {
                state.notes.remove(id).ok_or_else(|| Refusal::not_found("Note"))?;
                (200, done(json!(true)))
            }
            Self::Retired => return Err(Refusal::gone("This endpoint is out of support, use API v2")),
        })
    }
}

fn field_key(state: &State, entity: Entity, id: u64) -> Result<String, Refusal> {
    let found = state.fields(entity).active().find(|(_, field)| field.id == id);
    found.map(|(_, field)| field.key.to_string()).ok_or_else(|| Refusal::not_found("Field"))
}

fn shown(state: &State, user: &User) -> Value {
    json!({
        "id": user.id,
        "name": user.name,
        "default_currency": state.options.currency,
        "locale": "en_US",
        "lang": 1,
        "email": user.email,
        "phone": null,
        "activated": true,
        "last_login": "2026-01-01 08:00:00",
        "created": "2025-01-01 08:00:00",
        "modified": "2026-01-01 08:00:00",
        "has_created_company": user.id == 1,
        "access": [{ "app": "sales", "admin": user.id == 1, "permission_set_id": "towpath" }],
        "active_flag": user.active,
        "timezone_name": "Etc/UTC",
        "timezone_offset": "+00:00",
        "role_id": 1,
        "icon_url": null,
        "is_you": user.id == 1,
        "is_deleted": false,
    })
}

/// A page by `start` and `limit`; without a limit, of fields, all.
fn paged(all: Vec<Value>, query: &Query, tell: impl Fn(usize, usize, bool) -> Value) -> Result<Value, Refusal> {
    let number = |name: &str, default: usize| {
        let given =
            query.get(name).map(|text| text.parse().map_err(|_| Refusal::bad(&format!("{name} is not a number"))));
        given.unwrap_or(Ok(default))
    };
    let (start, limit) = (number("start", 0)?, number("limit", 500)?.clamp(1, 500));
    let more = all.len() > start.saturating_add(limit);
    let mut tells = tell(start, limit, more);
    if more && let Some(pagination) = tells.get_mut("pagination") {
        pagination["next_start"] = json!(start + limit);
    }
    let page: Vec<Value> = all.into_iter().skip(start).take(limit).collect();
    Ok(json!({ "success": true, "data": page, "additional_data": tells }))
}

impl State {
    /// What was changed since, with what was deleted.
    fn recents(&self, query: &Query) -> Result<Value, Refusal> {
        let since = query.get("since_timestamp").ok_or_else(|| Refusal::bad("since_timestamp is missing"))?;
        let since = clock::instant(&format!("{}Z", since.replace(' ', "T")));
        let since = since.ok_or_else(|| Refusal::bad("since_timestamp is not a timestamp"))?;
        let wanted = query.list("items");
        let mut found: Vec<(i64, Value)> = vec![];
        for entity in [Entity::Deals, Entity::Persons, Entity::Organizations, Entity::Products, Entity::Activities] {
            if wanted.as_ref().is_some_and(|wanted| !wanted.contains(&entity.singular())) {
                continue;
            }
            let rows = self.table(entity).rows.values().filter(|row| row.update >= since && !self.is_purged(row));
            found.extend(rows.map(|row| {
                let data = self.render(entity, row, &View::default());
                (row.update, json!({ "item": entity.singular(), "id": row.id, "data": data }))
            }));
        }
        found.sort_by_key(|(update, _)| *update);
        let last = found.last().map(|(update, _)| clock::spaced(*update));
        let all = found.into_iter().map(|(_, item)| item).collect();
        paged(all, query, |start, limit, more| {
            json!({
                "since_timestamp": clock::spaced(since),
                "last_timestamp_on_page": last,
                "pagination": { "start": start, "limit": limit, "more_items_in_collection": more },
            })
        })
    }
}
