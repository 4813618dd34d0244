//! Pipedrive, as far as a client of its API sees one: an account, version 2 of the API and what version 1 still serves.
//!
//! Written from the vendor's specification; the vendor's own client library is one of its tests. It shares no code with the connector it
//! tests. What it does all the time is in [`PipedriveOptions`], what nobody has established about the real one is a switch of
//! [`Unsettled`], [`Fault`] is what strikes at the n-th call, [`Log`] tells who asked what and what it cost, [`Account`] is the state
//! behind, to be read and changed without a call.
//!
//! ```no_run
//! # async fn example() {
//! use serde_json::json;
//! use towpath_testkit::pipedrive::{Entity, Fault, FieldType, Kind, On, Pipedrive, PipedriveOptions};
//!
//! let server = Pipedrive::start(PipedriveOptions::default()).await;
//! let url = server.url(); // http://127.0.0.1:…, with /api/v2 and /v1 below
//! let account = server.account();
//! account.fields(Entity::Persons).add("CustomerID", FieldType::Varchar);
//! account.add(Entity::Persons, json!({ "name": "Ada Lovelace", "custom_fields": { "CustomerID": "C1" } }));
//! server.faults().add(On::route("POST", "/api/v2/deals"), 0..1, Fault::CutAfter); // executed, and the answer lost
//! assert_eq!(server.log().count(Kind::Create), 0);
//! assert_eq!(account.persons()[0].custom("CustomerID"), "C1");
//! # }
//! ```
//!
//! Started as a program, it tells its log under `/simulator/log` and `/simulator/calls`, and takes `{"advance": seconds}` under
//! `/simulator/clock`.
//!
//! What is not simulated: leads, projects, filters, followers, files, products of deals, permissions, webhooks, required fields.
//! What goes beyond what is known of the real one: the words and details of errors; a link to a record that is not there is a 400; what
//! is changed is found by searching at once (what is created, after the lag).

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

mod account;
mod budget;
mod clock;
mod control;
mod faults;
mod fields;
mod list;
mod log;
mod oauth;
mod options;
mod query;
mod refusal;
mod route;
mod schema;
mod search;
mod serve;
mod state;
mod v1;
mod values;
mod write;

pub use account::{Account, Fields, Record};
pub use clock::Clock;
pub use faults::{Fault, Faults, Meanwhile, On};
pub use fields::FieldType;
pub use log::{Call, Kind, Log};
pub use options::{Burst429, Cursors, Deleted, NameSplit, OAuthApp, PipedriveOptions, Plan, RequestsLeft, Unsettled};

use serve::{Shared, accept};

/// What an account holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Entity {
    /// Sales, won, lost or open.
    Deals,
    /// People.
    Persons,
    /// Companies.
    Organizations,
    /// Goods and services.
    Products,
    /// Things to do.
    Activities,
    /// Ordered stages.
    Pipelines,
    /// Where a deal stands.
    Stages,
}

/// A running server. Dropped, it stops, with every connection it has, and its data is gone.
#[derive(Debug)]
pub struct Pipedrive {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Pipedrive {
    /// Starts one.
    ///
    /// # Panics
    /// If the port cannot be had. A test ends there; a program calls [`try_start`](Pipedrive::try_start).
    #[expect(clippy::panic, reason = "it is what makes a test fail")]
    pub async fn start(options: PipedriveOptions) -> Self {
        match Self::try_start(options).await {
            Ok(server) => server,
            Err(error) => panic!("the simulator of Pipedrive cannot start: {error}"),
        }
    }

    /// Starts one; an error if the port cannot be had.
    pub async fn try_start(options: PipedriveOptions) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", options.port.unwrap_or(0))).await?;
        let address = listener.local_addr()?;
        let clock = Clock::new(options.starts_at, options.clock_stands);
        let shared = Arc::new(Shared {
            host: format!("http://{address}"),
            state: Mutex::new(state::State::new(options.clone(), clock.clone())),
            budget: Mutex::new(budget::Budget::new(&options)),
            tokens: Mutex::new(oauth::Tokens::new(options.oauth.as_ref())),
            faults: Faults::default(),
            log: Log::default(),
            clock,
            options,
        });
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(accept(listener, Arc::clone(&shared), stop.clone(), tasks.clone()));
        Ok(Self { address, shared, stop, tasks })
    }

    /// Where a client finds it, as `https://{company}.pipedrive.com`: `http://127.0.0.1:4711`.
    pub fn url(&self) -> String {
        self.shared.host.clone()
    }
    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
    /// The account behind it.
    pub fn account(&self) -> Account {
        Account(Arc::clone(&self.shared))
    }
    /// Its time.
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }
    /// Who asked what.
    pub fn log(&self) -> &Log {
        &self.shared.log
    }
    /// What goes wrong from now on.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }
    /// Stops, and returns when no task of it is left.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
    /// Serves until the future is dropped: for a program that does nothing else.
    pub async fn serve(&self) {
        self.stop.cancelled().await;
    }
}

impl Drop for Pipedrive {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
