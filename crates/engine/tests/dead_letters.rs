//! Dead letters: that a row comes back as it was, what is in the folder, and what opening does with it.
#![allow(clippy::unwrap_used, reason = "it is what makes a test fail")]

use std::{fs, ops::ControlFlow, path::Path, sync::Arc};

use arrow_array::{
    ArrayRef, BinaryArray, Decimal128Array, Float64Array, IntervalMonthDayNanoArray, RecordBatch, StringArray,
    TimestampMicrosecondArray, types::IntervalMonthDayNano,
};
use towpath_core::{ErrorKind, RowPosition, Run};
use towpath_engine::dead_letters::{DeadLetters, Domain, Entry, Options, Row, Where, list, show};

fn run(id: &str) -> Run {
    let started = "2026-01-31T05:00:00Z".parse().unwrap();
    Run { id: id.into(), started, parameters: Default::default(), fingerprint: Default::default() }
}

fn entry(epoch: u64, domain: Domain, row: Row) -> Entry {
    Entry {
        as_of: None,
        epoch,
        domain,
        run: "r1".into(),
        component: "table".into(),
        source: Some("file".into()),
        partition: Some(towpath_core::Partition::new("in.csv")),
        position: Where::Record(RowPosition { record: 3, line: 4, byte: 99 }),
        kind: ErrorKind::Data,
        reason: "column id: 'x' is no int64".to_owned(),
        column: Some("id".to_owned()),
        row,
    }
}

fn all(dir: &Path) -> Vec<Entry> {
    let mut found = vec![];
    show(dir, |entry| {
        found.push(entry);
        ControlFlow::Continue(())
    })
    .unwrap();
    found
}

fn one(values: ArrayRef) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable([("v", values, true)]).unwrap()
}

#[test]
fn a_row_comes_back_as_it_was() {
    let interval = IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano::new(1, 2, 3)]);
    let json = |values: ArrayRef| Row::of(&one(values), 0);
    let bytes = |bytes: &'static [u8]| Row::Bytes(bytes.into());
    let cases: [(&str, Row, &str); 9] = [
        ("text", bytes(b"x,\"a\nb\"\r\n"), r#""raw":"x,\"a\nb\"\r\n""#),
        ("not UTF-8", bytes(b"M\xfcller\0"), r#""raw_base64":"Tfxsb"#),
        ("nothing", bytes(b""), r#""raw":"""#),
        ("a null", json(Arc::new(StringArray::from(vec![None::<&str>]))), r#""row":{"v":null}"#),
        ("a float", json(Arc::new(Float64Array::from(vec![0.1]))), r#""row":{"v":0.1}"#),
        (
            "all digits",
            json(Arc::new(
                Decimal128Array::from(vec![12_345_678_901_234_567_890_123_i128])
                    .with_precision_and_scale(38, 2)
                    .unwrap(),
            )),
            "123456789012345678901.23",
        ),
        ("a moment", json(Arc::new(TimestampMicrosecondArray::from(vec![250_000]))), "1970-01-01T00:00:00.25"),
        ("binary", json(Arc::new(BinaryArray::from(vec![&b"\x00\xff"[..]]))), r#""row":{"v":"00ff"}"#),
        ("a type that JSON has not", json(Arc::new(interval)), r#""row":{"v":"1 mons 2 days"#),
    ];
    let dir = tempfile::tempdir().unwrap();
    let mut letters = DeadLetters::open(dir.path(), &run("r1"), |_| 0).unwrap();
    let entries: Vec<_> = cases.iter().map(|(_, row, _)| entry(1, Domain::Shared, row.clone())).collect();
    for entry in &entries {
        letters.append(entry).unwrap();
    }
    assert_eq!(all(dir.path()), [], "nothing is promised before it is durable");
    letters.sync().unwrap();
    assert_eq!(all(dir.path()), entries);
    let text = fs::read_to_string(dir.path().join("000001.jsonl")).unwrap();
    for ((what, _, shown), line) in cases.iter().zip(text.lines()) {
        assert!(line.contains(shown), "{what}: {line}");
        assert!(
            line.starts_with(r#"{"epoch":1,"domain":"shared","run":"r1","component":"table","source":"file""#),
            "{line}"
        );
    }
}

#[test]
fn opening_drops_what_was_not_committed_and_torn_lines() {
    let dir = tempfile::tempdir().unwrap();
    let sink = |name: &str| Domain::Sink(name.into());
    let row = |n: u8| Row::Bytes(vec![b'0' + n].into());
    let options = Options { rotate_at: 400, ..Options::default() };
    let mut letters = DeadLetters::open_with(dir.path(), &run("r1"), |_| 0, options).unwrap();
    let given =
        [(1, Domain::Shared), (1, sink("a")), (2, sink("a")), (2, sink("b")), (3, Domain::Shared), (3, sink("b"))];
    for (n, (epoch, domain)) in given.iter().enumerate() {
        letters.append(&entry(*epoch, domain.clone(), row(n as u8))).unwrap();
    }
    letters.sync().unwrap();
    assert_eq!(letters.count(), 6);
    drop(letters);
    let files = || list(dir.path()).unwrap().files.len();
    assert!(files() > 1, "they are rotated");
    // The writer died in the middle of a line.
    let last = list(dir.path()).unwrap().files.pop().unwrap().path;
    fs::write(&last, [fs::read(&last).unwrap(), b"{\"epoch\":3,\"dom".to_vec()].concat()).unwrap();
    assert_eq!(list(dir.path()).unwrap().unreadable, 1);
    // Sink a is at epoch 2, sink b at 1; what both lead to counts with the one that lags.
    let committed = |domain: &Domain| if *domain == sink("a") { 2 } else { 1 };
    let letters = DeadLetters::open_with(dir.path(), &run("r1"), committed, options).unwrap();
    assert_eq!(letters.count(), 3);
    let kept = || all(dir.path()).into_iter().map(|entry| entry.row).collect::<Vec<_>>();
    assert_eq!(kept(), [row(0), row(1), row(2)]);
    let listing = list(dir.path()).unwrap();
    assert_eq!(listing.unreadable, 0);
    let groups: Vec<_> = listing.groups.iter().map(|group| (group.sink.as_deref(), group.entries)).collect();
    assert_eq!(groups, [(None, 1), (Some("a"), 2)]);
    drop(letters);
    // What was sealed is never dropped, whatever is said later.
    let mut letters = DeadLetters::open_with(dir.path(), &run("r2"), committed, options).unwrap();
    assert_eq!(letters.count(), 0, "those of another run do not count for this one");
    letters.append(&entry(9, Domain::Shared, row(9))).unwrap();
    letters.seal().unwrap();
    drop(letters);
    drop(DeadLetters::open_with(dir.path(), &run("r3"), |_| 0, options).unwrap());
    assert_eq!(kept(), [row(0), row(1), row(2), row(9)]);
    // Looking may end in the middle.
    let mut seen = 0;
    show(dir.path(), |_| {
        seen += 1;
        ControlFlow::Break(())
    })
    .unwrap();
    assert_eq!(seen, 1);
}

#[test]
fn a_folder_that_cannot_be_written_ends_the_run_and_stays_ended() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("in_the_way");
    let mut letters = DeadLetters::open(&dir, &run("r1"), |_| 0).unwrap();
    fs::write(&dir, "a file").unwrap();
    let row = entry(1, Domain::Shared, Row::Bytes("x".into()));
    let error = letters.append(&row).unwrap_err();
    assert!(!error.can_retry());
    assert!(error.to_string().contains("the dead letters cannot be read or written"), "{error}");
    assert!(error.what_to_do().unwrap().contains("make the folder writable"), "{error:?}");
    // Nobody knows what is on disk: a second try that succeeds would prove nothing.
    fs::remove_file(&dir).unwrap();
    for again in [letters.append(&row), letters.sync(), letters.seal()] {
        assert!(again.unwrap_err().to_string().contains("could not be written before"));
    }
    assert_eq!(list(&dir).unwrap().files.len(), 0, "a folder that is not there is empty");
}
