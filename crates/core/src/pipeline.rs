//! What a config file becomes: a graph of named components, checked for shape, not yet for sense.

use std::{borrow::Borrow, collections::BTreeMap, fmt, ops::Deref, path::PathBuf, sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::{Period, Share, Size};

/// The name of a pipeline or component.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Name(Arc<str>);

impl<T: Into<Arc<str>>> From<T> for Name {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}
impl Deref for Name {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}
impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A pipeline, as its file says it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PipelineSpec {
    /// The pipeline's name; state, locks and metrics go by it.
    pub name: Option<Name>,
    /// The file it was read from.
    pub file: Option<PathBuf>,
    /// When `towpath serve` runs it.
    pub schedule: Option<Schedule>,
    /// Sources, in the file's order.
    pub sources: Vec<ComponentSpec>,
    /// Transforms, in the file's order.
    pub transforms: Vec<ComponentSpec>,
    /// Sinks, in the file's order.
    pub sinks: Vec<ComponentSpec>,
    /// What becomes of bad rows.
    pub errors: ErrorsSpec,
    /// How the run behaves.
    pub run: RunSpec,
    /// A hash of what the components are told, as it is written, variables by their names. `None`: not known.
    #[serde(skip)]
    pub digest: Option<String>,
}

/// One source, transform or sink.
#[derive(Clone, Debug, Serialize)]
pub struct ComponentSpec {
    /// Its name in the file.
    pub name: Name,
    /// The connector or transform: the file's `type`.
    pub kind: String,
    /// Whose rows it takes. Empty for a source.
    pub inputs: Vec<Name>,
    /// What every component can have.
    pub common: CommonSpec,
    /// The connector's own options. Secrets are in it: never print it.
    #[serde(skip)]
    pub options: serde_json::Value,
}

/// Keys that every component can have, beside its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CommonSpec {
    /// How the server behind this component is protected. Scope: the server (scheme, host, port), for all pipelines of one state
    /// directory; the strictest wins.
    pub guard: Option<Guard>,
    /// How failed calls are tried again.
    pub retry: Option<RetrySpec>,
    /// How many work side by side: a number, or `{min, max}`. Transforms only. Default: 1
    pub workers: Option<Workers>,
    /// How long one batch may take in this component. Default: none
    pub batch_deadline: Option<Period>,
    /// How long this component may stand still before it is named. Default: the run's
    pub heartbeat: Option<Period>,
    /// Sinks whose rows of the same epoch must be committed before this one's are written. Sinks only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<Name>,
}

/// Limits that protect a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Guard {
    /// Requests under way at once. Default: the connector's
    pub max_concurrent: Option<u32>,
    /// Pause from the end of one request to the beginning of the next. Default: none
    pub min_interval: Option<Period>,
    /// Share of time the server may be kept busy: after a request that took d, the next begins no sooner than d / share after
    /// it began. Default: none
    pub busy_share: Option<Share>,
}

impl Guard {
    /// The strictest of both, limit by limit.
    #[must_use]
    pub fn strictest(self, other: Self) -> Self {
        fn pick<T: PartialOrd>(a: Option<T>, b: Option<T>, stricter: fn(&T, &T) -> bool) -> Option<T> {
            match (a, b) {
                (Some(a), Some(b)) => Some(if stricter(&a, &b) { a } else { b }),
                (a, b) => a.or(b),
            }
        }
        Self {
            max_concurrent: pick(self.max_concurrent, other.max_concurrent, |a, b| a <= b),
            min_interval: pick(self.min_interval, other.min_interval, |a, b| a >= b),
            busy_share: pick(self.busy_share, other.busy_share, |a, b| a <= b),
        }
    }
    /// What is set here, and `defaults` for the rest.
    #[must_use]
    pub fn or(self, defaults: Self) -> Self {
        Self {
            max_concurrent: self.max_concurrent.or(defaults.max_concurrent),
            min_interval: self.min_interval.or(defaults.min_interval),
            busy_share: self.busy_share.or(defaults.busy_share),
        }
    }
}

/// How failed calls are tried again: exponential back-off with full jitter; the server's `Retry-After` is kept.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetrySpec {
    /// Tries in all, the first one included. Default: 4
    pub attempts: u32,
    /// The back-off's first upper bound; it doubles from there. Default: 1s
    pub initial: Period,
    /// The back-off's largest upper bound. Default: 1m
    pub max: Period,
}

impl Default for RetrySpec {
    fn default() -> Self {
        Self { attempts: 4, initial: Period::seconds(1), max: Period::seconds(60) }
    }
}

/// A number of workers, or bounds between which it follows the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Workers {
    /// Always so many.
    Fixed(u32),
    /// As many as the load asks for, within bounds.
    Between {
        /// At least so many.
        min: u32,
        /// At most so many.
        max: u32,
    },
}

impl Workers {
    /// The lower and upper bound, at least 1.
    pub fn bounds(self) -> (usize, usize) {
        match self {
            Self::Fixed(n) => (n.max(1) as usize, n.max(1) as usize),
            Self::Between { min, max } => (min.max(1) as usize, max.max(min).max(1) as usize),
        }
    }
}

/// When `towpath serve` runs a pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// From one start to the next, counted from the first: `5m`, `1h`.
    #[serde(default)]
    pub every: Option<Period>,
    /// Instead of `every`: five cron fields.
    #[serde(default)]
    pub cron: Option<String>,
    /// The time zone of `cron`. Default: UTC
    #[serde(default)]
    pub time_zone: Option<String>,
    /// What happens when a run is due while one is under way. Default: skip
    #[serde(default)]
    pub overlap: Overlap,
}

/// What happens when a run is due while one is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// It is left out.
    #[default]
    Skip,
    /// It waits, once.
    Wait,
}

/// What becomes of bad rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ErrorsSpec {
    /// So many rejected rows stop the run: a count (`1000`) or a share of the rows read (`1%`, reckoned once 1,000 rows were
    /// read; at the end of a source of its own rows, and at the end of the run of all, however few, where at least 20 are rejected). Default: never
    pub stop_after: Option<StopAfter>,
    /// The folder for dead letters. Default: in the state directory
    pub dead_letters: Option<PathBuf>,
}

/// So many rejected rows stop the run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum StopAfter {
    /// A count.
    Rows(u64),
    /// A share of the rows read, once 1,000 have been read.
    Share(Share),
}

/// How the run behaves: keys at the top level of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RunSpec {
    /// How long the whole run may take. Default: none
    pub deadline: Option<Period>,
    /// How long one call to the outside may take, unless the connector asks for longer. Default: 30s
    pub call_deadline: Period,
    /// A component that has not moved for so long is named in the log. Default: 1m
    pub heartbeat: Period,
    /// How long an interrupted run may take to reach its next commit; what a server is answering is waited for as well. A second
    /// interrupt ends it at once. Default: 25s
    pub drain: Period,
    /// When sinks commit; at the next position of the source where one may.
    pub commit: CommitSpec,
    /// What waits between two components at the most. Default: 2MiB
    pub buffer: Size,
    /// How often a run is taken up again by itself after a failure that may pass, without an epoch committed in between. Default: 3
    pub restarts: u32,
    /// For targets that others change as well (a CRM): where no file has changed, a run ends without another call, unless the last complete
    /// run is older than this, or had another query, fields or options; then everything is read and compared. `--full` does so at once. Default: a run with nothing new to read
    /// always ends
    pub verify_every: Option<Period>,
}

impl Default for RunSpec {
    fn default() -> Self {
        Self {
            deadline: None,
            call_deadline: Period::seconds(30),
            heartbeat: Period::seconds(60),
            drain: Period::seconds(25),
            commit: CommitSpec::default(),
            buffer: Size(2 << 20),
            restarts: 3,
            verify_every: None,
        }
    }
}

/// When sinks commit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CommitSpec {
    /// After so long. Default: 10s
    pub every: Period,
    /// Or after so many rows. Default: 2000000
    pub rows: u64,
    /// How often a sink that may publishes what it has, in the middle of a long report too, so that little is left when its last row comes. Less often
    /// where publishing takes long, and a tenth as often while rows come faster than the sink takes them. Default: 500ms
    pub publish: Period,
}

impl Default for CommitSpec {
    fn default() -> Self {
        Self { every: Period::seconds(10), rows: 2_000_000, publish: Period(Duration::from_millis(500)) }
    }
}

impl PipelineSpec {
    /// Every component, sources first, with its role.
    pub fn components(&self) -> impl Iterator<Item = (Role, &ComponentSpec)> {
        let sources = self.sources.iter().map(|spec| (Role::Source, spec));
        let transforms = self.transforms.iter().map(|spec| (Role::Transform, spec));
        let sinks = self.sinks.iter().map(|spec| (Role::Sink, spec));
        sources.chain(transforms).chain(sinks)
    }
    /// Components by name, for messages.
    pub fn by_name(&self) -> BTreeMap<&Name, (Role, &ComponentSpec)> {
        self.components().map(|(role, spec)| (&spec.name, (role, spec))).collect()
    }
}

/// What a component does in a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Rows come from it.
    Source,
    /// Rows go through it.
    Transform,
    /// Rows go into it.
    Sink,
}

impl Role {
    /// As it is called in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Transform => "transform",
            Self::Sink => "sink",
        }
    }
}
