//! What bytes become, table by table.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure in a test is the message")]

mod common;

use common::{decode, options, show};

/// Decodes whole, byte by byte and in odd pieces: always the same.
fn check(options_text: &str, input: impl AsRef<[u8]>) -> String {
    let (options, input) = (options(options_text), input.as_ref());
    let whole = show(decode(&options, [input]));
    for size in [1, 2, 3, 7, 64] {
        assert_eq!(show(decode(&options, input.chunks(size))), whole, "in pieces of {size}");
    }
    whole
}

/// Options, input and what becomes of it, case by case.
#[derive(Default)]
struct Table(String);

impl Table {
    fn add(&mut self, options: &str, input: impl AsRef<[u8]>) {
        let (input, output) = (input.as_ref(), check(options, input.as_ref()));
        let shown = input.escape_ascii().to_string().replace("\\\"", "\"");
        self.0.push_str(&format!("{options} {shown}\n{output}\n"));
    }
}

#[test]
fn records_are_rows() {
    let mut table = Table::default();
    table.add("{}", "a,b\n1,2\r\n3,4\r5,6");
    table.add("{}", "\u{feff}a,b\n\n\r\n\"x,\"\"y\"\"\n\",\"\"\n\n");
    table.add("{delimiter: tab, quote: \"'\", escape: '\\'}", "a\tb\n'it\\'s'\t'\\\\'\n'x''y'\t\"z\"\n");
    table.add("{quote: none}", "a,b\n\"x,y\"\n");
    table.add("{}", "a,b\n5\" pipe,x\0y\n");
    insta::assert_snapshot!(table.0);
}

#[test]
fn a_fault_costs_a_record() {
    let mut table = Table::default();
    // Too few, too many.
    table.add("{}", "a,b\n1\n2,3\n4,5,6\n7,8\n");
    // Behind a closing quote.
    table.add("{}", "a,b\n\"x\"y,1\n2,3\n");
    // A quote that is never closed.
    table.add("{}", "a,b\n1,\"x\n2,y\n3,z\n");
    // One that another seems to close.
    table.add("{}", "a,b\n1,\"x\n2,\"ok\"\n3,z\n");
    table.add("{}", "a,b,c\n1,\"x,q\r\n2,y,\"\r\n3,z,w\r\n");
    // A text of several lines with a fault stays one.
    table.add("{}", "a,b\n\"some\ntext\",1,2\n3,z\n");
    // Bytes that are not text.
    table.add("{}", b"a,b\n1,\xff\n2,x\n");
    insta::assert_snapshot!(table.0);
}

#[test]
fn a_record_past_the_limit_is_one_reject() {
    let mut table = Table::default();
    table.add("{max_record: 8B}", "a,b\n1,23456\n1,234567\n2,3\n");
    table.add("{max_record: 8B}", "a,b\n1,\"345678\n90\"\n2,3\n");
    table.add("{max_record: 8B}", "a,b\n1,\"3\n4,5\n6,7\n8,9\n");
    table.add("{max_record: 8B}", "a,b\n1,2345678901234567890");
    insta::assert_snapshot!(table.0);
}

#[test]
fn headers_say_or_must_match() {
    let mut table = Table::default();
    table.add("{header: none}", "1,2\n3\n");
    table.add("{header: none, columns: {a: int64, b: text}}", "1,2\n3,4\n");
    table.add("{header: [a, b], columns: {b: int64}}", "b,a\n1,2\n3,4\n");
    table.add("{header: [a, b]}", "a,c\n1,2\n");
    table.add("{header: [a, b]}", "a,b,c\n1,2,3\n");
    table.add("{}", "a,a,,a_2\n1,2,3,4\n");
    table.add("{}", "");
    table.add("{}", "\n\r\n");
    table.add("{header: none}", "");
    table.add("{columns: {Qty: int64}}", "a,b\n1,2\n");
    table.add("{max_record: 3B}", "a,b,c\n1,2,3\n");
    table.add("{}", "a,\"b\n1,2\n");
    table.add("{}", "a\0,\0b\0\n\0");
    insta::assert_snapshot!(table.0);
}

fn utf16(text: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(unit).collect()
}

#[test]
fn encodings_are_read() {
    let mut table = Table::default();
    let text = "\u{feff}a,b\r\nß,🚣\r\n1\r\nx,日\r\n";
    let expected = check("{}", text);
    for (unit, name) in [(u16::to_le_bytes as fn(u16) -> _, "utf-16le"), (u16::to_be_bytes, "utf-16be")] {
        let rows = |shown: &str| shown.lines().filter(|line| line.starts_with('{')).collect::<Vec<_>>().join("\n");
        assert_eq!(rows(&check("{}", utf16(text, unit))), rows(&expected), "{name} by its mark");
        let bare = utf16(text.trim_start_matches('\u{feff}'), unit);
        assert_eq!(rows(&check(&format!("{{encoding: {name}}}"), bare)), rows(&expected), "{name} by config");
    }
    table.add("{}", utf16(text, u16::to_le_bytes));
    let mut half = utf16("\u{feff}a,b\n1,", u16::to_le_bytes);
    half.extend_from_slice(&[0x00, 0xd8]);
    half.extend(utf16("\n2,x\n3,", u16::to_le_bytes));
    half.push(b'y');
    table.add("{}", half);
    table.add("{encoding: windows-1252}", b"a,b\n\x80,\xe9\n1\n\x81,\xff\n\xe9");
    insta::assert_snapshot!(table.0);
}

#[test]
fn values_have_their_types() {
    let mut table = Table::default();
    let columns = "{columns: {i: int64, f: float64, d: 'decimal(6,2)', b: bool, y: date, t: timestamp}}";
    table.add(
        columns,
        "i,f,d,b,y,t,s
1,1.5,2.50,true,2026-01-31,2026-01-31T05:00:00.25,x
,,,,,,
-9223372036854775808,-1e300,-9999.99,N,1969-12-31,1969-12-31 23:59:59,
 7 , .5, 1 ,Yes,2024-02-29,2024-02-29 00:00,
",
    );
    table.add(
        columns,
        "i,f,d,b,y,t,s
9223372036854775808,,,,,,
,1.5x,,,,,
,,1.234,,,,
,,10000,,,,
,,,maybe,,,
,,,,2026-02-29,,
,,,,,2026-01-31,
,,,,,2026-01-31T05:00:00Z,
,,,,,2026-01-31T24:00:00,
1,2,3,0,2026-01-01,2026-01-31T05:00:00.1234567,\"ok\"
x,y,,,,,
",
    );
    table.add("{nulls: ['', 'NULL'], columns: {i: int64}}", "i,s\nNULL,NULL\n,\n1,x\n\"\",\"\"\n");
    table.add("{columns: {t: {type: timestamp, format: '%d.%m.%Y %H:%M', timezone: Europe/Berlin}, d: {type: date, format: '%m/%d/%Y'}}}",
        "t,d\n31.01.2026 05:00,1/31/2026\n25.10.2026 02:30,12/01/2026\n29.03.2026 02:30,\n31.1.2026 5:00,\n31.01.2026,\n");
    table.add(
        "{columns: {t: {type: timestamp, timezone: Europe/Berlin}}}",
        "t\n2026-07-01 12:00:00\n2026-07-01T12:00:00Z\n2026-07-01T12:00:00.5+05:30\n2026-07-01T12:00:00 -0100\n",
    );
    insta::assert_snapshot!(table.0);
}
