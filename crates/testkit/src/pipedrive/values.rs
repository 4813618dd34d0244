//! Whether a value is what its field takes, and what the server makes of it.

use serde_json::{Map, Value, json};

use super::{
    Entity, clock,
    fields::{Field, FieldType, address_parts},
    refusal::Refusal,
    schema::{Shape, Standard},
    state::State,
};

/// Currencies that are known: code, name, decimal places, symbol.
pub(super) const CURRENCIES: [(&str, &str, u64, &str); 12] = [
    ("AUD", "Australian Dollar", 2, "A$"),
    ("CAD", "Canadian Dollar", 2, "CA$"),
    ("CHF", "Swiss Franc", 2, "CHF"),
    ("CZK", "Czech Koruna", 2, "Kč"),
    ("DKK", "Danish Krone", 2, "Dkr"),
    ("EUR", "Euro", 2, "€"),
    ("GBP", "British Pound Sterling", 2, "£"),
    ("JPY", "Japanese Yen", 0, "¥"),
    ("NOK", "Norwegian Krone", 2, "Nkr"),
    ("PLN", "Polish Zloty", 2, "zł"),
    ("SEK", "Swedish Krona", 2, "Skr"),
    ("USD", "US Dollar", 2, "$"),
];

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn expected(at: &str, what: &str, value: &Value) -> Refusal {
    Refusal::schema(at, &format!("Expected {what}, received {}", type_of(value)))
}

/// A number as the server, which has doubles only, writes it: `12.50` is 12.5, `100.0` is 100.
fn number(at: &str, value: &Value) -> Result<Value, Refusal> {
    let Value::Number(number) = value else { return Err(expected(at, "number", value)) };
    let float = number.as_f64().unwrap_or_default();
    let most = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "it is whole, and within what a double holds exactly")]
    let whole = (float.fract() == 0.0 && float.abs() < most).then_some(float as i64);
    Ok(whole.map_or_else(|| json!(float), |whole| json!(whole)))
}

fn integer(at: &str, value: &Value) -> Result<Value, Refusal> {
    let shown = number(at, value).map_err(|_| expected(at, "integer", value))?;
    if shown.is_i64() || shown.is_u64() {
        Ok(shown)
    } else {
        Err(Refusal::schema(at, "Expected integer, received float"))
    }
}

fn id(at: &str, value: &Value) -> Result<u64, Refusal> {
    let id = integer(at, value)?;
    id.as_u64().filter(|id| *id > 0).ok_or_else(|| Refusal::schema(at, "Number must be greater than 0"))
}

fn text<'a>(at: &str, value: &'a Value, most: usize) -> Result<&'a str, Refusal> {
    let Value::String(text) = value else { return Err(expected(at, "string", value)) };
    if text.chars().count() > most {
        return Err(Refusal::schema(at, &format!("String must contain at most {most} character(s)")));
    }
    Ok(text)
}

fn date(at: &str, value: &Value) -> Result<Value, Refusal> {
    let text = text(at, value, 10)?;
    if clock::is_date(text) { Ok(json!(text)) } else { Err(Refusal::schema(at, "Invalid date, expected YYYY-MM-DD")) }
}

fn time(at: &str, value: &Value) -> Result<Value, Refusal> {
    let text = text(at, value, 8)?;
    let time = clock::time_of_day(text);
    time.map(Value::String).ok_or_else(|| Refusal::schema(at, "Invalid time, expected HH:MM:SS"))
}

fn currency(at: &str, value: &Value) -> Result<Value, Refusal> {
    let code = text(at, value, 3)?;
    let known = CURRENCIES.iter().any(|(known, ..)| *known == code);
    if known {
        Ok(json!(code))
    } else {
        Err(Refusal::schema(at, &format!("'{code}' is not a currency of this account")))
    }
}

fn object<'a>(at: &str, value: &'a Value, keys: &[&str]) -> Result<&'a Map<String, Value>, Refusal> {
    let Value::Object(object) = value else { return Err(expected(at, "object", value)) };
    if let Some(unknown) = object.keys().find(|key| !keys.contains(&key.as_str())) {
        return Err(Refusal::schema(at, &format!("Unrecognized key(s) in object: '{unknown}'")));
    }
    Ok(object)
}

fn part<'a>(at: &str, object: &'a Map<String, Value>, key: &str) -> Result<&'a Value, Refusal> {
    object.get(key).filter(|value| !value.is_null()).ok_or_else(|| Refusal::schema(&format!("{at}.{key}"), "Required"))
}

/// All parts; those that are not given are null.
fn address(at: &str, value: &Value) -> Result<Value, Refusal> {
    let keys: Vec<&str> = address_parts().collect();
    let given = object(at, value, &keys)?;
    let whole = text(&format!("{at}.value"), part(at, given, "value")?, 255)?;
    if whole.is_empty() {
        return Ok(Value::Null);
    }
    let mut shown = Map::new();
    for key in keys {
        let value = match given.get(key) {
            None | Some(Value::Null) => Value::Null,
            Some(value) => json!(text(&format!("{at}.{key}"), value, 255)?),
        };
        shown.insert(key.to_owned(), value);
    }
    if shown.get("formatted_address") == Some(&Value::Null) {
        shown.insert("formatted_address".to_owned(), json!(whole));
    }
    Ok(Value::Object(shown))
}

/// Without empty ones, with a label each and one that is primary.
fn contacts(at: &str, value: &Value) -> Result<Value, Refusal> {
    let Value::Array(items) = value else { return Err(expected(at, "array", value)) };
    let mut shown: Vec<Value> = vec![];
    let mut primary = None;
    for (number, item) in items.iter().enumerate() {
        let at = format!("{at}[{number}]");
        let item = object(&at, item, &["value", "primary", "label"])?;
        let value = text(&format!("{at}.value"), part(&at, item, "value")?, 255)?;
        let label = match item.get("label") {
            None | Some(Value::Null) => "work",
            Some(label) => text(&format!("{at}.label"), label, 50)?,
        };
        let is_primary = match item.get("primary") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(primary)) => *primary,
            Some(other) => return Err(expected(&format!("{at}.primary"), "boolean", other)),
        };
        if value.trim().is_empty() {
            continue;
        }
        if is_primary && primary.is_none() {
            primary = Some(shown.len());
        }
        shown.push(json!({ "value": value, "primary": false, "label": label }));
    }
    if let Some(Value::Object(item)) = shown.get_mut(primary.unwrap_or(0)) {
        item.insert("primary".to_owned(), json!(true));
    }
    Ok(if shown.is_empty() { Value::Null } else { Value::Array(shown) })
}

/// The same without the blanks around its texts.
pub(super) fn trimmed(value: &Value) -> Value {
    match value {
        Value::String(text) => json!(text.trim()),
        Value::Array(items) => items.iter().map(trimmed).collect(),
        Value::Object(parts) => Value::Object(parts.iter().map(|(key, value)| (key.clone(), trimmed(value))).collect()),
        _ => value.clone(),
    }
}

/// What is there and what came, each value once; the first one that came and is primary is it.
pub(super) fn merged(old: &Value, new: &Value) -> Value {
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let (old, new) = (items(old), items(new));
    let same = |a: &Value, b: &Value| a.get("value") == b.get("value");
    let mut all: Vec<Value> = old.into_iter().filter(|item| !new.iter().any(|other| same(item, other))).collect();
    if !new.is_empty() {
        for item in &mut all {
            if let Some(item) = item.as_object_mut() {
                item.insert("primary".to_owned(), json!(false));
            }
        }
    }
    all.extend(new);
    if all.is_empty() { Value::Null } else { Value::Array(all) }
}

fn ids(at: &str, value: &Value, field: &Field) -> Result<Vec<u64>, Refusal> {
    let Value::Array(items) = value else { return Err(expected(at, "array", value)) };
    let mut ids = vec![];
    for item in items {
        let id = option(at, item, field)?;
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    Ok(ids)
}

fn option(at: &str, value: &Value, field: &Field) -> Result<u64, Refusal> {
    let id = id(at, value)?;
    let known = field.choices.iter().any(|choice| choice.id == id);
    if known { Ok(id) } else { Err(Refusal::schema(at, &format!("Option {id} does not exist"))) }
}

impl State {
    fn user(&self, at: &str, value: &Value) -> Result<Value, Refusal> {
        let id = id(at, value)?;
        let known = self.users.iter().any(|user| user.id == id && user.active);
        if known { Ok(json!(id)) } else { Err(Refusal::bad(&format!("{at}: user {id} not found"))) }
    }

    fn linked(&self, at: &str, value: &Value, entity: Entity) -> Result<Value, Refusal> {
        let id = id(at, value)?;
        let known = self.alive(entity, id).is_some();
        if known { Ok(json!(id)) } else { Err(Refusal::bad(&format!("{at}: {} {id} not found", entity.singular()))) }
    }

    /// What becomes of a value of a standard field.
    pub fn standard(&self, entity: Entity, field: &Standard, value: &Value) -> Result<Value, Refusal> {
        let at = field.key;
        if value.is_null() {
            return if field.nullable { Ok(Value::Null) } else { Err(expected(at, "a value", value)) };
        }
        Ok(match field.shape {
            Shape::Text(most) => {
                let text = text(at, value, most)?;
                match (text.is_empty(), field.nullable) {
                    (true, true) => Value::Null,
                    (true, false) => return Err(Refusal::schema(at, "String must contain at least 1 character(s)")),
                    (false, _) => json!(text),
                }
            }
            Shape::Number => number(at, value)?,
            Shape::Integer => integer(at, value)?,
            Shape::Boolean => match value {
                Value::Bool(_) => value.clone(),
                _ => return Err(expected(at, "boolean", value)),
            },
            Shape::Date => date(at, value)?,
            Shape::Instant => {
                let instant = clock::instant(text(at, value, 30)?);
                let instant = instant.ok_or_else(|| Refusal::schema(at, "not a valid datetime"))?;
                json!(clock::rfc3339(instant))
            }
            Shape::Choice(words) => {
                let word = text(at, value, 50)?;
                if !words.contains(&word) {
                    return Err(Refusal::schema(at, &format!("Expected one of {}", words.join(", "))));
                }
                json!(word)
            }
            Shape::Record(linked) => self.linked(at, value, linked)?,
            Shape::User => self.user(at, value)?,
            Shape::Labels => {
                let field = self.fields(entity).by_key(at)?;
                let ids = ids(at, value, field)?;
                if ids.is_empty() { Value::Null } else { json!(ids) }
            }
            Shape::Contacts => contacts(at, value)?,
            Shape::Address => address(at, value)?,
            Shape::Visible => {
                let value = integer(at, value)?;
                if !matches!(value.as_u64(), Some(1 | 3 | 5 | 7)) {
                    return Err(Refusal::schema(at, "Expected one of 1, 3, 5, 7"));
                }
                value
            }
            Shape::Currency => currency(at, value)?,
            Shape::Json => match value {
                Value::Array(_) => value.clone(),
                _ => return Err(expected(at, "array", value)),
            },
        })
    }

    /// What becomes of a value of a custom field.
    pub fn custom_value(&self, field: &Field, custom: FieldType, value: &Value) -> Result<Value, Refusal> {
        if value.is_null() {
            return Ok(Value::Null);
        }
        let at = format!("custom_fields.{}", field.key);
        let at = at.as_str();
        let part_at = |key: &str| format!("{at}.{key}");
        let filled = |text: &str| if text.is_empty() { Value::Null } else { json!(text) };
        let zone = |given: &Map<String, Value>, shown: &mut Map<String, Value>| {
            // Without a time zone, it is the user's.
            let default = given.keys().all(|key| !key.starts_with("timezone"));
            for (key, of_user) in [("timezone_id", json!(1)), ("timezone_name", json!("Etc/UTC"))] {
                let of_user = if default { of_user } else { Value::Null };
                shown.insert(key.to_owned(), given.get(key).cloned().unwrap_or(of_user));
            }
        };
        Ok(match custom {
            FieldType::Varchar | FieldType::VarcharAuto | FieldType::Phone => filled(text(at, value, 255)?),
            FieldType::Text => filled(text(at, value, 65_000)?),
            FieldType::Double => number(at, value)?,
            FieldType::Monetary => {
                let given = object(at, value, &["value", "currency"])?;
                let amount = number(&part_at("value"), part(at, given, "value")?)?;
                let code = match given.get("currency") {
                    None | Some(Value::Null) => json!(self.options.currency),
                    Some(code) => currency(&part_at("currency"), code)?,
                };
                json!({ "value": amount, "currency": code })
            }
            FieldType::Enum => json!(option(at, value, field)?),
            FieldType::Set => {
                let ids = ids(at, value, field)?;
                if ids.is_empty() {
                    return Err(Refusal::schema(at, "Array must contain at least 1 element(s)"));
                }
                json!(ids)
            }
            FieldType::Date => date(at, value)?,
            FieldType::DateRange => {
                let given = object(at, value, &["value", "until"])?;
                let from = date(&part_at("value"), part(at, given, "value")?)?;
                let until = date(&part_at("until"), part(at, given, "until")?)?;
                json!({ "value": from, "until": until })
            }
            FieldType::Time => {
                let given = object(at, value, &["value", "timezone_id", "timezone_name"])?;
                let mut shown = Map::new();
                shown.insert("value".to_owned(), time(&part_at("value"), part(at, given, "value")?)?);
                zone(given, &mut shown);
                Value::Object(shown)
            }
            FieldType::TimeRange => {
                let given = object(at, value, &["value", "until", "timezone_id", "timezone_name"])?;
                let mut shown = Map::new();
                for key in ["value", "until"] {
                    shown.insert(key.to_owned(), time(&part_at(key), part(at, given, key)?)?);
                }
                zone(given, &mut shown);
                Value::Object(shown)
            }
            FieldType::Address => address(at, value)?,
            FieldType::Org => self.linked(at, value, Entity::Organizations)?,
            FieldType::People => self.linked(at, value, Entity::Persons)?,
            FieldType::User => self.user(at, value)?,
        })
    }
}
