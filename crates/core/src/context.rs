//! The one door to the world outside.
//!
//! A connector reaches a server by [`Context::call`] (the answer is complete when the closure returns) or
//! [`Context::stream`] (the answer goes on; the [`Lease`] says until when the server is busy). Behind the door the engine keeps guard,
//! deadline, retry, breaker, metrics and span, once for all connectors, in that order. A connector classifies errors; it never
//! sleeps, loops or logs about failures.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::{
    budget::{Budget, BudgetState, Ledger, NoBooks, Price, Told},
    change::{Change, Changes, Unwatched, Verdict},
    error::{Error, Result},
    pipeline::{Guard, Name},
    secret::Secret,
};

/// What a call does to the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Costs the server next to nothing (a list, a HEAD request): spaced gently, allowed in a plan.
    Cheap,
    /// Reads, perhaps at a cost: a render, a download. Pays the guard in full.
    Read,
    /// Writes, and doing it twice is the same as once.
    Idempotent,
    /// Writes, and doing it twice is not the same: not tried again by the engine, unless the server said that there were too many requests
    /// ([`RateLimited`](crate::ErrorKind::RateLimited)) and so did nothing, or nothing went out ([`Error::unsent`]); the connector looks
    /// before it sends again.
    Once,
}

/// One call to the outside, described.
#[derive(Clone, Debug)]
pub struct Call {
    /// In words, for logs, heartbeats and errors: `render /Sales/Orders`.
    pub what: String,
    /// The server: `https://reports.example:443`, the guard's scope. See [`origin`](Call::origin).
    pub origin: String,
    /// A part of the server with a breaker of its own (one report): what closes it does not close the server.
    pub resource: Option<String>,
    /// What it does to the other side.
    pub effect: Effect,
    /// How long one try may take, body included. Default: the run's `call_deadline`.
    pub deadline: Option<Duration>,
    /// What each try costs, where the vendor counts. Default: nothing.
    pub price: Option<Price>,
}

impl Call {
    /// A call.
    pub fn new(what: impl Into<String>, origin: impl Into<String>, effect: Effect) -> Self {
        Self { what: what.into(), origin: origin.into(), resource: None, effect, deadline: None, price: None }
    }
    /// Names the part of the server that has a breaker of its own.
    #[must_use]
    pub fn resource(mut self, resource: impl Into<String>) -> Self {
        self.resource = Some(resource.into());
        self
    }
    /// Another deadline than the run's.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }
    /// Each try costs so much, and waits until the budget has it.
    #[must_use]
    pub fn price(mut self, price: Price) -> Self {
        self.price = Some(price);
        self
    }
}

/// A future of a try, boxed.
pub type Attempt<'a> = std::pin::Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

/// What stands behind the door; the engine implements it, [`Context::bare`] has a plain one.
#[async_trait]
pub trait Door: Send + Sync {
    /// Passes guard and breaker, then makes tries until one succeeds or no further one is due. Returns the last try's error, or a lease
    /// that keeps the server marked as busy.
    async fn pass<'a>(&self, call: &Call, attempt: &mut (dyn FnMut() -> Attempt<'a> + Send)) -> Result<Lease>;
}

/// The server is busy for us as long as this lives. Say how it ended; dropped without a word, the server counts as busy until the
/// call's deadline, because it may still be working.
#[must_use]
pub struct Lease(Option<OnEnd>);

/// Hears how an answer ended: `None` if nobody said.
type OnEnd = Box<dyn FnOnce(Option<Result<(), &Error>>) + Send>;

impl Lease {
    /// `end` hears `None` if the lease was dropped without a word.
    pub fn new(end: impl FnOnce(Option<Result<(), &Error>>) + Send + 'static) -> Self {
        Self(Some(Box::new(end)))
    }
    /// The answer is complete.
    pub fn done(mut self) {
        if let Some(end) = self.0.take() {
            end(Some(Ok(())));
        }
    }
    /// The answer broke off; counts for the breaker.
    pub fn failed(mut self, error: &Error) {
        if let Some(end) = self.0.take() {
            end(Some(Err(error)));
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(end) = self.0.take() {
            end(None);
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lease")
    }
}

/// What is remembered of credentials, by server and account, over all pipelines and processes: a refused one is never sent again.
#[async_trait]
pub trait Credentials: Send + Sync {
    /// Asks to put a credential on the wire. Waits while another process tries the same unproven one. An Auth error if it was
    /// refused before, or while the outcome of a try is unknown. Write nothing to the wire before it returns.
    async fn admit(&self, server: &str, account: &str, secret: &Secret) -> Result<Box<dyn Admission>>;

    /// Takes hold of the token that is stored for an account, alone among all processes; waits for whoever has it. Read it first:
    /// whoever had it may have got a new one. Ask for it only to read or to renew, and let go of it soon.
    ///
    /// # Errors
    /// Of the state store. By itself it remembers nothing.
    async fn exchange(&self, server: &str, account: &str) -> Result<Box<dyn Exchange>> {
        let _ = (server, account);
        Ok(Box::new(Forgetful(None)))
    }
}

/// A token that a server gave, to be shown until it expires, and what it is renewed with.
#[derive(Clone, Debug)]
pub struct StoredToken {
    /// What is shown to the server.
    pub access: Secret,
    /// What a new one is got with. Servers may take each only once: the new one must be stored before the new access token is used.
    pub refresh: Option<Secret>,
    /// When it was got.
    pub issued: Timestamp,
    /// When it expires, where the server or the config says.
    pub expires: Option<Timestamp>,
    /// What it was first got with, as [`Exchange::fingerprint`] has it: a config with another refresh token is another beginning.
    pub seed: String,
    /// Counts the tokens of the account. Whoever is refused with one renews it only if it is still the one stored.
    pub generation: u64,
}

/// A hold on a stored token: exclusive, over all processes. Dropped, it is let go of.
pub trait Exchange: Send {
    /// The token, if one was stored.
    ///
    /// # Errors
    /// Of the state store.
    fn stored(&self) -> Result<Option<StoredToken>>;
    /// Stores a token, with the next generation; durable when it returns that generation.
    ///
    /// # Errors
    /// Of the state store: then the token must not be used, or the next process knows nothing of it.
    fn store(&mut self, token: StoredToken) -> Result<u64>;
    /// A short text by which a secret can be known again, and from which it cannot be got.
    ///
    /// # Errors
    /// Of the state store.
    fn fingerprint(&self, secret: &Secret) -> Result<String>;
}

/// The leave to send a credential once. Dropped without a word, the outcome is unknown and the credential waits.
pub trait Admission: Send {
    /// The server took it (also when it then denied a right).
    fn proven(self: Box<Self>);
    /// The server refused it.
    fn refused(self: Box<Self>);
    /// It never went onto the wire: the connection broke before.
    fn unsent(self: Box<Self>);
    /// Whether nothing is known of it yet, so that whoever gives the call up should look for a moment what comes of it.
    fn unproven(&self) -> bool {
        false
    }
}

/// What a component is doing right now, for progress bars and heartbeats. Plain counters: nothing waits for them.
#[derive(Debug, Default)]
pub struct Gauge {
    /// Bytes a source expects to read in this run, as far as it knows.
    pub expected_bytes: AtomicU64,
    /// Rows a source expects.
    pub expected_rows: AtomicU64,
}

/// What a connector is given: who it is, the door, what is remembered. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    inner: Arc<Inner>,
}

struct Inner {
    pipeline: Name,
    component: Name,
    planning: bool,
    starting: bool,
    door: Arc<dyn Door>,
    credentials: Arc<dyn Credentials>,
    ledger: Arc<dyn Ledger>,
    changes: Arc<dyn Changes>,
    cancel: CancellationToken,
    gauge: Arc<Gauge>,
}

impl Inner {
    fn same(&self) -> Self {
        let Self { pipeline, component, planning, starting, door, credentials, ledger, changes, cancel, gauge } = self;
        Self {
            pipeline: pipeline.clone(),
            component: component.clone(),
            planning: *planning,
            starting: *starting,
            door: Arc::clone(door),
            credentials: Arc::clone(credentials),
            ledger: Arc::clone(ledger),
            changes: Arc::clone(changes),
            cancel: cancel.clone(),
            gauge: Arc::clone(gauge),
        }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({}/{})", self.inner.pipeline, self.inner.component)
    }
}

impl Context {
    /// A context; the engine makes them.
    pub fn new(
        pipeline: Name,
        component: Name,
        door: Arc<dyn Door>,
        credentials: Arc<dyn Credentials>,
        cancel: CancellationToken,
    ) -> Self {
        let gauge = Arc::default();
        let (planning, starting) = (false, false);
        let (ledger, changes) = (Arc::new(NoBooks), Arc::new(Unwatched));
        let inner =
            Inner { pipeline, component, planning, starting, door, credentials, ledger, changes, cancel, gauge };
        Self { inner: Arc::new(inner) }
    }
    /// The same, with books of budgets.
    #[must_use]
    pub fn with_ledger(&self, ledger: Arc<dyn Ledger>) -> Self {
        Self { inner: Arc::new(Inner { ledger, ..self.inner.same() }) }
    }
    /// The same, with somebody who is told of differences.
    #[must_use]
    pub fn with_changes(&self, changes: Arc<dyn Changes>) -> Self {
        Self { inner: Arc::new(Inner { changes, ..self.inner.same() }) }
    }
    /// A context without guard, retry or memory: for tests of connectors.
    pub fn bare(component: impl Into<Name>) -> Self {
        Self::new("test".into(), component.into(), Arc::new(OpenDoor), Arc::new(OpenDoor), CancellationToken::new())
    }
    /// The same, for a plan: every call that is not cheap is refused.
    #[must_use]
    pub fn for_plan(&self) -> Self {
        self.planned(false)
    }
    /// The same, for the plan that a run begins with, whose notes nobody reads: what is asked only for them need not be asked.
    #[must_use]
    pub fn for_start(&self) -> Self {
        self.planned(true)
    }
    fn planned(&self, starting: bool) -> Self {
        Self { inner: Arc::new(Inner { planning: true, starting, ..self.inner.same() }) }
    }

    /// The pipeline's name.
    pub fn pipeline(&self) -> &Name {
        &self.inner.pipeline
    }
    /// The component's name.
    pub fn component(&self) -> &Name {
        &self.inner.component
    }
    /// Whether this is a plan: only cheap calls.
    pub fn planning(&self) -> bool {
        self.inner.planning
    }
    /// Whether this is the plan that a run begins with: nobody reads its notes.
    pub fn starting(&self) -> bool {
        self.inner.starting
    }
    /// Is cancelled when the run is; futures of a connector are dropped then, so only its own tasks and threads need to watch
    /// it.
    pub fn cancel(&self) -> &CancellationToken {
        &self.inner.cancel
    }
    /// What is remembered of credentials.
    pub fn credentials(&self) -> &dyn Credentials {
        &*self.inner.credentials
    }
    /// Says what an answer's headers told of a budget. Call it for every answer that tells something, refusals included.
    ///
    /// # Errors
    /// Of the state store.
    pub fn told(&self, budget: &Budget, told: Told) -> Result<()> {
        self.inner.ledger.told(budget, told)
    }
    /// Where a budget stands: for plans.
    ///
    /// # Errors
    /// Of the state store.
    pub fn budget(&self, budget: &Budget) -> Result<BudgetState> {
        self.inner.ledger.state(budget)
    }
    /// Says a change before it is sent, and hears whether to send it. A change that may have been sent already (its answer was lost) is said
    /// again before it is sent again.
    ///
    /// # Errors
    /// Conflict, if the run is bound to a plan in which this change is not: hand it on, and nothing more is sent.
    pub fn propose(&self, change: &Change) -> Result<Verdict> {
        self.inner.changes.propose(&self.inner.component, change)
    }
    /// Says that so many rows need nothing.
    pub fn equal(&self, rows: u64) {
        self.inner.changes.equal(&self.inner.component, rows);
    }
    /// Whether this run is only for its differences: every change is withheld, and every call that writes is refused.
    pub fn withholds(&self) -> bool {
        self.inner.changes.withholds()
    }
    /// Ends the run with an error, but neither a plan nor a run that is only for its differences: they go on to show all that is known, and
    /// tell the error at their end.
    ///
    /// # Errors
    /// The one given, in a run.
    pub fn would_end(&self, error: Error) -> Result<()> {
        // What the plan that a run begins with meets, the run meets again.
        if self.inner.starting {
            return Err(error);
        }
        self.inner.changes.would_end(&self.inner.component, error)
    }
    /// For progress: what the component expects.
    pub fn gauge(&self) -> &Gauge {
        &self.inner.gauge
    }
    /// Adds to the bytes this source expects to read.
    pub fn expect_bytes(&self, bytes: u64) {
        self.inner.gauge.expected_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Makes a call whose answer is complete when `attempt` returns. `attempt` runs once per try; dropping the future abandons the
    /// call.
    pub async fn call<T, F, Fut>(&self, call: &Call, attempt: F) -> Result<T>
    where
        T: Send,
        F: FnMut() -> Fut + Send,
        Fut: Future<Output = Result<T>> + Send,
    {
        let (answer, lease) = self.stream(call, attempt).await?;
        lease.done();
        Ok(answer)
    }

    /// Makes a call whose answer goes on after `attempt` returns (a body still to be read): hold the lease until its end. What breaks
    /// off later is not tried again here.
    pub async fn stream<T, F, Fut>(&self, call: &Call, mut attempt: F) -> Result<(T, Lease)>
    where
        T: Send,
        F: FnMut() -> Fut + Send,
        Fut: Future<Output = Result<T>> + Send,
    {
        if self.inner.planning && call.effect != Effect::Cheap {
            return Err(Error::internal(format!("a plan may only make cheap calls, and '{}' is not one", call.what)));
        }
        if matches!(call.effect, Effect::Idempotent | Effect::Once) && self.inner.changes.withholds() {
            let what =
                format!("nothing is written when only differences are asked for, and '{}' would write", call.what);
            return Err(Error::internal(what));
        }
        let answer = Mutex::new(None);
        let lease = {
            let mut attempt = || -> Attempt<'_> {
                let future = attempt();
                let answer = &answer;
                Box::pin(async move {
                    let got = future.await?;
                    *answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(got);
                    Ok(())
                })
            };
            self.inner.door.pass(call, &mut attempt).await?
        };
        match answer.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(answer) => Ok((answer, lease)),
            None => Err(Error::internal(format!("'{}' was let pass without an answer", call.what))),
        }
    }
}

/// One try, everything admitted.
struct OpenDoor;

#[async_trait]
impl Door for OpenDoor {
    async fn pass<'a>(&self, _: &Call, attempt: &mut (dyn FnMut() -> Attempt<'a> + Send)) -> Result<Lease> {
        attempt().await?;
        Ok(Lease::new(|_| {}))
    }
}

#[async_trait]
impl Credentials for OpenDoor {
    async fn admit(&self, _: &str, _: &str, _: &Secret) -> Result<Box<dyn Admission>> {
        Ok(Box::new(OpenDoor))
    }
}

/// A token that nobody else sees, and that is gone with its hold.
struct Forgetful(Option<StoredToken>);

impl Exchange for Forgetful {
    fn stored(&self) -> Result<Option<StoredToken>> {
        Ok(self.0.clone())
    }
    fn store(&mut self, token: StoredToken) -> Result<u64> {
        let generation = self.0.as_ref().map_or(1, |known| known.generation + 1);
        self.0 = Some(StoredToken { generation, ..token });
        Ok(generation)
    }
    fn fingerprint(&self, _: &Secret) -> Result<String> {
        Ok(String::new())
    }
}

impl Admission for OpenDoor {
    fn proven(self: Box<Self>) {}
    fn refused(self: Box<Self>) {}
    fn unsent(self: Box<Self>) {}
}

/// The limits a connector's component runs under, for messages: `max_concurrent 1, min_interval 5m`.
impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            self.max_concurrent.map(|n| format!("max_concurrent {n}")),
            self.min_interval.map(|period| format!("min_interval {period}")),
            self.busy_share.map(|share| format!("busy_share {share}")),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_plan_may_only_be_cheap() {
        let ctx = Context::bare("reports").for_plan();
        let list = Call::new("list", "http://x:80", Effect::Cheap);
        assert_eq!(ctx.call(&list, || async { Ok(7) }).await.unwrap(), 7);
        let render = Call::new("render", "http://x:80", Effect::Read);
        let error = ctx.call(&render, || async { Ok(7) }).await.unwrap_err();
        assert_eq!(error.to_string(), "a plan may only make cheap calls, and 'render' is not one");
    }

    #[tokio::test]
    async fn where_changes_are_withheld_nothing_is_written() {
        struct Withholding;
        impl Changes for Withholding {
            fn propose(&self, _: &Name, _: &Change) -> Result<Verdict> {
                Ok(Verdict::Withheld)
            }
            fn equal(&self, _: &Name, _: u64) {}
            fn withholds(&self) -> bool {
                true
            }
        }
        let ctx = Context::bare("crm").with_changes(Arc::new(Withholding));
        for (effect, passes) in
            [(Effect::Cheap, true), (Effect::Read, true), (Effect::Idempotent, false), (Effect::Once, false)]
        {
            let call = Call::new("a call", "http://x:80", effect);
            assert_eq!(ctx.call(&call, || async { Ok(7) }).await.is_ok(), passes, "{effect:?}");
        }
        assert!(ctx.withholds() && ctx.for_plan().withholds() && !Context::bare("crm").withholds());
    }

    #[tokio::test]
    async fn a_lease_tells_how_the_answer_ended() {
        let said = Arc::new(Mutex::new(Vec::new()));
        let lease = |name: &'static str| {
            let said = Arc::clone(&said);
            Lease::new(move |end| said.lock().unwrap().push((name, end.map(|end| end.is_ok()))))
        };
        lease("done").done();
        lease("failed").failed(&Error::timeout("idle"));
        drop(lease("dropped"));
        assert_eq!(*said.lock().unwrap(), [("done", Some(true)), ("failed", Some(false)), ("dropped", None)]);
    }
}
