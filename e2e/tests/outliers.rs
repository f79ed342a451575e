//! Slow operations are told one by one, with what really happened to them, and none goes uncounted.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use maplatency_agent::engine::TierChoice;
use maplatency_agent::monitor::{Monitor, ProbeSnapshot};
use maplatency_core::outliers::{OutlierCounts, Outliers};
use maplatency_core::vocabulary::{MapType, Operation};
use maplatency_e2e::caller::{Caller, Job, Thread};
use maplatency_e2e::measure::{request, snapshot, total};
use maplatency_e2e::workload::Workload;
use tokio::sync::Mutex;

/// The tests share the kernel, and each has to have all of it.
static KERNEL: Mutex<()> = Mutex::const_new(());

fn outliers(probe: &ProbeSnapshot) -> Result<&Outliers> {
    probe.outliers.as_ref().context("the probe tells none")
}

fn all(counts: OutlierCounts) -> u64 {
    counts.told + counts.held_back + counts.dropped
}

async fn counted(monitor: &Monitor, name: &str, calls: u64) -> Result<ProbeSnapshot> {
    let all = |it: &ProbeSnapshot| total(it).until_user.count() >= calls;
    Ok(snapshot(monitor, "every call", name, all).await?.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_sleeps_is_told_with_its_sleep() -> Result<()> {
    const CALLS: u64 = 20;
    let _alone = KERNEL.lock().await;
    let monitor = Monitor::start(TierChoice::Auto)?;
    let mut caller = Caller::sleeper(CALLS)?;
    let (id, pid) = (caller.map_id(), caller.pid());
    let spec = format!(
        "{{maps: [{{ids: [{id}]}}], operations: [Update], outliers: {{thresholdMicroseconds: 20}}}}"
    );
    monitor.measure(vec![request("sleeps", &spec)?])?;
    snapshot(&monitor, "the map", "sleeps", |it| it.maps.len() == 1).await?;
    tokio::task::block_in_place(|| caller.work())?;
    let probe = counted(&monitor, "sleeps", CALLS).await?;

    let told = outliers(&probe)?;
    let times: Vec<u64> = told
        .slowest
        .iter()
        .map(|it| it.until_user_nanoseconds)
        .collect();
    let slowest = total(&probe)
        .until_user
        .max()
        .context("nothing was counted")?;
    let longest = *times.first().context("no outlier was told")?;
    // The maximum of a histogram is the middle of a bucket.
    ensure!(
        longest.abs_diff(slowest) <= slowest / 100,
        "{longest} of {slowest}"
    );
    assert_eq!((all(told.counts), told.counts.told), (CALLS, CALLS));
    for it in &told.slowest {
        assert_eq!((it.map_id, it.operation), (id, Operation::Update));
        assert_eq!((it.key_size, it.entries), (4, 0));
        assert_eq!((it.caller.pid, it.caller.tid), (pid, pid));
        assert_eq!(it.caller.command, "maplatency-call");
        let evidence = &it.evidence;
        ensure!(evidence.voluntary_switches >= 1, "{it:?}");
        // It sleeps in the call, so that both latencies have all of it.
        ensure!(
            evidence.off_cpu_nanoseconds > it.until_user_nanoseconds / 2
                && evidence.off_cpu_nanoseconds < it.kernel_window_nanoseconds
                && evidence.run_delay_nanoseconds <= evidence.off_cpu_nanoseconds,
            "{it:?}"
        );
        let instead = evidence
            .instead
            .as_ref()
            .with_context(|| format!("{it:?}"))?;
        ensure!(
            instead.nanoseconds <= evidence.off_cpu_nanoseconds,
            "{it:?}"
        );
    }
    monitor.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_preempted_is_told_with_who_ran_instead() -> Result<()> {
    let _alone = KERNEL.lock().await;
    let monitor = Monitor::start(TierChoice::Auto)?;
    let arguments = ["--rate", "0", "--for", "5s", "--no-refresh", "--hogs", "3"];
    let mut workload = Workload::start(&arguments)?;
    let id = workload.ready().map_id;
    let spec = format!(
        "{{maps: [{{ids: [{id}]}}], operations: [Lookup], outliers: {{thresholdMicroseconds: 1000}}}}"
    );
    monitor.measure(vec![request("preempted", &spec)?])?;
    snapshot(&monitor, "the map", "preempted", |it| it.maps.len() == 1).await?;
    workload.go()?;
    let truth = tokio::task::block_in_place(|| workload.truth())?;
    let probe = counted(&monitor, "preempted", truth.reads).await?;

    // Every operation beyond the threshold is an outlier, and no other. The bucket that it lies in may be either.
    let histogram = total(&probe).until_user;
    let at_least = |nanoseconds| {
        let slow = histogram.buckets().filter(|it| it.0 >= nanoseconds);
        slow.map(|it| it.1).sum::<u64>()
    };
    let bucket = maplatency_core::histogram::bucket_of(1_000_000);
    let told = outliers(&probe)?;
    let counts = all(told.counts);
    ensure!(
        (at_least(bucket + 1)..=at_least(bucket)).contains(&counts),
        "{:?} of {} to {}",
        told.counts,
        at_least(bucket + 1),
        at_least(bucket)
    );
    ensure!(
        counts >= 20,
        "the hogs stalled the reader only {counts} times"
    );
    let (mut instead, mut explained) = (BTreeSet::new(), 0);
    for it in &told.slowest {
        let evidence = &it.evidence;
        let off_cpu = evidence.off_cpu_nanoseconds;
        ensure!(
            evidence.involuntary_switches >= 1 && evidence.voluntary_switches == 0,
            "{it:?}"
        );
        // Only what waits for a CPU can wait for so long, and off the CPU it did nothing else.
        ensure!(
            off_cpu > 900_000
                && off_cpu <= it.until_user_nanoseconds
                && evidence.run_delay_nanoseconds.abs_diff(off_cpu) < off_cpu / 20,
            "{it:?}"
        );
        if let Some(other) = &evidence.instead {
            ensure!(other.nanoseconds <= off_cpu, "{it:?}");
            instead.insert(other.command.clone());
            explained += 1;
        }
    }
    // The last eight tasks of a CPU are known, and not every switch is traced on every machine.
    let slowest = told.slowest.len();
    ensure!(explained * 10 >= slowest * 9, "{explained} of {slowest}");
    ensure!(
        instead.iter().any(|it| it.starts_with("demo-hog")),
        "{instead:?} ran instead"
    );
    monitor.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_too_many_outliers_each_is_counted_though_not_told() -> Result<()> {
    const CALLS: u64 = 30_000;
    let _alone = KERNEL.lock().await;
    let monitor = Monitor::start(TierChoice::Auto)?;
    let thread = Thread {
        operations: vec![Operation::LookupBatch],
        rounds: CALLS,
        cpus: vec![],
    };
    let mut caller = Caller::start(&Job {
        map_type: MapType::Hash,
        threads: vec![thread],
    })?;
    let id = caller.map_id();
    let spec = |per_second| {
        format!(
            "{{maps: [{{ids: [{id}]}}], operations: [LookupBatch], outliers: {{thresholdMicroseconds: 1, perSecond: {per_second}}}}}"
        )
    };
    // The last two may tell more at once than the ring buffer holds.
    let names = ["few", "many", "as-many"];
    let probes = names.into_iter().zip([10, 1_000, 1_000]);
    let probes: Result<Vec<_>> = probes
        .map(|(name, most)| request(name, &spec(most)))
        .collect();
    monitor.measure(probes?)?;
    for name in names {
        snapshot(&monitor, "the map", name, |it| it.maps.len() == 1).await?;
    }
    tokio::task::block_in_place(|| caller.work())?;

    let mut dropped = 0;
    for name in names {
        let probe = counted(&monitor, name, CALLS).await?;
        let counts = outliers(&probe)?.counts;
        // A batch of 32 takes longer than a microsecond.
        assert_eq!(all(counts), CALLS, "{name}: {counts:?}");
        ensure!(
            counts.told > 0 && counts.held_back > 0,
            "{name}: {counts:?}"
        );
        dropped += counts.dropped;
        let slowest = &outliers(&probe)?.slowest;
        // The kernel gives whole buckets only, as many as fit.
        assert!(slowest.iter().all(|it| (1..=32).contains(&it.entries)));
    }
    ensure!(dropped > 0, "the ring buffer was never full");
    monitor.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_threshold_the_window_says_what_is_slow() -> Result<()> {
    let _alone = KERNEL.lock().await;
    let monitor = Monitor::start(TierChoice::Auto)?;
    let arguments = ["--rate", "20000", "--for", "8s", "--no-refresh"];
    let mut workload = Workload::start(&arguments)?;
    let id = workload.ready().map_id;
    let spec =
        format!("{{maps: [{{ids: [{id}]}}], operations: [Lookup], outliers: {{perSecond: 1000}}}}");
    monitor.measure(vec![request("window", &spec)?])?;
    snapshot(&monitor, "the map", "window", |it| it.maps.len() == 1).await?;
    workload.go()?;
    let truth = tokio::task::block_in_place(|| workload.truth())?;
    let probe = counted(&monitor, "window", truth.reads).await?;

    let times = total(&probe).until_user;
    let told = outliers(&probe)?;
    let share = all(told.counts) * 100_000 / times.count();
    // One in a thousand, of a machine that is not equally quiet all the time.
    ensure!(
        (5..=1_000).contains(&share),
        "{:?} of {}",
        told.counts,
        times.count()
    );
    let slowest = times.max().context("nothing was counted")?;
    let longest = told.slowest.first().context("no outlier was told")?;
    // The maximum of a histogram is the middle of a bucket.
    let most = slowest + slowest / 100;
    ensure!(longest.until_user_nanoseconds <= most, "{longest:?}");
    monitor.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_calls_on_new_maps_that_turn_out_not_to_match_are_no_outliers() -> Result<()> {
    const CALLS: u64 = 20;
    const MAPS: u64 = 3;
    let _alone = KERNEL.lock().await;
    let monitor = Monitor::start(TierChoice::Auto)?;
    let spec = |name: &str| {
        format!(
            "{{maps: [{{names: ['{name}']}}], operations: [Update], outliers: {{thresholdMicroseconds: 20}}}}"
        )
    };
    monitor.measure(vec![
        request("every", &spec("*"))?,
        request("another", &spec("no_such_map"))?,
    ])?;
    snapshot(&monitor, "the probes", "another", |_| true).await?;
    for _ in 0..MAPS {
        // Its map is seconds old at the most when it is called, so it is not listed yet.
        let mut caller = Caller::sleeper(CALLS)?;
        tokio::task::block_in_place(|| caller.work())?;
    }
    let every = counted(&monitor, "every", MAPS * CALLS).await?;
    ensure!(all(outliers(&every)?.counts) >= MAPS * CALLS, "{every:?}");
    // Of the same slice as the others, or a later one.
    let (another, _) =
        snapshot(&monitor, "the probe that selects none", "another", |_| true).await?;
    assert_eq!(outliers(&another)?.counts, OutlierCounts::default());
    monitor.stop()?;
    Ok(())
}
