//! The standard binary: all connectors of the bundle.

use std::process::ExitCode;

fn main() -> ExitCode {
    towpath::main()
}
