//! `CLOCK_MONOTONIC`, the clock of every time in this crate and of the kernel's tracing.

use nix::time::{ClockId, ClockNanosleepFlags, clock_nanosleep};

/// Nanoseconds per second.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// Nanoseconds per millisecond.
pub(crate) const MILLISECOND: u64 = 1_000_000;

/// Reads the clock, in nanoseconds.
#[inline]
pub(crate) fn now() -> u64 {
    let time = ClockId::CLOCK_MONOTONIC
        .now()
        .expect("every kernel has CLOCK_MONOTONIC");
    time.tv_sec().cast_unsigned() * SECOND + time.tv_nsec().cast_unsigned()
}

/// Sleeps until the clock shows `until`, or a little longer; sooner if a signal comes.
pub(crate) fn sleep_until(until: u64) {
    let until = nix::sys::time::TimeSpec::new(
        (until / SECOND).cast_signed(),
        (until % SECOND).cast_signed(),
    );
    // The caller looks at the clock again, so an interrupted sleep needs no repetition.
    let _ = clock_nanosleep(
        ClockId::CLOCK_MONOTONIC,
        ClockNanosleepFlags::TIMER_ABSTIME,
        &until,
    );
}

/// The median distance of two successive readings: the part of every timed read that is the
/// clock's own.
pub(crate) fn cost() -> u64 {
    let mut distances: Vec<u64> = (0..10_001)
        .map(|_| {
            let before = now();
            now() - before
        })
        .collect();
    let middle = distances.len() / 2;
    *distances.select_nth_unstable(middle).1
}
