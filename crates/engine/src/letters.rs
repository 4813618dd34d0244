//! From a reject to the dead letters: who refused it, where it came from, in which epoch; and when there are too many.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arrow_array::RecordBatch;
use towpath_core::{Error, Name, Original, Reject, Result, Run, batch::PieceId, pipeline::StopAfter};

use crate::{
    dead_letters::{DeadLetters, Domain, Entry, Row, Where},
    diff::Watch,
    graph::Graph,
    reasons::Reasons,
};

/// In the middle of a run a share is reckoned only once so many rows have been read.
const ROWS_BEFORE_A_SHARE: u64 = 1000;
/// At the end it is reckoned of however few, but so many are to be rejected: of five rows one is a fifth.
const REJECTED_BEFORE_A_SHARE: u64 = 20;

/// Takes rejects from every stage. The lock is no bottleneck: a rejected row is the exception.
pub(crate) struct Letters {
    file: Mutex<DeadLetters>,
    run: Run,
    /// The epoch that is open: its entries count only once every sink of their domain has committed it.
    epoch: AtomicU64,
    rows_read: AtomicU64,
    refused: AtomicU64,
    stop_after: Option<StopAfter>,
    /// Only where there may be too many.
    reasons: Mutex<Reasons>,
    domains: std::collections::BTreeMap<Name, Domain>,
    /// In this attempt, by component.
    by_component: std::collections::BTreeMap<Name, Tally>,
    watch: Option<Arc<Watch>>,
    as_of: Option<u64>,
}

/// Rows of a component.
#[derive(Default)]
struct Tally {
    /// By a source.
    read: AtomicU64,
    refused: AtomicU64,
}

/// Who refused, and what.
pub(crate) struct Refusal<'a> {
    pub(crate) component: &'a Name,
    /// Where the rows came from; `None` for rows that came out of many (a join).
    pub(crate) piece: Option<&'a PieceId>,
    /// What row numbers refer to.
    pub(crate) rows: Option<&'a RecordBatch>,
}

/// Whose commits decide about a component's entries: `shared`, or the sinks its rows can reach.
pub(crate) fn domain(graph: &Graph, component: &Name) -> Domain {
    let sinks = graph.sinks_of(component);
    if sinks.len() == graph.sinks.len() && sinks.len() > 1 { Domain::Shared } else { Domain::Sink(joined(&sinks)) }
}

fn joined(sinks: &BTreeSet<Name>) -> Name {
    sinks.iter().map(|sink| sink.to_string()).collect::<Vec<_>>().join("+").into()
}

/// The epoch that every sink of a domain has committed.
pub(crate) fn committed(domain: &Domain, epoch_of: impl Fn(&str) -> u64, all: &[Name]) -> u64 {
    match domain {
        Domain::Shared => all.iter().map(|sink| epoch_of(sink)).min().unwrap_or(0),
        Domain::Sink(sinks) => sinks.split('+').map(epoch_of).min().unwrap_or(0),
    }
}

impl Letters {
    pub(crate) fn new(graph: &Graph, run: &Run, file: DeadLetters, open_epoch: u64, watch: Option<Arc<Watch>>) -> Self {
        let names = graph.sources.iter().map(|node| &node.name).chain(graph.transforms.iter().map(|node| &node.name));
        let names: Vec<&Name> = names.chain(graph.sinks.iter().map(|node| &node.name)).collect();
        Self {
            file: Mutex::new(file),
            run: run.clone(),
            epoch: AtomicU64::new(open_epoch),
            rows_read: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            stop_after: graph.errors.stop_after,
            reasons: Mutex::default(),
            domains: names.iter().map(|&name| (name.clone(), domain(graph, name))).collect(),
            by_component: names.iter().map(|&name| (name.clone(), Tally::default())).collect(),
            watch,
            as_of: graph.replay.as_ref().map(|replay| replay.as_of),
        }
    }

    /// Counts rows that a source has read, for the share.
    pub(crate) fn read(&self, source: &Name, rows: u64) {
        self.rows_read.fetch_add(rows, Ordering::Relaxed);
        if let Some(tally) = self.by_component.get(source) {
            tally.read.fetch_add(rows, Ordering::Relaxed);
        }
    }

    /// A source has ended: an error if too many of its own rows were refused, before what is made of the others is written.
    pub(crate) fn source_ended(&self, source: &Name) -> Result<()> {
        let Some(tally) = self.by_component.get(source) else { return Ok(()) };
        self.check_share(tally.refused.load(Ordering::Relaxed), tally.read.load(Ordering::Relaxed))
    }

    /// The run has come to its end: an error if too many were refused, however few there were.
    pub(crate) fn run_ended(&self) -> Result<()> {
        self.check_share(self.refused.load(Ordering::Relaxed), self.rows_read.load(Ordering::Relaxed))
    }

    fn check_share(&self, refused: u64, read: u64) -> Result<()> {
        match self.stop_after {
            Some(limit @ StopAfter::Share(share))
                if refused >= REJECTED_BEFORE_A_SHARE && refused as f64 > read as f64 * share.0 =>
            {
                Err(self.too_many(refused, read, limit))
            }
            _ => Ok(()),
        }
    }

    /// Keeps refused rows. An error if there are too many now.
    pub(crate) fn keep(&self, refusal: &Refusal<'_>, rejects: Vec<Reject>) -> Result<()> {
        let Some(domain) = self.domains.get(refusal.component) else {
            return Err(Error::internal(format!("'{}' is not of this pipeline", refusal.component)));
        };
        let (epoch, count) = (self.epoch.load(Ordering::Acquire), rejects.len() as u64);
        if let Some(counter) = self.by_component.get(refusal.component) {
            counter.refused.fetch_add(count, Ordering::Relaxed);
        }
        if self.stop_after.is_some() {
            let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
            rejects.iter().for_each(|reject| reasons.note(refusal.component, reject));
        }
        {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            for reject in rejects {
                let entry = self.entry(refusal, reject, domain, epoch)?;
                if let Some(watch) = &self.watch {
                    watch.refused(&entry);
                }
                file.append(&entry)?;
            }
        }
        let refused = self.refused.fetch_add(count, Ordering::Relaxed) + count;
        let read = self.rows_read.load(Ordering::Relaxed);
        match self.stop_after {
            Some(limit @ StopAfter::Rows(rows)) if refused >= rows.max(1) => Err(self.too_many(refused, read, limit)),
            Some(StopAfter::Share(_)) if read >= ROWS_BEFORE_A_SHARE => self.check_share(refused, read),
            _ => Ok(()),
        }
    }

    /// How many rows these components have refused in this attempt.
    pub(crate) fn refused_by(&self, components: &[Name]) -> u64 {
        components
            .iter()
            .filter_map(|name| self.by_component.get(name))
            .map(|tally| tally.refused.load(Ordering::Relaxed))
            .sum()
    }

    fn too_many(&self, refused: u64, read: u64, limit: StopAfter) -> Error {
        too_many(refused, read, limit, self.reasons.lock().unwrap_or_else(PoisonError::into_inner).told())
    }

    fn entry(&self, refusal: &Refusal<'_>, reject: Reject, domain: &Domain, epoch: u64) -> Result<Entry> {
        let gone = || Error::internal(format!("{} rejected a row without saying which", refusal.component));
        let mut row_in_piece = None;
        let row = match &reject.row {
            Original::Bytes(bytes) => Row::Bytes(bytes.clone()),
            Original::Late(row) => Row::of(row, 0),
            Original::Row(index) => {
                row_in_piece = Some(*index as u64);
                let rows = refusal.rows.filter(|rows| *index < rows.num_rows()).ok_or_else(gone)?;
                Row::of(rows, *index)
            }
        };
        Ok(Entry {
            run: self.run.id.clone(),
            component: refusal.component.clone(),
            source: refusal.piece.map(|piece| piece.source.clone()),
            partition: refusal.piece.and_then(|piece| piece.mark.partition().cloned()),
            position: match reject.position {
                Some(position) => Where::Record(position),
                None => Where::Piece { piece: refusal.piece.map(|piece| piece.seq), row: row_in_piece },
            },
            domain: domain.clone(),
            epoch,
            as_of: self.as_of,
            kind: reject.kind,
            reason: reject.reason,
            column: reject.column,
            row,
        })
    }

    /// Makes everything kept so far durable. Before every commit.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).sync()
    }

    /// Every sink has committed everything that is in it: none of it needs to be looked at again.
    pub(crate) fn seal(&self) -> Result<()> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).seal()
    }

    /// The next epoch is open.
    pub(crate) fn next_epoch(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::Release);
    }

    /// How many entries the run has made, those from before it was taken up included.
    pub(crate) fn count(&self) -> u64 {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).count()
    }
}

/// The message by which a run with too many rejects is known to have been stopped by them.
const TOO_MANY: &str = "too many rejected rows";

fn too_many(refused: u64, read: u64, limit: StopAfter, reasons: String) -> Error {
    let limit = match limit {
        StopAfter::Rows(rows) => rows.to_string(),
        StopAfter::Share(share) => share.to_string(),
    };
    // A row may be refused by each of several sinks, and a source may refuse what is no row yet.
    let share = match read {
        0 => String::new(),
        read => format!(" of {read} read ({:.1}%)", refused as f64 * 100.0 / read as f64),
    };
    Error::data(format!("{TOO_MANY}: {refused}{share}, and stop_after is {limit}"))
        .because(reasons)
        .hint("look at them with `towpath dlq list`; when the cause is mended, the next run takes this one up")
}

/// Whether an error is the one that stops a run with too many rejects.
pub(crate) fn is_too_many(error: &Error) -> bool {
    error.kind() == towpath_core::ErrorKind::Data && error.message().starts_with(TOO_MANY)
}
