//! A plan as a file: one JSON document, written and read change by change, so that a million of them need no memory.
//!
//! `{"towpath_plan": 1, "pipeline": …, "made": …, "full": …, "changes": [{"sink": …, "action": …, …}, …], "sinks": {…}, "costs": […]}`

use std::{
    fmt,
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{
    Deserialize, Serialize,
    de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use towpath_core::{Change, Error, Name, Result};

use super::DiffReport;

/// The version of the file that this program writes.
const VERSION: u32 = 1;

/// A change as it stands in the file.
#[derive(Serialize)]
struct Line<'a> {
    sink: &'a Name,
    #[serde(flatten)]
    change: &'a Change,
}

#[derive(Deserialize)]
struct OwnLine {
    sink: Name,
    #[serde(flatten)]
    change: Change,
}

/// Writes a plan beside its place, and moves it there when it is complete.
pub(super) struct Writer {
    path: PathBuf,
    unfinished: PathBuf,
    out: BufWriter<File>,
    any: bool,
}

fn io_error(path: &Path, error: io::Error) -> Error {
    Error::config(format!("the plan cannot be written to {}", path.display()))
        .because(error)
        .hint("name another file with --out")
}

/// What every plan begins with.
const BEGINS: &[u8] = b"{\"towpath_plan\":";

/// Whether a plan may be put there: only where nothing is, or in the place of another plan. What else is there (the pipeline's own file, by a
/// slip of the hand) would be lost; a link or a device would be replaced by a file.
fn replaceable(path: &Path) -> Result<()> {
    let is = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error(path, error)),
        Ok(found) if found.is_file() => {
            let mut start = Vec::new();
            let opened = File::open(path).map_err(|error| io_error(path, error))?;
            opened.take(BEGINS.len() as u64).read_to_end(&mut start).map_err(|error| io_error(path, error))?;
            if start == BEGINS {
                return Ok(());
            }
            "a file that holds no plan"
        }
        Ok(found) if found.is_symlink() => "a symbolic link",
        Ok(found) if found.is_dir() => "a folder",
        Ok(_) => "a device, a pipe or the like",
    };
    Err(Error::config(format!("the plan would take the place of what is at {}: {is}", path.display()))
        .hint("name a file that does not exist yet, or one that holds an earlier plan; nothing was asked"))
}

impl Writer {
    /// # Errors
    /// Config, if something is there that is no plan, or nothing can be written there.
    pub(super) fn begin(path: &Path, pipeline: &Name, full: bool) -> Result<Self> {
        replaceable(path)?;
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.unfinished", std::process::id()));
        let unfinished = path.with_file_name(name);
        let begun = (|| {
            // Values of the records are in it.
            let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
            let mut out = BufWriter::new(file);
            let (pipeline, made) = (serde_json::to_string(pipeline)?, serde_json::to_string(&Timestamp::now())?);
            write!(
                out,
                "{{\"towpath_plan\":{VERSION},\n\"pipeline\":{pipeline},\n\"made\":{made},\n\"full\":{full},\n\"changes\":["
            )?;
            Ok(out)
        })();
        let out = begun.map_err(|error| io_error(path, error))?;
        Ok(Self { path: path.to_owned(), unfinished, out, any: false })
    }

    pub(super) fn change(&mut self, sink: &Name, change: &Change) -> Result<()> {
        let written = (|| {
            self.out.write_all(if self.any { b",\n" } else { b"\n" })?;
            serde_json::to_writer(&mut self.out, &Line { sink, change })?;
            Ok(())
        })();
        self.any = true;
        written.map_err(|error| io_error(&self.path, error))
    }

    pub(super) fn end(mut self, report: &DiffReport) -> Result<()> {
        let ended = (|| {
            self.out.write_all(b"\n],\n\"sinks\":")?;
            serde_json::to_writer(&mut self.out, &report.sinks)?;
            self.out.write_all(b",\n\"costs\":")?;
            serde_json::to_writer(&mut self.out, &report.costs)?;
            self.out.write_all(b"}\n")?;
            self.out.flush()?;
            self.out.get_ref().sync_all()?;
            std::fs::rename(&self.unfinished, &self.path)
        })();
        ended.map_err(|error| io_error(&self.path, error))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Gone already where it was moved to its place.
        let _ = std::fs::remove_file(&self.unfinished);
    }
}

/// What a plan says of itself.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) pipeline: Name,
    pub(super) full: bool,
}

/// Reads a plan; `each` is given its changes in order.
pub(super) fn read(path: &Path, each: impl FnMut(Name, Change) -> Result<()>) -> Result<Head> {
    let place = |error: Error| error.at(path.display().to_string());
    let file = File::open(path).map_err(|error| place(Error::config("the plan cannot be read").because(error)))?;
    let mut failed = None;
    let mut reader = serde_json::Deserializer::from_reader(BufReader::new(file));
    let plan = Plan { each, failed: &mut failed };
    let head = plan.deserialize(&mut reader).and_then(|head| reader.end().map(|()| head));
    if let Some(error) = failed {
        return Err(place(error));
    }
    head.map_err(|error| {
        let hint = "make one with `towpath plan --diff --out`";
        place(Error::config("this is not a plan of towpath").because(error.to_string()).hint(hint))
    })
}

struct Plan<'a, F> {
    each: F,
    failed: &'a mut Option<Error>,
}

impl<'de, F: FnMut(Name, Change) -> Result<()>> DeserializeSeed<'de> for Plan<'_, F> {
    type Value = Head;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Head, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F: FnMut(Name, Change) -> Result<()>> Visitor<'de> for Plan<'_, F> {
    type Value = Head;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a plan")
    }
    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> std::result::Result<Head, A::Error> {
        let (mut version, mut pipeline, mut full, mut changes) = (None, None, false, false);
        while let Some(key) = map.next_key::<String>()? {
            match &*key {
                "towpath_plan" => version = Some(map.next_value::<u32>()?),
                "pipeline" => pipeline = Some(map.next_value()?),
                "full" => full = map.next_value()?,
                "changes" => {
                    if version != Some(VERSION) {
                        return Err(A::Error::custom(format!("its version is not {VERSION}")));
                    }
                    map.next_value_seed(ChangesOf { each: &mut self.each, failed: &mut *self.failed })?;
                    changes = true;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let pipeline = pipeline.ok_or_else(|| A::Error::missing_field("pipeline"))?;
        if changes { Ok(Head { pipeline, full }) } else { Err(A::Error::missing_field("changes")) }
    }
}

struct ChangesOf<'a, F> {
    each: &'a mut F,
    failed: &'a mut Option<Error>,
}

impl<'de, F: FnMut(Name, Change) -> Result<()>> DeserializeSeed<'de> for ChangesOf<'_, F> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(Name, Change) -> Result<()>> Visitor<'de> for ChangesOf<'_, F> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("changes")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<(), A::Error> {
        while let Some(OwnLine { sink, change }) = seq.next_element()? {
            if let Err(error) = (self.each)(sink, change) {
                *self.failed = Some(error);
                return Err(A::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}
