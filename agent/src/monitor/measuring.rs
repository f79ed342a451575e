//! The measuring thread itself: what it does on a command, and in every slice.

mod singles;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use maplatency_bpf::layout::MAX_TARGETS;
use maplatency_core::budget::{Budget, Shed, Shedding};
use tokio::sync::watch;
use tracing::{error, info};

use super::collector::Collector;
use super::probe::{Epoch, RunningProbe};
use super::ties::AllTies;
use super::{
    Command, MonitorError, OperationsFile, ProbeRequest, ProbeSnapshot, SLICE, Snapshot, room,
};
use crate::clock;
use crate::cost::{Meter, SliceCost};
use crate::discover::{Fate, Maps};
use crate::engine::{Engine, EngineError};

/// What the measuring thread works with.
pub(super) struct Measuring {
    engine: Engine,
    meter: Meter,
    slice_cost: SliceCost,
    shedding: Shedding,
    publish: watch::Sender<Arc<Snapshot>>,
    maps: Maps,
    ties: AllTies,
    probes: Vec<RunningProbe>,
    refused: Vec<ProbeSnapshot>,
    /// There while a probe wants single operations.
    collector: Option<Collector>,
    /// For the first collector.
    file: Option<OperationsFile>,
    writes: bool,
    began: Duration,
    epoch: Epoch,
}

impl Measuring {
    pub(super) fn new(
        engine: Engine,
        publish: watch::Sender<Arc<Snapshot>>,
        budget: Budget,
        file: Option<OperationsFile>,
    ) -> Self {
        Self {
            maps: Maps::except(engine.own_maps().clone()),
            ties: AllTies::default(),
            meter: Meter::start(engine.objects()),
            slice_cost: SliceCost::begin(budget),
            shedding: Shedding::new(budget),
            engine,
            publish,
            probes: Vec::new(),
            refused: Vec::new(),
            collector: None,
            writes: file.is_some(),
            file,
            began: clock::monotonic(),
            epoch: Epoch {
                unix_microseconds: clock::unix_microseconds(),
            },
        }
    }

    pub(super) fn run(mut self, inbox: &Receiver<Command>) -> Result<(), MonitorError> {
        let mut next = clock::monotonic() + SLICE;
        loop {
            let wait = next.saturating_sub(clock::monotonic());
            match inbox.recv_timeout(wait) {
                Ok(Command::Measure(probes)) => self.measure(probes)?,
                Ok(Command::Slice) => self.slice()?,
                Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => return self.finish(),
                Err(RecvTimeoutError::Timeout) => {
                    self.slice()?;
                    // After a long delay the slices go on from now and do not come in a burst.
                    next = (next + SLICE).max(clock::monotonic());
                }
            }
        }
    }

    /// Time since the agent began: the clock of reports and windows.
    fn now(&self) -> Duration {
        clock::monotonic().saturating_sub(self.began)
    }

    fn measure(&mut self, requests: Vec<ProbeRequest>) -> Result<(), MonitorError> {
        let (keep, over): (Vec<_>, Vec<_>) = std::mem::take(&mut self.probes)
            .into_iter()
            .partition(|it| requests.contains(it.request()));
        self.probes = keep;
        // Its targets go before the probe, so that no operation is counted for half of it.
        self.find_maps()?;
        for probe in over {
            info!(probe = %probe.request().name, "Stopped measuring");
            self.engine.remove(probe.instance())?;
            if let Some(collector) = &self.collector {
                collector.end(probe.instance());
            }
        }
        let wants_singles = |it: &ProbeRequest| it.spec.aggregation.keeps().is_some();
        let no_ring = self.set_collector(requests.iter().any(wants_singles))?;
        self.refused.clear();
        for request in requests {
            if self.probes.iter().any(|it| *it.request() == request) {
                continue;
            }
            if let (Some(problem), true) = (&no_ring, wants_singles(&request)) {
                self.refuse(&request, problem);
                continue;
            }
            let now = self.now();
            match RunningProbe::start(request.clone(), &mut self.engine, now) {
                Ok(probe) => {
                    let keeps = request.spec.aggregation.keeps();
                    if let (Some(collector), Some(keep)) = (&self.collector, keeps) {
                        collector.begin(probe.instance(), request.spec.window, keep);
                    }
                    info!(probe = %request.name, generation = request.generation, "Began measuring");
                    self.probes.push(probe);
                }
                Err(problem @ EngineError::TooManyProbes) => {
                    self.refuse(&request, &problem.to_string());
                }
                Err(problem) => return Err(problem.into()),
            }
        }
        self.find_maps()
    }

    fn refuse(&mut self, request: &ProbeRequest, problem: &str) {
        error!(probe = %request.name, error = problem, "Cannot measure");
        self.refused
            .push(ProbeSnapshot::empty(request, vec![problem.to_owned()]));
    }

    /// Lists the maps and tells the kernel side which ones each probe measures.
    fn find_maps(&mut self) -> Result<(), MonitorError> {
        let now = self.now();
        let maps = self.maps.refresh()?;
        let specs = || self.probes.iter().map(|it| &it.request().spec);
        self.ties.refresh(specs, &mut self.engine, now);
        let probes = self.probes.iter();
        let wanted: Vec<_> = probes.map(|it| it.wanted_maps(maps, &self.ties)).collect();
        let numbers: Vec<usize> = wanted.iter().map(BTreeSet::len).collect();
        let given = room::share(wanted, |id| self.engine.is_target(id), MAX_TARGETS);
        let probes = self.probes.iter_mut().zip(given.into_iter().zip(numbers));
        let targets: BTreeMap<_, BTreeSet<u32>> = probes
            .map(|(probe, (ids, wanted))| {
                probe.see_maps(maps, &ids, wanted - ids.len(), now);
                probe.see_ties(&self.ties);
                (probe.instance(), ids)
            })
            .collect();
        if let Some(collector) = &self.collector {
            collector.show(&targets);
        }
        self.engine.set_targets(&targets, self.maps.newest())?;
        self.meet_newcomers(now)
    }

    /// Takes note of maps that went before they were listed. Of those the kernel side alone knows who they were.
    fn meet_newcomers(&mut self, now: Duration) -> Result<(), MonitorError> {
        for newcomer in self.engine.newcomers()? {
            match self.maps.fate_of(newcomer.id) {
                Fate::Coming => continue,
                Fate::Listed => (),
                Fate::Missed => {
                    for probe in &mut self.probes {
                        probe.miss_map(&newcomer, now);
                    }
                }
            }
            self.engine.forget_newcomer(newcomer.id)?;
        }
        Ok(())
    }

    fn slice(&mut self) -> Result<(), MonitorError> {
        self.find_maps()?;
        let thresholds = self
            .probes
            .iter()
            .filter_map(|it| Some((it.instance(), it.outlier_thresholds()?)))
            .collect();
        self.engine.set_thresholds(&thresholds)?;
        let shown: BTreeMap<_, BTreeSet<u32>> = self
            .probes
            .iter()
            .map(|it| (it.instance(), it.shown_maps()))
            .collect();
        let mut drained = self.engine.drain(&shown)?;
        let now = self.now();
        let (mut figures, written) = self.settle(now, &shown, &drained.missed)?;
        let one_in = self.shedding.detail().one_in;
        let mut forgotten = BTreeSet::new();
        let mut snapshots = self.refused.clone();
        for probe in &mut self.probes {
            let rows = drained.rows.remove(&probe.instance()).unwrap_or_default();
            let callers = drained
                .callers
                .remove(&probe.instance())
                .unwrap_or_default();
            let spans = drained.spans.remove(&probe.instance()).unwrap_or_default();
            probe.advance(now, rows, callers, one_in);
            probe.note_spikes(now, spans, self.began);
            let outliers = drained
                .outliers
                .remove(&probe.instance())
                .unwrap_or_default();
            probe.note_outliers(now, outliers, self.began, self.epoch);
            let instance = probe.instance();
            forgotten.extend(
                probe
                    .forgotten_maps(now)
                    .into_iter()
                    .map(|id| (instance, id)),
            );
            let readers = drained
                .readers
                .remove(&probe.instance())
                .unwrap_or_default();
            let figures = figures.remove(&probe.instance()).unwrap_or_default();
            snapshots.push(probe.snapshot(readers, figures, self.epoch));
        }
        self.engine.forget_maps(&forgotten)?;
        self.keep_budget()?;
        self.publish.send_replace(Arc::new(Snapshot {
            taken: now,
            probes: snapshots,
            losses: drained.losses,
            cost: self.meter.latest(),
            shed: self.shedding.shed(),
            written,
        }));
        Ok(())
    }

    /// Leaves something out, or takes it back, if what the slice cost is a reason to.
    fn keep_budget(&mut self) -> Result<(), MonitorError> {
        let operations = self.probes.iter().map(RunningProbe::operations).sum();
        let one_in = self.engine.sampling();
        let figures = self.slice_cost.take(&self.meter, operations, one_in);
        let Some(figures) = figures else {
            return Ok(());
        };
        let before = self.shedding.detail();
        if !self.shedding.observe(&figures) {
            return Ok(());
        }
        let detail = self.shedding.detail();
        let left_out: Vec<String> = self.shedding.shed().iter().map(Shed::to_string).collect();
        info!(
            left_out = left_out.join(", "),
            cpu_parts_per_million = figures.cpu,
            memory_bytes = figures.memory,
            operations_per_second = figures.operations,
            "Changed what is left out to stay within the budget"
        );
        if detail.coarser_callers && !before.coarser_callers {
            self.probes
                .iter_mut()
                .for_each(RunningProbe::forget_callers);
        }
        Ok(self.engine.set_detail(detail)?)
    }
}
