//! The probes in this kernel against a reader that times every read itself.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use maplatency_agent::monitor::{Monitor, ProbeRequest, ProbeSnapshot, Snapshot};
use maplatency_core::MapLatencyProbeSpec;
use maplatency_core::histogram::{Histogram, Percentile};
use maplatency_core::measure::Counts;
use maplatency_e2e::wait;
use maplatency_e2e::workload::{Truth, Workload};

const PERCENTILES: [(&str, Percentile, fn(&Truth) -> u64); 4] = [
    ("P50", Percentile::P50, |it| it.p50_nanoseconds),
    ("P90", Percentile::P90, |it| it.p90_nanoseconds),
    ("P99", Percentile::P99, |it| it.p99_nanoseconds),
    ("P99.9", Percentile::P999, |it| it.p999_nanoseconds),
];

fn request(name: &str, spec: &str) -> ProbeRequest {
    let spec: MapLatencyProbeSpec = serde_yaml::from_str(spec).unwrap();
    ProbeRequest {
        name: name.to_owned(),
        uid: name.to_owned(),
        generation: 1,
        spec: spec.check().unwrap(),
    }
}

/// Waits for a snapshot of a probe that fits.
async fn snapshot(
    monitor: &Monitor,
    what: &str,
    name: &str,
    fits: impl Fn(&ProbeSnapshot) -> bool,
) -> Result<(ProbeSnapshot, Arc<Snapshot>)> {
    let snapshots = monitor.snapshots();
    wait::until(what, Duration::from_secs(10), async || {
        let latest = Arc::clone(&snapshots.borrow());
        let Some(probe) = latest.probes.iter().find(|it| it.name == name) else {
            anyhow::bail!("no snapshot of {name} yet");
        };
        let (maps, seen) = (probe.maps.len(), lookups(probe).until_user.count());
        ensure!(fits(probe), "{maps} maps, {seen} lookups, lost: {:?}", latest.losses);
        Ok(Some((probe.clone(), latest)))
    })
    .await
}

/// All lookups by callers, over all maps and CPUs.
fn lookups(probe: &ProbeSnapshot) -> Counts {
    let mut all = Counts::default();
    for counts in probe.cumulative.values() {
        all.merge(counts);
    }
    all
}

/// Lets a workload read while one probe measures its map; gives both views of the same reads.
async fn measured(monitor: &Monitor, name: &str, arguments: &[&str]) -> Result<(Truth, Counts, Arc<Snapshot>)> {
    let mut workload = Workload::start(arguments)?;
    let id = workload.ready().map_id;
    monitor.measure(vec![request(name, &format!("{{maps: [{{ids: [{id}]}}], operations: [Lookup]}}"))])?;
    snapshot(monitor, "the workload's map", name, |it| it.maps.len() == 1).await?;
    workload.go()?;
    let truth = tokio::task::block_in_place(|| workload.truth())?;
    let (probe, all) = snapshot(monitor, "every read of the workload", name, |it| {
        lookups(it).until_user.count() >= truth.reads
    })
    .await?;
    Ok((truth, lookups(&probe), all))
}

fn lost(snapshot: &Snapshot) -> u64 {
    snapshot.losses.values().sum()
}

/// What lies between the caller's clock and the entry of the system call, on both sides of the read: two halves of
/// reading the clock, the way into and out of the kernel, and the probes themselves. It is measured on a quiet
/// reader as the difference of the medians, and taken as the same for every read.
fn constant(truth: &Truth, until_user: &Histogram) -> u64 {
    let median = until_user.percentile(Percentile::P50).unwrap();
    truth.p50_nanoseconds.checked_sub(median).expect("a caller never sees less than the kernel")
}

fn assert_agrees(what: &str, truth: &Truth, until_user: &Histogram, constant: u64) {
    println!("{what}: {} reads, constant {constant} ns", truth.reads);
    let mut wrong = Vec::new();
    for (name, percentile, of) in PERCENTILES {
        let (own, seen) = (of(truth), until_user.percentile(percentile).unwrap() + constant);
        let allowed = (own / 20).max(truth.clock_cost_nanoseconds);
        println!("  {name:6} caller {own:>9} ns, probe and constant {seen:>9} ns, allowed ±{allowed}");
        if own.abs_diff(seen) > allowed {
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "{what}: {wrong:?} differ by more than 5 % and more than one reading of the clock");
}

#[tokio::test(flavor = "multi_thread")]
async fn until_back_in_user_agrees_with_the_callers_own_clock() -> Result<()> {
    let monitor = Monitor::start()?;
    let quiet = ["--rate", "0", "--no-refresh", "--reader-cpu", "1"];

    let (truth, seen, _) = measured(&monitor, "calibration", &[&quiet[..], &["--reads", "1000000"]].concat()).await?;
    assert_eq!(seen.until_user.count(), truth.reads);
    let constant = constant(&truth, &seen.until_user);

    let (truth, seen, all) = measured(&monitor, "alone", &[&quiet[..], &["--reads", "3000000"]].concat()).await?;
    assert_eq!(seen.until_user.count(), truth.reads, "no read is lost or counted twice");
    assert_eq!(seen.kernel_window.count(), truth.reads);
    assert_eq!(lost(&all), 0, "{:?}", all.losses);
    assert_agrees("a reader alone", &truth, &seen.until_user, constant);

    let hogs = ["--reads", "1500000", "--hogs", "3"];
    let (truth, seen, all) = measured(&monitor, "hogs", &[&quiet[..], &hogs[..]].concat()).await?;
    assert_eq!(seen.until_user.count(), truth.reads, "no read is lost or counted twice");
    assert_eq!(lost(&all), 0, "{:?}", all.losses);
    assert_agrees("a reader beside hogs", &truth, &seen.until_user, constant);

    // The scheduler runs on the way back to user mode, after the exit of the system call.
    let stall = 1_000_000;
    let (kernel, user) = (seen.kernel_window.count_above(stall), seen.until_user.count_above(stall));
    println!("  reads over 1 ms: {kernel} in the kernel window, {user} until back in user");
    assert!(user >= 20, "the hogs stalled the reader only {user} times");
    assert!(kernel * 4 < user, "the kernel window sees {kernel} of {user} stalls");
    monitor.stop()?;
    Ok(())
}
