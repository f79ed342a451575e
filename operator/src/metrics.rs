//! What the operator tells of itself to Prometheus.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::ResourceExt as _;
use maplatency_core::agents::agents_status;
use maplatency_core::condition::READY;
use maplatency_core::crd::agents::HighestCost;
use maplatency_core::crd::nodes::NodeCounts;
use maplatency_core::crd::objectives::ObjectiveState;
use maplatency_core::{MapLatencyProbe, MapLatencyProbeStatus};
use maplatency_metrics::catalog::{
    AGENTS, FAILURES, HIGHEST_BPF, HIGHEST_CPU, HIGHEST_HOOKS, HIGHEST_RSS, LEADER, LOSSES, Metric,
    OBJECTIVE_BREACHED, OBJECTIVE_LATENCY, OBJECTIVE_NODES, OBJECTIVE_THRESHOLD, OPERATIONS,
    OPERATOR_INFO, PROBE_MAPS, PROBE_NODES, PROBE_READY, REFUSALS, REPORTS, STATUSES,
};
use maplatency_metrics::{Export, Sink};

use crate::fleet::Fleet;
use crate::refusals::Refusals;

/// Counters of the process, beside what the [`Fleet`] and [`Refusals`] know.
#[derive(Debug)]
pub struct Metrics {
    fleet: Arc<Fleet>,
    refusals: Arc<Refusals>,
    serves: AtomicBool,
    statuses: AtomicU64,
    /// By object and class.
    failures: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    /// By name.
    probes: Mutex<BTreeMap<String, Figures>>,
}

/// What the newest status of a probe says.
#[derive(Clone, Debug)]
struct Figures {
    is_ready: bool,
    nodes: NodeCounts,
    maps: i64,
    objectives: Vec<ObjectiveFigures>,
}

/// What it says of an objective, and the spec allows.
#[derive(Clone, Debug)]
struct ObjectiveFigures {
    name: String,
    is_breached: bool,
    nanoseconds: Option<i64>,
    threshold_microseconds: i64,
    nodes_above: i32,
}

impl Metrics {
    /// Nothing has happened yet.
    pub fn new(fleet: Arc<Fleet>, refusals: Arc<Refusals>) -> Self {
        Self {
            fleet,
            refusals,
            serves: AtomicBool::new(false),
            statuses: AtomicU64::new(0),
            failures: Mutex::default(),
            probes: Mutex::default(),
        }
    }

    /// This process leads, and agents may come.
    pub fn now_serves(&self) {
        self.serves.store(true, Ordering::Relaxed);
    }

    /// Whether it does.
    pub fn serves(&self) -> bool {
        self.serves.load(Ordering::Relaxed)
    }

    /// Something was not written and is tried again.
    pub fn failed(&self, object: &'static str, class: &'static str) {
        let mut failures = lock(&self.failures);
        *failures.entry((object, class)).or_default() += 1;
    }

    /// A status was written.
    pub fn wrote_status(&self) {
        self.statuses.fetch_add(1, Ordering::Relaxed);
    }

    /// The status of a probe, as it would be written now.
    pub fn computed(&self, probe: &MapLatencyProbe, status: &MapLatencyProbeStatus) {
        let objectives = probe.spec.objectives().iter().zip(&status.objectives);
        let objectives = objectives.map(|(objective, it)| ObjectiveFigures {
            name: objective.name.clone(),
            is_breached: it.state == ObjectiveState::Breached,
            nanoseconds: it.highest_nanoseconds,
            threshold_microseconds: objective.threshold_microseconds,
            nodes_above: it.nodes_above,
        });
        let mut conditions = status.conditions.iter();
        let figures = Figures {
            is_ready: conditions.any(|it| it.type_ == READY && it.status == "True"),
            nodes: status.nodes.clone(),
            maps: status.matched_maps,
            objectives: objectives.collect(),
        };
        lock(&self.probes).insert(probe.name_any(), figures);
    }

    /// Forgets probes that are no more.
    pub fn keep_only(&self, exists: impl Fn(&str) -> bool) {
        lock(&self.probes).retain(|name, _| exists(name));
    }
}

impl Export for Metrics {
    fn export(&self, sink: &mut Sink<'_>) -> fmt::Result {
        let serves = self.serves();
        sink.gauge(&LEADER, f64::from(u8::from(serves)))?;
        let version = vec![env!("CARGO_PKG_VERSION")];
        sink.gauges(&OPERATOR_INFO, [(version, 1.0)])?;
        let failures = lock(&self.failures).clone();
        let failures = failures.iter();
        let failures = failures.map(|((object, class), it)| (vec![*object, *class], float(*it)));
        sink.counters(&FAILURES, failures)?;
        if !serves {
            return Ok(());
        }
        let written = self.statuses.load(Ordering::Relaxed);
        sink.counters(&STATUSES, [(vec![], float(written))])?;
        self.export_probes(sink)?;
        self.export_agents(sink)
    }
}

impl Metrics {
    fn export_probes(&self, sink: &mut Sink<'_>) -> fmt::Result {
        let probes = lock(&self.probes).clone();
        let ready = |it: &Figures| f64::from(u8::from(it.is_ready));
        sink.gauges(
            &PROBE_READY,
            probes
                .iter()
                .map(|(name, it)| (vec![name.as_str()], ready(it))),
        )?;
        let nodes = probes.iter().flat_map(|(name, it)| {
            let NodeCounts {
                selected,
                ready,
                missing,
                stale,
                unable,
                not_ready: _,
                partial_window: _,
            } = it.nodes;
            let states = [
                ("selected", selected),
                ("ready", ready),
                ("missing", missing),
                ("stale", stale),
                ("unable", unable),
            ];
            states.map(|(state, it)| (vec![name.as_str(), state], f64::from(it)))
        });
        sink.gauges(&PROBE_NODES, nodes)?;
        let maps = probes.iter();
        let maps = maps.map(|(name, it)| (vec![name.as_str()], signed(it.maps)));
        sink.gauges(&PROBE_MAPS, maps)?;
        export_objectives(&probes, sink)
    }

    fn export_agents(&self, sink: &mut Sink<'_>) -> fmt::Result {
        let tally = self.fleet.tally();
        let latencies = tally.latencies.iter().flat_map(|((probe, class), totals)| {
            totals.each().map(move |(operation, latency, histogram)| {
                let labels = vec![probe.as_str(), operation.as_str(), latency, class.as_str()];
                (labels, histogram)
            })
        });
        sink.histograms(&OPERATIONS, latencies)?;
        let losses = tally.losses.iter();
        sink.counters(
            &LOSSES,
            losses.map(|(kind, it)| (vec![kind.as_str()], float(*it))),
        )?;
        sink.gauge(&AGENTS, float(tally.connected as u64))?;
        let reports = tally.reports.iter();
        sink.counters(
            &REPORTS,
            reports.map(|(outcome, it)| (vec![*outcome], float(*it))),
        )?;
        let refusals = self.refusals.totals();
        sink.counters(
            &REFUSALS,
            refusals.map(|(reason, it)| (vec![reason.as_str()], float(it))),
        )?;
        let highest = agents_status(&tally.agents).unwrap_or_default().cost;
        export_highest(&highest, sink)
    }
}

fn export_objectives(probes: &BTreeMap<String, Figures>, sink: &mut Sink<'_>) -> fmt::Result {
    type Figure = fn(&ObjectiveFigures) -> Option<f64>;
    let metrics: [(&Metric, Figure); 4] = [
        (&OBJECTIVE_BREACHED, |it| {
            Some(f64::from(u8::from(it.is_breached)))
        }),
        (&OBJECTIVE_LATENCY, |it| {
            it.nanoseconds.map(|it| signed(it) / 1e9)
        }),
        (&OBJECTIVE_THRESHOLD, |it| {
            Some(signed(it.threshold_microseconds) / 1e6)
        }),
        (&OBJECTIVE_NODES, |it| Some(f64::from(it.nodes_above))),
    ];
    for (metric, figure) in metrics {
        let samples = probes.iter().flat_map(|(probe, figures)| {
            let each = figures.objectives.iter();
            each.filter_map(move |it| Some((vec![probe.as_str(), it.name.as_str()], figure(it)?)))
        });
        sink.gauges(metric, samples)?;
    }
    Ok(())
}

/// What no agent could tell is left out.
fn export_highest(highest: &HighestCost, sink: &mut Sink<'_>) -> fmt::Result {
    let HighestCost {
        cpu,
        rss,
        bpf_memory,
        bpf_run_time,
    } = highest;
    let ratio = |parts_per_million: i64| signed(parts_per_million) / 1e6;
    let figures = [
        (
            &HIGHEST_CPU,
            cpu.as_ref().map(|it| ratio(it.parts_per_million)),
        ),
        (&HIGHEST_RSS, rss.as_ref().map(|it| signed(it.bytes))),
        (&HIGHEST_BPF, bpf_memory.as_ref().map(|it| signed(it.bytes))),
        (
            &HIGHEST_HOOKS,
            bpf_run_time.as_ref().map(|it| ratio(it.parts_per_million)),
        ),
    ];
    for (metric, figure) in figures {
        if let Some(figure) = figure {
            sink.gauge(metric, figure)?;
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "samples are floating point")]
fn float(value: u64) -> f64 {
    value as f64
}

#[expect(clippy::cast_precision_loss, reason = "samples are floating point")]
fn signed(value: i64) -> f64 {
    value as f64
}

/// Counters are whole, whoever panicked.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
