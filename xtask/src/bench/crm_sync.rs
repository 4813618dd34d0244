//! `cargo xtask bench crm sync unchanged`: three files and a simulated CRM that are kept equal by `config/pipelines/csv_to_pipedrive.yaml`. There is no
//! rival: what counts is how much of the vendor's allowance is used, and what comparing takes.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use super::{Figure, figures, profile};
use crate::{
    Fallible, cmd,
    measure::{Run, once},
    shop::{self, Log, Shop},
};

/// Of the first sync and of the comparison.
const LARGE: Shop = Shop { customers: 10_000, orders: 10_000 };
/// Of the days on the smallest plan: more writes than a tenth of a day's tokens pay for.
const SMALL: Shop = Shop { customers: 400, orders: 400 };
/// How often the comparison is measured.
const TIMES: usize = 5;

/// The vendor's window on the largest plan.
const CALLS: f64 = 120.0;
const SECONDS: f64 = 2.0;

pub(super) fn sync() -> Fallible {
    let bench = Bench::new("bench-crm-sync")?;
    let mut reached = vec![];
    eprintln!("first sync, as fast as the vendor lets it (some six minutes) …");
    let crm = bench.crm(LARGE, &["--plan", "ultimate"])?;
    let run = bench.run(&crm, "ultimate", &["run"])?.of(0)?;
    let log = Log::of(&crm.url)?;
    // The last calls need no window of their own to end.
    let allowed = 1.0 + log.number("seconds") / SECONDS;
    let used = log.number("calls") / (CALLS * allowed);
    let job = "first sync, 10k persons + 10k deals, Ultimate, one seat";
    reached.push(figure(
        job,
        format!("{:.0} s", run.wall.as_secs_f64()),
        format!("{:.1} % of the burst allowance", 100.0 * used),
        "≥ 95 %",
    ));
    let (refused, busiest) = (log.number("statuses/429"), log.number("busiest_window"));
    reached.push(figure("turned away (429)", format!("{refused}"), format!("at most {busiest} calls in 2 s"), "0"));
    let (created, all) = (log.number("kinds/create"), (LARGE.customers + LARGE.orders) as f64);
    if created != all {
        return Err(format!("{created} records were made of {all}"));
    }

    eprintln!("two days on the smallest plan, with a tenth of its tokens (some two minutes) …");
    let crm = bench.crm(SMALL, &["--plan", "lite"])?;
    let share = ["run", "--set", "sinks.persons.budget.share=10%", "--set", "sinks.deals.budget.share=10%"];
    bench.run(&crm, "lite", &share)?.of(130)?;
    let first = Log::of(&crm.url)?;
    // That no process sends anything more on this day.
    bench.run(&crm, "lite", &share)?.of(130)?;
    let idle = Log::of(&crm.url)?.number("calls") - first.number("calls");
    shop::ask(&crm.url, "POST", "/simulator/clock", r#"{"advance": 86400}"#)?;
    bench.run(&crm, "lite", &["state", "reset", "budget"])?.of(0)?;
    bench.run(&crm, "lite", &share)?.of(0)?;
    let second = Log::of(&crm.url)?;
    let (created, all) = (second.number("kinds/create"), (SMALL.customers + SMALL.orders) as f64);
    if created != all {
        return Err(format!("{created} records were made of {all}"));
    }
    let days = format!("{:.0} of 3,000 tokens, then the rest on the next day", first.number("tokens"));
    let job = "Lite, a tenth of its day, 400 + 400: stops, and goes on the next day";
    reached.push(figure(job, days, format!("{idle} calls in between, none made twice"), "stops, goes on"));
    reached.push(figure("turned away (429)", format!("{}", second.number("statuses/429")), String::new(), "0"));
    println!("{}\n", super::machine(1));
    println!("{}", figures("", &reached));
    Ok(())
}

pub(super) fn unchanged() -> Fallible {
    let bench = Bench::new("bench-crm-unchanged")?;
    let (persons, deals) = (LARGE.customers.to_string(), LARGE.orders.to_string());
    let crm = bench.crm(LARGE, &["--plan", "ultimate", "--seats", "100", "--persons", &persons, "--deals", &deals])?;
    eprintln!("compare 10,000 + 10,000 …");
    // Titles as the simulator's records have them.
    let text = fs::read_to_string(cmd::root().join(FILE)).map_err(|error| format!("{FILE}: {error}"))?;
    let text =
        text.replace("'Order ' || o.order_id || coalesce(', ' || c.name, '')", "'Order ' || substr(o.order_id, 2)");
    let (top, _) = text.split_once("\nsinks:\n").ok_or("the pipeline has no sinks")?;
    // The same files and the same query, into files: what the join takes.
    let alone = format!(
        "{top}\nsinks:\n  persons: {{ type: csv, inputs: [customers], path: persons.csv }}\n  \
         deals: {{ type: csv, inputs: [orders_paid], path: deals.csv }}\n"
    );
    bench.put("compare.yaml", &text)?;
    bench.put("alone.yaml", &alone.replace("name: csv_to_pipedrive", "name: alone"))?;
    let (mut ours, mut join) = (vec![], vec![]);
    for _ in 0..TIMES {
        shop::forget(&crm.url)?;
        ours.push(once(bench.command(&crm, "ultimate").args(["run", "compare.yaml", "--full", "--json"]))?);
        let log = Log::of(&crm.url)?;
        if (log.number("calls"), log.number("writes")) != (43.0, 0.0) {
            return Err(format!(
                "{} calls and {} writes where 43 pages are enough",
                log.number("calls"),
                log.number("writes")
            ));
        }
        join.push(once(bench.command(&crm, "ultimate").args(["run", "alone.yaml", "--full", "--json"]))?);
    }
    let least = |runs: &[Run]| -> Fallible<(f64, f64)> {
        let peaks = runs.iter().map(Run::peak_mib).collect::<Fallible<Vec<_>>>()?;
        let cpu = runs.iter().map(|run| run.cpu.as_secs_f64());
        Ok((peaks.into_iter().fold(f64::MAX, f64::min), cpu.fold(f64::MAX, f64::min)))
    };
    let ((peak, cpu), (join_peak, join_cpu)) = (least(&ours)?, least(&join)?);
    let reached = [
        Figure {
            job: "unchanged 10k + 10k: peak memory",
            ours: format!("{peak:.0} MiB"),
            rival: format!("{join_peak:.0} MiB"),
            reached: format!("{:.0} MiB above", peak - join_peak),
            target: "≤ 64 MiB above",
        },
        Figure {
            job: "the same: CPU, its 43 calls included",
            ours: format!("{cpu:.2} s"),
            rival: format!("{join_cpu:.2} s"),
            reached: format!("{:.2} s more", cpu - join_cpu),
            target: "≤ 0.5 s beyond the calls",
        },
    ];
    println!("{}\n", super::machine(TIMES));
    println!("{}", figures("the join alone, into files", &reached));
    Ok(())
}

/// The pipeline that is measured.
const FILE: &str = "config/pipelines/csv_to_pipedrive.yaml";

fn figure(job: &'static str, ours: String, reached: String, target: &'static str) -> Figure {
    Figure { job, ours, rival: String::new(), reached, target }
}

struct Bench {
    programs: cmd::Programs,
    scratch: cmd::Scratch,
}

/// A simulated account, and the files that it shall be equal to.
struct Crm {
    _server: cmd::Background,
    url: String,
    files: String,
    state: std::path::PathBuf,
}

/// What came of a command.
struct Ended {
    run: Run,
    code: Option<i32>,
    said: String,
}

impl Ended {
    fn of(self, code: i32) -> Fallible<Run> {
        if self.code == Some(code) {
            Ok(self.run)
        } else {
            Err(format!("it ended with {:?}, not {code}\n{}", self.code, self.said))
        }
    }
}

impl Bench {
    fn new(name: &str) -> Fallible<Self> {
        Ok(Self { programs: cmd::build_to_join(&profile())?, scratch: cmd::Scratch::new(name)? })
    }
    fn put(&self, name: &str, text: &str) -> Fallible {
        let path = self.scratch.path().join(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    }
    fn crm(&self, shop: Shop, more: &[&str]) -> Fallible<Crm> {
        let folder = self.scratch.path().join(format!("{}", shop.customers));
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        shop.write(&folder)?;
        let mut command = Command::new(&self.programs.simulate);
        let mut server = cmd::Background::start(command.arg("pipedrive").args(more).stdout(Stdio::piped()))?;
        let url = server.first_line()?;
        Ok(Crm { _server: server, url, files: shop::serve(&folder)?, state: folder.join("state") })
    }
    fn command(&self, crm: &Crm, plan: &str) -> Command {
        let mut towpath = Command::new(&self.programs.towpath);
        towpath.current_dir(self.scratch.path());
        for (name, value) in [
            ("CRM_FILES", crm.files.as_str()),
            ("PIPEDRIVE_URL", &crm.url),
            ("PIPEDRIVE_API_TOKEN", "towpath-test-token"),
            ("PIPEDRIVE_PLAN", plan),
        ] {
            towpath.env(name, value);
        }
        towpath.env("TOWPATH_STATE_DIR", &crm.state);
        towpath
    }
    /// Runs a command of `towpath` over the pipeline as it stands in `config/`, if it is `run`; however it ends.
    fn run(&self, crm: &Crm, plan: &str, arguments: &[&str]) -> Fallible<Ended> {
        let mut command = self.command(crm, plan);
        command.args(arguments);
        if arguments.first() == Some(&"run") {
            command.arg(cmd::root().join(Path::new(FILE))).arg("--json");
        }
        let began = std::time::Instant::now();
        let output =
            command.stdin(Stdio::null()).output().map_err(|error| format!("{}: {error}", cmd::shown(&command)))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let run = Run { wall: began.elapsed(), stdout: text(&output.stdout), ..Run::default() };
        let said = format!("{}{}", run.stdout, text(&output.stderr));
        Ok(Ended { run, code: output.status.code(), said })
    }
}
