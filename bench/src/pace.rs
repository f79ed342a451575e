//! Threads that read a map at a given rate, a bunch every millisecond, and sleep in between.
//!
//! A reader that waits by looking at the clock would keep its CPU busy at any rate, and the agent would have to take it
//! from the reader. Bunches leave the CPU idle for the rest of the millisecond.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use maplatency_bpf::sys::Map;

use crate::reader::{self, ENTRIES};

const TICK: Duration = Duration::from_millis(1);
const TICKS_PER_SECOND: u64 = 1000;

/// Readers at work. They end with this value.
#[derive(Debug)]
pub(crate) struct Paced {
    stop: Arc<AtomicBool>,
    reads: Arc<AtomicU64>,
    threads: Vec<JoinHandle<anyhow::Result<()>>>,
}

impl Paced {
    /// So many reads a second altogether, by a thread on each CPU. None at all without a rate.
    pub(crate) fn start(map: &Arc<Map>, per_second: u64, cpus: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let reads = Arc::new(AtomicU64::new(0));
        let cpus = if per_second == 0 { 0 } else { cpus };
        let threads = (0..cpus)
            .map(|cpu| {
                let (map, stop, reads) = (Arc::clone(map), Arc::clone(&stop), Arc::clone(&reads));
                let share = per_second / u64::from(cpus);
                thread::spawn(move || read(&map, cpu, share, &stop, &reads))
            })
            .collect();
        Self {
            stop,
            reads,
            threads,
        }
    }

    /// Reads so far.
    pub(crate) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Ends them. Gives how many reads there were.
    pub(crate) fn stop(mut self) -> anyhow::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        for it in self.threads.drain(..) {
            it.join().ok().context("a thread that reads panicked")??;
        }
        Ok(self.reads())
    }
}

impl Drop for Paced {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn read(
    map: &Map,
    cpu: u32,
    per_second: u64,
    stop: &AtomicBool,
    reads: &AtomicU64,
) -> anyhow::Result<()> {
    reader::pin_to(cpu)?;
    let mut value = vec![0; map.value_size()];
    let mut key = 0_u64;
    let mut due = Instant::now();
    let mut owed = Owed::default();
    while !stop.load(Ordering::Relaxed) {
        let bunch = owed.next(per_second);
        for _ in 0..bunch {
            key = (key + 1) % u64::from(ENTRIES);
            map.lookup(&key.to_ne_bytes(), &mut value)?;
        }
        reads.fetch_add(bunch, Ordering::Relaxed);
        due += TICK;
        let now = Instant::now();
        match due.checked_duration_since(now) {
            Some(left) => thread::sleep(left),
            // What it could not do in time it does not make up for: the rate that was reached is told.
            None => due = now,
        }
    }
    Ok(())
}

/// How many reads fall to each tick, if a rate does not divide into ticks.
#[derive(Debug, Default)]
struct Owed {
    /// In reads per `TICKS_PER_SECOND`.
    rest: u64,
}

impl Owed {
    fn next(&mut self, per_second: u64) -> u64 {
        self.rest += per_second;
        let bunch = self.rest / TICKS_PER_SECOND;
        self.rest %= TICKS_PER_SECOND;
        bunch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_ticks_has_all_the_reads_of_a_second() {
        for rate in [1, 999, 10_000, 333_333] {
            let mut owed = Owed::default();
            let all: u64 = (0..TICKS_PER_SECOND).map(|_| owed.next(rate)).sum();
            assert_eq!(all, rate);
        }
    }
}
