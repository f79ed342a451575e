//! Operators that elect a leader, tell events and export metrics, against a real kube-apiserver.

mod definition;
mod events;
mod leaders;
mod metrics;
mod nodes;
mod objectives;
mod owner;
mod shared;
