use std::time::Duration;

use jiff::civil::date;
use proptest::prelude::*;

use super::*;

fn grid(size: &str, zone: &str) -> Grid {
    Grid::new(size.parse().unwrap(), TimeZone::get(zone).unwrap()).unwrap()
}

fn wanted(run: &str, now: Timestamp) -> Wanted<'_> {
    Wanted { run, now, start: None, lookback: Period::seconds(0), include_current: false, most: None, whole: false }
}

/// What a run reads, in short.
fn shown(planned: &[Planned]) -> String {
    let text = planned.iter().map(|planned| {
        let note = if planned.current {
            " running"
        } else if planned.again {
            " again"
        } else {
            ""
        };
        let (start, end) = (planned.window.start, planned.window.end);
        format!("{} to {}{note}", start.strftime("%dT%H:%M"), end.strftime("%dT%H:%M"))
    });
    text.collect::<Vec<_>>().join(", ")
}

/// The position after the last window, as it comes back from a checkpoint.
fn last(planned: &[Planned]) -> Option<Standing> {
    let text = serde_json::to_string(&planned.last()?.then).unwrap();
    Some(serde_json::from_str(&text).unwrap())
}

#[test]
fn sizes_fit_a_day_or_are_whole_days() {
    for (size, fits) in [
        ("1h", true),
        ("90m", true),
        ("2h", true),
        ("12h", true),
        ("24h", true),
        ("1d", true),
        ("7d", true),
        ("3d", true),
        ("59m", false),
        ("0s", false),
        ("5h", false),
        ("25h", false),
        ("36h", false),
        ("1h1ms", false),
        ("7h", false),
    ] {
        assert_eq!(Grid::new(size.parse().unwrap(), TimeZone::UTC).is_ok(), fits, "{size}");
    }
    let error = Grid::new("5m".parse().unwrap(), TimeZone::UTC).unwrap_err();
    assert_eq!(error.to_string(), "window.size is 5m: a window has at least an hour");
}

#[test]
fn windows_begin_at_midnight_and_weeks_on_monday() {
    let check =
        |size: &str, at: DateTime, expect: DateTime| assert_eq!(grid(size, "UTC").floor(at), expect, "{size} {at}");
    let noon = date(2026, 11, 21).at(13, 47, 1, 5);
    check("1h", noon, date(2026, 11, 21).at(13, 0, 0, 0));
    check("90m", noon, date(2026, 11, 21).at(13, 30, 0, 0));
    check("12h", noon, date(2026, 11, 21).at(12, 0, 0, 0));
    check("1d", noon, date(2026, 11, 21).at(0, 0, 0, 0));
    check("7d", noon, date(2026, 11, 16).at(0, 0, 0, 0));
    check("7d", date(1999, 12, 31).at(1, 0, 0, 0), date(1999, 12, 27).at(0, 0, 0, 0));
}

#[test]
fn a_window_is_complete_when_the_clock_will_not_show_it_again() {
    let check = |zone: &str, size: &str, end: DateTime, expect: &str| {
        assert_eq!(grid(size, zone).complete_at(end).to_string(), expect, "{zone} {end}");
    };
    let autumn = date(2026, 10, 25);
    // 03:00 CEST becomes 02:00 CET.
    check("Europe/Berlin", "1h", autumn.at(2, 0, 0, 0), "2026-10-25T00:00:00Z");
    check("Europe/Berlin", "1h", autumn.at(3, 0, 0, 0), "2026-10-25T02:00:00Z");
    check("Europe/Berlin", "90m", autumn.at(3, 0, 0, 0), "2026-10-25T02:00:00Z");
    // 01:30 comes twice; what lies before it is over only at the second passing.
    check("America/New_York", "90m", date(2026, 11, 1).at(1, 30, 0, 0), "2026-11-01T06:30:00Z");
    check("America/New_York", "1h", date(2026, 11, 1).at(1, 0, 0, 0), "2026-11-01T05:00:00Z");
    check("America/New_York", "1h", date(2026, 11, 1).at(2, 0, 0, 0), "2026-11-01T07:00:00Z");
    // 02:00 CET becomes 03:00 CEST.
    check("Europe/Berlin", "1h", date(2026, 3, 29).at(2, 0, 0, 0), "2026-03-29T01:00:00Z");
    check("Europe/Berlin", "1h", date(2026, 3, 29).at(3, 0, 0, 0), "2026-03-29T01:00:00Z");
    // Half an hour, back and forth.
    check("Australia/Lord_Howe", "1h", date(2026, 4, 5).at(2, 0, 0, 0), "2026-04-04T15:30:00Z");
}

#[test]
fn days_of_23_and_25_hours_are_one_window() {
    for (day, hours) in [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25), (date(2026, 6, 1), 24)] {
        let grid = grid("1d", "Europe/Berlin");
        let window = grid.window(day.at(0, 0, 0, 0));
        let length = grid.complete_at(window.end).duration_since(grid.complete_at(window.start));
        assert_eq!(length.as_hours(), hours, "{day}");
    }
}

#[test]
fn the_repeated_hour_is_one_request_and_the_missing_hour_none() {
    let read = |from: DateTime, now: &str| {
        let wanted = Wanted { start: Some(from), ..wanted("r", now.parse().unwrap()) };
        shown(&grid("1h", "Europe/Berlin").choose(None, &wanted).unwrap())
    };
    let autumn = date(2026, 10, 25).at(1, 0, 0, 0);
    assert_eq!(read(autumn, "2026-10-25T00:59:59Z"), "25T01:00 to 25T02:00", "in the first passing");
    assert_eq!(read(autumn, "2026-10-25T01:59:59Z"), "25T01:00 to 25T02:00", "in the second passing");
    assert_eq!(
        read(autumn, "2026-10-25T03:00:00Z"),
        "25T01:00 to 25T02:00, 25T02:00 to 25T03:00, 25T03:00 to 25T04:00"
    );
    let spring = date(2026, 3, 29).at(0, 0, 0, 0);
    assert_eq!(
        read(spring, "2026-03-29T03:00:00Z"),
        "29T00:00 to 29T01:00, 29T01:00 to 29T02:00, 29T03:00 to 29T04:00, 29T04:00 to 29T05:00"
    );
}

#[test]
fn what_a_run_reads() {
    let hour = |text: &str| format!("2026-01-01T{text}:00Z").parse::<Timestamp>().unwrap();
    let grid = grid("1h", "UTC");
    let read = |from: Option<&Standing>, change: &dyn Fn(&mut Wanted<'_>), run: &str, now: &str| {
        let mut wanted = wanted(run, hour(now));
        change(&mut wanted);
        grid.choose(from, &wanted).unwrap()
    };
    let plain: &dyn Fn(&mut Wanted<'_>) = &|_| {};
    // Without a start, the newest complete window; then what is new; then nothing.
    let first = read(None, plain, "a", "05:10");
    assert_eq!(shown(&first), "01T04:00 to 01T05:00");
    assert_eq!(shown(&read(last(&first).as_ref(), plain, "b", "05:59")), "");
    let second = read(last(&first).as_ref(), plain, "c", "08:00");
    assert_eq!(shown(&second), "01T05:00 to 01T06:00, 01T06:00 to 01T07:00, 01T07:00 to 01T08:00");
    // A run that stopped after its first window goes on inside; another run as well.
    let inside: Standing = second[0].then.clone();
    assert_eq!(shown(&read(Some(&inside), plain, "c", "08:00")), "01T06:00 to 01T07:00, 01T07:00 to 01T08:00");

    // A look-back reads again, but not before the first window there was, and not what was old enough when it was read.
    let back: &dyn Fn(&mut Wanted<'_>) = &|wanted| wanted.lookback = "2h".parse().unwrap();
    let first = read(None, back, "a", "05:10");
    assert_eq!(shown(&first), "01T04:00 to 01T05:00");
    let second = read(last(&first).as_ref(), back, "b", "05:20");
    assert_eq!(shown(&second), "01T04:00 to 01T05:00 again");
    let third = read(last(&second).as_ref(), back, "c", "07:01");
    assert_eq!(shown(&third), "01T04:00 to 01T05:00 again, 01T05:00 to 01T06:00, 01T06:00 to 01T07:00");
    let fourth = read(last(&third).as_ref(), back, "d", "08:01");
    assert_eq!(shown(&fourth), "01T05:00 to 01T06:00 again, 01T06:00 to 01T07:00 again, 01T07:00 to 01T08:00");
    // Stopped in the middle of reading again: goes on inside, and forgets nothing of the look-back.
    let inside = fourth[0].then.clone();
    let rest = read(Some(&inside), back, "d", "08:01");
    assert_eq!(shown(&rest), "01T06:00 to 01T07:00 again, 01T07:00 to 01T08:00");
    assert_eq!(last(&rest), last(&fourth));
    let left_behind = read(Some(&inside), back, "e", "08:02");
    assert_eq!(shown(&left_behind), "01T06:00 to 01T07:00 again, 01T07:00 to 01T08:00");
    // After a long pause everything is read once, and what was too young when it was read, again.
    let late = read(last(&fourth).as_ref(), back, "f", "12:00");
    assert_eq!(shown(&late[..3]), "01T06:00 to 01T07:00 again, 01T07:00 to 01T08:00 again, 01T08:00 to 01T09:00");

    // The hour that is still running is read on request, once per run, and is not done by that.
    let current: &dyn Fn(&mut Wanted<'_>) = &|wanted| wanted.include_current = true;
    let first = read(None, current, "a", "05:10");
    assert_eq!(shown(&first), "01T04:00 to 01T05:00, 01T05:00 to 01T06:00 running");
    assert_eq!(shown(&read(last(&first).as_ref(), current, "a", "05:10")), "");
    assert_eq!(shown(&read(last(&first).as_ref(), current, "b", "05:30")), "01T05:00 to 01T06:00 running");
    assert_eq!(
        shown(&read(last(&first).as_ref(), current, "c", "06:00")),
        "01T05:00 to 01T06:00, 01T06:00 to 01T07:00 running"
    );

    // A start, and a limit: oldest first, the next run goes on.
    let few: &dyn Fn(&mut Wanted<'_>) = &|wanted| {
        wanted.start = Some(date(2026, 1, 1).at(1, 0, 0, 0));
        wanted.most = Some(2);
    };
    let first = read(None, few, "a", "05:10");
    assert_eq!(shown(&first), "01T01:00 to 01T02:00, 01T02:00 to 01T03:00");
    assert_eq!(shown(&read(last(&first).as_ref(), few, "b", "05:10")), "01T03:00 to 01T04:00, 01T04:00 to 01T05:00");
    // A start in the future: nothing, and no error.
    let future: &dyn Fn(&mut Wanted<'_>) = &|wanted| wanted.start = Some(date(2026, 1, 2).at(0, 0, 0, 0));
    assert_eq!(shown(&read(None, future, "a", "05:10")), "");

    // Whole: from the start, whatever is done; without a start, as ever.
    let whole: &dyn Fn(&mut Wanted<'_>) = &|wanted| {
        wanted.start = Some(date(2026, 1, 1).at(3, 0, 0, 0));
        wanted.whole = true;
    };
    let done = last(&read(None, plain, "a", "05:10"));
    assert_eq!(
        shown(&read(done.as_ref(), whole, "b", "05:10")),
        "01T03:00 to 01T04:00 again, 01T04:00 to 01T05:00 again"
    );
    let no_start: &dyn Fn(&mut Wanted<'_>) = &|wanted| wanted.whole = true;
    assert_eq!(shown(&read(done.as_ref(), no_start, "b", "07:10")), "01T05:00 to 01T06:00, 01T06:00 to 01T07:00");
    let limited = Wanted {
        most: Some(1),
        whole: true,
        start: Some(date(2026, 1, 1).at(3, 0, 0, 0)),
        ..wanted("b", hour("05:10"))
    };
    assert!(grid.choose(None, &limited).unwrap_err().to_string().starts_with("2 windows lie between"));
}

const ZONES: [&str; 9] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "America/St_Johns",
    "Asia/Beirut",
    "Pacific/Apia",
    "Africa/Casablanca",
];

fn any_grid() -> impl Strategy<Value = (Grid, u64)> {
    let size = prop_oneof![Just(1u64), Just(2), Just(3), Just(6), Just(12), Just(24), Just(72), Just(168)];
    (size, 0..ZONES.len()).prop_map(|(hours, zone)| {
        let size = Period(Duration::from_secs(hours * HOUR));
        (Grid::new(size, TimeZone::get(ZONES[zone]).unwrap()).unwrap(), hours)
    })
}

/// Around a clock change as well as anywhere.
fn any_start() -> impl Strategy<Value = Timestamp> {
    let changes = [
        "2026-03-29T01:00:00Z",
        "2026-10-25T01:00:00Z",
        "2026-11-01T06:00:00Z",
        "2026-04-04T15:00:00Z",
        "2011-12-30T10:00:00Z",
    ];
    let changes = changes.map(|at| at.parse::<Timestamp>().unwrap().as_second());
    let near = (0..changes.len(), -60 * 3600i64..10 * 3600).prop_map(move |(at, by)| changes[at] + by);
    prop_oneof![near, 946_684_800i64..1_900_000_000].prop_map(|second| Timestamp::from_second(second).unwrap())
}

proptest! {
    /// Whatever the zone, the size, the gaps between runs and where they stopped: every row that existed when its window was complete is
    /// read, from a window that was complete, and without a look-back once.
    #[test]
    fn nothing_is_lost_and_nothing_read_too_early(
        (grid, hours) in any_grid(),
        start in any_start(),
        runs in proptest::collection::vec((1u64..40 * 3600, 0usize..6, any::<bool>()), 1..12),
        lookback in prop_oneof![Just(0u64), 1u64..400],
        row_after in 0i64..80 * 3600,
        most in proptest::option::of(1u64..5),
    ) {
        let first = grid.floor(grid.wall(start));
        let lookback = Period(Duration::from_secs(lookback * HOUR / 10));
        let mut now = start;
        let mut standing: Option<Standing> = None;
        let mut read: Vec<(Timestamp, Window)> = Vec::new();
        for (number, (pause, stop_after, again)) in runs.iter().enumerate() {
            now = now.checked_add(Duration::from_secs(pause * hours.min(24))).unwrap();
            let run = format!("run {number}");
            let wanted = Wanted { run: &run, now, start: Some(first), lookback, include_current: false, most, whole: false };
            let planned = grid.choose(standing.as_ref(), &wanted).unwrap();
            prop_assert!(planned.is_sorted_by_key(|planned| planned.window.start), "oldest first");
            // It stops after some windows; sometimes it is taken up again, as the same run.
            let done = &planned[..planned.len().min(*stop_after)];
            read.extend(done.iter().map(|planned| (now, planned.window)));
            standing = last(done).or(standing);
            if *again && let Some(standing_now) = &standing {
                let rest = grid.choose(Some(standing_now), &wanted).unwrap();
                if !done.is_empty() {
                    prop_assert_eq!(&rest[..], &planned[done.len()..], "taken up, it reads the rest and nothing else");
                }
                read.extend(rest.iter().map(|planned| (now, planned.window)));
                standing = last(&rest).or(standing);
            }
        }
        for (now, window) in &read {
            prop_assert!(grid.complete_at(window.end) <= *now, "{window:?} was read before it was complete");
            prop_assert_eq!(grid.floor(window.start), window.start, "aligned");
            let length = grid.complete_at(window.end).duration_since(grid.complete_at(window.start)).as_hours();
            prop_assert!(length >= 0);
        }
        if lookback.0.is_zero() {
            let mut starts: Vec<_> = read.iter().map(|(_, window)| window.start).collect();
            starts.sort();
            prop_assert!(starts.windows(2).all(|pair| pair[0] < pair[1]), "without a look-back each window is read once");
        }
        // A row of any moment since the first run could be made: if its window is done, it was read after the row was there.
        let row = start.checked_add(Duration::from_secs(row_after as u64)).unwrap();
        let stamp = grid.wall(row);
        if let Some(standing) = &standing && stamp < standing.done && stamp >= first {
            let holds = read.iter().any(|(now, window)| window.start <= stamp && stamp < window.end && row < *now);
            prop_assert!(holds, "the row of {row} (stamped {stamp}) is lost; read: {read:?}");
            if stamp < standing.next_from {
                let old = read.iter().any(|(now, window)| {
                    let age = grid.complete(*now).duration_since(window.end);
                    window.start <= stamp && stamp < window.end && age >= lookback.0.try_into().unwrap()
                });
                prop_assert!(old, "{stamp} was never read when it was older than the look-back");
            }
        }
    }

    /// The newest complete window is over, and the one behind it is not.
    #[test]
    fn complete_is_complete((grid, _) in any_grid(), now in any_start()) {
        let end = grid.complete(now);
        prop_assert_eq!(grid.floor(end), end);
        prop_assert!(grid.complete_at(end) <= now);
        prop_assert!(grid.complete_at(grid.next(end)) > now);
    }
}
