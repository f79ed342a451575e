//! What the agent itself costs its host.
//!
//! A thread of its own looks every ten seconds, since what it asks may wait for locks of the kernel, which the
//! measuring thread must not. The measuring thread takes the newest figures ([`Meter::latest`]).
//!
//! For a tenth of a second per look the kernel times every BPF program of the host (`BPF_ENABLE_STATS`), which costs
//! each of their runs two readings of a clock. It is never on for longer, unless somebody else keeps it on.

mod bpf;
mod process;
mod slice;

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use maplatency_core::cost::Cost;
use tokio::sync::watch;
use tracing::warn;

use crate::engine::Objects;
use bpf::RunTimes;
use process::CpuTimes;
pub(crate) use slice::SliceCost;

/// Until the first look, so that a short run has figures, too.
const FIRST: Duration = Duration::from_secs(1);
/// Between two looks. With the span it is no multiple of a slice, so that spans fall on all parts of a slice in turn
/// and not always on its drain, or never.
const PERIOD: Duration = Duration::from_millis(9_800);
/// For how long the kernel times BPF programs.
const SPAN: Duration = Duration::from_millis(100);

/// The thread that looks. It ends with this value.
#[derive(Debug)]
pub struct Meter {
    /// How many looks there were, and what the newest found.
    latest: watch::Receiver<(u64, Cost)>,
    /// A map that is not there all the time.
    extra: Arc<Mutex<Option<OwnedFd>>>,
    /// Dropped to end the thread.
    stop: Option<SyncSender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl Meter {
    /// Starts looking at this process and at `objects`.
    pub fn start(objects: Objects) -> Self {
        let (publish, latest) = watch::channel((0, Cost::default()));
        let (stop, stopped) = sync_channel(0);
        let extra = Arc::default();
        let seen = Arc::clone(&extra);
        let thread = thread::Builder::new()
            .name("cost".to_owned())
            .spawn(move || watch_cost(&objects, &seen, &publish, &stopped))
            .inspect_err(|error| warn!(%error, "Cannot tell what the agent costs"));
        Self {
            latest,
            extra,
            stop: Some(stop),
            thread: thread.ok(),
        }
    }

    /// Sets the map that is looked at besides, or that there is none. It stays loaded as long.
    pub fn set_extra(&self, map: Option<OwnedFd>) {
        *lock(&self.extra) = map;
    }

    /// The newest figures. Empty before the first look.
    pub fn latest(&self) -> Cost {
        self.latest.borrow().1
    }

    /// How many looks there were.
    pub fn looks(&self) -> u64 {
        self.latest.borrow().0
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A look is short. One that panicked has said so itself.
            let _ = thread.join();
        }
    }
}

/// A descriptor is whole, whoever panicked.
fn lock(extra: &Mutex<Option<OwnedFd>>) -> MutexGuard<'_, Option<OwnedFd>> {
    extra.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory of all maps; `None` if that of one is not known.
fn maps_bytes(objects: &Objects, extra: &Mutex<Option<OwnedFd>>) -> Option<u64> {
    let always = objects.maps.as_deref().and_then(bpf::memory)?;
    let besides = bpf::memory(lock(extra).as_slice())?;
    Some(always.saturating_add(besides))
}

fn watch_cost(
    objects: &Objects,
    extra: &Mutex<Option<OwnedFd>>,
    publish: &watch::Sender<(u64, Cost)>,
    stop: &Receiver<Infallible>,
) {
    let goes_on = |wait| stop.recv_timeout(wait) == Err(RecvTimeoutError::Timeout);
    let programs = objects.programs.as_deref().unwrap_or_default();
    let mut cpu = CpuTimes::begin();
    let mut runs = RunTimes::default();
    let mut wait = FIRST;
    while goes_on(wait) {
        let span = runs.begin(programs);
        if !goes_on(SPAN) {
            return;
        }
        let bpf_run_time = runs.end(span, programs);
        let cost = Cost {
            cpu: cpu.since_last(),
            rss_bytes: process::rss_bytes(),
            bpf_maps_bytes: maps_bytes(objects, extra),
            bpf_programs_bytes: objects.programs.as_deref().and_then(bpf::memory),
            bpf_run_time,
        };
        publish.send_modify(|it| *it = (it.0 + 1, cost));
        wait = PERIOD;
    }
}
