//! The bytes of one file, from disk or from a server, decompressed: opened at an offset, read chunk by chunk, proven complete.

use std::{fs::File, io, io::Read as _, io::Seek as _, path::PathBuf, pin::Pin, sync::{Arc, atomic::{AtomicU64, Ordering}}};

use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZstdDecoder};
use bytes::{Bytes, BytesMut};
use futures::stream;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    task::JoinHandle,
};
use tokio_util::io::StreamReader;
use towpath_core::{Call, Context, Effect, Error, Lease, Result, Retry};
use towpath_http::{Client, HeaderValue, Request, Response, StatusCode, Url, header, shown};

use crate::{
    config::Compression,
    listing::{Location, blocking, io_error},
    position::Identity,
};

/// How much is read from disk, or decompressed, at a time: fits the second-level cache together with what is made of it.
const CHUNK: usize = 256 * 1024;

/// What is wanted of a file.
#[derive(Clone, Debug)]
pub(crate) enum Want {
    /// All of it.
    Whole,
    /// All of it, unless it is still this one.
    UnlessUnchanged(Identity),
    /// From a byte on, and only of this one.
    From { byte: u64, identity: Identity },
    /// Only its beginning: so many bytes or more.
    Head(u64),
}

/// What came of opening a file.
pub(crate) enum Opened {
    Input(Box<Input>),
    /// It is the one that was known.
    Unchanged,
}

/// An open file.
pub(crate) struct Input {
    /// Which version of the file it is.
    pub(crate) identity: Identity,
    /// Bytes on disk or on the wire that are to come, where that is known.
    pub(crate) expected: Option<u64>,
    /// Offsets in what [`chunk`](Input::chunk) gives are offsets in the file, and reading can go on from one later.
    pub(crate) resumable: bool,
    body: Body,
    /// A body that came whole although only its end was wanted: so much is still to be dropped.
    skip: u64,
    /// Of the whole file, where it is known.
    size: Option<u64>,
    lease: Option<Lease>,
}

enum Body {
    Plain(Raw),
    Packed { reader: Pin<Box<dyn AsyncRead + Send>>, name: &'static str, buffer: BytesMut, read: Arc<AtomicU64> },
}

/// Bytes as they lie on disk or come over the wire, but for Content-Encoding.
enum Raw {
    File(FileReader),
    Http(Response),
    /// Nothing behind the offset.
    Empty,
    /// Some that were looked at, and the rest.
    Seen { bytes: Bytes, rest: Box<Raw> },
}

/// Reads a file on threads that may block, one chunk ahead.
struct FileReader {
    file: Arc<File>,
    path: PathBuf,
    identity: Identity,
    ahead: Option<JoinHandle<io::Result<(Vec<u8>, Identity)>>>,
    offset: u64,
    size: u64,
    read: u64,
}

impl Input {
    /// Opens a file. The guard's permit is held until [`chunk`](Input::chunk) has said `None`.
    ///
    /// # Errors
    /// Conflict, if it is not the file that was wanted any more.
    pub(crate) async fn open(ctx: &Context, client: Option<&Client>, location: &Location, compression: Compression, want: &Want) -> Result<Opened> {
        let effect = if ctx.planning() { Effect::Cheap } else { Effect::Read };
        let call = Call::new(format!("read {location}"), location.origin(), effect);
        let (opened, lease) = match (location, client) {
            (Location::Path(path), _) => ctx.stream(&call, || open_file(path.clone(), want.clone())).await?,
            (Location::Url(url), Some(client)) => ctx.stream(&call, || get(client, url, want)).await?,
            (Location::Url(_), None) => return Err(Error::internal("a URL without a client")),
        };
        let Some(Found { raw, identity, expected, skip, size, encoded }) = opened else {
            lease.done();
            return Ok(Opened::Unchanged);
        };
        let from_start = !matches!(want, Want::From { .. });
        let (body, packed) = if from_start { unpack(raw, compression, location, encoded.as_deref()).await? } else { (Body::Plain(raw), false) };
        let resumable = identity.is_proof() && !packed && encoded.is_none();
        Ok(Opened::Input(Box::new(Self { identity, expected, resumable, body, skip, size, lease: Some(lease) })))
    }

    /// The next bytes, `None` behind the last one: then it is certain that none is missing.
    ///
    /// # Errors
    /// Data for a file that breaks off, Conflict for one that changes meanwhile.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>> {
        let next = self.next().await;
        match &next {
            Ok(Some(_)) => {}
            Ok(None) => self.release(),
            Err(error) => {
                if let Some(lease) = self.lease.take() {
                    lease.failed(error);
                }
            }
        }
        next
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let Some(mut chunk) = self.body.chunk().await? else {
                return if self.skip == 0 { Ok(None) } else { Err(Error::conflict("it is shorter than it was").hint(BEGIN_ANEW)) };
            };
            if self.skip > 0 {
                let dropped = usize::try_from(self.skip).map_or(chunk.len(), |skip| skip.min(chunk.len()));
                let _ = chunk.split_to(dropped);
                self.skip -= dropped as u64;
            }
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
        }
    }

    /// Bytes on disk or on the wire that were read so far.
    pub(crate) fn bytes_read(&self) -> u64 {
        match &self.body {
            Body::Plain(raw) => raw.bytes_read(),
            Body::Packed { read, .. } => read.load(Ordering::Relaxed),
        }
    }

    /// The size of the whole file, where a part of it was asked for and the answer says it.
    pub(crate) fn size(&self) -> Option<u64> {
        self.size
    }

    /// Nothing more is wanted.
    pub(crate) fn release(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.done();
        }
    }
}

/// What a reader can do about a file that is another one now.
pub(crate) const BEGIN_ANEW: &str = "begin a new run with --new-run";

struct Found {
    raw: Raw,
    identity: Identity,
    expected: Option<u64>,
    skip: u64,
    size: Option<u64>,
    /// What the server had compressed it with.
    encoded: Option<String>,
}

async fn open_file(path: PathBuf, want: Want) -> Result<Option<Found>> {
    blocking(move || {
        let mut file = File::open(&path).map_err(|error| io_error("open the file", &path, error))?;
        let meta = file.metadata().map_err(|error| io_error("look at the file", &path, error))?;
        let identity = Identity::of_file(&meta);
        let mut offset = 0;
        match &want {
            Want::UnlessUnchanged(before) if identity.is_unchanged_from(before) => return Ok(None),
            Want::From { byte, identity: before } => {
                if identity != *before || *byte > meta.len() {
                    return Err(changed(&identity, before).at(path.display().to_string()));
                }
                offset = *byte;
                file.seek(io::SeekFrom::Start(offset)).map_err(|error| io_error("seek in the file", &path, error))?;
            }
            _ => {}
        }
        let size = meta.len();
        let reader = FileReader { file: Arc::new(file), path, identity: identity.clone(), ahead: None, offset, size, read: 0 };
        Ok(Some(Found { raw: Raw::File(reader), identity, expected: Some(size - offset), skip: 0, size: Some(size), encoded: None }))
    })
    .await
}

fn changed(now: &Identity, before: &Identity) -> Error {
    Error::conflict(format!("the file is not the one that was begun: it is now {now}, and was {before}")).hint(BEGIN_ANEW)
}

/// One GET. What the server answers decides: 206 with the rest, 200 with all of it, 304.
async fn get(client: &Client, url: &Url, want: &Want) -> Result<Option<Found>> {
    let mut request = Request::get(url.clone());
    let text = |text: &str| HeaderValue::from_str(text).map_err(|error| Error::internal("a validator that is no header").because(error));
    match want {
        Want::Whole => {}
        Want::UnlessUnchanged(Identity::Tag(tag)) => {
            request = request.header(header::IF_NONE_MATCH, text(tag)?).accept(StatusCode::NOT_MODIFIED);
        }
        Want::UnlessUnchanged(Identity::Modified { at, .. }) => {
            request = request.header(header::IF_MODIFIED_SINCE, text(at)?).accept(StatusCode::NOT_MODIFIED);
        }
        Want::UnlessUnchanged(_) => {}
        Want::From { byte, identity } => {
            request = request.header(header::RANGE, text(&format!("bytes={byte}-"))?).accept(StatusCode::RANGE_NOT_SATISFIABLE);
            // Without the same bytes on the other side, the answer is the whole new file instead.
            if let Identity::Tag(tag) = identity {
                request = request.header(header::IF_RANGE, text(tag)?);
            }
        }
        Want::Head(bytes) => {
            request = request.header(header::RANGE, text(&format!("bytes=0-{}", bytes.saturating_sub(1)))?).accept(StatusCode::RANGE_NOT_SATISFIABLE);
        }
    }
    let response = client.send(request).await?;
    let place = |error: Error| error.at(shown(url));
    if response.status == StatusCode::NOT_MODIFIED {
        return Ok(None);
    }
    let mut expected = response.content_length();
    let identity = Identity::of_answer(&response.headers, expected);
    let mut skip = 0;
    match want {
        Want::UnlessUnchanged(before) if identity.is_unchanged_from(before) => return Ok(None),
        Want::From { byte, identity: before } => {
            let range = response.header(&header::CONTENT_RANGE).unwrap_or_default();
            match response.status {
                StatusCode::RANGE_NOT_SATISFIABLE => {
                    // Nothing may come behind its last byte; that the file ends there is for the server to say.
                    if range.strip_prefix("bytes */").and_then(|size| size.parse().ok()) != Some(*byte) || identity_differs(&identity, before) {
                        return Err(place(changed(&identity, before)));
                    }
                    expected = Some(0);
                }
                StatusCode::PARTIAL_CONTENT => {
                    if identity_differs(&identity, before) {
                        return Err(place(changed(&identity, before)));
                    }
                    if range.strip_prefix("bytes ").and_then(|range| range.split_once('-')).and_then(|(start, _)| start.parse().ok()) != Some(*byte) {
                        return Err(place(Error::data(format!("the server was asked for the bytes from {byte} on and gave '{range}'"))));
                    }
                }
                // A server without ranges sends all of it.
                _ if identity == *before && response.header(&header::CONTENT_ENCODING).is_none() => skip = *byte,
                _ => return Err(place(changed(&identity, before))),
            }
        }
        _ => {}
    }
    let encoded = response.header(&header::CONTENT_ENCODING).filter(|coding| *coding != "identity").map(str::to_owned);
    let size = match response.header(&header::CONTENT_RANGE).and_then(|range| range.rsplit_once('/')) {
        Some((_, size)) => size.parse().ok(),
        None => response.content_length(),
    };
    let identity = if let Want::From { identity, .. } = want { identity.clone() } else { identity };
    // The body of a 416 is a message, not a part of the file.
    let raw = if response.status == StatusCode::RANGE_NOT_SATISFIABLE { Raw::Empty } else { Raw::Http(response) };
    Ok(Some(Found { raw, identity, expected, skip, size, encoded }))
}

/// Whether an answer to a request for a part speaks of another file. A 206 may leave the tag out only if it said it before.
fn identity_differs(now: &Identity, before: &Identity) -> bool {
    matches!(now, Identity::Tag(_)) && now != before
}

impl Raw {
    async fn chunk(&mut self) -> Result<Option<Bytes>> {
        let raw = match self {
            Self::Seen { bytes, .. } if !bytes.is_empty() => return Ok(Some(std::mem::take(bytes))),
            Self::Seen { rest, .. } => &mut **rest,
            raw => raw,
        };
        match raw {
            Self::File(file) => file.chunk().await,
            Self::Http(response) => response.chunk().await,
            Self::Empty | Self::Seen { .. } => Ok(None),
        }
    }
    fn bytes_read(&self) -> u64 {
        match self {
            Self::File(file) => file.read,
            Self::Http(response) => response.wire_bytes(),
            Self::Empty => 0,
            Self::Seen { rest, .. } => rest.bytes_read(),
        }
    }
}

impl FileReader {
    fn start(&self) -> JoinHandle<io::Result<(Vec<u8>, Identity)>> {
        let file = Arc::clone(&self.file);
        tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::with_capacity(CHUNK);
            (&*file).take(CHUNK as u64).read_to_end(&mut bytes)?;
            // Looked at after reading: what was read is of a file that is still the one that was opened.
            let identity = Identity::of_file(&file.metadata()?);
            Ok((bytes, identity))
        })
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>> {
        let reading = self.ahead.take().unwrap_or_else(|| self.start());
        let (bytes, identity) = match reading.await {
            Ok(read) => read.map_err(|error| io_error("read the file", &self.path, error))?,
            Err(error) => return Err(Error::internal("reading a file ended without a word").because(error)),
        };
        let place = |error: Error| error.at(self.path.display().to_string());
        if identity != self.identity {
            // Whoever writes it may be done by the next try.
            let what = format!("the file changed while it was read: it is now {identity}, and was {}", self.identity);
            let hint = "let whoever writes it write another file and rename it when it is complete";
            return Err(place(Error::conflict(what).retry(Retry::Again).hint(hint)));
        }
        let read = bytes.len() as u64;
        self.offset += read;
        self.read += read;
        if read == 0 {
            let (offset, size) = (self.offset, self.size);
            return if offset == size { Ok(None) } else { Err(place(Error::data(format!("{offset} bytes were read of a file of {size}")))) };
        }
        if self.offset < self.size {
            self.ahead = Some(self.start());
        }
        Ok(Some(bytes.into()))
    }
}

impl Body {
    async fn chunk(&mut self) -> Result<Option<Bytes>> {
        match self {
            Self::Plain(raw) => raw.chunk().await,
            Self::Packed { reader, name, buffer, .. } => {
                buffer.reserve(CHUNK);
                match reader.read_buf(buffer).await {
                    Ok(0) => Ok(None),
                    Ok(_) => Ok(Some(buffer.split().freeze())),
                    Err(error) => Err(unpacking(name, error)),
                }
            }
        }
    }
}

/// What went wrong below is kept as it is; the rest is the packed data's fault.
fn unpacking(name: &str, error: io::Error) -> Error {
    let at_end = error.kind() == io::ErrorKind::UnexpectedEof;
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(_) if at_end => {
            Error::data(format!("the {name} data breaks off before its end")).hint("the file is not complete; fetch or write it again")
        }
        Err(error) => Error::data(format!("cannot decompress as {name}")).because(error).hint("set `compression` to what it is"),
    }
}

/// Undoes the file's own compression. Whether there was any.
async fn unpack(mut raw: Raw, asked: Compression, location: &Location, encoded: Option<&str>) -> Result<(Body, bool)> {
    let name = location.name().to_ascii_lowercase();
    let kind = match asked {
        Compression::Auto => {
            let start = peek(&mut raw).await?;
            match start.as_slice() {
                [0x1f, 0x8b, 8, ..] => Compression::Gzip,
                [0x28, 0xb5, 0x2f, 0xfd] => Compression::Zstd,
                // Brotli has no mark of its own; a server may have undone it already.
                _ if name.ends_with(".br") && encoded != Some("br") => Compression::Brotli,
                _ => Compression::None,
            }
        }
        asked => asked,
    };
    if matches!(kind, Compression::Auto | Compression::None) {
        return Ok((Body::Plain(raw), false));
    }
    let read = Arc::new(AtomicU64::new(raw.bytes_read()));
    let counter = Arc::clone(&read);
    let chunks = stream::try_unfold((raw, counter), |(mut raw, counter)| async move {
        let chunk = raw.chunk().await.map_err(io::Error::other)?;
        counter.store(raw.bytes_read(), Ordering::Relaxed);
        Ok::<_, io::Error>(chunk.map(|chunk| (chunk, (raw, counter))))
    });
    let bytes = StreamReader::new(Box::pin(chunks));
    let (reader, name): (Pin<Box<dyn AsyncRead + Send>>, _) = match kind {
        Compression::Gzip => {
            let mut decoder = GzipDecoder::new(bytes);
            decoder.multiple_members(true);
            (Box::pin(decoder), "gzip")
        }
        Compression::Zstd => {
            let mut decoder = ZstdDecoder::new(bytes);
            decoder.multiple_members(true);
            (Box::pin(decoder), "zstd")
        }
        _ => (Box::pin(BrotliDecoder::new(bytes)), "brotli"),
    };
    Ok((Body::Packed { reader, name, buffer: BytesMut::new(), read }, true))
}

/// The first four bytes, or fewer if there are no more; they stay in `raw`.
async fn peek(raw: &mut Raw) -> Result<Vec<u8>> {
    let mut start = BytesMut::new();
    while start.len() < 4 {
        match raw.chunk().await? {
            Some(chunk) if start.is_empty() && chunk.len() >= 4 => {
                let seen = chunk[..4].to_vec();
                let rest = std::mem::replace(raw, Raw::Empty);
                *raw = Raw::Seen { bytes: chunk, rest: Box::new(rest) };
                return Ok(seen);
            }
            Some(chunk) => start.extend_from_slice(&chunk),
            None => break,
        }
    }
    let seen = start.iter().copied().take(4).collect();
    let rest = std::mem::replace(raw, Raw::Empty);
    *raw = Raw::Seen { bytes: start.freeze(), rest: Box::new(rest) };
    Ok(seen)
}
