//! Maps that come and go while the agent looks elsewhere.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use maplatency_agent::monitor::ProbeSnapshot;
use maplatency_bpf::layout::BlockKey;
use maplatency_bpf::sys;
use maplatency_core::vocabulary::{MapType, Operation};
use maplatency_e2e::caller::{Caller, Job};
use maplatency_e2e::measure::{request, snapshot};
use maplatency_e2e::{not_run, wait};

use crate::{KERNEL, LIMIT, losses, may_skip, start, tells_skips, thread};

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
            !tells_skips(&monitor) || on(it, id) + lost >= CALLS
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
