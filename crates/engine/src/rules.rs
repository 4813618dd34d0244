//! The rules of recovery that the property tests switch off, one by one, to see that they are needed. In a program all of them are
//! on, and there is no way to change that.

use crate::{dead_letters::Options, resume::Start};

/// Which rules are on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Sinks that lag behind are given the very rows that the others have, up to the same boundary.
    pub(crate) shared_boundary: bool,
    /// How dead letters are kept.
    pub(crate) letters: Options,
}

impl Default for Rules {
    fn default() -> Self {
        Self { shared_boundary: true, letters: Options::default() }
    }
}

impl Rules {
    pub(crate) fn start(self, start: Start) -> Start {
        match start {
            Start::Behind { from, until, .. } if !self.shared_boundary => Start::Level { from, epoch: until.epoch },
            start => start,
        }
    }
}
