//! The suite for sinks: what is tried, and on what.

use arrow_array::RecordBatch;
use async_trait::async_trait;
use towpath_core::{Checkpoint, Context, Held, Partition, Position, Reject, Run, Sink, WriteMode, Wrote};

use super::{Case, Check, During as _, Report, Stop, broken, door, ensure, run_cases, run_named, types};
use crate::{memory::Key, rows};

mod cases;
mod crashes;
mod modes;

/// How a sink is set up for a case.
#[derive(Clone, Debug)]
pub struct Setup {
    /// How rows meet what is there.
    pub mode: WriteMode,
    /// What tells rows apart: nothing for `append` and `replace`, else the column `id` or the hash of the row.
    pub key: Key,
}

/// One place that sinks write into and the suite reads from: a database of its own, a folder. Each case gets a fresh one.
#[async_trait(?Send)]
pub trait SinkTarget {
    /// A new sink into it, as the config would make it. Called several times: each is a process of its own.
    fn sink(&self, setup: &Setup) -> Box<dyn Sink>;
    /// The committed rows as anybody else reads them, in their order where there is one; columns that the target added by itself
    /// left out. `None`: there is no table.
    async fn rows(&self) -> Option<Vec<RecordBatch>>;
    /// From now on the target refuses a row with this value in the column `name`, as by a constraint; the table may not be there yet
    /// (create it, with `id` and `name`). False: it cannot, which [`SinkQuirks::refuses_nothing`] must then say.
    async fn refuse(&self, setup: &Setup, name: &str) -> bool {
        let _ = (setup, name);
        false
    }
    /// Somebody drops the table. False: cannot be, which [`SinkQuirks::cannot_be_dropped`] must then say.
    async fn drop_table(&self) -> bool {
        false
    }
}

/// Where a sink differs from the contract, each with the reason that stands in its documentation. Cases that do not apply are left
/// out for it and listed.
#[derive(Clone, Debug, Default)]
pub struct SinkQuirks {
    /// The engine holds its checkpoint ([`Held::ByEngine`]); so there is no fence.
    pub by_engine: Option<&'static str>,
    /// A row may be sent twice after a crash: what is written is visible before the commit.
    pub visible_early: Option<&'static str>,
    /// While one sink has rows in hand, no other can be opened: its transaction keeps the others out.
    pub locks: Option<&'static str>,
    /// Takes every row.
    pub refuses_nothing: Option<&'static str>,
    /// Its table cannot be dropped under it.
    pub cannot_be_dropped: Option<&'static str>,
    /// Two components cannot write into one target.
    pub one_owner: Option<&'static str>,
    /// An empty text comes back as null, or null as an empty text.
    pub empty_is_null: Option<&'static str>,
    /// Has no place for an empty table: a run without rows leaves none.
    pub no_empty_table: Option<&'static str>,
    /// Types that come back as something else than they went in.
    pub types: Vec<types::TypeQuirk>,
}

type Make = Box<dyn Fn() -> futures::future::LocalBoxFuture<'static, Box<dyn SinkTarget>>>;

/// A sink, and how to try it.
pub struct SinkUnderTest {
    name: String,
    only: String,
    target: Make,
    setups: Vec<Setup>,
    quirks: SinkQuirks,
    secrets: Vec<String>,
}

impl SinkUnderTest {
    /// `target` makes a fresh target: `|| async { MyTarget::new() }`. All four write modes are tried, those with keys by column
    /// and by row hash; see [`modes`](SinkUnderTest::modes).
    pub fn new<F, T>(name: &str, target: impl Fn() -> F + 'static) -> Self
    where
        F: Future<Output = T> + 'static,
        T: SinkTarget + 'static,
    {
        let make: Make = Box::new(move || {
            let target = target();
            Box::pin(async move { Box::new(target.await) as Box<dyn SinkTarget> })
        });
        let test = Self {
            name: name.to_owned(),
            only: String::new(),
            target: make,
            setups: vec![],
            quirks: SinkQuirks::default(),
            secrets: vec![],
        };
        test.modes(&[WriteMode::Append, WriteMode::InsertNew, WriteMode::Upsert, WriteMode::Replace])
    }
    /// The write modes it has.
    #[must_use]
    pub fn modes(mut self, modes: &[WriteMode]) -> Self {
        let keys = |mode: &WriteMode| match mode {
            WriteMode::Append | WriteMode::Replace => vec![Key::None],
            WriteMode::InsertNew => vec![Key::columns(["id"]), Key::RowHash],
            WriteMode::Upsert => vec![Key::columns(["id"])],
        };
        self.setups =
            modes.iter().flat_map(|mode| keys(mode).into_iter().map(|key| Setup { mode: *mode, key })).collect();
        self
    }
    /// Only these setups.
    #[must_use]
    pub fn setups(mut self, setups: Vec<Setup>) -> Self {
        self.setups = setups;
        self
    }
    /// Runs only the cases whose name contains this text.
    #[must_use]
    pub fn only(mut self, case: &str) -> Self {
        case.clone_into(&mut self.only);
        self
    }
    /// Where it differs.
    #[must_use]
    pub fn quirks(mut self, quirks: SinkQuirks) -> Self {
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
pub async fn sink(test: &SinkUnderTest) {
    sink_report(test).await.check();
}

/// Runs all cases.
pub async fn sink_report(test: &SinkUnderTest) -> Report {
    let mut report = Report::new(&test.name, &test.only);
    for setup in &test.setups {
        let key = if setup.key == Key::RowHash { " by row hash" } else { "" };
        let suffix = format!(" [{}{key}]", setup.mode.name());
        let world =
            async || World { target: (test.target)().await, setup, quirks: &test.quirks, secrets: &test.secrets };
        // The worlds of several setups have one type of case: those that do not apply say so.
        run_cases(&mut report, &suffix, &cases(), world).await;
    }
    if let Some(setup) = test.setups.first() {
        let world =
            async || World { target: (test.target)().await, setup, quirks: &test.quirks, secrets: &test.secrets };
        types::sink_types(&mut report, &test.quirks.types, world).await;
    }
    report
}

/// What a case has.
pub(super) struct World<'a> {
    target: Box<dyn SinkTarget>,
    setup: &'a Setup,
    quirks: &'a SinkQuirks,
    secrets: &'a [String],
}

/// All cases.
fn cases<'a>() -> Vec<Case<World<'a>>> {
    [cases::cases(), modes::cases(), crashes::cases()].into_iter().flatten().collect()
}

/// Names and promises of all cases.
pub(super) fn promises() -> Vec<(&'static str, &'static str)> {
    cases().into_iter().map(|case| (case.name, case.promise)).collect()
}

/// A sink in use, as the engine uses it.
struct Open {
    sink: Box<dyn Sink>,
    held: Held,
    seq: u64,
    keyed_by: Option<String>,
    run: Run,
}

impl World<'_> {
    fn sink(&self) -> Box<dyn Sink> {
        self.target.sink(self.setup)
    }
    fn mode(&self) -> WriteMode {
        self.setup.mode
    }
    /// Leaves the case out unless the mode is one of these.
    fn only(&self, modes: &[WriteMode]) -> Check {
        if modes.contains(&self.mode()) {
            return Ok(());
        }
        Err(Stop::Beside)
    }
    fn context(&self) -> Context {
        door::context("target").0
    }
    /// Opens a sink for a run; the target's own component.
    async fn open(&self, run: &str) -> Check<Open> {
        self.open_as(&self.context(), run).await
    }
    async fn open_as(&self, ctx: &Context, run: &str) -> Check<Open> {
        let (mut sink, run) = (self.sink(), run_named(run));
        let held = sink.open(ctx, &run).await.during("open")?;
        Ok(Open { sink, held, seq: 0, keyed_by: None, run })
    }
    /// A whole run of these epochs.
    async fn run(&self, run: &str, first: u64, epochs: &[RecordBatch]) -> Check<()> {
        let mut open = self.open(run).await?;
        for (number, rows) in epochs.iter().enumerate() {
            open.write(rows).await?;
            open.commit(first + number as u64, number + 1 == epochs.len()).await?;
        }
        open.close().await
    }
    /// The committed rows as lines; none if there is no table.
    async fn lines(&self) -> Vec<String> {
        rows::lines_of(&self.target.rows().await.unwrap_or_default())
    }
    /// Lines without what the target cannot tell apart.
    fn told(&self, lines: Vec<String>) -> Vec<String> {
        if self.quirks.empty_is_null.is_none() {
            return lines;
        }
        lines.into_iter().map(|line| line.replace(" name=\"\"", "").replace(" note=\"\"", "")).collect()
    }
    /// Ends the case unless exactly these rows are there, in any order.
    async fn holds(&self, expected: &[RecordBatch], when: &str) -> Check {
        let difference = rows::difference(&self.told(rows::lines_of(expected)), &self.told(self.lines().await));
        difference.map_or(Ok(()), |difference| broken(format!("{when}: {difference}")))
    }
    pub(super) fn empty_is_null(&self) -> bool {
        self.quirks.empty_is_null.is_some()
    }
    /// The committed rows.
    pub(super) async fn rows(&self) -> Vec<RecordBatch> {
        self.target.rows().await.unwrap_or_default()
    }
    /// A run of one batch: its rejects, or the error that refused it.
    pub(super) async fn try_once(&self, batch: &RecordBatch) -> Check<towpath_core::Result<Vec<Reject>>> {
        let mut open = self.open("r1").await?;
        let done = async {
            open.keyed_by = open.sink.schema(&batch.schema()).await?;
            let mut rejects = open.sink.write(0, batch.clone()).await?.rejected;
            rejects.extend(open.sink.flush().await?.rejected);
            open.sink.commit(&open.checkpoint(1, true)).await?;
            Ok(rejects)
        };
        let done = done.await;
        open.close().await?;
        Ok(done)
    }
    /// The checkpoint that a new sink finds.
    async fn found(&self, run: &str) -> Check<Option<Checkpoint>> {
        let open = self.open(run).await?;
        let held = open.held.clone();
        open.close().await?;
        match held {
            Held::Here(checkpoint) => Ok(checkpoint),
            Held::ByEngine => Err(Stop::Skip("the engine holds its checkpoint".to_owned())),
        }
    }
}

/// A checkpoint of an epoch.
fn checkpoint(run: &Run, epoch: u64, last: bool, keyed_by: Option<&str>) -> Checkpoint {
    // Quotes, because positions are the source's own words.
    let (partition, position) = (Partition::new("file \"one\"'s"), Position::new(format!("record {epoch}")));
    let at = [("source".into(), [(partition, position)].into())].into();
    Checkpoint { run: run.clone(), epoch, last, keyed_by: keyed_by.map(Into::into), at }
}

impl Open {
    fn checkpoint(&self, epoch: u64, last: bool) -> Checkpoint {
        checkpoint(&self.run, epoch, last, self.keyed_by.as_deref())
    }
    /// Announces the schema and writes.
    async fn write(&mut self, rows: &RecordBatch) -> Check<Wrote> {
        self.keyed_by = self.sink.schema(&rows.schema()).await.during("schema")?;
        self.write_on(rows).await
    }
    async fn write_on(&mut self, rows: &RecordBatch) -> Check<Wrote> {
        self.seq += 1;
        self.sink.write(self.seq - 1, rows.clone()).await.during("write")
    }
    /// Flushes and commits.
    async fn commit(&mut self, epoch: u64, last: bool) -> Check<Wrote> {
        let late = self.sink.flush().await.during("flush")?;
        self.sink.commit(&self.checkpoint(epoch, last)).await.during("commit")?;
        Ok(late)
    }
    async fn close(mut self) -> Check {
        self.sink.close().await.during("close")
    }
}

/// All of a write and what came later, added up.
fn sum(wrote: &[Wrote]) -> (u64, u64, u64) {
    wrote.iter().fold((0, 0, 0), |(written, known, rejected), wrote| {
        (written + wrote.written, known + wrote.known, rejected + wrote.rejected.len() as u64)
    })
}

/// Ends the case unless the counts are these.
fn counted(wrote: &[Wrote], written: u64, known: u64, rejected: u64) -> Check {
    let found = sum(wrote);
    ensure(found == (written, known, rejected), || {
        let (w, k, r) = found;
        format!("{w} written, {k} known, {r} rejected are counted, where {written}, {known}, {rejected} would be right")
    })
}
