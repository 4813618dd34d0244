//! Dead letters sent again: `towpath dlq replay`.
//!
//! The rows that a sink has refused are given to the same sink once more, by a run of their own: a pipeline `<name>+replay+<sink>` whose
//! source is a *selection* of dead letters and whose sink is the pipeline's. So everything holds that holds of runs: a sink that keeps its
//! checkpoint with the rows gets each row exactly once, the others get them again and know them by their keys; a replay that was
//! killed is taken up where its last commit stands. A selection stays until all of it is done, and only then the next one is made.
//!
//! What is superseded is left out (see `supersede`); what is refused again is a dead letter again, in the replay's own folder, and is
//! found there by the next replay.

mod discard;
mod source;
mod standings;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow_array::RecordBatch;
use arrow_json::ReaderBuilder;
use arrow_schema::SchemaRef;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use towpath_core::{Error, Known, Name, PipelineSpec, Result, WriteMode, pipeline::Role};

use self::source::LetterSource;
pub use self::{
    discard::{DiscardFilter, DiscardReport},
    standings::Standings,
};
use crate::{
    Progress, RunReport,
    dead_letters::{self, Entry, Row},
    engine::{Engine, RunOptions},
    graph::{Graph, Make, Node, Replay},
    report::Status,
    state::{
        StateStore,
        letters::{Chosen, LetterId},
    },
    supersede::{KeyHash, is_superseded, keys},
};

/// How many letters are chosen at once.
const AT_ONCE: usize = 1000;

/// Which dead letters are to be sent again.
#[derive(Clone, Debug, Default)]
pub struct ReplayFilter {
    /// Only those that this sink has refused.
    pub component: Option<String>,
    /// Only those in whose reason this text stands.
    pub reason: Option<String>,
}

/// What came of sending dead letters again.
#[derive(Debug, Serialize)]
pub struct ReplayReport {
    /// The pipeline.
    pub pipeline: Name,
    /// By sink.
    pub sinks: BTreeMap<Name, SinkReplay>,
    /// Dead letters of sources and transforms: their rows never came as far as a sink.
    pub before_sinks: u64,
    /// Dead letters of a run that has not ended: it may refuse them once more.
    pub not_settled: u64,
}

/// What came of one sink's dead letters.
#[derive(Debug, Default, Serialize)]
pub struct SinkReplay {
    /// Those sent again: they are done.
    pub sent: u64,
    /// Of these, rows refused again: dead letters again.
    pub refused: u64,
    /// Those left out because newer data has come since.
    pub superseded: u64,
    /// Those left out whose columns are not those of the sink any more.
    pub unreadable: u64,
    /// A replay that had not come to its end was taken up.
    pub taken_up: bool,
    /// How it ended, if it did not come to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunReport>,
}

impl ReplayReport {
    /// The program's exit code: that of the first run that did not come to its end; 3 if rows were refused again; else 0.
    pub fn exit_code(&self) -> u8 {
        match self.sinks.values().find_map(|sink| sink.run.as_ref()) {
            Some(run) => run.exit_code(),
            None if self.sinks.values().any(|sink| sink.refused > 0) => 3,
            None => 0,
        }
    }
}

/// The pipeline that sends a sink's dead letters again: its state and its dead letters go by this name.
pub(crate) fn pipeline_name(pipeline: &str, sink: &Name) -> Name {
    format!("{pipeline}{BETWEEN}{sink}").into()
}

/// What stands between the names in it.
const BETWEEN: &str = "+replay+";

/// Whether a pipeline is one that sends dead letters again: nobody has written it, so it is nothing to show.
pub(crate) fn is_replay(pipeline: &str) -> bool {
    pipeline.contains(BETWEEN)
}

/// Where a sink's dead letters lie: those of the pipeline, and those that were refused again.
struct Folders([PathBuf; 2]);

impl Engine {
    /// Sends dead letters again, sink by sink, in the order of their commits.
    ///
    /// # Errors
    /// Conflict, if a run of the pipeline is under way. Config, if there is no such sink. Unsupported, if it replaces its table. What ends a
    /// run is in the report.
    pub async fn replay(
        &self,
        spec: &PipelineSpec,
        filter: &ReplayFilter,
        options: RunOptions,
    ) -> Result<ReplayReport> {
        self.replay_graph(&Graph::from_spec(spec)?, filter, options).await
    }

    /// The same for a pipeline that was built in Rust.
    ///
    /// # Errors
    /// As those of [`replay`](Engine::replay).
    pub async fn replay_graph(
        &self,
        graph: &Graph,
        filter: &ReplayFilter,
        options: RunOptions,
    ) -> Result<ReplayReport> {
        if let Some(wanted) = &filter.component
            && !graph.sinks.iter().any(|node| **wanted == *node.name)
        {
            let names = graph.sinks.iter().map(|node| node.name.to_string()).collect::<Vec<_>>().join(", ");
            return Err(Error::config(format!("there is no sink '{wanted}' in pipeline '{}'", graph.name))
                .hint(format!("only rows that a sink has refused can be sent again; the sinks are: {names}")));
        }
        let Some(_lock) = self.store.lock_pipeline(&graph.name)? else {
            return Err(self.under_way(&graph.name));
        };
        let main = self.dead_letters(graph);
        let mut report =
            ReplayReport { pipeline: graph.name.clone(), sinks: BTreeMap::new(), before_sinks: 0, not_settled: 0 };
        let is_sink = |name: &Name| graph.sinks.iter().any(|node| node.name == *name);
        report.not_settled = dead_letters::each_sealed(&main, |file, at, entry| {
            let letter = LetterId { folder: 0, file, at };
            if !is_sink(&entry.component)
                && !self.store.is_discarded(&graph.name, &entry.component, letter, &entry.run)?
            {
                report.before_sinks += 1;
            }
            Ok(())
        })?;
        let order = graph.commit_order()?.into_iter().flatten();
        for node in order.filter_map(|index| graph.sinks.get(index)) {
            let wanted = filter.component.as_ref().is_none_or(|wanted| **wanted == *node.name);
            let folders = Folders([main.clone(), self.dead_letters(&Self::replaying(graph, node, 0)?)]);
            // What was begun is brought to its end first, whatever is asked for now.
            let mut done = SinkReplay::default();
            if self.store.selection(&graph.name, &node.name)?.is_some() {
                done.taken_up = true;
                self.look_again(graph, node, &folders).await?;
                self.send_again(graph, node, &folders, &options, &mut done).await?;
            }
            if wanted && done.run.is_none() {
                self.select(graph, node, &folders, filter, &mut done).await?;
                self.send_again(graph, node, &folders, &options, &mut done).await?;
            }
            let stopped = done.run.is_some();
            if done.sent + done.superseded + done.unreadable > 0 || stopped {
                report.sinks.insert(node.name.clone(), done);
            }
            if stopped {
                break;
            }
        }
        Ok(report)
    }

    /// The pipeline that sends a sink's dead letters again.
    fn replaying(graph: &Graph, node: &Node<dyn towpath_core::Sink>, as_of: u64) -> Result<Graph> {
        let mut replay = Graph::empty(pipeline_name(&graph.name, &node.name));
        replay.errors = graph.errors.clone();
        replay.errors.stop_after = None;
        replay.run = graph.run.clone();
        replay.run.verify_every = None;
        replay.file.clone_from(&graph.file);
        replay.replay = Some(Replay { as_of });
        let letters: Name = "dead letters".into();
        let mut sink = node.clone();
        sink.inputs = vec![letters.clone()];
        sink.common.after = vec![];
        replay.sinks.push(sink);
        let never: Make<dyn towpath_core::Source> = Arc::new(|| Err(Error::internal("there is no selection")));
        replay.sources.push(Node {
            name: letters,
            kind: "dead letters".to_owned(),
            inputs: vec![],
            common: Default::default(),
            guard: Default::default(),
            make: never,
            differences: false,
        });
        replay.join()
    }

    /// Chooses the letters to send.
    async fn select(
        &self,
        graph: &Graph,
        node: &Node<dyn towpath_core::Sink>,
        folders: &Folders,
        filter: &ReplayFilter,
        done: &mut SinkReplay,
    ) -> Result<()> {
        let Some(schema) = self.store.schema(&graph.name, &node.name)? else {
            // They are from before the columns were remembered.
            return folders.0.iter().try_for_each(|path| {
                let mut count = |_, _, entry: Entry| {
                    done.unreadable += u64::from(entry.component == node.name);
                    Ok(())
                };
                dead_letters::each_sealed(path, &mut count).map(drop)
            });
        };
        let judge = self.judge(graph, node, schema).await?;
        let mut chosen = Vec::new();
        let mut any = false;
        let mut add = |chosen: &mut Vec<Chosen>| -> Result<()> {
            if !std::mem::replace(&mut any, true) {
                if judge.mode == WriteMode::Replace {
                    return Err(Error::unsupported("it replaces its table, so a few rows cannot be added to it")
                        .at(format!("sink {}", node.name))
                        .hint("mend the cause and run the pipeline again: it reads and writes everything"));
                }
                self.store.select(&graph.name, &node.name)?;
            }
            self.store.select_more(&graph.name, &node.name, chosen)?;
            chosen.clear();
            Ok(())
        };
        for (folder, path) in folders.0.iter().enumerate() {
            dead_letters::each_sealed(path, |file, at, entry| {
                let letter = LetterId { folder: folder as u8, file, at };
                let asked = entry.component == node.name
                    && filter.reason.as_ref().is_none_or(|text| entry.reason.contains(&**text));
                if !asked
                    || self.store.is_replayed(&graph.name, &node.name, letter)?
                    || self.store.is_discarded(&graph.name, &node.name, letter, &entry.run)?
                {
                    return Ok(());
                }
                match judge.letter(&entry)? {
                    Judged::Unreadable => done.unreadable += 1,
                    Judged::Superseded => done.superseded += 1,
                    Judged::Open(key) => {
                        chosen.push(Chosen { letter, epoch: entry.as_of.unwrap_or(entry.epoch), key });
                        if chosen.len() == AT_ONCE {
                            add(&mut chosen)?;
                        }
                    }
                }
                Ok(())
            })?;
        }
        if !chosen.is_empty() {
            add(&mut chosen)?;
        }
        if any {
            done.superseded += self.store.select_newest(&graph.name, &node.name)?;
        }
        Ok(())
    }

    async fn judge(&self, graph: &Graph, node: &Node<dyn towpath_core::Sink>, schema: SchemaRef) -> Result<Judge> {
        let ctx = self.context(graph, &node.name, Role::Sink, &Progress::default(), &CancellationToken::new());
        let mut sink = (node.make)()?;
        let plan = sink.plan(&ctx.for_start(), &Known::LastRun(Arc::clone(&schema))).await;
        let mode = plan.map_err(|error| error.at(format!("sink {}", node.name)))?.mode;
        let columns = sink.key_columns().filter(|_| mode == WriteMode::Upsert);
        Ok(Judge {
            store: self.store.clone(),
            pipeline: graph.name.clone(),
            sink: node.name.clone(),
            schema,
            mode,
            columns,
        })
    }

    /// A run may have come between: what it has superseded leaves the selection, and so does what somebody has put away.
    async fn look_again(&self, graph: &Graph, node: &Node<dyn towpath_core::Sink>, folders: &Folders) -> Result<()> {
        let Some(schema) = self.store.schema(&graph.name, &node.name)? else { return Ok(()) };
        let judge = self.judge(graph, node, schema).await?;
        let mut at = -1;
        loop {
            let letters = self.store.selected(&graph.name, &node.name, at, AT_ONCE)?;
            let Some((last, _)) = letters.last().copied() else { return Ok(()) };
            for (place, id) in letters {
                let entry = letter(&folders.0, id)?;
                let discarded = self.store.is_discarded(&graph.name, &node.name, id, &entry.run)?;
                // They are counted where the next selection is made.
                if discarded || !matches!(judge.letter(&entry)?, Judged::Open(_)) {
                    self.store.unselect(&graph.name, &node.name, place)?;
                }
            }
            at = last;
        }
    }

    /// Sends the selection, if there is one.
    async fn send_again(
        &self,
        graph: &Graph,
        node: &Node<dyn towpath_core::Sink>,
        folders: &Folders,
        options: &RunOptions,
        done: &mut SinkReplay,
    ) -> Result<()> {
        let Some((selection, count)) = self.store.selection(&graph.name, &node.name)? else { return Ok(()) };
        let Some(schema) = self.store.schema(&graph.name, &node.name)? else {
            return Err(Error::internal("the columns of the sink are not known any more"));
        };
        // What is known to be committed may lag behind what is.
        let seen = self.store.seen_checkpoint(&graph.name, &node.name)?.map_or(0, |seen| seen.epoch);
        let as_of = seen.max(self.store.newest_letter_epoch(&graph.name, &node.name)?);
        let mut replay = Self::replaying(graph, node, as_of)?;
        let (store, pipeline, sink, folders) =
            (self.store.clone(), graph.name.clone(), node.name.clone(), folders.0.clone());
        for source in &mut replay.sources {
            let (store, pipeline, sink, folders) = (store.clone(), pipeline.clone(), sink.clone(), folders.clone());
            let schema = Arc::clone(&schema);
            source.make = Arc::new(move || {
                let letters = LetterSource::new(&store, &pipeline, &sink, folders.clone(), selection, count, &schema);
                Ok(Box::new(letters))
            });
        }
        let report = self.run_graph(&replay, options.clone()).await;
        if report.status != Status::Completed {
            done.run = Some(report);
            return Ok(());
        }
        self.store.selection_done(&graph.name, &node.name)?;
        done.sent += count;
        done.refused += report.dead_letters;
        Ok(())
    }
}

/// Decides what is to be done with dead letters of one sink.
struct Judge {
    store: StateStore,
    pipeline: Name,
    sink: Name,
    schema: SchemaRef,
    mode: WriteMode,
    /// Of an upserting sink that says them.
    columns: Option<Vec<String>>,
}

enum Judged {
    /// It can be sent again.
    Open(Option<KeyHash>),
    Superseded,
    Unreadable,
}

impl Judge {
    fn letter(&self, entry: &Entry) -> Result<Judged> {
        let Some(rows) = row(&self.schema, entry) else { return Ok(Judged::Unreadable) };
        let key = match &self.columns {
            Some(columns) => keys(columns, &rows)?.pop(),
            None => None,
        };
        let superseded = self.mode == WriteMode::Upsert
            && is_superseded(&self.store, &self.pipeline, &self.sink, entry, key.as_ref())?;
        Ok(if superseded { Judged::Superseded } else { Judged::Open(key) })
    }
}

/// The row of a letter in the columns that the sink is given; `None` if it does not fit them any more.
pub(crate) fn row(schema: &SchemaRef, entry: &Entry) -> Option<RecordBatch> {
    let Row::Json(text) = &entry.row else { return None };
    let plain = dead_letters::plain_schema(schema).unwrap_or_else(|| Arc::clone(schema));
    let mut decoder = ReaderBuilder::new(plain).with_batch_size(1).with_strict_mode(true).build_decoder().ok()?;
    decoder.decode(text.get().as_bytes()).ok()?;
    let rows = decoder.flush().ok().flatten().filter(|rows| rows.num_rows() == 1)?;
    dead_letters::relabelled(&rows, schema)
}

/// Reads one letter.
fn letter(folders: &[PathBuf; 2], id: LetterId) -> Result<Entry> {
    let folder: &Path = folders.get(usize::from(id.folder)).map_or(Path::new(""), PathBuf::as_path);
    dead_letters::read_at(folder, id.file, id.at)
}
