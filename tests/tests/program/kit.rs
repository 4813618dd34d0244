//! A folder with pipelines, state and tables; the program in it; a report server and a SQL Server beside it.

use std::{
    fs::{self, File},
    ops::Deref,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::OnceLock,
    thread::sleep,
    time::{Duration, Instant},
};

use rusqlite::types::Value as Cell;
use serde_json::Value;
use tempfile::TempDir;
use towpath_testkit::{
    report_server::{Builder, Report, ReportServer},
    sql_server::{SqlServer, SqlServerOptions},
};

/// A process that has not ended by then hangs.
const HANGS: Duration = Duration::from_secs(90);
/// The password of the account that [`Reports`] knows.
pub const PASSWORD: &str = "correct horse";
/// The report most tests read.
pub const REPORT: &str = "/Manufacturing/Production log";

/// The program, built as this test was: Cargo tells only a package's own tests where its binaries are.
fn towpath() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        // target/debug/deps/program-1234
        let this = std::env::current_exe().unwrap();
        let profile = this.parent().and_then(Path::parent).unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--offline", "-p", "towpath", "--bin", "towpath"]);
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        cargo.arg("--target-dir").arg(profile.parent().unwrap()).current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(cargo.status().unwrap().success(), "the program does not build");
        profile.join("towpath")
    })
}

/// Keeps trying until something holds.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < HANGS, "never came: {what}");
        sleep(Duration::from_millis(5));
    }
}

/// What a process came to.
#[derive(Debug)]
pub struct Ran {
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("{self:#?}"))
    }
    pub fn was_killed(&self) -> bool {
        self.status.signal() == Some(9)
    }
    /// The line that ends `run --json`.
    pub fn report(&self) -> Value {
        let line = self.out.lines().last().unwrap_or_else(|| panic!("{self:#?}"));
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
    /// Fails unless it ended so.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{}\n{}", self.out, self.err);
        self
    }
}

/// A process under way. Killed if the test fails in between.
pub struct Running {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Running {
    pub fn signal(&self, signal: &str) {
        // It may have ended just now.
        let _ = Command::new("kill")
            .args([&format!("-{signal}"), &self.child.id().to_string()])
            .stderr(Stdio::null())
            .status();
    }
    pub fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
    pub fn said(&self) -> String {
        fs::read_to_string(&self.err).unwrap_or_default()
    }
    /// Waits for its end.
    pub fn end(mut self) -> Ran {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < HANGS, "it hangs: {}", self.said());
            sleep(Duration::from_millis(2));
        };
        let text = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        Ran { status, out: text(&self.out), err: text(&self.err) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder with everything in it.
pub struct Place {
    dir: TempDir,
    /// For what processes print: theirs is not the folder under test.
    printed: TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self { dir: TempDir::new().unwrap(), printed: TempDir::new().unwrap() }
    }
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    pub fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }
    /// Starts `towpath …` in the folder.
    pub fn start(&self, args: &[&str]) -> Running {
        let number = fs::read_dir(self.printed.path()).unwrap().count();
        let [out, err] = ["out", "err"].map(|name| self.printed.path().join(format!("{number}.{name}")));
        let ours =
            std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with("TOWPATH"));
        let mut command = Command::new(towpath());
        for name in ours {
            command.env_remove(name);
        }
        command
            .args(args)
            .current_dir(self.dir.path())
            .env("NO_COLOR", "1")
            .env("TOWPATH_STATE_DIR", self.path("state"));
        command.stdin(Stdio::null()).stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        Running { child: command.spawn().unwrap(), out, err }
    }
    pub fn towpath(&self, args: &[&str]) -> Ran {
        self.start(args).end()
    }
    /// Runs a pipeline.
    pub fn run(&self, file: &str) -> Ran {
        self.towpath(&["run", file, "--json"])
    }
    /// The text of all rows of a query, in its order; null is `∅`. Nothing, where there is no table.
    pub fn rows(&self, file: &str, sql: &str) -> Vec<String> {
        self.try_rows(file, sql).unwrap_or_default()
    }
    pub fn try_rows(&self, file: &str, sql: &str) -> rusqlite::Result<Vec<String>> {
        let db = rusqlite::Connection::open_with_flags(self.path(file), rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        db.busy_timeout(Duration::from_secs(20))?;
        let mut statement = db.prepare(sql)?;
        let columns = statement.column_count();
        let row = |row: &rusqlite::Row<'_>| {
            let cell = |at| Ok(shown(row.get::<_, Cell>(at)?));
            Ok((0..columns).map(cell).collect::<rusqlite::Result<Vec<_>>>()?.join("|"))
        };
        statement.query_map([], row)?.collect()
    }
    /// How many rows a table has; 0 where there is none.
    pub fn count(&self, file: &str, table: &str) -> usize {
        self.rows(file, &format!("SELECT count(*) FROM {table}")).first().map_or(0, |count| count.parse().unwrap())
    }
    /// The dead letters of a pipeline as they stand in its files.
    pub fn letters(&self, pipeline: &str) -> Vec<Value> {
        let Ok(folder) = fs::read_dir(self.path("state/dead_letters").join(pipeline)) else { return vec![] };
        let mut files: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|end| end == "jsonl"));
        files.sort();
        let lines = files.iter().map(|path| fs::read_to_string(path).unwrap()).collect::<String>();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
    /// Where the dead letters stood in their file: their records' numbers.
    pub fn letter_records(&self, pipeline: &str) -> Vec<u64> {
        self.letters(pipeline)
            .iter()
            .map(|letter| letter["position"]["record"].as_u64().unwrap_or_else(|| panic!("{letter}")))
            .collect()
    }
    /// How the newest run of a pipeline stands.
    pub fn last_run(&self, pipeline: &str) -> (String, String) {
        let state: Value = serde_json::from_str(&self.towpath(&["state", "show", "--json"]).expect(0).out).unwrap();
        let pipelines = state["pipelines"].as_array().unwrap();
        let last = pipelines.iter().find(|one| one["name"] == pipeline).map(|one| &one["last_run"]);
        let text = |key: &str| last.and_then(|last| last[key].as_str()).unwrap_or_default().to_owned();
        (text("id"), text("status"))
    }
    /// The names of the files in a folder.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.path(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn shown(cell: Cell) -> String {
    match cell {
        Cell::Null => "∅".to_owned(),
        Cell::Integer(number) => number.to_string(),
        Cell::Real(number) => number.to_string(),
        Cell::Text(text) => text,
        Cell::Blob(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

/// A report server in this process, on threads of its own: tests wait for processes and would hold it up.
pub struct Reports {
    server: ReportServer,
    _runtime: tokio::runtime::Runtime,
}

impl Reports {
    /// With the production log, 60 rows an hour, and one account.
    pub fn new() -> Self {
        Self::of(builder())
    }
    pub fn of(builder: Builder) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { server: runtime.block_on(builder.start()), _runtime: runtime }
    }
    /// A source of the production log in windows from the beginning of 2026 (keys of a map in one line).
    pub fn source(&self, more: &str) -> String {
        self.source_of(REPORT, PASSWORD, &format!("parameters: {{ Line: all }}, {more}"))
    }
    pub fn source_of(&self, report: &str, password: &str, more: &str) -> String {
        let auth = format!("{{ type: ntlm, domain: CORP, username: loader, password: {password} }}");
        format!("{{ type: ssrs, url: '{}', report: {report}, auth: {auth}, {more} }}", self.url())
    }
}

impl Deref for Reports {
    type Target = ReportServer;
    fn deref(&self) -> &ReportServer {
        &self.server
    }
}

/// A SQL Server in this process, on threads of its own.
pub struct Warehouse {
    server: SqlServer,
    _runtime: tokio::runtime::Runtime,
}

impl Warehouse {
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { server: runtime.block_on(SqlServer::start(SqlServerOptions::default())), _runtime: runtime }
    }
    /// The text of all rows of a query, in its order; null is `∅`.
    pub fn rows(&self, sql: &str) -> Vec<String> {
        let cell = |cell: Option<String>| cell.unwrap_or_else(|| "∅".to_owned());
        self.query(sql).into_iter().map(|row| row.into_iter().map(cell).collect::<Vec<_>>().join("|")).collect()
    }
    /// The names of all tables.
    pub fn tables(&self) -> Vec<String> {
        self.rows("SELECT name FROM sys.tables ORDER BY name")
    }
}

impl Deref for Warehouse {
    type Target = SqlServer;
    fn deref(&self) -> &SqlServer {
        &self.server
    }
}

pub fn builder() -> Builder {
    ReportServer::builder().report(Report::production_log(60)).account("CORP", "loader", PASSWORD)
}

/// Windows of an hour from the beginning of 2026, so many a run.
pub fn windows(per_run: u32) -> String {
    format!(
        "window: {{ size: 1h, start: '2026-01-01', start_parameter: From, end_parameter: To, max_windows_per_run: {per_run} }}"
    )
}

/// The rows of the production log in the first hours of 2026, as they stand in the table, in order. The header and (bad) rows that
/// lack a field are left out.
pub fn production(report: &Report, hours: u32) -> Vec<String> {
    let hour = |hour: u32| format!("2026-01-{:02}T{:02}:00", 1 + hour / 24, hour % 24).parse().unwrap();
    let text = report.csv(hour(0), hour(hours));
    text.lines().skip(1).map(str::to_owned).collect()
}
