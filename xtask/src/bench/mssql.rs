//! `cargo xtask bench mssql`: files over HTTP into SQL Server and rows out of it, beside the same by hand with the bare driver (`by_hand`, an example
//! of the connector), in the same run on the same server.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::{Figure, PROFILE, figures, machine, serve, slow_server::SlowServer};
use crate::{
    Fallible, cmd,
    measure::{Limits, Run, once},
};

const ROWS: u64 = 1_000_000;
const TIMES: usize = 3;
/// One row of so many is refused by the database.
const REFUSED_EVERY: u64 = 100;
/// How long the slow report takes.
const SLOW: Duration = Duration::from_secs(40);

/// What can be asked for by itself.
const JOBS: [&str; 7] = ["insert_new", "append", "large", "slow", "refused", "source", "limits"];

/// The sample's columns in types of SQL Server.
const COLUMNS: &str = "[Timestamp] datetime2(3) NULL, [Line] nvarchar(10) NULL, [Station] nvarchar(10) NULL, [OrderNo] nvarchar(20) NULL, \
     [Component] nvarchar(50) NULL, [SerialNo] nvarchar(20) NULL, [Operator] nvarchar(10) NULL, [Shift] nvarchar(10) NULL, \
     [Result] nvarchar(5) NULL, [Torque] float NULL, [Temperature] float NULL, [Remark] nvarchar(100) NULL";
/// The same where the database refuses rows: NULL, CHECK, FOREIGN KEY, length, conversion, overflow, UNIQUE.
const STRICT: &str = "[Timestamp] datetime2(3) NOT NULL, [Line] nvarchar(10) NOT NULL REFERENCES $.lines (name), [Station] nvarchar(10) NULL, \
     [OrderNo] decimal(10,0) NULL, [Component] nvarchar(50) NULL, [SerialNo] nvarchar(20) NOT NULL UNIQUE, [Operator] nvarchar(10) NULL, \
     [Shift] nvarchar(10) NULL, [Result] nvarchar(5) NULL, [Torque] float NULL CHECK ([Torque] < 50), [Temperature] float NOT NULL, \
     [Remark] nvarchar(100) NULL";
const KEY: &str = "[row_hash] binary(16) NOT NULL PRIMARY KEY NONCLUSTERED";
const INSERT_NEW: &str = "write: insert_new, key: row_hash";

pub(super) fn run(jobs: &[&str]) -> Fallible {
    if let Some(unknown) = jobs.iter().find(|job| !JOBS.contains(job)) {
        return Err(format!("'{unknown}' is no job; there are {}", JOBS.join(", ")));
    }
    let wanted = |job: &str| jobs.is_empty() || jobs.contains(&job);
    let programs = cmd::build(PROFILE)?;
    let example = ["build", "--profile", PROFILE, "--package", "towpath-connector-mssql", "--example", "by_hand"];
    cmd::run(&mut cmd::cargo(example))?;
    let scratch = cmd::Scratch::new("bench-mssql")?;
    let bench = Bench::new(programs, scratch.path())?;
    bench.sample("log.csv", 0, ROWS, 0)?;
    let (_files, url) = serve(&bench.folder)?;
    let mut reached = Vec::new();
    let mut peak = None;
    if wanted("insert_new") || wanted("large") {
        eprintln!("insert_new …");
        peak = Some(bench.insert_new(&format!("{url}/log.csv"), &mut reached)?);
    }
    if wanted("append") {
        eprintln!("append …");
        bench.append(&format!("{url}/log.csv"), &mut reached)?;
    }
    if let Some(peak) = peak.filter(|_| wanted("large")) {
        eprintln!("ten million rows …");
        bench.large(&url, peak, &mut reached)?;
    }
    if wanted("slow") {
        eprintln!("a slow report …");
        bench.slow(&url, &mut reached)?;
    }
    if wanted("refused") {
        eprintln!("rows that are refused …");
        bench.refused(&url, &mut reached)?;
    }
    if wanted("source") {
        eprintln!("source …");
        bench.source(&format!("{url}/log.csv"), &mut reached)?;
    }
    if wanted("limits") {
        eprintln!("half a CPU and 256 MiB …");
        reached.push(bench.limits(&format!("{url}/log.csv"))?);
    }
    println!("{}\n{}\n", machine(TIMES), bench.server()?);
    println!("{}", figures("by hand", &reached));
    Ok(())
}

struct Bench {
    programs: cmd::Programs,
    by_hand: PathBuf,
    folder: PathBuf,
    /// The server's.
    url: String,
    /// A schema of our own.
    schema: String,
    _simulator: Option<cmd::Background>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let tables = ["target", "heap", "strict", "lines", "towpath_checkpoint"];
        let drop_all: String = tables.iter().map(|table| self.dropped(table)).collect();
        for sql in [drop_all, format!("DROP SCHEMA {}", self.schema)] {
            if let Err(error) = self.ask(&sql) {
                eprintln!("schema {} is left behind: {error}", self.schema);
            }
        }
    }
}

impl Bench {
    fn new(programs: cmd::Programs, folder: &Path) -> Fallible<Self> {
        let by_hand = cmd::target_dir()?.join(PROFILE).join("examples/by_hand");
        let (url, simulator) = match std::env::var("TOWPATH_MSSQL_URL") {
            Ok(url) => (url, None),
            Err(_) => {
                let mut simulator = Command::new(&programs.simulate);
                let mut simulator =
                    cmd::Background::start(simulator.arg("mssql").env("TMPDIR", folder).stdout(Stdio::piped()))?;
                (simulator.first_line()?, Some(simulator))
            }
        };
        let schema = format!("bench{}", std::process::id());
        let bench = Self { programs, by_hand, folder: folder.to_owned(), url, schema, _simulator: simulator };
        bench.ask(&format!("CREATE SCHEMA {}", bench.schema))?;
        Ok(bench)
    }

    /// Which server it is, in its own words.
    fn server(&self) -> Fallible<String> {
        let version = self.ask("SELECT @@VERSION")?;
        Ok(format!("server: {}", version.lines().next().unwrap_or_default().trim()))
    }

    /// Asks the server; `$` stands for the schema.
    fn ask(&self, sql: &str) -> Fallible<String> {
        let sql = sql.replace('$', &self.schema);
        cmd::output(Command::new(&self.by_hand).env("TOWPATH_MSSQL_URL", &self.url).arg("ask").arg(sql))
    }

    fn dropped(&self, table: &str) -> String {
        let table = format!("{}.{table}", self.schema);
        format!("IF OBJECT_ID('{table}') IS NOT NULL DROP TABLE {table}; ")
    }

    /// An empty table in the place of whatever there is.
    fn anew(&self, table: &str, columns: &str) -> Fallible {
        self.ask(&format!("{}CREATE TABLE $.{table} ({columns})", self.dropped(table))).map(drop)
    }

    /// The tables of a load by hand, and the target; with the hash or without.
    fn tables(&self, hash: bool) -> Fallible {
        let (target, heap) = match hash {
            true => (format!("{COLUMNS}, {KEY}"), format!("{COLUMNS}, [row_hash] binary(16) NULL")),
            false => (COLUMNS.to_owned(), COLUMNS.to_owned()),
        };
        self.anew("target", &target)?;
        self.anew("heap", &heap)
    }

    fn holds(&self, table: &str, rows: u64) -> Fallible {
        let there = self.ask(&format!("SELECT COUNT(*) FROM $.{table}"))?;
        if there.trim() == rows.to_string() {
            return Ok(());
        }
        Err(format!("{table} has {} rows, not {rows}", there.trim()))
    }

    fn sample(&self, name: &str, from: u64, rows: u64, refused_every: u64) -> Fallible {
        let mut command = Command::new(&self.programs.simulate);
        command.arg("rows").arg(self.folder.join(name));
        for (option, value) in [("--from", from), ("--rows", rows), ("--refused-every", refused_every)] {
            command.arg(option).arg(value.to_string());
        }
        cmd::output(&mut command).map(drop)
    }

    fn pipeline(&self, name: &str, source: &str, sink: &str) -> Fallible<PathBuf> {
        let path = self.folder.join(format!("{name}.yaml"));
        let text = format!(
            "version: 1\nname: {name}\nsources:\n  from: {{ {source} }}\nsinks:\n  to: {{ inputs: [from], {sink} }}\nerrors: {{ stop_after: 5% }}\n"
        );
        fs::write(&path, text.replace('$', &self.schema).replace("{URL}", "${TOWPATH_MSSQL_URL}"))
            .map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    }

    /// A file over HTTP into a table.
    fn load(&self, name: &str, url: &str, table: &str, write: &str) -> Fallible<PathBuf> {
        let source = format!(
            "type: csv, url: \"{url}\", columns: {{ Timestamp: timestamp, Torque: float64, Temperature: float64 }}"
        );
        self.pipeline(name, &source, &sink(table, write))
    }

    fn towpath(&self, pipeline: &Path) -> Fallible<Run> {
        self.run(Command::new(&self.programs.towpath), pipeline)
    }

    /// Runs a pipeline by `towpath`, a command that is given.
    fn run(&self, mut towpath: Command, pipeline: &Path) -> Fallible<Run> {
        towpath.current_dir(&self.folder).arg("run").arg(pipeline).arg("--json").env("TOWPATH_MSSQL_URL", &self.url);
        once(towpath.env("TOWPATH_STATE_DIR", self.folder.join("state")))
    }

    fn by_hand(&self, arguments: &[&str]) -> Fallible<Run> {
        let arguments = arguments.iter().map(|argument| argument.replace('$', &self.schema));
        let mut command = Command::new(&self.by_hand);
        let run = once(command.current_dir(&self.folder).env("TOWPATH_MSSQL_URL", &self.url).args(arguments))?;
        eprintln!("  by hand {}", run.stdout.trim());
        Ok(run)
    }

    /// Empty tables, then the new rows, then the same once more, then both by hand. The peak of the first, in MiB.
    fn insert_new(&self, url: &str, reached: &mut Vec<Figure>) -> Fallible<f64> {
        let pipeline = self.load("insert_new", url, "target", INSERT_NEW)?;
        let (mut ours, mut again, mut rival, mut bulk) = (vec![], vec![], vec![], vec![]);
        for _ in 0..TIMES {
            self.tables(true)?;
            ours.push(told(self.towpath(&pipeline)?));
            self.holds("target", ROWS)?;
            again.push(told(self.towpath(&pipeline)?));
            self.holds("target", ROWS)?;
            self.tables(true)?;
            rival.push(self.by_hand(&["insert_new", "log.csv", "$.heap", "$.target"])?);
            self.holds("target", ROWS)?;
            self.tables(true)?;
            bulk.push(self.by_hand(&["bulk", "log.csv", "$.heap", "hash"])?);
            self.holds("heap", ROWS)?;
        }
        let peak = ours.iter().map(Run::peak_mib).collect::<Fallible<Vec<_>>>()?.into_iter().fold(0.0, f64::max);
        let (first, known, rival) = (quickest(&ours), quickest(&again), quickest(&rival));
        reached.push(Figure::quotient("HTTP CSV → `insert_new` by row_hash, wall", first, rival, "≤ 1.10×"));
        let job = "the same, CPU of the client; the rival is the bare bulk insert";
        reached.push(Figure::quotient(job, least_cpu(&ours), least_cpu(&bulk), "≤ 1.5×"));
        reached.push(Figure {
            rival: format!("the first run: {:.2} s", first.as_secs_f64()),
            ..Figure::quotient("all rows known (second run)", known, first, "≤ 0.5×")
        });
        Ok(peak)
    }

    fn append(&self, url: &str, reached: &mut Vec<Figure>) -> Fallible {
        let pipeline = self.load("append", url, "target", "write: append")?;
        let (mut ours, mut rival) = (vec![], vec![]);
        for _ in 0..TIMES {
            self.tables(false)?;
            ours.push(told(self.towpath(&pipeline)?));
            self.holds("target", ROWS)?;
            self.tables(false)?;
            rival.push(self.by_hand(&["append", "log.csv", "$.heap", "$.target"])?);
            self.holds("target", ROWS)?;
        }
        reached.push(Figure::quotient("`append`, the same rows", quickest(&ours), quickest(&rival), "≤ 1.15×"));
        Ok(())
    }

    fn large(&self, url: &str, peak: f64, reached: &mut Vec<Figure>) -> Fallible {
        self.sample("log10.csv", 0, 10 * ROWS, 0)?;
        let pipeline = self.load("large", &format!("{url}/log10.csv"), "target", INSERT_NEW)?;
        self.tables(true)?;
        let run = told(self.towpath(&pipeline)?);
        self.holds("target", 10 * ROWS)?;
        self.remove("log10.csv")?;
        let large = run.peak_mib()?;
        reached.push(Figure {
            job: "peak memory, `insert_new`, 1M and 10M rows",
            ours: format!("{peak:.0} MiB, {large:.0} MiB"),
            rival: "–".to_owned(),
            reached: format!("{:+.0} %", (large / peak - 1.0) * 100.0),
            target: "≤ 64 MiB; within 10 %",
        });
        Ok(())
    }

    fn remove(&self, file: &str) -> Fallible {
        fs::remove_file(self.folder.join(file)).map_err(|error| format!("{file}: {error}"))
    }

    /// A report slower than the database into a table of ten million rows.
    fn slow(&self, url: &str, reached: &mut Vec<Figure>) -> Fallible {
        let there = self.ask("IF OBJECT_ID('$.target') IS NULL SELECT 0 ELSE SELECT COUNT(*) FROM $.target")?;
        if there.trim() != (10 * ROWS).to_string() {
            self.tables(true)?;
            self.sample("log10.csv", 0, 10 * ROWS, 0)?;
            told(self.towpath(&self.load("fill", &format!("{url}/log10.csv"), "target", INSERT_NEW)?)?);
            self.remove("log10.csv")?;
        }
        self.sample("report.csv", 10 * ROWS, ROWS, 0)?;
        let server = SlowServer::start(&self.folder.join("report.csv"), SLOW)?;
        let pipeline = self.load("slow", &server.url, "target", INSERT_NEW)?;
        let run = told(self.towpath(&pipeline)?);
        let ended = Instant::now();
        self.holds("target", 11 * ROWS)?;
        let last = server.last_byte().ok_or("the report was not read to its end")?;
        reached.push(Figure {
            job: "last byte of the report → committed, and the program over; 1M rows within 40 s, 10M in the table",
            ours: format!("{:.2} s", ended.saturating_duration_since(last).as_secs_f64()),
            rival: "–".to_owned(),
            reached: format!("of {:.0} s", run.wall.as_secs_f64()),
            target: "≤ 1 s",
        });
        Ok(())
    }

    fn refused(&self, url: &str, reached: &mut Vec<Figure>) -> Fallible {
        self.sample("refused.csv", 0, ROWS, REFUSED_EVERY)?;
        self.anew("lines", "name nvarchar(10) NOT NULL PRIMARY KEY")?;
        self.ask("INSERT INTO $.lines (name) VALUES (N'L01'), (N'L02'), (N'L03'), (N'L04')")?;
        // Torque is left as text: what is none is for the sink to find.
        let pipeline = |name: &str, file: &str| {
            let columns = "{ Timestamp: timestamp, Temperature: float64 }";
            let source = format!("type: csv, url: \"{url}/{file}\", columns: {columns}");
            self.pipeline(name, &source, &sink("strict", INSERT_NEW))
        };
        let strict = format!("{STRICT}, {KEY}").replace('$', &self.schema);
        let (clean, spoiled) = (pipeline("clean", "log.csv")?, pipeline("refused", "refused.csv")?);
        let refused = ROWS / REFUSED_EVERY;
        let (mut ours, mut rival) = (vec![], vec![]);
        for _ in 0..TIMES {
            for (pipeline, refused, runs) in [(&spoiled, refused, &mut ours), (&clean, 0, &mut rival)] {
                self.anew("strict", &strict)?;
                let run = told(self.towpath(pipeline)?);
                self.holds("strict", ROWS - refused)?;
                let report = run.report()?;
                let kept = report.get("dead_letters").and_then(serde_json::Value::as_u64);
                if kept != Some(refused) {
                    return Err(format!("{kept:?} dead letters, where {refused} rows are refused"));
                }
                if refused > 0 {
                    self.reasons(&report, refused)?;
                }
                runs.push(run);
            }
        }
        let (ours, clean) = (quickest(&ours), quickest(&rival));
        reached.push(Figure {
            rival: format!("the clean load: {:.2} s", clean.as_secs_f64()),
            ..Figure::quotient("10,000 refused rows of seven kinds in a million", ours, clean, "≤ 1.10×")
        });
        self.ask(&format!("{}{}", self.dropped("strict"), self.dropped("lines"))).map(drop)
    }

    /// Whether the dead letters of a run give seven reasons, in equal parts.
    fn reasons(&self, report: &serde_json::Value, refused: u64) -> Fallible {
        let run = report.get("run_id").and_then(serde_json::Value::as_str).ok_or("the report names no run")?;
        let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
        let folder = self.folder.join("state/dead_letters/refused");
        for file in fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))? {
            let path = file.map_err(|error| error.to_string())?.path();
            if path.extension().is_none_or(|end| end != "jsonl") {
                continue;
            }
            let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            for line in text.lines() {
                let letter: serde_json::Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
                let text = |name: &str| letter.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
                if text("run") == run {
                    // Without what differs from row to row.
                    let reason = text("reason").replace(|char: char| char.is_ascii_digit(), "0");
                    *reasons.entry(format!("{}: {reason}", text("column"))).or_default() += 1;
                }
            }
        }
        let (least, most) = (refused / 7, refused.div_ceil(7));
        match reasons.len() == 7 && reasons.values().all(|rows| (least..=most).contains(rows)) {
            true => Ok(()),
            false => {
                Err(format!("{refused} rows are refused for seven reasons, and the dead letters say {reasons:#?}"))
            }
        }
    }

    /// Rows out of a table into a CSV file, beside a loop that counts them.
    fn source(&self, url: &str, reached: &mut Vec<Figure>) -> Fallible {
        self.tables(false)?;
        told(self.towpath(&self.load("fill_source", url, "target", "write: append")?)?);
        self.holds("target", ROWS)?;
        let pipeline = self.pipeline(
            "source",
            "type: mssql, connection: \"{URL}\", table: $.target",
            "type: csv, path: out.csv, write: replace",
        )?;
        let (mut ours, mut rival) = (vec![], vec![]);
        for _ in 0..TIMES {
            let _ = fs::remove_dir_all(self.folder.join("state"));
            ours.push(told(self.towpath(&pipeline)?));
            rival.push(self.by_hand(&["read", "$.target"])?);
        }
        let (ours, rival) = (quickest(&ours), quickest(&rival));
        reached.push(Figure {
            reached: format!("{:.2}× as fast", rival.as_secs_f64() / ours.as_secs_f64()),
            ..Figure::quotient("source, 1M rows → CSV; by hand they are only counted", ours, rival, "≥ 0.9×")
        });
        Ok(())
    }

    fn limits(&self, url: &str) -> Fallible<Figure> {
        let job = "`insert_new` under half a CPU and 256 MiB";
        let limits = match Limits::half_a_cpu_and_256_mib() {
            Ok(limits) => limits,
            Err(error) => {
                let (ours, reached) = ("not measured".to_owned(), "–".to_owned());
                return Ok(Figure { job, ours, rival: error, reached, target: "completes" });
            }
        };
        self.tables(true)?;
        let pipeline = self.load("limits", url, "target", INSERT_NEW)?;
        let run = told(self.run(limits.within(&self.programs.towpath), &pipeline)?);
        self.holds("target", ROWS)?;
        Ok(Figure {
            job,
            ours: format!("{:.1} s, {:.0} MiB", run.wall.as_secs_f64(), run.peak_mib()?),
            rival: limits.how.to_owned(),
            reached: "completes".to_owned(),
            target: "completes",
        })
    }
}

fn sink(table: &str, write: &str) -> String {
    format!("type: mssql, connection: \"{{URL}}\", table: $.{table}, {write}")
}

/// Says how a run of ours went.
fn told(run: Run) -> Run {
    let peak = run.peak_mib().unwrap_or_default();
    let (wall, cpu) = (run.wall.as_secs_f64(), run.cpu.as_secs_f64());
    eprintln!("  towpath {wall:.2} s, client {cpu:.2} s, peak {peak:.0} MiB");
    run
}

fn quickest(runs: &[Run]) -> Duration {
    runs.iter().map(|run| run.wall).min().unwrap_or_default()
}

fn least_cpu(runs: &[Run]) -> Duration {
    runs.iter().map(|run| run.cpu).min().unwrap_or_default()
}
