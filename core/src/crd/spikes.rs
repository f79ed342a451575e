//! Spikes of latency, as a status tells them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::status::MapReference;
use crate::vocabulary::Operation;

/// A spike, or several that are alike: the same map, operation and CPUs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SpikeStatus {
    /// The node.
    #[schemars(length(max = 253))]
    pub node: String,
    /// The map.
    pub map: MapReference,
    /// The operation.
    pub operation: Operation,
    /// The CPUs on which the slow operations began.
    #[schemars(length(max = 1024), extend("x-kubernetes-list-type" = "set"))]
    pub cpus: Vec<i32>,
    /// How often it came in the window.
    #[schemars(range(min = 1))]
    pub count: i64,
    /// When it came last, by the node's clock.
    pub last_time: MicroTime,
    /// Between two of them. Absent where they did not come at regular times, or fewer than five times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub period_nanoseconds: Option<i64>,
    /// From the begin of the first slow operation to the end of the last; the median of all of them.
    #[schemars(range(min = 0))]
    pub duration_nanoseconds: i64,
    /// 99th percentile of the slow operations in it, until back in user mode.
    #[schemars(range(min = 0))]
    pub p99_nanoseconds: i64,
    /// Slowest operation in it.
    #[schemars(range(min = 0))]
    pub max_nanoseconds: i64,
    /// Time lost in them as parts per million of the window.
    #[schemars(range(min = 0))]
    pub time_lost_parts_per_million: i64,
}
