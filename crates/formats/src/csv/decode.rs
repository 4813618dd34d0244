//! Bytes that come in any pieces become batches.

use std::{cell::Cell, collections::VecDeque};

use arrow_array::{BooleanArray, RecordBatch};
use arrow_schema::SchemaRef;
use bytes::{Buf as _, Bytes};
use towpath_core::{Error, Reject, Result, RowPosition, Size};

use super::{
    CsvOptions, Encoding, Header,
    encoding::Input,
    header::Layout,
    options::Dialect,
    record::{self, Walk, Was},
    scan::{self, Block, Fault, Place, Reach, Stop},
};
use crate::columns::{Builder, Cell as Value, Nulls, Parser, article, shown};

/// Rows of a batch, at most.
const ROWS: u32 = 8192;
/// Bytes of a batch; the record that passes them is its last.
const BYTES: usize = 1 << 20;
/// Records that are found before their values are gathered: as many as stay in the cache.
const STRETCH: u32 = 1024;
/// What is kept of a record past the limit.
const KEPT: usize = 64 << 10;
/// The longest piece that is looked at as one.
const PIECE: usize = 16 << 20;

/// A batch, and what stood between its rows.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The rows, in order.
    pub rows: RecordBatch,
    /// The records that did not become one, in order, with their bytes and their position.
    pub rejects: Vec<Reject>,
    /// Where the first record stands, row or reject.
    pub first: RowPosition,
    /// Where the next record begins, or empty lines before it: [`CsvDecoder::resume`] goes on here.
    pub end: RowPosition,
}

/// A decoder that bytes are pushed into and batches are taken out of. See [the module](super) for what it makes of them.
///
/// Batches end after the same records however the bytes came in pieces. After an error it is of no more use.
#[derive(Debug)]
pub struct CsvDecoder {
    options: CsvOptions,
    dialect: Dialect,
    nulls: Nulls,
    input: Input,
    /// What came and was not looked at.
    pieces: VecDeque<Bytes>,
    /// The beginning of a record whose end had not come.
    carry: Vec<u8>,
    /// How long `carry` must be before it is worth looking at again.
    worth: usize,
    began: bool,
    ended: bool,
    declared: Option<Layout>,
    layout: Option<Layout>,
    columns: Vec<Builder>,
    block: Block,
    /// Where what was not looked at begins.
    at: RowPosition,
    batch: Batch,
    /// A record past the limit, of which the rest is passed over.
    long: Option<Long>,
}

/// What is in the making.
#[derive(Debug, Default)]
struct Batch {
    first: Option<RowPosition>,
    /// Records, rows or rejects.
    records: u32,
    bytes: usize,
    /// Rows among those in the columns.
    rows: usize,
    /// Those of them that are to be taken out.
    refused: Vec<usize>,
    rejects: Vec<Reject>,
}

#[derive(Debug)]
struct Long {
    walk: Walk,
    position: RowPosition,
    kept: Vec<u8>,
    text: usize,
    /// The record has ended with CR, and LF may follow.
    ending: bool,
    lines: u64,
    before: u8,
}

impl CsvDecoder {
    /// A decoder for a stream from its first byte.
    ///
    /// # Errors
    /// Config: options that contradict each other.
    pub fn new(options: &CsvOptions) -> Result<Self> {
        let mut decoder = Self {
            dialect: options.dialect()?,
            nulls: Nulls::new(&options.nulls),
            input: Input::new(options.encoding),
            pieces: VecDeque::new(),
            carry: vec![],
            worth: 1,
            began: false,
            ended: false,
            declared: Layout::declared(options)?,
            layout: None,
            columns: vec![],
            block: Block::default(),
            at: RowPosition { record: 1, line: 1, byte: 0 },
            batch: Batch::default(),
            long: None,
            options: options.clone(),
        };
        // A wrong type is told before anything is read.
        decoder.columns =
            options.columns.iter().map(|(_, of)| Ok(Builder::new(Parser::new(of)?))).collect::<Result<_>>()?;
        Ok(decoder)
    }

    /// A decoder that goes on where a record begins: the bytes pushed start at `at.byte` of the stream. `schema` is what
    /// [`schema`](Self::schema) said of the same stream, its metadata included, which names the order of the fields and the encoding where
    /// the options do not.
    ///
    /// # Errors
    /// Config: options that contradict each other. Internal: a schema that is none of a decoder's.
    pub fn resume(options: &CsvOptions, schema: &SchemaRef, at: RowPosition) -> Result<Self> {
        let mut decoder = Self::new(options)?;
        let (layout, encoding) = Layout::resume(options, schema)?;
        decoder.at = at;
        decoder.input = if at.byte == 0 { Input::new(options.encoding) } else { Input::resume(encoding) };
        decoder.began = true;
        decoder.lay_out(layout)?;
        Ok(decoder)
    }

    /// Bytes as they come, decompressed.
    pub fn push(&mut self, chunk: Bytes) {
        self.began |= !chunk.is_empty();
        self.take(chunk, false);
    }

    fn take(&mut self, mut chunk: Bytes, last: bool) {
        loop {
            let piece = chunk.split_to(chunk.len().min(PIECE));
            let (text, mark) = self.input.push(piece, last && chunk.is_empty());
            self.at.byte += mark;
            if !text.is_empty() {
                self.pieces.push_back(text);
            }
            if chunk.is_empty() {
                return;
            }
        }
    }

    /// A full batch, of 8,192 records or 1 MiB. `None`: push more.
    ///
    /// # Errors
    /// Data: the header is missing, different, or longer than a record may be.
    #[expect(clippy::should_implement_trait, reason = "it is no iterator: after `None` more may come")]
    pub fn next(&mut self) -> Result<Option<Decoded>> {
        self.step(false)
    }

    /// The input has ended, and was whole, which only the caller can know. Call until `None`.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn finish(&mut self) -> Result<Option<Decoded>> {
        if !std::mem::replace(&mut self.ended, true) {
            self.take(Bytes::new(), true);
        }
        self.step(true)
    }

    /// What the rows are: once the header was read, or before any byte was pushed, if the options declare it.
    pub fn schema(&self) -> Option<SchemaRef> {
        let declared = self.declared.as_ref().filter(|_| !self.began || self.ended);
        self.layout.as_ref().or(declared).map(|layout| layout.schema.clone())
    }

    fn step(&mut self, last: bool) -> Result<Option<Decoded>> {
        loop {
            if self.batch.records >= ROWS || self.batch.bytes >= BYTES {
                return self.emit();
            }
            let more = if self.long.is_some() {
                self.pass_over(last)
            } else if self.layout.is_none() {
                self.read_header(last)?
            } else {
                self.scan(last)?
            };
            if !more {
                return if last { self.emit() } else { Ok(None) };
            }
        }
    }

    fn lay_out(&mut self, layout: Layout) -> Result<()> {
        let builder = |field: &std::sync::Arc<arrow_schema::Field>| {
            let text = crate::columns::ColumnType::Text;
            Ok(Builder::new(Parser::new(self.options.columns.get(field.name()).unwrap_or(&text))?))
        };
        self.columns = layout.schema.fields().iter().map(builder).collect::<Result<_>>()?;
        self.layout = Some(layout);
        Ok(())
    }

    /// Brings what is carried to a length that is worth a look. Answers whether it has it, and how much of the first piece, which stays
    /// where it is, is in it.
    fn fill(&mut self, least: usize, last: bool) -> (bool, usize) {
        let mut taken = 0;
        while self.carry.len() < self.worth {
            if taken > 0 {
                self.pieces.pop_front();
            }
            let Some(piece) = self.pieces.front() else { return (last, 0) };
            taken = piece.len().min(least.max(self.worth - self.carry.len()));
            self.carry.extend_from_slice(piece.get(..taken).unwrap_or_default());
            if taken < piece.len() {
                break;
            }
        }
        (self.carry.len() >= self.worth || last, taken)
    }

    /// The record that is carried did not end.
    fn not_ended(&mut self) {
        let long = self.dialect.max_record.saturating_add(2);
        let now = self.carry.len();
        // Looking at it again and again from its beginning must not cost more than its length.
        let then = if now < KEPT { now + 1 } else { now * 2 };
        self.worth = if now < long { then.min(long) } else { now + 1 };
    }

    /// Everything of the first piece that is carried is done with.
    fn drop_taken(&mut self, taken: usize) {
        if let Some(piece) = self.pieces.front_mut() {
            piece.advance(taken.min(piece.len()));
            if piece.is_empty() {
                self.pieces.pop_front();
            }
        }
    }

    /// Whether it was read; more must come if not.
    fn read_header(&mut self, last: bool) -> Result<bool> {
        let known = self.input.found();
        if let (Header::None, Some(declared), Some(found)) = (&self.options.header, &self.declared, known) {
            let layout = declared.told(self.options.encoding, found);
            self.lay_out(layout)?;
            return Ok(true);
        }
        let (worth, taken) = self.fill(usize::MAX, last);
        self.drop_taken(taken);
        if !worth {
            return Ok(false);
        }
        let empty = self.carry.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let text = self.carry.get(empty..).unwrap_or_default();
        let all = last && self.pieces.is_empty();
        let first = if text.is_empty() { None } else { record::first(self.dialect, text, all) };
        let long = match &first {
            None => text.len() > self.dialect.max_record + 1,
            Some((fields, _)) => fields.length > self.dialect.max_record,
        };
        if long {
            let what = format!("the header is longer than {}", Size(self.dialect.max_record as u64));
            return Err(Error::data(what).hint("is this a CSV file? look at `quote` and `encoding`"));
        }
        let Some((fields, end)) = first else {
            if !all {
                self.not_ended();
                return Ok(true);
            }
            if self.options.header == Header::None {
                self.carry.clear();
                return Ok(false);
            }
            return Err(Error::data("the header is missing: there is nothing in the input")
                .hint("an empty file is no CSV file with a header"));
        };
        let found = self.input.found().unwrap_or(Encoding::Utf8);
        let carry = std::mem::take(&mut self.carry);
        self.worth = 1;
        let layout = if self.options.header == Header::None {
            self.pieces.push_front(carry.into());
            Layout::numbered(fields.values.len(), &self.options.columns)
        } else {
            let text = carry.get(..empty + end).unwrap_or_default();
            self.at.line += u64::from(record::lines(text));
            self.at.byte += self.input.consume(text);
            let layout = Layout::read(&self.options, fields).map_err(|error| error.at("line 1"))?;
            let rest = Bytes::from(carry).slice(empty + end..);
            if !rest.is_empty() {
                self.pieces.push_front(rest);
            }
            layout
        };
        self.lay_out(layout.told(self.options.encoding, found))?;
        Ok(true)
    }

    /// Finds records and gathers them. Whether there may be more.
    fn scan(&mut self, last: bool) -> Result<bool> {
        let fields = self.columns.len();
        let reach = |batch: &Batch, last| Reach {
            records: STRETCH.min(ROWS - batch.records),
            bytes: BYTES - batch.bytes,
            last,
        };
        if self.carry.is_empty() {
            let Some(piece) = self.pieces.front().cloned() else { return Ok(false) };
            let reach = reach(&self.batch, last && self.pieces.len() == 1);
            let (done, stop) = scan::scan(self.dialect, fields, &piece, reach, &mut self.block);
            self.gather(&piece, done)?;
            self.drop_taken(done);
            if stop == Stop::Text && done < piece.len() {
                self.pieces.pop_front();
                self.carry.extend_from_slice(piece.get(done..).unwrap_or_default());
                self.not_ended();
            }
            self.passed_limit(stop);
            return Ok(true);
        }
        let (worth, taken) = self.fill(4096, last);
        if !worth {
            self.drop_taken(taken);
            return Ok(false);
        }
        let carry = std::mem::take(&mut self.carry);
        let left = self.pieces.len() > 1 || self.pieces.front().is_some_and(|piece| piece.len() > taken);
        let reach = reach(&self.batch, last && !left);
        let (done, stop) = scan::scan(self.dialect, fields, &carry, reach, &mut self.block);
        self.gather(&carry, done)?;
        let rest = carry.len() - done;
        self.worth = 1;
        if rest <= taken {
            // What is left stands in the first piece, and need not be carried.
            self.drop_taken(taken - rest);
            self.carry = carry;
            self.carry.clear();
        } else {
            self.drop_taken(taken);
            self.carry = carry;
            self.carry.drain(..done);
            if stop == Stop::Text {
                self.not_ended();
            }
        }
        self.passed_limit(stop);
        Ok(true)
    }

    fn passed_limit(&mut self, stop: Stop) {
        if stop == Stop::Long {
            self.long = Some(Long {
                walk: Walk::new(self.dialect),
                position: self.at,
                kept: vec![],
                text: 0,
                ending: false,
                lines: 0,
                before: 0,
            });
        }
    }

    /// Passes over the rest of a record past the limit. Whether it has ended.
    fn pass_over(&mut self, last: bool) -> bool {
        let Some(mut long) = self.long.take() else { return true };
        if !self.carry.is_empty() {
            self.pieces.push_front(std::mem::take(&mut self.carry).into());
        }
        self.worth = 1;
        while let Some(mut piece) = self.pieces.pop_front() {
            let before = long.text;
            let (used, ended) = long.pass(&piece);
            self.batch.bytes += used;
            let rest = piece.split_off(used.min(piece.len()));
            // The line end stands behind the last byte of the text.
            let kept = (long.text - before).min(KEPT.saturating_sub(before));
            long.kept.extend_from_slice(&self.input.original(piece.get(..kept).unwrap_or_default(), 0));
            self.at.byte += self.input.consume(&piece);
            if ended {
                if !rest.is_empty() {
                    self.pieces.push_front(rest);
                }
                self.over(long);
                return true;
            }
        }
        if last {
            self.over(long);
            return true;
        }
        self.long = Some(long);
        false
    }

    fn over(&mut self, long: Long) {
        let reject = Reject::bytes(long.kept.into(), long.position, self.reason(Fault::Long));
        self.batch.first.get_or_insert(long.position);
        self.batch.rejects.push(reject);
        self.batch.records += 1;
        self.at.record += 1;
        self.at.line += long.lines + u64::from(!long.ending);
    }

    fn reason(&self, fault: Fault) -> String {
        let expected = self.columns.len();
        match fault {
            Fault::Fields(found) => {
                let s = if found == 1 { "" } else { "s" };
                format!("the record has {found} field{s}, and {expected} are expected")
            }
            Fault::Quote => "something stands behind a closing quote".to_owned(),
            Fault::Open => "a quote is not closed".to_owned(),
            Fault::Long => format!("the record is longer than {}", Size(self.dialect.max_record as u64)),
        }
    }

    /// Takes what was found in the first `done` bytes of `text` into the batch.
    fn gather(&mut self, text: &[u8], done: usize) -> Result<()> {
        let done_text = text.get(..done).unwrap_or_default();
        let mut block = std::mem::take(&mut self.block);
        let (at, input) = (self.at, &self.input);
        // Rejects mostly come in order, so what was counted for one is not counted again for the next.
        let counted = Cell::new((0, 0));
        let came_at = |start: usize| {
            let (from, before) = Some(counted.get()).filter(|(from, _)| *from <= start).unwrap_or_default();
            let came = before + input.came_as(text.get(from..start).unwrap_or_default());
            counted.set((start, came));
            came
        };
        let position = |place: &Place| RowPosition {
            record: at.record + u64::from(place.record),
            line: at.line + u64::from(place.line),
            byte: at.byte + came_at(place.start as usize) as u64,
        };
        let reject = |place: &Place, reason: String| {
            let value = text.get(place.start as usize..place.end as usize).unwrap_or_default();
            let original = input.original(value, came_at(place.start as usize));
            Reject::bytes(original, position(place), reason)
        };
        let first = [block.rows.first(), block.bad.first().map(|(place, _)| place)];
        if let Some(place) = first.into_iter().flatten().min_by_key(|place| place.record) {
            self.batch.first.get_or_insert_with(|| position(place));
        }
        for (place, fault) in &block.bad {
            let mut place = *place;
            if *fault == Fault::Long {
                place.end = place.end.min(place.start + KEPT as u32);
            }
            self.batch.rejects.push(reject(&place, self.reason(*fault)));
        }
        let width = self.columns.len();
        let mut refused: Vec<(usize, Reject)> = vec![];
        if encoding_rs::Encoding::utf8_valid_up_to(done_text) < done {
            for (row, place) in block.rows.iter().enumerate() {
                let record = text.get(place.start as usize..place.end as usize).unwrap_or_default();
                if let Err(error) = std::str::from_utf8(record) {
                    let byte = self.input.came_as(record.get(..error.valid_up_to()).unwrap_or_default());
                    let name = match self.input.found() {
                        Some(Encoding::Utf16Le | Encoding::Utf16Be) => "UTF-16",
                        _ => "UTF-8",
                    };
                    refused.push((row, reject(place, format!("byte {byte} of the record is not {name}"))));
                    block.spans[row * width..(row + 1) * width].fill(scan::Span::EMPTY);
                }
            }
        }
        if let Some(layout) = &self.layout {
            let (spans, unescaped) = (&block.spans, &block.unescaped);
            for ((column, from), field) in self.columns.iter_mut().zip(&layout.from).zip(layout.schema.fields()) {
                let cell = |row: &[scan::Span]| {
                    let (base, start, end) = row[*from].within(text, unescaped);
                    Value { base, start, end }
                };
                let cells = spans.chunks_exact(width).map(|row| Some(cell(row)));
                column.extend(cells, &self.nulls, |row| {
                    let value = shown(cell(&spans[row * width..(row + 1) * width]).value());
                    let of = self.options.columns.get(field.name()).map(article).unwrap_or_default();
                    let reason = format!("column {}: '{value}' is not {of}", field.name());
                    refused.push((row, reject(&block.rows[row], reason).column(field.name())));
                });
            }
        }
        // A row's first fault is told.
        refused.sort_by_key(|(row, _)| *row);
        refused.dedup_by_key(|(row, _)| *row);
        for (row, reject) in refused {
            self.batch.refused.push(self.batch.rows + row);
            self.batch.rejects.push(reject);
        }
        self.batch.rows += block.rows.len();
        self.batch.records += block.records;
        self.batch.bytes += done;
        self.at.record += u64::from(block.records);
        self.at.line += u64::from(block.lines);
        self.at.byte += self.input.consume(done_text);
        self.block = block;
        Ok(())
    }

    /// The batch, if there is anything in it.
    fn emit(&mut self) -> Result<Option<Decoded>> {
        let Batch { first, rows, refused, mut rejects, .. } = std::mem::take(&mut self.batch);
        let (Some(first), Some(layout)) = (first, &self.layout) else { return Ok(None) };
        let columns = self.columns.iter_mut().map(Builder::finish).collect::<Result<Vec<_>>>()?;
        let wrong = |error| Error::internal("cannot build a batch").because(error);
        let mut batch = RecordBatch::try_new(layout.schema.clone(), columns).map_err(wrong)?;
        if !refused.is_empty() {
            let mut keep = vec![true; rows];
            for row in refused {
                keep[row] = false;
            }
            batch = arrow_select::filter::filter_record_batch(&batch, &BooleanArray::from(keep)).map_err(wrong)?;
        }
        rejects.sort_by_key(|reject| reject.position.map(|position| position.record));
        Ok(Some(Decoded { rows: batch, rejects, first, end: self.at }))
    }
}

impl Long {
    /// Looks at the bytes of a piece. How many belong to the record and its line end, and whether it has ended.
    fn pass(&mut self, piece: &[u8]) -> (usize, bool) {
        for (at, byte) in piece.iter().enumerate() {
            if self.ending {
                return (at + usize::from(*byte == b'\n'), true);
            }
            let was = self.walk.step(*byte);
            let line = *byte == b'\r' || (*byte == b'\n' && self.before != b'\r');
            self.lines += u64::from(line && matches!(was, Was::LineInQuotes | Was::RecordEnd));
            self.before = *byte;
            if was == Was::RecordEnd {
                self.ending = true;
                if *byte == b'\n' {
                    return (at + 1, true);
                }
            } else {
                self.text += 1;
            }
        }
        (piece.len(), false)
    }
}
