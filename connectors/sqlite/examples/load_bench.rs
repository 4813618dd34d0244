//! How fast the sink is, beside the `sqlite3` shell's `.import` of the same rows.
//!
//! `cargo run --release -p towpath-connector-sqlite --example load_bench [ROWS] [MODE…]`, modes: import, replace, append, insert_new,
//! known, upsert. Rows are made by another thread, as a decoder would; the shell reads them from a CSV file. One process per mode, so that the
//! peak of memory is its own.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic)]

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use arrow_array::{
    ArrayRef, Float64Array, RecordBatch, TimestampMicrosecondArray,
    builder::{Float64Builder, StringBuilder, TimestampMicrosecondBuilder},
    cast::AsArray as _,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use towpath_connector_sqlite::SqliteSink;
use towpath_core::{Checkpoint, Context, Run, Sink};

const BATCH: usize = 8192;
const TEXTS: [&str; 9] = ["serial", "order", "station", "line", "operator", "part", "batch", "status", "comment"];
const MODES: [&str; 6] = ["import", "replace", "append", "insert_new", "known", "upsert"];

fn schema() -> SchemaRef {
    let mut fields: Vec<_> = TEXTS.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect();
    fields.insert(1, Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true));
    fields.push(Field::new("torque", DataType::Float64, true));
    fields.push(Field::new("angle", DataType::Float64, true));
    Arc::new(Schema::new(fields))
}

/// Spreads a number, so that neighbours look nothing alike.
fn mix(seed: u64) -> u64 {
    let x = (seed ^ (seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

fn batch(schema: &SchemaRef, first: usize, rows: usize) -> RecordBatch {
    use std::fmt::Write as _;
    let mut texts: Vec<StringBuilder> = TEXTS.iter().map(|_| StringBuilder::with_capacity(rows, rows * 14)).collect();
    let mut at = TimestampMicrosecondBuilder::with_capacity(rows);
    let (mut torque, mut angle) = (Float64Builder::with_capacity(rows), Float64Builder::with_capacity(rows));
    for row in first..first + rows {
        let dice = mix(row as u64);
        at.append_value(1_767_225_600_000_000 + row as i64 * 350_000);
        torque.append_value((dice % 100_000) as f64 / 1000.0);
        angle.append_value((dice >> 20 & 0xFFFF) as f64 / 100.0);
        let _ = write!(texts[0], "NB-{dice:016X}");
        let _ = write!(texts[1], "PO{:08}", row / 40);
        let _ = write!(texts[2], "ST-{:02}", dice % 24);
        let _ = write!(texts[3], "Line {}", dice % 7);
        let _ = write!(texts[4], "op{:04}", dice >> 8 & 0x3FF);
        let _ = write!(texts[5], "{:05}-{:04}", dice >> 12 & 0xFFF, dice >> 24 & 0xFFF);
        let _ = write!(texts[6], "B{:06}", row / 500);
        texts[7].write_str(if dice.is_multiple_of(50) { "FAILED" } else { "PASSED" }).unwrap();
        if dice.is_multiple_of(10) {
            let _ = write!(texts[8], "retry, see \"log\" {}", dice % 1000);
        }
        texts.iter_mut().for_each(|text| text.append_value(""));
    }
    let mut columns: Vec<ArrayRef> = texts.iter_mut().map(|text| Arc::new(text.finish()) as _).collect();
    columns.insert(1, Arc::new(at.finish()));
    columns.push(Arc::new(torque.finish()));
    columns.push(Arc::new(angle.finish()));
    RecordBatch::try_new(Arc::clone(schema), columns).unwrap()
}

fn write_csv(path: &Path, rows: usize) {
    let schema = schema();
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
    let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    writeln!(out, "{}", names.join(",")).unwrap();
    for first in (0..rows).step_by(BATCH) {
        let rows = batch(&schema, first, BATCH.min(rows - first));
        for row in 0..rows.num_rows() {
            for (at, column) in rows.columns().iter().enumerate() {
                if at > 0 {
                    out.write_all(b",").unwrap();
                }
                if let Some(text) = column.as_string_opt::<i32>() {
                    let text = text.value(row);
                    if text.contains(['"', ',']) {
                        write!(out, "\"{}\"", text.replace('"', "\"\"")).unwrap();
                    } else {
                        out.write_all(text.as_bytes()).unwrap();
                    }
                } else if let Some(number) = column.as_any().downcast_ref::<Float64Array>() {
                    write!(out, "{}", number.value(row)).unwrap();
                } else if let Some(time) = column.as_any().downcast_ref::<TimestampMicrosecondArray>() {
                    write!(out, "{}", time.value_as_datetime(row).unwrap()).unwrap();
                }
            }
            out.write_all(b"\r\n").unwrap();
        }
    }
    out.flush().unwrap();
}

async fn load(path: &Path, options: serde_json::Value, rows: usize) -> (Duration, u64, u64) {
    let mut options = options;
    options["path"] = path.to_str().unwrap().into();
    options["table"] = "production".into();
    let mut sink = SqliteSink::new(&"bench".into(), serde_json::from_value(options).unwrap()).unwrap();
    let (to, mut from) = tokio::sync::mpsc::channel(4);
    let maker = std::thread::spawn(move || {
        let schema = schema();
        for first in (0..rows).step_by(BATCH) {
            to.blocking_send(batch(&schema, first, BATCH.min(rows - first))).unwrap();
        }
    });
    let begun = Instant::now();
    let ctx = Context::bare("bench");
    let run = Run {
        id: jiff::Timestamp::now().to_string().into(),
        started: jiff::Timestamp::now(),
        parameters: Default::default(),
        fingerprint: Default::default(),
    };
    sink.open(&ctx, &run).await.unwrap();
    sink.schema(&schema()).await.unwrap();
    let (mut seq, mut written, mut known) = (0, 0, 0);
    while let Some(rows) = from.recv().await {
        let wrote = sink.write(seq, rows).await.unwrap();
        assert!(wrote.rejected.is_empty(), "{:?}", wrote.rejected[0]);
        (written, known, seq) = (written + wrote.written, known + wrote.known, seq + 1);
    }
    let wrote_in = begun.elapsed();
    let wrote = sink.flush().await.unwrap();
    let flushed_in = begun.elapsed();
    (written, known) = (written + wrote.written, known + wrote.known);
    sink.commit(&Checkpoint { run, epoch: 1, last: true, keyed_by: None, at: Default::default() }).await.unwrap();
    let committed_in = begun.elapsed();
    sink.close().await.unwrap();
    maker.join().unwrap();
    println!(
        "  write {wrote_in:.2?}, flush at {flushed_in:.2?}, commit at {committed_in:.2?}, close at {:.2?}",
        begun.elapsed()
    );
    (begun.elapsed(), written, known)
}

fn import(csv: &Path, db: &Path) -> Duration {
    let begun = Instant::now();
    let script = format!(".mode csv\n.import {} production\n", csv.display());
    let mut shell = Command::new("sqlite3").arg(db).stdin(std::process::Stdio::piped()).spawn().unwrap();
    shell.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(shell.wait().unwrap().success());
    begun.elapsed()
}

fn remove(path: &Path) {
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{end}", path.display()));
    }
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0)
}

fn one(mode: &str, rows: usize, dir: &Path) -> Duration {
    let db = dir.join("bench.db");
    let csv = dir.join(format!("bench-{rows}.csv"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let hashed = || serde_json::json!({"write": "insert_new", "key": "row_hash"});
    let options = match mode {
        "import" => {
            remove(&db);
            return import(&csv, &db);
        }
        "replace" => serde_json::json!({"write": "replace"}),
        "append" => serde_json::json!({"write": "append"}),
        "insert_new" | "known" => hashed(),
        "upsert" => serde_json::json!({"write": "upsert", "key": ["serial"]}),
        other => panic!("no mode {other}"),
    };
    if mode != "known" {
        remove(&db);
    }
    let (took, written, known) = runtime.block_on(load(&db, options, rows));
    println!("  {written} written, {known} known, peak {} MiB", peak_kib() / 1024);
    assert_eq!(written + known, rows as u64);
    took
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let dir = std::env::temp_dir().join("towpath-load-bench");
    std::fs::create_dir_all(&dir).unwrap();
    if let [flag, rows, mode] = &args[..]
        && flag == "--one"
    {
        let took = one(mode, rows.parse().unwrap(), &dir);
        println!("seconds {}", took.as_secs_f64());
        return;
    }
    let rows: usize = args.first().map_or(1_000_000, |rows| rows.parse().unwrap());
    let modes: Vec<&str> = if args.len() > 1 { args[1..].iter().map(String::as_str).collect() } else { MODES.to_vec() };
    let csv = dir.join(format!("bench-{rows}.csv"));
    if !csv.exists() {
        write_csv(&csv, rows);
    }
    println!("{rows} rows, {} MB as CSV", std::fs::metadata(&csv).unwrap().len() / 1_000_000);
    let mut base = None;
    for mode in modes {
        let out =
            Command::new(std::env::current_exe().unwrap()).args(["--one", &rows.to_string(), mode]).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
        let seconds: f64 = text.lines().last().and_then(|line| line.strip_prefix("seconds ")).unwrap().parse().unwrap();
        let base = *base.get_or_insert(seconds);
        println!("{mode:10} {seconds:6.2} s   {:.2} of the first", seconds / base);
        text.lines().filter(|line| line.starts_with(' ')).for_each(|line| println!("{line}"));
    }
}
