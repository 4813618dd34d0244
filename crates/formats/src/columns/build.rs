//! Values of a column, gathered in bulk.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, PrimitiveArray, StringArray,
    TimestampMicrosecondArray, types::ArrowPrimitiveType,
};
use arrow_buffer::{BooleanBufferBuilder, Buffer, NullBufferBuilder, OffsetBuffer, ScalarBuffer};
use arrow_schema::ArrowError;
use towpath_core::{Error, Result};

use super::{Parser, parse};

/// What stands for NULL, besides nothing at all in a typed column.
#[derive(Clone, Debug, Default)]
pub(crate) struct Nulls(Vec<Box<[u8]>>);

impl Nulls {
    pub(crate) fn new(nulls: &[String]) -> Self {
        Self(nulls.iter().map(|null| null.as_bytes().into()).collect())
    }
    #[inline]
    fn has(&self, value: &[u8]) -> bool {
        !self.0.is_empty() && self.0.iter().any(|null| **null == *value)
    }
}

/// A value as a part of what surrounds it, so that short ones can be copied at a fixed length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell<'a> {
    pub(crate) base: &'a [u8],
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl<'a> Cell<'a> {
    pub(crate) fn value(&self) -> &'a [u8] {
        self.base.get(self.start..self.end).unwrap_or_default()
    }
}

/// A column that grows.
#[derive(Debug)]
pub(crate) struct Builder {
    parser: Parser,
    values: Values,
    nulls: NullBufferBuilder,
}

#[derive(Debug)]
enum Values {
    Text(Text),
    Long(Vec<i64>),
    Float(Vec<f64>),
    Decimal(Vec<i128>),
    Bool(BooleanBufferBuilder),
    Days(Vec<i32>),
}

impl Builder {
    pub(crate) fn new(parser: Parser) -> Self {
        let values = match parser {
            Parser::Text => Values::Text(Text::default()),
            Parser::Int64 | Parser::Timestamp(_) => Values::Long(vec![]),
            Parser::Float64 => Values::Float(vec![]),
            Parser::Decimal { .. } => Values::Decimal(vec![]),
            Parser::Bool => Values::Bool(BooleanBufferBuilder::new(0)),
            Parser::Date(_) => Values::Days(vec![]),
        };
        Self { parser, values, nulls: NullBufferBuilder::new(0) }
    }

    /// Adds values; `bad` hears which of these cannot be read. Those are NULL here, and their rows are to be taken out.
    pub(crate) fn extend<'a>(
        &mut self,
        cells: impl ExactSizeIterator<Item = Option<Cell<'a>>>,
        nulls: &Nulls,
        bad: impl FnMut(usize),
    ) {
        let Self { parser, values, nulls: valid } = self;
        let mut gather = Gather { nulls, valid, bad };
        match (values, parser) {
            (Values::Text(text), _) => gather.text(text, cells),
            (Values::Long(to), Parser::Timestamp(format)) => gather.parsed(to, cells, |value| format.parse(value)),
            (Values::Long(to), _) => gather.parsed(to, cells, parse::int64),
            (Values::Float(to), _) => gather.parsed(to, cells, parse::float64),
            (Values::Decimal(to), Parser::Decimal { precision, scale }) => {
                gather.parsed(to, cells, |value| parse::decimal(value, *precision, *scale));
            }
            (Values::Days(to), Parser::Date(format)) => gather.parsed(to, cells, |value| format.parse(value)),
            (Values::Bool(to), _) => gather.parsed(to, cells, parse::boolean),
            (Values::Decimal(_) | Values::Days(_), _) => {}
        }
    }

    /// The column so far; the builder begins anew.
    ///
    /// # Errors
    /// Internal: text that is not UTF-8 was let in.
    pub(crate) fn finish(&mut self) -> Result<ArrayRef> {
        let nulls = self.nulls.finish();
        fn numbers<T: ArrowPrimitiveType>(
            values: &mut Vec<T::Native>,
            nulls: Option<arrow_buffer::NullBuffer>,
        ) -> Result<PrimitiveArray<T>, ArrowError> {
            let capacity = values.len();
            let values = std::mem::replace(values, Vec::with_capacity(capacity));
            PrimitiveArray::try_new(ScalarBuffer::from(values), nulls)
        }
        let built = |parser: &Parser, values: &mut Values| -> Result<ArrayRef, ArrowError> {
            Ok(match (values, parser) {
                (Values::Text(text), _) => {
                    let (offsets, bytes) = text.take();
                    Arc::new(StringArray::try_new(OffsetBuffer::new(offsets.into()), Buffer::from_vec(bytes), nulls)?)
                }
                (Values::Long(values), Parser::Timestamp(of)) => {
                    let array: TimestampMicrosecondArray = numbers(values, nulls)?;
                    Arc::new(if of.is_utc() { array.with_timezone("UTC") } else { array })
                }
                (Values::Long(values), _) => {
                    let array: Int64Array = numbers(values, nulls)?;
                    Arc::new(array)
                }
                (Values::Float(values), _) => {
                    let array: Float64Array = numbers(values, nulls)?;
                    Arc::new(array)
                }
                (Values::Decimal(values), Parser::Decimal { precision, scale }) => {
                    let array: Decimal128Array = numbers(values, nulls)?;
                    let scale = i8::try_from(*scale).unwrap_or(0);
                    Arc::new(array.with_precision_and_scale(*precision, scale)?)
                }
                (Values::Decimal(_), _) => return Err(ArrowError::SchemaError("not a decimal".into())),
                (Values::Bool(values), _) => Arc::new(BooleanArray::new(values.finish(), nulls)),
                (Values::Days(values), _) => {
                    let array: Date32Array = numbers(values, nulls)?;
                    Arc::new(array)
                }
            })
        };
        built(&self.parser, &mut self.values).map_err(|error| Error::internal("cannot build a column").because(error))
    }
}

struct Gather<'n, F> {
    nulls: &'n Nulls,
    valid: &'n mut NullBufferBuilder,
    bad: F,
}

/// A list that values of one type go into.
trait Sink<T> {
    fn put(&mut self, value: T);
}

impl<T> Sink<T> for Vec<T> {
    #[inline]
    fn put(&mut self, value: T) {
        self.push(value);
    }
}

impl Sink<bool> for BooleanBufferBuilder {
    #[inline]
    fn put(&mut self, value: bool) {
        self.append(value);
    }
}

impl<F: FnMut(usize)> Gather<'_, F> {
    fn parsed<'a, T: Default>(
        &mut self,
        to: &mut impl Sink<T>,
        cells: impl Iterator<Item = Option<Cell<'a>>>,
        parse: impl Fn(&[u8]) -> Option<T>,
    ) {
        for (row, cell) in cells.enumerate() {
            let value = cell.as_ref().map(Cell::value).unwrap_or_default();
            // An empty one does not parse as anything, so the common way need not ask.
            if let Some(value) = parse(value)
                && self.nulls.0.is_empty()
            {
                to.put(value);
                self.valid.append_non_null();
                continue;
            }
            let null = value.trim_ascii().is_empty() || self.nulls.has(value);
            let parsed = if null { None } else { parse::lenient(value, &parse) };
            if parsed.is_none() && !null {
                (self.bad)(row);
            }
            self.valid.append(parsed.is_some());
            to.put(parsed.unwrap_or_default());
        }
    }

    fn text<'a>(&mut self, to: &mut Text, cells: impl ExactSizeIterator<Item = Option<Cell<'a>>>) {
        to.offsets.reserve(cells.len());
        if self.nulls.0.is_empty() {
            let mut count = 0;
            for cell in cells {
                match cell {
                    Some(cell) => {
                        to.put(cell);
                        count += 1;
                    }
                    None => {
                        self.valid.append_n_non_nulls(std::mem::take(&mut count));
                        self.valid.append_null();
                        to.put_none();
                    }
                }
            }
            self.valid.append_n_non_nulls(count);
            return;
        }
        for cell in cells {
            match cell.filter(|cell| !self.nulls.has(cell.value())) {
                Some(cell) => {
                    to.put(cell);
                    self.valid.append_non_null();
                }
                None => {
                    to.put_none();
                    self.valid.append_null();
                }
            }
        }
    }
}

/// Text, end to end.
#[derive(Debug)]
struct Text {
    offsets: Vec<i32>,
    /// Longer than what is in it.
    bytes: Vec<u8>,
    len: usize,
}

impl Default for Text {
    fn default() -> Self {
        Self { offsets: vec![0], bytes: vec![], len: 0 }
    }
}

/// Values up to this long are copied at this length, which is two instructions.
const SHORT: usize = 16;

impl Text {
    #[inline]
    fn put(&mut self, cell: Cell<'_>) {
        let len = cell.end.saturating_sub(cell.start);
        let to = self.len;
        self.len += len;
        self.offsets.push(self.len as i32);
        if len <= SHORT
            && let Some(from) = cell.base.get(cell.start..cell.start + SHORT)
            && let Some(to) = self.bytes.get_mut(to..to + SHORT)
        {
            to.copy_from_slice(from);
            return;
        }
        self.put_long(to, cell.value());
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, least: usize) {
        self.bytes.resize((least + SHORT).max(self.bytes.len() * 2).max(1024), 0);
    }

    #[inline(never)]
    fn put_long(&mut self, to: usize, value: &[u8]) {
        if self.bytes.len() < self.len + SHORT {
            self.grow(self.len);
        }
        if let Some(to) = self.bytes.get_mut(to..to + value.len()) {
            to.copy_from_slice(value);
        }
    }

    fn put_none(&mut self) {
        self.offsets.push(self.len as i32);
    }

    /// Offsets and bytes; what comes next is expected to be as much.
    fn take(&mut self) -> (Vec<i32>, Vec<u8>) {
        let mut offsets = Vec::with_capacity(self.offsets.len());
        offsets.push(0);
        let mut bytes = vec![0; self.len + self.len / 8 + SHORT];
        std::mem::swap(&mut offsets, &mut self.offsets);
        std::mem::swap(&mut bytes, &mut self.bytes);
        bytes.truncate(self.len);
        self.len = 0;
        (offsets, bytes)
    }
}

/// A value for a message: on one line, and not at any length.
pub(crate) fn shown(value: &[u8]) -> String {
    const MOST: usize = 60;
    let text = String::from_utf8_lossy(value.get(..4 * MOST).unwrap_or(value));
    let mut out: String = text.chars().take(MOST).flat_map(char::escape_debug).collect();
    // Single quotes stand around it.
    out = out.replace("\\\"", "\"");
    if out.len() < text.len() || value.len() > 4 * MOST {
        out.push('…');
    }
    out
}
