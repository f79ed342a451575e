//! A log-linear histogram of nanoseconds whose merge and difference lose nothing.
//!
//! Values below 128 ns have a bucket each. Above, every power of two is cut into 64 buckets of equal width, so a
//! bucket is at most 1/64 of its lower bound wide and its midpoint is at most 0.79 % from any value in it.
//! The last bucket takes everything from 2^34 ns (17.2 s) up.
//!
//! The kernel keeps the same buckets: `bpf/src/histogram.h` computes the same index, and the tests of the
//! `maplatency-bpf` crate compare the two.

use std::cmp::Ordering;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Buckets in one block. The kernel allocates histograms block by block.
pub const BLOCK: u16 = 64;
/// Index of the bucket for values of 2^34 ns and more.
pub const OVERFLOW: u16 = 1856;
/// Number of buckets.
pub const BUCKETS: usize = OVERFLOW as usize + 1;
/// Largest relative distance between a value below 2^34 ns and the midpoint of its bucket.
pub const MAX_RELATIVE_ERROR: f64 = 1.0 / 128.0;

const EXACT_BITS: u32 = 7;
const OVERFLOW_BITS: u32 = 34;
const SUB_BITS: u32 = 6;

/// The bucket of a value in nanoseconds.
pub fn bucket_of(nanoseconds: u64) -> u16 {
    if nanoseconds < 1 << EXACT_BITS {
        return u16::try_from(nanoseconds).expect("below 128");
    }
    let octave = nanoseconds.ilog2();
    if octave >= OVERFLOW_BITS {
        return OVERFLOW;
    }
    let sub = (nanoseconds >> (octave - SUB_BITS)) & u64::from(BLOCK - 1);
    let block = u64::from(octave - EXACT_BITS) + 2;
    u16::try_from(block * u64::from(BLOCK) + sub).expect("at most OVERFLOW")
}

/// The smallest value that falls into a bucket, in nanoseconds.
pub fn lower_bound(bucket: u16) -> u64 {
    if u64::from(bucket) < 1 << EXACT_BITS {
        return u64::from(bucket);
    }
    let block = u32::from(bucket / BLOCK);
    let sub = u64::from(bucket % BLOCK);
    let octave = block - 2 + EXACT_BITS;
    (1 << octave) + (sub << (octave - SUB_BITS))
}

/// The value that stands for a bucket: its midpoint, and for [`OVERFLOW`] its lower bound.
pub fn midpoint(bucket: u16) -> u64 {
    if bucket >= OVERFLOW {
        return lower_bound(OVERFLOW);
    }
    let low = lower_bound(bucket);
    low + (lower_bound(bucket + 1) - low) / 2
}

/// A quantile, named as users write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Percentile {
    /// The median.
    P50,
    /// 90 of 100 values are at most this.
    P90,
    /// 99 of 100.
    P99,
    /// 999 of 1,000.
    P999,
}

impl Percentile {
    /// The name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::P50 => "P50",
            Self::P90 => "P90",
            Self::P99 => "P99",
            Self::P999 => "P99.9",
        }
    }

    /// The 1-based rank among `count` values, by nearest rank: `ceil(p × count)`.
    pub(crate) fn rank(self, count: u64) -> u64 {
        let per_mille: u128 = match self {
            Self::P50 => 500,
            Self::P90 => 900,
            Self::P99 => 990,
            Self::P999 => 999,
        };
        let rank = (per_mille * u128::from(count)).div_ceil(1000);
        u64::try_from(rank).expect("a rank is at most the count")
    }
}

/// Why a histogram could not be built from its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHistogram {
    /// A bucket index past [`OVERFLOW`].
    #[error("bucket {0} does not exist; the last one is {OVERFLOW}")]
    NoSuchBucket(u32),
    /// Indexes have to rise, so that each bucket is named once.
    #[error("bucket {0} is not above the one before it")]
    NotAscending(u32),
    /// As many counts as buckets are needed.
    #[error("{buckets} buckets but {counts} counts")]
    LengthsDiffer {
        /// Number of bucket indexes.
        buckets: usize,
        /// Number of counts.
        counts: usize,
    },
    /// The counts do not add up within 64 bits.
    #[error("the counts add up to more than 2^64")]
    TooMany,
}

/// Counts of values in nanoseconds. Sparse: only buckets that hold something take memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    // Rising by bucket, no count is zero.
    buckets: Vec<(u16, u64)>,
}

impl Histogram {
    /// A histogram without values.
    pub const fn new() -> Self {
        Self {
            buckets: Vec::new(),
        }
    }

    /// Builds from bucket indexes in rising order. Zero counts are left out.
    pub fn from_buckets(
        buckets: impl IntoIterator<Item = (u32, u64)>,
    ) -> Result<Self, InvalidHistogram> {
        let mut built = Self::new();
        let mut previous = None;
        let mut total = 0u64;
        for (bucket, count) in buckets {
            let index = u16::try_from(bucket)
                .ok()
                .filter(|it| *it <= OVERFLOW)
                .ok_or(InvalidHistogram::NoSuchBucket(bucket))?;
            if previous.is_some_and(|it| it >= index) {
                return Err(InvalidHistogram::NotAscending(bucket));
            }
            previous = Some(index);
            total = total.checked_add(count).ok_or(InvalidHistogram::TooMany)?;
            if count > 0 {
                built.buckets.push((index, count));
            }
        }
        Ok(built)
    }

    /// Buckets that hold something, rising, with their counts.
    pub fn buckets(&self) -> impl ExactSizeIterator<Item = (u16, u64)> + '_ {
        self.buckets.iter().copied()
    }

    /// Adds one value in nanoseconds.
    pub fn record(&mut self, nanoseconds: u64) {
        self.add(bucket_of(nanoseconds), 1);
    }

    /// Adds `count` values to a bucket. An index past [`OVERFLOW`] counts as [`OVERFLOW`].
    pub fn add(&mut self, bucket: u16, count: u64) {
        if count == 0 {
            return;
        }
        let bucket = bucket.min(OVERFLOW);
        match self.buckets.binary_search_by_key(&bucket, |it| it.0) {
            Ok(at) => self.buckets[at].1 = self.buckets[at].1.saturating_add(count),
            Err(at) => self.buckets.insert(at, (bucket, count)),
        }
    }

    /// Adds every value of `other`.
    pub fn merge(&mut self, other: &Self) {
        if other.is_empty() {
            return;
        }
        let mine = std::mem::take(&mut self.buckets);
        self.buckets = combine(&mine, &other.buckets, |a, b| Some(a.saturating_add(b)))
            .expect("adding never fails");
    }

    /// What was added since `earlier`, an older state of the same histogram.
    ///
    /// `None` when `earlier` holds a value that `self` lacks: then they are not states of one histogram.
    pub fn since(&self, earlier: &Self) -> Option<Self> {
        let mut buckets = combine(&self.buckets, &earlier.buckets, u64::checked_sub)?;
        // Mostly far fewer than in either state, and a window keeps them for each of its seconds.
        buckets.shrink_to_fit();
        Some(Self { buckets })
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|it| it.1).sum()
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// The quantile by nearest rank, in nanoseconds, within [`MAX_RELATIVE_ERROR`]. `None` without values.
    pub fn percentile(&self, percentile: Percentile) -> Option<u64> {
        let rank = percentile.rank(self.count());
        let mut seen = 0;
        self.buckets.iter().find_map(|&(bucket, count)| {
            seen += count;
            (seen >= rank).then(|| midpoint(bucket))
        })
    }

    /// The largest value in nanoseconds, within [`MAX_RELATIVE_ERROR`]. `None` without values.
    pub fn max(&self) -> Option<u64> {
        self.buckets.last().map(|it| midpoint(it.0))
    }

    /// All values together, each taken as the one that stands for its bucket.
    pub fn sum(&self) -> u64 {
        self.excess(0, 0)
    }

    /// Time above `baseline` spent in values above `threshold`, in nanoseconds.
    pub fn excess(&self, baseline: u64, threshold: u64) -> u64 {
        self.buckets
            .iter()
            .map(|&(bucket, count)| (midpoint(bucket), count))
            .filter(|&(value, _)| value > threshold)
            .fold(0, |sum, (value, count)| {
                sum.saturating_add(value.saturating_sub(baseline).saturating_mul(count))
            })
    }

    /// Number of values above `threshold` nanoseconds.
    pub fn count_above(&self, threshold: u64) -> u64 {
        self.buckets
            .iter()
            .filter(|&&(bucket, _)| midpoint(bucket) > threshold)
            .map(|it| it.1)
            .sum()
    }
}

impl FromIterator<u64> for Histogram {
    fn from_iter<T: IntoIterator<Item = u64>>(values: T) -> Self {
        let mut histogram = Self::new();
        for value in values {
            histogram.record(value);
        }
        histogram
    }
}

/// Joins two rising lists bucket by bucket, leaving out zeros. `None` as soon as `join` gives `None`.
fn combine(
    left: &[(u16, u64)],
    right: &[(u16, u64)],
    join: impl Fn(u64, u64) -> Option<u64>,
) -> Option<Vec<(u16, u64)>> {
    let mut joined = Vec::with_capacity(left.len().max(right.len()));
    let (mut l, mut r) = (0, 0);
    loop {
        let (bucket, a, b) = match (left.get(l), right.get(r)) {
            (None, None) => return Some(joined),
            (Some(&(bucket, a)), None) => (bucket, a, 0),
            (None, Some(&(bucket, b))) => (bucket, 0, b),
            (Some(&(at, a)), Some(&(bt, b))) => match at.cmp(&bt) {
                Ordering::Less => (at, a, 0),
                Ordering::Equal => (at, a, b),
                Ordering::Greater => (bt, 0, b),
            },
        };
        l += usize::from(left.get(l).is_some_and(|it| it.0 == bucket));
        r += usize::from(right.get(r).is_some_and(|it| it.0 == bucket));
        let count = join(a, b)?;
        if count > 0 {
            joined.push((bucket, count));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Values spread evenly over the octaves, so that every block is met.
    fn nanoseconds() -> impl Strategy<Value = u64> {
        (0u32..36, any::<u64>()).prop_map(|(bits, noise)| {
            let low = 1u64 << bits;
            low.saturating_sub(1) + noise % low
        })
    }

    fn values() -> impl Strategy<Value = Vec<u64>> {
        prop::collection::vec(nanoseconds(), 0..300)
    }

    #[test]
    fn every_bucket_begins_where_the_one_before_ends() {
        for bucket in 0..=OVERFLOW {
            let low = lower_bound(bucket);
            assert_eq!(bucket_of(low), bucket, "lower bound {low}");
            if bucket > 0 {
                assert_eq!(bucket_of(low - 1), bucket - 1, "just below {low}");
            }
        }
    }

    #[test]
    fn seventeen_seconds_and_more_share_the_last_bucket() {
        assert_eq!(bucket_of((1 << 34) - 1), OVERFLOW - 1);
        assert_eq!(bucket_of(1 << 34), OVERFLOW);
        assert_eq!(bucket_of(u64::MAX), OVERFLOW);
    }

    #[test]
    fn a_bucket_that_does_not_exist_is_refused() {
        let error = Histogram::from_buckets([(3, 1), (1857, 1)]).unwrap_err();
        assert_eq!(error, InvalidHistogram::NoSuchBucket(1857));
    }

    #[test]
    fn a_bucket_named_twice_is_refused() {
        let error = Histogram::from_buckets([(3, 1), (3, 1)]).unwrap_err();
        assert_eq!(error, InvalidHistogram::NotAscending(3));
    }

    #[test]
    fn counts_past_64_bits_are_refused() {
        let error = Histogram::from_buckets([(3, u64::MAX), (4, 1)]).unwrap_err();
        assert_eq!(error, InvalidHistogram::TooMany);
    }

    #[test]
    fn without_values_there_is_no_percentile() {
        assert_eq!(Histogram::new().percentile(Percentile::P99), None);
        assert_eq!(Histogram::new().max(), None);
    }

    #[test]
    fn excess_counts_only_slow_values_and_only_beyond_the_baseline() {
        let histogram: Histogram = [100, 100, 100, 120].into_iter().collect();
        assert_eq!(histogram.excess(100, 110), 20);
        assert_eq!(histogram.count_above(110), 1);
        assert_eq!(histogram.excess(100, 400), 0);
    }

    proptest! {
        #[test]
        fn a_midpoint_is_within_one_percent(value in nanoseconds()) {
            prop_assume!(value < 1 << 34);
            let middle = midpoint(bucket_of(value));
            #[expect(clippy::cast_precision_loss, reason = "values stay below 2^34")]
            let error = middle.abs_diff(value) as f64 / (value.max(1)) as f64;
            prop_assert!(error <= MAX_RELATIVE_ERROR, "{value} -> {middle}: {error}");
        }

        #[test]
        fn a_percentile_is_the_nearest_rank_within_one_percent(mut all in values()) {
            prop_assume!(!all.is_empty());
            let histogram: Histogram = all.iter().copied().collect();
            all.sort_unstable();
            for (percentile, per_mille) in [
                (Percentile::P50, 500), (Percentile::P90, 900), (Percentile::P99, 990), (Percentile::P999, 999),
            ] {
                let exact = all[(per_mille * all.len()).div_ceil(1000) - 1];
                let got = histogram.percentile(percentile).unwrap();
                prop_assert_eq!(got, midpoint(bucket_of(exact)));
            }
            prop_assert_eq!(histogram.max(), all.last().map(|it| midpoint(bucket_of(*it))));
        }

        #[test]
        fn a_merge_equals_recording_everything_in_one(a in values(), b in values()) {
            let mut merged: Histogram = a.iter().copied().collect();
            merged.merge(&b.iter().copied().collect());
            let whole: Histogram = a.into_iter().chain(b).collect();
            prop_assert_eq!(merged, whole);
        }

        #[test]
        fn merging_is_commutative(a in values(), b in values()) {
            let (a, b): (Histogram, Histogram) = (a.into_iter().collect(), b.into_iter().collect());
            let (mut ab, mut ba) = (a.clone(), b.clone());
            ab.merge(&b);
            ba.merge(&a);
            prop_assert_eq!(ab, ba);
        }

        #[test]
        fn a_difference_gives_back_exactly_what_was_added(before in values(), added in values()) {
            let before: Histogram = before.into_iter().collect();
            let added: Histogram = added.into_iter().collect();
            let mut after = before.clone();
            after.merge(&added);
            prop_assert_eq!(after.since(&before), Some(added));
        }

        #[test]
        fn a_difference_to_something_larger_is_refused(before in values(), extra in nanoseconds()) {
            let before: Histogram = before.into_iter().collect();
            let mut larger = before.clone();
            larger.record(extra);
            prop_assert_eq!(before.since(&larger), None);
        }

        #[test]
        fn its_own_buckets_build_it_again(all in values()) {
            let histogram: Histogram = all.into_iter().collect();
            let again = Histogram::from_buckets(histogram.buckets().map(|(b, c)| (u32::from(b), c)));
            prop_assert_eq!(again, Ok(histogram));
        }
    }
}
