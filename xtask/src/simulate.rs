//! `cargo xtask simulate ssrs | mssql | pipedrive`: a simulator for a person to try things with.

use crate::{Fallible, cmd};

pub(crate) fn run(arguments: &[String]) -> Fallible {
    let programs = cmd::build("demo")?;
    cmd::run(std::process::Command::new(programs.simulate).args(arguments))
}
