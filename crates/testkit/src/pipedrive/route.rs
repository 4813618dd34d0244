//! Which call is which, what it costs, and carrying it out.

use serde_json::{Map, Value, json};

use super::{Entity, Kind, fields::FieldType, list, query::Query, refusal::Refusal, state::State};

/// A call, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    List { entity: Entity, archived: bool },
    Get(Entity, u64),
    Create(Entity),
    Update(Entity, u64),
    Delete(Entity, u64),
    Search(Option<Entity>),
    SearchField,
    Fields(Entity),
    Field(Entity, String),
    FieldCreate(Entity),
    FieldUpdate(Entity, String),
    FieldDelete(Entity, String),
    OptionsCreate(Entity, String),
    OptionsUpdate(Entity, String),
    OptionsDelete(Entity, String),
    V1(V1),
}

/// The body of an answer.
#[derive(Debug)]
pub(super) enum Payload {
    Json(Value),
    /// JSON, written.
    Written(Vec<u8>),
}

/// What v1 still serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum V1 {
    Fields(Entity),
    Field(Entity, u64),
    FieldCreate(Entity),
    FieldUpdate(Entity, u64),
    FieldDelete(Entity, u64),
    Users,
    Me,
    User(u64),
    FindUsers,
    Currencies,
    ActivityTypes,
    Settings,
    Recents,
    Notes,
    Note(u64),
    NoteCreate,
    NoteUpdate(u64),
    NoteDelete(u64),
    /// Out of support since 2026-08-01: 410.
    Retired,
}

impl Route {
    /// The call of a method and path, if there is one.
    pub fn of(method: &str, path: &str) -> Result<Self, Refusal> {
        let path = path.trim_end_matches('/');
        if let Some(rest) = path.strip_prefix("/api/v2/") {
            let parts: Vec<&str> = rest.split('/').collect();
            return Self::v2(method, &parts);
        }
        let rest = path.strip_prefix("/v1/").or_else(|| path.strip_prefix("/api/v1/"));
        let rest = rest.ok_or_else(Refusal::no_route)?;
        let parts: Vec<&str> = rest.split('/').collect();
        V1::of(method, &parts).map(Route::V1)
    }

    fn v2(method: &str, parts: &[&str]) -> Result<Self, Refusal> {
        match (parts, method) {
            (["itemSearch"], "GET") => return Ok(Self::Search(None)),
            (["itemSearch", "field"], "GET") => return Ok(Self::SearchField),
            _ => {}
        }
        let Some((first, rest)) = parts.split_first() else { return Err(Refusal::no_route()) };
        if let Some(entity) = Entity::of_field_path(first) {
            let writable = entity.has_custom_fields();
            return Ok(match (rest, method) {
                ([], "GET") => Self::Fields(entity),
                ([key], "GET") => Self::Field(entity, (*key).to_owned()),
                ([], "POST") if writable => Self::FieldCreate(entity),
                ([key], "PATCH") if writable => Self::FieldUpdate(entity, (*key).to_owned()),
                ([key], "DELETE") if writable => Self::FieldDelete(entity, (*key).to_owned()),
                ([key, "options"], "POST") if writable => Self::OptionsCreate(entity, (*key).to_owned()),
                ([key, "options"], "PATCH") if writable => Self::OptionsUpdate(entity, (*key).to_owned()),
                ([key, "options"], "DELETE") if writable => Self::OptionsDelete(entity, (*key).to_owned()),
                ([] | [_] | [_, "options"], _) => return Err(Refusal::not_allowed()),
                _ => return Err(Refusal::no_route()),
            });
        }
        let entity = Entity::of_path(first).ok_or_else(Refusal::no_route)?;
        Ok(match (rest, method) {
            ([], "GET") => Self::List { entity, archived: false },
            ([], "POST") => Self::Create(entity),
            (["archived"], "GET") if entity == Entity::Deals => Self::List { entity, archived: true },
            (["search"], "GET") if entity.is_searched() => Self::Search(Some(entity)),
            ([id], _) => {
                let id = id.parse().map_err(|_| Refusal::schema("id", "Expected number, received string"))?;
                match method {
                    "GET" => Self::Get(entity, id),
                    "PATCH" => Self::Update(entity, id),
                    "DELETE" => Self::Delete(entity, id),
                    _ => return Err(Refusal::not_allowed()),
                }
            }
            ([], _) => return Err(Refusal::not_allowed()),
            _ => return Err(Refusal::no_route()),
        })
    }

    /// Kind, entity, and tokens it costs by the vendor's specification (`x-token-cost`).
    pub fn price(&self) -> (Kind, Option<Entity>, u64) {
        match self {
            Self::List { entity: entity @ (Entity::Pipelines | Entity::Stages), .. } => (Kind::List, Some(*entity), 5),
            Self::List { entity, archived } => (Kind::List, Some(*entity), if *archived { 20 } else { 10 }),
            Self::Get(entity, _) => (Kind::Get, Some(*entity), 1),
            Self::Create(entity) => (Kind::Create, Some(*entity), 5),
            Self::Update(entity, _) => (Kind::Update, Some(*entity), 5),
            Self::Delete(entity, _) => (Kind::Delete, Some(*entity), 3),
            Self::Search(entity) => (Kind::Search, *entity, 20),
            Self::SearchField => (Kind::Search, None, 20),
            Self::Fields(entity) => (Kind::Fields, Some(*entity), 10),
            Self::Field(entity, _) => (Kind::Fields, Some(*entity), 1),
            Self::FieldCreate(entity) | Self::FieldUpdate(entity, _) => (Kind::FieldWrite, Some(*entity), 5),
            Self::FieldDelete(entity, _) | Self::OptionsDelete(entity, _) => (Kind::FieldWrite, Some(*entity), 3),
            Self::OptionsCreate(entity, _) | Self::OptionsUpdate(entity, _) => (Kind::FieldWrite, Some(*entity), 5),
            Self::V1(v1) => v1.price(),
        }
    }

    /// Carries it out.
    pub fn carry_out(
        &self,
        state: &mut State,
        query: &Query,
        body: Option<&Value>,
        host: &str,
    ) -> Result<(u16, Payload), Refusal> {
        let created = state.options.unsettled.created_status;
        let done = |data: Value| json!({ "success": true, "data": data });
        let (status, body) = match self {
            Self::List { entity, archived } => {
                return Ok((200, Payload::Written(state.list(*entity, *archived, query)?)));
            }
            Self::Get(entity, id) => {
                let view = state.view(*entity, query)?;
                (200, done(Value::Object(state.render(*entity, state.readable(*entity, *id)?, &view))))
            }
            Self::Create(entity) => {
                let id = state.create(*entity, object(body)?)?;
                (created, done(shown(state, *entity, id)?))
            }
            Self::Update(entity, id) => {
                state.update(*entity, *id, object(body)?)?;
                (200, done(shown(state, *entity, *id)?))
            }
            Self::Delete(entity, id) => {
                state.delete(*entity, *id)?;
                (200, done(json!({ "id": id })))
            }
            Self::Search(entity) => (200, state.search(*entity, query)?),
            Self::SearchField => (200, state.search_field(query)?),
            Self::Fields(entity) => (200, fields(state, *entity, query)?),
            Self::Field(entity, key) => {
                let field = state.fields(*entity).by_key(key)?;
                (200, done(with_included(field, query)?))
            }
            Self::FieldCreate(entity) => {
                let body = object(body)?;
                let (name, field_type) = (word(body, "field_name")?, word(body, "field_type")?);
                let key = add_field(state, *entity, name, field_type, body.get("options"))?;
                if let Some(description) = body.get("description").and_then(Value::as_str) {
                    state.fields_mut(*entity).custom_mut(&key)?.description = Some(description.to_owned());
                }
                (created, done(state.fields(*entity).by_key(&key)?.v2()))
            }
            Self::FieldUpdate(entity, key) => {
                let body = object(body)?;
                let now = state.clock.seconds();
                let field = state.fields_mut(*entity).custom_mut(key)?;
                if body.contains_key("field_name") {
                    word(body, "field_name")?.clone_into(&mut field.name);
                }
                if let Some(description) = body.get("description") {
                    field.description = description.as_str().map(str::to_owned);
                }
                field.update = now;
                (200, done(field.v2()))
            }
            Self::FieldDelete(entity, key) => {
                let field = state.fields_mut(*entity).custom_mut(key)?;
                field.active = false;
                (200, done(field.v2()))
            }
            Self::OptionsCreate(entity, key) => {
                let labels = labels(body)?;
                state.fields_mut(*entity).custom_mut(key)?;
                let choices: Vec<_> = labels.iter().map(|(_, label)| state.new_choice(label)).collect();
                let shown = choices.iter().map(|choice| json!({ "id": choice.id, "label": choice.label })).collect();
                state.fields_mut(*entity).custom_mut(key)?.choices.extend(choices);
                (created, done(shown))
            }
            Self::OptionsUpdate(entity, key) => {
                let field = state.fields_mut(*entity).custom_mut(key)?;
                let mut shown = vec![];
                for (id, label) in labels(body)? {
                    let choice = field.choices.iter_mut().find(|choice| Some(choice.id) == id);
                    let choice = choice.ok_or_else(|| Refusal::not_found("Option"))?;
                    label.clone_into(&mut choice.label);
                    shown.push(json!({ "id": choice.id, "label": choice.label }));
                }
                (200, done(Value::Array(shown)))
            }
            Self::OptionsDelete(entity, key) => {
                let given = body.and_then(Value::as_array).ok_or_else(|| Refusal::schema("body", "Expected array"))?;
                let ids: Vec<u64> = given.iter().filter_map(|each| each.get("id")?.as_u64()).collect();
                let field = state.fields_mut(*entity).custom_mut(key)?;
                let (gone, kept) =
                    std::mem::take(&mut field.choices).into_iter().partition(|choice| ids.contains(&choice.id));
                field.choices = kept;
                let gone: Vec<super::fields::Choice> = gone;
                (200, done(gone.iter().map(|choice| json!({ "id": choice.id, "label": choice.label })).collect()))
            }
            Self::V1(v1) => v1.carry_out(state, query, body, host)?,
        };
        Ok((status, Payload::Json(body)))
    }
}

/// A body that is an object.
pub(super) fn object(body: Option<&Value>) -> Result<&Map<String, Value>, Refusal> {
    match body {
        Some(Value::Object(object)) => Ok(object),
        _ => Err(Refusal::schema("body", "Expected object")),
    }
}

/// A text that must be there.
pub(super) fn word<'a>(body: &'a Map<String, Value>, key: &str) -> Result<&'a str, Refusal> {
    let text = body.get(key).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty());
    text.ok_or_else(|| Refusal::schema(key, "Required"))
}

/// Options, each with its id where it has one.
fn labels(body: Option<&Value>) -> Result<Vec<(Option<u64>, String)>, Refusal> {
    let given = body.and_then(Value::as_array).ok_or_else(|| Refusal::schema("body", "Expected array"))?;
    let one = |option: &Value| {
        let label = option.get("label").and_then(Value::as_str).map(str::trim).filter(|label| !label.is_empty());
        let label = label.ok_or_else(|| Refusal::schema("options.label", "Required"))?;
        Ok((option.get("id").and_then(Value::as_u64), label.to_owned()))
    };
    given.iter().map(one).collect()
}

/// Adds a custom field as a call wants it; its key.
pub(super) fn add_field(
    state: &mut State,
    entity: Entity,
    name: &str,
    field_type: &str,
    options: Option<&Value>,
) -> Result<String, Refusal> {
    let custom = FieldType::of_name(field_type);
    let custom = custom
        .ok_or_else(|| Refusal::schema("field_type", &format!("'{field_type}' is not a type of custom fields")))?;
    let needs = matches!(custom, FieldType::Enum | FieldType::Set);
    let labels = match options {
        Some(options) if needs => labels(Some(options))?,
        _ if needs => return Err(Refusal::schema("options", "Required")),
        _ => vec![],
    };
    let labels: Vec<&str> = labels.iter().map(|(_, label)| label.as_str()).collect();
    Ok(state.add_field(entity, name, custom, &labels))
}

fn shown(state: &State, entity: Entity, id: u64) -> Result<Value, Refusal> {
    let row = state.row(entity, id).ok_or_else(|| Refusal::not_found(entity.singular()))?;
    Ok(Value::Object(state.render(entity, row, &super::state::View::default())))
}

fn with_included(field: &super::fields::Field, query: &Query) -> Result<Value, Refusal> {
    let mut shown = field.v2();
    for word in query.list("include_fields").unwrap_or_default() {
        let included = field.included(word);
        shown[word] =
            included.ok_or_else(|| Refusal::schema("include_fields", &format!("'{word}' is not one of the fields")))?;
    }
    Ok(shown)
}

fn fields(state: &State, entity: Entity, query: &Query) -> Result<Value, Refusal> {
    let (limit, skip) = (list::limit(query, 500)?, list::skipped(query)?);
    let fields = state.fields(entity).active().skip(skip).take(limit + 1);
    let mut page: Vec<Value> = fields.map(|(_, field)| with_included(field, query)).collect::<Result<_, _>>()?;
    let next = (page.len() > limit).then(|| list::skip_cursor(skip + limit));
    page.truncate(limit);
    Ok(json!({ "success": true, "data": page, "additional_data": { "next_cursor": next } }))
}
