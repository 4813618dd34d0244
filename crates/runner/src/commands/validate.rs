//! `towpath validate`: whether files are right, without touching what they name.
//!
//! What the config alone cannot tell, the transforms do: each is planned over the columns that its inputs are known to have without
//! asking anybody, so that a query with a misspelt name is found before it runs.

use std::path::{Path, PathBuf};

use serde::Serialize;
use tokio::runtime::Runtime;
use towpath_config::{Loaded, Problem, Problems, Settings, Severity, load, problem_of};
use towpath_core::Error;
use towpath_engine::check_transforms;

use super::{Outcome, runtime};
use crate::{
    args::Global,
    output::{self, Failure},
};

#[derive(Serialize)]
struct Checked {
    file: String,
    valid: bool,
    problems: Vec<Problem>,
}

pub(crate) fn validate(global: &Global, files: &[PathBuf]) -> Outcome {
    let settings = Settings::from_environment(global.set.clone(), Severity::Warning);
    let mut all = Vec::new();
    let mut started = None;
    for file in files {
        let problems = match load(file, &settings) {
            Ok(loaded) if loaded.spec.transforms.is_empty() => loaded.warnings,
            Ok(loaded) => {
                let found = transforms(file, &loaded, started_once(&mut started, global)?);
                loaded.warnings.into_iter().chain(found).collect()
            }
            Err(Problems { problems }) => problems,
        };
        let (errors, warnings) = Problems { problems: problems.clone() }.count();
        let valid = errors == 0;
        let file = file.display().to_string();
        if !global.json {
            output::problems(&problems);
            let warned =
                if warnings > 0 { format!(", {}", output::number(warnings, "warning")) } else { String::new() };
            if valid {
                output::out(&format!("{file}: right{warned}"));
            } else {
                output::err(&format!("{file}: {}{warned}", output::number(errors, "error")));
            }
        }
        all.push(Checked { file, valid, problems });
    }
    if global.json {
        output::json(&all, false)?;
    }
    Ok(if all.iter().all(|checked| checked.valid) { 0 } else { 2 })
}

/// Sources plan in a runtime, though nothing comes of it here.
fn started_once<'a>(started: &'a mut Option<Runtime>, global: &Global) -> Result<&'a Runtime, Failure> {
    Ok(match started {
        Some(started) => started,
        none => none.insert(runtime(global)?),
    })
}

/// What is wrong with the transforms of a file that is right by itself.
fn transforms(file: &Path, loaded: &Loaded, runtime: &Runtime) -> Vec<Problem> {
    let wrong = match runtime.block_on(check_transforms(&loaded.spec, &loaded.unset)) {
        Ok(wrong) => wrong,
        // A variable may say what a component is; then there is no graph yet.
        Err(_) if !loaded.unset.is_empty() => return vec![],
        Err(error) => return vec![nowhere(&error)],
    };
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let specs = &loaded.spec.transforms;
    let problem = |(name, error)| match specs.iter().find(|spec| spec.name == name) {
        Some(spec) => problem_of(file, &text, spec, &error),
        None => nowhere(&error),
    };
    wrong.into_iter().map(problem).collect()
}

/// An error without a place.
fn nowhere(error: &Error) -> Problem {
    let hint = error.what_to_do().map(str::to_owned);
    Problem { severity: Severity::Error, message: error.to_string(), key: String::new(), place: None, hint }
}
