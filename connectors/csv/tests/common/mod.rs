//! What the tests of this crate share: components made as the config makes them, and pieces as text.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod site;

use std::path::Path;

use serde_json::Value;
use towpath_core::{Checkpoint, Connector, Context, Error, Mark, Next, Piece, Position, Resume, Run, Sink, Source};
use towpath_testkit::rows;

pub const SOURCE: &str = "files";

pub fn run(id: &str) -> Run {
    Run {
        id: id.into(),
        started: jiff::Timestamp::UNIX_EPOCH,
        parameters: Default::default(),
        fingerprint: Default::default(),
    }
}

pub fn context() -> Context {
    // The crate must be linked for its registration.
    let _ = towpath_connector_csv::Read::All;
    Context::bare(SOURCE)
}

fn options(yaml: &str) -> Value {
    serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{yaml}\n{error}"))
}

pub fn try_source(yaml: &str) -> Result<Box<dyn Source>, Error> {
    let _ = context();
    let connector = Connector::find("csv").expect("it is registered");
    (connector.source.as_ref().expect("it is a source").build)(&SOURCE.into(), options(yaml))
}

pub fn source(yaml: &str) -> Box<dyn Source> {
    try_source(yaml).unwrap_or_else(|error| panic!("{yaml}\n{error}"))
}

pub fn try_sink(yaml: &str) -> Result<Box<dyn Sink>, Error> {
    let _ = context();
    let connector = Connector::find("csv").expect("it is registered");
    (connector.sink.as_ref().expect("it is a sink").build)(&"out".into(), options(yaml))
}

/// Positions by partition, as a checkpoint of a run.
pub fn checkpoint(run_id: &str, at: &[(&str, &str)]) -> Checkpoint {
    let at = at
        .iter()
        .map(|(partition, position)| (towpath_core::Partition::new(partition), Position::new(position)))
        .collect();
    Checkpoint { run: run(run_id), epoch: 1, last: false, keyed_by: None, at: [(SOURCE.into(), at)].into() }
}

/// What a run gives from where it resumes, up to its end or first error. Always closed.
pub async fn read(source: &mut dyn Source, run_id: &str, resume: &Resume) -> (Vec<Piece>, Result<(), Error>) {
    let mut pieces = vec![];
    let opened = source.open(&context(), &run(run_id), resume).await;
    let ended = match opened {
        Err(error) => Err(error),
        Ok(()) => loop {
            match source.next().await {
                Ok(Next::Piece(piece)) => pieces.push(*piece),
                Ok(Next::Idle) => {}
                Ok(Next::End) => break Ok(()),
                Err(error) => break Err(error),
            }
        },
    };
    source.close().await.expect("close");
    (pieces, ended)
}

pub async fn read_all(yaml: &str) -> Vec<Piece> {
    let (pieces, ended) = read(source(yaml).as_mut(), "r1", &Resume::default()).await;
    ended.unwrap_or_else(|error| panic!("{yaml}\n{error}"));
    pieces
}

pub fn lines(pieces: &[Piece]) -> Vec<String> {
    rows::lines_of(pieces.iter().map(|piece| &piece.rows))
}

/// A mark as text, without what differs from run to run: names of folders, times.
pub fn mark(mark: &Mark) -> String {
    let file = |partition: &towpath_core::Partition| partition.0.rsplit('/').next().unwrap_or_default().to_owned();
    match mark {
        Mark::At(partition, position) => {
            let position = position.0.split(" of ").next().unwrap_or_default();
            format!("{} {position}", file(partition))
        }
        Mark::Within(partition) => format!("{} …", file(partition)),
        Mark::Gone(partition) => format!("{} gone", file(partition)),
        Mark::One(_) => "one".to_owned(),
    }
}

/// Pieces as text: the rows, and behind each piece its mark.
pub fn shown(pieces: &[Piece]) -> Vec<String> {
    let of = |piece: &Piece| {
        let mut lines = rows::lines(&piece.rows);
        lines.push(mark(&piece.mark));
        lines
    };
    pieces.iter().flat_map(of).collect()
}

/// Rows enough for several pieces.
pub fn many(rows: std::ops::Range<u32>) -> String {
    let mut text = String::from("id,name,amount\n");
    for id in rows {
        text.push_str(&format!("{id},name of {id},{}.50\n", id % 1000));
    }
    text
}

pub fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = folder.join(name);
    std::fs::write(&path, content).expect("write a file");
    path.display().to_string()
}

/// The last position of each partition.
pub fn end(pieces: &[Piece]) -> Checkpoint {
    let mut found = checkpoint("r1", &[]);
    let at = found.at.get_mut(SOURCE).expect("the source");
    for piece in pieces {
        match &piece.mark {
            Mark::At(partition, position) => drop(at.insert(partition.clone(), position.clone())),
            Mark::Gone(partition) => drop(at.remove(partition)),
            _ => {}
        }
    }
    found
}

pub fn from(from: Checkpoint) -> Resume {
    Resume { from: Some(from), ..Resume::default() }
}
