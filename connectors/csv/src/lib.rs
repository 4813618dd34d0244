//! CSV files, local or over HTTP, as source and sink.
