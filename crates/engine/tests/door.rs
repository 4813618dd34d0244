//! The door to the outside: retries, deadlines, guards and breakers as a connector meets them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "it is what makes a test fail")]

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use proptest::prelude::*;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use towpath_core::{
    Call, Context, Effect, Error, ErrorKind, Name, Period, Result, Retry, Share,
    pipeline::{Guard, RetrySpec, Role},
};
use towpath_engine::{
    StateStore,
    breaker::{AWAY, LONGEST, SHORTEST, THRESHOLD},
    call::{CallDoor, back_off},
    progress::{ComponentProgress, Counter},
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
    counted: Arc<ComponentProgress>,
}

fn door(store: &StateStore, guard: Guard, retry: RetrySpec) -> Door {
    let (cancel, counted) = (CancellationToken::new(), ComponentProgress::new("reports".into(), Role::Source));
    let door = CallDoor::new(store.clone(), guard, retry, Duration::from_secs(60), cancel.clone(), counted.clone());
    let credentials = Arc::new(store.clone());
    let ctx = Context::new(Name::from("p"), Name::from("reports"), Arc::new(door), credentials, cancel.clone());
    Door { ctx, cancel, counted }
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
        (
            "writing twice is not the same, but nothing was done",
            Effect::Once,
            Box::new(|| Error::new(ErrorKind::RateLimited, "429")),
            4,
        ),
        (
            "what was done is not known",
            Effect::Once,
            Box::new(|| Error::new(ErrorKind::RateLimited, "429").outcome_unknown()),
            1,
        ),
        (
            "nothing went out",
            Effect::Once,
            Box::new(|| Error::unavailable("cannot connect").unsent().outcome_unknown()),
            4,
        ),
        ("a refused credential", Effect::Read, Box::new(|| Error::auth("401")), 1),
        ("a wrong config", Effect::Read, Box::new(|| Error::config("no")), 1),
        ("the server names a time", Effect::Read, Box::new(move || after(20)), 4),
        ("a time nobody waits for", Effect::Read, Box::new(move || after(3600)), 1),
        ("too many requests", Effect::Read, Box::new(|| Error::new(ErrorKind::RateLimited, "429")), 4),
    ];
    for (what, effect, make, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), &paused());
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
        let calls = &door.counted.calls;
        let counted = [&calls.tries, &calls.failed, &calls.again].map(Counter::get).map(|n| n as u32);
        assert_eq!(counted, [expected, expected, expected - 1], "{what}: tries, failed, again");
        if what.contains("names a time") {
            assert!(calls.waited_ms.get() >= 60_000, "{what}: {} ms waited", calls.waited_ms.get());

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
        assert_eq!(door.counted.pulse.waits_in_words(), "the call 'render /Sales'");
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
            waiting.counted.pulse.waits_in_words(),
            "next request when another one has ended, at the latest in 9m29s, guard of https://reports.example:443"
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
    let fail = async || {
        for _ in 1..THRESHOLD {
            ask(false).await.unwrap_err();
        }
        tokio::time::sleep(AWAY).await;
        ask(false).await.unwrap_err();
    };
    fail().await;
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
    fail().await;
    ask(true).await.unwrap_err();
    assert_eq!(open(dir.path(), &clock).reset_breaker(None).unwrap(), 1);
    ask(true).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_short_break_opens_nothing_however_many_calls_it_meets() {
    let dir = tempfile::tempdir().unwrap();
    let clock = paused();
    let back = Mutex::new(Instant::now() + Duration::from_secs(1));
    // Each by a process of its own.
    let ask = async |retry: RetrySpec| {
        let store = open(dir.path(), &clock);
        let attempt = || async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let away = Instant::now() < *back.lock().unwrap();
            if away { Err(Error::unavailable("connection refused")) } else { Ok(()) }
        };
        door(&store, NOBODY, retry).ctx.call(&call(Effect::Read), attempt).await
    };
    let every = async |retry: RetrySpec| futures::future::join_all((0..16).map(|_| ask(retry))).await;
    // One that is started anew within a second: 16 failures in a row, none of them known to anybody a moment later.
    let patient = RetrySpec { attempts: 40, ..RetrySpec::default() };
    assert!(every(patient).await.iter().all(Result::is_ok));
    assert!(open(dir.path(), &clock).show().unwrap().breakers.is_empty(), "it is well again, and counts anew");
    // Almost as long as it may be away, twice, with a sign of life in between.
    for _ in 0..2 {
        *back.lock().unwrap() = Instant::now() + AWAY;
        assert!(every(once()).await.iter().all(Result::is_err));
        tokio::time::sleep(AWAY - Duration::from_millis(100)).await;
        assert!(every(once()).await.iter().all(|outcome| outcome.as_ref().is_err_and(Error::can_retry)));
        tokio::time::sleep(Duration::from_secs(1)).await;
        ask(once()).await.unwrap();
    }
    // Away for longer: those that were under way when it opens do not make the pause longer.
    *back.lock().unwrap() = Instant::now() + AWAY * 2;
    assert!(every(once()).await.iter().all(Result::is_err));
    tokio::time::sleep(AWAY).await;
    assert!(every(once()).await.iter().all(Result::is_err));
    let error = ask(once()).await.unwrap_err().to_string();
    assert!(error.contains("has failed 32 times in a row since") && error.contains("another 30s"), "{error}");
    // After a reboot nobody knows for how long it has been away.
    open(dir.path(), &clock).reset_breaker(None).unwrap();
    *back.lock().unwrap() = Instant::now() + AWAY * 5;
    assert!(every(once()).await.iter().all(Result::is_err));
    *clock.boot.lock().unwrap() = "another".into();
    tokio::time::sleep(AWAY * 2).await;
    let outcomes = [ask(once()).await, ask(once()).await];
    assert!(outcomes.iter().all(|outcome| outcome.as_ref().is_err_and(Error::can_retry)), "{outcomes:?}");
    tokio::time::sleep(AWAY).await;
    ask(once()).await.unwrap_err();
    assert!(!ask(once()).await.unwrap_err().can_retry());
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

/// How long a call has to wait, in seconds of the paused clock.
async fn waits(store: &StateStore, guard: Guard, effect: Effect) -> u64 {
    let began = Instant::now();
    door(store, guard, once()).ctx.call(&call(effect), || async { Ok(()) }).await.unwrap();
    began.elapsed().as_secs()
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_for_a_pause_gets_it_from_every_process() {
    let dir = tempfile::tempdir().unwrap();
    let clock = paused();
    let busy = |seconds| Error::new(ErrorKind::RateLimited, "429").retry(Retry::After(Duration::from_secs(seconds)));
    for effect in [Effect::Read, Effect::Cheap] {
        let first = door(&open(dir.path(), &clock), NOBODY, once());
        first.ctx.call(&call(Effect::Read), || async { Err::<(), _>(busy(120)) }).await.unwrap_err();
        // Another process, which was told nothing.
        let waited = waits(&open(dir.path(), &clock), NOBODY, effect).await;
        assert!((119..=121).contains(&waited), "{effect:?}: {waited}");
        assert_eq!(waits(&open(dir.path(), &clock), NOBODY, effect).await, 0, "{effect:?}: it is over");
    }
    // Longer than anybody waits for: nothing goes out.
    let first = door(&open(dir.path(), &clock), NOBODY, once());
    first.ctx.call(&call(Effect::Read), || async { Err::<(), _>(busy(7200)) }).await.unwrap_err();
    let next = door(&open(dir.path(), &clock), NOBODY, RetrySpec::default());
    let error = next.ctx.call(&call(Effect::Read), || async { Ok(()) }).await.unwrap_err();
    assert_eq!(next.counted.calls.tries.get(), 0);
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    assert!(error.to_string().contains("asked to be left alone for another 2h"), "{error}");
    // A person may say that it need not be waited for.
    assert_eq!(open(dir.path(), &clock).reset_breaker(None).unwrap(), 1);
    assert_eq!(waits(&open(dir.path(), &clock), NOBODY, Effect::Read).await, 0);
    first.ctx.call(&call(Effect::Read), || async { Err::<(), _>(busy(7200)) }).await.unwrap_err();
    // After a reboot nobody knows how long ago that was: it is asked.
    *clock.boot.lock().unwrap() = "another".into();
    assert_eq!(waits(&open(dir.path(), &clock), NOBODY, Effect::Read).await, 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_flows_for_longer_than_its_deadline_keeps_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let clock = paused();
    let one = Guard { max_concurrent: Some(1), ..NOBODY };
    let store = open(dir.path(), &clock);
    let ((), lease) = door(&store, one, once()).ctx.stream(&call(Effect::Read), || async { Ok(()) }).await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let other = open(dir.path(), &clock);
    let began = Instant::now();
    let finish = async {
        tokio::time::sleep(Duration::from_secs(300)).await;
        lease.done();
    };
    tokio::join!(waits(&other, one, Effect::Read), finish);
    assert!(began.elapsed() >= Duration::from_secs(300), "{:?}", began.elapsed());
    // Whoever dies while it flows is not waited for longer than one deadline.
    let ((), lease) = door(&store, one, once()).ctx.stream(&call(Effect::Read), || async { Ok(()) }).await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    drop(lease);
    let waited = waits(&other, one, Effect::Read).await;
    assert!((28..=61).contains(&waited), "{waited}");
}

/// A door before which a call waits, and in which.
type Blocked = fn(&StateStore) -> (Guard, RetrySpec, Effect);

#[tokio::test(start_paused = true)]
async fn a_call_can_be_abandoned_wherever_it_waits() {
    let busy = Guard { max_concurrent: Some(1), ..NOBODY };
    let slow = Guard { min_interval: Some(Period::seconds(300)), ..NOBODY };
    let places: [(&str, &str, Blocked, Guard); 4] = [
        ("a free place", "next request when another one has ended", |_| (NOBODY, once(), Effect::Read), busy),
        ("the pause", "next request in", |_| (NOBODY, once(), Effect::Read), slow),
        ("the answer", "the call 'render /Sales'", |_| (NOBODY, once(), Effect::Read), NOBODY),
        ("the next try", "the next try of", |_| (NOBODY, RetrySpec::default(), Effect::Read), NOBODY),
    ];
    for (place, words, blocked, others) in places {
        for cancelled in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let clock = paused();
            let store = open(dir.path(), &clock);
            let (guard, retry, effect) = blocked(&store);
            // Somebody was here before.
            let ((), before) =
                door(&store, others, once()).ctx.stream(&call(Effect::Read), || async { Ok(()) }).await.unwrap();
            let mut before = Some(before);
            if place == "the pause" {
                before.take().unwrap().done();
            }
            let waiting =
                door(&store, guard, RetrySpec { initial: Period::seconds(1000), max: Period::seconds(1000), ..retry });
            let render = call(effect);
            let attempt = || async {
                if place == "the next try" {
                    return Err(Error::unavailable("503"));
                }
                std::future::pending::<Result<()>>().await
            };
            {
                let mut calling = std::pin::pin!(waiting.ctx.call(&render, attempt));
                tokio::select! {
                    outcome = &mut calling => panic!("{place}: {outcome:?}"),
                    () = tokio::time::sleep(Duration::from_millis(200)) => {}
                }
                let shown = waiting.counted.pulse.waits_in_words();
                assert!(shown.starts_with(words), "{place}: {shown}");
                if cancelled {
                    waiting.cancel.cancel();
                    assert_eq!(calling.await.unwrap_err().kind(), ErrorKind::Cancelled, "{place}");
                }
            }
            assert_eq!(waiting.counted.pulse.waits_in_words(), "its own work", "{place}");
            // Nothing of it is left that others would wait for, but what may still be under way.
            drop(before);
            let waited = waits(&open(dir.path(), &clock), others, Effect::Read).await;
            let expected = match place {
                "a free place" => 59..=60,
                "the pause" => 299..=300,
                _ => 0..=0,
            };
            assert!(expected.contains(&waited), "{place}: {waited} s");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() })]

    /// Several processes with limits of their own ask one server: whatever they do, the strictest limits hold.
    #[test]
    fn limits_hold_between_processes(
        parties in prop::collection::vec((limits(), prop::collection::vec((1u64..20, any::<bool>()), 1..6)), 2..5)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let log = runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let clock = paused();
            let log: Arc<Mutex<Vec<Seen>>> = Arc::default();
            let mut tasks = tokio::task::JoinSet::new();
            for (guard, requests) in parties {
                let (store, log, start) = (open(dir.path(), &clock), Arc::clone(&log), clock.start);
                tasks.spawn(async move {
                    for (took, dies) in requests {
                        let (log, ctx) = (Arc::clone(&log), door(&store, guard, once()).ctx);
                        let deadline = Duration::from_secs(30);
                        let attempt = || {
                            let began = start.elapsed();
                            let at = log.lock().unwrap().len();
                            log.lock().unwrap().push(Seen { guard, began, ended: began + deadline });
                            let log = Arc::clone(&log);
                            async move {
                                tokio::time::sleep(Duration::from_secs(took)).await;
                                log.lock().unwrap()[at].ended = start.elapsed();
                                Ok(())
                            }
                        };
                        let render = call(Effect::Read).deadline(deadline);
                        if dies {
                            // Killed in the middle: it counts until its deadline.
                            let before = log.lock().unwrap().len();
                            let mut calling = std::pin::pin!(ctx.call(&render, attempt));
                            loop {
                                tokio::select! {
                                    biased;
                                    _ = &mut calling => break,
                                    () = tokio::time::sleep(Duration::from_millis(10)) => {}
                                }
                                if log.lock().unwrap().len() > before {
                                    break;
                                }
                            }
                        } else {
                            ctx.call(&render, attempt).await.unwrap();
                        }
                    }
                });
            }
            while let Some(done) = tasks.join_next().await {
                done.unwrap();
            }
            log.lock().unwrap().clone()
        });
        for (n, next) in log.iter().enumerate() {
            // Whose limits are in force: its own, and those of requests whose pause is not over.
            let earlier = &log[..n];
            for limits in earlier.iter().map(|seen| seen.guard).chain([next.guard]) {
                let in_force = limits == next.guard || earlier.iter().any(|seen| seen.guard == limits && seen.ended > next.began);
                if !in_force {
                    continue;
                }
                let under_way = earlier.iter().filter(|seen| seen.ended > next.began).count();
                prop_assert!(limits.max_concurrent.is_none_or(|max| under_way < max as usize), "{under_way} under way: {log:#?}");
                if let Some(interval) = limits.min_interval {
                    prop_assert!(earlier.iter().all(|seen| seen.ended + interval.0 <= next.began + SLACK), "too early: {next:?} in {log:#?}");
                }
                if let Some(Share(share)) = limits.busy_share {
                    let free = |seen: &Seen| seen.began + (seen.ended - seen.began).div_f64(share);
                    prop_assert!(earlier.iter().all(|seen| free(seen) <= next.began + SLACK), "too busy: {next:?} in {log:#?}");
                }
            }
        }
    }
}

/// The store counts in milliseconds.
const SLACK: Duration = Duration::from_millis(5);

/// A request that went out.
#[derive(Clone, Debug)]
struct Seen {
    guard: Guard,
    began: Duration,
    ended: Duration,
}

fn limits() -> impl Strategy<Value = Guard> {
    prop_oneof![
        (1u32..4).prop_map(|max| Guard { max_concurrent: Some(max), ..NOBODY }),
        (1u64..40).prop_map(|seconds| Guard { min_interval: Some(Period::seconds(seconds)), ..NOBODY }),
        (1u32..10).prop_map(|tenths| Guard { busy_share: Some(Share(f64::from(tenths) / 10.0)), ..NOBODY }),
    ]
}
