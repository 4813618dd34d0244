//! A folder, a state directory and the program, as a user has them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails says so by that")]
#![allow(dead_code, reason = "not every test uses everything")]

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// What a command came to.
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// Everything, for a snapshot.
    pub fn all(&self) -> String {
        format!("exit {:?}\n--- stdout\n{}--- stderr\n{}", self.code, self.out, self.err)
    }
}

/// Which program.
#[derive(Clone, Copy)]
pub enum Program {
    /// The standard one.
    Towpath,
    /// The example with connectors of its own.
    Own,
}

pub struct Shell {
    program: Program,
    dir: tempfile::TempDir,
    folder: Option<PathBuf>,
}

impl Shell {
    pub fn new(program: Program) -> Self {
        Self { program, dir: tempfile::tempdir().unwrap(), folder: None }
    }
    /// Starts programs in another folder than its own.
    pub fn in_folder(self, folder: &Path) -> Self {
        Self { folder: Some(folder.to_owned()), ..self }
    }
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }
    fn command(&self, args: &[&str]) -> Command {
        let towpath = PathBuf::from(env!("CARGO_BIN_EXE_towpath"));
        let program = match self.program {
            Program::Towpath => towpath,
            Program::Own => towpath.with_file_name("examples").join("own_connectors"),
        };
        assert!(program.exists(), "{} is built by a plain `cargo test -p towpath`", program.display());
        let mut command = Command::new(program);
        let kept = std::env::vars_os().filter(|(name, _)| !name.to_string_lossy().starts_with("TOWPATH"));
        command
            .env_clear()
            .envs(kept)
            .env("NO_COLOR", "1")
            .env("COLUMNS", "100")
            .env("TOWPATH_STATE_DIR", self.dir().join("state"));
        command.args(args).current_dir(self.folder.as_deref().unwrap_or(self.dir()));
        command
    }
    pub fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, &[])
    }
    pub fn run_with(&self, args: &[&str], variables: &[(&str, &str)]) -> Ran {
        let output = self.command(args).envs(variables.iter().copied()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&format!("{}", self.dir().display()), "[dir]");
        Ran { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }
    /// With stdout going somewhere.
    pub fn run_into(&self, args: &[&str], stdout: impl Into<Stdio>) -> Ran {
        let output = self.command(args).stdout(stdout).output().unwrap();
        Ran {
            code: output.status.code(),
            out: String::new(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
    /// Starts it in the background; its log says everything.
    pub fn start(&self, args: &[&str]) -> Running {
        let mut command = self.command(args);
        command.env("TOWPATH_LOG", "towpath=debug").stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let err = BufReader::new(child.stderr.take().unwrap());
        Running { child, err, seen: String::new() }
    }
}

/// A program in the background. Killed if the test fails in between.
pub struct Running {
    child: Child,
    err: BufReader<std::process::ChildStderr>,
    seen: String,
}

impl Running {
    /// Waits until a line of stderr holds `text`.
    pub fn until(&mut self, text: &str) {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            let read = self.err.read_line(&mut line).unwrap();
            assert!(read > 0, "'{text}' never came: {}", self.seen);
            self.seen.push_str(&line);
        }
    }
    /// Sends a signal such as `INT`.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
    pub fn end(mut self) -> Ran {
        let mut out = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        self.err.read_to_string(&mut self.seen).unwrap();
        let code = self.child.wait().unwrap().code();
        Ran { code, out, err: std::mem::take(&mut self.seen) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has usually ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Compares with a snapshot; what differs from run to run is taken out.
#[macro_export]
macro_rules! assert_seen {
    ($name:expr, $text:expr) => {
        insta::with_settings!({ filters => vec![
            (r"\d{8}T\d{9}Z-[0-9a-f]{8}", "[run]"),
            (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.\d]*Z?", "[time]"),
            (r"in \d+\.\d s", "in [elapsed] s"),
            (r"for another \d+s", "for another [time]"),
            (r#""elapsed_seconds":[\d.]+"#, r#""elapsed_seconds":[elapsed]"#),
            (r#""peak_memory_bytes":\d+"#, r#""peak_memory_bytes":[bytes]"#),
            (r"towpath \d+\.\d+\.\d+", "towpath [version]"),
        ] }, { insta::assert_snapshot!($name, $text) })
    };
}
