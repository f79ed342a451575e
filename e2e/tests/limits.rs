//! At the limits of what the kernel side has room for, everything is still counted, told, or counted as lost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use maplatency_agent::engine::TierChoice;
use maplatency_agent::monitor::{Monitor, ProbeSnapshot, Snapshot};
use maplatency_bpf::layout::{MAX_PROBES, MAX_TARGETS};
use maplatency_core::vocabulary::MapType;
use maplatency_e2e::fault::{Fault, Faulty, LOOKUPS};
use maplatency_e2e::measure::{request, snapshot, total};
use maplatency_e2e::wait;
use tokio::sync::Mutex;

/// The tests share the kernel, and each has to have all of it.
static KERNEL: Mutex<()> = Mutex::const_new(());
/// Until what was done is counted, on a busy machine.
const LIMIT: Duration = Duration::from_mins(1);
/// What the kernel side may take.
const MEMORY: u64 = 8 << 20;

fn count(probe: &ProbeSnapshot) -> u64 {
    total(probe).until_user.count()
}

fn lost(before: &Snapshot, after: &Snapshot) -> BTreeMap<String, u64> {
    let since = |(kind, count): (&String, &u64)| {
        let lost = count - before.losses.get(kind).unwrap_or(&0);
        (lost > 0).then(|| (kind.clone(), lost))
    };
    after.losses.iter().filter_map(since).collect()
}

/// Waits until all probes together have counted or lost so many operations, and one slice longer, in which nothing may
/// be counted twice.
async fn accounted_for(
    monitor: &Monitor,
    before: &Snapshot,
    operations: u64,
) -> Result<std::sync::Arc<Snapshot>> {
    let mut snapshots = monitor.snapshots();
    wait::until("every operation to be counted or lost", LIMIT, async || {
        let latest = snapshots.borrow().clone();
        let counted: u64 = latest.probes.iter().map(count).sum();
        let lost = lost(before, &latest);
        let both = counted + lost.values().sum::<u64>();
        ensure!(
            both >= operations,
            "{counted} counted, {lost:?} lost of {operations}"
        );
        Ok(Some(()))
    })
    .await?;
    for _ in 0..2 {
        snapshots.borrow_and_update();
        snapshots.changed().await?;
    }
    let last = snapshots.borrow().clone();
    Ok(last)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_cpus_that_read_flat_out_are_counted_to_the_last_read() -> Result<()> {
    const READS: u64 = 5_000_000;
    let _alone = KERNEL.lock().await;
    let mut faulty = Faulty::start(&Fault::FlatOut(READS))?;
    let monitor = Monitor::start(TierChoice::Auto)?;
    let spec = format!(
        "{{maps: [{{ids: [{}]}}], operations: [Lookup]}}",
        faulty.map_id()
    );
    monitor.measure(vec![request("flat-out", &spec)?])?;
    let (_, before) = snapshot(&monitor, "the map", "flat-out", |it| it.maps.len() == 1).await?;
    let begun = Instant::now();
    tokio::task::block_in_place(|| faulty.work())?;
    let took = begun.elapsed().as_millis().max(1);
    let rate = u128::from(2 * READS) * 1_000 / took;

    let last = accounted_for(&monitor, &before, 2 * READS).await?;
    let probe = last.probes.first().context("the probe has gone")?;
    let mut by_cpu: BTreeMap<u32, u64> = BTreeMap::new();
    for (key, counts) in &probe.cumulative {
        assert_eq!(counts.until_user.count(), counts.kernel_window.count());
        *by_cpu.entry(key.cpu).or_default() += counts.until_user.count();
    }
    println!("{rate} reads a second; lost: {:?}", lost(&before, &last));
    assert_eq!(lost(&before, &last), BTreeMap::new());
    assert_eq!(by_cpu, BTreeMap::from([(0, READS), (1, READS)]));
    monitor.stop()?;
    Ok(())
}

/// All probes that an agent takes, each of which selects all maps.
async fn all_probes_on(monitor: &Monitor, maps: usize) -> Result<()> {
    let names: Vec<String> = (0..MAX_PROBES).map(|it| format!("all-{it}")).collect();
    let spec = "{maps: [{names: [many]}], operations: [Lookup]}";
    let requests = names.iter().map(|it| request(it, spec));
    monitor.measure(requests.collect::<Result<_>>()?)?;
    for name in &names {
        snapshot(monitor, "all maps", name, |it| it.maps.len() == maps).await?;
    }
    Ok(())
}

/// Each of the probes has to have a block of its own for each of the maps, of which there is not room for all.
#[tokio::test(flavor = "multi_thread")]
async fn when_there_is_no_block_left_each_operation_is_counted_or_lost() -> Result<()> {
    const MAPS: u32 = 400;
    const ROUNDS: u64 = 20;
    let _alone = KERNEL.lock().await;
    let mut faulty = Faulty::start(&Fault::EachMap(MAPS, ROUNDS))?;
    let monitor = Monitor::start(TierChoice::Auto)?;
    all_probes_on(&monitor, MAPS as usize).await?;
    let before = monitor.snapshots().borrow().clone();
    tokio::task::block_in_place(|| faulty.work())?;

    let made = u64::from(MAPS) * ROUNDS * MAX_PROBES as u64;
    let last = accounted_for(&monitor, &before, made).await?;
    let counted: u64 = last.probes.iter().map(count).sum();
    let missing = lost(&before, &last);
    println!("{counted} of {made} counted; lost: {missing:?}");
    let full = missing.get("HistogramFull").copied().unwrap_or(0);
    assert!(full > 0, "there was room for all");
    assert_eq!(counted + full, made);
    assert_eq!(missing.len(), 1, "{missing:?}");
    // Whom there was no room for is counted with the others first, for whom some is kept.
    let callers = || last.probes.iter().flat_map(|it| &it.callers);
    let of_callers: u64 = callers().map(|it| it.count).sum();
    let others: u64 = callers()
        .filter(|it| it.caller.is_none())
        .map(|it| it.count)
        .sum();
    assert_eq!(of_callers, counted);
    assert!(others > 0 && others < counted, "{others} of {counted}");
    drop(faulty);

    let memory = wait::until("the agent to look at its memory", LIMIT, async || {
        Ok(monitor.snapshots().borrow().cost.bpf_memory_bytes())
    })
    .await?;
    println!("{memory} bytes of maps and programs");
    assert!(memory <= MEMORY, "{memory} bytes");
    monitor.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_more_maps_than_can_be_measured_a_probe_tells_and_measures_the_rest() -> Result<()> {
    const BEYOND: usize = 100;
    let _alone = KERNEL.lock().await;
    let monitor = Monitor::start(TierChoice::Auto)?;
    let mut faulty = Faulty::start(&Fault::ManyMaps(u32::try_from(MAX_TARGETS + BEYOND)?))?;
    let all = request("all", "{maps: [{names: [many]}]}")?;
    let one = format!("{{maps: [{{ids: [{}]}}]}}", faulty.map_id());
    monitor.measure(vec![all.clone()])?;
    let is_full = |it: &ProbeSnapshot| it.maps.len() == MAX_TARGETS;
    let (full, _) = snapshot(&monitor, "as many maps as can be", "all", is_full).await?;
    assert_eq!(
        full.problems,
        [
            "100 more maps match than an agent can measure, which is 16384 for all its probes; they are left out; select \
             fewer maps"
        ]
    );
    // Those that are there longest are measured, and what is called is the newest.
    let is_called = |it: &ProbeSnapshot| it.maps.iter().any(|it| it.id == faulty.map_id());
    assert!(!is_called(&full));

    // Who names it is not kept from it by who wants everything.
    monitor.measure(vec![all, request("one", &one)?])?;
    let (_, before) = snapshot(&monitor, "the one map", "one", is_called).await?;
    tokio::task::block_in_place(|| faulty.work())?;
    for name in ["one", "all"] {
        let counted = |it: &ProbeSnapshot| count(it) >= LOOKUPS;
        let (probe, latest) = snapshot(&monitor, "every lookup", name, counted).await?;
        assert_eq!(count(&probe), LOOKUPS);
        assert_eq!(lost(&before, &latest), BTreeMap::new());
    }
    let (full, _) = snapshot(&monitor, "the same maps", "all", is_full).await?;
    assert!(
        full.problems[0].starts_with("100 more maps match"),
        "{:?}",
        full.problems
    );

    drop(faulty);
    let gone = |it: &ProbeSnapshot| it.maps.is_empty();
    let (after, _) = snapshot(&monitor, "the maps to go", "all", gone).await?;
    assert!(
        !after
            .problems
            .iter()
            .any(|it| it.contains("more maps match"))
    );
    monitor.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn lookups_in_maps_of_every_type_are_counted_whatever_they_answer() -> Result<()> {
    /// Those that every kernel makes that runs the probes, whatever its configuration.
    const EVERYWHERE: [MapType; 12] = [
        MapType::Hash,
        MapType::Array,
        MapType::ProgArray,
        MapType::PerCpuHash,
        MapType::PerCpuArray,
        MapType::LruHash,
        MapType::LruPerCpuHash,
        MapType::LpmTrie,
        MapType::ArrayOfMaps,
        MapType::HashOfMaps,
        MapType::Queue,
        MapType::Stack,
    ];
    const ROUNDS: u64 = 200;
    let _alone = KERNEL.lock().await;
    let monitor = Monitor::start(TierChoice::Auto)?;
    let mut faulty = Faulty::start(&Fault::EveryType(ROUNDS))?;
    let spec = "{maps: [{names: ['typed_*']}], operations: [Lookup]}";
    monitor.measure(vec![request("typed", spec)?])?;
    let enough = |it: &ProbeSnapshot| it.maps.len() >= EVERYWHERE.len();
    let (probe, before) = snapshot(&monitor, "the maps", "typed", enough).await?;
    tokio::task::block_in_place(|| faulty.work())?;

    let made = ROUNDS * probe.maps.len() as u64;
    let last = accounted_for(&monitor, &before, made).await?;
    assert_eq!(lost(&before, &last), BTreeMap::new());
    let probe = last.probes.first().context("the probe has gone")?;
    let mut types = BTreeSet::new();
    for map in &probe.maps {
        let map_type = map.map_type.with_context(|| format!("{map:?}"))?;
        assert_eq!(map.name, format!("typed_{}", map_type.number()));
        let rows = probe.cumulative.iter().filter(|it| it.0.map_id == map.id);
        let counted: u64 = rows.clone().map(|it| it.1.until_user.count()).sum();
        let outcomes: BTreeSet<_> = rows.map(|it| it.0.outcome.as_str()).collect();
        println!("{map_type}: {counted} {outcomes:?}");
        assert_eq!(counted, ROUNDS, "{map_type}");
        types.insert(map_type);
    }
    let missing: Vec<_> = EVERYWHERE.iter().filter(|it| !types.contains(it)).collect();
    assert!(missing.is_empty(), "not made: {missing:?}");
    monitor.stop()?;
    Ok(())
}
