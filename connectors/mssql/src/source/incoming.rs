//! Rows as they come in: one statement's answer, read row by row, with a deadline for the server and an ear for whoever closes.

use std::{
    future::{Future as _, poll_fn},
    pin::Pin,
    task::Poll,
    time::Duration,
};

use futures::{Stream as _, future::BoxFuture};
use tiberius::{Query, QueryItem, QueryStream, Row};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::CancellationToken;
use towpath_core::{Error, Result};

use super::select::Statement;
use crate::{
    client::{Session, quietly},
    error::During as _,
};

/// What a session needs to know for an answer.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    /// How long the server may be silent.
    pub(crate) silence: Duration,
    /// Nobody wants the rest.
    pub(crate) stop: CancellationToken,
}

impl Patience {
    fn timed_out(&self, what: &str) -> Error {
        Error::timeout(format!("cannot {what}: the server has sent nothing for {} s", self.silence.as_secs_f32()))
            .hint("raise `timeout` if the server needs longer for it; else see what blocks it (sys.dm_exec_requests)")
    }

    /// Waits for something short.
    pub(crate) async fn short<T>(&self, what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            done = work => done,
            () = self.stop.cancelled() => Err(Error::cancelled()),
            () = sleep(self.silence) => Err(self.timed_out(what)),
        }
    }
}

/// An answer under way. The session counts as spoilt until [`Session::calm`], which is for whoever has read to the end.
pub(crate) struct Incoming<'a> {
    rows: QueryStream<'a>,
    patience: &'a Patience,
    what: &'a str,
    /// Runs only while the server is waited for.
    deadline: Pin<Box<Sleep>>,
    waiting: bool,
    stopped: BoxFuture<'a, ()>,
    /// Nobody wants the rest: one row more is waited for, a little while.
    stopping: bool,
}

/// How long the row that is on its way is waited for when nobody wants it any more: behind a whole row the server's word that it has stopped
/// is understood, in the middle of one it is not.
const GRACE: Duration = Duration::from_millis(500);

impl<'a> Incoming<'a> {
    /// Sends a statement and waits until its answer begins.
    pub(crate) async fn begin(
        session: &'a mut Session,
        statement: &Statement,
        what: &'a str,
        patience: &'a Patience,
    ) -> Result<Self> {
        let mut query = Query::new(statement.sql.clone());
        statement.parameters.iter().for_each(|parameter| query.bind(parameter.clone()));
        let begun = async { quietly(query.query(session.driver())).await.during(what) };
        let rows = patience.short(what, begun).await?;
        let (deadline, stopped) = (Box::pin(sleep(patience.silence)), Box::pin(patience.stop.cancelled()));
        Ok(Self { rows, patience, what, deadline, waiting: false, stopped, stopping: false })
    }

    /// The next row; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Row>> {
        poll_fn(|cx| {
            loop {
                match Pin::new(&mut self.rows).poll_next(cx) {
                    Poll::Ready(Some(Ok(QueryItem::Metadata(_)))) => {}
                    Poll::Ready(_) if self.stopping => return Poll::Ready(Err(Error::cancelled())),
                    Poll::Ready(item) => {
                        self.waiting = false;
                        let row = item.transpose().during(self.what);
                        return Poll::Ready(row.map(|item| item.and_then(QueryItem::into_row)));
                    }
                    Poll::Pending => break,
                }
            }
            if !self.waiting {
                self.waiting = true;
                self.deadline.as_mut().reset(Instant::now() + self.patience.silence);
            }
            if !self.stopping && self.stopped.as_mut().poll(cx).is_ready() {
                self.stopping = true;
                self.deadline.as_mut().reset(Instant::now() + GRACE);
            }
            self.deadline
                .as_mut()
                .poll(cx)
                .map(|()| Err(if self.stopping { Error::cancelled() } else { self.patience.timed_out(self.what) }))
        })
        .await
    }
}

/// All rows of a short answer.
pub(crate) async fn ask(
    session: &mut Session,
    statement: &Statement,
    what: &str,
    patience: &Patience,
) -> Result<Vec<Row>> {
    let mut incoming = Incoming::begin(session, statement, what, patience).await?;
    let mut rows = vec![];
    while let Some(row) = incoming.next().await? {
        rows.push(row);
    }
    drop(incoming);
    session.calm();
    Ok(rows)
}
