//! One record, byte by byte: the plain way, for the header and for records that something is wrong with. [`scan`](super::scan) is
//! the quick way of the same grammar.

use super::options::Dialect;

/// Walks through the bytes of a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walk {
    dialect: Dialect,
    state: State,
    /// Fields that have begun.
    pub(super) fields: usize,
    /// Something stood behind a closing quote.
    pub(super) broken: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    FieldStart,
    Bare,
    Quoted,
    /// Behind an escape character.
    Escaped,
    /// Behind a quote inside quotes: they end here, or the next is another one.
    Closing,
}

/// What a byte was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Was {
    /// A part of a field's value.
    Value,
    /// A quote around, an escape before; no part of the value.
    Mark,
    /// CR or LF inside quotes: a part of the value too.
    LineInQuotes,
    /// A delimiter: the field has ended.
    FieldEnd,
    /// CR or LF behind the last field.
    RecordEnd,
}

impl Walk {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self { dialect, state: State::FieldStart, fields: 1, broken: false }
    }

    /// Whether the record cannot end here, because a quote is open.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Quoted | State::Escaped)
    }

    pub(super) fn step(&mut self, byte: u8) -> Was {
        let quote = self.dialect.quote == Some(byte);
        match self.state {
            State::Escaped => {
                self.state = State::Quoted;
                return if matches!(byte, b'\r' | b'\n') { Was::LineInQuotes } else { Was::Value };
            }
            State::Quoted if quote => {
                self.state = State::Closing;
                return Was::Mark;
            }
            State::Quoted if self.dialect.escape == Some(byte) => {
                self.state = State::Escaped;
                return Was::Mark;
            }
            State::Quoted => return if matches!(byte, b'\r' | b'\n') { Was::LineInQuotes } else { Was::Value },
            State::Closing if quote => {
                self.state = State::Quoted;
                return Was::Value;
            }
            State::FieldStart if quote => {
                self.state = State::Quoted;
                return Was::Mark;
            }
            State::FieldStart | State::Bare | State::Closing => {}
        }
        if byte == self.dialect.delimiter {
            self.fields += 1;
            self.state = State::FieldStart;
            Was::FieldEnd
        } else if matches!(byte, b'\r' | b'\n') {
            Was::RecordEnd
        } else {
            self.broken |= self.state == State::Closing;
            self.state = State::Bare;
            Was::Value
        }
    }
}

/// The first record of `text`, which begins with it: its fields, and where what is behind it begins. `None`: it does not end in here.
/// With `last`, the end of `text` ends it.
pub(super) fn first(dialect: Dialect, text: &[u8], last: bool) -> Option<(Fields, usize)> {
    let mut walk = Walk::new(dialect);
    let mut values = vec![vec![]];
    let mut content = None;
    for (at, byte) in text.iter().enumerate() {
        match walk.step(*byte) {
            Was::Value | Was::LineInQuotes => values.last_mut()?.push(*byte),
            Was::Mark => {}
            Was::FieldEnd => values.push(vec![]),
            Was::RecordEnd => {
                content = Some((at, *byte));
                break;
            }
        }
    }
    let end = match content {
        None if last => text.len(),
        None => return None,
        Some((at, b'\r')) => match text.get(at + 1) {
            Some(b'\n') => at + 2,
            None if !last => return None,
            _ => at + 1,
        },
        Some((at, _)) => at + 1,
    };
    let length = content.map_or(text.len(), |(at, _)| at);
    Some((Fields { values, length, whole: !walk.broken && !walk.is_open() }, end))
}

/// A record taken apart.
#[derive(Debug)]
pub(super) struct Fields {
    pub(super) values: Vec<Vec<u8>>,
    /// Its bytes, without the line end.
    pub(super) length: usize,
    /// Its quotes are in order.
    pub(super) whole: bool,
}

/// Where reading goes on after a record that something is wrong with: the first line end inside its quotes behind which a line of
/// `fields` fields stands. `text` is the record, with its line end; `last`, if the end of `text` ends a line too.
pub(super) fn resume_at(dialect: Dialect, text: &[u8], fields: usize, last: bool) -> Option<usize> {
    let mut walk = Walk::new(dialect);
    for (at, byte) in text.iter().enumerate() {
        match walk.step(*byte) {
            Was::LineInQuotes
                if !(*byte == b'\r' && text.get(at + 1) == Some(&b'\n'))
                    && well_formed(dialect, text.get(at + 1..).unwrap_or_default(), fields, last) =>
            {
                return Some(at + 1);
            }
            Was::RecordEnd => return None,
            _ => {}
        }
    }
    None
}

/// Whether the first line of `text` is a record of `fields` fields.
fn well_formed(dialect: Dialect, text: &[u8], fields: usize, last: bool) -> bool {
    let mut walk = Walk::new(dialect);
    for (at, byte) in text.iter().enumerate() {
        match walk.step(*byte) {
            Was::RecordEnd => return at > 0 && walk.fields == fields && !walk.broken,
            Was::LineInQuotes => return false,
            _ if walk.broken || walk.fields > fields => return false,
            _ => {}
        }
    }
    last && !text.is_empty() && walk.fields == fields && !walk.broken && !walk.is_open()
}

/// How many lines end in `text`.
pub(super) fn lines(text: &[u8]) -> u32 {
    let mut before = 0;
    let mut count = 0;
    for byte in text {
        count += u32::from(*byte == b'\r' || (*byte == b'\n' && before != b'\r'));
        before = *byte;
    }
    count
}
