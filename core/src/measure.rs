//! What was counted: per map × operation × outcome × CPU, cumulative and in a sliding window.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::histogram::{Histogram, Percentile};
use crate::vocabulary::{Operation, Outcome};

/// An operation is slow when it took more than this many times the median of its row.
pub const SLOW_FACTOR: u64 = 4;

/// Shortest time of which a share is told.
const SECOND: Duration = Duration::from_secs(1);

/// One row of measurement on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesKey {
    /// The kernel's id of the map.
    pub map_id: u32,
    /// The operation.
    pub operation: Operation,
    /// The CPU on which operations began.
    pub cpu: u32,
    /// How they ended.
    pub outcome: Outcome,
}

impl SeriesKey {
    /// The same, however operations ended.
    pub const fn place(self) -> Place {
        Place {
            map_id: self.map_id,
            operation: self.operation,
            cpu: self.cpu,
        }
    }
}

/// Where operations were slow, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The kernel's id of the map.
    pub map_id: u32,
    /// The operation.
    pub operation: Operation,
    /// The CPU on which operations began.
    pub cpu: u32,
}

impl Place {
    /// Those of its operations that ended so.
    const fn with(self, outcome: Outcome) -> SeriesKey {
        SeriesKey {
            map_id: self.map_id,
            operation: self.operation,
            cpu: self.cpu,
            outcome,
        }
    }
}

/// The histograms of one row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Callers' operations, entry to exit of bpf(2).
    pub kernel_window: Histogram,
    /// Callers' operations, entry until back in user mode.
    pub until_user: Histogram,
    /// Elements that callers' batches moved.
    pub entries: u64,
    /// Callers' operations that ended on another CPU.
    pub moved: u64,
    /// Reads by the agent's pinned thread, by its own clock.
    pub active_read: Histogram,
    /// How late those reads began.
    pub active_delay: Histogram,
}

impl Counts {
    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.parts().into_iter().all(Histogram::is_empty)
    }

    /// Adds everything of `other`.
    pub fn merge(&mut self, other: &Self) {
        let Self {
            kernel_window,
            until_user,
            entries,
            moved,
            active_read,
            active_delay,
        } = self;
        kernel_window.merge(&other.kernel_window);
        until_user.merge(&other.until_user);
        *entries = entries.saturating_add(other.entries);
        *moved = moved.saturating_add(other.moved);
        active_read.merge(&other.active_read);
        active_delay.merge(&other.active_delay);
    }

    /// What was added since `earlier`; `None` when `earlier` is no earlier state of this.
    pub fn since(&self, earlier: &Self) -> Option<Self> {
        Some(Self {
            kernel_window: self.kernel_window.since(&earlier.kernel_window)?,
            until_user: self.until_user.since(&earlier.until_user)?,
            entries: self.entries.checked_sub(earlier.entries)?,
            moved: self.moved.checked_sub(earlier.moved)?,
            active_read: self.active_read.since(&earlier.active_read)?,
            active_delay: self.active_delay.since(&earlier.active_delay)?,
        })
    }

    fn parts(&self) -> [&Histogram; 4] {
        [
            &self.kernel_window,
            &self.until_user,
            &self.active_read,
            &self.active_delay,
        ]
    }
}

/// Rows by key.
pub type Rows = BTreeMap<SeriesKey, Counts>;

/// Merges rows that differ in their outcomes alone.
pub fn by_place(rows: &Rows) -> BTreeMap<Place, Cow<'_, Counts>> {
    let mut places: BTreeMap<Place, Cow<'_, Counts>> = BTreeMap::new();
    for (key, counts) in rows {
        places
            .entry(key.place())
            .and_modify(|it| it.to_mut().merge(counts))
            .or_insert(Cow::Borrowed(counts));
    }
    places
}

/// The median of each place until back in user mode, in nanoseconds.
pub fn medians(rows: &Rows) -> BTreeMap<Place, u64> {
    by_place(rows)
        .into_iter()
        .filter_map(|(place, it)| Some((place, it.until_user.percentile(Percentile::P50)?)))
        .collect()
}

/// A cumulative state and what was added to it in the last seconds.
///
/// Fed with cumulative states, it takes the differences itself. Adding and taking away are exact, so the window
/// always equals the newest state minus the one that the window begins with.
#[derive(Clone, Debug)]
pub struct SlidingWindow {
    length: Duration,
    slices: VecDeque<Slice>,
    within: Rows,
    newest: Rows,
    newest_at: Option<Duration>,
}

/// What was added between two states.
#[derive(Clone, Debug)]
pub struct Slice {
    /// When it began, on the clock that the states were stamped with.
    pub from: Duration,
    /// When it ended.
    pub to: Duration,
    /// What was added.
    pub rows: Rows,
}

/// A state that is not a later state of the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the counts went backwards")]
pub struct WentBackwards;

impl SlidingWindow {
    /// An empty window.
    pub fn new(length: Duration) -> Self {
        Self {
            length,
            slices: VecDeque::new(),
            within: Rows::new(),
            newest: Rows::new(),
            newest_at: None,
        }
    }

    /// Takes a state as the beginning: what it holds was counted before the window.
    pub fn begin(&mut self, at: Duration, cumulative: Rows) {
        *self = Self::new(self.length);
        self.newest = cumulative;
        self.newest_at = Some(at);
    }

    /// Takes a later state. Rows that it lacks are over: they stay in the window until they leave it by age.
    pub fn advance(&mut self, at: Duration, cumulative: Rows) -> Result<(), WentBackwards> {
        let mut rows = Rows::new();
        let nothing = Counts::default();
        for (key, counts) in &cumulative {
            let before = self.newest.get(key).unwrap_or(&nothing);
            let added = counts.since(before).ok_or(WentBackwards)?;
            if !added.is_empty() {
                rows.insert(*key, added);
            }
        }
        for (key, added) in &rows {
            self.within.entry(*key).or_default().merge(added);
        }
        let from = self.newest_at.unwrap_or(at);
        self.slices.push_back(Slice { from, to: at, rows });
        self.newest = cumulative;
        self.newest_at = Some(at);
        self.expire(at);
        Ok(())
    }

    /// Lets go of slices that ended before the window that ends at `now`.
    pub fn expire(&mut self, now: Duration) {
        let begin = now.saturating_sub(self.length);
        while self.slices.front().is_some_and(|it| it.to <= begin) {
            let Some(old) = self.slices.pop_front() else {
                break;
            };
            for (key, gone) in old.rows {
                if let Some(left) = self.within.get(&key).and_then(|it| it.since(&gone)) {
                    put(&mut self.within, &key, left);
                }
            }
        }
    }

    /// Lets go of what was added before `at`, when the state was `beginning`. Of a slice over that time what came later stays,
    /// as far as the newest state still has its rows.
    pub fn begin_at(&mut self, at: Duration, beginning: &Rows) {
        self.expire(at.saturating_add(self.length));
        let Some((first, later)) = self.slices.make_contiguous().split_first_mut() else {
            return;
        };
        if first.from >= at {
            return;
        }
        first.from = at;
        let nothing = Counts::default();
        let of = |rows: &Rows, key: &SeriesKey| rows.get(key).unwrap_or(&nothing).clone();
        for (key, newest) in &self.newest {
            let mut rest = of(beginning, key);
            for slice in &*later {
                rest.merge(&of(&slice.rows, key));
            }
            let left = newest.since(&rest);
            let gone = left.as_ref().and_then(|it| of(&first.rows, key).since(it));
            // A beginning that does not fit to the slices changes nothing.
            let Some((left, gone)) = left.zip(gone) else {
                continue;
            };
            put(&mut first.rows, key, left);
            if let Some(within) = of(&self.within, key).since(&gone) {
                put(&mut self.within, key, within);
            }
        }
    }

    /// What was added within the window.
    pub fn within(&self) -> &Rows {
        &self.within
    }

    /// The slices that make up the window, oldest first.
    pub fn slices(&self) -> impl Iterator<Item = &Slice> {
        self.slices.iter()
    }

    /// The newest state and when it was taken.
    pub fn newest(&self) -> (&Rows, Option<Duration>) {
        (&self.newest, self.newest_at)
    }

    /// The state with which the window begins: the newest one minus the window.
    pub fn beginning(&self) -> Rows {
        let nothing = Counts::default();
        self.newest
            .iter()
            .filter_map(|(key, counts)| {
                let before = counts.since(self.within.get(key).unwrap_or(&nothing))?;
                (!before.is_empty()).then_some((*key, before))
            })
            .collect()
    }

    /// Time that the window spans so far, at most its length.
    pub fn span(&self) -> Duration {
        match (self.slices.front(), self.newest_at) {
            (Some(first), Some(newest)) => newest.saturating_sub(first.from).min(self.length),
            _ => Duration::ZERO,
        }
    }
}

/// Rows hold no row of nothing.
fn put(rows: &mut Rows, key: &SeriesKey, counts: Counts) {
    if counts.is_empty() {
        rows.remove(key);
    } else {
        rows.insert(*key, counts);
    }
}

/// Time lost to slow operations, in nanoseconds: what they took beyond `median`.
///
/// An operation is slow beyond [`SLOW_FACTOR`] times the median.
pub fn time_lost(until_user: &Histogram, median: u64) -> u64 {
    until_user.excess(median, median.saturating_mul(SLOW_FACTOR))
}

/// A part per million of `whole`, at most all of it.
pub fn parts_per_million(part: u64, whole: Duration) -> u64 {
    if whole.is_zero() {
        return 0;
    }
    let parts = u128::from(part) * 1_000_000 / whole.as_nanos();
    u64::try_from(parts).unwrap_or(u64::MAX).min(1_000_000)
}

/// The slice in which a place lost the largest share of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorstSlice {
    /// When it began, in microseconds since 1970 by the node's clock.
    pub start_unix_microseconds: i64,
    /// Operations in it.
    pub count: u64,
    /// 99th percentile until back in user mode, in nanoseconds.
    pub p99_nanoseconds: u64,
    /// Slowest operation until back in user mode, in nanoseconds.
    pub max_nanoseconds: u64,
    /// Time lost, as parts per million of the slice, or of a second if that is longer.
    pub time_lost_parts_per_million: u64,
}

impl WorstSlice {
    /// The order in which slices are bad: by time lost, then by the slowest operation.
    pub fn badness(&self) -> (u64, u64) {
        (self.time_lost_parts_per_million, self.max_nanoseconds)
    }
}

/// Finds each place's worst slice. `unix_microseconds` turns the window's clock into wall time.
///
/// Rows times slices are looked at anew every second, as what is slow follows the median of the window. So each costs a
/// comparison, and only the worst slice of each place is summed up.
pub fn worst_slices(
    window: &SlidingWindow,
    unix_microseconds: impl Fn(Duration) -> i64,
) -> BTreeMap<Place, WorstSlice> {
    let medians: Vec<(Place, u64)> = medians(window.within()).into_iter().collect();
    // For each of these places the worst slice so far, and how bad it is.
    let mut worst: Vec<Option<((u64, u64), &Slice)>> = vec![None; medians.len()];
    for slice in window.slices() {
        for (at, lost, max) in losses(&slice.rows, &medians) {
            let badness = (parts_per_million(lost, slice.judged_length()), max);
            if worst[at].is_none_or(|it| it.0 < badness) {
                worst[at] = Some((badness, slice));
            }
        }
    }
    let worst = medians.iter().zip(worst);
    worst
        .filter_map(|((place, _), worst)| {
            let (badness, slice) = worst?;
            let sum = slice.sum_up(*place, badness, unix_microseconds(slice.from))?;
            Some((*place, sum))
        })
        .collect()
}

/// What each place lost in a slice and its slowest operation, with its position among the medians.
fn losses(rows: &Rows, medians: &[(Place, u64)]) -> Vec<(usize, u64, u64)> {
    let mut losses: Vec<(usize, u64, u64)> = Vec::new();
    let mut at = 0;
    // Both are in the order of places, and outcomes of one place follow each other.
    for (key, counts) in rows {
        let place = key.place();
        while medians.get(at).is_some_and(|it| it.0 < place) {
            at += 1;
        }
        let median = medians.get(at).filter(|it| it.0 == place);
        let Some(((_, median), max)) = median.zip(counts.until_user.max()) else {
            continue;
        };
        // Mostly nothing was slow.
        let is_slow = max > median.saturating_mul(SLOW_FACTOR);
        let lost = if is_slow {
            time_lost(&counts.until_user, *median)
        } else {
            0
        };
        match losses.last_mut().filter(|it| it.0 == at) {
            Some((_, all, slowest)) => {
                *all = all.saturating_add(lost);
                *slowest = max.max(*slowest);
            }
            None => losses.push((at, lost, max)),
        }
    }
    losses
}

impl Slice {
    /// The last slice of a run may be short, and its share is told as that of a second.
    fn judged_length(&self) -> Duration {
        self.to.saturating_sub(self.from).max(SECOND)
    }

    fn sum_up(
        &self,
        place: Place,
        (time_lost_parts_per_million, max_nanoseconds): (u64, u64),
        start_unix_microseconds: i64,
    ) -> Option<WorstSlice> {
        let mut times = Histogram::new();
        for outcome in Outcome::ALL {
            if let Some(counts) = self.rows.get(&place.with(outcome)) {
                times.merge(&counts.until_user);
            }
        }
        Some(WorstSlice {
            start_unix_microseconds,
            count: times.count(),
            p99_nanoseconds: times.percentile(Percentile::P99)?,
            max_nanoseconds,
            time_lost_parts_per_million,
        })
    }
}

#[cfg(test)]
mod tests;
