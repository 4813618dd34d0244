//! What goes wrong, and when.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// When a fault strikes: once, at the n-th occasion of its kind, counted from 0 and from the moment at which it was added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// The n-th statement, as [`Log::statements`](super::Log::statements) counts them.
    Nth(u64),
    /// The n-th statement whose text contains this, whatever the case.
    Matching(String, u64),
    /// The n-th commit, however it is asked for.
    NthCommit(u64),
    /// The n-th packet of a bulk load's rows.
    NthBulkPacket(u64),
    /// The n-th login.
    NthLogin(u64),
    /// Every statement whose text contains this, whatever the case, until [`Faults::clear`].
    Every(String),
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The statement fails with an error of this number, in a real server's words where they are known.
    Error(i32),
    /// The same, and the connection is cut before the answer has come to its end.
    ErrorCut(i32),
    /// The same with a text of one's own.
    Message(i32, String),
    /// The statement fails by a trigger of this name, which raises an error 50000 with this text.
    Trigger(String, String),
    /// Error 1205: the transaction is rolled back, the batch ends.
    Deadlock,
    /// The connection is cut before the statement is executed.
    CutBefore,
    /// The statement is executed, to the commit where it is one, and the connection is cut without an answer.
    CutAfter,
    /// Silence for so long before the statement is executed, or until it is cancelled.
    Stall(Duration),
    /// Silence until [`Faults::release`], or until it is cancelled.
    Hold,
    /// The answer to this request comes at so many bytes a second.
    SlowRead(u64),
    /// A login is refused with 18456 whatever the password; only with [`When::NthLogin`].
    RefuseLogin,
    /// A login is refused with 18486, because the account is locked; it stays so until [`Faults::unlock`].
    LockAccount,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// At which occasion.
    pub when: When,
    /// What then happens.
    pub what: What,
}

/// An occasion for a fault.
#[derive(Clone, Copy, Debug)]
pub(super) enum Occasion<'a> {
    Statement { text: &'a str, commit: bool },
    BulkPacket,
    Login,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<(Fault, u64)>,
    released: u64,
    locked: bool,
}

/// Faults to come. Cheap to clone; all clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<State>>);

impl Faults {
    /// One more.
    pub fn add(&self, fault: Fault) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).rules.push((fault, 0));
    }
    /// Forgets all that have not struck yet.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).rules.clear();
    }
    /// How many have not struck yet.
    pub fn pending(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).rules.len()
    }
    /// Lets go on what [`What::Hold`] holds now.
    pub fn release(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).released += 1;
    }
    /// Unlocks the account, as an administrator does.
    pub fn unlock(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).locked = false;
    }
    pub(super) fn lock_account(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).locked = true;
    }
    pub(super) fn is_locked(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).locked
    }
    pub(super) fn releases(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).released
    }
    /// Counts an occasion; what shall happen.
    pub(super) fn due(&self, occasion: Occasion<'_>) -> Vec<What> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.rules.is_empty() {
            return vec![];
        }
        let mut due = vec![];
        let contains = |text: &str, part: &str| text.to_lowercase().contains(&part.to_lowercase());
        state.rules.retain_mut(|(fault, seen)| {
            let n = match (&fault.when, occasion) {
                (When::Every(part), Occasion::Statement { text, .. }) => {
                    if contains(text, part) {
                        due.push(fault.what.clone());
                    }
                    return true;
                }
                (When::Nth(n), Occasion::Statement { .. })
                | (When::NthCommit(n), Occasion::Statement { commit: true, .. })
                | (When::NthBulkPacket(n), Occasion::BulkPacket)
                | (When::NthLogin(n), Occasion::Login) => *n,
                (When::Matching(part, n), Occasion::Statement { text, .. }) if contains(text, part) => *n,
                _ => return true,
            };
            *seen += 1;
            if *seen <= n {
                return true;
            }
            due.push(fault.what.clone());
            false
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_strikes_once_at_its_number() {
        let check = |when: When, expect: &[usize]| {
            let faults = Faults::default();
            faults.add(Fault { when, what: What::Deadlock });
            let texts = ["SELECT 1", "COMMIT", "INSERT INTO t", "commit", "SELECT 2"];
            let struck: Vec<usize> = (0..texts.len())
                .filter(|at| {
                    let commit = texts[*at].eq_ignore_ascii_case("commit");
                    !faults.due(Occasion::Statement { text: texts[*at], commit }).is_empty()
                })
                .collect();
            assert_eq!(struck, expect);
        };
        check(When::Nth(0), &[0]);
        check(When::Nth(3), &[3]);
        check(When::NthCommit(1), &[3]);
        check(When::Matching("select".to_owned(), 1), &[4]);
        check(When::Every("select".to_owned()), &[0, 4]);
        check(When::NthLogin(0), &[]);
    }
}
