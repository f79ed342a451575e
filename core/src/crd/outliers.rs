//! What a status tells of slow operations, one by one.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::status::MapReference;
use crate::vocabulary::{Operation, Outcome};

/// The outliers of the window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutliersStatus {
    /// Operations that were outliers.
    #[schemars(range(min = 0))]
    pub count: i64,
    /// How many of them were not told one by one, since more came in a second than `spec.outliers.perSecond`.
    #[schemars(range(min = 0))]
    pub held_back: i64,
    /// How many were not, since the ring buffer had no room.
    #[schemars(range(min = 0))]
    pub dropped: i64,
    /// The slowest of those that were told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    pub slowest: Vec<OutlierStatus>,
}

/// One slow operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutlierStatus {
    /// The node.
    #[schemars(length(max = 253))]
    pub node: String,
    /// When it began, by the node's clock.
    pub time: MicroTime,
    /// The map.
    pub map: MapReference,
    /// The operation.
    pub operation: Operation,
    /// How it ended.
    pub outcome: Outcome,
    /// Entry until back in user mode.
    #[schemars(range(min = 0))]
    pub until_user_nanoseconds: i64,
    /// Entry to exit of bpf(2).
    #[schemars(range(min = 0))]
    pub kernel_window_nanoseconds: i64,
    /// CPU at the entry.
    #[schemars(range(min = 0))]
    pub cpu: i32,
    /// CPU when the caller was back in user mode.
    #[schemars(range(min = 0))]
    pub cpu_after: i32,
    /// Bytes of the map's keys.
    #[schemars(range(min = 0))]
    pub key_size: i64,
    /// Elements that a batch moved.
    #[schemars(range(min = 0))]
    pub entries: i64,
    /// The process that called, by its id on the node.
    #[schemars(range(min = 0))]
    pub pid: i64,
    /// The thread that called.
    #[schemars(range(min = 0))]
    pub tid: i64,
    /// The thread's command, at most 15 bytes.
    #[schemars(length(max = 48))]
    pub command: String,
    /// The uid of the pod that it runs in.
    #[serde(default, rename = "podUID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub pod_uid: Option<String>,
    /// What happened to the thread meanwhile.
    pub evidence: EvidenceStatus,
}

/// What the kernel counted of a thread during one operation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EvidenceStatus {
    /// Time switched out, for whatever reason.
    #[schemars(range(min = 0))]
    pub off_cpu_nanoseconds: i64,
    /// Of that, ready to run and waiting for a CPU.
    #[schemars(range(min = 0))]
    pub run_delay_nanoseconds: i64,
    /// Switches that the thread asked for, as by sleeping.
    #[schemars(range(min = 0))]
    pub voluntary_switches: i64,
    /// Switches that it did not.
    #[schemars(range(min = 0))]
    pub involuntary_switches: i64,
    /// Moves to another CPU.
    #[schemars(range(min = 0))]
    pub migrations: i64,
    /// Page faults without I/O.
    #[schemars(range(min = 0))]
    pub minor_faults: i64,
    /// Page faults with it.
    #[schemars(range(min = 0))]
    pub major_faults: i64,
    /// Who ran longest at a stretch where the thread was switched out. Absent: nobody was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ran_instead: Option<RanInsteadStatus>,
}

/// A task that ran instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RanInsteadStatus {
    /// Its process; 0: nobody, or a process outside the node's pid namespace.
    #[schemars(range(min = 0))]
    pub pid: i64,
    /// The command of its thread; `swapper/N` where the CPU was idle.
    #[schemars(length(max = 48))]
    pub command: String,
    /// How long it ran at a stretch.
    #[schemars(range(min = 0))]
    pub nanoseconds: i64,
}
