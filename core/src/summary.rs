//! Merges what nodes measured into the status that users read.

mod exact;
mod outliers;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use k8s_openapi::jiff::Timestamp;

use crate::callers::{CallerIdentity, CallerRow};
use crate::crd::callers::{CallerStatus, ProcessStatus};
use crate::crd::nodes::NodeCounts;
use crate::crd::spikes::SpikeStatus;
use crate::crd::status::{
    ActiveStatus, EntriesStatus, LossCount, MapLatencyProbeStatus, MapReference, OperationStatus,
    OutcomeStatus, Percentiles, SlowRow, SummaryText, WorstSecond,
};
use crate::histogram::{Histogram, Percentile};
use crate::measure::{Counts, Place, WorstSlice, by_place, parts_per_million, time_lost};
use crate::node_window::NodeWindow;
use crate::spikes::Spike;
use crate::units;
use crate::vocabulary::{Operation, Outcome};

/// Rows kept in `status.slowest`.
const SLOWEST: usize = 10;

/// Named rows, and rows of others, kept in `status.callers`.
const CALLERS: usize = 10;

/// Spikes kept in `status.spikes`.
const SPIKES: usize = 10;
/// CPUs that each of them names.
const CPUS: usize = 1024;

/// Computes a whole status. Conditions and node counts are the caller's: only it knows who is missing. So are the
/// agents, of which the windows tell nothing ([`crate::agents`]), and the objectives, whose states depend on what they were
/// ([`MapLatencyProbeStatus::with_objectives`]).
pub fn status(
    windows: &[NodeWindow],
    nodes: NodeCounts,
    conditions: Vec<Condition>,
    observed_generation: Option<i64>,
) -> MapLatencyProbeStatus {
    MapLatencyProbeStatus {
        observed_generation,
        conditions,
        matched_maps: matched_maps(windows),
        sampled_one_in: sampled_one_in(windows),
        summary: summary_text(windows, &nodes),
        nodes,
        objectives: vec![],
        operations: operations(windows),
        slowest: slowest(windows),
        spikes: spikes(windows),
        outliers: outliers::status(windows),
        exact: exact::status(windows),
        callers: callers(windows),
        losses: losses(windows),
        agents: None,
    }
}

/// Distinct maps: nodes that share a kernel see the same ones.
pub fn matched_maps(windows: &[NodeWindow]) -> i64 {
    let distinct: BTreeSet<(&str, u32)> = windows
        .iter()
        .flat_map(|it| it.maps.iter().map(|map| (it.boot_id.as_str(), map.id)))
        .collect();
    signed(distinct.len() as u64)
}

fn sampled_one_in(windows: &[NodeWindow]) -> Option<i64> {
    let highest = windows.iter().map(|it| it.sampling).max()?;
    (highest > 1).then(|| highest.into())
}

fn summary_text(windows: &[NodeWindow], nodes: &NodeCounts) -> SummaryText {
    let mut reads = Histogram::new();
    for (key, counts) in windows.iter().flat_map(|it| &it.rows) {
        if key.operation.is_read() {
            reads.merge(&counts.until_user);
        }
    }
    let estimated = sampled_one_in(windows).map_or("", |_| "~");
    let text = |percentile| reads.percentile(percentile).map(units::duration);
    SummaryText {
        nodes: Some(format!("{}/{}", nodes.ready, nodes.selected)),
        reads: Some(format!("{estimated}{}", units::count(reads.count()))),
        p50: text(Percentile::P50),
        p99: text(Percentile::P99),
        p999: text(Percentile::P999),
        max: reads.max().map(units::duration),
        objectives: None,
    }
}

fn operations(windows: &[NodeWindow]) -> Vec<OperationStatus> {
    let mut merged: BTreeMap<Operation, BTreeMap<Outcome, Counts>> = BTreeMap::new();
    for (key, counts) in windows.iter().flat_map(|it| &it.rows) {
        let outcomes = merged.entry(key.operation).or_default();
        outcomes.entry(key.outcome).or_default().merge(counts);
    }
    merged
        .into_iter()
        .map(|(operation, outcomes)| {
            let mut counts = Counts::default();
            for it in outcomes.values() {
                counts.merge(it);
            }
            OperationStatus {
                operation,
                count: signed(counts.until_user.count()),
                until_user: percentiles(&counts.until_user),
                kernel_window: percentiles(&counts.kernel_window),
                outcomes: outcomes
                    .iter()
                    .filter_map(|(outcome, counts)| outcome_status(*outcome, counts))
                    .collect(),
                entries: operation.is_batch().then(|| entries(&counts)).flatten(),
                moved: signed(counts.moved),
                worst_second: worst_second(windows, operation),
                active: active(&counts),
            }
        })
        .collect()
}

fn outcome_status(outcome: Outcome, counts: &Counts) -> Option<OutcomeStatus> {
    Some(OutcomeStatus {
        outcome,
        count: signed(counts.until_user.count()),
        until_user: percentiles(&counts.until_user)?,
    })
}

fn entries(counts: &Counts) -> Option<EntriesStatus> {
    // Over a value of a bucket the middle of which stands for it, so within the same 0.79 %.
    let spent = counts.kernel_window.sum();
    (counts.entries > 0).then(|| EntriesStatus {
        count: signed(counts.entries),
        mean_nanoseconds: signed(spent / counts.entries),
    })
}

fn active(counts: &Counts) -> Option<ActiveStatus> {
    Some(ActiveStatus {
        count: signed(counts.active_read.count()),
        read: percentiles(&counts.active_read)?,
        start_delay: percentiles(&counts.active_delay)?,
    })
}

fn worst_second(windows: &[NodeWindow], operation: Operation) -> Option<WorstSecond> {
    let (window, key, worst) = windows
        .iter()
        .flat_map(|window| window.worst.iter().map(move |(key, it)| (window, key, it)))
        .filter(|(_, key, _)| key.operation == operation)
        .max_by_key(|(_, _, it)| it.badness())?;
    let WorstSlice {
        start_unix_microseconds,
        count,
        p99_nanoseconds,
        max_nanoseconds,
        time_lost_parts_per_million,
    } = worst;
    Some(WorstSecond {
        start_time: MicroTime(Timestamp::from_microsecond(*start_unix_microseconds).ok()?),
        node: window.node.clone(),
        map: reference(window, key.map_id),
        cpu: cpu_number(key.cpu),
        count: signed(*count),
        p99_nanoseconds: signed(*p99_nanoseconds),
        max_nanoseconds: signed(*max_nanoseconds),
        time_lost_parts_per_million: signed(*time_lost_parts_per_million),
    })
}

fn slowest(windows: &[NodeWindow]) -> Vec<SlowRow> {
    let mut rows: Vec<SlowRow> = windows
        .iter()
        .flat_map(|window| {
            by_place(&window.rows)
                .into_iter()
                .filter_map(move |(place, counts)| slow_row(window, &place, &counts))
        })
        .collect();
    rows.sort_by_key(|it| {
        std::cmp::Reverse((
            it.time_lost_parts_per_million,
            it.until_user.p99_nanoseconds,
            it.until_user.max_nanoseconds,
        ))
    });
    rows.truncate(SLOWEST);
    rows
}

fn slow_row(window: &NodeWindow, key: &Place, counts: &Counts) -> Option<SlowRow> {
    let median = counts.until_user.percentile(Percentile::P50)?;
    let lost = time_lost(&counts.until_user, median);
    Some(SlowRow {
        map: reference(window, key.map_id),
        operation: key.operation,
        node: window.node.clone(),
        cpu: cpu_number(key.cpu),
        count: signed(counts.until_user.count()),
        until_user: percentiles(&counts.until_user)?,
        time_lost_parts_per_million: signed(parts_per_million(
            lost,
            window.span.max(Duration::from_secs(1)),
        )),
    })
}

fn spikes(windows: &[NodeWindow]) -> Vec<SpikeStatus> {
    let mut spikes: Vec<(&NodeWindow, &Spike)> = windows
        .iter()
        .flat_map(|window| window.spikes.iter().map(move |it| (window, it)))
        .collect();
    spikes.sort_by_key(|(_, it)| std::cmp::Reverse(it.time_lost_parts_per_million));
    let nanoseconds = |it: Duration| signed(u64::try_from(it.as_nanos()).unwrap_or(u64::MAX));
    spikes
        .into_iter()
        .take(SPIKES)
        .filter_map(|(window, it)| {
            let last = Timestamp::from_microsecond(it.last_unix_microseconds).ok()?;
            let cpus = it.cpus.iter().take(CPUS);
            Some(SpikeStatus {
                node: window.node.clone(),
                map: reference(window, it.map_id),
                operation: it.operation,
                cpus: cpus.copied().map(cpu_number).collect(),
                count: signed(it.count),
                last_time: MicroTime(last),
                period_nanoseconds: it.period.map(nanoseconds),
                duration_nanoseconds: nanoseconds(it.duration),
                p99_nanoseconds: signed(it.p99_nanoseconds),
                max_nanoseconds: signed(it.max_nanoseconds),
                time_lost_parts_per_million: signed(it.time_lost_parts_per_million),
            })
        })
        .collect()
}

/// Named ones first, by time spent; all that are not told apart fit behind them, but for those of very many maps.
fn callers(windows: &[NodeWindow]) -> Vec<CallerStatus> {
    let mut rows: Vec<(&NodeWindow, &CallerRow)> = windows
        .iter()
        .flat_map(|window| window.callers.iter().map(move |it| (window, it)))
        .collect();
    rows.sort_by_key(|(_, it)| {
        let spent = std::cmp::Reverse(it.time_spent_parts_per_million);
        (it.caller.is_none(), spent)
    });
    let (named, others): (Vec<_>, Vec<_>) = rows.into_iter().partition(|it| it.1.caller.is_some());
    let named = named.into_iter().take(CALLERS);
    named
        .chain(others.into_iter().take(CALLERS))
        .map(|(window, row)| CallerStatus {
            node: window.node.clone(),
            map: reference(window, row.map_id),
            operation: row.operation,
            process: row.caller.as_ref().and_then(process),
            callers: signed(row.callers),
            count: signed(row.count),
            p50_nanoseconds: signed(row.p50_nanoseconds),
            p99_nanoseconds: signed(row.p99_nanoseconds),
            max_nanoseconds: signed(row.max_nanoseconds),
            time_spent_parts_per_million: signed(row.time_spent_parts_per_million),
            time_lost_parts_per_million: signed(row.time_lost_parts_per_million),
        })
        .collect()
}

fn process(caller: &CallerIdentity) -> Option<ProcessStatus> {
    Some(ProcessStatus {
        pid: i64::from(caller.pid),
        start_time: MicroTime(Timestamp::from_microsecond(caller.start_unix_microseconds).ok()?),
        command: caller.command.clone(),
        cgroup: Some(caller.cgroup.clone()).filter(|it| !it.is_empty()),
        pod_uid: caller.container.pod_uid.clone(),
        container_id: caller.container.container_id.clone(),
    })
}

fn losses(windows: &[NodeWindow]) -> Vec<LossCount> {
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for (kind, count) in windows.iter().flat_map(|it| &it.losses) {
        let sum = sums.entry(kind).or_default();
        *sum = sum.saturating_add(*count);
    }
    sums.into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(kind, count)| LossCount {
            kind: kind.to_owned(),
            count: signed(count),
        })
        .collect()
}

fn percentiles(histogram: &Histogram) -> Option<Percentiles> {
    let at = |percentile| histogram.percentile(percentile).map(signed);
    Some(Percentiles {
        p50_nanoseconds: at(Percentile::P50)?,
        p90_nanoseconds: at(Percentile::P90)?,
        p99_nanoseconds: at(Percentile::P99)?,
        p999_nanoseconds: at(Percentile::P999)?,
        max_nanoseconds: histogram.max().map(signed)?,
    })
}

/// A map that has gone keeps its rows for the rest of the window, and its identity with them if it is known.
fn reference(window: &NodeWindow, id: u32) -> MapReference {
    let known = window
        .maps
        .iter()
        .chain(&window.gone)
        .find(|it| it.id == id);
    MapReference {
        id: i64::from(id),
        name: known.map(|it| it.name.clone()).unwrap_or_default(),
        map_type: known.and_then(|it| it.map_type),
    }
}

fn cpu_number(cpu: u32) -> i32 {
    i32::try_from(cpu).unwrap_or(i32::MAX)
}

/// The API has no unsigned integers.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
