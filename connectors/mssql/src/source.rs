//! The source: a table or a query, whole or behind a cursor, in one answer or in ranges side by side.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::mpsc;
use towpath_core::{
    Call, Context, Effect, Error, ErrorKind, Known, Lease, Name, Next, Result, Resume, Run, Source, SourcePlan, Work,
    source::{Discovery, Replay},
};

use crate::{client::Pool, config::SourceOptions};

mod behind;
pub(crate) mod cells;
mod cursor;
mod discover;
mod incoming;
mod origin;
mod piece;
mod ranges;
mod select;
mod shape;
mod sum;
mod ticks;
mod whole;

use origin::{Origin, Span};

/// How long `close` waits for the server to take notice.
const CLOSE: Duration = Duration::from_secs(4);

/// Rows of a table or query of SQL Server.
///
/// Gives typed rows as the columns are declared. Tasks of its own read the server's answers as fast as pieces are taken from it, one session
/// each; `close` stops them on the server (attention) and leaves no transaction open.
pub struct MssqlSource {
    origin: Origin,
    reading: Option<Reading>,
}

struct Reading {
    pieces: mpsc::Receiver<Result<Next>>,
    /// The server works for us.
    lease: Option<Lease>,
    pool: Option<Pool>,
    /// Rows given so far.
    given: u64,
}

impl MssqlSource {
    /// Makes a source; nothing is opened yet.
    ///
    /// # Errors
    /// Config: options that do not go together, a connection that cannot be understood.
    pub fn new(name: &Name, options: SourceOptions) -> Result<Self> {
        Ok(Self { origin: Origin::new(name, options)?, reading: None })
    }
}

impl Reading {
    fn nothing() -> Self {
        let (_, pieces) = mpsc::channel(1);
        Self { pieces, lease: None, pool: None, given: 0 }
    }
}

#[async_trait]
impl Source for MssqlSource {
    async fn plan(&mut self, ctx: &Context, _: &Run, _: &Resume) -> Result<SourcePlan> {
        let options = &self.origin.options;
        let mut notes = vec![];
        let pool = self.origin.pool(ctx, 1)?;
        let selection = self.origin.selection(ctx, &pool).await;
        pool.close().await;
        let schema = match selection {
            Ok(selection) => {
                let cursor = options.cursor.as_deref().and_then(|cursor| selection.column("cursor", cursor).ok());
                if let Some((_, column)) = cursor.filter(|(_, column)| column.of.is_text()) {
                    notes.push(format!(
                        "cursor {} is text: it is compared by code points, for which the server has no index",
                        column.name
                    ));
                }
                Known::Now(selection.schema)
            }
            Err(error)
                if self.origin.login.has_unset()
                    || matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::RateLimited) =>
            {
                notes.push(format!("the columns are not known: {error}"));
                Known::No
            }
            Err(error) => return Err(error),
        };
        let mut what = format!("{} of {}", self.origin.partition(), self.origin.login.place());
        if let Some(cursor) = &options.cursor {
            what.push_str(&format!(", behind {cursor}"));
        }
        if options.partitions > 1 {
            what.push_str(&format!(", in {} ranges at the same time", options.partitions));
        }
        let carries = options.cursor.is_some();
        Ok(SourcePlan {
            schema,
            work: vec![Work { what, bytes: None }],
            complete_work: true,
            replay: if carries { Replay::FromPosition } else { Replay::WholePartitions },
            carries,
            rereads: false,
            identity: self.origin.identity(),
            notes,
        })
    }

    async fn open(&mut self, ctx: &Context, run: &Run, resume: &Resume) -> Result<()> {
        let partition = self.origin.partition();
        let position =
            |checkpoint: &towpath_core::Checkpoint| checkpoint.position(&self.origin.name, &partition).cloned();
        let until = resume.until.as_ref().and_then(position);
        let from = match &self.origin.options.cursor {
            Some(_) if resume.whole && resume.same_run(run).is_none() => None,
            Some(_) => resume.from.as_ref().and_then(position),
            None => None,
        };
        // A table without cursor that this run has read, or a stretch that is empty.
        let ours = format!("run={} ", run.id);
        let read_before = self.origin.options.cursor.is_none()
            && resume.same_run(run).and_then(position).is_some_and(|position| position.0.starts_with(&ours));
        let nothing = resume.until.is_some() && (until.is_none() || until == from);
        if read_before || nothing {
            self.reading = Some(Reading::nothing());
            return Ok(());
        }
        let pool = self.origin.pool(ctx, self.origin.options.partitions)?;
        let selection = Arc::new(self.origin.selection(ctx, &pool).await?);
        // One call, however many sessions: else a guard that lets in fewer would wait for itself.
        let deadline =
            self.origin.options.timeout.0.saturating_mul(2).saturating_add(self.origin.login.at.connect_timeout.0);
        let call: Call = pool.call(format!("read {partition}"), Effect::Read).deadline(deadline);
        let span = Span { from, until };
        let origin = &self.origin;
        let begun = ctx
            .stream(&call, || {
                let (pool, selection, span) = (&pool, &selection, &span);
                async move {
                    Box::pin(origin.begin(pool, selection, run, span))
                        .await
                        .map_err(|error| error.at(pool.place().to_owned()))
                }
            })
            .await;
        let (pieces, lease) = begun?;
        self.reading = Some(Reading { pieces, lease: Some(lease), pool: Some(pool), given: 0 });
        Ok(())
    }

    async fn next(&mut self) -> Result<Next> {
        let reading = self.reading.as_mut().ok_or_else(|| Error::internal("the source is not open"))?;
        // What the tasks have sent is in the channel until it is taken: dropping this future loses nothing.
        let next = reading.pieces.recv().await;
        match next {
            Some(Ok(Next::Piece(mut piece))) => {
                piece.first_row = Some(reading.given);
                reading.given += piece.rows.num_rows() as u64;
                Ok(Next::Piece(piece))
            }
            Some(Err(error)) => {
                let error = error.at(self.origin.login.place());
                if let Some(lease) = reading.lease.take() {
                    lease.failed(&error);
                }
                Err(error)
            }
            Some(Ok(other)) => Ok(other),
            None => {
                if let Some(lease) = reading.lease.take() {
                    lease.done();
                }
                Ok(Next::End)
            }
        }
    }

    async fn close(&mut self) -> Result<()> {
        self.origin.stop.cancel();
        self.origin.tasks.close();
        let reading = self.reading.take();
        let (lease, pool) = reading.map(|reading| (reading.lease, reading.pool)).unwrap_or_default();
        // Its channel is closed by now: nobody waits to send.
        let stop = async {
            self.origin.tasks.wait().await;
            if let Some(pool) = pool {
                pool.close().await;
            }
        };
        let stopped = tokio::time::timeout(CLOSE, stop).await.is_ok();
        // Of a server that does not take notice it is not known whether it still works for us.
        if let Some(lease) = lease.filter(|_| stopped) {
            lease.done();
        }
        Ok(())
    }

    async fn discover(&mut self, ctx: &Context) -> Result<Discovery> {
        let place = self.origin.login.place();
        let pool = self.origin.pool(ctx, 1)?;
        let found =
            self.origin.look(ctx, &pool, "list the tables beside", |session| Box::pin(discover::tables(session))).await;
        pool.close().await;
        Ok(discover::written(&found?, &place))
    }
}
