//! Values of fields in one canonical form, which both sides are brought into before they are compared: what the server lists, and what
//! a row asks for as the server would echo it. Pure.
//!
//! The form is JSON: nothing and an empty text are both `null`, numbers are the vendor's doubles, an option is its id, several are their
//! ids in order, money is `{"value":…,"currency":…}` (a row's amount may be without a
//! currency), of contacts the primary one counts.

use std::sync::Arc;

use serde_json::{Map, Number, Value, json};

use crate::entity::{Entity, Standard};

/// How a field is written and read.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A standard field that needs no choices.
    Standard(Standard),
    /// An amount with its currency, in a custom field.
    Monetary,
    /// A time of day in a custom field: an object.
    TimeObject,
    /// One of these.
    Choice(Arc<Choices>),
    /// Some of these.
    Choices(Arc<Choices>),
}

/// What a field can be, by id and by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choices {
    /// What they are called in messages: `option`, `user`, `stage`.
    pub what: &'static str,
    /// In the vendor's order.
    pub all: Vec<(i64, String)>,
    /// Further names of the same (a user's e-mail address).
    pub aliases: Vec<(i64, String)>,
    /// Whether an id may stand in place of a name, where no name is like it.
    pub by_id: bool,
}

impl Kind {
    /// The words that a value can be, where it can be nothing else.
    pub fn words(&self) -> Vec<&str> {
        match self {
            Self::Choice(choices) | Self::Choices(choices) => {
                choices.all.iter().chain(&choices.aliases).map(|(_, label)| label.as_str()).collect()
            }
            Self::Standard(Standard::Word(words)) => words.to_vec(),
            Self::Standard(_) | Self::Monetary | Self::TimeObject => vec![],
        }
    }
}

impl Choices {
    /// The id of a name.
    ///
    /// # Errors
    /// Why not.
    pub fn id(&self, name: &str) -> Result<i64, String> {
        let name = name.trim();
        let ids = |list: &[(i64, String)]| -> Vec<i64> {
            list.iter().filter(|(_, label)| label == name).map(|(id, _)| *id).collect()
        };
        let mut found = ids(&self.all);
        if found.is_empty() {
            found = ids(&self.aliases);
        }
        match *found.as_slice() {
            [id] => return Ok(id),
            [] => {}
            _ => return Err(format!("{} {}s are called '{name}'", found.len(), self.what)),
        }
        if self.by_id
            && let Ok(id) = name.parse::<i64>()
            && self.all.iter().any(|(known, _)| *known == id)
        {
            return Ok(id);
        }
        let known: Vec<&str> = self.all.iter().map(|(_, label)| label.as_str()).take(12).collect();
        let more = if self.all.len() > known.len() { ", …" } else { "" };
        Err(format!("there is no {} '{name}'; there are {}{more}", self.what, known.join(", ")))
    }
    /// The name of an id.
    pub fn label(&self, id: i64) -> Option<&str> {
        self.all.iter().find(|(known, _)| *known == id).map(|(_, label)| label.as_str())
    }
}

/// What the server lists, in the canonical form. What it should not list is taken as it stands.
pub fn from_server(kind: &Kind, value: &Value) -> Value {
    match kind {
        Kind::Monetary => match value {
            Value::Object(parts) => match parts.get("value").map(number_of) {
                None | Some(Value::Null) => Value::Null,
                Some(amount) => {
                    json!({ "value": amount, "currency": parts.get("currency").cloned().unwrap_or_default() })
                }
            },
            _ => Value::Null,
        },
        Kind::TimeObject => text_of(inner(value)),
        Kind::Choice(_) => id_of(value),
        Kind::Choices(_) => ids_of(value),
        Kind::Standard(standard) => match standard {
            Standard::Text | Standard::Time | Standard::Word(_) | Standard::Currency => text_of(value),
            Standard::Name => name_of(value),
            Standard::Number => number_of(value),
            Standard::Amount => match number_of(value) {
                Value::Null => Value::from(0),
                amount => amount,
            },
            Standard::Truth => Value::Bool(matches!(value, Value::Bool(true)) || value.as_i64() == Some(1)),
            Standard::Date => match text_of(value) {
                Value::String(text) => Value::from(text.get(..10).unwrap_or(&text)),
                other => other,
            },
            Standard::Address => text_of(inner(value)),
            Standard::Contacts => primary(value).map_or(Value::Null, |at| text_of(&value[at]["value"])),
            Standard::Id(_) | Standard::User | Standard::Pipeline | Standard::Stage => id_of(value),
            Standard::Labels => ids_of(value),
            Standard::ReadOnly => value.clone(),
        },
    }
}

/// What a row asks for, in the canonical form. `text`: the cell as text; `currency`: of money.
///
/// # Errors
/// Why the value does not fit the field.
pub fn from_row(kind: &Kind, text: Option<&str>, currency: Option<&str>) -> Result<Value, String> {
    let text = text.map(str::trim).filter(|text| !text.is_empty());
    let Some(text) = text else {
        return Ok(match kind {
            Kind::Standard(Standard::Amount) => Value::from(0),
            Kind::Standard(Standard::Truth) => Value::Bool(false),
            _ => Value::Null,
        });
    };
    match kind {
        Kind::Monetary => {
            let amount = number(text)?;
            Ok(match currency.map(str::trim).filter(|code| !code.is_empty()) {
                Some(currency) => json!({ "value": amount, "currency": code(currency)? }),
                None => json!({ "value": amount }),
            })
        }
        Kind::TimeObject => time(text),
        Kind::Choice(choices) => choices.id(text).map(Value::from),
        Kind::Choices(choices) => several(choices, text),
        Kind::Standard(standard) => match standard {
            Standard::Text | Standard::Address | Standard::Contacts => Ok(Value::from(text)),
            Standard::Name => Ok(name_of(&Value::from(text))),
            Standard::Number | Standard::Amount => number(text),
            Standard::Currency => code(text).map(Value::from),
            Standard::Truth => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "1" => Ok(Value::Bool(true)),
                "false" | "no" | "0" => Ok(Value::Bool(false)),
                _ => Err(format!("'{text}' is neither true nor false")),
            },
            Standard::Date => date(text),
            Standard::Time => time(text),
            Standard::Word(words) => {
                let word = text.to_ascii_lowercase();
                if words.contains(&word.as_str()) {
                    return Ok(Value::from(word));
                }
                Err(format!("'{text}' is none of {}", words.join(", ")))
            }
            Standard::Id(_) | Standard::User | Standard::Pipeline | Standard::Stage => {
                let id = text.parse::<u64>().ok().filter(|id| *id > 0);
                id.map(Value::from).ok_or_else(|| format!("'{text}' is not an id"))
            }
            Standard::Labels | Standard::ReadOnly => Err("the field cannot be written".to_owned()),
        },
    }
}

/// A canonical value as it is sent. `there`: the contacts that the record has.
pub fn to_wire(kind: &Kind, code: &str, value: &Value, there: Option<&Value>) -> Value {
    match kind {
        Kind::Standard(Standard::Contacts) => contacts(code, value, there),
        Kind::Standard(Standard::Address) | Kind::TimeObject if !value.is_null() => json!({ "value": value }),
        // Clearing an array is an empty one.
        Kind::Choices(_) if value.is_null() && code == "label_ids" => json!([]),
        _ => value.clone(),
    }
}

/// A canonical value as people know it.
pub fn shown(kind: &Kind, value: &Value) -> Option<Value> {
    let label = |choices: &Choices, id: &Value| {
        let label = id.as_i64().and_then(|id| choices.label(id)).map(Value::from);
        label.unwrap_or_else(|| id.clone())
    };
    match (kind, value) {
        (_, Value::Null) => None,
        (Kind::Choice(choices), id) => Some(label(choices, id)),
        (Kind::Choices(choices), Value::Array(ids)) => Some(ids.iter().map(|id| label(choices, id)).collect()),
        (_, value) => Some(value.clone()),
    }
}

/// The contacts to send: ours in the place of the primary one, and the others as they are.
fn contacts(code: &str, value: &Value, there: Option<&Value>) -> Value {
    let mut all = there.and_then(Value::as_array).cloned().unwrap_or_default();
    let at = there.and_then(primary);
    // The one that becomes the primary may be among the others already.
    let same = all.iter().position(|contact| &text_of(&contact["value"]) == value);
    let label = match (at.or(same), code) {
        (Some(at), _) if all[at]["label"].is_string() => all[at]["label"].clone(),
        _ => Value::from("work"),
    };
    let ours = (!value.is_null()).then(|| json!({ "value": value, "primary": true, "label": label }));
    let mut kept = Vec::with_capacity(all.len() + 1);
    kept.extend(ours);
    for (index, mut contact) in all.drain(..).enumerate() {
        if Some(index) != at && Some(index) != same {
            contact["primary"] = Value::Bool(kept.is_empty());
            kept.push(contact);
        }
    }
    Value::Array(kept)
}

/// Whether there is more in an array of contacts than its primary value says.
pub fn has_more(value: &Value) -> bool {
    value.as_array().is_some_and(|all| all.len() > 1 || all.iter().any(|contact| contact["label"] != "work"))
}

/// Which contact is the primary one.
fn primary(value: &Value) -> Option<usize> {
    let all = value.as_array()?;
    let at = all.iter().position(|contact| contact["primary"] == true);
    at.or_else(|| (!all.is_empty()).then_some(0))
}

/// The one value that an object is about.
fn inner(value: &Value) -> &Value {
    match value {
        Value::Object(parts) => parts.get("value").unwrap_or(&Value::Null),
        other => other,
    }
}

fn text_of(value: &Value) -> Value {
    match value {
        Value::String(text) => match text.trim() {
            "" => Value::Null,
            trimmed => Value::from(trimmed),
        },
        // A text field may hold what looks like a number.
        Value::Number(number) => Value::from(number.to_string()),
        Value::Bool(truth) => Value::from(truth.to_string()),
        _ => Value::Null,
    }
}

fn name_of(value: &Value) -> Value {
    match text_of(value) {
        Value::String(text) => Value::from(text.split_whitespace().collect::<Vec<_>>().join(" ")),
        other => other,
    }
}

fn id_of(value: &Value) -> Value {
    match inner_id(value) {
        Some(id) => Value::from(id),
        None => Value::Null,
    }
}

fn inner_id(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Object(parts) => parts.get("id").or_else(|| parts.get("value")).and_then(inner_id),
        _ => None,
    }
    .filter(|id| *id > 0)
}

fn ids_of(value: &Value) -> Value {
    let mut ids: Vec<i64> = match value {
        Value::Array(all) => all.iter().filter_map(inner_id).collect(),
        other => inner_id(other).into_iter().collect(),
    };
    ids.sort_unstable();
    ids.dedup();
    if ids.is_empty() { Value::Null } else { Value::from(ids) }
}

fn number_of(value: &Value) -> Value {
    let double = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    double.map_or(Value::Null, of_double)
}

/// A double, a whole one without a fraction.
fn of_double(double: f64) -> Value {
    // 2^53: from there on, doubles leave whole numbers out.
    if double.fract() == 0.0 && double.abs() <= 9_007_199_254_740_992.0 {
        return Value::from(double as i64);
    }
    Number::from_f64(double).map_or(Value::Null, Value::Number)
}

/// A decimal number, exactly: one with more digits than the vendor's doubles keep is refused, because what comes back would be another.
fn number(text: &str) -> Result<Value, String> {
    let wrong = || format!("'{text}' is not a number");
    let sound = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+' | b'e' | b'E'));
    let double: f64 = text.parse().ok().filter(|double: &f64| sound && double.is_finite()).ok_or_else(wrong)?;
    if digits(text) != digits(&format!("{double:e}")) {
        return Err(format!("{text} has more digits than Pipedrive keeps"));
    }
    Ok(of_double(double))
}

/// The significant digits and where the point stands, of a text that is a number.
fn digits(text: &str) -> (bool, String, i64) {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let negative = mantissa.starts_with('-');
    let mantissa = mantissa.trim_start_matches(['-', '+']);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let leading = all.len() - all.trim_start_matches('0').len();
    let significant = all.trim_matches('0').to_owned();
    if significant.is_empty() {
        return (false, significant, 0);
    }
    let point = whole.len() as i64 - leading as i64 + exponent.parse::<i64>().unwrap_or(0);
    (negative, significant, point)
}

/// The code of a currency.
fn code(text: &str) -> Result<String, String> {
    let code = text.to_ascii_uppercase();
    // The vendor lets companies make currencies of their own.
    let right = (1..=8).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_alphanumeric());
    if right { Ok(code) } else { Err(format!("'{text}' is not the code of a currency")) }
}

fn date(text: &str) -> Result<Value, String> {
    let wrong = || format!("'{text}' is not a date; write 2026-01-31");
    let (day, time) = (text.get(..10).ok_or_else(wrong)?, &text[10.min(text.len())..]);
    let time_follows = time.is_empty() || time.starts_with(['T', ' ']);
    let date: jiff::civil::Date = day.parse().ok().filter(|_| time_follows).ok_or_else(wrong)?;
    Ok(Value::from(date.to_string()))
}

fn time(text: &str) -> Result<Value, String> {
    let time: jiff::civil::Time = text.parse().map_err(|_| format!("'{text}' is not a time of day; write 13:45:00"))?;
    Ok(Value::from(time.strftime("%H:%M:%S").to_string()))
}

/// Labels, one or several with commas between them.
fn several(choices: &Choices, text: &str) -> Result<Value, String> {
    let mut ids = match choices.id(text) {
        Ok(id) => vec![id],
        Err(_) => text
            .split(',')
            .map(str::trim)
            .filter(|label| !label.is_empty())
            .map(|label| choices.id(label))
            .collect::<Result<Vec<_>, _>>()?,
    };
    ids.sort_unstable();
    ids.dedup();
    Ok(if ids.is_empty() { Value::Null } else { Value::from(ids) })
}

/// The key as text, from a canonical value; `None` if there is none.
pub fn key(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// Whether records can be told apart by a field of this kind.
pub fn can_be_key(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::Standard(Standard::Text | Standard::Number | Standard::Date | Standard::Name | Standard::Contacts)
    )
}

/// What a custom field of a type is; `None`: not by this connector.
pub fn custom(field_type: &str, choices: Choices) -> Option<Kind> {
    Some(match field_type {
        "varchar" | "text" | "varchar_auto" | "varchar_options" | "phone" => Kind::Standard(Standard::Text),
        "double" | "int" => Kind::Standard(Standard::Number),
        "monetary" => Kind::Monetary,
        "date" => Kind::Standard(Standard::Date),
        "time" => Kind::TimeObject,
        "enum" => Kind::Choice(Arc::new(choices)),
        "set" => Kind::Choices(Arc::new(choices)),
        "address" => Kind::Standard(Standard::Address),
        "boolean" => Kind::Standard(Standard::Truth),
        "people" => Kind::Standard(Standard::Id(Entity::Persons)),
        "org" => Kind::Standard(Standard::Id(Entity::Organizations)),
        "deal" => Kind::Standard(Standard::Id(Entity::Deals)),
        "user" => Kind::Standard(Standard::User),
        _ => return None,
    })
}

/// Puts a field's wire value where it belongs in a body.
pub fn put(body: &mut Map<String, Value>, custom: bool, code: &str, value: Value) {
    if !custom {
        body.insert(code.to_owned(), value);
        return;
    }
    let fields = body.entry("custom_fields").or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(fields) = fields {
        fields.insert(code.to_owned(), value);
    }
}

#[cfg(test)]
mod tests;
