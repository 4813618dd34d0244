//! `cargo xtask docs`: the reference pages, one a connector, made from the config structs and the crates' documentation by the
//! binary itself; `--check` says whether they are up to date.

use std::{fs, path::Path, process::Command};

use crate::{Fallible, cmd};

pub(crate) fn run(arguments: &[String]) -> Fallible {
    let check = match arguments {
        [] => false,
        [flag] if flag == "--check" => true,
        _ => return Err("usage: cargo xtask docs [--check]".to_owned()),
    };
    cmd::run(&mut cmd::cargo(["build", "--quiet", "--package", "towpath"]))?;
    let towpath = cmd::target_dir()?.join("debug/towpath");
    let folder = cmd::root().join("docs/reference");
    let list = cmd::output(Command::new(&towpath).args(["connectors", "--json"]))?;
    let list: serde_json::Value =
        serde_json::from_str(&list).map_err(|error| format!("towpath connectors --json: {error}"))?;
    let names: Vec<&str> =
        list.as_array().into_iter().flatten().filter_map(|entry| entry.get("name")?.as_str()).collect();
    if names.is_empty() {
        return Err("towpath knows no connectors".to_owned());
    }
    let mut pages = vec![("pipeline.schema.json".to_owned(), cmd::output(Command::new(&towpath).arg("schema"))?)];
    for name in names {
        pages.push((format!("{name}.md"), cmd::output(Command::new(&towpath).args(["connectors", name]))?));
    }
    let mut stale = Vec::new();
    for (name, text) in &pages {
        let path = folder.join(name);
        if fs::read_to_string(&path).is_ok_and(|there| there == *text) {
            continue;
        }
        stale.push(name.as_str());
        if !check {
            write(&path, text)?;
        }
    }
    for entry in fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !pages.iter().any(|(page, _)| *page == name) {
            return Err(format!("docs/reference/{name} is of no connector; remove it"));
        }
    }
    match (stale.is_empty(), check) {
        (true, _) => println!("docs/reference is up to date"),
        (false, false) => println!("written: {}", stale.join(", ")),
        (false, true) => return Err(format!("docs/reference is behind: {}; run cargo xtask docs", stale.join(", "))),
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Fallible {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
