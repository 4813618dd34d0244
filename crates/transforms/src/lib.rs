//! The small built-in transforms.
