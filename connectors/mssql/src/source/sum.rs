//! The sum of what was read, by which a second reading can tell whether it gives the same.

use arrow_array::RecordBatch;
use tokio_util::task::AbortOnDropHandle;
use towpath_core::{Error, Result, batch::handed_over};
use towpath_formats::row_hash::row_hashes;

/// A hash of rows that does not depend on their order: count and sum of the rows' hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) rows: u64,
    pub(crate) hash: u128,
}

impl Sum {
    fn of(rows: &RecordBatch) -> Result<Self> {
        let hashes = row_hashes(rows, None)?;
        Ok(Self { rows: hashes.len() as u64, hash: hashes.into_iter().fold(0, u128::wrapping_add) })
    }
    /// The rows of both.
    pub(crate) fn with(self, other: Self) -> Self {
        Self { rows: self.rows + other.rows, hash: self.hash.wrapping_add(other.hash) }
    }
}

/// A sum made beside the reading: rows come as fast as one task decodes them, so another one hashes them.
#[derive(Debug, Default)]
pub(crate) struct Summing {
    sum: Sum,
    /// Of the rows added last.
    last: Option<AbortOnDropHandle<Result<Sum>>>,
}

impl Summing {
    /// Adds rows; waits for those before them.
    pub(crate) async fn add(&mut self, rows: &RecordBatch) -> Result<()> {
        self.wait().await?;
        let rows = rows.clone();
        self.last = Some(AbortOnDropHandle::new(tokio::spawn(async move { Sum::of(&rows) })));
        handed_over();
        Ok(())
    }

    /// The sum of all rows added.
    pub(crate) async fn finish(mut self) -> Result<Sum> {
        self.wait().await?;
        Ok(self.sum)
    }

    async fn wait(&mut self) -> Result<()> {
        if let Some(last) = self.last.take() {
            let sum = last.await.map_err(|error| Error::internal("a sum of rows was broken off").because(error))??;
            self.sum = self.sum.with(sum);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, StringArray};

    use super::*;

    type Row = (Option<&'static str>, Option<&'static str>);

    fn sum(rows: &[Row]) -> Sum {
        let column = |texts: Vec<Option<&str>>| Arc::new(StringArray::from(texts)) as ArrayRef;
        let (a, b) = rows.iter().copied().unzip();
        Sum::of(&RecordBatch::try_from_iter_with_nullable([("a", column(a), true), ("b", column(b), true)]).unwrap())
            .unwrap()
    }

    #[test]
    fn it_knows_rows_whatever_their_order() {
        let (one, two) = ((Some("a"), Some("b")), (None, Some("")));
        assert_eq!(sum(&[one, two]), sum(&[two, one]));
        assert_eq!(sum(&[one, two]), sum(&[one]).with(sum(&[two])));
        for other in [(Some("ab"), Some("")), (Some(""), None), (None, None)] {
            assert_ne!(sum(&[one]), sum(&[other]), "told apart");
        }
        assert_ne!(sum(&[one, one]), sum(&[one]));
        assert_ne!(sum(&[two]), sum(&[(Some(""), None)]));
    }

    #[tokio::test]
    async fn it_is_made_of_all_rows_that_were_added() {
        let rows: Vec<Row> = vec![(Some("a"), None), (None, None), (Some("b"), Some("c"))];
        let mut summing = Summing::default();
        for row in &rows {
            let column = |text: Option<&str>| Arc::new(StringArray::from(vec![text])) as ArrayRef;
            let columns = [("a", column(row.0), true), ("b", column(row.1), true)];
            summing.add(&RecordBatch::try_from_iter_with_nullable(columns).unwrap()).await.unwrap();
        }
        assert_eq!(summing.finish().await.unwrap(), sum(&rows));
    }
}
