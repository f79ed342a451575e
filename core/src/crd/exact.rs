//! What a status tells of single operations that were kept as they were.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::status::{MapReference, Percentiles};
use crate::vocabulary::Operation;

/// Exact figures of one operation on one map of one node: not a nanosecond is rounded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExactStatus {
    /// The node.
    #[schemars(length(max = 253))]
    pub node: String,
    /// The map.
    pub map: MapReference,
    /// The operation.
    pub operation: Operation,
    /// How many operations by callers the figures are of.
    #[schemars(range(min = 0))]
    pub count: i64,
    /// How many operations of the same seconds they lack, since those could not be handed over one by one. Unless it is
    /// 0 the figures are of an incomplete set.
    #[schemars(range(min = 0))]
    pub missed: i64,
    /// With `Direct`: how many older operations of the window were let go, since there was no room for all.
    #[schemars(range(min = 0))]
    pub let_go: i64,
    /// From the begin of the oldest of them to the end of the newest.
    #[schemars(range(min = 0))]
    pub span_nanoseconds: i64,
    /// From the entry of bpf(2) until the caller runs in user mode again. Absent if there is no operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_user: Option<Percentiles>,
    /// From the entry of bpf(2) to its exit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_window: Option<Percentiles>,
}
