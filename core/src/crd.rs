//! The `MapLatencyProbe` resource: what users write ([`spec`]) and what they read ([`status`]).

pub mod agents;
pub mod callers;
pub mod definition;
pub mod exact;
pub mod nodes;
pub mod objectives;
pub mod outliers;
pub mod reference;
pub mod spec;
pub mod spikes;
pub mod status;

pub use definition::definition;
pub use spec::{MapLatencyProbe, MapLatencyProbeSpec};
pub use status::MapLatencyProbeStatus;
