//! Which of several operators leads: whoever holds the Lease, which changes hands by compare-and-swap.
//!
//! Every write names the `resourceVersion` that it replaces, so of two writers one is refused. No time of another
//! machine is ever compared with one of this: a lease has run out when its record stayed the same, as seen from here,
//! for as long as its holder said ([`decide`]). A holder gives up earlier than that, by its own clock and counted from
//! before the request that renewed ([`Leadership`]), and then the process ends: nothing that it has begun can be written
//! under the next leader.
//!
//! Needs get, create and update on leases in the operator's namespace.

mod decide;
mod election;
mod error;
mod fence;

use std::convert::Infallible;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

pub use decide::{Step, decide, promised};
pub use election::Election;
pub use error::{Error, Lost};
pub use fence::{Fence, Leadership, NotLeading};

use crate::chain::chain;

/// Name of the Lease.
pub const NAME: &str = "maplatency-operator";
/// What the release at the end may take; a process that was told to end is gone within two seconds.
const RELEASE: Duration = Duration::from_millis(500);

/// How long a lease lasts, and what follows from that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// After so long without a change another operator may take the lease. In whole seconds.
    pub lease: Duration,
}

impl Terms {
    /// A leader that has not renewed for so long ends.
    pub fn renew_deadline(self) -> Duration {
        self.lease * 2 / 3
    }

    /// Between two attempts.
    pub fn retry(self) -> Duration {
        self.lease / 6
    }

    /// For one request. The client alone would wait for the API server as long as it takes. So short that a second and
    /// a third one fit in before the deadline.
    fn request(self) -> Duration {
        self.lease / 6
    }

    /// After a renewal that failed.
    fn retry_soon(self) -> Duration {
        self.lease / 24
    }

    fn seconds(self) -> i32 {
        i32::try_from(self.lease.as_secs()).unwrap_or(i32::MAX)
    }
}

/// One that would lead.
#[derive(Debug)]
pub struct Candidate {
    api: Api<Lease>,
    me: String,
    terms: Terms,
    leadership: Leadership,
    owner: Option<OwnerReference>,
    seen: Option<Seen>,
    /// Until when another one may act on a lease that was deleted.
    promised: Option<Instant>,
    /// Whether the lease may have changed since it was seen.
    unsure: bool,
    /// The holder that was logged last.
    told: Option<String>,
}

/// The lease as it was seen last.
#[derive(Debug)]
struct Seen {
    lease: Lease,
    /// When its record was first seen as it is.
    since: Instant,
}

/// What one attempt came to.
#[derive(Debug, PartialEq, Eq)]
enum Round {
    Leads,
    /// Look again after so long.
    Waits(Duration),
}

impl Candidate {
    /// One of this name, which no other process may have. `client` should not repeat requests by itself. Where the lease
    /// is yet to be made, it goes with `owner`.
    pub fn new(
        client: Client,
        namespace: &str,
        me: String,
        terms: Terms,
        leadership: Leadership,
        owner: Option<OwnerReference>,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            me,
            terms,
            leadership,
            owner,
            seen: None,
            promised: None,
            unsure: false,
            told: None,
        }
    }

    /// Returns when this process leads.
    pub async fn acquire(&mut self) {
        loop {
            let wait = match self.attempt().await {
                Ok(Round::Leads) => break,
                Ok(Round::Waits(wait)) => wait,
                // Another was faster, so its promise is to be seen at once.
                Err(failure) if failure.is_conflict() => Duration::ZERO,
                Err(failure) => {
                    warn!(
                        error = chain(&failure),
                        "Could not stand for leader; trying again"
                    );
                    self.terms.retry()
                }
            };
            sleep(wait).await;
        }
        info!(me = self.me, "Leading");
    }

    /// Renews the lease for as long as that works.
    pub async fn keep(&mut self) -> Result<Infallible, Lost> {
        let mut wait = self.terms.retry();
        loop {
            sleep(wait.min(self.leadership.left())).await;
            wait = self.terms.retry();
            // Before a renewal that might succeed: what was begun before a long pause must not go on.
            if !self.leadership.holds() {
                return Err(Lost::NotRenewed(self.terms.renew_deadline()));
            }
            match timeout(self.leadership.left(), self.attempt()).await {
                Ok(Ok(Round::Leads)) => (),
                Ok(Ok(Round::Waits(_))) => return Err(Lost::Taken(self.holder())),
                Ok(Err(failure)) => {
                    warn!(
                        error = chain(&failure),
                        "Could not renew the lease; trying again"
                    );
                    wait = self.terms.retry_soon();
                }
                Err(_) => return Err(Lost::NotRenewed(self.terms.renew_deadline())),
            }
        }
    }

    /// Gives the lease back, so that the next leader need not wait. To be called when nothing is written any more.
    pub async fn release(&mut self) {
        self.leadership.end();
        match timeout(RELEASE, self.give_back()).await {
            Ok(Ok(())) => info!("Released the lease"),
            Ok(Err(failure)) => warn!(error = chain(&failure), "Could not release the lease"),
            Err(_) => warn!("Could not release the lease in time"),
        }
    }

    async fn give_back(&mut self) -> Result<(), Error> {
        // A renewal that was cut off may have been written, and then the first attempt names an older version.
        for last in [false, true] {
            if self.holder() != self.me {
                return Ok(());
            }
            let Some(Seen { mut lease, .. }) = self.seen.take() else {
                return Ok(());
            };
            let spec = lease.spec.get_or_insert_default();
            spec.holder_identity = None;
            spec.renew_time = Some(MicroTime(Timestamp::now()));
            match self.api.replace(NAME, &PostParams::default(), &lease).await {
                Ok(_) => return Ok(()),
                Err(source) => {
                    let failure = Error::Write { source };
                    if last || !failure.is_conflict() {
                        return Err(failure);
                    }
                    self.look().await?;
                }
            }
        }
        Ok(())
    }

    /// Whoever holds the lease, as far as is known.
    pub fn holder(&self) -> String {
        let spec = self.seen.as_ref().and_then(|it| it.lease.spec.as_ref());
        let holder = spec.and_then(|it| it.holder_identity.clone());
        holder.unwrap_or_default()
    }

    async fn attempt(&mut self) -> Result<Round, Error> {
        if let Ok(outcome) = timeout(self.terms.request(), self.round()).await {
            return outcome;
        }
        // It may have been written all the same.
        self.unsure = true;
        Err(Error::Timeout)
    }

    async fn round(&mut self) -> Result<Round, Error> {
        let leads = self.holder() == self.me;
        if !leads || self.unsure {
            self.look().await?;
            self.unsure = false;
        }
        // From before the request, so that the lease counts from no later than its record is written.
        let begin = Instant::now();
        let seen = self.seen.as_ref();
        let since = seen.map_or(begin, |it| it.since);
        let spec = seen.and_then(|it| it.lease.spec.as_ref());
        let step = decide(spec, &self.me, since, self.promised, begin);
        if let Step::Wait(rest) = step {
            self.tell();
            return Ok(Round::Waits(rest.min(self.terms.retry())));
        }
        let lease = self.record();
        let params = PostParams::default();
        let written = match step {
            Step::Create => self.api.create(&params, &lease).await,
            _ => self.api.replace(NAME, &params, &lease).await,
        };
        match written {
            Ok(lease) => {
                self.seen = Some(Seen {
                    lease,
                    since: begin,
                });
                self.leadership
                    .hold_until(begin + self.terms.renew_deadline());
                Ok(Round::Leads)
            }
            Err(source) => {
                self.unsure = true;
                Err(Error::Write { source })
            }
        }
    }

    /// Reads the lease.
    async fn look(&mut self) -> Result<(), Error> {
        let lease = self.api.get_opt(NAME).await;
        let lease = lease.map_err(|source| Error::Read { source })?;
        let now = Instant::now();
        let before = self.seen.take();
        if lease.is_none()
            && let Some(Seen { lease, since }) = &before
            && let Some(spec) = &lease.spec
            && spec.holder_identity.as_ref() != Some(&self.me)
        {
            self.promised = Some(*since + promised(spec));
        }
        self.seen = lease.map(|lease| {
            let same = before.filter(|it| it.lease.spec == lease.spec);
            let since = same.map_or(now, |it| it.since);
            Seen { lease, since }
        });
        self.leadership.looked(now);
        Ok(())
    }

    /// The lease with this process as its holder.
    fn record(&self) -> Lease {
        let now = MicroTime(Timestamp::now());
        let mut lease = match &self.seen {
            Some(seen) => seen.lease.clone(),
            None => Lease {
                metadata: ObjectMeta {
                    name: Some(NAME.to_owned()),
                    owner_references: self.owner.clone().map(|it| vec![it]),
                    ..ObjectMeta::default()
                },
                spec: None,
            },
        };
        let is_new = lease.spec.is_none();
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_ref() != Some(&self.me) {
            let transitions = spec.lease_transitions.unwrap_or_default();
            spec.lease_transitions = Some(transitions.saturating_add(i32::from(!is_new)));
            spec.acquire_time = Some(now.clone());
            spec.holder_identity = Some(self.me.clone());
        }
        spec.lease_duration_seconds = Some(self.terms.seconds());
        spec.renew_time = Some(now);
        lease
    }

    /// Logs who leads, once.
    fn tell(&mut self) {
        let holder = self.holder();
        if self.told.as_ref() != Some(&holder) {
            info!(leader = holder, me = self.me, "Standing by");
            self.told = Some(holder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_attempt_to_renew_fits_in_after_one_that_hangs() {
        let terms = Terms {
            lease: Duration::from_secs(6),
        };
        let failed = terms.request() + terms.retry_soon();
        assert!(terms.retry() + failed + terms.request() <= terms.renew_deadline());
    }
}
