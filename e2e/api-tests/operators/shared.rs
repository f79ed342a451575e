//! What the tests do to a cluster, and look for in a status.

use anyhow::{Context as _, Result};
use maplatency_core::MapLatencyProbeStatus;
use maplatency_core::vocabulary::Operation;
use maplatency_e2e::cluster::Cluster;
use maplatency_e2e::workload::Workload;

pub(crate) const NODE: &str = "node-a";

/// Lookups by callers in the window.
pub(crate) fn lookups(status: &MapLatencyProbeStatus) -> i64 {
    let mut operations = status.operations.iter();
    let lookups = operations.find(|it| it.operation == Operation::Lookup);
    lookups.map_or(0, |it| it.count)
}

pub(crate) fn measures(status: &MapLatencyProbeStatus) -> bool {
    condition(status, "Ready").is_some_and(|it| it.0 == "True") && status.matched_maps == 1
}

/// Status, reason and message of a condition.
pub(crate) fn condition<'a>(
    status: &'a MapLatencyProbeStatus,
    kind: &str,
) -> Option<(&'a str, &'a str, &'a str)> {
    let found = status.conditions.iter().find(|it| it.type_ == kind)?;
    Some((&found.status, &found.reason, &found.message))
}

/// A map that only this test reads.
pub(crate) fn workload(name: &str, reads: &str, rate: &str) -> Result<Workload> {
    Workload::start(&[
        "--no-refresh",
        "--entries",
        "1000",
        "--name",
        name,
        "--reads",
        reads,
        "--rate",
        rate,
    ])
}

/// A spec that selects the workload's map, and its reader alone.
pub(crate) fn spec(workload: &Workload) -> String {
    let id = workload.ready().map_id;
    format!(
        "{{maps: [{{ids: [{id}]}}], operations: [Lookup], callers: {{commands: [demo-reader]}}, windowSeconds: 600}}"
    )
}

/// Objects of the API server as kubectl prints them.
pub(crate) async fn json(cluster: &Cluster, args: &[&str]) -> Result<serde_json::Value> {
    let args = [args, &["-o", "json"]].concat();
    let text = cluster.kubectl(&args).await?.ok()?;
    serde_json::from_str(&text).with_context(|| text.clone())
}
