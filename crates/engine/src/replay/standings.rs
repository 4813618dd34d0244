//! How dead letters stand, for `towpath dlq list` and `show`: judged as a replay would judge them now.

use std::{collections::BTreeMap, path::PathBuf};

use towpath_core::{Name, PipelineSpec, Result, WriteMode};

use super::{Judge, Judged};
use crate::{
    dead_letters::{Entry, Line, Standing},
    engine::Engine,
    graph::Graph,
    state::{StateStore, letters::LetterId},
};

/// Judges dead letters of one pipeline.
pub struct Standings {
    store: StateStore,
    pub(super) pipeline: Name,
    /// `None`: nobody knows the columns of the sink.
    sinks: BTreeMap<Name, Option<Judge>>,
}

impl std::fmt::Debug for Standings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Standings").field("pipeline", &self.pipeline).finish_non_exhaustive()
    }
}

impl Engine {
    /// Makes ready to judge the dead letters of a pipeline.
    ///
    /// # Errors
    /// A sink cannot be made of what is configured, or the state cannot be read.
    pub async fn standings(&self, spec: &PipelineSpec) -> Result<Standings> {
        let graph = Graph::from_spec(spec)?;
        let mut sinks = BTreeMap::new();
        for node in &graph.sinks {
            let judge = match self.store.schema(&graph.name, &node.name)? {
                Some(schema) => Some(self.judge(&graph, node, schema).await?),
                None => None,
            };
            sinks.insert(node.name.clone(), judge);
        }
        Ok(Standings { store: self.store.clone(), pipeline: graph.name, sinks })
    }

    /// Where a pipeline's dead letters lie, and those that were sent again and refused again: whose, and where.
    pub fn letter_folders(&self, spec: &PipelineSpec) -> Vec<(Option<Name>, PathBuf)> {
        let whose = std::iter::once(None).chain(spec.sinks.iter().map(|sink| Some(sink.name.clone())));
        whose.zip(self.all_dead_letters_of(spec)).collect()
    }
}

/// The letter whose line is there.
pub(super) fn place(folder: Option<&Name>, line: &Line) -> LetterId {
    LetterId { folder: u8::from(folder.is_some()), file: line.file, at: line.at }
}

impl Standings {
    /// How a letter stands. `folder`: the sink whose letters were refused again there; `None`: it is the pipeline's own.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn of(&self, folder: Option<&Name>, line: &Line, entry: &Entry) -> Result<Standing> {
        let letter = place(folder, line);
        if self.store.is_discarded(&self.pipeline, &entry.component, letter, &entry.run)? {
            return Ok(Standing::Discarded);
        }
        let Some(judge) = self.sinks.get(&entry.component) else { return Ok(Standing::Kept) };
        if self.store.is_replayed(&self.pipeline, &entry.component, letter)? {
            return Ok(Standing::Replayed);
        }
        if !line.sealed {
            return Ok(Standing::RunOpen);
        }
        let Some(judge) = judge else { return Ok(Standing::OtherColumns) };
        if judge.mode == WriteMode::Replace {
            return Ok(Standing::Kept);
        }
        Ok(match judge.letter(entry)? {
            Judged::Open(_) => Standing::Open,
            Judged::Superseded => Standing::Superseded,
            Judged::Unreadable => Standing::OtherColumns,
        })
    }
}
