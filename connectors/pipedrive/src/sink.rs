//! The sink: rows are compared with what the account holds, and only differences are sent.
//!
//! The engine keeps the checkpoint. Every write is harmless to repeat, because each run lists what exists before it compares: what a run that
//! died has written is equal for the next one.

use std::{
    collections::{BTreeMap, HashSet, btree_map::Entry},
    fmt,
    sync::{Arc, Mutex},
};

use arrow_array::{RecordBatch, UInt64Array};
use arrow_schema::SchemaRef;
use async_trait::async_trait;
use futures::{StreamExt as _, stream::FuturesUnordered};
use towpath_core::{
    Action, Change, Checkpoint, Complete, Context, Error, Held, Known, Name, Original, Reject, Result, Run, Sink,
    SinkPlan, WriteMode, Wrote, sink::Guarantee,
};

use crate::{
    cells,
    client::Crm,
    config::{OnMissing, SinkOptions, Source},
    existing::{Existing, Link},
    index::{Repeated, Seen, Slot, State},
    rows::{Job, Planner, Twin, Work},
    send::{Came, Sender},
    shape::{Ask, Shape},
};

mod lost;

/// So many creates of unknown outcome are looked for at once, before more are sent.
const LOST_AT_MOST: usize = 256;
/// So many records are named that are too many to be closed or deleted.
const MISSING_NAMED: usize = 10;
/// So many duplicates are named; the rest are counted.
const TWINS_NAMED: u64 = 1000;

/// Keeps records of an account equal to rows.
pub struct PipedriveSink {
    options: Arc<SinkOptions>,
    open: Option<Open>,
}

struct Open {
    crm: Crm,
    options: Arc<SinkOptions>,
    existing: Arc<Existing>,
    /// What links look up, by link.
    linked: Vec<Link>,
    /// Creates of which nobody knows what came.
    lost: Vec<lost::Lost>,
    /// Rows that this sink has refused.
    refused: u64,
    /// Rows with a key.
    keyed: u64,
    /// Duplicates named so far.
    twins: u64,
    said: Mutex<HashSet<usize>>,
    /// What ended a call that had written something before: it is given to the next one.
    stopped: Option<Error>,
}

impl PipedriveSink {
    /// From its options.
    ///
    /// # Errors
    /// Config.
    pub fn new(options: SinkOptions) -> Result<Self> {
        options.check()?;
        Ok(Self { options: Arc::new(options), open: None })
    }
    /// As the registration wants it.
    ///
    /// # Errors
    /// Config.
    pub fn build(_: &Name, options: SinkOptions) -> Result<Box<dyn Sink>> {
        Ok(Box::new(Self::new(options)?))
    }

    fn opened(&mut self) -> Result<&mut Open> {
        self.open.as_mut().ok_or_else(|| Error::internal("the sink is not open"))
    }

    /// The columns that the config names.
    fn check_columns(&self, schema: &SchemaRef) -> Result<()> {
        for (name, from) in &self.options.fields {
            let (value, currency) = from.parts().map_err(Error::config)?;
            cells::check(&value, schema, &format!("fields.{name}"))?;
            if let Some(currency) = currency {
                cells::check(&currency, schema, &format!("fields.{name}.currency"))?;
            }
        }
        for (name, link) in &self.options.link {
            cells::check(&Source::Column(link.from.clone()), schema, &format!("link.{name}.from"))?;
        }
        Ok(())
    }

    /// What a reader of the plan should know, as far as cheap calls tell it.
    async fn notes(&self, crm: &Crm) -> Result<Vec<String>> {
        let options = &self.options;
        let shape = Shape::find(crm, &Ask::of_sink(options)).await?;
        // A link is looked up when the records it is for are written, which may be long after others were.
        let mut definitions = BTreeMap::new();
        for (name, link) in &options.link {
            let known = match definitions.entry(link.entity) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(vacant) => vacant.insert(crm.definitions(link.entity).await?),
            };
            Shape::from_definitions(crm.account(), known, &Ask::of_link(name, link))?;
        }
        let key = &shape.mapped[shape.key].field;
        let mut notes = vec![format!("{} are matched on {} ({})", options.entity, options.match_on, key.code)];
        notes.push(format!(
            "what exists is listed once, 10 tokens for {} records; a create or an update is 5 tokens",
            crm.page_size()
        ));
        match options.on_missing {
            OnMissing::Keep => {}
            OnMissing::Close => {
                notes.push(format!("deals without a row are set to lost, at most {} of them", options.max_deletes))
            }
            OnMissing::Delete => {
                notes.push(format!(
                    "{} without a row are deleted, at most {} of them",
                    options.entity, options.max_deletes
                ));
            }
        }
        let budget = crm.purse().budget();
        let state = crm.ctx().budget(&budget)?;
        if let (Some(day), Some(left)) = (&budget.day, state.left_today) {
            notes.push(format!(
                "{left} tokens are left of this day's {} ({} of the company's {})",
                day.ours(),
                day.share,
                day.tokens
            ));
        }
        Ok(notes)
    }
}

#[async_trait]
impl Sink for PipedriveSink {
    fn keyed_in_words(&self, keyed_by: &str) -> String {
        let shape = self.open.as_ref().and_then(|open| open.existing.shape_found());
        shape.map_or_else(|| keyed_by.to_owned(), |shape| shape.keyed_in_words(keyed_by))
    }

    fn key_columns(&self) -> Option<Vec<String>> {
        match self.options.fields.get(&self.options.match_on)?.parts().ok()? {
            (Source::Column(column), _) => Some(vec![column]),
            (Source::Fixed(_), _) => None,
        }
    }

    async fn plan(&mut self, ctx: &Context, schema: &Known) -> Result<SinkPlan> {
        if let Some(schema) = schema.schema() {
            self.check_columns(schema)?;
        }
        let crm = Crm::new(&self.options.account, &self.options.http, ctx)?;
        let options = &self.options;
        let notes = if ctx.starting() {
            vec![]
        } else {
            match self.notes(&crm).await {
                Ok(notes) => notes,
                Err(error) if error.kind() == towpath_core::ErrorKind::Config => return Err(error),
                Err(error) => {
                    let hint = error.what_to_do().map(|hint| format!("; {hint}")).unwrap_or_default();
                    let note = format!("what the account holds is not known: {error}{hint}");
                    // Whoever asks for the plan decides what that is worth.
                    let _ = ctx.would_end(error);
                    vec![note]
                }
            }
        };
        let mode = if options.update { WriteMode::Upsert } else { WriteMode::InsertNew };
        Ok(SinkPlan {
            mode,
            guarantee: Guarantee::AtLeastOnceKeyed,
            early_publish: false,
            identity: format!("{} {} by {}", crm.account(), options.entity, options.match_on),
            notes,
        })
    }

    async fn open(&mut self, ctx: &Context, run: &Run) -> Result<Held> {
        let options = Arc::clone(&self.options);
        // No call is made: a run in which nothing has changed ends without one.
        let crm = Crm::new(&options.account, &options.http, ctx)?;
        let existing = Existing::of_sink(crm.clone(), Ask::of_sink(&options), run);
        let later = |(name, link): (&String, _)| Existing::of_link_later(&crm, Ask::of_link(name, link), run);
        let linked = options.link.iter().map(later).collect();
        let said = Mutex::default();
        self.open = Some(Open {
            options,
            existing,
            linked,
            lost: vec![],
            refused: 0,
            keyed: 0,
            twins: 0,
            said,
            crm,
            stopped: None,
        });
        Ok(Held::ByEngine)
    }

    async fn schema(&mut self, schema: &SchemaRef) -> Result<Option<String>> {
        self.check_columns(schema)?;
        let open = self.opened()?;
        Ok(Some(open.existing.shape().await?.keyed_by.clone()))
    }

    async fn write(&mut self, seq: u64, rows: RecordBatch) -> Result<Wrote> {
        let open = self.opened()?;
        open.go_on()?;
        let mut wrote = Wrote::default();
        let came = open.write(seq, &rows, &mut wrote).await;
        open.came(came, wrote)
    }

    async fn complete(&mut self, input: Complete) -> Result<Wrote> {
        let open = self.opened()?;
        open.go_on()?;
        let mut wrote = Wrote::default();
        let came = open.complete(input, &mut wrote).await;
        open.came(came, wrote)
    }

    async fn flush(&mut self) -> Result<Wrote> {
        let open = self.opened()?;
        open.go_on()?;
        let mut wrote = Wrote::default();
        // Its error is never put off: a commit is what comes next.
        open.find_lost(&mut wrote).await.map(|()| wrote)
    }

    async fn commit(&mut self, _: &Checkpoint) -> Result<()> {
        // What was written is there already; the engine keeps the checkpoint.
        self.opened()?.go_on()
    }

    async fn close(&mut self) -> Result<()> {
        self.open = None;
        Ok(())
    }
}

impl Open {
    /// The error that was put off, if there is one.
    fn go_on(&mut self) -> Result<()> {
        self.stopped.take().map_or(Ok(()), Err)
    }

    /// What came of a call. What it wrote before it failed is there for good, and has to be counted: then its error is put off until the next
    /// call, whichever that is. Nothing can be committed over it, because the engine flushes before each commit.
    fn came(&mut self, came: Result<()>, wrote: Wrote) -> Result<Wrote> {
        self.refused += wrote.rejected.len() as u64;
        match came {
            Err(error) if wrote.written + wrote.removed > 0 => self.stopped = Some(error),
            Err(error) => return Err(error),
            Ok(()) => {}
        }
        Ok(wrote)
    }

    async fn write(&mut self, seq: u64, rows: &RecordBatch, wrote: &mut Wrote) -> Result<()> {
        if !self.lost.is_empty() {
            // A row of this batch may have the key of one that is looked for; and nothing is compared with what is not known.
            self.find_lost(wrote).await?;
        }
        let existing = Arc::clone(&self.existing);
        let (shape, index) = (existing.shape().await?, existing.index().await?);
        let linked: Vec<_> = self.linked.iter().map(Link::found).collect();
        let mut lookups = Vec::with_capacity(linked.len());
        for linked in &linked {
            linked.index().await?;
            lookups.push((Arc::clone(linked), linked.shape().await?));
        }
        let options = Arc::clone(&self.options);
        let batch = u32::try_from(seq).unwrap_or(u32::MAX);
        let planner = Planner { options: &options, shape, index, linked: &lookups, batch };
        let plain = cells::plain(rows)?;
        let mut planned = planner.plan(&plain)?;
        let creates = planned.jobs.iter().any(|job| matches!(job.work, Work::Create));
        if creates && !crate::existing::lock(index).gaps.is_empty() && existing.close_gaps().await? {
            planned = planner.plan(&plain)?;
        }
        self.keyed += planned.keyed;
        self.report(&planned.twins)?;
        self.crm.ctx().equal(planned.equal + planned.left_out);
        wrote.known += planned.equal + planned.left_out;
        wrote.rejected.extend(planned.rejected);
        self.send(shape, planned.jobs, rows, wrote).await?;
        if self.lost.len() > LOST_AT_MOST {
            self.find_lost(wrote).await?;
        }
        Ok(())
    }

    /// Sends writes, several at once. After one that stops the run no further one is sent, but the ends of those under way are heard.
    async fn send(&mut self, shape: &Shape, jobs: Vec<Job>, rows: &RecordBatch, wrote: &mut Wrote) -> Result<()> {
        let sender = self.sender(shape);
        let (mut waiting, mut under_way) = (jobs.into_iter(), FuturesUnordered::new());
        let mut stopped = None;
        let mut lost = vec![];
        loop {
            while stopped.is_none()
                && under_way.len() < self.options.workers.get() as usize
                && let Some(job) = waiting.next()
            {
                let sender = &sender;
                under_way.push(async move {
                    let came = sender.send(&job).await;
                    (job, came)
                });
            }
            let Some((job, came)) = under_way.next().await else { break };
            match came {
                Ok(Came::Done) => wrote.written += 1,
                Ok(Came::Refused(refused)) => wrote.rejected.push(Reject::row(job.row, refused.to_string())),
                Ok(Came::Lost { after }) => lost.push(lost::Lost { row: one_row(rows, job.row)?, job, after }),
                Err(error) => stopped = stopped.or(Some(error)),
            }
        }
        drop(under_way);
        self.lost.extend(lost);
        stopped.map_or(Ok(()), Err)
    }

    fn sender<'a>(&'a self, shape: &'a Shape) -> Sender<'a> {
        let Self { options, existing, linked, said, .. } = self;
        Sender { options, shape, existing, linked, said }
    }

    fn report(&mut self, twins: &[Twin]) -> Result<()> {
        for Twin { key, id, note } in twins {
            self.twins += 1;
            let change = Change {
                action: Action::Duplicate,
                entity: self.options.entity.path().to_owned(),
                key: key.clone(),
                id: Some(id.to_string()),
                fields: vec![],
                calls: 0,
                tokens: 0,
                note: Some(note.clone()),
            };
            // It is reported and not sent, so there is nothing to withhold.
            let _ = self.crm.ctx().propose(&change)?;
            if self.twins <= TWINS_NAMED {
                tracing::info!("{} {id} {note} ({key})", self.options.entity.one());
            }
        }
        Ok(())
    }

    /// Rows of one key are a mistake of the input more often than not.
    fn tell_repeated(&self) {
        let Some((seen, Repeated { keys, examples })) =
            self.existing.listed().map(|index| (index.seen(), index.repeated.clone())).filter(|(_, all)| all.keys > 0)
        else {
            return;
        };
        let (SinkOptions { entity, match_on, .. }, rows) = (&*self.options, self.keyed.saturating_sub(seen));
        let more = if keys > examples.len() as u64 { ", …" } else { "" };
        tracing::warn!(
            "{entity}: {rows} rows have given way to later ones of the same {match_on}, with {keys} keys such as {}{more}; make them one in the \
             query, or those that are far apart are written in every run",
            examples.join(", ")
        );
    }

    /// What no row stands for is closed or deleted, if that can be known.
    async fn complete(&mut self, input: Complete, wrote: &mut Wrote) -> Result<()> {
        // Sooner than the flush has to, which cannot put its error off.
        self.find_lost(wrote).await?;
        self.tell_repeated();
        let action = match self.options.on_missing {
            OnMissing::Keep => return Ok(()),
            OnMissing::Close => Action::Close,
            OnMissing::Delete => Action::Delete,
        };
        let refused = input.refused + self.refused + wrote.rejected.len() as u64;
        if !input.whole || refused > 0 {
            let why = if input.whole {
                format!("{refused} rows were refused")
            } else {
                "not all rows were read in this run (`towpath run --full` reads them)".to_owned()
            };
            tracing::warn!("{why}: nothing is closed or deleted");
            return Ok(());
        }
        let existing = Arc::clone(&self.existing);
        let shape = existing.shape().await?;
        let (mut missing, total) = {
            let index = crate::existing::lock(existing.index().await?);
            let unseen = |(key, slot): (&str, &Slot)| -> Vec<(u64, String)> {
                let ends = |state: State| state == State::Live || action == Action::Delete && state == State::Closed;
                let records = slot.records.all().iter().filter(|record| slot.seen == Seen::Never && ends(record.state));
                records.map(|record| (record.id, key.to_owned())).collect()
            };
            (index.iter().flat_map(unseen).collect::<Vec<_>>(), index.keyed())
        };
        let most = (total as f64 * self.options.max_deletes.0).floor() as usize;
        // In a plan and in a run the same order.
        missing.sort_unstable();
        let too_many = missing.len() > most;
        if too_many {
            let named = missing.iter().take(MISSING_NAMED).map(|(id, key)| format!("{key} (id {id})"));
            let named = named.collect::<Vec<_>>().join(", ");
            let more = if missing.len() > MISSING_NAMED { ", …" } else { "" };
            let entity = self.options.entity;
            let what = format!(
                "no row stands for {} of {total} {entity}, and max_deletes ({}) lets {most} be closed or deleted: {named}{more}",
                missing.len(),
                self.options.max_deletes
            );
            // Where only differences are asked for, all of them are shown, these among them.
            self.crm.ctx().would_end(Error::conflict(what).hint(
                "look whether the input is complete; if it is, raise max_deletes for one run; `plan --diff --out` lists them all. None was closed or deleted",
            ))?;
        }
        let sender = self.sender(shape);
        let mut refused = vec![];
        for (id, key) in missing {
            match sender.end(&key, id, action).await? {
                Came::Refused(why) => refused.push(format!("{id}: {why}")),
                // A run ends here, and they stay: whom links lead to is still there.
                Came::Done | Came::Lost { .. } if too_many => {}
                Came::Done | Came::Lost { .. } => {
                    wrote.removed += 1;
                    if let Some(mut index) = self.existing.listed() {
                        index.remove(&key, id);
                    }
                }
            }
        }
        match refused.first() {
            None => Ok(()),
            // There is no row that could be refused for it.
            Some(first) => {
                Err(Error::data(format!("{} records could not be closed or deleted, such as {first}", refused.len())))
            }
        }
    }
}

/// A batch of one row, that keeps nothing else in memory.
fn one_row(rows: &RecordBatch, row: usize) -> Result<RecordBatch> {
    arrow_select::take::take_record_batch(rows, &UInt64Array::from(vec![row as u64]))
        .map_err(|error| Error::internal("a row cannot be taken out of its batch").because(error))
}

/// A row that is refused after the call that brought it.
fn late(row: RecordBatch, reason: String) -> Reject {
    Reject { row: Original::Late(row), ..Reject::row(0, reason) }
}

/// Records by key.
type ByKey<T> = BTreeMap<String, Vec<T>>;

impl fmt::Debug for PipedriveSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PipedriveSink({} by {})", self.options.entity, self.options.match_on)
    }
}
