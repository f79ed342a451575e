//! maplatency on a cluster of nodes: installed by Helm, driven with kubectl, beside pods that read maps.
//!
//! Each test installs the chart and removes it again, so each runs alone as well. `make e2e` runs them all.

mod examples;
mod faults;
mod forgery;
mod incident;
mod install;
mod lifecycle;
mod rights;
mod selection;
mod shared;
