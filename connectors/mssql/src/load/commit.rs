//! The checkpoint, and the end of the transaction.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use towpath_core::{Checkpoint, Effect, Error, Result, WriteMode};

use super::Load;
use crate::{
    catalog::triggers,
    checkpoints::{Fence, overtaken},
    statements::{self, Stored},
    transaction::Begun,
};

impl Load {
    /// Stores the checkpoint and commits. A commit whose answer was lost is looked for before it is made again.
    pub(crate) async fn commit(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        // What flush has left open; only the first try finds it.
        let open = Mutex::new(self.publishing.take());
        let transaction = self.transaction();
        let replace = self.options.write == WriteMode::Replace;
        let swap = replace && checkpoint.last;
        let key = self.options.key_columns();
        let publish = self.publish(&key);
        let rows_wait = self.waiting() > 0;
        let sql = match (replace, swap) {
            (true, true) if !self.columns.is_empty() => publish.statements(WriteMode::Replace),
            // No rows in the whole run, and so none that are to stay.
            (true, true) => vec![statements::empty_target(&self.owner.target)],
            (true, false) => vec![],
            (false, _) if rows_wait => publish.statements(self.options.write),
            (false, _) => vec![],
        };
        // Behind the last commit nothing more is published, and the table is taken away as it is.
        let emptied = !sql.is_empty() && self.staged.is_some() && !checkpoint.last;
        let after = emptied.then(|| statements::empty_staging(&self.staging));
        let stages = replace && !checkpoint.last && self.staged.is_some();
        let text = serde_json::to_string(checkpoint)
            .map_err(|error| Error::internal("cannot write a checkpoint").because(error))?;
        let stored = Stored {
            fence: self.fence,
            publish: self.published + 1,
            staging: stages.then(|| (self.staging.name.as_str(), &*self.run.id, self.next_row - 1)),
        };
        let (tried, sent, refused) = (AtomicBool::new(false), AtomicBool::new(false), AtomicBool::new(false));
        let call = self.call("commit to", Effect::Idempotent);
        let done = self
            .pool
            .ctx()
            .call(&call, || async {
                let left_open = open.lock().unwrap_or_else(PoisonError::into_inner).take();
                let again = tried.swap(true, Ordering::Relaxed);
                let mut session = match left_open {
                    Some(session) => session,
                    None => {
                        let mut session = self.pool.session().await?;
                        if again {
                            match self.owner.fence(&mut session, self.fence).await? {
                                Fence::Raised => return Err(overtaken(&self.owner.target)),
                                Fence::Ours(published) if published == stored.publish => return Ok(()),
                                Fence::Ours(_) => {}
                            }
                        }
                        if sql.is_empty() {
                            // One statement is a transaction by itself.
                            sent.store(true, Ordering::Relaxed);
                            return match self.owner.store(&mut session, &stored, &text).await? {
                                true => Ok(()),
                                false => Err(overtaken(&self.owner.target)),
                            };
                        }
                        drop(session);
                        match transaction.begin(&sql).await? {
                            Begun::Open(session, _) => session,
                            Begun::Refused(error) => {
                                refused.store(true, Ordering::Relaxed);
                                return Err(error);
                            }
                            Begun::Done => return Ok(()),
                        }
                    }
                };
                if !self.owner.store(&mut session, &stored, &text).await? {
                    session.abandon().await;
                    return Err(overtaken(&self.owner.target));
                }
                if let Some(empty) = &after {
                    session.batch("empty the staging table", empty).await?;
                }
                sent.store(true, Ordering::Relaxed);
                transaction.end(&mut session).await
            })
            .await;
        let done = match done {
            Err(error) if refused.load(Ordering::Relaxed) => Err(self.of_the_swap(error).await),
            done => done,
        };
        match done {
            Err(error) if sent.load(Ordering::Relaxed) && error.can_retry() => return Err(error.outcome_unknown()),
            done => done?,
        }
        self.published += 1;
        self.keep_staging = stages;
        if self.options.by_hash() {
            self.keys.commit();
        } else {
            self.keys.clear();
        }
        self.repeats = false;
        self.spool.clear();
        self.spooled_from = self.next_row;
        Ok(())
    }

    /// The server refuses a swap: which triggers may be it, and what to do. Nothing has changed.
    async fn of_the_swap(&self, error: Error) -> Error {
        if self.options.write != WriteMode::Replace || error.what_to_do().is_some() {
            return error;
        }
        let asked = async { triggers(&mut *self.pool.session().await?, &self.owner.target).await };
        let names: Vec<String> = asked.await.unwrap_or_default().into_iter().map(|(name, _)| name).collect();
        let triggers = if names.is_empty() {
            String::new()
        } else {
            format!(" (the table has the triggers {})", names.join(", "))
        };
        error.hint(format!(
            "{} is as it was: mend the row, or what refuses it{triggers}; or write `upsert`, `insert_new` or `append`, by which such a row is found and \
             the others go in",
            self.owner.target
        ))
    }
}
