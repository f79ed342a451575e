//! The agent's monitor in this process, on a workload.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;
use maplatency_agent::monitor::{Monitor, ProbeRequest, ProbeSnapshot, Snapshot};
use maplatency_core::MapLatencyProbeSpec;
use maplatency_core::measure::Counts;

use crate::workload::{Truth, Workload};

const PATIENCE: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(20);

/// The same reads, seen from both sides.
#[derive(Debug)]
pub(crate) struct BothSides {
    /// By the reader's own clock.
    pub(crate) truth: Truth,
    /// By the probes.
    pub(crate) seen: Counts,
    /// Operations that the probes could not record.
    pub(crate) lost: u64,
}

/// Begins to measure the reads of a workload, and returns when it does.
pub(crate) fn begin(monitor: &Monitor, name: &str, workload: &Workload) -> anyhow::Result<()> {
    let spec = format!(
        r#"{{"maps": [{{"ids": [{}]}}], "operations": ["Lookup"], "callers": {{"commands": ["demo-reader"]}}}}"#,
        workload.map_id
    );
    let spec: MapLatencyProbeSpec = serde_json::from_str(&spec)?;
    monitor.measure(vec![ProbeRequest {
        name: name.to_owned(),
        uid: name.to_owned(),
        generation: 1,
        spec: spec.check()?,
    }])?;
    snapshot(monitor, name, |it| it.maps.len() == 1)?;
    Ok(())
}

/// Lets a workload read while its map is measured. Every read is waited for.
pub(crate) fn both_sides(
    monitor: &Monitor,
    name: &str,
    workload: &mut Workload,
) -> anyhow::Result<BothSides> {
    let lost_before: u64 = monitor.snapshots().borrow().losses.values().sum();
    begin(monitor, name, workload)?;
    workload.go()?;
    let truth = workload.truth()?;
    let (seen, all) = snapshot(monitor, name, |it| {
        total(it).until_user.count() >= truth.reads
    })?;
    Ok(BothSides {
        truth,
        seen: total(&seen),
        lost: all.losses.values().sum::<u64>() - lost_before,
    })
}

/// Waits for a snapshot of a probe that fits.
fn snapshot(
    monitor: &Monitor,
    name: &str,
    fits: impl Fn(&ProbeSnapshot) -> bool,
) -> anyhow::Result<(ProbeSnapshot, Arc<Snapshot>)> {
    let snapshots = monitor.snapshots();
    let began = Instant::now();
    loop {
        let latest = Arc::clone(&snapshots.borrow());
        let probe = latest.probes.iter().find(|it| it.name == name);
        match probe.filter(|it| fits(it)) {
            Some(probe) => return Ok((probe.clone(), Arc::clone(&latest))),
            None if began.elapsed() < PATIENCE => thread::sleep(LOOK),
            None => bail!(
                "{name}: {} operations were seen, and no more came; lost: {:?}",
                probe.map_or(0, |it| total(it).until_user.count()),
                latest.losses
            ),
        }
    }
}

/// All operations of a probe since it began, over all CPUs.
pub(crate) fn total(probe: &ProbeSnapshot) -> Counts {
    let mut all = Counts::default();
    for counts in probe.cumulative.values() {
        all.merge(counts);
    }
    all
}
