//! A page of a list, read without building what nobody asked for: a record has dozens of fields, and a handful are compared.

use std::fmt;

use serde::{
    Deserialize,
    de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;
use towpath_core::{Error, Result};

/// Which fields of a record are read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// Keys beside `id`, with where the value goes.
    pub standard: Vec<(String, usize)>,
    /// Keys under `custom_fields`, with where the value goes.
    pub custom: Vec<(String, usize)>,
    /// How many values a record gets.
    pub width: usize,
}

/// A record as far as it was asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listed {
    /// Its id.
    pub id: u64,
    /// The values asked for, as the server has them; null where it has none.
    pub values: Vec<Value>,
}

/// A page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page<T> {
    /// Its records.
    pub records: Vec<T>,
    /// Where the next one begins.
    pub next: Option<String>,
}

/// Reads a page of records.
///
/// # Errors
/// Data: it is none.
pub fn read(body: &[u8], wanted: &Wanted) -> Result<Page<Listed>> {
    finish(body, PageSeed(RecordsSeed(wanted)))
}

/// Reads one record: the answer to a write.
///
/// # Errors
/// Data: it is none.
pub fn read_one(body: &[u8], wanted: &Wanted) -> Result<Listed> {
    finish(body, PageSeed(RecordSeed(wanted)))
        .and_then(|page| page.records.ok_or_else(|| not_understood("no `data` in it")))
}

/// Reads a page of anything.
///
/// # Errors
/// Data: it is none.
pub fn read_all<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<Page<T>> {
    #[derive(Deserialize)]
    struct Whole<T> {
        #[serde(default = "Option::default")]
        data: Option<Vec<T>>,
        #[serde(default)]
        additional_data: Option<Additional>,
    }
    let whole: Whole<T> =
        serde_json::from_slice(body).map_err(|error| not_understood("not as expected").because(error))?;
    let next = whole.additional_data.and_then(|more| more.next_cursor).filter(|cursor| !cursor.is_empty());
    Ok(Page { records: whole.data.unwrap_or_default(), next })
}

fn not_understood(why: &str) -> Error {
    Error::data(format!("Pipedrive's answer is not understood: {why}"))
}

#[derive(Default, Deserialize)]
struct Additional {
    #[serde(default)]
    next_cursor: Option<String>,
}

/// What a page's `data` becomes.
struct Read<T> {
    records: Option<T>,
    next: Option<String>,
}

fn finish<'de, S, T: Finished>(body: &'de [u8], seed: PageSeed<S>) -> Result<T::Out>
where
    PageSeed<S>: DeserializeSeed<'de, Value = T>,
{
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let read = seed.deserialize(&mut deserializer).and_then(|read| deserializer.end().map(|()| read));
    read.map(T::finished).map_err(|error| not_understood("not as expected").because(error))
}

trait Finished {
    type Out;
    fn finished(self) -> Self::Out;
}

impl Finished for Read<Vec<Listed>> {
    type Out = Page<Listed>;
    fn finished(self) -> Page<Listed> {
        Page { records: self.records.unwrap_or_default(), next: self.next.filter(|cursor| !cursor.is_empty()) }
    }
}

impl Finished for Read<Listed> {
    type Out = Self;
    fn finished(self) -> Self {
        self
    }
}

struct PageSeed<S>(S);
struct RecordsSeed<'a>(&'a Wanted);
struct RecordSeed<'a>(&'a Wanted);

impl<'de, S: DeserializeSeed<'de> + Again> DeserializeSeed<'de> for PageSeed<S> {
    type Value = Read<S::Value>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

/// A seed that can be used for each of several equal keys.
trait Again {
    fn again(&self) -> Self;
}
impl Again for RecordsSeed<'_> {
    fn again(&self) -> Self {
        Self(self.0)
    }
}
impl Again for RecordSeed<'_> {
    fn again(&self) -> Self {
        Self(self.0)
    }
}

impl<'de, S: DeserializeSeed<'de> + Again> Visitor<'de> for PageSeed<S> {
    type Value = Read<S::Value>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an answer with `data`")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut read = Read { records: None, next: None };
        while let Some(key) = map.next_key::<Key<'de>>()? {
            match &*key.0 {
                "data" => read.records = map.next_value_seed(Maybe(self.0.again()))?,
                "additional_data" => {
                    read.next = map.next_value::<Option<Additional>>()?.and_then(|more| more.next_cursor);
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(read)
    }
}

/// A key, borrowed where it can be.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] std::borrow::Cow<'a, str>);

/// Null or what a seed reads.
struct Maybe<S>(S);

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Maybe<S> {
    type Value = Option<S::Value>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de, S: DeserializeSeed<'de>> Visitor<'de> for Maybe<S> {
    type Value = Option<S::Value>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("records or null")
    }
    fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        self.0.deserialize(deserializer).map(Some)
    }
}

impl<'de> DeserializeSeed<'de> for RecordsSeed<'_> {
    type Value = Vec<Listed>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for RecordsSeed<'_> {
    type Value = Vec<Listed>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of records")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(record) = seq.next_element_seed(RecordSeed(self.0))? {
            all.push(record);
        }
        Ok(all)
    }
}

impl<'de> DeserializeSeed<'de> for RecordSeed<'_> {
    type Value = Listed;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RecordSeed<'_> {
    type Value = Listed;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut listed = Listed { id: 0, values: vec![Value::Null; self.0.width] };
        while let Some(key) = map.next_key::<Key<'de>>()? {
            match &*key.0 {
                "id" => listed.id = map.next_value()?,
                "custom_fields" => map.next_value_seed(CustomSeed { wanted: self.0, values: &mut listed.values })?,
                key => match self.0.standard.iter().find(|(wanted, _)| wanted == key) {
                    Some((_, at)) => listed.values[*at] = map.next_value()?,
                    None => drop(map.next_value::<IgnoredAny>()?),
                },
            }
        }
        Ok(listed)
    }
}

struct CustomSeed<'a> {
    wanted: &'a Wanted,
    values: &'a mut [Value],
}

impl<'de> DeserializeSeed<'de> for CustomSeed<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        // An account without custom fields may answer null, or an empty list.
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for CustomSeed<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("custom fields")
    }
    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Key<'de>>()? {
            match self.wanted.custom.iter().find(|(wanted, _)| *wanted == *key.0) {
                Some((_, at)) => self.values[*at] = map.next_value()?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wanted() -> Wanted {
        Wanted { standard: vec![("title".to_owned(), 1)], custom: vec![("abc".to_owned(), 0)], width: 2 }
    }

    #[test]
    fn only_what_is_wanted_is_read() {
        let body = json!({
            "success": true,
            "data": [
                { "id": 7, "title": "a \"b\" ü", "value": { "deep": [1, 2] }, "custom_fields": { "abc": "k", "x": { "y": 1 } } },
                { "custom_fields": null, "id": 8 },
                { "id": 9, "custom_fields": [] },
            ],
            "additional_data": { "next_cursor": "c1" },
        });
        let page = read(body.to_string().as_bytes(), &wanted()).unwrap();
        let listed = |id, values: [Value; 2]| Listed { id, values: values.into() };
        let none = || [Value::Null, Value::Null];
        let expected = [listed(7, [json!("k"), json!("a \"b\" ü")]), listed(8, none()), listed(9, none())];
        assert_eq!(page, Page { records: expected.into(), next: Some("c1".to_owned()) });
        for last in [
            r#"{"data":[],"additional_data":{"next_cursor":null}}"#,
            r#"{"data":null}"#,
            r#"{"data":[],"additional_data":null}"#,
        ] {
            assert_eq!(read(last.as_bytes(), &wanted()).unwrap(), Page::default(), "{last}");
        }
        let one = read_one(br#"{"success":true,"data":{"id":3,"title":"t"}}"#, &wanted()).unwrap();
        assert_eq!(one, listed(3, [Value::Null, json!("t")]));
    }

    #[test]
    fn what_is_no_page_is_an_error() {
        for body in ["", "<html>", r#"{"data":[{"id":7}"#, r#"{"data":7}"#, r#"{"data":[]}x"#] {
            let error = read(body.as_bytes(), &wanted()).unwrap_err().to_string();
            assert!(error.starts_with("Pipedrive's answer is not understood: not as expected: "), "{error}");
        }
        assert!(read_one(b"{}", &wanted()).is_err());
        assert!(read_all::<Value>(b"7").is_err());
    }
}
