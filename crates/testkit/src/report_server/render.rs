//! The body of a rendering: rows as they are made, at the pace and up to the point that was asked for.

use std::{io::Write as _, time::Duration};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures::{Stream, stream};
use tokio::time::Instant;

use super::{
    faults::Fault,
    log::Rendering,
    rows::{Span, Writer, header},
};

/// How much is made at once.
const CHUNK: usize = 64 * 1024;

/// What a CSV looks like.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub span: Span,
    pub textboxes: bool,
    pub ragged_every: Option<u64>,
    /// Begins with the UTF-8 byte order mark.
    pub bom: bool,
    /// `rc:NoHeader=true`
    pub no_header: bool,
    /// `rc:ExcelMode` was not switched off: a block for the title and one for the rows, a blank line between.
    pub title: Option<String>,
}

impl Shape {
    /// What stands before the rows.
    fn head(&self) -> Vec<u8> {
        let mut head = Vec::new();
        if self.bom {
            head.extend_from_slice(b"\xef\xbb\xbf");
        }
        if let Some(title) = &self.title {
            head.extend_from_slice(format!("ReportTitle\r\n{title}\r\n\r\n").as_bytes());
        }
        if !self.no_header {
            head.extend_from_slice(header(self.textboxes).as_bytes());
        }
        head
    }
    fn writer(&self) -> Writer {
        Writer::new(self.span, self.ragged_every)
    }
    /// How many bytes it has, by making it once and throwing it away.
    pub fn length(&self) -> u64 {
        let (mut writer, mut bytes, mut buffer) = (self.writer(), self.head().len() as u64, Vec::new());
        loop {
            buffer.clear();
            let more = writer.fill(&mut buffer, CHUNK);
            bytes += buffer.len() as u64;
            if !more {
                return bytes;
            }
        }
    }
}

/// A body on its way.
#[derive(Debug)]
pub(super) struct Body {
    writer: Writer,
    gzip: Option<GzEncoder<Vec<u8>>>,
    /// Made and not handed over.
    ready: Vec<u8>,
    at: usize,
    made: u64,
    /// Nothing more will be made.
    finished: bool,
    sent: u64,
    /// When its first byte was asked for.
    begun: Option<Instant>,
    rate: Option<u64>,
    cut: Option<u64>,
    stall: Option<u64>,
    end: Option<u64>,
    entry: Rendering,
}

impl Body {
    pub fn new(shape: &Shape, gzip: bool, faults: &[Fault], rate: Option<u64>, entry: Rendering) -> Self {
        let find = |pick: fn(&Fault) -> Option<u64>| faults.iter().find_map(pick);
        let mut body = Self {
            writer: shape.writer(),
            gzip: gzip.then(|| GzEncoder::new(Vec::new(), Compression::fast())),
            ready: vec![],
            at: 0,
            made: 0,
            finished: false,
            sent: 0,
            begun: None,
            rate: find(|fault| if let Fault::Rate(rate) = fault { Some(*rate) } else { None }).or(rate),
            cut: find(|fault| if let Fault::CutAfter(bytes) = fault { Some(*bytes) } else { None }),
            stall: find(|fault| if let Fault::StallAfter(bytes) = fault { Some(*bytes) } else { None }),
            end: find(|fault| if let Fault::EndAfter(bytes) = fault { Some(*bytes) } else { None }),
            entry,
        };
        body.encode(shape.head());
        body
    }

    /// As a stream of chunks, for the connection to send.
    pub fn into_stream(self) -> impl Stream<Item = std::io::Result<Bytes>> + Send {
        stream::unfold(self, |mut body| async move { body.chunk().await.map(|chunk| (chunk, body)) })
    }

    /// Puts bytes into what is ready; those behind the point where the body shall end are dropped.
    fn encode(&mut self, mut raw: Vec<u8>) {
        let mut ends_here = false;
        if let Some(end) = self.end {
            let left = usize::try_from(end.saturating_sub(self.made)).unwrap_or(usize::MAX);
            ends_here = raw.len() >= left;
            raw.truncate(left);
        }
        self.made += raw.len() as u64;
        match &mut self.gzip {
            None => self.ready.extend_from_slice(&raw),
            Some(gzip) => {
                // Writing into memory cannot fail.
                let _ = gzip.write_all(&raw);
                if ends_here {
                    let _ = gzip.flush();
                }
                self.ready.append(gzip.get_mut());
            }
        }
        if ends_here {
            self.finished = true;
            self.gzip = None;
        }
    }

    /// Makes more until something is ready or nothing is left.
    fn make(&mut self) {
        self.ready.clear();
        self.at = 0;
        while self.ready.is_empty() && !self.finished {
            let mut raw = Vec::with_capacity(CHUNK + 512);
            let more = self.writer.fill(&mut raw, CHUNK);
            self.encode(raw);
            if !more && !self.finished {
                self.finished = true;
                if let Some(gzip) = self.gzip.take() {
                    self.ready.extend(gzip.finish().unwrap_or_default());
                }
            }
        }
    }

    async fn chunk(&mut self) -> Option<std::io::Result<Bytes>> {
        if self.at == self.ready.len() {
            self.make();
        }
        let left = |limit: Option<u64>| limit.map(|limit| limit.saturating_sub(self.sent));
        if left(self.stall) == Some(0) {
            return std::future::pending().await;
        }
        if left(self.cut) == Some(0) {
            // The connection writes what it has while we wait.
            tokio::task::yield_now().await;
            return Some(Err(std::io::Error::new(std::io::ErrorKind::ConnectionAborted, "cut as told")));
        }
        // A tenth of a second's worth.
        let pace = self.rate.map(|rate| (rate / 10).max(1));
        let most = [Some(CHUNK as u64), pace, left(self.stall), left(self.cut)].into_iter().flatten().min();
        let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(CHUNK);
        let chunk = Bytes::copy_from_slice(&self.ready[self.at..self.ready.len().min(self.at + most)]);
        if chunk.is_empty() {
            return None;
        }
        if let Some(rate) = self.rate {
            let due = Duration::from_secs_f64(self.sent as f64 / rate.max(1) as f64);
            let begun = *self.begun.get_or_insert_with(Instant::now);
            tokio::time::sleep_until(begun + due).await;
        }
        self.at += chunk.len();
        self.sent += chunk.len() as u64;
        self.entry.sent(self.writer.written(), self.sent);
        if self.finished && self.at == self.ready.len() && self.end.is_none() {
            // With a Content-Length nobody asks again.
            self.entry.complete();
        }
        Some(Ok(chunk))
    }
}
