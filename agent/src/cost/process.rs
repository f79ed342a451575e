//! CPU time and memory of this process.

use std::collections::BTreeMap;
use std::fs;

use maplatency_core::cost::CpuTime;
use nix::time::{ClockId, clock_gettime};

use crate::clock;
use crate::reader;

/// CPU time since the last look.
pub(super) struct CpuTimes {
    before: Option<Reading>,
}

/// CPU time since the process began, in nanoseconds.
struct Reading {
    at: u64,
    total: u64,
    /// By id of the thread. `None` where threads cannot be listed.
    readers: Option<BTreeMap<i32, u64>>,
}

impl CpuTimes {
    pub(super) fn begin() -> Self {
        Self {
            before: Reading::take(),
        }
    }

    pub(super) fn since_last(&mut self) -> Option<CpuTime> {
        let now = Reading::take();
        let before = std::mem::replace(&mut self.before, now)?;
        self.before.as_ref()?.since(&before)
    }
}

impl Reading {
    fn take() -> Option<Self> {
        Some(Self {
            at: clock::monotonic_nanoseconds(),
            // What getrusage(2) tells, user and system time of all threads, but not cut to microseconds.
            total: nanoseconds(ClockId::CLOCK_PROCESS_CPUTIME_ID)?,
            readers: readers(),
        })
    }

    fn since(&self, before: &Self) -> Option<CpuTime> {
        let total = self.total.checked_sub(before.total)?;
        let readers = self.readers.as_ref().zip(before.readers.as_ref());
        Some(CpuTime {
            period_nanoseconds: self.at.checked_sub(before.at).filter(|it| *it > 0)?,
            total_nanoseconds: total,
            // The threads are read a little after the process.
            readers_nanoseconds: readers.map(|(now, before)| added(now, before).min(total)),
        })
    }
}

/// What readers took. One that ended since takes what it took since then with it.
fn added(now: &BTreeMap<i32, u64>, before: &BTreeMap<i32, u64>) -> u64 {
    now.iter()
        .map(|(thread, time)| {
            let before = before.get(thread).copied().unwrap_or(0);
            // Less than before is another thread, to which the kernel has given the id of one that ended.
            time.checked_sub(before).unwrap_or(*time)
        })
        .sum()
}

/// CPU time of every pinned reader that runs.
fn readers() -> Option<BTreeMap<i32, u64>> {
    let mut times = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/task").ok()? {
        let entry = entry.ok()?;
        let Some(thread) = entry.file_name().to_str().and_then(|it| it.parse().ok()) else {
            continue;
        };
        // A thread that has ended meanwhile has neither a name nor a clock.
        let is_reader = fs::read_to_string(entry.path().join("comm"))
            .is_ok_and(|it| it.starts_with(reader::THREAD_NAME));
        if let Some(time) = is_reader.then(|| nanoseconds(clock_of(thread))).flatten() {
            times.insert(thread, time);
        }
    }
    Some(times)
}

/// The CPU-time clock of a thread of this process, as `pthread_getcpuclockid(3)` makes it: the complement of the
/// id, and a bit each for "one thread" (4) and "as the scheduler counts" (2).
fn clock_of(thread: i32) -> ClockId {
    ClockId::from_raw((!thread << 3) | 4 | 2)
}

fn nanoseconds(clock: ClockId) -> Option<u64> {
    let time = clock_gettime(clock).ok()?;
    let seconds = u64::try_from(time.tv_sec()).ok()?;
    Some(seconds * 1_000_000_000 + u64::try_from(time.tv_nsec()).ok()?)
}

/// Memory of this process that is resident, in bytes.
pub(super) fn rss_bytes() -> Option<u64> {
    rss(&fs::read_to_string("/proc/self/status").ok()?)
}

fn rss(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;
    use std::thread;
    use std::time::{Duration, Instant};

    fn reading(at: u64, total: u64, readers: &[(i32, u64)]) -> Reading {
        Reading {
            at,
            total,
            readers: Some(readers.iter().copied().collect()),
        }
    }

    #[test]
    fn resident_memory_is_read_from_the_status_of_a_process() {
        let status =
            "Name:\tcat\nVmPeak:\t    3060 kB\nVmRSS:\t    2084 kB\nRssAnon:\t     148 kB\n";
        assert_eq!(rss(status), Some(2084 * 1024));
        assert_eq!(
            rss("Name:\tkthreadd\nThreads:\t1\n"),
            None,
            "no memory of its own"
        );
        assert_eq!(rss("VmRSS:\t    2084 MB\n"), None);
    }

    #[test]
    fn this_process_tells_its_memory() {
        assert!(rss_bytes().unwrap() > 100_000);
    }

    #[test]
    fn cpu_time_is_that_of_the_period() {
        let cpu = reading(5_000, 700, &[(7, 90), (8, 30)])
            .since(&reading(1_000, 300, &[(7, 50)]))
            .unwrap();
        let expected = CpuTime {
            period_nanoseconds: 4_000,
            total_nanoseconds: 400,
            readers_nanoseconds: Some(70),
        };
        assert_eq!(cpu, expected);
    }

    #[test]
    fn a_thread_id_that_is_given_again_counts_from_zero() {
        let cpu = reading(2, 300, &[(7, 10)]).since(&reading(1, 100, &[(7, 50), (8, 9)]));
        assert_eq!(cpu.unwrap().readers_nanoseconds, Some(10));
    }

    #[test]
    fn a_period_of_no_length_tells_nothing() {
        assert_eq!(reading(5, 9, &[]).since(&reading(5, 1, &[])), None);
        assert_eq!(reading(6, 1, &[]).since(&reading(5, 9, &[])), None);
    }

    #[test]
    fn the_time_of_readers_is_told_apart() {
        let work = Duration::from_millis(60);
        let spin = move || {
            let end = Instant::now() + work;
            while Instant::now() < end {
                black_box(0);
            }
        };
        let (done, is_done) = std::sync::mpsc::channel();
        let (end, is_end) = std::sync::mpsc::channel::<()>();
        let mut times = CpuTimes::begin();
        let reader = thread::Builder::new()
            .name(format!("{}0", reader::THREAD_NAME))
            .spawn(move || {
                spin();
                done.send(()).unwrap();
                let _ = is_end.recv();
            })
            .unwrap();
        thread::spawn(spin).join().unwrap();
        is_done.recv().unwrap();

        let cpu = times.since_last().unwrap();

        drop(end);
        reader.join().unwrap();
        let readers = cpu.readers_nanoseconds.unwrap();
        // Other processes may have had the CPU, but not all of the time.
        assert!(readers > 5_000_000, "{cpu:?}");
        assert!(readers <= 70_000_000, "{cpu:?}");
        assert!(cpu.total_nanoseconds > readers + 5_000_000, "{cpu:?}");
    }
}
