//! `config/pipelines/production_report.yaml` as it stands there, from a simulated report server into a simulated SQL Server: a plan, a run, a second one
//! that finds nothing new, a look at the rows, how it stands.

use super::{Stage, hours_ago};
use crate::{Fallible, cmd};

const HOURS: u64 = 5;
const ROWS_AN_HOUR: u64 = 20_000;

pub(super) fn run() -> Fallible {
    let mut stage = Stage::set_up("towpath-demo-report")?;
    let (_reports, report_server) = stage.simulate(&["ssrs", "--rows", &ROWS_AN_HOUR.to_string()])?;
    let (_warehouse, mssql) = stage.simulate(&["mssql"])?;
    let file = cmd::root().join("config/pipelines/production_report.yaml");
    let file = file.to_str().ok_or("the path of this folder is not UTF-8")?;
    println!(
        "The pipeline is {file}. What is the servers' comes from the environment:\n\n  \
         REPORT_SERVER={report_server}     simulated: a production log, {ROWS_AN_HOUR} rows an hour, behind NTLM\n  \
         SSRS_PASSWORD=secret\n  \
         MSSQL_URL={mssql}     simulated: empty\n\n\
         It asks for the newest hour and leaves the report server alone for five minutes after each request. Here it shall begin {HOURS} hours ago and \
         not make you wait, so two keys are set otherwise.\n"
    );
    for (name, value) in
        [("REPORT_SERVER", report_server), ("SSRS_PASSWORD", "secret".to_owned()), ("MSSQL_URL", mssql)]
    {
        stage.variables.push((name, value));
    }
    let start = format!("sources.production.window.start={}", hours_ago(HOURS));
    let set = ["--set", &start, "--set", "sources.production.guard.min_interval=0s"];
    let with_set = |command: &'static str| [&[command, file][..], &set].concat();

    stage.towpath(&with_set("plan"))?;
    stage.towpath(&with_set("run"))?;
    println!(
        "Once more: of the last two hours rows may have come late, so those are read again. Their rows are known.\n"
    );
    stage.towpath(&with_set("run"))?;
    stage.put("look.yaml", LOOK)?;
    stage.towpath(&["preview", "look.yaml", "hours", "-n", "30"])?;
    stage.towpath(&["preview", "look.yaml", "rows", "-n", "5"])?;
    stage.towpath(&["status", file])?;
    println!(
        "To try next:\n\n  \
         cargo xtask simulate ssrs --port 8080      a report server that stays\n  \
         cargo xtask simulate mssql --port 14333    a SQL Server that stays\n  \
         towpath serve {file}\n                                             every hour, with your own servers in the three variables\n  \
         towpath connectors mssql                   every option\n\n\
         towpath is {towpath}",
        towpath = stage.programs.towpath.display()
    );
    Ok(())
}

const LOOK: &str = r#"version: 1
name: look
sources:
  hours:
    type: mssql
    connection: "${MSSQL_URL}"
    query: "SELECT Line, Result, COUNT(*) AS Rows, MIN(Timestamp) AS First, MAX(Timestamp) AS Last FROM dbo.ProductionLog GROUP BY Line, Result"
  rows:
    type: mssql
    connection: "${MSSQL_URL}"
    query: "SELECT TOP (5) Timestamp, Line, Station, Component, SerialNo, Torque, row_hash FROM dbo.ProductionLog"
sinks:
  file: { type: csv, inputs: [hours, rows], path: look.csv }
"#;
