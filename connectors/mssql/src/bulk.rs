//! Bulk loads into the staging table: tasks that each own a connection and send rows as they come.

use std::{
    future::Future,
    sync::{Arc, OnceLock},
    time::Duration,
};

use arrow_array::RecordBatch;
use tiberius::{BulkLoadRequest, ColumnData, IntoSql, Query, TokenRow};
use tokio::{sync::mpsc, task::unconstrained, time::timeout};
use tokio_util::{compat::Compat, task::AbortOnDropHandle};
use towpath_core::{Error, Result, batch::handed_over};

use crate::{
    catalog::{TableName, quote},
    client::{Lease, Pool, quietly},
    encode::Cells,
    encrypt::Channel,
    error::failed,
    shape::Shape,
    statements::{self, ROW},
};

/// A load ends behind so many batches, or so many bytes of them: what is sent is borrowed from them, so they stay in memory until then.
const BATCHES: usize = 24;
const BYTES: usize = 3 << 20;
/// Batches that wait for a connection.
const AHEAD: usize = 1;

/// Rows for the staging table.
#[derive(Debug)]
pub(crate) struct Staged {
    /// The number of the first.
    pub(crate) first: i64,
    /// Cast.
    pub(crate) rows: RecordBatch,
    pub(crate) shape: Arc<Shape>,
}

/// Connections that load.
#[derive(Debug)]
pub(crate) struct Bulk {
    workers: Vec<Worker>,
    next: usize,
}

#[derive(Debug)]
struct Worker {
    rows: mpsc::Sender<Staged>,
    /// Aborted with the load: then its connection is closed, and the server undoes what it has not finished.
    task: AbortOnDropHandle<Result<()>>,
}

impl Bulk {
    /// Begins on so many connections; on one, if values may be long.
    pub(crate) fn begin(pool: &Pool, staging: &TableName, (workers, long): (usize, bool), deadline: Duration) -> Self {
        // A bulk load keeps parameters out of the table, by which values too long for it go in: then there must not be another.
        let workers = (0..if long { 1 } else { workers }).map(|_| {
            let (rows, from) = mpsc::channel(AHEAD);
            let (pool, staging) = (pool.clone(), staging.clone());
            // It waits for its turn only where it waits for rows or for the server.
            let task = tokio::spawn(unconstrained(async move { load(&pool, &staging, from, deadline).await }));
            Worker { rows, task: AbortOnDropHandle::new(task) }
        });
        Self { workers: workers.collect(), next: 0 }
    }

    /// Hands rows to the next connection; waits while it has enough. False: it has failed, and [`finish`](Bulk::finish) says why.
    pub(crate) async fn send(&mut self, staged: Staged) -> bool {
        let at = self.next % self.workers.len().max(1);
        self.next += 1;
        match self.workers.get(at) {
            Some(worker) => {
                let sent = worker.rows.send(staged).await.is_ok();
                handed_over();
                sent
            }
            None => false,
        }
    }

    /// No more rows: waits until the server has them all.
    pub(crate) async fn finish(self) -> Result<()> {
        let mut done = Ok(());
        let tasks: Vec<_> = self.workers.into_iter().map(|worker| worker.task).collect();
        for task in tasks {
            let ended =
                task.await.unwrap_or_else(|error| Err(Error::internal("a bulk load was broken off").because(error)));
            done = done.and(ended);
        }
        done
    }
}

/// What is done with the server has an end.
async fn within<T>(deadline: Duration, what: &str, work: impl Future<Output = tiberius::Result<T>>) -> Result<T> {
    match timeout(deadline, quietly(work)).await {
        Ok(done) => done.map_err(|error| failed(what, error)),
        Err(_) => Err(Error::timeout(format!("cannot {what}: the server takes no more"))
            .hint("raise `timeout` if it needs longer")),
    }
}

async fn load(pool: &Pool, staging: &TableName, mut from: mpsc::Receiver<Staged>, deadline: Duration) -> Result<()> {
    let Some(mut next) = from.recv().await else { return Ok(()) };
    let mut session = pool.session().await?;
    let (table, doing) = (staging.to_string(), format!("load rows into {staging}"));
    loop {
        let shape = Arc::clone(&next.shape);
        let names: Vec<String> =
            std::iter::once(quote(ROW)).chain(shape.columns.iter().map(|loaded| quote(&loaded.column.name))).collect();
        let columns: Vec<&str> = names.iter().map(String::as_str).collect();
        // The driver borrows rows for as long as the load lasts.
        let sent: Vec<OnceLock<Staged>> = (0..BATCHES).map(|_| OnceLock::new()).collect();
        let (mut long, mut bytes, mut waiting) = (vec![], 0, Some(next));
        let mut request = within(deadline, &doing, session.bulk(&table, &columns)).await?;
        for (at, slot) in sent.iter().enumerate() {
            let Some(batch) = (match waiting.take() {
                Some(batch) => Some(batch),
                None => from.recv().await,
            }) else {
                break;
            };
            if !Arc::ptr_eq(&batch.shape, &shape) || bytes > BYTES {
                waiting = Some(batch);
                break;
            }
            bytes += batch.rows.get_array_memory_size();
            let rows = send(&mut request, slot.get_or_init(|| batch), deadline, &doing).await?;
            long.extend(rows.into_iter().map(|row| (at, row)));
        }
        within(deadline, &doing, request.finalize()).await?;
        session.calm();
        for (at, row) in long {
            if let Some(batch) = sent.get(at).and_then(OnceLock::get) {
                insert(&mut session, staging, batch, row, &doing).await?;
            }
        }
        next = match waiting {
            Some(batch) => batch,
            None => match from.recv().await {
                Some(batch) => batch,
                None => return Ok(()),
            },
        };
    }
}

/// Sends a batch, but for the rows with a value that is too long for it.
async fn send<'a>(
    request: &mut BulkLoadRequest<'a, Compat<Channel>>,
    batch: &'a Staged,
    deadline: Duration,
    doing: &str,
) -> Result<Vec<usize>> {
    let cells = cells(batch)?;
    let may_be_long = batch.shape.columns.iter().any(|loaded| loaded.staged.is_max());
    let mut long = vec![];
    let all = async {
        for (row, number) in (0..batch.rows.num_rows()).zip(batch.first..) {
            if may_be_long && !cells.iter().all(|cells| cells.is_short(row)) {
                long.push(row);
                continue;
            }
            let mut values = TokenRow::with_capacity(cells.len() + 1);
            values.push(ColumnData::I64(Some(number)));
            cells.iter().for_each(|cells| values.push(cells.cell(row)));
            request.send(values).await?;
        }
        Ok(())
    };
    within(deadline, doing, all).await?;
    Ok(long)
}

fn cells(batch: &Staged) -> Result<Vec<Cells<'_>>> {
    let columns = batch.rows.columns().iter().zip(&batch.shape.columns);
    columns.map(|(column, loaded)| Cells::of(column, &loaded.staged)).collect()
}

/// A value on its way to a parameter.
struct Given<'a>(ColumnData<'a>);

impl<'a> IntoSql<'a> for Given<'a> {
    fn into_sql(self) -> ColumnData<'a> {
        self.0
    }
}

/// Adds one row by parameters, which may be of any length.
async fn insert(session: &mut Lease, staging: &TableName, batch: &Staged, row: usize, doing: &str) -> Result<()> {
    let cells = cells(batch)?;
    let nulls: Vec<bool> = batch.rows.columns().iter().map(|column| column.is_null(row)).collect();
    let names: Vec<&str> = batch.shape.columns.iter().map(|loaded| loaded.column.name.as_str()).collect();
    let mut query = Query::new(statements::insert_staged(staging, &names, &nulls));
    query.bind(Given(ColumnData::I64(i64::try_from(row).ok().map(|row| batch.first + row))));
    for (cells, null) in cells.iter().zip(nulls) {
        if !null {
            query.bind(Given(cells.cell(row)));
        }
    }
    session.run(doing, query).await.map(|_| ())
}
