//! Sends one write, and says what came of it.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde_json::Value;
use towpath_core::{Action, Change, Effect, Error, ErrorKind, Result, Retry, Verdict};
use towpath_http::Method;

use crate::{
    answers::Refused,
    budget::{DELETE, WRITE},
    client::Answer,
    compare::{self, Desired},
    config::SinkOptions,
    existing::{Existing, Link},
    index::{Record, State},
    page,
    rows::{self, Job, Work},
    shape::Shape,
    value,
};

/// A pause longer than this is not one of the burst window.
const WINDOW: Duration = Duration::from_secs(60);
/// So often a create is sent that was refused for coming too soon: then somebody else takes all there is.
const BURSTS: u32 = 5;

/// What came of a write.
#[derive(Debug)]
pub enum Came {
    /// It was done, or it would have been.
    Done,
    /// The vendor refused it.
    Refused(Refused),
    /// It may have been done or not: the record, if there is one, has an id above this.
    Lost {
        /// The highest id that was known when it was sent.
        after: u64,
    },
}

/// Sends writes of one sink.
pub struct Sender<'a> {
    /// The config.
    pub options: &'a SinkOptions,
    /// What it asks, found in the account.
    pub shape: &'a Shape,
    /// What exists.
    pub existing: &'a Existing,
    /// What links look up, by link.
    pub linked: &'a [Link],
    /// Fields of which it was said already that they come back otherwise.
    pub said: &'a Mutex<HashSet<usize>>,
}

impl Sender<'_> {
    /// Sends what a row needs.
    ///
    /// # Errors
    /// What stops the run: of the calls, of the plan that the run is bound to.
    pub async fn send(&self, job: &Job) -> Result<Came> {
        match &job.work {
            Work::Create => self.create(job).await,
            Work::Update { id, changes, body } => {
                let path = format!("{}/{id}", self.options.entity);
                let linked = |link: usize, id| self.linked.get(link)?.found().shown(id, None);
                let change = Change {
                    id: Some(id.to_string()),
                    fields: compare::shown(&self.shape.mapped, &job.desired, changes, linked),
                    ..self.change(Action::Update, &job.key, WRITE)
                };
                if self.existing.crm.ctx().propose(&change)? == Verdict::Withheld {
                    // What others have left as they set it stays so.
                    let kept = self.after_update(job, *id, changes);
                    rows::note(self.existing, &job.key, *id, &kept, None);
                    return Ok(Came::Done);
                }
                let what = format!("change {} {id}", self.options.entity.one());
                let crm = &self.existing.crm;
                match crm.write(what, Method::PATCH, &path, Some(body), Effect::Idempotent, WRITE).await? {
                    Answer::Done(answer) => {
                        let sent: Vec<usize> = changes.iter().map(|(at, _)| *at).collect();
                        let more = self.echoed(&answer, &job.desired, &sent).and_then(|record| record.more);
                        let kept = self.after_update(job, *id, changes);
                        rows::note(self.existing, &job.key, *id, &kept, more);
                        Ok(Came::Done)
                    }
                    // Somebody has deleted it since it was listed.
                    Answer::Refused(refused) if matches!(refused.status, 404 | 410) => {
                        if let Some(mut index) = self.existing.listed() {
                            index.remove(&job.key, *id);
                        }
                        if self.options.create { self.create(job).await } else { Ok(Came::Done) }
                    }
                    Answer::Refused(refused) => Ok(Came::Refused(refused)),
                }
            }
        }
    }

    /// What a record's values are after an update: what was asked for where that was sent, and what is there where it was not.
    fn after_update(&self, job: &Job, id: u64, changes: &[(usize, Value)]) -> Desired {
        let there = self.existing.listed().and_then(|index| {
            let record = index.get(&job.key).iter().find(|record| record.id == id)?;
            Some(compare::from_text(&record.values))
        });
        let mut values = there.unwrap_or_else(|| job.desired.values.clone());
        for (at, _) in changes {
            values[*at] = job.desired.values[*at].clone();
        }
        Desired::new(values, job.desired.linked.clone())
    }

    async fn create(&self, job: &Job) -> Result<Came> {
        let crm = &self.existing.crm;
        let entity = self.options.entity;
        let fields = compare::shown_new(&self.shape.mapped, &job.desired);
        let change = Change { fields, ..self.change(Action::Create, &job.key, WRITE) };
        if crm.ctx().propose(&change)? == Verdict::Withheld {
            rows::note(self.existing, &job.key, 0, &job.desired, None);
            return Ok(Came::Done);
        }
        let mut body = compare::create_body(&self.shape.mapped, &job.desired);
        body.extend(self.shape.extras.clone());
        let what = format!("make a {}", entity.one());
        for attempt in 1.. {
            let after = rows::highest(self.existing).await?;
            let sent = crm.write(what.clone(), Method::POST, entity.path(), Some(&body), Effect::Once, WRITE).await;
            match sent {
                Ok(Answer::Done(answer)) => {
                    let every: Vec<usize> = (0..self.shape.mapped.len()).collect();
                    let Some(record) = self.echoed(&answer, &job.desired, &every) else {
                        // It was made, and what is said of it is not understood.
                        return Ok(Came::Lost { after });
                    };
                    rows::note(self.existing, &job.key, record.id, &job.desired, record.more);
                    return Ok(Came::Done);
                }
                Ok(Answer::Refused(refused)) => return Ok(Came::Refused(refused)),
                Err(error) if error.is_outcome_unknown() => {
                    tracing::warn!("{error}; it will be looked for before it is sent again");
                    return Ok(Came::Lost { after });
                }
                // It was not taken, and so not done.
                Err(error) if attempt < BURSTS && came_too_soon(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::internal("no create was sent"))
    }

    /// Closes or deletes a record that no row stands for any more.
    ///
    /// # Errors
    /// What stops the run.
    pub async fn end(&self, key: &str, id: u64, action: Action) -> Result<Came> {
        let entity = self.options.entity;
        let (method, tokens, word) = match action {
            Action::Close => (Method::PATCH, WRITE, "close"),
            _ => (Method::DELETE, DELETE, "delete"),
        };
        let change = Change { id: Some(id.to_string()), ..self.change(action, key, tokens) };
        let crm = &self.existing.crm;
        if crm.ctx().propose(&change)? == Verdict::Withheld {
            return Ok(Came::Done);
        }
        let lost =
            (action == Action::Close).then(|| [("status".to_owned(), Value::from("lost"))].into_iter().collect());
        let (what, path) = (format!("{word} {} {id}", entity.one()), format!("{entity}/{id}"));
        match crm.write(what, method, &path, lost.as_ref(), Effect::Idempotent, tokens).await? {
            Answer::Done(_) => Ok(Came::Done),
            // Gone is what was asked for.
            Answer::Refused(refused) if matches!(refused.status, 404 | 410) => Ok(Came::Done),
            Answer::Refused(refused) => Ok(Came::Refused(refused)),
        }
    }

    fn change(&self, action: Action, key: &str, tokens: u32) -> Change {
        Change {
            action,
            entity: self.options.entity.path().to_owned(),
            key: key.to_owned(),
            id: None,
            fields: vec![],
            calls: 1,
            tokens,
            note: None,
        }
    }

    /// The record as the server echoes it. A field that comes back otherwise than it was sent is said once: it would be sent in every run.
    fn echoed(&self, answer: &[u8], desired: &Desired, sent: &[usize]) -> Option<Record> {
        let listed = page::read_one(answer, &self.shape.wanted).ok().filter(|listed| listed.id > 0)?;
        for at in sent {
            let mapped = &self.shape.mapped[*at];
            let echoed = value::from_server(&mapped.field.kind, &listed.values[*at]);
            if compare::is_kept(&mapped.field.kind, &desired.values[*at], &echoed) || echoed.is_null() {
                continue;
            }
            let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            if said.insert(*at) {
                let (field, entity) = (&mapped.field.name, self.options.entity.one());
                tracing::warn!(
                    "Pipedrive keeps {echoed} for {} in the field {field} of {entity} {}: such values are sent in every run; make them alike in the query",
                    desired.values[*at],
                    listed.id
                );
            }
        }
        let (_, record) = self.shape.record(&listed, Some(State::Live));
        Some(record)
    }
}

/// Whether it was refused for the window, which is over soon.
fn came_too_soon(error: &Error) -> bool {
    error.kind() == ErrorKind::RateLimited && matches!(error.retrying(), Retry::After(pause) if pause <= WINDOW)
}
