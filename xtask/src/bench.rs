//! `cargo xtask bench spine`: the figures of the README, each beside a rival in the same run. Seconds differ from machine to
//! machine and from hour to hour; ratios hold.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    Fallible, cmd,
    measure::{Limits, Run, once, side_by_side},
};

const ROWS: u64 = 1_000_000;
const TIMES: usize = 5;

pub(crate) fn run(arguments: &[String]) -> Fallible {
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] | ["spine"] => spine(),
        _ => Err("usage: cargo xtask bench [spine]".to_owned()),
    }
}

/// One line of the table.
struct Figure {
    job: &'static str,
    ours: String,
    rival: String,
    reached: String,
    target: &'static str,
}

fn spine() -> Fallible {
    if !cmd::is_at_hand("sqlite3") {
        return Err("the rival is missing: install the sqlite3 shell".to_owned());
    }
    let programs = cmd::build("release")?;
    let scratch = cmd::Scratch::new("bench")?;
    let bench = Bench { programs, folder: scratch.path().to_owned() };
    let columns = bench.sample("log.csv", ROWS)?;
    bench.sample("log10.csv", 10 * ROWS)?;
    let (_server, url) = bench.serve()?;
    let mut figures = Vec::new();

    let replace = bench.pipeline("replace", &format!("{url}/log.csv"), &columns, "write: replace")?;
    let insert =
        bench.pipeline("insert_new", &format!("{url}/log.csv"), &columns, "write: insert_new, key: row_hash")?;
    eprintln!("replace …");
    let (ours, rival) = side_by_side(TIMES, || bench.load_anew(&replace), || bench.import())?;
    let peak_replace = ours.peak_mib()?;
    figures.push(ratio("HTTP → typed SQLite, `replace`", &ours, &rival, "≤ 0.5×"));
    eprintln!("insert_new …");
    let (ours, rival) = side_by_side(TIMES, || bench.load_anew(&insert), || bench.import())?;
    let peak_insert = ours.peak_mib()?;
    figures.push(ratio("the same, `insert_new` on row_hash, empty table", &ours, &rival, "≤ 1.0×"));
    let (ours, rival) = side_by_side(TIMES, || bench.load(&insert), || bench.import())?;
    figures.push(ratio("the same, `insert_new` on row_hash, all known", &ours, &rival, "≤ 0.6×"));

    eprintln!("ten million rows …");
    for (name, write, peak) in
        [("replace10", "write: replace", peak_replace), ("insert10", "write: insert_new, key: row_hash", peak_insert)]
    {
        let pipeline = bench.pipeline(name, &format!("{url}/log10.csv"), &columns, write)?;
        let run = bench.load_anew(&pipeline)?;
        let large = run.peak_mib()?;
        figures.push(Figure {
            job: if name == "replace10" {
                "peak memory, `replace`, 1M and 10M rows"
            } else {
                "peak memory, `insert_new`, 1M and 10M rows"
            },
            ours: format!("{peak:.0} MiB, {large:.0} MiB"),
            rival: "–".to_owned(),
            reached: format!("{:+.0} %", (large / peak - 1.0) * 100.0),
            target: "≤ 64 MiB; within 10 %",
        });
        // A gigabyte less while the rest is measured.
        bench.forget(&pipeline);
    }

    eprintln!("decoding …");
    let file = bench.folder.join("log.csv");
    let example = ["run", "--quiet", "--release", "--package", "towpath-formats", "--example", "decode_bench", "--"];
    let decoded = cmd::output(cmd::cargo(example).arg(&file))?;
    println!("{decoded}");

    eprintln!("half a CPU and 256 MiB …");
    figures.push(match Limits::half_a_cpu_and_256_mib() {
        Ok(limits) => {
            bench.forget(&replace);
            let run = bench.run(limits.within(&bench.programs.towpath), &replace)?;
            Figure {
                job: "`replace` under half a CPU and 256 MiB",
                ours: format!("{:.1} s, {:.0} MiB", run.wall.as_secs_f64(), run.peak_mib()?),
                rival: limits.how.to_owned(),
                reached: "completes".to_owned(),
                target: "completes",
            }
        }
        Err(error) => Figure {
            job: "`replace` under half a CPU and 256 MiB",
            ours: "not measured".to_owned(),
            rival: error,
            reached: "–".to_owned(),
            target: "completes",
        },
    });
    println!("{}\n", machine());
    println!("| job | towpath | sqlite3 `.import` from disk | reached | must reach |\n|---|---|---|---|---|");
    for figure in figures {
        let Figure { job, ours, rival, reached, target } = figure;
        println!("| {job} | {ours} | {rival} | {reached} | {target} |");
    }
    Ok(())
}

fn ratio(job: &'static str, ours: &Run, rival: &Run, target: &'static str) -> Figure {
    let seconds = |run: &Run| format!("{:.2} s", run.wall.as_secs_f64());
    let reached = format!("{:.2}×", ours.wall.as_secs_f64() / rival.wall.as_secs_f64());
    Figure { job, ours: seconds(ours), rival: seconds(rival), reached, target }
}

fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown CPU");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{}, {cores} cores; the quickest of {TIMES} runs each, in turn", model.trim_start_matches([':', '\t', ' ']))
}

struct Bench {
    programs: cmd::Programs,
    folder: PathBuf,
}

impl Bench {
    /// Writes a sample file; returns its `columns`.
    fn sample(&self, name: &str, rows: u64) -> Fallible<String> {
        let mut command = Command::new(&self.programs.simulate);
        command.arg("sample").arg(self.folder.join(name)).args(["--rows", &rows.to_string()]);
        Ok(cmd::output(&mut command)?.trim().to_owned())
    }

    /// Serves the folder: by nginx where it is at hand, else by Python.
    fn serve(&self) -> Fallible<(cmd::Background, String)> {
        let port = free_port()?;
        let mut command = if cmd::is_at_hand("nginx") {
            let conf = self.folder.join("nginx.conf");
            let root = self.folder.display();
            let text = format!(
                "daemon off; pid {root}/nginx.pid; error_log stderr crit; worker_processes 1; events {{}}\n\
                 http {{ access_log off; sendfile on; client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f;\n\
                 uwsgi_temp_path {root}/u; scgi_temp_path {root}/s; server {{ listen 127.0.0.1:{port}; root {root}; }} }}\n"
            );
            fs::write(&conf, text).map_err(|error| error.to_string())?;
            let mut nginx = Command::new("nginx");
            nginx.arg("-p").arg(&self.folder).arg("-c").arg(conf);
            nginx
        } else {
            let mut python = Command::new("python3");
            python.args(["-m", "http.server", &port.to_string(), "--bind", "127.0.0.1"]).current_dir(&self.folder);
            python
        };
        let server = cmd::Background::start(command.stdout(Stdio::null()).stderr(Stdio::null()))?;
        for _ in 0..100 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok((server, format!("http://127.0.0.1:{port}")));
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        Err("the file server does not answer".to_owned())
    }

    fn pipeline(&self, name: &str, url: &str, columns: &str, write: &str) -> Fallible<PathBuf> {
        let path = self.folder.join(format!("{name}.yaml"));
        let text = format!(
            "version: 1\nname: {name}\nsources:\n  log: {{ type: csv, url: \"{url}\", columns: {columns} }}\n\
             sinks:\n  table: {{ type: sqlite, inputs: [log], path: {name}.db, table: log, {write} }}\n"
        );
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    }

    /// Removes what a pipeline has made.
    fn forget(&self, pipeline: &Path) {
        for end in ["db", "db-wal", "db-shm"] {
            let _ = fs::remove_file(pipeline.with_extension(end));
        }
        let _ = fs::remove_dir_all(self.folder.join("state"));
    }

    fn load_anew(&self, pipeline: &Path) -> Fallible<Run> {
        self.forget(pipeline);
        self.load(pipeline)
    }

    fn load(&self, pipeline: &Path) -> Fallible<Run> {
        self.run(Command::new(&self.programs.towpath), pipeline)
    }

    /// Runs a pipeline by `towpath`, a command that is given.
    fn run(&self, mut towpath: Command, pipeline: &Path) -> Fallible<Run> {
        towpath.current_dir(&self.folder).arg("run").arg(pipeline).arg("--json");
        once(towpath.env("TOWPATH_STATE_DIR", self.folder.join("state")))
    }

    /// The rival: the SQLite shell reads the file from disk into a table of text.
    fn import(&self) -> Fallible<Run> {
        for end in ["import.db", "import.db-journal"] {
            let _ = fs::remove_file(self.folder.join(end));
        }
        once(Command::new("sqlite3").current_dir(&self.folder).arg("import.db").arg(".import --csv log.csv log"))
    }
}

fn free_port() -> Fallible<u16> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).map_err(|error| error.to_string())?;
    Ok(listener.local_addr().map_err(|error| error.to_string())?.port())
}
