//! What must hold of the workspace as a whole: who imports whom, and that every connector is where it belongs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "it is what makes a test fail")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
// Links the standard binary's connectors into this test.
use towpath_bundle as _;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What a crate is called in the import table.
fn part(package: &str) -> &str {
    match package {
        "towpath" => "runner",
        connector if connector.starts_with("towpath-connector-") => "connectors",
        crate_ => crate_.strip_prefix("towpath-").unwrap_or(crate_),
    }
}

/// The import table of ARCHITECTURE.md.
fn allowed(part: &str) -> &'static [&'static str] {
    match part {
        "runner" => &["config", "engine", "transforms", "bundle", "core"],
        "bundle" => &["connectors"],
        "connectors" | "transforms" => &["core", "http", "formats"],
        "engine" | "config" | "http" | "formats" => &["core"],
        "testkit" => &["core", "formats"],
        "tests" => &["core", "bundle", "testkit", "engine", "config", "transforms", "runner"],
        "core" | "xtask" => &[],
        unknown => panic!("'{unknown}' is not in the import table: add it there and here"),
    }
}

#[test]
fn crates_import_only_what_the_table_allows() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    let ours: BTreeSet<&str> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
    let mut wrong = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap();
        for dependency in package["dependencies"].as_array().unwrap() {
            let imports = dependency["name"].as_str().unwrap();
            if !ours.contains(imports) {
                continue;
            }
            let is_dev = dependency["kind"] == "dev";
            let testkit_for_tests = is_dev && part(imports) == "testkit";
            let own_tests = is_dev && imports == name;
            if !testkit_for_tests && !own_tests && !allowed(part(name)).contains(&part(imports)) {
                wrong.push(format!("{name} → {imports}"));
            }
        }
    }
    assert!(wrong.is_empty(), "not in the import table: {wrong:?}");
}

#[test]
fn every_version_is_written_once() {
    let text = |path: &Path| std::fs::read_to_string(path).unwrap();
    for package in metadata()["packages"].as_array().unwrap() {
        let manifest = PathBuf::from(package["manifest_path"].as_str().unwrap());
        let lines = text(&manifest);
        let own = lines.lines().filter(|line| line.contains("version = \"") || line.contains(" = \""));
        let own: Vec<_> =
            own.filter(|line| !["name =", "description =", "path ="].iter().any(|key| line.starts_with(key))).collect();
        assert!(own.is_empty(), "{}: write versions in the workspace's Cargo.toml: {own:?}", manifest.display());
        assert!(
            lines.contains("[lints]\nworkspace = true"),
            "{}: the workspace's lints are not taken",
            manifest.display()
        );
    }
}

#[test]
fn folders_bundle_and_inventory_are_the_same_set() {
    let folders: BTreeSet<String> = std::fs::read_dir(root().join("connectors"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "bundle")
        .collect();
    let metadata = metadata();
    let bundle =
        metadata["packages"].as_array().unwrap().iter().find(|package| package["name"] == "towpath-bundle").unwrap();
    let dependencies = bundle["dependencies"].as_array().unwrap();
    let names = |optional: bool| -> BTreeSet<String> {
        let connector =
            |dependency: &Value| dependency["name"].as_str()?.strip_prefix("towpath-connector-").map(str::to_owned);
        dependencies.iter().filter(|dependency| dependency["optional"] == optional).filter_map(connector).collect()
    };
    // Each of those that can be left out is a feature of its name, which the binary asks for by default; its own tests tell that it registers
    // itself.
    let (always, can_be_left_out) = (names(false), names(true));
    let runner = metadata["packages"].as_array().unwrap().iter().find(|package| package["name"] == "towpath").unwrap();
    for name in &can_be_left_out {
        assert_eq!(bundle["features"][name], serde_json::json!([format!("dep:towpath-connector-{name}")]));
        assert_eq!(runner["features"][name], serde_json::json!([format!("towpath-bundle/{name}")]));
        let default = runner["features"]["default"].as_array().unwrap();
        assert!(default.iter().any(|feature| feature == name), "{name} is not among the binary's default features");
    }
    let bundled: BTreeSet<String> = always.union(&can_be_left_out).cloned().collect();
    let registered: BTreeMap<&str, _> =
        towpath_core::Connector::all().into_iter().map(|connector| (connector.name, connector)).collect();
    let sources_or_sinks: BTreeSet<String> = registered
        .values()
        .filter(|connector| connector.source.is_some() || connector.sink.is_some())
        .map(|connector| connector.name.to_owned())
        .collect();
    assert_eq!(folders, bundled, "folders under connectors/ and dependencies of the bundle");
    let linked: BTreeSet<String> = sources_or_sinks.union(&can_be_left_out).cloned().collect();
    assert_eq!(folders, linked, "folders under connectors/ and connectors that have registered themselves");
}
