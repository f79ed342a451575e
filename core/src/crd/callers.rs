//! Who called, as a status tells it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::status::MapReference;
use crate::vocabulary::Operation;

/// What one caller, or all that are not told apart, did to a map in the window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CallerStatus {
    /// The node.
    #[schemars(length(max = 253))]
    pub node: String,
    /// The map.
    pub map: MapReference,
    /// The operation.
    pub operation: Operation,
    /// The process. Absent: all callers of the map on the node that are not told apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessStatus>,
    /// How many callers this row stands for, at least.
    #[schemars(range(min = 0))]
    pub callers: i64,
    /// Operations in the window.
    #[schemars(range(min = 0))]
    pub count: i64,
    /// Median until back in user mode.
    #[schemars(range(min = 0))]
    pub p50_nanoseconds: i64,
    /// 99th percentile until back in user mode.
    #[schemars(range(min = 0))]
    pub p99_nanoseconds: i64,
    /// Slowest operation until back in user mode.
    #[schemars(range(min = 0))]
    pub max_nanoseconds: i64,
    /// Time in operations, until back in user mode, as parts per million of the window. Several threads that call at
    /// once can spend more than all of it.
    #[schemars(range(min = 0))]
    pub time_spent_parts_per_million: i64,
    /// Time lost to slow operations as parts per million of the window.
    #[schemars(range(min = 0))]
    pub time_lost_parts_per_million: i64,
}

/// A process that calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProcessStatus {
    /// Its id on the node.
    #[schemars(range(min = 1))]
    pub pid: i64,
    /// When it began, by the node's clock.
    pub start_time: MicroTime,
    /// The command of its main thread, at most 15 bytes.
    #[schemars(length(max = 48))]
    pub command: String,
    /// The end of the path of its memory cgroup, at most four names. Absent at the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub cgroup: Option<String>,
    /// The uid of the pod that it runs in.
    #[serde(default, rename = "podUID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub pod_uid: Option<String>,
    /// The container runtime's id of the container that it runs in.
    #[serde(
        default,
        rename = "containerID",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(length(max = 64))]
    pub container_id: Option<String>,
}
