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

/// To the beginning of the line, and what clears from there on.
const RETURN: &str = "\r";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

pub(super) struct Screen {
    output: Output,
    terminal: bool,
    /// When the newest table or line was printed.
    printed: Option<Duration>,
    /// Lines of the table that the next one is drawn over.
    drawn: usize,
}

impl Screen {
    pub(super) fn new(output: Output, terminal: bool) -> Self {
        Self {
            output,
            terminal,
            printed: None,
            drawn: 0,
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
        self.printed = Some(elapsed);
        match self.output {
            Output::Table if redraws => {
                let table = fitted(&reporter.table(snapshot, elapsed, FEW), size());
                let text = redrawn(&table, self.drawn);
                self.drawn = table.lines().count();
                print(&text)
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
                    redrawn(&table, self.drawn)
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

/// Columns and rows of the terminal, if it tells.
fn size() -> Option<(usize, usize)> {
    let (columns, rows) = terminal_size::terminal_size_of(io::stdout())?;
    (columns.0 > 0 && rows.0 > 0).then_some((columns.0.into(), rows.0.into()))
}

/// As much of the table as the terminal shows at once, with the cursor below it.
fn fitted(table: &str, size: Option<(usize, usize)>) -> String {
    let Some((columns, rows)) = size else {
        return table.to_owned();
    };
    let mut lines: Vec<String> = table.lines().map(str::to_owned).collect();
    let room = rows.saturating_sub(1).max(1);
    if lines.len() > room {
        let more = lines.len() - (room - 1);
        lines.truncate(room - 1);
        lines.push(format!("... {more} more lines; enlarge the terminal"));
    }
    let cut = |it: &String| format!("{}\n", it.chars().take(columns).collect::<String>());
    lines.iter().map(cut).collect()
}

/// The table over the one before it, which had `drawn` lines. What stands above stays.
fn redrawn(table: &str, drawn: usize) -> String {
    // Cleared before it is written: after a line as wide as the terminal the cursor stands on its last character.
    let mut lines = String::new();
    for line in table.lines() {
        lines.extend([CLEAR_LINE, line, "\n"]);
    }
    let up = match drawn {
        0 => String::new(),
        lines => format!("\x1b[{lines}A"),
    };
    format!("{RETURN}{up}{lines}{CLEAR_BELOW}")
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
        objectives,
    } = &status.summary;
    let figure = |it: &Option<String>| it.clone().unwrap_or_else(|| "-".to_owned());
    let objectives = objectives.as_ref();
    let objectives = objectives.map_or_else(String::new, |it| format!(", objectives {it}"));
    format!(
        "{}s: {} maps, {} reads, P50 {}, P99 {}, max {}{objectives}",
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
        assert_eq!(redrawn("a\nb\n", 3), "\r\x1b[3A\x1b[Ka\n\x1b[Kb\n\x1b[J");
    }

    #[test]
    fn the_first_table_leaves_what_stands_above_it() {
        assert_eq!(redrawn("a\n", 0), "\r\x1b[Ka\n\x1b[J");
    }

    #[test]
    fn a_table_is_cut_to_the_terminal() {
        assert_eq!(fitted("12µ45\nb\nc\nd\n", Some((3, 9))), "12µ\nb\nc\nd\n");
        assert_eq!(
            fitted("a\nb\nc\nd\n", Some((80, 4))),
            "a\nb\n... 2 more lines; enlarge the terminal\n"
        );
        assert_eq!(
            fitted("a\nb\n", Some((80, 1))),
            "... 2 more lines; enlarge the terminal\n"
        );
        assert_eq!(fitted("a\nb\n", None), "a\nb\n");
    }

    #[test]
    fn progress_is_one_line_and_dashes_stand_for_what_is_missing() {
        let text = progress(&MapLatencyProbeStatus::default(), Duration::from_secs(5));
        assert_eq!(text, "5s: 0 maps, - reads, P50 -, P99 -, max -");
    }
}
