//! The reader, which times every read by itself.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use maplatency_bpf::sys::Error;
use nix::sched::{CpuSet, sched_getcpu};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::unistd::gettid;

use crate::clock::{self, MILLISECOND};
use crate::cpu;
use crate::map::{DemoMap, Keys};
use crate::pace::Pacer;
use crate::record::Record;

/// How long before a read is due the reader stops sleeping and watches the clock: more than a
/// sleep of a normal thread overshoots (50 us of timer slack and a wake-up).
const WATCH: u64 = 200_000;

/// The longest single sleep, after which it looks whether it is to stop.
const LONGEST_SLEEP: u64 = 50 * MILLISECOND;

/// When a reader reads, and when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Reads per second; 0 is as fast as possible.
    pub(crate) rate: u64,
    /// End after this many reads.
    pub(crate) reads: Option<u64>,
    /// End this long after the start, in nanoseconds.
    pub(crate) duration: Option<u64>,
}

/// How reads ended.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// All of them: those that found their entry, those that did not, and failures.
    pub(crate) reads: u64,
    /// Reads that did not find their entry.
    pub(crate) misses: u64,
    /// Reads that failed.
    pub(crate) errors: u64,
    /// The first failure.
    pub(crate) first_error: Option<Error>,
}

/// What the reader did and saw.
#[derive(Debug)]
pub(crate) struct Reading {
    /// Every read.
    pub(crate) record: Record,
    /// From the start to the end of the last read, or to the end that was planned.
    pub(crate) elapsed: u64,
    /// How the reads ended.
    pub(crate) tally: Tally,
    /// Scheduled reads that were not made since the reader was too late.
    pub(crate) skipped: u64,
    /// The CPUs that it ran on, looked at in the first read of each second.
    pub(crate) cpus: Vec<usize>,
    /// Its thread.
    pub(crate) thread_id: i32,
    /// How often it lost its CPU to somebody else.
    pub(crate) involuntary_switches: i64,
    /// How often it slept.
    pub(crate) voluntary_switches: i64,
}

/// Reads the map until the plan or `stop` ends it. The schedule begins at `origin`.
///
/// Nothing in the loop allocates, and nothing but the read lies between the two clock readings.
pub(crate) fn read(
    map: &DemoMap,
    plan: Plan,
    mut record: Record,
    origin: u64,
    stop: &AtomicBool,
) -> Result<Reading> {
    let mut keys = Keys::new(map.entries());
    let mut value = map.value();
    let mut schedule = Schedule::new(plan.rate, origin);
    let limit = plan.reads.unwrap_or(u64::MAX);
    let deadline = plan.duration.map_or(u64::MAX, |it| origin + it);
    let mut cpus = CpuSet::new();
    let mut tally = Tally::default();
    let mut last_end = origin;
    let before = usage()?;
    record.begin(origin);
    while tally.reads < limit {
        let key = keys.draw();
        let Some((start, delay)) = schedule.wait(deadline, stop) else {
            last_end = last_end.max(clock::now().min(deadline));
            schedule.give_up(last_end.min(deadline));
            break;
        };
        let outcome = map.read(key, &mut value);
        let end = clock::now();
        if record.push(start, end - start, delay) {
            // A CPU beyond the set's size is one that nobody can be pinned to either.
            let _ = sched_getcpu().and_then(|cpu| cpus.set(cpu));
        }
        tally.add(outcome);
        schedule.advance(end.min(deadline));
        last_end = end;
    }
    let after = usage()?;
    Ok(Reading {
        record,
        elapsed: last_end - origin,
        tally,
        skipped: schedule.skipped(),
        cpus: cpu::members(&cpus),
        thread_id: gettid().as_raw(),
        involuntary_switches: after.involuntary_context_switches()
            - before.involuntary_context_switches(),
        voluntary_switches: after.voluntary_context_switches()
            - before.voluntary_context_switches(),
    })
}

impl Tally {
    #[inline]
    fn add(&mut self, outcome: Result<bool, Error>) {
        self.reads += 1;
        match outcome {
            Ok(true) => (),
            Ok(false) => self.misses += 1,
            Err(error) => {
                self.errors += 1;
                self.first_error.get_or_insert(error);
            }
        }
    }
}

fn usage() -> Result<Usage> {
    getrusage(UsageWho::RUSAGE_THREAD).context("could not read the reader's own accounting")
}

/// When the next read begins.
#[derive(Debug)]
enum Schedule {
    /// One read after the other, the first at `origin`.
    Unpaced { origin: u64 },
    /// By the clock.
    Paced(Pacer),
}

impl Schedule {
    fn new(rate: u64, origin: u64) -> Self {
        if rate == 0 {
            return Self::Unpaced { origin };
        }
        Self::Paced(Pacer::new(origin, rate))
    }

    /// Waits for the next read; the moment, read from the clock last of all, and how late it is.
    /// None at the deadline and when told to stop.
    #[inline]
    fn wait(&self, deadline: u64, stop: &AtomicBool) -> Option<(u64, u64)> {
        let (wake, due) = match self {
            Self::Unpaced { origin } => (*origin, None),
            Self::Paced(pacer) => (pacer.due(), Some(pacer.due())),
        };
        let wake = wake.min(deadline);
        while !stop.load(Ordering::Relaxed) {
            let now = clock::now();
            if now >= deadline {
                return None;
            }
            if now >= wake {
                return Some((now, due.map_or(0, |due| now - due)));
            }
            if wake - now > WATCH {
                clock::sleep_until((wake - WATCH).min(now + LONGEST_SLEEP));
            }
        }
        None
    }

    #[inline]
    fn advance(&mut self, now: u64) {
        if let Self::Paced(pacer) = self {
            pacer.advance(now);
        }
    }

    /// Counts what was due before `end`, the end of the run, and will not be made.
    fn give_up(&mut self, end: u64) {
        if let Self::Paced(pacer) = self {
            pacer.skip_to(end);
        }
    }

    fn skipped(&self) -> u64 {
        match self {
            Self::Unpaced { .. } => 0,
            Self::Paced(pacer) => pacer.skipped(),
        }
    }
}
