//! The source over HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure in a test is its message")]

mod common;

use std::{sync::Arc, time::Duration};

use async_compression::tokio::write::GzipEncoder;
use async_trait::async_trait;
use common::{
    checkpoint, context, end, from, lines, many, read, read_all, run, shown,
    site::{Manner, PROPER, Site},
    source,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;
use towpath_core::{
    Call, Checkpoint, Context, Error, ErrorKind, Known, Lease, Mark, Next, Piece, Result, Resume, Secret,
    context::{Admission, Attempt, Credentials, Door},
    source::Replay,
};

fn is_inside(piece: &Piece) -> bool {
    matches!(piece.mark, Mark::Within(_))
}

#[tokio::test]
async fn what_the_server_says_decides_where_reading_can_go_on() {
    let content = many(0..20_000);
    for (name, manner, inside, replay) in [
        ("strong etag", PROPER, true, Replay::FromPosition),
        ("strong etag, no ranges", Manner { ranges: false, ..PROPER }, true, Replay::FromPosition),
        ("weak etag", Manner { etag: Some(true), ..PROPER }, false, Replay::WholePartitions),
        ("last-modified", Manner { etag: None, ..PROPER }, false, Replay::WholePartitions),
        ("nothing", Manner { etag: None, last_modified: false, ..PROPER }, false, Replay::WholePartitions),
        ("no HEAD", Manner { head: false, ..PROPER }, true, Replay::WholePartitions),
    ] {
        let site = Site::new(manner).await;
        let url = site.put("/a.csv", &content);
        let yaml = format!("{{ url: '{url}' }}");
        let all = read_all(&yaml).await;
        assert_eq!(lines(&all).len(), 20_000, "{name}");
        let (last, before) = all.split_last().unwrap();
        assert!(before.iter().all(|piece| is_inside(piece) != inside), "{name}");
        assert!(!is_inside(last), "{name}");
        assert_eq!(all.iter().map(|piece| piece.bytes).sum::<u64>(), content.len() as u64, "{name}");
        let plan = source(&yaml).plan(&context().for_plan(), &run("r1"), &Resume::default()).await.unwrap();
        assert_eq!(plan.replay, replay, "{name}");
        // Wherever a run dies, the next one gives the rest.
        for cut in 0..=all.len() {
            let (rest, ended) = read(source(&yaml).as_mut(), "r1", &from(end(&all[..cut]))).await;
            ended.unwrap();
            let covered = if inside || cut == all.len() { cut } else { 0 };
            assert_eq!(shown(&rest), shown(&all[covered..]), "{name} from {cut}");
        }
    }
}

#[tokio::test]
async fn only_the_rest_is_fetched() {
    let site = Site::new(PROPER).await;
    let url = site.put("/a.csv", many(0..20_000));
    let yaml = format!("{{ url: '{url}' }}");
    let all = read_all(&yaml).await;
    assert_eq!(site.asked().await, ["GET /a.csv"]);
    let (_, ended) = read(source(&yaml).as_mut(), "r1", &from(end(&all[..1]))).await;
    ended.unwrap();
    let Mark::At(_, position) = &all[0].mark else { panic!("{:?}", all[0].mark) };
    let byte = position.0.strip_prefix("byte ").and_then(|rest| rest.split(' ').next()).unwrap();
    let rest = format!("GET /a.csv bytes={byte}- if same");
    assert_eq!(site.asked().await, ["GET /a.csv bytes=0-65535".to_owned(), rest]);
}

#[tokio::test]
async fn another_file_under_the_same_url_is_a_conflict() {
    for manner in [PROPER, Manner { ranges: false, ..PROPER }] {
        let site = Site::new(manner).await;
        let url = site.put("/a.csv", many(0..20_000));
        let yaml = format!("{{ url: '{url}' }}");
        let all = read_all(&yaml).await;
        for content in [many(1..20_001), many(0..3), String::new()] {
            site.put("/a.csv", content);
            for resume in [from(end(&all[..2])), Resume { until: Some(end(&all)), ..Resume::default() }] {
                let (pieces, ended) = read(source(&yaml).as_mut(), "r1", &resume).await;
                let error = ended.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
                assert_eq!(lines(&pieces).len(), 0);
            }
        }
    }
}

#[tokio::test]
async fn unchanged_files_cost_next_to_nothing() {
    for manner in [PROPER, Manner { etag: Some(true), ..PROPER }, Manner { etag: None, ..PROPER }] {
        let site = Site::new(manner.clone()).await;
        let (a, b) = (site.put("/a.csv", "id\n1\n"), site.put("/b.csv", "id\n2\n"));
        let yaml = format!("{{ url: ['{a}', '{b}'], read: changed }}");
        let first = end(&read_all(&yaml).await);
        site.asked().await;
        // Asked with the condition, if there was no plan.
        let (pieces, ended) = read(source(&yaml).as_mut(), "r2", &from(first.clone())).await;
        ended.unwrap();
        assert_eq!(pieces.len(), 0, "{manner:?}");
        assert_eq!(site.asked().await, ["GET /a.csv if changed", "GET /b.csv if changed"]);
        // A plan knows by HEAD, and what it knows is not asked again.
        let mut planned = source(&yaml);
        let plan = planned.plan(&context().for_plan(), &run("r2"), &from(first.clone())).await.unwrap();
        assert!(plan.nothing_to_do() && plan.carries, "{plan:?}");
        assert_eq!(site.asked().await.iter().filter(|line| line.starts_with("HEAD")).count(), 2);
        let (pieces, ended) = read(planned.as_mut(), "r2", &from(first.clone())).await;
        ended.unwrap();
        assert_eq!((pieces.len(), site.asked().await.len()), (0, 0));
        site.put("/b.csv", "id\n22\n");
        let (pieces, ended) = read(source(&yaml).as_mut(), "r2", &from(first.clone())).await;
        ended.unwrap();
        assert_eq!(lines(&pieces), ["{id=\"22\"}"], "{manner:?}");
        let (pieces, ended) = read(source(&yaml).as_mut(), "r2", &Resume { whole: true, ..from(first) }).await;
        ended.unwrap();
        assert_eq!(lines(&pieces).len(), 2, "{manner:?}");
    }
}

/// A plan must know whether anything has changed, or a run whose files are the same would compare everything for nothing.
#[tokio::test]
async fn a_server_without_head_is_asked_by_a_condition() {
    let site = Site::new(Manner { head: false, ..PROPER }).await;
    let url = site.put("/a.csv", "id\n1\n");
    let yaml = format!("{{ url: '{url}', read: changed }}");
    let first = end(&read_all(&yaml).await);
    site.asked().await;
    let plan = async || source(&yaml).plan(&context().for_plan(), &run("r2"), &from(first.clone())).await.unwrap();
    assert!(plan().await.nothing_to_do());
    assert_eq!(site.asked().await.last().map(String::as_str), Some("GET /a.csv if changed"));
    site.put("/a.csv", "id\n2\n");
    assert!(!plan().await.nothing_to_do());
}

/// Without anything to go by, a file counts as changed.
#[tokio::test]
async fn a_server_that_says_nothing_is_read_again() {
    let site = Site::new(Manner { etag: None, last_modified: false, ..PROPER }).await;
    let url = site.put("/a.csv", "id\n1\n");
    let yaml = format!("{{ url: '{url}', read: changed }}");
    let first = end(&read_all(&yaml).await);
    let (pieces, ended) = read(source(&yaml).as_mut(), "r2", &from(first)).await;
    ended.unwrap();
    assert_eq!(lines(&pieces).len(), 1);
}

#[tokio::test]
async fn a_packed_file_is_unpacked() {
    let mut encoder = GzipEncoder::new(Vec::new());
    encoder.write_all(many(0..20_000).as_bytes()).await.unwrap();
    encoder.shutdown().await.unwrap();
    let packed = encoder.into_inner();
    let site = Site::new(PROPER).await;
    let url = site.put("/a.csv.gz", &packed);
    let pieces = read_all(&format!("{{ url: '{url}' }}")).await;
    assert_eq!(lines(&pieces).len(), 20_000);
    assert!(pieces.split_last().unwrap().1.iter().all(is_inside));
    site.put("/a.csv.gz", &packed[..packed.len() - 4]);
    let (_, ended) = read(source(&format!("{{ url: '{url}' }}")).as_mut(), "r1", &Resume::default()).await;
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Data);
    let plan = source(&format!("{{ url: '{url}' }}"))
        .plan(&context().for_plan(), &run("r1"), &Resume::default())
        .await
        .unwrap();
    assert!(matches!(plan.schema, Known::Now(_)), "the header is in the first part");
    assert_eq!(plan.replay, Replay::WholePartitions);
}

/// A server that answers each connection once, with these bytes.
async fn raw(answer: Vec<u8>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = [0; 4096];
            let _ = stream.read(&mut asked).await;
            let _ = stream.write_all(&answer).await;
        }
    });
    format!("http://127.0.0.1:{port}/a.csv")
}

#[tokio::test]
async fn a_body_that_breaks_off_is_an_error_and_never_a_shorter_file() {
    let body = many(0..20_000);
    for (name, head, cut) in [
        ("length", format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()), true),
        ("chunked", format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n", body.len()), true),
        ("whole", format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()), false),
    ] {
        let sent = if cut { &body[..body.len() / 2] } else { &body };
        let url = raw([head.as_bytes(), sent.as_bytes()].concat()).await;
        let (pieces, ended) = read(source(&format!("{{ url: '{url}' }}")).as_mut(), "r1", &Resume::default()).await;
        if !cut {
            ended.unwrap();
            assert_eq!(lines(&pieces).len(), 20_000);
            continue;
        }
        let error = ended.unwrap_err();
        assert!(error.can_retry(), "{name}: {error}");
        assert!(pieces.iter().all(is_inside), "{name}: nothing of it can be committed");
    }
}

#[tokio::test]
async fn what_goes_wrong_says_where_and_shows_no_secret() {
    let site = Site::new(PROPER).await;
    let url = format!("{}/none.csv?token=hunter2", site.server.uri());
    let yaml = format!("{{ url: '{url}', auth: {{ type: bearer, token: hunter3 }} }}");
    let (_, ended) = read(source(&yaml).as_mut(), "r1", &Resume::default()).await;
    let error = ended.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let plan = source(&yaml).plan(&context().for_plan(), &run("r1"), &Resume::default()).await.unwrap();
    let text = format!("{error} {error:?} {plan:?}");
    assert!(!text.contains("hunter") && text.contains("none.csv"), "{text}");
    assert!(plan.notes.iter().any(|note| note.contains("404")), "{:?}", plan.notes);
}

/// Two URLs that differ in nothing but a secret are two partitions.
#[tokio::test]
async fn partitions_are_told_apart_without_their_secrets() {
    let site = Site::new(PROPER).await;
    let url = site.put("/a.csv", "id\n1\n");
    let pieces = read_all(&format!("{{ url: ['{url}?sig=a', '{url}?sig=b'] }}")).await;
    let Checkpoint { at, .. } = end(&pieces);
    let names: Vec<String> = at.values().flatten().map(|(partition, _)| partition.to_string()).collect();
    assert_eq!(names, [format!("{url}?sig=***"), format!("{url}?sig=*** #2")]);
    assert!(checkpoint("r1", &[]).at.values().all(|partitions| partitions.is_empty()));
}

/// What is behind in the list does not take the server's only permit from what is before it.
#[tokio::test]
async fn files_are_opened_in_the_order_of_the_list() {
    let site = Site::new(PROPER).await;
    let urls: Vec<String> =
        (0..6).map(|number| format!("'{}'", site.put(&format!("/{number}.csv"), many(0..9_000)))).collect();
    let pieces = read_all(&format!("{{ url: [{}], concurrency: 4 }}", urls.join(", "))).await;
    assert_eq!(lines(&pieces).len(), 54_000);
    let expect: Vec<String> = (0..6).map(|number| format!("GET /{number}.csv")).collect();
    assert_eq!(site.asked().await, expect);
}

/// Lets so many calls through at once; a lease that is kept keeps the others out.
struct Narrow(Arc<tokio::sync::Semaphore>);

#[async_trait]
impl Door for Narrow {
    async fn pass<'a>(&self, _: &Call, attempt: &mut (dyn FnMut() -> Attempt<'a> + Send)) -> Result<Lease> {
        let permit = Arc::clone(&self.0).acquire_owned().await.map_err(|_| Error::cancelled())?;
        attempt().await?;
        Ok(Lease::new(move |_| drop(permit)))
    }
}

struct NoCredentials;

#[async_trait]
impl Credentials for NoCredentials {
    async fn admit(&self, _: &str, _: &str, _: &Secret) -> Result<Box<dyn Admission>> {
        Err(Error::internal("nobody signs in here"))
    }
}

/// A guard of one or two permits, more files than that at once, each longer than what may wait: nothing hangs, and no task and no
/// permit is left, wherever reading is given up.
#[tokio::test]
async fn a_narrow_guard_neither_hangs_nor_leaks() {
    let site = Site::new(PROPER).await;
    let urls: Vec<String> =
        (0..4).map(|number| format!("'{}'", site.put(&format!("/{number}.csv"), many(0..60_000)))).collect();
    let yaml = format!("{{ url: [{}], concurrency: 4 }}", urls.join(", "));
    // Connections of earlier tests and the server's own tasks come and go; ours are counted by what they hold.
    for permits in [1, 2] {
        let door = Arc::new(tokio::sync::Semaphore::new(permits));
        for wanted in [0, 1, 9, usize::MAX] {
            let cancel = CancellationToken::new();
            let narrow = Arc::new(Narrow(Arc::clone(&door)));
            let ctx = Context::new("test".into(), common::SOURCE.into(), narrow, Arc::new(NoCredentials), cancel);
            let mut reading = source(&yaml);
            reading.open(&ctx, &run("r1"), &Resume::default()).await.unwrap();
            let mut rows = 0;
            for _ in 0..wanted {
                match tokio::time::timeout(Duration::from_secs(30), reading.next()).await.expect("it hangs").unwrap() {
                    Next::Piece(piece) => rows += piece.rows.num_rows(),
                    Next::Idle => {}
                    Next::End => break,
                }
            }
            reading.close().await.unwrap();
            assert!(wanted < usize::MAX || rows == 240_000, "{rows}");
            assert_eq!(door.available_permits(), permits, "a permit is still held");
        }
    }
}
