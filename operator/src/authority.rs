//! The operator's certificate authority: who agents trust, and with what the operator shows that it is the one.
//!
//! Its keys are in the Secret [`NAME`] of the operator's namespace, and what agents are to trust is in the ConfigMap
//! of the same name. One step at a time ([`plan`]) is written with the version that it was decided on, so of two
//! replicas one writes and the other reads what it wrote. Nothing that goes wrong here ends the process: the
//! certificate in use stays, and it is tried again.
//!
//! ```text
//! new CA ─→ bundle of old and new ─→ (spread) ─→ certificate by the new CA ─→ (spread) ─→ bundle of the new
//! ```
//!
//! Needs get, create and update on this Secret and this ConfigMap.

mod error;
mod keys;
mod plan;
mod store;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, error, info};

pub use error::Error;
pub use keys::Names;
pub use plan::Terms;

use crate::chain::chain;
use crate::tls::Served;
use keys::Held;
use plan::Step;
use store::{Found, Store};

/// Name of the Secret and of the ConfigMap.
pub const NAME: &str = "maplatency-operator-ca";
/// The key of the ConfigMap under which the bundle is.
pub const BUNDLE: &str = "ca.crt";

/// The client alone would wait for as long as it takes; a look may not.
const LIMIT: Duration = Duration::from_secs(20);
/// Pause after a look that failed.
const AGAIN: Duration = Duration::from_secs(5);
/// Steps of one look. More than any rotation needs at once.
const STEPS: usize = 8;

/// Keeps authority and certificate in order.
#[derive(Clone)]
pub struct Keeper {
    store: Store,
    terms: Terms,
    names: Names,
    served: Arc<Served>,
}

impl Keeper {
    /// Nothing is looked at yet. The certificate goes to `served`. What is yet to be made goes with `owner`.
    pub fn new(
        client: Client,
        namespace: &str,
        owner: Option<OwnerReference>,
        terms: Terms,
        names: Names,
        served: Arc<Served>,
    ) -> Self {
        Self {
            store: Store::new(client, namespace, owner),
            terms,
            names,
            served,
        }
    }

    /// Runs for as long as the process. Says in `ready` when agents can be served.
    pub async fn run(self, ready: watch::Sender<bool>) -> Infallible {
        loop {
            let pause = match timeout(LIMIT, self.look()).await {
                Ok(Ok(())) => {
                    ready.send_if_modified(|it| !std::mem::replace(it, true));
                    self.terms.between_looks()
                }
                Ok(Err(failure)) => {
                    error!(
                        error = chain(&failure),
                        class = failure.class(),
                        "Could not keep the CA in order; trying again"
                    );
                    AGAIN.min(self.terms.between_looks())
                }
                Err(_) => {
                    error!("The API server did not answer about the CA in time; trying again");
                    AGAIN.min(self.terms.between_looks())
                }
            };
            sleep(pause).await;
        }
    }

    /// Takes all steps that are due, and serves with what is there then.
    async fn look(&self) -> Result<(), Error> {
        for _ in 0..STEPS {
            let now = Timestamp::now();
            let found = self.store.read().await?;
            let held = held(&found);
            let facts = held.as_ref().map(|it| it.facts(&self.names, now));
            let published = held.as_ref().and_then(|it| found.published(&it.bundle()));
            let step = plan::next(facts.as_ref(), published, self.terms, now);
            let Some(step) = step else {
                let held = held.expect("without keys the next step is to begin");
                self.served.replace(held.serving()?);
                return Ok(());
            };
            match self.take(step, held, &found, now).await {
                Ok(()) => info!(?step, "Changed the CA or its certificate"),
                // Another replica was faster; what it wrote is read now.
                Err(Error::Raced) => debug!(?step, "Another replica wrote first"),
                Err(failure) => return Err(failure),
            }
        }
        Err(Error::NoEnd)
    }

    async fn take(
        &self,
        step: Step,
        held: Option<Held>,
        found: &Found,
        now: Timestamp,
    ) -> Result<(), Error> {
        let held = match held {
            Some(held) => held,
            None => Held::begin(self.terms, &self.names, now)?,
        };
        let next = match step {
            Step::Begin => Held::begin(self.terms, &self.names, now)?,
            Step::Publish => return self.store.publish(&held.bundle(), found, now).await,
            Step::Prepare => held.prepared(self.terms, now)?,
            Step::Promote => held.promoted(self.terms, &self.names, now)?,
            Step::Renew => held.renewed(self.terms, &self.names, now)?,
            Step::Retire => held.retired(),
        };
        self.store.keep(&next, found).await
    }
}

/// What the Secret holds. What cannot be read is as good as lost.
fn held(found: &Found) -> Option<Held> {
    let secret = found.secret.as_ref()?;
    Held::read(secret)
        .inspect_err(|failure| {
            error!(
                error = chain(failure),
                "Secret {NAME} holds no usable CA; making a new one"
            );
        })
        .ok()
}
