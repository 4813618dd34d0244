//! The small built-in transforms.

/// Keeps this crate in a binary that names it.
pub fn link() {}
