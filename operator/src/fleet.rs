//! What the operator knows of its agents: who is connected, what each is to measure, what each has measured.
//!
//! [`Fleet`] is the one shared state of the process. The gateway feeds it, placement tells it which probes there
//! are and where, the status of a probe is read from it. It holds a lock for the length of one call and never
//! across an `await`; everything it does is in [`state`] and [`epoch`], which know neither time nor I/O.

mod epoch;
mod state;
mod tally;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use maplatency_core::agents::AgentFacts;
use maplatency_core::node_window::NodeWindow;
use maplatency_proto::{AssignedProbe, Assignment, Hello, Report};
use tokio::sync::watch;

pub use state::Taken;
use state::{SessionId, State};
pub use tally::Tally;

use crate::inventory::Rollout;

/// Where one valid probe is to be measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// The probe as agents get it.
    pub probe: AssignedProbe,
    /// Length of its sliding window.
    pub window: Duration,
    /// Names of the nodes that it selects.
    pub nodes: BTreeSet<String>,
}

/// Placements by the probes' uids.
pub type Placements = BTreeMap<String, Placement>;

/// What one generation of a probe comes to at one moment.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Number of nodes that are selected.
    pub selected: usize,
    /// Selected nodes with a live agent that has not reported this generation.
    pub connected: BTreeSet<String>,
    /// Selected nodes without a live agent.
    pub absent: BTreeSet<String>,
    /// Selected nodes whose live agent has not reported for two periods, and when it did last.
    pub stale: BTreeMap<String, Timestamp>,
    /// Selected nodes whose live agent cannot load its probes, and why.
    pub unable: BTreeMap<String, String>,
    /// How far the agents' pods are. `None`: there is no DaemonSet.
    pub rollout: Option<Rollout>,
    /// What agents cannot do, with their nodes.
    pub problems: Vec<(String, String)>,
    /// How long the window of each node that measures was measured, where that is not all of it.
    pub partial: BTreeMap<String, Duration>,
    /// What was measured in the window, also by agents that have gone.
    pub windows: Vec<NodeWindow>,
    /// The agents that measure this generation.
    pub agents: Vec<AgentFacts>,
}

impl View {
    /// Number of selected nodes whose agent measures this generation.
    pub fn ready(&self) -> usize {
        let not = [
            self.connected.len(),
            self.absent.len(),
            self.stale.len(),
            self.unable.len(),
        ];
        self.selected - not.iter().sum::<usize>()
    }
}

/// The shared state.
#[derive(Debug)]
pub struct Fleet {
    state: Mutex<State>,
}

impl Fleet {
    /// A fleet without agents. `first_revision` has to be above every revision of an earlier operator.
    pub fn new(report_period: Duration, first_revision: u64) -> Self {
        Self {
            state: Mutex::new(State::new(report_period, first_revision)),
        }
    }

    /// Replaces all placements. Agents whose probes change get a new assignment.
    pub fn place(&self, placements: Placements) {
        self.lock().place(placements);
    }

    /// Sets which class the nodes are of; of some that is not known.
    pub fn classify(&self, classes: BTreeMap<String, String>) {
        self.lock().classify(classes);
    }

    /// Sets how far the agents' DaemonSet is.
    pub fn deployed(&self, rollout: Option<Rollout>) {
        self.lock().deployed(rollout);
    }

    /// What was counted since this operator began.
    pub fn tally(&self) -> Tally {
        self.lock().tally()
    }

    /// Opens a session. An older one of the same node ends.
    pub fn connect(self: &Arc<Self>, hello: Hello) -> Session {
        let node = hello.node.clone();
        let (id, assignments) = self.lock().connect(hello);
        Session {
            fleet: Arc::clone(self),
            node,
            id,
            assignments,
        }
    }

    /// Ends every session, for good.
    pub fn close(&self) {
        self.lock().close();
    }

    /// Whether [`Self::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.lock().is_closed()
    }

    /// Changes with everything that can change a view, except the passing of time.
    pub fn version(&self) -> u64 {
        self.lock().version()
    }

    /// What a generation of a probe comes to. `None` while it is not placed.
    pub fn view(&self, uid: &str, generation: i64, now: Instant) -> Option<View> {
        self.lock().view(uid, generation, now)
    }

    /// Forgets agents that are gone, once nothing of theirs is left in any window.
    pub fn sweep(&self, now: Instant) {
        self.lock().sweep(now);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no call into the state panics")
    }
}

/// One agent's stream. Ends with the value.
#[derive(Debug)]
pub struct Session {
    fleet: Arc<Fleet>,
    node: String,
    id: SessionId,
    assignments: watch::Receiver<Arc<Assignment>>,
}

impl Session {
    /// The node that the agent runs on.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The newest assignment, once it differs from the one returned before. `None` when the session is over.
    pub async fn assignment(&mut self) -> Option<Arc<Assignment>> {
        self.assignments.changed().await.ok()?;
        Some(Arc::clone(&self.assignments.borrow_and_update()))
    }

    /// Takes a report.
    pub fn report(&self, report: Report, now: Instant) -> Taken {
        self.fleet.lock().report(&self.node, self.id, report, now)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A panic may be under way, so a poisoned lock must not raise a second one.
        if let Ok(mut state) = self.fleet.state.lock() {
            state.disconnect(&self.node, self.id);
        }
    }
}

#[cfg(test)]
mod tests;
