//! Measuring in this process: the agent's own monitor, without a command line or an operator around it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use maplatency_agent::monitor::{Monitor, ProbeRequest, ProbeSnapshot, Snapshot};
use maplatency_core::MapLatencyProbeSpec;
use maplatency_core::measure::Counts;

use crate::wait;
use crate::workload::{Truth, Workload};

/// Time for a snapshot to show what is expected; slices are a second long.
const PATIENCE: Duration = Duration::from_secs(10);

/// A probe from the YAML of its spec.
pub fn request(name: &str, spec: &str) -> Result<ProbeRequest> {
    let spec: MapLatencyProbeSpec = serde_yaml::from_str(spec).context("the spec")?;
    Ok(ProbeRequest {
        name: name.to_owned(),
        uid: name.to_owned(),
        generation: 1,
        spec: spec.check()?,
    })
}

/// Waits for a snapshot of a probe that fits, and gives the losses with it.
pub async fn snapshot(
    monitor: &Monitor,
    what: &str,
    name: &str,
    fits: impl Fn(&ProbeSnapshot) -> bool,
) -> Result<(ProbeSnapshot, Arc<Snapshot>)> {
    let snapshots = monitor.snapshots();
    wait::until(what, PATIENCE, async || {
        let latest = Arc::clone(&snapshots.borrow());
        let Some(probe) = latest.probes.iter().find(|it| it.name == name) else {
            bail!("no snapshot of {name} yet");
        };
        let (maps, seen) = (probe.maps.len(), total(probe).until_user.count());
        ensure!(
            fits(probe),
            "{maps} maps, {seen} operations, lost: {:?}, problems: {:?}",
            latest.losses,
            probe.problems
        );
        Ok(Some((probe.clone(), latest)))
    })
    .await
}

/// All operations of a probe since it began, over all maps and CPUs.
pub fn total(probe: &ProbeSnapshot) -> Counts {
    let mut all = Counts::default();
    for counts in probe.cumulative.values() {
        all.merge(counts);
    }
    all
}

/// The same reads, seen from both sides.
#[derive(Debug)]
pub struct BothSides {
    /// By the reader's own clock.
    pub truth: Truth,
    /// By the probes.
    pub seen: Counts,
    /// Operations that the probes could not record.
    pub lost: u64,
}

/// Lets a workload read while a probe measures its map. Every read is waited for, until it is counted or lost.
pub async fn both_sides(monitor: &Monitor, name: &str, arguments: &[&str]) -> Result<BothSides> {
    let mut workload = Workload::start(arguments)?;
    let id = workload.ready().map_id;
    // Whoever else reads the map, another agent perhaps, is not the workload.
    let spec = format!(
        "{{maps: [{{ids: [{id}]}}], operations: [Lookup], callers: {{commands: [demo-reader]}}}}"
    );
    let losses = |it: &Snapshot| it.losses.values().sum::<u64>();
    let lost_before = losses(&monitor.snapshots().borrow());
    monitor.measure(vec![request(name, &spec)?])?;
    snapshot(monitor, "the workload's map", name, |it| it.maps.len() == 1).await?;
    workload.go()?;
    let truth = tokio::task::block_in_place(|| workload.truth())?;
    let (probe, all) = snapshot(monitor, "every read of the workload", name, |it| {
        let lost = losses(&monitor.snapshots().borrow()) - lost_before;
        total(it).until_user.count() + lost >= truth.reads
    })
    .await?;
    Ok(BothSides {
        truth,
        seen: total(&probe),
        lost: losses(&all) - lost_before,
    })
}
