//! What makes a plain file a target with transactions: a ledger beside it.
//!
//! Beside `out.csv` lie, while the sink knows it, `.out.csv.towpath` (the ledger: fences, checkpoints, how much of the file is
//! ours) and `.out.csv.towpath-lock`; during a run also `.out.csv.towpath-<owner>-<fence>`, the rows that are not in the file yet.
//!
//! The ledger is replaced by a rename, under the lock, and that rename is the one moment in which an epoch becomes committed:
//! it holds the new checkpoint together with the `pending` move of the staged rows into the file. Whoever holds the lock next finishes
//! what is pending; doing it twice is the same as once. So a process may die at any line: before the rename nothing has happened,
//! after it everything has.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use towpath_core::{Checkpoint, Error, Result, WriteMode};
use xxhash_rust::xxh3::xxh3_128;

use crate::listing::io_error;

/// How much of a file's end is compared to know it again.
const TAIL: u64 = 64 * 1024;

/// A file and what lies beside it.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    path: PathBuf,
    mode: WriteMode,
    /// Pipeline and component.
    owner: String,
}

/// What was found and prepared by [`Target::open`].
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) fence: u64,
    pub(crate) checkpoint: Option<Checkpoint>,
    /// Where this process puts its rows.
    pub(crate) staging: PathBuf,
    /// How many bytes of the staged rows are committed (a run of `replace` that is taken up).
    pub(crate) staged: u64,
    /// The file ends inside a line, which is somebody else's.
    pub(crate) torn: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Ledger {
    version: u32,
    /// What the file held after the last commit; `None`: nothing of ours.
    file: Option<Extent>,
    #[serde(default)]
    owners: BTreeMap<String, Owner>,
    pending: Option<Pending>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Extent {
    bytes: u64,
    /// The hash of the last 64 KiB of them.
    tail: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Owner {
    fence: u64,
    checkpoint: Option<Checkpoint>,
    /// Committed, but not to be seen before the run's last commit.
    staged: Option<Staged>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Staged {
    file: String,
    bytes: u64,
    run: Arc<str>,
}

/// A move of staged rows that is decided.
#[derive(Debug, Serialize, Deserialize)]
struct Pending {
    staging: String,
    /// `Some`: behind so many bytes of the file; `None`: in the place of the file.
    behind: Option<u64>,
    rows: Extent,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { version: 1, file: None, owners: BTreeMap::new(), pending: None }
    }
}

impl Target {
    /// The file at `path`; a symbolic link is followed, so that the link stays.
    pub(crate) fn new(path: &Path, mode: WriteMode, owner: String) -> Self {
        let link = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink());
        let path = if link { fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()) } else { path.to_owned() };
        Self { path, mode, owner }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn folder(&self) -> &Path {
        self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }
    fn beside(&self, ending: &str) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        self.folder().join(format!(".{name}.towpath{ending}"))
    }
    fn staging_prefix(&self) -> String {
        format!("-{:08x}-", xxh3_128(self.owner.as_bytes()) as u32)
    }
    fn sibling(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// Everything below happens under this lock, which the system takes back from a dead process.
    fn lock(&self) -> Result<File> {
        let path = self.beside("-lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|error| io_error("open the lock beside the file", &path, error))?;
        file.lock().map_err(|error| io_error("lock the file", &path, error))?;
        Ok(file)
    }

    fn read(&self) -> Result<Ledger> {
        let path = self.beside("");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ledger::default()),
            Err(error) => return Err(io_error("read what is known of the file", &path, error)),
        };
        let place = |error: Error| error.at(path.display().to_string());
        let ledger: Ledger = serde_json::from_slice(&text).map_err(|error| {
            let hint = "if nothing depends on it, delete it: the file is then loaded as one that was never seen";
            place(Error::data("it is not what a csv sink writes there").because(error).hint(hint))
        })?;
        if ledger.version != 1 {
            return Err(place(Error::unsupported(format!(
                "it was written by a newer towpath (version {})",
                ledger.version
            ))));
        }
        Ok(ledger)
    }

    /// The moment in which everything in `ledger` becomes true.
    fn write(&self, ledger: &Ledger) -> Result<()> {
        let (path, new) = (self.beside(""), self.beside("-new"));
        let failed = |error| io_error("write what is known of the file", &path, error);
        let text =
            serde_json::to_vec_pretty(ledger).map_err(|error| Error::internal("a ledger is no JSON").because(error))?;
        let mut file = File::create(&new).map_err(failed)?;
        file.write_all(&text).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&new, &path)).map_err(failed)?;
        self.sync_folder()
    }

    fn sync_folder(&self) -> Result<()> {
        let folder = self.folder();
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|error| io_error("make the folder durable", folder, error))
    }

    /// Raises the fence and reads the checkpoint, finishes what is pending, throws away what other runs have staged.
    pub(crate) fn open(&self, run: &str) -> Result<Opening> {
        let _lock = self.lock()?;
        let mut ledger = self.read()?;
        self.finish(&mut ledger)?;
        self.recognise(&mut ledger)?;
        let owner = ledger.owners.entry(self.owner.clone()).or_default();
        owner.fence += 1;
        let fence = owner.fence;
        let staging = self.beside(&format!("{}{fence}", self.staging_prefix()));
        let mut staged = 0;
        let before = owner.staged.take().filter(|before| self.mode == WriteMode::Replace && *before.run == *run);
        if let Some(before) = before {
            match self.copy_staged(&before, &staging)? {
                true => {
                    staged = before.bytes;
                    owner.staged = Some(Staged { file: file_name(&staging), ..before });
                }
                // Its rows are gone, and so is what was said of them.
                false => owner.checkpoint = None,
            }
        } else if self.mode == WriteMode::Replace
            && owner.checkpoint.as_ref().is_some_and(|held| !held.last && *held.run.id == *run)
        {
            owner.checkpoint = None;
        }
        let checkpoint = owner.checkpoint.clone();
        self.write(&ledger)?;
        self.sweep(&staging);
        let torn = self.mode == WriteMode::Append && self.is_torn()?;
        Ok(Opening { fence, checkpoint, staging, staged, torn })
    }

    /// Makes an epoch durable. `staged` bytes of `staging` are written and on disk.
    pub(crate) fn commit(&self, fence: u64, checkpoint: &Checkpoint, staging: &Path, staged: u64) -> Result<()> {
        let lock = self.lock()?;
        let mut ledger = self.decide(&lock, fence, checkpoint, staging, staged)?;
        // It is decided: whoever opens the file next finishes it.
        self.finish(&mut ledger).map_err(Error::outcome_unknown)
    }

    /// The first half of a commit, behind which it is certain.
    fn decide(&self, _: &File, fence: u64, checkpoint: &Checkpoint, staging: &Path, staged: u64) -> Result<Ledger> {
        let mut ledger = self.read()?;
        self.finish(&mut ledger)?;
        let mine = ledger.owners.get(&self.owner).is_some_and(|owner| owner.fence == fence);
        if !mine {
            return Err(Error::conflict("another process has opened this file since; nothing was written")
                .hint("let only one process at a time write to it"));
        }
        let now = self.extent()?;
        if self.mode == WriteMode::Append
            && let Some(known) = &ledger.file
        {
            let Some(now) = &now else { return Err(Error::conflict("the file has vanished while it was written to")) };
            self.check_known(known, now)?;
        }
        let publishes = match self.mode {
            WriteMode::Append => staged > 0,
            _ => checkpoint.last,
        };
        let rows = if publishes { Some(extent_of(staging, staged)?) } else { None };
        let owner = ledger.owners.entry(self.owner.clone()).or_default();
        owner.checkpoint = Some(checkpoint.clone());
        owner.staged = (self.mode != WriteMode::Append && !checkpoint.last).then(|| Staged {
            file: file_name(staging),
            bytes: staged,
            run: Arc::clone(&checkpoint.run.id),
        });
        if let Some(rows) = rows {
            let behind = (self.mode == WriteMode::Append).then(|| now.map_or(0, |now| now.bytes));
            ledger.pending = Some(Pending { staging: file_name(staging), behind, rows });
        }
        self.write(&ledger)?;
        Ok(ledger)
    }

    /// Moves what is decided into the file. Does nothing that has been done already.
    fn finish(&self, ledger: &mut Ledger) -> Result<()> {
        let Some(Pending { staging, behind, rows }) = ledger.pending.take() else { return Ok(()) };
        let staging = self.sibling(&staging);
        match behind {
            Some(behind) => self.append(&staging, behind, rows.bytes)?,
            None => self.replace(&staging, &rows)?,
        }
        ledger.file = self.extent()?;
        self.write(ledger)
    }

    fn append(&self, staging: &Path, behind: u64, bytes: u64) -> Result<()> {
        let failed = |error| io_error("append to the file", &self.path, error);
        let mut from = File::open(staging).map_err(|error| io_error("open the committed rows", staging, error))?;
        let mut file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&self.path).map_err(failed)?;
        file.seek(SeekFrom::Start(behind)).map_err(failed)?;
        // A process may have died in the middle of this: what is there already must be the beginning of the same.
        let there = file.metadata().map_err(failed)?.len().saturating_sub(behind).min(bytes);
        if !same_bytes(&mut file, &mut from, there).map_err(failed)? {
            return Err(Error::conflict("somebody else wrote to the file while a commit was under way")
                .at(self.path.display().to_string())
                .hint(format!("the rows that belong behind byte {behind} are in {}", staging.display())));
        }
        file.seek(SeekFrom::Start(behind + there)).map_err(failed)?;
        from.seek(SeekFrom::Start(there)).map_err(failed)?;
        io::copy(&mut from.take(bytes - there), &mut file).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        self.sync_folder()
    }

    fn replace(&self, staging: &Path, rows: &Extent) -> Result<()> {
        match fs::metadata(staging) {
            Ok(_) => {
                // A new file has the rights of the one it replaces.
                if let Ok(meta) = fs::metadata(&self.path) {
                    let _ = fs::set_permissions(staging, meta.permissions());
                }
                fs::rename(staging, &self.path).map_err(|error| io_error("replace the file", &self.path, error))?;
                self.sync_folder()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // It has been renamed already, unless somebody deleted it; then `recognise` finds another file, and says so.
                if self.extent()?.as_ref() != Some(rows) {
                    tracing::warn!("{}: the rows that were to replace it are gone", self.path.display());
                }
                Ok(())
            }
            Err(error) => Err(io_error("look at the committed rows", staging, error)),
        }
    }

    /// Whether the file is still the one that the checkpoints speak of.
    fn recognise(&self, ledger: &mut Ledger) -> Result<()> {
        let Some(known) = ledger.file.clone() else { return Ok(()) };
        let now = self.extent()?;
        match (self.mode, now) {
            (WriteMode::Append, Some(now)) => self.check_known(&known, &now)?,
            (_, Some(now)) if now == known => {}
            // Gone, or, where it is to be replaced anyway, another one: what was loaded into it counts no more.
            (_, now) => {
                ledger.file = None;
                let in_progress = |owner: &Owner| owner.staged.is_some();
                ledger
                    .owners
                    .values_mut()
                    .filter(|owner| !in_progress(owner))
                    .for_each(|owner| owner.checkpoint = None);
                let what = if now.is_some() { "was changed by somebody else" } else { "is gone" };
                tracing::warn!("{}: the file {what}; it is loaded from the beginning", self.path.display());
            }
        }
        Ok(())
    }

    /// Rows that others have appended are theirs and stay. Anything else is for a person to decide.
    fn check_known(&self, known: &Extent, now: &Extent) -> Result<()> {
        if now == known || (now.bytes > known.bytes && extent_of(&self.path, known.bytes)? == *known) {
            return Ok(());
        }
        let what = format!(
            "the file was changed by somebody else: its first {} bytes are not those that were written",
            known.bytes
        );
        Err(Error::conflict(what).at(self.path.display().to_string()).hint(format!(
            "move the file away to load everything anew, or delete {} to append to it as it is",
            self.beside("").display()
        )))
    }

    fn extent(&self) -> Result<Option<Extent>> {
        match fs::metadata(&self.path) {
            Ok(meta) if meta.is_file() => extent_of(&self.path, meta.len()).map(Some),
            Ok(_) => Err(Error::config("is not a regular file").at(self.path.display().to_string())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("look at the file", &self.path, error)),
        }
    }

    /// A dead process may still write to its own staged rows, so they are copied and not taken over.
    fn copy_staged(&self, before: &Staged, staging: &Path) -> Result<bool> {
        let old = self.sibling(&before.file);
        let failed = |error| io_error("take over the rows that were staged", staging, error);
        let Ok(from) = File::open(&old) else { return Ok(false) };
        let mut new = File::create(staging).map_err(failed)?;
        let copied = io::copy(&mut from.take(before.bytes), &mut new).map_err(failed)?;
        new.sync_all().map_err(failed)?;
        Ok(copied == before.bytes)
    }

    /// Removes what dead processes have staged. Best effort: it is only room on the disk.
    fn sweep(&self, keep: &Path) {
        let prefix = file_name(&self.beside(&self.staging_prefix()));
        let Ok(entries) = fs::read_dir(self.folder()) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if name.to_string_lossy().starts_with(&prefix) && entry.path().file_name() != keep.file_name() {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn is_torn(&self) -> Result<bool> {
        let failed = |error| io_error("read the file", &self.path, error);
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(failed(error)),
        };
        if file.metadata().map_err(failed)?.len() == 0 {
            return Ok(false);
        }
        let mut last = [0];
        file.seek(SeekFrom::End(-1)).and_then(|_| file.read_exact(&mut last)).map_err(failed)?;
        Ok(last != *b"\n")
    }
}

/// The first `bytes` of a file, as far as it is looked at.
fn extent_of(path: &Path, bytes: u64) -> Result<Extent> {
    let failed = |error| io_error("read the file", path, error);
    let mut file = File::open(path).map_err(failed)?;
    file.seek(SeekFrom::Start(bytes.saturating_sub(TAIL))).map_err(failed)?;
    let mut tail = Vec::new();
    file.take(bytes.min(TAIL)).read_to_end(&mut tail).map_err(failed)?;
    Ok(Extent { bytes, tail: format!("{:032x}", xxh3_128(&tail)) })
}

fn same_bytes(a: &mut File, b: &mut File, mut bytes: u64) -> io::Result<bool> {
    let (mut left, mut right) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    while bytes > 0 {
        let part = usize::try_from(bytes).map_or(left.len(), |bytes| bytes.min(left.len()));
        a.read_exact(&mut left[..part])?;
        b.read_exact(&mut right[..part])?;
        if left[..part] != right[..part] {
            return Ok(false);
        }
        bytes -= part as u64;
    }
    Ok(true)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
