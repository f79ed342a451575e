//! What it costs a program that its map reads are measured: by each tier of maplatency, by an equivalent bpftrace
//! script, and by `perf trace`.
//!
//! Machines are noisy and change their speed, so every tool is compared with no tool in the same round, and rounds are
//! repeated. What is reported are medians of these differences and how far they spread.

mod aggregation;
mod machine;
mod reader;
mod report;
mod tool;

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::Parser;

use crate::reader::{Cost, Reader};
use crate::report::{Case, Report, Row};
use crate::tool::Tool;

/// Sizes of values, in bytes.
const VALUE_SIZES: [u32; 3] = [8, 512, 32 * 1024];

/// Measures what measuring costs, side by side with other tools.
///
/// Needs root, an otherwise idle machine, and the agent built with `cargo build --release --locked`. Tools that are not
/// installed are left out, and the report says so.
#[derive(Debug, Parser)]
#[command(name = "maplatency-bench", version)]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    /// Another thing to measure.
    #[command(subcommand)]
    mode: Option<Mode>,
    /// The agent to measure.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "target/release/maplatency-agent"
    )]
    agent: PathBuf,
    /// How often every tool is compared with none.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
    rounds: u32,
    /// Where the figures go as JSON.
    #[arg(long, value_name = "FILE", default_value = "bench/results.json")]
    json: PathBuf,
    /// Where they go as text.
    #[arg(long, value_name = "FILE", default_value = "docs/performance.md")]
    markdown: PathBuf,
}

/// What else can be measured.
#[derive(Debug, clap::Subcommand)]
enum Mode {
    /// What each strategy of aggregation costs, and how far its figures are from exact ones; writes docs/aggregation.md.
    Aggregation(aggregation::Args),
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(Mode::Aggregation(args)) = &args.mode {
        return aggregation::run(args);
    }
    ensure!(
        args.agent.exists(),
        "{} is missing; `cargo build --release --locked` makes it",
        args.agent.display()
    );
    let (tools, absent) = tool::available(&args.agent)?;
    let mut rows = Vec::new();
    for value_size in VALUE_SIZES {
        for cpus in [1, 2] {
            let case = Case { value_size, cpus };
            rows.extend(measure(case, &tools, args.rounds)?);
        }
    }
    let report = Report {
        machine: machine::describe()?,
        rounds: args.rounds,
        absent,
        rows,
    };
    report.write(&args.json, &args.markdown)?;
    eprintln!(
        "Wrote {} and {}",
        args.json.display(),
        args.markdown.display()
    );
    Ok(())
}

/// Compares all tools with none, in turn, as often as asked for.
fn measure(case: Case, tools: &[Tool], rounds: u32) -> anyhow::Result<Vec<Row>> {
    let reader = Reader::new(case.value_size, case.cpus)?;
    let mut rows: Vec<Row> = tools.iter().map(|it| Row::new(it.name(), case)).collect();
    for round in 1..=rounds {
        for (tool, row) in tools.iter().zip(&mut rows) {
            // Right before the tool, so that both meet the machine in the same mood.
            let alone = reader.run()?;
            let measured = under(tool, &reader)
                .with_context(|| format!("{} in round {round}", tool.name()))?;
            row.add(alone, measured);
        }
        eprintln!("{case}: round {round} of {rounds}");
    }
    Ok(rows)
}

fn under(tool: &Tool, reader: &Reader) -> anyhow::Result<Cost> {
    let running = tool.start(reader.map_id())?;
    let cost = reader.run()?;
    let said = running.stop()?;
    tool.check(&said, cost.reads)?;
    Ok(cost)
}
