//! `towpath dlq`: rows that were rejected.

use std::{collections::VecDeque, ops::ControlFlow, path::Path, time::Duration};

use serde::Serialize;
use towpath_config::Severity;
use towpath_core::{Name, PipelineSpec};
use towpath_engine::{
    Engine, ReplayReport, RunOptions,
    dead_letters::{self, Entry, Group, Line, Standing, Where},
    replay::{DiscardFilter, ReplayFilter, Standings},
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
        Dlq::List { file, open } => list(global, &file, open),
        Dlq::Show { file, rows, run, oldest } => show(global, &file, rows, run.as_deref(), oldest),
        Dlq::Replay { file, component, reason } => replay(global, &file, ReplayFilter { component, reason }),
        Dlq::Discard { file, component, reason, run } => {
            discard(global, &file, &DiscardFilter { component, reason, run })
        }
    }
}

/// How the dead letters of a pipeline stand, as far as that can be told.
struct Told(Option<Standings>);

impl Told {
    /// What is wrong with the pipeline does not keep its dead letters from being looked at.
    fn of(global: &Global, engine: &Engine, spec: &PipelineSpec) -> Result<Self, output::Failure> {
        let runtime = runtime(global)?;
        let standings = runtime.block_on(engine.standings(spec));
        runtime.shutdown_timeout(Duration::from_secs(1));
        if let Err(error) = &standings {
            output::err(&format!("which of them are open is not known: {}", output::one_line(error)));
        }
        Ok(Self(standings.ok()))
    }

    fn standing(&self, folder: Option<&Name>, line: &Line, entry: &Entry) -> towpath_core::Result<Standing> {
        match &self.0 {
            Some(standings) => standings.of(folder, line, entry),
            None => Ok(Standing::Unknown),
        }
    }
}

fn list(global: &Global, file: &Path, open: bool) -> Outcome {
    let spec = load(global, file, Severity::Warning)?.spec;
    let engine = engine(global)?;
    let folder = engine.dead_letters_of(&spec);
    let told = Told::of(global, &engine, &spec)?;
    let mut listing = dead_letters::Listing::default();
    for (whose, folder) in engine.letter_folders(&spec) {
        listing.add(&folder, |line, entry| told.standing(whose.as_ref(), line, entry))?;
    }
    // Those that were refused again stand with their kind, whatever folder they are in.
    listing.groups.sort_by(|one, other| one.run.cmp(&other.run));
    if open {
        listing.retain_open();
    }
    if global.json {
        output::json(&listing, false)?;
        return Ok(0);
    }
    if listing.groups.is_empty() {
        let what = if open { "nothing is left to be done about the dead letters" } else { "no dead letters" };
        output::out(&format!("{what} in {}", folder.display()));
        return Ok(0);
    }
    let headings =
        ["run", "component", "kind", "missing in", "rows", "open", "sent again", "superseded", "for example"];
    let rows: Vec<Vec<String>> = listing.groups.iter().map(row).collect();
    let mut text = layout(&headings.map(str::to_owned), &rows, &[4, 5, 6, 7]);
    text.push('\n');
    for file in &listing.files {
        text.push_str(&format!(
            "{}  {}, {}\n",
            file.path.display(),
            output::number(file.entries as usize, "row"),
            megabytes(file.bytes)
        ));
    }
    for (standing, why) in [
        (
            Standing::Kept,
            "not sent again: mend the cause, then `towpath run --full` if their source does not give them anew",
        ),
        (Standing::Discarded, "discarded: not sent again"),
        (Standing::OtherColumns, "not sent again: the columns are not those of the sink (any more)"),
        (Standing::RunOpen, "of a run that has not ended: run the pipeline first"),
    ] {
        let rows: u64 = listing.groups.iter().filter_map(|group| group.standings.get(&standing)).sum();
        if rows > 0 {
            text.push_str(&format!("{} {why}\n", output::number(rows as usize, "row")));
        }
    }
    if listing.unreadable > 0 {
        text.push_str(&format!("{} cannot be read\n", output::number(listing.unreadable as usize, "line")));
    }
    output::out(&text);
    Ok(0)
}

fn row(group: &Group) -> Vec<String> {
    let never: u64 =
        [Standing::Kept, Standing::Unknown].iter().filter_map(|standing| group.standings.get(standing)).sum();
    let number = |standing| match group.standings.get(&standing) {
        Some(count) => thousands(*count),
        None if group.entries == never => "-".to_owned(),
        None => "0".to_owned(),
    };
    vec![
        group.run.clone(),
        group.component.clone(),
        group.kind.clone(),
        group.sink.clone().unwrap_or_else(|| "all sinks".to_owned()),
        thousands(group.entries),
        number(Standing::Open),
        number(Standing::Replayed),
        number(Standing::Superseded),
        group.example.clone(),
    ]
}

/// An entry and how it stands.
#[derive(Serialize)]
struct Shown {
    standing: Standing,
    #[serde(flatten)]
    entry: Entry,
}

fn show(global: &Global, file: &Path, most: usize, run: Option<&str>, oldest: bool) -> Outcome {
    let spec = load(global, file, Severity::Warning)?.spec;
    let engine = engine(global)?;
    let folder = engine.dead_letters_of(&spec);
    let told = Told::of(global, &engine, &spec)?;
    // Of each folder the first or the last so many, in order; then all of them by their runs, whose names begin with the time.
    let (mut chosen, mut more) = (vec![], false);
    for (whose, folder) in engine.letter_folders(&spec) {
        let mut of_folder = VecDeque::new();
        dead_letters::show_placed(&folder, |line, entry| {
            if run.is_some_and(|run| run != &*entry.run) {
                return Ok(ControlFlow::Continue(()));
            }
            if of_folder.len() == most {
                more = true;
                if oldest || most == 0 {
                    return Ok(ControlFlow::Break(()));
                }
                of_folder.pop_front();
            }
            of_folder.push_back((whose.clone(), *line, entry));
            Ok(ControlFlow::Continue(()))
        })?;
        chosen.extend(of_folder);
    }
    chosen.sort_by(|(.., one), (.., other)| one.run.cmp(&other.run));
    if !oldest {
        chosen.reverse();
    }
    more |= chosen.len() > most;
    chosen.truncate(most);
    for (whose, line, entry) in &chosen {
        let standing = told.standing(whose.as_ref(), line, entry)?;
        output::out(&if global.json {
            serde_json::to_string(&Shown { standing, entry: entry.clone() }).unwrap_or_default()
        } else {
            in_lines(entry, standing)
        });
    }
    if chosen.is_empty() && !more {
        output::err(&format!("no dead letters in {}", folder.display()));
    } else if more {
        output::err(&format!("there are more; ask for them with -n, or read {}", folder.display()));
    }
    Ok(0)
}

fn in_lines(entry: &Entry, standing: Standing) -> String {
    let position = match entry.position {
        Where::Record(at) => format!("record {}, line {}", at.record, at.line),
        Where::Piece { piece: Some(piece), row: Some(row) } => format!("piece {}, row {}", piece + 1, row + 1),
        Where::Piece { .. } => String::new(),
    };
    let partition = entry.partition.as_ref().map(|partition| partition.to_string()).unwrap_or_default();
    let source = entry.source.as_ref().map(|source| source.to_string()).unwrap_or_default();
    let from = [source, partition, position].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
    let from = if from.is_empty() { String::new() } else { format!(" ({from})") };
    format!("{}: {}{from} [{standing}]\n    {}", entry.component, entry.reason, entry.row)
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

fn discard(global: &Global, file: &Path, filter: &DiscardFilter) -> Outcome {
    let spec = load(global, file, Severity::Warning)?.spec;
    let runtime = runtime(global)?;
    let engine = engine(global)?;
    let report = runtime.block_on(engine.discard(&spec, filter));
    runtime.shutdown_timeout(Duration::from_secs(1));
    let report = report?;
    if global.json {
        output::json(&report, true)?;
        return Ok(0);
    }
    let rows = |number: u64| output::number(number as usize, "row");
    let mut text = match report.discarded {
        0 => "no dead letters to discard\n".to_owned(),
        some => format!("{} discarded: they stay in their files, and are not sent again\n", rows(some)),
    };
    if report.not_settled > 0 {
        text.push_str(&format!("{} of a run that has not ended: run the pipeline first\n", rows(report.not_settled)));
    }
    output::out(&text);
    Ok(0)
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
                text.push_str(&format!("{name}: {} {what}\n", row(number)));
            }
        }
    }
    if report.sinks.is_empty() {
        text.push_str("no dead letters to send again\n");
    }
    if report.before_sinks > 0 {
        let rows = row(report.before_sinks);
        text.push_str(&format!(
            "{rows} never came as far as a sink: mend the cause, then `towpath run --full` if their source does not give them anew\n"
        ));
    }
    if report.not_settled > 0 {
        let rows = row(report.not_settled);
        text.push_str(&format!("{rows} of a run that has not ended: run the pipeline first\n"));
    }
    text
}
