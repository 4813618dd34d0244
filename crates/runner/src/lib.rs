//! The `towpath` binary, and the library to build one with connectors of your own:
//!
//! ```no_run
//! // Named, so that the linker keeps it: `use my_connector as _;`
//! fn main() -> std::process::ExitCode {
//!     towpath::main()
//! }
//! ```
//!
//! `args` is what can be typed; `commands` has one file per command; `output` is the only place that prints; `progress` shows a
//! run while it goes, as bars on a terminal and as lines elsewhere; `signals` turns Ctrl-C and SIGTERM into a drain and then an
//! abort; `logging` sends logs to stderr without breaking the bars.
//!
//! # Exit codes
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done; for `serve`: ended by a signal, and what was under way had come to a commit |
//! | 1 | failed; or all went well, but what was to be printed could not be written |
//! | 2 | the config, or the command line, is wrong; nothing was touched |
//! | 3 | too many rejected rows; the next run takes this one up (for `dlq replay`: rows were refused again) |
//! | 4 | another run of this pipeline is under way (for everything that needs it for itself), or another process serves it |
//! | 5 | what is to be changed is not what the plan of `run --plan` says; nothing was sent |
//! | 130 | interrupted, or the day's budget of a vendor is spent; the next run takes this one up (for `serve`: something was broken off) |

mod args;
mod commands;
mod logging;
mod output;
mod progress;
mod settings;
mod signals;
mod table;

use std::process::ExitCode;

// Cargo drops crates that nobody names.
use towpath_bundle as _;

/// The program: reads the command line, does what it says. All connectors linked into the binary can be used in a config.
pub fn main() -> ExitCode {
    towpath_transforms::link();
    let args = match args::parse() {
        Ok(args) => args,
        Err(code) => return code,
    };
    let code = match commands::run(args) {
        Ok(code) => code,
        Err(failure) => output::failure(&failure),
    };
    ExitCode::from(output::end(code))
}
