//! Runs programs.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::Fallible;

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Cargo, in the workspace's root.
pub(crate) fn cargo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What `cargo run` says of this program is nothing to those it builds: some would be built anew whenever it changes.
    let ours = std::env::vars_os().map(|(name, _)| name).filter(|name| {
        let name = name.to_string_lossy();
        name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
    });
    for name in ours {
        command.env_remove(name);
    }
    command.current_dir(root()).args(arguments);
    command
}

/// Runs it and shows what it prints; fails if it fails.
pub(crate) fn run(command: &mut Command) -> Fallible {
    let status = command.status().map_err(|error| format!("{}: {error}", shown(command)))?;
    if status.success() { Ok(()) } else { Err(format!("{} ended with {status}", shown(command))) }
}

/// Runs it and takes what it prints on stdout.
pub(crate) fn output(command: &mut Command) -> Fallible<String> {
    let output = command.stderr(Stdio::inherit()).output().map_err(|error| format!("{}: {error}", shown(command)))?;
    if !output.status.success() {
        return Err(format!("{} ended with {}", shown(command), output.status));
    }
    String::from_utf8(output.stdout).map_err(|error| format!("{}: {error}", shown(command)))
}

/// As it would be typed.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Whether a program is at hand.
pub(crate) fn is_at_hand(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|folder| folder.join(program).is_file())
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> Fallible<PathBuf> {
    let metadata = output(cargo(["metadata", "--no-deps", "--format-version", "1"]).stdin(Stdio::null()))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata).map_err(|error| error.to_string())?;
    let folder = metadata.get("target_directory").and_then(serde_json::Value::as_str);
    folder.map(PathBuf::from).ok_or_else(|| "cargo metadata names no target directory".to_owned())
}

/// Builds `towpath` and the simulators in a profile, and says where they lie: `dist` to measure, `demo` to be ready soon. Without the transform `sql`,
/// which takes longer to build than all the rest.
pub(crate) fn build(profile: &str) -> Fallible<Programs> {
    programs(profile, &["--no-default-features"])
}

/// The same with the transform `sql`.
pub(crate) fn build_to_join(profile: &str) -> Fallible<Programs> {
    programs(profile, &[])
}

fn programs(profile: &str, more: &[&str]) -> Fallible<Programs> {
    let build = ["build", "--profile", profile, "--package", "towpath", "--package", "towpath-testkit", "--bins"];
    run(cargo(build).args(more))?;
    let folder = target_dir()?.join(if profile == "dev" { "debug" } else { profile });
    Ok(Programs { towpath: folder.join("towpath"), simulate: folder.join("towpath-simulate") })
}

/// The programs of a build.
pub(crate) struct Programs {
    /// The binary.
    pub(crate) towpath: PathBuf,
    /// The simulators.
    pub(crate) simulate: PathBuf,
}

/// A program in the background, which ends with this value.
pub(crate) struct Background(pub(crate) Child);

impl Background {
    pub(crate) fn start(command: &mut Command) -> Fallible<Self> {
        command.spawn().map(Self).map_err(|error| format!("{}: {error}", shown(command)))
    }
    /// The first line it prints, which says that it is ready.
    pub(crate) fn first_line(&mut self) -> Fallible<String> {
        use std::io::{BufRead, BufReader};
        let stdout = self.0.stdout.take().ok_or("its output was not asked for")?;
        let mut line = String::new();
        let mut reader = BufReader::new(stdout);
        reader.read_line(&mut line).map_err(|error| error.to_string())?;
        // Whatever it prints later must go somewhere, or it would stop at a full pipe.
        std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
        if line.is_empty() { Err("it ended without a word".to_owned()) } else { Ok(line.trim().to_owned()) }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A folder that is removed with this value.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Fallible<Self> {
        let folder = std::env::temp_dir().join(format!("towpath-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(Self(folder))
    }
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A folder that stays behind in the temporary directory does no harm.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
