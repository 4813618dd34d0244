//! A report server (SQL Server Reporting Services) behind NTLM, as far as a loader of reports sees one.
//!
//! Written from the vendor's documentation of URL access, of `ReportService2010.asmx` and of \[MS-NLMP\]; it shares no code with the
//! client it tests. Everything a real one does to a client can be told to happen: see [`Builder`] for what holds all the time and
//! [`Fault`] for what strikes at the n-th request. [`Log`] tells who asked what when.
//!
//! ```no_run
//! # async fn example() {
//! use towpath_testkit::report_server::{Fault, On, Report, ReportServer};
//!
//! let server = ReportServer::builder()
//!     .report(Report::production_log(1000))
//!     .account("CORP", "loader", "secret")
//!     .lockout_after(3)
//!     .start()
//!     .await;
//! server.faults().add(On::Render, 0..1, Fault::CutAfter(10_000)); // the next rendering breaks off
//! let url = server.url(); // http://127.0.0.1:…/ReportServer
//! assert_eq!(server.log().proofs(), 0);
//! # }
//! ```
//!
//! What is not simulated: sessions (beyond the redirect, see [`Builder::session_redirect`]), other formats than CSV, filtering rows by
//! anything but the window, decimal commas, the REST service.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

mod access;
mod faults;
mod log;
pub mod ntlm;
mod page;
mod render;
mod report;
mod rows;
mod serve;
mod sign_in;
mod soap;
pub mod spnego;
mod tls;

pub use faults::{Fault, Faults, On};
pub use log::{Asked, Log, Rendered};
pub use ntlm::Refused;
pub use report::{Choice, Kind, Parameter, ParameterState, Preset, Report, Valid};
pub use rows::COLUMNS;
pub use sign_in::{Account, Scheme, Sent};

use serve::{Shared, accept};
use sign_in::Gate;
use tls::Tls;

/// Writes so many rows of the production log as a CSV file, as the server would render it: BOM, CRLF, some fields in quotes; a
/// million rows are about 107 MB.
///
/// # Errors
/// Those of `out`.
pub fn write_log(rows: u64, out: &mut impl std::io::Write) -> std::io::Result<()> {
    const CHUNK: usize = 1 << 20;
    let mut writer = rows::Writer::new(rows::Span::of_rows(rows), None);
    let mut chunk = b"\xef\xbb\xbf".to_vec();
    chunk.extend_from_slice(rows::header(false).as_bytes());
    loop {
        let more = writer.fill(&mut chunk, CHUNK);
        out.write_all(&chunk)?;
        chunk.clear();
        if !more {
            return Ok(());
        }
    }
}

/// What the server is like, all the time.
#[derive(Clone, Debug)]
pub struct Builder {
    port: u16,
    reports: Vec<Report>,
    accounts: Vec<Account>,
    schemes: Option<Vec<Scheme>>,
    lockout_after: Option<u32>,
    bindings_required: bool,
    tls: bool,
    manner: Manner,
    faults: Faults,
}

/// How it answers.
#[derive(Clone, Debug)]
struct Manner {
    denied: Vec<(String, String)>,
    denied_status: Option<u16>,
    error_status: Option<u16>,
    first_byte: Duration,
    rate: Option<u64>,
    gzip: bool,
    content_length: bool,
    bom: bool,
    raw_colon: bool,
    session_redirect: bool,
    refusal_token: bool,
    language: String,
}

/// A running server. Dropped, it stops, with every connection it has.
#[derive(Debug)]
pub struct ReportServer {
    address: SocketAddr,
    certificate: Option<String>,
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Default for Builder {
    fn default() -> Self {
        let manner = Manner {
            denied: vec![],
            denied_status: None,
            error_status: None,
            first_byte: Duration::ZERO,
            rate: None,
            gzip: false,
            content_length: false,
            bom: true,
            raw_colon: true,
            session_redirect: false,
            refusal_token: false,
            language: "en-US".to_owned(),
        };
        Self {
            port: 0,
            reports: vec![],
            accounts: vec![],
            schemes: None,
            lockout_after: None,
            bindings_required: false,
            tls: false,
            manner,
            faults: Faults::default(),
        }
    }
}

impl Builder {
    /// Listens there on 127.0.0.1; default: a free port.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }
    /// Adds a report.
    #[must_use]
    pub fn report(mut self, report: Report) -> Self {
        self.reports.push(report);
        self
    }
    /// Adds somebody who may come in; an empty domain means any. Without accounts and schemes, everybody may.
    #[must_use]
    pub fn account(mut self, domain: &str, user: &str, password: &str) -> Self {
        let [domain, user, password] = [domain, user, password].map(str::to_owned);
        self.accounts.push(Account { domain, user, password });
        self
    }
    /// What it offers, in this order; default: `NTLM` if there are accounts.
    #[must_use]
    pub fn offer(mut self, schemes: impl IntoIterator<Item = Scheme>) -> Self {
        self.schemes = Some(schemes.into_iter().collect());
        self
    }
    /// An account is locked after so many wrong passwords in a row, until [`ReportServer::unlock`]; default: never.
    #[must_use]
    pub fn lockout_after(mut self, wrong: u32) -> Self {
        self.lockout_after = Some(wrong);
        self
    }
    /// This account has no right to that item: `rsAccessDenied`.
    #[must_use]
    pub fn deny(mut self, user: &str, item: &str) -> Self {
        self.manner.denied.push((user.to_lowercase(), item.to_owned()));
        self
    }
    /// The status of `rsAccessDenied` by URL access; default 401, as the real one, for which a missing right and a wrong password
    /// look alike.
    #[must_use]
    pub fn denied_status(mut self, status: u16) -> Self {
        self.manner.denied_status = Some(status);
        self
    }
    /// The status of all other `rs…` errors by URL access, such as 200; default 404 for `rsItemNotFound`, else 500.
    #[must_use]
    pub fn error_status(mut self, status: u16) -> Self {
        self.manner.error_status = Some(status);
        self
    }
    /// HTTPS, with a certificate of its own making for `127.0.0.1` and `localhost`: see [`ReportServer::certificate`].
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }
    /// A sign-in must be bound to the TLS channel (extended protection); default: if it is bound, it must be to this one.
    #[must_use]
    pub fn bindings_required(mut self) -> Self {
        self.bindings_required = true;
        self
    }
    /// How long a rendering takes before its first byte.
    #[must_use]
    pub fn first_byte(mut self, after: Duration) -> Self {
        self.manner.first_byte = after;
        self
    }
    /// Bytes of a rendering per second.
    #[must_use]
    pub fn rate(mut self, bytes: u64) -> Self {
        self.manner.rate = Some(bytes);
        self
    }
    /// Compresses renderings for who accepts that.
    #[must_use]
    pub fn gzip(mut self) -> Self {
        self.manner.gzip = true;
        self
    }
    /// Renderings that are not compressed come with a Content-Length; default: chunked.
    #[must_use]
    pub fn content_length(mut self) -> Self {
        self.manner.content_length = true;
        self
    }
    /// Whether a CSV begins with a byte order mark; default: yes.
    #[must_use]
    pub fn bom(mut self, bom: bool) -> Self {
        self.manner.bom = bom;
        self
    }
    /// Takes `rs%3AFormat` in a query for `rs:Format`; default: it is an unknown parameter of the report.
    #[must_use]
    pub fn encoded_colons(mut self) -> Self {
        self.manner.raw_colon = false;
        self
    }
    /// A rendering asked for by GET without `rs:SessionID` is redirected to the same with one.
    #[must_use]
    pub fn session_redirect(mut self) -> Self {
        self.manner.session_redirect = true;
        self
    }
    /// A refusal under `Negotiate` carries a token (`reject`), as Apache's does: a last word, which a client must not take for a new
    /// challenge.
    #[must_use]
    pub fn refusal_token(mut self) -> Self {
        self.manner.refusal_token = true;
        self
    }
    /// The language in which dates are read where the request names none (`rs:ParameterLanguage`, `Accept-Language`); default `en-US`.
    #[must_use]
    pub fn language(mut self, language: &str) -> Self {
        language.clone_into(&mut self.manner.language);
        self
    }
    /// What goes wrong, as [`Faults::add`].
    #[must_use]
    pub fn fault(self, on: On, which: impl std::ops::RangeBounds<u64>, fault: Fault) -> Self {
        self.faults.add(on, which, fault);
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// If the port cannot be had. A test ends there; a program calls [`try_start`](Builder::try_start).
    #[expect(clippy::panic, reason = "it is what makes a test fail")]
    pub async fn start(self) -> ReportServer {
        match self.try_start().await {
            Ok(server) => server,
            Err(error) => panic!("the report server cannot start: {error}"),
        }
    }

    /// Starts it; an error if the port cannot be had.
    pub async fn try_start(self) -> std::io::Result<ReportServer> {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await?;
        let address = listener.local_addr()?;
        let tls = self.tls.then(Tls::new).transpose()?;
        let default = if self.accounts.is_empty() { vec![] } else { vec![Scheme::Ntlm] };
        let gate = Gate {
            schemes: self.schemes.unwrap_or(default),
            accounts: self.accounts,
            lockout_after: self.lockout_after,
            bindings: tls.as_ref().map(|tls| tls.bindings),
            bindings_required: self.bindings_required,
            wrong: HashMap::new().into(),
        };
        let certificate = tls.as_ref().map(|tls| tls.certificate.clone());
        let log = Log::new();
        let shared = Arc::new(Shared { reports: self.reports, gate, manner: self.manner, faults: self.faults, log });
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(accept(listener, tls.map(|tls| tls.acceptor), Arc::clone(&shared), stop.clone(), tasks.clone()));
        Ok(ReportServer { address, certificate, shared, stop, tasks })
    }
}

impl ReportServer {
    /// How to make one.
    pub fn builder() -> Builder {
        Builder::default()
    }
    /// Where a client finds it: `http://127.0.0.1:4711/ReportServer`.
    pub fn url(&self) -> String {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        format!("{scheme}://{}/ReportServer", self.address)
    }
    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
    /// Its certificate as PEM, where it speaks TLS.
    pub fn certificate(&self) -> Option<&str> {
        self.certificate.as_deref()
    }
    /// Who asked what when.
    pub fn log(&self) -> &Log {
        &self.shared.log
    }
    /// What goes wrong from now on.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }
    /// Whether an account is locked.
    pub fn is_locked(&self, user: &str) -> bool {
        self.shared.gate.is_locked(user)
    }
    /// Unlocks an account, as an administrator does.
    pub fn unlock(&self, user: &str) {
        self.shared.gate.unlock(user);
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

impl Drop for ReportServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
