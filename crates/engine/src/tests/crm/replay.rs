//! Dead letters that are sent again.

use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{ReplayReport, replay::ReplayFilter};

impl Scene {
    async fn replay(&self, graph: &Graph) -> ReplayReport {
        self.replay_of(graph, ReplayFilter::default()).await
    }
    async fn replay_of(&self, graph: &Graph, filter: ReplayFilter) -> ReplayReport {
        self.world.engine.replay_graph(graph, &filter, RunOptions::default()).await.unwrap()
    }
    async fn completed(&self, graph: &Graph) {
        let report = self.run(graph).await;
        assert_eq!(report.status, Status::Completed, "{:?}", report.error);
    }
    fn upsert_only(&self, keys_known: bool) -> Graph {
        let (origin, crm) = (self.origin.clone(), self.crm.clone());
        self.world
            .pipeline()
            .source("customers", move || Ok(origin.source()))
            .sink("persons", &["customers"], move || Ok(CrmSink { keys_known, ..crm.sink("persons", None) }))
            .run(|run| run.restarts = 0)
            .build()
            .unwrap()
    }
}

fn counts(report: &ReplayReport) -> (u64, u64, u64, u64) {
    let sum = |of: fn(&crate::replay::SinkReplay) -> u64| report.sinks.values().map(of).sum();
    (sum(|sink| sink.sent), sum(|sink| sink.refused), sum(|sink| sink.superseded), sum(|sink| sink.unreadable))
}

#[tokio::test]
async fn what_a_sink_refused_is_sent_again_once() {
    let scene = Scene::new(FILE);
    scene.crm.refuse(&[3, 4, 5]);
    let graph = scene.graph();
    scene.completed(&graph).await;
    assert_eq!(scene.world.dead_letters().len(), 3);
    scene.crm.log();
    // One of them is still not wanted: it is a dead letter again.
    scene.crm.refuse(&[4]);
    assert_eq!(counts(&scene.replay(&graph).await), (3, 1, 0, 0));
    assert_eq!(scene.crm.writes(), ["create persons 3", "create persons 5"]);
    assert!(scene.crm.0.lock().unwrap().completes.last().is_some_and(|complete| !complete.whole), "nothing is deleted");
    scene.crm.refuse(&[]);
    let other = ReplayFilter { reason: Some("something else".to_owned()), ..ReplayFilter::default() };
    assert_eq!(counts(&scene.replay_of(&graph, other).await), (0, 0, 0, 0));
    let right = ReplayFilter { reason: Some("400: the key 4".to_owned()), component: Some("persons".to_owned()) };
    assert_eq!(counts(&scene.replay_of(&graph, right).await), (1, 0, 0, 0));
    assert_eq!(scene.crm.writes(), ["create persons 4"]);
    assert_eq!(counts(&scene.replay(&graph).await), (0, 0, 0, 0));
    assert_eq!(scene.crm.holds("persons").len(), 6);
    let wrong = ReplayFilter { component: Some("customers".to_owned()), ..ReplayFilter::default() };
    let error = scene.world.engine.replay_graph(&graph, &wrong, RunOptions::default()).await.unwrap_err();
    insta::assert_snapshot!(error, @"there is no sink 'customers' in pipeline 'test'");
}

#[tokio::test]
async fn what_newer_data_has_come_of_is_left_out() {
    for (keys_known, expected) in [(true, (1, 0, 1, 0)), (false, (0, 0, 2, 0))] {
        let scene = Scene::new(FILE);
        scene.crm.refuse(&[2, 3]);
        let graph = scene.upsert_only(keys_known);
        scene.completed(&graph).await;
        scene.crm.refuse(&[]);
        // A newer row of key 2; nothing of 3.
        scene.origin.set("more.csv", vec![rows::named(&[(2, Some("Bobby")), (7, None)])], 1);
        scene.completed(&graph).await;
        assert_eq!(counts(&scene.replay(&graph).await), expected, "keys known: {keys_known}");
        let held = scene.crm.holds("persons");
        assert!(held.contains(&(2, Some("Bobby".to_owned()))), "{held:?}");
    }
    // A run that gives every row supersedes all there was before.
    let scene = Scene::new(FILE);
    scene.crm.refuse(&[2, 3]);
    let graph = scene.upsert_only(true);
    scene.completed(&graph).await;
    scene.crm.refuse(&[]);
    scene.file(&FILE[..2]);
    let full = scene.world.engine.run_graph(&graph, RunOptions { full: true, ..RunOptions::default() }).await;
    assert_eq!(full.status, Status::Completed, "{:?}", full.error);
    assert_eq!(counts(&scene.replay(&graph).await), (0, 0, 2, 0));
    assert_eq!(scene.crm.holds("persons").len(), 5, "the file has 3 no more");
}

#[tokio::test]
async fn a_replay_that_was_killed_is_taken_up() {
    let rows: Vec<(i64, Option<&str>)> = (1..=8).map(|id| (id, Some("x"))).collect();
    let scene = Scene::new(&rows);
    scene.crm.refuse(&[1, 2, 3, 4, 5, 6, 7, 8]);
    let graph = scene.upsert_only(true);
    scene.completed(&graph).await;
    scene.crm.refuse(&[]);
    scene.crm.hang_after(3);
    let abort = CancellationToken::new();
    let (filter, options) = (ReplayFilter::default(), RunOptions { abort: abort.clone(), ..RunOptions::default() });
    let watching = async {
        while scene.crm.0.lock().unwrap().hang_after.is_some() {
            tokio::task::yield_now().await;
        }
        abort.cancel();
    };
    let (report, ()) = tokio::join!(scene.world.engine.replay_graph(&graph, &filter, options), watching);
    let report = report.unwrap();
    assert_eq!(report.exit_code(), 130, "{report:?}");
    assert_eq!(counts(&report).0, 0);
    // Newer data comes before it is taken up.
    scene.origin.set("more.csv", vec![rows::named(&[(8, Some("newer"))])], 1);
    scene.completed(&graph).await;
    let report = scene.replay(&graph).await;
    assert_eq!(counts(&report), (7, 0, 1, 0));
    assert!(report.sinks["persons"].taken_up);
    let writes = scene.crm.writes();
    assert_eq!(writes.len(), 8, "each once: {writes:?}");
    assert!(scene.crm.holds("persons").contains(&(8, Some("newer".to_owned()))));
    assert_eq!(counts(&scene.replay(&graph).await), (0, 0, 1, 0));
}

#[tokio::test]
async fn a_sink_that_keeps_its_checkpoint_gets_each_row_exactly_once() {
    use towpath_testkit::memory::{Fault, Point};
    for fault in [Fault::LoseReply, Fault::Fail(ErrorKind::Unavailable), Fault::Late] {
        let scene = Scene::new(&FILE[..4]);
        let target = MemoryTarget::new();
        let (sink, origin) = (target.clone(), scene.origin.clone());
        let appends = scene
            .world
            .pipeline()
            .source("customers", move || Ok(origin.source()))
            .sink("copy", &["customers"], move || Ok(sink.sink(WriteMode::Append, Key::None)))
            .run(|run| run.restarts = 0);
        let graph = appends.build().unwrap();
        target.refuse_in_write("name", "Bob");
        scene.completed(&graph).await;
        assert_eq!((super::super::ids(&target), scene.world.dead_letters().len()), (vec![1, 3, 4], 1));
        target.refuse_in_write("name", "nobody");
        target.faults().add(Point::Commit, 0, fault);
        let broken = scene.replay(&graph).await;
        assert_eq!(broken.exit_code(), 1, "{fault:?}");
        let report = scene.replay(&graph).await;
        assert_eq!(counts(&report).0, 1, "{fault:?}: {report:?}");
        target.land();
        assert_eq!(super::super::ids(&target), [1, 3, 4, 2], "{fault:?}");
        assert_eq!(counts(&scene.replay(&graph).await), (0, 0, 0, 0));
    }
}

#[tokio::test]
async fn rows_come_back_as_they_were() {
    use arrow_array::{ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, TimestampMicrosecondArray};
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from(vec![i64::MAX, -1]))),
        ("name", Arc::new(StringArray::from(vec![Some("quote \" and \u{1F980}\nline"), None]))),
        (
            "total",
            Arc::new(
                Decimal128Array::from(vec![Some(12_345_678_901_234_567_890_123_456_i128), Some(-1)])
                    .with_precision_and_scale(38, 2)
                    .unwrap(),
            ),
        ),
        ("ratio", Arc::new(Float64Array::from(vec![0.1 + 0.2, 1e-300]))),
        ("day", Arc::new(Date32Array::from(vec![20_000, -1]))),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![1_769_835_600_250_001, -1]).with_timezone("UTC"))),
        ("berlin", Arc::new(TimestampMicrosecondArray::from(vec![1, -1]).with_timezone("Europe/Berlin"))),
        ("local", Arc::new(TimestampMicrosecondArray::from(vec![1_769_835_600_250_001, -1]))),
        ("yes", Arc::new(BooleanArray::from(vec![Some(true), None]))),
    ];
    let batch =
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap();
    for row in 0..2 {
        let text = crate::dead_letters::Row::of(&batch, row);
        let mut entry = crate::dead_letters::Entry {
            epoch: 1,
            as_of: None,
            domain: crate::dead_letters::Domain::Shared,
            run: "r".into(),
            component: "k".into(),
            source: None,
            partition: None,
            position: crate::dead_letters::Where::Piece { piece: None, row: None },
            kind: ErrorKind::Data,
            reason: String::new(),
            column: None,
            row: text,
        };
        let line = serde_json::to_string(&entry).unwrap();
        entry = serde_json::from_str(&line).unwrap();
        let back = crate::replay::row(&batch.schema(), &entry).unwrap_or_else(|| panic!("{line}"));
        assert_eq!(back, batch.slice(row, 1), "{line}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// A new file with rows of these keys is read, while these are refused.
    Run(BTreeSet<i64>, BTreeSet<i64>),
    /// Dead letters are sent again, while these are refused; killed behind so many writes.
    Replay(BTreeSet<i64>, Option<u32>),
}

fn step() -> impl Strategy<Value = Step> {
    let keys = || prop::collection::btree_set(0i64..6, 0..5);
    prop_oneof![
        3 => (keys(), keys()).prop_map(|(rows, refused)| Step::Run(rows, refused)),
        2 => (keys(), prop::option::weighted(0.4, 0u32..4)).prop_map(|(refused, kill)| Step::Replay(refused, kill)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..Default::default() })]

    /// Whatever comes in which order: no dead letter takes the place of newer data, and none is lost. The newest row of every key is in
    /// the end what the target holds, where the sink says its keys.
    #[test]
    fn the_newest_row_of_every_key_wins(steps in prop::collection::vec(step(), 1..12), keys_known in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let scene = Scene::new(&[]);
            scene.origin.set("customers.csv", vec![], 1);
            let graph = scene.upsert_only(keys_known);
            let (mut newest, mut accepted) = (BTreeMap::new(), BTreeMap::new());
            for (nth, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Run(keys, refused) => {
                        let name = format!("v{nth}");
                        let rows: Vec<_> = keys.iter().map(|key| (*key, Some(&*name))).collect();
                        scene.origin.set(&format!("file {nth}"), vec![rows::named(&rows)], 1);
                        scene.crm.refuse(&refused.iter().copied().collect::<Vec<_>>());
                        scene.completed(&graph).await;
                        for key in keys {
                            newest.insert(key, nth);
                            if !refused.contains(&key) {
                                accepted.insert(key, nth);
                            }
                        }
                    }
                    Step::Replay(refused, kill) => {
                        scene.crm.refuse(&refused.iter().copied().collect::<Vec<_>>());
                        scene.crm.0.lock().unwrap().hang_after = kill;
                        let abort = CancellationToken::new();
                        let options = RunOptions { abort: abort.clone(), ..RunOptions::default() };
                        let filter = ReplayFilter::default();
                        let mut replaying = std::pin::pin!(scene.world.engine.replay_graph(&graph, &filter, options));
                        let armed = kill.is_some();
                        loop {
                            tokio::select! {
                                biased;
                                report = &mut replaying => {
                                    report.unwrap();
                                    break;
                                }
                                () = tokio::task::yield_now() => {}
                            }
                            if armed && scene.crm.0.lock().unwrap().hang_after.is_none() {
                                abort.cancel();
                            }
                        }
                        scene.crm.0.lock().unwrap().hang_after = None;
                    }
                }
                // At any time: nothing older than what was accepted.
                for (key, name) in scene.crm.holds("persons") {
                    let version: usize = name.unwrap()[1..].parse().unwrap();
                    assert!(accepted.get(&key).is_none_or(|accepted| version >= *accepted), "key {key} went back to {version}");
                }
            }
            scene.crm.refuse(&[]);
            // Once for what was begun, once for the rest.
            scene.replay(&graph).await;
            let held: BTreeMap<i64, usize> = scene
                .crm
                .holds("persons")
                .into_iter()
                .map(|(key, name)| (key, name.unwrap()[1..].parse().unwrap()))
                .collect();
            if keys_known {
                assert_eq!(held, newest);
            }
            scene.crm.log();
            scene.replay(&graph).await;
            assert!(scene.crm.writes().is_empty(), "a second replay sends nothing");
        });
    }
}
