//! The report server against clients that are not ours (curl, pyspnego), and each of its manners and faults.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests")]

mod any_bytes;
mod client;
mod manners;
mod peers;

use towpath_testkit::report_server::{Report, ReportServer, Scheme};

/// What a loader asks for: two hours.
const LOG: &str = "/ReportServer?/Manufacturing/Production+log&rs:Command=Render&rs:Format=CSV&rc:ExcelMode=false\
                   &rs:ParameterLanguage=en-US&From=2026-03-01T00:00:00&To=2026-03-01T02:00:00&Line=L1&Line=L2";

/// A server with the production log and two accounts, offering these schemes.
async fn signed(schemes: &[Scheme]) -> ReportServer {
    let builder = ReportServer::builder().report(Report::production_log(100)).account("CORP", "loader", "s3cret");
    let builder = builder.account("CORP", "prüfer", "s3cret Ü");
    builder.lockout_after(3).offer(schemes.iter().copied()).start().await
}

/// The address of something on the server.
fn url(server: &ReportServer, target: &str) -> String {
    server.url().replace("/ReportServer", target)
}
