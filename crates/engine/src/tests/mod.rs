//! The engine as a whole, over ends in memory.

mod crash;
mod crm;
mod stages;

use std::sync::Arc;

use arrow_array::{Int64Array, RecordBatch};
use tempfile::TempDir;
use towpath_core::{Result, pipeline::ErrorsSpec};
use towpath_testkit::{memory::MemoryTarget, rows};

use crate::{Engine, Pipeline, StateStore, dead_letters, rules::Rules};

/// An engine in memory, and a folder for its dead letters.
struct World {
    engine: Engine,
    letters: TempDir,
}

impl World {
    fn new() -> Self {
        let mut rules = Rules::default();
        rules.letters.fsync = false;
        Self::with(rules)
    }

    fn with(rules: Rules) -> Self {
        let engine = Engine::with(StateStore::memory().unwrap(), rules);
        Self { engine, letters: tempfile::tempdir().unwrap() }
    }

    /// An empty pipeline whose dead letters lie in our folder.
    fn pipeline(&self) -> Pipeline {
        Pipeline::new("test").errors(self.errors())
    }

    fn errors(&self) -> ErrorsSpec {
        ErrorsSpec { dead_letters: Some(self.letters.path().to_owned()), ..ErrorsSpec::default() }
    }

    /// Component and id of every dead letter, sorted.
    fn dead_letters(&self) -> Vec<(String, i64)> {
        let mut found = Vec::new();
        let each = |entry: dead_letters::Entry| {
            found.push((entry.component.to_string(), id_of(&entry)));
            std::ops::ControlFlow::Continue(())
        };
        dead_letters::show(&self.letters.path().join("test"), each).unwrap();
        found.sort();
        found
    }
}

fn id_of(entry: &dead_letters::Entry) -> i64 {
    let text = serde_json::to_value(entry).unwrap();
    let id = text.pointer("/row/id").unwrap_or_else(|| panic!("no id in {text}"));
    id.as_i64().unwrap_or_else(|| id.as_str().unwrap().parse().unwrap())
}

/// The ids in a target, in its order.
fn ids(target: &MemoryTarget) -> Vec<i64> {
    let of = |row: &RecordBatch| rows::value(row.column_by_name("id").unwrap(), 0).unwrap().parse().unwrap();
    target.rows().unwrap_or_default().iter().map(of).collect()
}

/// A closure transform that lets rows through whose id is not divisible by `by`.
fn without_multiples(by: i64) -> impl FnMut(RecordBatch) -> Result<RecordBatch> + Clone + Send + Sync {
    move |rows| {
        let ids: Arc<dyn arrow_array::Array> = Arc::clone(rows.column_by_name("id").unwrap());
        let ids = ids.as_any().downcast_ref::<Int64Array>().unwrap();
        let keep = ids.iter().map(|id| id.is_none_or(|id| id % by != 0)).collect::<Vec<_>>();
        Ok(arrow_select::filter::filter_record_batch(&rows, &keep.into()).unwrap())
    }
}
