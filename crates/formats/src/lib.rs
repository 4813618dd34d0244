//! Streaming decoders and encoders between bytes and record batches.
//!
//! [`csv`] reads and writes delimited text: bytes are pushed in as they arrive, batches come out, and a record that
//! cannot be read is one rejected row. [`json`] writes JSON lines. [`columns`] gives text columns their types,
//! [`row_hash`] gives a row without a key one. [`spool`] holds rows aside, in a file if they are many; nothing else here does I/O.

pub mod columns;
pub mod csv;
pub mod json;
pub mod row_hash;
pub mod seam;
pub mod spool;
mod text;
