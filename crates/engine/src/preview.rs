//! Looks at a source without running anything: its first rows, and what it offers.

use arrow_array::RecordBatch;
use tokio_util::sync::CancellationToken;
use towpath_core::{
    Error, Next, Original, PipelineSpec, Reject, Result, Resume, Source, pipeline::Role, source::Discovery,
};

use crate::{
    Progress,
    engine::{Engine, new_run},
    graph::{Graph, Node},
    stage::source::without,
};

/// The first rows of a source.
#[derive(Clone, Debug, Default)]
pub struct Preview {
    /// At most as many rows as were asked for.
    pub batches: Vec<RecordBatch>,
    /// Rows among them that could not be made into one.
    pub rejects: Vec<Reject>,
    /// The source has no more than that.
    pub complete: bool,
}

impl Engine {
    /// The first rows of a source, as a run that begins anew would read them. Guards are kept; nothing is remembered.
    pub async fn preview(&self, spec: &PipelineSpec, source: &str, rows: usize) -> Result<Preview> {
        let graph = Graph::from_spec(spec)?;
        let node = node(&graph, source)?;
        let cancel = CancellationToken::new();
        let ctx = self.context(&graph, &node.name, Role::Source, &Progress::default(), &cancel);
        let mut made = (node.make)()?;
        let outcome = match made.open(&ctx, &new_run(), &Resume::default()).await {
            Ok(()) => read(made.as_mut(), rows).await,
            Err(error) => Err(error),
        };
        // What was opened is closed, whatever came of it; the rows are more important than how it ended.
        if let Err(error) = made.close().await {
            tracing::debug!("closing source {source}: {error}");
        }
        outcome.map_err(|error| error.at(format!("source {source}")))
    }

    /// What a source offers, and a block to paste into the config.
    pub async fn discover(&self, spec: &PipelineSpec, source: &str) -> Result<Discovery> {
        let graph = Graph::from_spec(spec)?;
        let node = node(&graph, source)?;
        let ctx = self.context(&graph, &node.name, Role::Source, &Progress::default(), &CancellationToken::new());
        (node.make)()?.discover(&ctx).await.map_err(|error| error.at(format!("source {source}")))
    }
}

fn node<'a>(graph: &'a Graph, source: &str) -> Result<&'a Node<dyn Source>> {
    graph.sources.iter().find(|node| &*node.name == source).ok_or_else(|| {
        let names: Vec<&str> = graph.sources.iter().map(|node| &*node.name as &str).collect();
        Error::config(format!("pipeline {}: there is no source '{source}'", graph.name))
            .hint(format!("its sources are: {}", names.join(", ")))
    })
}

async fn read(source: &mut dyn Source, wanted: usize) -> Result<Preview> {
    let (mut preview, mut left) = (Preview::default(), wanted);
    while left > 0 {
        match source.next().await? {
            Next::Piece(piece) => {
                let rows = without(&piece.rows, &piece.rejects)?;
                let rows = rows.slice(0, rows.num_rows().min(left));
                left -= rows.num_rows();
                if rows.num_rows() > 0 {
                    preview.batches.push(rows);
                }
                preview.rejects.extend(piece.rejects.into_iter().map(|reject| late(reject, &piece.rows)));
            }
            Next::Idle => {}
            Next::End => {
                preview.complete = true;
                break;
            }
        }
    }
    Ok(preview)
}

/// A reject that stands for itself: its batch is not handed out.
fn late(reject: Reject, rows: &RecordBatch) -> Reject {
    match reject.row {
        Original::Row(row) if row < rows.num_rows() => Reject { row: Original::Late(rows.slice(row, 1)), ..reject },
        _ => reject,
    }
}
