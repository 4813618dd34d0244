//! Reads one file from an offset to its end, as a task of its own: bytes → records → pieces, at most a few ahead of whoever takes them.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use towpath_core::{Context, Error, Mark, Piece, Result, RowPosition, batch::handed_over};
use towpath_formats::csv::{CsvDecoder, CsvOptions, Decoded};
use towpath_http::Client;

use crate::{
    config::Compression,
    input::{BEGIN_ANEW, HEAD, Input, Opened, Want, another},
    listing::Item,
    position::{At, Identity},
};

/// What a task gives.
pub(crate) enum Given {
    /// Rows. The mark of the last one is the end of the file.
    Piece(Box<Piece>),
    /// All that was to be read has been given, which is nothing if the file is the one that was known.
    Done,
}

/// What a task needs.
#[derive(Clone)]
pub(crate) struct Reader {
    pub(crate) ctx: Context,
    pub(crate) client: Option<Arc<Client>>,
    pub(crate) csv: Arc<CsvOptions>,
    pub(crate) compression: Compression,
    pub(crate) source_column: bool,
}

/// One file to read.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) item: Item,
    pub(crate) start: Start,
    /// Stop exactly here.
    pub(crate) until: Option<At>,
}

/// Where to begin.
#[derive(Clone, Debug)]
pub(crate) enum Start {
    Anew,
    /// At the beginning, if it is not this one.
    UnlessUnchanged(Identity),
    Behind(At),
}

impl Reader {
    /// Reads a file into `give`. Begins when `turn` says so, and passes the turn on as soon as the file is open: the files of a list take
    /// the guard's permits in the list's order, so the one whose rows are due never waits for one whose rows are not.
    pub(crate) async fn run(
        self,
        job: Job,
        turn: oneshot::Receiver<()>,
        next: oneshot::Sender<()>,
        give: mpsc::Sender<Result<Given>>,
    ) {
        // Also an end without a word is a turn: the one before has failed, and says so itself.
        let _ = turn.await;
        let place = job.item.location.to_string();
        let last = self.read(job, next, &give).await.map(|()| Given::Done);
        let last = last.map_err(|error| if error.to_string().contains(&place) { error } else { error.at(place) });
        // Nobody listens any more only when the source is being closed.
        let _ = give.send(last).await;
    }

    async fn read(&self, job: Job, turn: oneshot::Sender<()>, give: &mpsc::Sender<Result<Given>>) -> Result<()> {
        let Job { item, start, until } = &job;
        let (want, mut decoder, first) = match start {
            Start::Anew => (Want::Whole, CsvDecoder::new(&self.csv)?, RowPosition { record: 1, line: 1, byte: 0 }),
            Start::UnlessUnchanged(identity) => (
                Want::UnlessUnchanged(identity.clone()),
                CsvDecoder::new(&self.csv)?,
                RowPosition { record: 1, line: 1, byte: 0 },
            ),
            Start::Behind(At { next, identity, .. }) => {
                let want = Want::From { byte: next.byte, identity: identity.clone() };
                (want, self.resume(item, identity, *next).await?, *next)
            }
        };
        let opened = Input::open(&self.ctx, self.client.as_deref(), &item.location, self.compression, &want).await?;
        // Whoever is next may go on.
        let _ = turn.send(());
        let Opened::Input(mut input) = opened else { return Ok(()) };
        if let Some(until) = until
            && until.identity != input.identity
        {
            return Err(another(&input.identity, &until.identity));
        }
        if item.bytes.is_none() {
            self.ctx.expect_bytes(input.expected.unwrap_or(0));
        }
        // Behind the last byte before `until`, the rest of the file is as if it were not there.
        let mut left =
            until.as_ref().filter(|until| !until.end).map(|until| until.next.byte.saturating_sub(first.byte));
        let mut giver = Giver {
            reader: self,
            job: &job,
            give,
            identity: input.identity.clone(),
            resumable: input.resumable,
            at: first,
            told: 0,
            schema: None,
            name: None,
        };
        let mut read = 0;
        while left != Some(0) {
            let Some(mut chunk) = input.chunk().await? else { break };
            if let Some(left) = &mut left {
                chunk.truncate(usize::try_from(*left).map_or(chunk.len(), |left| left.min(chunk.len())));
                *left -= chunk.len() as u64;
            }
            read += chunk.len() as u64;
            decoder.push(chunk);
            while let Some(decoded) = decoder.next()? {
                giver.rows(decoded, input.bytes_read()).await?;
            }
        }
        if left.is_some_and(|left| left > 0) {
            return Err(Error::conflict(format!(
                "the file ends {} bytes before the place where it was read to",
                left.unwrap_or(0)
            ))
            .hint(BEGIN_ANEW));
        }
        while let Some(decoded) = decoder.finish()? {
            giver.rows(decoded, input.bytes_read()).await?;
        }
        input.release();
        let schema = decoder.schema();
        giver.end(schema, first.byte + read, input.bytes_read()).await
    }

    /// A decoder that goes on at `at`. The header, which says the names, stands at the beginning, and is looked up there.
    async fn resume(&self, item: &Item, identity: &Identity, at: RowPosition) -> Result<CsvDecoder> {
        let mut bytes = HEAD;
        loop {
            let (head, complete, now) = self.head(item, bytes).await?;
            if now != *identity {
                let what = format!("the file is not the one that was begun: it is now {now}, and was {identity}");
                return Err(Error::conflict(what).hint(BEGIN_ANEW));
            }
            if let Some(schema) = schema_of(&self.csv, head, complete)? {
                return CsvDecoder::resume(&self.csv, &schema, at);
            }
            if complete {
                return Err(Error::conflict("the file has no header any more").hint(BEGIN_ANEW));
            }
            bytes *= 16;
        }
    }

    /// The first `wanted` bytes or a few more, decompressed, and whether that was all of the file.
    pub(crate) async fn head(&self, item: &Item, wanted: u64) -> Result<(Bytes, bool, Identity)> {
        let opened =
            Input::open(&self.ctx, self.client.as_deref(), &item.location, self.compression, &Want::Head(wanted))
                .await?;
        let Opened::Input(mut input) = opened else {
            return Err(Error::internal("the beginning of a file was not given"));
        };
        let mut head = bytes::BytesMut::new();
        let mut complete = false;
        while (head.len() as u64) < wanted {
            match input.chunk().await {
                Ok(Some(chunk)) => head.extend_from_slice(&chunk),
                // A part of the file has been asked for: its end may be the part's.
                Ok(None) => {
                    complete = input.size().is_none_or(|size| size <= wanted);
                    break;
                }
                // A part of something packed breaks off where the part ends.
                Err(error) if head.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        let identity = input.identity.clone();
        input.release();
        Ok((head.freeze(), complete, identity))
    }
}

/// The schema that the beginning of a file says, if it is long enough to say it.
pub(crate) fn schema_of(csv: &CsvOptions, head: Bytes, complete: bool) -> Result<Option<SchemaRef>> {
    let mut decoder = CsvDecoder::new(csv)?;
    decoder.push(head);
    let _ = decoder.next()?;
    if decoder.schema().is_none() && complete {
        let _ = decoder.finish()?;
    }
    Ok(decoder.schema())
}

/// Makes pieces of what is decoded.
struct Giver<'a> {
    reader: &'a Reader,
    job: &'a Job,
    give: &'a mpsc::Sender<Result<Given>>,
    identity: Identity,
    /// Whether reading can go on behind each piece.
    resumable: bool,
    /// Where the next record begins.
    at: RowPosition,
    /// Bytes that earlier pieces have told of.
    told: u64,
    /// With `_source`, and without.
    schema: Option<(SchemaRef, SchemaRef)>,
    /// The file's name, as often as the longest batch has rows.
    name: Option<StringArray>,
}

impl Giver<'_> {
    async fn rows(&mut self, decoded: Decoded, bytes_read: u64) -> Result<()> {
        let Decoded { rows, rejects, first, end } = decoded;
        self.at = end;
        let rows = self.with_source(rows)?;
        let partition = self.job.item.partition.clone();
        let mark = if self.resumable {
            Mark::At(partition, At { next: end, end: false, identity: self.identity.clone() }.position())
        } else {
            Mark::Within(partition)
        };
        let bytes = self.news(bytes_read);
        let piece = Piece { rows, rejects, mark, bytes, first_row: Some(first.record.saturating_sub(1)) };
        self.send(piece).await
    }

    /// The end of the file, or the place where it was to be stopped, as a piece without rows.
    async fn end(mut self, schema: Option<SchemaRef>, byte: u64, bytes_read: u64) -> Result<()> {
        let until = self.job.until.as_ref();
        let stopped = until.is_some_and(|until| !until.end);
        let next = if stopped { self.at } else { RowPosition { byte, ..self.at } };
        let at = At { next, end: !stopped, identity: self.identity.clone() };
        if let Some(until) = until.filter(|until| **until != at) {
            let what = format!("the file was read to '{}' and not to '{}' as before", at.position(), until.position());
            return Err(Error::conflict(what).hint(BEGIN_ANEW));
        }
        if stopped {
            // The last piece has ended exactly there.
            return Ok(());
        }
        let rows = RecordBatch::new_empty(schema.unwrap_or_else(|| Arc::new(Schema::empty())));
        let rows = self.with_source(rows)?;
        let bytes = self.news(bytes_read);
        let mark = Mark::At(self.job.item.partition.clone(), at.position());
        self.send(Piece { rows, rejects: vec![], mark, bytes, first_row: Some(self.at.record.saturating_sub(1)) }).await
    }

    fn news(&mut self, read: u64) -> u64 {
        let news = read.saturating_sub(self.told);
        self.told = read;
        news
    }

    async fn send(&self, piece: Piece) -> Result<()> {
        self.give.send(Ok(Given::Piece(Box::new(piece)))).await.map_err(|_| Error::cancelled())?;
        handed_over();
        Ok(())
    }

    fn with_source(&mut self, rows: RecordBatch) -> Result<RecordBatch> {
        if !self.reader.source_column {
            return Ok(rows);
        }
        let narrow = rows.schema();
        let schema = match &self.schema {
            Some((known, wide)) if Arc::ptr_eq(known, &narrow) => Arc::clone(wide),
            _ => {
                if narrow.column_with_name(SOURCE).is_some() {
                    return Err(Error::config(format!("the file has a column {SOURCE} itself"))
                        .hint("leave `source_column` out"));
                }
                let mut fields = narrow.fields().to_vec();
                fields.push(Arc::new(Field::new(SOURCE, DataType::Utf8, true)));
                let wide = Arc::new(Schema::new_with_metadata(fields, narrow.metadata().clone()));
                self.schema = Some((narrow, Arc::clone(&wide)));
                wide
            }
        };
        let longest = self.name.as_ref().map_or(0, Array::len);
        if longest < rows.num_rows() || self.name.is_none() {
            let name = self.job.item.location.to_string();
            self.name = Some(std::iter::repeat_n(Some(name), rows.num_rows()).collect());
        }
        let mut columns = rows.columns().to_vec();
        if let Some(name) = &self.name {
            columns.push(Arc::new(name.slice(0, rows.num_rows())) as ArrayRef);
        }
        RecordBatch::try_new(schema, columns)
            .map_err(|error| Error::internal("a file's name as a column").because(error))
    }
}

/// The column of a row's file.
pub(crate) const SOURCE: &str = "_source";
