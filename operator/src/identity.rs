//! Who an agent is: the pod of the node that it speaks for.
//!
//! An agent shows a service account token of its pod, made by the kubelet for the audience `maplatency-operator`. What
//! a glance shows to be no such token is refused at once ([`verdict::Claims`]); everything else the API server says
//! (`TokenReview`): whether it signed the token, for whom, whether it is over, and whether pod and service account
//! still exist. Of a pod's token it also tells the node, and only for that node the agent may speak.
//!
//! An answer is kept for less than a minute ([`cache`]). A stream that stands is asked about again every few minutes
//! (`--token-review-period`), and ends when its token does, unless a fresh one came.
//!
//! Needs create on tokenreviews.

mod cache;
mod refusal;
mod standing;
mod verdict;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use maplatency_core::rate::{Bucket, Rate};
use maplatency_proto::{AUDIENCE, Token};
use tokio::sync::Semaphore;
use tokio::time::timeout;

pub use refusal::Refusal;
pub use standing::Standing;
pub use verdict::Caller;

use crate::agents;
use crate::chain::chain;
use cache::Cache;
use verdict::Claims;

/// The client alone would wait for as long as it takes, and so would an agent.
const LIMIT: Duration = Duration::from_secs(3);
/// Reviews at once: the API server has other things to do.
const AT_ONCE: usize = 16;
/// Reviews for one address. Behind one address there may be many nodes, all of which connect after a restart.
const PER_ADDRESS: Rate = Rate {
    each: Duration::from_millis(50),
    burst: 200,
};
/// Addresses remembered.
const ADDRESSES: usize = 4096;

/// Who is let in.
#[derive(Clone, Debug)]
pub enum Admission {
    /// Whoever comes, as whatever node. In plaintext there is nothing to check.
    Anyone,
    /// Agents, by their tokens.
    ByToken(Arc<Reviewer>),
}

/// Asks the API server about tokens.
pub struct Reviewer {
    reviews: Api<TokenReview>,
    /// The user that agents are to the API server.
    user: String,
    /// How often to ask about the token of a stream that stands.
    again: Duration,
    cache: Mutex<Cache>,
    addresses: Mutex<HashMap<IpAddr, Bucket>>,
    at_once: Semaphore,
}

impl fmt::Debug for Reviewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reviewer of {}", self.user)
    }
}

impl Reviewer {
    /// For the agents of this namespace. The tokens of streams that stand are reviewed `again` after so long.
    pub fn new(client: Client, namespace: &str, again: Duration) -> Self {
        Self {
            reviews: Api::all(client),
            user: format!("system:serviceaccount:{namespace}:{}", agents::NAME),
            again,
            cache: Mutex::new(Cache::new(again)),
            addresses: Mutex::default(),
            at_once: Semaphore::new(AT_ONCE),
        }
    }

    /// Whose token it is. Asks the API server, unless it did so a short time ago.
    pub async fn review(&self, token: &Token, from: Option<IpAddr>) -> Result<Caller, Refusal> {
        let claims = Claims::read(token, Timestamp::now())?;
        if let Some(known) = self.cache().get(token, Instant::now()) {
            return known;
        }
        if !from.is_none_or(|it| self.may_ask_for(it)) {
            return Err(Refusal::TooMany);
        }
        let outcome = timeout(LIMIT, self.ask(token, claims))
            .await
            .unwrap_or_else(|_| Err(Refusal::NoReview("it did not answer in time".to_owned())));
        self.cache().put(token, &outcome, Instant::now());
        outcome
    }

    async fn ask(&self, token: &Token, claims: Claims) -> Result<Caller, Refusal> {
        let no_review = |it: &dyn fmt::Display| Refusal::NoReview(it.to_string());
        let _turn = self.at_once.acquire().await.map_err(|it| no_review(&it))?;
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.secret().to_owned()),
                audiences: Some(vec![AUDIENCE.to_owned()]),
            },
            ..TokenReview::default()
        };
        let answer = self
            .reviews
            .create(&PostParams::default(), &review)
            .await
            .map_err(|it| no_review(&chain(&it)))?;
        verdict::verdict(&answer.status.unwrap_or_default(), &self.user, claims)
    }

    fn may_ask_for(&self, address: IpAddr) -> bool {
        let now = Instant::now();
        let mut addresses = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if addresses.len() >= ADDRESSES && !addresses.contains_key(&address) {
            addresses.retain(|_, it| !it.is_full(now));
            if addresses.len() >= ADDRESSES {
                return false;
            }
        }
        let bucket = addresses.entry(address).or_default();
        bucket.take(PER_ADDRESS, 1, now)
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
