//! What the measuring thread publishes.

use std::collections::BTreeMap;
use std::time::Duration;

use maplatency_core::budget::Shed;
use maplatency_core::callers::CallerRow;
use maplatency_core::cost::Cost;
use maplatency_core::exact::ExactRow;
use maplatency_core::measure::{Place, Rows, WorstSlice};
use maplatency_core::node_window::NodeWindow;
use maplatency_core::outliers::Outliers;
use maplatency_core::spikes::Spike;
use maplatency_core::vocabulary::MapIdentity;

use super::{ProbeRequest, Written};

/// What was measured for one probe.
#[derive(Clone, Debug)]
pub struct ProbeSnapshot {
    /// The resource's name.
    pub name: String,
    /// The resource's uid.
    pub uid: String,
    /// The generation that was measured.
    pub generation: i64,
    /// Maps that match now.
    pub maps: Vec<MapIdentity>,
    /// Maps that have gone, or match no more, while their counts are still in the window.
    pub gone: Vec<MapIdentity>,
    /// Counts since the agent began.
    pub cumulative: Rows,
    /// The state with which the window begins.
    pub beginning: Rows,
    /// When that was, on the agent's clock.
    pub beginning_at: Duration,
    /// Counts within the window.
    pub within: Rows,
    /// The most operations that one counted in the window stands for; 1: every one was counted.
    pub sampling: u32,
    /// Time that the window spans so far.
    pub span: Duration,
    /// Each place's worst slice.
    pub worst: BTreeMap<Place, WorstSlice>,
    /// Who called.
    pub callers: Vec<CallerRow>,
    /// Short times in which operations were far slower than in the rest of the window.
    pub spikes: Vec<Spike>,
    /// Slow operations one by one. `None`: none are asked for.
    pub outliers: Option<Outliers>,
    /// Figures of single operations, those of most operations first.
    pub exact: Vec<ExactRow>,
    /// Reads by the agent's pinned readers, as the kernel side counted them.
    pub readers: Rows,
    /// What keeps this probe from measuring all that it asks for.
    pub problems: Vec<String>,
}

/// What was measured for every probe.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// When it was taken, since the agent began.
    pub taken: Duration,
    /// Per probe.
    pub probes: Vec<ProbeSnapshot>,
    /// Operations that could not be recorded, by kind, since the agent began.
    pub losses: BTreeMap<String, u64>,
    /// What the agent costs its host.
    pub cost: Cost,
    /// What it leaves out to stay within its budget.
    pub shed: Vec<Shed>,
    /// What went into the file of single operations. `None`: there is no file, or no probe for it.
    pub written: Option<Written>,
}

impl ProbeSnapshot {
    /// A probe of which nothing was measured.
    pub(crate) fn empty(request: &ProbeRequest, problems: Vec<String>) -> Self {
        Self {
            name: request.name.clone(),
            uid: request.uid.clone(),
            generation: request.generation,
            maps: vec![],
            gone: vec![],
            cumulative: Rows::new(),
            beginning: Rows::new(),
            beginning_at: Duration::ZERO,
            within: Rows::new(),
            sampling: 1,
            span: Duration::ZERO,
            worst: BTreeMap::new(),
            callers: vec![],
            spikes: vec![],
            outliers: None,
            exact: vec![],
            readers: Rows::new(),
            problems,
        }
    }

    /// The same in the words of `core`, for a status.
    pub fn node_window(
        &self,
        node: &str,
        boot_id: &str,
        losses: &BTreeMap<String, u64>,
    ) -> NodeWindow {
        NodeWindow {
            node: node.to_owned(),
            boot_id: boot_id.to_owned(),
            maps: self.maps.clone(),
            gone: self.gone.clone(),
            span: self.span,
            rows: self.within.clone(),
            sampling: self.sampling,
            worst: self.worst.clone(),
            callers: self.callers.clone(),
            spikes: self.spikes.clone(),
            outliers: self.outliers.clone(),
            exact: self.exact.clone(),
            losses: losses.clone(),
        }
    }
}
