//! The suite for sources: what is tried, and on what.

use std::time::Duration;

use arrow_array::RecordBatch;
use async_trait::async_trait;
use futures::future::LocalBoxFuture;
use towpath_core::{
    Checkpoint, Context, Error, Mark, Next, Original, Piece, Resume, Run, Source, SourcePlan, checkpoint::Positions,
};

use super::{Case, Check, During as _, Report, Stop, broken, door, ensure, run_cases, run_named};
use crate::rows;

mod cases;
mod resume;

/// The name of the source in the suite's checkpoints.
const NAME: &str = "origin";
/// How long `close` may take.
const CLOSE: Duration = Duration::from_secs(5);

/// One place that sources read from and the suite arranges: a folder, a server of its own. Each case gets a fresh one. Let it have
/// several partitions where there can be several, some thousand rows, and at least one piece that does not come at once.
#[async_trait(?Send)]
pub trait SourceOrigin {
    /// A new source of it, as the config would make it. Called several times: each is a process of its own.
    fn source(&self) -> Box<dyn Source>;
    /// The rows there are, in the order they should come within their partition.
    async fn rows(&self) -> Vec<RecordBatch>;
    /// Other rows take the place of those of the first partition (a file is written anew). False: cannot be, which
    /// [`SourceQuirks::never_changes`] must then say.
    async fn change(&self) -> bool {
        false
    }
    /// From now on the first partition breaks off in the middle. False: cannot be, which [`SourceQuirks::never_truncated`] must then
    /// say.
    async fn truncate(&self) -> bool {
        false
    }
    /// How many requests the origin has seen that cost it something (renderings, downloads), where it counts.
    async fn costly_requests(&self) -> Option<u64> {
        None
    }
}

/// Where a source differs from the contract, each with the reason that stands in its documentation.
#[derive(Clone, Debug, Default)]
pub struct SourceQuirks {
    /// The suite cannot change what it reads.
    pub never_changes: Option<&'static str>,
    /// The suite cannot break off what it reads.
    pub never_truncated: Option<&'static str>,
    /// Its rows come in no order of their own.
    pub unordered: Option<&'static str>,
    /// It cannot be asked to stop at a position.
    pub no_until: Option<&'static str>,
}

type Make = Box<dyn Fn() -> LocalBoxFuture<'static, Box<dyn SourceOrigin>>>;

/// A source, and how to try it.
pub struct SourceUnderTest {
    name: String,
    only: String,
    origin: Make,
    quirks: SourceQuirks,
    secrets: Vec<String>,
}

impl SourceUnderTest {
    /// `origin` makes a fresh origin: `|| async { MyOrigin::new().await }`.
    pub fn new<F, T>(name: &str, origin: impl Fn() -> F + 'static) -> Self
    where
        F: Future<Output = T> + 'static,
        T: SourceOrigin + 'static,
    {
        let origin: Make = Box::new(move || {
            let origin = origin();
            Box::pin(async move { Box::new(origin.await) as Box<dyn SourceOrigin> })
        });
        Self { name: name.to_owned(), only: String::new(), origin, quirks: SourceQuirks::default(), secrets: vec![] }
    }
    /// Runs only the cases whose name contains this text.
    #[must_use]
    pub fn only(mut self, case: &str) -> Self {
        case.clone_into(&mut self.only);
        self
    }
    /// Where it differs.
    #[must_use]
    pub fn quirks(mut self, quirks: SourceQuirks) -> Self {
        self.quirks = quirks;
        self
    }
    /// A text that must never show: a password in its config.
    #[must_use]
    pub fn secret(mut self, secret: &str) -> Self {
        self.secrets.push(secret.to_owned());
        self
    }
}

/// Runs all cases and fails the test if one is broken.
///
/// # Panics
/// With the list of what is broken.
pub async fn source(test: &SourceUnderTest) {
    source_report(test).await.check();
}

/// Runs all cases.
pub async fn source_report(test: &SourceUnderTest) -> Report {
    let mut report = Report::new(&test.name, &test.only);
    let world = async || World { origin: (test.origin)().await, quirks: &test.quirks, secrets: &test.secrets };
    run_cases(&mut report, "", &all(), world).await;
    report
}

/// What a case has.
struct World<'a> {
    origin: Box<dyn SourceOrigin>,
    quirks: &'a SourceQuirks,
    secrets: &'a [String],
}

fn all<'a>() -> Vec<Case<World<'a>>> {
    [cases::cases(), resume::cases()].into_iter().flatten().collect()
}

/// Names and promises of all cases.
pub(super) fn promises() -> Vec<(&'static str, &'static str)> {
    all().into_iter().map(|case| (case.name, case.promise)).collect()
}

/// All that a source gave from `open` to `End`.
#[derive(Default)]
struct Given {
    pieces: Vec<Piece>,
}

impl Given {
    fn lines(&self) -> Vec<String> {
        kept(&self.pieces)
    }
    /// Where a commit may stand, with the number of pieces up to there and what the checkpoint then holds.
    fn boundaries(&self) -> Vec<(usize, Positions)> {
        let mut at = Positions::new();
        let mut out = vec![];
        for (number, piece) in self.pieces.iter().enumerate() {
            let of = at.entry(NAME.into()).or_default();
            match &piece.mark {
                Mark::At(partition, position) => drop(of.insert(partition.clone(), position.clone())),
                Mark::Gone(partition) => drop(of.remove(partition)),
                Mark::Within(_) | Mark::One(_) => continue,
            }
            out.push((number + 1, at.clone()));
        }
        out
    }
}

/// The rows of pieces that are not rejected, as lines.
fn kept(pieces: &[Piece]) -> Vec<String> {
    let of = |piece: &Piece| {
        let rejected: Vec<usize> = piece
            .rejects
            .iter()
            .filter_map(|reject| if let Original::Row(row) = reject.row { Some(row) } else { None })
            .collect();
        let lines = rows::lines(&piece.rows).into_iter().enumerate();
        lines.filter(|(row, _)| !rejected.contains(row)).map(|(_, line)| line).collect::<Vec<_>>()
    };
    pieces.iter().flat_map(of).collect()
}

/// A checkpoint with these positions.
fn checkpoint(run: &Run, epoch: u64, last: bool, at: &Positions) -> Checkpoint {
    Checkpoint { run: run.clone(), epoch, last, keyed_by: None, at: at.clone() }
}

impl World<'_> {
    fn context(&self) -> Context {
        door::context(NAME).0
    }
    async fn plan(&self, run: &Run, resume: &Resume) -> Check<SourcePlan> {
        self.origin.source().plan(&self.context().for_plan(), run, resume).await.during("plan")
    }
    /// Reads from `open` to `End`; whatever came of it, the source is closed.
    async fn read(&self, run: &Run, resume: &Resume) -> Check<Result<Given, Error>> {
        let mut source = self.origin.source();
        let given = async {
            source.open(&self.context(), run, resume).await?;
            to_end(&mut *source).await
        };
        let given = given.await;
        close(&mut *source).await?;
        Ok(given)
    }
    /// The same, and it must succeed.
    async fn read_all(&self, run: &Run, resume: &Resume) -> Check<Given> {
        self.read(run, resume).await?.during("reading")
    }
    async fn lines(&self) -> Vec<String> {
        rows::lines_of(&self.origin.rows().await)
    }
    /// Ends the case unless the lines are these; in this order where there is one.
    fn same(&self, expected: &[String], found: &[String], when: &str) -> Check {
        let difference = rows::difference(expected, found);
        difference.map_or(Ok(()), |difference| broken(format!("{when}: {difference}")))
    }
    /// Leaves the case out if the source is not resumed by positions.
    async fn has_positions(&self) -> Check<Given> {
        let run = run_named("r1");
        let given = self.read_all(&run, &Resume::default()).await?;
        if given.boundaries().is_empty() {
            return Err(Stop::Skip("it has no positions: it is settled one by one".to_owned()));
        }
        Ok(given)
    }
}

async fn to_end(source: &mut dyn Source) -> Result<Given, Error> {
    let mut given = Given::default();
    loop {
        match source.next().await? {
            Next::Piece(piece) => given.pieces.push(*piece),
            Next::Idle => {}
            Next::End => return Ok(given),
        }
    }
}

/// Closes within the time there is.
async fn close(source: &mut dyn Source) -> Check {
    match tokio::time::timeout(CLOSE, source.close()).await {
        Err(_) => broken(format!("close has not ended after {} s", CLOSE.as_secs())),
        Ok(closed) => closed.during("close"),
    }
}

/// Some of many: the first, the last, and up to `most` between them.
fn some<T>(all: &[T], most: usize) -> Vec<&T> {
    let step = (all.len() / most.max(1)).max(1);
    let mut chosen: Vec<&T> = all.iter().step_by(step).collect();
    if all.len() > 1 && !(all.len() - 1).is_multiple_of(step) {
        chosen.extend(all.last());
    }
    chosen
}

/// Ends the case unless it is a conflict that shows no secret.
fn conflict(error: &Error, secrets: &[String]) -> Check {
    super::shows(&error.to_string(), secrets)?;
    ensure(error.kind() == towpath_core::ErrorKind::Conflict, || {
        format!("the error is of kind {}, not conflict: {error}", error.kind().name())
    })
}
