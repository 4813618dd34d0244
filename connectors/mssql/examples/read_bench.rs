//! How fast the source reads a million rows of twelve columns into CSV, beside a bare loop of the driver over the same rows, in turn.
//!
//! `cargo run --profile demo -p towpath-connector-mssql --example read_bench [ROWS]`, against TOWPATH_MSSQL_URL or the simulator.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measuring device")]

use std::time::{Duration, Instant};

use futures::TryStreamExt as _;
use serde_json::json;
use tiberius::{AuthMethod, Client, Config, EncryptionLevel, QueryItem};
use tokio::net::TcpStream;
use tokio_util::compat::TokioAsyncWriteCompatExt as _;
use towpath_connector_mssql::{MssqlSource, console::Console};
use towpath_core::{Context, Next, Resume, Run, Source as _};
use towpath_formats::csv::{CsvEncoder, CsvOptions};
use towpath_testkit::sql_server::{SqlServer, SqlServerOptions};

const COLUMNS: &str = "id int NOT NULL PRIMARY KEY, station nvarchar(20) NOT NULL, line tinyint, shift smallint, part nvarchar(30), \
     serial bigint, torque float, angle decimal(10, 3), taken_at datetime2(3), day date, passed bit, note nvarchar(100)";
const VALUES: &str = "N'station 17', 3, 2, N'part 4711-0815', 123456789012, 12.75, 90.125, '2026-01-31T10:00:00.123', '2026-01-31', 1, N'ok, measured twice'";
const TABLE: &str = "towpath_read_bench";

/// Processor time of this process, user and system.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default().to_owned()
}

async fn bare(url: &url::Url) -> usize {
    let mut config = Config::new();
    config.host(url.host_str().unwrap());
    config.port(url.port().unwrap_or(1433));
    config.database(url.path().trim_start_matches('/'));
    config.authentication(AuthMethod::sql_server(url.username(), url.password().unwrap().replace("%5F", "_")));
    config.encryption(EncryptionLevel::NotSupported);
    config.packet_size(16384);
    let tcp = TcpStream::connect(config.get_addr()).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let mut client = Client::connect(config, tcp.compat_write()).await.unwrap();
    let mut answer = client.query(format!("SELECT * FROM {TABLE}"), &[]).await.unwrap();
    let mut rows = 0;
    while let Some(item) = answer.try_next().await.unwrap() {
        rows += usize::from(matches!(item, QueryItem::Row(_)));
    }
    rows
}

async fn ours(url: &str, options: serde_json::Value) -> usize {
    let mut options = options;
    options["connection"] = json!(url);
    options["table"] = json!(TABLE);
    let mut source = MssqlSource::new(&"bench".into(), serde_json::from_value(options).unwrap()).unwrap();
    let run = Run {
        id: "bench".into(),
        started: "2026-01-01T00:00:00Z".parse().unwrap(),
        parameters: Default::default(),
        fingerprint: Default::default(),
    };
    source.open(&Context::bare("bench"), &run, &Resume::default()).await.unwrap();
    let csv = CsvEncoder::new(&CsvOptions::default()).unwrap();
    let (mut rows, mut out) = (0, Vec::new());
    while let Next::Piece(piece) = source.next().await.unwrap() {
        out.clear();
        csv.encode(&piece.rows, &mut out).unwrap();
        rows += piece.rows.num_rows();
    }
    source.close().await.unwrap();
    rows
}

async fn timed(name: &str, work: impl Future<Output = usize>) -> f64 {
    let (begun, used) = (Instant::now(), cpu());
    let rows = work.await;
    let took = begun.elapsed().as_secs_f64();
    let used = (cpu() - used).as_secs_f64();
    println!("{name:28} {rows} rows  {took:6.2} s  {:.0} rows/s  {used:.2} s of processor", rows as f64 / took);
    took
}

#[tokio::main]
async fn main() {
    let count: usize = std::env::args().nth(1).map_or(1_000_000, |count| count.parse().unwrap());
    let (server, url) = match std::env::var("TOWPATH_MSSQL_URL") {
        Ok(url) => (None, url),
        // A process of its own would be fairer; its processor time counts for both.
        Err(_) => {
            let server = SqlServer::start(SqlServerOptions::default()).await;
            let url = server.url();
            (Some(server), url)
        }
    };
    println!("against {}", if server.is_some() { "the simulator, in this process" } else { "TOWPATH_MSSQL_URL" });
    let console = Console::new(&url).unwrap();
    let _ = console.ask(&format!("DROP TABLE {TABLE}")).await;
    console.ask(&format!("CREATE TABLE {TABLE} ({COLUMNS})")).await.unwrap();
    console.ask(&format!("INSERT INTO {TABLE} VALUES (1, {VALUES})")).await.unwrap();
    let mut have = 1;
    while have < count {
        let more = have.min(count - have);
        let rest = "station, line, shift, part, serial, torque, angle, taken_at, day, passed, note";
        let sql = format!("INSERT INTO {TABLE} SELECT id + {have}, {rest} FROM {TABLE} WHERE id <= {more}");
        console.ask(&sql).await.unwrap();
        have += more;
    }
    let at = url::Url::parse(&url).unwrap();
    let mut best = [f64::MAX; 3];
    for _ in 0..3 {
        best[0] = best[0].min(timed("bare loop of the driver", bare(&at)).await);
        best[1] = best[1].min(timed("source → CSV", ours(&url, json!({}))).await);
        best[2] = best[2].min(timed("source, cursor → CSV", ours(&url, json!({"cursor": "id"}))).await);
        println!("{}", peak());
    }
    println!("source {:.2} of the bare loop, with a cursor {:.2}", best[0] / best[1], best[0] / best[2]);
    let _ = console.ask(&format!("DROP TABLE {TABLE}")).await;
}
