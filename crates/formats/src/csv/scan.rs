//! The quick way through records: 64 bytes at a time become a mask of the few that mean something.

use super::{options::Dialect, record};

/// Where a field's value stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    start: u32,
    /// With the highest bit set, in [`Block::unescaped`] and not in the text.
    end: u32,
}

const ELSEWHERE: u32 = 1 << 31;

impl Span {
    /// No text.
    pub(super) const EMPTY: Self = Self { start: 0, end: 0 };

    /// The text it is in, and where.
    #[inline]
    pub(super) fn within<'a>(self, text: &'a [u8], unescaped: &'a [u8]) -> (&'a [u8], usize, usize) {
        let base = if self.end & ELSEWHERE == 0 { text } else { unescaped };
        (base, self.start as usize, (self.end & !ELSEWHERE) as usize)
    }
}

/// Where a record stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Its first byte in the text.
    pub(super) start: u32,
    /// Behind its last byte, before its line end.
    pub(super) end: u32,
    /// Records before it in the block.
    pub(super) record: u32,
    /// Lines before it in the block.
    pub(super) line: u32,
}

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// So many fields.
    Fields(usize),
    /// Something stands behind a closing quote.
    Quote,
    /// A quote never closes.
    Open,
    /// Longer than allowed.
    Long,
}

/// Records found in a stretch of text.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// The fields of the good records, one record after the other.
    pub(super) spans: Vec<Span>,
    /// The good records.
    pub(super) rows: Vec<Place>,
    /// The others.
    pub(super) bad: Vec<(Place, Fault)>,
    /// Values that held quotes.
    pub(super) unescaped: Vec<u8>,
    /// Records, good or bad.
    pub(super) records: u32,
    /// Lines that ended.
    pub(super) lines: u32,
}

impl Block {
    fn clear(&mut self) {
        self.spans.clear();
        self.rows.clear();
        self.bad.clear();
        self.unescaped.clear();
        self.records = 0;
        self.lines = 0;
    }
}

/// How far a scan goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    /// So many records.
    pub(super) records: u32,
    /// No record begins at or behind this byte.
    pub(super) bytes: usize,
    /// The end of the text is the end of it all.
    pub(super) last: bool,
}

/// How a scan ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// As far as it should.
    Reached,
    /// The text ends, perhaps inside a record.
    Text,
    /// The record that begins here is longer than allowed, and reading cannot go on inside it.
    Long,
}

/// Finds the records of `fields` fields in `text`, which begins with one. Answers how far it has come, which is where a record begins.
pub(super) fn scan(dialect: Dialect, fields: usize, text: &[u8], reach: Reach, block: &mut Block) -> (usize, Stop) {
    block.clear();
    let mut scan = Scan { dialect, fields, text, reach, block, record: 0, line: 0 };
    let mut from = 0;
    loop {
        match scan.run(from) {
            Run::Stop(stop) => return (scan.record, stop),
            Run::Again(at) => from = at,
        }
    }
}

struct Scan<'a> {
    dialect: Dialect,
    fields: usize,
    text: &'a [u8],
    reach: Reach,
    block: &'a mut Block,
    /// Where the record begins.
    record: usize,
    /// Lines before it.
    line: u32,
}

enum Run {
    Stop(Stop),
    /// A record ended elsewhere than it seemed.
    Again(usize),
}

/// Inside which quotes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// None.
    Bare,
    /// A field that began with a quote.
    Quoted,
    /// Behind the closing quote.
    Closed,
}

impl Scan<'_> {
    /// Scans from `from`, where a record begins.
    fn run(&mut self, from: usize) -> Run {
        let text = self.text;
        let Dialect { delimiter, quote, escape, .. } = self.dialect;
        let marks = Marks::new(self.dialect);
        self.record = from;
        let mut first = self.block.spans.len();
        let (mut field, mut mode, mut doubled, mut broken) = (from, Mode::Bare, false, false);
        // Bytes before this one have had their say.
        let mut skip = from;
        let mut at = from;
        while at < text.len() {
            let mut mask = marks.of(text, at);
            while mask != 0 {
                let here = at + mask.trailing_zeros() as usize;
                mask &= mask - 1;
                let byte = text[here];
                if mode == Mode::Bare && byte == delimiter {
                    self.block.spans.push(Span { start: field as u32, end: here as u32 });
                    field = here + 1;
                    continue;
                }
                if here < skip {
                    continue;
                }
                if mode == Mode::Quoted {
                    if Some(byte) == quote {
                        match text.get(here + 1) {
                            Some(next) if Some(*next) == quote => {
                                doubled = true;
                                skip = here + 2;
                            }
                            Some(next) if *next != delimiter && !matches!(next, b'\r' | b'\n') => {
                                broken = true;
                                mode = Mode::Bare;
                            }
                            None if !self.reach.last => return self.short(first, text.len()),
                            _ => {
                                mode = Mode::Closed;
                                if here + 1 == text.len() {
                                    break;
                                }
                            }
                        }
                    } else if Some(byte) == escape {
                        doubled = true;
                        skip = here + 2;
                        // The line that is skipped with it.
                        if let Some(b'\r' | b'\n') = text.get(here + 1) {
                            self.block.lines += 1;
                        }
                    } else if matches!(byte, b'\r' | b'\n') {
                        self.block.lines += u32::from(byte == b'\r' || text[here - 1] != b'\r');
                    }
                    continue;
                }
                if byte == delimiter {
                    self.quoted(field + 1, here - 1, doubled);
                    (field, mode, doubled) = (here + 1, Mode::Bare, false);
                    continue;
                }
                if !matches!(byte, b'\r' | b'\n') {
                    if here == field && Some(byte) == quote {
                        mode = Mode::Quoted;
                    }
                    continue;
                }
                // The end of a record.
                let mut end = here + 1;
                if byte == b'\r' {
                    match text.get(end) {
                        Some(b'\n') => end += 1,
                        None if !self.reach.last => return self.short(first, here),
                        _ => {}
                    }
                }
                skip = end;
                if mode == Mode::Closed {
                    self.quoted(field + 1, here - 1, doubled);
                } else if here == self.record {
                    // An empty line.
                    self.block.lines += 1;
                    self.line = self.block.lines;
                    (self.record, field) = (end, end);
                    continue;
                } else {
                    self.block.spans.push(Span { start: field as u32, end: here as u32 });
                }
                if let Some(run) = self.ended(first, here, end, broken, false) {
                    return run;
                }
                first = self.block.spans.len();
                (field, mode, doubled, broken) = (end, Mode::Bare, false, false);
            }
            at += 64;
        }
        if !self.reach.last || self.record == text.len() {
            return self.short(first, text.len());
        }
        let end = text.len();
        match mode {
            Mode::Bare => self.block.spans.push(Span { start: field as u32, end: end as u32 }),
            Mode::Closed => self.quoted(field + 1, end - 1, doubled),
            Mode::Quoted => {}
        }
        self.ended(first, end, end, broken, mode == Mode::Quoted).unwrap_or(Run::Stop(Stop::Text))
    }

    /// A field in quotes, without them.
    fn quoted(&mut self, start: usize, end: usize, doubled: bool) {
        if !doubled {
            self.block.spans.push(Span { start: start as u32, end: end as u32 });
            return;
        }
        let to = &mut self.block.unescaped;
        let begin = to.len();
        let mut bytes = self.text[start..end].iter().copied();
        while let Some(byte) = bytes.next() {
            if Some(byte) == self.dialect.quote || Some(byte) == self.dialect.escape {
                to.extend(bytes.next());
            } else {
                to.push(byte);
            }
        }
        self.block.spans.push(Span { start: begin as u32, end: to.len() as u32 | ELSEWHERE });
    }

    /// A record has ended before `here`, its line before `end`.
    #[inline]
    fn ended(&mut self, first: usize, here: usize, end: usize, broken: bool, open: bool) -> Option<Run> {
        let fields = self.block.spans.len() - first;
        if fields != self.fields || broken || open || here - self.record > self.dialect.max_record {
            let fault = if open {
                Fault::Open
            } else if broken {
                Fault::Quote
            } else {
                Fault::Fields(fields)
            };
            return self.wrong(first, here, end, fault);
        }
        let place = self.place(here);
        self.block.rows.push(place);
        self.next(end)
    }

    fn place(&self, end: usize) -> Place {
        Place { start: self.record as u32, end: end as u32, record: self.block.records, line: self.line }
    }

    /// The next record begins at `at`.
    #[inline]
    fn next(&mut self, at: usize) -> Option<Run> {
        self.record = at;
        self.block.records += 1;
        self.block.lines += 1;
        self.line = self.block.lines;
        (self.block.records >= self.reach.records || at >= self.reach.bytes).then_some(Run::Stop(Stop::Reached))
    }

    /// A record that seems to end before `here`, its line before `end`, has a fault.
    #[cold]
    fn wrong(&mut self, first: usize, here: usize, end: usize, fault: Fault) -> Option<Run> {
        // One past the limit must fare as if its end had not been seen.
        let (limit, fault) = match self.record + self.dialect.max_record {
            limit if limit < here => (Some(limit), Fault::Long),
            _ => (None, fault),
        };
        self.block.spans.truncate(first);
        if let Some(run) = self.resume(limit.unwrap_or(end), limit.is_none(), fault) {
            return Some(run);
        }
        self.block.bad.push((self.place(here), fault));
        self.next(end)
    }

    /// Goes on inside a record, of which the bytes before `end` may be looked at.
    fn resume(&mut self, end: usize, ended: bool, fault: Fault) -> Option<Run> {
        let text = self.text.get(self.record..end)?;
        let at = self.record + record::resume_at(self.dialect, text, self.fields, ended && self.reach.last)?;
        let line = self.text.get(self.record..at)?;
        let content = line.strip_suffix(b"\n").unwrap_or(line);
        let content = content.strip_suffix(b"\r").unwrap_or(content);
        let place = self.place(self.record + content.len());
        let fault = if fault == Fault::Quote { Fault::Quote } else { Fault::Open };
        self.block.bad.push((place, fault));
        self.block.lines = self.line + record::lines(line) - 1;
        Some(self.next(at).unwrap_or(Run::Again(at)))
    }

    /// The text ends before the record that is at least as long as up to `content`.
    #[cold]
    fn short(&mut self, first: usize, content: usize) -> Run {
        self.block.spans.truncate(first);
        self.block.lines = self.line;
        if content - self.record <= self.dialect.max_record {
            return Run::Stop(Stop::Text);
        }
        let run = self.resume(self.record + self.dialect.max_record, false, Fault::Long);
        run.unwrap_or(Run::Stop(Stop::Long))
    }
}

/// Finds the bytes that mean something.
struct Marks([u64; 5]);

impl Marks {
    fn new(dialect: Dialect) -> Self {
        let Dialect { delimiter, quote, escape, .. } = dialect;
        let each = |byte: u8| u64::from(byte) * 0x0101_0101_0101_0101;
        let (quote, escape) = (quote.unwrap_or(delimiter), escape.unwrap_or(delimiter));
        Self([each(delimiter), each(b'\n'), each(b'\r'), each(quote), each(escape)])
    }

    /// A bit for each of the 64 bytes from `at` that is one.
    #[inline]
    fn of(&self, text: &[u8], at: usize) -> u64 {
        if let Some(block) = text.get(at..at + 64).and_then(|block| block.first_chunk()) {
            return self.mask(block);
        }
        let mut block = [0; 64];
        if let Some(rest) = text.get(at..)
            && let Some(to) = block.get_mut(..rest.len())
        {
            to.copy_from_slice(rest);
        }
        self.mask(&block)
    }

    #[inline]
    fn mask(&self, block: &[u8; 64]) -> u64 {
        const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
        let (words, _) = block.as_chunks::<8>();
        let mut mask = 0;
        for (at, word) in words.iter().enumerate() {
            let word = u64::from_le_bytes(*word);
            let mut none = u64::MAX;
            for mark in &self.0 {
                // The highest bit of a byte stays clear only where the byte is the mark.
                let differs = word ^ mark;
                none &= ((differs & LOW) + LOW) | differs;
            }
            // The highest bits of eight bytes become one byte.
            let found = (!none & !LOW) >> 7;
            mask |= (found.wrapping_mul(0x0102_0408_1020_4080) >> 56) << (at * 8);
        }
        mask
    }
}
