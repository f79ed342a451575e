//! The figures of all strategies for the very same operations, and those operations themselves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use maplatency_agent::engine::TierChoice;
use maplatency_agent::monitor::{Monitor, ProbeRequest, ProbeSnapshot, Snapshot};
use maplatency_bpf::Tier;
use maplatency_core::exact::ExactRow;
use maplatency_core::histogram::{Histogram, Percentile};
use maplatency_core::{MapLatencyProbeSpec, Operation};

use super::Strategy;
use super::reader::{Job, Reader, Reads};

const PATIENCE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(20);

/// P50, P99 and P99.9 until user, in nanoseconds.
pub(crate) type Figures = [u64; 3];

/// What was told of the same reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Errors {
    /// Of every operation, none of them rounded.
    pub(crate) truth: Figures,
    /// By strategy, in the order of [`Strategy::ALL`].
    pub(crate) told: [Figures; 4],
    /// By the reader's own clock.
    pub(crate) reader: Figures,
}

impl Errors {
    /// Lets all strategies measure the same reads.
    pub(crate) fn measure(tier: Tier, reader: &mut Reader) -> anyhow::Result<Self> {
        let monitor = Monitor::start(TierChoice::Only(tier))?;
        let requests = Strategy::ALL.map(|it| request(it, reader.map_id()));
        monitor.measure(requests.into_iter().collect::<anyhow::Result<_>>()?)?;
        let has_maps =
            |it: &Snapshot| it.probes.len() == 4 && it.probes.iter().all(|it| !it.maps.is_empty());
        until(&monitor, "the map", has_maps)?;
        let count = reader.distribution().reads();
        let reads = reader.read(&Job::Reads { count })?;
        // The newest read is recorded when its thread leaves the CPU, which it does while it waits for the next job.
        let all = |it: &Snapshot| {
            let direct = it
                .probes
                .iter()
                .find(|it| it.name == Strategy::Direct.as_str());
            direct.is_some_and(|it| counted(it).count() >= count)
        };
        let snapshot = until(&monitor, "all reads", all)?;
        monitor.stop()?;
        Self::of(&snapshot, &reads)
    }

    fn of(snapshot: &Snapshot, reads: &Reads) -> anyhow::Result<Self> {
        let probe = |strategy: Strategy| {
            let mut probes = snapshot.probes.iter();
            let probe = probes.find(|it| it.name == strategy.as_str());
            probe.with_context(|| format!("no figures of {}", strategy.as_str()))
        };
        let direct = row(probe(Strategy::Direct)?)?;
        ensure!(
            (direct.count, direct.missed, direct.let_go) == (reads.count, 0, 0),
            "of {} reads {} are known one by one, {} missed, {} let go: there is no truth to compare with; \
             the machine is too busy",
            reads.count,
            direct.count,
            direct.missed,
            direct.let_go
        );
        let truth = exact(direct)?;
        Ok(Self {
            truth,
            told: [
                rounded(probe(Strategy::Histogram)?)?,
                rounded(probe(Strategy::Sampled)?)?,
                exact(row(probe(Strategy::SlidingWindow)?)?)?,
                truth,
            ],
            reader: [reads.p50, reads.p99, reads.p999],
        })
    }
}

fn request(strategy: Strategy, map_id: u32) -> anyhow::Result<ProbeRequest> {
    let spec: MapLatencyProbeSpec = serde_json::from_value(strategy.spec(map_id))?;
    Ok(ProbeRequest {
        name: strategy.as_str().to_owned(),
        uid: strategy.as_str().to_owned(),
        generation: 1,
        spec: spec.check()?,
    })
}

fn until(
    monitor: &Monitor,
    what: &str,
    fits: impl Fn(&Snapshot) -> bool,
) -> anyhow::Result<Arc<Snapshot>> {
    let snapshots = monitor.snapshots();
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        let latest = Arc::clone(&snapshots.borrow());
        if fits(&latest) {
            return Ok(latest);
        }
        std::thread::sleep(PAUSE);
    }
    bail!("waited {} s for {what}", PATIENCE.as_secs())
}

/// Everything until user, over all CPUs and outcomes.
fn counted(probe: &ProbeSnapshot) -> Histogram {
    let mut all = Histogram::new();
    for counts in probe.within.values() {
        all.merge(&counts.until_user);
    }
    all
}

fn rounded(probe: &ProbeSnapshot) -> anyhow::Result<Figures> {
    let all = counted(probe);
    let at = |it| all.percentile(it).context("nothing was counted");
    Ok([
        at(Percentile::P50)?,
        at(Percentile::P99)?,
        at(Percentile::P999)?,
    ])
}

fn row(probe: &ProbeSnapshot) -> anyhow::Result<&ExactRow> {
    let mut rows = probe.exact.iter();
    rows.find(|it| it.operation == Operation::Lookup)
        .context("no exact figures")
}

fn exact(row: &ExactRow) -> anyhow::Result<Figures> {
    let it = row.latencies.context("no operation was kept")?.until_user;
    Ok([it.p50, it.p99, it.p999])
}
