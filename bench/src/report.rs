//! Figures as JSON and as text.

use std::fmt::{self, Write as _};
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use crate::machine::Machine;
use crate::reader::Cost;

/// What is read, and by how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Case {
    pub(crate) value_size: u32,
    pub(crate) cpus: u32,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { value_size, cpus } = self;
        let place = if *cpus == 1 {
            "one CPU"
        } else {
            "two CPUs at once"
        };
        write!(f, "values of {value_size} bytes, on {place}")
    }
}

/// One tool in one case, over all rounds. Nanoseconds per call.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    tool: String,
    case: Case,
    /// A lookup without any tool.
    read: Vec<f64>,
    /// What a lookup takes longer with the tool.
    added_to_read: Vec<f64>,
    /// What getppid(2) takes longer with the tool.
    added_to_unrelated: Vec<f64>,
}

impl Row {
    pub(crate) fn new(tool: String, case: Case) -> Self {
        Self {
            tool,
            case,
            read: vec![],
            added_to_read: vec![],
            added_to_unrelated: vec![],
        }
    }

    pub(crate) fn add(&mut self, alone: Cost, measured: Cost) {
        self.read.push(alone.read);
        self.added_to_read.push(measured.read - alone.read);
        self.added_to_unrelated
            .push(measured.unrelated - alone.unrelated);
    }
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) rounds: u32,
    /// Tools that could not run, and why.
    pub(crate) absent: Vec<String>,
    pub(crate) rows: Vec<Row>,
}

impl Report {
    pub(crate) fn write(&self, json: &Path, markdown: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        for (path, text) in [(json, text), (markdown, self.markdown()?)] {
            fs::write(path, text).with_context(|| format!("could not write {}", path.display()))?;
        }
        Ok(())
    }

    fn markdown(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        let Machine {
            kernel,
            processor,
            cpus,
            preemption,
        } = &self.machine;
        writeln!(
            text,
            "# Performance

Written by `make bench`. Run it on your machine: figures in nanoseconds are true for one machine, and even there for
one moment; the last column holds better.

| | |
|---|---|
| Kernel | {kernel} |
| Preemption | {preemption} |
| Processor | {processor}, {cpus} CPUs |
| Rounds | {} |

A program looks up keys of a hash in a loop, on one CPU or on two at once. Every tool is compared with no tool in the
same round, one right after the other. Given are medians over the rounds, and in brackets the smallest and the largest.
*Added* is what a call takes longer while the tool measures; for getppid(2) that is the price that every other system
call on the host pays.

The bpftrace script does what such a script can: entry and exit of bpf(2), a histogram per command. It does not know the
map, and not when the caller was back in user mode.
",
            self.rounds
        )?;
        let mut cases: Vec<Case> = self.rows.iter().map(|it| it.case).collect();
        cases.dedup();
        for case in cases {
            self.table(&mut text, case)?;
        }
        if !self.absent.is_empty() {
            writeln!(text, "## Not measured\n")?;
            for it in &self.absent {
                writeln!(text, "- {it}")?;
            }
        }
        Ok(text)
    }

    fn table(&self, text: &mut String, case: Case) -> fmt::Result {
        let rows: Vec<&Row> = self.rows.iter().filter(|it| it.case == case).collect();
        let read: Vec<f64> = rows.iter().flat_map(|it| it.read.clone()).collect();
        writeln!(
            text,
            "## {case}

A lookup alone: {} ns

| Tool | added per lookup, ns | added per getppid(2), ns | per lookup against bpftrace |
|---|---|---|---|",
            spread(&read)
        )?;
        let bpftrace = rows.iter().find(|it| it.tool.starts_with("bpftrace"));
        for row in &rows {
            let ratio = bpftrace.map_or_else(
                || "-".to_owned(),
                |it| {
                    format!(
                        "{:.2}",
                        median(&row.added_to_read) / median(&it.added_to_read)
                    )
                },
            );
            let (read, unrelated) = (&row.added_to_read, &row.added_to_unrelated);
            let (read, unrelated) = (spread(read), spread(unrelated));
            writeln!(text, "| {} | {read} | {unrelated} | {ratio} |", row.tool)?;
        }
        writeln!(text)
    }
}

fn spread(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{:.0} ({least:.0} to {most:.0})", median(values))
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
