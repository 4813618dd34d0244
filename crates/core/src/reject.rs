//! A row that failed. A return value, never an error: the run goes on.

use arrow_array::RecordBatch;
use bytes::Bytes;

use crate::error::ErrorKind;

/// One refused row: it goes to the dead letters with its reason and position.
#[derive(Clone, Debug)]
pub struct Reject {
    /// Usually [`ErrorKind::Data`]; [`ErrorKind::Conflict`] for a key that is taken.
    pub kind: ErrorKind,
    /// What is wrong with it, with the value where that helps: `column Qty: 'x' is not an int64`.
    pub reason: String,
    /// The column at fault, where there is one.
    pub column: Option<String>,
    /// The row.
    pub row: Original,
    /// Where it stood in its partition, where that is known better than by piece and row.
    pub position: Option<RowPosition>,
}

/// The refused row, as it came.
#[derive(Clone, Debug)]
pub enum Original {
    /// This row of the batch that was handed over with the call that returns the reject.
    Row(usize),
    /// Byte for byte, before it could become a row.
    Bytes(Bytes),
    /// A batch of one row: for a sink that learns of it after the call that brought it.
    Late(RecordBatch),
}

/// Where a record stood in its file or answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RowPosition {
    /// Counts records from 1, the header not counted.
    pub record: u64,
    /// Counts lines from 1, the header counted.
    pub line: u64,
    /// Where the record begins, in bytes from the start of the decoded (decompressed) stream.
    pub byte: u64,
}

impl Reject {
    /// Row `row` of the batch in hand, refused for its data.
    pub fn row(row: usize, reason: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Data, reason: reason.into(), column: None, row: Original::Row(row), position: None }
    }
    /// Bytes that did not become a row.
    pub fn bytes(bytes: Bytes, position: RowPosition, reason: impl Into<String>) -> Self {
        let (kind, row) = (ErrorKind::Data, Original::Bytes(bytes));
        Self { kind, reason: reason.into(), column: None, row, position: Some(position) }
    }
    /// Names the column at fault.
    #[must_use]
    pub fn column(mut self, column: impl Into<String>) -> Self {
        self.column = Some(column.into());
        self
    }
    /// Another kind than data.
    #[must_use]
    pub fn kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }
}
