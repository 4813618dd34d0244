//! What a query lays on disk: one folder of its own, within a limit, gone with the query.
//!
//! Our own files have no name from the moment they are made, so nothing of them outlives the process. DataFusion's (sorts, aggregates)
//! have; a process that is killed leaves their folder behind. So a folder holds a lock for as long as its process lives, and
//! whoever comes next removes folders that nobody locks.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use datafusion::execution::disk_manager::DiskManager;
use tempfile::TempDir;
use towpath_core::{Error, Result, Size};

/// What the names of our folders begin with.
const PREFIX: &str = "towpath-sql-";
const LOCK: &str = "lock";
/// A folder without a lock is one that is just being made, unless it is as old as this.
const YOUNG: Duration = Duration::from_secs(3600);

/// A query's folder. Removed with the value.
#[derive(Debug)]
pub(crate) struct SpillFolder {
    // Fields are dropped in their order: nobody else may sweep the folder while it is being removed.
    folder: TempDir,
    _lock: File,
}

impl SpillFolder {
    /// Removes what dead processes left in `parent`, and makes a folder there.
    pub(crate) fn new(parent: &Path) -> Result<Self> {
        let failed = |error| {
            let error = Error::unavailable(format!("{}: cannot spill there", parent.display())).because(error);
            error.retry(towpath_core::Retry::Never).hint("set `spill` to a folder that can be written to")
        };
        fs::create_dir_all(parent).map_err(failed)?;
        sweep(parent);
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent).map_err(failed)?;
        // Locked before it has the name by which it is looked for.
        let made = folder.path().join("new");
        let lock = File::create(&made).map_err(failed)?;
        lock.lock().map_err(failed)?;
        fs::rename(&made, folder.path().join(LOCK)).map_err(failed)?;
        Ok(Self { folder, _lock: lock })
    }
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Removes folders whose process is gone. What cannot be looked at belongs to somebody else and is left alone.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        if ours && is_left_behind(&path) {
            match fs::remove_dir_all(&path) {
                Ok(()) => tracing::info!("removed {}, which a killed process had left behind", path.display()),
                Err(error) => {
                    tracing::warn!("{}: cannot remove what a killed process left behind: {error}", path.display())
                }
            }
        }
    }
}

fn is_left_behind(folder: &PathBuf) -> bool {
    if !fs::symlink_metadata(folder).is_ok_and(|data| data.is_dir()) {
        return false;
    }
    match File::open(folder.join(LOCK)) {
        Ok(lock) => !matches!(lock.try_lock(), Err(TryLockError::WouldBlock | TryLockError::Error(_))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let changed = fs::metadata(folder).and_then(|data| data.modified());
            changed.is_ok_and(|changed| SystemTime::now().duration_since(changed).is_ok_and(|age| age > YOUNG))
        }
        Err(_) => false,
    }
}

/// A query's share of the disk. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Disk(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: SpillFolder,
    /// Bytes in our own files.
    used: AtomicU64,
    most: Size,
    manager: Arc<DiskManager>,
}

impl Disk {
    pub(crate) fn new(folder: SpillFolder, most: Size, manager: Arc<DiskManager>) -> Self {
        Self(Arc::new(Inner { folder, used: AtomicU64::new(0), most, manager }))
    }
    /// A file without a name.
    pub(crate) fn file(&self) -> Result<File> {
        let folder = self.0.folder.path();
        tempfile::tempfile_in(folder).map_err(|error| failed(folder, error))
    }
    /// Asks for room in a file of ours.
    pub(crate) fn take(&self, bytes: u64) -> Result<()> {
        let ours = self.0.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if ours + self.0.manager.used_disk_space() > self.0.most.0 {
            self.give(bytes);
            return Err(Error::data(format!("the query needs more than {} on disk", self.0.most))
                .hint("raise `max_spill`, or let the query read fewer columns and rows"));
        }
        Ok(())
    }
    pub(crate) fn give(&self, bytes: u64) {
        self.0.used.fetch_sub(bytes, Ordering::Relaxed);
    }
    /// An error of a file of ours.
    pub(crate) fn failed(&self, error: std::io::Error) -> Error {
        failed(self.0.folder.path(), error)
    }
}

fn failed(folder: &Path, error: std::io::Error) -> Error {
    let full = error.kind() == std::io::ErrorKind::StorageFull;
    let error = Error::unavailable(format!("{}: cannot spill there", folder.display())).because(error);
    if full { error.hint("make room on that disk, or set `spill` to a folder on another") } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_dead_left_is_swept() {
        let parent = tempfile::tempdir().unwrap();
        let alive = SpillFolder::new(parent.path()).unwrap();
        let dead = parent.path().join("towpath-sql-dead");
        let young = parent.path().join("towpath-sql-young");
        let foreign = parent.path().join("other");
        for folder in [&dead, &young, &foreign] {
            fs::create_dir(folder).unwrap();
        }
        fs::write(dead.join(LOCK), "").unwrap();
        fs::write(dead.join("rows"), "x").unwrap();
        fs::write(foreign.join(LOCK), "").unwrap();
        let second = SpillFolder::new(parent.path()).unwrap();
        assert!(!dead.exists(), "its process is gone");
        assert!(young.exists() && foreign.exists() && alive.path().exists() && second.path().exists());
        let (a, b) = (alive.path().to_owned(), second.path().to_owned());
        drop((alive, second));
        assert!(!a.exists() && !b.exists(), "a folder goes with its query");
    }
}
