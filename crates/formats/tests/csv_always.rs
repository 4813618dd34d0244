//! What holds for all input.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure in a test is the message")]

mod common;

use arrow_array::cast::AsArray;
use bytes::Bytes;
use common::{decode, drain, options, show};
use proptest::{collection::vec, prelude::*, sample::select};
use towpath_core::Original;
use towpath_formats::csv::{CsvDecoder, CsvEncoder, CsvOptions, Decoded};

const DIALECTS: [&str; 9] = [
    "{}",
    "{header: none}",
    "{delimiter: ';', quote: \"'\"}",
    "{quote: none}",
    "{escape: '\\', header: none}",
    "{max_record: 9B, header: none}",
    "{encoding: utf-16le, header: none}",
    "{encoding: windows-1252}",
    "{header: none, columns: {a: int64, b: text}, nulls: [x]}",
];

/// Bytes that like to get in each other's way.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let parts: Vec<&[u8]> = vec![
        b",",
        b",",
        b",",
        b"\"",
        b"\"",
        b"\n",
        b"\n",
        b"\r\n",
        b"\r",
        b"1",
        b"x",
        b"x,y\n",
        b"a,b\r\n",
        b"\"\"",
        b"\\",
        b";",
        b"'",
        b"\0",
        b"\xff",
        b"\xc3\xa4",
        b"\xd8",
        b"\xef\xbb\xbf",
        b"\"q\"",
        b"1,\"x\n2,y\n",
        b" ",
    ];
    let noise = vec(select(parts), 0..60).prop_map(|parts| parts.concat());
    // Long enough for the quick way's blocks of 64 bytes.
    let wide = vec(
        select(vec![&b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"[..], b"bbb", b",", b"\"", b"\n", b"\r\n", b"\"\""]),
        0..60,
    );
    prop_oneof![
        noise.clone(),
        wide.prop_map(|parts| parts.concat()),
        vec(any::<u8>(), 0..200),
        (noise.clone(), noise).prop_map(|(a, b)| [b"a,b\n".to_vec(), a, b].concat())
    ]
}

fn pieces<'a>(input: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (input.len() + 1)).chain([0, input.len()]).collect();
    cuts.sort_unstable();
    cuts.windows(2).map(|two| &input[two[0]..two[1]]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn pieces_change_nothing(dialect in select(&DIALECTS[..]), input in bytes(), cuts in vec(any::<usize>(), 0..20)) {
        let options = options(dialect);
        let whole = show(decode(&options, [&input[..]]));
        prop_assert_eq!(show(decode(&options, pieces(&input, &cuts))), whole.clone());
        prop_assert_eq!(show(decode(&options, input.chunks(1))), whole);
    }

    #[test]
    fn every_byte_is_accounted_for(dialect in select(&DIALECTS[..]), input in bytes()) {
        let options = options(dialect);
        // With the header, if there is one, as a record too.
        let Ok(all) = decode(&options, [&input[..]]) else { return Ok(()) };
        let wide = dialect.contains("utf-16") || input.starts_with(&[0xff, 0xfe]) || input.starts_with(&[0xfe, 0xff]);
        let mut records = None;
        for Decoded { rows, rejects, first, end } in &all {
            let count = (rows.num_rows() + rejects.len()) as u64;
            prop_assert_eq!(end.record - first.record, count, "each record is a row or a reject");
            prop_assert!(records.is_none_or(|before| before == first.record));
            prop_assert!(first.byte <= end.byte && end.byte <= input.len() as u64);
            records = Some(end.record);
            let mut before = first.byte;
            for reject in rejects {
                let Original::Bytes(bytes) = &reject.row else { panic!("bytes") };
                let at = reject.position.unwrap();
                prop_assert!(at.byte >= before, "in order");
                let from = at.byte as usize;
                prop_assert_eq!(&input[from..from + bytes.len()], &bytes[..], "byte for byte");
                before = at.byte + bytes.len() as u64;
                if !wide {
                    prop_assert_eq!(at.line, 1 + lines(&input[..from]), "line of byte {}", from);
                }
            }
        }
        if let Some(last) = all.last() {
            prop_assert_eq!(last.end.byte, input.len() as u64, "all was read");
        }
    }

    #[test]
    fn csv_core_reads_the_same(table in vec(vec("[a-z,\"\r\n ä]{0,40}", 3), 1..80), cuts in vec(any::<usize>(), 0..8), crlf in any::<bool>()) {
        let end = if crlf { "\r\n" } else { "\n" };
        let field = |field: &String| format!("\"{}\"", field.replace('"', "\"\""));
        let text: String = table.iter().map(|row| row.iter().map(field).collect::<Vec<_>>().join(",") + end).collect();
        let all = decode(&options("{header: none}"), pieces(text.as_bytes(), &cuts)).unwrap();
        let mut found = vec![];
        for Decoded { rows, rejects, .. } in all {
            prop_assert!(rejects.is_empty());
            for row in 0..rows.num_rows() {
                found.push(rows.columns().iter().map(|column| column.as_string::<i32>().value(row).to_owned()).collect::<Vec<_>>());
            }
        }
        prop_assert_eq!(&found, &by_csv_core(text.as_bytes()));
        prop_assert_eq!(&found, &table);
    }

    #[test]
    fn what_is_encoded_is_decoded(
        table in vec(vec(prop_oneof!["[a-z,;'\"\\\\\r\n\0 ä]{0,8}", Just(String::new()), Just("NULL".to_owned())], 1..=3), 1..20),
        dialect in select(vec!["{}", "{delimiter: ';'}", "{quote: \"'\"}", "{escape: '\\'}", "{delimiter: tab, escape: '\\', quote: \"'\"}"]),
    ) {
        let width = table[0].len();
        let columns: Vec<(String, arrow_array::ArrayRef)> = (0..width).map(|at| {
            let values: arrow_array::StringArray = table.iter().map(|row| Some(row.get(at).map_or("", String::as_str))).collect();
            (format!("c{at}"), std::sync::Arc::new(values) as _)
        }).collect();
        let rows = arrow_array::RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, values)| (name, values, true))).unwrap();
        let options = options(dialect);
        let (encoder, mut text) = (CsvEncoder::new(&options).unwrap(), vec![]);
        encoder.header(&rows.schema(), &mut text).unwrap();
        encoder.encode(&rows, &mut text).unwrap();
        let back = decode(&options, [&text[..]]).unwrap();
        prop_assert_eq!(back.len(), 1);
        prop_assert!(back[0].rejects.is_empty());
        prop_assert_eq!(&back[0].rows, &rows);
    }

    #[test]
    fn broken_quotes_cost_their_line_among_good_ones(good in 1usize..6, kind in 0usize..3, behind in 1usize..6) {
        let bad = ["x,\"never closed,y", "x,\"closed\" too early,y", "x,y"][kind];
        let line = |row: usize| format!("{row},b{row},\"c,{row}\"\n");
        let text: String = std::iter::once("a,b,c\n".to_owned())
            .chain((0..good).map(line)).chain([format!("{bad}\n")]).chain((0..behind).map(line)).collect();
        let all = decode(&CsvOptions::default(), [text.as_bytes()]).unwrap();
        prop_assert_eq!(all[0].rows.num_rows(), good + behind);
        let [reject] = &all[0].rejects[..] else { panic!("one reject") };
        prop_assert_eq!(reject.position.unwrap().record, good as u64 + 1);
        let Original::Bytes(bytes) = &reject.row else { panic!("bytes") };
        prop_assert_eq!(&bytes[..], bad.as_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, max_shrink_iters: 0, failure_persistence: None, ..Default::default() })]

    #[test]
    fn reading_goes_on_at_any_boundary(dialect in select(&DIALECTS[..]), mark in any::<bool>(), parts in vec(bytes(), 1..5), size in 1usize..20_000) {
        // Several batches.
        let mut input = if mark && !dialect.contains("1252") { vec![0xff, 0xfe] } else { vec![] };
        while input.len() < 150_000 {
            input.extend(parts.iter().flatten());
            input.extend_from_slice(b"\nx\0,\0");
        }
        let options = options(dialect);
        let mut decoder = CsvDecoder::new(&options).unwrap();
        let mut all = vec![];
        for piece in input.chunks(size) {
            decoder.push(Bytes::copy_from_slice(piece));
            loop {
                match decoder.next() {
                    Ok(Some(decoded)) => all.push(decoded),
                    Ok(None) => break,
                    Err(_) => return Ok(()),
                }
            }
        }
        // The header may be no header.
        let Ok(last) = decoder.finish() else { return Ok(()) };
        all.extend(last);
        while let Some(decoded) = decoder.finish().unwrap() {
            all.push(decoded);
        }
        if all.is_empty() {
            return Ok(());
        }
        let schema = decoder.schema().unwrap();
        // The rest is read again and again.
        for at in [0, all.len() / 2, all.len().saturating_sub(1)].into_iter().filter(|at| *at < all.len()) {
            let from = all[at].end;
            let tail = CsvDecoder::resume(&options, &schema, from).unwrap();
            let tail = drain(tail, [&input[from.byte as usize..]]).unwrap();
            prop_assert_eq!(tail.len(), all.len() - at - 1);
            for (again, before) in tail.iter().zip(&all[at + 1..]) {
                prop_assert_eq!((again.first, again.end), (before.first, before.end));
                prop_assert_eq!(&again.rows, &before.rows);
                let shown = |decoded: &Decoded| decoded.rejects.iter().map(common::reject).collect::<Vec<_>>();
                prop_assert_eq!(shown(again), shown(before));
            }
        }
    }
}

/// Line ends.
fn lines(text: &[u8]) -> u64 {
    let ends = text.iter().zip(text.iter().skip(1).map(Some).chain([None]));
    ends.filter(|(byte, next)| **byte == b'\n' || (**byte == b'\r' && *next != Some(&b'\n'))).count() as u64
}

fn by_csv_core(mut input: &[u8]) -> Vec<Vec<String>> {
    let mut reader = csv_core::Reader::new();
    let (mut out, mut ends) = (vec![0; 1 << 16], vec![0; 64]);
    let mut records = vec![];
    loop {
        let (result, read, _, fields) = reader.read_record(input, &mut out, &mut ends);
        input = &input[read..];
        match result {
            csv_core::ReadRecordResult::Record => {
                let starts = std::iter::once(0).chain(ends[..fields].iter().copied());
                let texts =
                    starts.zip(&ends[..fields]).map(|(from, to)| String::from_utf8(out[from..*to].to_vec()).unwrap());
                records.push(texts.collect());
            }
            csv_core::ReadRecordResult::End => return records,
            _ => {}
        }
    }
}
