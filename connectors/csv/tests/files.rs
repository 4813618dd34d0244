//! The source over files on disk.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure in a test is its message")]

mod common;

use std::{fs, io::Write as _, path::Path};

use async_compression::tokio::write::{BrotliEncoder, GzipEncoder, ZstdEncoder};
use common::{
    checkpoint, context, end, from, lines, many, mark, read, read_all, run, shown, source, try_source, write,
};
use tokio::io::AsyncWriteExt as _;
use towpath_core::{ErrorKind, Known, Mark, Next, Resume, source::Replay};

#[tokio::test]
async fn files_are_read_in_the_order_of_the_list_and_patterns_in_that_of_names() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display();
    write(folder.path(), "b.csv", "id,name\n3,c\n");
    write(folder.path(), "a.csv", "id,name\n1,a\n2,b\n");
    write(folder.path(), "z.csv", "name,id\nz,9\n");
    write(folder.path(), ".hidden.csv", "id,name\n0,h\n");
    fs::create_dir(folder.path().join("folder.csv")).unwrap();
    let expect = |names: &[(&str, &str)]| {
        names.iter().map(|(id, name)| format!("{{id={id:?} name={name:?}}}")).collect::<Vec<_>>()
    };
    let (a, b, z) = ([("1", "a"), ("2", "b")], ("3", "c"), ("9", "z"));
    for (path, rows) in [
        (format!("{at}/a.csv"), expect(&a)),
        (format!("'{at}/[ab].csv'"), expect(&[a[0], a[1], b])),
        (format!("['{at}/z.csv', '{at}/*.csv']"), expect(&[z, a[0], a[1], b])),
        (format!("['{at}/b.csv', '{at}/b.csv']"), expect(&[b])),
    ] {
        for concurrency in [1, 2, 7] {
            let pieces = read_all(&format!("{{ path: {path}, concurrency: {concurrency} }}")).await;
            assert_eq!(lines(&pieces), rows, "{path} {concurrency}");
        }
    }
}

#[tokio::test]
async fn discover_proposes_types_by_the_beginnings_of_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display().to_string();
    write(folder.path(), "a.csv", "id,at,price,note\n1,2026-01-31T05:00:00,1.50,x\n2,2026-01-31T06:00:00,20.25,\n");
    write(folder.path(), "b.csv", "note,id,at,price\ny,3,2026-02-01T00:00:00,7.00\ntorn,4\n");
    write(folder.path(), "other.csv", "id,name,price,note\n1,a,1.50,x\n");
    let mut found = source(&format!("{{ path: '{at}/[ab].csv' }}"));
    let found = found.discover(&context()).await.unwrap();
    insta::assert_snapshot!(found.text.replace(&at, "DIR"));
    let files = found.items["files"].as_array().unwrap();
    let counts: Vec<_> = files.iter().map(|file| (file["records"].as_u64(), file["rejected"].as_u64())).collect();
    assert_eq!(counts, [(Some(2), Some(0)), (Some(1), Some(1))]);
    // It can be pasted as it is.
    let block =
        found.text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect::<String>();
    source(&format!("path: '{at}/[ab].csv'\n{block}"));
    let error = source(&format!("{{ path: '{at}/*.csv' }}")).discover(&context()).await.unwrap_err();
    assert!(error.to_string().contains("the files have different columns"), "{error}");
}

#[tokio::test]
async fn a_file_name_becomes_a_column_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "a.csv", "id\n1\n");
    let pieces = read_all(&format!("{{ path: {path}, source_column: true }}")).await;
    assert_eq!(lines(&pieces), [format!("{{_source={path:?} id=\"1\"}}")]);
    let path = write(folder.path(), "b.csv", "_source\n1\n");
    let (_, ended) =
        read(source(&format!("{{ path: {path}, source_column: true }}")).as_mut(), "r1", &Resume::default()).await;
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test]
async fn marks_carry_record_line_and_byte_and_the_identity() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "a.csv", "id,name\n1,a\n2,b\n");
    let pieces = read_all(&format!("{{ path: {path} }}")).await;
    let expect = [
        "{id=\"1\" name=\"a\"}",
        "{id=\"2\" name=\"b\"}",
        "a.csv byte 16 line 4 record 3",
        "a.csv end byte 16 line 4 record 3",
    ];
    assert_eq!(shown(&pieces), expect);
    let Mark::At(_, position) = &pieces[0].mark else { panic!("{:?}", pieces[0].mark) };
    assert!(position.0.contains(" of mtime ") && position.0.ends_with(" size 16"), "{position}");
    assert_eq!(pieces.iter().map(|piece| piece.bytes).sum::<u64>(), 16);
}

async fn packed(name: &str, plain: &[u8]) -> Vec<u8> {
    macro_rules! pack {
        ($encoder:ident) => {{
            let mut encoder = $encoder::new(Vec::new());
            encoder.write_all(plain).await.unwrap();
            encoder.shutdown().await.unwrap();
            encoder.into_inner()
        }};
    }
    match name {
        "gzip" => pack!(GzipEncoder),
        "zstd" => pack!(ZstdEncoder),
        _ => pack!(BrotliEncoder),
    }
}

#[tokio::test]
async fn compressed_files_are_read_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (many(0..20_000), many(20_000..20_010).split_once('\n').unwrap().1.to_owned());
    for (kind, ending) in [("gzip", "gz"), ("zstd", "zst"), ("brotli", "br")] {
        let one = packed(kind, first.as_bytes()).await;
        // By content, by name, by config.
        let named = format!("a.csv.{ending}");
        for (name, compression) in [
            (named.as_str(), "auto"),
            ("plain-name.csv", if kind == "brotli" { "brotli" } else { "auto" }),
            ("x.csv", kind),
        ] {
            let path = write(folder.path(), name, &one);
            let pieces = read_all(&format!("{{ path: {path}, compression: {compression} }}")).await;
            assert_eq!(lines(&pieces).len(), 20_000, "{name} {compression}");
            let (last, before) = pieces.split_last().unwrap();
            assert!(
                before.iter().all(|piece| matches!(piece.mark, Mark::Within(_))),
                "{kind} cannot be resumed inside"
            );
            assert!(mark(&last.mark).contains("end byte"), "{:?}", last.mark);
            assert_eq!(pieces.iter().map(|piece| piece.bytes).sum::<u64>(), one.len() as u64, "{kind}");
        }
        // Several members, as `cat a.gz b.gz` makes them.
        if kind != "brotli" {
            let both = [one.clone(), packed(kind, second.as_bytes()).await].concat();
            let path = write(folder.path(), "both.csv", &both);
            assert_eq!(lines(&read_all(&format!("{{ path: {path} }}")).await).len(), 20_010, "{kind}");
        }
        for cut in [one.len() - 1, one.len() / 2, 20] {
            let path = write(folder.path(), "cut.csv", &one[..cut]);
            let (_, ended) =
                read(source(&format!("{{ path: {path}, compression: {kind} }}")).as_mut(), "r1", &Resume::default())
                    .await;
            let error = ended.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Data, "{kind} cut at {cut}: {error}");
        }
    }
    let path = write(folder.path(), "plain.csv.gz", "id\n1\n");
    assert_eq!(lines(&read_all(&format!("{{ path: {path} }}")).await), ["{id=\"1\"}"], "a server may have undone it");
}

/// Wherever a run dies, the next one gives exactly the rest; and a sink that lags behind is given exactly what it misses.
#[tokio::test]
async fn reading_goes_on_at_every_mark_and_stops_at_every_mark() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.csv", many(0..20_000));
    write(folder.path(), "b.csv", many(20_000..30_000));
    let yaml = format!("{{ path: '{}/*.csv' }}", folder.path().display());
    let all = read_all(&yaml).await;
    assert!(all.len() >= 6, "{} pieces", all.len());
    let expect = shown(&all);
    for cut in 0..=all.len() {
        let (before, behind) = all.split_at(cut);
        let (rest, ended) = read(source(&yaml).as_mut(), "r1", &from(end(before))).await;
        ended.unwrap();
        assert_eq!(shown(&rest), shown(behind), "from {cut}");
        for start in 0..=cut {
            let resume = Resume { from: Some(end(&all[..start])), until: Some(end(before)), whole: false };
            let (part, ended) = read(source(&yaml).as_mut(), "r1", &resume).await;
            ended.unwrap();
            assert_eq!(lines(&part), lines(&all[start..cut]), "{start}..{cut}");
            assert_eq!(
                part.last().map(|piece| &piece.mark),
                all[start..cut].last().map(|piece| &piece.mark),
                "{start}..{cut}"
            );
        }
    }
    assert_eq!(lines(&all).len(), 30_000);
    assert_eq!(expect.len(), 30_000 + all.len());
}

#[tokio::test]
async fn the_second_run_reads_what_it_is_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display().to_string();
    write(folder.path(), "a.csv", "id\n1\n");
    write(folder.path(), "b.csv", "id\n2\n");
    write(folder.path(), "c.csv", "id\n3\n");
    let changed = format!("{{ path: '{at}/*.csv', read: changed }}");
    let all = format!("{{ path: '{at}/*.csv' }}");
    let first = end(&read_all(&changed).await);
    // Nothing has happened.
    let check = async |yaml: &str, run_id: &str, whole: bool, expect: &[&str], work: usize| {
        let resume = Resume { from: Some(first.clone()), until: None, whole };
        let plan = source(yaml)
            .plan(&context().for_plan(), &run(run_id), &Resume { whole: false, ..resume.clone() })
            .await
            .unwrap();
        assert_eq!(plan.work.len(), work, "{yaml} {run_id}: {:?}", plan.work);
        assert!(plan.complete_work);
        let (pieces, ended) = read(source(yaml).as_mut(), run_id, &resume).await;
        ended.unwrap();
        assert_eq!(
            shown(&pieces)
                .iter()
                .map(|line| line.split(" byte").next().unwrap_or_default().to_owned())
                .collect::<Vec<_>>(),
            expect,
            "{yaml} {run_id} {whole}"
        );
    };
    let rows = |file: &str, id: u32| [format!("{{id=\"{id}\"}}"), file.to_owned(), format!("{file} end")];
    let (a, b, c) = (rows("a.csv", 1), rows("b.csv", 2), rows("c.csv", 3));
    let of = |files: &[&[String; 3]]| files.iter().flat_map(|file| file.iter().cloned()).collect::<Vec<_>>();
    let texts = |lines: &[String]| lines.iter().map(|line| &*line.clone().leak()).collect::<Vec<&str>>();
    check(&changed, "r1", false, &[], 0).await;
    check(&changed, "r2", false, &[], 0).await;
    check(&changed, "r2", true, &texts(&of(&[&a, &b, &c])), 0).await;
    check(&all, "r1", false, &[], 0).await;
    check(&all, "r2", false, &texts(&of(&[&a, &b, &c])), 3).await;
    // One is new, one has changed, one is gone.
    write(folder.path(), "d.csv", "id\n4\n");
    write(folder.path(), "b.csv", "id\n22\n");
    fs::remove_file(folder.path().join("a.csv")).unwrap();
    let (b, d) = (rows("b.csv", 22), rows("d.csv", 4));
    let mut expect = vec!["a.csv gone".to_owned()];
    expect.extend(of(&[&b, &d]));
    check(&changed, "r2", false, &texts(&expect), 3).await;
    check(&changed, "r2", true, &texts(&of(&[&b, &c, &d])), 3).await;
}

#[tokio::test]
async fn a_file_that_is_another_one_is_a_conflict_and_never_a_mixture() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "a.csv", many(0..20_000));
    let yaml = format!("{{ path: {path} }}");
    let pieces = read_all(&yaml).await;
    let begun = end(&pieces[..1]);
    let check = async |yaml: &str, resume: &Resume, expect: Option<ErrorKind>| {
        let (_, ended) = read(source(yaml).as_mut(), "r1", resume).await;
        assert_eq!(ended.map_err(|error| error.kind()).err(), expect);
    };
    write(folder.path(), "a.csv", many(1..20_002));
    check(&yaml, &from(begun.clone()), Some(ErrorKind::Conflict)).await;
    // What was read to its end in this run is done, whatever became of it.
    check(&yaml, &from(end(&pieces)), None).await;
    // What is to be given once more must be the same.
    check(&yaml, &Resume { from: None, until: Some(end(&pieces)), whole: false }, Some(ErrorKind::Conflict)).await;
    fs::remove_file(&path).unwrap();
    check(
        &format!("{{ path: '{}/*.csv', read: changed }}", folder.path().display()),
        &from(begun),
        Some(ErrorKind::NotFound),
    )
    .await;
    let foreign = checkpoint("r1", &[(&path, "v1 piece 3")]);
    write(folder.path(), "a.csv", many(0..10));
    check(&yaml, &from(foreign), Some(ErrorKind::Conflict)).await;
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_is_a_conflict() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "a.csv", many(0..300_000));
    for replaced in [false, true] {
        let mut source = source(&format!("{{ path: {path} }}"));
        source.open(&context(), &run("r1"), &Resume::default()).await.unwrap();
        assert!(matches!(source.next().await.unwrap(), Next::Piece(_)));
        if replaced {
            // Whoever reads the old file reads all of it.
            let new = write(folder.path(), "new", "id,name,amount\n");
            fs::rename(new, &path).unwrap();
        } else {
            fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"1,2,3\n").unwrap();
        }
        let outcome = loop {
            match source.next().await {
                Ok(Next::End) => break None,
                Ok(_) => {}
                Err(error) => break Some((error.kind(), error.can_retry())),
            }
        };
        assert_eq!(outcome, (!replaced).then_some((ErrorKind::Conflict, true)));
        source.close().await.unwrap();
    }
}

#[tokio::test]
async fn next_can_be_dropped_at_any_time_and_close_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.csv", many(0..50_000));
    write(folder.path(), "b.csv", many(0..50_000));
    let yaml = format!("{{ path: '{}/*.csv' }}", folder.path().display());
    let expect = lines(&read_all(&yaml).await);
    let mut reading = source(&yaml);
    reading.open(&context(), &run("r1"), &Resume::default()).await.unwrap();
    let mut pieces = vec![];
    loop {
        let polled = futures::future::poll_immediate(reading.next()).await;
        match polled {
            None => tokio::task::yield_now().await,
            Some(next) => match next.unwrap() {
                Next::Piece(piece) => pieces.push(*piece),
                Next::Idle => {}
                Next::End => break,
            },
        }
    }
    assert_eq!(lines(&pieces), expect);
    assert!(matches!(reading.next().await.unwrap(), Next::End), "it says so again");
    reading.close().await.unwrap();
    for taken in 0..4 {
        let mut reading = source(&yaml);
        reading.open(&context(), &run("r1"), &Resume::default()).await.unwrap();
        for _ in 0..taken {
            reading.next().await.unwrap();
        }
        reading.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_plan_looks_and_reads_no_more_than_the_header() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "a.csv", many(0..20_000));
    write(folder.path(), "b.csv.gz", packed("gzip", many(0..10).as_bytes()).await);
    let size = fs::metadata(&path).unwrap().len();
    let plan = source(&format!("{{ path: '{path}', source_column: true }}"))
        .plan(&context().for_plan(), &run("r1"), &Resume::default())
        .await
        .unwrap();
    let Known::Now(schema) = &plan.schema else { panic!("{:?}", plan.schema) };
    assert_eq!(
        schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>(),
        ["id", "name", "amount", "_source"]
    );
    assert_eq!(
        (plan.work.len(), plan.work[0].bytes, plan.replay, plan.carries),
        (1, Some(size), Replay::FromPosition, false)
    );
    assert_eq!(plan.identity, format!("csv {path}"));
    let yaml = format!("{{ path: '{}/*.gz', read: changed }}", folder.path().display());
    let plan = source(&yaml).plan(&context().for_plan(), &run("r1"), &Resume::default()).await.unwrap();
    assert!(matches!(&plan.schema, Known::Now(schema) if schema.fields().len() == 3), "{:?}", plan.schema);
    assert_eq!((plan.replay, plan.carries), (Replay::WholePartitions, true));
    // Going on inside a file.
    let pieces = read_all(&format!("{{ path: '{path}' }}")).await;
    let plan = source(&format!("{{ path: '{path}' }}"))
        .plan(&context().for_plan(), &run("r1"), &from(end(&pieces[..1])))
        .await
        .unwrap();
    assert!(plan.work[0].what.contains(" from byte "), "{:?}", plan.work);
    assert!(plan.work[0].bytes < Some(size), "{:?}", plan.work);
}

/// Progress: what is expected is what is read.
#[tokio::test]
async fn expected_bytes_are_the_files_sizes() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "a.csv", many(0..20_000));
    let mut reading = source(&format!("{{ path: '{path}' }}"));
    let ctx = context();
    reading.open(&ctx, &run("r1"), &Resume::default()).await.unwrap();
    let mut bytes = 0;
    while let Next::Piece(piece) = reading.next().await.unwrap() {
        bytes += piece.bytes;
    }
    reading.close().await.unwrap();
    assert_eq!(ctx.gauge().expected_bytes.load(std::sync::atomic::Ordering::Relaxed), bytes);
    assert_eq!(bytes, fs::metadata(Path::new(&path)).unwrap().len());
}

#[tokio::test]
async fn what_cannot_be_is_said_before_anything_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display();
    let mut said = vec![];
    for yaml in [
        "{}".to_owned(),
        "{ path: a.csv, url: 'https://a.example/b.csv' }".to_owned(),
        "{ url: 'ftp://a.example/b.csv' }".to_owned(),
        "{ url: ['https://a.example/b.csv', 'b.csv?token=hunter2'] }".to_owned(),
        "{ path: a.csv, concurrency: 0 }".to_owned(),
        "{ path: a.csv, compresion: gzip }".to_owned(),
        format!("{{ path: {at}/none.csv }}"),
        format!("{{ path: {at} }}"),
        format!("{{ path: '{at}/*.csv' }}"),
        format!("{{ path: '{at}/**a.csv' }}"),
    ] {
        let error = match try_source(&yaml) {
            Err(error) => error,
            Ok(mut source) => source.plan(&context().for_plan(), &run("r1"), &Resume::default()).await.unwrap_err(),
        };
        let hint = error.what_to_do().map(|hint| format!("\n  {hint}")).unwrap_or_default();
        said.push(format!("{}: {error}{hint}", error.kind().name()).replace(&at.to_string(), "FOLDER"));
    }
    insta::assert_snapshot!(said.join("\n"));
    assert!(!said.concat().contains("hunter2"));
}
