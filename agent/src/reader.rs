//! Reads on a fixed schedule, from threads pinned to CPUs.
//!
//! One thread per probe and CPU reads an existing key of each matched map every period and times itself. The
//! schedule is open loop: a read that begins late does not move the ones after it, and how late it began is
//! recorded apart from how long it took. A map is open only around a read, so a reader keeps no map alive.

pub mod affinity;
mod cursor;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use maplatency_core::histogram::Histogram;
use maplatency_core::measure::{Rows, SeriesKey};
use maplatency_core::validate::ActivePlan;
use maplatency_core::vocabulary::Operation;
use nix::sys::prctl;

use crate::clock;
use crate::engine::ReaderPass;
use affinity::AffinityError;
use cursor::{Cursor, Outcome};

/// Names of readers' threads begin so; the CPU follows.
pub(crate) const THREAD_NAME: &str = "reader-";
/// Reads a second that one thread makes at most, whatever number of maps matches.
const MAX_RATE: u32 = 2_000;
/// Reads that were due while a reader could not run are told apart up to this many at a time.
const MAX_SKIPPED: u32 = 10_000;
/// A stop is noticed within this time.
const NAP: Duration = Duration::from_millis(100);

/// Why a reader could not start.
#[derive(Debug, thiserror::Error)]
pub enum ReaderError {
    /// The CPU cannot be used.
    #[error(transparent)]
    Affinity(#[from] AffinityError),
    /// The kernel side does not know the thread, so its reads would count as a caller's.
    #[error("could not tell the kernel side which thread reads on CPU {cpu}")]
    Declare {
        /// The CPU.
        cpu: u32,
        /// Why.
        source: io::Error,
    },
    /// No thread.
    #[error("could not start the thread that reads on CPU {cpu}")]
    Spawn {
        /// The CPU.
        cpu: u32,
        /// Why.
        source: io::Error,
    },
}

/// What a reader measured on one map.
#[derive(Clone, Debug, Default)]
struct Timed {
    read: Histogram,
    delay: Histogram,
}

/// What a thread and the one that looks at it share.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    maps: Mutex<BTreeSet<u32>>,
    timed: Mutex<BTreeMap<u32, Timed>>,
    /// What keeps a map from being read, by its id.
    unreadable: Mutex<BTreeMap<u32, String>>,
    /// Why fewer maps are read than match.
    too_many: Mutex<Option<String>>,
}

/// The readers of one probe. They stop when it is dropped.
#[derive(Debug, Default)]
pub struct Readers {
    threads: BTreeMap<u32, Reader>,
}

#[derive(Debug)]
struct Reader {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Readers {
    /// Starts a thread on every CPU of the plan. CPUs that cannot be used are told, the others are read from.
    pub fn start(plan: &ActivePlan, pass: &ReaderPass) -> (Self, Vec<ReaderError>) {
        let mut readers = Self::default();
        let mut errors = Vec::new();
        let cpus = match affinity::usable(&plan.cpus) {
            Ok((cpus, refused)) => {
                errors.extend(refused.into_iter().map(ReaderError::from));
                cpus
            }
            Err(error) => return (readers, vec![error.into()]),
        };
        for cpu in cpus {
            match Reader::start(cpu, plan.period, pass) {
                Ok(reader) => {
                    readers.threads.insert(cpu, reader);
                }
                Err(error) => errors.push(error),
            }
        }
        (readers, errors)
    }

    /// Sets which maps are read.
    pub fn set_maps(&self, maps: &BTreeSet<u32>) {
        for reader in self.threads.values() {
            lock(&reader.shared.maps).clone_from(maps);
        }
    }

    /// Adds what was read since the readers began to `rows`.
    pub fn collect(&self, rows: &mut Rows) {
        for (cpu, reader) in &self.threads {
            for (map_id, timed) in lock(&reader.shared.timed).iter() {
                let key = SeriesKey {
                    map_id: *map_id,
                    operation: Operation::Lookup,
                    cpu: *cpu,
                    outcome: maplatency_core::Outcome::Success,
                };
                let counts = rows.entry(key).or_default();
                counts.active_read.merge(&timed.read);
                counts.active_delay.merge(&timed.delay);
            }
        }
    }

    /// Lets go of what was read of maps that are gone.
    pub fn forget_maps(&self, gone: &BTreeSet<u32>) {
        for reader in self.threads.values() {
            lock(&reader.shared.timed).retain(|id, _| !gone.contains(id));
        }
    }

    /// What keeps them from reading, in words.
    pub fn problems(&self) -> BTreeSet<String> {
        self.threads
            .values()
            .flat_map(|it| {
                let unreadable: Vec<String> =
                    lock(&it.shared.unreadable).values().cloned().collect();
                unreadable
                    .into_iter()
                    .chain(lock(&it.shared.too_many).clone())
            })
            .collect()
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        // All are told before the first is waited for.
        for reader in self.threads.values() {
            reader.shared.stop.store(true, Ordering::Relaxed);
        }
    }
}

impl Reader {
    fn start(cpu: u32, period: Duration, pass: &ReaderPass) -> Result<Self, ReaderError> {
        let shared = Arc::new(Shared::default());
        let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
        let pass = pass
            .try_clone()
            .map_err(|source| ReaderError::Declare { cpu, source })?;
        let thread = {
            let shared = Arc::clone(&shared);
            thread::Builder::new()
                .name(format!("{THREAD_NAME}{cpu}"))
                .spawn(move || {
                    let prepared = prepare(cpu, &pass);
                    let works = prepared.is_ok();
                    // Fails only when the starter has gone, and then there is nobody to read for.
                    if ready.send(prepared).is_ok() && works {
                        read_on(cpu, period, &shared);
                    }
                })
                .map_err(|source| ReaderError::Spawn { cpu, source })?
        };
        let reader = Self {
            shared,
            thread: Some(thread),
        };
        is_ready.recv().unwrap_or_else(|_| {
            Err(ReaderError::Spawn {
                cpu,
                source: io::Error::other("the thread ended early"),
            })
        })?;
        Ok(reader)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A reader that panicked has nothing more to tell.
            let _ = thread.join();
        }
    }
}

/// Pins the calling thread, and tells the kernel side what it is.
fn prepare(cpu: u32, pass: &ReaderPass) -> Result<(), ReaderError> {
    affinity::pin(cpu)?;
    pass.declare()
        .map_err(|source| ReaderError::Declare { cpu, source })?;
    // By default the kernel may wake a thread 50 µs late; that would be read as a delay of the CPU.
    if let Err(error) = prctl::set_timerslack(1) {
        tracing::debug!(%error, "Could not lower the timer slack");
    }
    Ok(())
}

/// Reads until it is told to stop.
fn read_on(cpu: u32, period: Duration, shared: &Shared) {
    let mut cursors: BTreeMap<u32, Cursor> = BTreeMap::new();
    let mut tick = clock::monotonic() + period;
    while sleep_until(tick, &shared.stop) {
        let maps = bounded(&lock(&shared.maps), period, shared);
        cursors.retain(|id, _| maps.contains(id));
        lock(&shared.unreadable).retain(|id, _| maps.contains(id));
        let step = period / u32::try_from(maps.len().max(1)).unwrap_or(u32::MAX);
        for (scheduled, id) in (0u32..)
            .map(|it| tick + step * it)
            .zip(maps.iter().copied())
        {
            if !sleep_until(scheduled, &shared.stop) {
                return;
            }
            let delay = clock::monotonic().saturating_sub(scheduled);
            let cursor = cursors.entry(id).or_insert_with(|| Cursor::new(id));
            match cursor.read(cpu) {
                Outcome::Read(took) => {
                    record(shared, id, took, delay);
                    lock(&shared.unreadable).remove(&id);
                }
                Outcome::Nothing => (),
                Outcome::Unreadable(why) => {
                    lock(&shared.unreadable).insert(id, why);
                }
            }
        }
        // Ticks that lie in the past by more than a whole period could only be read in a burst. Nobody reads for
        // them, but whoever had wanted to read then would have waited until now.
        let now = clock::monotonic();
        tick += period;
        for _ in 0..MAX_SKIPPED {
            if tick + period > now {
                break;
            }
            for id in &maps {
                record_delay(shared, *id, now.saturating_sub(tick));
            }
            tick += period;
        }
        tick = tick.max(now.saturating_sub(period));
    }
}

/// The maps that can be read within a period without passing [`MAX_RATE`].
fn bounded(maps: &BTreeSet<u32>, period: Duration, shared: &Shared) -> Vec<u32> {
    let most = (period.as_secs_f64() * f64::from(MAX_RATE)).floor();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a period of at most a minute gives at most 120,000"
    )]
    let most = most as usize;
    *lock(&shared.too_many) = (maps.len() > most).then(|| {
        format!(
            "{} maps every {} ms would be more than {MAX_RATE} active reads a second on a CPU; only the {most} \
             with the lowest ids are read; raise periodMilliseconds or select fewer maps",
            maps.len(),
            period.as_millis(),
        )
    });
    maps.iter().copied().take(most).collect()
}

fn record(shared: &Shared, id: u32, took: Duration, delay: Duration) {
    let mut timed = lock(&shared.timed);
    let timed = timed.entry(id).or_default();
    timed.read.record(nanoseconds(took));
    timed.delay.record(nanoseconds(delay));
}

fn record_delay(shared: &Shared, id: u32, delay: Duration) {
    lock(&shared.timed)
        .entry(id)
        .or_default()
        .delay
        .record(nanoseconds(delay));
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Sleeps until a moment of the monotonic clock; false when it is time to stop.
fn sleep_until(moment: Duration, stop: &AtomicBool) -> bool {
    loop {
        if stop.load(Ordering::Relaxed) {
            return false;
        }
        let left = moment.saturating_sub(clock::monotonic());
        if left.is_zero() {
            return true;
        }
        clock::sleep_until(moment.min(clock::monotonic() + NAP));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What a panicking thread left behind is still a set of whole values.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
