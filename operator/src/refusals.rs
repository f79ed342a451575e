//! Who was turned away, and why: counted, and told now and then.
//!
//! Whoever reaches the port can be refused as often as it likes. So each refusal moves a counter, and at most once a
//! minute and reason there is a line in the log and an event on the agents' DaemonSet, with the newest example.
//!
//! Needs create and patch on events (`events.k8s.io`) and get on daemonsets, both in the operator's namespace.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, warn};

use crate::agents;
use crate::chain::chain;
use crate::news::News;

/// Time between two tellings of one reason.
const QUIET: Duration = Duration::from_mins(1);
/// An event is not worth more.
const LIMIT: Duration = Duration::from_secs(10);
/// The API server refuses longer notes.
const LONGEST_NOTE: usize = 1000;

/// Why someone was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Too many connections without a stream.
    TooManyConnections,
    /// No TLS came about.
    Handshake,
    /// A connection that opened no stream.
    NoStream,
    /// A stream without a token.
    NoToken,
    /// A token that is none.
    MalformedToken,
    /// A token that is over.
    ExpiredToken,
    /// A token for someone else to check.
    OtherAudience,
    /// A token that the API server does not take.
    RejectedToken,
    /// The token of another service account.
    OtherAccount,
    /// A token that names no pod with its node.
    NoNode,
    /// A token of another node.
    OtherNode,
    /// Too many tokens.
    TooManyTokens,
    /// The API server could not be asked.
    NoReview,
    /// Messages that break the protocol.
    Nonsense,
    /// Too many messages.
    Flood,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::TooManyConnections,
        Self::Handshake,
        Self::NoStream,
        Self::NoToken,
        Self::MalformedToken,
        Self::ExpiredToken,
        Self::OtherAudience,
        Self::RejectedToken,
        Self::OtherAccount,
        Self::NoNode,
        Self::OtherNode,
        Self::TooManyTokens,
        Self::NoReview,
        Self::Nonsense,
        Self::Flood,
    ];

    /// Metric label, and the reason of the event.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooManyConnections => "TooManyConnections",
            Self::Handshake => "Handshake",
            Self::NoStream => "NoStream",
            Self::NoToken => "NoToken",
            Self::MalformedToken => "MalformedToken",
            Self::ExpiredToken => "ExpiredToken",
            Self::OtherAudience => "OtherAudience",
            Self::RejectedToken => "RejectedToken",
            Self::OtherAccount => "OtherAccount",
            Self::NoNode => "NoNode",
            Self::OtherNode => "OtherNode",
            Self::TooManyTokens => "TooManyTokens",
            Self::NoReview => "NoReview",
            Self::Nonsense => "Nonsense",
            Self::Flood => "Flood",
        }
    }
}

/// The counters.
#[derive(Debug, Default)]
pub struct Refusals {
    tallies: [Tally; Reason::ALL.len()],
    news: Notify,
}

#[derive(Debug, Default)]
struct Tally {
    total: AtomicU64,
    newest: Mutex<String>,
}

/// What was told of a reason last.
#[derive(Clone, Copy, Default)]
struct Told {
    total: u64,
    at: Option<Instant>,
}

impl Told {
    fn is_due(self, now: Instant) -> bool {
        self.at.is_none_or(|it| now.duration_since(it) >= QUIET)
    }
}

impl Refusals {
    /// Counts one. `example` says who and what, without anything secret.
    pub fn count(&self, reason: Reason, example: String) {
        debug!(reason = reason.as_str(), example, "Refused");
        let tally = &self.tallies[reason as usize];
        *tally.newest.lock().unwrap_or_else(PoisonError::into_inner) = example;
        tally.total.fetch_add(1, Ordering::Relaxed);
        self.news.notify_one();
    }

    /// How many there were of each reason since the start.
    pub fn totals(&self) -> impl Iterator<Item = (Reason, u64)> {
        let total = |it: Reason| self.tallies[it as usize].total.load(Ordering::Relaxed);
        Reason::ALL.into_iter().map(move |it| (it, total(it)))
    }

    /// Tells of them, for as long as the process runs.
    pub async fn tell(&self, teller: Teller) -> Infallible {
        let mut told = [Told::default(); Reason::ALL.len()];
        loop {
            let now = Instant::now();
            let mut next = None;
            for (reason, total) in self.totals() {
                let last = &mut told[reason as usize];
                if total == last.total {
                    continue;
                }
                if last.is_due(now) {
                    let newest = &self.tallies[reason as usize].newest;
                    let example = newest
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .clone();
                    teller
                        .tell(reason, total - last.total, total, &example)
                        .await;
                    *last = Told {
                        total,
                        at: Some(now),
                    };
                } else {
                    let due = last.at.map(|it| it + QUIET);
                    next = next.into_iter().chain(due).min();
                }
            }
            tokio::select! {
                () = self.news.notified() => (),
                () = at(next) => (),
            }
        }
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Writes log and events.
#[allow(missing_debug_implementations, reason = "the client has none")]
pub struct Teller {
    sets: Api<DaemonSet>,
    namespace: String,
    news: News,
}

impl Teller {
    /// For the agents of this namespace.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self {
            sets: Api::namespaced(client.clone(), namespace),
            namespace: namespace.to_owned(),
            news: News::new(client),
        }
    }

    async fn tell(&self, reason: Reason, new: u64, total: u64, example: &str) {
        let reason = reason.as_str();
        warn!(
            reason,
            new, total, example, "Refused agents, or others in their place"
        );
        let publish = timeout(LIMIT, self.publish(reason, new, example));
        match publish.await {
            Ok(Ok(())) => (),
            Ok(Err(failure)) => warn!(error = chain(&failure), "Could not write an event"),
            Err(_) => warn!("The API server did not take an event in time"),
        }
    }

    async fn publish(&self, reason: &str, new: u64, example: &str) -> Result<(), kube::Error> {
        // Without its uid, `kubectl describe` would not show the event.
        let uid = self
            .sets
            .get_opt(agents::NAME)
            .await?
            .and_then(|it| it.uid());
        let regarding = ObjectReference {
            api_version: Some("apps/v1".to_owned()),
            kind: Some("DaemonSet".to_owned()),
            name: Some(agents::NAME.to_owned()),
            namespace: Some(self.namespace.clone()),
            uid,
            ..ObjectReference::default()
        };
        let mut note = format!("Refused {new}, the newest: {example}");
        note.truncate(note.floor_char_boundary(LONGEST_NOTE));
        let event = Event {
            type_: EventType::Warning,
            reason: format!("AgentRefused{reason}"),
            note: Some(note),
            action: "Admitting".to_owned(),
            secondary: None,
        };
        self.news.publish(&event, &regarding).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_counted_by_itself() {
        let refusals = Refusals::default();
        refusals.count(Reason::Flood, "node-a".to_owned());
        refusals.count(Reason::Flood, "node-b".to_owned());
        refusals.count(Reason::OtherNode, "node-c".to_owned());
        let counted: Vec<_> = refusals.totals().filter(|it| it.1 > 0).collect();
        assert_eq!(counted, [(Reason::OtherNode, 1), (Reason::Flood, 2)]);
    }

    #[test]
    fn reasons_stand_in_order_and_have_names_of_their_own() {
        for (at, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
            assert_eq!(reason.as_str(), format!("{reason:?}"));
        }
    }
}
