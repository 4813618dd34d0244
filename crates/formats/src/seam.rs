//! Where a cursor stands between two readings of a table.
//!
//! A cursor is read inclusively: rows that come later may have the value at which the last reading ended. So a position holds that value and the
//! rows of it that were read, by their hashes; whoever reads on from there leaves exactly those out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use towpath_core::{Error, Position, Result};

/// So many rows of one value fit into a position in the middle of them; beyond, the next position is where the value changes.
pub const SEEN: usize = 256;
/// More rows of one value would make a position nobody wants to store.
pub const SEEN_AT_MOST: usize = 100_000;

/// Hashes of rows, with how many are alike.
pub type Seen = BTreeMap<String, u32>;

/// A cursor's value `C`, and which rows of that value have been read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seam<C> {
    /// The value.
    pub cursor: C,
    /// The rows of it that were read, by [`key`].
    pub seen: Seen,
}

impl<C: Serialize + DeserializeOwned> Seam<C> {
    /// Reads a position.
    ///
    /// # Errors
    /// Conflict: a position that no cursor has written.
    pub fn read(position: &Position) -> Result<Self> {
        serde_json::from_str(&position.0).map_err(|error| {
            Error::conflict(format!("the position '{}' is none of a cursor", position.0))
                .because(error)
                .hint("if the source was changed, `towpath state reset checkpoint` and load anew")
        })
    }
    /// Writes a position: JSON.
    ///
    /// # Errors
    /// Internal: a value that JSON has no place for.
    pub fn position(&self) -> Result<Position> {
        let text = serde_json::to_string(self)
            .map_err(|error| Error::internal("cannot write the cursor down").because(error))?;
        Ok(Position::new(text))
    }
}

impl<C> Seam<C> {
    /// Whether a position here is short enough to be written in the middle of the value's rows.
    pub fn is_short(&self) -> bool {
        self.seen.len() <= SEEN
    }
    /// Ends a reading whose cursor does not tell rows apart.
    ///
    /// # Errors
    /// Config: more than [`SEEN_AT_MOST`] rows of `table` have the same value of `column`.
    pub fn check(&self, table: impl std::fmt::Display, column: &str) -> Result<()> {
        if self.seen.len() <= SEEN_AT_MOST {
            return Ok(());
        }
        Err(Error::config(format!("cursor: more than {SEEN_AT_MOST} rows of {table} have the same {column}"))
            .hint("take a column that tells rows apart better, a number or a time with a fraction"))
    }
}

/// A row's hash as it stands in a position.
pub fn key(hash: u128) -> String {
    format!("{hash:032x}")
}

/// Takes so many out of a count of things; false if there are not so many.
pub fn take(from: &mut Seen, key: &str, count: u32) -> bool {
    match from.get_mut(key) {
        Some(left) if *left > count => *left -= count,
        Some(left) if *left == count => drop(from.remove(key)),
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_was_written() {
        let seam = Seam { cursor: "7".to_owned(), seen: [(key(1), 2)].into() };
        let position = seam.position().unwrap();
        assert_eq!(&*position.0, r#"{"cursor":"7","seen":{"00000000000000000000000000000001":2}}"#);
        assert_eq!(Seam::read(&position).unwrap(), seam);
        let strange = Seam::<String>::read(&Position::new("run=7")).unwrap_err();
        assert_eq!(strange.kind(), towpath_core::ErrorKind::Conflict);
    }

    #[test]
    fn rows_that_are_alike_are_counted() {
        let mut seen: Seen = [("a".to_owned(), 2)].into();
        assert!(!take(&mut seen, "a", 3) && !take(&mut seen, "b", 1));
        assert!(take(&mut seen, "a", 1) && take(&mut seen, "a", 1) && !take(&mut seen, "a", 1));
        assert!(seen.is_empty());
    }
}
