//! The state store: whose files they are, what goes wrong with them, and what it remembers.
#![allow(clippy::unwrap_used, reason = "it is what makes a test fail")]

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use towpath_core::{
    Call, Checkpoint, Context, Effect, Error, ErrorKind, Name, Period, Run, Secret,
    context::Credentials as _,
    pipeline::{Guard, RetrySpec, Role},
};
use towpath_engine::{StateStore, call::CallDoor, guard::schedule_warning, progress::ComponentProgress};

fn run(id: &str) -> Run {
    let started = "2026-01-31T05:00:00Z".parse().unwrap();
    Run { id: id.into(), started, parameters: Default::default(), fingerprint: Default::default() }
}

fn checkpoint(id: &str, epoch: u64) -> Checkpoint {
    Checkpoint { run: run(id), epoch, last: false, keyed_by: None, at: Default::default() }
}

#[test]
fn what_goes_wrong_with_its_files_says_what_to_do() {
    type Spoil = fn(&Path);
    let cases: [(&str, Spoil, ErrorKind, &str, &str); 3] = [
        (
            "damaged",
            |dir| fs::write(dir.join("state.db"), "no database at all, but long enough to look like one").unwrap(),
            ErrorKind::Data,
            "the state store is damaged",
            "check the password first",
        ),
        (
            "of a newer program",
            |dir| {
                let db = rusqlite::Connection::open(dir.join("state.db")).unwrap();
                db.pragma_update(None, "user_version", 99).unwrap();
            },
            ErrorKind::Conflict,
            "written by a newer version of this program (version 99 of the store",
            "use the newer program",
        ),
        (
            "in the way",
            |dir| {
                fs::remove_dir_all(dir).unwrap();
                fs::write(dir, "a file").unwrap();
            },
            ErrorKind::Config,
            "cannot be written",
            "name another one with --state-dir",
        ),
    ];
    for (what, spoil, kind, says, hint) in cases {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("state");
        drop(StateStore::open(&dir).unwrap());
        spoil(&dir);
        let error = StateStore::open(&dir).unwrap_err();
        assert_eq!(error.kind(), kind, "{what}: {error}");
        assert!(error.to_string().contains(says), "{what}: {error}");
        assert!(error.what_to_do().unwrap().contains(hint), "{what}: {:?}", error.what_to_do());
    }
}

#[test]
fn another_program_that_holds_it_is_waited_for_and_then_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = StateStore::open(dir.path()).unwrap();
    let other = rusqlite::Connection::open(dir.path().join("state.db")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let error = store.begin_run(&"p".into(), &run("r1")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("the state store was busy for more than"), "{error}");
    other.execute_batch("ROLLBACK").unwrap();
    store.begin_run(&"p".into(), &run("r1")).unwrap();
}

#[test]
fn its_files_are_its_owners_alone() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("state");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    drop(StateStore::open(&dir).unwrap());
    assert_eq!((mode(&dir), mode(&dir.join("state.db"))), (0o700, 0o600));
    // Rights that somebody gave are taken back: there are fingerprints of passwords in it.
    fs::set_permissions(dir.join("state.db"), fs::Permissions::from_mode(0o644)).unwrap();
    drop(StateStore::open(&dir).unwrap());
    assert_eq!(mode(&dir.join("state.db")), 0o600);
}

#[test]
fn a_name_belongs_to_one_pipeline() {
    let place = tempfile::tempdir().unwrap();
    let [mine, yours] = ["mine.yaml", "yours.yaml"].map(|name| place.path().join(name));
    for file in [&mine, &yours] {
        fs::write(file, "").unwrap();
    }
    let store = StateStore::open(&place.path().join("state")).unwrap();
    let claim = |ends: &str, file: &Path| store.claim_name(&"p".into(), ends, Some(file));
    claim("a to b", &mine).unwrap();
    claim("a to b", &mine).unwrap();
    let error = claim("a to c", &yours).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("mine.yaml, which has other sources or targets"), "{error}");
    // One that was edited keeps its path, one that was moved keeps its ends.
    claim("a to c", &mine).unwrap();
    claim("a to c", &yours).unwrap();
    assert!(claim("a to b", &mine).is_err());
}

#[test]
fn a_checkpoint_is_stored_by_whoever_opened_it_last() {
    let store = StateStore::memory().unwrap();
    let (pipeline, sink) = (Name::from("p"), Name::from("k"));
    let (mine, held) = store.open_checkpoint(&pipeline, &sink).unwrap();
    assert!(held.is_none());
    store.put_checkpoint(&pipeline, &sink, mine, &checkpoint("r1", 1)).unwrap();
    let (yours, held) = store.open_checkpoint(&pipeline, &sink).unwrap();
    assert_eq!(held, Some(checkpoint("r1", 1)));
    let error = store.put_checkpoint(&pipeline, &sink, mine, &checkpoint("r1", 2)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    store.put_checkpoint(&pipeline, &sink, yours, &checkpoint("r2", 2)).unwrap();
    assert_eq!(store.open_checkpoint(&pipeline, &sink).unwrap().1, Some(checkpoint("r2", 2)));
}

#[tokio::test]
async fn what_is_remembered_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let store = StateStore::open(dir.path()).unwrap();
    let (pipeline, sink) = (Name::from("orders"), Name::from("table"));
    store.begin_run(&pipeline, &run("r1")).unwrap();
    store.end_run(&pipeline, "r1", "completed", &serde_json::json!({"rows": 3})).unwrap();
    store.begin_run(&pipeline, &run("r2")).unwrap();
    store.note_checkpoint(&pipeline, &sink, &checkpoint("r2", 7)).unwrap();
    let (fence, _) = store.open_checkpoint(&pipeline, &"file".into()).unwrap();
    store.put_checkpoint(&pipeline, &"file".into(), fence, &checkpoint("r2", 6)).unwrap();
    let door = |guard| {
        let counted = ComponentProgress::new("reports".into(), Role::Source);
        let retry = RetrySpec { attempts: 1, ..RetrySpec::default() };
        let door = CallDoor::new(store.clone(), guard, retry, Duration::from_secs(60), Default::default(), counted);
        let credentials = std::sync::Arc::new(store.clone());
        Context::new("orders".into(), "reports".into(), std::sync::Arc::new(door), credentials, Default::default())
    };
    let one = Guard { max_concurrent: Some(1), ..Guard::default() };
    let call = |origin: &str| Call::new("render", origin, Effect::Read).resource("/Sales");
    door(one).call(&call("https://a:443"), || async { Ok(()) }).await.unwrap();
    let ((), _lease) = door(one).stream(&call("https://a:443"), || async { Ok(()) }).await.unwrap();
    let denied = || async { Err::<(), _>(Error::auth("loader lacks the right")) };
    door(Guard::default()).call(&call("https://b:443"), denied).await.unwrap_err();
    let lost = || async { Err::<(), _>(Error::unavailable("connection refused")) };
    let plain = Call::new("list", "https://c:443", Effect::Cheap);
    door(Guard::default()).call(&plain, lost).await.unwrap_err();
    let secret = Secret::new("s3cret".to_owned());
    store.admit("https://a:443", "loader", &secret).await.unwrap().refused();
    let shown = store.show().unwrap().to_string();
    for line in [
        "pipeline orders\n",
        "  last run    r2: died, begun ",
        "  checkpoint  file: epoch 6, held here\n",
        "  checkpoint  table: epoch 7, held by the target\n",
        "guard https://a:443: 1 under way, the last took ",
        "breaker https://b:443 /Sales: open, 1 failures in a row since ",
        "  loader lacks the right",
        "breaker https://c:443: closed, 1 failures in a row since ",
        "credential of loader at https://a:443: refused since ",
    ] {
        assert!(shown.contains(line), "no '{line}' in:\n{shown}");
    }
    assert!(!shown.contains("s3cret"));
    let runs = store.last_runs(&pipeline, 10).unwrap();
    let told: Vec<_> = runs.iter().map(|last| (&*last.run.id, &*last.status, last.summary.is_some())).collect();
    assert_eq!(told, [("r2", "running", false), ("r1", "completed", true)]);
    // A lock that is held says by whom.
    let _lock = store.lock_pipeline(&pipeline).unwrap().unwrap();
    assert!(store.lock_pipeline(&pipeline).unwrap().is_none());
    let shown = store.show().unwrap().to_string();
    assert!(shown.contains(&format!("  running     process {}", std::process::id())), "{shown}");
    assert!(shown.contains("r2: running"), "{shown}");
}

#[test]
fn a_schedule_that_its_guard_cannot_keep_is_told() {
    let seconds = |n| Duration::from_secs(n);
    let interval = Guard { min_interval: Some(Period::seconds(600)), ..Guard::default() };
    let share = Guard { busy_share: Some("25%".parse().unwrap()), ..Guard::default() };
    for (what, guard, every, last, expect) in [
        ("nothing is limited", Guard::default(), 300, Some(200), None),
        (
            "the interval is longer",
            interval,
            300,
            None,
            Some("a run every 5m cannot be kept: its guard asks for a min_interval of 10m"),
        ),
        ("the interval fits, with what it takes", interval, 900, Some(200), None),
        ("the interval fits, but not with what it takes", interval, 700, Some(200), Some("the last one took 3m20s")),
        ("nothing is known yet", share, 300, None, None),
        ("the share does not allow it", share, 300, Some(100), Some("the next may begin 6m40s after it began")),
        ("the share allows it", share, 300, Some(70), None),
    ] {
        let told = schedule_warning(&guard, seconds(every), last.map(seconds));
        match expect {
            None => assert_eq!(told, None, "{what}"),
            Some(expect) => assert!(told.as_ref().is_some_and(|told| told.contains(expect)), "{what}: {told:?}"),
        }
    }
}
