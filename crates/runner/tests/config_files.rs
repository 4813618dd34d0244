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
    assert!(files.len() >= 2, "{files:?}");
    let shell = Shell::new(Program::Towpath).in_folder(&root);
    // Nothing listens there, so a plan has to do without the server.
    let variables = [
        ("SSRS_PASSWORD", "not sent"),
        ("REPORT_SERVER", "http://127.0.0.1:9/ReportServer"),
        ("DATABASE", "/nowhere/a.db"),
    ];
    for file in files {
        let right = shell.run_with(&["validate", &file], &variables);
        assert_eq!((right.code, right.err.as_str()), (Some(0), ""), "{file}");
        let plan = shell.run_with(&["plan", &file], &variables);
        assert_eq!(plan.code, Some(0), "{file}: {}", plan.all());
        let name = file.rsplit('/').next().unwrap().trim_end_matches(".yaml");
        assert_seen!(name, plan.out.replace(&format!("{}/", root.display()), ""));
    }
}
