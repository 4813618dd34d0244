//! What the simulated SQL Server costs a client that does nothing else: a bare bulk load of tiberius into a heap, INSERT … SELECT into a table
//! with a key, and reading it all. `towpath-simulate mssql --port 14330` in one shell, this with the port and the rows in another.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "it talks to the person who started it")]

use std::time::Instant;

use futures::TryStreamExt as _;
use tiberius::{AuthMethod, Client, Config, EncryptionLevel, IntoSql as _, SqlBulkCopyOption, TokenRow};
use tokio::net::TcpStream;
use tokio_util::compat::TokioAsyncWriteCompatExt as _;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().unwrap().parse().unwrap();
    let rows: i64 = arguments.next().unwrap().parse().unwrap();
    let mut config = Config::new();
    config.host("127.0.0.1");
    config.port(port);
    config.authentication(AuthMethod::sql_server("sa", "towpath_Test1"));
    config.encryption(EncryptionLevel::NotSupported);
    config.packet_size(16384);
    config.command_timeout(None);
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut client = Client::connect(config, stream.compat_write()).await.unwrap();
    let batch = "DROP TABLE IF EXISTS heap; DROP TABLE IF EXISTS keyed;
        CREATE TABLE heap (id bigint NOT NULL, a int, b int, f float, g float, s nvarchar(40), t nvarchar(40), u nvarchar(40), v nvarchar(100),
            w bigint, x bit, y float);
        CREATE TABLE keyed (id bigint NOT NULL PRIMARY KEY, a int, b int, f float, g float, s nvarchar(40), t nvarchar(40), u nvarchar(40),
            v nvarchar(100), w bigint, x bit, y float)";
    client.simple_query(batch).await.unwrap().into_results().await.unwrap();

    let start = Instant::now();
    let options = SqlBulkCopyOption::KeepNulls | SqlBulkCopyOption::TableLock;
    let mut request = client.bulk_insert_with_options("heap", &["*"], options, &[]).await.unwrap();
    for id in 0..rows {
        let mut row = TokenRow::with_capacity(12);
        row.push(id.into_sql());
        row.push(((id % 1000) as i32).into_sql());
        row.push(7_i32.into_sql());
        row.push(12.75_f64.into_sql());
        row.push(Option::<f64>::None.into_sql());
        row.push("Line 1".into_sql());
        row.push("Station 17".into_sql());
        row.push("OK".into_sql());
        row.push("a comment of some length".into_sql());
        row.push((id * 3).into_sql());
        row.push(true.into_sql());
        row.push(0.5_f64.into_sql());
        request.send(row).await.unwrap();
    }
    let stored = request.finalize().await.unwrap().total();
    println!("bulk load      {stored} rows  {:?}", start.elapsed());

    let start = Instant::now();
    let publish =
        "INSERT INTO keyed SELECT * FROM heap AS s WHERE NOT EXISTS (SELECT 1 FROM keyed AS k WHERE k.id = s.id)";
    client.simple_query(publish).await.unwrap().into_results().await.unwrap();
    println!("insert select  {:?}", start.elapsed());

    let start = Instant::now();
    let mut stream = client.simple_query("SELECT * FROM keyed").await.unwrap();
    let mut read = 0;
    while let Some(item) = stream.try_next().await.unwrap() {
        read += u64::from(item.into_row().is_some());
    }
    println!("read           {read} rows  {:?}", start.elapsed());
}
