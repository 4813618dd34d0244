//! `cargo xtask demo`: a report server with a million rows behind NTLM, loaded into a SQLite file; then once more, to see that
//! nothing is new; then a look at the rows.

use std::{fs, path::Path, process::Command, process::Stdio, time::Instant};

use crate::{Fallible, cmd};

const HOURS: u64 = 25;
const ROWS_AN_HOUR: u64 = 40_000;

pub(crate) fn run(arguments: &[String]) -> Fallible {
    if !arguments.is_empty() {
        return Err("usage: cargo xtask demo".to_owned());
    }
    println!("Building towpath and the simulated report server (some minutes the first time) …");
    let began = Instant::now();
    let programs = cmd::build("demo")?;
    println!("Built in {:.0} s.\n", began.elapsed().as_secs_f64());
    let folder = cmd::target_dir()?.join("towpath-demo");
    // A state or a table of an earlier demo would have nothing new to show.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;

    let mut simulate = Command::new(&programs.simulate);
    simulate.args(["ssrs", "--rows", &ROWS_AN_HOUR.to_string()]).stdout(Stdio::piped());
    let mut server = cmd::Background::start(&mut simulate)?;
    let url = server.first_line()?;
    println!(
        "A report server listens on {url}: {HOURS} hours of a production log, {ROWS_AN_HOUR} rows an hour, behind NTLM.\n"
    );

    let load = folder.join("production_log.yaml");
    let text = pipeline(&url);
    put(&load, &text)?;
    println!("──── {}\n{text}", load.display());

    let towpath = |arguments: &[&str]| {
        let mut command = Command::new(&programs.towpath);
        // The demo looks at nothing else on this machine.
        command
            .current_dir(&folder)
            .args(arguments)
            .env("TOWPATH_STATE_DIR", folder.join("state"))
            .env("DEMO_PASSWORD", "secret");
        println!("$ towpath {}", arguments.join(" "));
        cmd::run(&mut command)?;
        println!();
        Ok::<_, String>(())
    };
    towpath(&["plan", "production_log.yaml"])?;
    towpath(&["run", "production_log.yaml"])?;
    println!("Once more: the windows are done, so the server is not asked for them, and no row is new.\n");
    towpath(&["run", "production_log.yaml"])?;
    put(&folder.join("look.yaml"), LOOK)?;
    towpath(&["preview", "look.yaml", "rows", "-n", "5"])?;
    println!(
        "Everything lies in {folder}. To try next:\n\n  \
         cargo xtask simulate ssrs --port 8080     a report server that stays\n  \
         towpath discover FILE SOURCE              what reports it has, and their parameters\n  \
         towpath run FILE                          then press Ctrl-C in the middle, and run it again\n  \
         towpath connectors ssrs                   every option\n\n\
         towpath is {towpath}",
        folder = folder.display(),
        towpath = programs.towpath.display()
    );
    Ok(())
}

fn put(path: &Path, text: &str) -> Fallible {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// So many whole hours ago, in UTC, as `2026-01-31T05:00`.
fn hours_ago(hours: u64) -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let hour = since.as_secs() / 3600 - hours;
    // The days of a year that begins in March, in eras of 400 years.
    let days = hour / 24 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{:02}T{:02}:00", of_year - (153 * march + 2) / 5 + 1, hour % 24)
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
