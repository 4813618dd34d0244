//! `towpath validate`: whether files are right, without touching what they name.

use std::path::PathBuf;

use serde::Serialize;
use towpath_config::{Problem, Problems, Settings, Severity, load};

use super::Outcome;
use crate::{args::Global, output};

#[derive(Serialize)]
struct Checked {
    file: String,
    valid: bool,
    problems: Vec<Problem>,
}

pub(crate) fn validate(global: &Global, files: &[PathBuf]) -> Outcome {
    let settings = Settings::from_environment(global.set.clone(), Severity::Warning);
    let mut all = Vec::new();
    for file in files {
        let (valid, problems) = match load(file, &settings) {
            Ok(loaded) => (true, loaded.warnings),
            Err(Problems { problems }) => (false, problems),
        };
        let file = file.display().to_string();
        if !global.json {
            output::problems(&problems);
            let (errors, warnings) = Problems { problems: problems.clone() }.count();
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
