//! The map that is read and rewritten.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use maplatency_bpf::sys::{Error, Map, MapSpec, MapType, UpdateFlags};
use nix::sys::resource::{Resource, rlim_t, setrlimit};

const KEY_SIZE: u32 = 8;

/// A full per-CPU hash whose keys are the numbers below `entries`.
#[derive(Debug)]
pub(crate) struct DemoMap {
    map: Map,
    entries: u32,
}

/// What rewriting the map came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rewrite {
    /// Every entry was written.
    Complete,
    /// It was told to stop in between.
    Stopped,
}

impl DemoMap {
    /// Creates the map and fills it.
    pub(crate) fn create(name: &str, entries: u32, value_size: u32) -> Result<Self> {
        let spec = MapSpec {
            name,
            map_type: MapType::PERCPU_HASH,
            key_size: KEY_SIZE,
            value_size,
            max_entries: entries,
            flags: 0,
        };
        let map = Map::create(&spec).or_else(|error| {
            if error.errno() != Some(libc::EPERM) {
                return Err(error);
            }
            // Before 5.11 maps were charged to this limit, and too low a limit was EPERM, too.
            let _ = setrlimit(Resource::RLIMIT_MEMLOCK, rlim_t::MAX, rlim_t::MAX);
            Map::create(&spec)
        });
        let map = match map {
            Err(error) if error.errno() == Some(libc::EPERM) => {
                return Err(error).context("creating a map needs CAP_BPF (root)");
            }
            other => other?,
        };
        let map = Self { map, entries };
        map.rewrite(0, &AtomicBool::new(false))
            .context("could not fill the map")?;
        Ok(map)
    }

    /// How many entries the map holds.
    pub(crate) fn entries(&self) -> u32 {
        self.entries
    }

    /// The kernel's id of the map.
    pub(crate) fn id(&self) -> Result<u32, Error> {
        self.map.id()
    }

    /// A buffer for one value, resident in memory.
    pub(crate) fn value(&self) -> Vec<u8> {
        // Zeros alone could be pages that nobody has touched yet.
        vec![1; self.map.value_size()]
    }

    /// Reads one entry; false when it is missing.
    #[inline]
    pub(crate) fn read(&self, key: u64, value: &mut [u8]) -> Result<bool, Error> {
        self.map.lookup(&key.to_ne_bytes(), value)
    }

    /// Writes `number` into every entry, one update at a time.
    pub(crate) fn rewrite(&self, number: u64, stop: &AtomicBool) -> Result<Rewrite, Error> {
        let value = number
            .to_ne_bytes()
            .repeat(self.map.value_size() / size_of::<u64>());
        for key in 0..u64::from(self.entries) {
            if stop.load(Ordering::Relaxed) {
                return Ok(Rewrite::Stopped);
            }
            self.map
                .update(&key.to_ne_bytes(), &value, UpdateFlags::Any)?;
        }
        Ok(Rewrite::Complete)
    }
}

/// Keys of a map in a random order that is the same in every run.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    state: u64,
    entries: u64,
}

impl Keys {
    /// The keys of a map with this many entries.
    pub(crate) fn new(entries: u32) -> Self {
        Self {
            state: 0x9e37_79b9_7f4a_7c15,
            entries: u64::from(entries),
        }
    }

    /// The next key (xorshift, then scaled to the number of entries).
    #[inline]
    pub(crate) fn draw(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        ((self.state >> 32) * self.entries) >> 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_existing_ones_and_nearly_all_of_them_come_up() {
        let mut keys = Keys::new(1_000);
        let mut seen = vec![false; 1_000];

        for _ in 0..10_000 {
            seen[usize::try_from(keys.draw()).unwrap()] = true;
        }

        assert!(seen.iter().filter(|&&seen| seen).count() > 990);
    }
}
