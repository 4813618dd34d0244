//! Rows that wait until another sink has committed: in memory up to a bound, then in a file.

use std::{
    collections::VecDeque,
    fs::File,
    io::{BufReader, BufWriter, Seek, SeekFrom, Write},
};

use arrow_array::RecordBatch;
use arrow_ipc::{reader::StreamReader, writer::StreamWriter};
use arrow_schema::SchemaRef;
use towpath_core::{Error, Result, batch::PieceId};

/// A queue of batches. What lies behind the bound is written to an unnamed temporary file (Arrow IPC), which is gone with the
/// process.
pub(crate) struct Spill {
    bound: usize,
    used: usize,
    memory: VecDeque<(RecordBatch, PieceId)>,
    files: VecDeque<Spilled>,
}

/// Batches of one schema on disk.
struct Spilled {
    schema: SchemaRef,
    writer: StreamWriter<BufWriter<File>>,
    pieces: VecDeque<PieceId>,
}

/// What waited, oldest first.
pub(crate) struct Waited {
    memory: VecDeque<(RecordBatch, PieceId)>,
    files: VecDeque<Spilled>,
    reading: Option<(StreamReader<BufReader<File>>, VecDeque<PieceId>)>,
}

fn disk(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::unavailable("cannot keep waiting rows in a temporary file")
        .because(error)
        .hint("free space in the temporary folder (TMPDIR)")
}

impl Spill {
    /// A queue that keeps `bound` bytes in memory.
    pub(crate) fn new(bound: u64) -> Self {
        Self { bound: bound as usize, used: 0, memory: VecDeque::new(), files: VecDeque::new() }
    }

    /// Adds a batch.
    pub(crate) fn push(&mut self, rows: RecordBatch, piece: &PieceId) -> Result<()> {
        let bytes = rows.get_array_memory_size();
        if self.files.is_empty() && self.used + bytes <= self.bound {
            self.used += bytes;
            self.memory.push_back((rows, piece.clone()));
            return Ok(());
        }
        if self.files.back().is_none_or(|file| file.schema != rows.schema()) {
            let file = BufWriter::new(tempfile::tempfile().map_err(disk)?);
            let writer = StreamWriter::try_new(file, &rows.schema()).map_err(disk)?;
            self.files.push_back(Spilled { schema: rows.schema(), writer, pieces: VecDeque::new() });
        }
        if let Some(file) = self.files.back_mut() {
            file.writer.write(&rows).map_err(disk)?;
            file.pieces.push_back(piece.clone());
        }
        Ok(())
    }

    /// Empties the queue into a reader.
    pub(crate) fn take(&mut self) -> Result<Waited> {
        self.used = 0;
        Ok(Waited { memory: std::mem::take(&mut self.memory), files: std::mem::take(&mut self.files), reading: None })
    }
}

impl Waited {
    /// The next batch.
    pub(crate) fn next(&mut self) -> Result<Option<(RecordBatch, PieceId)>> {
        if let Some(first) = self.memory.pop_front() {
            return Ok(Some(first));
        }
        loop {
            if let Some((reader, pieces)) = &mut self.reading
                && let Some(piece) = pieces.pop_front()
            {
                let Some(rows) = reader.next() else {
                    return Err(Error::internal("a batch is missing in a temporary file"));
                };
                return Ok(Some((rows.map_err(disk)?, piece)));
            }
            let Some(Spilled { mut writer, pieces, .. }) = self.files.pop_front() else { return Ok(None) };
            writer.finish().map_err(disk)?;
            let mut buffer = writer.into_inner().map_err(disk)?;
            buffer.flush().map_err(disk)?;
            let mut file = buffer.into_inner().map_err(|error| disk(error.into_error()))?;
            file.seek(SeekFrom::Start(0)).map_err(disk)?;
            let reader = StreamReader::try_new(BufReader::new(file), None).map_err(disk)?;
            self.reading = Some((reader, pieces));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int64Array, StringArray};
    use towpath_core::{Mark, Token};

    use super::*;

    #[test]
    fn what_waits_comes_back_in_order_from_memory_and_from_disk() {
        for bound in [0, 2_000, 1 << 20] {
            let mut spill = Spill::new(bound);
            let batch = |n: i64| -> RecordBatch {
                let column: ArrayRef = if n % 7 < 5 {
                    Arc::new(Int64Array::from(vec![n; 10]))
                } else {
                    Arc::new(StringArray::from(vec!["x"; 10]))
                };
                RecordBatch::try_from_iter([("a", column)]).unwrap()
            };
            for round in 0..2 {
                for n in 0..40 {
                    let piece = PieceId { source: "s".into(), seq: n as u64, mark: Mark::One(Token(round)) };
                    spill.push(batch(n), &piece).unwrap();
                }
                let mut waited = spill.take().unwrap();
                for n in 0..40 {
                    let (rows, piece) = waited.next().unwrap().unwrap();
                    assert_eq!((rows, piece.seq), (batch(n), n as u64), "bound {bound}");
                }
                assert!(waited.next().unwrap().is_none());
            }
        }
    }
}
