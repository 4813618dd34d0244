//! Bytes of any encoding as UTF-8, and back to where they stood.

use bytes::{Bytes, BytesMut};

use super::Encoding;

/// Turns what comes into UTF-8, in which bytes that are not of the encoding become bytes that are not UTF-8.
#[derive(Debug)]
pub(super) struct Input {
    /// What the config says.
    declared: Encoding,
    /// What it is; `None` until that is known.
    found: Option<Encoding>,
    /// The first bytes, until they are enough to tell.
    head: BytesMut,
    /// Bytes of a character that has not come whole.
    pending: Vec<u8>,
    /// The bytes as they came, from the next record on, where they are not UTF-8.
    raw: BytesMut,
}

impl Input {
    pub(super) fn new(declared: Encoding) -> Self {
        Self { declared, found: None, head: BytesMut::new(), pending: vec![], raw: BytesMut::new() }
    }

    /// Goes on in the middle, where there is no byte order mark.
    pub(super) fn resume(found: Encoding) -> Self {
        Self { found: Some(found), ..Self::new(found) }
    }

    /// What it is, once that is known.
    pub(super) fn found(&self) -> Option<Encoding> {
        self.found
    }

    /// More bytes: what they are in UTF-8, and how many bytes of a byte order mark stood before them.
    pub(super) fn push(&mut self, chunk: Bytes, last: bool) -> (Bytes, u64) {
        let (chunk, mark) = match self.found {
            Some(_) => (chunk, 0),
            None => match self.begin(chunk, last) {
                Some(begun) => begun,
                None => return (Bytes::new(), 0),
            },
        };
        let text = match self.found {
            Some(Encoding::Utf16Le) => self.wide(&chunk, last, u16::from_le_bytes),
            Some(Encoding::Utf16Be) => self.wide(&chunk, last, u16::from_be_bytes),
            Some(Encoding::Windows1252) => {
                self.raw.extend_from_slice(&chunk);
                encoding_rs::WINDOWS_1252.decode_without_bom_handling(&chunk).0.into_owned().into()
            }
            _ => chunk,
        };
        (text, mark)
    }

    /// Looks at the first bytes.
    fn begin(&mut self, chunk: Bytes, last: bool) -> Option<(Bytes, u64)> {
        let mut chunk = if self.head.is_empty() {
            chunk
        } else {
            self.head.extend_from_slice(&chunk);
            std::mem::take(&mut self.head).freeze()
        };
        if chunk.len() < 3 && !last {
            self.head = chunk.into();
            return None;
        }
        let (found, mark) = match &*chunk {
            [0xef, 0xbb, 0xbf, ..] => (Encoding::Utf8, 3),
            [0xff, 0xfe, ..] => (Encoding::Utf16Le, 2),
            [0xfe, 0xff, ..] => (Encoding::Utf16Be, 2),
            _ => (if self.declared == Encoding::Auto { Encoding::Utf8 } else { self.declared }, 0),
        };
        self.found = Some(found);
        let _ = chunk.split_to(mark);
        Some((chunk, mark as u64))
    }

    /// UTF-16. Half a pair becomes three bytes that are not UTF-8, half a unit one.
    fn wide(&mut self, chunk: &[u8], last: bool, unit: fn([u8; 2]) -> u16) -> Bytes {
        self.raw.extend_from_slice(chunk);
        let joined;
        let bytes = if self.pending.is_empty() {
            chunk
        } else {
            self.pending.extend_from_slice(chunk);
            joined = std::mem::take(&mut self.pending);
            &joined
        };
        let (units, rest) = bytes.as_chunks::<2>();
        let mut text = Vec::with_capacity(bytes.len());
        let mut at = 0;
        while let Some(one) = units.get(at).map(|two| unit(*two)) {
            match one {
                0..0x80 => text.push(one as u8),
                0xd800..0xdc00 if at + 1 == units.len() && !last => break,
                _ => {
                    let pair = [one, units.get(at + 1).map_or(0, |two| unit(*two))];
                    match char::decode_utf16(pair).next() {
                        Some(Ok(character)) => {
                            text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                            at += character.len_utf16() - 1;
                        }
                        _ => text.extend_from_slice(&[0xed, 0xa0, 0x80]),
                    }
                }
            }
            at += 1;
        }
        self.pending = units.get(at..).unwrap_or_default().as_flattened().to_vec();
        if last && !rest.is_empty() {
            text.push(0xff);
        } else {
            self.pending.extend_from_slice(rest);
        }
        text.into()
    }

    /// How many bytes as they came are `text`.
    pub(super) fn came_as(&self, text: &[u8]) -> usize {
        match self.found {
            Some(Encoding::Utf16Le | Encoding::Utf16Be) => text
                .iter()
                .map(|byte| match byte {
                    0..0x80 | 0xc0..0xf0 => 2,
                    0x80..0xc0 => 0,
                    0xf0..0xff => 4,
                    // Half a unit.
                    0xff => 1,
                })
                .sum(),
            Some(Encoding::Windows1252) => text.iter().filter(|byte| !matches!(byte, 0x80..0xc0)).count(),
            _ => text.len(),
        }
    }

    /// The bytes of `value` as they came, the first of them `came_at` bytes behind where [`consume`](Input::consume) has come to.
    pub(super) fn original(&self, value: &[u8], came_at: usize) -> Bytes {
        if self.is_plain() {
            return Bytes::copy_from_slice(value);
        }
        Bytes::copy_from_slice(self.raw.get(came_at..came_at + self.came_as(value)).unwrap_or_default())
    }

    /// `text` is done with: how many bytes it came as.
    pub(super) fn consume(&mut self, text: &[u8]) -> u64 {
        let bytes = self.came_as(text);
        if !self.is_plain() {
            let _ = self.raw.split_to(bytes.min(self.raw.len()));
        }
        bytes as u64
    }

    fn is_plain(&self) -> bool {
        !matches!(self.found, Some(Encoding::Utf16Le | Encoding::Utf16Be | Encoding::Windows1252))
    }
}
