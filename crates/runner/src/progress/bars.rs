//! Progress on a terminal: one bar for each source and sink.

use std::collections::BTreeMap;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustix::{
    process::getpgrp,
    stdio::stderr,
    termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr},
};
use towpath_core::pipeline::Role;

use super::{Rates, Snapshot, left};
use crate::{
    logging,
    table::{clock, thousands},
};

pub(crate) struct Bars {
    /// Put back when the bars go.
    _quiet: Quiet,
    screen: MultiProgress,
    bars: BTreeMap<String, ProgressBar>,
    rates: Rates,
    widest: usize,
}

impl Bars {
    pub fn new(target: ProgressDrawTarget) -> Self {
        let screen = MultiProgress::with_draw_target(target);
        logging::share_screen(Some(screen.clone()));
        Self { _quiet: Quiet::keys(), screen, bars: BTreeMap::new(), rates: Rates::default(), widest: 0 }
    }

    pub fn show(&mut self, snapshot: &Snapshot) {
        self.widest = snapshot.parts.iter().map(|part| part.name.chars().count()).max().unwrap_or(0);
        for (index, part) in snapshot.parts.iter().enumerate() {
            let (rows, bytes) = self.rates.of(part, snapshot.elapsed);
            let key = format!("{} {}", part.role.name(), part.name);
            let bar = self.bars.entry(key).or_insert_with(|| self.screen.insert(index, ProgressBar::new(0)));
            // What is too wide for the terminal is cut at its end, so what matters most comes first.
            let mut text = Vec::new();
            if let Some(done) = part.done() {
                bar.set_style(style("{prefix}  {bar:16.cyan/blue} {wide_msg}"));
                bar.set_length(part.expected);
                bar.set_position(part.bytes);
                text.push(format!("{:3.0}%", done * 100.0));
            } else {
                bar.set_style(style("{prefix}  {spinner:.cyan} {wide_msg}"));
                bar.tick();
            }
            if let Some(left) = left(part, bytes) {
                text.push(format!("ETA {}", clock(left)));
            }
            text.extend(part.waits.clone());
            text.push(part.counts());
            if rows >= 1.0 {
                text.push(format!("{} rows/s", thousands(rows as u64)));
            }
            if part.role == Role::Source {
                text.push(clock(snapshot.elapsed.as_secs()));
            }
            let gap = " ".repeat(self.widest - part.name.chars().count());
            bar.set_prefix(format!("{}{gap}", part.name));
            bar.set_message(text.join("  "));
        }
    }

    pub fn say(&self, text: &str) {
        self.screen.suspend(|| crate::output::err(text));
    }

    pub fn end(self) {
        logging::share_screen(None);
        self.bars.values().for_each(ProgressBar::finish_and_clear);
        // A screen that cannot be cleared is no reason to fail.
        let _ = self.screen.clear();
    }
}

/// While this lives, the terminal does not show `^C`: the cursor waits at the end of the last bar, and a sign there would begin a new line
/// and leave a torn bar behind.
struct Quiet(Option<Termios>);

impl Quiet {
    fn keys() -> Self {
        let Some(mut modes) = in_front().then(|| tcgetattr(stderr()).ok()).flatten() else { return Self(None) };
        let before = modes.clone();
        modes.local_modes.remove(LocalModes::ECHOCTL);
        Self(tcsetattr(stderr(), OptionalActions::Now, &modes).is_ok().then_some(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(before) = self.0.take().filter(|_| in_front()) {
            // A terminal that is gone needs nothing.
            let _ = tcsetattr(stderr(), OptionalActions::Now, &before);
        }
    }
}

/// Whether the terminal is ours: the system would stop a program in the background that changes it.
fn in_front() -> bool {
    tcgetpgrp(stderr()).is_ok_and(|group| group == getpgrp())
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("━╸─").tick_strings(&["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏", " "])
}

#[cfg(test)]
mod tests {
    use indicatif::InMemoryTerm;

    use super::*;
    use crate::progress::tests::snapshot;

    #[test]
    fn a_run_on_a_terminal() {
        let terminal = InMemoryTerm::new(10, 100);
        let mut bars = Bars::new(ProgressDrawTarget::term_like_with_hz(Box::new(terminal.clone()), 255));
        let mut seen = Vec::new();
        for snapshot in [
            snapshot(0, 0, 0, Some("next request in 4m10s, guard of https://reports.example")),
            snapshot(10, 500_000, 0, None),
            snapshot(15, 1_200_000, 214_000_000, None),
            snapshot(20, 2_000_000, 214_000_000, Some("waiting for the call 'render /Sales', 4 s")),
        ] {
            bars.show(&snapshot);
            // The screen is drawn at most so often; the test does not wait for that.
            bars.bars.values().for_each(ProgressBar::force_draw);
            seen.push(terminal.contents());
        }
        bars.end();
        seen.push(format!("({})", terminal.contents()));
        insta::assert_snapshot!(seen.join("\n---\n"));
    }
}
