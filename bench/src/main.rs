//! What measuring costs, and how right the figures are.
//!
//! One mode per file measures one part; [`page`] keeps the parts of a page together. A new mode is a file with figures that
//! are a [`page::Section`], a variant of [`Mode`], and a line in the list of parts of its page.

mod accuracy;
mod agent;
mod aggregation;
mod cost;
mod drain;
mod instructions;
mod load;
mod machine;
mod pace;
mod page;
mod process;
mod quiet;
mod reader;
mod series;
mod stats;
mod tool;
mod watch;
mod workload;

use std::path::PathBuf;

use anyhow::ensure;
use clap::{Parser, Subcommand};

use crate::page::{Page, Part};

const EXAMPLES: &str = "\
Examples:
  All that docs/performance.md tells; `make bench` does the same
    maplatency-bench cost && maplatency-bench load && maplatency-bench drain

  One part again; the others keep their figures
    maplatency-bench load

  Ten quiet minutes, and a short try of them
    maplatency-bench quiet
    maplatency-bench quiet --for 1m --json /tmp/a.json --markdown /tmp/a.md

  The pages anew from the JSON files, without measuring
    maplatency-bench render

Needs root, an otherwise idle machine, and what `cargo build --release --locked
-p maplatency-agent -p maplatency-workload` builds. Nothing else may read the
maps of this program meanwhile, and no other agent should run.";

/// Measures what maplatency costs and how right its figures are, and writes pages of documentation about it.
///
/// Each mode measures one part of a page, puts its figures into the page's JSON file, and writes the page from all that
/// the file holds: cost, load and drain into docs/performance.md, accuracy and quiet into docs/accuracy.md; aggregation has docs/aggregation.md for itself. Progress is
/// told on standard error.
#[derive(Debug, Parser)]
#[command(name = "maplatency-bench", version, about, after_help = EXAMPLES, after_long_help = EXAMPLES)]
struct Args {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    mode: Mode,
}

/// What all modes share.
#[derive(Debug, clap::Args)]
struct Common {
    /// The agent to measure.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "target/release/maplatency-agent"
    )]
    agent: PathBuf,
    /// The program with known reads.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "target/release/maplatency-workload"
    )]
    workload: PathBuf,
    /// Where the figures go as JSON [default: bench/results.json, or bench/accuracy.json].
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where they go as text [default: docs/performance.md, docs/accuracy.md, or
    /// docs/aggregation.md].
    #[arg(long, global = true, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Mode {
    /// What a call takes longer while it is measured, beside bpftrace and perf.
    Cost(cost::Args),
    /// CPU time, memory and run time of the agent at several rates of reads.
    Load(load::Args),
    /// What reading the counts costs, against the number of series.
    Drain(drain::Args),
    /// Both latencies against the caller's own clock, on every tier.
    Accuracy(accuracy::Args),
    /// Spikes that are reported while nothing happens; ten minutes.
    Quiet(quiet::Args),
    /// What each strategy of aggregation costs, and how far its figures are from exact ones.
    Aggregation(aggregation::Args),
    /// The child of drain.
    #[command(hide = true)]
    Series(series::Args),
    /// Write the pages anew from their JSON files, without measuring.
    Render,
}

fn main() -> anyhow::Result<()> {
    let Args { common, mode } = Args::parse();
    if !mode.is_child() && !matches!(mode, Mode::Render) {
        common.check()?;
    }
    match mode {
        Mode::Cost(args) => performance(&common).put(cost::measure(&common, &args)?),
        Mode::Load(args) => performance(&common).put(load::measure(&common, &args)?),
        Mode::Drain(args) => performance(&common).put(drain::measure(&common, &args)?),
        Mode::Accuracy(args) => accuracy_page(&common).put(accuracy::measure(&common, &args)?),
        Mode::Quiet(args) => accuracy_page(&common).put(quiet::measure(&common, &args)?),
        Mode::Aggregation(args) => aggregation::run(&common, &args),
        Mode::Series(args) => series::run(&args),
        Mode::Render => {
            performance(&common).write()?;
            accuracy_page(&common).write()
        }
    }
}

impl Mode {
    /// Whether this process was started by another mode.
    const fn is_child(&self) -> bool {
        match self {
            Self::Series(_) => true,
            Self::Aggregation(args) => args.is_child(),
            _ => false,
        }
    }
}

impl Common {
    /// Whether the programs to measure are there.
    fn check(&self) -> anyhow::Result<()> {
        for program in [&self.agent, &self.workload] {
            ensure!(
                program.exists(),
                "{} is missing; `cargo build --release --locked -p maplatency-agent -p maplatency-workload` makes it",
                program.display()
            );
        }
        Ok(())
    }
}

/// Parts of docs/performance.md, in its order.
const PERFORMANCE: &[Part] = &[
    Part::of::<cost::Figures>(),
    Part::of::<load::Figures>(),
    Part::of::<drain::Figures>(),
];
/// Parts of docs/accuracy.md.
const ACCURACY: &[Part] = &[
    Part::of::<accuracy::Figures>(),
    Part::of::<quiet::Figures>(),
];

fn performance(common: &Common) -> Page {
    let json = common.json.clone();
    let markdown = common.markdown.clone();
    Page {
        title: "Performance",
        intro: "\
Written by `make bench`. Run it on your machine: figures in nanoseconds are true for one machine, and even there for
one moment; ratios hold better.",
        json: json.unwrap_or_else(|| "bench/results.json".into()),
        markdown: markdown.unwrap_or_else(|| "docs/performance.md".into()),
        parts: PERFORMANCE,
        included: &[instructions::include],
    }
}

fn accuracy_page(common: &Common) -> Page {
    let json = common.json.clone();
    let markdown = common.markdown.clone();
    Page {
        title: "Accuracy",
        intro: "\
Written by `make accuracy`. [measurement.md](measurement.md) says what the two latencies are; here they are
held against what callers time themselves. Nothing passes or fails here: `make test` does that, with wider limits.",
        json: json.unwrap_or_else(|| "bench/accuracy.json".into()),
        markdown: markdown.unwrap_or_else(|| "docs/accuracy.md".into()),
        parts: ACCURACY,
        included: &[],
    }
}
