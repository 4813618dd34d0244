//! `cargo xtask ci`: everything that CI runs, in the order in which it fails soonest.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use crate::{Fallible, cmd, new_connector};

type Step = (&'static str, fn() -> Fallible);

const STEPS: &[Step] = &[
    ("fmt", || cmd::run(&mut cmd::cargo(["fmt", "--all", "--check"]))),
    ("deny", deny),
    ("linters", crate::linters::run),
    ("clippy", || cmd::run(&mut cmd::cargo(["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))),
    ("test", || cmd::run(&mut cmd::cargo(["test", "--workspace", "--no-fail-fast"]))),
    ("import table", || {
        cmd::run(&mut cmd::cargo(["test", "--quiet", "--package", "towpath-tests", "--test", "workspace"]))
    }),
    ("docs", docs),
    ("new connector", new_connector::check),
    ("demo", || crate::demo::run(&[])),
    ("demo report", || crate::demo::run(&["report".to_owned()])),
    ("demo crm", || crate::demo::run(&["crm".to_owned()])),
    ("coverage", coverage),
];

pub(crate) fn run(arguments: &[String]) -> Fallible {
    let names = || STEPS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let first = match arguments {
        [] => 0,
        [flag, name] if flag == "--from" => STEPS
            .iter()
            .position(|(step, _)| step == name)
            .ok_or_else(|| format!("'{name}' is no step; the steps are: {}", names()))?,
        _ => return Err("usage: cargo xtask ci [--from STEP]".to_owned()),
    };
    let began = Instant::now();
    let mut took = Vec::new();
    for (name, step) in &STEPS[first..] {
        println!("\n──── {name}");
        let began = Instant::now();
        step().map_err(|error| format!("{name}: {error}"))?;
        took.push(format!("{name} {:.0} s", began.elapsed().as_secs_f64()));
    }
    println!("\nall passed in {:.0} s: {}", began.elapsed().as_secs_f64(), took.join(", "));
    Ok(())
}

fn docs() -> Fallible {
    let mut rustdoc = cmd::cargo(["doc", "--workspace", "--no-deps"]);
    cmd::run(rustdoc.env("RUSTDOCFLAGS", "--deny warnings"))?;
    crate::docs::run(&["--check".to_owned()])
}

/// Licences, sources and banned crates. Advisories need a database from outside.
fn deny() -> Fallible {
    if !cmd::is_at_hand("cargo-deny") {
        let what = "cargo-deny is not installed (cargo install --locked cargo-deny)";
        if std::env::var("REQUIRE_PEERS").is_ok_and(|value| value == "1") {
            return Err(what.to_owned());
        }
        println!("SKIPPED: {what}");
        return Ok(());
    }
    cmd::run(&mut cmd::cargo(["deny", "--all-features", "check", "bans", "licenses", "sources"]))
}

/// How much of core and engine their own tests reach, where the tool can be had.
fn coverage() -> Fallible {
    let answers = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    if !answers(Command::new("cargo").args(["llvm-cov", "--version"])) {
        println!("SKIPPED: coverage, because cargo-llvm-cov is not installed");
        return Ok(());
    }
    // It reads what the compiler's LLVM writes, so it must be of the same version.
    let Some(tools) = llvm_tools() else {
        println!("SKIPPED: coverage, because the tools of the compiler's LLVM are not installed");
        return Ok(());
    };
    // A folder of its own: what is instrumented must not be taken for what is not.
    let target = cmd::target_dir()?.join("coverage");
    let within = |arguments: &[&str], environment: &[(String, String)]| {
        let mut command = cmd::cargo(arguments.iter().copied());
        command.env("CARGO_TARGET_DIR", &target).envs(environment.iter().cloned());
        for (variable, tool) in [("LLVM_COV", "llvm-cov"), ("LLVM_PROFDATA", "llvm-profdata")] {
            command.env(variable, tools.join(tool));
        }
        command
    };
    // Programs that the tests start are counted as well, so it is their environment that says where to.
    let environment: Vec<(String, String)> = cmd::output(&mut within(&["llvm-cov", "show-env"], &[]))?
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.trim_matches(['"', '\'']).to_owned()))
        .collect();
    let packages = ["--package", "towpath-core", "--package", "towpath-engine"];
    let users = ["--package", "towpath", "--package", "towpath-tests"];
    // A killed process writes down nothing; and what is drawn at random reaches, in minutes, what is reached anyway.
    let skipped = ["--", "--skip", "kills::", "--skip", "crm::any"];
    cmd::run(&mut within(&[&["test", "--quiet"][..], &packages, &users, &skipped].concat(), &environment))?;
    let others = "crates/(config|http|formats|testkit|transforms|runner)/|connectors/|/tests/|xtask/";
    let report = ["llvm-cov", "report", "--ignore-filename-regex", others, "--fail-under-lines", "90"];
    cmd::run(&mut within(&report, &environment))
}

/// The folder of `llvm-cov` and `llvm-profdata`: rustup's component, or the distribution's package.
fn llvm_tools() -> Option<PathBuf> {
    let rustc = |arguments: &[&str]| cmd::output(Command::new("rustc").args(arguments)).ok();
    let version = rustc(&["--version", "--verbose"])?;
    let major = version.lines().find_map(|line| line.strip_prefix("LLVM version: ")?.split('.').next())?;
    let component = rustc(&["--print", "target-libdir"])?;
    let component = Path::new(component.trim()).parent()?.join("bin");
    let package = PathBuf::from(format!("/usr/lib/llvm-{major}/bin"));
    [component, package].into_iter().find(|folder| folder.join("llvm-profdata").is_file())
}
