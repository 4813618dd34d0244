//! An answer: its head at once, its body chunk by chunk, decompressed and limited.

use std::{
    fmt, io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_compression::{
    tokio::bufread::{BrotliDecoder, GzipDecoder, ZstdDecoder},
    zstd::DParameter,
};
use bytes::{Bytes, BytesMut};
use futures::stream;
use http::{HeaderMap, StatusCode, header};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncReadExt};
use tokio_util::io::StreamReader;
use towpath_core::{Error, Result, Retry, Size};
use url::Url;

use crate::wire::Wire;

/// How much is decompressed at a time.
const CHUNK: usize = 128 * 1024;

/// The largest window zstd may ask for: 8 MiB, as RFC 9659 has it for HTTP. Bounds the memory a server can make us take.
const ZSTD_WINDOW_LOG: u32 = 23;

/// How long the text of a refusal may take.
const REFUSAL: Duration = Duration::from_secs(10);

/// An answer with a status the request takes. Its body is read with [`chunk`](Response::chunk), [`bytes`](Response::bytes) or
/// [`text`](Response::text); dropped before its end, the connection is closed.
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The headers, as they came.
    pub headers: HeaderMap,
    /// Where it came from in the end, after redirects.
    pub url: Url,
    body: Reading,
    wire_bytes: Arc<AtomicU64>,
    length: Option<u64>,
    limit: Option<Size>,
    read: u64,
}

enum Reading {
    Plain(Wire),
    Packed { coding: &'static str, reader: Pin<Box<dyn AsyncRead + Send + Sync>>, buffer: BytesMut },
    Failed,
}

impl Response {
    /// `decompress`: whether to undo a content coding.
    ///
    /// # Errors
    /// Unsupported, if the coding is none of gzip, br, zstd.
    pub(crate) fn new(
        head: http::response::Parts,
        url: Url,
        wire: Wire,
        decompress: bool,
        limit: Option<Size>,
    ) -> Result<Self> {
        let length = content_length(&head.headers);
        let wire_bytes = wire.counter();
        let coding = head.headers.get(header::CONTENT_ENCODING).map(|value| value.as_bytes().to_ascii_lowercase());
        let bodiless = length == Some(0) || head.status == StatusCode::NOT_MODIFIED;
        let body = match coding.as_deref() {
            Some(coding) if decompress && !bodiless => unpack(coding, wire)?,
            _ => Reading::Plain(wire),
        };
        Ok(Self { status: head.status, headers: head.headers, url, body, wire_bytes, length, limit, read: 0 })
    }

    /// A header as text; `None` also if it is not readable.
    pub fn header(&self, name: &header::HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The bytes the server says the body has on the wire, that is compressed where it is compressed.
    pub fn content_length(&self) -> Option<u64> {
        self.length
    }

    /// The bytes of the body read off the wire so far; compares with [`content_length`](Response::content_length).
    pub fn wire_bytes(&self) -> u64 {
        self.wire_bytes.load(Ordering::Relaxed)
    }

    /// Whether [`chunk`](Response::chunk) decompresses: positions in it are then not positions on the wire.
    pub fn is_decompressed(&self) -> bool {
        matches!(self.body, Reading::Packed { .. })
    }

    /// The next piece of the body, decompressed, never empty; `None` once all of it has come. Cancel-safe: a dropped call loses
    /// nothing. After an error every further call is an error.
    ///
    /// # Errors
    /// Timeout (`idle`, `total`), Data if the answer broke off (all these can be retried) or is larger than `max_response` (that
    /// cannot), Unavailable if the connection failed.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        let next = self.next().await;
        let next = match next {
            Ok(Some(bytes)) => {
                self.read += bytes.len() as u64;
                self.check_limit(self.read).map(|()| Some(bytes))
            }
            other => other,
        };
        if next.is_err() {
            self.body = Reading::Failed;
        }
        next
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        match &mut self.body {
            Reading::Failed => Err(Error::internal("an answer was read on after an error")),
            Reading::Plain(wire) => wire.next().await,
            Reading::Packed { coding, reader, buffer } => {
                buffer.reserve(CHUNK);
                match reader.read_buf(buffer).await {
                    Ok(0) => Ok(None),
                    Ok(_) => Ok(Some(buffer.split().freeze())),
                    Err(error) => Err(unpacking(coding, error)),
                }
            }
        }
    }

    fn check_limit(&self, bytes: u64) -> Result<()> {
        match self.limit {
            Some(limit) if bytes > limit.0 => {
                Err(Error::data(format!("the answer is larger than max_response, {limit}")).hint("raise max_response"))
            }
            _ => Ok(()),
        }
    }

    /// An error already now, if the length that was declared is past the limit.
    pub(crate) fn check_declared(&self) -> Result<()> {
        match (&self.body, self.length) {
            (Reading::Plain(_), Some(length)) => self.check_limit(length),
            _ => Ok(()),
        }
    }

    /// The whole body, which may have at most `limit` bytes.
    ///
    /// # Errors
    /// As [`chunk`](Response::chunk), and Data past the limit.
    pub async fn bytes(mut self, limit: usize) -> Result<Bytes> {
        let mut all = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            if all.len() + chunk.len() > limit {
                return Err(Error::data(format!(
                    "the answer is larger than {}, which is too much here",
                    Size(limit as u64)
                )));
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }

    /// The whole body as text of at most `limit` bytes. What is not UTF-8 becomes U+FFFD.
    ///
    /// # Errors
    /// As [`bytes`](Response::bytes).
    pub async fn text(self, limit: usize) -> Result<String> {
        let bytes = self.bytes(limit).await?;
        Ok(String::from_utf8_lossy(&bytes).trim_start_matches('\u{feff}').to_owned())
    }

    /// The first `limit` bytes of the body as text, as far as they come. If that was all of it, the connection stays usable.
    pub(crate) async fn opening(&mut self, limit: usize) -> String {
        let mut start = BytesMut::new();
        let reading = async {
            // One past the limit, to see the end of a body that just fits.
            while start.len() <= limit {
                match self.next().await {
                    Ok(Some(chunk)) => start.extend_from_slice(&chunk),
                    Ok(None) | Err(_) => break,
                }
            }
        };
        // A refusal that comes slowly is a refusal all the same.
        let _ = tokio::time::timeout(REFUSAL, reading).await;
        start.truncate(limit);
        String::from_utf8_lossy(&start).into_owned()
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Response({}, {} bytes read)", self.status, self.wire_bytes())
    }
}

/// What `Content-Length` says.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

fn unpack(coding: &[u8], wire: Wire) -> Result<Reading> {
    let (coding, reader): (_, Pin<Box<dyn AsyncRead + Send + Sync>>) = match coding.trim_ascii() {
        b"" | b"identity" => return Ok(Reading::Plain(wire)),
        b"gzip" | b"x-gzip" => {
            let mut decoder = GzipDecoder::new(reader(wire));
            // RFC 1952: several members one after the other are one file.
            decoder.multiple_members(true);
            ("gzip", Box::pin(decoder))
        }
        b"br" => ("br", Box::pin(BrotliDecoder::new(reader(wire)))),
        b"zstd" => {
            let window = [DParameter::window_log_max(ZSTD_WINDOW_LOG)];
            let mut decoder = ZstdDecoder::with_params(reader(wire), &window);
            decoder.multiple_members(true);
            ("zstd", Box::pin(decoder))
        }
        other => {
            let name = String::from_utf8_lossy(other);
            return Err(Error::unsupported(format!(
                "the answer is compressed as '{name}'; known are gzip, br and zstd"
            )));
        }
    };
    Ok(Reading::Packed { coding, reader, buffer: BytesMut::new() })
}

/// The wire as a reader; its errors come out again in [`unpacking`].
fn reader(wire: Wire) -> impl AsyncBufRead + Send + Sync {
    StreamReader::new(Box::pin(stream::try_unfold(wire, |mut wire| async move {
        let next = wire.next().await.map_err(io::Error::other)?;
        Ok::<_, io::Error>(next.map(|bytes| (bytes, wire)))
    })))
}

fn unpacking(coding: &str, error: io::Error) -> Error {
    let ended = error.kind() == io::ErrorKind::UnexpectedEof;
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(_) if ended => {
            Error::data(format!("the answer broke off: its {coding} data has no end")).retry(Retry::Again)
        }
        Err(error) => Error::data(format!("the answer is not valid {coding}")).because(error),
    }
}
