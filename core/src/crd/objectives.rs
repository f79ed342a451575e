//! Objectives: what users want of a latency, and how it is.
#![allow(
    unreachable_pub,
    reason = "the derive repeats every type in a private module to carry its CEL rules"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::histogram::Percentile;
use crate::vocabulary::{Latency, Operation};

/// How slow operations may be on each node.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Objective {
    /// Its name, in conditions, events and metrics: lower-case letters, digits and `-`.
    #[schemars(length(min = 1, max = 40), pattern(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,

    /// The operation, one of those that are measured.
    pub operation: Operation,

    /// Which of its two latencies.
    #[serde(default)]
    pub latency: ObjectiveLatency,

    /// Which of its percentiles, over all maps and CPUs of a node, in the window.
    #[serde(default = "default_percentile")]
    pub percentile: Percentile,

    /// What the percentile may be at most, in microseconds.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub threshold_microseconds: i64,

    /// How long some node has to be above before the objective is breached, in seconds.
    #[serde(default)]
    #[schemars(range(min = 0, max = 3_600))]
    pub for_seconds: i64,
}

const fn default_percentile() -> Percentile {
    Percentile::P99
}

/// The latencies of callers' operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ObjectiveLatency {
    /// From the entry of bpf(2) until the caller runs in user mode again.
    #[default]
    UntilUser,
    /// From the entry of bpf(2) to its exit.
    KernelWindow,
}

impl From<ObjectiveLatency> for Latency {
    fn from(latency: ObjectiveLatency) -> Self {
        match latency {
            ObjectiveLatency::UntilUser => Self::UntilUser,
            ObjectiveLatency::KernelWindow => Self::KernelWindow,
        }
    }
}

/// How an objective is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectiveStatus {
    /// The name of the objective.
    #[schemars(length(max = 40))]
    pub name: String,
    /// Whether it is met.
    pub state: ObjectiveState,
    /// Since when, by the operator's clock.
    pub since_time: Time,
    /// The percentile on the node where it is highest. Absent: there was no such operation in the window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub highest_nanoseconds: Option<i64>,
    /// That node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub node: Option<String>,
    /// Number of nodes that are above the threshold.
    #[schemars(range(min = 0))]
    pub nodes_above: i32,
}

/// Whether an objective is met.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum ObjectiveState {
    /// Some node has been above for at least `forSeconds`.
    Breached,
    /// Some node is above, and not for so long yet.
    Pending,
    /// There was no such operation in the window.
    NoOperations,
    /// No node is above.
    Met,
}

impl ObjectiveState {
    /// The name, as in the resource.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Breached => "Breached",
            Self::Pending => "Pending",
            Self::NoOperations => "NoOperations",
            Self::Met => "Met",
        }
    }
}
