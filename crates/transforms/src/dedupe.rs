//! `dedupe`: drops rows whose key has come before, as far back as its memory reaches.

use std::borrow::Cow;

use arrow_array::{Array, RecordBatch};
use arrow_buffer::{BooleanBuffer, NullBuffer};
use arrow_schema::Schema;
use async_trait::async_trait;
use schemars::{JsonSchema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{self, SeqAccess, Visitor},
};
use towpath_core::{
    Connector, Context, Error, Known, Name, Output, Result, Size, Transform, TransformPlan,
    connector::{self, TransformRole},
    inventory,
};
use towpath_formats::row_hash::row_hashes;

use crate::{
    inputs,
    seen::{Met, Seen},
};

/// Options of `dedupe`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DedupeOptions {
    /// What makes two rows the same: a list of columns, `[OrderID, Line]`, or `all_columns`.
    pub key: Key,
    /// How much memory to remember keys in; about 20 bytes each. When it is full, rows with keys that are not in it pass. At least
    /// 64KiB. Default: 64MiB
    #[serde(default = "memory")]
    pub memory: Size,
}

fn memory() -> Size {
    Size(64 << 20)
}

/// What makes two rows the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// Every column.
    AllColumns,
    /// These.
    Columns(Vec<String>),
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;
        impl<'de> Visitor<'de> for Reading {
            type Value = Key;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of columns or `all_columns`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Key, E> {
                match text {
                    "all_columns" => Ok(Key::AllColumns),
                    _ => Err(E::custom(format!("'{text}' is not a list of columns: write [{text}], or `all_columns`"))),
                }
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Key, A::Error> {
                let mut columns = vec![];
                while let Some(column) = list.next_element()? {
                    columns.push(column);
                }
                Ok(Key::Columns(columns))
            }
        }
        deserializer.deserialize_any(Reading)
    }
}

impl JsonSchema for Key {
    fn schema_name() -> Cow<'static, str> {
        "Key".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> schemars::Schema {
        json_schema!({
            "anyOf": [
                { "type": "array", "items": { "type": "string" }, "minItems": 1, "description": "Columns." },
                { "type": "string", "const": "all_columns", "description": "Every column." }
            ]
        })
    }
}

/// The transform.
pub struct Dedupe {
    key: Key,
    memory: Size,
    seen: Seen,
    /// Whether it has said that its memory is full.
    said: bool,
}

impl Dedupe {
    /// # Errors
    /// Config: a key without columns, or with one twice; too little memory.
    pub fn new(options: DedupeOptions) -> Result<Self> {
        let DedupeOptions { key, memory } = options;
        if let Key::Columns(columns) = &key {
            if columns.is_empty() {
                return Err(Error::config("key: names no column").hint("write `[OrderID]`, or `all_columns`"));
            }
            if let Some(name) = inputs::twice(columns.iter().map(String::as_str)) {
                return Err(Error::config(format!("key: '{name}' stands there twice")));
            }
        }
        if memory.0 < Seen::LEAST {
            let least = Size(Seen::LEAST);
            return Err(
                Error::config(format!("memory: {memory} is too little")).hint(format!("give it {least} or more"))
            );
        }
        Ok(Self { key, memory, seen: Seen::new(memory.0), said: false })
    }

    fn indices(&self, schema: &Schema) -> Result<Option<Vec<usize>>> {
        match &self.key {
            Key::AllColumns => Ok(None),
            Key::Columns(columns) => {
                columns.iter().map(|name| inputs::find(schema, name)).collect::<Result<_>>().map(Some)
            }
        }
    }
}

#[async_trait]
impl Transform for Dedupe {
    fn plan(&self, given: &[(Name, Known)]) -> Result<TransformPlan> {
        let mut plan = inputs::plan(given, |schema| {
            let indices = self.indices(schema)?;
            // No rows tell whether there are columns that have no hash.
            row_hashes(&RecordBatch::new_empty(schema.clone()), indices.as_deref())?;
            Ok(schema.clone())
        })?;
        plan.stateful = true;
        plan.notes.push(format!(
            "remembers {} keys in {}; behind that, rows with further keys pass, and repeated ones are left to the sink's key",
            thousands(self.seen.room()),
            self.memory
        ));
        Ok(plan)
    }

    async fn apply(&mut self, ctx: &Context, input: &Name, rows: RecordBatch, out: &mut dyn Output) -> Result<()> {
        let place = |error: Error| error.at(format!("input {input}"));
        let indices = self.indices(rows.schema_ref()).map_err(place)?;
        let hashes = row_hashes(&rows, indices.as_deref()).map_err(place)?;
        let keyless = indices.and_then(|indices| keyless(&rows, &indices));
        let (mut full, seen) = (false, &mut self.seen);
        let keep = BooleanBuffer::collect_bool(hashes.len(), |row| {
            if keyless.as_ref().is_some_and(|keyless| keyless.value(row)) {
                return true;
            }
            let met = hashes.get(row).map(|hash| seen.meet(*hash));
            full |= met == Some(Met::NoRoom);
            met != Some(Met::Known)
        });
        if full && !self.said {
            self.said = true;
            tracing::warn!(
                "transform {}: its memory of {} is full; rows with further keys pass from here on, and repeated ones are left to the sink's key",
                ctx.component(),
                self.memory
            );
        }
        out.rows(inputs::keep(rows, keep)?).await
    }
}

/// The rows that are NULL in every column of the key, if there are any.
fn keyless(rows: &RecordBatch, indices: &[usize]) -> Option<BooleanBuffer> {
    let mut all: Option<BooleanBuffer> = None;
    for at in indices {
        let nulls: NullBuffer = rows.columns().get(*at)?.logical_nulls().filter(|nulls| nulls.null_count() > 0)?;
        let missing = !nulls.inner();
        all = Some(match all {
            Some(all) => &all & &missing,
            None => missing,
        });
    }
    all
}

/// `3,440,640`.
fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn make(_: &Name, options: DedupeOptions) -> Result<Box<dyn Transform>> {
    Ok(Box::new(Dedupe::new(options)?))
}

inventory::submit! {
    Connector::new("dedupe", "Drops rows that have come before", include_str!("../docs/dedupe.md"))
        .transform(TransformRole::of::<DedupeOptions>(|name, value| connector::build(name, value, make)))
}
