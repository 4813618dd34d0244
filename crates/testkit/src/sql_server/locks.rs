//! Locks that sessions wait for: the store (one writer at a time) and application locks (`sp_getapplock`), with one graph of who waits for
//! whom, so that a circle through both is a deadlock.

use std::{
    collections::HashMap,
    sync::{Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// What can be locked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Resource {
    /// The right to write.
    Store,
    /// An application lock, by its name.
    App(String),
}

/// How.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Shared,
    Exclusive,
}

/// Why a lock was not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    Timeout,
    Deadlock,
    Cancelled,
}

#[derive(Debug, Default)]
struct State {
    held: HashMap<Resource, Vec<(u16, Mode)>>,
    waiting: HashMap<u16, (Resource, Mode)>,
}

impl State {
    /// Who stands in the way.
    fn holders(&self, session: u16, resource: &Resource, mode: Mode) -> Vec<u16> {
        let held = self.held.get(resource).map(Vec::as_slice).unwrap_or_default();
        let hinder = |(other, theirs): &&(u16, Mode)| {
            *other != session && (mode == Mode::Exclusive || *theirs == Mode::Exclusive)
        };
        held.iter().filter(hinder).map(|(other, _)| *other).collect()
    }
    /// Whether `from` waits, over however many, for `session`.
    fn waits_for(&self, from: u16, session: u16, depth: usize) -> bool {
        if from == session {
            return true;
        }
        let Some((resource, mode)) = self.waiting.get(&from) else { return false };
        depth < 64
            && self.holders(from, resource, *mode).into_iter().any(|next| self.waits_for(next, session, depth + 1))
    }
}

/// All locks of a server.
#[derive(Debug, Default)]
pub(super) struct Locks {
    state: Mutex<State>,
    changed: Condvar,
}

impl Locks {
    /// Waits for a lock; `timeout` `None` is for ever. `stop` is asked now and then whether to give up.
    pub fn acquire(
        &self,
        session: u16,
        resource: &Resource,
        mode: Mode,
        timeout: Option<Duration>,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), Denied> {
        let start = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let holders = state.holders(session, resource, mode);
            if holders.is_empty() {
                state.waiting.remove(&session);
                let held = state.held.entry(resource.clone()).or_default();
                match held.iter_mut().find(|(other, _)| *other == session) {
                    Some((_, theirs)) if mode == Mode::Exclusive => *theirs = mode,
                    Some(_) => {}
                    None => held.push((session, mode)),
                }
                return Ok(());
            }
            let denied = if holders.iter().any(|holder| state.waits_for(*holder, session, 0)) {
                Some(Denied::Deadlock)
            } else if stop() {
                Some(Denied::Cancelled)
            } else if timeout.is_some_and(|timeout| start.elapsed() >= timeout) {
                Some(Denied::Timeout)
            } else {
                None
            };
            if let Some(denied) = denied {
                state.waiting.remove(&session);
                return Err(denied);
            }
            state.waiting.insert(session, (resource.clone(), mode));
            // Woken when a lock is given back; now and then to ask `stop`.
            let nap = Duration::from_millis(20);
            state = self.changed.wait_timeout(state, nap).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
    /// Whether another session waits for it.
    pub fn is_wanted(&self, session: u16, resource: &Resource) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting.iter().any(|(other, (wanted, _))| *other != session && wanted == resource)
    }
    /// Gives one back; whether it was held.
    pub fn release(&self, session: u16, resource: &Resource) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(held) = state.held.get_mut(resource) else { return false };
        let before = held.len();
        held.retain(|(other, _)| *other != session);
        let released = held.len() < before;
        if held.is_empty() {
            state.held.remove(resource);
        }
        self.changed.notify_all();
        released
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_goes_with_shared_and_a_circle_is_a_deadlock() {
        let locks = Locks::default();
        let app = |name: &str| Resource::App(name.to_owned());
        let now = Some(Duration::ZERO);
        let ask = |session, resource: &Resource, mode| locks.acquire(session, resource, mode, now, &|| false);
        assert_eq!(ask(1, &app("a"), Mode::Shared), Ok(()));
        assert_eq!(ask(2, &app("a"), Mode::Shared), Ok(()));
        assert_eq!(ask(2, &app("a"), Mode::Exclusive), Err(Denied::Timeout));
        assert!(locks.release(2, &app("a")));
        assert!(!locks.release(2, &app("a")));
        assert_eq!(ask(2, &app("b"), Mode::Exclusive), Ok(()));
        std::thread::scope(|scope| {
            let one = scope.spawn(|| locks.acquire(1, &app("b"), Mode::Exclusive, None, &|| false));
            // The second is the one that closes the circle, whoever comes first.
            let two = locks.acquire(2, &app("a"), Mode::Exclusive, None, &|| one.is_finished());
            locks.release(2, &app("b"));
            let one = one.join().unwrap();
            let denied = [one, two].into_iter().filter(|outcome| *outcome == Err(Denied::Deadlock)).count();
            assert_eq!(denied, 1, "{one:?} {two:?}");
        });
    }
}
