//! One probe while it runs: its place in the kernel, its readers, its sliding window.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use maplatency_core::callers::{CALLERS_PER_MAP, CallerRows, CallerWindow};
use maplatency_core::histogram::Percentile;
use maplatency_core::measure::{Place, Rows, SlidingWindow, by_place, worst_slices};
use maplatency_core::spikes::{Span, SpikeWindow};
use maplatency_core::vocabulary::MapIdentity;
use tracing::warn;

use super::{ProbeRequest, ProbeSnapshot};
use crate::engine::{Engine, EngineError, Instance, Spans};
use crate::error::chain;
use crate::reader::Readers;

/// Wall time of the beginning of the agent's clock, for people.
#[derive(Clone, Copy, Debug)]
pub(super) struct Epoch {
    pub(super) unix_microseconds: i64,
}

pub(super) struct RunningProbe {
    request: ProbeRequest,
    instance: Instance,
    readers: Readers,
    reader_errors: Vec<String>,
    window: SlidingWindow,
    callers: CallerWindow,
    spikes: SpikeWindow,
    /// How many operations one stood for, and when that was so last.
    sampling: BTreeMap<u32, Duration>,
    began: Duration,
    live: BTreeMap<u32, MapIdentity>,
    /// Maps that are gone, and when they were missed.
    gone: BTreeMap<u32, (MapIdentity, Duration)>,
}

impl RunningProbe {
    /// Gives the probe its place in the kernel and starts its readers.
    pub(super) fn start(
        request: ProbeRequest,
        engine: &mut Engine,
        now: Duration,
    ) -> Result<Self, EngineError> {
        let instance = engine.add(&request.spec)?;
        let (readers, errors) = match &request.spec.active {
            Some(plan) => Readers::start(plan, &engine.reader_pass()?),
            None => (Readers::default(), vec![]),
        };
        let mut window = SlidingWindow::new(request.spec.window);
        window.begin(now, Rows::new());
        let callers = CallerWindow::new(request.spec.window);
        let spikes = SpikeWindow::new(request.spec.window);
        Ok(Self {
            request,
            instance,
            readers,
            reader_errors: errors.iter().map(|it| chain(it)).collect(),
            window,
            callers,
            spikes,
            sampling: BTreeMap::new(),
            began: now,
            live: BTreeMap::new(),
            gone: BTreeMap::new(),
        })
    }

    pub(super) fn request(&self) -> &ProbeRequest {
        &self.request
    }

    pub(super) fn instance(&self) -> Instance {
        self.instance
    }

    /// Takes note of the maps of the host; gives the ids of those that match.
    pub(super) fn see_maps(
        &mut self,
        maps: &BTreeMap<u32, MapIdentity>,
        now: Duration,
    ) -> BTreeSet<u32> {
        let live: BTreeMap<u32, MapIdentity> = maps
            .iter()
            .filter(|(_, map)| self.request.spec.matches(map))
            .map(|(id, map)| (*id, map.clone()))
            .collect();
        for (id, map) in std::mem::take(&mut self.live) {
            if !live.contains_key(&id) {
                self.gone.insert(id, (map, now));
            }
        }
        self.live = live;
        let ids: BTreeSet<u32> = self.live.keys().copied().collect();
        self.readers.set_maps(&ids);
        ids
    }

    /// Maps that went so long ago that nothing of them is in the window any more.
    pub(super) fn forgotten_maps(&mut self, now: Duration) -> BTreeSet<u32> {
        // One slice more, since the last counts of a map are drained after it was missed.
        let keep = self.request.spec.window + 2 * super::SLICE;
        let over: BTreeSet<u32> = self
            .gone
            .iter()
            .filter(|(_, (_, since))| now.saturating_sub(*since) > keep)
            .map(|(id, _)| *id)
            .collect();
        self.gone.retain(|id, _| !over.contains(id));
        self.readers.forget_maps(&over);
        over
    }

    /// Moves the window on to what the kernel side and the readers have counted, one operation for at least `one_in`.
    pub(super) fn advance(
        &mut self,
        now: Duration,
        mut cumulative: Rows,
        callers: CallerRows,
        one_in: u32,
    ) {
        self.callers.advance(now, callers);
        let one_in = self.request.spec.aggregation.sampling().max(one_in);
        self.sampling.insert(one_in, now);
        // An operation may have begun in the slice before.
        let begin = now.saturating_sub(self.request.spec.window + super::SLICE);
        self.sampling.retain(|_, last| *last >= begin);
        self.readers.collect(&mut cumulative);
        if let Err(error) = self.window.advance(now, cumulative.clone()) {
            warn!(probe = %self.request.name, %error, "Began the window anew");
            self.window.begin(now, cumulative);
        }
    }

    /// Lets go of who called.
    pub(super) fn forget_callers(&mut self) {
        self.callers = CallerWindow::new(self.request.spec.window);
    }

    /// Callers' operations in the newest slice.
    pub(super) fn operations(&self) -> u64 {
        let newest = self.window.slices().last();
        let rows = newest.iter().flat_map(|it| it.rows.values());
        rows.map(|it| it.until_user.count()).sum()
    }

    /// Sums the newest slice up by what it lost. `spans` are by the kernel's clock, by which the agent's began at
    /// `began`.
    pub(super) fn note_spikes(&mut self, now: Duration, spans: Spans, began: Duration) {
        let medians = by_place(self.window.within());
        let since = |ns| Duration::from_nanos(ns).saturating_sub(began);
        let spans: BTreeMap<Place, BTreeMap<u16, Span>> = spans
            .into_iter()
            .map(|(place, blocks)| {
                let blocks = blocks.into_iter().map(|(block, it)| {
                    let span = Span {
                        first_begin: since(it.first_begin_ns),
                        last_end: since(it.last_end_ns),
                    };
                    (block, span)
                });
                (place, blocks.collect())
            })
            .collect();
        if let Some(slice) = self.window.slices().last() {
            for (place, counts) in by_place(&slice.rows) {
                let of_window = medians.get(&place);
                let median = of_window.and_then(|it| it.until_user.percentile(Percentile::P50));
                if let Some(median) = median {
                    let spans = spans.get(&place);
                    self.spikes
                        .add(place, slice.to, &counts.until_user, spans, median);
                }
            }
        }
        self.spikes.expire(now);
    }

    pub(super) fn snapshot(&self, readers: Rows, epoch: Epoch) -> ProbeSnapshot {
        let (cumulative, at) = self.window.newest();
        let span = self.window.span();
        let wall = |at: Duration| {
            epoch
                .unix_microseconds
                .saturating_add(i64::try_from(at.as_micros()).unwrap_or(i64::MAX))
        };
        let mut problems = self.reader_errors.clone();
        problems.extend(self.readers.problems());
        ProbeSnapshot {
            name: self.request.name.clone(),
            uid: self.request.uid.clone(),
            generation: self.request.generation,
            maps: self.live.values().cloned().collect(),
            gone: self.gone.values().map(|it| it.0.clone()).collect(),
            cumulative: cumulative.clone(),
            beginning: self.window.beginning(),
            beginning_at: at.unwrap_or(self.began).saturating_sub(span),
            within: self.window.within().clone(),
            sampling: self.sampling.keys().last().copied().unwrap_or(1),
            span,
            worst: worst_slices(&self.window, wall),
            spikes: self.spikes.spikes(span, wall),
            callers: self.callers.rows(span, CALLERS_PER_MAP),
            readers,
            problems,
        }
    }
}
