//! The sink in memory, and the target it writes into.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use arrow_array::RecordBatch;
use arrow_schema::{Schema, SchemaRef};
use async_trait::async_trait;
use towpath_core::{
    Checkpoint, Context, Error, Held, Known, Name, Original, Reject, Result, Run, Sink, SinkPlan, WriteMode, Wrote,
    sink::Guarantee,
};

use super::{Fault, Faults, Point, lock, refuse, single_rows};
use crate::rows;

/// What tells rows apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Nothing: `append` and `replace`.
    None,
    /// These columns.
    Columns(Vec<String>),
    /// All columns of the row.
    RowHash,
}

impl Key {
    /// These columns.
    pub fn columns<S: Into<String>>(columns: impl IntoIterator<Item = S>) -> Self {
        Self::Columns(columns.into_iter().map(Into::into).collect())
    }
}

/// Pipeline and component: whose checkpoint it is.
type Owner = (Name, Name);

/// A table with its checkpoint, as a database would hold it. Cheap to clone; all clones are the same target.
#[derive(Clone, Debug, Default)]
pub struct MemoryTarget {
    state: Arc<Mutex<State>>,
    faults: Faults,
}

#[derive(Debug, Default)]
struct State {
    /// The table's columns; `None`: there is no table.
    schema: Option<SchemaRef>,
    /// The table's rows, each a batch of one.
    table: Vec<RecordBatch>,
    owners: BTreeMap<Owner, Owned>,
    refuse_in_write: Option<(String, String)>,
    refuse_in_flush: Option<(String, String)>,
    late: Vec<Transaction>,
    without_fence: bool,
    calls: Vec<&'static str>,
}

#[derive(Debug, Default)]
struct Owned {
    /// Raised by every open; a commit must carry it.
    fence: u64,
    checkpoint: Option<Checkpoint>,
    /// What a run of `replace` has committed before its last commit.
    staged: Option<(Arc<str>, Vec<RecordBatch>)>,
}

/// All that a commit changes.
#[derive(Clone, Debug)]
struct Transaction {
    owner: Owner,
    fence: u64,
    mode: WriteMode,
    key: Key,
    schema: Option<SchemaRef>,
    rows: Vec<RecordBatch>,
    checkpoint: Checkpoint,
}

impl MemoryTarget {
    /// An empty one, without a table.
    pub fn new() -> Self {
        Self::default()
    }
    /// A sink into it.
    pub fn sink(&self, mode: WriteMode, key: Key) -> MemorySink {
        MemorySink { target: self.clone(), mode, key, open: None }
    }
    /// What shall fail.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }
    /// The committed rows, each a batch of one, in the order they came; `None` if there is no table.
    pub fn rows(&self) -> Option<Vec<RecordBatch>> {
        let state = lock(&self.state);
        state.schema.as_ref().map(|_| state.table.clone())
    }
    /// Another client of the target adds rows behind our back.
    pub fn insert(&self, rows: &RecordBatch) {
        let mut state = lock(&self.state);
        state.widen(&rows.schema());
        state.table.extend(single_rows(rows));
    }
    /// Another client empties the table.
    pub fn truncate(&self) {
        lock(&self.state).table.clear();
    }
    /// Another client drops the table with all that belongs to it; its checkpoint goes too.
    pub fn drop_table(&self) {
        let mut state = lock(&self.state);
        (state.schema, state.table) = (None, vec![]);
        state.owners.values_mut().for_each(|owned| (owned.checkpoint, owned.staged) = (None, None));
    }
    /// The checkpoint of a pipeline's sink.
    pub fn checkpoint(&self, pipeline: &str, component: &str) -> Option<Checkpoint> {
        lock(&self.state).owners.get(&(pipeline.into(), component.into()))?.checkpoint.clone()
    }
    /// Overwrites a checkpoint behind the sink's back.
    pub fn set_checkpoint(&self, pipeline: &str, component: &str, checkpoint: Option<Checkpoint>) {
        lock(&self.state).owners.entry((pipeline.into(), component.into())).or_default().checkpoint = checkpoint;
    }
    /// From now on a row with this value (as text) in this column is refused when it is written.
    pub fn refuse_in_write(&self, column: &str, value: &str) {
        lock(&self.state).refuse_in_write = Some((column.to_owned(), value.to_owned()));
    }
    /// From now on a row with this value (as text) in this column is refused by `flush`, as by a constraint that is checked late.
    pub fn refuse_in_flush(&self, column: &str, value: &str) {
        lock(&self.state).refuse_in_flush = Some((column.to_owned(), value.to_owned()));
    }
    /// Late commits ([`Fault::Late`]) land now. Returns how many of them changed anything.
    pub fn land(&self) -> usize {
        let mut state = lock(&self.state);
        let late = std::mem::take(&mut state.late);
        late.into_iter().filter(|transaction| state.apply(transaction).is_ok()).count()
    }
    /// Switches a rule off: `open` does not raise the fence and `commit` does not look at it, so a dead process's late commit
    /// lands. For tests that must fail without that rule.
    #[doc(hidden)]
    pub fn without_fence(&self) {
        lock(&self.state).without_fence = true;
    }
    /// The calls of `open` and `close` so far, by name.
    pub fn calls(&self) -> Vec<&'static str> {
        lock(&self.state).calls.clone()
    }
}

impl State {
    /// Adds columns the table does not have yet.
    fn widen(&mut self, schema: &SchemaRef) {
        let Some(have) = &self.schema else {
            self.schema = Some(Arc::clone(schema));
            return;
        };
        let new = schema.fields().iter().filter(|field| have.column_with_name(field.name()).is_none());
        let fields: Vec<_> = have.fields().iter().chain(new).cloned().collect();
        self.schema = Some(Arc::new(Schema::new(fields)));
    }

    /// The one place where anything becomes durable.
    fn apply(&mut self, transaction: &Transaction) -> Result<()> {
        let owned = self.owners.entry(transaction.owner.clone()).or_default();
        if owned.fence != transaction.fence && !self.without_fence {
            return Err(Error::conflict("another process has opened this target since"));
        }
        let mut rows = transaction.rows.clone();
        match transaction.mode {
            WriteMode::Append => self.table.append(&mut rows),
            WriteMode::InsertNew | WriteMode::Upsert => {
                let mut place: HashMap<String, usize> =
                    self.table.iter().enumerate().map(|(at, row)| (key_of(&transaction.key, row), at)).collect();
                for row in rows {
                    match place.entry(key_of(&transaction.key, &row)) {
                        std::collections::hash_map::Entry::Vacant(free) => {
                            free.insert(self.table.len());
                            self.table.push(row);
                        }
                        std::collections::hash_map::Entry::Occupied(taken) => {
                            if transaction.mode == WriteMode::Upsert
                                && let Some(old) = self.table.get_mut(*taken.get())
                            {
                                *old = row;
                            }
                        }
                    }
                }
            }
            WriteMode::Replace => {
                let run = &transaction.checkpoint.run.id;
                let (_, staged) = owned.staged.get_or_insert_with(|| (Arc::clone(run), vec![]));
                staged.append(&mut rows);
                if transaction.checkpoint.last {
                    self.table = owned.staged.take().map(|(_, staged)| staged).unwrap_or_default();
                }
            }
        }
        owned.checkpoint = Some(transaction.checkpoint.clone());
        if let Some(schema) = &transaction.schema {
            self.widen(schema);
        }
        Ok(())
    }
}

/// A row's key, as text.
fn key_of(key: &Key, row: &RecordBatch) -> String {
    match key {
        Key::None => String::new(),
        Key::RowHash => rows::lines(row).concat(),
        Key::Columns(columns) => {
            let columns = columns.iter().filter_map(|column| row.column_by_name(column));
            columns.map(|column| format!("{:?} ", rows::value(column, 0))).collect()
        }
    }
}

/// Whether a row has the refused value.
fn is_refused(refused: Option<&(String, String)>, row: &RecordBatch) -> Option<Reject> {
    let (column, value) = refused?;
    let found = rows::value(row.column_by_name(column)?, 0)?;
    (found == *value).then(|| Reject::row(0, format!("column {column}: '{value}' is refused")).column(column.clone()))
}

/// Writes into a [`MemoryTarget`].
///
/// * Rows wait in the sink until `commit`; so closing, or dropping it, takes back what is not committed.
/// * `open` raises the fence and reads the checkpoint under one lock; `commit` looks at the fence under the lock it writes in.
/// * What can be refused is refused in `write` or `flush`; `commit` can only find the fence raised.
#[derive(Debug)]
pub struct MemorySink {
    target: MemoryTarget,
    mode: WriteMode,
    key: Key,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    owner: Owner,
    fence: u64,
    schema: Option<SchemaRef>,
    /// Of this epoch, not committed; each a batch of one.
    rows: Vec<RecordBatch>,
}

impl MemorySink {
    fn open_state(&mut self) -> Result<&mut Open> {
        self.open.as_mut().ok_or_else(|| Error::internal("the sink is not open"))
    }

    fn take(&mut self, rows: &RecordBatch) -> Result<Wrote> {
        let (mode, key, target) = (self.mode, self.key.clone(), self.target.clone());
        let open = self.open_state()?;
        let state = lock(&target.state);
        let mut wrote = Wrote::default();
        let keyed = matches!(mode, WriteMode::InsertNew | WriteMode::Upsert);
        let keys: Vec<_> = single_rows(rows).map(|row| key_of(&key, &row)).collect();
        let mut there: std::collections::HashSet<String> = match mode {
            WriteMode::InsertNew => state.table.iter().chain(&open.rows).map(|row| key_of(&key, row)).collect(),
            _ => Default::default(),
        };
        for (at, row) in single_rows(rows).enumerate() {
            if let Some(mut reject) = is_refused(state.refuse_in_write.as_ref(), &row) {
                reject.row = Original::Row(at);
                wrote.rejected.push(reject);
                continue;
            }
            let superseded = keyed && keys.iter().skip(at + 1).any(|later| *later == keys[at]);
            if superseded || (mode == WriteMode::InsertNew && !there.insert(keys[at].clone())) {
                wrote.known += 1;
                continue;
            }
            wrote.written += 1;
            open.rows.push(row);
        }
        Ok(wrote)
    }
}

#[async_trait]
impl Sink for MemorySink {
    fn key_columns(&self) -> Option<Vec<String>> {
        match &self.key {
            Key::Columns(columns) => Some(columns.clone()),
            _ => None,
        }
    }

    async fn plan(&mut self, ctx: &Context, schema: &Known) -> Result<SinkPlan> {
        self.target.faults.strike(Point::Plan).await?;
        if let (Key::Columns(columns), Some(schema)) = (&self.key, schema.schema())
            && let Some(missing) = columns.iter().find(|column| schema.column_with_name(column).is_none())
        {
            return Err(Error::config(format!("the key column '{missing}' is not in the input")));
        }
        let state = lock(&self.target.state);
        let mut notes = vec![];
        if state.schema.is_none() {
            notes.push("the table would be created".to_owned());
        }
        Ok(SinkPlan {
            mode: self.mode,
            guarantee: Guarantee::ExactlyOnce,
            early_publish: matches!(self.mode, WriteMode::InsertNew | WriteMode::Upsert),
            identity: format!("memory {} {:?}", ctx.component(), self.mode),
            notes,
        })
    }

    async fn open(&mut self, ctx: &Context, run: &Run) -> Result<Held> {
        lock(&self.target.state).calls.push("open");
        self.target.faults.strike(Point::Open).await?;
        let owner = (ctx.pipeline().clone(), ctx.component().clone());
        let mut state = lock(&self.target.state);
        let raised = u64::from(!state.without_fence);
        let owned = state.owners.entry(owner.clone()).or_default();
        owned.fence += raised;
        if owned.staged.as_ref().is_some_and(|(staged_by, _)| *staged_by != run.id) {
            owned.staged = None;
        }
        self.open = Some(Open { owner, fence: owned.fence, schema: None, rows: vec![] });
        Ok(Held::Here(owned.checkpoint.clone()))
    }

    async fn schema(&mut self, schema: &SchemaRef) -> Result<Option<String>> {
        self.target.faults.strike(Point::Schema).await?;
        self.open_state()?.schema = Some(Arc::clone(schema));
        Ok(match &self.key {
            Key::None => None,
            Key::Columns(columns) => Some(format!("columns {}", columns.join(","))),
            Key::RowHash => {
                let mut names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                names.sort_unstable();
                Some(format!("row text 1 {}", names.join(",")))
            }
        })
    }

    async fn write(&mut self, _: u64, rows: RecordBatch) -> Result<Wrote> {
        self.target.faults.strike(Point::Write).await?;
        // A place where a cancelled write is dropped: nothing has been taken yet.
        tokio::task::yield_now().await;
        self.take(&rows)
    }

    async fn flush(&mut self) -> Result<Wrote> {
        self.target.faults.strike(Point::Flush).await?;
        let refused = lock(&self.target.state).refuse_in_flush.clone();
        let mut wrote = Wrote::default();
        self.open_state()?.rows.retain(|row| match is_refused(refused.as_ref(), row) {
            None => true,
            Some(mut reject) => {
                reject.row = Original::Late(row.clone());
                wrote.rejected.push(reject);
                false
            }
        });
        Ok(wrote)
    }

    async fn commit(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let fault = self.target.faults.due(Point::Commit);
        if let Some(fault @ (Fault::Fail(_) | Fault::Hang)) = fault {
            return Err(refuse(Point::Commit, fault).await);
        }
        let (mode, key) = (self.mode, self.key.clone());
        let open = self.open_state()?;
        let transaction = Transaction {
            owner: open.owner.clone(),
            fence: open.fence,
            mode,
            key,
            schema: open.schema.clone(),
            rows: std::mem::take(&mut open.rows),
            checkpoint: checkpoint.clone(),
        };
        if fault == Some(Fault::Late) {
            lock(&self.target.state).late.push(transaction);
            return Err(refuse(Point::Commit, Fault::Late).await);
        }
        lock(&self.target.state).apply(&transaction)?;
        match fault {
            Some(fault) => Err(refuse(Point::Commit, fault).await),
            None => Ok(()),
        }
    }

    async fn close(&mut self) -> Result<()> {
        lock(&self.target.state).calls.push("close");
        self.open = None;
        self.target.faults.strike(Point::Close).await
    }
}
