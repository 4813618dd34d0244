//! Rows split into parts by a hash of their key, on disk but for a last bit: what a disk shuffle writes and reads.
//!
//! A writer gathers batches up to its share of memory, splits them in one go and appends one block per part to one file: few files,
//! large blocks, whatever the number of parts. What it holds when the rows end stays in memory, so that small inputs never touch the
//! disk.

use std::{
    fs::File,
    io::Write as _,
    os::unix::fs::FileExt as _,
    sync::{Arc, Mutex, PoisonError},
};

use datafusion::{
    arrow::{
        array::RecordBatch,
        buffer::Buffer,
        compute::interleave_record_batch,
        datatypes::SchemaRef,
        ipc::{reader::StreamDecoder, writer::StreamWriter},
    },
    common::hash_utils::{QualityRandomState, create_hashes},
    error::{DataFusionError, Result},
    execution::memory_pool::MemoryReservation,
    physical_expr::PhysicalExpr,
};

use crate::spill::Disk;

/// Not a seed of DataFusion's: rows of one part must not fall together in the hash tables behind.
const SEED: QualityRandomState = QualityRandomState::with_seed(0x746f_7770_6174_6801);

/// Rows of a block at the most: of a part that has half of all rows it would be half of what is gathered, held once more to be written, and by everyone
/// who reads it.
const BLOCK_ROWS: usize = 16 * 1024;

/// Rows in parts, readable any number of times, by any number of readers.
#[derive(Debug)]
pub(crate) struct Store {
    files: Vec<Written>,
    parts: Vec<Part>,
}

/// What is known of a part.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Part {
    pub(crate) rows: usize,
    /// As they were in memory.
    pub(crate) bytes: usize,
}

/// What one writer left.
#[derive(Debug)]
struct Written {
    disk: Option<OnDisk>,
    /// Parts that never went to disk.
    memory: Vec<Vec<RecordBatch>>,
    _room: MemoryReservation,
}

#[derive(Debug)]
struct OnDisk {
    file: File,
    /// The schema, which comes before every block that is read.
    header: Buffer,
    /// Offset and length, in the order of the rows.
    blocks: Vec<Vec<(u64, u32)>>,
    bytes: u64,
    disk: Disk,
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        self.disk.give(self.bytes);
    }
}

impl Store {
    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }
    pub(crate) fn total(&self) -> Part {
        let add = |a: Part, b: &Part| Part { rows: a.rows + b.rows, bytes: a.bytes + b.bytes };
        self.parts.iter().fold(Part::default(), add)
    }
    /// Bytes that lie on disk.
    pub(crate) fn spilled(&self) -> u64 {
        self.files.iter().filter_map(|written| written.disk.as_ref()).map(|disk| disk.bytes).sum()
    }
    /// The rows of a part, in the order in which each writer was given them.
    pub(crate) fn read(self: &Arc<Self>, part: usize) -> impl Iterator<Item = Result<RecordBatch>> + Send + use<> {
        let store = Arc::clone(self);
        (0..self.files.len()).flat_map(move |at| Reader { store: Arc::clone(&store), at, part, next: 0, decoder: None })
    }
}

/// Reads a part of one writer: blocks from disk, then what stayed in memory.
struct Reader {
    store: Arc<Store>,
    at: usize,
    part: usize,
    next: usize,
    decoder: Option<StreamDecoder>,
}

impl Reader {
    fn block(disk: &OnDisk, decoder: &mut Option<StreamDecoder>, (offset, length): (u64, u32)) -> Result<RecordBatch> {
        let decoder = match decoder {
            Some(decoder) => decoder,
            None => {
                let new = decoder.insert(StreamDecoder::new());
                new.decode(&mut disk.header.clone())?;
                new
            }
        };
        let mut bytes = vec![0; length as usize];
        disk.file.read_exact_at(&mut bytes, offset).map_err(|error| outside(disk.disk.failed(error)))?;
        let mut bytes = Buffer::from_vec(bytes);
        while !bytes.is_empty() {
            if let Some(rows) = decoder.decode(&mut bytes)? {
                return Ok(rows);
            }
        }
        Err(DataFusionError::Internal("a block on disk ends before its rows do".to_owned()))
    }
}

impl Iterator for Reader {
    type Item = Result<RecordBatch>;
    fn next(&mut self) -> Option<Self::Item> {
        let written = self.store.files.get(self.at)?;
        let next = self.next;
        self.next += 1;
        let blocks = written.disk.as_ref().and_then(|disk| Some((disk, disk.blocks.get(self.part)?)));
        if let Some((disk, blocks)) = blocks {
            if let Some(block) = blocks.get(next) {
                return Some(Self::block(disk, &mut self.decoder, *block));
            }
            return written.memory.get(self.part)?.get(next - blocks.len()).cloned().map(Ok);
        }
        written.memory.get(self.part)?.get(next).cloned().map(Ok)
    }
}

/// An error of Towpath's, on its way through DataFusion.
pub(crate) fn outside(error: towpath_core::Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Writers of one store add what they have here.
#[derive(Debug)]
pub(crate) struct Collector {
    store: Mutex<Store>,
}

impl Collector {
    pub(crate) fn new(parts: usize) -> Self {
        Self { store: Mutex::new(Store { files: vec![], parts: vec![Part::default(); parts] }) }
    }
    pub(crate) fn into_store(self) -> Store {
        self.store.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Splits rows.
pub(crate) struct Writer {
    schema: SchemaRef,
    /// The key; with one part there is none.
    key: Vec<Arc<dyn PhysicalExpr>>,
    /// How many bytes are gathered before they are split and written.
    room: usize,
    reserved: MemoryReservation,
    disk: Disk,
    gathered: Vec<RecordBatch>,
    /// The part of every row gathered.
    places: Vec<u16>,
    bytes: usize,
    parts: Vec<Part>,
    hashes: Vec<u64>,
    /// A file, once there is more than there is room for.
    file: Option<OnDisk>,
    ipc: Option<StreamWriter<Vec<u8>>>,
}

impl Writer {
    /// `reserved` is what the writer may hold; it is grown to `room` at once.
    pub(crate) fn new(
        schema: SchemaRef,
        key: Vec<Arc<dyn PhysicalExpr>>,
        parts: usize,
        room: usize,
        reserved: MemoryReservation,
        disk: Disk,
    ) -> Result<Self> {
        reserved.try_grow(room)?;
        Ok(Self {
            schema,
            key,
            room,
            reserved,
            disk,
            gathered: vec![],
            places: vec![],
            bytes: 0,
            parts: vec![Part::default(); parts],
            hashes: vec![],
            file: None,
            ipc: None,
        })
    }

    /// Takes rows.
    pub(crate) fn push(&mut self, rows: RecordBatch) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        if rows.num_columns() == 0 {
            // `count(*)` reads no column: there is nothing to write, and no key.
            self.parts.iter_mut().for_each(|part| part.rows += rows.num_rows());
            self.gathered.push(rows);
            return Ok(());
        }
        // Besides the rows, a place and an index of each are held while they are split.
        const BESIDE: usize = size_of::<u16>() + size_of::<(usize, usize)>();
        let bytes =
            rows.columns().iter().map(|column| column.to_data().get_slice_memory_size()).sum::<Result<usize, _>>()?;
        let count = rows.num_rows();
        let many = self.parts.len();
        let at = self.places.len();
        if many > 1 {
            self.hashes.clear();
            self.hashes.resize(count, 0);
            let key = self.key.iter().map(|key| key.evaluate(&rows)?.into_array(count)).collect::<Result<Vec<_>>>()?;
            let hashes = create_hashes(&key, &SEED, &mut self.hashes)?;
            self.places.extend(hashes.iter().map(|hash| (((hash >> 32) * many as u64) >> 32) as u16));
        } else {
            self.places.resize(at + count, 0);
        }
        let each = bytes / count;
        for place in self.places.get(at..).unwrap_or_default() {
            if let Some(part) = self.parts.get_mut(usize::from(*place)) {
                part.rows += 1;
                part.bytes += each;
            }
        }
        self.bytes += bytes + count * BESIDE;
        self.gathered.push(rows);
        if self.bytes > self.room {
            self.flush()?;
        }
        Ok(())
    }

    /// What is gathered, part by part, in blocks.
    fn split(&mut self) -> impl Iterator<Item = (usize, Result<RecordBatch>)> + use<> {
        let gathered = std::mem::take(&mut self.gathered);
        let places = std::mem::take(&mut self.places);
        self.bytes = 0;
        // Sorted by counting: `ends[part]` is where the part's rows begin, and, once they are placed, where they end.
        let mut ends = vec![0usize; self.parts.len()];
        for place in &places {
            ends[usize::from(*place)] += 1;
        }
        let mut sum = 0;
        for end in &mut ends {
            sum += std::mem::replace(end, sum);
        }
        let mut order = vec![(0, 0); places.len()];
        let mut place = places.iter();
        for (number, rows) in gathered.iter().enumerate() {
            for (row, place) in (0..rows.num_rows()).zip(&mut place) {
                let end = &mut ends[usize::from(*place)];
                order[*end] = (number, row);
                *end += 1;
            }
        }
        let mut from = 0;
        let blocks = ends.into_iter().enumerate().flat_map(move |(part, to)| {
            let own = std::mem::replace(&mut from, to)..to;
            own.clone().step_by(BLOCK_ROWS).map(move |first| (part, first..own.end.min(first + BLOCK_ROWS)))
        });
        blocks.map(move |(part, own)| {
            let batches: Vec<&RecordBatch> = gathered.iter().collect();
            (part, interleave_record_batch(&batches, &order[own]).map_err(DataFusionError::from))
        })
    }

    fn flush(&mut self) -> Result<()> {
        for (part, rows) in self.split() {
            self.append(part, &rows?)?;
        }
        Ok(())
    }

    fn append(&mut self, part: usize, rows: &RecordBatch) -> Result<()> {
        let ipc = match &mut self.ipc {
            Some(ipc) => ipc,
            None => self.ipc.insert(StreamWriter::try_new(Vec::new(), &self.schema)?),
        };
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let header = Buffer::from_vec(std::mem::take(ipc.get_mut()));
                let (file, blocks) = (self.disk.file().map_err(outside)?, vec![vec![]; self.parts.len()]);
                self.file.insert(OnDisk { file, header, blocks, bytes: 0, disk: self.disk.clone() })
            }
        };
        ipc.write(rows)?;
        let block = ipc.get_mut();
        let length = u32::try_from(block.len())
            .map_err(|_| DataFusionError::Execution("a block on disk would be larger than 4 GiB".to_owned()))?;
        self.disk.take(u64::from(length)).map_err(outside)?;
        // From here on it is given back with the file.
        let offset = file.bytes;
        file.bytes += u64::from(length);
        file.file.write_all(block).map_err(|error| outside(self.disk.failed(error)))?;
        block.clear();
        if let Some(blocks) = file.blocks.get_mut(part) {
            blocks.push((offset, length));
        }
        Ok(())
    }

    /// No more rows.
    pub(crate) fn finish(mut self, into: &Collector) -> Result<()> {
        let held = self.bytes;
        let mut memory = vec![vec![]; self.parts.len()];
        if self.parts.len() == 1 {
            memory = vec![std::mem::take(&mut self.gathered)];
        } else {
            for (part, rows) in self.split() {
                memory[part].push(rows?);
            }
        }
        self.reserved.shrink(self.room.saturating_sub(held));
        let mut store = into.store.lock().unwrap_or_else(PoisonError::into_inner);
        for (all, own) in store.parts.iter_mut().zip(&self.parts) {
            all.rows += own.rows;
            all.bytes += own.bytes;
        }
        store.files.push(Written { disk: self.file, memory, _room: self.reserved });
        Ok(())
    }
}
