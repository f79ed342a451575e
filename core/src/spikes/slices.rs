//! The seconds of one map, operation and CPU, and those of them in which far more was lost than in the others.
//!
//! A spike over the end of a slice counts as if it had been in one of both alone; else one that begins late in every fourth
//! second would make half of all seconds slow, and so the usual.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{GAP, Span, is_dense, median_of};
use crate::histogram::{BLOCK, Histogram};
use crate::measure::{SLOW_FACTOR, time_lost};

/// A spike lost at least this in a slice, even one of those that come at regular times.
const LOST_REGULARLY: Duration = Duration::from_millis(1);
/// Beyond this an operation is long. Interrupts take a tenth of it, and whoever takes a CPU away ten times as much.
const LONG: Duration = Duration::from_micros(100);
/// By how many times the median distance from the median a slice has to stand out. By half of the median it has to, too.
const DISTANCES: u64 = 8;

/// The slices of one place, from the oldest to the newest.
#[derive(Clone, Debug, Default)]
pub(super) struct Slices(VecDeque<Slice>);

/// One slice of one place.
#[derive(Clone, Debug)]
struct Slice {
    to: Duration,
    lost: Lost,
    /// The operations in which most of it was lost, where it was enough for a spike.
    slow: Option<Slow>,
}

/// Time lost in a slice, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lost {
    /// To slow operations.
    pub(super) all: u64,
    /// To those of them that were long.
    long: u64,
}

impl Slices {
    /// Takes what was counted in a slice that ended at `to`, of which the median is `median` otherwise.
    pub(super) fn add(
        &mut self,
        to: Duration,
        until_user: &Histogram,
        spans: Option<&BTreeMap<u16, Span>>,
        median: u64,
    ) {
        let lost = Lost::of(until_user, median);
        let enough = u128::from(lost.all) >= LOST_REGULARLY.as_nanos();
        let slow = spans.filter(|_| enough).and_then(|spans| {
            let beyond = lost.beyond(Lost::usual(&joined(&self.0)).0);
            slow_part(until_user, spans, median, beyond)
        });
        self.0.push_back(Slice { to, lost, slow });
    }

    /// Lets go of slices that ended before `begin`.
    pub(super) fn expire(&mut self, begin: Duration) {
        while self.0.front().is_some_and(|it| it.to <= begin) {
            self.0.pop_front();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// What is slow in those that stand out.
    pub(super) fn apart(&self) -> Vec<&Slow> {
        if self.0.iter().all(|it| it.slow.is_none()) {
            return vec![];
        }
        let slices = joined(&self.0);
        let (usual, distance) = Lost::usual(&slices);
        let apart = slices
            .into_iter()
            .filter(|it| it.lost.stands_out(usual, distance));
        apart.flat_map(|it| it.slow).flatten().collect()
    }
}

impl Lost {
    fn of(until_user: &Histogram, median: u64) -> Self {
        let all = time_lost(until_user, median);
        let long = u64::try_from(LONG.as_nanos()).unwrap_or(u64::MAX);
        let long = until_user.excess(median, long.max(median.saturating_mul(SLOW_FACTOR)));
        Self { all, long }
    }

    /// The median of each sum, and of how far each is from it.
    fn usual(slices: &[Joined<'_>]) -> (Self, Self) {
        let median =
            |of: &dyn Fn(&Self) -> u64| median_of(slices.iter().map(|it| of(&it.lost)).collect());
        let usual = Self {
            all: median(&|it| it.all),
            long: median(&|it| it.long),
        };
        let distance = Self {
            all: median(&|it| it.all.abs_diff(usual.all)),
            long: median(&|it| it.long.abs_diff(usual.long)),
        };
        (usual, distance)
    }

    fn plus(self, other: Self) -> Self {
        Self {
            all: self.all.saturating_add(other.all),
            long: self.long.saturating_add(other.long),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            all: self.all.saturating_sub(other.all),
            long: self.long.saturating_sub(other.long),
        }
    }

    /// By how much it is more than the usual: the long operations alone if most of it is theirs, as all would let a second
    /// with many interrupts stretch the spike over all of it.
    fn beyond(self, usual: Self) -> u64 {
        let Self { all, long } = self.minus(usual);
        if long.saturating_mul(3) >= all.saturating_mul(2) {
            long
        } else {
            all
        }
    }

    fn stands_out(self, usual: Self, distance: Self) -> bool {
        let stands_out = |lost: u64, usual: u64, distance: u64| {
            lost > usual.saturating_add(distance.saturating_mul(DISTANCES))
                && lost > usual.saturating_add(usual / 2)
        };
        stands_out(self.all, usual.all, distance.all)
            || stands_out(self.long, usual.long, distance.long)
    }
}

/// The slowest operations of a slice.
#[derive(Clone, Debug)]
pub(super) struct Slow {
    /// Of the first one.
    pub(super) begin: Duration,
    /// Of the last one.
    pub(super) end: Duration,
    /// What was lost to them.
    pub(super) lost: Lost,
    pub(super) times: Histogram,
}

/// A slice without what the one beside it took over, and with what it took over itself.
#[derive(Debug)]
struct Joined<'a> {
    lost: Lost,
    slow: [Option<&'a Slow>; 2],
}

/// The slices, each spike over the end of one of them in that of both in which it lost more. A longer one than a slice stays
/// where it is.
fn joined(slices: &VecDeque<Slice>) -> Vec<Joined<'_>> {
    let as_is = slices.iter().map(|it| Joined {
        lost: it.lost,
        slow: [it.slow.as_ref(), None],
    });
    let mut joined: Vec<Joined<'_>> = as_is.collect();
    let pairs = slices.iter().zip(slices.iter().skip(1)).enumerate();
    let mut free = 0;
    for (at, (before, after)) in pairs {
        let Some((first, second)) = before.slow.as_ref().zip(after.slow.as_ref()) else {
            continue;
        };
        let lasts = second.end.saturating_sub(first.begin);
        let is_one = second.begin <= first.end + GAP
            && lasts <= after.to.saturating_sub(before.to)
            && is_dense(first.lost.plus(second.lost).all, lasts);
        if at < free || !is_one {
            continue;
        }
        let (to, from, part) = if first.lost.all > second.lost.all {
            (at, at + 1, second.lost)
        } else {
            (at + 1, at, first.lost)
        };
        joined[from].lost = joined[from].lost.minus(part);
        joined[from].slow = [None; 2];
        joined[to].lost = joined[to].lost.plus(part);
        joined[to].slow = [Some(first), Some(second)];
        // What is one spike now is not a part of another.
        free = at + 2;
    }
    joined
}

/// The blocks of the slowest operations that together make up most of the time that was lost beyond the usual. More
/// would stretch the spike to every interrupt of its second. If even these do so, half of that time has to be theirs.
fn slow_part(
    until_user: &Histogram,
    spans: &BTreeMap<u16, Span>,
    median: u64,
    beyond: u64,
) -> Option<Slow> {
    if beyond == 0 {
        return None;
    }
    let mut slow = Slow {
        begin: Duration::MAX,
        end: Duration::ZERO,
        lost: Lost { all: 0, long: 0 },
        times: Histogram::new(),
    };
    let mut half = None;
    for (block, span) in spans.iter().rev() {
        let mut of_block = until_user
            .buckets()
            .filter(|it| it.0 / BLOCK == *block)
            .peekable();
        // What ended while the slice was taken has its span in this one, and was counted in the one before.
        if of_block.peek().is_none() {
            continue;
        }
        for (bucket, count) in of_block {
            slow.times.add(bucket, count);
        }
        slow.begin = slow.begin.min(span.first_begin);
        slow.end = slow.end.max(span.last_end);
        slow.lost = Lost::of(&slow.times, median);
        let lasts = slow.end.saturating_sub(slow.begin);
        let is_dense = is_dense(slow.lost.all, lasts);
        if slow.lost.all >= beyond / 5 * 4 {
            let sparse = (!is_dense).then_some(half).flatten();
            return Some(sparse.unwrap_or(slow)).filter(|it| it.begin < it.end);
        }
        if is_dense && slow.lost.all >= beyond / 2 {
            half = Some(slow.clone());
        }
    }
    None
}
