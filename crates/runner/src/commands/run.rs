//! `towpath run`: a pipeline, once.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio_util::sync::CancellationToken;
use towpath_config::Severity;
use towpath_core::{Error, Period};
use towpath_engine::{Bound, Progress, RunOptions, RunReport, Status, report::CallReport};

use super::{Outcome, engine, load, runtime};
use crate::{
    args::Global,
    output::{self, Failure},
    progress::{Snapshot, View},
    signals::Signals,
    table::{megabytes, thousands},
};

/// How long what was aborted may take to close what it has open.
pub(super) const CLOSING: Duration = Duration::from_secs(10);

/// How a run is to go.
pub(crate) struct How {
    pub(crate) new_run: bool,
    pub(crate) full: bool,
    pub(crate) plan: Option<PathBuf>,
}

/// What is to be changed is not what the plan says.
const MOVED: u8 = 5;

pub(crate) fn run(global: &Global, file: &Path, how: How) -> Outcome {
    match ran(global, file, how) {
        Ok(Bound::Ran(report) | Bound::Failed(report)) => {
            let code = report.exit_code();
            if let Some(error) = &report.error {
                output::err(&output::block(error));
            }
            if global.json {
                output::json(&report, true)?;
            } else {
                output::out(&summary(&report, file));
            }
            Ok(code)
        }
        Ok(Bound::Moved(diff)) => {
            if global.json {
                output::json(&diff, true)?;
            } else {
                output::out(&diff.to_string());
            }
            Ok(MOVED)
        }
        // Whoever reads the last line of stdout finds it whatever went wrong.
        Err(failure) => {
            let code = output::failure(&failure);
            if global.json {
                output::json(&not_begun(file, &failure), true)?;
            }
            Ok(code)
        }
    }
}

fn ran(global: &Global, file: &Path, how: How) -> Result<Bound, Failure> {
    let spec = load(global, file, Severity::Error)?.spec;
    let runtime = runtime(global)?;
    let engine = engine(global)?;
    let (drain, How { new_run, full, plan }) = (spec.run.drain, how);
    let work = async move |options: RunOptions| {
        let options = RunOptions { new_run, full, ..options };
        match plan {
            Some(plan) => engine.run_plan(&spec, options, &plan).await,
            None => Ok(Bound::Ran(Box::new(engine.run(&spec, options).await))),
        }
    };
    let bound = runtime.block_on(watched(drain, work));
    // A task that hangs in a call of the system must not hold the program.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(bound?)
}

/// Does it, shows how it stands, and hears signals.
pub(super) async fn watched<T, F>(drain: Period, work: impl FnOnce(RunOptions) -> F) -> Result<T, Error>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Error>> + Send + 'static,
{
    let mut signals = Signals::listen()?;
    let (stop, abort, progress) = (CancellationToken::new(), CancellationToken::new(), Arc::new(Progress::default()));
    let options = RunOptions {
        stop: stop.clone(),
        abort: abort.clone(),
        progress: Some(Arc::clone(&progress)),
        ..RunOptions::default()
    };
    let began = Instant::now();
    let mut run = tokio::spawn(work(options));
    let mut view = View::new();
    let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + view.interval(), view.interval());
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut interrupts = 0;
    let mut patience: Option<tokio::time::Instant> = None;
    let report = loop {
        let patient = async {
            match patience {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            report = &mut run => break report.map_err(|error| Error::internal("the run broke off").because(error)).flatten(),
            _ = tick.tick() => view.show(&Snapshot::of(&progress, began.elapsed())),
            () = signals.next() => {
                interrupts += 1;
                match interrupts {
                    1 => {
                        view.say(&format!("interrupted: going on to the next commit, for {drain} at most; once more ends it at once"));
                        stop.cancel();
                        patience = Some(tokio::time::Instant::now() + drain.0);
                    }
                    2 => {
                        view.say("interrupted again: ending at once; the next run takes this one up");
                        abort.cancel();
                        patience = Some(tokio::time::Instant::now() + CLOSING);
                    }
                    _ => {
                        run.abort();
                        break Err(Error::cancelled());
                    }
                }
            }
            () = patient => {
                if abort.is_cancelled() {
                    run.abort();
                    break Err(Error::cancelled());
                }
                view.say(&format!("no commit came within {drain}: ending now; the next run takes this one up"));
                abort.cancel();
                patience = Some(tokio::time::Instant::now() + CLOSING);
            }
        }
    };
    view.end();
    report
}

/// The last line of `--json` where the run did not begin: the same keys, with nothing in them.
fn not_begun(file: &Path, failure: &Failure) -> serde_json::Value {
    let (status, error) = match failure {
        Failure::Config(problems) => ("failed", output::in_a_line(problems)),
        Failure::Error(error) if output::code(error) == 130 => ("cancelled", error.to_string()),
        Failure::Error(error) => ("failed", error.to_string()),
    };
    let pipeline = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    json!({
        "pipeline": pipeline, "run_id": "", "status": status, "sources": {}, "transforms": {}, "sinks": {}, "dead_letters": 0,
        "elapsed_seconds": 0.0, "peak_memory_bytes": 0, "error": error,
    })
}

/// `, 1 of 12 calls failed, waited 4.0 s`; nothing where all went well.
fn calls(report: &CallReport) -> String {
    let CallReport { tries, failed, waited_ms, .. } = *report;
    let mut text = String::new();
    if failed > 0 {
        text.push_str(&format!(", {} of {} calls failed", thousands(failed), thousands(tries)));
    }
    if waited_ms >= 100 {
        text.push_str(&format!(", waited {:.1} s", waited_ms as f64 / 1000.0));
    }
    text
}

/// `, 3 rejected`; nothing where none were.
fn rejected(rows: u64) -> String {
    if rows > 0 { format!(", {} rejected", thousands(rows)) } else { String::new() }
}

/// How a run ended, for people.
pub(super) fn in_words(status: Status) -> &'static str {
    match status {
        Status::Completed => "completed",
        Status::Failed => "failed",
        Status::Stopped => "stopped: too many rejected rows",
        Status::Cancelled => "interrupted",
    }
}

/// What a run came to, for people.
fn summary(report: &RunReport, file: &Path) -> String {
    let how = in_words(report.status);
    let taken_up = if report.taken_up { ", taken up" } else { "" };
    let run = if report.run_id.is_empty() { String::new() } else { format!(" (run {}{taken_up})", report.run_id) };
    let mut text = format!("{how} in {:.1} s{run}\n", report.elapsed_seconds);
    let refusing: Vec<_> = report.transforms.iter().filter(|(_, transform)| transform.rejected > 0).collect();
    let names = report.sources.keys().chain(refusing.iter().map(|(name, _)| *name)).chain(report.sinks.keys());
    let widest = names.map(|name| name.chars().count()).max().unwrap_or(0);
    for (name, source) in &report.sources {
        let bytes = if source.bytes > 0 { format!(", {}", megabytes(source.bytes)) } else { String::new() };
        let calls = report.calls.get(name).map(calls).unwrap_or_default();
        let rejected = rejected(source.rejected);
        text.push_str(&format!("  {name:widest$}  {} rows{bytes}{calls}{rejected}\n", thousands(source.rows)));
    }
    // What goes in and comes out between is of interest where something did not.
    for (name, transform) in refusing {
        let [rows_in, rows_out] = [transform.rows_in, transform.rows_out].map(thousands);
        let rejected = rejected(transform.rejected);
        text.push_str(&format!("  {name:widest$}  {rows_in} rows in, {rows_out} out{rejected}\n"));
    }
    for (name, sink) in &report.sinks {
        text.push_str(&format!(
            "  {name:widest$}  {} written, {} known, {}{} rejected\n",
            thousands(sink.written),
            thousands(sink.skipped),
            if sink.removed > 0 { format!("{} removed, ", thousands(sink.removed)) } else { String::new() },
            thousands(sink.rejected)
        ));
    }
    if report.nothing_new {
        text.push_str(
            "  nothing has changed since the last run, so nothing was read; --full reads everything all the same\n",
        );
    }
    if report.dead_letters > 0 {
        let rows = thousands(report.dead_letters);
        let of_run = if report.run_id.is_empty() { String::new() } else { format!(" --run {}", report.run_id) };
        text.push_str(&format!("  {rows} in the dead letters: towpath dlq show {}{of_run}\n", file.display()));
    }
    if matches!(report.status, Status::Stopped | Status::Cancelled) && !report.run_id.is_empty() {
        text.push_str("  the next run takes this one up\n");
    }
    text
}
