//! The conformance suite: every promise of the traits in `towpath_core` is a case that a connector passes or breaks.
//!
//! A connector's `tests/conformance.rs` says how one of it is made and how its target is read back, declares where it differs
//! (each difference with a reason), and calls [`sink`], [`source`] or [`transform`]. Every case gets a fresh target or origin. What is broken is
//! listed with the promise it breaks, quoted from the trait:
//!
//! ```text
//! sqlite: 1 of 58 cases broken
//!
//! ✗ uncommitted_rows_vanish [append]
//!   promise: Lets go of everything, rolls back what is not committed.
//!   found:   3 rows too many: {id="1" name="n1"} …
//! ```
//!
//! ```no_run
//! use towpath_core::Sink;
//! use towpath_testkit::{
//!     conformance::{self, Setup, SinkQuirks, SinkTarget, SinkUnderTest},
//!     memory::MemoryTarget,
//!     rows,
//! };
//!
//! struct Target(MemoryTarget);
//!
//! #[async_trait::async_trait(?Send)]
//! impl SinkTarget for Target {
//!     fn sink(&self, setup: &Setup) -> Box<dyn Sink> {
//!         Box::new(self.0.sink(setup.mode, setup.key.clone()))
//!     }
//!     async fn rows(&self) -> Option<Vec<arrow_array::RecordBatch>> {
//!         self.0.rows()
//!     }
//! }
//!
//! # async fn example() {
//! let quirks = SinkQuirks {
//!     refuses_nothing: Some("there are no constraints"),
//!     cannot_be_dropped: Some("it lives as long as the process"),
//!     ..SinkQuirks::default()
//! };
//! let test = SinkUnderTest::new("mine", || async { Target(MemoryTarget::new()) }).quirks(quirks);
//! conformance::sink(&test).await;
//! # }
//! ```
//!
//! `TOWPATH_CASE=uncommitted` runs only the cases whose name contains the text. `*_report` return the [`Report`] instead of failing.
//!
//! The rows of the suite have two columns, `id` (int64, unique) and `name` (text, sometimes null). Rows are compared by their values
//! as text, so that a target without types of its own passes too; the types have a matrix of their own, see [`types`].

use std::{collections::BTreeMap, fmt, panic::AssertUnwindSafe, sync::LazyLock, time::Duration};

use futures::{FutureExt as _, future::LocalBoxFuture};
use towpath_core::Error;

mod door;
mod sink;
mod source;
mod transform;
pub mod types;

pub use crate::{memory::Key, rows};
pub use sink::{Setup, SinkQuirks, SinkTarget, SinkUnderTest, sink, sink_report};
pub use source::{SourceOrigin, SourceQuirks, SourceUnderTest, source, source_report};
pub use transform::{TransformQuirks, TransformUnderTest, transform, transform_report};
pub use types::{Comes, TypeQuirk};

/// Longer than any case needs: one that has not ended by then hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// The cases asked for by the person who runs the tests.
static ONLY: LazyLock<String> = LazyLock::new(|| std::env::var("TOWPATH_CASE").unwrap_or_default());

/// A promise that was not kept.
#[derive(Clone, Debug)]
pub struct Broken {
    /// The case, with the write mode where it depends on that.
    pub case: String,
    /// The sentence of the trait.
    pub promise: &'static str,
    /// What was found instead.
    pub found: String,
}

/// What came of a suite.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Report {
    /// Whose report it is.
    pub subject: String,
    /// The cases that passed.
    pub passed: Vec<String>,
    /// The cases that do not apply, with the declared reason.
    pub skipped: BTreeMap<String, String>,
    /// The others.
    pub broken: Vec<Broken>,
    /// Runs only the cases whose name contains it.
    only: String,
}

impl Report {
    fn new(subject: &str, only: &str) -> Self {
        Self { subject: subject.to_owned(), only: only.to_owned(), ..Self::default() }
    }
    /// Whether a case of this name (without the write mode) is broken.
    pub fn breaks(&self, case: &str) -> bool {
        self.broken.iter().any(|broken| broken.case.split(' ').next() == Some(case))
    }
    /// Fails the test if anything is broken.
    ///
    /// # Panics
    /// With the whole report.
    #[track_caller]
    #[expect(clippy::panic, reason = "it is what makes a test fail")]
    pub fn check(self) {
        if !self.broken.is_empty() {
            panic!("{self}");
        }
        // Who asks for one case gets no failures from the suites that do not have it.
        if self.passed.is_empty() && ONLY.is_empty() {
            panic!("{}: not a single case ran", self.subject);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ran = self.passed.len() + self.broken.len();
        writeln!(f, "{}: {} of {ran} cases broken", self.subject, self.broken.len())?;
        for Broken { case, promise, found } in &self.broken {
            writeln!(f, "\n✗ {case}\n  promise: {promise}\n  found:   {}", found.replace('\n', "\n           "))?;
        }
        if !self.skipped.is_empty() {
            writeln!(f)?;
        }
        for (case, why) in &self.skipped {
            writeln!(f, "- {case} left out: {why}")?;
        }
        Ok(())
    }
}

/// Why a case ended early.
#[derive(Debug)]
enum Stop {
    /// The promise is broken.
    Broken(String),
    /// The case does not apply, for the declared reason.
    Skip(String),
    /// The case is about something else, such as another write mode: nothing to tell.
    Beside,
}

type Check<T = ()> = Result<T, Stop>;

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Broken(format!("an error: {error}"))
    }
}

/// Ends the case as broken.
fn broken<T>(found: impl Into<String>) -> Check<T> {
    Err(Stop::Broken(found.into()))
}

/// Ends the case as broken unless `ok`.
fn ensure(ok: bool, found: impl FnOnce() -> String) -> Check {
    if ok { Ok(()) } else { broken(found()) }
}

/// Ends the case if a quirk says that it does not apply.
fn unless(quirk: Option<&'static str>) -> Check {
    quirk.map_or(Ok(()), |why| Err(Stop::Skip(why.to_owned())))
}

/// Says during which call an error came.
trait During<T> {
    fn during(self, what: &str) -> Check<T>;
}

impl<T> During<T> for towpath_core::Result<T> {
    fn during(self, what: &str) -> Check<T> {
        self.map_err(|error| Stop::Broken(format!("{what} failed: {error}")))
    }
}

/// One case of a suite over a world `W`.
struct Case<W> {
    name: &'static str,
    promise: &'static str,
    run: for<'a> fn(&'a W) -> LocalBoxFuture<'a, Check>,
}

/// A case from the function of its name.
macro_rules! case {
    ($name:ident, $promise:literal) => {
        $crate::conformance::Case { name: stringify!($name), promise: $promise, run: |world| Box::pin($name(world)) }
    };
}
use case;

/// Runs cases, each over its own world, and notes what came of them.
async fn run_cases<W>(report: &mut Report, suffix: &str, cases: &[Case<W>], world: impl AsyncFn() -> W) {
    for case in cases {
        let run = async { (case.run)(&world().await).await };
        run_case(report, format!("{}{suffix}", case.name), case.promise, run).await;
    }
}

/// Runs one case, if it is asked for, and notes what came of it.
async fn run_case(report: &mut Report, name: String, promise: &'static str, run: impl Future<Output = Check>) {
    if !name.contains(ONLY.as_str()) || !name.contains(&report.only) {
        return;
    }
    let outcome = match tokio::time::timeout(PATIENCE, AssertUnwindSafe(run).catch_unwind()).await {
        Err(_) => broken(format!("it has not ended after {} s", PATIENCE.as_secs())),
        Ok(Err(panic)) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            broken(format!("a panic: {}", text.unwrap_or_default()))
        }
        Ok(Ok(outcome)) => outcome,
    };
    match outcome {
        Ok(()) => report.passed.push(name),
        Err(Stop::Beside) => {}
        Err(Stop::Skip(why)) => drop(report.skipped.insert(name, why)),
        Err(Stop::Broken(found)) => report.broken.push(Broken { case: name, promise, found }),
    }
}

/// All promises the suite quotes. A test compares them with the words of the traits, so that a promise that is reworded there is
/// looked at here.
#[doc(hidden)]
pub fn promises() -> Vec<(&'static str, &'static str)> {
    [sink::promises(), source::promises(), transform::promises()].concat()
}

/// The names of the cases for sinks.
pub fn sink_cases() -> Vec<&'static str> {
    sink::promises().into_iter().map(|(name, _)| name).collect()
}
/// The names of the cases for sources.
pub fn source_cases() -> Vec<&'static str> {
    source::promises().into_iter().map(|(name, _)| name).collect()
}
/// The names of the cases for transforms.
pub fn transform_cases() -> Vec<&'static str> {
    transform::promises().into_iter().map(|(name, _)| name).collect()
}

/// Polls a future at most so many times and then drops it: a cancellation at the n-th await that waits.
async fn polls<F: Future>(times: u32, future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    let mut left = times;
    std::future::poll_fn(move |cx| {
        left = left.saturating_sub(1);
        match future.as_mut().poll(cx) {
            std::task::Poll::Ready(got) => std::task::Poll::Ready(Some(got)),
            std::task::Poll::Pending if left == 0 => std::task::Poll::Ready(None),
            std::task::Poll::Pending => std::task::Poll::Pending,
        }
    })
    .await
}

/// A small generator, so that a failure comes again.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }
    /// 0..n
    fn roll(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n.max(1)
    }
}

/// Whether a text shows a secret.
fn shows(text: &str, secrets: &[String]) -> Check {
    match secrets.iter().find(|secret| text.contains(secret.as_str())) {
        // Naming it again would print it into a log.
        Some(_) => broken("a text that people see shows the secret"),
        None => Ok(()),
    }
}

/// A run of the suite.
fn run_named(id: &str) -> towpath_core::Run {
    towpath_core::Run {
        id: id.into(),
        // A moment in the middle of an hour, so that windows have something to align.
        started: jiff::Timestamp::from_second(1_767_260_100).unwrap_or_default(),
        parameters: Default::default(),
        fingerprint: Default::default(),
    }
}
