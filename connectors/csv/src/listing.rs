//! Which files there are: lists, globs, and what is known of each by a cheap call.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    path::{Path, PathBuf},
};

use futures::StreamExt;
use towpath_core::{Call, Context, Effect, Error, ErrorKind, Partition, Result};
use towpath_http::{Client, Request, Response, Url, header, origin, shown};

use crate::{
    config::{Read, SourceOptions},
    input::Want,
    position::Identity,
    raw::get,
};

/// Where a file lies.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Location {
    Path(PathBuf),
    Url(Url),
}

impl Location {
    /// The guard's scope.
    pub(crate) fn origin(&self) -> String {
        match self {
            Self::Path(_) => "file:".to_owned(),
            Self::Url(url) => origin(url),
        }
    }
    /// The name that an ending such as `.gz` is looked for in.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Path(path) => path.to_string_lossy().into_owned(),
            Self::Url(url) => url.path().to_owned(),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Url(url) => f.write_str(&shown(url)),
        }
    }
}

/// One file, and what is known of it.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) location: Location,
    pub(crate) partition: Partition,
    /// `None`: not asked, or not told.
    pub(crate) identity: Option<Identity>,
    /// Bytes on disk or on the wire.
    pub(crate) bytes: Option<u64>,
    /// The server takes Range.
    pub(crate) ranges: bool,
}

/// The files the config names, in order; those on this machine with their identity.
pub(crate) async fn list(ctx: &Context, options: &SourceOptions) -> Result<Vec<Item>> {
    let locations = if options.url.all().is_empty() {
        let call = Call::new("list the files", "file:", Effect::Cheap);
        ctx.call(&call, || {
            let (patterns, read) = (options.path.all().to_vec(), options.read);
            blocking(move || find(&patterns, read))
        })
        .await?
    } else {
        let urls = options.urls()?.into_iter().map(Location::Url);
        urls.map(|location| (location, None)).collect()
    };
    let (mut seen, mut names, mut items) = (HashSet::new(), HashMap::<String, u32>::new(), Vec::new());
    for (location, identity) in locations {
        // Named twice, by two patterns perhaps, it is read once.
        if !seen.insert(location.clone()) {
            continue;
        }
        let name = location.to_string();
        // Two URLs may differ in nothing but a secret, which is not shown.
        let number = names.entry(name.clone()).and_modify(|number| *number += 1).or_insert(1);
        let partition = if *number == 1 { Partition::new(name) } else { Partition::new(format!("{name} #{number}")) };
        let bytes = if let Some(Identity::File { size, .. }) = identity { Some(size) } else { None };
        items.push(Item { location, partition, identity, bytes, ranges: false });
    }
    Ok(items)
}

/// Asks the server for what it says of the files on it; several at once. What it does not answer stays unknown, with a note. `known`: what
/// the files were when they were last read.
pub(crate) async fn ask(
    ctx: &Context,
    client: &Client,
    items: &mut [Item],
    at_once: usize,
    known: &HashMap<Partition, Identity>,
) -> Result<Vec<String>> {
    let urls = items.iter().filter_map(|item| match &item.location {
        Location::Url(url) => Some((url.clone(), known.get(&item.partition))),
        Location::Path(_) => None,
    });
    let asking = urls.map(|(url, known)| told(ctx, client, url, known)).collect::<Vec<_>>();
    let answers: Vec<Result<Told>> = futures::stream::iter(asking).buffered(at_once).collect().await;
    let mut notes = Vec::new();
    for (item, answer) in items.iter_mut().filter(|item| matches!(item.location, Location::Url(_))).zip(answers) {
        match answer {
            Ok(Told { identity, bytes, ranges }) => {
                (item.identity, item.bytes, item.ranges) = (Some(identity), bytes, ranges);
            }
            // What cannot be mended by a GET either.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::Auth | ErrorKind::Config | ErrorKind::Cancelled | ErrorKind::Internal
                ) =>
            {
                return Err(error.at(item.location.to_string()));
            }
            Err(error) => notes.push(format!("{}: {error}", item.location)),
        }
    }
    Ok(notes)
}

/// What a server says of a file without sending it.
struct Told {
    identity: Identity,
    bytes: Option<u64>,
    ranges: bool,
}

/// By HEAD; where the server does not know that, by a GET that asks only for what has changed, and is broken off if something has.
async fn told(ctx: &Context, client: &Client, url: Url, known: Option<&Identity>) -> Result<Told> {
    let error = match head(ctx, client, url.clone()).await {
        Ok(response) => {
            let bytes = response.content_length();
            let ranges = response.header(&header::ACCEPT_RANGES).is_some_and(|ranges| ranges.contains("bytes"));
            return Ok(Told { identity: Identity::of_answer(&response.headers, bytes), bytes, ranges });
        }
        Err(error) => error,
    };
    let no_head = matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::NotFound | ErrorKind::Data);
    let Some(known) = known.filter(|known| no_head && !matches!(known, Identity::Unknown)) else { return Err(error) };
    let call = Call::new(format!("ask for {}", shown(&url)), origin(&url), Effect::Cheap);
    let want = Want::UnlessUnchanged(known.clone());
    let found = ctx.call(&call, || get(client, &url, &want)).await?;
    Ok(match found {
        None => Told { identity: known.clone(), bytes: None, ranges: false },
        Some(found) => Told { identity: found.identity, bytes: found.expected, ranges: false },
    })
}

async fn head(ctx: &Context, client: &Client, url: Url) -> Result<Response> {
    let call = Call::new(format!("ask for {}", shown(&url)), origin(&url), Effect::Cheap);
    ctx.call(&call, || client.send(Request::head(url.clone()))).await
}

/// Runs file system work where it may block.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_cancelled() => Err(Error::cancelled()),
        Err(error) => Err(Error::internal("work on a file ended without a word").because(error)),
    }
}

/// An error of the file system, classified.
pub(crate) fn io_error(what: &str, path: &Path, error: std::io::Error) -> Error {
    use std::io::ErrorKind as Io;
    let message = format!("cannot {what}");
    let classified = match error.kind() {
        Io::NotFound => Error::not_found(message),
        Io::PermissionDenied | Io::ReadOnlyFilesystem => {
            Error::auth(message).hint("give the user that runs towpath the right to it")
        }
        Io::StorageFull | Io::QuotaExceeded => Error::unavailable(message).hint("make room on the disk"),
        Io::IsADirectory | Io::NotADirectory | Io::InvalidFilename | Io::InvalidInput => Error::config(message),
        _ => Error::unavailable(message),
    };
    classified.because(error).at(path.display().to_string())
}

fn find(patterns: &[String], read: Read) -> Result<Vec<(Location, Option<Identity>)>> {
    let mut found = Vec::new();
    for pattern in patterns {
        // A file whose name happens to look like a pattern is that file.
        if !pattern.contains(['*', '?', '[']) || Path::new(pattern).is_file() {
            found.push(examine(PathBuf::from(pattern))?);
            continue;
        }
        let options = glob::MatchOptions { require_literal_leading_dot: true, ..Default::default() };
        let paths = glob::glob_with(pattern, options)
            .map_err(|error| Error::config(format!("path: '{pattern}' is not a pattern")).because(error))?;
        let before = found.len();
        for path in paths {
            let path = path.map_err(|error| {
                let path = error.path().to_owned();
                io_error("look into the folder", &path, error.into())
            })?;
            match std::fs::metadata(&path) {
                Ok(meta) if meta.is_file() => found.push((Location::Path(path), Some(Identity::of_file(&meta)))),
                Ok(_) => {}
                // It vanished between the list and the look.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(io_error("look at the file", &path, error)),
            }
        }
        if found.len() == before && read == Read::All {
            // Nothing in the place of everything would empty a target that is replaced.
            return Err(Error::not_found(format!("no file matches '{pattern}'"))
                .hint("check the path; with `read: changed` no match is no error"));
        }
    }
    Ok(found)
}

fn examine(path: PathBuf) -> Result<(Location, Option<Identity>)> {
    let meta = std::fs::metadata(&path).map_err(|error| io_error("look at the file", &path, error))?;
    if !meta.is_file() {
        let what = if meta.is_dir() { "is a folder" } else { "is not a regular file" };
        let error = Error::config(what).at(path.display().to_string());
        return Err(if meta.is_dir() { error.hint("write a pattern such as folder/*.csv") } else { error });
    }
    Ok((Location::Path(path), Some(Identity::of_file(&meta))))
}
