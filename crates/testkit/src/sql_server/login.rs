//! PRELOGIN (\[MS-TDS\] 2.2.6.5) and LOGIN7 (2.2.6.4).

use super::wire::{Bad, Reader, utf16};

/// What a side says of encryption.
pub(super) mod encryption {
    pub const ON: u8 = 1;
    pub const NOT_SUPPORTED: u8 = 2;
    pub const REQUIRED: u8 = 3;
}

/// What a client's PRELOGIN says of encryption.
pub(super) fn prelogin_encryption(body: &[u8]) -> Result<u8, Bad> {
    let mut from = Reader::new(body);
    loop {
        match from.u8()? {
            0xff => return Ok(encryption::NOT_SUPPORTED),
            1 => {
                let at = usize::from(u16::from_be_bytes(from.array()?));
                return body.get(at).copied().ok_or(Bad::Short);
            }
            _ => from.take(4).map(|_| ())?,
        }
    }
}

/// The answer: version 16.0, what we do about encryption, no instance, no MARS; federation is echoed by no one.
pub(super) fn prelogin_answer(encryption: u8) -> Vec<u8> {
    let options: [(u8, &[u8]); 5] =
        [(0, &[16, 0, 0x03, 0xe8, 0, 0]), (1, &[encryption]), (2, &[0]), (3, &[]), (4, &[0])];
    let mut offset = u16::try_from(options.len() * 5 + 1).unwrap_or(0);
    let mut out = vec![];
    for (token, value) in options {
        let length = u16::try_from(value.len()).unwrap_or(0);
        out.push(token);
        out.extend_from_slice(&offset.to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
        offset += length;
    }
    out.push(0xff);
    for (_, value) in options {
        out.extend_from_slice(value);
    }
    out
}

/// A LOGIN7, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Login {
    pub version: u32,
    pub packet_size: u32,
    pub host: String,
    pub user: String,
    pub password: String,
    pub application: String,
    pub database: String,
    /// By Windows or a token, which is not simulated.
    pub integrated: bool,
}

impl Login {
    pub fn read(body: &[u8]) -> Result<Self, Bad> {
        let fixed = |at: usize| -> Result<u32, Bad> {
            let bytes = body.get(at..at + 4).ok_or(Bad::Short)?;
            Ok(u32::from_le_bytes(bytes.try_into().map_err(|_| Bad::Short)?))
        };
        let bytes = |at: usize| -> Result<&[u8], Bad> {
            let mut from = Reader::new(body.get(at..).ok_or(Bad::Short)?);
            let (offset, units) = (usize::from(from.u16()?), usize::from(from.u16()?));
            body.get(offset..offset + units * 2).ok_or(Bad::Short)
        };
        let text = |at: usize| bytes(at).map(utf16);
        // Each byte of the password has its halves swapped and is XORed with 0xA5.
        let password: Vec<u8> = bytes(44)?.iter().map(|byte| (byte ^ 0xa5).rotate_left(4)).collect();
        let flags = body.get(24..28).ok_or(Bad::Short)?;
        Ok(Self {
            version: fixed(4)?,
            packet_size: fixed(8)?,
            host: text(36)?,
            user: text(40)?,
            password: utf16(&password),
            application: text(48)?,
            database: text(68)?,
            integrated: flags[1] & 0x80 != 0,
        })
    }
}
