//! What operator and agent export to Prometheus.
//!
//! [`catalog`] names every metric with its labels, once for the programs and for `docs/metrics.md` ([`docs`]). Programs
//! have what they know in their own types and put it into a [`Sink`] when they are asked. Histograms are those of the
//! kernel: [`latency`] cuts them into classic and native buckets.

pub mod catalog;
pub mod docs;
pub mod http;
pub mod latency;
mod process;
mod sink;
mod text;

pub use prometheus_client::registry::Registry;
pub use sink::{Export, Exporter, Sink, Values};
