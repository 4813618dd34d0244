//! `towpath plan`: what a run would do, and with --diff what it would change.

use std::{path::Path, time::Duration};

use towpath_config::Severity;
use towpath_engine::RunOptions;

use super::{Outcome, engine, load, run::watched, runtime};
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
    // Whose variables are not set is not asked, which was told.
    let failures =
        report.failures.iter().filter(|failure| !loaded.unset.iter().any(|name| **name == *failure.component));
    let codes = failures.map(|failure| {
        output::err(&format!("error: {failure}\n"));
        failure.exit_code
    });
    Ok(codes.reduce(|first, _| first).unwrap_or(0))
}

pub(crate) fn diff(global: &Global, file: &Path, out: Option<&Path>, full: bool) -> Outcome {
    let spec = load(global, file, Severity::Error)?.spec;
    let runtime = runtime(global)?;
    let engine = engine(global)?;
    let (drain, out) = (spec.run.drain, out.map(Path::to_owned));
    let work =
        async move |options: RunOptions| engine.diff(&spec, RunOptions { full, ..options }, out.as_deref()).await;
    let report = runtime.block_on(watched(drain, work));
    runtime.shutdown_timeout(Duration::from_secs(1));
    let report = report?;
    if global.json {
        output::json(&report, false)?;
    } else {
        output::out(&report.to_string());
    }
    report.ends.iter().for_each(|failure| output::err(&format!("error: {failure}\n")));
    Ok(report.exit_code())
}
