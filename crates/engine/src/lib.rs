//! Plans and runs pipelines: stages, epochs, calls, checkpoints, dead letters.
pub mod pulse;
