//! Keeps the schedule of one pipeline: waits, starts, says what came of it. A run is a task of its own, so that a panic in it ends it and
//! nothing else.

use std::{any::Any, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::{
    task::{JoinError, JoinHandle},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use towpath_core::{Name, PipelineSpec, Result, pipeline::Overlap};
use towpath_engine::{
    Engine, RunOptions, RunReport,
    schedule::{Look, Starts, Timetable},
    state::Serving,
};
use tracing::Instrument;

use crate::{
    commands::run::{CLOSING, in_words},
    output,
    table::thousands,
};

/// How long to sleep at the most before the wall clock is looked at again: it may have been set, or the machine have slept.
const LOOK: Duration = Duration::from_secs(30);

/// One pipeline that is served.
pub(super) struct Keeper {
    engine: Engine,
    serving: Serving,
    name: Name,
    spec: Arc<PipelineSpec>,
    starts: Starts,
    stop: CancellationToken,
    abort: CancellationToken,
    json: bool,
    /// Nothing is started any more.
    over: bool,
    skipped: u64,
}

/// A run under way.
struct Going {
    run: JoinHandle<RunReport>,
    abort: CancellationToken,
    since: Timestamp,
}

impl Keeper {
    /// A keeper that will begin now. `ends` are the tokens that say: start nothing more, and: break off what is under way.
    pub fn new(
        engine: Engine,
        serving: Serving,
        name: Name,
        spec: PipelineSpec,
        timetable: Timetable,
        ends: (&CancellationToken, &CancellationToken),
        json: bool,
    ) -> Result<Self> {
        let starts = Starts::new(timetable, engine.state().last_start(&name)?, Timestamp::now());
        let (stop, abort) = (ends.0.clone(), ends.1.clone());
        let spec = Arc::new(spec);
        Ok(Self { engine, serving, name, spec, starts, stop, abort, json, over: false, skipped: 0 })
    }

    /// Says what will be done.
    pub fn introduce(&self) {
        let file = self.spec.file.as_ref().map(|file| format!(", {}", file.display())).unwrap_or_default();
        self.say(&format!("{}{file}, {}", self.starts.timetable(), self.next()));
        self.announce();
    }

    /// Keeps the schedule until it is told to stop. Whether what was under way then came to its end by itself.
    pub async fn keep(mut self) -> bool {
        let mut going: Option<Going> = None;
        let mut waits = false;
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                came = ended(&mut going) => {
                    going = None;
                    self.tell(came);
                    if std::mem::take(&mut waits) {
                        going = self.start();
                    }
                }
                () = until(self.due()) => {
                    if !self.is_due() {
                        continue;
                    }
                    match &going {
                        None => going = self.start(),
                        Some(run) if self.overlap() == Overlap::Skip || waits => {
                            let since = run.since;
                            self.skip(&format!("the run since {since:.0} is under way"));
                        }
                        Some(run) => {
                            waits = true;
                            self.say(&format!("start waits: the run since {:.0} is under way, {}", run.since, self.next()));
                        }
                    }
                    self.announce();
                }
            }
        }
        self.over = true;
        self.announce();
        match going {
            Some(run) => self.drain(run).await,
            None => true,
        }
    }

    fn overlap(&self) -> Overlap {
        self.spec.schedule.as_ref().map(|schedule| schedule.overlap).unwrap_or_default()
    }

    /// Whether a start is due now.
    fn is_due(&mut self) -> bool {
        match self.starts.look(Timestamp::now()) {
            Look::Start => return true,
            Look::Wait => {}
            Look::SetBack => {
                self.say(&format!("the clock was set back, {}", self.next()));
                self.announce();
            }
        }
        false
    }

    /// Starts a run, unless one is under way elsewhere.
    fn start(&mut self) -> Option<Going> {
        if let Some(holder) = self.engine.state().lock_holder(&self.name) {
            self.skip(&format!("another run is under way ({holder})"));
            return None;
        }
        self.say("started");
        let abort = self.abort.child_token();
        let options = RunOptions { stop: self.stop.child_token(), abort: abort.clone(), ..RunOptions::default() };
        let (engine, spec) = (self.engine.clone(), Arc::clone(&self.spec));
        let run = async move { engine.run(&spec, options).await };
        // What is logged meanwhile names the pipeline.
        let span = tracing::info_span!("run", pipeline = %self.name);
        Some(Going { run: tokio::spawn(run.instrument(span)), abort, since: Timestamp::now() })
    }

    /// Waits for the end of a run, for as long as the pipeline's `drain` says.
    async fn drain(mut self, Going { mut run, abort, .. }: Going) -> bool {
        let drain = self.spec.run.drain;
        self.say(&format!("going on to the next commit, for {drain} at most"));
        let mut patience = Instant::now() + drain.0;
        let mut aborted = false;
        loop {
            tokio::select! {
                biased;
                came = &mut run => {
                    let panicked = came.is_err();
                    self.tell(came);
                    return !aborted && !panicked;
                }
                () = abort.cancelled(), if !aborted => {
                    aborted = true;
                    patience = Instant::now() + CLOSING;
                }
                () = tokio::time::sleep_until(patience) => {
                    if aborted {
                        run.abort();
                        self.say("broken off: it did not close what it has open");
                        return false;
                    }
                    self.say(&format!("no commit came within {drain}: ending now"));
                    abort.cancel();
                }
            }
        }
    }

    /// Says how a run ended.
    fn tell(&mut self, came: Result<RunReport, JoinError>) {
        let report = match came {
            Ok(report) => report,
            Err(error) => {
                let why = error.try_into_panic().map(|panic| panic_text(&*panic)).unwrap_or_default();
                self.say(&format!("died of a defect, {}: {why}", self.next()));
                return;
            }
        };
        if report.locked {
            // Somebody was quicker.
            self.skip("another run is under way");
            self.announce();
            return;
        }
        let sum =
            |count: fn(&towpath_engine::report::SinkReport) -> u64| thousands(report.sinks.values().map(count).sum());
        let mut text = format!(
            "{} in {:.1} s, {} written, {} known, {} in the dead letters, {}",
            in_words(report.status),
            report.elapsed_seconds,
            sum(|sink| sink.written),
            sum(|sink| sink.skipped),
            thousands(report.dead_letters),
            self.next(),
        );
        if let Some(error) = &report.error {
            text.push_str(&format!(": {}", output::one_line(error)));
        }
        self.say(&text);
        if self.json
            && let Err(error) = output::json(&report, true)
        {
            self.say(&error.to_string());
        }
    }

    fn skip(&mut self, why: &str) {
        self.skipped += 1;
        self.say(&format!("start skipped, {why}, {} skipped so far, {}", thousands(self.skipped), self.next()));
    }

    fn due(&self) -> Option<Timestamp> {
        self.starts.due().filter(|_| !self.over)
    }

    fn next(&self) -> String {
        self.due().map_or_else(|| "no next start".to_owned(), |due| format!("next start {due:.0}"))
    }

    /// For `towpath status`.
    fn announce(&self) {
        if let Err(error) = self.serving.announce(&self.starts.timetable().to_string(), self.due(), self.skipped) {
            self.say(&format!("cannot note the next start: {}", output::one_line(&error)));
        }
    }

    fn say(&self, text: &str) {
        say(Some(&self.name), text);
    }
}

/// Says something, with the time, and of which pipeline it is said.
pub(super) fn say(pipeline: Option<&Name>, text: &str) {
    let whose = pipeline.map(|name| format!("{name}: ")).unwrap_or_default();
    output::err(&format!("{:.0} {whose}{text}", Timestamp::now()));
}

/// Sleeps until a time, or for as long as the clock may be left alone.
async fn until(due: Option<Timestamp>) {
    let Some(due) = due else { return std::future::pending().await };
    let left: SignedDuration = due.duration_since(Timestamp::now());
    let left = Duration::try_from(left).unwrap_or_default();
    tokio::time::sleep(left.min(LOOK)).await;
}

/// The end of the run under way. Cancel-safe.
async fn ended(going: &mut Option<Going>) -> Result<RunReport, JoinError> {
    match going {
        Some(going) => (&mut going.run).await,
        None => std::future::pending().await,
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a message").replace('\n', " ")
}
