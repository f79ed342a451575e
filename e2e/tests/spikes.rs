//! The incident of the demo is told as what it is: every four seconds, on the reader's CPU.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use maplatency_agent::engine::TierChoice;
use maplatency_agent::monitor::Monitor;
use maplatency_core::vocabulary::Operation;
use maplatency_e2e::measure::{request, snapshot};
use maplatency_e2e::wait;
use maplatency_e2e::workload::Workload;

/// Five refreshes in a row make a period, which takes 23 seconds. One that something else has hidden makes that two turns.
const LIMIT: Duration = Duration::from_secs(50);

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_every_four_seconds_is_told_with_its_period_and_its_cpu() -> Result<()> {
    let monitor = Monitor::start(TierChoice::Auto)?;
    // Where others keep the reader's CPU busy, it is slow all the time, refresh or not, and that is what is told then. So
    // the incident's own processes, and they alone, get the CPU as on a machine that does nothing else.
    let arguments = ["--rate", "0", "--for", "60s", "--reader-cpu", "1"];
    let mut workload = Workload::start_before_others(&arguments)?;
    let id = workload.ready().map_id;
    let spec = format!("{{maps: [{{ids: [{id}]}}], operations: [Lookup]}}");
    monitor.measure(vec![request("incident", &spec)?])?;
    snapshot(&monitor, "the map", "incident", |it| it.maps.len() == 1).await?;
    workload.go()?;

    let snapshots = monitor.snapshots();
    let spike = wait::until("the incident to be told", LIMIT, async || {
        let latest = snapshots.borrow().clone();
        let probe = latest.probes.first().context("the probe has gone")?;
        let regular = probe.spikes.iter().find(|it| it.period.is_some());
        let spike = regular.with_context(|| format!("told: {:?}", probe.spikes))?;
        Ok(Some(spike.clone()))
    })
    .await?;
    let period = spike.period.context("the spike has no period")?;
    let five_percent = Duration::from_millis(200);
    ensure!(
        period.abs_diff(Duration::from_secs(4)) <= five_percent,
        "{spike:?}"
    );
    assert_eq!(spike.cpus, BTreeSet::from([1]));
    assert_eq!((spike.map_id, spike.operation), (id, Operation::Lookup));
    // While the map is rewritten, the reader gets every other time slice of its CPU.
    ensure!(
        spike.duration < Duration::from_secs(2) && spike.p99_nanoseconds > 500_000,
        "{spike:?}"
    );
    drop(workload);
    monitor.stop()?;
    Ok(())
}
