//! What the driver logs and does not tell.
//!
//! The driver logs each error that the server answers as one of its own, and so those too that are handled: a row refused, a deadlock tried again. What
//! is to be said of them is said by whoever asked, so nobody hears the driver. And it gives an error of the server only behind the end of the
//! answer: where the connection breaks before that (errors of severity 20 and up end it, as Azure's throttling and failovers do), it has read the
//! server's words, has logged them, and says no more than that the connection is gone. So what it logs meanwhile is kept, and told in that case.

use std::{
    cell::RefCell,
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    sync::LazyLock,
};

use tiberius::error::{Error as Tds, IoErrorKind};
use tracing::{
    Dispatch, Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    instrument::WithSubscriber as _,
    level_filters::LevelFilter,
    span,
};

/// An error of the server's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) code: u32,
    pub(crate) class: u8,
    pub(crate) message: String,
    /// The trigger or procedure that raised it, where it is one.
    pub(crate) procedure: String,
}

/// What came of a request that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What the driver says.
    pub(crate) error: Tds,
    /// What the server had said before the connection broke.
    pub(crate) said: Option<Said>,
}

impl From<Tds> for Failure {
    fn from(error: Tds) -> Self {
        Self { error, said: None }
    }
}

thread_local! {
    /// What was logged since the future under way was polled.
    static HEARD: RefCell<Option<Said>> = const { RefCell::new(None) };
}

static EARS: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(Ears));

/// Does something with the driver that nobody else hears.
pub(crate) async fn quietly<T>(work: impl Future<Output = tiberius::Result<T>>) -> Result<T, Failure> {
    let (mut work, mut said) = (pin!(work.with_subscriber(EARS.clone())), None);
    let done = poll_fn(|cx| {
        HEARD.take();
        let polled = work.as_mut().poll(cx);
        said = said.take().or_else(|| HEARD.take());
        polled
    });
    let done = done.await;
    done.map_err(|error| {
        let broke = match &error {
            Tds::Io { kind, .. } => *kind != IoErrorKind::TimedOut,
            error => matches!(error, Tds::Protocol(_) | Tds::Tls(_)),
        };
        Failure { error, said: said.filter(|_| broke) }
    })
}

/// Hears the driver's errors.
struct Ears;

impl Subscriber for Ears {
    fn enabled(&self, of: &Metadata<'_>) -> bool {
        *of.level() == Level::ERROR && of.target().starts_with("tiberius")
    }
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::ERROR)
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        // What ends a connection is of severity 20 and up.
        let mut said = Said { class: 20, ..Said::default() };
        event.record(&mut said);
        if said.code != 0 {
            HEARD.with_borrow_mut(|heard| _ = heard.get_or_insert(said));
        }
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

impl Visit for Said {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "code" {
            self.code = u32::try_from(value).unwrap_or_default();
        }
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }
}
