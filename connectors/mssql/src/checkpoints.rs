//! The table of fences and checkpoints, and what stands in it.
//!
//! | column | |
//! |---|---|
//! | `owner` | a hash of pipeline and sink, which are beside it for people |
//! | `fence` | counts the openings: only the process of the last one commits |
//! | `publish` | counts the commits, so that one whose answer was lost can be looked for |
//! | `target_id` | the table's object_id at the commit: of a table that was made anew there is no checkpoint |
//! | `staging`, `staged_run`, `staged_rows` | `replace`: whose rows wait in which table, and up to which row they are committed |
//! | `checkpoint_text` | the checkpoint, as JSON |

use tiberius::Row;
use towpath_core::{Checkpoint, Context, Error, ErrorKind, Result};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    catalog::TableName,
    client::{Pool, Session, number, text},
    statements::{self, Stored},
};

/// Whose rows: of which sink of which pipeline.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pub(crate) id: String,
    pipeline: String,
    sink: String,
    /// The table of checkpoints.
    pub(crate) table: TableName,
    pub(crate) target: TableName,
}

/// What is found at the opening.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) fence: i64,
    pub(crate) publish: i64,
    pub(crate) checkpoint: Option<Checkpoint>,
    pub(crate) staging: Option<String>,
    pub(crate) staged_run: Option<String>,
    pub(crate) staged_rows: i64,
}

/// How a fence stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fence {
    /// Ours, and so many publishes are stored.
    Ours(i64),
    /// Another process has opened the sink since.
    Raised,
}

/// The error of a process that was overtaken.
pub(crate) fn overtaken(target: &TableName) -> Error {
    Error::conflict(format!("another process loads {target} for this pipeline now; nothing was written"))
        .hint("run a pipeline in one place at a time")
}

impl Owner {
    /// Finds the schema of the target, makes the table of checkpoints if it is not there.
    async fn prepare(session: &mut Session, ctx: &Context, target: &TableName) -> Result<Self> {
        let target = target.in_schema(session).await?;
        let table = TableName { schema: target.schema.clone(), name: "towpath_checkpoint".to_owned() };
        let (pipeline, sink) = (ctx.pipeline().to_string(), ctx.component().to_string());
        let owner = Self {
            id: format!("{:016x}", xxh3_64(format!("{pipeline}\0{sink}").as_bytes())),
            table,
            target,
            pipeline,
            sink,
        };
        session.batch("make the table of checkpoints", &statements::create_checkpoints(&owner.table)).await?;
        Ok(owner)
    }

    /// The name of a table of ours in the target's schema.
    pub(crate) fn sibling(&self, name: String) -> TableName {
        TableName { schema: self.target.schema.clone(), name }
    }

    /// Both; once more, if another who opens for the first time at the same moment has made the table or its row before us.
    pub(crate) async fn open(pool: &Pool, ctx: &Context, target: &TableName) -> Result<(Self, Found)> {
        let mut again = true;
        loop {
            let mut session = pool.session().await?;
            let opened = async {
                let owner = Self::prepare(&mut session, ctx, target).await?;
                let found = owner.raise(&mut session).await?;
                Ok::<_, Error>((owner, found))
            };
            match opened.await {
                Err(error) if again && matches!(error.kind(), ErrorKind::Config | ErrorKind::Conflict) => again = false,
                done => return done,
            }
        }
    }

    /// Raises the fence and reads the checkpoint, in one transaction.
    async fn raise(&self, session: &mut Session) -> Result<Found> {
        let sql = statements::raise_fence(&self.table, &self.id, &self.pipeline, &self.sink, &self.target);
        let results = session.batch("raise the fence", &sql).await?;
        let row = results.iter().flatten().next().ok_or_else(|| Error::internal("no fence came back"))?;
        let (then, now) = (number(row, 2), number(row, 7));
        let mut found = Found {
            fence: number(row, 0).unwrap_or_default(),
            publish: number(row, 1).unwrap_or_default(),
            staging: text(row, 3),
            staged_run: text(row, 4),
            staged_rows: number(row, 5).unwrap_or_default(),
            checkpoint: read(row)?,
        };
        if found.checkpoint.is_some() && then.is_some() && then != now {
            tracing::warn!(
                "table {} was {} since the last load: there is no checkpoint, the load begins anew",
                self.target,
                if now.is_none() { "dropped" } else { "made anew" }
            );
            (found.checkpoint, found.staging) = (None, None);
        }
        Ok(found)
    }

    /// How our fence stands.
    pub(crate) async fn fence(&self, session: &mut Session, ours: i64) -> Result<Fence> {
        let results = session.batch("look at the fence", &statements::read_fence(&self.table, &self.id)).await?;
        let row = results.first().and_then(|rows| rows.first());
        Ok(match row.and_then(|row| Some((number(row, 0)?, number(row, 1)?))) {
            Some((fence, publish)) if fence == ours => Fence::Ours(publish),
            _ => Fence::Raised,
        })
    }

    /// Stores a checkpoint where the fence is ours; false if it is not.
    pub(crate) async fn store(&self, session: &mut Session, stored: &Stored<'_>, checkpoint: &str) -> Result<bool> {
        let sql = statements::store_checkpoint(&self.table, &self.id, &self.target, stored);
        Ok(session.execute("store the checkpoint", &sql, &[&checkpoint]).await? == 1)
    }
}

fn read(row: &Row) -> Result<Option<Checkpoint>> {
    let Some(text) = text(row, 6) else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|error| {
        Error::conflict("the checkpoint in the target cannot be read")
            .because(error)
            .hint("was it written by a newer version?")
    })
}
