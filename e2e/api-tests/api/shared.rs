//! What the tests do to a cluster, and look for in a status.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use futures::StreamExt as _;
use kube::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use maplatency_bpf::sys;
use maplatency_core::{MapLatencyProbe, MapLatencyProbeStatus};
use maplatency_e2e::cluster::{Cluster, PATIENCE};
use maplatency_e2e::process::Daemon;
use maplatency_e2e::status::lookups;
use maplatency_e2e::wait;
use maplatency_e2e::workload::Workload;
use tokio::task::JoinHandle;

pub(crate) const NODE: &str = "node-a";
pub(crate) const READER: [&str; 3] = ["--rate", "0", "--no-refresh"];

pub(crate) fn reads(workload: &Workload) -> String {
    // Whoever else reads the map is not the workload.
    let id = workload.ready().map_id;
    format!(
        "{{maps: [{{ids: [{id}]}}], operations: [Lookup], callers: {{commands: [demo-reader]}}, windowSeconds: 600}}"
    )
}

/// The fields of a spec that select the workload's map, and its reader alone.
pub(crate) fn selecting(workload: &Workload) -> String {
    let id = workload.ready().map_id;
    format!("maps: [{{ids: [{id}]}}], callers: {{commands: [demo-reader]}}, windowSeconds: 600")
}

/// Reads the workload's map from a thread of this process that is called `api-reader`.
pub(crate) fn read_as_another(workload: &Workload, lookups: u64, next_keys: u64) -> Result<()> {
    let id = workload.ready().map_id;
    let work = move || -> Result<()> {
        let map = sys::Map::from_id(id)?;
        let mut value = vec![0; map.value_size()];
        for _ in 0..lookups {
            ensure!(
                map.lookup(&0u64.to_ne_bytes(), &mut value)?,
                "the entry is missing"
            );
        }
        let mut next = vec![0; map.key_size()];
        for _ in 0..next_keys {
            map.next_key(None, &mut next)?;
        }
        Ok(())
    };
    let reader = thread::Builder::new()
        .name("api-reader".to_owned())
        .spawn(work)?;
    reader.join().map_err(|_| anyhow!("the reader panicked"))?
}

pub(crate) async fn log_has(agent: &Daemon, text: &str, times: usize) -> Result<()> {
    wait::until(
        &format!("{text:?} {times} times in the agent's log"),
        PATIENCE,
        async || {
            ensure!(
                agent.output()?.matches(text).count() >= times,
                "{}",
                agent.log_tail()
            );
            Ok(Some(()))
        },
    )
    .await
}

/// Every status of a probe from now on, in order.
pub(crate) struct Statuses {
    seen: Arc<Mutex<Vec<(Instant, MapLatencyProbeStatus)>>>,
    task: JoinHandle<()>,
}

impl Statuses {
    pub(crate) fn watch(cluster: &Cluster, name: &str) -> Self {
        let seen = Arc::<Mutex<Vec<_>>>::default();
        let into = Arc::clone(&seen);
        let probes: Api<MapLatencyProbe> = Api::all(cluster.client());
        let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let task = tokio::spawn(async move {
            let mut changes = watcher(probes, only)
                .default_backoff()
                .applied_objects()
                .boxed();
            while let Some(change) = changes.next().await {
                if let Ok(Some(status)) = change.map(|it| it.status) {
                    into.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((Instant::now(), status));
                }
            }
        });
        Self { seen, task }
    }

    /// Those so far, and when each was seen.
    pub(crate) fn so_far(&self) -> Vec<(Instant, MapLatencyProbeStatus)> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The counts of lookups, once the last status is among them.
    pub(crate) async fn lookups_up_to(&self, last: &MapLatencyProbeStatus) -> Result<Vec<i64>> {
        wait::until("the watch to show the last status", PATIENCE, async || {
            let seen = self.so_far();
            let shows_last = seen.iter().any(|it| it.1 == *last);
            ensure!(shows_last, "{} statuses", seen.len());
            Ok(Some(seen.iter().map(|it| lookups(&it.1)).collect()))
        })
        .await
    }
}

impl Drop for Statuses {
    fn drop(&mut self) {
        self.task.abort();
    }
}
