//! What one node measured for one probe, from which a status is computed.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::callers::CallerRow;
use crate::exact::ExactRow;
use crate::measure::{Place, Rows, WorstSlice};
use crate::outliers::Outliers;
use crate::spikes::Spike;
use crate::vocabulary::MapIdentity;

/// What one node measured for one probe in one window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeWindow {
    /// The node's name; the host's where there is no cluster.
    pub node: String,
    /// Which kernel it runs on. Nodes that share a kernel see the same maps.
    pub boot_id: String,
    /// Maps that match.
    pub maps: Vec<MapIdentity>,
    /// Maps that have gone while their rows are still in the window.
    pub gone: Vec<MapIdentity>,
    /// Time that the rows span.
    pub span: Duration,
    /// The rows.
    pub rows: Rows,
    /// The most operations that one of the rows' stands for; 1: every one was counted.
    pub sampling: u32,
    /// Each place's worst slice.
    pub worst: BTreeMap<Place, WorstSlice>,
    /// Who called, those of each map that spent most time first.
    pub callers: Vec<CallerRow>,
    /// Spikes, those first that lost most time.
    pub spikes: Vec<Spike>,
    /// Slow operations one by one. `None`: none are asked for.
    pub outliers: Option<Outliers>,
    /// Figures of single operations, those of most operations first. Empty where none are asked for.
    pub exact: Vec<ExactRow>,
    /// Operations that could not be recorded, by kind, since the agent began.
    pub losses: BTreeMap<String, u64>,
}
