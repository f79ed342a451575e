//! Reads the blocks of buckets and adds them up.
//!
//! The kernel's counts are 32 bits wide and wrap. What is added is their difference to the last reading, so the
//! sums are right as long as one bucket gains less than 2^32 between two readings.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};

use aya::maps::{MapData, Queue};
use maplatency_bpf::layout::{Block, BlockKey, INSTANCE_READER, Span};
use maplatency_bpf::sys::{self, UpdateFlags};
use maplatency_core::callers::{CallerRows, CallerSeries};
use maplatency_core::exact::MapOperation;
use maplatency_core::histogram::{BLOCK, Histogram};
use maplatency_core::measure::{Counts, Place, Rows, SeriesKey};
use maplatency_core::vocabulary::{Operation, Outcome};

use super::callers::Callers;
use super::{Drained, EngineError, Instance};

const KEY_BYTES: usize = BlockKey::BYTES;
const INDEX_BYTES: usize = size_of::<u32>();
/// Keys per system call; larger than any bucket of the kernel's hash is likely to be.
const BATCH: usize = 256;

/// When the operations of a slice began and ended, by place and block of buckets.
pub type Spans = BTreeMap<Place, BTreeMap<u16, Span>>;

/// The blocks of buckets, and what was read from them.
pub(super) struct Blocks {
    /// Which block counts what.
    block_of: sys::Map,
    contents: sys::Map,
    free: Queue<MapData, u32>,
    last: HashMap<BlockKey, Block>,
    /// Blocks that were let go since the last drain, when an operation may still be about to count in one.
    resting: Vec<u32>,
    callers: BTreeMap<Instance, Rows>,
    readers: BTreeMap<Instance, Rows>,
    /// Operations that were not handed over since the probe began.
    missed: BTreeMap<Instance, BTreeMap<MapOperation, u64>>,
}

impl Blocks {
    pub(super) fn new(block_of: sys::Map, contents: sys::Map, free: Queue<MapData, u32>) -> Self {
        Self {
            block_of,
            contents,
            free,
            last: HashMap::new(),
            resting: Vec::new(),
            callers: BTreeMap::new(),
            readers: BTreeMap::new(),
            missed: BTreeMap::new(),
        }
    }

    /// Adds what was counted since the last time, and gives everything since the beginning, and when things happened
    /// in `slice`, which is over. Lets go of what is not shown, and tells whether there was any; tasks have to forget their
    /// blocks then. What is on maps after `newest_map` waits until they are listed.
    pub(super) fn drain(
        &mut self,
        slice: u32,
        callers: &mut Callers,
        is_shown: impl Fn(Instance, u32) -> bool,
        newest_map: u32,
    ) -> Result<(Drained, bool), EngineError> {
        self.free_rested()?;
        let mut by_caller: BTreeMap<Instance, CallerRows> = BTreeMap::new();
        let mut spans: BTreeMap<Instance, Spans> = BTreeMap::new();
        let mut strangers = false;
        for (key, index) in self.in_use()? {
            let instance = Instance(key.instance & !INSTANCE_READER);
            if !is_shown(instance, key.map_id) {
                if key.map_id <= newest_map {
                    self.let_go(&key, index)?;
                    strangers = true;
                }
                continue;
            }
            let block = self.read(index)?;
            let before = self.last.insert(key, block).unwrap_or(Block::EMPTY);
            let Some(series) = series_of(&key) else {
                continue;
            };
            let side = if key.instance & INSTANCE_READER == 0 {
                // What ended while slices changed is counted in this one.
                let grew = block.until_user != before.until_user;
                let next = || block.span(slice.wrapping_add(1)).filter(|_| grew);
                if let Some(span) = block.span(slice).or_else(next) {
                    let spans = spans.entry(instance).or_default();
                    let blocks = spans.entry(series.place()).or_default();
                    extend(blocks.entry(u16::from(key.block)).or_insert(span), span);
                }
                let missed = block.missed.wrapping_sub(before.missed);
                if missed > 0 {
                    let missed_before = self.missed.entry(instance).or_default();
                    let of_map = (series.map_id, series.operation);
                    *missed_before.entry(of_map).or_default() += u64::from(missed);
                }
                &mut self.callers
            } else {
                &mut self.readers
            };
            let counts = side.entry(instance).or_default();
            let counts = counts.entry(series).or_default();
            add_block(counts, key.block, &block, &before);
            if key.instance & INSTANCE_READER == 0 && block != before {
                let series = CallerSeries {
                    map_id: series.map_id,
                    caller: callers.identity(key.caller)?,
                    operation: series.operation,
                };
                let counts = by_caller.entry(instance).or_default();
                let counts = counts.entry(series).or_default();
                add_block(counts, key.block, &block, &before);
            }
        }
        let drained = Drained {
            rows: self.callers.clone(),
            readers: self.readers.clone(),
            missed: self.missed.clone(),
            callers: by_caller,
            spans,
            outliers: BTreeMap::new(),
            losses: BTreeMap::new(),
        };
        Ok((drained, strangers))
    }

    /// Lets go of an instance. Tasks have to forget their blocks afterwards.
    pub(super) fn forget_instance(&mut self, instance: Instance) -> Result<(), EngineError> {
        self.callers.remove(&instance);
        self.readers.remove(&instance);
        self.missed.remove(&instance);
        self.forget(|key| Instance(key.instance & !INSTANCE_READER) == instance)
    }

    /// Lets go of callers. Tasks have to forget their blocks afterwards.
    pub(super) fn forget_callers(&mut self, over: &BTreeSet<u16>) -> Result<(), EngineError> {
        self.forget(|key| over.contains(&key.caller))
    }

    /// How many blocks count something.
    pub(super) fn len(&self) -> usize {
        self.last.len()
    }

    /// Lets go of maps. Tasks have to forget their blocks afterwards.
    pub(super) fn forget_maps(
        &mut self,
        gone: &BTreeSet<(Instance, u32)>,
    ) -> Result<(), EngineError> {
        for (instance, rows) in self.callers.iter_mut().chain(self.readers.iter_mut()) {
            rows.retain(|key, _| !gone.contains(&(*instance, key.map_id)));
        }
        for (instance, missed) in &mut self.missed {
            missed.retain(|(map_id, _), _| !gone.contains(&(*instance, *map_id)));
        }
        self.forget(|key| gone.contains(&(Instance(key.instance & !INSTANCE_READER), key.map_id)))
    }

    fn forget(&mut self, is_over: impl Fn(&BlockKey) -> bool) -> Result<(), EngineError> {
        // The kernel may have taken blocks that no drain has seen yet.
        let over = self.in_use()?.into_iter().filter(|it| is_over(&it.0));
        for (key, index) in over {
            self.let_go(&key, index)?;
        }
        Ok(())
    }

    fn let_go(&mut self, key: &BlockKey, index: u32) -> Result<(), EngineError> {
        let deleted = self.block_of.delete(&key.to_bytes());
        if deleted.map_err(unusable("block_of"))? {
            self.resting.push(index);
        }
        self.last.remove(key);
        Ok(())
    }

    /// Empties the blocks that were let go before the last drain, and gives them back to the kernel side.
    fn free_rested(&mut self) -> Result<(), EngineError> {
        for index in self.resting.drain(..) {
            let empty = [0; size_of::<Block>()];
            self.contents
                .update(&index.to_ne_bytes(), &empty, UpdateFlags::Any)
                .map_err(unusable("blocks"))?;
            self.free
                .push(index, 0)
                .map_err(|source| EngineError::Write {
                    map: "free_blocks",
                    source,
                })?;
        }
        Ok(())
    }

    fn read(&self, index: u32) -> Result<Block, EngineError> {
        let mut bytes = [0; size_of::<Block>()];
        self.contents
            .lookup(&index.to_ne_bytes(), &mut bytes)
            .map_err(unusable("blocks"))?;
        Ok(Block::from_bytes(&bytes))
    }

    fn in_use(&self) -> Result<Vec<(BlockKey, u32)>, EngineError> {
        all_of(&self.block_of).map_err(unusable("block_of"))
    }
}

fn series_of(key: &BlockKey) -> Option<SeriesKey> {
    Some(SeriesKey {
        map_id: key.map_id,
        operation: Operation::from_command(u32::from(key.command))?,
        cpu: u32::from(key.cpu),
        outcome: Outcome::from_number(key.outcome)?,
    })
}

fn extend(span: &mut Span, by: Span) {
    span.first_begin_ns = span.first_begin_ns.min(by.first_begin_ns);
    span.last_end_ns = span.last_end_ns.max(by.last_end_ns);
}

fn unusable(map: &'static str) -> impl Fn(sys::Error) -> EngineError {
    move |source| EngineError::Read {
        map,
        source: source.into(),
    }
}

/// Adds what a block gained.
fn add_block(counts: &mut Counts, number: u8, block: &Block, before: &Block) {
    counts.entries += block.entries.wrapping_sub(before.entries);
    counts.moved += u64::from(block.moved.wrapping_sub(before.moved));
    let first = u16::from(number) * BLOCK;
    let Counts {
        kernel_window,
        until_user,
        ..
    } = counts;
    add(
        kernel_window,
        first,
        &block.kernel_window,
        &before.kernel_window,
    );
    add(until_user, first, &block.until_user, &before.until_user);
}

fn add(histogram: &mut Histogram, first: u16, now: &[u32], before: &[u32]) {
    for (bucket, (now, before)) in (first..).zip(now.iter().zip(before)) {
        histogram.add(bucket, u64::from(now.wrapping_sub(*before)));
    }
}

fn all_of(map: &sys::Map) -> sys::Result<Vec<(BlockKey, u32)>> {
    let mut all = Vec::new();
    let mut cursor = map.batch_cursor();
    let mut size = BATCH;
    let mut keys = vec![0; size * KEY_BYTES];
    let mut values = vec![0; size * INDEX_BYTES];
    loop {
        match map.lookup_batch(&mut cursor, &mut keys, &mut values) {
            Ok(batch) => {
                let read = keys
                    .chunks_exact(KEY_BYTES)
                    .zip(values.chunks_exact(INDEX_BYTES))
                    .take(batch.count);
                all.extend(read.filter_map(|(key, value)| {
                    Some((
                        BlockKey::from_bytes(key.try_into().ok()?),
                        u32::from_ne_bytes(value.try_into().ok()?),
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
                values.resize(size * INDEX_BYTES, 0);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A block as the kernel has it after so many operations in one bucket, each of which moved to another CPU.
    fn block(operations: u64) -> Block {
        let wrapped = (operations & u64::from(u32::MAX)).try_into().unwrap();
        let mut block = Block {
            entries: operations,
            moved: wrapped,
            ..Block::EMPTY
        };
        block.kernel_window[3] = wrapped;
        block.until_user[63] = wrapped;
        block
    }

    #[test]
    fn counts_of_the_kernel_that_wrap_between_two_readings_are_right() {
        // A bucket at a million operations a second, looked at once an hour: 3.6 billion each, of 4.3 that fit.
        const HOUR: u64 = 3_600_000_000;
        let mut counts = Counts::default();
        for hour in 0..24 {
            let (before, now) = (block(hour * HOUR), block((hour + 1) * HOUR));
            add_block(&mut counts, 2, &now, &before);
        }
        let only = |bucket, count| vec![(bucket, count)];
        let of = |it: &Histogram| it.buckets().collect::<Vec<_>>();
        assert_eq!(of(&counts.kernel_window), only(2 * 64 + 3, 24 * HOUR));
        assert_eq!(of(&counts.until_user), only(2 * 64 + 63, 24 * HOUR));
        assert_eq!((counts.entries, counts.moved), (24 * HOUR, 24 * HOUR));
    }

    #[test]
    fn what_one_reading_finds_again_adds_nothing() {
        let mut counts = Counts::default();
        let full = block(u64::from(u32::MAX));
        add_block(&mut counts, 0, &full, &full);
        assert!(counts.is_empty());
        // One more operation, and the counts begin at zero.
        add_block(&mut counts, 0, &block(1 << 32), &full);
        assert_eq!(counts.until_user.count(), 1);
        assert_eq!((counts.entries, counts.moved), (1, 1));
    }
}
