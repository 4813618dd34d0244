//! Types and values on the wire (\[MS-TDS\] 2.2.5.4–2.2.5.6) and as they are stored.

use encoding_rs::WINDOWS_1252;
use rusqlite::types::ValueRef;

use super::{
    calendar, decimal,
    types::{Ty, decimal_bytes, time_bytes},
    wire::{Bad, Reader, put_utf16, utf16_to_utf8},
};

/// Longest that is not sent in chunks.
const LIMIT: u32 = 0xffff;
/// A GUID's wire bytes in the order in which SQL Server compares them.
const GUID_ORDER: [usize; 16] = [10, 11, 12, 13, 14, 15, 8, 9, 6, 7, 4, 5, 0, 1, 2, 3];

/// The five bytes of a collation (2.2.5.1.2): LCID and flags, sort id. `None`: the database's, `SQL_Latin1_General_CP1_CI_AS`.
pub(super) fn collation_bytes(name: Option<&str>) -> [u8; 5] {
    match name {
        Some(name) if name.contains("_BIN2") => [0x09, 0x04, 0x00, 0x02, 0x00],
        Some(name) if name.contains("_BIN") => [0x09, 0x04, 0x00, 0x01, 0x00],
        _ => [0x09, 0x04, 0xd0, 0x00, 0x34],
    }
}

/// TYPE_INFO of a result's column: fixed types where there is no NULL, as the server does it.
pub(super) fn put_type(ty: &Ty, nullable: bool, collation: Option<&str>, out: &mut Vec<u8>) {
    let fixed = |out: &mut Vec<u8>, plain: u8, family: u8, bytes: u8| {
        if nullable { out.extend_from_slice(&[family, bytes]) } else { out.push(plain) }
    };
    let long = |out: &mut Vec<u8>, token: u8, bytes: Option<u32>| {
        out.push(token);
        out.extend_from_slice(&u16::try_from(bytes.unwrap_or(LIMIT)).unwrap_or(u16::MAX).to_le_bytes());
    };
    match *ty {
        Ty::Bit => fixed(out, 0x32, 0x68, 1),
        Ty::TinyInt => fixed(out, 0x30, 0x26, 1),
        Ty::SmallInt => fixed(out, 0x34, 0x26, 2),
        Ty::Int => fixed(out, 0x38, 0x26, 4),
        Ty::BigInt => fixed(out, 0x7f, 0x26, 8),
        Ty::Real => fixed(out, 0x3b, 0x6d, 4),
        Ty::Float => fixed(out, 0x3e, 0x6d, 8),
        Ty::Money => fixed(out, 0x3c, 0x6e, 8),
        Ty::SmallMoney => fixed(out, 0x7a, 0x6e, 4),
        Ty::SmallDateTime => fixed(out, 0x3a, 0x6f, 4),
        Ty::DateTime => fixed(out, 0x3d, 0x6f, 8),
        Ty::Decimal { p, s, numeric } => {
            out.extend_from_slice(&[if numeric { 0x6c } else { 0x6a }, decimal_bytes(p), p, s]);
        }
        Ty::Date => out.push(0x28),
        Ty::Time(s) => out.extend_from_slice(&[0x29, s]),
        Ty::DateTime2(s) => out.extend_from_slice(&[0x2a, s]),
        Ty::DateTimeOffset(s) => out.extend_from_slice(&[0x2b, s]),
        Ty::Guid => out.extend_from_slice(&[0x24, 16]),
        Ty::Char(n) => long(out, 0xaf, Some(n.into())),
        Ty::VarChar(n) => long(out, 0xa7, n.map(u32::from)),
        Ty::NChar(n) => long(out, 0xef, Some(u32::from(n) * 2)),
        Ty::NVarChar(n) => long(out, 0xe7, n.map(|n| u32::from(n) * 2)),
        Ty::Binary(n) => long(out, 0xad, Some(n.into())),
        Ty::VarBinary(n) => long(out, 0xa5, n.map(u32::from)),
        Ty::Xml => out.extend_from_slice(&[0xf1, 0]),
    }
    if ty.is_text() && *ty != Ty::Xml {
        out.extend_from_slice(&collation_bytes(collation));
    }
}

/// A type as a client sends it: what it is, and how its values are framed.
#[derive(Clone, Debug)]
pub(super) struct WireType {
    pub ty: Ty,
    framing: Framing,
    /// Bytes that a value framed by two bytes of length may have.
    most: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// So many bytes, never NULL.
    Fixed(u8),
    /// A length of one byte, 0 is NULL.
    Byte,
    /// A length of two bytes, 0xFFFF is NULL.
    Short,
    /// Chunks.
    Plp,
    /// A text pointer and a length of four bytes.
    Long,
    /// Nothing: the type NULL.
    Null,
}

/// Reads a TYPE_INFO.
pub(super) fn read_type(from: &mut Reader<'_>) -> Result<WireType, Bad> {
    let token = from.u8()?;
    let wire = |ty: Ty, framing: Framing| Ok(WireType { ty, framing, most: u16::MAX });
    let narrow = |n: u16| if n == 0xffff { None } else { Some(n.max(1)) };
    match token {
        0x1f => wire(Ty::Int, Framing::Null),
        0x30 => wire(Ty::TinyInt, Framing::Fixed(1)),
        0x32 => wire(Ty::Bit, Framing::Fixed(1)),
        0x34 => wire(Ty::SmallInt, Framing::Fixed(2)),
        0x38 => wire(Ty::Int, Framing::Fixed(4)),
        0x3a => wire(Ty::SmallDateTime, Framing::Fixed(4)),
        0x3b => wire(Ty::Real, Framing::Fixed(4)),
        0x3c => wire(Ty::Money, Framing::Fixed(8)),
        0x3d => wire(Ty::DateTime, Framing::Fixed(8)),
        0x3e => wire(Ty::Float, Framing::Fixed(8)),
        0x7a => wire(Ty::SmallMoney, Framing::Fixed(4)),
        0x7f => wire(Ty::BigInt, Framing::Fixed(8)),
        0x26 => match from.u8()? {
            1 => wire(Ty::TinyInt, Framing::Byte),
            2 => wire(Ty::SmallInt, Framing::Byte),
            4 => wire(Ty::Int, Framing::Byte),
            8 => wire(Ty::BigInt, Framing::Byte),
            n => Err(Bad::Wrong(format!("an INTN of {n} bytes"))),
        },
        0x68 => from.u8().and_then(|_| wire(Ty::Bit, Framing::Byte)),
        0x6d => match from.u8()? {
            4 => wire(Ty::Real, Framing::Byte),
            _ => wire(Ty::Float, Framing::Byte),
        },
        0x6e => match from.u8()? {
            4 => wire(Ty::SmallMoney, Framing::Byte),
            _ => wire(Ty::Money, Framing::Byte),
        },
        0x6f => match from.u8()? {
            4 => wire(Ty::SmallDateTime, Framing::Byte),
            _ => wire(Ty::DateTime, Framing::Byte),
        },
        0x6a | 0x6c => {
            let [_, p, s] = from.array()?;
            if !(1..=38).contains(&p) || s > p {
                return Err(Bad::Wrong(format!("a decimal of precision {p} and scale {s}")));
            }
            wire(Ty::Decimal { p, s, numeric: token == 0x6c }, Framing::Byte)
        }
        0x24 => from.u8().and_then(|_| wire(Ty::Guid, Framing::Byte)),
        0x28 => wire(Ty::Date, Framing::Byte),
        0x29..=0x2b => {
            let scale = from.u8()?;
            if scale > 7 {
                return Err(Bad::Wrong(format!("a scale of {scale} for fractional seconds")));
            }
            let ty = match token {
                0x29 => Ty::Time(scale),
                0x2a => Ty::DateTime2(scale),
                _ => Ty::DateTimeOffset(scale),
            };
            wire(ty, Framing::Byte)
        }
        0xa5 | 0xa7 | 0xad | 0xaf | 0xe7 | 0xef => {
            let length = from.u16()?;
            if token != 0xa5 && token != 0xad {
                from.take(5)?;
            }
            let framing = if length == 0xffff { Framing::Plp } else { Framing::Short };
            let ty = match token {
                0xa5 => Ty::VarBinary(narrow(length)),
                0xad => Ty::Binary(length.max(1)),
                0xa7 => Ty::VarChar(narrow(length)),
                0xaf => Ty::Char(length.max(1)),
                0xe7 => Ty::NVarChar(narrow(length).map(|n| n.div_ceil(2))),
                _ => Ty::NChar(length.div_ceil(2).max(1)),
            };
            Ok(WireType { ty, framing, most: length })
        }
        0xf1 => {
            if from.u8()? == 1 {
                from.b_varchar()?;
                from.b_varchar()?;
                from.us_varchar()?;
            }
            wire(Ty::Xml, Framing::Plp)
        }
        0x22 => from.u32().and_then(|_| wire(Ty::VarBinary(None), Framing::Long)),
        0x23 | 0x63 => {
            from.take(9)?;
            wire(if token == 0x23 { Ty::VarChar(None) } else { Ty::NVarChar(None) }, Framing::Long)
        }
        _ => Err(Bad::Wrong(format!("the type 0x{token:02x}"))),
    }
}

impl WireType {
    /// Whether it is one of the types whose COLMETADATA names a table.
    pub fn names_table(&self) -> bool {
        self.framing == Framing::Long
    }

    /// Reads a value as it is stored; bytes and text go through `scratch`.
    pub fn read<'a>(&self, from: &mut Reader<'_>, scratch: &'a mut Vec<u8>) -> Result<ValueRef<'a>, Bad> {
        scratch.clear();
        let bytes = match self.framing {
            Framing::Null => return Ok(ValueRef::Null),
            Framing::Fixed(n) => from.take(n.into())?,
            Framing::Byte => match from.u8()? {
                0 => return Ok(ValueRef::Null),
                n => from.take(n.into())?,
            },
            Framing::Short => match from.u16()? {
                0xffff => return Ok(ValueRef::Null),
                n if n > self.most => return Err(Bad::Wrong(format!("a value of {n} bytes, longer than {}", self.ty))),
                n => from.take(n.into())?,
            },
            Framing::Long => match from.u8()? {
                0 => return Ok(ValueRef::Null),
                pointer => {
                    from.take(usize::from(pointer) + 8)?;
                    let length = usize::try_from(from.u32()?).unwrap_or(usize::MAX);
                    from.take(length)?
                }
            },
            Framing::Plp => {
                if from.u64()? == u64::MAX {
                    return Ok(ValueRef::Null);
                }
                return self.read_chunks(from, scratch);
            }
        };
        self.stored(bytes, scratch)
    }

    fn read_chunks<'a>(&self, from: &mut Reader<'_>, scratch: &'a mut Vec<u8>) -> Result<ValueRef<'a>, Bad> {
        let mut whole = Vec::new();
        loop {
            let length = usize::try_from(from.u32()?).unwrap_or(usize::MAX);
            if length == 0 {
                break;
            }
            whole.extend_from_slice(from.take(length)?);
        }
        self.stored(&whole, scratch)
    }

    fn stored<'a>(&self, bytes: &[u8], scratch: &'a mut Vec<u8>) -> Result<ValueRef<'a>, Bad> {
        let wrong = || Bad::Wrong(format!("{} bytes for {}", bytes.len(), self.ty));
        let mut from = Reader::new(bytes);
        let integer = |bytes: &[u8]| {
            let mut whole = [if bytes.last().is_some_and(|byte| *byte >= 0x80) { 0xff } else { 0 }; 8];
            whole.get_mut(..bytes.len())?.copy_from_slice(bytes);
            Some(i64::from_le_bytes(whole))
        };
        Ok(match self.ty {
            Ty::Bit => ValueRef::Integer(i64::from(from.u8()? != 0)),
            Ty::TinyInt => ValueRef::Integer(from.u8()?.into()),
            Ty::SmallInt | Ty::Int | Ty::BigInt => ValueRef::Integer(integer(bytes).ok_or_else(wrong)?),
            Ty::Real => ValueRef::Real(f32::from_le_bytes(from.array()?).into()),
            Ty::Float => ValueRef::Real(f64::from_le_bytes(from.array()?)),
            Ty::SmallMoney => ValueRef::Integer(i32::from_le_bytes(from.array()?).into()),
            Ty::Money => {
                // The higher half comes first.
                let (high, low) = (i32::from_le_bytes(from.array()?), from.u32()?);
                ValueRef::Integer(i64::from(high) << 32 | i64::from(low))
            }
            Ty::Decimal { p, .. } => {
                let negative = from.u8()? == 0;
                let mut magnitude = [0; 16];
                let rest = &bytes[1..];
                magnitude.get_mut(..rest.len()).ok_or_else(wrong)?.copy_from_slice(rest);
                let value = i128::try_from(u128::from_le_bytes(magnitude)).map_err(|_| wrong())?;
                if decimal::digits(value) > p {
                    return Err(Bad::Wrong(format!("a value of more digits than {}", self.ty)));
                }
                scratch.extend_from_slice(&decimal::to_bytes(if negative { -value } else { value }));
                ValueRef::Blob(scratch)
            }
            Ty::Guid => {
                scratch.extend(GUID_ORDER.iter().filter_map(|at| bytes.get(*at)));
                ValueRef::Blob(scratch)
            }
            Ty::Date => {
                let [a, b, c] = from.array()?;
                ValueRef::Integer(i64::from(u32::from_le_bytes([a, b, c, 0])) * calendar::DAY)
            }
            Ty::Time(scale) => ValueRef::Integer(time(&mut from, scale, bytes.len())?),
            Ty::DateTime2(scale) => {
                let time = time(&mut from, scale, bytes.len().checked_sub(3).ok_or_else(wrong)?)?;
                let [a, b, c] = from.array()?;
                ValueRef::Integer(i64::from(u32::from_le_bytes([a, b, c, 0])) * calendar::DAY + time)
            }
            Ty::DateTimeOffset(scale) => {
                let time = time(&mut from, scale, bytes.len().checked_sub(5).ok_or_else(wrong)?)?;
                let [a, b, c] = from.array()?;
                let offset = i16::from_le_bytes(from.array()?);
                let ticks = i64::from(u32::from_le_bytes([a, b, c, 0])) * calendar::DAY + time;
                scratch.extend_from_slice(&offset_bytes(ticks, offset));
                ValueRef::Blob(scratch)
            }
            Ty::SmallDateTime => {
                let (days, minutes) = (i64::from(from.u16()?), i64::from(from.u16()?));
                ValueRef::Integer((calendar::DAYS_1900 + days) * calendar::DAY + minutes * 60 * calendar::SECOND)
            }
            Ty::DateTime => {
                let (days, thirds) = (i64::from(i32::from_le_bytes(from.array()?)), i64::from(from.u32()?));
                ValueRef::Integer((calendar::DAYS_1900 + days) * calendar::DAY + calendar::from_thirds(thirds))
            }
            Ty::NChar(_) | Ty::NVarChar(_) => {
                if !bytes.len().is_multiple_of(2) {
                    return Err(wrong());
                }
                utf16_to_utf8(bytes, scratch);
                ValueRef::Text(scratch)
            }
            Ty::Xml => {
                let bytes = bytes.strip_prefix(&[0xff, 0xfe]).unwrap_or(bytes);
                utf16_to_utf8(bytes, scratch);
                ValueRef::Text(scratch)
            }
            Ty::Char(_) | Ty::VarChar(_) => {
                if bytes.is_ascii() {
                    scratch.extend_from_slice(bytes);
                } else {
                    let (text, _) = WINDOWS_1252.decode_without_bom_handling(bytes);
                    scratch.extend_from_slice(text.as_bytes());
                }
                ValueRef::Text(scratch)
            }
            Ty::Binary(_) | Ty::VarBinary(_) => {
                scratch.extend_from_slice(bytes);
                ValueRef::Blob(scratch)
            }
        })
    }
}

fn time(from: &mut Reader<'_>, scale: u8, length: usize) -> Result<i64, Bad> {
    if length != usize::from(time_bytes(scale)) {
        return Err(Bad::Wrong(format!("{length} bytes for a time of scale {scale}")));
    }
    let mut whole = [0; 8];
    whole[..length].copy_from_slice(from.take(length)?);
    let ticks = i64::from_le_bytes(whole) * 10_i64.pow(u32::from(7 - scale));
    if ticks >= calendar::DAY {
        return Err(Bad::Wrong("a time of day past midnight".to_owned()));
    }
    Ok(ticks)
}

/// UTC ticks and the offset as they are stored: what comes first sorts.
pub(super) fn offset_bytes(ticks: i64, offset: i16) -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes[..8].copy_from_slice(&ticks.to_be_bytes());
    bytes[8..].copy_from_slice(&offset.to_be_bytes());
    bytes
}

/// The reverse.
pub(super) fn from_offset_bytes(bytes: &[u8]) -> (i64, i16) {
    let (ticks, rest) = bytes.split_at_checked(8).unwrap_or((&[0; 8], &[0; 2]));
    let offset = rest.try_into().map(i16::from_be_bytes).unwrap_or_default();
    (ticks.try_into().map(i64::from_be_bytes).unwrap_or_default(), offset)
}

/// A GUID's text.
pub(super) fn format_guid(stored: &[u8]) -> String {
    let mut wire = [0_u8; 16];
    for (byte, at) in stored.iter().zip(GUID_ORDER) {
        wire[at] = *byte;
    }
    let hex = |bytes: &mut dyn Iterator<Item = &u8>| bytes.map(|byte| format!("{byte:02X}")).collect::<String>();
    let (a, b, c) =
        (hex(&mut wire[..4].iter().rev()), hex(&mut wire[4..6].iter().rev()), hex(&mut wire[6..8].iter().rev()));
    format!("{a}-{b}-{c}-{}-{}", hex(&mut wire[8..10].iter()), hex(&mut wire[10..].iter()))
}

/// Reads a GUID's text.
pub(super) fn parse_guid(text: &str) -> Option<[u8; 16]> {
    let text = text.trim().trim_start_matches('{').trim_end_matches('}');
    let parts: Vec<&str> = text.split('-').collect();
    if parts.iter().map(|part| part.len()).collect::<Vec<_>>() != [8, 4, 4, 4, 12] {
        return None;
    }
    let digits: String = parts.concat();
    let mut wire = [0; 16];
    for (index, byte) in wire.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(index * 2..index * 2 + 2)?, 16).ok()?;
    }
    wire[..4].reverse();
    wire[4..6].reverse();
    wire[6..8].reverse();
    Some(GUID_ORDER.map(|at| wire[at]))
}

/// Appends a stored value as a ROW carries it, of a type that [`put_type`] told.
pub(super) fn put_value(ty: &Ty, nullable: bool, value: ValueRef<'_>, out: &mut Vec<u8>) {
    let plp = matches!(ty, Ty::VarChar(None) | Ty::NVarChar(None) | Ty::VarBinary(None) | Ty::Xml);
    let short = (ty.is_text() || ty.is_binary()) && !plp;
    let integer = |value: ValueRef<'_>| match value {
        ValueRef::Integer(n) => n,
        #[expect(clippy::cast_possible_truncation, reason = "SQLite gave a float where an integer was meant")]
        ValueRef::Real(n) => n as i64,
        _ => 0,
    };
    let blob = |value: ValueRef<'_>| match value {
        ValueRef::Blob(bytes) | ValueRef::Text(bytes) => bytes.to_vec(),
        _ => vec![],
    };
    if value == ValueRef::Null {
        match () {
            () if plp => out.extend_from_slice(&u64::MAX.to_le_bytes()),
            () if short => out.extend_from_slice(&u16::MAX.to_le_bytes()),
            () => out.push(0),
        }
        return;
    }
    let fixed = |out: &mut Vec<u8>, bytes: &[u8]| {
        if nullable {
            out.push(u8::try_from(bytes.len()).unwrap_or(0));
        }
        out.extend_from_slice(bytes);
    };
    match *ty {
        Ty::Bit | Ty::TinyInt => fixed(out, &integer(value).to_le_bytes()[..1]),
        Ty::SmallInt => fixed(out, &integer(value).to_le_bytes()[..2]),
        Ty::Int | Ty::SmallMoney => fixed(out, &integer(value).to_le_bytes()[..4]),
        Ty::BigInt => fixed(out, &integer(value).to_le_bytes()),
        Ty::Money => {
            let bytes = integer(value).to_le_bytes();
            fixed(out, &[bytes[4], bytes[5], bytes[6], bytes[7], bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        Ty::Real | Ty::Float => {
            #[expect(clippy::cast_precision_loss, reason = "it becomes a float")]
            let number = match value {
                ValueRef::Real(n) => n,
                ValueRef::Integer(n) => n as f64,
                _ => 0.0,
            };
            #[expect(clippy::cast_possible_truncation, reason = "real has four bytes")]
            match ty {
                Ty::Real => fixed(out, &(number as f32).to_le_bytes()),
                _ => fixed(out, &number.to_le_bytes()),
            }
        }
        Ty::SmallDateTime => {
            let ticks = integer(value);
            let days = ticks.div_euclid(calendar::DAY) - calendar::DAYS_1900;
            let minutes = ticks.rem_euclid(calendar::DAY) / (60 * calendar::SECOND);
            let [a, b] = [days, minutes].map(|n| u16::try_from(n).unwrap_or(0).to_le_bytes());
            fixed(out, &[a[0], a[1], b[0], b[1]]);
        }
        Ty::DateTime => {
            let ticks = integer(value);
            let days = i32::try_from(ticks.div_euclid(calendar::DAY) - calendar::DAYS_1900).unwrap_or(0).to_le_bytes();
            let thirds = u32::try_from(calendar::thirds(ticks.rem_euclid(calendar::DAY))).unwrap_or(0).to_le_bytes();
            fixed(out, &[days[0], days[1], days[2], days[3], thirds[0], thirds[1], thirds[2], thirds[3]]);
        }
        Ty::Decimal { p, .. } => {
            let number = decimal::from_bytes(&blob(value)).unwrap_or(0);
            let length = decimal_bytes(p);
            out.extend_from_slice(&[length, u8::from(number >= 0)]);
            out.extend_from_slice(&number.unsigned_abs().to_le_bytes()[..usize::from(length) - 1]);
        }
        Ty::Date => {
            out.push(3);
            put_days(integer(value), out);
        }
        Ty::Time(scale) => {
            out.push(time_bytes(scale));
            put_time(integer(value), scale, out);
        }
        Ty::DateTime2(scale) => {
            out.push(time_bytes(scale) + 3);
            put_time(integer(value).rem_euclid(calendar::DAY), scale, out);
            put_days(integer(value), out);
        }
        Ty::DateTimeOffset(scale) => {
            let (ticks, offset) = from_offset_bytes(&blob(value));
            out.push(time_bytes(scale) + 5);
            put_time(ticks.rem_euclid(calendar::DAY), scale, out);
            put_days(ticks, out);
            out.extend_from_slice(&offset.to_le_bytes());
        }
        Ty::Guid => {
            let mut wire = [0_u8; 16];
            for (byte, at) in blob(value).iter().zip(GUID_ORDER) {
                wire[at] = *byte;
            }
            out.push(16);
            out.extend_from_slice(&wire);
        }
        _ => put_long(ty, plp, value, out),
    }
}

fn put_days(ticks: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(&ticks.div_euclid(calendar::DAY).to_le_bytes()[..3]);
}

fn put_time(ticks: i64, scale: u8, out: &mut Vec<u8>) {
    let units = ticks / 10_i64.pow(u32::from(7 - scale.min(7)));
    out.extend_from_slice(&units.to_le_bytes()[..usize::from(time_bytes(scale))]);
}

/// Text and bytes, framed by two bytes of length or as one chunk.
fn put_long(ty: &Ty, plp: bool, value: ValueRef<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    // The length is known when the bytes are there.
    out.extend_from_slice(if plp { &[0; 12] } else { &[0; 2] });
    let first = out.len();
    let number;
    let bytes = match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes,
        ValueRef::Integer(n) => {
            number = n.to_string();
            number.as_bytes()
        }
        ValueRef::Real(n) => {
            number = n.to_string();
            number.as_bytes()
        }
        ValueRef::Null => &[],
    };
    match ty {
        Ty::NChar(_) | Ty::NVarChar(_) | Ty::Xml => {
            put_utf16(&String::from_utf8_lossy(bytes), out);
        }
        Ty::Char(_) | Ty::VarChar(_) if !bytes.is_ascii() => put_1252(&String::from_utf8_lossy(bytes), out),
        _ => out.extend_from_slice(bytes),
    }
    let length = out.len() - first;
    if plp {
        out[start..start + 8].copy_from_slice(&u64::try_from(length).unwrap_or(0).to_le_bytes());
        out[start + 8..first].copy_from_slice(&u32::try_from(length).unwrap_or(0).to_le_bytes());
        if length > 0 {
            out.extend_from_slice(&[0; 4]);
        }
    } else {
        out[start..first].copy_from_slice(&u16::try_from(length).unwrap_or(0).to_le_bytes());
    }
}

/// What code page 1252 does not have becomes a question mark.
pub(super) fn put_1252(text: &str, out: &mut Vec<u8>) {
    let mut buffer = [0; 4];
    for char in text.chars() {
        let (bytes, _, lost) = WINDOWS_1252.encode(char.encode_utf8(&mut buffer));
        if lost { out.push(b'?') } else { out.extend_from_slice(&bytes) }
    }
}
