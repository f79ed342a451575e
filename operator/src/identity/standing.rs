//! What a stream was let in with, and for how long.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use maplatency_proto::Token;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::{Caller, Refusal, Reviewer};

/// How soon the API server is asked again, where it could not be asked.
const SOON: Duration = Duration::from_secs(15);

/// The token of one stream.
#[derive(Debug)]
pub struct Standing {
    reviewer: Arc<Reviewer>,
    from: Option<IpAddr>,
    token: Token,
    caller: Caller,
    due: Instant,
}

impl Standing {
    /// Has a token reviewed.
    pub async fn begin(
        reviewer: Arc<Reviewer>,
        token: Token,
        from: Option<IpAddr>,
    ) -> Result<Self, Refusal> {
        let caller = reviewer.review(&token, from).await?;
        Ok(Self {
            due: due(&caller, reviewer.again),
            reviewer,
            from,
            token,
            caller,
        })
    }

    /// Who it is.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Whether it may speak for a node.
    pub fn speaks_for(&self, node: &str) -> Result<(), Refusal> {
        if self.caller.node == node {
            Ok(())
        } else {
            Err(Refusal::OtherNode {
                found: self.caller.node.clone(),
                said: node.to_owned(),
            })
        }
    }

    /// Resolves when it has to be looked at again.
    pub async fn is_due(&self) {
        sleep_until(self.due).await;
    }

    /// Looks at the token again. An API server that does not answer does not end a stream before its token does.
    pub async fn look(&mut self) -> Result<(), Refusal> {
        match self.reviewer.review(&self.token, self.from).await {
            Ok(caller) => self.go_on(caller),
            Err(refusal @ (Refusal::NoReview(_) | Refusal::TooMany)) => {
                warn!(node = %self.caller.node, error = %refusal, "Could not look at a token again");
                self.due = due(&self.caller, SOON.min(self.reviewer.again));
                Ok(())
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// Goes on with a fresh token. It has to be of an agent on the same node.
    pub async fn renew(&mut self, token: Token) -> Result<(), Refusal> {
        match self.reviewer.review(&token, self.from).await {
            Ok(caller) => {
                self.go_on(caller)?;
                self.token = token;
                debug!(node = %self.caller.node, expires = %self.caller.expires, "Took a fresh token");
                Ok(())
            }
            // It is looked at as the one before is, only sooner.
            Err(Refusal::NoReview(_) | Refusal::TooMany) => {
                self.token = token;
                self.due = due(&self.caller, SOON);
                Ok(())
            }
            Err(refusal) => Err(refusal),
        }
    }

    fn go_on(&mut self, caller: Caller) -> Result<(), Refusal> {
        if caller.node != self.caller.node {
            return Err(Refusal::OtherNode {
                found: caller.node,
                said: self.caller.node.clone(),
            });
        }
        self.due = due(&caller, self.reviewer.again);
        self.caller = caller;
        Ok(())
    }
}

/// When to look again, and when the token is over at the latest.
fn due(caller: &Caller, most: Duration) -> Instant {
    let left = caller.expires.duration_since(Timestamp::now());
    let left = Duration::try_from(left).unwrap_or_default();
    Instant::now() + left.min(most)
}
