//! What can be typed.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::output;

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong config or command line, 3 too many rejected rows \
(dlq replay: rows were refused again), 4 another run of the pipeline is under way, or it is served already, 5 what is to be changed is not what --plan says, 130 interrupted, \
or the day's budget is spent.\n\nSettings by environment: TOWPATH_STATE_DIR, TOWPATH_LOG (such as \
debug, or warn,towpath_http=trace). Any key of a pipeline file can be set by TOWPATH__SINKS__WAREHOUSE__TABLE=orders.";

/// Hauls data from sources through transforms into sinks, as a pipeline file says.
#[derive(Debug, Parser)]
#[command(name = "towpath", version, after_help = EXIT_CODES, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// Set a key of the pipeline file, such as sinks.warehouse.table=orders; can be given several times
    #[arg(long, value_name = "KEY=VALUE", global = true)]
    pub set: Vec<String>,
    /// Print for programs: JSON on stdout
    #[arg(long, global = true)]
    pub json: bool,
    /// Log more; twice for everything
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    /// Where checkpoints, guards, refused credentials and dead letters are kept [default: the XDG state directory]
    #[arg(long, value_name = "DIR", global = true, env = "TOWPATH_STATE_DIR", hide_env = true)]
    pub state_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a pipeline once
    ///
    /// A run that died or was stopped is taken up where its last commit stands. Ctrl-C goes on to the next commit, a second one
    /// ends at once.
    Run {
        /// The pipeline file
        file: PathBuf,
        /// Leave a run that died or was stopped behind, and begin anew
        #[arg(long)]
        new_run: bool,
        /// Read everything and compare it, also where nothing has changed since the last run
        #[arg(long)]
        full: bool,
        /// Do exactly what this file says, which `plan --diff --out` has written; or say what has changed since, and do nothing
        #[arg(long, value_name = "PLAN")]
        plan: Option<PathBuf>,
    },
    /// Run pipelines on their schedules, until a signal comes
    ///
    /// With `every: 1h` a pipeline is started at once, unless it was less than an hour ago, and then every hour; with `cron` when that
    /// says so. A start that is due while a run of the pipeline is under way, here or elsewhere, is skipped. SIGTERM or Ctrl-C starts
    /// nothing more and goes on to the next commits, a second one ends at once. The files are read once, at the beginning.
    Serve {
        /// The pipeline files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Show how the last run of each pipeline ended, whether one is under way, and when the next begins
    Status {
        /// The pipeline files [default: every pipeline that the state directory knows]
        files: Vec<PathBuf>,
    },
    /// Show what a run would do, by cheap calls only
    ///
    /// With --diff it is more than that: everything is read and compared with what is there, and every change is shown, with what it
    /// would cost. Nothing is changed.
    Plan {
        /// The pipeline file
        file: PathBuf,
        /// Read everything, and show what would be created, updated and deleted
        #[arg(long)]
        diff: bool,
        /// Keep all changes in this file, for `run --plan`; it must not exist, or hold an earlier plan
        #[arg(long, value_name = "PLAN", requires = "diff")]
        out: Option<PathBuf>,
        /// Compare also where nothing has changed since the last run
        #[arg(long, requires = "diff")]
        full: bool,
    },
    /// Check pipeline files, without touching anything they name
    Validate {
        /// The pipeline files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Show the first rows of a source
    Preview {
        /// The pipeline file
        file: PathBuf,
        /// The source's name in the file
        source: String,
        /// How many rows
        #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
        rows: usize,
    },
    /// List what a source offers, with a block to paste into the pipeline file
    Discover {
        /// The pipeline file
        file: PathBuf,
        /// The source's name in the file
        source: String,
    },
    /// List the connectors, or describe one with its options
    Connectors {
        /// The connector's name
        name: Option<String>,
    },
    /// Print the JSON Schema of pipeline files, for editors
    Schema,
    /// Show or reset what is remembered between runs
    State {
        #[command(subcommand)]
        command: State,
    },
    /// List, show, send again or put away rows that were rejected
    Dlq {
        #[command(subcommand)]
        command: Dlq,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum State {
    /// Show everything that is remembered
    Show,
    /// Forget something
    Reset {
        #[command(subcommand)]
        what: Reset,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Reset {
    /// Forget where a pipeline stands: its next run begins anew
    Checkpoint {
        /// The pipeline file, or the pipeline's name
        #[arg(value_name = "FILE|NAME")]
        pipeline: String,
    },
    /// Forget refused credentials, so that they are tried once more
    Credentials {
        /// Only those of this server, such as https://reports.example
        server: Option<String>,
    },
    /// Forget what was spent of vendors' budgets today, and that they said it was over
    Budget {
        /// Only that of this account, as `towpath state show` has it
        account: Option<String>,
    },
    /// Close breakers and forget pauses that servers asked for, so that the next call goes through
    Breaker {
        /// Only those of this server, such as https://reports.example
        server: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Dlq {
    /// Count rejected rows by run, component and kind of failure, and how many of them are still open
    List {
        /// The pipeline file
        file: PathBuf,
        /// Only where something is left to be done: not what was all sent again, superseded or discarded
        #[arg(long)]
        open: bool,
    },
    /// Show rejected rows with their reasons and how they stand, the newest first
    Show {
        /// The pipeline file
        file: PathBuf,
        /// At most so many
        #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
        rows: usize,
        /// Only those of this run
        #[arg(long, value_name = "ID")]
        run: Option<String>,
        /// The oldest first
        #[arg(long)]
        oldest: bool,
    },
    /// Give rows that a sink has rejected to the same sink once more
    ///
    /// Each is sent again once: a replay that was stopped or died is taken up. Rows of which newer data has come since are left out.
    /// Exits with 3 if rows were refused again.
    Replay {
        /// The pipeline file
        file: PathBuf,
        /// Only rows that this sink has rejected
        #[arg(long, value_name = "SINK")]
        component: Option<String>,
        /// Only rows in whose reason this text stands
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Put rejected rows away: nothing is to become of them
    ///
    /// Nothing is deleted: they stay in their files and are listed as discarded; `replay` leaves them out. Those that are done already
    /// stay as they are.
    Discard {
        /// The pipeline file
        file: PathBuf,
        /// Only rows that this source, transform or sink has rejected
        #[arg(long, value_name = "NAME")]
        component: Option<String>,
        /// Only rows in whose reason this text stands
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// Only those of this run
        #[arg(long, value_name = "ID")]
        run: Option<String>,
    },
}

/// Reads the command line. The error is the exit code, after help or a message was printed.
pub(crate) fn parse() -> Result<Cli, ExitCode> {
    Cli::try_parse().map_err(|error| {
        let printed = error.print();
        if error.use_stderr() {
            // Nothing can be said where stderr is gone.
            return ExitCode::from(2);
        }
        output::wrote(printed);
        ExitCode::from(output::end(0))
    })
}
