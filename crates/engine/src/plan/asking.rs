//! How a component is asked for its plan, and what is made of an answer that fails.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use towpath_core::{
    Call, Change, Context, Error, ErrorKind, Lease, Name, Result, Verdict,
    change::Changes,
    context::{Attempt, Door},
    pipeline::Role,
};

use crate::{Progress, call::CallDoor, engine::Engine, graph::Graph, report::Failure};

/// What a component is planned with. Whoever it could not ask is noticed here, whatever it makes of that: a plan shows what is known all
/// the same, and exits as a run would.
pub(super) struct Asking {
    name: Name,
    pub(super) ctx: Context,
    door: Arc<Noticing>,
}

impl Asking {
    pub(super) fn of(engine: &Engine, graph: &Graph, name: &Name, role: Role) -> Self {
        let cancel = CancellationToken::new();
        let door = engine.door(graph, name, role, &Progress::default(), &cancel);
        let door = Arc::new(Noticing { name: name.clone(), door, failure: Mutex::default() });
        let behind = Arc::clone(&door) as Arc<dyn Door>;
        let ctx =
            engine.context_behind(graph, name, behind, &cancel).with_changes(Arc::clone(&door) as Arc<dyn Changes>);
        Self { name: name.clone(), ctx: ctx.for_plan(), door }
    }

    /// Its plan; `None`: there is none, and why is among the failures. A mistake in the config ends the plan.
    pub(super) fn came<T>(self, plan: Result<T>, role: &str, failures: &mut Vec<Failure>) -> Result<Option<T>> {
        match plan {
            Ok(plan) => {
                failures.extend(self.door.failure.lock().unwrap_or_else(PoisonError::into_inner).take());
                Ok(Some(plan))
            }
            Err(error) if matches!(error.kind(), ErrorKind::Config | ErrorKind::Internal | ErrorKind::Cancelled) => {
                Err(error.at(format!("{role} {}", self.name)))
            }
            Err(error) => {
                failures.push(Failure::of(&self.name, &error));
                Ok(None)
            }
        }
    }
}

/// A door that keeps in mind the first call that found nobody or was turned away, and what else the component says a run would end with.
struct Noticing {
    name: Name,
    door: CallDoor,
    failure: Mutex<Option<Failure>>,
}

#[async_trait]
impl Door for Noticing {
    async fn pass<'a>(&self, call: &Call, attempt: &mut (dyn FnMut() -> Attempt<'a> + Send)) -> Result<Lease> {
        let passed = self.door.pass(call, attempt).await;
        if let Err(error) = &passed
            && matches!(
                error.kind(),
                ErrorKind::Auth | ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::RateLimited
            )
        {
            self.note(error);
        }
        passed
    }
}

impl Changes for Noticing {
    fn propose(&self, _: &Name, change: &Change) -> Result<Verdict> {
        Err(Error::internal(format!("a plan changes nothing, and {} would", change.key)))
    }
    fn equal(&self, _: &Name, _: u64) {}
    fn withholds(&self) -> bool {
        true
    }
    fn would_end(&self, _: &Name, error: Error) -> Result<()> {
        self.note(&error);
        Ok(())
    }
}

impl Noticing {
    fn note(&self, error: &Error) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert_with(|| Failure::of(&self.name, error));
    }
}
