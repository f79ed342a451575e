//! Active reads, outliers and aggregation.

use std::time::Duration;

use crate::crd::spec::{ActiveReads, Aggregation, OutlierSelector, ReadMethod, Strategy};

use crate::exact::{Keep, MAX_KEPT};

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
    /// Every operation is counted, and the last ones of each map and operation have exact figures.
    SlidingWindow {
        /// How many.
        last: usize,
    },
    /// Every operation is counted, and kept as it is for the window.
    Direct,
}

impl AggregationPlan {
    /// How many operations one stands for.
    pub const fn sampling(self) -> u32 {
        match self {
            Self::Histogram | Self::SlidingWindow { .. } | Self::Direct => 1,
            Self::Sampled { one_in } => one_in,
        }
    }

    /// Which single operations are kept beside the counts. `None`: none.
    pub const fn keeps(self) -> Option<Keep> {
        match self {
            Self::Histogram | Self::Sampled { .. } => None,
            Self::SlidingWindow { last } => Some(Keep::Last(last)),
            Self::Direct => Some(Keep::All(MAX_KEPT)),
        }
    }
}

/// One in how many operations is counted where a spec does not say.
const ONE_IN: i64 = 16;
/// Least and most that it may say.
const ONE_IN_RANGE: (u32, u32) = (2, 1024);
/// How many operations have exact figures where a spec does not say.
const LAST_OPERATIONS: i64 = 4096;
/// Least and most that it may say.
const LAST_OPERATIONS_RANGE: (u32, u32) = (256, 65_536);

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
    let Some(Aggregation {
        strategy,
        one_in,
        last_operations,
    }) = aggregation
    else {
        return AggregationPlan::default();
    };
    if one_in.is_some() && *strategy != Strategy::Sampled {
        let advice = "goes with strategy Sampled only; write strategy: Sampled, or leave oneIn out";
        problems.add("spec.aggregation.oneIn", advice);
    }
    if last_operations.is_some() && *strategy != Strategy::SlidingWindow {
        let advice = "goes with strategy SlidingWindow only; write strategy: SlidingWindow, or leave lastOperations out";
        problems.add("spec.aggregation.lastOperations", advice);
    }
    match strategy {
        Strategy::Histogram => AggregationPlan::Histogram,
        Strategy::Sampled => AggregationPlan::Sampled {
            one_in: check_one_in(one_in.unwrap_or(ONE_IN), problems),
        },
        Strategy::SlidingWindow => {
            let (least, most) = LAST_OPERATIONS_RANGE;
            let asked = last_operations.unwrap_or(LAST_OPERATIONS);
            let number = problems.range("spec.aggregation.lastOperations", asked, least, most);
            AggregationPlan::SlidingWindow {
                last: usize::try_from(number).unwrap_or(usize::MAX),
            }
        }
        Strategy::Direct => AggregationPlan::Direct,
    }
}

fn check_one_in(asked: i64, problems: &mut Problems) -> u32 {
    let (least, most) = ONE_IN_RANGE;
    let one_in = u32::try_from(asked).unwrap_or_default();
    if !(least..=most).contains(&one_in) || !one_in.is_power_of_two() {
        let advice =
            format!("is {asked}; write a power of two from {least} to {most}, such as {ONE_IN}");
        problems.add("spec.aggregation.oneIn", advice);
    }
    one_in
}
