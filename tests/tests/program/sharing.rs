//! What processes share: names of pipelines, and how gently a server is treated.

use std::time::Duration;

use crate::kit::*;

#[test]
fn two_files_of_one_name_with_different_ends_are_refused() {
    let place = Place::new();
    let pipeline = |table: &str| {
        format!(
            "name: orders
sources:
  file: {{ type: csv, path: in.csv }}
sinks:
  table: {{ type: sqlite, inputs: [file], path: out.db, table: {table}, write: append }}
"
        )
    };
    place.write("in.csv", "id\n1\n2\n");
    place.write("one.yaml", &pipeline("one"));
    place.write("two.yaml", &pipeline("two"));
    place.run("one.yaml").expect(0);
    let ran = place.run("two.yaml").expect(1);
    assert!(
        ran.err.contains("the name 'orders' belongs to") && ran.err.contains("one.yaml") && ran.err.contains("hint:"),
        "{}",
        ran.err
    );
    assert_eq!(place.rows("out.db", "SELECT name FROM sqlite_schema WHERE name = 'two'"), [""; 0]);
    // With the same ends it is the same pipeline, moved.
    std::fs::rename(place.path("one.yaml"), place.path("moved.yaml")).unwrap();
    place.run("moved.yaml").expect(0);
    // The one that has the name may be edited.
    place.write("moved.yaml", &pipeline("three"));
    place.run("moved.yaml").expect(0);
    place.run("two.yaml").expect(1);
    place.towpath(&["state", "reset", "checkpoint", "orders"]).expect(0);
    place.run("two.yaml").expect(0);
    assert_eq!(
        place.rows(
            "out.db",
            "SELECT (SELECT count(*) FROM one), (SELECT count(*) FROM two), (SELECT count(*) FROM three)"
        ),
        ["4|2|2"]
    );
}

/// A pipeline of three windows under a guard.
fn guarded(reports: &Reports, name: &str, guard: &str) -> String {
    let source = reports.source(&format!("{}, guard: {guard}", windows(3)));
    format!(
        "sources:
  production: {source}
sinks:
  table: {{ type: sqlite, inputs: [production], path: {name}.db, table: t, write: append }}
"
    )
}

#[test]
fn two_processes_keep_one_guard() {
    let place = Place::new();
    let reports = Reports::of(builder().first_byte(Duration::from_millis(100)));
    // The strictest of both counts, limit by limit.
    place.write("one.yaml", &guarded(&reports, "one", "{ max_concurrent: 1 }"));
    place.write("two.yaml", &guarded(&reports, "two", "{ max_concurrent: 4, min_interval: 400ms }"));
    let running = ["one.yaml", "two.yaml"].map(|file| place.start(&["run", file, "--json"]));
    for running in running {
        running.end().expect(0);
    }
    let log = reports.log();
    assert_eq!((log.renders().len(), log.most_renders_at_once()), (6, 1));
    assert_eq!((place.count("one.db", "t"), place.count("two.db", "t")), (180, 180));
    // Before each request of the one that asked for a pause there was one, whoever came before it. How long exactly is the engine's to
    // prove; here two clocks are compared.
    assert!(
        log.pauses().iter().filter(|pause| **pause >= Duration::from_millis(300)).count() >= 2,
        "{:?}",
        log.pauses()
    );
}

#[test]
fn a_pause_is_kept_from_one_process_to_the_next() {
    let place = Place::new();
    let reports = Reports::new();
    for name in ["one", "two"] {
        place.write(
            &format!("{name}.yaml"),
            &guarded(&reports, name, "{ max_concurrent: 1, min_interval: 600ms }").replace("_run: 3", "_run: 1"),
        );
    }
    for file in ["one.yaml", "two.yaml", "one.yaml"] {
        place.run(file).expect(0);
    }
    let log = reports.log();
    assert_eq!((log.renders().len(), log.most_renders_at_once()), (3, 1));
    assert!(log.pauses().iter().all(|pause| *pause >= Duration::from_millis(500)), "{:?}", log.pauses());
}

#[test]
fn a_killed_request_keeps_the_server_busy_for_the_others() {
    let place = Place::new();
    let reports = Reports::of(builder().fault(
        towpath_testkit::report_server::On::Render,
        0..1,
        towpath_testkit::report_server::Fault::FirstByte(Duration::from_secs(600)),
    ));
    for name in ["one", "two"] {
        let guarded = guarded(&reports, name, "{ max_concurrent: 1 }, deadline: 3s").replace("_run: 3", "_run: 1");
        place.write(&format!("{name}.yaml"), &guarded);
    }
    let killed = place.start(&["run", "one.yaml"]);
    until("a rendering", || !reports.log().renders().is_empty());
    killed.signal("KILL");
    assert!(killed.end().was_killed());
    place.run("two.yaml").expect(0);
    // The server may have gone on rendering: nobody asks before the deadline of that request.
    let renders = reports.log().renders();
    let apart = renders[1].started - renders[0].started;
    assert!(apart >= Duration::from_millis(2_500), "{apart:?}");
    place.run("one.yaml").expect(0);
    assert_eq!((place.count("one.db", "t"), place.count("two.db", "t")), (60, 60));
}
