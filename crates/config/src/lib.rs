//! Pipeline files, environment and flags, checked and turned into a PipelineSpec.
