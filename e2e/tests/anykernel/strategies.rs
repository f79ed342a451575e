//! What samples stand for, and operations that are handed over one by one.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use maplatency_agent::monitor::{Monitor, ProbeSnapshot};
use maplatency_core::histogram::{Histogram, Percentile, bucket_of};
use maplatency_core::vocabulary::{MapType, Operation};
use maplatency_e2e::caller::{Caller, Job};
use maplatency_e2e::measure::{request, snapshot, total};

use crate::{KERNEL, losses, may_skip, start, thread};

/// How far a count may be off for which one call in so many is chosen, each by chance.
///
/// The number chosen is binomial with the variance calls × 1/k × (1 − 1/k). It is told k times, which has a standard
/// deviation of √(calls × (k − 1)). Beyond five of them lies one count in 1.7 million.
fn five_deviations(calls: u64, one_in: u64) -> u64 {
    5 * (calls * (one_in - 1)).isqrt() + 1
}

/// Holds every operation's estimate against what was called. Where the kernel skips hooks, the lost ones are missing.
fn assert_estimates(probe: &ProbeSnapshot, calls: u64, one_in: u64, lost: u64) {
    let mut by_operation: BTreeMap<Operation, u64> = BTreeMap::new();
    for (key, counts) in &probe.cumulative {
        for histogram in [&counts.until_user, &counts.kernel_window] {
            for (bucket, count) in histogram.buckets() {
                assert_eq!(count % one_in, 0, "{key:?}: bucket {bucket} has {count}");
            }
        }
        assert_eq!(counts.until_user.count(), counts.kernel_window.count());
        *by_operation.entry(key.operation).or_default() += counts.until_user.count();
    }
    assert_eq!(by_operation.len(), 2, "{by_operation:?}");
    let most = five_deviations(calls, one_in);
    for (operation, estimate) in by_operation {
        let off = estimate.abs_diff(calls);
        println!(
            "{}: {operation}: {estimate} of {calls}, off by {off} of {most}",
            probe.name
        );
        assert!(
            off <= most + lost * one_in,
            "{operation}: {estimate} of {calls}"
        );
    }
    assert_eq!(u64::from(probe.sampling), one_in);
}

/// Where the median of some operations ranks among all, in parts per million: the least and the greatest rank of its
/// bucket.
fn ranks_of_median(all: &Histogram, some: &Histogram) -> Result<(u64, u64)> {
    let median = some.percentile(Percentile::P50).context("no operation")?;
    let bucket = bucket_of(median);
    let below = |most: u16| -> u64 {
        let buckets = all.buckets().filter(|it| it.0 < most);
        buckets.map(|it| it.1).sum::<u64>() * 1_000_000 / all.count()
    };
    Ok((below(bucket), below(bucket + 1)))
}

/// Does a job while probes with these aggregations measure its map, and gives what each counted, and what was lost.
async fn sampled(
    monitor: &Monitor,
    job: &Job,
    aggregations: &[&str],
) -> Result<(Vec<ProbeSnapshot>, u64)> {
    let mut caller = Caller::start(job)?;
    let spec = |aggregation: &str| {
        let id = caller.map_id();
        format!("{{maps: [{{ids: [{id}]}}], aggregation: {aggregation}}}")
    };
    let requests = aggregations.iter().map(|it| request(it, &spec(it)));
    monitor.measure(requests.collect::<Result<_>>()?)?;
    let before = monitor.snapshots().borrow().losses.clone();
    for name in aggregations {
        snapshot(monitor, "the caller's map", name, |it| it.maps.len() == 1).await?;
    }
    tokio::task::block_in_place(|| caller.work())?;
    // Its threads have ended, so the next drain sees all that they did. A slice may be under way, which had drained before:
    // the snapshot after its own is of one that began later.
    let mut snapshots = monitor.snapshots();
    snapshots.borrow_and_update();
    for _ in 0..2 {
        snapshots.changed().await?;
    }
    let last = Arc::clone(&snapshots.borrow());
    let missing = losses(&before, &last).values().sum();
    let of = |name: &&str| last.probes.iter().find(|it| it.name == *name).cloned();
    let probes: Option<Vec<_>> = aggregations.iter().map(of).collect();
    Ok((probes.context("a probe has gone")?, missing))
}

/// Two operations by turns: of these a fixed stride would see one only.
fn by_turns(rounds: u64) -> Job {
    Job {
        map_type: MapType::Hash,
        threads: vec![thread(
            &[Operation::Lookup, Operation::GetNextKey],
            rounds,
            &[],
        )],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_is_handed_over_or_counted_as_missed() -> Result<()> {
    const CALLS: u64 = 20_000;
    let _alone = KERNEL.lock().await;
    let monitor = start()?;
    let aggregations = [
        "{strategy: Direct}",
        "{strategy: SlidingWindow, lastOperations: 256}",
        "{}",
    ];
    let (probes, lost) = sampled(&monitor, &by_turns(CALLS), &aggregations).await?;
    ensure!(may_skip(&monitor) || lost == 0, "{lost} lost");
    assert_eq!(probes[2].exact, []);
    for operation in [Operation::Lookup, Operation::GetNextKey] {
        let row = |probe: &ProbeSnapshot| {
            let mut rows = probe.exact.iter();
            let row = rows.find(|it| it.operation == operation).cloned();
            row.context("no exact figures")
        };
        let (direct, newest) = (row(&probes[0])?, row(&probes[1])?);
        let told = direct.count + direct.missed;
        assert!(
            told <= CALLS && CALLS <= told + lost,
            "{direct:?}, {lost} lost"
        );
        assert_eq!(direct.let_go, 0);
        // On a slow machine the ring buffer may be full at times.
        ensure!(direct.count > CALLS / 10, "{direct:?}");
        assert_eq!((newest.count, newest.let_go), (256, 0));
    }
    monitor.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_operation_in_eight_counts_for_all_of_them() -> Result<()> {
    const CALLS: u64 = 200_000;
    let _alone = KERNEL.lock().await;
    let monitor = start()?;
    let aggregation = "{strategy: Sampled, oneIn: 8}";
    let (probes, lost) = sampled(&monitor, &by_turns(CALLS), &[aggregation]).await?;
    let [probe] = &probes[..] else {
        bail!("not one probe");
    };
    ensure!(may_skip(&monitor) || lost == 0, "{lost} lost");
    assert_estimates(probe, CALLS, 8, lost);
    let callers: u64 = probe.callers.iter().map(|it| it.count).sum();
    assert_eq!(callers, total(probe).until_user.count());
    monitor.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_samples_a_probe_that_counts_all_is_exact() -> Result<()> {
    const CALLS: u64 = 200_000;
    let _alone = KERNEL.lock().await;
    let monitor = start()?;
    let aggregations = [
        "{strategy: Histogram}",
        "{strategy: Sampled, oneIn: 8}",
        "{strategy: Sampled, oneIn: 64}",
    ];
    let (probes, lost) = sampled(&monitor, &by_turns(CALLS), &aggregations).await?;
    let all = total(&probes[0]).until_user;
    if may_skip(&monitor) {
        assert!(all.count() <= 2 * CALLS);
    } else {
        assert_eq!((all.count(), lost), (2 * CALLS, 0));
    }
    for (probe, one_in) in probes[1..].iter().zip([8, 64]) {
        assert_estimates(probe, CALLS, one_in, lost);
        // The rank of the median of n operations has the standard deviation 1/2 × 1/√n.
        let most = 5 * 500_000 / (2 * CALLS / one_in).isqrt();
        let (least, greatest) = ranks_of_median(&all, &total(probe).until_user)?;
        println!("the median has the rank {least} to {greatest}, ± {most}");
        assert!(least <= 500_000 + most && 500_000 <= greatest + most);
    }
    monitor.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_batches_moved_is_estimated_and_readers_are_never_sampled() -> Result<()> {
    const CALLS: u64 = 20_000;
    let _alone = KERNEL.lock().await;
    let monitor = start()?;
    let job = Job {
        map_type: MapType::Hash,
        threads: vec![thread(&[Operation::LookupBatch], CALLS, &[])],
    };
    let mut caller = Caller::start(&job)?;
    let id = caller.map_id();
    let spec = format!(
        "{{maps: [{{ids: [{id}]}}], aggregation: {{strategy: Sampled, oneIn: 64}}, \
         activeReads: {{cpus: '0', periodMilliseconds: 20}}}}"
    );
    monitor.measure(vec![request("batches", &spec)?])?;
    tokio::task::block_in_place(|| caller.work())?;
    let seen_by = |it: &ProbeSnapshot| {
        let readers = it.readers.iter();
        let lookups = readers.filter(|it| it.0.operation == Operation::Lookup);
        let by_kernel: u64 = lookups.map(|it| it.1.until_user.count()).sum();
        (by_kernel, total(it).active_read.count())
    };
    // If each counted for 64, the number would be a multiple of that for ever.
    let (probe, _) = snapshot(&monitor, "reads by the agent", "batches", |it| {
        let (by_kernel, by_reader) = seen_by(it);
        by_reader >= 200 && by_kernel % 64 != 0
    })
    .await?;
    let (by_kernel, by_reader) = seen_by(&probe);
    println!("{by_reader} active reads, of which the kernel side saw {by_kernel}");
    if !may_skip(&monitor) {
        // The reader counts on while the kernel side is read, which in a virtual machine takes a tenth of a second.
        assert!(
            by_reader.abs_diff(by_kernel) <= 8,
            "{by_kernel} of {by_reader}"
        );
    }
    for (key, counts) in &probe.cumulative {
        if key.operation == Operation::LookupBatch {
            assert_eq!(counts.entries % 64, 0);
            let per_call = counts.entries / counts.until_user.count();
            assert!((1..=32).contains(&per_call), "{per_call} entries a call");
        }
    }
    monitor.stop()?;
    Ok(())
}
