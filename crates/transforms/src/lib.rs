//! The small built-in transforms: [`cast`], [`dedupe`], [`filter`], [`rename`], [`select`].
//!
//! Each is one file with one struct of options, whose doc comments are the only documentation of the fields, and one page under
//! `docs/`. None makes a call, none keeps a row back.

pub mod cast;
mod columns;
pub mod dedupe;
pub mod filter;
pub mod rename;
pub mod select;

/// Does nothing: whoever calls it names this crate, so that the linker keeps what is registered in it.
pub fn link() {}
