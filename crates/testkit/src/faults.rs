//! Faults that strike at the nth call that fits: what every simulator over HTTP has.

use std::{
    ops::{Bound, RangeBounds},
    sync::{Arc, Mutex, PoisonError},
};

#[derive(Debug)]
struct Rule<On, Fault> {
    on: On,
    first: u64,
    end: Option<u64>,
    seen: u64,
    fault: Fault,
}

/// Faults to come. Cheap to clone; all clones are the same.
#[derive(Debug)]
pub struct Faults<On, Fault>(Arc<Mutex<Vec<Rule<On, Fault>>>>);

impl<On, Fault> Clone for Faults<On, Fault> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<On, Fault> Default for Faults<On, Fault> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<On, Fault: Clone> Faults<On, Fault> {
    /// Strikes at the fitting calls whose numbers are in the range, counted from 0 and from now: `0..1` the next one, `..` all.
    pub fn add(&self, on: On, which: impl RangeBounds<u64>, fault: Fault) {
        let first = match which.start_bound() {
            Bound::Included(first) => *first,
            Bound::Excluded(before) => *before + 1,
            Bound::Unbounded => 0,
        };
        let end = match which.end_bound() {
            Bound::Included(last) => Some(*last + 1),
            Bound::Excluded(end) => Some(*end),
            Bound::Unbounded => None,
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Rule { on, first, end, seen: 0, fault });
    }
    /// Forgets all of them.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
    /// Counts a call for each rule that it fits; what shall happen to it.
    pub(crate) fn due(&self, fits: impl Fn(&On) -> bool) -> Vec<Fault> {
        let mut rules = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = rules.iter_mut().filter(|rule| fits(&rule.on));
        fitting
            .filter_map(|rule| {
                let number = rule.seen;
                rule.seen += 1;
                (number >= rule.first && rule.end.is_none_or(|end| number < end)).then(|| rule.fault.clone())
            })
            .collect()
    }
}
