//! From a row and a record to what has to be sent. Pure.

use serde_json::{Map, Value, json};
use towpath_core::FieldChange;

use crate::{
    config::Source,
    entity::Standard,
    fields::Field,
    index::Record,
    value::{self, Kind},
};

/// A field with where its value comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Mapped {
    /// The field.
    pub field: Field,
    /// Where its value comes from; of a link, the key of what is linked.
    pub from: Source,
    /// Where the currency comes from, of an amount in a custom field.
    pub currency: Option<Source>,
    /// Which link it is.
    pub link: Option<usize>,
    /// Only filled where it is empty.
    pub only_empty: bool,
}

/// What a row asks for.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// By field, in canonical form.
    pub values: Vec<Value>,
    /// By field, what is linked, for people.
    pub linked: Vec<Option<Value>>,
    /// The values as one JSON text.
    pub text: String,
}

impl Desired {
    /// From its values.
    pub fn new(values: Vec<Value>, linked: Vec<Option<Value>>) -> Self {
        let text = as_text(&values);
        Self { values, linked, text }
    }
    fn shown(&self, at: usize, kind: &Kind) -> Option<Value> {
        match &self.linked[at] {
            Some(linked) => Some(linked.clone()),
            None => value::shown(kind, &self.values[at]),
        }
    }
}

/// Values as one JSON text.
pub fn as_text(values: &[Value]) -> String {
    // A value always has a text.
    serde_json::to_string(values).unwrap_or_default()
}

/// Values from their JSON text.
pub fn from_text(text: &str) -> Vec<Value> {
    serde_json::from_str(text).unwrap_or_default()
}

/// Which fields of a record differ from what a row asks for, with what they are now. Nothing if all are equal.
pub fn differing(mapped: &[Mapped], desired: &Desired, record: &Record) -> Vec<(usize, Value)> {
    if *desired.text == *record.values {
        return vec![];
    }
    let there = from_text(&record.values);
    // A deal always has a currency. It says something where there is an amount, and goes with that: filled with a new amount, it would be
    // another sum of money in the old currency.
    let amount = Kind::Standard(Standard::Amount);
    let amounts = mapped.iter().zip(&there).filter(|(mapped, _)| mapped.field.kind == amount);
    let without = amounts.map(|(_, there)| is_empty(&amount, there)).next().unwrap_or(false);
    let differs = |(at, old): (usize, Value)| {
        let kind = &mapped[at].field.kind;
        let free = without && *kind == Kind::Standard(Standard::Currency);
        let keeps = mapped[at].only_empty && !free && !is_empty(kind, &old);
        (!keeps && !is_kept(kind, &desired.values[at], &old)).then_some((at, old))
    };
    there.into_iter().enumerate().take(mapped.len()).filter_map(differs).collect()
}

/// Whether what the server keeps is what a row asks for.
pub fn is_kept(kind: &Kind, desired: &Value, kept: &Value) -> bool {
    let unsaid = desired.is_null();
    desired == kept
        || match kind {
            // An empty address of a row takes nobody's away: it is not known whether a list of none clears them.
            Kind::Standard(Standard::Contacts) => unsaid,
            // An amount without a currency is in the one that it has, or that the server gives it: none is without.
            Kind::Standard(Standard::Currency) => unsaid,
            Kind::Monetary => !unsaid && desired.get("currency").is_none() && desired["value"] == kept["value"],
            _ => false,
        }
}

/// Whether a field counts as not filled. The vendor has no other word for a deal without a value than 0.
fn is_empty(kind: &Kind, value: &Value) -> bool {
    value.is_null() || matches!(kind, Kind::Standard(Standard::Amount)) && value.as_i64() == Some(0)
}

/// The body of a create: every field that has a value.
pub fn create_body(mapped: &[Mapped], desired: &Desired) -> Map<String, Value> {
    let mut body = Map::new();
    for (Mapped { field, .. }, wanted) in mapped.iter().zip(&desired.values) {
        if !wanted.is_null() {
            value::put(&mut body, field.custom, &field.code, value::to_wire(&field.kind, &field.code, wanted, None));
        }
    }
    body
}

/// The body of an update: the fields that differ, and nothing else.
pub fn update_body(
    mapped: &[Mapped],
    desired: &Desired,
    changes: &[(usize, Value)],
    record: &Record,
) -> Map<String, Value> {
    let mut body = Map::new();
    for (at, old) in changes {
        let field = &mapped[*at].field;
        let more = record.more.iter().flat_map(|more| more.iter()).find(|(field, _)| field == at).map(|(_, all)| all);
        let single = json!([{ "value": old, "primary": true, "label": "work" }]);
        let there = more.or((!old.is_null()).then_some(&single));
        let mut sent = value::to_wire(&field.kind, &field.code, &desired.values[*at], there);
        if field.kind == Kind::Monetary
            && let (Value::Object(sent), Some(currency)) = (&mut sent, old.get("currency"))
        {
            // A new amount without a currency is in the one that the record has.
            sent.entry("currency").or_insert_with(|| currency.clone());
        }
        value::put(&mut body, field.custom, &field.code, sent);
    }
    body
}

/// The changes as people read them. `linked`: what is shown of a record that a link has had so far.
pub fn shown(
    mapped: &[Mapped],
    desired: &Desired,
    changes: &[(usize, Value)],
    linked: impl Fn(usize, u64) -> Option<Value>,
) -> Vec<FieldChange> {
    let change = |(at, old): &(usize, Value)| {
        let Mapped { field: Field { name, kind, .. }, link, .. } = &mapped[*at];
        let id = link.and_then(|link| match old {
            // In a plan, one that is yet to be made.
            Value::String(key) => Some(json!({ "key": key })),
            old => linked(link, old.as_u64()?),
        });
        FieldChange { field: name.clone(), old: id.or_else(|| value::shown(kind, old)), new: desired.shown(*at, kind) }
    };
    changes.iter().map(change).collect()
}

/// A new record as people read it.
pub fn shown_new(mapped: &[Mapped], desired: &Desired) -> Vec<FieldChange> {
    let change = |(at, mapped): (usize, &Mapped)| {
        let new = desired.shown(at, &mapped.field.kind)?;
        Some(FieldChange { field: mapped.field.name.clone(), old: None, new: Some(new) })
    };
    mapped.iter().enumerate().filter_map(change).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(name: &str, custom: bool, kind: Kind) -> Mapped {
        let code = if custom { name.repeat(40) } else { name.to_owned() };
        let field = Field { name: name.to_owned(), code, custom, kind };
        Mapped { field, from: Source::Column(name.to_owned()), currency: None, link: None, only_empty: false }
    }

    fn all() -> Vec<Mapped> {
        let text = Kind::Standard(Standard::Text);
        vec![
            mapped("k", true, text.clone()),
            mapped("title", false, text),
            mapped("value", false, Kind::Standard(Standard::Amount)),
            mapped("emails", false, Kind::Standard(Standard::Contacts)),
        ]
    }

    #[test]
    fn an_amount_without_a_currency_is_in_the_one_that_is_there() {
        let mapped = [
            mapped("k", true, Kind::Standard(Standard::Text)),
            mapped("value", false, Kind::Standard(Standard::Amount)),
            mapped("currency", false, Kind::Standard(Standard::Currency)),
            mapped("f", true, Kind::Monetary),
        ];
        let there = record(json!(["k1", 10, "EUR", { "value": 3, "currency": "USD" }]));
        let fee = |fee: Value| json!({ "custom_fields": { "f".repeat(40): fee } });
        for (row, expected) in [
            (json!(["k1", 10, null, { "value": 3 }]), json!({})),
            (json!(["k1", 11, null, { "value": 3 }]), json!({ "value": 11 })),
            (json!(["k1", 10, "USD", { "value": 3 }]), json!({ "currency": "USD" })),
            (json!(["k1", 10, null, { "value": 4 }]), fee(json!({ "value": 4, "currency": "USD" }))),
            (json!(["k1", 10, null, { "value": 3, "currency": "EUR" }]), fee(json!({ "value": 3, "currency": "EUR" }))),
            (json!(["k1", 10, null, null]), fee(Value::Null)),
        ] {
            let desired = desired(row);
            let changes = differing(&mapped, &desired, &there);
            assert_eq!(Value::Object(update_body(&mapped, &desired, &changes, &there)), expected, "{}", desired.text);
        }
    }

    #[test]
    fn a_currency_is_filled_with_its_amount_and_not_without() {
        let mut mapped = [
            mapped("k", true, Kind::Standard(Standard::Text)),
            mapped("value", false, Kind::Standard(Standard::Amount)),
            mapped("currency", false, Kind::Standard(Standard::Currency)),
        ];
        mapped.iter_mut().for_each(|mapped| mapped.only_empty = true);
        for (there, expected) in [
            (json!(["k1", 0, "EUR"]), json!({ "value": 5, "currency": "USD" })),
            (json!(["k1", 3, "EUR"]), json!({})),
            (json!(["k1", 0, "USD"]), json!({ "value": 5 })),
        ] {
            let (desired, there) = (desired(json!(["k1", 5, "USD"])), record(there));
            let changes = differing(&mapped, &desired, &there);
            let body = Value::Object(update_body(&mapped, &desired, &changes, &there));
            assert_eq!(body, expected, "{}", there.values);
        }
    }

    fn desired(values: Value) -> Desired {
        let Value::Array(values) = values else { unreachable!() };
        let linked = vec![None; values.len()];
        Desired::new(values, linked)
    }

    fn record(values: Value) -> Record {
        Record { id: 7, values: values.to_string().into(), more: None, state: crate::index::State::Live }
    }

    #[test]
    fn only_what_differs_is_sent() {
        let there = record(json!(["k1", "Order 1", 10, "a@x"]));
        let body = |mapped: &[Mapped], values: Value| {
            let desired = desired(values);
            let changes = differing(mapped, &desired, &there);
            Value::Object(update_body(mapped, &desired, &changes, &there))
        };
        let plain = all();
        assert_eq!(body(&plain, json!(["k1", "Order 1", 10, "a@x"])), json!({}));
        assert_eq!(body(&plain, json!(["k1", "Order 1", 10.5, "a@x"])), json!({ "value": 10.5 }));
        assert_eq!(body(&plain, json!(["k1", null, 10, "a@x"])), json!({ "title": null }));
        let mut careful = all();
        careful.iter_mut().for_each(|mapped| mapped.only_empty = true);
        assert_eq!(body(&careful, json!(["k1", "Other", 11, "b@x"])), json!({}), "people have set them");
        let empty = record(json!(["k1", null, 0, null]));
        let desired = desired(json!(["k1", "Other", 11, "b@x"]));
        let changes = differing(&careful, &desired, &empty);
        let sent = Value::Object(update_body(&careful, &desired, &changes, &empty));
        let emails = json!([{ "value": "b@x", "primary": true, "label": "work" }]);
        assert_eq!(sent, json!({ "title": "Other", "value": 11, "emails": emails }));
        let fields: Vec<_> = shown(&careful, &desired, &changes, |_, _| None)
            .into_iter()
            .map(|change| (change.field, change.old))
            .collect();
        let expected = [("title".to_owned(), None), ("value".to_owned(), Some(json!(0))), ("emails".to_owned(), None)];
        assert_eq!(fields, expected);
    }

    #[test]
    fn a_create_has_every_value_and_no_nulls() {
        let desired = desired(json!(["k1", "Order 1", 10, null]));
        let body = Value::Object(create_body(&all(), &desired));
        assert_eq!(body, json!({ "custom_fields": { "k".repeat(40): "k1" }, "title": "Order 1", "value": 10 }));
        assert_eq!(shown_new(&all(), &desired).len(), 3);
    }
}
