//! Measures the latency of BPF map operations on one host.
//!
//! [`monitor`] ties the parts together on a thread of its own: it finds the maps ([`discover`]), feeds the probes
//! in the kernel and drains them ([`engine`]), runs pinned readers ([`reader`]), and publishes what was measured and
//! what that costs ([`cost`]).
//! [`run`] shows it on this host; [`serve`] streams it to the operator.

pub mod args;
pub mod clock;
pub mod cost;
pub mod discover;
pub mod engine;
pub mod error;
pub mod example;
mod heap;
pub mod host;
pub mod logging;
pub mod manifest;
pub mod monitor;
mod process;
pub mod reader;
pub mod run;
pub mod serve;
pub mod table;
