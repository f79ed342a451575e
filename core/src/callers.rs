//! Who calls: each caller's share of the window, per map and operation.
//!
//! Callers come and go by the thousand, so only some are kept apart per map, those that spent most time. The others
//! are merged, and their number is told.

mod container;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::histogram::Percentile;
use crate::measure::{Counts, parts_per_million, time_lost};
use crate::vocabulary::Operation;

pub use container::{Container, container_of};

/// Callers that a report tells apart per map.
pub const CALLERS_PER_MAP: usize = 64;
/// Callers that a window keeps apart per map, so that one that began slowly can still rise.
const KEPT_PER_MAP: usize = 256;
/// Callers of which a window knows at most that they are among the others.
const MAX_OTHERS: usize = 1 << 16;

/// A process between two calls of execve(2).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallerIdentity {
    /// As the agent's pid namespace has it.
    pub pid: u32,
    /// When the process began, in microseconds since 1970 by the node's clock.
    pub start_unix_microseconds: i64,
    /// The command of its main thread, at most 15 bytes.
    pub command: String,
    /// The memory controller's cgroup, as kernfs numbers it; 0: there is none.
    pub cgroup_id: u64,
    /// The end of that cgroup's path, its own name last; empty at the root.
    pub cgroup: String,
    /// The pod and container that the cgroup belongs to.
    pub container: Container,
}

/// One caller's operations on one map. `None` stands for all the others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallerSeries {
    /// The kernel's id of the map.
    pub map_id: u32,
    /// Who.
    pub caller: Option<Arc<CallerIdentity>>,
    /// The operation.
    pub operation: Operation,
}

/// Counts by caller.
pub type CallerRows = BTreeMap<CallerSeries, Counts>;

/// What callers did in the last seconds.
#[derive(Clone, Debug)]
pub struct CallerWindow {
    length: Duration,
    slices: VecDeque<(Duration, CallerRows)>,
    within: CallerRows,
    /// Callers that were merged with the others, by map, and when they last called.
    others: BTreeMap<(u32, Arc<CallerIdentity>), Duration>,
}

/// A caller in a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerRow {
    /// The kernel's id of the map.
    pub map_id: u32,
    /// The operation.
    pub operation: Operation,
    /// Who. `None` stands for all callers of the map that are not told apart.
    pub caller: Option<CallerIdentity>,
    /// How many callers this stands for at least: those that the kernel side did not tell apart are not among them.
    pub callers: u64,
    /// Operations in the window.
    pub count: u64,
    /// Median until back in user mode, in nanoseconds.
    pub p50_nanoseconds: u64,
    /// 99th percentile.
    pub p99_nanoseconds: u64,
    /// Slowest.
    pub max_nanoseconds: u64,
    /// Time in operations, until back in user mode, as parts per million of the window. May exceed it where several
    /// threads call at once.
    pub time_spent_parts_per_million: u64,
    /// Time lost to slow operations as parts per million of the window.
    pub time_lost_parts_per_million: u64,
}

impl CallerWindow {
    /// An empty window.
    pub fn new(length: Duration) -> Self {
        Self {
            length,
            slices: VecDeque::new(),
            within: CallerRows::new(),
            others: BTreeMap::new(),
        }
    }

    /// Takes what was added in a slice that ends at `at`.
    pub fn advance(&mut self, at: Duration, added: CallerRows) {
        let kept = self.make_room(&added);
        let mut slice = CallerRows::new();
        for (mut series, counts) in added {
            if let Some(caller) = &series.caller
                && !kept
                    .get(&series.map_id)
                    .is_some_and(|it| it.contains(caller))
            {
                if self.others.len() < MAX_OTHERS {
                    self.others.insert((series.map_id, Arc::clone(caller)), at);
                }
                series.caller = None;
            }
            slice.entry(series).or_default().merge(&counts);
        }
        for (series, counts) in &slice {
            self.within.entry(series.clone()).or_default().merge(counts);
        }
        self.slices.push_back((at, slice));
        self.expire(at);
    }

    /// The callers of each map that spent most time, those with most first, then the others.
    pub fn rows(&self, span: Duration, per_map: usize) -> Vec<CallerRow> {
        let mut by_map: BTreeMap<u32, Vec<(u64, Arc<CallerIdentity>)>> = BTreeMap::new();
        for ((map_id, caller), spent) in self.spent() {
            by_map.entry(map_id).or_default().push((spent, caller));
        }
        let mut told: BTreeSet<(u32, Arc<CallerIdentity>)> = BTreeSet::new();
        let mut merged: BTreeMap<u32, u64> = BTreeMap::new();
        for (map_id, mut callers) in by_map {
            callers.sort_by(|a, b| b.cmp(a));
            merged.insert(map_id, callers.len().saturating_sub(per_map) as u64);
            told.extend(callers.into_iter().take(per_map).map(|it| (map_id, it.1)));
        }
        for (map_id, _) in self.others.keys() {
            *merged.entry(*map_id).or_default() += 1;
        }
        let mut sums: CallerRows = CallerRows::new();
        for (series, counts) in &self.within {
            let mut series = series.clone();
            series.caller = series
                .caller
                .filter(|it| told.contains(&(series.map_id, Arc::clone(it))));
            sums.entry(series).or_default().merge(counts);
        }
        let mut rows: Vec<CallerRow> = sums
            .iter()
            .filter_map(|(series, counts)| {
                let others = merged.get(&series.map_id).copied().unwrap_or(0);
                row(series, counts, others, span)
            })
            .collect();
        rows.sort_by_key(|it| {
            let spent = std::cmp::Reverse(it.time_spent_parts_per_million);
            (it.caller.is_none(), spent)
        });
        rows
    }

    /// Lets go of slices that ended before the window that ends at `now`.
    fn expire(&mut self, now: Duration) {
        let begin = now.saturating_sub(self.length);
        self.others.retain(|_, seen| *seen > begin);
        while self.slices.front().is_some_and(|it| it.0 <= begin) {
            let Some((_, old)) = self.slices.pop_front() else {
                break;
            };
            for (series, gone) in old {
                let Some(left) = self.within.get(&series).and_then(|it| it.since(&gone)) else {
                    continue;
                };
                if left.is_empty() {
                    self.within.remove(&series);
                } else {
                    self.within.insert(series, left);
                }
            }
        }
    }

    /// Lets callers in that spent more time in this slice than the least of those that are kept did in the window. Gives
    /// those that are kept from now on, by map.
    fn make_room(&mut self, added: &CallerRows) -> BTreeMap<u32, BTreeSet<Arc<CallerIdentity>>> {
        let mut kept = self.kept();
        let mut spent: Option<BTreeMap<_, u64>> = None;
        for ((map_id, caller), time) in spent_in(added) {
            let of_map = kept.entry(map_id).or_default();
            if of_map.contains(&caller) {
                continue;
            }
            if of_map.len() >= KEPT_PER_MAP {
                let spent = spent.get_or_insert_with(|| self.spent());
                let least = of_map
                    .iter()
                    .map(|it| {
                        let key = (map_id, Arc::clone(it));
                        (spent.get(&key).copied().unwrap_or(u64::MAX), Arc::clone(it))
                    })
                    .min();
                let Some((_, least)) = least.filter(|it| it.0 < time) else {
                    continue;
                };
                of_map.remove(&least);
                self.merge_with_others(map_id, &least);
            }
            of_map.insert(caller);
        }
        kept
    }

    fn merge_with_others(&mut self, map_id: u32, caller: &Arc<CallerIdentity>) {
        let is_of = |it: &CallerSeries| it.map_id == map_id && it.caller.as_ref() == Some(caller);
        let mut seen = Duration::ZERO;
        let slices = self.slices.iter_mut().map(|(at, rows)| (Some(*at), rows));
        for (at, rows) in slices.chain([(None, &mut self.within)]) {
            let over: Vec<_> = rows.keys().filter(|it| is_of(it)).cloned().collect();
            for mut series in over {
                let Some(counts) = rows.remove(&series) else {
                    continue;
                };
                seen = seen.max(at.unwrap_or_default());
                series.caller = None;
                rows.entry(series).or_default().merge(&counts);
            }
        }
        if self.others.len() < MAX_OTHERS {
            self.others.insert((map_id, Arc::clone(caller)), seen);
        }
    }

    fn kept(&self) -> BTreeMap<u32, BTreeSet<Arc<CallerIdentity>>> {
        let mut kept: BTreeMap<u32, BTreeSet<Arc<CallerIdentity>>> = BTreeMap::new();
        for series in self.within.keys() {
            if let Some(caller) = &series.caller {
                let of_map = kept.entry(series.map_id).or_default();
                of_map.insert(Arc::clone(caller));
            }
        }
        kept
    }

    fn spent(&self) -> BTreeMap<(u32, Arc<CallerIdentity>), u64> {
        spent_in(&self.within)
    }
}

/// Time in operations, in nanoseconds.
fn spent_in(rows: &CallerRows) -> BTreeMap<(u32, Arc<CallerIdentity>), u64> {
    let mut spent: BTreeMap<_, u64> = BTreeMap::new();
    for (series, counts) in rows {
        if let Some(caller) = &series.caller {
            let sum = spent
                .entry((series.map_id, Arc::clone(caller)))
                .or_default();
            *sum = sum.saturating_add(counts.until_user.sum());
        }
    }
    spent
}

fn row(series: &CallerSeries, counts: &Counts, others: u64, span: Duration) -> Option<CallerRow> {
    let times = &counts.until_user;
    let median = times.percentile(Percentile::P50)?;
    // Not cut at the whole window: several threads of one caller spend more.
    let spent = u128::from(times.sum()) * 1_000_000 / span.as_nanos().max(1);
    Some(CallerRow {
        map_id: series.map_id,
        operation: series.operation,
        caller: series.caller.as_deref().cloned(),
        callers: if series.caller.is_some() { 1 } else { others },
        count: times.count(),
        p50_nanoseconds: median,
        p99_nanoseconds: times.percentile(Percentile::P99)?,
        max_nanoseconds: times.max()?,
        time_spent_parts_per_million: u64::try_from(spent).unwrap_or(u64::MAX),
        time_lost_parts_per_million: parts_per_million(time_lost(times, median), span),
    })
}

#[cfg(test)]
mod tests;
