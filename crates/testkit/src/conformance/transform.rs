//! The suite for transforms: what is tried, and on what.

use std::collections::BTreeSet;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use async_trait::async_trait;
use towpath_core::{Context, Error, Known, Name, Original, Output, Reject, Result, Transform, TransformPlan};

use super::{Check, During as _, Report, broken, door, ensure, run_cases};
use crate::rows;

mod cases;

/// Where a transform differs from the contract, each with the reason that stands in its documentation.
#[derive(Clone, Debug, Default)]
pub struct TransformQuirks {
    /// Where one batch ends and the next begins makes a difference.
    pub sees_batches: Option<&'static str>,
    /// Its rows come in no order of their own.
    pub unordered: Option<&'static str>,
}

/// A transform, and how to try it.
pub struct TransformUnderTest {
    name: String,
    only: String,
    make: Box<dyn Fn() -> Box<dyn Transform>>,
    inputs: Vec<(Name, RecordBatch)>,
    expect: Option<RecordBatch>,
    needs: Vec<(Name, String)>,
    quirks: TransformQuirks,
}

impl TransformUnderTest {
    /// `make` makes a new instance, as the config would. Add at least one [`input`](TransformUnderTest::input).
    pub fn new(name: &str, make: impl Fn() -> Box<dyn Transform> + 'static) -> Self {
        Self {
            name: name.to_owned(),
            only: String::new(),
            make: Box::new(make),
            inputs: vec![],
            expect: None,
            needs: vec![],
            quirks: TransformQuirks::default(),
        }
    }
    /// Rows of an input, the way they come: some tens, among them nulls, repeated rows, and rows that are refused.
    #[must_use]
    pub fn input(mut self, name: &str, rows: RecordBatch) -> Self {
        self.inputs.push((name.into(), rows));
        self
    }
    /// What must come out of it.
    #[must_use]
    pub fn expect(mut self, rows: RecordBatch) -> Self {
        self.expect = Some(rows);
        self
    }
    /// It cannot do without this column of this input.
    #[must_use]
    pub fn needs(mut self, input: &str, column: &str) -> Self {
        self.needs.push((input.into(), column.to_owned()));
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
    pub fn quirks(mut self, quirks: TransformQuirks) -> Self {
        self.quirks = quirks;
        self
    }
}

/// Runs all cases and fails the test if one is broken.
///
/// # Panics
/// With the list of what is broken.
pub async fn transform(test: &TransformUnderTest) {
    transform_report(test).await.check();
}

/// Runs all cases.
pub async fn transform_report(test: &TransformUnderTest) -> Report {
    let mut report = Report::new(&test.name, &test.only);
    run_cases(&mut report, "", &cases::cases(), async || World { test }).await;
    report
}

/// What a case has.
struct World<'a> {
    test: &'a TransformUnderTest,
}

/// Names and promises of all cases.
pub(super) fn promises() -> Vec<(&'static str, &'static str)> {
    cases::cases().into_iter().map(|case| (case.name, case.promise)).collect()
}

/// Keeps what comes out.
#[derive(Default)]
struct Kept {
    batches: Vec<RecordBatch>,
    rejects: Vec<Reject>,
    /// Answers an error from so manieth batch on.
    fails_at: Option<usize>,
    /// Waits before it takes a batch, as a full channel does.
    waits: bool,
}

#[async_trait]
impl Output for Kept {
    async fn rows(&mut self, rows: RecordBatch) -> Result<()> {
        if self.waits {
            tokio::task::yield_now().await;
        }
        if self.fails_at.is_some_and(|at| self.batches.len() >= at) {
            return Err(Error::cancelled().at("the stage behind"));
        }
        self.batches.push(rows);
        Ok(())
    }
    fn reject(&mut self, reject: Reject) {
        self.rejects.push(reject);
    }
}

/// All that came out of a run over a transform.
#[derive(Default)]
struct Came {
    /// Of `apply`.
    rows: Vec<RecordBatch>,
    /// Of `finish`.
    late: Vec<RecordBatch>,
    /// Lines of the rows refused.
    refused: Vec<String>,
}

impl Came {
    fn lines(&self) -> Vec<String> {
        rows::lines_of(self.rows.iter().chain(&self.late))
    }
}

impl World<'_> {
    fn make(&self) -> Box<dyn Transform> {
        (self.test.make)()
    }
    fn context(&self) -> Context {
        door::context("transform").0
    }
    /// The inputs' schemas.
    fn known(&self) -> Vec<(Name, Known)> {
        let mut seen = BTreeSet::new();
        let inputs = self.test.inputs.iter().filter(|(name, _)| seen.insert(name.clone()));
        inputs.map(|(name, rows)| (name.clone(), Known::Now(rows.schema()))).collect()
    }
    fn plan(&self) -> Check<TransformPlan> {
        self.make().plan(&self.known()).during("plan")
    }
    /// Gives these batches to instances in turn, then ends the inputs.
    async fn run(&self, instances: usize, batches: &[(Name, RecordBatch)]) -> Check<Came> {
        let ctx = self.context();
        let mut workers: Vec<Box<dyn Transform>> = vec![];
        for _ in 0..instances {
            let worker = self.make();
            worker.plan(&self.known()).during("plan")?;
            workers.push(worker);
        }
        let mut came = Came::default();
        for (number, (name, batch)) in batches.iter().enumerate() {
            let mut out = Kept::default();
            let worker = number % instances;
            workers[worker].apply(&ctx, name, batch.clone(), &mut out).await.during("apply")?;
            came.refused.extend(refused(&out.rejects, batch)?);
            came.rows.extend(out.batches);
        }
        for mut worker in workers {
            let mut out = Kept::default();
            worker.finish(&ctx, &mut out).await.during("finish")?;
            let none = RecordBatch::new_empty(rows::schema());
            came.refused.extend(refused(&out.rejects, &none)?);
            came.late.extend(out.batches);
        }
        Ok(came)
    }
    /// Ends the case unless both gave the same, in the same order where there is one.
    fn same(&self, expected: &Came, found: &Came, holds: bool, when: &str) -> Check {
        let (a, b) = (expected.lines(), found.lines());
        let ordered = self.test.quirks.unordered.is_none() && !holds;
        let difference = if ordered { rows::difference_in_order(&a, &b) } else { rows::difference(&a, &b) };
        let refused = rows::difference(&expected.refused, &found.refused);
        match difference.or(refused.map(|refused| format!("of the rejects: {refused}"))) {
            None => Ok(()),
            Some(difference) => broken(format!("{when}: {difference}")),
        }
    }
}

/// The lines of refused rows.
fn refused(rejects: &[Reject], batch: &RecordBatch) -> Check<Vec<String>> {
    let lines = rows::lines(batch);
    let mut out = vec![];
    for reject in rejects {
        ensure(!reject.reason.is_empty(), || "a reject without a reason".to_owned())?;
        match &reject.row {
            Original::Row(row) => match lines.get(*row) {
                Some(line) => out.push(line.clone()),
                None => return broken(format!("a reject of row {row}, where {} are in hand", lines.len())),
            },
            Original::Late(row) => out.extend(rows::lines(row)),
            Original::Bytes(_) => return broken("a transform was given rows, and refuses bytes"),
        }
    }
    Ok(out)
}

/// A schema without one of its columns.
fn without(schema: &SchemaRef, column: &str) -> SchemaRef {
    let fields: Vec<_> = schema.fields().iter().filter(|field| field.name() != column).cloned().collect();
    std::sync::Arc::new(arrow_schema::Schema::new(fields))
}
