//! `cargo xtask demo [report | crm]`: a pipeline from its plan to its rows, on this machine alone: into a SQLite file, or one of those that stand in
//! `config/`: into a SQL Server, or a CRM.

mod crm;
mod report;
mod sqlite;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use crate::{Fallible, cmd};

pub(crate) fn run(arguments: &[String]) -> Fallible {
    match arguments {
        [] => sqlite::run(),
        [what] if what == "report" => report::run(),
        [what] if what == "crm" => crm::run(),
        _ => Err("usage: cargo xtask demo [report | crm]".to_owned()),
    }
}

/// A folder that holds nothing of an earlier demo, which would have nothing new to show; and the programs.
struct Stage {
    folder: PathBuf,
    programs: cmd::Programs,
    /// What is in the environment of every command.
    variables: Vec<(&'static str, String)>,
}

impl Stage {
    /// Of a demo that joins nothing: what joins takes longer to build than all the rest.
    fn set_up(name: &str) -> Fallible<Self> {
        Self::build(name, "some minutes the first time", || cmd::build("demo"))
    }
    /// Of one that needs the transform `sql`.
    fn set_up_to_join(name: &str) -> Fallible<Self> {
        Self::build(name, "with the transform `sql`; ten minutes the first time", || cmd::build_to_join("demo"))
    }
    fn build(name: &str, takes: &str, build: impl FnOnce() -> Fallible<cmd::Programs>) -> Fallible<Self> {
        println!("Building towpath and the simulated servers ({takes}) …");
        let began = Instant::now();
        let programs = build()?;
        println!("Built in {:.0} s.\n", began.elapsed().as_secs_f64());
        let folder = cmd::target_dir()?.join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        // The demo looks at nothing else on this machine.
        let state = folder.join("state").display().to_string();
        Ok(Self { folder, programs, variables: vec![("TOWPATH_STATE_DIR", state)] })
    }
    /// Starts a simulated server; it ends with the value. Its URL is the first line that it prints.
    fn simulate(&self, arguments: &[&str]) -> Fallible<(cmd::Background, String)> {
        let mut command = Command::new(&self.programs.simulate);
        let mut server = cmd::Background::start(command.args(arguments).stdout(Stdio::piped()))?;
        let url = server.first_line()?;
        Ok((server, url))
    }
    /// Runs `towpath …` in the folder and shows what was typed and what came.
    fn towpath(&self, arguments: &[&str]) -> Fallible {
        let mut command = Command::new(&self.programs.towpath);
        command
            .current_dir(&self.folder)
            .args(arguments)
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        println!("$ towpath {}", arguments.join(" "));
        cmd::run(&mut command)?;
        println!();
        Ok(())
    }
    fn put(&self, name: &str, text: &str) -> Fallible {
        put(&self.folder.join(name), text)
    }
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
