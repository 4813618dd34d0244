//! The door to the outside: every call of every connector passes here.
//!
//! In this order, once for all: the breaker (is the server left alone?), the guard (is it our turn?), the budget (can we afford it?), the
//! deadline, the try itself, the breaker again (how did it go?), and a back-off before the next try. Waiting is abandoned when the run is
//! cancelled. Each try is a span, and is counted.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use towpath_core::{
    Call, Effect, Error, ErrorKind, Price, Result, Retry,
    context::{Attempt, Door, Lease},
    pipeline::{Guard, RetrySpec},
};
use tracing::Instrument as _;

use crate::{
    breaker::Breaker,
    budget::{Entry, Purse},
    diff::Watch,
    guard::{Gate, LeaseId, Passage},
    progress::{Calls, ComponentProgress, UnderWay},
    state::{StateStore, clock::human},
};

/// A server that asks for a longer pause than this is not waited for: the run ends, and the next one asks again.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// How often one who waits for another process's request looks.
const POLL: Duration = Duration::from_millis(250);
/// So often it is said anew how long there is to wait.
const TELL: Duration = Duration::from_secs(5);

/// One component's door.
pub struct CallDoor {
    store: StateStore,
    guard: Guard,
    retry: RetrySpec,
    call_deadline: Duration,
    cancel: CancellationToken,
    counted: Arc<ComponentProgress>,
    watch: Option<Arc<Watch>>,
}

/// How long to wait before the next try, after so many failures: full jitter under a bound that doubles, and never less than the
/// server asked for.
pub fn back_off(spec: &RetrySpec, failures: u32, retry: Retry) -> Duration {
    let doubled = spec.initial.0.saturating_mul(1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    let bound = doubled.min(spec.max.0);
    let jitter = bound.mul_f64(fastrand::f64());
    match retry {
        // Those who were told the same time should not all come at it.
        Retry::After(asked) => asked.saturating_add(jitter.min(spec.initial.0)),
        Retry::Never | Retry::Again => jitter,
    }
}

impl CallDoor {
    /// The door of a component: with its limits, and how often it may try.
    pub fn new(
        store: StateStore,
        guard: Guard,
        retry: RetrySpec,
        call_deadline: Duration,
        cancel: CancellationToken,
        counted: Arc<ComponentProgress>,
    ) -> Self {
        Self { store, guard, retry, call_deadline, cancel, counted, watch: None }
    }

    /// The same, with somebody who hears what calls are paid for.
    pub(crate) fn watched(mut self, watch: Option<Arc<Watch>>) -> Self {
        self.watch = watch;
        self
    }

    /// Waits for the guard. The request is stored when this returns.
    async fn our_turn(&self, gate: &Gate, effect: Effect, deadline: Duration) -> Result<Option<LeaseId>> {
        loop {
            // Told before asking, or an end in between would be missed.
            let freed = self.store.freed().notified();
            let (look, shown) = if let Some(pause) = gate.paused_for()? {
                if pause > PATIENCE {
                    return Err(asked_for_a_pause(gate, pause));
                }
                // Somebody may say meanwhile that it need not be waited for.
                (pause.min(POLL), format!("next request in {}, as {} asked", human(ms(pause)), gate.origin()))
            } else {
                match gate.ask(effect, deadline)? {
                    Passage::Pass(lease) => return Ok(lease),
                    Passage::After(pause) => {
                        tokio::time::sleep(pause).await;
                        return Ok(None);
                    }
                    Passage::Wait { wait, busy } => {
                        let when = if busy { "when another one has ended, at the latest in" } else { "in" };
                        let shown = format!("next request {when} {}, guard of {}", human(ms(wait)), gate.origin());
                        // Requests of other processes end without telling us.
                        (wait.min(if busy { POLL } else { TELL }), shown)
                    }
                }
            };
            self.counted.pulse.in_guard(shown);
            tokio::select! {
                // A sleep is not exact.
                () = tokio::time::sleep(look.max(Duration::from_millis(1))) => {}
                () = freed => {}
            }
        }
    }

    /// Waits until the budget has room for a try, and pays for it. It is entered when this returns.
    async fn paid(&self, price: Option<&Price>, deadline: Duration) -> Result<Option<Entry>> {
        let Some(Price { budget, tokens }) = price else { return Ok(None) };
        let local = self.store.local_budget(&budget.account);
        let turn = match local.turn.try_lock() {
            Ok(turn) => turn,
            Err(_) => {
                self.counted.pulse.in_guard(format!("its turn, budget of {}", budget.account));
                local.turn.lock().await
            }
        };
        loop {
            // Told before asking, or an answer in between would be missed.
            let freed = self.store.freed().notified();
            match self.store.pay(budget, *tokens, deadline)? {
                Purse::Paid(entry) => {
                    drop(turn);
                    return Ok(Some(entry));
                }
                Purse::Wait { wait, answer } => {
                    let when = if answer { "when another one is answered, at the latest in" } else { "in" };
                    let seconds = wait.as_secs_f64();
                    let shown = format!("next request {when} {seconds:.1} s, budget of {}", budget.account);
                    self.counted.pulse.in_guard(shown);
                    if answer {
                        // Answers to other processes come without telling us.
                        let _ = tokio::time::timeout(wait.min(POLL), freed).await;
                    } else {
                        tokio::time::sleep(wait).await;
                    }
                }
            }
        }
    }

    /// Makes tries until one succeeds, or no further one is due.
    async fn tries<'a>(&self, call: &Call, attempt: &mut (dyn FnMut() -> Attempt<'a> + Send)) -> Result<Lease> {
        let deadline = call.deadline.unwrap_or(self.call_deadline);
        let gate = Gate::new(self.store.clone(), call.origin.as_str(), self.guard);
        let server = Breaker::new(self.store.clone(), call.origin.as_str(), None);
        let part =
            call.resource.as_deref().map(|name| Breaker::new(self.store.clone(), call.origin.as_str(), Some(name)));
        let Calls { tries, failed, again, answering_ms, waited_ms, .. } = &self.counted.calls;
        let _calling = self.counted.pulse.calling();
        for failures in 1.. {
            let breakers = || part.iter().chain([&server]);
            // Looked at before the wait for the guard, and claimed after it: a probe that waits is none.
            breakers().try_for_each(Breaker::look)?;
            let asked = Instant::now();
            let lease = self.our_turn(&gate, call.effect, deadline).await;
            waited_ms.add(since(asked));
            let lease = lease?;
            let asked = Instant::now();
            let paid = self.paid(call.price.as_ref(), deadline).await;
            waited_ms.add(since(asked));
            let paid = match paid {
                Ok(paid) => paid,
                Err(error) => {
                    if let Some(lease) = lease {
                        note(gate.ended(lease));
                    }
                    return Err(error);
                }
            };
            if let Err(open) = breakers().try_for_each(|breaker| breaker.ask(deadline)) {
                if let Some(lease) = lease {
                    note(gate.ended(lease));
                }
                if let (Some(entry), Some(Price { budget, tokens })) = (paid, &call.price) {
                    note(self.store.unsent(budget, *tokens, entry));
                }
                return Err(open);
            }
            let refusals = self.store.refusals();
            let span = tracing::debug_span!("call", what = %call.what, origin = %call.origin, attempt = failures);
            self.counted.pulse.in_call(Some(call.what.clone()));
            tries.add(1);
            let (sent, under_way) = (Instant::now(), UnderWay::new(&self.counted));
            let outcome = within(deadline, call.effect, attempt()).instrument(span.clone()).await;
            answering_ms.add(since(sent));
            match (paid, &call.price) {
                (Some(entry), Some(Price { budget, tokens })) if outcome.as_ref().is_err_and(Error::is_unsent) => {
                    note(self.store.unsent(budget, *tokens, entry));
                }
                (Some(entry), Some(Price { budget, tokens })) => {
                    note(self.store.answered(budget, entry, outcome.is_ok()));
                    if let Some(watch) = &self.watch {
                        watch.paid(&self.counted.name, budget, *tokens);
                    }
                }
                _ => {}
            }
            self.counted.pulse.in_call(None);
            let error = match outcome {
                Ok(()) => {
                    let breakers = part.into_iter().chain([server]).collect();
                    return Ok(self.lease(gate, breakers, lease, deadline, under_way));
                }
                Err(error) => error,
            };
            drop(under_way);
            let _in_span = span.enter();
            failed.add(1);
            // A day that is over is the budget's matter: neither the server nor the part of it has failed.
            if let (ErrorKind::RateLimited, Some(price)) = (error.kind(), &call.price)
                && let Some(over) = self.store.day_over(&price.budget)?
            {
                self.ended(&gate, lease, &error);
                return Err(over.because(error));
            }
            if let Retry::After(asked) = error.retrying() {
                note(gate.pause(asked));
            }
            self.ended(&gate, lease, &error);
            // Refused by a password is the account's matter, refused all the same is the part's.
            let right_missing = error.kind() == ErrorKind::Auth && self.store.refusals() == refusals;
            match &part {
                Some(part) if right_missing => part.denied(&error)?,
                // A report that takes too long says nothing about the others.
                Some(part) if error.kind() == ErrorKind::Timeout => part.failed(&error)?,
                _ => server.failed(&error)?,
            }
            let due = match error.retrying() {
                Retry::Never => false,
                Retry::Again => true,
                Retry::After(asked) => asked <= PATIENCE,
            };
            // Refused at the door or never sent, it was not done.
            let undone = error.is_unsent() || error.kind() == ErrorKind::RateLimited && !error.is_outcome_unknown();
            let once = call.effect == Effect::Once && !undone;
            if !due || once || failures >= self.retry.attempts {
                let place = format!("{} ({failures} {})", call.what, if failures == 1 { "try" } else { "tries" });
                return Err(if failures == 1 { error } else { error.at(place) });
            }
            let pause = back_off(&self.retry, failures, error.retrying());
            tracing::info!("{}: {error}; trying again in {:.1} s", call.what, pause.as_secs_f64());
            drop(_in_span);
            self.counted.pulse.in_guard(format!("the next try of '{}' in {:.0} s", call.what, pause.as_secs_f64()));
            waited_ms.add(ms(pause).unsigned_abs());
            tokio::time::sleep(pause).await;
            again.add(1);
        }
        Err(Error::internal("no try was made"))
    }

    /// Tells the guard that a request has ended, unless the server may still be working on it.
    fn ended(&self, gate: &Gate, lease: Option<LeaseId>, error: &Error) {
        if (error.kind() != ErrorKind::Timeout || error.is_unsent())
            && let Some(lease) = lease
        {
            note(gate.ended(lease));
        }
    }

    /// What keeps the server marked as busy until the answer has ended.
    fn lease(
        &self,
        gate: Gate,
        breakers: Vec<Breaker>,
        lease: Option<LeaseId>,
        deadline: Duration,
        under_way: UnderWay,
    ) -> Lease {
        // An answer may flow for longer than the deadline, and the server is busy with it.
        let renewing = lease.map(|lease| AbortOnDropHandle::new(tokio::spawn(renew(gate.clone(), lease, deadline))));
        Lease::new(move |end| {
            drop((renewing, under_way));
            let seen = match end {
                Some(Ok(())) => {
                    breakers.iter().for_each(|breaker| note(breaker.succeeded()));
                    true
                }
                Some(Err(error)) => {
                    // The server's is the last.
                    breakers.last().into_iter().for_each(|server| note(server.failed(error)));
                    error.kind() != ErrorKind::Timeout
                }
                // Nobody knows what the server still does.
                None => false,
            };
            if let (true, Some(lease)) = (seen, lease) {
                note(gate.ended(lease));
            }
        })
    }
}

#[async_trait]
impl Door for CallDoor {
    async fn pass<'a>(&self, call: &Call, attempt: &mut (dyn FnMut() -> Attempt<'a> + Send)) -> Result<Lease> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Error::cancelled()),
            passed = self.tries(call, attempt) => passed,
        }
    }
}

/// Keeps a request in the store as long as somebody watches it.
async fn renew(gate: Gate, lease: LeaseId, deadline: Duration) {
    loop {
        tokio::time::sleep((deadline / 2).max(Duration::from_secs(1))).await;
        note(gate.renew(lease, deadline));
    }
}

fn asked_for_a_pause(gate: &Gate, pause: Duration) -> Error {
    let what = format!("{} asked to be left alone for another {}", gate.origin(), human(ms(pause)));
    Error::new(ErrorKind::RateLimited, what)
        .retry(Retry::After(pause))
        .hint("run it again after that; nothing was sent now. `towpath state reset breaker` lets it be asked at once")
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn since(then: Instant) -> u64 {
    then.elapsed().as_millis() as u64
}

/// One try, body included. A deadline that passes says so.
async fn within(deadline: Duration, effect: Effect, attempt: Attempt<'_>) -> Result<()> {
    match tokio::time::timeout(deadline, attempt).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let period = towpath_core::Period(deadline);
            let error = Error::timeout(format!("no answer within the call's deadline ({period})"))
                .hint("raise the deadline if the server needs longer");
            // What only reads has no outcome that matters.
            let writes = matches!(effect, Effect::Idempotent | Effect::Once);
            Err(if writes { error.outcome_unknown() } else { error })
        }
    }
}

/// That the state store fails must not fail a call that was answered; the lease then lasts until its deadline.
fn note(noted: Result<()>) {
    if let Err(error) = noted {
        tracing::warn!("{error}");
    }
}
