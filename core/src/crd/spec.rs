//! What a user asks for.
#![allow(
    unreachable_pub,
    reason = "the derive repeats every type in a private module to carry its CEL rules"
)]
#![allow(
    clippy::duplicated_attributes,
    reason = "the lint takes the columns of one table for repetitions"
)]

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::objectives::Objective;
use super::status::MapLatencyProbeStatus;
use crate::vocabulary::{MapType, Operation};

/// `MapLatencyProbe` asks for the latency of operations on BPF maps, on every node that it selects.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "maplatency.dev",
    version = "v1alpha1",
    kind = "MapLatencyProbe",
    plural = "maplatencyprobes",
    shortname = "mlp",
    category = "maplatency",
    status = "MapLatencyProbeStatus",
    derive = "PartialEq",
    printcolumn(
        name = "Maps",
        type_ = "integer",
        json_path = ".status.matchedMaps",
        description = "Maps that match on the selected nodes"
    ),
    printcolumn(
        name = "Nodes",
        type_ = "string",
        json_path = ".status.summary.nodes",
        description = "Nodes that measure, of the nodes selected"
    ),
    printcolumn(
        name = "Reads",
        type_ = "string",
        json_path = ".status.summary.reads",
        description = "Reads by callers in the window"
    ),
    printcolumn(
        name = "P50",
        type_ = "string",
        json_path = ".status.summary.p50",
        description = "Median of reads until the caller is back in user mode"
    ),
    printcolumn(
        name = "P99",
        type_ = "string",
        json_path = ".status.summary.p99",
        description = "99th percentile of reads until the caller is back in user mode"
    ),
    printcolumn(
        name = "P99.9",
        type_ = "string",
        json_path = ".status.summary.p999",
        description = "99.9th percentile of reads until the caller is back in user mode"
    ),
    printcolumn(
        name = "Max",
        type_ = "string",
        json_path = ".status.summary.max",
        description = "Slowest read until the caller is back in user mode"
    ),
    printcolumn(
        name = "Objectives",
        type_ = "string",
        json_path = ".status.summary.objectives",
        description = "The worst state of all objectives"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether every selected node measures, and a map matches"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = ("!has(self.objectives) || self.objectives.all(o, has(self.operations) ? o.operation in self.operations : o.operation in ['Lookup', 'LookupAndDelete', 'LookupBatch', 'LookupAndDeleteBatch', 'GetNextKey'])", "an objective is about an operation that is not measured; add it to operations")
)]
pub struct MapLatencyProbeSpec {
    /// Nodes to measure on, by label. Absent: every node that runs Linux.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<NodeSelector>,

    /// Maps to measure. A map matches if any entry matches; within one entry every given field has to match.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub maps: Vec<MapSelector>,

    /// Operations to measure. Absent: every operation that reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 9), extend("x-kubernetes-list-type" = "set"))]
    pub operations: Option<Vec<Operation>>,

    /// Callers to measure. Absent: everyone but the agent itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callers: Option<CallerSelector>,

    /// Reads by the agent itself, on a fixed schedule, from threads pinned to CPUs. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_reads: Option<ActiveReads>,

    /// Slow operations to tell one by one, with what happened to their threads. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outliers: Option<OutlierSelector>,
    /// How operations become figures. Absent: every one is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aggregation: Option<Aggregation>,

    /// How slow operations may be. Absent: nothing is held against anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub objectives: Option<Vec<Objective>>,

    /// Length of the sliding window over which status is computed, in seconds.
    #[serde(default = "default_window_seconds")]
    #[schemars(range(min = 10, max = 600))]
    pub window_seconds: i64,
}

const fn default_window_seconds() -> i64 {
    60
}

impl MapLatencyProbeSpec {
    /// The objectives. None: an empty list.
    pub fn objectives(&self) -> &[Objective] {
        self.objectives.as_deref().unwrap_or_default()
    }

    /// The operations asked for, with the default filled in.
    pub fn effective_operations(&self) -> Vec<Operation> {
        let mut operations = self.operations.clone().unwrap_or_else(|| {
            Operation::ALL
                .into_iter()
                .filter(|it| it.is_read())
                .collect()
        });
        operations.sort_unstable();
        operations
    }
}

/// Which operations are outliers.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OutlierSelector {
    /// Operations that took at least so long until their caller was back in user mode, in microseconds. Absent: those
    /// slower than 99.9 % of the same operation on the same map and node, in the window so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub threshold_microseconds: Option<i64>,

    /// How many a node tells in a second. The others are counted.
    #[serde(default = "default_outliers_per_second")]
    #[schemars(range(min = 1, max = 1_000))]
    pub per_second: i64,
}

const fn default_outliers_per_second() -> i64 {
    100
}

impl Default for OutlierSelector {
    fn default() -> Self {
        Self {
            threshold_microseconds: None,
            per_second: default_outliers_per_second(),
        }
    }
}

/// Nodes by label, as in a Kubernetes label selector: all requirements have to hold.
#[derive(
    KubeSchema, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeSelector {
    /// Labels that a node has to carry with exactly these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    #[x_kube(validation = ("self.all(k, size(self[k]) <= 63)", "a label's value has at most 63 characters"))]
    pub match_labels: BTreeMap<String, String>,

    /// Requirements on labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub match_expressions: Vec<LabelRequirement>,
}

/// One requirement on one label.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = ("!(self.operator in ['In', 'NotIn']) || (has(self.values) && size(self.values) > 0)", "operators In and NotIn need values; write values: [...]"),
    validation = ("!(self.operator in ['Exists', 'DoesNotExist']) || !has(self.values) || size(self.values) == 0", "operators Exists and DoesNotExist take no values; leave values out")
)]
pub struct LabelRequirement {
    /// The label's key.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// How the label's value relates to `values`.
    pub operator: LabelOperator,
    /// Values for `In` and `NotIn`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub values: Vec<String>,
}

/// How a label relates to values.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum LabelOperator {
    /// The value is one of `values`.
    In,
    /// The label is absent, or its value is none of `values`.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

/// Maps by name, type, id, pin or holder. Every field that is given has to match.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = ("has(self.names) || has(self.types) || has(self.ids) || has(self.pinPaths) || has(self.heldBy)", "an entry of maps needs names, types, ids, pinPaths or heldBy; to match every map write names: [\"*\"]")
)]
pub struct MapSelector {
    /// Patterns of the map's name; `*` stands for any characters, `?` for one. Any of them has to match.
    ///
    /// The kernel cuts names to 15 characters. A pattern that spells out more before its first `*` is cut likewise, so it
    /// matches by its beginning; one with `*` may have at most 15 other characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 16),
        inner(length(min = 1, max = 63), pattern(r"^[ -~]+$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub names: Option<Vec<String>>,

    /// Types of map. Any of them has to match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 33), extend("x-kubernetes-list-type" = "set"))]
    pub types: Option<Vec<MapType>>,

    /// Ids that the kernel gave. Any of them has to match. Ids differ on every node and after every start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 64),
        inner(range(min = 1, max = 2_147_483_647)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub ids: Option<Vec<i64>>,

    /// Patterns of the paths at which the map is pinned, in any bpffs that the agent sees, such as
    /// `/sys/fs/bpf/tc/globals/*`. `*` and `?` stay within one name, `**` stands for any names. Any of them has to match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 16),
        inner(length(min = 1, max = 255), pattern(r"^/[ -~]+$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub pin_paths: Option<Vec<String>>,

    /// Processes of which one has to hold the map open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_by: Option<HeldBy>,
}

/// Processes that hold a map open by a file descriptor. Where both fields are given, both have to match one process.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = ("has(self.commands) || has(self.cgroups)", "heldBy needs commands or cgroups; to match maps whoever holds them leave heldBy out")
)]
pub struct HeldBy {
    /// Patterns of the process's command. Any of them has to match.
    ///
    /// Patterns longer than the 15 characters of a command are cut as in `maps.names`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 8),
        inner(length(min = 1, max = 63), pattern(r"^[ -~]+$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub commands: Option<Vec<String>>,

    /// Patterns of the process's memory cgroup: the end of its path, at most four names, as `status.callers[].cgroup`
    /// tells it, such as `**/cri-containerd-*`. Patterns are those of paths. Any of them has to match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 8),
        inner(length(min = 1, max = 255), pattern(r"^[ -.0-~][ -~]*$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub cgroups: Option<Vec<String>>,
}

/// Callers by the name of their command, which the kernel keeps for every thread and cuts to 15 characters
/// (`/proc/PID/task/TID/comm`).
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = ("has(self.commands) || has(self.excludeCommands)", "callers needs commands or excludeCommands; to measure every caller leave callers out"),
    validation = ("!has(self.commands) || !has(self.excludeCommands) || !self.commands.exists(c, c in self.excludeCommands)", "a pattern stands in both commands and excludeCommands; take it out of one of them")
)]
pub struct CallerSelector {
    /// Patterns of commands to measure. Absent: all.
    ///
    /// Patterns longer than the 15 characters of a command are cut as in `maps.names`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 8),
        inner(length(min = 1, max = 63), pattern(r"^[ -~]+$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub commands: Option<Vec<String>>,

    /// Patterns of commands to leave out; they outrank `commands`. They are cut likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 8),
        inner(length(min = 1, max = 63), pattern(r"^[ -~]+$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub exclude_commands: Option<Vec<String>>,
}

/// Reads by pinned threads of the agent.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ActiveReads {
    /// CPUs to read from: `All`, or a list such as `0-3,7`.
    #[serde(default = "default_cpus")]
    #[schemars(
        length(min = 1, max = 256),
        pattern(r"^(All|[0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,5}(-[0-9]{1,5})?)*)$")
    )]
    pub cpus: String,

    /// Time between two reads of a map on a CPU, in milliseconds.
    #[serde(default = "default_period_milliseconds")]
    #[schemars(range(min = 10, max = 60_000))]
    pub period_milliseconds: i64,

    /// How to read.
    #[serde(default)]
    pub method: ReadMethod,
}

fn default_cpus() -> String {
    "All".to_owned()
}

const fn default_period_milliseconds() -> i64 {
    100
}

impl Default for ActiveReads {
    fn default() -> Self {
        Self {
            cpus: default_cpus(),
            period_milliseconds: default_period_milliseconds(),
            method: ReadMethod::default(),
        }
    }
}

/// How active reads read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReadMethod {
    /// What suits the map best; in this version always `Lookup`.
    #[default]
    Auto,
    /// One `BPF_MAP_LOOKUP_ELEM` of an existing key.
    Lookup,
}

/// How operations become figures.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = ("!has(self.oneIn) || self.strategy == 'Sampled'", "oneIn goes with strategy Sampled only; write strategy: Sampled, or leave oneIn out"),
    validation = ("!has(self.lastOperations) || self.strategy == 'SlidingWindow'", "lastOperations goes with strategy SlidingWindow only; write strategy: SlidingWindow, or leave lastOperations out")
)]
pub struct Aggregation {
    /// Which operations count, and how.
    #[serde(default)]
    pub strategy: Strategy,

    /// With `Sampled`: one operation in so many counts, chosen by chance. Absent: 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]))]
    pub one_in: Option<i64>,

    /// With `SlidingWindow`: of so many newest operations on each map there are exact figures. Absent: 4096.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 256, max = 65_536))]
    pub last_operations: Option<i64>,
}

/// Which operations count, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Strategy {
    /// Every operation is counted in a histogram.
    #[default]
    Histogram,
    /// One operation in `oneIn` is counted, for all of them. Counts are estimates; it costs callers less.
    Sampled,
    /// Every operation is counted, and of the newest on each map `status.exact` has figures that are not rounded.
    SlidingWindow,
    /// Every operation is counted, and kept as it is as long as it is in the window. For a short look: it costs most.
    Direct,
}
