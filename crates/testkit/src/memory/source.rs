//! The source in memory, and the origin it reads from.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use arrow_array::RecordBatch;
use async_trait::async_trait;
use towpath_core::{
    Context, Effect, Error, Known, Mark, Next, Partition, Piece, Position, Reject, Result, Resume, Run, Settled,
    Source, SourcePlan, Token, Work,
    source::{Replay, Until},
};

use super::{Fault, Faults, Point, lock, refuse};

/// Partitions of prepared pieces, as a file server would hold files. Cheap to clone; all clones are the same origin.
#[derive(Clone, Debug, Default)]
pub struct MemoryOrigin {
    state: Arc<Mutex<State>>,
    faults: Faults,
    tokens: Arc<AtomicU64>,
}

#[derive(Clone, Debug, Default)]
struct State {
    partitions: Vec<Stored>,
    interleave: bool,
    carries: bool,
    rereads: bool,
    one_by_one: bool,
    pauses: u32,
    settled: Vec<Settled>,
    calls: Vec<&'static str>,
}

#[derive(Clone, Debug)]
struct Stored {
    name: Partition,
    /// Changes with the content, as an ETag does.
    version: u64,
    pieces: Vec<(RecordBatch, Vec<Reject>)>,
    /// How many pieces lie between two boundaries; the end is always one.
    stride: usize,
    /// Breaks off behind so many pieces.
    cut: Option<usize>,
}

impl Stored {
    fn position(&self, pieces: usize) -> Position {
        Position::new(format!("v{} piece {pieces}", self.version))
    }
    fn is_boundary(&self, pieces: usize) -> bool {
        pieces == self.pieces.len() || pieces.is_multiple_of(self.stride)
    }
    /// How many pieces a position covers; `None` if it is not a position of this content.
    fn covered(&self, position: &Position) -> Option<usize> {
        (0..=self.pieces.len()).find(|pieces| self.is_boundary(*pieces) && self.position(*pieces) == *position)
    }
}

impl MemoryOrigin {
    /// Without partitions.
    pub fn new() -> Self {
        Self::default()
    }
    /// Adds a partition, or changes the content of one that is there. A commit may stand behind every `stride`-th piece and at
    /// the end.
    pub fn set(&self, partition: &str, pieces: Vec<RecordBatch>, stride: usize) {
        let pieces = pieces.into_iter().map(|rows| (rows, vec![])).collect();
        self.set_with_rejects(partition, pieces, stride);
    }
    /// The same, with rows that could not be made into one.
    pub fn set_with_rejects(&self, partition: &str, pieces: Vec<(RecordBatch, Vec<Reject>)>, stride: usize) {
        let mut state = lock(&self.state);
        let name = Partition::new(partition);
        let stride = stride.max(1);
        match state.partitions.iter_mut().find(|stored| stored.name == name) {
            Some(stored) => *stored = Stored { name, version: stored.version + 1, pieces, stride, cut: None },
            None => state.partitions.push(Stored { name, version: 1, pieces, stride, cut: None }),
        }
    }
    /// From now on a partition breaks off behind so many pieces.
    pub fn cut(&self, partition: &str, pieces: usize) {
        let name = Partition::new(partition);
        let mut state = lock(&self.state);
        state.partitions.iter_mut().filter(|stored| stored.name == name).for_each(|stored| stored.cut = Some(pieces));
    }
    /// A piece of each partition in turn where boundaries allow it, as several downloads side by side would come.
    pub fn interleave(&self) {
        lock(&self.state).interleave = true;
    }
    /// A later run reads only what has changed since.
    pub fn carries(&self) {
        lock(&self.state).carries = true;
    }
    /// Its plan says that it reads again what earlier runs have read.
    pub fn rereads(&self) {
        lock(&self.state).rereads = true;
    }
    /// Every piece is a message, settled by itself.
    pub fn one_by_one(&self) {
        lock(&self.state).one_by_one = true;
    }
    /// `next` waits so many times before it gives anything.
    pub fn pauses(&self, pauses: u32) {
        lock(&self.state).pauses = pauses;
    }
    /// What shall fail.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }
    /// What sources were told so far.
    pub fn settled(&self) -> Vec<Settled> {
        lock(&self.state).settled.clone()
    }
    /// The calls of `open` and `close` so far, by name.
    pub fn calls(&self) -> Vec<&'static str> {
        lock(&self.state).calls.clone()
    }
    /// All rows, partition by partition.
    pub fn rows(&self) -> Vec<RecordBatch> {
        let state = lock(&self.state);
        state.partitions.iter().flat_map(|stored| stored.pieces.iter().map(|(rows, _)| rows.clone())).collect()
    }
    /// A source that reads it.
    pub fn source(&self) -> MemorySource {
        MemorySource { origin: self.clone(), reading: None }
    }
}

/// Reads a [`MemoryOrigin`].
///
/// * Everything it holds stands in `self`, and `next` changes it only behind its last await: dropping the future loses nothing.
/// * A position carries the version of the content. Within a run another version is a Conflict, never a mixture.
/// * With `until` it reads only what `until` names, and answers Conflict where a position cannot be met.
#[derive(Debug)]
pub struct MemorySource {
    origin: MemoryOrigin,
    reading: Option<Reading>,
}

#[derive(Debug)]
struct Reading {
    /// With the next piece of each, and the end.
    left: Vec<(Stored, usize, usize)>,
    current: usize,
    until: Option<Until>,
    ctx: Context,
}

impl MemorySource {
    /// What of each partition there is to read: (partition, first piece, end).
    fn left(&self, ctx: &Context, run: &Run, resume: &Resume) -> Result<Vec<(Stored, usize, usize)>> {
        let state = lock(&self.origin.state);
        let name = ctx.component();
        let mut left = vec![];
        for stored in &state.partitions {
            let given = resume.from.as_ref().and_then(|from| from.position(name, &stored.name));
            let covered = given.and_then(|position| stored.covered(position));
            let begin = match (given, resume.same_run(run).is_some()) {
                (None, _) => 0,
                (Some(position), true) => covered.ok_or_else(|| {
                    let what = format!("position '{position}' is not one of this content");
                    Error::conflict(what).at(stored.name.to_string()).hint("begin a new run")
                })?,
                (Some(_), false) if state.carries && !resume.whole && covered == Some(stored.pieces.len()) => continue,
                (Some(_), false) => 0,
            };
            let end = match &resume.until {
                None => stored.pieces.len(),
                Some(until) => match until.position(name, &stored.name) {
                    None => continue,
                    Some(position) => stored.covered(position).filter(|end| *end >= begin).ok_or_else(|| {
                        let what = format!("cannot stop at position '{position}'");
                        Error::conflict(what).at(stored.name.to_string()).hint("begin a new run")
                    })?,
                },
            };
            if begin < end {
                left.push((stored.clone(), begin, end));
            }
        }
        Ok(left)
    }
}

impl Reading {
    /// The piece that is next. Changes nothing, so that the caller can still wait.
    fn peek(&self) -> Option<(&Stored, usize)> {
        let (stored, at, _) = self.left.get(self.current)?;
        Some((stored, *at))
    }
    /// Goes past it.
    fn advance(&mut self, interleave: bool) {
        let Some((stored, at, end)) = self.left.get_mut(self.current) else { return };
        *at += 1;
        if *at == *end {
            self.left.remove(self.current);
        } else if interleave && stored.is_boundary(*at) {
            self.current += 1;
        }
        if self.current >= self.left.len() {
            self.current = 0;
        }
    }
}

#[async_trait]
impl Source for MemorySource {
    async fn plan(&mut self, ctx: &Context, run: &Run, resume: &Resume) -> Result<SourcePlan> {
        self.origin.faults.strike(Point::Plan).await?;
        let list = towpath_core::Call::new("list the partitions", "memory:", Effect::Cheap);
        ctx.call(&list, || async { Ok(()) }).await?;
        let left = self.left(ctx, run, resume)?;
        let state = lock(&self.origin.state);
        let schema = state.partitions.iter().find_map(|stored| stored.pieces.first()).map(|(rows, _)| rows.schema());
        Ok(SourcePlan {
            schema: schema.map_or(Known::No, Known::Now),
            work: left.iter().map(|(stored, ..)| Work { what: stored.name.to_string(), bytes: None }).collect(),
            complete_work: true,
            replay: if state.one_by_one { Replay::OneByOne } else { Replay::FromPosition },
            carries: state.carries,
            rereads: state.rereads,
            identity: format!("memory {}", ctx.component()),
            notes: vec![],
        })
    }

    async fn open(&mut self, ctx: &Context, run: &Run, resume: &Resume) -> Result<()> {
        lock(&self.origin.state).calls.push("open");
        self.origin.faults.strike(Point::Open).await?;
        let left = self.left(ctx, run, resume)?;
        let until = resume.until.as_ref().map(|until| Until::new(ctx.component(), resume.from.as_ref(), until));
        self.reading = Some(Reading { left, current: 0, until, ctx: ctx.clone() });
        Ok(())
    }

    async fn next(&mut self) -> Result<Next> {
        let fault = self.origin.faults.due(Point::Next);
        if let Some(fault) = fault.filter(|fault| *fault != Fault::LoseReply) {
            return Err(refuse(Point::Next, fault).await);
        }
        let (pauses, interleave, one_by_one) = {
            let state = lock(&self.origin.state);
            (state.pauses, state.interleave, state.one_by_one)
        };
        for _ in 0..pauses {
            tokio::task::yield_now().await;
        }
        let Some(reading) = &mut self.reading else { return Err(Error::internal("the source is not open")) };
        let Some((stored, at)) = reading.peek() else {
            return match &reading.until {
                Some(until) if !until.is_met() => Err(Error::conflict("what was read before is not there any more")),
                _ => Ok(Next::End),
            };
        };
        if stored.cut.is_some_and(|cut| at >= cut) {
            let place = stored.name.to_string();
            return Err(Error::data(format!("the content breaks off behind piece {at}")).at(place));
        }
        let read = towpath_core::Call::new("read a piece", "memory:", Effect::Read);
        let Some(piece) = stored.pieces.get(at).cloned() else { return Err(Error::internal("no such piece")) };
        let piece = reading.ctx.call(&read, || std::future::ready(Ok(piece.clone()))).await?;
        // From here on nothing waits.
        let mark = match (one_by_one, stored.is_boundary(at + 1)) {
            (true, _) => Mark::One(Token(self.origin.tokens.fetch_add(1, Ordering::Relaxed))),
            (false, true) => Mark::At(stored.name.clone(), stored.position(at + 1)),
            (false, false) => Mark::Within(stored.name.clone()),
        };
        if let Some(until) = &mut reading.until {
            until.reached(&mark);
        }
        reading.advance(interleave);
        let (rows, rejects) = piece;
        let bytes = rows.get_array_memory_size() as u64;
        Ok(Next::Piece(Box::new(Piece { rows, rejects, mark, bytes, first_row: None })))
    }

    async fn settled(&mut self, settled: Settled) -> Result<()> {
        self.origin.faults.strike(Point::Settled).await?;
        lock(&self.origin.state).settled.push(settled);
        Ok(())
    }

    async fn close(&mut self) -> Result<()> {
        lock(&self.origin.state).calls.push("close");
        self.reading = None;
        self.origin.faults.strike(Point::Close).await
    }
}
