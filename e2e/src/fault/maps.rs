//! Maps by the thousand, and maps of every type.

use std::os::fd::{AsFd as _, AsRawFd as _};

use anyhow::{Context as _, Result};
use maplatency_bpf::sys::{self, Map, MapSpec, NO_PREALLOC, command};
use maplatency_core::vocabulary::MapType;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{Attributes, LOOKUPS, call, map, when_asked};

/// Room for a value of any of [`every_type`]'s maps, of a few thousand CPUs.
const VALUE: usize = 64 * 1024;

fn many(count: u32) -> Result<Vec<Map>> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = u64::from(count) + 64;
    setrlimit(Resource::RLIMIT_NOFILE, wanted, most.max(wanted))?;
    (0..count).map(|_| map("many", MapType::Array, 1)).collect()
}

pub(super) fn many_maps(count: u32) -> Result<()> {
    let maps = many(count)?;
    let last = maps.last().context("no map was asked for")?;
    when_asked(last, || {
        let mut value = [0; 4];
        for _ in 0..LOOKUPS {
            last.lookup(&0u32.to_ne_bytes(), &mut value)?;
        }
        Ok(())
    })
}

pub(super) fn each_map(count: u32, rounds: u64) -> Result<()> {
    let maps = many(count)?;
    let last = maps.last().context("no map was asked for")?;
    when_asked(last, || {
        let mut value = [0; 4];
        for _ in 0..rounds {
            for map in &maps {
                map.lookup(&0u32.to_ne_bytes(), &mut value)?;
            }
        }
        Ok(())
    })
}

/// A map of a type with sizes that the kernel takes for it. Some types need what is not given here.
fn of_type(map_type: MapType) -> Result<Map> {
    use MapType as It;
    let (key_size, value_size, max_entries, flags) = match map_type {
        It::StackTrace => (4, 64, 4, 0),
        It::LpmTrie => (8, 8, 4, NO_PREALLOC),
        It::CgroupStorageDeprecated | It::PerCpuCgroupStorage => (16, 8, 0, 0),
        It::Queue | It::Stack | It::BloomFilter => (0, 8, 4, 0),
        It::RingBuf | It::UserRingBuf => (0, 0, 4096, 0),
        It::Hash
        | It::PerCpuHash
        | It::LruHash
        | It::LruPerCpuHash
        | It::Array
        | It::PerCpuArray => (4, 8, 4, 0),
        _ => (4, 4, 4, 0),
    };
    let name = format!("typed_{}", map_type.number());
    let spec = MapSpec {
        name: &name,
        map_type: sys::MapType(map_type.number()),
        key_size,
        value_size,
        max_entries,
        flags,
    };
    if matches!(map_type, It::ArrayOfMaps | It::HashOfMaps) {
        return Ok(Map::create_outer(&spec, &map("inner", It::Array, 1)?)?);
    }
    Ok(Map::create(&spec)?)
}

pub(super) fn every_type(rounds: u64) -> Result<()> {
    let mut maps = Vec::new();
    for map_type in (1..).map_while(MapType::from_number) {
        match of_type(map_type) {
            Ok(map) => maps.push(map),
            Err(error) => eprintln!("{map_type}: {error:#}"),
        }
    }
    let (key, mut value) = ([0u8; 16], vec![0u8; VALUE]);
    when_asked(maps.first().context("no map could be made")?, || {
        for map in &maps {
            let attributes = Attributes {
                map_fd: u32::try_from(map.as_fd().as_raw_fd())?,
                padding: 0,
                // A map without keys wants none.
                key: if map.key_size() == 0 {
                    0
                } else {
                    key.as_ptr() as u64
                },
                value: value.as_mut_ptr() as u64,
                flags: 0,
                rest: [0; 28],
            };
            let attributes = std::ptr::from_ref(&attributes) as usize;
            for _ in 0..rounds {
                // A type that cannot be read refuses it, which is an outcome like others.
                let _ = call(command::MAP_LOOKUP_ELEM, attributes, 32);
            }
        }
        Ok(())
    })
}
