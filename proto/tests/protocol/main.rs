//! Messages survive the wire, and every field that breaks the protocol is refused by name.
#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod arbitrary;
mod refused;
mod refused_reports;
mod samples;
mod survives;
