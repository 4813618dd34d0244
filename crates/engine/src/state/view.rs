//! What `towpath state show` shows.

use std::fmt;

use rusqlite::{Connection, params};
use serde::Serialize;
use towpath_core::{Checkpoint, Name, Result};

use super::{Holder, StateStore};
use crate::replay::is_replay;

/// Everything that is remembered, without secrets.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StateView {
    /// The state directory; `None` in memory.
    pub dir: Option<String>,
    /// By name.
    pub pipelines: Vec<PipelineView>,
    /// By server.
    pub guards: Vec<GuardView>,
    /// By account.
    pub budgets: Vec<BudgetView>,
    /// Those that have counted failures.
    pub breakers: Vec<BreakerView>,
    /// By server and account.
    pub credentials: Vec<CredentialView>,
}

/// A pipeline.
#[derive(Clone, Debug, Serialize)]
pub struct PipelineView {
    /// Its name.
    pub name: String,
    /// The file that has the name.
    pub file: Option<String>,
    /// Who runs it now.
    pub running: Option<Holder>,
    /// Its newest run.
    pub last_run: Option<RunView>,
    /// By sink.
    pub checkpoints: Vec<CheckpointView>,
}

/// A run.
#[derive(Clone, Debug, Serialize)]
pub struct RunView {
    /// Its id.
    pub id: String,
    /// How it stands; `running` also if it died.
    pub status: String,
    /// When it was begun or taken up.
    pub begun: String,
    /// When it ended.
    pub ended: Option<String>,
}

/// Where a sink stands.
#[derive(Clone, Debug, Serialize)]
pub struct CheckpointView {
    /// The sink.
    pub sink: String,
    /// What it is known to have committed last.
    pub checkpoint: Checkpoint,
    /// Whether it is held here; otherwise the target holds it, and this is a copy.
    pub held_here: bool,
}

/// A guarded server.
#[derive(Clone, Debug, Serialize)]
pub struct GuardView {
    /// The server.
    pub origin: String,
    /// Requests under way, as far as known.
    pub under_way: u64,
    /// How long the last one took whose end is known, in milliseconds.
    pub last_took_ms: Option<i64>,
}

/// What an account has spent.
#[derive(Clone, Debug, Serialize)]
pub struct BudgetView {
    /// The account.
    pub account: String,
    /// Tokens that we have spent in the day.
    pub spent: u64,
    /// Tokens that others are known to have spent.
    pub others: u64,
    /// When that day ends.
    pub ends: Option<String>,
    /// The vendor said that it is over until then.
    pub over_until: Option<String>,
}

/// A breaker.
#[derive(Clone, Debug, Serialize)]
pub struct BreakerView {
    /// The server.
    pub origin: String,
    /// The part of it, where it is not the server's own.
    pub resource: Option<String>,
    /// Failures in a row.
    pub failures: u64,
    /// Whether it lets nothing pass.
    pub open: bool,
    /// Since when.
    pub since: String,
    /// The last failure.
    pub reason: String,
}

/// A credential that was tried.
#[derive(Clone, Debug, Serialize)]
pub struct CredentialView {
    /// The server.
    pub server: String,
    /// The account.
    pub account: String,
    /// `proven`, `refused`, `trying` or `unknown`.
    pub state: String,
    /// Since when.
    pub since: String,
}

fn all<T>(
    db: &Connection,
    sql: &str,
    by: &[&dyn rusqlite::ToSql],
    read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    db.prepare_cached(sql)?.query_map(by, read)?.collect()
}

impl StateStore {
    /// Everything that is remembered.
    pub fn show(&self) -> Result<StateView> {
        let mut view = self.read(|db| {
            let names: Vec<String> = all(
                db,
                "SELECT pipeline FROM names UNION SELECT pipeline FROM runs UNION SELECT pipeline FROM checkpoints
                 UNION SELECT pipeline FROM seen ORDER BY 1",
                &[],
                |row| row.get(0),
            )?;
            let mut pipelines = Vec::with_capacity(names.len());
            for name in names.into_iter().filter(|name| !is_replay(name)) {
                pipelines.push(pipeline(db, name)?);
            }
            Ok(StateView {
                dir: self.dir().map(|dir| dir.display().to_string()),
                pipelines,
                guards: guards(db)?,
                budgets: budgets(db)?,
                breakers: breakers(db)?,
                credentials: credentials(db)?,
            })
        })?;
        for pipeline in &mut view.pipelines {
            pipeline.running = self.lock_holder(&Name::from(pipeline.name.clone()));
        }
        Ok(view)
    }
}

fn pipeline(db: &Connection, name: String) -> rusqlite::Result<PipelineView> {
    let file = all(db, "SELECT file FROM names WHERE pipeline = ?1", params![name], |row| row.get(0))?.pop().flatten();
    let last_run = all(
        db,
        "SELECT id, status, begun, ended FROM runs WHERE pipeline = ?1 ORDER BY seq DESC LIMIT 1",
        params![name],
        |row| Ok(RunView { id: row.get(0)?, status: row.get(1)?, begun: row.get(2)?, ended: row.get(3)? }),
    )?
    .pop();
    let read = |held_here: bool| {
        move |row: &rusqlite::Row<'_>| {
            let (sink, text): (String, String) = (row.get(0)?, row.get(1)?);
            let checkpoint = serde_json::from_str(&text).ok();
            Ok(checkpoint.map(|checkpoint| CheckpointView { sink, checkpoint, held_here }))
        }
    };
    let held = "SELECT sink, checkpoint FROM checkpoints WHERE pipeline = ?1 AND checkpoint IS NOT NULL";
    let copies = "SELECT sink, checkpoint FROM seen WHERE pipeline = ?1
                  AND sink NOT IN (SELECT sink FROM checkpoints WHERE pipeline = ?1 AND checkpoint IS NOT NULL)";
    let mut checkpoints: Vec<CheckpointView> =
        all(db, held, params![name], read(true))?.into_iter().flatten().collect();
    checkpoints.extend(all(db, copies, params![name], read(false))?.into_iter().flatten());
    checkpoints.sort_by(|a, b| a.sink.cmp(&b.sink));
    Ok(PipelineView { name, file, running: None, last_run, checkpoints })
}

fn guards(db: &Connection) -> rusqlite::Result<Vec<GuardView>> {
    all(
        db,
        "SELECT guarded.origin, (SELECT count(*) FROM leases WHERE origin = guarded.origin AND ended IS NULL),
                (SELECT ended - started FROM leases WHERE origin = guarded.origin AND ended IS NOT NULL
                 ORDER BY id DESC LIMIT 1)
         FROM guarded ORDER BY 1",
        &[],
        |row| {
            let under_way = row.get::<_, i64>(1)? as u64;
            Ok(GuardView { origin: row.get(0)?, under_way, last_took_ms: row.get(2)? })
        },
    )
}

fn budgets(db: &Connection) -> rusqlite::Result<Vec<BudgetView>> {
    all(db, "SELECT account, spent, others, ends, over_until FROM budgets ORDER BY 1", &[], |row| {
        let (spent, others) = (row.get::<_, i64>(1)? as u64, row.get::<_, i64>(2)? as u64);
        Ok(BudgetView { account: row.get(0)?, spent, others, ends: row.get(3)?, over_until: row.get(4)? })
    })
}

fn breakers(db: &Connection) -> rusqlite::Result<Vec<BreakerView>> {
    all(
        db,
        "SELECT origin, resource, failures, closed_until IS NOT NULL, since, reason FROM breakers ORDER BY 1, 2",
        &[],
        |row| {
            Ok(BreakerView {
                origin: row.get(0)?,
                resource: Some(row.get(1)?).filter(|resource: &String| !resource.is_empty()),
                failures: row.get::<_, i64>(2)? as u64,
                open: row.get(3)?,
                since: row.get(4)?,
                reason: row.get(5)?,
            })
        },
    )
}

fn credentials(db: &Connection) -> rusqlite::Result<Vec<CredentialView>> {
    all(db, "SELECT server, account, state, wall FROM credentials ORDER BY 1, 2, 4", &[], |row| {
        Ok(CredentialView { server: row.get(0)?, account: row.get(1)?, state: row.get(2)?, since: row.get(3)? })
    })
}

impl fmt::Display for StateView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "state directory: {}", self.dir.as_deref().unwrap_or("none, in memory"))?;
        for pipeline in &self.pipelines {
            writeln!(f, "\npipeline {}", pipeline.name)?;
            if let Some(file) = &pipeline.file {
                writeln!(f, "  file        {file}")?;
            }
            if let Some(holder) = &pipeline.running {
                writeln!(f, "  running     {holder}")?;
            }
            if let Some(RunView { id, status, begun, ended }) = &pipeline.last_run {
                // Nobody holds the lock of a run that died.
                let status = if status == "running" && pipeline.running.is_none() { "died" } else { status };
                let ended = ended.as_ref().map(|ended| format!(", ended {ended}")).unwrap_or_default();
                writeln!(f, "  last run    {id}: {status}, begun {begun}{ended}")?;
            }
            for CheckpointView { sink, checkpoint, held_here } in &pipeline.checkpoints {
                let whose = if *held_here { "held here" } else { "held by the target" };
                writeln!(f, "  checkpoint  {sink}: epoch {}, {whose}", checkpoint.epoch)?;
                for (source, partitions) in &checkpoint.at {
                    for (partition, position) in partitions {
                        writeln!(f, "                {source} {partition}: {position}")?;
                    }
                }
            }
        }
        for GuardView { origin, under_way, last_took_ms } in &self.guards {
            let took =
                last_took_ms.map(|ms| format!(", the last took {}", super::clock::human(ms))).unwrap_or_default();
            writeln!(f, "\nguard {origin}: {under_way} under way{took}")?;
        }
        for BudgetView { account, spent, others, ends, over_until } in &self.budgets {
            let others = if *others > 0 { format!(", others {others}") } else { String::new() };
            let until = ends.as_ref().map(|ends| format!(" in the day that ends {ends}")).unwrap_or_default();
            writeln!(f, "\nbudget of {account}: {spent} tokens spent{others}{until}")?;
            if let Some(until) = over_until {
                writeln!(f, "  the server said that the day is over until {until}")?;
            }
        }
        for BreakerView { origin, resource, failures, open, since, reason } in &self.breakers {
            let resource = resource.as_ref().map(|resource| format!(" {resource}")).unwrap_or_default();
            let open = if *open { "open" } else { "closed" };
            writeln!(
                f,
                "\nbreaker {origin}{resource}: {open}, {failures} failures in a row since {since}\n  {reason}"
            )?;
        }
        for CredentialView { server, account, state, since } in &self.credentials {
            writeln!(f, "\ncredential of {account} at {server}: {state} since {since}")?;
        }
        Ok(())
    }
}
