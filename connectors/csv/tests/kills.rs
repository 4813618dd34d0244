//! SIGKILL at random moments: what the file holds in the end is exact.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure in a test is its message")]

mod common;

use std::{
    path::Path,
    process::{Command, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use common::{context, run, try_sink};
use towpath_core::{Checkpoint, Held};

const EPOCHS: u64 = 150;
const ROWS: u64 = 40;
const KILLS: u32 = 25;

/// The config of the sink that a child process is to write to.
const CHILD: &str = "TOWPATH_TEST_CSV_SINK";

/// Goes on from where the target stands to the last epoch. Does nothing unless the test below has started it.
#[tokio::test]
async fn child() {
    let Ok(yaml) = std::env::var(CHILD) else { return };
    let mut sink = try_sink(&yaml).unwrap();
    let Held::Here(held) = sink.open(&context(), &run("r1")).await.unwrap() else { panic!("the file holds it") };
    let stands = held.map_or(0, |held| held.epoch);
    for epoch in stands + 1..=EPOCHS {
        for part in 0..2 {
            let ids = (0..ROWS / 2).map(|row| Some(((epoch - 1) * ROWS + part * ROWS / 2 + row).to_string()));
            let ids: ArrayRef = Arc::new(ids.collect::<StringArray>());
            let rows = RecordBatch::try_from_iter([("id", ids)]).unwrap();
            sink.schema(&rows.schema()).await.unwrap();
            sink.write(part, rows).await.unwrap();
        }
        sink.flush().await.unwrap();
        let last = epoch == EPOCHS;
        sink.commit(&Checkpoint { run: run("r1"), epoch, last, keyed_by: None, at: Default::default() }).await.unwrap();
    }
    sink.close().await.unwrap();
}

fn start(yaml: &str, kill_after: Option<Duration>) -> ExitStatus {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--test-threads=1"]).env(CHILD, yaml).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    if let Some(after) = kill_after {
        std::thread::sleep(after);
        child.kill().unwrap();
    }
    child.wait().unwrap()
}

fn ids(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn processes_that_are_killed_lose_and_double_nothing() {
    for write in ["append", "replace"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.csv");
        let yaml = format!("{{ path: '{}', write: {write} }}", path.display());
        let mut seed = 0x9E37_79B9_u64;
        for kill in 0..KILLS {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // From before the file is open to some epochs further.
            start(&yaml, Some(Duration::from_micros(3_000 + (seed >> 33) % 60_000)));
            let found = ids(&path).len() as u64;
            let replaced = write == "append" || found == 0 || found == 1 + EPOCHS * ROWS;
            assert!(replaced && found <= 1 + EPOCHS * ROWS, "{write} after kill {kill}: {found} lines");
        }
        assert!(start(&yaml, None).success(), "{write}");
        let expect: Vec<String> =
            std::iter::once("id".to_owned()).chain((0..EPOCHS * ROWS).map(|id| id.to_string())).collect();
        assert_eq!(ids(&path), expect, "{write}");
    }
}
