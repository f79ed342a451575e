//! Sessions, placements and epochs, as plain values.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use maplatency_core::agents::AgentFacts;
use maplatency_proto::{Assignment, Hello, MAX_PROBES, Report};
use tokio::sync::watch;

use super::epoch::{Added, Epoch};
use super::tally::{Sums, Tally};
use super::{Placement, Placements, View};
use crate::inventory::Rollout;

/// Epochs kept per node. An agent that restarts faster than its windows pass loses the oldest.
const MAX_EPOCHS: usize = 8;

/// Reports are missing after so many periods, and a slack for slices that end late.
const STALE_PERIODS: u32 = 2;
const STALE_SLACK: Duration = Duration::from_millis(500);
/// Agents report no more often than that.
const SHORTEST_PERIOD: Duration = Duration::from_secs(1);

/// Tells the streams of one node apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SessionId(u64);

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It counts.
    New,
    /// It had arrived before.
    Repeated,
    /// It counts, but for some probe it held less than one before it; the window of that probe began anew.
    WentBackwards,
    /// A newer stream speaks for the node.
    Superseded,
}

/// Everything known of the agents.
#[derive(Debug)]
pub(super) struct State {
    report_period: Duration,
    revision: u64,
    placements: Placements,
    sessions: BTreeMap<String, Live>,
    /// By node, oldest first.
    epochs: BTreeMap<String, Vec<Epoch>>,
    next_session: u64,
    version: u64,
    closed: bool,
    rollout: Option<Rollout>,
    sums: Sums,
    /// Some moment by both clocks, so that one of a report always reads the same.
    began: (Instant, Timestamp),
}

/// The live session of a node.
#[derive(Debug)]
struct Live {
    id: SessionId,
    hello: Hello,
    /// Holds only the newest assignment: an agent that reads slowly skips those in between.
    assignment: watch::Sender<Arc<Assignment>>,
    /// Generations that the last report named, by uid.
    running: BTreeMap<String, i64>,
    /// When the last report came.
    reported: Option<Instant>,
}

impl State {
    pub(super) fn new(report_period: Duration, first_revision: u64) -> Self {
        Self {
            report_period,
            revision: first_revision,
            placements: Placements::new(),
            sessions: BTreeMap::new(),
            epochs: BTreeMap::new(),
            next_session: 0,
            version: 0,
            closed: false,
            rollout: None,
            sums: Sums::default(),
            began: (Instant::now(), Timestamp::now()),
        }
    }

    pub(super) fn classify(&mut self, classes: BTreeMap<String, String>) {
        self.sums.classify(classes);
    }

    pub(super) fn deployed(&mut self, rollout: Option<Rollout>) {
        if self.rollout != rollout {
            self.rollout = rollout;
            self.version += 1;
        }
    }

    pub(super) fn tally(&self) -> Tally {
        let agents = self.sessions.iter().filter_map(|(node, live)| {
            let mut epochs = self.epochs.get(node)?.iter();
            let epoch = epochs.find(|it| it.id == live.hello.epoch)?;
            Some(facts(node, live, epoch))
        });
        self.sums.tally(agents.collect(), self.sessions.len())
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(super) fn place(&mut self, placements: Placements) {
        self.version += 1;
        self.placements = placements;
        self.sums.keep_only(&self.placements);
        for epoch in self.epochs.values_mut().flatten() {
            epoch.keep_only(&self.placements);
        }
        let revision = self.revision + 1;
        let mut sent = false;
        for (node, live) in &self.sessions {
            let wanted = self.assignment(node, revision);
            if !same_probes(&live.assignment.borrow(), &wanted) {
                live.assignment.send_replace(Arc::new(wanted));
                sent = true;
            }
        }
        if sent {
            self.revision = revision;
        }
    }

    pub(super) fn connect(
        &mut self,
        hello: Hello,
    ) -> (SessionId, watch::Receiver<Arc<Assignment>>) {
        self.version += 1;
        self.revision += 1;
        self.next_session += 1;
        let id = SessionId(self.next_session);
        let assignment = self.assignment(&hello.node, self.revision);
        let (sender, mut receiver) = watch::channel(Arc::new(assignment));
        // The first assignment is news to a stream that has just begun.
        receiver.mark_changed();
        if !self.closed {
            let live = Live {
                id,
                assignment: sender,
                running: BTreeMap::new(),
                reported: None,
                hello,
            };
            // Dropping the old sender ends the old stream.
            self.sessions.insert(live.hello.node.clone(), live);
        }
        (id, receiver)
    }

    pub(super) fn disconnect(&mut self, node: &str, id: SessionId) {
        if self.sessions.get(node).is_some_and(|it| it.id == id) {
            self.sessions.remove(node);
            self.version += 1;
        }
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
        self.sessions.clear();
    }

    pub(super) fn report(
        &mut self,
        node: &str,
        id: SessionId,
        report: Report,
        now: Instant,
    ) -> Taken {
        let Some(live) = self.sessions.get_mut(node).filter(|it| it.id == id) else {
            self.sums.took(Taken::Superseded);
            return Taken::Superseded;
        };
        live.reported = Some(now);
        live.running = report
            .probes
            .iter()
            .map(|it| (it.uid.clone(), it.generation))
            .collect();
        self.version += 1;
        let epochs = self.epochs.entry(node.to_owned()).or_default();
        let epoch = current(epochs, &live.hello, now);
        let placements = &self.placements;
        let sums = &mut self.sums;
        let wanted = |uid: &str, generation| {
            placements
                .get(uid)
                .filter(|it| it.probe.generation == generation && it.nodes.contains(node))
                .map(|it| it.window)
        };
        let taken = epoch.take(report, now, wanted, |added| match added {
            Added::Losses(kind, count) => sums.lose(kind, count),
            Added::Rows(uid, rows) => {
                if let Some(placed) = placements.get(uid) {
                    sums.add(&placed.probe.name, node, rows);
                }
            }
        });
        self.sums.took(taken);
        taken
    }

    pub(super) fn view(&mut self, uid: &str, generation: i64, now: Instant) -> Option<View> {
        let Placement {
            probe,
            nodes,
            window: length,
        } = self.placements.get(uid)?;
        if probe.generation != generation {
            return None;
        }
        let mut view = View {
            selected: nodes.len(),
            rollout: self.rollout,
            ..View::default()
        };
        let stale_after = self.report_period.max(SHORTEST_PERIOD) * STALE_PERIODS + STALE_SLACK;
        for node in nodes {
            match self.sessions.get(node) {
                None => _ = view.absent.insert(node.clone()),
                Some(live) if live.hello.problem.is_some() => {
                    let problem = live.hello.problem.clone().unwrap_or_default();
                    view.unable.insert(node.clone(), problem);
                }
                Some(live) if live.running.get(uid) != Some(&generation) => {
                    view.connected.insert(node.clone());
                }
                Some(live) => {
                    let late = live
                        .reported
                        .filter(|it| now.saturating_duration_since(*it) > stale_after);
                    if let Some(reported) = late {
                        view.stale.insert(node.clone(), wall(self.began, reported));
                    }
                }
            }
        }
        for (node, epochs) in &mut self.epochs {
            let measuring = self
                .sessions
                .get(node)
                .filter(|it| it.running.get(uid) == Some(&generation) && nodes.contains(node));
            let mut measured = Duration::ZERO;
            for epoch in epochs {
                let Some((mut window, problems)) = epoch.measured(node, uid, now) else {
                    continue;
                };
                measured += window.span;
                if let Some(live) = measuring.filter(|it| it.hello.epoch == epoch.id) {
                    view.agents.push(facts(node, live, epoch));
                    view.problems
                        .extend(problems.into_iter().map(|it| (node.clone(), it)));
                } else if window.rows.is_empty() {
                    continue;
                } else {
                    // Rows of an agent that measures no more stay until they leave the window; the maps that it
                    // saw match no more, and its losses were told since it began.
                    window.gone.append(&mut window.maps);
                    window.losses.clear();
                }
                view.windows.push(window);
            }
            // The newest report is up to a period old. What a stale node lacks is told as such.
            let is_ready = measuring.is_some() && !view.stale.contains_key(node);
            if is_ready && measured + stale_after < *length {
                view.partial.insert(node.clone(), measured);
            }
        }
        Some(view)
    }

    #[cfg(test)]
    pub(super) fn known_epochs(&self) -> usize {
        self.epochs.values().map(Vec::len).sum()
    }

    pub(super) fn sweep(&mut self, now: Instant) {
        let sessions = &self.sessions;
        self.epochs.retain(|node, epochs| {
            let live = sessions.get(node).map(|it| it.hello.epoch.as_str());
            epochs.retain_mut(|it| live == Some(&it.id) || it.is_of_use(now));
            !epochs.is_empty()
        });
    }

    fn assignment(&self, node: &str, revision: u64) -> Assignment {
        Assignment {
            revision,
            report_period: self.report_period,
            probes: self
                .placements
                .values()
                .filter(|it| it.nodes.contains(node))
                .take(MAX_PROBES)
                .map(|it| it.probe.clone())
                .collect(),
        }
    }
}

fn facts(node: &str, live: &Live, epoch: &Epoch) -> AgentFacts {
    AgentFacts {
        node: node.to_owned(),
        tier: live.hello.tier.clone(),
        cost: epoch.cost,
        shed: epoch.shed.clone(),
    }
}

/// A moment by the clock on the wall, to the second.
fn wall((began, at): (Instant, Timestamp), moment: Instant) -> Timestamp {
    let since = moment.saturating_duration_since(began).as_secs();
    let seconds = at.as_second().saturating_add_unsigned(since);
    Timestamp::from_second(seconds).unwrap_or(at)
}

fn same_probes(a: &Assignment, b: &Assignment) -> bool {
    a.probes == b.probes
}

/// The epoch that the agent is in. A new one goes to the end.
fn current<'a>(epochs: &'a mut Vec<Epoch>, hello: &Hello, now: Instant) -> &'a mut Epoch {
    let at = epochs
        .iter()
        .position(|it| it.id == hello.epoch)
        .unwrap_or_else(|| {
            if epochs.len() >= MAX_EPOCHS {
                epochs.remove(0);
            }
            epochs.push(Epoch::new(hello.epoch.clone(), hello.boot_id.clone(), now));
            epochs.len() - 1
        });
    &mut epochs[at]
}
