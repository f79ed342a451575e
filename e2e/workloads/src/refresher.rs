//! Rewrites the whole map every few seconds.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use maplatency_bpf::sys::Error;
use serde::Serialize;

use crate::clock;
use crate::map::{DemoMap, Rewrite};

/// Refreshes that are kept one by one; 11 hours of the default period.
const KEPT: usize = 10_000;

/// One rewrite of all entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Refresh {
    /// When it began, from the start of the run.
    pub(crate) start_nanoseconds: u64,
    /// How long it took, with the time that its thread did not run.
    pub(crate) duration_nanoseconds: u64,
}

/// What the refresher did.
#[derive(Debug, Default)]
pub(crate) struct Refreshes {
    /// The complete ones, in their order, up to a limit.
    pub(crate) list: Vec<Refresh>,
    /// How many were complete.
    pub(crate) complete: u64,
    /// How many ended early, by an error.
    pub(crate) failed: u64,
    /// The first of those errors.
    pub(crate) first_error: Option<Error>,
}

/// Rewrites the map every `period`, first one period after `origin`, until told to stop.
///
/// Telling it is setting `stop` and unparking its thread. A refresh that takes longer than its
/// period skips the moments that it misses.
pub(crate) fn refresh(
    map: &DemoMap,
    period: Duration,
    origin: u64,
    stop: &AtomicBool,
) -> Refreshes {
    let period = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX / 2);
    let mut refreshes = Refreshes::default();
    let mut due = origin + period;
    for number in 1.. {
        if !wait(due, stop) {
            break;
        }
        let start = clock::now();
        match map.rewrite(number, stop) {
            Ok(Rewrite::Complete) => refreshes.add(Refresh {
                start_nanoseconds: start - origin,
                duration_nanoseconds: clock::now() - start,
            }),
            Ok(Rewrite::Stopped) => break,
            Err(error) => {
                refreshes.failed += 1;
                refreshes.first_error.get_or_insert(error);
            }
        }
        let behind = clock::now().saturating_sub(due);
        due += (behind / period + 1) * period;
    }
    refreshes
}

impl Refreshes {
    fn add(&mut self, refresh: Refresh) {
        self.complete += 1;
        if self.list.len() < KEPT {
            self.list.push(refresh);
        }
    }
}

/// Sleeps until `due`; false when told to stop.
fn wait(due: u64, stop: &AtomicBool) -> bool {
    while !stop.load(Ordering::Relaxed) {
        let left = due.saturating_sub(clock::now());
        if left == 0 {
            return true;
        }
        thread::park_timeout(Duration::from_nanos(left));
    }
    false
}
