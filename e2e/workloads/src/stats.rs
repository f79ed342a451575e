//! What a record comes to. Everything here is exact; nothing is estimated.

use serde::Serialize;

use crate::clock::SECOND;
use crate::record::{Record, Times};

/// A read counts as slow when it takes more than this many times the median.
pub(crate) const SLOW_FACTOR: u64 = 4;

/// Percentiles by nearest rank: the smallest time that at least `p` of all times do not exceed,
/// which is the one at position `ceil(p * n)` in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Percentiles {
    /// The least.
    #[serde(rename = "minNanoseconds")]
    pub(crate) min: u64,
    /// Half of all.
    #[serde(rename = "p50Nanoseconds")]
    pub(crate) p50: u64,
    /// 90 %.
    #[serde(rename = "p90Nanoseconds")]
    pub(crate) p90: u64,
    /// 99 %.
    #[serde(rename = "p99Nanoseconds")]
    pub(crate) p99: u64,
    /// 99.9 %.
    #[serde(rename = "p999Nanoseconds")]
    pub(crate) p999: u64,
    /// 99.99 %.
    #[serde(rename = "p9999Nanoseconds")]
    pub(crate) p9999: u64,
    /// The greatest.
    #[serde(rename = "maxNanoseconds")]
    pub(crate) max: u64,
}

impl Percentiles {
    /// The percentiles of times in ascending order; none of no times.
    pub(crate) fn of(sorted: &Times) -> Option<Self> {
        let last = sorted.len().checked_sub(1)?;
        Some(Self {
            min: sorted.at(0),
            p50: nearest_rank(sorted, 5_000),
            p90: nearest_rank(sorted, 9_000),
            p99: nearest_rank(sorted, 9_900),
            p999: nearest_rank(sorted, 9_990),
            p9999: nearest_rank(sorted, 9_999),
            max: sorted.at(last),
        })
    }
}

/// The time at rank `ceil(p * n)`, with `p` in ten-thousandths. `sorted` is not empty.
fn nearest_rank(sorted: &Times, p: usize) -> u64 {
    let rank = (sorted.len() * p).div_ceil(10_000).max(1);
    sorted.at(rank - 1)
}

/// The reads slower than [`SLOW_FACTOR`] times the median, and what they cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Slow {
    /// A slow read takes longer than this.
    pub(crate) threshold_nanoseconds: u64,
    /// How many there were.
    pub(crate) reads: u64,
    /// What they took beyond a median read each, together.
    pub(crate) lost_nanoseconds: u64,
    /// The same as a share of the run, 0 to 1.
    pub(crate) lost_share: f64,
}

/// The second of the run in which slow reads cost the most time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WorstSecond {
    /// When it began, from the start of the run.
    pub(crate) start_nanoseconds: u64,
    /// Reads that began in it.
    pub(crate) reads: u64,
    /// Their 99th percentile.
    pub(crate) p99_nanoseconds: u64,
    /// The longest of them.
    pub(crate) max_nanoseconds: u64,
    /// What its slow reads took beyond a median read each.
    pub(crate) lost_nanoseconds: u64,
    /// The same as a share of this second. A read counts in the second it began in, as a whole,
    /// so a stall of more than a second makes this more than 1.
    pub(crate) lost_share: f64,
}

/// Everything that is computed from a record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stats {
    /// Of the latencies.
    pub(crate) latencies: Percentiles,
    /// Of how late paced reads began.
    pub(crate) delays: Option<Percentiles>,
    /// The slow reads.
    pub(crate) slow: Slow,
    /// The worst second.
    pub(crate) worst_second: WorstSecond,
}

impl Stats {
    /// Evaluates the record of a run that ended `elapsed` after it began; none without a read.
    pub(crate) fn of(record: &Record, elapsed: u64) -> Option<Self> {
        let times = record.latencies();
        let latencies = Percentiles::of(&times.sorted(0, times.len()))?;
        let median = latencies.p50;
        let threshold_nanoseconds = median * SLOW_FACTOR;
        let slow = |time: &u64| *time > threshold_nanoseconds;
        let lost_nanoseconds = lost(times.iter(), median);
        Some(Self {
            latencies,
            delays: Percentiles::of(&record.delays().sorted(0, record.delays().len())),
            slow: Slow {
                threshold_nanoseconds,
                reads: times.iter().filter(slow).count() as u64,
                lost_nanoseconds,
                lost_share: share(lost_nanoseconds, elapsed),
            },
            worst_second: worst_second(record, median, elapsed)?,
        })
    }
}

fn worst_second(record: &Record, median: u64, elapsed: u64) -> Option<WorstSecond> {
    let times = record.latencies();
    let cost = |first, end| {
        let range = times.range(first, end);
        // Seconds in which nothing was lost still differ in their longest read.
        (lost(range.clone(), median), range.max())
    };
    let (second, (first, end)) = record
        .seconds()
        .enumerate()
        .max_by_key(|&(_, (first, end))| cost(first, end))?;
    let sorted = times.sorted(first, end);
    let Percentiles { p99, max, .. } = Percentiles::of(&sorted)?;
    let start_nanoseconds = second as u64 * SECOND;
    let length = elapsed.saturating_sub(start_nanoseconds).min(SECOND);
    let lost_nanoseconds = lost(sorted.iter(), median);
    Some(WorstSecond {
        start_nanoseconds,
        reads: sorted.len() as u64,
        p99_nanoseconds: p99,
        max_nanoseconds: max,
        lost_nanoseconds,
        lost_share: share(lost_nanoseconds, length),
    })
}

/// The time that the slow ones among `times` took beyond a median read each.
fn lost(times: impl Iterator<Item = u64>, median: u64) -> u64 {
    times
        .filter(|&time| time > median * SLOW_FACTOR)
        .map(|time| time - median)
        .sum()
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a share needs no more than the 15 digits of an f64"
)]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    part as f64 / whole as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::MILLISECOND;

    fn sorted(times: impl IntoIterator<Item = u64>) -> Times {
        let times: Vec<u64> = times.into_iter().collect();
        let mut list = Times::with_capacity(times.len()).unwrap();
        for time in &times {
            list.push(*time);
        }
        list.sorted(0, times.len())
    }

    /// A record of reads every millisecond, each as long as `latency` says.
    fn record(seconds: u64, latency: impl Fn(u64) -> u64) -> Record {
        let reads = seconds * 1_000;
        let mut record = Record::new(usize::try_from(reads).unwrap(), true).unwrap();
        record.begin(77);
        for read in 0..reads {
            record.push(77 + read * MILLISECOND, latency(read), read % 10);
        }
        record
    }

    #[test]
    fn percentiles_are_the_nearest_rank() {
        let of = |count| Percentiles::of(&sorted((1..=count).rev())).unwrap();

        let hundred = of(100);
        assert_eq!((hundred.p50, hundred.p90, hundred.p99), (50, 90, 99));
        assert_eq!((hundred.p999, hundred.p9999, hundred.max), (100, 100, 100));
        let many = of(20_000);
        assert_eq!((many.p50, many.p999, many.p9999), (10_000, 19_980, 19_998));
        let few = of(3);
        assert_eq!((few.min, few.p50, few.p90, few.max), (1, 2, 3, 3));
        assert_eq!(of(1).p50, 1);
    }

    #[test]
    fn no_reads_have_no_percentiles() {
        assert_eq!(Percentiles::of(&sorted([])), None);
        assert_eq!(Stats::of(&record(0, |_| 1), SECOND), None);
    }

    #[test]
    fn time_is_lost_only_by_reads_over_four_medians_and_beyond_the_median() {
        let record = record(10, |read| match read {
            10 => 400,
            20 => 401,
            30 => 1_000_100,
            _ => 100,
        });

        let slow = Stats::of(&record, 10 * SECOND).unwrap().slow;

        assert_eq!(slow.threshold_nanoseconds, 400);
        assert_eq!(slow.reads, 2);
        assert_eq!(slow.lost_nanoseconds, 301 + 1_000_000);
        assert!((slow.lost_share - 1_000_301.0 / 1e10).abs() < 1e-12);
    }

    #[test]
    fn the_worst_second_is_the_one_that_lost_most_and_not_the_one_with_the_longest_read() {
        let record = record(5, |read| match read {
            1_500 => 4 * MILLISECOND,
            3_000..3_020 => MILLISECOND,
            _ => 500,
        });

        let worst = Stats::of(&record, 5 * SECOND).unwrap().worst_second;

        assert_eq!(worst.start_nanoseconds, 3 * SECOND);
        assert_eq!(worst.reads, 1_000);
        assert_eq!(worst.p99_nanoseconds, MILLISECOND);
        assert_eq!(worst.max_nanoseconds, MILLISECOND);
        assert_eq!(worst.lost_nanoseconds, 20 * (MILLISECOND - 500));
        assert!((worst.lost_share - 0.019_99).abs() < 1e-9);
    }

    #[test]
    fn in_a_calm_run_the_worst_second_has_the_longest_read() {
        let record = record(3, |read| if read == 2_500 { 700 } else { 500 });

        let worst = Stats::of(&record, 3 * SECOND).unwrap().worst_second;

        assert_eq!(worst.start_nanoseconds, 2 * SECOND);
        assert_eq!((worst.max_nanoseconds, worst.lost_nanoseconds), (700, 0));
    }

    #[test]
    fn the_share_of_a_last_part_of_a_second_is_of_that_part() {
        let record = record(2, |read| match read {
            1_100 => 100 * MILLISECOND + 500,
            _ => 500,
        });

        let worst = Stats::of(&record, SECOND + 200 * MILLISECOND)
            .unwrap()
            .worst_second;

        assert!((worst.lost_share - 0.5).abs() < 1e-9);
    }
}
