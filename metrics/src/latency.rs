//! Latencies of operations as Prometheus takes them.

use std::collections::BTreeMap;

use maplatency_core::Operation;
use maplatency_core::histogram::{Histogram, bucket_of, lower_bound, midpoint};
use maplatency_core::measure::Rows;

/// Classic buckets end at these powers of two nanoseconds, from 256 ns to 1.07 s. Buckets of the kernel end there, too,
/// so that no count is on the wrong side.
const BOUNDS: [u32; 20] = [
    8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 26, 28, 30,
];

/// Names of the two latencies, as values of a label.
pub const LATENCIES: [&str; 2] = ["until_user", "kernel_window"];

/// Both latencies of every operation, over maps, CPUs and outcomes. They only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals(BTreeMap<Operation, [Histogram; 2]>);

impl Totals {
    /// Adds what was counted since the last time.
    pub fn add(&mut self, added: &Rows) {
        for (key, counts) in added {
            let [until_user, kernel_window] = self.0.entry(key.operation).or_default();
            until_user.merge(&counts.until_user);
            kernel_window.merge(&counts.kernel_window);
        }
    }

    /// Operation, name of the latency, and values.
    pub fn each(&self) -> impl Iterator<Item = (Operation, &'static str, &Histogram)> {
        self.0.iter().flat_map(|(operation, latencies)| {
            let named = LATENCIES.into_iter().zip(latencies);
            named.map(|(name, it)| (*operation, name, it))
        })
    }
}

/// The difference of cumulative rows to those before. A row that holds less than before has begun anew.
pub fn added(before: &Rows, now: &Rows) -> Rows {
    now.iter()
        .map(|(key, counts)| {
            let earlier = before.get(key);
            let added = earlier.and_then(|it| counts.since(it));
            (*key, added.unwrap_or_else(|| counts.clone()))
        })
        .filter(|(_, added)| !added.is_empty())
        .collect()
}

/// Nanoseconds as seconds.
#[expect(
    clippy::cast_precision_loss,
    reason = "a sum of years is still exact to a microsecond"
)]
pub(crate) fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// Upper bounds in seconds, and what lies between each and the one before. The last one is infinite.
pub(crate) fn classic(histogram: &Histogram) -> Vec<(f64, u64)> {
    let bounds = BOUNDS.map(|it| 1u64 << it);
    let mut buckets: Vec<(f64, u64)> = bounds.map(|it| (seconds(it), 0)).to_vec();
    buckets.push((f64::INFINITY, 0));
    for (bucket, count) in histogram.buckets() {
        let low = lower_bound(bucket);
        let at = bounds.partition_point(|it| *it <= low);
        buckets[at].1 += count;
    }
    buckets
}

/// The buckets of a native histogram: sixteen to each power of two, so 4.4 % wide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Native {
    /// Values of 0 ns.
    pub(crate) zero: u64,
    /// Gap before, and length, of each run of buckets.
    pub(crate) spans: Vec<(i32, u32)>,
    /// Differences of the buckets' counts.
    pub(crate) deltas: Vec<i64>,
}

impl Native {
    /// Bucket `i` ends at `2^(i / 2^SCHEMA)` seconds.
    pub(crate) const SCHEMA: i32 = 4;
    /// Less than the first nanosecond.
    pub(crate) const ZERO_THRESHOLD: f64 = 1e-10;

    pub(crate) fn of(histogram: &Histogram) -> Self {
        let mut native = Self::default();
        let mut counts: BTreeMap<i32, i64> = BTreeMap::new();
        for (bucket, count) in histogram.buckets() {
            if bucket == bucket_of(0) {
                native.zero = count;
            } else {
                let sum = counts.entry(index(midpoint(bucket))).or_default();
                *sum = sum.saturating_add_unsigned(count);
            }
        }
        let (mut next, mut before) = (0, 0);
        for (index, count) in counts {
            match native.spans.last_mut().filter(|_| index == next) {
                Some((_, length)) => *length += 1,
                None => native.spans.push((index - next, 1)),
            }
            native.deltas.push(count - before);
            (next, before) = (index + 1, count);
        }
        native
    }
}

/// The native bucket that a value falls into.
#[expect(
    clippy::cast_possible_truncation,
    reason = "64 bits have logarithms of two digits"
)]
fn index(nanoseconds: u64) -> i32 {
    let per_octave = f64::from(1 << Native::SCHEMA);
    (seconds(nanoseconds).log2() * per_octave).ceil() as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use maplatency_core::Outcome;
    use maplatency_core::measure::{Counts, SeriesKey};

    fn rows(map_id: u32, values: &[u64]) -> Rows {
        let key = SeriesKey {
            map_id,
            operation: Operation::Lookup,
            cpu: 0,
            outcome: Outcome::Success,
        };
        let counts = Counts {
            until_user: values.iter().copied().collect(),
            kernel_window: values.iter().map(|it| it / 2).collect(),
            ..Counts::default()
        };
        Rows::from([(key, counts)])
    }

    fn until_user(totals: &Totals) -> Vec<(u16, u64)> {
        let (operation, name, histogram) = totals.each().next().unwrap();
        assert_eq!((operation, name), (Operation::Lookup, "until_user"));
        histogram.buckets().collect()
    }

    #[test]
    fn classic_buckets_hold_every_value_once() {
        let histogram: Histogram = [0, 255, 256, 511, 512, 1 << 25, 1 << 30, u64::MAX]
            .into_iter()
            .collect();
        let buckets = classic(&histogram);
        let counts: Vec<u64> = buckets.iter().map(|it| it.1).collect();
        assert_eq!(counts[..4], [2, 2, 1, 0]);
        assert_eq!(counts[16..], [0, 1, 0, 0, 2]);
        assert_eq!(counts.iter().sum::<u64>(), 8);
        assert!((buckets[0].0 - 256e-9).abs() < 1e-15);
        assert!(buckets.last().unwrap().0.is_infinite());
    }

    #[test]
    fn a_native_bucket_holds_what_lies_within_its_bounds() {
        for nanoseconds in [1u64, 2, 100, 1_000, 1_048_576, 999_999_999, 17_000_000_000] {
            let index = f64::from(index(nanoseconds));
            let (low, high) = (((index - 1.0) / 16.0).exp2(), (index / 16.0).exp2());
            let value = seconds(nanoseconds);
            assert!(low < value && value <= high, "{low} < {value} <= {high}");
        }
    }

    #[test]
    fn spans_and_deltas_give_back_every_count() {
        let histogram: Histogram = [0, 0, 1_000, 1_000, 1_000, 1_050, 9_000_000]
            .into_iter()
            .collect();
        let native = Native::of(&histogram);
        assert_eq!(native.zero, 2);
        let (mut at, mut count, mut deltas) = (0, 0, native.deltas.iter());
        let mut counts = BTreeMap::new();
        for (gap, length) in &native.spans {
            at += gap;
            for _ in 0..*length {
                count += deltas.next().unwrap();
                counts.insert(at, count);
                at += 1;
            }
        }
        assert_eq!(deltas.next(), None);
        let expected = [(index(1_000), 3), (index(1_052), 1), (index(9_000_000), 1)];
        assert_eq!(counts, BTreeMap::from(expected));
        assert_eq!(Native::of(&Histogram::new()), Native::default());
    }

    #[test]
    fn totals_only_grow_when_maps_come_and_go() {
        let mut totals = Totals::default();
        let mut before = Rows::new();
        for now in [
            rows(1, &[5]),
            rows(1, &[5, 6]),
            // Map 1 is gone.
            rows(2, &[7]),
            // Its id was given to another, of which less was counted.
            rows(2, &[8]),
        ] {
            totals.add(&added(&before, &now));
            before = now;
        }
        assert_eq!(until_user(&totals), [(5, 1), (6, 1), (7, 1), (8, 1)]);
    }
}
