//! The vocabulary of maplatency: the resource that users write, the operations and maps that are measured,
//! the histogram that every latency goes into, and the summary that becomes the resource's status.
//!
//! Pure functions and plain types only. No I/O, no runtime, no Kubernetes client, no BPF.

pub mod agents;
pub mod budget;
pub mod callers;
pub mod condition;
pub mod cost;
pub mod crd;
pub mod exact;
pub mod glob;
pub mod histogram;
pub mod measure;
pub mod node_window;
pub mod objectives;
pub mod outliers;
pub mod path_glob;
pub mod rate;
pub mod spikes;
pub mod summary;
pub mod units;
pub mod validate;
pub mod vocabulary;

pub use crd::{MapLatencyProbe, MapLatencyProbeSpec, MapLatencyProbeStatus};
pub use histogram::Histogram;
pub use vocabulary::{Latency, MapIdentity, MapType, Operation, Outcome};
