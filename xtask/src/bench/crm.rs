//! `cargo xtask bench crm join`: three files over HTTP, joined and summed in 64 MiB, beside DuckDB's Python over the same files on disk.
//!
//! DuckDB is taken from the Python that `TOWPATH_BENCH_PYTHON` names, or from `python3` (`pip install duckdb`).

use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{BufRead as _, BufReader, BufWriter, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use super::{Figure, crm_sync, figures, machine, serve};
use crate::{
    Fallible, cmd,
    measure::{Run, once, side_by_side},
};

const TIMES: usize = 5;
/// Of the files that are ten times as large.
const TIMES_LARGE: usize = 2;

pub(super) fn run(jobs: &[&str]) -> Fallible {
    if jobs.iter().any(|job| !["join", "sync", "unchanged"].contains(job)) {
        return Err("usage: cargo xtask bench crm [join | sync | unchanged]…".to_owned());
    }
    let wanted = |job| jobs.is_empty() || jobs.contains(&job);
    for (job, run) in [("unchanged", crm_sync::unchanged as fn() -> Fallible), ("sync", crm_sync::sync), ("join", join)]
    {
        if wanted(job) {
            run()?;
        }
    }
    Ok(())
}

/// Every order with its customer and the sum of its payments.
const QUERY: &str = "select c.customer_id, c.name, c.city, o.order_id, o.ordered, coalesce(p.paid, 0) as paid, coalesce(p.payments, 0) as payments \
    from customers c join orders o on o.customer_id = c.customer_id \
    left join (select order_id, sum(amount) as paid, count(*) as payments from payments group by order_id) p on p.order_id = o.order_id";

/// How many rows there are, and of which keys.
#[derive(Clone, Copy)]
struct Scale {
    customers: u64,
    orders: u64,
    payments: u64,
    /// Half of all orders are of one customer, half of all payments of one order.
    skewed: bool,
}

const SMALL: Scale = Scale { customers: 100_000, orders: 1_000_000, payments: 3_000_000, skewed: false };

impl Scale {
    fn times(self, factor: u64) -> Self {
        let Self { customers, orders, payments, skewed } = self;
        Self { customers: factor * customers, orders: factor * orders, payments: factor * payments, skewed }
    }

    /// Writes the three files.
    fn write(self, folder: &Path) -> Fallible {
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
        let cities = ["Graz", "Linz", "Wien", "Bern", "Basel", "Ulm", "Köln", "Kiel"];
        file(folder, "customers.csv", "customer_id,name,email,city", self.customers, |id, line| {
            let city = cities[dice.roll(cities.len() as u64) as usize];
            write!(line, "{id},Customer {id},customer{id}@example.com,{city}")
        })?;
        file(folder, "orders.csv", "order_id,customer_id,ordered,status", self.orders, |id, line| {
            let customer = if self.skewed && id % 2 == 0 { 1 } else { 1 + dice.roll(self.customers) };
            let (month, day) = (1 + dice.roll(12), 1 + dice.roll(28));
            let status = ["open", "won", "lost"][dice.roll(3) as usize];
            write!(line, "{id},{customer},2026-{month:02}-{day:02},{status}")
        })?;
        file(folder, "payments.csv", "payment_id,order_id,amount,currency,paid", self.payments, |id, line| {
            let order = if self.skewed && id % 2 == 0 { 1 } else { 1 + dice.roll(self.orders) };
            let (euros, cents) = (dice.roll(5000), dice.roll(100));
            let (month, day) = (1 + dice.roll(12), 1 + dice.roll(28));
            write!(line, "{id},{order},{euros}.{cents:02},EUR,2026-{month:02}-{day:02}")
        })
    }
}

/// Writes a file of so many lines behind a header.
fn file(
    folder: &Path,
    name: &str,
    header: &str,
    rows: u64,
    mut line: impl FnMut(u64, &mut BufWriter<File>) -> std::io::Result<()>,
) -> Fallible {
    let path = folder.join(name);
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut out = BufWriter::with_capacity(1 << 20, File::create(&path).map_err(failed)?);
    writeln!(out, "{header}").map_err(failed)?;
    for id in 1..=rows {
        line(id, &mut out).and_then(|()| out.write_all(b"\n")).map_err(failed)?;
    }
    out.flush().map_err(failed)
}

/// The same numbers on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

fn join() -> Fallible {
    let python = std::env::var("TOWPATH_BENCH_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let version = cmd::output(Command::new(&python).args(["-c", "import duckdb; print(duckdb.__version__)"])).map_err(
        |error| {
            format!("the rival is missing: pip install duckdb, and name its Python in TOWPATH_BENCH_PYTHON\n{error}")
        },
    )?;
    let programs = cmd::build_to_join(super::PROFILE)?;
    let scratch = cmd::Scratch::new("bench-crm")?;
    let (_server, url) = serve(scratch.path())?;
    let bench = Bench { programs, python, folder: scratch.path().to_owned(), url };
    let mut reached = vec![];

    eprintln!("files …");
    SMALL.write(&bench.folder.join("small"))?;
    eprintln!("join and sum …");
    let (ours, rival) = side_by_side(TIMES, || bench.ours("small"), || bench.rival("small"))?;
    bench.same("small")?;
    reached.push(Figure::ratio(
        "100k × 1M × 3M rows over HTTP, join + sum → CSV, `memory: 64MiB`",
        &ours,
        &rival,
        "≤ 0.7×",
    ));
    reached.push(peak("peak of the process", &ours, &rival, "≤ 80 MiB, a fifth")?);
    bench.forget("small")?;

    eprintln!("one key with half of all rows …");
    Scale { skewed: true, ..SMALL }.write(&bench.folder.join("skewed"))?;
    let (ours, rival) = side_by_side(TIMES, || bench.ours("skewed"), || bench.rival("skewed"))?;
    bench.same("skewed")?;
    reached.push(Figure::ratio("one key holding half of all rows", &ours, &rival, "completes"));
    reached.push(peak("peak of the process", &ours, &rival, "the same memory")?);
    bench.forget("skewed")?;

    eprintln!("ten times the rows …");
    SMALL.times(10).write(&bench.folder.join("large"))?;
    let (ours, rival) = side_by_side(TIMES_LARGE, || bench.ours("large"), || bench.rival("large"))?;
    bench.same("large")?;
    reached.push(Figure::ratio("ten times the rows, the same setting", &ours, &rival, "≤ 0.85×"));
    reached.push(peak("peak of the process", &ours, &rival, "≤ 128 MiB")?);

    println!("{}\n", machine(TIMES));
    println!("{}", figures(&format!("DuckDB {}, Python", version.trim()), &reached));
    Ok(())
}

fn peak(job: &'static str, ours: &Run, rival: &Run, target: &'static str) -> Fallible<Figure> {
    let (ours, rival) = (ours.peak_mib()?, rival.peak_mib()?);
    let mib = |size: f64| format!("{size:.0} MiB");
    Ok(Figure { job, ours: mib(ours), rival: mib(rival), reached: format!("{:.2}×", ours / rival), target })
}

struct Bench {
    programs: cmd::Programs,
    python: String,
    folder: PathBuf,
    url: String,
}

impl Bench {
    fn forget(&self, scale: &str) -> Fallible {
        let folder = self.folder.join(scale);
        fs::remove_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))
    }

    fn ours(&self, scale: &str) -> Fallible<Run> {
        let folder = self.folder.join(scale);
        for old in ["ours.csv", ".ours.csv.towpath"] {
            let _ = fs::remove_file(folder.join(old));
        }
        let _ = fs::remove_dir_all(folder.join("state"));
        let url = format!("{}/{scale}", self.url);
        let pipeline = folder.join("join.yaml");
        let text = format!(
            "version: 1\nname: join\nsources:\n\
             \x20 customers: {{ type: csv, url: \"{url}/customers.csv\", columns: {{ customer_id: int64 }} }}\n\
             \x20 orders: {{ type: csv, url: \"{url}/orders.csv\", columns: {{ order_id: int64, customer_id: int64, ordered: date }} }}\n\
             \x20 payments: {{ type: csv, url: \"{url}/payments.csv\", columns: {{ order_id: int64, amount: \"decimal(12,2)\" }} }}\n\
             transforms:\n\
             \x20 joined: {{ type: sql, inputs: [customers, orders, payments], memory: 64MiB, spill: spill, query: \"{QUERY}\" }}\n\
             sinks:\n\
             \x20 file: {{ type: csv, inputs: [joined], path: ours.csv }}\n"
        );
        fs::write(&pipeline, text).map_err(|error| format!("{}: {error}", pipeline.display()))?;
        let mut towpath = Command::new(&self.programs.towpath);
        towpath.current_dir(&folder).args(["run", "join.yaml", "--json"]);
        once(towpath.env("TOWPATH_STATE_DIR", folder.join("state")))
    }

    fn rival(&self, scale: &str) -> Fallible<Run> {
        // The types that ours is told as well; a sum of binary fractions would not be the same.
        let script = format!(
            "import duckdb\ndb = duckdb.connect()\n\
             db.execute(\"create view customers as from read_csv('customers.csv')\")\n\
             db.execute(\"create view orders as from read_csv('orders.csv')\")\n\
             db.execute(\"create view payments as from read_csv('payments.csv', types = {{'amount': 'decimal(12,2)'}})\")\n\
             db.execute(\"copy ({QUERY}) to 'rival.csv' (header)\")\n\
             peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))\n\
             print('{{\"peak_memory_bytes\": %d}}' % (int(peak.split()[1]) * 1024))\n"
        );
        once(Command::new(&self.python).current_dir(self.folder.join(scale)).arg("-c").arg(script))
    }

    /// Whether both files hold the same lines, in whatever order.
    fn same(&self, scale: &str) -> Fallible {
        let (ours, rival) = (self.lines(scale, "ours.csv")?, self.lines(scale, "rival.csv")?);
        if ours == rival {
            Ok(())
        } else {
            Err(format!(
                "{scale}: the results differ: {} and {} lines, digests {:x} and {:x}",
                ours.0, rival.0, ours.1, rival.1
            ))
        }
    }

    /// How many lines a file has, and a digest of them that their order does not change.
    fn lines(&self, scale: &str, name: &str) -> Fallible<(u64, u64)> {
        let path = self.folder.join(scale).join(name);
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let mut lines = BufReader::with_capacity(1 << 20, File::open(&path).map_err(failed)?);
        let (mut line, mut count, mut digest) = (String::new(), 0, 0u64);
        while lines.read_line(&mut line).map_err(failed)? > 0 {
            let mut hasher = DefaultHasher::new();
            line.trim_end().hash(&mut hasher);
            digest = digest.wrapping_add(hasher.finish());
            count += 1;
            line.clear();
        }
        Ok((count, digest))
    }
}
