//! What a status tells of the agents themselves. Small whatever the number of nodes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The agents that measure: by which hooks, and at what cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentsStatus {
    /// The agents by the hooks that they time bpf(2) with; the tier of most nodes first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["tier"])
    )]
    pub tiers: Vec<TierStatus>,
    /// What the costliest agents cost their nodes, figure by figure.
    #[serde(default)]
    pub cost: HighestCost,
    /// What agents leave out to stay within their budgets. Absent: nothing, on no node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shedding: Option<SheddingStatus>,
}

/// Agents that leave something out to stay within their budgets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SheddingStatus {
    /// Number of nodes with such agents.
    #[schemars(range(min = 1))]
    pub nodes: i32,
    /// The node that leaves out most.
    #[schemars(length(max = 253))]
    pub node: String,
    /// What it leaves out.
    #[schemars(
        length(max = 3),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["step"])
    )]
    pub steps: Vec<ShedStatus>,
}

/// Something that an agent leaves out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShedStatus {
    /// `FewerOutliers`, `CoarserCallers` or `Sampling`.
    #[schemars(length(max = 64))]
    pub step: String,
    /// `OverCpuBudget` or `OverMemoryBudget`.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// Since when, by the node's clock.
    pub since_time: MicroTime,
    /// With `Sampling`: one operation in so many is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2))]
    pub one_in: Option<i64>,
}

/// The nodes that run one tier of hooks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TierStatus {
    /// `Fentry`, `Tracepoint` or `TpBtf`.
    #[schemars(length(max = 64))]
    pub tier: String,
    /// Number of nodes.
    #[schemars(range(min = 0))]
    pub nodes: i32,
    /// Why no better tier runs there: the reasons of most nodes. Empty: none is better.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 3),
        inner(length(max = 512)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub reasons: Vec<String>,
}

/// The highest figure of any agent, each with its node. A figure that no agent could take is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HighestCost {
    /// CPU time of the agent's process, pinned readers included, over about the last ten seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<HighestCpu>,
    /// Memory of the agent's process that is resident.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rss: Option<HighestMemory>,
    /// Memory of the agent's BPF maps and programs, as the kernel accounts for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bpf_memory: Option<HighestMemory>,
    /// How long the agent's BPF programs run, on all CPUs together, sampled for 0.1 s about every ten seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bpf_run_time: Option<HighestRunTime>,
}

/// CPU time of one agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HighestCpu {
    /// The node.
    #[schemars(length(max = 253))]
    pub node: String,
    /// User and system time as parts per million of one core.
    #[schemars(range(min = 0))]
    pub parts_per_million: i64,
    /// How much of that is the pinned readers of `spec.activeReads`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub readers_parts_per_million: Option<i64>,
}

/// Memory of one agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HighestMemory {
    /// The node.
    #[schemars(length(max = 253))]
    pub node: String,
    /// Bytes.
    #[schemars(range(min = 0))]
    pub bytes: i64,
}

/// Run time of the BPF programs of one agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HighestRunTime {
    /// The node.
    #[schemars(length(max = 253))]
    pub node: String,
    /// Run time as parts per million of one core.
    #[schemars(range(min = 0))]
    pub parts_per_million: i64,
    /// Mean time of one run on that node. Absent if there was no run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub mean_nanoseconds: Option<i64>,
}
