//! The files: their names, the seal, and dropping what was not committed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::entry::Tag;

/// A place in the files. File 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Mark {
    pub file: u64,
    pub offset: u64,
}

/// Up to where everything is committed for good, and how many entries of a run are in there.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Seal {
    pub mark: Mark,
    pub run: String,
    pub count: u64,
}

/// What opening found.
#[derive(Default)]
pub(super) struct Found {
    /// Where to write on.
    pub end: Mark,
    /// Entries of the run.
    pub count: u64,
    /// There are entries behind the seal.
    pub unsealed: bool,
}

const SEAL: &str = "sealed.json";

/// A file by its number.
pub(super) fn path(dir: &Path, file: u64) -> PathBuf {
    dir.join(format!("{file:06}.jsonl"))
}

/// The numbers of the files there are, in order. A folder that is not there has none.
pub(super) fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers: Vec<u64> =
        names(dir)?.iter().filter_map(|name| name.strip_suffix(".jsonl")?.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(vec![]),
        Err(error) => Err(error),
    }
}

/// Makes new names, and names that are gone, durable.
pub(super) fn sync_folder(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()?;
    // The folder itself may be new, and the one above it too. Those that may not be opened were not made by us.
    for above in dir.ancestors().skip(1).take(2).filter(|above| !above.as_os_str().is_empty()) {
        if let Ok(above) = File::open(above) {
            above.sync_all()?;
        }
    }
    Ok(())
}

fn write_whole(
    dir: &Path,
    name: &str,
    fsync: bool,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.new"));
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    let mut out = BufWriter::new(file);
    write(&mut out)?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    if fsync {
        file.sync_all()?;
    }
    fs::rename(&temporary, dir.join(name))?;
    if fsync { sync_folder(dir) } else { Ok(()) }
}

/// Stores the seal.
pub(super) fn write_seal(dir: &Path, seal: &Seal, fsync: bool) -> io::Result<()> {
    write_whole(dir, SEAL, fsync, |out| Ok(serde_json::to_writer(out, seal)?))
}

/// Without a seal, or with one that does not read, everything is looked at.
pub(super) fn read_seal(dir: &Path) -> io::Result<Seal> {
    match fs::read(dir.join(SEAL)) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Seal::default()),
        Err(error) => Err(error),
    }
}

/// Drops what is not to be kept behind the seal, and finds the end.
pub(super) fn recover(dir: &Path, run: &str, keep: impl Fn(&Tag<'_>) -> bool, fsync: bool) -> io::Result<Found> {
    finish_tails(dir, fsync)?;
    let seal = read_seal(dir)?;
    let mut found = Found { end: seal.mark, count: if seal.run == run { seal.count } else { 0 }, unsealed: false };
    for file in numbers(dir)? {
        if file < seal.mark.file {
            continue;
        }
        let path = path(dir, file);
        // Someone may have made the file shorter by hand.
        let length = fs::metadata(&path)?.len();
        let from = if file == seal.mark.file { seal.mark.offset.min(length) } else { 0 };
        let scan = scan(&path, from, run, &keep)?;
        if let Some(cut) = scan.cut {
            drop_lines(dir, file, cut, &scan.kept, fsync)?;
        }
        let length = fs::metadata(&path)?.len();
        found.count += scan.count;
        found.unsealed |= length > from;
        found.end = Mark { file, offset: length };
    }
    if found.end.file == seal.mark.file && found.end.file > 0 && !path(dir, found.end.file).exists() {
        // Taken away by hand: its number is not used again, or the seal would cover a new file.
        found.end = Mark { file: seal.mark.file + 1, offset: 0 };
    }
    Ok(found)
}

/// What is behind the seal in one file.
#[derive(Default)]
struct Scan {
    /// Where the first line to drop begins.
    cut: Option<u64>,
    /// Where lines to keep behind the cut begin and end, neighbours joined.
    kept: Vec<(u64, u64)>,
    /// Lines kept that are of the run.
    count: u64,
}

impl Scan {
    fn line(&mut self, begin: u64, end: u64, keep: bool) {
        match (keep, self.cut) {
            (true, None) => {}
            (true, Some(_)) => match self.kept.last_mut() {
                Some((_, last)) if *last == begin => *last = end,
                _ => self.kept.push((begin, end)),
            },
            (false, None) => self.cut = Some(begin),
            (false, Some(_)) => {}
        }
    }
}

fn scan(path: &Path, from: u64, run: &str, keep: &impl Fn(&Tag<'_>) -> bool) -> io::Result<Scan> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut reader = BufReader::with_capacity(256 << 10, file);
    let (mut scan, mut line, mut begin) = (Scan::default(), Vec::new(), from);
    // Lines that do not read: the tail of a writer that died, unless a line that reads comes after them.
    let mut unread: Vec<(u64, u64)> = vec![];
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)? as u64;
        if read == 0 {
            break;
        }
        let end = begin + read;
        match serde_json::from_slice::<Tag<'_>>(&line) {
            Ok(tag) if line.ends_with(b"\n") => {
                for (begin, end) in unread.drain(..) {
                    scan.line(begin, end, true);
                }
                let kept = keep(&tag);
                scan.count += u64::from(kept && tag.run == run);
                scan.line(begin, end, kept);
            }
            _ => unread.push((begin, end)),
        }
        begin = end;
    }
    if let Some((begin, end)) = unread.first() {
        scan.line(*begin, *end, false);
    }
    Ok(scan)
}

/// Cuts a file and appends what is to stay behind the cut.
fn drop_lines(dir: &Path, file: u64, cut: u64, kept: &[(u64, u64)], fsync: bool) -> io::Result<()> {
    if kept.is_empty() {
        let file = OpenOptions::new().write(true).open(path(dir, file))?;
        file.set_len(cut)?;
        return if fsync { file.sync_all() } else { Ok(()) };
    }
    let name = format!("{file:06}-{cut}.tail");
    write_whole(dir, &name, fsync, |out| {
        let mut whole = File::open(path(dir, file))?;
        for (begin, end) in kept {
            whole.seek(SeekFrom::Start(*begin))?;
            io::copy(&mut (&mut whole).take(end - begin), out)?;
        }
        Ok(())
    })?;
    finish_tails(dir, fsync)
}

/// Completes what [`drop_lines`] began: also if the process died at any point of it, any number of times.
fn finish_tails(dir: &Path, fsync: bool) -> io::Result<()> {
    for name in names(dir)? {
        let Some((file, cut)) = name.strip_suffix(".tail").and_then(|name| name.split_once('-')) else { continue };
        let (Ok(file), Ok(cut)) = (file.parse::<u64>(), cut.parse::<u64>()) else { continue };
        let mut tail = File::open(dir.join(&name))?;
        let mut whole =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path(dir, file))?;
        whole.set_len(cut)?;
        whole.seek(SeekFrom::Start(cut))?;
        io::copy(&mut tail, &mut whole)?;
        if fsync {
            whole.sync_all()?;
        }
        fs::remove_file(dir.join(&name))?;
        if fsync {
            sync_folder(dir)?;
        }
    }
    Ok(())
}
