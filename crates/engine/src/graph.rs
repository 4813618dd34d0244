//! A pipeline as components that can be made: from a checked config, or from Rust.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use towpath_core::{
    ComponentSpec, Connector, Error, Name, PipelineSpec, Result, Sink, Source, Transform,
    connector::RoleOf,
    pipeline::{CommonSpec, ErrorsSpec, Guard, Role, RunSpec, Schedule},
};

/// Makes a component; called once for a plan and once for each attempt of a run.
pub(crate) type Make<T> = Arc<dyn Fn() -> Result<Box<T>> + Send + Sync>;

/// One component.
pub(crate) struct Node<T: ?Sized> {
    pub(crate) name: Name,
    /// The connector, for messages.
    pub(crate) kind: String,
    pub(crate) inputs: Vec<Name>,
    pub(crate) common: CommonSpec,
    /// The config's limits, and the connector's for the rest.
    pub(crate) guard: Guard,
    pub(crate) make: Make<T>,
    /// A sink that can tell its differences.
    pub(crate) differences: bool,
}

impl<T: ?Sized> Clone for Node<T> {
    fn clone(&self) -> Self {
        let Self { name, kind, inputs, common, guard, make, differences } = self;
        let (name, kind, inputs, common) = (name.clone(), kind.clone(), inputs.clone(), common.clone());
        Self { name, kind, inputs, common, guard: *guard, make: Arc::clone(make), differences: *differences }
    }
}

/// What a pipeline knows that sends dead letters again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replay {
    /// The epoch of the sink in the pipeline itself.
    pub(crate) as_of: u64,
}

/// A pipeline whose parts are known and joined.
#[derive(Clone)]
pub struct Graph {
    pub(crate) name: Name,
    pub(crate) sources: Vec<Node<dyn Source>>,
    /// Each behind its inputs.
    pub(crate) transforms: Vec<Node<dyn Transform>>,
    pub(crate) sinks: Vec<Node<dyn Sink>>,
    pub(crate) errors: ErrorsSpec,
    pub(crate) run: RunSpec,
    pub(crate) schedule: Option<Schedule>,
    pub(crate) file: Option<std::path::PathBuf>,
    /// What the components are told, in a short text; `None`: not known, as of closures.
    pub(crate) digest: Option<String>,
    /// It sends dead letters of another pipeline again.
    pub(crate) replay: Option<Replay>,
    /// Which sinks each component leads to.
    leads_to: BTreeMap<Name, BTreeSet<Name>>,
}

impl Graph {
    /// From a config. The connectors must be linked into this program.
    pub fn from_spec(spec: &PipelineSpec) -> Result<Self> {
        let name = spec.name.clone().ok_or_else(|| Error::config("the pipeline has no name").hint("set `name:`"))?;
        let mut graph = Self::empty(name);
        graph.errors = spec.errors.clone();
        graph.run = spec.run.clone();
        graph.schedule = spec.schedule.clone();
        graph.file = spec.file.clone();
        graph.digest = spec.digest.clone();
        for component in &spec.sources {
            graph.sources.push(node(component, Role::Source, |connector| connector.source.as_ref())?);
        }
        for component in &spec.transforms {
            graph.transforms.push(node(component, Role::Transform, |connector| connector.transform.as_ref())?);
        }
        for component in &spec.sinks {
            graph.sinks.push(node(component, Role::Sink, |connector| connector.sink.as_ref())?);
        }
        graph.join()
    }

    pub(crate) fn empty(name: Name) -> Self {
        Self {
            name,
            sources: vec![],
            transforms: vec![],
            sinks: vec![],
            errors: ErrorsSpec::default(),
            run: RunSpec::default(),
            schedule: None,
            file: None,
            digest: None,
            replay: None,
            leads_to: BTreeMap::new(),
        }
    }

    /// Checks the shape and puts the transforms in order.
    pub(crate) fn join(mut self) -> Result<Self> {
        let at = |error: Error| error.at(format!("pipeline {}", self.name));
        if self.sources.is_empty() || self.sinks.is_empty() {
            return Err(at(Error::config("a pipeline needs at least one source and one sink")));
        }
        let mut known = BTreeSet::new();
        let names = self.sources.iter().map(|node| &node.name).chain(self.transforms.iter().map(|node| &node.name));
        for name in names.chain(self.sinks.iter().map(|node| &node.name)) {
            if name.contains(['+', '/']) {
                return Err(at(Error::config(format!("'{name}' is not a component's name: leave out '+' and '/'"))));
            }
            if !known.insert(name.clone()) {
                return Err(at(Error::config(format!("two components are called '{name}'"))));
            }
        }
        let mut ready: BTreeSet<Name> = self.sources.iter().map(|node| node.name.clone()).collect();
        let (mut waiting, mut ordered) = (std::mem::take(&mut self.transforms), Vec::new());
        while !waiting.is_empty() {
            let (next, rest): (Vec<_>, Vec<_>) = waiting
                .into_iter()
                .partition(|node| !node.inputs.is_empty() && node.inputs.iter().all(|input| ready.contains(input)));
            if next.is_empty() {
                let names = rest.iter().map(|node| format!("'{}'", node.name)).collect::<Vec<_>>().join(", ");
                let error = Error::config(format!("inputs of {names} are missing, unknown or go round in a circle"));
                return Err(error.at(format!("pipeline {}", self.name)));
            }
            ready.extend(next.iter().map(|node| node.name.clone()));
            ordered.extend(next);
            waiting = rest;
        }
        self.transforms = ordered;
        let at = |error: Error| error.at(format!("pipeline {}", self.name));
        for sink in &self.sinks {
            if sink.inputs.is_empty() {
                return Err(at(Error::config(format!("sink {}: it has no inputs", sink.name))));
            }
            if let Some(unknown) = sink.inputs.iter().find(|input| !ready.contains(*input)) {
                return Err(at(Error::config(format!(
                    "sink {}: its input '{unknown}' is not a source or transform",
                    sink.name
                ))));
            }
        }
        self.leads_to = self.reach();
        for (name, sinks) in &self.leads_to {
            if sinks.is_empty() {
                return Err(at(Error::config(format!("'{name}' leads to no sink"))));
            }
        }
        self.commit_order()?;
        Ok(self)
    }

    /// The same with other sinks, where `other` says so.
    pub(crate) fn with_sinks(&self, other: impl Fn(&Node<dyn Sink>) -> Option<Make<dyn Sink>>) -> Self {
        let mut graph = self.clone();
        for node in &mut graph.sinks {
            if let Some(make) = other(node) {
                node.make = make;
            }
        }
        graph
    }

    fn reach(&self) -> BTreeMap<Name, BTreeSet<Name>> {
        let mut reach: BTreeMap<Name, BTreeSet<Name>> = BTreeMap::new();
        for node in &self.sources {
            reach.entry(node.name.clone()).or_default();
        }
        for node in &self.transforms {
            reach.entry(node.name.clone()).or_default();
        }
        for sink in &self.sinks {
            for input in &sink.inputs {
                reach.entry(input.clone()).or_default().insert(sink.name.clone());
            }
        }
        for node in self.transforms.iter().rev() {
            let mine = reach.get(&node.name).cloned().unwrap_or_default();
            for input in &node.inputs {
                reach.entry(input.clone()).or_default().extend(mine.iter().cloned());
            }
        }
        reach
    }

    /// The sinks that rows of a source or transform can reach.
    pub(crate) fn sinks_of(&self, component: &Name) -> BTreeSet<Name> {
        self.leads_to.get(component).cloned().unwrap_or_else(|| BTreeSet::from([component.clone()]))
    }

    /// The sources and transforms whose rows can reach a sink.
    pub(crate) fn leading_to(&self, sink: &Name) -> Vec<Name> {
        self.leads_to.iter().filter(|(_, sinks)| sinks.contains(sink)).map(|(name, _)| name.clone()).collect()
    }

    /// What a component's file says of it beside its options, and its guard.
    pub(crate) fn common(&self, name: &Name) -> Option<(CommonSpec, Guard)> {
        let sources = self.sources.iter().map(|node| (&node.name, &node.common, node.guard));
        let transforms = self.transforms.iter().map(|node| (&node.name, &node.common, node.guard));
        let sinks = self.sinks.iter().map(|node| (&node.name, &node.common, node.guard));
        let mut all = sources.chain(transforms).chain(sinks);
        all.find(|(known, ..)| *known == name).map(|(_, common, guard)| (common.clone(), guard))
    }

    /// Sinks by index, in groups that commit one after the other: `after` asks for it.
    pub(crate) fn commit_order(&self) -> Result<Vec<Vec<usize>>> {
        let mut done: BTreeSet<&Name> = BTreeSet::new();
        let mut left: Vec<usize> = (0..self.sinks.len()).collect();
        let mut groups = Vec::new();
        while !left.is_empty() {
            let (now, later): (Vec<_>, Vec<_>) = left
                .into_iter()
                .partition(|&sink| self.sinks[sink].common.after.iter().all(|name| done.contains(name)));
            if now.is_empty() {
                let names =
                    later.iter().map(|&sink| format!("'{}'", self.sinks[sink].name)).collect::<Vec<_>>().join(", ");
                return Err(Error::config(format!(
                    "`after` of {names} names an unknown sink or goes round in a circle"
                ))
                .at(format!("pipeline {}", self.name)));
            }
            done.extend(now.iter().map(|&sink| &self.sinks[sink].name));
            groups.push(now);
            left = later;
        }
        Ok(groups)
    }
}

/// A component of a config.
pub(crate) fn node<T: ?Sized + 'static>(
    spec: &ComponentSpec,
    role: Role,
    pick: fn(&'static Connector) -> Option<&'static RoleOf<T>>,
) -> Result<Node<T>> {
    let missing = || {
        let known = towpath_core::connector::names(role).join(", ");
        Error::config(format!("{} {}: there is no {} of type '{}'", role.name(), spec.name, role.name(), spec.kind))
            .hint(format!("the {}s in this program are: {known}", role.name()))
    };
    let connector = Connector::find(&spec.kind).and_then(pick).ok_or_else(missing)?;
    let (name, options) = (spec.name.clone(), spec.options.clone());
    Ok(Node {
        name: spec.name.clone(),
        kind: spec.kind.clone(),
        inputs: spec.inputs.clone(),
        common: spec.common.clone(),
        guard: spec.common.guard.unwrap_or_default().or(connector.guard),
        differences: connector.differences,
        make: Arc::new(move || {
            (connector.build)(&name, options.clone()).map_err(|error| error.at(format!("{} {name}", role.name())))
        }),
    })
}
