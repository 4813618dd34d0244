//! Rows that were refused, kept with reason and position, so that nothing is lost.
//!
//! JSON lines in `<folder>/NNNNNN.jsonl`, the newest file being written to; a file that has grown to its size is followed
//! by the next one, and none is ever deleted here. Three promises:
//!
//! * **Durable before the checkpoint passes them**: [`sync`](DeadLetters::sync) comes before the commit that covers their rows.
//! * **Never doubled**: an entry is tagged with its epoch and its [`Domain`]. What a domain has not committed is read again
//!   after a crash and refused again, so opening drops the entries beyond what their domain committed, and the torn line of a
//!   writer that died. A length of the file would not do: two sinks that crashed between their commits stand at different
//!   epochs.
//! * **Free without rejects**: no file, no fsync, nothing.
//!
//! How a tail is dropped without doubling or losing what stays: the lines to keep behind the first one to drop are written to
//! `NNNNNN-<offset>.tail`, renamed into place when complete; then the file is cut at the offset, the tail appended, the tail
//! file removed. A crash in between is made good by doing it again. [`seal`](DeadLetters::seal) marks the entries of
//! finished runs, so that opening reads only what is behind the mark.

mod entry;
mod files;
mod reading;
mod standing;

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use towpath_core::{Error, Result, Retry, Run};

use self::files::Mark;
pub use self::{
    entry::{Domain, Entry, Row, Where},
    reading::{FileSummary, Group, Line, Listing, list, show, show_placed},
    standing::Standing,
};
pub(crate) use self::{
    entry::{plain_schema, relabelled},
    reading::{each_sealed, read_at},
};

/// A file that has grown to this many bytes is followed by the next.
const ROTATE_AT: u64 = 64 << 20;

/// The dead letters of a pipeline, open for a run. One writer: the pipeline's lock sees to it.
#[derive(Debug)]
pub struct DeadLetters {
    dir: PathBuf,
    options: Options,
    /// The file written to; `None` until the first entry.
    out: Option<BufWriter<File>>,
    /// Its number, and the bytes in it. Without `out`: of the newest file there is.
    at: Mark,
    /// Something was written since the last sync.
    dirty: bool,
    /// A name was made since the last sync of the folder.
    new_name: bool,
    /// A write failed: what is in the file is not known, so nothing more is promised.
    broken: bool,
    /// Something was written since the last seal.
    unsealed: bool,
    run: Box<str>,
    count: u64,
}

/// Switches for tests.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes after which the next file begins.
    pub rotate_at: u64,
    /// Off: nothing is synced. For property tests of thousands of runs.
    pub fsync: bool,
    /// Off: entries are not dropped by their tag, and the property test must notice.
    pub tagged: bool,
    /// Nothing is read and nothing written: entries are only counted.
    pub discard: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { rotate_at: ROTATE_AT, fsync: true, tagged: true, discard: false }
    }
}

impl DeadLetters {
    /// Opens the dead letters in `dir` for a run (the folder is made with the first entry). Entries of a domain with an epoch beyond
    /// what `committed` says of it are dropped: their rows will be read again.
    pub fn open(dir: &Path, run: &Run, committed: impl Fn(&Domain) -> u64) -> Result<Self> {
        Self::open_with(dir, run, committed, Options::default())
    }

    #[doc(hidden)]
    pub fn open_with(dir: &Path, run: &Run, committed: impl Fn(&Domain) -> u64, options: Options) -> Result<Self> {
        let keep = |tag: &entry::Tag<'_>| !options.tagged || tag.epoch <= committed(&tag.domain);
        let found = match options.discard {
            true => files::Found::default(),
            false => files::recover(dir, &run.id, keep, options.fsync).map_err(|error| told(dir, error))?,
        };
        Ok(Self {
            dir: dir.to_owned(),
            options,
            out: None,
            at: found.end,
            dirty: false,
            new_name: false,
            broken: false,
            unsealed: found.unsealed,
            run: (*run.id).into(),
            count: found.count,
        })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How many entries this run has made, those from before it was taken up included.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Adds an entry. Durable only after [`sync`](DeadLetters::sync).
    pub fn append(&mut self, entry: &Entry) -> Result<()> {
        if self.options.discard {
            self.count += 1;
            return Ok(());
        }
        self.guarded(|letters| {
            if letters.at.offset >= letters.options.rotate_at {
                letters.rotate()?;
            }
            if letters.out.is_none() {
                letters.out = Some(letters.begin()?);
            }
            let Some(out) = &mut letters.out else { return Ok(()) };
            let mut counted = Counted { out, bytes: 0 };
            serde_json::to_writer(&mut counted, entry)?;
            counted.write_all(b"\n")?;
            letters.at.offset += counted.bytes;
            (letters.dirty, letters.unsealed) = (true, true);
            Ok(())
        })?;
        self.count += u64::from(*entry.run == *self.run);
        Ok(())
    }

    /// Makes every entry durable. Call it before the commit that covers their rows; returns at once if there is nothing to do.
    pub fn sync(&mut self) -> Result<()> {
        if !self.dirty && !self.broken {
            return Ok(());
        }
        self.guarded(|letters| {
            if let Some(out) = &mut letters.out {
                out.flush()?;
                if letters.options.fsync {
                    out.get_ref().sync_data()?;
                }
            }
            if letters.new_name && letters.options.fsync {
                files::sync_folder(&letters.dir)?;
            }
            (letters.dirty, letters.new_name) = (false, false);
            Ok(())
        })
    }

    /// Says that every entry so far is committed by its domain for good (the run is completed, or all sinks stand at the
    /// same epoch): none of them is looked at again when opening.
    pub fn seal(&mut self) -> Result<()> {
        if !self.unsealed && !self.broken {
            return Ok(());
        }
        self.sync()?;
        self.guarded(|letters| {
            let sealed = files::Seal { mark: letters.at, run: letters.run.to_string(), count: letters.count };
            files::write_seal(&letters.dir, &sealed, letters.options.fsync)?;
            letters.unsealed = false;
            Ok(())
        })
    }

    /// Does something to the files, once nothing has failed before: after a failed write or sync nobody knows what is on disk,
    /// and a second try that succeeds would prove nothing.
    fn guarded(&mut self, work: impl FnOnce(&mut Self) -> io::Result<()>) -> Result<()> {
        if self.broken {
            return Err(Error::unavailable("the dead letters could not be written before")
                .retry(Retry::Never)
                .at(format!("dead letters {}", self.dir.display())));
        }
        work(self).map_err(|error| {
            self.broken = true;
            told(&self.dir, error)
        })
    }

    fn rotate(&mut self) -> io::Result<()> {
        if let Some(mut out) = self.out.take() {
            out.flush()?;
            if self.options.fsync {
                out.get_ref().sync_data()?;
            }
        }
        self.at = Mark { file: self.at.file + 1, offset: 0 };
        Ok(())
    }

    fn begin(&mut self) -> io::Result<BufWriter<File>> {
        if self.at.file == 0 {
            self.at = Mark { file: 1, offset: 0 };
        }
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let path = files::path(&self.dir, self.at.file);
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        self.new_name = true;
        Ok(BufWriter::with_capacity(64 << 10, file))
    }
}

impl Drop for DeadLetters {
    /// What was not synced is let go of: to write it now, when another run may have opened the folder, could only double it.
    fn drop(&mut self) {
        if let Some(out) = self.out.take() {
            let (_file, _unwritten) = out.into_parts();
        }
    }
}

/// Counts what is written.
struct Counted<'a> {
    out: &'a mut BufWriter<File>,
    bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn told(dir: &Path, error: io::Error) -> Error {
    let hint = match error.kind() {
        io::ErrorKind::StorageFull => "free some space there; the run can be taken up again then".to_owned(),
        _ => "make the folder writable, or name another one with `errors: { dead_letters: … }`".to_owned(),
    };
    Error::unavailable("the dead letters cannot be read or written")
        .retry(Retry::Never)
        .because(error)
        .at(format!("dead letters {}", dir.display()))
        .hint(hint)
}
