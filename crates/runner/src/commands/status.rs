//! `towpath status`: what became of the last run of each pipeline, whether one is under way, and when the next begins.

use std::path::PathBuf;

use jiff::Timestamp;
use towpath_config::Severity;
use towpath_core::Name;
use towpath_engine::state::{LastOutcome, PipelineStatus};

use super::{Outcome, engine, load};
use crate::{
    args::Global,
    output,
    table::{layout, thousands},
};

pub(crate) fn status(global: &Global, files: &[PathBuf]) -> Outcome {
    let mut names: Vec<Name> = Vec::new();
    for file in files {
        names.extend(load(global, file, Severity::Warning)?.spec.name);
    }
    let engine = engine(global)?;
    let store = engine.state();
    if files.is_empty() {
        names = store.pipelines()?;
    }
    let all = names.iter().map(|name| store.status(name)).collect::<towpath_core::Result<Vec<_>>>()?;
    if global.json {
        output::json(&all, false)?;
    } else if all.is_empty() {
        let place = store.dir().map(|dir| format!(" in {}", dir.display())).unwrap_or_default();
        output::out(&format!("no pipeline has run yet, as far as is known{place}"));
    } else {
        output::out(&told(&all));
    }
    Ok(0)
}

/// The table, and below it why the ones that failed did.
fn told(all: &[PipelineStatus]) -> String {
    let headings = ["pipeline", "last run", "when", "running", "next start", "skipped"].map(str::to_owned);
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    let mut text = layout(&headings, &rows, &[5]);
    let mut gap = "\n";
    for PipelineStatus { pipeline, last, .. } in all {
        if let Some(why) = last.as_ref().and_then(why) {
            text.push_str(&format!("{gap}{pipeline}: {why}\n"));
            gap = "";
        }
    }
    text
}

fn row(status: &PipelineStatus) -> Vec<String> {
    let PipelineStatus { pipeline, last, running, served, .. } = status;
    let time = |time: Timestamp| format!("{time:.0}");
    let (how, when) = match last {
        None => ("none", None),
        Some(LastOutcome { status, ended, started, .. }) => {
            let how = if status == "cancelled" { "interrupted" } else { status };
            (how, ended.or(*started))
        }
    };
    let next = match served {
        None => "not served".to_owned(),
        Some(served) => served.next_start.map_or_else(|| "none".to_owned(), time),
    };
    vec![
        pipeline.to_string(),
        how.to_owned(),
        when.map(time).unwrap_or_default(),
        running.as_ref().map_or_else(|| "no".to_owned(), |holder| format!("since {:.0}", holder.since)),
        next,
        served.as_ref().map(|served| thousands(served.skipped)).unwrap_or_default(),
    ]
}

/// Why a run did not complete, in a line.
fn why(last: &LastOutcome) -> Option<String> {
    match last.status.as_str() {
        "died" => Some("it ended without a word: killed, or by a defect; the next run takes it up".to_owned()),
        _ => last.error.as_ref().map(|error| error.replace('\n', " ")),
    }
}
