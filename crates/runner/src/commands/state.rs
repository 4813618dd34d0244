//! `towpath state`: what is remembered between runs.

use std::path::Path;

use towpath_config::Severity;
use towpath_core::Name;
use towpath_engine::report::under_way;

use super::{Outcome, engine, load};
use crate::{
    args::{Global, Reset, State},
    output::{self, Failure, number},
};

pub(crate) fn state(global: &Global, command: State) -> Outcome {
    match command {
        State::Show => {
            let view = engine(global)?.state().show()?;
            if global.json {
                output::json(&view, false)?;
            } else {
                output::out(&view.to_string());
            }
        }
        State::Reset { what } => reset(global, what)?,
    }
    Ok(0)
}

fn reset(global: &Global, what: Reset) -> Result<(), Failure> {
    let said = match what {
        Reset::Checkpoint { pipeline } => {
            let name = name_of(global, &pipeline)?;
            let engine = engine(global)?;
            // Held until it is done, so that no run begins meanwhile.
            let Some(_lock) = engine.state().lock_pipeline(&name)? else {
                return Err(under_way(&name, engine.state().lock_holder(&name).as_ref()).into());
            };
            match engine.state().reset_checkpoint(Some(&name))? {
                0 => format!("nothing was remembered of pipeline '{name}'"),
                _ => format!("pipeline '{name}' begins anew with its next run"),
            }
        }
        Reset::Credentials { server } => {
            let count = engine(global)?.state().reset_credentials(server.as_deref())?;
            format!("{} forgotten{}", number(count, "credential"), of(server.as_deref()))
        }
        Reset::Budget { account } => {
            let count = engine(global)?.state().reset_budget(account.as_deref())?;
            format!("{} forgotten{}", number(count, "budget"), of(account.as_deref()))
        }
        Reset::Breaker { server } => {
            let count = engine(global)?.state().reset_breaker(server.as_deref())?;
            format!("{} closed{}", number(count, "breaker"), of(server.as_deref()))
        }
    };
    output::out(&said);
    Ok(())
}

fn of(server: Option<&str>) -> String {
    server.map(|server| format!(" of {server}")).unwrap_or_default()
}

/// A pipeline's name, from its file or as it is.
fn name_of(global: &Global, pipeline: &str) -> Result<Name, Failure> {
    if Path::new(pipeline).is_file() {
        let spec = load(global, Path::new(pipeline), Severity::Warning)?.spec;
        return Ok(spec.name.unwrap_or_else(|| pipeline.into()));
    }
    Ok(pipeline.into())
}
