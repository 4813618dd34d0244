//! `towpath serve`: pipelines on their schedules, until a signal comes.
//!
//! Everything is read and checked first, so that nothing starts where something is wrong. Then each pipeline has a [`keeper`] of its own;
//! what one comes to is nothing to the others.

mod keeper;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use towpath_config::{Place, Problem, Problems, Severity};
use towpath_core::{Error, Name, PipelineSpec, Result};
use towpath_engine::{Engine, Graph, schedule::Timetable};

use self::keeper::{Keeper, say};
use super::{Outcome, engine, load, runtime};
use crate::{
    args::Global,
    output::{self, Failure},
    signals::Signals,
};

/// A pipeline that is to be served.
struct Pipeline {
    file: PathBuf,
    name: Name,
    spec: PipelineSpec,
    timetable: Timetable,
}

pub(crate) fn serve(global: &Global, files: &[PathBuf]) -> Outcome {
    let pipelines = read(global, files)?;
    let runtime = runtime(global)?;
    let engine = engine(global)?;
    let code = runtime.block_on(kept(&engine, pipelines, global.json));
    // A task that hangs in a call of the system must not hold the program.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(code?)
}

/// Reads all files. The failure holds everything that is wrong with any of them.
fn read(global: &Global, files: &[PathBuf]) -> Result<Vec<Pipeline>, Failure> {
    let (mut pipelines, mut wrong) = (Vec::new(), Vec::new());
    let mut names: BTreeMap<Name, &Path> = BTreeMap::new();
    for file in files {
        let spec = match load(global, file, Severity::Error) {
            Ok(loaded) => loaded.spec,
            Err(Failure::Config(Problems { problems })) => {
                wrong.extend(problems);
                continue;
            }
            Err(failure) => return Err(failure),
        };
        let name = spec.name.clone().unwrap_or_else(|| "".into());
        if let Some(other) = names.insert(name.clone(), file) {
            let message = format!("{} has the name '{name}' as well", other.display());
            let hint = "give one of them another name; one pipeline is served once";
            wrong.push(refused(file, "name", message, Some(hint)));
            continue;
        }
        match timetable(file, &spec) {
            Ok(timetable) => pipelines.push(Pipeline { file: file.clone(), name, spec, timetable }),
            Err(problem) => wrong.push(*problem),
        }
    }
    if wrong.is_empty() { Ok(pipelines) } else { Err(Problems { problems: wrong }.into()) }
}

/// A pipeline's schedule, if there is one that can be kept and the rest is such that it can be run.
fn timetable(file: &Path, spec: &PipelineSpec) -> Result<Timetable, Box<Problem>> {
    let Some(schedule) = &spec.schedule else {
        let hint = "write `schedule: { every: 1h }`, or run it once with `towpath run`";
        return Err(Box::new(refused(file, "schedule", "this pipeline has no schedule".to_owned(), Some(hint))));
    };
    let told = |key: &str, error: Error| Box::new(refused(file, key, error.message().to_owned(), error.what_to_do()));
    let key = if schedule.cron.is_some() { "schedule.cron" } else { "schedule.every" };
    let timetable = Timetable::of(schedule).map_err(|error| told(key, error))?;
    Graph::from_spec(spec).map_err(|error| told("", error))?;
    Ok(timetable)
}

fn refused(file: &Path, key: &str, message: String, hint: Option<&str>) -> Problem {
    let place = Place { layer: file.display().to_string(), line: None, column: 1, text: String::new(), width: 0 };
    Problem {
        severity: Severity::Error,
        message,
        key: key.to_owned(),
        place: Some(place),
        hint: hint.map(str::to_owned),
    }
}

/// Keeps all schedules until a signal comes and what is under way has ended. Gives the exit code.
async fn kept(engine: &Engine, pipelines: Vec<Pipeline>, json: bool) -> Result<u8> {
    let mut signals = Signals::listen()?;
    let (stop, abort) = (CancellationToken::new(), CancellationToken::new());
    let mut keepers = Vec::with_capacity(pipelines.len());
    for Pipeline { file, name, spec, timetable } in pipelines {
        let Some(serving) = engine.state().serve(&name)? else {
            let served = engine.state().served(&name)?;
            let whose = served.map(|by| format!(" by process {} since {:.0}", by.pid, by.since)).unwrap_or_default();
            let error = Error::conflict(format!("pipeline '{name}' is served{whose}"))
                .at(file.display().to_string())
                .hint("end that process first, or leave the file out; nothing was started");
            output::err(&output::block(&error));
            return Ok(4);
        };
        keepers.push(Keeper::new(engine.clone(), serving, name, spec, timetable, (&stop, &abort), json)?);
    }
    let mut going = JoinSet::new();
    for keeper in keepers {
        keeper.introduce();
        going.spawn(keeper.keep());
    }
    let (mut interrupts, mut clean) = (0, true);
    loop {
        tokio::select! {
            ended = going.join_next() => match ended {
                None => break,
                Some(Ok(drained)) => clean &= drained,
                Some(Err(error)) => {
                    clean = false;
                    say(None, &format!("a pipeline is not served any more, by a defect of this program: {error}"));
                }
            },
            () = signals.next() => {
                interrupts += 1;
                match interrupts {
                    1 => {
                        say(None, "interrupted: nothing is started any more; once more ends at once what is under way");
                        stop.cancel();
                    }
                    2 => {
                        say(None, "interrupted again: ending at once");
                        abort.cancel();
                    }
                    _ => {
                        clean = false;
                        break;
                    }
                }
            }
        }
    }
    say(None, if clean { "ended" } else { "ended; the next run of what was broken off takes it up" });
    Ok(match (clean, interrupts) {
        (true, _) => 0,
        (false, 0) => 1,
        (false, _) => 130,
    })
}
