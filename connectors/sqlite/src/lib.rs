//! SQLite tables as source and sink.
