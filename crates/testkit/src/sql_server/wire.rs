//! The wire of \[MS-TDS\]: packets, the primitives in them, and the tokens of an answer.

use super::{
    error::SqlError,
    types::Ty,
    values::{collation_bytes, put_type},
};

/// Bytes of a packet's header (2.2.3.1).
pub(super) const HEADER: usize = 8;

/// Packet types (2.2.3.1.1).
pub(super) mod packet {
    pub const BATCH: u8 = 0x01;
    pub const RPC: u8 = 0x03;
    pub const REPLY: u8 = 0x04;
    pub const ATTENTION: u8 = 0x06;
    pub const BULK: u8 = 0x07;
    pub const TRANSACTION: u8 = 0x0e;
    pub const LOGIN7: u8 = 0x10;
    pub const PRELOGIN: u8 = 0x12;
}

/// Status bits of a packet (2.2.3.1.2).
pub(super) mod status {
    pub const END: u8 = 0x01;
    pub const IGNORE: u8 = 0x02;
    pub const RESET: u8 = 0x08;
    pub const RESET_KEEP: u8 = 0x10;
}

/// Why bytes cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// There are not enough of them (yet).
    Short,
    /// They are not what they should be.
    Wrong(String),
}

impl From<Bad> for SqlError {
    fn from(bad: Bad) -> Self {
        let why = match bad {
            Bad::Short => "it ends too early".to_owned(),
            Bad::Wrong(why) => why,
        };
        Self::of(8005, format!("The incoming tabular data stream (TDS) protocol stream is incorrect: {why}."))
    }
}

/// Reads the primitives of 2.2.5.1.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }
    pub fn at(&self) -> usize {
        self.at
    }
    pub fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }
    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Bad> {
        let end = self.at.checked_add(n).ok_or(Bad::Short)?;
        let taken = self.bytes.get(self.at..end).ok_or(Bad::Short)?;
        self.at = end;
        Ok(taken)
    }
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Bad> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| Bad::Short)
    }
    pub fn u8(&mut self) -> Result<u8, Bad> {
        Ok(self.take(1)?[0])
    }
    pub fn u16(&mut self) -> Result<u16, Bad> {
        Ok(u16::from_le_bytes(self.array()?))
    }
    pub fn u32(&mut self) -> Result<u32, Bad> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    pub fn u64(&mut self) -> Result<u64, Bad> {
        Ok(u64::from_le_bytes(self.array()?))
    }
    /// So many UTF-16 units.
    pub fn utf16(&mut self, units: usize) -> Result<String, Bad> {
        Ok(utf16(self.take(units * 2)?))
    }
    /// `B_VARCHAR`.
    pub fn b_varchar(&mut self) -> Result<String, Bad> {
        let units = self.u8()?;
        self.utf16(units.into())
    }
    /// `US_VARCHAR`.
    pub fn us_varchar(&mut self) -> Result<String, Bad> {
        let units = self.u16()?;
        self.utf16(units.into())
    }
    /// `ALL_HEADERS` (2.2.5.3), passed over.
    pub fn all_headers(&mut self) -> Result<(), Bad> {
        let length = usize::try_from(self.u32()?).unwrap_or(0);
        if length < 4 {
            return Err(Bad::Wrong("ALL_HEADERS is missing".to_owned()));
        }
        self.take(length - 4).map(|_| ())
    }
}

/// Text of UTF-16 LE bytes; what is no character becomes U+FFFD.
pub(super) fn utf16(bytes: &[u8]) -> String {
    let mut text = Vec::with_capacity(bytes.len() / 2);
    utf16_to_utf8(bytes, &mut text);
    String::from_utf8(text).unwrap_or_default()
}

/// Appends UTF-8 for UTF-16 LE bytes.
pub(super) fn utf16_to_utf8(bytes: &[u8], out: &mut Vec<u8>) {
    let mut units = bytes.as_chunks::<2>().0;
    // ASCII is nearly all there is.
    while let Some(([low, high], rest)) = units.split_first() {
        if *high != 0 || *low >= 0x80 {
            break;
        }
        out.push(*low);
        units = rest;
    }
    let rest = units.iter().map(|unit| u16::from_le_bytes(*unit));
    let mut buffer = [0; 4];
    for char in char::decode_utf16(rest) {
        out.extend_from_slice(char.unwrap_or(char::REPLACEMENT_CHARACTER).encode_utf8(&mut buffer).as_bytes());
    }
}

/// Appends UTF-16 LE; returns how many bytes.
pub(super) fn put_utf16(text: &str, out: &mut Vec<u8>) -> usize {
    let before = out.len();
    if text.is_ascii() {
        out.reserve(text.len() * 2);
        for byte in text.bytes() {
            out.extend_from_slice(&[byte, 0]);
        }
    } else {
        out.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
    }
    out.len() - before
}

/// `B_VARCHAR`, cut at 255 units.
pub(super) fn put_b_varchar(text: &str, out: &mut Vec<u8>) {
    let units: Vec<u16> = text.encode_utf16().take(255).collect();
    out.push(u8::try_from(units.len()).unwrap_or(255));
    out.extend(units.into_iter().flat_map(u16::to_le_bytes));
}

fn put_us_varchar(text: &str, out: &mut Vec<u8>) {
    let units: Vec<u16> = text.encode_utf16().take(2000).collect();
    out.extend_from_slice(&u16::try_from(units.len()).unwrap_or(0).to_le_bytes());
    out.extend(units.into_iter().flat_map(u16::to_le_bytes));
}

/// A column of a result as COLMETADATA tells it (2.2.7.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResultColumn {
    pub name: String,
    pub ty: Ty,
    pub nullable: bool,
    pub identity: bool,
    /// A computed column of a table.
    pub computed: bool,
    /// No column of a table but an expression.
    pub expression: bool,
    /// The collation's name, of text.
    pub collation: Option<String>,
}

impl ResultColumn {
    fn flags(&self) -> u16 {
        let mut flags = u16::from(self.nullable);
        if self.ty.is_text()
            && self.collation.as_deref().is_some_and(|name| name.contains("_BIN") || name.contains("_CS_"))
        {
            flags |= 0x02;
        }
        // usUpdateable: 0 read-only, 2 unknown, which is what the server says of plain columns.
        if !(self.identity || self.computed || self.expression) {
            flags |= 0x08;
        }
        flags |= u16::from(self.identity) << 4;
        flags | u16::from(self.computed || self.expression) << 5
    }
}

/// What a DONE says beside its number of rows (2.2.7.6).
pub(super) mod done {
    pub const MORE: u16 = 0x01;
    pub const ERROR: u16 = 0x02;
    pub const COUNT: u16 = 0x10;
    pub const ATTENTION: u16 = 0x20;
}

/// Which of the three DONE tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    Batch = 0xfd,
    Procedure = 0xfe,
    InProcedure = 0xff,
}

/// Kinds of ENVCHANGE (2.2.7.9).
pub(super) mod change {
    pub const DATABASE: u8 = 1;
    pub const PACKET_SIZE: u8 = 4;
    pub const COLLATION: u8 = 7;
    pub const BEGIN: u8 = 8;
    pub const COMMIT: u8 = 9;
    pub const ROLLBACK: u8 = 10;
    pub const RESET: u8 = 18;
}

/// Writes tokens.
pub(super) trait Tokens {
    /// The buffer that they go to.
    fn out(&mut self) -> &mut Vec<u8>;

    fn token(&mut self, token: u8, body: &[u8]) {
        let out = self.out();
        out.push(token);
        out.extend_from_slice(&u16::try_from(body.len()).unwrap_or(u16::MAX).to_le_bytes());
        out.extend_from_slice(body);
    }
    /// ENVCHANGE of a text.
    fn changed(&mut self, kind: u8, new: &str, old: &str) {
        let mut body = vec![kind];
        put_b_varchar(new, &mut body);
        put_b_varchar(old, &mut body);
        self.token(0xe3, &body);
    }
    /// ENVCHANGE of bytes: transactions, the collation.
    fn changed_bytes(&mut self, kind: u8, new: &[u8], old: &[u8]) {
        let mut body = vec![kind];
        for bytes in [new, old] {
            body.push(u8::try_from(bytes.len()).unwrap_or(0));
            body.extend_from_slice(bytes);
        }
        self.token(0xe3, &body);
    }
    /// ENVCHANGE of the collation of the database.
    fn changed_collation(&mut self) {
        self.changed_bytes(change::COLLATION, &collation_bytes(None), &[]);
    }
    /// ERROR, or INFO where the severity is 10 or less (2.2.7.10, 2.2.7.13).
    fn error(&mut self, error: &SqlError, procedure: &str) {
        let mut body = error.number.to_le_bytes().to_vec();
        body.extend_from_slice(&[error.state, error.class]);
        put_us_varchar(&error.message, &mut body);
        put_b_varchar("towpath-simulator", &mut body);
        put_b_varchar(procedure, &mut body);
        body.extend_from_slice(&error.line.max(1).to_le_bytes());
        self.token(if error.class > 10 { 0xaa } else { 0xab }, &body);
    }
    fn done(&mut self, which: Done, status: u16, rows: Option<u64>) {
        let out = self.out();
        out.push(which as u8);
        let status = if rows.is_some() { status | done::COUNT } else { status };
        out.extend_from_slice(&status.to_le_bytes());
        // CurCmd: 0xC1 is SELECT; nobody reads it.
        out.extend_from_slice(&0xc1_u16.to_le_bytes());
        out.extend_from_slice(&rows.unwrap_or(0).to_le_bytes());
    }
    fn return_status(&mut self, value: i32) {
        let out = self.out();
        out.push(0x79);
        out.extend_from_slice(&value.to_le_bytes());
    }
    fn columns(&mut self, columns: &[ResultColumn]) {
        let out = self.out();
        out.push(0x81);
        out.extend_from_slice(&u16::try_from(columns.len()).unwrap_or(0).to_le_bytes());
        for column in columns {
            out.extend_from_slice(&0_u32.to_le_bytes());
            out.extend_from_slice(&column.flags().to_le_bytes());
            put_type(&column.ty, column.nullable, column.collation.as_deref(), out);
            put_b_varchar(&column.name, out);
        }
    }
}

impl Tokens for Vec<u8> {
    fn out(&mut self) -> &mut Vec<u8> {
        self
    }
}

/// Cuts an answer into packets; the last one ends the message if asked.
pub(super) fn packets(body: &[u8], size: usize, number: &mut u8, spid: u16, end: bool, out: &mut Vec<u8>) {
    let room = size - HEADER;
    let count = body.len().div_ceil(room).max(usize::from(end));
    for index in 0..count {
        let part = &body[index * room..body.len().min((index + 1) * room)];
        *number = number.wrapping_add(1);
        let last = end && index + 1 == count;
        let length = u16::try_from(part.len() + HEADER).unwrap_or(u16::MAX).to_be_bytes();
        let [high, low] = spid.to_be_bytes();
        out.extend_from_slice(&[packet::REPLY, u8::from(last), length[0], length[1], high, low, *number, 0]);
        out.extend_from_slice(part);
    }
}
