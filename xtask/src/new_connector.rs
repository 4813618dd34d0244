//! `cargo xtask new-connector NAME`: the crate, its line in the bundle, and tests that fail until the connector works.

use std::{fs, path::Path, process::Command};

use crate::{Fallible, cmd};

/// Path in the crate and text; `NAME` and `TYPE` stand for the name and for its form in CamelCase.
const FILES: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("../templates/connector/Cargo.toml.txt")),
    ("README.md", include_str!("../templates/connector/README.md.txt")),
    ("src/lib.rs", include_str!("../templates/connector/lib.rs.txt")),
    ("src/config.rs", include_str!("../templates/connector/config.rs.txt")),
    ("src/source.rs", include_str!("../templates/connector/source.rs.txt")),
    ("tests/conformance.rs", include_str!("../templates/connector/conformance.rs.txt")),
];

pub(crate) fn run(arguments: &[String]) -> Fallible {
    let [name] = arguments else { return Err("usage: cargo xtask new-connector NAME".to_owned()) };
    write(&cmd::root(), name)?;
    println!(
        "connectors/{name} is made, and named in connectors/bundle.\n\n\
         Next: describe its options in src/config.rs, make src/source.rs read, and run\n\n    \
         cargo test -p towpath-connector-{name}\n\n\
         until the conformance suite passes. CONTRIBUTING.md leads through it."
    );
    Ok(())
}

fn write(root: &Path, name: &str) -> Fallible {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(good) {
        return Err(format!("'{name}' cannot be a connector's name: small letters, digits and _ only, a letter first"));
    }
    let folder = root.join("connectors").join(name);
    if folder.exists() {
        return Err(format!("{} is there already", folder.display()));
    }
    let camel: String = name.split('_').map(|part| part[..1].to_uppercase() + &part[1..]).collect();
    for (path, text) in FILES {
        put(&folder.join(path), &text.replace("NAME", name).replace("TYPE", &camel))?;
    }
    let package = format!("towpath-connector-{name}");
    edit(&root.join("Cargo.toml"), "towpath-connector-", &format!("{package} = {{ path = \"connectors/{name}\" }}"))?;
    edit(&root.join("connectors/bundle/Cargo.toml"), "towpath-connector-", &format!("{package}.workspace = true"))?;
    edit(
        &root.join("connectors/bundle/src/lib.rs"),
        "use towpath_connector_",
        &format!("use towpath_connector_{name} as _;"),
    )
}

fn put(path: &Path, text: &str) -> Fallible {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Adds a line among those that begin with `like`, in alphabetical order.
fn edit(path: &Path, like: &str, line: &str) -> Fallible {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut lines: Vec<&str> = text.lines().collect();
    let mut like_it = lines.iter().enumerate().filter(|(_, there)| there.starts_with(like));
    let last = like_it.clone().next_back().map(|(at, _)| at + 1);
    let place = like_it.find(|(_, there)| **there > line).map(|(at, _)| at).or(last);
    let place = place.ok_or_else(|| format!("{}: no line begins with '{like}'", path.display()))?;
    lines.insert(place, line);
    put(path, &(lines.join("\n") + "\n"))
}

/// For CI: a new connector compiles, and its tests fail by the conformance suite and by nothing else. Done in a copy.
pub(crate) fn check() -> Fallible {
    let scratch = cmd::Scratch::new("new-connector")?;
    let copy = scratch.path().join("towpath");
    for part in ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml", "crates", "connectors", "tests", "xtask"] {
        fs::create_dir_all(&copy).map_err(|error| error.to_string())?;
        cmd::run(Command::new("cp").arg("-r").arg(cmd::root().join(part)).arg(&copy))?;
    }
    write(&copy, "probe")?;
    let mut test = cmd::cargo(["test", "--offline", "--package", "towpath-connector-probe"]);
    let output = test
        .current_dir(&copy)
        .env("CARGO_TARGET_DIR", cmd::target_dir()?)
        .output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return Err("the tests of a connector that does nothing pass".to_owned());
    }
    if !text.contains("cases broken") {
        return Err(format!("a new connector does not get as far as the conformance suite:\n{text}"));
    }
    println!("a new connector compiles, and fails the conformance suite");
    Ok(())
}
