//! `towpath dlq`: rows that were rejected.

use std::{ops::ControlFlow, path::Path};

use towpath_config::Severity;
use towpath_engine::dead_letters::{self, Entry, Row, Where};

use super::{Outcome, engine, load};
use crate::{
    args::{Dlq, Global},
    output,
    table::{layout, megabytes, thousands},
};

pub(crate) fn dlq(global: &Global, command: Dlq) -> Outcome {
    match command {
        Dlq::List { file } => list(global, &file),
        Dlq::Show { file, rows, run } => show(global, &file, rows, run.as_deref()),
    }
}

fn list(global: &Global, file: &Path) -> Outcome {
    let spec = load(global, file, Severity::Warning)?.spec;
    let folder = engine(global)?.dead_letters_of(&spec);
    let listing = dead_letters::list(&folder)?;
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
    if listing.unreadable > 0 {
        text.push_str(&format!("{} cannot be read\n", output::number(listing.unreadable as usize, "line")));
    }
    output::out(&text);
    Ok(0)
}

fn show(global: &Global, file: &Path, most: usize, run: Option<&str>) -> Outcome {
    let spec = load(global, file, Severity::Warning)?.spec;
    let folder = engine(global)?.dead_letters_of(&spec);
    let (mut shown, mut more) = (0, false);
    dead_letters::show(&folder, |entry| {
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
    })?;
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
        Where::Piece { piece: Some(piece), row: Some(row) } => format!("piece {piece}, row {row}"),
        Where::Piece { .. } => String::new(),
    };
    let partition = entry.partition.as_ref().map(|partition| partition.to_string()).unwrap_or_default();
    let source = entry.source.as_ref().map(|source| source.to_string()).unwrap_or_default();
    let from = [source, partition, position].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
    let row = match &entry.row {
        Row::Bytes(bytes) => String::from_utf8_lossy(bytes).trim_end().to_owned(),
        Row::Json(json) => json.get().to_owned(),
    };
    let from = if from.is_empty() { String::new() } else { format!(" ({from})") };
    format!("{}: {}{from}\n    {row}", entry.component, entry.reason)
}
