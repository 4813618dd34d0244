//! The commands. Each takes what was typed and gives the exit code.

mod connectors;
mod dlq;
mod look;
mod plan;
mod run;
mod serve;
mod state;
mod status;
mod validate;

use std::path::Path;

use towpath_config::{Loaded, Settings, Severity};
use towpath_core::Error;
use towpath_engine::Engine;

use crate::{
    args::{Cli, Command, Global},
    logging,
    output::{self, Failure},
    settings,
};

pub(crate) type Outcome = Result<u8, Failure>;

/// Does what was asked.
pub(crate) fn run(cli: Cli) -> Outcome {
    let global = cli.global;
    match cli.command {
        Command::Run { file, new_run, full, plan } => run::run(&global, &file, run::How { new_run, full, plan }),
        Command::Serve { files } => serve::serve(&global, &files),
        Command::Status { files } => status::status(&global, &files),
        Command::Plan { file, diff: false, .. } => plan::plan(&global, &file),
        Command::Plan { file, diff: true, out, full } => plan::diff(&global, &file, out.as_deref(), full),
        Command::Validate { files } => validate::validate(&global, &files),
        Command::Preview { file, source, rows } => look::preview(&global, &file, &source, rows),
        Command::Discover { file, source } => look::discover(&global, &file, &source),
        Command::Connectors { name } => connectors::connectors(&global, name.as_deref()),
        Command::Schema => {
            output::json(&towpath_config::schema(), false)?;
            Ok(0)
        }
        Command::State { command } => state::state(&global, command),
        Command::Dlq { command } => dlq::dlq(&global, command),
    }
}

/// Reads a pipeline file; warnings are printed, errors are the failure.
fn load(global: &Global, file: &Path, unset: Severity) -> Result<Loaded, Failure> {
    let loaded = towpath_config::load(file, &Settings::from_environment(global.set.clone(), unset))?;
    output::problems(&loaded.warnings);
    tracing::debug!("config from {}", loaded.layers.join(" < "));
    Ok(loaded)
}

fn engine(global: &Global) -> Result<Engine, Failure> {
    Ok(Engine::open(&settings::state_dir(global)?)?)
}

/// What everything that speaks to the outside needs first.
fn runtime(global: &Global) -> Result<tokio::runtime::Runtime, Failure> {
    logging::start(global.verbose);
    // Whoever comes first decides; all of ours mean the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    Ok(runtime.map_err(|error| Error::internal("cannot start").because(error))?)
}
