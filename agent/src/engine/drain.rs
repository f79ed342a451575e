//! Reads the blocks of buckets and adds them up.
//!
//! The kernel's counts are 32 bits wide and wrap. What is added is their difference to the last reading, so the
//! sums are right as long as one bucket gains less than 2^32 between two readings.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};

use maplatency_bpf::layout::{Block, BlockKey, INSTANCE_READER};
use maplatency_bpf::sys;
use maplatency_core::histogram::{BLOCK, Histogram};
use maplatency_core::measure::{Counts, Rows, SeriesKey};
use maplatency_core::vocabulary::Operation;

use super::{Drained, EngineError, Instance};

const KEY_BYTES: usize = size_of::<BlockKey>();
const VALUE_BYTES: usize = size_of::<Block>();
/// Blocks per system call; larger than any bucket of the kernel's hash is likely to be.
const BATCH: usize = 256;

/// The map of blocks, and what was read from it.
pub(super) struct Blocks {
    map: sys::Map,
    last: HashMap<BlockKey, Block>,
    callers: BTreeMap<Instance, Rows>,
    readers: BTreeMap<Instance, Rows>,
}

impl Blocks {
    pub(super) fn new(map: sys::Map) -> Self {
        Self {
            map,
            last: HashMap::new(),
            callers: BTreeMap::new(),
            readers: BTreeMap::new(),
        }
    }

    /// Adds what was counted since the last time, and gives everything since the beginning.
    pub(super) fn drain(&mut self) -> Result<Drained, EngineError> {
        for (key, block) in read_all(&self.map).map_err(|source| EngineError::Read {
            map: "blocks",
            source: source.into(),
        })? {
            let before = self.last.insert(key, block).unwrap_or(Block::EMPTY);
            let Some(operation) = Operation::from_command(u32::from(key.command)) else {
                continue;
            };
            let series = SeriesKey {
                map_id: key.map_id,
                operation,
                cpu: u32::from(key.cpu),
            };
            let side = if key.instance & INSTANCE_READER == 0 {
                &mut self.callers
            } else {
                &mut self.readers
            };
            let counts: &mut Counts = side
                .entry(Instance(key.instance & !INSTANCE_READER))
                .or_default()
                .entry(series)
                .or_default();
            let first = u16::from(key.block) * BLOCK;
            add(
                &mut counts.kernel_window,
                first,
                &block.kernel_window,
                &before.kernel_window,
            );
            add(
                &mut counts.until_user,
                first,
                &block.until_user,
                &before.until_user,
            );
        }
        Ok(Drained {
            rows: self.callers.clone(),
            readers: self.readers.clone(),
            losses: BTreeMap::new(),
        })
    }

    pub(super) fn forget_instance(&mut self, instance: Instance) -> Result<(), EngineError> {
        self.callers.remove(&instance);
        self.readers.remove(&instance);
        self.forget(|key| Instance(key.instance & !INSTANCE_READER) == instance)
    }

    pub(super) fn forget_maps(&mut self, gone: &BTreeSet<u32>) -> Result<(), EngineError> {
        for rows in self.callers.values_mut().chain(self.readers.values_mut()) {
            rows.retain(|key, _| !gone.contains(&key.map_id));
        }
        self.forget(|key| gone.contains(&key.map_id))
    }

    fn forget(&mut self, is_over: impl Fn(&BlockKey) -> bool) -> Result<(), EngineError> {
        let over: Vec<BlockKey> = self.last.keys().copied().filter(|it| is_over(it)).collect();
        for key in over {
            self.map
                .delete(&key.to_bytes())
                .map_err(|source| EngineError::Read {
                    map: "blocks",
                    source: source.into(),
                })?;
            self.last.remove(&key);
        }
        Ok(())
    }
}

fn add(histogram: &mut Histogram, first: u16, now: &[u32], before: &[u32]) {
    for (bucket, (now, before)) in (first..).zip(now.iter().zip(before)) {
        histogram.add(bucket, u64::from(now.wrapping_sub(*before)));
    }
}

fn read_all(map: &sys::Map) -> sys::Result<Vec<(BlockKey, Block)>> {
    let mut all = Vec::new();
    let mut cursor = map.batch_cursor();
    let mut size = BATCH;
    let mut keys = vec![0; size * KEY_BYTES];
    let mut values = vec![0; size * VALUE_BYTES];
    loop {
        match map.lookup_batch(&mut cursor, &mut keys, &mut values) {
            Ok(batch) => {
                let read = keys
                    .chunks_exact(KEY_BYTES)
                    .zip(values.chunks_exact(VALUE_BYTES))
                    .take(batch.count);
                all.extend(read.filter_map(|(key, value)| {
                    Some((
                        BlockKey::from_bytes(key.try_into().ok()?),
                        Block::from_bytes(value.try_into().ok()?),
                    ))
                }));
                if !batch.more {
                    return Ok(all);
                }
            }
            // One of the kernel's buckets holds more than the buffers.
            Err(error) if error.errno() == Some(libc::ENOSPC) => {
                size *= 2;
                keys.resize(size * KEY_BYTES, 0);
                values.resize(size * VALUE_BYTES, 0);
            }
            Err(error) => return Err(error),
        }
    }
}

/// How often the kernel did not run a hook, because another one was running on that CPU.
///
/// The kernel tells it in `/proc/self/fdinfo` from 5.12 on; before, it is unknown and counts as none.
pub(super) fn recursion_misses(program: &OwnedFd) -> u64 {
    fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd()))
        .ok()
        .and_then(|text| {
            let line = text
                .lines()
                .find_map(|it| it.strip_prefix("recursion_misses:"))?;
            line.trim().parse().ok()
        })
        .unwrap_or(0)
}
