//! Maps that come and go while the agent runs.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use maplatency_agent::engine::TierChoice;
use maplatency_agent::monitor::Monitor;
use maplatency_bpf::sys::{self, Map, MapSpec, MapType, UpdateFlags};
use maplatency_e2e::measure::{both_sides, request, snapshot, total};
use maplatency_e2e::wait;

fn map(name: &str) -> Result<Map> {
    let map = Map::create(&MapSpec {
        name,
        map_type: MapType::HASH,
        key_size: 8,
        value_size: 8,
        max_entries: 16,
        flags: 0,
    })?;
    map.update(&[1; 8], &[2; 8], UpdateFlags::Any)?;
    Ok(map)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_map_is_found_within_two_seconds_and_one_that_goes_is_let_go() -> Result<()> {
    let monitor = Monitor::start(TierChoice::Auto)?;
    // The longest kernel name of this one is the beginning of what a user writes.
    let spec =
        "{maps: [{names: [discovered_map_of_a_user]}], activeReads: {periodMilliseconds: 10}}";
    monitor.measure(vec![request("discovery", spec)?])?;
    snapshot(&monitor, "the probe", "discovery", |it| it.maps.is_empty()).await?;

    let map = map("discovered_map_")?;
    let (created, id) = (Instant::now(), map.id()?);
    let (probe, _) = snapshot(&monitor, "the new map", "discovery", |it| {
        it.maps.len() == 1
    })
    .await?;
    ensure!(
        created.elapsed() < wait::limit(Duration::from_secs(2))?,
        "it took {:?}",
        created.elapsed()
    );
    assert_eq!(probe.maps[0].id, id);
    snapshot(&monitor, "active reads", "discovery", |it| {
        total(it).active_read.count() >= 20
    })
    .await?;

    // The agent reads it a hundred times a second on every CPU, and keeps it alive all the same no longer.
    drop(map);
    wait::until(
        "the kernel to free the map",
        Duration::from_secs(2),
        async || {
            ensure!(!sys::map_ids()?.contains(&id), "it is still there");
            Ok(Some(()))
        },
    )
    .await?;
    let (probe, _) = snapshot(&monitor, "the map to go", "discovery", |it| {
        it.maps.is_empty()
    })
    .await?;
    assert_eq!(
        probe.gone.len(),
        1,
        "its figures stay for the rest of the window"
    );
    assert_eq!(probe.problems, Vec::<String>::new());
    monitor.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_own_maps_are_not_measured() -> Result<()> {
    let before = sys::map_ids()?;
    let monitor = Monitor::start(TierChoice::Auto)?;
    monitor.measure(vec![request("all", "{maps: [{names: ['*']}]}")?])?;
    let somebodys = map("not_the_agents")?;
    let id = somebodys.id()?;
    let (probe, _) = snapshot(&monitor, "somebody's map", "all", |it| {
        it.maps.iter().any(|map| map.id == id)
    })
    .await?;
    let others: Vec<_> = probe
        .maps
        .iter()
        .filter(|it| !before.contains(&it.id) && it.id != id)
        .collect();
    assert!(others.is_empty(), "{others:?}");
    monitor.stop()?;
    Ok(())
}

/// The first reads need memory for histograms while the scheduler switches tasks, where it is scarce.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_reads_after_the_start_are_all_counted() -> Result<()> {
    // The reader sleeps after every read, so each is counted while the scheduler switches to another task.
    let arguments = [
        "--no-refresh",
        "--entries",
        "16",
        "--rate",
        "500",
        "--reads",
        "3",
    ];
    for start in 1..=4 {
        let monitor = Monitor::start(TierChoice::Auto)?;
        let sides = both_sides(&monitor, &format!("start {start}"), &arguments).await?;
        ensure!(sides.lost == 0, "start {start}: {} lost", sides.lost);
        monitor.stop()?;
    }
    Ok(())
}
