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
    /// The one that was accepted last.
    token: Token,
    /// A later one that the API server could not be asked about yet.
    fresh: Option<Token>,
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
            fresh: None,
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

    /// Looks at the token again, the fresh one first. An API server that does not answer does not end a stream before the
    /// token that it has accepted does.
    pub async fn look(&mut self) -> Result<(), Refusal> {
        let token = self.fresh.as_ref().unwrap_or(&self.token);
        // Whoever shares the address does not keep this one from being asked about.
        match self.reviewer.review(token, None).await {
            Ok(caller) => {
                self.go_on(caller)?;
                if let Some(fresh) = self.fresh.take() {
                    self.token = fresh;
                }
                Ok(())
            }
            Err(refusal @ (Refusal::NoReview(_) | Refusal::TooMany)) => self.wait(&refusal),
            Err(refusal) => Err(refusal),
        }
    }

    /// Goes on with a fresh token. It has to be of an agent on the same node, and counts once the API server has said so.
    pub async fn renew(&mut self, token: Token) -> Result<(), Refusal> {
        match self.reviewer.review(&token, self.from).await {
            Ok(caller) => {
                self.go_on(caller)?;
                self.token = token;
                self.fresh = None;
                debug!(node = %self.caller.node, expires = %self.caller.expires, "Took a fresh token");
                Ok(())
            }
            Err(refusal @ (Refusal::NoReview(_) | Refusal::TooMany)) => {
                self.fresh = Some(token);
                self.wait(&refusal)
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// Tries again soon, unless the time is over that the API server has given this stream.
    fn wait(&mut self, refusal: &Refusal) -> Result<(), Refusal> {
        warn!(node = %self.caller.node, error = %refusal, "Could not look at a token again");
        if self.caller.expires <= Timestamp::now() {
            return Err(Refusal::Expired);
        }
        self.due = due(&self.caller, SOON.min(self.reviewer.again));
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::verdict::tests::token_until;

    /// A stream whose accepted token is over in so many seconds, while no API server can be asked.
    fn standing(seconds: i64) -> Standing {
        let nowhere = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let client = kube::Client::try_from(nowhere).unwrap();
        let caller = Caller {
            node: "node-a".to_owned(),
            pod: "pod".to_owned(),
            expires: later(seconds),
        };
        Standing {
            reviewer: Arc::new(Reviewer::new(client, "n", Duration::from_mins(5))),
            from: None,
            token: token_until(later(60)),
            fresh: None,
            due: due(&caller, SOON),
            caller,
        }
    }

    fn later(seconds: i64) -> Timestamp {
        let now = Timestamp::now().as_second();
        Timestamp::from_second(now + seconds).unwrap()
    }

    #[tokio::test]
    async fn a_token_that_nobody_has_reviewed_does_not_lengthen_a_stream() {
        let mut over = standing(-1);
        let fresh = token_until(later(3_600));
        assert_eq!(over.renew(fresh.clone()).await, Err(Refusal::Expired));
        over.fresh = Some(fresh.clone());
        assert_eq!(over.look().await, Err(Refusal::Expired));

        let mut stands = standing(8);
        let token = stands.token.secret().to_owned();
        assert_eq!(stands.renew(fresh).await, Ok(()));
        assert_eq!(stands.token.secret(), token, "the accepted one stays");
        let left = stands.due.duration_since(Instant::now());
        assert!(left <= Duration::from_secs(8), "{left:?}");
        assert!(left > Duration::from_secs(5), "not again at once: {left:?}");
    }
}
