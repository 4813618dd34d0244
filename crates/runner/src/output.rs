//! The only place that prints.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is where printing is done")]

use std::{
    env,
    error::Error as _,
    io::{self, ErrorKind as Io, IsTerminal, Write},
    sync::atomic::{AtomicBool, Ordering},
};

use serde::Serialize;
use towpath_config::{Problem, Problems, Severity};
use towpath_core::Error;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The config is wrong.
    Config(Problems),
    /// Something went wrong.
    Error(Error),
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::Config(problems)
    }
}
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Something that was to be printed on stdout is lost.
static LOST: AtomicBool = AtomicBool::new(false);

/// Writes to stdout. Where that fails it is told once, and costs the exit code at the [`end`]: what is under way goes on.
pub(crate) fn out(text: &str) {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| if text.ends_with('\n') { Ok(()) } else { stdout.write_all(b"\n") });
    wrote(written.and_then(|()| stdout.flush()));
}

/// What came of writing to stdout. When whoever reads it has gone (`| head`), there is nothing more to do.
pub(crate) fn wrote(outcome: io::Result<()>) {
    let Err(error) = outcome else { return };
    if error.kind() == Io::BrokenPipe {
        std::process::exit(0);
    }
    if !LOST.swap(true, Ordering::Relaxed) {
        let error = Error::unavailable("what was asked for cannot be written to stdout").because(error);
        err(&block(&error.hint("make room where stdout goes, or send it elsewhere")));
    }
}

/// The exit code of the program, once all is done: a command whose output is lost has failed, if it had not already.
pub(crate) fn end(code: u8) -> u8 {
    wrote(io::stdout().flush());
    if code == 0 && LOST.load(Ordering::Relaxed) { 1 } else { code }
}

/// Writes a value as JSON to stdout: indented, or on one line.
pub(crate) fn json(value: &impl Serialize, one_line: bool) -> towpath_core::Result<()> {
    let text = if one_line { serde_json::to_string(value) } else { serde_json::to_string_pretty(value) };
    out(&text.map_err(|error| Error::internal("cannot write JSON").because(error))?);
    Ok(())
}

/// Writes to stderr; nothing can be done where that is gone.
pub(crate) fn err(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr
        .write_all(text.as_bytes())
        .and_then(|()| if text.ends_with('\n') { Ok(()) } else { stderr.write_all(b"\n") });
}

/// Whether colours help on stderr.
fn colours() -> bool {
    io::stderr().is_terminal()
        && env::var_os("NO_COLOR").is_none()
        && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

fn paint(text: &str, code: &str) -> String {
    if colours() { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

/// One problem of a config, with its first word in colour.
fn problem(problem: &Problem) -> String {
    let text = problem.to_string();
    let (word, code) = match problem.severity {
        Severity::Error => ("error", "1;31"),
        Severity::Warning => ("warning", "1;33"),
    };
    text.strip_prefix(word).map_or_else(|| text.clone(), |rest| format!("{}{rest}", paint(word, code)))
}

/// Warnings, each as a block, with a blank line behind.
pub(crate) fn problems(problems: &[Problem]) {
    for one in problems {
        err(&format!("{}\n\n", problem(one)));
    }
}

/// All that is wrong with a config, and how much it is.
pub(crate) fn config(problems_found: &Problems) {
    problems(&problems_found.problems);
    err(&match problems_found.count() {
        (errors, 0) => format!("{}; nothing was done", number(errors, "error")),
        (errors, warnings) => format!("{}, {}; nothing was done", number(errors, "error"), number(warnings, "warning")),
    });
}

/// The first error with its place, and how many more there are.
pub(crate) fn in_a_line(problems: &Problems) -> String {
    let mut errors = problems.problems.iter().filter(|problem| problem.severity == Severity::Error);
    let Some(first) = errors.next() else { return String::new() };
    let place = first.place.as_ref().map(|place| match place.line {
        Some(line) => format!("{}:{line}:{}: ", place.layer, place.column),
        None => format!("{}: ", place.layer),
    });
    let more = match errors.count() {
        0 => String::new(),
        more => format!(" (and {})", number(more, "more error")),
    };
    format!("{}{}{more}", place.unwrap_or_default(), first.message)
}

/// `1 error`, `2 errors`.
pub(crate) fn number(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// An error as a block: what, where, why, what to do.
pub(crate) fn block(error: &Error) -> String {
    let whole = error.to_string();
    let message = error.message();
    let mut lines = vec![format!("{}: {message}", paint("error", "1;31"))];
    // Where and why stand around the message.
    if let Some((place, why)) = whole.split_once(message) {
        let place = place.trim_end_matches(": ");
        if !place.is_empty() {
            lines.push(format!("  where: {place}"));
        }
        let why = why.trim_start_matches(": ").trim();
        if !why.is_empty() {
            lines.push(format!("  why:   {why}"));
        }
    } else if whole != message {
        lines.push(format!("  why:   {whole}"));
    }
    if let Some(hint) = hint(error) {
        lines.push(format!("  hint:  {hint}"));
    }
    lines.join("\n")
}

/// An error and what to do about it, in a line.
pub(crate) fn one_line(error: &Error) -> String {
    let hint = hint(error).map(|hint| format!("; {hint}")).unwrap_or_default();
    format!("{error}{hint}").replace('\n', " ")
}

/// The hint of the error or of what lies below it.
fn hint(error: &Error) -> Option<String> {
    if let Some(hint) = error.what_to_do() {
        return Some(hint.to_owned());
    }
    let mut below = error.source();
    while let Some(source) = below {
        if let Some(hint) = source.downcast_ref::<Error>().and_then(Error::what_to_do) {
            return Some(hint.to_owned());
        }
        below = source.source();
    }
    None
}

/// Prints why a command failed, and says with which code to exit.
pub(crate) fn failure(failure: &Failure) -> u8 {
    match failure {
        Failure::Config(problems) => {
            config(problems);
            2
        }
        Failure::Error(error) => {
            err(&block(error));
            code(error)
        }
    }
}

/// The exit code of an error: in a run and outside the same.
pub(crate) fn code(error: &Error) -> u8 {
    towpath_engine::report::exit_code(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_a_block_of_what_where_why_and_what_to_do() {
        let error = Error::unavailable("cannot fetch the report")
            .because(io::Error::other("connection reset"))
            .at("https://reports.example")
            .at("source production")
            .hint("ask whoever runs it");
        insta::assert_snapshot!(block(&error), @r"
        error: cannot fetch the report
          where: source production: https://reports.example
          why:   connection reset
          hint:  ask whoever runs it
        ");
        let nested = Error::data("cannot commit").because(Error::conflict("the table is gone").hint("make it again"));
        insta::assert_snapshot!(block(&nested), @r"
        error: cannot commit
          why:   the table is gone
          hint:  make it again
        ");
        insta::assert_snapshot!(block(&Error::internal("odd")), @"error: odd");
    }
}
