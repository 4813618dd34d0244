//! The project's chores: `cargo xtask ci | demo | bench | docs | linters | new-connector | simulate`.
//!
//! Everything heavy is built by cargo in the profile it is meant for and started as a program of its own, so that this one builds
//! in seconds.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to the person who started it")]

mod bench;
mod ci;
mod cmd;
mod demo;
mod docs;
mod linters;
mod measure;
mod new_connector;
mod shop;
mod simulate;

use std::process::ExitCode;

/// What went wrong, for a person.
type Fallible<T = ()> = Result<T, String>;

const HELP: &str = "\
cargo xtask COMMAND

  demo                  load a million rows from a simulated report server into a SQLite file
  demo report           config/pipelines/production_report.yaml from one into a simulated SQL Server
  demo crm              config/pipelines/csv_to_pipedrive.yaml: three files keep a simulated CRM equal
  ci [--from STEP]      everything that CI runs; stops at the first step that fails
  bench [spine]         the figures of the README, each beside a rival in the same run
  bench mssql [JOB…]    the same against the SQL Server of TOWPATH_MSSQL_URL, or a simulated one
  bench crm [JOB…]      the same of files that are joined (join) and keep a simulated CRM equal (sync, unchanged)
  docs [--check]        write the reference pages, or say whether they are up to date
  linters               Dockerfile, compose file, manifests and workflows, by the linters that are at hand
  new-connector NAME    a connector crate whose tests fail until it works
  simulate ssrs [--port N] [--rows N] …    a report server to try things with; --help says more
  simulate mssql [--port N] …              a SQL Server to try things with
  simulate pipedrive [--port N] [--api-token T] …  an account of Pipedrive to try things with";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rest = arguments.get(1..).unwrap_or_default();
    let outcome = match arguments.first().map(String::as_str) {
        Some("demo") => demo::run(rest),
        Some("ci") => ci::run(rest),
        Some("bench") => bench::run(rest),
        Some("docs") => docs::run(rest),
        Some("linters") => linters::run(),
        Some("new-connector") => new_connector::run(rest),
        Some("simulate") => simulate::run(rest),
        None | Some("help" | "-h" | "--help") => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Some(unknown) => Err(format!("'{unknown}' is no command\n\n{HELP}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
