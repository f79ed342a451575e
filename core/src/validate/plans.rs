//! Active reads, outliers and aggregation.

use std::time::Duration;

use crate::crd::spec::{ActiveReads, Aggregation, OutlierSelector, ReadMethod, Strategy};

use super::CpuChoice;
use super::problems::Problems;

/// Reads by pinned threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActivePlan {
    /// Where to read from.
    pub cpus: CpuChoice,
    /// Time between two reads of a map on a CPU.
    pub period: Duration,
    /// How to read.
    pub method: ReadMethod,
}

/// Which operations are outliers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlierPlan {
    /// From how long on. `None`: as the window so far says.
    pub threshold: Option<Duration>,
    /// How many to tell in a second.
    pub per_second: u32,
}

impl OutlierPlan {
    /// The threshold that holds where the window has not said one.
    pub fn fixed_nanoseconds(&self) -> u64 {
        let nanoseconds = self.threshold.map(|it| u64::try_from(it.as_nanos()));
        nanoseconds.and_then(Result::ok).unwrap_or(u64::MAX)
    }
}

/// How operations become figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AggregationPlan {
    /// Every operation is counted.
    #[default]
    Histogram,
    /// One operation in so many is counted, for all of them.
    Sampled {
        /// A power of two.
        one_in: u32,
    },
}

impl AggregationPlan {
    /// How many operations one stands for.
    pub const fn sampling(self) -> u32 {
        match self {
            Self::Histogram => 1,
            Self::Sampled { one_in } => one_in,
        }
    }
}

/// One in how many operations is counted where a spec does not say.
const ONE_IN: i64 = 16;
/// Least and most that it may say.
const ONE_IN_RANGE: (u32, u32) = (2, 1024);

pub(super) fn check_outliers(outliers: &OutlierSelector, problems: &mut Problems) -> OutlierPlan {
    let OutlierSelector {
        threshold_microseconds,
        per_second,
    } = outliers;
    let field = "spec.outliers.thresholdMicroseconds";
    let per_second = problems.range("spec.outliers.perSecond", *per_second, 1, 1_000);
    OutlierPlan {
        threshold: threshold_microseconds
            .map(|it| Duration::from_micros(problems.range(field, it, 1, 10_000_000))),
        per_second: u32::try_from(per_second).unwrap_or(u32::MAX),
    }
}

pub(super) fn check_active(active: &ActiveReads, problems: &mut Problems) -> Option<ActivePlan> {
    let ActiveReads {
        cpus,
        period_milliseconds,
        method,
    } = active;
    let period = problems.range(
        "spec.activeReads.periodMilliseconds",
        *period_milliseconds,
        10,
        60_000,
    );
    match cpus.parse() {
        Ok(cpus) => Some(ActivePlan {
            cpus,
            period: Duration::from_millis(period),
            method: *method,
        }),
        Err(error) => {
            problems.add("spec.activeReads.cpus", format!("{cpus:?} {error}"));
            None
        }
    }
}

pub(super) fn check_aggregation(
    aggregation: Option<&Aggregation>,
    problems: &mut Problems,
) -> AggregationPlan {
    const FIELD: &str = "spec.aggregation.oneIn";
    let Some(Aggregation { strategy, one_in }) = aggregation else {
        return AggregationPlan::default();
    };
    match (strategy, one_in) {
        (Strategy::Histogram, None) => AggregationPlan::Histogram,
        (Strategy::Histogram, Some(_)) => {
            let advice =
                "goes with strategy Sampled only; write strategy: Sampled, or leave oneIn out";
            problems.add(FIELD, advice);
            AggregationPlan::Histogram
        }
        (Strategy::Sampled, one_in) => {
            let (least, most) = ONE_IN_RANGE;
            let asked = one_in.unwrap_or(ONE_IN);
            let one_in = u32::try_from(asked).unwrap_or_default();
            if !(least..=most).contains(&one_in) || !one_in.is_power_of_two() {
                let advice = format!(
                    "is {asked}; write a power of two from {least} to {most}, such as {ONE_IN}"
                );
                problems.add(FIELD, advice);
            }
            AggregationPlan::Sampled { one_in }
        }
    }
}
