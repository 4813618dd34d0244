//! What an account holds of one kind of records, listed once in a run and shared by all sinks of it that need it.

use std::{
    collections::HashSet,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak},
};

use serde_json::{Value, json};
use tokio::sync::OnceCell;
use towpath_core::{Context, Effect, Result, Run};

use crate::{
    client::Crm,
    entity::Entity,
    index::{Index, Record, State},
    page,
    shape::{Ask, Shape},
};

/// So many ids a list can be asked for at once.
const IDS: usize = 100;
/// So many are asked for in all.
const IDS_ASKED: usize = 20 * IDS;
/// Nobody deletes so many records between two pages.
const WIDEST_GAP: u64 = 500;

/// Records of one kind. What is asked of them is looked up, and they are listed, when somebody first needs it.
pub struct Existing {
    /// The account.
    pub crm: Crm,
    ask: Ask,
    shape: OnceCell<Shape>,
    index: OnceCell<Mutex<Index>>,
    made: Made,
}

/// The ids of records that a run has made. A plan knows none of them, so its changes name these records by their keys, and those of the run
/// that does it have to read the same.
type Made = Arc<Mutex<HashSet<u64>>>;

/// Whose records, in which run.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    run: Arc<str>,
    pipeline: Box<str>,
    account: Box<str>,
    entity: Entity,
    match_on: Box<str>,
}

/// What the sinks of the runs in this process have at hand. Sinks of one run open before any of them writes, so a link finds the sink
/// that writes what it links.
static SHARED: LazyLock<Mutex<Shared>> = LazyLock::new(Mutex::default);

/// By what they are asked for.
type Shared = Vec<(Key, Weak<Existing>)>;

/// What the last run of each pipeline has made. It outlives an attempt, because what the next attempt lists was not there when the run was
/// planned.
static MADE: LazyLock<Mutex<Vec<(Key, Made)>>> = LazyLock::new(Mutex::default);

/// Of the run in hand; what was made in runs before it is forgotten.
fn made(key: &Key) -> Made {
    let mut all = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let others = |known: &Key| (&known.pipeline, &known.account) != (&key.pipeline, &key.account);
    all.retain(|(known, _)| known.run == key.run || others(known));
    // By whichever field they are told apart.
    let same = |known: &Key| Key { match_on: key.match_on.clone(), ..known.clone() } == *key;
    if let Some((_, made)) = all.iter().find(|(known, _)| same(known)) {
        return Arc::clone(made);
    }
    let made = Made::default();
    all.push((key.clone(), Arc::clone(&made)));
    made
}

impl Key {
    fn new(run: &Run, ctx: &Context, crm: &Crm, ask: &Ask) -> Self {
        Self {
            run: Arc::clone(&run.id),
            pipeline: (**ctx.pipeline()).into(),
            account: crm.account().into(),
            entity: ask.entity,
            match_on: ask.match_on.as_str().into(),
        }
    }
}

impl Existing {
    /// The records a sink writes; links of other sinks of the run find it.
    pub fn of_sink(crm: Crm, ask: Ask, run: &Run) -> Arc<Self> {
        let key = Key::new(run, crm.ctx(), &crm, &ask);
        let new = Self::new(crm, ask, made(&key));
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.retain(|(known, existing)| existing.strong_count() > 0 && *known != key);
        shared.push((key, Arc::downgrade(&new)));
        new
    }
    /// What a link will look up: found when it is first needed, because by then all sinks of the run are open.
    pub fn of_link_later(crm: &Crm, ask: Ask, run: &Run) -> Link {
        Link { crm: crm.clone(), ask, run: run.clone(), found: std::sync::OnceLock::new() }
    }
    /// The records a link looks up: those that a sink of the run writes, or that another link of it looks up, or else their own.
    fn of_link(crm: &Crm, ask: Ask, run: &Run) -> Arc<Self> {
        let key = Key::new(run, crm.ctx(), crm, &ask);
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = shared.iter().find(|(known, _)| *known == key).and_then(|(_, existing)| existing.upgrade())
        {
            return known;
        }
        let new = Self::new(crm.clone(), ask, made(&key));
        shared.retain(|(_, existing)| existing.strong_count() > 0);
        shared.push((key, Arc::downgrade(&new)));
        new
    }
    fn new(crm: Crm, ask: Ask, made: Made) -> Arc<Self> {
        Arc::new(Self { crm, ask, shape: OnceCell::new(), index: OnceCell::new(), made })
    }

    /// This run has made a record.
    pub fn has_made(&self, id: u64) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
    }
    /// Whether this run has made a record, or would.
    pub fn made(&self, id: u64) -> bool {
        id == 0 || self.made.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }
    /// A record of others as a change shows it: its id, with its key where that is known; of one that is not there when a run is planned,
    /// the key alone.
    pub fn shown(&self, id: u64, key: Option<&str>) -> Option<Value> {
        if self.made(id) {
            let listed = self.listed();
            let of_id = || listed.as_ref()?.key_of(id).map(str::to_owned);
            return Some(json!({ "key": key.map(str::to_owned).or_else(of_id)? }));
        }
        Some(key.map_or_else(|| json!({ "id": id }), |key| json!({ "id": id, "key": key })))
    }

    /// What is asked of the records, found in the account.
    ///
    /// # Errors
    /// Of the calls; Config.
    pub async fn shape(&self) -> Result<&Shape> {
        self.shape.get_or_try_init(|| Shape::find(&self.crm, &self.ask)).await
    }
    /// The same, if it has been found.
    pub fn shape_found(&self) -> Option<&Shape> {
        self.shape.get()
    }
    /// The records, listed. A lock is never held over an await.
    ///
    /// # Errors
    /// Of the calls.
    pub async fn index(&self) -> Result<&Mutex<Index>> {
        let shape = self.shape().await?;
        let list = || async { Ok(Mutex::new(self.list(shape).await?)) };
        self.index.get_or_try_init(list).await
    }
    /// The records, if they have been listed.
    pub fn listed(&self) -> Option<MutexGuard<'_, Index>> {
        self.index.get().map(lock)
    }

    async fn list(&self, shape: &Shape) -> Result<Index> {
        let mut index = Index::default();
        let entity = shape.entity;
        let by_id = [("sort_by", "id"), ("sort_direction", "asc")];
        let mut take = |_, key, record| {
            index.insert(key, record);
            true
        };
        let gaps = self.pages(shape, entity.path(), None, &by_id, &mut take).await?;
        if entity == Entity::Deals {
            // A deal that was put away is there all the same: it is not made a second time.
            self.pages(shape, "deals/archived", Some(State::Archived), &by_id, &mut take).await?;
        }
        index.gaps = gaps;
        index.shrink();
        tracing::debug!(%entity, records = index.keyed(), "listed what exists");
        Ok(index)
    }

    /// Makes sure of what the pages may have left out. A vendor's cursor may be a number of records, and then a record that somebody
    /// deletes while the pages are read shifts the next one out of sight, which would be made a second time. It can only be one whose id lies
    /// between two pages, and few ids do: they are asked for before the first create, and never where nothing is to be made.
    ///
    /// # Errors
    /// Of the calls.
    pub async fn close_gaps(&self) -> Result<bool> {
        let (shape, index) = (self.shape().await?, self.index().await?);
        let gaps = lock(index).gaps.clone();
        let near = gaps.iter().filter(|(last, first)| first - last <= WIDEST_GAP);
        let ids: Vec<u64> = near.flat_map(|(last, first)| last + 1..*first).take(IDS_ASKED).collect();
        let mut found = false;
        for ids in ids.chunks(IDS) {
            let ids = ids.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
            let mut take = |_, key, record| {
                lock(index).insert(key, record);
                found = true;
                true
            };
            self.pages(shape, shape.entity.path(), None, &[("ids", &ids)], &mut take).await?;
        }
        lock(index).gaps.clear();
        Ok(found)
    }

    /// Records made since the one with the id `after`, newest first, given to `take`.
    ///
    /// # Errors
    /// Of the calls.
    pub async fn newest(&self, after: u64, mut take: impl FnMut(Option<String>, Record) + Send) -> Result<()> {
        let shape = self.shape().await?;
        let newest = [("sort_by", "id"), ("sort_direction", "desc")];
        let mut take = |id, key, record| {
            if id > after {
                take(key, record);
            }
            id > after
        };
        self.pages(shape, shape.entity.path(), None, &newest, &mut take).await.map(drop)
    }

    /// Reads pages until there are no more, or `take` has enough. Returns the ids between which two pages meet.
    async fn pages(
        &self,
        shape: &Shape,
        path: &str,
        state: Option<State>,
        query: &[(&str, &str)],
        take: &mut (dyn FnMut(u64, Option<String>, Record) -> bool + Send),
    ) -> Result<Vec<(u64, u64)>> {
        let keys = shape.custom_keys();
        let mut query = query.to_vec();
        query.extend(keys.as_deref().map(|keys| ("custom_fields", keys)));
        let what = format!("list {path}");
        let (mut cursor, mut last): (Option<String>, _) = (None, None);
        let mut gaps = vec![];
        loop {
            let body = self.crm.list(&what, path, &query, cursor.as_deref(), Effect::Read).await?;
            let page = page::read(&body, &shape.wanted).map_err(|error| error.at(what.as_str()))?;
            if let (Some(last), Some(first)) = (last, page.records.first())
                && first.id > last + 1
            {
                gaps.push((last, first.id));
            }
            last = page.records.last().map(|record| record.id).or(last);
            for listed in &page.records {
                let (key, record) = shape.record(listed, state);
                if !take(listed.id, key, record) {
                    return Ok(gaps);
                }
            }
            match page.next {
                // A cursor that stands still would never end.
                Some(next) if Some(&next) != cursor.as_ref() => cursor = Some(next),
                _ => return Ok(gaps),
            }
        }
    }
}

/// What a link will look up.
pub struct Link {
    crm: Crm,
    ask: Ask,
    run: Run,
    found: std::sync::OnceLock<Arc<Existing>>,
}

impl Link {
    /// The records it looks up.
    pub fn found(&self) -> Arc<Existing> {
        Arc::clone(self.found.get_or_init(|| Existing::of_link(&self.crm, self.ask.clone(), &self.run)))
    }
}

/// Nothing panics while it holds the index; and if it did, the index is as good as the listing.
pub fn lock(index: &Mutex<Index>) -> MutexGuard<'_, Index> {
    index.lock().unwrap_or_else(PoisonError::into_inner)
}
