//! `cargo xtask bench spine`: files over HTTP into SQLite, beside the sqlite3 shell.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{Figure, PROFILE, figures, machine, serve};
use crate::{
    Fallible, cmd,
    measure::{Limits, Run, once, side_by_side},
};

const ROWS: u64 = 1_000_000;
const TIMES: usize = 5;

pub(super) fn run() -> Fallible {
    if !cmd::is_at_hand("sqlite3") {
        return Err("the rival is missing: install the sqlite3 shell".to_owned());
    }
    let programs = cmd::build(PROFILE)?;
    let scratch = cmd::Scratch::new("bench")?;
    let bench = Bench { programs, folder: scratch.path().to_owned() };
    let columns = bench.sample("log.csv", ROWS)?;
    bench.sample("log10.csv", 10 * ROWS)?;
    let (_server, url) = serve(&bench.folder)?;
    let mut reached = Vec::new();

    let replace = bench.pipeline("replace", &format!("{url}/log.csv"), &columns, "write: replace")?;
    let insert =
        bench.pipeline("insert_new", &format!("{url}/log.csv"), &columns, "write: insert_new, key: row_hash")?;
    eprintln!("replace …");
    let (ours, rival) = side_by_side(TIMES, || bench.load_anew(&replace), || bench.import())?;
    let peak_replace = ours.peak_mib()?;
    reached.push(Figure::ratio("HTTP → typed SQLite, `replace`", &ours, &rival, "≤ 0.5×"));
    eprintln!("insert_new …");
    let (ours, rival) = side_by_side(TIMES, || bench.load_anew(&insert), || bench.import())?;
    let peak_insert = ours.peak_mib()?;
    reached.push(Figure::ratio("the same, `insert_new` on row_hash, empty table", &ours, &rival, "≤ 1.0×"));
    let (ours, rival) = side_by_side(TIMES, || bench.load(&insert), || bench.import())?;
    reached.push(Figure::ratio("the same, `insert_new` on row_hash, all known", &ours, &rival, "≤ 0.6×"));

    eprintln!("ten million rows …");
    for (name, write, peak) in
        [("replace10", "write: replace", peak_replace), ("insert10", "write: insert_new, key: row_hash", peak_insert)]
    {
        let pipeline = bench.pipeline(name, &format!("{url}/log10.csv"), &columns, write)?;
        let run = bench.load_anew(&pipeline)?;
        let large = run.peak_mib()?;
        reached.push(Figure {
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
    reached.push(match Limits::half_a_cpu_and_256_mib() {
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
    println!("{}\n", machine(TIMES));
    println!("{}", figures("sqlite3 `.import` from disk", &reached));
    Ok(())
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
