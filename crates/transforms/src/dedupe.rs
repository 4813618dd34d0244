//! `dedupe`: rows that came before are dropped.

use std::hash::{BuildHasherDefault, Hasher};

use arrow_array::{BooleanArray, RecordBatch};
use arrow_schema::Schema;
use arrow_select::filter::filter_record_batch;
use async_trait::async_trait;
use hashbrown::HashSet;
use schemars::JsonSchema;
use serde::Deserialize;
use towpath_core::{
    Connector, Context, Error, ErrorKind, Known, Name, Output, Result, Size, Transform, TransformPlan,
    connector::{TransformRole, build},
    inventory,
};
use towpath_formats::row_hash::row_hashes;

use crate::columns::{find, plan};

/// A hash of 16 bytes and its place in the table.
const ENTRY: u64 = 17;

/// Options of the `dedupe` transform.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DedupeOptions {
    /// What tells rows apart: `all_columns`, or a list of columns. The first row of each key stays.
    pub key: DedupeKey,
    /// How much memory the keys of a run may take. When it is full, duplicates of later rows pass, and the sink's key must know
    /// them; so it says in a warning. Default: 64MiB, exact for about 1.8 million rows
    #[serde(default = "memory")]
    pub memory: Size,
}

/// What tells rows apart.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum DedupeKey {
    /// All columns.
    All(AllColumns),
    /// These.
    Columns(Vec<String>),
}

/// The word `all_columns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum AllColumns {
    /// All columns.
    #[serde(rename = "all_columns")]
    AllColumns,
}

fn memory() -> Size {
    Size(64 << 20)
}

/// The hashes are random already.
#[derive(Default)]
struct Taken(u64);

impl Hasher for Taken {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }
}

/// Drops rows that came before, by a 128-bit hash of their key: among a billion rows two different ones are taken for the same with
/// a chance of 1 in 10²⁰.
pub struct Dedupe {
    options: DedupeOptions,
    seen: HashSet<u128, BuildHasherDefault<Taken>>,
    full: bool,
}

impl Dedupe {
    /// From the config.
    pub fn build(_: &Name, options: DedupeOptions) -> Result<Box<dyn Transform>> {
        if options.key == DedupeKey::Columns(vec![]) {
            return Err(Error::config("key: name at least one column, or write all_columns"));
        }
        Ok(Box::new(Self { options, seen: HashSet::default(), full: false }))
    }

    fn places(&self, schema: &Schema, kind: ErrorKind) -> Result<Option<Vec<usize>>> {
        match &self.options.key {
            DedupeKey::All(_) => Ok(None),
            DedupeKey::Columns(names) => {
                names.iter().map(|name| find(schema, name, kind)).collect::<Result<_>>().map(Some)
            }
        }
    }

    /// Whether the row is new, as far as is known.
    fn is_new(&mut self, hash: u128) -> bool {
        if self.full {
            return !self.seen.contains(&hash);
        }
        if self.seen.len() == self.seen.capacity() {
            // It grows by doubling, and both tables are there for a moment.
            let buckets = (self.seen.capacity() as u64 * 8 / 7).next_power_of_two().max(4);
            if buckets * 3 * ENTRY > self.options.memory.0 {
                self.full = true;
                return !self.seen.contains(&hash);
            }
        }
        self.seen.insert(hash)
    }
}

#[async_trait]
impl Transform for Dedupe {
    fn plan(&self, inputs: &[(Name, Known)]) -> Result<TransformPlan> {
        let plan = plan(inputs, |schema| {
            self.places(schema, ErrorKind::Config)?;
            Ok(Schema::clone(schema))
        })?;
        let buckets = self.options.memory.0 / ENTRY / 3;
        let exact = if buckets == 0 { 0 } else { ((1u64 << buckets.ilog2()) * 2) * 7 / 8 };
        let note = format!(
            "exact for {exact} different rows ({} of memory); beyond, duplicates pass to the sink's key",
            self.options.memory
        );
        Ok(TransformPlan { stateful: true, notes: vec![note], ..plan })
    }

    async fn apply(&mut self, ctx: &Context, _: &Name, rows: RecordBatch, out: &mut dyn Output) -> Result<()> {
        let places = self.places(rows.schema_ref(), ErrorKind::Data)?;
        let hashes = row_hashes(&rows, places.as_deref())?;
        let was_full = self.full;
        let keep: BooleanArray = hashes.into_iter().map(|hash| Some(self.is_new(hash))).collect();
        if self.full && !was_full {
            tracing::warn!(
                "transform {}: its memory ({}) is full after {} different rows; duplicates of later rows pass to the sink's key",
                ctx.component(),
                self.options.memory,
                self.seen.len()
            );
        }
        if keep.true_count() == rows.num_rows() {
            return out.rows(rows).await;
        }
        let kept = filter_record_batch(&rows, &keep)
            .map_err(|error| Error::internal("rows cannot be dropped").because(error))?;
        out.rows(kept).await
    }
}

inventory::submit! {
    Connector::new("dedupe", "Rows that came before are dropped", include_str!("../docs/dedupe.md"))
        .transform(TransformRole::of::<DedupeOptions>(|name, options| build(name, options, Dedupe::build)))
}
