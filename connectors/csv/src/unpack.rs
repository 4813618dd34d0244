//! Compressed files: recognised, undone as they stream, an error without their end.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZstdDecoder};
use bytes::{Bytes, BytesMut};
use futures::stream;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::io::StreamReader;
use towpath_core::{Error, Result};

use crate::{
    config::Compression,
    listing::Location,
    raw::{CHUNK, Raw},
};

/// A file's bytes, decompressed.
pub(crate) enum Body {
    Plain(Box<Raw>),
    Packed { reader: Pin<Box<dyn AsyncRead + Send>>, name: &'static str, buffer: BytesMut, read: Arc<AtomicU64> },
}

impl Body {
    /// Bytes on disk or on the wire that were read so far.
    pub(crate) fn bytes_read(&self) -> u64 {
        match self {
            Self::Plain(raw) => raw.bytes_read(),
            Self::Packed { read, .. } => read.load(Ordering::Relaxed),
        }
    }

    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>> {
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
        Err(_) if at_end => Error::data(format!("the {name} data breaks off before its end"))
            .hint("the file is not complete; fetch or write it again"),
        Err(error) => {
            Error::data(format!("cannot decompress as {name}")).because(error).hint("set `compression` to what it is")
        }
    }
}

/// Undoes the file's own compression. Whether there was any.
pub(crate) async fn unpack(
    mut raw: Raw,
    asked: Compression,
    location: &Location,
    encoded: Option<&str>,
) -> Result<(Body, bool)> {
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
        return Ok((Body::Plain(Box::new(raw)), false));
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
