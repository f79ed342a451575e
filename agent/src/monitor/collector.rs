//! Takes single operations out of the ring buffer as they come, and keeps them.
//!
//! A thread of its own empties the ring buffer every few milliseconds, so that a slice that takes long loses none. What is
//! kept is behind a lock, which nobody holds for longer than copying takes.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use maplatency_bpf::layout::{OPERATION_BYTES, OperationRecord};
use maplatency_core::exact::{ExactRow, ExactWindow, Keep, MapOperation, Sample, Single};
use maplatency_core::vocabulary::Operation;

use super::MonitorError;
use super::operations::{OperationsFile, OperationsFileError, Written};
use crate::engine::{Instance, OperationRing};

/// Between two looks at the ring buffer, which holds 87,000 operations.
const PAUSE: Duration = Duration::from_millis(4);
/// Operations that are taken at once: as many as the ring buffer holds, however fast more come.
const AT_ONCE: usize = OPERATION_BYTES as usize / (OperationRecord::BYTES + 8);
/// Operations on maps that are not listed yet, which wait until it is known whether they are wanted.
const MOST_WAITING: usize = 65_536;
/// Operations that wait to be written. While there are more, none are taken, and the kernel side counts what it misses.
const MOST_LINES: usize = 131_072;

/// What a clock of the kernel's reads as.
pub(super) type WallClock = Arc<dyn Fn(u64) -> i64 + Send + Sync>;

/// The thread that takes operations. It ends with this value.
pub(super) struct Collector {
    state: Arc<Mutex<State>>,
    /// Dropped to end the thread.
    stop: Option<SyncSender<Infallible>>,
    thread: Option<JoinHandle<Result<(), OperationsFileError>>>,
}

/// Exact figures of a probe.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) rows: Vec<ExactRow>,
    /// Maps and operations of which there are none, since there is no room.
    pub(super) without_room: usize,
}

struct State {
    ring: OperationRing,
    probes: BTreeMap<Instance, Probe>,
    /// The newest probe that was begun. Operations of later ones wait.
    newest_probe: Option<Instance>,
    /// Up to here it is known which maps are wanted.
    newest_map: u32,
    waiting: Vec<OperationRecord>,
    /// Those that there was no room for to wait.
    turned_away: BTreeMap<(Instance, MapOperation), u64>,
    /// To be written; `None`: there is no file.
    lines: Option<Vec<OperationRecord>>,
    written: Written,
}

struct Probe {
    shown: BTreeSet<u32>,
    window: ExactWindow,
    to_file: bool,
}

impl Collector {
    /// Starts taking operations, and writing those of probes that keep all.
    pub(super) fn start(
        ring: OperationRing,
        file: Option<OperationsFile>,
        wall: WallClock,
    ) -> std::io::Result<Self> {
        let state = Arc::new(Mutex::new(State {
            ring,
            probes: BTreeMap::new(),
            newest_probe: None,
            newest_map: 0,
            waiting: Vec::new(),
            turned_away: BTreeMap::new(),
            lines: file.is_some().then(Vec::new),
            written: Written::default(),
        }));
        let (stop, stopped) = sync_channel(0);
        let shared = Arc::clone(&state);
        let thread = thread::Builder::new()
            .name("collector".to_owned())
            .spawn(move || collect(&shared, file, &wall, &stopped))?;
        Ok(Self {
            state,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Begins to keep operations of a probe.
    pub(super) fn begin(&self, instance: Instance, window: Duration, keep: Keep) {
        let mut state = lock(&self.state);
        let probe = Probe {
            shown: BTreeSet::new(),
            window: ExactWindow::new(window, keep),
            to_file: matches!(keep, Keep::All(_)),
        };
        state.probes.insert(instance, probe);
        state.newest_probe = state.newest_probe.max(Some(instance));
    }

    /// Lets go of a probe.
    pub(super) fn end(&self, instance: Instance) {
        let mut state = lock(&self.state);
        state.probes.remove(&instance);
        state.turned_away.retain(|it, _| it.0 != instance);
    }

    /// Maps that are wanted. To be told before the kernel side goes by it.
    pub(super) fn show(&self, maps: &BTreeMap<Instance, BTreeSet<u32>>) {
        let mut state = lock(&self.state);
        for (instance, ids) in maps {
            if let Some(probe) = state.probes.get_mut(instance) {
                probe.shown.extend(ids);
            }
        }
    }

    /// Ends a slice at `to`, after its counts were read, and gives the figures. All maps up to `newest_map` are shown, or
    /// not wanted. `missed` tells how many operations were not handed over since each probe began.
    pub(super) fn settle(
        &self,
        to: Duration,
        shown: &BTreeMap<Instance, BTreeSet<u32>>,
        newest_map: u32,
        missed: &BTreeMap<Instance, BTreeMap<MapOperation, u64>>,
    ) -> (BTreeMap<Instance, Figures>, Option<Written>) {
        let mut state = lock(&self.state);
        let copies = state.settle(to, shown, newest_map, missed);
        let written = state.lines.is_some().then_some(state.written);
        drop(state);
        let figures = copies.into_iter().map(|(instance, samples, without_room)| {
            let figures = Figures {
                rows: samples.into_iter().map(Sample::into_row).collect(),
                without_room,
            };
            (instance, figures)
        });
        (figures.collect(), written)
    }

    /// Whether the thread has ended by itself, which it does if it cannot write.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends the thread when it has taken all there is, and gives what was written. Nothing may come into the ring buffer any
    /// more.
    pub(super) fn finish(mut self) -> Result<Written, MonitorError> {
        self.stop = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(outcome)) => outcome?,
            Some(Err(_)) | None => return Err(MonitorError::Ended),
        }
        Ok(Written {
            is_complete: true,
            ..lock(&self.state).written
        })
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // Who cares for what it has to say asks for it.
            let _ = thread.join();
        }
    }
}

/// What is kept is whole between any two operations, whoever panicked.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn collect(
    state: &Mutex<State>,
    mut file: Option<OperationsFile>,
    wall: &WallClock,
    stop: &Receiver<Infallible>,
) -> Result<(), OperationsFileError> {
    loop {
        let goes_on = stop.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout);
        let (taken, lines) = {
            let mut state = lock(state);
            let taken = state.drain();
            (taken, state.lines.as_mut().map(std::mem::take))
        };
        // While many lines wait, nothing is taken, however much there is.
        let is_empty = taken == 0 && lines.as_ref().is_none_or(Vec::is_empty);
        if let (Some(file), Some(lines)) = (&mut file, lines) {
            file.write(&lines, &**wall)?;
            if !goes_on && is_empty {
                file.finish()?;
            }
        }
        if !goes_on && is_empty {
            return Ok(());
        }
    }
}

impl State {
    /// Takes what has come. Gives how many.
    fn drain(&mut self) -> usize {
        let lines = self.lines.as_ref().map_or(0, Vec::len);
        if lines > MOST_LINES {
            return 0;
        }
        let mut taken = 0;
        while taken < AT_ONCE
            && let Some(record) = self.ring.take()
        {
            self.accept(record);
            taken += 1;
        }
        taken
    }

    fn accept(&mut self, record: OperationRecord) {
        let instance = Instance::of(&record);
        // The kernel side hands over no other.
        let Some(operation) = Operation::from_command(u32::from(record.command)) else {
            return;
        };
        let map = (record.map_id, operation);
        let is_new = record.map_id > self.newest_map;
        match self.probes.get_mut(&instance) {
            Some(probe) if probe.shown.contains(&record.map_id) => {
                let single = Single {
                    begin: record.begin_ns,
                    until_user: record.until_user_ns,
                    kernel_window: record.kernel_window_ns,
                };
                probe.window.tell(map, single);
                if probe.to_file
                    && let Some(lines) = &mut self.lines
                {
                    lines.push(record);
                    self.written.lines += 1;
                }
            }
            Some(_) if !is_new => (),
            // Its probe has gone.
            None if Some(instance) <= self.newest_probe => (),
            _ if self.waiting.len() < MOST_WAITING => self.waiting.push(record),
            _ => *self.turned_away.entry((instance, map)).or_default() += 1,
        }
    }

    fn settle(
        &mut self,
        to: Duration,
        shown: &BTreeMap<Instance, BTreeSet<u32>>,
        newest_map: u32,
        missed: &BTreeMap<Instance, BTreeMap<MapOperation, u64>>,
    ) -> Vec<(Instance, Vec<Sample>, usize)> {
        self.newest_map = newest_map;
        for (instance, probe) in &mut self.probes {
            probe.shown = shown.get(instance).cloned().unwrap_or_default();
        }
        self.drain();
        for record in std::mem::take(&mut self.waiting) {
            self.accept(record);
        }
        let probes = &self.probes;
        self.turned_away.retain(|(instance, map), _| {
            let is_shown = |it: &Probe| it.shown.contains(&map.0);
            map.0 > newest_map || probes.get(instance).is_some_and(is_shown)
        });
        self.written.missed = 0;
        let mut copies = Vec::new();
        for (instance, probe) in &mut self.probes {
            let mut missed = missed.get(instance).cloned().unwrap_or_default();
            for ((of, map), number) in &self.turned_away {
                if of == instance && probe.shown.contains(&map.0) {
                    *missed.entry(*map).or_default() += number;
                }
            }
            if probe.to_file {
                self.written.missed += missed.values().sum::<u64>();
            }
            probe.window.advance(to, &missed);
            probe.window.keep_maps(|id| probe.shown.contains(&id));
            let window = &probe.window;
            copies.push((*instance, window.samples(), window.without_room()));
        }
        copies
    }
}
