//! Slow operations, one by one: from how long on the kernel side tells them, and what it told.

use std::collections::BTreeMap;

use aya::maps::{Array, HashMap, MapData, MapError, RingBuf};
use maplatency_bpf::layout::{MAX_THRESHOLDS, Outlier, OutlierCounts, ThresholdKey};
use maplatency_core::vocabulary::Operation;

use super::{EngineError, Instance};

/// From how long on operations of a map are outliers, in nanoseconds.
pub type Thresholds = BTreeMap<(u32, Operation), u64>;

pub(super) struct Outliers {
    ring: RingBuf<MapData>,
    counts: Array<MapData, OutlierCounts>,
    thresholds: HashMap<MapData, ThresholdKey, u64>,
    written: BTreeMap<ThresholdKey, u64>,
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
        }
    }

    /// Everything that was told since the last time. At most what the ring buffer holds, however fast more comes.
    pub(super) fn drain(&mut self) -> Vec<Outlier> {
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
    pub(super) fn counts(&self, slot: usize) -> Result<OutlierCounts, EngineError> {
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
