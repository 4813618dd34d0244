//! The bytes of one file, from disk or from a server, decompressed: opened at an offset, read chunk by chunk, proven complete.

use bytes::Bytes;
use towpath_core::{Call, Context, Effect, Error, Lease, Result};
use towpath_http::Client;

use crate::{
    config::Compression,
    listing::Location,
    position::Identity,
    raw::{Found, get, open_file},
    unpack::{Body, unpack},
};

/// How much of a file is looked at for its header, first; a longer header makes it more.
pub(crate) const HEAD: u64 = 64 * 1024;

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

impl Input {
    /// Opens a file. The guard's permit is held until [`chunk`](Input::chunk) has said `None`.
    ///
    /// # Errors
    /// Conflict, if it is not the file that was wanted any more.
    pub(crate) async fn open(
        ctx: &Context,
        client: Option<&Client>,
        location: &Location,
        compression: Compression,
        want: &Want,
    ) -> Result<Opened> {
        // A header costs next to nothing; a sample does not.
        let effect = if matches!(want, Want::Head(bytes) if *bytes <= HEAD) { Effect::Cheap } else { Effect::Read };
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
        let (body, packed) = if from_start {
            unpack(raw, compression, location, encoded.as_deref()).await?
        } else {
            (Body::Plain(Box::new(raw)), false)
        };
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
                return if self.skip == 0 {
                    Ok(None)
                } else {
                    Err(Error::conflict("it is shorter than it was").hint(BEGIN_ANEW))
                };
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
        self.body.bytes_read()
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

/// Who stops reading closes the connection, and the server is not busy with it any longer.
impl Drop for Input {
    fn drop(&mut self) {
        self.release();
    }
}

/// What a reader can do about a file that is another one now.
pub(crate) const BEGIN_ANEW: &str = "begin a new run with --new-run";

/// What is to be read once more, byte for byte, is not there any more.
pub(crate) fn another(now: &Identity, before: &Identity) -> Error {
    Error::conflict(format!("the file is not the one that was read before: it is now {now}, and was {before}"))
        .hint(BEGIN_ANEW)
}
