//! What the tests of this crate share: a source made as the config makes it, read to its end.

#![allow(dead_code, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "it is what makes a test fail")]

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use towpath_connector_ssrs as _;
use towpath_core::{
    Call, Checkpoint, Connector, Context, Effect, Error, Lease, Mark, Next, Piece, Result, Resume, Run, Secret, Source,
    context::{Admission, Attempt, Credentials, Door},
};
use towpath_testkit::report_server::{Report, ReportServer};

/// The source's name.
pub const NAME: &str = "production";
/// The password of the account.
pub const PASSWORD: &str = "correct horse";

/// A server with the production log, one account.
pub fn server() -> towpath_testkit::report_server::Builder {
    ReportServer::builder().report(Report::production_log(60)).account("CORP", "loader", PASSWORD)
}

/// Options for the production log of a server; `more` is laid over them.
pub fn options(server: &ReportServer, more: Value) -> Value {
    let mut options = json!({
        "url": server.url(),
        "report": "/Manufacturing/Production log",
        "auth": { "type": "ntlm", "domain": "CORP", "username": "loader", "password": PASSWORD },
        "parameters": { "Line": "all" },
        "window": { "size": "1h", "start_parameter": "From", "end_parameter": "To" },
    });
    lay_over(&mut options, more);
    options
}

/// Objects are merged, null takes away, anything else replaces.
fn lay_over(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                match value {
                    Value::Null => drop(under.remove(&key)),
                    value => lay_over(under.entry(key).or_insert(Value::Null), value),
                }
            }
        }
        (under, over) => *under = over,
    }
}

/// A source, as the config makes it.
pub fn make(options: Value) -> Result<Box<dyn Source>> {
    let role = Connector::find("ssrs").unwrap().source.as_ref().unwrap();
    (role.build)(&NAME.into(), options)
}

/// A run that began at a time.
pub fn run(id: &str, started: &str) -> Run {
    Run {
        id: id.into(),
        started: started.parse().unwrap(),
        parameters: Default::default(),
        fingerprint: Default::default(),
    }
}

/// What a source gave.
#[derive(Default)]
pub struct Given {
    pub pieces: Vec<Piece>,
    /// Why it ended early.
    pub error: Option<Error>,
}

impl Given {
    pub fn rows(&self) -> usize {
        self.pieces.iter().map(|piece| piece.rows.num_rows()).sum()
    }
    /// Where a commit could stand: rows so far and the position.
    pub fn boundaries(&self) -> Vec<(usize, Mark)> {
        let mut rows = 0;
        let count = |piece: &Piece| {
            rows += piece.rows.num_rows();
            (rows, piece.mark.clone())
        };
        self.pieces.iter().map(count).filter(|(_, mark)| mark.is_boundary()).collect()
    }
    /// The checkpoint after the n-th boundary.
    pub fn checkpoint(&self, run: &Run, boundary: usize) -> Checkpoint {
        let Mark::At(partition, position) = self.boundaries()[boundary].1.clone() else { panic!("no position") };
        let at = [(NAME.into(), [(partition, position)].into_iter().collect())].into_iter().collect();
        Checkpoint { run: run.clone(), epoch: 1, last: false, keyed_by: None, at }
    }
    pub fn last_checkpoint(&self, run: &Run) -> Checkpoint {
        self.checkpoint(run, self.boundaries().len() - 1)
    }
    /// The error, in words.
    pub fn says(&self) -> String {
        match &self.error {
            None => "no error".to_owned(),
            Some(error) => {
                let hint = error.what_to_do().unwrap_or("-");
                format!("{} {:?}: {error}\n  {hint}", error.kind().name(), error.retrying())
            }
        }
    }
}

/// Opens, reads to the end or an error, closes.
pub async fn read_with(ctx: &Context, source: &mut dyn Source, run: &Run, resume: &Resume) -> Given {
    let mut given = Given::default();
    let mut reading = async || {
        source.open(ctx, run, resume).await?;
        loop {
            match source.next().await? {
                Next::Piece(piece) => given.pieces.push(*piece),
                Next::Idle => {}
                Next::End => return Ok(()),
            }
        }
    };
    let ended: Result<()> = reading().await;
    source.close().await.unwrap();
    given.error = ended.err();
    given
}

/// The same with a fresh source and no guard.
pub async fn read(options: Value, run: &Run, resume: &Resume) -> Given {
    let mut source = make(options).unwrap();
    read_with(&Context::bare(NAME), &mut *source, run, resume).await
}

/// From a checkpoint.
pub fn from(checkpoint: Checkpoint) -> Resume {
    Resume { from: Some(checkpoint), ..Resume::default() }
}

/// A door that lets everything through once, and notes how each call ended.
#[derive(Default)]
pub struct Notes(Mutex<Vec<String>>);

impl Notes {
    pub fn taken(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
    fn note(&self, note: String) {
        self.0.lock().unwrap().push(note);
    }
}

struct Noting(Arc<Notes>);

#[async_trait]
impl Door for Noting {
    async fn pass<'a>(&self, call: &Call, attempt: &mut (dyn FnMut() -> Attempt<'a> + Send)) -> Result<Lease> {
        let class = if call.effect == Effect::Cheap { "cheap" } else { "full" };
        let what = format!("{class} {}", call.what);
        if let Err(error) = attempt().await {
            self.0.note(format!("{what}: {}", error.kind().name()));
            return Err(error);
        }
        let notes = Arc::clone(&self.0);
        Ok(Lease::new(move |end| {
            let end = match end {
                Some(Ok(())) => "done",
                Some(Err(_)) => "broke off",
                None => "nobody saw its end",
            };
            notes.note(format!("{what}: {end}"));
        }))
    }
}

/// Lets everybody in; what became of credentials is nobody's business here.
struct Open;

#[async_trait]
impl Credentials for Open {
    async fn admit(&self, _: &str, _: &str, _: &Secret) -> Result<Box<dyn Admission>> {
        Ok(Box::new(Open))
    }
}

impl Admission for Open {
    fn proven(self: Box<Self>) {}
    fn refused(self: Box<Self>) {}
    fn unsent(self: Box<Self>) {}
}

/// A context that notes its calls.
pub fn noting() -> (Context, Arc<Notes>) {
    let notes = Arc::new(Notes::default());
    let door = Arc::new(Noting(Arc::clone(&notes)));
    (Context::new("test".into(), NAME.into(), door, Arc::new(Open), CancellationToken::new()), notes)
}
