//! Conditions, by the Kubernetes API conventions.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::agents::AgentFacts;
use crate::budget::{Resource, Shed, Step};
use crate::glob::KERNEL_NAME_LENGTH;
use crate::node_window::NodeWindow;
use crate::summary;

/// Sums up the other two.
pub const READY: &str = "Ready";
/// Whether every selected node has an agent that runs the current generation.
pub const AGENTS_READY: &str = "AgentsReady";
/// Whether at least one map matches.
pub const MAPS_FOUND: &str = "MapsFound";

/// The status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Not known yet.
    Unknown,
}

impl Truth {
    const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// A condition before it has a time: what holds, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The condition's type, such as [`READY`].
    pub kind: &'static str,
    /// Whether it holds.
    pub truth: Truth,
    /// One word for machines.
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
}

impl Verdict {
    /// What holds, and why.
    pub fn new(
        kind: &'static str,
        truth: Truth,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            truth,
            reason,
            message: message.into(),
        }
    }
}

/// [`READY`]: takes over what is wrong, or else what is unknown.
pub fn ready(agents: &Verdict, maps: &Verdict) -> Verdict {
    let of = |truth| [agents, maps].into_iter().find(|it| it.truth == truth);
    if let Some(cause) = of(Truth::False).or_else(|| of(Truth::Unknown)) {
        return Verdict::new(READY, cause.truth, cause.reason, cause.message.clone());
    }
    let message = format!("{}; {}", agents.message, maps.message);
    Verdict::new(READY, Truth::True, "Measuring", message)
}

/// [`MAPS_FOUND`], once it is known. `place` says where maps were looked for, `wanted` which ones.
pub fn maps_found(windows: &[NodeWindow], place: &str, wanted: &str) -> Verdict {
    let verdict = |truth, reason, message| Verdict::new(MAPS_FOUND, truth, reason, message);
    match (summary::matched_maps(windows), gone_maps(windows)) {
        (0, 0) => {
            let message = format!(
                "no map on {place} matches {wanted}; compare spec.maps with bpftool map list, where names are cut to \
                 {KERNEL_NAME_LENGTH} characters"
            );
            verdict(Truth::False, "NoMapMatches", message)
        }
        (0, gone) => {
            let message =
                format!("no map on {place} matches now; {gone} matched earlier in the window");
            verdict(Truth::False, "MapsGone", message)
        }
        (1, _) => verdict(
            Truth::True,
            "MapsMatch",
            format!("1 map matches on {place}"),
        ),
        (maps, _) => verdict(
            Truth::True,
            "MapsMatch",
            format!("{maps} maps match on {place}"),
        ),
    }
}

/// One condition for each step by which agents leave something out to stay within their budgets, of the type
/// [`Step::as_str`]. There is none while nothing is left out.
pub fn shedding(agents: &[AgentFacts]) -> Vec<Verdict> {
    let of = |step| {
        let shed: Vec<(&str, &Shed)> = agents
            .iter()
            .flat_map(|agent| agent.shed.iter().map(|it| (agent.node.as_str(), it)))
            .filter(|(_, it)| it.step == step)
            .collect();
        let (first, most) = shed.iter().max_by_key(|(_, it)| it.one_in)?;
        let resource = shed.iter().map(|(_, it)| it.resource).min();
        let resource = resource.unwrap_or(Resource::Cpu);
        let nodes = match shed.len() {
            1 => (*first).to_owned(),
            nodes => format!("{first} and {} more", nodes - 1),
        };
        let message = format!(
            "{nodes}, to stay within the {} budget: {}",
            resource.as_str(),
            most.meaning()
        );
        let kind = step.as_str();
        Some(Verdict::new(kind, Truth::True, resource.reason(), message))
    };
    Step::ALL.into_iter().filter_map(of).collect()
}

/// Distinct maps that have gone while the window still tells of them.
fn gone_maps(windows: &[NodeWindow]) -> usize {
    let distinct: BTreeSet<(&str, u32)> = windows
        .iter()
        .flat_map(|it| it.gone.iter().map(|map| (it.boot_id.as_str(), map.id)))
        .collect();
    distinct.len()
}

/// Gives verdicts their times. A condition keeps its transition time for as long as its status stays the same.
pub fn conditions(
    verdicts: impl IntoIterator<Item = Verdict>,
    previous: &[Condition],
    observed_generation: Option<i64>,
    now: &Time,
) -> Vec<Condition> {
    verdicts
        .into_iter()
        .map(|verdict| {
            let status = verdict.truth.as_str();
            let last_transition_time = previous
                .iter()
                .find(|it| it.type_ == verdict.kind && it.status == status)
                .map_or_else(|| now.clone(), |it| it.last_transition_time.clone());
            Condition {
                type_: verdict.kind.to_owned(),
                status: status.to_owned(),
                reason: verdict.reason.to_owned(),
                message: verdict.message,
                observed_generation,
                last_transition_time,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;

    use crate::vocabulary::MapIdentity;

    fn verdict(truth: Truth, message: &str) -> Verdict {
        Verdict::new(READY, truth, "Because", message)
    }

    /// A window of node `node` on kernel `boot_id`, with one map that is gone.
    fn window(node: &str, boot_id: &str) -> NodeWindow {
        NodeWindow {
            node: node.to_owned(),
            boot_id: boot_id.to_owned(),
            maps: vec![],
            gone: vec![MapIdentity {
                id: 7,
                name: String::new(),
                map_type: None,
            }],
            span: std::time::Duration::ZERO,
            rows: [].into(),
            sampling: 1,
            worst: [].into(),
            callers: vec![],
            spikes: vec![],
            outliers: None,
            exact: vec![],
            losses: [].into(),
        }
    }

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn a_transition_time_moves_only_when_the_status_flips() {
        let first = conditions([verdict(Truth::Unknown, "a")], &[], Some(1), &at(10));
        let same = conditions([verdict(Truth::Unknown, "b")], &first, Some(1), &at(20));
        let flipped = conditions([verdict(Truth::True, "c")], &same, Some(1), &at(30));

        assert_eq!(same[0].last_transition_time, at(10));
        assert_eq!(same[0].message, "b");
        assert_eq!(flipped[0].last_transition_time, at(30));
    }

    #[test]
    fn what_is_left_out_is_a_condition_of_its_own() {
        let agent = |node: &str, shed: &[(Step, u32)]| AgentFacts {
            node: node.to_owned(),
            tier: "Fentry".to_owned(),
            cost: crate::cost::Cost::default(),
            shed: shed
                .iter()
                .map(|(step, one_in)| Shed {
                    step: *step,
                    resource: Resource::Cpu,
                    since_unix_microseconds: 0,
                    one_in: *one_in,
                })
                .collect(),
        };
        let agents = [
            agent("a", &[(Step::CoarserCallers, 1), (Step::Sampling, 2)]),
            agent("b", &[(Step::CoarserCallers, 1), (Step::Sampling, 16)]),
            agent("c", &[]),
        ];

        let verdicts = shedding(&agents);

        let kinds: Vec<_> = verdicts.iter().map(|it| (it.kind, it.reason)).collect();
        let expected = [
            ("CoarserCallers", "OverCpuBudget"),
            ("Sampling", "OverCpuBudget"),
        ];
        assert_eq!(kinds, expected);
        assert!(verdicts.iter().all(|it| it.truth == Truth::True));
        assert_eq!(
            verdicts[1].message,
            "b and 1 more, to stay within the CPU budget: one operation in 16 is counted, by chance, for all of them; \
             counts are estimates, and rare slow operations may be missed"
        );
        assert_eq!(shedding(&agents[2..]), []);
    }

    #[test]
    fn a_map_that_is_gone_counts_once_per_kernel() {
        let windows = [window("a", "x"), window("b", "x"), window("c", "y")];
        let verdict = maps_found(&windows, "3 nodes", "name ct_*");
        assert_eq!((verdict.truth, verdict.reason), (Truth::False, "MapsGone"));
        assert_eq!(
            verdict.message,
            "no map on 3 nodes matches now; 2 matched earlier in the window"
        );
    }
}
