//! Locks that a dead process does not keep: `flock` on a file, let go by the kernel whatever becomes of the holder.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use towpath_core::{Error, Name, Result};

use super::{StateStore, private};

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// Since when.
    pub since: Timestamp,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} since {:.0}", self.pid, self.since)
    }
}

/// The right to run a pipeline. Let go when dropped, and when the process dies.
#[derive(Debug)]
#[must_use]
pub struct PipelineLock(#[expect(dead_code, reason = "held, not read")] Lock);

/// A lock of the store, by key.
#[derive(Debug)]
pub(crate) enum Lock {
    /// The kernel's, on an open file.
    File { _file: File },
    /// An entry in the map of a store in memory.
    Map { key: String, held: Arc<Mutex<BTreeMap<String, Holder>>> },
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Self::Map { key, held } = self {
            held.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        }
    }
}

impl StateStore {
    /// Locks a pipeline for one run. `None`: another run holds it; [`lock_holder`](StateStore::lock_holder) says who.
    pub fn lock_pipeline(&self, pipeline: &Name) -> Result<Option<PipelineLock>> {
        Ok(self.lock(&pipeline_key(pipeline))?.map(PipelineLock))
    }

    /// Who holds a pipeline's lock, if somebody does and has written it down.
    pub fn lock_holder(&self, pipeline: &Name) -> Option<Holder> {
        self.holder(&pipeline_key(pipeline))
    }

    /// Who holds a lock, by key, if somebody does and has written it down.
    pub(super) fn holder(&self, key: &str) -> Option<Holder> {
        let Some(path) = self.lock_path(key) else {
            return self.inner.held.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
        };
        let file = File::open(&path).ok()?;
        if flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
            return None;
        }
        let mut text = String::new();
        (&file).read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Takes a lock by key, without waiting.
    pub(crate) fn lock(&self, key: &str) -> Result<Option<Lock>> {
        self.lock_as(key, Holder { pid: std::process::id(), since: Timestamp::now() })
    }

    /// Takes a lock by key, without waiting, and writes down whose it is.
    pub(super) fn lock_as(&self, key: &str, holder: Holder) -> Result<Option<Lock>> {
        let Some(path) = self.lock_path(key) else {
            let mut held = self.inner.held.lock().unwrap_or_else(PoisonError::into_inner);
            if held.contains_key(key) {
                return Ok(None);
            }
            held.insert(key.to_owned(), holder);
            return Ok(Some(Lock::Map { key: key.to_owned(), held: Arc::clone(&self.inner.held) }));
        };
        let told = |error: io::Error| {
            Error::config(format!("cannot lock {}", path.display()))
                .because(error)
                .hint("make the state directory writable, or name another one with --state-dir")
        };
        let taken = (|| {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let mut file = private(&path)?;
            if !exclusive_now(&file)? {
                return Ok(None);
            }
            // Only for messages: the lock is the kernel's. The file stays; removing it would let two hold "the" lock.
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(&serde_json::to_vec(&holder)?)?;
            Ok(Some(Lock::File { _file: file }))
        })();
        taken.map_err(told)
    }

    fn lock_path(&self, key: &str) -> Option<PathBuf> {
        Some(self.dir()?.join("locks").join(file_name(key)))
    }
}

fn pipeline_key(pipeline: &Name) -> String {
    format!("pipeline {pipeline}")
}

/// A file's name for a key: readable where it can be, and never the same for two keys.
fn file_name(key: &str) -> String {
    let readable: String =
        key.chars().take(60).map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    let hash: String = Sha256::digest(key).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{readable}.{hash}.lock")
}

/// How often a lock is tried for that only lookers-on hold: each does for microseconds.
const LOOKERS_ON: u32 = 10_000;

/// Takes a lock on a file, without waiting. Whoever only looks whether it is held ([`StateStore::holder`]) shares it for a moment; that
/// must not pass for a holder, or `towpath status` would keep runs from starting.
fn exclusive_now(file: &File) -> io::Result<bool> {
    for _ in 0..LOOKERS_ON {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) => {}
            Err(error) => return Err(error.into()),
        }
        match flock(file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => flock(file, FlockOperation::NonBlockingUnlock)?,
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        std::thread::yield_now();
    }
    Ok(false)
}

/// Waits for a lock on a file.
pub(super) fn exclusive(path: &Path) -> io::Result<File> {
    let file = private(path)?;
    loop {
        match flock(&file, FlockOperation::LockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
