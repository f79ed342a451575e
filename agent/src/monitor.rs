//! The measuring thread: finds maps, feeds and drains the kernel side, runs readers, publishes what it has.
//!
//! Once a second it takes a *slice*: lists the maps, tells the kernel side which of them each probe measures,
//! drains the counts, and moves every probe's sliding window on. It is a plain thread, so that no busy async
//! runtime delays a slice; commands come in and snapshots go out by channels.

mod collector;
mod operations;
mod probe;
mod room;
mod singles;
mod ties;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use maplatency_bpf::layout::MAX_TARGETS;
use maplatency_core::budget::{Budget, Shed, Shedding};
use maplatency_core::callers::CallerRow;
use maplatency_core::cost::Cost;
use maplatency_core::exact::ExactRow;
use maplatency_core::measure::{NodeWindow, Place, Rows, WorstSlice};
use maplatency_core::outliers::Outliers;
use maplatency_core::spikes::Spike;
use maplatency_core::validate::CheckedSpec;
use maplatency_core::vocabulary::MapIdentity;
use tokio::sync::watch;
use tracing::{error, info};

use crate::clock;
use crate::cost::{Meter, SliceCost};
use crate::discover::{DiscoverError, Fate, Maps};
use crate::engine::{Engine, EngineError, HandoverError, LoadError, RunningTier, TierChoice};
use crate::error::chain;
use collector::Collector;
pub use operations::{OperationsFile, OperationsFileError, Written};
use probe::{Epoch, RunningProbe};
use ties::AllTies;

/// Time between two slices.
const SLICE: Duration = Duration::from_secs(1);
/// Commands that may wait. A newer list of probes replaces an older one, so few are needed.
const COMMANDS: usize = 8;

/// One probe to measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeRequest {
    /// The resource's name.
    pub name: String,
    /// The resource's uid; any unique text where there is no cluster.
    pub uid: String,
    /// The generation of its spec.
    pub generation: i64,
    /// The spec.
    pub spec: CheckedSpec,
}

/// What was measured for one probe.
#[derive(Clone, Debug)]
pub struct ProbeSnapshot {
    /// The resource's name.
    pub name: String,
    /// The resource's uid.
    pub uid: String,
    /// The generation that was measured.
    pub generation: i64,
    /// Maps that match now.
    pub maps: Vec<MapIdentity>,
    /// Maps that have gone, or match no more, while their counts are still in the window.
    pub gone: Vec<MapIdentity>,
    /// Counts since the agent began.
    pub cumulative: Rows,
    /// The state with which the window begins.
    pub beginning: Rows,
    /// When that was, on the agent's clock.
    pub beginning_at: Duration,
    /// Counts within the window.
    pub within: Rows,
    /// The most operations that one counted in the window stands for; 1: every one was counted.
    pub sampling: u32,
    /// Time that the window spans so far.
    pub span: Duration,
    /// Each place's worst slice.
    pub worst: BTreeMap<Place, WorstSlice>,
    /// Who called.
    pub callers: Vec<CallerRow>,
    /// Short times in which operations were far slower than in the rest of the window.
    pub spikes: Vec<Spike>,
    /// Slow operations one by one. `None`: none are asked for.
    pub outliers: Option<Outliers>,
    /// Figures of single operations, those of most operations first.
    pub exact: Vec<ExactRow>,
    /// Reads by the agent's pinned readers, as the kernel side counted them.
    pub readers: Rows,
    /// What keeps this probe from measuring all that it asks for.
    pub problems: Vec<String>,
}

/// What was measured for every probe.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// When it was taken, since the agent began.
    pub taken: Duration,
    /// Per probe.
    pub probes: Vec<ProbeSnapshot>,
    /// Operations that could not be recorded, by kind, since the agent began.
    pub losses: BTreeMap<String, u64>,
    /// What the agent costs its host.
    pub cost: Cost,
    /// What it leaves out to stay within its budget.
    pub shed: Vec<Shed>,
    /// What went into the file of single operations. `None`: there is no file, or no probe for it.
    pub written: Option<Written>,
}

impl ProbeSnapshot {
    /// A probe of which nothing was measured.
    pub(crate) fn empty(request: &ProbeRequest, problems: Vec<String>) -> Self {
        Self {
            name: request.name.clone(),
            uid: request.uid.clone(),
            generation: request.generation,
            maps: vec![],
            gone: vec![],
            cumulative: Rows::new(),
            beginning: Rows::new(),
            beginning_at: Duration::ZERO,
            within: Rows::new(),
            sampling: 1,
            span: Duration::ZERO,
            worst: BTreeMap::new(),
            callers: vec![],
            spikes: vec![],
            outliers: None,
            exact: vec![],
            readers: Rows::new(),
            problems,
        }
    }

    /// The same in the words of `core`, for a status.
    pub fn node_window(
        &self,
        node: &str,
        boot_id: &str,
        losses: &BTreeMap<String, u64>,
    ) -> NodeWindow {
        NodeWindow {
            node: node.to_owned(),
            boot_id: boot_id.to_owned(),
            maps: self.maps.clone(),
            gone: self.gone.clone(),
            span: self.span,
            rows: self.within.clone(),
            sampling: self.sampling,
            worst: self.worst.clone(),
            callers: self.callers.clone(),
            spikes: self.spikes.clone(),
            outliers: self.outliers.clone(),
            exact: self.exact.clone(),
            losses: losses.clone(),
        }
    }
}

/// Why measuring ended or did not begin.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// The probes could not be loaded.
    #[error("could not load the probes")]
    Load(#[from] LoadError),
    /// The kernel side could not be fed or drained.
    #[error("could not work with the probes in the kernel")]
    Engine(#[from] EngineError),
    /// The maps could not be listed.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// No thread.
    #[error("could not start the measuring thread")]
    Spawn(#[source] std::io::Error),
    /// The ring buffer of single operations could not be taken back.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// The file of single operations could not be written.
    #[error(transparent)]
    Operations(#[from] OperationsFileError),
    /// The thread ended without a word.
    #[error("the measuring thread ended early")]
    Ended,
}

enum Command {
    Measure(Vec<ProbeRequest>),
    Slice,
    Stop,
}

/// The measuring thread. Measuring ends, and the kernel side goes, when it is dropped.
#[derive(Debug)]
pub struct Monitor {
    tier: RunningTier,
    commands: SyncSender<Command>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    thread: Option<JoinHandle<Result<(), MonitorError>>>,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Measure(probes) => write!(f, "Measure({})", probes.len()),
            Self::Slice => f.write_str("Slice"),
            Self::Stop => f.write_str("Stop"),
        }
    }
}

impl Monitor {
    /// Loads the probes and starts measuring nothing. Returns when the hooks have proved that they work.
    pub fn start(choice: TierChoice) -> Result<Self, MonitorError> {
        Self::start_within(choice, Budget::default())
    }

    /// The same with a budget, to stay within which the agent leaves out what it has to.
    pub fn start_within(choice: TierChoice, budget: Budget) -> Result<Self, MonitorError> {
        Self::start_writing(choice, budget, None)
    }

    /// The same with a file for every operation of probes with the strategy `Direct`.
    pub fn start_writing(
        choice: TierChoice,
        budget: Budget,
        file: Option<OperationsFile>,
    ) -> Result<Self, MonitorError> {
        let (commands, inbox) = sync_channel(COMMANDS);
        let (publish, snapshots) = watch::channel(Arc::new(Snapshot::default()));
        let (ready, is_ready) = sync_channel(1);
        let thread = thread::Builder::new()
            .name("monitor".to_owned())
            .spawn(move || match Engine::load(choice) {
                Ok(engine) => {
                    crate::process::trim_heap();
                    let tier = engine.tier().clone();
                    // Fails only when the starter has gone; the inbox says the same.
                    let _ = ready.send(Ok(tier));
                    Measuring::new(engine, publish, budget, file).run(&inbox)
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                    Ok(())
                }
            })
            .map_err(MonitorError::Spawn)?;
        let tier = is_ready.recv().map_err(|_| MonitorError::Ended)??;
        Ok(Self {
            tier,
            commands,
            snapshots,
            thread: Some(thread),
        })
    }

    /// The hooks that run.
    pub fn tier(&self) -> &RunningTier {
        &self.tier
    }

    /// Sets what is measured. Probes that run already in the same generation go on undisturbed.
    pub fn measure(&self, probes: Vec<ProbeRequest>) -> Result<(), MonitorError> {
        self.commands
            .send(Command::Measure(probes))
            .map_err(|_| MonitorError::Ended)
    }

    /// Takes a slice now, so that nothing is missed when [`Self::stop`] follows.
    pub fn slice(&self) -> Result<(), MonitorError> {
        self.commands
            .send(Command::Slice)
            .map_err(|_| MonitorError::Ended)
    }

    /// What was measured; changes with every slice.
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// Ends measuring, and says why if it had ended already.
    pub fn stop(mut self) -> Result<(), MonitorError> {
        self.finish().unwrap_or(Ok(()))
    }

    fn finish(&mut self) -> Option<Result<(), MonitorError>> {
        // Fails when the thread has ended, which is what is wanted.
        let _ = self.commands.send(Command::Stop);
        let thread = self.thread.take()?;
        Some(thread.join().unwrap_or(Err(MonitorError::Ended)))
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        if let Some(Err(problem)) = self.finish() {
            error!(error = chain(&problem), "Measuring had ended");
        }
    }
}

/// What the measuring thread works with.
struct Measuring {
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
    fn new(
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

    fn run(mut self, inbox: &Receiver<Command>) -> Result<(), MonitorError> {
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
