//! What a call takes longer while it is measured: by each tier, by a bpftrace script, and by `perf trace`.
//!
//! Machines are noisy and change their speed, so every tool is compared with no tool in the same round, and rounds are
//! repeated. What is reported are medians of these differences and how far they spread.

mod text;

use std::fmt;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::Common;
use crate::page::{Aim, Section};
use crate::reader::{Cost, Reader};
use crate::tool::{self, Tool};

/// Sizes of values, in bytes.
const VALUE_SIZES: [u32; 3] = [8, 512, 32 * 1024];

const HELP: &str = "\
Per round and tool: a loop of lookups and one of getppid(2) without the tool,
then the same with it. The difference counts; the median over the rounds is
told. Values of 8, 512 and 32,768 bytes, on one CPU and on two at once; for
values of 8 bytes on one CPU also agents that sample. About eight minutes.

A look at one tool's figure in a hurry:
  maplatency-bench cost --rounds 1 --quick";

/// How to measure the cost of a call.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// How often every tool is compared with none.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
    rounds: u32,
    /// Values of 8 bytes on one CPU alone.
    #[arg(long)]
    quick: bool,
}

/// What is read, and by how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    value_size: u32,
    cpus: u32,
}

/// The case in which sampling is measured as well.
const SHORTEST: Case = Case {
    value_size: VALUE_SIZES[0],
    cpus: 1,
};

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
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
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
    fn new(tool: String, case: Case) -> Self {
        Self {
            tool,
            case,
            read: vec![],
            added_to_read: vec![],
            added_to_unrelated: vec![],
        }
    }

    fn add(&mut self, alone: Cost, measured: Cost) {
        self.read.push(alone.read);
        self.added_to_read.push(measured.read - alone.read);
        self.added_to_unrelated
            .push(measured.unrelated - alone.unrelated);
    }
}

/// What was measured.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Figures {
    rounds: u32,
    /// Tools that could not run, and why.
    absent: Vec<String>,
    rows: Vec<Row>,
}

impl Section for Figures {
    const KEY: &'static str = "cost";

    fn render(&self, text: &mut String) -> fmt::Result {
        self.write(text)
    }

    fn aims(&self) -> Vec<Aim> {
        self.aimed_at()
    }
}

pub(crate) fn measure(common: &Common, args: &Args) -> anyhow::Result<Figures> {
    let (tools, absent) = tool::available(&common.agent)?;
    let mut rows = Vec::new();
    for value_size in VALUE_SIZES {
        for cpus in [1, 2] {
            let case = Case { value_size, cpus };
            if args.quick && case != SHORTEST {
                continue;
            }
            rows.extend(compare(case, &tools, args.rounds)?);
            if case == SHORTEST {
                let sampled: Vec<Tool> = tools.iter().flat_map(Tool::sampled).collect();
                rows.extend(compare(case, &sampled, args.rounds)?);
            }
        }
    }
    Ok(Figures {
        rounds: args.rounds,
        absent,
        rows,
    })
}

/// Compares all tools with none, in turn, as often as asked for.
fn compare(case: Case, tools: &[Tool], rounds: u32) -> anyhow::Result<Vec<Row>> {
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
        eprintln!("cost: {case}: round {round} of {rounds}");
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
