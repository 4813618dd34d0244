//! Pipelines built in Rust, without a config: see `examples/`.

use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::RecordBatch;
use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::mpsc;
use towpath_core::{
    ComponentSpec, Connector, Context, Error, Known, Mark, Name, Next, Piece, Reject, Result, Resume, Run, Sink,
    Source, SourcePlan, Token, Transform,
    connector::RoleOf,
    pipeline::{CommonSpec, ErrorsSpec, Guard, Role, RunSpec, Workers},
    source::Replay,
};

use crate::{
    graph::{self, Graph, Make, Node},
    stage::transform::Closure,
};

/// Builds a [`Graph`] part by part. Inputs are names of sources and transforms.
///
/// Factories are called once for a plan and once for each attempt of a run, so that a failed attempt can be made again with
/// new components.
pub struct Pipeline {
    graph: Graph,
    /// The first part that could not be added; `build` tells.
    wrong: Option<Error>,
}

impl Pipeline {
    /// A pipeline without parts. State and dead letters go by the name.
    pub fn new(name: impl Into<Name>) -> Self {
        Self { graph: Graph::empty(name.into()), wrong: None }
    }

    /// Adds a source.
    #[must_use]
    pub fn source<S: Source + 'static>(
        mut self,
        name: &str,
        make: impl Fn() -> Result<S> + Send + Sync + 'static,
    ) -> Self {
        let make: Make<dyn Source> = Arc::new(move || Ok(Box::new(make()?)));
        self.graph.sources.push(node(name, &[], make));
        self
    }

    /// Adds a source of a connector by the name of its `type`, with the options that a file would give it. The connector must be
    /// linked into this program.
    #[must_use]
    pub fn source_of(mut self, name: &str, kind: &str, options: Value) -> Self {
        let node = self.known(name, &[], kind, options, Role::Source, |connector| connector.source.as_ref());
        self.graph.sources.extend(node);
        self
    }

    /// Adds a source that is a channel: batches, in the order they are sent, until the senders are gone. It can be read only
    /// once, so a run that fails cannot be taken up.
    #[must_use]
    pub fn channel(self, name: &str, batches: mpsc::Receiver<RecordBatch>) -> Self {
        let batches = Arc::new(Mutex::new(Some(batches)));
        self.source(name, move || Ok(Channel { shared: Arc::clone(&batches), batches: None, given: 0 }))
    }

    /// Adds a transform.
    #[must_use]
    pub fn transform<T: Transform + 'static>(
        mut self,
        name: &str,
        inputs: &[&str],
        make: impl Fn() -> Result<T> + Send + Sync + 'static,
    ) -> Self {
        let make: Make<dyn Transform> = Arc::new(move || Ok(Box::new(make()?)));
        self.graph.transforms.push(node(name, inputs, make));
        self
    }

    /// Adds a transform by the name of its `type`, as [`source_of`](Self::source_of) does a source.
    #[must_use]
    pub fn transform_of(mut self, name: &str, inputs: &[&str], kind: &str, options: Value) -> Self {
        let node = self.known(name, inputs, kind, options, Role::Transform, |connector| connector.transform.as_ref());
        self.graph.transforms.extend(node);
        self
    }

    /// Adds a transform that is a closure: a batch in, a batch out. An error ends the run; a faulty row is
    /// [`try_map`](Self::try_map)'s.
    #[must_use]
    pub fn map<F>(self, name: &str, inputs: &[&str], mut map: F) -> Self
    where
        F: FnMut(RecordBatch) -> Result<RecordBatch> + Clone + Send + Sync + 'static,
    {
        self.try_map(name, inputs, move |rows, _| map(rows))
    }

    /// The same, for logic that may find rows faulty: each goes to the dead letters as a [`Reject::row`] of the batch that came in,
    /// and it is the closure that leaves it out of what it gives. Each worker has a clone of its own.
    #[must_use]
    pub fn try_map<F>(self, name: &str, inputs: &[&str], map: F) -> Self
    where
        F: FnMut(RecordBatch, &mut Vec<Reject>) -> Result<RecordBatch> + Clone + Send + Sync + 'static,
    {
        self.transform(name, inputs, move || Ok(Closure(map.clone())))
    }

    /// Gives the transform added last so many workers.
    #[must_use]
    pub fn workers(mut self, workers: Workers) -> Self {
        if let Some(node) = self.graph.transforms.last_mut() {
            node.common.workers = Some(workers);
        }
        self
    }

    /// Adds a sink.
    #[must_use]
    pub fn sink<S: Sink + 'static>(
        mut self,
        name: &str,
        inputs: &[&str],
        make: impl Fn() -> Result<S> + Send + Sync + 'static,
    ) -> Self {
        let make: Make<dyn Sink> = Arc::new(move || Ok(Box::new(make()?)));
        self.graph.sinks.push(node(name, inputs, make));
        self
    }

    /// Adds a sink of a connector by the name of its `type`, as [`source_of`](Self::source_of) does a source.
    #[must_use]
    pub fn sink_of(mut self, name: &str, inputs: &[&str], kind: &str, options: Value) -> Self {
        let node = self.known(name, inputs, kind, options, Role::Sink, |connector| connector.sink.as_ref());
        self.graph.sinks.extend(node);
        self
    }

    /// Says that the sink added last can tell its differences: it [proposes](towpath_core::Context::propose) each change before it sends
    /// it.
    #[must_use]
    pub fn tells_differences(mut self) -> Self {
        if let Some(node) = self.graph.sinks.last_mut() {
            node.differences = true;
        }
        self
    }

    /// A component as a file would have it.
    fn known<T: ?Sized + 'static>(
        &mut self,
        name: &str,
        inputs: &[&str],
        kind: &str,
        options: Value,
        role: Role,
        pick: fn(&'static Connector) -> Option<&'static RoleOf<T>>,
    ) -> Option<Node<T>> {
        let inputs = inputs.iter().map(|&input| input.into()).collect();
        let spec =
            ComponentSpec { name: name.into(), kind: kind.to_owned(), inputs, common: CommonSpec::default(), options };
        match graph::node(&spec, role, pick) {
            Ok(node) => Some(node),
            Err(error) => {
                self.wrong.get_or_insert(error);
                None
            }
        }
    }

    /// Lets the rows of the sink added last wait until these sinks have committed the same epoch.
    #[must_use]
    pub fn after(mut self, sinks: &[&str]) -> Self {
        if let Some(node) = self.graph.sinks.last_mut() {
            node.common.after = sinks.iter().map(|&name| name.into()).collect();
        }
        self
    }

    /// Sets what a component's file would say beside its options: deadlines, heartbeat, guard, retry.
    #[must_use]
    pub fn common(mut self, component: &str, set: impl FnOnce(&mut CommonSpec)) -> Self {
        let graph = &mut self.graph;
        let sources = graph.sources.iter_mut().map(|node| (&node.name, &mut node.common));
        let transforms = graph.transforms.iter_mut().map(|node| (&node.name, &mut node.common));
        let sinks = graph.sinks.iter_mut().map(|node| (&node.name, &mut node.common));
        if let Some((_, common)) = sources.chain(transforms).chain(sinks).find(|(name, _)| ***name == *component) {
            set(common);
        }
        self
    }

    /// Sets how the run behaves: deadlines, commits, restarts.
    #[must_use]
    pub fn run(mut self, set: impl FnOnce(&mut RunSpec)) -> Self {
        set(&mut self.graph.run);
        self
    }

    /// Sets what becomes of bad rows.
    #[must_use]
    pub fn errors(mut self, errors: ErrorsSpec) -> Self {
        self.graph.errors = errors;
        self
    }

    /// Checks that the parts fit together.
    ///
    /// # Errors
    /// Config: a connector that is not there; names and inputs that do not fit. What is wrong with a connector's options is told by the
    /// plan or the run, which makes it.
    pub fn build(self) -> Result<Graph> {
        match self.wrong {
            Some(error) => Err(error.at(format!("pipeline {}", self.graph.name))),
            None => self.graph.join(),
        }
    }
}

fn node<T: ?Sized>(name: &str, inputs: &[&str], make: Make<T>) -> Node<T> {
    let inputs = inputs.iter().map(|&input| input.into()).collect();
    Node {
        name: name.into(),
        kind: "rust".to_owned(),
        inputs,
        common: CommonSpec::default(),
        guard: Guard::default(),
        make,
        differences: false,
    }
}

type Batches = mpsc::Receiver<RecordBatch>;

/// A channel as a source.
struct Channel {
    shared: Arc<Mutex<Option<Batches>>>,
    batches: Option<Batches>,
    given: u64,
}

#[async_trait]
impl Source for Channel {
    async fn plan(&mut self, _: &Context, _: &Run, _: &Resume) -> Result<SourcePlan> {
        Ok(SourcePlan {
            schema: Known::No,
            work: vec![],
            complete_work: false,
            replay: Replay::OneByOne,
            carries: false,
            rereads: false,
            identity: "channel".to_owned(),
            notes: vec!["it can be read only once".to_owned()],
        })
    }
    async fn open(&mut self, _: &Context, _: &Run, _: &Resume) -> Result<()> {
        self.batches = self.shared.lock().unwrap_or_else(PoisonError::into_inner).take();
        if self.batches.is_none() {
            return Err(
                Error::unsupported("a channel can be read only once").hint("build a new pipeline with a new channel")
            );
        }
        Ok(())
    }
    async fn next(&mut self) -> Result<Next> {
        let Some(batches) = &mut self.batches else { return Ok(Next::End) };
        let Some(rows) = batches.recv().await else { return Ok(Next::End) };
        self.given += 1;
        Ok(Next::Piece(Box::new(Piece::new(rows, Mark::One(Token(self.given))))))
    }
    async fn close(&mut self) -> Result<()> {
        self.batches = None;
        Ok(())
    }
}
