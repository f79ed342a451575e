//! Counts that have to be exact on every kernel, however slow it is and wherever it preempts.
//!
//! Nothing here compares times, so these tests mean the same in a virtual machine that translates every instruction
//! (`make vm-test`). `MAPLATENCY_TEST_TIER` chooses the hooks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use maplatency_agent::engine::TierChoice;
use maplatency_agent::monitor::{Monitor, ProbeSnapshot, Snapshot};
use maplatency_bpf::layout::BlockKey;
use maplatency_bpf::{Tier, sys};
use maplatency_core::histogram::{Histogram, Percentile, bucket_of};
use maplatency_core::vocabulary::{MapType, Operation, Outcome};
use maplatency_e2e::caller::{Caller, Done, Job, Thread};
use maplatency_e2e::measure::{both_sides, request, snapshot, total};
use maplatency_e2e::{not_run, wait};
use tokio::sync::Mutex;

/// Until the kernel has freed what nobody holds any more.
const LIMIT: Duration = Duration::from_secs(10);
/// The tests share the kernel, and each has to have all of it.
static KERNEL: Mutex<()> = Mutex::const_new(());

/// Measures with the hooks that are asked for.
fn start() -> Result<Monitor> {
    let choice = match std::env::var("MAPLATENCY_TEST_TIER") {
        Err(_) => TierChoice::Auto,
        Ok(name) => {
            let found = Tier::ALL.into_iter().find(|it| it.to_string() == name);
            TierChoice::Only(found.with_context(|| format!("there is no tier {name}"))?)
        }
    };
    Ok(Monitor::start(choice)?)
}

/// Whether the kernel may skip hooks of this tier, though not unnoticed.
///
/// With full preemption a task may be stopped inside a fentry hook, or, while it writes to a map or reads a batch, where
/// the kernel skips tracepoints on that CPU. What another task then calls there is not seen.
fn may_skip(monitor: &Monitor) -> bool {
    let file = "/sys/kernel/debug/sched/preempt";
    let preempt =
        std::env::var("MAPLATENCY_TEST_PREEMPT").or_else(|_| std::fs::read_to_string(file));
    // One word, or all of them with the chosen one in brackets.
    let is_full =
        preempt.is_ok_and(|it| ["full", "realtime"].contains(&it.trim()) || it.contains("(full)"));
    is_full && monitor.tier().tier != Tier::TpBtf
}

/// Whether the kernel says how many hooks it skipped: of fentry always, of tracepoints since 6.7.
fn tells_skips(monitor: &Monitor) -> Result<bool> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|it| it.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    Ok(monitor.tier().tier == Tier::Fentry || version >= (6, 7))
}

fn thread(operations: &[Operation], rounds: u64, cpus: &[usize]) -> Thread {
    Thread {
        operations: operations.to_vec(),
        rounds,
        cpus: cpus.to_vec(),
    }
}

/// What the probes counted of a job, once they counted at least as much as was done.
struct Counted {
    by_operation: BTreeMap<Operation, u64>,
    by_cpu: BTreeMap<u32, u64>,
    by_outcome: BTreeMap<(Operation, Outcome), u64>,
    entries: BTreeMap<Operation, u64>,
    moved: u64,
    lost: BTreeMap<String, u64>,
    done: Done,
}

/// Does a job while the probes measure its map.
async fn counted(monitor: &Monitor, name: &str, job: &Job) -> Result<Counted> {
    let calls: u64 = job
        .threads
        .iter()
        .map(|it| it.rounds * it.operations.len() as u64)
        .sum();
    let mut caller = Caller::start(job)?;
    let all: Vec<_> = Operation::ALL.iter().map(ToString::to_string).collect();
    let spec = format!(
        "{{maps: [{{ids: [{}]}}], operations: [{}]}}",
        caller.map_id(),
        all.join(", ")
    );
    let before = monitor.snapshots().borrow().losses.clone();
    monitor.measure(vec![request(name, &spec)?])?;
    snapshot(monitor, "the caller's map", name, |it| it.maps.len() == 1).await?;
    let done = tokio::task::block_in_place(|| caller.work())?;
    let (probe, after) = settled(monitor, name, calls, &before).await?;
    let mut counted = Counted {
        by_operation: BTreeMap::new(),
        by_cpu: BTreeMap::new(),
        by_outcome: BTreeMap::new(),
        entries: BTreeMap::new(),
        moved: 0,
        lost: losses(&before, &after),
        done,
    };
    for (key, counts) in &probe.cumulative {
        let count = counts.until_user.count();
        assert_eq!(
            count,
            counts.kernel_window.count(),
            "both latencies or none"
        );
        *counted.by_operation.entry(key.operation).or_default() += count;
        *counted.by_cpu.entry(key.cpu).or_default() += count;
        let outcome = (key.operation, key.outcome);
        *counted.by_outcome.entry(outcome).or_default() += count;
        if key.operation.is_batch() {
            *counted.entries.entry(key.operation).or_default() += counts.entries;
        }
        counted.moved += counts.moved;
    }
    Ok(counted)
}

/// Waits until all calls are counted or lost, and one slice longer, in which nothing may be counted twice.
async fn settled(
    monitor: &Monitor,
    name: &str,
    calls: u64,
    before: &BTreeMap<String, u64>,
) -> Result<(ProbeSnapshot, Arc<Snapshot>)> {
    let (_, first) = snapshot(monitor, "every call", name, |it| {
        let lost: u64 = losses(before, &monitor.snapshots().borrow()).values().sum();
        total(it).until_user.count() + lost >= calls
    })
    .await?;
    let mut snapshots = monitor.snapshots();
    while snapshots.borrow_and_update().taken <= first.taken {
        snapshots.changed().await?;
    }
    let last = Arc::clone(&snapshots.borrow());
    match last.probes.iter().find(|it| it.name == name) {
        Some(probe) => Ok((probe.clone(), last)),
        None => bail!("the probe {name} has gone"),
    }
}

fn losses(before: &BTreeMap<String, u64>, after: &Snapshot) -> BTreeMap<String, u64> {
    let since = |(kind, count): (&String, &u64)| {
        let lost = count - before.get(kind).unwrap_or(&0);
        (lost > 0).then(|| (kind.clone(), lost))
    };
    after.losses.iter().filter_map(since).collect()
}

/// Does a job of which every call has to be counted.
async fn exactly(monitor: &Monitor, name: &str, job: &Job) -> Result<Counted> {
    let counted = counted(monitor, name, job).await?;
    let mut expected: BTreeMap<Operation, u64> = BTreeMap::new();
    for thread in &job.threads {
        for operation in &thread.operations {
            *expected.entry(*operation).or_default() += thread.rounds;
        }
    }
    if may_skip(monitor) {
        return at_most(monitor, name, counted, &expected);
    }
    assert_eq!(
        counted.by_operation, expected,
        "{name}: lost {:?}",
        counted.lost
    );
    assert_eq!(counted.lost, BTreeMap::new(), "{name}");
    Ok(counted)
}

/// Holds what was counted against what was called where the kernel may skip hooks: no operation twice, and not more of
/// them missing than losses are told.
fn at_most(
    monitor: &Monitor,
    name: &str,
    counted: Counted,
    expected: &BTreeMap<Operation, u64>,
) -> Result<Counted> {
    let lost: u64 = counted.lost.values().sum();
    let mut missing = 0;
    for (operation, expected) in expected {
        let seen = counted.by_operation.get(operation).copied().unwrap_or(0);
        assert!(
            seen <= *expected,
            "{name}: {seen} of {expected} {operation}"
        );
        missing += expected - seen;
    }
    if tells_skips(monitor)? {
        let lost_of = &counted.lost;
        assert!(
            missing <= lost,
            "{name}: {missing} are missing, and {lost_of:?} lost"
        );
    } else {
        let reason = "this kernel does not tell which tracepoints it skips; 6.7 does";
        not_run(&format!("the losses of `{name}`"), reason)?;
    }
    Ok(counted)
}

#[tokio::test(flavor = "multi_thread")]
async fn lookups_are_counted_exactly_on_maps_of_every_kind() -> Result<()> {
    let _alone = KERNEL.lock().await;
    let monitor = start()?;
    for map_type in [
        MapType::Hash,
        MapType::PerCpuHash,
        MapType::LruHash,
        MapType::LruPerCpuHash,
        MapType::Array,
        MapType::PerCpuArray,
    ] {
        let threads = vec![thread(&[Operation::Lookup], 20_000, &[])];
        exactly(&monitor, map_type.as_str(), &Job { map_type, threads }).await?;
    }
    monitor.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_operation_is_counted_exactly() -> Result<()> {
    let _alone = KERNEL.lock().await;
    let monitor = start()?;
    for map_type in [MapType::Hash, MapType::PerCpuHash, MapType::LruHash] {
        let threads = vec![thread(&Operation::ALL, 1_000, &[])];
        exactly(&monitor, map_type.as_str(), &Job { map_type, threads }).await?;
    }
    monitor.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn outcomes_and_entries_are_counted_exactly() -> Result<()> {
    let _alone = KERNEL.lock().await;
    let monitor = start()?;
    // The map has 64 entries, and a batch 32.
    let once = [
        (Operation::Delete, 128, 0),
        (Operation::LookupAndDelete, 128, 0),
        (Operation::UpdateBatch, 100, 3_200),
        (Operation::DeleteBatch, 1, 32),
    ];
    for (operation, rounds, entries) in once {
        let job = Job {
            map_type: MapType::Hash,
            threads: vec![thread(&[operation], rounds, &[0])],
        };
        let counted = exactly(&monitor, operation.as_str(), &job).await?;
        if may_skip(&monitor) {
            continue;
        }
        let expected = if operation.is_batch() {
            assert_eq!(counted.entries, BTreeMap::from([(operation, entries)]));
            BTreeMap::from([((operation, Outcome::Success), rounds)])
        } else {
            BTreeMap::from([
                ((operation, Outcome::Success), 64),
                ((operation, Outcome::NotFound), rounds - 64),
            ])
        };
        assert_eq!(counted.by_outcome, expected);
        assert_eq!(counted.moved, 0, "{operation}");
    }
    monitor.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_on_two_cpus_at_once_are_counted_exactly_and_each_on_its_own() -> Result<()> {
    let _alone = KERNEL.lock().await;
    let monitor = start()?;
    let job = Job {
        map_type: MapType::PerCpuHash,
        threads: vec![
            thread(&[Operation::Lookup], 30_000, &[0]),
            thread(&[Operation::Lookup, Operation::GetNextKey], 10_000, &[1]),
        ],
    };
    let counted = exactly(&monitor, "two CPUs", &job).await?;
    assert_eq!(counted.by_cpu, BTreeMap::from([(0, 30_000), (1, 20_000)]));
    monitor.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_are_moved_between_cpus_all_the_time_are_counted_exactly() -> Result<()> {
    let _alone = KERNEL.lock().await;
    let monitor = start()?;
    let job = Job {
        map_type: MapType::PerCpuHash,
        threads: vec![
            thread(
                &[Operation::Lookup, Operation::LookupBatch],
                20_000,
                &[0, 1],
            ),
            thread(&[Operation::Lookup], 50_000, &[1, 0]),
        ],
    };
    let counted = exactly(&monitor, "moved", &job).await?;
    ensure!(
        counted.done.moves >= 100,
        "moved {} times",
        counted.done.moves
    );
    ensure!(counted.by_cpu.len() == 2, "{:?}", counted.by_cpu);
    monitor.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn threads_that_end_right_after_a_call_are_counted_exactly() -> Result<()> {
    let _alone = KERNEL.lock().await;
    let monitor = start()?;
    let job = Job {
        map_type: MapType::Hash,
        threads: vec![thread(&[Operation::Lookup], 3, &[]); 200],
    };
    exactly(&monitor, "short lives", &job).await?;
    monitor.stop()?;
    Ok(())
}

/// With full preemption the hogs stop the reader inside of the call, else on its way back.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_beside_hogs_is_counted_exactly() -> Result<()> {
    let _alone = KERNEL.lock().await;
    let monitor = start()?;
    let arguments = "--rate 0 --no-refresh --reader-cpu 1 --entries 1000 --reads 50000 \
                     --hogs 3 --hog-run 400us --hog-sleep 400us";
    let arguments: Vec<_> = arguments.split_whitespace().collect();
    let sides = both_sides(&monitor, "hogs", &arguments).await?;
    assert_eq!(sides.seen.until_user.count(), sides.truth.reads);
    assert_eq!(sides.seen.kernel_window.count(), sides.truth.reads);
    assert_eq!(sides.lost, 0);
    monitor.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_and_writers_of_one_cpu_are_counted_exactly() -> Result<()> {
    let _alone = KERNEL.lock().await;
    let monitor = start()?;
    let job = Job {
        map_type: MapType::PerCpuHash,
        threads: vec![
            thread(&[Operation::Lookup], 20_000, &[0]),
            thread(&[Operation::Update, Operation::Delete], 10_000, &[0]),
            thread(
                &[Operation::UpdateBatch, Operation::LookupBatch],
                2_000,
                &[0],
            ),
        ],
    };
    exactly(&monitor, "one CPU", &job).await?;
    monitor.stop()?;
    Ok(())
}

/// What a probe counted on one map.
fn on(probe: &ProbeSnapshot, map_id: u32) -> u64 {
    let of_map = probe.cumulative.iter().filter(|it| it.0.map_id == map_id);
    of_map.map(|it| it.1.until_user.count()).sum()
}

/// The probes for which the kernel side of this process counts something on a map.
fn instances_on(map_id: u32) -> Result<BTreeSet<u32>> {
    let mut instances = BTreeSet::new();
    for entry in std::fs::read_dir("/proc/self/fdinfo")? {
        // Descriptors come and go meanwhile.
        let text = std::fs::read_to_string(entry?.path()).unwrap_or_default();
        let id = text.lines().find_map(|it| it.strip_prefix("map_id:"));
        let Some(id) = id.and_then(|it| it.trim().parse().ok()) else {
            continue;
        };
        let map = sys::Map::from_id(id)?;
        if map.info()?.name != "block_of" {
            continue;
        }
        let mut key = [0; BlockKey::BYTES];
        let mut found = map.next_key(None, &mut key)?;
        while found {
            let block = BlockKey::from_bytes(key);
            if block.map_id == map_id {
                instances.insert(block.instance);
            }
            found = map.next_key(Some(&key.clone()), &mut key)?;
        }
    }
    Ok(instances)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_that_comes_and_goes_between_two_looks_is_counted_from_its_first_operation_on()
-> Result<()> {
    // Besides the updates by which the caller fills its map.
    const LOOKUPS: u64 = 500;
    const CALLS: u64 = LOOKUPS + 64;
    let _alone = KERNEL.lock().await;
    let monitor = start()?;
    let spec = |name| format!("{{maps: [{{names: [{name}]}}], operations: [Lookup, Update]}}");
    let wanted = request("wanted", &spec("called"))?;
    let other = request("other", &spec("not_called"))?;
    monitor.measure(vec![wanted, other])?;
    let (_, mut now) = snapshot(&monitor, "the probes", "other", |_| true).await?;
    let threads = vec![thread(&[Operation::Lookup], LOOKUPS, &[])];
    let map_type = MapType::Hash;
    let job = Job { map_type, threads };
    let mut missed = false;
    for _ in 0..10 {
        let before = now.losses.clone();
        let mut caller = Caller::start(&job)?;
        tokio::task::block_in_place(|| caller.work())?;
        let id = caller.map_id();
        drop(caller);
        // No slice has looked at the maps since before this one came.
        missed |= monitor.snapshots().borrow().taken == now.taken;

        let (_, first) = snapshot(&monitor, "every call", "wanted", |it| {
            let lost: u64 = losses(&before, &monitor.snapshots().borrow())
                .values()
                .sum();
            on(it, id) + lost >= CALLS
        })
        .await?;
        let (probe, _) = snapshot(
            &monitor,
            "another slice, with the map gone",
            "wanted",
            |it| {
                it.gone.iter().any(|it| it.id == id)
                    && monitor.snapshots().borrow().taken > first.taken
            },
        )
        .await?;
        let map = probe.gone.iter().find(|it| it.id == id).context("gone")?;
        assert_eq!(
            (map.name.as_str(), map.map_type),
            ("called", Some(map_type))
        );
        if may_skip(&monitor) {
            assert!(on(&probe, id) <= CALLS);
        } else {
            assert_eq!(on(&probe, id), CALLS);
        }
        let (probe, all) = snapshot(&monitor, "the other probe", "other", |_| true).await?;
        let shown = (probe.maps, probe.gone, probe.cumulative, probe.callers);
        assert_eq!(shown, Default::default(), "of a map that does not match");
        wait::until("its blocks to be given back", LIMIT, async || {
            let instances = instances_on(id)?;
            ensure!(instances.len() == 1, "{instances:?} count on it");
            Ok(Some(()))
        })
        .await?;
        now = all;
        if missed {
            break;
        }
    }
    monitor.stop()?;
    if !missed {
        let reason = "in ten attempts the map was there when the agent looked";
        not_run("a map that is never listed", reason)?;
    }
    Ok(())
}

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
         activeReads: {{cpus: '0', periodMilliseconds: 10}}}}"
    );
    monitor.measure(vec![request("batches", &spec)?])?;
    tokio::task::block_in_place(|| caller.work())?;
    let seen_by = |it: &ProbeSnapshot| {
        let readers = it.readers.iter();
        let lookups = readers.filter(|it| it.0.operation == Operation::Lookup);
        let by_kernel: u64 = lookups.map(|it| it.1.until_user.count()).sum();
        (by_kernel, total(it).active_read.count())
    };
    // The kernel side is a read behind the reader, which is timed by itself.
    let (probe, _) = snapshot(&monitor, "reads by the agent", "batches", |it| {
        let (by_kernel, by_reader) = seen_by(it);
        by_reader >= 200 && by_kernel > 0
    })
    .await?;
    let (by_kernel, by_reader) = seen_by(&probe);
    println!("{by_reader} active reads, of which the kernel side saw {by_kernel}");
    if !may_skip(&monitor) {
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

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_in_the_kernel() -> Result<()> {
    let _alone = KERNEL.lock().await;
    let now = || -> Result<[BTreeSet<u32>; 3]> {
        let ids = [sys::map_ids()?, sys::program_ids()?, sys::link_ids()?];
        Ok(ids.map(BTreeSet::from_iter))
    };
    let before = now()?;
    let monitor = start()?;
    let during = now()?;
    let brought: Vec<_> = during
        .iter()
        .zip(&before)
        .map(|(it, old)| it - old)
        .collect();
    ensure!(brought.iter().all(|it| !it.is_empty()), "{brought:?}");
    monitor.stop()?;
    wait::until("the kernel to free the probes", LIMIT, async || {
        let left: Vec<_> = now()?
            .iter()
            .zip(&brought)
            .map(|(it, own)| it & own)
            .collect();
        ensure!(left.iter().all(BTreeSet::is_empty), "left: {left:?}");
        Ok(Some(()))
    })
    .await
}
