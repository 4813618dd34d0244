//! The small built-in transforms: `cast`, `dedupe`, `filter`, `rename`, `select`.
//!
//! Each is one file with one config struct, registers itself, and has its page under `docs/`. All of them give one batch for each batch
//! they take, in its order, and leave columns they do not name untouched, by reference. What they refuse they refuse by the
//! schema, in the plan where it is known; data can only reject rows.

mod cast;
mod compare;
mod condition;
mod dedupe;
mod filter;
mod inputs;
mod rename;
mod seen;
mod select;

pub use cast::{Cast, CastOptions};
pub use condition::{Condition, Op};
pub use dedupe::{Dedupe, DedupeOptions, Key};
pub use filter::{Filter, FilterOptions};
pub use rename::{Rename, RenameOptions};
pub use select::{Select, SelectOptions};

/// Keeps this crate in a binary that names it.
pub fn link() {}
