//! A source and a sink in memory: the reference implementation of the contract, and the peers of the engine's tests.
//!
//! Both are short on purpose: whoever writes a connector can read here what each promise comes down to. Both pass the
//! [conformance suite](crate::conformance). The world outside (what a file server or a database would be) is
//! [`MemoryOrigin`] and [`MemoryTarget`]; they outlive sources and sinks as a server outlives a process, hold what was
//! made durable, and can be told to fail at a given call: see [`Faults`].
//!
//! ```
//! use towpath_core::{Context, Sink as _, WriteMode};
//! use towpath_testkit::memory::{Fault, Key, MemoryTarget, Point};
//!
//! let target = MemoryTarget::new();
//! target.faults().add(Point::Commit, 1, Fault::LoseReply); // the second commit lands, its answer is lost
//! let sink = target.sink(WriteMode::InsertNew, Key::columns(["id"]));
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow_array::RecordBatch;
use towpath_core::{Error, ErrorKind, Result};

mod sink;
mod source;

pub use sink::{Key, MemorySink, MemoryTarget};
pub use source::{MemoryOrigin, MemorySource};

/// Where a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// `plan` of either.
    Plan,
    /// `open` of either.
    Open,
    /// A source's `next`.
    Next,
    /// A source's `settled`.
    Settled,
    /// A sink's `schema`.
    Schema,
    /// A sink's `write`.
    Write,
    /// A sink's `flush`.
    Flush,
    /// A sink's `commit`.
    Commit,
    /// `close` of either.
    Close,
}

/// What happens there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call fails with an error of this kind, and nothing of it has happened.
    Fail(ErrorKind),
    /// The call never returns.
    Hang,
    /// The call has its effect, and fails all the same: the answer was lost on the way.
    LoseReply,
    /// A commit that is still under way: the call fails, and lands when [`MemoryTarget::land`] is called, as that of a dead
    /// process would. At other points the same as `Fail(Timeout)`.
    Late,
}

/// Faults to come, shared with the origin or target they belong to.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Vec<(Point, u64, Fault)>>>);

impl Faults {
    /// Strikes once, at the call of `point` that comes after `skip` others, counted from now.
    pub fn add(&self, point: Point, skip: u64, fault: Fault) {
        lock(&self.0).push((point, skip, fault));
    }
    /// Forgets what has not struck yet.
    pub fn clear(&self) {
        lock(&self.0).clear();
    }
    /// Counts one call of `point`; the fault that is due, if any.
    fn due(&self, point: Point) -> Option<Fault> {
        let mut faults = lock(&self.0);
        let mut due = None;
        faults.retain_mut(|(at, skip, fault)| {
            if *at != point {
                return true;
            }
            if *skip == 0 && due.is_none() {
                due = Some(*fault);
                return false;
            }
            *skip = skip.saturating_sub(1);
            true
        });
        due
    }
    /// Lets the fault happen that is due, for points that have no reply to lose.
    async fn strike(&self, point: Point) -> Result<()> {
        match self.due(point) {
            None => Ok(()),
            Some(fault) => Err(refuse(point, fault).await),
        }
    }
}

/// The error of a fault; never returns for [`Fault::Hang`].
async fn refuse(point: Point, fault: Fault) -> Error {
    let kind = match fault {
        Fault::Hang => std::future::pending().await,
        Fault::Fail(kind) => kind,
        Fault::LoseReply => ErrorKind::Unavailable,
        Fault::Late => ErrorKind::Timeout,
    };
    let error = Error::new(kind, format!("a fault was set at {point:?}"));
    if matches!(fault, Fault::LoseReply | Fault::Late) { error.outcome_unknown() } else { error }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The rows of batches, each as a batch of one.
fn single_rows(rows: &RecordBatch) -> impl Iterator<Item = RecordBatch> + '_ {
    (0..rows.num_rows()).map(|row| rows.slice(row, 1))
}
