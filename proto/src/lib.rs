//! The protocol between agents and the operator: one bidirectional stream per agent, opened by the agent.
//!
//! ```text
//! agent                                            operator
//!   Hello{node, epoch, …}                       →
//!                                               ←  Assign{revision, probes}      at once, and on every change
//!   Report{sequence, revision, cumulative rows} →
//!                                               ←  Ack{sequence}
//!   Token{token}                                →                                 before the last one expires
//! ```
//!
//! * **Epoch.** 32 random hex digits that the agent draws when it starts. Everything that an agent counts, it
//!   counts since its epoch began; a restarted agent is a new epoch and begins at zero.
//! * **Cumulative.** A report holds the totals of its epoch and never differences. The operator takes the
//!   differences, so a report that is lost costs resolution and nothing else, and one that comes twice counts
//!   once. Within an epoch no count of a row ever falls; a row may end (its map is gone) and is then left out.
//! * **Sequence.** Rises by one with every new report of the epoch, beginning at 1, and goes on over
//!   reconnections. A repeated or older sequence changes nothing and is acknowledged all the same.
//! * **Revision.** Rises with every assignment, also over restarts of the operator. The newest one replaces all
//!   earlier ones; an agent may skip those in between. A report carries the revision that the agent ran.
//! * **Beginning.** The agent adds the cumulative state with which its current window begins (for a probe that it has
//!   just begun: the state at that moment, usually no rows) to each report, until the stream's first one with rows of the
//!   probe's generation is older than the window. An operator that knows nothing of the epoch, having restarted, takes its
//!   window from there and so has lost nothing. What comes to it as one step so, or after a break, would leave the window as
//!   a whole; by the beginnings of the next reports it slides out.
//! * **Token.** With TLS a stream begins with a token of the agent's pod in its metadata, and the operator takes it
//!   only for the node that the pod runs on. Before the token expires the agent sends a fresh one on the stream; a
//!   stream whose token has expired ends.
//! * **Generation.** What is reported belongs to one uid and generation of a probe. After a change of the spec
//!   the operator shows nothing of the old generation any more.
//!
//! Types of [`wire`] are for the edge alone: what goes in and out of them are the checked types of this crate.
//! A message that breaks a limit or a rule above is refused whole, with the field's name ([`InvalidMessage`]).

use std::time::Duration;

mod assignment;
mod budget;
mod callers;
mod cost;
mod exact;
mod hello;
mod invalid;
mod message;
mod outliers;
mod report;
mod rows;
mod spikes;
mod token;
mod url;

pub use assignment::{AssignedProbe, Assignment};
pub use hello::Hello;
pub use invalid::{InvalidMessage, Problem};
pub use message::{AgentMessage, OperatorMessage};
pub use report::{Beginning, ProbeReport, Report};
pub use token::{MAX_TOKEN_BYTES, Token};
pub use url::{Transport, operator_url, transport};

/// Generated from `maplatency/v1/maplatency.proto`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated code; the .proto file documents it"
)]
pub mod wire {
    tonic::include_proto!("maplatency.v1");
}

/// The audience of the agents' tokens. A token for anyone else shows the operator nothing.
pub const AUDIENCE: &str = "maplatency-operator";
/// Largest message that either end decodes.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;
/// Most probes in one assignment and in one report.
pub const MAX_PROBES: usize = 256;
/// Most maps of one probe in one report.
pub const MAX_MAPS: usize = 4096;
/// Most rows in one report, over all probes and with their beginnings.
pub const MAX_SERIES: usize = 200_000;
/// Most kinds of loss in one report, as many as a status holds.
pub const MAX_LOSS_KINDS: usize = 16;
/// Most rows of callers of one probe in one report.
pub const MAX_CALLER_ROWS: usize = 256;
/// Most CPUs that a spike names.
pub const MAX_CPUS_OF_SPIKE: usize = 1024;
/// Most problems of one probe in one report.
pub const MAX_PROBLEMS: usize = 16;
/// Most operations that one stands for.
pub const MAX_SAMPLING: u32 = 1024;
/// Longest wait of an agent before it tries to reach the operator again.
pub const MAX_RECONNECT_WAIT: Duration = Duration::from_secs(15);
/// Highest number of a CPU; no Linux supports more.
pub const MAX_CPU: u32 = 8191;
