//! What a user reads. All latencies are in nanoseconds and within 1 %.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::agents::AgentsStatus;
use super::callers::CallerStatus;
use super::exact::ExactStatus;
use super::nodes::NodeCounts;
use super::objectives::ObjectiveStatus;
use super::outliers::OutliersStatus;
use super::spikes::SpikeStatus;
use crate::vocabulary::{MapType, Operation, Outcome};

/// What was measured, in one window, on the selected nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MapLatencyProbeStatus {
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// `Ready` sums up `AgentsReady` and `MapsFound`. `ObjectivesMet` is there with `spec.objectives`. `FewerOutliers`, `CoarserCallers` and `Sampling` are there while
    /// agents leave that out to stay within their budgets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,

    /// How many nodes are selected and how many of them measure.
    #[serde(default)]
    pub nodes: NodeCounts,

    /// Number of distinct maps that match. A kernel that several nodes share counts once.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub matched_maps: i64,

    /// Counts are estimates: of the operations in the window one in so many was counted, by chance, for all of them.
    /// Where that differed between nodes or over time it is the highest. Absent: every one was counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2))]
    pub sampled_one_in: Option<i64>,

    /// The main figures in human units, for tables.
    #[serde(default)]
    pub summary: SummaryText,

    /// How the objectives of the spec are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub objectives: Vec<ObjectiveStatus>,

    /// Latency per operation, over all maps, nodes and CPUs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 9),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["operation"])
    )]
    pub operations: Vec<OperationStatus>,

    /// The slowest rows of map × operation × node × CPU: by time lost, then by P99.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    pub slowest: Vec<SlowRow>,

    /// Short times in which operations were far slower than in the rest of the window: those that lost most time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    pub spikes: Vec<SpikeStatus>,

    /// Slow operations, told one by one. Absent unless `spec.outliers` asks for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outliers: Option<OutliersStatus>,

    /// Exact figures, of single operations: those of most operations. Empty unless `spec.aggregation` has the strategy
    /// `SlidingWindow` or `Direct`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    pub exact: Vec<ExactStatus>,

    /// The callers that spent most time in operations, per map and operation, and for each node and map with more
    /// callers than are told apart one row for all the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub callers: Vec<CallerStatus>,

    /// Operations that were seen and could not be recorded, by kind, since the agents began. Empty: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["kind"])
    )]
    pub losses: Vec<LossCount>,

    /// The agents that measure: by which hooks, and at what cost. Absent without agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents: Option<AgentsStatus>,
}

/// Figures in human units. A figure that was not measured is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SummaryText {
    /// Ready nodes of selected nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub nodes: Option<String>,
    /// Reads by callers. With `~` in front it is an estimate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub reads: Option<String>,
    /// Median of reads, until back in user mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub p50: Option<String>,
    /// 99th percentile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub p99: Option<String>,
    /// 99.9th percentile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub p999: Option<String>,
    /// The slowest read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub max: Option<String>,
    /// The worst state of all objectives. Absent: there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub objectives: Option<String>,
}

/// Latency of one operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationStatus {
    /// The operation.
    pub operation: Operation,
    /// Operations by callers in the window. Active reads do not count here.
    #[schemars(range(min = 0))]
    pub count: i64,
    /// From the entry of bpf(2) until the caller runs in user mode again: what the caller feels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_user: Option<Percentiles>,
    /// From the entry of bpf(2) to its exit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_window: Option<Percentiles>,
    /// The same by how the calls ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 9),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["outcome"])
    )]
    pub outcomes: Vec<OutcomeStatus>,
    /// Elements that batches moved. Absent for other operations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<EntriesStatus>,
    /// Operations that ended on another CPU than they began on.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub moved: i64,
    /// The second of the window in which one map lost most time on one CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst_second: Option<WorstSecond>,
    /// Reads by the agent's pinned threads, as they timed them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<ActiveStatus>,
}

/// Latency of the calls of one operation that ended alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutcomeStatus {
    /// How they ended.
    pub outcome: Outcome,
    /// Operations by callers in the window.
    #[schemars(range(min = 0))]
    pub count: i64,
    /// Until back in user mode.
    pub until_user: Percentiles,
}

/// What batches moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EntriesStatus {
    /// Elements in the window.
    #[schemars(range(min = 0))]
    pub count: i64,
    /// Time inside bpf(2) per element.
    #[schemars(range(min = 0))]
    pub mean_nanoseconds: i64,
}

/// Quantiles by nearest rank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Percentiles {
    /// Median.
    #[schemars(range(min = 0))]
    pub p50_nanoseconds: i64,
    /// 90th percentile.
    #[schemars(range(min = 0))]
    pub p90_nanoseconds: i64,
    /// 99th percentile.
    #[schemars(range(min = 0))]
    pub p99_nanoseconds: i64,
    /// 99.9th percentile.
    #[schemars(range(min = 0))]
    pub p999_nanoseconds: i64,
    /// Maximum.
    #[schemars(range(min = 0))]
    pub max_nanoseconds: i64,
}

/// Reads by pinned threads on a fixed schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActiveStatus {
    /// Reads in the window.
    #[schemars(range(min = 0))]
    pub count: i64,
    /// How long a read took, without the time by which it began late.
    pub read: Percentiles,
    /// How long after its scheduled moment a read began. Reads that were due while the thread could not run at all
    /// are in here with the time until it ran again, so there may be more of them than `count`.
    pub start_delay: Percentiles,
}

/// One second on one CPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorstSecond {
    /// When the second began, by the node's clock.
    pub start_time: MicroTime,
    /// The node.
    #[schemars(length(max = 253))]
    pub node: String,
    /// The map.
    pub map: MapReference,
    /// The CPU on which the operations began.
    #[schemars(range(min = 0))]
    pub cpu: i32,
    /// Operations in the second.
    #[schemars(range(min = 0))]
    pub count: i64,
    /// 99th percentile until back in user mode.
    #[schemars(range(min = 0))]
    pub p99_nanoseconds: i64,
    /// Slowest operation until back in user mode.
    #[schemars(range(min = 0))]
    pub max_nanoseconds: i64,
    /// Time lost to slow operations (over four times the row's median; what goes beyond the median counts) as
    /// parts per million of the second.
    #[schemars(range(min = 0))]
    pub time_lost_parts_per_million: i64,
}

/// A map as a row names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MapReference {
    /// The kernel's id.
    #[schemars(range(min = 0))]
    pub id: i64,
    /// The kernel's name for it, at most 15 bytes.
    #[schemars(length(max = 64))]
    pub name: String,
    /// Its type.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub map_type: Option<MapType>,
}

/// One row of the slowest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SlowRow {
    /// The map.
    pub map: MapReference,
    /// The operation.
    pub operation: Operation,
    /// The node.
    #[schemars(length(max = 253))]
    pub node: String,
    /// The CPU on which the operations began.
    #[schemars(range(min = 0))]
    pub cpu: i32,
    /// Operations by callers in the window.
    #[schemars(range(min = 0))]
    pub count: i64,
    /// Until back in user mode.
    pub until_user: Percentiles,
    /// Time lost to slow operations as parts per million of the window.
    #[schemars(range(min = 0))]
    pub time_lost_parts_per_million: i64,
}

/// Operations that could not be recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LossCount {
    /// Why.
    #[schemars(length(max = 64))]
    pub kind: String,
    /// How many.
    #[schemars(range(min = 0))]
    pub count: i64,
}
