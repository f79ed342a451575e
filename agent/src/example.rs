//! Something to measure: a map of its own that is read at a steady pace.

use std::time::Duration;

use anyhow::Context as _;
use maplatency_bpf::sys::{Map, MapSpec, MapType, UpdateFlags};
use tokio::time::{MissedTickBehavior, interval};
use tracing::info;

use crate::args::ExampleArgs;
use crate::process::{self, Signals};

/// Entries of the map.
const ENTRIES: u32 = 1000;
/// Between two lookups.
const PACE: Duration = Duration::from_millis(10);

/// Makes the map and reads it until a signal comes.
pub fn example(args: &ExampleArgs) -> anyhow::Result<()> {
    let map = filled(&args.map)?;
    process::block_on(read(args, map))
}

fn filled(name: &str) -> anyhow::Result<Map> {
    let spec = MapSpec {
        name,
        map_type: MapType::HASH,
        key_size: 4,
        value_size: 8,
        max_entries: ENTRIES,
        flags: 0,
    };
    let map = Map::create(&spec).map_err(|error| {
        let refused = error.errno() == Some(libc::EPERM);
        let error = anyhow::Error::new(error);
        if refused {
            error.context("making a map needs CAP_BPF")
        } else {
            error
        }
    })?;
    for key in 0..ENTRIES {
        map.update(
            &key.to_ne_bytes(),
            &u64::from(key).to_ne_bytes(),
            UpdateFlags::Any,
        )
        .context("could not fill the map")?;
    }
    Ok(map)
}

async fn read(args: &ExampleArgs, map: Map) -> anyhow::Result<()> {
    let mut signals = Signals::watch()?;
    info!(map = args.map, id = map.id()?, "Reading");
    let mut value = vec![0; map.value_size()];
    let mut ticks = interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for key in (0..ENTRIES).cycle() {
        tokio::select! {
            _ = ticks.tick() => (),
            () = signals.told_to_end() => break,
        }
        map.lookup(&key.to_ne_bytes(), &mut value)
            .context("could not read the map")?;
    }
    info!("Ended");
    Ok(())
}
