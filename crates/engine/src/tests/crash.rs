//! The commit protocol through crashes: thousands of random schedules over the real engine. A crash is the run's future dropped
//! at a random moment, a call that fails, a reply that is lost, a commit of a dead process that lands later.

use std::{collections::BTreeMap, time::Duration};

use towpath_core::{ErrorKind, WriteMode};
use towpath_testkit::{
    memory::{Fault, Key, MemoryOrigin, MemoryTarget, Point},
    rows,
};

use super::{World, ids, without_multiples};
use crate::{Graph, RunOptions, Status, rules::Rules};

/// Refused by the source, before the fan-out: shared.
const SHARED: i64 = 7;
/// Lives of the process after which nothing fails any more.
const LIVES: u64 = 12;

struct Schedule {
    rng: fastrand::Rng,
    world: World,
    origin: MemoryOrigin,
    targets: Vec<MemoryTarget>,
    modes: Vec<WriteMode>,
    graph: Graph,
    /// Ids in the order of the source.
    given: Vec<i64>,
    filtered: Option<i64>,
}

/// Refused by one sink: at once by its `write`, or only by its `flush`.
fn own_reject(sink: usize, late: bool) -> i64 {
    10 + 2 * sink as i64 + i64::from(late) * 30
}

impl Schedule {
    fn new(seed: u64, rules: Rules, fenced: bool) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let world = World::with(rules);
        let origin = MemoryOrigin::new();
        let mut given = Vec::new();
        for partition in 0..rng.i64(1..=2) {
            let mut pieces = Vec::new();
            let mut id = partition * 100;
            for _ in 0..rng.usize(4..=14) {
                let mut ids = Vec::new();
                for _ in 0..rng.usize(1..=5) {
                    id += 1;
                    ids.push(id);
                }
                let refused = ids.iter().enumerate().filter(|(_, id)| *id % SHARED == 0);
                let rejects = refused.map(|(row, _)| towpath_core::Reject::row(row, "a multiple of seven")).collect();
                given.extend(&ids);
                pieces.push((rows::numbered(ids), rejects));
            }
            origin.set_with_rejects(&format!("p{partition}"), pieces, rng.usize(1..=3));
        }
        origin.pauses(rng.u32(0..=2));
        let targets: Vec<MemoryTarget> = (0..rng.usize(2..=3)).map(|_| MemoryTarget::new()).collect();
        let mut modes = vec![WriteMode::Append];
        let mut pipeline = {
            let origin = origin.clone();
            world.pipeline().source("s", move || Ok(origin.source()))
        };
        let filtered = rng.bool().then_some(5);
        let mut input = "s";
        if let Some(by) = filtered {
            pipeline = pipeline.map("t", &["s"], without_multiples(by));
            if rng.bool() {
                pipeline = pipeline.workers(towpath_core::pipeline::Workers::Fixed(3));
            }
            input = "t";
        }
        for (index, target) in targets.iter().enumerate() {
            if index > 0 {
                modes.push(if rng.u8(0..4) == 0 { WriteMode::InsertNew } else { WriteMode::Append });
            }
            if !fenced {
                target.without_fence();
            }
            target.refuse_in_write("id", &own_reject(index, false).to_string());
            target.refuse_in_flush("id", &own_reject(index, true).to_string());
            let (target, mode) = (target.clone(), modes[index]);
            let key = if mode == WriteMode::InsertNew { Key::columns(["id"]) } else { Key::None };
            pipeline = pipeline.sink(&format!("k{index}"), &[input], move || Ok(target.sink(mode, key.clone())));
        }
        if rng.u8(0..4) == 0 {
            pipeline = pipeline.after(&["k0"]);
        }
        let rows = rng.u64(1..=12);
        let restarts = rng.u32(0..=3);
        let graph = pipeline
            .run(|run| {
                run.commit.rows = rows;
                run.restarts = restarts;
            })
            .build()
            .unwrap();
        Self { rng, world, origin, targets, modes, graph, given, filtered }
    }

    /// One life of the process. Whether the run came to its end.
    async fn live(&mut self, peaceful: bool) -> bool {
        if !peaceful {
            self.set_faults();
        }
        let landing = {
            let (targets, mut rng) = (self.targets.clone(), self.rng.fork());
            async move {
                for target in targets {
                    for _ in 0..rng.u32(0..200) {
                        tokio::task::yield_now().await;
                    }
                    target.land();
                }
                std::future::pending::<()>().await;
            }
        };
        let killed = {
            let polls = if peaceful || self.rng.bool() { u32::MAX } else { self.rng.u32(0..400) };
            async move {
                for _ in 0..polls {
                    tokio::task::yield_now().await;
                    if polls == u32::MAX {
                        std::future::pending::<()>().await;
                    }
                }
            }
        };
        let report = tokio::select! {
            biased;
            () = killed => None,
            () = landing => None,
            report = self.world.engine.run_graph(&self.graph, RunOptions::default()) => Some(report),
        };
        // What the tasks of a dropped run still do in this round is what a dying process still does.
        for _ in 0..self.rng.u32(0..8) {
            tokio::task::yield_now().await;
        }
        report.is_some_and(|report| report.status == Status::Completed)
    }

    fn set_faults(&mut self) {
        for target in &self.targets {
            target.faults().clear();
            let rng = &mut self.rng;
            let fault = match rng.u8(0..10) {
                0 => (Point::Commit, Fault::LoseReply),
                1 | 2 => (Point::Commit, Fault::Late),
                3 => (Point::Commit, Fault::Fail(ErrorKind::Unavailable)),
                4 => (Point::Flush, Fault::Fail(ErrorKind::Unavailable)),
                5 => (Point::Write, Fault::Fail(ErrorKind::Timeout)),
                6 => (Point::Open, Fault::Fail(ErrorKind::Unavailable)),
                7 => (Point::Commit, Fault::Hang),
                _ => continue,
            };
            target.faults().add(fault.0, rng.u64(0..4), fault.1);
        }
        self.origin.faults().clear();
        if self.rng.u8(0..5) == 0 {
            self.origin.faults().add(Point::Next, self.rng.u64(0..12), Fault::Fail(ErrorKind::Unavailable));
        }
    }

    /// What is wrong in the end, if anything.
    fn verdict(&self) -> Option<String> {
        let mut expected_letters = Vec::new();
        let source_refused: Vec<i64> = self.given.iter().copied().filter(|id| id % SHARED == 0).collect();
        expected_letters.extend(source_refused.iter().map(|id| ("s".to_owned(), *id)));
        for (index, target) in self.targets.iter().enumerate() {
            let reaches = |id: &i64| id % SHARED != 0 && self.filtered.is_none_or(|by| id % by != 0);
            let refused = |id: &i64| *id == own_reject(index, false) || *id == own_reject(index, true);
            let reached = self.given.iter().copied().filter(reaches);
            let (bad, good): (Vec<i64>, Vec<i64>) = reached.partition(refused);
            expected_letters.extend(bad.iter().map(|id| (format!("k{index}"), *id)));
            let found = ids(target);
            if found != good {
                let mut sorted = found.clone();
                sorted.sort_unstable();
                let what = if sorted.iter().eq(good.iter()) { "order" } else { "rows" };
                return Some(format!("{what} of k{index} ({:?}): {found:?} instead of {good:?}", self.modes[index]));
            }
        }
        expected_letters.sort();
        let found = self.world.dead_letters();
        (found != expected_letters).then(|| format!("letters: {found:?} instead of {expected_letters:?}"))
    }
}

/// Runs one schedule. `None`: exact.
fn run(seed: u64, rules: Rules, fenced: bool) -> Option<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut schedule = Schedule::new(seed, rules, fenced);
        for life in 0..LIVES + 4 {
            let peaceful = life >= LIVES;
            if peaceful {
                schedule.targets.iter().for_each(|target| target.faults().clear());
                schedule.origin.faults().clear();
            }
            let living = schedule.live(peaceful);
            match tokio::time::timeout(Duration::from_secs(24 * 3600), living).await {
                Ok(true) => return schedule.verdict(),
                Ok(false) => {}
                Err(_) if peaceful => return Some("it hangs".to_owned()),
                Err(_) => {}
            }
        }
        Some("it does not come to an end".to_owned())
    })
}

fn rules() -> Rules {
    let mut rules = Rules::default();
    rules.letters.fsync = false;
    rules
}

/// What goes wrong over many schedules, with an example of each kind.
fn wrong(seeds: std::ops::Range<u64>, rules: Rules, fenced: bool) -> BTreeMap<String, (u64, String)> {
    let mut wrong = BTreeMap::new();
    for seed in seeds {
        if let Some(what) = run(seed, rules, fenced) {
            let kind = what.split_whitespace().next().unwrap_or_default().to_owned();
            wrong.entry(kind).or_insert_with(|| (0, format!("seed {seed}: {what}"))).0 += 1;
        }
    }
    wrong
}

#[test]
fn nothing_is_lost_and_nothing_doubled_through_crashes() {
    let schedules = std::env::var("TOWPATH_CRASHES").ok().and_then(|n| n.parse().ok()).unwrap_or(2000);
    let wrong = wrong(0..schedules, rules(), true);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_rule_is_needed() {
    let wrong_with = |rules, fenced| wrong(0..200, rules, fenced);
    assert!(!wrong_with(rules(), false).is_empty(), "without the fence");
    let mut untagged = rules();
    untagged.letters.tagged = false;
    assert!(wrong_with(untagged, true).contains_key("letters:"), "without tagged dead letters");
    let own_boundary = Rules { shared_boundary: false, ..rules() };
    assert!(wrong_with(own_boundary, true).contains_key("rows"), "without a shared boundary");
}
