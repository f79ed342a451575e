//! The probes in the kernel: loaded, fed with what to measure, and drained.
//!
//! One [`Engine`] serves every probe of the agent with one set of hooks. Nothing is pinned: when the engine is
//! dropped, or the process dies however it dies, the kernel frees programs, maps and links.

mod callers;
mod calls;
mod drain;
mod handover;
mod holders;
mod load;
mod load_error;
mod objects;
mod outliers;
mod parts;
mod preemption;
mod slots;
mod tier;
mod tracefs;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData, PerCpuArray};
use maplatency_bpf::layout::{
    Config, Glob, Loss, MAX_GLOBS, MAX_PROBES, Newcomer, OperationRecord, Outlier, OutlierCounts,
    Probe, Role, Target,
};
use maplatency_core::budget::Detail;
use maplatency_core::callers::{CallerIdentity, CallerRows};
use maplatency_core::exact::MapOperation;
use maplatency_core::measure::Rows;
use maplatency_core::validate::{CheckedSpec, OutlierPlan};
use maplatency_core::vocabulary::{MapIdentity, MapType};

pub use drain::Spans;
pub use handover::{HandoverError, OperationRing};
pub use holders::{Holders, HoldersError};
pub use load_error::LoadError;
pub use objects::Objects;
pub use outliers::Thresholds;
use slots::Slots;
pub use tier::{Refusal, RunningTier, TierChoice};

/// How many slow operations are told one by one, and how many while the agent leaves some out.
const OUTLIERS_PER_SECOND: u32 = u32::MAX;
const FEWER_OUTLIERS_PER_SECOND: u32 = 10;

/// Why the engine could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// More probes than the kernel side has room for.
    #[error("a node measures at most {MAX_PROBES} probes at once")]
    TooManyProbes,
    /// A map of the engine's own could not be written.
    #[error("could not write the BPF map {map}")]
    Write {
        /// Which map.
        map: &'static str,
        /// Why.
        source: aya::maps::MapError,
    },
    /// A map of the engine's own could not be read.
    #[error("could not read the BPF map {map}")]
    Read {
        /// Which map.
        map: &'static str,
        /// Why.
        source: ReadError,
    },
    /// A thread could not be made known to the kernel side.
    #[error("could not tell the kernel side what this thread does")]
    Role(#[source] std::io::Error),
}

/// The two ways to read a map.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Through aya.
    #[error(transparent)]
    Aya(#[from] aya::maps::MapError),
    /// By bpf(2).
    #[error(transparent)]
    Sys(#[from] maplatency_bpf::sys::Error),
}

/// Names one probe in the kernel. Never given twice in the life of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance(u32);

impl Instance {
    /// That of the probe for which an operation was handed over.
    pub fn of(record: &OperationRecord) -> Self {
        Self(record.instance)
    }
}

/// What the kernel counted since the agent began.
#[derive(Clone, Debug, Default)]
pub struct Drained {
    /// Callers' operations, by probe.
    pub rows: BTreeMap<Instance, Rows>,
    /// Reads by the agent's own readers as the kernel side saw them, by probe.
    pub readers: BTreeMap<Instance, Rows>,
    /// Operations that were not handed over, though the probe wants single ones, by probe.
    pub missed: BTreeMap<Instance, BTreeMap<MapOperation, u64>>,
    /// What callers added since the last drain, by probe.
    pub callers: BTreeMap<Instance, CallerRows>,
    /// When callers' operations of the last slice began and ended, by probe.
    pub spans: BTreeMap<Instance, Spans>,
    /// Slow operations that were told one by one since the last drain, by probe.
    pub outliers: BTreeMap<Instance, ToldOutliers>,
    /// Operations that could not be recorded, by kind.
    pub losses: BTreeMap<String, u64>,
}

/// Slow operations of one probe.
#[derive(Clone, Debug, Default)]
pub struct ToldOutliers {
    /// Those told since the last drain, each with its caller if that is told apart.
    pub told: Vec<(Outlier, Option<Arc<CallerIdentity>>)>,
    /// How many there were since the probe began.
    pub counts: OutlierCounts,
}

/// The loaded probes.
pub struct Engine {
    tier: RunningTier,
    config: Array<MapData, Config>,
    targets: HashMap<MapData, u32, Target>,
    newcomers: HashMap<MapData, u32, Newcomer>,
    probes: Array<MapData, Probe>,
    globs: Array<MapData, Glob>,
    losses: PerCpuArray<MapData, u64>,
    blocks: drain::Blocks,
    callers: callers::Callers,
    outliers: outliers::Outliers,
    handover: handover::Handover,
    callers_generation: u32,
    detail: Detail,
    slots: Slots,
    slice: u32,
    wanted: BTreeMap<u32, u32>,
    newest_map: u32,
    hooks: Vec<OwnedFd>,
    role: OwnedFd,
    own_maps: BTreeSet<u32>,
    by_identity: u32,
    holders: holders::Lister,
    // Holds programs and links; dropping it detaches.
    ebpf: Ebpf,
}

impl Engine {
    /// The tier that runs.
    pub fn tier(&self) -> &RunningTier {
        &self.tier
    }

    /// Adds a probe. It counts from now on, on no map yet.
    pub fn add(&mut self, spec: &CheckedSpec) -> Result<Instance, EngineError> {
        let slot = self.slots.take().ok_or(EngineError::TooManyProbes)?;
        let first = slot.index * 2 * MAX_GLOBS;
        let lists = [
            (first, &spec.callers.commands),
            (first + MAX_GLOBS, &spec.callers.exclude),
        ];
        for (first, patterns) in lists {
            for (index, pattern) in (first..first + MAX_GLOBS).zip(patterns) {
                let (accepts, skips, accepting) = pattern.automaton();
                let glob = Glob {
                    accepts: *accepts,
                    skips,
                    accepting,
                };
                set(&mut self.globs, "globs", index, glob)?;
            }
        }
        let probe = Probe {
            since_ns: crate::clock::monotonic_nanoseconds(),
            instance: slot.instance.0,
            commands: spec
                .operations
                .iter()
                .fold(0, |mask, it| mask | 1 << it.command()),
            includes: count(spec.callers.commands.len()),
            excludes: count(spec.callers.exclude.len()),
            outlier_ns: spec
                .outliers
                .as_ref()
                .map_or(0, OutlierPlan::fixed_nanoseconds),
            outliers_per_slice: spec.outliers.as_ref().map_or(0, |it| it.per_second),
            sampling: spec.aggregation.sampling(),
            hands_over: spec.aggregation.keeps().is_some().into(),
            unused: 0,
        };
        self.outliers.reset(slot.index)?;
        set(&mut self.probes, "probes", slot.index, probe)?;
        if spec.matches_by_identity() {
            self.by_identity |= 1 << slot.index;
        }
        self.slots.put(slot, probe);
        self.configure()?;
        Ok(slot.instance)
    }

    /// Removes a probe and what was counted for it.
    pub fn remove(&mut self, instance: Instance) -> Result<(), EngineError> {
        let Some(slot) = self.slots.release(instance) else {
            return Ok(());
        };
        // An operation under way finds that the slot wants nothing any more.
        set(&mut self.probes, "probes", slot.index, Probe::default())?;
        self.by_identity &= !(1 << slot.index);
        self.blocks.forget_instance(instance)?;
        self.configure()
    }

    /// Sets which maps each probe measures, [`MAX_TARGETS`](maplatency_bpf::layout::MAX_TARGETS) at most together, of those
    /// with ids up to `newest_map`. Later ones are newcomers. Returns once
    /// the kernel side goes by it.
    pub fn set_targets(
        &mut self,
        maps: &BTreeMap<Instance, BTreeSet<u32>>,
        newest_map: u32,
    ) -> Result<(), EngineError> {
        let mut wanted: BTreeMap<u32, u32> = BTreeMap::new();
        for (instance, ids) in maps {
            let Some(slot) = self.slots.slot_of(*instance) else {
                continue;
            };
            for id in ids {
                *wanted.entry(*id).or_default() |= 1 << slot.index;
            }
        }
        // First, since they leave their room to others.
        for id in self.wanted.keys().filter(|it| !wanted.contains_key(it)) {
            removed("targets", self.targets.remove(id))?;
        }
        for (id, probes) in &wanted {
            if self.wanted.get(id) != Some(probes) {
                self.targets
                    .insert(id, Target { probes: *probes }, 0)
                    .map_err(|source| EngineError::Write {
                        map: "targets",
                        source,
                    })?;
            }
        }
        if self.wanted == wanted && self.newest_map == newest_map {
            return Ok(());
        }
        self.wanted = wanted;
        self.newest_map = newest_map;
        self.configure()
    }

    /// Whether a map is measured by any probe.
    pub fn is_target(&self, map_id: u32) -> bool {
        self.wanted.contains_key(&map_id)
    }

    /// Maps that had operations before they were listed.
    pub fn newcomers(&self) -> Result<Vec<MapIdentity>, EngineError> {
        let entries: Result<Vec<_>, _> = self.newcomers.iter().collect();
        let entries = entries.map_err(|source| EngineError::Read {
            map: "newcomers",
            source: source.into(),
        })?;
        let identity = |(id, newcomer): (u32, Newcomer)| MapIdentity {
            id,
            name: newcomer.name(),
            map_type: MapType::from_number(newcomer.map_type),
        };
        Ok(entries.into_iter().map(identity).collect())
    }

    /// Makes room for other newcomers.
    pub fn forget_newcomer(&mut self, id: u32) -> Result<(), EngineError> {
        removed("newcomers", self.newcomers.remove(&id))
    }

    /// Ids of the maps that the probes themselves use. Nobody but the agent reads them.
    pub fn own_maps(&self) -> &BTreeSet<u32> {
        &self.own_maps
    }

    /// Reads everything counted so far on the maps that are shown, and lets go of the rest: until a newcomer is listed,
    /// all probes count it.
    pub fn drain(
        &mut self,
        shown: &BTreeMap<Instance, BTreeSet<u32>>,
    ) -> Result<Drained, EngineError> {
        let over = self.slice;
        self.slice = self.slice.wrapping_add(1);
        let config = self.configuration()?;
        self.set_configuration(config)?;
        let is_shown = |instance, id| shown.get(&instance).is_some_and(|ids| ids.contains(&id));
        let (mut drained, strangers) =
            self.blocks
                .drain(over, &mut self.callers, is_shown, self.newest_map)?;
        let probes = self.slots.in_use().filter(|(_, it)| it.outlier_ns > 0);
        let probes = probes.map(|(slot, it)| (slot, Instance(it.instance)));
        drained.outliers = self
            .outliers
            .drain(probes, is_shown, |it| self.callers.known(it.caller, it.pid))?;
        let (forgotten, renumbered) = self.callers.end_drain(self.blocks.len())?;
        self.callers_generation += u32::from(renumbered);
        if !forgotten.is_empty() {
            self.blocks.forget_callers(&forgotten)?;
        }
        if renumbered || strangers || !forgotten.is_empty() {
            self.configure()?;
        }
        drained.losses = self.losses()?;
        Ok(drained)
    }

    /// Sets from how long on operations are outliers, for probes that fix no threshold. Holds from the next drain on.
    pub fn set_thresholds(
        &mut self,
        thresholds: &BTreeMap<Instance, Thresholds>,
    ) -> Result<(), EngineError> {
        self.outliers.set_thresholds(thresholds)
    }

    /// Lets go of what probes counted on maps that are gone.
    pub fn forget_maps(&mut self, gone: &BTreeSet<(Instance, u32)>) -> Result<(), EngineError> {
        if gone.is_empty() {
            return Ok(());
        }
        self.blocks.forget_maps(gone)?;
        self.configure()
    }

    /// Sets in how much detail is measured from now on.
    pub fn set_detail(&mut self, detail: Detail) -> Result<(), EngineError> {
        if self.detail.coarser_callers != detail.coarser_callers {
            self.callers.set_coarser(detail.coarser_callers);
            self.callers_generation += 1;
        }
        self.detail = detail;
        self.configure()
    }

    /// Makes the ring buffer of single operations. Probes that want them are to be added after it was made.
    pub fn open_ring(&mut self) -> Result<OperationRing, HandoverError> {
        self.handover.open()
    }

    /// Hands nothing over any more, and counts nothing as missed. What is counted is.
    pub fn stop_handing_over(&mut self) -> Result<(), EngineError> {
        for (index, probe) in self.slots.in_use_mut() {
            probe.hands_over = 0;
            set(&mut self.probes, "probes", index, *probe)?;
        }
        Ok(())
    }

    /// The highest id of a map that the kernel side takes as listed.
    pub fn newest_map(&self) -> u32 {
        self.newest_map
    }

    /// Takes it back from the kernel side. From then on nothing comes into it.
    pub fn close_ring(&mut self) -> Result<(), HandoverError> {
        self.handover.close()
    }

    /// What a thread needs to make itself a reader, whose operations are kept apart from other callers'.
    pub fn reader_pass(&self) -> Result<ReaderPass, EngineError> {
        self.role
            .try_clone()
            .map(ReaderPass)
            .map_err(EngineError::Role)
    }

    fn losses(&self) -> Result<BTreeMap<String, u64>, EngineError> {
        let mut losses = BTreeMap::new();
        for kind in Loss::ALL {
            let counts =
                self.losses
                    .get(&(kind as u32), 0)
                    .map_err(|source| EngineError::Read {
                        map: "losses",
                        source: source.into(),
                    })?;
            losses.insert(kind.as_str().to_owned(), counts.iter().sum());
        }
        let skipped = self.hooks.iter().map(drain::recursion_misses).sum();
        losses.insert("HookSkipped".to_owned(), skipped);
        Ok(losses)
    }

    /// Tells the kernel side what all probes together want, and tasks to forget what they remember.
    fn configure(&mut self) -> Result<(), EngineError> {
        let mut config = self.configuration()?;
        config.commands = 0;
        config.filtered_probes = 0;
        config.outlier_probes = 0;
        config.newcomer_probes = self.by_identity;
        config.newest_map = self.newest_map;
        config.sampling = self.sampling();
        config.coarser_callers = self.detail.coarser_callers.into();
        config.hold_back = self.detail.fewer_outliers.into();
        config.outliers_per_second = if self.detail.fewer_outliers {
            FEWER_OUTLIERS_PER_SECOND
        } else {
            OUTLIERS_PER_SECOND
        };
        config.generation += 1;
        for (index, probe) in self.slots.in_use() {
            config.commands |= probe.commands;
            if probe.includes + probe.excludes > 0 {
                config.filtered_probes |= 1 << index;
            }
            if probe.outlier_ns > 0 {
                config.outlier_probes |= 1 << index;
            }
        }
        self.set_configuration(config)
    }

    /// From how many operations one is chosen at its entry. A probe that wants fewer thins them out further.
    pub fn sampling(&self) -> u32 {
        let probes = self.slots.in_use();
        let asked = probes.map(|(_, it)| it.sampling).min().unwrap_or(1);
        asked.max(self.detail.one_in)
    }

    fn configuration(&self) -> Result<Config, EngineError> {
        self.config.get(&0, 0).map_err(|source| EngineError::Read {
            map: "config",
            source: source.into(),
        })
    }

    fn set_configuration(&mut self, config: Config) -> Result<(), EngineError> {
        let config = Config {
            slice: self.slice,
            callers_generation: self.callers_generation,
            ..config
        };
        set(&mut self.config, "config", 0, config)
    }
}

/// Lets a thread declare itself a reader.
#[derive(Debug)]
pub struct ReaderPass(OwnedFd);

impl ReaderPass {
    /// Another one, for another thread.
    pub fn try_clone(&self) -> std::io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Declares the calling thread a reader.
    pub fn declare(&self) -> std::io::Result<()> {
        load::take_role(self.0.as_fd(), Role::Reader)
    }
}

/// What is not there need not be removed.
fn removed(map: &'static str, answer: Result<(), aya::maps::MapError>) -> Result<(), EngineError> {
    match answer {
        Ok(()) | Err(aya::maps::MapError::KeyNotFound) => Ok(()),
        Err(source) => Err(EngineError::Write { map, source }),
    }
}

fn set<T: aya::Pod>(
    map: &mut Array<MapData, T>,
    name: &'static str,
    index: usize,
    value: T,
) -> Result<(), EngineError> {
    map.set(count(index), value, 0)
        .map_err(|source| EngineError::Write { map: name, source })
}

fn count(n: usize) -> u32 {
    u32::try_from(n).expect("slots, patterns and probes are few")
}
