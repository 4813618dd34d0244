//! A report server with a million rows behind NTLM, loaded into a SQLite file; then once more, to see that nothing is new; then a look at the
//! rows.

use super::{Stage, hours_ago};
use crate::Fallible;

const HOURS: u64 = 25;
const ROWS_AN_HOUR: u64 = 40_000;

pub(super) fn run() -> Fallible {
    let mut stage = Stage::set_up("towpath-demo")?;
    let (_server, url) = stage.simulate(&["ssrs", "--rows", &ROWS_AN_HOUR.to_string()])?;
    println!(
        "A report server listens on {url}: {HOURS} hours of a production log, {ROWS_AN_HOUR} rows an hour, behind NTLM.\n"
    );
    stage.variables.push(("DEMO_PASSWORD", "secret".to_owned()));
    let text = pipeline(&url);
    stage.put("production_log.yaml", &text)?;
    println!("──── {}\n{text}", stage.folder.join("production_log.yaml").display());

    stage.towpath(&["plan", "production_log.yaml"])?;
    stage.towpath(&["run", "production_log.yaml"])?;
    println!("Once more: the windows are done, so the server is not asked for them, and no row is new.\n");
    stage.towpath(&["run", "production_log.yaml"])?;
    stage.put("look.yaml", LOOK)?;
    stage.towpath(&["preview", "look.yaml", "rows", "-n", "5"])?;
    println!(
        "Everything lies in {folder}. To try next:\n\n  \
         cargo xtask demo report                   the same into a SQL Server, by the pipeline in config/\n  \
         cargo xtask simulate ssrs --port 8080     a report server that stays\n  \
         towpath discover FILE SOURCE              what reports it has, and their parameters\n  \
         towpath run FILE                          then press Ctrl-C in the middle, and run it again\n  \
         towpath connectors ssrs                   every option\n\n\
         towpath is {towpath}",
        folder = stage.folder.display(),
        towpath = stage.programs.towpath.display()
    );
    Ok(())
}

fn pipeline(url: &str) -> String {
    let start = hours_ago(HOURS);
    format!(
        r#"version: 1
name: production_log
sources:
  production:
    type: ssrs
    url: {url}
    report: /Manufacturing/Production log
    auth: {{ type: ntlm, domain: CORP, username: loader, password: "${{DEMO_PASSWORD}}" }}
    window: {{ size: 1h, start: {start}, start_parameter: From, end_parameter: To }}
    parameters: {{ Line: all }}
    columns: {{ Timestamp: timestamp, Torque: float64, Temperature: float64 }}
transforms:
  fresh: {{ type: dedupe, inputs: [production], key: all_columns }}
sinks:
  warehouse: {{ type: sqlite, inputs: [fresh], path: production.db, table: production_log, write: insert_new, key: row_hash }}
"#
    )
}

const LOOK: &str = r#"version: 1
name: look
sources:
  rows: { type: sqlite, path: production.db, query: "SELECT Timestamp, Line, Station, Component, Torque FROM production_log LIMIT 5" }
sinks:
  file: { type: csv, inputs: [rows], path: look.csv }
"#;
