//! The standard program: its help, its connectors, checks of files, and a pipeline from a CSV file to a table.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails says so by that")]

mod shell;

use shell::{Program, Shell};

#[test]
fn help() {
    let shell = Shell::new(Program::Towpath);
    let commands: [&[&str]; 17] = [
        &[],
        &["run"],
        &["serve"],
        &["status"],
        &["plan"],
        &["validate"],
        &["preview"],
        &["discover"],
        &["connectors"],
        &["schema"],
        &["state"],
        &["state", "reset"],
        &["dlq"],
        &["dlq", "list"],
        &["dlq", "show"],
        &["dlq", "replay"],
        &["dlq", "discard"],
    ];
    let all: String = commands
        .iter()
        .map(|command| {
            let ran = shell.run(&[command, &["-h"][..]].concat());
            assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
            format!("$ towpath {} -h\n{}\n", command.join(" "), ran.out)
        })
        .collect();
    assert_seen!("help", all);
}

#[test]
fn the_connectors_it_has() {
    let shell = Shell::new(Program::Towpath);
    assert_seen!("connectors", shell.run(&["connectors"]).out);
    let listed: serde_json::Value = serde_json::from_str(&shell.run(&["connectors", "--json"]).out).unwrap();
    for connector in listed.as_array().unwrap() {
        let name = connector["name"].as_str().unwrap();
        let described = shell.run(&["connectors", name]);
        assert_eq!(described.code, Some(0));
        assert!(described.out.contains("Options as a "), "{name}: {}", described.out);
    }
}

#[test]
fn the_schema_knows_them() {
    let ran = Shell::new(Program::Towpath).run(&["schema"]);
    let schema: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let kinds = |section: &str| -> Vec<String> {
        let branches = schema["properties"][section]["additionalProperties"]["oneOf"].as_array().unwrap();
        branches.iter().map(|branch| branch["properties"]["type"]["const"].as_str().unwrap().to_owned()).collect()
    };
    assert!(kinds("sources").contains(&"ssrs".to_owned()), "{:?}", kinds("sources"));
    assert!(kinds("transforms").contains(&"dedupe".to_owned()), "{:?}", kinds("transforms"));
    assert!(kinds("sinks").contains(&"sqlite".to_owned()), "{:?}", kinds("sinks"));
}

/// Output that is lost is an error; output that nobody reads any more is none.
#[test]
fn what_cannot_be_printed_is_told() {
    let shell = Shell::new(Program::Towpath);
    let commands: [&[&str]; 6] =
        [&["status"], &["status", "--json"], &["schema"], &["connectors"], &["--help"], &["state", "show"]];
    for command in commands {
        let full = shell.run_into(command, std::fs::File::options().write(true).open("/dev/full").unwrap());
        assert_eq!(full.code, Some(1), "{command:?}: {}", full.all());
        assert_eq!(full.err.matches("cannot be written to stdout").count(), 1, "{command:?}: {}", full.err);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let gone = shell.run_into(command, writer);
        assert_eq!((gone.code, &*gone.err), (Some(0), ""), "{command:?}");
    }
}

const PIPELINE: &str = "\
sources:
  orders:
    type: csv
    path: orders.csv
    columns: { id: int64 }
transforms:
  fresh: { type: dedupe, inputs: [orders], key: all_columns }
sinks:
  table: { type: sqlite, inputs: [fresh], path: orders.db, table: orders, write: append }
";

#[test]
fn files_are_checked_together() {
    let shell = Shell::new(Program::Towpath);
    shell.file("right.yaml", PIPELINE);
    shell.file(
        "wrong.yaml",
        &PIPELINE
            .replace("delimiter", "x")
            .replace("path: orders.csv", "pth: orders.csv\n    delimeter: tab")
            .replace("dedupe", "dedup"),
    );
    shell.file("unset.yaml", &PIPELINE.replace("orders.db", "${ORDERS_DB}"));
    let ran = shell.run(&["validate", "right.yaml", "wrong.yaml", "unset.yaml"]);
    assert_seen!("validate", ran.all());
    let ran = shell.run(&["validate", "right.yaml", "wrong.yaml", "--json"]);
    let checked: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, &checked[0]["valid"], &checked[1]["valid"]), (Some(2), &true.into(), &false.into()));
    assert_eq!(checked[1]["problems"][0]["place"]["line"], 4);
    assert_eq!(shell.run(&["run", "unset.yaml"]).code, Some(2), "for a run it is an error");
}

#[test]
fn from_a_file_to_a_table() {
    let shell = Shell::new(Program::Towpath);
    shell.file("orders.yaml", PIPELINE);
    shell.file("orders.csv", "id,name\n1,a\n2,b\n1,a\nx,c\n");
    assert_seen!("csv_plan", shell.run(&["plan", "orders.yaml"]).all());
    assert_seen!("csv_preview", shell.run(&["preview", "orders.yaml", "orders"]).all());
    assert_seen!("csv_run", shell.run(&["run", "orders.yaml"]).all());
    // What a transform refuses is no less told.
    shell.file(
        "cast.yaml",
        &PIPELINE.replace(
            "{ type: dedupe, inputs: [orders], key: all_columns }",
            "{ type: cast, inputs: [orders], columns: { name: int64 } }",
        ),
    );
    assert_seen!("cast_run", shell.run(&["run", "cast.yaml"]).all());
    assert_seen!("csv_dlq", shell.run(&["dlq", "show", "orders.yaml"]).all());
}
