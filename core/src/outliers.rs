//! Outliers: slow operations, told one by one with what happened to the task meanwhile.
//!
//! A window keeps the slowest of each slice, and how many there were in all.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::callers::Container;
use crate::vocabulary::{Operation, Outcome};

/// Outliers that a report tells.
pub const MAX_OUTLIERS: usize = 64;
/// Outliers that a window keeps of each slice.
const KEPT_PER_SLICE: usize = 16;

/// One slow operation. Times are in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlier {
    /// The kernel's id of the map.
    pub map_id: u32,
    /// The operation.
    pub operation: Operation,
    /// How it ended.
    pub outcome: Outcome,
    /// When it began, in microseconds since 1970 by the node's clock.
    pub begin_unix_microseconds: i64,
    /// Entry until back in user mode.
    pub until_user_nanoseconds: u64,
    /// Entry to exit of bpf(2).
    pub kernel_window_nanoseconds: u64,
    /// Bytes of the map's keys.
    pub key_size: u32,
    /// Elements that a batch moved.
    pub entries: u32,
    /// CPU at the entry.
    pub cpu: u32,
    /// CPU when the caller was back in user mode.
    pub cpu_after: u32,
    /// Who called.
    pub caller: OutlierCaller,
    /// What happened to the thread between entry and user mode.
    pub evidence: Evidence,
}

/// The thread that called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlierCaller {
    /// The process, as the agent's pid namespace has it.
    pub pid: u32,
    /// The thread, likewise.
    pub tid: u32,
    /// The thread's command, at most 15 bytes.
    pub command: String,
    /// The memory controller's cgroup, as kernfs numbers it; 0: there is none.
    pub cgroup_id: u64,
    /// The pod and container, where the caller is among those that are told apart.
    pub container: Container,
}

/// What the kernel counted of a thread during one operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Time switched out, for whatever reason.
    pub off_cpu_nanoseconds: u64,
    /// Of that, ready to run and waiting for a CPU.
    pub run_delay_nanoseconds: u64,
    /// Switches that the thread asked for, as by sleeping.
    pub voluntary_switches: u32,
    /// Switches that it did not.
    pub involuntary_switches: u32,
    /// Moves to another CPU.
    pub migrations: u32,
    /// Page faults without I/O.
    pub minor_faults: u32,
    /// Page faults with it.
    pub major_faults: u32,
    /// Who ran longest at a stretch where the thread was switched out. `None`: nobody was seen.
    pub instead: Option<Instead>,
}

/// A task that ran instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instead {
    /// Its process; 0: nobody, or a process outside the agent's pid namespace.
    pub pid: u32,
    /// The command of its thread; `swapper/N` where the CPU was idle.
    pub command: String,
    /// How long it ran at a stretch.
    pub nanoseconds: u64,
}

/// How many outliers there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutlierCounts {
    /// Told one by one.
    pub told: u64,
    /// Held back, since more came in a second than may be told.
    pub held_back: u64,
    /// Dropped, since the ring buffer had no room.
    pub dropped: u64,
}

impl OutlierCounts {
    fn since(self, earlier: Self) -> Self {
        Self {
            told: self.told.saturating_sub(earlier.told),
            held_back: self.held_back.saturating_sub(earlier.held_back),
            dropped: self.dropped.saturating_sub(earlier.dropped),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            told: self.told.saturating_add(other.told),
            held_back: self.held_back.saturating_add(other.held_back),
            dropped: self.dropped.saturating_add(other.dropped),
        }
    }
}

/// The outliers of a window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outliers {
    /// How many there were.
    pub counts: OutlierCounts,
    /// The slowest of those that were told.
    pub slowest: Vec<Arc<Outlier>>,
}

/// Keeps the outliers of the last seconds.
#[derive(Clone, Debug)]
pub struct OutlierWindow {
    length: Duration,
    slices: VecDeque<Slice>,
    newest: OutlierCounts,
}

#[derive(Clone, Debug)]
struct Slice {
    to: Duration,
    counts: OutlierCounts,
    slowest: Vec<Arc<Outlier>>,
}

impl OutlierWindow {
    /// An empty window.
    pub fn new(length: Duration) -> Self {
        Self {
            length,
            slices: VecDeque::new(),
            newest: OutlierCounts::default(),
        }
    }

    /// Takes what a slice told that ends at `to`, and how many there have been since the probe began.
    pub fn advance(&mut self, to: Duration, told: Vec<Outlier>, counts: OutlierCounts) {
        self.slices.push_back(Slice {
            to,
            counts: counts.since(self.newest),
            slowest: slowest(told.into_iter().map(Arc::new), KEPT_PER_SLICE),
        });
        self.newest = counts;
        let begin = to.saturating_sub(self.length);
        while self.slices.front().is_some_and(|it| it.to <= begin) {
            self.slices.pop_front();
        }
    }

    /// The outliers of the window.
    pub fn outliers(&self) -> Outliers {
        let counts = self.slices.iter().map(|it| it.counts);
        Outliers {
            counts: counts.fold(OutlierCounts::default(), OutlierCounts::plus),
            slowest: slowest(
                self.slices.iter().flat_map(|it| it.slowest.iter().cloned()),
                MAX_OUTLIERS,
            ),
        }
    }
}

fn slowest(all: impl Iterator<Item = Arc<Outlier>>, most: usize) -> Vec<Arc<Outlier>> {
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(|it| Reverse(it.until_user_nanoseconds));
    all.truncate(most);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outlier(until_user_nanoseconds: u64) -> Outlier {
        Outlier {
            map_id: 1,
            operation: Operation::Lookup,
            outcome: Outcome::Success,
            begin_unix_microseconds: 0,
            until_user_nanoseconds,
            kernel_window_nanoseconds: 500,
            key_size: 4,
            entries: 0,
            cpu: 0,
            cpu_after: 0,
            caller: OutlierCaller {
                pid: 1,
                tid: 1,
                command: "reader".to_owned(),
                cgroup_id: 0,
                container: Container::default(),
            },
            evidence: Evidence::default(),
        }
    }

    fn counts(told: u64, held_back: u64) -> OutlierCounts {
        OutlierCounts {
            told,
            held_back,
            dropped: 0,
        }
    }

    fn times(outliers: &Outliers) -> Vec<u64> {
        let slowest = outliers.slowest.iter();
        slowest.map(|it| it.until_user_nanoseconds).collect()
    }

    #[test]
    fn the_slowest_come_first_and_leave_with_their_slice() {
        let mut window = OutlierWindow::new(Duration::from_secs(2));
        window.advance(
            Duration::from_secs(1),
            vec![outlier(5), outlier(9)],
            counts(2, 0),
        );
        window.advance(Duration::from_secs(2), vec![outlier(7)], counts(3, 4));
        assert_eq!(times(&window.outliers()), [9, 7, 5]);
        assert_eq!(window.outliers().counts, counts(3, 4));
        window.advance(Duration::from_secs(3), vec![], counts(3, 5));
        assert_eq!(times(&window.outliers()), [7]);
        assert_eq!(window.outliers().counts, counts(1, 5));
    }

    #[test]
    fn memory_is_bounded_whatever_is_told() {
        let mut window = OutlierWindow::new(Duration::from_mins(10));
        for second in 1..=1_000 {
            let told = (0..1_000).map(outlier).collect();
            window.advance(Duration::from_secs(second), told, counts(1_000 * second, 0));
        }
        let kept: usize = window.slices.iter().map(|it| it.slowest.len()).sum();
        assert_eq!(kept, 600 * KEPT_PER_SLICE);
        assert_eq!(window.outliers().slowest.len(), MAX_OUTLIERS);
        assert_eq!(window.outliers().counts.told, 600_000);
    }
}
