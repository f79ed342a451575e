//! Slow operations, one by one: from how long on the kernel side tells them, and what it told.

use std::collections::BTreeMap;
use std::sync::Arc;

use aya::maps::{Array, HashMap, MapData, MapError, RingBuf};
use maplatency_bpf::layout::{MAX_THRESHOLDS, Outlier, OutlierCounts, ThresholdKey};
use maplatency_core::callers::CallerIdentity;
use maplatency_core::vocabulary::Operation;

use super::{EngineError, Instance, ToldOutliers};

/// From how long on operations of a map are outliers, in nanoseconds.
pub type Thresholds = BTreeMap<(u32, Operation), u64>;

pub(super) struct Outliers {
    ring: RingBuf<MapData>,
    counts: Array<MapData, OutlierCounts>,
    thresholds: HashMap<MapData, ThresholdKey, u64>,
    written: BTreeMap<ThresholdKey, u64>,
    /// How many were told so far of maps that turned out to be none of the probe's.
    of_others: BTreeMap<Instance, u64>,
}

impl Outliers {
    pub(super) fn new(
        ring: RingBuf<MapData>,
        counts: Array<MapData, OutlierCounts>,
        thresholds: HashMap<MapData, ThresholdKey, u64>,
    ) -> Self {
        Self {
            ring,
            counts,
            thresholds,
            written: BTreeMap::new(),
            of_others: BTreeMap::new(),
        }
    }

    /// What was told since the last time of the probes that ask for it, which are given with their slots.
    pub(super) fn drain(
        &mut self,
        probes: impl Iterator<Item = (usize, Instance)>,
        is_shown: impl Fn(Instance, u32) -> bool,
        caller: impl Fn(&Outlier) -> Option<Arc<CallerIdentity>>,
    ) -> Result<BTreeMap<Instance, ToldOutliers>, EngineError> {
        // Before the counts are read, so that these have counted them all.
        let records = self.records();
        let mut by_probe: BTreeMap<Instance, ToldOutliers> = BTreeMap::new();
        for (slot, instance) in probes {
            by_probe.entry(instance).or_default().counts = self.counts(slot)?;
        }
        self.of_others.retain(|it, _| by_probe.contains_key(it));
        for record in records {
            let instance = Instance(record.instance);
            // Its probe may have gone.
            let Some(of_probe) = by_probe.get_mut(&instance) else {
                continue;
            };
            if is_shown(instance, record.map_id) {
                let caller = caller(&record);
                of_probe.told.push((record, caller));
            } else {
                *self.of_others.entry(instance).or_default() += 1;
            }
        }
        for (instance, of_probe) in &mut by_probe {
            let of_others = self.of_others.get(instance).copied().unwrap_or(0);
            of_probe.counts.told = of_probe.counts.told.saturating_sub(of_others);
        }
        Ok(by_probe)
    }

    /// At most what the ring buffer holds, however fast more comes.
    fn records(&mut self) -> Vec<Outlier> {
        let most = 256 * 1024 / Outlier::BYTES;
        let mut told = Vec::new();
        while told.len() < most
            && let Some(item) = self.ring.next()
        {
            if let Ok(bytes) = (*item).try_into() {
                told.push(Outlier::from_bytes(bytes));
            }
        }
        told
    }

    /// What was told and what was not, by slot.
    fn counts(&self, slot: usize) -> Result<OutlierCounts, EngineError> {
        let counts = self.counts.get(&super::count(slot), 0);
        counts.map_err(|source| EngineError::Read {
            map: "outlier_counts",
            source: source.into(),
        })
    }

    /// Begins to count anew for another probe in a slot.
    pub(super) fn reset(&mut self, slot: usize) -> Result<(), EngineError> {
        super::set(
            &mut self.counts,
            "outlier_counts",
            slot,
            OutlierCounts::default(),
        )
    }

    /// Sets the thresholds of all probes. They hold from the next slice on.
    pub(super) fn set_thresholds(
        &mut self,
        all: &BTreeMap<Instance, Thresholds>,
    ) -> Result<(), EngineError> {
        let wanted: BTreeMap<ThresholdKey, u64> = all
            .iter()
            .flat_map(|(instance, of_probe)| {
                of_probe.iter().map(|((map_id, operation), threshold)| {
                    let key = ThresholdKey {
                        map_id: *map_id,
                        instance: instance.0,
                        command: operation.command(),
                    };
                    (key, *threshold)
                })
            })
            .take(MAX_THRESHOLDS)
            .collect();
        let unwritable = |source| EngineError::Write {
            map: "thresholds",
            source,
        };
        for key in self.written.keys().filter(|it| !wanted.contains_key(it)) {
            match self.thresholds.remove(key) {
                Ok(()) | Err(MapError::KeyNotFound) => (),
                Err(source) => return Err(unwritable(source)),
            }
        }
        for (key, threshold) in &wanted {
            if self.written.get(key) != Some(threshold) {
                self.thresholds
                    .insert(key, threshold, 0)
                    .map_err(unwritable)?;
            }
        }
        self.written = wanted;
        Ok(())
    }
}
