//! What one run of one agent has measured.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use maplatency_core::budget::Shed;
use maplatency_core::callers::CallerRow;
use maplatency_core::cost::Cost;
use maplatency_core::exact::ExactRow;
use maplatency_core::measure::{
    Counts, Place, Rows, SeriesKey, SlidingWindow, WentBackwards, WorstSlice,
};
use maplatency_core::node_window::NodeWindow;
use maplatency_core::outliers::Outliers;
use maplatency_core::spikes::Spike;
use maplatency_core::{MapIdentity, Operation};
use maplatency_proto::{Beginning, ProbeReport, Report};

use super::{Placements, Taken};

/// One run of one agent. Times of reports are on the agent's clock, which begins with the epoch; between and
/// after reports that clock is taken to run on with the operator's.
#[derive(Debug)]
pub(super) struct Epoch {
    pub(super) id: String,
    boot_id: String,
    sequence: u64,
    taken: Duration,
    received: Instant,
    losses: BTreeMap<String, u64>,
    pub(super) cost: Cost,
    pub(super) shed: Vec<Shed>,
    /// By uid of the probe.
    windows: BTreeMap<String, ProbeWindow>,
}

/// What was measured for one generation of one probe.
#[derive(Debug)]
struct ProbeWindow {
    generation: i64,
    window: SlidingWindow,
    /// Whether the next rows go on from the newest ones; else they begin a window of their own.
    has_begun: bool,
    maps: Vec<MapIdentity>,
    /// Maps that matched before: their rows are still in the window, and need names.
    gone: BTreeMap<u32, MapIdentity>,
    worst: BTreeMap<Place, WorstSlice>,
    callers: Vec<CallerRow>,
    spikes: Vec<Spike>,
    outliers: Option<Outliers>,
    sampling: u32,
    exact: Vec<ExactRow>,
    problems: Vec<String>,
}

/// What a report adds to the one before.
#[derive(Clone, Copy, Debug)]
pub(super) enum Added<'a> {
    /// Operations of the probe with this uid.
    Rows(&'a str, &'a Rows),
    /// Operations that were lost, by kind.
    Losses(&'a str, u64),
}

/// Where the rows of a report go on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begin {
    /// The report before.
    Known,
    /// Nothing is known of this generation; the agent tells where its window begins.
    New,
    /// Likewise, but some of it may have been added up before: there was no room for rows for a time.
    Again,
}

impl Epoch {
    pub(super) fn new(id: String, boot_id: String, now: Instant) -> Self {
        Self {
            id,
            boot_id,
            sequence: 0,
            taken: Duration::ZERO,
            received: now,
            losses: BTreeMap::new(),
            cost: Cost::default(),
            shed: Vec::new(),
            windows: BTreeMap::new(),
        }
    }

    /// Takes a report. `window` tells the length of a probe's window if its generation is wanted of this agent.
    pub(super) fn take(
        &mut self,
        report: Report,
        now: Instant,
        window: impl Fn(&str, i64) -> Option<Duration>,
        mut tally: impl FnMut(Added<'_>),
    ) -> Taken {
        let Report {
            sequence,
            revision: _,
            taken,
            probes,
            losses,
            cost,
            shed,
        } = report;
        if sequence <= self.sequence {
            return Taken::Repeated;
        }
        // What an agent has told another operator is not new to those who add up.
        let is_stranger = self.sequence == 0 && sequence > 1;
        self.sequence = sequence;
        self.taken = taken;
        self.received = now;
        if !is_stranger {
            for (kind, count) in &losses {
                let before = self.losses.get(kind).copied().unwrap_or(0);
                tally(Added::Losses(kind, count.saturating_sub(before)));
            }
        }
        self.losses = losses;
        self.cost = cost;
        self.shed = shed;
        let mut outcome = Taken::New;
        for probe in probes {
            let Some(length) = window(&probe.uid, probe.generation) else {
                continue;
            };
            let uid = probe.uid.clone();
            match self.take_probe(taken, length, probe) {
                Ok((Begin::Known, added)) => tally(Added::Rows(&uid, &added)),
                Ok((Begin::New, added)) if !is_stranger => tally(Added::Rows(&uid, &added)),
                Ok((Begin::New | Begin::Again, _)) => (),
                Err(WentBackwards) => outcome = Taken::WentBackwards,
            }
        }
        outcome
    }

    /// Gives where its rows go on from, and what they add.
    fn take_probe(
        &mut self,
        taken: Duration,
        length: Duration,
        report: ProbeReport,
    ) -> Result<(Begin, Rows), WentBackwards> {
        let ProbeReport {
            uid,
            generation,
            maps,
            rows,
            worst,
            beginning,
            problems,
            rows_withheld,
            callers,
            spikes,
            outliers,
            sampling,
            exact,
        } = report;
        let known = self
            .windows
            .remove(&uid)
            .filter(|it| it.generation == generation);
        let begin = match &known {
            None => Begin::New,
            Some(it) if it.has_begun => Begin::Known,
            Some(_) => Begin::Again,
        };
        let goes_on = begin == Begin::Known;
        let mut probe = known.unwrap_or_else(|| ProbeWindow::new(generation, length));
        if rows_withheld {
            // What was counted stays until it leaves the window by age. The next rows bring their own beginning.
            probe.has_begun = false;
            probe.rename(maps);
            probe.problems = problems;
            self.windows.insert(uid, probe);
            return Ok((Begin::Again, Rows::new()));
        }
        let advanced = if goes_on {
            if let Some(it) = beginning.as_ref().filter(|it| probe.is_other(it, &rows)) {
                probe.window.begin(it.taken, it.rows.clone());
            }
            probe.advance(taken, rows.clone())
        } else {
            Ok(())
        };
        if !goes_on || advanced.is_err() {
            probe = ProbeWindow::new(generation, length);
            let start = beginning.clone().unwrap_or_else(|| Beginning {
                taken,
                rows: rows.clone(),
            });
            probe.window.begin(start.taken, start.rows);
            // A beginning that exceeds the state itself is not one; then the state is.
            if probe.advance(taken, rows.clone()).is_err() {
                probe.window.begin(taken, rows);
            }
        }
        let newest = probe.window.slices().last();
        let added = newest.map(|it| it.rows.clone()).unwrap_or_default();
        if let Some(it) = beginning {
            probe.window.begin_at(it.taken, &it.rows);
        }
        probe.has_begun = true;
        probe.rename(maps);
        probe.worst = worst;
        probe.callers = callers;
        probe.spikes = spikes;
        probe.outliers = outliers;
        probe.sampling = sampling;
        probe.exact = exact;
        probe.problems = problems;
        self.windows.insert(uid, probe);
        advanced.map(|()| (begin, added))
    }

    /// Drops what belongs to no placed generation.
    pub(super) fn keep_only(&mut self, placements: &Placements) {
        self.windows.retain(|uid, it| {
            placements
                .get(uid)
                .is_some_and(|placed| placed.probe.generation == it.generation)
        });
    }

    /// What this agent measured in the window that ends now, and what it cannot do.
    pub(super) fn measured(
        &mut self,
        node: &str,
        uid: &str,
        now: Instant,
    ) -> Option<(NodeWindow, Vec<String>)> {
        let at = self.clock(now);
        let probe = self.windows.get_mut(uid)?;
        probe.window.expire(at);
        probe.forget();
        let rows = probe.window.within().clone();
        let places: BTreeSet<Place> = rows.keys().map(|it| it.place()).collect();
        let worst = probe
            .worst
            .iter()
            .filter(|(place, _)| places.contains(place))
            .map(|(key, it)| (*key, it.clone()))
            .collect();
        let maps = places.iter().map(|it| (it.map_id, it.operation));
        let maps: BTreeSet<(u32, Operation)> = maps.collect();
        let is_within = |map_id, operation| maps.contains(&(map_id, operation));
        let callers = probe.callers.iter();
        let callers = callers.filter(|it| is_within(it.map_id, it.operation));
        let callers = callers.cloned().collect();
        let spikes = probe.spikes.iter();
        let spikes = spikes.filter(|it| is_within(it.map_id, it.operation));
        let spikes = spikes.cloned().collect();
        let exact = probe.exact.iter();
        let exact = exact.filter(|it| is_within(it.map_id, it.operation));
        let exact = exact.cloned().collect();
        let window = NodeWindow {
            node: node.to_owned(),
            boot_id: self.boot_id.clone(),
            maps: probe.maps.clone(),
            gone: probe.gone.values().cloned().collect(),
            span: probe.window.span(),
            rows,
            sampling: probe.sampling,
            exact,
            worst,
            callers,
            spikes,
            outliers: probe.outliers.clone().map(|mut it| {
                // What was told last is no longer true of a node that stopped reporting a window ago.
                if places.is_empty() {
                    return Outliers::default();
                }
                it.slowest.retain(|it| is_within(it.map_id, it.operation));
                it
            }),
            losses: self.losses.clone(),
        };
        Some((window, probe.problems.clone()))
    }

    /// Whether anything is left in any window. What is not, is dropped.
    pub(super) fn is_of_use(&mut self, now: Instant) -> bool {
        let at = self.clock(now);
        self.windows.retain(|_, it| {
            it.window.expire(at);
            it.window.slices().next().is_some()
        });
        !self.windows.is_empty()
    }

    fn clock(&self, now: Instant) -> Duration {
        self.taken
            .saturating_add(now.saturating_duration_since(self.received))
    }
}

impl ProbeWindow {
    fn new(generation: i64, length: Duration) -> Self {
        Self {
            generation,
            window: SlidingWindow::new(length),
            has_begun: false,
            maps: Vec::new(),
            gone: BTreeMap::new(),
            worst: BTreeMap::new(),
            callers: Vec::new(),
            spikes: Vec::new(),
            outliers: None,
            sampling: 1,
            exact: Vec::new(),
            problems: Vec::new(),
        }
    }

    fn advance(&mut self, taken: Duration, rows: Rows) -> Result<(), WentBackwards> {
        match self.window.newest() {
            (_, Some(newest)) if taken < newest => Err(WentBackwards),
            _ => self.window.advance(taken, rows),
        }
    }

    /// Whether rows that begin so do not go on from what was told before: the agent has measured anew since, as after its node
    /// was not selected for a time.
    fn is_other(&self, beginning: &Beginning, rows: &Rows) -> bool {
        let (newest, at) = self.window.newest();
        let nothing = Counts::default();
        let goes_on = |(key, told): (&SeriesKey, &Counts)| {
            let begins = beginning.rows.get(key).unwrap_or(&nothing);
            begins.since(told).is_some()
        };
        // Of maps that are gone there is nothing to compare.
        let mut both = newest
            .iter()
            .filter(|it| rows.contains_key(it.0))
            .peekable();
        let can_tell = both.peek().is_some() || newest.is_empty();
        at.is_some_and(|it| beginning.taken > it) && !(can_tell && both.all(goes_on))
    }

    /// Takes the maps that match now, and remembers those that did before.
    fn rename(&mut self, maps: Vec<MapIdentity>) {
        for map in std::mem::replace(&mut self.maps, maps) {
            self.gone.insert(map.id, map);
        }
        for map in &self.maps {
            self.gone.remove(&map.id);
        }
        self.forget();
    }

    /// Forgets names that no row needs.
    fn forget(&mut self) {
        let rows = self.window.within().keys();
        let needed: BTreeSet<u32> = rows.map(|it| it.map_id).collect();
        self.gone.retain(|id, _| needed.contains(id));
    }
}
