//! Logs, to stderr, never through the middle of a progress bar.

use std::{
    io::{self, IsTerminal, Write},
    sync::{Mutex, OnceLock, PoisonError},
};

use indicatif::MultiProgress;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// The variable that says what is logged.
const VARIABLE: &str = "TOWPATH_LOG";

/// The bars that must make room while a line is written.
static BARS: OnceLock<Mutex<Option<MultiProgress>>> = OnceLock::new();

/// Names the bars on the screen; `None` when they are gone.
pub(crate) fn share_screen(bars: Option<MultiProgress>) {
    *BARS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner) = bars;
}

/// Starts logging. `TOWPATH_LOG` decides, else `-v`.
pub(crate) fn start(verbose: u8) {
    // The driver of SQL Server warns that it does not encrypt: what there is to encrypt is encrypted below it.
    let usual = match verbose {
        0 => "warn,tiberius=error,towpath=info",
        1 => "info,tiberius=error,towpath=debug",
        _ => "debug,towpath=trace",
    };
    let chosen = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty());
    let (filter, wrong) = match chosen.as_deref().map(EnvFilter::try_new) {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new(usual), Some(error)),
        None => (EnvFilter::new(usual), None),
    };
    let terminal = io::stderr().is_terminal();
    let layout = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Stderr)
        .with_ansi(terminal)
        .with_target(verbose > 0);
    // A person sees when; a file does not.
    let started = if terminal && verbose == 0 { layout.without_time().try_init() } else { layout.try_init() };
    if let (Ok(()), Some(error)) = (started, wrong) {
        tracing::warn!("{VARIABLE} is not understood and not used: {error}");
    }
}

#[derive(Clone, Copy)]
struct Stderr;

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        Self
    }
}

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let bars = BARS.get().and_then(|bars| bars.lock().unwrap_or_else(PoisonError::into_inner).clone());
        match bars {
            Some(bars) => bars.suspend(|| io::stderr().write(line)),
            None => io::stderr().write(line),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
