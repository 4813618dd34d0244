//! Budgets: a vendor's window and day are never overrun, whatever processes, delays and deaths there are.
#![allow(clippy::unwrap_used, clippy::panic, reason = "it is what makes a test fail")]

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use towpath_core::{
    Budget, Burst, Call, Context, Day, Effect, Error, ErrorKind, Name, Price, Resets, Result, Retry, Share, Told,
    pipeline::{Guard, RetrySpec, Role},
};
use towpath_engine::{
    StateStore,
    call::CallDoor,
    progress::ComponentProgress,
    state::clock::{Clock, Moment},
};

/// Boot clock and wall clock go with tokio's.
struct Paused(Instant);

const BEGAN: &str = "2026-11-21T17:00:00Z";

impl Clock for Paused {
    fn now(&self) -> Moment {
        Moment { boot: "boot".into(), ms: 1_000_000 + self.0.elapsed().as_millis() as i64 }
    }
    fn wall(&self) -> Timestamp {
        let gone = SignedDuration::from_millis(self.0.elapsed().as_millis() as i64);
        BEGAN.parse::<Timestamp>().unwrap() + gone
    }
}

fn open(dir: &Path, clock: &Arc<Paused>) -> StateStore {
    StateStore::open_with(dir, Arc::clone(clock) as Arc<dyn Clock>).unwrap()
}

fn context(store: &StateStore) -> (Context, Arc<ComponentProgress>) {
    let (cancel, counted) = (CancellationToken::new(), ComponentProgress::new("crm".into(), Role::Sink));
    let retry = RetrySpec { attempts: 1, ..RetrySpec::default() };
    let door =
        CallDoor::new(store.clone(), Guard::default(), retry, Duration::from_secs(30), cancel.clone(), counted.clone());
    let ctx = Context::new(Name::from("p"), Name::from("crm"), Arc::new(door), Arc::new(store.clone()), cancel);
    (ctx.with_ledger(Arc::new(store.clone())), counted)
}

fn budget(burst: Option<(u32, u64)>, day: Option<(u64, f64)>) -> Arc<Budget> {
    Arc::new(Budget {
        account: "crm https://acme.example".to_owned(),
        burst: burst.map(|(requests, ms)| Burst { requests, window: Duration::from_millis(ms) }),
        day: day.map(|(tokens, share)| Day { tokens, share: Share(share), resets: Resets::at_hour(0, "UTC").unwrap() }),
    })
}

fn call(budget: &Arc<Budget>, tokens: u32) -> Call {
    Call::new("list persons", "https://acme.example:443", Effect::Read)
        .price(Price { budget: Arc::clone(budget), tokens })
}

/// The most arrivals in any window of the server's.
fn fullest(arrivals: &mut [Duration], window: Duration) -> usize {
    arrivals.sort_unstable();
    let within = |(at, last): (usize, &Duration)| {
        let first = arrivals.partition_point(|arrival| *arrival + window <= *last);
        at + 1 - first
    };
    arrivals.iter().enumerate().map(within).max().unwrap_or(0)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

/// One request of one process: how much later than the fastest it arrives, how much later its answer comes, and whether its process is
/// killed before that.
type Trip = (u64, u64, bool);

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]

    #[test]
    fn several_processes_never_exceed_the_window(
        requests in 2u32..12,
        window in 500u64..4000,
        base in 5u64..150,
        parties in prop::collection::vec(
            prop::collection::vec(prop::collection::vec((0u64..400, 0u64..400, prop::bool::weighted(0.05)), 1..12), 1..4),
            1..4,
        )
    ) {
        let (mut arrivals, sent) = runtime().block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let clock = Arc::new(Paused(Instant::now()));
            let arrivals: Arc<Mutex<Vec<Duration>>> = Arc::default();
            let budget = budget(Some((requests, window)), None);
            let mut tasks = tokio::task::JoinSet::new();
            let mut sent = 0;
            for workers in parties {
                let store = open(dir.path(), &clock);
                // The first answer is a fast one, so that fast ones are known.
                let first: Vec<Trip> = vec![(0, 0, false)];
                let trips = std::iter::once(first).chain(workers).collect::<Vec<_>>();
                for worker in trips {
                    sent += worker.len();
                    let (ctx, _) = context(&store);
                    let (budget, arrivals, clock) = (Arc::clone(&budget), Arc::clone(&arrivals), Arc::clone(&clock));
                    tasks.spawn(async move {
                        for (late, slow, dies) in worker {
                            let on_the_way = Duration::from_millis(base + late);
                            let answer = Duration::from_millis(base + slow);
                            let trip = || async {
                                let arrived = clock.0.elapsed() + on_the_way;
                                arrivals.lock().unwrap().push(arrived);
                                sleep(on_the_way + answer).await;
                                Ok(())
                            };
                            let call = call(&budget, 1);
                            let calling = ctx.call(&call, trip);
                            if dies {
                                let mut calling = std::pin::pin!(calling);
                                let before = arrivals.lock().unwrap().len();
                                loop {
                                    tokio::select! {
                                        biased;
                                        _ = &mut calling => break,
                                        () = sleep(Duration::from_millis(1)) => {}
                                    }
                                    if arrivals.lock().unwrap().len() > before {
                                        break;
                                    }
                                }
                            } else {
                                calling.await.unwrap();
                            }
                        }
                    });
                }
            }
            while let Some(ended) = tasks.join_next().await {
                ended.unwrap();
            }
            (Arc::into_inner(arrivals).unwrap().into_inner().unwrap(), sent)
        });
        prop_assert!(arrivals.len() >= sent.min(1));
        let fullest = fullest(&mut arrivals, Duration::from_millis(window));
        prop_assert!(fullest <= requests as usize, "{fullest} in a window of {requests}");
    }

    /// Processes that spend, are told of what others spend, and die: our part and the whole are kept in every day.
    #[test]
    fn several_processes_never_exceed_the_day(
        tokens in 50u64..400,
        share in 0.2f64..=1.0,
        steps in prop::collection::vec((0usize..3, 1u32..30, 0u64..20, 0u64..7200), 1..120)
    ) {
        runtime().block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let clock = Arc::new(Paused(Instant::now()));
            let stores: Vec<_> = (0..3).map(|_| open(dir.path(), &clock)).collect();
            let budget = budget(None, Some((tokens, share)));
            // By the server's books.
            let (mut day, mut ours, mut others) = (0, 0u64, 0u64);
            for (who, price, spent_by_others, pause) in steps {
                sleep(Duration::from_secs(pause)).await;
                let now = (clock.wall() + SignedDuration::from_hours(0)).as_second() / 86_400;
                if now != day {
                    (day, ours, others) = (now, 0, 0);
                }
                let (ctx, _) = context(&stores[who]);
                // They spend while we look away; the next answer tells.
                others += spent_by_others.min(tokens.saturating_sub(ours + others));
                ctx.told(&budget, Told { day_left: Some(tokens - ours - others), ..Told::default() }).unwrap();
                match ctx.call(&call(&budget, price), || async { Ok(()) }).await {
                    Ok(()) => ours += u64::from(price),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::RateLimited, "{error}");
                        let Retry::After(wait) = error.retrying() else { panic!("{error}") };
                        assert!(wait <= Duration::from_secs(86_400), "{wait:?}");
                    }
                }
                assert!(ours <= (tokens as f64 * share) as u64, "{ours} of our share of {tokens} at {share}");
                // What is known of others is known to within a hundredth.
                assert!(ours + others <= tokens + tokens / 100 + 1, "{ours} + {others} of {tokens}");
                let state = ctx.budget(&budget).unwrap();
                assert_eq!(state.spent_today, ours);
            }
        });
    }
}

#[test]
fn with_even_delays_nearly_all_of_the_window_is_used() {
    for (requests, window, up, down, jitter) in [(120, 2000, 30, 30, 0), (120, 2000, 60, 80, 20), (20, 2000, 5, 5, 0)] {
        let mut arrivals = runtime().block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let clock = Arc::new(Paused(Instant::now()));
            let store = open(dir.path(), &clock);
            let budget = budget(Some((requests, window)), None);
            let arrivals: Arc<Mutex<Vec<Duration>>> = Arc::default();
            let mut tasks = tokio::task::JoinSet::new();
            for worker in 0..16u64 {
                let (ctx, _) = context(&store);
                let (budget, arrivals, clock) = (Arc::clone(&budget), Arc::clone(&arrivals), Arc::clone(&clock));
                tasks.spawn(async move {
                    for turn in 0u64.. {
                        if clock.0.elapsed() > Duration::from_secs(60) {
                            return;
                        }
                        let late = if jitter == 0 { 0 } else { (worker * 7 + turn * 13) % jitter };
                        let trip = || async {
                            sleep(Duration::from_millis(up + late)).await;
                            arrivals.lock().unwrap().push(clock.0.elapsed());
                            sleep(Duration::from_millis(down)).await;
                            Ok(())
                        };
                        ctx.call(&call(&budget, 5), trip).await.unwrap();
                    }
                });
            }
            while tasks.join_next().await.is_some() {}
            Arc::into_inner(arrivals).unwrap().into_inner().unwrap()
        });
        let allowed = f64::from(requests) * 60_000.0 / window as f64;
        let used = arrivals.len() as f64 / allowed;
        assert!(used >= 0.95, "{used:.3} of the allowance of {requests} in {window} ms");
        assert!(fullest(&mut arrivals, Duration::from_millis(window)) <= requests as usize);
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_says_for_what() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Paused(Instant::now()));
    let store = open(dir.path(), &clock);
    let budget = budget(Some((1, 2000)), None);
    let (ctx, counted) = context(&store);
    ctx.call(&call(&budget, 1), || async { Ok(()) }).await.unwrap();
    let (second, waits) = (call(&budget, 1), Arc::clone(&counted));
    let mut calling = std::pin::pin!(ctx.call(&second, || async { Ok(()) }));
    tokio::select! {
        biased;
        _ = &mut calling => panic!("it had to wait"),
        () = sleep(Duration::from_millis(100)) => {}
    }
    assert_eq!(waits.pulse.waits_in_words(), "next request in 2.0 s, budget of crm https://acme.example");
    calling.await.unwrap();
    assert!(counted.calls.waited_ms.get() >= 2000, "{}", counted.calls.waited_ms.get());
}

#[tokio::test(start_paused = true)]
async fn a_day_that_is_spent_ends_at_the_reset_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Paused(Instant::now()));
    let (one, other) = (open(dir.path(), &clock), open(dir.path(), &clock));
    let budget = budget(None, Some((100, 0.8)));
    let ((ctx, _), (ctx_of_other, _)) = (context(&one), context(&other));
    for _ in 0..7 {
        ctx.call(&call(&budget, 10), || async { Ok(()) }).await.unwrap();
    }
    let refused = |error: Error| format!("{error}\n{}", error.what_to_do().unwrap_or_default());
    let sent = Mutex::new(0);
    let count = || async {
        *sent.lock().unwrap() += 1;
        Result::Ok(())
    };
    let error = ctx_of_other.call(&call(&budget, 11), count).await.unwrap_err();
    insta::assert_snapshot!(refused(error), @r"
    the day's budget of crm https://acme.example is spent: 70 of our 80 tokens (80% of 100); the next call costs 11, and the day begins anew in 7h
    the next run after that takes this one up where it stopped; a larger `share`, plan or number of seats lets it do more in a day
    ");
    assert_eq!(*sent.lock().unwrap(), 0, "nothing was sent");
    ctx.told(&budget, Told { day_left: Some(5), ..Told::default() }).unwrap();
    let error = ctx_of_other.call(&call(&budget, 10), count).await.unwrap_err();
    insta::assert_snapshot!(error, @"the day's budget of crm https://acme.example is spent: 70 of our 80 tokens (80% of 100), and others have spent 25; the next call costs 10, and the day begins anew in 7h");
    insta::assert_json_snapshot!(ctx.budget(&budget).unwrap(), @r#"
    {
      "spent_today": 70,
      "left_today": 5,
      "resets_in": {
        "secs": 25200,
        "nanos": 0
      }
    }
    "#);
    insta::assert_snapshot!(one.show().unwrap().to_string().lines().skip(1).collect::<Vec<_>>().join("\n"), @r"

    budget of crm https://acme.example: 70 tokens spent, others 25 in the day that ends 2026-11-22T00:00:00Z
    ");
    sleep(Duration::from_secs(7 * 3600)).await;
    ctx.call(&call(&budget, 10), count).await.unwrap();
    assert_eq!(ctx.budget(&budget).unwrap().spent_today, 10);
    // The vendor says that it is over, though our books say otherwise: nobody sends anything until then, or until somebody resets it.
    ctx.told(&budget, Told { day_over: Some(Duration::from_secs(5 * 3600)), ..Told::default() }).unwrap();
    let error = ctx_of_other.call(&call(&budget, 0), count).await.unwrap_err();
    assert_eq!(error.retrying(), Retry::After(Duration::from_secs(5 * 3600)));
    insta::assert_snapshot!(refused(error), @r"
    the day's budget of crm https://acme.example is spent, as the server said; it begins anew in 5h
    the next run after that takes this one up where it stopped; `towpath state reset budget` lets it ask sooner
    ");
    assert_eq!(one.reset_budget(Some("crm https://acme.example")).unwrap(), 1);
    ctx_of_other.call(&call(&budget, 10), count).await.unwrap();
    assert_eq!(*sent.lock().unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_others_request_leaves_less_of_the_window() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Paused(Instant::now()));
    let store = open(dir.path(), &clock);
    let budget = budget(Some((20, 2000)), None);
    let (ctx, _) = context(&store);
    ctx.call(&call(&budget, 1), || async { Ok(()) }).await.unwrap();
    // One of ours, and eighteen of somebody else's.
    ctx.told(&budget, Told { window_left: Some(1), ..Told::default() }).unwrap();
    let began = Instant::now();
    ctx.call(&call(&budget, 1), || async { Ok(()) }).await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(100), "one is left");
    ctx.call(&call(&budget, 1), || async { Ok(()) }).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(2), "then the window is full: {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_day_that_the_server_says_is_over_is_no_failure_of_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Paused(Instant::now()));
    let (one, other) = (open(dir.path(), &clock), open(dir.path(), &clock));
    let budget = budget(None, Some((100, 1.0)));
    let ((ctx, _), (ctx_of_other, _)) = (context(&one), context(&other));
    let hours = Duration::from_secs(5 * 3600);
    let error = ctx
        .call(&call(&budget, 5), || async {
            ctx.told(&budget, Told { day_over: Some(hours), ..Told::default() })?;
            Result::<()>::Err(Error::rate_limited("429: daily request budget exceeded", Some(hours)))
        })
        .await
        .unwrap_err();
    insta::assert_snapshot!(error, @"the day's budget of crm https://acme.example is spent, as the server said; it begins anew in 5h: 429: daily request budget exceeded");
    assert_eq!((error.kind(), error.retrying()), (ErrorKind::RateLimited, Retry::After(hours)));
    let error = ctx_of_other.call(&call(&budget, 5), || async { Ok(()) }).await.unwrap_err();
    assert!(error.to_string().contains("as the server said"), "{error}");
    // Nothing else is in the way once it is forgotten.
    one.reset_budget(None).unwrap();
    ctx_of_other.call(&call(&budget, 5), || async { Ok(()) }).await.unwrap();
}
