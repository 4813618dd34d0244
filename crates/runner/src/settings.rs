//! Settings of the program, as against the config of a pipeline.

use std::{env, path::PathBuf};

use towpath_core::{Error, Result};

use crate::args::Global;

/// The state directory: the flag or `TOWPATH_STATE_DIR`, else `towpath` in the XDG state directory.
pub(crate) fn state_dir(global: &Global) -> Result<PathBuf> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    // An empty variable is as good as none.
    let named = global.state_dir.clone().filter(|path| !path.as_os_str().is_empty());
    named
        .or_else(|| absolute("XDG_STATE_HOME").map(|dir| dir.join("towpath")))
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state/towpath")))
        .ok_or_else(|| {
            Error::config("there is no place to keep state: neither HOME nor XDG_STATE_HOME is set")
                .hint("name a folder with --state-dir")
        })
}
