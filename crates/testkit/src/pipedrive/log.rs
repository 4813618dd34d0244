//! Who asked what: what a test looks at after the client is done.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::Value;

use super::Entity;

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// One record.
    Get,
    /// A page of records.
    List,
    /// A page of fields, or one field.
    Fields,
    /// A search.
    Search,
    /// A creation.
    Create,
    /// A change.
    Update,
    /// A deletion.
    Delete,
    /// A field or its options are created, changed or deleted.
    FieldWrite,
    /// A token is asked for.
    Token,
    /// What v1 still serves: users, currencies, notes.
    Other,
}

/// One call.
#[derive(Clone, Debug)]
pub struct Call {
    /// When it came, counted from the server's start (on its clock).
    pub at: Duration,
    /// `GET`, `POST`, `PATCH`…
    pub method: String,
    /// Without the host and the query.
    pub path: String,
    /// As it came, without the question mark.
    pub query: String,
    /// The body, where it is JSON.
    pub body: Option<Value>,
    /// What it was answered with; 0: with nothing.
    pub status: u16,
    /// What it cost.
    pub tokens: u64,
    /// What it is for.
    pub kind: Kind,
    /// Of what.
    pub entity: Option<Entity>,
    /// Whether it was carried out, whatever was answered.
    pub executed: bool,
    /// Whether it was let in by an access token of OAuth.
    pub oauth: bool,
}

impl Call {
    /// Whether it changes records.
    pub fn is_write(&self) -> bool {
        matches!(self.kind, Kind::Create | Kind::Update | Kind::Delete)
    }
    /// A parameter of its query, decoded.
    pub fn parameter(&self, name: &str) -> Option<String> {
        super::query::pairs(&self.query).into_iter().find(|(given, _)| given == name).map(|(_, value)| value)
    }
}

/// All calls. Cheap to clone; all clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<Vec<Call>>>);

impl Log {
    pub(super) fn add(&self, call: Call) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(call);
    }
    fn count_if(&self, fits: impl Fn(&Call) -> bool) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(|call| fits(call)).count()
    }
    /// Every call, in order of its answer.
    pub fn calls(&self) -> Vec<Call> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// How many calls there were.
    pub fn len(&self) -> usize {
        self.count_if(|_| true)
    }
    /// Whether there was none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// How many of a kind.
    pub fn count(&self, kind: Kind) -> usize {
        self.count_if(|call| call.kind == kind)
    }
    /// How many of a kind, of these records.
    pub fn count_of(&self, kind: Kind, entity: Entity) -> usize {
        self.count_if(|call| call.kind == kind && call.entity == Some(entity))
    }
    /// How many wanted to create, change or delete records, whatever came of it.
    pub fn writes(&self) -> usize {
        self.count_if(Call::is_write)
    }
    /// How many were answered so.
    pub fn answered(&self, status: u16) -> usize {
        self.count_if(|call| call.status == status)
    }
    /// What they cost.
    pub fn tokens(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|call| call.tokens).sum()
    }
    /// The most calls that were let in within any 2 seconds.
    pub fn busiest_window(&self) -> usize {
        let calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut times: Vec<Duration> = calls.iter().filter(|call| call.status != 429).map(|call| call.at).collect();
        times.sort_unstable();
        let mut first = 0;
        let mut most = 0;
        for (last, at) in times.iter().enumerate() {
            while *at - times[first] >= super::budget::WINDOW {
                first += 1;
            }
            most = most.max(last - first + 1);
        }
        most
    }
    /// Forgets them.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
