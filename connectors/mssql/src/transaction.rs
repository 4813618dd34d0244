//! The one transaction of a publish, up to its commit.

use towpath_core::{Error, ErrorKind, Result};

use crate::{
    checkpoints::{Fence, Owner, overtaken},
    client::{Lease, Pool, first_number, number},
    config::SinkOptions,
    statements,
};

/// What a publish needs of the server.
pub(crate) struct Transaction<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) owner: &'a Owner,
    pub(crate) options: &'a SinkOptions,
    pub(crate) fence: i64,
    /// Commits stored so far, as we know.
    pub(crate) published: i64,
    pub(crate) identity: bool,
}

/// How a publish began.
pub(crate) enum Begun {
    /// Everything is in the open transaction; so many rows were touched.
    Open(Box<Lease>, u64),
    /// The server refuses the rows.
    Refused(Error),
    /// The commit before, whose answer was lost, has had its effect after all.
    Done,
}

impl Transaction<'_> {
    /// One transaction: the lock of the target, the fence, the statements. Left open.
    pub(crate) async fn begin(&self, statements: &[String]) -> Result<Begun> {
        let mut session = self.pool.session().await?;
        let target = &self.owner.target;
        let lock = session
            .batch(
                &format!("begin a publish to {target}"),
                &statements::begin_publish(target, self.options.lock_timeout.0),
            )
            .await?;
        // sp_getapplock: 0 and 1 are granted, -1 a time-out, -3 a deadlock.
        if first_number(&lock).is_none_or(|answer| answer < 0) {
            session.abandon().await;
            return Err(Error::unavailable(format!("another load is publishing to {target}"))
                .hint("raise `lock_timeout` if its publishes take that long"));
        }
        // Only now: whoever had the lock before has committed, or has not. Looked at earlier, a commit under way would not be seen.
        match self.owner.fence(&mut session, self.fence).await? {
            Fence::Ours(published) if published == self.published => {}
            Fence::Ours(_) => {
                session.abandon().await;
                return Ok(Begun::Done);
            }
            Fence::Raised => {
                session.abandon().await;
                return Err(overtaken(target));
            }
        }
        if self.identity {
            session
                .batch("take values of the identity column from the rows", &statements::identity_insert(target, true))
                .await?;
        }
        let mut touched = 0;
        for sql in statements {
            match session.batch(&format!("publish to {target}"), &statements::counted(sql)).await {
                // What was there before is not counted.
                Ok(_) if sql.starts_with("DELETE FROM") => {}
                // A trigger may answer with rows of its own, before.
                Ok(results) => {
                    let count = results.last().and_then(|rows| rows.first()).and_then(|row| number(row, 0));
                    touched += count.and_then(|count| u64::try_from(count).ok()).unwrap_or_default();
                }
                // Whatever the server has against it that does not pass by itself may be a row.
                Err(error) if !error.can_retry() && error.kind() != ErrorKind::Auth => {
                    return Ok(Begun::Refused(error));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Begun::Open(Box::new(session), touched))
    }

    pub(crate) async fn end(&self, session: &mut Lease) -> Result<()> {
        if self.identity {
            session
                .batch(
                    "leave the identity column to the server",
                    &statements::identity_insert(&self.owner.target, false),
                )
                .await?;
        }
        session.batch(&format!("commit to {}", self.owner.target), "COMMIT TRANSACTION").await.map(|_| ())
    }
}
