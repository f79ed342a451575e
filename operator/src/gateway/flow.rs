//! How much a node may say.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use maplatency_core::rate::{Bucket, Rate};
use maplatency_proto::wire;
use prost::Message as _;

/// Messages of a node, by their price. An agent sends about one report per period, and at most one per second.
const MESSAGES: Rate = Rate {
    each: Duration::from_millis(50),
    burst: 60,
};
/// Bytes that cost as much as a message by itself. So the largest reports pass once a second, and not more often.
const PRICED_BYTES: usize = 1024 * 1024;
/// Nodes remembered. Those that have said nothing for some seconds need not be.
const NODES: usize = 16 * 1024;

/// What each node has said of late.
#[derive(Debug, Default)]
pub(super) struct Flow {
    nodes: Mutex<HashMap<String, Bucket>>,
}

impl Flow {
    /// Whether a message may pass. Kept by node and not by stream, so that connecting again helps nobody.
    pub(super) fn passes(&self, node: &str, message: &wire::AgentMessage, now: Instant) -> bool {
        let more = message.encoded_len() / PRICED_BYTES;
        let price = u32::try_from(more).map_or(u32::MAX, |it| it.saturating_add(1));
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = nodes.get_mut(node) {
            return bucket.take(MESSAGES, price, now);
        }
        if nodes.len() >= NODES {
            nodes.retain(|_, it| !it.is_full(now));
        }
        let mut bucket = Bucket::default();
        let passes = nodes.len() < NODES && bucket.take(MESSAGES, price, now);
        if passes {
            nodes.insert(node.to_owned(), bucket);
        }
        passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maplatency_proto::MAX_MESSAGE_BYTES;

    fn message(bytes: usize) -> wire::AgentMessage {
        let token = "a".repeat(bytes);
        wire::AgentMessage {
            kind: Some(wire::agent_message::Kind::Token(wire::Token { token })),
        }
    }

    #[test]
    fn the_largest_report_passes_every_second_and_not_more_often() {
        let (flow, begin) = (Flow::default(), Instant::now());
        let largest = message(MAX_MESSAGE_BYTES - 16);
        for second in 0..60 {
            let now = begin + Duration::from_secs(second);
            assert!(flow.passes("a", &largest, now), "{second}");
        }
        let now = begin + Duration::from_mins(1);
        let passed = (0..10).filter(|_| flow.passes("a", &largest, now)).count();
        assert!(passed < 5, "{passed}");
    }

    #[test]
    fn a_node_that_floods_does_not_use_up_what_others_may_say() {
        let (flow, now) = (Flow::default(), Instant::now());
        let small = message(10);
        let passed = (0..1000).filter(|_| flow.passes("a", &small, now)).count();
        assert_eq!(passed, 60);
        assert!(flow.passes("b", &small, now));
    }

    #[test]
    fn nodes_that_are_silent_are_forgotten_and_too_many_at_once_are_refused() {
        let (flow, begin) = (Flow::default(), Instant::now());
        let small = message(10);
        for at in 0..NODES {
            assert!(flow.passes(&format!("n{at}"), &small, begin));
        }
        assert!(!flow.passes("one-more", &small, begin));
        let later = begin + Duration::from_secs(10);
        assert!(flow.passes("one-more", &small, later));
        assert_eq!(flow.nodes.lock().unwrap().len(), 1);
    }
}
