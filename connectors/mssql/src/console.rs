//! A connection to ask questions by hand: for tests, benches and demonstrations.

use std::time::Duration;

use tiberius::ColumnData;
use towpath_core::{Context, Result, Secret};

use crate::{
    client::{Limits, Pool},
    login::Login,
};

/// A pool of one connection and what it says, as text.
#[derive(Debug)]
pub struct Console(Pool);

impl Console {
    /// For a connection string as in the config; connects when it is first asked.
    ///
    /// # Errors
    /// Config: a connection string that cannot be read.
    pub fn new(connection: &str) -> Result<Self> {
        let login = Login::parse(&Secret::new(connection.to_owned()))?;
        let limits = Limits { statement: Some(Duration::from_secs(600)), lock: Duration::from_secs(30) };
        Ok(Self(Pool::new(login, &Context::bare("console"), 1, limits)?))
    }

    /// Runs a batch; the rows of all its results. Bytes come as hexadecimal digits; dates and times are best asked for as text.
    ///
    /// # Errors
    /// What the server refuses.
    pub async fn ask(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        let asked = async { self.0.session().await?.batch("ask", sql).await };
        let results = asked.await.map_err(|error| error.at(self.0.place().to_owned()))?;
        Ok(results.iter().flatten().map(|row| row.cells().map(|(_, cell)| shown(cell)).collect()).collect())
    }
}

/// The driver's own client.
pub type Driver = tiberius::Client<tokio_util::compat::Compat<crate::encrypt::Channel>>;

/// Signs in, and leaves the rest to the caller: for a bench that does by hand what the connector does.
///
/// # Errors
/// As of any connection.
pub async fn driver(connection: &str, packet_size: Option<u32>) -> Result<Driver> {
    use tokio_util::compat::TokioAsyncReadCompatExt as _;
    let login = Login::parse(&Secret::new(connection.to_owned()))?;
    let channel = crate::encrypt::open(&login, &login.at.host, login.at.port).await?;
    let mut config = tiberius::Config::new();
    config.authentication(tiberius::AuthMethod::sql_server(&login.user, login.password.expose()));
    if let Some(database) = &login.at.database {
        config.database(database);
    }
    config.packet_size(packet_size.unwrap_or(login.at.packet_size));
    config.encryption(tiberius::EncryptionLevel::NotSupported);
    config.command_timeout(None);
    crate::error::During::during(tiberius::Client::connect(config, channel.compat()).await, "sign in")
}

fn shown(cell: &ColumnData<'_>) -> Option<String> {
    match cell {
        ColumnData::U8(value) => value.map(|value| value.to_string()),
        ColumnData::I16(value) => value.map(|value| value.to_string()),
        ColumnData::I32(value) => value.map(|value| value.to_string()),
        ColumnData::I64(value) => value.map(|value| value.to_string()),
        ColumnData::F32(value) => value.map(|value| format!("{value:?}")),
        ColumnData::F64(value) => value.map(|value| format!("{value:?}")),
        ColumnData::Bit(value) => value.map(|value| value.to_string()),
        ColumnData::String(value) => value.as_ref().map(|value| value.clone().into_owned()),
        ColumnData::Guid(value) => value.map(|value| value.to_string().to_uppercase()),
        ColumnData::Binary(value) => {
            value.as_ref().map(|bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect())
        }
        ColumnData::Numeric(value) => value.map(|value| value.to_string()),
        ColumnData::Xml(value) => value.as_ref().map(|value| value.to_string()),
        other => Some(format!("{other:?}")),
    }
}
