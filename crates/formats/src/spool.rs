//! Rows held aside, in order: in memory first, then in a file that has no name, so that a killed process leaves nothing behind.

use std::{
    fs::File,
    io::{BufReader, BufWriter, Seek as _, SeekFrom, Write as _},
    path::PathBuf,
};

use arrow_array::RecordBatch;
use arrow_ipc::{reader::StreamReader, writer::StreamWriter};
use arrow_schema::{ArrowError, SchemaRef};
use towpath_core::{Error, Result};

/// What may wait in memory.
const MEMORY: usize = 2 << 20;
/// Buffer in front of the file.
const BUFFER: usize = 256 << 10;

/// Rows that wait, in order. Their schema may change from batch to batch.
pub struct Spool {
    dir: PathBuf,
    /// Files that are finished, oldest first; each of one schema.
    files: Vec<File>,
    /// The file being written; younger than `files`.
    open: Option<(SchemaRef, Box<StreamWriter<BufWriter<File>>>)>,
    /// The youngest.
    memory: Vec<RecordBatch>,
    bytes: usize,
}

fn unwritable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::unavailable("cannot hold rows aside in a file").because(error).hint("make room on the disk")
}

fn spoilt(error: ArrowError) -> Error {
    unwritable(error)
}

fn from_start(mut file: &File) -> Result<StreamReader<BufReader<&File>>> {
    file.seek(SeekFrom::Start(0)).map_err(unwritable)?;
    StreamReader::try_new(BufReader::with_capacity(BUFFER, file), None).map_err(spoilt)
}

impl Spool {
    /// An empty one; files go to `dir`.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, files: vec![], open: None, memory: vec![], bytes: 0 }
    }

    /// Adds rows.
    ///
    /// # Errors
    /// Unavailable: no file can be made or written.
    pub fn push(&mut self, rows: RecordBatch) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        self.bytes += rows.get_array_memory_size();
        self.memory.push(rows);
        if self.bytes > MEMORY {
            for rows in std::mem::take(&mut self.memory) {
                self.spill(&rows)?;
            }
            self.bytes = 0;
        }
        Ok(())
    }

    fn spill(&mut self, rows: &RecordBatch) -> Result<()> {
        if self.open.as_ref().is_some_and(|(schema, _)| *schema != rows.schema()) {
            self.finish()?;
        }
        let writer = match &mut self.open {
            Some((_, writer)) => writer,
            None => {
                let file = tempfile::tempfile_in(&self.dir).map_err(unwritable)?;
                let file = BufWriter::with_capacity(BUFFER, file);
                let writer = StreamWriter::try_new(file, rows.schema_ref()).map_err(spoilt)?;
                &mut self.open.insert((rows.schema(), Box::new(writer))).1
            }
        };
        writer.write(rows).map_err(spoilt)
    }

    fn finish(&mut self) -> Result<()> {
        if let Some((_, writer)) = self.open.take() {
            let mut file = writer.into_inner().map_err(spoilt)?;
            file.flush().map_err(unwritable)?;
            self.files.push(file.into_inner().map_err(|error| unwritable(error.into_error()))?);
        }
        Ok(())
    }

    /// Goes through all rows, in order, as often as needed; a batch at a time is in memory.
    ///
    /// # Errors
    /// Unavailable: a file cannot be written or read.
    pub fn batches(&mut self) -> Result<impl Iterator<Item = Result<RecordBatch>> + Send + '_> {
        self.finish()?;
        let files = self.files.iter().flat_map(|file| {
            let (rows, error) = match from_start(file) {
                Ok(rows) => (Some(rows), None),
                Err(error) => (None, Some(Err(error))),
            };
            error.into_iter().chain(rows.into_iter().flatten().map(|rows| rows.map_err(spoilt)))
        });
        Ok(files.chain(self.memory.iter().cloned().map(Ok)))
    }

    /// The same, batches counted from 0.
    ///
    /// # Errors
    /// Unavailable: a file cannot be written or read. Those of `take`.
    pub fn each(&mut self, mut take: impl FnMut(usize, &RecordBatch) -> Result<()>) -> Result<()> {
        self.batches()?.enumerate().try_for_each(|(at, rows)| take(at, &rows?))
    }

    /// Forgets all rows.
    pub fn clear(&mut self) {
        (self.open, self.bytes) = (None, 0);
        self.files.clear();
        self.memory.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Int64Array, StringArray, cast::AsArray as _, types::Int64Type};

    use super::*;

    #[test]
    fn rows_come_back_in_order_however_many_and_however_often() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(dir.path().to_owned());
        for round in 0..2 {
            let mut expect = vec![];
            for at in 0..40i64 {
                let number = Arc::new(Int64Array::from_iter_values((0..20_000).map(|row| at * 20_000 + row)));
                // The schema changes in between.
                let name = if at < 25 { "a" } else { "b" };
                let rows = RecordBatch::try_from_iter([(name, number as _)]).unwrap();
                spool.push(rows).unwrap();
                expect.push((name.to_owned(), at * 20_000));
            }
            let text = Arc::new(StringArray::from(vec!["x"]));
            spool.push(RecordBatch::try_from_iter([("t", text as _)]).unwrap()).unwrap();
            assert_eq!(spool.files.len() + usize::from(spool.open.is_some()), 2, "it did spill");
            for _ in 0..2 {
                let mut got = vec![];
                spool
                    .each(|at, rows| {
                        let name = rows.schema().field(0).name().clone();
                        if at < 40 {
                            got.push((name, rows.column(0).as_primitive::<Int64Type>().value(0)));
                        }
                        Ok(())
                    })
                    .unwrap();
                assert_eq!(got, expect, "round {round}");
            }
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "its files have no names");
            spool.clear();
        }
    }
}
