//! The door to the outside: retries, deadlines, guards and breakers as a connector meets them.
#![allow(clippy::unwrap_used, reason = "it is what makes a test fail")]

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use towpath_core::{
    Call, Context, Effect, Error, ErrorKind, Name, Period, Result, Retry, Share,
    pipeline::{Guard, RetrySpec, Role},
};
use towpath_engine::{
    StateStore,
    breaker::{LONGEST, SHORTEST, THRESHOLD},
    call::{CallDoor, back_off},
    pulse::Pulse,
    state::clock::{Clock, Moment},
};

/// A clock that goes with tokio's, so that hours pass at once.
struct Paused {
    start: Instant,
    boot: Mutex<Arc<str>>,
}

impl Clock for Paused {
    fn now(&self) -> Moment {
        Moment { boot: Arc::clone(&self.boot.lock().unwrap()), ms: 1_000_000 + self.start.elapsed().as_millis() as i64 }
    }
}

fn paused() -> Arc<Paused> {
    Arc::new(Paused { start: Instant::now(), boot: Mutex::new("boot".into()) })
}

fn open(dir: &Path, clock: &Arc<Paused>) -> StateStore {
    StateStore::open_with(dir, Arc::clone(clock) as Arc<dyn Clock>).unwrap()
}

struct Door {
    ctx: Context,
    cancel: CancellationToken,
    pulse: Arc<Pulse>,
}

fn door(store: &StateStore, guard: Guard, retry: RetrySpec) -> Door {
    let (cancel, pulse) = (CancellationToken::new(), Pulse::new("reports".into(), Role::Source));
    let door = CallDoor::new(store.clone(), guard, retry, Duration::from_secs(60), cancel.clone(), Arc::clone(&pulse));
    let credentials = Arc::new(store.clone());
    let ctx = Context::new(Name::from("p"), Name::from("reports"), Arc::new(door), credentials, cancel.clone());
    Door { ctx, cancel, pulse }
}

const NOBODY: Guard = Guard { max_concurrent: None, min_interval: None, busy_share: None };

fn call(effect: Effect) -> Call {
    Call::new("render /Sales", "https://reports.example:443", effect)
}

fn once() -> RetrySpec {
    RetrySpec { attempts: 1, ..RetrySpec::default() }
}

#[tokio::test(start_paused = true)]
async fn what_is_tried_again_and_what_is_not() {
    let unavailable = || Error::unavailable("503");
    let after = |seconds| Error::unavailable("503").retry(Retry::After(Duration::from_secs(seconds)));
    type Make = Box<dyn Fn() -> Error + Send + Sync>;
    let cases: Vec<(&str, Effect, Make, u32)> = vec![
        ("it may pass", Effect::Read, Box::new(unavailable), 4),
        ("writing twice is the same", Effect::Idempotent, Box::new(unavailable), 4),
        ("writing twice is not the same", Effect::Once, Box::new(unavailable), 1),
        ("a refused credential", Effect::Read, Box::new(|| Error::auth("401")), 1),
        ("a wrong config", Effect::Read, Box::new(|| Error::config("no")), 1),
        ("the server names a time", Effect::Read, Box::new(move || after(20)), 4),
        ("a time nobody waits for", Effect::Read, Box::new(move || after(3600)), 1),
        ("too many requests", Effect::Read, Box::new(|| Error::new(ErrorKind::RateLimited, "429")), 4),
    ];
    for (what, effect, make, expected) in cases {
        let store = StateStore::memory().unwrap();
        let door = door(&store, NOBODY, RetrySpec::default());
        let tries = AtomicU32::new(0);
        let began = Instant::now();
        let outcome: Result<()> = door
            .ctx
            .call(&call(effect), || async {
                tries.fetch_add(1, Ordering::SeqCst);
                Err(make())
            })
            .await;
        let error = outcome.unwrap_err();
        assert_eq!(tries.load(Ordering::SeqCst), expected, "{what}: {error}");
        if what.contains("names a time") {
            assert!(began.elapsed() >= Duration::from_secs(60), "{what}: three pauses of 20 s");
        }
    }
    // The third try succeeds.
    let store = StateStore::memory().unwrap();
    let door = door(&store, NOBODY, RetrySpec::default());
    let tries = AtomicU32::new(0);
    let tried = || async {
        let n = tries.fetch_add(1, Ordering::SeqCst);
        if n < 2 { Err(Error::unavailable("503")) } else { Ok(n) }
    };
    assert_eq!(door.ctx.call(&call(Effect::Read), tried).await.unwrap(), 2);
}

#[test]
fn the_pause_is_jittered_below_a_bound_that_doubles() {
    let spec = RetrySpec { attempts: 9, initial: Period::seconds(1), max: Period::seconds(60) };
    for (failures, bound) in [(1, 1.0), (2, 2.0), (3, 4.0), (7, 60.0), (40, 60.0), (4_000_000, 60.0)] {
        let longest = (0..300).map(|_| back_off(&spec, failures, Retry::Again).as_secs_f64()).fold(0.0, f64::max);
        assert!(longest <= bound && longest > bound * 0.8, "{failures}: {longest}");
    }
    let told = back_off(&spec, 1, Retry::After(Duration::from_secs(10))).as_secs_f64();
    assert!((10.0..=11.0).contains(&told), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_call_has_a_deadline_and_a_cancelled_run_has_no_calls() {
    let store = StateStore::memory().unwrap();
    let slow = door(&store, NOBODY, once());
    let hang = || std::future::pending::<Result<()>>();
    let deadline = call(Effect::Read).deadline(Duration::from_secs(5));
    let error = slow.ctx.call(&deadline, hang).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.to_string(), "no answer within the call's deadline (5s)");
    assert!(!error.is_outcome_unknown(), "a read has no outcome");
    let door = door(&store, NOBODY, once());
    let cancel = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(door.pulse.waits_in_words(), "the call 'render /Sales'");
        door.cancel.cancel();
    };
    let render = call(Effect::Read);
    let (outcome, ()) = tokio::join!(door.ctx.call(&render, hang), cancel);
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn guards_hold_between_processes_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let clock = paused();
    let guard =
        Guard { max_concurrent: Some(1), min_interval: Some(Period::seconds(300)), busy_share: Some(Share(0.25)) };
    let render = async |store: &StateStore, guard: Guard, took: u64| {
        let began = Arc::new(Mutex::new(None));
        let noted = Arc::clone(&began);
        let attempt = move || {
            let noted = Arc::clone(&noted);
            async move {
                *noted.lock().unwrap() = Some(Instant::now());
                tokio::time::sleep(Duration::from_secs(took)).await;
                Ok(())
            }
        };
        door(store, guard, once())
            .ctx
            .call(&call(Effect::Read).deadline(Duration::from_secs(1000)), attempt)
            .await
            .unwrap();
        let at = began.lock().unwrap().unwrap();
        (at - clock.start).as_secs()
    };
    // It takes 200 s: a quarter of the time means that the next begins no sooner than 800 s after it began.
    assert_eq!(render(&open(dir.path(), &clock), guard, 200).await, 0);
    // Another process, another pipeline without limits of its own: the strictest wins.
    let second = render(&open(dir.path(), &clock), NOBODY, 10).await;
    assert!((800..=802).contains(&second), "{second}");
    // After 10 s of work the pause is the interval.
    let third = render(&open(dir.path(), &clock), guard, 10).await;
    assert!((second + 10..=second + 312).contains(&third), "{third} after {second}");
    let fourth = render(&open(dir.path(), &clock), guard, 1).await;
    assert!((third + 310..=third + 312).contains(&fourth), "{fourth} after {third}");
    // After a reboot nobody knows how long ago the requests ended; so the longest of their pauses is waited, once.
    let before = (Instant::now() - clock.start).as_secs();
    *clock.boot.lock().unwrap() = "another".into();
    let fifth = render(&open(dir.path(), &clock), guard, 1).await;
    assert!((before + 598..=before + 602).contains(&fifth), "{fifth} after {before}");
}

#[tokio::test(start_paused = true)]
async fn requests_under_way_are_counted_over_all_processes_and_a_dead_ones_until_its_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let clock = paused();
    let guard = Guard { max_concurrent: Some(2), ..NOBODY };
    let (busy, peak) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..12 {
        let (store, busy, peak) = (open(dir.path(), &clock), Arc::clone(&busy), Arc::clone(&peak));
        tasks.spawn(async move {
            let attempt = || async {
                peak.fetch_max(busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_secs(5)).await;
                busy.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            };
            door(&store, guard, once()).ctx.call(&call(Effect::Read), attempt).await.unwrap();
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(peak.load(Ordering::SeqCst), 2);
    // Two that nobody sees the end of: dropped in the middle, as by a kill.
    let store = open(dir.path(), &clock);
    for _ in 0..2 {
        let door = door(&store, guard, once());
        let render = call(Effect::Read).deadline(Duration::from_secs(600));
        let killed = door.ctx.call(&render, std::future::pending::<Result<()>>);
        assert!(tokio::time::timeout(Duration::from_secs(1), killed).await.is_err());
    }
    let began = Instant::now();
    let waiting = door(&open(dir.path(), &clock), guard, once());
    let watch = async {
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(
            waiting.pulse.waits_in_words(),
            "next request when another one has ended, guard of https://reports.example:443"
        );
    };
    let render = call(Effect::Read);
    let (outcome, ()) = tokio::join!(waiting.ctx.call(&render, || async { Ok(()) }), watch);
    outcome.unwrap();
    assert!((598..=602).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    // A stream keeps its place until its end.
    let one = Guard { max_concurrent: Some(1), ..NOBODY };
    let ((), lease) = door(&store, one, once()).ctx.stream(&call(Effect::Read), || async { Ok(()) }).await.unwrap();
    let next = door(&store, one, once());
    let early =
        tokio::time::timeout(Duration::from_secs(20), next.ctx.call(&call(Effect::Read), || async { Ok(()) })).await;
    assert!(early.is_err(), "the answer still flows");
    lease.done();
    next.ctx.call(&call(Effect::Read), || async { Ok(()) }).await.unwrap();
    // Cheap calls do not wait for the others.
    let ((), _lease) = door(&store, one, once()).ctx.stream(&call(Effect::Read), || async { Ok(()) }).await.unwrap();
    let began = Instant::now();
    next.ctx.call(&call(Effect::Cheap), || async { Ok(()) }).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_fails_again_and_again_is_left_alone_and_heals() {
    let dir = tempfile::tempdir().unwrap();
    let clock = paused();
    let tries = AtomicU32::new(0);
    let ask = async |ok: bool| {
        let store = open(dir.path(), &clock);
        let attempt = || async {
            tries.fetch_add(1, Ordering::SeqCst);
            if ok { Ok(()) } else { Err(Error::unavailable("connection refused")) }
        };
        door(&store, NOBODY, once()).ctx.call(&call(Effect::Read), attempt).await
    };
    for _ in 0..THRESHOLD {
        ask(false).await.unwrap_err();
    }
    let error = ask(true).await.unwrap_err();
    assert_eq!(tries.load(Ordering::SeqCst), THRESHOLD, "nothing goes out while it is open");
    let words = error.to_string();
    assert!(
        words.contains("has failed 5 times in a row since") && words.contains("left alone for another 30s"),
        "{words}"
    );
    assert!(!error.can_retry());
    // After the pause one may probe; its failure makes the pause longer, up to a bound.
    let mut pause = SHORTEST;
    for _ in 0..8 {
        tokio::time::sleep(pause).await;
        let before = tries.load(Ordering::SeqCst);
        ask(false).await.unwrap_err();
        ask(true).await.unwrap_err();
        assert_eq!(tries.load(Ordering::SeqCst), before + 1);
        pause = (pause * 2).min(LONGEST);
    }
    tokio::time::sleep(pause).await;
    ask(true).await.unwrap();
    ask(true).await.unwrap();
    // An answer in between means that they are not in a row.
    for _ in 0..3 {
        for _ in 1..THRESHOLD {
            ask(false).await.unwrap_err();
        }
        ask(true).await.unwrap();
    }
    // And a person may say that it is well again.
    for _ in 0..THRESHOLD {
        ask(false).await.unwrap_err();
    }
    ask(true).await.unwrap_err();
    assert_eq!(open(dir.path(), &clock).reset_breaker(None).unwrap(), 1);
    ask(true).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_missing_right_closes_the_report_and_not_the_server() {
    let store = StateStore::memory().unwrap();
    let tries = AtomicU32::new(0);
    let ask = async |report: &str, ok: bool| {
        let attempt = || async {
            tries.fetch_add(1, Ordering::SeqCst);
            if ok { Ok(()) } else { Err(Error::auth("loader lacks the right to read /Secret")) }
        };
        door(&store, NOBODY, RetrySpec::default()).ctx.call(&call(Effect::Read).resource(report), attempt).await
    };
    ask("/Secret", false).await.unwrap_err();
    let error = ask("/Secret", true).await.unwrap_err();
    assert_eq!(tries.load(Ordering::SeqCst), 1);
    assert_eq!(error.kind(), ErrorKind::Auth);
    assert!(error.to_string().contains("/Secret at https://reports.example:443 was denied at"), "{error}");
    ask("/Sales", true).await.unwrap();
    store.reset_breaker(Some("https://reports.example:443")).unwrap();
    ask("/Secret", true).await.unwrap();
}
