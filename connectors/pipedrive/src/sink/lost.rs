//! Creates whose answer was lost: they are looked for in the vendor's list, after its lag, before they are sent again.
//!
//! A record that was made has an id above the highest one that was known when it was sent, so the newest records are listed down to
//! that id: no clocks are compared. Nothing is searched, because the vendor's search lags further behind and costs twice as much.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow_array::RecordBatch;
use towpath_core::{Error, ErrorKind, Reject, Result, Wrote};

use super::{ByKey, Open, late};
use crate::{
    compare,
    index::Record,
    rows::{Job, Work},
    send::Came,
};

/// So often a create is sent again that gets lost each time.
const ROUNDS: u32 = 3;

/// A create of which nobody knows what came.
#[derive(Debug)]
pub struct Lost {
    /// What was to be made.
    pub job: Job,
    /// The row it was for.
    pub row: RecordBatch,
    /// What was made has an id above this.
    pub after: u64,
}

impl Open {
    /// Looks for creates whose answer was lost, and sends again what is not there.
    pub(super) async fn find_lost(&mut self, wrote: &mut Wrote) -> Result<()> {
        // Those that were sent twice, with the id above which both of them would be.
        let mut again: BTreeMap<String, (RecordBatch, u64)> = BTreeMap::new();
        for _ in 0..ROUNDS {
            if self.lost.is_empty() {
                break;
            }
            let lost = std::mem::take(&mut self.lost);
            let found = self.look(lost.iter().map(|lost| (lost.job.key.as_str(), lost.after))).await;
            let mut found = match found {
                Ok(found) => found,
                Err(error) => {
                    self.lost = lost;
                    return Err(error);
                }
            };
            for lost in lost {
                match found.remove(&lost.job.key) {
                    Some(records) => self.adopt(lost, records, wrote).await?,
                    None => {
                        let (row, after) = (lost.row.clone(), lost.after);
                        again.entry(lost.job.key.clone()).or_insert((row, after));
                        self.send_again(lost, wrote).await?;
                    }
                }
            }
        }
        if let Some(lost) = self.lost.first() {
            let what = format!(
                "{} {} could not be made for sure, such as {}",
                self.lost.len(),
                self.options.entity,
                lost.job.key
            );
            return Err(Error::unavailable(what)
                .outcome_unknown()
                .hint("Pipedrive lost every answer; the next run lists what is there and goes on"));
        }
        self.find_twins(again, wrote).await
    }

    /// Records of these keys that are above these ids, once the vendor's lists must have them.
    async fn look<'a>(&self, keys: impl Iterator<Item = (&'a str, u64)> + Send) -> Result<ByKey<Record>> {
        let keys: BTreeMap<&str, u64> = keys.collect();
        let after = keys.values().copied().min().unwrap_or_default();
        // Not a pause between tries, which are the engine's: a list asked sooner would say nothing about what was made.
        tokio::time::sleep(self.options.settle.0).await;
        let mut found: ByKey<Record> = ByKey::new();
        let take = |key: Option<String>, record: Record| {
            if let Some(key) = key.filter(|key| keys.get(key.as_str()).is_some_and(|after| record.id > *after)) {
                found.entry(key).or_default().push(record);
            }
        };
        self.existing.newest(after, take).await?;
        Ok(found)
    }

    /// It had been made after all: it is brought to what the row asks for, as any other record.
    async fn adopt(&mut self, lost: Lost, records: Vec<Record>, wrote: &mut Wrote) -> Result<()> {
        let existing = Arc::clone(&self.existing);
        let shape = existing.shape().await?;
        let Lost { job, row, .. } = lost;
        if let Some(mut index) = existing.listed() {
            for record in &records {
                existing.has_made(record.id);
                index.insert(Some(job.key.clone()), record.clone());
            }
        }
        if records.len() > 1 {
            wrote.rejected.push(twins(
                row,
                &job.key,
                records.iter().map(|record| record.id),
                self.options.entity.path(),
            ));
            return Ok(());
        }
        let Some(record) = records.first() else { return Ok(()) };
        let changes = compare::differing(&shape.mapped, &job.desired, record);
        if changes.is_empty() {
            wrote.written += 1;
            return Ok(());
        }
        let body = compare::update_body(&shape.mapped, &job.desired, &changes, record);
        let job = Job { work: Work::Update { id: record.id, changes, body }, ..job };
        let sender = self.sender(shape);
        match sender.send(&job).await? {
            Came::Done => wrote.written += 1,
            Came::Refused(refused) => wrote.rejected.push(late(row, refused.to_string())),
            Came::Lost { after } => self.lost.push(Lost { job: Job { work: Work::Create, ..job }, row, after }),
        }
        Ok(())
    }

    async fn send_again(&mut self, lost: Lost, wrote: &mut Wrote) -> Result<()> {
        let existing = Arc::clone(&self.existing);
        let shape = existing.shape().await?;
        let sender = self.sender(shape);
        match sender.send(&lost.job).await {
            Ok(Came::Done) => wrote.written += 1,
            Ok(Came::Refused(refused)) => wrote.rejected.push(late(lost.row, refused.to_string())),
            // The first one may come late as well, so what is looked for is above the first one's mark.
            Ok(Came::Lost { .. }) => self.lost.push(lost),
            Err(error) => {
                self.lost.push(lost);
                return Err(error);
            }
        }
        Ok(())
    }

    /// What was sent twice may have been made twice all the same.
    async fn find_twins(&mut self, again: BTreeMap<String, (RecordBatch, u64)>, wrote: &mut Wrote) -> Result<()> {
        if again.is_empty() {
            return Ok(());
        }
        let found = self.look(again.iter().map(|(key, (_, after))| (key.as_str(), *after))).await?;
        for (key, records) in found {
            let ids: BTreeSet<u64> = records.iter().map(|record| record.id).collect();
            if ids.len() < 2 {
                continue;
            }
            if let Some(mut index) = self.existing.listed() {
                for record in records {
                    index.insert(Some(key.clone()), record);
                }
            }
            if let Some((row, _)) = again.get(&key) {
                wrote.rejected.push(twins(row.clone(), &key, ids.into_iter(), self.options.entity.path()));
                // It was counted when its second answer came.
                wrote.written = wrote.written.saturating_sub(1);
            }
        }
        Ok(())
    }
}

/// A row for which several records were made.
fn twins(row: RecordBatch, key: &str, ids: impl Iterator<Item = u64>, entity: &str) -> Reject {
    let ids = ids.map(|id| id.to_string()).collect::<Vec<_>>().join(", ");
    let why =
        format!("an answer was lost, and several {entity} were made for {key} (ids {ids}); delete all but one of them");
    tracing::warn!("{why}");
    late(row, why).kind(ErrorKind::Conflict)
}
