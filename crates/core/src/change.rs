//! Differences, said before they are sent.
//!
//! A sink that can tell them (its role [says so](crate::connector::RoleOf::tells_differences)) calls [`Context::propose`](crate::Context::propose)
//! before each write, and sends only what it is told to send. In a run for its differences (`plan --diff`) the very same code runs: every
//! change is withheld, and so the plan cannot differ from the run. In a run that is bound to a plan (`run --plan`) only changes of the
//! plan pass.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    error::{Error, Result},
    pipeline::Name,
};

/// What would become of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is made.
    Create,
    /// Some of its fields change.
    Update,
    /// It is closed: no row stands for it any more.
    Close,
    /// It is deleted: no row stands for it any more.
    Delete,
    /// One of several with the same key: reported, and left alone. Costs nothing.
    Duplicate,
}

/// A field that changes. Values are as people know them, and the same before and after other changes of the plan were made: an option
/// by its label, a link as `{"id": 12, "key": "C-7"}`, without the key where that is not known, and without the id where what is linked
/// is yet to be made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FieldChange {
    /// The field's name, as in the config.
    pub field: String,
    /// What is there; `None`: nothing, or the record is yet to be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<Value>,
    /// What will be; `None`: it is cleared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<Value>,
}

/// One change of one record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// What becomes of it.
    pub action: Action,
    /// Its kind, in the target's words: `persons`.
    pub entity: String,
    /// The key that the row and the record have in common, as text.
    pub key: String,
    /// The record's id in the target, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its fields that change, in the config's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldChange>,
    /// Calls that it takes.
    pub calls: u32,
    /// Tokens of the budget that these cost; 0 where there is none.
    pub tokens: u32,
    /// Anything a reader should know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What is to be done with a change that was proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Send it.
    Send,
    /// Do not send it, and go on as if it had been: this run is only for its differences.
    Withheld,
}

/// Who is told of differences; the engine is, in [`Context::bare`](crate::Context::bare) nobody.
pub trait Changes: Send + Sync {
    /// A change is about to be sent. Conflict, if the run is bound to a plan in which it is not.
    fn propose(&self, sink: &Name, change: &Change) -> Result<Verdict>;
    /// So many rows need nothing.
    fn equal(&self, sink: &Name, rows: u64);
    /// Whether everything is withheld.
    fn withholds(&self) -> bool;
    /// Here a run would end with this error. Gives it back where it does end; in a plan, and where everything is withheld, it is told at the
    /// end.
    fn would_end(&self, _sink: &Name, error: Error) -> Result<()> {
        Err(error)
    }
}

/// Everything is sent, nobody is told.
pub(crate) struct Unwatched;

impl Changes for Unwatched {
    fn propose(&self, _: &Name, _: &Change) -> Result<Verdict> {
        Ok(Verdict::Send)
    }
    fn equal(&self, _: &Name, _: u64) {}
    fn withholds(&self) -> bool {
        false
    }
}
