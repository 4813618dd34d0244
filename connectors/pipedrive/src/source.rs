//! The source: a list of the API v2, whole or only what has changed.
//!
//! What has changed is read in the order of the time of change, from that of the last record on. Times are whole seconds, so the last
//! second is read again, and the records of it that were read are left out by id and time. The vendor's cursor is used within a second only:
//! between two seconds a page begins where the last one ended by time, so a record that others change or delete meanwhile shifts no other
//! out of sight.

use std::{fmt, sync::Arc};

use arrow_schema::SchemaRef;
use async_trait::async_trait;
use towpath_core::{
    Context, Effect, Error, ErrorKind, Known, Mark, Name, Next, Partition, Piece, Position, Result, Resume, Run,
    Source, SourcePlan, Work,
    source::{Discovery, Replay},
};
use towpath_formats::seam::{self, Seam, Seen};

use crate::{
    client::{Crm, account},
    columns::{self, Column, Json},
    config::SourceOptions,
    discover,
    entity::Entity,
    fields::nearest,
    page::{self, Page},
};

/// The position of a list that was read whole.
const READ: &str = "read";

/// A list of records.
pub struct PipedriveSource {
    name: Name,
    options: Arc<SourceOptions>,
    entity: Option<Entity>,
    reading: Option<Reading>,
}

struct Reading {
    crm: Crm,
    shape: Option<(Vec<Column>, SchemaRef)>,
    parts: Vec<Part>,
    /// Which part is being read.
    at: usize,
}

/// One list, which has a position of its own.
#[derive(Debug)]
struct Part {
    partition: Partition,
    path: String,
    query: Vec<(&'static str, String)>,
    /// Read in the order of the time of change.
    by_time: bool,
    /// Its positions mean something to the next run.
    carries: bool,
    /// What was read of the last second.
    seam: Option<Seam<String>>,
    /// The time that pages are asked from.
    since: Option<String>,
    cursor: Option<String>,
    /// Where to stop.
    until: Option<Until>,
    ended: bool,
}

#[derive(Debug)]
enum Until {
    Seam(Box<Seam<String>>),
    Read,
}

impl PipedriveSource {
    /// From its options.
    ///
    /// # Errors
    /// Config.
    pub fn new(name: &Name, options: SourceOptions) -> Result<Self> {
        options.check()?;
        let entity = Entity::named(&options.entity);
        Ok(Self { name: name.clone(), options: Arc::new(options), entity, reading: None })
    }
    /// As the registration wants it.
    ///
    /// # Errors
    /// Config.
    pub fn build(name: &Name, options: SourceOptions) -> Result<Box<dyn Source>> {
        Ok(Box::new(Self::new(name, options)?))
    }

    fn incremental(&self) -> bool {
        self.options.incremental.unwrap_or(true) && self.entity.is_some()
    }
    fn identity(&self) -> Result<String> {
        let options = &self.options;
        let mut identity = format!("{} {}", account(&options.account.base()?), options.entity);
        if self.incremental() {
            identity.push_str(" incremental");
        }
        if let Some(filter) = options.filter_id {
            identity.push_str(&format!(" filter={filter}"));
        }
        Ok(identity)
    }
    fn named(&self) -> Result<()> {
        if self.options.entity.is_empty() {
            return Err(
                Error::config("entity is not set").hint("write persons, deals, organizations, products or activities")
            );
        }
        Ok(())
    }

    async fn columns(&self, crm: &Crm, entity: Entity) -> Result<Vec<Column>> {
        let definitions = crm.definitions(entity).await?;
        columns::select(columns::of_entity(entity, &definitions), self.options.fields.as_deref())
    }

    /// The lists to read, with where they stand.
    fn parts(&self, run: &Run, resume: &Resume) -> Result<Vec<Part>> {
        let options = &self.options;
        let entity = &options.entity;
        let mut parts = vec![(entity.clone(), entity.clone(), vec![])];
        if options.archived {
            parts.push((format!("{entity}/archived"), format!("{entity}/archived"), vec![]));
        }
        if options.deleted {
            parts.push((format!("{entity}/deleted"), entity.clone(), vec![("status", "deleted".to_owned())]));
        }
        let carries = self.incremental();
        let part = |(partition, path, mut query): (String, String, Vec<(&'static str, String)>)| {
            query.extend(options.filter_id.map(|id| ("filter_id", id.to_string())));
            let partition = Partition::new(partition);
            let from = match &resume.from {
                Some(_) if !carries => resume.same_run(run),
                Some(_) if resume.whole => resume.same_run(run),
                from => from.as_ref(),
            };
            let from = from.and_then(|from| from.position(&self.name, &partition));
            let until = resume.until.as_ref().and_then(|until| until.position(&self.name, &partition));
            let start = options.updated_since.filter(|_| carries).map(|moment| second(moment.0));
            let (seam, since, mut ended) = match from {
                Some(position) if !carries => (None, None, read_whole(position)?),
                Some(position) => {
                    let seam: Seam<String> = Seam::read(position)?;
                    let since = Some(seam.cursor.clone());
                    (Some(seam), since, false)
                }
                None => (None, start, false),
            };
            // Where some sinks have what others lack, nothing else is read.
            ended |= resume.until.is_some() && (until.is_none() || until == from);
            let until = match until {
                Some(position) if carries => Some(Until::Seam(Box::new(Seam::read(position)?))),
                Some(position) => read_whole(position)?.then_some(Until::Read),
                None => None,
            };
            let by_time = self.entity.is_some();
            Ok(Part { partition, path, query, by_time, carries, seam, since, cursor: None, until, ended })
        };
        parts.into_iter().map(part).collect()
    }
}

#[async_trait]
impl Source for PipedriveSource {
    async fn plan(&mut self, ctx: &Context, run: &Run, resume: &Resume) -> Result<SourcePlan> {
        self.named()?;
        let crm = Crm::new(&self.options.account, &self.options.http, ctx)?;
        let mut notes = vec![];
        let schema = match self.entity {
            // Nobody but the account knows which other lists there are; a run that begins finds out soon enough.
            None if ctx.starting() => Known::No,
            None => {
                let path = &self.options.entity;
                let asked = crm.list(&format!("list {path}"), path, &[], None, Effect::Cheap).await;
                match asked.map_err(|error| no_such_list(path, error)) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::Config => return Err(error),
                    Err(error) => {
                        notes.push(format!("what {path} are is not known: {error}"));
                        let _ = ctx.would_end(error);
                    }
                }
                Known::No
            }
            Some(entity) => match self.columns(&crm, entity).await {
                Ok(columns) => Known::Now(columns::schema(&columns)),
                Err(error) if error.kind() == ErrorKind::Config => return Err(error),
                Err(error) => {
                    notes.push(format!("which fields there are is not known: {error}"));
                    let _ = ctx.would_end(error);
                    Known::No
                }
            },
        };
        let work = |part: &Part| {
            let since = part.since.as_ref().map(|since| format!(", changed since {since}")).unwrap_or_default();
            Work { what: format!("{} of {}{since}", part.partition, crm.account()), bytes: None }
        };
        let carries = self.incremental();
        Ok(SourcePlan {
            schema,
            work: self.parts(run, resume)?.iter().map(work).collect(),
            complete_work: true,
            replay: if carries { Replay::FromPosition } else { Replay::WholePartitions },
            carries,
            rereads: false,
            identity: self.identity()?,
            notes,
        })
    }

    async fn open(&mut self, ctx: &Context, run: &Run, resume: &Resume) -> Result<()> {
        self.named()?;
        let crm = Crm::new(&self.options.account, &self.options.http, ctx)?;
        let parts = self.parts(run, resume)?;
        self.reading = Some(Reading { crm, shape: None, parts, at: 0 });
        Ok(())
    }

    async fn next(&mut self) -> Result<Next> {
        let Some(reading) = &self.reading else { return Err(Error::internal("the source is not open")) };
        if reading.shape.is_none()
            && let Some(entity) = self.entity
        {
            let columns = self.columns(&reading.crm, entity).await?;
            let schema = columns::schema(&columns);
            if let Some(reading) = &mut self.reading {
                reading.shape = Some((columns, schema));
            }
        }
        let fields = self.options.fields.clone();
        let Some(reading) = &mut self.reading else { return Err(Error::internal("the source is not open")) };
        loop {
            let Some(part) = reading.parts.get_mut(reading.at) else { return Ok(Next::End) };
            if part.ended {
                reading.at += 1;
                continue;
            }
            // Nothing is changed before the answer is there: a `next` that is dropped asks again.
            let asked = part.ask(&reading.crm).await;
            let body = match self.entity {
                None => asked.map_err(|error| no_such_list(&part.path, error))?,
                Some(_) => asked?,
            };
            let page: Page<Json> = page::read_all(&body).map_err(|error| error.at(part.path.as_str()))?;
            let (records, mark) = part.take(page)?;
            let (columns, schema) = match &reading.shape {
                Some(shape) => shape,
                None => {
                    let columns = columns::select(columns::of_sample(&records), fields.as_deref())?;
                    let schema = columns::schema(&columns);
                    reading.shape.insert((columns, schema))
                }
            };
            let Some(mark) = mark else { continue };
            let (rows, rejects) = columns::rows(columns, schema, &records)?;
            let piece = Piece { rejects, bytes: body.len() as u64, ..Piece::new(rows, mark) };
            return Ok(Next::Piece(Box::new(piece)));
        }
    }

    async fn close(&mut self) -> Result<()> {
        self.reading = None;
        Ok(())
    }

    async fn discover(&mut self, ctx: &Context) -> Result<Discovery> {
        let crm = Crm::new(&self.options.account, &self.options.http, ctx)?;
        discover::discover(&crm, self.entity).await
    }
}

impl Part {
    async fn ask(&self, crm: &Crm) -> Result<bytes::Bytes> {
        let mut query: Vec<(&str, &str)> = self.query.iter().map(|(name, value)| (*name, value.as_str())).collect();
        if self.by_time {
            query.extend([("sort_by", "update_time"), ("sort_direction", "asc")]);
            query.extend(self.since.as_deref().map(|since| ("updated_since", since)));
        }
        let what = format!("list {}", self.partition);
        crm.list(&what, &self.path, &query, self.cursor.as_deref(), Effect::Read).await
    }

    /// The records of a page that are new, and where they end; no mark if there is nothing to say.
    fn take(&mut self, page: Page<Json>) -> Result<(Vec<Json>, Option<Mark>)> {
        let next = page.next.filter(|next| Some(next) != self.cursor.as_ref());
        if !self.by_time {
            self.cursor = next;
            self.ended = self.cursor.is_none();
            let mark = self.mark()?;
            return Ok((page.records, Some(mark)));
        }
        let mut new = vec![];
        let asked_since = self.since.clone();
        for record in page.records {
            let stamp =
                ["update_time", "add_time"].into_iter().find_map(|key| record.get(key)?.as_str()).unwrap_or_default();
            let at = columns::moment(stamp).map(second).unwrap_or_default();
            let id = record.get("id").map(ToString::to_string).unwrap_or_default();
            let key = seam::key(xxhash_rust::xxh3::xxh3_128(format!("{id}|{stamp}").as_bytes()));
            let seam = self.seam.get_or_insert_with(|| Seam { cursor: at.clone(), seen: Seen::new() });
            if at < seam.cursor || at == seam.cursor && seam.seen.contains_key(&key) {
                continue;
            }
            if at > seam.cursor {
                *seam = Seam { cursor: at, seen: Seen::new() };
            }
            seam.seen.insert(key, 1);
            seam.check(&self.partition, "update_time")?;
            new.push(record);
            if self.has_arrived()? {
                self.ended = true;
                break;
            }
        }
        if !self.ended {
            let now = self.seam.as_ref().map(|seam| seam.cursor.clone());
            match next {
                None => self.end()?,
                // A second is behind us: the next page begins by time.
                Some(_) if now > asked_since => (self.since, self.cursor) = (now, None),
                Some(next) => self.cursor = Some(next),
            }
        }
        // Nothing new and more to come: the next page says where.
        if new.is_empty() && !self.ended || new.is_empty() && self.carries && self.seam.is_none() {
            return Ok((new, None));
        }
        let mark = self.mark()?;
        Ok((new, Some(mark)))
    }

    fn has_arrived(&self) -> Result<bool> {
        let (Some(Until::Seam(until)), Some(seam)) = (&self.until, &self.seam) else { return Ok(false) };
        if seam.cursor > until.cursor {
            return Err(self.passed());
        }
        Ok(seam.cursor == until.cursor && seam.seen.len() == until.seen.len() && seam.seen == until.seen)
    }

    fn end(&mut self) -> Result<()> {
        if matches!(self.until, Some(Until::Seam(_))) {
            return Err(self.passed());
        }
        self.ended = true;
        Ok(())
    }

    fn passed(&self) -> Error {
        let what = format!("{} changed since it was read: the same rows cannot be given again", self.partition);
        Error::conflict(what).hint("`towpath run --new-run` reads anew; the sinks know rows by their keys")
    }

    fn mark(&self) -> Result<Mark> {
        let partition = self.partition.clone();
        match &self.seam {
            Some(seam) if self.carries && (self.ended || seam.is_short()) => Ok(Mark::At(partition, seam.position()?)),
            _ if self.ended && !self.carries => Ok(Mark::At(partition, Position::new(READ))),
            _ => Ok(Mark::Within(partition)),
        }
    }
}

/// What it means that a list is not there which only the config knows of.
fn no_such_list(name: &str, error: Error) -> Error {
    if error.kind() != ErrorKind::NotFound {
        return error;
    }
    let lists = Entity::ALL.map(Entity::path).into_iter().chain(["pipelines", "stages"]);
    let hint = match nearest(name, lists.clone()).as_slice() {
        [] => format!("there are {}, and other lists of the API v2", lists.collect::<Vec<_>>().join(", ")),
        near => format!("did you mean {}?", near.join(", ")),
    };
    Error::config(format!("entity: Pipedrive has no list '{name}'")).hint(hint)
}

/// Whether a position is the one of a list that was read whole; there is no other.
fn read_whole(position: &Position) -> Result<bool> {
    if &*position.0 == READ {
        return Ok(true);
    }
    let what = format!("the position '{}' is none of a list that is read whole", position.0);
    Err(Error::conflict(what).hint("if the source was changed, `towpath state reset checkpoint` and load anew"))
}

/// A moment as the vendor takes it: in whole seconds, or it is refused.
fn second(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

impl fmt::Debug for PipedriveSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PipedriveSource({})", self.options.entity)
    }
}
