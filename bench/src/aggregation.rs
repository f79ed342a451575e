//! What each strategy of aggregation costs, and how far its figures are from the truth.
//!
//! Two measurements for each distribution of latencies. For the **cost** an agent runs each strategy by itself, right after
//! the same reads without an agent. For the **error** one agent runs all of them beside each other on the same reads, so
//! that they see the very same operations with the same latencies; all of these, as `Direct` has them, are the truth.

mod agent;
mod page;
mod reader;
mod truth;

use std::path::Path;

use anyhow::{Context as _, bail};
use maplatency_agent::engine::{Engine, TierChoice};
use maplatency_bpf::Tier;

use crate::{Common, machine};
use agent::{Agent, Cost};
use page::{CostRow, Outcome};
use reader::{Distribution, Job, Reader};
use truth::Errors;

/// How long is read for the cost.
const COST_MILLISECONDS: u64 = 2_000;

/// Compares the strategies of aggregation: what they cost, and how far their figures are from exact ones.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How often everything is measured.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: u32,
    /// Be the program that reads. The agent leaves the reads of its own process out.
    #[arg(long, hide = true)]
    reader: Option<Distribution>,
}

impl Args {
    /// Whether this process only reads, and another one measures.
    pub(crate) const fn is_child(&self) -> bool {
        self.reader.is_some()
    }
}

/// The strategies, each as a spec has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strategy {
    Histogram,
    Sampled,
    SlidingWindow,
    Direct,
}

impl Strategy {
    const ALL: [Self; 4] = [
        Self::Histogram,
        Self::Sampled,
        Self::SlidingWindow,
        Self::Direct,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Histogram => "Histogram",
            Self::Sampled => "Sampled",
            Self::SlidingWindow => "SlidingWindow",
            Self::Direct => "Direct",
        }
    }

    /// Everything else is left to the defaults.
    fn spec(self, map_id: u32) -> serde_json::Value {
        serde_json::json!({
            "maps": [{"ids": [map_id]}],
            "operations": ["Lookup"],
            "aggregation": {"strategy": self.as_str()},
        })
    }
}

/// Measures everything and writes the page.
pub(crate) fn run(common: &Common, args: &Args) -> anyhow::Result<()> {
    if let Some(distribution) = args.reader {
        return reader::serve(distribution);
    }
    let tier = tier()?;
    let mut outcomes = Vec::new();
    for distribution in Distribution::ALL {
        let mut reader = Reader::start(distribution)?;
        let mut outcome = Outcome::new(distribution);
        for round in 1..=args.rounds {
            costs(common, tier, &mut reader, &mut outcome)
                .with_context(|| format!("{distribution}, round {round}"))?;
            let errors = Errors::measure(tier, &mut reader)
                .with_context(|| format!("{distribution}, round {round}, all strategies"))?;
            outcome.errors.push(errors);
            eprintln!("{distribution}: round {round} of {}", args.rounds);
        }
        outcomes.push(outcome);
    }
    let text = page::render(&machine::describe()?, tier, args.rounds, &outcomes)?;
    let page = common
        .markdown
        .as_deref()
        .unwrap_or(Path::new("docs/aggregation.md"));
    std::fs::write(page, text).with_context(|| format!("could not write {}", page.display()))?;
    eprintln!("Wrote {}", page.display());
    Ok(())
}

/// The best tier that works here. `Auto` may choose another one in each run.
fn tier() -> anyhow::Result<Tier> {
    let works = |it: &Tier| Engine::load(TierChoice::Only(*it)).is_ok();
    Tier::ALL
        .into_iter()
        .find(works)
        .context("no tier works here; `maplatency-agent run` says why")
}

fn costs(
    common: &Common,
    tier: Tier,
    reader: &mut Reader,
    outcome: &mut Outcome,
) -> anyhow::Result<()> {
    let job = Job::For {
        milliseconds: COST_MILLISECONDS,
    };
    // Right before the agents, so that all meet the machine in the same mood.
    let alone = reader.read(&job)?;
    outcome.alone.push(alone.p50);
    for (strategy, row) in Strategy::ALL.into_iter().zip(&mut outcome.costs) {
        let agent = Agent::start(&common.agent, tier, &strategy.spec(reader.map_id()))?;
        let before = agent.cpu_time()?;
        let reads = reader.read(&job)?;
        let cpu = agent.cpu_time()?.saturating_sub(before);
        let cost = agent.stop()?;
        check(strategy, &cost, reads.count)
            .with_context(|| format!("strategy {}", strategy.as_str()))?;
        row.push(CostRow {
            rss: cost.rss,
            bpf: cost.bpf,
            missed: cost.missed,
            reads: reads.count,
            cpu_share: cpu.as_secs_f64() / reads.elapsed().as_secs_f64(),
            added: signed(reads.p50) - signed(alone.p50),
        });
    }
    Ok(())
}

/// An agent that did not do its work has no cost.
fn check(strategy: Strategy, cost: &Cost, reads: u64) -> anyhow::Result<()> {
    let is_right = match strategy {
        // An estimate, but not by half.
        Strategy::Sampled => cost.counted.abs_diff(reads) < reads / 2,
        Strategy::Histogram | Strategy::SlidingWindow | Strategy::Direct => cost.counted == reads,
    };
    if !is_right {
        bail!("the agent counted {} of {reads} reads", cost.counted);
    }
    Ok(())
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
