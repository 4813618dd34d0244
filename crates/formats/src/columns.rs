//! The types of columns: what `columns:` in a config says, and what text becomes by it.
//!
//! Text becomes a value in one place (`parse`), whether a decoder, a `cast` transform or a typed table asks
//! for it. An empty value is NULL in a typed column and `''` in a text column.

mod build;
mod cast;
mod parse;
mod propose;
mod types;

pub(crate) use build::{Builder, Cell, Nulls, shown};
pub(crate) use cast::article;
pub use cast::{cast, cast_to};
pub(crate) use parse::Parser;
pub use propose::propose;
pub use types::{ColumnType, Columns};
