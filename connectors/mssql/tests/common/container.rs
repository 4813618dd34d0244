//! SQL Server in a container, where there is a Docker that can run one.

use std::{
    path::Path,
    sync::{Arc, Weak},
    time::Duration,
};

use testcontainers_modules::{
    mssql_server::MssqlServer,
    testcontainers::{ContainerAsync, ImageExt as _, runners::AsyncRunner as _},
};
use tokio::sync::Mutex;
use towpath_connector_mssql::console::Console;

use super::PASSWORD;

/// A server that is taken away with the last who holds it.
pub type Container = ContainerAsync<MssqlServer>;

/// The one of this process: all its tests share it.
static RUNNING: Mutex<Weak<Container>> = Mutex::const_new(Weak::new());

/// Whether there is a Docker to ask. Only where there is none is a test left out: one that cannot be used is a failure.
pub fn docker_is_here() -> bool {
    std::env::var_os("DOCKER_HOST").is_some() || Path::new("/var/run/docker.sock").exists()
}

/// The server, with an empty database, and its URL. The network is this machine's own, so it goes without encryption; that is tried on the
/// simulator, whose certificate is known.
pub async fn start() -> (Arc<Container>, String) {
    let mut running = RUNNING.lock().await;
    if let Some(container) = running.upgrade() {
        let url = url(&container, "towpath").await;
        return (container, url);
    }
    // The first time its image is fetched, which is more than a gigabyte.
    let image = MssqlServer::default().with_accept_eula().with_sa_password(PASSWORD).with_tag("2022-latest");
    let container = Arc::new(image.with_startup_timeout(Duration::from_secs(600)).start().await.unwrap());
    let console = Console::new(&url(&container, "master").await).unwrap();
    console.ask("CREATE DATABASE towpath").await.unwrap();
    console.ask("ALTER DATABASE towpath SET ALLOW_SNAPSHOT_ISOLATION ON").await.unwrap();
    *running = Arc::downgrade(&container);
    let url = url(&container, "towpath").await;
    (container, url)
}

async fn url(container: &Container, database: &str) -> String {
    let (host, port) = (container.get_host().await.unwrap(), container.get_host_port_ipv4(1433).await.unwrap());
    format!("mssql://sa:{PASSWORD}@{host}:{port}/{database}?encrypt=off")
}
