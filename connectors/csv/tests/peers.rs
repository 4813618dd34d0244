//! The source against web servers that are not ours: `python3 -m http.server` and nginx (`TOWPATH_PEERS_NGINX`, or in the PATH).
//! A missing one is skipped with a line that says so, or fails the test if `REQUIRE_PEERS=1`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failure in a test is its message"
)]

mod common;

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use common::{context, end, from, lines, many, read, read_all, run, source, write};
use towpath_core::{ErrorKind, Known, Mark, Resume, source::Replay};

struct Peer {
    child: Child,
    port: u16,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

fn start(name: &str, command: &mut Command, port: u16) -> Option<Peer> {
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let child = match spawned {
        Ok(child) => child,
        Err(error) => {
            assert!(std::env::var("REQUIRE_PEERS").as_deref() != Ok("1"), "{name} cannot be started: {error}");
            println!("SKIPPED: {name} cannot be started: {error}");
            return None;
        }
    };
    let peer = Peer { child, port };
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{name} does not listen");
        std::thread::sleep(Duration::from_millis(50));
    }
    Some(peer)
}

fn python(folder: &Path) -> Option<Peer> {
    let port = free_port();
    let mut command = Command::new("python3");
    command.args(["-m", "http.server", "--bind", "127.0.0.1", "--directory"]).arg(folder).arg(port.to_string());
    start("python3 -m http.server", &mut command, port)
}

fn nginx(folder: &Path) -> Option<Peer> {
    let (port, own) = (free_port(), folder.join("nginx"));
    fs::create_dir_all(&own).expect("a folder");
    let at = own.display();
    let files = folder.display();
    let config = format!(
        "daemon off; master_process off; pid {at}/pid; error_log {at}/error;
         events {{ worker_connections 64; }}
         http {{
           access_log off; types {{ text/csv csv; }} gzip_types text/csv; gzip_min_length 1;
           client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi;
           uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;
           server {{
             listen 127.0.0.1:{port}; root {files};
             location /packed/ {{ alias {files}/; gzip on; }}
           }}
         }}"
    );
    let config = write(&own, "nginx.conf", config);
    let binary = std::env::var("TOWPATH_PEERS_NGINX").unwrap_or_else(|_| "nginx".to_owned());
    let mut command = Command::new(binary);
    command.args(["-p", &at.to_string(), "-e", &format!("{at}/error"), "-c", &config]);
    start("nginx", &mut command, port)
}

#[tokio::test]
async fn python_serves_files_without_ranges_and_without_etags() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "a.csv", many(0..20_000));
    let Some(peer) = python(folder.path()) else { return };
    let yaml = format!("{{ url: 'http://127.0.0.1:{}/a.csv', read: changed }}", peer.port);
    let plan = source(&yaml).plan(&context().for_plan(), &run("r1"), &Resume::default()).await.unwrap();
    assert_eq!((plan.replay, plan.work[0].bytes), (Replay::WholePartitions, Some(fs::metadata(&path).unwrap().len())));
    let all = read_all(&yaml).await;
    assert_eq!(lines(&all).len(), 20_000);
    assert!(all.split_last().unwrap().1.iter().all(|piece| matches!(piece.mark, Mark::Within(_))));
    // If-Modified-Since and 304.
    let (pieces, ended) = read(source(&yaml).as_mut(), "r2", &from(end(&all))).await;
    ended.unwrap();
    assert_eq!(pieces.len(), 0);
    write(folder.path(), "a.csv", many(0..7));
    // Within the same second perhaps: the length tells.
    let mut planned = source(&yaml);
    planned.plan(&context().for_plan(), &run("r2"), &from(end(&all))).await.unwrap();
    let (pieces, ended) = read(planned.as_mut(), "r2", &from(end(&all))).await;
    ended.unwrap();
    assert_eq!(lines(&pieces).len(), 7);
}

#[tokio::test]
async fn nginx_serves_ranges_of_what_is_proven() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.csv", many(0..20_000));
    let Some(peer) = nginx(folder.path()) else { return };
    let yaml = format!("{{ url: 'http://127.0.0.1:{}/a.csv', read: changed }}", peer.port);
    let plan = source(&yaml).plan(&context().for_plan(), &run("r1"), &Resume::default()).await.unwrap();
    assert_eq!(plan.replay, Replay::FromPosition);
    assert!(matches!(&plan.schema, Known::Now(schema) if schema.fields().len() == 3), "{:?}", plan.schema);
    let all = read_all(&yaml).await;
    assert_eq!(lines(&all).len(), 20_000);
    for cut in 0..=all.len() {
        let (rest, ended) = read(source(&yaml).as_mut(), "r1", &from(end(&all[..cut]))).await;
        ended.unwrap();
        assert_eq!(lines(&rest), lines(&all[cut..]), "from {cut}");
    }
    let (pieces, ended) = read(source(&yaml).as_mut(), "r2", &from(end(&all))).await;
    ended.unwrap();
    assert_eq!(pieces.len(), 0, "304");
    write(folder.path(), "a.csv", many(1..20_002));
    let (_, ended) = read(source(&yaml).as_mut(), "r1", &from(end(&all[..1]))).await;
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn nginx_packs_on_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "a.csv", many(0..20_000));
    let Some(peer) = nginx(folder.path()) else { return };
    let yaml = format!("{{ url: 'http://127.0.0.1:{}/packed/a.csv', read: changed }}", peer.port);
    let all = read_all(&yaml).await;
    assert_eq!(lines(&all).len(), 20_000);
    let fetched: u64 = all.iter().map(|piece| piece.bytes).sum();
    assert!(fetched < fs::metadata(&path).unwrap().len() / 2, "{fetched} bytes: it was not packed");
    assert!(all.split_last().unwrap().1.iter().all(|piece| matches!(piece.mark, Mark::Within(_))));
    // The tag of the packed answer is weak, that of a HEAD is not; both are the same file.
    let plan = source(&yaml).plan(&context().for_plan(), &run("r2"), &from(end(&all))).await.unwrap();
    assert!(plan.nothing_to_do(), "{plan:?}");
    let (pieces, ended) = read(source(&yaml).as_mut(), "r2", &from(end(&all))).await;
    ended.unwrap();
    assert_eq!(pieces.len(), 0);
}
