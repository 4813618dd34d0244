//! Pipelines built in Rust, without a config: see `examples/`.

use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::RecordBatch;
use async_trait::async_trait;
use tokio::sync::mpsc;
use towpath_core::{
    Context, Error, Known, Mark, Name, Next, Piece, Result, Resume, Run, Sink, Source, SourcePlan, Token, Transform,
    pipeline::{CommonSpec, ErrorsSpec, Guard, RunSpec, Workers},
    source::Replay,
};

use crate::{
    graph::{Graph, Make, Node},
    stage::transform::Closure,
};

/// Builds a [`Graph`] part by part. Inputs are names of sources and transforms.
///
/// Factories are called once for a plan and once for each attempt of a run, so that a failed attempt can be made again with
/// new components.
pub struct Pipeline {
    graph: Graph,
}

impl Pipeline {
    /// A pipeline without parts. State and dead letters go by the name.
    pub fn new(name: impl Into<Name>) -> Self {
        Self { graph: Graph::empty(name.into()) }
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

    /// Adds a transform that is a closure: a batch in, a batch out.
    #[must_use]
    pub fn map<F>(self, name: &str, inputs: &[&str], map: F) -> Self
    where
        F: FnMut(RecordBatch) -> Result<RecordBatch> + Clone + Send + Sync + 'static,
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
    pub fn build(self) -> Result<Graph> {
        self.graph.join()
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
