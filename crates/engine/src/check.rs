//! What is wrong with a pipeline as far as the config alone tells: its transforms, planned over the columns that the sources know
//! without asking anybody.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use towpath_core::{
    Call, Context, Error, Known, Lease, Name, PipelineSpec, Result, Resume, Retry, Secret, Source,
    context::{Admission, Attempt, Credentials, Door},
};

use crate::{
    attempt::plan_transforms,
    engine::new_run,
    graph::{Graph, Node},
};

/// How long a source may think that asks nobody.
const PATIENCE: Duration = Duration::from_secs(5);

/// Plans each transform over what is known of its inputs without a call, and gives what is wrong, in the order of the data. Nothing is
/// asked, opened or remembered.
///
/// `unset`: components whose options name variables that are not set. They are left out, and what they give is not known.
///
/// # Errors
/// Config: the pipeline's components do not make a graph.
pub async fn check_transforms(spec: &PipelineSpec, unset: &[String]) -> Result<Vec<(Name, Error)>> {
    let graph = Graph::from_spec(spec)?;
    let is_set = |name: &Name| !unset.iter().any(|unset| **unset == **name);
    let mut known = BTreeMap::new();
    for node in graph.sources.iter().filter(|node| is_set(&node.name)) {
        known.insert(node.name.clone(), columns_of(&graph.name, node).await);
    }
    let mut wrong = Vec::new();
    for node in graph.transforms.iter().filter(|node| is_set(&node.name)) {
        // One by one: what is wrong with one says nothing of the next.
        let mut alone = graph.clone();
        alone.transforms = vec![node.clone()];
        if let Err(error) = plan_transforms(&alone, &mut known) {
            wrong.push((node.name.clone(), error));
        }
    }
    Ok(wrong)
}

/// A source that needs an answer for its plan does not know its columns.
async fn columns_of(pipeline: &Name, node: &Node<dyn Source>) -> Known {
    let Ok(mut source) = (node.make)() else { return Known::No };
    let (door, credentials) = (Arc::new(Shut), Arc::new(Shut));
    let ctx = Context::new(pipeline.clone(), node.name.clone(), door, credentials, CancellationToken::new());
    let (ctx, run, resume) = (ctx.for_start(), new_run(), Resume::default());
    match tokio::time::timeout(PATIENCE, source.plan(&ctx, &run, &resume)).await {
        Ok(Ok(plan)) => plan.schema,
        _ => Known::No,
    }
}

/// The door to the outside, shut.
struct Shut;

impl Shut {
    /// As if the server were down: of that a plan makes a remark, where it can do without.
    fn refused(server: &str) -> Error {
        Error::unavailable(format!("{server} is not asked")).retry(Retry::Never)
    }
}

#[async_trait]
impl Door for Shut {
    async fn pass<'a>(&self, call: &Call, _: &mut (dyn FnMut() -> Attempt<'a> + Send)) -> Result<Lease> {
        Err(Self::refused(&call.origin))
    }
}

#[async_trait]
impl Credentials for Shut {
    async fn admit(&self, server: &str, _: &str, _: &Secret) -> Result<Box<dyn Admission>> {
        Err(Self::refused(server))
    }
}
