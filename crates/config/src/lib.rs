//! Pipeline files, environment and flags, checked and turned into a [`PipelineSpec`].
//!
//! A config is made of layers, each stronger than the one before:
//!
//! 1. the defaults of the program and of each connector,
//! 2. `towpath.yaml`, the nearest one in the pipeline file's folder or above it: settings that pipelines share,
//! 3. the pipeline file,
//! 4. variables such as `TOWPATH__SINKS__WAREHOUSE__TABLE=orders`,
//! 5. flags such as `--set sinks.warehouse.table=orders`.
//!
//! Mappings are merged key by key, everything else is replaced as a whole. `${NAME}` and `${NAME:-default}` in values come
//! from the environment or from a `.env` file beside the pipeline file; the environment wins.
//!
//! The way of a file: `tree` reads YAML and keeps places, `interpolate` puts variables in, `layers` merges, `check` holds the
//! result against the JSON Schema of [`schema()`], `spec` makes a [`PipelineSpec`] of it and checks what a schema cannot say, and
//! `problem` tells everything that is wrong, at once, with its line.

mod check;
mod graph;
mod interpolate;
mod kinds;
mod layers;
mod nearest;
mod place;
mod problem;
mod schedule;
mod schema;
mod secrets;
mod spec;
mod tree;

use std::{collections::BTreeMap, path::Path};

use towpath_core::PipelineSpec;

use layers::Layer;
use problem::{Finding, settle};
use secrets::Secrets;

pub use layers::{PREFIX, SHARED_FILE};
pub use nearest::hint as did_you_mean;
pub use place::problem_of;
pub use problem::{Place, Problem, Problems, Severity};
pub use schema::schema;

/// What a config depends on beside its files.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `a.b=c`, in the order of the flags.
    pub set: Vec<String>,
    /// The environment.
    pub variables: BTreeMap<String, String>,
    /// What an unset variable is: an error for a run, a warning for a plan or a check.
    pub unset: Severity,
}

impl Settings {
    /// Settings with this process's environment; a variable that is no Unicode is left out.
    pub fn from_environment(set: Vec<String>, unset: Severity) -> Self {
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self { set, variables: variables.collect(), unset }
    }
}

/// A config that is right, as far as can be known without running it.
#[derive(Debug)]
pub struct Loaded {
    /// The pipeline.
    pub spec: PipelineSpec,
    /// What is worth knowing all the same.
    pub warnings: Vec<Problem>,
    /// The layers it was made from, weakest first.
    pub layers: Vec<String>,
    /// Components with options that name a variable that is not set; they cannot be spoken to.
    pub unset: Vec<String>,
}

/// Reads a pipeline file with its layers. The error holds everything that is wrong, warnings too.
pub fn load(file: &Path, settings: &Settings) -> Result<Loaded, Problems> {
    let mut findings = Vec::new();
    let mut layers = Vec::new();
    let mut secrets = Secrets::default();
    let mut files = Vec::new();
    let shared = layers::shared_file(file);
    let shared_index = shared.is_some().then_some(0);
    for path in shared.iter().map(AsRef::as_ref).chain([file]) {
        match std::fs::read_to_string(path) {
            Ok(text) => files.push((path.display().to_string(), text)),
            Err(error) => return Err(unreadable(path, &error)),
        }
    }
    for (name, text) in files {
        layers.push(Layer::file(layers.len(), name, text, &mut findings));
    }
    let main = layers.len() - 1;
    let broken = findings.iter().any(|finding| finding.message.starts_with(tree::NOT_YAML));
    let below: Vec<tree::Node> = layers.iter().map(|layer| layer.root.clone()).collect();
    let below: Vec<&tree::Node> = below.iter().collect();
    for (variable, value) in layers::overrides(&settings.variables) {
        layers.push(Layer::environment(layers.len(), variable, value, &below, &mut findings));
    }
    for argument in &settings.set {
        layers.push(Layer::flag(layers.len(), argument, &mut findings));
    }
    let variables = variables(file, settings, &mut findings);
    for layer in &mut layers {
        findings.extend(interpolate::interpolate(&mut layer.root, &variables, settings.unset, &mut secrets));
    }
    let mut merged = layers::merge(&layers, main);
    let names: Vec<String> = layers.iter().map(|layer| layer.name.clone()).collect();
    let (spec, unset) = if broken {
        (None, vec![])
    } else {
        let shared_root = shared_index.and_then(|index: usize| layers.get(index)).map(|layer| &layer.root);
        findings.extend(spec::check_shared(shared_root));
        spec::build(&mut merged, file, main + 1, &mut findings, &mut secrets)
    };
    spec::mark_secrets(&mut layers, &mut secrets);
    let problems = settle(findings, &layers, &secrets);
    match spec.filter(|_| problems.iter().all(|problem| problem.severity == Severity::Warning)) {
        Some(spec) => Ok(Loaded { spec, warnings: problems, layers: names, unset }),
        None => Err(Problems { problems }),
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Problems {
    let hint = match error.kind() {
        std::io::ErrorKind::NotFound => Some("check the path; the pipeline file is the first argument".to_owned()),
        std::io::ErrorKind::IsADirectory => Some("name the pipeline file in it".to_owned()),
        _ => None,
    };
    let message = format!("cannot read {}: {}", path.display(), plain(error));
    Problems { problems: vec![Problem { severity: Severity::Error, message, key: String::new(), place: None, hint }] }
}

/// An error of the system without its number.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

/// The environment, and below it the `.env` beside the file.
fn variables(file: &Path, settings: &Settings, findings: &mut Vec<Finding>) -> interpolate::Variables {
    let path = file.with_file_name(".env");
    let Ok(text) = std::fs::read_to_string(&path) else { return settings.variables.clone() };
    let (mut variables, wrong) = interpolate::dotenv(&text);
    for line in wrong {
        findings.push(Finding {
            severity: Severity::Warning,
            at: None,
            key: String::new(),
            message: format!("{}: line {line} is not NAME=value and is passed over", path.display()),
            hint: None,
        });
    }
    variables.extend(settings.variables.clone());
    variables
}
