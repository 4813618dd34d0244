//! Bytes as they lie on disk or come over the wire: how a file is opened in the middle, and what proves that it is the same one.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _},
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;
use tokio::task::JoinHandle;
use towpath_core::{Error, Result, Retry};
use towpath_http::{Client, HeaderValue, Request, Response, StatusCode, Url, header, shown};

use crate::{
    input::{BEGIN_ANEW, Want},
    listing::{blocking, io_error},
    position::Identity,
};

/// How much is read from disk, or decompressed, at a time: fits the second-level cache together with what is made of it.
pub(crate) const CHUNK: usize = 256 * 1024;

/// Bytes as they lie on disk or come over the wire, but for Content-Encoding.
pub(crate) enum Raw {
    File(FileReader),
    Http(Box<Response>),
    /// Nothing behind the offset.
    Empty,
    /// Some that were looked at, and the rest.
    Seen {
        bytes: Bytes,
        rest: Box<Raw>,
    },
}

/// A chunk, and which version of the file it was read from.
type ReadAhead = JoinHandle<io::Result<(Vec<u8>, Identity)>>;

/// Reads a file on threads that may block, one chunk ahead.
pub(crate) struct FileReader {
    file: Arc<File>,
    path: PathBuf,
    identity: Identity,
    ahead: Option<ReadAhead>,
    offset: u64,
    size: u64,
    read: u64,
}

/// An open file, and what it says of itself.
pub(crate) struct Found {
    pub(crate) raw: Raw,
    pub(crate) identity: Identity,
    pub(crate) expected: Option<u64>,
    pub(crate) skip: u64,
    pub(crate) size: Option<u64>,
    /// What the server had compressed it with.
    pub(crate) encoded: Option<String>,
}

/// Opens a file on this machine. `None`: it is the one that was known.
pub(crate) async fn open_file(path: PathBuf, want: Want) -> Result<Option<Found>> {
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
        let reader =
            FileReader { file: Arc::new(file), path, identity: identity.clone(), ahead: None, offset, size, read: 0 };
        Ok(Some(Found {
            raw: Raw::File(reader),
            identity,
            expected: Some(size - offset),
            skip: 0,
            size: Some(size),
            encoded: None,
        }))
    })
    .await
}

fn changed(now: &Identity, before: &Identity) -> Error {
    Error::conflict(format!("the file is not the one that was begun: it is now {now}, and was {before}"))
        .hint(BEGIN_ANEW)
}

/// One GET. What the server answers decides: 206 with the rest, 200 with all of it, 304.
pub(crate) async fn get(client: &Client, url: &Url, want: &Want) -> Result<Option<Found>> {
    let mut request = Request::get(url.clone());
    let text = |text: &str| {
        HeaderValue::from_str(text).map_err(|error| Error::internal("a validator that is no header").because(error))
    };
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
            request = request
                .header(header::RANGE, text(&format!("bytes={byte}-"))?)
                .accept(StatusCode::RANGE_NOT_SATISFIABLE);
            // Without the same bytes on the other side, the answer is the whole new file instead.
            if let Identity::Tag(tag) = identity {
                request = request.header(header::IF_RANGE, text(tag)?);
            }
        }
        Want::Head(bytes) => {
            request = request
                .header(header::RANGE, text(&format!("bytes=0-{}", bytes.saturating_sub(1)))?)
                .accept(StatusCode::RANGE_NOT_SATISFIABLE);
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
                    if range.strip_prefix("bytes */").and_then(|size| size.parse().ok()) != Some(*byte)
                        || identity_differs(&identity, before)
                    {
                        return Err(place(changed(&identity, before)));
                    }
                    expected = Some(0);
                }
                StatusCode::PARTIAL_CONTENT => {
                    if identity_differs(&identity, before) {
                        return Err(place(changed(&identity, before)));
                    }
                    if range
                        .strip_prefix("bytes ")
                        .and_then(|range| range.split_once('-'))
                        .and_then(|(start, _)| start.parse().ok())
                        != Some(*byte)
                    {
                        return Err(place(Error::data(format!(
                            "the server was asked for the bytes from {byte} on and gave '{range}'"
                        ))));
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
        // `*`: larger than what came, for all that is known.
        Some((_, size)) => Some(size.parse().unwrap_or(u64::MAX)),
        None => response.content_length(),
    };
    let identity = if let Want::From { identity, .. } = want { identity.clone() } else { identity };
    // The body of a 416 is a message, not a part of the file.
    let raw =
        if response.status == StatusCode::RANGE_NOT_SATISFIABLE { Raw::Empty } else { Raw::Http(Box::new(response)) };
    Ok(Some(Found { raw, identity, expected, skip, size, encoded }))
}

/// Whether an answer to a request for a part speaks of another file. A 206 may leave the tag out only if it said it before.
fn identity_differs(now: &Identity, before: &Identity) -> bool {
    matches!(now, Identity::Tag(_)) && now != before
}

impl Raw {
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>> {
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
    pub(crate) fn bytes_read(&self) -> u64 {
        match self {
            Self::File(file) => file.read,
            Self::Http(response) => response.wire_bytes(),
            Self::Empty => 0,
            Self::Seen { rest, .. } => rest.bytes_read(),
        }
    }
}

impl FileReader {
    fn start(&self) -> ReadAhead {
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
            return if offset == size {
                Ok(None)
            } else {
                Err(place(Error::data(format!("{offset} bytes were read of a file of {size}"))))
            };
        }
        if self.offset < self.size {
            self.ahead = Some(self.start());
        }
        Ok(Some(bytes.into()))
    }
}
