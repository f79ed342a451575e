//! What the tests do to a cluster.

use maplatency_e2e::workload::Workload;

pub(crate) const NODE: &str = "node-a";

/// A spec that selects the workload's map, and its reader alone.
pub(crate) fn spec(workload: &Workload) -> String {
    let id = workload.ready().map_id;
    format!(
        "{{maps: [{{ids: [{id}]}}], operations: [Lookup], callers: {{commands: [demo-reader]}}, windowSeconds: 600}}"
    )
}
