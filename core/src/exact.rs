//! Exact figures: of single operations, none of them rounded to a bucket.
//!
//! A window keeps operations as they were, as far as there is room, and knows of each second how many it did not get. So
//! a figure always says whether it is of all operations.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::histogram::Percentile;
use crate::vocabulary::Operation;

/// Rows that a report tells.
pub const MAX_EXACT_ROWS: usize = 64;
/// Operations that are kept for one probe, 24 bytes each.
pub const MAX_KEPT: usize = 1_000_000;

/// A map, by the kernel's id, and what was done to it.
pub type MapOperation = (u32, Operation);

/// One operation. Times are in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Single {
    /// When it began, on a clock that never steps.
    pub begin: u64,
    /// Entry until back in user mode.
    pub until_user: u64,
    /// Entry to exit of bpf(2).
    pub kernel_window: u64,
}

/// Which operations of the window are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The newest so many of each map and operation.
    Last(usize),
    /// All, as long as there are at most so many.
    All(usize),
}

/// Figures of single operations on one map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExactRow {
    /// The kernel's id of the map.
    pub map_id: u32,
    /// The operation.
    pub operation: Operation,
    /// How many operations the figures are of.
    pub count: u64,
    /// How many they lack, of the same time: those that the kernel side could not hand over.
    pub missed: u64,
    /// How many older ones of the window were let go, since there was no room to keep them all.
    pub let_go: u64,
    /// From the begin of the oldest to the end of the newest.
    pub span: Duration,
    /// Their latencies. `None` if there is no operation.
    pub latencies: Option<Latencies>,
}

/// Both latencies of the same operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latencies {
    /// Entry until back in user mode.
    pub until_user: ExactPercentiles,
    /// Entry to exit of bpf(2).
    pub kernel_window: ExactPercentiles,
}

/// Percentiles by nearest rank, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExactPercentiles {
    /// Median.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p999: u64,
    /// The largest.
    pub max: u64,
}

impl ExactPercentiles {
    /// Of these values, whose order is lost. `None` if there are none.
    pub fn of(values: &mut [u64]) -> Option<Self> {
        let count = values.len();
        let max = values.iter().copied().max()?;
        let at = |percentile: Percentile| {
            let rank = percentile.rank(count as u64);
            usize::try_from(rank).map_or(0, |it| it.saturating_sub(1))
        };
        // From the highest on, each among those below the last one: all together take hardly longer than the first.
        let mut below = values;
        let mut select = |percentile| {
            let at = at(percentile);
            if at >= below.len() {
                return max;
            }
            let value = *below.select_nth_unstable(at).1;
            let rest = std::mem::take(&mut below);
            below = &mut rest[..=at];
            value
        };
        let p999 = select(Percentile::P999);
        let p99 = select(Percentile::P99);
        let p90 = select(Percentile::P90);
        let p50 = select(Percentile::P50);
        Some(Self {
            p50,
            p90,
            p99,
            p999,
            max,
        })
    }
}

/// Keeps single operations of the last seconds.
#[derive(Debug)]
pub struct ExactWindow {
    length: Duration,
    keep: Keep,
    by_map: BTreeMap<MapOperation, Kept>,
    /// Operations that are kept.
    total: usize,
    /// How many each map had missed, since the probe began.
    missed: BTreeMap<MapOperation, u64>,
}

/// A row without its latencies, and what they are to be computed of.
#[derive(Debug)]
pub struct Sample {
    row: ExactRow,
    until_user: Vec<u64>,
    kernel_window: Vec<u64>,
}

/// Operations on one map.
#[derive(Debug, Default)]
struct Kept {
    operations: VecDeque<Single>,
    /// Oldest first; the last one is not over.
    slices: VecDeque<Slice>,
    /// There is no room for its operations.
    is_full: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slice {
    /// When it ended; `None`: it is not over.
    to: Option<Duration>,
    /// Of those that are kept.
    kept: usize,
    missed: u64,
    let_go: u64,
}

impl ExactWindow {
    /// An empty window.
    pub fn new(length: Duration, keep: Keep) -> Self {
        Self {
            length,
            keep,
            by_map: BTreeMap::new(),
            total: 0,
            missed: BTreeMap::new(),
        }
    }

    /// Takes an operation.
    pub fn tell(&mut self, map: MapOperation, single: Single) {
        let kept = self.kept(map);
        if kept.is_full {
            kept.running().missed += 1;
            return;
        }
        kept.running().kept += 1;
        kept.operations.push_back(single);
        let of_map = kept.operations.len();
        self.total += 1;
        match self.keep {
            Keep::Last(most) if of_map > most => {
                self.kept(map).drop_oldest();
                self.total -= 1;
            }
            Keep::All(most) if self.total > most => self.let_oldest_go(),
            Keep::Last(_) | Keep::All(_) => (),
        }
    }

    fn kept(&mut self, map: MapOperation) -> &mut Kept {
        let is_full = match self.keep {
            Keep::Last(most) => (self.by_map.len() + 1) * most > MAX_KEPT,
            Keep::All(_) => false,
        };
        self.by_map.entry(map).or_insert_with(|| Kept {
            is_full,
            ..Kept::default()
        })
    }

    /// Ends a slice at `to`. `missed` tells how many operations were not told since the probe began.
    pub fn advance(&mut self, to: Duration, missed: &BTreeMap<MapOperation, u64>) {
        for (map, now) in missed {
            let before = self.missed.insert(*map, *now).unwrap_or(0);
            let added = now.saturating_sub(before);
            if added > 0 {
                self.kept(*map).running().missed += added;
            }
        }
        let begin = to.saturating_sub(self.length);
        for kept in self.by_map.values_mut() {
            if let Some(slice) = kept.slices.back_mut().filter(|it| it.to.is_none()) {
                slice.to = Some(to);
            }
            let is_over = |it: &Slice| it.to.is_some_and(|it| it <= begin);
            while let Some(old) = kept.slices.pop_front_if(|it| is_over(it)) {
                kept.operations.drain(..old.kept);
                self.total -= old.kept;
            }
        }
        self.by_map.retain(|_, it| !it.slices.is_empty());
        self.give_room();
    }

    /// Those that had no room get what others have left.
    fn give_room(&mut self) {
        let Keep::Last(most) = self.keep else {
            return;
        };
        let with_room = self.by_map.values().filter(|it| !it.is_full).count();
        let room = (MAX_KEPT / most.max(1)).saturating_sub(with_room);
        let without = self.by_map.values_mut().filter(|it| it.is_full);
        for kept in without.take(room) {
            kept.is_full = false;
        }
    }

    /// Lets go of maps.
    pub fn keep_maps(&mut self, is_kept: impl Fn(u32) -> bool) {
        self.missed.retain(|map, _| is_kept(map.0));
        let total = &mut self.total;
        self.by_map.retain(|map, it| {
            let stays = is_kept(map.0);
            if !stays {
                *total -= it.operations.len();
            }
            stays
        });
    }

    /// How many maps and operations have no room.
    pub fn without_room(&self) -> usize {
        self.by_map.values().filter(|it| it.is_full).count()
    }

    /// What the figures are computed of, those of most operations first. Copied, since computing takes far longer.
    pub fn samples(&self) -> Vec<Sample> {
        let mut all: Vec<_> = self.by_map.iter().collect();
        all.sort_by_key(|(_, it)| Reverse((it.operations.len(), it.missed(self.keep))));
        all.truncate(MAX_EXACT_ROWS);
        let sample = |(map, kept): (&MapOperation, &Kept)| kept.sample(*map, self.keep);
        all.into_iter().map(sample).collect()
    }

    fn let_oldest_go(&mut self) {
        let begin = |it: &Kept| it.operations.front().map_or(u64::MAX, |it| it.begin);
        let oldest = self.by_map.values_mut().min_by_key(|it| begin(it));
        if let Some(slice) = oldest.and_then(Kept::drop_oldest) {
            slice.let_go += 1;
        }
        self.total -= 1;
    }
}

impl Kept {
    /// The slice that is not over.
    fn running(&mut self) -> &mut Slice {
        if self.slices.back().is_none_or(|it| it.to.is_some()) {
            self.slices.push_back(Slice::default());
        }
        self.slices.back_mut().expect("there is one now")
    }

    /// Gives the slice that it was of.
    fn drop_oldest(&mut self) -> Option<&mut Slice> {
        self.operations.pop_front()?;
        let slice = self.slices.iter_mut().find(|it| it.kept > 0)?;
        slice.kept -= 1;
        Some(slice)
    }

    /// In the time that the operations are of: of the newest so many, older slices tell nothing.
    fn missed(&self, keep: Keep) -> u64 {
        let is_full = matches!(keep, Keep::Last(most) if self.operations.len() == most);
        let slices = self.slices.iter();
        let within = slices.skip_while(|it| is_full && it.kept == 0);
        within.map(|it| it.missed).sum()
    }

    fn sample(&self, (map_id, operation): MapOperation, keep: Keep) -> Sample {
        let ends = self.operations.front().zip(self.operations.back());
        let span = ends.map_or(0, |(first, last)| {
            let end = last.begin.saturating_add(last.until_user);
            end.saturating_sub(first.begin)
        });
        let row = ExactRow {
            map_id,
            operation,
            count: self.operations.len() as u64,
            missed: self.missed(keep),
            let_go: self.slices.iter().map(|it| it.let_go).sum(),
            span: Duration::from_nanos(span),
            latencies: None,
        };
        Sample {
            row,
            until_user: self.operations.iter().map(|it| it.until_user).collect(),
            kernel_window: self.operations.iter().map(|it| it.kernel_window).collect(),
        }
    }
}

impl Sample {
    /// Computes the percentiles.
    pub fn into_row(self) -> ExactRow {
        let Self {
            row,
            mut until_user,
            mut kernel_window,
        } = self;
        let until_user = ExactPercentiles::of(&mut until_user);
        let both = until_user.zip(ExactPercentiles::of(&mut kernel_window));
        ExactRow {
            latencies: both.map(|(until_user, kernel_window)| Latencies {
                until_user,
                kernel_window,
            }),
            ..row
        }
    }
}

#[cfg(test)]
mod tests;
