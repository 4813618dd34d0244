//! Progress where nobody looks at a screen: a line every few seconds.

use std::time::Duration;

use super::{Rates, Snapshot, left};
use crate::table::{clock, thousands};

/// From one line to the next.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(crate) struct Lines {
    rates: Rates,
}

impl Lines {
    pub fn line(&mut self, snapshot: &Snapshot) -> String {
        let mut parts = Vec::new();
        for part in &snapshot.parts {
            let (rows, bytes) = self.rates.of(part, snapshot.elapsed);
            let mut text = format!("{}: {}", part.name, part.counts());
            if let Some(done) = part.done() {
                text.push_str(&format!(", {:.0}%", done * 100.0));
            }
            if rows >= 1.0 {
                text.push_str(&format!(", {} rows/s", thousands(rows as u64)));
            }
            if let Some(left) = left(part, bytes) {
                text.push_str(&format!(", {} left", clock(left)));
            }
            if let Some(waits) = &part.waits {
                text.push_str(&format!(", {waits}"));
            }
            parts.push(text);
        }
        let parts = if parts.is_empty() { "starting".to_owned() } else { parts.join("; ") };
        format!("{}  {parts}", clock(snapshot.elapsed.as_secs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::tests::snapshot;

    #[test]
    fn a_run_without_a_terminal() {
        let mut lines = Lines::default();
        let shown = [
            Snapshot::default(),
            snapshot(5, 0, 0, Some("next request in 4m10s, guard of https://reports.example")),
            snapshot(10, 500_000, 0, None),
            snapshot(15, 1_200_000, 214_000_000, None),
            snapshot(20, 2_000_000, 214_000_000, Some("waiting for the call 'render /Sales', 4 s")),
        ];
        let text: Vec<String> = shown.iter().map(|snapshot| lines.line(snapshot)).collect();
        insta::assert_snapshot!(text.join("\n"));
    }
}
