//! A door that notes every call, and credentials that admit everything.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use towpath_core::{
    Call, Context, Effect, Lease, Result, Secret,
    context::{Admission, Attempt, Credentials, Door},
};

/// The calls that went through.
#[derive(Clone, Default)]
pub(super) struct Calls(Arc<Mutex<Vec<(String, Effect)>>>);

impl Calls {
    /// Those that a plan may not make.
    pub(super) fn not_cheap(&self) -> Vec<String> {
        self.of(&[Effect::Read, Effect::Idempotent, Effect::Once])
    }
    /// Those of these effects.
    pub(super) fn of(&self, effects: &[Effect]) -> Vec<String> {
        let calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let costly = calls.iter().filter(|(_, effect)| effects.contains(effect));
        costly.map(|(what, effect)| format!("'{what}' ({effect:?})")).collect()
    }
}

#[async_trait]
impl Door for Calls {
    async fn pass<'a>(&self, call: &Call, attempt: &mut (dyn FnMut() -> Attempt<'a> + Send)) -> Result<Lease> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((call.what.clone(), call.effect));
        attempt().await?;
        Ok(Lease::new(|_| {}))
    }
}

struct AdmitAll;

#[async_trait]
impl Credentials for AdmitAll {
    async fn admit(&self, _: &str, _: &str, _: &Secret) -> Result<Box<dyn Admission>> {
        Ok(Box::new(Self))
    }
}

impl Admission for AdmitAll {
    fn proven(self: Box<Self>) {}
    fn refused(self: Box<Self>) {}
    fn unsent(self: Box<Self>) {}
}

/// A context for a component of this name, and what it calls.
pub(super) fn context(component: &str) -> (Context, Calls) {
    let calls = Calls::default();
    let door = Arc::new(calls.clone());
    let cancel = CancellationToken::new();
    (Context::new("conformance".into(), component.into(), door, Arc::new(AdmitAll), cancel), calls)
}
