//! Live counters by component: for progress bars, `--json` and the summary. Plain atomics; nothing waits for them.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use towpath_core::{Checkpoint, Context, Name, pipeline::Role};

use crate::pulse::Pulse;

/// The live counters of a run. Make one, give it to the run, and look at it whenever you like.
#[derive(Debug, Default)]
pub struct Progress {
    components: Mutex<Vec<Arc<ComponentProgress>>>,
}

/// One component's counters.
#[derive(Debug)]
pub struct ComponentProgress {
    /// Its name.
    pub name: Name,
    /// What it is in the pipeline.
    pub role: Role,
    /// Its signs of life, and what it waits for.
    pub pulse: Arc<Pulse>,
    /// Rows that came in.
    pub rows_in: Counter,
    /// Rows that went out.
    pub rows_out: Counter,
    /// Batches that went out (of a sink: came in).
    pub batches: Counter,
    /// Bytes read, before decompression.
    pub bytes: Counter,
    /// Rows written.
    pub written: Counter,
    /// Rows left out because the target had them.
    pub known: Counter,
    /// Records closed or deleted because no row stands for them.
    pub removed: Counter,
    /// Rows refused.
    pub rejected: Counter,
    /// Calls to the outside.
    pub calls: Calls,
    gauge: Mutex<Option<Context>>,
    committing: Mutex<Option<Committing>>,
}

/// What a commit that is under way would make durable.
#[derive(Debug)]
pub(crate) struct Committing {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) written: u64,
    pub(crate) known: u64,
}

/// What a component's calls to the outside came to: the metrics of the door.
#[derive(Debug, Default)]
pub struct Calls {
    /// Tries that went out.
    pub tries: Counter,
    /// Tries that failed.
    pub failed: Counter,
    /// Tries made because the one before had failed.
    pub again: Counter,
    /// Milliseconds until the answers began, of all tries together.
    pub answering_ms: Counter,
    /// Milliseconds spent waiting for a guard, or for the next try.
    pub waited_ms: Counter,
    under_way: AtomicU64,
}

/// A call that is under way, from the moment it is sent until its answer has ended.
pub(crate) struct UnderWay(Arc<ComponentProgress>);

impl UnderWay {
    pub(crate) fn new(component: &Arc<ComponentProgress>) -> Self {
        component.calls.under_way.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(component))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.calls.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Calls {
    /// Calls that were sent and whose answers have not ended.
    pub fn under_way(&self) -> u64 {
        self.under_way.load(Ordering::Relaxed)
    }
}

/// A number that only one task changes and anyone may read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }
    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
    /// Puts it back to a known state: what was counted since was undone.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }
}

impl Progress {
    /// All components, sources first. Empty until the run has begun.
    pub fn components(&self) -> Vec<Arc<ComponentProgress>> {
        self.components.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// Finds or adds a component.
    pub(crate) fn component(&self, name: &Name, role: Role) -> Arc<ComponentProgress> {
        let mut components = self.components.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = components.iter().find(|component| component.name == *name && component.role == role) {
            return Arc::clone(found);
        }
        let new = ComponentProgress::new(name.clone(), role);
        components.push(Arc::clone(&new));
        new
    }
}

impl ComponentProgress {
    /// A component that has done nothing yet.
    pub fn new(name: Name, role: Role) -> Arc<Self> {
        Arc::new(Self {
            pulse: Pulse::new(name.clone(), role),
            name,
            role,
            rows_in: Counter::default(),
            rows_out: Counter::default(),
            batches: Counter::default(),
            bytes: Counter::default(),
            written: Counter::default(),
            known: Counter::default(),
            removed: Counter::default(),
            rejected: Counter::default(),
            calls: Calls::default(),
            gauge: Mutex::default(),
            committing: Mutex::default(),
        })
    }
    /// A commit begins (`None`: it has ended, and is counted).
    pub(crate) fn committing(&self, what: Option<Committing>) {
        *self.committing.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }
    /// The target holds this. If that is from a commit whose answer was lost, its rows are counted now.
    pub(crate) fn found(&self, held: &Checkpoint) {
        let lost = self.committing.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(lost) =
            lost.filter(|lost| lost.checkpoint.run.id == held.run.id && lost.checkpoint.epoch == held.epoch)
        {
            self.written.add(lost.written);
            self.known.add(lost.known);
        }
    }
    pub(crate) fn watch(&self, ctx: &Context) {
        *self.gauge.lock().unwrap_or_else(PoisonError::into_inner) = Some(ctx.clone());
    }
    /// Bytes it expects to read in all, 0 where that is not known.
    pub fn expected_bytes(&self) -> u64 {
        let gauge = self.gauge.lock().unwrap_or_else(PoisonError::into_inner);
        gauge.as_ref().map_or(0, |ctx| ctx.gauge().expected_bytes.load(Ordering::Relaxed))
    }
}
