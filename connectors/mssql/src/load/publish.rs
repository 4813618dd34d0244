//! What is staged goes into the target, but for the rows that it would refuse.

use std::{collections::BTreeMap, sync::Arc};

use towpath_core::{Effect, Error, ErrorKind, Original, Reject, Result, WriteMode, Wrote};

use super::{LONG, Load, of};
use crate::{
    bulk::{Bulk, Staged},
    refuse::{self, Question, Refusal, Trial},
    statements,
    transaction::Begun,
};

/// Rows of one commit that may be refused late; they are in memory at once.
const REFUSED_AT_MOST: usize = 100_000;
impl Load {
    /// Sends the rows of the spool again, after taking out what of them has arrived.
    async fn send_again(&mut self) -> Result<()> {
        // As long as it goes on: each of its statements has an end.
        let call = self.call("load rows again for", Effect::Idempotent).deadline(LONG);
        let (pool, staging, options, shapes, from) =
            (&self.pool, &self.staging, &self.options, &self.shapes, self.spooled_from);
        let long = self.has_long();
        let spool = Arc::new(tokio::sync::Mutex::new(&mut self.spool));
        pool.ctx()
            .call(&call, || {
                let spool = Arc::clone(&spool);
                async move {
                    let cut = statements::cut_staging(staging, from - 1);
                    pool.session().await?.batch("take out rows that are sent again", &cut).await?;
                    let mut bulk = Bulk::begin(pool, staging, (options.workers, long), options.timeout.0);
                    let (mut first, mut spool) = (from, spool.lock().await);
                    for rows in spool.batches()? {
                        let rows = rows?;
                        let shape = of(shapes, &rows)?;
                        let staged = Staged { first, rows: shape.cast_again(&rows)?, shape: Arc::clone(shape) };
                        first += i64::try_from(rows.num_rows()).unwrap_or_default();
                        if !bulk.send(staged).await {
                            break;
                        }
                    }
                    bulk.finish().await
                }
            })
            .await?;
        self.broken = None;
        Ok(())
    }

    /// Brings what is staged into the open transaction, but for what cannot go in.
    pub(crate) async fn flush(&mut self) -> Result<Wrote> {
        self.land().await?;
        if self.broken.is_some() {
            self.send_again().await?;
        }
        if self.waiting() == 0 {
            return Ok(Wrote::default());
        }
        let mut refused: BTreeMap<i64, Refusal> = BTreeMap::new();
        let (first, mode) = (self.unchecked, self.options.write);
        self.look_over(first, &mut refused).await?;
        let mut written = 0;
        if mode != WriteMode::Replace {
            // Others may change the target between the look and the publish; more often than that it is something only the server knows.
            let mut tries = 0;
            written = loop {
                match self.try_publish().await? {
                    Ok(written) => break written,
                    Err(error) => {
                        let before = refused.len();
                        self.look_over(first, &mut refused).await?;
                        tries += 1;
                        let passing = error.kind() == ErrorKind::Conflict && tries < 3;
                        if refused.len() == before && !passing {
                            self.bisect(&mut refused, error).await?;
                        }
                    }
                }
            };
        }
        self.unchecked = self.next_row;
        let waiting = self.waiting() as u64;
        // Triggers count too.
        written = written.min(waiting);
        let rejected = self.rejects(refused)?;
        if mode == WriteMode::Replace {
            written = waiting - rejected.len() as u64;
        }
        let known = (waiting - rejected.len() as u64).saturating_sub(written);
        Ok(Wrote { written, known, rejected, ..Wrote::default() })
    }

    /// Finds rows that the target would refuse, and takes them out of the staging table.
    async fn look_over(&self, first: i64, refused: &mut BTreeMap<i64, Refusal>) -> Result<()> {
        let Some(table) = &self.table else { return Ok(()) };
        let key = self.options.key_columns();
        let publish = self.publish(&key);
        // Whether a value is taken is asked when those refused for another reason are out of the way.
        for about in [refuse::About::Row, refuse::About::Others] {
            let questions = refuse::questions(about, &publish, table, self.options.write, &self.beyond_ascii, first);
            // Of a key that was staged more than once another row counts when one is refused, and may be refused too. So may who was to take the value that
            // a refused row of an upsert does not leave.
            let again = about == refuse::About::Others && (publish.repeats || self.options.write == WriteMode::Upsert);
            while !questions.is_empty() && self.refuse(&questions, refused).await? && again {}
        }
        Ok(())
    }

    /// Asks, and takes out what is refused; false if that is nothing.
    async fn refuse(&self, questions: &[Question], refused: &mut BTreeMap<i64, Refusal>) -> Result<bool> {
        let (pool, call) = (&self.pool, self.call("look over rows for", Effect::Idempotent));
        let found = pool.ctx().call(&call, || async { refuse::ask(pool, questions).await }).await?;
        let new: Vec<i64> = found.keys().copied().filter(|row| !refused.contains_key(row)).collect();
        if refused.len() + new.len() > REFUSED_AT_MOST {
            return Err(Error::data(format!(
                "more than {REFUSED_AT_MOST} rows of one commit are refused by {}",
                self.owner.target
            ))
            .hint("look at the reasons in a smaller load: it is not the rows then"));
        }
        // What is taken out is remembered first: the answer may be lost.
        for (row, refusal) in found {
            refused.entry(row).or_insert(refusal);
        }
        self.take_out(&new).await?;
        Ok(!new.is_empty())
    }

    async fn take_out(&self, rows: &[i64]) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let (pool, staging, call) = (&self.pool, &self.staging, self.call("take out rows for", Effect::Idempotent));
        pool.ctx().call(&call, || async { refuse::take_out(pool, staging, rows).await }).await
    }

    /// Publishes into a transaction that stays open. `Err`: the server refuses the rows, and has undone everything.
    async fn try_publish(&mut self) -> Result<Result<u64>> {
        let key = self.options.key_columns();
        let publish = self.publish(&key);
        let sql = publish.statements(self.options.write);
        let call = self.call("publish to", Effect::Idempotent);
        let transaction = self.transaction();
        let published = self.pool.ctx().call(&call, || async { transaction.begin(&sql).await }).await;
        match published? {
            Begun::Open(lease, written) => {
                self.publishing = Some(lease);
                Ok(Ok(written))
            }
            Begun::Refused(error) => Ok(Err(error)),
            Begun::Done => Err(Error::conflict("a commit is stored that this process did not make")),
        }
    }

    /// Finds the rows that only the server itself can tell: by trying.
    async fn bisect(&self, refused: &mut BTreeMap<i64, Refusal>, error: Error) -> Result<()> {
        let key = self.options.key_columns();
        let publish = self.publish(&key);
        let (mode, last) = (self.options.write, self.next_row - 1);
        let call = self.call("try rows for", Effect::Idempotent);
        let uniques = self.table.iter().flat_map(|table| &table.uniques);
        let moving = mode == WriteMode::Upsert && uniques.into_iter().any(|unique| publish.moves(unique));
        let trial = Trial { first: self.spooled_from, last, identity: self.identity(), moving };
        let pool = &self.pool;
        let found = pool.ctx().call(&call, || async { refuse::first_refused(pool, &publish, mode, trial).await });
        match found.await? {
            Some((row, refusal)) => {
                if refused.len() >= refuse::TRIED_AT_MOST
                    && refused.values().filter(|refusal| refusal.tried).count() >= refuse::TRIED_AT_MOST
                {
                    return Err(error.hint(format!(
                        "more than {} rows of one publish are refused by something that only trying finds (a trigger, a function in a constraint)",
                        refuse::TRIED_AT_MOST
                    )));
                }
                refused.insert(row, refusal);
                self.take_out(&[row]).await
            }
            // Each of them goes in, and yet all together do not: the publish is tried again, and fails as before if there is more to it.
            None => Err(error),
        }
    }

    /// The rows refused, as they came.
    fn rejects(&mut self, mut refused: BTreeMap<i64, Refusal>) -> Result<Vec<Reject>> {
        let mut rejects = Vec::with_capacity(refused.len());
        if refused.is_empty() {
            return Ok(rejects);
        }
        let (mut first, shapes, keys) = (self.spooled_from, &self.shapes, &mut self.keys);
        self.spool.each(|_, rows| {
            let next = first + i64::try_from(rows.num_rows()).unwrap_or_default();
            let later = refused.split_off(&next);
            let here = std::mem::replace(&mut refused, later);
            if !here.is_empty() {
                let shape = of(shapes, rows)?;
                let places: Vec<u64> = here.keys().map(|row| u64::try_from(row - first).unwrap_or_default()).collect();
                // Copied, so that they do not hold on to their batch; together, so that they share what they can.
                let taken = arrow_select::take::take_record_batch(rows, &arrow_array::UInt64Array::from(places))
                    .map_err(|error| Error::internal("cannot copy rows").because(error))?;
                shape.hashes(&taken).into_iter().for_each(|key| keys.forget(key));
                let plain = shape.without_hash(&taken)?;
                for (at, refusal) in here.into_values().enumerate() {
                    let mut reject = Reject::row(0, &*refusal.reason).kind(refusal.kind);
                    reject.column = refusal.column.as_deref().map(str::to_owned);
                    reject.row = Original::Late(plain.slice(at, 1));
                    rejects.push(reject);
                }
            }
            first = next;
            Ok(())
        })?;
        Ok(rejects)
    }
}
