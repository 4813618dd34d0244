//! Pieces on their way to the engine.

use arrow_array::{BooleanArray, RecordBatch};
use arrow_select::filter::filter_record_batch;
use tokio::sync::mpsc;
use towpath_core::{Error, Mark, Next, Original, Piece, Position, Result, batch::handed_over};
use towpath_formats::{
    row_hash::row_hashes,
    seam::{self, Seam},
};

use super::{cells::Filled, cursor::Value};
use crate::types::SqlType;

/// Where pieces go. Closed: nobody wants them any more.
pub(crate) type Pieces = mpsc::Sender<Result<Next>>;

/// Hands rows on.
///
/// # Errors
/// Cancelled: nobody takes them.
pub(crate) async fn send(to: &Pieces, filled: Filled, mark: Mark) -> Result<()> {
    let mut piece = Piece::new(filled.rows, mark);
    piece.rejects = filled.rejects;
    piece.bytes = filled.bytes;
    to.send(Ok(Next::Piece(Box::new(piece)))).await.map_err(|_| Error::cancelled())?;
    handed_over();
    Ok(())
}

/// The rows of these numbers, by their hashes as they stand in a position.
pub(crate) fn keys(rows: &RecordBatch, from: usize, to: usize) -> Result<Vec<String>> {
    let hashes = row_hashes(&rows.slice(from, to - from), None)?;
    Ok(hashes.into_iter().map(seam::key).collect())
}

/// Leaves rows out; what is said of the others' numbers stays true.
pub(crate) fn without(mut filled: Filled, kept: &[bool]) -> Result<Filled> {
    if kept.iter().all(|kept| *kept) {
        return Ok(filled);
    }
    filled.rows = filter_record_batch(&filled.rows, &BooleanArray::from(kept.to_vec()))
        .map_err(|error| Error::internal("cannot leave rows out").because(error))?;
    filled.rejects.retain(|reject| !matches!(reject.row, Original::Row(row) if kept.get(row) != Some(&true)));
    for reject in &mut filled.rejects {
        if let Original::Row(row) = &mut reject.row {
            *row = kept.iter().take(*row).filter(|kept| **kept).count();
        }
    }
    Ok(filled)
}

/// A position of a cursor, with its value made out.
#[derive(Clone, Debug)]
pub(crate) struct Stand {
    pub(crate) value: Value,
    pub(crate) seam: Seam<String>,
}

impl Stand {
    /// Reads a position.
    ///
    /// # Errors
    /// Conflict: it is none of a cursor of this type.
    pub(crate) fn read(position: &Position, of: &SqlType) -> Result<Self> {
        let seam = Seam::<String>::read(position)?;
        let value = Value::read(&seam.cursor, of).ok_or_else(|| {
            Error::conflict(format!("the position '{position}' is none of a cursor of type {of}"))
                .hint("if the column was changed, `towpath state reset checkpoint` and load anew")
        })?;
        Ok(Self { value, seam })
    }

    /// At a value of which nothing has been read.
    pub(crate) fn at(value: Value) -> Self {
        let seam = Seam { cursor: value.text(), seen: seam::Seen::new() };
        Self { value, seam }
    }

    /// Takes in rows that have been read.
    pub(crate) fn saw(&mut self, keys: impl IntoIterator<Item = String>) {
        keys.into_iter().for_each(|key| *self.seam.seen.entry(key).or_default() += 1);
    }
}

/// The failure of a second reading that does not give what the first one gave.
pub(crate) fn changed(what: &impl std::fmt::Display) -> Error {
    Error::conflict(format!("the rows of {what} are not those that another sink has been given already"))
        .hint("start over with `towpath run --new-run`")
}
