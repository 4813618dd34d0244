//! Dead letters put away: `towpath dlq discard`.
//!
//! Somebody has looked at them and nothing is to become of them. Nothing is deleted: it is remembered beside the files, and a replay leaves
//! them out.

use std::{ops::ControlFlow, sync::Arc};

use serde::Serialize;
use towpath_core::{Name, PipelineSpec, Result};

use super::{AT_ONCE, standings::place};
use crate::{
    dead_letters::{Standing, show_placed},
    engine::Engine,
};

/// Which dead letters are to be put away.
#[derive(Clone, Debug, Default)]
pub struct DiscardFilter {
    /// Only those that this source, transform or sink has refused.
    pub component: Option<String>,
    /// Only those in whose reason this text stands.
    pub reason: Option<String>,
    /// Only those of this run.
    pub run: Option<String>,
}

/// What came of putting dead letters away.
#[derive(Debug, Serialize)]
pub struct DiscardReport {
    /// The pipeline.
    pub pipeline: Name,
    /// Those that were put away.
    pub discarded: u64,
    /// Those left as they are because their run has not ended: it may refuse them once more.
    pub not_settled: u64,
}

impl Engine {
    /// Puts away dead letters about which something is left to be done, whoever has refused them.
    ///
    /// # Errors
    /// Conflict, if a run of the pipeline is under way. A sink cannot be made of what is configured, or the state or the letters cannot be
    /// read or written.
    pub async fn discard(&self, spec: &PipelineSpec, filter: &DiscardFilter) -> Result<DiscardReport> {
        let standings = self.standings(spec).await?;
        let pipeline = standings.pipeline.clone();
        let Some(_lock) = self.store.lock_pipeline(&pipeline)? else {
            return Err(self.under_way(&pipeline));
        };
        let mut report = DiscardReport { pipeline: pipeline.clone(), discarded: 0, not_settled: 0 };
        let mut chosen: Vec<(Name, _, Arc<str>)> = Vec::new();
        for (whose, folder) in self.letter_folders(spec) {
            show_placed(&folder, |line, entry| {
                let asked = filter.component.as_ref().is_none_or(|name| **name == *entry.component)
                    && filter.reason.as_ref().is_none_or(|text| entry.reason.contains(&**text))
                    && filter.run.as_ref().is_none_or(|run| **run == *entry.run);
                if !asked {
                    return Ok(ControlFlow::Continue(()));
                }
                let standing = standings.of(whose.as_ref(), line, &entry)?;
                // What is not committed for good may be dropped, and another letter stand in its place.
                if !line.sealed || standing == Standing::RunOpen {
                    report.not_settled += 1;
                } else if !standing.is_done() {
                    report.discarded += 1;
                    chosen.push((entry.component.clone(), place(whose.as_ref(), line), (*entry.run).into()));
                    if chosen.len() == AT_ONCE {
                        self.store.discard(&pipeline, &chosen)?;
                        chosen.clear();
                    }
                }
                Ok(ControlFlow::Continue(()))
            })?;
        }
        self.store.discard(&pipeline, &chosen)?;
        Ok(report)
    }
}
