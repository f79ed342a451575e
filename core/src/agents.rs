//! Merges what is known of agents into the few lines of a status.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;

use crate::budget::Shed;
use crate::cost::Cost;
use crate::crd::agents::{
    AgentsStatus, HighestCost, HighestCpu, HighestMemory, HighestRunTime, ShedStatus,
    SheddingStatus, TierStatus,
};

/// Tiers kept in `status.agents.tiers`.
const TIERS: usize = 8;
/// Reasons kept of each.
const REASONS: usize = 3;
/// Longest name of a tier, in characters.
const TIER_NAME: usize = 64;

/// One agent that measures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentFacts {
    /// The node's name.
    pub node: String,
    /// The hooks that run, and in brackets why no better ones do: `Tracepoint (Fentry refused: EPERM at load)`.
    pub tier: String,
    /// What it costs.
    pub cost: Cost,
    /// What it leaves out to stay within its budget.
    pub shed: Vec<Shed>,
}

/// Sums up all agents. `None` when there are none.
pub fn agents_status(agents: &[AgentFacts]) -> Option<AgentsStatus> {
    if agents.is_empty() {
        return None;
    }
    Some(AgentsStatus {
        tiers: tiers(agents),
        cost: highest(agents),
        shedding: shedding(agents),
    })
}

fn shedding(agents: &[AgentFacts]) -> Option<SheddingStatus> {
    let shed = |it: &AgentFacts| {
        let factor = it.shed.iter().map(|it| it.one_in).max();
        (it.shed.len(), factor)
    };
    let most = agents
        .iter()
        .filter(|it| !it.shed.is_empty())
        .max_by_key(|it| (shed(it), Reverse(&it.node)))?;
    let nodes = agents.iter().filter(|it| !it.shed.is_empty()).count();
    Some(SheddingStatus {
        nodes: i32::try_from(nodes).unwrap_or(i32::MAX),
        node: most.node.clone(),
        steps: most.shed.iter().filter_map(shed_status).collect(),
    })
}

fn shed_status(shed: &Shed) -> Option<ShedStatus> {
    let since = Timestamp::from_microsecond(shed.since_unix_microseconds).ok()?;
    Some(ShedStatus {
        step: shed.step.to_string(),
        reason: shed.resource.reason().to_owned(),
        since_time: MicroTime(since),
        one_in: (shed.one_in > 1).then(|| shed.one_in.into()),
    })
}

fn tiers(agents: &[AgentFacts]) -> Vec<TierStatus> {
    let mut by_name: BTreeMap<String, Vec<Option<&str>>> = BTreeMap::new();
    for agent in agents {
        let (name, reason) = split(&agent.tier);
        let name = name.chars().take(TIER_NAME).collect();
        by_name.entry(name).or_default().push(reason);
    }
    let mut tiers: Vec<TierStatus> = by_name
        .into_iter()
        .map(|(tier, nodes)| TierStatus {
            tier,
            nodes: i32::try_from(nodes.len()).unwrap_or(i32::MAX),
            reasons: most_frequent(nodes.into_iter().flatten()),
        })
        .collect();
    tiers.sort_by_key(|it| Reverse(it.nodes));
    tiers.truncate(TIERS);
    tiers
}

/// The name of a tier, and why no better one runs. The end of a long text may be cut off.
fn split(tier: &str) -> (&str, Option<&str>) {
    match tier.split_once(" (") {
        Some((name, rest)) if !name.is_empty() && !rest.is_empty() => {
            (name, Some(rest.strip_suffix(')').unwrap_or(rest)))
        }
        _ => (tier, None),
    }
}

fn most_frequent<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for text in texts {
        *counts.entry(text).or_default() += 1;
    }
    let mut texts: Vec<(&str, usize)> = counts.into_iter().collect();
    texts.sort_by_key(|(_, count)| Reverse(*count));
    texts
        .into_iter()
        .take(REASONS)
        .map(|(text, _)| text.to_owned())
        .collect()
}

fn highest(agents: &[AgentFacts]) -> HighestCost {
    HighestCost {
        cpu: max(agents, |it| Some((it.cpu?.parts_per_million(), it.cpu?))).map(|(node, it)| {
            HighestCpu {
                node,
                parts_per_million: signed(it.parts_per_million()),
                readers_parts_per_million: it.readers_parts_per_million().map(signed),
            }
        }),
        rss: memory(agents, |it| it.rss_bytes),
        bpf_memory: memory(agents, Cost::bpf_memory_bytes),
        bpf_run_time: max(agents, |it| {
            Some((it.bpf_run_time?.parts_per_million(), it.bpf_run_time?))
        })
        .map(|(node, it)| HighestRunTime {
            node,
            parts_per_million: signed(it.parts_per_million()),
            mean_nanoseconds: it.mean_nanoseconds().map(signed),
        }),
    }
}

fn memory(agents: &[AgentFacts], bytes: impl Fn(&Cost) -> Option<u64>) -> Option<HighestMemory> {
    let (node, bytes) = max(agents, |it| bytes(it).map(|it| (it, it)))?;
    Some(HighestMemory {
        node,
        bytes: signed(bytes),
    })
}

/// The node whose figure is the highest; of equal ones the first by name, so that a status does not alternate.
fn max<T>(
    agents: &[AgentFacts],
    figure: impl Fn(&Cost) -> Option<(u64, T)>,
) -> Option<(String, T)> {
    let (node, (_, value)) = agents
        .iter()
        .filter_map(|it| Some((&it.node, figure(&it.cost)?)))
        .max_by_key(|(node, (figure, _))| (*figure, Reverse(*node)))?;
    Some((node.clone(), value))
}

/// The API has no unsigned integers.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::{Resource, Step};
    use crate::cost::{BpfRunTime, CpuTime};

    fn agent(node: &str, tier: &str) -> AgentFacts {
        AgentFacts {
            node: node.to_owned(),
            tier: tier.to_owned(),
            cost: Cost::default(),
            shed: vec![],
        }
    }

    fn busy(node: &str, total_nanoseconds: u64) -> AgentFacts {
        let cost = Cost {
            cpu: Some(CpuTime {
                period_nanoseconds: 1_000_000,
                total_nanoseconds,
                readers_nanoseconds: None,
            }),
            ..Cost::default()
        };
        AgentFacts {
            cost,
            ..agent(node, "Fentry")
        }
    }

    #[test]
    fn without_agents_there_is_nothing_to_tell() {
        assert_eq!(agents_status(&[]), None);
    }

    #[test]
    fn the_node_that_leaves_out_most_is_named() {
        let shed = |step, one_in| Shed {
            step,
            resource: Resource::Cpu,
            since_unix_microseconds: 1_000_000,
            one_in,
        };
        let shedding = |node, shed: &[Shed]| AgentFacts {
            shed: shed.to_vec(),
            ..agent(node, "Fentry")
        };
        let callers = shed(Step::CoarserCallers, 1);
        let agents = [
            shedding("a", &[]),
            shedding("b", &[callers]),
            shedding("c", &[callers, shed(Step::Sampling, 4)]),
            shedding("d", &[callers, shed(Step::Sampling, 8)]),
        ];

        let status = agents_status(&agents).unwrap().shedding.unwrap();

        assert_eq!((status.nodes, status.node.as_str()), (3, "d"));
        let steps: Vec<_> = status
            .steps
            .iter()
            .map(|it| (it.step.as_str(), it.reason.as_str(), it.one_in))
            .collect();
        let expected = [
            ("CoarserCallers", "OverCpuBudget", None),
            ("Sampling", "OverCpuBudget", Some(8)),
        ];
        assert_eq!(steps, expected);
        assert_eq!(agents_status(&agents[..1]).unwrap().shedding, None);
    }

    #[test]
    fn tiers_are_counted_and_say_why_no_better_one_runs() {
        let agents = [
            agent("a", "Fentry"),
            agent("b", "Tracepoint (Fentry refused: EPERM at load)"),
            agent("c", "Tracepoint (Fentry refused: EPERM at load)"),
            agent(
                "d",
                "Tracepoint (Fentry refused: EINVAL at attach; see (x))",
            ),
            agent("e", "Tracepoint"),
        ];

        let tiers = agents_status(&agents).unwrap().tiers;

        assert_eq!(
            tiers,
            [
                TierStatus {
                    tier: "Tracepoint".to_owned(),
                    nodes: 4,
                    reasons: vec![
                        "Fentry refused: EPERM at load".to_owned(),
                        "Fentry refused: EINVAL at attach; see (x)".to_owned(),
                    ],
                },
                TierStatus {
                    tier: "Fentry".to_owned(),
                    nodes: 1,
                    reasons: vec![],
                },
            ]
        );
    }

    #[test]
    fn a_status_stays_small_whatever_thousands_of_agents_say() {
        let long = "x".repeat(500);
        let agents: Vec<AgentFacts> = (0..5_000)
            .map(|n| agent(&format!("node-{n}"), &format!("{}{long} (why {n})", n % 50)))
            .chain((0..50).map(|n| agent("m", &format!("Tracepoint (why {n})"))))
            .collect();

        let status = agents_status(&agents).unwrap();

        assert_eq!(status.tiers.len(), TIERS);
        for tier in &status.tiers {
            assert_eq!(tier.reasons.len(), REASONS, "{}", tier.tier);
            assert!(tier.tier.chars().count() <= TIER_NAME);
        }
    }

    #[test]
    fn text_that_is_no_tier_with_a_reason_is_kept_as_it_is() {
        for odd in [" (why)", "Tracepoint (", "Tracepoint", ")", "(why)"] {
            assert_eq!(split(odd), (odd, None));
        }
    }

    #[test]
    fn a_reason_may_be_cut_off() {
        assert_eq!(split("TpBtf (Fentry ref"), ("TpBtf", Some("Fentry ref")));
    }

    #[test]
    fn the_costliest_node_is_named_and_a_tie_has_one_winner() {
        let cost = agents_status(&[busy("b", 7), busy("a", 9), busy("c", 9)])
            .unwrap()
            .cost;

        let cpu = cost.cpu.unwrap();
        assert_eq!((cpu.node.as_str(), cpu.parts_per_million), ("a", 9));
        assert_eq!(
            (cost.rss, cost.bpf_memory, cost.bpf_run_time),
            (None, None, None)
        );
    }

    #[test]
    fn each_figure_has_a_node_of_its_own() {
        let mut large = agent("large", "Fentry");
        large.cost = Cost {
            rss_bytes: Some(20),
            bpf_maps_bytes: Some(30),
            bpf_programs_bytes: Some(1),
            bpf_run_time: Some(BpfRunTime {
                span_nanoseconds: 1_000,
                run_nanoseconds: 0,
                runs: 0,
            }),
            ..Cost::default()
        };
        let mut hot = agent("hot", "Fentry");
        hot.cost = Cost {
            rss_bytes: Some(10),
            bpf_maps_bytes: Some(40),
            bpf_run_time: Some(BpfRunTime {
                span_nanoseconds: 1_000,
                run_nanoseconds: 500,
                runs: 2,
            }),
            ..Cost::default()
        };

        let cost = agents_status(&[large, hot]).unwrap().cost;

        assert_eq!(cost.rss.unwrap().node, "large");
        let memory = cost.bpf_memory.unwrap();
        assert_eq!(
            (memory.node.as_str(), memory.bytes),
            ("large", 31),
            "half of a sum is no sum"
        );
        let run = cost.bpf_run_time.unwrap();
        assert_eq!(
            (
                run.node.as_str(),
                run.parts_per_million,
                run.mean_nanoseconds
            ),
            ("hot", 500_000, Some(250))
        );
    }
}
