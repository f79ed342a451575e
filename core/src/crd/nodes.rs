//! Which of the selected nodes are measured, and why others are not.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Nodes by what they do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeCounts {
    /// Nodes that the selector matches.
    #[schemars(range(min = 0))]
    pub selected: i32,
    /// Selected nodes whose agent runs this generation of the probe and reports in time.
    #[schemars(range(min = 0))]
    pub ready: i32,
    /// Selected nodes without an agent, or whose agent has not reported this generation. Absent: none.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0))]
    pub missing: i32,
    /// Selected nodes whose agent is connected and has not reported for two periods. Absent: none.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0))]
    pub stale: i32,
    /// Selected nodes whose agent cannot load its probes. Absent: none.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0))]
    pub unable: i32,
    /// The first ten nodes that are not ready: those first that cannot load probes, then stale ones, then missing ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 10),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub not_ready: Vec<NodeNotReady>,
    /// Ready nodes whose figures cover less than `spec.windowSeconds`, as their agent, or what was known of it, began later.
    /// Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial_window: Option<PartialWindow>,
}

/// Nodes that were not measured in the whole window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PartialWindow {
    /// How many.
    #[schemars(range(min = 1))]
    pub nodes: i32,
    /// The one that was measured for the shortest time.
    #[schemars(length(max = 253))]
    pub name: String,
    /// For how long it was, in the window.
    #[schemars(range(min = 0))]
    pub seconds: i64,
}

impl PartialWindow {
    /// These nodes, each with how long it was measured.
    pub fn of(nodes: &BTreeMap<String, Duration>) -> Option<Self> {
        let (name, measured) = nodes.iter().min_by_key(|(_, it)| **it)?;
        Some(Self {
            nodes: i32::try_from(nodes.len()).unwrap_or(i32::MAX),
            name: name.clone(),
            seconds: i64::try_from(measured.as_secs()).unwrap_or(i64::MAX),
        })
    }
}

impl NodeCounts {
    /// So many nodes, all of which are ready.
    pub const fn all_ready(nodes: i32) -> Self {
        Self {
            selected: nodes,
            ready: nodes,
            missing: 0,
            stale: 0,
            unable: 0,
            not_ready: Vec::new(),
            partial_window: None,
        }
    }
}

/// A selected node that does not measure as it should.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeNotReady {
    /// The node.
    #[schemars(length(max = 253))]
    pub name: String,
    /// `CannotLoadProbes`, `Stale`, `AwaitingReport` or `NoAgent`.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// Why its agent cannot load its probes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub message: Option<String>,
    /// When a stale node reported last, by the operator's clock. Its figures end there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_report_time: Option<MicroTime>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it like this"
)]
fn is_zero(number: &i32) -> bool {
    *number == 0
}
