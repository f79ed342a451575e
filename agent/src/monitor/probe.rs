//! One probe while it runs: its place in the kernel, its readers, its sliding window.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use maplatency_bpf::layout::{MAX_TARGETS, Outlier, OutlierCounts};
use maplatency_core::callers::{CALLERS_PER_MAP, CallerIdentity, CallerRows, CallerWindow};
use maplatency_core::exact::MAX_KEPT;
use maplatency_core::histogram::{Histogram, Percentile};
use maplatency_core::measure::{Place, Rows, SlidingWindow, by_place, medians, worst_slices};
use maplatency_core::outliers::{self, Evidence, Instead, OutlierCaller, OutlierWindow};
use maplatency_core::spikes::{Span, SpikeWindow};
use maplatency_core::validate::Ties;
use maplatency_core::vocabulary::{MapIdentity, Operation, Outcome};
use tracing::warn;

use super::collector::Figures;
use super::ties::AllTies;
use super::{ProbeRequest, ProbeSnapshot};
use crate::engine::{Engine, EngineError, Instance, Spans, Thresholds, ToldOutliers};
use crate::error::chain;
use crate::reader::Readers;

/// Maps that are shown after they have gone, before those that were never listed are left out.
const MAX_GONE: usize = 4_096;

/// Wall time of the beginning of the agent's clock, for people.
#[derive(Clone, Copy, Debug)]
pub(super) struct Epoch {
    pub(super) unix_microseconds: i64,
}

impl Epoch {
    fn wall(self, at: Duration) -> i64 {
        let since = i64::try_from(at.as_micros()).unwrap_or(i64::MAX);
        self.unix_microseconds.saturating_add(since)
    }

    /// The same in nanoseconds.
    pub(super) fn nanoseconds(self, at: Duration) -> i64 {
        let since = i64::try_from(at.as_nanos()).unwrap_or(i64::MAX);
        let began = self.unix_microseconds.saturating_mul(1_000);
        began.saturating_add(since)
    }
}

/// Operations of which one in a thousand can be told from the rest.
const ENOUGH_FOR_P999: u64 = 10_000;

pub(super) struct RunningProbe {
    request: ProbeRequest,
    instance: Instance,
    readers: Readers,
    reader_errors: Vec<String>,
    tie_problems: Vec<String>,
    window: SlidingWindow,
    callers: CallerWindow,
    spikes: SpikeWindow,
    outliers: Option<OutlierWindow>,
    /// How many operations one stood for, and when that was so last.
    sampling: BTreeMap<u32, Duration>,
    began: Duration,
    live: BTreeMap<u32, MapIdentity>,
    /// How many maps match beside those, and cannot be measured.
    without_room: usize,
    /// Maps that are gone or match no more, and when they were missed.
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
        let outliers = request.spec.outliers;
        let outliers = outliers.map(|_| OutlierWindow::new(request.spec.window));
        Ok(Self {
            request,
            instance,
            readers,
            tie_problems: vec![],
            reader_errors: errors.iter().map(|it| chain(it)).collect(),
            window,
            callers,
            spikes,
            outliers,
            sampling: BTreeMap::new(),
            began: now,
            live: BTreeMap::new(),
            without_room: 0,
            gone: BTreeMap::new(),
        })
    }

    pub(super) fn request(&self) -> &ProbeRequest {
        &self.request
    }

    pub(super) fn instance(&self) -> Instance {
        self.instance
    }

    /// The ids of the maps that match.
    pub(super) fn wanted_maps(
        &self,
        maps: &BTreeMap<u32, MapIdentity>,
        ties: &AllTies,
    ) -> BTreeSet<u32> {
        let matches = |(id, map): &(&u32, &MapIdentity)| {
            let spec = &self.request.spec;
            spec.matches(map, ties.of(**id))
        };
        maps.iter().filter(matches).map(|(id, _)| *id).collect()
    }

    /// Takes note of those maps of the host that match and for which there is room, and for how many there is none.
    pub(super) fn see_maps(
        &mut self,
        maps: &BTreeMap<u32, MapIdentity>,
        given: &BTreeSet<u32>,
        without_room: usize,
        now: Duration,
    ) {
        let known = |id: &u32| Some((*id, maps.get(id)?.clone()));
        let live: BTreeMap<u32, MapIdentity> = given.iter().filter_map(known).collect();
        for (id, map) in std::mem::take(&mut self.live) {
            if !live.contains_key(&id) {
                self.gone.insert(id, (map, now));
            }
        }
        self.gone.retain(|id, _| !live.contains_key(id));
        self.live = live;
        self.without_room = without_room;
        self.readers.set_maps(given);
    }

    /// Takes note of what keeps it from seeing pins and holders.
    pub(super) fn see_ties(&mut self, ties: &AllTies) {
        self.tie_problems = ties.problems(&self.request.spec);
    }

    /// Takes note of a map that came and went between two looks at the maps of the host.
    pub(super) fn miss_map(&mut self, map: &MapIdentity, now: Duration) {
        let has_room = self.gone.len() < MAX_GONE;
        if has_room && self.request.spec.matches(map, Ties::default()) {
            self.gone.insert(map.id, (map.clone(), now));
        }
    }

    /// Maps that match, or did while what was counted on them is still in the window.
    pub(super) fn shown_maps(&self) -> BTreeSet<u32> {
        self.live.keys().chain(self.gone.keys()).copied().collect()
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
        let medians = medians(self.window.within());
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
                if let Some(median) = medians.get(&place) {
                    let spans = spans.get(&place);
                    self.spikes
                        .add(place, slice.to, &counts.until_user, spans, *median);
                }
            }
        }
        self.spikes.expire(now);
    }

    /// From how long on operations are outliers, where the window is to say it.
    pub(super) fn outlier_thresholds(&self) -> Option<Thresholds> {
        if self.request.spec.outliers?.threshold.is_some() {
            return None;
        }
        let mut by_operation: BTreeMap<(u32, Operation), Histogram> = BTreeMap::new();
        for (key, counts) in self.window.within() {
            let times = by_operation.entry((key.map_id, key.operation)).or_default();
            times.merge(&counts.until_user);
        }
        let known = by_operation
            .into_iter()
            .filter(|(_, times)| times.count() >= ENOUGH_FOR_P999)
            .filter_map(|(key, times)| Some((key, times.percentile(Percentile::P999)? + 1)));
        Some(known.collect())
    }

    /// Takes the slow operations of the newest slice.
    pub(super) fn note_outliers(
        &mut self,
        now: Duration,
        outliers: ToldOutliers,
        began: Duration,
        epoch: Epoch,
    ) {
        let Some(window) = &mut self.outliers else {
            return;
        };
        let wall = |ns| epoch.wall(Duration::from_nanos(ns).saturating_sub(began));
        let told = outliers.told.into_iter();
        let told = told.filter_map(|(it, caller)| outlier(&it, caller.as_deref(), wall));
        let OutlierCounts {
            told: number,
            held_back,
            ring_full,
            ..
        } = outliers.counts;
        let counts = outliers::OutlierCounts {
            told: number,
            held_back,
            dropped: ring_full,
        };
        window.advance(now, told.collect(), counts);
    }

    pub(super) fn snapshot(&self, readers: Rows, exact: Figures, epoch: Epoch) -> ProbeSnapshot {
        let (cumulative, at) = self.window.newest();
        let span = self.window.span();
        let wall = |at| epoch.wall(at);
        let mut problems = self.reader_errors.clone();
        problems.extend(self.tie_problems.iter().cloned());
        problems.extend(self.readers.problems());
        if self.without_room > 0 {
            problems.push(format!(
                "{} more maps match than an agent can measure, which is {MAX_TARGETS} for all its probes; they are left \
                 out; select fewer maps",
                self.without_room
            ));
        }
        if self.gone.len() >= MAX_GONE {
            problems.push(format!(
                "more than {MAX_GONE} maps have gone within the window; those that come and go within a second are left \
                 out; select fewer maps"
            ));
        }
        if exact.without_room > 0 {
            problems.push(format!(
                "of {} maps and operations there are no exact figures, since there is room for {MAX_KEPT} operations; \
                 select fewer maps, or lower lastOperations",
                exact.without_room
            ));
        }
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
            outliers: self.outliers.as_ref().map(OutlierWindow::outliers),
            callers: self.callers.rows(span, CALLERS_PER_MAP),
            exact: exact.rows,
            readers,
            problems,
        }
    }
}

/// `None` for an operation or outcome that this program does not know, of which the kernel side tells none.
fn outlier(
    told: &Outlier,
    caller: Option<&CallerIdentity>,
    wall: impl Fn(u64) -> i64,
) -> Option<outliers::Outlier> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some(outliers::Outlier {
        map_id: told.map_id,
        operation: Operation::from_command(u32::from(told.command_number))?,
        outcome: Outcome::from_number(told.outcome)?,
        begin_unix_microseconds: wall(told.begin_ns),
        until_user_nanoseconds: told.until_user_ns,
        kernel_window_nanoseconds: told.kernel_window_ns,
        key_size: told.key_size,
        entries: told.entries,
        cpu: u32::from(told.cpu),
        cpu_after: u32::from(told.cpu_after),
        caller: OutlierCaller {
            pid: told.pid,
            tid: told.tid,
            command: text(&told.command),
            cgroup_id: told.cgroup_id,
            container: caller.map(|it| it.container.clone()).unwrap_or_default(),
        },
        evidence: Evidence {
            off_cpu_nanoseconds: told.off_cpu_ns,
            run_delay_nanoseconds: told.run_delay_ns,
            voluntary_switches: told.voluntary_switches,
            involuntary_switches: told.involuntary_switches,
            migrations: told.migrations,
            minor_faults: told.minor_faults,
            major_faults: told.major_faults,
            instead: (told.instead_ns > 0).then(|| Instead {
                pid: told.instead_pid,
                command: text(&told.instead_command),
                nanoseconds: told.instead_ns,
            }),
        },
    })
}
