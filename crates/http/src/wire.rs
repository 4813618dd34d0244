//! Bytes going out and coming in, under time limits, counted; an answer that ends early is an error.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::stream::BoxStream;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};
use towpath_core::{Error, Period, Result, Retry};

use crate::{connection::Keep, options::Timeouts, request::Body};

/// The time limits of one `send`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    connect: Duration,
    first_byte: Duration,
    idle: Duration,
    total: Option<(Instant, Duration)>,
}

impl Limits {
    /// The clock of the total starts now.
    pub fn start(timeouts: &Timeouts) -> Self {
        Self {
            connect: timeouts.connecting(),
            first_byte: timeouts.first_byte(),
            idle: timeouts.idle(),
            total: timeouts.total.map(|total| (Instant::now() + total.0, total.0)),
        }
    }

    /// Waits for `future`, at most `limit` (if any) and never past the total; `missed` says what did not come.
    async fn within<T>(
        &self,
        limit: Option<(Duration, &str)>,
        future: impl Future<Output = T>,
        missed: &str,
    ) -> Result<T> {
        let own = limit.map(|(limit, name)| (Instant::now() + limit, limit, name));
        let total = self.total.map(|(until, total)| (until, total, "total"));
        let first = match (own, total) {
            (Some(own), Some(total)) => Some(if own.0 <= total.0 { own } else { total }),
            (own, total) => own.or(total),
        };
        let Some((until, limit, name)) = first else { return Ok(future.await) };
        timeout_at(until, future).await.map_err(|_| self::missed(missed, limit, name))
    }

    /// Waits for the next piece of an answer.
    pub async fn idle<T>(&self, piece: impl Future<Output = T>) -> Result<T> {
        self.within(Some((self.idle, "idle")), piece, "nothing more of the answer came").await
    }

    /// Waits for a connection.
    pub async fn connecting<T>(&self, connection: impl Future<Output = T>) -> Result<T> {
        self.within(Some((self.connect, "connect")), connection, "no connection").await
    }

    /// The error for a connection that took longer than `connect`.
    pub fn no_connection(&self) -> Error {
        missed("no connection", self.connect, "connect")
    }

    /// Waits for the head of an answer: as long as the body is being sent only the total counts, then `first_byte`.
    pub async fn head<T>(&self, sent: Sent, answer: impl Future<Output = T>) -> Result<T> {
        let mut answer = std::pin::pin!(answer);
        let sending = async {
            tokio::select! {
                biased;
                answer = &mut answer => Some(answer),
                // An error means that the body was dropped: nothing more will be sent.
                _ = sent.0 => None,
            }
        };
        match self.within(None, sending, "the request was not sent").await? {
            Some(answer) => Ok(answer),
            None => self.within(Some((self.first_byte, "first_byte")), answer, "no answer").await,
        }
    }
}

fn missed(what: &str, limit: Duration, name: &str) -> Error {
    Error::timeout(format!("{what} within {} (timeouts.{name})", Period(limit)))
        .hint(format!("raise timeouts.{name} if the server needs longer"))
}

/// Tells when the last byte of a body has been handed over.
pub(crate) struct Sent(oneshot::Receiver<()>);

/// A request's body, for reqwest and hyper alike.
pub(crate) struct Outgoing {
    kind: Kind,
    sent: Option<oneshot::Sender<()>>,
}

enum Kind {
    Bytes(Bytes),
    // The lock is never taken; it makes the stream shareable, which reqwest asks for.
    Stream { stream: Mutex<BoxStream<'static, io::Result<Bytes>>>, left: Option<u64> },
}

impl Outgoing {
    pub fn new(body: Body) -> (Self, Sent) {
        let (sender, receiver) = oneshot::channel();
        let kind = match body {
            Body::Empty => Kind::Bytes(Bytes::new()),
            Body::Bytes(bytes) => Kind::Bytes(bytes),
            Body::Stream { stream, length } => Kind::Stream { stream: Mutex::new(stream), left: length },
        };
        // Without a stream everything is handed over at once.
        let sent = matches!(kind, Kind::Stream { .. }).then_some(sender);
        (Self { kind, sent }, Sent(receiver))
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        let next = match &mut this.kind {
            Kind::Bytes(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Bytes(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Stream { stream, left } => {
                let stream = stream.get_mut().unwrap_or_else(PoisonError::into_inner);
                match (stream.as_mut().poll_next(cx), left) {
                    (Poll::Ready(Some(Ok(bytes))), left) => match left {
                        Some(left) if bytes.len() as u64 > *left => {
                            Poll::Ready(Some(Err(io::Error::other("the body is longer than was said"))))
                        }
                        left => {
                            if let Some(left) = left {
                                *left -= bytes.len() as u64;
                            }
                            Poll::Ready(Some(Ok(Frame::data(bytes))))
                        }
                    },
                    (Poll::Ready(None), Some(left)) if *left > 0 => {
                        Poll::Ready(Some(Err(io::Error::other("the body is shorter than was said"))))
                    }
                    (Poll::Ready(None), _) => Poll::Ready(None),
                    (Poll::Ready(Some(Err(error))), _) => Poll::Ready(Some(Err(error))),
                    (Poll::Pending, _) => Poll::Pending,
                }
            }
        };
        if matches!(next, Poll::Ready(None)) || this.is_end_stream() {
            this.sent = None;
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Bytes(bytes) => bytes.is_empty(),
            Kind::Stream { left, .. } => *left == Some(0),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream { left: Some(left), .. } => SizeHint::with_exact(*left),
            Kind::Stream { .. } => SizeHint::default(),
        }
    }
}

/// The body of an answer as it comes off the wire.
pub(crate) struct Wire {
    body: Incoming,
    limits: Limits,
    /// What the server said will come.
    expected: Option<u64>,
    read: Arc<AtomicU64>,
    /// The connection, to be kept for the next request if this answer is read to its end.
    keep: Option<Keep>,
    ended: bool,
}

/// Where an answer comes from.
pub(crate) enum Incoming {
    Pooled(reqwest::Body),
    Own(hyper::body::Incoming),
}

impl Wire {
    pub fn new(body: Incoming, limits: Limits, expected: Option<u64>, keep: Option<Keep>) -> Self {
        let mut this = Self { body, limits, expected, read: Arc::default(), keep, ended: false };
        let empty = match &this.body {
            Incoming::Pooled(body) => http_body::Body::is_end_stream(body),
            Incoming::Own(body) => http_body::Body::is_end_stream(body),
        };
        if empty {
            this.end();
        }
        this
    }

    /// The count of bytes read; goes on counting.
    pub fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.read)
    }

    /// The next piece; `None` once the whole of it has come.
    ///
    /// # Errors
    /// Timeout (`idle`, `total`); Data if the answer broke off; Unavailable if the connection failed. All can be retried.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        while !self.ended {
            let Self { body, limits, .. } = self;
            let frame = match body {
                Incoming::Pooled(body) => {
                    let frame = limits.idle(body.frame()).await?;
                    frame.map(|frame| frame.map_err(|error| Box::new(error.without_url()) as Failure))
                }
                Incoming::Own(body) => {
                    let frame = limits.idle(body.frame()).await?;
                    frame.map(|frame| frame.map_err(|error| Box::new(error) as Failure))
                }
            };
            match frame {
                None => self.end(),
                Some(Err(error)) => return Err(self.broken(error)),
                Some(Ok(frame)) => {
                    // Trailers say nothing we need.
                    let Ok(data) = frame.into_data() else { continue };
                    self.read.fetch_add(data.len() as u64, Ordering::Relaxed);
                    if !data.is_empty() {
                        return Ok(Some(data));
                    }
                }
            }
        }
        Ok(None)
    }

    fn end(&mut self) {
        self.ended = true;
        if let Some(keep) = self.keep.take() {
            keep.give_back();
        }
    }

    fn broken(&mut self, error: Failure) -> Error {
        self.ended = true;
        self.keep = None;
        let read = self.read.load(Ordering::Relaxed);
        let of = self.expected.map(|expected| format!(" of {expected}")).unwrap_or_default();
        let message = format!("the answer broke off after {read}{of} bytes");
        if broke_off(&*error) {
            Error::data(message).retry(Retry::Again)
        } else {
            Error::unavailable(message).because(error)
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Whether the other side just stopped, in the middle of the body.
fn broke_off(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let hyper = error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message);
        let io = error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::UnexpectedEof);
        if hyper || io {
            return true;
        }
        next = error.source();
    }
    false
}
