//! Reading dead letters, for `towpath dlq list` and `show`: in order, one line at a time, never a whole file.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, Seek, SeekFrom},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use serde::Serialize;
use towpath_core::Result;

use super::{
    entry::{Domain, Entry},
    files::{self, Mark},
    standing::Standing,
    told,
};

/// All there is in a folder.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Listing {
    /// The files, oldest first.
    pub files: Vec<FileSummary>,
    /// The entries by run, component and kind of failure, oldest run first.
    pub groups: Vec<Group>,
    /// Lines that are no dead letters: a torn one, or one somebody edited.
    pub unreadable: u64,
}

/// One file.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FileSummary {
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// The entries in it.
    pub entries: u64,
}

/// Entries that belong together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// The run's id.
    pub run: String,
    /// Who refused them.
    pub component: String,
    /// What they failed with.
    pub kind: String,
    /// The sink that only they are missing in; `None`: they are missing in all.
    pub sink: Option<String>,
    /// How many.
    pub entries: u64,
    /// How many of them stand how.
    pub standings: BTreeMap<Standing, u64>,
    /// The reason of the first.
    pub example: String,
}

/// Where the line of an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// The number of its file.
    pub file: u64,
    /// The byte at which it begins.
    pub at: u64,
    /// It is committed for good: its run has ended.
    pub sealed: bool,
}

/// Run, component, kind and sink.
type Which = (String, String, &'static str, Option<String>);

impl Listing {
    /// Adds what is in a folder; a folder that is not there is empty. `standing` says how an entry stands.
    pub fn add(&mut self, dir: &Path, mut standing: impl FnMut(&Line, &Entry) -> Result<Standing>) -> Result<()> {
        let mut groups: BTreeMap<Which, Group> = BTreeMap::new();
        let mut summary = FileSummary::default();
        let seal = files::read_seal(dir).map_err(|error| told(dir, error))?.mark;
        for number in files::numbers(dir).map_err(|error| told(dir, error))? {
            let path = files::path(dir, number);
            summary.bytes = each_line(dir, number, seal, |line, entry| {
                let Some(entry) = entry else {
                    self.unreadable += 1;
                    return Ok(ControlFlow::Continue(()));
                };
                summary.entries += 1;
                let stands = standing(line, &entry)?;
                let sink = match &entry.domain {
                    Domain::Shared => None,
                    Domain::Sink(name) => Some(name.to_string()),
                };
                let (run, component, kind) = (entry.run.to_string(), entry.component.to_string(), entry.kind.name());
                let group =
                    groups.entry((run.clone(), component.clone(), kind, sink.clone())).or_insert_with(|| Group {
                        run,
                        component,
                        kind: kind.to_owned(),
                        sink,
                        entries: 0,
                        standings: BTreeMap::new(),
                        example: entry.reason,
                    });
                group.entries += 1;
                *group.standings.entry(stands).or_default() += 1;
                Ok(ControlFlow::Continue(()))
            })?;
            self.files.push(FileSummary { path, ..std::mem::take(&mut summary) });
        }
        self.groups.extend(groups.into_values());
        Ok(())
    }
}

impl Listing {
    /// Leaves only the groups in which there is something left to be done.
    pub fn retain_open(&mut self) {
        self.groups.retain(|group| !group.standings.keys().all(|standing| standing.is_done()));
    }
}

/// What is in a folder, without how the entries stand.
pub fn list(dir: &Path) -> Result<Listing> {
    let mut listing = Listing::default();
    listing.add(dir, |_, _| Ok(Standing::Unknown))?;
    Ok(listing)
}

/// Gives every entry in order, until `each` breaks. Lines that are no dead letters are passed over.
pub fn show(dir: &Path, mut each: impl FnMut(Entry) -> ControlFlow<()>) -> Result<()> {
    show_placed(dir, |_, entry| Ok(each(entry)))
}

/// The same, with where each is; an error of `each` ends it.
pub fn show_placed(dir: &Path, mut each: impl FnMut(&Line, Entry) -> Result<ControlFlow<()>>) -> Result<()> {
    let seal = files::read_seal(dir).map_err(|error| told(dir, error))?.mark;
    let mut on = true;
    for number in files::numbers(dir).map_err(|error| told(dir, error))? {
        if !on {
            break;
        }
        each_line(dir, number, seal, |line, entry| {
            let flow = match entry {
                Some(entry) => each(line, entry)?,
                None => ControlFlow::Continue(()),
            };
            on = flow.is_continue();
            Ok(flow)
        })?;
    }
    Ok(())
}

/// Reads a file line by line; returns the bytes read.
fn each_line(
    dir: &Path,
    number: u64,
    seal: Mark,
    mut each: impl FnMut(&Line, Option<Entry>) -> Result<ControlFlow<()>>,
) -> Result<u64> {
    let told = |error| told(dir, error);
    let file = File::open(files::path(dir, number)).map_err(told)?;
    let (mut reader, mut line, mut at) = (BufReader::with_capacity(256 << 10, file), Vec::new(), 0);
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line).map_err(told)? as u64;
        if read == 0 {
            return Ok(at);
        }
        let sealed = number < seal.file || (number == seal.file && at + read <= seal.offset);
        let flow = each(&Line { file: number, at, sealed }, serde_json::from_slice(&line).ok())?;
        at += read;
        if flow.is_break() {
            return Ok(at);
        }
    }
}

/// Gives every entry that is committed for good, with the file and the place of its line, in order. Returns how many are not.
pub(crate) fn each_sealed(dir: &Path, mut each: impl FnMut(u64, u64, Entry) -> Result<()>) -> Result<u64> {
    let mut open = 0;
    show_placed(dir, |line, entry| {
        if line.sealed {
            each(line.file, line.at, entry)?;
        } else {
            open += 1;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(open)
}

/// The entry whose line begins there.
pub(crate) fn read_at(dir: &Path, number: u64, at: u64) -> Result<Entry> {
    let read = (|| {
        let mut file = File::open(files::path(dir, number))?;
        file.seek(SeekFrom::Start(at))?;
        let mut line = Vec::new();
        BufReader::new(file).read_until(b'\n', &mut line)?;
        Ok(line)
    })();
    let line = read.map_err(|error| told(dir, error))?;
    serde_json::from_slice(&line).map_err(|error| {
        towpath_core::Error::conflict(format!("no dead letter begins at byte {at} of file {number:06}.jsonl any more"))
            .because(error)
            .at(format!("dead letters {}", dir.display()))
            .hint("the file was changed by hand; leave the files as they are while letters are sent again")
    })
}
