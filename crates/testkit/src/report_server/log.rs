//! Who asked what when: what a test looks at after the client is done.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{ntlm::Refused, sign_in::Sent};

/// One request. Times count from the server's start.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Counts connections from 0.
    pub connection: u64,
    /// When it came.
    pub at: Duration,
    /// `GET` or `POST`.
    pub method: String,
    /// Path and query as they came.
    pub target: String,
    /// What the `Authorization` header held.
    pub sent: Sent,
    /// Who it was: the account signed in, or the one a refused proof was for.
    pub account: Option<String>,
    /// Why a proof was refused.
    pub refused: Option<Refused>,
    /// What it was answered with.
    pub status: u16,
    /// The SOAP operation, `render`, or empty.
    pub what: String,
}

/// One rendering of a report.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// The report's path.
    pub report: String,
    /// Parameters as they were given, in order; `None` is null.
    pub parameters: Vec<(String, Option<String>)>,
    /// When the request came.
    pub started: Duration,
    /// When its last byte was handed over, or the client went away; `None` while it runs.
    pub ended: Option<Duration>,
    /// Whether the body was sent to its end.
    pub complete: bool,
    /// Rows handed over.
    pub rows: u64,
    /// Bytes handed over.
    pub bytes: u64,
}

impl Rendered {
    /// All values of a parameter.
    pub fn values(&self, name: &str) -> Vec<Option<&str>> {
        let of = self.parameters.iter().filter(|(given, _)| given == name);
        of.map(|(_, value)| value.as_deref()).collect()
    }
    /// The only value of a parameter, or nothing.
    pub fn value(&self, name: &str) -> Option<&str> {
        match self.values(name)[..] {
            [value] => value,
            _ => None,
        }
    }
}

/// The log. Cheap to clone; all clones see the same.
#[derive(Clone, Debug)]
pub struct Log {
    start: Instant,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    asked: Vec<Asked>,
    rendered: Vec<Rendered>,
    connections: u64,
}

impl Log {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), inner: Arc::default() }
    }
    fn with<T>(&self, read: impl FnOnce(&mut Inner) -> T) -> T {
        read(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }
    pub(super) fn connected(&self) -> u64 {
        self.with(|inner| {
            inner.connections += 1;
            inner.connections - 1
        })
    }
    pub(super) fn asked(&self, asked: Asked) {
        self.with(|inner| inner.asked.push(asked));
    }
    /// Opens an entry; the guard closes it.
    pub(super) fn rendering(&self, report: &str, parameters: Vec<(String, Option<String>)>) -> Rendering {
        let started = self.now();
        let entry = Rendered {
            report: report.to_owned(),
            parameters,
            started,
            ended: None,
            complete: false,
            rows: 0,
            bytes: 0,
        };
        let index = self.with(|inner| {
            inner.rendered.push(entry);
            inner.rendered.len() - 1
        });
        Rendering { log: self.clone(), index }
    }

    /// Every request, in order of its answer.
    pub fn requests(&self) -> Vec<Asked> {
        self.with(|inner| inner.asked.clone())
    }
    /// Every rendering, in order of its beginning. Requests refused before the report ran are not among them.
    pub fn renders(&self) -> Vec<Rendered> {
        self.with(|inner| inner.rendered.clone())
    }
    /// How many connections there were.
    pub fn connections(&self) -> u64 {
        self.with(|inner| inner.connections)
    }
    /// How many proofs (`Type 3`) came.
    pub fn proofs(&self) -> usize {
        self.with(|inner| inner.asked.iter().filter(|asked| asked.sent == Sent::Type3).count())
    }
    /// How many proofs came, by account (in lower case) and outcome; `None`: let in.
    pub fn outcomes(&self) -> Vec<(String, Option<Refused>, usize)> {
        let mut outcomes: Vec<(String, Option<Refused>, usize)> = vec![];
        for asked in self.requests().into_iter().filter(|asked| asked.sent == Sent::Type3) {
            let account = asked.account.unwrap_or_default().to_lowercase();
            match outcomes.iter_mut().find(|(name, refused, _)| *name == account && *refused == asked.refused) {
                Some((.., count)) => *count += 1,
                None => outcomes.push((account, asked.refused, 1)),
            }
        }
        outcomes
    }
    /// How many proofs were made with a wrong password. (Those that came after a lockout are not looked at; count
    /// [`refused`](Log::refused) for them.)
    pub fn wrong_passwords(&self) -> usize {
        self.refused(Refused::WrongPassword)
    }
    /// How many proofs were refused for this reason.
    pub fn refused(&self, why: Refused) -> usize {
        self.with(|inner| inner.asked.iter().filter(|asked| asked.refused == Some(why)).count())
    }
    /// How many requests were of this kind: a SOAP operation's name or `render`.
    pub fn count(&self, what: &str) -> usize {
        self.with(|inner| inner.asked.iter().filter(|asked| asked.what == what).count())
    }
    /// How many renderings ran at once, at the most.
    pub fn most_renders_at_once(&self) -> usize {
        let renders = self.renders();
        let at = |moment: Duration| {
            let runs = |render: &&Rendered| render.started <= moment && render.ended.is_none_or(|ended| ended > moment);
            renders.iter().filter(runs).count()
        };
        renders.iter().map(|render| at(render.started)).max().unwrap_or(0)
    }
    /// From the end of each rendering to the beginning of the next; zero where they overlapped.
    pub fn pauses(&self) -> Vec<Duration> {
        let renders = self.renders();
        let pause = |pair: &[Rendered]| pair[1].started.saturating_sub(pair[0].ended.unwrap_or(Duration::MAX));
        renders.windows(2).map(pause).collect()
    }
}

/// An entry of the log that is still being written: it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Rendering {
    log: Log,
    index: usize,
}

impl Rendering {
    fn with(&self, write: impl FnOnce(&mut Rendered)) {
        self.log.with(|inner| inner.rendered.get_mut(self.index).map(write));
    }
    pub fn sent(&self, rows: u64, bytes: u64) {
        self.with(|entry| {
            entry.rows = rows;
            entry.bytes = bytes;
        });
    }
    pub fn complete(&self) {
        self.with(|entry| entry.complete = true);
    }
}

impl Drop for Rendering {
    fn drop(&mut self) {
        let now = self.log.now();
        self.with(|entry| entry.ended = Some(now));
    }
}
