//! Looks after the stages: one that has not moved for its heartbeat is named, with what it waits for.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use towpath_core::Name;

use crate::{
    graph::Graph,
    progress::Progress,
    pulse::{Pulse, Waiting},
};

/// What is known of stages that stand still.
pub(crate) struct Watchdog {
    heartbeats: BTreeMap<Name, Duration>,
    named: BTreeMap<Name, String>,
}

impl Watchdog {
    pub(crate) fn new(graph: &Graph) -> Self {
        let default = graph.run.heartbeat.0;
        let sources = graph.sources.iter().map(|node| (&node.name, &node.common));
        let transforms = graph.transforms.iter().map(|node| (&node.name, &node.common));
        let sinks = graph.sinks.iter().map(|node| (&node.name, &node.common));
        let heartbeats = sources
            .chain(transforms)
            .chain(sinks)
            .map(|(name, common)| (name.clone(), common.heartbeat.map_or(default, |period| period.0)))
            .collect();
        Self { heartbeats, named: BTreeMap::new() }
    }

    /// How often to look.
    pub(crate) fn interval(&self) -> Duration {
        let shortest = self.heartbeats.values().min().copied().unwrap_or(Duration::from_secs(60));
        (shortest / 4).clamp(Duration::from_millis(10), Duration::from_secs(5))
    }

    /// Names in the log, once, every stage that has newly come to stand still. A stage that merely waits for a neighbour is not
    /// named while one that does not is: the cause is what helps.
    pub(crate) fn look(&mut self, progress: &Progress) {
        let components = progress.components();
        let still: Vec<_> = components
            .iter()
            .map(|component| &component.pulse)
            .filter(|pulse| self.heartbeats.get(&pulse.component).is_some_and(|limit| pulse.still_for() >= *limit))
            .filter(|pulse| !matches!(pulse.waiting(), Waiting::Ended | Waiting::Guard))
            .collect();
        let is_cause = |pulse: &Pulse| matches!(pulse.waiting(), Waiting::Work | Waiting::Call);
        // Who waits for one that waits its turn has nothing wrong with it either.
        let explains = |pulse: &Pulse| is_cause(pulse) || pulse.waiting() == Waiting::Guard;
        let any_cause = components.iter().any(|component| explains(&component.pulse));
        let mut now = BTreeSet::new();
        for pulse in still.into_iter().filter(|pulse| is_cause(pulse) || !any_cause) {
            now.insert(pulse.component.clone());
            let seconds = pulse.still_for().as_secs();
            let words = format!(
                "{} {} has not moved for {seconds} s; it waits for {}",
                pulse.role.name(),
                pulse.component,
                pulse.waits_in_words()
            );
            if self.named.insert(pulse.component.clone(), words.clone()).is_none() {
                tracing::warn!(component = %pulse.component, "{words}");
            }
        }
        self.named.retain(|name, _| now.contains(name));
    }

    /// The stages that stand still, in words.
    pub(crate) fn named(&self) -> Vec<String> {
        self.named.values().cloned().collect()
    }
}
