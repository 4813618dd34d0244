//! The source: decides what of which file is to be read, keeps a few files in flight, and gives their pieces in the list's order.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use arrow_array::RecordBatch;
use arrow_schema::{Schema, SchemaRef};
use async_trait::async_trait;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use towpath_core::{
    Context, Error, ErrorKind, Known, Mark, Name, Next, Partition, Piece, Position, Result, Resume, Run, Source,
    SourcePlan, Work,
    source::{Discovery, Replay},
};
use towpath_formats::csv::CsvDecoder;
use towpath_http::Client;

use crate::{
    config::{Compression, Read, SourceOptions},
    discover,
    input::{BEGIN_ANEW, HEAD, another},
    listing::{Item, Location, ask, list},
    position::{At, Identity},
    reader::{Given, Job, Reader, SOURCE, Start, schema_of},
};

/// How many pieces of a file may wait to be taken.
const AHEAD: usize = 2;

/// Reads CSV files from disk and over HTTP.
///
/// * A file's position carries the proof of its identity; another version is a Conflict, never a mixture.
/// * Each file has a task of its own, which [`close`](Source::close) ends; `next` only takes what they give, so it is cancel-safe.
/// * Files are opened in the list's order and their pieces given in it, one file after another.
pub struct CsvSource {
    options: SourceOptions,
    /// What the server said when the plan was made.
    asked: HashMap<Partition, Item>,
    open: Option<Open>,
}

struct Open {
    ctx: Context,
    gone: VecDeque<Partition>,
    waiting: VecDeque<Job>,
    reader: Reader,
    reading: VecDeque<Reading>,
    tasks: JoinSet<()>,
    /// Passed to the task that is started next: fires when the one before has opened its file.
    turn: Option<oneshot::Receiver<()>>,
    schema: Option<SchemaRef>,
    failed: bool,
}

struct Reading {
    partition: Partition,
    given: mpsc::Receiver<Result<Given>>,
}

/// What is to be read, and what is not there any more.
struct Decision {
    jobs: Vec<Job>,
    gone: Vec<Partition>,
}

impl CsvSource {
    /// From its options.
    ///
    /// # Errors
    /// Config.
    pub fn new(options: SourceOptions) -> Result<Self> {
        options.check()?;
        // What cannot decode is found now, not at night.
        CsvDecoder::new(&options.csv)?;
        Ok(Self { options, asked: HashMap::new(), open: None })
    }

    fn reader(&self, ctx: &Context) -> Result<Reader> {
        let client = if self.options.url.all().is_empty() {
            None
        } else {
            Some(Arc::new(Client::new(&self.options.http, ctx)?))
        };
        Ok(Reader {
            ctx: ctx.clone(),
            client,
            csv: Arc::new(self.options.csv.clone()),
            compression: self.options.compression,
            source_column: self.options.source_column,
        })
    }

    /// Decides what of each file is to be read. A pure function of what is there and what was read.
    fn decide(&self, name: &Name, run: &Run, resume: &Resume, items: Vec<Item>) -> Result<Decision> {
        let same_run = resume.same_run(run).is_some();
        let carries = self.options.read == Read::Changed && !resume.whole;
        let counted = resume.from.as_ref().filter(|_| same_run || carries).and_then(|from| from.of(name));
        let none = BTreeMap::new();
        let counted = counted.unwrap_or(&none);
        let until = resume.until.as_ref().map(|until| until.of(name).unwrap_or(&none));
        let there: HashSet<Partition> = items.iter().map(|item| item.partition.clone()).collect();

        let mut gone = Vec::new();
        for (partition, position) in counted {
            let dropped = match until {
                Some(until) => !until.contains_key(partition),
                None => !there.contains(partition) && self.options.read == Read::Changed,
            };
            let begun = same_run && !there.contains(partition) && !parse(position)?.end;
            if begun && until.is_none() {
                return Err(Error::not_found("the file has vanished, and it was only read in part")
                    .hint(BEGIN_ANEW)
                    .at(partition.to_string()));
            }
            if dropped {
                gone.push(partition.clone());
            }
        }
        if let Some(missing) = until.and_then(|until| {
            until
                .keys()
                .find(|partition| !there.contains(*partition) && until.get(*partition) != counted.get(*partition))
        }) {
            return Err(Error::conflict("the file was read before and is not there any more")
                .hint(BEGIN_ANEW)
                .at(missing.to_string()));
        }

        let mut jobs = Vec::new();
        for item in items {
            let stop = match until {
                None => None,
                Some(until) => match until.get(&item.partition) {
                    // It came later than what is to be read again.
                    None => continue,
                    Some(stop) if counted.get(&item.partition) == Some(stop) => continue,
                    Some(stop) => Some(parse(stop)?),
                },
            };
            if let (Some(stop), Some(now)) = (&stop, item.identity.as_ref().filter(|now| now.is_proof()))
                && !now.is_unchanged_from(&stop.identity)
            {
                return Err(another(now, &stop.identity).at(item.partition.to_string()));
            }
            let start = match counted.get(&item.partition) {
                None => Start::Anew,
                Some(position) => {
                    let at = parse(position)?;
                    let differs = item.identity.as_ref().is_some_and(|now| !now.is_unchanged_from(&at.identity));
                    match (at.end, same_run) {
                        // Read to its end in this very run. If it has changed since, that is for the next one.
                        (true, true) if stop.is_none() => continue,
                        (true, _)
                            if item.identity.as_ref().is_some_and(|now| now.is_unchanged_from(&at.identity))
                                && stop.is_none() =>
                        {
                            continue;
                        }
                        // Only who has not asked yet asks on condition: times in HTTP are whole seconds, lengths are exact.
                        (true, false) if stop.is_none() && item.identity.is_none() => {
                            Start::UnlessUnchanged(at.identity)
                        }
                        (true, _) => Start::Anew,
                        (false, true) if differs => {
                            let now = item.identity.as_ref().map(ToString::to_string).unwrap_or_default();
                            let what = format!(
                                "the file changed while the run was under way: it is now {now}, and was {}",
                                at.identity
                            );
                            return Err(Error::conflict(what).hint(BEGIN_ANEW).at(item.partition.to_string()));
                        }
                        (false, false) if differs => Start::Anew,
                        (false, _) => Start::Behind(at),
                    }
                }
            };
            jobs.push(Job { item, start, until: stop });
        }
        Ok(Decision { jobs, gone })
    }

    fn identity(&self) -> String {
        let locations: Vec<String> = match self.options.urls() {
            Ok(urls) if !urls.is_empty() => urls.into_iter().map(|url| Location::Url(url).to_string()).collect(),
            _ => self.options.path.all().iter().map(|path| absolute(path)).collect(),
        };
        format!("csv {}", locations.join(", "))
    }

    /// The schema without reading a file: declared, or by the first file's beginning, where that is cheap.
    async fn schema(&self, reader: &Reader, items: &[Item], notes: &mut Vec<String>) -> Known {
        let declared = CsvDecoder::new(&self.options.csv).ok().and_then(|decoder| decoder.schema());
        let schema = match (declared, items.first()) {
            (Some(schema), _) => Some(schema),
            (None, Some(item)) if matches!(item.location, Location::Path(_)) || item.ranges => {
                match reader.head(item, HEAD).await {
                    Ok((head, complete, _)) => schema_of(&self.options.csv, head, complete).unwrap_or_else(|error| {
                        notes.push(format!("{}: {error}", item.location));
                        None
                    }),
                    Err(error) => {
                        notes.push(format!("{}: {error}", item.location));
                        None
                    }
                }
            }
            _ => None,
        };
        let with_source = |schema: SchemaRef| {
            let source = arrow_schema::Field::new(SOURCE, arrow_schema::DataType::Utf8, true);
            let fields: Vec<_> = schema.fields().iter().cloned().chain([Arc::new(source)]).collect();
            Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
        };
        match schema {
            Some(schema) if self.options.source_column => Known::Now(with_source(schema)),
            Some(schema) => Known::Now(schema),
            None => Known::No,
        }
    }
}

/// What the files were when they were last read.
fn known(name: &Name, resume: &Resume) -> HashMap<Partition, Identity> {
    let positions = resume.from.as_ref().and_then(|from| from.of(name)).into_iter().flatten();
    positions.filter_map(|(partition, at)| Some((partition.clone(), At::parse(at)?.identity))).collect()
}

fn parse(position: &Position) -> Result<At> {
    At::parse(position).ok_or_else(|| {
        Error::conflict(format!("'{position}' is no position in a file"))
            .hint("begin anew with `towpath state reset checkpoint`")
    })
}

/// The path without its dependence on the folder one stands in.
fn absolute(path: &str) -> String {
    std::path::absolute(path).map_or_else(|_| path.to_owned(), |path| path.display().to_string())
}

#[async_trait]
impl Source for CsvSource {
    async fn plan(&mut self, ctx: &Context, run: &Run, resume: &Resume) -> Result<SourcePlan> {
        let reader = self.reader(ctx)?;
        // What cannot be looked at now is looked for again when it is to be read; the columns may be known all the same.
        let (mut items, unseen) = match list(ctx, &self.options).await {
            Err(error) if error.kind() == ErrorKind::Unavailable => (vec![], Some(error.to_string())),
            items => (items?, None),
        };
        let mut notes = match &reader.client {
            Some(client) => {
                let known = known(ctx.component(), resume);
                ask(ctx, client, &mut items, self.options.concurrency as usize, &known).await?
            }
            None => vec![],
        };
        if reader.client.is_some() {
            self.asked = items.iter().map(|item| (item.partition.clone(), item.clone())).collect();
        }
        let looked = unseen.is_none();
        notes.extend(unseen);
        let schema = self.schema(&reader, &items, &mut notes).await;
        let proven = looked
            && items.iter().all(|item| {
                item.identity.as_ref().is_some_and(|identity| identity.is_proof()) && !self.is_packed(item)
            });
        if self.options.read == Read::Changed {
            let unknown = items.iter().filter(|item| item.identity == Some(Identity::Unknown));
            notes.extend(unknown.map(|item| {
                format!("{}: the server sends neither ETag nor Last-Modified, so it is read in each run", item.location)
            }));
        }
        let Decision { jobs, gone } = match looked {
            true => self.decide(ctx.component(), run, resume, items)?,
            false => Decision { jobs: vec![], gone: vec![] },
        };
        let gone = gone.iter().map(|partition| Work { what: format!("{partition} is gone"), bytes: Some(0) });
        let work = jobs.iter().map(|job| {
            let from = if let Start::Behind(at) = &job.start { at.next.byte } else { 0 };
            let what = match from {
                0 => job.item.location.to_string(),
                byte => format!("{} from byte {byte} on", job.item.location),
            };
            Work { what, bytes: job.item.bytes.map(|bytes| bytes.saturating_sub(from)) }
        });
        Ok(SourcePlan {
            schema,
            work: gone.chain(work).collect(),
            complete_work: looked,
            replay: if proven { Replay::FromPosition } else { Replay::WholePartitions },
            carries: self.options.read == Read::Changed,
            rereads: false,
            identity: self.identity(),
            notes,
        })
    }

    async fn open(&mut self, ctx: &Context, run: &Run, resume: &Resume) -> Result<()> {
        let reader = self.reader(ctx)?;
        let mut items = list(ctx, &self.options).await?;
        items.iter_mut().for_each(|item| {
            if let Some(asked) = self.asked.remove(&item.partition) {
                *item = asked;
            }
        });
        let Decision { jobs, gone } = self.decide(ctx.component(), run, resume, items)?;
        for job in &jobs {
            let from = if let Start::Behind(at) = &job.start { at.next.byte } else { 0 };
            ctx.expect_bytes(job.item.bytes.unwrap_or(0).saturating_sub(from));
        }
        self.open = Some(Open {
            ctx: ctx.clone(),
            gone: gone.into(),
            waiting: jobs.into(),
            reader,
            reading: VecDeque::new(),
            tasks: JoinSet::new(),
            turn: None,
            schema: None,
            failed: false,
        });
        Ok(())
    }

    async fn next(&mut self) -> Result<Next> {
        let at_once = self.options.concurrency as usize;
        let Some(open) = &mut self.open else { return Err(Error::internal("the source is not open")) };
        if open.failed {
            return Err(Error::internal("the source was read on after an error"));
        }
        let next = open.next(at_once).await;
        open.failed = next.is_err();
        next
    }

    async fn close(&mut self) -> Result<()> {
        if let Some(mut open) = self.open.take() {
            open.reading.clear();
            // Waits for the tasks. What blocks on a disk ends by itself, behind one chunk.
            open.tasks.shutdown().await;
        }
        Ok(())
    }

    async fn discover(&mut self, ctx: &Context) -> Result<Discovery> {
        let reader = self.reader(ctx)?;
        let items = list(ctx, &self.options).await?;
        discover::discover(&reader, &items).await
    }
}

impl CsvSource {
    /// Whether a position inside it would mean nothing, as far as the name or the config tells.
    fn is_packed(&self, item: &Item) -> bool {
        let name = item.location.name().to_ascii_lowercase();
        match self.options.compression {
            Compression::None => false,
            Compression::Auto => [".gz", ".br", ".zst", ".zstd"].iter().any(|ending| name.ends_with(ending)),
            _ => true,
        }
    }
}

impl Open {
    /// Begins with as many files as may be read at once. Waits for nothing.
    fn start(&mut self, at_once: usize) {
        while self.reading.len() < at_once {
            let Some(job) = self.waiting.pop_front() else { return };
            let (give, given) = mpsc::channel(AHEAD);
            let (next, opened) = oneshot::channel();
            let turn = self.turn.replace(opened).unwrap_or_else(|| {
                // The first one's turn is now.
                oneshot::channel().1
            });
            self.reading.push_back(Reading { partition: job.item.partition.clone(), given });
            self.tasks.spawn(self.reader.clone().run(job, turn, next, give));
        }
    }

    async fn next(&mut self, at_once: usize) -> Result<Next> {
        if let Some(partition) = self.gone.pop_front() {
            let schema = self.schema.clone().unwrap_or_else(|| Arc::new(Schema::empty()));
            return Ok(Next::Piece(Box::new(Piece::new(RecordBatch::new_empty(schema), Mark::Gone(partition)))));
        }
        loop {
            self.start(at_once);
            let Some(reading) = self.reading.front_mut() else { return Ok(Next::End) };
            // The only await: what it gives is dealt with at once.
            match reading.given.recv().await {
                Some(Ok(Given::Piece(piece))) => return Ok(Next::Piece(Box::new(self.aligned(*piece)?))),
                Some(Ok(Given::Done)) => {
                    self.reading.pop_front();
                    // Ended tasks are let go of as they end.
                    while self.tasks.try_join_next().is_some() {}
                }
                Some(Err(error)) => return Err(error),
                None if self.ctx.cancel().is_cancelled() => return Err(Error::cancelled()),
                None => return Err(Error::internal("reading ended without a word").at(reading.partition.to_string())),
            }
        }
    }

    /// All files have the columns of the first, in its order.
    fn aligned(&mut self, piece: Piece) -> Result<Piece> {
        let schema = piece.rows.schema();
        if schema.fields().is_empty() {
            // Only a mark, of a file without anything in it.
            let rows = RecordBatch::new_empty(self.schema.clone().unwrap_or(schema));
            return Ok(Piece { rows, ..piece });
        }
        let first = self.schema.get_or_insert_with(|| Arc::clone(&schema));
        if Arc::ptr_eq(first, &schema) || *first == schema {
            return Ok(piece);
        }
        let place = piece.mark.partition().map(ToString::to_string).unwrap_or_default();
        let differs = || {
            let names = |schema: &Schema| {
                schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ")
            };
            let what =
                format!("its columns are {}, and those of the files before are {}", names(&schema), names(first));
            Error::data(what).at(place.clone()).hint("read files of different columns by different sources")
        };
        if first.fields().len() != schema.fields().len() {
            return Err(differs());
        }
        let places: Option<Vec<usize>> = first
            .fields()
            .iter()
            .map(|field| {
                schema.index_of(field.name()).ok().filter(|&at| schema.field(at).data_type() == field.data_type())
            })
            .collect();
        let rows = piece.rows.project(&places.ok_or_else(differs)?);
        let rows = rows.map_err(|error| Error::internal("cannot bring the columns in order").because(error))?;
        Ok(Piece { rows, ..piece })
    }
}
