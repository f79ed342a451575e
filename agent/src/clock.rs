//! The clocks: `CLOCK_MONOTONIC`, which the kernel side stamps with, and wall time for people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// `CLOCK_MONOTONIC`, the clock of `bpf_ktime_get_ns`, in nanoseconds.
pub fn monotonic_nanoseconds() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has this clock");
    let (seconds, nanoseconds) = (now.tv_sec().unsigned_abs(), now.tv_nsec().unsigned_abs());
    seconds * 1_000_000_000 + nanoseconds
}

/// The same as a duration since boot.
pub fn monotonic() -> Duration {
    Duration::from_nanos(monotonic_nanoseconds())
}

/// Wall time in microseconds since 1970.
pub fn unix_microseconds() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|it| i64::try_from(it.as_micros()).ok())
        .unwrap_or_default()
}

/// Wall time of the machine's boot, by `CLOCK_BOOTTIME`, in microseconds since 1970.
pub fn boot_unix_microseconds() -> i64 {
    let now =
        clock_gettime(ClockId::CLOCK_BOOTTIME).expect("every Linux since 2.6.39 has this clock");
    let since_boot = now.tv_sec() * 1_000_000 + now.tv_nsec() / 1_000;
    unix_microseconds() - since_boot
}

/// Sleeps until a moment of [`monotonic`], or less long when a signal comes.
pub fn sleep_until(moment: Duration) {
    let moment = nix::sys::time::TimeSpec::from_duration(moment);
    // An interrupted sleep is a short one; the caller looks at the clock anyway.
    let _ = nix::time::clock_nanosleep(
        ClockId::CLOCK_MONOTONIC,
        nix::time::ClockNanosleepFlags::TIMER_ABSTIME,
        &moment,
    );
}
