//! A report as a source.
//!
//! A report cannot prove that it is the same a second time, so it is whole or nothing: its pieces are
//! [`Within`](towpath_core::Mark::Within) until the last one. With a window there is one partition, `windows`, whose position says
//! which of them are done ([`Standing`]); without, one partition `report` that means nothing to the next run. A report that was
//! broken off is begun anew.

use std::{collections::VecDeque, sync::Arc};

use arrow_array::RecordBatch;
use arrow_schema::{Schema, SchemaRef};
use async_trait::async_trait;
use futures::future::BoxFuture;
use towpath_core::{
    Context, Error, ErrorKind, Known, Mark, Name, Next, Partition, Piece, Position, Result, Resume, Run, Source,
    SourcePlan, Work,
    source::{Discovery, Replay},
};
use towpath_formats::csv::{CsvDecoder, Decoded};
use towpath_http::shown;

use crate::{
    answer::{Answer, Part},
    config::{Given, SsrsOptions, Windows},
    discover,
    parameters::{Chosen, Definition},
    server::{Rendering, Resolved, Server},
    windows::{Planned, Standing, Wanted, Window},
};

/// The partition of all windows.
const WINDOWS: &str = "windows";
/// The partition of a report without windows.
const REPORT: &str = "report";
/// How many windows a plan lists.
const LISTED: usize = 1_000;

/// The source.
pub struct SsrsSource {
    name: Name,
    options: Arc<SsrsOptions>,
    windows: Option<Windows>,
    server: Option<Server>,
    /// The parameters besides the window's, once they are known.
    resolved: Option<Arc<Parameters>>,
    /// What is still to be read.
    tasks: VecDeque<Task>,
    state: State,
    /// The columns of the first report of this run: all of them have the same.
    schema: Option<SchemaRef>,
}

/// Parameters that hold for the whole run.
struct Parameters {
    chosen: Vec<Chosen>,
    /// They depend on the window, so they are asked for with each.
    by_window: bool,
}

/// One request.
#[derive(Clone, Debug)]
struct Task {
    window: Option<Window>,
    /// In words.
    what: String,
    partition: Partition,
    then: Position,
}

/// What is under way. It lives here and not in a future, so that a call that is dropped can be made again.
enum State {
    Between,
    Asking(Task, BoxFuture<'static, Result<Asked>>),
    Reading(Task, Box<Answer>),
    /// After an error nothing is given any more.
    Over,
}

/// A report that has begun to come, and what it was asked with.
struct Asked {
    rendering: Rendering,
    resolved: Arc<Parameters>,
}

impl SsrsSource {
    /// A source with these options.
    ///
    /// # Errors
    /// Config, for all that can be seen without the server.
    pub fn build(name: &Name, options: SsrsOptions) -> Result<Box<dyn Source>> {
        let windows = options.check()?;
        CsvDecoder::new(&options.csv)?;
        Ok(Box::new(Self {
            name: name.clone(),
            options: Arc::new(options),
            windows,
            server: None,
            resolved: None,
            tasks: VecDeque::new(),
            state: State::Between,
            schema: None,
        }))
    }

    fn partition(&self) -> Partition {
        Partition::new(if self.windows.is_some() { WINDOWS } else { REPORT })
    }

    /// What makes positions meaningful.
    fn identity(&self) -> String {
        let SsrsOptions { url, report, parameters, .. } = &*self.options;
        let mut text = format!("ssrs {} {report}", shown(url).trim_end_matches('/'));
        if let Some(Windows { options, .. }) = &self.windows {
            let size = options.size;
            text.push_str(&format!(
                " window={size} {} {}..{}",
                options.timezone, options.start_parameter, options.end_parameter
            ));
        }
        for (name, given) in parameters {
            text.push_str(&format!(" {name}={given}"));
        }
        text
    }

    /// What a run reads, and what has been read of it already.
    fn tasks(&self, run: &Run, resume: &Resume) -> Result<Vec<(Task, Option<Planned>)>> {
        let (name, partition) = (&*self.name, self.partition());
        let position = |of: &Option<towpath_core::Checkpoint>| of.as_ref()?.position(name, &partition).cloned();
        let from = position(&resume.from);
        let mut tasks = match &self.windows {
            None => {
                let then = Position::new(serde_json::json!({ "run": &*run.id }).to_string());
                let done = from.as_ref() == Some(&then);
                let what = format!("report {}", self.options.report);
                let task = Task { window: None, what, partition: partition.clone(), then };
                if done { vec![] } else { vec![(task, None)] }
            }
            Some(windows) => {
                let from = from.as_ref().map(standing).transpose()?;
                let wanted = Wanted {
                    run: &run.id,
                    now: run.started,
                    start: windows.options.start,
                    lookback: windows.options.lookback,
                    include_current: windows.options.include_current,
                    most: windows.options.max_windows_per_run.map(std::num::NonZeroU64::get),
                    whole: resume.whole,
                };
                let planned = windows.grid.choose(from.as_ref(), &wanted)?;
                planned
                    .into_iter()
                    .map(|planned| Ok((window_task(&partition, &planned)?, Some(planned))))
                    .collect::<Result<_>>()?
            }
        };
        if resume.until.is_some() {
            let until = position(&resume.until);
            let keep = match until {
                until if until == from || until.is_none() => 0,
                until => {
                    1 + tasks.iter().position(|(task, _)| Some(&task.then) == until.as_ref()).ok_or_else(|| {
                        let what = "the windows that one sink has and another lacks are no longer those of this config";
                        Error::conflict(what)
                            .hint("undo the change of `window` until all sinks have the same, or reset the checkpoint")
                    })?
                }
            };
            tasks.truncate(keep);
        }
        Ok(tasks)
    }

    fn server(&mut self, ctx: &Context) -> Result<Server> {
        if self.options.report.is_empty() {
            let hint = "set `report: /Folder/Name`; `towpath discover` lists what there is";
            return Err(Error::config("no report is named").hint(hint));
        }
        let server = Server::new(&self.options, ctx)?;
        self.server = Some(server.clone());
        Ok(server)
    }

    /// Asks the server whether the parameters go with the report. `None`: it could not be asked, and why.
    async fn look(&mut self, server: &Server, window: Option<Window>) -> Result<Result<Vec<Definition>, Error>> {
        let chosen = window_parameters(self.windows.as_ref(), window)?;
        match server.resolve(chosen).await {
            Ok(resolved) => {
                let definitions = resolved.definitions.clone();
                self.resolved = Some(Arc::new(self.keep(resolved)));
                Ok(Ok(definitions))
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::RateLimited) =>
            {
                Ok(Err(error))
            }
            Err(error) => Err(error),
        }
    }

    fn keep(&self, resolved: Resolved) -> Parameters {
        kept(&self.options, self.windows.as_ref(), resolved)
    }

    /// Begins to ask for a report.
    fn ask(&self, server: &Server, task: &Task) -> BoxFuture<'static, Result<Asked>> {
        let (server, options, windows) = (server.clone(), Arc::clone(&self.options), self.windows.clone());
        let (resolved, task) = (self.resolved.clone(), task.clone());
        Box::pin(async move {
            let window = window_parameters(windows.as_ref(), task.window)?;
            let all = options.parameters.values().any(|given| *given == Given::All);
            let resolved = match resolved.filter(|resolved| !resolved.by_window) {
                Some(resolved) => resolved,
                // Without `all` there is nothing to find out: the server says itself what it does not take.
                None if !all => Arc::new(kept(
                    &options,
                    windows.as_ref(),
                    Resolved {
                        chosen: crate::parameters::Cascade::new(&options.parameters, vec![]).chosen(),
                        definitions: vec![],
                    },
                )),
                None => Arc::new(kept(&options, windows.as_ref(), server.resolve(window.clone()).await?)),
            };
            let parameters: Vec<Chosen> = window.into_iter().chain(resolved.chosen.iter().cloned()).collect();
            let rendering = server.render(&format!("render {}", task.what), &parameters).await?;
            Ok(Asked { rendering, resolved })
        })
    }

    /// Rows of a report as a piece.
    fn piece(
        &mut self,
        task: &Task,
        decoded: Option<Decoded>,
        columns: Option<SchemaRef>,
        mark: Mark,
    ) -> Result<Piece> {
        let Some(Decoded { rows, mut rejects, first, .. }) = decoded else {
            let schema = columns.or_else(|| self.schema.clone()).unwrap_or_else(|| Arc::new(Schema::empty()));
            self.same_columns(task, &schema)?;
            return Ok(Piece::new(RecordBatch::new_empty(schema), mark));
        };
        self.same_columns(task, rows.schema_ref())?;
        if let Some(window) = &task.window {
            for reject in &mut rejects {
                // A position counts inside one answer.
                reject.reason = format!("{} (window {} to {})", reject.reason, window.start, window.end);
            }
        }
        Ok(Piece { rows, rejects, mark, bytes: 0, first_row: Some(first.record.saturating_sub(1)) })
    }

    /// All reports of a run have the same columns.
    fn same_columns(&mut self, task: &Task, columns: &SchemaRef) -> Result<()> {
        let Some(before) = &self.schema else {
            self.schema = Some(Arc::clone(columns));
            return Ok(());
        };
        if before == columns {
            return Ok(());
        }
        let names = |schema: &SchemaRef| {
            schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>().join(", ")
        };
        let what =
            format!("{} has other columns than the one before: {}, not {}", task.what, names(columns), names(before));
        Err(Error::data(what)
            .hint("the report was changed: look at what became of its columns, and at `columns` and `select`"))
    }

    /// One step of what is under way; `None`: go on.
    async fn step(&mut self) -> Result<Option<Next>> {
        match &mut self.state {
            State::Over => Err(Error::internal("it was read on after an error")),
            State::Between => {
                let Some(task) = self.tasks.pop_front() else { return Ok(Some(Next::End)) };
                let Some(server) = &self.server else {
                    return Err(Error::internal("it was read without being opened"));
                };
                let asking = self.ask(server, &task);
                self.state = State::Asking(task, asking);
                Ok(None)
            }
            State::Asking(task, asking) => {
                let asked = asking.await;
                let task = task.clone();
                self.state = State::Over;
                let Asked { rendering, resolved } = asked.map_err(|error| self.place(&task, error))?;
                self.resolved = Some(resolved);
                self.state = State::Reading(task, Box::new(Answer::new(rendering, &self.options.csv)?));
                Ok(None)
            }
            State::Reading(_, answer) => {
                let part = answer.next().await;
                let State::Reading(task, mut answer) = std::mem::replace(&mut self.state, State::Over) else {
                    return Ok(None);
                };
                let made = part.and_then(|part| match part {
                    Part::More(decoded) => {
                        let mark = Mark::Within(task.partition.clone());
                        Ok((self.piece(&task, Some(decoded), None, mark)?, false))
                    }
                    Part::Last(decoded) => {
                        let mark = Mark::At(task.partition.clone(), task.then.clone());
                        Ok((self.piece(&task, decoded, answer.schema(), mark)?, true))
                    }
                });
                match made {
                    Ok((mut piece, last)) => {
                        piece.bytes = answer.new_bytes();
                        if last {
                            answer.done();
                            self.state = State::Between;
                        } else {
                            self.state = State::Reading(task, answer);
                        }
                        Ok(Some(Next::Piece(Box::new(piece))))
                    }
                    Err(error) => {
                        // What the server sent badly is no sign that it is unwell.
                        if error.can_retry() {
                            answer.failed(&error);
                        } else {
                            answer.done();
                        }
                        Err(self.place(&task, error))
                    }
                }
            }
        }
    }

    fn place(&self, task: &Task, error: Error) -> Error {
        match task.window {
            Some(window) => error.at(format!("window {} to {}", window.start, window.end)),
            None => error,
        }
    }
}

fn standing(position: &Position) -> Result<Standing> {
    serde_json::from_str(&position.0).map_err(|error| {
        Error::conflict(format!("the checkpoint's position '{position}' is not one of windows"))
            .because(error)
            .hint("reset the checkpoint, and set window.start to where it should go on")
    })
}

fn window_task(partition: &Partition, planned: &Planned) -> Result<Task> {
    let Window { start, end } = planned.window;
    let then = serde_json::to_string(&planned.then).map_err(|error| Error::internal("a position").because(error))?;
    let note = match (planned.current, planned.again) {
        (true, _) => ", still running",
        (_, true) => ", again",
        _ => "",
    };
    let what = format!("window {start} to {end}{note}");
    Ok(Task { window: Some(planned.window), what, partition: partition.clone(), then: Position::new(then) })
}

/// The window's parameters with their values.
fn window_parameters(windows: Option<&Windows>, window: Option<Window>) -> Result<Vec<Chosen>> {
    let (Some(Windows { options, .. }), Some(window)) = (windows, window) else { return Ok(vec![]) };
    Ok(vec![
        Chosen::one(&options.start_parameter, options.written(window.start)?),
        Chosen::one(&options.end_parameter, options.written(options.end_sent(window.end))?),
    ])
}

/// What of resolved parameters holds for the whole run.
fn kept(options: &SsrsOptions, windows: Option<&Windows>, resolved: Resolved) -> Parameters {
    let Resolved { mut chosen, definitions } = resolved;
    let mut by_window = false;
    if let Some(Windows { options: window, .. }) = windows {
        let of_window = |name: &String| *name == window.start_parameter || *name == window.end_parameter;
        chosen.retain(|chosen| !of_window(&chosen.name));
        by_window = definitions.iter().any(|definition| {
            options.parameters.get(&definition.name) == Some(&Given::All)
                && crate::parameters::above(definition, &definitions).iter().any(|name| of_window(&(*name).to_owned()))
        });
    }
    Parameters { chosen, by_window }
}

#[async_trait]
impl Source for SsrsSource {
    async fn plan(&mut self, ctx: &Context, run: &Run, resume: &Resume) -> Result<SourcePlan> {
        let server = self.server(ctx)?;
        let tasks = self.tasks(run, resume)?;
        let mut notes = Vec::new();
        let mut work: Vec<Work> = tasks.iter().map(|(task, _)| Work { what: task.what.clone(), bytes: None }).collect();
        if work.len() > LISTED {
            notes.push(format!("{} windows in all; the first {LISTED} are listed", work.len()));
            work.truncate(LISTED);
        }
        // Nothing to read: nobody needs to be asked.
        if let Some((task, _)) = tasks.first() {
            match self.look(&server, task.window).await? {
                Ok(_) => {
                    notes.extend(self.resolved.iter().flat_map(|resolved| expansions(&self.options, &resolved.chosen)))
                }
                Err(error) => {
                    notes.push(format!("the server could not be asked, so the parameters are not checked: {error}"))
                }
            }
        }
        let mut rereads = false;
        if let Some(Windows { options, .. }) = &self.windows {
            rereads = !options.lookback.0.is_zero() || options.include_current;
            let again = options.lookback.0.as_secs().div_ceil(options.size.0.as_secs().max(1));
            if options.max_windows_per_run.is_some_and(|most| most.get() <= again) {
                notes.push(format!(
                    "max_windows_per_run is not more than the {again} windows of the look-back: rows come about that much later"
                ));
            }
        }
        let schema = CsvDecoder::new(&self.options.csv)?.schema().map_or(Known::No, Known::Now);
        Ok(SourcePlan {
            schema,
            work,
            complete_work: true,
            replay: Replay::WholePartitions,
            carries: self.windows.is_some(),
            rereads,
            identity: self.identity(),
            notes,
        })
    }

    async fn open(&mut self, ctx: &Context, run: &Run, resume: &Resume) -> Result<()> {
        self.server(ctx)?;
        self.tasks = self.tasks(run, resume)?.into_iter().map(|(task, _)| task).collect();
        Ok(())
    }

    async fn next(&mut self) -> Result<Next> {
        loop {
            match self.step().await {
                Ok(Some(next)) => return Ok(next),
                Ok(None) => {}
                Err(error) => {
                    self.state = State::Over;
                    return Err(error);
                }
            }
        }
    }

    async fn close(&mut self) -> Result<()> {
        // A report that is still being rendered goes on on the server: its lease is dropped without a word, and it counts as busy.
        // One that was flowing stops as soon as the server sees that nobody listens.
        if let State::Reading(_, answer) = std::mem::replace(&mut self.state, State::Over) {
            answer.done();
        }
        self.tasks.clear();
        Ok(())
    }

    async fn discover(&mut self, ctx: &Context) -> Result<Discovery> {
        let server = Server::new(&self.options, ctx)?;
        if self.options.report.is_empty() {
            return Ok(discover::reports(&server.list("/").await?));
        }
        discover::parameters(&server, &self.options).await
    }
}

/// What `all` has become, for the plan.
fn expansions(options: &SsrsOptions, chosen: &[Chosen]) -> Vec<String> {
    let all = options.parameters.iter().filter(|(_, given)| **given == Given::All);
    let of = |(name, _): (&String, _)| chosen.iter().find(|chosen| chosen.name == *name);
    all.filter_map(of).map(|chosen| format!("{}: all is {} values now", chosen.name, chosen.values.len())).collect()
}
