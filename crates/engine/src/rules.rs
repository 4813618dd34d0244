//! The rules of recovery that the property tests switch off, one by one, to see that they are needed. In a program all of them are
//! on, and there is no way to change that.

use crate::resume::Start;

/// Which rules are on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Sinks that lag behind are given the very rows that the others have, up to the same boundary.
    pub(crate) shared_boundary: bool,
    /// Dead letters count only once their domain has committed their epoch.
    pub(crate) tagged_letters: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self { shared_boundary: true, tagged_letters: true }
    }
}

impl Rules {
    pub(crate) fn start(self, start: Start) -> Start {
        match start {
            Start::Behind { from, until, .. } if !self.shared_boundary => {
                Start::Level { from, epoch: until.epoch }
            }
            start => start,
        }
    }

    pub(crate) fn committed(self, epoch: u64) -> u64 {
        if self.tagged_letters { epoch } else { u64::MAX }
    }
}
