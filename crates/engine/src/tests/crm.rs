//! A target that others change as well: differences, plans that are kept, budgets, `after`, the end of the input, verification, and
//! dead letters sent again. Over a CRM in memory that counts its calls.

mod replay;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use arrow_array::{Array as _, Int64Array, RecordBatch, StringArray};
use async_trait::async_trait;
use serde_json::json;
use towpath_core::{
    Action, Budget, Burst, Call, Change, Checkpoint, Complete, Context, Day, Effect, Error, ErrorKind, FieldChange,
    Held, Known, Period, Price, Reject, Resets, Result, Run, Share, Sink, SinkPlan, Verdict, WriteMode, Wrote,
    sink::Guarantee,
};
use towpath_testkit::{
    memory::{Key, MemoryOrigin, MemoryTarget},
    rows,
};

use super::World;
use crate::{Bound, DiffReport, Graph, Pipeline, RunOptions, RunReport, Status};

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) id: u64,
    pub(super) key: i64,
    pub(super) name: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    records: BTreeMap<&'static str, Vec<Record>>,
    next: u64,
    /// Everything that came in: `list persons`, `create persons 7`.
    log: Vec<String>,
    /// Keys that are refused, for as long as they are in here.
    refuses: BTreeSet<i64>,
    /// Such a write kills the process: the future hangs.
    hang_after: Option<u32>,
    completes: Vec<Complete>,
    commits: u32,
}

/// A CRM. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Crm(Arc<Mutex<State>>);

impl Crm {
    pub(super) fn with(&self, entity: &'static str, records: &[(i64, Option<&str>)]) {
        let mut state = self.0.lock().unwrap();
        for (key, name) in records {
            state.next += 1;
            let id = state.next;
            let record = Record { id, key: *key, name: name.map(str::to_owned) };
            state.records.entry(entity).or_default().push(record);
        }
    }
    /// Key and name, by key.
    pub(super) fn holds(&self, entity: &'static str) -> Vec<(i64, Option<String>)> {
        let state = self.0.lock().unwrap();
        let mut held: Vec<_> =
            state.records.get(entity).into_iter().flatten().map(|record| (record.key, record.name.clone())).collect();
        held.sort();
        held
    }
    /// What came in since the last question.
    pub(super) fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().log)
    }
    /// What came in since the last question and changed something.
    pub(super) fn writes(&self) -> Vec<String> {
        self.log().into_iter().filter(|line| !line.starts_with("list")).collect()
    }
    pub(super) fn refuse(&self, keys: &[i64]) {
        self.0.lock().unwrap().refuses = keys.iter().copied().collect();
    }
    pub(super) fn hang_after(&self, writes: u32) {
        self.0.lock().unwrap().hang_after = Some(writes);
    }
    pub(super) fn sink(&self, entity: &'static str, budget: Option<Arc<Budget>>) -> CrmSink {
        CrmSink { crm: self.clone(), entity, budget, deletes: false, keys_known: true, open: None }
    }
}

/// A sink into it, that does what a sink for a real one would.
pub(super) struct CrmSink {
    crm: Crm,
    entity: &'static str,
    budget: Option<Arc<Budget>>,
    /// Records that no row stands for are deleted.
    deletes: bool,
    /// It says its key columns.
    keys_known: bool,
    open: Option<Open>,
}

struct Open {
    ctx: Context,
    listed: Option<BTreeMap<i64, Vec<Record>>>,
    seen: BTreeSet<i64>,
}

impl CrmSink {
    fn call(&self, what: String, effect: Effect, tokens: u32) -> Call {
        let call = Call::new(what, "https://crm.example:443", effect);
        match &self.budget {
            Some(budget) => call.price(Price { budget: Arc::clone(budget), tokens }),
            None => call,
        }
    }

    async fn list(&mut self) -> Result<()> {
        let (call, crm, entity) =
            (self.call(format!("list {}", self.entity), Effect::Read, 10), self.crm.clone(), self.entity);
        let Some(open) = &mut self.open else { return Err(Error::internal("not open")) };
        if open.listed.is_some() {
            return Ok(());
        }
        let records = open
            .ctx
            .call(&call, || async {
                let mut state = crm.0.lock().unwrap();
                state.log.push(format!("list {entity}"));
                Ok(state.records.get(entity).cloned().unwrap_or_default())
            })
            .await?;
        let mut listed: BTreeMap<i64, Vec<Record>> = BTreeMap::new();
        for record in records {
            listed.entry(record.key).or_default().push(record);
        }
        open.listed = Some(listed);
        Ok(())
    }

    /// Says it, and sends it if it is to be sent.
    async fn send(&mut self, change: Change, name: Option<String>, key: i64) -> Result<()> {
        let effect = if change.action == Action::Create { Effect::Once } else { Effect::Idempotent };
        let what = format!("{} {} {key}", verb(change.action), self.entity);
        let (call, crm, entity) = (self.call(what.clone(), effect, change.tokens), self.crm.clone(), self.entity);
        let Some(open) = &mut self.open else { return Err(Error::internal("not open")) };
        if open.ctx.propose(&change)? == Verdict::Withheld || change.action == Action::Duplicate {
            return Ok(());
        }
        open.ctx
            .call(&call, || {
                let (crm, what, name, action) = (crm.clone(), what.clone(), name.clone(), change.action);
                async move {
                    let hangs = {
                        let mut state = crm.0.lock().unwrap();
                        let hangs = state.hang_after == Some(0);
                        state.hang_after = state.hang_after.filter(|left| *left > 0).map(|left| left - 1);
                        hangs
                    };
                    {
                        let mut state = crm.0.lock().unwrap();
                        if state.refuses.contains(&key) {
                            return Err(Error::data(format!("400: the key {key} is not wanted")));
                        }
                        state.log.push(what);
                        state.next += 1;
                        let id = state.next;
                        let records = state.records.entry(entity).or_default();
                        match action {
                            Action::Create => records.push(Record { id, key, name }),
                            Action::Delete => records.retain(|record| record.key != key),
                            _ => records
                                .iter_mut()
                                .filter(|record| record.key == key)
                                .for_each(|record| record.name.clone_from(&name)),
                        }
                    }
                    if hangs {
                        // It landed; nobody hears of it.
                        std::future::pending::<()>().await;
                    }
                    Ok(())
                }
            })
            .await
    }
}

fn verb(action: Action) -> &'static str {
    match action {
        Action::Create => "create",
        Action::Update => "update",
        Action::Close => "close",
        Action::Delete => "delete",
        Action::Duplicate => "duplicate",
    }
}

#[async_trait]
impl Sink for CrmSink {
    async fn plan(&mut self, _: &Context, _: &Known) -> Result<SinkPlan> {
        Ok(SinkPlan {
            mode: WriteMode::Upsert,
            guarantee: Guarantee::AtLeastOnceKeyed,
            early_publish: true,
            identity: format!("crm {}", self.entity),
            notes: vec![],
        })
    }
    async fn open(&mut self, ctx: &Context, _: &Run) -> Result<Held> {
        self.open = Some(Open { ctx: ctx.clone(), listed: None, seen: BTreeSet::new() });
        Ok(Held::ByEngine)
    }
    async fn schema(&mut self, _: &arrow_schema::SchemaRef) -> Result<Option<String>> {
        Ok(Some("id".to_owned()))
    }
    fn key_columns(&self) -> Option<Vec<String>> {
        self.keys_known.then(|| vec!["id".to_owned()])
    }
    async fn write(&mut self, _: u64, rows: RecordBatch) -> Result<Wrote> {
        self.list().await?;
        let ids = rows.column(0).as_any().downcast_ref::<Int64Array>().unwrap().clone();
        let names = rows.column(1).as_any().downcast_ref::<StringArray>().unwrap().clone();
        let mut wrote = Wrote::default();
        for row in 0..rows.num_rows() {
            let (key, name) = (ids.value(row), (!names.is_null(row)).then(|| names.value(row).to_owned()));
            let Some(Open { listed: Some(listed), seen, ctx }) = &mut self.open else {
                return Err(Error::internal("not open"));
            };
            seen.insert(key);
            let there = listed.get(&key).cloned().unwrap_or_default();
            let field = |old: Option<&String>| FieldChange {
                field: "name".to_owned(),
                old: old.map(|old| json!(old)),
                new: name.as_ref().map(|name| json!(name)),
            };
            let change = |action, id: Option<u64>, fields| Change {
                action,
                entity: self.entity.to_owned(),
                key: key.to_string(),
                id: id.map(|id| id.to_string()),
                fields,
                calls: u32::from(action != Action::Duplicate),
                tokens: if action == Action::Duplicate { 0 } else { 5 },
                note: None,
            };
            let change = match &*there {
                [] => change(Action::Create, None, vec![field(None)]),
                [one] if one.name == name => {
                    ctx.equal(1);
                    wrote.known += 1;
                    continue;
                }
                [one] => change(Action::Update, Some(one.id), vec![field(one.name.as_ref())]),
                [first, ..] => change(Action::Duplicate, Some(first.id), vec![]),
            };
            match self.send(change, name, key).await {
                Ok(()) => wrote.written += 1,
                Err(error) if error.kind() == ErrorKind::Data => wrote.rejected.push(Reject::row(row, error.message())),
                Err(error) => return Err(error),
            }
        }
        Ok(wrote)
    }
    async fn complete(&mut self, input: Complete) -> Result<Wrote> {
        self.crm.0.lock().unwrap().completes.push(input);
        if !self.deletes || !input.whole || input.refused > 0 {
            return Ok(Wrote::default());
        }
        self.list().await?;
        let Some(Open { listed: Some(listed), seen, .. }) = &self.open else { return Err(Error::internal("not open")) };
        let gone: Vec<Record> =
            listed.values().flatten().filter(|record| !seen.contains(&record.key)).cloned().collect();
        let written = gone.len() as u64;
        for Record { id, key, name } in gone {
            let old = name.as_ref().map(|name| json!(name));
            let change = Change {
                action: Action::Delete,
                entity: self.entity.to_owned(),
                key: key.to_string(),
                id: Some(id.to_string()),
                fields: vec![FieldChange { field: "name".to_owned(), old, new: None }],
                calls: 1,
                tokens: 3,
                note: Some("no row stands for it".to_owned()),
            };
            self.send(change, None, key).await?;
        }
        Ok(Wrote { written, ..Wrote::default() })
    }
    async fn flush(&mut self) -> Result<Wrote> {
        Ok(Wrote::default())
    }
    async fn commit(&mut self, _: &Checkpoint) -> Result<()> {
        self.crm.0.lock().unwrap().commits += 1;
        Ok(())
    }
    async fn close(&mut self) -> Result<()> {
        self.open = None;
        Ok(())
    }
}

/// A file of rows, and a CRM.
pub(super) struct Scene {
    pub(super) world: World,
    pub(super) origin: MemoryOrigin,
    pub(super) crm: Crm,
    pub(super) budget: Option<Arc<Budget>>,
}

pub(super) fn budget(tokens: u64) -> Arc<Budget> {
    Arc::new(Budget {
        account: "crm https://crm.example".to_owned(),
        burst: Some(Burst { requests: 20, window: Duration::from_secs(2) }),
        day: Some(Day { tokens, share: Share(0.8), resets: Resets::at_hour(0, "UTC").unwrap() }),
    })
}

impl Scene {
    pub(super) fn new(rows: &[(i64, Option<&str>)]) -> Self {
        let origin = MemoryOrigin::new();
        origin.carries();
        let scene = Self { world: World::new(), origin, crm: Crm::default(), budget: None };
        scene.file(rows);
        scene
    }
    /// The file holds these rows from now on.
    pub(super) fn file(&self, rows: &[(i64, Option<&str>)]) {
        self.origin.set("customers.csv", vec![rows::named(rows)], 1);
    }
    pub(super) fn graph(&self) -> Graph {
        self.pipeline().build().unwrap()
    }
    pub(super) fn pipeline(&self) -> Pipeline {
        let (origin, crm, budget) = (self.origin.clone(), self.crm.clone(), self.budget.clone());
        self.world
            .pipeline()
            .source("customers", move || Ok(origin.source()))
            .sink("persons", &["customers"], move || {
                Ok(CrmSink { deletes: true, ..crm.sink("persons", budget.clone()) })
            })
            .tells_differences()
            .run(|run| run.restarts = 0)
    }
    pub(super) async fn run(&self, graph: &Graph) -> RunReport {
        self.world.engine.run_graph(graph, RunOptions::default()).await
    }
    async fn diff(&self, graph: &Graph) -> DiffReport {
        self.world.engine.diff_graph(graph, RunOptions::default(), None).await.unwrap()
    }
}

const FILE: &[(i64, Option<&str>)] =
    &[(1, Some("Ann")), (2, Some("Bob")), (3, Some("Cid")), (4, None), (5, Some("Eve")), (6, Some("Fay"))];

/// What stands in the CRM before: 1 is equal, 2 has another name, 5 is there twice, 9 is not in the file.
fn others(scene: &Scene) {
    scene
        .crm
        .with("persons", &[(1, Some("Ann")), (2, Some("Rob")), (5, Some("Eve")), (5, Some("Eva")), (9, Some("Zoe"))]);
}

#[tokio::test]
async fn differences_are_told_and_nothing_is_touched() {
    let mut scene = Scene::new(FILE);
    scene.budget = Some(budget(6000));
    others(&scene);
    let before = scene.crm.holds("persons");
    let graph = scene.graph();
    let diff = scene.diff(&graph).await;
    insta::assert_snapshot!(diff, @r#"
    pipeline test

    sink persons (rust)
      create             3
      update             1
      delete             1
      duplicate          1
      equal              1
      changes
        update persons 2 (id 2)
          name "Rob" → "Bob"
        create persons 3
          name "Cid"
        create persons 4
          name (nothing)
        duplicate persons 5 (id 3)
        create persons 6
          name "Fay"
        delete persons 9 (id 5)
          name "Zoe" → (nothing)
          note: no row stands for it

    cost, from the budget of crm https://crm.example
      compare    1 call, 10 tokens (and as much for this plan)
      write      5 calls, 23 tokens
      time       no waiting at 20 calls in 2s
      done       today (left today: 4,790 of our 4,800 tokens a day)
    "#);
    assert_eq!(scene.crm.log(), ["list persons"]);
    assert_eq!(scene.crm.holds("persons"), before);
    assert_eq!(scene.crm.0.lock().unwrap().commits, 0);
    assert!(scene.origin.settled().is_empty(), "the source hears nothing");
    assert!(scene.world.engine.store.last_runs(&"test".into(), 9).unwrap().is_empty(), "no run is remembered");
    assert!(scene.world.engine.store.seen_checkpoint(&"test".into(), &"persons".into()).unwrap().is_none());
    // The run does what was told.
    let report = scene.run(&graph).await;
    assert_eq!(report.status, Status::Completed, "{:?}", report.error);
    assert_eq!(
        scene.crm.writes(),
        ["update persons 2", "create persons 3", "create persons 4", "create persons 6", "delete persons 9"]
    );
    // And then there is nothing to do, and nothing to read.
    let diff = scene.diff(&graph).await;
    insta::assert_snapshot!(diff, @r"
    pipeline test

    no source has anything new: a run would end here, without a call to a sink
      to compare all the same: --full
    ");
    let full = RunOptions { full: true, ..RunOptions::default() };
    let diff = scene.world.engine.diff_graph(&graph, full, None).await.unwrap();
    assert!(diff.is_empty() && diff.sinks["persons"].equal == 5, "{diff}");
}

#[tokio::test]
async fn sinks_that_cannot_tell_are_said_to() {
    let scene = Scene::new(&FILE[..1]);
    let target = MemoryTarget::new();
    let (copy, origin) = (target.clone(), scene.origin.clone());
    let both = scene.pipeline().sink("copy", &["customers"], move || Ok(copy.sink(WriteMode::Append, Key::None)));
    insta::assert_snapshot!(scene.diff(&both.build().unwrap()).await, @r#"
    pipeline test

    sink persons (rust)
      create             1
      update             0
      equal              0
      changes
        create persons 1
          name "Ann"

    sink copy (rust)
      cannot say how its rows differ from what is there; a run writes all it is given
    "#);
    assert!(target.rows().is_none() && target.calls().is_empty(), "it is not even opened: {:?}", target.calls());
    // Once both have everything, a run would end, and so do the differences.
    let copy = target.clone();
    let both = scene.pipeline().sink("copy", &["customers"], move || Ok(copy.sink(WriteMode::Append, Key::None)));
    let both = both.build().unwrap();
    assert_eq!(scene.run(&both).await.status, Status::Completed);
    assert!(scene.diff(&both).await.nothing_new);
    let none = Pipeline::new("test").source("customers", move || Ok(origin.source())).sink("copy", &["customers"], {
        let target = target.clone();
        move || Ok(target.sink(WriteMode::Append, Key::None))
    });
    let error = scene.world.engine.diff_graph(&none.build().unwrap(), RunOptions::default(), None).await.unwrap_err();
    insta::assert_snapshot!(error, @"no sink can say how its rows differ from what is there: copy (rust)");
    let once = scene.graph();
    scene.origin.one_by_one();
    let error = scene.world.engine.diff_graph(&once, RunOptions::default(), None).await.unwrap_err();
    insta::assert_snapshot!(error, @"source customers gives each row only once");
}

#[tokio::test]
async fn rows_that_would_be_refused_are_in_the_differences_and_in_no_dead_letters() {
    let scene = Scene::new(&FILE[..2]);
    let bad = Reject::bytes(b"x,y"[..].into(), Default::default(), "not a number: 'x'");
    scene.origin.set_with_rejects("customers.csv", vec![(rows::named(&FILE[..2]), vec![bad])], 1);
    others(&scene);
    insta::assert_snapshot!(scene.diff(&scene.graph()).await, @r#"
    pipeline test

    sink persons (rust)
      create             0
      update             1
      equal              1
      changes
        update persons 2 (id 2)
          name "Rob" → "Bob"

    customers refuses 1 row
        refused: not a number: 'x'
          x,y
    "#);
    assert!(scene.world.dead_letters().is_empty());
    // What was refused may stand for any record: none is deleted.
    assert_eq!(scene.crm.0.lock().unwrap().completes, [Complete { whole: true, refused: 1 }]);
}

#[tokio::test]
async fn a_plan_that_was_kept_is_done_exactly_or_not_at_all() {
    let mut scene = Scene::new(FILE);
    scene.budget = Some(budget(6000));
    others(&scene);
    let (graph, folder) = (scene.graph(), tempfile::tempdir().unwrap());
    let path = folder.path().join("plan.json");
    let engine = &scene.world.engine;
    let kept = engine.diff_graph(&graph, RunOptions::default(), Some(&path)).await.unwrap();
    assert_eq!(kept.kept.as_deref(), Some(&*path));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing unfinished is left");
    let text = std::fs::read_to_string(&path).unwrap();
    let plan: serde_json::Value = serde_json::from_str(&text).unwrap();
    insta::assert_json_snapshot!(plan["changes"], @r#"
    [
      {
        "sink": "persons",
        "action": "update",
        "entity": "persons",
        "key": "2",
        "id": "2",
        "fields": [
          {
            "field": "name",
            "old": "Rob",
            "new": "Bob"
          }
        ],
        "calls": 1,
        "tokens": 5
      },
      {
        "sink": "persons",
        "action": "create",
        "entity": "persons",
        "key": "3",
        "fields": [
          {
            "field": "name",
            "new": "Cid"
          }
        ],
        "calls": 1,
        "tokens": 5
      },
      {
        "sink": "persons",
        "action": "create",
        "entity": "persons",
        "key": "4",
        "fields": [
          {
            "field": "name"
          }
        ],
        "calls": 1,
        "tokens": 5
      },
      {
        "sink": "persons",
        "action": "duplicate",
        "entity": "persons",
        "key": "5",
        "id": "3",
        "calls": 0,
        "tokens": 0
      },
      {
        "sink": "persons",
        "action": "create",
        "entity": "persons",
        "key": "6",
        "fields": [
          {
            "field": "name",
            "new": "Fay"
          }
        ],
        "calls": 1,
        "tokens": 5
      },
      {
        "sink": "persons",
        "action": "delete",
        "entity": "persons",
        "key": "9",
        "id": "5",
        "fields": [
          {
            "field": "name",
            "old": "Zoe"
          }
        ],
        "calls": 1,
        "tokens": 3,
        "note": "no row stands for it"
      }
    ]
    "#);
    // Somebody changes a record by hand, somebody the file.
    scene.crm.0.lock().unwrap().records.get_mut("persons").unwrap()[1].name = Some("Robert".to_owned());
    scene.file(&FILE[..5]);
    let bound = engine.run_plan_graph(&graph, RunOptions::default(), &path).await.unwrap();
    let Bound::Moved(diff) = bound else { panic!("{bound:?}") };
    let text = diff.to_string();
    insta::assert_snapshot!(&text[text.find("this is not").unwrap()..], @r#"
    this is not what the plan says, so nothing was sent
      2 changes of the plan not to be made any more, or not so
        persons: update persons 2 (id 2): name "Rob" → "Bob"
        persons: create persons 6: name "Fay"
      1 change not in the plan
        persons: update persons 2 (id 2): name "Robert" → "Bob"
    "#);
    assert!(scene.crm.writes().is_empty(), "nothing was sent");
    // Back again: now it is done.
    scene.crm.0.lock().unwrap().records.get_mut("persons").unwrap()[1].name = Some("Rob".to_owned());
    scene.file(FILE);
    // However the file was formatted.
    std::fs::write(&path, serde_json::to_string_pretty(&plan).unwrap()).unwrap();
    let bound = engine.run_plan_graph(&graph, RunOptions::default(), &path).await.unwrap();
    let Bound::Ran(report) = bound else { panic!("{bound:?}") };
    assert_eq!(report.status, Status::Completed, "{:?}", report.error);
    assert_eq!(scene.crm.writes().len(), 5);
    // A plan is not done twice: there is nothing of it left to do.
    let bound = engine.run_plan_graph(&graph, RunOptions { full: true, ..RunOptions::default() }, &path).await.unwrap();
    assert!(
        matches!(&bound, Bound::Moved(diff) if diff.moved.as_ref().is_some_and(|moved| moved.gone == 5)),
        "{bound:?}"
    );
    for (text, what) in
        [("{}", "nothing"), ("[", "torn"), (r#"{"towpath_plan":2,"pipeline":"test","changes":[]}"#, "newer")]
    {
        std::fs::write(&path, text).unwrap();
        let error = engine.run_plan_graph(&graph, RunOptions::default(), &path).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{what}: {error}");
    }
    std::fs::write(&path, r#"{"towpath_plan":1,"pipeline":"other","full":false,"changes":[]}"#).unwrap();
    let error = engine.run_plan_graph(&graph, RunOptions::default(), &path).await.unwrap_err();
    assert!(error.to_string().contains("is a plan of pipeline 'other', not of 'test'"), "{error}");
}

#[tokio::test]
async fn what_changes_between_comparing_and_sending_is_not_sent() {
    let scene = Scene::new(FILE);
    others(&scene);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plan.json");
    let engine = &scene.world.engine;
    engine.diff_graph(&scene.graph(), RunOptions::default(), Some(&path)).await.unwrap();
    // The record is changed as the run opens the sink: behind the comparing.
    let (crm, origin) = (scene.crm.clone(), scene.origin.clone());
    let graph = scene
        .world
        .pipeline()
        .source("customers", move || Ok(origin.source()))
        .sink("persons", &["customers"], move || {
            let lists = crm.0.lock().unwrap().log.iter().filter(|line| line.starts_with("list")).count();
            if lists == 2 {
                crm.0.lock().unwrap().records.get_mut("persons").unwrap()[1].name = Some("Robert".to_owned());
            }
            Ok(CrmSink { deletes: true, ..crm.sink("persons", None) })
        })
        .tells_differences()
        .run(|run| run.restarts = 0)
        .build()
        .unwrap();
    let Bound::Ran(report) = engine.run_plan_graph(&graph, RunOptions::default(), &path).await.unwrap() else {
        panic!()
    };
    insta::assert_snapshot!(report.error.unwrap(), @r#"sink persons: it is not in the plan: update persons 2 (id 2): name "Robert" → "Bob""#);
    assert!(scene.crm.writes().is_empty());
}

#[tokio::test]
async fn a_day_that_is_spent_interrupts_the_run_and_the_next_goes_on() {
    let rows: Vec<(i64, Option<&str>)> = (1..=20).map(|id| (id, Some("x"))).collect();
    let mut scene = Scene::new(&rows);
    // Eighty of a hundred are ours: a list and fourteen writes.
    scene.budget = Some(Arc::new(Budget { burst: None, ..(*budget(100)).clone() }));
    let graph = scene.graph();
    let report = scene.run(&graph).await;
    assert_eq!((report.status, report.exit_code()), (Status::Cancelled, 130));
    let error = report.error.unwrap().to_string();
    assert!(error.contains("the day's budget of crm https://crm.example is spent: 80 of our 80 tokens"), "{error}");
    assert_eq!(scene.crm.writes().len(), 14);
    let again = scene.run(&graph).await;
    assert!(again.taken_up && again.run_id == report.run_id && again.status == Status::Cancelled);
    assert!(scene.crm.log().is_empty(), "nothing was sent");
    // The next day.
    scene.world.engine.store.reset_budget(None).unwrap();
    let report = scene.run(&graph).await;
    assert_eq!(report.status, Status::Completed, "{:?}", report.error);
    assert_eq!(scene.crm.writes().len(), 6);
    assert_eq!(scene.crm.holds("persons").len(), 20);
}

#[tokio::test]
async fn where_nothing_has_changed_a_run_compares_only_when_it_is_due_or_told_to() {
    let scene = Scene::new(FILE);
    let run = async |verify_every: Option<Period>, full: bool| {
        let graph = scene.pipeline().run(|run| run.verify_every = verify_every).build().unwrap();
        let report = scene.world.engine.run_graph(&graph, RunOptions { full, ..RunOptions::default() }).await;
        assert_eq!(report.status, Status::Completed, "{:?}", report.error);
        (report.nothing_new, scene.crm.log().len())
    };
    assert_eq!(run(None, false).await, (false, 7), "a list and six creates");
    let hour = Some(Period::seconds(3600));
    assert_eq!(run(None, false).await, (true, 0));
    assert_eq!(run(hour, false).await, (true, 0), "younger than that");
    assert_eq!(run(hour, true).await, (false, 1), "--full");
    assert_eq!(run(Some(Period::seconds(0)), false).await, (false, 1), "older than that");
    scene.crm.0.lock().unwrap().records.get_mut("persons").unwrap().remove(0);
    assert_eq!(run(Some(Period::seconds(0)), false).await, (false, 2), "what somebody deleted is made again");
}

#[tokio::test]
async fn what_appends_is_not_given_everything_again() {
    let scene = Scene::new(FILE);
    let target = MemoryTarget::new();
    let (sink, origin) = (target.clone(), scene.origin.clone());
    let appends = scene.world.pipeline().source("customers", move || Ok(origin.source())).sink(
        "copy",
        &["customers"],
        move || Ok(sink.sink(WriteMode::Append, Key::None)),
    );
    let graph = appends.build().unwrap();
    for (full, expected) in [(true, Status::Completed), (false, Status::Completed), (true, Status::Failed)] {
        let report = scene.world.engine.run_graph(&graph, RunOptions { full, ..RunOptions::default() }).await;
        assert_eq!(report.status, expected, "{:?}", report.error);
        if let Some(error) = report.error {
            insta::assert_snapshot!(error, @"everything is to be read again (--full, verify_every), and sink copy appends: rows would double");
        }
    }
    assert_eq!(target.rows().unwrap().len(), FILE.len());
}

#[tokio::test]
async fn rows_wait_until_the_sinks_they_come_after_have_theirs() {
    let rows: Vec<(i64, Option<&str>)> = (1..=200).map(|id| (id, Some("x"))).collect();
    let scene = Scene::new(&[]);
    // Many pieces and a small buffer: what waits goes to disk.
    scene.origin.set("customers.csv", rows.chunks(5).map(rows::named).collect(), 1);
    let crm = scene.crm.clone();
    let graph = scene
        .pipeline()
        .sink("deals", &["customers"], move || Ok(crm.sink("deals", None)))
        .after(&["persons"])
        .run(|run| (run.commit.rows, run.buffer) = (50, towpath_core::Size(2048)))
        .build()
        .unwrap();
    let report = scene.run(&graph).await;
    assert_eq!(report.status, Status::Completed, "{:?}", report.error);
    let (mut persons, mut deals) = (0, 0);
    for line in scene.crm.writes() {
        let key: i64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        if line.contains("persons") {
            persons = key;
        } else {
            deals = key;
            assert!(key <= persons, "deal {key} before person {persons}");
        }
    }
    assert_eq!((persons, deals), (200, 200));
    for wrong in [&["deals"][..], &["nobody"], &["customers"]] {
        let crm = scene.crm.clone();
        let graph =
            scene.pipeline().sink("deals", &["customers"], move || Ok(crm.sink("deals", None))).after(wrong).build();
        let error = graph.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Config, "{wrong:?}: {error}");
    }
}

#[tokio::test]
async fn the_end_of_the_input_is_said_once_and_whether_it_was_whole() {
    let scene = Scene::new(&[]);
    scene.origin.set("customers.csv", FILE.chunks(2).map(rows::named).collect(), 1);
    let graph = scene.pipeline().run(|run| run.commit.rows = 2).build().unwrap();
    let report = scene.run(&graph).await;
    assert_eq!(report.status, Status::Completed, "{:?}", report.error);
    let completes = || std::mem::take(&mut scene.crm.0.lock().unwrap().completes);
    assert_eq!(completes(), [Complete { whole: true, refused: 0 }]);
    // A second file comes: the first is not read again.
    scene.origin.set("more.csv", vec![rows::named(&[(7, None)])], 1);
    assert_eq!(scene.run(&graph).await.status, Status::Completed);
    assert_eq!(completes(), [Complete { whole: false, refused: 0 }]);
    assert_eq!(scene.crm.holds("persons").len(), 7, "what was not read is not gone");
    let full = scene.world.engine.run_graph(&graph, RunOptions { full: true, ..RunOptions::default() }).await;
    assert_eq!((full.status, completes()), (Status::Completed, vec![Complete { whole: true, refused: 0 }]));
}
