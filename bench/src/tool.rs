//! What watches the reads: an agent of one tier, or another tool.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::ensure;
use maplatency_agent::engine::{Engine, Refusal, TierChoice};
use maplatency_bpf::Tier;

use crate::agent;
use crate::process::{Running, Said, Says};

/// perf does not tell when it is ready.
const SETTLE: Duration = Duration::from_millis(1500);
/// What the bpftrace script is called.
pub(crate) const BPFTRACE: &str = "bpftrace script";
/// One operation in so many, where sampling is measured.
const SAMPLING: [u32; 2] = [16, 1024];
/// The same figures as the agent's, as far as bpftrace can: both ends of each call on maps, by command, in a histogram.
const SCRIPT: &str = "\
BEGIN { printf(\"ready\\n\"); }
tracepoint:syscalls:sys_enter_bpf { @start[tid] = nsecs; @command[tid] = args->cmd; }
tracepoint:syscalls:sys_exit_bpf /@start[tid]/ {
  @latency[@command[tid]] = hist(nsecs - @start[tid]);
  delete(@start[tid]); delete(@command[tid]);
}";

/// A tool that is installed and works here.
#[derive(Debug)]
pub(crate) enum Tool {
    Maplatency {
        agent: PathBuf,
        tier: Tier,
        /// One operation in so many counts; 1: all.
        one_in: u32,
    },
    Bpftrace,
    PerfTrace,
}

/// The tools that can run, and why the others cannot.
pub(crate) fn available(agent: &Path) -> anyhow::Result<(Vec<Tool>, Vec<String>)> {
    let (mut tools, mut absent) = (Vec::new(), Vec::new());
    for tier in Tier::ALL {
        match Engine::load(TierChoice::Only(tier)) {
            Ok(_) => tools.push(Tool::Maplatency {
                agent: agent.to_owned(),
                tier,
                one_in: 1,
            }),
            Err(error) => absent.push(format!("tier {}", Refusal::new(tier, &error))),
        }
    }
    ensure!(!tools.is_empty(), "no tier works here: {absent:?}");
    for (tool, program) in [(Tool::Bpftrace, "bpftrace"), (Tool::PerfTrace, "perf")] {
        let answer = Command::new(program).arg("--version").output();
        if answer.is_ok_and(|it| it.status.success()) {
            tools.push(tool);
        } else {
            absent.push(format!("{}: {program} is not installed", tool.name()));
        }
    }
    Ok((tools, absent))
}

impl Tool {
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Maplatency {
                tier, one_in: 1, ..
            } => format!("maplatency, tier {tier}"),
            Self::Maplatency { tier, one_in, .. } => {
                format!("maplatency, tier {tier}, 1 in {one_in}")
            }
            Self::Bpftrace => BPFTRACE.to_owned(),
            Self::PerfTrace => "perf trace -s -e bpf".to_owned(),
        }
    }

    /// The agents of the same tiers that sample.
    pub(crate) fn sampled(&self) -> Vec<Self> {
        let Self::Maplatency { agent, tier, .. } = self else {
            return vec![];
        };
        SAMPLING
            .map(|one_in| Self::Maplatency {
                agent: agent.clone(),
                tier: *tier,
                one_in,
            })
            .into()
    }

    /// Starts it on this process and waits until it measures.
    pub(crate) fn start(&self, map_id: u32) -> anyhow::Result<Running> {
        match self {
            Self::Maplatency {
                agent,
                tier,
                one_in,
            } => {
                let aggregation = match one_in {
                    1 => String::new(),
                    _ => format!(", aggregation: {{strategy: Sampled, oneIn: {one_in}}}"),
                };
                let spec = format!("maps: [{{ids: [{map_id}]}}]{aggregation}");
                agent::start(agent, Some(*tier), &spec)
            }
            Self::Bpftrace => {
                let mut command = Command::new("bpftrace");
                command.args(["-e", SCRIPT]);
                Running::start(command, None, "ready", Says::Output)
            }
            Self::PerfTrace => {
                let own = std::process::id().to_string();
                let mut command = Command::new("perf");
                command.args(["trace", "-s", "-e", "bpf", "-p", &own]);
                let running = Running::start(command, None, "", Says::Nothing)?;
                thread::sleep(SETTLE);
                Ok(running)
            }
        }
    }
}

impl Tool {
    /// Whether it saw the reads, as far as it tells what it saw. A tool that did not do its work has no cost.
    pub(crate) fn check(&self, said: &Said, reads: u64) -> anyhow::Result<()> {
        let seen: u64 = match self {
            // One line per thread: name, calls, errors, times.
            Self::PerfTrace => said
                .log
                .lines()
                .filter_map(|it| it.trim().strip_prefix("bpf "))
                .filter_map(|it| it.split_whitespace().next()?.parse::<u64>().ok())
                .sum(),
            // A line per bucket; its count stands behind the bounds.
            Self::Bpftrace => said
                .output
                .lines()
                .filter_map(|it| it.split_once(')')?.1.split_whitespace().next())
                .filter_map(|it| it.parse::<u64>().ok())
                .sum(),
            Self::Maplatency { .. } => {
                let status = agent::status(said)?;
                status["operations"][0]["count"].as_u64().unwrap_or(0)
            }
        };
        // perf loses events under load, and says how many; half of them are enough to cost what they cost.
        ensure!(
            seen >= reads / 2,
            "{} saw {seen} of {reads} reads, so it has no figure:\n{}{}",
            self.name(),
            said.output,
            said.log
        );
        Ok(())
    }
}
