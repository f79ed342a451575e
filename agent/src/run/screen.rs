//! Where the outcome goes: a table that is redrawn, one that is printed anew, or a document in the end.

use std::io::{self, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use maplatency_core::MapLatencyProbe;
use maplatency_core::crd::status::{MapLatencyProbeStatus, SummaryText};

use super::report::Reporter;
use crate::args::Output;
use crate::monitor::Snapshot;

/// Time between two tables, or lines of progress, that stay.
const EVERY: Duration = Duration::from_secs(5);
/// A slice may come a little early.
const EARLY: Duration = Duration::from_millis(500);
/// Rows of the slowest in a table that has to fit on a screen, and in one that does not.
const FEW: usize = 5;
const MANY: usize = 10;

/// Clears the screen before the first table, and what is left of the one before after every later one.
const CLEAR: &str = "\x1b[2J";
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

pub(super) struct Screen {
    output: Output,
    terminal: bool,
    /// When the newest table or line was printed.
    printed: Option<Duration>,
}

impl Screen {
    pub(super) fn new(output: Output, terminal: bool) -> Self {
        Self {
            output,
            terminal,
            printed: None,
        }
    }

    /// Shows how it stands.
    pub(super) fn show(
        &mut self,
        reporter: &mut Reporter,
        snapshot: &Snapshot,
        elapsed: Duration,
    ) -> anyhow::Result<()> {
        let redraws = self.output == Output::Table && self.terminal;
        let is_due = self.printed.is_none_or(|it| elapsed + EARLY >= it + EVERY);
        if !redraws && !is_due {
            return Ok(());
        }
        let is_first = self.printed.replace(elapsed).is_none();
        match self.output {
            Output::Table if redraws => {
                print(&redrawn(&reporter.table(snapshot, elapsed, FEW), is_first))
            }
            Output::Table => print(&format!("{}\n", reporter.table(snapshot, elapsed, FEW))),
            Output::Yaml | Output::Json => {
                eprintln!("{}", progress(&reporter.status(snapshot), elapsed));
                Ok(())
            }
        }
    }

    /// Shows the outcome.
    pub(super) fn finish(
        self,
        reporter: &mut Reporter,
        snapshot: &Snapshot,
        elapsed: Duration,
    ) -> anyhow::Result<()> {
        let resource = reporter.resource(snapshot);
        match self.output {
            Output::Table => {
                let table = reporter.table(snapshot, elapsed, MANY);
                let table = if self.terminal {
                    redrawn(&table, self.printed.is_none())
                } else {
                    table
                };
                print(&format!(
                    "{table}\n# The resource with its status, as a cluster shows it:\n{}",
                    yaml(&resource)?
                ))
            }
            Output::Yaml => print(&yaml(&resource)?),
            Output::Json => {
                let text = serde_json::to_string_pretty(&resource)
                    .context("could not write the resource as JSON")?;
                print(&format!("{text}\n"))
            }
        }
    }
}

fn yaml(resource: &MapLatencyProbe) -> anyhow::Result<String> {
    serde_yaml::to_string(resource).context("could not write the resource as YAML")
}

/// The table over the one before it.
fn redrawn(table: &str, is_first: bool) -> String {
    let lines = table.replace('\n', &format!("{CLEAR_LINE}\n"));
    let clear = if is_first { CLEAR } else { "" };
    format!("{clear}{HOME}{lines}{CLEAR_BELOW}")
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("could not write to standard output")
}

fn progress(status: &MapLatencyProbeStatus, elapsed: Duration) -> String {
    let SummaryText {
        nodes: _,
        reads,
        p50,
        p99,
        p999: _,
        max,
    } = &status.summary;
    let figure = |it: &Option<String>| it.clone().unwrap_or_else(|| "-".to_owned());
    format!(
        "{}s: {} maps, {} reads, P50 {}, P99 {}, max {}",
        elapsed.as_secs(),
        status.matched_maps,
        figure(reads),
        figure(p50),
        figure(p99),
        figure(max),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redrawn_line_leaves_nothing_of_the_longer_one_before_it() {
        assert_eq!(redrawn("a\nb\n", false), "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
        assert!(redrawn("a\n", true).starts_with("\x1b[2J\x1b[H"));
    }

    #[test]
    fn progress_is_one_line_and_dashes_stand_for_what_is_missing() {
        let text = progress(&MapLatencyProbeStatus::default(), Duration::from_secs(5));
        assert_eq!(text, "5s: 0 maps, - reads, P50 -, P99 -, max -");
    }
}
