//! Definitions of an account's fields, and the names of the config found among them. Pure.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use towpath_core::{Error, Result};

use crate::{
    entity::{Entity, Standard},
    value::{self, Choices, Kind},
};

/// How many names an error shows.
const SHOWN: usize = 3;

/// A field as the account defines it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Definition {
    /// The name that people see.
    #[serde(alias = "name", default)]
    pub field_name: String,
    /// The key on the wire: a word for a standard field, 40 letters that differ from account to account for a custom one.
    #[serde(alias = "key", default)]
    pub field_code: String,
    /// The vendor's type.
    #[serde(default)]
    pub field_type: String,
    /// What it can be.
    #[serde(default)]
    pub options: Option<Vec<Choice>>,
    /// Whether people have added it.
    #[serde(default)]
    pub is_custom_field: bool,
}

/// What a field can be.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Choice {
    /// A number, or a word where the field is a standard one.
    #[serde(default)]
    pub id: Value,
    /// The name that people see.
    #[serde(default)]
    pub label: Option<String>,
}

/// A field of the config, found.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// As the config calls it.
    pub name: String,
    /// The key on the wire.
    pub code: String,
    /// Whether it stands under `custom_fields`.
    pub custom: bool,
    /// How it is written.
    pub kind: Kind,
}

impl Definition {
    /// Its options by id, those whose id is a word left out.
    pub fn choices(&self) -> Choices {
        let all = self.options.iter().flatten().filter_map(|choice| {
            let id = choice.id.as_i64().or_else(|| choice.id.as_str()?.parse().ok())?;
            Some((id, choice.label.clone().unwrap_or_default()))
        });
        Choices { what: "option", all: all.collect(), aliases: vec![], by_id: false }
    }
}

/// Finds a field by the name of the config: the name that people see, or the key on the wire.
///
/// # Errors
/// Config: there is none, or several have the name.
pub fn find<'a>(definitions: &'a [Definition], entity: Entity, name: &str) -> Result<&'a Definition> {
    let mut named: Vec<_> = definitions.iter().filter(|definition| definition.field_name == name).collect();
    if named.len() > 1 {
        // A field of the company's may have the name of one that Pipedrive alone writes, such as ID.
        let written = |one: &&Definition| {
            let standard = entity.standard(entity.code(&one.field_code));
            one.is_custom_field || standard.is_some_and(|standard| standard != Standard::ReadOnly)
        };
        if named.iter().any(written) {
            named.retain(written);
        }
    }
    match *named.as_slice() {
        [one] => return Ok(one),
        [] => {}
        _ => {
            // A standard field and a custom one may share a name, and so may two custom ones; nothing says which is meant.
            let code = |one: &&Definition| format!("{} ({})", one.field_code, one.field_type);
            let codes: Vec<_> = named.iter().map(code).collect();
            let what = format!("{} fields of {entity} are called '{name}': {}", named.len(), codes.join(", "));
            return Err(
                Error::config(what).hint("rename one of them in Pipedrive, or write the key in place of the name")
            );
        }
    }
    let coded = |definition: &&Definition| {
        definition.field_code == name
            || !definition.is_custom_field && entity.code(&definition.field_code) == entity.code(name)
    };
    if let Some(one) = definitions.iter().find(coded) {
        return Ok(one);
    }
    let what = format!("there is no field '{name}' in {entity}");
    let near = nearest(name, definitions.iter().map(|definition| definition.field_name.as_str()));
    let hint = match near.as_slice() {
        [] => "add it in Pipedrive (Settings, Data fields); `towpath discover` lists the fields".to_owned(),
        near => format!("did you mean {}? If it was renamed in Pipedrive, write its new name", near.join(", ")),
    };
    Err(Error::config(what).hint(hint))
}

/// Whether there is nothing of a name, be it one that is written or not.
pub fn is_unknown(definitions: &[Definition], entity: Entity, name: &str) -> bool {
    let named = definitions.iter().any(|definition| definition.field_name == name);
    !named && find(definitions, entity, name).is_err() && entity.standard(entity.code(name)).is_none()
}

/// A field of the config with how it is written. Users, pipelines and stages are known by id until their names are looked up.
///
/// # Errors
/// Config: there is none, several have the name, or it cannot be written.
pub fn resolve(definitions: &[Definition], entity: Entity, name: &str) -> Result<Field> {
    // Not every account lists the standard fields that a record has besides those that people see.
    let found = match find(definitions, entity, name) {
        Err(error) if definitions.iter().any(|definition| definition.field_name == name) => return Err(error),
        Err(error) => match entity.standard(entity.code(name)) {
            Some(standard) => return standard_field(entity, name, name, standard, Choices::default()),
            None => return Err(error),
        },
        Ok(found) => found,
    };
    let unsupported = |what: String| Err(Error::config(what).hint("leave it out of fields"));
    if found.is_custom_field {
        let Some(kind) = value::custom(&found.field_type, found.choices()) else {
            return unsupported(format!(
                "the field '{name}' is of the type {}, which is not written",
                found.field_type
            ));
        };
        return Ok(Field { name: name.to_owned(), code: found.field_code.clone(), custom: true, kind });
    }
    match entity.standard(entity.code(&found.field_code)) {
        Some(standard) => standard_field(entity, name, &found.field_code, standard, found.choices()),
        None => unsupported(format!("the field '{name}' ({}) is not one that is written", found.field_code)),
    }
}

fn standard_field(entity: Entity, name: &str, code: &str, standard: Standard, choices: Choices) -> Result<Field> {
    let kind = match standard {
        Standard::ReadOnly => {
            let error = Error::config(format!("the field '{name}' is written by Pipedrive alone"));
            let hint = match (entity, code) {
                (Entity::Persons, "first_name" | "last_name") => {
                    "map Name; Pipedrive makes first and last name from it"
                }
                _ => "leave it out of fields",
            };
            return Err(error.hint(hint));
        }
        Standard::Labels => Kind::Choices(Arc::new(choices)),
        other => Kind::Standard(other),
    };
    Ok(Field { name: name.to_owned(), code: entity.code(code).to_owned(), custom: false, kind })
}

/// The names most like one, quoted.
pub fn nearest<'a>(name: &str, all: impl Iterator<Item = &'a str>) -> Vec<String> {
    let wanted = name.to_lowercase();
    let mut scored: Vec<_> = all
        .map(|other| (strsim::damerau_levenshtein(&wanted, &other.to_lowercase()), other))
        .filter(|(distance, other)| *distance <= wanted.chars().count().max(other.chars().count()) / 3 + 1)
        .collect();
    scored.sort();
    scored.dedup();
    scored.into_iter().take(SHOWN).map(|(_, name)| format!("'{name}'")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definitions() -> Vec<Definition> {
        serde_json::from_value(json!([
            { "field_name": "Title", "field_code": "title", "field_type": "varchar", "is_custom_field": false },
            { "field_name": "Value", "field_code": "value", "field_type": "monetary", "is_custom_field": false },
            { "field_name": "Owner", "field_code": "user_id", "field_type": "user", "is_custom_field": false },
            { "field_name": "Label", "field_code": "label", "field_type": "set", "is_custom_field": false,
              "options": [{ "id": 4, "label": "hot" }] },
            { "field_name": "Add time", "field_code": "add_time", "field_type": "date", "is_custom_field": false },
            { "field_name": "Creator", "field_code": "creator_user_id", "field_type": "user", "is_custom_field": false },
            { "field_name": "ID", "field_code": "id", "field_type": "int", "is_custom_field": false },
            { "field_name": "ID", "field_code": "f".repeat(40), "field_type": "varchar", "is_custom_field": true },
            { "field_name": "OrderID", "field_code": "a".repeat(40), "field_type": "varchar", "is_custom_field": true },
            { "field_name": "Twin", "field_code": "b".repeat(40), "field_type": "varchar", "is_custom_field": true },
            { "field_name": "Twin", "field_code": "c".repeat(40), "field_type": "double", "is_custom_field": true },
            { "field_name": "Tier", "field_code": "d".repeat(40), "field_type": "enum", "is_custom_field": true,
              "options": [{ "id": 1, "label": "gold" }, { "id": "2", "label": "silver" }] },
            { "field_name": "Term", "field_code": "e".repeat(40), "field_type": "daterange", "is_custom_field": true },
        ]))
        .unwrap()
    }

    #[test]
    fn names_of_the_config_are_found() {
        let [a, b, d, f] = ["a", "b", "d", "f"].map(|letter| letter.repeat(40));
        for (name, expected) in [
            ("Title", Ok("title")),
            ("title", Ok("title")),
            ("Owner", Ok("owner_id")),
            ("owner_id", Ok("owner_id")),
            ("Label", Ok("label_ids")),
            ("OrderID", Ok(a.as_str())),
            (a.as_str(), Ok(a.as_str())),
            ("Tier", Ok(d.as_str())),
            ("person_id", Ok("person_id")),
            ("currency", Ok("currency")),
            (b.as_str(), Ok(b.as_str())),
            ("ID", Ok(f.as_str())),
            ("Twin", Err(format!("2 fields of deals are called 'Twin': {b} (varchar), {} (double)", "c".repeat(40)))),
            ("Order ID", Err("there is no field 'Order ID' in deals".to_owned())),
            ("Add time", Err("the field 'Add time' is written by Pipedrive alone".to_owned())),
            ("Creator", Err("the field 'Creator' (creator_user_id) is not one that is written".to_owned())),
            ("Term", Err("the field 'Term' is of the type daterange, which is not written".to_owned())),
        ] {
            let found = resolve(&definitions(), Entity::Deals, name).map(|field| field.code);
            assert_eq!(found.map_err(|error| error.to_string()), expected.map(str::to_owned), "{name}");
        }
        let error = resolve(&definitions(), Entity::Deals, "Order ID").unwrap_err();
        assert_eq!(
            error.what_to_do(),
            Some("did you mean 'OrderID'? If it was renamed in Pipedrive, write its new name")
        );
        let tier = resolve(&definitions(), Entity::Deals, "Tier").unwrap();
        let Kind::Choice(choices) = tier.kind else { unreachable!() };
        assert_eq!(choices.all, [(1, "gold".to_owned()), (2, "silver".to_owned())]);
        let first = resolve(&[], Entity::Persons, "first_name").unwrap_err();
        assert_eq!(first.what_to_do(), Some("map Name; Pipedrive makes first and last name from it"));
    }
}
