//! `towpath plan`: what a run would do.

use std::path::Path;

use towpath_config::Severity;

use super::{Outcome, engine, load, runtime};
use crate::{args::Global, output};

pub(crate) fn plan(global: &Global, file: &Path) -> Outcome {
    let loaded = load(global, file, Severity::Warning)?;
    let runtime = runtime(global)?;
    let engine = engine(global)?;
    let report = runtime.block_on(engine.plan(&loaded.spec))?;
    if global.json {
        output::json(&report, false)?;
    } else {
        output::out(&report.to_string());
    }
    Ok(0)
}
