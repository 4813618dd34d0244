//! Every pipeline in config/ is right and can be planned, offline.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails says so by that")]

mod shell;

use std::{fs, path::PathBuf};

use shell::{Program, Shell};

#[test]
fn every_pipeline_in_config_plans() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let mut files: Vec<String> = fs::read_dir(root.join("config/pipelines"))
        .unwrap()
        .map(|entry| format!("config/pipelines/{}", entry.unwrap().file_name().to_str().unwrap()))
        .filter(|name| name.ends_with(".yaml"))
        .collect();
    files.sort();
    assert!(files.len() >= 3, "{files:?}");
    // A state of its own for each: servers that fail are left alone after a while, and that would show.
    let shell = || Shell::new(Program::Towpath).in_folder(&root);
    // Nothing listens there, so a plan has to do without the server.
    let variables = [
        ("SSRS_PASSWORD", "not sent"),
        ("REPORT_SERVER", "http://127.0.0.1:9/ReportServer"),
        ("DATABASE", "/nowhere/a.db"),
        ("MSSQL_URL", "mssql://loader:secret@127.0.0.1:9/Production"),
        ("SOURCE_URL", "Server=127.0.0.1,10;Database=Line;User Id=reader;Password=secret"),
        ("CRM_FILES", "http://127.0.0.1:9/crm"),
        ("PIPEDRIVE_URL", "http://127.0.0.1:11"),
        ("PIPEDRIVE_API_TOKEN", "not sent"),
    ];
    for file in &files {
        let (file, shell) = (file.as_str(), shell());
        let right = shell.run_with(&["validate", file], &variables);
        assert_eq!((right.code, right.err.as_str()), (Some(0), ""), "{file}");
        let plan = shell.run_with(&["plan", file], &variables);
        let name = file.rsplit('/').next().unwrap().trim_end_matches(".yaml");
        // What is known is shown, and the code is that of a run, which would find nobody.
        let asks = ["csv_to_pipedrive", "db_to_db", "production_report"].contains(&name);
        assert_eq!(plan.code, Some(i32::from(asks)), "{file}: {}", plan.all());
        assert_eq!(plan.err.contains("\nerror: "), asks, "{file}: {}", plan.err);
        assert_seen!(name, without_tries(&plan.out.replace(&format!("{}/", root.display()), "")));
    }
    // Without variables a plan says what is missing, and asks nobody.
    let missing = [("production_report", "SSRS_PASSWORD MSSQL_URL"), ("db_to_db", "SOURCE_URL MSSQL_URL")];
    for (name, variables) in missing {
        let (file, shell) = (format!("config/pipelines/{name}.yaml"), shell());
        let (plan, run) = (shell.run(&["plan", &file]), shell.run(&["run", &file]));
        assert_eq!((plan.code, run.code), (Some(0), Some(2)), "{}{}", plan.all(), run.all());
        for variable in variables.split(' ') {
            assert!(plan.err.contains(&format!("warning: variable {variable} is not set")), "{}", plan.all());
            assert!(run.err.contains(&format!("error: variable {variable} is not set")), "{}", run.all());
        }
        assert!(plan.out.contains("a variable that is not set, so the server is not asked"), "{}", plan.all());
    }
}

/// Whether a server that is away is still tried or already left alone goes by the jitter of the tries before; what is in its way does not.
fn without_tries(plan: &str) -> String {
    let mut lines: Vec<String> = plan.lines().map(str::to_owned).collect();
    for line in &mut lines {
        let tried = [" (4 tries): ", " has failed "].iter().any(|words| line.contains(words));
        let away = tried && line.contains("http://127.0.0.1");
        if let (true, Some(at)) = (away, line.find("/crm/").into_iter().chain(line.find("not known: ")).min()) {
            assert!(line.contains("Connection refused"), "{line}");
            let place = line[at..].find(": ").map_or(line.len(), |end| at + end);
            line.replace_range(place.., ": [nobody answers]");
        }
    }
    lines.join("\n")
}
