//! What a source is of, and how a reading of it begins: what is to be read is made out, sessions are opened, each gets its part.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use towpath_core::{Context, Effect, Error, ErrorKind, Name, Next, Partition, Position, Result, Run};

use super::{
    behind::Behind,
    cursor,
    incoming::Patience,
    piece::{Pieces, Stand},
    ranges,
    select::{BEGIN_SNAPSHOT, END_SNAPSHOT, Selection},
    shape,
    whole::{Together, Whole},
};
use crate::{
    client::{Lease as Loan, Limits, Pool, Session},
    config::SourceOptions,
    login::Login,
};

/// Pieces that wait between the sessions and the engine.
const AHEAD: usize = 2;

/// What a source is of, and the tasks that read it.
pub(crate) struct Origin {
    pub(crate) name: Name,
    pub(crate) options: Arc<SourceOptions>,
    pub(crate) login: Login,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

/// What a reading is.
#[derive(Clone)]
enum Job {
    Behind(Behind),
    Whole(Whole),
}

/// The number of the cursor's column; of the one whose ranges are read, with how many there are.
type Columns = (Option<usize>, Option<(usize, usize)>);

/// What of the checkpoints concerns this source.
#[derive(Clone)]
pub(crate) struct Span {
    pub(crate) from: Option<Position>,
    pub(crate) until: Option<Position>,
}

impl Origin {
    /// Nothing is opened yet.
    pub(crate) fn new(name: &Name, options: SourceOptions) -> Result<Self> {
        options.check()?;
        let login = options.connection.login()?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        Ok(Self { name: name.clone(), options: Arc::new(options), login, tasks, stop })
    }

    pub(crate) fn partition(&self) -> Partition {
        Partition::new(self.options.table.as_deref().unwrap_or("query"))
    }

    pub(crate) fn identity(&self) -> String {
        let options = &self.options;
        let what = match (&options.table, &options.query) {
            (Some(table), _) => format!("table={table}"),
            (None, query) => {
                format!("query={:016x}", xxhash_rust::xxh3::xxh3_64(query.as_deref().unwrap_or("").trim().as_bytes()))
            }
        };
        let cursor = options.cursor.as_ref().map(|cursor| format!(" cursor={cursor}")).unwrap_or_default();
        format!("{} {what}{cursor}", self.login.place())
    }

    /// Sessions, at most so many. How long an answer may take is watched here, so that the server can be told to stop.
    pub(crate) fn pool(&self, ctx: &Context, size: usize) -> Result<Pool> {
        Pool::new(self.login.clone(), ctx, size, Limits { statement: None, lock: self.options.lock_timeout.0 })
    }

    /// Does something short with the server.
    pub(crate) async fn look<T: Send>(
        &self,
        ctx: &Context,
        pool: &Pool,
        what: &'static str,
        work: impl for<'a> Fn(&'a mut Session) -> BoxFuture<'a, Result<T>> + Send + Sync,
    ) -> Result<T> {
        let call = pool.call(format!("{what} {}", self.partition()), Effect::Cheap);
        let patience = Patience { silence: self.options.timeout.0, stop: self.stop.clone() };
        let (patience, work) = (&patience, &work);
        ctx.call(&call, || async move {
            let mut session = patience.short("connect", Box::pin(pool.session())).await?;
            patience.short(what, work(&mut session)).await.map_err(|error| error.at(pool.place().to_owned()))
        })
        .await
    }

    /// Looks at what is to be read.
    pub(crate) async fn selection(&self, ctx: &Context, pool: &Pool) -> Result<Selection> {
        let options = Arc::clone(&self.options);
        let selection = self
            .look(ctx, pool, "look at", move |session| {
                let options = Arc::clone(&options);
                Box::pin(async move { shape::look(session, &options).await })
            })
            .await?;
        self.columns(&selection)?;
        Ok(selection)
    }

    /// The numbers of the cursor's column, and of the one whose ranges are read with how many there are.
    fn columns(&self, selection: &Selection) -> Result<Columns> {
        let options = &self.options;
        let cursor = options.cursor.as_deref().map(|name| selection.column("cursor", name)).transpose()?;
        if let Some((_, column)) = cursor {
            cursor::check(&column.name, &column.of)?;
        }
        let cursor = cursor.map(|(at, _)| at);
        if options.partitions == 1 {
            return Ok((cursor, None));
        }
        let by = options.partition_by.as_deref().or(options.cursor.as_deref()).or(selection.key.as_deref());
        let by = by.ok_or_else(|| {
            Error::config(format!("partitions: {} has no primary key of one column", self.partition()))
                .hint("name the column whose ranges are read: `partition_by`")
        })?;
        let (at, column) = selection.column("partition_by", by)?;
        if !ranges::can_be_cut(&column.of) {
            return Err(Error::config(format!(
                "partition_by: column {} of type {} cannot be cut into ranges",
                column.name, column.of
            ))
            .hint("take a whole number, a date or a time"));
        }
        Ok((cursor, Some((at, options.partitions))))
    }

    /// Makes out what is to be read, begins to read it, and comes back when the server has begun to answer.
    pub(crate) async fn begin(
        &self,
        pool: &Pool,
        selection: &Arc<Selection>,
        run: &Run,
        span: &Span,
    ) -> Result<mpsc::Receiver<Result<Next>>> {
        let stop = self.stop.child_token();
        // Whoever drops this future wants nothing of it.
        let guard = stop.clone().drop_guard();
        let patience = Patience { silence: self.options.timeout.0, stop };
        let (cursor, by) = self.columns(selection)?;
        let stand = |position: &Option<Position>| match (cursor.and_then(|at| selection.columns.get(at)), position) {
            (Some(column), Some(position)) => Stand::read(position, &column.of).map(Some),
            _ => Ok(None),
        };
        let (from, until) = (stand(&span.from)?, stand(&span.until)?);
        let (to, pieces) = mpsc::channel(AHEAD);
        let partition = self.partition();
        let mut first = patience.short("connect", Box::pin(pool.session())).await?;
        let job = match (cursor, by) {
            (Some(cursor), None) => Job::Behind(Behind {
                selection: Arc::clone(selection),
                partition,
                cursor,
                from,
                until: until.zip(span.until.clone()),
            }),
            _ => {
                let whole = Whole {
                    selection: Arc::clone(selection),
                    partition,
                    run: Arc::clone(&run.id),
                    cursor: None,
                    until: span.until.clone(),
                    statements: vec![],
                };
                let cursor = cursor.map(|at| (at, from, until));
                match whole.plan(&mut first, &patience, cursor, by).await? {
                    Some(whole) => Job::Whole(whole),
                    None => return Ok(pieces),
                }
            }
        };
        let mut loans = vec![first];
        let sessions = if let Job::Whole(whole) = &job { whole.statements.len() } else { 1 };
        while loans.len() < sessions {
            loans.push(patience.short("connect", Box::pin(pool.session())).await?);
        }
        self.start(job, loans, &patience, to).await?;
        guard.disarm();
        Ok(pieces)
    }

    /// Gives each session its part.
    async fn start(&self, job: Job, loans: Vec<Loan>, patience: &Patience, to: Pieces) -> Result<()> {
        let mut opened = vec![];
        let together = Arc::new(if let Job::Whole(whole) = &job { whole.together() } else { Together::default() });
        for (number, loan) in loans.into_iter().enumerate() {
            let (open, is_open) = oneshot::channel();
            let work = Part {
                job: job.clone(),
                number,
                together: Arc::clone(&together),
                snapshot: self.options.snapshot,
                patience: patience.clone(),
            };
            self.tasks.spawn(work.run(loan, open, to.clone()));
            opened.push(is_open);
        }
        let mut failed: Option<Error> = None;
        for is_open in opened {
            let begun = is_open.await.unwrap_or_else(|_| Err(Error::internal("a reader ended while it began")));
            // The one that failed has stopped the others.
            if let Err(error) = begun
                && failed.as_ref().is_none_or(|failed| failed.kind() == ErrorKind::Cancelled)
            {
                failed = Some(error);
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        Ok(())
    }
}

/// What one session reads.
struct Part {
    job: Job,
    number: usize,
    together: Arc<Together>,
    snapshot: bool,
    patience: Patience,
}

impl Part {
    async fn run(self, mut loan: Loan, open: oneshot::Sender<Result<()>>, to: Pieces) {
        let mut open = Some(open);
        match self.read(&mut loan, &mut open, &to).await {
            Ok(()) => drop(loan),
            Err(error) => {
                // What the others would still read is of no use.
                self.patience.stop.cancel();
                match open.take() {
                    Some(open) => drop(open.send(Err(error))),
                    // Whoever stopped it knows why.
                    None if error.kind() == ErrorKind::Cancelled => {}
                    None => drop(to.send(Err(error)).await),
                }
                loan.abandon().await;
            }
        }
    }

    async fn read(
        &self,
        session: &mut Session,
        open: &mut Option<oneshot::Sender<Result<()>>>,
        to: &Pieces,
    ) -> Result<()> {
        let patience = &self.patience;
        if self.snapshot {
            patience.short("begin a snapshot", session.batch("begin a snapshot", BEGIN_SNAPSHOT)).await?;
        }
        let begun = || {
            if let Some(open) = open.take() {
                let _ = open.send(Ok(()));
            }
        };
        match &self.job {
            Job::Behind(behind) => behind.read(session, patience, begun, to).await?,
            Job::Whole(whole) => whole.read(self.number, &self.together, session, patience, begun, to).await?,
        }
        if self.snapshot {
            patience.short("end a snapshot", session.batch("end a snapshot", END_SNAPSHOT)).await?;
        }
        // The last one to end well ends the whole.
        if let Job::Whole(whole) = &self.job
            && self.together.ended(whole.statements.len())
        {
            whole.finish(&self.together, to).await?;
        }
        Ok(())
    }
}
