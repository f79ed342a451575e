//! The cluster that end-to-end tests run in is tested itself: `make cluster-test`.

mod cluster;
mod machine;
mod traces;
