//! What a process that dies leaves behind, and what others do to the file.

use super::*;

fn target(folder: &Path, mode: WriteMode) -> Target {
    Target::new(&folder.join("out.csv"), mode, "p/s".to_owned())
}
fn checkpoint(epoch: u64, last: bool) -> Checkpoint {
    let started = jiff::Timestamp::UNIX_EPOCH;
    let run = towpath_core::Run { id: "r".into(), started, parameters: BTreeMap::new(), fingerprint: BTreeMap::new() };
    Checkpoint { run, epoch, last, keyed_by: None, at: BTreeMap::new() }
}
fn stage(opening: &Opening, rows: &str) -> u64 {
    fs::write(&opening.staging, rows).unwrap();
    rows.len() as u64
}
fn content(target: &Target) -> String {
    fs::read_to_string(target.path()).unwrap_or_default()
}
fn epoch(opening: &Opening) -> u64 {
    opening.checkpoint.as_ref().map_or(0, |held| held.epoch)
}

/// A process dies behind the decision, with so many bytes of the rows in the file.
#[test]
fn a_commit_cut_off_anywhere_is_finished_by_the_next_process() {
    let rows = "3,4\n5,6\n";
    for written in 0..=rows.len() {
        let folder = tempfile::tempdir().unwrap();
        let target = target(folder.path(), WriteMode::Append);
        let opening = target.open("r").unwrap();
        target.commit(opening.fence, &checkpoint(1, false), &opening.staging, stage(&opening, "a,b\n1,2\n")).unwrap();
        let staged = stage(&opening, rows);
        let lock = target.lock().unwrap();
        target.decide(&lock, opening.fence, &checkpoint(2, true), &opening.staging, staged).unwrap();
        drop(lock);
        let mut file = OpenOptions::new().append(true).open(target.path()).unwrap();
        file.write_all(&rows.as_bytes()[..written]).unwrap();
        let next = target.open("r").unwrap();
        assert_eq!((epoch(&next), content(&target).as_str()), (2, "a,b\n1,2\n3,4\n5,6\n"), "{written} bytes");
    }
}

#[test]
fn a_replacement_cut_off_anywhere_is_finished_by_the_next_process() {
    for renamed in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let target = target(folder.path(), WriteMode::Replace);
        fs::write(target.path(), "old\n").unwrap();
        let opening = target.open("r").unwrap();
        let staged = stage(&opening, "a\n1\n");
        let lock = target.lock().unwrap();
        target.decide(&lock, opening.fence, &checkpoint(1, true), &opening.staging, staged).unwrap();
        drop(lock);
        assert_eq!(content(&target), "old\n");
        if renamed {
            fs::rename(&opening.staging, target.path()).unwrap();
        }
        let next = target.open("r").unwrap();
        assert_eq!((epoch(&next), content(&target).as_str()), (1, "a\n1\n"), "renamed: {renamed}");
    }
}

/// What somebody else does to the file between two runs, and what comes of it.
#[test]
fn a_file_that_others_change_is_known_again_or_refused() {
    let appended = |text: &'static str| move |path: &Path| fs::write(path, format!("a\n1\n{text}")).unwrap();
    let check = |mode, change: &dyn Fn(&Path), expect: &str| {
        let folder = tempfile::tempdir().unwrap();
        let target = target(folder.path(), mode);
        let opening = target.open("r").unwrap();
        target.commit(opening.fence, &checkpoint(1, true), &opening.staging, stage(&opening, "a\n1\n")).unwrap();
        change(target.path());
        let found = match target.open("r2") {
            Ok(opening) => format!("epoch {}{}", epoch(&opening), if opening.torn { ", torn" } else { "" }),
            Err(error) => error.kind().name().to_owned(),
        };
        assert_eq!(found, expect, "{mode:?}");
    };
    check(WriteMode::Append, &|_| {}, "epoch 1");
    check(WriteMode::Append, &appended("2\n"), "epoch 1");
    check(WriteMode::Append, &appended("2"), "epoch 1, torn");
    check(WriteMode::Append, &|path| fs::remove_file(path).unwrap(), "epoch 0");
    check(WriteMode::Append, &|path| fs::write(path, "a\n2\n").unwrap(), "conflict");
    check(WriteMode::Append, &|path| fs::write(path, "a\n").unwrap(), "conflict");
    check(WriteMode::Replace, &|_| {}, "epoch 1");
    check(WriteMode::Replace, &appended("2\n"), "epoch 0");
    check(WriteMode::Replace, &|path| fs::remove_file(path).unwrap(), "epoch 0");
}

#[test]
fn others_who_write_meanwhile_are_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let target = target(folder.path(), WriteMode::Append);
    let opening = target.open("r").unwrap();
    let staged = stage(&opening, "a\n1\n");
    let lock = target.lock().unwrap();
    target.decide(&lock, opening.fence, &checkpoint(1, true), &opening.staging, staged).unwrap();
    drop(lock);
    fs::write(target.path(), "x\n").unwrap();
    let error = target.open("r").unwrap_err();
    assert_eq!(error.kind(), towpath_core::ErrorKind::Conflict, "{error}");
    assert_eq!(content(&target), "x\n");
}
