//! What the agent tells of itself to Prometheus.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use maplatency_bpf::Tier;
use maplatency_core::cost::Cost;
use maplatency_core::measure::Rows;
use maplatency_metrics::catalog::{
    AGENT_BPF_MEMORY, AGENT_CONNECTED, AGENT_CPU, AGENT_HOOKS, AGENT_INFO, AGENT_LOSSES,
    AGENT_MAPS, AGENT_MEASURES, AGENT_OPERATIONS, AGENT_REPORTS, AGENT_SHED,
};
use maplatency_metrics::latency::{Totals, added};
use maplatency_metrics::{Export, Sink};

use super::stream::Told;
use crate::monitor::{ProbeSnapshot, Snapshot};

/// What there is to export.
#[derive(Debug, Default)]
pub(super) struct Exported {
    told: Arc<Told>,
    measured: Mutex<Measured>,
}

#[derive(Debug, Default)]
struct Measured {
    tier: Option<Tier>,
    newest: Arc<Snapshot>,
    /// By the probe's name.
    totals: BTreeMap<String, Totals>,
}

impl Exported {
    /// What the streams did.
    pub(super) fn told(&self) -> Arc<Told> {
        Arc::clone(&self.told)
    }

    /// Measuring has begun.
    pub(super) fn measures(&self, tier: Tier) {
        self.lock().tier = Some(tier);
    }

    /// Takes what was measured since the last snapshot.
    pub(super) fn take(&self, snapshot: Arc<Snapshot>) {
        let mut measured = self.lock();
        let before = std::mem::replace(&mut measured.newest, snapshot);
        let now = Arc::clone(&measured.newest);
        let is_there = |name: &String| now.probes.iter().any(|it| it.name == *name);
        measured.totals.retain(|name, _| is_there(name));
        let none = Rows::new();
        for probe in &now.probes {
            let same =
                |it: &&ProbeSnapshot| (&it.uid, it.generation) == (&probe.uid, probe.generation);
            let earlier = before
                .probes
                .iter()
                .find(same)
                .map_or(&none, |it| &it.cumulative);
            let totals = measured.totals.entry(probe.name.clone()).or_default();
            totals.add(&added(earlier, &probe.cumulative));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Measured> {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Export for Exported {
    fn export(&self, sink: &mut Sink<'_>) -> fmt::Result {
        let measured = self.lock();
        let Measured {
            tier,
            newest,
            totals,
        } = &*measured;
        let latencies = totals.iter().flat_map(|(probe, totals)| {
            totals.each().map(move |(operation, latency, histogram)| {
                (vec![probe.as_str(), operation.as_str(), latency], histogram)
            })
        });
        sink.histograms(&AGENT_OPERATIONS, latencies)?;
        let losses = newest.losses.iter();
        sink.counters(
            &AGENT_LOSSES,
            losses.map(|(kind, it)| (vec![kind.as_str()], float(*it))),
        )?;
        let maps = newest.probes.iter();
        let maps = maps.map(|it| (vec![it.name.as_str()], float(it.maps.len() as u64)));
        sink.gauges(&AGENT_MAPS, maps)?;
        export_cost(&newest.cost, sink)?;
        let shed = newest.shed.iter();
        let shed = shed.map(|it| (vec![it.step.as_str()], f64::from(it.one_in)));
        sink.gauges(&AGENT_SHED, shed)?;
        let connected = self.told.connected.load(Ordering::Relaxed);
        sink.gauge(&AGENT_CONNECTED, f64::from(u8::from(connected)))?;
        let reports = self.told.reports.load(Ordering::Relaxed);
        sink.counters(&AGENT_REPORTS, [(vec![], float(reports))])?;
        sink.gauge(&AGENT_MEASURES, f64::from(u8::from(tier.is_some())))?;
        let tier = tier.map_or_else(|| "None".to_owned(), |it| it.to_string());
        let info = vec![env!("CARGO_PKG_VERSION"), &tier];
        sink.gauges(&AGENT_INFO, [(info, 1.0)])
    }
}

/// What could not be told is left out.
fn export_cost(cost: &Cost, sink: &mut Sink<'_>) -> fmt::Result {
    let Cost {
        cpu,
        rss_bytes: _,
        bpf_maps_bytes,
        bpf_programs_bytes,
        bpf_run_time,
    } = cost;
    let ratio = |parts_per_million: u64| float(parts_per_million) / 1e6;
    if let Some(cpu) = cpu {
        let all = Some(("all", cpu.parts_per_million()));
        let readers = cpu.readers_parts_per_million().map(|it| ("readers", it));
        let parts = [all, readers].into_iter().flatten();
        sink.gauges(&AGENT_CPU, parts.map(|(part, it)| (vec![part], ratio(it))))?;
    }
    let maps = bpf_maps_bytes.map(|it| ("maps", it));
    let programs = bpf_programs_bytes.map(|it| ("programs", it));
    let memory = [maps, programs].into_iter().flatten();
    sink.gauges(
        &AGENT_BPF_MEMORY,
        memory.map(|(kind, it)| (vec![kind], float(it))),
    )?;
    match bpf_run_time {
        Some(it) => sink.gauge(&AGENT_HOOKS, ratio(it.parts_per_million())),
        None => Ok(()),
    }
}

#[expect(clippy::cast_precision_loss, reason = "samples are floating point")]
fn float(value: u64) -> f64 {
    value as f64
}
