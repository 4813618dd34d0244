//! The sink, beyond what the conformance suite asks of every sink.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure in a test is its message")]

mod common;

use std::{fs, path::Path, sync::Arc};

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use common::{context, many, read_all, run, try_sink, write};
use towpath_core::{Checkpoint, ErrorKind, Held, Known, Result, Sink};

fn rows(columns: &[(&str, &[&str])]) -> RecordBatch {
    let columns =
        columns.iter().map(|(name, values)| (*name, Arc::new(StringArray::from(values.to_vec())) as ArrayRef));
    RecordBatch::try_from_iter(columns).unwrap()
}

fn at(epoch: u64, last: bool) -> Checkpoint {
    Checkpoint { run: run("r1"), epoch, last, keyed_by: None, at: Default::default() }
}

/// A whole run that writes these batches, one epoch each.
async fn load(yaml: &str, batches: &[RecordBatch]) -> Result<()> {
    let mut sink = try_sink(yaml)?;
    sink.open(&context(), &run("r1")).await?;
    let written = write_all(sink.as_mut(), batches).await;
    sink.close().await?;
    written
}

async fn write_all(sink: &mut dyn Sink, batches: &[RecordBatch]) -> Result<()> {
    for (number, batch) in batches.iter().enumerate() {
        sink.schema(&batch.schema()).await?;
        sink.write(number as u64, batch.clone()).await?;
        sink.flush().await?;
        sink.commit(&at(number as u64 + 1, number + 1 == batches.len())).await?;
    }
    Ok(())
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn rows_are_laid_under_the_columns_that_the_file_has() {
    let check = async |before: &str, write: &str, batches: &[RecordBatch], expect: Result<&str, ErrorKind>| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.csv");
        if !before.is_empty() {
            fs::write(&path, before).unwrap();
        }
        let yaml = format!("{{ path: '{}', {write} }}", path.display());
        let loaded = load(&yaml, batches).await.map_err(|error| error.kind());
        let found = loaded.map(|()| fs::read_to_string(&path).unwrap());
        assert_eq!(found.as_deref().map_err(|kind| *kind), expect, "{before:?} {write}");
    };
    let one = rows(&[("id", &["1"]), ("name", &["a"])]);
    let turned = rows(&[("name", &["b"]), ("id", &["2"])]);
    let part = rows(&[("id", &["3"])]);
    let more = rows(&[("id", &["4"]), ("note", &["n"])]);
    let all = [one.clone(), turned.clone(), part.clone()];
    check("", "write: append", &all, Ok("id,name\n1,a\n2,b\n3,\n")).await;
    check("", "write: replace", &all, Ok("id,name\n1,a\n2,b\n3,\n")).await;
    check("name,id\nz,0\n", "write: append", &all, Ok("name,id\nz,0\na,1\nb,2\n,3\n")).await;
    check("name,id\nz,0\n", "write: replace", &all, Ok("id,name\n1,a\n2,b\n3,\n")).await;
    // Somebody's last line has no end.
    check("id,name\n0,z", "write: append", std::slice::from_ref(&one), Ok("id,name\n0,z\n1,a\n")).await;
    check("", "write: append", &[one.clone(), more.clone()], Err(ErrorKind::Conflict)).await;
    check("id\n0\n", "write: append", std::slice::from_ref(&one), Err(ErrorKind::Conflict)).await;
    check("", "delimiter: ';'", std::slice::from_ref(&one), Ok("id;name\n1;a\n")).await;
    check("", "delimiter: tab", std::slice::from_ref(&one), Ok("id\tname\n1\ta\n")).await;
    check("", "format: jsonl", &[one, more], Ok("{\"id\":\"1\",\"name\":\"a\"}\n{\"id\":\"4\",\"note\":\"n\"}\n"))
        .await;
}

#[tokio::test]
async fn nothing_but_the_ledger_and_its_lock_is_left_beside_the_file() {
    for write in ["append", "replace"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.csv");
        let yaml = format!("{{ path: '{}', write: {write} }}", path.display());
        let batch = rows(&[("id", &["1"])]);
        load(&yaml, &[batch.clone(), batch.clone()]).await.unwrap();
        let expect = [".out.csv.towpath", ".out.csv.towpath-lock", "out.csv"];
        assert_eq!(names(folder.path()), expect, "{write}");
        // A process that dies leaves what it staged; the next one clears it away.
        let mut dead = try_sink(&yaml).unwrap();
        dead.open(&context(), &run("r2")).await.unwrap();
        dead.schema(&batch.schema()).await.unwrap();
        dead.write(0, batch.clone()).await.unwrap();
        dead.flush().await.unwrap();
        drop(dead);
        assert_eq!(names(folder.path()).len(), 4, "{write}");
        load(&yaml, &[batch]).await.unwrap();
        assert_eq!(names(folder.path()), expect, "{write}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_replaced_file_keeps_its_rights_and_its_link() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let real = folder.path().join("real.csv");
    fs::write(&real, "old").unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    let link = folder.path().join("link.csv");
    std::os::unix::fs::symlink(&real, &link).unwrap();
    load(&format!("{{ path: '{}' }}", link.display()), &[rows(&[("id", &["1"])])]).await.unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(&real).unwrap(), "id\n1\n");
    assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
}

/// What others append between runs, and while one is under way, stays.
#[tokio::test]
async fn others_may_append_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.csv");
    let yaml = format!("{{ path: '{}', write: append }}", path.display());
    let batch = |id: &'static str| rows(&[("id", &[id])]);
    load(&yaml, &[batch("1")]).await.unwrap();
    let append = |text: &str| {
        use std::io::Write as _;
        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(text.as_bytes()).unwrap();
    };
    append("theirs\n");
    let mut sink = try_sink(&yaml).unwrap();
    let held = sink.open(&context(), &run("r2")).await.unwrap();
    assert!(matches!(held, Held::Here(Some(held)) if held.epoch == 1));
    append("more\n");
    sink.schema(&batch("2").schema()).await.unwrap();
    sink.write(0, batch("2")).await.unwrap();
    sink.flush().await.unwrap();
    sink.commit(&at(2, true)).await.unwrap();
    sink.close().await.unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "id\n1\ntheirs\nmore\n2\n");
}

#[tokio::test]
async fn what_was_written_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (write(folder.path(), "in.csv", many(0..20_000)), folder.path().join("out.csv"));
    let pieces = read_all(&format!("{{ path: {from} }}")).await;
    let batches: Vec<_> = pieces.into_iter().map(|piece| piece.rows).collect();
    load(&format!("{{ path: '{}' }}", to.display()), &batches).await.unwrap();
    assert_eq!(fs::read_to_string(to).unwrap(), fs::read_to_string(from).unwrap());
}

#[tokio::test]
async fn a_plan_says_what_would_happen() {
    let folder = tempfile::tempdir().unwrap();
    let there = write(folder.path(), "a.csv", "id\n");
    let mut said = vec![];
    for yaml in [
        format!("{{ path: '{there}' }}"),
        format!("{{ path: '{there}', write: append }}"),
        format!("{{ path: '{}/b.jsonl', format: jsonl }}", folder.path().display()),
        format!("{{ path: '{}/none/b.csv' }}", folder.path().display()),
        "{ path: a.csv, write: upsert }".to_owned(),
        "{ path: a.csv, format: jsonl, delimiter: ';' }".to_owned(),
        "{ path: a.csv, delimiter: ';;' }".to_owned(),
        "{ path: / }".to_owned(),
    ] {
        said.push(match try_sink(&yaml) {
            Ok(mut sink) => {
                let plan = sink.plan(&context().for_plan(), &Known::No).await.unwrap();
                format!("{}: {}", plan.identity, plan.notes.join("; "))
            }
            Err(error) => format!("{}: {error} ({})", error.kind().name(), error.what_to_do().unwrap_or_default()),
        });
    }
    insta::assert_snapshot!(said.join("\n").replace(&folder.path().display().to_string(), "FOLDER"));
    assert_eq!(names(folder.path()), ["a.csv"], "nothing was changed");
}

#[tokio::test]
async fn errors_name_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let missing = format!("{}/none/out.csv", folder.path().display());
    let error = load(&format!("{{ path: '{missing}' }}"), &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("none"), "{error}");
    write(folder.path(), ".out.csv.towpath", "not ours");
    let path = format!("{}/out.csv", folder.path().display());
    let error = load(&format!("{{ path: '{path}' }}"), &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.what_to_do().is_some(), "{error}");
    let typed: ArrayRef = Arc::new(Int64Array::from(vec![7]));
    let batch = RecordBatch::try_from_iter([("id", typed)]).unwrap();
    fs::remove_file(folder.path().join(".out.csv.towpath")).unwrap();
    load(&format!("{{ path: '{path}' }}"), &[batch]).await.unwrap();
    assert_eq!(fs::read_to_string(path).unwrap(), "id\n7\n");
}
