//! What users see of runs, with connectors that do what a test asks of them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails says so by that")]

mod shell;

use serde_json::Value;
use shell::{Program, Shell};

const PIPELINE: &str = "\
sources:
  numbers: { type: count, rows: 1000 }
sinks:
  nowhere: { type: discard, inputs: [numbers] }
";

fn shell(pipeline: &str) -> Shell {
    let shell = Shell::new(Program::Own);
    shell.file("a.yaml", pipeline);
    shell
}

fn with(from: &str, to: &str) -> Shell {
    shell(&PIPELINE.replace(from, to))
}

fn last_line(out: &str) -> Value {
    assert!(out.ends_with('\n'));
    serde_json::from_str(out.lines().last().unwrap()).unwrap()
}

#[test]
fn a_run_for_people() {
    let shell = with("rows: 1000", "rows: 1000, bad: true");
    assert_seen!("run", shell.run(&["run", "a.yaml"]).all());
}

#[test]
fn a_run_for_programs_ends_stdout_with_one_line() {
    let shell = with("rows: 1000", "rows: 1000, bad: true");
    let ran = shell.run(&["run", "a.yaml", "--json"]);
    let line = last_line(&ran.out);
    let keys: Vec<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
    let expect = [
        "pipeline",
        "run_id",
        "status",
        "sources",
        "transforms",
        "sinks",
        "dead_letters",
        "elapsed_seconds",
        "peak_memory_bytes",
        "error",
    ];
    assert_eq!(keys, expect);
    assert_eq!(line["status"], "completed");
    assert_eq!(line["sources"]["numbers"]["batches"], 10);
    assert_eq!(line["sinks"]["nowhere"], serde_json::json!({ "written": 1000, "skipped": 0, "rejected": 0 }));
    assert_eq!((&line["dead_letters"], &line["error"]), (&10.into(), &Value::Null));
    assert_eq!(ran.out.lines().count(), 1);
}

/// Each way a run can end has its exit code and its word.
#[test]
fn exit_codes() {
    let bad = format!("{}errors: {{ stop_after: 5 }}\n", PIPELINE.replace("rows: 1000", "rows: 1000, bad: true"));
    let cases = [
        ("done", shell(PIPELINE), vec!["run", "a.yaml"], 0, "completed"),
        ("failed", with("inputs:", "fail: true, inputs:"), vec!["run", "a.yaml"], 1, "failed"),
        ("config", with("rows:", "rwos:"), vec!["run", "a.yaml"], 2, "failed"),
        ("no file", shell(PIPELINE), vec!["run", "b.yaml"], 2, "failed"),
        ("too many rejected", shell(&bad), vec!["run", "a.yaml"], 3, "stopped"),
    ];
    for (name, shell, args, code, status) in cases {
        let people = shell.run(&args);
        assert_eq!(people.code, Some(code), "{name}: {}", people.all());
        let programs = shell.run(&[args, vec!["--json", "--new-run"]].concat());
        assert_eq!(programs.code, Some(code), "{name}: {}", programs.all());
        let line = last_line(&programs.out);
        assert_eq!(line["status"], status, "{name}");
        assert_eq!(line["error"].is_null(), code == 0, "{name}");
    }
    assert_eq!(shell(PIPELINE).run(&["rnu", "a.yaml"]).code, Some(2));
    assert_eq!(shell(PIPELINE).run(&["--version"]).code, Some(0));
}

#[test]
fn failures_say_what_where_why_and_what_to_do() {
    assert_seen!("failed", with("inputs:", "fail: true, inputs:").run(&["run", "a.yaml"]).all());
    assert_seen!("config", with("rows:", "rwos:").run(&["run", "a.yaml"]).all());
    assert_seen!("config_json", with("rows:", "rwos:").run(&["run", "a.yaml", "--json"]).out);
    assert_seen!("no_file", shell(PIPELINE).run(&["run", "b.yaml"]).all());
    assert_seen!("no_source", shell(PIPELINE).run(&["preview", "a.yaml", "numbesr"]).all());
    assert_seen!("no_connector", shell(PIPELINE).run(&["connectors", "cuont"]).all());
}

/// Goes on to the next commit, and the next run takes it up: nothing is read twice.
#[test]
fn an_interrupt_drains_and_the_next_run_goes_on() {
    for signal in ["INT", "TERM"] {
        let shell = shell(&format!(
            "{}commit: {{ every: 10ms }}\n",
            PIPELINE.replace("rows: 1000", "rows: 20000, pause: 20ms")
        ));
        let mut running = shell.start(&["run", "a.yaml", "--json"]);
        running.until("committed");
        running.signal(signal);
        let first = running.end();
        assert_eq!(first.code, Some(130), "{}", first.all());
        assert!(first.err.contains("interrupted: going on to the next commit, for 25s at most"), "{}", first.err);
        let first = last_line(&first.out);
        assert_eq!((&first["status"], &first["error"]), (&"cancelled".into(), &Value::Null));
        let second = last_line(&shell.run(&["run", "a.yaml", "--json", "--set", "sources.numbers.pause=0s"]).out);
        assert_eq!((&second["status"], &second["run_id"]), (&"completed".into(), &first["run_id"]));
        let written = |line: &Value| line["sinks"]["nowhere"]["written"].as_u64().unwrap();
        assert!(written(&first) > 0);
        assert_eq!(written(&first) + written(&second), 20000);
    }
}

/// A source that hangs: no commit comes within `drain`, or the second interrupt is one too many.
#[test]
fn what_does_not_drain_is_aborted() {
    let hangs = PIPELINE.replace("rows: 1000", "rows: 1000, then_pause: 1h");
    let drains = shell(&format!("{hangs}commit: {{ every: 10ms }}\ndrain: 100ms\n"));
    let mut running = drains.start(&["run", "a.yaml"]);
    running.until("committed");
    running.signal("INT");
    let ran = running.end();
    assert_eq!(ran.code, Some(130), "{}", ran.all());

    let patient = shell(&format!("{hangs}commit: {{ every: 10ms }}\ndrain: 1h\n"));
    let mut running = patient.start(&["run", "a.yaml"]);
    running.until("committed");
    running.signal("TERM");
    running.until("interrupted");
    running.signal("TERM");
    let ran = running.end();
    assert_eq!(ran.code, Some(130), "{}", ran.all());
}

#[test]
fn one_run_of_a_pipeline_at_a_time() {
    let shell =
        shell(&format!("{}commit: {{ every: 10ms }}\n", PIPELINE.replace("rows: 1000", "rows: 1000, then_pause: 1h")));
    let mut running = shell.start(&["run", "a.yaml"]);
    running.until("committed");
    let second = shell.run(&["run", "a.yaml", "--json"]);
    assert_eq!(second.code, Some(4), "{}", second.all());
    assert_eq!(last_line(&second.out)["status"], "failed");
    // Whatever needs the pipeline for itself says the same; nobody is asked anything before.
    let crm = "{ type: pipedrive, inputs: [numbers], url: 'http://localhost:9', api_token: x, entity: persons, match_on: name, fields: { name: n } }";
    shell.file("crm.yaml", &format!("name: a\n{}", PIPELINE.replace("{ type: discard, inputs: [numbers] }", crm)));
    shell.file("plan.json", "{\"towpath_plan\":1,\"pipeline\":\"a\",\"changes\":[]}");
    let others: [&[&str]; 5] = [
        &["run", "a.yaml"],
        &["run", "crm.yaml", "--plan", "plan.json"],
        &["plan", "crm.yaml", "--diff"],
        &["dlq", "replay", "a.yaml"],
        &["state", "reset", "checkpoint", "a.yaml"],
    ];
    for other in others {
        let ran = shell.run(other);
        assert_eq!(ran.code, Some(4), "{other:?}: {}", ran.all());
        assert!(ran.err.contains("another run of pipeline 'a' is under way (process "), "{other:?}: {}", ran.err);
    }
    running.signal("INT");
    running.signal("INT");
    drop(running);
}

#[test]
fn looking_without_running() {
    let shell = with("rows: 1000", "rows: 1000, bad: true");
    assert_seen!("plan", shell.run(&["plan", "a.yaml"]).all());
    assert_seen!("plan_unset", shell.run(&["plan", "a.yaml", "--set", "errors.dead_letters=${NOT_SET}"]).all());
    assert_seen!("preview", shell.run(&["preview", "a.yaml", "numbers", "-n", "3"]).all());
    assert_seen!("preview_json", shell.run(&["preview", "a.yaml", "numbers", "-n", "3", "--json"]).out);
    assert_seen!("discover", shell.run(&["discover", "a.yaml", "numbers"]).all());
    assert_seen!("connector", shell.run(&["connectors", "count"]).all());
}

/// A plan takes the place of nothing but a plan.
#[test]
fn what_is_there_is_not_lost_to_a_plan() {
    let shell = shell(PIPELINE);
    shell.file("old.json", "{\"towpath_plan\":1,\n\"pipeline\":\"a\"}\n");
    shell.file("empty", "");
    std::os::unix::fs::symlink("old.json", shell.dir().join("link")).unwrap();
    std::os::unix::fs::symlink("nowhere", shell.dir().join("dangling")).unwrap();
    let names = || {
        let names = std::fs::read_dir(shell.dir()).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name != "state").collect::<std::collections::BTreeSet<_>>()
    };
    let before = names();
    let cases = [
        ("a.yaml", Some("a.yaml: a file that holds no plan")),
        ("empty", Some("empty: a file that holds no plan")),
        ("link", Some("link: a symbolic link")),
        ("dangling", Some("dangling: a symbolic link")),
        (".", Some(".: a folder")),
        ("/dev/full", Some("/dev/full: a device, a pipe or the like")),
        // These it may replace; only then is the sink found to be one that cannot tell what would change.
        ("old.json", None),
        ("new.json", None),
    ];
    for (place, refused) in cases {
        let ran = shell.run(&["plan", "a.yaml", "--diff", "--out", place]);
        match refused {
            Some(what) => {
                assert_eq!(ran.code, Some(2), "{place}: {}", ran.all());
                assert!(ran.err.contains(what) && ran.err.contains("hint:"), "{place}: {}", ran.err);
            }
            None => assert!(ran.err.contains("no sink can say how its rows differ"), "{place}: {}", ran.all()),
        }
    }
    assert_eq!(names(), before);
    assert_eq!(std::fs::read_to_string(shell.dir().join("a.yaml")).unwrap(), PIPELINE);
}

#[test]
fn what_is_remembered_and_what_was_rejected() {
    let shell = with("rows: 1000", "rows: 300, bad: true");
    assert_seen!("dlq_empty", shell.run(&["dlq", "list", "a.yaml"]).all());
    shell.run(&["run", "a.yaml"]);
    assert_seen!("dlq_list", shell.run(&["dlq", "list", "a.yaml"]).all());
    assert_seen!("dlq_show", shell.run(&["dlq", "show", "a.yaml", "-n", "2"]).all());
    let lines = shell.run(&["dlq", "show", "a.yaml", "--json"]).out;
    assert_eq!(
        lines.lines().filter(|line| serde_json::from_str::<Value>(line).unwrap()["raw"] == "minus one").count(),
        3
    );
    assert_seen!("state_show", shell.run(&["state", "show"]).all());
    assert_seen!("state_reset", shell.run(&["state", "reset", "checkpoint", "a.yaml"]).all());
    assert_seen!("state_reset_unknown", shell.run(&["state", "reset", "checkpoint", "nobody"]).all());
    assert_seen!("state_reset_credentials", shell.run(&["state", "reset", "credentials"]).all());
    assert_seen!("state_reset_breaker", shell.run(&["state", "reset", "breaker", "https://reports.example"]).all());
}

#[test]
fn logs_go_to_stderr_as_much_as_is_asked_for() {
    let shell = shell(PIPELINE);
    assert!(!shell.run(&["run", "a.yaml"]).err.contains("committed"));
    assert!(shell.run(&["run", "a.yaml", "-v"]).err.contains("committed"));
    assert!(shell.run_with(&["run", "a.yaml"], &[("TOWPATH_LOG", "towpath=debug")]).err.contains("committed"));
    let odd = shell.run_with(&["run", "a.yaml"], &[("TOWPATH_LOG", "a=b=c")]);
    assert_eq!(odd.code, Some(0));
    assert!(odd.err.contains("TOWPATH_LOG is not understood"), "{}", odd.err);
}

#[test]
fn a_panic_ends_its_run_and_nothing_else() {
    let shell = shell(&format!("schedule: {{ every: 1s }}\n{PIPELINE}"));
    shell
        .file("b.yaml", &format!("schedule: {{ every: 1s }}\n{}", PIPELINE.replace("inputs:", "panic: true, inputs:")));
    let mut serve = shell.start(&["serve", "b.yaml", "a.yaml"]);
    for _ in 0..2 {
        serve.until("b: died of a defect, next start");
        serve.until("a: completed");
    }
    serve.until("b: died of a defect, next start");
    let status: Value = serde_json::from_str(&shell.run(&["status", "--json"]).out).unwrap();
    let last: Vec<&Value> = status.as_array().unwrap().iter().map(|pipeline| &pipeline["last"]["status"]).collect();
    assert_eq!(last, ["completed", "died"], "{status:#}");
    serve.signal("INT");
    let ran = serve.end();
    assert_eq!(ran.code, Some(0), "{}", ran.all());
    assert!(ran.err.contains(": a defect of this connector"), "{}", ran.err);
}
