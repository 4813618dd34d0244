//! The SQL Server against clients that are not ours (tiberius, python-tds), its T-SQL, and each of its faults.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests")]

mod bulk;
mod faults;
mod peers;
mod tls;
mod transact_sql;
mod wire;

use tiberius::{AuthMethod, Client, Config, EncryptionLevel};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt as _};
use towpath_testkit::sql_server::{SqlServer, SqlServerOptions};

type Conn = Client<Compat<TcpStream>>;

async fn server() -> SqlServer {
    SqlServer::start(SqlServerOptions::default()).await
}

/// A client logged in with this password.
async fn login(server: &SqlServer, password: &str) -> tiberius::Result<Conn> {
    let mut config = Config::new();
    config.host("127.0.0.1");
    config.port(server.port());
    config.database("towpath");
    config.authentication(AuthMethod::sql_server("sa", password));
    config.encryption(EncryptionLevel::NotSupported);
    config.application_name("tests");
    config.packet_size(16384);
    let stream = TcpStream::connect(server.address()).await?;
    stream.set_nodelay(true)?;
    Client::connect(config, stream.compat_write()).await
}

async fn client(server: &SqlServer) -> Conn {
    login(server, "towpath_Test1").await.unwrap()
}

/// The number of a server's error.
fn number<T>(outcome: tiberius::Result<T>) -> u32 {
    match outcome {
        Ok(_) => 0,
        Err(error) => error.code().unwrap_or(1),
    }
}

/// Executes a batch to its end.
async fn run(client: &mut Conn, sql: &str) -> tiberius::Result<()> {
    client.simple_query(sql).await?.into_results().await.map(|_| ())
}
