//! What tests look for in a probe's status.

use maplatency_core::MapLatencyProbeStatus;
use maplatency_core::vocabulary::Operation;

/// Operations by callers in the window.
pub fn count(status: &MapLatencyProbeStatus, operation: Operation) -> i64 {
    let mut operations = status.operations.iter();
    let found = operations.find(|it| it.operation == operation);
    found.map_or(0, |it| it.count)
}

/// Lookups by callers in the window.
pub fn lookups(status: &MapLatencyProbeStatus) -> i64 {
    count(status, Operation::Lookup)
}

/// Whether every selected node measures at least one map.
pub fn is_ready(status: &MapLatencyProbeStatus) -> bool {
    condition(status, "Ready").is_some_and(|it| it.0 == "True")
}

/// Whether a node measures the one map that is there.
pub fn measures(status: &MapLatencyProbeStatus) -> bool {
    is_ready(status) && status.matched_maps == 1
}

/// Status, reason and message of a condition.
pub fn condition<'a>(
    status: &'a MapLatencyProbeStatus,
    kind: &str,
) -> Option<(&'a str, &'a str, &'a str)> {
    let found = status.conditions.iter().find(|it| it.type_ == kind)?;
    Some((&found.status, &found.reason, &found.message))
}
