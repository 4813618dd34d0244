//! `towpath dlq`: rows that were rejected.

use std::{ops::ControlFlow, path::Path, time::Duration};

use towpath_config::Severity;
use towpath_engine::{
    ReplayReport, RunOptions,
    dead_letters::{self, Entry, Where},
    replay::ReplayFilter,
};

use super::{
    Outcome, engine, load,
    run::{in_words, watched},
    runtime,
};
use crate::{
    args::{Dlq, Global},
    output,
    table::{layout, megabytes, thousands},
};

pub(crate) fn dlq(global: &Global, command: Dlq) -> Outcome {
    match command {
        Dlq::List { file } => list(global, &file),
        Dlq::Show { file, rows, run } => show(global, &file, rows, run.as_deref()),
        Dlq::Replay { file, component, reason } => replay(global, &file, ReplayFilter { component, reason }),
    }
}

fn list(global: &Global, file: &Path) -> Outcome {
    let spec = load(global, file, Severity::Warning)?.spec;
    let engine = engine(global)?;
    let folder = engine.dead_letters_of(&spec);
    let mut listing = dead_letters::Listing::default();
    for folder in engine.all_dead_letters_of(&spec) {
        let more = dead_letters::list(&folder)?;
        listing.files.extend(more.files);
        listing.groups.extend(more.groups);
        listing.unreadable += more.unreadable;
    }
    if global.json {
        output::json(&listing, false)?;
        return Ok(0);
    }
    if listing.groups.is_empty() {
        output::out(&format!("no dead letters in {}", folder.display()));
        return Ok(0);
    }
    let headings = ["run", "component", "kind", "missing in", "rows", "for example"].map(str::to_owned);
    let rows: Vec<Vec<String>> = listing
        .groups
        .iter()
        .map(|group| {
            let sink = group.sink.clone().unwrap_or_else(|| "all sinks".to_owned());
            vec![
                group.run.clone(),
                group.component.clone(),
                group.kind.clone(),
                sink,
                thousands(group.entries),
                group.example.clone(),
            ]
        })
        .collect();
    let mut text = layout(&headings, &rows, &[4]);
    text.push('\n');
    for file in &listing.files {
        text.push_str(&format!(
            "{}  {}, {}\n",
            file.path.display(),
            output::number(file.entries as usize, "row"),
            megabytes(file.bytes)
        ));
    }
    let replayed = spec.name.as_ref().map_or(Ok(0), |name| engine.state().replayed_count(name))?;
    if replayed > 0 {
        text.push_str(&format!("{} of them sent again since\n", thousands(replayed)));
    }
    if listing.unreadable > 0 {
        text.push_str(&format!("{} cannot be read\n", output::number(listing.unreadable as usize, "line")));
    }
    output::out(&text);
    Ok(0)
}

fn show(global: &Global, file: &Path, most: usize, run: Option<&str>) -> Outcome {
    let spec = load(global, file, Severity::Warning)?.spec;
    let engine = engine(global)?;
    let folder = engine.dead_letters_of(&spec);
    let (mut shown, mut more) = (0, false);
    let mut each = |entry: Entry| {
        if run.is_some_and(|run| run != &*entry.run) {
            return ControlFlow::Continue(());
        }
        if shown == most {
            more = true;
            return ControlFlow::Break(());
        }
        shown += 1;
        let line = if global.json { serde_json::to_string(&entry).unwrap_or_default() } else { told(&entry) };
        output::out(&line);
        ControlFlow::Continue(())
    };
    for folder in engine.all_dead_letters_of(&spec) {
        dead_letters::show(&folder, &mut each)?;
    }
    if shown == 0 {
        output::err(&format!("no dead letters in {}", folder.display()));
    } else if more {
        output::err(&format!("there are more; ask for them with -n, or read {}", folder.display()));
    }
    Ok(0)
}

fn told(entry: &Entry) -> String {
    let position = match entry.position {
        Where::Record(at) => format!("record {}, line {}", at.record, at.line),
        Where::Piece { piece: Some(piece), row: Some(row) } => format!("piece {}, row {}", piece + 1, row + 1),
        Where::Piece { .. } => String::new(),
    };
    let partition = entry.partition.as_ref().map(|partition| partition.to_string()).unwrap_or_default();
    let source = entry.source.as_ref().map(|source| source.to_string()).unwrap_or_default();
    let from = [source, partition, position].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
    let from = if from.is_empty() { String::new() } else { format!(" ({from})") };
    format!("{}: {}{from}\n    {}", entry.component, entry.reason, entry.row)
}

fn replay(global: &Global, file: &Path, filter: ReplayFilter) -> Outcome {
    let spec = load(global, file, Severity::Error)?.spec;
    let runtime = runtime(global)?;
    let engine = engine(global)?;
    let drain = spec.run.drain;
    let work = async move |options: RunOptions| engine.replay(&spec, &filter, options).await;
    let report = runtime.block_on(watched(drain, work));
    runtime.shutdown_timeout(Duration::from_secs(1));
    let report = report?;
    for run in report.sinks.values().filter_map(|sink| sink.run.as_ref()) {
        if let Some(error) = &run.error {
            output::err(&output::block(error));
        }
    }
    if global.json {
        output::json(&report, true)?;
    } else {
        output::out(&replayed(&report, file));
    }
    Ok(report.exit_code())
}

/// What came of sending dead letters again, for people.
fn replayed(report: &ReplayReport, file: &Path) -> String {
    let row = |number: u64| format!("{} row{}", thousands(number), if number == 1 { "" } else { "s" });
    let mut text = String::new();
    for (name, sink) in &report.sinks {
        if let Some(run) = &sink.run {
            text.push_str(&format!("{name}: {}; the next replay takes it up\n", in_words(run.status)));
        }
        if sink.sent > 0 {
            let taken_up = if sink.taken_up { ", with those of a replay that had not ended" } else { "" };
            text.push_str(&format!("{name}: {} sent again{taken_up}\n", row(sink.sent)));
        }
        for (number, what) in [
            (sink.refused, format!("refused again: towpath dlq show {}", file.display())),
            (sink.superseded, "left out: newer data has come since".to_owned()),
            (sink.unreadable, "left out: their columns are not those of the sink (any more)".to_owned()),
        ] {
            if number > 0 {
                text.push_str(&format!("  {} {what}\n", row(number)));
            }
        }
    }
    if report.sinks.is_empty() {
        text.push_str("no dead letters to send again\n");
    }
    if report.before_sinks > 0 {
        let rows = row(report.before_sinks);
        text.push_str(&format!(
            "{rows} never came as far as a sink: mend the cause, and the source or transform reads them again\n"
        ));
    }
    if report.not_settled > 0 {
        let rows = row(report.not_settled);
        text.push_str(&format!("{rows} of a run that has not ended: run the pipeline first\n"));
    }
    text
}
