//! Signs of life: what each stage is doing, so that one that has stopped moving can be named.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use towpath_core::{Name, pipeline::Role};

/// What a stage waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Waiting {
    /// Its own work: parsing, converting, writing.
    Work = 0,
    /// Rows from the stages before it.
    Input = 1,
    /// Room in the stages behind it.
    Output = 2,
    /// An answer from outside.
    Call = 3,
    /// The guard of a server: waiting is what it is meant to do.
    Guard = 4,
    /// Nothing: it has ended.
    Ended = 5,
}

impl Waiting {
    const ALL: [Self; 6] = [Self::Work, Self::Input, Self::Output, Self::Call, Self::Guard, Self::Ended];
}

/// One stage's signs of life. Plain atomics on the hot path; the lock is taken for calls only.
#[derive(Debug)]
pub struct Pulse {
    /// The component's name.
    pub component: Name,
    /// What it is in the pipeline.
    pub role: Role,
    born: Instant,
    moved_at_ms: AtomicU64,
    waiting: AtomicU8,
    call: Mutex<Option<String>>,
}

impl Pulse {
    /// A stage that has just begun.
    pub fn new(component: Name, role: Role) -> Arc<Self> {
        let (born, moved_at_ms, waiting) = (Instant::now(), AtomicU64::new(0), AtomicU8::new(0));
        Arc::new(Self { component, role, born, moved_at_ms, waiting, call: Mutex::new(None) })
    }
    /// It moved: a batch came in or went out, a call was answered, a chunk arrived.
    pub fn beat(&self) {
        self.moved_at_ms.store(self.born.elapsed().as_millis() as u64, Ordering::Relaxed);
    }
    /// What it waits for from now on.
    pub fn waits_for(&self, waiting: Waiting) {
        self.waiting.store(waiting as u8, Ordering::Relaxed);
    }
    /// Names the call it waits for (`None`: no call any more).
    pub fn in_call(&self, what: Option<String>) {
        self.waits_for(if what.is_some() { Waiting::Call } else { Waiting::Work });
        *self.call.lock().unwrap_or_else(PoisonError::into_inner) = what;
        self.beat();
    }
    /// Says that it waits for a server's guard: `next request in 4m10s, guard of https://reports.example`.
    pub fn in_guard(&self, what: String) {
        self.waits_for(Waiting::Guard);
        *self.call.lock().unwrap_or_else(PoisonError::into_inner) = Some(what);
        self.beat();
    }
    /// Until what comes of it is dropped, it may wait for calls and guards; then it works again, however the wait ended.
    pub fn calling(&self) -> impl Drop + '_ {
        struct Calling<'a>(&'a Pulse);
        impl Drop for Calling<'_> {
            fn drop(&mut self) {
                self.0.in_call(None);
            }
        }
        Calling(self)
    }
    /// How long it has not moved.
    pub fn still_for(&self) -> Duration {
        self.born.elapsed().saturating_sub(Duration::from_millis(self.moved_at_ms.load(Ordering::Relaxed)))
    }
    /// What it waits for.
    pub fn waiting(&self) -> Waiting {
        Waiting::ALL.get(usize::from(self.waiting.load(Ordering::Relaxed))).copied().unwrap_or(Waiting::Work)
    }
    /// What it waits for, in words: `input`, `output`, `the call 'render /Sales'`.
    pub fn waits_in_words(&self) -> String {
        let call = || self.call.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default();
        match self.waiting() {
            Waiting::Work => "its own work".to_owned(),
            Waiting::Input => "input".to_owned(),
            Waiting::Output => "output".to_owned(),
            Waiting::Call => format!("the call '{}'", call()),
            Waiting::Guard => call(),
            Waiting::Ended => "nothing".to_owned(),
        }
    }
}
