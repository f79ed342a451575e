//! What the tests look for in a status.

use std::time::Instant;

use futures::StreamExt as _;
use kube::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use maplatency_core::vocabulary::Operation;
use maplatency_core::{MapLatencyProbe, MapLatencyProbeStatus};
use maplatency_e2e::cluster::Cluster;
use maplatency_e2e::workload::Workload;

pub(crate) const NODE: &str = "node-a";
pub(crate) const READER: [&str; 3] = ["--rate", "0", "--no-refresh"];

/// Operations by callers in the window.
pub(crate) fn count(status: &MapLatencyProbeStatus, operation: Operation) -> i64 {
    status
        .operations
        .iter()
        .find(|it| it.operation == operation)
        .map_or(0, |it| it.count)
}

pub(crate) fn lookups(status: &MapLatencyProbeStatus) -> i64 {
    count(status, Operation::Lookup)
}

pub(crate) fn is_ready(status: &MapLatencyProbeStatus) -> bool {
    condition(status, "Ready").is_some_and(|it| it.0 == "True")
}

/// Status, reason and message of a condition.
pub(crate) fn condition<'a>(
    status: &'a MapLatencyProbeStatus,
    kind: &str,
) -> Option<(&'a str, &'a str, &'a str)> {
    let found = status.conditions.iter().find(|it| it.type_ == kind)?;
    Some((&found.status, &found.reason, &found.message))
}

pub(crate) fn reads(workload: &Workload) -> String {
    // Whoever else reads the map is not the workload.
    let id = workload.ready().map_id;
    format!(
        "{{maps: [{{ids: [{id}]}}], operations: [Lookup], callers: {{commands: [demo-reader]}}, windowSeconds: 600}}"
    )
}

/// Counts of a probe in every status that is written from now on.
pub(crate) struct Counts {
    task: tokio::task::JoinHandle<()>,
    pub(crate) seen: std::sync::Arc<std::sync::Mutex<Vec<(Instant, i64)>>>,
}

impl Counts {
    pub(crate) fn watch(cluster: &Cluster, name: &str) -> Self {
        let seen = std::sync::Arc::<std::sync::Mutex<Vec<_>>>::default();
        let into = std::sync::Arc::clone(&seen);
        let probes: Api<MapLatencyProbe> = Api::all(cluster.client());
        let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let task = tokio::spawn(async move {
            let mut changes = watcher(probes, only)
                .default_backoff()
                .applied_objects()
                .boxed();
            while let Some(change) = changes.next().await {
                if let Ok(probe) = change {
                    let count = probe.status.as_ref().map_or(0, lookups);
                    into.lock()
                        .expect("nobody panics with it")
                        .push((Instant::now(), count));
                }
            }
        });
        Self { task, seen }
    }

    pub(crate) fn end(self) -> Vec<(Instant, i64)> {
        self.task.abort();
        self.seen.lock().expect("nobody panics with it").clone()
    }
}
