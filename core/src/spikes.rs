//! Spikes: short times in which operations were far slower than in the rest of the window.
//!
//! Every slice of a map, operation and CPU is summed up as the time that it lost to slow operations: to all of them, and
//! to long ones alone, since the interrupts of a busy machine add up to as much as a spike. A slice in which much more was
//! lost than in the others, by either sum, holds a spike. A CPU on which operations are slow all the time has none: that
//! is what its percentiles tell.

mod comb;
mod slices;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::histogram::{Histogram, Percentile};
use crate::measure::{Place, parts_per_million};
use crate::vocabulary::Operation;
use slices::Slices;

/// A spike that comes once, or at no regular time, lost at least this in a slice. Interrupts, timers and the agent
/// itself cost less on a quiet machine.
const LOST_ALONE: Duration = Duration::from_millis(10);
/// As long as it lasts, a spike loses at least one in this many parts of the time.
const DENSITY: u64 = 10;
/// Parts of one spike are no further from each other.
const GAP: Duration = Duration::from_millis(200);
/// Spikes that a period takes at least.
const REGULAR: usize = 5;
/// Most spikes of a probe that are told.
pub const MAX_SPIKES: usize = 64;

/// When the operations of a slice that were counted in one block of buckets began and ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first one's begin.
    pub first_begin: Duration,
    /// The last one's end.
    pub last_end: Duration,
}

/// A spike, or several of which each is like the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spike {
    /// The kernel's id of the map.
    pub map_id: u32,
    /// The operation.
    pub operation: Operation,
    /// The CPUs on which its operations began.
    pub cpus: BTreeSet<u32>,
    /// How often it came in the window.
    pub count: u64,
    /// When it came last, in microseconds since 1970 by the node's clock.
    pub last_unix_microseconds: i64,
    /// Between two of them, where that is regular.
    pub period: Option<Duration>,
    /// From the begin of the first slow operation to the end of the last; the median of all.
    pub duration: Duration,
    /// 99th percentile of the slow operations in it, until back in user mode, in nanoseconds.
    pub p99_nanoseconds: u64,
    /// The slowest.
    pub max_nanoseconds: u64,
    /// Time lost in them, as parts per million of the window.
    pub time_lost_parts_per_million: u64,
}

/// What slices lost, for as long as the window is.
#[derive(Clone, Debug)]
pub struct SpikeWindow {
    length: Duration,
    places: BTreeMap<Place, Slices>,
}

/// One spike on one or more CPUs.
#[derive(Clone, Debug)]
struct Event {
    begin: Duration,
    end: Duration,
    cpus: BTreeSet<u32>,
    lost: u64,
    times: Histogram,
}

impl SpikeWindow {
    /// An empty window.
    pub fn new(length: Duration) -> Self {
        Self {
            length,
            places: BTreeMap::new(),
        }
    }

    /// Takes what a place counted in a slice that ended at `to`, of which the median is `median` otherwise.
    pub fn add(
        &mut self,
        place: Place,
        to: Duration,
        until_user: &Histogram,
        spans: Option<&BTreeMap<u16, Span>>,
        median: u64,
    ) {
        let slices = self.places.entry(place).or_default();
        slices.add(to, until_user, spans, median);
    }

    /// Lets go of slices that ended before the window that ends at `now`.
    pub fn expire(&mut self, now: Duration) {
        let begin = now.saturating_sub(self.length);
        self.places.retain(|_, slices| {
            slices.expire(begin);
            !slices.is_empty()
        });
    }

    /// The spikes of a window that spans `span`, those first that lost most.
    pub fn spikes(
        &self,
        span: Duration,
        unix_microseconds: impl Fn(Duration) -> i64,
    ) -> Vec<Spike> {
        let mut by_operation: BTreeMap<(u32, Operation), Vec<Event>> = BTreeMap::new();
        for (place, slices) in &self.places {
            let key = (place.map_id, place.operation);
            let events = by_operation.entry(key).or_default();
            events.extend(events_of(place.cpu, slices));
        }
        let mut spikes = Vec::new();
        for ((map_id, operation), events) in by_operation {
            for (cpus, events) in by_cpus(events) {
                for (events, period) in reportable(events) {
                    let whole = Event::sum(&events);
                    let Some((last, (p99, max))) = events.last().zip(whole.percentiles()) else {
                        continue;
                    };
                    let durations = events.iter().map(Event::nanoseconds).collect();
                    spikes.push(Spike {
                        map_id,
                        operation,
                        cpus: cpus.clone(),
                        count: events.len() as u64,
                        last_unix_microseconds: unix_microseconds(last.begin),
                        period,
                        duration: Duration::from_nanos(median_of(durations)),
                        p99_nanoseconds: p99,
                        max_nanoseconds: max,
                        time_lost_parts_per_million: parts_per_million(whole.lost, span),
                    });
                }
            }
        }
        spikes.sort_by_key(|it| std::cmp::Reverse(it.time_lost_parts_per_million));
        spikes.truncate(MAX_SPIKES);
        spikes
    }
}

/// What is slow in the slices that stand out, and the parts of one spike as one.
fn events_of(cpu: u32, slices: &Slices) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    for slow in slices.apart() {
        let event = Event {
            begin: slow.begin,
            end: slow.end,
            cpus: BTreeSet::from([cpu]),
            lost: slow.lost.all,
            times: slow.times.clone(),
        };
        match events.last_mut().filter(|it| event.begin <= it.end + GAP) {
            Some(last) => last.merge(event),
            None => events.push(event),
        }
    }
    events
}

/// Whether so much was lost, in nanoseconds, that it is a spike for as long as it lasts.
fn is_dense(lost: u64, lasts: Duration) -> bool {
    lost.saturating_mul(DENSITY) >= nanoseconds(lasts)
}

impl Event {
    fn merge(&mut self, other: Self) {
        self.begin = self.begin.min(other.begin);
        self.end = self.end.max(other.end);
        self.cpus.extend(other.cpus);
        self.lost = self.lost.saturating_add(other.lost);
        self.times.merge(&other.times);
    }

    /// What all of them took and lost together.
    fn sum(events: &[Self]) -> Self {
        let mut sum = Self {
            begin: Duration::MAX,
            end: Duration::ZERO,
            cpus: BTreeSet::new(),
            lost: 0,
            times: Histogram::new(),
        };
        for it in events {
            sum.merge(it.clone());
        }
        sum
    }

    fn percentiles(&self) -> Option<(u64, u64)> {
        Some((self.times.percentile(Percentile::P99)?, self.times.max()?))
    }

    fn nanoseconds(&self) -> u64 {
        nanoseconds(self.end.saturating_sub(self.begin))
    }

    fn is_dense(&self) -> bool {
        is_dense(self.lost, self.end.saturating_sub(self.begin))
    }

    fn lost_at_least(&self, least: Duration) -> bool {
        u128::from(self.lost) >= least.as_nanos()
    }
}

/// Makes one of spikes that came at the same time on several CPUs, and tells apart those of different CPUs.
///
/// A spike belongs to the one of its CPUs that is hit most often, so that a neighbour that is hit now and then does not
/// split a row. A row names the CPUs that are in at least half of its spikes.
fn by_cpus(mut events: Vec<Event>) -> Vec<(BTreeSet<u32>, Vec<Event>)> {
    events.sort_by_key(|it| it.begin);
    let mut merged: Vec<Event> = Vec::new();
    for event in events {
        match merged.last_mut().filter(|it| event.begin <= it.end) {
            Some(last) => last.merge(event),
            None => merged.push(event),
        }
    }
    let hits = hits_of(&merged);
    let mut groups: BTreeMap<u32, Vec<Event>> = BTreeMap::new();
    for event in merged {
        let often = |it: &&u32| (hits.get(it).copied(), std::cmp::Reverse(**it));
        if let Some(cpu) = event.cpus.iter().max_by_key(often) {
            groups.entry(*cpu).or_default().push(event);
        }
    }
    groups
        .into_values()
        .map(|events| {
            let hits = hits_of(&events).into_iter();
            let mostly = hits.filter(|it| it.1 * 2 >= events.len());
            (mostly.map(|it| it.0).collect(), events)
        })
        .collect()
}

/// How many of the spikes hit each CPU.
fn hits_of(events: &[Event]) -> BTreeMap<u32, usize> {
    let mut hits = BTreeMap::new();
    for cpu in events.iter().flat_map(|it| &it.cpus) {
        *hits.entry(*cpu).or_default() += 1;
    }
    hits
}

/// Those that are worth a row, with their period. What comes at regular times may have others among it: those that are
/// as large as the largest are tried first, then all that are large, then all; and where none of them are regular, a regular
/// part of them ([`comb`]).
fn reportable(events: Vec<Event>) -> Vec<(Vec<Event>, Option<Duration>)> {
    let events: Vec<Event> = events.into_iter().filter(Event::is_dense).collect();
    let largest = events.iter().map(|it| it.lost).max().unwrap_or(0);
    let is_large = |it: &Event| it.lost_at_least(LOST_ALONE);
    let tries: [&dyn Fn(&Event) -> bool; 3] = [
        &|it| is_large(it) && it.lost >= largest / 2,
        &is_large,
        &|_| true,
    ];
    for is_chosen in tries {
        let (chosen, rest): (Vec<_>, Vec<_>) = events.iter().cloned().partition(is_chosen);
        if let Some(period) = period_of(&chosen) {
            let rest: Vec<Event> = rest.into_iter().filter(is_large).collect();
            let mut rows = vec![(chosen, Some(period))];
            rows.extend((!rest.is_empty()).then_some((rest, None)));
            return rows;
        }
    }
    let large: Vec<Event> = events.iter().filter(|it| is_large(it)).cloned().collect();
    let comb = comb::regular_among(&begins_of(&large));
    if let Some((regular, period)) = comb.or_else(|| comb::regular_among(&begins_of(&events))) {
        let is_regular = |at: &Duration| regular.binary_search(&nanoseconds(*at)).is_ok();
        let (regular, rest): (Vec<_>, Vec<_>) =
            events.into_iter().partition(|it| is_regular(&it.begin));
        let rest: Vec<Event> = rest.into_iter().filter(is_large).collect();
        let mut rows = vec![(regular, Some(Duration::from_nanos(period)))];
        rows.extend((!rest.is_empty()).then_some((rest, None)));
        return rows;
    }
    if large.is_empty() {
        return vec![];
    }
    vec![(large, None)]
}

fn begins_of(events: &[Event]) -> Vec<u64> {
    events.iter().map(|it| nanoseconds(it.begin)).collect()
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The time between spikes, if most of them came that long after the one before. Of the others those count that came
/// after a small multiple of it.
fn period_of(events: &[Event]) -> Option<Duration> {
    if events.len() < REGULAR {
        return None;
    }
    let begins = begins_of(events);
    let between: Vec<u64> = begins.windows(2).map(|it| it[1] - it[0]).collect();
    let usual = median_of(between.clone());
    if usual == 0 {
        return None;
    }
    let regular: Vec<(u64, u64)> = between
        .iter()
        .map(|it| (*it, it.saturating_add(usual / 2) / usual))
        .filter(|(time, times)| {
            (1..=3).contains(times) && time.abs_diff(usual * times) <= usual / 10
        })
        .collect();
    // Were those that are missing many, half of the period would do as well, and others among them make it.
    let once = regular.iter().filter(|it| it.1 == 1).count();
    if once * 5 < between.len() * 4 {
        return None;
    }
    let (time, times) = regular.iter().fold((0_u64, 0), |sum, it| {
        (sum.0.saturating_add(it.0), sum.1 + it.1)
    });
    Some(Duration::from_nanos(time / times))
}

/// The lower one of two in the middle; 0 of none.
fn median_of(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    let middle = values.len().saturating_sub(1) / 2;
    values.get(middle).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests;
