//! A bursty CPU hog.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::clock;

/// Computes for `run`, sleeps for `sleep`, and so on until told to stop.
///
/// The sleep is what hurts its neighbours: a thread that has slept is owed CPU time, so on waking
/// up it takes the place of whoever runs.
pub(crate) fn burn(run: Duration, sleep: Duration, stop: &AtomicBool) {
    let run = u64::try_from(run.as_nanos()).unwrap_or(u64::MAX);
    while !stop.load(Ordering::Relaxed) {
        let end = clock::now().saturating_add(run);
        while clock::now() < end && !stop.load(Ordering::Relaxed) {}
        // In slices, so that a long sleep does not delay the end of the program.
        let mut left = sleep;
        while !left.is_zero() && !stop.load(Ordering::Relaxed) {
            let slice = left.min(Duration::from_millis(50));
            std::thread::sleep(slice);
            left -= slice;
        }
    }
}
