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
    files, told,
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
#[derive(Clone, Debug, Serialize)]
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
    /// The reason of the first.
    pub example: String,
}

/// Run, component, kind and sink.
type Which = (String, String, &'static str, Option<String>);

/// What is in a folder; a folder that is not there is empty.
pub fn list(dir: &Path) -> Result<Listing> {
    let mut listing = Listing::default();
    let mut groups: BTreeMap<Which, (u64, String)> = BTreeMap::new();
    for number in files::numbers(dir).map_err(|error| told(dir, error))? {
        let (mut entries, path) = (0, files::path(dir, number));
        let bytes = each_line(dir, &path, |entry| {
            match entry {
                Some(entry) => {
                    entries += 1;
                    let sink = match &entry.domain {
                        Domain::Shared => None,
                        Domain::Sink(name) => Some(name.to_string()),
                    };
                    let key = (entry.run.to_string(), entry.component.to_string(), entry.kind.name(), sink);
                    groups.entry(key).or_insert_with(|| (0, entry.reason)).0 += 1;
                }
                None => listing.unreadable += 1,
            }
            ControlFlow::Continue(())
        })?;
        listing.files.push(FileSummary { path, bytes, entries });
    }
    for ((run, component, kind, sink), (entries, example)) in groups {
        listing.groups.push(Group { run, component, kind: kind.to_owned(), sink, entries, example });
    }
    Ok(listing)
}

/// Gives every entry in order, until `each` breaks. Lines that are no dead letters are passed over.
pub fn show(dir: &Path, mut each: impl FnMut(Entry) -> ControlFlow<()>) -> Result<()> {
    let mut on = true;
    for number in files::numbers(dir).map_err(|error| told(dir, error))? {
        if !on {
            break;
        }
        each_line(dir, &files::path(dir, number), |entry| {
            let flow = entry.map_or(ControlFlow::Continue(()), &mut each);
            on = flow.is_continue();
            flow
        })?;
    }
    Ok(())
}

/// Reads a file line by line; returns the bytes read.
fn each_line(dir: &Path, path: &Path, mut each: impl FnMut(Option<Entry>) -> ControlFlow<()>) -> Result<u64> {
    let file = File::open(path).map_err(|error| told(dir, error))?;
    let (mut reader, mut line, mut bytes) = (BufReader::with_capacity(256 << 10, file), Vec::new(), 0);
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line).map_err(|error| told(dir, error))?;
        bytes += read as u64;
        if read == 0 || each(serde_json::from_slice(&line).ok()).is_break() {
            return Ok(bytes);
        }
    }
}

/// Gives every entry that is committed for good, with the file and the place of its line, in order. Returns how many are not.
pub(crate) fn each_sealed(dir: &Path, mut each: impl FnMut(u64, u64, Entry) -> Result<()>) -> Result<u64> {
    let told = |error| told(dir, error);
    let seal = files::read_seal(dir).map_err(told)?.mark;
    let mut open = 0;
    for number in files::numbers(dir).map_err(told)? {
        let (mut at, mut failed) = (0, None);
        let path = files::path(dir, number);
        let file = File::open(&path).map_err(told)?;
        let (mut reader, mut line) = (BufReader::with_capacity(256 << 10, file), Vec::new());
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line).map_err(told)? as u64;
            if read == 0 {
                break;
            }
            let sealed = number < seal.file || (number == seal.file && at + read <= seal.offset);
            match serde_json::from_slice::<Entry>(&line) {
                Ok(entry) if sealed => {
                    if let Err(error) = each(number, at, entry) {
                        failed = Some(error);
                        break;
                    }
                }
                Ok(_) => open += 1,
                Err(_) => {}
            }
            at += read;
        }
        if let Some(error) = failed {
            return Err(error);
        }
    }
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
