//! A selection of dead letters as a source.

use std::path::PathBuf;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use arrow_select::concat::concat_batches;
use async_trait::async_trait;
use towpath_core::{
    Context, Error, Known, Mark, Name, Next, Partition, Piece, Position, Result, Resume, Run, Source, SourcePlan, Work,
    source::{Replay, Until},
};

use super::{letter, row};
use crate::state::StateStore;

/// How many letters are read at once.
const AT_ONCE: usize = 500;

/// Gives the rows of a selection, in order. Its one partition is the selection, positions in it are places: `place 499`.
pub(super) struct LetterSource {
    store: StateStore,
    pipeline: Name,
    sink: Name,
    folders: [PathBuf; 2],
    partition: Partition,
    count: u64,
    schema: SchemaRef,
    open: Option<Reading>,
}

struct Reading {
    /// Selections that were done: their positions are not needed any more.
    gone: Vec<Partition>,
    /// The last place given.
    at: i64,
    until: Option<Until>,
}

impl LetterSource {
    pub(super) fn new(
        store: &StateStore,
        pipeline: &Name,
        sink: &Name,
        folders: [PathBuf; 2],
        selection: u64,
        count: u64,
        schema: &SchemaRef,
    ) -> Self {
        let partition = Partition::new(format!("selection {selection}"));
        Self {
            store: store.clone(),
            pipeline: pipeline.clone(),
            sink: sink.clone(),
            folders,
            partition,
            count,
            schema: SchemaRef::clone(schema),
            open: None,
        }
    }

    /// How far the selection has been sent.
    fn begin(&self, ctx: &Context, resume: &Resume) -> Result<i64> {
        let from = resume.from.as_ref().and_then(|from| from.position(ctx.component(), &self.partition));
        from.map_or(Ok(-1), place)
    }
}

fn place(position: &Position) -> Result<i64> {
    let place = position.0.strip_prefix("place ").and_then(|place| place.parse().ok());
    place.ok_or_else(|| Error::conflict(format!("'{position}' is no place in a selection")))
}

#[async_trait]
impl Source for LetterSource {
    async fn plan(&mut self, ctx: &Context, _: &Run, resume: &Resume) -> Result<SourcePlan> {
        let left = self.store.selected(&self.pipeline, &self.sink, self.begin(ctx, resume)?, 1)?;
        let what = format!("{} dead letters of {}", self.count, self.sink);
        Ok(SourcePlan {
            schema: Known::Now(SchemaRef::clone(&self.schema)),
            work: left.first().map(|_| Work { what, bytes: None }).into_iter().collect(),
            complete_work: true,
            replay: Replay::FromPosition,
            carries: true,
            rereads: false,
            identity: format!("dead letters of {} {}", self.pipeline, self.sink),
            notes: vec![],
        })
    }

    async fn open(&mut self, ctx: &Context, _: &Run, resume: &Resume) -> Result<()> {
        let until = resume.until.as_ref().map(|until| Until::new(ctx.component(), resume.from.as_ref(), until));
        let known = resume.from.as_ref().and_then(|from| from.of(ctx.component()));
        let gone = known.into_iter().flat_map(|known| known.keys()).filter(|known| **known != self.partition);
        self.open = Some(Reading { gone: gone.cloned().collect(), at: self.begin(ctx, resume)?, until });
        Ok(())
    }

    async fn next(&mut self) -> Result<Next> {
        let Some(reading) = &mut self.open else { return Err(Error::internal("the source is not open")) };
        if let Some(partition) = reading.gone.pop() {
            let none = RecordBatch::new_empty(SchemaRef::clone(&self.schema));
            return Ok(Next::Piece(Box::new(Piece::new(none, Mark::Gone(partition)))));
        }
        let stop = match reading.until.as_ref() {
            None => i64::MAX,
            Some(until) => match until.of(&self.partition) {
                Some(position) => place(position)?,
                None => return Ok(Next::End),
            },
        };
        let mut letters = self.store.selected(&self.pipeline, &self.sink, reading.at, AT_ONCE)?;
        letters.retain(|(place, _)| *place <= stop);
        let Some((last, _)) = letters.last().copied() else { return Ok(Next::End) };
        let mut rows = Vec::with_capacity(letters.len());
        for (_, id) in letters {
            let entry = letter(&self.folders, id)?;
            let gone = || Error::conflict("a dead letter was changed while it was being sent again");
            rows.push(row(&self.schema, &entry).ok_or_else(gone)?);
        }
        let rows = concat_batches(&self.schema, &rows)
            .map_err(|error| Error::internal("dead letters cannot be joined").because(error))?;
        reading.at = last;
        let mark = Mark::At(self.partition.clone(), Position::new(format!("place {last}")));
        if let Some(until) = &mut reading.until {
            until.reached(&mark);
        }
        Ok(Next::Piece(Box::new(Piece::new(rows, mark))))
    }

    async fn close(&mut self) -> Result<()> {
        self.open = None;
        Ok(())
    }
}
